"""model.py: NitroGen's network from scratch: ViT -> mixer -> diffusion transformer, trained by flow
matching (paper section 2.3).

    python model.py bench --config tiny                latency, GFLOP, share of the machine's peak, memory; any preset, any device
    python model.py convert ng.pt ng.safetensors       the released checkpoint, for everything that follows
    python model.py export ng.safetensors ng.pt        and back, tensor for tensor; also what train.py made
    python model.py export runs/tiny/model.safetensors policy.safetensors    in float16, for shipping
    python model.py --inspect FILE                     config, parameters per part, action layout; of either kind

    net = model.load("runs/tiny/model.safetensors", device="auto")      or "ng.safetensors"
    raw = net.sample(images)      images uint8 [B, h, w, 3] RGB -> float32 [B, K, A], the checkpoint's own layout, undecoded
    act = net.act(images)         dict: buttons bool [B, K, 16], sticks float32 [B, K, 4], y down, by name

Files: *.safetensors of format nitrogen.policy/1: one float tensor per parameter; the metadata holds
the Config, so nothing else is needed to play.

Letters, here and in every other file: B batch, T video frames, N image tokens, K action-chunk
length, A action dimensions, D width, H heads, d width of a head, S denoising steps, R flow-matching
draws per frame.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import command_line, wing
from common.device import Graphed, Packed, packs, pick_device

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from einops import rearrange

# Layouts of an action vector.  Ours: 16 buttons, then 4 axes (paper 2.3).  The released checkpoint
# has GUIDE and four virtual right-stick directions more, in its own order; its model card describes
# 17 buttons.
ACTIONS = artefact.BUTTONS + artefact.STICKS
RELEASED = (
    "BACK",
    "DPAD_DOWN",
    "DPAD_LEFT",
    "DPAD_RIGHT",
    "DPAD_UP",
    "EAST",
    "GUIDE",
    "LEFT_SHOULDER",
    "LEFT_THUMB",
    "LEFT_TRIGGER",
    "NORTH",
    "RIGHT_BOTTOM",
    "RIGHT_LEFT",
    "RIGHT_RIGHT",
    "RIGHT_SHOULDER",
    "RIGHT_THUMB",
    "RIGHT_TRIGGER",
    "RIGHT_UP",
    "SOUTH",
    "START",
    "WEST",
    *artefact.STICKS,
)
CARD = tuple(
    n for n in RELEASED if n not in ("RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT", "RIGHT_UP")
)


@dataclass(frozen=True)
class Config:
    """One network; the defaults are the paper's.  Every tensor's shape follows from it.  ValueError
    if it cannot be.
    """

    actions: tuple[str, ...] = ACTIONS  # what the A values of an action vector are, in order
    image: int = 256  # side of the picture that is cut into patches, px
    patch: int = 16  # side of a patch, px
    width: int = 1024  # D
    head_width: int = 64  # d; H = D / d
    vision_layers: int = 24  # SigLIP-2 large
    vision_mlp: float = 4.0  # hidden width of vision's MLPs, in D
    mixer_layers: int = 4  # self-attention over the image tokens
    dit_layers: int = 8  # even ones look at the image, odd ones at the actions
    horizon: int = 16  # K, actions in a chunk
    rate: float = 30.0  # actions per second
    shift: int = 1  # rows from the seen frame to the first action
    positions: int = 1024  # rows of the action tokens' position table; 0: none
    dropout: float = 0.2  # mixer and DiT (published)
    alpha: float = 1.6  # t = t_max (1 - Beta(alpha, beta)) (published)
    beta: float = 0.8
    t_max: float = 0.999
    steps: int = 16  # S, Euler steps
    buckets: int = 1000  # the network sees floor(t * buckets)
    # what the last layer gives: the velocity (published), or the action itself
    predict: str = "velocity"
    # Older switches that a checkpoint of the released kind may carry:
    context_width: int = 0  # D of vision and mixer where it is not the DiT's
    interleave: bool = True  # False: every DiT block looks at the image
    # fixed positions added after the first norm of each block of mixer and DiT
    sinusoidal: bool = False
    pads: int = 0  # zero tokens before the image tokens; they are attended to

    def __post_init__(self):
        for name in ("width", "head_width", "patch", "image", "horizon", "steps", "buckets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        if not 0 < self.vision_mlp <= 64:
            raise ValueError(f"vision_mlp {self.vision_mlp}: expected at most 64")
        for name, width in (("width", self.width), ("context width", self.context)):
            if width % self.head_width or width % 2:
                raise ValueError(
                    f"{name} {width} is not a whole number of heads of {self.head_width}, or odd"
                )
        if self.positions and self.positions < self.horizon:
            raise ValueError(f"positions {self.positions} are fewer than horizon {self.horizon}")
        if not 0 < self.rate <= 1000 or self.shift < 0:
            raise ValueError(
                f"rate {self.rate}, shift {self.shift}: expected 0 to 1000 actions per second, from 0 rows after the frame on"
            )
        if self.predict not in ("velocity", "action"):
            raise ValueError(f"predict '{self.predict}': expected velocity or action")
        if len(set(self.actions)) < len(self.actions) or not all(
            isinstance(n, str) for n in self.actions
        ):
            raise ValueError("actions must be distinct names")

    @property
    def tokens(self) -> int:  # N
        return (self.image // self.patch) ** 2

    @property
    def context(self) -> int:  # D of the image tokens
        return self.context_width or self.width


CONFIGS = {
    "tiny": Config(
        image=64,
        patch=8,
        width=128,
        head_width=32,
        vision_layers=3,
        mixer_layers=1,
        dit_layers=4,
        positions=16,
        dropout=0.0,
        predict="action",
    ),
    "small": Config(
        image=128,
        patch=8,
        width=192,
        head_width=32,
        vision_layers=6,
        mixer_layers=1,
        dit_layers=4,
        positions=16,
        dropout=0.1,
        predict="action",
    ),
    "paper": Config(),
    "released": Config(actions=RELEASED, horizon=18, rate=60.0, shift=3),
}


# ---- layers --------------------------------------------------------------------------------------


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over H heads; of a sequence with itself, or with the keys and
    values of a context.
    """

    def __init__(self, width: int, d: int, context: int = 0):
        super().__init__()
        self.d, self.out = d, nn.Linear(width, width)
        if context:
            self.q, self.kv = nn.Linear(width, width), nn.Linear(context, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)

    def split(self, x, n: int):  # [B, M, n D] -> n x [B, H, M, d]
        return rearrange(x, "b m (n h d) -> n b h m d", n=n, d=self.d).unbind()

    def keys_values(self, context):  # [B, N, C] -> 2 x [B, H, N, d]
        return self.split(self.kv(context), 2)

    def forward(self, x, kv=None):  # [B, M, D] -> [B, M, D]
        q, k, v = (*self.split(self.q(x), 1), *kv) if kv else self.split(self.qkv(x), 3)
        if x.is_cuda or not torch.is_grad_enabled():
            y = F.scaled_dot_product_attention(q, k, v)  # [B, H, M, d]
        else:  # on a CPU the formula itself has the faster backward pass
            y = (q @ k.transpose(-1, -2) * self.d**-0.5).softmax(dim=-1).to(v.dtype) @ v
        return self.out(rearrange(y, "b h m d -> b m (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)).

    adaptive: norm1 has no parameters of its own; its scale and shift come from the time embedding
    (AdaLN without a gate), and norm2 has none at all.  Dropout stands twice on the attention's
    output, as in the released network.
    """

    def __init__(
        self,
        width: int,
        d: int,
        eps: float,
        dropout: float = 0.0,
        mlp: float = 4.0,
        adaptive: bool = False,
        context: int = 0,
        sinusoidal: bool = False,
    ):
        super().__init__()
        self.sinusoidal = sinusoidal
        self.norm1 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.ada = nn.Linear(width, 2 * width) if adaptive else None  # SiLU(time) -> scale, shift
        self.attn = Attention(width, d, context)
        self.fc1, self.fc2 = (
            nn.Linear(width, round(mlp * width)),
            nn.Linear(round(mlp * width), width),
        )
        self.gelu = nn.GELU(approximate="tanh")
        self.drop = nn.Dropout(dropout)

    def forward(self, x, kv=None, modulation=None):
        n = self.norm1(x)
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=-1)  # this order: scale first
            n = n * (1 + scale) + shift
        if self.sinusoidal:
            n = n + position_table(*n.shape[1:], n.device).to(n.dtype)
        x = x + self.drop(self.drop(self.attn(n, kv)))
        return x + self.drop(self.fc2(self.drop(self.gelu(self.fc1(self.norm2(x))))))


class Vision(nn.Module):
    """SigLIP-style ViT (arXiv 2303.15343): patches, learned positions, pre-norm blocks, no class
    token.
    """

    def __init__(self, c: Config):
        super().__init__()
        self.patch = nn.Conv2d(3, c.context, c.patch, stride=c.patch)
        self.position = nn.Embedding(c.tokens, c.context)
        self.blocks = nn.ModuleList(
            Block(c.context, c.head_width, eps=1e-6, mlp=c.vision_mlp)
            for _ in range(c.vision_layers)
        )
        self.norm = nn.LayerNorm(c.context, eps=1e-6)


def sinusoid(t, channels: int, divisor: float, cos_first: bool):
    """[M] -> [M, channels]: cosines and sines of t * 10000^(-i / divisor), i = 0 .. channels / 2 -
    1, in float32.
    """
    freq = torch.exp(
        -math.log(1e4) * torch.arange(channels // 2, device=t.device, dtype=torch.float32) / divisor
    )
    angle = t.float()[:, None] * freq
    return torch.cat(
        [angle.cos(), angle.sin()] if cos_first else [angle.sin(), angle.cos()], dim=-1
    )


def position_table(n: int, width: int, device=None):
    """[n, width] of the fixed positions of "Attention is all you need": sines at even channels,
    cosines at odd ones.
    """
    return rearrange(
        sinusoid(torch.arange(n, device=device), width, width / 2, cos_first=False),
        "n (two i) -> n (i two)",
        two=2,
    )


# ---- the network ---------------------------------------------------------------------------------


class NitroGen(nn.Module):
    """One frame in, K actions out (paper section 2.3, figure 4).

    An action vector follows c.actions: buttons are 0 or 1, axes are mapped from [-1, 1] to [0, 1].
    `recompute`: keep no activations inside blocks for the backward pass, compute them again (less
    memory, a third more work).
    """

    recompute = False

    def __init__(self, c: Config):
        super().__init__()
        self.c, D, A, d = c, c.width, len(c.actions), c.head_width
        self.vision = Vision(c)
        same = dict(eps=1e-5, dropout=c.dropout, sinusoidal=c.sinusoidal)
        self.mixer = nn.ModuleList(Block(c.context, d, **same) for _ in range(c.mixer_layers))
        self.time1, self.time2 = nn.Linear(256, D), nn.Linear(D, D)
        self.encode_action, self.encode_time, self.encode_out = (
            nn.Linear(A, D),
            nn.Linear(2 * D, D),
            nn.Linear(D, D),
        )
        self.position = nn.Embedding(c.positions, D) if c.positions else None
        # at the image; else at the actions themselves
        looks = [not c.interleave or i % 2 == 0 for i in range(c.dit_layers)]
        self.dit = nn.ModuleList(
            Block(D, d, **same, adaptive=True, context=c.context * look) for look in looks
        )
        self.norm_out = nn.LayerNorm(D, eps=1e-6, elementwise_affine=False)
        self.ada_out, self.out = nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.decode1, self.decode2 = nn.Linear(D, D), nn.Linear(D, A)
        self.apply(initialize)
        for linear in [b.ada for b in self.dit] + [self.ada_out]:  # start as plain LayerNorms
            nn.init.zeros_(linear.weight)

    @property
    def dtype(self):
        return self.vision.patch.weight.dtype

    def block(self, block, *inputs):
        if self.recompute and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def context(self, pixels):  # [B, 3, image, image] in [-1, 1]
        """What the actions look at, computed once per frame: per DiT block (k, v) of the image, or
        None.
        """
        x = (
            rearrange(self.vision.patch(pixels.to(self.dtype)), "b d h w -> b (h w) d")
            + self.vision.position.weight
        )
        # frozen: as in play
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and self.vision.norm.weight.requires_grad
        ):
            for block in self.vision.blocks:
                x = self.block(block, x)
        x = F.pad(self.vision.norm(x), (0, 0, self.c.pads, 0))  # [B, N, C]
        for block in self.mixer:
            x = self.block(block, x)
        return [
            block.attn.keys_values(x) if hasattr(block.attn, "kv") else None for block in self.dit
        ]

    def timing(self, bucket):  # int [M]
        """All that depends on time alone: the actions' time embedding [M, 1, D], the modulation of
        every norm, 1 - t.
        """
        tau = sinusoid(bucket, self.c.width, self.c.width / 2, cos_first=False).to(self.dtype)
        emb = F.silu(
            self.time2(
                F.silu(self.time1(sinusoid(bucket, 256, 127, cos_first=True).to(self.dtype)))
            )
        )
        left = (1 - bucket.float() / self.c.buckets).clamp(min=0.05)
        return (
            tau[:, None],
            [linear(emb)[:, None] for linear in [b.ada for b in self.dit] + [self.ada_out]],
            left[:, None, None],
        )

    def velocity(self, noisy, timing, context):  # [B, K, A] -> [B, K, A]
        tau, modulation, left = timing
        x = self.encode_action(noisy.to(self.dtype))
        x = torch.cat([x, tau.expand_as(x)], dim=-1)  # [B, K, 2D]
        x = self.encode_out(F.silu(self.encode_time(x)))
        if self.position is not None:
            x = x + self.position.weight[: x.shape[1]]
        for block, kv, m in zip(self.dit, context, modulation):
            x = self.block(block, x, kv, m)
        shift, scale = modulation[-1].chunk(2, dim=-1)  # this order: shift first
        x = self.out(self.norm_out(x) * (1 + scale) + shift)
        x = self.decode2(F.relu(self.decode1(x))).to(noisy.dtype)
        # DEVIATION, a switch: a network that gives the action need not carry the noise through; v =
        # (action - a_t) / (1 - t) follows from the two equations below.  The idea: Li and He, arXiv
        # 2511.13720.
        return x if self.c.predict == "velocity" else (x - noisy) / left

    # ---- flow matching (arXiv 2210.02747; paper section 2.3) --------------------------------------- yours to change
    #   a_t = (1 - t) noise + t action        a straight line from noise (t = 0) to data (t = 1)
    #   v   = action - noise                  its velocity, which the network learns by squared error
    #   t   = 0.999 (1 - Beta(1.6, 0.8))      mostly the noisy end, where the decision is made

    def loss(self, images, actions, mask, t=None, noise=None, draws: int = 1):
        """Mean squared error of the velocity over the entries that `mask` allows: a scalar.

        images uint8 [B, h, w, 3], or float [B, 3, image, image] in [-1, 1] as augmentation leaves
        them; actions [B, K, A] in [0, 1]; mask 0 or 1, broadcastable to it.  draws: R pairs (noise,
        t) per frame, so that the costly vision part serves R of them.  t [B * R] and noise [B * R,
        K, A]: for tests.
        """
        pixels = self.pixels(images) if images.dtype == torch.uint8 else images
        context = [
            kv and [x.repeat_interleave(draws, 0) for x in kv] for kv in self.context(pixels)
        ]
        actions, mask = (
            actions.repeat_interleave(draws, 0),
            mask.expand_as(actions).repeat_interleave(draws, 0),
        )
        if t is None:
            t = self.c.t_max * (
                1
                - torch.distributions.Beta(self.c.alpha, self.c.beta)
                .sample((len(actions),))
                .to(actions)
            )
            noise = torch.randn_like(actions)
        noisy = torch.lerp(noise, actions, t[:, None, None])  # a_t
        timing = self.timing((t * self.c.buckets).long())
        error = self.velocity(noisy, timing, context) - (actions - noise)
        if self.c.predict == "action":
            error = error * timing[-1]  # the error of the action: early t decide, not late ones
        return (mask * error**2).sum() / (mask.sum() + 1e-6)

    def denoise(self, pixels, a, S: int):
        """S Euler steps: a <- a + v / S at t = 0, 1/S, ..., 1 - 1/S.  What does not depend on `a`
        is computed once.
        """
        context = self.context(pixels)
        # counted on the CPU: MPS has no float64
        bucket = (torch.arange(S, dtype=torch.float64) / S * self.c.buckets).long()
        tau, modulation, left = self.timing(bucket.to(a.device))
        for i in range(S):
            a = a + self.velocity(a, (tau[i], [m[i] for m in modulation], left[i]), context) / S
        return a

    forward = loss

    # ---- playing

    @torch.no_grad()
    def sample(self, images, noise=None, steps: int | None = None):
        """Denoise one chunk per image: float32 [B, K, A], about 0..1.

        images uint8 [B, h, w, 3] RGB, tensor or array, any size; noise float [B, K, A], drawn if
        None; steps: S, the checkpoint's own if None.  ValueError for anything else.
        """
        images, shape = torch.as_tensor(images), [len(images), self.c.horizon, len(self.c.actions)]
        if (
            images.dtype != torch.uint8
            or images.ndim != 4
            or images.shape[-1] != 3
            or not images.numel()
        ):
            raise ValueError(
                f"images must be uint8 [B, h, w, 3] RGB, found {images.dtype} {list(images.shape)}"
            )
        steps = self.c.steps if steps is None else steps
        if not 1 <= steps <= self.c.buckets:
            raise ValueError(f"steps must be 1..{self.c.buckets}, found {steps}")
        device, dtype = (
            self.vision.patch.weight.device,
            torch.promote_types(self.dtype, torch.float32),
        )
        a = (
            torch.randn(shape, device=device)
            if noise is None
            else torch.as_tensor(noise, device=device)
        )
        if list(a.shape) != shape or not a.is_floating_point() or not torch.isfinite(a).all():
            raise ValueError(
                f"noise must be finite floats {shape}, found {a.dtype} {list(a.shape)}"
            )
        return self.denoise(self.pixels(images.to(device)), a.to(dtype), steps).float()

    def act(self, images, noise=None, steps: int | None = None) -> dict:
        """`sample`, decoded: buttons bool [B, K, 16], sticks float32 [B, K, 4] in [-1, 1], y down;
        numpy.
        """
        return self.decode(self.sample(images, noise, steps).cpu().numpy())

    def decode(self, raw) -> dict:
        """Raw actions [..., A] in this network's layout -> the 16 buttons (> 0.5) and 4 axes of
        sim.py, by name.

        What the pad does not have (GUIDE, virtual directions) is dropped; what the layout lacks is
        released, centred.
        """
        values = {name: raw[..., i] for i, name in enumerate(self.c.actions)}
        absent = np.full(raw.shape[:-1], 0.5, np.float32)
        buttons, sticks = (
            np.stack([values.get(n, absent) for n in names], -1)
            for names in (artefact.BUTTONS, artefact.STICKS)
        )
        return {"buttons": buttons > 0.5, "sticks": np.clip(2 * sticks - 1, -1, 1)}

    def pixels(self, images):
        """uint8 [B, h, w, 3] -> [B, 3, image, image] in [-1, 1]; other sizes by cv2's area average,
        as the official client.
        """
        side = self.c.image
        if images.shape[1:3] != (side, side):
            small = [
                cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA)
                for i in images.cpu().numpy()
            ]
            images = torch.from_numpy(np.stack(small)).to(images.device)
        x = rearrange(images, "b h w c -> b c h w").to(
            torch.promote_types(self.dtype, torch.float32)
        )
        return x / 127.5 - 1


def encode(buttons, sticks, actions=ACTIONS):
    """Buttons 0/1 [..., 16] and axes in [-1, 1] [..., 4] -> action vectors in [0, 1] [..., A], by
    name; absent ones are 0.
    """
    values = dict(
        zip(ACTIONS, torch.cat([buttons.float(), (sticks.float() + 1) / 2], dim=-1).unbind(-1))
    )
    return torch.stack([values.get(n, torch.zeros_like(values["START"])) for n in actions], dim=-1)


def initialize(m):
    """Unit variance through every layer, positions included (std 0.02 would hide them beside the
    pixels for a long time).
    """
    if isinstance(m, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(m.weight, std=m.weight[0].numel() ** -0.5)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Embedding):
        nn.init.normal_(m.weight)


# ---- files: our own ------------------------------------------------------------------------------


def save(path, state: dict, net: NitroGen, half: bool = False, **info) -> None:
    """Write `state` (name -> tensor) of `net` as a nitrogen.policy/1 file; `half`: float16, for
    shipping.
    """
    tensors = {
        k: v.detach().cpu().to(torch.float16 if half else torch.float32).numpy()
        for k, v in state.items()
    }
    artefact.write(path, tensors, "nitrogen.policy/1", model=dataclasses.asdict(net.c), **info)


def load(path, device: str = "auto", dtype: str = "float32", fast: bool = False) -> NitroGen:
    """A network ready to play, in eval mode, from what train.py or `convert` wrote.

    dtype: float32, bfloat16 or float64, of the weights and of the arithmetic.  fast: see
    `accelerate`; such a network only plays.  SystemExit with one line if the file does not fit
    itself.
    """
    net, tensors, _ = opened(path)
    net.load_state_dict(
        {k: torch.from_numpy(tensors[k]).float() for k in net.state_dict()}, assign=True
    )
    net = net.to(pick_device(device), getattr(torch, dtype)).eval()
    return accelerate(net) if fast else net


def opened(path):
    """A policy file, checked against itself: its network on torch's meta device, its arrays, its
    metadata.
    """
    tensors, info = artefact.read(path, "nitrogen.policy/1")
    try:
        net = skeleton(
            Config(**{**info["model"], "actions": tuple(info["model"]["actions"])}), len(tensors)
        )
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as e:
        raise SystemExit(
            f"{path}: its model config cannot be used ({type(e).__name__}: {str(e).partition(chr(10))[0][:120]})"
        ) from None
    found = {k: v.shape for k, v in tensors.items() if not k.startswith(KEPT)}
    if fault := disagreement({k: v.shape for k, v in net.state_dict().items()}, found):
        raise SystemExit(f"{path}: {fault}")
    return net, tensors, info


def skeleton(c: Config, tensors: int) -> NitroGen:
    """The network without memory for its weights; `tensors`: a file cannot hold more layers than
    tensors.
    """
    if c.vision_layers + c.mixer_layers + c.dit_layers > tensors:
        raise ValueError(f"more layers than the {tensors} tensors of the file")
    with torch.device("meta"):
        return NitroGen(c)


def disagreement(wanted: dict, found: dict) -> str:
    """What is missing, too many or misshapen, in words: name -> shape against name -> shape.  Empty
    if nothing is.
    """
    bad = [
        name
        for name in sorted({*wanted, *found})
        if list(wanted.get(name, [-1])) != list(found.get(name, [-1]))
    ]
    if not bad:
        return ""
    text = {
        side: str(list(shapes[bad[0]])) if bad[0] in shapes else "nothing"
        for side, shapes in (("wanted", wanted), ("found", found))
    }
    return f"tensor '{bad[0]}': expected {text['wanted']}, found {text['found']}" + (
        f" (and {len(bad) - 1} more)" if bad[1:] else ""
    )


# ---- files: the released checkpoint --------------------------------------------------------------
# Same network, other names: theirs keeps q, k and v apart, and stores the action MLPs as (category,
# in, out).

# prefix, in our files, of tensors that the network never uses: kept for the way back
KEPT = "released."


def inspect(path) -> None:
    """Print a checkpoint of either kind: config, parameters per part, action layout.  Other stages'
    files as they do.
    """
    if Path(path).suffix in (".pt", ".pth"):
        c, tensors, info = wing("released.checkpoint").unpack(path)
    elif artefact.read(path)[1].get("format") != "nitrogen.policy/1":
        return artefact.show(path)
    else:
        net, tensors, info = opened(path)
        c = net.c
    print(
        f"{path}: {'released checkpoint' if 'released' in info else 'policy'}, {Path(path).stat().st_size:,} bytes"
    )
    for field in dataclasses.fields(c):
        if field.name != "actions":
            print(f"  {field.name:16s} {getattr(c, field.name)}")
    counts = {}
    for name, v in tensors.items():
        part = "not used" if name.startswith(KEPT) else re.split(r"[._\d]", name)[0]
        counts[part] = counts.get(part, 0) + v.size
    print(
        "parameters\n"
        + "\n".join(f"  {k:12s} {n:>13,}" for k, n in counts.items())
        + f"\n  {'in all':12s} {sum(counts.values()):>13,}"
    )
    print(
        f"actions: {c.horizon} of {len(c.actions)} values, {c.rate:g}/s, the first {c.shift} rows after the frame"
    )
    for i, name in enumerate(c.actions):
        print(
            f"  {i:2d} {name:15s} {'' if name in ACTIONS else 'dropped: not on this pad'}".rstrip()
        )
    print(
        "\n".join(
            f"{k}: {str(v)[:400]}"
            for k, v in info.items()
            if k not in ("format", "model", "tensors", "released")
        )
    )


def accelerate(net: NitroGen) -> NitroGen:
    """Make a network that only plays as fast as this device allows: torch.compile and CUDA graphs,
    or packed weights on a CPU.
    """
    device = net.vision.patch.weight.device.type
    if device == "cuda":
        net.context, net.velocity = torch.compile(net.context), torch.compile(net.velocity)
        net.denoise = Graphed(net.denoise)
    elif device == "cpu" and packs(net.dtype):
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(
                        module,
                        name,
                        Packed(
                            child.weight.data,
                            child.bias.data,
                            gelu="tanh" if isinstance(module, Block) and name == "fc1" else "",
                        ),
                    )
            if isinstance(module, Block):
                module.gelu = nn.Identity()  # fc1 does it on the way out
    return net


def main(argv=None):
    command_line(
        __doc__,
        {
            "bench": "bench.flops",
            "convert": "released.checkpoint:convert",
            "export": "released.checkpoint:export",
        },
        argv,
        inspect,
    )


if __name__ == "__main__":
    main()
