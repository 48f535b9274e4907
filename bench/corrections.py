"""What a person's corrections are worth, with the scripted expert as the person: python eval.py
corrections
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import time
import typing
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, expect, flags, recipe_of, run_stage, shipped
from common.recording import Recording
from common.run_folder import refuse_another
from common.workers import for_each

import numpy as np

import eval as evaluation
import sim
from bench.report import mean_progress, percent
from clock.base import GameError
from eval import FPS
from live.pilot import RELEASED

ARMS = ("corrections", "demonstrations")
SITTING = 75.0  # s of play of one task that a process does in one go
LEAST = 2.0  # CHOICE: s that the expert keeps the pad, and until there is progress


@dataclass(frozen=True)
class Config(Many):
    policy: str = "weights/policy.safetensors"  # to start from
    tasks: str = "grove-trail,strike-bombs,puck-slalom"  # GAME-TASK,...
    minutes: float = 15.0  # of play in each round, over all tasks
    rounds: int = 3  # of play and training
    patience: float = 3.0  # s without progress after which the expert takes the pad
    # minutes of the expert's play of all thirty tasks, mixed in: what else it can do shall stay
    old: float = 10.0
    share: float = 0.5  # of each training that the new data are
    steps: int = 300  # of training in each round
    batch: int = 64  # frames per step
    lr: float = 3e-4  # of training, peak
    freeze: bool = True  # leave the vision encoder as it is
    denoise: int = 4  # denoising steps of play (0: as the model says)
    seeds: int = 20  # episodes per task, before and after
    out: str = "data/corrections"  # folder
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


class Sitting(typing.NamedTuple):
    """Some episodes of one task, one after the other."""

    game: str
    task: str
    round: int
    number: int
    seconds: float

    def __str__(self):
        return f"{self.game}-{self.task}-{self.round}-{self.number}"


def main(c: Config) -> dict:
    """In each round, play: the policy has the pad, and the expert takes it where there is no
    progress; filter; fine-tune.  Beside it, the same minutes of the expert alone.  Progress before
    and after.  Finished parts are skipped; more --rounds and --seeds go on.
    """
    expect(c, minutes=(0.05, 1e6), rounds=(1, 100), patience=(0.1, 1e6), old=(0, 1e6))
    expect(c, share=(0.01, 0.99), steps=(1, 1e9), batch=(1, 1e6), seeds=(1, 1e6))
    tasks = named_tasks(c.tasks)
    start = shipped(c.policy)
    begin(start, c)
    every = evaluation.chosen("all", "all")
    old = demonstrated(Path(c.out) / "old", start, every, c.old, c) if c.old else ""
    played = {"before": play(start, f"{c.out}/before", tasks, c)}
    turns = {}
    for arm in ARMS:
        policy = start
        new = []  # folders of shards, of this round and of those before
        for k in range(c.rounds):
            folder = Path(c.out) / arm / f"round-{k}"
            patience = c.patience if arm == "corrections" else 0.0
            done = sit_down(folder / "videos", policy, tasks, c.minutes, k, patience, c)
            turns.setdefault(arm, []).append(print_totals(arm, k, done))
            new.append(shards_of(folder, c))
            policy = fine_tuned(policy, new, old, folder, c)
        played[arm] = play(policy, f"{folder}/play", tasks, c)
    return report(played, turns, tasks, c)


def begin(policy: str, c: Config) -> None:
    """OUT/settings.json: what its films and shards are of.  SystemExit if they are of other
    settings; with --fresh they are removed, so that none is left among the new ones.
    """
    evaluation.check_policy(evaluation.Play(policy=policy, steps=c.denoise))
    out = Path(c.out)
    path = out / "settings.json"
    if c.fresh:
        for name in ("old", "before", *ARMS):
            shutil.rmtree(out / name, ignore_errors=True)
    elif path.exists():
        refuse_another(out, json.loads(path.read_bytes()), settings(policy, c))
    artefact.write_bytes(path, json.dumps(settings(policy, c)).encode())


def settings(policy: str, c: Config) -> dict:
    """All but --rounds and --seeds, of which there may be more."""
    return {k: v for k, v in recipe_of(c, policy).items() if k not in ("policy", "rounds", "seeds")}


def named_tasks(text: str) -> list[tuple[str, str]]:
    """[(game, task)] of --tasks; SystemExit if there is no such task."""
    pairs = [tuple(word.partition("-")[::2]) for word in text.split(",")]
    for name, task in pairs:
        if task not in evaluation.game(name).TASKS:
            there = ", ".join(evaluation.game(name).TASKS)
            raise SystemExit(f"--tasks {name}-{task}: {name} has {there}")
    return pairs


# ---- play, filter, fine-tune ---------------------------------------------------------------------


def demonstrated(folder: Path, policy: str, tasks, minutes: float, c: Config) -> str:
    """Shards of the expert's play of these tasks."""
    print_totals("old", 0, sit_down(folder / "videos", policy, tasks, minutes, 0, 0.0, c))
    return shards_of(folder, c)


