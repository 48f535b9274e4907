"""filter.py: from parsed actions to training shards: refine the sticks, drop idle segments, mask
the overlay (paper 2.1).

    python filter.py VIDEO... --labels data/labels --out data/shards         what parse.py read; or the true actions of a recorder
    python filter.py --nitrogen SHARD_0000.tar.gz --videos DIR --out data/shards      labels of the released dataset, your copies of its videos
    python filter.py --inspect FILE                 a shard (and a picture of it), a folder of shards, a SHARD_0000.tar.gz

In, per video:  LABELS/<stem>.actions.safetensors   buttons [T, 16], sticks [T, 4]; from parse.py, or from --nitrogen, which writes them;
                                                    a recorder's (also <stem>.truth.safetensors) may lie beside the video
                LABELS/<stem>.overlay.safetensors   the box to paint out; only for parsed actions
Out:            OUT/<stem>-000.safetensors, -001 ...  JPEG frames 256 x 256 with their actions (artefact.FORMATS, nitrogen.shard/1)
                OUT/manifest.json                     what is in the folder

A row is one frame of the video, or one timestep of the released labels.  Segments of 20 s are kept
if at least half of their timesteps are not null.  Also here: the shards' reader (`Shards`), which
train.py uses.
"""

from __future__ import annotations

import bisect
import functools
import glob
import itertools
import json
import math
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, command_line, expect, recipe_of, wing
from common.pictures import read_video, video_facts, write_png
from common.workers import for_each

import numpy as np

DEAD_ZONE = 0.1  # CHOICE: a stick within it is at rest
# CHOICE: of the drawn radius, which full deflection is at least: a stick that is seldom pushed is
# not blown up
LEAST_REACH = 0.95
REST = 0.5  # grid cells around the neutral point in which a stick is at rest: about the dead zone
# CHOICE: probability from which a press of one frame counts, at least; of a button seldom used,
# from more
SURE = 0.95
# of a change, at least: a press of one frame takes two, the log-odds of SURE
COST = math.log(SURE / (1 - SURE)) / 2
# share of frames in which a button changes: COST is the log-odds that it does not
CHANGE = 1 / (1 + math.exp(COST))
DOWN = 0.23  # share of the time that a button is down in the frames that the parser learned from
HABIT = 300  # CHOICE: frames of a usual player that count beside the video's own, at least
GROW = 0.06  # the masked box is larger than the overlay by this share of its size, and 2 px
MASK_COLOUR = 127  # mid-grey: 0 for the network
LONGEST = 7 * 86400.0  # s, of a video whose frames come unevenly


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    # SHARD_0000.tar.gz of the released dataset, or a pattern in quotes: labels of those videos (pip
    # install pyarrow)
    nitrogen: str = ""
    labels: str = "data/labels"  # folder of the actions (and overlays)
    out: str = "data/shards"  # folder for the shards
    segment_seconds: float = 20.0  # what is kept or dropped whole (the released dataset's unit)
    min_active: float = 0.5  # share of a segment's timesteps that must not be null (paper 2.1)
    # full deflection of a stick: that percentile (paper 2.1), or radius: the template's own
    scale: str = "percentile"
    percentile: float = 99.0  # of |axis|, for --scale percentile (paper 2.1)
    # between what was read and what is seen: videos where half of the buttons and sticks are below
    # it are left out
    min_agreement: float = 0.7
    mask: bool = True  # paint the overlay out; without, the policy reads the answer off the screen
    # x,y,w,h in px: the game's picture, if the video also shows other things; they are cut away
    area: str = ""
    rate: float = 30.0  # actions per second of a chunk
    horizon: int = 16  # actions in a chunk
    shift: int = 1  # rows from the frame to the chunk's first action
    quality: int = 90  # JPEG quality of the stored frames
    rows_per_shard: int = 20000  # bound on a shard's size: 200 to 500 MB
    validation: float = 0.1  # share of the videos held out, chosen by a hash of the name


# ---- sticks (paper 2.1, "refine") ----------------------------------------------------------------


def neutral_point(xy):
    """[T, 2] cells -> [2]: the mean over rest frames, those within REST of it; sought from the
    template's own centre outwards.

    A wider circle takes in what the player holds half-way: 1.5 cells cost 0.01 of R2 on sticks that
    seldom rest."""
    centre = np.zeros(2, np.float32)
    for _ in range(5):
        rest = np.hypot(*(xy - centre).T) < REST
        centre = xy[rest].mean(axis=0) if rest.any() else np.zeros(2, np.float32)
    return centre


