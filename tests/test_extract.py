"""extract.py: templates and renderer, then localization on synthetic videos, then what a user can do wrong."""

import re
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import extract  # noqa: E402
import sim  # noqa: E402

NONE = np.zeros(16, bool), np.zeros(4)
PAD = extract.PAD


def play(rng, n):
    """A pad in use: buttons held for a while, sticks that wander and rest.  [n, 16] bool, [n, 4] in [-1, 1]."""
    buttons, sticks = np.zeros((n, 16), bool), np.zeros((n, 4))
    for b in range(16):
        for start in np.flatnonzero(rng.random(n) < 0.02):
            buttons[start:start + rng.integers(3, 15), b] = True
    for axis in range(4):
        for start in range(0, n, 12):
            sticks[start:start + 12, axis] = rng.choice([0, 0, rng.uniform(-1, 1)])
    return buttons, np.clip(cv2.blur(sticks, (1, 5)), -1, 1)


def game(rng, n, w=960, h=540):
    """n frames of a world that scrolls, with shapes, text and things that move; uint8 RGB [h, w, 3]."""
    W = w + 600
    world = cv2.resize(rng.integers(40, 200, (h // 60, W // 60, 3)).astype(np.uint8), (W, h), interpolation=cv2.INTER_CUBIC)
    for _ in range(90):
        x, y, r = int(rng.integers(0, W)), int(rng.integers(0, h)), int(rng.integers(6, 60))
        color = tuple(int(c) for c in rng.integers(0, 255, 3))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(world, (x, y), (x + r, y + 2 * r), color, int(rng.choice([-1, 2])))
        elif kind == 1:
            cv2.circle(world, (x, y), r, color, int(rng.choice([-1, 2])), cv2.LINE_AA)
        elif kind == 2:
            cv2.putText(world, "".join(rng.choice(list("GAMEOVR247"), 5)), (x, y), 1, r / 15, color, 2, cv2.LINE_AA)
        else:
            cv2.fillPoly(world, [rng.integers(-r, r, (3, 2)).astype(np.int32) + (x, y)], color, cv2.LINE_AA)
    world = np.clip(world + rng.normal(0, 6, world.shape), 0, 255).astype(np.uint8)
    way = np.cumsum(rng.uniform(2, 10) + np.abs(rng.normal(0, 2, n))) % 600
    balls = rng.uniform(0, 1, (6, 4))
    for i in range(n):
        frame = world[:, int(way[i]):int(way[i]) + w].copy()
        for b in balls:
            center = int((b[0] + 0.01 * i * b[2]) % 1 * w), int((b[1] + 0.01 * i * b[3]) % 1 * h)
            cv2.circle(frame, center, 14, (250, 240, 60), -1, cv2.LINE_AA)
        cv2.putText(frame, f"SCORE {i * 10}", (20, 30), 2, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.rectangle(frame, (w - 220, 14), (w - 220 + 2 * (i % 100), 30), (220, 40, 40), -1)
        yield frame


def film(path, name=None, width=0.33, opacity=0.9, corner=3, seed=0, n=60):
    """A video of a game with the overlay `name`; returns the true affine [2, 3], or None."""
    rng = np.random.default_rng(seed)
    truth, (buttons, sticks) = None, play(rng, n)
    with sim.VideoWriter(path, 30, 960, 540) as video:
        if name:
            template = extract.templates()[name]
            scale = 960 * width / template.size[0]
            w, h = (round(v * scale) for v in template.size)
            x, y = (12, 960 - w - 12)[corner % 2], (12, 540 - h - 12)[corner // 2]
            truth = np.array([[scale, 0, x], [0, scale, y]])
        for i, frame in enumerate(game(rng, n)):
            if name:
                extract.composite(frame, extract.draw(template, buttons[i], sticks[i], scale), x, y, opacity)
            video.write(frame)
    return truth


# ---- templates and renderer ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", extract.templates())
def test_each_button_changes_its_own_box_and_nothing_else(name):
    template = extract.templates()[name]
    where, idle = extract.layout(template), extract.draw(template, *NONE).astype(int)
    assert idle.shape == (template.size[1], template.size[0], 4)
    assert (idle[..., :3] <= idle[..., 3:] + 1).all(), "not premultiplied"
    for i, button in enumerate(sim.BUTTONS):
        changed = np.abs(extract.draw(template, np.arange(16) == i, NONE[1]).astype(int) - idle).max(2) > 8
        if button not in where["buttons"]:
            assert not changed.any()
            continue
        x, y, w, h = where["buttons"][button]
        assert min(w, h) >= 10 and x >= 0 and y >= 0 and x + w <= template.size[0] and y + h <= template.size[1], (button, x, y, w, h)
        ys, xs = np.nonzero(changed)
        assert len(xs) > 25, f"{button}: pressed looks like idle"
        assert xs.min() >= x - 1 and xs.max() <= x + w and ys.min() >= y - 1 and ys.max() <= y + h, button
    for side, (cx, cy, travel, w, h) in where["sticks"].items():
        assert 0.06 <= travel / template.size[0] <= 0.10
        assert min(cx, cy) - travel - w / 2 > -PAD and max(cx + travel + w / 2 - template.size[0], cy + travel + h / 2 - template.size[1]) < PAD


def test_there_are_thirty_templates_in_five_families_drawn_quickly():
    pool = extract.templates()
    assert len(pool) >= 30 and len({t.family for t in pool.values()}) >= 5
    assert sum(len(extract.layout(t)["buttons"]) == 16 and len(extract.layout(t)["sticks"]) == 2 for t in pool.values()) >= 25
    template, rng = pool["xboxone-dark"], np.random.default_rng(0)
    buttons, sticks = rng.random((300, 16)) < 0.3, rng.uniform(-1, 1, (300, 4))
    extract.draw(template, *NONE, 0.8)
    start = time.process_time()
    for b, s in zip(buttons, sticks):
        extract.draw(template, b, s, 0.8)
    assert 300 / (time.process_time() - start) > 1500


@pytest.mark.parametrize("name", ["xbox360-light", "ps3-outline", "keys-neon"])
def test_stick_moves_by_axis_times_radius(name):
    template = extract.templates()[name]
    for side, axis in (("LEFT", 0), ("RIGHT", 2)):
        cx, cy, travel, w, h = extract.layout(template)["sticks"][side]
        alone = extract.Template("alone", "", template.size, template.atlas, tuple(e for e in template.elements if e.id == side))
        for scale, dx, dy in ((1.0, 0, 0), (1.0, 1, -0.5), (0.8, -0.37, 0.81), (1.3, 0.123, -0.456)):
            sticks = np.zeros(4)
            sticks[axis:axis + 2] = dx, dy
            alpha = extract.draw(alone, NONE[0], sticks, scale)[..., 3].astype(float)
            ys, xs = np.mgrid[:alpha.shape[0], :alpha.shape[1]] + 0.5
            seen = (xs * alpha).sum() / alpha.sum(), (ys * alpha).sum() / alpha.sum()
            assert np.allclose(seen, ((cx + dx * travel) * scale, (cy + dy * travel) * scale), atol=0.12)


def test_dpad_diagonals_and_opposites():
    template = extract.templates()["ps4-dark"]
    press = lambda *names: extract.draw(template, [b in names for b in sim.BUTTONS], NONE[1]).astype(int)
    both = press("DPAD_UP", "DPAD_LEFT")
    assert (both == press("DPAD_UP") + press("DPAD_LEFT") - press()).mean() > 0.999
    assert (press("DPAD_LEFT", "DPAD_RIGHT") == press()).all()


def test_composite_clips_and_blends():
    frame = np.full((40, 40, 3), 100, np.uint8)
    overlay = np.zeros((20, 20, 4), np.uint8)
    overlay[:] = (100, 0, 0, 128)
    extract.composite(frame, overlay, 30, -10, 1.0)
    assert np.abs(frame[5, 35].astype(int) - (150, 50, 50)).max() <= 1 and (frame[10:] == 100).all() and (frame[:, :30] == 100).all()
    extract.composite(frame, overlay, 0, 20, 0.5)
    assert np.abs(frame[25, 5].astype(int) - (125, 75, 75)).max() <= 1
    extract.composite(frame, overlay, 100, 100)


def test_crop_undoes_composite():
    template = extract.templates()["xboxone-light"]
    picture = extract.draw(template, *NONE, 0.75)
    frame = np.zeros((300, 400, 3), np.uint8)
    extract.composite(frame, picture, 37, 41)
    affine = np.array([[0.75, 0, 37], [0, 0.75, 41]])
    back = extract.crop(frame, affine, template.size, 240, 165)
    assert back.shape == (165, 240, 3) and np.abs(back.astype(int) - picture[..., :3]).mean() < 1.0
    assert extract.crop(frame, affine, template.size, 96, 66).shape == (66, 96, 3)


# ---- localization ---------------------------------------------------------------------------------------------------

def run(*args, cwd):
    return subprocess.run([sys.executable, str(ROOT / "extract.py"), *map(str, args)], cwd=cwd, capture_output=True, text=True)


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0) / (a[2] * a[3] + b[2] * b[3] - max(w, 0) * max(h, 0))


CASES = [("xbox360-dark", 0.30, 0.80, 0), ("ps5-outline", 0.25, 0.75, 3), ("switch-flat", 0.42, 1.0, 2), ("grid-minimal", 0.35, 0.7, 1)]


@pytest.mark.parametrize("name, width, opacity, corner", CASES)
def test_overlay_is_found_to_a_fraction_of_a_pixel(tmp_path, name, width, opacity, corner):
    truth = film(tmp_path / "a.mp4", name, width, opacity, corner, seed=corner)
    tensors, info, _ = extract.locate(tmp_path / "a.mp4", extract.templates(), extract.Config())
    assert info["found"] and info["template"] == name and info["inliers"] >= 20 and info["votes"] > 12
    w, h = extract.templates()[name].size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ truth.T
    assert np.linalg.norm(tensors["corners"][0] - corners, axis=1).max() < 0.5
    box = *corners[0], *(corners[2] - corners[0])
    assert iou(tensors["bbox"][0], box) > 0.95
    still = tensors["median"][0]
    assert abs(still.shape[1] - box[2]) <= 1 and abs(still.shape[0] - box[3]) <= 1
    assert info["layout"] == extract.layout(extract.templates()[name])


def test_plain_game_has_no_overlay(tmp_path):
    film(tmp_path / "plain.mp4", seed=7)
    done = run("plain.mp4", "--out", "labels", cwd=tmp_path)
    assert done.returncode == 1 and "no overlay found" in done.stderr and "Traceback" not in done.stderr
    tensors, info = sim.read(tmp_path / "labels/plain.overlay.safetensors", "nitrogen.overlay/1")
    assert info["found"] is False and info["reason"] and not tensors


# ---- the command, and what a user can do wrong --------------------------------------------------------------------

def test_command_writes_skips_refuses_and_names_what_failed(tmp_path):
    film(tmp_path / "a.mp4", "ps4-light", 0.3, 0.9, n=40)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video")
    done = run("a.mp4", "cut.mp4", "empty.mp4", "text.mp4", "gone.mp4", "--out", "labels", "--sheet", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "4 of 5 videos failed" in done.stderr
    assert all(n in done.stderr for n in ("cut.mp4", "empty.mp4", "text.mp4", "gone.mp4"))
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == ["a.overlay.png", "a.overlay.safetensors"]

    path = tmp_path / "labels/a.overlay.safetensors"
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = run("a.mp4", "--out", "labels", cwd=tmp_path)
    assert again.returncode == 0 and "kept" in again.stdout + again.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    other = run("a.mp4", "--out", "labels", "--min-inliers", "30", cwd=tmp_path)
    assert other.returncode == 1 and "min_inliers" in other.stderr and "--fresh" in other.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("args, words", [((), "no videos"), (("gone.mp4",), "no such video"), (("a", "--frames", "1"), "--frames")])
def test_bad_commands_end_in_one_line(tmp_path, args, words):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_template_sheet(tmp_path):
    done = run("templates", "--out", "sheet.png", cwd=tmp_path)
    assert done.returncode == 0 and cv2.imread(str(tmp_path / "sheet.png")).shape[0] > 1000


# ---- XFeat -------------------------------------------------------------------------------------------------

# The official network on weights made from their names (see fill), on 192 x 256 px of noise: per output its shape, mean,
# standard deviation, and the first 8 channels at the corner and at [H // 2, W // 2].
GOLDEN_XFEAT = [
    ([1, 64, 24, 32], 0.04404463795669757, 0.9374807936582176,
     [0.0427364, -0.1483355, -0.4172991, -0.272434, -0.3126107, -0.2043465, 0.2963886, 0.311541],
     [-0.57658, 0.0516631, -2.0726708, -0.7408883, -0.095055, 0.6281497, -0.420186, 1.2623931]),
    ([1, 65, 24, 32], -0.002219747288187707, 0.09428887741714732,
     [0.1252313, 0.0073641, -0.0203135, 0.0430999, -0.0436554, 0.1030468, -0.0097969, -0.0896797],
     [0.0538053, 0.0087501, 0.0418415, -0.0250664, -0.1530831, 0.1480426, -0.0347307, -0.0814053]),
    ([1, 1, 24, 32], 0.4882244496092456, 0.012570367564464807, [0.5176808], [0.4721026]),
]


def fill(name, shape):
    r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(0.5 + np.abs(r) if name.endswith("running_var") else 0.08 * r, np.float32))


def filled():
    return {name: fill(name, shape) for name, shape in extract.xfeat_shapes().items()}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-7), (torch.float32, 2e-5)])
@pytest.mark.parametrize("prepare", [lambda w: w, extract.fold])
def test_xfeat_parity(dtype, tolerance, prepare):
    image = np.random.default_rng(1).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    x = torch.from_numpy(image / 255).permute(2, 0, 1)[None].to(dtype)
    w = prepare({k: v.to(dtype) for k, v in filled().items()})
    for y, (shape, mean, std, corner, centre) in zip(extract.xfeat_net(w, x), GOLDEN_XFEAT):
        assert list(y.shape) == shape
        h, v = y.shape[-2:]
        found = torch.cat([y.mean()[None], y.std()[None], y[0, :8, 0, 0], y[0, :8, h // 2, v // 2]])
        assert (found - torch.tensor([mean, std, *corner, *centre], dtype=dtype)).abs().max() < tolerance


def test_xfeat_parameters():
    for matcher, count in ((False, 657_910), (True, 1_544_758)):
        assert sum(int(np.prod(s)) for k, s in extract.xfeat_shapes(matcher).items() if "running" not in k) == count


def test_at_points_by_hand():
    """A ramp over 4 x 3 cells of a 32 x 24 picture, read as the official code reads it: x * 4 / 31 - 0.5."""
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    points = torch.tensor([[[12.0, 10.0], [8.0, 12.0]]])
    found = extract.at_points(ramp, points, (32, 24))[0, :, 0]
    assert torch.allclose(found, points[0, :, 0] * 4 / 31 - 0.5, atol=1e-6)


def test_detect_step_by_step():
    """Every keypoint is the highest of its 5 x 5 pixels and above the threshold, and none is missing."""
    image = cv2.GaussianBlur(np.random.default_rng(4).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 1.5)
    w = extract.fold(filled())
    points, descriptors = extract.detect(image, w, threshold=0.0155)
    logits = extract.xfeat_net(w, torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[1][0].double()
    heat = np.zeros((96, 128))
    for i, j in np.ndindex(12, 16):
        heat[8 * i:8 * i + 8, 8 * j:8 * j + 8] = logits[:, i, j].softmax(0)[:64].reshape(8, 8)
    wanted = {(x + 0.5, y + 0.5) for y, x in np.ndindex(95, 127)                  # the last row and column read beyond the picture
              if heat[y, x] > 0.0155 and heat[y, x] == heat[max(y - 2, 0):y + 3, max(x - 2, 0):x + 3].max()}
    assert len(wanted) > 50 and set(map(tuple, points.tolist())) == wanted
    assert descriptors.shape == (len(points), 64) and np.allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    few = extract.detect(image, w, top_k=20, threshold=0.0155)
    assert np.array_equal(few[0], points[:20]) and np.array_equal(few[1], descriptors[:20])


def test_detect_resizes_and_takes_batches():
    images = np.random.default_rng(5).integers(0, 256, (2, 100, 150, 3), dtype=np.uint8)
    w = extract.fold(filled())
    both = extract.detect(images, w, threshold=0.0155)
    for image, (points, descriptors) in zip(images, both):
        alone = extract.detect(image, w, threshold=0.0155)
        assert len(points) and np.allclose(points, alone[0]) and np.allclose(descriptors, alone[1], atol=1e-5)
        assert (points > 0).all() and (points < (150, 100)).all() and points[:, 0].max() > 135 and points[:, 1].max() > 90
    points, descriptors = extract.detect(np.full((20, 20, 3), 90, np.uint8), w, threshold=0.5)
    assert points.shape == (0, 2) and descriptors.shape == (0, 64)


def test_mutual_and_cells_by_hand():
    a, b = np.eye(4)[:3], np.eye(4)[[2, 0, 0]] * np.array([[1], [0.9], [0.5]])
    i, j = extract.mutual(a, b, 0.6)
    assert (i.tolist(), j.tolist()) == ([0, 2], [1, 0])
    assert extract.mutual(a[:0], b)[0].size == extract.mutual(a, b, 1.0)[0].size == 0
    found = extract.cells(np.array([[9.5, 2.5], [15.9, 15.1], [-0.2, 3], [16.0, 3]]), 16)
    assert found.tolist() == [[64, 17], [64, 63]]


def test_official_weights_load(tmp_path):
    official = {name: fill(name, shape) for name, shape in extract.xfeat_shapes(matcher=True).items()}
    official |= {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in list(official) if name.endswith("running_var")}
    assert len(official) == 122
    torch.save(official, tmp_path / "xfeat.pt")
    w = extract.load_xfeat(tmp_path / "xfeat.pt")
    assert set(w) == set(filled()) and all(torch.equal(w[k], v) for k, v in filled().items())


@pytest.mark.parametrize("change, words", [
    (lambda w: w.pop("block5.3.layer.0.weight"), "tensor 'block5.3.layer.0.weight' is missing"),
    (lambda w: w.update({"skip1.1.weight": torch.zeros(24, 1, 3, 3)}), "tensor 'skip1.1.weight' should be finite [24, 1, 1, 1], found [24, 1, 3, 3]"),
    (lambda w: w.update({"keypoint_head.3.bias": torch.full((65,), torch.nan)}), "tensor 'keypoint_head.3.bias' should be finite"),
    (lambda w: w.update({"head.weight": torch.zeros(3)}), "unknown tensor 'head.weight'"),
])
def test_other_weights_are_refused(tmp_path, change, words):
    w = filled()
    change(w)
    torch.save(w, tmp_path / "w.pt")
    sim.write(tmp_path / "w.safetensors", {k: v.numpy() for k, v in w.items()}, "nitrogen.features/1")
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(SystemExit, match=re.escape(words)) as e:
            extract.load_xfeat(tmp_path / name)
        assert name in str(e.value) and "\n" not in str(e.value)


def test_unreadable_weights(tmp_path):
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pt")
    sim.write(tmp_path / "other.safetensors", {}, "nitrogen.parser/1")
    for name in ("text.pt", "list.pt", "gone.pt", "gone.safetensors", "other.safetensors"):
        with pytest.raises(SystemExit, match=name) as e:
            extract.load_xfeat(tmp_path / name)
        assert "\n" not in str(e.value)


def test_pairs_show_the_same_points():
    """The second picture, undamaged, taken back through the warp is most like the first, where the template is: 1.5 px aside it is less so."""
    data, exact = extract.Pairs(3, list(extract.templates().values())[:4]), []
    for i in range(8):
        for make in (data.overlay_pair, data.warped_pair):
            _, (first, second), warp, where = make(np.random.default_rng([3, i]), i)
            likeness = {}
            for aside in np.ndindex(3, 3):
                off = np.array([[1, 0, 1.5 * aside[0] - 1], [0, 1, 1.5 * aside[1] - 1], [0, 0, 1]])         # 0.5 of it: the pixel's centre
                m = np.linalg.inv([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]) @ warp @ off
                back = cv2.warpPerspective(second, m, where.shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
                likeness[aside] = np.corrcoef(first[where].ravel(), back[where].ravel())[0, 1]
            exact.append(max(likeness, key=likeness.get) == (1, 1))
    assert sum(exact) >= 15
    item, again = data[11], extract.Pairs(3, data.pool)[11]
    assert all(np.array_equal(item[k], again[k]) for k in item)
    assert item["images"].shape == (2, 224, 224) and item["points"].shape == (2, 160, 2) and (item["corners"] < 64).any()
    assert item["points"].min() > 0 and item["points"].max() < 224


def test_xfeat_training_resumes_exactly(tmp_path):
    def run(name, *parts):
        cfg = extract.TrainConfig(out=str(tmp_path / name), steps=20, batch=2)
        for steps in parts:
            run = extract.Training(cfg, "cpu")
            for _ in range(steps):
                items = [data[run.steps * 2 + i] for i in range(2)]
                losses = run.step({k: torch.from_numpy(np.stack([item[k] for item in items])) for k in items[0]})
            run.suspend()
        return losses, run
    data = extract.Pairs(0, list(extract.templates().values())[:3])
    (whole, a), (halves, b) = run("a.safetensors", 4), run("b.safetensors", 2, 2)
    assert whole == halves and a.steps == b.steps == 4
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())
    with pytest.raises(SystemExit, match="another batch"):
        extract.Training(extract.TrainConfig(out=str(tmp_path / "a.safetensors"), batch=3), "cpu")


def test_xfeat_train_command(tmp_path, capsys):
    done = run("train", "--steps", "2", "--batch", "2", "--validation", "2", "--out", "x.safetensors", cwd=tmp_path)
    assert done.returncode == 0 and "657,910 parameters" in done.stdout, done.stderr
    tensors, info = sim.read(tmp_path / "x.safetensors", "nitrogen.features/1")
    assert set(tensors) == set(extract.xfeat_shapes()) and info["steps"] == 2 and info["images"] == 8
    assert info["figures"]["usual SIFT"]["matches"] > 5 and len(info["figures"]) == 6
    again = extract.TrainConfig(steps=2, batch=2, validation=2, out=str(tmp_path / "x.safetensors"))
    extract.train(again)
    assert "finished already" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for folder, words in (("gone", "no such folder"), ("empty", "no video in it")):
        with pytest.raises(SystemExit, match=words):
            extract.train(replace(again, backgrounds=str(tmp_path / folder)))
