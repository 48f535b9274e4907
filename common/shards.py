"""Shards, read: the chunks to train on, and what is in a folder (filter.py writes them)."""

from __future__ import annotations

import bisect
import dataclasses
import glob
import json
import re
import shlex
import sys
from pathlib import Path

from common import artefact
from common.history import of_rows
from common.times import whole_multiple

import numpy as np

REDO = f"make it anew: {artefact.MAKER['shard']} --fresh"


# ---- a folder of them ----------------------------------------------------------------------------


def manifest(folder) -> dict:
    """What is in a folder of shards, as the shards themselves say: {"videos": {name: game, split,
    counts, lag, files}, ...}.
    """
    videos = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            info = artefact.read(path, "nitrogen.shard/1")[1]
        except SystemExit as e:
            print(f"{e}; left out of the manifest", file=sys.stderr)
            continue
        about = info["videos"][0]
        facts = {name: about[name] for name in ("game", "split", "fps")}
        new = {**facts, **info.get("counts", {}), "files": {}}
        video = videos.setdefault(about["name"], new)
        video["files"][path.name] = path.stat().st_size
        video["lag"] = info.get("lag") or video.get("lag")
    return {"format": "nitrogen.manifest/1", "videos": videos}


def remove_others(paths: list[Path], stem: str) -> None:
    """A video's shards of an earlier run that made more of them."""
    for old in paths[0].parent.glob(f"{glob.escape(stem)}-*.safetensors"):
        if old not in paths and re.fullmatch(r"-\d{3,}", old.stem[len(stem) :]):
            old.unlink()


def write_manifest(folder) -> None:
    """manifest.json: all that is in the folder, also from other runs."""
    there = manifest(folder)
    if there["videos"]:
        text = json.dumps(there, indent=1)
        artefact.write_bytes(Path(folder) / "manifest.json", text.encode())


def in_words(info: dict) -> str:
    """What was kept of a video, by the metadata of its last shard."""
    n = info["counts"]
    lag = info["lag"]
    line = (
        f"kept {n['kept']:,} of {n['rows']:,} rows "
        f"({100 * n['kept'] / max(n['rows'], 1):.0f} %), {n['segments'][0]} of {n['segments'][1]} "
        f"segments, {n['chunks']:,} chunks, {n['split']}"
    )
    if lag:
        line += (
            f"; the picture follows the actions by {lag['frames']} frames "
            f"(confidence {lag['confidence']:g})"
        )
    return line


def totals(videos: dict) -> str:
    """Of a manifest's videos, in words."""
    rows, kept, chunks = (sum(v[k] for v in videos.values()) for k in ("rows", "kept", "chunks"))
    held_out = sum(v["split"] == "validation" for v in videos.values())
    return (
        f"{len(videos)} videos, {rows:,} rows: kept {kept:,} ({100 * kept / max(rows, 1):.0f} %), "
        f"{chunks:,} chunks ({held_out} videos held out)"
    )


# ---- the reader ----------------------------------------------------------------------------------


def folders_of(data) -> list[tuple[str, float | None]]:
    """[(folder, share or None)] of --data: FOLDER, or FOLDER:SHARE,FOLDER,...; SystemExit with one
    line if the shares cannot be.

    The folders without a share divide what the others leave, by their number of chunks.
    """
    if Path(data).is_dir():  # whatever its name
        return [(str(data), None)]
    folders = []
    for word in str(data).split(","):
        if not word:
            raise SystemExit(f"--data {data}: an empty name between its commas")
        found = re.fullmatch(r"(.+):(\d+\.?\d*|\.\d+)", word)
        folders.append((found[1], float(found[2])) if found else (word, None))
    if len({Path(folder).resolve() for folder, _ in folders}) < len(folders):
        raise SystemExit(f"--data {data}: a folder twice; give it once, with its share")
    shares = [share for _, share in folders if share is not None]
    given, left = sum(shares), len(folders) - len(shares)
    if shares and not (min(shares) > 0 and (given < 1 if left else abs(given - 1) < 1e-6)):
        rest = f"and leave something for the {left} without" if left else "and add up to 1"
        raise SystemExit(f"--data {data}: its shares should be above 0 {rest}")
    return folders


def shards_in(data) -> list[Path]:
    """The files of --data's folders; SystemExit with one line if there are none in one."""
    paths = []
    for folder, _ in folders_of(data):
        found = sorted(Path(folder).glob("*.safetensors"))
        if not found:
            raise SystemExit(
                f"{folder}: no shards there; make them: {artefact.MAKER['shard']} "
                f"--out {shlex.quote(folder)}"
            )
        paths += found
    return paths


