"""Policy files: the released action layout, what older files name, how a network is described."""

from __future__ import annotations

import collections
import dataclasses
import re
from pathlib import Path

from common import artefact
from common.artefact import BUTTONS, STICKS

import cv2
import numpy as np

# What the values of an action vector are in the released checkpoint: beside ours GUIDE and four
# directions of a virtual right stick, in its own order.
# fmt: off
RELEASED = (
    "BACK", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "DPAD_UP", "EAST", "GUIDE", "LEFT_SHOULDER",
    "LEFT_THUMB", "LEFT_TRIGGER", "NORTH", "RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT",
    "RIGHT_SHOULDER", "RIGHT_THUMB", "RIGHT_TRIGGER", "RIGHT_UP", "SOUTH", "START", "WEST",
    *STICKS,
)
# fmt: on
# prefix, in a policy file, of the released tensors that the network never uses; export needs them
UNUSED = "released."
# switches that older files name, and the one value that this network still has
FORMER = {"context_width": 0, "interleave": True, "sinusoidal": False, "pads": 0}


def read(path, build, base: str = ""):
    """(network, arrays, metadata) of a policy file, checked against itself.

    build: function of the fields of a model.Config and the number of tensors -> the network without
    weights. base: of an adapter, see lora.base_file; the arrays then have its updates in them.
    SystemExit with one line if the file does not fit itself.
    """
    tensors, info = artefact.read(path, "nitrogen.policy/1")
    if "base" in info:
        from common import lora  # with torch

        whole = read(lora.base_file(path, info["base"], base), build)[1]
        whole = {name: v for name, v in whole.items() if name not in lora.WHOLE}
        try:
            tensors = lora.merged(whole | tensors)
        except ValueError as e:
            raise SystemExit(f"{path}: {e}") from None
    try:
        net = build(config_fields(info["model"]), len(tensors))
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as e:
        fault = f"{type(e).__name__}: {str(e)[:120]}".partition("\n")[0]
        raise SystemExit(f"{path}: its model config cannot be used ({fault})") from None
    wanted = {name: v.shape for name, v in net.state_dict().items()}
    found = {name: v.shape for name, v in tensors.items() if not name.startswith(UNUSED)}
    if fault := disagreement(wanted, found):
        raise SystemExit(f"{path}: {fault}")
    return net, tensors, info


def check_config(c) -> None:
    """ValueError if no network can have these values of a model.Config."""
    for name in ("width", "head_width", "patch", "image", "horizon", "steps", "buckets"):
        if getattr(c, name) < 1:
            raise ValueError(f"{name} {getattr(c, name)}: expected at least 1")
    if not 0 < c.vision_mlp <= 64:
        raise ValueError(f"vision_mlp {c.vision_mlp}: expected at most 64")
    if c.width % c.head_width or c.width % 2:
        heads = f"heads of {c.head_width}, or odd"
        raise ValueError(f"width {c.width} is not a whole number of {heads}")
    if c.positions < c.horizon:
        raise ValueError(f"positions {c.positions} are fewer than horizon {c.horizon}")
    if not 0 <= c.prefix < c.horizon:
        raise ValueError(f"prefix {c.prefix}: expected 0 to {c.horizon - 1}")
    if not 1 <= c.frames <= 16:
        raise ValueError(f"frames {c.frames}: expected 1 to 16")
    if not 1 <= c.frame_stride <= 1000:
        raise ValueError(f"frame_stride {c.frame_stride}: expected 1 to 1000")
    if not 0 < c.rate <= 1000 or c.shift < 0:
        timing = f"rate {c.rate}, shift {c.shift}"
        raise ValueError(f"{timing}: expected 0 to 1000 per second, and 0 rows or more")
    if c.predict not in ("velocity", "action"):
        raise ValueError(f"predict '{c.predict}': expected velocity or action")
    if len({name for name in c.actions if isinstance(name, str)}) != len(c.actions):
        raise ValueError("actions must be distinct names")


def with_prefix(c, prefix: int):
    """A model.Config with --prefix, if one is given; SystemExit if its chunks cannot have it."""
    try:
        return dataclasses.replace(c, prefix=prefix or c.prefix)
    except ValueError as e:
        raise SystemExit(f"--{e}") from None


def config_fields(fields: dict) -> dict:
    """Those of model.Config, of a file's metadata; ValueError where an older file has a former
    switch on.
    """
    fields = {**fields, "actions": tuple(fields["actions"])}
    for name, value in FORMER.items():
        found = fields.pop(name, value)
        if found != value:
            raise ValueError(f"{name} {found!r} is no longer supported, only {value!r} is")
    return fields


def disagreement(wanted: dict, found: dict) -> str:
    """The first mismatch of two name -> shape dicts as a sentence; empty if there is none."""
    wanted = {name: str(list(shape)) for name, shape in wanted.items()}
    found = {name: str(list(shape)) for name, shape in found.items()}
    bad = [n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n)]
    if not bad:
        return ""
    sides = f"expected {wanted.get(bad[0], 'nothing')}, found {found.get(bad[0], 'nothing')}"
    return f"tensor '{bad[0]}': {sides}" + (f" (and {len(bad) - 1} more)" if bad[1:] else "")


def resized(images, side: int) -> np.ndarray:
    """Pictures [..., h, w, 3] -> [..., side, side, 3], as the official client makes them."""
    if images.shape[-3:-1] == (side, side):
        return images
    pictures = images.reshape(-1, *images.shape[-3:])
    pictures = [cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
    return np.stack(pictures).reshape(*images.shape[:-3], side, side, 3)


def describe(path, net, tensors: dict, info: dict) -> None:
    """Print what a policy file, or a released checkpoint, is."""
    kind = "released checkpoint" if "released" in info else "policy"
    print(f"{path}: {kind}, {Path(path).stat().st_size:,} bytes")
    print_network(net.c, tensors)
    for name, value in info.items():
        if name not in ("format", "model", "tensors", "released"):
            print(f"{name}: {str(value)[:400]}")


def print_network(c, tensors: dict) -> None:
    """Fields of a model.Config, parameters per part, action layout."""
    fields = dataclasses.asdict(c)
    names = fields.pop("actions")
    for name, value in fields.items():
        print(f"  {name:16s} {value}")
    counts = collections.Counter()
    for name, v in tensors.items():
        part = "not used" if name.startswith(UNUSED) else re.split(r"[._\d]", name)[0]
        counts[part] += v.size
    counts["in all"] = sum(counts.values())
    print("parameters")
    for part, count in counts.items():
        print(f"  {part:12s} {count:>13,}")
    layout = f"{c.horizon} of {len(names)} values, {c.rate:g}/s"
    print(f"actions: {layout}, the first {c.shift} rows after the frame")
    for i, name in enumerate(names):
        note = "" if name in BUTTONS + STICKS else "dropped: not on this pad"
        print(f"  {i:2d} {name:15s} {note}".rstrip())
