"""sim.py: any unmodified game as a Gymnasium environment, stepped frame by frame under a controlled clock.

Part 1 is what every stage shares: the gamepad, the artefact format, the command line, video files, for_each.
Part 2 is the simulator: clock hook, gamepad devices, screens, GameEnv (paper section 3.3).
Needs numpy only at import; never imports torch, so it runs wherever a game runs.

    python sim.py doctor                                       what works on this machine
    python sim.py bench  [-- COMMAND ARG...]                   steps per second, cost of the hook

    env = sim.GameEnv([sys.executable, "games/ridge.py", "--seed", "{seed}"], fps=30)
    frame, info = env.reset(seed=0)                            frame: uint8 [256, 256, 3] RGB
    frame, reward, terminated, truncated, info = env.step({"buttons": buttons, "sticks": sticks})
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import hashlib
import inspect as pyinspect
import json
import os
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent


# ======================================================================================================
# Part 1: what every stage shares
# ======================================================================================================
# ---- the gamepad -------------------------------------------------------------------------------------
# Positions, not printed letters: SOUTH is the lowest face button on any pad.  Sticks in [-1, 1], y down.

BUTTONS = ("DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "SOUTH", "EAST", "WEST", "NORTH",
           "LEFT_SHOULDER", "RIGHT_SHOULDER", "LEFT_TRIGGER", "RIGHT_TRIGGER",
           "LEFT_THUMB", "RIGHT_THUMB", "BACK", "START")
STICKS = ("LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")
FRAME = 256                                    # side of the square RGB frame that the policy sees, px


# ---- artefacts: safetensors that describe themselves ---------------------------------------------------
# Per format: tensor name -> (dtype, dimensions, what it is: unit and range).  Equal letters, equal sizes.

FORMATS = {
    "nitrogen.overlay/1": {
        "affine": ("float32", "P 2 3", "template px -> frame px"),
        "corners": ("float32", "P 4 2", "frame px, clockwise from the top left"),
        "bbox": ("int32", "P 4", "x, y, w, h in frame px"),
        "span": ("int64", "P 2", "first and last frame"),
        "median": ("uint8", "P h w 3", "temporal median of the registered crop, RGB"),
    },
    "nitrogen.actions/1": {
        "buttons": ("float16", "T 16", "probability of being pressed, 0..1"),
        "sticks": ("float32", "T 4", "see the metadata's unit"),
        "shown": ("bool", "20", "buttons, then axes, that exist on this overlay"),
        "confidence": ("float16", "T", "0..1"),
        "time": ("float64", "T", "seconds"),
    },
    "nitrogen.shard/1": {
        "jpeg": ("uint8", "bytes", "frame i is jpeg[offset[i]:offset[i + 1]], 256 x 256"),
        "offset": ("int64", "R1", "byte offsets, R + 1 of them"),
        "buttons": ("uint8", "R 16", "0 or 1"),
        "sticks": ("float32", "R 4", "-1..1, y down"),
        "mask": ("bool", "V 20", "what each video's overlay shows: buttons, then axes"),
        "video": ("int32", "R", "row's video, 0..V-1"),
        "frame": ("int64", "R", "row's frame number in its video"),
        "time": ("float64", "R", "seconds"),
        "start": ("int64", "M", "rows from which a chunk may begin"),
    },
    "nitrogen.policy/1": None,                 # model weights: names and shapes follow from the config
    "nitrogen.parser/1": None,
    "nitrogen.state/1": None,                  # what train.py needs to resume
}
RANGES = {"buttons": (0, 1), "confidence": (0, 1)}
MAKER = {"overlay": "python extract.py VIDEO", "actions": "python parse.py VIDEO", "shard": "python filter.py VIDEO",
         "policy": "python train.py", "parser": "python parse.py train", "state": "python train.py"}


def write(path, tensors: dict, format: str, **info) -> None:
    """Write numpy tensors and a JSON description atomically: a reader never sees half a file.

    `info` must be JSON-able; dimensions, dtypes and units are added.  The file appears under its name only when complete.
    """
    from safetensors.numpy import save
    path = Path(path)
    spec = FORMATS[format] or {}
    info = {"format": format, **info, "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "tensors": {k: f"{v.dtype} {list(v.shape)} {spec[k][1] + ': ' + spec[k][2] if k in spec else ''}".strip()
                        for k, v in tensors.items()}}
    fault = check(tensors, spec) if not info.get("found") is False else None
    assert not fault, f"{path}: {fault}"
    blob = save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"json": json.dumps(info)})
    write_bytes(path, blob)


def write_bytes(path, blob: bytes) -> None:
    """Temporary name in the same folder, flush, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as f:
            f.write(blob)
            f.flush()
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
        if v.dtype.kind == "f" and v.size and not (np.isfinite(v).all() and v.min() >= lo and v.max() <= hi):
            return f"tensor '{name}' leaves its range {lo}..{hi}"
    return None


