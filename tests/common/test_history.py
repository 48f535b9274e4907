"""Earlier frames: which ones, the same in training and in play; what the network makes of them."""

import dataclasses

from common import artefact, history, policy_input
from common.history import History, of_rows
from common.loading import Chunks
from common.shards import Shards

import cv2
import numpy as np
import pytest
import torch

import eval as evaluation
import model
import train
from live import pilot, server
from piloting import Scripted

MICRO = model.Config(
    image=64, width=32, head_width=16, vision_layers=1, mixer_layers=1, dit_layers=2, positions=16
)
FOUR = dataclasses.replace(MICRO, frames=4, frame_stride=3)


def net_of(c, seed=0):
    torch.manual_seed(seed)
    return model.NitroGen(c).eval()


def numbered(n: int):
    """Frame n: all pixels 4 n."""
    return np.full((256, 256, 3), 4 * n, np.uint8)


def numbers(stack) -> list:
    return [round(picture.mean() / 4) for picture in stack]


# ---- which frames --------------------------------------------------------------------------------


def test_rows_by_hand():
    assert of_rows(4, 3, 30, 30).tolist() == [9, 6, 3, 0]
    assert of_rows(2, 8, 60, 30).tolist() == [16, 0]  # a video of twice as many rows as actions
    assert of_rows(2, 1, 30, 60).tolist() == [1, 0]  # never the same row twice
    assert of_rows(1, 8, 30, 30).tolist() == [0]


def test_play_keeps_the_last_frames():
    """Every stride-th; the first stands for those before it; the memory is used anew."""
    seen = History(vars(FOUR), 30)
    frame = np.zeros((256, 256, 3), np.uint8)
    stacks = []
    for n in range(14):
        frame[:] = 4 * n
        stacks.append(numbers(seen(frame)))
    assert stacks[0] == [0, 0, 0, 0]
    assert stacks[5] == [0, 0, 2, 5]
    assert stacks[13] == [4, 7, 10, 13]
    alone = History(vars(MICRO), 30)
    assert alone(frame) is frame


@pytest.fixture
def shards(tmp_path):
    """Two segments of one video: rows 0-19, and 20-39 from a minute later; the pictures of rows 6
    to 8 are that of row 5.
    """
    jpegs = [cv2.imencode(".png", numbered(n))[1].tobytes() for n in range(40)]
    for n in (6, 7, 8):
        jpegs[n] = b""
    rows = np.arange(40)
    artefact.write(
        tmp_path / "shards/v-000.safetensors",
        {
            "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
            "offset": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
            "buttons": np.zeros((40, 16), np.uint8),
            "sticks": np.zeros((40, 4), np.float32),
            "mask": np.ones((1, 20), bool),
            "video": np.zeros(40, np.int32),
            "frame": rows + 1800 * (rows >= 20),
            "time": rows / 30 + 60 * (rows >= 20),
            "start": np.array([0, 4, 12, 15, 20, 22, 35]),
        },
        "nitrogen.shard/1",
        videos=[{"name": "v", "game": "v", "fps": 30.0, "split": "train"}],
        rate=30.0,
        horizon=4,
        shift=1,
    )
    return tmp_path / "shards"


def test_shards_give_the_same_frames_as_play(shards):
    """To a chunk from row r belongs what play had seen by then, had it begun with the segment."""
    data = Chunks(Shards(shards, "train", 4, 30, 1, 4, 3), 64)
    stacks = [data[i][0] for i in range(7)]
    assert stacks[0].shape == (4, 64, 64, 3) and stacks[0].dtype == np.uint8
    assert [numbers(stack) for stack in stacks] == [
        [0, 0, 0, 0],
        [0, 0, 1, 4],
        [3, 5, 9, 12],  # row 6 shows what row 5 does
        [5, 9, 12, 15],
        [20, 20, 20, 20],  # a segment's first row looks back at nothing
        [20, 20, 20, 22],
        [26, 29, 32, 35],
    ]
    one = Chunks(Shards(shards, "train", 4, 30, 1), 64)
    for i in range(7):
        assert np.array_equal(one[i][0], stacks[i][-1])
    seen = History(vars(FOUR), 30)
    played = [numbers(seen(numbered(n))) for n in range(20, 36)]
    assert played[15] == numbers(stacks[6]) and played[2] == numbers(stacks[5])


# ---- augmentation --------------------------------------------------------------------------------


def test_one_augmentation_for_the_frames_of_a_sample():
    """Equal frames stay equal; samples differ; a single frame is augmented as it was."""
    torch.manual_seed(3)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    cfg = train.Config()
    torch.manual_seed(0)
    stacked = train.augment(images[:, None].expand(-1, 3, -1, -1, -1), 64, cfg)
    torch.manual_seed(0)
    single = train.augment(images, 64, cfg)
    assert stacked.shape == (2, 3, 3, 64, 64) and single.shape == (2, 3, 64, 64)
    for t in range(3):
        assert torch.allclose(stacked[:, t], single, atol=1e-5)
    torch.manual_seed(0)
    same = train.augment(images[:1].expand(2, -1, -1, -1), 64, cfg)
    assert (same[0] - same[1]).abs().mean() > 0.01


# ---- the network ---------------------------------------------------------------------------------


def test_one_frame_is_the_published_network():
    """The same tensors, the same values, whatever frame_stride says."""
    net = net_of(MICRO)
    again = net_of(dataclasses.replace(MICRO, frame_stride=5))
    assert net.past is None and net.state_dict().keys() == again.state_dict().keys()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    noise = torch.randn(2, 16, 20)
    assert torch.equal(net.sample(images, noise), again.sample(images, noise))


