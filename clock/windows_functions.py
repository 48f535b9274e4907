"""The functions by which a Windows game asks for the time or sleeps, and their replacement.

Each gets a jump into the stub (windows_stub.py) in place of its first bytes.  That is done while
the game is suspended, and only where it harms nothing: the function is longer than the jump, no
thread is within those bytes, and nobody else has replaced it.
"""

from __future__ import annotations

import struct
import time

import numpy as np

from clock.base import GameError
from clock.windows_guard import PATCHES_AT
from clock.windows_process import WindowsProcess
from clock.windows_stub import ENDLESS, PAGE, WINDOWS_ENTRY, Stub

REPLACED = {
    **{name: name for name in WINDOWS_ENTRY[64]},
    "RtlQueryPerformanceCounter": "QueryPerformanceCounter",
    "GetTickCount64": "GetTickCount",
    "GetSystemTimePreciseAsFileTime": "GetSystemTimeAsFileTime",
}
SLEEPS = {"Sleep", "SleepEx"}
SYSTEM_DLLS = ("ntdll.dll", "kernelbase.dll", "kernel32.dll", "winmmbase.dll", "winmm.dll")
JUMP = {64: 14, 32: 5}  # bytes that replace the beginning of a function
# fillers before a jump
HOT_PATCH = {64: (b"\x48\x8d\xa4\x24\0\0\0\0",), 32: (b"\x8b\xff\x55\x8b\xec\x5d", b"\x8b\xff")}


