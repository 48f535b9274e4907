"""Samples per second of the data alone, of the model alone and of both: python train.py bench"""

from __future__ import annotations

import dataclasses
import itertools
import time

from common.processes import World, joined

import torch
from torch.autograd import DeviceType

import train
from bench import flops

Config = train.CONFIGS


def main(c: train.Config, seconds: float = 10) -> dict:
    """Samples per second of the data alone, of the model alone and of both; MFU: the network's
    arithmetic in the device's peak. Then where the time of a step goes.
    """
    if not c.data:
        raise SystemExit("bench needs shards: --data DIR")
    c = dataclasses.replace(c, steps=10**9)  # data without end
    with joined(c.device) as world:
        trainer = train.assemble(c, world)
        m = trainer.net.c
        decoding = train.decoders(c, world)
        together = world.size * train.micro_batch(c, world)  # frames of one pass, all processes
        data = train.batches(trainer.shards["train"], m, c, world)
        ready = [
            [train.augment(images, m.image, c), *rest]
            for images, *rest in itertools.islice(data, c.batch // together)
        ]
        model = calls_per_second(lambda: train.update(trainer, iter(ready), 0), world, seconds)
        both = calls_per_second(lambda: train.update(trainer, data, 0), world, seconds)
        decoded = calls_per_second(lambda: next(data), world, seconds, 2 * decoding + 1)
        data.close()
        heaviest = profiled(lambda: train.update(trainer, iter(ready), 0), world.device)
    speed = {"data": decoded * together, "model": model * c.batch, "both": both * c.batch}
    peak, whose = flops.rated(world.device)  # TFLOP/s
    tflop = flops.gflop(m, 1, draws=c.draws, freeze=c.freeze) / 1e3
    world.print0(
        f"data alone  {speed['data']:9.1f} samples/s   {speed['data'] / speed['model']:.1f} x "
        f"what the model takes; decoded by {decoding} processes for each of "
        f"{world.size} x {world.device}"
    )
    for name, key in (("model alone", "model"), ("both", "both")):
        tflops = speed[key] * tflop
        world.print0(
            f"{name:11s} {speed[key]:9.1f} samples/s   {tflops:.2f} TFLOP/s, "
            f"MFU {tflops / (peak * world.size):.0%} of {world.size} x {peak:.3g} ({whose})"
        )
    for name, share, milliseconds, times in heaviest:
        world.print0(f"{share:6.1%} {milliseconds:9.2f} ms a step in {times:5.0f} x {name[:80]}")
    return speed


def profiled(f, device, steps: int = 3, most: int = 12) -> list[tuple]:
    """(name, share of the time, ms per step, calls per step) of what takes most of f(): kernels on
    a GPU, operations on a CPU.
    """
    with torch.profiler.profile() as profile:
        for _ in range(steps):
            f()
    if device.type == "cuda":
        kinds = [e for e in profile.key_averages() if e.device_type == DeviceType.CUDA]
        took = [(e.self_device_time_total, e) for e in kinds]
    else:
        took = [(e.self_cpu_time_total, e) for e in profile.key_averages()]
    total = sum(us for us, _ in took)
    took = sorted(took, key=lambda pair: -pair[0])[:most]
    return [(e.key, us / total, us / 1e3 / steps, e.count / steps) for us, e in took]


def calls_per_second(f, world: World, seconds: float, first: int = 1) -> float:
    """How often f() can be called, over at least so many seconds.

    The `first` calls are not counted: they compile, fill caches, or empty the queue of frames that
    were decoded before.
    """
    for _ in range(first):
        f()
    began = world.synchronised_time()
    calls = 0
    while calls < 3 or not world.any_process(time.time() - began > seconds)[0]:
        f()
        calls += 1
    return calls / (world.synchronised_time() - began)
