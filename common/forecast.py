"""What a training will need: time, and memory on one device."""

from __future__ import annotations

import dataclasses
import json

from common import history, lora
from common.device import autocast, native_dtype

import torch


def seconds_per_step(trainer, micro: int) -> float:
    """Seconds of an optimizer step, from a forward and backward pass of `micro` blank frames.

    trainer: train.Trainer. Two passes before it compile and fill caches.
    """
    world = trainer.world
    m = trainer.net.c
    shape = (micro, *history.shape(m), m.image, m.image, 3)
    images = torch.zeros(shape, dtype=torch.uint8, device=world.device)
    actions = torch.zeros(micro, m.horizon, len(m.actions), device=world.device)
    mask = torch.ones(1, device=world.device)
    for _ in range(3):
        began = world.synchronised_time()
        trainer.loss(images, actions, mask).backward()
        trainer.parallel.zero_grad(set_to_none=True)
    return (world.synchronised_time() - began) * trainer.cfg.batch / (world.size * micro)


def footprint(net, cfg, frames: int, shares: int = 1) -> dict:
    """Bytes on one device, by what they are for; all float32 but for the activations.

    cfg: train.Config.  frames: per forward pass.  shares: processes that share out the weights.
    The activations are those that autograd keeps of one and of two frames, extrapolated. An
    estimate: torch.compile keeps less, and the kernels' scratch memory comes on top.
    """
    parameters = list(net.parameters())
    learned = [p for p in parameters if p.requires_grad]
    all_bytes, learned_bytes = (
        4 * sum(p.numel() for p in ps) // shares for ps in (parameters, learned)
    )
    net.recompute = False  # checkpointed blocks would hide what they keep
    one, two = (activation_bytes(net, cfg, n) for n in (1, 2))
    net.recompute = cfg.recompute
    per_frame = two - one
    fixed = one - per_frame  # the weights in bfloat16
    long = (*net.vision.blocks, *net.mixer)  # over the image tokens
    blocks = sum(any(p.requires_grad for p in block.parameters()) for block in long)
    if cfg.recompute and blocks:  # the input of every block, and all of one block at a time
        m = net.c
        per_frame = per_frame // blocks + 4 * blocks * m.frames * m.tokens * m.width
    return {
        "parameters": all_bytes,
        "gradients": learned_bytes,
        "optimizer": 2 * learned_bytes,
        "average": learned_bytes,
        "activations": fixed + frames * per_frame,
    }


def activation_bytes(net, cfg, frames: int) -> int:
    """Bytes that autograd holds after a forward pass of so many frames, without the parameters."""
    held = {}  # address of a storage -> bytes

    def hold(tensor):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    m = net.c
    parameters = list(net.parameters())
    device = parameters[0].device
    images = torch.zeros(frames, *history.shape(m), 3, m.image, m.image, device=device)
    actions = torch.zeros(frames, m.horizon, len(m.actions), device=device)
    mask = torch.ones(1, device=device)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t), autocast(device.type):
        loss = net(images, actions, mask, draws=cfg.draws)  # noqa: F841, keeps the graph alive
    weights = {p.data_ptr() for p in parameters}
    return sum(size for address, size in held.items() if address not in weights)


def describe(cfg, world, net, shards: dict, micro: int, decoders: int) -> None:
    """Print what will happen, before it happens.

    cfg: train.Config. micro: frames per forward pass. decoders: processes that decode frames.
    """
    m = net.c
    parameters = sum(p.numel() for p in net.parameters())
    learn = sum(p.numel() for p in net.parameters() if p.requires_grad)
    memory = footprint(net, cfg, micro, world.size if cfg.fsdp else 1)
    fast = native_dtype(world.device.type) == torch.bfloat16
    precision = "bfloat16 where it is safe" if fast else "float32 (no bfloat16 in hardware)"
    mixed = "".join(f"          {line}\n" for line in shards["train"].in_words())
    world.print0(
        f"config    {json.dumps(dataclasses.asdict(cfg))}\n"
        f"network   {cfg.init or cfg.net}: {parameters:,} parameters, {learn:,} learn; "
        f"{m.tokens} image tokens, chunks of {m.horizon} x {len(m.actions)} at {m.rate:g}/s\n"
        f"data      {cfg.data}: {len(shards['train']):,} chunks {shards['train'].games}, "
        f"{len(shards['validation']):,} held out\n{mixed}"
        f"device    {world.size} x {world.device}, {precision}, {torch.get_num_threads()} threads, "
        f"{decoders} decoding processes\n"
        f"memory    about {in_words(memory)} ({micro} frames at a time)"
    )
    if cfg.lora:
        with lora.thawed(net, cfg):
            memory = footprint(net, cfg, micro, world.size if cfg.fsdp else 1)
        world.print0(f"          without --lora {in_words(memory)}")


def in_words(memory: dict) -> str:
    """Of a footprint: its sum and its parts in GB."""
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in memory.items())
    return f"{sum(memory.values()) / 1e9:.2f} GB: {parts}"


def say_how_long(trainer, micro: int, left: int) -> None:
    """Print how long the steps that are left will take; see seconds_per_step."""
    cfg = trainer.cfg
    seconds = seconds_per_step(trainer, micro)
    stop = f"; this run stops after {cfg.minutes:g} and can be resumed" if cfg.minutes else ""
    trainer.world.print0(
        f"time      {left:,} steps of {cfg.batch} frames at about {seconds:.2f} s: "
        f"about {left * seconds / 60:.0f} minutes{stop}"
    )
