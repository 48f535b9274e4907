"""Is it worth to have seen other games (paper section 3): python eval.py transfer"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, flags, run_stage
from common.inputs import expand
from common.pictures import video_facts
from common.workers import for_each

import numpy as np

import eval as evaluation
from bench import report


@dataclass(frozen=True)
class Config(Many):
    held_out: str = "ridge"  # the game that pretraining does not see
    hours: str = "0.25,0.5,1"  # of its demonstrations
    others: float = 2.0  # hours of demonstrations of the other games, in all
    net: str = "tiny"  # preset of train.py
    pretrain: int = 4500  # steps of pretraining
    steps: int = 1500  # of each training on the held-out game: the same data and compute for both
    repeats: int = 3  # seeds of each training
    seeds: int = 10  # episodes per task and training
    # folder of videos/, and labels/ or true actions beside them, to take demonstrations from;
    # empty: record and parse
    data: str = ""
    out: str = "data/transfer"  # folder
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


ARMS = ("from scratch", "fine-tuned")
MEASURES = ("progress", "success")
# printed beside ours
PAPER = (
    "the paper's own gains in success: +10, +14 and +7 % (roguelike, 60, 120 and 240 h), "
    "+5, +25 and +52 % (3D action RPG, 30 h, by category)"
)


def main(c: Config) -> dict:
    """Pretrain on the other games; train on ever more of the held-out one, from there and from
    scratch; play; draw.  Finished parts are skipped.
    """
    hours = checked_hours(c)
    evaluation.game(c.held_out)
    root = Path(c.out) / c.held_out
    others = [name for name in evaluation.game_names() if name != c.held_out]
    shards, pretrained = f"{root}/others/shards", f"{root}/pretrained"
    usual = flags(config=c.net, device=c.device, workers=c.workers, fresh=c.fresh)
    videos, labels = demonstrations(root / "others", others, c.others, c)
    run_stage("filter.py", *videos, *flags(labels=labels, out=shards), *c.flags)
    training = flags(data=shards, out=pretrained, steps=c.pretrain, seed=c.seed)
    run_stage("train.py", *usual, *training)
    videos, labels = demonstrations(root / "own", [c.held_out], hours[-1], c)
    results = {}  # hours, arm -> for each training, (progress, success) of its episodes
    for h in hours:
        shards = f"{root}/own/shards-{h:g}h"
        run_stage("filter.py", *lasting(videos, h), *flags(labels=labels, out=shards), *c.flags)
        for seed, arm in itertools.product(range(c.seed, c.seed + c.repeats), ARMS):
            run = f"{root}/{h:g}h-{arm.replace(' ', '-')}-{seed}"
            training = flags(data=shards, out=run, steps=c.steps, seed=seed)
            training += flags(warmup=max(1, c.steps // 20))
            if arm == "fine-tuned":
                training += flags(init=f"{pretrained}/model.safetensors")
            run_stage("train.py", *usual, *training)
            results.setdefault((h, arm), []).append(played(run, c))
    return transfer_curve(results, root, c)


def checked_hours(c: Config) -> list[float]:
    """--hours in rising order; SystemExit if one, --repeats or --seeds is no number above 0."""
    words = c.hours.split(",")
    hours = sorted({float(word) for word in words if re.fullmatch(r"\d+\.?\d*|\.\d+", word)})
    if len(hours) < len(words) or min(hours[0], c.repeats, c.seeds) <= 0:
        raise SystemExit(
            f"--hours {c.hours} --repeats {c.repeats} --seeds {c.seeds}: expected numbers above 0, "
            "as in --hours 0.25,0.5,1 --repeats 3 --seeds 10"
        )
    return hours


def demonstrations(folder: Path, games, hours: float, c: Config) -> tuple[list[str], str]:
    """So many hours of the experts' videos, from the games in turn, and the folder of their labels.

    They are recorded and parsed into `folder`, unless --data has them.
    """
    source = c.data or str(folder)
    if not c.data:
        length = evaluation.Record.seconds  # of a video
        minutes = math.ceil((3600 * hours - 1) / length) * length / 60
        recording = flags(out=f"{folder}/videos", games=",".join(games), minutes=minutes)
        run_stage("eval.py", "record", *recording, *flags(seed=c.seed), *c.flags)
    numbered = []
    for video in expand([f"{source}/videos"]):
        game, _, number = Path(video).stem.rpartition("-")
        if game in games:
            numbered.append((int(number), video))
    videos = lasting([video for _, video in sorted(numbered)], hours)
    labels = f"{source}/labels"
    if not c.data:
        run_stage("extract.py", *videos, *flags(out=labels), *c.flags)
        run_stage("parse.py", *videos, *flags(out=labels, device=c.device, fresh=c.fresh))
    return videos, labels


def lasting(videos: list[str], hours: float) -> list[str]:
    """The first of the videos that last so many hours together; SystemExit if all are too short."""
    wanted = 3600 * hours - 1
    seconds = 0.0
    for n, video in enumerate(videos, 1):
        facts = video_facts(video)
        seconds += facts["frames"] / facts["fps"]
        if seconds >= wanted:
            return videos[:n]
    raise SystemExit(
        f"{hours:g} hours of demonstrations are wanted, and there are {seconds / 3600:.3f}: "
        f"{' '.join(videos[:1])} ..."
    )


def played(run: str, c: Config) -> list:
    """(progress, success) of the episodes of a run's policy at the held-out game.

    transfer.json beside the policy keeps them.
    """
    policy = f"{run}/model.safetensors"
    path = Path(run) / "transfer.json"
    key = {"policy": artefact.source(policy)["sha256"], "seeds": c.seeds}
    if path.exists():
        found = json.loads(path.read_text())
        if found["of"] == key:
            return found["episodes"]
    play = functools.partial(
        evaluation.in_environment, c=evaluation.Play(policy=policy, device=c.device)
    )
    scores = for_each(play, jobs("policy", c), c.workers, "episodes", c.ray)
    episodes = [(score["progress"], score["success"]) for score in scores]
    artefact.write_bytes(path, json.dumps({"of": key, "episodes": episodes}).encode())
    return episodes


def jobs(player: str, c: Config) -> list:
    """The episodes of a player at the held-out game: its tasks, each at --seeds levels."""
    tasks = evaluation.game(c.held_out).TASKS
    levels = range(10_000, 10_000 + c.seeds)
    return [evaluation.Job(player, c.held_out, t, level) for t in tasks for level in levels]


# ---- statistics ----------------------------------------------------------------------------------


def resampled(scores, draws: int = 2000) -> np.ndarray:
    """Bootstrap means [draws, arm, 2] of scores [arm, training, task, level, 2].

    Neither the episodes of one training nor those on one level are independent samples. So
    trainings and levels are both drawn, the levels alike for both arms.
    """
    rng = np.random.default_rng(0)
    arms, trainings, tasks, levels, _ = scores.shape
    training = rng.integers(trainings, size=(draws, arms, trainings, 1, 1))
    level = rng.integers(levels, size=(draws, 1, 1, tasks, levels))
    arm, task = np.arange(arms)[:, None, None, None], np.arange(tasks)[:, None]
    return scores[arm, training, task, level].mean((2, 3, 4))


def relative(means) -> np.ndarray:
    """Gain [..., 2] of the second arm over the first, of means [..., arm, 2].

    From 0 to more it is infinite, from 0 to 0 it is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means[..., 1, :] / means[..., 0, :] - 1, nan=0.0, posinf=np.inf)


