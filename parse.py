"""parse.py: read the gamepad off a controller overlay, frame by frame (paper section 2.1).

    python parse.py VIDEO... [--out DIR] [--weights FILE] [--preview]
        DIR/<video stem>.actions.safetensors
    python parse.py train [--config tiny|small|paper] [--minutes M] [--init FILE] --out FILE
    python parse.py train --templates DIR --init weights/parse.safetensors --minutes 5 --out FILE
        adapt to your own skins

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

import contextlib
import dataclasses
import functools
import math
import time
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, Many, command_line, expect, recipe_of, shipped, wing
from common.device import Packed, add_layer, autocast, pack_layers, pick_device, prepare_reading
from common.pictures import Video, opened, rate_of
from common.training import AveragedTraining, batches, set_up
from common.workers import ahead, for_each

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from tqdm import tqdm

from templates import footage, matching, render, scenes, scores, synthetic
from templates.matching import around, lattice, rings, stick_axes
from templates.preview import write_preview

PRESS_GAIN = 8.0  # CHOICE: logits of a button per unit from rest to pressed
AGREED = 100  # CHOICE: about how many frames of a video Agreement compares with what was read
BATCH = 16  # pairs of frames per pass of the network when parsing


# ---- configuration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    out: str = "data/labels"  # folder of the overlay artefacts, and of what is written
    weights: str = "weights/parse.safetensors"  # what `train` made
    # of a video that breaks off, use what is there, also where that is less than 90 %
    partial: bool = False
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


def as_image(x, size):
    return rearrange(x, "B (h w) D -> B D h w", h=size[0])


def as_tokens(x):
    return rearrange(x, "B D h w -> B (h w) D")


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
    """x + softmax(q k^T / sqrt(D / H)) v: queries from n, keys and values from n pooled."""

    def __init__(self, width, heads, r):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.sequence_reduction = SequenceReduction(width, r) if r > 1 else None

    def forward(self, x, n, size):
        m = self.sequence_reduction(n, size) if self.sequence_reduction else n  # B N / r^2 D
        q = rearrange(self.q_proj(n), "B N (H D) -> B H N D", H=self.heads)
        k = rearrange(self.k_proj(m), "B N (H D) -> B H N D", H=self.heads)
        v = rearrange(self.v_proj(m), "B N (H D) -> B H N D", H=self.heads)
        if x.is_cuda or not torch.is_grad_enabled():
            y = F.scaled_dot_product_attention(q, k, v)
        else:  # on a CPU the formula itself has the faster backward pass
            y = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v  # weights: B H N N / r^2
        return add_layer(x, self.o_proj, rearrange(y, "B H N D -> B N (H D)"))


class DepthwiseConv(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x, size):
        return as_tokens(self.dwconv(as_image(x, size)))


class MixFFN(nn.Module):
    """x + mlp(n), whose 3 x 3 convolution takes the place of a position embedding."""

    def __init__(self, width, ratio=4):
        super().__init__()
        self.fc1 = nn.Linear(width, width * ratio)
        self.dwconv = DepthwiseConv(width * ratio)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(width * ratio, width)

    def forward(self, x, n, size):
        return add_layer(x, self.fc2, self.gelu(self.dwconv(self.fc1(n), size)))


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


class EncoderStage(nn.Module):
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
    """Image [B, 3, h, w] -> four maps [B, D, h / 4, w / 4] ... [B, D, h / 32, w / 32]; `more` is
    added to the first patches, before their LayerNorm."""

    def __init__(self, net: Net):
        super().__init__()
        channels = (3, *net.widths[:3])
        patches = ((7, 3, 3, 3), (4, 2, 2, 2))  # kernels and strides
        sizes = (channels, net.widths, net.depths, net.heads, net.reduce, *patches)
        self.stages = nn.ModuleList(map(EncoderStage, *sizes))

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
    on the way up: a tenth of the work."""

    def __init__(self, net: Net):
        super().__init__()
        self.proj = nn.ModuleList(nn.Conv2d(w, net.decoder, 1) for w in net.widths)

    def forward(self, maps):
        x = self.proj[-1](maps[-1])
        for proj, m in zip(self.proj[-2::-1], maps[-2::-1], strict=True):
            x = proj(m) + F.interpolate(x, m.shape[-2:], mode="bilinear", align_corners=False)
        return x


