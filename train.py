"""train.py: behaviour cloning of model.py on shards by flow matching (paper sections 2.3 and 3).

    python train.py --config tiny                                    the whole pipe on built-in games: record, extract,
    python train.py --config small                                   parse, filter, train, play; tiny for a CPU, small for a GPU
    python train.py --config tiny --data data/shards --out runs/mine     train on your own shards
    python train.py --config finetune --init ng.safetensors --data data/mine/shards     go on from a policy, yours or the released one
    torchrun --nproc-per-node 8 --max-restarts 3 train.py --config paper --data data/shards     several GPUs
    python train.py bench --config tiny --data data/shards           samples/s of the data, of the model, of both; MFU
    python train.py --inspect runs/tiny/model.safetensors

In:   DATA/*.safetensors             shards of filter.py
Out:  RUN/model.safetensors          averaged (EMA) weights, with all that is needed to play
      RUN/state.safetensors          raw weights, average and optimizer, to resume
      RUN/log.jsonl, loss.png        one line per --log-every steps; the curve
      RUN/source/                    the code and the command that made it

Everything random about a frame follows from (seed, step, place of its micro-batch in the step), so
a resumed run is the same run, and so is one over more processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, command_line, expect, recipe_of, run_stage, wing
from common.device import autocast, keep_memory, pick_device
from common.pictures import expand

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from torch.utils.data import DataLoader, default_collate

import filter
import model


@dataclass(frozen=True)
class Config(Common):
    data: str = ""  # folder of shards; empty: make them from the built-in games first
    out: str = ""  # run folder (default: runs/NET; runs/finetune with --init)
    net: str = "paper"  # network preset of model.py
    # actions in a chunk, at most what the shards were cut for (0: as --net or --init says)
    horizon: int = 0
    # policy file to go on from: its network replaces --net; chunks are timed as the shards were cut
    init: str = ""
    # SigLIP tower to start the vision encoder from (safetensors, as transformers saves it)
    vision: str = ""
    freeze: bool = False  # leave the vision encoder as it was loaded
    steps: int = 200_000  # optimizer steps; CHOICE: not published
    batch: int = 4096  # frames per step, over all processes (the released file's name says 4096)
    micro: int = 64  # frames per forward pass, at most; the rest by accumulation
    draws: int = 1  # flow-matching draws (noise, t) per frame
    lr: float = 1e-4  # peak, constant phase (published)
    warmup: int = 1000  # steps of linear warm-up; CHOICE
    decay: float = 0.1  # last share of the steps, linear to 0; CHOICE
    weight_decay: float = 0.001  # AdamW (published)
    clip: float = 1.0  # bound on the gradient's norm; CHOICE
    # decay of the weight average (published); it warms up as (1 + s) / (10 + s)
    ema: float = 0.9999
    jitter: float = 0.2  # brightness, contrast, saturation: factor in 1 +- this; CHOICE
    hue: float = 0.05  # turns, +- this; CHOICE
    rotate: float = 5.0  # degrees, +- this (published)
    crop: float = 0.9  # side of the random crop, at least this share; CHOICE
    minutes: float = 0.0  # stop after this long, to be resumed; 0: never
    resume: bool = True  # go on with an unfinished run of the same config
    # decoding processes per trainer (default: all cores but one), and processes of the data stages
    # (all)
    workers: int = 0
    log_every: int = 50  # steps
    save_every: int = 250  # steps
    recompute: bool = False  # activation checkpointing: less memory, a third more work
    compile: bool = True  # torch.compile of the blocks, on a GPU
    # under torchrun: share out weights, gradients and optimizer (FSDP2) instead of a copy for each
    # (DDP)
    fsdp: bool = False
    raw: bool = False  # also keep the weights that are not averaged, as raw.safetensors
    tensorboard: bool = False  # also write events for TensorBoard

    @property
    def run(self) -> Path:
        return Path(self.out or f"runs/{'finetune' if self.init else self.net}")


CONFIGS = {
    # DEVIATION: higher peaks and, in tiny, milder augmentation: short runs of small networks.
    "tiny": Config(
        net="tiny",
        steps=4500,
        batch=32,
        micro=32,
        draws=2,
        lr=1e-3,
        warmup=200,
        decay=0.4,
        clip=0.1,
        ema=0.999,
        jitter=0.1,
        hue=0.02,
        rotate=3,
        crop=0.95,
        log_every=250,
        save_every=500,
    ),
    "small": Config(
        net="small",
        steps=8000,
        batch=512,
        micro=512,
        draws=4,
        lr=1e-3,
        warmup=300,
        decay=0.4,
        clip=0.1,
        ema=0.999,
    ),
    "paper": Config(micro=128),  # frames that fit a GPU of 80 GB (47 by the estimate)
    # CHOICE, all of it: a few hours of one game on one GPU of 12 GB.
    "finetune": Config(
        net="released",
        freeze=True,
        recompute=True,
        steps=3000,
        batch=128,
        micro=16,
        draws=4,
        lr=5e-5,
        warmup=100,
        decay=0.3,
        ema=0.999,
        log_every=25,
    ),
}
BETAS = (0.9, 0.99)  # AdamW; CHOICE
# the same run
ANYWAY = {
    "data",
    "init",
    "minutes",
    "resume",
    "log_every",
    "save_every",
    "raw",
    "recompute",
    "compile",
    "fsdp",
    "tensorboard",
}


# ---- yours to change: augmentation (paper 3: colour, rotation within 5 degrees, random crop) -----


def augment(images, side: int, c: Config):
    """uint8 [B, h, w, 3] -> float [B, 3, side, side] in [-1, 1]; one draw per frame, batched, from
    torch's global generator.
    """
    B, device = len(images), images.device
    x = rearrange(images, "b h w c -> b c h w").float() / 255

    def uniform(lo, hi):
        return torch.rand(B, 1, 1, device=device) * (hi - lo) + lo

    # One affine map per frame: a rotated, shifted square of at least `crop` of the frame (its
    # corners may show the reflected border).
    angle, scale = uniform(-c.rotate, c.rotate) * math.pi / 180, uniform(c.crop, 1)
    dx, dy = uniform(-1, 1) * (1 - scale), uniform(-1, 1) * (1 - scale)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.cat([torch.cat([cos, -sin, dx], 2), torch.cat([sin, cos, dy], 2)], 1)  # [B, 2, 3]
    x = F.grid_sample(
        x,
        F.affine_grid(theta, (B, 3, side, side), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )

    # Colour, as one matrix in YIQ: hue turns the chroma plane, saturation scales it; then contrast
    # and brightness.
    yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device
    )
    h, s = uniform(-c.hue, c.hue) * 2 * math.pi, uniform(1 - c.jitter, 1 + c.jitter)
    one, zero = torch.ones_like(h), torch.zeros_like(h)
    turn = torch.cat(
        [
            torch.cat([one, zero, zero], 2),
            torch.cat([zero, s * h.cos(), -s * h.sin()], 2),
            torch.cat([zero, s * h.sin(), s * h.cos()], 2),
        ],
        1,
    )  # [B, 3, 3]
    colour, x = yiq.inverse() @ turn @ yiq, x.flatten(2)
    # [B, 1, 1] of the turned picture
    mean = (colour @ x.mean(2, keepdim=True)).mean(1, keepdim=True)
    contrast, brightness = uniform(1 - c.jitter, 1 + c.jitter), uniform(1 - c.jitter, 1 + c.jitter)
    # contrast (x - mean) + brightness mean
    x = torch.baddbmm((brightness - contrast) * mean, contrast * colour, x)
    return x.clamp_(0, 1).mul_(2).sub_(1).view(B, 3, side, side)


# ---- data ----------------------------------------------------------------------------------------


def rows(step: int, n: int, c: Config) -> np.ndarray:
    """Chunk numbers int64 [batch] of one step: consecutive pieces of one permutation of the n
    chunks per epoch.
    """
    where = np.arange(step * c.batch, (step + 1) * c.batch)
    return np.concatenate(
        [shuffled(where[where // n == e] % n, n, (c.seed, e)) for e in np.unique(where // n)]
    )


def shuffled(i: np.ndarray, n: int, key: tuple) -> np.ndarray:
    """Where a permutation of range(n) takes i: a Feistel network on 2h bits, walked until it lands
    inside.

    Not a table, which for the billions of chunks of the published data would be made and held by
    every process.
    """
    h = max(1, ((n - 1).bit_length() + 1) // 2)
    low, keys = (
        np.uint64((1 << h) - 1),
        np.random.default_rng(key).integers(0, 2**63, 8, dtype=np.uint64),
    )
    x, outside = i.astype(np.uint64), np.ones(len(i), bool)
    while outside.any():
        left, right = x[outside] >> np.uint64(h), x[outside] & low
        for k in keys:
            mixed = (right + k) * np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
            left, right = right, left ^ (mixed >> np.uint64(32)) & low
        x[outside] = left << np.uint64(h) | right
        outside = x >= n
    return x.astype(np.int64)


class Chunks:
    """The shards as torch's DataLoader asks for them; item i: image uint8 [side, side, 3], buttons
    [K, 16], sticks [K, 4], shown [20].
    """

    def __init__(self, shards: filter.Shards, side: int):
        self.shards, self.side = shards, side

    def __getitem__(self, i):
        jpeg, buttons, sticks, shown, _ = self.shards[i]
        try:
            return filter.decode(np.asarray(jpeg), self.side), buttons, sticks, shown
        except SystemExit as e:  # would end a decoding process without a word
            return f"{place(self.shards, [i])}: {e}"


def place(shards: filter.Shards, chunks) -> str:
    """Shard files and the rows in them, of some chunk numbers: for messages."""
    found = {}
    for i in chunks:
        p = int(np.searchsorted(shards.ends, i, "right")) - 1
        part = shards.parts[p]
        found.setdefault(Path(part["jpeg"].filename).name, []).append(
            int(part["start"][i - shards.ends[p]])
        )
    return "; ".join(f"{name} rows {', '.join(map(str, sorted(r)))}" for name, r in found.items())


def collate(items, names=model.ACTIONS):
    """images uint8 [B, side, side, 3]; actions [B, K, A] in [0, 1], in the layout `names`; mask [B,
    1, A].

    What the recordings do not have (GUIDE, virtual directions) never counts in the loss.  Or what
    is wrong with an item, in words.
    """
    if faults := [i for i in items if isinstance(i, str)]:
        return faults[0]
    images, buttons, sticks, shown = default_collate(items)  # straight into shared memory
    shown = F.pad(shown.float(), (0, 1))[
        :, [model.ACTIONS.index(n) if n in model.ACTIONS else -1 for n in names]
    ]
    return images, model.encode(buttons, sticks, names), shown[:, None]


def on_device(batch, device) -> list:
    if isinstance(batch, str):
        raise SystemExit(batch)
    return [t.to(device, non_blocking=True) for t in batch]


def worker(_) -> None:
    """In a decoding process: signals are the trainer's business, threads are not wanted."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)


