"""eval.py: players, play, recordings that repeat to the byte; and, marked slow, the whole pipe."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from common import ROOT, artefact
from common.pictures import read_video, video_facts

import numpy as np
import pytest

import eval as evaluation
import sim
from bench import films
from bench.report import play
from clock.base import GameError
from commands import command


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


def test_the_policy_plays_its_networks_chunks(tmp_path):
    """The first `execute` actions of each, every other one of a network that acts 60 times a
    second; whole chunks come from one picture.
    """
    import dataclasses

    import torch

    import model

    torch.manual_seed(0)
    released = model.CONFIGS["released"]
    timing = {"horizon": 18, "rate": 60.0, "shift": 3, "positions": 18, "steps": 2}
    c = dataclasses.replace(model.CONFIGS["tiny"], actions=released.actions, image=16, **timing)
    model.save(tmp_path / "p.safetensors", model.NitroGen(c).state_dict(), model.NitroGen(c))
    agent = evaluation.Policy(str(tmp_path / "p.safetensors"), "cpu", 3, 0, seed=5)
    frames = np.random.default_rng(0).integers(0, 256, (7, 256, 256, 3), dtype=np.uint8)
    pads = [agent(frame, None) for frame in frames]
    rng = torch.Generator().manual_seed(5)
    for i, (buttons, sticks) in enumerate(pads):
        if i % 3 == 0:
            act = agent.net.act(frames[i : i + 1], torch.randn(1, 18, 25, generator=rng))
        assert buttons.dtype == np.uint8 and sticks.dtype == np.float32
        assert np.array_equal(buttons, act["buttons"][0, 2 * (i % 3)])
        assert np.array_equal(sticks, act["sticks"][0, 2 * (i % 3)])


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
        for path in films.film_paths(job, c):
            artefact.write_bytes(path, b"picture")
        return 1.0 if succeeds(job) else 0.25

    monkeypatch.setattr(evaluation, "in_environment", score)
    monkeypatch.setattr(evaluation, "in_process", score)
    monkeypatch.setattr(films, "film", film)
    return played


def test_play_resumes_and_grows(policy, tmp_path, monkeypatch, capsys):
    """Finished episodes are not played again, more seeds play only the new ones, other settings are
    refused, crashes count and are tried again.
    """
    out, crash = tmp_path / "out", evaluation.Job("policy", "crypt", "slay", 10_001)
    played = fake(monkeypatch, [crash])
    first = play(player(policy, out, games="crypt,ridge", tasks="combat,reach", seeds=2))
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
        "crypt",
        "best of ridge",
        "worst of ridge",
    ]
    # crypt: one that did not crash
    assert first["films"][0]["seed"] == 10_000
    played = fake(monkeypatch)
    second = play(player(policy, out, games="crypt,ridge", tasks="combat,reach", seeds=3))
    assert (
        [j for j in played if j.seed < 10_002] == [crash]
        and len(played) == 1 + 3 * 5
        and second["crashes"] == []
    )
    with pytest.raises(SystemExit, match="played with another steps; give another --out"):
        play(player(policy, out, steps=2))
    # nor are episodes with a delay those without
    play(player(policy, out / "late", execute=8, delay="33"))
    with pytest.raises(SystemExit, match="played with another delay; give another --out"):
        play(player(policy, out / "late", execute=8))


def test_ctrl_c_leaves_the_report_of_what_there_is(policy, tmp_path, monkeypatch, capsys):
    """In the middle of the second task: a table of the first one and of what the second has, no
    films; the same command then plays the rest.
    """
    c = player(policy, tmp_path, games="crypt,ridge", tasks="slay,reach", seeds=2)
    fake(monkeypatch)
    score = evaluation.in_process

    def interrupted(job, *_):
        if (job.game, job.player) == ("ridge", "held"):
            raise KeyboardInterrupt
        return score(job)

    monkeypatch.setattr(evaluation, "in_process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play(c)
    said = capsys.readouterr().out
    assert "interrupted: 7 of 20 episodes are there" in said and "ridge reach" in said
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["missing"] == 13 and found["films"] == [] and len(found["episodes"]) == 7
    assert "expert" in found["tasks"][0] and "expert" not in found["tasks"][1]
    assert "NOT TO ITS END" in (tmp_path / "report.html").read_text()
    monkeypatch.setattr(evaluation, "in_process", score)
    assert "missing" not in play(c) and "20 episodes, 7 are there" in capsys.readouterr().out


def test_report_is_one_file_that_loads_nothing(policy, tmp_path, monkeypatch):
    job = evaluation.Job("policy", "ridge", "reach", 10_001)
    fake(monkeypatch, [job], "<script>alert(1)</script> & more")
    play(player(policy, tmp_path / "out", seeds=2))
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert (
        not re.search(r"(src|href)=\"(?!data:|films/)", page)
        and "http" not in page
        and "@import" not in page
    )
    # the one episode that did not crash is shown once
    assert page.count("data:image/png;base64,") == 2 and page.count("data:image/jpeg;base64,") == 1
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
    report = play(player(policy, tmp_path / "out", quick=True, games="all", tasks="all"))
    assert (
        report["quick"]
        and report["seeds"] == 1
        and len(report["tasks"]) == 30
        and len(report["films"]) == 6
    )
    assert (
        "QUICK" in capsys.readouterr().out and "QUICK" in (tmp_path / "out/report.html").read_text()
    )
    nine = {"games": "crypt,rally,ridge", "tasks": "all"}
    for seeds, played in ((20, 4), (2, 2)):  # never more than without --quick
        c = player(policy, tmp_path / f"{seeds}", quick=True, seeds=seeds, **nine)
        assert play(c)["seeds"] == played


def test_another_policy_or_setting_is_another_run(policy, tmp_path, monkeypatch, capsys):
    fake(monkeypatch)
    monkeypatch.chdir(tmp_path)
    play(player(policy, ""))
    play(player(policy, "", steps=4))
    play(player(policy, "", seeds=2))
    assert len(list((tmp_path / "data/play").glob("random-model-*/report.json"))) == 2
    with pytest.raises(SystemExit, match="chunks hold 16 actions at 30 a second; give 1 to 16"):
        play(player(policy, "", execute=17))
    with pytest.raises(SystemExit, match="--seeds 0: expected 1 or more"):
        play(player(policy, "", seeds=0))


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
