"""One thread of the game runs at a time, in a fixed order.

A thread may wake another and go on.  Both would run at once at the same moment, and which of them
is faster depends on the computer.  So one that was woken, or is new, is held until no other runs.

A thread may also wait for another in a loop, and never sleep.  It would wait for ever for one that
is held, so that this one goes on after LONG; a game that does so MANY times is let be.
"""

from __future__ import annotations

import time

from clock.tracee import State, Thread

LONG = 0.05  # s of processor time
MANY = 20


class Turns:
    """Who is held until it is its turn."""

    def __init__(self, clock):
        self.clock = clock
        self.held: list[tuple[int, int, Thread]] = []  # turns before it came, its number, who
        self.count = 0  # turns so far
        self.began = 0.0  # processor time of the game, s, when the last turn began
        self.loops = 0  # turns that were given since a thread ran on

    def hold(self, thread: Thread) -> None:
        """A stopped thread, which waits for nothing any more; alone it goes on at once."""
        threads = self.clock.threads.values()
        runs = any(t is not thread and t.state is not State.PARKED for t in threads)
        if self.loops < MANY and (self.held or runs):
            if not self.held:
                self.began = processor_time(thread)
            thread.park(None)
            self.held.append((self.count, thread.number, thread))
        else:
            thread.release()
            self.clock.go_on(thread)

    def is_overdue(self) -> bool:
        """Whether a thread has run for LONG while others are held."""
        if not self.held or processor_time(self.held[0][2]) < self.began + LONG:
            return False
        self.loops += 1
        return True

    def give(self) -> bool:
        """No thread runs: let the first one go on; False if none is held.  Those that were woken in
        the same turn have come in any order, and go on by their numbers.
        """
        if not self.held:
            return False
        self.count += 1
        first = min(self.held, key=lambda held: held[:2])
        self.held.remove(first)
        if self.held:  # of the process that is_overdue() asks: a game may have several
            self.began = processor_time(self.held[0][2])
        thread = first[2]
        if self.clock.threads.get(thread.tid) is thread:
            thread.release()
            self.clock.go_on(thread)
        return True


def processor_time(thread: Thread) -> float:
    """Of a thread's process, s; 0 where it has ended."""
    try:
        return time.clock_gettime(~thread.process.pid << 3 | 2)  # CPUCLOCK_SCHED of a process
    except OSError:
        return 0.0
