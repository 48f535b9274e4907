"""interop/dataset.py: a fixture in the form of the released dataset."""

import io
import json
import os
import sys
import tarfile

from common import artefact
from common.inputs import expand
from common.pictures import VideoWriter
from common.shards import Shards, decode

import numpy as np
import pytest

import filter
from interop import dataset
from interop.parquet import parquet_reader
from shards import FPS, config

NAMES = (
    "back dpad_down dpad_left dpad_right dpad_up east guide left_shoulder left_thumb left_trigger "
    "north right_shoulder right_thumb right_trigger south start west"
).split()


def parquet(rows=120, pressed=lambda r: r % 2 == 0, x=0.5, **columns):
    """A chunk's actions: SOUTH as `pressed` says, the left stick at (x, -x), GUIDE always, which
    our pad has not.
    """
    pa = pytest.importorskip("pyarrow", reason="no pyarrow (pip install pyarrow)")
    import pyarrow.parquet as pq

    table = {
        n: [n == "guide" or n == "south" and bool(pressed(r)) for r in range(rows)] for n in NAMES
    }
    table["dpad_up"] = [int(v) for v in table["dpad_up"]]  # bool or int, as published
    table |= {"j_left": [[x, -x]] * rows, "j_right": [[0.0, 0.0]] * rows, **columns}
    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    return out.getvalue()


def metadata(video="vidA", k=0, size=120, seconds=2.0, **changes):
    """Chunk k of a video of 60 frames/s, 640 x 400, whose overlay's box runs past the frame at the
    lower right.
    """
    source = {
        "resolution": [400, 640],
        "video_id": video,
        "source": "youtube",
        "url": f"https://example.org/{video}",
        "start_time": k * seconds,
        "end_time": (k + 1) * seconds,
        "duration": seconds,
        "start_frame": k * 60 * seconds,
        "end_frame": (k + 1) * 60 * seconds,
    }
    meta = {
        "uuid": f"{video}-{k}",
        "chunk_id": f"{k:04d}",
        "chunk_size": size,
        "original_video": source,
        "game": "Some Game",
        "controller_type": "xbox",
        "bbox_controller_overlay": [480, 300, 300, 200],
    }
    for key, value in changes.items():
        (source if key in source else meta)[key] = value
    return json.dumps(meta).encode()


def archive(path, members):
    """A .tar.gz of (name, bytes) or TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            info.size = info.size if isinstance(member, tarfile.TarInfo) else len(member[1])
            tar.addfile(
                info, None if isinstance(member, tarfile.TarInfo) else io.BytesIO(member[1])
            )
    return path


def chunk(
    video="vidA",
    k=0,
    raw=True,
    processed=False,
    meta=True,
    folder="SHARD_0000/{0}/{0}_chunk_{1:04d}",
    **changes,
):
    """A chunk's members: True what belongs there, False nothing, bytes these."""
    files = {
        "actions_raw.parquet": raw,
        "actions_processed.parquet": processed,
        "metadata.json": meta,
    }
    made = {"metadata.json": metadata(video, k, **changes)} | {
        n: parquet() for n in files if n.endswith("parquet")
    }
    return [
        (f"{folder.format(video, k)}/{name}", made[name] if what is True else what)
        for name, what in files.items()
        if what is not False
    ]


@pytest.fixture
def released(tmp_path):
    """vidA.mp4: 30 frames/s, 8 s, 320 x 200, as bright as its frame's number."""
    (tmp_path / "videos").mkdir()
    with VideoWriter(tmp_path / "videos/vidA.mp4", FPS, 320, 200) as out:
        for i in range(240):
            out.write(np.full((200, 320, 3), i, np.uint8))
    return tmp_path


def importing(folder, videos=None, **changes):
    c = config(
        videos=expand([videos or folder / "videos"]),
        nitrogen=str(folder / "SHARD_*.tar.gz"),
        labels=str(folder / "labels"),
        out=str(folder / "shards"),
        **{"rate": 60.0, **changes},
    )
    filter.run(c)
    return Shards(folder / "shards", "train", 4, c.rate, 1)


def check_item(i, jpeg, buttons, sticks, mask, game):
    """Chunk i of vidA: rows 2 i + 1 to 2 i + 4, and the picture of row 2 i."""
    image = decode(jpeg, 256).astype(int)
    assert abs(np.median(image[:100]) - (60 + i)) <= 3  # the frame of that row
    # halved, clamped, painted
    assert np.abs(image[195:, 200:] - 127).max() < 8
    assert np.abs(image[195:, 100:170] - (60 + i)).max() < 8
    assert buttons[:, artefact.BUTTONS.index("SOUTH")].tolist() == [0, 1, 0, 1]
    assert buttons.sum() == 2 and mask.all()
    stick = [0.5, -0.5, 0, 0] if 2 * i < 115 else [-0.25, 0.25, 0, 0]
    assert np.allclose(sticks, [stick] * 4)


