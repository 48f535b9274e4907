"""Chunk after chunk: which action is in force when."""

from __future__ import annotations

import math

from common import layout

import numpy as np

FADE = 3  # CHOICE: actions over which a late chunk takes over from the one before it


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


class Delayed:
    """Chunk after chunk in a stopped world: the delay between a frame and the actions that are
    planned from it is exact.

    think(frame, under_way) -> rows of a chunk, [K, 20], of one frame each: the first `delay` of
    them are for frames that the game has drawn before the chunk is there. It goes on meanwhile with
    the chunk before, at first with a pad at rest: under_way, float32 [delay, 20]. Then `execute`
    rows are played, or `delay` if that is more: the next frame is looked at when a chunk is there.
    """

    def __init__(self, think, execute: int, delay: int = 0, fade: int = FADE):
        self.think = think
        self.period = max(execute, delay)  # frames from one look to the next
        self.delay = delay
        self.fade = fade if delay else 0
        self.forget()

    def forget(self):
        """Look at the next frame, as at the first."""
        self.plan = Plan(rate=1, shift=1)  # its time is counted in frames
        self.now = -1

    def __call__(self, frame) -> np.ndarray:
        """The row [20] for the frame after this one."""
        self.now += 1
        if self.delay and self.now and self.now == self.seen + self.delay:
            self._take()
        if self.now % self.period == 0:
            self.seen = self.now
            under_way = [self._row(self.now + 1 + i) for i in range(self.delay)]
            self.chunk = self.think(frame, np.reshape(under_way, (-1, 20)).astype(np.float32))
            if not self.delay:
                self._take()
        return self._row(self.now + 1)

    def _take(self):
        self.plan.add(self.chunk, self.seen, self.now + 1, self.fade)

    def _row(self, when: int) -> np.ndarray:
        row = self.plan.at(when)
        return np.zeros(20, np.float32) if row is None else row


def think(net, frame, rng, steps: int | None, under_way=()) -> np.ndarray:
    """A chunk of a model.NitroGen, or of one exported: rows float32 [K, 20], see layout.rows.

    frame: uint8 [256, 256, 3], or what History makes of it; rng: of the noise, torch's or numpy's;
    under_way: rows that will have been played when the chunk is there. A network with a prefix is
    given them, as many as it takes.
    """
    c = net.c
    shape = (1, c.horizon, len(c.actions))
    if isinstance(rng, np.random.Generator):
        noise = rng.standard_normal(shape, np.float32)
    else:
        import torch

        noise = torch.randn(shape, generator=rng)
    given = None
    if c.prefix and len(under_way):
        given = layout.values(under_way[: c.prefix], c.actions)[None]
    raw = net.sample(frame[None], noise, steps, given)[0]
    return layout.rows(raw if isinstance(raw, np.ndarray) else raw.cpu().numpy(), c.actions)
