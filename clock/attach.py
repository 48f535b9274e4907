"""A program that runs already, and its time.

It never inherited a seccomp filter, which could not be taken back anyway: so every system call of
it stops (slower), and AttachedCalls sorts them.  We do nothing to it that the kernel or the guard
(attach_guard.py) could not undo without us: a wait is cut into short ones, a sleep that is let go
early is begun again, and breakpoints are not set.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from clock import kernel
from clock.base import NS, GameError
from clock.calls import TIMER_ABSTIME, Calls, give_arguments_back
from clock.linux import Clock
from clock.page import Page, patch
from clock.tracee import Process, State, Thread, next_stop

SHORT = 10  # ms of real time, of each part of a wait
FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_COMMAND, EVERY_BIT = 0, 9, 0x7F, 0xFFFFFFFF


class AttachedClock(Clock):
    """A Clock of a program that runs already, which stands still from now on.

    After detach(), close() or our own end, however it comes, it runs on in real time as if nothing
    had been.  Its timers stay the kernel's, and there is no frame gate: step(seconds) and
    run(seconds, speed).
    """

    has_gate = False
    resume = "SYSCALL"  # every system call stops

    def __init__(self, pid: int, timeout: float = 60.0):
        """timeout: as Clock's"""
        self._begin(timeout)
        self.pid = pid
        self.calls = AttachedCalls(self)
        self.now = 0  # not ahead of real time, should this end in detach()
        self.guard = Guard()
        try:
            self._take_over()
        except BaseException as e:  # it runs on
            self.close()
            if not isinstance(e, OSError):
                raise
            raise GameError(
                f"attach: process {pid}: {e.strerror or e}; it must be yours, and "
                "kernel.yama.ptrace_scope 0 (sudo sysctl "
                "kernel.yama.ptrace_scope=0), or you root"
            ) from None

    # -- taking it

    def _take_over(self) -> None:
        self._seize()
        self._set_clocks()
        for thread in self.threads.values():
            leave_vdso(thread)
        main = self.threads[self.pid]
        Page.unmap_from(main)
        patch(self, main)
        for thread in self.threads.values():
            self.go_on(thread)
            thread.state = State.RUNNING
        self.settle()

    def _seize(self) -> None:
        """All its threads, also those that are born meanwhile; they are stopped."""
        process, gone = Process(self.pid), set()
        while new := self._unknown_threads(gone):
            for tid in new:
                try:
                    seize(tid)
                    self.add(tid, process).state = State.PARKED
                # it has ended meanwhile, or is about to
                except (ProcessLookupError, PermissionError):
                    if tid == self.pid:
                        raise
                    gone.add(tid)

    def _unknown_threads(self, gone: set[int]) -> list[int]:
        tids = map(int, os.listdir(f"/proc/{self.pid}/task"))
        return [tid for tid in tids if tid not in self.threads and tid not in gone]

    def _set_clocks(self) -> None:
        """To real time, while all threads stand still: none of its clocks goes back, or jumps."""
        self.now = self.birth = time.monotonic_ns()
        # The coarse ones lag behind; those of alarms need a device.
        exact = {5: 0, 8: 0, 9: 7}
        for clock in kernel.VIRTUAL_CLOCKS - {1, 6}:
            now = time.clock_gettime_ns(exact.get(clock, clock))
            self.page.offsets[clock] = now - time.monotonic_ns()

    def overwrite(self, thread: Thread, address: int, code: bytes) -> None:
        process = thread.process
        before = process.read(address, len(code))
        process.changed.append((address, before))
        self.guard.remember(process.pid, address, before)
        super().overwrite(thread, address, code)

    # -- letting it go

    def close(self) -> None:
        """As detach()."""
        self.detach()

    def detach(self) -> None:
        """Let an attached program run on in real time; one that was stepped ahead of that is held
        until it has caught up, or for 10 s.

        After those, or if we are killed, its clocks go back, which not every program survives."""
        self._check_thread()
        signals = self._stop_all()
        for thread in self.threads.values():  # all stand still now
            with contextlib.suppress(OSError):
                leave_vdso(thread)
                for address, code in thread.process.changed:
                    thread.process.write_code(thread.tid, address, code)
                thread.process.changed.clear()
        if self.threads:
            ahead = self.now - time.monotonic_ns() + kernel.COARSE
            time.sleep(min(max(0, ahead), kernel.CATCH_UP) / NS)
        for tid in list(self.threads):
            with contextlib.suppress(OSError):
                kernel.ptrace("DETACH", tid, 0, signals.get(tid, 0))
            del self.threads[tid]
        self.guard.dismiss()
        self.page.leave()

    def _stop_all(self) -> dict[int, int]:
        """-> by thread, the signal that is on its way to it just now."""
        signals = {}
        moving = [thread for thread in self.threads.values() if thread.state is not State.PARKED]
        for thread in moving:
            with contextlib.suppress(ProcessLookupError):
                kernel.ptrace("INTERRUPT", thread.tid)
        for thread in moving:
            with contextlib.suppress(OSError):
                signals[thread.tid] = self._await_stop(thread)
        return signals

    def _await_stop(self, thread: Thread) -> int:
        """The signal with which it stops; 0: none."""
        _, status = os.waitpid(thread.tid, kernel.WALL)
        if not os.WIFSTOPPED(status):
            del self.threads[thread.tid]
            return 0
        event, number = status >> 16, status >> 8
        if event in (kernel.FORK, kernel.VFORK, kernel.CLONE):
            # ours from its first moment: it is let go too
            os.waitpid(self.stops.adopt(thread).tid, kernel.WALL)
        if thread.state is State.WAITING:
            self.calls.give_wait_back(thread, at_call=number & 0xFF == kernel.SYSCALL_STOP)
        return 0 if event or number in (kernel.SYSCALL_STOP, kernel.SIGTRAP) else number