def normalize(sticks, scale: str = "percentile", percentile: float = 99.0, radius: float = 5.0):
    """Grid cells [T, 4] -> [-1, 1]: neutral point to 0, full deflection to 1.

    scale "percentile": full deflection is that percentile of |x| and of |y| (paper 2.1).
    DEVIATION: it is never less than LEAST_REACH of the template's stick radius (cells), which says
    what a stick that seldom reaches its end does not.  "radius": that radius.
    """
    xy = sticks - np.r_[neutral_point(sticks[:, :2]), neutral_point(sticks[:, 2:])]
    if scale == "percentile":
        radius = np.maximum(np.percentile(np.abs(xy), percentile, axis=0), LEAST_REACH * radius)
    return np.clip(xy / radius, -1, 1).astype(np.float32)


def course(odds, cost):
    """Log-odds [T, 16] -> pressed bool [T, 16]: each button's likeliest course if a change of its
    state takes `cost` (a number, or [16]): the path that maximizes the sum of the odds while
    pressed, less the costs (Viterbi's algorithm for two states; `lead` = best score of a path that
    ends pressed, less the best of one that does not)."""
    lead, on = np.zeros_like(odds), np.empty(odds.shape, bool)
    for t in range(len(odds)):
        lead[t] = odds[t] + (lead[t - 1].clip(-cost, cost) if t else 0)
    for t in reversed(range(len(odds))):
        on[t] = lead[t] > (np.where(on[t + 1], -cost, cost) if t + 1 < len(odds) else 0)
    return on


def steady(p):
    """Probabilities [T, 16] -> pressed bool [T, 16]: the course of each button, taken twice.  From
    the first, what this player does with it is learned: how much of the time it is down, and how
    often it changes, a usual player counted in: as HABIT frames, or half the video's. What is down
    less than usual must be seen more clearly (the odds are shifted to the video's own share:
    Saerens, Latinne and Decaestecker, Neural Computation 14, 2002); what changes seldom does not
    flicker (the cost is the log-odds of no change); and what is down most of the time, but
    typically not SURE, is taken for something behind the overlay: then each frame must be SURE.
    CHOICE: nothing here makes the parser's reading count for more."""
    odds = np.log(p := p.astype(np.float64).clip(1e-3, 1 - 1e-3)) - np.log1p(-p)
    on, usual = course(odds, COST), max(HABIT, len(p) / 2)
    down = (on.sum(0) + usual * DOWN) / (len(on) + usual)
    change = ((on[1:] != on[:-1]).sum(0) + usual * CHANGE) / (len(on) - 1 + usual)
    shift = np.log(down / DOWN * (1 - DOWN) / (1 - down)).clip(max=0)
    behind = (down > 0.5) & (np.median(odds, 0) < 2 * COST)
    return course(odds + shift - 2 * COST * behind, np.log((1 - change) / change).clip(min=COST))


def final_actions(
    path, scale: str = "percentile", percentile: float = 99.0
) -> tuple[np.ndarray, np.ndarray, dict, dict]:
    """(buttons uint8 [T, 16], sticks float32 [T, 4] in [-1, 1], tensors, info) of an actions file,
    parsed or recorded.
    """
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    if info.get("unit") not in ("grid", "normalized"):
        raise SystemExit(
            f"{path}: unit should be 'grid' or 'normalized', found {info.get('unit')!r}"
        )
    buttons, sticks = tensors["buttons"] > 0.5, np.clip(tensors["sticks"], -1, 1)
    if info["unit"] == "grid":
        seen, buttons, sticks = (
            tensors["confidence"] > 0,
            np.zeros_like(buttons),
            np.zeros_like(sticks),
        )
        if seen.any():
            buttons[seen] = steady(tensors["buttons"][seen])
            sticks[seen] = normalize(
                tensors["sticks"][seen], scale, percentile, info.get("cells_per_radius", 5.0)
            )
    shown = tensors["shown"]
    return buttons.astype(np.uint8) * shown[:16], sticks * shown[16:], tensors, info


# ---- what is known of a video, row by row --------------------------------------------------------


@dataclass
class Labels:
    buttons: np.ndarray  # uint8 [T, 16]
    sticks: np.ndarray  # float32 [T, 4] in [-1, 1]
    known: np.ndarray  # bool [T]: False where no overlay was shown, or no label is given
    segment: np.ndarray  # int64 [T]: rows that are kept or dropped together
    frame: np.ndarray  # int64 [T]: the video's frame at this row; never falls
    time: np.ndarray  # float64 [T], seconds
    fps: float  # rows per second
    shown: np.ndarray  # bool [20]
    # per segment: ([(x0, y0, x1, y1)] to be painted, (x0, y0, x1, y1) the game's picture), frame px
    views: list
    game: str
    about: str  # where the labels are from, in words


