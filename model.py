"""model.py: NitroGen's network from scratch: ViT -> mixer -> diffusion transformer, trained by flow matching (paper section 2.3).

    python model.py bench --config tiny                latency, GFLOP, share of the machine's peak, memory; any preset, any device
    python model.py convert ng.pt ng.safetensors       the released checkpoint, for everything that follows
    python model.py export ng.safetensors ng.pt        and back, tensor for tensor; also what train.py made
    python model.py half runs/tiny/model.safetensors policy.safetensors      the same in float16, for shipping
    python model.py --inspect FILE                     config, parameters per part, action layout; of either kind

    net = model.load("runs/tiny/model.safetensors", device="auto")      or "ng.safetensors"
    raw = net.sample(images)      images uint8 [B, h, w, 3] RGB -> float32 [B, K, A], the checkpoint's own layout, undecoded
    act = net.act(images)         dict: buttons bool [B, K, 16], sticks float32 [B, K, 4], y down, by name

Files: *.safetensors of format nitrogen.policy/1: one float tensor per parameter; the metadata holds the Config, so
nothing else is needed to play.

Letters, here and in every other file: B batch, T video frames, N image tokens, K action-chunk length, A action
dimensions, D width, H heads, d width of a head, S denoising steps, R flow-matching draws per frame.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, command_line
from common.device import autocast, keep_memory, pick_device

import cv2
import numpy as np
import torch
import torch.utils.checkpoint
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

# Layouts of an action vector.  Ours: 16 buttons, then 4 axes (paper 2.3).  The released checkpoint has GUIDE and four
# virtual right-stick directions more, in its own order; its model card describes 17 buttons.
ACTIONS = artefact.BUTTONS + artefact.STICKS
RELEASED = ("BACK", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "DPAD_UP", "EAST", "GUIDE", "LEFT_SHOULDER", "LEFT_THUMB", "LEFT_TRIGGER",
            "NORTH", "RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT", "RIGHT_SHOULDER", "RIGHT_THUMB", "RIGHT_TRIGGER", "RIGHT_UP", "SOUTH",
            "START", "WEST", *artefact.STICKS)
CARD = tuple(n for n in RELEASED if n not in ("RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT", "RIGHT_UP"))


@dataclass(frozen=True)
class Config:
    """One network; the defaults are the paper's.  Every tensor's shape follows from it.  ValueError if it cannot be."""
    actions: tuple[str, ...] = ACTIONS  # what the A values of an action vector are, in order
    image: int = 256                # side of the picture that is cut into patches, px
    patch: int = 16                 # side of a patch, px
    width: int = 1024               # D
    head_width: int = 64            # d; H = D / d
    vision_layers: int = 24         # SigLIP-2 large
    vision_mlp: float = 4.0         # hidden width of vision's MLPs, in D
    mixer_layers: int = 4           # self-attention over the image tokens
    dit_layers: int = 8             # even ones look at the image, odd ones at the actions
    horizon: int = 16               # K, actions in a chunk
    rate: float = 30.0              # actions per second
    shift: int = 1                  # rows from the seen frame to the first action
    positions: int = 1024           # rows of the action tokens' position table; 0: none
    dropout: float = 0.2            # mixer and DiT (published)
    alpha: float = 1.6              # t = t_max (1 - Beta(alpha, beta)) (published)
    beta: float = 0.8
    t_max: float = 0.999
    steps: int = 16                 # S, Euler steps
    buckets: int = 1000             # the network sees floor(t * buckets)
    predict: str = "velocity"       # what the last layer gives: the velocity (published), or the action itself
    # Older switches that a checkpoint of the released kind may carry:
    context_width: int = 0          # D of vision and mixer where it is not the DiT's
    interleave: bool = True         # False: every DiT block looks at the image
    sinusoidal: bool = False        # fixed positions added after the first norm of each block of mixer and DiT
    pads: int = 0                   # zero tokens before the image tokens; they are attended to

    def __post_init__(self):
        for name in ("width", "head_width", "patch", "image", "horizon", "steps", "buckets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if not 0 < self.vision_mlp <= 64:
            raise ValueError(f"vision_mlp {self.vision_mlp}: expected at most 64")
        for name, width in (("width", self.width), ("context width", self.context)):
            if width % self.head_width or width % 2:
                raise ValueError(f"{name} {width} is not a whole number of heads of {self.head_width}, or odd")
        if self.positions and self.positions < self.horizon:
            raise ValueError(f"positions {self.positions} are fewer than horizon {self.horizon}")
        if not 0 < self.rate <= 1000 or self.shift < 0:
            raise ValueError(f"rate {self.rate}, shift {self.shift}: expected 0 to 1000 actions per second, from 0 rows after the frame on")
        if self.predict not in ("velocity", "action"):
            raise ValueError(f"predict '{self.predict}': expected velocity or action")
        if len(set(self.actions)) < len(self.actions) or not all(isinstance(n, str) for n in self.actions):
            raise ValueError("actions must be distinct names")

    @property
    def tokens(self) -> int:        # N
        return (self.image // self.patch) ** 2

    @property
    def context(self) -> int:       # D of the image tokens
        return self.context_width or self.width


CONFIGS = {
    "tiny": Config(image=64, patch=8, width=128, head_width=32, vision_layers=3, mixer_layers=1, dit_layers=4, positions=16, dropout=0.0,
                   predict="action"),
    "small": Config(image=128, patch=8, width=192, head_width=32, vision_layers=6, mixer_layers=1, dit_layers=4, positions=16, dropout=0.1,
                    predict="action"),
    "paper": Config(),
    "released": Config(actions=RELEASED, horizon=18, rate=60.0, shift=3),
}


# ---- layers -------------------------------------------------------------------------------------------------

class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over H heads; of a sequence with itself, or with the keys and values of a context."""

    def __init__(self, width: int, d: int, context: int = 0):
        super().__init__()
        self.d, self.out = d, nn.Linear(width, width)
        if context:
            self.q, self.kv = nn.Linear(width, width), nn.Linear(context, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)

    def split(self, x, n: int):                                              # [B, M, n D] -> n x [B, H, M, d]
        return rearrange(x, "b m (n h d) -> n b h m d", n=n, d=self.d).unbind()

    def keys_values(self, context):                                          # [B, N, C] -> 2 x [B, H, N, d]
        return self.split(self.kv(context), 2)

    def forward(self, x, kv=None):                                           # [B, M, D] -> [B, M, D]
        q, k, v = (*self.split(self.q(x), 1), *kv) if kv else self.split(self.qkv(x), 3)
        if x.is_cuda or not torch.is_grad_enabled():
            y = F.scaled_dot_product_attention(q, k, v)                      # [B, H, M, d]
        else:                                                                # on a CPU the formula itself has the faster backward pass
            y = (q @ k.transpose(-1, -2) * self.d ** -0.5).softmax(dim=-1).to(v.dtype) @ v
        return self.out(rearrange(y, "b h m d -> b m (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)).

    adaptive: norm1 has no parameters of its own; its scale and shift come from the time embedding (AdaLN without a gate),
    and norm2 has none at all.  Dropout stands twice on the attention's output, as in the released network.
    """

    def __init__(self, width: int, d: int, eps: float, dropout: float = 0.0, mlp: float = 4.0,
                 adaptive: bool = False, context: int = 0, sinusoidal: bool = False):
        super().__init__()
        self.sinusoidal = sinusoidal
        self.norm1 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.ada = nn.Linear(width, 2 * width) if adaptive else None         # SiLU(time) -> scale, shift
        self.attn = Attention(width, d, context)
        self.fc1, self.fc2 = nn.Linear(width, round(mlp * width)), nn.Linear(round(mlp * width), width)
        self.gelu = nn.GELU(approximate="tanh")
        self.drop = nn.Dropout(dropout)

    def forward(self, x, kv=None, modulation=None):
        n = self.norm1(x)
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=-1)                       # this order: scale first
            n = n * (1 + scale) + shift
        if self.sinusoidal:
            n = n + position_table(*n.shape[1:], n.device).to(n.dtype)
        x = x + self.drop(self.drop(self.attn(n, kv)))
        return x + self.drop(self.fc2(self.drop(self.gelu(self.fc1(self.norm2(x))))))


class Vision(nn.Module):
    """SigLIP-style ViT (arXiv 2303.15343): patches, learned positions, pre-norm blocks, no class token."""

    def __init__(self, c: Config):
        super().__init__()
        self.patch = nn.Conv2d(3, c.context, c.patch, stride=c.patch)
        self.position = nn.Embedding(c.tokens, c.context)
        self.blocks = nn.ModuleList(Block(c.context, c.head_width, eps=1e-6, mlp=c.vision_mlp) for _ in range(c.vision_layers))
        self.norm = nn.LayerNorm(c.context, eps=1e-6)


def sinusoid(t, channels: int, divisor: float, cos_first: bool):
    """[M] -> [M, channels]: cosines and sines of t * 10000^(-i / divisor), i = 0 .. channels / 2 - 1, in float32."""
    freq = torch.exp(-math.log(1e4) * torch.arange(channels // 2, device=t.device, dtype=torch.float32) / divisor)
    angle = t.float()[:, None] * freq
    return torch.cat([angle.cos(), angle.sin()] if cos_first else [angle.sin(), angle.cos()], dim=-1)


def position_table(n: int, width: int, device=None):
    """[n, width] of the fixed positions of "Attention is all you need": sines at even channels, cosines at odd ones."""
    return rearrange(sinusoid(torch.arange(n, device=device), width, width / 2, cos_first=False), "n (two i) -> n (i two)", two=2)


# ---- the network --------------------------------------------------------------------------------------------

class NitroGen(nn.Module):
    """One frame in, K actions out (paper section 2.3, figure 4).

    An action vector follows c.actions: buttons are 0 or 1, axes are mapped from [-1, 1] to [0, 1].
    `recompute`: keep no activations inside blocks for the backward pass, compute them again (less memory, a third more work).
    """
    recompute = False

    def __init__(self, c: Config):
        super().__init__()
        self.c, D, A, d = c, c.width, len(c.actions), c.head_width
        self.vision = Vision(c)
        same = dict(eps=1e-5, dropout=c.dropout, sinusoidal=c.sinusoidal)
        self.mixer = nn.ModuleList(Block(c.context, d, **same) for _ in range(c.mixer_layers))
        self.time1, self.time2 = nn.Linear(256, D), nn.Linear(D, D)
        self.encode_action, self.encode_time, self.encode_out = nn.Linear(A, D), nn.Linear(2 * D, D), nn.Linear(D, D)
        self.position = nn.Embedding(c.positions, D) if c.positions else None
        looks = [not c.interleave or i % 2 == 0 for i in range(c.dit_layers)]        # at the image; else at the actions themselves
        self.dit = nn.ModuleList(Block(D, d, **same, adaptive=True, context=c.context * look) for look in looks)
        self.norm_out = nn.LayerNorm(D, eps=1e-6, elementwise_affine=False)
        self.ada_out, self.out = nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.decode1, self.decode2 = nn.Linear(D, D), nn.Linear(D, A)
        self.apply(initialize)
        for linear in [b.ada for b in self.dit] + [self.ada_out]:            # start as plain LayerNorms
            nn.init.zeros_(linear.weight)

    @property
    def dtype(self):
        return self.vision.patch.weight.dtype

    def block(self, block, *inputs):
        if self.recompute and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def context(self, pixels):                                               # [B, 3, image, image] in [-1, 1]
        """What the actions look at, computed once per frame: per DiT block (k, v) of the image, or None."""
        x = rearrange(self.vision.patch(pixels.to(self.dtype)), "b d h w -> b (h w) d") + self.vision.position.weight
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.vision.norm.weight.requires_grad):      # frozen: as in play
            for block in self.vision.blocks:
                x = self.block(block, x)
        x = F.pad(self.vision.norm(x), (0, 0, self.c.pads, 0))               # [B, N, C]
        for block in self.mixer:
            x = self.block(block, x)
        return [block.attn.keys_values(x) if hasattr(block.attn, "kv") else None for block in self.dit]

    def timing(self, bucket):                                                # int [M]
        """All that depends on time alone: the actions' time embedding [M, 1, D], the modulation of every norm, 1 - t."""
        tau = sinusoid(bucket, self.c.width, self.c.width / 2, cos_first=False).to(self.dtype)
        emb = F.silu(self.time2(F.silu(self.time1(sinusoid(bucket, 256, 127, cos_first=True).to(self.dtype)))))
        left = (1 - bucket.float() / self.c.buckets).clamp(min=0.05)
        return tau[:, None], [linear(emb)[:, None] for linear in [b.ada for b in self.dit] + [self.ada_out]], left[:, None, None]

    def velocity(self, noisy, timing, context):                              # [B, K, A] -> [B, K, A]
        tau, modulation, left = timing
        x = self.encode_action(noisy.to(self.dtype))
        x = torch.cat([x, tau.expand_as(x)], dim=-1)                         # [B, K, 2D]
        x = self.encode_out(F.silu(self.encode_time(x)))
        if self.position is not None:
            x = x + self.position.weight[: x.shape[1]]
        for block, kv, m in zip(self.dit, context, modulation):
            x = self.block(block, x, kv, m)
        shift, scale = modulation[-1].chunk(2, dim=-1)                       # this order: shift first
        x = self.out(self.norm_out(x) * (1 + scale) + shift)
        x = self.decode2(F.relu(self.decode1(x))).to(noisy.dtype)
        # DEVIATION, a switch: a network that gives the action need not carry the noise through; v = (action - a_t) / (1 - t)
        # follows from the two equations below.  The idea: Li and He, arXiv 2511.13720.
        return x if self.c.predict == "velocity" else (x - noisy) / left

    # ---- flow matching (arXiv 2210.02747; paper section 2.3) --------------------------------------- yours to change
    #   a_t = (1 - t) noise + t action        a straight line from noise (t = 0) to data (t = 1)
    #   v   = action - noise                  its velocity, which the network learns by squared error
    #   t   = 0.999 (1 - Beta(1.6, 0.8))      mostly the noisy end, where the decision is made

    def loss(self, images, actions, mask, t=None, noise=None, draws: int = 1):
        """Mean squared error of the velocity over the entries that `mask` allows: a scalar.

        images uint8 [B, h, w, 3], or float [B, 3, image, image] in [-1, 1] as augmentation leaves them; actions [B, K, A]
        in [0, 1]; mask 0 or 1, broadcastable to it.  draws: R pairs (noise, t) per frame, so that the costly vision part
        serves R of them.  t [B * R] and noise [B * R, K, A]: for tests.
        """
        pixels = self.pixels(images) if images.dtype == torch.uint8 else images
        context = [kv and [x.repeat_interleave(draws, 0) for x in kv] for kv in self.context(pixels)]
        actions, mask = actions.repeat_interleave(draws, 0), mask.expand_as(actions).repeat_interleave(draws, 0)
        if t is None:
            t = self.c.t_max * (1 - torch.distributions.Beta(self.c.alpha, self.c.beta).sample((len(actions),)).to(actions))
            noise = torch.randn_like(actions)
        noisy = torch.lerp(noise, actions, t[:, None, None])                 # a_t
        timing = self.timing((t * self.c.buckets).long())
        error = self.velocity(noisy, timing, context) - (actions - noise)
        if self.c.predict == "action":
            error = error * timing[-1]                                       # the error of the action: early t decide, not late ones
        return (mask * error ** 2).sum() / (mask.sum() + 1e-6)

    def denoise(self, pixels, a, S: int):
        """S Euler steps: a <- a + v / S at t = 0, 1/S, ..., 1 - 1/S.  What does not depend on `a` is computed once."""
        context = self.context(pixels)
        bucket = (torch.arange(S, dtype=torch.float64) / S * self.c.buckets).long()             # counted on the CPU: MPS has no float64
        tau, modulation, left = self.timing(bucket.to(a.device))
        for i in range(S):
            a = a + self.velocity(a, (tau[i], [m[i] for m in modulation], left[i]), context) / S
        return a

    forward = loss

    # ---- playing

    @torch.no_grad()
    def sample(self, images, noise=None, steps: int | None = None):
        """Denoise one chunk per image: float32 [B, K, A], about 0..1.

        images uint8 [B, h, w, 3] RGB, tensor or array, any size; noise float [B, K, A], drawn if None; steps: S, the
        checkpoint's own if None.  ValueError for anything else.
        """
        images, shape = torch.as_tensor(images), [len(images), self.c.horizon, len(self.c.actions)]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.numel():
            raise ValueError(f"images must be uint8 [B, h, w, 3] RGB, found {images.dtype} {list(images.shape)}")
        steps = self.c.steps if steps is None else steps
        if not 1 <= steps <= self.c.buckets:
            raise ValueError(f"steps must be 1..{self.c.buckets}, found {steps}")
        device, dtype = self.vision.patch.weight.device, torch.promote_types(self.dtype, torch.float32)
        a = torch.randn(shape, device=device) if noise is None else torch.as_tensor(noise, device=device)
        if list(a.shape) != shape or not a.is_floating_point() or not torch.isfinite(a).all():
            raise ValueError(f"noise must be finite floats {shape}, found {a.dtype} {list(a.shape)}")
        return self.denoise(self.pixels(images.to(device)), a.to(dtype), steps).float()

    def act(self, images, noise=None, steps: int | None = None) -> dict:
        """`sample`, decoded: buttons bool [B, K, 16], sticks float32 [B, K, 4] in [-1, 1], y down; numpy."""
        return self.decode(self.sample(images, noise, steps).cpu().numpy())

    def decode(self, raw) -> dict:
        """Raw actions [..., A] in this network's layout -> the 16 buttons (> 0.5) and 4 axes of sim.py, by name.

        What the pad does not have (GUIDE, virtual directions) is dropped; what the layout lacks is released, centred.
        """
        values = {name: raw[..., i] for i, name in enumerate(self.c.actions)}
        absent = np.full(raw.shape[:-1], 0.5, np.float32)
        buttons, sticks = (np.stack([values.get(n, absent) for n in names], -1) for names in (artefact.BUTTONS, artefact.STICKS))
        return {"buttons": buttons > 0.5, "sticks": np.clip(2 * sticks - 1, -1, 1)}

    def pixels(self, images):
        """uint8 [B, h, w, 3] -> [B, 3, image, image] in [-1, 1]; other sizes by cv2's area average, as the official client."""
        side = self.c.image
        if images.shape[1:3] != (side, side):
            small = [cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA) for i in images.cpu().numpy()]
            images = torch.from_numpy(np.stack(small)).to(images.device)
        x = rearrange(images, "b h w c -> b c h w").to(torch.promote_types(self.dtype, torch.float32))
        return x / 127.5 - 1


def encode(buttons, sticks, actions=ACTIONS):
    """Buttons 0/1 [..., 16] and axes in [-1, 1] [..., 4] -> action vectors in [0, 1] [..., A], by name; absent ones are 0."""
    values = dict(zip(ACTIONS, torch.cat([buttons.float(), (sticks.float() + 1) / 2], dim=-1).unbind(-1)))
    return torch.stack([values.get(n, torch.zeros_like(values["START"])) for n in actions], dim=-1)


def initialize(m):
    """Unit variance through every layer, positions included (std 0.02 would hide them beside the pixels for a long time)."""
    if isinstance(m, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(m.weight, std=m.weight[0].numel() ** -0.5)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Embedding):
        nn.init.normal_(m.weight)


# ---- files: our own -------------------------------------------------------------------------------------------

def save(path, state: dict, net: NitroGen, half: bool = False, **info) -> None:
    """Write `state` (name -> tensor) of `net` as a nitrogen.policy/1 file; `half`: float16, for shipping."""
    tensors = {k: v.detach().cpu().to(torch.float16 if half else torch.float32).numpy() for k, v in state.items()}
    artefact.write(path, tensors, "nitrogen.policy/1", model=dataclasses.asdict(net.c), **info)


def load(path, device: str = "auto", dtype: str = "float32", fast: bool = False) -> NitroGen:
    """A network ready to play, in eval mode, from what train.py or `convert` wrote.

    dtype: float32, bfloat16 or float64, of the weights and of the arithmetic.  fast: see `accelerate`; such a network only
    plays.  SystemExit with one line if the file does not fit itself.
    """
    net, tensors, _ = opened(path)
    net.load_state_dict({k: torch.from_numpy(tensors[k]).float() for k in net.state_dict()}, assign=True)
    net = net.to(pick_device(device), getattr(torch, dtype)).eval()
    return accelerate(net) if fast else net


def opened(path):
    """A policy file, checked against itself: its network on torch's meta device, its arrays, its metadata."""
    tensors, info = artefact.read(path, "nitrogen.policy/1")
    try:
        net = skeleton(Config(**{**info["model"], "actions": tuple(info["model"]["actions"])}), len(tensors))
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as e:
        raise SystemExit(f"{path}: its model config cannot be used ({type(e).__name__}: {str(e).partition(chr(10))[0][:120]})") from None
    found = {k: v.shape for k, v in tensors.items() if not k.startswith(KEPT)}
    if fault := disagreement({k: v.shape for k, v in net.state_dict().items()}, found):
        raise SystemExit(f"{path}: {fault}")
    return net, tensors, info


def skeleton(c: Config, tensors: int) -> NitroGen:
    """The network without memory for its weights; `tensors`: a file cannot hold more layers than tensors."""
    if c.vision_layers + c.mixer_layers + c.dit_layers > tensors:
        raise ValueError(f"more layers than the {tensors} tensors of the file")
    with torch.device("meta"):
        return NitroGen(c)


def disagreement(wanted: dict, found: dict) -> str:
    """What is missing, too many or misshapen, in words: name -> shape against name -> shape.  Empty if nothing is."""
    bad = [name for name in sorted({*wanted, *found}) if list(wanted.get(name, [-1])) != list(found.get(name, [-1]))]
    if not bad:
        return ""
    text = {side: str(list(shapes[bad[0]])) if bad[0] in shapes else "nothing" for side, shapes in (("wanted", wanted), ("found", found))}
    return f"tensor '{bad[0]}': expected {text['wanted']}, found {text['found']}" + (f" (and {len(bad) - 1} more)" if bad[1:] else "")


def load_vision(net: NitroGen, path) -> None:
    """Take the vision encoder from a SigLIP or SigLIP-2 tower as transformers saves it (`vision_model.*` in a safetensors file)."""
    from safetensors import safe_open
    try:
        with safe_open(path, "pt") as f:
            tower = {k.removeprefix("vision_model."): f.get_tensor(k) for k in f.keys()
                     if k.startswith("vision_model.") and not k.startswith("vision_model.head.")}
    except Exception as e:
        raise SystemExit(f"{path}: not a readable safetensors file ({str(e).splitlines()[0][:120]})") from None
    if not tower:
        raise SystemExit(f"{path}: no tensor is named vision_model.*; expected a SigLIP tower as transformers saves it")
    if fault := disagreement({k.removeprefix("vision_encoder."): s for n, p in net.vision.state_dict().items()
                              for k, s in pieces(f"vision.{n}", p.shape)}, {k: v.shape for k, v in tower.items()}):
        raise SystemExit(f"{path}: {fault}; this network's vision encoder needs another tower")
    net.vision.load_state_dict({n: ours(f"vision.{n}", {f"vision_encoder.{k}": v for k, v in tower.items()}) for n in net.vision.state_dict()})


# ---- files: the released checkpoint ------------------------------------------------------------------------------
# Same network, other names: theirs keeps q, k and v apart, and stores the action MLPs as (category, in, out).

PARTS = {
    "vision.patch": "vision_encoder.embeddings.patch_embedding", "vision.position": "vision_encoder.embeddings.position_embedding",
    "vision.blocks": "vision_encoder.encoder.layers", "vision.norm": "vision_encoder.post_layernorm",
    "mixer": "vl_self_attention_model.transformer_blocks", "dit": "model.transformer_blocks",
    "time1": "model.timestep_encoder.timestep_embedder.linear_1", "time2": "model.timestep_encoder.timestep_embedder.linear_2",
    "ada_out": "model.proj_out_1", "out": "model.proj_out_2", "position": "position_embedding",
    "encode_action": "action_encoder.W1", "encode_time": "action_encoder.W2", "encode_out": "action_encoder.W3",
    "decode1": "action_decoder.layer1", "decode2": "action_decoder.layer2",
}
IN_VISION = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj",
             "attn.v": "self_attn.v_proj", "attn.out": "self_attn.out_proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
IN_BLOCKS = {"norm1": "norm1", "norm2": "norm3", "ada": "norm1.linear", "attn.q": "attn1.to_q", "attn.k": "attn1.to_k", "attn.v": "attn1.to_v",
             "attn.out": "attn1.to_out.0", "fc1": "ff.net.0.proj", "fc2": "ff.net.2"}
KEPT = "released."      # prefix, in our files, of tensors that the network never uses: kept for the way back


def pieces(name: str, shape) -> list[tuple[str, list[int]]]:
    """The released tensors (name, shape) that make our tensor `name`, in the order of its rows."""
    part = next(p for p in PARTS if name.startswith(p + "."))
    rest, suffix = name[len(part) + 1:].rpartition(".")[::2]
    if part.startswith(("encode", "decode")):
        return [(f"{PARTS[part]}.{suffix[0].upper() if suffix == 'weight' else suffix[0]}", [1, *shape[::-1]])]
    if not rest:
        return [(f"{PARTS[part]}.{suffix}", list(shape))]
    number, layer = rest.split(".", 1)
    fused = re.fullmatch("attn.(q?kv|q)", layer)
    layers = [f"attn.{letter}" for letter in fused[1]] if fused else [layer]
    names = IN_VISION if part == "vision.blocks" else IN_BLOCKS
    return [(f"{PARTS[part]}.{number}.{names[one]}.{suffix}", [shape[0] // len(layers), *shape[1:]]) for one in layers]


def ours(name: str, theirs: dict):
    """Our tensor, from the released ones."""
    parts = [theirs[n] for n, _ in pieces(name, [1])]
    return parts[0][0].t() if name.startswith(("encode", "decode")) else torch.cat(parts)


def theirs(name: str, tensor) -> dict:
    """The released tensors, from ours."""
    names = [n for n, _ in pieces(name, tensor.shape)]
    return {names[0]: tensor.t()[None]} if name.startswith(("encode", "decode")) else dict(zip(names, tensor.chunk(len(names))))


def dead(c: Config) -> dict:
    """Shapes of the released tensors whose values never reach an action: SigLIP's pooling head, and the fixed position tables."""
    C, M = c.context, round(c.vision_mlp * c.context)
    head = {"probe": [1, 1, C], "attention.in_proj_weight": [3 * C, C], "attention.in_proj_bias": [3 * C], "attention.out_proj.weight": [C, C],
            "attention.out_proj.bias": [C], "layernorm.weight": [C], "layernorm.bias": [C], "mlp.fc1.weight": [M, C], "mlp.fc1.bias": [M],
            "mlp.fc2.weight": [C, M], "mlp.fc2.bias": [C]}
    tables = {f"{PARTS[part]}.{i}.pos_embed.pe": [1, TABLE, width] for part, n, width in (("mixer", c.mixer_layers, C), ("dit", c.dit_layers, c.width))
              for i in range(n if c.sinusoidal else 0)}
    return {f"vision_encoder.head.{k}": v for k, v in head.items()} | tables


TABLE = 512             # rows of the released position tables
RELEASED_RATE = 60.0    # actions per second of all released checkpoints


def released_config(about: dict, shapes: dict) -> Config:
    """Config of a released checkpoint, from its `ckpt_config` and, as that does not describe the vision encoder, its shapes."""
    m, tokenizer, modality = about["model_cfg"], about["tokenizer_cfg"], about["modality_cfg"]
    dit, mixer = m["diffusion_model_cfg"], m["vl_self_attention_cfg"]
    C, _, patch, _ = shapes["vision_encoder.embeddings.patch_embedding.weight"]
    tokens, d = shapes["vision_encoder.embeddings.position_embedding.weight"][0], dit["attention_head_dim"]
    D = d * dit["num_attention_heads"]
    for where, key, value in (
            *((part, key, value) for part in ("diffusion_model_cfg", "vl_self_attention_cfg") for key, value in (
                ("activation_fn", "gelu-approximate"), ("attention_bias", True), ("final_dropout", True), ("attention_head_dim", d),
                ("dropout", dit["dropout"]), ("positional_embeddings", dit["positional_embeddings"]))),
            ("diffusion_model_cfg", "norm_type", "ada_norm"), ("diffusion_model_cfg", "norm_elementwise_affine", False),
            ("diffusion_model_cfg", "norm_eps", 1e-5), ("diffusion_model_cfg", "output_dim", D), ("model_cfg", "hidden_size", D),
            ("diffusion_model_cfg", "cross_attention_dim", None if C == D and dit["cross_attention_dim"] is None else C),
            ("vl_self_attention_cfg", "num_attention_heads", C // d), ("model_cfg", "vision_hidden_size", C), ("model_cfg", "max_num_embodiments", 1),
            ("tokenizer_cfg", "num_visual_tokens_per_frame", tokens), ("tokenizer_cfg", "game_mapping_cfg", None), ("modality_cfg", "frame_per_sample", 1)):
        found = {"model_cfg": m, "diffusion_model_cfg": dit, "vl_self_attention_cfg": mixer, "tokenizer_cfg": tokenizer, "modality_cfg": modality}[where][key]
        if found != value:
            raise ValueError(f"{where}.{key} is {found!r}, only {value!r} is supported here")
    if not re.search(r"siglip2?-(base|large)-", m["vision_encoder_name"]):
        raise ValueError(f"vision encoder {m['vision_encoder_name']}: only SigLIP base and large are supported")
    layouts = {len(names): names for names in (RELEASED, CARD)}
    if m["action_dim"] not in layouts:
        raise ValueError(f"action_dim is {m['action_dim']}, only {' and '.join(map(str, layouts))} are known layouts")
    names = layouts[m["action_dim"]]
    return Config(
        actions=names[-4:] + names[:-4] if tokenizer["old_layout"] else names, image=math.isqrt(tokens) * patch, patch=patch,
        width=D, head_width=d, context_width=0 if C == D else C, vision_mlp=shapes["vision_encoder.encoder.layers.0.mlp.fc1.weight"][0] / C,
        vision_layers=sum(bool(re.fullmatch(r"vision_encoder\.encoder\.layers\.\d+\.mlp\.fc1\.weight", k)) for k in shapes),
        mixer_layers=mixer["num_layers"], dit_layers=dit["num_layers"], horizon=m["action_horizon"], rate=float(modality.get("action_rate", RELEASED_RATE)),
        shift=modality["action_shift"],
        positions=m["max_seq_len"] if m["add_pos_embed"] else 0, dropout=dit["dropout"], alpha=m["noise_beta_alpha"], beta=m["noise_beta_beta"],
        t_max=m["noise_s"], steps=m["num_inference_timesteps"], buckets=m["num_timestep_buckets"], interleave=dit["interleave_self_attention"],
        sinusoidal=dit["positional_embeddings"] == "sinusoidal", pads=tokenizer["max_sequence_length"] - tokens)


def checkpoint_config(c: Config) -> dict:
    """The `ckpt_config` of a network that was trained here: what `released_config` reads, and the constants beside it."""
    if c.predict != "velocity" or c.actions not in (RELEASED, CARD):
        raise ValueError("the released layout has no place for predict='action' nor for this action layout; train from --net released")
    block = {"dropout": c.dropout, "attention_bias": True, "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "upcast_attention": False,
             "max_num_positional_embeddings": TABLE, "compute_dtype": "float32", "final_dropout": True, "attention_head_dim": c.head_width,
             "positional_embeddings": "sinusoidal" if c.sinusoidal else None}
    dit = block | {"num_attention_heads": c.width // c.head_width, "output_dim": c.width, "num_layers": c.dit_layers, "norm_type": "ada_norm",
                   "norm_elementwise_affine": False, "norm_eps": 1e-5, "interleave_self_attention": c.interleave,
                   "cross_attention_dim": c.context_width or None}
    mixer = block | {"num_attention_heads": c.context // c.head_width, "output_dim": len(c.actions) + 1, "num_layers": c.mixer_layers,
                     "interleave_self_attention": False}
    tunes = ("vision_tower", "mm_projector", "diffusion_model", "multi_projector", "vl_mixing")
    return {"experiment_name": "nitrogen", "model_cfg": {
        "model_type": "nitrogen", "add_pos_embed": c.positions > 0, "model_dtype": "float32", "diffusion_model_cfg": dit, "vl_self_attention_cfg": mixer,
        "hidden_size": c.width, "max_seq_len": c.positions or 1024, "action_dim": len(c.actions), "action_horizon": c.horizon,
        "noise_beta_alpha": c.alpha, "noise_beta_beta": c.beta, "noise_s": c.t_max, "num_timestep_buckets": c.buckets,
        "num_inference_timesteps": c.steps, "max_num_embodiments": 1, "vision_encoder_name": f"google/siglip2-large-patch{c.patch}-{c.image}",
        "vision_hidden_size": c.context, "add_view_embed": False, **{f"tune_{t}": True for t in tunes}},
        "tokenizer_cfg": {"tokenizer_id": "nitrogen", "training": True, "num_visual_tokens_per_frame": c.tokens, "max_action_dim": len(c.actions),
                          "max_sequence_length": c.tokens + c.pads, "action_horizon": c.horizon, "game_mapping_cfg": None, "use_action_mask": True,
                          "old_layout": False},
        "modality_cfg": {"frame_per_sample": 1, "frame_spacing": c.horizon, "action_per_chunk": c.horizon, "action_shift": c.shift,
                         "action_interleaving": False, "token_set": "new"}
        | ({"action_rate": c.rate} if c.rate != RELEASED_RATE else {})}                  # it has no place for that: ours to read


def unpack(path):
    """A released checkpoint, checked: (Config, tensors by our names, metadata).  Nothing in it is executed."""
    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:
        raise SystemExit(f"{path}: refused; not a torch checkpoint of tensors and plain values alone, or cut off "
                         f"({type(e).__name__}: {str(e).strip().splitlines()[0][:100]})") from None
    try:
        state, about = saved["model"], saved["ckpt_config"]
        found = {k: list(v.shape) if v.is_floating_point() else [str(v.dtype)] for k, v in state.items()}
        c = released_config(about, found)
        net = skeleton(c, len(state))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        raise SystemExit(f"{path}: not a checkpoint of this network ({type(e).__name__}: {str(e).partition(chr(10))[0][:120]})") from None
    wanted = dict(piece for name, v in net.state_dict().items() for piece in pieces(name, v.shape))
    if fault := disagreement(wanted | dead(c), found):
        raise SystemExit(f"{path}: {fault}")
    tensors = {name: ours(name, state).float().numpy() for name in net.state_dict()} | {KEPT + k: state[k].float().numpy() for k in dead(c)}
    kinds = {k: str(v.dtype).removeprefix("torch.") for k, v in state.items() if v.dtype != torch.float32}
    rest = {k: saved[k] for k in ("step", "epoch") if isinstance(saved.get(k), (int, float))}
    return c, tensors, {"released": {"ckpt_config": about, "dtypes": kinds, **rest}}


@dataclass(frozen=True)
class Files(Common):
    files: tuple[str, ...] = ()     # the file to read, then the one to write


def pair(c: Files) -> tuple[str, Path]:
    if len(c.files) != 2:
        raise SystemExit(f"expected two files, the one to read and the one to write, found {len(c.files)}")
    if Path(c.files[1]).exists() and not c.fresh:
        raise SystemExit(f"{c.files[1]}: exists already; --fresh replaces it")
    return c.files[0], Path(c.files[1])


def convert(c: Files) -> None:
    """The released checkpoint -> a policy file."""
    source, target = pair(c)
    config, tensors, info = unpack(source)
    artefact.write(target, tensors, "nitrogen.policy/1", model=dataclasses.asdict(config), source=[artefact.source(source)], **info)
    inspect(target)


def export(c: Files) -> None:
    """A policy file -> the released layout; what it never had (the unused pooling head) becomes zeros."""
    source, target = pair(c)
    net, tensors, info = opened(source)
    before = info.get("released", {})
    try:
        about = before.get("ckpt_config") or checkpoint_config(net.c)
    except ValueError as e:
        raise SystemExit(f"{source}: {e}") from None
    state = {k: v for name in net.state_dict() for k, v in theirs(name, torch.from_numpy(tensors[name]).float()).items()}
    for name, shape in dead(net.c).items():
        kept = tensors.get(KEPT + name)
        table = position_table(*shape[1:])[None] if name.endswith(".pe") else torch.zeros(shape)
        state[name] = table if kept is None else torch.from_numpy(kept)
    state = {k: v.to(getattr(torch, before.get("dtypes", {}).get(k, "float32"))).contiguous().clone() for k, v in state.items()}
    with artefact.replacing(target) as part:
        torch.save({"model": state, "step": before.get("step", info.get("step", 0)), "epoch": before.get("epoch", 0), "ckpt_config": about}, part)
    print(f"{source} -> {target}: {len(state)} tensors")


@dataclass(frozen=True)
class Half(Files):
    figures: str = ""               # report.json that eval.py play wrote about the file to read: kept in the new one's description


def half(c: Half) -> None:
    """A policy file -> the same in float16, for shipping; what is known of its making goes along."""
    source, target = pair(c)
    net, tensors, info = opened(source)
    origin, kept = artefact.source(source), {k: v for k, v in info.items() if k not in ("format", "model", "tensors", "command")}
    if c.figures:
        try:
            report = json.loads(Path(c.figures).read_bytes())
            kept["figures"] = {k: v for k, v in report.items() if k != "episodes"}
        except (OSError, ValueError, AttributeError) as e:
            raise SystemExit(f"{c.figures}: not a report of eval.py play ({e})") from None
        if report.get("policy") != origin:
            raise SystemExit(f"{c.figures}: not about {source}; make it: python eval.py play --policy {source}")
    save(target, {name: torch.from_numpy(tensors[name]) for name in net.state_dict()}, net, half=True, **kept | {"trained": info["command"], "source": [origin]})
    inspect(target)


def inspect(path) -> None:
    """Print a checkpoint of either kind: config, parameters per part, action layout.  Other stages' files as they do."""
    if Path(path).suffix in (".pt", ".pth"):
        c, tensors, info = unpack(path)
    elif artefact.read(path)[1].get("format") != "nitrogen.policy/1":
        return artefact.show(path)
    else:
        net, tensors, info = opened(path)
        c = net.c
    print(f"{path}: {'released checkpoint' if 'released' in info else 'policy'}, {Path(path).stat().st_size:,} bytes")
    for field in dataclasses.fields(c):
        if field.name != "actions":
            print(f"  {field.name:16s} {getattr(c, field.name)}")
    counts = {}
    for name, v in tensors.items():
        part = "not used" if name.startswith(KEPT) else re.split(r"[._\d]", name)[0]
        counts[part] = counts.get(part, 0) + v.size
    print("parameters\n" + "\n".join(f"  {k:12s} {n:>13,}" for k, n in counts.items()) + f"\n  {'in all':12s} {sum(counts.values()):>13,}")
    print(f"actions: {c.horizon} of {len(c.actions)} values, {c.rate:g}/s, the first {c.shift} rows after the frame")
    for i, name in enumerate(c.actions):
        print(f"  {i:2d} {name:15s} {'' if name in ACTIONS else 'dropped: not on this pad'}".rstrip())
    print("\n".join(f"{k}: {str(v)[:400]}" for k, v in info.items() if k not in ("format", "model", "tensors", "released")))


# ---- faster playing -----------------------------------------------------------------------------------------------

class Packed(nn.Module):
    """A linear layer or convolution whose weight oneDNN has packed once for this CPU: two to three times as fast as torch's own in float32.
    gelu: "none" or "tanh": a GELU of this approximation follows, done on the way out."""

    def __init__(self, weight, bias=None, conv: nn.Conv2d | None = None, gelu: str = ""):
        super().__init__()
        self.bias, self.after = bias, ("gelu", [], gelu) if gelu else ("none", [], "")
        self.shape = (conv.padding, conv.stride, conv.dilation, conv.groups) if conv else ()
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape) if conv else torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, x):
        op = torch.ops.mkldnn._convolution_pointwise if self.shape else torch.ops.mkldnn._linear_pointwise
        return op(x, self.weight, self.bias, *self.shape, *self.after)


def packs(dtype) -> bool:
    """Whether oneDNN multiplies in this precision on this CPU: bfloat16 needs AVX-512 or its like."""
    return torch.backends.mkldnn.is_available() and (dtype == torch.float32 or dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Graphed:
    """CUDA graphs of `denoise`, one per batch size and number of steps: the GPU replays a chunk without waiting for Python."""

    def __init__(self, f):
        self.f, self.graphs = f, {}

    def __call__(self, pixels, a, S: int):
        key = (len(pixels), S)
        if key not in self.graphs:
            inputs, side = (pixels.clone(), a.clone()), torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):                                    # compile and warm up outside of the capture
                for _ in range(3):
                    self.f(*inputs, S)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = self.f(*inputs, S)
            self.graphs[key] = graph, inputs, output
        graph, inputs, output = self.graphs[key]
        inputs[0].copy_(pixels), inputs[1].copy_(a)
        graph.replay()
        return output.clone()


def accelerate(net: NitroGen) -> NitroGen:
    """Make a network that only plays as fast as this device allows: torch.compile and CUDA graphs, or packed weights on a CPU."""
    device = net.vision.patch.weight.device.type
    if device == "cuda":
        net.context, net.velocity = torch.compile(net.context), torch.compile(net.velocity)
        net.denoise = Graphed(net.denoise)
    elif device == "cpu" and packs(net.dtype):
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Packed(child.weight.data, child.bias.data, gelu="tanh" if isinstance(module, Block) and name == "fc1" else ""))
            if isinstance(module, Block):
                module.gelu = nn.Identity()                                  # fc1 does it on the way out
    return net


# ---- bench --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Bench(Common):
    net: str = "tiny"               # preset; --config says the same
    dtype: str = "auto"             # float32 or bfloat16; auto: bfloat16 where the hardware multiplies it
    fast: bool = True               # packed weights, or torch.compile and CUDA graphs
    train: bool = True              # also forward and backward
    recompute: bool = False         # activation checkpointing in training
    threads: int = 0                # CPU threads (default: torch's choice)


def bench(c: Bench) -> None:
    """Latency, arithmetic and memory of a preset on this device; batches are many games at once."""
    import resource
    keep_memory()
    if c.threads:
        torch.set_num_threads(c.threads)
    if c.net not in CONFIGS:
        raise SystemExit(f"--net {c.net}: expected one of {', '.join(CONFIGS)}")
    device, m = torch.device(pick_device(c.device)), CONFIGS[c.net]
    with autocast(device.type):
        native = "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"
    dtype = native if c.dtype == "auto" else c.dtype
    if dtype not in ("float32", "bfloat16"):
        raise SystemExit(f"--dtype {dtype}: expected auto, float32 or bfloat16")
    torch.manual_seed(c.seed)
    net = NitroGen(m).to(device)
    print(f"{c.net}: {sum(p.numel() for p in net.parameters()):,} parameters, {m.tokens} image tokens, chunks of {m.horizon} x {len(m.actions)}; "
          f"{torch.cuda.get_device_name() if device.type == 'cuda' else device}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    def line(task, dtype, B, S, seconds, gflop, top):
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{task:7s} {dtype:9s} {B:5d} {S or '':>5} {1e3 * seconds:10.2f} {B / seconds:10.1f} {gflop:10.1f} {gflop / seconds:10.0f} "
              f"{gflop / seconds / top:7.0%} {memory / 2**20:11.0f}", flush=True)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    print("task    dtype     batch steps         ms   chunks/s      GFLOP   GFLOP/s  of peak" + ("    peak MiB" if device.type == "cuda" else " MiB so far"))
    if c.train:
        net.recompute, B = c.recompute, 64 if device.type == "cuda" else 16 if c.net == "tiny" else 2
        pixels, actions = torch.zeros(B, 3, m.image, m.image, device=device), torch.rand(B, m.horizon, len(m.actions), device=device)

        def step():
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                net.loss(pixels, actions, torch.ones(1, device=device)).backward()
            net.zero_grad(set_to_none=True)

        line("train", dtype, B, 0, timed(step, device), gflop(m, B), peak(device, getattr(torch, dtype)))
    net = net.to(getattr(torch, dtype)).eval()
    net, top = accelerate(net) if c.fast else net, peak(device, getattr(torch, dtype))
    for B, S in ((1, m.steps), (1, 4), (1, 1), (16, m.steps), (16, 4)):
        frames = torch.randint(0, 256, (B, m.image, m.image, 3), dtype=torch.uint8, device=device)
        line("sample", dtype, B, S, timed(lambda: net.sample(frames, steps=S), device), gflop(m, B, S), top)


def timed(f, device, seconds: float = 2.0) -> float:
    """Seconds of a call: the best of some, as others share the machine."""
    times, began = [], time.perf_counter()
    while len(times) < 2 or len(times) < 100 and time.perf_counter() - began < seconds:
        start = time.perf_counter()
        f()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])                                                    # the first one compiles and fills caches


