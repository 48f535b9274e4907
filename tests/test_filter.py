"""filter.py: sticks, idle segments and chunks by hand; shards end to end from a small video; bad
input.
"""

import io
import json
import os
import sys
import tarfile

from common import artefact
from common.pictures import VideoWriter, expand

import numpy as np
import pytest

import filter
from bench import lag
from released import dataset
from templates import synthetic

FPS, T = 30, 90


def test_neutral_point_and_scale_by_hand():
    """Rest at (0.3, -0.2), full deflection 4 cells: after refinement rest is 0, and 4 cells are 1
    by either scale.
    """
    rng = np.random.default_rng(0)
    sticks = np.zeros((1000, 4), np.float32)
    sticks[:, 0], sticks[:, 1] = 0.3, -0.2
    moved = rng.random(1000) < 0.4
    angle = rng.uniform(0, 2 * np.pi, 1000)
    sticks[moved, 0] += 4 * np.cos(angle[moved])
    sticks[moved, 1] += 4 * np.sin(angle[moved])
    # drawn for 4.2, it reaches 4 of them
    for scale, radius in (("radius", 4.0), ("percentile", 4.2)):
        out = filter.normalize(sticks, scale, radius=radius)
        assert np.abs(out[~moved, :2]).max() < 1e-6
        assert np.abs(out[moved, 0] - np.cos(angle[moved])).max() < 0.01
        assert (out[:, 2:] == 0).all()


def test_a_stick_held_half_way_is_neither_rest_nor_full_deflection():
    """60 % of the time at 1.2 cells of 4: rest stays rest, and the percentile does not take 1.2
    cells for the end.
    """
    sticks = np.zeros((1000, 4), np.float32)
    sticks[:600, 0], sticks[:, 1] = 1.2, 0.1
    for scale, end in (("radius", 4.0), ("percentile", 0.95 * 4.0)):
        out = filter.normalize(sticks, scale, radius=4.0)
        assert (
            np.allclose(out[:600, 0], 1.2 / end)
            and np.allclose(out[600:, 0], 0)
            and np.allclose(out[:, 1], 0, atol=1e-6)
        )
    assert (filter.normalize(sticks, radius=4.0) == out).all(), (
        "the published percentile is the default"
    )


def test_an_axis_that_never_moves_is_not_blown_up():
    noise = np.random.default_rng(0).normal(0, 0.1, (500, 4)).astype(np.float32)
    for scale in ("radius", "percentile"):
        # 5 cells are full deflection, not 0.1
        assert np.abs(filter.normalize(noise, scale)).max() < 0.15


def test_single_frames_are_not_presses():
    pressed = np.zeros((12, 16), bool)
    pressed[2, 0] = pressed[5:7, 0] = pressed[8:12, 0] = pressed[:3, 1] = pressed[4:6, 1] = True
    out = filter.clean_presses(np.where(pressed, 0.8, 0.2))
    # the blip at 2 goes, the gap at 7 closes; edges stay
    assert np.flatnonzero(out[:, 0]).tolist() == list(range(5, 12))
    assert np.flatnonzero(out[:, 1]).tolist() == [0, 1, 2, 3, 4, 5]  # the gap at 3 closes
    assert filter.clean_presses(pressed[:1] * 0.8).shape == (1, 16)
    # what the parser is sure of stays
    assert (filter.clean_presses(np.where(pressed, 0.99, 0.01)) == pressed).all()
    # two hesitant frames in a row are not a press either
    assert not filter.clean_presses(np.where(pressed, 0.6, 0.05))[5:7, 0].any()
    # two that are less so are, and no frame later
    assert (filter.clean_presses(np.where(pressed, 0.85, 0.05))[4:, 0] == pressed[4:, 0]).all()
    slow = np.r_[[0.02] * 4, 0.3, 0.45, 0.55, 0.9, [0.98] * 4][:, None]
    # the change is where the odds turn: no lag
    assert np.flatnonzero(filter.clean_presses(slow)[:, 0]).tolist() == list(range(6, 12))


