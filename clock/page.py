"""Time inside the game is a number in a page that we share with it, and reads of it jump to our
stub.

The vDSO functions (clock_gettime, gettimeofday, time), by which a program reads the time without a
system call, are overwritten by jumps to STUB.
"""

from __future__ import annotations

import mmap
import os
import struct

from clock import kernel
from clock.base import NS, GameError
from clock.tracee import Process, Thread

SIZE = kernel.SCRATCH_AT - kernel.STUB_AT + kernel.SCRATCH
SHARED, PRIVATE, FIXED_NOREPLACE = 1, 2, 0x100000
READ_RUN, READ_WRITE = 5, 3
AREAS = (  # address, bytes, access, kind
    (kernel.STUB_AT, kernel.PAGE, READ_RUN, SHARED),
    (kernel.CLOCK_AT, kernel.PAGE, READ_WRITE, SHARED),
    # Private: each process counts its own reads, or runs would differ.
    (kernel.SPINS_AT, kernel.PAGE, READ_WRITE, PRIVATE),
    (kernel.SCRATCH_AT, kernel.SCRATCH, READ_WRITE, SHARED),
)


class Page:
    """Our side of the memory that we share with the game.

    words: from CLOCK_AT on, in 64 bits; the first one is the time, virtual CLOCK_MONOTONIC in ns
    offsets: of each clock from CLOCK_MONOTONIC, ns
    scratch: bytes from SCRATCH_AT on, for results of calls
    """

    def __init__(self, seed: int):
        """seed: the date at launch is so many seconds later."""
        self.file = os.memfd_create("clock")
        os.ftruncate(self.file, SIZE)
        memory = mmap.mmap(self.file, SIZE)
        memory[: len(kernel.STUB)] = kernel.STUB
        self.words = part(memory, kernel.CLOCK_AT, kernel.SPINS_AT).cast("Q")
        self.offsets = part(memory, kernel.OFFSETS_AT, kernel.TABLE_AT).cast("q")
        self.scratch = part(memory, kernel.SCRATCH_AT, kernel.STUB_AT + SIZE)
        self.words[0] = kernel.BIRTH
        for clock in kernel.EPOCH_CLOCKS:
            self.offsets[clock] = kernel.OFFSET + seed % 10**9 * NS

    def leave(self) -> None:
        """Give the memory back; the time stays readable."""
        if self.file is not None:
            os.close(self.file)
            self.words = list(self.words)
            self.offsets = list(self.offsets)
            self.file = self.scratch = None

    def map_into(self, thread: Thread) -> None:
        """Let a stopped thread map it into its process."""
        file = self._open_in(thread)
        places = [
            thread.system_call(
                kernel.MMAP, at, size, access, kind | FIXED_NOREPLACE, file, at - kernel.STUB_AT
            )
            for at, size, access, kind in AREAS
        ]
        thread.system_call(kernel.CLOSE, file)
        if places != [at for at, *_ in AREAS]:
            raise GameError(
                f"vDSO patch: the clock could not be mapped into {program(thread)} (open {file}, "
                f"mmap {places}); it must run as the same user and see the same /proc"
            )

    def _open_in(self, thread: Thread) -> int:
        """The number of our file in the thread's process; its path lies on the stack meanwhile."""
        path = f"/proc/{os.getpid()}/fd/{self.file}\0".encode()
        below = thread.registers().rsp - 512
        kept = thread.process.read(below, len(path))
        thread.process.write(below, path)
        file = thread.system_call(kernel.OPEN, below, os.O_RDWR | os.O_CLOEXEC)
        thread.process.write(below, kept)
        return file

    @staticmethod
    def unmap_from(thread: Thread) -> None:
        """What an earlier attachment has left."""
        thread.system_call(kernel.MUNMAP, kernel.STUB_AT, SIZE)


def part(memory: mmap.mmap, begin: int, end: int) -> memoryview:
    """Of the shared memory, by addresses in the game."""
    return memoryview(memory)[begin - kernel.STUB_AT : end - kernel.STUB_AT]


def program(thread: Thread) -> str:
    return os.readlink(f"/proc/{thread.tid}/exe")


def patch(clock, thread: Thread) -> None:
    """After exec: map the page, let the vDSO jump to it.  The thread is at the exec call's exit."""
    if thread.registers().cs != 0x33:
        raise GameError(
            f"vDSO patch: {program(thread)} is a 32-bit program, and those are not supported"
        )
    clock.page.map_into(thread)
    process, auxv = thread.process, thread.auxiliary_vector()
    vdso = auxv.get(kernel.AT_SYSINFO_EHDR)  # without it all reads are system calls
    patches = vdso_patches(process, vdso, clock.fixed) if vdso else []
    for _, address, code in patches:
        clock.overwrite(thread, address, code)
    process.vdso = ", ".join(name for name, *_ in patches if name in kernel.READS) or "none"
    if clock.trace:
        clock.trace(f"thread {thread.number} shares our page at {kernel.STUB_AT:#x}")
        clock.trace(f"thread {thread.number} reads the time there: {process.vdso}")
    if clock.fixed and auxv.get(kernel.AT_RANDOM):
        process.write(auxv[kernel.AT_RANDOM], thread.random.bytes(16))
    if clock.fps and auxv.get(kernel.AT_BASE):
        clock.frame_gate.watch_loader(thread, auxv[kernel.AT_BASE])


def vdso_patches(process: Process, vdso: int, fixed: bool) -> list[tuple[str, int, bytes]]:
    """(name, address, new code) of each function in the vDSO that shall be ours.

    fixed: its getrandom too; libc makes the system call instead, which we answer
    """
    image = process.read(vdso, 4 * kernel.PAGE)
    patches = []
    for symbol, (address, size) in kernel.elf_symbols(image).items():
        name = symbol.decode().removeprefix("__vdso_")
        if symbol in kernel.STUB_ENTRY:
            entry = kernel.STUB_AT + kernel.STUB_ENTRY[symbol]
            # endbr64; movabs rax, entry; jmp rax
            jump = b"\xf3\x0f\x1e\xfa\x48\xb8" + struct.pack("<Q", entry) + b"\xff\xe0"
            assert len(jump) <= size, f"{name} of this kernel's vDSO is only {size} bytes long"
            patches.append((name, vdso + address, jump))
        elif symbol == b"__vdso_getrandom" and fixed:
            # endbr64; mov eax, -ENOSYS; ret
            patches.append((name, vdso + address, b"\xf3\x0f\x1e\xfa\xb8\xda\xff\xff\xff\xc3"))
    return patches