def batches(shards, m: model.Config, c: Config, w: World, start: int = 0):
    """Yield this process's micro-batches on its device, from step `start` on, decoded in processes
    ahead of the network.

    Processes, not threads, which hold the interpreter's lock: beside 5,500 frames/s from four of
    them on two cores, the main thread could launch 50,000 operations a second, beside as many from
    four processes 106,000.
    """

    def wanted():
        for step in range(start, c.steps):
            mine = np.array_split(rows(step, len(shards), c), w.size)[w.rank]
            yield from np.split(mine, len(mine) // w.micro(c))

    forks = (
        {"num_workers": w.workers(c), "multiprocessing_context": "fork"}
        if "fork" in multiprocessing.get_all_start_methods()
        else {}
    )
    for batch in DataLoader(
        Chunks(shards, m.image),
        batch_sampler=wanted(),
        collate_fn=functools.partial(collate, names=m.actions),
        # the mapped shards go along for free
        worker_init_fn=worker,
        pin_memory=w.device.type == "cuda",
        **forks,
    ):
        yield on_device(batch, w.device)


# ---- schedule and average ------------------------------------------------------------------------


def learning_rate(step: int, c: Config) -> float:
    """Warmup-stable-decay: linear up over `warmup` steps, constant, linear to zero over the last
    `decay` share.
    """
    tail = max(1, c.decay * c.steps)
    return c.lr * min(1, (step + 1) / max(1, c.warmup), (c.steps - step) / tail)


def ema_decay(step: int, c: Config) -> float:
    """The published 0.9999 averages over 10,000 steps; while young, the average follows (1 + s) /
    (10 + s).
    """
    return min(c.ema, (1 + step) / (10 + step))


# ---- more than one process: torchrun sets the environment ----------------------------------------


@dataclass(frozen=True)
class World:
    """This process among all that train one network; alone it is 0 of 1."""

    rank: int = 0
    size: int = 1
    local: int = 1  # of them on this machine
    device: torch.device = torch.device("cpu")

    def micro(self, c: Config) -> int:
        """Frames per forward pass; SystemExit if the batch cannot be dealt out."""
        micro = min(c.micro, c.batch // self.size)
        if micro < 1 or c.batch % (self.size * micro):
            raise SystemExit(
                f"--batch {c.batch} is not a multiple of --micro {micro} x {self.size} processes"
            )
        return micro

    def workers(self, c: Config) -> int:
        return c.workers or max(1, (os.cpu_count() or 1) // self.local - 1)

    def total(self, v):
        """Sum of a small tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(v)
        return v

    def any(self, *flags) -> list[bool]:
        """Which of the flags are set in some process."""
        return (
            [
                n > 0
                for n in self.total(
                    torch.tensor(flags, dtype=torch.float32, device=self.device)
                ).tolist()
            ]
            if self.size > 1
            else list(flags)
        )

    def wait(self) -> float:
        """The time, once the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.time()

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)


@contextlib.contextmanager
def joined(c: Config):
    """The World of this process; each has a GPU of its own."""
    device, (size, local, place) = (
        torch.device(pick_device(c.device)),
        (
            int(os.environ.get(k, d))
            for k, d in (("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        ),
    )
    # the other half decodes; hyperthreads do not help
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // (2 * local)))
    torch.set_float32_matmul_precision("high")  # where autocast leaves float32
    if size == 1:
        yield World(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://"))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=of_this_start(store, rank, size),
        rank=rank,
        world_size=size,
    )
    try:
        yield World(rank, size, local, device)
    finally:
        dist.destroy_process_group()


def of_this_start(store, rank: int, size: int):
    """The part of torchrun's store that is this start's own: the store outlives restarts, and with
    it the addresses of killed processes.

    Every process leaves a nonce; rank 0 lists those that it finds until each process has confirmed
    one and the same list. (TORCHELASTIC_RESTART_COUNT would not do: each machine counts its own
    failures.)
    """
    mine, agreed = os.urandom(8).hex(), ""
    store.set(f"nonce {rank}", mine)
    while not agreed or store.add(agreed, 0) < size:
        if rank == 0:
            store.set("nonces", " ".join(store.get(f"nonce {r}").decode() for r in range(size)))
        nonces = store.get("nonces").decode()
        start = hashlib.sha256(nonces.encode()).hexdigest()
        if mine in nonces and start != agreed:
            store.add(start, 1)
            agreed = start
        time.sleep(0.05)
    return dist.PrefixStore(agreed, store)


def spread(net, c: Config, w: World):
    """What gives the loss: the network; among several, DDP around it, or the network with its
    weights shared out (FSDP2).
    """
    if w.size == 1:
        return net
    if not c.fsdp:
        return torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(w.device.type, (w.size,))
    # not the DiT's: `context` and `timing` use their layers from outside
    for block in (*net.vision.blocks, *net.mixer):
        fully_shard(block, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def whole(v):
    """A tensor that FSDP2 shared out, put together again; every process must call."""
    return v.full_tensor() if hasattr(v, "full_tensor") else v


@torch.no_grad()
def put(target, array) -> None:
    """Copy a whole array into a tensor, or this process's share of it."""
    v = torch.from_numpy(array).to(target.device)
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        v = distribute_tensor(v, target.device_mesh, target.placements)
    target.copy_(v)


# ---- a step --------------------------------------------------------------------------------------


def update(
    c: Config, w: World, run, optimizer, average, data, step: int
) -> tuple[np.ndarray, float]:
    """One step of weights and average: the loss of each micro-batch of all processes, in the order
    of `rows`, and the gradient's norm.

    Nothing moves if these are not all finite.
    """
    run.train()
    net, n = bare(run), c.batch // (w.size * w.micro(c))
    losses = torch.zeros(w.size, n, device=w.device)
    for k in range(n):
        images, actions, mask = next(data)
        seed = np.random.SeedSequence([c.seed, step, (w.rank * n + k) * w.micro(c)])
        # augmentation, t, noise and dropout of these frames
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        run.require_backward_grad_sync = k == n - 1  # DDP: gradients travel once a step
        with autocast(w.device.type):
            loss = run(
                augment(images, net.c.image, c) if images.dtype == torch.uint8 else images,
                actions,
                mask,
                draws=c.draws,
            )
        (loss / n).backward()
        losses[w.rank, k] = loss.detach()
    norm = whole(torch.nn.utils.clip_grad_norm_(learned(net).values(), c.clip)).item()
    losses = w.total(losses).flatten().cpu().numpy()
    if math.isfinite(norm) and np.isfinite(losses).all():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, c)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(average.values()), list(learned(net).values()), 1 - ema_decay(step, c)
            )
    optimizer.zero_grad(set_to_none=True)
    return losses, norm


# ---- the run -------------------------------------------------------------------------------------


def fit(c: Config) -> Path:
    """Train (or go on training) c.run; returns the path of the model.  Ctrl-C, SIGTERM and
    --minutes leave a resumable run.
    """
    with joined(c) as w, lock(c.run) if w.rank == 0 else contextlib.nullcontext():
        if c.tensorboard and w.rank == 0:
            events(c.run)
        run, optimizer, average, shards = assemble(c, w)
        names = repr([(p.about["name"], len(p["start"])) for s in shards.values() for p in s.parts])
        recipe = {
            **recipe_of(c, *([c.init] if c.init else [])),
            "shards": hashlib.sha256(names.encode()).hexdigest()[:16],
        }
        # as before there was this flag
        recipe = {k: v for k, v in recipe.items() if k not in ANYWAY and (k, v) != ("horizon", 0)}
        about = {"recipe": recipe, "games": shards["train"].games}
        start = restore(c, w, recipe, run, optimizer, average)
        if start >= c.steps:
            w.say(f"{c.run}: finished at step {start}; --fresh trains anew")
            return c.run / "model.safetensors"
        estimate(c, w, run, c.steps - start)
        with interrupts() as asked:
            train_steps(c, w, about, run, optimizer, average, shards, start, asked)
    return c.run / "model.safetensors"


def check(c: Config) -> None:
    """SystemExit with one line if a flag is out of its range."""
    if c.net not in model.CONFIGS:
        raise SystemExit(f"--net {c.net}: expected one of {', '.join(model.CONFIGS)}")
    expect(
        c,
        horizon=(0, 10_000),
        steps=(1, 1e12),
        batch=(1, 1e9),
        micro=(1, 1e9),
        draws=(1, 1e6),
        lr=(0, 1e3),
        warmup=(0, 1e12),
        decay=(0, 1),
        weight_decay=(0, 1e3),
        clip=(0, math.inf),
        ema=(0, 1),
        jitter=(0, 1),
        hue=(0, 1),
        rotate=(0, 180),
        crop=(0.01, 1),
        minutes=(0, math.inf),
        workers=(0, 4096),
        log_every=(1, math.inf),
        save_every=(1, math.inf),
    )


def assemble(c: Config, w: World):
    """(what gives the loss, optimizer, average, shards by split) of step 0, on this process's
    device.
    """
    keep_memory()
    check(c)
    w.micro(c)
    torch.manual_seed(c.seed)
    net = network(c).to(w.device)
    shards = {
        s: filter.Shards(c.data, s, net.c.horizon, net.c.rate, net.c.shift)
        for s in ("train", "validation")
    }
    if any(len(set(p.offsets)) < net.c.horizon for s in shards.values() for p in s.parts):
        raise SystemExit(
            f"{c.data}: videos of fewer frames per second than the network's {net.c.rate:g} actions; give --init (it takes the shards' timing)"
        )
    if not len(shards["train"]):
        raise SystemExit(
            f"{c.data}: no training chunks in these shards: all videos held out (filter.py --validation 0), or all segments null (--min-active 0)"
        )
    describe(c, w, net, shards)
    # block by block: equal ones compile once; DDP, FSDP2 and checkpointing stay outside
    if c.compile and w.device.type == "cuda":
        for block in (*net.vision.blocks, *net.mixer, *net.dit):
            block.compile(dynamic=False)
    run = spread(net, c, w)
    optimizer = torch.optim.AdamW(
        learned(net).values(),
        lr=c.lr,
        weight_decay=c.weight_decay,
        betas=BETAS,
        fused=w.device.type != "mps",
    )
    return run, optimizer, {k: p.detach().clone() for k, p in learned(net).items()}, shards


def network(c: Config) -> model.NitroGen:
    """A new network, or that of --init with chunks timed as the shards were cut; actions go by
    name, so any layout will do.
    """
    if c.freeze and not (c.init or c.vision):
        raise SystemExit(
            "--freeze leaves the vision encoder as it was loaded: give --init FILE (or --vision FILE)"
        )
    if c.init.endswith((".pt", ".pth")):
        raise SystemExit(
            f"{c.init}: convert it first: python model.py convert {c.init} {Path(c.init).with_suffix('.safetensors')}"
        )
    m, chunk = model.CONFIGS[c.net], {"horizon": c.horizon} if c.horizon else {}
    net = (
        model.load(c.init, "cpu")
        if c.init
        else model.NitroGen(
            dataclasses.replace(m, **chunk, positions=m.positions and max(m.positions, c.horizon))
        )
    )
    if c.init:
        info = filter.Part(filter.shards_in(c.data)[0]).info
        try:
            net.c = dataclasses.replace(
                net.c, **{k: info[k] for k in ("horizon", "rate", "shift")} | chunk
            )
        except ValueError as e:
            raise SystemExit(
                f"{c.data}: cut for chunks that {c.init} has no place for ({e}); "
                f"make them anew: {artefact.MAKER['shard']} --out {c.data} --horizon {net.c.horizon} --fresh"
            ) from None
    if c.vision:
        wing("released.checkpoint").load_vision(net, c.vision)
    net.vision.requires_grad_(not c.freeze)
    net.recompute = c.recompute
    return net.train()


def learned(net) -> dict:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def bare(run) -> model.NitroGen:
    """The network inside of DDP."""
    return getattr(run, "module", run)


def train_steps(c, w, about, run, optimizer, average, shards, start, asked):
    from tqdm import tqdm

    net, done, seen, since, began = bare(run), start, [], start, time.time()
    data, ends = batches(shards["train"], net.c, c, w, start), began + 60 * (c.minutes or math.inf)
    bar = tqdm(
        total=c.steps, initial=start, desc="train", unit="step", smoothing=0.1, disable=w.rank > 0
    )
    try:
        for step in range(start, c.steps):
            losses, norm = update(c, w, run, optimizer, average, data, step)
            if not (np.isfinite(losses).all() and math.isfinite(norm)):
                save(c, w, {**about, "step": done}, net, averaged(net, average), optimizer, average)
                raise SystemExit(lost(c, w, shards["train"], step, losses, norm))
            done = step + 1
            seen.append(losses.mean())
            bar.update()
            told, late = w.any(bool(asked), time.time() > ends)
            saves = done % c.save_every == 0 or done == c.steps or told or late
            if done % c.log_every == 0 or saves:
                row = {
                    "step": done,
                    "loss": round(float(np.mean(seen)), 5),
                    "lr": float(f"{learning_rate(step, c):.3g}"),
                    "norm": round(norm, 3),
                    "frames_per_s": round((done - since) * c.batch / (time.time() - began), 1),
                    "epoch": round(done * c.batch / len(shards["train"]), 2),
                }
                if saves:
                    weights = averaged(net, average)
                    if w.rank == 0 and len(shards["validation"]) and not (told or late):
                        row |= validate(net.c, weights, shards["validation"], w.device)
                if w.rank == 0:
                    bar.write("  ".join(f"{k} {v:>8}" for k, v in row.items()))
                    log(c, row)
                if saves:
                    save(
                        c, w, {**about, "step": done, "log": row}, net, weights, optimizer, average
                    )
                seen, since, began = [], done, time.time()
            if told:
                raise KeyboardInterrupt
            if late and done < c.steps:
                w.say(
                    f"--minutes {c.minutes:g} are over at step {done} of {c.steps}: the same command goes on from here"
                )
                break
    finally:
        data.close()  # and with it the decoding processes
        bar.close()
    if w.rank == 0:
        picture(c)


def lost(c, w, shards, step, losses, norm) -> str:
    """What went wrong in a step, and in which rows: those of the micro-batches whose loss is not
    finite, else all.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    where = (
        rows(step, len(shards), c)
        .reshape(-1, w.micro(c))[bad if len(bad) else slice(None)]
        .flatten()
    )
    return (
        f"step {step}: the loss is {losses.mean()}, the gradient's norm {norm}; batch: {place(shards, where)}; the state before it is kept in {c.run}; "
        "try a smaller --lr, or look at these rows"
    )


@torch.no_grad()
def averaged(net, average) -> dict:
    """The whole network's weights, averaged where they learn; every process must call."""
    return {name: whole(average.get(name, v)) for name, v in net.state_dict().items()}


@torch.no_grad()
def validate(m: model.Config, weights, shards, device, frames: int = 512) -> dict:
    """Loss of the averaged weights on held-out videos, over a fixed set of frames, times and
    noises, in all and by game.
    """
    net = model.skeleton(m, len(weights)).eval()
    net.load_state_dict(weights, assign=True)
    torch.manual_seed(0)
    chosen, losses = np.random.default_rng(0).permutation(len(shards))[:frames], {}
    for game in sorted({shards[i][4] for i in chosen}):
        mine = [i for i in chosen if shards[i][4] == game]
        for piece in (mine[i : i + 64] for i in range(0, len(mine), 64)):
            batch = on_device(
                collate([Chunks(shards, m.image)[i] for i in piece], m.actions), device
            )
            with autocast(device.type):
                losses.setdefault(game, []).extend([net.loss(*batch, draws=4).item()] * len(piece))
    return {
        "val": round(float(np.mean(sum(losses.values(), []))), 5),
        **{f"val_{game}": round(float(np.mean(v)), 5) for game, v in losses.items()},
    }


def log(c: Config, row: dict) -> None:
    with room(c, row["step"]), open(c.run / "log.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n")
    if c.tensorboard:
        for key, value in row.items():
            events(c.run).add_scalar(key, value, row["step"])
        events(c.run).flush()


@functools.cache
def events(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SystemExit("--tensorboard needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter(str(folder))


# ---- run folder ----------------------------------------------------------------------------------


@contextlib.contextmanager
def interrupts():
    """Ctrl-C and SIGTERM become a list that is no longer empty, so that a step under way is
    finished before the run is saved.
    """
    asked, usual = [], {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    mine = [
        s for s, handler in usual.items() if handler in (signal.default_int_handler, signal.SIG_DFL)
    ]
    mine = mine if threading.current_thread() is threading.main_thread() else []
    for s in mine:
        signal.signal(s, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        for s in mine:
            signal.signal(s, usual[s])


@contextlib.contextmanager
def lock(folder: Path):
    """Only one run trains a folder; half-written files of one that was killed go."""
    artefact.in_folder(folder / ".lock")
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        yield
        return
    with open(folder / ".lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(
                f"{folder}: another process is training this run; give another --out"
            ) from None
        # decoding processes outlive a killed trainer by seconds: not with its lock
        os.register_at_fork(after_in_child=f.close)
        for part in folder.glob(".*.part"):
            part.unlink()
        try:
            yield
        finally:
            # nothing came of it: a wrong flag leaves no trace
            if list(folder.iterdir()) == [folder / ".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()


@contextlib.contextmanager
def room(c: Config, step: int):
    """A full disk ends the run in one line."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        raise SystemExit(
            f"{c.run}: step {step} could not be saved ({e}); the checkpoint before it is whole; make room, the same command goes on from there"
        ) from None


def save(c, w, about: dict, net, weights, optimizer, average) -> None:
    """state.safetensors first, then the model: whatever happens in between, the run resumes.  Every
    process must call.

    about: what the files tell of themselves: recipe, training chunks by game, step, the line of the
    log."""
    state = {}
    for name, p in learned(net).items():
        s = optimizer.state.get(p, {})
        for key, v in (
            ("raw", p),
            ("average", average[name]),
            ("m", s.get("exp_avg")),
            ("v", s.get("exp_avg_sq")),
        ):
            v = whole(torch.zeros_like(p) if v is None else v)
            state |= {f"{key}.{name}": v.detach().cpu().numpy()} if w.rank == 0 else {}
    raw = {name: whole(v) for name, v in net.state_dict().items()} if c.raw else {}
    if w.rank > 0:
        return
    with room(c, about["step"]):
        artefact.write(c.run / "state.safetensors", state, "nitrogen.state/1", **about)
        model.save(c.run / "model.safetensors", weights, net, weights="averaged", **about)
        if raw:
            model.save(c.run / "raw.safetensors", raw, net, weights="raw", **about)


def restore(c, w, recipe, run, optimizer, average) -> int:
    """Load an unfinished run of the same recipe; the step to go on from (0: a new run).  The log
    loses what came after it.
    """
    path, lines = c.run / "state.safetensors", c.run / "log.jsonl"
    # not what torchrun has started again
    fresh = c.fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if fresh or not path.exists():
        if not fresh and (c.run / "model.safetensors").exists():
            raise SystemExit(
                f"{c.run}: holds a model but no {path.name}; give another --out, or --fresh to replace it"
            )
        if w.rank == 0:
            # else torchrun, starting this again, would go on from them
            for old in (lines, path, c.run / "model.safetensors"):
                old.unlink(missing_ok=True)
            keep_source(c)
        return 0
    tensors, info = artefact.read(path, "nitrogen.state/1")
    if not c.resume:
        raise SystemExit(
            f"{c.run}: holds a run already (step {info['step']}); drop --no-resume to go on, or --fresh to replace it"
        )
    if info["recipe"] != (mine := json.loads(json.dumps(recipe))):
        other = [k for k in info["recipe"] | mine if mine.get(k) != info["recipe"].get(k)]
        raise SystemExit(
            f"{c.run}: holds a run with another {', '.join(other)}; give another --out, or --fresh to replace it"
        )
    for name, p in learned(bare(run)).items():
        optimizer.state[p] = {
            "step": torch.tensor(float(info["step"]), device=p.device),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
        for key, v in (
            ("raw", p),
            ("average", average[name]),
            ("m", optimizer.state[p]["exp_avg"]),
            ("v", optimizer.state[p]["exp_avg_sq"]),
        ):
            put(v, tensors[f"{key}.{name}"])
    if w.rank == 0 and lines.exists():
        kept = [
            line
            for line in open(lines)
            if line.endswith("\n") and json.loads(line)["step"] <= info["step"]
        ]
        artefact.write_bytes(lines, "".join(kept).encode())
    return info["step"]


def keep_source(c: Config) -> None:
    folder = c.run / "source"
    rooms = [ROOT, *(p.parent for p in ROOT.glob("*/__init__.py"))]
    for path in (p for room in rooms for p in room.glob("*.py")):
        shutil.copy(path, artefact.in_folder(folder / path.relative_to(ROOT)))
    (folder / "command.txt").write_text(
        shlex.join([sys.executable, *sys.argv])
        + "\n"
        + json.dumps(dataclasses.asdict(c), indent=1)
        + "\n"
    )


def describe(c: Config, w: World, net, shards) -> None:
    """What will happen, before it happens."""
    m, memory, GB = net.c, footprint(c, w, net), 1e9
    count, learns = (sum(p.numel() for p in ps) for ps in (net.parameters(), learned(net).values()))
    with autocast(w.device.type):
        precision = (
            "bfloat16 where it is safe"
            if torch.is_autocast_enabled(w.device.type)
            else "float32 (no bfloat16 in hardware)"
        )
    w.say(
        f"config    {json.dumps(dataclasses.asdict(c))}\n"
        f"network   {c.init or c.net}: {count:,} parameters, {learns:,} learn; {m.tokens} image tokens, chunks of {m.horizon} x {len(m.actions)} at {m.rate:g}/s\n"
        f"data      {c.data}: {len(shards['train']):,} chunks {shards['train'].games}, {len(shards['validation']):,} held out\n"
        f"device    {w.size} x {w.device}, {precision}, {torch.get_num_threads()} threads, {w.workers(c)} decoding processes\n"
        f"memory    about {sum(memory.values()) / GB:.2f} GB: {', '.join(f'{k} {v / GB:.2f}' for k, v in memory.items())} ({w.micro(c)} frames at a time)"
    )


def estimate(c: Config, w: World, run, steps: int) -> None:
    """The time that it will take, from a forward and backward pass; the first ones compile and fill
    caches.
    """
    m = bare(run).c
    images, K = (
        torch.zeros(w.micro(c), m.image, m.image, 3, dtype=torch.uint8, device=w.device),
        (w.micro(c), m.horizon, len(m.actions)),
    )
    for _ in range(3):
        began = w.wait()
        with autocast(w.device.type):
            loss = run(
                augment(images, m.image, c),
                torch.zeros(K, device=w.device),
                torch.ones(1, device=w.device),
                draws=c.draws,
            )
        loss.backward()
        run.zero_grad(set_to_none=True)
    seconds = (w.wait() - began) * c.batch / (w.size * w.micro(c))
    w.say(
        f"time      {steps:,} steps of {c.batch} frames at about {seconds:.2f} s: about {steps * seconds / 60:.0f} minutes"
        + (f"; this run stops after {c.minutes:g} and can be resumed" if c.minutes else "")
    )


def footprint(c: Config, w: World, net) -> dict:
    """Bytes on one device, float32 but for activations: what the backward pass keeps, measured on
    one and on two frames and drawn on.

    An estimate: torch.compile keeps less, and the scratch memory of the kernels comes on top.
    """
    m, B, split = net.c, w.micro(c), w.size if c.fsdp else 1
    count, learns = (
        4 * sum(p.numel() for p in ps) // split for ps in (net.parameters(), learned(net).values())
    )
    net.recompute = False  # its blocks would keep what they keep out of sight
    one, two = kept(c, w, net, 1), kept(c, w, net, 2)
    net.recompute = c.recompute
    frame, fixed = two - one, 2 * one - two  # fixed: the weights in bfloat16
    if c.recompute:  # the input of every block, and all of one block at a time
        blocks = m.mixer_layers + (0 if c.freeze else m.vision_layers)
        frame = frame // blocks + 4 * blocks * m.tokens * m.width
    return {
        "parameters": count,
        "gradients": learns,
        "optimizer": 2 * learns,
        "average": learns,
        "activations": fixed + B * frame,
    }


def kept(c: Config, w: World, net, B: int) -> int:
    """Bytes that autograd holds after a forward pass of B frames, parameters not counted."""
    found, weights, m = {}, {p.data_ptr() for p in net.parameters()}, net.c

    def keep(t):
        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    images, a = (
        torch.zeros(B, 3, m.image, m.image, device=w.device),
        torch.zeros(B, m.horizon, len(m.actions), device=w.device),
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), autocast(w.device.type):
        # held until all is counted
        loss = net(images, a, torch.ones(1, device=w.device), draws=c.draws)
    return sum(n for at, n in found.items() if at not in weights)


def picture(c: Config) -> None:
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in open(c.run / "log.jsonl")]
    if not rows:
        return
    figure = Figure(layout="tight")
    ax = figure.subplots()
    for key in ("loss", "val"):
        points = [(r["step"], r[key]) for r in rows if key in r]
        if points:
            ax.plot(
                *zip(*points),
                label={"loss": "training", "val": "held-out videos (averaged weights)"}[key],
            )
    ax.set_xlabel("step"), ax.set_ylabel("flow-matching loss"), ax.legend(), ax.grid(alpha=0.3)
    figure.savefig(c.run / "loss.png", dpi=120)


# ---- the whole pipe on built-in games ------------------------------------------------------------

MINUTES_OF_VIDEO = {"tiny": 10}  # else 60
PARTS = (  # and the minutes that each took for 10 minutes of video on two cores
    ("record", "scripted experts play through the simulator, an overlay drawn in", 1.2),
    ("extract", "find the overlay in each video", 0.5),
    ("parse", "read buttons and sticks off it", 1.1),
    ("filter", "normalize, drop idle segments, mask, write shards", 0.6),
    ("train", "behaviour cloning", None),
    ("play", "the policy at the pad, beside random, held, none and expert", 3),
)


def pipeline(c: Config) -> None:
    """Run the published commands of every stage, one by one, then train and play."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise SystemExit(
            "under torchrun give --data: python train.py without torchrun makes shards of the built-in games"
        )
    check(c)
    data, workers, video = (
        f"data/{c.net}",
        c.workers or os.cpu_count(),
        MINUTES_OF_VIDEO.get(c.net, 60),
    )
    print(
        f"No --data given: the whole pipe on the built-in games, with {video} minutes of play.  Finished parts are skipped."
    )
    for n, (part, what, minutes) in enumerate(PARTS, 1):
        scale = 2 / workers * (video / 10 if part != "play" else 1)
        print(
            f"  {n} {part:8s} {what:68s}"
            + (
                f"about {max(1, minutes * scale):.0f} min"
                if minutes
                else "estimated when it starts"
            )
        )
    # ten games are too many for minutes on a CPU
    suite = () if c.net == "tiny" else ("--games", "all", "--astray", "0.5")
    many, fresh, net = ("--workers", str(workers)), ("--fresh",) * c.fresh, model.CONFIGS[c.net]
    timing = (
        "--horizon",
        str(c.horizon or net.horizon),
        "--rate",
        f"{net.rate:g}",
        "--shift",
        str(net.shift),
    )
    run_stage(
        "eval.py",
        "record",
        "--out",
        f"{data}/videos",
        "--minutes",
        str(video),
        "--seed",
        str(c.seed),
        *many,
        *suite,
        *fresh,
    )
    videos = expand([f"{data}/videos"])
    run_stage("extract.py", *videos, "--out", f"{data}/labels", *many, *fresh)
    run_stage("parse.py", *videos, "--out", f"{data}/labels", "--device", c.device, *fresh)
    run_stage(
        "filter.py",
        *videos,
        "--labels",
        f"{data}/labels",
        "--out",
        f"{data}/shards",
        *timing,
        *many,
        *fresh,
    )
    c = dataclasses.replace(c, data=f"{data}/shards")
    print(f"\n$ python train.py --config {c.net} --data {c.data} --out {c.run}", flush=True)
    policy = fit(c)
    games = ",".join(sorted({v["game"] for v in filter.manifest(c.data)["videos"].values()}))
    run_stage(
        "eval.py",
        "play",
        "--policy",
        str(policy),
        "--games",
        games,
        "--quick",
        *many,
        "--device",
        c.device,
        *fresh,
    )
    print(
        f"\nNext:\n  python eval.py overlay {data}/videos --labels {data}/labels      how well the overlay was read\n"
        f"  python eval.py play --policy {policy}      all ten games, 20 episodes of each of the 30 tasks, with films\n"
        f"  python games/ridge.py      play one yourself (pip install pygame)"
    )


def main(argv=None):
    try:
        command_line(
            __doc__,
            {"": (CONFIGS, lambda c: fit(c) if c.data else pipeline(c)), "bench": "bench.training"},
            argv,
            model.inspect,
        )
    except torch.OutOfMemoryError as e:
        raise SystemExit(
            f"out of memory ({str(e).partition('.')[0]}): give a smaller --micro, --recompute, --freeze, or --fsdp under torchrun"
        ) from None


if __name__ == "__main__":
    main()