def test_what_a_player_does_with_a_button_decides_how_clearly_a_press_must_be_seen():
    """20 s.  0: eight presses and two flashes of one sure frame; 1: the same flashes where the
    player taps all the time, single frames too; 2: weak, but down as often as usual; 3: as weak,
    now and then; 4: never down, one flash; 5: held, with a gap of a sure frame; 6: an even .9
    throughout, which is no finger, but for a press that is SURE; 7: the same, for a third of the
    time."""
    p, rows = np.full((600, 16), 0.02), np.arange(600)
    presses, taps = rows % 70 < 10, rows % 4 == 0
    p[presses, 0] = p[taps, 1] = 0.99
    p[[33, 333], 0] = 0.99
    p[rows % 60 < 20, 2] = p[rows % 200 < 20, 3] = 0.6
    p[300, 4], p[:, 5], p[300, 5] = 0.99, 0.99, 0.01
    p[:, 6], p[:200, 7], p[400:410, 6] = 0.9, 0.9, 0.999
    out = filter.clean_presses(p)
    assert (
        (out[:, 0] == presses).all()
        and (out[:, 1] == taps).all()
        and (out[:, 2] == (rows % 60 < 20)).all()
    )
    assert not out[:, 3:5].any() and out[:, 5].all() and not out[:, 8:].any()
    assert np.flatnonzero(out[:, 6]).tolist() == list(range(400, 410)) and np.flatnonzero(
        out[:, 7]
    ).tolist() == list(range(200))


def test_a_rare_press_in_a_long_video_stays():
    """Ten minutes, one press of ten frames at .95, one of three at .99, and a flash of one frame at
    .99: however rare, a press is a press.
    """
    p = np.full((18_000, 16), 0.02)
    p[9000:9010, 0], p[12_000:12_003, 0], p[15_000, 0] = 0.95, 0.99, 0.99
    assert np.flatnonzero(filter.clean_presses(p)[:, 0]).tolist() == [
        *range(9000, 9010),
        *range(12_000, 12_003),
    ]


def test_usual_player_is_the_one_that_the_parser_learned_from():
    rng, shown = np.random.default_rng(0), np.ones(20, bool)
    assert np.mean(
        [synthetic.random_states(rng, shown, 2)[0][1] for _ in range(3000)]
    ) == pytest.approx(filter.DOWN, abs=0.01)


def test_rows_without_the_overlay_say_nothing_of_the_player(tmp_path):
    """A button that is weak, but down a third of the time: the same whether the overlay is shown
    throughout or a tenth of the time.
    """
    for share in (1, 10):
        p, confidence = np.zeros((300 * share, 16), np.float16), np.zeros(300 * share, np.float16)
        p[:300, 0], confidence[:300] = np.where(np.arange(300) % 60 < 20, 0.7, 0.02), 1
        tensors = {
            "buttons": p,
            "sticks": np.zeros((len(p), 4), np.float32),
            "shown": np.ones(20, bool),
            "confidence": confidence,
            "time": np.arange(len(p)) / FPS,
        }
        artefact.write(
            tmp_path / f"{share}.actions.safetensors",
            tensors,
            "nitrogen.actions/1",
            unit="grid",
            cells_per_radius=5.0,
        )
        buttons = filter.final_actions(tmp_path / f"{share}.actions.safetensors")[0]
        assert (buttons[:300, 0] == (np.arange(300) % 60 < 20)).all() and not buttons[300:].any()


def test_course_is_the_likeliest_one():
    """Against every course there is."""
    odds = np.random.default_rng(0).normal(0, 2, (9, 16))
    courses = (np.arange(2**9)[:, None] >> np.arange(9) & 1).astype(bool)  # [512, 9]
    score = courses @ odds - filter.COST * (courses[:, 1:] != courses[:, :-1]).sum(1, keepdims=True)
    assert (filter.viterbi(odds, filter.COST) == courses[score.argmax(0)].T).all()


def config(**changes):
    return filter.Config(**{"segment_seconds": 1.0, "horizon": 4, "validation": 0.0, **changes})


