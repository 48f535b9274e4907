"""One line where memory is too small: the machine's, a GPU's, or what its processes share."""

from __future__ import annotations

import errno
import os
import re
import shutil

SHARED = "/dev/shm"
# What torch, numpy, OpenCV and the system say.
FULL = re.compile("can't allocate memory|Cannot allocate memory|Insufficient memory|bad_alloc")
ENDED = "a decoding process has ended by itself; what it said stands above"


def lacking(error: BaseException, instead: str = "fewer --workers") -> str:
    """One line if too little memory, or the end of a decoding process, is behind an exception: what
    was too small, and the way out; else "".

    instead: the flags by which a command needs less of it.
    """
    text = str(error)
    if "unable to allocate shared memory" in text or semaphores_full(error):
        return shared_full()
    if "exited unexpectedly" in text:  # torch may raise this anywhere
        return ENDED
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for this
    if on_gpu or isinstance(error, MemoryError) or FULL.search(text):
        return f"out of memory{' on the GPU' if on_gpu else ''}{wanted(text)}: give {instead}"
    return ""


def wanted(text: str) -> str:
    """How much was asked for, as far as a message says it."""
    asked = re.search(r"llocate ([\d.]+) ?(\w+)", text)
    if not asked:
        return ""
    number, unit = asked.groups()
    amount = f"{float(number) / 1e9:,.1f} GB" if unit == "bytes" else f"{number} {unit}"
    return f" ({amount} more were wanted)"


def killed(by: str) -> str:
    """One line about a decoding process that a signal has ended; by: the signal in words."""
    if by == "Bus error" and shared_bytes() < 1 << 30:  # a page of it was not to be had
        return shared_full()
    if by == "Bus error":
        return (
            "a decoding process could not read its data (Bus error): a file was cut short "
            "meanwhile, or its storage fails"
        )
    return (
        f"a decoding process was ended from outside ({by}), as a rule for want of memory: give "
        "fewer --workers"
    )


def shared_full() -> str:
    size = f"{shared_bytes() / 1e6:.1f} MB"
    return (
        f"{SHARED} ({size}) is too small for what processes hand to each other: give "
        "fewer --workers or smaller batches, or the container more of it (--shm-size 1g)"
    )


def semaphores_full(error: BaseException) -> bool:
    """Whether there was no room for a semaphore; its error names no file."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    return full and os.path.isdir(SHARED) and shutil.disk_usage(SHARED).free < 1 << 16


def shared_bytes() -> int:
    return shutil.disk_usage(SHARED).total if os.path.isdir(SHARED) else 0
