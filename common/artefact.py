"""What one stage hands to the next: safetensors that describe themselves.

FORMATS says, per format, each tensor's dtype, dimensions, unit and range; METADATA what the JSON in
the header must hold. write() checks, and the file appears whole. read() checks, and says in one
line what is wrong and which command makes the file again. A new artefact: add it here and to MAKER.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import numpy as np

# fmt: off
BUTTONS = (
    "DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "SOUTH", "EAST", "WEST", "NORTH",
    "LEFT_SHOULDER", "RIGHT_SHOULDER", "LEFT_TRIGGER", "RIGHT_TRIGGER", "LEFT_THUMB", "RIGHT_THUMB",
    "BACK", "START",
)
# fmt: on
STICKS = ("LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")
MENU = [BUTTONS.index("BACK"), BUTTONS.index("START")]
FRAME = 256  # side of the square RGB frame that the policy sees, px

# CHOICE: a button or stick is trusted if its reading agrees this well with the frames, see
# matching.Agreement
AGREES = 0.5
# CHOICE: few buttons are down for more of a video (an accelerator is): such a one must agree better
HELD = 0.9
HELD_AGREES = 0.8

# Format -> tensor -> (dtype, dimensions, unit or meaning); a name with "?" may be missing
FORMATS = {
    "nitrogen.overlay/1": {
        "affine": ("float32", "P 2 3", "template px -> frame px"),
        "corners": ("float32", "P 4 2", "frame px, clockwise from the top left"),
        "bbox": ("int32", "P 4", "x, y, w, h in frame px"),
        "span": ("int64", "P 2", "first and last frame"),
        "median": ("uint8", "P h w 3", "temporal median of the registered crop, RGB"),
        "atlas": (
            "uint8",
            "H W 4",
            "the template's pictures, RGBA; its elements are in the metadata",
        ),
    },
    "nitrogen.index/1": {
        "points": ("float32", "n 4", "x, y, size in canvas px, angle in degrees"),
        "descriptors": ("int8", "n d", "127 = 0.5"),
        "owner": ("int32", "n", "number of the template"),
        "centers": ("float32", "cells d", "a descriptor per cell"),
        "start": ("int64", "cells1", "first row of each cell, cells + 1 of them"),
        "sizes": ("float32", "templates 2", "w, h in px"),
    },
    "nitrogen.actions/1": {
        "buttons": ("float16", "T 16", "probability of being pressed, 0..1"),
        "sticks": ("float32", "T 4", "see the metadata's unit"),
        "shown": ("bool", "20", "buttons, then axes, that exist on this overlay"),
        "confidence": ("float16", "T", "0..1"),
        "time": ("float64", "T", "seconds"),
        "hash?": ("uint8", "T 16", "of the frame's own pixels; a recorder's"),
        "person?": ("bool", "T", "a person was at the pad, not the policy"),
    },
    "nitrogen.shard/1": {
        "jpeg": (
            "uint8",
            "bytes",
            "row i's frame is jpeg[offset[i]:offset[i + 1]], 256 x 256; "
            "empty: the same as in the row before",
        ),
        "offset": ("int64", "R1", "byte offsets, R + 1 of them"),
        "buttons": ("uint8", "R 16", "0 or 1"),
        "sticks": ("float32", "R 4", "-1..1, y down"),
        "mask": ("bool", "V 20", "what each video's overlay shows: buttons, then axes"),
        "video": ("int32", "R", "row's video, 0..V-1"),
        "frame": ("int64", "R", "row's frame number in its video"),
        "time": ("float64", "R", "seconds"),
        "start": ("int64", "M", "rows from which a chunk may begin"),
    },
    "nitrogen.policy/1": None,  # model weights: names and shapes follow from the config
    "nitrogen.parser/1": None,
    "nitrogen.features/1": None,
    "nitrogen.state/1": None,  # what train.py needs to resume
}
RANGES = {"buttons": (0, 1), "confidence": (0, 1)}
STICK_RANGE = (-1.001, 1.001)  # of a shard, and in the unit "normalized"; as float32 rounds
MAPPED = {"jpeg"}  # memory-mapped when read: the bytes stay on disk until they are used

# A pattern says what a value of the metadata must be:
#   str, bool, list, dict    of this type; a str is printable
#   (least, most)            a number in this range
#   [p]                      a list of one or more values, each as p
#   [p, q, ...]              a list of as many values, as p, as q, ...
#   {"a": p, "b?": q}        named values; b may be missing or null, others may be there
#   {str: p}                 named values, each as p
#   {("a", "b"): p}          the same, with no other names than these
NUMBER = (-1e9, 1e9)
RATE = (0.01, 1e4)  # per second
LENGTH = (0, 1e5)  # px
BOX = [NUMBER] * 4  # x, y, w, h
ELEMENT = {
    "kind": str,
    "id": str,
    "pos": [NUMBER] * 2,
    "mapping": [LENGTH] * 4,
    "radius": LENGTH,
    "click": bool,
    "trail": list,
}
LAYOUT = {
    "size": [(1, 1e5)] * 2,
    "buttons": {BUTTONS: BOX},
    "sticks": {("LEFT", "RIGHT"): [NUMBER] * 5},
}
CHUNK = {  # of the released dataset
    "size": (1, 1e5),
    "seconds": (0.1, 1e9),
    "start": NUMBER,
    "frames?": [NUMBER] * 2,
    "boxes": [BOX],
    "area?": BOX,
    "rows": [NUMBER] * 2,
}
WIDTH = (1, 1024)
NET = {
    **{f"{name}?": [WIDTH] * 4 for name in ("widths", "depths", "heads", "reduce")},
    **{f"{name}?": WIDTH for name in ("decoder", "detail", "head")},
}
ALWAYS = {"recipe?": dict, "tensors?": dict, "command?": str}
METADATA = {
    "nitrogen.overlay/1": {
        "found?": bool,
        "template?": str,
        "family?": str,
        "reason?": str,
        "inliers?": NUMBER,
        "score?": NUMBER,
        "nearest?": [NUMBER],
        "votes?": NUMBER,
        "sampled?": [NUMBER],
        "elements?": [ELEMENT],
        "layout?": LAYOUT,
    },
    "nitrogen.actions/1": {
        "unit?": str,
        "fps?": RATE,
        "game?": str,
        "cells_per_radius?": (0.1, 100),
        "agreement?": {(*BUTTONS, "LEFT", "RIGHT"): (-1, 1)},
        "box?": BOX,
        "chunks?": [CHUNK],
    },
    "nitrogen.shard/1": {
        "videos": [{"name": str, "game": str, "fps": RATE, "split": str}],
        "rate": RATE,
        "horizon": (1, 1e5),
        "shift": (0, 1e5),
        "counts?": {
            "split": str,
            "rows": NUMBER,
            "kept": NUMBER,
            "chunks": NUMBER,
            "shards": NUMBER,
        },
        "lag?": {"frames": NUMBER, "confidence": NUMBER},
    },
    "nitrogen.policy/1": {"base?": {"name": str, "sha256": str, "path": str}},
    "nitrogen.parser/1": {"images?": NUMBER, "net?": NET},
    "nitrogen.state/1": {"recipe": dict, "step?": NUMBER, "steps?": NUMBER, "seconds?": NUMBER},
}
MAKER = {
    "overlay": "python extract.py VIDEO",
    "actions": "python parse.py VIDEO",
    "index": "python extract.py VIDEO",
    "shard": "python filter.py VIDEO",
    "policy": "python train.py",
    "parser": "python parse.py train",
    "features": "python extract.py train",
    "state": "python train.py",
}


# ---- writing -------------------------------------------------------------------------------------


def write(path, tensors: dict, format: str, **info) -> None:
    """Write numpy tensors and a JSON description; the file appears under its name only when whole.

    info: JSON-able; the command, and the tensors' dimensions, dtypes and units are added to it.
    """
    from safetensors.numpy import save_file

    spec = FORMATS[format] or {}
    info = {
        "format": format,
        **info,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "tensors": {name: in_words(name, v, spec) for name, v in tensors.items()},
    }
    text = json.dumps(info)
    fault = fault_of(tensors, json.loads(text), "it")
    assert not fault, f"{path}: {fault}"
    with replacing(path) as part:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, part, {"json": text})


def in_words(name: str, v: np.ndarray, spec: dict) -> str:
    """ "float32 [90, 4] T 4: unit": a tensor's line in the metadata."""
    said = f"{v.dtype} {list(v.shape)}"
    if not (known := spec.get(name) or spec.get(f"{name}?")):
        return said
    _, dims, meaning = known
    return f"{said} {dims}: {meaning}"


