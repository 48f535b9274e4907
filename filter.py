"""filter.py: from parsed actions to training shards: refine the sticks, drop idle segments, mask
the overlay (paper 2.1).

    python filter.py VIDEO... --labels data/labels --out data/shards
            what parse.py read; or the true actions of a recorder, as of `eval.py play --record`
    python filter.py --nitrogen SHARD_0000.tar.gz --videos DIR --out data/shards
            labels of the released dataset, your copies of its videos
    python filter.py --lerobot DIR --actions a=SOUTH,x=LEFT_X,y=-LEFT_Y --out data/shards
            a LeRobotDataset v3; `export --lerobot OUT data/shards` writes one
    python filter.py --inspect FILE
            a shard (and a picture of it), a folder of shards, a SHARD_0000.tar.gz

In, per video:
    LABELS/<stem>.actions.safetensors     buttons [T, 16], sticks [T, 4]; from parse.py, or from
            --nitrogen, which writes them; a recorder's (also <stem>.truth.safetensors) may lie
            beside the video
    LABELS/<stem>.overlay.safetensors     the box to paint out; only for parsed actions
Out:
    OUT/<stem>-000.safetensors, -001 ...  JPEG frames 256 x 256 with their actions
            (artefact.FORMATS, nitrogen.shard/1)
    OUT/manifest.json                     what is in the folder

A row is one frame of the video, or one timestep of the released labels.  Segments of 20 s are kept
if at least half of their timesteps are not null.  common/shards.py reads them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, command_line, expect, recipe_of, typed, wing
from common.lag import Motion, picture_lag
from common.pictures import Video, area_of, clamped, rate_of, read_video, video_facts
from common.recording import WHO, rows_of, with_lead
from common.shards import in_words, remove_others, shrunk, totals, write_manifest
from common.times import evened, uneven, usual_step, whole_multiple
from common.workers import for_each

import cv2
import numpy as np
from tqdm import tqdm

DEAD_ZONE = 0.1  # CHOICE: a stick within it is at rest
# CHOICE: full deflection is at least this share of the drawn radius, so that a stick that is seldom
# pushed is not blown up
LEAST_REACH = 0.95
REST = 0.5  # grid cells around the neutral point in which a stick is at rest: about the dead zone
# CHOICE: least probability from which a press of one frame counts; seldom used buttons need more
SURE = 0.95
COST = math.log(SURE / (1 - SURE)) / 2  # of a change, log-odds: a press of one frame takes two
# usual share of frames in which a button changes: COST is the log-odds that it does not
CHANGE = 1 / (1 + math.exp(COST))
DOWN = 0.23  # share of the time that a button is down in the frames that the parser learned from
HABIT = 300  # CHOICE: least number of a usual player's frames that count beside the video's own
GROW = 0.06  # the masked box is larger than the overlay by this share of its size, and by GROW_PX
GROW_PX = 2
MASK_COLOUR = 127  # mid-grey: 0 for the network
LONGEST = 7 * 86400.0  # s, of a video whose frames come unevenly


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    # SHARD_0000.tar.gz of the released dataset, or a pattern in quotes: labels of those videos (pip
    # install pyarrow)
    nitrogen: str = ""
    lerobot: str = ""  # folder of a LeRobotDataset v3: its episodes (pip install pyarrow)
    camera: str = ""  # of --lerobot: the key of its video, where there are several
    # of --lerobot: NAME=BUTTON or NAME=-AXIS/100, with commas between; none: those named as ours
    actions: str = ""
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
    who: str = "person"  # whose rows, where two took turns at the pad: person, policy or all
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
    """Grid cells [T, 2] -> [2]: the mean of the frames at rest, those within REST of it.

    The search starts at the template's own centre. A wider circle takes in what the player holds
    half-way: 1.5 cells cost 0.01 of R2 on sticks that seldom rest.
    """
    centre = np.zeros(2, np.float32)
    for _ in range(5):
        rest = np.hypot(*(xy - centre).T) < REST
        centre = xy[rest].mean(axis=0) if rest.any() else np.zeros(2, np.float32)
    return centre


def normalize(sticks, scale: str = "percentile", percentile: float = 99.0, radius: float = 5.0):
    """Grid cells [T, 4] -> float32 [T, 4] in [-1, 1]: neutral point to 0, full deflection to 1.

    scale: "percentile": full deflection is that percentile of |x| and of |y| (paper 2.1).
    DEVIATION: it is never less than LEAST_REACH of the template's stick radius (cells), since a
    stick may seldom reach its end.  "radius": full deflection is that radius.
    """
    xy = sticks - np.r_[neutral_point(sticks[:, :2]), neutral_point(sticks[:, 2:])]
    if scale == "percentile":
        radius = np.maximum(np.percentile(np.abs(xy), percentile, axis=0), LEAST_REACH * radius)
    return np.clip(xy / radius, -1, 1).astype(np.float32)


# ---- presses -------------------------------------------------------------------------------------


def viterbi(log_odds, cost):
    """Log-odds [T, 16] of being pressed -> pressed bool [T, 16]: each button's likeliest path.

    It maximizes the sum of the log-odds while pressed, less `cost` (a number, or [16]) per change.
    lead = the best score of a path that ends pressed, less the best of one that does not.
    """
    lead = log_odds.copy()
    for t in range(1, len(lead)):
        lead[t] += lead[t - 1].clip(-cost, cost)
    pressed = lead > 0
    for t in reversed(range(len(lead) - 1)):
        pressed[t] = lead[t] > np.where(pressed[t + 1], -cost, cost)
    return pressed


def clean_presses(p):
    """Probabilities [T, 16] -> pressed bool [T, 16], decoded in two passes.

    1. Decode with the usual cost of a change.
    2. Estimate this player's habits from that: how much of the time each button is down, and how
       often it changes.  A usual player counts beside them: as HABIT frames, or half the video's.
    3. Rarely used buttons need stronger evidence: their log-odds are shifted to the video's own
       share (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002).  Buttons that seldom
       change cost more to change, so they do not flicker.  A button that is down most of the time,
       but typically not SURE, is something behind the overlay: each of its frames must be SURE.
    4. Decode again.
    CHOICE: no step makes the parser's evidence stronger.
    """
    p = p.astype(np.float64).clip(1e-3, 1 - 1e-3)
    log_odds = np.log(p) - np.log1p(-p)
    pressed = viterbi(log_odds, COST)

    T = len(p)
    usual = max(HABIT, T / 2)
    down = (pressed.sum(axis=0) + usual * DOWN) / (T + usual)
    changes = (pressed[1:] != pressed[:-1]).sum(axis=0)
    change = (changes + usual * CHANGE) / (T - 1 + usual)

    shift = np.log(down / DOWN * (1 - DOWN) / (1 - down)).clip(max=0)
    behind = (down > 0.5) & (np.median(log_odds, axis=0) < 2 * COST)
    cost = np.log((1 - change) / change).clip(min=COST)
    return viterbi(log_odds + shift - 2 * COST * behind, cost)


def final_actions(
    path, scale: str = "percentile", percentile: float = 99.0
) -> tuple[np.ndarray, np.ndarray, dict, dict]:
    """(buttons uint8 [T, 16], sticks float32 [T, 4] in [-1, 1], tensors, info) of an actions file,
    parsed or recorded.
    """
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    unit = info.get("unit")
    if unit not in ("grid", "normalized"):
        raise SystemExit(f"{path}: unit should be 'grid' or 'normalized', found {unit!r}")
    buttons = tensors["buttons"] > 0.5
    sticks = np.clip(tensors["sticks"], -1, 1)
    if unit == "grid":
        seen = tensors["confidence"] > 0
        buttons[:] = False
        sticks[:] = 0
        if seen.any():
            radius = info.get("cells_per_radius", 5.0)
            buttons[seen] = clean_presses(tensors["buttons"][seen])
            sticks[seen] = normalize(tensors["sticks"][seen], scale, percentile, radius)
    shown = tensors["shown"]
    return buttons.astype(np.uint8) * shown[:16], sticks * shown[16:], tensors, info


# ---- what is known of a video, row by row --------------------------------------------------------


@dataclass
class Labels:
    buttons: np.ndarray  # uint8 [T, 16]
    sticks: np.ndarray  # float32 [T, 4] in [-1, 1]
    # bool [T]: False where no overlay was shown, no label is given, or another had the pad
    known: np.ndarray
    segment: np.ndarray  # int64 [T]: rows that are kept or dropped together
    frame: np.ndarray  # int64 [T]: the video's frame at this row; never falls
    time: np.ndarray  # float64 [T], seconds
    fps: float  # rows per second
    shown: np.ndarray  # bool [20]
    # per segment: ([(x0, y0, x1, y1)] to be painted, (x0, y0, x1, y1) the game's picture), frame px
    views: list
    game: str
    about: str  # where the labels are from, in words
    split: str = ""  # train or validation, if their source says so
    who: str = ""  # --who, where two took turns


def find_labels(video: str, c: Config) -> Path | None:
    """The actions file of a video: in --labels, or what a recorder wrote beside the video."""
    for folder in (Path(c.labels), Path(video).parent):
        for kind in ("actions", "truth"):
            path = folder / f"{Path(video).stem}.{kind}.safetensors"
            if path.exists():
                return path
    return None


def read_labels(video: str, path: Path, overlay: Path | None, c: Config) -> Labels:
    """All that the files say; SystemExit with one line if they cannot belong to the video."""
    facts = video_facts(video)
    buttons, sticks, tensors, info = final_actions(path, c.scale, c.percentile)
    game = info.get("game") or Path(video).stem.rsplit("-", 1)[0]
    area = area_of(c.area, facts)
    known = tensors["confidence"] > 0
    doubts = artefact.doubtful(info.get("agreement") or {}, buttons[known])
    parts = (*artefact.BUTTONS, "LEFT", "LEFT", "RIGHT", "RIGHT")
    shown = tensors["shown"] & [name not in doubts for name in parts]
    buttons = buttons * shown[:16]
    sticks = sticks * shown[16:]
    if "chunks" in info:
        return wing("interop.dataset").released_labels(
            facts | {"times": Video(video, True).times()},
            buttons,
            sticks,
            tensors["shown"],
            info["chunks"],
            game,
            area,
            c,
        )

    frame, time, fps, said = by_the_clock(path, tensors["time"], facts["fps"], c)
    about = "parsed" if info["unit"] == "grid" else f"true actions ({path})"
    who = c.who if "person" in tensors else ""
    if who:
        known &= rows_of(who, tensors["person"], active(buttons, sticks))
        about += f", --who {who}"
    if doubts:
        about += f", not trusted and masked: {' '.join(doubts)}"
    segment = np.arange(len(frame)) // max(1, round(c.segment_seconds * fps))
    painted = [clamped(box, facts, GROW, GROW_PX) for box in overlay_boxes(overlay, info, c)]
    return Labels(
        buttons=buttons[frame],
        sticks=sticks[frame],
        known=known[frame],
        segment=segment,
        frame=frame,
        time=time,
        fps=fps,
        shown=shown,
        views=[(painted, area)] * len(np.unique(segment)),
        game=game,
        about=about + said,
        who=who,
    )


def by_the_clock(path: Path, time, fps: float, c: Config) -> tuple:
    """(frame [T], time [T], fps, what to say): the rows of a video, at one distance from another.

    Frames that come unevenly, or at no whole multiple of --rate, are laid out by their times.
    """
    fps = rate_of(time, fps)
    steady = not uneven(time)
    if steady and (whole_multiple(fps, c.rate) or not usual_step(time)):
        return np.arange(len(time)), time, fps, ""
    if not time[-1] - time[0] < LONGEST:
        raise SystemExit(
            f"{path}: its times run from {time[0]:g} to {time[-1]:g} s; "
            f"parse the video again: {artefact.MAKER['actions']} --fresh"
        )
    how = f"at {fps:g}/s" if steady else "unevenly"
    frame, time, fps = evened(time, c.rate)
    return frame, time, fps, f", frames that come {how} laid out at {fps:g}/s"


def overlay_boxes(overlay: Path | None, info: dict, c: Config) -> list:
    """[[x, y, w, h]] in frame px: the overlay's places; of a recorder, the box that it drew in."""
    if overlay:
        return artefact.read(overlay, "nitrogen.overlay/1")[0]["bbox"].tolist()
    return [info["box"]] if c.mask and "box" in info else []


