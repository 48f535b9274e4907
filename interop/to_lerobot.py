"""Shards, written as a LeRobotDataset v3 (pip install pyarrow); lerobot.py reads one.

    python filter.py export --lerobot OUT data/shards

Rows that follow one another are an episode.  The action of a row is the first of the chunk from
its frame on, so the last rows of an episode, which lack one, are left out: as many as the shards'
shift.  Of a person's corrections only the rows of chunks are written.  Episodes to train on come
first, and `splits` says where they end.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common import artefact
from common.command_line import Common
from common.pictures import VideoWriter
from common.shards import Part, decode, shards_in
from common.times import whole_multiple

import numpy as np
from tqdm import tqdm

from interop.lerobot import ACTION, SHOWN, TARGETS
from interop.parquet import need_pyarrow

CAMERA = "observation.images.game"
# s, of a file: beyond 1,024 the float32 of a time is coarser than the 1e-4 s to which lerobot
# wants to find a frame
FILE_SECONDS = 1000
GOP = 2  # frames from one key frame to the next, lerobot's own choice: its readers jump
FILES = 1000  # in a folder
QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
NUMBERS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class Export(Common):
    shards: tuple[str, ...] = ()  # folders of shards
    lerobot: str = ""  # folder to write
    rate: float = 0.0  # rows per second; 0: all rows of the shards


class Run(NamedTuple):
    """Rows of one video that follow one another: an episode."""

    game: str
    split: str
    frames: np.ndarray  # int64 [n, 2]: number of the shard, row in it
    actions: np.ndarray  # the same, of what is done upon each frame


def export(c: Export) -> None:
    """Write shards as a LeRobotDataset v3: runs of kept rows are its episodes."""
    if not c.lerobot or not c.shards:
        raise SystemExit("give the folder to write and folders of shards: --lerobot OUT SHARDS")
    need_pyarrow("a LeRobotDataset")
    out = Path(c.lerobot)
    is_there = (out / "meta/info.json").exists()
    if out.exists() and not (c.fresh and is_there) and (out.is_file() or any(out.iterdir())):
        hint = "--fresh replaces it" if is_there else "give another --lerobot"
        raise SystemExit(f"{out}: is there already; {hint}")
    paths = [path for folder in c.shards for path in shards_in(folder)]
    runs, fps = runs_of(paths, c.rate)
    part = artefact.in_folder(out).with_name(f".{out.name}.{os.getpid()}.part")
    try:
        Writer(part, paths, runs, fps).write()
        if out.exists():
            shutil.rmtree(out)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    rows = sum(len(run.frames) for run in runs)
    print(f"{len(runs):,} episodes, {rows:,} frames at {fps:g}/s -> {out}")


def runs_of(paths: list[Path], rate: float) -> tuple[list[Run], float]:
    """(the Runs of all shards, those to train on first, rows per second)."""
    parts = [Part(path) for path in paths]
    rates = sorted({part.about["fps"] for part in parts})
    if len(rates) > 1 and not rate:
        raise SystemExit(
            f"shards of {' and '.join(f'{fps:g}' for fps in rates)} rows/s, and a LeRobotDataset "
            f"has one rate: give --rate {min(part.info['rate'] for part in parts):g}"
        )
    for fps in rates:
        if rate and not whole_multiple(fps, rate):
            raise SystemExit(f"--rate {rate:g}: {fps:g} rows/s of a shard are no multiple of it")
    runs = []
    by_video = {}
    for k, part in enumerate(parts):
        by_video.setdefault((part.path.parent, part.about["name"]), []).append(k)
    for numbers in by_video.values():
        rows = [
            np.c_[np.full(len(parts[k]["time"]), k), np.arange(len(parts[k]["time"]))]
            for k in numbers
        ]
        time = np.concatenate([parts[k]["time"] for k in numbers])
        told = np.concatenate([told_rows(parts[k]) for k in numbers])
        runs += runs_in(np.concatenate(rows), time, told, parts[numbers[0]], rate)
    if not runs:
        raise SystemExit(f"{paths[0].parent}: no rows in these shards that follow one another")
    runs.sort(key=lambda run: run.split != "train")
    return runs, rate or rates[0]


def told_rows(part: Part) -> np.ndarray:
    """bool [R]: rows whose actions are to be learned.  Of a person's corrections, those in a chunk:
    a shard says of no other whose they are.
    """
    if (part.info.get("recipe") or {}).get("who") != "person":
        return np.ones(len(part["time"]), bool)
    cut = part.info
    part.set_timing(cut["horizon"], cut["rate"], cut["shift"])
    first, last = part.offsets[[0, -1]]
    edges = np.zeros(len(part["time"]) + 1, int)
    np.add.at(edges, part["start"] + first, 1)
    np.add.at(edges, part["start"] + last + 1, -1)
    return edges[:-1].cumsum() > 0


def runs_in(rows, time, told, part: Part, rate: float) -> list[Run]:
    """The Runs of a video: rows [n, 2] with their times [n], and whether their actions are told."""
    about = part.about
    fps, shift = about["fps"], part.info["shift"]
    stride = round(fps / rate) if rate else 1
    most = int(FILE_SECONDS * fps / stride)
    breaks = np.flatnonzero(np.abs(np.diff(time) * fps - 1) > 0.5) + 1
    out = []
    for run in np.split(np.arange(len(rows)), breaks):
        seen = run[: max(0, len(run) - shift)]
        seen = seen[told[seen + shift]]
        for frames in np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1):
            frames = frames[::stride]
            for begin in range(0, len(frames), most):
                piece = frames[begin : begin + most]
                out.append(Run(about["game"], about["split"], rows[piece], rows[piece + shift]))
    return out


class Pictures:
    """The frames of shards, and what is done upon them."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self.part = functools.lru_cache(2)(lambda k: Part(paths[k]))
        self.stored = functools.lru_cache(2)(self._stored)

    def _stored(self, k: int) -> np.ndarray:
        """int64 [R]: the row that holds the frame of each row; -1: the shard before."""
        sizes = np.diff(self.part(k)["offset"])
        return np.maximum.accumulate(np.where(sizes > 0, np.arange(len(sizes)), -1))

    def at(self, k: int, row: int) -> np.ndarray:
        """uint8 [256, 256, 3] RGB"""
        held = self.stored(k)[row]
        if held < 0 and k == 0:
            raise SystemExit(f"{self.paths[k]}: its first frame is missing; make it anew")
        if held < 0:
            return self.at(k - 1, -1)
        return decode(self.part(k).jpeg(held), artefact.FRAME)

    def actions(self, rows) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [n, 20], bool [n, 20]: what is shown), of rows [n, 2]."""
        values, shown = np.zeros((len(rows), 20), np.float32), np.zeros((len(rows), 20), bool)
        for k in np.unique(rows[:, 0]):
            mine = rows[:, 0] == k
            part, row = self.part(int(k)), rows[mine, 1]
            values[mine] = np.hstack([part["buttons"][row], part["sticks"][row]])
            shown[mine] = part["mask"][part["video"][row]]
        return values, shown


class Writer:
    """A LeRobotDataset v3 in a folder, from Runs of shards."""

    def __init__(self, folder: Path, paths: list[Path], runs: list[Run], fps: float):
        self.folder = folder
        self.runs = runs
        self.fps = int(fps) if float(fps).is_integer() else fps
        self.pictures = Pictures(paths)
        self.tasks = [*dict.fromkeys(run.game for run in runs)]
        self.episodes = []  # rows of meta/episodes
        self.columns = []  # per episode, column -> values
        self.histograms = []  # per episode, int64 [3, 256]
        self.frames = 0
        self.bar = tqdm(total=sum(len(run.frames) for run in runs), desc="frames", unit="frame")

    def write(self) -> None:
        import pyarrow as pa

        for k, runs in enumerate(in_files(self.runs, FILE_SECONDS * self.fps)):
            self._write_file(k, runs)
        self.bar.close()
        write_parquet(
            self.folder / "meta/episodes/chunk-000/file-000.parquet",
            [pa.Table.from_pylist(self.episodes)],
        )
        write_parquet(self.folder / "meta/tasks.parquet", [tasks_table(self.tasks)])
        whole = {
            name: np.concatenate([columns[name] for columns in self.columns])
            for name in self.columns[0]
        }
        stats = all_stats(whole, sum(self.histograms))
        artefact.write_bytes(self.folder / "meta/stats.json", as_json(stats))
        artefact.write_bytes(self.folder / "meta/info.json", as_json(self._info()))

    def _write_file(self, k: int, runs: list[Run]) -> None:
        """A video and its rows."""
        at = {"chunk_index": k // FILES, "file_index": k % FILES}
        tables, first = [], self.frames
        path = self.folder / VIDEO.format(video_key=CAMERA, **at)
        with VideoWriter(path, self.fps, artefact.FRAME, artefact.FRAME, gop=GOP) as film:
            for run in runs:
                columns = self._columns(run)
                histogram = np.zeros((3, 256), np.int64)
                for shard, row in run.frames.tolist():
                    rgb = self.pictures.at(shard, row)
                    film.write(rgb)
                    histogram += [np.bincount(rgb[..., i].ravel(), minlength=256) for i in range(3)]
                    self.bar.update()
                self._note(run, columns, histogram, at, first)
                tables.append(table_from(columns))
        write_parquet(self.folder / DATA.format(**at), tables)

    def _columns(self, run: Run) -> dict:
        """Column -> values of an episode."""
        n = len(run.frames)
        values, shown = self.pictures.actions(run.actions)
        numbers = (0, len(self.episodes), self.frames, self.tasks.index(run.game))
        columns = {ACTION: values, SHOWN: shown}
        columns["timestamp"] = (np.arange(n) / self.fps).astype(np.float32)
        for name, number in zip(NUMBERS, numbers, strict=True):
            counts = name in ("frame_index", "index")
            columns[name] = number + (np.arange(n) if counts else np.zeros(n, np.int64))
        return columns

    def _note(self, run: Run, columns: dict, histogram, at: dict, first: int) -> None:
        """An episode's row of meta/episodes; first: number of the file's first frame."""
        begin, end = self.frames, self.frames + len(run.frames)
        episode = {"episode_index": len(self.episodes), "tasks": [run.game], "length": end - begin}
        for part in ("data", f"videos/{CAMERA}"):
            episode |= {f"{part}/{name}": number for name, number in at.items()}
        episode |= {
            "dataset_from_index": begin,
            "dataset_to_index": end,
            f"videos/{CAMERA}/from_timestamp": (begin - first) / self.fps,
            f"videos/{CAMERA}/to_timestamp": (end - first) / self.fps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for feature, stats in all_stats(columns, histogram).items():
            episode |= {f"stats/{feature}/{name}": value for name, value in stats.items()}
        self.episodes.append(episode)
        self.columns.append(columns)
        self.histograms.append(histogram)
        self.frames = end

    def _info(self) -> dict:
        """meta/info.json"""
        train = sum(run.split == "train" for run in self.runs)
        bounds = {"train": (0, train), "validation": (train, len(self.runs))}
        picture = {
            "dtype": "video",
            "shape": [artefact.FRAME, artefact.FRAME, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": artefact.FRAME,
                "video.width": artefact.FRAME,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": self.fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }
        one = {"shape": [1], "names": None}
        return {
            "codebase_version": "v3.0",
            "robot_type": "gamepad",
            "total_episodes": len(self.runs),
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {name: f"{a}:{b}" for name, (a, b) in bounds.items() if b > a},
            "data_path": DATA,
            "video_path": VIDEO,
            "features": {
                CAMERA: picture,
                ACTION: {"dtype": "float32", "shape": [20], "names": list(TARGETS)},
                SHOWN: {"dtype": "bool", "shape": [20], "names": list(TARGETS)},
                "timestamp": {"dtype": "float32", **one},
                **{name: {"dtype": "int64", **one} for name in NUMBERS},
            },
        }


def in_files(runs: list[Run], most: float):
    """Yield lists of Runs, each of at most so many frames."""
    held, frames = [], 0
    for run in runs:
        if held and frames + len(run.frames) > most:
            yield held
            held, frames = [], 0
        held.append(run)
        frames += len(run.frames)
    yield held


# ---- its tables and statistics -------------------------------------------------------------------


def table_from(columns: dict):
    """Column -> values [n] or [n, d] as an arrow table."""
    import pyarrow as pa

    arrays = {}
    for name, values in columns.items():
        flat = pa.array(values.ravel())
        is_list = values.ndim == 2
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if is_list else flat
    return pa.table(arrays)


def tasks_table(tasks: list[str]):
    """What pandas writes of a table of task_index by task: its readers ask for that index."""
    import pyarrow as pa

    index = "__index_level_0__"
    columns = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": dtype}
        for name, field, kind, dtype in (
            ("task_index", "task_index", "int64", "int64"),
            (None, index, "unicode", "object"),
        )
    ]
    about = {"index_columns": [index], "column_indexes": [], "columns": columns}
    table = pa.table({"task_index": np.arange(len(tasks)), index: tasks})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def write_parquet(path: Path, tables: list) -> None:
    """A file of these tables, each a group of rows."""
    import pyarrow.parquet as parquet

    with artefact.replacing(path) as part:
        with parquet.ParquetWriter(part, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)


def all_stats(columns: dict, histogram) -> dict:
    """Feature -> statistic -> list, as meta/stats.json has them; of pictures [3, 1, 1], 0..1."""
    stats = {name: stats_of(values) for name, values in columns.items()}
    return {CAMERA: picture_stats(histogram), **stats}


def stats_of(values) -> dict:
    """Of [n] or [n, d], over n."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    for q, row in zip(QUANTILES, np.quantile(rows, QUANTILES, axis=0), strict=True):
        found[f"q{100 * q:02.0f}"] = row
    return {name: row.tolist() for name, row in found.items()} | {"count": [len(rows)]}


def picture_stats(histogram) -> dict:
    """Of the pixels counted in int64 [3, 256], per channel; count: of frames."""
    levels = np.arange(256) / 255
    total = histogram.sum(1)
    mean = histogram @ levels / total
    share = histogram.cumsum(1) / total[:, None]
    found = {
        "min": levels[(histogram > 0).argmax(1)],
        "max": levels[255 - (histogram[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(histogram @ levels**2 / total - mean**2, 0)),
    }
    for q in QUANTILES:
        found[f"q{100 * q:02.0f}"] = levels[(share >= q).argmax(1)]
    frames = int(total[0]) // artefact.FRAME**2
    return {name: v.reshape(3, 1, 1).tolist() for name, v in found.items()} | {"count": [frames]}


def as_json(value) -> bytes:
    return json.dumps(value, indent=4).encode()