def test_released_labels(released, capsys):
    """60 rows/s over a copy of 30 frames/s and half the size: chunk 0 idle, 1 processed, 2 raw, 3
    of nobody's video.
    """
    idle = parquet(pressed=lambda r: r < 50, x=0.0)
    archive(
        released / "SHARD_0000.tar.gz",
        chunk(k=0, raw=idle)
        + chunk(k=2, raw=parquet(x=-0.25))
        + chunk(k=1, raw=idle, processed=parquet())
        + chunk("vidB")
        + chunk("vidB", 1),
    )
    data = importing(released)
    said = capsys.readouterr()
    assert (
        "labels of 1 of the 1 given videos, and of 1 that are not there" in said.out
        and "no video: 'vidB' 'https://example.org/vidB'" in said.err
    )
    assert (released / "shards/no-video.txt").read_text() == "'vidB' 'https://example.org/vidB'\n"
    assert "kept 240 of 480 rows (50 %), 2 of 3 segments" in said.out
    tensors, info = artefact.read(released / "shards/vidA-000.safetensors")
    assert tensors["frame"].tolist() == [60 + r // 2 for r in range(240)] and np.allclose(
        tensors["time"], 2 + np.arange(240) / 60
    )
    # a frame that two rows show is stored once
    assert (np.diff(tensors["offset"]) > 0).tolist() == [True, False] * 120
    assert tensors["start"].tolist() == list(range(0, 236, 2))
    assert info["videos"] == [{"name": "vidA", "game": "Some Game", "fps": 60.0, "split": "train"}]
    for i in (0, 30, 90):
        check_item(i, *data[i])
    before = (released / "shards/vidA-000.safetensors").stat().st_mtime_ns
    importing(released)
    assert (released / "shards/vidA-000.safetensors").stat().st_mtime_ns == before


def test_rows_to_frames_by_hand():
    """Proportionally: by the chunk's size over its frames, in whatever rate the copy has."""
    chunk = {"size": 1200, "seconds": 20.0, "start": 40.0, "frames": [2400, 3600]}

    def at(rows, fps, **other):
        return dataset.frame_numbers(chunk | other, 1200, fps)[rows].tolist()

    assert at([0, 1, 1199], 60) == [2400, 2401, 3599]
    assert at([0, 1, 2, 1199], 30) == [1200, 1200, 1201, 1799]  # half as many frames
    # nominal against true rate: the published numbers count
    assert at([0, 1, 1199], 59.94) == [2400, 2401, 3599]
    assert at([0, 1, 1199], 60, frames=[2400, 3599]) == [2400, 2401, 3599]  # last frame counted in
    assert at([0, 2, 599], 30, size=600, frames=[1200, 1800]) == [1200, 1202, 1799]  # 30 rows/s
    assert at([0, 1, 599], 60, size=600) == [2400, 2402, 3598]
    assert at([0, 1199], 60, frames=None) == [2400, 3599]  # by its times


def test_chunks_that_overlap_or_lie_outside():
    """A chunk that begins a frame early goes on where the last one ended, and no frame comes before
    the one before it.
    """
    piece = {
        "size": 120,
        "seconds": 2.0,
        "start": 0.0,
        "boxes": [[0.5, 0.5, 0.1, 0.1]],
        "area": None,
    }
    chunks = [
        piece | {"frames": f, "rows": [120 * i, 120 * i + 120], "size": n}
        for i, (f, n) in enumerate(
            [
                ([0, 120], 120),
                ([119, 239], 120),
                ([180, 300], 120),
                ([300, 420], 60),
                ([540, 660], 120),
                ([9000, 9120], 120),
            ]
        )
    ]
    facts = {"times": np.arange(600) / 60, "fps": 60.0, "width": 100, "height": 50}
    out = dataset.released_labels(
        facts,
        np.ones((720, 16), np.uint8),
        np.zeros((720, 4)),
        np.ones(20, bool),
        chunks,
        "g",
        (0, 0, 100, 50),
        config(),
    )
    # the 3rd overlaps, the 4th has another rate, the last is outside
    assert np.flatnonzero(out.known).tolist() == [*range(240), *range(540, 600)]
    assert out.frame[:240].tolist() == [*range(120), *range(119, 239)] and np.unique(
        out.segment[out.known]
    ).tolist() == [0, 1, 4]
    assert (
        "60 rows beyond" in out.about
        and "3 chunks outside" in out.about
        and out.views[1] == ([(48, 23, 62, 32)], (0, 0, 100, 50))
    )


