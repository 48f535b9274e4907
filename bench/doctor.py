"""What works on this machine, and the fix for what does not: python sim.py doctor"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys

from common.command_line import Common

from clock import attach_fault, hook_fault
from clock.windows import platform_fault
from devices import GAMEPADS, SCREENS, names
from devices.sandbox import MEMORY, lack_of_room

HOOK = ("ptrace", "seccomp", "vDSO patch")  # parts of the clock hook, in the order of the trial
TRIED = "tried on a small program"
WINDOW = "only for a person's window"
NOT_NEEDED = "not needed by the built-in games"

Config = Common


def main(cfg: Config) -> None:
    """What works on this machine, and the fix for what does not."""
    rows = windows_checks() if sys.platform == "win32" else linux_checks()
    for what, works, found, fix in rows:
        state = "ok" if works else "missing"
        print(f"{what:18s} {state:8s} {(found if works else fix) or ''}".rstrip())


# ---- rows: what, whether it works, what was found, the fix ---------------------------------------


def linux_checks() -> list[tuple]:
    here = platform.platform()
    linux = (sys.platform, platform.machine()) == ("linux", "x86_64")
    elsewhere = f"this is {here}: built-in games only, on their own pause"
    display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    return [
        python(),
        ("Linux on x86-64", linux, here, elsewhere),
        *hook_parts(),
        attaching(),
        room(),
        program("Xvfb", "xvfb"),
        *devices(),
        package("pygame", f"{WINDOW} (play, record)"),
        ("display", bool(display), display, f"{WINDOW}; a desktop, or ssh -X"),
        program("Wine", "wine"),
    ]


def windows_checks() -> list[tuple]:
    fault = platform_fault()
    return [
        python(),
        ("Windows x64", not fault, platform.platform(), fault),
        ("clock hook", not hook_fault(), TRIED, hook_fault()),
        attaching(),
        *devices(),
        package("pygame", f"{WINDOW} (play, record)"),
    ]


def python() -> tuple:
    new = sys.version_info >= (3, 10)
    return "Python >= 3.10", new, platform.python_version(), "install a newer one"


def hook_parts() -> list[tuple]:
    """The fault begins with the name of the part that fails; what follows that was not tried."""
    fault = hook_fault()
    if not fault:
        return [(part, True, TRIED, "") for part in HOOK]
    broken = next((i for i, part in enumerate(HOOK) if fault.startswith(part)), 0)
    fixes = ["not tried"] * len(HOOK)
    fixes[broken] = fault
    return [(part, i < broken, TRIED, fixes[i]) for i, part in enumerate(HOOK)]


def attaching() -> tuple:
    fault = "not tried" if hook_fault() else attach_fault()
    return "attach", not fault, TRIED, fault


def room() -> tuple:
    """In shared memory: games put their picture there, and training its batches."""
    lack = lack_of_room(MEMORY, 32e6).removeprefix("; ")
    fix = f"{lack}: slower games, and fewer --workers for train.py; in a container --shm-size 1g"
    return "room in /dev/shm", not lack, "", fix


def devices() -> list[tuple]:
    """What the gamepads and screens of this system need, each row once."""
    kinds = [table[name] for table in (GAMEPADS, SCREENS) for name in names(table)[1:]]
    return list(dict.fromkeys(filter(None, (kind.requirement() for kind in kinds))))


def program(name: str, apt: str) -> tuple:
    path = shutil.which(name.lower() if name == "Wine" else name)
    return name, bool(path), path, f"{NOT_NEEDED}; sudo apt install {apt}"


def package(name: str, purpose: str) -> tuple:
    installed = importlib.util.find_spec(name) is not None
    return name, installed, "", f"{purpose}; pip install {name}"
