"""What a gamepad is, and what a screen is.

Both are made from the Sandbox of one run of a game (devices/sandbox.py), before the game starts.
"""

from __future__ import annotations

from common.artefact import BUTTONS, FRAME, STICKS

import numpy as np

from clock.base import GameError
from devices.sandbox import Sandbox


class Device:
    """What gamepads and screens have in common: when they are called, and where they can be."""

    only_on = ""  # "Linux" or "Windows"; else both have it
    automatic = True  # `auto` may take it
    needs_hook = False  # it works inside the game, at the frame gate
    environment: dict = {}  # variables that the game needs

    def __init__(self, game: Sandbox):
        """Raises GameError, with the fix, where this machine has no such device."""
        self.game = game

    def attach(self) -> None:
        """The game's clock is there; nothing has been presented."""

    def begin(self) -> None:
        """The game has presented its first frame, and this device has been chosen."""

    def close(self) -> None:
        """The game is about to end."""

    @classmethod
    def requirement(cls) -> tuple | None:
        """What `sim.py doctor` says of it: (what it needs, whether that is there, what was found,
        the fix).
        """


class Gamepad(Device):
    """A new one says how a pad reaches the game."""

    ready = True  # the game has taken it, once it has presented its first frame
    refusal = ""  # why a game has not taken it, and what to do

    def set(self, buttons, sticks) -> None:
        """From now on these are pressed: bool [16] in the order of BUTTONS; float [4] in -1..1, y
        down, in the order of STICKS.
        """
        raise NotImplementedError

    def lacks(self, actions) -> list[str]:
        """Those of these buttons and sticks that cannot reach the game."""
        return []


class Screen(Device):
    """A new one says where the picture is; frames are counted and timed by the game's clock."""

    def __init__(self, game: Sandbox):
        super().__init__(game)
        self.last = np.zeros((FRAME, FRAME, 3), np.uint8)
        self.seen = 0  # number of the frame in `last`

    def grab(self) -> np.ndarray | None:
        """The frame that is presented, uint8 [height, width, 3] RGB; None if there is none."""
        raise NotImplementedError

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3] RGB; the last frame once the game has ended."""
        if self.seen != self.frame:
            picture = self.grab()
            if picture is not None:
                self.last = picture
                self.seen = self.frame
        return self.last

    @property
    def frame(self) -> int:
        """Frames presented so far."""
        return self.game.clock.frames

    @property
    def time(self) -> float:
        """Seconds of game time."""
        return self.game.clock.time

    def score(self) -> dict:
        """What the game itself says of how it goes: a built-in one's score."""
        return {}


def checked(action) -> tuple[np.ndarray, np.ndarray]:
    """(buttons bool [16], sticks float32 [4] in -1..1) of an action; GameError if it is none."""
    try:
        buttons = np.asarray(action["buttons"])
        sticks = np.asarray(action["sticks"], np.float32)
    except (KeyError, TypeError, ValueError, IndexError):
        buttons = sticks = np.zeros(0)
    fits = buttons.shape == (len(BUTTONS),) and sticks.shape == (len(STICKS),)
    # A policy may overshoot; whole numbers beyond 1 are a pad's raw values.
    is_raw = np.asarray(action["sticks"]).dtype.kind in "iu" if fits else False
    most = 1 if is_raw else np.finfo(np.float32).max
    pressed = buttons == 1
    if not (fits and (pressed | (buttons == 0)).all() and (np.abs(sticks) <= most).all()):
        raise GameError(
            f"an action is {{'buttons': 0 or 1 [{len(BUTTONS)}], 'sticks': finite float "
            f"[{len(STICKS)}] in -1..1}}, got {' '.join(str(action).split())[:200]}"
        )
    return pressed, sticks.clip(-1, 1)
