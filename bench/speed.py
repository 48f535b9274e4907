"""Every stage's speed on this machine, beside the published job: python eval.py speed"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import time
from dataclasses import dataclass

from common import artefact
from common.command_line import Common, expect
from common.device import pick_device
from common.inputs import expand
from common.training import machine
from common.workers import for_each

import numpy as np
import torch

import eval as evaluation
import extract
import filter
import model
import parse
import sim
import train
from bench import flops, stepping, training
from templates import library

# of the paper
HOURS = 71_000  # of raw video
KEPT = 40_000  # hours of them
VIDEOS = 38_739


@dataclass(frozen=True)
class Config(Common):
    # preset that is trained and played: tiny, small or paper; auto: paper on a GPU, tiny without
    net: str = "auto"
    clips: int = 6  # videos of 20 s, recorded for this
    seconds: float = 5.0  # to time the training for: data, network and both
    out: str = "data/speed.json"  # the same figures
    workers: int = os.cpu_count() or 1  # processes of record, extract and filter


def main(c: Config) -> list[dict]:
    """Each stage's own functions on fresh recordings, and what the published job would take this
    machine.
    """
    device = pick_device(c.device)
    net = ("paper" if device.startswith("cuda") else "tiny") if c.net == "auto" else c.net
    expect(c, clips=(1, 10_000), seconds=(0.1, 1e5), workers=(1, 4096))
    if net not in set(train.CONFIGS) & set(model.CONFIGS):
        raise SystemExit(f"--net {net}: expected tiny, small, paper or auto")
    minutes = 1 + c.clips // 6 + c.seconds // 5
    print(
        f"speed of every stage, {machine(device)}: about {minutes:.0f} minutes on a quiet machine",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="nitrogen-speed-") as folder:
        rates = time_data(folder, device, c)
        how = {"data": f"{folder}/shards", "device": device, "seed": c.seed}
        training_rates = training.main(dataclasses.replace(train.CONFIGS[net], **how), c.seconds)
        rates["train"] = training_rates["both"]
    print("policy and simulator", flush=True)
    rates |= {"policy": policy_rate(net, device), "simulator": simulator_rate(c.seed)}
    paper, here = work_of("paper"), work_of(net)
    heavier = {k: paper[k] / here[k] for k in here}
    rows = side_by_side(rates, heavier, train.CONFIGS["paper"])
    print_speed(rows, net)
    out = {"machine": machine(device), "device": device, "net": net, "stages": rows}
    artefact.write_bytes(c.out, json.dumps(out, indent=1).encode())
    return rows


# ---- measured here -------------------------------------------------------------------------------


def time_data(folder: str, device: str, c: Config) -> dict:
    """Record videos, then locate, parse and filter them: videos or frames per second of each."""
    videos, labels, shards = (f"{folder}/{name}" for name in ("videos", "labels", "shards"))
    length = evaluation.Record.seconds
    minutes = c.clips * length / 60
    how = {"seed": c.seed, "workers": c.workers}
    evaluation.record(evaluation.Record(out=videos, minutes=minutes, **how))
    extract.bank_of(library.pool(), "sift")  # once for all videos, and kept
    to_locate = functools.partial(extract.label, extract.Config(out=labels))
    reading = parse.Config(out=labels, device=device)
    to_parse = functools.partial(parse.parse_video, cfg=reading)
    making = filter.Config(labels=labels, out=shards, validation=0)
    to_filter = functools.partial(filter.filter_video, c=making)
    paths = expand([videos])
    frames = length * evaluation.FPS
    return {
        "locate": 1 / seconds_a_video(to_locate, paths, c.workers, "videos to locate"),
        # parse.py uses all cores by itself
        "parse": frames / seconds_a_video(to_parse, paths, 0, "videos to parse"),
        "filter": frames / seconds_a_video(to_filter, paths, c.workers, "videos to filter"),
    }


def seconds_a_video(fn, videos, workers: int, what: str) -> float:
    """Of this machine with all its workers.  The median: the first one loads what all need."""
    taken = for_each(functools.partial(stopwatch, fn), videos, workers, what)
    return float(np.median(taken)) / max(1, min(workers, len(videos)))


def stopwatch(fn, video: str) -> float:
    """Seconds of fn(video)."""
    began = time.perf_counter()
    fn(video)
    return time.perf_counter() - began


def policy_rate(net: str, device: str) -> float:
    """Chunks per second."""
    brain = model.accelerate(model.NitroGen(model.CONFIGS[net]).to(device).eval())
    frames = np.zeros((1, artefact.FRAME, artefact.FRAME, 3), np.uint8)
    return 1 / flops.timed(lambda: brain.sample(frames), torch.device(device))


def simulator_rate(seed: int) -> float:
    """Frames of a built-in game per second."""
    bench = stepping.Config(fps=evaluation.FPS)
    env = evaluation.launch("ridge", next(iter(evaluation.game("ridge").TASKS)), seed)
    seconds = stepping.time_frames(env, sim.StickyRandom(seed, menu=False), bench)[0]
    return bench.frames / seconds


def work_of(net: str) -> dict:
    """GFLOP of a sample in training, and of a chunk of the policy."""
    size = model.CONFIGS[net]
    return {
        "train": flops.gflop(size, 1, draws=train.CONFIGS[net].draws),
        "policy": flops.gflop(size, 1, size.steps),
    }


# ---- the published job ---------------------------------------------------------------------------


def side_by_side(rates: dict, heavier: dict, paper) -> list[dict]:
    """Per stage, in the order of the data: units a second here, units of the published job, and
    the days that this machine alone would need for it.

    heavier: how much more work a unit of the published job is than one that was measured.
    """
    jobs = published_jobs(paper)
    rows = []
    for stage, (amount, unit, job) in jobs.items():
        more = heavier.get(stage, 1.0)
        row = {"stage": stage, "rate": rates[stage], "unit": f"{unit}/s", "amount": amount}
        days = amount * more / rates[stage] / 86400
        rows.append({**row, "job": job, "heavier": more, "days": days})
    return rows


def published_jobs(paper) -> dict:
    """Stage -> (amount, its unit, what it is)."""
    fps, execute = evaluation.FPS, evaluation.Play.execute
    tasks = [t for name in evaluation.game_names() for t in evaluation.game(name).TASKS.values()]
    play = sum(t.seconds for t in tasks) * evaluation.Play.seeds * fps
    frames = HOURS * 3600 * fps
    samples = paper.batch * paper.steps
    share = samples / (KEPT * 3600 * fps)
    steps = f"{paper.steps:,} steps of {paper.batch:,} = {share:.2f} x {KEPT:,} h"
    chunks = f"the suite: {play / fps / 3600:.0f} h of play, {execute} actions a chunk"
    return {
        "locate": (VIDEOS, "videos", f"{VIDEOS:,} videos, {HOURS:,} h"),
        "parse": (frames, "frames", f"{HOURS:,} h at {fps} frames/s"),
        "filter": (frames, "frames", f"{HOURS:,} h read, {KEPT:,} h kept"),
        "train": (samples, "samples", steps),
        "policy": (play / execute, "chunks", chunks),
        "simulator": (play, "steps", f"the suite, {fps} steps/s of play"),
    }


def print_speed(rows: list[dict], net: str) -> None:
    total = sum(r["days"] for r in rows)
    line = "{:10s} {:>30s}   {:48s} {:>12s} {:>6s}"
    print("\n" + line.format("stage", "measured here", "published job", "machine-days", "share"))
    for r in rows:
        days, share = f"{r['days']:,.1f}", f"{r['days'] / total:.1%}"
        print(line.format(r["stage"], measured(r, net), r["job"], days, share))
    most = max(rows, key=lambda r: r["days"])
    print(
        f"Most would cost {most['stage']}: {most['days'] / total:.0%} of {total:,.0f} days of this "
        "machine."
    )
    size = f"{evaluation.WIDTH} x {evaluation.HEIGHT} at {evaluation.FPS} frames/s"
    scaled = "".join(
        f"; {r['stage']}: days x {r['heavier']:,.0f}, the paper's network for {net} by arithmetic"
        for r in rows
        if r["heavier"] != 1
    )
    print(
        f"Scaled: videos as here, {size}, one search a video however long; steps and batch are "
        f"train.py's choice, the paper does not give them{scaled}."
    )


def measured(row: dict, net: str) -> str:
    """The rate of a stage, in the unit that says most."""
    stage, rate = row["stage"], row["rate"]
    if stage == "locate":
        return f"{3600 * rate:,.0f} videos/h"
    if stage == "policy":
        return f"{1e3 / rate:,.1f} ms a chunk, {net}"
    text = f"{rate:,.{1 if rate < 100 else 0}f} {row['unit']}"
    if stage in ("parse", "filter"):
        return f"{text}, {rate / evaluation.FPS:.1f} x real time"
    return f"{text}, {net}" if stage == "train" else text
