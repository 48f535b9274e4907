"""Attach mode: a program that runs already.

No seccomp, which cannot be taken back: every system call stops instead (slower). Nothing that the
kernel or the guard could not undo without us: waits are cut into short ones, breakpoints are not
set.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from clock import kernel
from clock.base import NS, GameError
from clock.tracee import Process, Thread


class Attach:
    @classmethod
    def attach(cls, pid: int, timeout: float = 60.0) -> Attach:
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
        # now: later its number may be another's
        files[pid] = files.get(pid) or os.open(f"/proc/{pid}/mem", os.O_RDWR)
        todo.append((files[pid], bytes.fromhex(code), int(address)))
    except OSError:
        pass                                   # it has ended
for restore in todo:
    try:
        os.pwrite(*restore)
    except OSError:
        pass
"""  # a process of its own: puts back what attach() changed, when we end in any way
