"""common/artefact.py: what is written is read, and what is broken is named."""

import json
import os

from common import artefact

import numpy as np
import pytest
from safetensors.numpy import save_file

from commands import actions_file, fault


def test_artefact_round_trip(tmp_path):
    path = tmp_path / "a.actions.safetensors"
    tensors = actions_file(path)
    back, info = artefact.read(path, "nitrogen.actions/1")
    assert (
        info["unit"] == "normalized"
        and info["sticks"] == list(artefact.STICKS)
        and "T 4" in info["tensors"]["sticks"]
    )
    assert all(np.array_equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items())
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_artefact_faults(tmp_path):
    path = tmp_path / "a.actions.safetensors"
    tensors = actions_file(path)
    assert "no such file; make it anew: python parse.py" in fault(
        artefact.read, tmp_path / "none", "nitrogen.actions/1"
    )
    assert "expected a nitrogen.overlay/1 file, found 'nitrogen.actions/1'" in fault(
        artefact.read, path, "nitrogen.overlay/1"
    )
    blob = path.read_bytes()
    for cut in (0, 7, 100, len(blob) - 1):
        path.write_bytes(blob[:cut])
        assert f"{path}: not a readable safetensors file" in fault(
            artefact.read, path, "nitrogen.actions/1"
        )
    for name, value, said in (
        ("sticks", np.zeros((5, 3), np.float32), "'sticks' has 4 = 3"),
        ("time", np.zeros(6), "'time' has T = 6, expected 5"),
        ("confidence", np.full(5, 2, np.float16), "'confidence' leaves its range 0..1"),
        ("shown", np.ones(20, np.uint8), "'shown' should be bool [20], found uint8"),
    ):
        assert said in artefact.check(
            {**tensors, name: value}, artefact.FORMATS["nitrogen.actions/1"]
        )


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("sticks", 32767, "'sticks' leaves its range -1..1: it runs from 0 to 32767"),
        ("sticks", -1.01, "'sticks' leaves its range -1..1: it runs from -1.01 to 0"),
        ("sticks", np.nan, "'sticks' holds nan, expected finite numbers"),
        ("sticks", np.inf, "'sticks' holds inf, expected finite numbers"),
        ("time", np.nan, "'time' holds nan, expected finite numbers"),
    ],
)
def test_raw_values_of_a_recorder_are_named(name, value, said, tmp_path):
    path = tmp_path / "a.actions.safetensors"
    tensors = actions_file(path)
    info = artefact.read(path)[1]
    tensors[name][...] = 0
    tensors[name].flat[2] = value
    text = json.dumps({**info, "format": "nitrogen.actions/1"})
    save_file(tensors, path, {"json": text})
    assert said in fault(artefact.read, path, "nitrogen.actions/1")
    if name == "sticks" and np.isfinite(value):  # a parser's are cells of its grid
        save_file(tensors, path, {"json": text.replace("normalized", "grid")})
        assert artefact.read(path)[0]["sticks"].flat[2] == np.float32(value)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("sticks", 100, "'sticks' leaves its range -1..1: it runs from 0 to 100"),
        ("sticks", 1e30, "'sticks' leaves its range -1..1: it runs from 0 to 1e+30"),
        ("sticks", np.nan, "'sticks' holds nan, expected finite numbers"),
        ("buttons", 255, "'buttons' leaves its range 0..1: it runs from 0 to 255"),
    ],
)
def test_raw_values_in_a_shard_are_named(name, value, said):
    rows = {
        "jpeg": np.zeros(4, np.uint8),
        "offset": np.arange(5),
        "buttons": np.ones((4, 16), np.uint8),
        "sticks": np.full((4, 4), -1, np.float32),
        "mask": np.ones((1, 20), bool),
        "video": np.zeros(4, np.int32),
        "frame": np.arange(4),
        "time": np.arange(4) / 30,
        "start": np.arange(1),
    }
    about = {"name": "a", "game": "a", "fps": 30, "split": "train"}
    info = {"format": "nitrogen.shard/1", "videos": [about], "rate": 30, "horizon": 1, "shift": 1}
    assert artefact.fault_of(rows, info, "it") is None
    rows[name][...] = 0
    rows[name].flat[0] = value
    assert artefact.fault_of(rows, info, "it") == f"tensor {said}"
