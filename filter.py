"""filter.py: from parsed actions to training shards: refine the sticks, drop idle segments, mask the overlay (paper 3.1).

    python filter.py VIDEO... --labels data/labels --out data/shards
    python filter.py --inspect FILE

In, per video:  LABELS/<stem>.actions.safetensors   buttons [T, 16], sticks [T, 4]; from parse.py, or from a recorder
                LABELS/<stem>.overlay.safetensors   the box to paint out; only for parsed actions
Out:            OUT/<stem>-000.safetensors, -001 ...  JPEG frames 256 x 256 with their actions (sim.FORMATS, nitrogen.shard/1)

A row is one frame of the video.  Segments of 20 s are kept if at least half of their timesteps are not null.
Also here: the shards' reader (`Shards`), which train.py uses.
"""

from __future__ import annotations

import bisect
import functools
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sim

DEAD_ZONE = 0.1          # CHOICE: a stick within it is at rest
GROW = 0.06              # the masked box is larger than the overlay by this share of its size, and 2 px
MASK_COLOUR = 127        # mid-grey: 0 for the network


@dataclass(frozen=True)
class Config(sim.Many):
    videos: tuple[str, ...] = ()    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    labels: str = "data/labels"     # folder of the actions (and overlays)
    out: str = "data/shards"        # folder for the shards
    segment_seconds: float = 20.0   # what is kept or dropped whole (the released dataset's unit)
    min_active: float = 0.5         # share of a segment's timesteps that must not be null (paper 3.1)
    percentile: float = 99.0        # of |axis|: this is full deflection (paper 3.1)
    mask: bool = True               # paint the overlay out; without, the policy reads the answer off the screen
    rate: float = 30.0              # actions per second of a chunk
    horizon: int = 16               # actions in a chunk
    shift: int = 1                  # rows from the frame to the chunk's first action
    quality: int = 90               # JPEG quality of the stored frames
    rows_per_shard: int = 20000     # bound on a shard's size: about 300 MB
    validation: float = 0.1         # share of the videos held out, chosen by a hash of the name


# ---- sticks (paper 3.1, "refine") -----------------------------------------------------------------------------

def normalize(sticks, percentile: float = 99.0, radius: float = 5.0):
    """Grid cells [T, 4] -> [-1, 1]: the neutral point is the mean over rest frames, the 99th percentile is full deflection.

    Rest: within 1.5 cells of the grid's centre on both axes (the crop is registered, so rest lies there).  An axis that
    never leaves a cell's width is scaled by the template's own stick radius (cells): a percentile of noise would blow it up.
    """
    out = np.zeros_like(sticks, dtype=np.float32)
    for stick in (slice(0, 2), slice(2, 4)):
        xy = sticks[:, stick]
        rest = (np.abs(xy) < 1.5).all(axis=1)
        xy = xy - (xy[rest].mean(axis=0) if rest.any() else 0)
        reach = np.percentile(np.abs(xy), percentile, axis=0)
        out[:, stick] = np.clip(xy / np.where(reach < 1.0, radius, reach), -1, 1)
    return out


def steady(pressed):
    """bool [T, 16]: median of three frames.  CHOICE: a press or a gap of a single frame is a reading error, not a finger."""
    p = np.concatenate([pressed[:1], pressed, pressed[-1:]])
    return (p[:-2] & p[1:-1]) | (p[1:-1] & p[2:]) | (p[:-2] & p[2:])


def final_actions(path, percentile: float = 99.0) -> tuple[np.ndarray, np.ndarray, dict, dict]:
    """(buttons uint8 [T, 16], sticks float32 [T, 4] in [-1, 1], tensors, info) of an actions file, parsed or recorded."""
    tensors, info = sim.read(path, "nitrogen.actions/1")
    if info.get("unit") not in ("grid", "normalized"):
        raise SystemExit(f"{path}: unit should be 'grid' or 'normalized', found {info.get('unit')!r}")
    buttons, sticks = tensors["buttons"] > 0.5, np.clip(tensors["sticks"], -1, 1)
    if info["unit"] == "grid":
        buttons, seen = steady(buttons), tensors["confidence"] > 0
        sticks = np.zeros_like(sticks)
        if seen.any():
            sticks[seen] = normalize(tensors["sticks"][seen], percentile, info.get("cells_per_radius", 5.0))
    shown = tensors["shown"]
    return buttons.astype(np.uint8) * shown[:16], sticks * shown[16:], tensors, info


# ---- what to keep ---------------------------------------------------------------------------------------------

def active(buttons, sticks):
    """bool [T]: timesteps that are not null."""
    return buttons.any(axis=1) | (np.abs(sticks) > DEAD_ZONE).any(axis=1)


