"""A Windows game from outside: its memory, its modules, its threads."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time
from collections.abc import Iterator

import numpy as np

from clock import win32
from clock.base import GameError

MACHINES = {0x8664: 64, 0x14C: 32}  # of a PE header -> bits
COMMIT_RESERVE = 0x3000
READ_WRITE, READ_EXECUTE, READ_WRITE_EXECUTE = 4, 0x20, 0x40
ALL_MODULES = 3
# Reading a thread's registers: function, size of CONTEXT, where its flags are, the flag for the
# registers that we want, and where instruction and stack pointer are.
CONTEXT = {
    64: ("GetThreadContext", 1232, 0x30, 0x100001, "<Q", (0xF8, 0x98)),
    32: ("Wow64GetThreadContext", 716, 0, 0x10001, "<I", (0xB8, 0xC4)),
}


class WindowsProcess:
    """Memory and threads of a game, 64 or 32 bits."""

    def __init__(self, pid: int):
        self.pid = pid
        self.handle = win32.must("OpenProcess", win32.ALL_ACCESS, 0, pid)
        (machine,) = struct.unpack("<H", self.read(self.header(self.image()) + 4, 2))
        if machine not in MACHINES:
            raise GameError(
                f"process {pid} is a program for machine {machine:#x}; there is x64 and x86"
            )
        self.bits = MACHINES[machine]

    # -- memory

    def read(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        win32.must("ReadProcessMemory", self.handle, address, data, size, None)
        return data.raw

    def write(self, address: int, data: bytes) -> None:
        win32.must("WriteProcessMemory", self.handle, address, data, len(data), None)

    def write_code(self, address: int, data: bytes) -> None:
        before = self._protect(address, len(data), READ_WRITE_EXECUTE)
        self.write(address, data)
        self._protect(address, len(data), before)
        win32.windows("FlushInstructionCache", self.handle, address, len(data))

    def make_executable(self, address: int, size: int) -> None:
        self._protect(address, size, READ_EXECUTE)

    def _protect(self, address: int, size: int, access: int) -> int:
        """-> what it was before."""
        before = ctypes.c_ulong()
        win32.must("VirtualProtectEx", self.handle, address, size, access, ctypes.byref(before))
        return before.value

    def allocate(self, size: int) -> int:
        return win32.must("VirtualAllocEx", self.handle, 0, size, COMMIT_RESERVE, READ_WRITE)

    # -- modules

    def image(self) -> int:
        """Where the program itself is loaded: of its process environment block."""
        facts = (ctypes.c_void_p * 6)()
        size = ctypes.sizeof(facts)
        if win32.windows("NtQueryInformationProcess", self.handle, 0, facts, size, None):
            raise GameError(f"process {self.pid} cannot be looked at")
        return struct.unpack("<Q", self.read(facts[1] + 0x10, 8))[0]

    def header(self, base: int) -> int:
        """Address of the PE header of an image."""
        return base + struct.unpack("<I", self.read(base + 0x3C, 4))[0]

    def first_instruction(self) -> int:
        """Address of the program's entry point."""
        image = self.image()
        return image + struct.unpack("<I", self.read(self.header(image) + 40, 4))[0]

    def modules(self) -> dict[str, tuple[int, int]]:
        """Of its own kind (a 32-bit process has some of 64 bits too): name in small letters ->
        (address, size).
        """
        bases = (ctypes.c_void_p * 4096)()
        size = ctypes.sizeof(bases)
        needed = ctypes.c_ulong()
        facts = (bases, size, ctypes.byref(needed), ALL_MODULES)
        win32.must("K32EnumProcessModulesEx", self.handle, *facts)
        name = ctypes.create_unicode_buffer(260)
        found = {}
        for base in bases[: needed.value // 8]:
            with contextlib.suppress(OSError):  # unloaded meanwhile
                machine, size = struct.unpack("<4xH74xI", self.read(self.header(base), 84))
                win32.must("K32GetModuleBaseNameW", self.handle, base, name, len(name))
                if MACHINES.get(machine) == self.bits:
                    found.setdefault(name.value.lower(), (base, size))
        return found

    def exports(self, base: int) -> dict[str, int | str]:
        """Of a module: name -> address, or "dll.name" where it is another one's."""
        entry = 0x88 if self.bits == 64 else 0x78
        at, size = struct.unpack("<II", self.read(self.header(base) + entry, 8))
        table = self.read(base + at, size)

        def text(rva: int) -> str:
            return table[rva - at : table.index(b"\0", rva - at)].decode("latin-1")

        count, functions, names, ordinals = struct.unpack_from("<4xIIII", table, 20)
        names = struct.unpack_from(f"<{count}I", table, names - at)
        ordinals = struct.unpack_from(f"<{count}H", table, ordinals - at)
        found = {}
        for name, ordinal in zip(names, ordinals, strict=True):
            (rva,) = struct.unpack_from("<I", table, functions - at + 4 * ordinal)
            found[text(name)] = text(rva) if at <= rva < at + size else base + rva
        return found

    def starts(self, base: int) -> np.ndarray:
        """Where functions begin, as far as a module says: its table of exceptions (x64 only).

        Addresses, int64 [functions].
        """
        if self.bits == 32:
            return np.zeros(0, np.int64)
        at, size = struct.unpack("<II", self.read(self.header(base) + 0xA0, 8))
        if not size:
            return np.zeros(0, np.int64)
        rows = np.frombuffer(self.read(base + at, size), "<u4").reshape(-1, 3)
        return base + rows[:, 0].astype(np.int64)

    # -- threads

    def threads(self) -> Iterator[int]:
        """Handles of its threads; to be used at once."""
        for tid, owner in win32.snapshot(4, "<8xII12x"):  # THREADENTRY32
            if owner != self.pid:
                continue
            if handle := win32.windows("OpenThread", win32.ALL_ACCESS, 0, tid):
                yield handle
                win32.windows("CloseHandle", handle)

    def place(self, thread: int) -> tuple[int, int]:
        """A suspended thread's instruction and stack pointer."""
        function, size, flags, control, form, pointers = CONTEXT[self.bits]
        buffer = ctypes.create_string_buffer(size + 16)
        # struct CONTEXT is aligned
        context = (ctypes.c_char * size).from_buffer(buffer, -ctypes.addressof(buffer) % 16)
        struct.pack_into("<I", context, flags, control)
        win32.must(function, thread, context)
        return tuple(struct.unpack_from(form, context, at)[0] for at in pointers)

    def suspend(self) -> list[tuple[int, int]]:
        """Let it stand still; -> where each thread does.  Asking for that waits for it: until then
        it may run on for a moment.
        """
        win32.windows("NtSuspendProcess", self.handle)
        end = time.perf_counter() + 5
        places = []
        for thread in self.threads():
            while win32.windows("WaitForSingleObject", thread, 0):  # until it has ended
                try:
                    places.append(self.place(thread))
                    break
                except OSError:  # on a busy machine it may take its time
                    if time.perf_counter() > end:
                        self.resume()
                        raise
        return places

    def resume(self) -> None:
        win32.windows("NtResumeProcess", self.handle)

    def call(self, function: int, argument: int) -> None:
        """In a thread of its own; returns when it has."""
        thread = win32.must("CreateRemoteThread", self.handle, None, 0, function, argument, 0, None)
        ended = win32.windows("WaitForSingleObject", thread, 10000) == 0
        win32.windows("CloseHandle", thread)
        if not ended:
            raise GameError(f"process {self.pid} runs no thread that we start in it")

    # -- its end

    @property
    def alive(self) -> bool:
        TIMEOUT = 258
        return win32.windows("WaitForSingleObject", self.handle, 0) == TIMEOUT

    @property
    def returncode(self) -> int | None:
        """Of a process that has ended; None where Windows does not say."""
        code = ctypes.c_ulong()
        said = win32.windows("GetExitCodeProcess", self.handle, ctypes.byref(code))
        return code.value if said else None

    def close(self) -> None:
        win32.windows("CloseHandle", self.handle)
