"""A LeRobotDataset v3, read: rows in parquet, pictures in mp4, many episodes in a file (pip install
pyarrow).  to_lerobot.py writes one.

    python filter.py --lerobot DIR --actions a=SOUTH,x=LEFT_X,y=-LEFT_Y/100 --out data/shards

    DIR/meta/info.json                          rate, features with their names, where the files are
    DIR/meta/episodes/chunk-000/file-000.parquet    an episode: its rows, its part of a video
    DIR/data/chunk-000/file-000.parquet         a row: timestamp, action, numbers
    DIR/videos/KEY/chunk-000/file-000.mp4       its picture

There the action of row i is what is done upon frame i.  So it is the first of the chunk that a
policy answers to frame i, and lies --shift rows further down in a shard.  It is so both ways: a
chunk of the shards is the item of `LeRobotDataset` with as many actions.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from common import artefact
from common.command_line import recipe_of
from common.pictures import Video, rate_of
from common.video import READABLE

import numpy as np

import filter
from interop.parquet import in_reader, in_words, largest_part, need_pyarrow

TARGETS = (*artefact.BUTTONS, *artefact.STICKS)
ACTION = "action"
SHOWN = "shown"  # a column of ours: which of TARGETS the overlay showed
MOST_ROWS = 1 << 24  # of a file
MOST_BYTES = 1 << 30  # of a column of a file
MOST_COLUMNS = 4096  # of an action
REACH = 1.001  # of a stick, as float32 rounds

# ---- its description -----------------------------------------------------------------------------

INFO = {
    "codebase_version": str,
    "fps": artefact.RATE,
    "features": {str: {"dtype": str, "shape": list}},
    "data_path": str,
    "video_path?": str,
    "splits?": {str: str},
}


def read_info(folder: Path) -> dict:
    """meta/info.json, checked; SystemExit with one line."""
    path = folder / "meta/info.json"
    if not path.is_file():
        raise SystemExit(
            f"{path}: no such file; --lerobot takes the folder of a LeRobotDataset v3, which "
            f"hf download --repo-type dataset USER/NAME --local-dir {folder} fetches"
        )
    try:
        info = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise SystemExit(f"{path}: not readable as JSON ({in_words(e)})") from None
    if fault := artefact.amiss(info, INFO):
        raise SystemExit(f"{path}: {fault}")
    if not info["codebase_version"].startswith("v3."):
        raise SystemExit(
            f"{path}: a LeRobotDataset {info['codebase_version']}, expected v3; "
            "lerobot's script convert_dataset_v21_to_v30 makes one of v2.1"
        )
    return info


def camera_of(folder, features: dict, asked: str) -> str:
    """The key of the video; `asked` is a key, or its last part."""
    videos = [key for key, ft in features.items() if ft["dtype"] == "video"]
    if not videos:
        stills = any(ft["dtype"] == "image" for ft in features.values())
        what = "its pictures lie in the parquet files (image)" if stills else "no pictures in it"
        raise SystemExit(f"{folder}: {what}; only datasets with videos are read")
    found = [key for key in videos if not asked or asked == key or key.endswith(f".{asked}")]
    if len(found) != 1:
        which = f"--camera {asked}: expected one" if asked else f"{folder}: give --camera, one"
        raise SystemExit(f"{which} of {', '.join(map(printed, videos))}")
    return found[0]


def printed(text: str) -> str:
    return ascii(text[:80])[1:-1]


def action_columns(features: dict) -> dict:
    """Name -> (feature, column): all that the dataset calls an action."""
    out = {}
    for key, ft in features.items():
        first, _, rest = key.partition(".")
        is_number = re.match("float|int|uint|bool", ft["dtype"])
        n = ft["shape"][0] if len(ft["shape"]) == 1 else 0
        if first != ACTION or not is_number or type(n) is not int or not 0 < n <= MOST_COLUMNS:
            continue
        names = names_of(ft.get("names"), n)
        for k in range(n):
            name = names[k] if names else str(k) if n > 1 or not rest else ""
            out[f"{rest}.{name}".strip(".")] = (key, k)
    return out


def names_of(names, n: int) -> list[str]:
    """A feature's names in their order: a list, {name: number} or {"axes": a list}; [] if they are
    not n.
    """
    if isinstance(names, dict):
        values = [*names.values()]
        is_numbered = all(type(value) is int for value in values)
        names = sorted(names, key=names.get) if is_numbered else values
    if isinstance(names, list) and all(isinstance(part, list) for part in names):
        names = [*itertools.chain(*names)]
    is_whole = isinstance(names, list) and len(names) == n
    return names if is_whole and all(isinstance(name, str) for name in names) else []


# ---- which action is which button ----------------------------------------------------------------


class Source(NamedTuple):
    """Where a button or an axis of the pad comes from."""

    target: int  # number in TARGETS
    name: str
    feature: str
    column: int
    factor: float

    def __str__(self):
        sign = "-" if self.factor < 0 else ""
        scale = "" if abs(self.factor) == 1 else f"/{1 / abs(self.factor):g}"
        return f"{printed(self.name)}={sign}{TARGETS[self.target]}{scale}"


ENTRY = re.compile(r"\s*(.+?)\s*=\s*(-?)(\w+)(?:/(\d+(?:\.\d*)?))?\s*")
HOW = "NAME=BUTTON, or NAME=-AXIS/100 (turned round, divided by what is full deflection)"


def sources_of(folder, columns: dict, text: str) -> tuple[Source, ...]:
    """--actions -> where each button and axis comes from; none given: what is named as ours."""
    names = ", ".join(map(printed, [*columns][:40])) or "none"
    if not text:
        plain = {re.sub(r"\W+", "_", name).upper(): name for name in columns}
        entries = [(plain[target], target, 1.0) for target in TARGETS if target in plain]
    else:
        entries = [entry_of(part) for part in text.split(",")]
    if not entries:
        raise SystemExit(
            f"{folder}: none of its actions ({names}) is named as a button or an axis here; "
            f"give --actions, of each {HOW}, with commas between"
        )
    out = {}
    for name, target, factor in entries:
        if name not in columns:
            raise SystemExit(f"--actions {name}: the dataset's actions are {names}")
        if target in out:
            raise SystemExit(f"--actions: {target} is there twice")
        out[target] = Source(TARGETS.index(target), name, *columns[name], factor)
    return tuple(out.values())


def entry_of(text: str) -> tuple[str, str, float]:
    """One of --actions: (name, button or axis, factor)."""
    found = ENTRY.fullmatch(text)
    name, sign, target, full = found.groups() if found else ("", "", "", "")
    if target.upper() not in TARGETS or (full and not float(full)):
        raise SystemExit(
            f"--actions {text}: expected {HOW}; buttons and axes are {', '.join(TARGETS)}"
        )
    return name, target.upper(), (-1.0 if sign else 1.0) / float(full or 1)


# ---- its files -----------------------------------------------------------------------------------

FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


def inside(folder: Path, template: str, **values) -> Path:
    """The file that a template of info.json names; SystemExit for one outside of the folder."""

    def value(found) -> str:
        return f"{values[found[1]]:0{found[2]}d}" if found[2] else str(values[found[1]])

    try:
        text = FIELD.sub(value, template)
    except (KeyError, ValueError):
        text = ".."
    path = PureWindowsPath(text)  # knows both kinds of separators
    if path.anchor or ".." in path.parts or "{" in text or "\0" in text:
        raise SystemExit(
            f"{folder / 'meta/info.json'}: {ascii(template)[:100]} names no file of its folder"
        )
    return folder / text


def read_table(path: str, names: tuple) -> dict:
    """Column -> values: numbers [rows] or [rows, n], or lists.  Runs in the reader's process;
    ValueError in words.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
        for name in names:
            if name not in file.schema_arrow.names:
                raise ValueError(f"it has no column {name}")
        rows, size = file.metadata.num_rows, largest_part(file.metadata, names)
        if not 0 < rows <= MOST_ROWS or size > MOST_BYTES:
            raise ValueError(f"{rows:,} rows, a column of {size:,} bytes")
        parts = map(file.schema.column, range(len(file.schema)))
        # a text stays one, however many rows repeat it: else 2 kB could fill the memory
        texts = [part.path for part in parts if part.physical_type == "BYTE_ARRAY"]
        file = parquet.ParquetFile(path, read_dictionary=texts)
        groups = range(file.num_row_groups)  # one by one: pyarrow cannot join such columns
        table = pa.concat_tables(
            file.read_row_group(k, [*names], use_threads=False) for k in groups
        )
        return {name: values_of(name, table.column(name)) for name in names}
    except Exception as e:
        raise ValueError(in_words(e)) from None


