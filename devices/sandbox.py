"""Around the game: a private folder and an X server of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from clock.base import GameError
from devices.x11 import Display

# ---- around the game: a private folder, an X server ----------------------------------------------

# where the private folders are
MEMORY = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
KEEPER = """
if [ -n "$2" ]; then Xvfb -displayfd 1 -screen 0 "$2x24" -fbdir "$1" -nolisten tcp -noreset -nocursor -r $3 2> "$1/Xvfb.log" & x=$!; fi
echo "$x"; exec 1>&-
while read -r line; do last=$line; done
eval "$last"
[ -z "$x" ] || { kill $x; wait $x; }
for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$1" && exit; sleep 0.1; done
"""


class Stage:
    """A private folder and, if a screen size is given, an X server (Xvfb) for one run of a game.

    Both belong to a small shell that removes them when its input ends: when remove() is called, or
    when we die, however we do. The X server draws no cursor and repeats no keys (-r), which it
    would do by its own clock.
    """

    def __init__(self, screen: str = "", options: str = ""):
        """screen: WIDTHxHEIGHT in pixels; empty: none    options: of the X server"""
        self.path, self.owner = Path(tempfile.mkdtemp(prefix="nitro-", dir=MEMORY)), os.getpid()
        (self.path / "home").mkdir()
        self.keeper, self.clock, self.display, self.server, self.pads, self.will = (
            None,
            None,
            None,
            0,
            [],
            {},
        )
        if os.name == "posix":
            self.keeper = subprocess.Popen(
                ["sh", "-c", KEEPER, "sh", str(self.path), screen, options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            if screen:
                self._start_server()
        except BaseException:
            self.remove()
            raise

    def _start_server(self):
        if not shutil.which("Xvfb"):
            raise GameError(
                "Xvfb: not installed; sudo apt install xvfb, or give the display on which the game "
                "may run"
            )
        self.server, number = (
            int(self.keeper.stdout.readline()),
            self.keeper.stdout.readline().decode().strip(),
        )
        if not number:
            raise GameError(f"Xvfb: {last_line(self.path / 'Xvfb.log', 'it did not start')}")
        self.display = Display(f":{number}", self.path / "Xvfb_screen0")

    def at_our_death(self, what: str, command: str) -> None:
        """A shell command that the shell runs if we end without remove(); an empty one takes it
        back.
        """
        self.will[what] = command
        if self.keeper:
            self.keeper.stdin.write(("; ".join(filter(None, self.will.values())) + "\n").encode())
            self.keeper.stdin.flush()

    def remove(self) -> None:
        """End the game, then the X server, and remove the folder; does nothing in a process that
        was forked from our own.
        """
        if os.getpid() != self.owner:
            return
        for pad in self.pads:
            pad.close()
        if self.clock:
            self.clock.close()
        if self.display:
            self.display.close()
        if self.keeper:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.keeper.communicate(b"\n", timeout=30)
        shutil.rmtree(self.path, ignore_errors=True)


def last_line(path: Path, otherwise: str) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else otherwise
