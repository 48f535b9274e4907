"""The policy at the pad of your own game, chunk after chunk: python eval.py play -- COMMAND"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import time
from pathlib import Path

from common import artefact
from common.history import History
from common.plan import FADE, Plan

import numpy as np

from clock.base import GameError, say_once
from live.brain import Local, Remote

RECENT = 5  # CHOICE: chunks whose worst latency is expected of the next one
REST = 0.3  # CHOICE: farther than a worn stick rests
RELEASED = np.zeros(16, np.uint8), np.zeros(4, np.float32)


def brain_of(c):
    """The policy that --policy or --remote names."""
    if not c.remote:
        return Local(c.policy, c.device, c.steps, c.seed)
    if not Path(c.token).is_file():
        raise SystemExit(f"--token {c.token}: no such file; copy it from the machine that serves")
    return Remote(c.remote, Path(c.token).read_text().strip(), 3.0 if c.realtime else 60.0)


def key_map(text: str) -> dict:
    """--keys as a dict."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and key for name, _, key in pairs):
        raise SystemExit(f"--keys {text}: expected BUTTON=key,LEFT_X-=key,...")
    return {name: key for name, _, key in pairs}


class Pilot:
    """The policy as a player: chunk after chunk, computed while the game waits or, in real time,
    while it runs on.
    """

    def __init__(self, brain, c):
        if not 1 <= c.execute <= brain.about["horizon"]:
            raise SystemExit(
                f"--execute {c.execute}: this policy's chunks hold {brain.about['horizon']} "
                f"actions; give 1 to {brain.about['horizon']}"
            )
        self.brain = brain
        self.c = c
        self.history = History(brain.about, c.fps)
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.latency = []  # s, of each chunk
        self.frames = 0
        self.empty = 0  # frames without a plan
        self.late = 0  # frames shown late
        self.forget()

    def forget(self):
        """Start again without a plan, in a game that stands still."""
        self.plan = Plan(self.brain.about["rate"], self.brain.about["shift"])
        self.thought = None  # Future of (chunk, s)
        self.again = -math.inf  # s of game time from which the next frame is looked at
        self.missed = 0  # chunks in a row that came too late to be used

    def __call__(self, frame, info):
        """The pad for the frame after this one.  OSError: the connection is lost."""
        now = info["time"]
        following = now + 1 / self.c.fps
        frame = self.history(frame)
        if self.thought is None and now > self.again - 1e-6:
            self.thought = self.pool.submit(self._think, frame, *self._under_way(now))
            self.seen = now
            self.again = now + self.c.execute / self.plan.rate
        if self.thought and (self.thought.done() or not self.c.realtime or not len(self.plan.rows)):
            self._take(following)
        row = self.plan.at(following)
        self.frames += 1
        if row is None:
            self.empty += 1
            return RELEASED
        return (row[:16] > 0.5).astype(np.uint8), row[16:].clip(-1, 1)

    def _under_way(self, seen: float) -> list:
        """[rows float32 [d, 20] that will have been played when the chunk of a frame that was seen
        at `seen` is there, as far as can be foreseen], for a policy that takes them; else nothing.
        """
        about = self.brain.about
        if not (self.c.realtime and about.get("prefix")):
            return []
        latencies = self.latency[1:][-RECENT:] or self.latency  # the first one also warms up
        wait = max(latencies, default=0.0) * self.c.speed + 2 / self.c.fps
        count = min(about["prefix"], math.ceil(wait * about["rate"]) - about["shift"])
        rows = [self.plan.at(seen + (about["shift"] + i) / about["rate"]) for i in range(count)]
        rows = list(itertools.takewhile(lambda row: row is not None, rows))
        return [np.float32(rows)] if rows else []

    def _think(self, frame, *under_way):
        begin = time.perf_counter()
        return self.brain.think(frame, *under_way), time.perf_counter() - begin

    def _take(self, following):
        thought = self.thought
        self.thought = None  # also where the result is an error
        chunk, seconds = thought.result()
        self.latency.append(seconds)
        fade = FADE if self.c.realtime and not self.brain.about.get("prefix") else 0
        left = self.plan.add(chunk, self.seen, following, fade)
        self.missed = 0 if left else self.missed + 1
        if self.missed == 3:  # not one hiccup
            lasts = (len(chunk) + self.brain.about["shift"]) / self.plan.rate
            raise GameError(
                f"the policy is slower than the game: {seconds:.2f} s for a chunk that is over "
                f"{lasts / self.c.speed:.2f} s after its picture; fewer --steps, a faster "
                f"--device, --speed {0.5 * lasts / seconds:.2g}, or no --realtime, so that the "
                "game waits"
            )

    def report(self) -> dict:
        """Print and return counts, and the latency, ms, of all chunks but the first, for which the
        game always waits.
        """
        ms = 1e3 * np.array(self.latency[1:] or [math.nan])
        median, p90, p99, most = np.percentile(ms, [50, 90, 99, 100]).tolist()
        late = self.late / max(1, self.frames)
        empty = self.empty / max(1, self.frames)
        line = (
            f"{self.frames} frames, {len(self.latency)} chunks; latency {median:.1f} ms (median), "
            f"{p90:.1f} (90 %), {p99:.1f} (99 %), {most:.1f} at most"
        )
        if self.c.realtime:
            line += f"; {late:.1%} of the frames came late, {empty:.1%} had no plan"
        print(line)
        counts = {"frames": self.frames, "without_plan": empty, "late": late}
        latency = {"median": median, "p90": p90, "p99": p99, "most": most}
        return {**counts, "chunks": len(self.latency), **latency}

    def close(self):
        self.pool.shutdown(wait=False, cancel_futures=True)


