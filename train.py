"""train.py: behaviour cloning of model.py on shards by flow matching (paper sections 2.3 and 3).

    python train.py --config tiny
        the whole pipe on built-in games: record, extract, parse, filter, train, play; on a CPU
    python train.py --config small
        the same on a GPU
    python train.py --config tiny --data data/shards --out runs/mine
        train on your own shards
    python train.py --config finetune --init ng.safetensors --data data/mine:0.5,data/old
        go on from a policy, yours or the released one, on one folder of shards or on several
    torchrun --nproc-per-node 8 --max-restarts 3 train.py --config paper --data data/shards
        several GPUs
    python train.py bench --config tiny --data data/shards
        samples/s of the data, of the model, of both; MFU
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
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from common import artefact, lora
from common.command_line import Common, command_line, expect, flags, recipe_of, run_stage, wing
from common.device import autocast, keep_memory, pick_device
from common.forecast import describe, say_how_long
from common.history import extended
from common.inputs import expand
from common.loading import Chunks, decoded_ahead, in_turn, on_device, place
from common.policy_file import with_prefix
from common.processes import World, copy_share, full_tensor, interrupts, joined, lock, spread
from common.run_folder import events, log, or_disk_full, play_it, plot, saved_state, what_next
from common.shards import manifest, splits, timed_as_shards
from common.training import start_moments

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.data import default_collate
from tqdm import tqdm

import model


@dataclass(frozen=True)
class Config(Common):
    # folder of shards, or several and their shares, as in mine:0.5,old (without shares: by size);
    # empty: make them from the built-in games first
    data: str = ""
    out: str = ""  # run folder (default: runs/NET; runs/finetune with --init)
    net: str = "paper"  # network preset of model.py
    # actions in a chunk, at most what the shards were cut for (0: as --net or --init says)
    horizon: int = 0
    frames: int = 0  # that are seen, the last and earlier ones (0: as --net or --init says)
    frame_stride: int = 0  # actions from one of them to the next (0: as --net or --init says)
    prefix: int = 0  # its first ones that may be given, see model.py (0: as --net or --init says)
    # policy file to go on from: its network replaces --net; chunks are timed as the shards were cut
    init: str = ""
    # SigLIP tower to start the vision encoder from (safetensors, as transformers saves it)
    vision: str = ""
    freeze: bool = False  # leave the vision encoder as it was loaded
    # rank of the updates that alone learn beside --init (LoRA, arXiv 2106.09685); 0: all weights do
    lora: int = 0
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
    mirror: float = 0.0  # share of the samples with left for right (published: none)
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


# fmt: off
CONFIGS = {
    # DEVIATION: higher peaks: short runs of small networks. tiny has minutes of play: it is
    # augmented less, but half of it is mirrored.
    "tiny": Config(
        net="tiny", steps=3200, batch=32, micro=32, draws=2,
        lr=1e-3, warmup=200, decay=0.4, clip=0.1, ema=0.999,
        jitter=0.1, hue=0.02, rotate=3, crop=0.95, mirror=0.5, log_every=250, save_every=500,
    ),
    "small": Config(
        net="small", steps=8000, batch=512, micro=512, draws=4,
        lr=1e-3, warmup=300, decay=0.4, clip=0.1, ema=0.999,
    ),
    "paper": Config(micro=128),  # frames that fit a GPU of 80 GB (47 by the estimate)
    # CHOICE, all of it: a few hours of one game on one GPU of 12 GB.
    "finetune": Config(
        net="released", freeze=True, recompute=True, steps=3000, batch=128, micro=16, draws=4,
        lr=5e-5, warmup=100, decay=0.3, ema=0.999, log_every=25,
    ),
}
# fmt: on
BETAS = (0.9, 0.99)  # AdamW; CHOICE
# These flags may change between two starts of the same run. Of --data and --init the files count.
SAME_RUN = set(
    "data init minutes resume log_every save_every raw recompute compile fsdp tensorboard".split()
)


def check(cfg: Config) -> None:
    """SystemExit with one line if a flag is out of its range."""
    if cfg.net not in model.CONFIGS:
        raise SystemExit(f"--net {cfg.net}: expected one of {', '.join(model.CONFIGS)}")
    expect(cfg, horizon=(0, 10_000), steps=(1, 1e12), batch=(1, 1e9), micro=(1, 1e9))
    expect(cfg, draws=(1, 1e6), lr=(0, 1e3), warmup=(0, 1e12), decay=(0, 1))
    expect(cfg, weight_decay=(0, 1e3), clip=(0, math.inf), ema=(0, 1), jitter=(0, 1), hue=(0, 1))
    expect(cfg, rotate=(0, 180), crop=(0.01, 1), mirror=(0, 1))
    expect(cfg, minutes=(0, math.inf), workers=(0, 4096))
    expect(cfg, log_every=(1, math.inf), save_every=(1, math.inf), lora=(0, 4096))
    expect(cfg, frames=(0, 16), frame_stride=(0, 1000))


# ---- yours to change: augmentation (paper 3: colour, rotation within 5 degrees, random crop) -----


def augment(images, side: int, cfg: Config):
    """uint8 [B, h, w, 3] -> float [B, 3, side, side] in [-1, 1]; also [B, frames, ...].

    Every sample gets its own draw, from torch's global generator, and its frames the same.
    """
    B = len(images)
    pixels = rearrange(images, "b ... h w c -> b (... c) h w").float() / 255
    squares = random_squares(B, cfg, images.device)
    grid = F.affine_grid(squares, (B, 3, side, side), align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    pixels = random_colours(rearrange(pixels, "b (t c) h w -> b c (t h w)", c=3), cfg)
    pixels = rearrange(pixels.clamp_(0, 1).mul_(2).sub_(1), "b c (t n) -> b t c n", n=side * side)
    return pixels.reshape(*images.shape[:-3], 3, side, side)


def uniform(low, high, B: int, device):
    """B numbers in [low, high), as matrices [B, 1, 1]."""
    return torch.rand(B, 1, 1, device=device) * (high - low) + low


def matrix(*rows):
    """Matrices [B, rows, columns] from their elements, each [B, 1, 1]."""
    return torch.cat([torch.cat(row, 2) for row in rows], 1)


def random_squares(B: int, cfg: Config, device):
    """Affine maps [B, 2, 3] to turned and shifted squares of at least `crop` of the frame's side.

    Their corners may lie outside and show the reflected border.
    """
    angle = uniform(-cfg.rotate, cfg.rotate, B, device) * math.pi / 180
    scale = uniform(cfg.crop, 1, B, device)
    dx = uniform(-1, 1, B, device) * (1 - scale)
    dy = uniform(-1, 1, B, device) * (1 - scale)
    cos = angle.cos() * scale
    sin = angle.sin() * scale
    return matrix((cos, -sin, dx), (sin, cos, dy))


def random_colours(pixels, cfg: Config):
    """Hue, saturation, contrast and brightness of pixels [B, 3, n] in [0, 1].

    Hue turns the chroma plane of YIQ and saturation scales it. Contrast scales the distance from
    the picture's mean, brightness the mean.
    """
    shape = (len(pixels), pixels.device)
    # fmt: off
    yiq = torch.tensor([[0.299,  0.587,  0.114],
                        [0.596, -0.274, -0.322],
                        [0.211, -0.523,  0.312]], device=pixels.device)
    # fmt: on
    hue = uniform(-cfg.hue, cfg.hue, *shape) * 2 * math.pi
    saturation = uniform(1 - cfg.jitter, 1 + cfg.jitter, *shape)
    contrast = uniform(1 - cfg.jitter, 1 + cfg.jitter, *shape)
    brightness = uniform(1 - cfg.jitter, 1 + cfg.jitter, *shape)
    cos = saturation * hue.cos()
    sin = saturation * hue.sin()
    one, zero = torch.ones_like(hue), torch.zeros_like(hue)
    turn = matrix((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))
    colour = yiq.inverse() @ turn @ yiq  # [B, 3, 3]
    mean = (colour @ pixels.mean(2, keepdim=True)).mean(1, keepdim=True)  # [B, 1, 1]
    return torch.baddbmm((brightness - contrast) * mean, contrast * colour, pixels)


def mirrored(images, actions, mask, names, cfg: Config):
    """Left for right in a share of the samples: in images uint8 [B, ..., h, w, 3], and on d-pad and
    sticks in actions [B, K, A] and their mask. Every other button keeps its meaning.
    """
    if not cfg.mirror:
        return images, actions, mask
    turned = torch.rand(len(images), 1, 1, device=images.device) < cfg.mirror
    column = {name: i for i, name in enumerate(names)}
    swap = [column.get(OTHER_SIDE.get(name), i) for name, i in column.items()]
    across = torch.tensor([name.endswith("_X") for name in names], device=images.device)
    mask = mask.expand_as(actions)
    other = torch.where(across, 1 - actions, actions[..., swap])
    flipped = torch.where(turned.view(-1, *[1] * (images.dim() - 1)), images.flip(-2), images)
    return flipped, torch.where(turned, other, actions), torch.where(turned, mask[..., swap], mask)


OTHER_SIDE = {"DPAD_LEFT": "DPAD_RIGHT", "DPAD_RIGHT": "DPAD_LEFT"}


# ---- data ----------------------------------------------------------------------------------------


def rows(step: int, shards, cfg: Config) -> np.ndarray:
    """Chunk numbers int64 [batch] of one step: consecutive pieces of one permutation per epoch."""
    position = np.arange(step * cfg.batch, (step + 1) * cfg.batch)
    return in_turn(position, shards.sizes, shards.slots, cfg.seed)


def collate(items, names=model.ACTIONS):
    """images uint8 [B, side, side, 3]; actions [B, K, A] in [0, 1], by `names`; mask [B, 1, A].

    An action that the recordings do not have (GUIDE, virtual directions) is masked out of the loss.
    If an item is a message, the message alone.
    """
    for item in items:
        if isinstance(item, str):
            return item
    images, buttons, sticks, shown = default_collate(items)  # straight into shared memory
    column = {name: i for i, name in enumerate(model.ACTIONS)}
    shown = F.pad(shown.float(), (0, 1))  # the last column is that of an unknown action
    mask = shown[:, [column.get(name, -1) for name in names]]
    return images, model.encode(buttons, sticks, names), mask[:, None]


def micro_batch(cfg: Config, world: World) -> int:
    """Frames per forward pass; SystemExit if the batch cannot be dealt out."""
    micro = min(cfg.micro, cfg.batch // world.size)
    if micro < 1 or cfg.batch % (world.size * micro):
        raise SystemExit(
            f"--batch {cfg.batch} is not a multiple of --micro {micro} x {world.size} processes"
        )
    return micro


def decoders(cfg: Config, world: World) -> int:
    """Decoding processes of each trainer."""
    return cfg.workers or max(1, (os.cpu_count() or 1) // world.local - 1)


def batches(shards, net: model.Config, cfg: Config, world: World, start: int = 0):
    """Yield this process's micro-batches on its device, from step `start` on."""

    def wanted():
        for step in range(start, cfg.steps):
            mine = np.array_split(rows(step, shards, cfg), world.size)[world.rank]
            yield from np.split(mine, len(mine) // micro_batch(cfg, world))

    chunks = Chunks(shards, net.image)
    put_together = functools.partial(collate, names=net.actions)
    return decoded_ahead(chunks, wanted(), put_together, decoders(cfg, world), world.device)


# ---- schedule and average ------------------------------------------------------------------------


def learning_rate(step: int, cfg: Config) -> float:
    """Warmup-stable-decay: linear up over `warmup` steps, constant, linear to 0 over the last
    `decay` share.
    """
    tail = max(1, cfg.decay * cfg.steps)
    return cfg.lr * min(1, (step + 1) / max(1, cfg.warmup), (cfg.steps - step) / tail)


def ema_decay(step: int, cfg: Config) -> float:
    """The published 0.9999 averages over 10,000 steps; early steps average over fewer."""
    return min(cfg.ema, (1 + step) / (10 + step))


# ---- a step --------------------------------------------------------------------------------------


@dataclass
class Trainer:
    """What one process of a run holds."""

    cfg: Config
    world: World
    parallel: torch.nn.Module  # images, actions, mask -> loss: the network; DDP or FSDP2 around it
    optimizer: torch.optim.Optimizer
    average: dict  # name of a learned parameter -> its average
    shards: dict  # "train", "validation" -> Shards

    @property
    def net(self) -> model.NitroGen:
        return getattr(self.parallel, "module", self.parallel)  # DDP holds it as `module`

    def loss(self, images, actions, mask):
        """Loss of a micro-batch; images are uint8 frames, or what `augment` makes of them."""
        with autocast(self.world.device.type):
            if images.dtype == torch.uint8:
                names = self.net.c.actions
                images, actions, mask = mirrored(images, actions, mask, names, self.cfg)
                images = augment(images, self.net.c.image, self.cfg)
            return self.parallel(images, actions, mask, draws=self.cfg.draws)


def learned(net) -> dict:
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def update(trainer: Trainer, data, step: int) -> tuple[np.ndarray, float]:
    """One step of weights and average.

    Returns the loss of each micro-batch of all processes, in the order of `rows`, and the
    gradient's norm. If one of them is not finite, weights and average stay as they are.
    """
    cfg = trainer.cfg
    world = trainer.world
    trainer.parallel.train()
    micro = micro_batch(cfg, world)
    n = cfg.batch // (world.size * micro)
    losses = torch.zeros(world.size, n, device=world.device)
    for k in range(n):
        images, actions, mask = next(data)
        seed = np.random.SeedSequence([cfg.seed, step, (world.rank * n + k) * micro])
        # for augmentation, t, noise and dropout of these frames
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        trainer.parallel.require_backward_grad_sync = k == n - 1  # DDP: once a step
        loss = trainer.loss(images, actions, mask)
        (loss / n).backward()
        losses[world.rank, k] = loss.detach()
    parameters = learned(trainer.net)
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(parameters.values(), cfg.clip)).item()
    losses = world.total(losses).flatten().cpu().numpy()
    if finite(losses, norm):
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        trainer.optimizer.step()
        average = list(trainer.average.values())
        with torch.no_grad():
            torch._foreach_lerp_(average, list(parameters.values()), 1 - ema_decay(step, cfg))
    trainer.optimizer.zero_grad(set_to_none=True)
    return losses, norm


