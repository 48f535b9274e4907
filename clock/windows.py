"""A Windows program and its time.

The functions that read the time or sleep are replaced whole, in the game's memory, by
WINDOWS_STUB: no DLL is injected, no instruction moved.  Its time runs at a given speed up to a
limit and then stands, so that a step is exact, however late we are ourselves. Not in virtual
time: rdtsc, the shared page read directly, NtQueryPerformanceCounter itself, QueryInterruptTime,
GetSystemTime, waitable timers, timeouts of waits and of messages, timeSetEvent, sound.  A game
that paces its frames by these runs on with steps of length 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

from clock import kernel, win32
from clock.base import GameError, find_program
from clock.fallback import StopClock
from clock.windows_process import WindowsProcess
from clock.windows_stub import (
    BANKS,
    BANKS_AT,
    ENDLESS,
    HOT_PATCH,
    JUMP,
    PATCHES_AT,
    REPLACED,
    SYSTEM_DLLS,
    WINDOWS_ENTRY,
    WINDOWS_STUB,
)


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
            raise GameError(f"{argv[0]}: " + win32.denied(e)) from None
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
        win32.windows("QueryPerformanceFrequency", ctypes.byref(frequency))
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
        self.pid, self.job = self.popen.pid, win32.must("CreateJobObjectW", None, None)
        win32.must(
            "SetInformationJobObject",
            self.job,
            LIMITS,
            struct.pack("<16xI124x", KILL_ON_CLOSE),
            144,
        )
        win32.must("AssignProcessToJobObject", self.job, int(self.popen._handle))
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
                    f"{argv[0]} ended (status {self.returncode}), or hangs, before its first "
                    "instruction: a DLL that it needs may be missing"
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
                [win32.base_python(), "-I", "-S", "-c", WINDOWS_GUARD, str(self.pid)],
                stdin=subprocess.PIPE,
                text=True,
                creationflags=NO_WINDOW,
            )  # nor our console's Ctrl-C
            self._install(sleep)
        except OSError as e:
            self.close()
            raise GameError(f"attach: {target}: " + win32.denied(e)) from None
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
        self.page = process.allocate(2 * kernel.PAGE)
        process.write_code(self.page + kernel.PAGE, WINDOWS_STUB[process.bits])
        READ_EXECUTE, before = 0x20, ctypes.c_ulong()
        win32.must(
            "VirtualProtectEx",
            process.handle,
            self.page + kernel.PAGE,
            kernel.PAGE,
            READ_EXECUTE,
            ctypes.byref(before),
        )
        jumps = {
            address: self._jump(
                address, self.page + kernel.PAGE + WINDOWS_ENTRY[process.bits][entry]
            )
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
                    (self.frequency << 32) // win32.MOMENTS,
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
        text = process.allocate(kernel.PAGE)
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
                    kernel.ONES if process.bits == 64 else 0xFFFFFFFF
                )
            elif code[:1] == b"\xeb":
                to = at + 2 + struct.unpack_from("<b", code, 1)[0]
            else:
                return where
            owner = next(
                (dll for dll, (base, size) in modules.items() if base <= to < base + size), ""
            )
            if owner not in SYSTEM_DLLS:
                if not owner and self._adopt(to & -kernel.PAGE):
                    return where
                raise GameError(
                    f"{what} has been replaced already (it jumps to "
                    f"{owner or 'memory of no DLL'}): close what has done that, an overlay, "
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
            return stub == self.page + kernel.PAGE
        with contextlib.suppress(OSError):
            if process.read(stub, len(WINDOWS_STUB[process.bits])) == WINDOWS_STUB[process.bits]:
                self.page = stub - kernel.PAGE
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
                    f"{what} is only {room} bytes long in this version of Windows, and "
                    f"{JUMP[self.process.bits]} are needed: please report it"
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
                top = process.read(
                    stack & -8, -stack % kernel.PAGE or kernel.PAGE
                )  # up to the page's end
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
                    f"process {self.pid}: a thread stays within {found}, which was to be replaced; "
                    "nothing was changed, try again"
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
        win32.windows("NtQueryPerformanceCounter", ctypes.byref(value), None)
        return value.value

    def _clocks(self, date: str) -> tuple[int, int, int, int]:
        """What the real clocks show: that function's date, performance counter, tick count,
        multimedia time.
        """
        moment, ticks = ctypes.c_uint64(), ctypes.WinDLL("kernel32").GetTickCount64
        ticks.restype = ctypes.c_uint64
        win32.windows(date, ctypes.byref(moment))
        return moment.value, self._counter(), ticks(), win32.windows("timeGetTime") & 0xFFFFFFFF

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
            (counter + (now * scale >> 32) - real[1]) * win32.MOMENTS // self.frequency,
            (ticks + now // 10000 - real[2]) * 10000,
            late * 10000,
        )

    def _set(self, speed, moment, limit):
        """From now on time goes from `moment` to `limit` at that speed: a bank of its own, then its
        number, one byte.
        """
        self.slot = (self.slot + 1) % BANKS
        self.bank = (
            self._counter(),
            int(speed * win32.MOMENTS / self.frequency * 2**32),
            moment,
            limit,
        )
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
        return self.now / win32.MOMENTS

    @property
    def alive(self) -> bool:
        TIMEOUT = 258
        return (
            bool(self.process)
            and win32.windows("WaitForSingleObject", self.process.handle, 0) == TIMEOUT
        )

    @property
    def returncode(self) -> int | None:
        code = ctypes.c_ulong()
        if (
            self.process
            and not self.alive
            and win32.windows("GetExitCodeProcess", self.process.handle, ctypes.byref(code))
        ):
            return code.value
        return self.popen.poll() if self.popen else None

    def pids(self) -> set[int]:
        """Process ids of the game and its children."""
        return win32.family(self.pid)

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
        goal = self.goal + max(0.0, seconds) * win32.MOMENTS
        if not self.alive:
            return
        self.goal = goal
        self._set(speed, self.bank[3], round(goal))
        while (left := self.bank[3] - self.now) > 0 and self.alive:
            time.sleep(min(0.05, left / speed / win32.MOMENTS))

    def close(self) -> None:
        """End the program and all its children; an attached one is let go."""
        if self.popen is None:
            return self.detach()
        if self.job:
            win32.windows("TerminateJobObject", self.job, 1)
            win32.windows("CloseHandle", self.job)
        self.popen.kill()
        self.popen.wait()
        self._release()

    def detach(self) -> None:
        """Let an attached program run on in real time.  One that is ahead of it keeps its lead (and
        the stub), as time never goes back.
        """
        if self.alive and self.bank[0]:
            self.pause()
            while 0 < (lead := self._lead()) < win32.MOMENTS:
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


def find_game(target: int | str) -> int:
    """pid of a running program: by pid, name of its executable, or part of its window's title; of
    several the one with the largest window.
    """
    import difflib

    running, shown = win32.processes(), win32.desktop_windows()
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


def platform_fault() -> str | None:
    if (sys.platform, platform.machine(), sys.maxsize > 2**32) != ("win32", "AMD64", True):
        return (
            "the clock hook needs a 64-bit Python on Windows x64, this is "
            f"{platform.architecture()[0]} on {sys.platform} {platform.machine()}"
        )


def windows_fault(attach: bool) -> str | None:
    """As hook_fault() and attach_fault(): a small program is moved 1000 s into the future, and
    asked for the time.
    """
    ask = [
        win32.base_python(),
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
        else (
            "the clock's stub is without effect here: a program that was moved 1000 s ahead is at "
            f"{ahead:.0f} s"
        )
    )
