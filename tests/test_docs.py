"""README.md and docs/: every command parses with the real parsers, every file that they name is
there, and the front page stays one.

Nothing that a command would do is done.  A command is a line of a fenced bash block, or a code span
that starts like one.
"""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

from common import ROOT
from common.command_line import command_line, opened

import pytest

import sim

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAGES = ("extract", "parse", "filter", "model", "train", "sim", "eval")
# before command_line is replaced: they keep the true one
MODULES = [importlib.import_module(name) for name in STAGES]
FIRST = (
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
    "python train.py --config tiny"
)
SECOND = "python -m pytest tests"
ROOMS = r"assets|bench|clock|common|devices|docs|games|live|released|templates|tests|weights|\.ci"
# programs that a page may start
HANDLED = {"python", "python3", "torchrun", "pip", "sudo", "ssh", ".", "chrt", "grep", "robovet"}


def text(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text(page), re.M | re.S)


def spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S))


def in_page(page: Path) -> list[str]:
    """Its commands, one a line, and those in its tables: "python FILE ..." with what is optional
    taken out of its [brackets].
    """
    lines = [
        line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line.strip() and not line.startswith("#")] + [
        re.sub(r"[\[\]]", "", span)
        for span in spans(page)
        if re.match(r"(python3?|torchrun|pip|sudo) ", span)
    ]


COMMANDS = [(page.name, line) for page in PAGES for line in in_page(page)]


# ---- a command, taken apart