def sit_down(folder, policy: str, tasks, minutes: float, k: int, patience: float, c: Config):
    """What `sit` returns of all sittings of a round, which last so many minutes together."""
    each = 60 * minutes / len(tasks)
    count = math.ceil(each / SITTING)
    sittings = [Sitting(*t, k, n, each / count) for n in range(count) for t in tasks]
    key = {"policy": artefact.source(policy)["sha256"] if patience else "", "patience": patience}
    key |= {"denoise": c.denoise, "seed": c.seed}
    work = functools.partial(sit, folder=folder, policy=policy, key=key, c=c)
    return for_each(work, sittings, c.workers, "sittings", c.ray)


def sit(sitting: Sitting, folder: Path, policy: str, key: dict, c: Config) -> dict:
    """Play and film episodes until the time of a sitting is over: frames, those of the expert, how
    often he took the pad, seconds by the clock.

    FOLDER/<sitting>.json keeps it.
    """
    path = folder / f"{sitting}.json"
    key = {**key, "seconds": sitting.seconds}
    if path.exists() and not c.fresh:
        found = json.loads(path.read_bytes())
        if found["of"] != key:
            raise SystemExit(f"{path}: of another play; give another --out, or --fresh")
        return found
    began = time.time()
    name = zlib.crc32(f"{sitting.game}-{sitting.task}".encode())
    rng = np.random.default_rng([c.seed, sitting.round, sitting.number, name])
    out = {"of": key, "frames": 0, "person": 0, "turns": 0, "progress": []}
    left = round(sitting.seconds * FPS)
    for n in range(left):
        seed = int(rng.integers(1 << 31))
        agent = evaluation.Policy(policy, c.device, evaluation.Play.execute, c.denoise, seed)
        film = folder / f"{sitting}-{n}.mp4"
        people, progress = episode(sitting, seed, agent, key["patience"], left, film)
        out["frames"] += len(people)
        out["person"] += sum(people)
        out["turns"] += int((np.diff(people, prepend=0) > 0).sum())
        out["progress"].append(progress)
        left -= len(people)
        if left < FPS:
            break
    out["clock"] = round(time.time() - began, 1)
    artefact.write_bytes(path, json.dumps(out).encode())
    return out


def episode(sitting: Sitting, seed: int, agent, patience: float, room: int, film: Path):
    """Play and film an episode of at most `room` frames: ([who had the pad in each], progress)."""
    name, task = sitting.game, sitting.task
    command = (name, task, str(seed))  # which words started it is of no use to filter.py
    recording = Recording(sim.Play(record=str(film), fps=FPS, command=command, fresh=True))
    expert = evaluation.Expert(name, seed)
    turns = Turns(patience)
    pad, person = RELEASED, False
    with evaluation.launch(name, task, seed) as env, contextlib.ExitStack() as stack:
        frame, info = env.reset(seed=seed)
        for _ in range(room):
            recording.add(env.render(), info, pad, stack, person)
            if info["score"]["over"]:
                break
            pad = expert(None, info)
            person = turns(info["score"]["progress"])
            if person:
                agent.history(frame)
                agent.rows.forget()  # it looks anew when it gets the pad back
            else:
                pad = agent(frame, info)
            frame, _, ended, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
            if ended:
                raise GameError(evaluation.how_it_ended(env, info))
    with contextlib.redirect_stdout(None):
        recording.write(game=name)
    return recording.people, info["score"]["progress"]


