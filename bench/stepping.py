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
from clock import win32
from clock.base import NS, GameError, read_text
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
    command = cfg.command or (
        sys.executable,
        str(ROOT / "games" / "ridge.py"),
        "--seed",
        "{seed}",
        "--fps",
        "{fps}",
    )
    print(f"{' '.join(command)}: {cfg.frames} frames at {cfg.fps} fps of game time")
    for clock in (
        ("hook",)
        if not Console.shows(command)
        else ("console", "hook")
        if sys.platform == "linux"
        else ("console",)
    ):
        env = sim.launch(dataclasses.replace(cfg, command=command), clock=clock)
        total, spent, used, own = time_frames(
            env, sim.StickyRandom(cfg.seed, cfg.fps, menu=False), cfg
        )
        print(
            f"clock {clock:8s} {cfg.frames / total:6.0f} steps/s with pixels = {cfg.frames / total / cfg.fps:.1f} x real time; "
            f"median frame {1e3 * np.median(spent):.2f} ms, of which the game's CPU {1e3 * np.median(used):.2f} ms"
        )
    over = 1e3 * (spent - used)
    print(
        f"hook overhead  {np.median(over):.3f} ms per frame, {np.quantile(over, 0.1):.3f} ms in the best tenth (more than that is other work on "
        f"this machine); {1e3 * np.median(own):.3f} ms of our CPU"
    )


def time_frames(
    env: sim.GameEnv, player, cfg: Config
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Seconds for all steps; then, for as many more frames, each one's seconds within the clock, of
    CPU time of the game and its X server, and of our own: looking these up takes half a millisecond
    a frame where there are many threads."""
    rows = []

    def timed(*args):
        before, own, start = game(), time.thread_time(), time.perf_counter()
        result = step_frame(*args)
        spent, own = time.perf_counter() - start, time.thread_time() - own
        rows.append((spent, game() - before, own))
        return result

    def game():
        pids = {env.clock.pid, env.stage.server or env.clock.pid}
        if sys.platform == "win32":
            return sum(map(win32.windows_processor_time, pids))
        tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(read_text(f"{task}/schedstat").split()[0]) for task in tasks) / NS

    with contextlib.closing(env):
        env.reset()
        pads = [
            dict(zip(("buttons", "sticks"), player(None))) for _ in range(cfg.warm + 2 * cfg.frames)
        ]
        for i, pad in enumerate(pads):
            if i == cfg.warm:
                begin = time.perf_counter()
            if i == cfg.warm + cfg.frames:
                total = time.perf_counter() - begin
                step_frame, env.clock.step_frame = env.clock.step_frame, timed
            if env.step(pad)[2]:
                raise GameError("the game ended during the measurement")
        return total, *np.array(rows).T