def write_bytes(path, blob: bytes) -> None:
    """The file appears under its name only when complete."""
    with replacing(path) as part:
        part.write_bytes(blob)


def in_folder(path) -> Path:
    """A path to write to, in a folder that exists from now on; SystemExit with one line where there
    can be none.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SystemExit(f"{path}: cannot be written ({e.strerror}: {e.filename})") from None
    return Path(path)


@contextlib.contextmanager
def replacing(path):
    """A temporary name in the same folder to write to; flushed and renamed to `path` at the end,
    removed after an error.
    """
    path = in_folder(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # safetensors would leave a file that nobody else may read
        yield part
        os.chmod(part, mode)
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ---- checking ------------------------------------------------------------------------------------


def fault_of(tensors: dict, info: dict, where: str) -> str | None:
    """First mismatch of an artefact with FORMATS and METADATA as a sentence, or None."""
    format = info.get("format")
    fault = None
    if info.get("found") is not False:  # an overlay that was not found has no tensors
        ranges = dict(RANGES)
        if format == "nitrogen.shard/1" or info.get("unit") == "normalized":
            ranges["sticks"] = STICK_RANGE
        fault = check(tensors, FORMATS.get(format) or {}, ranges)
    return fault or amiss(info, {**ALWAYS, **METADATA.get(format, {})}, where)


def check(tensors: dict, spec: dict, ranges: dict = RANGES) -> str | None:
    """First mismatch of tensors with their specification as a sentence, or None."""
    sizes = {}
    for key, (dtype, dims, _) in spec.items():
        name = key.removesuffix("?")
        if name not in tensors:
            if name != key:
                continue
            return f"tensor '{name}' is missing"
        v = tensors[name]
        dims = dims.split()
        if str(v.dtype) != dtype or v.ndim != len(dims):
            wanted = f"{dtype} [{', '.join(dims)}]"
            return f"tensor '{name}' should be {wanted}, found {v.dtype} {list(v.shape)}"
        for letter, n in zip(dims, v.shape, strict=True):
            if sizes.setdefault(letter, int(letter) if letter.isdigit() else n) != n:
                return f"tensor '{name}' has {letter} = {n}, expected {sizes[letter]}"
        if v.dtype.kind == "f" and not np.isfinite(v).all():
            return f"tensor '{name}' holds {v[~np.isfinite(v)][0]}, expected finite numbers"
        if name not in ranges or not v.size:
            continue
        least, most = ranges[name]
        if v.min() < least or v.max() > most:
            return (
                f"tensor '{name}' leaves its range {least:.0f}..{most:.0f}: it runs from "
                f"{v.min():g} to {v.max():g}"
            )
    return None


def amiss(value, pattern, where: str = "it") -> str | None:
    """First mismatch of a JSON value with a pattern (see METADATA) as a sentence, or None."""
    fits, wanted = judged(value, pattern)
    if not fits:
        return f"{where} should be {wanted}, found {ascii(value)[:60]}"
    for name, part, its_pattern in parts_of(value, pattern):
        if fault := amiss(part, its_pattern, f"{where}: {name!r}"):
            return fault
    return None


def judged(value, pattern) -> tuple[bool, str]:
    """(whether a value, its parts aside, is as the pattern says; what it should be, in words)"""
    if isinstance(pattern, tuple):
        least, most = pattern
        is_number = type(value) in (int, float)
        return is_number and least <= value <= most, f"a number in {least:g}..{most:g}"
    if isinstance(pattern, list):
        n = len(value) if isinstance(value, list) else 0
        if len(pattern) == 1:
            return n >= 1, "a list of 1 or more"
        return n == len(pattern), f"a list of {len(pattern)}"
    if isinstance(pattern, dict):
        is_dict = isinstance(value, dict)
        names = next(iter(pattern))
        if isinstance(names, tuple):
            return is_dict and set(value) <= set(names), f"values of {', '.join(names)}"
        return is_dict, "named values"
    if pattern is str:
        return isinstance(value, str) and value.isprintable(), "of type str, printable"
    return isinstance(value, pattern), f"of type {pattern.__name__}"


def parts_of(value, pattern) -> list[tuple]:
    """[(name or index, value, its pattern)] of what a list or a dict holds."""
    if isinstance(pattern, list):
        patterns = pattern * len(value) if len(pattern) == 1 else pattern
        return list(zip(range(len(value)), value, patterns, strict=True))
    if not isinstance(pattern, dict):
        return []
    names, every = next(iter(pattern.items()))
    if not isinstance(names, str):  # {str: p} or {(names): p}
        return [(name, part, every) for name, part in value.items()]
    parts = []
    for key, its_pattern in pattern.items():
        name = key.removesuffix("?")
        part = value.get(name)
        if part is not None or name == key:
            parts.append((name, part, its_pattern))
    return parts


# ---- reading -------------------------------------------------------------------------------------


def read(path, format: str | None = None) -> tuple[dict, dict]:
    """(tensors, info) of an artefact; SystemExit with one line if it is not what `format` says.

    Tensors are numpy arrays; nothing in the file is ever executed.
    """
    path = Path(path)
    kind = format.split(".")[1].split("/")[0] if format else ""
    again = f"; make it anew: {MAKER[kind]}" if kind in MAKER else ""
    if kind == "policy" and path.suffix in (".pt", ".pth"):
        target = path.with_suffix(".safetensors")
        convert = shlex.join(["python", "model.py", "convert", str(path), str(target)])
        raise SystemExit(f"{path}: convert it first: {convert}")
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise SystemExit(f"{path}: {what}{again}")
    try:
        tensors, info = load(path, format)
    except Exception as e:
        reason = str(e).partition("\n")[0][:120] or type(e).__name__
        raise SystemExit(f"{path}: not a readable safetensors file ({reason}){again}") from None
    found = info.get("format", "no format")
    if format and found != format:
        raise SystemExit(f"{path}: expected a {format} file, found {found!r}{again}")
    if fault := fault_of(tensors, info, "its description"):
        is_recorded = info.get("unit") == "normalized"  # nothing here makes it again
        raise SystemExit(f"{path}: {fault}{'' if is_recorded else again}")
    return tensors, info


def load(path: Path, format: str | None) -> tuple[dict, dict]:
    """(tensors, info), unchecked but for what every description has; no tensors if it is of another
    format.
    """
    from safetensors import safe_open

    with safe_open(path, "numpy") as f:
        info = json.loads((f.metadata() or {}).get("json", "{}"))
        if fault := amiss(info, {"format?": str, **ALWAYS}, "its description"):
            raise ValueError(fault)
        names = f.keys() if not format or info.get("format") == format else ()
        tensors = {}
        for name in names:
            tensors[name] = mapped(path, name) if name in MAPPED else f.get_tensor(name)
        return tensors, info


def mapped(path, name: str) -> np.ndarray:
    """A uint8 tensor of an artefact, memory-mapped."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        begin, end = json.loads(f.read(length))[name]["data_offsets"]
    if begin == end:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r", 8 + length + begin, (end - begin,))