def labels(buttons, sticks, known, seconds=1):
    rows = np.arange(len(buttons))
    return filter.Labels(
        buttons,
        sticks,
        known,
        rows // (seconds * FPS),
        rows,
        rows / FPS,
        FPS,
        np.ones(20, bool),
        [([], None)] * 3,
        "game",
        "",
    )


def test_rows_without_the_overlay_do_not_count():
    """Shown from the last third of a segment on, and busy half of that: kept, as far as it was
    shown.
    """
    buttons, known = np.zeros((T, 16), np.uint8), np.arange(T) >= 20
    buttons[25:30], known[60:] = 1, False
    keep, stays = filter.kept_rows(labels(buttons, np.zeros((T, 4), np.float32), known), 0.5)
    # the third: nobody knows
    assert np.flatnonzero(keep).tolist() == list(range(20, 30)) and stays.tolist() == [True, False]


def test_idle_segments_go_and_chunks_stay_whole():
    buttons, sticks = np.zeros((T, 16), np.uint8), np.zeros((T, 4), np.float32)
    buttons[0:15, 4] = 1  # first second: exactly half is active, kept
    sticks[30:44, 0] = 0.5  # second: 14 of 30, dropped
    sticks[60:90, 1] = -0.3  # third: kept
    sticks[:, 2] = 0.05  # within the dead zone
    keep, stays = filter.kept_rows(labels(buttons, sticks, np.ones(T, bool)), 0.5)
    assert keep.tolist() == [True] * 30 + [False] * 30 + [True] * 30 and stays.tolist() == [
        True,
        False,
        True,
    ]
    starts = filter.chunk_starts(keep, FPS, config())  # row i needs rows i .. i + 4
    assert starts.tolist() == [*range(0, 26), *range(60, 86)]
    # stride 2: i .. i + 7
    assert filter.chunk_starts(keep, 60, config()).tolist() == [
        *range(0, 22 + 1),
        *range(60, 82 + 1),
    ]
    with pytest.raises(SystemExit, match="whole multiple"):
        filter.chunk_starts(keep, 45, config())


@pytest.fixture
def clip(tmp_path):
    """A white 3-second video with its labels: an overlay box at (100, 60), right stick pushed,
    SOUTH in turns.
    """
    with VideoWriter(tmp_path / "clip-000.mp4", FPS, 320, 200) as out:
        for _ in range(T):
            out.write(np.full((200, 320, 3), 250, np.uint8))
    buttons, sticks = np.zeros((T, 16), np.float16), np.zeros((T, 4), np.float32)
    buttons[np.arange(T) % 4 < 2, 4] = 0.9
    sticks[:, 2] = np.where(np.arange(T) % 3, 5, 0)
    shown = np.ones(20, bool)
    shown[15] = False
    artefact.write(
        tmp_path / "clip-000.actions.safetensors",
        {
            "buttons": buttons,
            "sticks": sticks,
            "shown": shown,
            "confidence": np.ones(T, np.float16),
            "time": np.arange(T) / FPS,
        },
        "nitrogen.actions/1",
        unit="grid",
    )
    artefact.write(
        tmp_path / "clip-000.overlay.safetensors",
        {
            "affine": np.eye(2, 3, dtype=np.float32)[None],
            "corners": np.zeros((1, 4, 2), np.float32),
            "span": np.array([[0, T - 1]]),
            "bbox": np.array([[100, 60, 100, 60]], np.int32),
            "median": np.zeros((1, 6, 10, 3), np.uint8),
            "atlas": np.zeros((6, 10, 4), np.uint8),
        },
        "nitrogen.overlay/1",
        found=True,
    )
    return tmp_path


def shard(folder, out="shards", **changes):
    c = config(
        videos=(str(folder / "clip-000.mp4"),), labels=str(folder), out=str(folder / out), **changes
    )
    filter.run(c)
    return folder / out / "clip-000-000.safetensors"


