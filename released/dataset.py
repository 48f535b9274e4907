"""The released labels, nothing but labels: thousands of chunks of 20 s in a tar ->
*.actions.safetensors of your copies of the videos.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import functools
import glob
import importlib
import io
import itertools
import json
import multiprocessing
import re
import sys
import tarfile
import zlib
from pathlib import Path

from common import artefact
from common.workers import begin_worker, sigint_held_back

import numpy as np

import filter

# ---- the released dataset: labels only, 20 s a chunk, thousands of chunks in a tar ---------------

MOST = 1 << 24  # bytes of a member and of a column: an honest chunk's actions are about 50 kB
# columns; there is also guide, which our pad has not
RELEASED = (*(name.lower() for name in artefact.BUTTONS), "j_left", "j_right")
MEMBER = re.compile(
    r"(?:.*/)?([^/]+/[^/]+)/(actions_raw\.parquet|actions_processed\.parquet|metadata\.json)"
)


class Plain(tarfile.TarInfo):
    """A tar header as tarfile reads it, but for those that ask it for more memory than any honest
    one.
    """

    def _proc_member(self, tar):
        if (
            self.type == tarfile.GNUTYPE_SPARSE
            or self.size < 0
            or self.type in b"xgXLK"
            and self.size > 1 << 16
        ):
            raise tarfile.ReadError("a header of a kind or size that has no place in it")
        return super()._proc_member(tar)


def members(archive):
    """Yield (folder, file name, bytes; None if too large) of the chunks' files, in one pass.

    Nothing is extracted: names are only compared, links and whatever else is in there is passed
    over."""
    try:
        with tarfile.open(archive, "r|*", tarinfo=Plain) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep all of them
                if member.isreg() and (found := MEMBER.fullmatch(member.name)):
                    yield (
                        *found.groups(),
                        tar.extractfile(member).read() if member.size <= MOST else None,
                    )
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as e:
        raise SystemExit(
            f"{archive}: not a whole .tar.gz ({type(e).__name__}: {str(e)[:100]}); fetch it again"
        ) from None


@functools.cache
def parquet_reader():
    """A process of its own: on some broken files pyarrow does not raise, but ends the program that
    it is in.
    """
    atexit.register(parquet_reader.cache_clear)  # not later, when half of Python is gone
    return concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), begin_worker
    )


def read_parquet(blob: bytes) -> dict:
    """Column -> float32 [rows], or [rows, 2] for sticks, of those that this pad has too; ValueError
    if it is not a chunk's actions.
    """
    if not importlib.util.find_spec("pyarrow"):
        raise SystemExit("the released dataset is in parquet files: pip install pyarrow")
    try:
        with sigint_held_back():  # also while it begins, Ctrl-C is not its business
            future = parquet_reader().submit(read_columns, blob)
        return future.result()
    except concurrent.futures.BrokenExecutor:
        parquet_reader.cache_clear()  # the next file gets a new one
        raise ValueError("so broken that it ended the process that read it") from None


def read_columns(blob: bytes) -> dict:
    """`read_parquet`, in that process."""
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(blob))
        rows, names = file.metadata.num_rows, [n for n in file.schema_arrow.names if n in RELEASED]
        parts = [
            file.metadata.row_group(g).column(k)
            for g in range(file.metadata.num_row_groups)
            for k in range(file.metadata.num_columns)
        ]
        if (
            not names
            or not 0 < rows <= MOST
            or max(max(p.total_uncompressed_size, p.num_values) for p in parts) > MOST
        ):
            raise ValueError(f"{rows:,} rows, known columns: {', '.join(names) or 'none'}")
        table, out = file.read(names, use_threads=False), {}
        for name in names:
            values, shape = (
                table.column(name).combine_chunks(),
                (rows, 2) if name in RELEASED[16:] else (rows,),
            )
            values = values.flatten() if len(shape) > 1 else values
            out[name] = np.nan_to_num(
                values.to_numpy(zero_copy_only=False).astype(np.float32)
            ).reshape(shape)
        return out
    except Exception as e:  # whatever a broken file makes of the library
        raise ValueError(str(e).partition("\n")[0][:120] or type(e).__name__) from None


def number(v, low: float = 0.0, high: float = 1e9):
    if not isinstance(v, (int, float)) or not low <= v <= high:  # NaN is neither
        raise ValueError(f"{str(v)[:40]!r} is no number in {low:g}..{high:g}")
    return v


def chunk_facts(blob: bytes | None) -> dict:
    """What a metadata.json says, checked; boxes in shares of the frame, as the copy at hand may
    have another resolution.  ValueError in words.
    """
    try:
        meta = json.loads(blob or b"")
        source = meta["original_video"]
        sides = [number(v, 1) for v in source["resolution"][::-1]] * 2
        share = lambda box: [
            number(v, -1e6, 1e6) / side for v, side in zip(box, sides, strict=True)
        ]  # noqa: E731
        line = lambda text: "".join(letter for letter in str(text)[:100] if letter.isprintable())  # noqa: E731
        frames = [
            number(source[k]) for k in ("start_frame", "end_frame") if source.get(k) is not None
        ]
        others = [b for b in meta.get("bbox_others") or () if isinstance(b, list)][:9]
        size, seconds = number(meta["chunk_size"], 1, 1e5), number(source["duration"], 0.1)
        number(size / seconds, 1, 240)  # rows per second
        return {
            "video": str(source["video_id"]),
            "url": line(source.get("url", "")),
            "game": line(meta.get("game") or "unknown"),
            "controller": line(meta.get("controller_type")),
            "size": size,
            "seconds": seconds,
            "start": number(source["start_time"]),
            "frames": frames if len(frames) == 2 and frames[1] > frames[0] else None,
            "boxes": [share(box) for box in [meta["bbox_controller_overlay"], *others]],
            "area": share(meta["bbox_game_area"]) if meta.get("bbox_game_area") else None,
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise ValueError(
            f"metadata.json: {'no ' if isinstance(e, KeyError) else ''}{str(e)[:100]}"
        ) from None


def chunk_actions(files: dict, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(buttons float16 [rows, 16], sticks float32 [rows, 4], shown bool [20]): the processed
    actions, else the raw ones.  ValueError in words.
    """
    fault = "no actions in it, or too large ones"
    for name in ("actions_processed.parquet", "actions_raw.parquet"):
        try:
            found = read_parquet(files[name]) if files.get(name) else {}
        except ValueError as e:
            found, fault = {}, f"{name}: {e}"
        if found:
            rows = min(int(size), *map(len, found.values()))
            values = [
                found.get(k, np.zeros((rows, 2) if k in RELEASED[16:] else rows))[:rows]
                for k in RELEASED
            ]
            shown = np.repeat([k in found for k in RELEASED], [1] * 16 + [2, 2])
            return (
                (np.stack(values[:16], 1) > 0.5).astype(np.float16),
                np.hstack(values[16:]).clip(-1, 1).astype(np.float32),
                shown,
            )
    raise ValueError(fault)