def kept_rows(buttons, sticks, fps: float, c: Config):
    """bool [T]: rows of the segments that stay."""
    T, length = len(buttons), max(1, round(c.segment_seconds * fps))
    busy, keep = active(buttons, sticks), np.zeros(len(buttons), bool)
    for a in range(0, T, length):
        keep[a:a + length] = busy[a:a + length].mean() >= c.min_active
    return keep


def chunk_starts(keep, fps: float, c: Config):
    """int64 [M]: rows i whose whole chunk i + shift, i + shift + stride, ... lies in kept rows."""
    stride = fps / c.rate
    if abs(stride - round(stride)) > 0.01 or stride < 0.99:
        raise SystemExit(f"{fps:g} frames/s is no whole multiple of --rate {c.rate:g}: give a rate that divides it")
    reach = c.shift + (c.horizon - 1) * round(stride) + 1
    held = np.cumsum(np.r_[0, keep])
    return np.array([i for i in range(len(keep) - reach + 1) if held[i + reach] - held[i] == reach], np.int64)


def boxes_to_mask(path, frame_w: int, frame_h: int) -> list:
    """[(x0, y0, x1, y1)] of the painted boxes in frame px, one per place of the overlay, grown a little and clipped to the frame."""
    tensors, _ = sim.read(path, "nitrogen.overlay/1")
    grown = [(x, y, w, h, int(GROW * w) + 2, int(GROW * h) + 2) for x, y, w, h in tensors["bbox"].tolist()]
    return [(max(0, x - gx), max(0, y - gy), min(frame_w, x + w + gx), min(frame_h, y + h + gy)) for x, y, w, h, gx, gy in grown]


# ---- shards ---------------------------------------------------------------------------------------------------

