"""parse.py: read the gamepad off a controller overlay, frame by frame (paper section 2.1).

    python parse.py VIDEO... [--out DIR] [--weights FILE] [--preview]     DIR/<video stem>.actions.safetensors
    python parse.py train [--config tiny|small|paper] [--minutes M] [--init FILE] --out FILE
    python parse.py train --templates DIR --init weights/parse.safetensors --minutes 5 --out FILE      adapt to your own skins

In, per video: the video and DIR/<stem>.overlay.safetensors from extract.py (where the overlay is,
the temporal median of its crop, the template's looks, and the layout: where each of its buttons and
sticks is). Out: row i = what frame i shows: buttons float16 [T, 16] probabilities, sticks float32
[T, 4] in grid cells from the centre (-5..5; `cells_per_radius` in the metadata), shown bool [20],
confidence float16 [T], time float64 [T] s. `train` needs no data: it draws the templates of
extract.py in random states over random backgrounds.

The network is a SegFormer whose input is two consecutive crops side by side, and what stands still
in the video: the median, and how the template looks at rest and pressed.  Its head samples the
feature map where the template has its elements: one logit per button, and an 11 x 11 heat map over
the places where a stick's knob can be.

Dimensions: B batch, T video frames, N tokens, D width, H heads; t the two frames of a pair, s the
two sticks, k the GRID * GRID cells of a heat map, h w picture, c channels.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, Many, command_line, expect, recipe_of, shipped
from common.device import Packed, autocast, keep_memory, pick_device
from common.pictures import VideoWriter, read_video, video_facts
from common.training import Training, batches, machine
from common.workers import for_each

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from tqdm import tqdm

from templates import library, matching, pads, presets, render, scenes, synthetic

PRESS_GAIN = 8.0  # CHOICE: of a button, per unit from rest to pressed
# channels of what stands still in a video: RGB of the temporal median, RGBA of the template at rest
# and pressed
STILL = 3 + 4 + 4
AGREED = 100  # CHOICE: frames of a video, about, in which what was read is drawn and compared
BATCH = 16  # pairs of frames per pass of the network when parsing


# ---- configuration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    out: str = "data/labels"  # folder of the overlay artefacts, and of what is written
    weights: str = "weights/parse.safetensors"  # what `train` made
    preview: bool = False  # also write <stem>.preview.mp4: the crop beside the parsed pad


@dataclass(frozen=True)
class Net:
    """Sizes of the network.  Strides are 4, 2, 2, 2 and patch kernels 7, 3, 3, 3 (MiT)."""

    widths: tuple = (32, 64, 96, 128)
    depths: tuple = (1, 1, 2, 2)
    heads: tuple = (1, 2, 3, 4)
    reduce: tuple = (8, 4, 2, 1)  # side of the patches that keys and values are pooled from
    decoder: int = 64  # width of the 1/4-resolution feature map
    detail: int = 24  # channels of the full-resolution features
    head: int = 48  # width of the stick head


NETS = {
    "compact": Net(),
    # MiT-B0
    "b0": Net(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2), heads=(1, 2, 5, 8), decoder=128),
}


@dataclass(frozen=True)
class TrainConfig(Common):
    # the weights; <stem>.state.safetensors beside it resumes
    out: str = "data/parser/parse.safetensors"
    # weights to start from: a parser's, or a published SegFormer encoder (--net b0 for MiT-B0)
    init: str = ""
    # folder of your own skins to adapt to: three quarters of the pairs show one
    templates: str = ""
    # also on the templates that are held out for validation: the last step before shipping
    everything: bool = False
    backgrounds: str = ""  # folder of gameplay videos to use beside the painted pictures
    net: str = "compact"  # compact or b0
    images: float = 8e6  # synthetic pairs of frames to see, paper 2.1
    # stop after so long, if that is sooner (all runs of this command together); 0: no limit
    minutes: float = 0.0
    batch: int = 256  # paper 2.1
    lr: float = 1e-4  # peak, paper 2.1
    weight_decay: float = 0.1  # paper 2.1
    warmup: float = 0.03  # share of the run over which the rate rises; CHOICE
    ema: float = 0.999  # decay of the averaged weights, which are what is kept; CHOICE
    validation: int = 2048  # pairs that the final table is measured on
    workers: int = 1  # processes that draw
    threads: int = 0  # CPU threads of the network; 0: as torch likes


CONFIGS = {
    # two cores; DEVIATION: smaller batch, higher peak
    "tiny": TrainConfig(batch=16, lr=8e-4, minutes=30, ema=0.995, threads=1),
    # one GPU; DEVIATION: higher peak
    "small": TrainConfig(batch=256, lr=1e-3, images=2e6, minutes=15, workers=12),
    "paper": TrainConfig(net="b0", workers=12),
}


# ---- SegFormer encoder: MiT, arXiv 2105.15203 ----------------------------------------------------
# Tensor names as in transformers; published files carry its older ones.

OLDER = (
    (r"^segformer\.", ""),
    (r"^encoder\.(patch_embeddings|layer_norm)\.(\d)\.", r"stages.\2.\1."),
    (r"^encoder\.block\.(\d)\.", r"stages.\1.blocks."),
    ("layer_norm_1", "layernorm_before"),
    ("layer_norm_2", "layernorm_after"),
    (r"attention\.self\.([qkv])[a-z]+", r"attention.\1_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"attention\.self\.sr", "attention.sequence_reduction.sequence_reduction"),
    (r"attention\.self\.layer_norm", "attention.sequence_reduction.layer_norm"),
    (r"mlp\.dense", "mlp.fc"),
)


def as_image(x, size):
    return rearrange(x, "B (h w) D -> B D h w", h=size[0])


def as_tokens(x):
    return rearrange(x, "B D h w -> B (h w) D")


def add(x, layer, y):
    """x + layer(y)"""
    if isinstance(layer, Packed):
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, layer.weight, layer.bias, "add")
    return x + layer(y)


class PatchEmbeddings(nn.Module):
    """Overlapping patches: a strided convolution, then LayerNorm."""

    def __init__(self, channels, width, kernel, stride):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x, more):
        x = self.proj(x) + more
        return self.layer_norm(as_tokens(x)), x.shape[-2:]


class SequenceReduction(nn.Module):
    """r x r tokens -> one."""

    def __init__(self, width, r):
        super().__init__()
        self.sequence_reduction = nn.Conv2d(width, width, r, r)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x, size):
        return self.layer_norm(as_tokens(self.sequence_reduction(as_image(x, size))))


class Attention(nn.Module):
    """x + softmax(q k^T / sqrt(D / H)) v, with queries from n and keys and values from its reduced
    sequence.
    """

    def __init__(self, width, heads, r):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width) for _ in range(4)
        )
        self.sequence_reduction = SequenceReduction(width, r) if r > 1 else None

    def forward(self, x, n, size):
        m = self.sequence_reduction(n, size) if self.sequence_reduction else n  # B N / r^2 D
        q, k, v = (
            rearrange(p, "B N (H D) -> B H N D", H=self.heads)
            for p in (self.q_proj(n), self.k_proj(m), self.v_proj(m))
        )
        if x.is_cuda or not torch.is_grad_enabled():
            y = F.scaled_dot_product_attention(q, k, v)
        else:  # on a CPU the formula itself has the faster backward pass
            y = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v  # weights: B H N N / r^2
        return add(x, self.o_proj, rearrange(y, "B H N D -> B N (H D)"))


class DepthwiseConv(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x, size):
        return as_tokens(self.dwconv(as_image(x, size)))


class MixFFN(nn.Module):
    """x + mlp(n).  The 3 x 3 convolution tells tokens where they are: there is no position
    embedding.
    """

    def __init__(self, width, ratio=4):
        super().__init__()
        self.fc1 = nn.Linear(width, width * ratio)
        self.dwconv = DepthwiseConv(width * ratio)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(width * ratio, width)

    def forward(self, x, n, size):
        return add(x, self.fc2, self.gelu(self.dwconv(self.fc1(n), size)))


class Block(nn.Module):
    def __init__(self, width, heads, r):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width)
        self.attention = Attention(width, heads, r)
        self.layernorm_after = nn.LayerNorm(width)
        self.mlp = MixFFN(width)

    def forward(self, x, size):
        x = self.attention(x, self.layernorm_before(x), size)
        return self.mlp(x, self.layernorm_after(x), size)


class Stage(nn.Module):
    def __init__(self, channels, width, depth, heads, r, kernel, stride):
        super().__init__()
        self.patch_embeddings = PatchEmbeddings(channels, width, kernel, stride)
        self.blocks = nn.ModuleList(Block(width, heads, r) for _ in range(depth))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x, more=0.0):
        x, size = self.patch_embeddings(x, more)
        for block in self.blocks:
            x = block(x, size)
        return as_image(self.layer_norm(x), size)


class Encoder(nn.Module):
    """image [B, 3, h, w] -> four maps [B, D, h / 4, w / 4] ... [B, D, h / 32, w / 32]; `more` is
    added to the first patches, before their LayerNorm.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.stages = nn.ModuleList(
            map(
                Stage,
                (3, *net.widths[:3]),
                net.widths,
                net.depths,
                net.heads,
                net.reduce,
                (7, 3, 3, 3),
                (4, 2, 2, 2),
            )
        )

    def forward(self, x, more=0.0):
        first, *others = self.stages
        maps = [first(x, more)]
        for stage in others:
            maps.append(stage(maps[-1]))
        return maps


