"""model.py: NitroGen's network from scratch: ViT -> mixer -> diffusion transformer, trained by flow
matching (paper section 2.3).

    python model.py bench --config tiny
        latency, GFLOP, share of the machine's peak, memory; any preset, any device
    python model.py convert ng.pt ng.safetensors
        the released checkpoint, for everything that follows
    python model.py export ng.safetensors ng.pt
        and back, tensor for tensor; also what train.py made
    python model.py export runs/tiny/model.safetensors policy.safetensors
        in float16, for shipping
    python model.py export runs/tiny/model.safetensors policy.onnx
        for play without torch: any number of denoising steps, or --steps 4 unrolled
    python model.py --inspect FILE
        config, parameters per part, action layout; of either kind

    net = model.load("runs/tiny/model.safetensors", device="auto")      or "ng.safetensors"
    raw = net.sample(images)
        images uint8 [B, h, w, 3] RGB -> float32 [B, K, A], in its own layout, undecoded
    act = net.act(images)
        dict: buttons bool [B, K, 16], sticks float32 [B, K, 4], y down, by name

Files: *.safetensors of format nitrogen.policy/1: one float tensor per parameter; the metadata holds
the Config, so nothing else is needed to play.

Letters, here and in every other file: B batch, T video frames, N image tokens, K action-chunk
length, A action dimensions, D width, H heads, d width of a head, S denoising steps, R flow-matching
draws per frame.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common import artefact, layout, playing, policy_file, policy_input
from common.command_line import command_line, wing
from common.device import accelerate, pick_device
from common.history import with_past
from common.policy_file import RELEASED

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from einops import rearrange

ACTIONS = artefact.BUTTONS + artefact.STICKS  # what the values of an action vector are (paper 2.3)


@dataclass(frozen=True)
class Config:
    """One network, by default the paper's; every tensor's shape follows from it. ValueError if no
    network can have these values.
    """

    actions: tuple[str, ...] = ACTIONS  # names of the A values of an action vector
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
    positions: int = 1024  # rows of the action tokens' position table, at least K
    dropout: float = 0.2  # mixer and DiT (published)
    alpha: float = 1.6  # t = t_max (1 - Beta(alpha, beta)) (published)
    beta: float = 0.8
    t_max: float = 0.999
    steps: int = 16  # S, Euler steps
    buckets: int = 1000  # the network sees floor(t * buckets)
    predict: str = "velocity"  # the last layer's output: velocity (published), or action
    frames: int = 1  # seen, the last and earlier ones (published: 1), see common/history.py
    frame_stride: int = 8  # actions from one of them to the next
    prefix: int = 0  # actions under way that a chunk may begin with (0: none, published)

    def __post_init__(self):
        policy_file.check_config(self)

    @property
    def tokens(self) -> int:  # N
        return (self.image // self.patch) ** 2


LITE = dict(head_width=32, mixer_layers=1, dit_layers=4, positions=16, predict="action")
CONFIGS = {
    # DEVIATION: t is uniform. In a short training on mostly noise, buttons that are tapped fast
    # come out as their mean, and are never pressed.
    "tiny": Config(image=64, width=128, vision_layers=3, dropout=0.0, alpha=1.0, beta=1.0, **LITE),
    "small": Config(image=128, patch=8, width=192, vision_layers=6, dropout=0.1, **LITE),
    "paper": Config(),
    "released": Config(actions=RELEASED, horizon=18, rate=60.0, shift=3),
}


# ---- layers --------------------------------------------------------------------------------------


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over H heads.

    cross: the keys and values come from the image tokens, else from the sequence itself.
    """

    def __init__(self, width: int, d: int, cross: bool = False):
        super().__init__()
        self.d = d
        self.cross = cross
        self.out = nn.Linear(width, width)
        if cross:
            self.q = nn.Linear(width, width)
            self.kv = nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)

    def split(self, x, n: int):  # [B, M, n D] -> n x [B, H, M, d]
        return rearrange(x, "b m (n h d) -> n b h m d", n=n, d=self.d).unbind()

    def keys_values(self, image):  # [B, N, D] -> 2 x [B, H, N, d]; nothing for self-attention
        return self.split(self.kv(image), 2) if self.cross else ()

    def forward(self, x, kv=()):  # [B, M, D] -> [B, M, D]
        if self.cross:
            (q,) = self.split(self.q(x), 1)
            k, v = kv
        else:
            q, k, v = self.split(self.qkv(x), 3)
        if x.is_cuda or not torch.is_grad_enabled():
            y = F.scaled_dot_product_attention(q, k, v)  # [B, H, M, d]
        else:  # on a CPU the formula itself has the faster backward pass
            y = (q @ k.transpose(-1, -2) * self.d**-0.5).softmax(dim=-1).to(v.dtype) @ v
        return self.out(rearrange(y, "b h m d -> b m (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)).

    adaptive: norm1 takes its scale and shift from the time embedding (AdaLN without a gate), and
    norm2 has neither. Dropout stands twice on the attention's output, as in the released network.
    """

    def __init__(self, width, d, eps, dropout=0.0, mlp=4.0, adaptive=False, cross=False):
        super().__init__()
        hidden = round(mlp * width)
        self.norm1 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.ada = nn.Linear(width, 2 * width) if adaptive else None  # SiLU(time) -> scale, shift
        self.attn = Attention(width, d, cross)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.gelu = nn.GELU(approximate="tanh")
        self.drop = nn.Dropout(dropout)

    def forward(self, x, kv=(), modulation=None):
        n = self.norm1(x)
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=-1)  # this order: scale first
            n = n * (1 + scale) + shift
        x = x + self.drop(self.drop(self.attn(n, kv)))
        return x + self.drop(self.fc2(self.drop(self.gelu(self.fc1(self.norm2(x))))))


class Vision(nn.Module):
    """SigLIP's ViT (arXiv 2303.15343): patches, learned positions, blocks, no class token."""

    def __init__(self, c: Config):
        super().__init__()
        self.patch = nn.Conv2d(3, c.width, c.patch, stride=c.patch)
        self.position = nn.Embedding(c.tokens, c.width)
        self.blocks = nn.ModuleList(
            Block(c.width, c.head_width, eps=1e-6, mlp=c.vision_mlp) for _ in range(c.vision_layers)
        )
        self.norm = nn.LayerNorm(c.width, eps=1e-6)


def sinusoid(t, channels: int, divisor: float, cos_first: bool):
    """[M] -> float32 [M, channels]: all cosines, then all sines (or the other way round) of
    t * 10000^(-i / divisor), i = 0 .. channels / 2 - 1.
    """
    i = torch.arange(channels // 2, device=t.device, dtype=torch.float32)
    angle = t.float()[:, None] * torch.exp(-math.log(1e4) * i / divisor)
    parts = [angle.cos(), angle.sin()] if cos_first else [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1)


# ---- the network ---------------------------------------------------------------------------------


class Timing(NamedTuple):
    """What depends on time alone, at M times: computed once for all steps of the sampler. The 1 is
    K where tokens have times of their own.
    """

    tau: torch.Tensor  # [M, 1, D], the time embedding that the action tokens carry
    modulation: list[torch.Tensor]  # per DiT block [M, 1, 2D]: scale and shift of its first norm
    modulation_out: torch.Tensor  # [M, 1, 2D]: shift and scale of the last norm
    remaining: torch.Tensor  # [M, 1, 1]: 1 - t, at least 0.05

    def at(self, i: int) -> Timing:
        modulation = [m[i] for m in self.modulation]
        return Timing(self.tau[i], modulation, self.modulation_out[i], self.remaining[i])


class NitroGen(nn.Module):
    """One frame in, K actions out (paper section 2.3, figure 4).

    An action vector follows c.actions: buttons are 0 or 1, axes are mapped from [-1, 1] to [0, 1].
    `recompute`: blocks keep no activations for the backward pass but compute them again (less
    memory, a third more work).
    """

    recompute = False

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        D = c.width
        d = c.head_width
        self.vision = Vision(c)
        self.past = nn.Embedding(c.frames - 1, D) if c.frames > 1 else None  # times of earlier ones
        self.mixer = nn.ModuleList(Block(D, d, 1e-5, c.dropout) for _ in range(c.mixer_layers))
        self.time1 = nn.Linear(256, D)
        self.time2 = nn.Linear(D, D)
        self.encode_action = nn.Linear(len(c.actions), D)
        self.encode_time = nn.Linear(2 * D, D)
        self.encode_out = nn.Linear(D, D)
        self.position = nn.Embedding(c.positions, D)
        self.dit = nn.ModuleList(
            Block(D, d, 1e-5, c.dropout, adaptive=True, cross=i % 2 == 0)
            for i in range(c.dit_layers)
        )
        self.norm_out = nn.LayerNorm(D, eps=1e-6, elementwise_affine=False)
        self.ada_out = nn.Linear(D, 2 * D)
        self.out = nn.Linear(D, D)
        self.decode1 = nn.Linear(D, D)
        self.decode2 = nn.Linear(D, len(c.actions))
        self.apply(initialize)
        for ada in (*(block.ada for block in self.dit), self.ada_out):
            nn.init.zeros_(ada.weight)  # AdaLN starts as a plain LayerNorm

    @property
    def dtype(self):
        return self.vision.patch.weight.dtype

    def run(self, block, *inputs):
        if self.recompute and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def context(self, pixels):  # [B, 3, image, image] in [-1, 1], or [B, frames, 3, image, image]
        """What the actions look at, computed once per frame: for each DiT block the keys and values
        of the image, 2 x [B, H, N, d], or () where the block looks at the actions.
        """
        x = rearrange(
            self.vision.patch(pixels.to(self.dtype).flatten(0, -4)), "b d h w -> b (h w) d"
        )
        x = x + self.vision.position.weight
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.vision.parameters())
        with torch.set_grad_enabled(learns):  # a frozen encoder runs as it does in play
            for block in self.vision.blocks:
                x = self.run(block, x)
        x = self.vision.norm(x)  # [B, N, D]
        x = x if self.past is None else with_past(x, self.past.weight)
        for block in self.mixer:
            x = self.run(block, x)
        return [block.attn.keys_values(x) for block in self.dit]

    def timing(self, bucket, given=None) -> Timing:  # int [M], floor(t * buckets)
        """given: bool [M, K, 1] or [K, 1], tokens that are at t = 1 in any case."""
        if given is not None:
            bucket = F.pad(bucket, (0, 1), value=self.c.buckets)  # one more time: t = 1

        def of_tokens(x):  # [M, D] -> [M, 1, D]; [M + 1, D] -> [M, K, D]
            return x[:, None] if given is None else torch.where(given, x[-1:, None], x[:-1, None])

        tau = sinusoid(bucket, self.c.width, self.c.width / 2, cos_first=False).to(self.dtype)
        emb = self.time1(sinusoid(bucket, 256, 127, cos_first=True).to(self.dtype))
        emb = F.silu(self.time2(F.silu(emb)))
        modulation = [of_tokens(block.ada(emb)) for block in self.dit]
        modulation_out = of_tokens(self.ada_out(emb))
        remaining = of_tokens((1 - bucket.float() / self.c.buckets).clamp(min=0.05)[:, None])
        return Timing(of_tokens(tau), modulation, modulation_out, remaining)

    def prediction(self, noisy, timing: Timing, context):
        """The DiT from end to end: noisy actions [B, K, A] -> what c.predict names [B, K, A]."""
        x = self.encode_action(noisy.to(self.dtype))
        x = torch.cat([x, timing.tau.expand_as(x)], dim=-1)  # [B, K, 2D]
        x = self.encode_out(F.silu(self.encode_time(x)))  # [B, K, D]
        x = x + self.position.weight[: x.shape[1]]
        for block, kv, modulation in zip(self.dit, context, timing.modulation, strict=True):
            x = self.run(block, x, kv, modulation)
        shift, scale = timing.modulation_out.chunk(2, dim=-1)  # this order: shift first
        x = self.out(self.norm_out(x) * (1 + scale) + shift)
        return self.decode2(F.relu(self.decode1(x))).to(noisy.dtype)

    # ---- flow matching (arXiv 2210.02747; paper section 2.3): yours to change --------------------
    #   a_t = (1 - t) noise + t action      a straight line from noise (t = 0) to data (t = 1)
    #   v   = action - noise                its velocity, which the network learns by squared error
    #   t   = 0.999 (1 - Beta(1.6, 0.8))    mostly the noisy end, where the decision is made
    #
    # DEVIATION, a switch: with predict "action" the last layer gives the action x, so the network
    # need not carry the noise through (Li and He, arXiv 2511.13720). From the equations above:
    #   v   = (x - a_t) / (1 - t)           and the error of x is the error of v times 1 - t
    #
    # DEVIATION, a switch: with `prefix` the first actions of some chunks are given, at t = 1, and
    # only the others learned and denoised: those under way meanwhile (arXiv 2512.05964).

    def velocity(self, noisy, timing: Timing, context):  # [B, K, A] -> [B, K, A]
        x = self.prediction(noisy, timing, context)
        return x if self.c.predict == "velocity" else (x - noisy) / timing.remaining

    def first(self, count):  # int [M, 1] or a number -> bool [M, K, 1] or [K, 1]
        return (torch.arange(self.c.horizon, device=self.position.weight.device) < count)[..., None]

    def loss(self, images, actions, mask, t=None, noise=None, draws: int = 1):
        """Mean squared error of the velocity over the entries that `mask` allows: a scalar.

        images uint8 [B, h, w, 3], or float [B, 3, image, image] in [-1, 1] as augmentation leaves
        them; actions [B, K, A] in [0, 1]; mask 0 or 1, broadcastable to it. draws: R pairs (noise,
        t) per frame, so that the costly vision part serves R of them. t [B * R] and noise [B * R,
        K, A]: for tests. A prefix is given in training mode only, so that validation compares.
        """
        pixels = self.pixels(images) if images.dtype == torch.uint8 else images
        context = repeat(self.context(pixels), draws)
        mask = mask.expand_as(actions).repeat_interleave(draws, 0)
        actions = actions.repeat_interleave(draws, 0)  # [B * R, K, A]
        if t is None:
            beta = torch.distributions.Beta(self.c.alpha, self.c.beta)
            t = self.c.t_max * (1 - beta.sample((len(actions),)).to(actions))
            noise = torch.randn_like(actions)
        noisy = torch.lerp(noise, actions, t[:, None, None])  # a_t
        given = None
        if self.c.prefix and self.training:  # each number of given actions is as likely
            given = self.first(torch.randint(self.c.prefix + 1, (len(t), 1), device=t.device))
            noisy = torch.where(given, actions, noisy)
            mask = mask * ~given
        timing = self.timing((t * self.c.buckets).long(), given)
        error = self.velocity(noisy, timing, context) - (actions - noise)
        if self.c.predict == "action":
            error = error * timing.remaining  # of the action: early t decide, not late ones
        return (mask * error**2).sum() / (mask.sum() + 1e-6)

    forward = loss  # DDP calls forward

    def denoise(self, pixels, a, S: int, given: int = 0):
        """S Euler steps from noise `a` to actions: a <- a + v / S at t = 0, 1/S, ..., 1 - 1/S. The
        first `given` of `a` are actions already, and stay.
        """
        known = self.first(given) if given else None
        context = self.context(pixels)
        bucket = torch.arange(S, device=a.device) * self.c.buckets // S  # floor(t * buckets)
        timing = self.timing(bucket, known)
        for i in range(S):
            v = self.velocity(a, timing.at(i), context)
            a = a + (v if known is None else v.masked_fill(known, 0)) / S
        return a

    # ---- playing ---------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, images, noise=None, steps: int | None = None, given=None):
        """Denoise one chunk per image: float32 [B, K, A], about 0..1.

        images uint8 [B, h, w, 3] RGB, tensor or array, any size; with c.frames > 1 [B, frames, h,
        w, 3], the oldest first; noise float [B, K, A], drawn if None; steps: S, the checkpoint's
        own if None; given: the first actions, under way already, float [B, 0 .. prefix, A] as
        `encode` makes them. ValueError for anything else.
        """
        device = self.vision.patch.weight.device
        images, a, S, d = policy_input.checked(self.c, images, noise, steps, given, device)
        pixels = self.pixels(images.to(device))
        return self.denoise(pixels, a.to(pixels), S, d).float()

    def act(self, images, noise=None, steps: int | None = None, given=None) -> dict:
        """`sample`, decoded: numpy buttons bool [B, K, 16], sticks float32 [B, K, 4] in [-1, 1]."""
        return self.decode(self.sample(images, noise, steps, given).cpu().numpy())

    def decode(self, raw) -> dict:
        """Raw actions [..., A] -> the pad's 16 buttons (> 0.5) and 4 axes, by name."""
        return layout.decode(raw, self.c.actions)

    def pixels(self, images):
        """uint8 [..., h, w, 3] -> [..., 3, image, image] in [-1, 1], resized as officially."""
        if images.shape[-3:-1] != (self.c.image, self.c.image):
            pictures = policy_file.resized(images.cpu().numpy(), self.c.image)
            images = torch.from_numpy(pictures).to(images.device)
        x = rearrange(images, "... h w c -> ... c h w")
        return x.to(torch.promote_types(self.dtype, torch.float32)) / 127.5 - 1


def repeat(context, draws: int):
    """A context of B frames -> of B * R, each frame R times in a row."""
    return [[x.repeat_interleave(draws, 0) for x in kv] for kv in context]


def encode(buttons, sticks, actions=ACTIONS):
    """Buttons 0/1 [..., 16], axes in [-1, 1] [..., 4] -> [..., A] in [0, 1]; absent names are 0."""
    ours = torch.cat([buttons.float(), (sticks.float() + 1) / 2], dim=-1)
    values = dict(zip(ACTIONS, ours.unbind(-1), strict=True))
    absent = torch.zeros_like(values["START"])
    return torch.stack([values.get(name, absent) for name in actions], dim=-1)


def initialize(m):
    """Unit variance through every layer, and in positions: 0.02 would hide them beside pixels."""
    if isinstance(m, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(m.weight, std=m.weight[0].numel() ** -0.5)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Embedding):
        nn.init.normal_(m.weight)


# ---- files ---------------------------------------------------------------------------------------


def save(path, state: dict, net: NitroGen, half: bool = False, **info) -> None:
    """Write `state` (name -> tensor) as a nitrogen.policy/1 file; half: float16, for shipping."""
    dtype = torch.float16 if half else torch.float32
    tensors = {name: v.detach().cpu().to(dtype).numpy() for name, v in state.items()}
    artefact.write(path, tensors, "nitrogen.policy/1", model=dataclasses.asdict(net.c), **info)


def load(path, device: str = "auto", dtype: str = "float32", fast: bool = False) -> NitroGen:
    """A network ready to play, in eval mode, from what train.py or `convert` wrote.

    dtype: float32, bfloat16 or float64, of the weights and of the arithmetic. fast: see accelerate.
    SystemExit with one line if the file does not fit itself.
    """
    net, tensors, _ = read_policy(path)
    state = {name: torch.from_numpy(tensors[name]).float() for name in net.state_dict()}
    net.load_state_dict(state, assign=True)
    net = net.to(pick_device(device), getattr(torch, dtype)).eval()
    return accelerate(net) if fast else net


def read_policy(path, base: str = ""):
    """A policy file, checked against itself: network without weights, arrays, metadata."""
    return policy_file.read(path, lambda fields, count: skeleton(Config(**fields), count), base)


def skeleton(c: Config, tensors: int) -> NitroGen:
    """The network on torch's meta device. ValueError if so many tensors cannot be its layers."""
    if c.vision_layers + c.mixer_layers + c.dit_layers > tensors:
        raise ValueError(f"more layers than the {tensors} tensors of the file")
    with torch.device("meta"):
        return NitroGen(c)


def inspect(path) -> None:
    """Print config, parameters and action layout of either kind of checkpoint; or any artefact."""
    if Path(path).suffix in (".pt", ".pth"):
        policy_file.describe(path, *wing("interop.checkpoint").unpack(path))
    elif Path(path).suffix == ".onnx":
        playing.show(path)
    elif artefact.read(path)[1].get("format") == "nitrogen.policy/1":
        policy_file.describe(path, *read_policy(path))
    else:
        artefact.show(path)


def main(argv=None):
    commands = {name: f"interop.checkpoint:{name}" for name in ("convert", "export")}
    command_line(__doc__, {"bench": "bench.flops", **commands}, argv, inspect)


if __name__ == "__main__":
    main()
