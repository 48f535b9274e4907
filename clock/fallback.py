"""Where the hook cannot be: SIGSTOP, and what the console's own pause has in common with it."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import subprocess
import time

from clock.base import find_program, read_text

# ---- where the hook cannot be: the console's own pause -------------------------------------------


class Unhooked:
    """A program whose time is its own, with its children."""

    outlives_us = True  # where we end without close()

    def __init__(self, argv, env=None, cwd=None, stdout=None, stderr=None, timeout: float = 60.0):
        find_program(argv[0], env, cwd)
        self.popen = subprocess.Popen(
            list(argv),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid, self.timeout = self.popen.pid, timeout

    @property
    def returncode(self):
        return self.popen.poll()

    @property
    def alive(self) -> bool:
        """Whether a process of the game is left: its launcher may have ended."""
        return self.popen.poll() is None or bool(self.pids())

    def pids(self) -> set[int]:
        """Process ids of the game: of its session."""
        found = (re.fullmatch(r"/proc/(\d+)/stat", path) for path in glob.glob("/proc/[0-9]*/stat"))
        return {int(m[1]) for m in found if session_of(int(m[1])) == self.pid}

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        self._signal(signal.SIGKILL) if os.name == "posix" else self.popen.kill()
        self.popen.wait()


# ---- where the hook cannot be: SIGSTOP -----------------------------------------------------------


class StopClock(Unhooked):
    """Any program, stopped and continued by signals where ptrace is forbidden: in real time, not
    reproducible, and without a frame gate.
    """

    has_gate = False  # a frame is 1 / fps of time
    presented = ("", ())

    def __init__(self, argv, fps: float = 60.0, **options):
        super().__init__(argv, **options)
        self.fps, self.frames, self.time = fps, 0, 0.0
        self.pause()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def step(self, seconds: float) -> None:
        """Let it run for `seconds` of real time."""
        self._signal(signal.SIGCONT)
        time.sleep(seconds)
        self.pause()
        self.time += seconds

    def step_frame(self, presented=None, timeout: float = 60.0) -> bool:
        """A frame's time, whatever is presented in it."""
        self.step(1 / self.fps)
        self.frames += self.alive
        return self.alive


def session_of(pid: int) -> int:
    """-1 of one that has ended, also where nobody has asked for its status yet."""
    try:
        ended = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] in "ZX"
        return -1 if ended else os.getsid(pid)
    except (OSError, IndexError):
        return -1
