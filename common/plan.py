"""Chunk after chunk: which action is in force when."""

from __future__ import annotations

import math

import numpy as np


class Plan:
    """The actions to come.  A chunk's action k is meant for `seen` + (shift + k) / rate, s of game
    time, and holds until the next.
    """

    def __init__(self, rate: float, shift: int):
        self.rate = rate
        self.shift = shift
        self.start = 0.0  # s, of the first row
        self.rows = np.zeros((0, 20), np.float32)

    def at(self, when: float):
        """The action in force then, [20]; None past the end."""
        i = max(0, self._steps(when))
        return self.rows[i] if i < len(self.rows) else None

    def _steps(self, when):
        return math.floor((when - self.start) * self.rate + 1e-6)

    def add(self, chunk, seen: float, now: float, fade: int) -> int:
        """Change over to a chunk that was planned from the picture of `seen`, within `fade`
        actions.  Those before `now` are cut; returns how many are left.
        """
        new = Plan(self.rate, self.shift)
        new.start = seen + self.shift / self.rate
        late = max(0, new._steps(now))
        new.start += late / self.rate
        new.rows = chunk[late:].copy()
        for i, row in enumerate(new.rows[:fade]):
            old = self.at(new.start + i / self.rate)
            row += 0 if old is None else (old - row) * (1 - (i + 1) / (fade + 1))
        if len(new.rows):
            self.start = new.start
            self.rows = new.rows
        return len(new.rows)
