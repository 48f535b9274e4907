"""filter.py: sticks, idle segments and chunks by hand; shards end to end from a small video; bad
input.
"""

import json
from pathlib import Path

from common import artefact, recording
from common.inputs import expand
from common.pictures import VideoWriter
from common.shards import Part, Shards, decode

import numpy as np
import pytest
from safetensors.numpy import save_file

import filter
from shards import FPS, T, config
from templates import synthetic


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


def test_a_persons_turn_ends_with_the_last_touch():
    """Two turns: rows 10 to 29, the last five untouched; and from 60 on, to the end."""
    person, busy = np.zeros(T, bool), np.zeros(T, bool)
    person[10:30] = person[60:] = True
    busy[:12] = busy[14:25] = busy[61:80] = True
    mine = recording.rows_of("person", person, busy)
    assert np.flatnonzero(mine).tolist() == [*range(10, 25), *range(60, 80)]
    assert (recording.rows_of("policy", person, busy) == ~person).all()
    assert recording.rows_of("all", person, busy).all()
    assert not recording.rows_of("person", person & False, busy).any()
    # half a second at 30 rows a second, and what there is of it
    led = recording.with_lead(mine, np.arange(T) / FPS)
    assert np.flatnonzero(led).tolist() == [*range(0, 25), *range(45, 80)]
    assert not recording.with_lead(person & False, np.arange(T) / FPS).any()


def test_no_chunk_reaches_into_an_idle_segment(clip):
    """A person has all three seconds, and uses the last: of the half second before, pictures are
    kept and no action is learned.
    """
    turns(clip, np.ones(T, bool))
    path = clip / "clip-000.actions.safetensors"
    tensors, info = artefact.read(path)
    tensors["buttons"][:, 4] = np.arange(T) >= 60
    artefact.write(path, tensors, info["format"], unit="normalized", game="g")
    part = Part(shard(clip))
    assert part["frame"].tolist() == list(range(45, 90))
    assert part["frame"][part["start"]].tolist() == list(range(59, 86))


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_no_action_of_the_policy_is_in_a_persons_chunk(shift):
    """Frames kept from 15 on, actions known from 30 to 59: a chunk of four begins where its first
    action is row 30, and its last one row 59.
    """
    keep, known = np.zeros(T, bool), np.zeros(T, bool)
    keep[15:60] = known[30:60] = True
    starts = filter.chunk_starts(keep, FPS, config(shift=shift), known)
    assert starts.tolist() == list(range(30 - shift, 57 - shift))
    # two rows an action: 30, 32, 34, 36
    starts = filter.chunk_starts(keep, 60, config(shift=shift), known)
    assert starts.tolist() == list(range(30 - shift, 54 - shift))


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
    image = decode(Shards(clip / "shards", "train", 4, 30, 1)[0][0], 256)
    for x, y, w, h in twice["bbox"]:
        part = image[
            (y + 3) * 256 // 200 : (y + h - 3) * 256 // 200,
            (x + 3) * 256 // 320 : (x + w - 3) * 256 // 320,
        ]
        assert np.abs(part.astype(int) - 127).max() < 8