def finite(losses: np.ndarray, norm: float) -> bool:
    return bool(np.isfinite(losses).all()) and math.isfinite(norm)


# ---- before the first step -----------------------------------------------------------------------


def assemble(cfg: Config, world: World) -> Trainer:
    """The trainer at step 0, on this process's device."""
    keep_memory()
    check(cfg)
    micro_batch(cfg, world)
    torch.manual_seed(cfg.seed)
    net = network(cfg).to(world.device)
    shards = splits(cfg.data, net.c)
    describe(cfg, world, net, shards, micro_batch(cfg, world), decoders(cfg, world))
    # Equal blocks compile once; DDP, FSDP2 and checkpointing stay outside of them.
    if cfg.compile and world.device.type == "cuda":
        for block in (*net.vision.blocks, *net.mixer, *net.dit):
            block.compile(dynamic=False)
    # FSDP2 leaves the DiT's blocks whole: `context` and `timing` use their layers from outside.
    parallel = spread(net, (*net.vision.blocks, *net.mixer), world, cfg.fsdp)
    parameters = learned(net)
    fused = world.device.type != "mps"
    optimizer = torch.optim.AdamW(
        parameters.values(), cfg.lr, BETAS, weight_decay=cfg.weight_decay, fused=fused
    )
    start_moments(optimizer)
    average = {name: p.detach().clone() for name, p in parameters.items()}
    return Trainer(cfg, world, parallel, optimizer, average, shards)


