"""LoRA (arXiv 2106.09685): what fine-tuning adds to a linear layer has a low rank.

    y = W x + b + up (down x)        down [r, in], up [out, r]: A and B of the paper

`train.py --lora R` learns `down` and `up` and saves them alone, an adapter. Its file names its
base, the policy that holds all else, by hash. Who reads the adapter gets the base with W + up down.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from common import ROOT, artefact

import torch
from torch import nn

FACTORS = (".down", ".up")  # how the names of their tensors end
WHOLE = ("past.weight",)  # learned without a base: the times of earlier frames
# CHOICE: scale of `down` at the start: `up` need not move far. At 1 the loss falls a little slower.
GAIN = 10.0


class LowRank(nn.Linear):
    """A linear layer that stays as it is, and a learned update of rank r, at first 0."""

    def __init__(self, layer: nn.Linear, r: int):
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight = layer.weight
        self.bias = layer.bias
        std = GAIN * self.in_features**-0.5
        self.down = nn.Parameter(torch.randn(r, self.in_features) * std)
        self.up = nn.Parameter(torch.zeros(self.out_features, r))

    def forward(self, x):
        return super().forward(x) + x @ self.down.t() @ self.up.t()


def adapt(net, cfg):
    """The network, in which nothing learns but the updates of the DiT's linear layers and, without
    --freeze, of the mixer's and the vision encoder's. cfg: train.Config.
    """
    if not cfg.init or cfg.vision:
        raise SystemExit("--lora learns beside the policy of --init: give that, and no --vision")
    net.requires_grad_(False)
    if net.past is not None:  # it may be new
        net.past.requires_grad_(True)
    wider = () if cfg.freeze else (*net.mixer, *net.vision.blocks)
    for block in (*net.dit, *wider):
        replace(block, nn.Linear, lambda layer: LowRank(layer, cfg.lora))
    return net


@contextlib.contextmanager
def thawed(net, cfg):
    """The adapted network as full fine-tuning would find it: what learned without --lora learns."""
    others = [p for name, p in net.named_parameters() if not name.endswith(FACTORS)]
    fixed = list(net.vision.parameters()) if cfg.freeze else []
    for p in others:
        p.requires_grad_(True)
    for p in fixed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(False)


def replace(net, kind, change) -> None:
    for module in list(net.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is kind:
                setattr(module, name, change(layer))


# ---- weights by name, and files ------------------------------------------------------------------


def alone(state: dict) -> dict:
    """What learns of an adapted network's weights; of another network all."""
    adapts = any(name.endswith(FACTORS) for name in state)
    learns = {name: v for name, v in state.items() if name.endswith(FACTORS) or name in WHOLE}
    return learns if adapts else state


def merged(state: dict) -> dict:
    """Weights by name, tensors or arrays, with the updates in them. ValueError if an update fits no
    layer.
    """
    out = {name: v for name, v in state.items() if not name.endswith(FACTORS)}
    for layer in sorted({name.rpartition(".")[0] for name in state if name.endswith(FACTORS)}):
        weight, down, up = (state.get(layer + end) for end in (".weight", *FACTORS))
        if weight is None or down is None or up is None:
            raise ValueError(f"the update of '{layer}' has no layer, or is only half there")
        shapes = [list(v.shape) for v in (weight, up, down)]
        if shapes != [list(weight.shape), [len(weight), len(down)], [len(down), weight.shape[-1]]]:
            raise ValueError(f"the update of '{layer}' has another shape than its layer ({shapes})")
        out[layer + ".weight"] = weight + up @ down
    return out


def about(cfg) -> dict:
    """What an adapter's file tells of its base. cfg: train.Config."""
    return {"base": {**artefact.source(cfg.init), "path": cfg.init}} if cfg.lora else {}


def base_file(adapter, base: dict, given: str = "") -> Path:
    """The base of an adapter: the given file, the one beside it, or where it was in training.

    base: `about`, as the adapter tells it. SystemExit with one line if none of them has its hash.
    """
    name = Path(base["name"]).name
    was = Path(base["path"])
    tried = [Path(given)] if given else [Path(adapter).parent / name, was, ROOT / was]
    there = [path for path in tried if os.path.isfile(path) and os.access(path, os.R_OK)]
    for path in there:
        if artefact.source(path)["sha256"] == base["sha256"]:
            return path
    wanted = f"its base {name} of sha256 {base['sha256'][:16]}"
    found = f"{there[0]} is another file" if there else f"it is not at {', '.join(map(str, tried))}"
    raise SystemExit(f"{adapter}: an adapter (--lora) needs {wanted}; {found}: put it beside")