class Functions:
    """Those of one game."""

    def __init__(self, process: WindowsProcess, stub: Stub):
        self.process = process
        self.stub = stub
        self.modules = process.modules()
        if "winmm.dll" not in self.modules:  # the game may load it later, and ask it for the time
            self._load("winmm.dll")
            self.modules = process.modules()
        loaded = [name for name in SYSTEM_DLLS if name in self.modules]
        self.exports = {name: process.exports(self.modules[name][0]) for name in loaded}

    def _load(self, dll: str) -> None:
        text = self.process.allocate(PAGE)
        self.process.write(text, dll.encode("utf-16-le"))
        kernel32 = self.process.exports(self.modules["kernel32.dll"][0])
        self.process.call(kernel32["LoadLibraryW"], text)

    # -- finding them

    def targets(self, sleep: bool) -> dict[int, tuple[str, str]]:
        """Address of each that has to be replaced -> (what it is, the name of its replacement).

        sleep: the functions that sleep, too.  A stub of ours that is in the game already is
        adopted.
        """
        wanted = REPLACED.keys() if sleep else REPLACED.keys() - SLEEPS
        found = {}
        for dll, functions in self.exports.items():
            for name in wanted & functions.keys():
                if address := self._behind(f"{dll} {name}", functions[name]):
                    found.setdefault(address, (f"{dll} {name}", REPLACED[name]))
        return found

    def _behind(self, what: str, where: int | str) -> int | None:
        """The code behind an export: past forwarders and jumps, as long as they lead to the
        system's own DLLs; None where that DLL is not loaded.
        """
        for _ in range(8):
            address = self._forwarded(where) if isinstance(where, str) else where
            if address is None:
                return None
            where = self._jumps_to(address)
            if where is None:
                return address
            owner = self._owner(where)
            if owner in SYSTEM_DLLS:
                continue
            if not owner and self.stub.adopt(where & -PAGE):
                return address
            raise GameError(
                f"{what} has been replaced already (it jumps to "
                f"{owner or 'memory of no DLL'}): close what has done that, an overlay, "
                "a recorder or another speed hack, and start the game anew"
            )
        raise GameError(f"{what}: jumps without end")

    def _forwarded(self, where: str) -> int | None:
        """Address of what an export names in place of code: NTDLL.RtlQueryPerformanceCounter."""
        dll, _, name = where.rpartition(".")
        if dll.lower().startswith(("api-", "ext-")):
            tables = list(self.exports.values())
        else:
            tables = [self.exports.get(dll.lower() + ".dll", {})]
        found = (functions.get(name) for functions in tables)
        return next((address for address in found if isinstance(address, int)), None)

    def _jumps_to(self, at: int) -> int | None:
        """Where a function goes on that begins with a jump; None if it does not."""
        bits = self.process.bits
        code = self.process.read(at, 32)
        skip = filler(code, bits)
        if code[skip : skip + 3] == b"\x48\xff\x25":  # a prefix without effect
            skip += 1
        at += skip
        code = code[skip:]
        if code[:2] == b"\xff\x25" and bits == 64:  # jmp [rip + place]
            (place,) = struct.unpack_from("<i", code, 2)
            return struct.unpack("<Q", self.process.read(at + 6 + place, 8))[0]
        if code[:2] == b"\xff\x25":  # jmp [place]
            (place,) = struct.unpack_from("<I", code, 2)
            return struct.unpack("<I", self.process.read(place, 4))[0]
        if code[:1] == b"\xe9":
            return at + 5 + struct.unpack_from("<i", code, 1)[0] & (1 << bits) - 1
        if code[:1] == b"\xeb":
            return at + 2 + struct.unpack_from("<b", code, 1)[0]
        return None

    def _owner(self, address: int) -> str:
        """The module that an address is in, or nothing."""
        found = (n for n, (base, size) in self.modules.items() if base <= address < base + size)
        return next(found, "")

    # -- whether they can be replaced

    def check_room(self, targets: dict) -> None:
        """GameError unless each is longer than what replaces its beginning."""
        begins = [np.array([ENDLESS])]
        for dll, functions in self.exports.items():
            code = [address for address in functions.values() if isinstance(address, int)]
            begins += [np.array(code, np.int64), self.process.starts(self.modules[dll][0])]
        begins = np.unique(np.concatenate(begins))
        need = JUMP[self.process.bits]
        for address, (what, _) in targets.items():
            room = begins[np.searchsorted(begins, address, "right")] - address
            if room < need:
                raise GameError(
                    f"{what} is only {room} bytes long in this version of Windows, and "
                    f"{need} are needed: please report it"
                )

    def suspend_outside(self, targets: dict) -> None:
        """Suspend the game when no thread is within the bytes that change, or will return into
        them.
        """
        process = self.process
        end = time.perf_counter() + 2
        while True:
            places = process.suspend()
            within = next((at for at in (self._within(targets, *p) for p in places) if at), 0)
            if not within:
                return
            process.resume()
            if time.perf_counter() > end:
                raise GameError(
                    f"process {process.pid}: a thread stays within {targets[within][0]}, which "
                    "was to be replaced; nothing was changed, try again"
                )
            time.sleep(0.003)

    def _within(self, targets: dict, pointer: int, stack: int) -> int:
        """The function in whose first bytes a suspended thread is, or to which it may return."""
        process = self.process
        to_the_end_of_its_page = -stack % PAGE or PAGE
        top = process.read(stack & -8, to_the_end_of_its_page)
        form = "<u8" if process.bits == 64 else "<u4"
        words = np.frombuffer(top[: len(top) & -8], form).astype(np.int64)
        words = np.append(words, pointer)
        inside = np.array(list(targets))
        hit = (words[:, None] > inside) & (words[:, None] < inside + JUMP[process.bits])
        return int(inside[hit.any(0)][0]) if hit.any() else 0

    # -- replacing them

    def jumps(self, targets: dict) -> dict[int, bytes]:
        """Address -> the code that goes there.  What is there now is noted in the stub's data."""
        process = self.process
        found = {at: self._jump(at, self.stub.entry(name)) for at, (_, name) in targets.items()}
        size = JUMP[process.bits]
        rows = [struct.pack("<Q16s", address, process.read(address, size)) for address in found]
        table = struct.pack("<II", len(rows), size) + b"".join(rows)
        process.write(self.stub.page + PATCHES_AT, table)
        return found

    def _jump(self, address: int, target: int) -> bytes:
        if self.process.bits == 64:
            return b"\xff\x25\0\0\0\0" + struct.pack("<Q", target)  # jmp [rip + 0]
        return b"\xe9" + struct.pack("<I", target - address - 5 & 0xFFFFFFFF)


def filler(code: bytes, bits: int) -> int:
    """How many bytes without effect stand before a jump, for those who patch a running system."""
    for known in HOT_PATCH[bits]:
        if code.startswith(known) and code[len(known) : len(known) + 1] in (
            b"\xff",
            b"\x48",
            b"\xe9",
        ):
            return len(known)
    return 0


def put_back(process: WindowsProcess, page: int) -> None:
    """A suspended game gets its own functions back, as the stub's data has them."""
    count, size = struct.unpack("<II", process.read(page + PATCHES_AT, 8))
    rows = process.read(page + PATCHES_AT + 8, 24 * count)
    for address, code in struct.iter_unpack("<Q16s", rows):
        process.write_code(address, code[:size])
