"""What works on this machine, and the fix for what does not: python sim.py doctor"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import types

from common import attempt
from common.command_line import Common

import sim
from clock.windows import platform_fault
from devices.linux import UINPUT_FIX
from devices.windows import VGamepad

# ---- commands ------------------------------------------------------------------------------------

Config = Common


def main(cfg: Config) -> None:
    """What works on this machine, and the fix for what does not."""
    if sys.platform == "win32":
        return print_checks(windows_checks())
    fault, parts = sim.hook_fault(), ("ptrace", "seccomp", "vDSO patch")
    broken = next(
        (i for i, part in enumerate(parts) if fault and fault.startswith(part)),
        0 if fault else len(parts),
    )
    other = "not needed by the built-in games; "
    display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    lines = [
        (
            "Python >= 3.10",
            sys.version_info >= (3, 10),
            platform.python_version(),
            "install a newer one",
        ),
        (
            "Linux on x86-64",
            (sys.platform, platform.machine()) == ("linux", "x86_64"),
            platform.platform(),
            f"this is {platform.platform()}: built-in games only, on their own pause",
        ),
        *(
            (part, i < broken, "tried on a small program", fault if i == broken else "not tried")
            for i, part in enumerate(parts)
        ),
        (
            "attach",
            not fault and not sim.attach_fault(),
            "tried on a small program",
            sim.attach_fault() if not fault else "not tried",
        ),
        ("Xvfb", bool(shutil.which("Xvfb")), shutil.which("Xvfb"), other + "sudo apt install xvfb"),
        (
            "SDL 2",
            bool(ctypes.util.find_library("SDL2-2.0")),
            "",
            other + "sudo apt install libsdl2-2.0-0",
        ),
        (
            "/dev/uinput",
            os.access("/dev/uinput", os.W_OK),
            "",
            f"only for gamepad='uinput'; {UINPUT_FIX}",
        ),
        (
            "mss",
            installed("mss"),
            "",
            "only to capture windows of a display that is given; pip install mss",
        ),
        (
            "pygame",
            installed("pygame"),
            "",
            "only for a person's window (play, record); pip install pygame",
        ),
        ("display", bool(display), display, "only for a person's window; a desktop, or ssh -X"),
        ("Wine", bool(shutil.which("wine")), shutil.which("wine"), other + "sudo apt install wine"),
    ]
    print_checks(lines)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def print_checks(lines) -> None:
    """Rows of what, whether it works, what was found, the fix."""
    for what, fine, found, fix in lines:
        print(
            f"{what:18s} {'ok' if fine else 'missing':8s} {(found if fine else fix) or ''}".rstrip()
        )


def windows_checks() -> list[tuple]:
    """doctor's rows on Windows."""
    fault, hook = (
        attempt(lambda: VGamepad(types.SimpleNamespace()).close())[1],
        sim.hook_fault(),
    )
    return [
        (
            "Python >= 3.10",
            sys.version_info >= (3, 10),
            platform.python_version(),
            "install a newer one",
        ),
        ("Windows x64", not platform_fault(), platform.platform(), platform_fault()),
        ("clock hook", not hook, "tried on a small program", hook),
        (
            "attach",
            not hook and not sim.attach_fault(),
            "tried on a small program",
            sim.attach_fault() if not hook else "not tried",
        ),
        ("mss", installed("mss"), "", "to see the game's window; pip install mss"),
        (
            "vgamepad",
            not fault,
            "with the ViGEmBus driver",
            f"games get keys instead of a pad; {fault}",
        ),
        ("dxcam", installed("dxcam"), "", "only for screen='dxcam'; pip install dxcam"),
        (
            "pygame",
            installed("pygame"),
            "",
            "only for a person's window (play, record); pip install pygame",
        ),
    ]