def find_labels(video: str, c: Config) -> Path | None:
    """The actions file of a video: in --labels, or what a recorder wrote beside the video."""
    places = [
        place / f"{Path(video).stem}.{kind}.safetensors"
        for place in (Path(c.labels), Path(video).parent)
        for kind in ("actions", "truth")
    ]
    return next((path for path in places if path.exists()), None)


def read_labels(video: str, path: Path, overlay: Path | None, c: Config) -> Labels:
    """All that the files say; SystemExit with one line if they cannot belong to the video."""
    facts = video_facts(video)
    buttons, sticks, tensors, info = final_actions(path, c.scale, c.percentile)
    T, fps, game = (
        len(buttons),
        facts["fps"],
        info.get("game") or Path(video).stem.rsplit("-", 1)[0],
    )
    area = area_of(c.area, facts)
    shown, doubts = tensors["shown"].copy(), []
    if "agreement" in info:
        doubts = artefact.doubtful(info["agreement"], buttons[tensors["confidence"] > 0])
        shown &= ~np.array(
            [name in doubts for name in (*artefact.BUTTONS, "LEFT", "LEFT", "RIGHT", "RIGHT")]
        )
        buttons, sticks = buttons * shown[:16], sticks * shown[16:]
    if "chunks" in info:
        return wing("released.dataset").released_labels(
            facts, buttons, sticks, tensors["shown"], info["chunks"], game, area, c
        )
    boxes = (
        artefact.read(overlay, "nitrogen.overlay/1")[0]["bbox"].tolist()
        if overlay
        else [info["box"]]
        if c.mask and "box" in info
        else []
    )
    frame, time, about = (
        np.arange(T),
        tensors["time"],
        "parsed" if info["unit"] == "grid" else f"true actions ({path})",
    )
    about += f", not trusted and masked: {' '.join(doubts)}" if doubts else ""
    if uneven(time):
        if not time[-1] - time[0] < LONGEST:
            raise SystemExit(
                f"{path}: its times run from {time[0]:g} to {time[-1]:g} s; parse the video again: {artefact.MAKER['actions']} --fresh"
            )
        frame, time, fps = evened(time, c.rate)
        about += f", frames that come unevenly laid out at {fps:g}/s"
    segment = np.arange(len(frame)) // max(1, round(c.segment_seconds * fps))
    return Labels(
        buttons[frame],
        sticks[frame],
        (tensors["confidence"] > 0)[frame],
        segment,
        frame,
        time,
        fps,
        shown,
        [([clamped(box, facts, GROW, 2) for box in boxes], area)]
        * int(segment[-1] + 1 if T else 0),
        game,
        about,
    )


def uneven(time) -> bool:
    """Of growing time stamps [T]: whether some step is more than half a usual one off (dropped
    frames, a variable frame rate).
    """
    steps = np.diff(time)
    return (
        len(steps) > 0
        and steps.min() > 0
        and bool((np.abs(steps - np.median(steps)) > 0.5 * np.median(steps)).any())
    )


