"""Latency, arithmetic and memory of a network: python model.py bench"""

from __future__ import annotations

import copy
import functools
import gc
import re
import time
from dataclasses import dataclass

from common import history
from common.command_line import Common
from common.device import Packed, accelerations, keep_memory, native_dtype, packs, pick_device

import torch
from einops import rearrange
from torch import nn

import model


@dataclass(frozen=True)
class Bench(Common):
    net: str = "tiny"  # preset; --config says the same
    dtype: str = "auto"  # float32 or bfloat16; auto: bfloat16 where the hardware multiplies it
    fast: bool = True  # also what common/device.py makes faster: packed weights; CUDA graphs
    train: bool = True  # also forward and backward
    recompute: bool = False  # activation checkpointing in training
    threads: int = 0  # CPU threads (default: torch's choice)


Config = {name: Bench(net=name) for name in model.CONFIGS}


def main(c: Bench) -> None:
    """Latency, arithmetic and memory of a preset on this device; batches are many games at once."""
    keep_memory()
    if c.threads:
        torch.set_num_threads(c.threads)
    if c.net not in model.CONFIGS:
        raise SystemExit(f"--net {c.net}: expected one of {', '.join(model.CONFIGS)}")
    device = torch.device(pick_device(c.device))
    name = str(native_dtype(device.type)).removeprefix("torch.") if c.dtype == "auto" else c.dtype
    if name not in ("float32", "bfloat16"):
        raise SystemExit(f"--dtype {name}: expected auto, float32 or bfloat16")
    dtype = getattr(torch, name)
    torch.manual_seed(c.seed)
    net = model.NitroGen(model.CONFIGS[c.net]).to(device)
    net.recompute = c.recompute
    print_head(c.net, net.c, sum(p.numel() for p in net.parameters()), device)
    if c.train:
        on_cpu = 16 if c.net == "tiny" else 2
        bench_training(net, device, dtype, B=64 if device.type == "cuda" else on_cpu)
    bench_playing(net.to(dtype).eval(), device, dtype, c.fast)


def bench_training(net, device, dtype, B: int) -> None:
    m = net.c
    pixels = torch.zeros(B, 3, m.image, m.image, device=device)
    actions = torch.rand(B, m.horizon, len(m.actions), device=device)

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            net.loss(pixels, actions, torch.ones(1, device=device)).backward()
        net.zero_grad(set_to_none=True)

    seconds = timed(step, device)
    print_row("train", device, dtype, B, "", seconds, gflop(m, B), peak(device, dtype))


def bench_playing(net, device, dtype, fast: bool) -> None:
    """All sizes of each way to play; where there are faster ones, the first size of the others."""
    m = net.c
    top = peak(device, dtype)
    faster = accelerations(device.type) if fast else ()
    sizes = (1, m.steps), (1, 4), (1, 1), (16, m.steps), (16, 4)
    for name, way in ways(net, faster):
        order = official_order if name == "official" else model.NitroGen.denoise
        for B, S in sizes[:1] if faster and name not in faster else sizes:
            shape = B, m.image, m.image, 3
            frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
            seconds = timed(functools.partial(way.sample, frames, steps=S), device)
            print_row(name, device, dtype, B, S, seconds, gflop(m, B, S, order=order), top)
        del way
        gc.collect()  # a way's CUDA graphs hold themselves


def ways(net, faster):
    """(name, network) of each way to play here. They share their weights: the last one may change
    their blocks.
    """
    official = copy.copy(net)
    official.denoise = lambda pixels, a, S, given: official_order(net, pixels, a, S)
    yield "official", official
    yield "eager", net
    for how in faster:
        yield how, model.accelerate(copy.copy(net), how)


def official_order(net, pixels, a, S):
    """The order of the released code: vision once; mixer, keys, values, time embeddings and
    modulations in each step.
    """
    x = rearrange(net.vision.patch(pixels.to(net.dtype)), "b d h w -> b (h w) d")
    x = x + net.vision.position.weight
    for block in net.vision.blocks:
        x = block(x)
    seen = net.vision.norm(x)
    for i in range(S):
        x = seen
        for block in net.mixer:
            x = block(x)
        context = [block.attn.keys_values(x) for block in net.dit]
        bucket = torch.tensor([int(i / S * net.c.buckets)], device=a.device)
        a = a + net.velocity(a, net.timing(bucket), context) / S
    return a


# ---- the table -----------------------------------------------------------------------------------


def print_head(name: str, m: model.Config, parameters: int, device) -> None:
    where = torch.cuda.get_device_name() if device.type == "cuda" else device
    print(
        f"{name}: {parameters:,} parameters, {m.tokens} image tokens, "
        f"chunks of {m.horizon} x {len(m.actions)}; "
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    memory = "    peak MiB" if device.type == "cuda" else " MiB so far"
    print(
        "task     dtype     batch steps         ms   chunks/s      GFLOP   GFLOP/s  of peak"
        + memory
    )


def print_row(task, device, dtype, B, S, seconds, work, top) -> None:
    """One line. S: steps, "" in training; work: GFLOP; top: GFLOP/s of a matrix product."""
    speed = work / seconds
    print(
        f"{task:8s} {str(dtype).removeprefix('torch.'):9s} {B:5d} {S:>5} "
        f"{1e3 * seconds:10.2f} {B / seconds:10.1f} {work:10.1f} {speed:10.0f} "
        f"{speed / top:7.0%} {memory_used(device) / 2**20:11.0f}",
        flush=True,
    )


def memory_used(device) -> int:
    """Bytes: on a GPU the most since the last call, else the most that this process ever had."""
    if device.type != "cuda":
        import resource  # not on Windows

        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


# ---- measuring -----------------------------------------------------------------------------------


def timed(f, device, seconds: float = 2.0) -> float:
    """Seconds of a call: the best of some, as others share the machine."""
    times = []
    began = time.perf_counter()
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
    x = torch.randn(n, n, device=device, dtype=dtype)
    layers = [nn.Linear(n, n).to(device, dtype)]
    if device.type == "cpu" and packs(dtype):
        layers.append(Packed(layers[0].weight, layers[0].bias))
    with torch.no_grad():
        seconds = min(timed(functools.partial(layer, x), device, 1) for layer in layers)
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
    for part, value in RATED.items():
        if re.search(rf"\b{part}\b", name):
            return value, f"{part}, data sheet"
    return peak(device, native_dtype(device.type)) / 1e3, f"a matrix product on {name}"


def gflop(
    c: model.Config, B: int, S=0, draws=1, freeze=False, order=model.NitroGen.denoise
) -> float:
    """Floating-point operations of the matrix products (2 per multiply-add) / 1e9.

    S denoising steps of B frames, as `order` does them; or, if 0, a training step with
    `draws` for each frame. freeze: without the backward pass of the vision encoder.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = model.NitroGen(c)
        net.vision.requires_grad_(not freeze)
        pixels = torch.zeros(B, *history.shape(c), 3, c.image, c.image)
        a = torch.zeros(B, c.horizon, len(c.actions))
        if S:
            with torch.no_grad():
                order(net, pixels, a, S)
        else:
            times = torch.zeros(B * draws)
            noise = a.repeat(draws, 1, 1)
            net.loss(pixels, a, torch.ones(1), times, noise, draws).backward()
    return counter.get_total_flops() / 1e9