def network(cfg: Config) -> model.NitroGen:
    """A new network, or that of --init, ready to train.

    --init's chunks are timed as the shards were cut. Actions go by name, so its layout may be any.
    """
    if cfg.freeze and not (cfg.init or cfg.vision):
        raise SystemExit(
            "--freeze leaves the vision encoder as it was loaded: give --init or --vision FILE"
        )
    if cfg.init:
        net = model.load(cfg.init, "cpu")
        net.c = timed_as_shards(net.c, cfg)
    else:
        m = model.CONFIGS[cfg.net]
        horizon = cfg.horizon or m.horizon
        positions = max(m.positions, horizon)
        net = model.NitroGen(dataclasses.replace(m, horizon=horizon, positions=positions))
    net = extended(net, cfg)
    net.c = with_prefix(net.c, cfg.prefix)
    if cfg.vision:
        wing("interop.checkpoint").load_vision(net, cfg.vision)
    net.vision.requires_grad_(not cfg.freeze)
    net.recompute = cfg.recompute
    return lora.adapt(net, cfg).train() if cfg.lora else net.train()


# ---- the run -------------------------------------------------------------------------------------


def fit(cfg: Config) -> Path:
    """Train, or go on training, cfg.run; returns the path of the model.

    Ctrl-C, SIGTERM and --minutes leave a run that can be resumed.
    """
    with joined(cfg.device) as world, lock(cfg.run, world.rank == 0):
        if cfg.tensorboard and world.rank == 0:
            events(cfg.run)
        trainer = assemble(cfg, world)
        recipe = run_recipe(cfg, trainer.shards)
        start = restore(trainer, recipe)
        if start >= cfg.steps:
            world.print0(f"{cfg.run}: finished at step {start}; --fresh trains anew")
        else:
            say_how_long(trainer, micro_batch(cfg, world), cfg.steps - start)
            about = {"recipe": recipe, "games": trainer.shards["train"].games, **lora.about(cfg)}
            with interrupts() as asked:
                train_steps(trainer, about, start, asked)
        world.print0(what_next(cfg.run / "model.safetensors"))
    return cfg.run / "model.safetensors"


