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
from common.pictures import expand
from common.training import machine
from common.workers import for_each

import numpy as np

import eval as evaluation
import sim
from bench import flops, stepping, training
from templates import library

# ---- speed: every stage on this machine, beside the published job --------------------------------

HOURS, KEPT, VIDEOS = 71_000, 40_000, 38_739  # the paper's: of raw video; of them kept; videos


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
    import torch

    import extract
    import filter
    import model
    import parse
    import train

    device, sizes = pick_device(c.device), model.CONFIGS
    net = ("paper" if device.startswith("cuda") else "tiny") if c.net == "auto" else c.net
    expect(c, clips=(1, 10_000), seconds=(0.1, 1e5), workers=(1, 4096))
    if net not in set(train.CONFIGS) & set(sizes):
        raise SystemExit(f"--net {net}: expected tiny, small, paper or auto")
    with tempfile.TemporaryDirectory(prefix="nitrogen-speed-") as folder:
        labels, shards, length = f"{folder}/labels", f"{folder}/shards", evaluation.Record().seconds
        print(
            f"speed of every stage, {machine(device)}: about {1 + c.clips // 6 + c.seconds // 5:.0f} minutes on a quiet machine",
            flush=True,
        )
        evaluation.record(
            evaluation.Record(
                out=f"{folder}/videos",
                minutes=c.clips * length / 60,
                seed=c.seed,
                workers=c.workers,
            )
        )
        videos, seconds = expand([f"{folder}/videos"]), {}
        extract.bank_of(library.pool(), "sift")  # made once for all videos, and kept
        for name, workers, fn in (
            ("locate", c.workers, functools.partial(extract.label, extract.Config(out=labels))),
            # all cores as it is
            (
                "parse",
                0,
                functools.partial(parse.parse_video, cfg=parse.Config(out=labels, device=device)),
            ),
            (
                "filter",
                c.workers,
                functools.partial(
                    filter.filter_video, c=filter.Config(labels=labels, out=shards, validation=0)
                ),
            ),
        ):
            taken = for_each(functools.partial(stopwatch, fn), videos, workers, f"videos to {name}")
            # the median: the first one loads what all need
            seconds[name] = float(np.median(taken)) / max(1, min(workers, len(videos)))
        rates = training.main(
            dataclasses.replace(train.CONFIGS[net], data=shards, device=device, seed=c.seed),
            c.seconds,
        )
    print("policy and simulator", flush=True)
    brain = model.accelerate(model.NitroGen(sizes[net]).to(device).eval())
    frames = np.zeros((1, artefact.FRAME, artefact.FRAME, 3), np.uint8)
    latency = flops.timed(lambda: brain.sample(frames), torch.device(device))
    bench = stepping.Config(fps=evaluation.FPS)
    steps = (
        bench.frames
        / stepping.time_frames(
            evaluation.launch("ridge", next(iter(evaluation.game("ridge").TASKS)), c.seed),
            sim.StickyRandom(c.seed, menu=False),
            bench,
        )[0]
    )
    work = [
        {
            k: flops.gflop(sizes[n], 1, draws=train.CONFIGS[n].draws)
            if k == "train"
            else flops.gflop(sizes[n], 1, sizes[n].steps)
            for k in ("train", "policy")
        }
        for n in (net, "paper")
    ]
    rows = beside_paper(
        {
            "locate": 1 / seconds["locate"],
            **{k: length * evaluation.FPS / seconds[k] for k in ("parse", "filter")},
            "train": rates["both"],
            "policy": 1 / latency,
            "simulator": steps,
        },
        {k: work[1][k] / work[0][k] for k in work[0]},
        train.CONFIGS["paper"],
    )
    print_speed(rows, net)
    artefact.write_bytes(
        c.out,
        json.dumps(
            {"machine": machine(device), "device": device, "net": net, "stages": rows}, indent=1
        ).encode(),
    )
    return rows


def stopwatch(fn, video: str) -> float:
    """Seconds of fn(video)."""
    began = time.perf_counter()
    fn(video)
    return time.perf_counter() - began


def beside_paper(rates: dict, heavier: dict, paper) -> list[dict]:
    """Per stage, in the order of the data: units a second here, units of the published job, how
    often as much work each of its units is as the one that was measured (heavier), and so the days
    that this machine alone would need."""
    play = (
        sum(
            t.seconds
            for name in evaluation.game_names()
            for t in evaluation.game(name).TASKS.values()
        )
        * evaluation.Play.seeds
        * evaluation.FPS
    )
    frames = HOURS * 3600 * evaluation.FPS
    jobs = {
        "locate": (VIDEOS, "videos", f"{VIDEOS:,} videos, {HOURS:,} h"),
        "parse": (frames, "frames", f"{HOURS:,} h at {evaluation.FPS} frames/s"),
        "filter": (frames, "frames", f"{HOURS:,} h read, {KEPT:,} h kept"),
        "train": (
            paper.batch * paper.steps,
            "samples",
            f"{paper.steps:,} steps of {paper.batch:,} = {paper.batch * paper.steps / (KEPT * 3600 * evaluation.FPS):.2f} x {KEPT:,} h",
        ),
        "policy": (
            play / evaluation.Play.execute,
            "chunks",
            f"the suite: {play / evaluation.FPS / 3600:.0f} h of play, {evaluation.Play.execute} actions a chunk",
        ),
        "simulator": (play, "steps", f"the suite, {evaluation.FPS} steps/s of play"),
    }
    return [
        {
            "stage": k,
            "rate": rates[k],
            "unit": f"{unit}/s",
            "amount": n,
            "job": job,
            "heavier": heavier.get(k, 1.0),
            "days": n * heavier.get(k, 1.0) / rates[k] / 86400,
        }
        for k, (n, unit, job) in jobs.items()
    ]


def print_speed(rows: list[dict], net: str) -> None:
    total, most = sum(r["days"] for r in rows), max(rows, key=lambda r: r["days"])
    print(
        f"\n{'stage':10s} {'measured here':>30s}   {'published job':48s} {'machine-days':>12s} {'share':>6s}"
    )
    for r in rows:
        if r["stage"] == "locate":
            here = f"{3600 * r['rate']:,.0f} videos/h"
        elif r["stage"] == "policy":
            here = f"{1e3 / r['rate']:,.1f} ms a chunk, {net}"
        else:
            more = {
                "parse": f", {r['rate'] / evaluation.FPS:.1f} x real time",
                "filter": f", {r['rate'] / evaluation.FPS:.1f} x real time",
                "train": f", {net}",
            }.get(r["stage"], "")
            here = f"{r['rate']:,.{1 if r['rate'] < 100 else 0}f} {r['unit']}{more}"
        print(
            f"{r['stage']:10s} {here:>30s}   {r['job']:48s} {r['days']:12,.1f} {r['days'] / total:6.1%}"
        )
    scaled = {r["stage"]: r["heavier"] for r in rows if r["heavier"] != 1}
    print(
        f"Most would cost {most['stage']}: {most['days'] / total:.0%} of {total:,.0f} days of this machine.\nScaled: videos as here, {evaluation.WIDTH} x {evaluation.HEIGHT} at {evaluation.FPS} frames/s, one search "
        "a video however long; steps and batch are train.py's choice, the paper does not give them"
        + "".join(
            f"; {k}: days x {v:,.0f}, the paper's network for {net} by arithmetic"
            for k, v in scaled.items()
        )
        + "."
    )
