"""Linux x86-64 in numbers: system calls, ptrace, the seccomp program, the stub's machine code and
where it lives.  No state.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import struct
import sys
from pathlib import Path

from clock.base import NS, read_text

INT3 = b"\xcc"


libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if libc:
    libc.ptrace.argtypes, libc.ptrace.restype = (
        [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p],
        ctypes.c_long,
    )

STUB = bytes.fromhex(  # tests/asm/stub.S
    "f30f1efa83ff0b7730b8f30b00000fa3f87326e8a800000089ff488d151f100000480304fa31d2b900ca9a3b48f7f14889064889560831c0"
    "c3b8e40000000f05c366662e0f1f8400000000000f1f4000f30f1efa4885f6740748c706000000004885ff7427e856000000480305cf0f00"
    "0031d2b9e803000048f7f131d2b940420f0048f7f14889074889570831c0c390f30f1efae827000000480305a00f000031d2b900ca9a3b48"
    "f7f14885ff7403488907c366662e0f1f8400000000006690488b05390f0000488d15321f00004889e148c1e90c81e1f00f00004801ca4839"
    "02751cff4208817a08e8030000721ac7420800000000b8180000000f05ebc1488902c7420800000000c3660f1f440000f30f1efa488d1de5"
    "0f00004c8b1b4d85db7431488b7b08488b7310488b5318488b4b204c8b43284c8b4b30ff7338ff733831c041ffd34883c410488943384883"
    "c340ebc7cc"
)
STUB_ENTRY = {b"__vdso_clock_gettime": 0x00, b"__vdso_gettimeofday": 0x50, b"__vdso_time": 0x90}
CALLS_ENTRY, CALLS_END = 0x110, len(STUB)  # runs the table of calls; the int3 behind them
PAGE = 4096
# In the game lie STUB, clock and table, spins, scratch memory.  CHOICE: far from all that the
# kernel maps by itself.  The seccomp program knows the upper half of the address.
STUB_AT = 0x2F0000000000
CLOCK_AT = STUB_AT + PAGE
ZERO_AT = CLOCK_AT + 16  # a struct timespec of zero
SHORT_AT = (
    CLOCK_AT + 32
)  # a short struct timespec, then a struct timeval: for attached programs; of the others a path
OFFSETS_AT = CLOCK_AT + 64  # of the twelve clocks from CLOCK_MONOTONIC
TABLE_AT = CLOCK_AT + 256
SPINS_AT = STUB_AT + 2 * PAGE
SCRATCH_AT = STUB_AT + 3 * PAGE  # for results of calls: pixels, numbers
SCRATCH = 64 << 20  # bytes; only those that are used take memory
BIRTH = 1000 * NS  # virtual CLOCK_MONOTONIC at launch
# virtual CLOCK_REALTIME at launch: 2024-01-01 00:00 UTC, and a second per seed
EPOCH = 1_704_067_200 * NS
OFFSET = EPOCH - BIRTH
YIELD = 50_000  # ns that a sleep of 0 lasts (Linux's timer slack), so that loops of them end
HOP = 1_000_000  # ns that pass for a thread that spins until the clock moves
SPINS = 1000  # reads of one moment that say so, as LIMIT in stub.S
TSC_HZ = 2_000_000_000  # of the virtual rdtsc
COARSE = 10_000_000  # ns, at most, by which the coarse clocks lag behind
CATCH_UP = 10 * NS  # that a program which is let go may be held for
VIRTUAL_CLOCKS = {0, 1, 4, 5, 6, 7, 8, 9, 11}  # all but CPU time; as in stub.S
EPOCH_CLOCKS = {0, 5, 8, 11}

READS = {"clock_gettime": 228, "gettimeofday": 96, "time": 201}  # x86-64 system call numbers
SLEEPS = {"nanosleep": 35, "clock_nanosleep": 230}
WAITS = {  # name: number, which argument is the timeout, its kind, result when it ends
    "poll": (7, 2, "ms", 0),
    "epoll_wait": (232, 3, "ms", 0),
    "epoll_pwait": (281, 3, "ms", 0),
    "select": (23, 4, "timeval", 0),
    "pselect6": (270, 4, "timespec", 0),
    "ppoll": (271, 2, "timespec", 0),
    "epoll_pwait2": (441, 3, "timespec", 0),
    "rt_sigtimedwait": (128, 2, "timespec", -11),
    "semtimedop": (220, 3, "timespec", -11),
    "futex": (202, 3, "timespec", -110),
    "futex_waitv": (449, 3, "moment", -110),
    "futex_wait": (455, 4, "moment", -110),
    "mq_timedsend": (242, 4, "date", -110),
    "mq_timedreceive": (243, 4, "date", -110),
}
TIMERS = {
    "setitimer": 38,
    "getitimer": 36,
    "alarm": 37,
    "timerfd_settime": 286,
    "timerfd_gettime": 287,
    "timer_create": 222,
    "timer_settime": 223,
    "timer_gettime": 224,
    "timer_getoverrun": 225,
    "timer_delete": 226,
}
# Calls by which a program may spin: they tell the time, or what is left of it.
TELL = {*READS, "getitimer", "timerfd_gettime", "timer_gettime"}
LOOK = {"open": 2, "openat": 257, "ptrace": 101}  # by which a program may look for a debugger
GETRANDOM, SCHED_YIELD, IO_URING_SETUP = 318, 24, 425
# Those that we let a game make.
OPEN, CLOSE, MMAP, MUNMAP = 2, 3, 9, 11
PERSONALITY, PRCTL, SECCOMP_CALL = 135, 157, 317
# Those that we make ourselves.
RT_SIGQUEUEINFO, RT_TGSIGQUEUEINFO, PIDFD_GETFD = 129, 297, 438
CALLS = (
    {nr: name for name, nr in (READS | SLEEPS | TIMERS | LOOK).items()}
    | {wait[0]: name for name, wait in WAITS.items()}
    | {GETRANDOM: "getrandom", SCHED_YIELD: "spin"}
)
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
FUTEX_WAITS = {0: "WAIT", 6: "LOCK_PI", 9: "WAIT_BITSET", 11: "WAIT_REQUEUE_PI", 13: "LOCK_PI2"}
# how long and how often it was on a processor; its state; whether it computes
LOOKS = ("schedstat", "stat", "syscall")
SCHEDSTAT, STAT, SYSCALL = range(3)
UNCOUNTED = b"0 0 0\n"  # schedstat of a kernel that does not count
NOT_MADE = -38  # -ENOSYS: the result of a system call at its entry
RESTART = -514  # ERESTARTNOHAND: the kernel makes the call again after a signal,
RESTART_BLOCK = -516  # or goes on with what is left of it
INTERRUPTED = {-4, -512, -513, -514, -516}  # EINTR and the kernel's inner ERESTART codes

PTRACE = {
    "POKEDATA": 5,
    "CONT": 7,
    "SINGLESTEP": 9,
    "GETREGS": 12,
    "SETREGS": 13,
    "DETACH": 17,
    "SYSCALL": 24,
    "SETOPTIONS": 0x4200,
    "GETEVENTMSG": 0x4201,
    "SEIZE": 0x4206,
    "INTERRUPT": 0x4207,
    "LISTEN": 0x4208,
    "GETSIGMASK": 0x420A,
    "SETSIGMASK": 0x420B,
    "GET_SYSCALL_INFO": 0x420E,
}
FORK, VFORK, CLONE, EXEC, VFORK_DONE, SECCOMP, STOP = 1, 2, 3, 4, 5, 7, 128  # ptrace events
OPTIONS = 1 | 2 | 4 | 8 | 16 | 32 | 128  # TRACESYSGOOD and those events
EXITKILL = 1 << 20
WALL = 0x40000000  # waitpid: threads too
NO_THREAD = 0x20000000  # but not another thread's children (__WNOTHREAD)
ONES = 2**64 - 1  # -1 in a register
SIGTRAP = 5  # signal.SIGTRAP, which Windows lacks
SYSCALL_STOP = SIGTRAP | 0x80
AT_BASE, AT_RANDOM, AT_SYSINFO_EHDR = 7, 25, 33  # of the auxiliary vector

# Functions with which a program shows a frame, and those by which it may ask for their addresses.
# The first library that presents is the outermost one (SDL calls GLX, not the other way round): its
# functions stay the gate, those of the others are let go.
PRESENTS = {
    "SDL_RenderPresent",
    "SDL_GL_SwapWindow",
    "SDL_UpdateWindowSurface",
    "SDL_UpdateWindowSurfaceRects",
    "SDL_UpdateRects",  # SDL 1.2, also SDL_Flip and SDL_UpdateRect by way of it
    "glXSwapBuffers",
    "eglSwapBuffers",
    "vkQueuePresentKHR",
}
RESOLVERS = {
    "glXGetProcAddress": "rdi",
    "glXGetProcAddressARB": "rdi",
    "eglGetProcAddress": "rdi",
    "vkGetInstanceProcAddr": "rsi",
    "vkGetDeviceProcAddr": "rsi",
}  # which argument is the name
STARTS = {"SDL_Init", "SDL_InitSubSystem"}  # after which a gamepad may be plugged in
GRAPHICS = re.compile(r"/lib(SDL|SDL2|SDL3|GLX|GL|EGL|OpenGL|GLESv2|vulkan)[-.][^/]*$")


class Registers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in (
            "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags "
            "rsp ss fs_base gs_base ds es fs gs"
        ).split()
    ]

    def arguments(self) -> list[int]:
        """Of a system call or function, as unsigned numbers."""
        return [getattr(self, name) for name in ARGUMENTS]

    def result(self) -> int:
        """Of a system call: negative numbers are errors."""
        return ctypes.c_longlong(self.rax).value

    def copy(self) -> Registers:
        return Registers.from_buffer_copy(self)


def ptrace(request: str, tid: int, address=0, data=0) -> None:
    if libc.ptrace(PTRACE[request], tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request}: {os.strerror(number)}")


def peek():
    """The next child or thread of a game of this thread that has stopped or ended, which stays to
    be reaped; None if there is none.
    """
    with contextlib.suppress(ChildProcessError):
        return os.waitid(
            os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | WALL | NO_THREAD
        )


def seccomp_filter() -> bytes:
    """BPF program: RET_TRACE for what reads the time, waits with a timeout or for another thread,
    or looks for a debugger; ALLOW for all else at full speed.
    """
    LOAD, EQUAL, AND, RETURN = 0x20, 0x15, 0x54, 0x06
    # 38: ENOSYS
    ALLOW, TRACE, MISSING = (
        (RETURN, 0x7FFF0000, 0, 0),
        (RETURN, 0x7FF00000, 0, 0),
        (RETURN, 0x00050000 | 38, 0, 0),
    )
    # offsets in struct seccomp_data; arguments from 16 on, 8 bytes each
    number, machine, address = 0, 4, 12
    code = [
        (LOAD, machine, 0, 0),
        (EQUAL, 0xC000003E, 1, 0),
        ALLOW,  # x86-64 calls only
        (LOAD, address, 0, 0),
        (EQUAL, STUB_AT >> 32, 0, 4),  # the stub's own system calls
        (LOAD, number, 0, 0),
        (EQUAL, SCHED_YIELD, 0, 1),
        TRACE,
        ALLOW,
        (LOAD, number, 0, 0),
        (EQUAL, IO_URING_SETUP, 0, 1),
        MISSING,
    ]
    for nr in (*(READS | SLEEPS | TIMERS | LOOK).values(), GETRANDOM):
        code += [(EQUAL, nr, 0, 1), TRACE]
    for nr, index, kind, _ in WAITS.values():
        low = 16 + 8 * index
        if kind == "ms":  # a timeout of 0 or -1 has nothing to do with time
            block = [(LOAD, low, 0, 0), (EQUAL, 0, 2, 0), (EQUAL, 0xFFFFFFFF, 1, 0), TRACE, ALLOW]
        else:  # nor has a null pointer
            block = [
                (LOAD, low, 0, 0),
                (EQUAL, 0, 0, 2),
                (LOAD, low + 4, 0, 0),
                (EQUAL, 0, 1, 0),
                TRACE,
                ALLOW,
            ]
        # futex calls that do not wait may hold anything in that argument
        if nr == WAITS["futex"][0]:
            tests = [(EQUAL, op, len(FUTEX_WAITS) - i, 0) for i, op in enumerate(FUTEX_WAITS)]
            block = [(LOAD, 16 + 8, 0, 0), (AND, 0x7F, 0, 0), *tests, ALLOW, TRACE]
        code += [(EQUAL, nr, 0, len(block)), *block]
    return b"".join(struct.pack("<HBBI", op, yes, no, k) for op, k, yes, no in [*code, ALLOW])


def elf_symbols(image: bytes) -> dict:
    """Dynamic symbols of an ELF64 image: name -> (address, size)."""
    (table,) = struct.unpack_from("<Q", image, 40)
    width, count = struct.unpack_from("<HH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + width * i) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, size, link, *_ in sections:
        for at in range(offset, offset + size, 24) if kind == 11 else ():  # SHT_DYNSYM
            name, _, _, _, value, length = struct.unpack_from("<IBBHQQ", image, at)
            start = sections[link][4] + name
            if value:
                found[image[start : image.index(b"\0", start)]] = (value, length)
    return found


def mapped_files(pid: int) -> dict:
    """Files in a process's memory: path -> address of their first byte."""
    lines = re.findall(
        r"^([0-9a-f]+)-\S+ \S+ 0+ \S+ [1-9]\d* +(/.*)$", read_text(f"/proc/{pid}/maps"), re.M
    )
    return {path: int(address, 16) for address, path in reversed(lines)}


def located(pid: int, path: str) -> tuple[str, float]:
    """A path as that process sees it, and when it was written."""
    path = path if os.path.exists(path) else f"/proc/{pid}/root{path}"
    return path, os.path.getmtime(path)


@functools.lru_cache(maxsize=64)
def library_symbols(path: str, mtime: float) -> dict:
    """Dynamic symbols of a library: name -> address from its start."""
    return {
        name.decode(): value for name, (value, _) in elf_symbols(Path(path).read_bytes()).items()
    }