def run_recipe(cfg: Config, shards: dict) -> dict:
    """What makes this run: a folder that holds a run with another recipe is not gone on with."""
    parts = (*shards["train"].parts, *shards["validation"].parts)
    names = repr([(part.about["name"], len(part["start"])) for part in parts])
    recipe = recipe_of(cfg, cfg.init) if cfg.init else recipe_of(cfg)
    mixed = shards["train"]
    if mixed.slots != mixed.sizes:
        recipe["shares"] = [mixed.slots, mixed.sizes]
    recipe["shards"] = hashlib.sha256(names.encode()).hexdigest()[:16]
    return {key: v for key, v in recipe.items() if key not in SAME_RUN}


def train_steps(trainer: Trainer, about: dict, start: int, asked: list) -> None:
    """Train from step `start` to the end, or until `asked` is not empty or --minutes are over.

    about: what the saved files tell of themselves, beside the step and the line of the log.
    """
    cfg = trainer.cfg
    world = trainer.world
    began = time.time()
    deadline = began + 60 * (cfg.minutes or math.inf)
    seen = []  # losses since the last line of the log
    bar = tqdm(total=cfg.steps, initial=start, desc="train", unit="step", disable=world.rank > 0)
    data = batches(trainer.shards["train"], trainer.net.c, cfg, world, start)
    with bar, contextlib.closing(data):  # which ends the decoding processes
        for step in range(start, cfg.steps):
            losses, norm = finite_update(trainer, about, data, step)
            done = step + 1
            seen.append(losses.mean())
            bar.update()
            interrupted, late = world.any_process(bool(asked), time.time() > deadline)
            stops = interrupted or late
            saves = stops or done == cfg.steps or done % cfg.save_every == 0
            if saves or done % cfg.log_every == 0:
                row = log_row(trainer, done, seen, norm, time.time() - began)
                log_and_save(trainer, about, row, bar, saves, stops)
                seen = []
                began = time.time()
            if interrupted:
                raise KeyboardInterrupt
            if late and done < cfg.steps:
                world.print0(
                    f"--minutes {cfg.minutes:g} are over at step {done} of {cfg.steps}: "
                    "the same command goes on from here"
                )
                break
    if world.rank == 0:
        plot(cfg)