class Turns:
    """Who has the pad, frame by frame: the expert after `patience` s without progress, until there
    has been some and LEAST s are over.  patience 0: always the expert.
    """

    def __init__(self, patience: float):
        self.patience = patience
        self.best = 0.0
        self.still = 0  # frames without progress
        self.taken = 0  # frames since the expert took the pad; 0: the policy has it
        self.helped = False  # there has been progress since

    def __call__(self, progress: float) -> bool:
        if not self.patience:
            return True
        rose = progress > self.best
        self.best = max(self.best, progress)
        self.still = 0 if rose else self.still + 1
        self.helped |= rose
        if self.taken:
            self.taken += 1
            if self.helped and self.taken > LEAST * FPS:
                self.taken = self.still = 0
        elif self.still >= self.patience * FPS:
            self.taken, self.helped = 1, False
        return self.taken > 0


def print_totals(what: str, k: int, done: list[dict]) -> dict:
    """The sittings of a round together, printed."""
    total = {key: sum(d[key] for d in done) for key in ("frames", "person", "turns", "clock")}
    minutes = total["frames"] / FPS / 60
    print(
        f"{what}, round {k}: {minutes:.1f} minutes of play in {total['clock'] / 60:.1f} "
        f"process-minutes; the expert had the pad {total['turns']} times, "
        f"{total['person'] / total['frames']:.0%} of the frames",
        flush=True,
    )
    return total


def shards_of(folder: Path, c: Config) -> str:
    """The folder of the shards of folder/videos; films that are filtered already are skipped."""
    out = flags(labels=folder / "videos", out=folder / "shards", validation=0)
    run_stage("filter.py", str(folder / "videos"), *out, *c.flags)
    return str(folder / "shards")


def fine_tuned(policy: str, new: list[str], old: str, run: Path, c: Config) -> str:
    """The policy, trained further on the new shards beside the old ones."""
    data = ",".join([*new, f"{old}:{1 - c.share:g}"] if old else new)
    how = flags(steps=c.steps, batch=c.batch, micro=min(32, c.batch), lr=c.lr)
    how += flags(warmup=max(1, c.steps // 20), device=c.device, seed=c.seed, fresh=c.fresh)
    how += ["--no-recompute", "--freeze" if c.freeze else "--no-freeze"]
    run_stage("train.py", *flags(config="finetune", init=policy, data=data, out=run), *how)
    return str(run / "model.safetensors")


# ---- before and after ----------------------------------------------------------------------------


def play(policy: str, folder: str, tasks, c: Config) -> dict:
    """(game, task) -> the policy's episodes, at the same levels each time."""
    common = {"device": c.device, "seed": c.seed, "workers": c.workers, "ray": c.ray}
    levels = evaluation.Play(
        policy=policy, seeds=c.seeds, steps=c.denoise, out=folder, fresh=c.fresh, **common
    )
    suite = evaluation.built_in_suite(levels)._replace(tasks=tasks, players=("policy",))
    suite.play(evaluation.built_in)
    records = suite.records()
    return {t: [r for r in records if (r["game"], r["task"]) == t] for t in tasks}


def report(played: dict, turns: dict, tasks, c: Config) -> dict:
    """Print the tables; OUT/corrections.json.

    Gains are over the same levels before and after: their bootstrap is over these pairs.
    """
    print(
        f"\n{c.seeds} episodes a task, the same levels each time; one training, so the 95 % "
        f"intervals are over levels alone\n{'':34s}{'completed, %':>14s}{'progress':>20s}"
        f"{'gain in progress':>26s}"
    )
    out = {"play": turns, "tasks": {}}
    groups = {"-".join(task): [task] for task in tasks}
    if len(tasks) > 1:
        groups["all"] = tasks
    for name, group in groups.items():
        before = [r["progress"] for task in group for r in played["before"][task]]
        for arm, episodes in played.items():
            mine = [r for task in group for r in episodes[task]]
            row = evaluation.summary(mine)
            line = f"{name:18s}{arm:16s}{percent(row):>14s}{mean_progress(row):>20s}"
            if arm != "before":
                gains = np.subtract([r["progress"] for r in mine], before)
                row["gain"] = evaluation.interval(gains)
                line += "{:+12.2f} [{:+.2f}, {:+.2f}]".format(*row["gain"])
            print(line)
            out["tasks"].setdefault(name, {})[arm] = row
    text = json.dumps(out, indent=1).encode()
    artefact.write_bytes(Path(c.out) / "corrections.json", text)
    return out