@pytest.mark.parametrize(
    ("size", "rate", "laid"), [(115, 60, 60), (60, 60, 60), (115, 30, 60), (288, 60, 120)]
)
def test_rows_that_are_no_whole_multiple_of_the_rate(released, capsys, size, rate, laid):
    """57.5, 30 or 144 rows/s: each of ours has the last of theirs that had come, and its frame."""
    actions = parquet(rows=size, pressed=lambda r: r % 5 == 0)
    made = [chunk(k=k, size=size, raw=actions) for k in (0, 1)]
    archive(released / "SHARD_0000.tar.gz", sum(made, []))
    data = importing(released, rate=float(rate))
    said = capsys.readouterr().out
    assert f"released labels at {size / 2:g}/s, laid out at {laid}/s" in said
    rows = 2 * laid  # of a chunk
    tensors, info = artefact.read(released / "shards/vidA-000.safetensors")
    assert info["videos"][0]["fps"] == laid and len(tensors["buttons"]) == 2 * rows
    theirs = np.arange(rows) * size // rows
    pressed = tensors["buttons"][:, artefact.BUTTONS.index("SOUTH")].reshape(2, rows)
    assert (pressed == (theirs % 5 == 0)).all()
    # the copy has 30 frames/s, 60 of them in a chunk
    shown = theirs * 60 // size
    assert tensors["frame"].tolist() == [*shown, *(60 + shown)]
    assert np.allclose(tensors["time"], np.arange(2 * rows) / laid)
    assert len(data) > 100


def test_missing_columns_and_odd_values(released):
    """A column that is missing is not shown; NaN and what is out of range do no harm; a game's area
    is cut out.
    """
    actions = parquet(j_right=[[float("nan"), 7.0]] * 120)
    files = {"metadata.json": metadata(), "actions_raw.parquet": actions}
    buttons, sticks, shown = dataset.chunk_actions(files, 120)
    assert shown.all() and np.allclose(sticks[:, 2:], [0, 1]) and buttons.shape == (120, 16)
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(actions)).drop_columns(["north", "j_right"]), out)
    shown = dataset.chunk_actions({"actions_processed.parquet": out.getvalue()}, 100)[2]
    names = np.array((*artefact.BUTTONS, *artefact.STICKS))
    assert names[~shown].tolist() == ["NORTH", "RIGHT_X", "RIGHT_Y"]
    archive(
        released / "SHARD_0000.tar.gz",
        chunk(bbox_game_area=[320, 200, 320, 200], bbox_others=[[0, 0, 64, 64]]),
    )
    image = decode(importing(released)[0][0], 256).astype(int)
    # of the lower right quarter, the box is the lower right
    assert np.abs(image[140:, 140:] - 127).max() < 8 and image[:100, :100].max() < 8