class Decoder(nn.Module):
    """Four maps -> one at 1/4 resolution.

    The published one projects, enlarges, concatenates and mixes by a 1 x 1 convolution.  All of
    that is linear, so here each map goes straight to the common width at its own size and is added
    on the way up: a tenth of the work.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.proj = nn.ModuleList(nn.Conv2d(w, net.decoder, 1) for w in net.widths)

    def forward(self, maps):
        x = self.proj[-1](maps[-1])
        for proj, m in zip(self.proj[-2::-1], maps[-2::-1]):
            x = proj(m) + F.interpolate(x, m.shape[-2:], mode="bilinear", align_corners=False)
        return x


# ---- the parser: features read where the template has its elements -------------------------------


def lattice(steps) -> torch.Tensor:
    """[n * n, 2] x, y, row by row."""
    steps = torch.as_tensor(steps, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)


def rings(*spec) -> torch.Tensor:
    """The centre and, per (radius, count, turn), points around it, [n, 2]."""
    points = [(0.0, 0.0)]
    for radius, count, turn in spec:
        angles = (2 * math.pi * (i + turn) / count for i in range(count))
        points += [(radius * math.cos(a), radius * math.sin(a)) for a in angles]
    return torch.tensor(points)


def sample(features, points, around=((0, 0),)):
    """features [B, c, h, 2 w] at points [b, p, 2] (0..1 in the crop; b = B, or 1 for the whole
    batch), in both crops: [B, t, p, n c]; or around them, n offsets in pixels, zeros beyond the
    border."""
    h, w = features.shape[-2:]
    x, y = points.clamp(0, 1).unbind(-1)
    # b t p 2, px
    at = torch.stack([torch.stack([x, x + 1], 1) / 2 * w, torch.stack([y * h] * 2, 1)], -1) - 0.5
    at = torch.minimum(at.clamp(min=0), at.new_tensor([w - 1, h - 1]))
    at = (at[..., None, :] + at.new_tensor(around)).flatten(2, 3)
    at = (2 * at + 1) / at.new_tensor([w, h]) - 1
    own = F.grid_sample(
        features, at.to(features.dtype).expand(len(features), -1, -1, -1), align_corners=False
    )
    return rearrange(own, "B c t (p n) -> B t p (n c)", n=len(around)).contiguous()


class Sampled(nn.Conv2d):
    """A 3 x 3 convolution read at points, as `sample`: [B, t, p, c].  Interpolation is linear, so
    convolving the sampled neighbourhoods is the same as sampling the convolved picture, and costs
    only what is looked at."""

    AROUND = [(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]

    def forward(self, features, points):
        f = sample(features.float(), points, self.AROUND)
        return F.linear(
            f.to(self.weight.dtype), rearrange(self.weight, "o c h w -> o (h w c)"), self.bias
        )


class Both(nn.Linear):
    """A linear layer over the features of `points` points in the own frame and in the other: [B, t,
    (n p), c] -> [B, t, n, out].
    """

    def __init__(self, points, width, out):
        super().__init__(2 * points * width, out)
        self.points = points

        self.product = lambda f: F.linear(f, self.matrix())

    def matrix(self):
        return rearrange(self.weight, "o (p f c) -> (f o) (p c)", p=self.points, f=2)

    def forward(self, f):
        own, other = self.product(rearrange(f, "B t (n p) c -> B t n (p c)", p=self.points)).chunk(
            2, -1
        )
        return own + other.flip(1) + self.bias


class Parser(nn.Module):
    """Two crops side by side -> logits of 16 buttons and 2 heat maps, and whether each of these is
    to be seen at all, for both of the frames.

    What stands still is seen too: the temporal median, and how the template looks at rest and with
    everything pressed, so that a skin never seen before can be read by comparing.  It has
    convolutions of its own, added to the frames': a video pays for them once. DEVIATION: the paper
    reads the second frame of a pair; reading both halves the work per frame and doubles what a pair
    teaches.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)
        self.detail = Sampled(3, net.detail, 3)
        self.still_patches = nn.Conv2d(STILL, net.widths[0], 7, 4, 3, bias=False)
        self.still_detail = Sampled(STILL, net.detail, 3, bias=False)
        for name, points in (
            ("cells", lattice(torch.linspace(-matching.REACH, matching.REACH, matching.GRID))),
            ("nine", lattice([-0.67, 0, 0.67])),
            ("near", rings((0.6, 4, 0), (1.0, 8, 0), (1.25, 4, 0.5))),
            ("far", rings((1.0, 4, 0))),
        ):
            self.register_buffer(name, points, persistent=False)
        self.button_in = nn.Linear(2 * len(self.nine) * (net.decoder + net.detail), net.decoder)
        self.button_name = nn.Parameter(torch.zeros(len(artefact.BUTTONS), net.decoder))
        self.button_knob = nn.Linear(net.head, net.decoder)
        # of the own frame, the other, the median
        self.button_match = nn.Linear(3 * matching.MARKS, net.decoder)
        self.button_out = nn.Linear(net.decoder, 2)  # pressed, visible
        self.button_trust = nn.Linear(net.decoder, 1)  # how far to go by the marks
        nn.init.zeros_(self.button_trust.weight)
        nn.init.zeros_(self.button_trust.bias)
        self.stick_near = Both(len(self.near), net.detail, net.head)
        self.stick_far = Both(len(self.far), net.decoder, net.head)
        self.stick_look = Both(len(self.near), net.detail, net.head)
        # likeness at a cell's 3 x 3 places: own frame, other, median
        self.stick_match = nn.Linear(3 * 9, net.head)
        self.stick_mix = nn.Conv2d(net.head, net.head, 3, padding=1)
        # what is seen, and how far to go by the likeness, of the frame and of the median
        self.stick_out = nn.Conv2d(net.head, 3, 3, padding=1)
        self.stick_seen = nn.Linear(net.head, 1)
        self.gelu = nn.GELU()

    def forward(self, x, maps, marks, still, boxes, sticks):
        """x [B, 3, CROP, 2 CROP] in -1..1; maps [B, t, s, 2, FINE, FINE] and marks [B, t, 16, 2,
        MARKS] of a MatchedFilter; still [B or 1, STILL, CROP, 2 CROP], see still_input; boxes [B,
        16, 4] centre and half size; sticks [B, 2, 6] centre, travel, knob's half size; both as
        shares of the crop.  Returns logits, per frame: of buttons [B, 2, 16], of heat maps [B, 2,
        2, FINE * FINE], and of being visible [B, 2, 18]: 16 buttons, 2 sticks; not behind a menu or
        a banner, not switched off."""
        return self.read(x, maps, marks, *self.prepare(still, boxes, sticks))

    def prepare(self, still, boxes, sticks):
        """What a video needs once: of what stands still, the patches' and the details' share; and
        where to look, points [b, p, 2].
        """
        centre, travel, knob = sticks[:, :, None].split(2, -1)
        candidates = centre + self.cells * travel  # b s k 2
        around = lambda at, ring: (at[:, :, :, None] + ring * knob[:, :, :, None]).flatten(1, 3)  # noqa: E731  b (s k p) 2
        nine = (boxes[:, :, None, :2] + self.nine * boxes[:, :, None, 2:]).flatten(1, 2)
        near, far, home = (
            around(candidates, self.near),
            around(candidates, self.far),
            around(centre, self.near),
        )
        still = still.to(self.button_name.dtype)
        patches, still = (
            self.still_patches(still),
            still.expand(max(len(still), len(boxes)), -1, -1, -1),
        )
        fine, look = (self.still_detail(still, at) for at in (torch.cat([near, nine], 1), home))
        look = rearrange(self.stick_look(F.gelu(look)), "b t s c -> b t s 1 c")
        return patches, fine, look, torch.cat([near, nine], 1), torch.cat([far, nine], 1)

    def read(self, x, maps, marks, patches, fine, look, near, far):
        """As forward, of what `prepare` made.  The non-linearity comes after the sampling: it then
        costs only what is looked at.
        """
        x = x.to(self.button_name.dtype)
        fine = F.gelu(self.detail(x, near) + fine)
        # sampling in bfloat16 is far slower
        coarse = F.gelu(sample(self.decoder(self.encoder(x, patches)).float(), far)).to(fine.dtype)
        nine = len(artefact.BUTTONS) * len(self.nine)
        (near, fine), (far, coarse) = (
            f.tensor_split([f.shape[2] - nine], 2) for f in (fine, coarse)
        )
        heat, knobs = self.read_sticks(far, near, look, maps)
        buttons, seen = self.read_buttons(coarse, fine, knobs, marks).unbind(-1)
        return buttons, heat, torch.cat([seen, self.stick_seen(knobs)[..., 0]], -1)

    def read_sticks(self, far, near, look, maps):
        """Every place on the grid is compared with how the template draws its knob: `look` at the
        centre, in learned features, and `maps`.

        heat = seen + GAIN (1 + b) S + GAIN c S_median, where b and c say how far to go by the
        matched filter: untrained, it is that alone."""
        f = rearrange(self.stick_near(near) + self.stick_far(far), "B t (s k) c -> B t s k c", s=2)
        cells = rearrange(maps, "B t s p (i u) (j v) -> B t s (i j) p (u v)", u=3, v=3).to(f.dtype)
        own, median = cells.unbind(-2)
        f = f + look + self.stick_match(torch.cat([own, own.flip(1), median], -1))
        f = rearrange(F.gelu(f), "B t s (i j) c -> (B t s) c i j", i=matching.GRID)
        f = self.gelu(self.stick_mix(f))
        seen, trust, still = F.interpolate(
            self.stick_out(f).float(),
            (matching.FINE, matching.FINE),
            mode="bilinear",
            align_corners=False,
        ).unbind(1)
        likeness, standing = rearrange(maps.float(), "B t s p i j -> p (B t s) i j")
        heat = rearrange(
            seen + matching.GAIN * ((1 + trust) * likeness + still * standing),
            "(B t s) i j -> B t s (i j)",
            t=2,
            s=2,
        )
        there = rearrange(
            heat.detach().softmax(-1),
            "B t s (i u j v) -> B t s (i j) (u v)",
            i=matching.GRID,
            j=matching.GRID,
            u=3,
        ).sum(-1)
        f = rearrange(f, "(B t s) c i j -> B t s (i j) c", t=2, s=2)
        knobs = (there.to(f.dtype)[..., None, :] @ f)[..., 0, :]  # B t s c
        return heat, knobs

    def read_buttons(self, coarse, fine, knobs, marks):
        """A click shows on the stick's knob, wherever that is: its buttons also get the features
        found there, knobs [B, 2, 2, head].

        logit = seen + PRESS_GAIN (1 + b) (m - PRESSED), where m is the mean of both marks, and b
        says how far to go by it."""
        own, median = marks.to(coarse.dtype).unbind(-2)
        match = self.button_match(torch.cat([own, own.flip(1), median], -1))
        f = torch.cat([coarse, coarse.flip(1), fine, fine.flip(1)], -1)
        f = rearrange(f, "B t (n p) c -> B t n (p c)", p=len(self.nine))
        first = artefact.BUTTONS.index("LEFT_THUMB")
        clicks = F.pad(self.button_knob(knobs), (0, 0, first, len(artefact.BUTTONS) - first - 2))
        f = F.gelu(self.button_in(f) + self.button_name + clicks + match)
        pressed, seen = self.button_out(f).float().unbind(-1)
        # 0: nothing to compare
        stands = (marks[..., 0, :2].float().clamp(-0.5, 1.5).mean(-1) - matching.PRESSED) * (
            marks[..., 0, 3] > 0
        )
        return torch.stack(
            [pressed + PRESS_GAIN * (1 + self.button_trust(f)[..., 0].float()) * stands, seen], -1
        )


