"""extract.py: templates and renderer, then localization on synthetic videos, then what a user can
do wrong.
"""

import itertools
import json
import re
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

from common import ROOT, artefact
from common.pictures import VideoWriter

import cv2
import numpy as np
import pytest
import torch

import bench.templates
import extract
from templates import features, library, pads, presets, render, xfeat, xfeat_training

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


# ---- templates and renderer ----------------------------------------------------------------------


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


# ---- users' own skins ----------------------------------------------------------------------------

CODES = (
    "SOUTH",
    "EAST",
    "WEST",
    "NORTH",
    "BACK",
    "GUIDE",
    "START",
    "LEFT_THUMB",
    "RIGHT_THUMB",
    "LEFT_SHOULDER",
    "RIGHT_SHOULDER",
    "DPAD_UP",
    "DPAD_DOWN",
    "DPAD_LEFT",
    "DPAD_RIGHT",
)


def save(path, rgba):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))


def obs(template):
    """The elements of a built-in template as an OBS input-overlay preset lists them."""
    out = []
    for e in template.elements:
        kind = {"texture": 0, "button": 2, "stick": 5, "trigger": 6, "dpad": 8}[e.kind]
        item = {
            "type": kind,
            "id": f"thing{len(out)}",
            "pos": list(e.pos),
            "mapping": list(e.mapping),
            "z_level": "1",
        }
        item |= {"code": CODES.index(e.id)} if kind == 2 else {}
        item |= {"side": int("RIGHT" in e.id)} if kind in (5, 6) else {}
        item |= {"stick_radius": e.radius} if kind == 5 else {}
        out.append(item | ({"trigger_mode": True, "direction": 1} if kind == 6 else {}))
    return {
        "overlay_width": template.size[0],
        "overlay_height": template.size[1],
        "flags": 4,
        "elements": out,
    }


def preset(folder, atlas, data, name="pad", more=None):
    save(folder / f"{name}.png", atlas)
    (folder / f"{name}.json").write_text(json.dumps(data))
    if more is not None:
        (folder / "nitrogen.json").write_text(json.dumps(more))


def read(folder):
    presets.load_skins.cache_clear()
    return presets.read_skins(folder)


def small(*elements, w=300, h=200, **changes):
    """(atlas, preset) of w x h px: a gray body, and buttons (code, x, y) of 20 x 20 px, black at
    rest and white when pressed.
    """
    atlas = np.zeros((h + 60, w, 4), np.uint8)
    atlas[:h] = (120, 120, 120, 255)
    atlas[h + 3 : h + 23, :20], atlas[h + 26 : h + 46, :20] = (0, 0, 0, 255), (255, 255, 255, 255)
    boxes = [
        {"type": 2, "id": "x", "code": c, "pos": [x, y], "mapping": [0, h + 3, 20, 20]}
        for c, x, y in elements
    ]
    body = {"type": 0, "id": "body", "pos": [0, 0], "mapping": [0, 0, w, h]}
    return atlas, {"overlay_width": w, "overlay_height": h, "elements": [body, *boxes]} | changes


@pytest.mark.parametrize("name", ["xboxone-dark", "ps5-outline", "snes-light", "keys-neon"])
def test_preset_is_read_as_the_template_that_it_was_written_from(tmp_path, name):
    template, rng = library.templates()[name], np.random.default_rng(1)
    preset(tmp_path / "a/b", template.atlas, obs(template), more={"family": "mine"})
    (mine,) = read(tmp_path).values()
    assert mine.name == "a/b/pad" and mine.family == "mine"
    shift = np.subtract(mine.size, template.size)  # sticks that leave the canvas make it larger
    assert (0 <= shift).all() and (shift < 8).all()
    assert set(render.layout(mine)["buttons"]) == set(render.layout(template)["buttons"])

    def middle(t):
        return np.add(
            render.layout(t)["buttons"]["SOUTH"][:2],
            np.divide(render.layout(t)["buttons"]["SOUTH"][2:], 2),
        )

    x, y = np.round(middle(mine) - middle(template)).astype(int)
    for _ in range(5):
        state = rng.random(16) < 0.4, rng.uniform(-1, 1, 4)
        want, got = render.draw(template, *state), render.draw(mine, *state)
        assert np.abs(got[y:, x:][: want.shape[0], : want.shape[1]].astype(int) - want).max() <= 1


