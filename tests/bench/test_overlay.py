"""bench/overlay.py: metrics by hand; and, marked slow, how well an overlay is read."""

import json

from common import ROOT, artefact
from common.pictures import VideoWriter

import numpy as np
import pytest

import eval as evaluation
from bench import cases, overlay
from commands import command
from templates import library, pads, render
from templates.overlay import choice_of


def test_press_f1_by_hand():
    t = np.zeros((20, 2), bool)
    t[5:8, 0] = t[12:15, 0] = t[3:6, 1] = True  # three true presses
    p = np.zeros((20, 2), bool)
    p[6:8, 0] = True  # one frame late: matched
    p[16:18, 0] = True  # four frames late: a miss and a false press
    assert overlay.press_f1(p, t) == pytest.approx(2 * 1 / (3 + 2))
    assert overlay.press_f1(t, t) == 1 and overlay.press_f1(np.zeros_like(t), t) == 0
    assert np.isnan(overlay.press_f1(np.zeros_like(t), np.zeros_like(t)))


def test_metrics_by_hand():
    T = 10
    true_b, true_s, shown = np.zeros((T, 16)), np.zeros((T, 4)), np.ones(20, bool)
    shown[1] = False  # a hidden button: whatever is read there does not count
    true_b[:5, 0] = true_b[:, 1] = 1
    true_s[:, 0] = np.linspace(-1, 1, T)
    b, s = true_b.copy(), true_s.copy()
    b[0, 0], b[:, 1] = 0, 0  # one of 150 shown cells is wrong
    s[:, 0] += 0.1
    m = overlay.metrics(b, s, true_b, true_s, shown)
    assert m["accuracy"] == pytest.approx(149 / 150) and m["silence"] == pytest.approx(145 / 150)
    assert m["recall"] == pytest.approx(4 / 5) and m["f1"] == pytest.approx(8 / 9)
    assert m["r2"] == pytest.approx(1 - 0.01 / true_s[:, 0].var())


def test_both_scales_of_a_stick_are_measured(tmp_path):
    """One that never goes beyond half way: right by the template's radius, little too far by the
    published percentile, which heeds it.
    """
    x = 0.5 * np.sin(np.arange(600) / 9) * (np.arange(600) % 200 < 150)
    true = np.stack([x] * 4, 1).astype(np.float32)
    common = {
        "buttons": np.zeros((600, 16), np.float16),
        "shown": np.ones(20, bool),
        "confidence": np.ones(600, np.float16),
        "time": np.arange(600) / 30,
    }
    artefact.write(
        tmp_path / "a.truth.safetensors",
        common | {"sticks": true},
        "nitrogen.actions/1",
        unit="normalized",
        family="f",
        template="t",
        opacity=1.0,
        box=[0, 0, 9, 9],
    )
    artefact.write(
        tmp_path / "a.actions.safetensors",
        common | {"sticks": 4 * true},
        "nitrogen.actions/1",
        unit="grid",
        cells_per_radius=4.0,
    )
    radius, percentile = (
        overlay.score_video(str(tmp_path / "a.mp4"), str(tmp_path), scale)["r2"]
        for scale in ("radius", "percentile")
    )
    assert radius > 0.999 and percentile == pytest.approx(1 - (1 / 0.95 - 1) ** 2, abs=2e-3)


def test_interval():
    mean, low, high = evaluation.interval([0.0] * 10 + [1.0] * 10)
    assert mean == 0.5 and 0.25 < low < 0.35 and 0.65 < high < 0.75
    assert evaluation.interval([0.3] * 5) == pytest.approx((0.3, 0.3, 0.3))


def test_overlays_by_family_or_folder(tmp_path):
    pool, groups = choice_of("ps4,xbox360")
    assert [{pool.family(n) for n in g} for g in groups] == [{"ps4"}, {"xbox360"}] and min(
        map(len, groups)
    ) >= 20
    skins, groups = choice_of(str(ROOT / "assets/skins"))
    assert groups == [[n] for n in sorted(skins)] and len(skins) > 10
    pool, (group,) = choice_of("")
    assert not any(map(pads.held_out, group)) and len(group) > 100
    for n in pads.CORE:
        assert (n in group) == (len(render.layout(pool[n])["sticks"]) == 2)
    with pytest.raises(SystemExit, match="no family such as ps9"):
        choice_of("ps9")


def test_the_floor(tmp_path):
    """The matched filter, on an opaque overlay over a quiet game: nearly right without any
    learning.
    """
    template, rng = library.templates()["ps4-flat"], np.random.default_rng(0)
    w, h = template.size
    buttons, sticks = cases.random_play(rng, 90)
    with VideoWriter(tmp_path / "a.mp4", 30, 640, 360) as out:
        for b, s in zip(buttons, sticks, strict=False):
            frame = np.full((360, 640, 3), (60, 90, 70), np.uint8)
            render.composite(frame, render.draw(template, b, s), 40, 30)
            out.write(frame)
    affine = np.float32([[1, 0, 40], [0, 1, 30]])
    median = render.crop(frame * 0 + 80, affine, (w, h), w, h)
    render.composite(median, render.draw(template, np.zeros(16), np.zeros(4)), 0, 0)
    place = {
        "affine": affine[None],
        "corners": np.zeros((1, 4, 2), np.float32),
        "bbox": np.int32([[40, 30, w, h]]),
        "span": np.array([[0, 89]]),
        "median": median[None],
    }
    found = overlay.matched_filter(str(tmp_path / "a.mp4"), place, template)
    m = overlay.metrics(
        found["buttons"] > 0.5, found["sticks"] / 4.17, buttons, sticks, found["shown"]
    )
    assert m["accuracy"] > 0.99 > m["silence"] + 0.02 and m["press_f1"] > 0.9 and m["r2"] > 0.99, m


@pytest.mark.slow
def test_the_overlay_is_read_well(tmp_path):
    """Bars of the extraction benchmark, on fresh recordings: built-in overlays, and skins that
    other code drew, which it was not trained on.
    """
    command("eval.py", "overlay", "--minutes", "2", "--out", str(tmp_path))
    tables = json.loads((tmp_path / "overlay.json").read_text())
    mine, skins = tables["families"]["all"], tables["skins"]["all"]
    assert mine["accuracy"] >= 0.98 and mine["press_f1"] >= 0.9 and mine["r2"] >= 0.95, mine
    assert (
        mine["accuracy"] > mine["silence"] + 0.05 and mine["press_f1"] > mine["matched"]["press_f1"]
    ), mine
    # the filter is a part of the parser, and as good on sticks
    assert mine["r2"] > mine["matched"]["r2"] - 0.005, mine
    assert skins["r2"] >= 0.8 and skins["videos"] == 6, skins
