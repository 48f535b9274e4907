"""interop/lerobot.py and to_lerobot.py: shards to a LeRobotDataset v3 and back, with the package
lerobot as reader and as writer where it is installed, and datasets that are not as they should be.
"""

import json
import shutil
import subprocess
import sys

from common import ROOT, artefact
from common.command_line import recipe_of
from common.pictures import Video, VideoWriter
from common.shards import Shards, decode

import numpy as np
import pytest

import filter
from commands import command, fault
from interop import lerobot, to_lerobot
from shards import config

pa = pytest.importorskip("pyarrow", reason="no pyarrow (pip install pyarrow)")
parquet = pytest.importorskip("pyarrow.parquet")

CAMERA = to_lerobot.CAMERA
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
MP4 = f"videos/{CAMERA}/chunk-000/file-000.mp4"


def picture(i: int) -> np.ndarray:
    """uint8 [200, 320, 3]: a slope of colours over which a bright square goes."""
    y, x = np.mgrid[:200, :320]
    rgb = np.stack([x * 0.7, y, (x + y + 3 * i) % 256 * 0.5], -1).astype(np.uint8)
    left = 5 * i % 280
    rgb[60:100, left : left + 40] = (250, 240, 30)
    return rgb


def recorded(folder, name: str, rows: int, fps: float = 30.0, idle=(), game="Some Game") -> None:
    """A video and the true actions of its frames, at random; none in the rows `idle`."""
    with VideoWriter(folder / f"{name}.mp4", fps, 320, 200) as out:
        for i in range(rows):
            out.write(picture(i))
    true_actions(folder, name, np.arange(rows) / fps, idle, game)


def true_actions(folder, name: str, time, idle=(), game="Some Game") -> None:
    """At random, for each of these times."""
    rows = len(time)
    rng = np.random.default_rng(len(name) + rows)
    buttons = (rng.random((rows, 16)) < 0.3).astype(np.float16)
    sticks = rng.uniform(-1, 1, (rows, 4)).astype(np.float32)
    buttons[list(idle)] = sticks[list(idle)] = 0
    shown = np.ones(20, bool)
    shown[[4, 19]] = False
    tensors = {
        "buttons": buttons,
        "sticks": sticks,
        "shown": shown,
        "confidence": np.ones(rows, np.float16),
        "time": time,
    }
    path = folder / f"{name}.truth.safetensors"
    artefact.write(path, tensors, "nitrogen.actions/1", unit="normalized", game=game)


def shards(folder, **changes):
    """Shards of all videos of a folder, in it."""
    videos = tuple(sorted(map(str, folder.glob("*.mp4"))))
    filter.run(config(videos=videos, out=str(folder / "shards"), workers=0, **changes))
    return folder / "shards"


def exported(folder, out, **changes):
    to_lerobot.export(to_lerobot.Export(shards=(str(folder),), lerobot=str(out), **changes))
    return out


def imported(folder, out, **changes):
    filter.run(config(**{"lerobot": str(folder), "out": str(out), "workers": 0, **changes}))
    return out


def chunks(folder, split="train", horizon=4, rate=30.0, shift=1) -> list:
    return [*Shards(folder, split, horizon, rate, shift)]


