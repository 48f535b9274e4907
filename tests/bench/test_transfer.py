"""bench/transfer.py: one training with a start and one without, and intervals over both."""

import dataclasses
import json
from pathlib import Path

from common.command_line import command_line

import numpy as np
import pytest

import eval as evaluation
from bench import transfer


def test_transfer_gives_both_the_same(tmp_path, monkeypatch, capsys):
    """Its commands: pretraining without the held-out game, nested data, equal steps; then the curve
    by hand, and nothing played twice.
    """
    import extract
    import filter
    import parse
    import train

    flags = {
        "eval.py": ("record", evaluation.Record),
        "extract.py": ("", extract.Config),
        "parse.py": ("", parse.Config),
        "filter.py": ("", filter.Config),
        "train.py": ("", train.CONFIGS),
    }
    ran, games, checked = [], [], set()

    def step(*args):
        flag, (name, known) = dict(zip(args, args[1:], strict=False)), flags[args[0]]
        if (kind := (args[0], *(a for a in args if a.startswith("--")))) not in checked:
            # refuses what the stage would refuse
            command_line("", {name: (known, lambda c: None)}, list(args[1:]))
            checked.add(kind)
        ran.append(args)
        folder = Path(flag["--out"])
        folder.mkdir(parents=True, exist_ok=True)
        if "record" in args:
            for i in range(round(float(flag["--minutes"]) * 3)):
                (folder / f"{flag['--games'].split(',')[0]}-{i:03d}.mp4").touch()
        if args[0] == "train.py":
            (folder / "model.safetensors").write_bytes(repr(sorted(args)).encode())

    def in_environment(job, c):
        games.append(job)
        won = "fine-tuned" in c.policy or job.seed % 2 == 1
        return {"progress": float(won), "success": won}

    monkeypatch.setattr(transfer, "run_stage", step)
    monkeypatch.setattr(evaluation, "in_environment", in_environment)
    monkeypatch.setattr(transfer, "video_facts", lambda path: {"frames": 600, "fps": 30})
    c = transfer.Config(
        held_out="crypt",
        hours="0.02,0.01",
        others=0.05,
        repeats=2,
        seeds=2,
        out=str(tmp_path),
        workers=0,
    )
    out = transfer.main(c)
    recorded = [
        dict(zip(a, a[1:], strict=False))["--games"].split(",") for a in ran if "record" in a
    ]
    assert len(recorded[0]) == 9 and "crypt" not in recorded[0] and recorded[1] == ["crypt"]
    trained = [dict(zip(a, a[1:], strict=False)) for a in ran if a[0] == "train.py"]
    assert len(trained) == 1 + 2 * 2 * 2 and all(
        "--init" in t for t in trained if "fine-tuned" in t["--out"]
    )
    for own in zip(trained[1::2], trained[2::2], strict=False):
        assert {
            k: [t.get(k) for t in own] for k in ("--data", "--steps", "--seed", "--warmup")
        } == {k: [own[0][k]] * 2 for k in ("--data", "--steps", "--seed", "--warmup")}
    cut = [[a for a in args if a.endswith(".mp4")] for args in ran if args[0] == "filter.py"][1:]
    assert [len(v) for v in cut] == [2, 4] and cut[1][:2] == cut[0]
    assert [(p["hours"], p["arm"], p["success"]["mean"]) for p in out["curve"]] == [
        (0.01, "from scratch", 0.5),
        (0.01, "fine-tuned", 1.0),
        (0.02, "from scratch", 0.5),
        (0.02, "fine-tuned", 1.0),
    ]
    assert [(p["progress"]["low"], p["progress"]["high"]) for p in out["curve"]] == [
        (1 / 6, 5 / 6),
        (1, 1),
    ] * 2 and 0 < out["random"] < 0.5
    said = capsys.readouterr().out
    assert (
        said.count("+100% [+20%, +500%]") == 4
        and said.count("  success ") == 2
        and (tmp_path / "crypt/transfer.png").stat().st_size > 5000
    )
    assert len(games) == 8 * 3 * 2
    assert (
        transfer.main(c) == out == json.loads((tmp_path / "crypt/transfer.json").read_text())
        and len(games) == 8 * 3 * 2
    )
    ran.clear()
    (tmp_path / "data/videos").mkdir(parents=True)
    for i, name in enumerate(evaluation.game_names() * 9):
        (tmp_path / f"data/videos/{name}-{i:03d}.mp4").touch()
    transfer.main(dataclasses.replace(c, data=str(tmp_path / "data"), out=str(tmp_path / "b")))
    cut = [
        [Path(a).stem for a in args if a.endswith(".mp4")] for args in ran if args[0] == "filter.py"
    ]
    assert {a[0] for a in ran} == {"filter.py", "train.py"}  # nothing is recorded, nothing parsed
    assert cut[0][:3] == ["cavern-000", "duel-002", "grove-003"] and cut[1:] == [
        ["crypt-001", "crypt-011"],
        ["crypt-001", "crypt-011", "crypt-021", "crypt-031"],
    ]
    with pytest.raises(
        SystemExit, match="^0.2 hours of demonstrations are wanted, and there are 0.050: "
    ):
        transfer.main(
            dataclasses.replace(
                c, data=str(tmp_path / "data"), hours="0.2", out=str(tmp_path / "d")
            )
        )


@pytest.mark.parametrize(
    "options",
    [
        {"hours": "."},
        {"hours": "1,x"},
        {"hours": "0,1"},
        {"hours": "1,1"},
        {"repeats": 0},
        {"seeds": 0},
    ],
)
def test_bad_transfers(options):
    with pytest.raises(
        SystemExit, match="^--hours .* --repeats . --seeds .*: expected numbers above 0"
    ):
        transfer.main(transfer.Config(**options))


def test_intervals_are_over_trainings_and_levels():
    """Scores [arm, training, task, level, (progress, success)] whose spread is known."""
    rng = np.random.default_rng(1)
    # 150 episodes, but two trainings
    by_training = np.broadcast_to(np.array([0.0, 1.0]).reshape(1, 2, 1, 1, 1), (2, 2, 3, 50, 2))
    draws = transfer.resampled(by_training)
    assert draws.shape == (2000, 2, 2) and np.percentile(draws[:, 0, 0], [2.5, 97.5]).tolist() == [
        0,
        1,
    ]
    # whoever plays, a level is easy or hard
    by_level = np.broadcast_to(rng.random((1, 1, 3, 8, 1)), (2, 4, 3, 8, 2))
    draws = transfer.resampled(by_level)
    # both arms play the same ones
    assert draws[:, 0].std() > 0.03 and np.ptp(transfer.relative(draws)) == 0
    independent = rng.random((2, 40, 1, 40, 2))
    assert transfer.resampled(independent)[:, 0, 0].std() == pytest.approx(
        (1 / 12 / 1600) ** 0.5, rel=0.8
    )
    assert transfer.relative(np.array([[[0, 0.5], [0, 1]], [[0.5, 0], [0.25, 1]]])).tolist() == [
        [0, 1],
        [-0.5, float("inf")],
    ]
