"""bench/speed.py: what a day of a machine does."""

import json
import re

import pytest

import eval as evaluation
from bench import speed


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
