"""The released dataset, labels only: chunks of 20 s, thousands of them in a tar ->
*.actions.safetensors of your copies of the videos.
"""

from __future__ import annotations

import glob
import io
import itertools
import json
import re
import sys
import tarfile
import zlib
from pathlib import Path

from common import artefact
from common.pictures import clamped, rate_of

import numpy as np
from tqdm import tqdm

import filter
from bench.shards import piano_roll, save_picture
from interop.parquet import in_reader, in_words, largest_part, need_pyarrow

# ---- the archive ---------------------------------------------------------------------------------

MOST = 1 << 24  # bytes of a member and of a column: an honest chunk's actions are about 50 kB
STICK_COLUMNS = ("j_left", "j_right")
# there is also guide, which our pad has not
COLUMNS = (*(name.lower() for name in artefact.BUTTONS), *STICK_COLUMNS)
MEMBER = re.compile(
    r"(?:.*/)?([^/]+/[^/]+)/(actions_raw\.parquet|actions_processed\.parquet|metadata\.json)"
)


class Plain(tarfile.TarInfo):
    """A tar header as tarfile reads it; those that ask for more memory than any honest one are
    refused.
    """

    def _proc_member(self, tar):
        is_long = self.type in b"xgXLK" and self.size > 1 << 16
        if self.type == tarfile.GNUTYPE_SPARSE or self.size < 0 or is_long:
            raise tarfile.ReadError("a header of a kind or size that has no place in it")
        return super()._proc_member(tar)


def members(archive):
    """Yield (folder, file name, bytes; None if too large) of the chunks' files, in one pass.

    Nothing is extracted: names are only compared; links and other files are passed over.
    """
    try:
        with tarfile.open(archive, "r|*", tarinfo=Plain) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep all of them
                found = MEMBER.fullmatch(member.name)
                if member.isreg() and found:
                    small = member.size <= MOST
                    yield (*found.groups(), tar.extractfile(member).read() if small else None)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as e:
        raise SystemExit(
            f"{archive}: not a whole .tar.gz ({type(e).__name__}: {str(e)[:100]}); fetch it again"
        ) from None


def read_parquet(blob: bytes) -> dict:
    """Column -> float32 [rows], or [rows, 2] for sticks, of those that this pad has too; ValueError
    if it is not a chunk's actions.
    """
    need_pyarrow("the released dataset")
    return in_reader(read_columns, blob)


def read_columns(blob: bytes) -> dict:
    """`read_parquet`, in that process."""
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(blob))
        rows = file.metadata.num_rows
        names = [name for name in file.schema_arrow.names if name in COLUMNS]
        if not names or not 0 < rows <= MOST or largest_part(file.metadata) > MOST:
            raise ValueError(f"{rows:,} rows, known columns: {', '.join(names) or 'none'}")
        table = file.read(names, use_threads=False)
        return {name: as_array(table.column(name), name in STICK_COLUMNS) for name in names}
    except Exception as e:
        raise ValueError(in_words(e)) from None


def as_array(column, is_stick: bool) -> np.ndarray:
    """A table's column -> float32 [rows], or [rows, 2]."""
    values = column.combine_chunks()
    shape = (len(column), 2) if is_stick else (len(column),)
    flat = values.flatten() if is_stick else values
    numbers = flat.to_numpy(zero_copy_only=False).astype(np.float32)
    return np.nan_to_num(numbers).reshape(shape)


# ---- a chunk -------------------------------------------------------------------------------------


def number(v, low: float = 0.0, high: float = 1e9):
    if not isinstance(v, (int, float)) or not low <= v <= high:  # NaN is neither
        raise ValueError(f"{str(v)[:40]!r} is no number in {low:g}..{high:g}")
    return v


def share_of(box, sides: list) -> list:
    """x, y, w, h in px -> in shares of the frame."""
    return [number(v, -1e6, 1e6) / side for v, side in zip(box, sides, strict=True)]


def printable(text) -> str:
    return "".join(letter for letter in str(text)[:100] if letter.isprintable())


def chunk_facts(blob: bytes | None) -> dict:
    """What a metadata.json says, checked; ValueError in words."""
    try:
        return checked_facts(json.loads(blob or b""))
    except KeyError as e:
        raise ValueError(f"metadata.json: no {str(e)[:100]}") from None
    except (TypeError, ValueError, AttributeError, RecursionError) as e:
        raise ValueError(f"metadata.json: {str(e)[:100]}") from None


