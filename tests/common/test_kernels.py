"""The Triton kernels of play: by Triton's interpreter, compiled for a GPU that need not be there,
and on a GPU.
"""

import copy
import dataclasses
import os
import subprocess
import sys

from common import ROOT
from common.device import accelerate

import pytest
import torch

import model

pytest.importorskip("triton", reason="no Triton: pip install triton")

SAMPLES = """
import copy, dataclasses, sys
import torch
import model
from common import kernels

torch.manual_seed(0)
config = eval(sys.argv[1])
dtype = getattr(torch, sys.argv[2])
given = int(sys.argv[3])
net = model.NitroGen(config).eval()
for parameter in net.parameters():  # also norms, biases and modulations
    if parameter.dim() == 1:
        parameter.data += 0.1 * torch.randn_like(parameter)
for ada in (*(block.ada for block in net.dit), net.ada_out):
    ada.weight.data.normal_(std=0.05)
net = net.to(dtype)
fused = copy.deepcopy(net)
kernels.fuse(fused)
images = torch.randint(0, 256, (2, config.image, config.image, 3), dtype=torch.uint8)
noise = torch.randn(2, config.horizon, len(config.actions))
known = torch.rand(2, given, len(config.actions)) if given else None
wanted, got = (n.sample(images, noise, 2, known) for n in (net, fused))
print((wanted - got).abs().max().item(), (wanted - noise).abs().mean().item())
"""

SMALL = dict(image=64, width=64, vision_layers=1, mixer_layers=1, dit_layers=2)


def run(program: str, *args, **env) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# the interpreter multiplies bfloat16 wrongly: float16 takes the same way
@pytest.mark.parametrize(
    "preset, changes, dtype, given, most",
    [
        ("released", SMALL, "float32", 0, 1e-5),
        ("tiny", SMALL | dict(head_width=32, prefix=4), "float32", 3, 1e-5),
        ("released", SMALL | dict(image=160), "float16", 0, 0.02),  # 100 image tokens
    ],
)
def test_the_kernels_compute_what_the_network_does(preset, changes, dtype, given, most):
    config = repr(dataclasses.replace(model.CONFIGS[preset], **changes))
    printed = run(SAMPLES, f"model.{config}", dtype, str(given), TRITON_INTERPRET="1")
    difference, moved = map(float, printed.split())
    assert difference < most and moved > 0.1


COMPILED = """
import triton
from common import kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

POINTERS = {"x", "weight", "bias", "gain", "shift", "add", "y", "q", "k", "v"}

def compiled(kernel, **constants):
    kernel = getattr(kernel, "fn", kernel) if "autotuner" in type(kernel).__module__ else kernel
    types = {
        name: "constexpr" if name in constants else "*bf16" if name in POINTERS
        else "fp32" if name in ("eps", "factor") else "i32"
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, types, constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]

tile = kernels.LINEAR[0].kwargs
flags = dict(NORM=True, GAIN=True, ONE=True, ACT="gelu", ADD=True, PRECISION="tf32")
print("mma.sync" in compiled(kernels.linear_kernel, **flags, **tile))
sizes = dict(PRECISION="tf32", d=64, BM=32, BN=64)
print("mma.sync" in compiled(kernels.attention_kernel, **sizes))
"""


def test_they_compile_for_a_gpu_and_use_its_tensor_cores(tmp_path):
    assert run(COMPILED, TRITON_CACHE_DIR=str(tmp_path)).split() == ["True", "True"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("preset", ["small", "released"])
def test_they_play_on_a_gpu(preset):
    """In bfloat16, as a CUDA graph: no further from float32 than the network as it is written."""
    torch.manual_seed(0)
    exact = model.NitroGen(model.CONFIGS[preset]).cuda().eval()
    plain = copy.deepcopy(exact).bfloat16()
    fused = accelerate(copy.deepcopy(plain), "kernels")
    side = exact.c.image
    for B in (1, 16):
        images = torch.randint(0, 256, (B, side, side, 3), dtype=torch.uint8)
        noise = torch.randn(B, exact.c.horizon, len(exact.c.actions))
        wanted = exact.sample(images, noise)
        far, near = ((net.sample(images, noise) - wanted).abs().mean() for net in (plain, fused))
        assert near < 1.2 * far + 1e-3
