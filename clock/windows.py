"""A Windows program and its time.

The functions that read the time or sleep are replaced whole, in the game's memory: no DLL is
injected, no instruction moved.  windows_functions.py finds and replaces them, windows_stub.py is
what they become, windows_process.py reads and writes the memory.  Time runs at a given speed up to
a limit and then stands, so that a step is exact, however late we are ourselves.

Not in virtual time: rdtsc, the shared page read directly, NtQueryPerformanceCounter itself,
QueryInterruptTime, GetSystemTime, waitable timers, timeouts of waits and of messages, timeSetEvent,
sound.  A game that paces its frames by these runs on with steps of length 0.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clock import win32
from clock.base import GameError, find_program
from clock.fallback import StopClock
from clock.windows_functions import Functions, put_back
from clock.windows_process import WindowsProcess
from clock.windows_stub import ENDLESS, Stub

SUSPENDED, NO_WINDOW = 4, 0x08000000  # how a process begins
GUARD = Path(__file__).with_name("windows_guard.py")


class WindowsClock(StopClock):
    """As Clock, for a Windows program: frozen at birth; only `step`, `step_frame` and `run` let
    time pass, in real time (at `pace`).

    There is no frame gate: a frame is 1 / fps of game time.  Its children have their own time.  The
    program dies with us.
    """

    outlives_us = False

    def __init__(
        self,
        argv,
        env: dict | None = None,
        cwd=None,
        stdout=None,
        stderr=None,
        timeout: float = 60.0,
        fps: float = 60.0,
        sleep: bool = True,
        pace: float = 1.0,
    ):
        """sleep: Sleep and SleepEx in game time too; else only the clocks (a frozen game goes on,
        with steps of length 0).  pace: game time per real time of step and step_frame.  The others
        as Clock's.
        """
        self._begin(timeout, fps, pace)
        find_program(argv[0], env, cwd)
        with self._closed_if_it_fails(argv[0]):
            streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
            command = [str(part) for part in argv]
            options = {"env": env, "cwd": cwd, "creationflags": SUSPENDED}
            self.popen = subprocess.Popen(command, **options, **streams)
            self._launch(argv[0], sleep)

    def _begin(self, timeout: float, fps: float, pace: float) -> None:
        if fault := platform_fault():
            raise GameError(fault)
        self.timeout = timeout  # s
        self.fps = fps
        self.pace = pace
        self.frames = 0
        self.goal = 0.0  # moments: where time shall stand, not rounded
        self.popen = None  # of a program that we launched
        self.job = None
        self.guard = None  # of one to which we attached
        self.process = None
        self.stub = None

    @contextlib.contextmanager
    def _closed_if_it_fails(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            self.close()
            raise GameError(f"{what}: {win32.denied(e)}") from None
        except BaseException:
            self.close()
            raise

    # -- launch: suspended, then spinning at its entry point until the loader is through

    def _launch(self, name: str, sleep: bool) -> None:
        self.pid = self.popen.pid
        self.job = win32.job(int(self.popen._handle))
        self.process = process = WindowsProcess(self.pid)
        entry = process.first_instruction()
        kept = process.read(entry, 2)
        process.write_code(entry, b"\xeb\xfe")  # jmp to itself
        process.resume()
        self._wait_until_at(entry, name)
        self._install(sleep)
        process.suspend()
        process.write_code(entry, kept)
        process.resume()

    def _wait_until_at(self, entry: int, name: str) -> None:
        end = time.perf_counter() + self.timeout
        while True:
            places = self.process.suspend()
            self.process.resume()
            if any(pointer == entry for pointer, _ in places):
                return
            if not self.alive or time.perf_counter() > end:
                raise GameError(
                    f"{name} ended (status {self.returncode}), or hangs, before its first "
                    "instruction: a DLL that it needs may be missing"
                )
            time.sleep(0.01)  # each look suspends it, in the midst of its loader

    # -- attach

    @classmethod
    def attach(
        cls,
        target: int | str,
        timeout: float = 60.0,
        fps: float = 60.0,
        sleep: bool = True,
        pace: float = 1.0,
    ) -> WindowsClock:
        """A Clock of a program that runs already, which stands still from now on: by pid, name of
        its executable, or title of its window.

        After detach(), close() or our own end, however it comes, it runs on in real time."""
        self = cls.__new__(cls)
        self._begin(timeout, fps, pace)
        self.pid = find_game(target)
        with self._closed_if_it_fails(f"attach: {target}"):
            self.process = WindowsProcess(self.pid)
            self.guard = subprocess.Popen(
                [win32.base_python(), "-I", "-S", GUARD, str(self.pid)],
                stdin=subprocess.PIPE,
                text=True,
                creationflags=NO_WINDOW,  # nor our console's Ctrl-C
            )
            self._install(sleep)
        return self

    def _install(self, sleep: bool) -> None:
        """Freeze the time: the stub comes into the game, and its functions jump there."""
        process = self.process
        self.stub = stub = Stub(process)
        functions = Functions(process, stub)
        # sleeps are as short as asked for, ms
        process.call(functions.exports["winmm.dll"]["timeBeginPeriod"], 1)
        targets = functions.targets(sleep)
        if stub.begun:  # an earlier attachment has left it there
            self._tell_guard()
            return self.pause()
        functions.check_room(targets)
        stub.put()
        jumps = functions.jumps(targets)
        functions.suspend_outside(targets)
        try:
            stub.begin(functions.exports["ntdll.dll"])
            self._tell_guard()
            for address, jump in jumps.items():
                process.write_code(address, jump)
        except BaseException:
            put_back(process, stub.page)
            raise
        finally:
            process.resume()

    def _tell_guard(self) -> None:
        if self.guard:
            self.guard.stdin.write(f"{self.stub.page}\n")
            self.guard.stdin.flush()

    # -- time

    @property
    def now(self) -> int:
        """Virtual time since launch or attachment, 100 ns."""
        return self.stub.now

    @property
    def time(self) -> float:
        """Virtual seconds since launch, or since we attached."""
        return self.now / win32.MOMENTS

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def returncode(self) -> int | None:
        code = None
        if self.process and not self.alive:
            code = self.process.returncode
        if code is None and self.popen:
            code = self.popen.poll()
        return code

    def pids(self) -> set[int]:
        """Process ids of the game and its children."""
        return win32.family(self.pid)

    def pause(self) -> None:
        """Stop a time that runs (a run that was interrupted); else time stands anyway."""
        if self.now < self.stub.limit:
            self.process.suspend()  # else somebody could read a later time meanwhile
            moment = self.now
            self.stub.set(0.0, moment, moment)
            self.process.resume()
            self.goal = float(moment)

    def step(self, seconds: float) -> None:
        """Advance by exactly `seconds`, at `pace`."""
        self._advance(seconds, self.pace)

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """Let time pass for `seconds` of real time, at `speed` times its pace; then it stands."""
        if speed == math.inf:
            raise GameError(
                "run: a Windows game computes in real time; give a speed that it can keep up with"
            )
        if speed > 0:
            self._advance(seconds * speed, speed)
        else:
            time.sleep(seconds)

    def _advance(self, seconds: float, speed: float) -> None:
        self.pause()
        # not rounded: 60 steps of 1/60 s are a second
        goal = self.goal + max(0.0, seconds) * win32.MOMENTS
        if not self.alive:
            return
        self.goal = goal
        self.stub.set(speed, self.stub.limit, round(goal))
        while (left := self.stub.limit - self.now) > 0 and self.alive:
            time.sleep(min(0.05, left / speed / win32.MOMENTS))

    # -- its end

    def close(self) -> None:
        """End the program and all its children; an attached one is let go."""
        if not self.popen:
            return self.detach()
        if self.job:
            win32.windows("TerminateJobObject", self.job, 1)
            win32.windows("CloseHandle", self.job)
        self.popen.kill()
        self.popen.wait()
        self._release()

    def detach(self) -> None:
        """Let an attached program run on in real time.  One that is ahead of it keeps its lead (and
        the stub), as time never goes back.
        """
        if self.alive and self.stub and self.stub.begun:
            self.pause()
            while 0 < (lead := self.stub.lead()) < win32.MOMENTS:
                time.sleep(0.005)
            self.process.suspend()
            self.stub.set(1.0, self.now, ENDLESS)  # for who sleeps in the stub
            if lead <= 0:
                put_back(self.process, self.stub.page)
            self.process.resume()
        if self.guard:
            self.guard.communicate("0\n")  # nothing is left to be done
        self._release()

    def _release(self) -> None:
        if self.process:
            self.process.close()
        if self.stub:
            self.stub.forget()
        self.process = self.job = self.guard = None


def find_game(target: int | str) -> int:
    """pid of a running program: by pid, name of its executable, or part of its window's title; of
    several the one with the largest window.
    """
    running = win32.processes()
    shown = win32.desktop_windows()
    wanted = str(target).casefold()
    if wanted.isdigit():
        if int(target) in running:
            return int(target)
        raise GameError(f"attach: there is no process {target}")
    found = pids_called(wanted, running) or pids_titled(wanted, running, shown)
    if not found:
        raise GameError(
            f"attach: no running program and no window is called {wanted!r}; "
            + what_there_is(wanted, running, shown)
        )
    return next((pid for _, pid, *_ in shown if pid in found), found[0])


def pids_called(wanted: str, running: dict) -> list[int]:
    """running: as win32.processes()."""
    names = (wanted, wanted + ".exe")
    return [pid for pid, (_, name) in running.items() if name.casefold() in names]


def pids_titled(wanted: str, running: dict, shown: list) -> list[int]:
    """shown: as win32.desktop_windows()."""
    ours = ancestors(running)  # the console in which this was typed may have such a title
    titled = [pid for _, pid, title, *_ in shown if wanted in title.casefold()]
    return [pid for pid in titled if pid not in ours]


def what_there_is(wanted: str, running: dict, shown: list) -> str:
    """The names that are like the wanted one, else those of the programs with a window."""
    names = {pid: name for pid, (_, name) in running.items()}
    known = {*names.values(), *(title for _, _, title, *_ in shown)} - {""}
    close = difflib.get_close_matches(wanted, [name.casefold() for name in known], 3, 0.5)
    near = sorted(name for name in known if name.casefold() in close)
    near = near or sorted({names.get(pid, "") for _, pid, *_ in shown} - {""})
    return f"there is {', '.join(near)}" if near else "start the game first"


def ancestors(running: dict) -> set[int]:
    """pids of those who started us; running: as win32.processes()."""
    found = set()
    pid = os.getpid()
    while pid in running and pid not in found:
        found.add(pid)
        pid = running[pid][0]
    return found


def platform_fault() -> str | None:
    if (sys.platform, platform.machine(), sys.maxsize > 2**32) != ("win32", "AMD64", True):
        return (
            "the clock hook needs a 64-bit Python on Windows x64, this is "
            f"{platform.architecture()[0]} on {sys.platform} {platform.machine()}"
        )


def windows_fault(attach: bool) -> str | None:
    """As hook_fault() and attach_fault(): a small program is moved 1000 s into the future, and
    asked for the time.
    """
    with tempfile.TemporaryFile() as out:
        try:
            ask_ahead(attach, out)
        except (GameError, OSError, subprocess.TimeoutExpired) as e:
            return str(e)
        out.seek(0)
        ahead = float(out.read() or -1e9) - time.time()
    if not 900 < ahead <= 1000:
        return (
            "the clock's stub is without effect here: a program that was moved 1000 s ahead is at "
            f"{ahead:.0f} s"
        )


def ask_ahead(attach: bool, out) -> None:
    """A program that is moved 1000 s ahead writes the time into a file."""
    wait = "sys.stdin.read(1); " if attach else ""
    code = f"import sys, time; {wait}print(int(time.time()))"
    command = [win32.base_python(), "-I", "-S", "-c", code]
    options = {"timeout": 10, "pace": 1e6}
    with contextlib.ExitStack() as stack:
        if attach:
            popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)
            stack.enter_context(popen)
            stack.callback(popen.kill)
            clock = WindowsClock.attach(popen.pid, **options)
        else:
            clock = WindowsClock(command, stdout=out, **options)
        stack.callback(clock.close)
        clock.step(1000)
        if attach:
            popen.communicate(b" ", timeout=10)
        end = time.perf_counter() + 10
        while clock.alive and time.perf_counter() < end:
            time.sleep(0.01)
