"""What goes through a display, X11's or Windows': keys for the pad, and the picture of a window."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
import sys
from pathlib import Path

from common import ROOT
from common.artefact import BUTTONS, STICKS

import numpy as np

from clock.base import GameError, say_once
from devices.base import Gamepad, Screen
from devices.sandbox import Sandbox
from devices.x11 import KEYSYMS

# ---- yours to extend: what a keyboard-only game gets for the pad; GameEnv(keys=...) changes some

KEYS = {
    "": {
        "DPAD_UP": "Up",
        "DPAD_DOWN": "Down",
        "DPAD_LEFT": "Left",
        "DPAD_RIGHT": "Right",
        "LEFT_X-": "Left",
        "LEFT_X+": "Right",
        "LEFT_Y-": "Up",
        "LEFT_Y+": "Down",
        "SOUTH": "space",
        "EAST": "Control_L",
        "WEST": "Shift_L",
        "NORTH": "Alt_L",
        "BACK": "Escape",
        "START": "Return",
    },
    "chocolate-doom": {
        "SOUTH": "Control_L",
        "EAST": "space",
        "LEFT_SHOULDER": ",",
        "RIGHT_SHOULDER": ".",
        "LEFT_TRIGGER": "Tab",
        "RIGHT_X-": "Left",
        "RIGHT_X+": "Right",
    },
}


def keys_of(command) -> dict:
    """Button, or stick and direction -> X key, for the game in a command: it may stand behind env,
    nice or wine.
    """
    names = [Path(part).stem for part in command]
    own = next((KEYS[name] for name in names if KEYS.get(name)), {})
    return KEYS[""] | own


# ---- the pad as keys -----------------------------------------------------------------------------

# Releases keys after our death, in one line for the shell.  Its arguments: the project's folder,
# the display, the keys.
KEYS_UP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from devices.x11 import Display; "
    "display = Display(sys.argv[2]); [display.key(key, False) for key in sys.argv[3:]]"
)


class Keyboard(Gamepad):
    """Keys into the game's own X server, or into its focused window on the display of a person."""

    PRESSED = 0.5  # how far a stick must be pushed to be a key

    def __init__(self, game: Sandbox):
        super().__init__(game)
        self.keys = game.keys
        self.down = set()
        for name, key in self.keys.items():
            if len(key) != 1 and key not in KEYSYMS:
                raise GameError(
                    f"keys: {key!r} for {name}: there is no such key (there are single characters, "
                    f"{', '.join(KEYSYMS)})"
                )
            if name not in BUTTONS and name[:-1] not in STICKS:
                raise GameError(
                    f"keys: {name!r} is no button and no direction of a stick "
                    f"({', '.join(BUTTONS)}, {STICKS[0]}-, {STICKS[0]}+, ...)"
                )

    def begin(self) -> None:
        if self.game.server:
            self._focused()

    def set(self, buttons, sticks) -> None:
        keys = self._wanted(buttons, sticks)
        if keys == self.down:
            return
        if keys - self.down and not self._focused():
            keys &= self.down  # only releases go out
        display = self.game.display
        if not self.game.server:  # a person's: their keyboard must not stay as we leave it
            release = [sys.executable, "-c", KEYS_UP, str(ROOT), display.name, *keys]
            self.game.at_our_death("keys", shlex.join(release) if keys else "")
        for key in sorted(self.down ^ keys):
            display.key(key, key in keys)
        self.down = keys

    def _wanted(self, buttons, sticks) -> set[str]:
        """The keys of this pad."""
        held = {name for name, down in zip(BUTTONS, buttons, strict=True) if down}
        for name, value in zip(STICKS, sticks, strict=True):
            if abs(value) > self.PRESSED:
                held.add(name + ("+" if value > 0 else "-"))
        return {self.keys[name] for name in held if name in self.keys}

    def _focused(self) -> bool:
        """Whether the game has the keyboard; on its own X server it is given it."""
        display = self.game.display
        if self.game.server:
            windows = display.windows()
            return bool(windows) and display.focus(windows[0][0]) > 1
        if display.owner(display.focus()) in self.game.clock.pids():
            return True
        say_once(
            f"sim: display {display.name}: the game's window has not the focus, so keys are not "
            "sent to it"
        )
        return False

    def lacks(self, actions) -> list[str]:
        return [name for name in actions if not {name, f"{name}-", f"{name}+"} & set(self.keys)]

    def close(self) -> None:
        """All keys up."""
        with contextlib.suppress(GameError, OSError):
            for key in self.down:
                self.game.display.key(key, False)
        self.down = set()


# ---- the picture of a window ---------------------------------------------------------------------


class Window(Screen):
    """The game's largest window as it is on the screen, at any position."""

    def attach(self) -> None:
        self.game.clock.shown = True  # frames are held when they have been shown

    def grab(self) -> np.ndarray | None:
        import cv2

        windows = self.game.display.windows()
        if not windows:
            return None
        part = self.game.display.grab(*windows[0][1:])
        return cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_BGRA2RGB) if part.size else None

    @classmethod
    def requirement(cls) -> tuple:
        installed = importlib.util.find_spec("mss") is not None
        purpose = "only to capture windows of a display that is given"
        if sys.platform == "win32":
            purpose = "to see the game's window"
        return "mss", installed, "", f"{purpose}; pip install mss"