def read(path, format: str | None = None) -> tuple[dict, dict]:
    """(tensors, info) of an artefact; SystemExit with one line if it is not what `format` says.

    Tensors are numpy arrays; nothing in the file is ever executed.
    """
    path = Path(path)
    kind = format.split(".")[1].split("/")[0] if format else ""
    again = f"; make it anew: {MAKER[kind]}" if kind in MAKER else ""
    if not path.exists():
        raise SystemExit(f"{path}: no such file{again}")
    try:
        from safetensors import safe_open
        with safe_open(path, "numpy") as f:
            info = json.loads((f.metadata() or {}).get("json", "{}"))
            if not isinstance(info, dict):
                raise ValueError("its description is not a JSON object")
            tensors = {k: f.get_tensor(k) for k in f.keys()} if not format or info.get("format") == format else {}
    except Exception as e:
        raise SystemExit(f"{path}: not a readable safetensors file ({str(e).splitlines()[0][:120]}){again}") from None
    if format and info.get("format") != format:
        raise SystemExit(f"{path}: expected a {format} file, found {info.get('format', 'no format')!r}{again}")
    fault = check(tensors, FORMATS.get(info.get("format")) or {}) if info.get("found") is not False else None
    if fault:
        raise SystemExit(f"{path}: {fault}{again}")
    return tensors, info


def mapped(path, name: str) -> np.ndarray:
    """A uint8 tensor of an artefact, memory-mapped: nothing is read until it is used."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        begin, end = json.loads(f.read(length))[name]["data_offsets"]
    return np.memmap(path, np.uint8, "r", 8 + length + begin, (end - begin,)) if end > begin else np.zeros(0, np.uint8)


def finished(path, format: str, recipe: dict, fresh: bool = False) -> bool:
    """True if `path` already holds this very result.  A broken file is made anew; another recipe's is refused."""
    if fresh or not Path(path).exists():
        return False
    try:
        info = read(path, format)[1]
    except SystemExit as e:
        print(f"{e} -> making it anew", file=sys.stderr)
        return False
    if info.get("recipe") == json.loads(json.dumps(recipe)):
        return True
    other = [k for k in recipe if (info.get("recipe") or {}).get(k) != json.loads(json.dumps(recipe[k]))]
    raise SystemExit(f"{path}: made with another {', '.join(other) or 'recipe'}; give another --out, or --fresh to replace it")


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


# ---- command line: generated from a dataclass -----------------------------------------------------------

@dataclass(frozen=True)
class Common:
    """Flags that every stage has."""
    seed: int = 0                   # every random number follows from it
    device: str = "auto"            # auto, cpu, cuda or mps
    fresh: bool = False             # replace finished outputs


INCIDENTAL = {"device", "fresh", "videos", "out", "workers", "labels", "sheet", "preview", "command"}


def recipe(cfg, *sources) -> dict:
    """What decides a result: the Config's fields, less those that only say where and how fast, and the inputs."""
    return {**{k: v for k, v in dataclasses.asdict(cfg).items() if k not in INCIDENTAL},
            "source": [source(p) for p in sources]}


