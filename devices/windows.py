"""Windows: the desktop's windows, and a gamepad by vgamepad."""

from __future__ import annotations

import ctypes
import struct
import time

from common.artefact import BUTTONS

import numpy as np

from clock import win32
from clock.base import GameError, say_once
from devices import sandbox
from devices.base import Device
from devices.linux import Keyboard, Window


class Desktop:
    """As Display: the windows of the game on the desktop of this user, and its keyboard."""

    name, pixels = "of this machine", None
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
    }  # virtual key codes

    def __init__(self, stage: sandbox.Stage):
        self.stage = stage

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the game's visible windows, largest first."""
        pids = self.stage.clock.pids()
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
        # arrows and their block
        flags = SCANCODE | (0 if down else UP) | (EXTENDED if 0x21 <= code <= 0x2E else 0)
        win32.must(
            "SendInput",
            1,
            struct.pack(
                "<I4xHHII4xQ8x",
                KEYBOARD,
                0,
                win32.windows("MapVirtualKeyW", code, TO_SCANCODE),
                flags,
                0,
                0,
            ),
            40,
        )

    def close(self) -> None:
        """Nothing of it is ours."""


class DesktopWindow(Window):
    """The client area of the game's largest window, as it is on the desktop: it must not be
    covered.
    """

    def attach(self) -> None:
        try:
            import mss
        except ImportError:
            raise GameError("capturing a window needs mss: pip install mss") from None
        self.screen = mss.MSS()

    def _grab(self, x, y, width, height) -> np.ndarray:
        """Two equal pictures in a row: what was drawn last has reached the screen."""
        FULL_SCREEN, state = 3, ctypes.c_int()
        win32.windows("SHQueryUserNotificationState", ctypes.byref(state))
        if state.value == FULL_SCREEN:
            say_once(
                "sim: the game is in exclusive full screen, which cannot be captured: switch it to "
                "a window, or borderless"
            )
        try:
            picture = self._shot(x, y, width, height)
        except Exception as e:  # mss fails in its own ways
            if state.value != FULL_SCREEN:
                raise GameError(f"the game's window cannot be captured: {e}") from None
            return np.zeros((0, 0, 4), np.uint8)  # the last picture is kept
        for _ in range(10):
            time.sleep(0.008)
            before, picture = picture, self._shot(x, y, width, height)
            if np.array_equal(before, picture):
                break
        return picture

    def _shot(self, x, y, width, height) -> np.ndarray:
        return np.array(self.screen.grab({"left": x, "top": y, "width": width, "height": height}))


class VGamepad(Device):
    """An Xbox 360 gamepad of the machine, by vgamepad and the ViGEmBus driver: what XInput and SDL
    games take.
    """

    # XInput's; the others are called as ours
    NAMES = {"SOUTH": "A", "EAST": "B", "WEST": "X", "NORTH": "Y"}

    def __init__(self, stage: sandbox.Stage):
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
        self.pad, self.codes = vgamepad.VX360Gamepad(), vgamepad.XUSB_BUTTON

    def set(self, buttons, sticks) -> None:
        """XInput's y points up, ours down."""
        pressed, (left_x, left_y, right_x, right_y) = (
            dict(zip(BUTTONS, map(bool, buttons), strict=False)),
            map(float, sticks),
        )
        self.pad.reset()
        (
            self.pad.left_trigger(255 * pressed.pop("LEFT_TRIGGER")),
            self.pad.right_trigger(255 * pressed.pop("RIGHT_TRIGGER")),
        )
        for name in (name for name, down in pressed.items() if down):
            self.pad.press_button(self.codes["XUSB_GAMEPAD_" + self.NAMES.get(name, name)])
        (
            self.pad.left_joystick_float(left_x, -left_y),
            self.pad.right_joystick_float(right_x, -right_y),
        )
        self.pad.update()

    def close(self) -> None:
        self.pad.reset()
        self.pad.update()


def desktop_pad(stage: sandbox.Stage):
    """vgamepad's, or the keyboard where it does not work."""
    try:
        return VGamepad(stage)
    except GameError as e:
        say_once(f"sim: {e}.  The pad goes to the game as keys instead.")
        return Keyboard(stage)