def evened(time, rate: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(frame int64 [R], time [R], rows per second) of even rows over uneven frames: each shows the
    last frame that had come.

    As many rows per action of a chunk as the usual step allows; a frame that comes within a quarter
    of a row is there already."""
    fps = rate * max(1, round(1 / (np.median(np.diff(time)) * rate)))
    even = time[0] + np.arange(int((time[-1] - time[0]) * fps + 0.25) + 1) / fps
    return np.searchsorted(time, even + 0.25 / fps, side="right") - 1, even, fps


def area_of(text: str, facts: dict) -> tuple:
    """--area x,y,w,h -> (x0, y0, x1, y1); nothing given: the whole frame."""
    found = re.fullmatch(
        r"(\d+),(\d+),(\d+),(\d+)", text or f"0,0,{facts['width']},{facts['height']}"
    )
    x, y, w, h = map(int, found.groups()) if found else (0, 0, 0, 0)
    if not (w and h and x + w <= facts["width"] and y + h <= facts["height"]):
        raise SystemExit(
            f"--area {text}: should be x,y,w,h in px within the video's {facts['width']} x {facts['height']}"
        )
    return x, y, x + w, y + h


def clamped(box, facts: dict, grow: float = 0, more: int = 0) -> tuple:
    """x, y, w, h -> (x0, y0, x1, y1) within the frame, larger by a share of its size and some px on
    each side.
    """
    x, y, w, h = box
    gx, gy = int(grow * w) + more, int(grow * h) + more
    return tuple(
        int(min(max(v, 0), limit))
        for v, limit in zip(
            (x - gx, y - gy, x + w + gx, y + h + gy), (facts["width"], facts["height"]) * 2
        )
    )


# ---- what to keep --------------------------------------------------------------------------------


def active(buttons, sticks):
    """bool [T]: timesteps that are not null."""
    return buttons.any(axis=1) | (np.abs(sticks) > DEAD_ZONE).any(axis=1)


def kept_rows(labels: Labels, min_active: float):
    """(bool [T]: known rows of the segments that stay, bool [S]: the segments that do, of those
    with known rows).
    """
    where = labels.segment[labels.known]
    count, busy = (
        np.bincount(where, weights, len(labels.views))
        for weights in (None, active(labels.buttons, labels.sticks)[labels.known])
    )
    stays = (busy >= min_active * count) & (count > 0)
    return labels.known & stays[labels.segment] if len(stays) else labels.known, stays[count > 0]


def chunk_starts(keep, fps: float, c: Config):
    """int64 [M]: rows i whose whole chunk i + shift, i + shift + stride, ... lies in kept rows."""
    stride = fps / c.rate
    if abs(stride - round(stride)) > 0.01 or stride < 0.99:
        raise SystemExit(
            f"{fps:g} rows/s is no whole multiple of --rate {c.rate:g}: give a rate that divides it"
        )
    reach = c.shift + (c.horizon - 1) * round(stride) + 1
    held = np.cumsum(np.r_[0, keep])
    return np.flatnonzero(held[reach:] - held[:-reach] == reach)


# ---- does the picture follow the pad, and when? --------------------------------------------------

# s: lags that are considered, and lags at which nothing should be found
LAG_WINDOW, LAG_FAR = 0.5, 2.0
# CHOICE: deviations above what is found there; frames by which the video's halves may differ
LAG_SURE, LAG_HALVES = 5.0, 2


def explained(x, y, far: int):
    """[2 far + 1]: the share of y [T, q] that a ridge regression on x [T, p] explains, x delayed by
    -far .. far rows.
    """
    y = (y - y.mean(axis=0)) / np.maximum(y.std(axis=0), 1e-6)
    # what changed only a few times explains little
    inverse = np.linalg.inv(x.T @ x + 5 * np.eye(x.shape[1]))
    products = [
        x[far - k : len(x) - far - k].T @ y[far : len(y) - far] for k in range(-far, far + 1)
    ]
    return np.array([(b * (inverse @ b)).sum() for b in products]) / y[far : len(y) - far].size


def picture_lag(actions, motion, fps: float) -> dict | None:
    """By how many frames changes of the picture follow changes of the actions; None where the data
    do not say.

    actions [T, 20], motion [T, 3] of frames in a row.  It is the game's own reaction (0 or more)
    less the overlay's delay: an overlay that is n frames late makes it n less.  Both are
    differenced: what changes, not what is held.
    """
    near, far = round(LAG_WINDOW * fps), round(LAG_FAR * fps)
    x, y = (np.diff(v, axis=0, prepend=v[:1]).astype(np.float64) for v in (actions, motion))
    # cuts and explosions
    y = y.clip(*(s * np.quantile(np.abs(y), 0.97, axis=0) for s in (-1, 1))) if len(y) else y
    shifts, found = np.arange(-far, far + 1), []
    if len(x) < 4 * 2 * far or not x.any() or not y.any():
        return None
    for part in (slice(None), slice(len(x) // 2), slice(len(x) // 2, None)):
        share = explained(x[part], y[part], far)
        elsewhere = share[np.abs(shifts) > near + 5]
        best = max(range(far - near, far + near + 1), key=share.__getitem__)
        found.append(
            (
                int(shifts[best]),
                float((share[best] - elsewhere.mean()) / max(elsewhere.std(), 1e-9)),
            )
        )
    (lag, sure), halves = found[0], [k for k, _ in found[1:]]
    if sure < LAG_SURE or max(abs(k - lag) for k in halves) > LAG_HALVES:
        return None
    return {"frames": lag, "seconds": round(lag / fps, 3), "confidence": round(sure, 1)}


# ---- shards --------------------------------------------------------------------------------------


def pictures(video, frames, labels: Labels, segments, quality: int):
    """Yield (JPEG bytes, motion float32 [3]) of the given frames, in order: overlay painted out,
    game's area resized to 256 x 256.

    motion: how far the picture moved since the frame before, in x and y, and how much it changed
    otherwise; 0 after a gap."""
    import cv2

    before, last, window = None, -9, cv2.createHanningWindow((128, 128), cv2.CV_32F)
    for segment, (i, _, rgb) in zip(segments, read_video(video, frames)):
        boxes, (left, top, right, bottom) = labels.views[segment]
        for x0, y0, x1, y1 in boxes:
            rgb[y0:y1, x0:x1] = MASK_COLOUR
        small = cv2.resize(
            rgb[top:bottom, left:right],
            (artefact.FRAME, artefact.FRAME),
            interpolation=cv2.INTER_AREA,
        )
        grey = cv2.resize(
            cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        motion = np.zeros(3, np.float32)
        if i <= last + 4:
            motion[:] = *cv2.phaseCorrelate(before, grey, window)[0], np.abs(grey - before).mean()
        before, last = grey, i
        yield (
            cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[
                1
            ].tobytes(),
            motion,
        )


def filter_video(video: str, c: Config) -> dict | None:
    """One video -> its shards.  Returns counts: rows, kept, chunks ...; None if no overlay was
    found in it.
    """
    from tqdm import tqdm

    stem, overlay = Path(video).stem, Path(c.labels) / f"{Path(video).stem}.overlay.safetensors"
    path = find_labels(video, c)
    info = artefact.read(path, "nitrogen.actions/1")[1] if path else {}
    parsed = info.get("unit") == "grid"  # else a recorder's, and no overlay is needed
    if (
        (parsed or not path)
        and overlay.exists()
        and artefact.read(overlay, "nitrogen.overlay/1")[1].get("found") is False
    ):
        line = f"{video}: no overlay was found in it, so there is nothing to learn from"
        if len(c.videos) == 1:
            raise SystemExit(line)
        return tqdm.write(f"{line}; skipped", file=sys.stderr)
    if not path:
        raise SystemExit(
            f"{Path(c.labels) / stem}.actions.safetensors: no such file; make it: python parse.py {video} --out {c.labels}"
        )
    if (
        parsed
        and (agreement := float(np.median([*info.get("agreement", {"": 1}).values()])))
        < c.min_agreement
    ):
        line = (
            f"{video}: left out, what was read agrees with the frames by {agreement:.2f} only (--min-agreement {c.min_agreement:g}): "
            f"is {info.get('template')} its skin?  Give the skin to extract.py (--templates), or adapt the parser to it"
        )
        if len(c.videos) == 1:
            raise SystemExit(line)
        tqdm.write(line, file=sys.stderr)
        return {"left out": 1}
    overlay = overlay if c.mask and parsed else None
    labels = read_labels(video, path, overlay, c)
    keep, stays = kept_rows(labels, c.min_active)
    groups = np.array_split(np.flatnonzero(keep), max(1, -(-int(keep.sum()) // c.rows_per_shard)))
    paths = [Path(c.out) / f"{stem}-{k:03d}.safetensors" for k in range(len(groups))]
    recipe = recipe_of(c, video, path, *([overlay] if overlay else []))
    if not all([artefact.finished(p, "nitrogen.shard/1", recipe, c.fresh) for p in paths]):
        split = "validation" if zlib.crc32(stem.encode()) % 1000 < 1000 * c.validation else "train"
        counts = {
            "split": split,
            "rows": len(keep),
            "known": int(labels.known.sum()),
            "kept": int(keep.sum()),
            "segments": [int(stays.sum()), len(stays)],
            "shards": len(paths),
        }
        write_shards(video, paths, groups, labels, counts, recipe, c)
    info = artefact.read(paths[-1], "nitrogen.shard/1")[1]
    n, lag = info["counts"], info["lag"]
    tqdm.write(
        f"{video}: {labels.about}; kept {n['kept']:,} of {n['rows']:,} rows ({100 * n['kept'] / max(n['rows'], 1):.0f} %), "
        f"{n['segments'][0]} of {n['segments'][1]} segments, {n['chunks']:,} chunks, {n['split']}"
        + (
            f"; the picture follows the actions by {lag['frames']} frames (confidence {lag['confidence']:g})"
            if lag
            else ""
        )
    )
    return n


def write_shards(
    video, paths, groups, labels: Labels, counts: dict, recipe: dict, c: Config
) -> None:
    """The kept rows, a group of them per shard.  A frame that several rows show is stored once,
    with the first: chunks begin there.
    """
    rows = np.concatenate(groups)
    new = np.zeros(len(labels.frame), bool)
    new[rows] = np.diff(labels.frame[rows], prepend=-1) > 0
    starts = [
        s[new[s]]
        for s in (chunk_starts(np.isin(np.arange(len(new)), g), labels.fps, c) for g in groups)
    ]
    counts["chunks"] = sum(map(len, starts))
    about = {
        "name": Path(video).stem,
        "game": labels.game,
        "fps": labels.fps,
        "split": counts["split"],
    }
    shown, moves = np.flatnonzero(new), []
    frames = pictures(video, labels.frame[shown], labels, labels.segment[shown], c.quality)
    for path, group, start in zip(paths, groups, starts):
        made = list(itertools.islice(frames, int(new[group].sum())))
        if len(made) < new[group].sum():
            raise SystemExit(
                f"{video}: has fewer frames than its labels have rows ({len(new)}); parse it again"
            )
        moves += [motion for _, motion in made]
        sizes, lag = np.zeros(len(group), np.int64), None
        sizes[new[group]] = [len(jpeg) for jpeg, _ in made]
        if path is paths[-1] and moves:  # known when the whole video has been seen
            lag = picture_lag(
                np.hstack([labels.buttons[shown], labels.sticks[shown]]),
                np.stack(moves),
                labels.fps * len(shown) / len(rows),
            )
        artefact.write(
            path,
            {
                "jpeg": np.frombuffer(b"".join(jpeg for jpeg, _ in made), np.uint8),
                "offset": np.cumsum([0, *sizes], dtype=np.int64),
                "buttons": labels.buttons[group],
                "sticks": labels.sticks[group].astype(np.float32),
                "mask": labels.shown[None],
                "video": np.zeros(len(group), np.int32),
                "frame": labels.frame[group],
                "time": labels.time[group],
                "start": np.searchsorted(group, start).astype(np.int64),
            },
            "nitrogen.shard/1",
            recipe=recipe,
            counts=counts,
            lag=lag,
            videos=[about],
            rate=c.rate,
            horizon=c.horizon,
            shift=c.shift,
            masked=any(boxes for boxes, _ in labels.views),
        )
    # of a run that made more
    for old in Path(c.out).glob(f"{glob.escape(about['name'])}-*.safetensors"):
        if old not in paths and re.fullmatch(r"-\d{3,}", old.stem[len(about["name"]) :]):
            old.unlink()


MANIFEST = {
    "videos": {
        str: {
            "game": str,
            "split": str,
            "rows": artefact.N,
            "kept": artefact.N,
            "chunks": artefact.N,
            "shards": (0, 1e6),
            "files": {str: artefact.N},
            "lag?": {"frames": artefact.N, "confidence": artefact.N},
        }
    }
}


def manifest(folder) -> dict:
    """What is in a folder of shards, as the shards themselves say: {"videos": {name: game, split,
    counts, lag, shards}, ...}.
    """
    videos = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            info = artefact.read(path, "nitrogen.shard/1")[1]
        except SystemExit as e:
            print(f"{e}; left out of the manifest", file=sys.stderr)
            continue
        about, counts = info["videos"][0], info.get("counts", {})
        video = videos.setdefault(
            about["name"],
            {
                "game": about["game"],
                "split": about["split"],
                "fps": about["fps"],
                **counts,
                "files": {},
            },
        )
        video["files"][path.name] = path.stat().st_size
        video["lag"] = info.get("lag") or video.get("lag")
    return {"format": "nitrogen.manifest/1", "videos": videos}


# ---- the reader ----------------------------------------------------------------------------------


def shards_in(folder) -> list[Path]:
    """The files of a folder; SystemExit with one line if there are none."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise SystemExit(
            f"{folder}: no shards there; make them: {artefact.MAKER['shard']} --out {folder}"
        )
    return paths