def peak(device, dtype) -> float:
    """GFLOP/s of a matrix product on this machine."""
    n = 8192 if device.type == "cuda" else 1024
    x, layer = torch.randn(n, n, device=device, dtype=dtype), nn.Linear(n, n).to(device, dtype)
    with torch.no_grad():
        seconds = min(timed(lambda: f(x), device, 1) for f in ([layer, Packed(layer.weight, layer.bias)] if device.type == "cpu" and packs(dtype) else [layer]))
    return 2e-9 * n**3 / seconds


RATED = {  # TFLOP/s of dense bfloat16, from the data sheets; the first name that the device's own contains
    "B200": 2250, "H100 PCIe": 756, "H100": 989, "H200": 989, "GH200": 989, "A100": 312, "L40S": 362, "A6000": 155, "A10": 125, "L4": 121,
    "RTX 5090": 210, "RTX 4090": 165, "RTX 3090": 71, "MI300X": 1307}


def rated(device) -> tuple[float, str]:
    """TFLOP/s of a device in training, and whose: the data sheet's, else those of a matrix product measured here."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    if known := [(value, f"{part}, data sheet") for part, value in RATED.items() if re.search(rf"\b{part}\b", name)]:
        return known[0]
    with autocast(device.type):
        dtype = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
    return peak(device, dtype) / 1e3, f"a matrix product on {name}"


def gflop(c: Config, B: int, S: int = 0, draws: int = 1, freeze: bool = False) -> float:
    """Floating-point operations of the matrix products (2 per multiply-add) / 1e9: S denoising steps; or, if 0, a training step of B frames
    with `draws` each, `freeze`: all but the vision encoder's."""
    from torch.utils.flop_counter import FlopCounterMode
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net, pixels, a = NitroGen(c), torch.zeros(B, 3, c.image, c.image), torch.zeros(B, c.horizon, len(c.actions))
        net.vision.requires_grad_(not freeze)
        if S:
            with torch.no_grad():
                net.denoise(pixels, a, S)
        else:
            net.loss(pixels, a, torch.ones(1), torch.zeros(B * draws), a.repeat(draws, 1, 1), draws).backward()
    return counter.get_total_flops() / 1e9


def main(argv=None):
    command_line(__doc__, {"bench": ({k: Bench(net=k) for k in CONFIGS}, bench), "convert": (Files, convert), "export": (Files, export), "half": (Half, half)},
                     argv, inspect)


if __name__ == "__main__":
    main()
