"""bench/corrections.py: who has the pad, what is filmed, and the commands of both arms."""

import dataclasses
import json
import types
from pathlib import Path

from common import artefact
from common.command_line import command_line
from common.pictures import read_video

import numpy as np
import pytest

import eval as evaluation
from bench import corrections
from bench.corrections import Config, Sitting, Turns
from piloting import hooked


def test_turns_by_hand():
    """Half a second of patience; progress in frame 5 and, while the expert plays, in frame 30."""
    turns = Turns(0.5)
    progress = np.r_[[0.0] * 5, [0.1] * 25, [0.2] * 300]
    had = [turns(p) for p in progress]
    # 15 frames after the last progress, for two seconds; then again, until there is some
    assert np.flatnonzero(had[:95]).tolist() == list(range(20, 80))
    assert had[95:] == [True] * len(had[95:])
    assert all(Turns(0.0)(p) for p in progress)
    never = Turns(0.5)
    assert not any(never(k / 100) for k in range(100))


@hooked
def test_a_sitting_is_filmed_and_not_played_twice(tmp_path, monkeypatch):
    """An untouched pad for the policy: the expert takes it after half a second."""
    monkeypatch.setattr(evaluation, "Policy", lambda *args: Untouched())
    c = Config(seed=3)
    sitting = Sitting("ridge", "reach", 0, 1, 3.0)
    kept = corrections.sit(sitting, tmp_path, "", {"patience": 0.5}, c)
    tensors, info = artefact.read(tmp_path / "ridge-reach-0-1-0.actions.safetensors")
    person = tensors["person"]
    assert kept["frames"] == len(person) == 90 and info["game"] == "ridge"
    assert not person[:15].any() and person[15:30].all() and kept["person"] == person.sum()
    assert not tensors["buttons"][~person].any() and not tensors["sticks"][~person].any()
    assert np.abs(tensors["sticks"][person]).max() > 0.5  # the expert walks
    assert kept["turns"] >= 1 and kept["progress"][0] > 0
    assert len(list(read_video(tmp_path / "ridge-reach-0-1-0.mp4"))) == 90

    monkeypatch.setattr(corrections, "episode", None)  # it would fail
    assert corrections.sit(sitting, tmp_path, "", {"patience": 0.5}, c) == kept
    with pytest.raises(SystemExit, match="ridge-reach-0-1.json: of another play; give another"):
        corrections.sit(sitting, tmp_path, "", {"patience": 0.6}, c)


class Untouched(evaluation.ConstantPad):
    """As eval.Policy, and it does nothing."""

    rows = types.SimpleNamespace(forget=lambda: None)

    def history(self, frame):
        return frame


