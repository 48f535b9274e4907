"""eval.py: metrics by hand, players, recordings that repeat to the byte; and, marked slow, the
whole pipe.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, artefact
from common.command_line import command_line
from common.pictures import VideoWriter, read_video, video_facts

import numpy as np
import pytest

import eval as evaluation
import sim
from bench import ablate, locate, overlay, report, speed
from clock.base import GameError
from templates import library, pads, presets, render, xfeat


def command(*args, status=0, **options):
    """Run one of the stages as a user does; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, **options
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


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


def test_players():
    agent = sim.StickyRandom(0)
    pads = [agent(None, None) for _ in range(3000)]
    buttons = np.array([p[0] for p in pads])
    assert 0.2 < buttons.mean() < 0.4 and np.abs([p[1] for p in pads]).max() <= 1
    runs = np.diff(np.flatnonzero(np.diff([p[1][0] for p in pads])))
    assert runs.min() >= 3 and runs.max() <= 30  # held for 0.1 to 1 s
    still = evaluation.ConstantPad()(None, None)
    assert not still[0].any() and not still[1].any()
    right = evaluation.ConstantPad(1, 0)(None, None)
    assert right[1].tolist() == [1, 0, 0, 0] and right[0].sum() == 1


def test_wilson_by_hand():
    """Values of the formula worked out on paper: 0 of 10, 5 of 10, 20 of 20."""
    assert evaluation.wilson(0, 10) == pytest.approx((0, 0, 3.8416 / 13.8416))
    assert evaluation.wilson(5, 10) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    assert evaluation.wilson(20, 20) == pytest.approx((1, 20 / 23.8416, 1))


def test_tasks_lists_thirty():
    out = command("eval.py", "tasks")
    rows = re.findall(r"^  \w+ +(combat|navigation|specific) +\d+ s  \w.*\.$", out, re.M)
    assert len(rows) == 30 and out.endswith("30 tasks: 11 combat, 10 navigation, 9 specific\n")
    assert (
        len(
            re.findall(
                r"^(3D / (open world|action RPG|sports)|2D top-down / roguelike|2D side-scroller)"
                r": [A-Z]",
                out,
                re.M,
            )
        )
        == 10
    )


def test_games_and_tasks_are_chosen_by_name_and_category():
    assert (
        len(evaluation.chosen("all", "all")) == 30 and len(evaluation.chosen("all", "combat")) == 11
    )
    assert evaluation.chosen("ridge,crypt", "specific,reach") == [
        ("crypt", "gems"),
        ("ridge", "reach"),
        ("ridge", "coins"),
    ]
    with pytest.raises(SystemExit, match="has no task or category 'tetris'"):
        evaluation.chosen("ridge", "reach,tetris")
    with pytest.raises(SystemExit, match="no built-in game 'tetris'"):
        evaluation.chosen("tetris", "all")


# ---- play


@pytest.fixture
def policy(tmp_path):
    """A tiny network with random weights, as train.py leaves it."""
    import torch

    import model

    torch.manual_seed(0)
    net = model.NitroGen(model.CONFIGS["tiny"])
    model.save(
        tmp_path / "random" / "model.safetensors",
        net.state_dict(),
        net,
        games={"ridge": 900, "crypt": 800},
    )
    return str(tmp_path / "random" / "model.safetensors")


def player(policy, out, **settings):
    return evaluation.Play(
        **{
            "policy": policy,
            "games": "ridge",
            "tasks": "reach",
            "seeds": 1,
            "execute": 16,
            "steps": 1,
            "workers": 0,
            "out": str(out),
            **settings,
        }
    )


@pytest.mark.parametrize("name, task", [("ridge", "slimes"), ("puck", "goals"), ("ruins", "path")])
def test_undrawn_worlds_move_as_processes_do(name, task):
    """The expert and the random pad get the same score in this process as through GameEnv."""
    for kind in ("expert", "random"):
        job = evaluation.Job(kind, name, task, 10_007)
        agent = (
            evaluation.Expert(name, job.seed) if kind == "expert" else sim.StickyRandom(job.seed)
        )
        with evaluation.launch(name, task, job.seed) as env:
            info, scores = env.reset(seed=job.seed)[1], []
            while not info["score"]["over"] and len(scores) < (10_000 if name == "ridge" else 150):
                scores.append(info["score"])
                pad = agent(None, info)
                info = env.step({"buttons": pad[0], "sticks": pad[1]})[4]
            scores.append(info["score"])
        seen = []
        evaluation.in_process(job, seen.append)
        assert seen[: len(scores)] == scores and (name != "ridge" or len(seen) == len(scores))


