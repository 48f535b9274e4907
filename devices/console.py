"""Gamepad, screen and pause of the built-in games."""

from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path

from common.artefact import BUTTONS, STICKS

import numpy as np

from clock.base import GameError, NoFrame
from clock.fallback import Unhooked
from devices.base import Gamepad, Screen
from devices.sandbox import Sandbox


class Console(Gamepad, Screen):
    """Gamepad and screen of a built-in game, through one shared file; its layout is told by
    games/console.py.
    """

    automatic = False  # of games that have one, never of others
    HEADER = 4096  # bytes of JSON that describe the rest; written last

    def __init__(self, game: Sandbox):
        super().__init__(game)
        self.path = game.memory / "console"
        self.path.touch()
        self.fields = None  # name -> array in the game's memory, once it is there
        self.fps = 0.0
        self.environment = {"NITROGEN_CONSOLE": str(self.path)}

    @staticmethod
    def shows(command) -> bool:
        """Whether a command runs a game that is written for the console."""
        scripts = [Path(part) for part in command if part.endswith(".py") and os.path.isfile(part)]
        return any(b"console.main(" in script.read_bytes() for script in scripts)

    def is_open(self) -> bool:
        """Whether the game has opened its side; maps the file when it has."""
        if self.fields is None and self.path.stat().st_size > self.HEADER:
            with open(self.path, "r+b") as f:
                memory = mmap.mmap(f.fileno(), 0)
            if memory[:1] == b"{" and memory[self.HEADER - 1 : self.HEADER] in b" }":
                self._map(memory)
        return self.fields is not None

    def _map(self, memory):
        header = json.loads(memory[: self.HEADER])
        if header.get("format") != "nitrogen.console/1":
            raise GameError(
                f"the game's console is {header.get('format')!r}, expected 'nitrogen.console/1'"
            )
        # our order -> the game's
        self.buttons = [header["buttons"].index(name) for name in BUTTONS]
        self.sticks = [header["sticks"].index(name) for name in STICKS]
        self.fps = header["fps"]
        self.fields = {
            name: np.frombuffer(memory, dtype, int(np.prod(shape)), offset).reshape(shape)
            for name, (offset, dtype, shape) in header["fields"].items()
        }

    @property
    def frame(self) -> int:
        """Frames presented so far."""
        return int(self.fields["frame"][0]) if self.is_open() else 0

    @property
    def time(self) -> float:
        return float(self.fields["time"][0]) if self.is_open() else 0.0

    def score(self) -> dict:
        return json.loads(self.fields["score"].tobytes().rstrip(b"\0") or b"{}")

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3] RGB: the game's memory itself, until its next frame."""
        return self.fields["picture"]

    def set(self, buttons, sticks) -> None:
        """bool [16] in the order of BUTTONS, float [4] in the order of STICKS."""
        self.fields["pad_buttons"][self.buttons] = buttons
        self.fields["pad_sticks"][self.sticks] = sticks

    def open_gate(self, go: int) -> None:
        if self.is_open():
            self.fields["go"][0] = go


class GateClock(Unhooked):
    """A built-in game stepped by its console: frame i is computed when go > i, and lasts exactly 1
    / fps.
    """

    has_gate = True
    environment = {"NITROGEN_GATE": "1"}

    def __init__(self, argv, console: Console, **options):
        self.console = console
        self.owed = 0.0  # of a frame, by step()
        super().__init__(argv, **options)

    @property
    def time(self) -> float:
        return self.console.time

    def pause(self) -> None:
        """Nothing to do: frames come only when asked for."""

    def step_frame(self, presented, timeout: float = 60.0) -> bool:
        """As Clock.step_frame."""
        before = presented()
        end = time.perf_counter() + timeout
        polls = 0
        self.console.open_gate(before + 1)
        while presented() <= before:
            polls += 1
            if polls % 50 == 0:
                if not self.alive:
                    return presented() > before
                self.console.open_gate(before + 1)  # the console may have appeared only now
                if time.perf_counter() > end:
                    raise NoFrame(f"no frame in {timeout:g} s")
            time.sleep(0.0001)
        return True

    def step(self, seconds: float) -> None:
        """The whole frames in `seconds`, and in what earlier calls left over."""
        frames = int(self.owed + seconds * self.console.fps + 1e-6)
        self.owed += seconds * self.console.fps - frames
        for _ in range(frames):
            self.step_frame(lambda: self.console.frame, self.timeout)
