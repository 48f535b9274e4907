"""What each part is worth: python eval.py ablate"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, flags, run_stage

from bench.report import percent

ABLATIONS = {  # name -> (flags of filter.py, flags of train.py, weights, flags of eval.py play)
    "as published": ("", "", "model", ""),
    "null chunks kept": ("--min-active 0", "", "model", ""),
    "overlay not masked": ("--no-mask", "", "model", ""),
    "true actions": ("--labels {data}/videos", "", "model", ""),
    "EMA off": ("", "", "raw", ""),
    "1 denoising step": ("", "", "model", "--steps 1"),
    "4 denoising steps": ("", "", "model", "--steps 4"),
    "1 action executed": ("", "", "model", "--execute 1"),
    "4 actions executed": ("", "", "model", "--execute 4"),
    "16 actions executed": ("", "", "model", "--execute 16"),
    "chunks of 4, all executed": ("", "--horizon 4", "model", "--execute 4"),
    "chunks of 8, all executed": ("", "--horizon 8", "model", "--execute 8"),
}


@dataclass(frozen=True)
class Config(Many):
    data: str = "data/tiny"  # folder of videos/ and labels/, as train.py --config tiny leaves it
    net: str = "tiny"  # preset of train.py
    steps: int = 0  # of training (0: as the preset says)
    games: str = "all"  # to play
    seeds: int = 20  # episodes per task
    rows: str = "all"  # of the table: parts of their names, as in steps,EMA
    out: str = "data/ablate"  # folder
    workers: int = os.cpu_count() or 1  # processes


def main(c: Config) -> None:
    """Run the published commands with one flag changed at a time, skipping what is finished; a
    table of what the policy then completes.
    """
    if not Path(c.data, "labels").is_dir():
        raise SystemExit(
            f"{c.data}: no videos/ and labels/ there; python train.py --config {c.net} makes them"
        )
    run_once = functools.cache(run_stage)  # rows share shards and runs
    lines = []
    for name in ABLATIONS:
        if c.rows == "all" or any(part in name for part in c.rows.split(",")):
            success = play_ablated(name, c, run_once)
            progress = "{:.2f} [{:.2f}, {:.2f}]".format(*success["progress"])
            lines.append(f"{name:28s}{percent(success):>14s}   {progress}\n")
    print(f"\n{'':28s}{'completed, %':>14s}   progress\n" + "".join(lines).rstrip("\n"))
    artefact.write_bytes(f"{c.out}/ablate.txt", "".join(lines).encode())


def play_ablated(name: str, c: Config, run_once) -> dict:
    """Filter, train and play with the flags of a row; what the policy reaches over all tasks."""
    filtering, training, weights, playing = (text.format(data=c.data) for text in ABLATIONS[name])
    shards = folder(c, "shards", filtering)
    run = folder(c, "run", filtering + training)
    played = folder(c, "play", filtering + training + weights + playing)
    usual = flags(device=c.device, seed=c.seed)
    cutting = flags(labels=f"{c.data}/labels", out=shards)
    run_once("filter.py", f"{c.data}/videos", *cutting, *c.flags, *filtering.split())
    fitting = flags(config=c.net, data=shards, out=run, raw=True, fresh=c.fresh)
    steps = flags(steps=c.steps) if c.steps else []
    run_once("train.py", *fitting, *usual, *steps, *training.split())
    policy = f"{run}/{weights}.safetensors"
    episodes = flags(policy=policy, games=c.games, seeds=c.seeds, out=played)
    run_once("eval.py", "play", *episodes, *usual, *c.flags, *playing.split())
    report = json.loads(Path(played, "report.json").read_bytes())
    return report["cells"]["all"]["all"]["policy"]


def folder(c: Config, kind: str, flags_text: str) -> str:
    """A folder in --out that is named by the flags that made it."""
    return f"{c.out}/{kind}{re.sub(r'[^a-z0-9]+', '-', flags_text)}".rstrip("-")
