"""Broken and hostile input: seeded mutations of every kind of file that the stages read, in child
processes with bounded time and memory.

    python tests/test_fuzz.py KIND SEED COUNT       one child; what it was reading when it died
                                                    lies in the file `input`

Each input must be read, or end in SystemExit with one clear line (ValueError where a function says
so); whatever a library makes of it, a crash of the process included, is a failure.  Nothing may be
written but below the folder that was given, and memory stays within bounds.
"""

import contextlib
import gzip
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from common import ROOT, artefact
from common.inputs import expand
from common.pictures import VideoWriter, read_video, video_facts
from common.shards import Shards, decode, manifest
from common.video import Video

import numpy as np
import pytest

import filter
from interop import dataset

ROOM = 700  # MB that a child may take beyond what it has when it begins
PATIENCE = 60  # s per input, on a loaded machine


# ---- mutations -----------------------------------------------------------------------------------

HOSTILE = (
    None,
    True,
    -1,
    0,
    1,
    3,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    2**31,
    2**63,
    -(2**63),
    10**400,
    "",
    "x" * 1000,
    "../../escaped",
    "\0",
    "é\ud800",
    [],
    {},
    [[]],
    [None] * 3,
    [1, 2],
    {"": None},
    {"x": {"y": []}},
    ["a"] * 300,
)


def mutated(rng, blob: bytes) -> bytes:
    """One to four of: other bytes, numbers at their limits, slices that are cut out, doubled,
    moved, zeroed or random; half of it near the start.
    """
    out = bytearray(blob)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        limit = len(out) if rng.random() < 0.5 else min(len(out), 512)
        at, n = int(rng.integers(limit)), int(min(rng.geometric(0.02), len(out)))
        kind = rng.integers(8)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            size = int(2 ** rng.integers(4))
            out[at : at + size] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) * size
        elif kind == 2:
            del out[at : at + n]
        elif kind == 3:
            out[at:at] = out[at : at + n]
        elif kind == 4:
            out[at : at + n] = bytes(n)
        elif kind == 5:
            out[at : at + n] = rng.bytes(n)
        elif kind == 6:
            to = int(rng.integers(len(out)))
            out[to:to] = out[at : at + n]
        else:
            del out[int(rng.integers(len(out))) if rng.random() < 0.5 else at :]
    return bytes(out)


