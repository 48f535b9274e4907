"""A Linux program and its time (x86-64).

Time inside the game is a number that we store in a page shared with it.

  reading it   The vDSO functions (clock_gettime, gettimeofday, time) are overwritten by jumps to
               STUB, in that page.  A thread that reads the same moment a thousand times is put to
               sleep for HOP, so that busy loops end.
  waiting      Every system call with a timeout is stopped by seccomp (RET_TRACE) and handed to us
               by ptrace.  Sleeps are held until their virtual deadline.  Polls and futexes wait in
               the kernel, endlessly, and are interrupted at their virtual deadline, so that real
               events still end them.
  timers       timerfd, setitimer, alarm and timer_settime are kept by us and expire at their
               virtual deadline.
  presenting   Breakpoints on SDL_RenderPresent, glXSwapBuffers and their like are the frame gate, a
               monitor of `fps` Hz.

Nothing happens in the game between two deadlines, so time jumps from one to the next: this is
discrete-event simulation.

Not in virtual time: io_uring (refused with ENOSYS, programs fall back to epoll), socket timeouts,
recvmmsg, CPU-time clocks, times, sysinfo, adjtimex, the dates of files, rdtsc (unless asked for),
32-bit programs, anything that happens outside the game (network, sound card, a foreign X server).
A signal from outside reaches a sleeping thread when its sleep ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import math
import mmap
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np

from clock import kernel
from clock.attach import Attach
from clock.base import NS, GameError, NoFrame, find_program
from clock.calls import Calls
from clock.gate import Gate
from clock.page import Page
from clock.timers import Timers
from clock.tracee import Process, Thread, Timer


class Clock(Page, Calls, Timers, Gate, Attach):
    """A program, its children and their time.  Frozen at birth; only `step`, `step_frame` and `run`
    let time pass.

    Every call must come from the thread that made the Clock (ptrace's rule), except close() of a
    program that it started.  That dies with us. Raises GameError where the hook cannot work;
    `hook_fault()` says so beforehand.
    """

    has_gate = True  # a frame ends where the game presents it
    outlives_us = False

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
    ):
        """timeout: seconds of real time that the program may compute before it counts as hanging
        seed: of clock and getrandom
        fixed: no ASLR, getrandom by seed
        fps: of the monitor behind the frame gate; 0: no gate
        peers: pids that work for the game
        tsc: rdtsc too (by a fault at each)
        """
        find_program(argv[0], env, cwd)
        self._begin(timeout, seed, fixed, fps, peers, tsc)
        try:
            self._launch(list(argv), env, cwd, stdout, stderr)
        except BaseException:
            self.close()
            raise

    def _begin(self, timeout=60.0, seed=0, fixed=True, fps=0.0, peers=(), tsc=False):
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise GameError(
                f"ptrace: the clock hook needs Linux on x86-64, this is {sys.platform} on "
                f"{platform.machine()}"
            )
        self.timeout, self.returncode, self.owner = timeout, None, threading.get_ident()
        self.fixed, self.fps, self.tsc = fixed, fps, tsc
        # the game is not quiet while they run
        self.peers = [Thread(pid, types.SimpleNamespace(pid=pid)) for pid in peers]
        self.random = np.random.default_rng(abs(seed))
        self.threads: dict[int, Thread] = {}
        self.timers: dict[tuple, Timer] = {}
        self.popen, self.attached, self.birth = None, False, kernel.BIRTH
        # when to look at the machine's load again; how long to spin; pumps
        self.look, self.spin, self.turn = 0.0, 0, 0
        self.latest = None  # thread that was last let run: if one runs, mostly this one
        self.mask = None  # of signals, while we wait for stops, as it was before
        # frames so far; the thread that presented last, and by which call
        self.frames, self.gate, self.presented = 0, None, ("", [])
        # of games that we see not present: the process (0: any) whose main thread's sleeps are
        # frames
        self.sleeps = None
        self.shown = False  # hold frames when they have been shown, not before
        self.started = []  # functions(thread, flags) to call after SDL_Init
        self.errands = []  # what to do for a thread that we hold, outside of its stop
        self.file = os.memfd_create("clock")
        os.ftruncate(self.file, 3 * kernel.PAGE + kernel.SCRATCH)
        self.page = mmap.mmap(self.file, 3 * kernel.PAGE + kernel.SCRATCH)
        self.page[: len(kernel.STUB)] = kernel.STUB
        self.words = memoryview(self.page)[kernel.PAGE : 2 * kernel.PAGE].cast("Q")
        self.scratch = memoryview(self.page)[3 * kernel.PAGE :]
        # of each clock from CLOCK_MONOTONIC, ns
        self.offsets = memoryview(self.page)[
            kernel.OFFSETS_AT - kernel.STUB_AT : kernel.TABLE_AT - kernel.STUB_AT
        ].cast("q")
        self.words[0] = kernel.BIRTH
        for clock in kernel.EPOCH_CLOCKS:
            self.offsets[clock] = kernel.OFFSET + seed % 10**9 * NS
        SET_TIMERSLACK = 29
        # ns: this thread's own short waits are as short as asked for
        kernel.libc.prctl(SET_TIMERSLACK, 1000)

    # -- launch: a shell that stops itself, is seized and prepared, and becomes the program

    def _launch(self, argv, env, cwd, stdout, stderr):
        self.popen = subprocess.Popen(
            ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = pid = self.popen.pid
        part = "ptrace"
        try:
            os.waitpid(pid, os.WUNTRACED)
            kernel.ptrace("SEIZE", pid, 0, kernel.OPTIONS | kernel.EXITKILL)
            self.threads[pid] = Thread(pid, Process(pid), random=self.random)
            os.kill(pid, signal.SIGCONT)
            while self._wait(pid) != signal.SIGCONT:  # past the stops of being seized and continued
                kernel.ptrace("CONT", pid)
            part = "seccomp"
            self._prepare(pid)
        except OSError as e:
            raise GameError(
                f"{part}: not permitted here ({e}); in a container, start it with "
                "--cap-add=SYS_PTRACE --security-opt seccomp=unconfined"
            ) from None
        kernel.ptrace("CONT", pid)
        self._settle(until=lambda: pid not in self.threads or self.threads[pid].process.vdso)

    def _prepare(self, pid):
        """Let the shell ask for what its successor inherits: one memory layout for all runs, and
        the filter.
        """
        code = kernel.seccomp_filter()
        below = (self._registers(pid).rsp - 4096) & ~15  # free part of its stack
        self.threads[pid].process.write(
            below, struct.pack("<HxxxxxxQ", len(code) // 8, below + 16) + code
        )
        personality, prctl, seccomp = 135, 157, 317
        ADDR_NO_RANDOMIZE, NO_NEW_PRIVS, SET_TSC, TSC_SIGSEGV, SET_MODE_FILTER = (
            0x40000,
            38,
            26,
            2,
            1,
        )
        for nr, *args in (
            *[(personality, ADDR_NO_RANDOMIZE)] * self.fixed,
            *[(prctl, SET_TSC, TSC_SIGSEGV)] * self.tsc,
            (prctl, NO_NEW_PRIVS, 1),
            (seccomp, SET_MODE_FILTER, 0, below),
        ):
            result = self._system_call(pid, nr, *args)
            if result < 0:
                raise OSError(-result, f"system call {nr}: {os.strerror(-result)}")

    def _system_call(self, tid, nr, *args) -> int:
        """Run one system call in a stopped thread."""
        process, before = self.threads[tid].process, self._registers(tid)
        code = process.read(before.rip, 8)
        process.write_code(tid, before.rip, b"\x0f\x05\xcc" + code[3:])  # syscall; int3
        now = kernel.Registers.from_buffer_copy(before)
        now.rax, now.orig_rax = nr, kernel.ONES  # -1: the kernel restarts nothing
        for name, value in zip(kernel.ARGUMENTS, (*args, 0, 0, 0, 0, 0), strict=False):
            setattr(now, name, value)
        self._set_registers(tid, now)
        self._until_trap(tid, "CONT")
        result = ctypes.c_longlong(self._registers(tid).rax).value
        process.write_code(tid, before.rip, code)
        self._set_registers(tid, before)
        return result

    def _until_trap(self, tid, how: str) -> None:
        """Let a stopped thread run to its next trap, by CONT or SINGLESTEP; signals wait meanwhile."""
        mask, rest = ctypes.c_uint64(), ctypes.c_uint64(kernel.ONES ^ 1 << kernel.SIGTRAP - 1)
        kernel.ptrace("GETSIGMASK", tid, 8, ctypes.addressof(mask))
        kernel.ptrace("SETSIGMASK", tid, 8, ctypes.addressof(rest))
        kernel.ptrace(how, tid)
        while self._wait(tid) != kernel.SIGTRAP:
            kernel.ptrace(how, tid)
        kernel.ptrace("SETSIGMASK", tid, 8, ctypes.addressof(mask))

    def _wait(self, tid) -> int:
        """Wait for a stop while preparing: the signal, or 0 for another kind of stop."""
        _, status = os.waitpid(tid, kernel.WALL)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError("it was killed while being prepared")
        return 0 if status >> 16 else status >> 8

    # -- the game's stops

    def _registers(self, tid) -> kernel.Registers:
        registers = kernel.Registers()
        kernel.ptrace("GETREGS", tid, 0, ctypes.addressof(registers))
        return registers

    def _set_registers(self, tid, registers):
        kernel.ptrace("SETREGS", tid, 0, ctypes.addressof(registers))

    def _go_on(self, thread, signal_number=0):
        """Let a stopped thread run; a waiting one up to the end of its system call."""
        self.latest = thread
        # killed meanwhile: the next pump learns of it
        with contextlib.suppress(ProcessLookupError):
            kernel.ptrace(
                "SYSCALL" if thread.state == "waiting" or self.attached else "CONT",
                thread.tid,
                0,
                signal_number,
            )

    def _pump(self, everyone: bool = False) -> bool:
        """Handle the stops that the threads have reached by now; True if there was one.  everyone:
        also see who is gone without a word.
        """
        if not everyone and not (
            found := kernel.peek()
        ):  # one call where nothing has happened, as mostly
            return False
        self.turn, busy = self.turn + 1, False
        # now and then all, that one cannot keep out the others
        alone = not everyone and self.turn % 16 and found.si_pid in self.threads
        # by name: never reaps another child
        for thread in [self.threads[found.si_pid]] if alone else list(self.threads.values()):
            try:
                got, status = os.waitpid(thread.tid, os.WNOHANG | kernel.WALL)
            except ChildProcessError:
                # its own exec or another thread's, or this program ignores SIGCHLD
                got, status = thread.tid, 0
                leader = self.threads.get(thread.process.pid)
                # it is the leader now, and on its way into another program
                if leader and not leader.waits():
                    leader.state, leader.deadline = "running", None
            if got:
                busy = True
                try:
                    self._on_stop(thread, status)
                except (ProcessLookupError, ChildProcessError, FileNotFoundError):
                    pass  # killed while stopped
        return busy

    def _on_stop(self, thread, status):
        if not os.WIFSTOPPED(status):
            del self.threads[thread.tid]
            if thread.tid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            return
        event, number = status >> 16, status >> 8 & 0xFF
        if event == kernel.SECCOMP:
            try:
                self._on_call(thread)
            # the game gave an address where nothing is: the kernel tells it so
            except (OSError, OverflowError, struct.error) as e:
                if getattr(e, "errno", errno.EIO) != errno.EIO:
                    raise
                self._go_on(thread)
        elif number == kernel.SYSCALL_STOP:
            if self.attached and thread.state != "waiting" and self._enters(thread.tid):
                self._on_call(thread)
            else:
                self._on_result(thread)
        elif event == kernel.EXEC:
            self.threads[thread.tid] = thread = Thread(
                thread.tid, Process(thread.tid), random=thread.random
            )
            for key in [k for k in self.timers if k[:2] == (thread.tid, "posix")]:
                del self.timers[key]  # timer_create's end here; the others stay
            for key in [k for k in self.timers if k[0] == thread.tid]:
                self.timers[key].process = thread.process
            kernel.ptrace("SYSCALL", thread.tid)  # to the call's exit: before it the kernel would
            # overwrite the result of an injected call
            while self._wait(thread.tid) != kernel.SYSCALL_STOP:
                kernel.ptrace("SYSCALL", thread.tid)
            self._patch(thread)
            self._go_on(thread)
        elif event in (kernel.FORK, kernel.VFORK, kernel.CLONE):
            self._on_birth(thread, event)
        elif event == kernel.VFORK_DONE:
            thread.state = "running"
            self._go_on(thread)
        elif event == kernel.STOP and number in (
            signal.SIGSTOP,
            signal.SIGTSTP,
            signal.SIGTTIN,
            signal.SIGTTOU,
        ):
            thread.state = "stopped"
            kernel.ptrace("LISTEN", thread.tid)
        elif event == 0 and (
            number == kernel.SIGTRAP
            and self._on_break(thread)
            or number == signal.SIGSEGV
            and self._on_rdtsc(thread)
        ):
            pass
        else:  # a signal on its way, or the echo of an interrupt
            if thread.state == "stopped":
                thread.state = "running"
            self._go_on(thread, 0 if event else number)

    def _enters(self, tid) -> bool:
        """Whether a system call stop is at the entry."""
        info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
        kernel.ptrace("GET_SYSCALL_INFO", tid, len(info), ctypes.addressof(info))
        return info.raw[0] == 1

    def _on_birth(self, thread, event):
        self._born(thread)
        if event == kernel.VFORK:
            thread.state = "vfork"
        self._go_on(thread)

    def _born(self, thread) -> Thread:
        """The new thread or process of one that has just begun it."""
        tid = ctypes.c_ulong()
        kernel.ptrace("GETEVENTMSG", thread.tid, 0, ctypes.addressof(tid))
        tid = tid.value
        status = Path(f"/proc/{tid}/status").read_text()
        pid = int(re.search(r"^Tgid:\s*(\d+)", status, re.M)[1])
        own = pid != thread.process.pid
        self.threads[tid] = Thread(
            tid,
            Process(pid, thread.process) if own else thread.process,
            random=thread.random.spawn(1)[0] if thread.random else None,
        )
        return self.threads[tid]

    # -- quiet: no thread of the game runs

    def _settle(self, until=None):
        """Serve the game until it is quiet (or until()).  A thread that is parked costs nothing
        here.
        """
        outer, self.mask = self.mask, None
        try:
            self._serve(until)
        finally:
            if self.mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            self.mask = outer

    def _serve(self, until):
        now = time.perf_counter()
        if now > self.look:  # on a quiet machine spinning is faster than sleeping and waking up
            self.look, self.spin = (
                now + 1,
                30 if os.getloadavg()[0] < (os.cpu_count() or 1) + 1 else 0,
            )
        end, idle = now + self.timeout, 0
        while self.threads:
            busy = self._pump(everyone=idle % 64 == 60)
            while self.errands and (until is None or not until()):
                thread, errand = self.errands.pop(0)
                errand()
                thread.state = "running"
                self._go_on(thread)
                busy = True
            if busy:
                idle = 0
                if until and until():
                    return
                continue
            awake = [t for t in self.threads.values() if t.state != "parked"]
            if not until and (
                not awake and not self.peers or idle % 4 == 0 and self._asleep(awake)
            ):
                return
            if time.perf_counter() > end:
                raise GameError(
                    f"the game computed for {self.timeout:g} s without waiting for anything: it "
                    "hangs"
                )
            idle += 1 if idle < 4 * self.spin else 4
            if idle <= 4 * self.spin:
                os.sched_yield()
            else:
                self._rest(min(5e-4, 1e-5 * 1.5 ** min(idle // 4 - self.spin, 20)))

    def _rest(self, seconds):
        """Wait for a thread to stop, at most this long: some fall asleep without a word."""
        if self.mask is None:  # from here on the SIGCHLD that each stop sends is kept for us
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        elif signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
            signal.sigtimedwait({signal.SIGCHLD}, seconds)
        else:
            time.sleep(seconds)  # this program wants these signals for itself

    def _asleep(self, awake) -> bool:
        """Whether no thread runs, and none is about to.

        Who is away from its processor, and has not been on one since (schedstat), can have woken
        nobody: if that is true of all, their states, read in between, tell.  syscall is silent on
        one that is being woken, stat on one that has not left its processor yet."""
        if len(self.pids()) > 1:
            awake = self.threads.values()  # also those that are parked: a process may kill another
        who = [*awake, *self.peers]
        # mostly so: the one that was let run still does
        if any(t is self.latest and not t.waits() for t in who):
            return False
        runs = [t.look(kernel.SCHEDSTAT) for t in who]
        # the others are where they were seen
        fresh = [
            t for t, run in zip(who, runs, strict=False) if t.rest != run or run == kernel.UNCOUNTED
        ]
        if any(t.computes() for t in fresh) or not all(t.waits() for t in who):
            return False
        # one that was woken meanwhile looks asleep while it goes to sleep again
        if runs != [t.look(kernel.SCHEDSTAT) for t in who]:
            return False
        for t, run in zip(who, runs, strict=False):
            t.rest = run
        return not self._pump()

    # -- time

    @property
    def now(self) -> int:
        """Virtual CLOCK_MONOTONIC, ns."""
        return self.words[0]

    @property
    def time(self) -> float:
        """Virtual seconds since launch, or since we attached."""
        return (self.words[0] - self.birth) / NS

    @property
    def alive(self) -> bool:
        return self.pid in self.threads

    def pids(self) -> set[int]:
        """Process ids of the game."""
        return {t.process.pid for t in list(self.threads.values())}

    def _check_thread(self):
        if threading.get_ident() != self.owner:
            raise GameError(
                "a game must be stepped by the thread that started it (a rule of ptrace); for "
                "several games "
                "at once use one process each: gymnasium.vector.AsyncVectorEnv"
            )

    def _next(self) -> Thread | Timer | None:
        """The timer or thread that is due first; of equals the oldest."""
        due = [t for t in (*self.timers.values(), *self.threads.values()) if t.deadline is not None]
        return min(due, key=lambda t: t.deadline, default=None)

    def _jump(self, due):
        """On to the moment of who is due, or of what comes first there; then the game is quiet."""
        server = next(
            (
                t
                for t in self.threads.values()
                if t.process.serves and t.state == "waiting" and t.deadline is not None
            ),
            None,
        )
        # Wine's server writes down the time for its programs whenever it wakes: it
        if server and due.deadline > self.now:
            self.words[0] = server.deadline = due.deadline  # first, for they would race for it
            due = server
        self._wake(due)
        self._settle()

    def _wake(self, due):
        self.words[0] = max(self.now, due.deadline)
        if isinstance(due, Timer):
            return self._expire(due)
        due.deadline = None
        if due.state == "parked":
            if self.attached:
                self._skip(due, due.registers, 0)
            due.state = "running"
            self._go_on(due)
        else:  # interrupt its wait; _on_result sees the end of it
            due.fired = True
            with contextlib.suppress(ProcessLookupError):
                kernel.ptrace("INTERRUPT", due.tid)

    def pause(self) -> None:
        """Let the game come to rest.  Time stands still whenever no other method runs."""
        self._check_thread()
        self._settle()

    def step(self, seconds: float) -> None:
        """Advance by exactly `seconds`: whoever waits on the way is woken at its own moment, one
        after the other.
        """
        self._check_thread()
        target = self.now + round(seconds * NS)
        self._settle()
        while (due := self._next()) and due.deadline <= target and self.threads:
            self._jump(due)
        self.words[0] = max(self.now, target)

    def step_frame(self, presented=None, timeout: float = 60.0, patience: float = 60.0) -> bool:
        """Jump from deadline to deadline until the count of frames presented() (by default that of
        the gate) has grown and the game is quiet again.

        False if the program ended instead; NoFrame after `timeout` seconds of real time or
        `patience` seconds of game time.
        """
        self._check_thread()
        presented = presented or (lambda: self.frames)
        before, end, last = presented(), time.perf_counter() + timeout, self.now + patience * NS
        self._settle()
        while presented() <= before:
            if not self.alive:
                return False
            if time.perf_counter() > end or self.now > last:
                raise NoFrame(f"no frame in {timeout:g} s, or {patience:g} s of game time")
            if due := self._next():
                self._jump(due)
            else:
                time.sleep(0.0005)  # it waits for something outside
                self._settle()
        return True

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """Let time pass continuously for `seconds` of real time, at `speed` times its pace
        (math.inf: as fast as the game can); then pause.
        """
        self._check_thread()
        begin, origin = time.perf_counter(), self.now
        while self.threads and (passed := time.perf_counter() - begin) < seconds:
            if speed == math.inf:
                if due := self._next():
                    self._jump(due)
                else:
                    self._settle()
                continue
            target = origin + int(passed * speed * NS)
            while (due := self._next()) and due.deadline <= target:
                self._wake(due)
                self._pump()
            self.words[0] = max(self.now, target)
            self._pump()
            time.sleep(0.0005)
        self.step(0 if speed == math.inf else max(0.0, seconds * speed - (self.now - origin) / NS))

    def close(self) -> None:
        """End the program and all its children; may be called from any thread, more than once.  An
        attached one is let go, by its own thread.
        """
        if self.attached:
            return self.detach()
        while self.threads:
            for kill, pid in [
                (os.killpg, self.pid),
                *((os.kill, t.process.pid) for t in self.threads.values()),
            ]:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            for tid in list(self.threads):
                with contextlib.suppress(ChildProcessError):
                    got, status = os.waitpid(tid, os.WNOHANG | kernel.WALL)
                    if not got or os.WIFSTOPPED(status):
                        continue
                    if tid == self.pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
                del self.threads[tid]
            time.sleep(0.0002)
        self.gate = self.latest = None  # they and these hold files of the game open
        for held in (self.timers, self.peers, self.started, self.errands):
            held.clear()
        if self.popen and self.popen.returncode is None:
            if self.returncode is None:  # never seized
                self.popen.kill()
                self.returncode = self.popen.wait()
            self.popen.returncode = self.returncode  # reaped by us
        self._leave_page()


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


@functools.cache
def attach_fault() -> str | None:
    """Why programs that run already cannot be attached to, or None: it is tried on a small one."""
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        try:
            Clock.attach(sleeper.pid, timeout=5).close()
        except (GameError, OSError) as e:
            return str(e)
        finally:
            sleeper.kill()