def test_buttons_go_by_their_places_where_codes_follow_the_letters(tmp_path, capsys):
    # A right, B below, X above, Y left: a Switch skin
    letters = (0, 240, 90), (1, 210, 120), (2, 210, 60), (3, 180, 90)

    def where():
        return {
            k: tuple(v[:2]) for k, v in render.layout(*read(tmp_path).values())["buttons"].items()
        }

    preset(tmp_path, *small(*letters))
    assert (
        where() == {"EAST": (240, 90), "SOUTH": (210, 120), "NORTH": (210, 60), "WEST": (180, 90)}
        and "places" in capsys.readouterr().out
    )
    preset(tmp_path, *small(*letters), more={"positions": "codes"})
    assert where() == {
        "SOUTH": (240, 90),
        "EAST": (210, 120),
        "WEST": (210, 60),
        "NORTH": (180, 90),
    }
    # in a row: no places to go by
    preset(tmp_path, *small((0, 180, 90), (1, 210, 90), (2, 240, 90), (3, 270, 90)), more={})
    assert where()["SOUTH"] == (180, 90) and where()["NORTH"] == (270, 90)


def test_joystick_numbers_old_codes_and_codes_of_ones_own(tmp_path):
    def names():
        return set(render.layout(*read(tmp_path).values())["buttons"])

    cube = ((1, 200, 60), (2, 170, 70), (3, 150, 100), (4, 160, 30), (8, 220, 10), (16, 100, 90))
    preset(tmp_path, *small(*cube))
    assert names() == {"EAST", "SOUTH", "WEST", "NORTH", "RIGHT_SHOULDER", "START"}
    preset(tmp_path, *small((0xEC00, 10, 10), (0xEC07, 60, 10), (0xEC0B, 10, 60)))
    assert names() == {"SOUTH", "START", "DPAD_LEFT"}
    # 5 is the guide button
    preset(
        tmp_path,
        *small((0, 10, 10), (5, 60, 10), (20, 10, 60), (6, 60, 60)),
        more={"codes": {"20": "BACK"}},
    )
    assert names() == {"SOUTH", "BACK", "START"}


def test_ids_say_nothing_and_order_decides(tmp_path):
    atlas, data = small((4, 40, 40), (6, 90, 40))
    data["elements"][1]["id"], data["elements"][2]["id"] = "start", "select"
    data["elements"].reverse()  # the body last: it hides the buttons
    preset(tmp_path, atlas, data)
    (mine,) = read(tmp_path).values()
    assert (
        render.layout(mine)["buttons"]["BACK"][0] == 40
        and (render.draw(mine, np.ones(16), NONE[1])[2:-2, 2:-2, :3] == 120).all()
    )


def test_triggers_sticks_player_number_and_what_never_changes(tmp_path):
    atlas, data = small((0, 10, 10), (1, 10, 60))
    # a trigger: half of the idle picture shines through
    atlas[203:223, 40:60], atlas[226:246, 40:60] = (0, 0, 200, 255), (200, 0, 0, 128)
    # pressed as idle
    atlas[203:223, 80:100], atlas[226:246, 80:100] = (9, 9, 9, 255), (9, 9, 9, 255)
    for x in range(4):
        atlas[203:213, 120 + 13 * x : 130 + 13 * x] = (50 * x, 0, 0, 255)
    data["elements"] += [
        {
            "type": 6,
            "pos": [60, 10],
            "mapping": [40, 203, 20, 20],
            "side": 0,
            "trigger_mode": False,
            "direction": 3,
        },
        {
            "type": 6,
            "pos": [100, 10],
            "mapping": [40, 203, 20, 20],
            "side": 1,
            "trigger_mode": True,
        },
        {"type": 5, "pos": [150, 90], "mapping": [80, 203, 20, 20], "side": 0, "stick_radius": 10},
        {"type": 2, "pos": [200, 10], "mapping": [80, 203, 20, 20], "code": 6},
        {"type": 7, "pos": [250, 10], "mapping": [120, 203, 10, 10]},
        {"type": 1, "code": 30},
        {"type": 9},
    ]
    preset(tmp_path, atlas, data)
    (mine,) = read(tmp_path).values()
    where = render.layout(mine)
    assert set(where["buttons"]) == {"SOUTH", "EAST", "LEFT_TRIGGER", "RIGHT_TRIGGER"} and where[
        "sticks"
    ] == {"LEFT": [160, 100, 10, 20, 20]}
    all_on = render.draw(mine, np.ones(16), np.array([1, 0, 0, 0])).astype(int)
    assert (
        np.abs(all_on[20, 70] - (100, 0, 100, 255)).max() <= 2
        and np.abs(all_on[20, 110] - (160, 60, 60, 255)).max() <= 2
    )
    assert tuple(all_on[20, 210]) == (9, 9, 9, 255) and tuple(all_on[15, 255]) == (0, 0, 0, 255)
    assert (all_on[91:109, 161:179, 0] == 9).all() and (all_on[91:109, 151:159, 0] == 120).all()


