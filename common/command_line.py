"""A command line from a dataclass: every field is a flag, its trailing comment the help."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect as pyinspect
import math
import re
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

import common
from common import ROOT, artefact
from common.pictures import expand

# ---- command line: generated from a dataclass ----------------------------------------------------


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
    def flags(self) -> tuple:
        """These, for the command of another stage."""
        return (
            "--workers",
            str(self.workers),
            *(("--ray", self.ray) if self.ray else ()),
            *("--fresh",) * self.fresh,
        )


INCIDENTAL = {
    "device",
    "fresh",
    "videos",
    "nitrogen",
    "out",
    "workers",
    "ray",
    "labels",
    "sheet",
    "preview",
    "command",
}


def recipe_of(cfg, *sources) -> dict:
    """What decides a result: the Config's fields, less those that only say where and how fast, and
    the inputs.
    """
    return {
        **{k: v for k, v in dataclasses.asdict(cfg).items() if k not in INCIDENTAL},
        "source": [artefact.source(p) for p in sources],
    }


def expect(cfg, **bounds) -> None:
    """SystemExit with one line if a number among the Config's fields is not within its (least,
    most).
    """
    for name, (least, most) in bounds.items():
        if not least <= (v := getattr(cfg, name)) <= most:  # NaN is neither
            raise SystemExit(
                f"--{name.replace('_', '-')} {v:g}: expected "
                + (f"{least:g} to {most:g}" if most < math.inf else f"at least {least:g}")
            )


def command_line(doc: str, commands: dict, argv=None, inspect=artefact.show):
    """Run one of `commands`: name -> (Config class or dict of presets, function(cfg)), or the name
    of a file that is imported only then, see `opened`; "" is the default.  inspect: for --inspect.

    Flags come from the dataclass's fields, their help from the trailing comments.  Fields of type
    tuple[str, ...] are positional, except `command`: what follows `--`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    rest = ()
    if "--" in argv:
        cut = argv.index("--")
        argv, rest = argv[:cut], tuple(argv[cut + 1 :])
    named = bool(argv) and argv[0] in commands and argv[0] != ""
    if not named and "" not in commands and not ({"-h", "--help", "--inspect"} & set(argv)):
        found = f"unknown command '{argv[0]}'" if argv else "no command given"
        raise SystemExit(f"{found}: expected one of {', '.join(commands)} (see --help)")
    name = argv.pop(0) if named else ""
    presets, run = opened(commands.get(name, (Common, None)))
    presets = presets if isinstance(presets, dict) else {"default": presets()}
    # --help tells the defaults of the preset that is asked for
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--config", nargs="?")
    first = presets.get(asked.parse_known_args(argv)[0].config, next(iter(presets.values())))
    others = [c for c in commands if c]
    parser = argparse.ArgumentParser(
        prog=f"python {Path(sys.argv[0]).name} {name}".strip(),
        description=about(doc, name, run),
        epilog=f"commands: {', '.join(others)}" if others and not name else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    wants = any(f.name == "command" for f in dataclasses.fields(first))
    put = "; put -- before the game's command" if wants and not rest else ""
    # one line, status 1
    parser.error = lambda message: sys.exit(
        f"{parser.prog}: {message}{put if 'unrecognized' in message else ''} (see --help)"
    )
    parser.add_argument("--inspect", metavar="FILE", help="print what an artefact is, and stop")
    if len(presets) > 1:
        parser.add_argument(
            "--config",
            choices=presets,
            default=next(iter(presets)),
            help="preset (default: %(default)s)",
        )
    hints, helps = typing.get_type_hints(type(first)), field_comments(type(first))
    for f in dataclasses.fields(first):
        text = f"{helps.get(f.name, '')} (default: {getattr(first, f.name)!r})".replace("%", "%%")
        flag = "--" + f.name.replace("_", "-")
        if f.name == "command":
            continue
        elif typing.get_origin(hints[f.name]) is tuple:
            parser.add_argument(
                f.name, nargs="*", metavar=f.name.rstrip("s").upper(), help=helps.get(f.name)
            )
        elif hints[f.name] is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            parser.add_argument(
                flag,
                type=hints[f.name],
                default=None,
                help=text,
                metavar=hints[f.name].__name__.upper(),
            )
    if wants:
        parser.usage = parser.format_usage().removeprefix("usage: ").rstrip() + " -- COMMAND..."
    args = vars(parser.parse_args(argv))
    if args.pop("inspect"):
        return inspect(parser.parse_args(argv).inspect)
    cfg = presets[args.pop("config", None) or next(iter(presets))]
    given = {
        k: tuple(v) if isinstance(v, list) else v for k, v in args.items() if v not in (None, [])
    }
    if "videos" in given:
        given["videos"] = expand(given["videos"])
    if wants and rest:
        given["command"] = rest
    elif rest:
        parser.error(f"nothing may follow '--' here: {' '.join(rest)}")
    try:
        return run(dataclasses.replace(cfg, **given))
    except common.Fault as e:
        raise SystemExit(str(e)) from None
    except KeyboardInterrupt:
        raise SystemExit(
            "interrupted; finished work is kept, the same command goes on from there"
        ) from None


def opened(command) -> tuple:
    """(Config class or presets, function) of a command; "bench.speed" names a file of another
    folder: its Config and main; "file:name": its Name, or else its Config, and name.
    """
    if isinstance(command, tuple):
        return command
    file, _, name = command.partition(":")
    module = importlib.import_module(file)
    return getattr(module, name.title() or "Config", None) or module.Config, getattr(
        module, name or "main"
    )


def wing(file: str):
    """The module of a file that no stage needs but for one of its options: imported when that is
    asked for.
    """
    return importlib.import_module(file)


def about(doc: str, name: str, run) -> str:
    """What --help says: all of a stage, or of one of its commands what its function says and its
    lines in the stage's examples.
    """
    lines = re.findall(rf"^ +python \S+ {name}\b.*$", doc, re.M)
    return (
        doc
        if not name
        else "\n\n".join(filter(None, [pyinspect.getdoc(run) or "", "\n".join(lines)]))
    )


def field_comments(cls) -> dict:
    """Field name -> its comment, behind it or in the lines above it, over a dataclass and its
    bases.
    """
    out = {}
    for c in reversed(cls.__mro__[:-1]):
        # inspect.getsource of a class would parse its whole file, at every start
        file = Path(pyinspect.getsourcefile(c)).read_text("utf-8")
        above = []
        for line in re.search(rf"^class {c.__name__}\b.*?(?=^\S|\Z)", file, re.M | re.S)[
            0
        ].splitlines():
            field = re.match(r"    (\w+): [^#]*(?:#\s*(.+))?$", line)
            if field and (field[2] or above):
                out[field[1]] = field[2] or " ".join(above)
            comment = re.match(r"    # (.+)$", line)
            above = [*above, comment[1]] if comment else []
    return out


def shipped(path: str) -> str:
    """A path as it was given, or else the same in the project: weights/ is found from any folder."""
    return str(ROOT / path) if not Path(path).exists() and (ROOT / path).exists() else path


def run_stage(*command: str) -> None:
    """Print a command as one would type it, and run it; many videos are shown by their pattern."""
    videos, shown = (
        [a for a in command if a.endswith(".mp4") == is_video] for is_video in (True, False)
    )
    if videos:
        shown.insert(1, str(Path(videos[0]).parent / "*.mp4"))
    print(f"\n$ python {' '.join(shown)}", flush=True)
    if status := subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]]).returncode:
        raise SystemExit(
            f"{command[0]} stopped with status {status}; mend it and run the same command again: finished parts are kept"
        )
