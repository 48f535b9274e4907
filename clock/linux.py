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
from clock.base import NS, GameError, NoFrame, find_program, read_text
from clock.tracee import Process, Thread, Timer, borrow_file, pack_time, read_time


class Clock:
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

    def _patch(self, thread):
        """After exec: map the clock, let the vDSO jump to it.  The thread is at the exec call's
        exit.
        """
        tid, process = thread.tid, thread.process
        if self._registers(tid).cs != 0x33:
            raise GameError(
                f"vDSO patch: {os.readlink(f'/proc/{tid}/exe')} is a 32-bit program, and those are "
                "not supported"
            )
        self._map_clock(thread)
        auxv = dict(struct.iter_unpack("<QQ", Path(f"/proc/{tid}/auxv").read_bytes()))
        # AT_SYSINFO_EHDR (without it all reads are calls),
        vdso, loader, random = auxv.get(33), auxv.get(7), auxv.get(25)
        process.vdso = self._patch_vdso(thread, vdso) if vdso else "none"  # AT_BASE, AT_RANDOM
        if self.fixed and random:
            process.write(random, thread.random.bytes(16))
        if self.fps and loader:  # the dynamic loader calls it whenever it has loaded something
            path = next((path for path, at in kernel.mapped_files(tid).items() if at == loader), "")
            state = (
                kernel.library_symbols(*kernel.located(tid, path)).get("_dl_debug_state")
                if path
                else None
            )
            if state:
                self._set_break(thread, loader + state, self._on_libraries)

    def _map_clock(self, thread):
        tid, process = thread.tid, thread.process
        path = f"/proc/{os.getpid()}/fd/{self.file}\0".encode()
        below = self._registers(tid).rsp - 512
        kept = process.read(below, len(path))
        process.write(below, path)
        file = self._system_call(tid, 2, below, os.O_RDWR | os.O_CLOEXEC)
        process.write(below, kept)
        # private: each process counts its own reads, or runs would differ
        SHARED, PRIVATE, FIXED_NOREPLACE = 1, 2, 0x100000
        areas = (
            (kernel.STUB_AT, kernel.PAGE, 5, SHARED),
            (kernel.CLOCK_AT, kernel.PAGE, 3, SHARED),
            (kernel.SPINS_AT, kernel.PAGE, 3, PRIVATE),
            (kernel.SCRATCH_AT, kernel.SCRATCH, 3, SHARED),
        )
        places = [
            self._system_call(
                tid, 9, at, size, access, kind | FIXED_NOREPLACE, file, at - kernel.STUB_AT
            )
            for at, size, access, kind in areas
        ]
        self._system_call(tid, 3, file)
        if places != [at for at, *_ in areas]:
            raise GameError(
                f"vDSO patch: the clock could not be mapped into {os.readlink(f'/proc/{tid}/exe')} "
                f"(open {file}, "
                f"mmap {places}); it must run as the same user and see the same /proc"
            )

    def _patch_vdso(self, thread, vdso) -> str:
        """Let its functions jump to ours; -> their names."""
        process, patched = thread.process, []
        for name, (address, size) in kernel.elf_symbols(
            process.read(vdso, 4 * kernel.PAGE)
        ).items():
            if name in kernel.STUB_ENTRY:  # endbr64; movabs rax, entry; jmp rax
                jump = (
                    b"\xf3\x0f\x1e\xfa\x48\xb8"
                    + struct.pack("<Q", kernel.STUB_AT + kernel.STUB_ENTRY[name])
                    + b"\xff\xe0"
                )
                assert len(jump) <= size, (
                    f"{name.decode()} of this kernel's vDSO is only {size} bytes long"
                )
                if self.attached:
                    process.changed.append((vdso + address, process.read(vdso + address, 16)))
                    self.guard.stdin.write(
                        f"{process.pid} {vdso + address} {process.changed[-1][1].hex()}\n"
                    )
                    self.guard.stdin.flush()
                process.write_code(thread.tid, vdso + address, jump)
                patched.append(name.decode().removeprefix("__vdso_"))
            # mov eax, -ENOSYS; ret: libc makes the system call instead
            elif name == b"__vdso_getrandom" and self.fixed:
                process.write_code(
                    thread.tid, vdso + address, b"\xf3\x0f\x1e\xfa\xb8\xda\xff\xff\xff\xc3"
                )
        return ", ".join(patched) or "none"

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

    # -- system calls that read the time or wait

    def _on_call(self, thread):
        """One of CALLS, about to be made."""
        registers, process = self._registers(thread.tid), thread.process
        name, a = kernel.CALLS.get(registers.orig_rax), registers.arguments()
        if (
            not process.vdso
            or not name
            or self.attached
            and (name in kernel.TIMERS or name == "getrandom")
            or name == "spin"
            and (registers.rip >> 32 != kernel.STUB_AT >> 32 or process.serves)
        ):
            return self._go_on(thread)
        thread.call = name
        if name in kernel.WAITS:
            return self._on_wait(thread, registers, name, a)
        if name in kernel.SLEEPS:
            return self._on_sleep(thread, registers, name, a)
        if name == "spin":
            return self._park(thread, registers, self.now + kernel.HOP)
        result = (
            self._read_clock(process, name, a)
            if name in kernel.READS
            else self._on_timer(process, name, a)
            if name in kernel.TIMERS
            else self._random(thread, a)
        )
        if result is not None:  # in the kernel's place
            self._skip(thread, registers, result)
        self._go_on(thread)

    def _on_wait(self, thread, registers, name, a):
        """Turn a wait with a timeout into an endless one with a virtual deadline."""
        process, (_, index, kind, _) = thread.process, kernel.WAITS[name]
        if self.attached and not self._timed(name, a):
            return self._go_on(thread)
        if kind == "ms":
            delay = max(0, ctypes.c_int(a[index] & 0xFFFFFFFF).value) * 1_000_000
        else:
            delay = read_time(process, a[index], 1000 if kind == "timeval" else 1)
        if (name == "select" and not (a[1] or a[2] or a[3])) or (name == "poll" and not a[1]):
            return self._park(
                thread, registers, self.now + (delay or kernel.YIELD)
            )  # a sleep in disguise
        if kind == "date":
            delay -= self.now + self.offsets[0]
        elif kind == "moment":
            clock = a[index + 1] & 0xFFFFFFFF
            delay -= self.now + (self.offsets[clock] if clock in kernel.VIRTUAL_CLOCKS else 0)
        elif name == "futex" and a[1] & 0x7F:  # all but WAIT give a moment, not a delay
            # FUTEX_CLOCK_REALTIME, LOCK_PI
            delay -= self.now + (self.offsets[0] if a[1] & 0x100 or a[1] & 0x7F == 6 else 0)
        elif delay <= 0:
            return self._go_on(thread)
        thread.registers, thread.fired = kernel.Registers.from_buffer_copy(registers), False
        thread.state, thread.deadline = "waiting", self.now + delay if delay > 0 else None
        self._slept(thread)
        setattr(
            registers,
            kernel.ARGUMENTS[index],
            kernel.ONES if kind == "ms" else 0 if delay > 0 else kernel.ZERO_AT,
        )
        if self.attached and delay > 0:
            size = (a[0] + 63) // 64 * 8
            thread.sets = (
                tuple((at, process.read(at, size)) for at in a[1:4] if at)
                if "select" in name
                else ()
            )
            self._cut_wait(thread, registers, index, kind)
        self._set_registers(thread.tid, registers)
        self._go_on(thread)

    def _timed(self, name, a) -> bool:
        """What the filter asks where there is one: whether a call waits, and not for ever; in an
        attached program, whether we can cut it.
        """
        _, index, kind, _ = kernel.WAITS[name]
        if kind == "ms":
            return a[index] & 0xFFFFFFFF not in (0, 0xFFFFFFFF)
        if name == "futex" and (
            a[1] & 0x7F not in (0, 9) or a[1] & 0x7F == 9 and a[5] & 0xFFFFFFFF != 0xFFFFFFFF
        ):
            return False
        return a[index] != 0 and kind not in ("moment", "date") and name != "rt_sigtimedwait"

    def _on_sleep(self, thread, registers, name, a):
        if name == "nanosleep":
            deadline = self.now + (read_time(thread.process, a[0]) or kernel.YIELD)
        else:
            clock, absolute = ctypes.c_int(a[0] & 0xFFFFFFFF).value, a[1] & 1
            if clock not in kernel.VIRTUAL_CLOCKS:
                return self._go_on(thread)
            moment = read_time(thread.process, a[2])
            deadline = (
                moment - self.offsets[clock] if absolute else self.now + (moment or kernel.YIELD)
            )
        self._park(thread, registers, deadline)

    def _park(self, thread, registers, deadline):
        """Hold the thread; when it goes on, its call returns 0 without having been made."""
        thread.registers = kernel.Registers.from_buffer_copy(registers)
        self._skip(thread, registers, 0)
        if deadline <= self.now:
            return self._go_on(thread)
        if self.attached and not (thread.call == "clock_nanosleep" and thread.registers.rsi & 1):
            # A sleep that is let go early, also by our end, is begun again, so none is cut short.
            # Not so those until a moment: the real clock may be far from it.
            self._again(thread, registers)
            self._set_registers(thread.tid, registers)
        thread.state, thread.deadline = "parked", deadline
        self._slept(thread)

    def _slept(self, thread):
        """The last resort for a frame gate."""
        if (
            self.sleeps in (0, thread.process.pid)
            and thread.tid == thread.process.pid
            and thread.call != "spin"
        ):
            self.frames, self.gate, self.presented = self.frames + 1, thread, ("sleep", [])

    def _skip(self, thread, registers, result):
        registers.rax, registers.orig_rax = result & kernel.ONES, kernel.ONES
        self._set_registers(thread.tid, registers)

    def _read_clock(self, process, name, a) -> int | None:
        """Answer a system call that asks for the time, which was made without the vDSO."""
        clock = ctypes.c_int(a[0] & 0xFFFFFFFF).value if name == "clock_gettime" else 0
        if clock not in kernel.VIRTUAL_CLOCKS:
            return None
        value = self.now + self.offsets[clock]
        where = a[1] if name == "clock_gettime" else a[0]
        if name == "time":
            if where:
                process.write(where, struct.pack("<q", value // NS))
            return value // NS
        if where:
            process.write(where, pack_time(value, 1 if name == "clock_gettime" else 1000))
        return 0

    def _random(self, thread, a) -> int | None:
        if not self.fixed:
            return None
        count = min(a[1], 1 << 20)
        thread.process.write(a[0], thread.random.bytes(count))
        return count

    def _on_result(self, thread):
        """Entry (which follows the seccomp stop) or exit of a wait that we made endless."""
        registers = self._registers(thread.tid)
        result = ctypes.c_longlong(registers.rax).value
        if thread.state != "waiting" or result == -38:  # -ENOSYS: the entry
            return self._go_on(thread)
        if (
            self.attached
            and not thread.fired
            and thread.deadline is not None
            and result == kernel.WAITS[thread.call][3]
        ):
            self._cut_wait(thread, registers, *kernel.WAITS[thread.call][1:3])
            self._again(thread, registers)
            self._set_registers(thread.tid, registers)
            return self._go_on(thread)
        for name in ("rsi", "rdx", "r10", "r8"):  # system calls keep their arguments
            setattr(registers, name, getattr(thread.registers, name))
        if thread.fired and result in kernel.INTERRUPTED:
            registers.rax, registers.orig_rax = (
                kernel.WAITS[thread.call][3] & kernel.ONES,
                kernel.ONES,
            )
            if thread.call in ("select", "pselect6"):  # nothing is ready
                size = (registers.rdi + 63) // 64 * 8
                for where in filter(None, (registers.rsi, registers.rdx, registers.r10)):
                    thread.process.write(where, bytes(size))
        elif result == -516:  # a signal: begin the call anew with its own timeout,
            registers.rax = -514 & kernel.ONES  # not the kernel's continuation of the endless one
        self._set_registers(thread.tid, registers)
        thread.state, thread.deadline, thread.sets = "running", None, ()
        self._go_on(thread)

    def _on_rdtsc(self, thread) -> bool:
        """A fault at rdtsc or rdtscp, when these are ours too."""
        registers = self._registers(thread.tid)
        code = thread.process.read(registers.rip, 3) if self.tsc else b""
        size = 2 if code[:2] == b"\x0f\x31" else 3 if code == b"\x0f\x01\xf9" else 0
        if size:
            ticks = self.now * kernel.TSC_HZ // NS
            registers.rax, registers.rdx, registers.rip = (
                ticks & 0xFFFFFFFF,
                ticks >> 32,
                registers.rip + size,
            )
            registers.rcx = 0 if size == 3 else registers.rcx
            self._set_registers(thread.tid, registers)
            self._go_on(thread)
        return size > 0

    # -- timers: kept by us, never by the kernel

    def _on_timer(self, process, name, a) -> int | None:
        """Answer a system call about a timer; None leaves it to the kernel (timers that count CPU
        time).
        """
        if name == "timer_create":
            return self._create_timer(process, a)
        kind = (
            "fd" if name.startswith("timerfd") else "posix" if name.startswith("timer_") else "real"
        )
        if (
            kind == "posix"
            and a[0] not in process.timers
            or name in ("setitimer", "getitimer")
            and a[0] != 0
        ):
            return None
        key, fraction = (
            (process.pid, kind, a[0] if kind != "real" else 0),
            1000 if kind == "real" else 1,
        )
        old = self.timers.get(key)
        left, interval = (max(1, old.deadline - self.now), old.interval) if old else (0, 0)
        if name in ("timer_delete", "timer_getoverrun"):
            if name == "timer_delete":
                self.timers.pop(key, None), process.timers.pop(a[0])
            return 0
        if name == "alarm":
            self._set_timer(process, key, a[0] and self.now + a[0] * NS, 0)
            return -(-left // NS)
        new, where = (
            (0, a[1]) if "get" in name else (a[1], a[2]) if kind == "real" else (a[2], a[3])
        )
        if new:  # struct itimerval or itimerspec: interval, value
            value, absolute = read_time(process, new + 16, fraction), kind != "real" and a[1] & 1
            moment = value and (value if absolute else value + self.now)
            if moment and absolute:
                moment -= self.offsets[self._timer_clock(process, kind, a[0])]
            self._set_timer(process, key, moment, read_time(process, new, fraction))
        if where:
            process.write(where, pack_time(interval, fraction) + pack_time(left, fraction))
        return 0

    def _create_timer(self, process, a) -> int | None:
        clock, number, timer = (
            ctypes.c_int(a[0] & 0xFFFFFFFF).value,
            signal.SIGALRM,
            max(process.timers, default=1 << 20) + 1,
        )
        value, notify, tid = timer, 0, 0
        if clock not in kernel.VIRTUAL_CLOCKS:
            return None
        if a[1]:
            # struct sigevent
            value, number, notify, tid = struct.unpack("<QiiI", process.read(a[1], 20))
        # SIGEV_NONE, SIGEV_THREAD_ID
        process.timers[timer] = (
            clock,
            number if notify != 1 else 0,
            tid if notify & 4 else 0,
            value,
        )
        process.write(a[2], struct.pack("<i", timer))
        return 0

    def _timer_clock(self, process, kind, number) -> int:
        if kind == "posix":
            return process.timers[number][0]
        return int(
            re.search(r"clockid: (\d+)", read_text(f"/proc/{process.pid}/fdinfo/{number}"))[1]
        )

    def _set_timer(self, process, key, moment, interval):
        self.timers.pop(key, None)
        file = borrow_file(process.pid, key[2]) if key[1] == "fd" else None
        if file is not None:
            # also forgets what expired before
            kernel.libc.timerfd_settime(file.fileno(), 0, struct.pack("<4q", 0, 0, 0, 0), None)
        # a number without a file behind it: nothing to expire
        if moment and (file is not None or key[1] != "fd"):
            self.timers[key] = Timer(process, key, max(moment, self.now), interval, file)

    def _expire(self, timer):
        """Let it come true in the game."""
        timer.deadline = max(timer.deadline, self.now) + timer.interval
        process, kind, number = timer.process, *timer.key[1:]
        if (
            not timer.interval
            or not os.path.exists(f"/proc/{process.pid}")
            or kind == "fd"
            and not os.path.exists(f"/proc/{process.pid}/fd/{number}")
        ):
            self.timers.pop(timer.key, None)
        with contextlib.suppress(ProcessLookupError):
            if kind == "fd":
                # at 1 ns after boot: at once
                kernel.libc.timerfd_settime(
                    timer.file.fileno(), 1, struct.pack("<4q", 0, 0, 0, 1), None
                )
            elif kind == "real":
                os.kill(process.pid, signal.SIGALRM)
                self._cut_sleep(process, 0, signal.SIGALRM)
            elif process.timers[number][1]:
                _, what, tid, value = process.timers[number]
                # siginfo_t, SI_TIMER
                info = struct.pack("<iiixxxxiiQ96x", what, 0, -2, number, 0, value)
                # rt_tgsigqueueinfo, rt_sigqueueinfo
                nr, who = (297, (process.pid, tid)) if tid else (129, (process.pid,))
                kernel.libc.syscall(nr, *who, what, info)
                self._cut_sleep(process, tid, what)

    def _cut_sleep(self, process, tid, number):
        """A signal was sent: if all who could take it sleep, held by us, the first one's sleep ends
        with EINTR, as the kernel would.
        """
        threads = [t for t in self.threads.values() if t.process is process and tid in (0, t.tid)]
        for thread in threads if all(t.state == "parked" for t in threads) else ():
            masks = dict(
                re.findall(r"^Sig(Blk|Ign):\s*(\w+)", read_text(f"/proc/{thread.tid}/status"), re.M)
            )
            if thread.call in kernel.SLEEPS and not any(
                int(mask, 16) >> number - 1 & 1 for mask in masks.values()
            ):
                registers, a = self._registers(thread.tid), thread.registers.arguments()
                left = a[1] if thread.call == "nanosleep" else 0 if a[1] & 1 else a[3]
                if left:
                    process.write(left, pack_time(thread.deadline - self.now))
                self._skip(thread, registers, -4)
                thread.state, thread.deadline = "running", None
                return self._go_on(thread)

    # -- the frame gate: breakpoints on the functions that present

    def _set_break(self, thread, address, call, library=""):
        """Let the thread that comes there stop, and call(thread, its registers there)."""
        process = thread.process
        if address not in process.breaks:
            process.breaks[address] = (process.read(address, 1), call, library)
            process.write_code(thread.tid, address, kernel.INT3)

    def _clear_break(self, thread, address):
        thread.process.write_code(thread.tid, address, thread.process.breaks.pop(address)[0])

    def _on_break(self, thread) -> bool:
        """At an int3: of ours?"""
        registers = self._registers(thread.tid)
        if registers.rip == kernel.STUB_AT + kernel.CALLS_END:
            thread.state = "called"
            return True
        registers.rip -= 1
        if registers.rip not in thread.process.breaks:
            return False
        byte, call, _ = thread.process.breaks[registers.rip]
        self._pass_break(thread, kernel.Registers.from_buffer_copy(registers), byte)
        call(thread, registers)
        if thread.state == "running":
            self._go_on(thread)
        return True

    def _pass_break(self, thread, registers, byte):
        """Do the instruction under the breakpoint: the usual first ones ourselves, others by a
        single step.
        """
        process, at = thread.process, registers.rip
        code = byte + process.read(at + 1, 9)
        if code[:4] == b"\xf3\x0f\x1e\xfa":  # endbr64
            registers.rip = at + 4
        elif code[:2] == b"\xff\x25":  # jmp [rip + offset]: SDL's table of functions
            (registers.rip,) = struct.unpack(
                "<Q", process.read(at + 6 + struct.unpack_from("<i", code, 2)[0], 8)
            )
        elif code[:1] == b"\xc3":  # ret
            (registers.rip,) = struct.unpack("<Q", process.read(registers.rsp, 8))
            registers.rsp += 8
        else:
            self._set_registers(thread.tid, registers)
            process.write_code(thread.tid, at, byte)
            self._until_trap(thread.tid, "SINGLESTEP")
            return process.write_code(thread.tid, at, kernel.INT3)
        self._set_registers(thread.tid, registers)

    def _on_libraries(self, thread, _):
        """The dynamic loader has loaded something: breakpoints on what is new to us."""
        process = thread.process
        for path, base in kernel.mapped_files(process.pid).items():
            if kernel.GRAPHICS.search(path) and path not in process.libraries:
                names = kernel.library_symbols(*kernel.located(process.pid, path))
                process.libraries[path] = {name: base + at for name, at in names.items()}
                for name in kernel.PRESENTS & set(names) if process.outermost in ("", path) else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_present, name, path),
                        path,
                    )
                for name in kernel.RESOLVERS.keys() & set(names) if process.outermost == "" else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_resolve, kernel.RESOLVERS[name], path),
                        path,
                    )
                for name in kernel.STARTS & set(names):
                    self._set_break(thread, base + names[name], self._on_start)

    def _on_resolve(self, argument, library, thread, registers):
        """The program asks for a function by name: if it presents, a breakpoint on what it gets."""
        name = (
            thread.process.read(getattr(registers, argument), 32)
            .split(b"\0")[0]
            .decode(errors="replace")
        )
        if name in kernel.PRESENTS:
            self._on_return(
                thread,
                registers,
                lambda thread, after: (
                    after.rax
                    and self._set_break(
                        thread,
                        after.rax,
                        functools.partial(self._on_present, name, library),
                        library,
                    )
                ),
            )

    def _on_return(self, thread, registers, call):
        """At the entry of a function: call(thread, registers) once, when it returns."""

        def returned(thread, after):
            self._clear_break(thread, back)
            call(thread, after)

        (back,) = struct.unpack("<Q", thread.process.read(registers.rsp, 8))
        self._set_break(thread, back, returned)

    def _on_start(self, thread, registers):
        """SDL_Init or SDL_InitSubSystem: hold the thread again when it returns."""

        def started(thread, _):
            thread.state = "parked"
            self.errands.append((thread, lambda: [call(thread, flags) for call in self.started]))

        flags = registers.rdi & 0xFFFFFFFF
        self._on_return(thread, registers, started)

    def _on_present(self, name, library, thread, registers):
        """A frame is drawn; hold the thread here, or where the frame has been shown."""
        process, arguments = thread.process, registers.arguments()
        if not process.outermost:
            process.outermost = library
            for address in [
                at for at, (_, _, other) in process.breaks.items() if other not in ("", library)
            ]:
                self._clear_break(thread, address)
        if self.shown:
            return self._on_return(
                thread, registers, lambda thread, _: self._hold(thread, name, arguments)
            )
        self._hold(thread, name, arguments)

    def _hold(self, thread, name, arguments):
        """At the gate until the next tick of the monitor, as one that waits for its vertical blank."""
        tick = int((self.now - kernel.BIRTH) * self.fps // NS) + 1
        thread.state, thread.call, thread.deadline = (
            "parked",
            "present",
            max(self.now + 1, kernel.BIRTH + int(-(-tick * NS // self.fps))),
        )
        self.frames, self.gate, self.presented, self.sleeps = (
            self.frames + 1,
            thread,
            (name, arguments),
            None,
        )

    def gated(self) -> bool:
        """Whether a thread is held at the frame gate."""
        return (
            self.gate is not None
            and self.gate.tid in self.threads
            and (self.gate.state, self.gate.call) == ("parked", "present")
        )

    def call(self, thread, *calls) -> list[int]:
        """Run functions of the game, each (address, arguments...), in a thread that we hold at a
        function call; -> results, 64 bits.

        A wait in them ends at once.  Raises ProcessLookupError if the thread ends in them."""
        kept, state, deadline, what = (
            self._registers(thread.tid),
            thread.state,
            thread.deadline,
            thread.call,
        )
        table = (kernel.TABLE_AT - kernel.CLOCK_AT) // 8
        for i, (function, *arguments) in enumerate(calls):
            row = [function, *(a & kernel.ONES for a in arguments), *[0] * (7 - len(arguments))]
            for j, word in enumerate(row):
                self.words[table + 8 * i + j] = word
        self.words[table + 8 * len(calls)] = 0
        now = kernel.Registers.from_buffer_copy(kept)
        now.rip, now.rsp, now.orig_rax = (
            kernel.STUB_AT + kernel.CALLS_ENTRY,
            (kept.rsp - 1024) & ~15,
            kernel.ONES,
        )
        self._set_registers(thread.tid, now)
        thread.state, thread.deadline = "running", None
        self._go_on(thread)
        while thread.state != "called":
            self._settle(
                until=lambda: (
                    thread.state == "called"
                    or thread.deadline is not None
                    or thread.tid not in self.threads
                )
            )
            if thread.tid not in self.threads:
                raise ProcessLookupError("the game ended in a function that it was made to call")
            if thread.state != "called":
                thread.deadline = self.now
                self._wake(thread)
        self._set_registers(thread.tid, kept)
        thread.state, thread.deadline, thread.call = state, deadline, what
        return [self.words[table + 8 * i + 7] for i in range(len(calls))]

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

    def _leave_page(self):
        """The page shared with the game goes; the time stays readable."""
        if self.file is not None:
            os.close(self.file)
            self.words, self.offsets = list(self.words), list(self.offsets)
            self.file = self.page = self.scratch = None

    # -- attach mode: a program that runs already.  No seccomp, which cannot be taken back: every
    # system call stops instead (slower). Nothing that the kernel or the guard could not undo
    # without us: waits are cut into short ones, breakpoints are not set.

    @classmethod
    def attach(cls, pid: int, timeout: float = 60.0) -> Clock:
        """A Clock of a program that runs already, which stands still from now on.

        After detach(), close() or our own end, however it comes, it runs on in real time as if
        nothing had been.  Its timers stay the kernel's, and there is no frame gate: step(seconds)
        and run(seconds, speed)."""
        self = cls.__new__(cls)
        self._begin(timeout, fixed=False)
        self.attached, self.pid = True, pid
        self.words[0] = 0  # not ahead of real time, should this end in detach()
        self.guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        try:
            self._seize()  # only now: none of its clocks goes back, or jumps
            self.words[0] = self.birth = time.monotonic_ns()
            for clock in kernel.VIRTUAL_CLOCKS - {1, 6}:
                # the coarse one lags behind; those of alarms need a device
                exact = {5: 0, 8: 0, 9: 7}.get(clock, clock)
                self.offsets[clock] = time.clock_gettime_ns(exact) - time.monotonic_ns()
            for thread in self.threads.values():
                self._leave_vdso(thread)
            main = self.threads[pid]
            # munmap what an earlier attachment has left
            self._system_call(pid, 11, kernel.STUB_AT, 3 * kernel.PAGE + kernel.SCRATCH)
            self._patch(main)
            for thread in self.threads.values():
                self._go_on(thread)
                thread.state = "running"
            self._settle()
        except BaseException as e:  # it runs on
            self.close()
            if not isinstance(e, OSError):
                raise
            raise GameError(
                f"attach: process {pid}: {e.strerror or e}; it must be yours, and "
                "kernel.yama.ptrace_scope 0 (sudo sysctl "
                "kernel.yama.ptrace_scope=0), or you root"
            ) from None
        return self

    def _seize(self):
        """All its threads, also those that are born meanwhile; they are stopped."""
        process, gone = Process(self.pid), set()
        while new := [
            t
            for t in map(int, os.listdir(f"/proc/{self.pid}/task"))
            if t not in self.threads and t not in gone
        ]:
            for tid in new:
                try:
                    # no events yet: whom it begins now is found by the next look
                    kernel.ptrace("SEIZE", tid)
                    kernel.ptrace("INTERRUPT", tid)
                    while number := self._wait(tid):  # a signal was on its way
                        kernel.ptrace("CONT", tid, 0, number)
                    kernel.ptrace("SETOPTIONS", tid, 0, kernel.OPTIONS)
                    self.threads[tid] = Thread(tid, process, "parked")
                # it has ended meanwhile, or is about to
                except (ProcessLookupError, PermissionError):
                    if tid == self.pid:
                        raise
                    gone.add(tid)

    def _leave_vdso(self, thread):
        """Step a thread out of the code that is about to change."""
        vdso = dict(struct.iter_unpack("<QQ", Path(f"/proc/{thread.tid}/auxv").read_bytes())).get(
            33, 0
        )
        while vdso <= self._registers(thread.tid).rip < vdso + 4 * kernel.PAGE:
            self._until_trap(thread.tid, "SINGLESTEP")

    def _cut_wait(self, thread, registers, index, kind):
        """Let the kernel wait for a moment only; _on_result makes it wait on."""
        short = 10  # ms
        self.words[4:8] = (
            memoryview(struct.pack("<4Q", 0, short * 1_000_000, 0, short * 1000))
            .cast("B")
            .cast("Q")
        )
        setattr(
            registers,
            kernel.ARGUMENTS[index],
            short if kind == "ms" else kernel.SHORT_AT + (16 if kind == "timeval" else 0),
        )
        if thread.call == "futex":  # WAIT_BITSET takes a moment, WAIT a delay
            registers.rsi = registers.rsi & ~0x17F

    def _again(self, thread, registers) -> None:
        """Back to before its system call: it makes the same one again."""
        registers.rip, registers.rax = registers.rip - 2, thread.registers.orig_rax
        for where, data in thread.sets:
            thread.process.write(where, data)

    def detach(self) -> None:
        """Let an attached program run on in real time; one that was stepped ahead of that is held
        until it has caught up, or for 10 s.

        After those, or if we are killed, its clocks go back, which not every program survives."""
        self._check_thread()
        signals = {}  # on their way to a thread just now
        for thread in self.threads.values():
            if thread.state != "parked":
                with contextlib.suppress(ProcessLookupError):
                    kernel.ptrace("INTERRUPT", thread.tid)
        for thread in list(self.threads.values()):
            with contextlib.suppress(OSError):
                if thread.state != "parked":
                    _, status = os.waitpid(thread.tid, kernel.WALL)
                    if not os.WIFSTOPPED(status):
                        del self.threads[thread.tid]
                        continue
                    if status >> 16 in (kernel.FORK, kernel.VFORK, kernel.CLONE):
                        # ours from its first moment: it is let go too
                        os.waitpid(self._born(thread).tid, kernel.WALL)
                    signals[thread.tid] = (
                        0
                        if status >> 16 or status >> 8 in (kernel.SYSCALL_STOP, kernel.SIGTRAP)
                        else status >> 8
                    )
                    if thread.state == "waiting":
                        self._restore_wait(thread, status)
        for thread in self.threads.values():  # all stand still now
            with contextlib.suppress(OSError):
                self._leave_vdso(thread)
                for address, code in thread.process.changed:
                    thread.process.write_code(thread.tid, address, code)
                thread.process.changed.clear()
        if self.threads:
            time.sleep(
                min(max(0, self.now - time.monotonic_ns() + kernel.COARSE), kernel.CATCH_UP) / NS
            )
        for tid in list(self.threads):
            with contextlib.suppress(OSError):
                kernel.ptrace("DETACH", tid, 0, signals.get(tid, 0))
            del self.threads[tid]
        if not self.guard.stdin.closed:
            self.guard.stdin.write("0 0 00\n")  # nothing is left to be done
            self.guard.stdin.close()
            self.guard.wait()
        self._leave_page()

    def _restore_wait(self, thread, status):
        """Give a wait that we cut its own timeout back, in real time."""
        registers = self._registers(thread.tid)
        result = ctypes.c_longlong(registers.rax).value
        for name in ("rsi", "rdx", "r10", "r8"):
            setattr(registers, name, getattr(thread.registers, name))
        if status >> 8 & 0xFF != kernel.SYSCALL_STOP or result != -38:  # not at its entry
            if result == kernel.WAITS[thread.call][3]:
                self._again(thread, registers)
            elif result == -516:
                registers.rax = -514 & kernel.ONES
        self._set_registers(thread.tid, registers)


GUARD = """
import os, sys
todo, files = [], {}
for line in sys.stdin:
    pid, address, code = line.split()
    if address == "0":
        todo.clear()
        continue
    try:
        files[pid] = files.get(pid) or os.open(f"/proc/{pid}/mem", os.O_RDWR)       # now: later its number may be another's
        todo.append((files[pid], bytes.fromhex(code), int(address)))
    except OSError:
        pass                                   # it has ended
for restore in todo:
    try:
        os.pwrite(*restore)
    except OSError:
        pass
"""  # a process of its own: puts back what attach() changed, when we end in any way


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
