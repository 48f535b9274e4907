"""Gamepads and screens: what a game is played with, and where its picture comes from.

A gamepad has

    set(buttons, sticks)    bool [16] in the order of BUTTONS, float [4] in -1..1 of STICKS, y down

and a screen has

    picture()               uint8 [height, width, 3] RGB, of the frame that was presented last
    frame                   how many frames have been presented
    time                    seconds of game time

devices/base.py has all that either may have, and what most leave as it is.
"""

from __future__ import annotations

import sys

from clock.base import GameError, say_once
from devices.base import Gamepad, Screen
from devices.console import Console
from devices.display import KEYS, Keyboard, Window
from devices.sandbox import Sandbox
from devices.sdl import Readback, VirtualJoystick
from devices.uinput import UInput
from devices.windows import VGamepad

__all__ = ["GAMEPADS", "KEYS", "SCREENS", "Gamepad", "Screen", "choices", "made", "names"]

# ---- yours to extend: a class, and a line here.  `auto` takes the first that works.

GAMEPADS: dict[str, type[Gamepad]] = {
    "console": Console,
    "joystick": VirtualJoystick,
    "vgamepad": VGamepad,
    "keys": Keyboard,
    "uinput": UInput,
}
SCREENS: dict[str, type[Screen]] = {
    "console": Console,
    "readback": Readback,
    "window": Window,
}

# ---- what follows from it ------------------------------------------------------------------------

HERE = "Windows" if sys.platform == "win32" else "Linux"


def names(table: dict, system: str = HERE) -> list[str]:
    """What may be asked for on a system."""
    return ["auto", *(name for name, kind in table.items() if kind.only_on in ("", system))]


def choices(table: dict) -> str:
    """The same of both systems, for --help."""
    return f"{', '.join(names(table, 'Linux'))}; on Windows {', '.join(names(table, 'Windows'))}"


def made(table: dict, name: str, game: Sandbox, hooked: bool = False) -> list:
    """The device of that name; for "auto" all that may be, the first choice first.

    hooked: the game's clock is the hook.    Raises GameError where none can be.
    """
    if name != "auto":
        return [table[name](game)]
    kinds = {other: table[other] for other in names(table)[1:]}
    fit = [n for n, k in kinds.items() if k.automatic and (hooked or not k.needs_hook)]
    devices = []
    for first, second in zip(fit, fit[1:], strict=False):
        try:
            devices.append(kinds[first](game))
        except GameError as e:
            say_once(f"sim: {e}.  {second!r} takes its place.")
    return [*devices, kinds[fit[-1]](game)]