class Takeover:
    """A person at a window, who has the pad from the first touch until `idle` s after the last."""

    def __init__(self, person, idle: float):
        self.person = person
        self.idle = idle
        self.clock = time.perf_counter
        self.touched = -math.inf  # s of that clock
        self.playing = False

    def __call__(self, picture, pad):
        """The person's pad, or `pad` while the policy plays; None once the window is closed."""
        theirs = self.person(picture)
        if theirs is None:
            return None
        if theirs[0].any() or np.abs(theirs[1]).max() > REST:
            self.touched = self.clock()
        if self.playing != (self.clock() - self.touched < self.idle):
            self.playing = not self.playing
            print("you play" if self.playing else "the policy plays", flush=True)
        return theirs if self.playing else pad


def frames(env, agent, c, person=None, start=()):
    """Play a game from its start: first the macro `start`, then `agent`, or the person at the pad,
    for --seconds of game time.  Yields the info of every frame, with the "pad" that was held, and
    whether a "person" held it.
    """
    frame, info = env.reset(seed=c.seed)
    frame, _, ended, _, info = press(env, start, c.fps) or (frame, 0.0, False, False, info)
    if isinstance(agent, Pilot):
        check_layout(env.pad, agent.brain.about["actions"])
    end = info["time"] + (c.seconds or math.inf)
    due = time.perf_counter()  # of the next frame, with --realtime
    yield info
    while not ended and not info["time"] > end - 1e-6:
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
        info |= {"pad": pad, "person": bool(person and person.playing)}
        if c.realtime or person:  # nobody can play a game that runs as fast as it can
            due = keep_pace(due + (info["time"] - before) / c.speed, agent, c.fps)
        yield info


def keep_pace(due: float, agent, fps: int) -> float:
    """Wait until a frame is due.  Returns that time, or the present one after a late frame: lost
    time is not made up for.
    """
    now = time.perf_counter()
    time.sleep(max(0.0, due - now))
    if due < now - 1 / fps:
        agent.late += 1
        return now
    return due


def check_layout(pad, actions) -> None:
    """GameError if nothing that the policy does can reach the game; one line about what cannot."""
    known = [n for n in artefact.BUTTONS + artefact.STICKS if n in actions]
    lost = pad.lacks(known)
    if len(lost) == len(known):
        raise GameError(
            f"the policy's actions ({', '.join(actions[:4])}, ...) have no place on this game's "
            f"{'keys (--keys)' if known else 'pad'}"
        )
    if lost:
        say_once(
            f"no key for {', '.join(lost)}: what the policy does with them is lost "
            f"(--keys {lost[0]}=...)"
        )


def press(env, macro, fps: int):
    """Play a macro: seconds to wait, buttons and X keys to press for a tenth of a second.

    Returns what env.step said last, or None.
    """
    last = None
    for part in macro:
        if isinstance(part, str):
            key = part if part not in artefact.BUTTONS else ""
            if key:
                focus(env, key)
                env.sandbox.display.key(key, True)
            last = hold(env, part, 0.1, fps) or last
            if key:
                env.sandbox.display.key(key, False)
            last = hold(env, "", 0.1, fps) or last
        else:
            last = hold(env, "", part, fps) or last
    return last


def hold(env, button: str, seconds: float, fps: int):
    last = None
    for _ in range(round(seconds * fps)):
        last = env.step({"buttons": np.isin(artefact.BUTTONS, [button]), "sticks": RELEASED[1]})
    return last


def focus(env, key: str) -> None:
    """Give the game's window the keyboard; GameError if it has none."""
    windows = env.sandbox.display.windows() if env.sandbox.display else []
    if not windows:
        raise GameError(f"the macro's {key!r} is a key, and the game has no window to press it in")
    env.sandbox.display.focus(windows[0][0])
