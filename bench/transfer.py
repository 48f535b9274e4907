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
from common.command_line import Many, run_stage
from common.pictures import expand, video_facts
from common.workers import for_each

import numpy as np

import eval as evaluation
from bench import report

# ---- transfer: is it worth to have seen other games? (paper section 3) ---------------------------


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


def main(c: Config) -> dict:
    """Pretrain on the other games; train on ever more of the held-out one, from there and from
    scratch; play; draw.  Finished parts are skipped.
    """
    hours = sorted(float(h) for h in c.hours.split(",") if re.fullmatch(r"\d+\.?\d*|\.\d+", h))
    if (
        not len(set(hours)) == len(c.hours.split(","))
        or hours[0] == 0
        or c.repeats < 1
        or c.seeds < 1
    ):
        raise SystemExit(
            f"--hours {c.hours} --repeats {c.repeats} --seeds {c.seeds}: expected numbers above 0, as in --hours 0.25,0.5,1 --repeats 3 --seeds 10"
        )
    others, root = [n for n in evaluation.game_names() if n != c.held_out], Path(c.out) / c.held_out
    evaluation.game(c.held_out)
    common = (
        "--config",
        c.net,
        "--device",
        c.device,
        "--workers",
        str(c.workers),
        *("--fresh",) * c.fresh,
    )
    seen, labels = demonstrations(root / "others", others, c.others, c)
    run_stage("filter.py", *seen, "--labels", labels, "--out", f"{root}/others/shards", *c.flags)
    run_stage(
        "train.py",
        *common,
        "--data",
        f"{root}/others/shards",
        "--out",
        f"{root}/pretrained",
        "--steps",
        str(c.pretrain),
        "--seed",
        str(c.seed),
    )
    (clips, labels), results = demonstrations(root / "own", [c.held_out], hours[-1], c), {}
    for h in hours:
        run_stage(
            "filter.py",
            *lasting(clips, h),
            "--labels",
            labels,
            "--out",
            f"{root}/own/shards-{h:g}h",
            *c.flags,
        )
        for seed, arm in itertools.product(range(c.seed, c.seed + c.repeats), ARMS):
            run = f"{root}/{h:g}h-{arm.replace(' ', '-')}-{seed}"
            init = ("--init", f"{root}/pretrained/model.safetensors") if arm == ARMS[1] else ()
            run_stage(
                "train.py",
                *common,
                "--data",
                f"{root}/own/shards-{h:g}h",
                "--out",
                run,
                "--steps",
                str(c.steps),
                "--warmup",
                str(max(1, c.steps // 20)),
                "--seed",
                str(seed),
                *init,
            )
            results.setdefault((h, arm), []).append(played(run, c))
    return transfer_curve(results, root, c)


def demonstrations(folder: Path, games, hours: float, c: Config) -> tuple[list[str], str]:
    """(videos of the experts, the games in turn, for so long; folder of what their overlays say)"""
    where = c.data or folder
    if not c.data:
        whole = (
            math.ceil((3600 * hours - 1) / evaluation.Record.seconds) * evaluation.Record.seconds
        )
        run_stage(
            "eval.py",
            "record",
            "--out",
            f"{folder}/videos",
            "--games",
            ",".join(games),
            "--minutes",
            str(whole / 60),
            "--seed",
            str(c.seed),
            *c.flags,
        )
    game_of, number = (lambda v, i=i: Path(v).stem.rpartition("-")[i] for i in (0, 2))
    videos = lasting(
        sorted(
            (v for v in expand([f"{where}/videos"]) if game_of(v) in games),
            key=lambda v: int(number(v)),
        ),
        hours,
    )
    if not c.data:
        run_stage("extract.py", *videos, "--out", f"{folder}/labels", *c.flags)
        run_stage(
            "parse.py",
            *videos,
            "--out",
            f"{folder}/labels",
            "--device",
            c.device,
            *("--fresh",) * c.fresh,
        )
    return videos, f"{where}/labels"


def lasting(videos: list[str], hours: float) -> list[str]:
    """The first of them, for so long."""
    ends = np.cumsum([facts["frames"] / facts["fps"] for facts in map(video_facts, videos)])
    if not len(ends) or ends[-1] < 3600 * hours - 1:
        raise SystemExit(
            f"{hours:g} hours of demonstrations are wanted, and there are {ends[-1] / 3600 if len(ends) else 0:.3f}: {' '.join(videos[:1])} ..."
        )
    return videos[: int(np.searchsorted(ends, 3600 * hours - 1)) + 1]


def played(run: str, c: Config) -> list:
    """(progress, success) of a policy's episodes at the held-out game; they stay beside it."""
    policy, path = f"{run}/model.safetensors", Path(run) / "transfer.json"
    key = {"policy": artefact.source(policy)["sha256"], "seeds": c.seeds}
    if path.exists() and (found := json.loads(path.read_text()))["of"] == key:
        return found["episodes"]
    jobs = [
        evaluation.Job("policy", c.held_out, t, 10_000 + s)
        for t in evaluation.game(c.held_out).TASKS
        for s in range(c.seeds)
    ]
    scores = for_each(
        functools.partial(
            evaluation.in_environment, c=evaluation.Play(policy=policy, device=c.device)
        ),
        jobs,
        c.workers,
        "episodes",
        c.ray,
    )
    episodes = [(score["progress"], score["success"]) for score in scores]
    artefact.write_bytes(path, json.dumps({"of": key, "episodes": episodes}).encode())
    return episodes


def resampled(scores, draws: int = 2000) -> np.ndarray:
    """[draws, arm, 2]: means of scores [arm, training, task, level, 2] over trainings and levels
    drawn anew.

    What one training plays is no independent sample, and neither is what is played on one level:
    both are drawn, the levels for both arms alike.
    """
    rng, (arms, trainings, tasks, levels, _) = np.random.default_rng(0), scores.shape
    training, level = (
        rng.integers(trainings, size=(draws, arms, trainings, 1, 1)),
        rng.integers(levels, size=(draws, 1, 1, tasks, levels)),
    )
    return scores[
        np.arange(arms)[:, None, None, None], training, np.arange(tasks)[:, None], level
    ].mean((2, 3, 4))


def relative(means) -> np.ndarray:
    """[..., 2]: gain of the second arm over the first, of means [..., arm, 2]; infinite from
    nothing, 0 from nothing to nothing.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means[..., 1, :] / means[..., 0, :] - 1, nan=0.0, posinf=np.inf)


def transfer_curve(results: dict, root: Path, c: Config) -> dict:
    """Progress and success over hours of data, 95 % intervals over trainings (from one pretraining)
    and levels: printed, transfer.json, transfer.png.
    """
    from matplotlib.figure import Figure

    hours, tasks = sorted({h for h, _ in results}), list(evaluation.game(c.held_out).TASKS)
    floor = np.mean(
        [
            evaluation.in_process(evaluation.Job("random", c.held_out, t, 10_000 + s))["progress"]
            for t in tasks
            for s in range(c.seeds)
        ]
    )
    print(
        f"{c.held_out}, {c.repeats} trainings x {len(tasks)} tasks x {c.seeds} levels: mean and 95 % interval over trainings and levels; "
        f"a random pad's progress: {floor:.2f}\n{'hours':>6s}{'':10s}"
        + "".join(f"{arm:>20s}" for arm in ARMS)
        + f"{'relative':>24s}"
    )
    curve, figure = [], Figure((8, 3))
    for h in hours:
        scores = np.array([results[h, arm] for arm in ARMS], float).reshape(
            2, c.repeats, len(tasks), c.seeds, 2
        )
        mean, draws = scores.mean((1, 2, 3)), resampled(scores)
        spread, gains = (
            np.percentile(draws, [2.5, 97.5], axis=0),
            np.percentile(relative(draws), [2.5, 97.5], axis=0, method="nearest"),
        )
        for k, name in enumerate(("progress", "success")):
            print(
                f"{h:6g}  {name:8s}"
                + "".join(
                    f"{mean[i, k]:8.2f} [{spread[0, i, k]:.2f}, {spread[1, i, k]:.2f}]"
                    for i in range(2)
                )
                + f"{relative(mean)[k]:+9.0%} [{gains[0, k]:+.0%}, {gains[1, k]:+.0%}]"
            )
        curve += [
            {
                "hours": h,
                "arm": arm,
                **{
                    name: dict(zip(("mean", "low", "high"), (mean[i, k], *spread[:, i, k])))
                    for k, name in enumerate(("progress", "success"))
                },
            }
            for i, arm in enumerate(ARMS)
        ]
    print(
        "the paper's own gains in success: +10, +14 and +7 % (roguelike, 60, 120 and 240 h), +5, +25 and +52 % (3D action RPG, 30 h, by category)"
    )
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name in zip(axes, ("progress", "success")):
        for arm in ARMS:
            mean, low, high = np.array(
                [[p[name][v] for v in ("mean", "low", "high")] for p in curve if p["arm"] == arm]
            ).T
            ax.plot(hours, mean, "o-", label=arm)
            ax.fill_between(hours, low, high, alpha=0.2)
        (
            ax.set_xlabel(f"hours of {c.held_out}"),
            ax.set_title(name),
            ax.set_ylim(0, 1),
            ax.grid(alpha=0.3),
        )
    axes[0].axhline(floor, color="#777", ls=":", label="random pad"), axes[0].legend(fontsize=8)
    artefact.write_bytes(root / "transfer.png", report.png(figure))
    out = {"config": dataclasses.asdict(c), "random": floor, "curve": curve}
    artefact.write_bytes(root / "transfer.json", json.dumps(out, indent=1).encode())
    return out