def checked_facts(meta: dict) -> dict:
    """The facts of a chunk that are used.  Boxes are in shares of the frame, since the copy at hand
    may have another resolution.
    """
    source = meta["original_video"]
    sides = [number(v, 1) for v in source["resolution"][::-1]] * 2
    frames = [number(source[k]) for k in ("start_frame", "end_frame") if source.get(k) is not None]
    others = [box for box in meta.get("bbox_others") or () if isinstance(box, list)][:9]
    size = number(meta["chunk_size"], 1, 1e5)
    seconds = number(source["duration"], 0.1)
    number(size / seconds, 1, 240)  # rows per second
    area = meta.get("bbox_game_area")
    return {
        "video": str(source["video_id"]),
        "url": printable(source.get("url", "")),
        "game": printable(meta.get("game") or "unknown"),
        "controller": printable(meta.get("controller_type")),
        "size": size,
        "seconds": seconds,
        "start": number(source["start_time"]),
        "frames": frames if len(frames) == 2 and frames[1] > frames[0] else None,
        "boxes": [share_of(box, sides) for box in (meta["bbox_controller_overlay"], *others)],
        "area": share_of(area, sides) if area else None,
    }


def chunk_actions(files: dict, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(buttons float16 [rows, 16], sticks float32 [rows, 4], shown bool [20]): the processed
    actions, else the raw ones.  ValueError in words.
    """
    fault = "no actions in it, or too large ones"
    for name in ("actions_processed.parquet", "actions_raw.parquet"):
        if not files.get(name):
            continue
        try:
            return as_actions(read_parquet(files[name]), size)
        except ValueError as e:
            fault = f"{name}: {e}"
    raise ValueError(fault)


def as_actions(found: dict, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns that were found -> all of this pad's; the others are at rest and not shown."""
    rows = min(int(size), *map(len, found.values()))
    button = np.zeros(rows)
    stick = np.zeros((rows, 2))
    buttons = [found.get(name, button)[:rows] for name in COLUMNS[:16]]
    sticks = [found.get(name, stick)[:rows] for name in STICK_COLUMNS]
    shown = np.repeat([name in found for name in COLUMNS], [1] * 16 + [2, 2])
    pressed = (np.stack(buttons, 1) > 0.5).astype(np.float16)
    return pressed, np.hstack(sticks).clip(-1, 1).astype(np.float32), shown


# ---- a video's chunks ----------------------------------------------------------------------------


def released_videos(archive):
    """Yield (video id, [(facts, files)], [what is wrong, in words]) per video, as its chunks come
    by; only one video's are held at a time.
    """
    for name, group in itertools.groupby(released_chunks(archive), key=lambda chunk: chunk[0]):
        known, faults = [], []
        for _, facts, files, fault in group:
            if fault:
                faults.append(fault)
            else:
                known.append((facts, files))
        yield name, known, faults


def released_chunks(archive):
    """Yield (video id, facts, {file name: bytes}, what is wrong, in words) per chunk."""
    for folder, group in itertools.groupby(members(archive), key=lambda member: member[0]):
        files = {name: blob for _, name, blob in group}
        try:
            facts = chunk_facts(files.get("metadata.json"))
            yield facts["video"], facts, files, ""
        except ValueError as e:
            yield folder.split("/")[0], None, files, f"{archive}: {folder}: {e}"


def with_actions(known: list, broken: list, archive) -> list:
    """[(facts, actions)] in the order of time; a chunk whose actions cannot be read is added to
    `broken`, in words.
    """
    out = []
    for facts, files in sorted(known, key=lambda chunk: chunk[0]["start"]):
        try:
            out.append((facts, chunk_actions(files, facts["size"])))
        except ValueError as e:
            broken.append(f"{archive}: {facts['video']} at {facts['start']:g} s: {e}")
    return out


def import_released(c: filter.Config) -> tuple[str, ...]:
    """Write LABELS/<stem>.actions.safetensors for each of c.videos that the archives have labels
    of; returns those videos.
    """
    videos = {Path(video).stem: video for video in c.videos}
    if not videos:
        raise SystemExit(
            "--nitrogen has labels only: add --videos DIR, your copies as DIR/<video id>.mp4 "
            "(labels alone: --inspect FILE)"
        )
    done, missing = {}, {}
    broken = []
    for archive in archives(c.nitrogen):
        recipe = {"archive": artefact.source(archive)}
        for name, known, faults in tqdm(released_videos(archive), Path(archive).name, unit="video"):
            broken += faults
            path = Path(c.labels) / f"{name}.actions.safetensors"
            if name not in videos:
                missing[name] = known[0][0]["url"] if known else ""
            elif name in done:
                broken.append(f"{archive}: {name}: more of its chunks, apart from the others")
            elif import_video(path, known, broken, archive, recipe, c.fresh):
                done[name] = videos[name]
    print(
        f"{c.nitrogen}: labels of {len(done)} of the {len(videos)} given videos, "
        f"and of {len(missing)} that are not there"
    )
    tell(c.out, "no video", [f"{name!r} {url!r}" for name, url in missing.items()])
    tell(c.out, "skipped", [repr(line)[1:-1] for line in broken])
    if not done:
        raise SystemExit(
            f"{c.nitrogen}: none of the given videos is in it; "
            "a copy's name should be <video id>.mp4"
        )
    return tuple(done.values())


def archives(pattern: str):
    """Yield the archives' paths; SystemExit with one line at one that is not there."""
    for archive in sorted(glob.glob(pattern)) or [pattern]:
        if not Path(archive).is_file():
            raise SystemExit(f"{archive}: no such file")
        yield archive


def import_video(path, known: list, broken: list, archive, recipe: dict, fresh: bool) -> bool:
    """Write one video's labels, unless they are there; False if no chunk of it can be read."""
    if artefact.finished(path, "nitrogen.actions/1", recipe, fresh):
        return True
    readable = with_actions(known, broken, archive)
    if readable:
        write_released(path, readable, recipe)
    return bool(readable)


def tell(folder: str, what: str, lines: list[str]) -> None:
    """Print the first of these lines; all of them go to a file."""
    if lines:
        path = Path(folder) / f"{what.replace(' ', '-')}.txt"
        artefact.write_bytes(path, "\n".join([*lines, ""]).encode())
        for line in lines[:5]:
            print(f"{what}: {line}", file=sys.stderr)
        print(f"{what}: {len(lines)} in all -> {path}", file=sys.stderr)


def write_released(path, known: list, recipe: dict) -> None:
    """One video's chunks, row after row; where they belong is in the metadata.

    known: [(facts, (buttons, sticks, shown))] in the order of time.
    """
    facts = [of for of, _ in known]
    buttons, sticks, shown = zip(*(actions for _, actions in known), strict=True)
    ends = np.cumsum([0, *map(len, buttons)]).tolist()
    chunks, time = [], []
    for of, begin, end in zip(facts, ends[:-1], ends[1:], strict=True):
        chunk = {k: of[k] for k in ("size", "seconds", "start", "frames", "boxes", "area")}
        chunks.append({**chunk, "rows": [begin, end]})
        time.append(of["start"] + np.arange(end - begin) * of["seconds"] / of["size"])
    games = [of["game"] for of in facts]
    artefact.write(
        path,
        {
            "buttons": np.concatenate(buttons),
            "sticks": np.concatenate(sticks),
            "shown": np.logical_and.reduce(shown),
            "confidence": np.ones(ends[-1], np.float16),
            "time": np.concatenate(time),
        },
        "nitrogen.actions/1",
        unit="normalized",
        game=max(sorted(set(games)), key=games.count),
        controller=facts[0]["controller"],
        chunks=chunks,
        recipe=recipe,
    )


# ---- chunks laid out on a video ------------------------------------------------------------------


def frame_numbers(chunk: dict, rows: int, fps: float) -> np.ndarray:
    """int64 [rows]: the video's frame at each row of a chunk; rows are spread evenly over its
    frames, whatever either rate is.

    Frames are the published ones, scaled where the copy at hand has another rate; where there are
    none, they follow from the time.
    """
    at_start, at_end = chunk["start"] * fps, (chunk["start"] + chunk["seconds"]) * fps
    begin, end = chunk["frames"] or (at_start, at_end)
    scale = fps * chunk["seconds"] / (end - begin)
    scale = 1 if abs(scale - 1) < 0.01 else scale  # 59.94 and 60
    # a row per frame: the last one counted or not
    span = chunk["size"] if abs(end - begin - chunk["size"]) <= 1 else end - begin
    frame = scale * (begin + np.arange(rows) * span / chunk["size"])
    return np.floor(frame + 1e-6).astype(np.int64)


def laid_out_at(own: float, rate: float) -> float:
    """Rows per second at which labels of `own` rows per second are laid out: theirs, or the nearest
    whole multiple of the chunks' `rate` where theirs is none.
    """
    nearest = rate * max(1, round(own / rate))
    return own if abs(own - nearest) <= 0.01 * rate else nearest


def released_labels(
    facts: dict, buttons, sticks, shown, chunks: list, game: str, area: tuple, c: filter.Config
) -> filter.Labels:
    """Chunks laid out on one line of time at the labels' rate; a chunk is a segment, what lies
    between them is not known.

    buttons, sticks: of all chunks, row after row; facts: of the video, see video_facts, and `times`
    float64 [frames], s, of its frames.  Rows of what the video does not have are left out.
    """
    times = facts["times"]
    fps = rate_of(times, facts["fps"])
    rates = [chunk["size"] / chunk["seconds"] for chunk in chunks]
    own = float(np.median(rates))
    rate = laid_out_at(own, c.rate)
    T = int((times[-1] + 1 / fps) * rate + 1e-6)
    views = [view_of(chunk, facts, area, c) for chunk in chunks]
    out = nothing_known(T, rate, shown, views, game, f"released labels at {own:g}/s")
    if rate != own:
        out.about += f", laid out at {rate:g}/s"
    end = last = lost = beyond = 0
    for k, chunk in enumerate(chunks):
        a, b = chunk["rows"]
        # the chunk's row at each of ours: the last one that had come
        row = np.floor(np.arange(round((b - a) * rate / own)) * own / rate + 1e-6).astype(int)
        frame = frame_numbers(chunk, b - a, fps)[row]
        begin = round(frame[0] / fps * rate)
        if abs(begin - end) <= 2:
            begin = end  # it goes on where the last one ended
        seconds = (frame + 0.5) / fps
        n = min(int((seconds < times[-1] + 1 / fps).sum()), T - begin)
        if begin < end or n <= 0 or abs(rates[k] / own - 1) > 0.01:
            lost += 1
            continue
        end = begin + n
        out.buttons[begin:end] = buttons[a + row[:n]]
        out.sticks[begin:end] = sticks[a + row[:n]]
        beyond += b - a - 1 - row[n - 1]
        there = np.searchsorted(times, seconds[:n], "right") - 1  # the last that had come
        out.frame[begin:end] = np.maximum(there, last)
        out.known[begin:end] = True
        out.segment[begin:end] = k
        last = out.frame[end - 1]
    if beyond:
        out.about += f", {beyond} rows beyond the video's end left out"
    if lost:
        out.about += f", {lost} chunks outside the video, over others or at another rate"
    return out


def nothing_known(T: int, rate: float, shown, views: list, game: str, about: str) -> filter.Labels:
    """Labels of T rows, none of which is known yet."""
    return filter.Labels(
        buttons=np.zeros((T, 16), np.uint8),
        sticks=np.zeros((T, 4), np.float32),
        known=np.zeros(T, bool),
        segment=np.zeros(T, np.int64),
        frame=np.zeros(T, np.int64),
        time=np.arange(T) / rate,
        fps=rate,
        shown=shown,
        views=views,
        game=game,
        about=about,
    )


def view_of(chunk: dict, facts: dict, area: tuple, c: filter.Config) -> tuple:
    """What to paint in a chunk's frames, and the game's picture, see filter.Labels.views."""
    sides = (facts["width"], facts["height"]) * 2

    def in_px(share):
        return [v * side for v, side in zip(share, sides, strict=True)]

    boxes = []
    if c.mask:
        grow = (filter.GROW, filter.GROW_PX)
        boxes = [clamped(in_px(box), facts, *grow) for box in chunk["boxes"]]
    if c.area or not chunk["area"]:
        return boxes, area
    x0, y0, x1, y1 = clamped(in_px(chunk["area"]), facts)
    return boxes, (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= 16 else area


# ---- looking at it -------------------------------------------------------------------------------


def inspect(path: Path) -> None:
    """The released labels alone: per video what there is and what the 50 % rule would keep; a piano
    roll of the first minutes.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    first = []  # chunks for the picture: (buttons, sticks, shown, whether it is kept)
    total, kept = 0.0, 0.0  # hours
    print(
        f"{'video':16s} {'chunks':>6s} {'broken':>6s} {'kept':>5s} {'rows/s':>7s}  controller, game"
    )
    for name, known, broken in released_videos(path):
        known = with_actions(known, broken, path)
        stays = [filter.active(b, s).mean() >= filter.Config.min_active for _, (b, s, _) in known]
        hours = [facts["seconds"] / 3600 for facts, _ in known]
        total += sum(hours)
        kept += float(np.dot(hours, stays))
        of = known[0][0] if known else {"size": 0, "seconds": 1, "controller": "", "game": ""}
        print(
            f"{name!r:16s} {len(known):6d} {len(broken):6d} {sum(stays):5d} "
            f"{of['size'] / of['seconds']:7.1f}  {of['controller']!r}, {of['game']!r}"
        )
        for line in broken:
            print(repr(line)[1:-1], file=sys.stderr)
        chunks = [(*actions, keep) for (_, actions), keep in zip(known, stays, strict=True)]
        first += chunks[: 9 - len(first)]
    share = 100 * kept / max(total, 1e-9)
    print(
        f"{total:.2f} h of labels, {kept:.2f} h ({share:.0f} %) in chunks "
        "that are at least half active"
    )
    if first:
        buttons, sticks, shown, keep = zip(*first, strict=True)
        keep = np.repeat(keep, [len(b) for b in buttons])
        pressed = np.concatenate(buttons).astype(np.uint8)
        picture = piano_roll(pressed, np.concatenate(sticks), keep, shown[0])
        save_picture(path.parent / f"{path.name.split('.')[0]}.png", [picture])
