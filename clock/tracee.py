"""A traced process and its threads: memory, registers, states."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass

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


@dataclass
class Thread:
    """One thread of the game.  States: running (or blocked in the kernel, as it likes), parked
    (held by us in a sleep or at the gate), waiting (in the kernel, in a wait that we end), stopped
    (by a signal), vfork (until its child has its own memory)."""

    tid: int
    process: Process
    state: str = "running"
    deadline: int | None = None  # of its sleep or wait, virtual ns
    fired: bool = False  # the wait's deadline has come, the interrupt is on its way
    call: str = ""  # name of the sleep or wait
    registers: kernel.Registers | None = None  # with which the game made it
    files: tuple = ()  # what /proc says of it: LOOKS
    rest: bytes = b""  # its "schedstat" when it was last seen off its processor
    sets: tuple = ()  # (address, content) of the file descriptor sets of a select that we cut
    # its getrandom: of its own, as threads and processes ask in any order
    random: np.random.Generator | None = None

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
        return (
            letter != b""
            and letter in kernel.ASLEEP.get(self.state, b"SZ")
            and not (self.fired and self.deadline is None and self.state == "waiting")
        )

    def computes(self) -> bool:
        """Whether it is on a processor; also of one that waits to be woken this says nothing."""
        return self.look(kernel.SYSCALL)[:7] in (b"", b"running")

    def __del__(self):
        for file in self.files:
            os.close(file)


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
        file = kernel.libc.syscall(438, process.fileno(), number, 0)
    return io.FileIO(file) if file >= 0 else None
