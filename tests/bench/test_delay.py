"""bench/delay.py: the dial turned on a real game; the same seed, the same numbers."""

import json

import numpy as np
import pytest
import torch

import eval as evaluation
import model
from bench import delay


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A tiny network with random weights that may be given two actions."""
    torch.manual_seed(0)
    net = model.NitroGen(
        model.Config(**{**vars(model.CONFIGS["tiny"]), "prefix": 2, "vision_layers": 1})
    )
    path = tmp_path_factory.mktemp("policy") / "random.safetensors"
    model.save(path, net.state_dict(), net)
    return str(path)


def config(policy, out="", **changes):
    return evaluation.Play(
        policy=policy,
        games="ridge",
        tasks="slimes",
        **{"seeds": 1, "steps": 1, "workers": 0, "out": str(out), **changes},
    )


class Seen(Exception):
    """Enough of an episode."""


def test_the_dial_is_exact_and_repeats(policy, tmp_path, capsys):
    """Delays that are the same number of frames are the same play; another folder, the same
    numbers.
    """
    report = delay.play(config(policy, tmp_path / "a", delay="200,67,66"))
    rows = report["delays"]
    assert [(row["delay"], row["frames"]) for row in rows] == [(66, 2), (67, 2), (200, 6)]
    assert [row["ms"] for row in rows] == pytest.approx([200 / 3, 200 / 3, 200])
    assert rows[0]["progress"] == rows[1]["progress"]
    again = delay.play(config(policy, tmp_path / "b", delay="66"))
    assert again["delays"] == rows[:1]
    assert json.loads((tmp_path / "a" / "delay.json").read_text())["prefix"] == 2
    assert "<img" in (tmp_path / "a" / "delay.html").read_text()
    said = capsys.readouterr().out
    assert "given up to 2 actions that are under way" in said
    assert len([line for line in said.splitlines() if line.split()[:2] == ["67", "2"]]) == 3


def test_ctrl_c_leaves_the_table_of_the_delays_that_are_done(policy, tmp_path, monkeypatch, capsys):
    whole = evaluation.Suite.play

    def play(suite, work):
        if suite.c.delay == "67":
            raise KeyboardInterrupt
        return whole(suite, work)

    monkeypatch.setattr(evaluation.Suite, "play", play)
    with pytest.raises(KeyboardInterrupt):
        delay.play(config(policy, tmp_path, delay="0,67"))
    report = json.loads((tmp_path / "delay.json").read_text())
    assert [row["delay"] for row in report["delays"]] == [0]
    assert "report -> " in capsys.readouterr().out


@pytest.mark.parametrize("ms, late", [("0", 0), ("33", 1), ("200", 6)])
def test_the_pad_is_at_rest_until_the_first_chunk(policy, ms, late):
    pads = []

    def show(picture, pad, score):
        pads.append(pad)
        if len(pads) == 12:
            raise Seen

    with pytest.raises(Seen):
        job = evaluation.Job("policy", "ridge", "slimes", 10_000)
        evaluation.in_environment(job, config(policy, delay=ms), show)
    held = [bool(buttons.any() or np.any(sticks)) for buttons, sticks in pads]
    assert held == [False] * late + [True] * (12 - late)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"delay": "0,fast"}, "--delay 0,fast: expected ms"),
        ({"delay": "-33"}, "--delay -33: expected ms"),
        ({"delay": "nan"}, "--delay nan: expected ms"),
        ({"delay": "300"}, "--delay 300: 9 frames late, and 9 actions of each chunk"),
        ({"delay": "100", "execute": 14}, "3 frames late, and 14 actions of each chunk"),
    ],
)
def test_a_delay_that_cannot_be(policy, changes, message):
    with pytest.raises(SystemExit, match=message):
        delay.play(config(policy, **changes))
