"""extract.py: localization on synthetic videos, then what a user can do wrong."""

from dataclasses import replace
from pathlib import Path

from common import artefact
from common.pictures import VideoWriter

import cv2
import numpy as np
import pytest

import extract
from commands import run
from templates import features, library, pads, render, xfeat

NONE = np.zeros(16, bool), np.zeros(4)
PAD = pads.PAD


def play(rng, n):
    """A pad in use: buttons held for a while, sticks that wander and rest.  [n, 16] bool, [n, 4] in
    [-1, 1].
    """
    buttons, sticks = np.zeros((n, 16), bool), np.zeros((n, 4))
    for b in range(16):
        for start in np.flatnonzero(rng.random(n) < 0.02):
            buttons[start : start + rng.integers(3, 15), b] = True
    for axis in range(4):
        for start in range(0, n, 12):
            sticks[start : start + 12, axis] = rng.choice([0, 0, rng.uniform(-1, 1)])
    return buttons, np.clip(cv2.blur(sticks, (1, 5)), -1, 1)


def game(rng, n, w=960, h=540):
    """n frames of a world that scrolls, with shapes, text and things that move; uint8 RGB [h, w,
    3].
    """
    W = w + 600
    world = cv2.resize(
        rng.integers(40, 200, (h // 60, W // 60, 3)).astype(np.uint8),
        (W, h),
        interpolation=cv2.INTER_CUBIC,
    )
    for _ in range(90):
        x, y, r = int(rng.integers(0, W)), int(rng.integers(0, h)), int(rng.integers(6, 60))
        color = tuple(int(c) for c in rng.integers(0, 255, 3))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(world, (x, y), (x + r, y + 2 * r), color, int(rng.choice([-1, 2])))
        elif kind == 1:
            cv2.circle(world, (x, y), r, color, int(rng.choice([-1, 2])), cv2.LINE_AA)
        elif kind == 2:
            cv2.putText(
                world,
                "".join(rng.choice(list("GAMEOVR247"), 5)),
                (x, y),
                1,
                r / 15,
                color,
                2,
                cv2.LINE_AA,
            )
        else:
            cv2.fillPoly(
                world, [rng.integers(-r, r, (3, 2)).astype(np.int32) + (x, y)], color, cv2.LINE_AA
            )
    world = np.clip(world + rng.normal(0, 6, world.shape), 0, 255).astype(np.uint8)
    way = np.cumsum(rng.uniform(2, 10) + np.abs(rng.normal(0, 2, n))) % 600
    balls = rng.uniform(0, 1, (6, 4))
    for i in range(n):
        frame = world[:, int(way[i]) : int(way[i]) + w].copy()
        for b in balls:
            center = int((b[0] + 0.01 * i * b[2]) % 1 * w), int((b[1] + 0.01 * i * b[3]) % 1 * h)
            cv2.circle(frame, center, 14, (250, 240, 60), -1, cv2.LINE_AA)
        cv2.putText(frame, f"SCORE {i * 10}", (20, 30), 2, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.rectangle(frame, (w - 220, 14), (w - 220 + 2 * (i % 100), 30), (220, 40, 40), -1)
        yield frame


def film(path, name=None, width=0.33, opacity=0.9, corner=3, seed=0, n=60, spans=None):
    """A video of a game with the overlay `name`; returns the true affine [2, 3], or None.  spans:
    (first, last, corner), if not always there.
    """
    rng = np.random.default_rng(seed)
    truth, (buttons, sticks) = None, play(rng, n)
    with VideoWriter(path, 30, 960, 540) as video:
        if name:
            template = library.templates()[name]
            scale = 960 * width / template.size[0]
            w, h = (round(v * scale) for v in template.size)
            truth = [
                np.array(
                    [[scale, 0, (12, 960 - w - 12)[c % 2]], [0, scale, (12, 540 - h - 12)[c // 2]]]
                )
                for c in range(4)
            ]
        for i, frame in enumerate(game(rng, n)):
            for c in [
                c for first, last, c in spans or [(0, n, corner)] if first <= i <= last and name
            ]:
                render.composite(
                    frame,
                    render.draw(template, buttons[i], sticks[i], scale),
                    *truth[c][:, 2].astype(int),
                    opacity,
                )
            video.write(frame)
    return truth and truth[corner]


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0) / (a[2] * a[3] + b[2] * b[3] - max(w, 0) * max(h, 0))


CASES = [
    ("xbox360-dark", 0.30, 0.80, 0),
    ("ps5-outline", 0.25, 0.75, 3),
    ("switch-flat", 0.42, 1.0, 2),
    ("grid-minimal", 0.35, 0.7, 1),
]


@pytest.mark.parametrize("name, width, opacity, corner", CASES)
def test_overlay_is_found_to_a_fraction_of_a_pixel(tmp_path, name, width, opacity, corner):
    truth = film(tmp_path / "a.mp4", name, width, opacity, corner, seed=corner)
    tensors, info, _ = extract.locate(tmp_path / "a.mp4", library.templates(), extract.Config())
    assert (
        info["found"] and info["template"] == name and info["inliers"] >= 20 and info["votes"] > 12
    )
    w, h = library.templates()[name].size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ truth.T
    assert np.linalg.norm(tensors["corners"][0] - corners, axis=1).max() < 0.5
    box = *corners[0], *(corners[2] - corners[0])
    assert iou(tensors["bbox"][0], box) > 0.95
    still = tensors["median"][0]
    assert abs(still.shape[1] - box[2]) <= 1 and abs(still.shape[0] - box[3]) <= 1
    assert info["layout"] == render.layout(library.templates()[name])


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param(((60, 99, 3),), marks=pytest.mark.slow),
        ((0, 49, 0), (50, 99, 3)),
        ((0, 30, 2), (60, 99, 2)),
    ],
    ids=["late", "moves", "goes and comes"],
)
@pytest.mark.parametrize(
    "names", [pads.CORE, pytest.param(pads.TEMPLATES, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_an_overlay_that_moves_or_is_not_always_there(tmp_path, monkeypatch, names, spans):
    """Each stretch is found, with its own place, and its ends to a few frames: compression leaves
    ghosts.
    """
    monkeypatch.setattr(library, "pool", lambda folder: library.templates(names))
    film(tmp_path / "a.mp4", "ps4-dark", 0.33, 0.9, n=100, spans=spans)
    extract.label(extract.Config(out=str(tmp_path), sheet=True), str(tmp_path / "a.mp4"))
    tensors, info = artefact.read(tmp_path / "a.overlay.safetensors", "nitrogen.overlay/1")
    assert (
        info["template"] == "ps4-dark"
        and len(tensors["span"]) == len(spans)
        and (tmp_path / "a.overlay.png").exists()
    )
    for box, found, (first, last, corner) in zip(
        tensors["bbox"], tensors["span"], spans, strict=False
    ):
        assert abs(found[0] - first) <= 3 and abs(found[1] - last) <= 3, tensors["span"]
        assert (
            abs(box[0] - (12, 960 - box[2] - 12)[corner % 2]) <= 2
            and abs(box[1] - (12, 540 - box[3] - 12)[corner // 2]) <= 2
        )


def test_an_overlay_that_comes_between_two_sampled_frames(tmp_path, monkeypatch):
    """Frames 58 and 62 are sampled: the first looks as if it were of the stretch."""
    monkeypatch.setattr(library, "pool", lambda folder: library.templates(pads.CORE))
    film(tmp_path / "a.mp4", "ps4-dark", 0.33, 0.9, n=100, spans=((61, 99, 3),))
    tensors, _, _ = extract.locate(tmp_path / "a.mp4", library.pool(""), extract.Config())
    ((begin, end),) = tensors["span"]
    assert abs(begin - 61) <= 1 and end == 99


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 24, 25])
def test_what_stands_still_is_the_median(n):
    images = list(np.random.default_rng(n).integers(0, 256, (n, 37, 5, 3), dtype=np.uint8))
    kept = [i.copy() for i in images]
    assert np.array_equal(
        extract.middle(images), np.sort(images, axis=0)[n // 2]
    ) and np.array_equal(images, kept)


def test_a_frame_of_one_colour_hides_the_overlay_only_itself():
    """A fade from and to black: the template is where it is in the frames between."""
    pool, rng = library.templates(), np.random.default_rng(0)
    template, frames = (
        pool["xbox360-classic"] if "xbox360-classic" in pool else next(iter(pool.values())),
        [],
    )
    affine = np.array([[0.5, 0, 20], [0, 0.5, 30]])
    for _ in range(12):
        frame = cv2.resize(rng.integers(0, 256, (30, 53, 3), np.uint8), (480, 270))
        overlay = render.draw(template, np.zeros(16), np.zeros(4), 0.5)
        render.composite(frame, overlay, 20, 30, 1.0)
        frames.append(frame)
    for k in (0, 11):
        dark = [*frames]
        dark[k] = np.zeros_like(dark[k])
        like = extract.likeness(dark, template, affine)
        assert like[k] == 0 and np.delete(like, k).min() > 0.5
        assert extract.shown(dark, template, affine).sum() >= 11


def test_the_index_is_kept(tmp_path, monkeypatch):
    """Made once, read the next time; another pool or another way to draw, another index; a folder
    that cannot be written changes nothing.
    """
    monkeypatch.setattr(features, "ROOT", tmp_path)
    a, again = (extract.bank_of(library.templates(pads.CORE[:2]), "sift") for _ in range(2))
    assert len(list((tmp_path / "data/index").iterdir())) == 1 and all(
        np.array_equal(a[k], again[k]) for k in a
    )
    other = extract.bank_of(library.templates(pads.CORE[:3]), "sift")
    assert (
        len(list((tmp_path / "data/index").iterdir())) == 2
        and set(other["owner"]) == {0, 1, 2}
        and set(a["owner"]) == {0, 1}
    )
    (tmp_path / "pads.py").write_text(Path(pads.__file__).read_text() + "#")
    monkeypatch.setattr(pads, "__file__", str(tmp_path / "pads.py"))
    assert (
        np.array_equal(
            extract.bank_of(library.templates(pads.CORE[:2]), "sift")["owner"], a["owner"]
        )
        and len(list((tmp_path / "data/index").iterdir())) == 3
    )
    # another index in a room that has a byte too little: the file used longest ago goes
    extract.bank_of(library.templates(pads.CORE[:4]), "sift")
    files = sorted((tmp_path / "data/index").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    monkeypatch.setattr(features, "ROOM", sum(p.stat().st_size for p in files) - 1)
    files.pop().unlink()
    extract.bank_of(library.templates(pads.CORE[:2]), "sift")
    extract.bank_of(library.templates(pads.CORE[:4]), "sift")
    left = set((tmp_path / "data/index").iterdir())
    assert len(left) == 3 and set(files) - left == {files[0]}
    # the one that was just made stays in any case
    monkeypatch.setattr(features, "ROOM", 0)
    extract.bank_of(library.templates(pads.CORE[:1]), "sift")
    assert len(list((tmp_path / "data/index").iterdir())) == 1
    monkeypatch.setattr(features, "ROOT", tmp_path / "file")
    (tmp_path / "file").write_text("")
    assert np.array_equal(
        extract.bank_of(library.templates(pads.CORE[:2]), "sift")["owner"], a["owner"]
    )


@pytest.mark.parametrize("detector", ["sift", "xfeat"])
def test_a_new_skin_alone_is_described(detector, tmp_path, monkeypatch):
    """Neither the built-in templates nor the other skins are, and the index is the same to the bit
    as one made from nothing.
    """
    monkeypatch.setattr(features, "ROOT", tmp_path)
    seen = []

    def described(pool, names, *args):
        seen.append(list(names))
        return real(pool, names, *args)

    real = features.described
    monkeypatch.setattr(features, "described", described)
    builtin = library.templates()
    plain = extract.bank_of(library.templates(pads.CORE[:3]), detector)

    def made(**own):
        return extract.bank_of(library.Pool(pads.CORE[:3], own), detector)

    made(mine=builtin["snes-light"])
    # one skin more; one changed; one under another name; one less
    second = made(mine=builtin["snes-light"], more=builtin["ps4-dark"])
    made(mine=builtin["xbox360-dark"], more=builtin["ps4-dark"])
    made(other=builtin["snes-light"])
    assert seen == [[*pads.CORE[:3]], ["mine"], ["more"], ["mine"]]
    assert len(list((tmp_path / "data/index").iterdir())) == 4
    (tmp_path / "data").rename(tmp_path / "aside")
    afresh = made(mine=builtin["snes-light"], more=builtin["ps4-dark"])
    for key, value in afresh.items():
        assert np.array_equal(second[key], value) and second[key].dtype == value.dtype
        # of what a file would hold
        assert value.dtype == plain[key].dtype
    assert set(afresh["owner"]) == {0, 1, 2, 3, 4}
    names = ("snes-light", "ps4-dark", *pads.CORE[:3])
    assert afresh["sizes"].tolist() == [list(builtin[name].size) for name in names]

    def rows(bank, i):
        both = np.hstack([bank["points"], bank["descriptors"]])[bank["owner"] == i]
        return sorted(map(bytes, both.astype(np.float32)))

    # the same rows as in pools of their own, in cells that the skins do not change
    assert rows(extract.bank_of(library.templates(["ps4-dark"]), detector), 0) == rows(afresh, 1)
    assert all(rows(plain, i) == rows(afresh, i + 2) for i in range(3))
    assert np.array_equal(afresh["centers"], plain["centers"])


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("detector", ["sift", "xfeat"])
def test_a_descriptor_finds_its_like(detector, own):
    """The index looks into few cells and still finds most of the pairs that a search through
    everything finds, and no other; as well of a skin in the cells of the built-in templates.
    """
    skin = library.wild(3)
    bank = extract.bank_of(library.Pool(pads.CORE[:12], {"mine": skin} if own else {}), detector)
    picture = render.idle(skin if own else library.templates()["xbox360-dark"], 90, 0.8)
    _, descriptors = extract.detectors(xfeat.XFEAT_WEIGHTS)[detector](picture)
    least = extract.ALIKE[detector]
    like = descriptors @ bank["descriptors"].T.astype(np.float32) / 254 > least
    if own:
        like &= bank["owner"] == 0
    whole = np.argwhere(like)
    found = extract.match(descriptors, bank, least)
    found = {(a, b) for a, b in found.T.tolist() if not own or bank["owner"][b] == 0}
    assert len(found) > 0.8 * len(whole) and not found - set(map(tuple, whole.tolist()))
    assert len(whole) > (100 if own else 1250)


def test_one_ring_that_fits_is_no_controller():
    """A game's own round control in the place of a stick: the whole picture is alike, its other
    buttons are not there.
    """
    template, rng = library.templates()["arcade-bare"], np.random.default_rng(0)
    ring = replace(template, elements=tuple(e for e in template.elements if e.kind == "stick"))
    for shown, low, high in ((template, 0.8, 1), (ring, -1, 0.4)):
        frame = cv2.GaussianBlur(rng.integers(60, 110, (400, 600, 3), np.uint8), (0, 0), 2)
        render.composite(frame, render.draw(shown, *NONE, 1.5), 40, 50, 0.9)
        affine, like = extract.refine(
            frame, template, np.array([[1.5, 0, 40], [0, 1.5, 50]]), widest=400
        )
        assert like > 0.5 and low < extract.confirmed(frame, template, affine) < high


@pytest.mark.parametrize("near", ["searched", "nothing", "something"])
def test_a_plain_game_shows_none_of_a_few(tmp_path, monkeypatch, near):
    """What was nearest, if anything was, is in the file, in px of the frame: 1.5 times those of the
    picture that is searched.
    """
    film(tmp_path / "plain.mp4", seed=7)
    monkeypatch.setattr(library, "pool", lambda folder: library.templates(pads.CORE))
    monkeypatch.setattr(extract, "WORK_WIDTH", 640)
    given = {
        "nothing": extract.Found(),
        "something": extract.Found(0.1, 9, 0.5, "ps4-dark", np.array([[0.5, 0, 20], [0, 0.5, 40]])),
    }
    if near in given:
        monkeypatch.setattr(extract, "search", lambda *a: given[near])
    extract.label(extract.Config(out=str(tmp_path), sheet=True), str(tmp_path / "plain.mp4"))
    tensors, info = artefact.read(tmp_path / "plain.overlay.safetensors", "nitrogen.overlay/1")
    assert (
        info["found"] is False
        and not tensors
        and (tmp_path / "plain.overlay.png").exists()
        and info["score"] < extract.SURE
    )
    # tried again in another way: not refused
    extract.label(extract.Config(out=str(tmp_path), frames=12), str(tmp_path / "plain.mp4"))
    if near == "something":
        w, h = library.templates()["ps4-dark"].size
        assert (
            info["nearest"] == pytest.approx([30, 60, 0.75 * w, 0.75 * h], abs=0.06)
            and "ps4-dark with 9 inliers" in info["reason"]
        )


@pytest.mark.slow
def test_plain_game_has_no_overlay(tmp_path):
    film(tmp_path / "plain.mp4", seed=7)
    done = run("plain.mp4", "--out", "labels", cwd=tmp_path)
    assert (
        done.returncode == 1
        and "no overlay found" in done.stderr
        and "Traceback" not in done.stderr
    )
    tensors, info = artefact.read(
        tmp_path / "labels/plain.overlay.safetensors", "nitrogen.overlay/1"
    )
    assert info["found"] is False and info["reason"] and not tensors


# ---- the command, and what a user can do wrong ---------------------------------------------------


def test_command_writes_skips_refuses_and_names_what_failed(tmp_path):
    film(tmp_path / "a.mp4", "ps4-light", 0.3, 0.9, n=40)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video")
    done = run(
        "a.mp4",
        "cut.mp4",
        "empty.mp4",
        "text.mp4",
        "gone.mp4",
        "--out",
        "labels",
        "--sheet",
        cwd=tmp_path,
    )
    assert (
        done.returncode == 1
        and "Traceback" not in done.stderr
        and "4 of 5 videos failed" in done.stderr
    )
    assert all(n in done.stderr for n in ("cut.mp4", "empty.mp4", "text.mp4", "gone.mp4"))
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == [
        "a.overlay.png",
        "a.overlay.safetensors",
    ]

    path = tmp_path / "labels/a.overlay.safetensors"
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = run("a.mp4", "--out", "labels", cwd=tmp_path)
    assert again.returncode == 0 and "kept" in again.stdout + again.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    other = run("a.mp4", "--out", "labels", "--min-inliers", "30", cwd=tmp_path)
    assert other.returncode == 1 and "min_inliers" in other.stderr and "--fresh" in other.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "args, words",
    [((), "no videos"), (("gone.mp4",), "no such video"), (("a", "--frames", "1"), "--frames")],
)
def test_bad_commands_end_in_one_line(tmp_path, args, words):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_template_sheet(tmp_path):
    done = run("templates", "--out", "sheet.png", cwd=tmp_path)
    assert done.returncode == 0 and cv2.imread(str(tmp_path / "sheet.png")).shape[0] > 1000
