"""bench/presses.py: how often a policy presses, beside who played."""

import numpy as np
import pytest
import torch

import model
from bench import presses

BUTTONS = model.artefact.BUTTONS


@pytest.fixture
def held_out(monkeypatch):
    """A hundred chunks of one game, whose player holds EAST and taps WEST."""
    buttons = np.zeros((16, 16), np.uint8)
    buttons[:, BUTTONS.index("EAST")] = 1
    buttons[::4, BUTTONS.index("WEST")] = 1
    picture = np.zeros((64, 64, 3), np.uint8)
    item = picture, buttons, np.zeros((16, 4), np.float32), np.ones(20, bool), "ridge"
    monkeypatch.setattr(
        presses, "splits", lambda data, m: {"validation": [item] * 100, "train": []}
    )
    monkeypatch.setattr(presses, "Chunks", lambda shards, side: [item[:4] for item in shards])


def test_what_is_never_pressed_is_named(held_out, monkeypatch, capsys):
    """A policy that holds EAST in half of the frames and never taps WEST."""
    net = model.NitroGen(model.CONFIGS["tiny"])

    def sample(images, steps):
        assert images.shape[1:] == (64, 64, 3) and steps == 4
        raw = torch.full((len(images), 16, 20), 0.4)
        raw[:, :8, BUTTONS.index("EAST")] = 0.6
        return raw

    monkeypatch.setattr(net, "sample", sample)
    monkeypatch.setattr(model, "load", lambda policy, device: net)
    found = presses.main(presses.Config(chunks=70, steps=4, device="cpu"))
    assert found == {"ridge": {"EAST": (1.0, 0.5), "WEST": (0.25, 0.0)}}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["EAST", "100.0", "50.0"],
        ["WEST", "25.0", "0.0"],
    ]
    assert [line.endswith("hardly ever") for line in lines[1:]] == [False, True]


def test_faults_are_one_line(held_out, monkeypatch):
    monkeypatch.setattr(model, "load", lambda policy, device: model.NitroGen(model.CONFIGS["tiny"]))
    with pytest.raises(SystemExit, match="no train videos there"):
        presses.main(presses.Config(split="train", device="cpu"))
    with pytest.raises(SystemExit, match="--split all: expected"):
        presses.main(presses.Config(split="all", device="cpu"))
