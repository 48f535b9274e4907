"""The policy at the pad of your own game, chunk after chunk: python eval.py play -- COMMAND"""

from __future__ import annotations

import concurrent.futures
import math
import time
from pathlib import Path

from common import artefact

import numpy as np

from clock.base import GameError, say_once
from devices.linux import Keyboard
from live.brain import Local, Remote

FADE = 3  # CHOICE: actions over which a new chunk takes over from the old one, in real time
RELEASED = np.zeros(16, np.uint8), np.zeros(4, np.float32)


def brain_of(c):
    if not c.remote:
        return Local(c.policy, c.device, c.steps, c.seed)
    if not Path(c.token).is_file():
        raise SystemExit(f"--token {c.token}: no such file; copy it from the machine that serves")
    return Remote(c.remote, Path(c.token).read_text().strip(), 3.0 if c.realtime else 60.0)


def key_map(text: str) -> dict:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and key for name, _, key in pairs):
        raise SystemExit(f"--keys {text}: expected BUTTON=key,LEFT_X-=key,...")
    return {name: key for name, _, key in pairs}


class Plan:
    """The actions to come.  A chunk's action k is meant for `seen` + (shift + k) / rate, s of game
    time, and holds until the next.
    """

    def __init__(self, rate: float, shift: int):
        self.rate, self.shift, self.start, self.rows = (
            rate,
            shift,
            0.0,
            np.zeros((0, 20), np.float32),
        )

    def at(self, when: float):
        """The action in force then, [20]; None past the end."""
        i = max(0, self._steps(when))
        return self.rows[i] if i < len(self.rows) else None

    def _steps(self, when):
        return math.floor((when - self.start) * self.rate + 1e-6)

    def add(self, chunk, seen: float, now: float, fade: int) -> int:
        """Take over to a chunk that was planned from the picture of `seen`, over `fade` actions;
        what lies before `now` is cut.  How many are left.
        """
        new = Plan(self.rate, self.shift)
        new.start, new.rows = seen + self.shift / self.rate, chunk.copy()
        late = max(0, new._steps(now))
        new.start, new.rows = new.start + late / self.rate, new.rows[late:]
        for i, row in enumerate(new.rows[:fade]):
            old = self.at(new.start + i / self.rate)
            row += 0 if old is None else (old - row) * (1 - (i + 1) / (fade + 1))
        if len(new.rows):
            self.start, self.rows = new.start, new.rows
        return len(new.rows)


class Pilot:
    """The policy as a player: one chunk follows another, thought out while the game waits or, in
    real time, beside it.
    """

    def __init__(self, brain, c):
        if not 1 <= c.execute <= brain.about["horizon"]:
            raise SystemExit(
                f"--execute {c.execute}: this policy's chunks hold {brain.about['horizon']} actions; give 1 to {brain.about['horizon']}"
            )
        self.brain, self.c, self.pool = brain, c, concurrent.futures.ThreadPoolExecutor(1)
        # s per chunk; frames, those without a plan, those shown late
        self.latency, self.frames, self.empty, self.late = [], 0, 0, 0
        self.forget()

    def forget(self):
        """Begin anew, at a game that stands still."""
        self.plan, self.thought, self.again, self.missed = (
            Plan(self.brain.about["rate"], self.brain.about["shift"]),
            None,
            -math.inf,
            0,
        )

    def __call__(self, frame, info):
        """The pad for the frame after this one.  OSError: the connection is lost."""
        now, following = info["time"], info["time"] + 1 / self.c.fps
        if self.thought is None and now > self.again - 1e-6:
            self.thought, self.seen, self.again = (
                self.pool.submit(self._think, frame),
                now,
                now + self.c.execute / self.plan.rate,
            )
        if self.thought and (self.thought.done() or not self.c.realtime or not len(self.plan.rows)):
            self._take(following)
        row = self.plan.at(following)
        self.frames, self.empty = self.frames + 1, self.empty + (row is None)
        return (
            RELEASED if row is None else ((row[:16] > 0.5).astype(np.uint8), row[16:].clip(-1, 1))
        )

    def _think(self, frame):
        begin = time.perf_counter()
        return self.brain.think(frame), time.perf_counter() - begin

    def _take(self, following):
        thought, self.thought = self.thought, None
        chunk, seconds = thought.result()
        self.latency.append(seconds)
        left = self.plan.add(chunk, self.seen, following, FADE if self.c.realtime else 0)
        self.missed = 0 if left else self.missed + 1
        if self.missed == 3:  # not one hiccup
            lasts = (len(chunk) + self.brain.about["shift"]) / self.plan.rate
            raise GameError(
                f"the policy is slower than the game: {seconds:.2f} s for a chunk that is over {lasts / self.c.speed:.2f} s after its picture; "
                f"fewer --steps, a faster --device, --speed {0.5 * lasts / seconds:.2g}, or no --realtime, so that the game waits"
            )

    def report(self) -> dict:
        """Print and return what it did; latency of all chunks but the first, for which the game
        waits in any case.
        """
        ms = 1e3 * np.array(self.latency[1:] or [math.nan])
        out = {
            "frames": self.frames,
            "without_plan": self.empty / max(1, self.frames),
            "late": self.late / max(1, self.frames),
            "chunks": len(self.latency),
            **dict(
                zip(("median", "p90", "p99", "most"), np.percentile(ms, [50, 90, 99, 100]).tolist())
            ),
        }
        print(
            f"{self.frames} frames, {out['chunks']} chunks; latency {out['median']:.1f} ms (median), {out['p90']:.1f} (90 %), {out['p99']:.1f} (99 %), "
            f"{out['most']:.1f} at most"
            + (
                f"; {out['late']:.1%} of the frames came late, {out['without_plan']:.1%} had no plan"
                if self.c.realtime
                else ""
            )
        )
        return out

    def close(self):
        self.pool.shutdown(wait=False, cancel_futures=True)


