"""What a program finds that looks for a debugger: none.

It may read in /proc who traces it, or ask to be traced itself, which only one can do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from clock import kernel
from clock.tracee import Thread, next_stop

STATUS = re.compile(rb"/proc/(self|thread-self|\d+)(/task/\d+)?/status\0")
LONGEST = 64  # bytes of a path that is one of these
TRACEME, EPERM = 0, 1


def on_call(clock, thread: Thread, registers) -> None:
    """At the entry of a call that opens a file, or of ptrace."""
    if thread.call == "ptrace":
        if registers.rdi == TRACEME:
            thread.skip_call(registers, -EPERM if thread.asked else 0)
            thread.asked = True
        return
    argument = "rdi" if thread.call == "open" else "rsi"
    found = STATUS.match(thread.process.read(getattr(registers, argument), LONGEST))
    text = status(thread, found[0]) if found else b""
    if text:
        open_instead(clock, thread, registers, argument, text)


def status(thread: Thread, path: bytes) -> bytes:
    """What the file at that path says of a thread that we trace, as if none did; empty if it is of
    another one.
    """
    pid = thread.process.pid
    path = path.rstrip(b"\0").decode().replace("thread-self", f"{pid}/task/{thread.tid}")
    try:
        text = Path(path.replace("self", str(pid))).read_bytes()
    except OSError:
        return b""
    ours = b"TracerPid:\t%d\n" % os.getpid()
    if ours not in text:
        return b""
    return text.replace(ours, b"TracerPid:\t0\n").replace(b"t (tracing stop)", b"R (running)")


def open_instead(clock, thread: Thread, registers, argument: str, text: bytes) -> None:
    """Let the thread open a file with this text; its path lies in our page meanwhile."""
    file = os.memfd_create("status")
    try:
        os.write(file, text)
        path = f"/proc/{os.getpid()}/fd/{file}".encode()
        clock.page.words[4:8] = memoryview(path.ljust(32, b"\0")).cast("Q")
        kept = getattr(registers, argument)
        setattr(registers, argument, kernel.SHORT_AT)
        thread.set_registers(registers)
        done = registers
        while done.result() == kernel.NOT_MADE:  # to the call's exit
            kernel.ptrace("SYSCALL", thread.tid)
            next_stop(thread.tid)
            done = thread.registers()
        setattr(done, argument, kept)
        thread.set_registers(done)
    finally:
        os.close(file)