def test_shards_end_to_end(clip, capsys):
    path = shard(clip)
    assert "kept 90 (100 %), 86 chunks" in capsys.readouterr().out
    data = Shards(path.parent, "train", 4, 30, 1)
    assert (
        len(data) == 86
        and data.games == {"clip": 86}
        and len(Shards(path.parent, "validation", 4, 30, 1)) == 0
    )
    jpeg, buttons, sticks, mask, game = data[10]
    image = decode(jpeg, 256)
    assert image.shape == (256, 256, 3)
    # painted out
    assert np.abs(image[60 * 256 // 200 + 3 : 118 * 256 // 200, 82:158].astype(int) - 127).max() < 6
    # and nothing else
    assert image[:60].min() > 230 and image[170:].min() > 230 and image[:, :60].min() > 230
    # rows 11, 12, 13, 14
    assert buttons[:, 4].tolist() == [0, 1, 1, 0] and buttons[:, 5].max() == 0
    assert np.allclose(sticks[:, 2], [1, 0, 1, 1], atol=0.01) and not mask[15] and mask.sum() == 19
    assert decode(jpeg, 128).shape == (128, 128, 3)


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
    assert len(Shards(shard(clip).parent, "train", 4, 30, 1)) == 86


def test_bounded_shards(clip):
    folder = shard(clip, rows_per_shard=40).parent
    assert [len(artefact.read(p)[0]["frame"]) for p in sorted(folder.glob("*.safetensors"))] == [
        30,
        30,
        30,
    ]
    assert len(Shards(folder, "train", 4, 30, 1)) == 3 * 26


def test_bad_input(clip):
    with pytest.raises(SystemExit, match="clip-000.mp4: no such video"):
        (clip / "clip-000.mp4").rename(clip / "moved.mp4") and shard(clip)
    (clip / "moved.mp4").rename(clip / "clip-000.mp4")
    with pytest.raises(SystemExit, match="cut for chunks of 4 actions at 30/s, the model wants 16"):
        Shards(shard(clip).parent, "train", 16, 30, 1)
    with pytest.raises(SystemExit, match="no shards there"):
        Shards(clip / "nowhere", "train", 16, 30, 1)
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
    data = Shards(shard(clip, area="60,60,80,60").parent, "train", 4, 30, 1)
    image = decode(data[0][0], 256).astype(int)
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
        jpeg, buttons, sticks, mask, game = Shards(clip / "true", "train", 4, 30, 1)[10]
        assert (
            game == "g"
            and np.allclose(sticks[:, 2], [0.5, 0, 0.5, 0.5])
            and buttons[:, 4].tolist() == [0, 1, 1, 0]
        )
        inside = decode(jpeg, 256)[100:140, 90:150].astype(int)
        assert np.abs(inside - 127).max() < 8 if box else inside.min() > 230


def turns(clip, person):
    """The clip as `eval.py play --record` leaves it: SOUTH in turns, and who was at the pad."""
    tensors, _ = artefact.read(clip / "clip-000.actions.safetensors")
    tensors |= {"sticks": tensors["sticks"] * 0} | ({} if person is None else {"person": person})
    for f in clip.glob("clip-000.*.safetensors"):
        f.unlink()
    path = clip / "clip-000.actions.safetensors"
    artefact.write(path, tensors, "nitrogen.actions/1", unit="normalized", game="g")


def test_a_persons_corrections_are_taken_alone(clip, capsys):
    """Three seconds of which the person has the middle one, rows 30 to 59; SOUTH is down in rows
    32 and 33 of four, and for the last time in 57.
    """
    turns(clip, np.arange(T) // 30 == 1)
    less = {"min_active": 0.4}  # the middle second is busy in 14 rows of 30
    part = Part(shard(clip, "a", **less))
    # from half a second before; the last two rows are untouched
    assert part["frame"].tolist() == list(range(15, 58))
    assert part["frame"][part["start"]].tolist() == list(range(29, 54))
    assert "--who person; kept 43 of 90 rows" in capsys.readouterr().out
    data = Shards(clip / "a", "train", 4, 30, 1)
    _, buttons, _, _, _ = data[0]  # the policy's last frame: the person's first four actions
    assert buttons[:, 4].tolist() == [0, 0, 1, 1]
    part = Part(shard(clip, "b", who="policy", **less))
    assert part["frame"][part["start"]].tolist() == [*range(26), *range(60, 86)]
    assert Part(shard(clip, "c", who="all", **less))["start"].tolist() == list(range(86))
    with pytest.raises(SystemExit, match="^--who me: expected person or policy or all$"):
        shard(clip, "d", who="me")
    with pytest.raises(SystemExit, match=r"made with another who \('person', now 'all'\)"):
        shard(clip, "a", who="all", **less)


def test_every_session_gets_a_name_of_its_own(tmp_path):
    for game in ("tux", "tux-0.6"):  # the second has what looks like a suffix
        for n, end in enumerate((".mp4", ".actions.safetensors", ".mp4")):
            name = recording.free_name(tmp_path, game)
            assert name == f"{tmp_path}/{game}-{n:03d}.mp4"
            Path(name.removesuffix(".mp4") + end).touch()


def test_a_session_in_which_the_person_never_had_the_pad(clip, capsys):
    turns(clip, np.zeros(T, bool))
    assert len(Part(shard(clip))["frame"]) == 0
    assert "kept 0 of 90 rows" in capsys.readouterr().out


def test_a_recording_that_does_not_say_who_is_taken_whole(clip):
    """And --who decides nothing of it, so that its older shards stay valid."""
    turns(clip, None)
    path = shard(clip, min_active=0.4)
    assert Part(path)["start"].tolist() == list(range(86))
    assert "who" not in Part(path).info["recipe"]
    made = path.stat().st_mtime_ns
    assert shard(clip, min_active=0.4, who="all").stat().st_mtime_ns == made
    with pytest.raises(SystemExit, match="does not say which rows are a policy's; drop --who"):
        shard(clip, min_active=0.4, who="policy")


def test_who_was_at_the_pad_must_be_said_of_every_row(clip):
    turns(clip, np.zeros(T, bool))
    path = clip / "clip-000.actions.safetensors"
    tensors, info = artefact.read(path)
    assert "T: a person was at the pad" in info["tensors"]["person"]
    for wrong, said in (
        (tensors["person"][1:], "'person' has T = 89, expected 90"),
        (tensors["person"].astype(np.uint8), r"'person' should be bool \[T\], found uint8"),
    ):
        save_file({**tensors, "person": wrong}, path, {"json": json.dumps(info)})
        with pytest.raises(SystemExit, match=said):
            shard(clip, fresh=True)


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
    part = Part(shard(clip))
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

    data = Shards(shard(clip).parent, "train", 4, 30, 1)
    sent = pickle.dumps(data)
    assert (
        len(sent) < 500
        and bytes(pickle.loads(sent)[5][0]) == bytes(data[5][0])
        and isinstance(data.parts[0]["jpeg"], np.memmap)
    )
