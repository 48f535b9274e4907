"""Linux: keys by XTEST, a gamepad of the kernel's, the picture of a window."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import struct
import sys

from common import ROOT
from common.artefact import BUTTONS, STICKS

import numpy as np

from clock.base import GameError, say_once
from devices import sandbox
from devices.base import Device
from devices.sdl import Readback
from devices.x11 import KEYSYMS

KEYS = {  # what a keyboard-only game gets for the pad; GameEnv(keys=...) changes some of them
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


KEYS_UP = (
    "import sys; sys.path.insert(0, sys.argv[1]); from devices.x11 import Display; "
    "display = Display(sys.argv[2]); [display.key(k, False) for k in sys.argv[3:]]"
)


class Keyboard(Device):
    """The pad as keys, through XTEST: into the game's own X server, or into its focused window on a
    display that was given.
    """

    PRESSED = 0.5  # how far a stick must be pushed to be a key

    def __init__(self, stage: sandbox.Stage):
        self.stage, self.down, self.keys = stage, set(), stage.keys
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

    def set(self, buttons, sticks) -> None:
        display = self.stage.display
        held = {name for name, b in zip(BUTTONS, buttons, strict=False) if b}
        held |= {
            name + sign
            for name, v in zip(STICKS, sticks, strict=False)
            for sign, there in (("-", v < -self.PRESSED), ("+", v > self.PRESSED))
            if there
        }
        keys = {self.keys[name] for name in held if name in self.keys}
        if keys == self.down:
            return
        if keys - self.down and not self._focused(display):
            keys &= self.down  # only releases go out
        if not self.stage.server:  # a person's: their keyboard must not stay as we leave it
            self.stage.at_our_death(
                "keys",
                shlex.join([sys.executable, "-c", KEYS_UP, str(ROOT), display.name, *keys])
                if keys
                else "",
            )
        for key in sorted(self.down ^ keys):
            display.key(key, key in keys)
        self.down = keys

    def _focused(self, display) -> bool:
        """Whether the game has the keyboard; on its own X server it is given it."""
        if self.stage.server:
            windows = display.windows()
            return bool(windows) and display.focus(windows[0][0]) > 1
        fine = display.owner(display.focus()) in self.stage.clock.pids()
        return fine or say_once(
            f"sim: display {display.name}: the game's window has not the focus, so keys are not "
            "sent to it"
        )

    def close(self) -> None:
        """All keys up."""
        with contextlib.suppress(GameError, OSError):
            for key in self.down:
                self.stage.display.key(key, False)
        self.down = set()


class Window(Readback):
    """The game's largest window as it is on the screen, at any position."""

    def attach(self) -> None:
        self.stage.clock.shown = True

    def picture(self) -> np.ndarray:
        import cv2

        windows = self.stage.display.windows() if self.seen != self.frame else ()
        if windows:
            part = self._grab(*windows[0][1:])
            if part.size:
                self.last, self.seen = (
                    cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_BGRA2RGB),
                    self.frame,
                )
        return self.last

    def _grab(self, x, y, width, height) -> np.ndarray:
        """A part of the screen, BGRA."""
        shot = self.stage.display.pixels
        shot = self._shot() if shot is None else shot
        return shot[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]

    def _shot(self) -> np.ndarray:
        """The whole screen of a display that was given, BGRA."""
        try:
            import mss
        except ImportError:
            raise GameError(
                "capturing a window of a display that was given needs mss: pip install mss"
            ) from None
        with mss.MSS(display=self.stage.display.name) as screen:
            return np.array(screen.grab(screen.monitors[0]))


UINPUT_FIX = "sudo modprobe uinput; sudo chmod a+rw /dev/uinput"


class UInput(Device):
    """A gamepad of the machine itself, an Xbox 360 one by its numbers: any program on it may see it
    (/dev/uinput).
    """

    KEYS = {
        "SOUTH": 0x130,
        "EAST": 0x131,
        "WEST": 0x133,
        "NORTH": 0x134,
        "LEFT_SHOULDER": 0x136,
        "RIGHT_SHOULDER": 0x137,
        "BACK": 0x13A,
        "START": 0x13B,
        "LEFT_THUMB": 0x13D,
        "RIGHT_THUMB": 0x13E,
    }  # linux/input-event-codes.h
    AXES = {"LEFT_X": 0, "LEFT_Y": 1, "RIGHT_X": 3, "RIGHT_Y": 4}
    TRIGGERS = {"LEFT_TRIGGER": 2, "RIGHT_TRIGGER": 5}
    HAT = {"DPAD_LEFT": (16, -1), "DPAD_RIGHT": (16, 1), "DPAD_UP": (17, -1), "DPAD_DOWN": (17, 1)}
    # UI_SET_EVBIT, _KEYBIT, _ABSBIT
    SET_EVENTS, SET_KEY, SET_AXIS = 0x40045564, 0x40045565, 0x40045567
    # UI_DEV_SETUP, UI_ABS_SETUP, UI_DEV_CREATE
    SETUP, SETUP_AXIS, CREATE = 0x405C5503, 0x401C5504, 0x5501

    def __init__(self, stage: sandbox.Stage):
        import fcntl

        try:
            self.device = io.FileIO(os.open("/dev/uinput", os.O_WRONLY | os.O_CLOEXEC), "w")
        except OSError as e:
            raise GameError(f"/dev/uinput: {e.strerror}; {UINPUT_FIX}") from None
        ranges = {
            **{a: (-32768, 32767) for a in self.AXES.values()},
            **{a: (0, 255) for a in self.TRIGGERS.values()},
            16: (-1, 1),
            17: (-1, 1),
        }
        for request, value in [
            (self.SET_EVENTS, 1),
            (self.SET_EVENTS, 3),
            *((self.SET_KEY, k) for k in self.KEYS.values()),
            *((self.SET_AXIS, a) for a in ranges),
        ]:
            fcntl.ioctl(self.device, request, value)
        for axis, (low, high) in ranges.items():  # struct uinput_abs_setup
            fcntl.ioctl(
                self.device, self.SETUP_AXIS, struct.pack("<Hxx6i", axis, 0, low, high, 0, 0, 0)
            )
        fcntl.ioctl(
            self.device,
            self.SETUP,
            struct.pack("<4H80sI", 3, 0x045E, 0x028E, 0x0114, b"Microsoft X-Box 360 pad", 0),
        )
        fcntl.ioctl(self.device, self.CREATE)

    def set(self, buttons, sticks) -> None:
        held = dict(zip(BUTTONS, map(bool, buttons), strict=False))
        pushed = dict(zip(STICKS, map(float, sticks), strict=False))
        self.device.write(self.events(held, pushed))

    def events(self, pressed: dict, sticks: dict) -> bytes:
        """struct input_event [], with the synchronization at their end."""
        axes = {self.AXES[name]: round(32767 * v) for name, v in sticks.items()} | {
            a: 255 * pressed[n] for n, a in self.TRIGGERS.items()
        }
        for name, (axis, way) in self.HAT.items():
            axes[axis] = axes.get(axis, 0) + way * pressed[name]
        keys = [(1, code, int(pressed[name])) for name, code in self.KEYS.items()]
        return b"".join(
            struct.pack("<16xHHi", *event)
            for event in [*keys, *((3, a, v) for a, v in axes.items()), (0, 0, 0)]
        )

    def close(self) -> None:
        self.device.close()  # the kernel unplugs it
