"""common/artefact.py: what is written is read, and what is broken is named."""

import os

from common import artefact

import numpy as np

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