def values_of(name: str, column):
    """A table's column as numbers, or as a list of lists of words."""
    import pyarrow.types as types

    if column.null_count:
        raise ValueError(f"its column {name} has empty places")
    kind = column.type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if is_list and types.is_dictionary(kind.value_type):
        return [*itertools.chain(*map(words_of, column.chunks))]
    flat = column.combine_chunks()
    if is_list:
        lengths = flat.value_lengths().unique() if not types.is_fixed_size_list(kind) else [0]
        if len(lengths) > 1:
            raise ValueError(f"its column {name} has rows of several lengths")
        flat = flat.flatten()
    numbers = flat.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"its column {name} has no numbers")
    return numbers.reshape(len(column), -1) if is_list else numbers


def words_of(chunk) -> list[list[str]]:
    """Of an arrow array of lists of texts, which it holds once each."""
    flat = chunk.flatten()
    words = flat.dictionary.to_pylist()
    each = iter([words[k] for k in flat.indices.to_pylist()])
    return [[*itertools.islice(each, n)] for n in chunk.value_lengths().to_pylist()]


def table_of(path, *names: str) -> dict:
    """`read_table`; SystemExit with one line."""
    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such file; fetch the dataset again, all of it")
    try:
        return in_reader(read_table, str(path), names)
    except ValueError as e:
        raise SystemExit(f"{path}: not as LeRobotDataset v3 has it ({e})") from None


