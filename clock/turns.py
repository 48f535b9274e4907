"""One thread of the game runs at a time, in a fixed order.

A thread may wake another and go on.  Both would run at once at the same moment, and which of them
is faster depends on the computer.  So one that was woken, or is new, is held until no other runs.
"""

from __future__ import annotations

from clock.tracee import State, Thread


class Turns:
    """Who is held until it is its turn."""

    def __init__(self, clock):
        self.clock = clock
        self.held: list[tuple[int, int, Thread]] = []  # turns before it came, its number, who
        self.count = 0  # turns so far

    def hold(self, thread: Thread) -> None:
        """A stopped thread, which waits for nothing any more; alone it goes on at once."""
        threads = self.clock.threads.values()
        if self.held or any(t is not thread and t.state is not State.PARKED for t in threads):
            thread.park(None)
            self.held.append((self.count, thread.number, thread))
        else:
            thread.release()
            self.clock.go_on(thread)

    def give(self) -> bool:
        """No thread runs: let the first one go on; False if none is held.  Those that were woken in
        the same turn have come in any order, and go on by their numbers.
        """
        if not self.held:
            return False
        self.count += 1
        first = min(self.held, key=lambda held: held[:2])
        self.held.remove(first)
        thread = first[2]
        if self.clock.threads.get(thread.tid) is thread:
            thread.release()
            self.clock.go_on(thread)
        return True
