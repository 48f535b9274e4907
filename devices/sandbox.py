"""Around the game: a private folder, an X server and an environment of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from clock.base import GameError
from devices.x11 import Display

# Where the private folders are: what a game writes, and what is shared with it frame by frame.
DISK = Path(tempfile.gettempdir())
MEMORY = Path("/dev/shm")
# Debian's games are there, which is not on root's PATH.
GAMES = "/usr/local/games:/usr/games"

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
    # Mesa's cache of compiled shaders is the only thing that stays the user's: a game that had to
    # compile them anew would start twice as slowly.
    "MESA_SHADER_CACHE_DIR": os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
}

# ---- the folder and the X server -----------------------------------------------------------------

# The arguments: the folder on the disk, that in memory, the X server's size or nothing, its other
# options.  The first line that is printed is the server's process, the second its number.  The last
# line that is read is run when there are no more.
KEEPER = """
folder=$1
memory=$2
size=$3
options=$4
server=
will=
if [ -n "$size" ]; then
    Xvfb -displayfd 1 -screen 0 "${size}x24" -fbdir "$memory" \\
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
    rm -rf "$folder" "$memory" && exit
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
        self.path = Path(tempfile.mkdtemp(prefix="nitro-", dir=DISK))
        (self.path / "home").mkdir()
        self.picture_size = bytes_of(screen)
        self.memory = in_memory(self.path, self.picture_size)
        self.short = None  # the list of users, outside of both
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
                ["sh", "-c", KEEPER, "sh", str(self.path), str(self.memory), screen, options],
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
            said = last_line(self.path / "Xvfb.log", "it did not start")
            raise GameError(f"Xvfb: {said}{lack_of_room(self.memory, self.picture_size)}")
        self.display = Display(f":{number}", self.memory / "Xvfb_screen0")

    def environment(self, own: dict, home: str = "") -> dict:
        """The game's: what it sees of ours, what is fixed, and its `own`.

        home: a folder that it may take for the user's; none: a private one.
        """
        ours = {name: os.environ[name] for name in KEPT if name in os.environ}
        if os.name == "posix":
            ours["PATH"] = search_path()
        private = str(self.path / "home")
        return WINE | ours | FIXED | own | {"HOME": home or private, "TMPDIR": private}

    def users(self, home: str) -> str:
        """Path of a list of users in which our folder is `home`, for a game that asks getpwuid and
        not HOME.  It has eleven characters, see clock/users.py; "" where there can be none.
        """
        known = Path("/etc/passwd")
        table = with_home(known.read_text(errors="replace"), home) if known.is_file() else ""
        for _ in range(9 if table else 0):
            path = f"/tmp/n{secrets.token_hex(3)[:5]}"
            with contextlib.suppress(OSError), open(path, "x") as f:
                f.write(table)
                self.at_our_death("users", f"rm -f {path}")
                self.short = Path(path)
                return path
        return ""

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
        for folder in (self.path, self.memory):
            shutil.rmtree(folder, ignore_errors=True)
        if self.short:
            self.short.unlink(missing_ok=True)


def search_path() -> str:
    """Where a game is looked for."""
    ours = os.environ.get("PATH", os.defpath)
    return f"{ours}:{GAMES}" if os.name == "posix" else ours


def with_home(table: str, home: str) -> str:
    """The text of /etc/passwd with another folder for this user."""
    rows = [line.split(":") for line in table.splitlines()]
    ours = [row for row in rows if len(row) == 7 and row[2] == str(os.getuid())]
    for row in ours:
        row[5] = home
    if not ours:
        rows.append(["player", "x", str(os.getuid()), str(os.getgid()), "", home, "/bin/sh"])
    return "".join(":".join(row) + "\n" for row in rows)


# ---- room ----------------------------------------------------------------------------------------


def bytes_of(screen: str) -> int:
    """What an X server of WIDTHxHEIGHT pixels, or a built-in game's console, maps into memory."""
    width, _, height = (screen or "512x512").partition("x")
    return 4 * int(width) * int(height)


def in_memory(folder: Path, size: int) -> Path:
    """A folder beside another one in shared memory; where that has too little room, as it often
    has in a container, the folder itself.
    """
    if MEMORY == DISK or lack_of_room(MEMORY, 2 * size):  # others may start at the same time
        return folder
    beside = MEMORY / folder.name
    try:
        beside.mkdir(0o700)
    except OSError:
        return folder
    return beside


def lack_of_room(folder: Path, size: int) -> str:
    """Why so many bytes do not go into a folder, to follow another reason; "" if they do."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as e:
        return f"; {folder}: {e.strerror}"
    if free > size:
        return ""
    return f"; {folder} has {free / 1e6:.1f} MB left, {size / 1e6:.1f} MB are needed"


def last_line(path: Path, otherwise: str) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else otherwise