def header(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def test_hostile_archive(released, tmp_path, capsys):
    """Paths that lead out, links, devices, a member and a header of a gigabyte, broken JSON and
    parquet: passed over, named, and the rest is read.
    """
    zeros = b"\0" * ((1 << 24) + 1)
    many = parquet(rows=1)
    deep = b"[" * 100_000
    out = "../../{0}/{0}_chunk_{1:04d}"
    (tmp_path / "deep/er").mkdir(parents=True)
    archive(
        tmp_path / "deep/er/SHARD_0000.tar.gz",
        [
            ("/etc/evil/metadata.json", b"{}"),
            header("vidA/null/metadata.json", tarfile.CHRTYPE),
            header(
                "SHARD_0000/vidA/vidA_chunk_0009/actions_raw.parquet",
                tarfile.SYMTYPE,
                link="/etc/passwd",
            ),
            header(
                "SHARD_0000/vidA/vidA_chunk_0009/metadata.json", tarfile.LNKTYPE, link="/etc/passwd"
            ),
            *chunk("../vidA", folder=out),
            *chunk("vidX/../../vidA", 1),
            *chunk("vidA", 2, raw=zeros),
            *chunk("vidA", 3, meta=zeros),
            *chunk("vidA", 4, meta=b"{nonsense"),
            *chunk("vidA", 5, meta=deep),
            *chunk("vidA", 6, meta=b"[1]"),
            *chunk("vidA", 7, raw=b"PAR1 not really PAR1"),
            *chunk("vidA", 8, raw=many[: len(many) // 2]),
            *chunk("vidA", 9, start_time=float("nan")),
            *chunk("vidA", 10, size=-5),
            *chunk("vidA", 11, bbox_controller_overlay=[1, 2, "x", None]),
            *chunk("vidA", 15, size=1e5),
            *chunk("vidA", 12, meta=False),
            *chunk("vidA", 13, raw=False),
            *chunk("vidA", 14, start_time=1e8, start_frame=6e9, end_frame=6e9 + 120),
            *chunk("vidA", 0),
        ],
    )
    data = importing(tmp_path / "deep/er", released / "videos")
    said = capsys.readouterr()
    assert len(data) > 50 and "1 chunks outside the video" not in said.out
    listed = (tmp_path / "deep/er/shards/skipped.txt").read_text()
    for k, words in (
        (2, "too large"),
        *((k, "metadata.json") for k in (3, 4, 5, 6, 12)),
        *((k, "no number") for k in (9, 10, 11, 14, 15)),
    ):
        assert any(
            words in line and (f"chunk_{k:04d}" in line or f"at {2 * k} s" in line)
            for line in listed.splitlines()
        ), (k, listed)
    assert all(f"at {2 * k} s" in listed for k in (2, 7, 8, 13)) and listed.count("\n") == 15
    files = (
        "SHARD_0000.tar.gz",
        "labels/vidA.actions.safetensors",
        "shards/manifest.json",
        "shards/no-video.txt",
        "shards/skipped.txt",
        "shards/vidA-000.safetensors",
    )
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "videos/vidA.mp4",
        *(f"deep/er/{f}" for f in files),
    }


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
)
def test_a_header_cannot_ask_for_memory(released, kind):
    import gzip

    with gzip.open(released / "SHARD_0000.tar.gz", "wb") as f:
        f.write(header("x", kind, 1 << 30).tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
    with pytest.raises(SystemExit, match="a header of a kind or size that has no place in it"):
        importing(released)


def test_broken_archives(released):
    whole = archive(released / "SHARD_0000.tar.gz", chunk(k=0) + chunk(k=1)).read_bytes()
    for blob in (
        whole[: len(whole) // 2],
        b"",
        b"no tar at all" * 100,
        whole[:200] + b"\1" * 200 + whole[400:],
    ):
        (released / "SHARD_0000.tar.gz").write_bytes(blob)
        with pytest.raises(SystemExit, match="SHARD_0000.tar.gz: not a whole .tar.gz"):
            importing(released)
    (released / "SHARD_0000.tar.gz").unlink()
    with pytest.raises(SystemExit, match="SHARD_.*no such file"):
        importing(released)
    archive(released / "SHARD_0000.tar.gz", chunk("vidB"))
    with pytest.raises(SystemExit, match="none of the given videos is in it"):
        importing(released)
    with pytest.raises(SystemExit, match="add --videos DIR"):
        filter.main(["--nitrogen", str(released / "SHARD_0000.tar.gz")])


def test_labels_alone_can_be_looked_at(released, capsys):
    """--inspect SHARD_0000.tar.gz, and the command with --videos, as one types them."""
    import cv2

    idle = parquet(x=0.0, pressed=lambda r: r < 50)
    path = archive(
        released / "SHARD_0000.tar.gz", chunk(k=0, raw=idle) + chunk(k=1) + chunk("vidB", meta=b"?")
    )
    filter.main(["--inspect", str(path)])
    said = capsys.readouterr()
    assert (
        "'vidA'                2      0     1    60.0  'xbox', 'Some Game'" in said.out
        and "0.00 h (50 %) in chunks" in said.out
    )
    assert "vidB_chunk_0000: metadata.json" in said.err
    lowest = cv2.imread(str(released / "SHARD_0000.png"))[-8, :, ::-1].astype(int)
    assert lowest[300].argmax() == 0 and lowest[1000].argmax() == 1  # dropped, kept
    filter.main(
        [
            "--nitrogen",
            str(path),
            "--videos",
            str(released / "videos"),
            "--labels",
            str(released / "labels"),
            "--out",
            str(released / "shards"),
            "--rate",
            "60",
            "--horizon",
            "18",
            "--shift",
            "3",
            "--validation",
            "0",
        ]
    )
    assert (
        "kept 120 of 480 rows" in capsys.readouterr().out
        and len(Shards(released / "shards", "train", 18, 60, 3)) == 50
    )


def test_without_pyarrow(released, monkeypatch):
    archive(released / "SHARD_0000.tar.gz", chunk())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SystemExit, match="pip install pyarrow"):
        importing(released)


def test_a_file_that_ends_its_reader_is_one_broken_file():
    pytest.importorskip("pyarrow", reason="no pyarrow (pip install pyarrow)")
    whole = parquet()
    assert len(dataset.read_parquet(whole)["south"]) == 120
    parquet_reader().submit(os.abort)
    with pytest.raises(ValueError, match="ended the process that read it"):
        dataset.read_parquet(whole)
    assert len(dataset.read_parquet(whole)["south"]) == 120
