"""What a program finds that looks for a debugger: none.

It may read in /proc who traces it, or ask to be traced itself, which only one can do.

Nor does a game in a home folder of its own find that it may write the scores that all users of the
computer share, as it may for root: they would outlive it, and change the next run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from clock import chance, kernel
from clock.tracee import Thread, next_stop

STATUS = re.compile(rb"/proc/(self|thread-self|\d+)(/task/\d+)?/status\0")
LONGEST = 64  # bytes of a path that is one of these
TRACEME, EPERM, EACCES = 0, 1, 13
SHARED = b"/var/games/", b"/var/lib/games/"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def on_call(clock, thread: Thread, registers) -> None:
    """At the entry of a call that opens a file, or of ptrace."""
    if thread.call == "ptrace":
        if registers.rdi == TRACEME:
            thread.skip_call(registers, -EPERM if thread.asked else 0)
            thread.asked = True
        return
    argument, flags = ("rdi", "rsi") if thread.call == "open" else ("rsi", "rdx")
    path = thread.process.read(getattr(registers, argument), LONGEST)
    own_home = clock.frame_gate.users
    if own_home and path.startswith(SHARED) and getattr(registers, flags) & WRITES:
        return thread.skip_call(registers, -EACCES)
    found = STATUS.match(path)
    text = status(thread, found[0]) if found else b""
    if clock.fixed and path.startswith(chance.FILES):
        text = thread.random.bytes(chance.BYTES)
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