def finite_update(trainer: Trainer, about: dict, data, step: int) -> tuple[np.ndarray, float]:
    """`update`; if its loss is not finite, save the state before it and end with a message, which
    names the rows of these micro-batches, or else all rows.
    """
    losses, norm = update(trainer, data, step)
    if finite(losses, norm):
        return losses, norm
    save(trainer, {**about, "step": step}, averaged(trainer))
    cfg = trainer.cfg
    shards = trainer.shards["train"]
    chunks = rows(step, shards, cfg).reshape(len(losses), -1)
    bad = ~np.isfinite(losses)
    where = place(shards, chunks[bad if bad.any() else ~bad].flatten())
    raise SystemExit(
        f"step {step}: the loss is {losses.mean()}, the gradient's norm {norm}; batch: {where}; "
        f"the state before it is kept in {cfg.run}; try a smaller --lr, or look at these rows"
    )


def log_row(trainer: Trainer, done: int, seen: list, norm: float, seconds: float) -> dict:
    """A line of the log after `done` steps; seen: losses of the steps of these seconds."""
    cfg = trainer.cfg
    return {
        "step": done,
        "loss": round(float(np.mean(seen)), 5),
        "lr": float(f"{learning_rate(done - 1, cfg):.3g}"),
        "norm": round(norm, 3),
        "frames_per_s": round(len(seen) * cfg.batch / seconds, 1),
        "epoch": round(done * cfg.batch / len(trainer.shards["train"]), 2),
    }


