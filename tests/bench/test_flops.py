"""bench/flops.py: works in the precision that it is asked for."""

import pytest
import torch

import model
from bench import flops


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bench_works_in_the_precision_asked_for(dtype, monkeypatch, capsys):
    """16 frames forward and backward (and once more, to count the arithmetic), then the ways to
    play; each is said to take half a second here.
    """
    monkeypatch.setattr(flops, "timed", lambda f, device: (f(), 0.5)[1])
    monkeypatch.setattr(flops, "peak", lambda device, dtype: 100.0)
    real = model.NitroGen.loss
    seen = []

    def loss(self, *args):
        seen.append(
            torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        )
        return real(self, *args)

    monkeypatch.setattr(model.NitroGen, "loss", loss)
    flops.main(flops.Bench(net="tiny", dtype=dtype, device="cpu"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert seen[0] == getattr(torch, dtype) and [w[:3] for w in lines] == [
        ["train", dtype, "16"],
        ["official", dtype, "1"],
        ["eager", dtype, "1"],
        *(["packed", dtype, str(B)] for B in (1, 1, 1, 16, 16)),
    ]
    assert float(lines[0][5]) == pytest.approx(
        flops.gflop(model.CONFIGS["tiny"], 16), abs=0.06
    ) and lines[0][3:5] == ["500.00", "32.0"]
    with pytest.raises(SystemExit, match="--dtype half: expected"):
        flops.main(flops.Bench(net="tiny", dtype="half"))
