"""Programs for the tests of clock/, devices/ and sim.py, and what these need of the machine."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from common import ROOT, artefact

import gymnasium
import numpy as np
import pytest

import sim

ASM, VICTIMS = ROOT / "tests" / "asm", ROOT / "tests" / "victims"
GAME = [sys.executable, str(ROOT / "games" / "crypt.py"), "--seed", "{seed}", "--fps", "{fps}"]
NEUTRAL = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}
needs_hook = pytest.mark.skipif(sim.hook_fault() is not None, reason=str(sim.hook_fault()))


# ---- the clock


@contextlib.contextmanager
def launched(*argv, **kwargs):
    """A Clock and a function that gives what the program has written so far."""
    with tempfile.TemporaryFile() as out:
        clock = sim.Clock([str(a) for a in argv], stdout=out, **kwargs)
        try:
            yield clock, lambda: os.pread(out.fileno(), 1 << 20, 0).decode()
        finally:
            pids = {clock.pid, *clock.threads}
            clock.close()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def python(code):
    return sys.executable, "-c", "import os, sys, time, threading\n" + code


def compiled(tmp_path, name, *flags):
    """A program of tests/victims."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler (apt install gcc)")
    done = subprocess.run(
        ["gcc", "-w", "-O1", "-pthread", "-o", tmp_path / name, VICTIMS / f"{name}.c", *flags],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"{name}.c does not link here: {done.stderr.strip().splitlines()[-1][:150]}")
    return str(tmp_path / name)


def said_lines(said):
    return said().strip().splitlines()


def wait_until(condition, seconds=10.0):
    end = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < end:
        time.sleep(0.01)
    return condition()


PAD_GAME = """
import sys; sys.path.insert(0, {games!r})
import console, numpy as np
class Game(console.World):
    name, tasks = "pad", {{"any": console.Task("Show the pad.", "specific", 99)}}
    icons = {{"any": console.HEART}}
    def move(self, pad, dt):
        self.pad = [int(pad[n]) for n in console.BUTTONS]
        self.pad += [round(pad[n], 3) for n in console.STICKS]
    def paint(self):
        return np.full((console.HEIGHT, console.WIDTH, 3), 10 + 200 * self.pad[4], np.uint8)
    def state(self): return self.pad
    def draw(self):
        if self.pad[15]: raise SystemExit(3)
        return self.paint()
console.main(Game, Game.tasks, "")
"""


def check_clean(command, **options):
    """Gymnasium's own checks of an environment that it made, without a single warning."""
    from gymnasium.utils.env_checker import check_env

    with (
        contextlib.closing(gymnasium.make("NitroGame-v0", cmd=command, **options)) as env,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        check_env(env.unwrapped)


# ---- any program: tests/victims/game.c


def xvfb_missing():
    return "no X server (apt install xvfb)" if not shutil.which("Xvfb") else sim.hook_fault() or ""


needs_xvfb = pytest.mark.skipif(bool(xvfb_missing()), reason=xvfb_missing())
PUSH = {
    "buttons": np.arange(16) == artefact.BUTTONS.index("SOUTH"),
    "sticks": np.float32([1, -1, 0, 0]),
}
