"""bench/locate.py: the localization benchmark, its grid, truth, rules and table."""

import json
import subprocess
import sys

from common import ROOT
from common.pictures import read_video

import numpy as np
import pytest

from bench import cases, locate, overlay, plain
from templates import library, pads, presets, render, xfeat


@pytest.fixture
def brief(monkeypatch):
    """Videos of one second; frames are flat gray where the test asks for the background "flat"."""
    real = cases.scene
    monkeypatch.setattr(cases, "SECONDS", 1)
    monkeypatch.setattr(
        cases,
        "scene",
        lambda background, rng, numbers: (
            (np.full((720, 1280, 3), 90, np.uint8) for _ in numbers)
            if background == "flat"
            else real(background, rng, numbers)
        ),
    )
    return overlay.Config(stage="locate", rules="locate")


def skins_and_all():
    return library.pool(str(ROOT / "assets/skins"))


def test_grid_of_the_localization_benchmark():
    """Every combination once; the first part of it shows every cell, rate, background and kind of
    template about equally often.
    """
    every = cases.grid()
    assert (
        len({c[1:5] for c in every}) == len({c.name for c in every}) == len(every) == 4 * 4 * 3 * 5
    )
    first = every[:48]
    assert all(sum(c[1:3] == d[1:3] for c in first) == 3 for d in first)
    assert all(8 <= sum(c.background == b for c in first) <= 11 for b in cases.BACKGROUNDS)
    assert sum(c.own for c in first) == 24 and len(cases.grid(2)) == 480