def filter_video(video: str, c: Config) -> dict | None:
    """One video -> its shards.  Returns counts: rows, kept, chunks; None if no overlay was found in it."""
    import cv2
    stem, folder = Path(video).stem, Path(c.labels)
    labels, overlay = folder / f"{stem}.actions.safetensors", folder / f"{stem}.overlay.safetensors"
    if overlay.exists() and sim.read(overlay, "nitrogen.overlay/1")[1].get("found") is False:
        line = f"{video}: no overlay was found in it, so there is nothing to learn from"
        if len(c.videos) == 1:
            raise SystemExit(line)
        print(f"{line}; skipped", file=sys.stderr)
        return None
    if not labels.exists():
        raise SystemExit(f"{labels}: no such file; make it: python parse.py {video} --out {folder}")
    facts = sim.video_facts(video)
    buttons, sticks, tensors, info = final_actions(labels, c.percentile)
    parsed = info["unit"] == "grid"
    recipe = sim.recipe(c, video, labels, *([overlay] if parsed and c.mask else []))
    keep = kept_rows(buttons, sticks, facts["fps"], c)
    if parsed:
        keep &= tensors["confidence"] > 0                   # the overlay came late, or went: nobody knows what was pressed then
    groups = np.array_split(np.flatnonzero(keep), max(1, -(-int(keep.sum()) // c.rows_per_shard)))
    paths = [Path(c.out) / f"{stem}-{k:03d}.safetensors" for k in range(len(groups))]
    if all([sim.finished(p, "nitrogen.shard/1", recipe, c.fresh) for p in paths]):
        return sim.read(paths[0])[1]["counts"]
    boxes = boxes_to_mask(overlay, facts["width"], facts["height"]) if parsed and c.mask else []
    starts = [chunk_starts(np.isin(np.arange(len(keep)), rows), facts["fps"], c) for rows in groups]
    split = "validation" if zlib.crc32(stem.encode()) % 1000 < 1000 * c.validation else "train"
    counts = {"rows": len(keep), "kept": int(keep.sum()), "chunks": sum(map(len, starts)), "split": split}
    about = {"name": stem, "game": info.get("game", stem.rsplit("-", 1)[0]), "fps": facts["fps"], "split": split}
    frames = masked_frames(video, keep, boxes, c.quality)
    for path, rows, start in zip(paths, groups, starts):
        jpegs = [jpeg for _, jpeg in zip(rows, frames)]
        if len(jpegs) < len(rows):
            raise SystemExit(f"{video}: has fewer frames than {labels} has rows ({len(keep)}); parse it again")
        sim.write(path, {
            "jpeg": np.frombuffer(b"".join(jpegs), np.uint8), "offset": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
            "buttons": buttons[rows], "sticks": sticks[rows].astype(np.float32), "mask": tensors["shown"][None],
            "video": np.zeros(len(rows), np.int32), "frame": rows.astype(np.int64), "time": tensors["time"][rows],
            "start": np.searchsorted(rows, start).astype(np.int64),
        }, "nitrogen.shard/1", recipe=recipe, counts=counts, videos=[about], rate=c.rate, horizon=c.horizon, shift=c.shift, masked=bool(boxes))
    return counts


def masked_frames(video, keep, boxes, quality: int):
    """JPEG bytes of the kept frames in order: overlay painted out, the whole picture resized to 256 x 256."""
    import cv2
    for _, _, rgb in sim.read_video(video, np.flatnonzero(keep)):
        for x0, y0, x1, y1 in boxes:
            rgb[y0:y1, x0:x1] = MASK_COLOUR
        small = cv2.resize(rgb, (sim.FRAME, sim.FRAME), interpolation=cv2.INTER_AREA)
        yield cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


# ---- the reader -------------------------------------------------------------------------------------------------

class Shards:
    """All chunks of one split: item i is (JPEG bytes, buttons [K, 16], sticks [K, 4], mask [20], game).

    K and the timing are the reader's: horizon, rate, shift; a chunk must fit what the shards were cut for.
    """

    def __init__(self, folder, split: str, horizon: int, rate: float, shift: int):
        self.parts, self.ends = [], [0]
        paths = sorted(Path(folder).glob("*.safetensors"))
        if not paths:
            raise SystemExit(f"{folder}: no shards there; make them: {sim.MAKER['shard']} --out {folder}")
        for path in paths:
            part = Part(path)
            about, info = part.about, part.info
            offsets = shift + round(about["fps"] / rate) * np.arange(horizon)
            if offsets[-1] > info["shift"] + round(about["fps"] / info["rate"]) * (info["horizon"] - 1):
                raise SystemExit(f"{path}: cut for chunks of {info['horizon']} actions at {info['rate']:g}/s, the model wants {horizon} at "
                                 f"{rate:g}/s: run filter.py with --horizon {horizon} --rate {rate:g} --shift {shift} --fresh")
            if about["split"] == split and len(part["start"]):
                part.offsets = offsets
                self.parts.append(part)
                self.ends.append(self.ends[-1] + len(part["start"]))

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, i):
        p = bisect.bisect_right(self.ends, i) - 1
        part = self.parts[p]
        row = part["start"][i - self.ends[p]]
        chunk = row + part.offsets
        jpeg = part["jpeg"][part["offset"][row]:part["offset"][row + 1]]
        return jpeg, part["buttons"][chunk], part["sticks"][chunk], part["mask"][part["video"][row]], part.about["game"]

    @property
    def games(self) -> dict:
        """game -> chunks"""
        out = {}
        for part in self.parts:
            out[part.about["game"]] = out.get(part.about["game"], 0) + len(part["start"])
        return out


class Part:
    """One shard: checked once, then the small tensors stay in memory and the JPEG bytes on disk (memory-mapped)."""

    def __init__(self, path):
        self.tensors, self.info = sim.read(path, "nitrogen.shard/1")
        t, self.about = self.tensors, self.info["videos"][0]
        R = len(t["frame"])
        if len(t["offset"]) != R + 1 or t["offset"][-1] != len(t["jpeg"]) or (np.diff(t["offset"]) <= 0).any() \
                or (len(t["start"]) and not 0 <= t["start"].min() <= t["start"].max() < R):
            raise SystemExit(f"{path}: its offsets do not fit its frames; make it anew: {sim.MAKER['shard']} --fresh")
        t["jpeg"] = sim.mapped(path, "jpeg")

    def __getitem__(self, name):
        return self.tensors[name]


def decode(jpeg: np.ndarray, side: int) -> np.ndarray:
    """JPEG bytes -> uint8 [side, side, 3] RGB; sizes 256, 128, 64 are decoded directly at that scale."""
    import cv2
    flag = {256: cv2.IMREAD_COLOR, 128: cv2.IMREAD_REDUCED_COLOR_2, 64: cv2.IMREAD_REDUCED_COLOR_4}.get(side, cv2.IMREAD_COLOR)
    image = cv2.imdecode(jpeg, flag)
    if image is None:
        raise SystemExit(f"a shard holds a frame that is no JPEG; make the shards anew: {sim.MAKER['shard']} --fresh")
    if image.shape[0] != side:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])


def run(c: Config) -> None:
    counts = [n for n in sim.for_each(functools.partial(filter_video, c=c), c.videos, c.workers, ray=c.ray) if n]
    rows, kept, chunks = (sum(n[k] for n in counts) for k in ("rows", "kept", "chunks"))
    print(f"{len(counts)} videos, {rows:,} frames: kept {kept:,} ({100 * kept / max(rows, 1):.0f} %), {chunks:,} chunks "
          f"({sum(n['split'] == 'validation' for n in counts)} videos held out) -> {c.out}")


def main(argv=None):
    sim.command_line(__doc__, {"": (Config, run)}, argv)


if __name__ == "__main__":
    main()
