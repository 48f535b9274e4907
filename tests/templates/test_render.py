"""templates/: the built-in pool, the renderer."""

import time

from common import artefact

import cv2
import numpy as np
import pytest

import bench.templates
from templates import library, pads, render

NONE = np.zeros(16, bool), np.zeros(4)
PAD = pads.PAD


def changed_much(template, buttons, sticks, idle):
    """Number of pixels that differ from `idle` by more than 32 of 255."""
    return (np.abs(render.draw(template, buttons, sticks).astype(int) - idle).max(2) > 32).sum()


@pytest.mark.parametrize("name", library.templates())
def test_each_button_changes_its_own_box_and_nothing_else(name):
    template = library.templates()[name]
    where, idle = render.layout(template), render.draw(template, *NONE).astype(int)
    assert idle.shape == (template.size[1], template.size[0], 4)
    assert (idle[..., :3] <= idle[..., 3:] + 1).all(), "not premultiplied"
    for i, button in enumerate(artefact.BUTTONS):
        changed = (
            np.abs(render.draw(template, np.arange(16) == i, NONE[1]).astype(int) - idle).max(2) > 8
        )
        if button not in where["buttons"]:
            assert not changed.any()
            continue
        x, y, w, h = where["buttons"][button]
        assert (
            min(w, h) >= 10
            and x >= 0
            and y >= 0
            and x + w <= template.size[0]
            and y + h <= template.size[1]
        ), (button, x, y, w, h)
        ys, xs = np.nonzero(changed)
        assert len(xs) > 25 and changed_much(template, np.arange(16) == i, NONE[1], idle) >= 30, (
            f"{button}: pressed looks like idle"
        )
        assert (
            xs.min() >= x - 1 and xs.max() <= x + w and ys.min() >= y - 1 and ys.max() <= y + h
        ), button
    for side, (cx, cy, travel, w, h) in where["sticks"].items():
        for axis in (0, 1):
            sticks = np.zeros(4)
            sticks[axis + 2 * (side == "RIGHT")] = 0.5
            assert changed_much(template, NONE[0], sticks, idle) >= 100, (
                f"{side} stick does not move"
            )
        assert 0.06 <= travel / template.size[0] <= 0.10
        assert (
            min(cx, cy) - travel - w / 2 > -PAD
            and max(cx + travel + w / 2 - template.size[0], cy + travel + h / 2 - template.size[1])
            < PAD
        )


def test_three_hundred_templates_that_differ_in_every_family():
    pool = library.templates()
    assert len(pool) >= 300 and len(set(pool)) == len(pool)
    assert {t.family for t in pool.values()} == set(pads.FAMILIES) and len(pads.FAMILIES) == 15
    assert (
        sum(
            len(render.layout(t)["buttons"]) == 16 and len(render.layout(t)["sticks"]) == 2
            for t in pool.values()
        )
        >= 100
    )
    assert not {"BACK", "START", "LEFT_THUMB"} & set(render.layout(pool["ps5-lean"])["buttons"])
    pictures = []
    for t in pool.values():
        picture = (
            cv2.resize(render.idle(t, 128), (80, 48), interpolation=cv2.INTER_AREA)
            .astype(np.float32)
            .ravel()
        )
        pictures.append(picture)
    pictures = np.stack(pictures)
    for i, name in enumerate(pool):
        apart = np.abs(pictures[i + 1 :] - pictures[i]).mean(1)
        assert not len(apart) or apart.min() > 0.8, (name, list(pool)[i + 1 + apart.argmin()])


def test_held_out_templates_are_a_seventh_in_every_family():
    pool = library.templates()
    out = [n for n in pool if pads.held_out(n)]
    assert (
        0.12 < len(out) / len(pool) < 0.18
        and not set(out) & set(pads.CORE)
        and len(pads.CORE) == 37
    )
    assert {n.split("-")[0] for n in out} == set(pads.FAMILIES)

    def looks(names):
        return {pads.STYLES[pads.TEMPLATES[n][1]].look for n in names}

    assert looks(out) == {"metal", "sketch", "lcd"} and not looks(out) & looks(set(pool) - set(out))


MEANS = """138.30 68.90 39.50 23.85 69.94 139.06 39.04 51.13 73.39 69.65 34.51 21.03 69.96 141.16
39.99 48.98 80.22 58.51 146.52 71.16 38.33 23.94
66.32 136.63 39.14 94.33 135.61 76.69 41.82 45.52 94.93 65.24 43.11 34.30 32.06 95.35 46.14"""


