"""sim.py: any unmodified game as a Gymnasium environment, stepped frame by frame under a controlled
clock.

Clock hook, gamepad devices, screens, GameEnv (paper section 2.2); for Linux, Windows and Wine.
Needs numpy and gymnasium at import; never torch, so it runs wherever a game runs.

    python sim.py doctor                                       what works on this machine, and the fix for what does not
    python sim.py play   -- COMMAND ARG...                     you at the pad; --speed 0.25, --record out.mp4
    python sim.py record -- COMMAND ARG...                     frames, and the pad of each: OUT.mp4, OUT.actions.safetensors
    python sim.py replay OUT.actions.safetensors               the same frames again? compares their hashes
    python sim.py step   -- COMMAND ARG...                     by hand, frame by frame
    python sim.py bench  [-- COMMAND ARG...]                   steps per second, cost of the hook

    env = sim.GameEnv(["supertux2", "--window", "--renderer", "sdl"], fps=60)        or gymnasium.make("NitroGame-v0", cmd=[...])
    frame, info = env.reset(seed=0)                            frame: uint8 [256, 256, 3] RGB
    frame, reward, terminated, truncated, info = env.step({"buttons": buttons, "sticks": sticks})

    clock = sim.Clock.attach(pid)                              a program that runs already stands still;
    clock.step(0.5); clock.run(10, speed=0.25)                 half a second on; ten seconds in slow motion;
    clock.detach()                                             and it runs on, also if this program dies

On Windows a game that runs already may be played too, by the name of its executable or its window's
title:
    python sim.py play --attach game.exe        env = sim.GameEnv([], attach="game.exe")        clock = sim.Clock.attach("game.exe")
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import errno
import functools
import glob
import hashlib
import importlib
import importlib.util
import io
import json
import math
import mmap
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
import weakref
from dataclasses import dataclass
from pathlib import Path

import common
from common import ROOT, artefact, attempt
from common.artefact import BUTTONS, FRAME, STICKS
from common.command_line import Common, command_line
from common.pictures import VideoWriter, video_facts

import gymnasium
import numpy as np

# ======================================================================================================
# Part 1: what every stage shares
# ======================================================================================================
# ---- the gamepad ---------------------------------------------------------------------------------
# Positions, not printed letters: SOUTH is the lowest face button on any pad.  Sticks in [-1, 1], y
# down.


# ---- artefacts: safetensors that describe themselves ---------------------------------------------
# Per format: tensor name -> (dtype, dimensions, what it is: unit and range).  Equal letters, equal
# sizes.


class GameError(common.Fault):
    """What is wrong with a game or with this machine, and the fix, in one line."""


class NoFrame(GameError):
    """A game lives and presents nothing."""


# ---- the clock hook, Linux x86-64 ----------------------------------------------------------------
# Time inside the game is a number that we store in a page shared with it.
#   reading it   the vDSO functions (clock_gettime, gettimeofday, time) are overwritten by jumps to STUB, in that page; a
#                thread that reads the same moment a thousand times is put to sleep for HOP, so that busy loops end
#   waiting      every system call with a timeout is stopped by seccomp (RET_TRACE) and handed to us by ptrace: sleeps are
#                held until their virtual deadline; polls and futexes wait in the kernel, endlessly, and are interrupted
#                at their virtual deadline, so that real events still end them
#   timers       timerfd, setitimer, alarm and timer_settime are kept by us and expire at their virtual deadline
#   presenting   breakpoints on SDL_RenderPresent, glXSwapBuffers and their like: the frame gate, a monitor of `fps` Hz
# Nothing happens in the game between two deadlines, so time jumps from one to the next: discrete-event simulation.
# Not in virtual time: io_uring (refused with ENOSYS, programs fall back to epoll), socket timeouts, recvmmsg, CPU-time clocks, times,
# sysinfo, adjtimex, the dates of files, rdtsc (unless asked for), 32-bit programs, anything that happens outside the game (network,
# sound card, a foreign X server); a signal from outside reaches a sleeping thread when its sleep ends.

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
# in the game: STUB, clock and table, spins, scratch memory.  CHOICE: far from
STUB_AT = 0x2F0000000000
CLOCK_AT = STUB_AT + PAGE  # all that the kernel maps by itself; the filter knows the upper half
ZERO_AT = CLOCK_AT + 16  # a struct timespec of zero
SHORT_AT = CLOCK_AT + 32  # a short struct timespec, then a struct timeval: for attached programs
OFFSETS_AT = CLOCK_AT + 64  # of the twelve clocks from CLOCK_MONOTONIC
TABLE_AT = CLOCK_AT + 256
SPINS_AT = STUB_AT + 2 * PAGE
SCRATCH_AT = STUB_AT + 3 * PAGE  # for results of calls: pixels, numbers
SCRATCH = 64 << 20  # bytes; only those that are used take memory

NS = 1_000_000_000
BIRTH = 1000 * NS  # virtual CLOCK_MONOTONIC at launch
# virtual CLOCK_REALTIME at launch: 2024-01-01 00:00 UTC, and a second per seed
EPOCH = 1_704_067_200 * NS
OFFSET = EPOCH - BIRTH
YIELD = 50_000  # ns that a sleep of 0 lasts (Linux's timer slack), so that loops of them end
HOP = 1_000_000  # ns that pass for a thread that spins until the clock moves
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
GETRANDOM, SCHED_YIELD, IO_URING_SETUP = 318, 24, 425
CALLS = (
    {nr: name for name, nr in (READS | SLEEPS | TIMERS).items()}
    | {wait[0]: name for name, wait in WAITS.items()}
    | {GETRANDOM: "getrandom", SCHED_YIELD: "spin"}
)
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
FUTEX_WAITS = {0: "WAIT", 6: "LOCK_PI", 9: "WAIT_BITSET", 11: "WAIT_REQUEUE_PI", 13: "LOCK_PI2"}
# what /proc says of a thread that does nothing; else S, Z
ASLEEP = {"parked": b"t", "stopped": b"t", "vfork": b"SDZ"}
# how long and how often it was on a processor; its state; whether it computes
LOOKS = ("schedstat", "stat", "syscall")
SCHEDSTAT, STAT, SYSCALL = range(3)
UNCOUNTED = b"0 0 0\n"  # schedstat of a kernel that does not count
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
INT3 = b"\xcc"

# Functions with which a program shows a frame, and those by which it may ask for their addresses.
# The first library that presents is the outermost one (SDL calls GLX, not the other way round): its
# functions stay the gate, those of the others are let go.
PRESENTS = {
    "SDL_RenderPresent",
    "SDL_GL_SwapWindow",
    "SDL_UpdateWindowSurface",
    "SDL_UpdateWindowSurfaceRects",
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
GRAPHICS = re.compile(r"/lib(SDL2|SDL3|GLX|GL|EGL|OpenGL|GLESv2|vulkan)[-.][^/]*$")

libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if libc:
    libc.ptrace.argtypes, libc.ptrace.restype = (
        [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p],
        ctypes.c_long,
    )


def find_program(name: str, env: dict | None = None, cwd=None) -> None:
    """GameError if there is no such program."""
    if not shutil.which(
        os.path.join(cwd or "", name) if os.path.dirname(name) else name,
        path=(env or os.environ).get("PATH"),
    ):
        raise GameError(f"{name}: no such program")


def read_text(path: str) -> str:
    with open(path) as f:
        return f.read()


class Registers(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
        "fs_base gs_base ds es fs gs".split()
    ]

    def arguments(self) -> list[int]:
        return [getattr(self, name) for name in ARGUMENTS]


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
    """BPF program: RET_TRACE for what reads the time or waits with a timeout, ALLOW for all else at
    full speed.
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
    for nr in (*(READS | SLEEPS | TIMERS).values(), GETRANDOM):
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
            block = [(LOAD, 16 + 8, 0, 0), (AND, 0x7F, 0, 0), *tests, ALLOW, *block]
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


