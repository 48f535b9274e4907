"""Latency, arithmetic and memory of a network: python model.py bench"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from common.command_line import Common
from common.device import Packed, autocast, keep_memory, packs, pick_device

import torch
from torch import nn

import model

# ---- bench ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench(Common):
    net: str = "tiny"  # preset; --config says the same
    dtype: str = "auto"  # float32 or bfloat16; auto: bfloat16 where the hardware multiplies it
    fast: bool = True  # packed weights, or torch.compile and CUDA graphs
    train: bool = True  # also forward and backward
    recompute: bool = False  # activation checkpointing in training
    threads: int = 0  # CPU threads (default: torch's choice)


def main(c: Bench) -> None:
    """Latency, arithmetic and memory of a preset on this device; batches are many games at once."""
    import resource

    keep_memory()
    if c.threads:
        torch.set_num_threads(c.threads)
    if c.net not in model.CONFIGS:
        raise SystemExit(f"--net {c.net}: expected one of {', '.join(model.CONFIGS)}")
    device, m = torch.device(pick_device(c.device)), model.CONFIGS[c.net]
    with autocast(device.type):
        native = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    dtype = native if c.dtype == "auto" else c.dtype
    if dtype not in ("float32", "bfloat16"):
        raise SystemExit(f"--dtype {dtype}: expected auto, float32 or bfloat16")
    torch.manual_seed(c.seed)
    net = model.NitroGen(m).to(device)
    print(
        f"{c.net}: {sum(p.numel() for p in net.parameters()):,} parameters, {m.tokens} image tokens, chunks of {m.horizon} x {len(m.actions)}; "
        f"{torch.cuda.get_device_name() if device.type == 'cuda' else device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )

    def line(task, dtype, B, S, seconds, gflop, top):
        memory = (
            torch.cuda.max_memory_allocated()
            if device.type == "cuda"
            else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        print(
            f"{task:7s} {dtype:9s} {B:5d} {S or '':>5} {1e3 * seconds:10.2f} {B / seconds:10.1f} {gflop:10.1f} {gflop / seconds:10.0f} "
            f"{gflop / seconds / top:7.0%} {memory / 2**20:11.0f}",
            flush=True,
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    print(
        "task    dtype     batch steps         ms   chunks/s      GFLOP   GFLOP/s  of peak"
        + ("    peak MiB" if device.type == "cuda" else " MiB so far")
    )
    if c.train:
        net.recompute, B = (
            c.recompute,
            64 if device.type == "cuda" else 16 if c.net == "tiny" else 2,
        )
        pixels, actions = (
            torch.zeros(B, 3, m.image, m.image, device=device),
            torch.rand(B, m.horizon, len(m.actions), device=device),
        )

        def step():
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                net.loss(pixels, actions, torch.ones(1, device=device)).backward()
            net.zero_grad(set_to_none=True)

        line(
            "train",
            dtype,
            B,
            0,
            timed(step, device),
            gflop(m, B),
            peak(device, getattr(torch, dtype)),
        )
    net = net.to(getattr(torch, dtype)).eval()
    net, top = model.accelerate(net) if c.fast else net, peak(device, getattr(torch, dtype))
    for B, S in ((1, m.steps), (1, 4), (1, 1), (16, m.steps), (16, 4)):
        frames = torch.randint(0, 256, (B, m.image, m.image, 3), dtype=torch.uint8, device=device)
        line(
            "sample",
            dtype,
            B,
            S,
            timed(lambda: net.sample(frames, steps=S), device),
            gflop(m, B, S),
            top,
        )


Config = {k: Bench(net=k) for k in model.CONFIGS}


def timed(f, device, seconds: float = 2.0) -> float:
    """Seconds of a call: the best of some, as others share the machine."""
    times, began = [], time.perf_counter()
    while len(times) < 2 or len(times) < 100 and time.perf_counter() - began < seconds:
        start = time.perf_counter()
        f()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first one compiles and fills caches


def peak(device, dtype) -> float:
    """GFLOP/s of a matrix product on this machine."""
    n = 8192 if device.type == "cuda" else 1024
    x, layer = torch.randn(n, n, device=device, dtype=dtype), nn.Linear(n, n).to(device, dtype)
    with torch.no_grad():
        seconds = min(
            timed(lambda: f(x), device, 1)
            for f in (
                [layer, Packed(layer.weight, layer.bias)]
                if device.type == "cpu" and packs(dtype)
                else [layer]
            )
        )
    return 2e-9 * n**3 / seconds


# TFLOP/s of dense bfloat16, from the data sheets; the first name that the device's own contains
RATED = {
    "B200": 2250,
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "A100": 312,
    "L40S": 362,
    "A6000": 155,
    "A10": 125,
    "L4": 121,
    "RTX 5090": 210,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "MI300X": 1307,
}


def rated(device) -> tuple[float, str]:
    """TFLOP/s of a device in training, and whose: the data sheet's, else those of a matrix product
    measured here.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if known := [
        (value, f"{part}, data sheet")
        for part, value in RATED.items()
        if re.search(rf"\b{part}\b", name)
    ]:
        return known[0]
    with autocast(device.type):
        dtype = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
    return peak(device, dtype) / 1e3, f"a matrix product on {name}"


def gflop(c: model.Config, B: int, S: int = 0, draws: int = 1, freeze: bool = False) -> float:
    """Floating-point operations of the matrix products (2 per multiply-add) / 1e9: S denoising
    steps; or, if 0, a training step of B frames with `draws` each, `freeze`: all but the vision
    encoder's."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net, pixels, a = (
            model.NitroGen(c),
            torch.zeros(B, 3, c.image, c.image),
            torch.zeros(B, c.horizon, len(c.actions)),
        )
        net.vision.requires_grad_(not freeze)
        if S:
            with torch.no_grad():
                net.denoise(pixels, a, S)
        else:
            net.loss(
                pixels, a, torch.ones(1), torch.zeros(B * draws), a.repeat(draws, 1, 1), draws
            ).backward()
    return counter.get_total_flops() / 1e9