def test_small_skins_are_enlarged_large_ones_shrunk_and_nothing_is_cut_off(tmp_path):
    atlas = np.zeros((15, 24, 4), np.uint8)
    atlas[:10, :15] = (90, 90, 90, 255)
    atlas[[0, 4], 20], atlas[0, 22], atlas[4, 22] = (
        (9, 9, 9, 255),
        (0, 0, 0, 255),
        (255, 255, 255, 255),
    )
    data = {
        "overlay_width": 15,
        "overlay_height": 10,
        "elements": [
            {"type": 0, "pos": [0, 0], "mapping": [0, 0, 15, 10]},
            {"type": 5, "side": 0, "pos": [4, 4], "mapping": [20, 0, 1, 1], "stick_radius": 1},
            {"type": 2, "code": 0, "pos": [-3, 2], "mapping": [22, 0, 1, 1]},
        ],
    }  # left of the canvas
    preset(tmp_path / "tiny", atlas, data)
    atlas, data = small((0, 300, 300), w=2400, h=1200)
    preset(tmp_path / "huge", atlas, data)
    pool = read(tmp_path)
    tiny, huge = pool["tiny/pad"], pool["huge/pad"]
    assert tiny.size == (18 * 14, 10 * 14) and render.layout(tiny)["buttons"] == {
        "SOUTH": [0, 28, 14, 14]
    }
    assert render.layout(tiny)["sticks"] == {"LEFT": [7.5 * 14, 4.5 * 14, 14, 14, 14]}
    near, far = (render.draw(tiny, NONE[0], np.array([v, 0, 0, 0])) for v in (0.25, 0.75))
    assert (near != far).any() and set(np.unique(near[..., 0])) <= {0, 90, *range(9, 91)}
    assert huge.size == (960, 480) and render.layout(huge)["buttons"]["SOUTH"] == [120, 120, 8, 8]
    assert (render.draw(huge, np.ones(16), NONE[1])[121:127, 121:127] == 255).all() and (
        render.draw(huge, *NONE)[130:-2, 2:-2, 0] == 120
    ).all()


def test_several_pictures_for_one_list_and_several_lists_in_one_folder(tmp_path):
    atlas, data = small((0, 10, 10))
    preset(tmp_path / "one", atlas, data)
    save(tmp_path / "one/pad-red.png", atlas)
    save(tmp_path / "one/preview.png", atlas)
    preset(tmp_path / "two", atlas, data, "a")
    preset(tmp_path / "two", atlas, data, "b")
    preset(tmp_path / "three", atlas, data, "overlay")
    (tmp_path / "three/overlay.png").rename(tmp_path / "three/nes.png")
    preset(tmp_path / "four", atlas, data, "pad")
    preset(tmp_path / "four", atlas, data, "pad-x")
    (tmp_path / "four/pad-x.png").unlink()  # two lists for one picture
    assert set(read(tmp_path)) == {
        "four/pad",
        "four/pad-x",
        "one/pad/pad",
        "one/pad/pad-red",
        "two/a",
        "two/b",
        "three/overlay",
    }