def log_and_save(trainer: Trainer, about: dict, row: dict, bar, saves: bool, stops: bool):
    """Print, log and save; a run that stops early is not validated.  Every process must call."""
    first = trainer.world.rank == 0
    held_out = trainer.shards["validation"]
    weights = averaged(trainer) if saves else {}
    if first and saves and not stops and len(held_out):
        row |= validate(trainer.net.c, weights, held_out, trainer.world.device)
    if first:
        bar.write("  ".join(f"{key} {v:>8}" for key, v in row.items()))
        log(trainer.cfg, row)
    if saves:
        save(trainer, {**about, "step": row["step"], "log": row}, weights)


@torch.no_grad()
def averaged(trainer: Trainer) -> dict:
    """All weights by name, averaged where they learn; every process must call."""
    return {
        name: full_tensor(trainer.average.get(name, weight))
        for name, weight in trainer.net.state_dict().items()
    }


@torch.no_grad()
def validate(m: model.Config, weights, shards, device, frames: int = 512) -> dict:
    """Loss of the averaged weights on held-out videos, in all and by game.

    Frames, flow-matching times and noises are the same at every call.
    """
    net = model.skeleton(m, len(weights)).eval()
    net.load_state_dict(lora.merged(weights), assign=True)
    torch.manual_seed(0)
    chunks = Chunks(shards, m.image)
    frames_of = {}  # game -> numbers of its chunks
    for i in np.random.default_rng(0).permutation(len(shards))[:frames]:
        frames_of.setdefault(shards[i][4], []).append(i)
    losses = {}  # game -> loss of each frame
    for game, mine in sorted(frames_of.items()):
        losses[game] = []
        for first in range(0, len(mine), 64):
            items = [chunks[i] for i in mine[first : first + 64]]
            batch = on_device(collate(items, m.actions), device)
            with autocast(device.type):
                losses[game] += [net.loss(*batch, draws=4).item()] * len(items)
    row = {"val": round(float(np.mean(sum(losses.values(), []))), 5)}
    for game, loss in losses.items():
        row[f"val_{game}"] = round(float(np.mean(loss)), 5)
    return row


# ---- run folder ----------------------------------------------------------------------------------


def state_tensors(trainer: Trainer) -> dict:
    """Name in state.safetensors -> tensor, of all that a step changes."""
    tensors = {}
    for name, p in learned(trainer.net).items():
        moments = trainer.optimizer.state[p]
        tensors[f"raw.{name}"] = p
        tensors[f"average.{name}"] = trainer.average[name]
        tensors[f"m.{name}"] = moments["exp_avg"]
        tensors[f"v.{name}"] = moments["exp_avg_sq"]
    return tensors