def released_videos(archive):
    """Yield (video id, [(facts, files)], [what is wrong, in words]) per video, as its chunks come
    by; only one video's are held at a time.
    """

    def one(folder, files):
        try:
            return chunk_facts(files.get("metadata.json")), files
        except ValueError as e:
            return {"video": folder.split("/")[0], "fault": f"{archive}: {folder}: {e}"}, files

    folders = (
        one(folder, {name: blob for _, name, blob in group})
        for folder, group in itertools.groupby(members(archive), key=lambda m: m[0])
    )
    for name, group in itertools.groupby(folders, key=lambda chunk: chunk[0]["video"]):
        group = list(group)
        yield (
            name,
            [chunk for chunk in group if "fault" not in chunk[0]],
            [facts["fault"] for facts, _ in group if "fault" in facts],
        )


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
    from tqdm import tqdm

    videos, done, missing, broken = {Path(v).stem: v for v in c.videos}, {}, {}, []
    if not videos:
        raise SystemExit(
            "--nitrogen has labels only: add --videos DIR, your copies as DIR/<video id>.mp4 (labels alone: --inspect FILE)"
        )
    for archive in sorted(glob.glob(c.nitrogen)) or [c.nitrogen]:
        if not Path(archive).is_file():
            raise SystemExit(f"{archive}: no such file")
        recipe = {"archive": artefact.source(archive)}
        for name, known, faults in tqdm(released_videos(archive), Path(archive).name, unit="video"):
            broken += faults
            path = Path(c.labels) / f"{name}.actions.safetensors"
            if name not in videos:
                missing[name] = known[0][0]["url"] if known else ""
            elif name in done:
                broken.append(f"{archive}: {name}: more of its chunks, apart from the others")
            elif artefact.finished(path, "nitrogen.actions/1", recipe, c.fresh):
                done[name] = videos[name]
            elif known := with_actions(known, broken, archive):
                write_released(path, known, recipe)
                done[name] = videos[name]
    print(
        f"{c.nitrogen}: labels of {len(done)} of the {len(videos)} given videos, and of {len(missing)} that are not there"
    )
    for what, lines in (
        ("no video", [f"{name!r} {url!r}" for name, url in missing.items()]),
        ("skipped", [repr(line)[1:-1] for line in broken]),
    ):
        if lines:
            path = Path(c.out) / f"{what.replace(' ', '-')}.txt"
            artefact.write_bytes(path, "\n".join([*lines, ""]).encode())
            print(
                "\n".join(
                    [
                        *(f"{what}: {line}" for line in lines[:5]),
                        f"{what}: {len(lines)} in all -> {path}",
                    ]
                ),
                file=sys.stderr,
            )
    if not done:
        raise SystemExit(
            f"{c.nitrogen}: none of the given videos is in it; a copy's name should be <video id>.mp4"
        )
    return tuple(done.values())