class Shards:
    """All chunks of one split: item i is (JPEG bytes, buttons [K, 16], sticks [K, 4], mask [20],
    game).

    K and the timing are the reader's: horizon, rate, shift; a chunk must fit what the shards were
    cut for.
    """

    def __init__(self, folder, split: str, horizon: int, rate: float, shift: int):
        self.args, self.parts, self.ends = (folder, split, horizon, rate, shift), [], [0]
        for path in shards_in(folder):
            part = Part(path)
            about, info = part.about, part.info
            offsets = shift + round(about["fps"] / rate) * np.arange(horizon)
            if offsets[-1] > info["shift"] + round(about["fps"] / info["rate"]) * (
                info["horizon"] - 1
            ):
                raise SystemExit(
                    f"{path}: cut for chunks of {info['horizon']} actions at {info['rate']:g}/s, the model wants {horizon} at "
                    f"{rate:g}/s: run filter.py with --horizon {horizon} --rate {rate:g} --shift {shift} --fresh"
                )
            if len(part["start"]) and part["start"].max() + offsets[-1] >= len(part["frame"]):
                raise SystemExit(
                    f"{path}: a chunk in it runs past its rows; make it anew: {artefact.MAKER['shard']} --fresh"
                )
            if about["split"] == split and len(part["start"]):
                part.offsets = offsets
                self.parts.append(part)
                self.ends.append(self.ends[-1] + len(part["start"]))

    # another process maps the files anew: a pickled memory map would be all of its bytes
    def __reduce__(self):
        return Shards, self.args

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, i):
        p = bisect.bisect_right(self.ends, i) - 1
        part = self.parts[p]
        row = part["start"][i - self.ends[p]]
        chunk = row + part.offsets
        return (
            part.jpeg(row),
            part["buttons"][chunk],
            part["sticks"][chunk],
            part["mask"][part["video"][row]],
            part.about["game"],
        )

    @property
    def games(self) -> dict:
        """game -> chunks"""
        out = {}
        for part in self.parts:
            out[part.about["game"]] = out.get(part.about["game"], 0) + len(part["start"])
        return out


