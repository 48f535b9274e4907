"""Where torch computes, and in which numbers."""

from __future__ import annotations

import ctypes

import torch
from torch import nn


def pick_device(name: str) -> str:
    """auto -> cuda, mps or cpu, whichever is there; an explicit one is checked."""
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(d for d, ok in there.items() if ok)
    if not there.get(name.split(":")[0], False):
        raise SystemExit(
            f"--device {name}: not on this machine (there: {', '.join(d for d, ok in there.items() if ok)})"
        )
    return name


def keep_memory() -> None:
    """glibc: keep freed memory for the next step instead of handing it back to the kernel.

    Where page faults are dear (small virtual machines), work on a CPU is up to ten times faster.
    """
    try:
        c = ctypes.CDLL("libc.so.6")
        c.mallopt(-4, 0), c.mallopt(-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another libc


def autocast(device: str):
    """torch.autocast to bfloat16 where the hardware multiplies it, else a no-op."""
    import torch

    fast = (
        device.startswith("cuda")
        or device == "cpu"
        and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    )
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=fast)


# ---- faster playing ------------------------------------------------------------------------------


class Packed(nn.Module):
    """A linear layer or convolution whose weight oneDNN has packed once for this CPU: two to three
    times as fast as torch's own in float32. gelu: "none" or "tanh": a GELU of this approximation
    follows, done on the way out."""

    def __init__(self, weight, bias=None, conv: nn.Conv2d | None = None, gelu: str = ""):
        super().__init__()
        self.bias, self.after = bias, ("gelu", [], gelu) if gelu else ("none", [], "")
        self.shape = (conv.padding, conv.stride, conv.dilation, conv.groups) if conv else ()
        self.weight = (
            torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape)
            if conv
            else torch.ops.mkldnn._reorder_linear_weight(weight)
        )

    def forward(self, x):
        op = (
            torch.ops.mkldnn._convolution_pointwise
            if self.shape
            else torch.ops.mkldnn._linear_pointwise
        )
        return op(x, self.weight, self.bias, *self.shape, *self.after)


def packs(dtype) -> bool:
    """Whether oneDNN multiplies in this precision on this CPU: bfloat16 needs AVX-512 or its like."""
    return torch.backends.mkldnn.is_available() and (
        dtype == torch.float32
        or dtype == torch.bfloat16
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class Graphed:
    """CUDA graphs of `denoise`, one per batch size and number of steps: the GPU replays a chunk
    without waiting for Python.
    """

    def __init__(self, f):
        self.f, self.graphs = f, {}

    def __call__(self, pixels, a, S: int):
        key = (len(pixels), S)
        if key not in self.graphs:
            inputs, side = (pixels.clone(), a.clone()), torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # compile and warm up outside of the capture
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