def nodes(value, path=()):
    yield path
    for k in (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield from nodes(value[k], (*path, k))


def mutated_json(rng, value):
    """One to three of its nodes become something else, or go."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.integers(1, 4)):
        there = list(nodes(value))
        *path, last = there[rng.integers(1, len(there))] if len(there) > 1 else ("",)
        place = value
        for k in path:
            place = place[k]
        if not isinstance(place, (dict, list)) or not place:
            continue
        if rng.random() < 0.2 and not (isinstance(place, list) and rng.random() < 0.5):
            del place[last]
        else:
            place[last] = json.loads(json.dumps(HOSTILE[rng.integers(len(HOSTILE))]))
    return value


def header_mutated(rng, blob: bytes) -> bytes:
    """A safetensors file whose header says something else, in its tensors or in its description,
    and is well formed.
    """
    n = int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8 : 8 + n]), blob[8 + n :]
    if rng.random() < 0.5:
        header = mutated_json(rng, header)
    else:
        header["__metadata__"]["json"] = json.dumps(
            mutated_json(rng, json.loads(header["__metadata__"]["json"]))
        )
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def either(rng, blob: bytes) -> bytes:
    return header_mutated(rng, blob) if rng.random() < 0.6 else mutated(rng, blob)


# ---- the kinds of files: what is whole, how it is mutated, who reads it --------------------------


def pad_rows(T=12):
    rng = np.random.default_rng(0)
    return {
        "buttons": (rng.random((T, 16)) < 0.5).astype(np.float16),
        "sticks": rng.uniform(-1, 1, (T, 4)).astype(np.float32),
        "shown": np.ones(20, bool),
        "confidence": np.ones(T, np.float16),
        "time": np.arange(T) / 30,
    }


def film(path, frames=12, w=64, h=48):
    rng = np.random.default_rng(0)
    with VideoWriter(path, 30, w, h) as out:
        for i in range(frames):
            out.write(np.roll(rng.integers(0, 255, (h, w, 3), dtype=np.uint8), i, 1))
    return Path(path)


class Artefacts:
    """Overlay, actions, shard and index files, and all that reads them without torch."""

    def __init__(self):
        film("clip.mp4")
        artefact.write(
            "w/clip.actions.safetensors",
            pad_rows(),
            "nitrogen.actions/1",
            unit="grid",
            template="ps4-plain",
        )
        artefact.write(
            "w/clip.overlay.safetensors",
            {
                "affine": np.eye(2, 3, dtype=np.float32)[None],
                "corners": np.zeros((1, 4, 2), np.float32),
                "span": np.array([[0, 11]]),
                "bbox": np.array([[4, 4, 20, 10]], np.int32),
                "median": np.zeros((1, 6, 10, 3), np.uint8),
                "atlas": np.zeros((6, 10, 4), np.uint8),
            },
            "nitrogen.overlay/1",
            found=True,
        )
        self.config = filter.Config(
            videos=("clip.mp4",), labels="w", out="w/shards", horizon=2, validation=0.0
        )
        filter.filter_video("clip.mp4", self.config)
        self.whole = {
            k: Path(f"w/{k}").read_bytes()
            for k in (
                "clip.actions.safetensors",
                "clip.overlay.safetensors",
                "shards/clip-000.safetensors",
            )
        }

    def make(self, rng, i):
        self.name = list(self.whole)[i % 3]
        return either(rng, self.whole[self.name])

    def read(self, blob):
        for name, whole in self.whole.items():
            Path("w", name).write_bytes(blob if name == self.name else whole)
        if "shards" in self.name:
            shards = Shards("w/shards", "train", 2, 30, 1)
            for k in (0, len(shards) - 1) if len(shards) else ():
                jpeg, buttons, sticks, mask, game = shards[k]
                assert (
                    buttons.shape == (2, 16)
                    and sticks.shape == (2, 4)
                    and mask.shape == (20,)
                    and isinstance(game, str)
                )
                assert decode(np.asarray(jpeg), 128).shape == (128, 128, 3)
            manifest("w/shards")
            filter.inspect(f"w/{self.name}")
        else:
            with contextlib.suppress(SystemExit):
                filter.filter_video(
                    "clip.mp4",
                    filter.Config(
                        videos=("clip.mp4",), labels="w", out="w/again", horizon=2, fresh=True
                    ),
                )
            artefact.show(f"w/{self.name}")


class Networks:
    """Weights of the policy and of the parser, and an overlay file that a video is parsed by."""

    def __init__(self):
        import torch

        import model
        import parse

        torch.manual_seed(0)
        net = model.NitroGen(
            model.Config(
                image=16,
                patch=8,
                width=16,
                head_width=8,
                vision_layers=1,
                mixer_layers=1,
                dit_layers=2,
                positions=4,
                horizon=4,
            )
        )
        model.save("policy.safetensors", net.state_dict(), net)
        small = parse.Net(
            widths=(8, 8, 8, 8),
            depths=(1, 1, 1, 1),
            heads=(1, 1, 1, 1),
            decoder=8,
            detail=4,
            head=4,
        )
        weights = {k: v.numpy() for k, v in parse.Parser(small).state_dict().items()}
        artefact.write(
            "parser.safetensors", weights, "nitrogen.parser/1", net=parse.dataclasses.asdict(small)
        )
        layout = {
            "size": [100, 60],
            "buttons": {"SOUTH": [60, 20, 10, 10], "START": [40, 10, 8, 8]},
            "sticks": {"LEFT": [20, 30, 8, 20, 20]},
        }
        elements = [
            {
                "kind": kind,
                "id": id,
                "pos": pos,
                "mapping": spot,
                "radius": radius,
                "click": True,
                "trail": [],
            }
            for kind, id, pos, spot, radius in (
                ("button", "SOUTH", [60, 20], [0, 0, 10, 10], 0),
                ("button", "START", [40, 10], [20, 0, 8, 8], 0),
                ("stick", "LEFT", [10, 20], [40, 0, 20, 20], 8.0),
            )
        ]
        atlas = np.random.default_rng(0).integers(0, 256, (43, 60, 4), np.uint8)
        artefact.write(
            "clip.overlay.safetensors",
            {
                "affine": np.array([[[0.3, 0, 4], [0, 0.3, 4]]], np.float32),
                "corners": np.zeros((1, 4, 2), np.float32),
                "span": np.array([[0, 11]]),
                "bbox": np.array([[4, 4, 30, 18]], np.int32),
                "median": np.zeros((1, 18, 30, 3), np.uint8),
                "atlas": atlas,
            },
            "nitrogen.overlay/1",
            found=True,
            template="t",
            family="f",
            layout=layout,
            elements=elements,
        )
        film("clip.mp4")
        self.names = ("policy", "parser", "clip.overlay")
        self.whole = [Path(f"{name}.safetensors").read_bytes() for name in self.names]
        self.model, self.parse = model, parse
        model.load("policy.safetensors", "cpu")  # torch imports the rest of itself

    def make(self, rng, i):
        self.name = self.names[i % 3]
        return either(rng, self.whole[i % 3])

    def read(self, blob):
        for name, whole in zip(self.names, self.whole, strict=False):
            Path(f"{name}.safetensors").write_bytes(blob if name == self.name else whole)
        if self.name == "policy":
            self.model.load("policy.safetensors", "cpu")
        elif self.name == "parser":
            self.parse.load("parser.safetensors")
        else:
            self.parse.parse_video(
                "clip.mp4",
                self.parse.Config(
                    videos=("clip.mp4",),
                    out=".",
                    weights="parser.safetensors",
                    fresh=True,
                    device="cpu",
                ),
            )
        self.model.inspect(f"{self.name}.safetensors")


class Jpegs:
    def __init__(self):
        import cv2

        picture = cv2.resize(
            np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8), (256, 256)
        )
        self.whole = [
            cv2.imencode(suffix, picture, flags)[1].tobytes()
            for suffix, flags in (
                (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
                (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
                (".png", []),
                (".tiff", []),
                (".bmp", []),
            )
        ]

    def make(self, rng, i):
        blob = bytearray(self.whole[i % len(self.whole)] if i % 3 else self.whole[0])
        # a size that takes gigabytes
        for marker in (b"\xff\xc0", b"\xff\xc2") if rng.random() < 0.3 else ():
            if (at := blob.find(marker)) > 0:
                blob[at + 5 : at + 9] = (
                    b"\xff\xff\xff\xff",
                    b"\x40\x00\x40\x00",
                    b"\xff\x00\x01\x00",
                )[rng.integers(3)]
        return mutated(rng, bytes(blob))

    def read(self, blob):
        for side in (256, 128, 64):
            assert decode(np.frombuffer(blob, np.uint8), side).shape == (side, side, 3)


class Skins:
    """OBS presets and pictures with boxes; what is read must draw, pack and describe itself."""

    def __init__(self):
        from templates import presets as reader, render

        self.presets, self.render, folder = reader, render, ROOT / "assets/skins"
        presets = sorted(p for p in folder.rglob("*.json") if p.name != "nitrogen.json")[:4]
        self.whole = [
            (
                json.loads(p.read_text("utf-8-sig")),
                next(
                    q for q in sorted(p.parent.glob("*.png")) if q.stem.startswith(p.stem)
                ).read_bytes(),
            )
            for p in presets
        ]
        ok, png = reader.cv2.imencode(
            ".png", np.random.default_rng(0).integers(0, 255, (60, 100, 4), dtype=np.uint8)
        )
        self.whole.append(
            (
                {
                    "idle": "skin.png",
                    "buttons": {"SOUTH": [4, 4, 20, 20], "START": [40, 4, 10, 10]},
                    "sticks": {"LEFT": [60, 20, 24, 24, 6]},
                },
                png.tobytes(),
            )
        )

    def make(self, rng, i):
        data, png = self.whole[i % len(self.whole)]
        which = rng.integers(4)
        more = (
            mutated_json(rng, {"family": "switch", "positions": "codes", "codes": {"16": "START"}})
            if which == 3
            else None
        )
        text = json.dumps(mutated_json(rng, data) if which in (0, 3) else data).encode()
        self.files = {
            "skin.json": mutated(rng, text) if which == 1 else text,
            "skin.png": mutated(rng, png) if which == 2 else png,
        }
        self.files |= {"nitrogen.json": json.dumps(more).encode()} if more is not None else {}
        return b"".join(self.files.values())

    def read(self, _):
        folder = Path("skins")
        folder.mkdir(exist_ok=True)
        for name in ("skin.json", "skin.png", "nitrogen.json"):
            (folder / name).write_bytes(self.files[name]) if name in self.files else (
                folder / name
            ).unlink(missing_ok=True)
        self.presets.load_skins.cache_clear()
        for template in self.presets.read_skins(folder).values():
            assert max(template.size) <= 2 * self.presets.LARGE
            assert self.render.draw(template, np.ones(16), np.ones(4), 0.2).ndim == 3
            json.dumps(self.render.layout(template))


def chunk_metadata() -> dict:
    return {
        "uuid": "u",
        "chunk_id": "0",
        "chunk_size": 12,
        "game": "Celeste",
        "controller_type": "xbox",
        "bbox_controller_overlay": [0, 0, 100, 50],
        "bbox_game_area": [0, 0, 600, 400],
        "bbox_others": [[1, 2, 3, 4]],
        "original_video": {
            "resolution": [720, 1280],
            "video_id": "clip",
            "source": "s",
            "url": "https://example.org/v",
            "start_time": 0.0,
            "end_time": 0.4,
            "duration": 0.4,
            "start_frame": 0,
            "end_frame": 12,
        },
    }


def parquets() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    columns = {n: [bool(i % 3) for i in range(12)] for n in dataset.COLUMNS[:16]} | {
        n: [[0.1 * i - 1, 0.5] for i in range(12)] for n in dataset.COLUMNS[16:]
    }
    out = []
    for options in (
        {},
        {"compression": "gzip"},
        {"use_dictionary": False, "compression": "none"},
        {"data_page_version": "2.0", "compression": "zstd"},
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), file := io.BytesIO(), **options)
        out.append(file.getvalue())
    return out


class Parquet:
    refuses = ValueError

    def __init__(self):
        self.whole = parquets()

    def make(self, rng, i):
        blob = self.whole[i % len(self.whole)]
        # the footer, which says how to read the rest
        cut = len(blob) - int.from_bytes(blob[-8:-4], "little") - 8
        return (
            blob[:cut] + mutated(rng, blob[cut:-8]) + blob[-8:]
            if rng.random() < 0.4
            else mutated(rng, blob)
        )

    def read(self, blob):
        for column in dataset.read_parquet(blob).values():
            assert column.dtype == np.float32 and np.isfinite(column).all()


class Metadata:
    refuses = ValueError

    def __init__(self):
        self.whole = chunk_metadata()

    def make(self, rng, i):
        text = json.dumps(mutated_json(rng, self.whole)).encode()
        return text if rng.random() < 0.7 else mutated(rng, text)

    def read(self, blob):
        facts = dataset.chunk_facts(blob)
        dataset.frame_numbers(facts, 12, 30.0)
        json.dumps(facts)


class Archives:
    """tar.gz: honest members among hostile ones, then mutated inside and outside of the
    compression; inspected and imported.
    """

    def __init__(self):
        film("clip.mp4")
        self.parquet = parquets()[0]

    def make(self, rng, i):
        with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as tar:
            for k in range(rng.integers(1, 4)):
                meta = (
                    chunk_metadata() if rng.random() < 0.7 else mutated_json(rng, chunk_metadata())
                )
                folder = rng.choice(
                    [
                        "SHARD_0/clip/clip_chunk_0000",
                        "../../x/clip/../../..",
                        "/abs/clip/clip_chunk_0001",
                        "a/" * 60 + "clip/c",
                        "clip/..",
                        "C:\\clip\\c",
                        f"SHARD_0/clip/clip_chunk_{k:04d}",
                    ]
                )
                for name, blob in (
                    ("metadata.json", json.dumps(meta).encode()),
                    ("actions_raw.parquet", self.parquet),
                ):
                    member = tarfile.TarInfo(f"{folder}/{name}")
                    member.type = rng.choice(
                        [tarfile.REGTYPE] * 6
                        + [
                            tarfile.SYMTYPE,
                            tarfile.LNKTYPE,
                            tarfile.CHRTYPE,
                            tarfile.FIFOTYPE,
                            tarfile.GNUTYPE_SPARSE,
                        ]
                    )
                    member.linkname, member.size = "/etc/passwd", len(blob)
                    tar.addfile(member, io.BytesIO(blob))
        raw = file.getvalue()
        raw = mutated(rng, raw) if rng.random() < 0.5 else raw
        packed = gzip.compress(raw, 1)
        return mutated(rng, packed) if rng.random() < 0.4 else packed

    def read(self, blob):
        Path("SHARD_0000.tar.gz").write_bytes(blob)
        with contextlib.suppress(SystemExit):
            filter.inspect(Path("SHARD_0000.tar.gz"))
        filter.run(
            filter.Config(
                nitrogen="SHARD_0000.tar.gz",
                videos=("clip.mp4",),
                labels="labels",
                out="shards",
                horizon=2,
                min_active=0,
                fresh=True,
                segment_seconds=1,
            )
        )


class Videos:
    """MPEG-4 in mp4, VP8 in webm, MJPEG in avi: counted, read to the end, and sampled as extract.py
    does.
    """

    def __init__(self):
        import cv2

        self.whole = {".mp4": film("clip.mp4").read_bytes()}
        for suffix, codec in ((".webm", "VP80"), (".avi", "MJPG"), (".mkv", "XVID")):
            out = cv2.VideoWriter(
                f"clip{suffix}", cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 30, (64, 48)
            )
            for i in range(12):
                out.write(
                    np.roll(
                        np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8), i, 1
                    )
                )
            out.release()
            self.whole[suffix] = Path(f"clip{suffix}").read_bytes()

    def make(self, rng, i):
        self.suffix = list(self.whole)[i % len(self.whole)]
        blob = self.whole[self.suffix]
        # its header lies at the end
        if self.suffix == ".mp4" and rng.random() < 0.6 and (at := blob.find(b"moov")) > 0:
            return blob[:at] + mutated(rng, blob[at:])
        return mutated(rng, blob)

    def read(self, blob):
        path = f"input{self.suffix}"
        Path(path).write_bytes(blob)
        video_facts(path)
        assert all(frame.ndim == 3 and frame.dtype == np.uint8 for _, _, frame in read_video(path))
        Video(path).sample(5)


class Lists:
    """What people and runs leave beside the data: manifest.json, @list.txt, a table of tasks,
    report.json.
    """

    def __init__(self):
        from live import open_games

        self.open_games = open_games
        self.whole = {
            "folder/manifest.json": {
                "format": "nitrogen.manifest/1",
                "videos": {
                    "clip": {
                        "game": "g",
                        "split": "train",
                        "fps": 30.0,
                        "rows": 12,
                        "known": 12,
                        "kept": 12,
                        "segments": [1, 1],
                        "shards": 1,
                        "chunks": 9,
                        "lag": {"frames": 1, "seconds": 0.03, "confidence": 9.0},
                        "files": {"clip-000.safetensors": 10},
                    }
                },
            },
            "table.json": {
                "boss": {
                    "goal": "win",
                    "command": ["true"],
                    "fps": 60,
                    "seconds": 2,
                    "keys": {"SOUTH": "z"},
                    "start": [5, "START"],
                    "score": {"stderr": "score (\\d+)", "from": 0, "goal": 10},
                }
            },
        }

    def make(self, rng, i):
        self.name = list(self.whole)[i % 2]
        text = json.dumps(mutated_json(rng, self.whole[self.name])).encode()
        return text if rng.random() < 0.7 else mutated(rng, text)

    def read(self, blob):
        Path("folder").mkdir(exist_ok=True)
        Path(self.name).write_bytes(blob)
        if self.name == "table.json":
            self.open_games.open_table("table.json")
        else:
            filter.inspect(Path("folder"))
        Path("list.txt").write_bytes(blob)
        expand(["@list.txt"])


KINDS = {
    kind.__name__.lower(): kind
    for kind in (Artefacts, Networks, Jpegs, Skins, Parquet, Metadata, Archives, Videos, Lists)
}


# ---- the child -----------------------------------------------------------------------------------


def child(kind: str, seed: int, count: int) -> None:
    reader, read, slowest = KINDS[kind](), 0, (0.0, 0)

    def memory():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    before = memory()
    for i in range(count):
        blob = reader.make(np.random.default_rng([seed, i]), i)
        Path("input").write_bytes(blob)
        signal.alarm(PATIENCE)  # no handler: it ends the process, also within a library
        began = time.perf_counter()
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                reader.read(blob)
            read += 1
        except (SystemExit, getattr(reader, "refuses", SystemExit)) as e:
            line = str(e)
            assert 5 < len(line) < 2000 and "\n" not in line.strip() and "Traceback" not in line, (
                f"input {i}: not one clear line: {line!r}"
            )
        except BaseException:
            print(f"input {i} of {kind}, seed {seed}", file=sys.stderr)
            raise
        slowest = max(slowest, (round(time.perf_counter() - began, 2), i))
        assert memory() < before + ROOM, f"input {i}: {memory() - before} MB"
    signal.alarm(0)
    print(json.dumps({"inputs": count, "read": read, "slowest": slowest, "MB": memory() - before}))


def fuzz(kind: str, seed: int, count: int, folder: Path, timeout: float) -> dict:
    inside = folder / "inside"
    inside.mkdir()
    (folder / "canary").write_text("whole")
    run = subprocess.run(
        [sys.executable, __file__, kind, str(seed), str(count)],
        cwd=inside,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}",
            "OMP_NUM_THREADS": "1",
            "OPENCV_FFMPEG_LOGLEVEL": "-8",
            "OPENCV_LOG_LEVEL": "OFF",
        },
    )
    assert run.returncode == 0, (
        f"{kind}: status {run.returncode}; the input: {inside}/input\n{run.stderr[-3000:]}"
    )
    # nothing outside
    assert (
        sorted(p.name for p in folder.iterdir()) == ["canary", "inside"]
        and (folder / "canary").read_text() == "whole"
    )
    return json.loads(run.stdout.splitlines()[-1])


COUNTS = {
    "artefacts": 300,
    "networks": 150,
    "jpegs": 500,
    "skins": 125,
    "parquet": 750,
    "metadata": 1500,
    "archives": 100,
    "videos": 150,
    "lists": 500,
}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_ends_in_one_line(kind, tmp_path):
    if kind in ("parquet", "archives"):
        pytest.importorskip("pyarrow")
    found = fuzz(kind, 1, COUNTS[kind], tmp_path, 600)
    # neither refuses all, nor takes all
    assert found["inputs"] == COUNTS[kind] and 0.01 < found["read"] / found["inputs"] < 0.97, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_broken_input_ends_in_one_line(kind, tmp_path):
    if kind in ("parquet", "archives"):
        pytest.importorskip("pyarrow")
    found = fuzz(kind, 2, 6 * COUNTS[kind], tmp_path, 3600)
    print(kind, found)


# ---- what a description must say, and flags that cannot be ---------------------------------------


def test_descriptions_by_hand():
    shard = {
        "videos": [{"name": "a", "game": "g", "fps": 30.0, "split": "train"}],
        "rate": 30.0,
        "horizon": 16,
        "shift": 1,
    }

    def said(**changes):
        return artefact.amiss({**shard, **changes}, artefact.METADATA["nitrogen.shard/1"])

    assert said() is None and said(counts=None, lag=None, more=[1]) is None
    assert said(rate=0) == "it: 'rate' should be a number in 0.01..10000, found 0"
    assert said(rate=float("nan")) and said(rate=True) and said(rate="30") and said(horizon=0)
    assert said(videos=[]) == "it: 'videos' should be a list of 1 or more, found []"
    assert (
        said(videos=[{"name": "a", "game": "\x1b[2J", "fps": 30.0, "split": "train"}])
        == "it: 'videos': 0: 'game' should be of type str, printable, found '\\x1b[2J'"
    )
    layout = {"layout": {"size": [100, 60], "buttons": {"SOUTH": [0, 0, 1, 1]}, "sticks": {}}}
    assert artefact.amiss(layout, artefact.METADATA["nitrogen.overlay/1"]) is None
    layout["layout"]["buttons"]["GUIDE"] = [0, 0, 1, 1]
    assert "'buttons' should be values of DPAD_UP, " in artefact.amiss(
        layout, artefact.METADATA["nitrogen.overlay/1"]
    )
    del layout["layout"]["buttons"]["GUIDE"], layout["layout"]["size"]
    assert (
        artefact.amiss(layout, artefact.METADATA["nitrogen.overlay/1"])
        == "it: 'layout': 'size' should be a list of 2, found None"
    )


@pytest.mark.parametrize(
    "stage, line, said",
    [
        ("filter", "a.mp4 --horizon 0", "--horizon 0: expected 1 to 10000"),
        ("filter", "a.mp4 --segment-seconds nan", "--segment-seconds nan: expected"),
        ("filter", "a.mp4 --rate 0", "--rate 0: expected"),
        ("filter", "a.mp4 --shift -3", "--shift -3: expected"),
        ("filter", "a.mp4 --rows-per-shard 0", "expected 1 to"),
        ("train", "--data d --batch 0 --device cpu", "--batch 0: expected 1 to 1e+09"),
        ("train", "--data d --out file/x", "file/x/.lock: cannot be written"),
        ("filter", "--inspect folder", "folder/manifest.json: no such file"),
        ("eval", "record --minutes nan", "--minutes nan: expected at least 0"),
        ("eval", "record --overlays nope", "no family such as nope"),
        ("eval", "speed --clips 0", "--clips 0: expected"),
        ("eval", "--inspect folder", "a folder, not a file"),
    ],
)
def test_flags_that_cannot_be(stage, line, said, tmp_path, monkeypatch):
    import importlib

    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir(), Path("file").touch()
    with pytest.raises(SystemExit) as e:
        importlib.import_module(stage).main(line.split())
    assert said in str(e.value) and "\n" not in str(e.value)


def test_ctrl_c_while_a_stage_is_imported(tmp_path):
    """Torch takes seconds to import: a module of that name that waits stands for it."""
    (tmp_path / "torch.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, ROOT / "train.py", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert run.stdout.readline() == "importing\n"
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60)[1].strip() == "interrupted" and run.returncode


@pytest.mark.parametrize("stage", ["extract", "parse", "filter", "model", "train", "sim", "eval"])
def test_a_missing_package_is_one_line(stage, tmp_path):
    """Python without this environment: -S leaves its packages out."""
    run = subprocess.run(
        [sys.executable, "-S", ROOT / f"{stage}.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and re.fullmatch(
        r"\w+ is not installed here: pip install -r \S+requirements.txt, or activate .*\n",
        run.stderr,
    ), run.stderr


def test_a_video_that_does_not_fit_is_none(tmp_path):
    """A limit on the size of files stands for a full disk, of which OpenCV says nothing: no broken
    video takes the name of a whole one.
    """
    code = (
        "import resource\nfrom common.pictures import VideoWriter\nimport numpy as "
        "np\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "with VideoWriter('a.mp4', 30, 320, 240) as out:\n    for i in range(20): "
        "out.write(np.random.default_rng(i).integers(0, 255, (240, 320, 3), dtype=np.uint8))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (
        run.returncode == 1
        and run.stderr.splitlines()[-1]
        == "a.mp4: could not be written to its end; is the disk full?"
        and not list(tmp_path.iterdir())
    )


# ---- kill -9 at any moment, and the same command again -------------------------------------------

RUNS = [  # stage, its command, what it makes
    (
        "record",
        "eval.py record --out videos --games ridge --minutes 0.15 --seconds 3 --workers 2",
        ["videos/*.mp4", "videos/*.truth.safetensors"],
    ),
    ("extract", "extract.py videos --out labels --workers 2", ["labels/*.overlay.safetensors"]),
    (
        "parse",
        "parse.py videos --out labels --preview --device cpu",
        ["labels/*.actions.safetensors", "labels/*.preview.mp4"],
    ),
    (
        "filter",
        "filter.py videos --labels labels --out shards --horizon 16 --min-active 0 --validation 0 "
        "--rows-per-shard 50",
        ["shards/*"],
    ),
    (
        "train",
        "train.py --config tiny --data shards --out run --steps 40 --batch 8 --micro 8 --draws 1 "
        "--warmup 4 --save-every 8 --log-every 8 --workers 1 --device cpu",
        ["run/model.safetensors", "run/state.safetensors", "run/log.jsonl"],
    ),
    (
        "play",
        "eval.py play --policy ../whole/run/model.safetensors --games ridge --tasks combat --seeds "
        "1 --workers 2 --out play --device cpu",
        ["play/report.json", "play/films/*", "play/episodes/*"],
    ),
]
TIMES = {"frames_per_s"}  # what the clock on the wall says


def contents(path: Path):
    """What must not depend on interruptions: all bytes; of weights and reports, all but times."""

    def timeless(v):
        return (
            {k: timeless(x) for k, x in v.items() if k not in TIMES}
            if isinstance(v, dict)
            else list(map(timeless, v))
            if isinstance(v, list)
            else v
        )

    if path.parent.name == "run" and path.suffix == ".safetensors":
        tensors, info = artefact.read(path)
        return {k: v.tobytes() for k, v in tensors.items()}, timeless(info)
    if path.suffix in (".json", ".jsonl"):
        return [
            timeless(json.loads(line))
            for line in (
                path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            )
        ]
    return path.read_bytes()


def begin(command: str, folder: Path) -> subprocess.Popen:
    script, *args = command.split()
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen(
            [sys.executable, ROOT / script, *args],
            cwd=folder,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def alive(session: int) -> list:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            state, _, _, its = text.rpartition(")")[2].split()[:4]
            found += [text] if int(its) == session and state not in "ZX" else []
    return found


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again(tmp_path):
    """Each stage undisturbed in one folder; in another killed three times, alone or with all its
    processes, and run to the end: the same files, and no process is left over."""
    whole, killed, rng = (
        tmp_path / "whole",
        tmp_path / "killed",
        np.random.default_rng(int(os.environ.get("SEED", 0))),
    )
    whole.mkdir(), killed.mkdir()
    for stage, command, made in RUNS:
        began = time.monotonic()
        assert begin(command, whole).wait() == 0, (stage, (whole / "said.txt").read_text()[-2000:])
        took, deaths = time.monotonic() - began, []
        for _ in range(20):
            began, run = time.monotonic(), begin(command, killed)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(took * rng.uniform(0.1, 0.9))
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL) if rng.random() < 0.5 else run.kill()
            deaths.append(run.wait())
            deadline = time.monotonic() + 20
            while alive(run.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not alive(run.pid), (stage, alive(run.pid))
            # it ended sooner (the first had the index of templates to make): from nothing again, by
            # its time
            if deaths[-1] == 0:
                took = time.monotonic() - began
                for path in [path for pattern in made for path in killed.glob(pattern)]:
                    path.unlink()
            if deaths.count(-signal.SIGKILL) == 3:
                break
        assert set(deaths) <= {0, -signal.SIGKILL} and deaths.count(-signal.SIGKILL) == 3, (
            stage,
            deaths,
        )
        assert begin(command, killed).wait() == 0, (
            stage,
            (killed / "said.txt").read_text()[-2000:],
        )
        names = [
            sorted(
                p.relative_to(folder)
                for pattern in made
                for p in folder.glob(pattern)
                if not p.name.startswith(".")
            )
            for folder in (whole, killed)
        ]
        assert names[0] == names[1] and len(names[0]) >= len(made)
        for name in names[0]:
            assert contents(whole / name) == contents(killed / name), (
                f"{stage}: {name} is not the same after {deaths}"
            )


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
