"""bench/ablate.py: every ablation is a command that is published."""

import json
import re
from pathlib import Path

from common import artefact
from common.command_line import command_line

import pytest

import eval as evaluation
from bench import ablate


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
