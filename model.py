"""model.py: NitroGen's network from scratch: ViT -> mixer -> diffusion transformer, trained by flow matching (paper section 3.2).

    python model.py bench --config tiny          latency and throughput of a preset on this machine
    python model.py --inspect FILE               what a checkpoint is

    net = model.load("runs/tiny/model.safetensors", device="auto")
    raw = net.sample(images)      images uint8 [B, h, w, 3] RGB -> float32 [B, K, A], the checkpoint's own layout, undecoded
    act = net.act(images)         dict: buttons bool [B, K, 16], sticks float32 [B, K, 4], y down

Files: *.safetensors of format nitrogen.policy/1: one float tensor per parameter; the metadata holds the Config, so
nothing else is needed to play.

Letters, here and in every other file: B batch, T video frames, N image tokens, K action-chunk length, A action
dimensions, D width, H heads, d width of a head, S denoising steps, R flow-matching draws per frame.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass

import sim  # before torch: it sets how OpenMP threads wait

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange


ACTIONS = sim.BUTTONS + sim.STICKS      # the layout of an action vector: 16 buttons, then 4 axes (paper 3.2)


@dataclass(frozen=True)
class Config:
    """One network.  Every tensor's shape follows from it and from the names of the actions."""
    image: int = 256                # side of the picture that is cut into patches, px
    patch: int = 16                 # side of a patch, px
    width: int = 1024               # D, the same in vision, mixer and DiT
    heads: int = 16                 # H
    vision_layers: int = 24         # SigLIP-2 large
    vision_mlp: float = 4.0         # hidden width of vision's MLPs, in D
    mixer_layers: int = 4           # self-attention over the image tokens
    dit_layers: int = 8             # even ones look at the image, odd ones at the actions
    horizon: int = 16               # K, actions in a chunk
    rate: float = 30.0              # actions per second
    shift: int = 1                  # rows from the seen frame to the first action
    positions: int = 1024           # rows of the action tokens' position table
    dropout: float = 0.2            # mixer and DiT (published)
    steps: int = 16                 # S, Euler steps
    buckets: int = 1000             # the network sees floor(t * buckets)
    predict: str = "velocity"       # what the last layer gives: the velocity (published), or the action itself

    @property
    def tokens(self) -> int:        # N
        return (self.image // self.patch) ** 2


@dataclass(frozen=True)
class Bench(Config, sim.Common):
    """Flags of `bench`: a network, and where to run it."""


CONFIGS = {
    "tiny": Config(image=64, patch=8, width=128, heads=4, vision_layers=3, mixer_layers=1, dit_layers=4, positions=16, dropout=0.0,
                   predict="action"),
    "small": Config(width=384, heads=6, vision_layers=8, mixer_layers=2, dit_layers=6, positions=16, dropout=0.1, predict="action"),
    "paper": Config(),
}


# ---- layers -------------------------------------------------------------------------------------------------

class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over H heads; keys and values may be given, made once from another sequence."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def keys_values(self, context):                                          # [B, N, D] -> 2 x [B, H, N, d]
        return tuple(rearrange(f(context), "b n (h d) -> b h n d", h=self.heads) for f in (self.k, self.v))

    def forward(self, x, kv=None):                                           # x [B, M, D]
        q = rearrange(self.q(x), "b m (h d) -> b h m d", h=self.heads)
        k, v = kv or self.keys_values(x)
        if x.is_cuda:
            y = F.scaled_dot_product_attention(q, k, v)                      # [B, H, M, d]
        else:                                                                # the formula itself is faster on a CPU: sequences are short
            y = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype) @ v
        return self.out(rearrange(y, "b h m d -> b m (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)).

    adaptive: norm1 has no parameters of its own; its scale and shift come from the time embedding (AdaLN without a gate),
    and norm2 has none at all.  Dropout stands twice on the attention's output, as in the released network.
    """

    def __init__(self, width: int, heads: int, eps: float, dropout: float = 0.0, adaptive: bool = False, mlp: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.norm2 = nn.LayerNorm(width, eps=eps, elementwise_affine=not adaptive)
        self.ada = nn.Linear(width, 2 * width) if adaptive else None         # SiLU(time) -> scale, shift
        self.attn = Attention(width, heads)
        self.fc1, self.fc2 = nn.Linear(width, int(mlp * width)), nn.Linear(int(mlp * width), width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, kv=None, modulation=None):
        n = self.norm1(x)
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=-1)                       # this order: scale first
            n = n * (1 + scale) + shift
        x = x + self.drop(self.drop(self.attn(n, kv)))
        return x + self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))))


class Vision(nn.Module):
    """SigLIP-style ViT (arXiv 2303.15343): patches, learned positions, pre-norm blocks, no class token."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.patch = nn.Conv2d(3, c.width, c.patch, stride=c.patch)
        self.position = nn.Embedding(c.tokens, c.width)
        self.blocks = nn.ModuleList(Block(c.width, c.heads, eps=1e-6, mlp=c.vision_mlp) for _ in range(c.vision_layers))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def forward(self, pixels):                                               # [B, 3, image, image] in [-1, 1]
        x = rearrange(self.patch(pixels), "b d h w -> b (h w) d") + self.position.weight
        for block in self.blocks:
            x = block(x)
        return self.norm(x)                                                  # [B, N, D]


def sinusoid(t, channels: int, divisor: float, cos_first: bool):
    """[M] -> [M, channels]: cosines and sines of t * 10000^(-i / divisor), i = 0 .. channels / 2 - 1, in float32."""
    freq = torch.exp(-math.log(1e4) * torch.arange(channels // 2, device=t.device, dtype=torch.float32) / divisor)
    angle = t.float()[:, None] * freq
    return torch.cat([angle.cos(), angle.sin()] if cos_first else [angle.sin(), angle.cos()], dim=-1)


# ---- the network --------------------------------------------------------------------------------------------

class NitroGen(nn.Module):
    """One frame in, K actions out (paper section 3.2, figure 4).

    `actions` names the A values of an action vector, in order: buttons are 0 or 1, axes are mapped from [-1, 1] to [0, 1].
    """

    def __init__(self, c: Config, actions: tuple[str, ...] = ACTIONS):
        super().__init__()
        self.c, self.actions, D, A = c, actions, c.width, len(actions)
        self.vision = Vision(c)
        self.mixer = nn.ModuleList(Block(D, c.heads, eps=1e-5, dropout=c.dropout) for _ in range(c.mixer_layers))
        self.time1, self.time2 = nn.Linear(256, D), nn.Linear(D, D)
        self.encode_action, self.encode_time, self.encode_out = nn.Linear(A, D), nn.Linear(2 * D, D), nn.Linear(D, D)
        self.position = nn.Embedding(c.positions, D)
        self.dit = nn.ModuleList(Block(D, c.heads, eps=1e-5, dropout=c.dropout, adaptive=True) for _ in range(c.dit_layers))
        self.norm_out = nn.LayerNorm(D, eps=1e-6, elementwise_affine=False)
        self.ada_out, self.out = nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.decode1, self.decode2 = nn.Linear(D, D), nn.Linear(D, A)
        self.apply(initialize)
        for linear in [b.ada for b in self.dit] + [self.ada_out]:            # start as plain LayerNorms
            nn.init.zeros_(linear.weight)

    def pixels(self, images):                                                # uint8 [B, h, w, 3] -> [B, 3, image, image]
        """Area-average to the model's size (as cv2.INTER_AREA for whole factors), scale to [-1, 1]."""
        x = rearrange(images, "b h w c -> b c h w").to(self.position.weight.dtype)
        if x.shape[-2:] != (self.c.image, self.c.image):
            x = F.interpolate(x, (self.c.image, self.c.image), mode="area")
        return x / 127.5 - 1

    def context(self, pixels):                                               # [B, 3, image, image] -> L/2 x (k, v)
        """What the actions will look at: vision, mixer, then keys and values of every cross-attending block."""
        x = self.vision(pixels)
        for block in self.mixer:
            x = block(x)
        return [block.attn.keys_values(x) for block in self.dit[::2]]        # even blocks cross-attend

    def timing(self, bucket):                                                # int [M] -> [M, 1, D], L+1 x [M, 1, 2D], [M, 1, 1]
        """All that depends on time alone: the actions' time embedding, the modulation of every norm, and 1 - t."""
        dtype = self.position.weight.dtype
        tau = sinusoid(bucket, self.c.width, self.c.width / 2, cos_first=False).to(dtype)
        emb = self.time2(F.silu(self.time1(sinusoid(bucket, 256, 127, cos_first=True).to(dtype))))
        left = (1 - bucket.to(dtype) / self.c.buckets).clamp(min=0.05)
        return tau[:, None], [f(F.silu(emb))[:, None] for f in [b.ada for b in self.dit] + [self.ada_out]], left[:, None, None]

    def velocity(self, noisy, timing, context):                              # [B, K, A] -> [B, K, A]
        tau, modulation, left = timing
        x = self.encode_action(noisy)
        x = torch.cat([x, tau.expand_as(x)], dim=-1)                         # [B, K, 2D]
        x = self.encode_out(F.silu(self.encode_time(x)))
        x = x + self.position.weight[: x.shape[1]]
        for i, block in enumerate(self.dit):
            x = block(x, context[i // 2] if i % 2 == 0 else None, modulation[i])
        shift, scale = modulation[-1].chunk(2, dim=-1)                       # this order: shift first
        x = self.out(self.norm_out(x) * (1 + scale) + shift)
        x = self.decode2(F.relu(self.decode1(x)))
        # DEVIATION, a switch: a network that gives the action need not carry the noise through; v = (action - a_t) / (1 - t)
        # follows from the two equations below.  The idea: Li and He, arXiv 2511.13720.
        return x if self.c.predict == "velocity" else (x - noisy) / left

    # ---- flow matching (arXiv 2210.02747; paper section 3.2) --------------------------------------- yours to change
    #   a_t = (1 - t) noise + t action        a straight line from noise (t = 0) to data (t = 1)
    #   v   = action - noise                  its velocity, which the network learns by squared error
    #   t   = 0.999 (1 - Beta(1.6, 0.8))      mostly the noisy end, where the decision is made

    def loss(self, pixels, actions, mask, t=None, noise=None, draws: int = 1):
        """Mean squared error of the velocity over the entries that `mask` allows.

        pixels [B, 3, image, image] in [-1, 1]; actions [B, K, A] in [0, 1]; mask [B, K, A] or broadcastable, 0 or 1.
        draws: R (noise, t) pairs per frame, so that the costly vision part serves R of them.  t [B * R], noise
        [B * R, K, A]: for tests.  Returns a scalar.
        """
        context = [(k.repeat_interleave(draws, 0), v.repeat_interleave(draws, 0)) for k, v in self.context(pixels)]
        actions, mask = actions.repeat_interleave(draws, 0), mask.expand_as(actions).repeat_interleave(draws, 0)
        if t is None:
            t = 0.999 * (1 - torch.distributions.Beta(1.6, 0.8).sample((len(actions),)).to(actions))
            noise = torch.randn_like(actions)
        noisy = torch.lerp(noise, actions, t[:, None, None])                 # a_t
        timing = self.timing((t * self.c.buckets).long())
        error = self.velocity(noisy, timing, context).float() - (actions - noise)
        if self.c.predict == "action":
            error = error * timing[-1]                                       # the error of the action: early t decide, not late ones
        return (mask * error ** 2).sum() / (mask.sum() + 1e-6)

    @torch.no_grad()
    def sample(self, images, noise=None, steps: int | None = None):
        """Denoise one chunk per image by S Euler steps: a <- a + v / S at t = 0, 1/S, ..., 1 - 1/S.

        images uint8 [B, h, w, 3] RGB, tensor or array, any size; noise float [B, K, A], drawn if None.
        Returns float32 [B, K, A].  Vision, keys, values and all modulations are computed once.
        """
        images, S = self.checked(images), steps or self.c.steps
        a = torch.randn(len(images), self.c.horizon, len(self.actions), device=images.device) if noise is None else noise
        a = torch.as_tensor(a, device=images.device).to(self.position.weight.dtype)
        if not torch.isfinite(a).all():
            raise ValueError("noise must be finite")
        context = self.context(self.pixels(images))
        bucket = torch.tensor([int(i / S * self.c.buckets) for i in range(S)], device=images.device)
        tau, modulation, left = self.timing(bucket)
        for i in range(S):
            a = a + self.velocity(a, (tau[i], [m[i] for m in modulation], left[i]), context) / S
        return a.float()

    # ---- actions by name

    def act(self, images, noise=None, steps: int | None = None) -> dict:
        """`sample`, decoded: buttons bool [B, K, 16] (> 0.5), sticks float32 [B, K, 4] in [-1, 1], y down; numpy."""
        raw = self.sample(images, noise, steps).cpu().numpy()
        buttons, sticks = (raw[..., [self.actions.index(n) for n in names]] for names in (sim.BUTTONS, sim.STICKS))
        return {"buttons": buttons > 0.5, "sticks": np.clip(2 * sticks - 1, -1, 1)}

    def checked(self, images):
        images = torch.as_tensor(images)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.numel():
            raise ValueError(f"images must be uint8 [B, h, w, 3] RGB, found {images.dtype} {list(images.shape)}")
        return images.to(self.position.weight.device)


def encode(buttons, sticks):
    """Buttons 0/1 [..., 16] and axes in [-1, 1] [..., 4] -> action vectors in [0, 1] [..., A]."""
    return torch.cat([buttons.float(), (sticks.float() + 1) / 2], dim=-1)


def initialize(m):
    """Unit variance through every layer, positions included (std 0.02 would hide them beside the pixels for a long time)."""
    if isinstance(m, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(m.weight, std=m.weight[0].numel() ** -0.5)
        nn.init.zeros_(m.bias)
    elif isinstance(m, nn.Embedding):
        nn.init.normal_(m.weight)


# ---- checkpoints --------------------------------------------------------------------------------------------

def save(path, state: dict, net: NitroGen, half: bool = False, **info) -> None:
    """Write `state` (name -> tensor) of `net` as a nitrogen.policy/1 file; `half`: float16, for shipping."""
    tensors = {k: v.detach().cpu().to(torch.float16 if half else torch.float32).numpy() for k, v in state.items()}
    sim.write(path, tensors, "nitrogen.policy/1", model=dataclasses.asdict(net.c), actions=list(net.actions), **info)


def load(path, device: str = "auto") -> NitroGen:
    """A network ready to play, in float32 and eval mode.  SystemExit with one line if the file does not fit itself."""
    tensors, info = sim.read(path, "nitrogen.policy/1")
    try:
        net = NitroGen(Config(**info["model"]), tuple(info["actions"]))
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as e:
        raise SystemExit(f"{path}: its model config cannot be used ({type(e).__name__}: {e})") from None
    if missing := set(ACTIONS) - set(net.actions):
        raise SystemExit(f"{path}: its action layout lacks {', '.join(sorted(missing))}")
    wanted = net.state_dict()
    for name in sorted({*wanted, *tensors}):
        found = list(tensors[name].shape) if name in tensors else "nothing"
        expected = list(wanted[name].shape) if name in wanted else "nothing"
        if found != expected:
            raise SystemExit(f"{path}: tensor '{name}': expected {expected}, found {found}")
    net.load_state_dict({k: torch.from_numpy(v).float() for k, v in tensors.items()})
    return net.to(sim.pick_device(device)).eval()


# ---- bench --------------------------------------------------------------------------------------------------

def bench(c: Bench) -> None:
    """Parameters, chunk latency and training throughput of a preset on this machine."""
    sim.keep_memory()
    device = torch.device(sim.pick_device(c.device))
    torch.manual_seed(c.seed)
    net = NitroGen(c).to(device)
    count = sum(p.numel() for p in net.parameters())
    print(f"{count:,} parameters, {c.tokens} image tokens, chunks of {c.horizon} x {len(ACTIONS)}, "
          f"{device}, {torch.get_num_threads()} threads")
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(f, n):
        f(), sync()
        start = time.perf_counter()
        for _ in range(n):
            f()
        sync()
        return (time.perf_counter() - start) / n

    frames = torch.randint(0, 256, (16, 256, 256, 3), dtype=torch.uint8, device=device)
    net.eval()
    for B, steps in ((1, 16), (1, 4), (16, 16)):
        s = timed(lambda: net.sample(frames[:B], steps=steps), 5)
        print(f"  sample  batch {B:2d}, {steps:2d} steps: {1e3 * s:8.2f} ms")
    actions = torch.rand(16, c.horizon, len(ACTIONS), device=device)

    def step():
        with sim.autocast(device.type):
            net.loss(net.pixels(frames), actions, torch.ones(1, device=device)).backward()

    net.train()
    print(f"  train   batch 16, bf16   : {16 / timed(step, 3):8.1f} frames/s, forward and backward")


def main(argv=None):
    sim.command_line(__doc__, {"bench": ({k: Bench(**dataclasses.asdict(c)) for k, c in CONFIGS.items()}, bench)}, argv)


if __name__ == "__main__":
    main()