def fake(monkeypatch, crashes=(), why="the game ended with status 139"):
    """Episodes without games: the expert succeeds, the policy with even seeds; a list of what was
    played.
    """
    played = []

    def succeeds(job):
        return job.player == "expert" or job.player == "policy" and job.seed % 2 == 0

    def score(job, *_):
        played.append(job)
        if job in crashes:
            raise GameError(why)
        return {"progress": 1.0 if succeeds(job) else 0.25, "success": succeeds(job), "time": 2.0}

    def film(job, c):
        for path in report.film_paths(job, c):
            artefact.write_bytes(path, b"picture")
        return 1.0 if succeeds(job) else 0.25

    monkeypatch.setattr(evaluation, "in_environment", score)
    monkeypatch.setattr(evaluation, "in_process", score)
    monkeypatch.setattr(report, "film", film)
    return played


def test_play_resumes_and_grows(policy, tmp_path, monkeypatch, capsys):
    """Finished episodes are not played again, more seeds play only the new ones, other settings are
    refused, crashes count and are tried again.
    """
    out, crash = tmp_path / "out", evaluation.Job("policy", "crypt", "slay", 10_001)
    played = fake(monkeypatch, [crash])
    first = evaluation.play(player(policy, out, games="crypt,ridge", tasks="combat,reach", seeds=2))
    assert (
        len(played) == 3 * 2 * 5
        and "crashed, counted as a failure: crypt slay, seed 10001" in capsys.readouterr().out
    )
    mine = first["cells"]["2D top-down"]["combat"]["policy"]
    assert (
        mine["episodes"] == 2
        and mine["success"] == pytest.approx(evaluation.wilson(1, 2))
        and mine["progress"][0] == 0.5
    )
    assert (
        first["crashes"][0]["crash"] == "the game ended with status 139"
        and "navigation" not in first["cells"]["2D top-down"]
    )
    assert (
        first["cells"]["all"]["all"]["expert"]["success"][0] == 1
        and first["cells"]["2D side-scroller"]["navigation"]["random"]["progress"][0] == 0.25
    )
    assert [f["what"] for f in first["films"]] == [
        "best of crypt",
        "worst of crypt",
        "best of ridge",
        "worst of ridge",
    ]
    # crypt: one that did not crash
    assert [f["seed"] for f in first["films"]][:2] == [10_000, 10_000]
    played = fake(monkeypatch)
    second = evaluation.play(
        player(policy, out, games="crypt,ridge", tasks="combat,reach", seeds=3)
    )
    assert (
        [j for j in played if j.seed < 10_002] == [crash]
        and len(played) == 1 + 3 * 5
        and second["crashes"] == []
    )
    with pytest.raises(SystemExit, match="played with another steps; give another --out"):
        evaluation.play(player(policy, out, steps=2))


def test_report_is_one_file_that_loads_nothing(policy, tmp_path, monkeypatch):
    job = evaluation.Job("policy", "ridge", "reach", 10_001)
    fake(monkeypatch, [job], "<script>alert(1)</script> & more")
    evaluation.play(player(policy, tmp_path / "out", seeds=2))
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert (
        not re.search(r"(src|href)=\"(?!data:|films/)", page)
        and "http" not in page
        and "@import" not in page
    )
    assert page.count("data:image/png;base64,") == 2 and page.count("data:image/jpeg;base64,") == 2
    # ridge is a side-scroller: of the paper only that row
    assert (
        "2 episodes per task and player; the policy was trained on crypt, ridge" in page
        and "50 [9, 91]" in page
        and "61.2" not in page
        and "44.8" in page
    )
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [t["task"] for t in report["tasks"]] == ["reach"] and len(report["episodes"]) == 10


def test_a_quick_run_says_so(policy, tmp_path, monkeypatch, capsys):
    fake(monkeypatch)
    report = evaluation.play(player(policy, tmp_path / "out", quick=True, games="all", tasks="all"))
    assert (
        report["quick"]
        and report["seeds"] == 1
        and len(report["tasks"]) == 30
        and len(report["films"]) == 6
    )
    assert (
        "QUICK" in capsys.readouterr().out and "QUICK" in (tmp_path / "out/report.html").read_text()
    )
    assert (
        evaluation.play(
            player(policy, tmp_path / "other", quick=True, games="crypt,rally,ridge", tasks="all")
        )["seeds"]
        == 4
    )