def test_pictures_with_boxes(tmp_path):
    idle = np.zeros((160, 300, 4), np.uint8)
    idle[5:155, 5:295] = (80, 90, 100, 255)
    cv2.circle(idle, (60, 80), 15, (250, 250, 250, 255), -1)
    pressed = idle.copy()
    pressed[20:40, 200:220] = (255, 0, 0, 255)
    save(tmp_path / "idle.png", idle)
    save(tmp_path / "on.png", pressed)
    boxes = {
        "idle": "idle.png",
        "pressed": "on.png",
        "buttons": {"SOUTH": [195, 15, 30, 30], "EAST": [240, 15, 20, 20]},
        "sticks": {"LEFT": [44, 64, 33, 33, 12]},
        "family": "mine",
    }
    (tmp_path / "pad.json").write_text(json.dumps(boxes))
    mine = read(tmp_path)["pad"]
    where = render.layout(mine)
    assert mine.family == "mine" and mine.size == (300, 160)
    assert where["buttons"] == {"SOUTH": [200, 20, 20, 20]} and where["sticks"] == {
        "LEFT": [60.5, 80.5, 12, 33, 33]
    }
    # inside areas, exactly; at their edges the renderer is a little soft
    for want, on in ((idle, 0), (pressed, 1)):
        apart = np.abs(render.draw(mine, np.full(16, on), NONE[1]).astype(int) - want).max(2)
        assert (
            (apart[22:38, 202:218] == 0).all() and apart.max() <= 64 and (apart > 1).mean() < 0.05
        )
    moved = render.draw(mine, NONE[0], np.array([1, 0, 0, 0])).astype(int)
    assert (moved[80, 60:84, 0] == 250).all() and np.abs(
        moved[65:96, 44:56, :3] - (80, 90, 100)
    ).max() < 12
    del boxes["pressed"]
    (tmp_path / "pad.json").write_text(json.dumps(boxes))
    brighter = render.draw(read(tmp_path)["pad"], np.ones(16), NONE[1]).astype(int)
    assert brighter[25, 250, 0] > 180 and brighter[100, 150, 0] == 80


def broken_files(case, folder, atlas, data):
    """A skin whose files are at fault, and words of the reason; None if the case is another one."""
    if case == "way out":
        folder.mkdir()
        save(folder.parent.parent / "outside.png", atlas)
        (folder / "pad.json").write_text(
            json.dumps({"idle": "../../outside.png", "buttons": {"SOUTH": [0, 0, 9, 9]}})
        )
        return "out of the folder"
    if case == "box outside":
        save(folder / "idle.png", atlas)
        (folder / "pad.json").write_text(
            json.dumps({"idle": "idle.png", "buttons": {"SOUTH": [290, 0, 20, 9]}})
        )
        return "not inside the picture"
    preset(folder, atlas, data)
    png = folder / "pad.png"
    if case == "no picture":
        png.unlink()
        return "no PNG"
    if case == "broken picture":
        png.write_bytes(png.read_bytes()[:60])
        return "PNG"
    if case == "not JSON":
        (folder / "pad.json").write_text("{")
        return "not JSON"
    if case == "huge picture":
        raw = bytearray(png.read_bytes())
        raw[16:20] = (1 << 20).to_bytes(4, "big")
        png.write_bytes(raw)
        return "PNG of at most"


def broken(case, folder):
    """A skin that cannot be read, and words of the reason."""
    atlas, data = small((0, 10, 10))
    if words := broken_files(case, folder, atlas, data):
        return words
    element = data["elements"][1]
    if case == "no gamepad":
        data["elements"] = data["elements"][:1] + [
            {"type": 1, "code": 30, "pos": [0, 0], "mapping": [0, 0, 9, 9]}
        ]
    elif case == "huge canvas":
        data["overlay_width"] = 9000
    elif case == "far away":
        element["pos"] = [8000, -8000]
    elif case == "negative":
        element["mapping"] = [-4, 0, 20, 20]
    elif case == "outside":
        element["mapping"] = [300, 203, 20, 20]
    elif case == "not numbers":
        element["pos"] = [float("nan"), "7"]
    elif case == "no list":
        data["elements"] = {"type": 2}
    preset(folder, atlas, data)
    return {
        "no gamepad": "no gamepad element",
        "huge canvas": "overlay_width",
        "far away": "far outside",
        "negative": "mapping",
        "outside": "not inside",
        "not numbers": "pos",
        "no list": "expected a list",
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        "no picture",
        "broken picture",
        "not JSON",
        "way out",
        "box outside",
        "huge picture",
        "no gamepad",
        "huge canvas",
        "far away",
        "negative",
        "outside",
        "not numbers",
        "no list",
    ],
)
def test_a_skin_that_cannot_be_read_is_named_and_left_out(tmp_path, capsys, case):
    root = tmp_path / "skins"
    root.mkdir()
    words = broken(case, root / "bad")
    with pytest.raises(SystemExit, match="no skin there can be read"):
        read(root)
    line = next(x for x in capsys.readouterr().out.splitlines() if "skipped" in x)
    assert "bad/pad" in line and words in line, line
    preset(root / "good", *small((0, 10, 10)))
    assert list(read(root)) == ["good/pad"]