class Shards:
    """All chunks of one split: item i is (JPEG bytes, buttons [K, 16], sticks [K, 4], mask [20],
    game); JPEG bytes is a list of them, the oldest first, if frames > 1.

    K and the timing are the reader's: horizon, rate, shift, see model.Config, as are frames and
    frame_stride.  A chunk must fit what the shards were cut for.  Those of several folders follow
    each other, in the order of --data.
    """

    def __init__(
        self, data, split: str, horizon: int, rate: float, shift: int, frames=1, frame_stride=1
    ):
        self.args = (data, split, horizon, rate, shift, frames, frame_stride)
        self.parts = []
        self.ends = [0]  # number of chunks up to each part
        self.sizes = []  # number of chunks in each folder
        self.folders = folders_of(data)
        for folder, _ in self.folders:
            before = len(self)
            for path in shards_in(folder):
                part = Part(path)
                part.set_timing(horizon, rate, shift)
                if frames > 1:
                    part.set_history(frames, frame_stride, rate)
                if part.about["split"] == split and len(part["start"]):
                    self.parts.append(part)
                    self.ends.append(self.ends[-1] + len(part["start"]))
            self.sizes.append(len(self) - before)

    @property
    def slots(self) -> list[int]:
        """How many of an epoch's len(self) chunks come from each folder."""
        given = np.array([share or 0.0 for _, share in self.folders])
        free = np.where(given > 0, 0, self.sizes)  # chunks of the folders without a share
        shares = given + (1 - given.sum()) * free / max(1, free.sum())
        shares = np.cumsum(shares)  # given ones may miss 1 by their rounding
        ends = np.round(shares / shares[-1] * len(self)).astype(int)
        return np.diff(ends, prepend=0).tolist()

    def in_words(self) -> list[str]:
        """A line per folder, where shares are given."""
        lines = []
        for (folder, _), size, slots in zip(self.folders, self.sizes, self.slots, strict=True):
            share, times = slots / len(self), slots / size
            lines.append(f"{folder}: {share:.0%}, each of {size:,} chunks {times:.2f} x an epoch")
        return lines if self.slots != self.sizes else []

    # another process maps the files again: a pickled memory map would be all of its bytes
    def __reduce__(self):
        return Shards, self.args

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, i):
        k = bisect.bisect_right(self.ends, i) - 1
        part = self.parts[k]
        row = part["start"][i - self.ends[k]]
        chunk = row + part.offsets
        mask = part["mask"][part["video"][row]]
        return (
            part.jpeg(row) if part.back is None else [part.jpeg(r) for r in part.history(row)],
            part["buttons"][chunk],
            part["sticks"][chunk],
            mask,
            part.about["game"],
        )

    @property
    def games(self) -> dict:
        """game -> chunks"""
        out = {}
        for part in self.parts:
            out[part.about["game"]] = out.get(part.about["game"], 0) + len(part["start"])
        return out


def splits(data, c) -> dict:
    """ "train", "validation" -> Shards with the timing of a model.Config; SystemExit if it does not
    fit.
    """
    names = ("train", "validation")
    timing = (c.horizon, c.rate, c.shift, c.frames, c.frame_stride)
    shards = {split: Shards(data, split, *timing) for split in names}
    for part in (*shards["train"].parts, *shards["validation"].parts):
        fps = part.about["fps"]
        if not whole_multiple(fps, c.rate):
            raise SystemExit(
                f"{part.path}: {fps:g} rows per second, no multiple of the network's {c.rate:g} "
                "actions; give --init (it takes the timing of the first shard), or filter.py --rate"
            )
    for (folder, _), chunks in zip(shards["train"].folders, shards["train"].sizes, strict=True):
        if not chunks:
            raise SystemExit(
                f"{folder}: no training chunks in these shards: all videos held out "
                "(filter.py --validation 0), or all segments null (--min-active 0)"
            )
    return shards


def timed_as_shards(m, cfg):
    """A model.Config with the timing of a train.Config's shards; SystemExit if it cannot be."""
    cut = Part(shards_in(cfg.data)[0]).info
    horizon = cfg.horizon or cut["horizon"]
    try:
        return dataclasses.replace(m, horizon=horizon, rate=cut["rate"], shift=cut["shift"])
    except ValueError as e:
        raise SystemExit(
            f"{cfg.data}: cut for chunks that {cfg.init} has no place for ({e}); make them anew: "
            f"{artefact.MAKER['shard']} --out {cfg.data} --horizon {m.horizon} --fresh"
        ) from None


