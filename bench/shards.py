"""What shards hold, to look at: python filter.py --inspect FILE"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from common import artefact
from common.artefact import NUMBER
from common.pictures import write_png
from common.shards import Part, decode, totals

import cv2
import numpy as np

VIDEO = {
    "game": str,
    "split": str,
    "rows": NUMBER,
    "kept": NUMBER,
    "chunks": NUMBER,
    "shards": (0, 1e6),
    "files": {str: NUMBER},
    "lag?": {"frames": NUMBER, "confidence": NUMBER},
}
MANIFEST = {"videos": {str: VIDEO}}  # a pattern, see artefact.METADATA

COLUMNS = 1180  # of the piano roll
LABEL_WIDTH = 100  # px, left of it
BUTTON_LANE, STICK_LANE, KEPT_LANE = 11, 35, 15  # height, px
DROPPED_OR_KEPT = np.uint8([[92, 52, 52], [52, 76, 58]])  # ground of a lane
DROPPED_OR_KEPT_BRIGHT = np.uint8([[210, 70, 60], [60, 180, 90]])  # the lowest lane
PRESSED = (90, 220, 120)
STICK = (250, 170, 80)


def piano_roll(buttons, sticks, kept, shown):
    """RGB picture [h, 1280, 3]: a lane per button and stick axis over time; below, what is kept
    (green) and what is not (red).

    buttons [T, 16], sticks [T, 4] in [-1, 1], kept bool [T], shown bool [20].
    """
    first = np.arange(COLUMNS) * len(buttons) // COLUMNS  # row of each column
    pressed = np.maximum.reduceat(buttons, first) > 0
    low = np.minimum.reduceat(sticks, first)
    high = np.maximum.reduceat(sticks, first)
    fate = np.maximum.reduceat(kept, first).astype(int)
    lanes = []
    for i, name in enumerate(artefact.BUTTONS):
        lane = blank(BUTTON_LANE, DROPPED_OR_KEPT[fate])
        lane[:, pressed[:, i]] = PRESSED
        lanes.append(labelled(lane, name, shown[i]))
    for i, name in enumerate(artefact.STICKS):
        lane = blank(STICK_LANE, DROPPED_OR_KEPT[fate])
        y = np.arange(STICK_LANE)[:, None] - STICK_LANE // 2
        lane[(y >= np.round(16 * low[:, i])) & (y <= np.round(16 * high[:, i]))] = STICK
        lanes.append(labelled(lane, name, shown[16 + i]))
    lanes.append(labelled(blank(KEPT_LANE, DROPPED_OR_KEPT_BRIGHT[fate]), "KEPT", True))
    return np.vstack(lanes)


def blank(height: int, colours):
    """colours [w, 3] -> a lane [height, w, 3] of them."""
    return np.tile(colours, (height, 1, 1))


def labelled(lane, name: str, shown: bool):
    """The lane with its name to the left, and a gap of 2 px above."""
    height = len(lane)
    out = np.full((height + 2, LABEL_WIDTH + COLUMNS, 3), 40, np.uint8)
    out[2:, LABEL_WIDTH:] = lane
    colour = (230, 230, 230) if shown else (110, 110, 110)
    place = (3, 2 + height // 2 + 4)
    cv2.putText(out, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.32, colour, 1, cv2.LINE_AA)
    return out


def save_picture(path: Path, rows: list) -> None:
    write_png(path, np.vstack(rows))
    print(f"picture -> {path}")


def inspect(path: Path) -> None:
    """Print what a folder of shards or an artefact is; of a shard also a picture, beside it."""
    if path.is_dir():
        return inspect_folder(path)
    artefact.show(path)
    if artefact.read(path)[1]["format"] != "nitrogen.shard/1":
        return
    part = Part(path)
    if len(part["frame"]):
        save_picture(path.with_suffix(".png"), [frames_of(part), roll_of(part)])


def frames_of(part: Part):
    """Eight of its frames, side by side."""
    stored = np.flatnonzero(np.diff(part["offset"]))
    rows = stored[np.linspace(0, len(stored) - 1, 8).astype(int)]
    return np.hstack([decode(np.asarray(part.jpeg(row)), 160) for row in rows])


def roll_of(part: Part):
    """The piano roll of its rows, with the dropped ones between them."""
    at = np.round((part["time"] - part["time"][0]) * part.about["fps"]).astype(int)
    T = at[-1] + 1
    kept = np.zeros(T, bool)
    buttons = np.zeros((T, 16), np.uint8)
    sticks = np.zeros((T, 4), np.float32)
    kept[at] = True
    buttons[at] = part["buttons"]
    sticks[at] = part["sticks"]
    return piano_roll(buttons, sticks, kept, part["mask"][0])


def inspect_folder(folder: Path) -> None:
    """A line per video of its manifest, and what is not as it says."""
    videos = read_manifest(folder)
    print(
        f"{'video':24s} {'game':14s} {'split':10s} {'rows':>9s} {'kept':>9s} {'chunks':>9s} "
        f"{'shards':>6s} {'MB':>8s}  lag (confidence)"
    )
    for name, v in videos.items():
        lag = v.get("lag")
        size = sum(v["files"].values()) / 1e6
        print(
            f"{name:24s} {v['game']:14s} {v['split']:10s} {v['rows']:9,} {v['kept']:9,} "
            f"{v['chunks']:9,} {v['shards']:6} {size:8.1f}  "
            + (f"{lag['frames']} ({lag['confidence']:g})" if lag else "-")
        )
    print(totals(videos))
    listed = {name: size for v in videos.values() for name, size in v["files"].items()}
    there = {p.name: p.stat().st_size for p in folder.glob("*.safetensors")}
    partial = [name for name, v in videos.items() if len(v["files"]) != v["shards"]]
    if listed != there or partial:
        other = sorted({name for name, _ in listed.items() ^ there.items()}) + partial
        print(f"not as listed: {', '.join(other)}; run filter.py again", file=sys.stderr)


def read_manifest(folder: Path) -> dict:
    """Its videos; SystemExit with one line if there is none, or it is not one."""
    file = folder / "manifest.json"
    make = f"{artefact.MAKER['shard']} --out {shlex.quote(str(folder))}"
    if not file.exists():
        raise SystemExit(f"{file}: no such file; {make} writes it")
    try:
        found = json.loads(file.read_bytes())
        fault = artefact.amiss(found, MANIFEST)
    except (ValueError, RecursionError) as e:
        fault = str(e)
    if fault:
        raise SystemExit(f"{file}: not a manifest ({fault}); {make} writes it anew") from None
    return found["videos"]