def psnr(a, b) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def same(before: list, after: list) -> float:
    """Whether two lists of chunks hold the same; the least PSNR of their pictures."""
    assert len(before) == len(after) > 0
    for old, new in zip(before, after, strict=True):
        assert old[1].tobytes() == new[1].tobytes()  # buttons
        assert old[2].tobytes() == new[2].tobytes()  # sticks
        assert old[3].tolist() == new[3].tolist() and old[4] == new[4]
    pairs = zip(before[::7], after[::7], strict=True)
    return min(psnr(decode(old[0], 256), decode(new[0], 256)) for old, new in pairs)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Shards of two games, one whose second second is idle, one that is held out; and their
    dataset.
    """
    folder = tmp_path_factory.mktemp("originals")
    recorded(folder, "ace", 90, idle=range(30, 60))
    recorded(folder, "den", 75, game="Other Game")
    made = shards(folder, validation=0.5)
    assert len(chunks(made, "train")) and len(chunks(made, "validation"))
    exported(made, folder / "pad")
    return folder


@pytest.fixture
def played(originals, tmp_path):
    return shutil.copytree(originals / "shards", tmp_path / "shards")


@pytest.fixture
def dataset(originals, tmp_path):
    return shutil.copytree(originals / "pad", tmp_path / "pad")


# ---- there and back


@pytest.mark.parametrize("shift, fps", [(0, 30.0), (1, 30.0), (3, 60.0)])
def test_round_trip(tmp_path, shift, fps):
    """The same chunks, to the bit; pictures as good as H.264 and a second JPEG leave them."""
    recorded(tmp_path, "ace", 90, fps, idle=range(30, 60))
    folder = shards(tmp_path, shift=shift, rows_per_shard=25, segment_seconds=30 / fps)
    assert len([*folder.glob("*.safetensors")]) == 3
    exported(folder, tmp_path / "pad")
    back = imported(tmp_path / "pad", tmp_path / "back", shift=shift, segment_seconds=30 / fps)
    old, new = chunks(folder, shift=shift), chunks(back, shift=shift)
    # a chunk may not run from one shard into the next, and all of a run are in one now
    reach = shift + 3 * int(fps / 30) + 1
    assert len(new) == 2 * (30 - reach + 1)
    held = {(b.tobytes(), s.tobytes()) for _, b, s, *_ in new}
    assert {(b.tobytes(), s.tobytes()) for _, b, s, *_ in old} < held
    again = exported(back, tmp_path / "again")
    more = imported(again, tmp_path / "more", shift=shift, segment_seconds=30 / fps)
    assert same(new, chunks(more, shift=shift)) > 36


def test_a_folder_and_back(played, dataset, tmp_path, capsys):
    back = imported(dataset, tmp_path / "back")
    said = capsys.readouterr().out
    assert "3 episodes at 30/s" in said and "SOUTH=SOUTH" in said and "not used" not in said
    assert same(chunks(played), chunks(back)) > 36
    assert same(chunks(played, "validation"), chunks(back, "validation")) > 36


def test_of_corrections_no_action_of_the_policy_is_exported(tmp_path):
    """A person has rows 40 to 69 of 90: the shards keep pictures from row 25 on, the dataset holds
    the person's actions alone.
    """
    recorded(tmp_path, "ace", 90)
    path = tmp_path / "ace.truth.safetensors"
    tensors, info = artefact.read(path)
    tensors["buttons"][:, 5] = 1  # never idle
    person = (np.arange(90) >= 40) & (np.arange(90) < 70)
    artefact.write(path, {**tensors, "person": person}, info["format"], unit="normalized")
    folder = shards(tmp_path)
    assert len(to_lerobot.Part(folder / "ace-000.safetensors")["frame"]) == 45
    out = exported(folder, tmp_path / "pad")
    table = parquet.read_table(out / DATA)
    done = np.stack(table["action"].to_numpy())
    true = np.hstack([tensors["buttons"], tensors["sticks"]])[40:70] * tensors["shown"]
    assert np.array_equal(done, true.astype(np.float32))


def test_of_turns_that_nearly_touch(tmp_path):
    """A row of the policy between two turns of a person: nobody is to do what it did."""
    recorded(tmp_path, "ace", 90)
    path = tmp_path / "ace.truth.safetensors"
    tensors, info = artefact.read(path)
    person = (np.arange(90) >= 30) & (np.arange(90) != 50)
    tensors["buttons"][:] = np.where(person[:, None], np.arange(16) == 0, np.arange(16) == 1)
    artefact.write(path, {**tensors, "person": person}, info["format"], unit="normalized")
    out = exported(shards(tmp_path, segment_seconds=9.0), tmp_path / "pad")
    actions = np.stack(parquet.read_table(out / DATA)["action"].to_numpy())
    assert len(actions) == 20 + 39 and actions[:, 0].all() and not actions[:, 1].any()
    lengths = [episode["length"] for episode in parquet.read_table(out / EPISODES).to_pylist()]
    assert lengths == [20, 39]


def test_runs_of_fewer_rows_than_the_shift(tmp_path):
    """They have no frame with an action."""
    recorded(tmp_path, "ace", 60)
    path = tmp_path / "ace.truth.safetensors"
    tensors, info = artefact.read(path)
    tensors["confidence"][[30, 33]] = 0
    artefact.write(path, tensors, "nitrogen.actions/1", unit="normalized", game=info["game"])
    out = exported(shards(tmp_path, shift=3, segment_seconds=9.0), tmp_path / "pad")
    lengths = [episode["length"] for episode in parquet.read_table(out / EPISODES).to_pylist()]
    assert lengths == [30 - 3, 26 - 3]


# ---- what is written


def test_fields(dataset):
    """Field by field, as lerobot 0.4 and 0.6 write them."""
    info = json.loads((dataset / "meta/info.json").read_text())
    # runs of 30, 30 and 75 rows, each without the row that lacks an action
    assert info["total_frames"] == 29 + 29 + 74 and info["total_episodes"] == 3
    assert info["codebase_version"] == "v3.0" and info["fps"] == 30 and info["total_tasks"] == 2
    assert info["splits"] == {"train": "0:2", "validation": "2:3"}
    names = [*artefact.BUTTONS, *artefact.STICKS]
    assert info["features"]["action"] == {"dtype": "float32", "shape": [20], "names": names}
    assert info["features"][CAMERA]["shape"] == [256, 256, 3]
    table = parquet.read_table(dataset / DATA)
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "action": "fixed_size_list<element: float>[20]",
        "shown": "fixed_size_list<element: bool>[20]",
        "timestamp": "float",
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
    }
    rows = table.to_pydict()
    assert rows["index"] == [*range(132)] and rows["frame_index"][29:32] == [0, 1, 2]
    assert rows["episode_index"] == [0] * 29 + [1] * 29 + [2] * 74
    assert rows["timestamp"][30] == np.float32(1 / 30)
    second = parquet.read_table(dataset / EPISODES).to_pylist()[1]
    assert second["tasks"] == ["Some Game"] and second["length"] == 29
    assert (second["dataset_from_index"], second["dataset_to_index"]) == (29, 58)
    assert second[f"videos/{CAMERA}/from_timestamp"] == 29 / 30
    assert second[f"videos/{CAMERA}/to_timestamp"] == 58 / 30
    assert len(Video(dataset / MP4).times()) == 132
    tasks = parquet.read_table(dataset / "meta/tasks.parquet")
    assert tasks.column("task_index").to_pylist() == [0, 1]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    assert parquet.ParquetFile(dataset / DATA).num_row_groups == 3


def test_statistics(dataset):
    """By numpy, from what was written; of the pictures, from the video."""
    stats = json.loads((dataset / "meta/stats.json").read_text())
    actions = np.stack(parquet.read_table(dataset / DATA)["action"].to_pylist())
    for name, found in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        assert np.allclose(stats["action"][name], found(actions, axis=0), atol=1e-6)
    assert np.allclose(stats["action"]["q90"], np.quantile(actions, 0.9, axis=0), atol=1e-6)
    assert stats["action"]["count"] == stats[CAMERA]["count"] == [132]
    assert stats["index"]["max"] == [131] and stats["shown"]["max"][4] == 0
    pixels = np.stack([rgb for _, _, rgb in Video(dataset / MP4)]) / 255
    for name, found in (("mean", np.mean), ("std", np.std)):
        value = found(pixels, axis=(0, 1, 2))
        assert np.allclose(np.ravel(stats[CAMERA][name]), value, atol=0.01)
    median = np.quantile(pixels, 0.5, axis=(0, 1, 2))
    assert np.allclose(np.ravel(stats[CAMERA]["q50"]), median, atol=0.02)
    assert np.shape(stats[CAMERA]["min"]) == (3, 1, 1)
    first = parquet.read_table(dataset / EPISODES).to_pylist()[0]
    assert np.allclose(first["stats/action/mean"], actions[:29].mean(axis=0), atol=1e-6)


def test_long_runs_are_cut_and_files_are_short(played, tmp_path, monkeypatch):
    """Times of a file stay where float32 tells a frame from the next."""
    monkeypatch.setattr(to_lerobot, "FILE_SECONDS", 1)
    out = exported(played, tmp_path / "pad")
    files = sorted(out.glob("videos/*/*/*.mp4"))
    assert [len(Video(path).times()) for path in files] == [29, 29, 30, 30, 14]
    assert [path.name for path in sorted(out.glob("data/*/*"))][-1] == "file-004.parquet"
    back = imported(out, tmp_path / "back", horizon=2)
    assert len(chunks(back, "validation", 2)) == (31 - 2) * 2 + 15 - 2


def test_export_says_what_it_cannot(played, tmp_path):
    recorded(tmp_path, "fast", 60, 60.0)
    shards(tmp_path)  # beside the others
    out = tmp_path / "pad"
    line = "shards of 30 and 60 rows/s, and a LeRobotDataset has one rate: give --rate 30"
    assert fault(exported, played, out) == line and not out.exists()
    exported(played, out, rate=30.0)
    assert json.loads((out / "meta/info.json").read_text())["total_frames"] == 132 + 30
    assert fault(exported, played, out).endswith("is there already; --fresh replaces it")
    exported(played, out, rate=15.0, fresh=True)
    assert json.loads((out / "meta/info.json").read_text())["total_frames"] == 2 * 15 + 37 + 15
    assert "no multiple" in fault(lambda: exported(played, tmp_path / "b", rate=20.0))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    assert "give another" in fault(lambda: exported(played, tmp_path / "mine", fresh=True))
    assert (tmp_path / "mine/thesis.txt").exists()
    assert not [*tmp_path.glob(".*.part")]


# ---- the package


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    why = "no lerobot (pip install lerobot)"
    return pytest.importorskip("lerobot.datasets.lerobot_dataset", reason=why).LeRobotDataset


def test_the_package_reads_it(package, played, dataset):
    """Its item is a chunk of the shards: the picture, and the actions from there on."""
    times = {"action": [k / 30 for k in range(4)]}
    found = package("me/pad", root=dataset, delta_timestamps=times)
    assert len(found) == 132 and found.num_episodes == 3
    before = chunks(played) + chunks(played, "validation")
    # chunks begin at rows 0 to 25 of a run of 30, and at 0 to 70 of one of 75
    begins = [*range(26), *range(29, 29 + 26), *range(58, 58 + 71)]
    for index, (jpeg, buttons, sticks, mask, game) in zip(begins, before, strict=True):
        item = found[index]
        assert np.array_equal(item["action"].numpy(), np.hstack([buttons, sticks]))
        assert item["task"] == game and item["shown"].tolist() == mask.tolist()
        assert not item["action_is_pad"].any()
        if index % 7 == 0:
            rgb = 255 * item[CAMERA].numpy().transpose(1, 2, 0)
            assert psnr(decode(jpeg, 256), rgb) > 36
    assert found[28]["action_is_pad"].tolist() == [False, True, True, True]
    assert set(found.meta.stats["action"]) >= {"min", "max", "mean", "std", "count", "q01", "q99"}


def test_a_checker_finds_nothing(dataset):
    """robovet, which others wrote, counts, recomputes and decodes."""
    pytest.importorskip("robovet", reason="no robovet (pip install robovet av)")
    code = "from robovet.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", str(dataset)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 fail · 0 warn" in done.stdout


@pytest.mark.slow
def test_pictures_of_real_games(tmp_path, capsys):
    """Ten seconds of SuperTux and of Freedoom: as H.264 and as a second JPEG, and their size."""
    for name in ("supertux", "freedoom"):
        path = shutil.copy(ROOT / f"assets/backgrounds/{name}.mp4", tmp_path)
        true_actions(tmp_path, name, Video(path).times())
    folder = shards(tmp_path, segment_seconds=20.0)
    out = exported(folder, tmp_path / "pad")
    old = chunks(folder)
    new = chunks(imported(out, tmp_path / "back", segment_seconds=20.0))
    assert same(old, new) > 30
    seen = [(decode(a[0], 256), decode(b[0], 256)) for a, b in zip(old, new, strict=True)]
    quality = [psnr(a, b) for a, b in seen]
    jpeg = sum(len(chunk[0]) for chunk in old)
    film = (out / MP4).stat().st_size
    with capsys.disabled():
        print(
            f"\nPSNR {min(quality):.1f} to {max(quality):.1f} dB, median {np.median(quality):.1f}; "
            f"{film / jpeg:.2f} of the JPEG bytes"
        )
    assert np.median(quality) > 35 and film < 0.6 * jpeg


def made_by_lerobot(package, root, rows=(40, 55), fps=20):
    """Two episodes; the picture is as bright as its number says, sticks in percent."""
    names = ["a", "trigger", "x", "y", "hat"]
    made = package.create(
        "me/made",
        fps,
        root=root,
        features={
            "observation.images.top": {
                "dtype": "video",
                "shape": (96, 128, 3),
                "names": ["height", "width", "channels"],
            },
            "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
            "action": {
                "dtype": "float32",
                "shape": (5,),
                "names": {name: k for k, name in enumerate(names)},
            },
        },
    )
    for e, n in enumerate(rows):
        for i in range(n):
            action = [i % 2, 255 * (i % 3 == 0), i, -i, i % 3 - 1]
            frame = {
                "observation.images.top": np.full((96, 128, 3), 100 * e + 2 * i, np.uint8),
                "observation.state": np.zeros(2, np.float32),
                "action": np.array(action, np.float32),
                "task": ["jump over it", "run"][e],
            }
            made.add_frame(frame)
        made.save_episode()
    made.finalize()
    return root


def test_what_the_package_writes(package, tmp_path, capsys):
    """20 frames/s of AV1, two episodes in a file, at the rate of the chunks and at another."""
    root = made_by_lerobot(package, tmp_path / "made")
    actions = "a=SOUTH,trigger=left_trigger/255,x=LEFT_X/100,y=-LEFT_Y/100,hat=DPAD_RIGHT"
    actions += ",hat=-DPAD_LEFT"
    kept = {"min_active": 0.0, "rate": 20.0, "actions": actions}
    back = imported(root, tmp_path / "back", **kept)
    assert "masked, since it has none: BACK DPAD_DOWN" in capsys.readouterr().out
    found = chunks(back, rate=20.0)
    rows = [(0, i) for i in range(40 - 3)] + [(1, i) for i in range(55 - 3)]
    for (e, i), (jpeg, buttons, sticks, mask, game) in zip(rows, found, strict=True):
        assert abs(decode(jpeg, 256).mean() - (100 * e + 2 * i)) < 4
        upon = np.arange(i, i + 4)  # the action of its own row comes first
        on = {name: buttons[:, artefact.BUTTONS.index(name)].tolist() for name in artefact.BUTTONS}
        assert on["SOUTH"] == (upon % 2).tolist()
        assert on["LEFT_TRIGGER"] == (upon % 3 == 0).tolist()
        assert on["DPAD_RIGHT"] == (upon % 3 == 2).tolist()
        assert on["DPAD_LEFT"] == (upon % 3 == 0).tolist()
        assert np.allclose(sticks[:, 0], upon / 100) and np.allclose(sticks[:, 1], upon / 100)
        assert mask.sum() == 6 and game == ["jump over it", "run"][e]
    laid = imported(root, tmp_path / "laid", **{**kept, "rate": 30.0})
    assert len(Shards(laid, "train", 4, 30.0, 1).parts) == 2
    # 55 frames of 20/s are 2.7 s, and 82 rows of 30/s, of which the last has one more action
    assert len(Shards(laid, "train", 4, 30.0, 1).parts[1]["time"]) == 83


# ---- which action is which


def feature(names, n, dtype="float32"):
    return {"dtype": dtype, "shape": [n], "names": names}


def test_names_of_actions():
    for names in (["p", "q"], {"axes": ["p", "q"]}, {"q": 1, "p": 0}, [["p", "q"]]):
        assert lerobot.action_columns({"action": feature(names, 2)}) == {
            "p": ("action", 0),
            "q": ("action", 1),
        }
    for names in (None, ["p"], [1, 2], {"p": 0}, "pq", {"a": [1], "b": "c"}):
        assert [*lerobot.action_columns({"action": feature(names, 2)})] == ["0", "1"]
    several = {
        "action.stick": feature(["x", "y"], 2),
        "action.jump": feature(None, 1, "bool"),
        "action.text": feature(None, 1, "string"),
        "actions": feature(None, 3),
        "observation.state": feature(["p"], 1),
        "action.huge": feature(None, 10**15),
    }
    assert lerobot.action_columns(several) == {
        "stick.x": ("action.stick", 0),
        "stick.y": ("action.stick", 1),
        "jump": ("action.jump", 0),
    }


def test_actions_are_told_or_named_as_ours():
    columns = {"left_x": ("action", 0), "South": ("action", 1), "fire": ("action", 2)}
    found = lerobot.sources_of("DIR", columns, "")
    assert [*map(str, found)] == ["South=SOUTH", "left_x=LEFT_X"]
    found = lerobot.sources_of("DIR", columns, "fire=EAST, left_x = -left_y/32768")
    assert [*map(str, found)] == ["fire=EAST", "left_x=-LEFT_Y/32768"]
    assert found[1].factor == -1 / 32768

    def line(text, columns=columns):
        return fault(lerobot.sources_of, "DIR", columns, text)

    assert "none of its actions (p)" in line("", {"p": ("action", 0)})
    assert "the dataset's actions are left_x, South, fire" in line("jump=SOUTH")
    assert "SOUTH is there twice" in line("fire=SOUTH,South=SOUTH")
    for wrong in ("fire", "fire=JUMP", "=SOUTH", "fire=SOUTH/0", "fire=SOUTH/x", "", "fire=A"):
        if wrong:
            assert "expected NAME=BUTTON" in line(wrong)


def test_another_choice_of_actions_is_another_recipe(dataset, tmp_path):
    c = config(lerobot="a", camera="b", actions="c")
    assert recipe_of(c) == recipe_of(config())  # shards of videos stay as they are
    imported(dataset, tmp_path / "back")
    with pytest.raises(SystemExit, match="made with another episode"):
        imported(dataset, tmp_path / "back", actions="EAST=SOUTH,LEFT_X=LEFT_X")


# ---- datasets that are not as they should be


def edited(dataset, **changes):
    """The dataset with other values in info.json."""
    path = dataset / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return dataset


def line_of(dataset, **changes) -> str:
    """The one line with which reading it ends, or an episode of it."""
    with pytest.raises(SystemExit) as e:
        imported(dataset, dataset.parent / "none", **changes)
    first, *more = str(e.value).splitlines()
    assert not more or first.endswith("videos failed:")
    return more[0].strip() if more else first


@pytest.mark.parametrize(
    "template",
    [
        "../other/{video_key}.mp4",
        "/etc/passwd",
        "a/../../b-{chunk_index:03d}",
        "..\\b.mp4",
        "C:\\b.mp4",
        "{chunk_index.__class__}",
        "{chunk_index:999999999d}",
        "{episode}",
        "{video_key:03d}",
    ],
)
@pytest.mark.parametrize("which", ["data_path", "video_path"])
def test_paths_stay_in_the_folder(dataset, template, which):
    assert "names no file of its folder" in line_of(edited(dataset, **{which: template}))


def test_a_camera_cannot_lead_out_of_the_folder(dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["../../secret"] = info["features"].pop(CAMERA)
    table = parquet.read_table(dataset / EPISODES)
    names = [name.replace(CAMERA, "../../secret") for name in table.column_names]
    parquet.write_table(table.rename_columns(names), dataset / EPISODES)
    assert "names no file of its folder" in line_of(edited(dataset, **info))


@pytest.mark.parametrize("name", [DATA, EPISODES])
def test_broken_tables(dataset, name):
    whole = (dataset / name).read_bytes()
    for blob in (whole[: len(whole) // 2], b"", whole[:-4] + b"PARX", b"PAR1" * 9):
        (dataset / name).write_bytes(blob)
        line = line_of(dataset)
        assert str(dataset / name) in line and "not as LeRobotDataset v3 has it" in line
    table = parquet.read_table(pa.BufferReader(whole))
    parquet.write_table(table.drop_columns(["episode_index"]), dataset / name)
    assert "no column episode_index" in line_of(dataset)


@pytest.mark.parametrize(
    "key, value",
    [("length", np.inf), ("episode_index", [1, 2]), ("tasks", 3)],
)
def test_columns_of_another_kind(dataset, key, value):
    rows = parquet.read_table(dataset / EPISODES).to_pylist()
    parquet.write_table(
        pa.Table.from_pylist([{**row, key: value} for row in rows]), dataset / EPISODES
    )
    assert line_of(dataset).endswith(f"not as LeRobotDataset v3 has it (its column {key})")


def test_a_text_in_many_rows_is_held_once(tmp_path):
    """A file of 2 kB: its text of 100 kB in each of 1,000 rows would be 100 MB."""
    path = tmp_path / "large.parquet"
    texts = pa.array([["x" * 100_000]]).take(pa.array([0] * 1000))
    parquet.write_table(
        pa.table({"tasks": texts}), path, compression="zstd", dictionary_pagesize_limit=1 << 24
    )
    assert path.stat().st_size < 4000
    found = lerobot.read_table(str(path), ("tasks",))["tasks"]
    assert len(found) == 1000 and len(found[0][0]) == 100_000
    assert len({id(row[0]) for row in found}) == 1
    parquet.write_table(pa.table({"tasks": [["run", "jump"], [], ["run"]]}), path, row_group_size=1)
    assert lerobot.read_table(str(path), ("tasks",)) == {"tasks": [["run", "jump"], [], ["run"]]}


def test_rows_that_do_not_fit(dataset):
    whole = parquet.read_table(dataset / DATA)

    def line(column, values, kind=None):
        k = whole.column_names.index(column)
        parquet.write_table(whole.set_column(k, column, pa.array(values, kind)), dataset / DATA)
        return line_of(dataset)

    actions = whole["action"].to_pylist()
    actions[3] = [0.0] * 16 + [float("nan"), 0, 0, 0]
    assert "LEFT_X holds nan" in line("action", actions)
    actions[3] = [0.0] * 16 + [-128, 0, 0, 0]
    end = "divide it by its full deflection: LEFT_X=LEFT_X/128"
    assert line("action", actions).endswith(end)
    actions[3] = [0.0] * 19
    assert "rows of several lengths" in line("action", actions, pa.list_(pa.float32()))
    assert "has 3 columns only" in line("action", [[0.0] * 3] * 132, pa.list_(pa.float32(), 3))
    assert "has no numbers" in line("action", ["left"] * 132)
    assert "has empty places" in line("timestamp", [None] * 132, pa.float32())
    assert "no growing times" in line("timestamp", [-float(i) for i in range(132)])
    assert "has no frame at" in line("timestamp", [100.0 + i for i in range(132)])
    assert "has 132 rows of episode 0, meta/episodes says 29" in line("episode_index", [0] * 132)


def test_a_video_that_ends_early(dataset, tmp_path, capsys):
    """Its last rows have no frame, and are left out; lerobot would stop there."""
    table = parquet.read_table(dataset / EPISODES)
    k = table.column_names.index(f"videos/{CAMERA}/from_timestamp")
    late = [start + (0.1 if n == 2 else 0) for n, start in enumerate(table[k].to_pylist())]
    changed = table.set_column(k, table.column_names[k], pa.array(late))
    parquet.write_table(changed, dataset / EPISODES)
    back = imported(dataset, tmp_path / "back")
    assert "episode 2, 3 rows without a frame left out; kept 71 of 75" in capsys.readouterr().out
    assert len(chunks(back, "validation")) == 71 - 4


def test_what_is_not_there(dataset, tmp_path):
    assert "takes the folder of a LeRobotDataset v3" in line_of(tmp_path / "nowhere")
    assert "does not say which rows are a policy's" in line_of(dataset, who="policy")
    (dataset / MP4).rename(tmp_path / "away.mp4")
    assert f"{dataset / MP4}: no such video" in line_of(dataset)
    (tmp_path / "away.mp4").rename(dataset / MP4)
    assert "videos of its own" in line_of(dataset, videos=("a.mp4",))
    assert "--camera side: expected one of" in line_of(dataset, camera="side")
    info = json.loads((dataset / "meta/info.json").read_text())
    two = {**info["features"], "observation.images.side": info["features"][CAMERA]}
    line = line_of(edited(dataset, features=two))
    assert f"give --camera, one of {CAMERA}, observation.images.side" in line
    imported(dataset, tmp_path / "back", camera="game")
    still = {**info["features"], CAMERA: {**info["features"][CAMERA], "dtype": "image"}}
    assert "its pictures lie in the parquet files" in line_of(edited(dataset, features=still))
    del still[CAMERA]
    assert "no pictures in it" in line_of(edited(dataset, features=still))
    assert "expected v3" in line_of(edited(dataset, codebase_version="v2.1"))
    for wrong in ({"fps": 0}, {"features": []}, {"data_path": 3}, {"splits": {"train": [0, 3]}}):
        assert "info.json: it" in line_of(edited(dataset, **{**info, **wrong}))
    (dataset / "meta/info.json").write_text("{")
    assert "not readable as JSON" in line_of(dataset)
    (dataset / "meta/info.json").write_text(json.dumps(info))
    shutil.rmtree(dataset / "meta/episodes")
    assert "no parquet file there" in line_of(dataset)


def test_without_pyarrow(played, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in fault(exported, played, tmp_path / "pad")
    monkeypatch.setattr(lerobot, "read_info", None)
    c = config(lerobot=str(tmp_path), out=str(tmp_path / "back"))
    assert "pip install pyarrow" in fault(filter.run, c)


def test_the_commands_over_processes(played, tmp_path):
    """A worker reads its tables by itself, and ends."""
    out, back = str(tmp_path / "pad"), str(tmp_path / "back")
    said = command("filter.py", "export", "--lerobot", out, str(played), timeout=300)
    assert "3 episodes, 132 frames at 30/s" in said
    words = "--horizon 4 --segment-seconds 1 --workers 2".split()
    said = command("filter.py", "--lerobot", out, "--out", back, *words, timeout=300)
    assert "3 videos, 135 rows: kept 135 (100 %)" in said and "(1 videos held out)" in said
    same(chunks(played), chunks(back))