def beside(x):
    """uint8 [B, 2, CROP, CROP, 3] -> [B, 3, CROP, 2 CROP] in -1..1"""
    x = rearrange(x, "B t h w c -> B h (t w) c").float()  # moved as bytes; channels last
    return rearrange(x.div_(127.5).sub_(1), "B h w c -> B c h w")


def still_input(median, looks):
    """uint8: the median that each frame belongs to [b, 2, CROP, CROP, 3] and how the template looks
    at rest and pressed [b, 2, CROP, CROP, 4], premultiplied -> floats in -1..1 [b, STILL, CROP, 2
    CROP]: median, and twice a look over grey and its opacity."""
    looks = rearrange(looks.float() / 255, "b k h w c -> b k c h w")
    looks = torch.cat([2 * looks[:, :, :3] - looks[:, :, 3:], 2 * looks[:, :, 3:] - 1], 2).flatten(
        1, 2
    )
    return torch.cat([beside(median), looks.repeat(1, 1, 1, 2)], 1).contiguous(
        memory_format=torch.channels_last
    )


def accelerate(parser: Parser, dtype=None) -> Parser:
    """Make a network that only reads as fast as this CPU allows: packed weights, in bfloat16 where
    the hardware multiplies it.
    """
    if parser.button_name.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return parser
    with autocast("cpu"):
        dtype = dtype or (torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
    for p in parser.parameters():
        p.requires_grad_(False).data = p.data.to(dtype)
    for module in list(parser.modules()):
        for name, child in module.named_children():
            if isinstance(child, Both):
                child.product = Packed(child.matrix().contiguous())
            elif type(child) is nn.Linear:
                setattr(module, name, Packed(child.weight, child.bias))
            elif type(child) is nn.Conv2d:
                setattr(
                    module,
                    name,
                    Packed(
                        child.weight,
                        child.bias,
                        child,
                        gelu="none" if name in ("dwconv", "stick_mix") else "",
                    ),
                )
        if hasattr(module, "gelu"):
            module.gelu = nn.Identity()  # the convolution before it does it on the way out
    return parser


# ---- matched filters: the template, drawn, compared with the crop --------------------------------
# Nothing is learned here.  Everything is drawn as faintly as the video shows it, see opacity().  A stick's knob at place p changes the picture
# of its ground G by d(p) = k(x - p) - alpha(x - p) G(x), where k is the knob's picture, premultiplied, and alpha its opacity.  How much of that
# a crop shows, less what it shows of the ground, F = crop - SOFT G, is the cosine of their gradients,
#     S(p) = <grad F, grad d(p)> / (|grad F near p| |grad d(p)|),   and   <grad F, grad d(p)> = <-laplace F, d(p)>
# is two correlations, of -laplace F with k and of -laplace F times G with alpha: all places at once.


# ---- training ------------------------------------------------------------------------------------


def read_batch(parser: Parser, batch: dict, device: str):
    """A batch of `Synthetic` -> (logits of buttons, heat maps and visibility, the batch on the
    device).
    """
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    median = batch["median"][:, None].expand_as(batch["frames"])
    with autocast(device):
        still = still_input(median, batch["looks"])
        return *parser(
            beside(batch["frames"]),
            batch["maps"],
            batch["marks"],
            still,
            batch["boxes"],
            batch["sticks"],
        ), batch


# ---- yours to change: the loss
def loss_fn(buttons, heat, seen, batch):
    """Binary cross-entropy of the visible buttons; cross-entropy to the spread target, less its
    entropy, of the visible sticks; binary cross-entropy of visibility, of what the template
    shows."""
    visible = batch["visible"]
    press = F.binary_cross_entropy_with_logits(
        buttons.float(), batch["buttons"].float(), reduction="none"
    )[visible[..., :16]].mean()
    there = visible[..., 16:]
    target, log_p = matching.spread(batch["cells"])[there], heat[there].float().log_softmax(-1)
    place = (
        (torch.special.xlogy(target, target) - target * log_p).sum(-1).mean()
        if len(target)
        else heat.sum() * 0
    )
    shown = torch.cat([batch["shown"][:, :16], batch["shown"][:, 16::2]], 1)[:, None].expand_as(
        seen
    )
    sight = F.binary_cross_entropy_with_logits(seen.float(), visible.float(), reduction="none")[
        shown
    ].mean()
    return 4 * press + place + sight, press.detach(), place.detach(), sight.detach()


@torch.no_grad()
def validate(parser: Parser, batches, families: list, device: str) -> dict:
    """On batches of a Synthetic, per family, of what is visible: button accuracy, accuracy of
    silence, recall, F1, stick R2 per axis averaged, mean error in stick radii; and the accuracy of
    visibility."""
    parts = []
    for b in tqdm(batches, "validation", leave=False, delay=5):
        buttons, heat, seen, b = read_batch(parser, b, device)
        shown = torch.cat([b["shown"][:, :16], b["shown"][:, 16::2]], 1)[:, None].expand_as(seen)
        parts.append(
            [
                v.cpu().numpy()
                for v in (
                    b["family"],
                    shown,
                    b["visible"],
                    seen > 0,
                    buttons > 0,
                    b["buttons"],
                    matching.locate(heat)[0],
                    b["cells"],
                )
            ]
        )
    family, shown, visible, seen, said, true, cells, where = map(np.concatenate, zip(*parts))
    table = {}
    for name in [*families, "all"]:
        mine = family == families.index(name) if name != "all" else family >= 0
        if not mine.any():
            continue
        m, there = visible[mine, :, :16], visible[mine, :, 16:]
        s, t, hit = said[mine][m], true[mine][m], (said[mine][m] & true[mine][m]).sum()
        x, y = cells[mine][there] / matching.UNIT, where[mine][there] / matching.UNIT
        table[name] = {
            "frames": 2 * int(mine.sum()),
            "accuracy": (s == t).mean(),
            "silence": (~t).mean(),
            "recall": hit / max(t.sum(), 1),
            "f1": 2 * hit / max(s.sum() + t.sum(), 1),
            "visible": (seen == visible)[mine][shown[mine]].mean(),
        }
        if len(y) > 20:
            table[name] |= {
                "r2": (1 - ((x - y) ** 2).mean(0) / y.var(0)).mean(),
                "error": np.abs(x - y).mean(),
            }
    return {k: {a: round(float(b), 5) for a, b in v.items()} for k, v in table.items()}


def print_table(table: dict) -> None:
    columns = ("frames", "accuracy", "silence", "recall", "f1", "r2", "error", "visible")
    print("family    " + "".join(f"{c:>10s}" for c in columns))
    for name, row in table.items():
        print(
            f"{name:10s}{row['frames']:10.0f}"
            + "".join(f"{row.get(c, math.nan):10.4f}" for c in columns[1:])
        )


def load(path, device: str = "cpu") -> Parser:
    """The parser in a weights file; SystemExit with one line if the file is not one."""
    tensors, info = artefact.read(path, "nitrogen.parser/1")
    try:
        parser = Parser(
            Net(**{k: tuple(v) if isinstance(v, list) else v for k, v in info["net"].items()})
        )
        parser.load_state_dict({k: torch.from_numpy(v).float() for k, v in tensors.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        fault = str(e).partition("\n")[0][:100]
        raise SystemExit(
            f"{path}: does not fit this network ({fault}); make it anew: {artefact.MAKER['parser']}"
        ) from None
    return parser.to(device, memory_format=torch.channels_last).eval()


class ParserTraining(Training):
    """AdamW, and an average of the weights, which is what is kept."""

    def __init__(self, cfg: TrainConfig, device: str):
        torch.manual_seed(cfg.seed)
        self.device = device
        self.parser, self.started_from = Parser(NETS[cfg.net]), {}
        if cfg.init:
            fresh = self.parser.state_dict()
            fits = {
                k: v
                for k, v in starting_weights(shipped(cfg.init)).items()
                if k in fresh and v.shape == fresh[k].shape
            }
            self.parser.load_state_dict(fresh | fits)
            with contextlib.suppress(SystemExit):  # a published encoder does not say
                self.started_from = {
                    k: v
                    for k, v in artefact.read(shipped(cfg.init))[1].items()
                    if k in ("recipe", "images", "minutes", "figures", "started_from")
                }
            print(
                f"{cfg.init}: {len(fits)} of {len(fresh)} tensors fit --net {cfg.net}"
                + ("" if len(fits) == len(fresh) else "; the others start at random")
            )
        self.parser.to(device, memory_format=torch.channels_last)
        params = dict(self.parser.named_parameters())
        groups = [
            {
                "params": [p for p in params.values() if p.ndim > 1],
                "weight_decay": cfg.weight_decay,
            },
            {"params": [p for p in params.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        start = [shipped(cfg.init)] if cfg.init else []
        recipe = recipe_of(
            cfg, *start, *scenes.files_in(cfg.backgrounds), *scenes.files_in(cfg.templates)
        )
        super().__init__(
            cfg,
            params,
            torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.99), fused=True),
            cfg.images / cfg.batch,
            recipe,
        )
        self.average = {k: p.detach().clone() for k, p in params.items()}
        self.changing = {f"average.{k}": v for k, v in self.average.items()}
        self.resume()

    def rate(self) -> float:
        """Linear warm-up, then half a cosine down to 2 % of the peak."""
        done, warm = min(self.share(), 1), self.cfg.warmup
        fall = 0.02 + 0.49 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
        return self.cfg.lr * min((done + 1e-3) / warm, fall)

    def step(self, batch: dict):
        losses = loss_fn(*read_batch(self.parser, batch, self.device))
        self.descend(losses[0])
        torch._foreach_lerp_(
            [*self.average.values()],
            [p.detach() for p in self.params.values()],
            1 - min(self.cfg.ema, self.steps / (self.steps + 10)),
        )
        return [v.item() for v in losses]

    def averaged(self) -> Parser:
        parser = Parser(self.parser.net).to(self.device, memory_format=torch.channels_last).eval()
        parser.load_state_dict(self.average)
        return parser


def train(cfg: TrainConfig) -> None:
    device = pick_device(cfg.device)
    keep_memory()
    if cfg.net not in NETS:
        raise SystemExit(f"--net {cfg.net}: expected one of {', '.join(NETS)}")
    expect(
        cfg,
        images=(1, 1e15),
        minutes=(0, math.inf),
        batch=(1, 1e6),
        lr=(0, 1e3),
        warmup=(1e-6, 0.99),
        ema=(0, 1),
        validation=(1, 1e9),
        workers=(0, 4096),
        threads=(0, 4096),
    )
    for folder in (cfg.backgrounds, cfg.templates):
        if folder and not Path(folder).is_dir():
            raise SystemExit(f"{folder}: no such folder")
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    cv2.setNumThreads(1)
    photos = scenes.film_frames(cfg.backgrounds) if cfg.backgrounds else []
    held_out = [t for name, t in library.templates().items() if pads.held_out(name)]
    own = list(presets.read_skins(cfg.templates).values()) if cfg.templates else []
    data = synthetic.Synthetic(
        cfg.seed, list(library.templates().values()) if cfg.everything else None, own, photos
    )
    test = synthetic.Synthetic(
        cfg.seed + 1_000_003,
        own or held_out,
        photos=photos,
        remade=False,
        wild=0 if own else synthetic.WILD,
    )
    until = f"{cfg.minutes:g} minutes" if cfg.minutes else f"{cfg.images:,.0f} pairs"
    print(
        f"train parser {cfg.net} on {device}: {len(own) + len(data.templates)} templates, {f'{len(own)} of them to adapt to' if own else f'{0 if cfg.everything else len(held_out)} held out'}, "
        f"{len(photos)} frames of games, batches of {cfg.batch} pairs, until {until} -> {cfg.out}\n{cfg}"
    )
    data[0]  # paints the games
    start = time.perf_counter()
    for i in range(1, 17):
        data[i]
    drawn = 16 / (time.perf_counter() - start)
    print(
        f"one process draws {drawn:.0f} pairs of frames a second; {max(cfg.workers, 1)} of them {cfg.images:,.0f} in "
        f"{cfg.images / drawn / max(cfg.workers, 1) / 3600:.1f} h"
    )
    run, before, looks = (
        ParserTraining(cfg, device),
        {},
        lambda: batches(test, 0, cfg.validation, 32, cfg.workers),
    )
    if own and run.started_from:  # a parser, not just an encoder
        start, few = (
            time.perf_counter(),
            min(cfg.validation, max(16, int(1.5 * drawn * cfg.minutes)))
            if cfg.minutes
            else cfg.validation,
        )
        before = validate(
            load(shipped(cfg.init), device),
            seen := list(batches(test, 0, few, 32)),
            test.families,
            device,
        )
        # the same pairs again at the end
        looks, run.seconds = (lambda: seen), run.seconds + 2 * (time.perf_counter() - start)
        print(f"{cfg.init}, on what it is to adapt to:")
        print_table(before)
    if not run.follow(
        lambda first, count: batches(data, first, count, cfg.batch, cfg.workers),
        lambda v: f"loss {v[0]:.4f} (buttons {v[1]:.4f}, sticks {v[2]:.3f}, visibility {v[3]:.3f})",
    ):
        return
    table = validate(run.averaged(), looks(), test.families, device)
    whose = (
        "the same now"
        if before
        else "what it adapted to"
        if own
        else f"{len(held_out)} templates that were {'seen too' if cfg.everything else 'held out'}"
    )
    print(f"on {whose}, other states and games:")
    print_table(table)
    artefact.write(
        cfg.out,
        {k: v.cpu().half().numpy() for k, v in run.average.items()},
        "nitrogen.parser/1",
        net=dataclasses.asdict(run.parser.net),
        recipe=run.recipe,
        images=run.steps * cfg.batch,
        minutes=round(run.seconds / 60, 1),
        machine=machine(device),
        templates=len(own) + len(data.templates),
        held_out=0 if own or cfg.everything else len(held_out),
        figures=table,
        before=before,
        started_from=run.started_from,
    )
    print(
        f"{cfg.out}: {Path(cfg.out).stat().st_size:,} bytes; next: python parse.py VIDEO --weights {cfg.out}"
    )


# ---- parsing a video -----------------------------------------------------------------------------


def ahead(items):
    """The same items, each made in a thread while the one before it is in use: decoding overlaps
    the network.
    """
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item


def with_places(video, overlay: dict):
    """Yield (seconds, place, frame) in one pass; place: which of the overlay's positions holds
    then.
    """
    for i, seconds, frame in read_video(video):
        yield seconds, max(int(np.searchsorted(overlay["span"][:, 0], i, "right")) - 1, 0), frame


def compared(video, overlay: dict, template):
    """Yield (seconds, place, crop uint8 [CROP, CROP, 3], and what a MatchedFilter makes of it) per
    frame.
    """
    size, filters = np.array(template.size), []
    for median in overlay["median"]:
        a, b = median.shape[1::-1] / size
        filters.append(matching.MatchedFilter(template, median, np.array([[a, 0, 0], [0, b, 0]])))
    for seconds, place, frame in with_places(video, overlay):
        affine = overlay["affine"][place]
        yield (
            seconds,
            place,
            render.crop(frame, affine, template.size, synthetic.CROP, synthetic.CROP),
            *filters[place](frame, affine),
        )


def in_pairs(frames, pairs: int):
    """(chunk of 2 * pairs frames, how many are real); the last is shorter, and if it is odd its
    last frame stands twice.
    """
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, 2 * pairs)):
        yield chunk + chunk[-1:] * (len(chunk) % 2), len(chunk)


@torch.no_grad()
def read_actions(
    parser: Parser, video, overlay: dict, template, device: str = "cpu"
) -> tuple[dict, dict]:
    """The tensors of a nitrogen.actions/1 file for one video, and how far what was read agrees with
    the frames, see Agreement.

    overlay: as artefact.read gives it; template: as render.stored does.

    One pass; of each frame only the answer is kept.  Frames that do not show the overlay: nothing
    pressed, confidence 0."""
    boxes, sticks, shown = matching.geometry(layout := render.layout(template))
    out = {"buttons": [], "sticks": [], "alone": [], "confidence": [], "time": []}
    # by the network, and by the matched filter alone
    compare, ways = matching.Agreement(template, 2), ("sticks", "alone")
    every = max(1, (count := video_facts(video)["frames"]) // AGREED)
    shows = torch.from_numpy(np.append(shown[:16], shown[16::2])).to(device)
    medians = np.stack(
        [
            cv2.resize(m, (synthetic.CROP, synthetic.CROP), interpolation=cv2.INTER_AREA)
            for m in overlay["median"]
        ]
    )
    looks = render.looks(layout["buttons"], lambda on: render.draw(template, on, np.zeros(4)))
    looks = torch.from_numpy(synthetic.crop_looks(looks))[None].to(device)
    at = [torch.from_numpy(a)[None].to(device) for a in (boxes, sticks)]

    @functools.lru_cache(1)
    def prepared(places):
        """What frames that show the overlay at these places share, in pairs [b, 2]."""
        median = torch.from_numpy(medians[np.array(places)]).to(device)
        return parser.prepare(still_input(median, looks.expand(len(median), -1, -1, -1, -1)), *at)

    with tqdm(total=count, desc=Path(video).name, unit="frame", leave=False) as bar:
        for chunk, real in ahead(in_pairs(compared(video, overlay, template), BATCH)):
            *seen, wide = zip(*chunk)
            seconds, place, *seen = map(np.stack, seen)
            frames, maps, marks = (
                torch.from_numpy(rearrange(v, "(B t) ... -> B t ...", t=2)).to(device) for v in seen
            )
            place = place.reshape(-1, 2)
            with contextlib.nullcontext() if device == "cpu" else autocast(device):
                fixed = prepared(
                    tuple(map(tuple, place[:1] if (place == place[0, 0]).all() else place))
                )
                logits, heat, sight = parser.read(beside(frames), maps, marks, *fixed)
            cells, mass = matching.locate(heat)
            p, visible = logits.float().sigmoid(), sight.float().sigmoid()
            sure = (visible * torch.cat([(2 * p - 1).abs(), mass], -1))[..., shows].mean(-1)
            # most of it hidden: confidence 0
            sure *= (visible > 0.5).float()[..., shows].mean(-1) > 0.5
            alone, there = (
                matching.locate(matching.GAIN * maps[..., 0, :, :].flatten(-2))[0],
                visible[..., 16:, None] > 0.5,
            )
            p = p * (visible[..., :16] > 0.5)
            for key, value in (
                ("buttons", p),
                ("sticks", (cells * there).flatten(-2)),
                ("alone", (alone * there).flatten(-2)),
                ("confidence", sure),
            ):
                out[key].append(value.flatten(0, 1)[:real].cpu().numpy())
            first = sum(map(len, out["time"]))
            for i in range(-first % every, real, every):
                if out["confidence"][-1][i] > 0:
                    compare.add(
                        wide[i],
                        seen[2][i],
                        out["buttons"][-1][i] > 0.5,
                        *((out[way][-1][i] / matching.UNIT).clip(-1, 1) for way in ways),
                    )
            out["time"].append(seconds[:real])
            bar.update(real)
    out = {k: np.concatenate(v) for k, v in out.items()}
    agreement, alone = map(compare.result, range(2))
    for side, axes in (("LEFT", slice(0, 2)), ("RIGHT", slice(2, 4))):
        # the network has met a skin that it cannot read; a tie is the filter's
        if alone.get(side, -1) >= agreement.get(side, 0):
            out["sticks"][:, axes], agreement[side] = out["alone"][:, axes], alone[side]
    there, number = np.zeros(len(out["time"]), bool), np.arange(len(out["time"]))
    for first, last in overlay["span"]:
        there[(first <= number) & (number <= last)] = True
    if 0 < count <= overlay["span"][-1, 1] + 1:  # the container may have counted too few
        there[overlay["span"][-1, 0] :] = True
    there = (there & (out["confidence"] > 0))[:, None]
    return {
        "buttons": np.where(shown[:16] & there, out["buttons"], 0).astype(np.float16),
        "sticks": np.where(shown[16:] & there, out["sticks"], 0).astype(np.float32),
        "shown": shown,
        "confidence": (out["confidence"] * there[:, 0]).astype(np.float16),
        "time": out["time"],
    }, agreement


def write_preview(video, actions: dict, overlay: dict, template, path) -> None:
    """The overlay's crop on the left, what was read from it on the right, drawn by the template, at
    the video's own rate.
    """
    scale = 480 / template.size[0]
    w, h = (round(v * scale) for v in template.size)
    with VideoWriter(path, video_facts(video)["fps"], 2 * w, h + h % 2) as out:
        frames = tqdm(with_places(video, overlay), "preview", len(actions["time"]), leave=False)
        for (_, place, frame), buttons, sticks in zip(
            frames, actions["buttons"], actions["sticks"]
        ):
            crop, pad = (
                render.crop(frame, overlay["affine"][place], template.size, w, h),
                np.full((h, w, 3), 60, np.uint8),
            )
            render.composite(
                pad,
                render.draw(template, buttons > 0.5, (sticks / matching.UNIT).clip(-1, 1), scale),
                0,
                0,
            )
            out.write(
                cv2.copyMakeBorder(np.hstack([crop, pad]), 0, h % 2, 0, 0, cv2.BORDER_REPLICATE)
            )


@functools.lru_cache(1)
def loaded(path, device: str) -> Parser:
    """A process reads the weights once."""
    return accelerate(load(path, device))


def starting_weights(path) -> dict:
    """Tensors by our names, of a parser, or of the encoder in a published SegFormer (safetensors,
    as transformers saves it).
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as f:
            found = {
                functools.reduce(lambda name, rule: re.sub(*rule, name), OLDER, k): f.get_tensor(
                    k
                ).float()
                for k in f.keys()
            }
    except Exception as e:
        raise SystemExit(
            f"{path}: not a readable safetensors file ({str(e).splitlines()[0][:120]})"
        ) from None
    if not any(k.startswith("stages.") for k in found):
        return {
            k: torch.from_numpy(v).float()
            for k, v in artefact.read(path, "nitrogen.parser/1")[0].items()
        }
    return {f"encoder.{k}": v for k, v in found.items() if k.startswith("stages.")}


def parse_video(video: str, cfg: Config) -> Path | None:
    """One video -> its actions file (and preview); None if it has no overlay and others were given
    too.
    """
    folder, stem = Path(cfg.out), Path(video).stem
    source, target, preview = (
        folder / f"{stem}.{kind}"
        for kind in ("overlay.safetensors", "actions.safetensors", "preview.mp4")
    )
    if not Path(video).is_file():
        raise SystemExit(f"{video}: no such video")
    if not source.exists():
        raise SystemExit(
            f"{source}: no such file; first: python extract.py {video} --out {cfg.out}"
        )
    overlay, info = artefact.read(source, "nitrogen.overlay/1")
    if info.get("found") is False:
        line = f"{video}: skipped, no overlay was found in it ({info.get('reason', 'no reason given')})"
        if len(cfg.videos) == 1:
            raise SystemExit(line)
        return tqdm.write(line)
    weights = shipped(cfg.weights)
    try:
        template = render.stored(overlay, info)
    except ValueError as e:
        raise SystemExit(
            f"{source}: {e}; make it anew: {artefact.MAKER['overlay']} --fresh"
        ) from None
    recipe = recipe_of(cfg, video, source, weights)
    del recipe["weights"]  # its hash is among the sources
    if artefact.finished(target, "nitrogen.actions/1", recipe, cfg.fresh):
        tqdm.write(f"{target}: finished already")
    else:
        keep_memory()
        # one core decodes
        torch.set_num_threads(
            max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) - 1)
        )
        cv2.setNumThreads(1)  # small pictures: more threads cost more than they bring
        device, start = pick_device(cfg.device), time.monotonic()
        actions, agreement = read_actions(loaded(weights, device), video, overlay, template, device)
        artefact.write(
            target,
            actions,
            "nitrogen.actions/1",
            unit="grid",
            cells_per_radius=matching.UNIT,
            fps=video_facts(video)["fps"],
            agreement=agreement,
            **{k: info[k] for k in ("template", "family", "layout")},
            recipe=recipe,
        )
        frames, seconds = len(actions["time"]), time.monotonic() - start
        tqdm.write(
            f"{target}: {frames:,} frames in {seconds:.1f} s ({frames / seconds:.0f}/s), {info['template']}, "
            f"confidence {actions['confidence'].astype(np.float32).mean():.3f}, agreement {np.median([*agreement.values()]):.2f}"
        )
        if doubts := artefact.doubtful(
            agreement, actions["buttons"][actions["confidence"] > 0] > 0.5
        ):
            tqdm.write(
                f"{video}: do not trust {' '.join(doubts)} as read with {info['template']} (filter.py masks them); is that its skin?  Give the "
                "skin to extract.py (--templates DIR), or adapt the parser to it (parse.py train --templates DIR)"
            )
        preview.unlink(missing_ok=True)
    if cfg.preview and not preview.exists():
        write_preview(video, artefact.read(target)[0], overlay, template, preview)
        tqdm.write(f"{preview}: what was read, beside the overlay")
    return target


def main(cfg: Config) -> None:
    if cfg.videos:
        # fail before the work, not in it
        info = artefact.read(shipped(cfg.weights), "nitrogen.parser/1")[1]
        print(
            f"parse {len(cfg.videos)} video(s) on {f'Ray ({cfg.ray})' if cfg.ray else pick_device(cfg.device)} with {cfg.weights} "
            f"(trained on {info.get('images', 0):,} pairs) -> {cfg.out}/<stem>.actions.safetensors"
        )
    for_each(
        functools.partial(parse_video, cfg=cfg),
        cfg.videos,
        cfg.workers,
        ray=cfg.ray,
        gpus=int(cfg.device.startswith("cuda")),
    )


if __name__ == "__main__":
    command_line(__doc__, {"": (Config, main), "train": (CONFIGS, train)})