def test_skins_come_first_and_on_the_sheet(tmp_path):
    template = library.templates()["ps4-dark"]
    preset(tmp_path / "skins", template.atlas, obs(template), "ps4-dark")
    pool = library.pool(tmp_path / "skins")
    assert (
        list(pool)[0] == "ps4-dark"
        and pool["ps4-dark"].family == "user"
        and len(pool) == len(pads.TEMPLATES)
    )
    done = run(
        "templates", "--templates", "skins", "--family", "user", "--out", "sheet.png", cwd=tmp_path
    )
    assert done.returncode == 0 and "1 templates" in done.stdout, done.stderr
    for args, words in (
        (("--templates", "gone"), "no such folder"),
        (("--family", "gone"), "none of that"),
    ):
        done = run("templates", *args, cwd=tmp_path)
        assert (
            done.returncode == 1 and words in done.stderr and done.stderr.strip().count("\n") == 0
        )


# ---- localization --------------------------------------------------------------------------------


def run(*args, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "extract.py"), *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


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
    used = {p: p.stat().st_mtime_ns for p in (tmp_path / "data/index").iterdir()}
    monkeypatch.setattr(features, "INDICES", 2)
    extract.bank_of(library.templates(pads.CORE[:2]), "sift")
    # of the four, the new one and the one used last stay
    extract.bank_of(library.templates(pads.CORE[:4]), "sift")
    assert [p.stat().st_mtime_ns > used.get(p, 0) for p in (tmp_path / "data/index").iterdir()] == [
        True,
        True,
    ]
    monkeypatch.setattr(features, "ROOT", tmp_path / "file")
    (tmp_path / "file").write_text("")
    assert np.array_equal(
        extract.bank_of(library.templates(pads.CORE[:2]), "sift")["owner"], a["owner"]
    )


@pytest.mark.parametrize("detector", ["sift", "xfeat"])
def test_a_changed_skin_leaves_the_built_in_descriptors(detector, tmp_path, monkeypatch):
    """The index is the same to the bit whether SIFT's are kept, with or without a skin, or not;
    XFeat's are made anew.
    """
    monkeypatch.setattr(features, "ROOT", tmp_path)
    real, seen, mine = features.described, [], library.templates()["ps4-dark"]
    monkeypatch.setattr(
        features,
        "described",
        lambda pool, names, *args: (seen.append(len(names)), real(pool, names, *args))[1],
    )

    def made(skin):
        return extract.bank_of(library.Pool(pads.CORE[:3], {"mine": skin}), detector)

    extract.bank_of(library.templates(pads.CORE[:3]), detector)
    made(library.templates()["snes-light"])
    second = made(mine)
    assert seen == ([3, 1, 1] if detector == "sift" else [3, 3, 1, 3, 1])
    assert (tmp_path / "data/descriptors").exists() == (detector == "sift")
    (tmp_path / "data").rename(tmp_path / "aside")
    afresh = made(mine)
    assert all(
        np.array_equal(second[k], afresh[k]) and second[k].dtype == afresh[k].dtype for k in afresh
    ) and set(afresh["owner"]) == {0, 1, 2, 3}
    assert afresh["sizes"].tolist() == [
        list(t.size) for t in (mine, *library.templates(pads.CORE[:3]).values())
    ]
    # the same pictures in a pool of their own: the same rows
    alone = extract.bank_of(library.templates(["ps4-dark"]), detector)

    def rows(bank, i):
        return set(
            map(
                bytes,
                np.hstack([bank["points"], bank["descriptors"]])[bank["owner"] == i].astype(
                    np.float32
                ),
            )
        )

    assert rows(alone, 0) == rows(second, 0)