# a process goes through the episodes in their order, and many are in one file
table_kept = functools.lru_cache(1)(table_of)
video_kept = functools.lru_cache(1)(Video)
source_kept = functools.lru_cache(8)(artefact.source)
KEPT = (table_kept, video_kept, source_kept)


# ---- its episodes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episode:
    """What is a video elsewhere: rows of a parquet file, and frames of an mp4 file."""

    name: str
    number: int
    rows: int
    data: str  # path
    video: str  # path
    start: float  # s, of its first row in the video
    fps: float
    game: str  # its task, in words
    split: str  # train or validation, where the dataset has more than one
    sources: tuple[Source, ...]
    has_shown: bool  # a column SHOWN


def episodes_of(c: filter.Config) -> tuple[list[Episode], object]:
    """(the episodes of --lerobot, what makes shards of one)."""
    if c.videos:
        raise SystemExit("--lerobot has videos of its own: give no others")
    need_pyarrow("a LeRobotDataset")
    for kept in KEPT:
        kept.cache_clear()  # the files may be others by now
    folder = Path(c.lerobot)
    info = read_info(folder)
    features = info["features"]
    camera = camera_of(folder, features, c.camera)
    columns = action_columns(features)
    sources = sources_of(folder, columns, c.actions)
    files = sorted(folder.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise SystemExit(f"{folder}/meta/episodes: no parquet file there; fetch the dataset again")
    episodes = []
    for path in files:
        episodes += episodes_in(path, folder, info, camera, sources)
    unused = {*columns} - {source.name for source in sources}
    masked = {*TARGETS} - {TARGETS[source.target] for source in sources}
    print(
        f"{folder}: {len(episodes):,} episodes at {info['fps']:g}/s, video {printed(camera)}; "
        + ", ".join(map(str, sources))
        + (f"; not used: {', '.join(map(printed, sorted(unused)))}" if unused else "")
        + (f"; masked, since it has none: {' '.join(sorted(masked))}" if masked else "")
    )
    return episodes, filter_episode


def episodes_in(path: Path, folder: Path, info: dict, camera: str, sources: tuple) -> list:
    """The Episodes that a file of meta/episodes lists."""
    of_video = f"videos/{camera}/"
    keys = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index")
    more = (f"{of_video}chunk_index", f"{of_video}file_index", f"{of_video}from_timestamp")
    table = table_of(path, *keys, *more)
    for key, values in table.items():
        is_number = isinstance(values, np.ndarray) and values.ndim == 1
        if (key == "tasks") == is_number or is_number and not np.isfinite(values).all():
            raise SystemExit(f"{path}: not as LeRobotDataset v3 has it (its column {key})")
    out = []
    for number, rows, tasks, chunk, file, its_chunk, its_file, start in zip(
        *(table[key] for key in (*keys, *more)), strict=True
    ):
        at = {"chunk_index": int(chunk), "file_index": int(file)}
        its = {"chunk_index": int(its_chunk), "file_index": int(its_file), "video_key": camera}
        template = info.get("video_path") or ""
        title = f"{folder.resolve().name}-{int(number):06d}"
        out.append(
            Episode(
                name=title,
                number=int(number),
                rows=int(rows),
                data=str(inside(folder, info["data_path"], **at)),
                video=str(inside(folder, template, **its)),
                start=float(start),
                fps=float(info["fps"]),
                game=task_of(tasks) or folder.resolve().name,
                split=split_of(int(number), info.get("splits") or {}),
                sources=sources,
                has_shown=SHOWN in info["features"],
            )
        )
    return out


def task_of(tasks: list) -> str:
    """The first task, in a line."""
    return "".join(letter for letter in str([*tasks, ""][0])[:100] if letter.isprintable())


def split_of(number: int, splits: dict) -> str:
    """{"train": "0:8", "test": "8:10"} -> train or validation; "" where there is one split only."""
    if len(splits) < 2:
        return ""
    for name, text in splits.items():
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if name != "train" and found and int(found[1]) <= number < int(found[2]):
            return "validation"
    return "train"


def filter_episode(episode: Episode, c: filter.Config) -> dict:
    """One episode -> its shards; see filter.shards_of."""
    features = dict.fromkeys(source.feature for source in episode.sources)
    shown = (SHOWN,) if episode.has_shown else ()
    table = table_kept(episode.data, "episode_index", "timestamp", *features, *shown)
    mine = table["episode_index"] == episode.number
    rows = {name: values[mine] for name, values in table.items()}
    if not 0 < len(rows["timestamp"]) == episode.rows:
        raise SystemExit(
            f"{episode.data}: has {mine.sum():,} rows of episode {episode.number}, "
            f"meta/episodes says {episode.rows:,}; fetch the dataset again"
        )
    video = video_kept(episode.video)
    labels = labels_of(episode, rows, video, c)
    recipe = {
        **recipe_of(c),
        "episode": [episode.number, episode.start, *map(str, episode.sources)],
        "source": [source_kept(episode.data), source_kept(episode.video)],
    }
    return filter.shards_of(video, episode.name, labels, recipe, c)


def labels_of(episode: Episode, rows: dict, video: Video, c: filter.Config) -> filter.Labels:
    """What is known of an episode, frame by frame of its part of the video."""
    where = f"{episode.data}: episode {episode.number}"
    stamps = rows["timestamp"].astype(np.float64).ravel()
    steps = np.diff(stamps)
    if not np.isfinite(stamps).all() or (steps < 0).any() or np.ptp(stamps) > filter.LONGEST:
        raise SystemExit(f"{where}: its timestamps are no growing times of less than a week")
    values = actions_of(episode.sources, rows, where)
    frame, there = frames_at(episode, stamps, video)
    row, time, fps, said = filter.by_the_clock(where, stamps - stamps[0], episode.fps, c)
    # the action of a row is the first of the chunk from its frame on, see above
    late = np.arange(1, c.shift + 1)
    time = np.r_[time, time[-1] + late / fps]
    seen = np.r_[row, np.repeat(row[-1:], c.shift)]
    done = np.r_[np.repeat(row[:1], c.shift), row]
    if not there.all():
        said += f", {len(there) - there.sum():,} rows without a frame left out"
    shown = np.isin(np.arange(20), [source.target for source in episode.sources])
    if episode.has_shown and rows[SHOWN].shape[1:] == (20,):
        shown &= rows[SHOWN].astype(bool).all(axis=0)
    segment = np.arange(len(row) + c.shift) // max(1, round(c.segment_seconds * fps))
    facts = {"width": video.width, "height": video.height}
    return filter.Labels(
        buttons=(values[done, :16] > 0.5).astype(np.uint8) * shown[:16],
        sticks=values[done, 16:].clip(-1, 1).astype(np.float32) * shown[16:],
        known=there[seen],
        segment=segment,
        frame=frame[seen],
        time=time,
        fps=fps,
        shown=shown,
        views=[([], filter.area_of(c.area, facts))] * (segment[-1] + 1),
        game=episode.game,
        about=f"episode {episode.number}{said}",
        split=episode.split,
    )


def actions_of(sources: tuple, rows: dict, where: str) -> np.ndarray:
    """float64 [T, 20], in the order of TARGETS; SystemExit for what is out of range."""
    values = np.zeros((len(rows["timestamp"]), 20))
    for source in sources:
        column = rows[source.feature].reshape(len(values), -1)
        if source.column >= column.shape[1]:
            raise SystemExit(f"{where}: {source.feature} has {column.shape[1]} columns only")
        raw = column[:, source.column].astype(np.float64)
        found = raw * source.factor
        if not np.isfinite(raw).all():
            raise SystemExit(f"{where}: {printed(source.name)} holds {raw[~np.isfinite(raw)][0]}")
        if np.abs(found).max() > REACH:
            name = printed(source.name)
            raise SystemExit(
                f"{where}: {name} runs from {raw.min():g} to {raw.max():g}, {source} wants -1..1; "
                f"divide it by its full deflection: {name}={TARGETS[source.target]}/"
                f"{np.abs(raw).max():.6g}"
            )
        values[:, source.target] = found
    return values


def frames_at(episode: Episode, stamps, video: Video) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [T]: the video's frame at each row, the nearest; bool [T]: whether there is one).
    SystemExit if fewer than READABLE of the rows have one.
    """
    times = video.times()
    half = 0.5 / rate_of(times, video.fps)
    wanted = episode.start + stamps - (video.start or 0.0)
    frame = video.number(wanted + half).clip(0)
    there = np.abs(times[frame] - wanted) < half + 1e-3
    if there.mean() < READABLE:
        raise SystemExit(
            f"{episode.video}: has no frame at {wanted[~there][0]:.2f} s, where episode "
            f"{episode.number} has a row; it ends at {times[-1]:.2f} s"
        )
    return frame, there
