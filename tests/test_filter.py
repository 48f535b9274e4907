"""filter.py: sticks, idle segments and chunks by hand; shards end to end from a small video; bad input."""

import json

import numpy as np
import pytest

import filter
import sim

FPS, T = 30, 90


def test_neutral_point_and_scale_by_hand():
    """Rest at (0.3, -0.2), full deflection 4 cells: after refinement rest is 0, and 4 cells are 1 by either scale."""
    rng = np.random.default_rng(0)
    sticks = np.zeros((1000, 4), np.float32)
    sticks[:, 0], sticks[:, 1] = 0.3, -0.2
    moved = rng.random(1000) < 0.4
    angle = rng.uniform(0, 2 * np.pi, 1000)
    sticks[moved, 0] += 4 * np.cos(angle[moved])
    sticks[moved, 1] += 4 * np.sin(angle[moved])
    for scale, radius in (("radius", 4.0), ("percentile", 5.0)):
        out = filter.normalize(sticks, scale, radius=radius)
        assert np.abs(out[~moved, :2]).max() < 1e-6
        assert np.abs(out[moved, 0] - np.cos(angle[moved])).max() < 0.01
        assert (out[:, 2:] == 0).all()


def test_a_stick_held_half_way_is_neither_rest_nor_full_deflection():
    """60 % of the time at 1.2 cells of 4: rest stays rest, and only the percentile takes 1.2 cells for the end."""
    sticks = np.zeros((1000, 4), np.float32)
    sticks[:600, 0], sticks[:, 1] = 1.2, 0.1
    out = filter.normalize(sticks, radius=4.0)
    assert np.allclose(out[:600, 0], 0.3) and np.allclose(out[600:, 0], 0) and np.allclose(out[:, 1], 0, atol=1e-6)
    assert np.allclose(filter.normalize(sticks, "percentile", radius=4.0)[:600, 0], 1)


def test_an_axis_that_never_moves_is_not_blown_up():
    noise = np.random.default_rng(0).normal(0, 0.1, (500, 4)).astype(np.float32)
    for scale in ("radius", "percentile"):
        assert np.abs(filter.normalize(noise, scale)).max() < 0.15          # 5 cells are full deflection, not 0.1


def test_single_frames_are_not_presses():
    pressed = np.zeros((12, 16), bool)
    pressed[2, 0] = pressed[5:7, 0] = pressed[8:12, 0] = pressed[:3, 1] = pressed[4:6, 1] = True
    out = filter.steady(pressed)
    assert np.flatnonzero(out[:, 0]).tolist() == list(range(5, 12))           # the blip at 2 goes, the gap at 7 closes; edges stay
    assert np.flatnonzero(out[:, 1]).tolist() == [0, 1, 2, 3, 4, 5]             # the gap at 3 closes
    assert filter.steady(pressed[:1]).shape == (1, 16)


def config(**changes):
    return filter.Config(**{"segment_seconds": 1.0, "horizon": 4, "validation": 0.0, **changes})