def test_another_policy_or_setting_is_another_run(policy, tmp_path, monkeypatch, capsys):
    fake(monkeypatch)
    monkeypatch.chdir(tmp_path)
    evaluation.play(player(policy, ""))
    evaluation.play(player(policy, "", steps=4))
    evaluation.play(player(policy, "", seeds=2))
    assert len(list((tmp_path / "data/play").glob("random-model-*/report.json"))) == 2
    with pytest.raises(SystemExit, match="chunks hold 16 actions at 30 a second; give 1 to 16"):
        evaluation.play(player(policy, "", execute=17))
    with pytest.raises(SystemExit, match="--seeds 0: expected 1 or more"):
        evaluation.play(player(policy, "", seeds=0))


def test_a_crash_of_a_real_game_is_a_failure(policy, tmp_path, monkeypatch):
    """The process dies in its fortieth frame; the other seed is played to its end."""
    (tmp_path / "broken.py").write_text(
        f"import os, sys; sys.path.insert(0, {str(ROOT / 'games')!r}); import ridge, console; step "
        "= ridge.Game.step\n"
        "ridge.TASKS['reach'] = console.Task('Run.', 'navigation', 2.0); die = '10000' in "
        "sys.argv\n"
        "ridge.Game.step = lambda self, pad, dt: (die and self.time > 1.3 and os._exit(7), "
        "step(self, pad, dt))\n"
        "console.main(ridge.Game, ridge.TASKS, '')\n"
    )
    real = evaluation.launch

    def launch(*args):
        env = real(*args)
        env.command[1] = str(tmp_path / "broken.py")
        return env

    monkeypatch.setattr(evaluation, "launch", launch)
    c, settings = player(policy, tmp_path), {}
    dead, alive = (
        evaluation.episode(evaluation.Job("policy", "ridge", "reach", seed), c, settings)
        for seed in (10_000, 10_001)
    )
    assert (
        re.match(r"the game ended with status 7 after 1\.3 s: it said nothing", dead["crash"])
        and not dead["success"]
        and dead["progress"] == 0
    )
    assert alive["crash"] == "" and alive["seconds"] == pytest.approx(2, abs=0.05)