# ---- what to keep --------------------------------------------------------------------------------


def active(buttons, sticks):
    """bool [T]: timesteps that are not null."""
    return buttons.any(axis=1) | (np.abs(sticks) > DEAD_ZONE).any(axis=1)


def kept_rows(labels: Labels, min_active: float):
    """(bool [T]: known rows of the segments that stay, bool [S]: which segments stay, of those with
    known rows).
    """
    segment = labels.segment[labels.known]
    busy = active(labels.buttons, labels.sticks)[labels.known]
    n = len(labels.views)
    rows = np.bincount(segment, minlength=n)
    busy_rows = np.bincount(segment, busy, minlength=n)
    stays = (busy_rows >= min_active * rows) & (rows > 0)
    return labels.known & stays[labels.segment], stays[rows > 0]


def chunk_starts(keep, fps: float, c: Config, known=None):
    """int64 [M]: rows i whose whole chunk i + shift, i + shift + stride, ... lies in kept rows.

    known: bool [T], rows whose actions may be in a chunk (default: all); its frame may be another's
    """
    stride = fps / c.rate
    if not whole_multiple(fps, c.rate):
        raise SystemExit(
            f"{fps:g} rows/s is no whole multiple of --rate {c.rate:g}: give a rate that divides it"
        )
    reach = c.shift + (c.horizon - 1) * round(stride) + 1
    held = np.cumsum(np.r_[0, keep])
    told = np.cumsum(np.r_[0, keep if known is None else known])[c.shift :]
    span = reach - c.shift
    whole = (held[reach:] - held[:-reach] == reach) & (told[span:] - told[:-span] == span)
    return np.flatnonzero(whole)


