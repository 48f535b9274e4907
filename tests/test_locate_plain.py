"""extract.py on skins with few features, as a d-pad alone or thin lines: they are found by how they
look.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

import extract
from templates import features, library, presets, render
from templates.sweep import FAINT, edges, layers, sweep

W, H, N = 640, 360, 13  # of the videos: px, frames
WHITE, DARK, GRAY = (255, 255, 255, 255), (40, 42, 48, 255), (140, 140, 146, 255)


def picture(w, h, *shapes):
    """RGBA; a shape: (points or (x, y, radius), colour, line width, or -1: filled)."""
    big = np.zeros((4 * h, 4 * w, 4), np.uint8)
    for at, color, width in shapes:
        if len(at) == 3 and np.ndim(at) == 1:
            cv2.circle(
                big, (4 * at[0], 4 * at[1]), 4 * at[2], color, 4 * width if width > 0 else -1
            )
        elif width < 0:
            cv2.fillPoly(big, [4 * np.array(at)], color)
        else:
            cv2.polylines(big, [4 * np.array(at)], True, color, 4 * width)
    return cv2.resize(big, (w, h), interpolation=cv2.INTER_AREA)


def cross(color, width, lit):
    """The nine states of a d-pad of 120 px."""
    xs = (41, 79, 79, 117, 117, 79, 79, 41, 41, 3, 3, 41)
    ys = (*xs[9:], *xs[:9])
    ways = (0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1)
    arms = [[((60 + 38 * dx, 60 + 38 * dy, 12), lit, -1)] if dx or dy else [] for dx, dy in ways]
    return [picture(120, 120, (list(zip(xs, ys, strict=True)), color, width), *arm) for arm in arms]


def disc(d, color, width, lit):
    return [
        picture(d, d, ((d // 2, d // 2, d // 2 - 3), c, k)) for c, k in ((color, width), (lit, -1))
    ]


def save(folder, name, size, parts):
    """An OBS input-overlay preset of (type, x, y, pictures of its states, what else its element
    says).
    """
    x, elements, atlas = 0, [], np.zeros((400, 4000, 4), np.uint8)
    for kind, left, top, states, more in parts:
        h, w = states[0].shape[:2]
        across = kind == 8
        elements.append(
            {"type": kind, "id": "", "pos": [left, top], "mapping": [x, 0, w, h], **more}
        )
        for k, state in enumerate(states):
            atlas[k * (h + 3) * (not across) :, x + k * (w + 3) * across :][:h, :w] = state
        x += (w + 3) * (len(states) if across else 1)
    (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / name / f"{name}.png"), cv2.cvtColor(atlas[:, :x], cv2.COLOR_RGBA2BGRA))
    preset = {"overlay_width": size[0], "overlay_height": size[1], "elements": elements}
    (folder / name / f"{name}.json").write_text(json.dumps(preset))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Four plain skins of one's own, and a built-in template; what is indexed is kept aside."""
    folder, patch = tmp_path_factory.mktemp("plain"), pytest.MonkeyPatch()
    ways, sides = (
        ((0, 1), (1, 0), (-1, 0), (0, -1)),
        [{"side": i, "stick_radius": 15} for i in (0, 1)],
    )
    save(folder, "dpad", (130, 130), [(8, 5, 5, cross(DARK, -1, GRAY), {})])
    button = disc(60, GRAY, -1, WHITE)
    four = [(2, 65 + 55 * x, 65 + 55 * y, button, {"code": i}) for i, (x, y) in enumerate(ways)]
    save(folder, "face", (190, 190), four)
    rings = [(0, 5 + 110 * i, 5, disc(100, GRAY, 3, WHITE)[:1], {}) for i in (0, 1)]
    knobs = [(5, 25 + 110 * i, 25, button, side) for i, side in enumerate(sides)]
    save(folder, "sticks", (220, 110), rings + knobs)
    button, knob = disc(40, WHITE, 2, WHITE), disc(60, WHITE, 2, WHITE)
    save(
        folder,
        "lines",
        (400, 200),
        [(8, 10, 20, cross(WHITE, 2, WHITE), {})]
        + [(2, 302 + 28 * x, 82 + 28 * y, button, {"code": i}) for i, (x, y) in enumerate(ways)]
        + [(5, 120 + 90 * i, 130, knob, side) for i, side in enumerate(sides)],
    )
    patch.setattr(features, "ROOT", folder)
    skins = presets.read_skins(folder)
    yield library.Pool(["ps4-dark"], {name.split("/")[0]: skin for name, skin in skins.items()})
    patch.undo()


