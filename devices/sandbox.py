"""Around the game: a private folder, an X server and an environment of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from clock.base import GameError
from devices.x11 import Display

# where the private folders are
MEMORY = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())

# ---- what a game sees of our own environment; the rest is fixed ----------------------------------

KEPT = (
    *("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "PATHEXT"),
    *("WINEPREFIX", "WINEDLLPATH", "WINEDLLOVERRIDES", "WINEDEBUG", "WINEARCH"),
)
# Without Wine's services a game starts five times faster.
WINE = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe,services.exe="}
FIXED = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
# of a game that draws by X, without sound and graphics card
HEADLESS = {
    "SDL_AUDIODRIVER": "dummy",
    "ALSOFT_DRIVERS": "null",
    "SDL_VIDEODRIVER": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "LP_NUM_THREADS": "0",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null",
    "SDL_JOYSTICK_HIDAPI": "0",
}

# ---- the folder and the X server -----------------------------------------------------------------

# The arguments: the folder, the X server's size or nothing, its other options.  The first line that
# is printed is the server's process, the second its number.  The last line that is read is run
# when there are no more.
KEEPER = """
folder=$1
size=$2
options=$3
server=
will=
if [ -n "$size" ]; then
    Xvfb -displayfd 1 -screen 0 "${size}x24" -fbdir "$folder" \\
        -nolisten tcp -noreset -nocursor -r $options 2> "$folder/Xvfb.log" &
    server=$!
fi
echo "$server"
exec 1>&-
while read -r line; do
    will=$line
done
eval "$will"
if [ -n "$server" ]; then
    kill $server
    wait $server
fi
for try in 1 2 3 4 5 6 7 8 9; do
    rm -rf "$folder" && exit
    sleep 0.1
done
"""


class Sandbox:
    """A private folder and, if a screen size is given, an X server (Xvfb) for one run of a game.

    Both belong to a small shell that removes them when its input ends: when remove() is called, or
    when we die, however we do.  The X server draws no cursor and repeats no keys (-r), which it
    would do by its own clock.
    """

    def __init__(self, screen: str = "", options: str = ""):
        """screen: WIDTHxHEIGHT in pixels; empty: none    options: of the X server"""
        self.path = Path(tempfile.mkdtemp(prefix="nitro-", dir=MEMORY))
        (self.path / "home").mkdir()
        self.owner = os.getpid()
        self.keeper = None  # the shell
        self.server = 0  # process of the X server; 0: none of our own
        self.display = None  # where the game's windows are
        self.clock = None  # the game's, once it runs
        self.devices = []  # gamepads and screens
        self.keys = {}  # button, or stick and direction -> X key
        self.will = {}
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
        self.server = int(self.keeper.stdout.readline())
        number = self.keeper.stdout.readline().decode().strip()
        if not number:
            raise GameError(f"Xvfb: {last_line(self.path / 'Xvfb.log', 'it did not start')}")
        self.display = Display(f":{number}", self.path / "Xvfb_screen0")

    def environment(self, own: dict, home: str = "") -> dict:
        """The game's: what it sees of ours, what is fixed, and its `own`.

        home: a folder that it may take for the user's; none: a private one.
        """
        ours = {name: os.environ[name] for name in KEPT if name in os.environ}
        private = str(self.path / "home")
        return WINE | ours | FIXED | own | {"HOME": home or private, "TMPDIR": private}

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
        for device in self.devices:
            device.close()
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
