"""Windows: the desktop of the user, and a gamepad by vgamepad."""

from __future__ import annotations

import ctypes
import functools
import struct
import time

from common import attempt
from common.artefact import BUTTONS

import numpy as np

from clock import win32
from clock.base import GameError, say_once
from devices.base import Gamepad
from devices.sandbox import Sandbox


class Desktop:
    """As devices.x11.Display: the windows of the game on the desktop of this user, and its
    keyboard.
    """

    name = "of this machine"
    # virtual key codes
    KEYS = {
        "space": 0x20,
        "BackSpace": 0x08,
        "Tab": 0x09,
        "Return": 0x0D,
        "Escape": 0x1B,
        "Prior": 0x21,
        "Next": 0x22,
        "End": 0x23,
        "Home": 0x24,
        "Left": 0x25,
        "Up": 0x26,
        "Right": 0x27,
        "Down": 0x28,
        "Insert": 0x2D,
        "Delete": 0x2E,
        "Shift_L": 0xA0,
        "Control_L": 0xA2,
        "Alt_L": 0xA4,
        **{f"F{i}": 0x6F + i for i in range(1, 13)},
    }
    ARROWS_AND_THEIR_BLOCK = range(0x21, 0x2F)

    def __init__(self, game: Sandbox):
        self.game = game

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the game's visible windows, largest first: their client
        areas.
        """
        pids = self.game.clock.pids()
        return [
            (window, *place) for window, pid, _, *place in win32.desktop_windows() if pid in pids
        ]

    def focus(self, window: int | None = None) -> int:
        """The window in the foreground; with a number, first ask for that one."""
        if window:
            win32.windows("SetForegroundWindow", window)
        return win32.windows("GetForegroundWindow")

    def owner(self, window: int) -> int:
        pid = ctypes.c_ulong()
        win32.windows("GetWindowThreadProcessId", window, ctypes.byref(pid))
        return pid.value

    def key(self, name: str, down: bool) -> None:
        """Press or release a key by its X name: by its place on the keyboard, as games ask for."""
        KEYBOARD, EXTENDED, UP, SCANCODE, TO_SCANCODE = 1, 1, 2, 8, 0
        code = self.KEYS.get(name) or win32.windows("VkKeyScanW", ord(name)) & 0xFF
        place = win32.windows("MapVirtualKeyW", code, TO_SCANCODE)
        flags = SCANCODE
        if not down:
            flags |= UP
        if code in self.ARROWS_AND_THEIR_BLOCK:
            flags |= EXTENDED
        event = struct.pack("<I4xHHII4xQ8x", KEYBOARD, 0, place, flags, 0, 0)  # struct INPUT
        win32.must("SendInput", 1, event, len(event))

    def grab(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """What is shown in a part of the desktop, uint8 [height, width, 4] BGRX; nothing, 0 x 0,
        while the game is in full screen.  It must not be covered.

        Two equal pictures in a row: what was drawn last has reached the screen.
        """
        FULL_SCREEN = 3
        state = ctypes.c_int()
        win32.windows("SHQueryUserNotificationState", ctypes.byref(state))
        if state.value == FULL_SCREEN:
            say_once(
                "sim: the game is in exclusive full screen, which cannot be captured: switch it to "
                "a window, or borderless"
            )
        try:
            picture = self._shot(x, y, width, height)
        except GameError:
            raise
        except Exception as e:  # mss fails in its own ways
            if state.value != FULL_SCREEN:
                raise GameError(f"the game's window cannot be captured: {e}") from None
            return np.zeros((0, 0, 4), np.uint8)
        for _ in range(10):
            time.sleep(0.008)
            before = picture
            picture = self._shot(x, y, width, height)
            if np.array_equal(before, picture):
                break
        return picture

    @functools.cached_property
    def _screen(self):
        try:
            import mss
        except ImportError:
            raise GameError("capturing a window needs mss: pip install mss") from None
        return mss.MSS()

    def _shot(self, x, y, width, height) -> np.ndarray:
        return np.array(self._screen.grab({"left": x, "top": y, "width": width, "height": height}))

    def close(self) -> None:
        """Nothing of it is ours."""


class VGamepad(Gamepad):
    """An Xbox 360 gamepad of the machine, by vgamepad and the ViGEmBus driver: what XInput and SDL
    games take.
    """

    only_on = "Windows"
    # XInput's; the others are called as ours
    NAMES = {"SOUTH": "A", "EAST": "B", "WEST": "X", "NORTH": "Y"}

    def __init__(self, game: Sandbox):
        super().__init__(game)
        try:
            import vgamepad
        except ImportError:
            raise GameError("vgamepad: not installed; pip install vgamepad") from None
        except Exception as e:  # it looks for the driver when it is imported
            raise GameError(
                f"vgamepad: {e}: the ViGEmBus driver is not installed, or stopped: run "
                "ViGEmBusSetup_x64.msi (in the folder "
                "vgamepad/win/vigem/install of the package) and restart Windows"
            ) from None
        self.pad = vgamepad.VX360Gamepad()
        self.codes = vgamepad.XUSB_BUTTON

    def set(self, buttons, sticks) -> None:
        pressed = dict(zip(BUTTONS, map(bool, buttons), strict=True))
        left_x, left_y, right_x, right_y = map(float, sticks)
        self.pad.reset()
        self.pad.left_trigger(255 * pressed.pop("LEFT_TRIGGER"))
        self.pad.right_trigger(255 * pressed.pop("RIGHT_TRIGGER"))
        for name, down in pressed.items():
            if down:
                self.pad.press_button(self.codes["XUSB_GAMEPAD_" + self.NAMES.get(name, name)])
        # XInput's y points up, ours down.
        self.pad.left_joystick_float(left_x, -left_y)
        self.pad.right_joystick_float(right_x, -right_y)
        self.pad.update()

    def close(self) -> None:
        self.pad.reset()
        self.pad.update()

    @classmethod
    def requirement(cls) -> tuple:
        fault = attempt(lambda: cls(None).close())[1]
        found = "with the ViGEmBus driver"
        return "vgamepad", not fault, found, f"games get keys instead of a pad; {fault}"