def labels(buttons, sticks, known, seconds=1):
    rows = np.arange(len(buttons))
    return filter.Labels(buttons, sticks, known, rows // (seconds * FPS), rows, rows / FPS, FPS, np.ones(20, bool), [([], None)] * 3, "game", "")


def test_rows_without_the_overlay_do_not_count():
    """Shown from the last third of a segment on, and busy half of that: kept, as far as it was shown."""
    buttons, known = np.zeros((T, 16), np.uint8), np.arange(T) >= 20
    buttons[25:30], known[60:] = 1, False
    keep, stays = filter.kept_rows(labels(buttons, np.zeros((T, 4), np.float32), known), 0.5)
    assert np.flatnonzero(keep).tolist() == list(range(20, 30)) and stays.tolist() == [True, False]        # the third: nobody knows


def test_idle_segments_go_and_chunks_stay_whole():
    buttons, sticks = np.zeros((T, 16), np.uint8), np.zeros((T, 4), np.float32)
    buttons[0:15, 4] = 1                      # first second: exactly half is active, kept
    sticks[30:44, 0] = 0.5                    # second: 14 of 30, dropped
    sticks[60:90, 1] = -0.3                   # third: kept
    sticks[:, 2] = 0.05                       # within the dead zone
    keep, stays = filter.kept_rows(labels(buttons, sticks, np.ones(T, bool)), 0.5)
    assert keep.tolist() == [True] * 30 + [False] * 30 + [True] * 30 and stays.tolist() == [True, False, True]
    starts = filter.chunk_starts(keep, FPS, config())           # row i needs rows i .. i + 4
    assert starts.tolist() == [*range(0, 26), *range(60, 86)]
    assert filter.chunk_starts(keep, 60, config()).tolist() == [*range(0, 22 + 1), *range(60, 82 + 1)]      # stride 2: i .. i + 7
    with pytest.raises(SystemExit, match="whole multiple"):
        filter.chunk_starts(keep, 45, config())


@pytest.fixture
def clip(tmp_path):
    """A white 3-second video with its labels: an overlay box at (100, 60), right stick pushed, SOUTH in turns."""
    with sim.VideoWriter(tmp_path / "clip-000.mp4", FPS, 320, 200) as out:
        for i in range(T):
            out.write(np.full((200, 320, 3), 250, np.uint8))
    buttons, sticks = np.zeros((T, 16), np.float16), np.zeros((T, 4), np.float32)
    buttons[np.arange(T) % 4 < 2, 4] = 0.9
    sticks[:, 2] = np.where(np.arange(T) % 3, 5, 0)
    shown = np.ones(20, bool)
    shown[15] = False
    sim.write(tmp_path / "clip-000.actions.safetensors",
              {"buttons": buttons, "sticks": sticks, "shown": shown, "confidence": np.ones(T, np.float16), "time": np.arange(T) / FPS},
              "nitrogen.actions/1", unit="grid")
    sim.write(tmp_path / "clip-000.overlay.safetensors",
              {"affine": np.eye(2, 3, dtype=np.float32)[None], "corners": np.zeros((1, 4, 2), np.float32), "span": np.array([[0, T - 1]]),
               "bbox": np.array([[100, 60, 100, 60]], np.int32), "median": np.zeros((1, 6, 10, 3), np.uint8)}, "nitrogen.overlay/1", found=True)
    return tmp_path


def shard(folder, out="shards", **changes):
    c = config(videos=(str(folder / "clip-000.mp4"),), labels=str(folder), out=str(folder / out), **changes)
    filter.run(c)
    return folder / out / "clip-000-000.safetensors"


def test_rows_without_the_overlay_are_left_out_and_every_place_is_painted(clip):
    """An overlay that comes late and then moves: nobody knows what was pressed before, and the policy must not see either box."""
    path = clip / "clip-000.actions.safetensors"
    tensors, info = sim.read(path)
    tensors["confidence"][:30] = 0
    tensors["sticks"][:30, 2] = -90                                 # would spoil the percentile
    sim.write(path, tensors, "nitrogen.actions/1", unit="grid")
    overlay, _ = sim.read(clip / "clip-000.overlay.safetensors")
    twice = {k: np.concatenate([v, v]) for k, v in overlay.items()}
    twice["bbox"][1], twice["span"] = (10, 150, 40, 30), np.array([[30, 59], [60, T - 1]])
    sim.write(clip / "clip-000.overlay.safetensors", twice, "nitrogen.overlay/1", found=True)
    data, about = sim.read(shard(clip))
    assert data["frame"].tolist() == list(range(30, T)) and np.abs(data["sticks"][:, 2]).max() == 1
    image = filter.decode(filter.Shards(clip / "shards", "train", 4, 30, 1)[0][0], 256)
    for x, y, w, h in twice["bbox"]:
        part = image[(y + 3) * 256 // 200:(y + h - 3) * 256 // 200, (x + 3) * 256 // 320:(x + w - 3) * 256 // 320]
        assert np.abs(part.astype(int) - 127).max() < 8


def test_shards_end_to_end(clip, capsys):
    path = shard(clip)
    assert "kept 90 (100 %), 86 chunks" in capsys.readouterr().out
    data = filter.Shards(path.parent, "train", 4, 30, 1)
    assert len(data) == 86 and data.games == {"clip": 86} and len(filter.Shards(path.parent, "validation", 4, 30, 1)) == 0
    jpeg, buttons, sticks, mask, game = data[10]
    image = filter.decode(jpeg, 256)
    assert image.shape == (256, 256, 3)
    assert np.abs(image[60 * 256 // 200 + 3:118 * 256 // 200, 82:158].astype(int) - 127).max() < 6      # painted out
    assert image[:60].min() > 230 and image[170:].min() > 230 and image[:, :60].min() > 230             # and nothing else
    assert buttons[:, 4].tolist() == [0, 1, 1, 0] and buttons[:, 5].max() == 0                          # rows 11, 12, 13, 14
    assert np.allclose(sticks[:, 2], [1, 0, 1, 1], atol=0.01) and not mask[15] and mask.sum() == 19
    assert filter.decode(jpeg, 128).shape == (128, 128, 3)


def test_same_input_same_bytes_and_second_run_skips(clip):
    a, b = shard(clip), shard(clip, "again")
    assert a.read_bytes() == b.read_bytes().replace(b"again", b"shards") or sim.read(a)[0].keys() == sim.read(b)[0].keys()
    for name, value in sim.read(a)[0].items():
        assert np.array_equal(value, sim.read(b)[0][name]), name
    before = a.stat().st_mtime_ns
    shard(clip)
    assert a.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="made with another quality"):
        shard(clip, quality=50)
    assert a.stat().st_mtime_ns == before
    a.write_bytes(a.read_bytes()[:2000])                       # a broken output is made anew
    assert len(filter.Shards(shard(clip).parent, "train", 4, 30, 1)) == 86


def test_bounded_shards(clip):
    folder = shard(clip, rows_per_shard=40).parent
    assert [len(sim.read(p)[0]["frame"]) for p in sorted(folder.glob("*.safetensors"))] == [30, 30, 30]
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
    for broken, line in ((whole[:300], "not a readable safetensors"), ((clip / "clip-000.overlay.safetensors").read_bytes(), "expected a nitrogen.actions/1"),
                         (b"", "not a readable safetensors")):
        actions.write_bytes(broken)
        with pytest.raises(SystemExit, match=line):
            shard(clip, "other")
    actions.unlink()
    with pytest.raises(SystemExit, match="make it: python parse.py"):
        shard(clip, "other")
    assert not (clip / "other").exists()


def test_video_without_overlay(clip):
    sim.write(clip / "clip-000.overlay.safetensors", {}, "nitrogen.overlay/1", found=False, reason="none")
    with pytest.raises(SystemExit, match="no overlay was found"):
        shard(clip)


# ---- looking at it, and what is in a folder

def test_manifest_follows_what_is_there(clip, capsys):
    folder = shard(clip, rows_per_shard=40).parent
    first = json.loads((folder / "manifest.json").read_bytes())["videos"]["clip-000"]
    assert first == {"game": "clip", "split": "train", "fps": 30.0, "rows": 90, "known": 90, "kept": 90, "segments": [3, 3], "shards": 3, "chunks": 78,
                     "lag": None, "files": {p.name: p.stat().st_size for p in folder.glob("*.safetensors")}}
    shard(clip, fresh=True)                                                          # one shard now: the others are no longer anyone's
    assert [p.name for p in folder.glob("*.safetensors")] == ["clip-000-000.safetensors"]
    assert list(json.loads((folder / "manifest.json").read_bytes())["videos"]["clip-000"]["files"]) == ["clip-000-000.safetensors"]
    capsys.readouterr()
    filter.main(["--inspect", str(folder)])
    said = capsys.readouterr()
    assert "1 videos, 90 rows: kept 90 (100 %), 86 chunks" in said.out and not said.err
    (folder / "clip-000-000.safetensors").rename(folder / "clip-001-000.safetensors")
    filter.inspect(folder)
    assert "not as listed: clip-000-000.safetensors, clip-001-000.safetensors" in capsys.readouterr().err
    (folder / "manifest.json").write_text("{")
    with pytest.raises(SystemExit, match="not a manifest"):
        filter.inspect(folder)


def test_a_shard_can_be_looked_at(clip, capsys):
    import cv2
    path = clip / "clip-000.actions.safetensors"
    tensors, _ = sim.read(path)
    tensors["buttons"][30:60] = tensors["sticks"][30:60] = 0                          # the second of three segments is idle
    sim.write(path, tensors, "nitrogen.actions/1", unit="grid")
    filter.main(["--inspect", str(shard(clip))])
    assert "nitrogen.shard/1" in capsys.readouterr().out
    picture = cv2.imread(str(clip / "shards/clip-000-000.png"))[..., ::-1]
    colours = [picture[-8, 100 + x].tolist() for x in (200, 590, 980)]                # the lowest lane, in each third
    assert [max(range(3), key=c.__getitem__) for c in colours] == [1, 0, 1]            # kept green, dropped red
    frame = picture[:160, :160].astype(int)
    assert np.abs(frame[50:94, 52:98] - 127).max() < 8 and frame[:40].min() > 230      # the painted box, the white game
    south = picture[160 + 13 * 4 + 7, 100:]                                          # SOUTH: pressed half of the time while kept
    assert 0.3 < (south[:390, 1] > 200).mean() < 0.7 and (south[400:780, 1] < 100).all()


def test_same_bytes_from_the_same_command(clip):
    a = shard(clip).read_bytes()
    assert a == shard(clip, fresh=True).read_bytes()


def test_part_of_the_frame(clip):
    """--area: what lies outside is cut away, after the overlay was painted out."""
    data = filter.Shards(shard(clip, area="60,60,80,60").parent, "train", 4, 30, 1)
    image = filter.decode(data[0][0], 256).astype(int)
    assert image[:, :90].min() > 230 and np.abs(image[:, 160:] - 127).max() < 8        # the box begins at x = 100 - 8: 32 of 80 px in
    for area in ("300,0,40,40", "a", "0,0,0,9"):
        with pytest.raises(SystemExit, match=f"--area {area}: should be x,y,w,h in px within the video's 320 x 200"):
            shard(clip, "other", area=area)


def test_a_recorders_true_actions_need_no_overlay(clip):
    """record, filter: no parse.py, no overlay file; what a demonstration had drawn in is painted out."""
    tensors, _ = sim.read(clip / "clip-000.actions.safetensors")
    tensors["sticks"] = tensors["sticks"] / 5 * 0.5
    for f in clip.glob("clip-000.*.safetensors"):
        f.unlink()
    for box in ({}, {"box": [100, 60, 100, 60]}):
        sim.write(clip / "clip-000.truth.safetensors", tensors, "nitrogen.actions/1", unit="normalized", game="g", **box)
        c = config(videos=(str(clip / "clip-000.mp4"),), labels=str(clip / "nowhere"), out=str(clip / "true"), fresh=True)
        filter.run(c)
        jpeg, buttons, sticks, mask, game = filter.Shards(clip / "true", "train", 4, 30, 1)[10]
        assert game == "g" and np.allclose(sticks[:, 2], [0.5, 0, 0.5, 0.5]) and buttons[:, 4].tolist() == [0, 1, 1, 0]     # as recorded: no scale is sought
        inside = filter.decode(jpeg, 256)[100:140, 90:150].astype(int)
        assert np.abs(inside - 127).max() < 8 if box else inside.min() > 230


def test_two_videos_of_one_name(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").touch()
    with pytest.raises(SystemExit, match=r"a/clip.mp4 and .*b/clip.mp4: one name"):
        filter.main([str(tmp_path / "a"), str(tmp_path / "b")])
    one = str(tmp_path / "a/clip.mp4")
    assert sim.expand([one, f"{tmp_path}/b/../a/clip.mp4"]) == (one, f"{tmp_path}/b/../a/clip.mp4")      # the same file twice is no harm


def test_shards_travel_to_another_process(clip):
    import pickle
    data = filter.Shards(shard(clip).parent, "train", 4, 30, 1)
    sent = pickle.dumps(data)
    assert len(sent) < 500 and bytes(pickle.loads(sent)[5][0]) == bytes(data[5][0]) and isinstance(data.parts[0]["jpeg"], np.memmap)


# ---- when the picture answers

def play(seconds, delay, seed=0, answers=True):
    """Actions [T, 20] and motion [T, 3] of a game whose camera follows the left stick, and that flashes on SOUTH; labels `delay` frames late."""
    rng, n = np.random.default_rng(seed), seconds * FPS
    actions = np.zeros((n, 20), np.float32)
    for t in range(0, n, 12):
        actions[t:t + rng.integers(4, 20), [4, 16, 17]] = rng.random() < 0.3, *(rng.choice([-1, 0, 1], 2) * rng.uniform(0.4, 1, 2))
    seen = actions if answers else np.roll(actions, n // 2, axis=0)
    motion = np.stack([-3 * seen[:, 16], -2 * seen[:, 17], 4 * seen[:, 4]], 1) + rng.normal(0, 1.5, (n, 3))
    return np.roll(actions, delay, axis=0), motion.astype(np.float32)


@pytest.mark.parametrize("delay", [-4, 0, 3, 9])
def test_an_overlays_delay_is_found(delay):
    found = filter.picture_lag(*play(40, delay), FPS)
    assert found["frames"] == -delay and found["seconds"] == round(-delay / FPS, 3) and found["confidence"] > 8


def test_no_lag_is_made_up():
    """Another half of the video, nothing pressed, a still picture, too short a video: null."""
    assert [filter.picture_lag(*play(40, 0, seed, answers=False), FPS) for seed in range(8)].count(None) >= 7
    actions, motion = play(40, 0)
    for a, m in ((actions * 0, motion), (actions, motion * 0), (actions[:300], motion[:300]), (actions[:0], motion[:0])):
        assert filter.picture_lag(a, m, FPS) is None


def test_delayed_labels_of_a_real_video(tmp_path):
    """A camera over a picture, moved by the stick, through the whole stage: labels three and eight frames late differ by five."""
    import cv2
    rng = np.random.default_rng(0)
    actions, _ = play(24, 0)
    ground = cv2.resize(rng.integers(0, 255, (80, 80, 3), np.uint8), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    at = np.cumsum(-4 * actions[:, 16:18], axis=0).astype(int)
    with sim.VideoWriter(tmp_path / "g-0.mp4", FPS, 320, 200) as out:
        for x, y in at - at.min(axis=0):
            out.write(ground[y % 1400:y % 1400 + 200, x % 1200:x % 1200 + 320])
    lags = []
    for delay in (3, 8):
        late = np.roll(actions, delay, axis=0)
        sim.write(tmp_path / "g-0.actions.safetensors", {"buttons": late[:, :16].astype(np.float16), "sticks": late[:, 16:], "shown": np.ones(20, bool),
                  "confidence": np.ones(len(late), np.float16), "time": np.arange(len(late)) / FPS}, "nitrogen.actions/1", unit="normalized")
        filter.run(config(videos=(str(tmp_path / "g-0.mp4"),), labels=str(tmp_path), out=str(tmp_path / f"late{delay}"), min_active=0.0))
        lags.append(json.loads((tmp_path / f"late{delay}/manifest.json").read_bytes())["videos"]["g-0"]["lag"]["frames"])
    assert lags[0] - lags[1] == 5 and abs(lags[0] + 3) <= 1