class Takeover:
    """A person at a window: the pad is his from his first touch until he has let go of it for a
    while.
    """

    def __init__(self, person, idle: float):
        self.person, self.idle, self.touched, self.playing, self.clock = (
            person,
            idle,
            -math.inf,
            False,
            time.perf_counter,
        )

    def __call__(self, picture, pad):
        """The pad of whoever plays; None once the window is closed."""
        theirs = self.person(picture)
        if theirs is None:
            return None
        # CHOICE: farther than a worn stick rests
        if theirs[0].any() or np.abs(theirs[1]).max() > 0.3:
            self.touched = self.clock()
        if self.playing != (self.clock() - self.touched < self.idle):
            self.playing = not self.playing
            print("you play" if self.playing else "the policy plays", flush=True)
        return theirs if self.playing else pad


def frames(env, agent, c, person=None, start=()):
    """A game from its start, after a macro `agent` or the person at the pad: yields the info of
    every frame, for --seconds of game time.
    """
    frame, info = env.reset(seed=c.seed)
    frame, _, ended, _, info = press(env, start, c.fps) or (frame, 0.0, False, False, info)
    if isinstance(agent, Pilot):
        check_layout(env.pad, agent.brain.about["actions"])
    begin, due = info["time"], time.perf_counter()
    yield info
    while not ended and not (c.seconds and info["time"] - begin > c.seconds - 1e-6):
        try:
            buttons, sticks = agent(frame, info)
        except OSError as e:  # the connection is lost
            env.pad.set(*RELEASED)
            env.clock.pause()
            agent.brain.reconnect(e, c.patience)
            agent.forget()
            continue
        if not c.menu:
            buttons = np.where(np.isin(np.arange(16), artefact.MENU), 0, buttons)
        pad = person(env.render(), (buttons, sticks)) if person else (buttons, sticks)
        if pad is None:
            return
        before = info["time"]
        frame, _, ended, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
        if c.realtime or person:  # nobody can play a game that runs as fast as it can
            due, now = due + (info["time"] - before) / c.speed, time.perf_counter()
            time.sleep(max(0.0, due - now))
            if due < now - 1 / c.fps:  # a late game does not hurry after
                due, agent.late = now, agent.late + 1
        yield info


def check_layout(pad, actions) -> None:
    """GameError if nothing that the policy does can reach the game; one line about what cannot."""
    known = [n for n in artefact.BUTTONS + artefact.STICKS if n in actions]
    lost = [
        n for n in known if isinstance(pad, Keyboard) and not {n, f"{n}-", f"{n}+"} & set(pad.keys)
    ]
    if len(lost) == len(known):
        raise GameError(
            f"the policy's actions ({', '.join(actions[:4])}, ...) have no place on this game's {'keys (--keys)' if known else 'pad'}"
        )
    if lost:
        say_once(
            f"no key for {', '.join(lost)}: what the policy does with them is lost (--keys {lost[0]}=...)"
        )


def press(env, macro, fps: int):
    """Play a macro: seconds to wait, buttons and X keys to press for a tenth of a second.  What
    env.step says at its end, or None.
    """
    last = None
    for part in macro:
        key = isinstance(part, str) and part not in artefact.BUTTONS
        if key:
            windows = env.stage.display.windows() if env.stage.display else []
            if not windows:
                raise GameError(
                    f"the macro's {part!r} is a key, and the game has no window to press it in"
                )
            env.stage.display.focus(windows[0][0])
            env.stage.display.key(part, True)
        for held, seconds in ((part, 0.1), ("", 0.1)) if isinstance(part, str) else (("", part),):
            for _ in range(round(seconds * fps)):
                last = env.step(
                    {"buttons": np.isin(artefact.BUTTONS, [held]), "sticks": RELEASED[1]}
                )
            if key and held:
                env.stage.display.key(part, False)
    return last