class Part:
    """One shard: checked once; the small tensors are in memory, the JPEG bytes on disk
    (memory-mapped).
    """

    def __init__(self, path):
        self.tensors, self.info = artefact.read(path, "nitrogen.shard/1")
        t, self.about = self.tensors, self.info["videos"][0]
        sizes, R, V = np.diff(t["offset"]), len(t["frame"]), len(t["mask"])
        if (
            len(sizes) != R
            or t["offset"][0] != 0
            or t["offset"][-1] != len(t["jpeg"])
            or (sizes < 0).any()
            or R
            and not 0 <= t["video"].min() <= t["video"].max() < V
            or len(t["start"])
            and not (0 <= t["start"].min() <= t["start"].max() < R and sizes[t["start"]].all())
        ):
            raise SystemExit(
                f"{path}: its offsets do not fit its frames; make it anew: {artefact.MAKER['shard']} --fresh"
            )

    def __getitem__(self, name):
        return self.tensors[name]

    def jpeg(self, row: int) -> np.ndarray:
        return self["jpeg"][self["offset"][row] : self["offset"][row + 1]]


def decode(jpeg: np.ndarray, side: int) -> np.ndarray:
    """JPEG bytes -> uint8 [side, side, 3] RGB; sizes 256, 128, 64 are decoded directly at that
    scale.
    """
    import cv2

    flag = {
        256: cv2.IMREAD_COLOR,
        128: cv2.IMREAD_REDUCED_COLOR_2,
        64: cv2.IMREAD_REDUCED_COLOR_4,
    }.get(side, cv2.IMREAD_COLOR)
    try:
        image = cv2.imdecode(jpeg, flag)
    except cv2.error:  # larger than any honest picture
        image = None
    if image is None:
        raise SystemExit(
            f"a shard holds a frame that is no JPEG; make the shards anew: {artefact.MAKER['shard']} --fresh"
        )
    if image.shape[0] != side:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])