def test_both_arms_get_the_same(tmp_path, monkeypatch, capsys):
    """The same minutes, steps and old shards, round after round, each from the policy before; the
    commands are parsed by the stages themselves.
    """
    import filter
    import train

    ran, sat = [], []

    def step(script, *args):
        commands = {
            "filter.py": {"": (filter.Config, ran.append)},
            "train.py": {"": (train.CONFIGS, ran.append)},
        }
        command_line("", commands[script], list(args))
        if script == "train.py":
            artefact.write_bytes(Path(ran[-1].out) / "model.safetensors", b"")

    def sit(sitting, folder, policy, key, c):
        arm = folder.relative_to(c.out).parts[0]
        sat.append((sitting, arm, policy, key["patience"]))
        frames = round(30 * sitting.seconds)
        return {"frames": frames, "person": frames // 3, "turns": 2, "clock": 9.0}

    def play(policy, folder, tasks, c):
        gain = {"before": 0.0, "corrections/round-1/play": 0.3, "demonstrations/round-1/play": 0.1}
        gain = gain[Path(folder).relative_to(c.out).as_posix()]
        levels = {"success": gain == 0.3}
        return {t: [{"progress": 0.1 * k + gain, **levels} for k in range(4)] for t in tasks}

    monkeypatch.setattr(corrections, "run_stage", step)
    monkeypatch.setattr(corrections, "sit", sit)
    monkeypatch.setattr(corrections, "play", play)
    # the help texts: a second for each command
    monkeypatch.setattr("common.command_line.field_comments", lambda cls: {})
    out = tmp_path / "out"
    c = Config(tasks="grove-trail,puck-slalom", minutes=3, rounds=2, old=5, out=str(out), workers=0)
    made = corrections.main(c)

    for arm, patience in (("corrections", 3.0), ("demonstrations", 0.0)):
        mine = [s for s in sat if s[1] == arm]
        assert {s[3] for s in mine} == {patience} and len({str(s[0]) for s in mine}) == 8
        assert sum(s[0].seconds for s in mine) == pytest.approx(2 * 3 * 60)
        policies = [s[2] for s in mine]
        assert (
            policies
            == ["weights/policy.safetensors"] * 4 + [f"{out}/{arm}/round-0/model.safetensors"] * 4
        )
    old = [s[0] for s in sat if s[1] == "old"]
    assert len({(s.game, s.task) for s in old}) == 30
    assert sum(s.seconds for s in old) == pytest.approx(5 * 60)

    trains = [r for r in ran if isinstance(r, train.Config)]
    # each round learns from those before it too, by their size; the old shards stay at their share
    for t, arm in zip(trains[::2], corrections.ARMS, strict=True):
        assert t.data == f"{out}/{arm}/round-0/shards,{out}/old/shards:0.5"
    for t, arm in zip(trains[1::2], corrections.ARMS, strict=True):
        mine = ",".join(f"{out}/{arm}/round-{k}/shards" for k in range(2))
        assert t.data == f"{mine},{out}/old/shards:0.5"
    assert [t.init for t in trains[1::2]] == [f"{t.out}/model.safetensors" for t in trains[::2]]
    same = {(t.steps, t.batch, t.lr, t.freeze, t.recompute, t.seed) for t in trains}
    assert same == {(300, 64, 3e-4, True, False, 0)}
    filters = [r for r in ran if isinstance(r, filter.Config)]
    assert len(filters) == 5 and all(f.validation == 0 and f.who == "person" for f in filters)

    rows = made["tasks"]["all"]
    assert rows["corrections"]["gain"] == pytest.approx((0.3, 0.3, 0.3))
    assert rows["demonstrations"]["gain"] == pytest.approx((0.1, 0.1, 0.1))
    assert rows["corrections"]["episodes"] == 8 and rows["before"]["success"][0] == 0
    kept = json.loads((out / "corrections.json").read_text())
    assert list(kept["tasks"]) == ["grove-trail", "puck-slalom", "all"]
    said = capsys.readouterr().out
    assert "corrections, round 1: 3.0 minutes of play in 0.6 process-minutes" in said
    assert "the expert had the pad 8 times, 33% of the frames" in said
    line = next(t for t in said.splitlines() if t.startswith("all") and "corrections" in t)
    assert "100 [68, 100]" in line and " 0.45 [" in line and "+0.30 [+0.30, +0.30]" in line

    # films of other settings are not mixed in, nor are old ones among those that are made anew
    film = out / "corrections/round-0/videos/other.mp4"
    artefact.write_bytes(film, b"")
    with pytest.raises(SystemExit, match="out: holds a run with another tasks; give another --out"):
        corrections.main(dataclasses.replace(c, tasks="grove-trail"))
    corrections.main(c)
    assert film.exists()
    corrections.main(dataclasses.replace(c, fresh=True))
    assert not film.exists()


def test_bad_input():
    for options, why in (
        ({"tasks": "grove-nowhere"}, "^--tasks grove-nowhere: grove has trail, hunt, feed$"),
        ({"tasks": "nowhere-trail"}, "^no built-in game 'nowhere'"),
        ({"minutes": 0.0}, "^--minutes 0: expected"),
        ({"share": 1.0}, "^--share 1: expected 0.01 to 0.99$"),
        ({"policy": "nowhere"}, "^nowhere: no such policy"),
    ):
        with pytest.raises(SystemExit, match=why):
            corrections.main(Config(**options))