def test_what_cannot_be_trusted_is_masked_or_left_out(clip, capsys):
    """An element whose reading does not agree with the frames, and one that is held without a clear
    sign, are not learned from; nor is a video of these.
    """
    path = clip / "clip-000.actions.safetensors"
    tensors, _ = artefact.read(path)
    tensors["shown"][:], tensors["sticks"][::3, 0] = True, 5
    tensors["buttons"][:, 5] = 1  # EAST, all the time
    good = {b: 0.75 for b in artefact.BUTTONS} | {"LEFT": 0.9, "RIGHT": 0.2}
    artefact.write(path, tensors, "nitrogen.actions/1", unit="grid", agreement=good)
    data, _ = artefact.read(shard(clip))
    assert data["mask"][0].tolist() == [i not in (5, 18, 19) for i in range(20)]
    assert (
        not data["buttons"][:, 5].any()
        and not data["sticks"][:, 2:].any()
        and data["sticks"][:, :2].any()
    )
    assert "not trusted and masked: EAST RIGHT" in capsys.readouterr().out
    artefact.write(
        path,
        tensors,
        "nitrogen.actions/1",
        unit="grid",
        template="theirs",
        agreement={b: 0.6 for b in good},
    )
    assert shard(clip, "all", min_agreement=0.5).exists()
    with pytest.raises(
        SystemExit, match="left out, .* agrees with the frames by 0.60 only .* is theirs its skin"
    ):
        shard(clip, "none")


def test_rows_without_the_overlay_are_left_out_and_every_place_is_painted(clip):
    """An overlay that comes late and then moves: nobody knows what was pressed before, and the
    policy must not see either box.
    """
    path = clip / "clip-000.actions.safetensors"
    tensors, info = artefact.read(path)
    tensors["confidence"][:30] = 0
    tensors["sticks"][:30, 2] = -90  # would spoil the percentile
    artefact.write(path, tensors, "nitrogen.actions/1", unit="grid")
    overlay, _ = artefact.read(clip / "clip-000.overlay.safetensors")
    twice = {k: np.concatenate([v, v]) for k, v in overlay.items() if k != "atlas"} | {
        "atlas": overlay["atlas"]
    }
    twice["bbox"][1], twice["span"] = (10, 150, 40, 30), np.array([[30, 59], [60, T - 1]])
    artefact.write(clip / "clip-000.overlay.safetensors", twice, "nitrogen.overlay/1", found=True)
    data, about = artefact.read(shard(clip))
    assert data["frame"].tolist() == list(range(30, T)) and np.abs(data["sticks"][:, 2]).max() == 1
    image = filter.decode(filter.Shards(clip / "shards", "train", 4, 30, 1)[0][0], 256)
    for x, y, w, h in twice["bbox"]:
        part = image[
            (y + 3) * 256 // 200 : (y + h - 3) * 256 // 200,
            (x + 3) * 256 // 320 : (x + w - 3) * 256 // 320,
        ]
        assert np.abs(part.astype(int) - 127).max() < 8


