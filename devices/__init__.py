"""Gamepads and screens.

A gamepad has set(buttons, sticks); a screen has frame (the count of frames presented), picture(),
time and score(). Both are made from the game's Stage before it starts, and name the environment
that the game needs.
"""

import sys

from devices.console import Console
from devices.linux import Keyboard, UInput, Window
from devices.sdl import Readback, VirtualJoystick
from devices.windows import DesktopWindow, VGamepad

# ---- yours to extend: other gamepads and screens
GAMEPADS = {
    "auto": None,
    "console": Console,
    "keys": Keyboard,
    **(
        {"vgamepad": VGamepad}
        if sys.platform == "win32"
        else {"joystick": VirtualJoystick, "uinput": UInput}
    ),
}
SCREENS = {
    "auto": None,
    "console": Console,
    **(
        {"window": DesktopWindow}
        if sys.platform == "win32"
        else {"readback": Readback, "window": Window}
    ),
}
