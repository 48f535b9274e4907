"""A list of users of the game's own.

A game that wants the user's folder may ask the system for it (getpwuid) and not look at HOME.  The
C library then reads /etc/passwd.  That path is a constant in its memory, and we write another one
over it, which may not be longer.
"""

from __future__ import annotations

import functools
import re
import struct
from pathlib import Path

from clock import kernel
from clock.tracee import Thread

USERS = b"/etc/passwd"
LONGEST = len(USERS)
# libc.so.6, libc-2.31.so, libnss_files.so.2
READERS = re.compile(r"/(libc|libnss_files)[-.][^/]*$")
LOAD = 1  # kind of an ELF segment


def divert(thread: Thread, path: str, base: int, users: str) -> None:
    """Let one of READERS, which has been loaded at `base`, read the file `users`."""
    for place in places(*kernel.located(thread.process.pid, path)):
        thread.process.write_code(thread.tid, base + place, users.encode().ljust(LONGEST, b"\0"))


@functools.lru_cache(maxsize=16)
def places(path: str, mtime: float) -> list[int]:
    """Where the path stands in a library's memory, from its start."""
    image = Path(path).read_bytes()
    found = [match.start() + 1 for match in re.finditer(b"\0" + USERS + b"\0", image)]
    return [at for at in (in_memory(image, offset) for offset in found) if at is not None]


def in_memory(image: bytes, offset: int) -> int | None:
    """A place in an ELF64 file -> the place in memory; None if that part is not loaded."""
    (table,) = struct.unpack_from("<Q", image, 32)
    width, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        kind, _, begin, address, _, size = struct.unpack_from("<IIQQQQ", image, table + width * i)
        if kind == LOAD and begin <= offset < begin + size:
            return address + offset - begin
    return None
