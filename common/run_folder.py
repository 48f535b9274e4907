"""The folder of a run of train.py: what it goes on from, its log and its curve."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from common import ROOT, artefact
from common.command_line import typed

import numpy as np
from safetensors import SafetensorError

# ---- a run begins, or goes on --------------------------------------------------------------------


def saved_state(cfg, recipe: dict, first: bool) -> tuple[dict, int]:
    """(tensors, step) of an unfinished run of the same recipe, ({}, 0) if there is none.

    cfg: train.Config. first: whether this is the first process; the folder is made ready by it: the
    log loses the lines after that step.
    """
    path = cfg.run / "state.safetensors"
    # torchrun repeats --fresh when it starts killed processes again
    fresh = cfg.fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if fresh or not path.exists():
        if not fresh and (cfg.run / "model.safetensors").exists():
            raise SystemExit(
                f"{cfg.run}: holds a model but no {path.name}; "
                "give another --out, or --fresh to replace it"
            )
        if first:
            begin(cfg)
        return {}, 0
    tensors, info = artefact.read(path, "nitrogen.state/1")
    if not cfg.resume:
        raise SystemExit(
            f"{cfg.run}: holds a run already (step {info['step']}); "
            "drop --no-resume to go on, or --fresh to replace it"
        )
    refuse_another(cfg.run, info["recipe"], recipe)
    if first:
        cut_log(cfg.run / "log.jsonl", info["step"])
    return tensors, info["step"]


def refuse_another(path, saved: dict, recipe: dict) -> None:
    """SystemExit if the run that is kept here has another recipe."""
    mine = json.loads(json.dumps(recipe))
    # a flag that is off, and one that there was not yet, are the same
    other = [key for key in saved | mine if (mine.get(key) or 0) != (saved.get(key) or 0)]
    if other:
        raise SystemExit(
            f"{path}: holds a run with another {', '.join(other)}; "
            "give another --out, or --fresh to replace it"
        )


def cut_log(path: Path, step: int) -> None:
    """Drop the lines after a step, and one that was half written."""
    if path.exists():
        whole = [line for line in open(path) if line.endswith("\n")]
        known = [line for line in whole if json.loads(line)["step"] <= step]
        artefact.write_bytes(path, "".join(known).encode())


def begin(cfg) -> None:
    """Remove what an earlier run left, and keep the source and the command of this one."""
    # torchrun, if it starts this run again, would go on from the old files
    for name in ("log.jsonl", "state.safetensors", "model.safetensors"):
        (cfg.run / name).unlink(missing_ok=True)
    folder = cfg.run / "source"
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    for package in (ROOT, *packages):
        for path in package.glob("*.py"):
            shutil.copy(path, artefact.in_folder(folder / path.relative_to(ROOT)))
    command = shlex.join([sys.executable, *sys.argv])
    config = json.dumps(dataclasses.asdict(cfg), indent=1)
    (folder / "command.txt").write_text(f"{command}\n{config}\n")


# ---- its log -------------------------------------------------------------------------------------


@contextlib.contextmanager
def or_disk_full(cfg, step: int):
    """A full disk ends the run in one line."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        raise SystemExit(
            f"{cfg.run}: step {step} could not be saved ({e}); the checkpoint before it is whole; "
            "make room, the same command goes on from there"
        ) from None


def log(cfg, row: dict) -> None:
    with or_disk_full(cfg, row["step"]), open(cfg.run / "log.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n")
    if cfg.tensorboard:
        for key, value in row.items():
            events(cfg.run).add_scalar(key, value, row["step"])
        events(cfg.run).flush()


@functools.cache
def events(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SystemExit("--tensorboard needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter(str(folder))


def plot(cfg) -> None:
    """loss.png: the losses in log.jsonl."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in open(cfg.run / "log.jsonl")]
    figure = Figure(layout="tight")
    ax = figure.subplots()
    for key, label in (("loss", "training"), ("val", "held-out videos (averaged weights)")):
        points = [(row["step"], row[key]) for row in lines if key in row]
        if points:
            ax.plot(*np.transpose(points), label=label)
    ax.set_xlabel("step")
    ax.set_ylabel("flow-matching loss")
    ax.legend()
    ax.grid(alpha=0.3)
    figure.savefig(cfg.run / "loss.png", dpi=120)


def what_next(policy: Path) -> str:
    """How to go on from a finished run, in words."""
    further = typed("train.py", "--data", "SHARDS", "--init", str(policy), "--out", "ANOTHER")
    return f"policy -> {policy}\n  play it: {play_it(policy)}\n  train it further: {further}"


def play_it(policy: Path) -> str:
    return typed("eval.py", "play", "--policy", str(policy))
