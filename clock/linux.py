"""A Linux program and its time (x86-64).

Time inside the game is a number in a page that we share with it.

  reading it   The vDSO functions jump to our stub, in that page (page.py).  A thread that reads the
               same moment a thousand times, in whatever way, is put to sleep for HOP.
  waiting      Every system call with a timeout is stopped by seccomp (RET_TRACE) and handed to us
               by ptrace.  It is held until its virtual deadline (calls.py).
  timers       They are kept by us, and expire at their virtual deadline (timers.py).
  presenting   A frame that is drawn waits for the next tick of a monitor of `fps` Hz (gate.py).
  jumping      Nothing happens in the game between two deadlines, so time jumps from one to the
               next: this is discrete-event simulation (Clock.step, below).
  turns        Of threads that wake one another, one runs at a time (turns.py).

Read on: Clock lets time pass, Deadlines jumps, Quiet knows when no thread runs any more, launch()
begins it all.  stops.py serves the threads.  attach.py takes over a program that runs already.

Not in virtual time: io_uring (refused with ENOSYS, programs fall back to epoll), socket timeouts,
recvmmsg, CPU-time clocks, times, sysinfo, adjtimex, dates of files, rdtsc (unless asked for),
32-bit programs, what happens outside the game (network, sound card, a foreign X server).  A signal
from outside reaches a sleeping thread when its sleep ends.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types

import numpy as np

from clock import kernel
from clock.base import NOT_HERE, NS, GameError, NoFrame, find_program
from clock.calls import Calls
from clock.gate import Breakpoints, FrameGate, call_inside
from clock.page import Page
from clock.stops import Stops
from clock.timers import TimerCalls
from clock.tracee import Process, State, Thread, Timer, kill_all, next_stop
from clock.turns import Turns


class Clock:
    """A program, its children and their time.  Frozen at birth; only `step`, `step_frame` and `run`
    let time pass.

    Every call must come from the thread that made the Clock (ptrace's rule), except close() of a
    program that it started.  That dies with us. Raises GameError where the hook cannot work;
    `hook_fault()` says so beforehand.
    """

    has_gate = True  # a frame ends where the game presents it
    outlives_us = False
    resume = "CONT"  # seccomp stops the threads where we want them
    trace = None  # print, or another function of a line: what the clock does, as docs/clock.md says

    def __init__(
        self,
        argv,
        env: dict | None = None,
        cwd=None,
        stdout=None,
        stderr=None,
        timeout: float = 60.0,
        seed: int = 0,
        fixed: bool = True,
        fps: float = 0,
        peers=(),
        tsc: bool = False,
        users: str = "",
    ):
        """timeout: seconds of real time that the program may compute before it counts as hanging
        seed: of clock and getrandom
        fixed: no ASLR, getrandom by seed
        fps: of the monitor behind the frame gate; 0: no gate
        peers: pids that work for the game
        tsc: rdtsc too (by a fault at each)
        users: path, of at most 11 bytes, of what a game with a gate finds as /etc/passwd
        """
        self._begin(timeout, seed, fixed, fps, peers, tsc)
        self.frame_gate.users = users
        try:
            launch(self, list(argv), env=env, cwd=cwd, stdout=stdout, stderr=stderr)
        except BaseException:
            self.close()
            raise

    def _begin(self, timeout, seed=0, fixed=False, fps=0.0, peers=(), tsc=False) -> None:
        """All that is known before there is a program."""
        refuse_other_systems()
        self.timeout = timeout
        self.fixed = fixed
        self.fps = fps
        self.tsc = tsc
        self.owner = os.getpid(), threading.get_ident()
        self.popen = None
        self.returncode = None
        self.birth = kernel.BIRTH
        self.random = np.random.default_rng(abs(seed))
        self.threads: dict[int, Thread] = {}
        self.born = 0
        self.timers: dict[tuple, Timer] = {}
        self.page = Page(seed)
        # Frames so far; the thread that presented last, and by which call.
        self.frames = 0
        self.gate: Thread | None = None
        self.presented = ("", [])
        # For devices: the process (0: any) whose main thread's sleeps are frames; whether to hold
        # frames when they have been shown, not before; functions(thread, flags) to call after
        # SDL_Init; what to do for a thread that we hold, outside of its stop.
        self.sleeps: int | None = None
        self.shown = False
        self.started = []
        self.errands = []
        # The game is not quiet while they run.
        self.peers = [Thread(pid, types.SimpleNamespace(pid=pid)) for pid in peers]
        self.latest: Thread | None = None  # it was last let run: if one runs, mostly this one
        self.calls = Calls(self)
        self.timer_calls = TimerCalls(self)
        self.breakpoints = Breakpoints(self)
        self.frame_gate = FrameGate(self)
        self.stops = Stops(self)
        self.turns = Turns(self)
        self.deadlines = Deadlines(self)
        self.quiet = Quiet(self)

    # -- time

    @property
    def now(self) -> int:
        """Virtual CLOCK_MONOTONIC, ns."""
        return self.page.words[0]

    @now.setter
    def now(self, moment: int) -> None:
        self.page.words[0] = moment

    @property
    def time(self) -> float:
        """Virtual seconds since launch, or since we attached."""
        return (self.now - self.birth) / NS

    def pause(self) -> None:
        """Let the game come to rest.  Time stands still whenever no other method runs."""
        self._check_thread()
        self.settle()

    def step(self, seconds: float) -> None:
        """Advance by exactly `seconds`: whoever waits on the way is woken at its own moment, one
        after the other.
        """
        self._check_thread()
        target = self.now + round(seconds * NS)
        self.settle()
        while (due := self.deadlines.first()) and due.deadline <= target and self.threads:
            self.deadlines.jump(due)
        self.now = max(self.now, target)

    def step_frame(self, presented=None, timeout=60.0, patience=60.0, outside=math.inf) -> bool:
        """Jump from deadline to deadline until the count of frames presented() (by default that of
        the gate) has grown and the game is quiet again.

        False if the program ended instead; NoFrame after `timeout` seconds of real time,
        `patience` seconds of game time, or if for `outside` seconds of real time nothing was due.
        """
        self._check_thread()
        presented = presented or (lambda: self.frames)
        before = presented()
        end = time.perf_counter() + timeout
        last = self.now + int(patience * NS)
        idle = 0.0
        self.settle()
        while presented() <= before:
            if not self.alive:
                return False
            due = self.deadlines.first()
            if due and due.deadline > last or idle > outside:
                self.now = last
            if time.perf_counter() > end or self.now >= last:
                raise NoFrame(f"no frame in {timeout:g} s, or {patience:g} s of game time")
            if due:
                idle = 0.0
                self.deadlines.jump(due)
            else:
                idle += 0.0005
                time.sleep(0.0005)  # it waits for something outside
                self.settle()
        if self.trace:
            self.trace(f"frame {presented()}")
        return True

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """Let time pass continuously for `seconds` of real time, at `speed` times its pace
        (math.inf: as fast as the game can); then pause.
        """
        self._check_thread()
        begin = time.perf_counter()
        if speed == math.inf:
            while self.threads and time.perf_counter() - begin < seconds:
                if due := self.deadlines.first():
                    self.deadlines.jump(due)
                else:
                    self.settle()
            return self.step(0)
        origin = self.now
        while self.threads and (passed := time.perf_counter() - begin) < seconds:
            target = origin + int(passed * speed * NS)
            self.deadlines.wake_until(target)
            self.now = max(self.now, target)
            self.stops.pump()
            while self.turns.give():
                self.stops.pump()
            time.sleep(0.0005)
        self.step(max(0.0, seconds * speed - (self.now - origin) / NS))

    def settle(self, until=None) -> None:
        """Serve the game until it is quiet (or until())."""
        self.quiet.settle(until)

    # -- the game

    @property
    def alive(self) -> bool:
        """Whether a process of the game is left: its launcher may have ended."""
        return bool(self.threads)

    def pids(self) -> set[int]:
        """Process ids of the game."""
        return {t.process.pid for t in list(self.threads.values())}

    def _check_thread(self) -> None:
        if (os.getpid(), threading.get_ident()) != self.owner:
            raise GameError(NOT_HERE)

    def close(self) -> None:
        """End the program and all its children; may be called from any thread, more than once.
        It does nothing in a process that was forked from our own.
        """
        if os.getpid() != self.owner[0]:
            return
        while self.threads:
            kill_all(self.pid if self.pid in self.threads else 0, self.pids())
            for tid in list(self.threads):
                reap(self, tid)
            time.sleep(0.0002)
        self.gate = self.latest = None  # they and these hold files of the game open
        for held in (self.timers, self.peers, self.started, self.errands, self.turns.held):
            held.clear()
        if self.popen and self.popen.returncode is None:
            if self.returncode is None:  # never seized
                self.popen.kill()
                self.returncode = self.popen.wait()
            self.popen.returncode = self.returncode  # reaped by us
        self.page.leave()

    # -- for devices: the frame gate, and the game's own functions

    def gated(self) -> bool:
        """Whether a thread is held at the frame gate."""
        return self.frame_gate.holds(self.gate)

    def call(self, thread: Thread, *calls) -> list[int]:
        """Run functions of the game, each (address, arguments...), in a thread that we hold at a
        function call; -> results, 64 bits.

        A wait in them ends at once.  Raises ProcessLookupError if the thread ends in them."""
        return call_inside(self, thread, calls)

    @property
    def scratch(self) -> memoryview | None:
        """Memory that the game sees at kernel.SCRATCH_AT, for results of such calls."""
        return self.page.scratch

    # -- for the other parts of the hook

    def add(self, tid: int, process: Process, random=None) -> Thread:
        """A thread that is the game's from now on."""
        self.born += 1
        thread = self.threads[tid] = Thread(tid, process, self.born, random=random)
        return thread

    def go_on(self, thread: Thread, signal_number: int = 0) -> None:
        """Let a stopped thread run; a waiting one up to the end of its system call."""
        self.latest = thread
        how = "SYSCALL" if thread.state is State.WAITING else self.resume
        # killed meanwhile: the next pump learns of it
        with contextlib.suppress(ProcessLookupError):
            kernel.ptrace(how, thread.tid, 0, signal_number)

    def overwrite(self, thread: Thread, address: int, code: bytes) -> None:
        """Put our code into the game."""
        thread.process.write_code(thread.tid, address, code)


def refuse_other_systems() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{sys.platform} on {platform.machine()}"
        raise GameError(f"ptrace: the clock hook needs Linux on x86-64, this is {here}")


def reap(clock: Clock, tid: int) -> None:
    """Forget a thread that was killed, once it has ended."""
    with contextlib.suppress(ChildProcessError):
        got, status = os.waitpid(tid, os.WNOHANG | kernel.WALL)
        if not got or os.WIFSTOPPED(status):
            return
        if tid == clock.pid:
            clock.returncode = os.waitstatus_to_exitcode(status)
    del clock.threads[tid]


# ---- deadlines: between two of them nothing can happen, so time jumps ----------------------------


class Deadlines:
    """Who waits until when, and what happens then."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def first(self) -> Thread | Timer | None:
        """The timer or thread that is due first; of equals the oldest."""
        everyone = (*self.clock.timers.values(), *self.clock.threads.values())
        due = [t for t in everyone if t.deadline is not None]
        return min(due, key=lambda t: t.deadline, default=None)

    def jump(self, due: Thread | Timer) -> None:
        """On to the moment of who is due, or of what comes first there; then the game is quiet."""
        clock = self.clock
        server = next((t for t in clock.threads.values() if serves_at_deadline(t)), None)
        # Wine's server writes down the time for its programs whenever it wakes: it is woken first,
        # for they would race for it.
        if server and due.deadline > clock.now:
            clock.now = server.deadline = due.deadline
            due = server
        if clock.trace and due.deadline > clock.now:
            clock.trace(f"jump to {self.seconds(due.deadline)}")
        self.wake(due)
        clock.settle()

    def wake(self, due: Thread | Timer) -> None:
        """It is the moment of who is due."""
        clock = self.clock
        clock.now = max(clock.now, due.deadline)
        if isinstance(due, Timer):
            return clock.timer_calls.expire(due)
        due.deadline = None
        if due.state is State.PARKED:
            clock.calls.release(due)
        else:  # interrupt its wait; calls.py sees the end of it
            due.fired = True
            with contextlib.suppress(ProcessLookupError):
                kernel.ptrace("INTERRUPT", due.tid)

    def wake_until(self, target: int) -> None:
        """In real time: who is due by then runs on, and others with it."""
        while (due := self.first()) and due.deadline <= target:
            self.wake(due)
            self.clock.stops.pump()

    def trace(self, who: str, deadline: int | None) -> None:
        """For Clock.trace: somebody waits from now on."""
        if self.clock.trace and deadline is not None:
            self.clock.trace(f"{who} until {self.seconds(deadline)}")

    def seconds(self, moment: int) -> str:
        """A moment as Clock.time gives it."""
        return f"{(moment - self.clock.birth) / NS:.6f}"


def serves_at_deadline(thread: Thread) -> bool:
    """Whether it is of Wine's server, in a wait with a timeout."""
    waits = thread.state is State.WAITING and thread.deadline is not None
    return waits and thread.process.serves


# ---- quiet: no thread of the game runs -----------------------------------------------------------


class Quiet:
    """Serves the game until no thread of it runs, and none is about to.

    Some threads fall asleep without a word, in the kernel: no stop tells us.
    """

    def __init__(self, clock: Clock):
        self.clock = clock
        self.look = 0.0  # when to look at the machine's load again
        self.spin = 0  # how often to look for stops before we sleep in between
        self.mask = None  # of signals, while we wait for stops, as it was before
        SET_TIMERSLACK = 29
        # ns: this thread's own short waits are as short as asked for
        kernel.libc.prctl(SET_TIMERSLACK, 1000)

    def settle(self, until=None) -> None:
        """Serve the game until it is quiet (or until()); a parked thread costs nothing."""
        outer, self.mask = self.mask, None
        try:
            self._serve(until)
        finally:
            if self.mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            self.mask = outer

    def _serve(self, until) -> None:
        clock, now = self.clock, time.perf_counter()
        self._choose_spin(now)
        end, idle = now + clock.timeout, 0
        while clock.threads:
            busy = clock.stops.pump(everyone=idle % 64 == 60)
            busy |= self._run_errands(until)
            if busy:
                idle = 0
                if until and until():
                    return
                continue
            calm = (clock.turns.held or not until) and self._is_quiet(look=idle % 4 == 0)
            if calm or clock.turns.is_overdue():
                if not clock.turns.give():
                    return
                idle = 0
                continue
            if time.perf_counter() > end:
                raise GameError(
                    f"the game computed for {clock.timeout:g} s without waiting for anything: it "
                    "hangs"
                )
            idle = self._rest(idle)

    def _choose_spin(self, now: float) -> None:
        """On a quiet machine spinning is faster than sleeping and waking up."""
        if now > self.look:
            free = os.getloadavg()[0] < (os.cpu_count() or 1) + 1
            self.look = now + 1
            self.spin = 30 if free else 0

    def _run_errands(self, until) -> bool:
        """For threads that we hold; whether there were any."""
        clock, any_done = self.clock, False
        while clock.errands and (until is None or not until()):
            thread, errand = clock.errands.pop(0)
            errand()
            thread.state = State.RUNNING
            clock.go_on(thread)
            any_done = True
        return any_done

    def _rest(self, idle: int) -> int:
        """Leave the processor to the game, the longer the longer it does nothing; the new idle.

        We wait for a thread to stop, but not for long: some fall asleep without a word.
        """
        idle += 1 if idle < 4 * self.spin else 4
        seconds = min(5e-4, 1e-5 * 1.5 ** min(idle // 4 - self.spin, 20))
        if idle <= 4 * self.spin:
            os.sched_yield()
        elif self.mask is None:  # from here on the SIGCHLD that each stop sends is kept for us
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        elif signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
            signal.sigtimedwait({signal.SIGCHLD}, seconds)
        else:
            time.sleep(seconds)  # this program wants these signals for itself
        return idle

    def _is_quiet(self, look: bool) -> bool:
        """look: also where /proc must be asked, which takes longer."""
        clock = self.clock
        awake = [t for t in clock.threads.values() if t.state is not State.PARKED]
        if not awake and not clock.peers:
            return True
        if not look:
            return False
        if len(clock.pids()) > 1:
            awake = clock.threads.values()  # also those that are parked: a process may kill another
        who = [*awake, *clock.peers]
        # Mostly so: the one that was let run still does.
        if any(t is clock.latest and not t.waits() for t in who):
            return False
        return self._asleep(who)

    def _asleep(self, who: list[Thread]) -> bool:
        """Whether no thread runs, and none is about to.  The proof, line by line:

        1. Of each thread we read how often it was on a processor (schedstat).
        2. None is on one now: so says syscall, or the count, if it is that of an earlier proof.
           But syscall says this also of a thread that is just being woken.
        3. Each sleeps, and we wake none: so says stat.  But stat says this also of a thread that
           was woken after 1, ran, and goes to sleep again.
        4. The counts are those of 1: from 1 to 4 no thread was on a processor.  So none of them
           woke another, and what 2 and 3 found of each was true of all at once.
        5. None has stopped meanwhile for us to serve it.

        Hence all sleep, and only we, or what is outside of the game, can wake one.
        """
        counts = [t.look(kernel.SCHEDSTAT) for t in who]  # 1
        if any(t.computes() for t in seen_first(who, counts)):  # 2
            return False
        if not all(t.waits() for t in who):  # 3
            return False
        if counts != [t.look(kernel.SCHEDSTAT) for t in who]:  # 4
            return False
        for thread, count in zip(who, counts, strict=True):
            thread.rest = count
        return not self.clock.stops.pump()  # 5


def seen_first(who: list[Thread], counts: list[bytes]) -> list[Thread]:
    """Those that have run since they were last found to be off their processor."""
    return [
        thread
        for thread, count in zip(who, counts, strict=True)
        if thread.rest != count or count == kernel.UNCOUNTED
    ]


# ---- launch: a shell that stops itself, is seized and prepared, and becomes the program ----------


def launch(clock: Clock, argv: list[str], **options) -> None:
    """options: of Popen."""
    find_program(argv[0], options["env"], options["cwd"])
    clock.popen = subprocess.Popen(
        ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *argv],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        **options,
    )
    clock.pid = pid = clock.popen.pid
    part = "ptrace"
    try:
        os.waitpid(pid, os.WUNTRACED)
        kernel.ptrace("SEIZE", pid, 0, kernel.OPTIONS | kernel.EXITKILL)
        shell = clock.add(pid, Process(pid), random=clock.random)
        os.kill(pid, signal.SIGCONT)
        while next_stop(pid) != signal.SIGCONT:  # past the stops of being seized and continued
            kernel.ptrace("CONT", pid)
        part = "seccomp"
        prepare(shell, clock.fixed, clock.tsc)
    except OSError as e:
        raise GameError(
            f"{part}: not permitted here ({e}); in a container, start it with "
            "--cap-add=SYS_PTRACE --security-opt seccomp=unconfined"
        ) from None
    kernel.ptrace("CONT", pid)
    clock.settle(until=lambda: pid not in clock.threads or clock.threads[pid].process.vdso)


def prepare(shell: Thread, fixed: bool, tsc: bool) -> None:
    """Let the shell ask for what its successor inherits: one memory layout for all runs, and the
    filter.
    """
    ADDR_NO_RANDOMIZE = 0x40000
    SET_TSC, TSC_SIGSEGV, NO_NEW_PRIVS = 26, 2, 38
    SET_MODE_FILTER = 1
    code = kernel.seccomp_filter()
    below = (shell.registers().rsp - 4096) & ~15  # free part of its stack
    program = struct.pack("<HxxxxxxQ", len(code) // 8, below + 16)
    shell.process.write(below, program + code)
    calls = []
    if fixed:
        calls.append((kernel.PERSONALITY, ADDR_NO_RANDOMIZE))
    if tsc:
        calls.append((kernel.PRCTL, SET_TSC, TSC_SIGSEGV))
    calls.append((kernel.PRCTL, NO_NEW_PRIVS, 1))
    calls.append((kernel.SECCOMP_CALL, SET_MODE_FILTER, 0, below))
    for nr, *args in calls:
        result = shell.system_call(nr, *args)
        if result < 0:
            raise OSError(-result, f"system call {nr}: {os.strerror(-result)}")


@functools.cache
def hook_fault() -> str | None:
    """Why the clock hook cannot work here, or None: it is tried on a small program."""
    try:
        with tempfile.TemporaryFile() as out:
            clock = Clock(["sh", "-c", "sleep 1000; date +%s"], stdout=out, timeout=5)
            try:
                clock.step(1001)
            finally:
                clock.close()
            out.seek(0)
            answer = out.read().decode().strip()
    except (GameError, OSError) as e:
        return str(e)
    if answer != str(kernel.EPOCH // NS + 1000):
        return (
            f"vDSO patch: without effect on this system (it should be {kernel.EPOCH // NS + 1000}, "
            f"date says {answer!r})"
        )
