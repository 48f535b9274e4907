"""train.py: schedule and average by hand, augmentation, exact resume, guarded run folders."""

import json
import math
import signal

import numpy as np
import pytest
import torch

import filter
import model
import sim
import train

MICRO = model.Config(image=64, width=32, head_width=16, vision_layers=1, mixer_layers=1, dit_layers=2, positions=16, dropout=0.1)


def test_schedule_by_hand():
    c = train.Config(steps=100, warmup=10, decay=0.2, lr=1e-3)
    for step, expected in ((0, 1e-4), (4, 5e-4), (9, 1e-3), (50, 1e-3), (80, 1e-3), (90, 5e-4), (99, 5e-5)):
        assert math.isclose(train.learning_rate(step, c), expected), step


def test_average_by_hand():
    c = train.Config(ema=0.99)
    assert train.ema_decay(0, c) == 0.1 and train.ema_decay(90, c) == 0.91 and train.ema_decay(5000, c) == 0.99


def test_augmentation():
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    off = train.Config(jitter=0, hue=0, rotate=0, crop=1)
    plain = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    assert (train.augment(images, 64, off) - plain).abs().max() < 1e-4                     # nothing asked, nothing done
    out = train.augment(images, 32, train.Config())
    assert out.shape == (4, 3, 32, 32) and out.min() >= -1 and out.max() <= 1
    gray = torch.full((64, 16, 16, 3), 100, dtype=torch.uint8)
    hues = train.augment(gray, 16, train.Config(jitter=0, hue=0.5))
    assert (hues - (100 / 127.5 - 1)).abs().max() < 1e-2                                   # gray has no hue to turn
    light = train.augment(gray, 16, train.Config(jitter=0.2, hue=0)).mean(dim=(1, 2, 3))
    assert light.min() > 0.78 * 100 / 127.5 - 1 and light.max() < 1.22 * 100 / 127.5 - 1 and light.std() > 0.03
    line = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    line[:, 31:33] = 255
    turned = train.augment(line.expand(16, -1, -1, -1), 64, train.Config(jitter=0, hue=0, crop=1, rotate=5))
    slopes = torch.stack([(turned[:, 0, :, 60].argmax(1) - turned[:, 0, :, 3].argmax(1)).float() / 57]).abs().max()
    assert 0.02 < slopes <= math.tan(math.radians(5.8))


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """60 frames whose colour tells the action, as one training and one held-out video."""
    import cv2
    monkeypatch.setitem(model.CONFIGS, "micro", MICRO)
    monkeypatch.chdir(tmp_path)
    for k, split in enumerate(("train", "validation")):
        left = np.arange(60) < 30
        jpegs = [cv2.imencode(".jpg", np.full((256, 256, 3), 200 if v else 40, np.uint8))[1].tobytes() for v in left]
        sticks = np.repeat(np.where(left, -1, 1)[:, None], 4, 1).astype(np.float32)
        sim.write(tmp_path / f"shards/v-{k}-000.safetensors", {
            "jpeg": np.frombuffer(b"".join(jpegs), np.uint8), "offset": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
            "buttons": np.repeat(left[:, None], 16, 1).astype(np.uint8), "sticks": sticks, "mask": np.ones((1, 20), bool), "video": np.zeros(60, np.int32),
            "frame": np.arange(60), "time": np.arange(60) / 30, "start": np.arange(43),
        }, "nitrogen.shard/1", videos=[{"name": f"v-{k}", "game": "v", "fps": 30.0, "split": split}], rate=30.0, horizon=16, shift=1)
    return tmp_path


def config(**changes):
    return train.Config(**{"net": "micro", "data": "shards", "out": "run", "steps": 6, "batch": 8, "micro": 4, "warmup": 2, "lr": 1e-3, "ema": 0.9,
                           "log_every": 2, "save_every": 2, "device": "cpu", **changes})


def test_every_chunk_once_per_epoch(shards):
    c = config(batch=10)
    batches = train.Batches(filter.Shards("shards", "train", 16, 30, 1), MICRO, c, "cpu")
    drawn = np.concatenate([batches.rows(s) for s in range(43)])                          # 430 rows: ten epochs of 43
    assert (np.bincount(drawn) == 10).all() and sorted(drawn[43:86]) == list(range(43)) and drawn[:43].tolist() != drawn[43:86].tolist()


def test_other_layouts_go_by_name():
    """What a layout has and the recordings do not (GUIDE, virtual directions) never counts; the rest lies where its name says."""
    shown = np.ones(20, bool)
    shown[model.ACTIONS.index("NORTH")] = False
    buttons, sticks = np.eye(16, dtype=np.uint8), np.full((16, 4), -0.5, np.float32)
    images, actions, mask = train.collate([(np.zeros((8, 8, 3), np.uint8), buttons, sticks, shown)], "cpu", model.RELEASED)
    assert actions.shape == (1, 16, 25) and mask.shape == (1, 1, 25) and mask.sum() == 19
    for i, name in enumerate(model.RELEASED):
        counts = name in model.ACTIONS and name != "NORTH"
        assert mask[0, 0, i] == counts
        if name in sim.BUTTONS:
            assert actions[0, :, i].tolist() == buttons[:, sim.BUTTONS.index(name)].tolist()
    assert (actions[..., -4:] == 0.25).all()