@pytest.mark.slow
def test_ctrl_c_loses_nothing_and_same_seeds_give_same_numbers(policy, tmp_path):
    """The real command, stopped when the policy's episode is there; then again to the end, and once
    more elsewhere with two workers.
    """
    flags = [
        "eval.py",
        "play",
        "--policy",
        policy,
        "--games",
        "crypt",
        "--tasks",
        "stairs",
        "--seeds",
        "1",
        "--execute",
        "16",
        "--steps",
        "1",
    ]
    run = subprocess.Popen(
        [sys.executable, *flags, "--workers", "1", "--out", str(tmp_path / "a")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    while len(done := list((tmp_path / "a/episodes").glob("*.json"))) < 1 and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert (
        run.returncode == 1
        and "interrupted; finished work is kept" in said
        and "Traceback" not in said
    ), said
    kept = {p: p.stat().st_mtime_ns for p in done}
    again = command(*flags, "--workers", "1", "--out", str(tmp_path / "a"))
    assert re.search(r"5 episodes, [1-5] are there", again) and all(
        p.stat().st_mtime_ns == t for p, t in kept.items()
    )
    command(*flags, "--workers", "2", "--out", str(tmp_path / "b"))
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()
    report = json.loads((tmp_path / "a/report.json").read_bytes())
    assert (
        report["cells"]["all"]["all"]["expert"]["success"][0]
        == 1
        > report["cells"]["all"]["all"]["none"]["progress"][0]
    )
    frames = [f for _, _, f in read_video(tmp_path / "a" / report["films"][0]["film"])]
    assert len(frames) > 300 and frames[0].shape == (270, 680, 3)


def test_bad_input():
    assert "nowhere.safetensors: no such policy; train one" in command(
        "eval.py", "play", "--policy", "nowhere.safetensors", status=1
    )
    assert "no videos there" in command("eval.py", "overlay", "tests", status=1)
    assert "there is all and locate" in command("eval.py", "overlay", "--stage", "find", status=1)
    assert "some of locate,single,plain" in command(
        "eval.py", "overlay", "--stage", "locate", "--rules", "magic", status=1
    )
    assert "no built-in game 'tetris'" in command(
        "eval.py", "record", "--games", "tetris", status=1
    )
    assert "expected one of record" in command("eval.py", "nonsense", status=1)


@pytest.mark.slow
def test_recording_repeats_to_the_byte(tmp_path):
    """Same seed: the same game frames (hashes of every frame's pixels) and actions; another seed:
    others.
    """
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command(
            "eval.py",
            "record",
            "--out",
            str(tmp_path / name),
            "--minutes",
            "0.05",
            "--seconds",
            "3",
            "--seed",
            str(seed),
            "--games",
            "ridge",
        )
    a, b, c = (artefact.read(tmp_path / n / "ridge-000.truth.safetensors") for n in "abc")
    assert all(np.array_equal(a[0][k], b[0][k]) for k in a[0]) and not np.array_equal(
        a[0]["sticks"], c[0]["sticks"]
    )
    assert a[1]["frames"] == b[1]["frames"] != c[1]["frames"]
    pictures = [[f for _, _, f in read_video(tmp_path / n / "ridge-000.mp4")] for n in "ab"]
    assert len(pictures[0]) == 90 and all(
        np.array_equal(x, y) for x, y in zip(*pictures, strict=False)
    )
    out = command(
        "eval.py",
        "record",
        "--out",
        str(tmp_path / "a"),
        "--minutes",
        "0.05",
        "--seconds",
        "3",
        "--seed",
        "5",
        "--games",
        "ridge",
        status=1,
    )
    assert "made with another seed" in out


def test_the_way_back_is_filmed_not_the_way_astray(tmp_path, monkeypatch):
    """record --astray: chance moves the game, no frame of that is in the video, and every row is
    the expert's.
    """
    lapses = []

    class Marked:
        def __init__(self, seed):
            lapses.append(0)

        def __call__(self, frame, info):
            lapses[-1] += 1
            return np.ones(16, np.uint8), np.ones(4, np.float32)

    monkeypatch.setattr(sim, "StickyRandom", Marked)
    monkeypatch.setattr(evaluation, "LAPSES", 0.5)
    truth = {}
    for share in (0.0, 1.0):
        c = evaluation.Record(
            out=str(tmp_path / str(share)), seconds=3, games="ridge", astray=share
        )
        assert (
            evaluation.record_video("ridge-000", c)
            == 90
            == video_facts(tmp_path / f"{share}/ridge-000.mp4")["frames"]
        )
        truth[share] = artefact.read(tmp_path / f"{share}/ridge-000.truth.safetensors")
        assert (lapses[-1] >= evaluation.FPS // 5) == (share > 0)
    assert not any(t["buttons"].all(axis=1).any() for t, _ in truth.values())
    assert truth[0.0][1]["frames"] != truth[1.0][1]["frames"]
    assert "astray" not in truth[0.0][1]["recipe"] and truth[1.0][1]["recipe"]["astray"] == 1
    learned = []

    class Learner:
        def __init__(self, path, *settings):
            learned.append(0)

        def __call__(self, frame, info):
            assert frame.shape == (256, 256, 3) and frame.dtype == np.uint8
            learned[-1] += 1
            return np.ones(16, np.uint8), np.ones(4, np.float32)

    monkeypatch.setattr(evaluation, "Policy", Learner)
    c = evaluation.Record(
        out=str(tmp_path / "by"),
        seconds=6,
        games="ridge",
        astray=1.0,
        learner="weights/policy.safetensors",
    )
    evaluation.record_video("ridge-000", c)
    t, info = artefact.read(tmp_path / "by/ridge-000.truth.safetensors")
    assert (
        sum(learned) >= evaluation.FPS // 5
        and lapses[-1] >= evaluation.FPS // 5
        and not t["buttons"].all(axis=1).any()
    )
    assert (
        info["recipe"]["source"][0]["name"] == "policy.safetensors"
        and "learner" not in truth[1.0][1]["recipe"]
    )
    with pytest.raises(SystemExit, match="gone.safetensors"):
        evaluation.record(
            evaluation.Record(out=str(tmp_path), astray=1.0, learner="gone.safetensors")
        )
    with pytest.raises(SystemExit, match="--learner plays in the lapses of --astray"):
        evaluation.record(
            evaluation.Record(out=str(tmp_path), learner="weights/policy.safetensors")
        )
    with pytest.raises(SystemExit, match="--astray 2: a share"):
        evaluation.record(evaluation.Record(out=str(tmp_path), astray=2.0))


@pytest.fixture
def brief(monkeypatch):
    """Videos of one second; frames are flat gray where the test asks for the background "flat"."""
    real = locate.scene
    monkeypatch.setattr(locate, "SECONDS", 1)
    monkeypatch.setattr(
        locate,
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
    cases = locate.grid()
    assert (
        len({c[1:5] for c in cases}) == len({c.name for c in cases}) == len(cases) == 4 * 4 * 3 * 5
    )
    first = cases[:48]
    assert all(sum(c[1:3] == d[1:3] for c in first) == 3 for d in first)
    assert all(8 <= sum(c.background == b for c in first) <= 11 for b in locate.BACKGROUNDS)
    assert sum(c.own for c in first) == 24 and len(locate.grid(2)) == 480


def test_truth_of_the_localization_benchmark(brief, tmp_path):
    """What is drawn lies in the true box, fills it, and is as wide as the case says."""
    every = skins_and_all()
    for own in (False, True):
        pool = {
            name: every[name]
            for name in ("xbox360-dark", "xbox360/tangerine" if own else "xbox360-chrome")
        }
        case = locate.Case("a", 0.35, 1.0, 0.1, "flat", own)
        truth = locate.make_case(case, tmp_path / "a.mp4", pool, 3)
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
    assert locate.mutual(a, b, 0.6).tolist() == [1, -1, 0] and locate.mutual(
        a, b, 1.0
    ).tolist() == [-1, -1, -1]
    assert locate.mutual(a[:0], b).size == 0 and locate.mutual(a, b[:0]).tolist() == [-1, -1, -1]
    close = np.array([[1, 0], [0.98, 0.199]])  # two that are about as near
    assert locate.lowe(np.array([[1.0, 0]]), close).tolist() == [0] and locate.lowe(
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
    detect, match = locate.detectors()["plain"][0]
    bare = [[detect(f) for f in frames]]
    for f in frames:
        render.composite(
            f, render.draw(pool["ps4-dark"], np.zeros(16), np.zeros(4), scale=0.8), 100, 60, 0.9
        )
    seen = [[detect(f) for f in frames]]

    def rule(seen, pairs):
        return locate.single_frames(seen, pairs, "three templates", None, extract.MIN_INLIERS)

    one = rule(seen, [(detect, match)])
    assert (
        one["template"] == "ps4-dark"
        and locate.iou(one["box"], [100, 60, 256, 176]) > 0.95
        and one["inliers"] >= 20
    )
    assert rule(bare, [(detect, match)]) == {"template": None}
    monkeypatch.setattr(xfeat, "detect", lambda rgb: detect(rgb))
    monkeypatch.setattr(locate, "mutual", lambda a, b: np.full(len(a), -1))
    pairs = locate.detectors()["single"]
    two = rule([*seen, *seen], pairs)
    # the second matched nothing
    assert len(pairs) == 2 and two["template"] == "ps4-dark" and two["inliers"] == one["inliers"]
    locate.bank.cache_clear()


@pytest.mark.slow
def test_bitrates_differ(brief, tmp_path):
    rates = [
        locate.make_case(
            locate.Case("a", 0.25, 1.0, rate, "supertux", False),
            tmp_path / "a.mp4",
            skins_and_all(),
            0,
        )["rate"]
        for rate in locate.RATES
    ]
    assert rates[0] > 1.5 * rates[1] > 2 * rates[2] and 0.03 < rates[0] < 0.2, rates


@pytest.mark.slow
def test_clips_with_nothing_show_no_template(brief, tmp_path, monkeypatch):
    monkeypatch.setattr(render, "draw", lambda *a, **k: pytest.fail("a template is drawn"))
    decoys = []
    monkeypatch.setattr(
        locate.decoys,
        "show",
        lambda picture, decoy, *a, real=locate.decoys.show: (
            decoys.append(decoy),
            real(picture, decoy, *a),
        ),
    )
    for case in locate.nothing(10)[3:8]:
        truth = locate.make_case(case, tmp_path / "a.mp4", {}, 0)
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
        locate.Case("a", 0.25, 1.0, 0.1, "flat", False),
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
        case = locate.Case("n", width, opacity, 0.1, "hud", False)._asdict()
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


def test_overlays_by_family_or_folder(tmp_path):
    pool, groups = evaluation.choice_of("ps4,xbox360")
    assert [{pool.family(n) for n in g} for g in groups] == [{"ps4"}, {"xbox360"}] and min(
        map(len, groups)
    ) >= 20
    skins, groups = evaluation.choice_of(str(ROOT / "assets/skins"))
    assert groups == [[n] for n in sorted(skins)] and len(skins) > 10
    pool, (group,) = evaluation.choice_of("")
    assert not any(map(pads.held_out, group)) and len(group) > 100
    for n in pads.CORE:
        assert (n in group) == (len(render.layout(pool[n])["sticks"]) == 2)
    with pytest.raises(SystemExit, match="no family such as ps9"):
        evaluation.choice_of("ps9")


def test_the_floor(tmp_path):
    """The matched filter, on an opaque overlay over a quiet game: nearly right without any
    learning.
    """
    template, rng = library.templates()["ps4-flat"], np.random.default_rng(0)
    w, h = template.size
    buttons, sticks = locate.random_play(rng, 90)
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


def test_ablations_are_published_commands(tmp_path, monkeypatch, capsys):
    """Each row changes one thing: its commands are parsed by the stages themselves; what several
    rows share runs once.
    """
    import filter
    import train

    ran = []

    def step(script, *args):
        commands = {
            "filter.py": {"": (filter.Config, ran.append)},
            "train.py": {"": (train.CONFIGS, ran.append)},
            "eval.py": {"play": (evaluation.Play, ran.append)},
        }
        command_line("", commands[script], args[script == "filter.py" :])
        if script == "eval.py":
            s = {"success": [0.1 * len(ran), 0, 1], "progress": [0.5, 0.4, 0.6]}
            artefact.write_bytes(
                Path(ran[-1].out) / "report.json",
                json.dumps({"cells": {"all": {"all": {"policy": s}}}}).encode(),
            )

    monkeypatch.setattr(ablate, "run_stage", step)
    # the help texts: a second for each command
    monkeypatch.setattr("common.command_line.field_comments", lambda cls: {})
    c = ablate.Config(data=str(tmp_path), out=str(tmp_path / "out"), steps=9, seeds=2)
    with pytest.raises(SystemExit, match="no videos/ and labels/ there"):
        ablate.main(c)
    (tmp_path / "labels").mkdir()
    ablate.main(c)
    filters, trains, plays = (
        [x for x in ran if isinstance(x, kind)]
        for kind in (filter.Config, train.Config, evaluation.Play)
    )
    assert [(f.min_active, f.mask, f.labels == str(tmp_path / "videos")) for f in filters] == [
        (0.5, True, False),
        (0, True, False),
        (0.5, False, False),
        (0.5, True, True),
    ]
    assert [t.horizon for t in trains] == [0, 0, 0, 0, 4, 8] and all(
        t.raw and t.steps == 9 and t.net == "tiny" for t in trains
    )
    assert (
        len(plays) == len({p.out for p in plays}) == len(ablate.ABLATIONS)
        and {p.steps for p in plays} == {0, 1, 4}
        and {p.execute for p in plays} == {1, 4, 8, 16}
    )
    assert sum(p.policy.endswith("raw.safetensors") for p in plays) == 1
    assert len(
        re.findall(
            r"^[\w ,]+ +\d+ \[0, 100\]   0.50 \[0.40, 0.60\]$",
            (tmp_path / "out/ablate.txt").read_text(),
            re.M,
        )
    ) == len(plays)


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


@pytest.mark.slow
def test_the_whole_pipe(tmp_path):
    """Record, extract, parse, filter, train, play: every stage by its own command, in small."""
    videos, labels, shards, run = (str(tmp_path / n) for n in ("videos", "labels", "shards", "run"))
    command("eval.py", "record", "--out", videos, "--minutes", "1", "--seconds", "10")
    files = sorted(map(str, (tmp_path / "videos").glob("*.mp4")))
    assert len(files) == 6
    command("extract.py", *files, "--out", labels)
    command("parse.py", *files, "--out", labels)
    out = command(
        "filter.py", *files, "--labels", labels, "--out", shards, "--segment-seconds", "5"
    )
    assert int(re.search(r"([\d,]+) chunks \(", out)[1].replace(",", "")) > 1000
    flags = [
        "--config",
        "tiny",
        "--data",
        shards,
        "--out",
        run,
        "--steps",
        "30",
        "--batch",
        "16",
        "--micro",
        "16",
        "--warmup",
        "5",
        "--log-every",
        "10",
    ]
    command("train.py", *flags)
    rows = [json.loads(line) for line in open(tmp_path / "run/log.jsonl")]
    assert rows[-1]["step"] == 30 and rows[-1]["loss"] < rows[0]["loss"]
    assert "finished at step 30" in command("train.py", *flags)
    policy = str(tmp_path / "run/model.safetensors")
    command(
        "eval.py",
        "play",
        "--policy",
        policy,
        "--games",
        "ridge",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "play"),
    )
    cells = json.loads((tmp_path / "play/report.json").read_text())["cells"]["2D side-scroller"][
        "all"
    ]
    assert (
        cells["expert"]["progress"][0] > 0.9 > cells["none"]["progress"][0] + 0.6
        and cells["policy"]["episodes"] == 3
    )


# ---- speed


def test_machine_days_by_hand(capsys):
    """71,000 h at 30 frames/s are 7.668e9 frames: at 1,000 a second 88.75 days; 8.192e8 samples,
    each 50 times the work, at 4,000 a second 118.5.
    """
    import train

    rows = speed.side_by_side(
        {
            "locate": 1.0,
            "parse": 1000.0,
            "filter": 2000.0,
            "train": 4000.0,
            "policy": 50.0,
            "simulator": 500.0,
        },
        {"train": 50.0, "policy": 2.0},
        train.CONFIGS["paper"],
    )
    days = {r["stage"]: r["days"] for r in rows}
    assert (
        days["locate"] == pytest.approx(38_739 / 86400)
        and days["parse"] == pytest.approx(88.75)
        and days["filter"] == pytest.approx(44.375)
    )
    assert (
        days["train"]
        == pytest.approx(4096 * 200_000 * 50 / 4000 / 86400)
        == pytest.approx(118.52, abs=0.01)
    )
    steps = (
        20
        * 30
        * sum(
            t.seconds
            for name in evaluation.game_names()
            for t in evaluation.game(name).TASKS.values()
        )
    )
    assert days["simulator"] == pytest.approx(steps / 500 / 86400) and days[
        "policy"
    ] == pytest.approx(2 * steps / 8 / 50 / 86400)
    speed.print_speed(rows, "tiny")
    said = capsys.readouterr().out
    assert (
        "3,600 videos/h" in said and "33.3 x real time" in said and "20.0 ms a chunk, tiny" in said
    )
    assert "Most would cost train: 47% of 252 days" in said and "train: days x 50" in said


@pytest.mark.slow
def test_speed_measures_every_stage(tmp_path, monkeypatch, capsys):
    """The real command: the stages' rates are those of work that was done, and nothing stays
    behind.
    """
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    evaluation.main(
        [
            "speed",
            "--clips",
            "2",
            "--seconds",
            "1",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "speed.json"),
        ]
    )
    said = json.loads((tmp_path / "speed.json").read_text())
    # Python's and torch's own
    assert [
        p.name for p in tmp_path.iterdir() if not p.name.startswith(("pymp", "torchinductor"))
    ] == ["speed.json"]
    rates, out = {r["stage"]: r["rate"] for r in said["stages"]}, capsys.readouterr().out
    assert said["net"] == "tiny" and list(rates) == [
        "locate",
        "parse",
        "filter",
        "train",
        "policy",
        "simulator",
    ]
    # as parse.py itself says
    told = [
        float(v.replace(",", "")) for v in re.findall(r"600 frames in [\d.]+ s \(([\d,]+)/s\)", out)
    ]
    assert len(told) == 2 and 0.5 * min(told) < rates["parse"] < 1.5 * max(told)
    assert float(re.search(r"both +([\d.]+) samples/s", out)[1]) == pytest.approx(
        rates["train"], abs=0.06
    )
    assert all(
        r["days"] == pytest.approx(r["amount"] * r["heavier"] / r["rate"] / 86400)
        for r in said["stages"]
    )
    assert said["stages"][3]["heavier"] > 100 and rates["simulator"] > 1