def words(line: str) -> list[list[str]]:
    """The simple commands of a line of shell, in words, without what sets the environment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    out = [[]]
    for word in lexer:
        if re.fullmatch("[&;|]+", word):
            out.append([])
        elif out[-1] or not re.match(r"\w+=", word):
            out[-1].append(word)
    return out


def check(argv: list[str], config) -> None:
    """Parse one simple command; SystemExit or ValueError, in words, for what it could not be run
    with.
    """
    program, *rest = argv
    if program not in HANDLED:
        raise ValueError(f"{program}: a program that tests/test_docs.py does not know")
    if program == "torchrun":
        from torch.distributed.run import get_args_parser

        args = get_args_parser().parse_args(rest)
        check(["python", args.training_script, *args.training_script_args], config)
    elif program == "pip":
        packages(rest)
    elif program in ("python", "python3"):
        python(rest, config)


def packages(rest: list[str]) -> None:
    if rest[:1] != ["install"] or len(rest) < 2:
        raise ValueError(f"pip {' '.join(rest)}: expected install and packages")
    if "-r" in rest and not (ROOT / rest[rest.index("-r") + 1]).is_file():
        raise ValueError(f"pip: {rest[rest.index('-r') + 1]} is not there")


def python(rest: list[str], config) -> None:
    if rest[:2] == ["-m", "pytest"]:
        return pytest_line(rest[2:], config)
    if rest[0] == "-m":
        return importlib.import_module(rest[1]) and None
    script = ROOT / rest[0]
    if not script.is_file():
        raise ValueError(f"{rest[0]}: no such script")
    if script.parent.name == "games":
        game(script, rest[1:])
    elif script.stem in STAGES:
        stage(script.stem, rest[1:])
        if "--" in rest and (command := rest[rest.index("--") + 1 :])[:1] == ["python"]:
            python(command[1:], config)
    elif rest[1:]:
        raise ValueError(f"{rest[0]} takes no arguments")


def pytest_line(rest: list[str], config) -> None:
    """Options that pytest knows, also those of conftest.py; files that are there.  -k names what
    some test is called.
    """
    while rest:
        word, *rest = rest
        if not word.startswith("-"):
            if not (ROOT / word.partition("::")[0]).exists():
                raise ValueError(f"pytest: {word} is not there")
            continue
        value = config.getoption(word)  # ValueError for one that is not known
        if not isinstance(value, (bool, type(None))) and word not in ("-s", "-q", "-x"):
            rest = rest[1:]


def stage(name: str, argv: list[str]) -> None:
    """What `python NAME.py ARGV` does up to the moment where it would run; SystemExit is the
    parser's own message.
    """
    done = []

    def parse(doc, commands, argv=None, inspect=None, smaller=""):
        quiet = {k: (opened(command)[0], done.append) for k, command in commands.items()}
        real(doc, quiet, argv, done.append)

    real = command_line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.command_line.command_line", parse)
        # the videos need not be there
        patch.setattr("common.command_line.expand", lambda videos: tuple(videos))
        patch.setattr(sim.signal, "signal", lambda *a: None)
        patch.setattr(sys, "argv", [f"{name}.py", *argv])
        try:
            runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
        except SystemExit as e:
            if "--help" not in argv:
                raise ValueError(str(e)) from None
    if done and name == "eval" and hasattr(done[0], "games") and hasattr(done[0], "tasks"):
        importlib.import_module(name).chosen(
            done[0].games, "all" if done[0].suite else done[0].tasks
        )


def game(script: Path, argv: list[str]) -> None:
    class Parsed(Exception):
        pass

    def stop(task, seed):
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(script.parent))
        module, console = importlib.import_module(script.stem), importlib.import_module("console")
        patch.setattr(sys, "argv", [script.name, *argv])
        try:
            console.main(stop, module.TASKS, "")
        except Parsed:
            return
        except SystemExit:
            raise ValueError(f"{script.name}: {' '.join(argv)} is not understood") from None


def faults(line: str, config) -> list[str]:
    out = []
    for argv in words(line):
        try:
            check(argv, config)
        except (SystemExit, ValueError, ImportError) as e:
            out.append(f"{' '.join(argv)}: {e}")
    return out


# ---- tests


def test_every_command_parses(pytestconfig):
    found = [f"{page}: {fault}" for page, line in COMMANDS for fault in faults(line, pytestconfig)]
    assert not found, "\n".join(found)
    assert len(COMMANDS) > 80 and {page for page, _ in COMMANDS} >= {
        page.name for page in PAGES
    } - {"paper-to-code.md"}


@pytest.mark.parametrize(
    "line, why",
    [
        ("python train.py --confg tiny", "unrecognized arguments: --confg"),
        ("python train.py --config huge", "invalid choice: 'huge'"),
        ("python eval.py play --seds 3", "unrecognized"),
        ("python eval.py ply", "unknown command 'ply'"),
        ("python eval.py play --seeds many", "invalid int"),
        ("python eval.py play --games ridge --tasks raech", "no task or category 'raech'"),
        ("python filter.py --videos DIR --rte 60", "unrecognized"),
        ("python extract.py my.mp4 --sheets", "unrecognized"),
        ("python parse.py train --minute 5", "unrecognized"),
        ("python model.py bench --nett tiny", "unrecognized"),
        ("python sim.py play --sped 1 -- game", "unrecognized"),
        ("python sim.py step -- python games/ridge.py --fsp 30", "not understood"),
        ("python games/ridge.py --task raech", "not understood"),
        ("python games/rigde.py", "no such script"),
        ("python trian.py", "no such script"),
        ("python -m pytest tests/test_nothing.py", "not there"),
        ("python -m pytest tests --soke 60", "soke"),
        ("pip install -r requirement.txt", "not there"),
        ("torchrun --nproc-per-node 8 train.py --config papr", "invalid choice: 'papr'"),
        ("torchrun --max-restart-s 3 train.py", ""),
        ("pyhton train.py", "does not know"),
        ("python sim.py doctor      what works", "unrecognized"),
        ("cd x && python train.py --config tiny", "does not know"),
    ],
)
def test_what_is_misspelt_is_found(line, why, pytestconfig, capsys):
    found = faults(line, pytestconfig)
    assert len(found) == 1 and why in found[0]


def test_a_command_stands_alone():
    """No prose behind a command: that goes into a comment of its own, above or below.  And no
    command outside of a bash block.
    """
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.splitlines():
                assert (
                    line.startswith("#") or " #" not in line and not re.search(r"\S {3,}\S", line)
                ), f"{page.name}: {line}"
        fenced = re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S)
        assert not (
            found := re.findall(
                r"^(?: {4}|\t)\s*(?:\w+\$ +)?(?:python|pip|torchrun|sudo) .*$", fenced, re.M
            )
        ), f"{page.name}: {found}"


def slugs(page: Path) -> set:
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text(page), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
            if re.match("https?:", target):
                continue
            name, _, heading = target.partition("#")
            there = (page.parent / name).resolve() if name else page
            assert there.exists(), f"{page.name}: {target} is not there"
            assert not heading or heading in slugs(there), f"{page.name}: no heading for {target}"


def test_named_files_are_there():
    """Files and folders of this repository in code spans; what a command makes or what is the
    reader's own is not of them.
    """
    for page in PAGES:
        for span in spans(page):
            if (
                re.fullmatch(
                    rf"({ROOMS})/[\w./-]*",
                    span,
                )
                or re.fullmatch(r"[a-z]+\.py|[A-Z]+(\.md)?", span)
                and "." in span
            ):
                assert (ROOT / span).exists(), f"{page.name}: {span} is not there"


def test_names_of_the_code_are_there():
    """`file.py`: `name`, `Class.name`, ... in the pages that lead into the code."""
    seen = 0
    for page in (ROOT / "docs" / name for name in ("paper-to-code.md", "extend.md")):
        for stem, names in re.findall(
            r"`([\w/]+)\.py`: ((?:`[^`]+`(?: \([^)]*\))?(?:, )?)+)", text(page)
        ):
            for name in re.findall(r"`([^`]+)`", names):
                at, module = (
                    re.sub(r"\[.*", "", name),
                    importlib.import_module(stem.replace("/", ".")),
                )
                for part in at.split("."):
                    assert hasattr(module, part), f"{page.name}: no {name} in {stem}.py"
                    module = getattr(module, part, None)
                seen += 1
    assert seen > 40


def test_every_page_is_linked_from_the_front():
    listed = re.findall(r"\]\(docs/([\w-]+\.md)\)", text(PAGES[0]))
    assert {page.name for page in PAGES[1:]} <= set(listed)


def test_the_front_page():
    lines = text(PAGES[0]).splitlines()
    assert len(lines) <= 200 and max(map(len, lines)) <= 120
    commands = [line for block in blocks(PAGES[0], "bash") for line in block.splitlines()]
    assert (
        FIRST in commands and SECOND in commands and commands.index(FIRST) < commands.index(SECOND)
    )


def test_pages_fit_a_window():
    for page in PAGES[1:]:
        for line in text(page).splitlines():
            assert len(line) <= 120 or line.startswith("|"), f"{page.name}: {line}"


def test_extras_are_named():
    """What the code asks people to install is in the front page's table."""
    rooms = [p for p in ROOT.glob("*/*.py") if p.parent.name != "tests"]
    files = [*ROOT.glob("*.py"), *rooms]
    code = "".join(p.read_text("utf-8") for p in files)
    wanted = set(re.findall(r"pip install (?!-)(\w+)", code))
    assert wanted >= {"pygame", "mss", "vgamepad", "pyarrow", "ray", "tensorboard"}
    assert wanted <= set(re.findall(r"pip install (\w+)", text(PAGES[0])))
