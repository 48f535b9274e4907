"""Timers: kept by us, never by the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import struct

from clock import kernel
from clock.base import NS, read_text
from clock.tracee import Timer, borrow_file, pack_time, read_time


class Timers:
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
        if clock not in kernel.VIRTUAL_CLOCKS:
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
            kernel.libc.timerfd_settime(file.fileno(), 0, struct.pack("<4q", 0, 0, 0, 0), None)
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
                kernel.libc.timerfd_settime(
                    timer.file.fileno(), 1, struct.pack("<4q", 0, 0, 0, 1), None
                )
            elif kind == "real":
                os.kill(process.pid, signal.SIGALRM)
                self._cut_sleep(process, 0, signal.SIGALRM)
            elif process.timers[number][1]:
                _, what, tid, value = process.timers[number]
                # siginfo_t, SI_TIMER
                info = struct.pack("<iiixxxxiiQ96x", what, 0, -2, number, 0, value)
                # rt_tgsigqueueinfo, rt_sigqueueinfo
                nr, who = (297, (process.pid, tid)) if tid else (129, (process.pid,))
                kernel.libc.syscall(nr, *who, what, info)
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
            if thread.call in kernel.SLEEPS and not any(
                int(mask, 16) >> number - 1 & 1 for mask in masks.values()
            ):
                registers, a = self._registers(thread.tid), thread.registers.arguments()
                left = a[1] if thread.call == "nanosleep" else 0 if a[1] & 1 else a[3]
                if left:
                    process.write(left, pack_time(thread.deadline - self.now))
                self._skip(thread, registers, -4)
                thread.state, thread.deadline = "running", None
                return self._go_on(thread)
