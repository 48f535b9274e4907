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
from common import kernels  # noqa: E402  needs Triton

INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))  # Triton decides when it is imported
interpreted = pytest.mark.skipif(not INTERPRETED, reason="by test_by_the_interpreter")
native = pytest.mark.skipif(INTERPRETED, reason="not interpreted")
SMALL = dict(image=64, width=64, vision_layers=1, mixer_layers=1, dit_layers=2)


def run(*args, **env) -> str:
    env = {**os.environ, **env}
    done = subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def disturbed(config):
    """A network in which norms, biases and modulations do something."""
    torch.manual_seed(0)
    net = model.NitroGen(config).eval()
    for parameter in net.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    for ada in (*(block.ada for block in net.dit), net.ada_out):
        ada.weight.data.normal_(std=0.05)
    return net


def inputs(config, B: int, given: int):
    images = torch.randint(0, 256, (B, config.image, config.image, 3), dtype=torch.uint8)
    noise = torch.randn(B, config.horizon, len(config.actions))
    return images, noise, 2, torch.rand(B, given, len(config.actions)) if given else None


@native
def test_by_the_interpreter():
    args = "-m pytest -o addopts= tests/common/test_kernels.py".split()
    assert "4 passed" in run(*args, TRITON_INTERPRET="1")


# the interpreter multiplies bfloat16 wrongly: float16 takes the same way
@interpreted
@pytest.mark.parametrize(
    "preset, changes, dtype, given, most",
    [
        ("released", SMALL, torch.float32, 0, 1e-5),
        ("tiny", SMALL | dict(head_width=32, prefix=4), torch.float32, 3, 1e-5),
        ("released", SMALL | dict(image=160), torch.float16, 0, 0.02),  # 100 image tokens
    ],
)
def test_the_kernels_compute_what_the_network_does(preset, changes, dtype, given, most):
    config = dataclasses.replace(model.CONFIGS[preset], **changes)
    net = disturbed(config).to(dtype)
    fused = copy.deepcopy(net)
    kernels.fuse(fused)
    images, noise, *rest = inputs(config, 2, given)
    wanted, got = (n.sample(images, noise, *rest) for n in (net, fused))
    assert (wanted - got).abs().max() < most and (wanted - noise).abs().mean() > 0.1


@interpreted
def test_a_small_variance_beside_a_large_mean():
    torch.manual_seed(0)
    layer, norm = torch.nn.Linear(256, 16), torch.nn.LayerNorm(256, eps=1e-6)
    for mean, std in ((0, 1), (5, 0.02), (100, 0.01)):
        x = mean + std * torch.randn(3, 256)
        with torch.no_grad():
            assert (kernels.linear(x, layer, norm) - layer(norm(x))).abs().max() < 2e-3


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
flags = dict(NORM=True, GAIN=True, ONE=True, ACT="gelu", ADD=True)
print("mma.sync" in compiled(kernels.linear_kernel, **flags, **tile))
print("mma.sync" in compiled(kernels.attention_kernel, d=64, BM=32, BN=64))
"""


@native
def test_they_compile_for_a_gpu_and_use_its_tensor_cores(tmp_path):
    printed = run("-c", COMPILED, TRITON_CACHE_DIR=str(tmp_path))
    assert printed.split() == ["True", "True"]


@native
def test_a_head_that_triton_cannot_take():
    config = dataclasses.replace(model.CONFIGS["tiny"], width=96, head_width=24)
    with pytest.raises(ValueError, match="heads of 16, 32, 64, ... values, not of 24"):
        kernels.fuse(model.NitroGen(config))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("given", [0, 3])
@pytest.mark.parametrize("preset", ["small", "released"])
def test_they_play_on_a_gpu(preset, given):
    """In bfloat16, as a CUDA graph: no further from float32 than the network as it is written."""
    exact = disturbed(dataclasses.replace(model.CONFIGS[preset], prefix=4)).cuda()
    plain = copy.deepcopy(exact).bfloat16()
    fused = accelerate(copy.deepcopy(plain), "kernels")
    for B in (1, 16, 1):  # the third replays the first one's graph
        seen = inputs(exact.c, B, given)
        wanted, *got = (net.sample(*seen) for net in (exact, plain, fused))
        far, near = ((sampled - wanted).abs().mean() for sampled in got)
        assert near < 1.2 * far + 1e-3