def doubtful(agreement: dict, pressed) -> list[str]:
    """Names of the buttons and sticks (LEFT, RIGHT) of a parsed video that cannot be trusted: they
    agree too little with the frames, or are down nearly always without a clear sign.

    agreement: from the metadata of its actions; pressed: bool [T, 16].
    """
    share = pressed.mean(axis=0) if len(pressed) else np.zeros(16)
    down = dict(zip(BUTTONS, share, strict=True))
    held = {name for name, share in down.items() if share > HELD}
    doubts = []
    for name, value in agreement.items():
        least = HELD_AGREES if name in held else AGREES
        if value < least:
            doubts.append(name)
    return doubts


def finished(path, format: str, recipe: dict, fresh: bool = False) -> bool:
    """True if `path` already holds this very result; SystemExit if it holds another recipe's.

    False, to be made again: a broken file, or another recipe's in which nothing was found.
    """
    if fresh or not Path(path).exists():
        return False
    try:
        info = read(path, format)[1]
    except SystemExit as e:
        print(f"{e} -> making it anew", file=sys.stderr)
        return False
    was = info.get("recipe") or {}
    now = json.loads(json.dumps(recipe))
    if was == now:
        return True
    if info.get("found") is False:
        return False
    other = []
    for name, value in now.items():
        if was.get(name) != value:
            values = "" if name == "source" else f" ({was.get(name)!r}, now {value!r})"
            other.append(f"{name}{values}")
    raise SystemExit(
        f"{path}: made with another {', '.join(other) or 'recipe'}; "
        "--fresh replaces it, another --out keeps both"
    )


def source(path) -> dict:
    """Name, size and SHA-256 of an input file, for the description of what was made from it."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return {"name": Path(path).name, "bytes": os.path.getsize(path), "sha256": digest.hexdigest()}


def show(path) -> None:
    """Print what an artefact is: `--inspect FILE` of every stage."""
    tensors, info = read(path)
    if "format" not in info:
        raise SystemExit(f"{path}: a safetensors file, but not one of this project's")
    print(f"{path}: {info.pop('format')}, {os.path.getsize(path):,} bytes")
    described = info.pop("tensors", {})
    for name, v in tensors.items():
        span = f"{v.min():.4g} .. {v.max():.4g}" if v.size else "empty"
        print(f"  {name:32s} {described.get(name, '')}   [{span}]")
    for key, value in info.items():
        text = json.dumps(value)
        print(f"  {key}: {text if len(text) < 400 else text[:400] + ' ...'}")