def test_pooled_tokens_by_hand():
    """Of 8 x 8 tokens each 2 x 2 are averaged; those of the last frame stay as they are."""
    tokens = torch.randn(2 * 3, 64, 5)  # two samples of three frames
    time = torch.randn(2, 5)
    out = history.with_past(tokens, time)
    assert out.shape == (2, 64 + 2 * 16, 5)
    assert torch.equal(out[1, :64], tokens[5])
    corner = tokens[4][[0, 1, 8, 9]].mean(0) + time[1]  # sample 1, frame 1
    assert torch.allclose(out[1, 64 + 16], corner, atol=1e-6)


def test_earlier_frames_and_their_order_count():
    net = net_of(FOUR)
    extra = set(net.state_dict()) - set(net_of(MICRO).state_dict())
    assert extra == {"past.weight"} and net.past.weight.shape == (3, 32)
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 64, 64, 3), np.uint8)
    noise = torch.randn(1, 16, 20)
    a = net.sample(images, noise)
    assert a.shape == (1, 16, 20)
    assert (net.sample(images[:, [1, 0, 2, 3]], noise) - a).abs().max() > 1e-4
    larger = np.kron(images, np.ones((1, 1, 2, 2, 1), np.uint8))  # resized by area: the same
    assert torch.allclose(net.sample(larger, noise), a, atol=1e-6)
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, 4, h, w, 3\] RGB, found"):
        net.sample(images[:, 0], noise)
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, h, w, 3\] RGB, found"):
        policy_input.checked(MICRO, images, noise, None, None, "cpu")


def test_it_learns_what_only_an_earlier_frame_shows():
    """The button tells the colour of the frame nine rows ago: one frame cannot know."""
    images = torch.zeros(16, 4, 64, 64, 3, dtype=torch.uint8)
    pressed = torch.arange(16) % 2
    images[pressed == 1, 0] = 255
    actions = pressed[:, None, None].expand(16, 16, 20).float()
    net = net_of(dataclasses.replace(FOUR, dropout=0.0, predict="action")).train()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        net.loss(images, actions, torch.ones(1), draws=4).backward()
        optimizer.step()
    found = net.eval().sample(images, torch.randn(16, 16, 20)).mean((1, 2)) > 0.5
    assert found.tolist() == pressed.bool().tolist()


@pytest.mark.parametrize("change", [{"frames": 0}, {"frames": 17}, {"frame_stride": 0}])
def test_impossible_histories_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} .*: expected 1 to"):
        dataclasses.replace(MICRO, **change)


# ---- training and play ---------------------------------------------------------------------------


def test_train_and_play(shards, tmp_path, monkeypatch):
    """From a policy of one frame to one of four; the file says so, and play shows it four."""
    monkeypatch.chdir(tmp_path)
    base = net_of(MICRO)
    model.save("base.safetensors", base.state_dict(), base)
    common = {"init": "base.safetensors", "data": str(shards), "device": "cpu", "steps": 2}
    common |= {"batch": 4, "micro": 2, "save_every": 1, "log_every": 1, "horizon": 4}
    cfg = train.Config(**common, out="run", frames=4, frame_stride=3)
    train.fit(dataclasses.replace(cfg, out="whole"))
    train.fit(dataclasses.replace(cfg, minutes=1e-9))
    train.fit(cfg)  # the rest of it
    a, b = (artefact.read(f"{run}/state.safetensors")[0] for run in ("whole", "run"))
    assert all(np.array_equal(a[name], b[name]) for name in a) and "raw.past.weight" in a
    net = model.load("run/model.safetensors", "cpu")
    assert (net.c.frames, net.c.frame_stride) == (4, 3)

    shown = []
    player = evaluation.Policy("run/model.safetensors", "cpu", execute=2, steps=1, seed=0)
    monkeypatch.setattr(player.net, "sample", lambda images, *a: shown.append(images) or SAMPLE)
    for n in range(11):
        player(numbered(n), None)
    assert [numbers(images[0]) for images in shown][-1] == [1, 4, 7, 10]

    lora = train.Config(**common, out="adapter", frames=2, lora=2, freeze=True)
    train.fit(lora)
    saved = artefact.read("adapter/model.safetensors")[0]
    assert saved["past.weight"].shape == (1, 32)  # its own, beside the updates of eleven layers
    assert len(saved) == 1 + 2 * 11
    assert model.load("adapter/model.safetensors", "cpu").c.frames == 2

    common["init"] = "run/model.safetensors"  # of four frames: its times are not the adapter's
    train.fit(train.Config(**common, out="one", frames=1, lora=2, freeze=True))
    assert model.load("one/model.safetensors", "cpu").c.frames == 1


SAMPLE = torch.zeros(1, 4, 20)


def test_the_pilot_and_the_server():
    brain = Scripted("SOUTH")
    brain.about = {**brain.about, "frames": 2, "frame_stride": 5}
    config = type("", (), {"execute": 4, "fps": 30, "realtime": False, "speed": 1.0})
    agent = pilot.Pilot(brain, config)
    for n in range(9):
        agent(numbered(n), {"time": n / 30})
    agent.close()
    assert [numbers(stack) for stack in brain.seen] == [[0, 0], [0, 4], [3, 8]]
    assert server.frame_shape(brain) == (2, 256, 256, 3)
    assert server.frame_shape(Scripted("SOUTH")) == (256, 256, 3)