# ---- the parser: features read where the template has its elements -------------------------------


def features_at(features, points, offsets=((0, 0),)):
    """Features [B, c, h, 2 w] of two crops side by side, read in both: [B, t, p, n c].

    points [b, p, 2]: 0..1 in the crop, clamped to it; b = B, or 1 for the whole batch.  offsets: n
    neighbours to read around each point, px; beyond the border they are 0."""
    h, w = features.shape[-2:]
    size = points.new_tensor([w, h])
    x, y = points.clamp(0, 1).unbind(-1)
    x = torch.stack([x, x + 1], 1) / 2 * w
    y = torch.stack([y * h, y * h], 1)
    at = torch.stack([x, y], -1) - 0.5  # b t p 2, px
    at = torch.minimum(at.clamp(min=0), size - 1)
    at = (at[..., None, :] + at.new_tensor(offsets)).flatten(2, 3)
    grid = ((2 * at + 1) / size - 1).to(features.dtype).expand(len(features), -1, -1, -1)
    found = F.grid_sample(features, grid, align_corners=False)
    return rearrange(found, "B c t (p n) -> B t p (n c)", n=len(offsets)).contiguous()


class ConvAtPoints(nn.Conv2d):
    """A 3 x 3 convolution at points only, see features_at: [B, t, p, c].

    Interpolation is linear, so convolving the sampled neighbourhoods equals sampling the convolved
    picture, and it costs only what is looked at."""

    OFFSETS = [(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]

    def forward(self, features, points):
        f = features_at(features.float(), points, self.OFFSETS).to(self.weight.dtype)
        return F.linear(f, rearrange(self.weight, "o c h w -> o (h w c)"), self.bias)


class PairedLinear(nn.Linear):
    """A linear layer over the features of p points in the own frame and in the other: [B, t, (n p),
    c] -> [B, t, n, out]."""

    def __init__(self, points, width, out):
        super().__init__(2 * points * width, out)
        self.points = points
        self.packed = None  # the product with matrix()

    def pack(self):  # see common/device.py
        self.packed = Packed(self.matrix().contiguous())

    def matrix(self):
        return rearrange(self.weight, "o (p f c) -> (f o) (p c)", p=self.points, f=2)

    def forward(self, f):
        f = rearrange(f, "B t (n p) c -> B t n (p c)", p=self.points)
        both = self.packed(f) if self.packed else F.linear(f, self.matrix())
        own, other = both.chunk(2, -1)
        return own + other.flip(1) + self.bias


class Parser(nn.Module):
    """Two crops side by side -> for both frames the logits of 16 buttons and 2 heat maps, and
    whether each of these is to be seen at all.

    What stands still is seen too: the temporal median, and how the template looks at rest and with
    everything pressed, so that a skin never seen before can be read by comparing.  It has
    convolutions of its own, added to the frames': a video pays for them once.  DEVIATION: the paper
    reads the second frame of a pair; reading both halves the work per frame and doubles what a pair
    teaches."""

    def __init__(self, net: Net):
        super().__init__()
        self.net = net
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)
        self.detail = ConvAtPoints(3, net.detail, 3)
        self.still_patches = nn.Conv2d(footage.STILL, net.widths[0], 7, 4, 3, bias=False)
        self.still_detail = ConvAtPoints(footage.STILL, net.detail, 3, bias=False)
        cells = lattice(torch.linspace(-matching.REACH, matching.REACH, matching.GRID))
        self.register_buffer("cells", cells, persistent=False)  # stick radii
        self.register_buffer("nine", lattice([-0.67, 0, 0.67]), persistent=False)  # half a button
        near = rings((0.6, 4, 0), (1.0, 8, 0), (1.25, 4, 0.5))
        self.register_buffer("near", near, persistent=False)  # knobs, in the full-size features
        self.register_buffer("far", rings((1.0, 4, 0)), persistent=False)  # knobs, at 1/4 size
        self.button_in = nn.Linear(2 * len(self.nine) * (net.decoder + net.detail), net.decoder)
        self.button_name = nn.Parameter(torch.zeros(len(artefact.BUTTONS), net.decoder))
        self.button_knob = nn.Linear(net.head, net.decoder)
        # marks of the own frame, the other, the median
        self.button_match = nn.Linear(3 * matching.MARKS, net.decoder)
        self.button_out = nn.Linear(net.decoder, 2)  # pressed, visible
        self.button_trust = nn.Linear(net.decoder, 1)  # how far to go by the marks
        nn.init.zeros_(self.button_trust.weight)
        nn.init.zeros_(self.button_trust.bias)
        self.stick_near = PairedLinear(len(self.near), net.detail, net.head)
        self.stick_far = PairedLinear(len(self.far), net.decoder, net.head)
        self.stick_look = PairedLinear(len(self.near), net.detail, net.head)
        # likeness at a cell's 3 x 3 places: own frame, other, median
        self.stick_match = nn.Linear(3 * 9, net.head)
        self.stick_mix = nn.Conv2d(net.head, net.head, 3, padding=1)
        # the network's own heat, and how far to go by the likeness of the frame and of the median
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
        """What a video needs once: what stands still, as patches, as details and as looks of the
        knobs at the centre; and points [b, p, 2] where details and coarse map are read."""
        centre, travel, knob = sticks[:, :, None].split(2, -1)
        candidates = centre + self.cells * travel  # b s k 2
        buttons = (boxes[:, :, None, :2] + self.nine * boxes[:, :, None, 2:]).flatten(1, 2)
        near = torch.cat([around(candidates, self.near, knob), buttons], 1)
        far = torch.cat([around(candidates, self.far, knob), buttons], 1)
        still = still.to(self.button_name.dtype)
        patches = self.still_patches(still)
        still = still.expand(max(len(still), len(boxes)), -1, -1, -1)
        detail = self.still_detail(still, near)
        look = self.still_detail(still, around(centre, self.near, knob))
        look = rearrange(self.stick_look(F.gelu(look)), "b t s c -> b t s 1 c")
        return patches, detail, look, near, far

    def read(self, x, maps, marks, patches, detail, look, near, far):
        """As forward, given what `prepare` made.  GELU comes after the sampling: fewer values."""
        x = x.to(self.button_name.dtype)
        fine = F.gelu(self.detail(x, near) + detail)
        coarse = self.decoder(self.encoder(x, patches)).float()  # sampling bfloat16 is far slower
        coarse = F.gelu(features_at(coarse, far)).to(fine.dtype)
        last = len(artefact.BUTTONS) * len(self.nine)  # these points are the buttons'
        heat, knobs = self.read_sticks(coarse[:, :, :-last], fine[:, :, :-last], look, maps)
        pressed, seen = self.read_buttons(coarse[:, :, -last:], fine[:, :, -last:], knobs, marks)
        return pressed, heat, torch.cat([seen, self.stick_seen(knobs)[..., 0]], -1)

    def read_sticks(self, coarse, fine, look, maps):
        """Every place on the grid is compared with how the template draws its knob: `look` at the
        centre, in learned features, and `maps`.

        heat = seen + GAIN (1 + b) S + GAIN c S_median, where b and c say how far to go by the
        matched filter: untrained, it is that alone."""
        f = self.stick_near(fine) + self.stick_far(coarse)
        f = rearrange(f, "B t (s k) c -> B t s k c", s=2)
        cells = rearrange(maps, "B t s p (i u) (j v) -> B t s (i j) p (u v)", u=3, v=3).to(f.dtype)
        own, median = cells.unbind(-2)
        f = f + look + self.stick_match(torch.cat([own, own.flip(1), median], -1))
        f = rearrange(F.gelu(f), "B t s (i j) c -> (B t s) c i j", i=matching.GRID)
        f = self.gelu(self.stick_mix(f))
        out = self.stick_out(f).float()
        out = F.interpolate(out, (matching.FINE,) * 2, mode="bilinear", align_corners=False)
        seen, trust, still = out.unbind(1)
        likeness, standing = rearrange(maps.float(), "B t s p i j -> p (B t s) i j")
        heat = seen + matching.GAIN * ((1 + trust) * likeness + still * standing)
        heat = rearrange(heat, "(B t s) i j -> B t s (i j)", t=2, s=2)
        there = heat.detach().softmax(-1)
        there = rearrange(there, "B t s (i u j v) -> B t s (i j) (u v)", i=matching.GRID, u=3, v=3)
        f = rearrange(f, "(B t s) c i j -> B t s (i j) c", t=2, s=2)
        knobs = (there.sum(-1).to(f.dtype)[..., None, :] @ f)[..., 0, :]  # B t s c
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
        trust = self.button_trust(f)[..., 0].float()
        compared = marks[..., 0, 3] > 0  # else there is nothing to compare
        stands = (matching.stands(marks[..., 0, :].float()) - matching.PRESSED) * compared
        return pressed + PRESS_GAIN * (1 + trust) * stands, seen


