"""Lets a Windows game to which we attached run on when we end, however that comes.

A program of its own, which is run by its path and imports nothing of ours, so that it starts at
once:

    python -I -S clock/windows_guard.py PID

It reads the address of the stub's data (windows_stub.py).  A 0 says that nothing is left to be
done; the end of the input says that we have died.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import time

# In the stub's data, as tests/asm/windows64.S has it.
CLOCKS_AT = 0x18  # what each clock showed at moment 0, and performance counts per moment
PATCHES_AT = 0x80  # which functions were replaced, and their own first bytes
BANKS_AT = 0x400
BANKS = 96
ALL_ACCESS = 0x1FFFFF
READ_WRITE_EXECUTE = 0x40


class Game:
    """A process's memory."""

    def __init__(self, pid: int):
        self.kernel = ctypes.WinDLL("kernel32")
        self.kernel.OpenProcess.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.kernel.OpenProcess(ALL_ACCESS, 0, pid))

    def read(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        place = ctypes.c_void_p(address)
        self.kernel.ReadProcessMemory(self.handle, place, data, ctypes.c_void_p(size), None)
        return data.raw

    def write(self, address: int, data: bytes) -> None:
        """Into code, too."""
        place = ctypes.c_void_p(address)
        size = ctypes.c_void_p(len(data))
        before = ctypes.c_ulong()
        protect = self.kernel.VirtualProtectEx
        protect(self.handle, place, size, READ_WRITE_EXECUTE, ctypes.byref(before))
        self.kernel.WriteProcessMemory(self.handle, place, data, size, None)
        protect(self.handle, place, size, before.value, ctypes.byref(before))


def real_clocks() -> tuple[int, int, int, int]:
    """Date, performance counter, tick count, multimedia time: in the order of the stub's data."""
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetTickCount64.restype = ctypes.c_uint64
    counter = ctypes.c_int64()
    date = ctypes.c_uint64()
    ctypes.WinDLL("ntdll").NtQueryPerformanceCounter(ctypes.byref(counter), None)
    kernel.GetSystemTimeAsFileTime(ctypes.byref(date))
    mmticks = ctypes.WinDLL("winmm").timeGetTime() & 0xFFFFFFFF
    return date.value, counter.value, kernel.GetTickCount64(), mmticks


def let_go(game: Game, page: int) -> None:
    """Of a suspended game: its time goes on at speed 1, from where it is.

    It gets its own functions back, unless a clock of its would go back in time by that.
    """
    bank = page + BANKS_AT + 32 * game.read(page, 1)[0]
    real, speed, moment, limit = struct.unpack("<QQqq", game.read(bank, 32))
    *begun, scale = struct.unpack("<5Q", game.read(page + CLOCKS_AT, 40))
    passed = real_clocks()
    counter = passed[1]
    now = min(limit, moment + (max(0, counter - real) * speed >> 32))
    since = (now, now * scale >> 32, now // 10000, now // 10000)
    ahead = any(a + b > c for a, b, c in zip(begun, since, passed, strict=True))
    last = BANKS - 1
    bank = struct.pack("<QQqq", counter, (1 << 64) // scale, now, 1 << 62)
    game.write(page + BANKS_AT + 32 * last, bank)
    game.write(page, bytes([last]))
    if ahead:
        return
    count, size = struct.unpack("<II", game.read(page + PATCHES_AT, 8))
    for address, code in struct.iter_unpack("<Q16s", game.read(page + PATCHES_AT + 8, 24 * count)):
        game.write(address, code[:size])


def main(pid: int) -> None:
    page = 0
    for line in sys.stdin:
        page = int(line)
        if not page:
            return
    game = Game(pid)
    nt = ctypes.WinDLL("ntdll")
    if page:
        nt.NtSuspendProcess(game.handle)
        time.sleep(0.02)  # a thread may run on for a moment
        let_go(game, page)
        nt.NtResumeProcess(game.handle)
    nt.NtResumeProcess(game.handle)  # we may have died while it was suspended


if __name__ == "__main__":
    main(int(sys.argv[1]))