def test_shards_end_to_end(clip, capsys):
    path = shard(clip)
    assert "kept 90 (100 %), 86 chunks" in capsys.readouterr().out
    data = filter.Shards(path.parent, "train", 4, 30, 1)
    assert (
        len(data) == 86
        and data.games == {"clip": 86}
        and len(filter.Shards(path.parent, "validation", 4, 30, 1)) == 0
    )
    jpeg, buttons, sticks, mask, game = data[10]
    image = filter.decode(jpeg, 256)
    assert image.shape == (256, 256, 3)
    # painted out
    assert np.abs(image[60 * 256 // 200 + 3 : 118 * 256 // 200, 82:158].astype(int) - 127).max() < 6
    # and nothing else
    assert image[:60].min() > 230 and image[170:].min() > 230 and image[:, :60].min() > 230
    # rows 11, 12, 13, 14
    assert buttons[:, 4].tolist() == [0, 1, 1, 0] and buttons[:, 5].max() == 0
    assert np.allclose(sticks[:, 2], [1, 0, 1, 1], atol=0.01) and not mask[15] and mask.sum() == 19
    assert filter.decode(jpeg, 128).shape == (128, 128, 3)


def test_same_input_same_bytes_and_second_run_skips(clip):
    a, b = shard(clip), shard(clip, "again")
    assert (
        a.read_bytes() == b.read_bytes().replace(b"again", b"shards")
        or artefact.read(a)[0].keys() == artefact.read(b)[0].keys()
    )
    for name, value in artefact.read(a)[0].items():
        assert np.array_equal(value, artefact.read(b)[0][name]), name
    before = a.stat().st_mtime_ns
    shard(clip)
    assert a.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="made with another quality"):
        shard(clip, quality=50)
    assert a.stat().st_mtime_ns == before
    a.write_bytes(a.read_bytes()[:2000])  # a broken output is made anew
    assert len(filter.Shards(shard(clip).parent, "train", 4, 30, 1)) == 86


def test_bounded_shards(clip):
    folder = shard(clip, rows_per_shard=40).parent
    assert [len(artefact.read(p)[0]["frame"]) for p in sorted(folder.glob("*.safetensors"))] == [
        30,
        30,
        30,
    ]
    assert len(filter.Shards(folder, "train", 4, 30, 1)) == 3 * 26


def test_bad_input(clip):
    with pytest.raises(SystemExit, match="clip-000.mp4: no such video"):
        (clip / "clip-000.mp4").rename(clip / "moved.mp4") and shard(clip)
    (clip / "moved.mp4").rename(clip / "clip-000.mp4")
    with pytest.raises(SystemExit, match="cut for chunks of 4 actions at 30/s, the model wants 16"):
        filter.Shards(shard(clip).parent, "train", 16, 30, 1)
    with pytest.raises(SystemExit, match="no shards there"):
        filter.Shards(clip / "nowhere", "train", 16, 30, 1)
    actions = clip / "clip-000.actions.safetensors"
    whole = actions.read_bytes()
    for broken, line in (
        (whole[:300], "not a readable safetensors"),
        ((clip / "clip-000.overlay.safetensors").read_bytes(), "expected a nitrogen.actions/1"),
        (b"", "not a readable safetensors"),
    ):
        actions.write_bytes(broken)
        with pytest.raises(SystemExit, match=line):
            shard(clip, "other")
    actions.unlink()
    with pytest.raises(SystemExit, match="make it: python parse.py"):
        shard(clip, "other")
    assert not (clip / "other").exists()


def test_video_without_overlay(clip):
    artefact.write(
        clip / "clip-000.overlay.safetensors", {}, "nitrogen.overlay/1", found=False, reason="none"
    )
    with pytest.raises(SystemExit, match="no overlay was found"):
        shard(clip)
    tensors, _ = artefact.read(clip / "clip-000.actions.safetensors")
    (clip / "clip-000.actions.safetensors").unlink()
    artefact.write(
        clip / "clip-000.truth.safetensors",
        tensors | {"sticks": tensors["sticks"] / 5},
        "nitrogen.actions/1",
        unit="normalized",
    )
    # what a recorder wrote needs no overlay
    assert artefact.read(shard(clip))[1]["counts"]["kept"] == 90


# ---- looking at it, and what is in a folder


def test_manifest_follows_what_is_there(clip, capsys):
    folder = shard(clip, rows_per_shard=40).parent
    first = json.loads((folder / "manifest.json").read_bytes())["videos"]["clip-000"]
    assert first == {
        "game": "clip",
        "split": "train",
        "fps": 30.0,
        "rows": 90,
        "known": 90,
        "kept": 90,
        "segments": [3, 3],
        "shards": 3,
        "chunks": 78,
        "lag": None,
        "files": {p.name: p.stat().st_size for p in folder.glob("*.safetensors")},
    }
    shard(clip, fresh=True)  # one shard now: the others are no longer anyone's
    assert [p.name for p in folder.glob("*.safetensors")] == ["clip-000-000.safetensors"]
    assert list(
        json.loads((folder / "manifest.json").read_bytes())["videos"]["clip-000"]["files"]
    ) == ["clip-000-000.safetensors"]
    capsys.readouterr()
    filter.main(["--inspect", str(folder)])
    said = capsys.readouterr()
    assert "1 videos, 90 rows: kept 90 (100 %), 86 chunks" in said.out and not said.err
    (folder / "clip-000-000.safetensors").rename(folder / "clip-001-000.safetensors")
    filter.inspect(folder)
    assert (
        "not as listed: clip-000-000.safetensors, clip-001-000.safetensors"
        in capsys.readouterr().err
    )
    (folder / "manifest.json").write_text("{")
    with pytest.raises(SystemExit, match="not a manifest"):
        filter.inspect(folder)


def test_a_shard_can_be_looked_at(clip, capsys):
    import cv2

    path = clip / "clip-000.actions.safetensors"
    tensors, _ = artefact.read(path)
    tensors["buttons"][30:60] = tensors["sticks"][30:60] = 0  # the second of three segments is idle
    artefact.write(path, tensors, "nitrogen.actions/1", unit="grid")
    filter.main(["--inspect", str(shard(clip))])
    assert "nitrogen.shard/1" in capsys.readouterr().out
    picture = cv2.imread(str(clip / "shards/clip-000-000.png"))[..., ::-1]
    # the lowest lane, in each third
    colours = [picture[-8, 100 + x].tolist() for x in (200, 590, 980)]
    # kept green, dropped red
    assert [max(range(3), key=c.__getitem__) for c in colours] == [1, 0, 1]
    frame = picture[:160, :160].astype(int)
    # the painted box, the white game
    assert np.abs(frame[50:94, 52:98] - 127).max() < 8 and frame[:40].min() > 230
    south = picture[160 + 13 * 4 + 7, 100:]  # SOUTH: pressed half of the time while kept
    assert 0.3 < (south[:390, 1] > 200).mean() < 0.7 and (south[400:780, 1] < 100).all()


def test_same_bytes_from_the_same_command(clip):
    a = shard(clip).read_bytes()
    assert a == shard(clip, fresh=True).read_bytes()


def test_part_of_the_frame(clip):
    """--area: what lies outside is cut away, after the overlay was painted out."""
    data = filter.Shards(shard(clip, area="60,60,80,60").parent, "train", 4, 30, 1)
    image = filter.decode(data[0][0], 256).astype(int)
    # the box begins at x = 100 - 8: 32 of 80 px in
    assert image[:, :90].min() > 230 and np.abs(image[:, 160:] - 127).max() < 8
    for area in ("300,0,40,40", "a", "0,0,0,9"):
        with pytest.raises(
            SystemExit, match=f"--area {area}: should be x,y,w,h in px within the video's 320 x 200"
        ):
            shard(clip, "other", area=area)


def test_a_recorders_true_actions_need_no_overlay(clip):
    """record, filter: no parse.py, no overlay file; what a demonstration had drawn in is painted
    out.
    """
    tensors, _ = artefact.read(clip / "clip-000.actions.safetensors")
    tensors["sticks"] = tensors["sticks"] / 5 * 0.5
    for f in clip.glob("clip-000.*.safetensors"):
        f.unlink()
    for box in ({}, {"box": [100, 60, 100, 60]}):
        artefact.write(
            clip / "clip-000.truth.safetensors",
            tensors,
            "nitrogen.actions/1",
            unit="normalized",
            game="g",
            **box,
        )
        c = config(
            videos=(str(clip / "clip-000.mp4"),),
            labels=str(clip / "nowhere"),
            out=str(clip / "true"),
            fresh=True,
        )
        filter.run(c)
        jpeg, buttons, sticks, mask, game = filter.Shards(clip / "true", "train", 4, 30, 1)[10]
        assert (
            game == "g"
            and np.allclose(sticks[:, 2], [0.5, 0, 0.5, 0.5])
            and buttons[:, 4].tolist() == [0, 1, 1, 0]
        )
        inside = filter.decode(jpeg, 256)[100:140, 90:150].astype(int)
        assert np.abs(inside - 127).max() < 8 if box else inside.min() > 230


def test_frames_that_come_unevenly_by_hand():
    """Frames at 0, 1, 2, 5, 6, 6.5 thirtieths: rows every thirtieth show the last frame that had
    come, none the one in between.
    """
    times = np.array([0, 1, 2, 5, 6, 6.5]) / 30
    assert (
        filter.uneven(times)
        and not filter.uneven(np.round(np.arange(90) / 30, 3))
        and not filter.uneven(np.zeros(9))
    )
    frame, even, fps = filter.evened(times, 30)
    assert (
        fps == 30
        and frame.tolist() == [0, 1, 2, 2, 2, 3, 4]
        and np.allclose(even, np.arange(7) / 30)
    )
    assert filter.evened(times / 2, 30)[2] == 60  # two rows an action


@pytest.mark.parametrize("gone", ["frames are dropped", "the rate changes"])
def test_chunks_of_an_uneven_video_are_cut_by_time(clip, capsys, gone):
    """A button goes down and up five times in two seconds: so it does in the shard, though many
    frames never came.
    """
    path, rng = clip / "clip-000.actions.safetensors", np.random.default_rng(0)
    tensors, _ = artefact.read(path)
    came = (
        np.flatnonzero(rng.random(4 * T) > 0.2)
        if gone == "frames are dropped"
        else np.r_[np.arange(60), np.arange(60, 4 * T, 3)]
    )
    time = came[:T] / 30
    buttons = np.zeros((T, 16), np.float16)
    buttons[:, 4] = down = time * 2.5 % 1 < 0.5
    artefact.write(
        path, {**tensors, "buttons": buttons, "time": time}, "nitrogen.actions/1", unit="grid"
    )
    part = filter.Part(shard(clip))
    assert "frames that come unevenly laid out at 30/s" in capsys.readouterr().out
    truth = part["time"] * 2.5 % 1 < 0.5
    assert (
        np.allclose(np.diff(part["time"]), 1 / 30)
        and part.about["fps"] == 30
        and len(part["time"]) == round((time[-1] - time[0]) * 30) + 1
    )
    last_come = np.searchsorted(time, part["time"] + 0.25 / 30, side="right") - 1
    assert (
        (part["frame"] == last_come).all()
        and (part["buttons"][:, 4] == down[part["frame"]]).all()
        and (part["buttons"][:, 4] == truth).mean() > 0.85
    )
    stored = np.diff(part["offset"]) > 0
    assert stored.sum() == len(set(part["frame"].tolist())) and stored[part["start"]].all()


def test_two_videos_of_one_name(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").touch()
    with pytest.raises(SystemExit, match=r"a/clip.mp4 and .*b/clip.mp4: one name"):
        filter.main([str(tmp_path / "a"), str(tmp_path / "b")])
    one = str(tmp_path / "a/clip.mp4")
    # the same file twice is no harm
    assert expand([one, f"{tmp_path}/b/../a/clip.mp4"]) == (one, f"{tmp_path}/b/../a/clip.mp4")


def test_shards_travel_to_another_process(clip):
    import pickle

    data = filter.Shards(shard(clip).parent, "train", 4, 30, 1)
    sent = pickle.dumps(data)
    assert (
        len(sent) < 500
        and bytes(pickle.loads(sent)[5][0]) == bytes(data[5][0])
        and isinstance(data.parts[0]["jpeg"], np.memmap)
    )


# ---- when the picture answers


def play(seconds, delay, seed=0, answers=True):
    """Actions [T, 20] and motion [T, 3] of a game whose camera follows the left stick, and that
    flashes on SOUTH; labels `delay` frames late.
    """
    rng, n = np.random.default_rng(seed), seconds * FPS
    actions = np.zeros((n, 20), np.float32)
    for t in range(0, n, 12):
        actions[t : t + rng.integers(4, 20), [4, 16, 17]] = (
            rng.random() < 0.3,
            *(rng.choice([-1, 0, 1], 2) * rng.uniform(0.4, 1, 2)),
        )
    seen = actions if answers else np.roll(actions, n // 2, axis=0)
    motion = np.stack([-3 * seen[:, 16], -2 * seen[:, 17], 4 * seen[:, 4]], 1) + rng.normal(
        0, 1.5, (n, 3)
    )
    return np.roll(actions, delay, axis=0), motion.astype(np.float32)


@pytest.mark.parametrize("delay", [-4, 0, 3, 9])
def test_an_overlays_delay_is_found(delay):
    found = lag.picture_lag(*play(40, delay), FPS)
    assert (
        found["frames"] == -delay
        and found["seconds"] == round(-delay / FPS, 3)
        and found["confidence"] > 8
    )


def test_no_lag_is_made_up():
    """Another half of the video, nothing pressed, a still picture, too short a video: null."""
    assert [lag.picture_lag(*play(40, 0, seed, answers=False), FPS) for seed in range(8)].count(
        None
    ) >= 7
    actions, motion = play(40, 0)
    for a, m in (
        (actions * 0, motion),
        (actions, motion * 0),
        (actions[:300], motion[:300]),
        (actions[:0], motion[:0]),
    ):
        assert lag.picture_lag(a, m, FPS) is None


def test_delayed_labels_of_a_real_video(tmp_path):
    """A camera over a picture, moved by the stick, through the whole stage: labels three and eight
    frames late differ by five.
    """
    import cv2

    rng = np.random.default_rng(0)
    actions, _ = play(24, 0)
    ground = cv2.resize(
        rng.integers(0, 255, (80, 80, 3), np.uint8), (1600, 1600), interpolation=cv2.INTER_CUBIC
    )
    at = np.cumsum(-4 * actions[:, 16:18], axis=0).astype(int)
    with VideoWriter(tmp_path / "g-0.mp4", FPS, 320, 200) as out:
        for x, y in at - at.min(axis=0):
            out.write(ground[y % 1400 : y % 1400 + 200, x % 1200 : x % 1200 + 320])
    lags = []
    for delay in (3, 8):
        late = np.roll(actions, delay, axis=0)
        artefact.write(
            tmp_path / "g-0.actions.safetensors",
            {
                "buttons": late[:, :16].astype(np.float16),
                "sticks": late[:, 16:],
                "shown": np.ones(20, bool),
                "confidence": np.ones(len(late), np.float16),
                "time": np.arange(len(late)) / FPS,
            },
            "nitrogen.actions/1",
            unit="normalized",
        )
        filter.run(
            config(
                videos=(str(tmp_path / "g-0.mp4"),),
                labels=str(tmp_path),
                out=str(tmp_path / f"late{delay}"),
                min_active=0.0,
            )
        )
        lags.append(
            json.loads((tmp_path / f"late{delay}/manifest.json").read_bytes())["videos"]["g-0"][
                "lag"
            ]["frames"]
        )
    assert lags[0] - lags[1] == 5 and abs(lags[0] + 3) <= 1


# ---- the released dataset: a fixture in its form

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
        rate=60.0,
        **changes,
    )
    filter.run(c)
    return filter.Shards(folder / "shards", "train", 4, 60, 1)


def check_item(i, jpeg, buttons, sticks, mask, game):
    """Chunk i of vidA: rows 2 i + 1 to 2 i + 4, and the picture of row 2 i."""
    image = filter.decode(jpeg, 256).astype(int)
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
    facts = {"frames": 600, "fps": 60.0, "width": 100, "height": 50}
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
    assert np.flatnonzero(out.known).tolist() == [*range(240), *range(540, 570)]
    assert out.frame[:240].tolist() == [*range(120), *range(119, 239)] and np.unique(
        out.segment[out.known]
    ).tolist() == [0, 1, 4]
    assert "3 chunks outside" in out.about and out.views[1] == ([(48, 23, 62, 32)], (0, 0, 100, 50))


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
    image = filter.decode(importing(released)[0][0], 256).astype(int)
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
        and len(filter.Shards(released / "shards", "train", 18, 60, 3)) == 50
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
    dataset.parquet_reader().submit(os.abort)
    with pytest.raises(ValueError, match="ended the process that read it"):
        dataset.read_parquet(whole)
    assert len(dataset.read_parquet(whole)["south"]) == 120
