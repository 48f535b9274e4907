"""What all clocks say when a game cannot be played."""

from __future__ import annotations

import functools
import os
import shutil
import sys

import common


class GameError(common.Fault):
    """What is wrong with a game or with this machine, and the fix, in one line."""


class NoFrame(GameError):
    """A game lives and presents nothing."""


NS = 1_000_000_000
NOT_HERE = (
    "a game must be stepped by the thread that started it (a rule of ptrace), and not in a forked "
    "process; for several games at once use one process each: gymnasium.vector.AsyncVectorEnv"
)


def find_program(name: str, env: dict | None = None, cwd=None) -> None:
    """GameError if there is no such program."""
    if not shutil.which(
        os.path.join(cwd or "", name) if os.path.dirname(name) else name,
        path=(env or os.environ).get("PATH"),
    ):
        raise GameError(f"{name}: no such program")


def read_text(path: str) -> str:
    with open(path) as f:
        return f.read()


@functools.cache
def say_once(line: str) -> None:
    print(line, file=sys.stderr)
