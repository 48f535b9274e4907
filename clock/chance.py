"""Random numbers by the seed, wherever a game gets them.

The system call getrandom is answered in calls.py.  Two other sources lead to it here: the files
/dev/urandom and /dev/random, which have bytes by the seed in them (unseen.py opens them), and
libraries that would ask the processor (rdrand): C++'s random_device is written over by code that
asks getrandom, and Qt is told that the processor has given nothing.
"""

from __future__ import annotations

import re

from clock import kernel
from clock.tracee import Thread

FILES = b"/dev/urandom\0", b"/dev/random\0"
BYTES = 1 << 20  # CHOICE: of such a file, for each time that it is opened
LIBRARIES = re.compile(r"/lib(stdc\+\+|Qt\dCore)\.so[^/]*$")
CODE = {
    # push rax; mov rdi, rsp; mov esi, 4; xor edx, edx; mov eax, 318; syscall; pop rax; ret
    "_ZNSt13random_device9_M_getvalEv": "50 4889e7 be04000000 31d2 b83e010000 0f05 58 c3",
    # xor eax, eax; ret: of qRandomCpu, after which Qt asks getrandom
    "_Z10qRandomCpuPvx": "31c0 c3",
}


def divert(thread: Thread, path: str, base: int) -> None:
    """Of one of LIBRARIES, which has been loaded at `base`."""
    symbols = kernel.library_symbols(*kernel.located(thread.process.pid, path))
    for name in CODE.keys() & symbols:
        thread.process.write_code(thread.tid, base + symbols[name], bytes.fromhex(CODE[name]))
