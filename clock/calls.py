"""System calls that read the time or wait, in virtual time."""

from __future__ import annotations

import ctypes
import struct

from clock import kernel
from clock.base import NS
from clock.tracee import pack_time, read_time


class Calls:
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
