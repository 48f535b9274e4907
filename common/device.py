"""Where torch computes, and in which numbers."""

from __future__ import annotations

import ctypes
import importlib.util
import os

import cv2
import torch
from torch import nn


def pick_device(name: str) -> str:
    """auto -> cuda, mps or cpu, whichever is there; an explicit one is checked."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    found = [device for device, ok in there.items() if ok]
    if name == "auto":
        return found[0]
    if name.split(":")[0] not in found:
        raise SystemExit(f"--device {name}: not on this machine (there: {', '.join(found)})")
    return name


def keep_memory() -> None:
    """glibc: keep freed memory for the next step instead of handing it back to the kernel.

    Where page faults are dear (small virtual machines), work on a CPU is up to ten times faster.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another libc


def native_dtype(device: str):
    """bfloat16 where the hardware multiplies it, else float32."""
    kind = device.split(":")[0]
    on_cpu = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    fast = kind == "cuda" or kind == "cpu" and on_cpu()
    return torch.bfloat16 if fast else torch.float32


def autocast(device: str):
    """torch.autocast to the native_dtype of a device; a no-op if that is float32."""
    fast = native_dtype(device) == torch.bfloat16
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=fast)


# ---- faster playing ------------------------------------------------------------------------------


class Packed(nn.Module):
    """A linear layer or convolution whose weight oneDNN has packed once for this CPU: in float32
    two to three times as fast as torch's own.

    gelu: "none" or "tanh": a GELU of this approximation follows, done on the way out.
    """

    def __init__(self, weight, bias=None, conv: nn.Conv2d | None = None, gelu: str = ""):
        super().__init__()
        self.bias = bias
        self.after = ("gelu", [], gelu) if gelu else ("none", [], "")
        if conv is None:
            self.shape = ()
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        else:
            self.shape = (conv.padding, conv.stride, conv.dilation, conv.groups)
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape)

    def forward(self, x):
        ops = torch.ops.mkldnn
        op = ops._convolution_pointwise if self.shape else ops._linear_pointwise
        return op(x, self.weight, self.bias, *self.shape, *self.after)


def add_layer(x, layer, y):
    """x + layer(y)"""
    if isinstance(layer, Packed):
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, layer.weight, layer.bias, "add")
    return x + layer(y)


def packs(dtype) -> bool:
    """Whether oneDNN multiplies in this precision on this CPU; bfloat16 needs AVX-512 or alike."""
    if not torch.backends.mkldnn.is_available():
        return False
    bfloat16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bfloat16


def pack_layers(net: nn.Module, gelu: str, after: tuple, kinds=(nn.Linear,), dtype=None) -> None:
    """Replace the layers of these kinds, in a network that only plays on this CPU, by packed ones;
    a layer with a method `pack` packs itself.

    gelu: approximation of all its GELUs. after: names of the layers that they follow; these layers
    do them on the way out. dtype: of the parameters then, by default the native_dtype; if oneDNN
    cannot multiply it, the network stays as it is.
    """
    dtype = dtype or native_dtype("cpu")
    if not packs(dtype):
        return
    for p in net.parameters():
        p.requires_grad_(False).data = p.data.to(dtype)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if type(child) in kinds:
                conv = child if isinstance(child, nn.Conv2d) else None
                its_gelu = gelu if name in after else ""
                setattr(module, name, Packed(child.weight, child.bias, conv, its_gelu))
        if hasattr(module, "pack"):
            module.pack()
        if hasattr(module, "gelu"):
            module.gelu = nn.Identity()


def prepare_reading() -> None:
    """Set memory and threads for a network whose input one core makes meanwhile."""
    keep_memory()
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    torch.set_num_threads(max(1, threads - 1))
    cv2.setNumThreads(1)  # small pictures: more threads cost more than they bring


def accelerations(device: str) -> tuple[str, ...]:
    """What `accelerate` can do on a device, its own choice first."""
    kind = device.split(":")[0]
    if kind == "cuda":
        return ("compiled", "kernels") if importlib.util.find_spec("triton") else ("compiled",)
    return ("packed",) if kind == "cpu" else ()


def accelerate(net, how: str = ""):
    """Speed up a model.NitroGen that only plays.

    how: on a GPU compiled (by torch) or kernels (ours), both as CUDA graphs; on a CPU packed.
    """
    device = next(net.parameters()).device.type
    how = how or next(iter(accelerations(device)), "")
    if how == "kernels":
        from common import kernels  # needs Triton

        kernels.fuse(net)
    elif how == "compiled":
        net.context = torch.compile(net.context)
        net.velocity = torch.compile(net.velocity)
    elif how == "packed":
        pack_layers(net, "tanh", ("fc1",), dtype=net.dtype)
    if device == "cuda":
        net.denoise = Graphed(net.denoise)
    return net


class Graphed:
    """model.NitroGen.denoise as CUDA graphs, one per batch size, number S of steps and number of
    given actions: the GPU replays a chunk without waiting for Python.
    """

    def __init__(self, f):
        self.f = f
        self.graphs = {}

    def __call__(self, pixels, a, S: int, given: int = 0):
        key = (len(pixels), S, given)
        if key not in self.graphs:
            self.graphs[key] = self.capture(pixels.clone(), a.clone(), S, given)
        graph, inputs, output = self.graphs[key]
        inputs[0].copy_(pixels)
        inputs[1].copy_(a)
        graph.replay()
        return output.clone()

    def capture(self, pixels, a, S: int, given: int):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compile and warm up outside of the capture
            for _ in range(3):
                self.f(pixels, a, S, given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.f(pixels, a, S, given)
        return graph, (pixels, a), output