@pytest.mark.parametrize("detector", ["sift", "xfeat"])
def test_a_descriptor_finds_its_like(detector):
    """The index looks into few cells and still finds most of the pairs that a search through
    everything finds, and no other.
    """
    bank = extract.bank_of(library.templates(pads.CORE[:12]), detector)
    _, descriptors = extract.detectors(xfeat.XFEAT_WEIGHTS)[detector](
        render.idle(library.templates()["xbox360-dark"], 90, 0.8)
    )
    least = extract.ALIKE[detector]
    whole = np.argwhere(descriptors @ bank["descriptors"].T.astype(np.float32) / 254 > least)
    found = set(zip(*(v.tolist() for v in extract.match(descriptors, bank, least)), strict=False))
    assert len(found) > 0.8 * len(whole) > 1000 and not found - set(map(tuple, whole.tolist()))


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


# ---- XFeat ---------------------------------------------------------------------------------------

# The official network on weights made from their names (see fill), on 192 x 256 px of noise: per
# output its shape, mean, standard deviation, and the first 8 channels at the corner and at [H // 2,
# W // 2].
GOLDEN_XFEAT = [
    (
        [1, 64, 24, 32],
        0.04404463795669757,
        0.9374807936582176,
        [0.0427364, -0.1483355, -0.4172991, -0.272434, -0.3126107, -0.2043465, 0.2963886, 0.311541],
        [-0.57658, 0.0516631, -2.0726708, -0.7408883, -0.095055, 0.6281497, -0.420186, 1.2623931],
    ),
    (
        [1, 65, 24, 32],
        -0.002219747288187707,
        0.09428887741714732,
        [
            0.1252313,
            0.0073641,
            -0.0203135,
            0.0430999,
            -0.0436554,
            0.1030468,
            -0.0097969,
            -0.0896797,
        ],
        [
            0.0538053,
            0.0087501,
            0.0418415,
            -0.0250664,
            -0.1530831,
            0.1480426,
            -0.0347307,
            -0.0814053,
        ],
    ),
    ([1, 1, 24, 32], 0.4882244496092456, 0.012570367564464807, [0.5176808], [0.4721026]),
]


def fill(name, shape):
    r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(
        np.asarray(0.5 + np.abs(r) if name.endswith("running_var") else 0.08 * r, np.float32)
    )


def filled():
    return {name: fill(name, shape) for name, shape in xfeat.xfeat_shapes().items()}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-7), (torch.float32, 2e-5)])