# ---- looking at it -------------------------------------------------------------------------------


def piano_roll(buttons, sticks, kept, shown, width: int = 1180):
    """RGB picture [h, 1280, 3]: a lane per button and stick axis over time; below, what is kept
    (green) and what is not (red).
    """
    import cv2

    T, names = len(buttons), (*artefact.BUTTONS, *artefact.STICKS)
    at = np.arange(width) * T // width  # first row of each column
    tall = [11] * 16 + [35] * 4 + [15]
    canvas = np.full((sum(tall) + 2 * len(tall), 100 + width, 3), 40, np.uint8)
    fate = np.maximum.reduceat(kept, at).astype(int)
    ground = np.uint8([[92, 52, 52], [52, 76, 58]])[fate]  # width, 3
    low, high = np.minimum.reduceat(sticks, at), np.maximum.reduceat(sticks, at)
    on, y = np.maximum.reduceat(buttons, at) > 0, 2
    for lane, h in enumerate(tall):
        part = canvas[y : y + h, 100:]
        part[:] = ground
        if lane < 16:
            part[:, on[:, lane]] = (90, 220, 120)
        elif lane < 20:
            line = np.arange(h)[:, None] - h // 2
            part[
                (line >= np.round(16 * low[:, lane - 16]))
                & (line <= np.round(16 * high[:, lane - 16]))
            ] = (250, 170, 80)
        else:
            part[:] = np.uint8([[210, 70, 60], [60, 180, 90]])[fate]
        text = names[lane] if lane < 20 else "KEPT"
        colour = (230, 230, 230) if lane == 20 or shown[lane] else (110, 110, 110)
        cv2.putText(
            canvas,
            text,
            (3, y + h // 2 + 4),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.32,
            colour,
            1,
            cv2.LINE_AA,
        )
        y += h + 2
    return canvas


def save_picture(path: Path, rows: list) -> None:
    write_png(path, np.vstack(rows))
    print(f"picture -> {path}")


def inspect(path) -> None:
    """Print what a file or folder of this stage is; of a shard and of an archive also a picture,
    beside it.
    """
    path = Path(path)
    if path.is_dir():
        return inspect_folder(path)
    if path.suffix != ".safetensors":
        return wing("released.dataset").inspect_archive(path)
    artefact.show(path)
    if artefact.read(path)[1]["format"] == "nitrogen.shard/1" and len(
        (part := Part(path))["frame"]
    ):
        row = np.round((part["time"] - part["time"][0]) * part.about["fps"]).astype(int)
        T = row[-1] + 1
        kept, buttons, sticks = (
            np.zeros(T, bool),
            np.zeros((T, 16), np.uint8),
            np.zeros((T, 4), np.float32),
        )
        kept[row], buttons[row], sticks[row] = True, part["buttons"], part["sticks"]
        shown = np.flatnonzero(np.diff(part["offset"]))
        frames = [
            decode(np.asarray(part.jpeg(i)), 160)
            for i in shown[np.linspace(0, len(shown) - 1, 8).astype(int)]
        ]
        save_picture(
            path.with_suffix(".png"),
            [np.hstack(frames), piano_roll(buttons, sticks, kept, part["mask"][0])],
        )


def inspect_folder(folder: Path) -> None:
    file = folder / "manifest.json"
    if not file.exists():
        raise SystemExit(
            f"{file}: no such file; {artefact.MAKER['shard']} --out {folder} writes it"
        )
    try:
        said = json.loads(file.read_bytes())
        fault = artefact.amiss(said, MANIFEST)
    except (ValueError, RecursionError) as e:
        fault = str(e)
    if fault:
        raise SystemExit(
            f"{file}: not a manifest ({fault}); {artefact.MAKER['shard']} --out {folder} writes it anew"
        ) from None
    videos = said["videos"]
    print(
        f"{'video':24s} {'game':14s} {'split':10s} {'rows':>9s} {'kept':>9s} {'chunks':>9s} {'shards':>6s} {'MB':>8s}  lag (confidence)"
    )
    for name, v in videos.items():
        lag, size = (
            f"{v['lag']['frames']} ({v['lag']['confidence']:g})" if v.get("lag") else "-",
            sum(v["files"].values()) / 1e6,
        )
        print(
            f"{name:24s} {v['game']:14s} {v['split']:10s} {v['rows']:9,} {v['kept']:9,} {v['chunks']:9,} {v['shards']:6} {size:8.1f}  {lag}"
        )
    print(totals(videos))
    listed = {name: size for v in videos.values() for name, size in v["files"].items()}
    there = {p.name: p.stat().st_size for p in folder.glob("*.safetensors")}
    partial = [name for name, v in videos.items() if len(v["files"]) != v["shards"]]
    if listed != there or partial:
        print(
            f"not as listed: {', '.join(sorted({k for k, _ in listed.items() ^ there.items()}) + partial)}; run filter.py again",
            file=sys.stderr,
        )


def totals(videos: dict) -> str:
    rows, kept, chunks = (sum(v[k] for v in videos.values()) for k in ("rows", "kept", "chunks"))
    return (
        f"{len(videos)} videos, {rows:,} rows: kept {kept:,} ({100 * kept / max(rows, 1):.0f} %), {chunks:,} chunks "
        f"({sum(v['split'] == 'validation' for v in videos.values())} videos held out)"
    )


def summary(c: Config, counts: list) -> None:
    left_out = sum("left out" in (n or {}) for n in counts)
    print(
        f"{totals({i: n for i, n in enumerate(counts) if n and 'left out' not in n})} -> {c.out}"
        + (
            f"; {left_out} left out: what was read does not agree with the frames (--min-agreement)"
            if left_out
            else ""
        )
    )


def run(c: Config) -> None:
    if c.scale not in ("radius", "percentile"):
        raise SystemExit(f"--scale {c.scale}: expected radius or percentile")
    expect(
        c,
        segment_seconds=(0.1, 1e6),
        min_active=(0, 1),
        percentile=(50, 100),
        rate=(0.1, 1000),
        horizon=(1, 10_000),
        shift=(0, 10_000),
        min_agreement=(-1, 1),
        quality=(1, 100),
        rows_per_shard=(1, 1e9),
        validation=(0, 1),
    )
    videos = wing("released.dataset").import_released(c) if c.nitrogen else c.videos
    try:
        for_each(
            functools.partial(filter_video, c=c),
            videos,
            c.workers,
            ray=c.ray,
            summary=functools.partial(summary, c),
        )
    finally:
        # of all that is in the folder, also from other runs
        if (there := manifest(c.out))["videos"]:
            artefact.write_bytes(
                Path(c.out) / "manifest.json", json.dumps(there, indent=1).encode()
            )


def main(argv=None):
    # they may be named so, which reads better with --nitrogen
    argv = [a for a in (sys.argv[1:] if argv is None else argv) if a != "--videos"]
    command_line(__doc__, {"": (Config, run)}, argv, inspect)


if __name__ == "__main__":
    main()