def write_released(path, known: list, recipe: dict) -> None:
    """One video's chunks, row after row; where they belong is in the metadata."""
    buttons, sticks, shown = map(list, zip(*(actions for _, actions in known)))
    ends, games = np.cumsum([0, *map(len, buttons)]).tolist(), [f["game"] for f, _ in known]
    chunks = [
        {k: facts[k] for k in ("size", "seconds", "start", "frames", "boxes", "area")}
        | {"rows": rows}
        for (facts, _), *rows in zip(known, ends, ends[1:])
    ]
    time = [
        f["start"] + np.arange(len(b)) * f["seconds"] / f["size"]
        for (f, _), b in zip(known, buttons)
    ]
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
        controller=known[0][0]["controller"],
        chunks=chunks,
        recipe=recipe,
    )


def frame_numbers(chunk: dict, rows: int, fps: float) -> np.ndarray:
    """int64 [rows]: the video's frame at each row of a chunk: rows are spread evenly over its
    frames, whatever either rate is.

    Frames are the published ones, scaled where the copy at hand has another rate; where there are
    none, they follow from the time."""
    begin, end = chunk["frames"] or (
        chunk["start"] * fps,
        (chunk["start"] + chunk["seconds"]) * fps,
    )
    scale = fps * chunk["seconds"] / (end - begin)
    scale = 1 if abs(scale - 1) < 0.01 else scale  # 59.94 and 60
    # a row per frame: the last one counted or not
    span = chunk["size"] if abs(end - begin - chunk["size"]) <= 1 else end - begin
    return np.floor(scale * (begin + np.arange(rows) * span / chunk["size"]) + 1e-6).astype(
        np.int64
    )