# ---- shards --------------------------------------------------------------------------------------


def pictures(video, frames, labels: Labels, segments, quality: int):
    """Yield (JPEG bytes, motion float32 [3]) of the given frames, in order: overlay painted out,
    game's area resized to 256 x 256.

    motion: since the frame before, see Motion.
    """
    motion = Motion()
    for segment, (i, _, rgb) in zip(segments, read_video(video, frames), strict=False):
        boxes, (left, top, right, bottom) = labels.views[segment]
        for x0, y0, x1, y1 in boxes:
            rgb[y0:y1, x0:x1] = MASK_COLOUR
        picture = shrunk(rgb[top:bottom, left:right], artefact.FRAME)
        _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        yield jpeg.tobytes(), motion.to(i, picture)


def filter_video(video: str, c: Config) -> dict | None:
    """One video -> its shards.  Returns counts: rows, kept, chunks ...; None if no overlay was
    found in it.
    """
    stem = Path(video).stem
    overlay = Path(c.labels) / f"{stem}.overlay.safetensors"
    path = find_labels(video, c)
    info = artefact.read(path, "nitrogen.actions/1")[1] if path else {}
    parsed = info.get("unit") == "grid"  # else a recorder's, and no overlay is needed
    if (parsed or not path) and nothing_found(overlay):
        line = f"{video}: no overlay was found in it, so there is nothing to learn from"
        return leave_out(line, c, "; skipped")
    if not path:
        raise SystemExit(
            f"{Path(c.labels) / stem}.actions.safetensors: no such file; "
            f"make it: {typed('parse.py', video, '--out', c.labels)}"
        )
    agreement = float(np.median([*(info.get("agreement") or {"": 1}).values()]))
    if parsed and agreement < c.min_agreement:
        line = (
            f"{video}: left out, what was read agrees with the frames by {agreement:.2f} only "
            f"(--min-agreement {c.min_agreement:g}): is {info.get('template')} its skin?  "
            "Give the skin to extract.py (--templates), or adapt the parser to it"
        )
        leave_out(line, c)
        return {"left out": 1}
    return make_shards(video, path, overlay if c.mask and parsed else None, c)