@pytest.mark.parametrize("prepare", [lambda w: w, xfeat.fold])
def test_xfeat_parity(dtype, tolerance, prepare):
    image = np.random.default_rng(1).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    x = torch.from_numpy(image / 255).permute(2, 0, 1)[None].to(dtype)
    w = prepare({k: v.to(dtype) for k, v in filled().items()})
    for y, (shape, mean, std, corner, centre) in zip(
        xfeat.xfeat_net(w, x), GOLDEN_XFEAT, strict=False
    ):
        assert list(y.shape) == shape
        h, v = y.shape[-2:]
        found = torch.cat([y.mean()[None], y.std()[None], y[0, :8, 0, 0], y[0, :8, h // 2, v // 2]])
        assert (
            found - torch.tensor([mean, std, *corner, *centre], dtype=dtype)
        ).abs().max() < tolerance


def test_xfeat_parameters():
    for matcher, count in ((False, 657_910), (True, 1_544_758)):
        assert (
            sum(
                int(np.prod(s))
                for k, s in xfeat.xfeat_shapes(matcher).items()
                if "running" not in k
            )
            == count
        )


def test_at_points_by_hand():
    """A ramp over 4 x 3 cells of a 32 x 24 picture, read as the official code reads it: x * 4 / 31
    - 0.5.
    """
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)
    points = torch.tensor([[[12.0, 10.0], [8.0, 12.0]]])
    found = xfeat.at_points(ramp, points, (32, 24))[0, :, 0]
    assert torch.allclose(found, points[0, :, 0] * 4 / 31 - 0.5, atol=1e-6)


def test_detect_step_by_step():
    """Every keypoint is the highest of its 5 x 5 pixels and above the threshold, and none is
    missing.
    """
    image = cv2.GaussianBlur(
        np.random.default_rng(4).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 1.5
    )
    w = xfeat.fold(filled())
    points, descriptors = xfeat.detect(image, w, threshold=0.0155)
    logits = xfeat.xfeat_net(w, torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[1][
        0
    ].double()
    heat = np.zeros((96, 128))
    for i, j in np.ndindex(12, 16):
        heat[8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = logits[:, i, j].softmax(0)[:64].reshape(8, 8)
    # the last row and column read beyond the picture
    wanted = {
        (x + 0.5, y + 0.5)
        for y, x in np.ndindex(95, 127)
        if heat[y, x] > 0.0155
        and heat[y, x] == heat[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].max()
    }
    assert len(wanted) > 50 and set(map(tuple, points.tolist())) == wanted
    assert descriptors.shape == (len(points), 64) and np.allclose(
        np.linalg.norm(descriptors, axis=1), 1, atol=1e-5
    )
    few = xfeat.detect(image, w, top_k=20, threshold=0.0155)
    assert np.array_equal(few[0], points[:20]) and np.array_equal(few[1], descriptors[:20])


def test_detect_resizes_and_takes_batches():
    images = np.random.default_rng(5).integers(0, 256, (2, 100, 150, 3), dtype=np.uint8)
    w = xfeat.fold(filled())
    both = xfeat.detect(images, w, threshold=0.0155)
    for image, (points, descriptors) in zip(images, both, strict=False):
        alone = xfeat.detect(image, w, threshold=0.0155)
        assert (
            len(points)
            and np.allclose(points, alone[0])
            and np.allclose(descriptors, alone[1], atol=1e-5)
        )
        assert (
            (points > 0).all()
            and (points < (150, 100)).all()
            and points[:, 0].max() > 135
            and points[:, 1].max() > 90
        )
    points, descriptors = xfeat.detect(np.full((20, 20, 3), 90, np.uint8), w, threshold=0.5)
    assert points.shape == (0, 2) and descriptors.shape == (0, 64)


def test_cells_by_hand():
    found = xfeat_training.cells(np.array([[9.5, 2.5], [15.9, 15.1], [-0.2, 3], [16.0, 3]]), 16)
    assert found.tolist() == [[64, 17], [64, 63]]


def test_official_weights_load(tmp_path):
    official = {name: fill(name, shape) for name, shape in xfeat.xfeat_shapes(matcher=True).items()}
    official |= {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in list(official)
        if name.endswith("running_var")
    }
    assert len(official) == 122
    torch.save(official, tmp_path / "xfeat.pt")
    w = xfeat.load_xfeat(tmp_path / "xfeat.pt")
    assert set(w) == set(filled()) and all(torch.equal(w[k], v) for k, v in filled().items())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("block5.3.layer.0.weight"), "tensor 'block5.3.layer.0.weight' is missing"),
        (
            lambda w: w.update({"skip1.1.weight": torch.zeros(24, 1, 3, 3)}),
            "tensor 'skip1.1.weight' should be finite [24, 1, 1, 1], found [24, 1, 3, 3]",
        ),
        (
            lambda w: w.update({"keypoint_head.3.bias": torch.full((65,), torch.nan)}),
            "tensor 'keypoint_head.3.bias' should be finite",
        ),
        (lambda w: w.update({"head.weight": torch.zeros(3)}), "unknown tensor 'head.weight'"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, words):
    w = filled()
    change(w)
    torch.save(w, tmp_path / "w.pt")
    artefact.write(
        tmp_path / "w.safetensors", {k: v.numpy() for k, v in w.items()}, "nitrogen.features/1"
    )
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(SystemExit, match=re.escape(words)) as e:
            xfeat.load_xfeat(tmp_path / name)
        assert name in str(e.value) and "\n" not in str(e.value)


def test_unreadable_weights(tmp_path):
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pt")
    artefact.write(tmp_path / "other.safetensors", {}, "nitrogen.parser/1")
    for name in ("text.pt", "list.pt", "gone.pt", "gone.safetensors", "other.safetensors"):
        with pytest.raises(SystemExit, match=name) as e:
            xfeat.load_xfeat(tmp_path / name)
        assert "\n" not in str(e.value)


def test_pairs_show_the_same_points():
    """The second picture, undamaged, taken back through the warp is like the first, where the
    template is: 1.5 px aside less so.
    """
    data, exact = (
        xfeat_training.Pairs(3, list(itertools.islice(library.templates().values(), 4))),
        [],
    )
    for i in range(8):
        for make in (data.overlay_pair, data.warped_pair):
            _, (first, second), warp, where = make(np.random.default_rng([3, i]), i)
            likeness = {}
            for aside in np.ndindex(3, 3):
                # 0.5 of it: the pixel's centre
                off = np.array([[1, 0, 1.5 * aside[0] - 1], [0, 1, 1.5 * aside[1] - 1], [0, 0, 1]])
                m = np.linalg.inv([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]) @ warp @ off
                back = cv2.warpPerspective(
                    second,
                    m,
                    where.shape,
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REFLECT,
                )
                likeness[aside] = np.corrcoef(first[where].ravel(), back[where].ravel())[0, 1]
            exact.append(max(likeness, key=likeness.get) == (1, 1))
    assert sum(exact) >= 15
    item, again = data[11], xfeat_training.Pairs(3, data.pool)[11]
    assert all(np.array_equal(item[k], again[k]) for k in item)
    assert (
        item["images"].shape == (2, 224, 224)
        and item["points"].shape == (2, 160, 2)
        and (item["corners"] < 64).any()
    )
    assert item["points"].min() > 0 and item["points"].max() < 224


def test_xfeat_training_resumes_exactly(tmp_path):
    def run(name, *parts):
        cfg = xfeat_training.Config(out=str(tmp_path / name), steps=20, batch=2)
        for steps in parts:
            run = xfeat_training.XFeatTraining(cfg, "cpu")
            for _ in range(steps):
                items = [data[run.steps * 2 + i] for i in range(2)]
                losses = run.step(
                    {k: torch.from_numpy(np.stack([item[k] for item in items])) for k in items[0]}
                )
            run.suspend()
        return losses, run

    data = xfeat_training.Pairs(0, list(itertools.islice(library.templates().values(), 3)))
    (whole, a), (halves, b) = run("a.safetensors", 4), run("b.safetensors", 2, 2)
    assert whole == halves and a.steps == b.steps == 4
    assert all(torch.equal(v, b.tensors()[k]) for k, v in a.tensors().items())
    with pytest.raises(SystemExit, match="another batch"):
        xfeat_training.XFeatTraining(
            xfeat_training.Config(out=str(tmp_path / "a.safetensors"), batch=3), "cpu"
        )


@pytest.mark.slow
def test_xfeat_train_command(tmp_path, capsys):
    done = run(
        "train",
        "--steps",
        "2",
        "--batch",
        "2",
        "--validation",
        "2",
        "--out",
        "x.safetensors",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and "657,910 parameters" in done.stdout, done.stderr
    tensors, info = artefact.read(tmp_path / "x.safetensors", "nitrogen.features/1")
    assert set(tensors) == set(xfeat.xfeat_shapes()) and info["steps"] == 2 and info["images"] == 8
    assert 0 <= info["found_held_out"] <= 1
    again = xfeat_training.Config(
        steps=2, batch=2, validation=2, out=str(tmp_path / "x.safetensors")
    )
    xfeat_training.main(again)
    assert "finished already" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    for folder, words in (("gone", "no such folder"), ("empty", "no video in it")):
        with pytest.raises(SystemExit, match=words):
            xfeat_training.main(replace(again, backgrounds=str(tmp_path / folder)))


def test_shipped_xfeat_weights():
    """They are small, and tell the points of templates that they never saw from all others of the
    picture.
    """
    path = ROOT / "weights/xfeat.safetensors"
    assert path.stat().st_size < 2e6
    unseen = [t for name, t in library.templates().items() if pads.held_out(name)]
    assert (
        xfeat_training.held_out_points(xfeat.load_xfeat(path), xfeat_training.Pairs(5, unseen), 20)
        > 0.8
    )
    assert (
        xfeat_training.held_out_points(
            xfeat_training.random_weights(0), xfeat_training.Pairs(5, unseen), 2
        )
        < 0.2
    )