def released_labels(
    facts: dict, buttons, sticks, shown, chunks: list, game: str, area: tuple, c: filter.Config
) -> filter.Labels:
    """Chunks laid out on one line of time at the labels' rate; a chunk is a segment, what lies
    between them is not known.
    """
    rate = float(np.median([chunk["size"] / chunk["seconds"] for chunk in chunks]))
    T = int(max(0, facts["frames"]) / facts["fps"] * rate)
    out = filter.Labels(
        np.zeros((T, 16), np.uint8),
        np.zeros((T, 4), np.float32),
        np.zeros(T, bool),
        np.zeros(T, np.int64),
        np.zeros(T, np.int64),
        np.arange(T) / rate,
        rate,
        shown,
        [],
        game,
        "",
    )
    end = lost = last = 0
    for k, chunk in enumerate(chunks):
        a, b = chunk["rows"]
        frame = frame_numbers(chunk, b - a, facts["fps"])
        begin = round(frame[0] / facts["fps"] * rate)
        begin = end if abs(begin - end) <= 2 else begin  # it goes on where the last one ended
        # the container may count a few frames too many
        n = min(int((frame < facts["frames"] - facts["fps"] / 2).sum()), T - begin)
        scaled = lambda box: [
            v * side for v, side in zip(box, (facts["width"], facts["height"]) * 2)
        ]  # noqa: E731
        x0, y0, x1, y1 = inner = (
            filter.clamped(scaled(chunk["area"]), facts) if chunk["area"] and not c.area else area
        )
        boxes = (
            [filter.clamped(scaled(box), facts, filter.GROW, 2) for box in chunk["boxes"]]
            if c.mask
            else []
        )
        out.views.append((boxes, inner if min(x1 - x0, y1 - y0) >= 16 else area))
        if begin < end or n <= 0 or abs(chunk["size"] / chunk["seconds"] / rate - 1) > 0.01:
            lost += 1
            continue
        here, there, end = slice(begin, begin + n), slice(a, a + n), begin + n
        out.buttons[here], out.sticks[here], out.frame[here] = (
            buttons[there],
            sticks[there],
            np.maximum(frame[:n], last),
        )
        last = out.frame[end - 1]
        out.known[here], out.segment[here] = True, k
    out.about = f"released labels at {rate:g}/s" + (
        f", {lost} chunks outside the video, over others or at another rate" if lost else ""
    )
    return out


def inspect_archive(path: Path) -> None:
    """The released labels alone: per video what there is and what the 50 % rule would keep; a piano
    roll of the first minutes.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    roll, total, kept = [], 0.0, 0.0
    print(
        f"{'video':16s} {'chunks':>6s} {'broken':>6s} {'kept':>5s} {'rows/s':>7s}  controller, game"
    )
    for name, known, broken in released_videos(path):
        known = with_actions(known, broken, path)
        stays = [filter.active(b, s).mean() >= filter.Config.min_active for _, (b, s, _) in known]
        hours = [f["seconds"] / 3600 for f, _ in known]
        total, kept = total + sum(hours), kept + float(np.dot(hours, stays))
        f = known[0][0] if known else {"size": 0, "seconds": 1, "controller": "", "game": ""}
        print(
            f"{name!r:16s} {len(known):6d} {len(broken):6d} {sum(stays):5d} {f['size'] / f['seconds']:7.1f}  {f['controller']!r}, {f['game']!r}"
        )
        for line in broken:
            print(repr(line)[1:-1], file=sys.stderr)
        roll += [(*actions, keep) for (_, actions), keep in zip(known, stays)][: 9 - len(roll)]
    print(
        f"{total:.2f} h of labels, {kept:.2f} h ({100 * kept / max(total, 1e-9):.0f} %) in chunks that are at least half active"
    )
    if roll:
        b, s, shown, k = zip(*roll)
        k = np.repeat(k, list(map(len, b)))
        picture = filter.piano_roll(
            np.concatenate(b).astype(np.uint8), np.concatenate(s), k, shown[0]
        )
        filter.save_picture(path.parent / f"{path.name.split('.')[0]}.png", [picture])
