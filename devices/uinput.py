"""A gamepad of Linux itself, by /dev/uinput."""

from __future__ import annotations

import io
import os
import struct

from common.artefact import BUTTONS, STICKS

from clock.base import GameError
from devices.base import Gamepad
from devices.sandbox import Sandbox

FIX = "sudo modprobe uinput; sudo chmod a+rw /dev/uinput"


class UInput(Gamepad):
    """An Xbox 360 gamepad by its numbers, which any program on this machine may see."""

    only_on = "Linux"
    automatic = False
    # linux/input-event-codes.h
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
    }
    AXES = {"LEFT_X": 0, "LEFT_Y": 1, "RIGHT_X": 3, "RIGHT_Y": 4}
    TRIGGERS = {"LEFT_TRIGGER": 2, "RIGHT_TRIGGER": 5}
    HAT = {"DPAD_LEFT": (16, -1), "DPAD_RIGHT": (16, 1), "DPAD_UP": (17, -1), "DPAD_DOWN": (17, 1)}
    SYNCHRONIZE, KEY, AXIS = 0, 1, 3  # kinds of events
    # UI_SET_EVBIT, _KEYBIT, _ABSBIT
    SET_EVENTS, SET_KEY, SET_AXIS = 0x40045564, 0x40045565, 0x40045567
    # UI_DEV_SETUP, UI_ABS_SETUP, UI_DEV_CREATE
    SETUP, SETUP_AXIS, CREATE = 0x405C5503, 0x401C5504, 0x5501

    def __init__(self, game: Sandbox):
        import fcntl

        super().__init__(game)
        try:
            self.device = io.FileIO(os.open("/dev/uinput", os.O_WRONLY | os.O_CLOEXEC), "w")
        except OSError as e:
            raise GameError(f"/dev/uinput: {e.strerror}; {FIX}") from None
        for kind in (self.KEY, self.AXIS):
            fcntl.ioctl(self.device, self.SET_EVENTS, kind)
        for key in self.KEYS.values():
            fcntl.ioctl(self.device, self.SET_KEY, key)
        for axis in self.ranges():
            fcntl.ioctl(self.device, self.SET_AXIS, axis)
        for axis, (low, high) in self.ranges().items():
            # struct uinput_abs_setup
            setup = struct.pack("<Hxx6i", axis, 0, low, high, 0, 0, 0)
            fcntl.ioctl(self.device, self.SETUP_AXIS, setup)
        USB, MICROSOFT, XBOX_360, VERSION = 3, 0x045E, 0x028E, 0x0114
        name = b"Microsoft X-Box 360 pad"
        # struct uinput_setup
        setup = struct.pack("<4H80sI", USB, MICROSOFT, XBOX_360, VERSION, name, 0)
        fcntl.ioctl(self.device, self.SETUP, setup)
        fcntl.ioctl(self.device, self.CREATE)

    def ranges(self) -> dict:
        """Axis -> (least, most)."""
        sticks = dict.fromkeys(self.AXES.values(), (-32768, 32767))
        triggers = dict.fromkeys(self.TRIGGERS.values(), (0, 255))
        hat = {axis: (-1, 1) for axis, _ in self.HAT.values()}
        return sticks | triggers | hat

    def set(self, buttons, sticks) -> None:
        held = dict(zip(BUTTONS, map(bool, buttons), strict=True))
        pushed = dict(zip(STICKS, map(float, sticks), strict=True))
        self.device.write(self.events(held, pushed))

    def events(self, pressed: dict, sticks: dict) -> bytes:
        """struct input_event [], with the synchronization at their end."""
        axes = {self.AXES[name]: round(32767 * v) for name, v in sticks.items()}
        axes |= {axis: 255 * pressed[name] for name, axis in self.TRIGGERS.items()}
        for name, (axis, way) in self.HAT.items():
            axes[axis] = axes.get(axis, 0) + way * pressed[name]
        events = [(self.KEY, code, int(pressed[name])) for name, code in self.KEYS.items()]
        events += [(self.AXIS, axis, value) for axis, value in axes.items()]
        events.append((self.SYNCHRONIZE, 0, 0))
        return b"".join(struct.pack("<16xHHi", *event) for event in events)

    def close(self) -> None:
        self.device.close()  # the kernel unplugs it

    @classmethod
    def requirement(cls) -> tuple:
        writable = os.access("/dev/uinput", os.W_OK)
        return "/dev/uinput", writable, "", f"only for gamepad='uinput'; {FIX}"