class Part:
    """One shard: checked once; the small tensors are in memory, the JPEG bytes on disk
    (memory-mapped).
    """

    back = None  # rows from earlier frames to the last

    def __init__(self, path):
        self.path = path
        self.tensors, self.info = artefact.read(path, "nitrogen.shard/1")
        self.about = self.info["videos"][0]
        if not self.is_whole():
            raise SystemExit(f"{path}: its offsets do not fit its frames; {REDO}")

    def is_whole(self) -> bool:
        """Whether offsets, videos and starts are of things that are there."""
        offset = self["offset"]
        start = self["start"]
        rows = len(self["frame"])
        sizes = np.diff(offset)
        if len(offset) != rows + 1 or (sizes < 0).any():
            return False
        if offset[0] != 0 or offset[-1] != len(self["jpeg"]):
            return False
        if not numbers_of(len(self["mask"]), self["video"]) or not numbers_of(rows, start):
            return False
        return bool(sizes[start].all())

    def set_timing(self, horizon: int, rate: float, shift: int) -> None:
        """offsets [horizon]: rows from a chunk's first row to its actions; SystemExit if the shard
        was cut for less.
        """
        fps = self.about["fps"]
        cut = self.info
        self.offsets = shift + round(fps / rate) * np.arange(horizon)
        reach = cut["shift"] + round(fps / cut["rate"]) * (cut["horizon"] - 1)
        if self.offsets[-1] > reach:
            raise SystemExit(
                f"{self.path}: cut for chunks of {cut['horizon']} actions at {cut['rate']:g}/s, "
                f"the model wants {horizon} at {rate:g}/s: run filter.py with "
                f"--horizon {horizon} --rate {rate:g} --shift {shift} --fresh"
            )
        start = self["start"]
        if len(start) and start.max() + self.offsets[-1] >= len(self["frame"]):
            raise SystemExit(f"{self.path}: a chunk in it runs past its rows; {REDO}")

    def set_history(self, frames: int, stride: int, rate: float) -> None:
        """Which earlier frames belong to a row, see common/history.py."""
        self.back = of_rows(frames, stride, self.about["fps"], rate)
        rows = np.arange(len(self["frame"]))
        cut = np.diff(self["time"]) > 1.5 / self.about["fps"]  # rows of a dropped segment
        begins = np.flatnonzero(np.append(True, cut | (np.diff(self["video"]) != 0)))
        self.first = begins[np.searchsorted(begins, rows, "right") - 1]  # of the row's segment
        own = np.flatnonzero(np.diff(self["offset"]))  # rows with a picture of their own
        self.picture = own[np.searchsorted(own, rows, "right").clip(1) - 1]

    def history(self, row: int) -> np.ndarray:
        """The rows of its pictures, the oldest first; a segment's first stands for those before."""
        return self.picture[np.maximum(row - self.back, self.first[row])]

    def __getitem__(self, name):
        return self.tensors[name]

    def jpeg(self, row: int) -> np.ndarray:
        return self["jpeg"][self["offset"][row] : self["offset"][row + 1]]


def numbers_of(n: int, numbers) -> bool:
    """Whether all are within 0..n-1."""
    return not len(numbers) or bool(0 <= numbers.min() and numbers.max() < n)


def decode(jpeg: np.ndarray, side: int) -> np.ndarray:
    """JPEG bytes -> uint8 [side, side, 3] RGB; sizes 256, 128, 64 are decoded directly at that
    scale.
    """
    import cv2

    reduced = {128: cv2.IMREAD_REDUCED_COLOR_2, 64: cv2.IMREAD_REDUCED_COLOR_4}
    try:
        image = cv2.imdecode(jpeg, reduced.get(side, cv2.IMREAD_COLOR))
    except cv2.error:  # larger than any honest picture
        image = None
    if image is None:
        raise SystemExit(
            "a shard holds a frame that is no JPEG; "
            f"make the shards anew: {artefact.MAKER['shard']} --fresh"
        )
    if image.shape[0] != side:
        image = shrunk(image, side)
    return np.ascontiguousarray(image[..., ::-1])


def shrunk(image, side: int):
    """The image as [side, side], each pixel the mean of its area."""
    import cv2

    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