def accelerate(parser: Parser, dtype=None) -> Parser:
    """Pack a network that only reads for this CPU, in bfloat16 where the hardware multiplies it."""
    if parser.button_name.device.type == "cpu":
        before_gelu = ("dwconv", "stick_mix")
        pack_layers(parser, "none", before_gelu, (nn.Linear, nn.Conv2d), dtype)
    return parser


# ---- weights -------------------------------------------------------------------------------------


def load(path, device: str = "cpu") -> Parser:
    """The parser in a weights file; SystemExit with one line if the file is not one."""
    tensors, info = artefact.read(path, "nitrogen.parser/1")
    try:
        parser = Parser(Net(**info["net"]))
        parser.load_state_dict({k: torch.from_numpy(v).float() for k, v in tensors.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        fault = str(e).partition("\n")[0][:100]
        again = f"make it anew: {artefact.MAKER['parser']}"
        raise SystemExit(f"{path}: does not fit this network ({fault}); {again}") from None
    return parser.to(device, memory_format=torch.channels_last).eval()


@functools.lru_cache(1)
def loaded(path, device: str) -> Parser:
    """A process reads the weights once."""
    return accelerate(load(path, device))


# ---- training ------------------------------------------------------------------------------------


def read_batch(parser: Parser, batch: dict, device: str):
    """A batch of `Synthetic` -> logits of buttons, heat maps, visibility; batch on the device."""
    batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    median = batch["median"][:, None].expand_as(batch["frames"])
    filtered = batch["maps"], batch["marks"]
    places = batch["boxes"], batch["sticks"]
    with autocast(device):
        still = footage.still_input(median, batch["looks"])
        crops = footage.side_by_side(batch["frames"])
        buttons, heat, seen = parser(crops, *filtered, still, *places)
    return buttons, heat, seen, batch


# ---- yours to change: the loss
def loss_fn(buttons, heat, seen, batch):
    """Binary cross-entropy of the visible buttons; cross-entropy to the target heat map, less its
    entropy, of the visible sticks; binary cross-entropy of visibility, of what the template
    shows."""
    cross_entropy = functools.partial(F.binary_cross_entropy_with_logits, reduction="none")
    visible = batch["visible"]
    press = cross_entropy(buttons.float(), batch["buttons"].float())[visible[..., :16]].mean()
    there = visible[..., 16:]
    target = matching.heat_map(batch["cells"])[there]
    log_p = heat[there].float().log_softmax(-1)
    place = (torch.special.xlogy(target, target) - target * log_p).sum(-1).mean()
    if not len(target):  # no stick is to be seen
        place = heat.sum() * 0
    shown = batch["shown"][:, None, matching.ELEMENTS].expand_as(seen)
    sight = cross_entropy(seen.float(), visible.float())[shown].mean()
    return 4 * press + place + sight, press.detach(), place.detach(), sight.detach()


@torch.no_grad()
def validate(parser: Parser, batches, families: list, device: str) -> dict:
    """scores.table() of batches of a Synthetic."""
    parts = []
    for b in tqdm(batches, "validation", leave=False, delay=5):
        buttons, heat, seen, b = read_batch(parser, b, device)
        part = {key: b[key] for key in ("family", "visible", "buttons", "cells")}
        part["shown"] = b["shown"][:, None, matching.ELEMENTS].expand_as(seen)
        part |= {"seen": seen > 0, "said": buttons > 0, "where": matching.peak(heat)[0]}
        parts.append({key: value.cpu().numpy() for key, value in part.items()})
    return scores.table(parts, families)


class ParserTraining(AveragedTraining):
    """AdamW, without weight decay of vectors; the average of the weights is what is kept."""

    def __init__(self, cfg: TrainConfig, device: str):
        torch.manual_seed(cfg.seed)
        self.device = device
        self.parser = Parser(NETS[cfg.net])
        self.started_from = self.start_from(cfg) if cfg.init else {}
        self.parser.to(device, memory_format=torch.channels_last)
        params = dict(self.parser.named_parameters())
        matrices = [p for p in params.values() if p.ndim > 1]
        vectors = [p for p in params.values() if p.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            groups, cfg.lr, betas=(0.9, 0.99), weight_decay=cfg.weight_decay, fused=True
        )
        sources = [shipped(cfg.init)] if cfg.init else []
        sources += [*scenes.files_in(cfg.backgrounds), *scenes.files_in(cfg.templates)]
        recipe = recipe_of(cfg, *sources)
        super().__init__(cfg, params, optimizer, cfg.images / cfg.batch, recipe)
        self.resume()

    def start_from(self, cfg: TrainConfig) -> dict:
        """Take over the tensors of --init that fit; what is known of their making."""
        found, history = wing("interop.segformer").starting_weights(shipped(cfg.init))
        fresh = self.parser.state_dict()
        fits = {k: v for k, v in found.items() if k in fresh and v.shape == fresh[k].shape}
        self.parser.load_state_dict(fresh | fits)
        rest = "" if len(fits) == len(fresh) else "; the others start at random"
        print(f"{cfg.init}: {len(fits)} of {len(fresh)} tensors fit --net {cfg.net}{rest}")
        return history

    def rate(self) -> float:
        """Linear warm-up, then half a cosine down to 2 % of the peak."""
        done = min(self.share(), 1)
        warm = self.cfg.warmup
        fall = 0.02 + 0.49 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
        return self.cfg.lr * min((done + 1e-3) / warm, fall)

    def step(self, batch: dict):
        losses = loss_fn(*read_batch(self.parser, batch, self.device))
        self.descend(losses[0])
        return [v.item() for v in losses]

    def averaged(self) -> Parser:
        parser = Parser(self.parser.net).to(self.device, memory_format=torch.channels_last).eval()
        parser.load_state_dict(self.average)
        return parser

    def save(self, **info) -> None:
        weights = {k: v.cpu().half().numpy() for k, v in self.average.items()}
        info |= self.history(self.device)
        info |= {"images": self.steps * self.cfg.batch, "started_from": self.started_from}
        net = dataclasses.asdict(self.parser.net)
        artefact.write(self.cfg.out, weights, "nitrogen.parser/1", net=net, **info)


def before_adapting(run: ParserTraining, test, drawn: float):
    """(table of --init on the skins it is to adapt to, the batches that it was measured on); drawn:
    pairs that a process draws in a second."""
    cfg = run.cfg
    start = time.perf_counter()
    most = max(16, int(1.5 * drawn * cfg.minutes)) if cfg.minutes else cfg.validation
    seen = list(batches(test, 0, min(cfg.validation, most), 32))
    table = validate(load(shipped(cfg.init), run.device), seen, test.families, run.device)
    run.seconds += 2 * (time.perf_counter() - start)  # the same pairs again at the end
    print(f"{cfg.init}, on what it is to adapt to:")
    scores.print_table(table)
    return table, seen


def train(cfg: TrainConfig) -> None:
    if cfg.net not in NETS:
        raise SystemExit(f"--net {cfg.net}: expected one of {', '.join(NETS)}")
    expect(cfg, images=(1, 1e15), warmup=(1e-6, 0.99), ema=(0, 1))
    set_up(cfg)
    device = pick_device(cfg.device)
    data, test = synthetic.data_sets(cfg)
    own = len(data.own)
    templates = own + len(data.templates)
    held_out = 0 if own or cfg.everything else len(test.templates)
    drawn = synthetic.drawing_speed(data)
    tested = f"{own} of them to adapt to" if own else f"{held_out} held out"
    print(
        f"train parser {cfg.net} on {device}: {templates} templates, {tested}, "
        f"{len(data.photos)} frames of games, batches of {cfg.batch} pairs -> {cfg.out}\n{cfg}\n"
        f"one process draws {drawn:.0f} pairs of frames a second, "
        f"{cfg.images:,.0f} of them in {cfg.images / drawn / 3600:.1f} h"
    )
    run = ParserTraining(cfg, device)
    before = {}
    seen = []
    if own and run.started_from:  # a parser, not just an encoder
        before, seen = before_adapting(run, test, drawn)

    if not run.follow(data, ("loss", "buttons", "sticks", "visibility")):
        return
    seen = seen or batches(test, 0, cfg.validation, 32, cfg.workers)
    table = validate(run.averaged(), seen, test.families, device)
    print("the same now:" if before else f"on {len(test.templates)} templates ({tested}):")
    scores.print_table(table)
    run.save(templates=templates, held_out=held_out, figures=table, before=before)
    print(f"{cfg.out}: next: python parse.py VIDEO --weights {cfg.out}")


# ---- parsing a video -----------------------------------------------------------------------------


class OverlayReader:
    """The network on the frames of one video, which share what stands still."""

    def __init__(self, parser: Parser, overlay: dict, template, device: str):
        self.parser = parser
        self.device = device
        layout = render.layout(template)
        boxes, sticks, self.shown = matching.geometry(layout)
        self.elements = torch.from_numpy(self.shown[matching.ELEMENTS]).to(device)
        self.points = [torch.from_numpy(a)[None].to(device) for a in (boxes, sticks)]
        side = (synthetic.CROP, synthetic.CROP)
        medians = [cv2.resize(m, side, interpolation=cv2.INTER_AREA) for m in overlay["median"]]
        self.medians = np.stack(medians)
        looks = render.looks(layout["buttons"], lambda on: render.draw(template, on, np.zeros(4)))
        self.looks = torch.from_numpy(synthetic.crop_looks(looks))[None].to(device)
        self.places = None  # those that were prepared last
        self.prepared = ()

    def prepare(self, places):
        """What frames that show the overlay at these places share, in pairs [b, 2]."""
        if (places == places[0, 0]).all():
            places = places[:1]
        if not np.array_equal(places, self.places):
            median = torch.from_numpy(self.medians[places]).to(self.device)
            still = footage.still_input(median, self.looks.expand(len(median), -1, -1, -1, -1))
            self.prepared = self.parser.prepare(still, *self.points)
            self.places = places
        return self.prepared

    def pairs(self, frames):
        frames = rearrange(np.stack(frames), "(B t) ... -> B t ...", t=2)
        return torch.from_numpy(frames).to(self.device)

    def __call__(self, frames: list) -> dict:
        """An even number of frames of compared() -> arrays, a row per frame: buttons [n, 16];
        sticks [n, 4] in cells, by the network and by the matched filter `alone`; confidence [n],
        0 where most of the overlay is hidden; time [n] s."""
        seconds, places, crops, maps, marks, _ = zip(*frames, strict=True)
        maps = self.pairs(maps)
        with contextlib.nullcontext() if self.device == "cpu" else autocast(self.device):
            fixed = self.prepare(np.reshape(places, (-1, 2)))
            crops = footage.side_by_side(self.pairs(crops))
            buttons, heat, seen = self.parser.read(crops, maps, self.pairs(marks), *fixed)
        sticks, mass = matching.peak(heat)
        alone, _ = matching.peak(matching.GAIN * maps[..., 0, :, :].flatten(-2))
        buttons, visible = buttons.float().sigmoid(), seen.float().sigmoid()
        there = visible > 0.5
        sure = visible * torch.cat([(2 * buttons - 1).abs(), mass], -1)
        confidence = sure[..., self.elements].mean(-1)
        confidence *= there[..., self.elements].float().mean(-1) > 0.5
        found = {
            "buttons": buttons * there[..., :16],
            "sticks": (sticks * there[..., 16:, None]).flatten(-2),
            "alone": (alone * there[..., 16:, None]).flatten(-2),
            "confidence": confidence,
        }
        found = {key: value.flatten(0, 1).cpu().numpy() for key, value in found.items()}
        return found | {"time": np.array(seconds)}


@torch.no_grad()
def read_actions(
    parser: Parser, video, overlay: dict, template, device: str = "cpu"
) -> tuple[dict, dict]:
    """The tensors of a nitrogen.actions/1 file for one video, and how far what was read agrees with
    the frames, see Agreement.

    overlay: as artefact.read gives it; template: as render.stored does.

    One pass; of each frame only the answer is kept.  Frames that do not show the overlay: nothing
    pressed, confidence 0."""
    read = OverlayReader(parser, overlay, template, device)
    compare = matching.Agreement(template, 2)  # sticks by the network, and by the filter alone
    video = opened(video)
    count = video.frames
    every = max(1, count // AGREED)
    pairs = footage.in_pairs(footage.compared(video, overlay, template), BATCH)
    chunks = []
    done = 0
    with tqdm(total=count, desc=Path(video.path).name, unit="frame", leave=False) as bar:
        for frames, real in ahead(pairs):
            found = {key: value[:real] for key, value in read(frames).items()}
            for i in range(-done % every, real, every):
                if found["confidence"][i] > 0:
                    *_, marks, wide = frames[i]
                    sticks = (stick_axes(found[way][i]) for way in ("sticks", "alone"))
                    compare.add(wide, marks, found["buttons"][i] > 0.5, *sticks)
            chunks.append(found)
            done += real
            bar.update(real)
    out = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}
    agreement = prefer_the_filter(out, *map(compare.result, range(2)))
    there = footage.in_spans(overlay["span"], done, count) & (out["confidence"] > 0)
    actions = {
        "buttons": np.where(read.shown[:16] & there[:, None], out["buttons"], 0).astype(np.float16),
        "sticks": np.where(read.shown[16:] & there[:, None], out["sticks"], 0).astype(np.float32),
        "shown": read.shown,
        "confidence": (out["confidence"] * there).astype(np.float16),
        "time": out["time"],
    }
    return actions, agreement


def prefer_the_filter(out: dict, agreement: dict, alone: dict) -> dict:
    """Take a stick from the matched filter alone where that agrees at least as well: the network
    has met a skin that it cannot read.  Returns the agreement of what was taken."""
    for side, axes in (("LEFT", slice(0, 2)), ("RIGHT", slice(2, 4))):
        if alone.get(side, -1) >= agreement.get(side, 0):
            out["sticks"][:, axes] = out["alone"][:, axes]
            agreement[side] = alone[side]
    return agreement


def parse_video(video: str, cfg: Config) -> Path | None:
    """One video -> its actions file, and preview; None if it has no overlay, unless it is alone."""
    start = Path(cfg.out) / Path(video).stem
    source = Path(f"{start}.overlay.safetensors")
    target = Path(f"{start}.actions.safetensors")
    preview = Path(f"{start}.preview.mp4")
    if not Path(video).is_file():
        raise SystemExit(f"{video}: no such video")
    overlay, info, template = footage.read_overlay(source)
    if not template:
        reason = info.get("reason", "no reason given")
        line = f"{video}: skipped, no overlay was found in it ({reason})"
        if len(cfg.videos) == 1:
            raise SystemExit(line)
        return tqdm.write(line)
    recipe = recipe_of(cfg, video, source, shipped(cfg.weights))
    del recipe["weights"]  # its hash is among the sources
    if artefact.finished(target, "nitrogen.actions/1", recipe, cfg.fresh):
        tqdm.write(f"{target}: finished already")
    else:
        write_actions(video, target, overlay, info, template, recipe, cfg)
        preview.unlink(missing_ok=True)
    if cfg.preview and not preview.exists():
        write_preview(Video(video, True), artefact.read(target)[0], overlay, template, preview)
        tqdm.write(f"{preview}: what was read, beside the overlay")
    return target


def write_actions(video, target, overlay, info, template, recipe, cfg: Config) -> None:
    """Read a video, write its actions file, and say how far it can be trusted."""
    prepare_reading()
    device = pick_device(cfg.device)
    start = time.monotonic()
    parser = loaded(shipped(cfg.weights), device)
    film = Video(video, cfg.partial)
    actions, agreement = read_actions(parser, film, overlay, template, device)
    for note in film.notes:
        tqdm.write(f"{video}: {note}")
    fps = rate_of(actions["time"], film.fps)
    about = {"unit": "grid", "cells_per_radius": matching.UNIT, "fps": fps}
    about |= {"agreement": agreement} | {k: info[k] for k in ("template", "family", "layout")}
    artefact.write(target, actions, "nitrogen.actions/1", **about, recipe=recipe)
    name = info["template"]
    frames = len(actions["time"])
    seconds = time.monotonic() - start
    confidence = actions["confidence"].astype(np.float32)
    tqdm.write(
        f"{target}: {frames:,} frames in {seconds:.1f} s ({frames / seconds:.0f}/s), {name}, "
        f"confidence {confidence.mean():.3f}, agreement {np.median([*agreement.values()]):.2f}"
    )
    if doubts := artefact.doubtful(agreement, actions["buttons"][confidence > 0] > 0.5):
        tqdm.write(
            f"{video}: do not trust {' '.join(doubts)} as read with {name} (filter.py masks them); "
            "is that its skin?  Give the skin to extract.py (--templates DIR), or adapt the parser "
            "to it (parse.py train --templates DIR)"
        )


def main(cfg: Config) -> None:
    if cfg.videos:
        # fail before the work, not in it
        info = artefact.read(shipped(cfg.weights), "nitrogen.parser/1")[1]
        where = f"Ray ({cfg.ray})" if cfg.ray else pick_device(cfg.device)
        print(
            f"parse {len(cfg.videos)} video(s) on {where} with {cfg.weights} (trained on "
            f"{info.get('images', 0):,} pairs) -> {cfg.out}/<stem>.actions.safetensors"
        )
    parse_one = functools.partial(parse_video, cfg=cfg)
    gpus = int(cfg.device.startswith("cuda"))
    for_each(parse_one, cfg.videos, cfg.workers, ray=cfg.ray, gpus=gpus)


if __name__ == "__main__":
    smaller = "fewer --workers, or to train a smaller --batch"
    command_line(__doc__, {"": (Config, main), "train": (CONFIGS, train)}, smaller=smaller)
