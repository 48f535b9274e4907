"""Timers that the game sets (timerfd, setitimer, alarm, timer_settime): kept by us, never by the
kernel, they expire at their virtual deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import struct

from clock import kernel
from clock.base import NS, read_text
from clock.tracee import Process, State, Thread, Timer, borrow_file, pack_time, read_time

SIGEV_NONE, SIGEV_THREAD_ID = 1, 4
SI_TIMER = -2
EINTR = 4


class TimerCalls:
    """The system calls about timers, and what happens when one expires."""

    def __init__(self, clock):
        self.clock = clock
        self.timers: dict[tuple, Timer] = clock.timers

    # -- the system calls

    def answer(self, process: Process, name: str, a: list[int]) -> int | None:
        """The result, a: arguments; None leaves it to the kernel (timers that count CPU time)."""
        if name == "timer_create":
            return self._create(process, a)
        kind = kind_of(name)
        if kind == "posix" and a[0] not in process.timers:
            return None
        if name in ("setitimer", "getitimer") and a[0] != 0:  # ITIMER_REAL
            return None
        key = (process.pid, kind, 0 if kind == "real" else a[0])
        if name == "timer_delete":
            self.timers.pop(key, None)
            process.timers.pop(a[0])
            return 0
        if name == "timer_getoverrun":
            return 0
        if name == "alarm":
            return self._alarm(process, key, a[0])
        return self._get_and_set(process, name, key, a)

    def _create(self, process: Process, a) -> int | None:
        clock = ctypes.c_int(a[0] & 0xFFFFFFFF).value
        if clock not in kernel.VIRTUAL_CLOCKS:
            return None
        timer = max(process.timers, default=1 << 20) + 1
        value, number, notify, tid = timer, signal.SIGALRM, 0, 0
        if a[1]:  # struct sigevent
            value, number, notify, tid = struct.unpack("<QiiI", process.read(a[1], 20))
        sent = 0 if notify == SIGEV_NONE else number
        receiver = tid if notify & SIGEV_THREAD_ID else 0
        process.timers[timer] = (clock, sent, receiver, value)
        process.write(a[2], struct.pack("<i", timer))
        return 0

    def _alarm(self, process: Process, key: tuple, seconds: int) -> int:
        left, _ = self._left(key)
        self._set(process, key, seconds and self.clock.now + seconds * NS, 0)
        return -(-left // NS)

    def _get_and_set(self, process: Process, name: str, key: tuple, a) -> int:
        """By struct itimerval or itimerspec: interval, value."""
        kind = key[1]
        fraction = 1000 if kind == "real" else 1
        left, interval = self._left(key)
        if "get" in name:
            new, old = 0, a[1]
        elif kind == "real":
            new, old = a[1], a[2]
        else:
            new, old = a[2], a[3]
        if new:
            moment = read_time(process, new + 16, fraction)
            if moment and kind != "real" and a[1] & 1:  # absolute, by the timer's own clock
                moment -= self.clock.page.offsets[clock_of(process, kind, a[0])]
            elif moment:
                moment += self.clock.now
            self._set(process, key, moment, read_time(process, new, fraction))
        if old:
            process.write(old, pack_time(interval, fraction) + pack_time(left, fraction))
        return 0

    def _left(self, key: tuple) -> tuple[int, int]:
        """ns until it expires, and its interval; zeros if it is not set."""
        timer = self.timers.get(key)
        if timer is None:
            return 0, 0
        return max(1, timer.deadline - self.clock.now), timer.interval

    def _set(self, process: Process, key: tuple, moment: int, interval: int) -> None:
        """moment: virtual ns; 0 stops it."""
        self.timers.pop(key, None)
        file = borrow_file(process.pid, key[2]) if key[1] == "fd" else None
        if file is not None:
            # also forgets what expired before
            kernel.libc.timerfd_settime(file.fileno(), 0, struct.pack("<4q", 0, 0, 0, 0), None)
        # a number without a file behind it: nothing to expire
        if moment and (file is not None or key[1] != "fd"):
            timer = Timer(process, key, max(moment, self.clock.now), interval, file)
            self.timers[key] = timer
            self.clock.deadlines.trace("timer", timer.deadline)

    def on_exec(self, process: Process) -> None:
        """timer_create's end with the program that made them; the others stay."""
        for key in [key for key in self.timers if key[0] == process.pid]:
            if key[1] == "posix":
                del self.timers[key]
            else:
                self.timers[key].process = process

    # -- expiry

    def expire(self, timer: Timer) -> None:
        """Fire the timer in the game."""
        timer.deadline = max(timer.deadline, self.clock.now) + timer.interval
        if not timer.interval or is_gone(timer):
            self.timers.pop(timer.key, None)
        fire = {"fd": self._fire_file, "real": self._fire_alarm, "posix": self._fire_signal}
        with contextlib.suppress(ProcessLookupError):
            fire[timer.key[1]](timer)

    def _fire_file(self, timer: Timer) -> None:
        # At 1 ns after boot: at once.
        once = struct.pack("<4q", 0, 0, 0, 1)
        kernel.libc.timerfd_settime(timer.file.fileno(), 1, once, None)

    def _fire_alarm(self, timer: Timer) -> None:
        os.kill(timer.process.pid, signal.SIGALRM)
        self._cut_sleep(timer.process, 0, signal.SIGALRM)

    def _fire_signal(self, timer: Timer) -> None:
        process, number = timer.process, timer.key[2]
        _, what, tid, value = process.timers[number]
        if not what:
            return
        # siginfo_t
        info = struct.pack("<iiixxxxiiQ96x", what, 0, SI_TIMER, number, 0, value)
        if tid:
            kernel.libc.syscall(kernel.RT_TGSIGQUEUEINFO, process.pid, tid, what, info)
        else:
            kernel.libc.syscall(kernel.RT_SIGQUEUEINFO, process.pid, what, info)
        self._cut_sleep(process, tid, what)

    def _cut_sleep(self, process: Process, tid: int, number: int) -> None:
        """A signal was sent: if all who could take it sleep, held by us, the first one's sleep ends
        with EINTR, as the kernel would.
        """
        threads = self.clock.threads.values()
        threads = [t for t in threads if t.process is process and tid in (0, t.tid)]
        if not all(t.state is State.PARKED for t in threads):
            return
        for thread in threads:
            if thread.call in kernel.SLEEPS and takes_signal(thread.tid, number):
                return self._end_sleep(thread)

    def _end_sleep(self, thread: Thread) -> None:
        a = thread.entry.arguments()
        if thread.call == "nanosleep":
            left = a[1]
        else:
            left = 0 if a[1] & 1 else a[3]  # TIMER_ABSTIME
        registers = thread.registers()
        if left:
            thread.process.write(left, pack_time(thread.deadline - self.clock.now))
        thread.skip_call(registers, -EINTR)
        thread.release()
        self.clock.go_on(thread)


def kind_of(name: str) -> str:
    """Of a timer, by the system call: fd, posix, or real (one a process, by SIGALRM)."""
    if name.startswith("timerfd"):
        return "fd"
    return "posix" if name.startswith("timer_") else "real"


def clock_of(process: Process, kind: str, number: int) -> int:
    """The clock that a timer goes by."""
    if kind == "posix":
        return process.timers[number][0]
    text = read_text(f"/proc/{process.pid}/fdinfo/{number}")
    return int(re.search(r"clockid: (\d+)", text)[1])


def is_gone(timer: Timer) -> bool:
    """Whether the process has ended, or has closed its timerfd."""
    process = f"/proc/{timer.process.pid}"
    _, kind, number = timer.key
    return not os.path.exists(process) or (
        kind == "fd" and not os.path.exists(f"{process}/fd/{number}")
    )


def takes_signal(tid: int, number: int) -> bool:
    """Whether a thread neither blocks nor ignores it."""
    masks = re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)", read_text(f"/proc/{tid}/status"), re.M)
    return not any(int(mask, 16) >> number - 1 & 1 for mask in masks)