def film(
    template=None, width=0.3, opacity=0.75, corner=(1, 1), seed=0, light=(40, 200), shown=range(N)
):
    """Frames of a world that scrolls, with the overlay in use on those of `shown`; and its box."""
    rng = np.random.default_rng(seed)
    world = cv2.resize(rng.integers(*light, (9, 40, 3)).astype(np.uint8), (4 * W, H))
    for x, y, r in rng.integers((0, 0, 6), (4 * W, H, 50), (160, 3)).tolist():
        color, line = rng.integers(*light, 3).tolist(), int(rng.choice([-1, 2]))
        if rng.random() < 0.5:
            cv2.circle(world, (x, y), r, color, line, cv2.LINE_AA)
        else:
            cv2.rectangle(world, (x, y), (x + r, y + 2 * r), color, line)
    box, frames = None, []
    for i in range(N):
        frame = world[:, 140 * i : 140 * i + W] + rng.normal(0, 4, (H, W, 3))
        frames.append(frame.clip(0, 255).astype(np.uint8))
        if template:
            scale = width * W / template.size[0]
            w, h = (round(v * scale) for v in template.size)
            box = [20 + corner[0] * (W - w - 40), 20 + corner[1] * (H - h - 40), w, h]
        if template and i in shown:
            buttons, sticks = rng.random(16) < 0.15, rng.uniform(-1, 1, 4) * (rng.random() < 0.5)
            render.composite(
                frames[-1], render.draw(template, buttons, sticks, scale), *box[:2], opacity
            )
    return frames, box


