"""A command line from a dataclass: every field is a flag, its comment (or metadata) the help.

A stage ends in command_line(__doc__, {"": (Config, main), "train": (CONFIGS, train), ...}).  A wing
is named in a string, as in "bench.speed", and imported only when its command is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect as pyinspect
import math
import re
import shlex
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

import common
from common import ROOT, artefact
from common.inputs import expand
from common.memory import lacking

# ---- what the commands of all stages have --------------------------------------------------------


@dataclass(frozen=True)
class Common:
    """Flags that every stage has."""

    seed: int = 0  # every random number follows from it
    device: str = "auto"  # auto, cpu, cuda or mps
    fresh: bool = False  # replace finished outputs


@dataclass(frozen=True)
class Many(Common):
    """And those of the stages that work through many items (for_each)."""

    workers: int = 1  # processes; 0: this one, for a debugger; with --ray local its CPUs
    # host:port or ray://host:port of a Ray cluster (all paths, and this folder, on storage that it
    # shares), or local
    ray: str = ""

    @property
    def flags(self) -> list[str]:
        """These, for the command of another stage."""
        return flags(workers=self.workers, ray=self.ray or None, fresh=self.fresh)


# fields that only say where and how fast
INCIDENTAL = (
    "device fresh videos nitrogen lerobot camera actions out workers ray labels sheet preview "
    "command partial"
).split()


def recipe_of(cfg, *sources) -> dict:
    """What decides a result: the Config's fields without the INCIDENTAL ones, and the inputs."""
    recipe = {k: v for k, v in dataclasses.asdict(cfg).items() if k not in INCIDENTAL}
    return {**recipe, "source": [artefact.source(path) for path in sources]}


def expect(cfg, **bounds) -> None:
    """SystemExit with one line if a numeric field of the Config is not within its (least, most)."""
    for name, (least, most) in bounds.items():
        value = getattr(cfg, name)
        if not least <= value <= most:  # NaN is outside of all bounds
            flag = "--" + name.replace("_", "-")
            wanted = f"{least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
            raise SystemExit(f"{flag} {value:g}: expected {wanted}")


# ---- from argv to a call -------------------------------------------------------------------------

# Two fields of type tuple[str, ...] have a meaning; any other is positional as it is.
VIDEOS = "videos"  # positional, and expanded: folders, patterns, @list.txt
REST = "command"  # the words after "--": a game's command


def command_line(
    doc: str, commands: dict, argv=None, inspect=artefact.show, smaller: str = "fewer --workers"
):
    """Run the command that `argv` asks for: its function's result.

    commands: name -> (Config class or dict of presets, function(cfg)), or the name of a file, see
    `opened`; "" is the default.    inspect: function(path), for --inspect.    smaller: the flags
    by which they need less memory.
    A Fault, too little memory and Ctrl-C end in SystemExit with one line.
    """
    run, given = parse(doc, commands, list(sys.argv[1:] if argv is None else argv), inspect)
    try:
        return run(given)
    except common.Fault as e:
        raise SystemExit(str(e)) from None
    except (RuntimeError, OSError, MemoryError) as e:
        if not (line := lacking(e, smaller)):
            raise
        raise SystemExit(line) from None
    except KeyboardInterrupt:
        raise SystemExit(
            "interrupted; finished work is kept, the same command goes on from there"
        ) from None


def parse(doc: str, commands: dict, argv: list, inspect) -> tuple:
    """(function, its argument): a command's with a Config, or `inspect` with a path."""
    cut = argv.index("--") if "--" in argv else len(argv)
    rest = tuple(argv[cut + 1 :])
    argv = argv[:cut]
    name, argv = command_in(argv, commands)
    presets, run = opened(commands.get(name, (Common, None)))
    if not isinstance(presets, dict):
        presets = {"default": presets()}
    shown = preset_in(argv, presets)
    takes_rest = hasattr(shown, REST)
    others = [c for c in commands if c]
    parser = Parser(
        prog=f"python {Path(sys.argv[0]).name} {name}".strip(),
        description=about(doc, name, run),
        epilog=f"commands: {', '.join(others)}" if others and not name else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser, presets, shown)
    if takes_rest and not rest:
        parser.hint = "; put -- before the game's command"
    args = vars(parser.parse_args(argv))
    if path := args.pop("inspect"):
        return inspect, path
    if rest and not takes_rest:
        parser.error(f"nothing may follow '--' here: {' '.join(rest)}")
    cfg = presets[args.pop("config", next(iter(presets)))]
    return run, with_flags(cfg, args, rest)


class Parser(argparse.ArgumentParser):
    """A fault is one line, with status 1."""

    hint = ""  # what may mend an unrecognized word

    def error(self, message):
        hint = self.hint if "unrecognized" in message else ""
        sys.exit(f"{self.prog}: {message}{hint} (see --help)")


def command_in(argv: list, commands: dict) -> tuple[str, list]:
    """(command, the words after it), "" for the default; SystemExit if there is neither."""
    if argv and argv[0] and argv[0] in commands:
        return argv[0], argv[1:]
    if "" not in commands and not {"-h", "--help", "--inspect"} & set(argv):
        found = f"unknown command '{argv[0]}'" if argv else "no command given"
        raise SystemExit(f"{found}: expected one of {', '.join(commands)} (see --help)")
    return "", argv


