"""The policy of these tests."""

import dataclasses

import pytest


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A network too small to play well, in a file."""
    import torch

    import model

    torch.manual_seed(0)
    net = model.NitroGen(
        dataclasses.replace(
            model.CONFIGS["tiny"],
            image=16,
            width=32,
            head_width=16,
            vision_layers=1,
            dit_layers=2,
            steps=2,
        )
    )
    path = tmp_path_factory.mktemp("policy") / "model.safetensors"
    model.save(path, net.state_dict(), net)
    return str(path)
