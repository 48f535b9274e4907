"""Steps per second and the cost of the hook: python sim.py bench"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import ROOT

import numpy as np

import sim
from clock.base import NS, GameError, read_text
from clock.win32 import windows_processor_time
from devices.console import Console


@dataclass(frozen=True)
class Config(sim.Run):
    """Flags of `bench`."""

    fps: int = 30  # frames per second of game time
    frames: int = 600  # frames to time, of random play, and as many to take apart,
    warm: int = 200  # after so many more: past title cards


def main(cfg: Config) -> None:
    """Steps per second with pixels; what the game itself costs, and what the hook adds."""
    if cfg.frames < 1:
        raise SystemExit(f"--frames {cfg.frames}: nothing to time")
    game = (sys.executable, str(ROOT / "games/ridge.py"), "--seed", "{seed}", "--fps", "{fps}")
    cfg = dataclasses.replace(cfg, command=cfg.command or game)
    print(f"{' '.join(cfg.command)}: {cfg.frames} frames at {cfg.fps} fps of game time")
    for clock in clocks_for(cfg.command):
        env = sim.launch(cfg, clock=clock)
        player = sim.StickyRandom(cfg.seed, cfg.fps, menu=False)
        seconds, spent, used, own = time_frames(env, player, cfg)
        rate = cfg.frames / seconds
        print(
            f"clock {clock:8s} {rate:6.0f} steps/s with pixels = {rate / cfg.fps:.1f} x real time; "
            f"median frame {1e3 * np.median(spent):.2f} ms, "
            f"of which the game's CPU {1e3 * np.median(used):.2f} ms"
        )
    over = 1e3 * (spent - used)
    print(
        f"hook overhead  {np.median(over):.3f} ms per frame, "
        f"{np.quantile(over, 0.1):.3f} ms in the best tenth "
        "(more than that is other work on this machine); "
        f"{1e3 * np.median(own):.3f} ms of our CPU"
    )


def clocks_for(command) -> tuple[str, ...]:
    """The clocks to compare: a built-in game has one of its own; elsewhere than on Linux only it is
    timed.
    """
    if not Console.shows(command):
        return ("hook",)
    return ("console", "hook") if sys.platform == "linux" else ("console",)


def time_frames(
    env: sim.GameEnv, player, cfg: Config
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Seconds for all steps; then, for as many more frames, arrays [frames] of each one's seconds
    within the clock, of CPU time of the game and its X server, and of our own CPU time.

    The CPU times are not looked up during the first half: that takes half a millisecond a frame
    where there are many threads.
    """
    rows = []

    def timed(*args):
        used, own, start = processor_time(env), time.thread_time(), time.perf_counter()
        result = step_frame(*args)
        spent = time.perf_counter() - start
        own = time.thread_time() - own
        rows.append((spent, processor_time(env) - used, own))
        return result

    with contextlib.closing(env):
        env.reset()
        pads = []
        for _ in range(cfg.warm + 2 * cfg.frames):
            buttons, sticks = player(None)
            pads.append({"buttons": buttons, "sticks": sticks})
        for i, pad in enumerate(pads):
            if i == cfg.warm:
                start = time.perf_counter()
            if i == cfg.warm + cfg.frames:
                seconds = time.perf_counter() - start
                step_frame = env.clock.step_frame
                env.clock.step_frame = timed
            if env.step(pad)[2]:
                raise GameError("the game ended during the measurement")
    return seconds, *np.array(rows).T


def processor_time(env: sim.GameEnv) -> float:
    """Seconds of CPU time of the game and its X server so far."""
    pids = {env.clock.pid, env.sandbox.server or env.clock.pid}
    if sys.platform == "win32":
        return sum(map(windows_processor_time, pids))
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(read_text(f"{task}/schedstat").split()[0]) for task in tasks) / NS
