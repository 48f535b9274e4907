"""A traced process and its threads: memory, registers, states."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import io
import os
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clock import kernel
from clock.base import NS, read_text


class Process:
    """One address space of the game."""

    def __init__(self, pid: int, parent: Process | None = None):
        self.pid, self.memory = pid, None
        self.vdso = parent.vdso if parent else ""  # its patched functions, once the clock is there
        # address of a breakpoint -> (byte under it, what it calls, library)
        self.breaks = dict(parent.breaks) if parent else {}
        # path of a graphics library -> {function: address}
        self.libraries = dict(parent.libraries) if parent else {}
        # timer_create's: number -> (clock, signal, thread, value)
        self.timers: dict[int, tuple] = {}
        self.outermost = parent.outermost if parent else ""  # the library that presents
        self.changed: list[tuple] = []  # (address, bytes before) in an attached program
        # asks for the time at each request
        self.serves = (
            parent.serves if parent else read_text(f"/proc/{pid}/comm").startswith("wineserver")
        )
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        return os.pread(self.memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        os.pwrite(self.memory, data, address)

    def write_code(self, tid: int, address: int, data: bytes) -> None:
        """Into pages that the game may not write, copy on write; by ptrace, as kernels may forbid
        it to /proc/PID/mem.
        """
        data += self.read(address + len(data), -len(data) % 8)
        for i, word in enumerate(struct.unpack(f"<{len(data) // 8}Q", data)):
            kernel.ptrace("POKEDATA", tid, address + 8 * i, word)

    def find(self, name: str) -> int | None:
        """Address of a function that one of the loaded graphics libraries exports."""
        return next((symbols[name] for symbols in self.libraries.values() if name in symbols), None)

    def __del__(self):
        if self.memory is not None:
            os.close(self.memory)


def read_time(process: Process, address: int, fraction: int = 1) -> int:
    """ns in a struct timespec (fraction 1 ns) or timeval (1000 ns) of the game."""
    whole, part = struct.unpack("<qq", process.read(address, 16))
    return whole * NS + part * fraction


def pack_time(value: int, fraction: int = 1) -> bytes:
    return struct.pack("<qq", value // NS, value % NS // fraction)


class State(enum.Enum):
    """What a thread does, as far as we know."""

    RUNNING = "it computes, or is blocked in the kernel as it likes"
    PARKED = "we hold it, in a sleep or at the frame gate"
    WAITING = "it is in the kernel, in a wait that we end"
    STOPPED = "a signal has stopped it"
    IN_VFORK = "it stands still until its child has memory of its own"
    CALLED = "we hold it: it has run the functions that we made it call"


# What /proc says of a thread that does nothing; of one in another state S or Z.
LETTERS = {State.PARKED: b"t", State.STOPPED: b"t", State.IN_VFORK: b"SDZ"}


@dataclass
class Thread:
    """One thread of the game."""

    tid: int
    process: Process
    number: int = 0  # the game's threads are counted from 1, in the order of their birth
    state: State = State.RUNNING
    deadline: int | None = None  # of its sleep or wait, virtual ns
    fired: bool = False  # the wait's deadline has come, the interrupt is on its way
    call: str = ""  # name of the sleep or wait
    entry: kernel.Registers | None = None  # registers with which the game made that call
    reads: tuple[int, int] = (0, 0)  # a moment, and how often in a row it has read it by calls
    asked: bool = False  # whether it has asked to be traced
    is_new: bool = False  # a thread of a running process, which has not begun yet
    files: tuple = ()  # what /proc says of it: LOOKS
    rest: bytes = b""  # its "schedstat" when it was last seen off its processor
    sets: tuple = ()  # (address, content) of the file descriptor sets of a select that we cut
    # its getrandom: of its own, as threads and processes ask in any order
    random: np.random.Generator | None = None

    # -- its state

    def park(self, deadline: int | None) -> None:
        """We hold it until then."""
        self.state = State.PARKED
        self.deadline = deadline

    def wait_until(self, deadline: int | None) -> None:
        """The kernel holds it until we end its wait."""
        self.state = State.WAITING
        self.deadline = deadline
        self.fired = False

    def release(self) -> None:
        """It waits for nothing."""
        self.state = State.RUNNING
        self.deadline = None

    # -- what /proc says of it

    def look(self, what: int) -> bytes:
        """One of LOOKS as /proc says it now; empty once the thread is gone."""
        try:
            if not self.files:
                self.files = tuple(
                    os.open(
                        f"/proc/{self.process.pid}/task/{self.tid}/{name}",
                        os.O_RDONLY | os.O_CLOEXEC,
                    )
                    for name in kernel.LOOKS
                )
            return os.pread(self.files[what], 64, 0)
        except OSError:
            return b""

    def waits(self) -> bool:
        """Whether it sleeps, or is about to and has not left its processor; not while it is being
        woken.
        """
        letter = self.look(kernel.STAT).rpartition(b")")[2][1:2]
        if not letter or letter not in LETTERS.get(self.state, b"SZ"):
            return False
        return not (self.fired and self.deadline is None and self.state is State.WAITING)

    def computes(self) -> bool:
        """Whether it is on a processor; also of one that waits to be woken this says nothing."""
        return self.look(kernel.SYSCALL)[:7] in (b"", b"running")

    # -- while it is stopped: its registers, and what we make it do

    def registers(self) -> kernel.Registers:
        registers = kernel.Registers()
        kernel.ptrace("GETREGS", self.tid, 0, ctypes.addressof(registers))
        return registers

    def set_registers(self, registers: kernel.Registers) -> None:
        kernel.ptrace("SETREGS", self.tid, 0, ctypes.addressof(registers))

    def skip_call(self, registers: kernel.Registers, result: int) -> None:
        """Let its system call have this result, without having been made."""
        registers.rax = result & kernel.ONES
        registers.orig_rax = kernel.ONES
        self.set_registers(registers)

    def system_call(self, nr: int, *args: int) -> int:
        """Make it run one system call; -> the result."""
        process, before = self.process, self.registers()
        code = process.read(before.rip, 8)
        process.write_code(self.tid, before.rip, b"\x0f\x05\xcc" + code[3:])  # syscall; int3
        now = before.copy()
        now.rax = nr
        now.orig_rax = kernel.ONES  # -1: the kernel restarts nothing
        for name, value in zip(kernel.ARGUMENTS, (*args, 0, 0, 0, 0, 0), strict=False):
            setattr(now, name, value)
        self.set_registers(now)
        self.run_until_trap("CONT")
        result = self.registers().result()
        process.write_code(self.tid, before.rip, code)
        self.set_registers(before)
        return result

    def run_until_trap(self, how: str) -> None:
        """Let it run to its next trap, by CONT or SINGLESTEP; signals wait meanwhile."""
        mask, rest = ctypes.c_uint64(), ctypes.c_uint64(kernel.ONES ^ 1 << kernel.SIGTRAP - 1)
        kernel.ptrace("GETSIGMASK", self.tid, 8, ctypes.addressof(mask))
        kernel.ptrace("SETSIGMASK", self.tid, 8, ctypes.addressof(rest))
        kernel.ptrace(how, self.tid)
        while next_stop(self.tid) != kernel.SIGTRAP:
            kernel.ptrace(how, self.tid)
        kernel.ptrace("SETSIGMASK", self.tid, 8, ctypes.addressof(mask))

    def auxiliary_vector(self) -> dict[int, int]:
        """What the kernel told its program at exec (man getauxval)."""
        return dict(struct.iter_unpack("<QQ", Path(f"/proc/{self.tid}/auxv").read_bytes()))

    def __del__(self):
        for file in self.files:
            os.close(file)


def next_stop(tid: int) -> int:
    """Wait for a stop while preparing a thread: the signal, or 0 for another kind of stop."""
    _, status = os.waitpid(tid, kernel.WALL)
    if not os.WIFSTOPPED(status):
        raise ProcessLookupError("it was killed while being prepared")
    return 0 if status >> 16 else status >> 8


def kill_all(group: int, pids: set[int]) -> None:
    """group: 0: none, since the number may be another's by now."""
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(group, signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Timer:
    """A timer that the game has set, and that the kernel knows nothing of."""

    process: Process
    key: tuple  # process id; real, fd or posix; number
    deadline: int  # virtual ns
    interval: int  # ns; 0: it expires once
    file: io.FileIO | None  # the game's timerfd


def borrow_file(pid: int, number: int) -> io.FileIO | None:
    """The file that a process has open under that number (pidfd_getfd)."""
    with os.fdopen(os.pidfd_open(pid)) as process:
        file = kernel.libc.syscall(kernel.PIDFD_GETFD, process.fileno(), number, 0)
    return io.FileIO(file) if file >= 0 else None
