"""A policy as one ONNX file, for play without torch: python model.py export FILE out.onnx

inputs   images uint8 [B, image, image, 3] RGB, or [B, frames, image, image, 3]; noise float32
         [B, K, A]; unless the steps are unrolled, steps int64 []: S; if the network has a prefix,
         given int64 []: how many of the first rows of noise are actions under way
output   actions float32 [B, K, A], about 0..1, as NitroGen.sample says

torch.onnx traces the network's own methods, so what is changed in model.py is exported too. The
JSON under the name "json" in the file's metadata is that of a policy file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import sys
import warnings
from pathlib import Path

from common import artefact, history, playing

import numpy as np
import torch
from torch import nn

import model

OPSET = 20  # the first with GELU; onnxruntime 1.17 and newer
EXTRAS = ("onnx", "onnxscript", "onnxruntime")
PARITY = 1e-4  # by how much an action may differ from torch's, at most
LARGEST = 2**31 - 1  # bytes of an ONNX file
STEP = "step."  # before the names in the Euler step: none may be the vision's too


class Vision(nn.Module):
    """images -> the context, flat: keys, values, keys, values, ..."""

    def __init__(self, net: model.NitroGen):
        super().__init__()
        self.net = net

    def forward(self, images):
        return [x for kv in self.net.context(self.net.pixels(images)) for x in kv]


class Euler(nn.Module):
    """The loop's body in NitroGen.denoise: step i of S, a <- a + v / S at t = i / S."""

    def __init__(self, net: model.NitroGen):
        super().__init__()
        self.net = net

    def forward(self, i, a, S, given, context):
        known = self.net.first(given) if self.net.c.prefix else None
        bucket = (i.double() / S * self.net.c.buckets).long()
        rest = iter(context)
        context = [(next(rest), next(rest)) if b.attn.cross else () for b in self.net.dit]
        v = self.net.velocity(a, self.net.timing(bucket[None], known).at(0), context)
        return a + (v if known is None else v.masked_fill(known, 0)) / S


class Unrolled(nn.Module):
    """NitroGen.denoise with all its S steps one after the other; what depends on time is constant,
    so that the network's `timing` is right for these steps alone from now on.
    """

    def __init__(self, net: model.NitroGen, S: int):
        super().__init__()
        timing = None

        def record(bucket, given=None, compute=net.timing):
            nonlocal timing
            timing = timing or compute(bucket, given)
            return timing

        net.timing = record
        self.net = net
        self.S = S
        self(*example(net.c))

    def forward(self, images, noise):
        return self.net.denoise(self.net.pixels(images), noise, self.S)


def example(c: model.Config) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, noise) of two frames, the same each time."""
    rng = torch.Generator().manual_seed(0)
    shape = (2, *history.shape(c), c.image, c.image, 3)
    images = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    return images, torch.randn(2, c.horizon, len(c.actions), generator=rng)


# ---- graphs --------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet():
    """Without the exporter's remarks about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def traced(module, inputs: tuple, names: list[str], outputs: list[str]):
    """onnx.ModelProto of a module of tensors and lists of tensors; B, if a tensor has any
    dimension, is the first, and of any size.
    """
    B = torch.export.Dim("B", min=1, max=1 << 16)

    def sizes(x):
        return list(map(sizes, x)) if isinstance(x, list) else {0: B} if x.ndim else {}

    with quiet():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple(map(sizes, inputs)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return program.model_proto


def unrolled(net: model.NitroGen, S: int):
    return traced(Unrolled(net, S), example(net.c), ["images", "noise"], ["actions"])


def looped(net: model.NitroGen):
    """Vision, then an ONNX Loop of `steps` rounds around one Euler step."""
    from onnx import TensorProto, compose, helper

    images, noise = example(net.c)
    context = Vision(net)(images)
    names = [f"context{i}" for i in range(len(context))]
    whole = traced(Vision(net), (images,), ["images"], [STEP + name for name in names])
    inputs = (torch.tensor(1), noise, torch.tensor(2), torch.tensor(1), context)
    step = traced(Euler(net), inputs, ["i", "a", "steps", "given", *names], ["next"])
    step = compose.add_prefix(step, STEP).graph
    i, a, *_ = step.input
    on, still_on = (helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("on", "on2"))
    go_on = helper.make_node("Identity", ["on"], ["on2"])
    nodes = [go_on, *step.node]
    body = helper.make_graph(
        nodes, "euler", [i, on, a], [still_on, step.output[0]], step.initializer
    )
    graph = whole.graph
    shape = ["B", *noise.shape[1:]]
    graph.input.append(helper.make_tensor_value_info("noise", TensorProto.FLOAT, shape))
    for name in ("steps", "given") if net.c.prefix else ("steps",):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
        graph.node.append(helper.make_node("Identity", [name], [STEP + name]))
    graph.node.append(helper.make_node("Loop", ["steps", "", "noise"], ["actions"], body=body))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("actions", TensorProto.FLOAT, shape))
    return whole


# ---- the file ------------------------------------------------------------------------------------


def export(net: model.NitroGen, target: Path, steps: int, info: dict) -> None:
    """Write a network in eval mode as FILE.onnx, whose actions have been compared with torch's.

    steps: Euler steps to unroll; 0: the file takes any number. info: of its making, for its
    metadata.
    """
    for name in EXTRAS:
        try:
            importlib.import_module(name)
        except ImportError:
            raise SystemExit(
                f"{target}: {name} is not installed here: pip install {' '.join(EXTRAS)}"
            ) from None
    if steps and net.c.prefix:
        raise SystemExit(f"--steps {steps}: not for a policy with a prefix; leave --steps out")
    if not 0 <= steps <= net.c.buckets:
        raise SystemExit(f"--steps {steps}: expected 1 to {net.c.buckets}, or 0: chosen at play")
    images, noise = example(net.c)
    given = noise[:, : net.c.prefix].sigmoid()
    wanted = net.sample(images, noise, steps or None, given).numpy()
    with torch.no_grad():
        proto = unrolled(net, steps) if steps else looped(net)
    about = {
        "format": "nitrogen.policy/1",
        "unrolled": steps,
        "model": dataclasses.asdict(net.c),
        **info,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    proto.metadata_props.add(key="json", value=json.dumps(about))
    if (size := proto.ByteSize()) > LARGEST:
        raise SystemExit(f"{target}: {size:,} bytes, and an ONNX file holds {LARGEST:,}")
    with artefact.replacing(target) as part:
        part.write_bytes(proto.SerializeToString())
        found = playing.Exported(str(part)).sample(
            images.numpy(), noise.numpy(), given=given.numpy()
        )
        differ = float(np.abs(found - wanted).max())
        if not differ < PARITY:
            raise SystemExit(f"{target}: not written: it differs from torch by {differ:.1e}")
    how = f"{steps} steps unrolled" if steps else "any number of steps"
    print(f"{target}: {size:,} bytes, opset {OPSET}, {how}")
    print(f"actions of two frames differ from torch's by {differ:.1e} at most")
