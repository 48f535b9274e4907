"""Random numbers by the seed, wherever a game gets them.

The system call getrandom is answered in calls.py.  Two other sources lead to it here: the files
/dev/urandom and /dev/random, which have bytes by the seed in them (unseen.py opens them), and the
C++ library's random_device, which would ask the processor (rdrand), and is written over by code
that asks getrandom.
"""

from __future__ import annotations

import re

from clock import kernel
from clock.tracee import Thread

FILES = b"/dev/urandom\0", b"/dev/random\0"
BYTES = 1 << 20  # CHOICE: of such a file, for each time that it is opened
CPP = re.compile(r"/libstdc\+\+\.so[^/]*$")
GETVAL = "_ZNSt13random_device9_M_getvalEv"
# push rax; mov rdi, rsp; mov esi, 4; xor edx, edx; mov eax, 318; syscall; pop rax; ret
ASK = bytes.fromhex("50 4889e7 be04000000 31d2 b83e010000 0f05 58 c3")


def divert(thread: Thread, path: str, base: int) -> None:
    """Let random_device of a C++ library that has been loaded at `base` ask getrandom."""
    at = kernel.library_symbols(*kernel.located(thread.process.pid, path)).get(GETVAL)
    if at:
        thread.process.write_code(thread.tid, base + at, ASK)
