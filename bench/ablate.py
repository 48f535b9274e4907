"""What each part is worth: python eval.py ablate"""

from __future__ import annotations

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, run_stage

import eval as evaluation

# ---- ablate: what each part is worth -------------------------------------------------------------

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
    chosen = [
        name
        for name in ABLATIONS
        if c.rows == "all" or any(part in name for part in c.rows.split(","))
    ]
    fresh, seed, once, lines = (
        ("--fresh",) * c.fresh,
        ("--seed", str(c.seed)),
        functools.cache(run_stage),
        [],
    )
    for name in chosen:
        cut, fit, weights, hands = (flags.format(data=c.data) for flags in ABLATIONS[name])
        shards, run, played = (
            f"{c.out}/{kind}{re.sub(r'[^a-z0-9]+', '-', what)}".rstrip("-")
            for kind, what in (
                ("shards", cut),
                ("run", cut + fit),
                ("play", cut + fit + weights + hands),
            )
        )
        once(
            "filter.py",
            f"{c.data}/videos",
            "--labels",
            f"{c.data}/labels",
            "--out",
            shards,
            *c.flags,
            *cut.split(),
        )
        once(
            "train.py",
            "--config",
            c.net,
            "--data",
            shards,
            "--out",
            run,
            "--raw",
            "--device",
            c.device,
            *seed,
            *fresh,
            *(("--steps", str(c.steps)) if c.steps else ()),
            *fit.split(),
        )
        once(
            "eval.py",
            "play",
            "--policy",
            f"{run}/{weights}.safetensors",
            "--games",
            c.games,
            "--seeds",
            str(c.seeds),
            "--out",
            played,
            "--device",
            c.device,
            *seed,
            *c.flags,
            *hands.split(),
        )
        mine = json.loads(Path(played, "report.json").read_bytes())["cells"]["all"]["all"]["policy"]
        lines.append(
            f"{name:28s}{evaluation.percent(mine):>14s}   "
            + "{:.2f} [{:.2f}, {:.2f}]".format(*mine["progress"])
        )
    print(f"\n{'':28s}{'completed, %':>14s}   progress\n" + "\n".join(lines))
    artefact.write_bytes(f"{c.out}/ablate.txt", ("\n".join(lines) + "\n").encode())