def nothing_found(overlay: Path) -> bool:
    """Whether extract.py looked for an overlay, and there is none."""
    if not overlay.exists():
        return False
    return artefact.read(overlay, "nitrogen.overlay/1")[1].get("found") is False


def leave_out(line: str, c: Config, more: str = "") -> None:
    """Say why a video is left out; the only video's fault is an error."""
    if len(c.videos) == 1:
        raise SystemExit(line)
    tqdm.write(line + more, file=sys.stderr)


def make_shards(video: str, path: Path, overlay: Path | None, c: Config) -> dict:
    """Labels and pictures -> shards, unless they are there; the counts that the shards hold."""
    labels = read_labels(video, path, overlay, c)
    recipe = recipe_of(c, video, path, *([overlay] if overlay else []))
    return shards_of(video, Path(video).stem, labels, recipe, c)


def shards_of(video, stem: str, labels: Labels, recipe: dict, c: Config) -> dict:
    """`make_shards`, of labels that are read.  video: a path or a Video."""
    if c.who == "policy" and not labels.who:
        raise SystemExit(f"{stem}: does not say which rows are a policy's; drop --who policy")
    told, stays = kept_rows(labels, c.min_active)
    keep = with_lead(told, labels.time) if labels.who == "person" else told
    shards = max(1, -(-int(keep.sum()) // c.rows_per_shard))
    groups = np.array_split(np.flatnonzero(keep), shards)
    paths = [Path(c.out) / f"{stem}-{k:03d}.safetensors" for k in range(shards)]
    if not labels.who:
        recipe.pop("who")  # it decides nothing here
    there = [artefact.finished(p, "nitrogen.shard/1", recipe, c.fresh) for p in paths]
    if not all(there):
        held_out = zlib.crc32(stem.encode()) % 1000 < 1000 * c.validation
        counts = {
            "split": labels.split or ("validation" if held_out else "train"),
            "rows": len(keep),
            "known": int(labels.known.sum()),
            "kept": int(keep.sum()),
            "segments": [int(stays.sum()), len(stays)],
            "shards": shards,
        }
        labels = dataclasses.replace(labels, known=told)  # no chunk is of a dropped segment's rows
        write_shards(video, stem, paths, groups, labels, counts, recipe, c)
    info = artefact.read(paths[-1], "nitrogen.shard/1")[1]
    tqdm.write(f"{video}: {labels.about}; {in_words(info)}")
    return info["counts"]


def write_shards(
    video, stem: str, paths, groups, labels: Labels, counts: dict, recipe: dict, c: Config
) -> None:
    """The kept rows, a group of them per shard.  A frame that several rows show is stored once,
    with the first: chunks begin there.
    """
    rows = np.concatenate(groups)
    new = np.zeros(len(labels.frame), bool)  # rows with a frame of their own
    new[rows] = np.diff(labels.frame[rows], prepend=-1) > 0
    starts = []
    for group in groups:
        mine = np.isin(np.arange(len(new)), group)
        start = chunk_starts(mine, labels.fps, c, labels.known)
        starts.append(start[new[start]])
    counts["chunks"] = sum(map(len, starts))
    about = {"name": stem, "game": labels.game, "fps": labels.fps, "split": counts["split"]}
    shown = np.flatnonzero(new)
    frames = pictures(video, labels.frame[shown], labels, labels.segment[shown], c.quality)
    motion, lag = [], None
    for path, group, start in zip(paths, groups, starts, strict=True):
        made = list(itertools.islice(frames, int(new[group].sum())))
        if len(made) < new[group].sum():
            raise SystemExit(
                f"{video}: has fewer frames than its labels have rows ({len(new)}); parse it again"
            )
        motion += [moved for _, moved in made]
        if path is paths[-1] and motion:  # known when the whole video has been seen
            actions = np.hstack([labels.buttons[shown], labels.sticks[shown]])
            fps = labels.fps * len(shown) / len(rows)
            lag = picture_lag(actions, np.stack(motion), fps)
        artefact.write(
            path,
            shard_tensors(labels, group, start, new[group], [jpeg for jpeg, _ in made]),
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
    remove_others(paths, stem)


def shard_tensors(labels: Labels, group, start, new, jpegs: list[bytes]) -> dict:
    """What a shard holds of these rows (see artefact.FORMATS); new: bool, rows with a frame of
    their own.
    """
    sizes = np.zeros(len(group), np.int64)
    sizes[new] = [len(jpeg) for jpeg in jpegs]
    return {
        "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "offset": np.cumsum([0, *sizes], dtype=np.int64),
        "buttons": labels.buttons[group],
        "sticks": labels.sticks[group].astype(np.float32),
        "mask": labels.shown[None],
        "video": np.zeros(len(group), np.int32),
        "frame": labels.frame[group],
        "time": labels.time[group],
        "start": np.searchsorted(group, start).astype(np.int64),
    }


# ---- commands ------------------------------------------------------------------------------------


def inspect(path) -> None:
    """Print what a file or folder of this stage is; of a shard and of an archive also a picture,
    beside it.
    """
    path = Path(path)
    archive = not path.is_dir() and path.suffix != ".safetensors"
    wing("interop.dataset" if archive else "bench.shards").inspect(path)


def summary(c: Config, counts: list) -> None:
    """The last line of a run; counts: what filter_video returned, None of a video that failed."""
    left_out = sum("left out" in (n or {}) for n in counts)
    videos = {i: n for i, n in enumerate(counts) if n and "left out" not in n}
    line = f"{totals(videos)} -> {c.out}"
    if left_out:
        line += (
            f"; {left_out} left out: what was read does not agree with the frames (--min-agreement)"
        )
    print(line)


def run(c: Config) -> None:
    for flag, words in (("scale", ("radius", "percentile")), ("who", WHO)):
        if getattr(c, flag) not in words:
            raise SystemExit(f"--{flag} {getattr(c, flag)}: expected {' or '.join(words)}")
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
    videos, work = c.videos, filter_video
    if c.nitrogen:
        videos = wing("interop.dataset").import_released(c)
    if c.lerobot:
        videos, work = wing("interop.lerobot").episodes_of(c)
    work = functools.partial(work, c=c)
    try:
        for_each(work, videos, c.workers, ray=c.ray, summary=functools.partial(summary, c))
    finally:
        write_manifest(c.out)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    argv = [arg for arg in argv if arg != "--videos"]  # the word reads well beside --nitrogen
    command_line(__doc__, {"": (Config, run), "export": "interop.to_lerobot:export"}, argv, inspect)


if __name__ == "__main__":
    main()
