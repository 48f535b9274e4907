"""Earlier frames: what a policy sees beside the last one, if its Config says frames > 1."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np

POOLED = 4  # CHOICE: the tokens of an earlier frame are averaged to 4 x 4


def of_rows(frames: int, stride: int, fps: float, rate: float) -> np.ndarray:
    """How many rows, of `fps` a second, each frame lies before the last: int64 [frames], the oldest
    first. stride: actions, of `rate` a second, from one to the next.
    """
    return max(1, round(stride * fps / rate)) * np.arange(frames)[::-1]


class History:
    """The frames of play, `fps` a second, as a policy takes them. about: fields of its Config."""

    def __init__(self, about: dict, fps: float):
        stride = about.get("frame_stride", 1)
        self.back = of_rows(about.get("frames", 1), stride, fps, about["rate"])
        self.seen = collections.deque(maxlen=int(self.back[0]) + 1)

    def __call__(self, frame):
        """uint8 [h, w, 3] -> the same if one is wanted, else [frames, h, w, 3]; before the first
        frame the first is repeated. Call it with every frame.
        """
        if len(self.back) == 1:
            return frame
        self.seen.append(frame.copy())
        last = len(self.seen) - 1
        return np.stack([self.seen[max(0, last - k)] for k in self.back])


def shape(c) -> tuple:
    """The axis of the frames in a batch of images: (frames,), or () for a single one."""
    return (c.frames,) if c.frames > 1 else ()


def with_past(x, time):
    """Tokens [B * T, N, D] of T frames, the oldest first -> [B, N + 16 (T - 1), D]: those of the
    last, then those of the earlier ones, averaged, each with the embedding of its time [T - 1, D].
    """
    import torch
    import torch.nn.functional as F
    from einops import rearrange

    x = rearrange(x, "(b t) n d -> b t n d", t=len(time) + 1)
    side = math.isqrt(x.shape[2])
    past = rearrange(x[:, :-1], "b t (h w) d -> (b t) d h w", h=side)
    past = rearrange(F.adaptive_avg_pool2d(past, POOLED), "(b t) d h w -> b t (h w) d", t=len(time))
    past = past + time[:, None].to(x.dtype)
    return torch.cat([x[:, -1], past.flatten(1, 2)], dim=1)


def extended(net, cfg):
    """A model.NitroGen that sees --frames; its times are new if it saw another number before. cfg:
    train.Config. SystemExit if it cannot be.
    """
    from torch import nn

    frames = cfg.frames or net.c.frames
    stride = cfg.frame_stride or net.c.frame_stride
    try:
        c = dataclasses.replace(net.c, frames=frames, frame_stride=stride)
    except ValueError as e:
        raise SystemExit(f"--{e}") from None
    if frames != net.c.frames:
        net.past = nn.Embedding(frames - 1, c.width) if frames > 1 else None
    net.c = c
    return net