def save(trainer: Trainer, about: dict, weights: dict) -> None:
    """state.safetensors first, then the model: the run resumes, whatever happens in between.

    about: what the files tell of themselves: recipe, training chunks by game, step, the line of the
    log. Every process must call.
    """
    cfg = trainer.cfg
    net = trainer.net
    first = trainer.world.rank == 0
    state = {}
    for name, tensor in state_tensors(trainer).items():
        tensor = full_tensor(tensor.detach())
        if first:
            state[name] = tensor.cpu().numpy()
    raw = {name: full_tensor(v) for name, v in net.state_dict().items()} if cfg.raw else {}
    if not first:
        return
    with or_disk_full(cfg, about["step"]):
        artefact.write(cfg.run / "state.safetensors", state, "nitrogen.state/1", **about)
        averages = lora.alone(weights)
        model.save(cfg.run / "model.safetensors", averages, net, weights="averaged", **about)
        if raw:
            model.save(cfg.run / "raw.safetensors", lora.alone(raw), net, weights="raw", **about)


def restore(trainer: Trainer, recipe: dict) -> int:
    """Load an unfinished run of the same recipe, if there is one; the step to go on from."""
    saved, step = saved_state(trainer.cfg, recipe, trainer.world.rank == 0)
    if saved:
        for name, tensor in state_tensors(trainer).items():
            copy_share(tensor, saved[name])
        for state in trainer.optimizer.state.values():
            state["step"].fill_(step)
    return step


# ---- the whole pipe on built-in games ------------------------------------------------------------

MINUTES_OF_VIDEO = {"tiny": 14}  # else 60
# of one core, to make shards of a minute of play: of a Xeon with AMX, and of an EPYC of 2017
DATA_MINUTES = (0.7, 1.7)


def run(cfg: Config) -> None:
    """Train; without --data, run the published commands of every stage before, and play after."""
    if cfg.data:
        fit(cfg)
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise SystemExit(
            "under torchrun give --data: python train.py alone makes shards of the built-in games"
        )
    check(cfg)
    workers = cfg.workers or os.cpu_count()
    minutes = MINUTES_OF_VIDEO.get(cfg.net, 60)
    least, most = (f"{minutes * each / workers:.0f}" for each in DATA_MINUTES)
    print(
        f"No --data given: the whole pipe on the built-in games, with {minutes} minutes of play. "
        f"Its data takes {least} to {most} min. Finished parts are kept."
    )
    net = model.CONFIGS[cfg.net]
    folder = f"data/{cfg.net}"
    labels, shards = f"{folder}/labels", f"{folder}/shards"
    many = flags(workers=workers, fresh=cfg.fresh)
    # ten games are too many for minutes on a CPU
    games = [] if cfg.net == "tiny" else flags(games="all")
    recording = flags(out=f"{folder}/videos", minutes=minutes, astray=0.5, seed=cfg.seed)
    run_stage("eval.py", "record", *recording, *many, *games)
    videos = expand([f"{folder}/videos"])
    run_stage("extract.py", *videos, *flags(out=labels), *many)
    # one process keeps a GPU busy, but only one core
    parsing = many if pick_device(cfg.device) == "cpu" else flags(fresh=cfg.fresh)
    run_stage("parse.py", *videos, *flags(out=labels, device=cfg.device), *parsing)
    timing = flags(horizon=cfg.horizon or net.horizon, rate=f"{net.rate:g}", shift=net.shift)
    run_stage("filter.py", *videos, *flags(labels=labels, out=shards), *timing, *many)
    cfg = dataclasses.replace(cfg, data=shards)
    print(f"\n$ python train.py --config {cfg.net} --data {cfg.data} --out {cfg.run}", flush=True)
    policy = fit(cfg)
    games = ",".join(sorted({v["game"] for v in manifest(cfg.data)["videos"].values()}))
    playing = flags(policy=policy, games=games, quick=True, device=cfg.device)
    run_stage("eval.py", "play", *playing, *many)
    print(
        f"\nNext:\n  python eval.py overlay {folder}/videos --labels {labels}"
        "      how well the overlay was read\n"
        f"  {play_it(policy)}      all ten games, 20 episodes of each of the 30 tasks\n"
        "  python games/ridge.py      play one yourself (pip install pygame)"
    )


def main(argv=None):
    commands = {"": (CONFIGS, run), "bench": "bench.training", "race": "bench.race"}
    smaller = "a smaller --micro, --recompute, --freeze, or --fsdp under torchrun"
    command_line(__doc__, commands, argv, model.inspect, smaller)


if __name__ == "__main__":
    main()
