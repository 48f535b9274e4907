"""common/command_line.py: flags from dataclasses."""

import re
from dataclasses import dataclass

from common.command_line import Common, command_line, typed

import pytest

from clock.base import GameError
from commands import fault


@dataclass(frozen=True)
class Flags(Common):
    files: tuple[str, ...] = ()  # some files
    rate: float = 1.5  # in Hz
    sheet: bool = False  # a sheet too
    command: tuple[str, ...] = ()  # the game


@dataclass(frozen=True)
class Game(Common):
    command: tuple[str, ...] = ()  # the game


def test_command_line(capsys):
    commands = {
        "": (Flags, lambda cfg: cfg),
        "go": ({"slow": Flags(rate=1.0), "fast": Flags(rate=9.0)}, lambda cfg: cfg),
    }
    cfg = command_line(
        "doc", commands, ["a", "b", "--rate", "2", "--sheet", "--seed", "7", "--", "game", "--x"]
    )
    assert (cfg.files, cfg.rate, cfg.sheet, cfg.seed, cfg.command) == (
        ("a", "b"),
        2.0,
        True,
        7,
        ("game", "--x"),
    )
    assert command_line("doc", commands, ["go", "--config", "fast"]).rate == 9.0
    for argv in (["--rate", "much"], ["--rat", "2"], ["--speed", "2"], ["go", "--config", "none"]):
        assert "see --help" in fault(command_line, "doc", commands, argv)
    with pytest.raises(SystemExit):
        command_line("doc", commands, ["--help"])
    assert re.search(r"--rate FLOAT\s+in Hz \(default: 1.5\)", capsys.readouterr().out)
    doc = "All of it.\n\n    python x.py FILE     as usual\n    python x.py go       off it goes"
    with pytest.raises(SystemExit):
        command_line(doc, commands, ["go", "--config=fast", "--help"])
    said = capsys.readouterr().out
    assert (
        "off it goes" in said
        and "All of it" not in said
        and "as usual" not in said
        and " -- COMMAND..." in said
    )
    # of the preset that was asked for
    assert re.search(r"--rate FLOAT\s+in Hz \(default: 9.0\)", said)
    assert "put -- before the game's command" in fault(
        command_line, "doc", {"": (Game, print)}, ["python", "game.py"]
    )

    def broken(cfg):
        raise GameError("the game burnt down")

    assert fault(command_line, "doc", {"": (Flags, broken)}, []) == "the game burnt down"


def test_hints_quote_paths_with_spaces():
    assert typed("parse.py", "my video.mp4", "--out", "data/mine") == (
        "python parse.py 'my video.mp4' --out data/mine"
    )