def preset_in(argv: list, presets: dict):
    """The preset that --config asks for, or the first: its values are the defaults in --help."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    first = next(iter(presets.values()))
    return presets.get(parser.parse_known_args(argv)[0].config, first)


def add_flags(parser: Parser, presets: dict, shown) -> None:
    """--inspect, --config and the fields of the Config, with the values of `shown` in --help."""
    parser.add_argument("--inspect", metavar="FILE", help="print what an artefact is, and stop")
    if len(presets) > 1:
        first = next(iter(presets))
        text = "preset (default: %(default)s)"
        parser.add_argument("--config", choices=presets, default=first, help=text)
    add_fields(parser, shown)
    if hasattr(shown, REST):
        usage = parser.format_usage().removeprefix("usage: ").rstrip()
        parser.usage = f"{usage} -- COMMAND..."


def add_fields(parser: Parser, cfg) -> None:
    """An argument for each field of the Config; one that is not given becomes None or []."""
    types = typing.get_type_hints(type(cfg))
    comments = field_comments(type(cfg))
    for field in dataclasses.fields(cfg):
        name = field.name
        kind = types[name]
        comment = field.metadata.get("help") or comments.get(name)
        if name == REST:
            continue
        if typing.get_origin(kind) is tuple:
            metavar = name.rstrip("s").upper()
            parser.add_argument(name, nargs="*", metavar=metavar, help=comment)
            continue
        text = f"{comment or ''} (default: {getattr(cfg, name)!r})".replace("%", "%%")
        options = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        parser.add_argument("--" + name.replace("_", "-"), default=None, help=text, **options)


def with_flags(cfg, args: dict, rest: tuple):
    """The Config with what was given."""
    given = {}
    for name, value in args.items():
        if isinstance(value, list):
            value = expand(value) if name == VIDEOS and value else tuple(value)
        if value not in (None, ()):
            given[name] = value
    if rest:
        given[REST] = rest
    return dataclasses.replace(cfg, **given)


def opened(command) -> tuple:
    """(Config class or dict of presets, function) of a command.

    A string names a file of a wing: "bench.speed" stands for its Config and main, "file:name" for
    its Name, or else its Config, and name.
    """
    if isinstance(command, tuple):
        return command
    file, _, name = command.partition(":")
    module = importlib.import_module(file)
    config = getattr(module, name.title() or "Config", None) or module.Config
    return config, getattr(module, name or "main")


def wing(file: str):
    """The module of a file that only one option of a stage needs: imported when asked for."""
    return importlib.import_module(file)


# ---- help ----------------------------------------------------------------------------------------


def about(doc: str, name: str, run) -> str:
    """What --help says of a stage: its docstring; of a command: its function's, and its lines in
    the stage's examples.
    """
    if not name:
        return doc
    # An example goes on in lines that are indented further.
    examples = re.finditer(rf"^( +)python \S+ {name}\b.*(?:\n\1 {{4,}}\S.*)*", doc, re.M)
    lines = "\n".join(example[0] for example in examples)
    return "\n\n".join(filter(None, [pyinspect.getdoc(run), lines]))


def field_comments(cls) -> dict:
    """Field name -> its comment, behind it or in the lines above it, over a dataclass and its
    bases.
    """
    out = {}
    for base in reversed(cls.__mro__[:-1]):
        # inspect.getsource of a class would parse its whole file, at every start
        source = Path(pyinspect.getsourcefile(base)).read_text("utf-8")
        body = re.search(rf"^class {base.__name__}\b.*?(?=^\S|\Z)", source, re.M | re.S)[0]
        above = []
        for line in body.splitlines():
            field = re.match(r"    (\w+): [^#]*(?:#\s*(.+))?$", line)
            if field and (field[2] or above):
                out[field[1]] = field[2] or " ".join(above)
            comment = re.match(r"    # (.+)$", line)
            above = [*above, comment[1]] if comment else []
    return out


# ---- stages that run other stages ----------------------------------------------------------------


def shipped(path: str) -> str:
    """A path as it was given, or else the same in the project, so that weights/ is found from
    any folder.
    """
    ours = not Path(path).exists() and (ROOT / path).exists()
    return str(ROOT / path) if ours else path


def flags(**values) -> list[str]:
    """--name value, of each; True is --name alone, False and None are left out."""
    words = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return words


def typed(*command: str) -> str:
    """A command of a stage as one would type it: a path with spaces in quotes."""
    return shlex.join(["python", *command])


def run_stage(*command: str) -> None:
    """Print a command as one would type it, and run it; many videos are shown by their pattern."""
    videos = [word for word in command if word.endswith(".mp4")]
    shown = [word for word in command if not word.endswith(".mp4")]
    if videos:
        shown.insert(1, str(Path(videos[0]).parent / "*.mp4"))
    print(f"\n$ {typed(*shown)}", flush=True)
    status = subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]]).returncode
    if status:
        raise SystemExit(
            f"{command[0]} stopped with status {status}; mend it and run the same command again: "
            "finished parts are kept"
        )