def test_truth_of_the_localization_benchmark(brief, tmp_path):
    """What is drawn lies in the true box, fills it, and is as wide as the case says."""
    every = skins_and_all()
    for own in (False, True):
        pool = {
            name: every[name]
            for name in ("xbox360-dark", "xbox360/tangerine" if own else "xbox360-chrome")
        }
        case = cases.Case("a", 0.35, 1.0, 0.1, "flat", own)
        truth = cases.make_case(case, tmp_path / "a.mp4", pool, 3)
        frames = [f.astype(int) for _, _, f in read_video(tmp_path / "a.mp4")]
        assert len(frames) == 30 and np.abs(frames[0] - frames[-1]).max() > 60  # inputs change
        rows, cols = np.nonzero((np.abs(frames[-1] - 90).max(2) > 24))
        x, y, w, h = truth["box"]
        seen = [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
        assert w == round(0.35 * 1280) and locate.iou(seen, truth["box"]) > 0.9, (truth, seen)
        assert truth["template"] == list(pool)[1] and (truth["template"] in pads.TEMPLATES) != own


def test_skins_of_other_drawing_code(tmp_path):
    """tests/skins.py draws the presets that are shipped; each is read, with a known family and its
    buttons in different places.
    """
    done = subprocess.run([sys.executable, "tests/skins.py", str(tmp_path)], cwd=ROOT)
    own = presets.read_skins(ROOT / "assets/skins")
    assert done.returncode == 0 and set(presets.read_skins(tmp_path)) == set(own) and len(own) >= 8
    for t in own.values():
        places = render.layout(t)["buttons"]
        assert (
            t.family in pads.FAMILIES
            and len(places) >= 10
            and len({tuple(v) for v in places.values()}) == len(places)
        ), t.name


def test_matchers_by_hand():
    a, b = np.eye(4)[:3], np.eye(4)[[2, 0, 0]] * np.array([[1], [0.9], [0.5]])
    assert plain.mutual(a, b, 0.6).tolist() == [1, -1, 0] and plain.mutual(a, b, 1.0).tolist() == [
        -1,
        -1,
        -1,
    ]
    assert plain.mutual(a[:0], b).size == 0 and plain.mutual(a, b[:0]).tolist() == [-1, -1, -1]
    close = np.array([[1, 0], [0.98, 0.199]])  # two that are about as near
    assert plain.lowe(np.array([[1.0, 0]]), close).tolist() == [0] and plain.lowe(
        np.array([[0.995, 0.0998]]), close
    ).tolist() == [-1]


def test_plain_rule(monkeypatch):
    """The right template and its box on frames that show it, nothing on frames that do not; a
    second detector adds its matches.
    """
    import extract

    pool, rng = library.Pool(("xbox360-dark", "ps4-dark", "snes-dark")), np.random.default_rng(0)
    monkeypatch.setattr(library, "pool", lambda folder: pool)
    frames = [
        np.full((360, 640, 3), 100, np.uint8) + rng.integers(0, 9, (360, 640, 3), np.uint8)
        for _ in range(3)
    ]
    detect, match = plain.detectors()["plain"][0]
    bare = [[detect(f) for f in frames]]
    for f in frames:
        render.composite(
            f, render.draw(pool["ps4-dark"], np.zeros(16), np.zeros(4), scale=0.8), 100, 60, 0.9
        )
    seen = [[detect(f) for f in frames]]

    def rule(seen, pairs):
        return plain.single_frames(seen, pairs, "three templates", None, extract.MIN_INLIERS)

    one = rule(seen, [(detect, match)])
    assert (
        one["template"] == "ps4-dark"
        and locate.iou(one["box"], [100, 60, 256, 176]) > 0.95
        and one["inliers"] >= 20
    )
    assert rule(bare, [(detect, match)]) == {"template": None}
    monkeypatch.setattr(xfeat, "detect", lambda rgb: detect(rgb))
    monkeypatch.setattr(plain, "mutual", lambda a, b: np.full(len(a), -1))
    pairs = plain.detectors()["single"]
    two = rule([*seen, *seen], pairs)
    # the second matched nothing
    assert len(pairs) == 2 and two["template"] == "ps4-dark" and two["inliers"] == one["inliers"]
    plain.bank.cache_clear()


@pytest.mark.slow
def test_bitrates_differ(brief, tmp_path):
    rates = [
        cases.make_case(
            cases.Case("a", 0.25, 1.0, rate, "supertux", False),
            tmp_path / "a.mp4",
            skins_and_all(),
            0,
        )["rate"]
        for rate in cases.RATES
    ]
    assert rates[0] > 1.5 * rates[1] > 2 * rates[2] and 0.03 < rates[0] < 0.2, rates


@pytest.mark.slow
def test_clips_with_nothing_show_no_template(brief, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "draw", lambda *a, **k: pytest.fail("a template is drawn"))
    decoys = []
    monkeypatch.setattr(
        cases.decoys,
        "show",
        lambda picture, decoy, *a, real=cases.decoys.show: (
            decoys.append(decoy),
            real(picture, decoy, *a),
        ),
    )
    for case in cases.nothing(10)[3:8]:
        truth = cases.make_case(case, tmp_path / "a.mp4", {}, 0)
        assert (
            truth["box"] is truth["template"] is None
            and len(list(read_video(tmp_path / "a.mp4"))) >= 25
        )
    assert len(set(decoys)) >= 6  # of eight kinds


def test_localization_resumes(brief, tmp_path, monkeypatch):
    """A case that is finished is kept; a rule that is asked for later is added; another seed is
    refused.
    """
    import dataclasses

    import extract

    calls = []

    def found(video, pool, cfg):
        calls.append(video)
        return {}, {"found": False, "reason": "none", "score": 0.0, "nearest": []}, []

    monkeypatch.setattr(extract, "locate", found)
    monkeypatch.setattr(
        locate, "single_frames", lambda *a: {"template": "x", "family": "y", "box": [0, 0, 1, 1]}
    )
    monkeypatch.setattr(locate, "detectors", lambda: {"plain": ()})
    c, case = (
        dataclasses.replace(brief, out=str(tmp_path), keep=False),
        cases.Case("a", 0.25, 1.0, 0.1, "flat", False),
    )
    first = locate.try_case(case, c)
    assert locate.try_case(case, c) == json.loads(json.dumps(first)) and len(calls) == 1
    assert (
        locate.missed(first, "locate")
        and (tmp_path / "locate/a.png").exists()
        and not list(tmp_path.rglob("*.mp4"))
    )
    both = locate.try_case(case, dataclasses.replace(c, rules="locate,plain"))
    assert (
        set(both["rules"]) == {"locate", "plain"}
        and len(calls) == 1
        and locate.missed(both, "plain")
    )
    with pytest.raises(SystemExit, match="give another --out, or --fresh"):
        locate.try_case(case, dataclasses.replace(c, seed=1))


def test_localization_table_by_hand():
    def result(width, opacity, box, **rules):
        case = cases.Case("n", width, opacity, 0.1, "hud", False)._asdict()
        return {
            "case": case,
            "truth": {"template": "a" if box else None, "family": "f" if box else None, "box": box},
            "rules": {
                r: {"seconds": 2.0, "template": t, "family": f, **({"iou": i} if box and t else {})}
                for r, (t, f, i) in rules.items()
            },
        }

    box, no = [0, 0, 10, 10], (None, None, 0)
    results = [
        result(0.15, 0.5, box, locate=("a", "f", 0.9), plain=no),
        result(0.15, 0.5, box, locate=("b", "f", 0.95), plain=("a", "f", 0.5)),
        result(0.45, 1.0, box, locate=("c", "g", 0.7), plain=("a", "f", 0.9)),
        result(0.45, 1.0, box, locate=no, plain=no),
        result(0, 0, None, locate=no),
        result(0, 0, None, locate=("a", "f", 0), plain=no),
    ]
    table = locate.locate_table(results)
    mine, plain = table["rules"]["locate"], table["rules"]["plain"]
    assert mine == {
        "videos": 4,
        "recall": 0.5,
        "template": pytest.approx(1 / 3),
        "family": pytest.approx(2 / 3),
        "false": 1,
        "clips": 2,
        "seconds": 2.0,
    }
    assert plain["recall"] == 0.25 and plain["clips"] == 1 and plain["false"] == 0
    assert table["cells"]["width, opacity", (0.15, 0.5)] == {"locate": [0, 2], "plain": [2, 2]}
    assert table["cells"]["width, opacity", (0.45, 1.0)] == {"locate": [2, 2], "plain": [1, 2]}
    assert [met for _, met in locate.locate_bars(table)] == [False] * 4
    good = locate.locate_table([results[0], results[4]])
    assert [met for _, met in locate.locate_bars(good)] == [True] * 4
    locate.print_table(table)


def test_other_bars_by_hand():
    """Two right, one of them below the bar; one wrong; one clip without an overlay, nearly taken
    for one.
    """

    def case(box, score, iou):
        return {
            "truth": {"box": box},
            "rules": {"locate": {"score": score, "iou": iou}},
        }

    rows = {
        bar: (recall, false)
        for bar, recall, false in locate.by_bar(
            [
                case([1], 0.4, 0.95),
                case([1], 0.12, 0.9),
                case([1], 0.9, 0.1),
                case([1], 0.0, 0),
                case(None, 0.09, 0),
                case(None, 0.0, 0),
            ]
        )
    }
    assert (
        rows[0.05] == (0.5, 1)
        and rows[0.1] == (0.5, 0)
        and rows[0.2] == (0.25, 0)
        and rows[0.5] == (0, 0)
    )


def test_iou():
    assert (
        locate.iou([0, 0, 10, 10], [0, 0, 10, 10]) == 1
        and locate.iou([0, 0, 10, 10], [20, 0, 5, 5]) == 0
    )
    assert locate.iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