def command_line(doc: str, commands: dict, argv=None):
    """Run one of `commands`: name -> (Config class or dict of presets, function(cfg)); "" is the default.

    Flags come from the dataclass's fields, their help from the trailing comments.  Fields of type tuple[str, ...]
    are positional, except `command`: what follows `--`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    rest = ()
    if "--" in argv:
        cut = argv.index("--")
        argv, rest = argv[:cut], tuple(argv[cut + 1:])
    named = bool(argv) and argv[0] in commands and argv[0] != ""
    if not named and "" not in commands and not ({"-h", "--help", "--inspect"} & set(argv)):
        found = f"unknown command '{argv[0]}'" if argv else "no command given"
        raise SystemExit(f"{found}: expected one of {', '.join(commands)} (see --help)")
    name = argv.pop(0) if named else ""
    presets, run = commands.get(name, (Common, None))
    presets = presets if isinstance(presets, dict) else {"default": presets()}
    first = next(iter(presets.values()))
    others = [c for c in commands if c]
    parser = argparse.ArgumentParser(prog=f"python {Path(sys.argv[0]).name} {name}".strip(), description=doc,
                                     epilog=f"commands: {', '.join(others)}" if others and not name else None,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: sys.exit(f"{parser.prog}: {message} (see --help)")       # one line, status 1
    parser.add_argument("--inspect", metavar="FILE", help="print what an artefact is, and stop")
    if len(presets) > 1:
        parser.add_argument("--config", choices=presets, default=next(iter(presets)), help="preset (default: %(default)s)")
    hints, helps = typing.get_type_hints(type(first)), field_comments(type(first))
    for f in dataclasses.fields(first):
        text = f"{helps.get(f.name, '')} (default: {getattr(first, f.name)!r})".replace("%", "%%")
        flag = "--" + f.name.replace("_", "-")
        if f.name == "command":
            continue
        elif typing.get_origin(hints[f.name]) is tuple:
            parser.add_argument(f.name, nargs="*", metavar=f.name.rstrip("s").upper(), help=helps.get(f.name))
        elif hints[f.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            parser.add_argument(flag, type=hints[f.name], default=None, help=text, metavar=hints[f.name].__name__.upper())
    args = vars(parser.parse_args(argv))
    if args.pop("inspect"):
        return show(parser.parse_args(argv).inspect)
    cfg = presets[args.pop("config", None) or next(iter(presets))]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items() if v not in (None, [])}
    if any(f.name == "command" for f in dataclasses.fields(cfg)) and rest:
        given["command"] = rest
    elif rest:
        parser.error(f"nothing may follow '--' here: {' '.join(rest)}")
    try:
        return run(dataclasses.replace(cfg, **given))
    except KeyboardInterrupt:
        raise SystemExit("interrupted; finished work is kept, the same command goes on from there") from None


def field_comments(cls) -> dict:
    """Field name -> trailing comment, over a dataclass and its bases."""
    out = {}
    for c in reversed(cls.__mro__[:-1]):
        out.update(re.findall(r"^    (\w+): [^#\n]*#\s*(.+)$", pyinspect.getsource(c), re.M))
    return out


def pick_device(name: str) -> str:
    """auto -> cuda, mps or cpu, whichever is there; an explicit one is checked."""
    import torch
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(d for d, ok in there.items() if ok)
    if not there.get(name.split(":")[0], False):
        raise SystemExit(f"--device {name}: not on this machine (there: {', '.join(d for d, ok in there.items() if ok)})")
    return name


# ---- video files ------------------------------------------------------------------------------------------

def open_video(path):
    """cv2.VideoCapture of a readable video; SystemExit with one line otherwise."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")        # our own line says it better
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    import cv2
    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such video")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened() or not video.grab():
        raise SystemExit(f"{path}: not a readable video (empty, cut off, or not a video at all)")
    video.open(str(path))
    return video