def seize(tid: int) -> None:
    """A thread; it is stopped."""
    # no events yet: whom it begins now is found by the next look
    kernel.ptrace("SEIZE", tid)
    kernel.ptrace("INTERRUPT", tid)
    while number := next_stop(tid):  # a signal was on its way
        kernel.ptrace("CONT", tid, 0, number)
    kernel.ptrace("SETOPTIONS", tid, 0, kernel.OPTIONS)


def leave_vdso(thread: Thread) -> None:
    """Step a thread out of the code that is about to change."""
    vdso = thread.auxiliary_vector().get(kernel.AT_SYSINFO_EHDR, 0)
    while vdso <= thread.registers().rip < vdso + 4 * kernel.PAGE:
        thread.run_until_trap("SINGLESTEP")


class Guard:
    """The process that runs attach_guard.py."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("attach_guard.py"))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def remember(self, pid: int, address: int, code: bytes) -> None:
        self.process.stdin.write(f"{pid} {address} {code.hex()}\n")
        self.process.stdin.flush()

    def dismiss(self) -> None:
        """Nothing is left to be done."""
        if not self.process.stdin.closed:
            self.process.stdin.write("0 0 00\n")
            self.process.stdin.close()
            self.process.wait()


class AttachedCalls(Calls):
    """Calls, of a program whose every system call stops."""

    answered = Calls.answered - kernel.TIMERS.keys() - kernel.LOOK.keys() - {"getrandom"}

    def on_system_call_stop(self, thread: Thread) -> None:
        """Of any system call; its entry is what the seccomp stop is for a program of ours."""
        if thread.state is not State.WAITING and at_entry(thread.tid):
            return self.on_call(thread)
        if thread.state is State.WAITING and not thread.fired and thread.deadline is not None:
            registers = thread.registers()
            _, index, kind, timed_out = kernel.WAITS[thread.call]
            if registers.result() == timed_out:  # one part of the wait is over, not the wait
                self._hold_in_kernel(thread, registers, index, kind)
                make_again(thread, registers)
                thread.set_registers(registers)
                return self.clock.go_on(thread)
        super().on_system_call_stop(thread)

    def park(self, thread: Thread, registers, deadline: int) -> None:
        """A sleep that is let go early, also by our end, is begun again, so none is cut short.  Not
        so those until a moment: the real clock may be far from it.
        """
        super().park(thread, registers, deadline)
        until_moment = thread.call == "clock_nanosleep" and thread.entry.rsi & TIMER_ABSTIME
        if thread.state is State.PARKED and not until_moment:
            make_again(thread, registers)
            thread.set_registers(registers)

    def release(self, thread: Thread) -> None:
        thread.skip_call(thread.entry, 0)
        super().release(thread)

    def _on_wait(self, thread: Thread, registers, a) -> None:
        if can_be_cut(thread.call, a):
            super()._on_wait(thread, registers, a)
        else:
            self.clock.go_on(thread)

    def _hold_in_kernel(self, thread: Thread, registers, index: int, kind: str) -> None:
        """Let the kernel wait for a moment only; on_system_call_stop makes it wait on."""
        if not thread.sets and "select" in thread.call:
            read, a = thread.process.read, registers.arguments()
            size = (a[0] + 63) // 64 * 8
            thread.sets = tuple((at, read(at, size)) for at in a[1:4] if at)
        nanoseconds, microseconds = SHORT * 1_000_000, SHORT * 1000
        times = struct.pack("<4Q", 0, nanoseconds, 0, microseconds)
        self.clock.page.words[4:8] = memoryview(times).cast("B").cast("Q")
        if kind == "ms":
            value = SHORT
        else:
            value = kernel.SHORT_AT + (16 if kind == "timeval" else 0)
        setattr(registers, kernel.ARGUMENTS[index], value)
        if thread.call == "futex":  # WAIT_BITSET takes a moment, WAIT a delay
            registers.rsi = registers.rsi & ~(0x100 | FUTEX_COMMAND)

    def give_wait_back(self, thread: Thread, at_call: bool) -> None:
        """Give a wait that we cut its own timeout back, in real time.  at_call: it has stopped at
        the entry or exit of its system call.
        """
        registers = thread.registers()
        result = registers.result()
        give_arguments_back(thread, registers)
        if not (at_call and result == kernel.NOT_MADE):  # not at its entry
            if result == kernel.WAITS[thread.call][3]:
                make_again(thread, registers)
            elif result == kernel.RESTART_BLOCK:
                registers.rax = kernel.RESTART & kernel.ONES
        thread.set_registers(registers)


def at_entry(tid: int) -> bool:
    """Whether a system call stop is at the entry."""
    info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
    kernel.ptrace("GET_SYSCALL_INFO", tid, len(info), ctypes.addressof(info))
    return info.raw[0] == 1


def can_be_cut(call: str, a: list[int]) -> bool:
    """Whether a call waits, and not for ever, which the filter asks where there is one; and whether
    it can be cut into short waits.
    """
    _, index, kind, _ = kernel.WAITS[call]
    if kind == "ms":
        return a[index] & 0xFFFFFFFF not in (0, 0xFFFFFFFF)
    if kind in ("moment", "date") or call == "rt_sigtimedwait":
        return False
    if call == "futex":
        command = a[1] & FUTEX_COMMAND
        plain = command == FUTEX_WAIT_BITSET and a[5] & EVERY_BIT == EVERY_BIT
        if command != FUTEX_WAIT and not plain:
            return False
    return a[index] != 0


def make_again(thread: Thread, registers) -> None:
    """Back to before its system call: it makes the same one again."""
    registers.rip -= 2
    registers.rax = thread.entry.orig_rax
    for where, data in thread.sets:
        thread.process.write(where, data)


@functools.cache
def attach_fault() -> str | None:
    """Why programs that run already cannot be attached to, or None: it is tried on a small one."""
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        try:
            AttachedClock(sleeper.pid, timeout=5).close()
        except (GameError, OSError) as e:
            return str(e)
        finally:
            sleeper.kill()