def iou(a, b):
    w, h = (max(0, min(a[k] + a[2 + k], b[k] + b[2 + k]) - max(a[k], b[k])) for k in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def found(frames, pool):
    """What `places` says: (result, box at its first place, its span), or (result, None, None)."""
    best, where = extract.places(frames, pool, extract.Config())
    if not where:
        return best, None, None
    a = where[0][2]
    return best, [*a[:, 2], *np.diag(a) * pool[best.template].size], where[0][:2]


@pytest.fixture
def blind(monkeypatch):
    """Neither SIFT nor XFeat shows anything."""
    monkeypatch.setattr(extract, "search", lambda *a: extract.Found())


def test_a_plain_skin_is_found(pool):
    frames, box = film(pool["dpad"], 0.25, 0.7)
    best, place, span = found(frames, pool)
    assert best.template == "dpad" and iou(place, box) > 0.9 and span == (0, N - 1)


PLAIN = [
    ("dpad", 0.35, 0.8, (40, 200)),
    ("face", 0.35, 0.7, (40, 200)),
    ("sticks", 0.3, 0.75, (40, 200)),
    ("lines", 0.35, 0.75, (190, 235)),
]


@pytest.mark.parametrize("name, width, opacity, light", PLAIN)
def test_where_no_feature_helps_the_picture_decides(pool, blind, name, width, opacity, light):
    """The last one: white lines over a sky that is nearly white."""
    frames, box = film(pool[name], width, opacity, (0, 1), seed=len(name), light=light)
    best, place, span = found(frames, pool)
    assert (
        best.template == name and best.inliers == 0 and iou(place, box) > 0.9 and span == (0, N - 1)
    )


def test_a_plain_skin_that_comes_late_is_found(pool, blind):
    frames, box = film(pool["face"], 0.35, 0.9, shown=range(5, N))
    best, place, span = found(frames, pool)
    assert best.template == "face" and iou(place, box) > 0.9 and span == (5, N - 1)


def test_a_game_without_an_overlay_shows_none(pool, blind):
    best, place, _ = found(film(seed=1)[0], pool)
    assert place is None and best.score < 0.6 * extract.SURE


@pytest.mark.parametrize("name", ["sticks", "lines"])
def test_a_picture_on_its_side_shows_none(pool, blind, name):
    """All but the d-pad, which is one still."""
    rest = library.Pool((), {k: v for k, v in pool.own.items() if k != "dpad"})
    frames, _ = film(pool[name], 0.35, 0.9)
    best, place, _ = found([np.ascontiguousarray(np.rot90(f)) for f in frames], rest)
    assert place is None and best.score < extract.SURE


def test_crosses_of_another_colour_are_no_dpad(pool, blind):
    """Streets between houses, blue: a dark d-pad, even at half opacity, is not."""
    town = np.full((H, W, 3), (45, 90, 180), np.uint8)
    for x, y in np.ndindex(7, 3):
        town[144 * y :, 96 * x :][:96, :48] = 192
    best, place, _ = found([town] * N, library.Pool((), {"dpad": pool["dpad"]}))
    assert place is None and best.score < 0.1 * extract.SURE


def test_black_lines_are_not_found_in_the_dark(pool, blind):
    """Where they cannot be seen, whatever else is there must not speak for them."""
    rng, template = np.random.default_rng(0), pool["lines"]
    black = replace(template, atlas=template.atlas * np.array([0, 0, 0, 1], np.uint8))
    night = np.zeros((H, W, 3), np.uint8)
    for x, y in rng.integers((20, 20), (W - 40, H - 40), (14, 2)).tolist():
        night[y : y + 14, x : x + 20] = 180, 80, 40
    best, place, _ = found([night] * N, library.Pool((), {"lines": black}))
    assert place is None and best.score < 0.5 * extract.SURE


def test_built_in_templates_are_left_to_the_features(pool, blind):
    """They are too many to be laid everywhere."""
    frames, _ = film(pool["ps4-dark"], 0.4, 0.9)
    assert found(frames, library.Pool(["ps4-dark"]))[1] is None


def test_edges_by_hand():
    """Light on dark as dark on light, faint as strong; upright (1, 0), level (-1, 0), slanted (0,
    1).
    """
    bar = np.zeros((40, 40, 3), np.uint8)
    bar[:, 20:] = 100
    ramp = 3 * np.add.outer(np.arange(40), np.arange(40))
    slanted, turned = np.repeat(ramp[..., None], 3, 2).astype(np.uint8), bar.transpose(1, 0, 2)
    upright, level, lighter, faint = (edges([p]) for p in (bar, turned, 200 - bar, bar // 5))
    assert upright[20, 20] == pytest.approx((1, 0), abs=0.01)
    assert level[20, 20] == pytest.approx((-1, 0), abs=0.01)
    assert (
        np.allclose(upright, lighter, atol=1e-3)
        and faint[20, 20, 0] > 0.9
        and not upright[20, 5].any()
    )
    assert edges([slanted])[20, 20] == pytest.approx((0, 27 / (27 + FAINT**2 / 2)), abs=0.01)
    assert edges([bar, turned // 5])[20, 19, 0] > 0.8


def test_lines_as_bright_as_what_is_behind_them_are_seen_by_their_stillness(pool):
    """In the median they are not there; where they are, the picture changes less than around
    them.
    """
    rng, template, at = np.random.default_rng(0), pool["lines"], (150, 90)
    template = replace(
        template, atlas=np.where(np.arange(4) < 3, 128, template.atlas).astype(np.uint8)
    )
    frames = [
        rng.integers(28, 229, (9, 16, 3), np.uint8).repeat(40, 0).repeat(40, 1) for _ in range(25)
    ]
    for frame in frames:
        render.composite(frame, render.draw(template, np.zeros(16), np.zeros(4), 0.6), *at, 0.9)
    median = np.full_like(frames[0], 128)
    (agreement, affine), *_ = sweep(layers(median, frames), template, W)
    assert (
        agreement > 0.2
        and iou([*affine[:, 2], *np.diag(affine) * template.size], [*at, 240, 120]) > 0.85
    )