def test_first_templates_look_as_they_did():
    """The pictures that weights/parse.safetensors was trained on: their mean value, idle and
    everything pressed, as recorded then.
    """
    for name, mean in zip(pads.CORE, MEANS.split(), strict=True):
        states = [
            render.draw(library.templates()[name], np.full(16, on), np.full(4, 0.3))
            for on in (0, 1)
        ]
        assert abs(np.mean(states) - float(mean)) < 0.05, (name, np.mean(states))


def slow_draw(template, buttons, sticks, scale):
    """The overlay composed element by element in float, straight from the atlas: what draw() must
    give.
    """
    H, W = (round(v * scale) for v in template.size[::-1])
    canvas, margin = np.zeros((H + 400, W + 400, 4)), 200
    on = dict(zip(artefact.BUTTONS, buttons, strict=False))

    def paste(picture, x, y):
        h, w = picture.shape[:2]
        part = canvas[margin + y : margin + y + h, margin + x : margin + x + w]
        part[:] = picture + part * (1 - picture[..., 3:] / 255)

    for e in template.elements:
        (x, y, w, h), column, row, dx, dy = e.mapping, 0, 0, 0.0, 0.0
        if e.kind == "dpad":
            right, down = (
                int(on[a]) - int(on[b])
                for a, b in (("DPAD_RIGHT", "DPAD_LEFT"), ("DPAD_DOWN", "DPAD_UP"))
            )
            column = [
                (0, 0),
                (-1, 0),
                (1, 0),
                (0, -1),
                (0, 1),
                (-1, -1),
                (1, -1),
                (-1, 1),
                (1, 1),
            ].index((right, down))
        elif e.kind == "stick":
            dx, dy = (float(v) * e.radius * scale for v in sticks[2 * (e.id == "RIGHT") :][:2])
            row = int(e.click and on[f"{e.id}_THUMB"])
        elif e.kind != "texture":
            row = int(on[e.id])
        cut = template.atlas[y + row * (h + 3) :, x + column * (w + 3) :][:h, :w].astype(np.float32)
        cut[..., :3] *= cut[..., 3:] / 255
        left, top = int(np.floor(e.pos[0] * scale)), int(np.floor(e.pos[1] * scale))
        tw, th = int(np.ceil(w * scale)) + 3, int(np.ceil(h * scale)) + 3
        shown = render.resample(
            cut, (scale, scale, e.pos[0] * scale - left + 1, e.pos[1] * scale - top + 1), tw, th
        ).astype(float)
        if e.trail:
            color, width = e.trail
            cx, cy = (e.pos[0] + w / 2) * scale, (e.pos[1] + h / 2) * scale
            v, u = np.mgrid[: canvas.shape[0], : canvas.shape[1]] + 0.5 - margin
            t = np.clip(((u - cx) * dx + (v - cy) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            alpha = np.clip(
                width * scale / 2 + 0.5 - np.hypot(u - cx - t * dx, v - cy - t * dy), 0, 1
            )[..., None]
            paste(
                alpha * [*(int(color[k : k + 2], 16) for k in (1, 3, 5)), 255.0], -margin, -margin
            )
        fx, fy = dx - np.floor(dx), dy - np.floor(dy)
        slid = np.zeros((th + 1, tw + 1, 4))
        for j, i, share in (
            (0, 0, (1 - fx) * (1 - fy)),
            (0, 1, fx * (1 - fy)),
            (1, 0, (1 - fx) * fy),
            (1, 1, fx * fy),
        ):
            slid[j : j + th, i : i + tw] += share * shown
        paste(slid, left - 1 + int(np.floor(dx)), top - 1 + int(np.floor(dy)))
    return canvas[margin : margin + H, margin : margin + W]


def test_fast_drawing_equals_slow_drawing():
    rng = np.random.default_rng(3)
    names = [
        f"{family}-{style}"
        for family, style in zip([*pads.FAMILIES] * 2, [*pads.STYLES] * 2, strict=False)
    ]
    for name in dict.fromkeys(
        names + ["gamecube-glass", "ps3-trail", "arcade-trail", "gamecube-sprite", "ps4-dark"]
    ):
        template = library.templates()[name]
        for scale in (256 / max(template.size), 1.0, 1.3):
            state = rng.random(16) < 0.4, rng.uniform(-1, 1, 4)
            apart = np.abs(
                render.draw(template, *state, scale) - slow_draw(template, *state, scale)
            )
            assert apart.max() <= 3 and apart.mean() < 0.5, (name, scale, apart.max(), apart.mean())


@pytest.mark.slow
def test_pool_is_built_and_drawn_quickly(capsys):
    library.builtin.cache_clear()
    start = time.process_time()
    assert len(list(library.templates().values())) == len(pads.TEMPLATES)
    built = time.process_time() - start
    rate = bench.templates.main(bench.templates.Config(images=10))
    with capsys.disabled():
        print(f"\n{capsys.readouterr().out.strip()}; built in {built:.1f} s")
    assert built < 25 and rate > 700


def test_a_crowd_holds_copies_in_other_colours():
    n, first = len(pads.TEMPLATES), next(iter(pads.TEMPLATES))
    among = bench.templates.crowd(2 * n + 1)
    one, copy, again = (among[name].atlas for name in (first, f"{first}/1", f"{first}/2"))
    assert len(among) == 2 * n + 1 and among.family(f"{first}/2") == among.family(first)
    assert (one[..., 3] == copy[..., 3]).all() and all(
        (a != b).any() for a, b in ((one, copy), (one, again), (copy, again))
    )


def test_a_template_is_drawn_when_it_is_asked_for():
    library.builtin.cache_clear()
    pool = library.templates()
    assert (
        "nes-lcd" in pool
        and "nes-none" not in pool
        and len(pool) == len(list(pool))
        and library.builtin.cache_info().currsize == 0
    )
    assert (
        pool["nes-lcd"] is library.templates()["nes-lcd"]
        and library.builtin.cache_info().currsize == 1
    )
    with pytest.raises(KeyError):
        library.templates(pads.CORE)["nes-lcd"]


@pytest.mark.parametrize("name", ["xbox360-light", "ps3-outline", "keys-neon"])
def test_stick_moves_by_axis_times_radius(name):
    template = library.templates()[name]
    for side, axis in (("LEFT", 0), ("RIGHT", 2)):
        cx, cy, travel, w, h = render.layout(template)["sticks"][side]
        alone = render.Template(
            "alone",
            "",
            template.size,
            template.atlas,
            tuple(e for e in template.elements if e.id == side),
        )
        for scale, dx, dy in (
            (1.0, 0, 0),
            (1.0, 1, -0.5),
            (0.8, -0.37, 0.81),
            (1.3, 0.123, -0.456),
        ):
            sticks = np.zeros(4)
            sticks[axis : axis + 2] = dx, dy
            alpha = render.draw(alone, NONE[0], sticks, scale)[..., 3].astype(float)
            ys, xs = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
            seen = (xs * alpha).sum() / alpha.sum(), (ys * alpha).sum() / alpha.sum()
            assert np.allclose(
                seen, ((cx + dx * travel) * scale, (cy + dy * travel) * scale), atol=0.12
            )


def test_dpad_diagonals_and_opposites():
    template = library.templates()["ps4-dark"]

    def press(*names):
        return render.draw(template, [b in names for b in artefact.BUTTONS], NONE[1]).astype(int)

    both = press("DPAD_UP", "DPAD_LEFT")
    assert (both == press("DPAD_UP") + press("DPAD_LEFT") - press()).mean() > 0.999
    assert (press("DPAD_LEFT", "DPAD_RIGHT") == press()).all()


def test_composite_clips_and_blends():
    frame = np.full((40, 40, 3), 100, np.uint8)
    overlay = np.zeros((20, 20, 4), np.uint8)
    overlay[:] = (100, 0, 0, 128)
    render.composite(frame, overlay, 30, -10, 1.0)
    assert (
        np.abs(frame[5, 35].astype(int) - (150, 50, 50)).max() <= 1
        and (frame[10:] == 100).all()
        and (frame[:, :30] == 100).all()
    )
    render.composite(frame, overlay, 0, 20, 0.5)
    assert np.abs(frame[25, 5].astype(int) - (125, 75, 75)).max() <= 1
    render.composite(frame, overlay, 100, 100)


def test_crop_undoes_composite():
    template = library.templates()["xboxone-light"]
    picture = render.draw(template, *NONE, 0.75)
    frame = np.zeros((300, 400, 3), np.uint8)
    render.composite(frame, picture, 37, 41)
    affine = np.array([[0.75, 0, 37], [0, 0.75, 41]])
    back = render.crop(frame, affine, template.size, 240, 165)
    assert back.shape == (165, 240, 3) and np.abs(back.astype(int) - picture[..., :3]).mean() < 1.0
    assert render.crop(frame, affine, template.size, 96, 66).shape == (66, 96, 3)
