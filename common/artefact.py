"""What one stage hands to the next: safetensors that describe themselves.

FORMATS says, per format, each tensor's dtype, dimensions, unit and range; SAID what the description
in the header holds. write() checks and appears whole; read() checks, and says in one line what is
wrong and which command makes the file again. A new artefact: add it here, and to MAKER.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

BUTTONS = (
    "DPAD_UP",
    "DPAD_DOWN",
    "DPAD_LEFT",
    "DPAD_RIGHT",
    "SOUTH",
    "EAST",
    "WEST",
    "NORTH",
    "LEFT_SHOULDER",
    "RIGHT_SHOULDER",
    "LEFT_TRIGGER",
    "RIGHT_TRIGGER",
    "LEFT_THUMB",
    "RIGHT_THUMB",
    "BACK",
    "START",
)
STICKS = ("LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")
# CHOICE: a button or stick is trusted from this agreement of its reading with the frames on, see
# matching.Agreement
AGREES = 0.5
# CHOICE: a button that is down for more of a video, as few are (an accelerator), must agree better:
HELD = 0.9
HELD_AGREES = 0.8
MENU = [BUTTONS.index("BACK"), BUTTONS.index("START")]
FRAME = 256  # side of the square RGB frame that the policy sees, px

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
    "nitrogen.descriptors/1": {
        "points": ("float32", "n 4", "x, y, size in canvas px, angle in degrees"),
        "descriptors": ("uint8", "n d", "SIFT's, 0..255"),
        "owner": ("int32", "n", "number of the template"),
        "sizes": ("float32", "templates 2", "w, h in px"),
    },
    "nitrogen.actions/1": {
        "buttons": ("float16", "T 16", "probability of being pressed, 0..1"),
        "sticks": ("float32", "T 4", "see the metadata's unit"),
        "shown": ("bool", "20", "buttons, then axes, that exist on this overlay"),
        "confidence": ("float16", "T", "0..1"),
        "time": ("float64", "T", "seconds"),
    },
    "nitrogen.shard/1": {
        "jpeg": (
            "uint8",
            "bytes",
            "row i's frame is jpeg[offset[i]:offset[i + 1]], 256 x 256; empty: the same as in the row before",
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
# And what the description says: a type, (least, most) of a number, [of each], [of the first, of the
# second, ...], {name: of its value}; {"name?": may be missing}, {(names): no others}, {str: any
# name}.
N, RATE = (-1e9, 1e9), (0.01, 1e4)
SAID = {
    "nitrogen.overlay/1": {
        "found?": bool,
        "template?": str,
        "family?": str,
        "reason?": str,
        "inliers?": N,
        "score?": N,
        "nearest?": [N],
        "votes?": N,
        "sampled?": [N],
        "elements?": [
            {
                "kind": str,
                "id": str,
                "pos": [N] * 2,
                "mapping": [(0, 1e5)] * 4,
                "radius": (0, 1e5),
                "click": bool,
                "trail": list,
            }
        ],
        "layout?": {
            "size": [(1, 1e5)] * 2,
            "buttons": {BUTTONS: [N] * 4},
            "sticks": {("LEFT", "RIGHT"): [N] * 5},
        },
    },
    "nitrogen.actions/1": {
        "unit?": str,
        "fps?": RATE,
        "game?": str,
        "cells_per_radius?": (0.1, 100),
        "agreement?": {(*BUTTONS, "LEFT", "RIGHT"): (-1, 1)},
        "box?": [N] * 4,
        "chunks?": [
            {
                "size": (1, 1e5),
                "seconds": (0.1, 1e9),
                "start": N,
                "frames?": [N] * 2,
                "boxes": [[N] * 4],
                "area?": [N] * 4,
                "rows": [N] * 2,
            }
        ],
    },
    "nitrogen.shard/1": {
        "videos": [{"name": str, "game": str, "fps": RATE, "split": str}],
        "rate": RATE,
        "horizon": (1, 1e5),
        "shift": (0, 1e5),
        "counts?": {"split": str, "rows": N, "kept": N, "chunks": N, "shards": N},
        "lag?": {"frames": N, "confidence": N},
    },
    "nitrogen.parser/1": {
        "images?": N,
        "net?": {
            **{f"{k}?": [(1, 1024)] * 4 for k in ("widths", "depths", "heads", "reduce")},
            **{f"{k}?": (1, 1024) for k in ("decoder", "detail", "head")},
        },
    },
    "nitrogen.state/1": {"recipe": dict, "step?": N, "steps?": N, "seconds?": N},
}
EVERY = {"recipe?": dict, "tensors?": dict, "command?": str}
RANGES = {"buttons": (0, 1), "confidence": (0, 1)}
MAPPED = {"jpeg"}  # stay on disk when read, memory-mapped: nothing is loaded until it is used
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


def write(path, tensors: dict, format: str, **info) -> None:
    """Write numpy tensors and a JSON description atomically: a reader never sees half a file.

    `info` must be JSON-able; dimensions, dtypes and units are added.  The file appears under its
    name only when complete.
    """
    from safetensors.numpy import save_file

    spec = FORMATS[format] or {}
    info = {
        "format": format,
        **info,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "tensors": {
            k: f"{v.dtype} {list(v.shape)} {spec[k][1] + ': ' + spec[k][2] if k in spec else ''}".strip()
            for k, v in tensors.items()
        },
    }
    fault = (check(tensors, spec) if not info.get("found") is False else None) or amiss(
        json.loads(json.dumps(info)), {**EVERY, **SAID.get(format, {})}
    )
    assert not fault, f"{path}: {fault}"
    with replacing(path) as part:
        save_file(
            {k: np.ascontiguousarray(v) for k, v in tensors.items()},
            part,
            {"json": json.dumps(info)},
        )


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


def check(tensors: dict, spec: dict) -> str | None:
    """The first disagreement between tensors and their specification, in words, or None."""
    sizes = {}
    for name, (dtype, dims, _) in spec.items():
        if name not in tensors:
            return f"tensor '{name}' is missing"
        v, dims = tensors[name], dims.split()
        if str(v.dtype) != dtype or v.ndim != len(dims):
            return f"tensor '{name}' should be {dtype} [{', '.join(dims)}], found {v.dtype} {list(v.shape)}"
        for letter, n in zip(dims, v.shape):
            if sizes.setdefault(letter, int(letter) if letter.isdigit() else n) != n:
                return f"tensor '{name}' has {letter} = {n}, expected {sizes[letter]}"
        lo, hi = RANGES.get(name, (-np.inf, np.inf))
        if (
            v.dtype.kind == "f"
            and v.size
            and not (np.isfinite(v).all() and v.min() >= lo and v.max() <= hi)
        ):
            return f"tensor '{name}' leaves its range {lo}..{hi}"
    return None


def amiss(value, pattern, where: str = "it") -> str | None:
    """The first thing in a description that is not as the pattern (see SAID) says, in words, or
    None.
    """
    if isinstance(pattern, tuple):
        fits, wanted = (
            type(value) in (int, float) and pattern[0] <= value <= pattern[1],
            f"a number in {pattern[0]:g}..{pattern[1]:g}",
        )
    elif isinstance(pattern, list):
        fits, wanted = (
            isinstance(value, list)
            and len(value) >= len(pattern)
            and len(pattern) in (1, len(value)),
            f"a list of {len(pattern)}" + " or more" * (len(pattern) == 1),
        )
        parts = (
            [(v, pattern[min(i, len(pattern) - 1)], i) for i, v in enumerate(value)] if fits else ()
        )
    elif isinstance(pattern, dict):
        allowed = next((k for k in pattern if isinstance(k, tuple)), None)
        fits = isinstance(value, dict) and (allowed is None or set(value) <= set(allowed))
        wanted = f"values of {', '.join(allowed)}" if allowed else "named values"
        keys = (
            value
            if allowed or str in pattern
            else [
                k.rstrip("?")
                for k in pattern
                if not k.endswith("?") or fits and value.get(k[:-1]) is not None
            ]
        )
        parts = (
            [
                (
                    value.get(k),
                    pattern[next(p for p in (k, f"{k}?", allowed, str) if p in pattern)],
                    k,
                )
                for k in keys
            ]
            if fits
            else ()
        )
    else:
        fits, wanted = (
            isinstance(value, pattern) and (pattern is not str or value.isprintable()),
            f"of type {pattern.__name__}" + ", printable" * (pattern is str),
        )
    if not fits:
        return f"{where} should be {wanted}, found {ascii(value)[:60]}"
    return (
        next((fault for v, p, k in parts if (fault := amiss(v, p, f"{where}: {k!r}"))), None)
        if isinstance(pattern, (list, dict))
        else None
    )


def read(path, format: str | None = None) -> tuple[dict, dict]:
    """(tensors, info) of an artefact; SystemExit with one line if it is not what `format` says.

    Tensors are numpy arrays; nothing in the file is ever executed.
    """
    path = Path(path)
    kind = format.split(".")[1].split("/")[0] if format else ""
    again = f"; make it anew: {MAKER[kind]}" if kind in MAKER else ""
    if not path.is_file():
        raise SystemExit(
            f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}{again}"
        )
    try:
        from safetensors import safe_open

        with safe_open(path, "numpy") as f:
            info = json.loads((f.metadata() or {}).get("json", "{}"))
            if fault := amiss(info, {"format?": str, **EVERY}, "its description"):
                raise ValueError(fault)
            names = f.keys() if not format or info.get("format") == format else ()
            tensors = {k: mapped(path, k) if k in MAPPED else f.get_tensor(k) for k in names}
    except Exception as e:
        raise SystemExit(
            f"{path}: not a readable safetensors file ({str(e).partition(chr(10))[0][:120] or type(e).__name__}){again}"
        ) from None
    if format and info.get("format") != format:
        raise SystemExit(
            f"{path}: expected a {format} file, found {info.get('format', 'no format')!r}{again}"
        )
    fault = (
        check(tensors, FORMATS.get(info.get("format")) or {})
        if info.get("found") is not False
        else None
    )
    if fault := fault or amiss(info, SAID.get(info.get("format"), {}), "its description"):
        raise SystemExit(f"{path}: {fault}{again}")
    return tensors, info


def doubtful(agreement: dict, pressed) -> list[str]:
    """What of a parsed video cannot be trusted, buttons and sticks (LEFT, RIGHT) by name: what
    agrees too little with the frames, and buttons that are down nearly always without a clear sign.
    agreement: of the metadata of its actions; pressed: bool [T, 16]."""
    down = dict(zip(BUTTONS, pressed.mean(0) if len(pressed) else np.zeros(16)))
    return [
        name
        for name, value in agreement.items()
        if value < (HELD_AGREES if down.get(name, 0) > HELD else AGREES)
    ]


def mapped(path, name: str) -> np.ndarray:
    """A uint8 tensor of an artefact, memory-mapped."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        begin, end = json.loads(f.read(length))[name]["data_offsets"]
    return (
        np.memmap(path, np.uint8, "r", 8 + length + begin, (end - begin,))
        if end > begin
        else np.zeros(0, np.uint8)
    )


def finished(path, format: str, recipe: dict, fresh: bool = False) -> bool:
    """True if `path` already holds this very result.  A broken file is made anew, and one of
    another recipe in which nothing was found; else another recipe's is refused."""
    if fresh or not Path(path).exists():
        return False
    try:
        info = read(path, format)[1]
    except SystemExit as e:
        print(f"{e} -> making it anew", file=sys.stderr)
        return False
    was, now = info.get("recipe") or {}, json.loads(json.dumps(recipe))
    if was == now:
        return True
    if info.get("found") is False:
        return False
    other = [
        k if k == "source" else f"{k} ({was.get(k)!r}, now {now[k]!r})"
        for k in now
        if was.get(k) != now[k]
    ]
    raise SystemExit(
        f"{path}: made with another {', '.join(other) or 'recipe'}; --fresh replaces it, another --out keeps both"
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
