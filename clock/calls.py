"""System calls that read the time or wait, in virtual time.

Seccomp stops a thread before each of them (kernel.CALLS).  We then do one of three things:

  answer   It reads the time, or sets a timer: we write the result in the kernel's place.
  park     It sleeps: we hold the thread until its virtual deadline.
  wait     It waits for something, with a timeout: the kernel lets it wait endlessly, so that real
           events still end the wait, and we interrupt it at its virtual deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import struct

from clock import kernel, unseen
from clock.base import NS
from clock.tracee import Process, State, Thread, pack_time, read_time

TIMER_ABSTIME = 1
FUTEX_LOCK_PI, FUTEX_COMMAND, FUTEX_CLOCK_REALTIME = 6, 0x7F, 0x100
REALTIME, MONOTONIC = 0, 1


class Calls:
    """What we do at a system call."""

    answered = frozenset(kernel.CALLS.values())  # those that are ours; the kernel has the others

    def __init__(self, clock):
        self.clock = clock

    # -- at the entry of a system call

    def on_call(self, thread: Thread) -> None:
        """One of kernel.CALLS, about to be made."""
        try:
            self._on_call(thread)
        except (OSError, OverflowError, struct.error) as e:
            if getattr(e, "errno", errno.EIO) != errno.EIO:
                raise
            # The game gave an address where nothing is: the kernel tells it so.
            self.clock.go_on(thread)

    def _on_call(self, thread: Thread) -> None:
        registers = thread.registers()
        name = kernel.CALLS.get(registers.orig_rax)
        if not self._is_ours(thread.process, name, registers):
            return self.clock.go_on(thread)
        thread.call = name
        a = registers.arguments()
        if name in kernel.WAITS:
            return self._on_wait(thread, registers, a)
        if name in kernel.SLEEPS:
            return self._on_sleep(thread, registers, a)
        if name == "spin":
            return self.park(thread, registers, self.clock.now + kernel.HOP)
        if name in kernel.LOOK:
            unseen.on_call(self.clock, thread, registers)
            return self.clock.go_on(thread)
        result = self._answer(thread, name, a)
        if result is not None and name in kernel.TELL and self._spins(thread):
            return self.park(thread, registers, self.clock.now + kernel.HOP)
        if result is not None:
            thread.skip_call(registers, result)
        self.clock.go_on(thread)

    def _is_ours(self, process: Process, name: str | None, registers) -> bool:
        if not process.vdso or name not in self.answered:
            return False
        if name != "spin":
            return True
        # Our stub yields for a thread that has read the same moment too often.
        from_stub = registers.rip >> 32 == kernel.STUB_AT >> 32
        return from_stub and not process.serves

    def _answer(self, thread: Thread, name: str, a: list[int]) -> int | None:
        """The result, in the kernel's place; None: the kernel has it."""
        if name in kernel.READS:
            return self._read(thread.process, name, a)
        if name in kernel.TIMERS:
            return self.clock.timer_calls.answer(thread.process, name, a)
        return self._random(thread, a)

    def _read(self, process: Process, name: str, a) -> int | None:
        """A read of the time that was made without the vDSO."""
        clock = signed(a[0]) if name == "clock_gettime" else REALTIME
        if clock not in kernel.VIRTUAL_CLOCKS:
            return None
        value = self.clock.now + self.clock.page.offsets[clock]
        if name == "time":
            if a[0]:
                process.write(a[0], struct.pack("<q", value // NS))
            return value // NS
        if name == "clock_gettime" and a[1]:
            process.write(a[1], pack_time(value))
        if name == "gettimeofday" and a[0]:
            process.write(a[0], pack_time(value, 1000))
        return 0

    def _spins(self, thread: Thread) -> bool:
        """Whether it has read this moment so often, not by our stub, that it waits for the next."""
        moment, count = thread.reads
        count = count + 1 if moment == self.clock.now else 0
        thread.reads = self.clock.now, count % kernel.SPINS
        return count == kernel.SPINS and not thread.process.serves

    def _random(self, thread: Thread, a) -> int | None:
        """getrandom."""
        if not self.clock.fixed:
            return None
        count = min(a[1], 1 << 20)
        thread.process.write(a[0], thread.random.bytes(count))
        return count

    # -- sleeps

    def _on_sleep(self, thread: Thread, registers, a) -> None:
        now = self.clock.now
        if thread.call == "nanosleep":
            return self.park(
                thread, registers, now + (read_time(thread.process, a[0]) or kernel.YIELD)
            )
        clock = signed(a[0])
        if clock not in kernel.VIRTUAL_CLOCKS:
            return self.clock.go_on(thread)
        moment = read_time(thread.process, a[2])
        if a[1] & TIMER_ABSTIME:
            self.park(thread, registers, moment - self.clock.page.offsets[clock])
        else:
            self.park(thread, registers, now + (moment or kernel.YIELD))

    def park(self, thread: Thread, registers, deadline: int) -> None:
        """Hold the thread; when it goes on, its call returns 0 without having been made."""
        thread.entry = registers.copy()
        thread.skip_call(registers, 0)
        if deadline <= self.clock.now:
            return self.clock.go_on(thread)
        thread.park(deadline)
        self.clock.frame_gate.on_sleep(thread)
        self._trace(thread)

    def release(self, thread: Thread) -> None:
        """A parked thread's deadline has come."""
        if thread.call in kernel.TELL:  # it reads the next moment
            # The memory for it, or the thread, may be gone meanwhile.
            with contextlib.suppress(OSError):
                result = self._answer(thread, thread.call, thread.entry.arguments())
                thread.skip_call(thread.entry, result)
        thread.release()
        self.clock.go_on(thread)

    # -- waits

    def _on_wait(self, thread: Thread, registers, a) -> None:
        """Turn a wait with a timeout into an endless one with a virtual deadline."""
        _, index, kind, _ = kernel.WAITS[thread.call]
        if thread.call == "futex" and not a[index]:  # endless, and another thread ends it
            thread.entry = registers.copy()
            thread.wait_until(None)
            return self.clock.go_on(thread)
        delay, by_moment = self._timeout(thread, a)
        if is_sleep(thread.call, a):
            return self.park(thread, registers, self.clock.now + (delay or kernel.YIELD))
        if delay <= 0 and not by_moment:
            return self.clock.go_on(thread)
        thread.entry = registers.copy()
        thread.wait_until(self.clock.now + delay if delay > 0 else None)
        self.clock.frame_gate.on_sleep(thread)
        self._trace(thread)
        if delay > 0:
            self._hold_in_kernel(thread, registers, index, kind)
        else:
            setattr(registers, kernel.ARGUMENTS[index], kernel.ZERO_AT)
        thread.set_registers(registers)
        self.clock.go_on(thread)

    def _timeout(self, thread: Thread, a) -> tuple[int, bool]:
        """ns until a wait times out; whether the game gave a moment and not a delay."""
        _, index, kind, _ = kernel.WAITS[thread.call]
        if kind == "ms":
            return max(0, signed(a[index])) * 1_000_000, False
        value = read_time(thread.process, a[index], 1000 if kind == "timeval" else 1)
        clock = clock_of_moment(thread.call, a)
        if clock is None:
            return value, False
        offset = self.clock.page.offsets[clock] if clock in kernel.VIRTUAL_CLOCKS else 0
        return value - offset - self.clock.now, True

    def _trace(self, thread: Thread) -> None:
        if self.clock.trace:
            self.clock.deadlines.trace(f"thread {thread.number} {thread.call}", thread.deadline)

    def _hold_in_kernel(self, thread: Thread, registers, index: int, kind: str) -> None:
        """Let the kernel wait endlessly."""
        setattr(registers, kernel.ARGUMENTS[index], kernel.ONES if kind == "ms" else 0)

    # -- between the entry and the exit of a system call

    def on_system_call_stop(self, thread: Thread) -> None:
        """Entry (which follows the seccomp stop) or exit of a wait that we made endless."""
        registers = thread.registers()
        result = registers.result()
        if thread.state is not State.WAITING or result == kernel.NOT_MADE:
            return self.clock.go_on(thread)
        give_arguments_back(thread, registers)
        if thread.fired and result in kernel.INTERRUPTED:
            time_out(thread, registers)
        elif result == kernel.RESTART_BLOCK:
            # A signal: begin the call again with its own timeout, for the kernel would go on with
            # the endless one.
            registers.rax = kernel.RESTART & kernel.ONES
        thread.set_registers(registers)
        thread.sets = ()
        self.clock.turns.hold(thread)

    # -- without a system call

    def on_rdtsc(self, thread: Thread) -> bool:
        """At a fault: whether it is of rdtsc or rdtscp, and these are ours too."""
        registers = thread.registers()
        code = thread.process.read(registers.rip, 3) if self.clock.tsc else b""
        if code[:2] == b"\x0f\x31":
            size = 2
        elif code == b"\x0f\x01\xf9":  # rdtscp: the processor's number too
            size = 3
            registers.rcx = 0
        else:
            return False
        if self._spins(thread):  # held before it, so that it reads the next moment
            thread.call = "spin"
            thread.park(self.clock.now + kernel.HOP)
            self._trace(thread)
            return True
        ticks = self.clock.now * kernel.TSC_HZ // NS
        registers.rax = ticks & 0xFFFFFFFF
        registers.rdx = ticks >> 32
        registers.rip += size
        thread.set_registers(registers)
        self.clock.go_on(thread)
        return True


def signed(argument: int) -> int:
    """An int that the game gave."""
    return ctypes.c_int(argument & 0xFFFFFFFF).value


def is_sleep(call: str, a: list[int]) -> bool:
    """Whether a wait is a sleep in disguise: for nothing but its timeout."""
    return (call == "select" and not (a[1] or a[2] or a[3])) or (call == "poll" and not a[1])


def clock_of_moment(call: str, a: list[int]) -> int | None:
    """The clock by which the timeout of a wait is a moment; None if it is a delay."""
    _, index, kind, _ = kernel.WAITS[call]
    if kind == "date":
        return REALTIME
    if kind == "moment":
        return a[index + 1] & 0xFFFFFFFF
    if call == "futex" and a[1] & FUTEX_COMMAND:  # all but WAIT
        by_date = a[1] & FUTEX_CLOCK_REALTIME or a[1] & FUTEX_COMMAND == FUTEX_LOCK_PI
        return REALTIME if by_date else MONOTONIC
    return None


def give_arguments_back(thread: Thread, registers) -> None:
    """System calls keep their arguments, so the game must not see those that we gave."""
    for name in ("rsi", "rdx", "r10", "r8"):
        setattr(registers, name, getattr(thread.entry, name))


def time_out(thread: Thread, registers) -> None:
    """Let an interrupted wait end as one whose time is up."""
    registers.rax = kernel.WAITS[thread.call][3] & kernel.ONES
    registers.orig_rax = kernel.ONES
    if thread.call in ("select", "pselect6"):  # nothing is ready
        size = (registers.rdi + 63) // 64 * 8
        for where in filter(None, (registers.rsi, registers.rdx, registers.r10)):
            thread.process.write(where, bytes(size))
