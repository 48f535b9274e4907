"""bench/race.py: what a run of the whole pipe took, and whether it counts."""

import json
import sys

from common import artefact
from common.artefact import BUTTONS, STICKS

import numpy as np
import pytest

from bench import race

PIPE = """
import time
print("no data given", flush=True)
print("$ python eval.py record --out data", flush=True)
time.sleep(.3)
print("$ python parse.py *.mp4", flush=True)
sum(range(3_000_000))
print("a line of its own", flush=True)
"""


def test_stages_are_timed_by_what_the_pipe_prints(tmp_path, capfd):
    stages = race.timed([sys.executable, "-c", PIPE], tmp_path)
    assert list(stages) == ["start", "record", "parse"]
    assert 0.3 <= stages["record"] < 5 and all(t > 0 for t in stages.values())
    assert "a line of its own" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="stopped with status 3"):
        race.timed([sys.executable, "-c", "exit(3)"], tmp_path)


def finished(folder, progress: dict):
    """What train.py leaves, as far as a race reads it: two videos of 10 s, 7 steps of 32 frames."""
    for name in "ab":
        artefact.write(
            folder / f"data/tiny/labels/{name}.actions.safetensors",
            {
                "buttons": np.zeros((301, 16), np.float16),
                "sticks": np.zeros((301, 4), np.float32),
                "shown": np.ones(20, bool),
                "confidence": np.ones(301, np.float16),
                "time": np.arange(301) / 30,
            },
            "nitrogen.actions/1",
            buttons=BUTTONS,
            sticks=STICKS,
        )
    artefact.write(
        folder / "runs/tiny/model.safetensors",
        {"x": np.zeros(1, np.float32)},
        "nitrogen.policy/1",
        recipe={"steps": 7, "batch": 32},
    )
    episodes = [
        {"player": player, "game": game, "progress": p}
        for game, values in progress.items()
        for player, p in [("expert", 1.0), *(("policy", v) for v in values)]
    ]
    report = json.dumps({"episodes": episodes}).encode()
    artefact.write_bytes(folder / "data/play/x/report.json", report)


def test_a_record_counts_over_all_seeds(tmp_path, monkeypatch, capsys):
    """The mean is over all episodes of all runs; finished runs are not run again, unfinished ones
    are refused: their time is not known.
    """
    said = {0: {"ridge": [1.0, 0.5], "crypt": [0.6]}, 1: {"ridge": [0.9, 0.4], "crypt": [0.8]}}
    ran = []

    def timed(command, folder):
        ran.append(command)
        seed = int(command[command.index("--seed") + 1])
        finished(folder, said[seed])
        return {"record": 60.0, "train": 120.0 + 60 * seed}

    monkeypatch.setattr(race, "timed", timed)
    cfg = race.Config(runs=2, out=str(tmp_path / "race"), device="cpu")
    out = race.main(cfg)
    assert out["progress"][0] == pytest.approx(4.2 / 6)
    assert [(row["video"], row["frames"]) for row in out["runs"]] == [(20.0, 224)] * 2
    printed = capsys.readouterr().out
    assert "reaches the bar of 0.66" in printed and "| 3.5 (3.0 to 4.0) |" in printed
    race.main(cfg)
    assert len(ran) == 2
    (tmp_path / "race/seed-0/race.json").unlink()
    with pytest.raises(SystemExit, match="not timed to its end"):
        race.main(cfg)
    with pytest.raises(SystemExit, match="--runs 0: expected 1 to 1000"):
        race.main(race.Config(runs=0))