def video_facts(path) -> dict:
    """frames (as the container says), fps, width, height."""
    import cv2
    video = open_video(path)
    facts = {"frames": int(video.get(cv2.CAP_PROP_FRAME_COUNT)), "fps": float(video.get(cv2.CAP_PROP_FPS)) or 30.0,
             "width": int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), "height": int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))}
    video.release()
    return facts


def read_video(path, only=None):
    """Yield (index, seconds, RGB uint8 [h, w, 3]) in order, in one pass; `only`: the wanted indices."""
    import cv2
    video, fps = open_video(path), video_facts(path)["fps"]
    wanted, i = None if only is None else set(int(k) for k in only), 0
    last = max(wanted, default=-1) if wanted is not None else None
    while last is None or i <= last:
        if wanted is None or i in wanted:
            ok, bgr = video.read()
            if not ok:
                break
            yield i, i / fps, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        elif not video.grab():
            break
        i += 1
    video.release()


class VideoWriter:
    """mp4 file (mp4v, what OpenCV's wheels can write); takes its name only when closed without an error."""

    def __init__(self, path, fps: float, width: int, height: int):
        import cv2
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.mp4")
        self.cv2, self.file = cv2, cv2.VideoWriter(str(self.part), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
        if not self.file.isOpened():
            raise SystemExit(f"{path}: OpenCV cannot write an mp4 of {width} x {height} here")

    def write(self, rgb) -> None:
        self.file.write(self.cv2.cvtColor(rgb, self.cv2.COLOR_RGB2BGR))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.file.release()
        if kind is None:
            os.replace(self.part, self.path)
        self.part.unlink(missing_ok=True)


# ---- many inputs ------------------------------------------------------------------------------------------

def for_each(fn, items, workers: int = 1, what: str = "videos") -> list:
    """[fn(item) for item in items], here or over worker processes, with one progress bar.

    A failure (also a crash of the worker) is reported and does not stop the rest; at the end SystemExit names all of them.
    `fn` must be picklable when workers > 1; equal items run once.
    """
    from tqdm import tqdm
    items = list(dict.fromkeys(items))
    if not items:
        raise SystemExit(f"no {what} given (see --help)")
    results, failed = {}, {}

    def note(item, call):
        try:
            results[item] = call()
        except (Exception, SystemExit) as e:
            failed[item] = str(e) if isinstance(e, SystemExit) else f"{item}: {type(e).__name__}: {e}"
            tqdm.write(failed[item], file=sys.stderr) if len(items) > 1 else None

    with tqdm(total=len(items), desc=what, unit=what.rstrip("s"), disable=len(items) == 1) as bar:
        if workers <= 1 or len(items) == 1:
            for item in items:
                note(item, functools.partial(fn, item))
                bar.update()
        else:
            threads = os.environ.get("OMP_NUM_THREADS")
            os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
            import multiprocessing
            spawn = multiprocessing.get_context("spawn")
            try:
                todo = items
                with concurrent.futures.ProcessPoolExecutor(min(workers, len(items)), spawn) as pool:
                    futures = {pool.submit(fn, item): item for item in todo}
                    for future in concurrent.futures.as_completed(futures):
                        if not isinstance(future.exception(), concurrent.futures.process.BrokenProcessPool):
                            note(futures[future], future.result)
                            bar.update()
                for item in [i for i in items if i not in results and i not in failed]:   # a worker died: one by one
                    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
                        note(item, pool.submit(fn, item).result)
                        bar.update()
            finally:
                os.environ.pop("OMP_NUM_THREADS", None)
                if threads:
                    os.environ["OMP_NUM_THREADS"] = threads
    if len(items) == 1 and failed:
        raise SystemExit(next(iter(failed.values())))
    if failed:
        raise SystemExit(f"{len(failed)} of {len(items)} {what} failed:\n  " + "\n  ".join(failed.values()))
    return [results[i] for i in items]