def transfer_curve(results: dict, root: Path, c: Config) -> dict:
    """Progress and success over hours of data: printed, transfer.json, transfer.png.

    The 95 % intervals are over trainings (from one pretraining) and levels.
    """
    tasks = len(evaluation.game(c.held_out).TASKS)
    floor = np.mean([evaluation.in_process(job)["progress"] for job in jobs("random", c)])
    print(
        f"{c.held_out}, {c.repeats} trainings x {tasks} tasks x {c.seeds} levels: "
        "mean and 95 % interval over trainings and levels; "
        f"a random pad's progress: {floor:.2f}\n"
        f"{'hours':>6s}{'':10s}{ARMS[0]:>20s}{ARMS[1]:>20s}{'relative':>24s}"
    )
    curve = []
    for h in sorted({h for h, _ in results}):
        scores = np.array([results[h, arm] for arm in ARMS], float)
        curve += compare_arms(h, scores.reshape(2, c.repeats, tasks, c.seeds, 2))
    print(PAPER)
    artefact.write_bytes(root / "transfer.png", report.png(draw(curve, floor, c.held_out)))
    out = {"config": dataclasses.asdict(c), "random": floor, "curve": curve}
    artefact.write_bytes(root / "transfer.json", json.dumps(out, indent=1).encode())
    return out


def compare_arms(hours: float, scores) -> list[dict]:
    """Print and return a point of both curves, of scores [arm, training, task, level, 2]."""
    draws = resampled(scores)
    mean = scores.mean((1, 2, 3))  # [arm, 2]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    gain = relative(mean)  # [2]
    gains = np.percentile(relative(draws), [2.5, 97.5], axis=0, method="nearest")
    points = [{"hours": hours, "arm": arm} for arm in ARMS]
    for k, measure in enumerate(MEASURES):
        line = f"{hours:6g}  {measure:8s}"
        for arm, point in enumerate(points):
            values = mean[arm, k], low[arm, k], high[arm, k]
            line += "{:8.2f} [{:.2f}, {:.2f}]".format(*values)
            point[measure] = dict(zip(("mean", "low", "high"), values, strict=True))
        print(f"{line}{gain[k]:+9.0%} [{gains[0, k]:+.0%}, {gains[1, k]:+.0%}]")
    return points


def draw(curve: list[dict], floor: float, held_out: str):
    """The curves of both arms with their intervals, a panel per measure."""
    from matplotlib.figure import Figure

    figure = Figure((8, 3))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, measure in zip(axes, MEASURES, strict=True):
        for arm in ARMS:
            points = [point for point in curve if point["arm"] == arm]
            hours = [point["hours"] for point in points]
            low, mean, high = (
                [point[measure][value] for point in points] for value in ("low", "mean", "high")
            )
            ax.plot(hours, mean, "o-", label=arm)
            ax.fill_between(hours, low, high, alpha=0.2)
        ax.set_xlabel(f"hours of {held_out}")
        ax.set_title(measure)
        ax.set_ylim(0, 1)
        ax.grid(alpha=0.3)
    axes[0].axhline(floor, color="#777", ls=":", label="random pad")
    axes[0].legend(fontsize=8)
    return figure