class Process:
    """One address space of the game."""

    def __init__(self, pid: int, parent: Process | None = None):
        self.pid, self.memory = pid, None
        self.vdso = parent.vdso if parent else ""  # its patched functions, once the clock is there
        # address of a breakpoint -> (byte under it, what it calls, library)
        self.breaks = dict(parent.breaks) if parent else {}
        # path of a graphics library -> {function: address}
        self.libraries = dict(parent.libraries) if parent else {}
        # timer_create's: number -> (clock, signal, thread, value)
        self.timers: dict[int, tuple] = {}
        self.outermost = parent.outermost if parent else ""  # the library that presents
        self.changed: list[tuple] = []  # (address, bytes before) in an attached program
        # asks for the time at each request
        self.serves = (
            parent.serves if parent else read_text(f"/proc/{pid}/comm").startswith("wineserver")
        )
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        return os.pread(self.memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        os.pwrite(self.memory, data, address)

    def write_code(self, tid: int, address: int, data: bytes) -> None:
        """Into pages that the game may not write, copy on write; by ptrace, as kernels may forbid
        it to /proc/PID/mem.
        """
        data += self.read(address + len(data), -len(data) % 8)
        for i, word in enumerate(struct.unpack(f"<{len(data) // 8}Q", data)):
            ptrace("POKEDATA", tid, address + 8 * i, word)

    def find(self, name: str) -> int | None:
        """Address of a function that one of the loaded graphics libraries exports."""
        return next((symbols[name] for symbols in self.libraries.values() if name in symbols), None)

    def __del__(self):
        if self.memory is not None:
            os.close(self.memory)


def read_time(process: Process, address: int, fraction: int = 1) -> int:
    """ns in a struct timespec (fraction 1 ns) or timeval (1000 ns) of the game."""
    whole, part = struct.unpack("<qq", process.read(address, 16))
    return whole * NS + part * fraction


def pack_time(value: int, fraction: int = 1) -> bytes:
    return struct.pack("<qq", value // NS, value % NS // fraction)


@dataclass
class Thread:
    """One thread of the game.  States: running (or blocked in the kernel, as it likes), parked
    (held by us in a sleep or at the gate), waiting (in the kernel, in a wait that we end), stopped
    (by a signal), vfork (until its child has its own memory)."""

    tid: int
    process: Process
    state: str = "running"
    deadline: int | None = None  # of its sleep or wait, virtual ns
    fired: bool = False  # the wait's deadline has come, the interrupt is on its way
    call: str = ""  # name of the sleep or wait
    registers: Registers | None = None  # with which the game made it
    files: tuple = ()  # what /proc says of it: LOOKS
    rest: bytes = b""  # its "schedstat" when it was last seen off its processor
    sets: tuple = ()  # (address, content) of the file descriptor sets of a select that we cut
    # its getrandom: of its own, as threads and processes ask in any order
    random: np.random.Generator | None = None

    def look(self, what: int) -> bytes:
        """One of LOOKS as /proc says it now; empty once the thread is gone."""
        try:
            if not self.files:
                self.files = tuple(
                    os.open(
                        f"/proc/{self.process.pid}/task/{self.tid}/{name}",
                        os.O_RDONLY | os.O_CLOEXEC,
                    )
                    for name in LOOKS
                )
            return os.pread(self.files[what], 64, 0)
        except OSError:
            return b""

    def waits(self) -> bool:
        """Whether it sleeps, or is about to and has not left its processor; not while it is being
        woken.
        """
        letter = self.look(STAT).rpartition(b")")[2][1:2]
        return (
            letter != b""
            and letter in ASLEEP.get(self.state, b"SZ")
            and not (self.fired and self.deadline is None and self.state == "waiting")
        )

    def computes(self) -> bool:
        """Whether it is on a processor; also of one that waits to be woken this says nothing."""
        return self.look(SYSCALL)[:7] in (b"", b"running")

    def __del__(self):
        for file in self.files:
            os.close(file)


@dataclass
class Timer:
    """A timer that the game has set, and that the kernel knows nothing of."""

    process: Process
    key: tuple  # process id; real, fd or posix; number
    deadline: int  # virtual ns
    interval: int  # ns; 0: it expires once
    file: io.FileIO | None  # the game's timerfd


def borrow_file(pid: int, number: int) -> io.FileIO | None:
    """The file that a process has open under that number (pidfd_getfd)."""
    with os.fdopen(os.pidfd_open(pid)) as process:
        file = libc.syscall(438, process.fileno(), number, 0)
    return io.FileIO(file) if file >= 0 else None


class Clock:
    """A program, its children and their time.  Frozen at birth; only `step`, `step_frame` and `run`
    let time pass.

    Every call must come from the thread that made the Clock (ptrace's rule), except close() of a
    program that it started.  That dies with us. Raises GameError where the hook cannot work;
    `hook_fault()` says so beforehand.
    """

    def __init__(
        self,
        argv,
        env: dict | None = None,
        cwd=None,
        stdout=None,
        stderr=None,
        timeout: float = 60.0,
        seed: int = 0,
        fixed: bool = True,
        fps: float = 0,
        peers=(),
        tsc: bool = False,
    ):
        """timeout: seconds of real time that the program may compute before it counts as hanging     seed: of clock and getrandom
        fixed: no ASLR, getrandom by seed    fps: of the monitor behind the frame gate; 0: no gate    peers: pids that work for the game
        tsc: rdtsc too (by a fault at each)"""
        find_program(argv[0], env, cwd)
        self._begin(timeout, seed, fixed, fps, peers, tsc)
        try:
            self._launch(list(argv), env, cwd, stdout, stderr)
        except BaseException:
            self.close()
            raise

    def _begin(self, timeout=60.0, seed=0, fixed=True, fps=0.0, peers=(), tsc=False):
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise GameError(
                f"ptrace: the clock hook needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
            )
        self.timeout, self.returncode, self.owner = timeout, None, threading.get_ident()
        self.fixed, self.fps, self.tsc = fixed, fps, tsc
        # the game is not quiet while they run
        self.peers = [Thread(pid, types.SimpleNamespace(pid=pid)) for pid in peers]
        self.random = np.random.default_rng(abs(seed))
        self.threads: dict[int, Thread] = {}
        self.timers: dict[tuple, Timer] = {}
        self.popen, self.attached, self.birth = None, False, BIRTH
        # when to look at the machine's load again; how long to spin; pumps
        self.look, self.spin, self.turn = 0.0, 0, 0
        self.latest = None  # thread that was last let run: if one runs, mostly this one
        self.mask = None  # of signals, while we wait for stops, as it was before
        # so far; the thread that presented last, with which call
        self.frames, self.gate, self.presented = 0, None, ("", [])
        # of games that we see not present: the process (0: any) whose main thread's sleeps are
        # frames
        self.sleeps = None
        self.shown = False  # hold frames when they have been shown, not before
        self.started = []  # functions(thread, flags) to call after SDL_Init
        self.errands = []  # what to do for a thread that we hold, outside of its stop
        self.file = os.memfd_create("clock")
        os.ftruncate(self.file, 3 * PAGE + SCRATCH)
        self.page = mmap.mmap(self.file, 3 * PAGE + SCRATCH)
        self.page[: len(STUB)] = STUB
        self.words = memoryview(self.page)[PAGE : 2 * PAGE].cast("Q")
        self.scratch = memoryview(self.page)[3 * PAGE :]
        # of each clock from CLOCK_MONOTONIC, ns
        self.offsets = memoryview(self.page)[OFFSETS_AT - STUB_AT : TABLE_AT - STUB_AT].cast("q")
        self.words[0] = BIRTH
        for clock in EPOCH_CLOCKS:
            self.offsets[clock] = OFFSET + seed % 10**9 * NS
        SET_TIMERSLACK = 29
        # ns: this thread's own short waits are as short as asked for
        libc.prctl(SET_TIMERSLACK, 1000)

    # -- launch: a shell that stops itself, is seized and prepared, and becomes the program

    def _launch(self, argv, env, cwd, stdout, stderr):
        self.popen = subprocess.Popen(
            ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid = pid = self.popen.pid
        part = "ptrace"
        try:
            os.waitpid(pid, os.WUNTRACED)
            ptrace("SEIZE", pid, 0, OPTIONS | EXITKILL)
            self.threads[pid] = Thread(pid, Process(pid), random=self.random)
            os.kill(pid, signal.SIGCONT)
            while self._wait(pid) != signal.SIGCONT:  # past the stops of being seized and continued
                ptrace("CONT", pid)
            part = "seccomp"
            self._prepare(pid)
        except OSError as e:
            raise GameError(
                f"{part}: not permitted here ({e}); in a container, start it with "
                "--cap-add=SYS_PTRACE --security-opt seccomp=unconfined"
            ) from None
        ptrace("CONT", pid)
        self._settle(until=lambda: pid not in self.threads or self.threads[pid].process.vdso)

    def _prepare(self, pid):
        """Let the shell ask for what its successor inherits: one memory layout for all runs, and
        the filter.
        """
        code = seccomp_filter()
        below = (self._registers(pid).rsp - 4096) & ~15  # free part of its stack
        self.threads[pid].process.write(
            below, struct.pack("<HxxxxxxQ", len(code) // 8, below + 16) + code
        )
        personality, prctl, seccomp = 135, 157, 317
        ADDR_NO_RANDOMIZE, NO_NEW_PRIVS, SET_TSC, TSC_SIGSEGV, SET_MODE_FILTER = (
            0x40000,
            38,
            26,
            2,
            1,
        )
        for nr, *args in (
            *[(personality, ADDR_NO_RANDOMIZE)] * self.fixed,
            *[(prctl, SET_TSC, TSC_SIGSEGV)] * self.tsc,
            (prctl, NO_NEW_PRIVS, 1),
            (seccomp, SET_MODE_FILTER, 0, below),
        ):
            result = self._system_call(pid, nr, *args)
            if result < 0:
                raise OSError(-result, f"system call {nr}: {os.strerror(-result)}")

    def _system_call(self, tid, nr, *args) -> int:
        """Run one system call in a stopped thread."""
        process, before = self.threads[tid].process, self._registers(tid)
        code = process.read(before.rip, 8)
        process.write_code(tid, before.rip, b"\x0f\x05\xcc" + code[3:])  # syscall; int3
        now = Registers.from_buffer_copy(before)
        now.rax, now.orig_rax = nr, ONES  # -1: the kernel restarts nothing
        for name, value in zip(ARGUMENTS, (*args, 0, 0, 0, 0, 0)):
            setattr(now, name, value)
        self._set_registers(tid, now)
        self._until_trap(tid, "CONT")
        result = ctypes.c_longlong(self._registers(tid).rax).value
        process.write_code(tid, before.rip, code)
        self._set_registers(tid, before)
        return result

    def _until_trap(self, tid, how: str) -> None:
        """Let a stopped thread run to its next trap, by CONT or SINGLESTEP; signals wait meanwhile."""
        mask, rest = ctypes.c_uint64(), ctypes.c_uint64(ONES ^ 1 << SIGTRAP - 1)
        ptrace("GETSIGMASK", tid, 8, ctypes.addressof(mask))
        ptrace("SETSIGMASK", tid, 8, ctypes.addressof(rest))
        ptrace(how, tid)
        while self._wait(tid) != SIGTRAP:
            ptrace(how, tid)
        ptrace("SETSIGMASK", tid, 8, ctypes.addressof(mask))

    def _wait(self, tid) -> int:
        """Wait for a stop while preparing: the signal, or 0 for another kind of stop."""
        _, status = os.waitpid(tid, WALL)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError("it was killed while being prepared")
        return 0 if status >> 16 else status >> 8

    def _patch(self, thread):
        """After exec: map the clock, let the vDSO jump to it.  The thread is at the exec call's
        exit.
        """
        tid, process = thread.tid, thread.process
        if self._registers(tid).cs != 0x33:
            raise GameError(
                f"vDSO patch: {os.readlink(f'/proc/{tid}/exe')} is a 32-bit program, and those are not supported"
            )
        self._map_clock(thread)
        auxv = dict(struct.iter_unpack("<QQ", Path(f"/proc/{tid}/auxv").read_bytes()))
        # AT_SYSINFO_EHDR (without it all reads are calls),
        vdso, loader, random = auxv.get(33), auxv.get(7), auxv.get(25)
        process.vdso = self._patch_vdso(thread, vdso) if vdso else "none"  # AT_BASE, AT_RANDOM
        if self.fixed and random:
            process.write(random, thread.random.bytes(16))
        if self.fps and loader:  # the dynamic loader calls it whenever it has loaded something
            path = next((path for path, at in mapped_files(tid).items() if at == loader), "")
            state = library_symbols(*located(tid, path)).get("_dl_debug_state") if path else None
            if state:
                self._set_break(thread, loader + state, self._on_libraries)

    def _map_clock(self, thread):
        tid, process = thread.tid, thread.process
        path = f"/proc/{os.getpid()}/fd/{self.file}\0".encode()
        below = self._registers(tid).rsp - 512
        kept = process.read(below, len(path))
        process.write(below, path)
        file = self._system_call(tid, 2, below, os.O_RDWR | os.O_CLOEXEC)
        process.write(below, kept)
        # private: each process counts its own reads, or runs would differ
        SHARED, PRIVATE, FIXED_NOREPLACE = 1, 2, 0x100000
        areas = (
            (STUB_AT, PAGE, 5, SHARED),
            (CLOCK_AT, PAGE, 3, SHARED),
            (SPINS_AT, PAGE, 3, PRIVATE),
            (SCRATCH_AT, SCRATCH, 3, SHARED),
        )
        places = [
            self._system_call(tid, 9, at, size, access, kind | FIXED_NOREPLACE, file, at - STUB_AT)
            for at, size, access, kind in areas
        ]
        self._system_call(tid, 3, file)
        if places != [at for at, *_ in areas]:
            raise GameError(
                f"vDSO patch: the clock could not be mapped into {os.readlink(f'/proc/{tid}/exe')} (open {file}, "
                f"mmap {places}); it must run as the same user and see the same /proc"
            )

    def _patch_vdso(self, thread, vdso) -> str:
        """Let its functions jump to ours; -> their names."""
        process, patched = thread.process, []
        for name, (address, size) in elf_symbols(process.read(vdso, 4 * PAGE)).items():
            if name in STUB_ENTRY:  # endbr64; movabs rax, entry; jmp rax
                jump = (
                    b"\xf3\x0f\x1e\xfa\x48\xb8"
                    + struct.pack("<Q", STUB_AT + STUB_ENTRY[name])
                    + b"\xff\xe0"
                )
                assert len(jump) <= size, (
                    f"{name.decode()} of this kernel's vDSO is only {size} bytes long"
                )
                if self.attached:
                    process.changed.append((vdso + address, process.read(vdso + address, 16)))
                    self.guard.stdin.write(
                        f"{process.pid} {vdso + address} {process.changed[-1][1].hex()}\n"
                    )
                    self.guard.stdin.flush()
                process.write_code(thread.tid, vdso + address, jump)
                patched.append(name.decode().removeprefix("__vdso_"))
            # mov eax, -ENOSYS; ret: libc makes the system call instead
            elif name == b"__vdso_getrandom" and self.fixed:
                process.write_code(
                    thread.tid, vdso + address, b"\xf3\x0f\x1e\xfa\xb8\xda\xff\xff\xff\xc3"
                )
        return ", ".join(patched) or "none"

    # -- the game's stops

    def _registers(self, tid) -> Registers:
        registers = Registers()
        ptrace("GETREGS", tid, 0, ctypes.addressof(registers))
        return registers

    def _set_registers(self, tid, registers):
        ptrace("SETREGS", tid, 0, ctypes.addressof(registers))

    def _go_on(self, thread, signal_number=0):
        """Let a stopped thread run; a waiting one up to the end of its system call."""
        self.latest = thread
        # killed meanwhile: the next pump learns of it
        with contextlib.suppress(ProcessLookupError):
            ptrace(
                "SYSCALL" if thread.state == "waiting" or self.attached else "CONT",
                thread.tid,
                0,
                signal_number,
            )

    def _pump(self, everyone: bool = False) -> bool:
        """Handle the stops that the threads have reached by now; True if there was one.  everyone:
        also see who is gone without a word.
        """
        if not everyone and not (found := peek()):  # one call where nothing has happened, as mostly
            return False
        self.turn, busy = self.turn + 1, False
        # now and then all, that one cannot keep out the others
        alone = not everyone and self.turn % 16 and found.si_pid in self.threads
        # by name: never reaps another child
        for thread in [self.threads[found.si_pid]] if alone else list(self.threads.values()):
            try:
                got, status = os.waitpid(thread.tid, os.WNOHANG | WALL)
            except ChildProcessError:
                # its own exec or another thread's, or this program ignores SIGCHLD
                got, status = thread.tid, 0
                leader = self.threads.get(thread.process.pid)
                # it is the leader now, and on its way into another program
                if leader and not leader.waits():
                    leader.state, leader.deadline = "running", None
            if got:
                busy = True
                try:
                    self._on_stop(thread, status)
                except (ProcessLookupError, ChildProcessError, FileNotFoundError):
                    pass  # killed while stopped
        return busy

    def _on_stop(self, thread, status):
        if not os.WIFSTOPPED(status):
            del self.threads[thread.tid]
            if thread.tid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            return
        event, number = status >> 16, status >> 8 & 0xFF
        if event == SECCOMP:
            try:
                self._on_call(thread)
            # the game gave an address where nothing is: the kernel tells it so
            except (OSError, OverflowError, struct.error) as e:
                if getattr(e, "errno", errno.EIO) != errno.EIO:
                    raise
                self._go_on(thread)
        elif number == SYSCALL_STOP:
            if self.attached and thread.state != "waiting" and self._enters(thread.tid):
                self._on_call(thread)
            else:
                self._on_result(thread)
        elif event == EXEC:
            self.threads[thread.tid] = thread = Thread(
                thread.tid, Process(thread.tid), random=thread.random
            )
            for key in [k for k in self.timers if k[:2] == (thread.tid, "posix")]:
                del self.timers[key]  # timer_create's end here; the others stay
            for key in [k for k in self.timers if k[0] == thread.tid]:
                self.timers[key].process = thread.process
            ptrace("SYSCALL", thread.tid)  # to the call's exit: before it the kernel would
            # overwrite the result of an injected call
            while self._wait(thread.tid) != SYSCALL_STOP:
                ptrace("SYSCALL", thread.tid)
            self._patch(thread)
            self._go_on(thread)
        elif event in (FORK, VFORK, CLONE):
            self._on_birth(thread, event)
        elif event == VFORK_DONE:
            thread.state = "running"
            self._go_on(thread)
        elif event == STOP and number in (
            signal.SIGSTOP,
            signal.SIGTSTP,
            signal.SIGTTIN,
            signal.SIGTTOU,
        ):
            thread.state = "stopped"
            ptrace("LISTEN", thread.tid)
        elif event == 0 and (
            number == SIGTRAP
            and self._on_break(thread)
            or number == signal.SIGSEGV
            and self._on_rdtsc(thread)
        ):
            pass
        else:  # a signal on its way, or the echo of an interrupt
            if thread.state == "stopped":
                thread.state = "running"
            self._go_on(thread, 0 if event else number)

    def _enters(self, tid) -> bool:
        """Whether a system call stop is at the entry."""
        info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info
        ptrace("GET_SYSCALL_INFO", tid, len(info), ctypes.addressof(info))
        return info.raw[0] == 1

    def _on_birth(self, thread, event):
        self._born(thread)
        if event == VFORK:
            thread.state = "vfork"
        self._go_on(thread)

    def _born(self, thread) -> Thread:
        """The new thread or process of one that has just begun it."""
        tid = ctypes.c_ulong()
        ptrace("GETEVENTMSG", thread.tid, 0, ctypes.addressof(tid))
        tid = tid.value
        status = Path(f"/proc/{tid}/status").read_text()
        pid = int(re.search(r"^Tgid:\s*(\d+)", status, re.M)[1])
        own = pid != thread.process.pid
        self.threads[tid] = Thread(
            tid,
            Process(pid, thread.process) if own else thread.process,
            random=thread.random.spawn(1)[0] if thread.random else None,
        )
        return self.threads[tid]

    # -- system calls that read the time or wait

    def _on_call(self, thread):
        """One of CALLS, about to be made."""
        registers, process = self._registers(thread.tid), thread.process
        name, a = CALLS.get(registers.orig_rax), registers.arguments()
        if (
            not process.vdso
            or not name
            or self.attached
            and (name in TIMERS or name == "getrandom")
            or name == "spin"
            and (registers.rip >> 32 != STUB_AT >> 32 or process.serves)
        ):
            return self._go_on(thread)
        thread.call = name
        if name in WAITS:
            return self._on_wait(thread, registers, name, a)
        if name in SLEEPS:
            return self._on_sleep(thread, registers, name, a)
        if name == "spin":
            return self._park(thread, registers, self.now + HOP)
        result = (
            self._read_clock(process, name, a)
            if name in READS
            else self._on_timer(process, name, a)
            if name in TIMERS
            else self._random(thread, a)
        )
        if result is not None:  # in the kernel's place
            self._skip(thread, registers, result)
        self._go_on(thread)

    def _on_wait(self, thread, registers, name, a):
        """Turn a wait with a timeout into an endless one with a virtual deadline."""
        process, (_, index, kind, _) = thread.process, WAITS[name]
        if self.attached and not self._timed(name, a):
            return self._go_on(thread)
        if kind == "ms":
            delay = max(0, ctypes.c_int(a[index] & 0xFFFFFFFF).value) * 1_000_000
        else:
            delay = read_time(process, a[index], 1000 if kind == "timeval" else 1)
        if (name == "select" and not (a[1] or a[2] or a[3])) or (name == "poll" and not a[1]):
            return self._park(thread, registers, self.now + (delay or YIELD))  # a sleep in disguise
        if kind == "date":
            delay -= self.now + self.offsets[0]
        elif kind == "moment":
            clock = a[index + 1] & 0xFFFFFFFF
            delay -= self.now + (self.offsets[clock] if clock in VIRTUAL_CLOCKS else 0)
        elif name == "futex" and a[1] & 0x7F:  # all but WAIT give a moment, not a delay
            # FUTEX_CLOCK_REALTIME, LOCK_PI
            delay -= self.now + (self.offsets[0] if a[1] & 0x100 or a[1] & 0x7F == 6 else 0)
        elif delay <= 0:
            return self._go_on(thread)
        thread.registers, thread.fired = Registers.from_buffer_copy(registers), False
        thread.state, thread.deadline = "waiting", self.now + delay if delay > 0 else None
        self._slept(thread)
        setattr(registers, ARGUMENTS[index], ONES if kind == "ms" else 0 if delay > 0 else ZERO_AT)
        if self.attached and delay > 0:
            size = (a[0] + 63) // 64 * 8
            thread.sets = (
                tuple((at, process.read(at, size)) for at in a[1:4] if at)
                if "select" in name
                else ()
            )
            self._cut_wait(thread, registers, index, kind)
        self._set_registers(thread.tid, registers)
        self._go_on(thread)

    def _timed(self, name, a) -> bool:
        """What the filter asks where there is one: whether a call waits, and not for ever; in an
        attached program, whether we can cut it.
        """
        _, index, kind, _ = WAITS[name]
        if kind == "ms":
            return a[index] & 0xFFFFFFFF not in (0, 0xFFFFFFFF)
        if name == "futex" and (
            a[1] & 0x7F not in (0, 9) or a[1] & 0x7F == 9 and a[5] & 0xFFFFFFFF != 0xFFFFFFFF
        ):
            return False
        return a[index] != 0 and kind not in ("moment", "date") and name != "rt_sigtimedwait"

    def _on_sleep(self, thread, registers, name, a):
        if name == "nanosleep":
            deadline = self.now + (read_time(thread.process, a[0]) or YIELD)
        else:
            clock, absolute = ctypes.c_int(a[0] & 0xFFFFFFFF).value, a[1] & 1
            if clock not in VIRTUAL_CLOCKS:
                return self._go_on(thread)
            moment = read_time(thread.process, a[2])
            deadline = moment - self.offsets[clock] if absolute else self.now + (moment or YIELD)
        self._park(thread, registers, deadline)

    def _park(self, thread, registers, deadline):
        """Hold the thread; when it goes on, its call returns 0 without having been made."""
        thread.registers = Registers.from_buffer_copy(registers)
        self._skip(thread, registers, 0)
        if deadline <= self.now:
            return self._go_on(thread)
        if self.attached and not (thread.call == "clock_nanosleep" and thread.registers.rsi & 1):
            # let go early, also by our end, it sleeps anew: none is cut short, but those
            self._again(thread, registers)
            # until a moment that the real clock may be far from
            self._set_registers(thread.tid, registers)
        thread.state, thread.deadline = "parked", deadline
        self._slept(thread)

    def _slept(self, thread):
        """The last resort for a frame gate."""
        if (
            self.sleeps in (0, thread.process.pid)
            and thread.tid == thread.process.pid
            and thread.call != "spin"
        ):
            self.frames, self.gate, self.presented = self.frames + 1, thread, ("sleep", [])

    def _skip(self, thread, registers, result):
        registers.rax, registers.orig_rax = result & ONES, ONES
        self._set_registers(thread.tid, registers)

    def _read_clock(self, process, name, a) -> int | None:
        """Answer a system call that asks for the time, which was made without the vDSO."""
        clock = ctypes.c_int(a[0] & 0xFFFFFFFF).value if name == "clock_gettime" else 0
        if clock not in VIRTUAL_CLOCKS:
            return None
        value = self.now + self.offsets[clock]
        where = a[1] if name == "clock_gettime" else a[0]
        if name == "time":
            if where:
                process.write(where, struct.pack("<q", value // NS))
            return value // NS
        if where:
            process.write(where, pack_time(value, 1 if name == "clock_gettime" else 1000))
        return 0

    def _random(self, thread, a) -> int | None:
        if not self.fixed:
            return None
        count = min(a[1], 1 << 20)
        thread.process.write(a[0], thread.random.bytes(count))
        return count

    def _on_result(self, thread):
        """Entry (which follows the seccomp stop) or exit of a wait that we made endless."""
        registers = self._registers(thread.tid)
        result = ctypes.c_longlong(registers.rax).value
        if thread.state != "waiting" or result == -38:  # -ENOSYS: the entry
            return self._go_on(thread)
        if (
            self.attached
            and not thread.fired
            and thread.deadline is not None
            and result == WAITS[thread.call][3]
        ):
            self._cut_wait(thread, registers, *WAITS[thread.call][1:3])
            self._again(thread, registers)
            self._set_registers(thread.tid, registers)
            return self._go_on(thread)
        for name in ("rsi", "rdx", "r10", "r8"):  # system calls keep their arguments
            setattr(registers, name, getattr(thread.registers, name))
        if thread.fired and result in INTERRUPTED:
            registers.rax, registers.orig_rax = WAITS[thread.call][3] & ONES, ONES
            if thread.call in ("select", "pselect6"):  # nothing is ready
                size = (registers.rdi + 63) // 64 * 8
                for where in filter(None, (registers.rsi, registers.rdx, registers.r10)):
                    thread.process.write(where, bytes(size))
        elif result == -516:  # a signal: begin the call anew with its own timeout,
            registers.rax = -514 & ONES  # not the kernel's continuation of the endless one
        self._set_registers(thread.tid, registers)
        thread.state, thread.deadline, thread.sets = "running", None, ()
        self._go_on(thread)

    def _on_rdtsc(self, thread) -> bool:
        """A fault at rdtsc or rdtscp, when these are ours too."""
        registers = self._registers(thread.tid)
        code = thread.process.read(registers.rip, 3) if self.tsc else b""
        size = 2 if code[:2] == b"\x0f\x31" else 3 if code == b"\x0f\x01\xf9" else 0
        if size:
            ticks = self.now * TSC_HZ // NS
            registers.rax, registers.rdx, registers.rip = (
                ticks & 0xFFFFFFFF,
                ticks >> 32,
                registers.rip + size,
            )
            registers.rcx = 0 if size == 3 else registers.rcx
            self._set_registers(thread.tid, registers)
            self._go_on(thread)
        return size > 0

    # -- timers: kept by us, never by the kernel

    def _on_timer(self, process, name, a) -> int | None:
        """Answer a system call about a timer; None leaves it to the kernel (timers that count CPU
        time).
        """
        if name == "timer_create":
            return self._create_timer(process, a)
        kind = (
            "fd" if name.startswith("timerfd") else "posix" if name.startswith("timer_") else "real"
        )
        if (
            kind == "posix"
            and a[0] not in process.timers
            or name in ("setitimer", "getitimer")
            and a[0] != 0
        ):
            return None
        key, fraction = (
            (process.pid, kind, a[0] if kind != "real" else 0),
            1000 if kind == "real" else 1,
        )
        old = self.timers.get(key)
        left, interval = (max(1, old.deadline - self.now), old.interval) if old else (0, 0)
        if name in ("timer_delete", "timer_getoverrun"):
            if name == "timer_delete":
                self.timers.pop(key, None), process.timers.pop(a[0])
            return 0
        if name == "alarm":
            self._set_timer(process, key, a[0] and self.now + a[0] * NS, 0)
            return -(-left // NS)
        new, where = (
            (0, a[1]) if "get" in name else (a[1], a[2]) if kind == "real" else (a[2], a[3])
        )
        if new:  # struct itimerval or itimerspec: interval, value
            value, absolute = read_time(process, new + 16, fraction), kind != "real" and a[1] & 1
            moment = value and (value if absolute else value + self.now)
            if moment and absolute:
                moment -= self.offsets[self._timer_clock(process, kind, a[0])]
            self._set_timer(process, key, moment, read_time(process, new, fraction))
        if where:
            process.write(where, pack_time(interval, fraction) + pack_time(left, fraction))
        return 0

    def _create_timer(self, process, a) -> int | None:
        clock, number, timer = (
            ctypes.c_int(a[0] & 0xFFFFFFFF).value,
            signal.SIGALRM,
            max(process.timers, default=1 << 20) + 1,
        )
        value, notify, tid = timer, 0, 0
        if clock not in VIRTUAL_CLOCKS:
            return None
        if a[1]:
            # struct sigevent
            value, number, notify, tid = struct.unpack("<QiiI", process.read(a[1], 20))
        # SIGEV_NONE, SIGEV_THREAD_ID
        process.timers[timer] = (
            clock,
            number if notify != 1 else 0,
            tid if notify & 4 else 0,
            value,
        )
        process.write(a[2], struct.pack("<i", timer))
        return 0

    def _timer_clock(self, process, kind, number) -> int:
        if kind == "posix":
            return process.timers[number][0]
        return int(
            re.search(r"clockid: (\d+)", read_text(f"/proc/{process.pid}/fdinfo/{number}"))[1]
        )

    def _set_timer(self, process, key, moment, interval):
        self.timers.pop(key, None)
        file = borrow_file(process.pid, key[2]) if key[1] == "fd" else None
        if file is not None:
            # also forgets what expired before
            libc.timerfd_settime(file.fileno(), 0, struct.pack("<4q", 0, 0, 0, 0), None)
        # a number without a file behind it: nothing to expire
        if moment and (file is not None or key[1] != "fd"):
            self.timers[key] = Timer(process, key, max(moment, self.now), interval, file)

    def _expire(self, timer):
        """Let it come true in the game."""
        timer.deadline = max(timer.deadline, self.now) + timer.interval
        process, kind, number = timer.process, *timer.key[1:]
        if (
            not timer.interval
            or not os.path.exists(f"/proc/{process.pid}")
            or kind == "fd"
            and not os.path.exists(f"/proc/{process.pid}/fd/{number}")
        ):
            self.timers.pop(timer.key, None)
        with contextlib.suppress(ProcessLookupError):
            if kind == "fd":
                # at 1 ns after boot: at once
                libc.timerfd_settime(timer.file.fileno(), 1, struct.pack("<4q", 0, 0, 0, 1), None)
            elif kind == "real":
                os.kill(process.pid, signal.SIGALRM)
                self._cut_sleep(process, 0, signal.SIGALRM)
            elif process.timers[number][1]:
                _, what, tid, value = process.timers[number]
                # siginfo_t, SI_TIMER
                info = struct.pack("<iiixxxxiiQ96x", what, 0, -2, number, 0, value)
                # rt_tgsigqueueinfo, rt_sigqueueinfo
                nr, who = (297, (process.pid, tid)) if tid else (129, (process.pid,))
                libc.syscall(nr, *who, what, info)
                self._cut_sleep(process, tid, what)

    def _cut_sleep(self, process, tid, number):
        """A signal was sent: if all who could take it sleep, held by us, the first one's sleep ends
        with EINTR, as the kernel would.
        """
        threads = [t for t in self.threads.values() if t.process is process and tid in (0, t.tid)]
        for thread in threads if all(t.state == "parked" for t in threads) else ():
            masks = dict(
                re.findall(r"^Sig(Blk|Ign):\s*(\w+)", read_text(f"/proc/{thread.tid}/status"), re.M)
            )
            if thread.call in SLEEPS and not any(
                int(mask, 16) >> number - 1 & 1 for mask in masks.values()
            ):
                registers, a = self._registers(thread.tid), thread.registers.arguments()
                left = a[1] if thread.call == "nanosleep" else 0 if a[1] & 1 else a[3]
                if left:
                    process.write(left, pack_time(thread.deadline - self.now))
                self._skip(thread, registers, -4)
                thread.state, thread.deadline = "running", None
                return self._go_on(thread)

    # -- the frame gate: breakpoints on the functions that present

    def _set_break(self, thread, address, call, library=""):
        """Let the thread that comes there stop, and call(thread, its registers there)."""
        process = thread.process
        if address not in process.breaks:
            process.breaks[address] = (process.read(address, 1), call, library)
            process.write_code(thread.tid, address, INT3)

    def _clear_break(self, thread, address):
        thread.process.write_code(thread.tid, address, thread.process.breaks.pop(address)[0])

    def _on_break(self, thread) -> bool:
        """At an int3: of ours?"""
        registers = self._registers(thread.tid)
        if registers.rip == STUB_AT + CALLS_END:
            thread.state = "called"
            return True
        registers.rip -= 1
        if registers.rip not in thread.process.breaks:
            return False
        byte, call, _ = thread.process.breaks[registers.rip]
        self._pass_break(thread, Registers.from_buffer_copy(registers), byte)
        call(thread, registers)
        if thread.state == "running":
            self._go_on(thread)
        return True

    def _pass_break(self, thread, registers, byte):
        """Do the instruction under the breakpoint: the usual first ones ourselves, others by a
        single step.
        """
        process, at = thread.process, registers.rip
        code = byte + process.read(at + 1, 9)
        if code[:4] == b"\xf3\x0f\x1e\xfa":  # endbr64
            registers.rip = at + 4
        elif code[:2] == b"\xff\x25":  # jmp [rip + offset]: SDL's table of functions
            (registers.rip,) = struct.unpack(
                "<Q", process.read(at + 6 + struct.unpack_from("<i", code, 2)[0], 8)
            )
        elif code[:1] == b"\xc3":  # ret
            (registers.rip,) = struct.unpack("<Q", process.read(registers.rsp, 8))
            registers.rsp += 8
        else:
            self._set_registers(thread.tid, registers)
            process.write_code(thread.tid, at, byte)
            self._until_trap(thread.tid, "SINGLESTEP")
            return process.write_code(thread.tid, at, INT3)
        self._set_registers(thread.tid, registers)

    def _on_libraries(self, thread, _):
        """The dynamic loader has loaded something: breakpoints on what is new to us."""
        process = thread.process
        for path, base in mapped_files(process.pid).items():
            if GRAPHICS.search(path) and path not in process.libraries:
                names = library_symbols(*located(process.pid, path))
                process.libraries[path] = {name: base + at for name, at in names.items()}
                for name in PRESENTS & set(names) if process.outermost in ("", path) else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_present, name, path),
                        path,
                    )
                for name in RESOLVERS.keys() & set(names) if process.outermost == "" else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_resolve, RESOLVERS[name], path),
                        path,
                    )
                for name in STARTS & set(names):
                    self._set_break(thread, base + names[name], self._on_start)

    def _on_resolve(self, argument, library, thread, registers):
        """The program asks for a function by name: if it presents, a breakpoint on what it gets."""
        name = (
            thread.process.read(getattr(registers, argument), 32)
            .split(b"\0")[0]
            .decode(errors="replace")
        )
        if name in PRESENTS:
            self._on_return(
                thread,
                registers,
                lambda thread, after: (
                    after.rax
                    and self._set_break(
                        thread,
                        after.rax,
                        functools.partial(self._on_present, name, library),
                        library,
                    )
                ),
            )

    def _on_return(self, thread, registers, call):
        """At the entry of a function: call(thread, registers) once, when it returns."""

        def returned(thread, after):
            self._clear_break(thread, back)
            call(thread, after)

        (back,) = struct.unpack("<Q", thread.process.read(registers.rsp, 8))
        self._set_break(thread, back, returned)

    def _on_start(self, thread, registers):
        """SDL_Init or SDL_InitSubSystem: hold the thread again when it returns."""

        def started(thread, _):
            thread.state = "parked"
            self.errands.append((thread, lambda: [call(thread, flags) for call in self.started]))

        flags = registers.rdi & 0xFFFFFFFF
        self._on_return(thread, registers, started)

    def _on_present(self, name, library, thread, registers):
        """A frame is drawn; hold the thread here, or where the frame has been shown."""
        process, arguments = thread.process, registers.arguments()
        if not process.outermost:
            process.outermost = library
            for address in [
                at for at, (_, _, other) in process.breaks.items() if other not in ("", library)
            ]:
                self._clear_break(thread, address)
        if self.shown:
            return self._on_return(
                thread, registers, lambda thread, _: self._hold(thread, name, arguments)
            )
        self._hold(thread, name, arguments)

    def _hold(self, thread, name, arguments):
        """At the gate until the next tick of the monitor, as one that waits for its vertical blank."""
        tick = int((self.now - BIRTH) * self.fps // NS) + 1
        thread.state, thread.call, thread.deadline = (
            "parked",
            "present",
            max(self.now + 1, BIRTH + int(-(-tick * NS // self.fps))),
        )
        self.frames, self.gate, self.presented, self.sleeps = (
            self.frames + 1,
            thread,
            (name, arguments),
            None,
        )

    def gated(self) -> bool:
        """Whether a thread is held at the frame gate."""
        return (
            self.gate is not None
            and self.gate.tid in self.threads
            and (self.gate.state, self.gate.call) == ("parked", "present")
        )

    def call(self, thread, *calls) -> list[int]:
        """Run functions of the game, each (address, arguments...), in a thread that we hold at a
        function call; -> results, 64 bits.

        A wait in them ends at once.  Raises ProcessLookupError if the thread ends in them."""
        kept, state, deadline, what = (
            self._registers(thread.tid),
            thread.state,
            thread.deadline,
            thread.call,
        )
        table = (TABLE_AT - CLOCK_AT) // 8
        for i, (function, *arguments) in enumerate(calls):
            row = [function, *(a & ONES for a in arguments), *[0] * (7 - len(arguments))]
            for j, word in enumerate(row):
                self.words[table + 8 * i + j] = word
        self.words[table + 8 * len(calls)] = 0
        now = Registers.from_buffer_copy(kept)
        now.rip, now.rsp, now.orig_rax = STUB_AT + CALLS_ENTRY, (kept.rsp - 1024) & ~15, ONES
        self._set_registers(thread.tid, now)
        thread.state, thread.deadline = "running", None
        self._go_on(thread)
        while thread.state != "called":
            self._settle(
                until=lambda: (
                    thread.state == "called"
                    or thread.deadline is not None
                    or thread.tid not in self.threads
                )
            )
            if thread.tid not in self.threads:
                raise ProcessLookupError("the game ended in a function that it was made to call")
            if thread.state != "called":
                thread.deadline = self.now
                self._wake(thread)
        self._set_registers(thread.tid, kept)
        thread.state, thread.deadline, thread.call = state, deadline, what
        return [self.words[table + 8 * i + 7] for i in range(len(calls))]

    # -- quiet: no thread of the game runs

    def _settle(self, until=None):
        """Serve the game until it is quiet (or until()).  A thread that is parked costs nothing
        here.
        """
        outer, self.mask = self.mask, None
        try:
            self._serve(until)
        finally:
            if self.mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
            self.mask = outer

    def _serve(self, until):
        now = time.perf_counter()
        if now > self.look:  # on a quiet machine spinning is faster than sleeping and waking up
            self.look, self.spin = (
                now + 1,
                30 if os.getloadavg()[0] < (os.cpu_count() or 1) + 1 else 0,
            )
        end, idle = now + self.timeout, 0
        while self.threads:
            busy = self._pump(everyone=idle % 64 == 60)
            while self.errands and (until is None or not until()):
                thread, errand = self.errands.pop(0)
                errand()
                thread.state = "running"
                self._go_on(thread)
                busy = True
            if busy:
                idle = 0
                if until and until():
                    return
                continue
            awake = [t for t in self.threads.values() if t.state != "parked"]
            if not until and (
                not awake and not self.peers or idle % 4 == 0 and self._asleep(awake)
            ):
                return
            if time.perf_counter() > end:
                raise GameError(
                    f"the game computed for {self.timeout:g} s without waiting for anything: it hangs"
                )
            idle += 1 if idle < 4 * self.spin else 4
            if idle <= 4 * self.spin:
                os.sched_yield()
            else:
                self._rest(min(5e-4, 1e-5 * 1.5 ** min(idle // 4 - self.spin, 20)))

    def _rest(self, seconds):
        """Wait for a thread to stop, at most this long: some fall asleep without a word."""
        if self.mask is None:  # from here on the SIGCHLD that each stop sends is kept for us
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        elif signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
            signal.sigtimedwait({signal.SIGCHLD}, seconds)
        else:
            time.sleep(seconds)  # this program wants these signals for itself

    def _asleep(self, awake) -> bool:
        """Whether no thread runs, and none is about to.

        Who is away from its processor, and has not been on one since (schedstat), can have woken
        nobody: if that is true of all, their states, read in between, tell.  syscall is silent on
        one that is being woken, stat on one that has not left its processor yet."""
        if len(self.pids()) > 1:
            awake = self.threads.values()  # also those that are parked: a process may kill another
        who = [*awake, *self.peers]
        # mostly so: the one that was let run still does
        if any(t is self.latest and not t.waits() for t in who):
            return False
        runs = [t.look(SCHEDSTAT) for t in who]
        # the others are where they were seen
        fresh = [t for t, run in zip(who, runs) if t.rest != run or run == UNCOUNTED]
        if any(t.computes() for t in fresh) or not all(t.waits() for t in who):
            return False
        # one that was woken meanwhile looks asleep while it goes to sleep again
        if runs != [t.look(SCHEDSTAT) for t in who]:
            return False
        for t, run in zip(who, runs):
            t.rest = run
        return not self._pump()

    # -- time

    @property
    def now(self) -> int:
        """Virtual CLOCK_MONOTONIC, ns."""
        return self.words[0]

    @property
    def time(self) -> float:
        """Virtual seconds since launch, or since we attached."""
        return (self.words[0] - self.birth) / NS

    @property
    def alive(self) -> bool:
        return self.pid in self.threads

    def pids(self) -> set[int]:
        """Process ids of the game."""
        return {t.process.pid for t in list(self.threads.values())}

    def _check_thread(self):
        if threading.get_ident() != self.owner:
            raise GameError(
                "a game must be stepped by the thread that started it (a rule of ptrace); for several games "
                "at once use one process each: gymnasium.vector.AsyncVectorEnv"
            )

    def _next(self) -> Thread | Timer | None:
        """The timer or thread that is due first; of equals the oldest."""
        due = [t for t in (*self.timers.values(), *self.threads.values()) if t.deadline is not None]
        return min(due, key=lambda t: t.deadline, default=None)

    def _jump(self, due):
        """On to the moment of who is due, or of what comes first there; then the game is quiet."""
        server = next(
            (
                t
                for t in self.threads.values()
                if t.process.serves and t.state == "waiting" and t.deadline is not None
            ),
            None,
        )
        # Wine's server writes down the time for its programs whenever it wakes: it
        if server and due.deadline > self.now:
            self.words[0] = server.deadline = due.deadline  # first, for they would race for it
            due = server
        self._wake(due)
        self._settle()

    def _wake(self, due):
        self.words[0] = max(self.now, due.deadline)
        if isinstance(due, Timer):
            return self._expire(due)
        due.deadline = None
        if due.state == "parked":
            if self.attached:
                self._skip(due, due.registers, 0)
            due.state = "running"
            self._go_on(due)
        else:  # interrupt its wait; _on_result sees the end of it
            due.fired = True
            with contextlib.suppress(ProcessLookupError):
                ptrace("INTERRUPT", due.tid)

    def pause(self) -> None:
        """Let the game come to rest.  Time stands still whenever no other method runs."""
        self._check_thread()
        self._settle()

    def step(self, seconds: float) -> None:
        """Advance by exactly `seconds`: whoever waits on the way is woken at its own moment, one
        after the other.
        """
        self._check_thread()
        target = self.now + round(seconds * NS)
        self._settle()
        while (due := self._next()) and due.deadline <= target and self.threads:
            self._jump(due)
        self.words[0] = max(self.now, target)

    def step_frame(self, presented=None, timeout: float = 60.0, patience: float = 60.0) -> bool:
        """Jump from deadline to deadline until the count of frames presented() (by default that of
        the gate) has grown and the game is quiet again.

        False if the program ended instead; NoFrame after `timeout` seconds of real time or
        `patience` seconds of game time.
        """
        self._check_thread()
        presented = presented or (lambda: self.frames)
        before, end, last = presented(), time.perf_counter() + timeout, self.now + patience * NS
        self._settle()
        while presented() <= before:
            if not self.alive:
                return False
            if time.perf_counter() > end or self.now > last:
                raise NoFrame(f"no frame in {timeout:g} s, or {patience:g} s of game time")
            if due := self._next():
                self._jump(due)
            else:
                time.sleep(0.0005)  # it waits for something outside
                self._settle()
        return True

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """Let time pass continuously for `seconds` of real time, at `speed` times its pace
        (math.inf: as fast as the game can); then pause.
        """
        self._check_thread()
        begin, origin = time.perf_counter(), self.now
        while self.threads and (passed := time.perf_counter() - begin) < seconds:
            if speed == math.inf:
                if due := self._next():
                    self._jump(due)
                else:
                    self._settle()
                continue
            target = origin + int(passed * speed * NS)
            while (due := self._next()) and due.deadline <= target:
                self._wake(due)
                self._pump()
            self.words[0] = max(self.now, target)
            self._pump()
            time.sleep(0.0005)
        self.step(0 if speed == math.inf else max(0.0, seconds * speed - (self.now - origin) / NS))

    def close(self) -> None:
        """End the program and all its children; may be called from any thread, more than once.  An
        attached one is let go, by its own thread.
        """
        if self.attached:
            return self.detach()
        while self.threads:
            for kill, pid in [
                (os.killpg, self.pid),
                *((os.kill, t.process.pid) for t in self.threads.values()),
            ]:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            for tid in list(self.threads):
                with contextlib.suppress(ChildProcessError):
                    got, status = os.waitpid(tid, os.WNOHANG | WALL)
                    if not got or os.WIFSTOPPED(status):
                        continue
                    if tid == self.pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
                del self.threads[tid]
            time.sleep(0.0002)
        self.gate = self.latest = None  # they and these hold files of the game open
        for held in (self.timers, self.peers, self.started, self.errands):
            held.clear()
        if self.popen and self.popen.returncode is None:
            if self.returncode is None:  # never seized
                self.popen.kill()
                self.returncode = self.popen.wait()
            self.popen.returncode = self.returncode  # reaped by us
        self._leave_page()

    def _leave_page(self):
        """The page shared with the game goes; the time stays readable."""
        if self.file is not None:
            os.close(self.file)
            self.words, self.offsets = list(self.words), list(self.offsets)
            self.file = self.page = self.scratch = None

    # -- attach mode: a program that runs already.  No seccomp, which cannot be taken back: every
    # system call stops instead (slower). Nothing that the kernel or the guard could not undo
    # without us: waits are cut into short ones, breakpoints are not set.

    @classmethod
    def attach(cls, pid: int, timeout: float = 60.0) -> Clock:
        """A Clock of a program that runs already, which stands still from now on.

        After detach(), close() or our own end, however it comes, it runs on in real time as if
        nothing had been.  Its timers stay the kernel's, and there is no frame gate: step(seconds)
        and run(seconds, speed)."""
        self = cls.__new__(cls)
        self._begin(timeout, fixed=False)
        self.attached, self.pid = True, pid
        self.words[0] = 0  # not ahead of real time, should this end in detach()
        self.guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD],
            stdin=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        try:
            self._seize()  # only now: none of its clocks goes back, or jumps
            self.words[0] = self.birth = time.monotonic_ns()
            for clock in VIRTUAL_CLOCKS - {1, 6}:
                # the coarse one lags behind; those of alarms need a device
                exact = {5: 0, 8: 0, 9: 7}.get(clock, clock)
                self.offsets[clock] = time.clock_gettime_ns(exact) - time.monotonic_ns()
            for thread in self.threads.values():
                self._leave_vdso(thread)
            main = self.threads[pid]
            # munmap what an earlier attachment has left
            self._system_call(pid, 11, STUB_AT, 3 * PAGE + SCRATCH)
            self._patch(main)
            for thread in self.threads.values():
                self._go_on(thread)
                thread.state = "running"
            self._settle()
        except BaseException as e:  # it runs on
            self.close()
            if not isinstance(e, OSError):
                raise
            raise GameError(
                f"attach: process {pid}: {e.strerror or e}; it must be yours, and kernel.yama.ptrace_scope 0 (sudo sysctl "
                "kernel.yama.ptrace_scope=0), or you root"
            ) from None
        return self

    def _seize(self):
        """All its threads, also those that are born meanwhile; they are stopped."""
        process, gone = Process(self.pid), set()
        while new := [
            t
            for t in map(int, os.listdir(f"/proc/{self.pid}/task"))
            if t not in self.threads and t not in gone
        ]:
            for tid in new:
                try:
                    # no events yet: whom it begins now is found by the next look
                    ptrace("SEIZE", tid)
                    ptrace("INTERRUPT", tid)
                    while number := self._wait(tid):  # a signal was on its way
                        ptrace("CONT", tid, 0, number)
                    ptrace("SETOPTIONS", tid, 0, OPTIONS)
                    self.threads[tid] = Thread(tid, process, "parked")
                # it has ended meanwhile, or is about to
                except (ProcessLookupError, PermissionError):
                    if tid == self.pid:
                        raise
                    gone.add(tid)

    def _leave_vdso(self, thread):
        """Step a thread out of the code that is about to change."""
        vdso = dict(struct.iter_unpack("<QQ", Path(f"/proc/{thread.tid}/auxv").read_bytes())).get(
            33, 0
        )
        while vdso <= self._registers(thread.tid).rip < vdso + 4 * PAGE:
            self._until_trap(thread.tid, "SINGLESTEP")

    def _cut_wait(self, thread, registers, index, kind):
        """Let the kernel wait for a moment only; _on_result makes it wait on."""
        short = 10  # ms
        self.words[4:8] = (
            memoryview(struct.pack("<4Q", 0, short * 1_000_000, 0, short * 1000))
            .cast("B")
            .cast("Q")
        )
        setattr(
            registers,
            ARGUMENTS[index],
            short if kind == "ms" else SHORT_AT + (16 if kind == "timeval" else 0),
        )
        if thread.call == "futex":  # WAIT_BITSET takes a moment, WAIT a delay
            registers.rsi = registers.rsi & ~0x17F

    def _again(self, thread, registers) -> None:
        """Back to before its system call: it makes the same one again."""
        registers.rip, registers.rax = registers.rip - 2, thread.registers.orig_rax
        for where, data in thread.sets:
            thread.process.write(where, data)

    def detach(self) -> None:
        """Let an attached program run on in real time; one that was stepped ahead of that is held
        until it has caught up, or for 10 s.

        After those, or if we are killed, its clocks go back, which not every program survives."""
        self._check_thread()
        signals = {}  # on their way to a thread just now
        for thread in self.threads.values():
            if thread.state != "parked":
                with contextlib.suppress(ProcessLookupError):
                    ptrace("INTERRUPT", thread.tid)
        for thread in list(self.threads.values()):
            with contextlib.suppress(OSError):
                if thread.state != "parked":
                    _, status = os.waitpid(thread.tid, WALL)
                    if not os.WIFSTOPPED(status):
                        del self.threads[thread.tid]
                        continue
                    if status >> 16 in (FORK, VFORK, CLONE):
                        # ours from its first moment: it is let go too
                        os.waitpid(self._born(thread).tid, WALL)
                    signals[thread.tid] = (
                        0 if status >> 16 or status >> 8 in (SYSCALL_STOP, SIGTRAP) else status >> 8
                    )
                    if thread.state == "waiting":
                        self._restore_wait(thread, status)
        for thread in self.threads.values():  # all stand still now
            with contextlib.suppress(OSError):
                self._leave_vdso(thread)
                for address, code in thread.process.changed:
                    thread.process.write_code(thread.tid, address, code)
                thread.process.changed.clear()
        if self.threads:
            time.sleep(min(max(0, self.now - time.monotonic_ns() + COARSE), CATCH_UP) / NS)
        for tid in list(self.threads):
            with contextlib.suppress(OSError):
                ptrace("DETACH", tid, 0, signals.get(tid, 0))
            del self.threads[tid]
        if not self.guard.stdin.closed:
            self.guard.stdin.write("0 0 00\n")  # nothing is left to be done
            self.guard.stdin.close()
            self.guard.wait()
        self._leave_page()

    def _restore_wait(self, thread, status):
        """Give a wait that we cut its own timeout back, in real time."""
        registers = self._registers(thread.tid)
        result = ctypes.c_longlong(registers.rax).value
        for name in ("rsi", "rdx", "r10", "r8"):
            setattr(registers, name, getattr(thread.registers, name))
        if status >> 8 & 0xFF != SYSCALL_STOP or result != -38:  # not at its entry
            if result == WAITS[thread.call][3]:
                self._again(thread, registers)
            elif result == -516:
                registers.rax = -514 & ONES
        self._set_registers(thread.tid, registers)


GUARD = """
import os, sys
todo, files = [], {}
for line in sys.stdin:
    pid, address, code = line.split()
    if address == "0":
        todo.clear()
        continue
    try:
        files[pid] = files.get(pid) or os.open(f"/proc/{pid}/mem", os.O_RDWR)       # now: later its number may be another's
        todo.append((files[pid], bytes.fromhex(code), int(address)))
    except OSError:
        pass                                   # it has ended
for restore in todo:
    try:
        os.pwrite(*restore)
    except OSError:
        pass
"""  # a process of its own: puts back what attach() changed, when we end in any way


@functools.cache
def hook_fault() -> str | None:
    """Why the clock hook cannot work here, or None: it is tried on a small program."""
    if sys.platform == "win32":
        return windows_fault(attach=False)
    try:
        with tempfile.TemporaryFile() as out:
            clock = Clock(["sh", "-c", "sleep 1000; date +%s"], stdout=out, timeout=5)
            try:
                clock.step(1001)
            finally:
                clock.close()
            out.seek(0)
            answer = out.read().decode().strip()
    except (GameError, OSError) as e:
        return str(e)
    if answer != str(EPOCH // NS + 1000):
        return f"vDSO patch: without effect on this system (it should be {EPOCH // NS + 1000}, date says {answer!r})"


@functools.cache
def attach_fault() -> str | None:
    """Why programs that run already cannot be attached to, or None: it is tried on a small one."""
    if sys.platform == "win32":
        return windows_fault(attach=True)
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        try:
            Clock.attach(sleeper.pid, timeout=5).close()
        except (GameError, OSError) as e:
            return str(e)
        finally:
            sleeper.kill()


# ---- where the hook cannot be: the console's own pause -------------------------------------------


class Unhooked:
    """A program whose time is its own, with its children."""

    def __init__(self, argv, env=None, cwd=None, stdout=None, stderr=None, timeout: float = 60.0):
        find_program(argv[0], env, cwd)
        self.popen = subprocess.Popen(
            list(argv),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.pid, self.timeout = self.popen.pid, timeout

    @property
    def returncode(self):
        return self.popen.poll()

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        self._signal(signal.SIGKILL) if os.name == "posix" else self.popen.kill()
        self.popen.wait()


class GateClock(Unhooked):
    """A built-in game stepped by its console: frame i is computed when go > i, and lasts exactly 1
    / fps.
    """

    environment = {"NITROGEN_GATE": "1"}

    def __init__(self, argv, console: Console, **options):
        self.console, self.owed = console, 0.0  # of a frame, by step()
        super().__init__(argv, **options)

    @property
    def time(self) -> float:
        return self.console.time

    def pause(self) -> None:
        """Nothing to do: frames come only when asked for."""

    def step_frame(self, presented, timeout: float = 60.0) -> bool:
        """As Clock.step_frame."""
        before, end, polls = presented(), time.perf_counter() + timeout, 0
        self.console.open_gate(before + 1)
        while presented() <= before:
            polls += 1
            if polls % 50 == 0:
                if not self.alive:
                    return presented() > before
                self.console.open_gate(before + 1)  # the console may have appeared only now
                if time.perf_counter() > end:
                    raise GameError(f"no frame in {timeout:g} s")
            time.sleep(0.0001)
        return True

    def step(self, seconds: float) -> None:
        """The whole frames in `seconds`, and in what earlier calls left over."""
        frames = int(self.owed + seconds * self.console.fps + 1e-6)
        self.owed += seconds * self.console.fps - frames
        for _ in range(frames):
            self.step_frame(lambda: self.console.frame, self.timeout)

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """As Clock.run, in whole frames."""
        begin = time.perf_counter()
        for i in range(round(seconds * speed * self.console.fps)):
            time.sleep(max(0.0, begin + i / (speed * self.console.fps) - time.perf_counter()))
            self.step_frame(lambda: self.console.frame, self.timeout)


# ---- where the hook cannot be: SIGSTOP -----------------------------------------------------------


class StopClock(Unhooked):
    """Any program, stopped and continued by signals where ptrace is forbidden: in real time, not
    reproducible, and without a frame gate.
    """

    presented = ("", ())

    def __init__(self, argv, fps: float = 60.0, **options):
        super().__init__(argv, **options)
        self.fps, self.frames, self.time = fps, 0, 0.0
        self.pause()

    def pids(self) -> set[int]:
        """Process ids of the game: of its session."""
        found = (re.fullmatch(r"/proc/(\d+)/stat", path) for path in glob.glob("/proc/[0-9]*/stat"))
        return {int(m[1]) for m in found if session_of(int(m[1])) == self.pid}

    def gated(self) -> bool:
        return False

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def step(self, seconds: float) -> None:
        """Let it run for `seconds` of real time."""
        self._signal(signal.SIGCONT)
        time.sleep(seconds)
        self.pause()
        self.time += seconds

    def step_frame(self, presented=None, timeout: float = 60.0) -> bool:
        """A frame's time, whatever is presented in it."""
        self.step(1 / self.fps)
        self.frames += self.alive
        return self.alive

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """At most as fast as real time; slower by stopping it again and again."""
        begin = time.perf_counter()
        for i in range(round(seconds * self.fps)):
            self.step(min(1.0, speed) / self.fps)
            time.sleep(max(0.0, begin + (i + 1) / self.fps - time.perf_counter()))


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


# ---- around the game: a private folder, an X server ----------------------------------------------

# where the private folders are
MEMORY = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
KEEPER = """
if [ -n "$2" ]; then Xvfb -displayfd 1 -screen 0 "$2x24" -fbdir "$1" -nolisten tcp -noreset -nocursor -r $3 2> "$1/Xvfb.log" & x=$!; fi
echo "$x"; exec 1>&-
while read -r line; do last=$line; done
eval "$last"
[ -z "$x" ] || { kill $x; wait $x; }
for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$1" && exit; sleep 0.1; done
"""


class Stage:
    """A private folder and, if a screen size is given, an X server (Xvfb) for one run of a game.

    Both belong to a small shell that removes them when its input ends: when remove() is called, or
    when we die, however we do. The X server draws no cursor and repeats no keys (-r), which it
    would do by its own clock.
    """

    def __init__(self, screen: str = "", options: str = ""):
        """screen: WIDTHxHEIGHT in pixels; empty: none    options: of the X server"""
        self.path, self.owner = Path(tempfile.mkdtemp(prefix="nitro-", dir=MEMORY)), os.getpid()
        (self.path / "home").mkdir()
        self.keeper, self.clock, self.display, self.server, self.pads, self.will = (
            None,
            None,
            None,
            0,
            [],
            {},
        )
        if os.name == "posix":
            self.keeper = subprocess.Popen(
                ["sh", "-c", KEEPER, "sh", str(self.path), screen, options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            if screen:
                self._start_server()
        except BaseException:
            self.remove()
            raise

    def _start_server(self):
        if not shutil.which("Xvfb"):
            raise GameError(
                "Xvfb: not installed; sudo apt install xvfb, or give the display on which the game may run"
            )
        self.server, number = (
            int(self.keeper.stdout.readline()),
            self.keeper.stdout.readline().decode().strip(),
        )
        if not number:
            raise GameError(f"Xvfb: {last_line(self.path / 'Xvfb.log', 'it did not start')}")
        self.display = Display(f":{number}", self.path / "Xvfb_screen0")

    def at_our_death(self, what: str, command: str) -> None:
        """A shell command that the shell runs if we end without remove(); an empty one takes it
        back.
        """
        self.will[what] = command
        if self.keeper:
            self.keeper.stdin.write(("; ".join(filter(None, self.will.values())) + "\n").encode())
            self.keeper.stdin.flush()

    def remove(self) -> None:
        """End the game, then the X server, and remove the folder; does nothing in a process that
        was forked from our own.
        """
        if os.getpid() != self.owner:
            return
        for pad in self.pads:
            pad.close()
        if self.clock:
            self.clock.close()
        if self.display:
            self.display.close()
        if self.keeper:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.keeper.communicate(b"\n", timeout=30)
        shutil.rmtree(self.path, ignore_errors=True)


def last_line(path: Path, otherwise: str) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else otherwise


class Display:
    """A client of an X server in plain protocol: windows, keys and, where the server's memory is
    mapped, pixels.
    """

    def __init__(self, name: str, framebuffer: Path | None = None):
        """name: :0 or the like, on this machine; framebuffer: Xvfb's file"""
        self.name, self.opcode, self.codes = name, {}, {}
        number = name.split(":")[-1].split(".")[0]
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(f"/tmp/.X11-unix/X{number}")
        except OSError as e:
            raise GameError(f"display {name}: {e.strerror}") from None
        kind, cookie = xauthority(number) if framebuffer is None else (b"", b"")
        self.socket.sendall(
            struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(kind), len(cookie))
            + padded(kind)
            + padded(cookie)
        )
        fine, length = struct.unpack("<B5xH", self._read(8))
        setup = self._read(4 * length)
        if fine != 1:
            raise GameError(
                f"display {name}: refused us ({setup.rstrip(bytes(4)).decode(errors='replace').strip()})"
            )
        vendor, formats = struct.unpack_from("<16xH3xB", setup)
        (self.root,) = struct.unpack_from("<I", setup, 32 + -(-vendor // 4) * 4 + 8 * formats)
        self.first, self.last = setup[26], setup[27]  # key codes
        self.pixels = None
        if framebuffer:
            with open(framebuffer, "rb") as f:
                memory = np.memmap(f, np.uint8, "r")
            # XWD
            header, width, height, line, colours = np.frombuffer(memory[:100], ">u4")[
                [0, 4, 5, 12, 19]
            ].tolist()
            # BGRX
            self.pixels = memory[header + 12 * colours :][: line * height].reshape(
                height, line // 4, 4
            )[:, :width]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise GameError(f"display {self.name}: the X server has gone")
            data += part
        return data

    def _send(self, opcode: int, detail: int = 0, body: bytes = b"") -> None:
        self.socket.sendall(
            struct.pack("<BBH", opcode, detail, 1 + -(-len(body) // 4)) + padded(body)
        )

    def _ask(self, opcode: int, detail: int = 0, body: bytes = b"") -> bytes | None:
        """The reply, from its first byte on; None after an error.  Events are passed over."""
        self._send(opcode, detail, body)
        while True:
            head = self._read(32)
            if head[0] == 1:
                return head + self._read(4 * struct.unpack_from("<I", head, 4)[0])
            if head[0] == 0:
                return None

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the visible windows on the root, largest first."""
        tree, found = self._ask(15, 0, struct.pack("<I", self.root)), []
        for window in struct.unpack_from(f"<{struct.unpack_from('<H', tree, 16)[0]}I", tree, 32):
            shown, place = (
                self._ask(3, 0, struct.pack("<I", window)),
                self._ask(14, 0, struct.pack("<I", window)),
            )
            if shown and place and shown[26] == 2:  # viewable
                found.append((window, *struct.unpack_from("<hhHH", place, 12)))
        return sorted(found, key=lambda w: -w[3] * w[4])

    def focus(self, window: int | None = None) -> int:
        """The window that gets the keys; with a number, first give them to that one."""
        if window:
            self._send(42, 2, struct.pack("<II", window, 0))  # SetInputFocus, revert to parent
        return struct.unpack_from("<I", self._ask(43), 8)[0]

    def owner(self, window: int) -> int:
        """The process behind a window, as it says itself (_NET_WM_PID); 0 if it does not say."""
        name = b"_NET_WM_PID"
        (atom,) = struct.unpack_from(
            "<I", self._ask(16, 0, struct.pack("<HH", len(name), 0) + padded(name)), 8
        )
        reply = (
            self._ask(20, 0, struct.pack("<IIIII", window, atom, 0, 0, 1)) if window > 1 else None
        )
        return struct.unpack_from("<I", reply, 32)[0] if reply and len(reply) >= 36 else 0

    def key(self, name: str, down: bool) -> None:
        """Press or release a key by its X name (space, Left, a, ...), through XTEST; done when this
        returns.
        """
        if not self.opcode:
            reply = self._ask(98, 0, struct.pack("<HH", 5, 0) + padded(b"XTEST"))
            if not reply or not reply[8]:
                raise GameError(
                    f"display {self.name}: its X server has no XTEST extension, which keys need"
                )
            self.opcode = reply[9]
            table = self._ask(
                101, 0, struct.pack("<BBH", self.first, self.last - self.first + 1, 0)
            )
            symbols = struct.unpack_from(f"<{(len(table) - 32) // 4}I", table, 32)
            for i, symbol in reversed(list(enumerate(symbols))):
                self.codes[symbol] = self.first + i // table[1]
        symbol = KEYSYMS[name] if name in KEYSYMS else ord(name)
        if symbol not in self.codes:
            raise GameError(f"key {name!r}: display {self.name} has no such key")
        self._send(
            self.opcode,
            2,
            struct.pack("<BBxxII8xhh8x", 2 if down else 3, self.codes[symbol], 0, self.root, 0, 0),
        )
        self.focus()  # its reply comes after the key

    def close(self) -> None:
        self.socket.close()
        self.pixels = None


KEYSYMS = {
    "space": 0x20,
    "BackSpace": 0xFF08,
    "Tab": 0xFF09,
    "Return": 0xFF0D,
    "Escape": 0xFF1B,
    "Left": 0xFF51,
    "Up": 0xFF52,
    "Right": 0xFF53,
    "Down": 0xFF54,
    "Prior": 0xFF55,
    "Next": 0xFF56,
    "Home": 0xFF50,
    "End": 0xFF57,
    "Insert": 0xFF63,
    "Delete": 0xFFFF,
    "Shift_L": 0xFFE1,
    "Control_L": 0xFFE3,
    "Alt_L": 0xFFE9,
    **{f"F{i}": 0xFFBD + i for i in range(1, 13)},
}


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def xauthority(number: str) -> tuple[bytes, bytes]:
    """Name and value of the cookie for a display of this machine, if there is one."""
    path, at = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority"), 0
    data = path.read_bytes() if path.is_file() else b""
    while at < len(data):
        at, parts = at + 2, []
        for _ in range(4):  # address, number, name, value
            (size,) = struct.unpack_from(">H", data, at)
            parts.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        if parts[1] in (b"", number.encode()):
            return parts[2], parts[3]
    return b"", b""


# ---- gamepads and screens ------------------------------------------------------------------------
# A gamepad has set(buttons, sticks); a screen has frame (the count of frames presented), picture(),
# time and score(). Both are made from the game's Stage before it starts, and name the environment
# that the game needs.


class Device:
    """A gamepad or a screen: what most of them leave as it is."""

    environment: dict = {}
    ready = True  # of a gamepad: the game has taken it

    def attach(self) -> None:
        """The clock runs."""

    def close(self) -> None:
        """Nothing of it is ours: it goes with the game."""


class Console:
    """Gamepad and screen of a built-in game, through one shared file; its layout is told by
    games/console.py.
    """

    HEADER = 4096  # bytes of JSON that describe the rest; written last

    def __init__(self, stage: Stage):
        self.path, self.fields, self.fps = stage.path / "console", None, 0.0
        self.path.touch()
        self.environment = {"NITROGEN_CONSOLE": str(self.path)}

    @staticmethod
    def shows(command) -> bool:
        """Whether a command runs a game that is written for the console."""
        scripts = [Path(part) for part in command if part.endswith(".py") and os.path.isfile(part)]
        return any(b"console.main(" in script.read_bytes() for script in scripts)

    def attached(self) -> bool:
        """Whether the game has opened its side; maps the file when it has."""
        if self.fields is None and self.path.stat().st_size > self.HEADER:
            with open(self.path, "r+b") as f:
                memory = mmap.mmap(f.fileno(), 0)
            if memory[:1] == b"{" and memory[self.HEADER - 1 : self.HEADER] in b" }":
                self._map(memory)
        return self.fields is not None

    def _map(self, memory):
        header = json.loads(memory[: self.HEADER])
        if header.get("format") != "nitrogen.console/1":
            raise GameError(
                f"the game's console is {header.get('format')!r}, expected 'nitrogen.console/1'"
            )
        # our order -> the game's
        self.buttons = [header["buttons"].index(name) for name in BUTTONS]
        self.sticks = [header["sticks"].index(name) for name in STICKS]
        self.fps = header["fps"]
        self.fields = {
            name: np.frombuffer(memory, dtype, int(np.prod(shape)), offset).reshape(shape)
            for name, (offset, dtype, shape) in header["fields"].items()
        }

    @property
    def frame(self) -> int:
        """Frames presented so far."""
        return int(self.fields["frame"][0]) if self.attached() else 0

    @property
    def time(self) -> float:
        return float(self.fields["time"][0]) if self.attached() else 0.0

    def score(self) -> dict:
        return json.loads(self.fields["score"].tobytes().rstrip(b"\0") or b"{}")

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3] RGB: the game's memory itself, until its next frame."""
        return self.fields["picture"]

    def set(self, buttons, sticks) -> None:
        """bool [16] in the order of BUTTONS, float [4] in the order of STICKS."""
        self.fields["pad_buttons"][self.buttons] = buttons
        self.fields["pad_sticks"][self.sticks] = sticks

    def open_gate(self, go: int) -> None:
        if self.attached():
            self.fields["go"][0] = go


class VirtualJoystick(Device):
    """A gamepad plugged into SDL within the game, by calling SDL's own functions at the gate (SDL
    >= 2.0.14).
    """

    environment = {"SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1"}
    BUTTONS = (
        "SOUTH",
        "EAST",
        "WEST",
        "NORTH",
        "BACK",
        "",
        "START",
        "LEFT_THUMB",
        "RIGHT_THUMB",
        "LEFT_SHOULDER",
        "RIGHT_SHOULDER",
        # SDL's order of a game controller
        "DPAD_UP",
        "DPAD_DOWN",
        "DPAD_LEFT",
        "DPAD_RIGHT",
    )
    AXES = (*STICKS, "LEFT_TRIGGER", "RIGHT_TRIGGER")
    JOYSTICK = 0x200 | 0x2000  # SDL_INIT_JOYSTICK, SDL_INIT_GAMECONTROLLER

    def __init__(self, stage: Stage):
        self.stage, self.joystick, self.state = stage, 0, {}

    def attach(self) -> None:
        """The clock runs: wait for the game to start SDL's joysticks, and plug the pad in before it
        looks for one.
        """
        self.stage.clock.started.append(self._plug_in)

    def _plug_in(self, thread, flags):
        find, call = thread.process.find, functools.partial(self.stage.clock.call, thread)
        if self.joystick or not flags & self.JOYSTICK:
            return
        if find("SDL_JoystickAttachVirtual"):
            # 1: a game controller
            (number,) = call(
                (find("SDL_JoystickAttachVirtual"), 1, len(self.AXES), len(self.BUTTONS), 0)
            )
            (self.joystick,) = call((find("SDL_JoystickOpen"), number))
            self.functions = (
                find("SDL_JoystickSetVirtualButton"),
                find("SDL_JoystickSetVirtualAxis"),
            )
        elif find("SDL_AttachVirtualJoystick"):  # SDL 3: struct SDL_VirtualJoystickDesc
            self.stage.clock.scratch[:136] = struct.pack(
                "<I8H116x", 136, 1, 0, 0, 0, len(self.AXES), len(self.BUTTONS), 0, 0
            )
            (number,) = call((find("SDL_AttachVirtualJoystick"), SCRATCH_AT))
            (self.joystick,) = call((find("SDL_OpenJoystick"), number))
            self.functions = (
                find("SDL_SetJoystickVirtualButton"),
                find("SDL_SetJoystickVirtualAxis"),
            )

    @property
    def ready(self) -> bool:
        return bool(self.joystick)

    def set(self, buttons, sticks) -> None:
        """Takes effect when the game next asks SDL for events."""
        pressed = dict(zip(BUTTONS, map(int, buttons)))
        values = {(0, i): pressed.get(name, 0) for i, name in enumerate(self.BUTTONS)}
        values |= {(1, i): round(32767 * float(v)) for i, v in enumerate(sticks)}
        values |= {
            (1, i): 32767 if pressed[name] else -32768
            for i, name in enumerate(self.AXES)
            if name in pressed
        }
        changes = [
            (self.functions[kind], self.joystick, i, value)
            for (kind, i), value in values.items()
            if self.state.get((kind, i)) != value
        ]
        if changes and self.stage.clock.gated():
            self.stage.clock.call(self.stage.clock.gate, *changes)
            self.state = values


KEYS = {  # what a keyboard-only game gets for the pad; GameEnv(keys=...) changes some of them
    "": {
        "DPAD_UP": "Up",
        "DPAD_DOWN": "Down",
        "DPAD_LEFT": "Left",
        "DPAD_RIGHT": "Right",
        "LEFT_X-": "Left",
        "LEFT_X+": "Right",
        "LEFT_Y-": "Up",
        "LEFT_Y+": "Down",
        "SOUTH": "space",
        "EAST": "Control_L",
        "WEST": "Shift_L",
        "NORTH": "Alt_L",
        "BACK": "Escape",
        "START": "Return",
    },
    "chocolate-doom": {
        "SOUTH": "Control_L",
        "EAST": "space",
        "LEFT_SHOULDER": ",",
        "RIGHT_SHOULDER": ".",
        "LEFT_TRIGGER": "Tab",
        "RIGHT_X-": "Left",
        "RIGHT_X+": "Right",
    },
}


KEYS_UP = "import sys; sys.path.insert(0, sys.argv[1]); import sim; display = sim.Display(sys.argv[2]); [display.key(k, False) for k in sys.argv[3:]]"


class Keyboard(Device):
    """The pad as keys, through XTEST: into the game's own X server, or into its focused window on a
    display that was given.
    """

    PRESSED = 0.5  # how far a stick must be pushed to be a key

    def __init__(self, stage: Stage):
        self.stage, self.down, self.keys = stage, set(), stage.keys
        for name, key in self.keys.items():
            if len(key) != 1 and key not in KEYSYMS:
                raise GameError(
                    f"keys: {key!r} for {name}: there is no such key (there are single characters, {', '.join(KEYSYMS)})"
                )
            if name not in BUTTONS and name[:-1] not in STICKS:
                raise GameError(
                    f"keys: {name!r} is no button and no direction of a stick ({', '.join(BUTTONS)}, {STICKS[0]}-, {STICKS[0]}+, ...)"
                )

    def set(self, buttons, sticks) -> None:
        display, held = self.stage.display, {name for name, b in zip(BUTTONS, buttons) if b}
        held |= {
            name + sign
            for name, v in zip(STICKS, sticks)
            for sign, there in (("-", v < -self.PRESSED), ("+", v > self.PRESSED))
            if there
        }
        keys = {self.keys[name] for name in held if name in self.keys}
        if keys == self.down:
            return
        if keys - self.down and not self._focused(display):
            keys &= self.down  # only releases go out
        if not self.stage.server:  # a person's: their keyboard must not stay as we leave it
            self.stage.at_our_death(
                "keys",
                shlex.join([sys.executable, "-c", KEYS_UP, str(ROOT), display.name, *keys])
                if keys
                else "",
            )
        for key in sorted(self.down ^ keys):
            display.key(key, key in keys)
        self.down = keys

    def _focused(self, display) -> bool:
        """Whether the game has the keyboard; on its own X server it is given it."""
        if self.stage.server:
            windows = display.windows()
            return bool(windows) and display.focus(windows[0][0]) > 1
        fine = display.owner(display.focus()) in self.stage.clock.pids()
        return fine or say_once(
            f"sim: display {display.name}: the game's window has not the focus, so keys are not sent to it"
        )

    def close(self) -> None:
        """All keys up."""
        with contextlib.suppress(GameError, OSError):
            for key in self.down:
                self.stage.display.key(key, False)
        self.down = set()


class Readback(Device):
    """The frame as it lies in the game at the gate, before it is shown: from SDL's renderer, its
    window surface, or OpenGL.
    """

    ARGB = 0x16362004  # SDL_PIXELFORMAT_ARGB8888
    SIZE_AT, PIXELS_AT = SCRATCH_AT + 64, SCRATCH_AT + PAGE

    def __init__(self, stage: Stage):
        self.stage, self.last, self.seen = stage, np.zeros((FRAME, FRAME, 3), np.uint8), 0

    @property
    def frame(self) -> int:
        return self.stage.clock.frames

    @property
    def time(self) -> float:
        return self.stage.clock.time

    def score(self) -> dict:
        return {}

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3] RGB; the last frame once the game has ended."""
        if self.seen != self.frame and self.stage.clock.gated():
            name, arguments = self.stage.clock.presented
            if name not in self.READERS:
                raise GameError(
                    f"{name or 'sleeping'}: a frame that is shown in this way cannot be read back; use screen='window'"
                )
            self.last, self.seen = self.READERS[name](self, *arguments[:2]), self.frame
        return self.last

    def _find(self, name) -> int:
        address = self.stage.clock.gate.process.find(name)
        if not address:
            raise GameError(
                f"{name}: not in the game, so that its frames cannot be read back; use screen='window'"
            )
        return address

    def _calls(self, *calls) -> list[int]:
        """Call functions in the game, each (name, arguments...)."""
        clock = self.stage.clock
        return clock.call(
            clock.gate, *((self._find(name), *arguments) for name, *arguments in calls)
        )

    def _size(self) -> tuple[int, int]:
        return struct.unpack_from("<ii", self.stage.clock.scratch, self.SIZE_AT - SCRATCH_AT)

    def _pixels(self, width, height, code) -> np.ndarray:
        import cv2

        if not 0 < 4 * width * height <= SCRATCH - PAGE:
            raise GameError(f"a frame of {width} x {height} cannot be read back")
        at = self.PIXELS_AT - SCRATCH_AT
        pixels = np.frombuffer(
            self.stage.clock.scratch[at : at + 4 * width * height], np.uint8
        ).reshape(height, width, 4)
        return cv2.cvtColor(pixels, getattr(cv2, code))

    def _sdl3(self) -> bool:
        return bool(self.stage.clock.gate.process.find("SDL_GetRenderOutputSize"))

    def _renderer(self, renderer, _) -> np.ndarray:
        """SDL_RenderPresent(renderer)."""
        if self._sdl3():  # makes a surface
            (surface,) = self._calls(("SDL_RenderReadPixels", renderer, 0))
            picture = self._surface_at(surface)
            self._calls(("SDL_DestroySurface", surface))
            return picture
        size = "SDL_GetRendererOutputSize", renderer, self.SIZE_AT, self.SIZE_AT + 4
        if not self.seen:
            self._calls(size)
        width, height = self._size()
        self._calls(
            size, ("SDL_RenderReadPixels", renderer, 0, self.ARGB, self.PIXELS_AT, 4 * width)
        )
        if self._size() != (width, height):
            return self._renderer(renderer, 0)  # it was resized
        return self._pixels(width, height, "COLOR_BGRA2RGB")

    def _surface(self, window, _) -> np.ndarray:
        """SDL_UpdateWindowSurface(window)."""
        return self._surface_at(*self._calls(("SDL_GetWindowSurface", window)))

    def _surface_at(self, surface) -> np.ndarray:
        """Of a struct SDL_Surface with 4 bytes a pixel: int width, height, pitch; void *pixels."""
        import cv2

        read, (size, pixels) = (
            self.stage.clock.gate.process.read,
            (8, 24) if self._sdl3() else (16, 32),
        )
        (width, height, pitch), (at,) = (
            struct.unpack("<iii", read(surface + size, 12)),
            struct.unpack("<Q", read(surface + pixels, 8)),
        )
        rows = np.frombuffer(read(at, pitch * height), np.uint8).reshape(height, pitch)[
            :, : 4 * width
        ]
        return cv2.cvtColor(rows.reshape(height, width, 4), cv2.COLOR_BGRA2RGB)

    def _opengl(self, *size) -> np.ndarray:
        """size: calls that store width and height of the window."""
        FRAME_BINDING, FRAME_BUFFER, PACK_BINDING, PACK_BUFFER, RGBA, BYTE = (
            0x8CAA,
            0x8CA8,
            0x88ED,
            0x88EB,
            0x1908,
            0x1401,
        )
        bound = self.SIZE_AT + 8
        self._calls(
            *size,
            ("glGetIntegerv", FRAME_BINDING, bound),
            ("glGetIntegerv", PACK_BINDING, bound + 4),
        )
        width, height = self._size()
        frame, pack = struct.unpack_from("<II", self.stage.clock.scratch, bound - SCRATCH_AT)
        bind = lambda frame, pack: [
            ("glBindFramebuffer", FRAME_BUFFER, frame),
            ("glBindBuffer", PACK_BUFFER, pack),
        ]
        self._calls(
            *(bind(0, 0) if frame or pack else ()),
            ("glReadPixels", 0, 0, width, height, RGBA, BYTE, self.PIXELS_AT),
            *(bind(frame, pack) if frame or pack else ()),
        )
        return self._pixels(width, height, "COLOR_RGBA2RGB")[::-1]

    def _sdl_gl(self, window, _) -> np.ndarray:
        return self._opengl(
            (
                "SDL_GetWindowSizeInPixels" if self._sdl3() else "SDL_GL_GetDrawableSize",
                window,
                self.SIZE_AT,
                self.SIZE_AT + 4,
            )
        )

    def _glx(self, display, drawable) -> np.ndarray:
        GLX_WIDTH, GLX_HEIGHT = 0x801D, 0x801E
        return self._opengl(
            ("glXQueryDrawable", display, drawable, GLX_WIDTH, self.SIZE_AT),
            ("glXQueryDrawable", display, drawable, GLX_HEIGHT, self.SIZE_AT + 4),
        )

    def _egl(self, display, surface) -> np.ndarray:
        EGL_HEIGHT, EGL_WIDTH = 0x3056, 0x3057
        return self._opengl(
            ("eglQuerySurface", display, surface, EGL_WIDTH, self.SIZE_AT),
            ("eglQuerySurface", display, surface, EGL_HEIGHT, self.SIZE_AT + 4),
        )

    READERS = {
        "SDL_RenderPresent": _renderer,
        "SDL_UpdateWindowSurface": _surface,
        "SDL_UpdateWindowSurfaceRects": _surface,
        "SDL_GL_SwapWindow": _sdl_gl,
        "glXSwapBuffers": _glx,
        "eglSwapBuffers": _egl,
    }


class Window(Readback):
    """The game's largest window as it is on the screen, at any position."""

    def attach(self) -> None:
        self.stage.clock.shown = True

    def picture(self) -> np.ndarray:
        import cv2

        windows = self.stage.display.windows() if self.seen != self.frame else ()
        if windows:
            part = self._grab(*windows[0][1:])
            if part.size:
                self.last, self.seen = (
                    cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_BGRA2RGB),
                    self.frame,
                )
        return self.last

    def _grab(self, x, y, width, height) -> np.ndarray:
        """A part of the screen, BGRA."""
        shot = self.stage.display.pixels
        shot = self._shot() if shot is None else shot
        return shot[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]

    def _shot(self) -> np.ndarray:
        """The whole screen of a display that was given, BGRA."""
        try:
            import mss
        except ImportError:
            raise GameError(
                "capturing a window of a display that was given needs mss: pip install mss"
            ) from None
        with mss.MSS(display=self.stage.display.name) as screen:
            return np.array(screen.grab(screen.monitors[0]))


UINPUT_FIX = "sudo modprobe uinput; sudo chmod a+rw /dev/uinput"


class UInput(Device):
    """A gamepad of the machine itself, an Xbox 360 one by its numbers: any program on it may see it
    (/dev/uinput).
    """

    KEYS = {
        "SOUTH": 0x130,
        "EAST": 0x131,
        "WEST": 0x133,
        "NORTH": 0x134,
        "LEFT_SHOULDER": 0x136,
        "RIGHT_SHOULDER": 0x137,
        "BACK": 0x13A,
        "START": 0x13B,
        "LEFT_THUMB": 0x13D,
        "RIGHT_THUMB": 0x13E,
    }  # linux/input-event-codes.h
    AXES = {"LEFT_X": 0, "LEFT_Y": 1, "RIGHT_X": 3, "RIGHT_Y": 4}
    TRIGGERS = {"LEFT_TRIGGER": 2, "RIGHT_TRIGGER": 5}
    HAT = {"DPAD_LEFT": (16, -1), "DPAD_RIGHT": (16, 1), "DPAD_UP": (17, -1), "DPAD_DOWN": (17, 1)}
    # UI_SET_EVBIT, _KEYBIT, _ABSBIT
    SET_EVENTS, SET_KEY, SET_AXIS = 0x40045564, 0x40045565, 0x40045567
    # UI_DEV_SETUP, UI_ABS_SETUP, UI_DEV_CREATE
    SETUP, SETUP_AXIS, CREATE = 0x405C5503, 0x401C5504, 0x5501

    def __init__(self, stage: Stage):
        import fcntl

        try:
            self.device = io.FileIO(os.open("/dev/uinput", os.O_WRONLY | os.O_CLOEXEC), "w")
        except OSError as e:
            raise GameError(f"/dev/uinput: {e.strerror}; {UINPUT_FIX}") from None
        ranges = {
            **{a: (-32768, 32767) for a in self.AXES.values()},
            **{a: (0, 255) for a in self.TRIGGERS.values()},
            16: (-1, 1),
            17: (-1, 1),
        }
        for request, value in [
            (self.SET_EVENTS, 1),
            (self.SET_EVENTS, 3),
            *((self.SET_KEY, k) for k in self.KEYS.values()),
            *((self.SET_AXIS, a) for a in ranges),
        ]:
            fcntl.ioctl(self.device, request, value)
        for axis, (low, high) in ranges.items():  # struct uinput_abs_setup
            fcntl.ioctl(
                self.device, self.SETUP_AXIS, struct.pack("<Hxx6i", axis, 0, low, high, 0, 0, 0)
            )
        fcntl.ioctl(
            self.device,
            self.SETUP,
            struct.pack("<4H80sI", 3, 0x045E, 0x028E, 0x0114, b"Microsoft X-Box 360 pad", 0),
        )
        fcntl.ioctl(self.device, self.CREATE)

    def set(self, buttons, sticks) -> None:
        self.device.write(
            self.events(
                dict(zip(BUTTONS, map(bool, buttons))), dict(zip(STICKS, map(float, sticks)))
            )
        )

    def events(self, pressed: dict, sticks: dict) -> bytes:
        """struct input_event [], with the synchronization at their end."""
        axes = {self.AXES[name]: round(32767 * v) for name, v in sticks.items()} | {
            a: 255 * pressed[n] for n, a in self.TRIGGERS.items()
        }
        for name, (axis, way) in self.HAT.items():
            axes[axis] = axes.get(axis, 0) + way * pressed[name]
        keys = [(1, code, int(pressed[name])) for name, code in self.KEYS.items()]
        return b"".join(
            struct.pack("<16xHHi", *event)
            for event in [*keys, *((3, a, v) for a, v in axes.items()), (0, 0, 0)]
        )

    def close(self) -> None:
        self.device.close()  # the kernel unplugs it


# ---- Windows: clock, window, gamepad -------------------------------------------------------------
# The functions that read the time or sleep are replaced whole, in the game's memory, by
# WINDOWS_STUB: no DLL is injected, no instruction moved.  Its time runs at a given speed up to a
# limit and then stands, so that a step is exact, however late we are ourselves. Not in virtual
# time: rdtsc, the shared page read directly, NtQueryPerformanceCounter itself, QueryInterruptTime,
# GetSystemTime, waitable timers, timeouts of waits and of messages, timeSetEvent, sound.  A game
# that paces its frames by these runs on with steps of length 0.

WINDOWS_STUB = {  # bits: tests/asm/windows64.S, windows32.S
    64: bytes.fromhex(
        "4883ec38488d4c242831d2ff15f7efffff440fb605e7efffff41c1e0054c8d0ddcf3ffff4d01c131d2488b442428492b01480f48c249f7610848"
        "0facd02049034110493b4118490f4f41184883c438c3534883ec204889cbe8a3ffffff48f725d4efffff480facd020480305b0efffff488903b8"
        "010000004883c4205bc366904883ec28e82c00000048030598efffff4883c428c366662e0f1f8400000000004883ec28e80c00000048030580ef"
        "ffff4883c428c34883ec28e842ffffff31d2b91027000048f7f14883c428c30f1f00534883ec204889cbe823ffffff48030534efffff48890348"
        "83c4205bc30f1f0031d25356574883ec3089d748bbffffffffffffff7f83f9ff741989ce4869f610270000e8e8feffff488d1c3031c04885f674"
        "0748c7c078ecffff488944242889f9488d542428ff15d4eeffff85ff74073dc0000000740ce8b4feffff4839d87cd231c04883c4305f5e5bc3"
    ),
    32: bytes.fromhex(
        "5783ec0889e06a0050ff9308f0ffff0fb6bb00f0ffffc1e7058dbc1f00f4ffff585a2b071b5704790431c031d28d4f08e8180000000347101357"
        "143947188b4f1c19d17d068b47188b571c5fc356575589c689d7f72189d589f8f761045089f0f7610401c511142489f8f72101e8131424595d5f"
        "5ec38b1c2481e300f0ffffc353e8f0ffffffe875ffffff8d8b38f0ffffe8b7ffffff038320f0ffff139324f0ffff8b4c24088901895104b80100"
        "00005bc204008db426000000008d7426009053e8b0ffffffe828000000038328f0ffff13932cf0ffff5bc38db4260000000053e890ffffffe808"
        "000000038330f0ffff5bc3e808ffffff56be1027000089c189d031d2f7f691f7f689ca5ec38d760053e860ffffffe8e5feffff038318f0ffff13"
        "931cf0ffff8b4c240889018951045bc204008db426000000008d742600906a00ff742408e805000000c20400669053565783ec08e81bffffff83"
        "ceffbfffffff7f8b44241883f8ff741db910270000f7e189c689d7e884feffff9687d789c109d1740901c611d7b978ecffff89c8998904248954"
        "240489e050ff742420ff9310f0ffff837c241c0074073dc0000000740de848feffff39f019fa7ccb31c083c4085f5e5bc20800"
    ),
}
WINDOWS_ENTRY = {
    64: {
        "QueryPerformanceCounter": 0x50,
        "GetTickCount": 0x80,
        "timeGetTime": 0xA0,
        "GetSystemTimeAsFileTime": 0xD0,
        "Sleep": 0xF0,
        "SleepEx": 0xF2,
    },
    32: {
        "QueryPerformanceCounter": 0x80,
        "GetTickCount": 0xC0,
        "timeGetTime": 0xE0,
        "GetSystemTimeAsFileTime": 0x110,
        "Sleep": 0x140,
        "SleepEx": 0x150,
    },
}
REPLACED = {
    **{name: name for name in WINDOWS_ENTRY[64]},
    "RtlQueryPerformanceCounter": "QueryPerformanceCounter",
    "GetTickCount64": "GetTickCount",
    "GetSystemTimePreciseAsFileTime": "GetSystemTimeAsFileTime",
}
SYSTEM_DLLS = ("ntdll.dll", "kernelbase.dll", "kernel32.dll", "winmmbase.dll", "winmm.dll")
MOMENTS = 10_000_000  # virtual time counts 100 ns
# in the data page: what was replaced, and the banks of stub.S
PATCHES_AT, BANKS_AT, BANKS = 0x80, 0x400, 96
ENDLESS = 2**62  # a limit that is never reached
JUMP = {64: 14, 32: 5}  # bytes that replace the beginning of a function
HANDLES = {
    "OpenProcess",
    "OpenThread",
    "CreateToolhelp32Snapshot",
    "VirtualAllocEx",
    "CreateRemoteThread",
    "CreateJobObjectW",
    "GetForegroundWindow",
}
ACCESS_DENIED, ELEVATION_REQUIRED = 5, 740  # Windows error codes
ALL_ACCESS = 0x1FFFFF  # to a process or thread: PROCESS_ALL_ACCESS, THREAD_ALL_ACCESS


@functools.cache
def windows_function(name: str):
    for library in ("kernel32", "ntdll", "user32", "winmm", "shell32"):
        if function := getattr(ctypes.WinDLL(library, use_last_error=True), name, None):
            function.restype = ctypes.c_void_p if name in HANDLES else ctypes.c_int
            return function


def windows(name: str, *arguments) -> int:
    """Call a function of Windows: whole numbers go as 64 bits."""
    return (
        windows_function(name)(
            *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments)
        )
        or 0
    )


def must(name: str, *arguments) -> int:
    """As windows(); OSError if the result is 0."""
    result = windows(name, *arguments)
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def snapshot(kind: int, form: str) -> list[tuple]:
    """Rows of a toolhelp table: 2 processes, 4 threads."""
    which = {2: "Process32%sW", 4: "Thread32%s"}[kind]
    table, row, rows = (
        windows("CreateToolhelp32Snapshot", kind, 0),
        ctypes.create_string_buffer(struct.calcsize(form)),
        [],
    )
    struct.pack_into("<I", row, 0, len(row))
    more = windows(which % "First", table, row)
    while more:
        rows.append(struct.unpack(form, row.raw))
        more = windows(which % "Next", table, row)
    windows("CloseHandle", table)
    return rows


def processes() -> dict:
    """pid -> (pid of the parent, name of the executable)"""
    rows = snapshot(2, "<8xI20xI8x520s4x")  # PROCESSENTRY32W
    return {pid: (parent, name.decode("utf-16-le").split("\0")[0]) for pid, parent, name in rows}


def family(pid: int) -> set[int]:
    """A process and its descendants."""
    parents, found = {child: parent for child, (parent, _) in processes().items()}, {pid}
    while more := {
        child for child, parent in parents.items() if parent in found and child not in found
    }:
        found |= more
    return found


class WindowsProcess:
    """Memory and threads of a game, 64 or 32 bits."""

    def __init__(self, pid: int):
        self.pid, self.handle = pid, must("OpenProcess", ALL_ACCESS, 0, pid)
        (machine,) = struct.unpack("<H", self.read(self.header(self.image()) + 4, 2))
        self.bits = {0x8664: 64, 0x14C: 32}.get(machine)
        if not self.bits:
            raise GameError(
                f"process {pid} is a program for machine {machine:#x}; there is x64 and x86"
            )

    def read(self, address: int, size: int) -> bytes:
        data = ctypes.create_string_buffer(size)
        must("ReadProcessMemory", self.handle, address, data, size, None)
        return data.raw

    def write(self, address: int, data: bytes) -> None:
        must("WriteProcessMemory", self.handle, address, data, len(data), None)

    def write_code(self, address: int, data: bytes) -> None:
        READ_WRITE_EXECUTE, before = 0x40, ctypes.c_ulong()
        must(
            "VirtualProtectEx",
            self.handle,
            address,
            len(data),
            READ_WRITE_EXECUTE,
            ctypes.byref(before),
        )
        self.write(address, data)
        must(
            "VirtualProtectEx", self.handle, address, len(data), before.value, ctypes.byref(before)
        )
        windows("FlushInstructionCache", self.handle, address, len(data))

    def allocate(self, size: int) -> int:
        COMMIT_RESERVE, READ_WRITE = 0x3000, 4
        return must("VirtualAllocEx", self.handle, 0, size, COMMIT_RESERVE, READ_WRITE)

    def image(self) -> int:
        """Where the program itself is loaded: of its process environment block."""
        facts = (ctypes.c_void_p * 6)()
        if windows("NtQueryInformationProcess", self.handle, 0, facts, ctypes.sizeof(facts), None):
            raise GameError(f"process {self.pid} cannot be looked at")
        return struct.unpack("<Q", self.read(facts[1] + 0x10, 8))[0]

    def header(self, base: int) -> int:
        """Address of the PE header of an image."""
        return base + struct.unpack("<I", self.read(base + 0x3C, 4))[0]

    def modules(self) -> dict:
        """Of its own kind (a 32-bit process has some of 64 bits too): name in small letters ->
        (address, size).
        """
        ALL, array, needed = 3, (ctypes.c_void_p * 4096)(), ctypes.c_ulong()
        must(
            "K32EnumProcessModulesEx",
            self.handle,
            array,
            ctypes.sizeof(array),
            ctypes.byref(needed),
            ALL,
        )
        found, name = {}, ctypes.create_unicode_buffer(260)
        for base in array[: needed.value // 8]:
            with contextlib.suppress(OSError):  # unloaded meanwhile
                header = self.header(base)
                machine, size = struct.unpack("<4xH74xI", self.read(header, 84))
                must("K32GetModuleBaseNameW", self.handle, base, name, len(name))
                if machine == {64: 0x8664, 32: 0x14C}[self.bits]:
                    found.setdefault(name.value.lower(), (base, size))
        return found

    def exports(self, base: int) -> dict:
        """Of a module: name -> address, or "dll.name" where it is another one's."""
        at, size = struct.unpack(
            "<II", self.read(self.header(base) + (0x88 if self.bits == 64 else 0x78), 8)
        )
        table = self.read(base + at, size)
        text = lambda rva: table[rva - at : table.index(b"\0", rva - at)].decode("latin-1")
        count, functions, names, ordinals = struct.unpack_from("<4xIIII", table, 20)
        found = {}
        for name, ordinal in zip(
            struct.unpack_from(f"<{count}I", table, names - at),
            struct.unpack_from(f"<{count}H", table, ordinals - at),
        ):
            (rva,) = struct.unpack_from("<I", table, functions - at + 4 * ordinal)
            found[text(name)] = text(rva) if at <= rva < at + size else base + rva
        return found

    def starts(self, base: int) -> np.ndarray:
        """Where functions begin, as far as a module says: its table of exceptions (x64 only)."""
        at, size = (
            struct.unpack("<II", self.read(self.header(base) + 0xA0, 8))
            if self.bits == 64
            else (0, 0)
        )
        return (
            base
            + np.frombuffer(self.read(base + at, size), "<u4").reshape(-1, 3)[:, 0].astype(np.int64)
            if size
            else np.zeros(0, np.int64)
        )

    def threads(self):
        """Handles of its threads; to be used at once."""
        for tid, owner in snapshot(4, "<8xII12x"):  # THREADENTRY32
            if owner == self.pid and (handle := windows("OpenThread", ALL_ACCESS, 0, tid)):
                yield handle
                windows("CloseHandle", handle)

    def place(self, thread: int) -> tuple[int, int]:
        """A suspended thread's instruction and stack pointer."""
        name, size, flags, control, form, pointers = (
            ("GetThreadContext", 1232, 0x30, 0x100001, "<Q", (0xF8, 0x98))
            if self.bits == 64
            else ("Wow64GetThreadContext", 716, 0, 0x10001, "<I", (0xB8, 0xC4))
        )
        buffer = ctypes.create_string_buffer(size + 16)
        # struct CONTEXT is aligned
        context = (ctypes.c_char * size).from_buffer(buffer, -ctypes.addressof(buffer) % 16)
        struct.pack_into("<I", context, flags, control)
        must(name, thread, context)
        return tuple(struct.unpack_from(form, context, at)[0] for at in pointers)

    def suspend(self) -> list[tuple[int, int]]:
        """Let it stand still; -> where each thread does.  Asking for that waits for it: until then
        it may run on for a moment.
        """
        windows("NtSuspendProcess", self.handle)
        places, end = [], time.perf_counter() + 5
        for thread in self.threads():
            while windows("WaitForSingleObject", thread, 0):  # until it has ended
                try:
                    places.append(self.place(thread))
                    break
                except OSError:  # on a busy machine it may take its time
                    if time.perf_counter() > end:
                        self.resume()
                        raise
        return places

    def resume(self) -> None:
        windows("NtResumeProcess", self.handle)

    def call(self, function: int, argument: int) -> None:
        """In a thread of its own; returns when it has."""
        thread = must("CreateRemoteThread", self.handle, None, 0, function, argument, 0, None)
        ended = windows("WaitForSingleObject", thread, 10000) == 0
        windows("CloseHandle", thread)
        if not ended:
            raise GameError(f"process {self.pid} runs no thread that we start in it")

    def close(self) -> None:
        windows("CloseHandle", self.handle)


class WindowsClock(StopClock):
    """As Clock, for a Windows program: frozen at birth; only `step`, `step_frame` and `run` let
    time pass, in real time (at `pace`).

    There is no frame gate: a frame is 1 / fps of game time.  Its children have their own time.  The
    program dies with us.
    """

    def __init__(
        self,
        argv,
        env: dict | None = None,
        cwd=None,
        stdout=None,
        stderr=None,
        timeout: float = 60.0,
        fps: float = 60.0,
        sleep: bool = True,
        pace: float = 1.0,
    ):
        """sleep: Sleep and SleepEx in game time too; else only the clocks (a frozen game goes on,
        with steps of length 0) pace: game time per real time of step and step_frame.  The others as
        Clock's."""
        self._begin(timeout, fps, pace)
        find_program(argv[0], env, cwd)
        try:
            self._launch([str(part) for part in argv], env, cwd, stdout, stderr, sleep)
        except OSError as e:
            self.close()
            raise GameError(f"{argv[0]}: " + denied(e)) from None
        except BaseException:
            self.close()
            raise

    def _begin(self, timeout=60.0, fps=60.0, pace=1.0):
        if fault := platform_fault():
            raise GameError(fault)
        self.timeout, self.fps, self.pace = timeout, fps, pace
        self.frames, self.goal, self.bank, self.slot = 0, 0.0, (0, 0, 0, 0), 0
        self.popen = self.process = self.job = self.guard = None
        frequency = ctypes.c_int64()
        windows("QueryPerformanceFrequency", ctypes.byref(frequency))
        self.frequency = frequency.value

    # -- launch: suspended, then spinning at its entry point until the loader is through

    def _launch(self, argv, env, cwd, stdout, stderr, sleep):
        SUSPENDED, KILL_ON_CLOSE, LIMITS = 4, 0x2000, 9
        self.popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            creationflags=SUSPENDED,
        )
        self.pid, self.job = self.popen.pid, must("CreateJobObjectW", None, None)
        must(
            "SetInformationJobObject",
            self.job,
            LIMITS,
            struct.pack("<16xI124x", KILL_ON_CLOSE),
            144,
        )
        must("AssignProcessToJobObject", self.job, int(self.popen._handle))
        self.process = process = WindowsProcess(self.pid)
        entry = (
            process.image()
            + struct.unpack("<I", process.read(process.header(process.image()) + 40, 4))[0]
        )
        kept, end = process.read(entry, 2), time.perf_counter() + self.timeout
        process.write_code(entry, b"\xeb\xfe")  # jmp to itself
        process.resume()
        while entry not in self._pointers():
            if not self.alive or time.perf_counter() > end:
                raise GameError(
                    f"{argv[0]} ended (status {self.returncode}), or hangs, before its first instruction: a DLL that it needs may be missing"
                )
            time.sleep(0.01)  # each look suspends it, in the midst of its loader
        self._install(sleep)
        process.suspend()
        process.write_code(entry, kept)
        process.resume()

    def _pointers(self) -> list[int]:
        """Where its threads are."""
        places = self.process.suspend()
        self.process.resume()
        return [pointer for pointer, _ in places]

    # -- attach

    @classmethod
    def attach(
        cls,
        target: int | str,
        timeout: float = 60.0,
        fps: float = 60.0,
        sleep: bool = True,
        pace: float = 1.0,
    ) -> WindowsClock:
        """A Clock of a program that runs already, which stands still from now on: by pid, name of
        its executable, or title of its window.

        After detach(), close() or our own end, however it comes, it runs on in real time."""
        self = cls.__new__(cls)
        self._begin(timeout, fps, pace)
        self.pid, NO_WINDOW = find_game(target), 0x08000000
        try:
            self.process = WindowsProcess(self.pid)
            self.guard = subprocess.Popen(
                [base_python(), "-I", "-S", "-c", WINDOWS_GUARD, str(self.pid)],
                stdin=subprocess.PIPE,
                text=True,
                creationflags=NO_WINDOW,
            )  # nor our console's Ctrl-C
            self._install(sleep)
        except OSError as e:
            self.close()
            raise GameError(f"attach: {target}: " + denied(e)) from None
        except BaseException:
            self.close()
            raise
        return self

    # -- the replacement of functions

    def _install(self, sleep):
        """Freeze the time: allocate stub and data, and let the functions jump there."""
        process = self.process
        modules = process.modules()
        if "winmm.dll" not in modules:  # the game may load it later, and ask it for the time
            self._load("winmm.dll")
            modules = process.modules()
        exports = {
            name: process.exports(modules[name][0]) for name in SYSTEM_DLLS if name in modules
        }
        # sleeps are as short as asked for, ms
        process.call(exports["winmm.dll"]["timeBeginPeriod"], 1)
        targets = {}
        for dll, functions in exports.items():
            for name in (
                REPLACED.keys() & functions.keys()
                if sleep
                else REPLACED.keys() & functions.keys() - {"Sleep", "SleepEx"}
            ):
                if address := self._follow(f"{dll} {name}", functions[name], modules, exports):
                    targets.setdefault(address, (f"{dll} {name}", REPLACED[name]))
        if self.bank[0]:  # _follow found a stub of ours
            return
        self._check_room(targets, modules, exports)
        ntdll = exports["ntdll.dll"]
        self.page = process.allocate(2 * PAGE)
        process.write_code(self.page + PAGE, WINDOWS_STUB[process.bits])
        READ_EXECUTE, before = 0x20, ctypes.c_ulong()
        must(
            "VirtualProtectEx",
            process.handle,
            self.page + PAGE,
            PAGE,
            READ_EXECUTE,
            ctypes.byref(before),
        )
        jumps = {
            address: self._jump(address, self.page + PAGE + WINDOWS_ENTRY[process.bits][entry])
            for address, (_, entry) in targets.items()
        }
        table = b"".join(
            struct.pack("<Q16s", address, process.read(address, len(jump)))
            for address, jump in jumps.items()
        )
        process.write(
            self.page + PATCHES_AT, struct.pack("<II", len(jumps), JUMP[process.bits]) + table
        )
        self._suspend_outside(targets)
        try:
            process.write(
                self.page + 8,
                struct.pack(
                    "<7Q",
                    ntdll["NtQueryPerformanceCounter"],
                    ntdll["NtDelayExecution"],
                    *self._clocks("GetSystemTimePreciseAsFileTime"),
                    (self.frequency << 32) // MOMENTS,
                ),
            )
            self._set(0.0, 0, 0)
            self._tell_guard()
            for address, jump in jumps.items():
                process.write_code(address, jump)
        except BaseException:
            self._undo()
            raise
        finally:
            process.resume()

    def _load(self, dll):
        process = self.process
        text = process.allocate(PAGE)
        process.write(text, dll.encode("utf-16-le"))
        process.call(process.exports(process.modules()["kernel32.dll"][0])["LoadLibraryW"], text)

    def _jump(self, address, target) -> bytes:
        if self.process.bits == 64:
            return b"\xff\x25\0\0\0\0" + struct.pack("<Q", target)  # jmp [rip + 0]
        return b"\xe9" + struct.pack("<I", target - address - 5 & 0xFFFFFFFF)

    def _follow(self, what, where, modules, exports) -> int | None:
        """The code behind an export: past forwarders and jumps, as long as they lead to the
        system's own DLLs; None where that DLL is not loaded.
        """
        process = self.process
        for _ in range(8):
            if isinstance(where, str):  # NTDLL.RtlQueryPerformanceCounter
                dll, _, name = where.rpartition(".")
                known = (
                    [exports.get(dll.lower() + ".dll", {})]
                    if not dll.lower().startswith(("api-", "ext-"))
                    else exports.values()
                )
                where = next(
                    (
                        functions[name]
                        for functions in known
                        if isinstance(functions.get(name), int)
                    ),
                    None,
                )
                if where is None:
                    return None
            code = process.read(where, 32)
            skip = next(
                (
                    len(p)
                    for p in HOT_PATCH[process.bits]
                    if code.startswith(p)
                    and code[len(p) : len(p) + 1] in (b"\xff", b"\x48", b"\xe9")
                ),
                0,
            )
            at, code = where + skip, code[skip:]
            if code[:3] == b"\x48\xff\x25":
                at, code = at + 1, code[1:]
            if code[:2] == b"\xff\x25":
                (place,) = struct.unpack_from("<i" if process.bits == 64 else "<I", code, 2)
                form = "<Q" if process.bits == 64 else "<I"
                (to,) = struct.unpack(
                    form,
                    process.read(
                        place + (at + 6 if process.bits == 64 else 0), struct.calcsize(form)
                    ),
                )
            elif code[:1] == b"\xe9":
                to = at + 5 + struct.unpack_from("<i", code, 1)[0] & (
                    ONES if process.bits == 64 else 0xFFFFFFFF
                )
            elif code[:1] == b"\xeb":
                to = at + 2 + struct.unpack_from("<b", code, 1)[0]
            else:
                return where
            owner = next(
                (dll for dll, (base, size) in modules.items() if base <= to < base + size), ""
            )
            if owner not in SYSTEM_DLLS:
                if not owner and self._adopt(to & -PAGE):
                    return where
                raise GameError(
                    f"{what} has been replaced already (it jumps to {owner or 'memory of no DLL'}): close what has done that, an overlay, "
                    "a recorder or another speed hack, and start the game anew"
                )
            where = to
        raise GameError(f"{what}: jumps without end")

    def _adopt(self, stub) -> bool:
        """Whether that is a stub of ours, left by an earlier attachment; if so its time is stopped
        and goes on from there.
        """
        process = self.process
        if self.bank[0]:
            return stub == self.page + PAGE
        with contextlib.suppress(OSError):
            if process.read(stub, len(WINDOWS_STUB[process.bits])) == WINDOWS_STUB[process.bits]:
                self.page = stub - PAGE
                self.slot = process.read(self.page, 1)[0]
                self.bank = struct.unpack(
                    "<QQqq", process.read(self.page + BANKS_AT + 32 * self.slot, 32)
                )
                self._tell_guard()
                self.pause()
                return True
        return False

    def _tell_guard(self):
        if self.guard:
            self.guard.stdin.write(f"{self.page}\n")
            self.guard.stdin.flush()

    def _check_room(self, targets, modules, exports):
        """Each replaced function must be long enough."""
        begins = [
            address
            for functions in exports.values()
            for address in functions.values()
            if isinstance(address, int)
        ]
        begins = np.unique(
            np.concatenate(
                [begins, [ENDLESS], *(self.process.starts(modules[dll][0]) for dll in exports)]
            )
        )
        for address, (what, _) in targets.items():
            room = begins[np.searchsorted(begins, address, "right")] - address
            if room < JUMP[self.process.bits]:
                raise GameError(
                    f"{what} is only {room} bytes long in this version of Windows, and {JUMP[self.process.bits]} are needed: please report it"
                )

    def _suspend_outside(self, targets):
        """Suspend the game when no thread is within the bytes that change, or will return into
        them.
        """
        process, size = self.process, JUMP[self.process.bits]
        inside = np.array(list(targets))
        end = time.perf_counter() + 2
        while True:
            found = ""
            for pointer, stack in process.suspend():
                top = process.read(stack & -8, -stack % PAGE or PAGE)  # up to the page's end
                words = np.frombuffer(
                    top[: len(top) & -8], "<u8" if process.bits == 64 else "<u4"
                ).astype(np.int64)
                within = (words[:, None] > inside) & (words[:, None] < inside + size)
                hit = next(
                    (
                        what
                        for address, (what, _) in targets.items()
                        if address < pointer < address + size
                    ),
                    "",
                )
                found = (
                    found
                    or hit
                    or (targets[int(inside[within.any(0)][0])][0] if within.any() else "")
                )
            if not found:
                return
            process.resume()
            if time.perf_counter() > end:
                raise GameError(
                    f"process {self.pid}: a thread stays within {found}, which was to be replaced; nothing was changed, try again"
                )
            time.sleep(0.003)

    def _undo(self):
        """Put the game's own functions back; it is suspended."""
        count, size = struct.unpack("<II", self.process.read(self.page + PATCHES_AT, 8))
        for address, code in struct.iter_unpack(
            "<Q16s", self.process.read(self.page + PATCHES_AT + 8, 24 * count)
        ):
            self.process.write_code(address, code[:size])

    # -- time

    @staticmethod
    def _counter() -> int:
        value = ctypes.c_int64()
        windows("NtQueryPerformanceCounter", ctypes.byref(value), None)
        return value.value

    def _clocks(self, date: str) -> tuple[int, int, int, int]:
        """What the real clocks show: that function's date, performance counter, tick count,
        multimedia time.
        """
        moment, ticks = ctypes.c_uint64(), ctypes.WinDLL("kernel32").GetTickCount64
        ticks.restype = ctypes.c_uint64
        windows(date, ctypes.byref(moment))
        return moment.value, self._counter(), ticks(), windows("timeGetTime") & 0xFFFFFFFF

    def _lead(self) -> int:
        """By how much the game's clocks are ahead of the real ones, 100 ns: the furthest, as
        Windows' own ticks lag by up to 16 ms.
        """
        date, counter, ticks, mmticks, scale = struct.unpack(
            "<5Q", self.process.read(self.page + 0x18, 40)
        )
        now, real = self.now, self._clocks("GetSystemTimeAsFileTime")
        late = (mmticks + now // 10000 - real[3] + 2**31) % 2**32 - 2**31  # it has 32 bits
        return max(
            date + now - real[0],
            (counter + (now * scale >> 32) - real[1]) * MOMENTS // self.frequency,
            (ticks + now // 10000 - real[2]) * 10000,
            late * 10000,
        )

    def _set(self, speed, moment, limit):
        """From now on time goes from `moment` to `limit` at that speed: a bank of its own, then its
        number, one byte.
        """
        self.slot = (self.slot + 1) % BANKS
        self.bank = self._counter(), int(speed * MOMENTS / self.frequency * 2**32), moment, limit
        self.process.write(self.page + BANKS_AT + 32 * self.slot, struct.pack("<QQqq", *self.bank))
        self.process.write(self.page, bytes([self.slot]))

    @property
    def now(self) -> int:
        """Virtual time since launch or attachment, 100 ns; as the stub counts."""
        real, speed, moment, limit = self.bank
        return min(limit, moment + (max(0, self._counter() - real) * speed >> 32))

    @property
    def time(self) -> float:
        """Virtual seconds since launch, or since we attached."""
        return self.now / MOMENTS

    @property
    def alive(self) -> bool:
        TIMEOUT = 258
        return (
            bool(self.process) and windows("WaitForSingleObject", self.process.handle, 0) == TIMEOUT
        )

    @property
    def returncode(self) -> int | None:
        code = ctypes.c_ulong()
        if (
            self.process
            and not self.alive
            and windows("GetExitCodeProcess", self.process.handle, ctypes.byref(code))
        ):
            return code.value
        return self.popen.poll() if self.popen else None

    def pids(self) -> set[int]:
        """Process ids of the game and its children."""
        return family(self.pid)

    def pause(self) -> None:
        """Stop a time that runs (a run that was interrupted); else time stands anyway."""
        if self.now < self.bank[3]:
            self.process.suspend()  # else somebody could read a later time meanwhile
            moment = self.now
            self._set(0.0, moment, moment)
            self.process.resume()
            self.goal = float(moment)

    def step(self, seconds: float) -> None:
        """Advance by exactly `seconds`, at `pace`."""
        self._advance(seconds, self.pace)

    def run(self, seconds: float, speed: float = 1.0) -> None:
        """Let time pass for `seconds` of real time, at `speed` times its pace; then it stands."""
        if speed == math.inf:
            raise GameError(
                "run: a Windows game computes in real time; give a speed that it can keep up with"
            )
        self._advance(seconds * speed, speed) if speed > 0 else time.sleep(seconds)

    def _advance(self, seconds, speed):
        if self.now < self.bank[3]:
            self.pause()
        # not rounded: 60 steps of 1/60 s are a second
        goal = self.goal + max(0.0, seconds) * MOMENTS
        if not self.alive:
            return
        self.goal = goal
        self._set(speed, self.bank[3], round(goal))
        while (left := self.bank[3] - self.now) > 0 and self.alive:
            time.sleep(min(0.05, left / speed / MOMENTS))

    def close(self) -> None:
        """End the program and all its children; an attached one is let go."""
        if self.popen is None:
            return self.detach()
        if self.job:
            windows("TerminateJobObject", self.job, 1)
            windows("CloseHandle", self.job)
        self.popen.kill()
        self.popen.wait()
        self._release()

    def detach(self) -> None:
        """Let an attached program run on in real time.  One that is ahead of it keeps its lead (and
        the stub), as time never goes back.
        """
        if self.alive and self.bank[0]:
            self.pause()
            while 0 < (lead := self._lead()) < MOMENTS:
                time.sleep(0.005)
            self.process.suspend()
            self._set(1.0, self.now, ENDLESS)  # for who sleeps in the stub
            if lead <= 0:
                self._undo()
            self.process.resume()
        if self.guard:
            self.guard.communicate("0\n")  # nothing is left to be done
        self._release()

    def _release(self):
        if self.process:
            self.process.close()
        self.process = self.job = self.guard = None
        self.bank = 0, 0, self.bank[3], self.bank[3]  # the time stays readable


# fillers before a jump
HOT_PATCH = {64: (b"\x48\x8d\xa4\x24\0\0\0\0",), 32: (b"\x8b\xff\x55\x8b\xec\x5d", b"\x8b\xff")}
WINDOWS_GUARD = f"""
import ctypes, struct, sys, time
page, pid = 0, int(sys.argv[1])
for line in sys.stdin:
    page = int(line)
    if not page:
        sys.exit()
k, P = ctypes.WinDLL("kernel32"), ctypes.c_void_p
k.OpenProcess.restype = P
h, old = P(k.OpenProcess(0x1FFFFF, 0, pid)), ctypes.c_ulong()
def read(address, size):
    data = ctypes.create_string_buffer(size)
    k.ReadProcessMemory(h, P(address), data, P(size), None)
    return data.raw
def write(address, data):
    k.VirtualProtectEx(h, P(address), P(len(data)), 0x40, ctypes.byref(old))
    k.WriteProcessMemory(h, P(address), data, P(len(data)), None)
    k.VirtualProtectEx(h, P(address), P(len(data)), old.value, ctypes.byref(old))
nt = ctypes.WinDLL("ntdll")
if page:
    nt.NtSuspendProcess(h)
    time.sleep(0.02)
    bank = page + {BANKS_AT} + 32 * read(page, 1)[0]
    real, speed, moment, limit = struct.unpack("<QQqq", read(bank, 32))
    *begun, scale = struct.unpack("<5Q", read(page + 0x18, 40))
    counter, date = ctypes.c_int64(), ctypes.c_uint64()
    nt.NtQueryPerformanceCounter(ctypes.byref(counter), None)
    k.GetSystemTimeAsFileTime(ctypes.byref(date))
    k.GetTickCount64.restype = ctypes.c_uint64
    now = min(limit, moment + (max(0, counter.value - real) * speed >> 32))
    passed = date.value, counter.value, k.GetTickCount64(), ctypes.WinDLL("winmm").timeGetTime() & 0xFFFFFFFF
    ahead = any(then + add > at for then, add, at in zip(begun, (now, now * scale >> 32, now // 10000, now // 10000), passed))
    write(page + {BANKS_AT} + 32 * {BANKS - 1}, struct.pack("<QQqq", counter.value, (1 << 64) // scale, now, 1 << 62))
    write(page, bytes([{BANKS - 1}]))
    count, size = struct.unpack("<II", read(page + {PATCHES_AT}, 8))
    for address, code in () if ahead else struct.iter_unpack("<Q16s", read(page + {PATCHES_AT + 8}, 24 * count)):
        write(address, code[:size])
    nt.NtResumeProcess(h)
nt.NtResumeProcess(h)
"""  # as GUARD: lets an attached game run on when we end in any way


def base_python() -> str:
    """The interpreter itself: a virtual environment's python.exe only starts it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def denied(e: OSError) -> str:
    """What is wrong when Windows refuses, and the fix."""
    code = getattr(e, "winerror", None)
    if code == ELEVATION_REQUIRED:
        return "it runs as administrator; start this from an administrator's prompt too"
    if code == ACCESS_DENIED:
        return (
            "access denied: if it runs as administrator, start this from an administrator's prompt too; a game with anti-cheat refuses everybody, "
            "and is left alone: take one without, or its offline mode"
        )
    return f"{e.strerror or e}"


def find_game(target: int | str) -> int:
    """pid of a running program: by pid, name of its executable, or part of its window's title; of
    several the one with the largest window.
    """
    import difflib

    running, shown = processes(), desktop_windows()
    names, title = {pid: name for pid, (_, name) in running.items()}, str(target).casefold()
    if title.isdigit():
        if int(target) in names:
            return int(target)
        raise GameError(f"attach: there is no process {target}")
    found, ours, parent = (
        [pid for pid, name in names.items() if name.casefold() in (title, title + ".exe")],
        set(),
        os.getpid(),
    )
    # the console in which this was typed may have such a title
    while parent in running and parent not in ours:
        ours.add(parent)
        parent = running[parent][0]
    found = found or [
        pid for _, pid, text, *_ in shown if title in text.casefold() and pid not in ours
    ]
    if found:
        return next((pid for _, pid, *_ in shown if pid in found), found[0])
    known = sorted({*names.values(), *(text for _, _, text, *_ in shown if text)})
    close = difflib.get_close_matches(title, [name.casefold() for name in known], 3, 0.5)
    close = [name for name in known if name.casefold() in close] or sorted(
        {names.get(pid, "") for _, pid, *_ in shown} - {""}
    )
    raise GameError(
        f"attach: no running program and no window is called {target!r}; "
        + (f"there is {', '.join(close)}" if close else "start the game first")
    )


@functools.cache
def see_true_pixels() -> None:
    """Else Windows gives scaled coordinates to programs on a screen of high density."""
    PER_MONITOR_V2 = -4
    with contextlib.suppress(AttributeError):  # before Windows 10
        ctypes.WinDLL("user32").SetProcessDpiAwarenessContext(ctypes.c_void_p(PER_MONITOR_V2))


def desktop_windows() -> list[tuple]:
    """(window, pid, title, x, y, width, height) of the visible windows' client areas in pixels of
    the desktop, largest first.
    """
    see_true_pixels()
    found = []

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def see(window, _):
        pid, area, corner, text = (
            ctypes.c_ulong(),
            (ctypes.c_long * 4)(),
            (ctypes.c_long * 2)(),
            ctypes.create_unicode_buffer(200),
        )
        if windows("IsWindowVisible", window) and not windows("IsIconic", window):
            windows("GetWindowThreadProcessId", window, ctypes.byref(pid))
            (
                windows("GetClientRect", window, area),
                windows("ClientToScreen", window, corner),
                windows("GetWindowTextW", window, text, len(text)),
            )
            if area[2] * area[3]:
                found.append((window, pid.value, text.value, *corner, *area[2:]))
        return 1

    windows("EnumWindows", see, 0)
    return sorted(found, key=lambda w: -w[5] * w[6])


class Desktop:
    """As Display: the windows of the game on the desktop of this user, and its keyboard."""

    name, pixels = "of this machine", None
    KEYS = {
        "space": 0x20,
        "BackSpace": 0x08,
        "Tab": 0x09,
        "Return": 0x0D,
        "Escape": 0x1B,
        "Prior": 0x21,
        "Next": 0x22,
        "End": 0x23,
        "Home": 0x24,
        "Left": 0x25,
        "Up": 0x26,
        "Right": 0x27,
        "Down": 0x28,
        "Insert": 0x2D,
        "Delete": 0x2E,
        "Shift_L": 0xA0,
        "Control_L": 0xA2,
        "Alt_L": 0xA4,
        **{f"F{i}": 0x6F + i for i in range(1, 13)},
    }  # virtual key codes

    def __init__(self, stage: Stage):
        self.stage = stage

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the game's visible windows, largest first."""
        pids = self.stage.clock.pids()
        return [(window, *place) for window, pid, _, *place in desktop_windows() if pid in pids]

    def focus(self, window: int | None = None) -> int:
        """The window in the foreground; with a number, first ask for that one."""
        if window:
            windows("SetForegroundWindow", window)
        return windows("GetForegroundWindow")

    def owner(self, window: int) -> int:
        pid = ctypes.c_ulong()
        windows("GetWindowThreadProcessId", window, ctypes.byref(pid))
        return pid.value

    def key(self, name: str, down: bool) -> None:
        """Press or release a key by its X name: by its place on the keyboard, as games ask for."""
        KEYBOARD, EXTENDED, UP, SCANCODE, TO_SCANCODE = 1, 1, 2, 8, 0
        code = self.KEYS.get(name) or windows("VkKeyScanW", ord(name)) & 0xFF
        # arrows and their block
        flags = SCANCODE | (0 if down else UP) | (EXTENDED if 0x21 <= code <= 0x2E else 0)
        must(
            "SendInput",
            1,
            struct.pack(
                "<I4xHHII4xQ8x",
                KEYBOARD,
                0,
                windows("MapVirtualKeyW", code, TO_SCANCODE),
                flags,
                0,
                0,
            ),
            40,
        )

    def close(self) -> None:
        """Nothing of it is ours."""


class DesktopWindow(Window):
    """The client area of the game's largest window, as it is on the desktop: it must not be
    covered.
    """

    def attach(self) -> None:
        try:
            import mss
        except ImportError:
            raise GameError("capturing a window needs mss: pip install mss") from None
        self.screen = mss.MSS()

    def _grab(self, x, y, width, height) -> np.ndarray:
        """Two equal pictures in a row: what was drawn last has reached the screen."""
        FULL_SCREEN, state = 3, ctypes.c_int()
        windows("SHQueryUserNotificationState", ctypes.byref(state))
        if state.value == FULL_SCREEN:
            say_once(
                "sim: the game is in exclusive full screen, which cannot be captured: switch it to a window, or borderless"
            )
        try:
            picture = self._shot(x, y, width, height)
        except Exception as e:  # mss fails in its own ways
            if state.value != FULL_SCREEN:
                raise GameError(f"the game's window cannot be captured: {e}") from None
            return np.zeros((0, 0, 4), np.uint8)  # the last picture is kept
        for _ in range(10):
            time.sleep(0.008)
            before, picture = picture, self._shot(x, y, width, height)
            if np.array_equal(before, picture):
                break
        return picture

    def _shot(self, x, y, width, height) -> np.ndarray:
        return np.array(self.screen.grab({"left": x, "top": y, "width": width, "height": height}))


class VGamepad(Device):
    """An Xbox 360 gamepad of the machine, by vgamepad and the ViGEmBus driver: what XInput and SDL
    games take.
    """

    # XInput's; the others are called as ours
    NAMES = {"SOUTH": "A", "EAST": "B", "WEST": "X", "NORTH": "Y"}

    def __init__(self, stage: Stage):
        try:
            import vgamepad
        except ImportError:
            raise GameError("vgamepad: not installed; pip install vgamepad") from None
        except Exception as e:  # it looks for the driver when it is imported
            raise GameError(
                f"vgamepad: {e}: the ViGEmBus driver is not installed, or stopped: run ViGEmBusSetup_x64.msi (in the folder "
                "vgamepad/win/vigem/install of the package) and restart Windows"
            ) from None
        self.pad, self.codes = vgamepad.VX360Gamepad(), vgamepad.XUSB_BUTTON

    def set(self, buttons, sticks) -> None:
        """XInput's y points up, ours down."""
        pressed, (left_x, left_y, right_x, right_y) = (
            dict(zip(BUTTONS, map(bool, buttons))),
            map(float, sticks),
        )
        self.pad.reset()
        (
            self.pad.left_trigger(255 * pressed.pop("LEFT_TRIGGER")),
            self.pad.right_trigger(255 * pressed.pop("RIGHT_TRIGGER")),
        )
        for name in (name for name, down in pressed.items() if down):
            self.pad.press_button(self.codes["XUSB_GAMEPAD_" + self.NAMES.get(name, name)])
        (
            self.pad.left_joystick_float(left_x, -left_y),
            self.pad.right_joystick_float(right_x, -right_y),
        )
        self.pad.update()

    def close(self) -> None:
        self.pad.reset()
        self.pad.update()


def desktop_pad(stage: Stage):
    """vgamepad's, or the keyboard where it does not work."""
    try:
        return VGamepad(stage)
    except GameError as e:
        say_once(f"sim: {e}.  The pad goes to the game as keys instead.")
        return Keyboard(stage)


def windows_processor_time(pid: int) -> float:
    """Seconds."""
    QUERY, times = 0x1000, (ctypes.c_uint64 * 4)()
    handle = must("OpenProcess", QUERY, 0, pid)
    windows("GetProcessTimes", handle, *(ctypes.byref(times, 8 * i) for i in range(4)))
    windows("CloseHandle", handle)
    return (times[2] + times[3]) / MOMENTS


def platform_fault() -> str | None:
    if (sys.platform, platform.machine(), sys.maxsize > 2**32) != ("win32", "AMD64", True):
        return f"the clock hook needs a 64-bit Python on Windows x64, this is {platform.architecture()[0]} on {sys.platform} {platform.machine()}"


def windows_fault(attach: bool) -> str | None:
    """As hook_fault() and attach_fault(): a small program is moved 1000 s into the future, and
    asked for the time.
    """
    ask = [
        base_python(),
        "-I",
        "-S",
        "-c",
        "import sys, time; sys.stdin.read(%d); print(int(time.time()))" % attach,
    ]
    with tempfile.TemporaryFile() as out, contextlib.ExitStack() as stack:
        try:
            if attach:
                popen = stack.enter_context(
                    subprocess.Popen(ask, stdin=subprocess.PIPE, stdout=out)
                )
                stack.callback(popen.kill)
                clock = WindowsClock.attach(popen.pid, timeout=10, pace=1e6)
            else:
                clock = WindowsClock(ask, stdout=out, timeout=10, pace=1e6)
            stack.callback(clock.close)
            clock.step(1000)
            if attach:
                popen.communicate(b" ", timeout=10)
            end = time.perf_counter() + 10
            while clock.alive and time.perf_counter() < end:
                time.sleep(0.01)
        except (GameError, OSError, subprocess.TimeoutExpired) as e:
            return str(e)
        out.seek(0)
        ahead = float(out.read() or -1e9) - time.time()
    return (
        None
        if 900 < ahead <= 1000
        else f"the clock's stub is without effect here: a program that was moved 1000 s ahead is at {ahead:.0f} s"
    )


if sys.platform == "win32":
    Clock = WindowsClock  # the same interface

# ---- yours to extend: other gamepads and screens
GAMEPADS = {
    "auto": None,
    "console": Console,
    "keys": Keyboard,
    **(
        {"vgamepad": VGamepad}
        if sys.platform == "win32"
        else {"joystick": VirtualJoystick, "uinput": UInput}
    ),
}
SCREENS = {
    "auto": None,
    "console": Console,
    **(
        {"window": DesktopWindow}
        if sys.platform == "win32"
        else {"readback": Readback, "window": Window}
    ),
}


# ---- the environment -----------------------------------------------------------------------------

KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "PATHEXT",
    "WINEPREFIX",
    "WINEDLLPATH",
    "WINEDLLOVERRIDES",
    "WINEDEBUG",
    "WINEARCH",
)
# of our own environment; the
# rest is fixed
# no services: starts 5 times faster
WINE = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe,services.exe="}
FIXED = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
HEADLESS = {
    "SDL_AUDIODRIVER": "dummy",
    "ALSOFT_DRIVERS": "null",
    "SDL_VIDEODRIVER": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "LP_NUM_THREADS": "0",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null",
    "SDL_JOYSTICK_HIDAPI": "0",
}
SCREEN_SIZE = "1280x960"  # of the private X server, px


class GameEnv(gymnasium.Env):
    """A game as a Gymnasium environment: one step is exactly one presented frame (times
    frame_skip).

    command: the game's argument list; "{seed}" and "{fps}" in it are replaced.    seconds: truncate at this game time
    reward: callable(info) -> float                                                timeout: real seconds without a frame
    clock: "hook" (any program's time is ours), "console" (a built-in game's own pause) or "auto":
    hook where it works gamepad: "console", "joystick" (SDL's virtual one), "keys", "uinput", or
    "auto": the first of them that the game takes, but uinput screen: "console", "readback" (from
    the game's memory), "window" (what the X server shows), or "auto" fps: refresh rate of the
    monitor that the game believes to have: a frame lasts 1 / fps, or more if the game is slower
    tick: "frame", or "time": a step is 1 / fps of game time, however many frames the game presents
    display: ":0" or the like; without one the game gets an X server and a home folder of its own
    home: folder that the game may take for the user's; without one a private, empty one, so that
    nobody's saves are touched
    keys: {button, or stick and direction ("LEFT_X-"): X key name}, on top of KEYS      fixed: no ASLR, getrandom by seed
    tsc: for games that read the processor's time stamp (rdtsc): in virtual time too, at a fault
    each attach: Windows: play a game that runs already (pid, name of its executable, or window
    title); it is let go at the end

    On Windows the game runs on the user's desktop, with "vgamepad" or "keys"; "window".
    A frame is 1 / fps of game time, for there is no gate: pad, that much time (in real time),
    picture.

    A Windows game on Linux: ["wine", "game.exe"], with WINEPREFIX in the environment.  Its
    processes and Wine's server are under one clock. Frames are what it presents by OpenGL or Vulkan
    (and so by Direct3D), else the sleeps of its main thread; its pad is keys; Wine's services,
    without which it starts five times faster, are off unless WINEDLLOVERRIDES says otherwise.  Not
    the same twice to the millisecond: while Wine starts, its processes spin until others are ready,
    and how often depends on the machine; after that its 16 ms ticks, by which it also decides what
    part of a picture to show, fall differently.  Not tried: Proton, 32-bit Wine.

    Observation: uint8 [256, 256, 3] RGB, the whole picture resized by area. Action: {"buttons": {0,
    1} [16] in the order of BUTTONS, "sticks": float [4] in the order of STICKS, clipped to [-1,
    1]}. The pad given to step() is in force while that frame is computed: frame i pairs with row i
    of the actions.  reset() starts the program anew and shows frame 0, computed under an untouched
    pad; without a seed it keeps the last one. info: time (s of game time), frame (number of the one
    shown), hash (of its native pixels), score (a built-in game's). terminated: the program ended.
    Raises GameError with one line when the game crashes at start or hangs.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        command,
        fps: int = 30,
        frame_skip: int = 1,
        gamepad: str = "auto",
        screen: str = "auto",
        seed: int = 0,
        reward=None,
        seconds: float | None = None,
        clock: str = "auto",
        timeout: float = 60.0,
        tick: str = "frame",
        display: str = "",
        home: str = "",
        keys: dict | None = None,
        fixed: bool = True,
        tsc: bool = False,
        render_mode: str = "rgb_array",
        attach: str = "",
    ):
        import cv2

        for name, value, known in (
            ("gamepad", gamepad, GAMEPADS),
            ("screen", screen, SCREENS),
            ("tick", tick, ("frame", "time")),
            ("clock", clock, ("auto", "hook", "console")),
            ("render_mode", render_mode, ("rgb_array",)),
        ):
            if value not in known:
                raise GameError(f"{name} {value!r}: there is {', '.join(known)}")
        if attach and sys.platform != "win32":
            raise GameError(
                "attach: GameEnv plays running games on Windows only; elsewhere there is sim.Clock.attach(pid)"
            )
        if (
            not (command or attach)
            or not fps > 0
            or frame_skip < 1
            or home
            and not os.path.isdir(home)
        ):
            raise GameError(
                f"fps {fps}, frame_skip {frame_skip}, home {home!r}, command {command!r}: expected fps > 0, frame_skip >= 1, a folder, a game"
            )
        self.resize = functools.partial(
            cv2.resize, dsize=(FRAME, FRAME), interpolation=cv2.INTER_AREA
        )
        self.command, self.fps, self.frame_skip = [str(part) for part in command], fps, frame_skip
        self.gamepad, self.screen, self.clock_name = gamepad, screen, clock
        self.seed, self.reward, self.seconds, self.timeout = seed, reward, seconds, timeout
        self.tick, self.display, self.home, self.keys, self.fixed, self.tsc, self.attach = (
            tick,
            display,
            home,
            keys or {},
            fixed,
            tsc,
            attach,
        )
        self.observation_space = gymnasium.spaces.Box(0, 255, (FRAME, FRAME, 3), np.uint8)
        self.action_space = gymnasium.spaces.Dict(
            buttons=gymnasium.spaces.MultiBinary(len(BUTTONS)),
            sticks=gymnasium.spaces.Box(-1.0, 1.0, (len(STICKS),), np.float32),
        )
        self.render_mode, self.metadata = "rgb_array", {**self.metadata, "render_fps": fps}
        self.clock = self.finalizer = None

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.close()
        self.steps = 0
        try:
            self._start()
            if not self._next_frame():
                raise GameError(
                    f"{self._name()} ended with status {self.clock.returncode} before its first frame: "
                    f"{last_line(self.stage.path / 'stderr', 'it said nothing on stderr')}"
                )
            self._choose()
        except BaseException:
            self.close()
            raise
        return self._observation(), self._info()

    def step(self, action):
        if self.clock is None:
            raise GameError("call reset() before step()")
        self.pad.set(*self._checked(action))
        terminated = not all(self._next_frame() for _ in range(self.frame_skip))
        info = self._info()
        truncated = self.seconds is not None and info["time"] >= self.seconds - 1e-9
        return (
            self._observation(),
            float(self.reward(info)) if self.reward else 0.0,
            terminated,
            truncated,
            info,
        )

    def render(self) -> np.ndarray:
        """The frame at its native size, uint8 [height, width, 3] RGB."""
        if self.clock is None:
            raise GameError("call reset() before render()")
        return self.view.picture().copy()

    def close(self) -> None:
        """End the game, remove its files.  Also happens when this object or this program ends."""
        if self.finalizer:
            self.finalizer()
        self.clock = self.finalizer = None

    def _start(self):
        here = sys.platform == "win32"  # on Windows a game is played on the desktop
        fault = hook_fault() if self.clock_name != "console" and not here else None
        if fault and self.clock_name == "hook":
            raise GameError(fault)
        console = Console.shows(self.command) or "console" in (
            self.gamepad,
            self.screen,
            self.clock_name,
        )
        if fault and not console and (self.gamepad == "joystick" or self.screen == "readback"):
            raise GameError(
                f"gamepad='joystick' and screen='readback' need the clock hook: {fault}"
            )
        if Console.shows(self.command) and not {self.gamepad, self.screen} <= {"auto", "console"}:
            raise GameError(
                f"a built-in game has its own gamepad and screen: gamepad={self.gamepad!r} and screen={self.screen!r} should be 'auto'"
            )
        if console and here and self.clock_name == "hook":
            raise GameError(
                "a built-in game waits by Python's time.sleep, which is not in the hook's time on Windows: use clock='console'"
            )
        if fault:
            say_once(
                f"sim: {fault}. Falling back to "
                + (
                    "the built-in console's own pause."
                    if console
                    else "SIGSTOP: the game runs in real time between two steps, and nothing is reproducible."
                )
            )
        self.stage = stage = Stage(
            "" if console or self.display or here else SCREEN_SIZE,
            "-extension MIT-SHM" * self._runs_wine(),
        )
        self.finalizer = weakref.finalize(self, stage.remove)
        if not console and (here or self.display):
            stage.display = Desktop(stage) if here else Display(self.display)
        # also behind env, nice or wine
        names = [Path(part).stem for part in (*self.command, self.attach)]
        stage.keys = (
            KEYS[""] | next((KEYS[name] for name in names if KEYS.get(name)), {}) | self.keys
        )
        gated = bool(fault) or self.clock_name == "console" or here
        hook = {"seed": self.seed, "fixed": self.fixed, "tsc": self.tsc}
        if console:
            self.view = self.pad = Console(stage)
            env = self.view.environment | (GateClock.environment if gated else {})
            make = (
                functools.partial(GateClock, console=self.view)
                if gated
                else functools.partial(Clock, **hook)
            )
        elif here:
            env = None  # the user's own
            stage.pads = [
                desktop_pad(stage) if self.gamepad == "auto" else GAMEPADS[self.gamepad](stage)
            ]
            self.view, self.pad = (
                SCREENS["window" if self.screen == "auto" else self.screen](stage),
                stage.pads[0],
            )
            make = functools.partial(WindowsClock, fps=self.fps)
        else:
            automatic = ("keys",) if fault else ("joystick", "keys")
            stage.pads = [
                GAMEPADS[name](stage)
                for name in (automatic if self.gamepad == "auto" else (self.gamepad,))
            ]
            self.view, self.pad = (
                SCREENS[
                    self.screen if self.screen != "auto" else "window" if fault else "readback"
                ](stage),
                stage.pads[0],
            )
            env = HEADLESS | {
                "DISPLAY": stage.display.name,
                **{k: v for pad in stage.pads for k, v in pad.environment.items()},
            }
            if self._runs_wine():
                del env["SDL_VIDEODRIVER"]  # of Windows' SDL it would be another one
            if self.display:
                env |= {
                    "XAUTHORITY": os.environ.get("XAUTHORITY", str(Path.home() / ".Xauthority"))
                }
            make = (
                functools.partial(StopClock, fps=self.fps)
                if fault
                else functools.partial(
                    Clock, **hook, fps=self.fps, peers=(stage.server,) * bool(stage.server)
                )
            )
        home = str(self.home or stage.path / "home")
        if console or not here:
            env = (
                WINE
                | {k: os.environ[k] for k in KEPT if k in os.environ}
                | FIXED
                | env
                | {"HOME": home, "TMPDIR": str(stage.path / "home")}
            )
        if not here and self._runs_wine():
            check_prefix(Path(env.get("WINEPREFIX", f"{home}/.wine")))
        argv = [
            part.replace("{seed}", str(self.seed)).replace("{fps}", f"{self.fps:g}")
            for part in self.command
        ]
        with open(stage.path / "stderr", "wb") as log:
            self.clock = stage.clock = (
                WindowsClock.attach(self.attach, self.timeout, self.fps)
                if self.attach
                else make(
                    argv, env=env, stdout=subprocess.DEVNULL, stderr=log, timeout=self.timeout
                )
            )
        if not isinstance(self.clock, Clock) and not here:
            stage.at_our_death("game", f"kill -9 -{self.clock.pid}")
        for device in () if console else (*stage.pads, self.view):
            device.attach()

    def _choose(self):
        """After the first frame: the gamepad and the screen that this game has."""
        if isinstance(self.view, Console):
            return
        self.pad = next((pad for pad in self.stage.pads if pad.ready), None)
        if self.pad is None:
            raise GameError(
                f"{self._name()} has not started SDL's joysticks (2.0.14 or later), so that it takes no virtual one: use gamepad='keys'"
            )
        try:
            self.view.picture()
        except GameError:
            if self.screen != "auto":
                raise
            self.view = Window(self.stage)
            self.view.attach()
        if isinstance(self.pad, Keyboard) and self.stage.server:
            self.pad._focused(self.stage.display)
        elif isinstance(self.view, DesktopWindow) and (found := self.stage.display.windows()):
            # into the foreground, to be seen and to get the pad
            self.stage.display.focus(found[0][0])

    def _next_frame(self) -> bool:
        """Exactly one more frame; False if the game ended instead."""
        before = self.view.frame
        try:
            if isinstance(self.clock, StopClock) and not before:
                self._await_window()
            # whose frames are times anyway
            if self.tick == "time" and before and not isinstance(self.clock, StopClock):
                self.clock.step(1 / self.fps)
                alive = self.clock.alive
            else:
                first = (
                    not before
                    and not isinstance(self.clock, StopClock)
                    and not isinstance(self.view, Console)
                )
                alive = (
                    self._first_frame()
                    if first
                    else self.clock.step_frame(lambda: self.view.frame, self.timeout)
                )
                if alive and self.view.frame != before + 1:
                    raise GameError(
                        f"presented {self.view.frame - before} frames without waiting in between"
                    )
        except GameError as e:
            raise GameError(f"{self._name()}: {e}") from None
        self.steps += alive
        return alive

    def _first_frame(self) -> bool:
        """As Clock.step_frame; a game that shows a window, and does not present in any way that we
        see, is gated by its sleeps.
        """
        end, windows = time.perf_counter() + self.timeout, []
        while not windows:
            try:
                return self.clock.step_frame(None, self.timeout, 0.5 if self._runs_wine() else 10.0)
            except NoFrame as e:
                windows = self.stage.display.windows()
                if not windows and (time.perf_counter() > end or self.clock.time > 10):
                    raise NoFrame(f"{e}, and it has opened no window") from None
        if self.screen == "readback":
            raise GameError(
                "presents by no function that is known here, so that its frames cannot be read back; use screen='window'"
            )
        say_once(
            f"sim: {self._name()} presents by no function that is known here: each sleep of its main thread counts as a frame."
        )
        owners = [self.stage.display.owner(number) for number, *_ in windows]
        self.clock.sleeps = next((pid for pid in owners if pid in self.clock.pids()), 0)
        self.view = Window(self.stage) if self.screen == "auto" else self.view
        return self.clock.step_frame(None, self.timeout)

    def _runs_wine(self) -> bool:
        """Whether the game is a Windows program: it presents by GDI, which is nothing that we see,
        or else by OpenGL or Vulkan at once.

        GDI gives pictures to the X server in shared memory, and draws on while that still copies
        them: hence none of it."""
        # a part may be a line for the shell
        words = (Path(word).name for part in self.command for word in part.split())
        return any(
            re.fullmatch(r"wine(64)?(-stable|-staging|-devel(opment)?)?|proton", word)
            for word in words
        )

    def _await_window(self):
        """Without a gate the first frame is when there is a window."""
        end = time.perf_counter() + self.timeout
        while self.clock.alive and not self.stage.display.windows():
            if time.perf_counter() > end:
                raise GameError(f"no window in {self.timeout:g} s")
            self.clock.step(0.1)

    def _checked(self, action):
        try:
            buttons, sticks = (
                np.asarray(action["buttons"]),
                np.asarray(action["sticks"], np.float32),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            buttons, sticks = np.zeros(0), np.zeros(0)
        if (
            buttons.shape != (len(BUTTONS),)
            or sticks.shape != (len(STICKS),)
            or not np.isfinite(sticks).all()
        ):
            raise GameError(
                f"an action is {{'buttons': 0 or 1 [{len(BUTTONS)}], 'sticks': finite float [{len(STICKS)}]}}, "
                f"got {str(action)[:200]}"
            )
        return buttons.astype(bool), sticks.clip(-1, 1)

    def _observation(self) -> np.ndarray:
        return self.resize(self.view.picture())

    def _info(self) -> dict:
        # processors have instructions for it
        digest = hashlib.sha256(np.ascontiguousarray(self.view.picture())).hexdigest()[:32]
        return {
            "time": self.view.time,
            "frame": self.steps - 1,
            "hash": digest,
            "score": self.view.score(),
        }

    def _name(self) -> str:
        text = " ".join(" ".join(self.command).split()) or self.attach
        return text if len(text) < 80 else "... " + text[-76:]


# this file may be a command and a module of it at once
if "NitroGame-v0" not in gymnasium.registry:
    gymnasium.register("NitroGame-v0", entry_point=lambda cmd, **options: GameEnv(cmd, **options))


def check_prefix(prefix: Path) -> None:
    """Wine's server must be started by the game, to be under its clock, and the prefix be there: it
    takes minutes to make under the hook.
    """
    if not (prefix / "system.reg").exists():
        raise GameError(
            f"wine: {prefix} is no prefix of Wine: make one (WINEPREFIX=$HOME/.wine wineboot -i) and give it, in WINEPREFIX"
        )
    folder = f"server-{prefix.stat().st_dev:x}-{prefix.stat().st_ino:x}"  # where its server runs
    for process in glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(process)) == folder:
                raise GameError(
                    f"wine: other programs run in {prefix}, and its server has their time: WINEPREFIX={prefix} wineserver -k"
                )


@functools.cache
def say_once(line: str) -> None:
    print(line, file=sys.stderr)


class Person:
    """Somebody at the keyboard or gamepad, in front of a window (that of games/console.py; needs
    pygame).
    """

    def __init__(self, title: str):
        sys.path.insert(0, str(ROOT / "games"))
        self.window = importlib.import_module("console").Window(title, "")

    def __call__(self, picture) -> tuple | None:
        """See a picture, give the pad: buttons [16], sticks [4]; None once the window is closed."""
        self.window.show(picture, None, 0)
        pad = self.window.pad()
        return (
            (np.array([pad[b] for b in BUTTONS], np.int8), np.float32([pad[s] for s in STICKS]))
            if self.window.open
            else None
        )


class StickyRandom:
    """A gamepad in the hands of chance: every button and axis is drawn anew and held for 0.1 to 1
    s; `menu`: BACK and START too.
    """

    def __init__(self, seed: int, fps: int = 30, menu: bool = True):
        self.rng, self.fps, self.lasts, self.value = (
            np.random.default_rng(abs(seed)),
            fps,
            np.zeros(20),
            np.zeros(20, np.float32),
        )
        self.alone = [] if menu else artefact.MENU

    def __call__(self, picture, info=None) -> tuple:
        """buttons uint8 [16], sticks float32 [4]."""
        new = self.lasts <= 0
        self.lasts[new] = self.rng.integers(self.fps // 10, self.fps + 1, new.sum())
        self.value[new] = np.r_[self.rng.random(16) < 0.3, self.rng.uniform(-1, 1, 4)][new]
        self.value[self.alone] = 0
        self.lasts -= 1
        return self.value[:16].astype(np.uint8), self.value[16:].copy()


@dataclass(frozen=True)
class Run(Common):
    """Flags of all that runs a game."""

    fps: int = 60  # refresh rate of the monitor that the game sees
    # auto, console, joystick, keys, uinput; on Windows auto, console, vgamepad, keys
    gamepad: str = "auto"
    screen: str = "auto"  # auto, console, readback, window; on Windows auto, console, window
    timeout: float = 60.0  # seconds of real time without a frame after which the game hangs
    display: str = ""  # :0 or the like; none: an X server of its own
    home: str = ""  # home folder for the game; none: a private, empty one
    # Windows: play what runs already, by the name of its executable, window title or pid
    attach: str = ""
    command: tuple[str, ...] = ()  # the game


def launch(cfg: Run, **options) -> GameEnv:
    if not cfg.command and not cfg.attach:
        raise SystemExit("no game given: add -- COMMAND ARG...")
    if cfg.command:
        find_program(cfg.command[0])  # before a window opens
    return GameEnv(
        cfg.command,
        fps=cfg.fps,
        seed=cfg.seed,
        gamepad=cfg.gamepad,
        screen=cfg.screen,
        timeout=cfg.timeout,
        display=cfg.display,
        home=cfg.home,
        attach=cfg.attach,
        **options,
    )


@dataclass(frozen=True)
class Play(Run):
    """Flags of `play`."""

    speed: float = 1.0  # of game time; 0: as fast as it goes
    seconds: float = 0.0  # of game time; 0: until the window is closed, the game ends or Ctrl-C
    wait: float = 0.0  # seconds of game time at the start with an untouched pad (title cards)
    player: str = "person"  # person (a window, keyboard or pad; pip install pygame) or random
    record: str = ""  # also write this video, OUT.mp4, with OUT.actions.safetensors beside it


@dataclass(frozen=True)
class Record(Play):
    """Flags of `record`."""

    record: str = "data/record/play.mp4"  # video; the actions go beside it


def play(cfg: Play) -> None:
    """Play, and with --record keep the frames and the pad of each: row i is the pad in force while
    frame i was drawn.
    """
    if cfg.player not in ("person", "random"):
        raise SystemExit(f"--player {cfg.player}: there is person and random")
    if min(cfg.speed, cfg.seconds, cfg.wait) < 0:
        raise SystemExit(
            f"--speed {cfg.speed:g} --seconds {cfg.seconds:g} --wait {cfg.wait:g}: none may be below 0"
        )
    video, labels = Path(cfg.record), Path(f"{os.path.splitext(cfg.record)[0]}.actions.safetensors")
    if cfg.record and not cfg.fresh and (video.exists() or labels.exists()):
        raise SystemExit(f"{video}: exists; give another name, or --fresh to replace it")
    rows, hashes, times, end = [], [], [], None
    with launch(cfg, seconds=cfg.seconds or None) as env, contextlib.ExitStack() as stack:
        player = (
            Person(" ".join(cfg.command))
            if cfg.player == "person"
            else StickyRandom(cfg.seed, cfg.fps, menu=False)
        )
        frames = session(env, player, cfg)
        if cfg.player != "person":
            from tqdm import tqdm

            frames = stack.enter_context(
                tqdm(frames, desc="play", unit="frame", total=round(cfg.seconds * cfg.fps) or None)
            )
        try:
            for picture, info, pad in frames:
                if cfg.record and not rows:
                    out = stack.enter_context(VideoWriter(video, cfg.fps, *picture.shape[1::-1]))
                    width, height = picture.shape[1::-1]
                rows.append(pad), hashes.append(info["hash"]), times.append(info["time"])
                if cfg.record:
                    out.write(fitted(picture, width, height))
        except (GameError, KeyboardInterrupt) as e:  # what was played until then is kept
            if not cfg.record or not rows:
                raise
            end = (
                e
                if isinstance(e, GameError)
                else SystemExit("interrupted: the recording ends here")
            )
    if cfg.record:
        rows = rows[: video_facts(video)["frames"]]  # of an interruption between the two
        artefact.write(
            labels,
            recorded(rows, hashes, cfg.fps),
            "nitrogen.actions/1",
            unit="normalized",
            fps=cfg.fps,
            buttons=BUTTONS,
            sticks=STICKS,
            game_command=list(cfg.command),
            seed=cfg.seed,
            gamepad=cfg.gamepad,
            screen=cfg.screen,
            home=cfg.home,
            game_time=times[len(rows) - 1] - times[0],
        )
        print(f"{len(rows)} frames -> {video}, {labels}")
    if end:
        raise end


def session(env, player, cfg: Play):
    """Yield (picture, info, the pad in force while it was drawn), until the window is closed, the
    game ends or its time is up.
    """
    untouched = np.zeros(16, np.int8), np.zeros(4, np.float32)
    info, pad, truncated = env.reset(seed=cfg.seed)[1], untouched, False
    begin, origin = time.perf_counter(), info["time"]
    while True:
        yield (picture := env.render()), info, pad
        pad, played = player(picture), info["time"] - origin
        if truncated or pad is None:
            return
        pad = pad if played >= cfg.wait else untouched
        if cfg.speed:
            time.sleep(max(0.0, begin + played / cfg.speed - time.perf_counter()))
        _, _, terminated, truncated, info = env.step({"buttons": pad[0], "sticks": pad[1]})
        if terminated:
            return


def fitted(picture, width, height):
    """A game may change its size; a video may not."""
    import cv2

    return (
        picture
        if picture.shape[:2] == (height, width)
        else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    )


def recorded(rows, hashes, fps) -> dict:
    """Tensors of a nitrogen.actions/1 file, and hash: what env.step's info says of each frame's own
    pixels.
    """
    count = len(rows)
    return {
        "buttons": np.float16([r[0] for r in rows]),
        "sticks": np.float32([r[1] for r in rows]),
        "shown": np.ones(20, bool),
        "confidence": np.ones(count, np.float16),
        "time": np.arange(count) / fps,
        "hash": np.frombuffer(bytes.fromhex("".join(hashes[:count])), np.uint8).reshape(count, 16),
    }


@dataclass(frozen=True)
class Replay(Common):
    """Flags of `replay`."""

    pauses: float = 0.0  # chance of a random pause (up to 0.2 s of real time) before a frame
    # what `record` wrote: the *.actions.safetensors, or the video beside it
    videos: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # the game; none: the one that was recorded


def replay(cfg: Replay) -> None:
    """Play a recording again and compare every frame."""
    from tqdm import tqdm

    if len(cfg.videos) != 1:
        raise SystemExit(
            "replay takes one recording: python sim.py replay FILE.actions.safetensors [-- COMMAND ARG...]"
        )
    path = Path(cfg.videos[0])
    path = path if path.suffix == ".safetensors" else path.with_suffix(".actions.safetensors")
    if not path.exists():
        raise SystemExit(
            f"{path}: no such file; make it: python sim.py record --record {path.name.partition('.')[0]}.mp4 -- COMMAND ARG..."
        )
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    if "hash" not in tensors or "game_command" not in info:
        raise SystemExit(
            f"{path}: not a recording of `python sim.py record`, so there is nothing to compare with"
        )
    rng, expected = (
        np.random.default_rng(cfg.seed),
        [row.tobytes().hex() for row in tensors["hash"]],
    )
    with GameEnv(
        cfg.command or info["game_command"],
        fps=info["fps"],
        gamepad=info["gamepad"],
        screen=info["screen"],
        home=info.get("home", ""),
    ) as env:
        seen = env.reset(seed=info["seed"])[1]
        for i in tqdm(range(len(expected)), desc="replay", unit="frame"):
            if i:
                if rng.random() < cfg.pauses:
                    env.clock.pause()
                    time.sleep(rng.uniform(0, 0.2))
                _, _, ended, _, seen = env.step(
                    {"buttons": tensors["buttons"][i] > 0.5, "sticks": tensors["sticks"][i]}
                )
                if ended:
                    raise SystemExit(f"{path}: the game ended at frame {i} of {len(expected)}")
            if seen["hash"] != expected[i]:
                raise SystemExit(f"{path}: frame {i} of {len(expected)} differs")
    print(f"all {len(expected)} frames are the same")


STEPPER = """Enter         one frame
N             N frames
N s           N seconds of game time, in one go
pad NAME...   hold these buttons (SOUTH, ...) and sticks (LEFT_X=-0.5, ...); pad alone lets go
show FILE     write the picture (png)
restart       from the beginning
quit"""


def stepper(cfg: Run) -> None:
    """A game by hand, frame by frame: to see what the clock does."""
    import cv2

    print(STEPPER)
    action = held_pad([])
    with launch(cfg) as env:
        info = env.reset(seed=cfg.seed)[1]
        while True:
            print(
                f"frame {info['frame']}  game time {info['time']:.4f} s  picture {info['hash'][:8]}"
            )
            word, *rest = (sys.stdin.readline() or "quit").split() or ["1"]
            if word == "quit":
                return
            elif word == "restart":
                info = env.reset(seed=cfg.seed)[1]
            elif word == "show" and rest:
                if not attempt(
                    lambda: cv2.imwrite(rest[0], cv2.cvtColor(env.render(), cv2.COLOR_RGB2BGR))
                )[0]:
                    print(f"{rest[0]}: no picture can be written there")
            elif word == "pad" and held_pad(rest):
                action = held_pad(rest)
            elif word.isdigit() and not rest:
                for _ in range(int(word)):
                    _, _, ended, _, info = env.step(action)
                    if ended:
                        break
            elif rest == ["s"] and word.replace(".", "", 1).isdigit():
                env.pad.set(*env._checked(action))
                shown = env.view.frame
                env.clock.step(float(word))
                env.steps += env.view.frame - shown
                info = env._info()
            else:
                print(STEPPER)
            if not env.clock.alive:
                return print(f"the game ended with status {env.clock.returncode}")


def held_pad(words) -> dict | None:
    """NAME and NAME=VALUE of buttons and sticks -> action; None if they make no sense."""
    held = dict(word.partition("=")[::2] for word in words)
    with contextlib.suppress(ValueError):
        sticks = np.float32([held.get(name) or 0 for name in STICKS])
        if set(held) <= {*BUTTONS, *STICKS} and np.isfinite(sticks).all():
            return {"buttons": np.int8([name in held for name in BUTTONS]), "sticks": sticks}


def main() -> None:
    # as Ctrl-C: what was recorded is kept, nothing is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command_line(
        __doc__,
        {
            "doctor": "bench.doctor",
            "play": (Play, play),
            "record": (Record, play),
            "replay": (Replay, replay),
            "step": (Run, stepper),
            "bench": "bench.stepping",
        },
    )


if __name__ == "__main__":
    main()