def test_start_from_a_siglip_tower(shards, monkeypatch, tmp_path):
    from safetensors.torch import save_file
    monkeypatch.setattr(train, "train_steps", lambda c, recipe, net, *rest: kept.append(net))
    kept, donor = [], model.NitroGen(MICRO)
    save_file({k.replace("vision_encoder.", "vision_model."): v.contiguous().clone() for n, p in donor.state_dict().items() if n.startswith("vision.")
               for k, v in model.theirs(n, p).items()}, tmp_path / "tower.safetensors")
    train.fit(config(vision=str(tmp_path / "tower.safetensors")))
    assert all(torch.equal(v, donor.vision.state_dict()[k]) for k, v in kept[0].vision.state_dict().items())


def test_resume_is_exact(shards, monkeypatch):
    """6 steps at once == 3 steps, Ctrl-C, and the rest: bit for bit, weights, average and optimizer."""
    train.fit(config(out="whole"))
    calls, real = [], train.update

    def interrupted(*args):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.fit(config())
    assert sim.read("run/state.safetensors")[1]["step"] == 3
    monkeypatch.setattr(train, "update", real)
    train.fit(config())
    whole, parts = (sim.read(f"{r}/state.safetensors")[0] for r in ("whole", "run"))
    assert whole.keys() == parts.keys() and all(np.array_equal(whole[k], parts[k]) for k in whole)
    assert sum(np.abs(v).sum() for k, v in whole.items() if k.startswith("m.")) > 0


def test_ctrl_c_finishes_the_step(shards, monkeypatch):
    """SIGINT in the middle of a step, after the weights have moved: the step counts, and the resumed run is the same run."""
    train.fit(config(out="whole"))
    usual, real, calls = signal.signal(signal.SIGINT, signal.default_int_handler), train.update, []

    def interrupted(*args):
        result = real(*args)
        calls.append(0)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return result

    try:
        monkeypatch.setattr(train, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert sim.read("run/state.safetensors")[1]["step"] == 3
    train.fit(config())
    whole, parts = (sim.read(f"{r}/state.safetensors")[0] for r in ("whole", "run"))
    assert all(np.array_equal(whole[k], parts[k]) for k in whole)


def test_accumulation_is_the_same_step(shards, monkeypatch):
    """One step in micro batches of 4 or 8: the same gradient but for rounding (no dropout, no augmentation, given noise)."""
    monkeypatch.setitem(model.CONFIGS, "micro", model.Config(**{**MICRO.__dict__, "dropout": 0.0}))
    monkeypatch.setattr(train, "augment", lambda images, side, c: images.permute(0, 3, 1, 2).float() / 127.5 - 1)
    real, t, noise = model.NitroGen.loss, torch.linspace(0.1, 0.8, 8), torch.randn(8, 16, 20, generator=torch.Generator().manual_seed(0))
    norms = {}
    for micro in (4, 8):
        place = [0]

        def given(self, pixels, actions, mask, draws=1):
            a = place[0]
            place[0] = a + len(actions)
            return real(self, pixels, actions, mask, t[a:a + len(actions)], noise[a:a + len(actions)])

        torch.manual_seed(0)
        net = model.NitroGen(model.CONFIGS["micro"])
        monkeypatch.setattr(model.NitroGen, "loss", given)
        c = config(micro=micro)
        batches = train.Batches(filter.Shards("shards", "train", 16, 30, 1), MICRO, c, "cpu")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        norms[micro] = train.update(c, net, optimizer, *batches(0), torch.device("cpu"))
    assert np.allclose(norms[4], norms[8], rtol=2e-2)


def test_it_learns_what_the_colour_says(shards):
    train.fit(config(steps=200, batch=16, micro=16, warmup=10, lr=4e-3, draws=4, jitter=0.0, hue=0.0, save_every=100, log_every=50, ema=0.95))
    net = model.load("run/model.safetensors", "cpu")
    frames = np.stack([np.full((256, 256, 3), v, np.uint8) for v in (200, 40)] * 8)
    x = net.act(frames, torch.randn(16, 16, 20, generator=torch.Generator().manual_seed(0)))["sticks"][:, 0, 0]
    assert x[::2].mean() < -0.4 and x[1::2].mean() > 0.4
    rows = [json.loads(line) for line in open("run/log.jsonl")]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"] and rows[-1]["val"] < rows[0]["loss"]
    assert all(open(f"run/source/{name}").read() == open(sim.ROOT / name).read() for name in ("model.py", "templates/pads.py"))


def test_guards(shards, monkeypatch, capsys):
    train.fit(config())
    train.fit(config())
    assert "finished at step 6" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds a run with another lr"):
        train.fit(config(lr=5e-4))
    with pytest.raises(SystemExit, match="drop --no-resume"):
        train.fit(config(resume=False))
    with train.lock(train.Path("run")), pytest.raises(SystemExit, match="another process is training"):
        train.fit(config())
    with pytest.raises(SystemExit, match="not a multiple"):
        train.fit(config(micro=3))
    with pytest.raises(SystemExit, match="no shards there"):
        train.fit(config(data="nowhere"))
    monkeypatch.setattr(train, "update", lambda *a: (float("nan"), 1.0))
    with pytest.raises(SystemExit, match="step 0: the loss is nan; chunks"):
        train.fit(config(out="other"))
    state = open("run/state.safetensors", "rb").read()
    open("run/state.safetensors", "wb").write(state[:1000])
    with pytest.raises(SystemExit, match="not a readable safetensors"):
        train.fit(config())


def test_minutes_leave_a_run_to_go_on_with(shards, capsys):
    train.fit(config(minutes=1e-9))
    assert "are over at step 1 of 6" in capsys.readouterr().out
    train.fit(config())
    assert sim.read("run/state.safetensors")[1]["step"] == 6
