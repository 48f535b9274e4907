"""train.py: schedule and average by hand, augmentation, exact resume, guarded run folders."""

import contextlib
import dataclasses
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path

from common import ROOT, artefact, forecast, lora, processes, run_folder
from common.loading import in_turn, shuffled
from common.processes import World
from common.shards import Shards, folders_of

import numpy as np
import pytest
import torch

import model
import train
from bench import flops, training
from commands import with_shared_memory
from interop import checkpoint

MICRO = model.Config(
    image=64,
    width=32,
    head_width=16,
    vision_layers=1,
    mixer_layers=1,
    dit_layers=2,
    positions=16,
    dropout=0.1,
)


@pytest.mark.parametrize("local, threads", [(1, 8), (4, 2), (16, 1)])
def test_a_step_takes_all_cores(monkeypatch, local, threads):
    """Processes on one machine share its eight."""
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    with processes.joined("cpu"):
        assert taken == [threads]


@pytest.mark.parametrize("device, parses", [("cpu", ["--workers", "2"]), ("cuda", [])])
def test_the_stages_of_the_first_command(monkeypatch, capsys, device, parses):
    """Each gets the files of the one before, and all cores; one process parses on a GPU."""
    stages = {}
    monkeypatch.setattr(train, "pick_device", lambda name: device)
    monkeypatch.setattr(train, "expand", lambda folders: [f"{folders[0]}/ridge-0.mp4"])
    monkeypatch.setattr(train, "run_stage", lambda *argv: stages.update({argv[0]: argv[1:]}))
    monkeypatch.setattr(train, "fit", lambda cfg: Path(f"of {cfg.data}"))
    monkeypatch.setattr(train, "manifest", lambda data: {"videos": {"a": {"game": "ridge"}}})
    train.run(dataclasses.replace(train.CONFIGS["tiny"], workers=2))
    video, labels = "data/tiny/videos/ridge-0.mp4", "data/tiny/labels"
    assert list(stages) == ["eval.py", "extract.py", "parse.py", "filter.py"]
    assert stages["extract.py"] == (video, "--out", labels, "--workers", "2")
    assert stages["parse.py"] == (video, "--out", labels, "--device", "auto", *parses)
    assert stages["filter.py"][:5] == (video, "--labels", labels, "--out", "data/tiny/shards")
    assert stages["eval.py"][:3] == ("play", "--policy", "of data/tiny/shards")
    assert "Its data takes 5 to 12 min" in capsys.readouterr().out


def test_schedule_by_hand():
    c = train.Config(steps=100, warmup=10, decay=0.2, lr=1e-3)
    for step, expected in (
        (0, 1e-4),
        (4, 5e-4),
        (9, 1e-3),
        (50, 1e-3),
        (80, 1e-3),
        (90, 5e-4),
        (99, 5e-5),
    ):
        assert math.isclose(train.learning_rate(step, c), expected), step


def test_average_by_hand():
    c = train.Config(ema=0.99)
    assert (
        train.ema_decay(0, c) == 0.1
        and train.ema_decay(90, c) == 0.91
        and train.ema_decay(5000, c) == 0.99
    )


def test_augmentation():
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    off = train.Config(jitter=0, hue=0, rotate=0, crop=1)
    plain = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    # nothing asked, nothing done
    assert (train.augment(images, 64, off) - plain).abs().max() < 1e-4
    out = train.augment(images, 32, train.Config())
    assert out.shape == (4, 3, 32, 32) and out.min() >= -1 and out.max() <= 1
    gray = torch.full((64, 16, 16, 3), 100, dtype=torch.uint8)
    hues = train.augment(gray, 16, train.Config(jitter=0, hue=0.5))
    assert (hues - (100 / 127.5 - 1)).abs().max() < 1e-2  # gray has no hue to turn
    light = train.augment(gray, 16, train.Config(jitter=0.2, hue=0)).mean(dim=(1, 2, 3))
    assert (
        light.min() > 0.78 * 100 / 127.5 - 1
        and light.max() < 1.22 * 100 / 127.5 - 1
        and light.std() > 0.03
    )
    line = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    line[:, 31:33] = 255
    turned = train.augment(
        line.expand(16, -1, -1, -1), 64, train.Config(jitter=0, hue=0, crop=1, rotate=5)
    )
    slopes = (
        torch.stack([(turned[:, 0, :, 60].argmax(1) - turned[:, 0, :, 3].argmax(1)).float() / 57])
        .abs()
        .max()
    )
    assert 0.02 < slopes <= math.tan(math.radians(5.8))


@pytest.mark.parametrize("names", [model.ACTIONS, model.RELEASED])
def test_mirroring(names):
    """A sample is as it was, or left is right in its picture, on its d-pad and sticks, and in what
    the loss sees of these; an earlier frame of it too.
    """
    images = torch.randint(0, 256, (400, 2, 6, 8, 3), dtype=torch.uint8)
    actions = torch.rand(400, 16, len(names))
    by_hand = actions.clone()
    for name, other in (("DPAD_LEFT", "DPAD_RIGHT"), ("DPAD_RIGHT", "DPAD_LEFT")):
        by_hand[..., names.index(name)] = actions[..., names.index(other)]
    for name in ("LEFT_X", "RIGHT_X"):
        by_hand[..., names.index(name)] = 1 - actions[..., names.index(name)]
    mask = torch.ones(400, 1, len(names))
    mask[..., names.index("DPAD_RIGHT")] = 0  # the parser was in doubt
    half = train.Config(mirror=0.5)
    pictures, pads, seen = train.mirrored(images, actions, mask, names, half)
    turned = (pictures != images).flatten(1).any(1)
    assert 150 < turned.sum() < 250
    assert torch.equal(pictures[turned], images[turned].flip(3))
    assert torch.equal(pads, torch.where(turned[:, None, None], by_hand, actions))
    assert torch.equal(seen[:, 0, names.index("DPAD_LEFT")], (~turned).float())
    assert torch.equal(seen[:, 0, names.index("DPAD_RIGHT")], turned.float())
    assert seen.sum() == 400 * 16 * (len(names) - 1)
    assert train.mirrored(images, actions, torch.ones(1), names, half)[2].all()
    state = torch.get_rng_state()
    assert train.mirrored(images, actions, mask, names, train.Config())[0] is images
    assert torch.equal(torch.get_rng_state(), state)  # a published recipe draws what it drew


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """60 frames whose colour tells the action, as one training and one held-out video."""
    import cv2

    monkeypatch.setitem(model.CONFIGS, "micro", MICRO)
    monkeypatch.chdir(tmp_path)
    for k, split in enumerate(("train", "validation")):
        left = np.arange(60) < 30
        jpegs = [
            cv2.imencode(".jpg", np.full((256, 256, 3), 200 if v else 40, np.uint8))[1].tobytes()
            for v in left
        ]
        sticks = np.repeat(np.where(left, -1, 1)[:, None], 4, 1).astype(np.float32)
        artefact.write(
            tmp_path / f"shards/v-{k}-000.safetensors",
            {
                "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
                "offset": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
                "buttons": np.repeat(left[:, None], 16, 1).astype(np.uint8),
                "sticks": sticks,
                "mask": np.ones((1, 20), bool),
                "video": np.zeros(60, np.int32),
                "frame": np.arange(60),
                "time": np.arange(60) / 30,
                "start": np.arange(43),
            },
            "nitrogen.shard/1",
            videos=[{"name": f"v-{k}", "game": "v", "fps": 30.0, "split": split}],
            rate=30.0,
            horizon=16,
            shift=1,
        )
    return tmp_path


def config(**changes):
    return train.Config(
        **{
            "net": "micro",
            "data": "shards",
            "out": "run",
            "steps": 6,
            "batch": 8,
            "micro": 4,
            "warmup": 2,
            "lr": 1e-3,
            "ema": 0.9,
            "log_every": 2,
            "save_every": 2,
            "device": "cpu",
            **changes,
        }
    )


ALONE = World()


def states(*runs):
    return [artefact.read(f"{r}/state.safetensors")[0] for r in runs]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def chunks(*sizes, slots=None):
    """Of each folder, as common.shards.Shards says it."""
    return types.SimpleNamespace(sizes=list(sizes), slots=list(slots or sizes))


def test_every_chunk_once_per_epoch():
    c = config(batch=10)
    drawn = np.concatenate(
        [train.rows(s, chunks(43), c) for s in range(43)]
    )  # 430 rows: ten epochs of 43
    assert (
        (np.bincount(drawn) == 10).all()
        and sorted(drawn[43:86]) == list(range(43))
        and drawn[:43].tolist() != drawn[43:86].tolist()
    )
    assert (
        train.rows(3, chunks(43), c).tolist()
        != train.rows(3, chunks(43), config(batch=10, seed=1)).tolist()
    )


def test_shares_of_folders_are_kept_exactly():
    """Ten chunks and ninety, half and half: an epoch of 100 holds 50 of each folder."""
    c, mixed = config(batch=25), chunks(10, 90, slots=(50, 50))
    drawn = np.concatenate([train.rows(step, mixed, c) for step in range(36)])  # nine epochs
    few = (drawn < 10).reshape(9, 100)
    assert (few.sum(1) == 50).all() and few[0].tolist() != few[1].tolist()
    # no step is of one folder alone
    assert 3 <= few.reshape(36, 25).sum(1).min() and few.reshape(36, 25).sum(1).max() <= 22
    assert (np.bincount(drawn[drawn < 10]) == 45).all()
    assert (np.bincount(drawn[drawn >= 10] - 10) == 5).all()
    for epochs in range(1, 9):  # at the end of each, no chunk is ahead by more than one
        seen = np.bincount(drawn[: 100 * epochs], minlength=100)
        assert np.ptp(seen[:10]) == 0 and np.ptp(seen[10:]) <= 1
    # the place alone decides: any piece, in any process
    where = np.random.default_rng(0).integers(0, 900, 64)
    assert in_turn(where, [10, 90], [50, 50], c.seed).tolist() == drawn[where].tolist()
    # without shares, folders are one list
    assert train.rows(3, chunks(10, 90), c).tolist() == train.rows(3, chunks(100), c).tolist()
    assert train.rows(0, mixed, c).tolist() != train.rows(0, mixed, config(seed=1)).tolist()


@pytest.mark.parametrize("share", ["0.3333333", "0.33333335"])
def test_shares_that_are_rounded_fill_an_epoch(share):
    """Of thirty million chunks: every place is of a folder, though the shares miss 1 by 1e-7."""
    mixed = Shards.__new__(Shards)
    mixed.folders = folders_of(",".join(f"{name}:{share}" for name in "abc"))
    mixed.sizes = [5_000_000, 10_000_000, 15_000_000]
    mixed.ends = [0, sum(mixed.sizes)]
    assert mixed.slots == [10_000_000] * 3


def test_shuffle_is_a_permutation_that_mixes():
    for n in (1, 2, 3, 64, 1000, 65537):
        assert sorted(shuffled(np.arange(n), n, (0, 0))) == list(range(n))
    x = shuffled(np.arange(100000), 100000, (0, 1))
    assert (
        abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.02
        and abs(np.corrcoef(x, np.arange(100000))[0, 1]) < 0.02
    )
    # the first tenth comes from everywhere
    assert np.abs(np.bincount(x[:10000] // 1000, minlength=100) - 100).max() < 45
    far = shuffled(np.arange(1000), 10**12, (0, 1))
    assert len(set(far)) == 1000 and far.max() < 10**12 and far.max() > 9 * 10**11


def test_same_order_for_any_number_of_processes(shards):
    """The processes' micro-batches, put side by side, are the step's rows: decoded frames, in
    order.
    """
    c, data = config(batch=8, micro=2, steps=3), Shards("shards", "train", 16, 30, 1)
    alone = [
        torch.cat([next(pieces)[0] for _ in range(4)])
        for pieces in [train.batches(data, MICRO, c, ALONE)]
        for _ in range(3)
    ]
    ranks = [train.batches(data, MICRO, c, World(r, 2)) for r in range(2)]
    for step in range(3):
        assert torch.equal(alone[step], torch.cat([next(r)[0] for r in ranks for _ in range(2)]))
        assert (alone[step][:, 0, 0, 0] > 100).tolist() == (
            data.parts[0]["start"][train.rows(step, data, c)] < 30
        ).tolist()


def test_other_layouts_go_by_name():
    """What a layout has and the recordings do not (GUIDE, virtual directions) never counts; the
    rest lies where its name says.
    """
    shown = np.ones(20, bool)
    shown[model.ACTIONS.index("NORTH")] = False
    buttons, sticks = np.eye(16, dtype=np.uint8), np.full((16, 4), -0.5, np.float32)
    images, actions, mask = train.collate(
        [(np.zeros((8, 8, 3), np.uint8), buttons, sticks, shown)], model.RELEASED
    )
    assert actions.shape == (1, 16, 25) and mask.shape == (1, 1, 25) and mask.sum() == 19
    for i, name in enumerate(model.RELEASED):
        counts = name in model.ACTIONS and name != "NORTH"
        assert mask[0, 0, i] == counts
        if name in artefact.BUTTONS:
            assert actions[0, :, i].tolist() == buttons[:, artefact.BUTTONS.index(name)].tolist()
    assert (actions[..., -4:] == 0.25).all()


def test_start_from_a_siglip_tower(shards, monkeypatch, tmp_path):
    from safetensors.torch import save_file

    monkeypatch.setattr(train, "train_steps", lambda trainer, *rest: kept.append(trainer.net))
    kept, donor = [], model.NitroGen(MICRO)
    save_file(
        {
            k.replace("vision_encoder.", "vision_model."): v.contiguous().clone()
            for n, p in donor.state_dict().items()
            if n.startswith("vision.")
            for k, v in checkpoint.theirs(n, p).items()
        },
        tmp_path / "tower.safetensors",
    )
    train.fit(config(vision=str(tmp_path / "tower.safetensors")))
    assert all(
        torch.equal(v, donor.vision.state_dict()[k]) for k, v in kept[0].vision.state_dict().items()
    )


CHILD = """
import os, signal, sys
from common import loading
import model, train, test_train
model.CONFIGS["micro"] = test_train.MICRO
calls, real, rank = [], train.update, os.environ.get("RANK", "0")
def update(*args):
    calls.append(0)
    if os.environ.get("KILL") == rank + ":" + str(len(calls)):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("TERM") == str(len(calls)):
        os.killpg(0, signal.SIGTERM)
    return real(*args)
train.update = update
trainer, decode, fault = os.getpid(), loading.decode, os.environ.get("FAULT", "")
def faulty(*args):
    if os.getpid() == trainer or rank != os.environ.get("FAULTY_RANK", rank):
        return decode(*args)
    if fault in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[fault])
    raise OSError(5, "Input/output error")
if fault:
    loading.decode = faulty
train.main(sys.argv[1:])
"""


def command(c, *launcher, within=(), **env):
    """The real command line for config c, in processes of its own that know the test's network.

    within: words before it.
    """
    flags = [
        w
        for f in dataclasses.fields(c)
        for v in [getattr(c, f.name)]
        for w in (
            ["--" + ("" if v else "no-") + f.name.replace("_", "-")]
            if isinstance(v, bool)
            else ["--" + f.name.replace("_", "-"), str(v)]
        )
    ]
    open("child.py", "w").write(CHILD)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
        **env,
    }
    return subprocess.run(
        [*within, sys.executable, *launcher, "child.py", *flags],
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        start_new_session=True,
    )


def test_resume_is_exact(shards):
    """10 steps == 5, kill -9 in the eighth, and the rest: bit for bit, weights, average, optimizer
    and log.
    """
    train.fit(config(out="whole", steps=10, save_every=5, log_every=1))
    c = config(steps=10, save_every=5, log_every=1)
    assert command(c, KILL="0:8").returncode == -signal.SIGKILL
    assert (
        artefact.read("run/state.safetensors")[1]["step"] == 5
        and len(open("run/log.jsonl").readlines()) == 7
    )
    train.fit(c)
    assert same(*states("whole", "run"))
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "frames_per_s"}
            for line in open(f"{r}/log.jsonl")
        ]
        for r in ("whole", "run")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10
    assert sum(np.abs(v).sum() for k, v in states("whole")[0].items() if k.startswith("m.")) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step(shards, monkeypatch, number):
    """A signal in the middle of a step, after the weights have moved: the step counts, and the
    resumed run is the same run.
    """
    train.fit(config(out="whole"))
    usual, real, calls = signal.signal(signal.SIGINT, signal.default_int_handler), train.update, []

    def interrupted(*args):
        result = real(*args)
        calls.append(0)
        if len(calls) == 3:
            signal.raise_signal(number)
        return result

    try:
        monkeypatch.setattr(train, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert artefact.read("run/state.safetensors")[1]["step"] == 3
    monkeypatch.setattr(train, "update", real)
    train.fit(config())
    assert same(*states("whole", "run"))


def test_sigterm_to_all_processes(shards):
    """As clusters end a job: also the decoding processes get the signal, two steps before the batch
    is there.
    """
    done = command(config(), TERM="4")
    assert (
        done.returncode == 1
        and "interrupted; finished work is kept" in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr[-2000:]
    assert artefact.read("run/state.safetensors")[1]["step"] == 4
    train.fit(config())
    train.fit(config(out="whole"))
    assert same(*states("whole", "run"))


def test_accumulation_is_the_same_step(shards, monkeypatch):
    """One step in micro batches of 4 or 8: the same gradient but for rounding (no dropout, no
    augmentation, given noise).
    """
    monkeypatch.setitem(model.CONFIGS, "micro", dataclasses.replace(MICRO, dropout=0.0))
    monkeypatch.setattr(
        train, "augment", lambda images, side, c: images.permute(0, 3, 1, 2).float() / 127.5 - 1
    )
    monkeypatch.setattr(train, "autocast", lambda device: contextlib.nullcontext())
    real, t, noise = (
        model.NitroGen.loss,
        torch.linspace(0.1, 0.8, 8),
        torch.randn(8, 16, 20, generator=torch.Generator().manual_seed(0)),
    )
    after = {}
    for micro in (4, 8):
        place = [0]

        def given(self, pixels, actions, mask, draws=1, place=place):
            a = place[0]
            place[0] = a + len(actions)
            return real(
                self, pixels, actions, mask, t[a : a + len(actions)], noise[a : a + len(actions)]
            )

        monkeypatch.setattr(model.NitroGen, "forward", given)
        c = config(micro=micro)
        trainer = train.assemble(c, ALONE)
        place[0] = 0  # the footprint was measured, too
        trainer.optimizer = torch.optim.SGD(trainer.net.parameters(), lr=0.0)
        data = train.batches(trainer.shards["train"], MICRO, c, ALONE)
        losses, norm = train.update(trainer, data, 0)
        after[micro] = [losses.mean(), norm, *(p.detach() for p in trainer.net.parameters())]
        assert len(losses) == 8 // micro
    assert all(
        np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(after[4], after[8], strict=False)
    )
    moved = [
        (p - q).abs().max().item()
        for p, q in zip(after[4][2:], model.NitroGen(MICRO).parameters(), strict=False)
    ]
    assert max(moved) > 1e-4


FAULTS = {
    "OSError": r"v-0-000.safetensors rows \d+: \[Errno 5\] Input/output error",
    "SIGKILL": r"a decoding process was ended from outside \(Killed\).*: give fewer --workers",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_decoding_process_ends_the_run_in_one_line(shards, fault):
    """They ignore SIGTERM: nothing may wait for them."""
    done = command(config(steps=1000, workers=2), FAULT=fault)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert re.fullmatch(FAULTS[fault], done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_a_fault_in_one_of_two_trainers_ends_both(shards):
    done = command(
        config(steps=1000, workers=1),
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        FAULT="OSError",
        FAULTY_RANK="1",
    )
    assert done.returncode == 1 and not re.search(r"^\[rank\d\]", done.stderr, re.M)
    assert re.search(FAULTS["OSError"], done.stderr)
    assert "another process of this run has ended" in done.stderr


def test_a_small_dev_shm_is_named_with_the_way_out(shards):
    """In a container it may be of any size: 1 MB here, and batches of 1.5 MB."""
    c = config(steps=1000, workers=2, batch=128, micro=128)
    done = command(c, within=with_shared_memory("1m"))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.stderr.splitlines()[-1] == (
        "/dev/shm (1.0 MB) is too small for what processes hand to each other: give fewer "
        "--workers or smaller batches, or the container more of it (--shm-size 1g)"
    )


def test_too_little_memory_is_said_in_one_line_on_a_cpu_too(shards):
    done = command(config(batch=40_000_000, micro=40_000_000))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    said = done.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"out of memory \([\d.,]+ GB more were wanted\): give a smaller --micro.*", said
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, env",
    [
        ({}, {}),
        ({"fsdp": True}, {}),
        ({"lora": 2, "init": "base.safetensors"}, {}),
        ({"lora": 2, "init": "base.safetensors", "fsdp": True}, {}),
        ({}, {"KILL": "1:4"}),
    ],
    ids=["ddp", "fsdp", "lora", "lora-fsdp", "restart"],
)
def test_two_processes_are_the_same_run(shards, flags, env):
    """torchrun, two processes over gloo: the steps of one process but for rounding, dropout and
    augmentation included; one writes.

    Also if the second is killed in the fourth step: torchrun starts both again, and they go on from
    the second."""
    small_policy()
    alone = {**flags, "fsdp": False}
    train.fit(config(out="one", steps=4, **alone))
    done = command(
        config(out="two", steps=4, **flags),
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        **env,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("exitcode: -9" in done.stderr) == bool(env)
    one, two = states("one", "two")
    assert one.keys() == two.keys()
    for key in one:
        assert np.allclose(one[key], two[key], rtol=1e-3, atol=2e-4), key
    first = states_after(config(steps=4, **alone))
    # and that is far from where it began
    assert max(np.abs(one[k] - first[k[4:]]).max() for k in one if k.startswith("raw.")) > 1e-3
    logs = [[json.loads(line) for line in open(f"{r}/log.jsonl")] for r in ("one", "two")]
    assert [r["step"] for r in logs[1]] == [2, 4] and math.isclose(
        logs[0][1]["val"], logs[1][1]["val"], rel_tol=1e-2
    )


def states_after(c):
    """Weights at step 0."""
    torch.manual_seed(c.seed)
    return {k: p.detach().numpy() for k, p in train.network(c).named_parameters()}


def test_nan_names_the_batch_and_keeps_the_state(shards, monkeypatch):
    """One micro-batch of the fourth step gives NaN: nothing moves, the state of three steps is
    kept, its rows are named.
    """
    train.fit(config(out="whole", steps=6, minutes=0))
    real, calls = train.augment, []

    def poisoned(images, side, c):
        calls.append(0)
        # describe's three, three steps of two
        return real(images, side, c) * (float("nan") if len(calls) == 3 + 2 * 3 + 2 else 1)

    monkeypatch.setattr(train, "augment", poisoned)
    rows = train.rows(3, chunks(43), config())[4:]
    with pytest.raises(
        SystemExit,
        match="step 3: the loss is nan.*v-0-000.safetensors rows "
        f"{', '.join(map(str, sorted(rows)))};",
    ):
        train.fit(config())
    assert artefact.read("run/state.safetensors")[1]["step"] == 3
    monkeypatch.setattr(train, "augment", real)
    train.fit(config())
    assert same(*states("whole", "run"))


def test_disk_full_keeps_the_checkpoint(shards):
    train.fit(config(minutes=1e-9))
    before = [open(f"run/{name}.safetensors", "rb").read() for name in ("state", "model")]
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a write beyond it fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[0]) // 2, usual[1]))
    try:
        with pytest.raises(
            SystemExit, match="run: step 2 could not be saved .*the checkpoint before it is whole"
        ):
            train.fit(config())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert before == [open(f"run/{name}.safetensors", "rb").read() for name in ("state", "model")]
    assert not list(train.Path("run").glob(".*.part"))
    train.fit(config())
    train.fit(config(out="whole"))
    assert same(*states("whole", "run"))
    os.remove("run/log.jsonl"), os.symlink("/dev/full", "run/log.jsonl")
    with pytest.raises(SystemExit, match="run: step 7 could not be saved .*No space left"):
        run_folder.log(config(), {"step": 7})


@pytest.mark.slow
def test_it_learns_what_the_colour_says(shards):
    train.fit(
        config(
            steps=200,
            batch=16,
            micro=16,
            warmup=10,
            lr=4e-3,
            draws=4,
            jitter=0.0,
            hue=0.0,
            save_every=100,
            log_every=50,
            ema=0.95,
        )
    )
    net = model.load("run/model.safetensors", "cpu")
    frames = np.stack([np.full((256, 256, 3), v, np.uint8) for v in (200, 40)] * 8)
    x = net.act(frames, torch.randn(16, 16, 20, generator=torch.Generator().manual_seed(0)))[
        "sticks"
    ].mean(axis=(1, 2))
    # five seeds gave -0.40 .. -0.28 and 0.56 .. 0.62; the first half turns right, too, in its last
    # 16 frames
    assert x[::2].mean() < -0.15 and x[1::2].mean() > 0.4
    rows = [json.loads(line) for line in open("run/log.jsonl")]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"] and rows[-1]["val"] < rows[0]["loss"]
    info = artefact.read("run/model.safetensors")[1]
    assert (info["games"], info["step"], info["log"], info["recipe"]["lr"]) == (
        {"v": 43},
        200,
        rows[-1],
        4e-3,
    )
    assert all(
        open(f"run/source/{name}").read() == open(ROOT / name).read()
        for name in ("model.py", "templates/pads.py")
    )
    import cv2

    curve = cv2.imread("run/loss.png")
    assert curve.shape[:2] == (576, 768) and (curve.min(axis=2) < 200).mean() > 0.01


def test_guards(shards, monkeypatch, capsys):
    train.fit(config())
    train.fit(config())
    assert "finished at step 6" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds a run with another lr"):
        train.fit(config(lr=5e-4))
    with pytest.raises(SystemExit, match="drop --no-resume"):
        train.fit(config(resume=False))
    with (
        train.lock(train.Path("run")),
        pytest.raises(SystemExit, match="another process is training"),
    ):
        train.fit(config())
    with pytest.raises(SystemExit, match="not a multiple"):
        train.fit(config(micro=3))
    with pytest.raises(SystemExit, match="no shards there"):
        train.fit(config(data="nowhere"))
    with pytest.raises(SystemExit, match="--freeze leaves"):
        train.fit(config(out="other", freeze=True))
    with pytest.raises(
        SystemExit, match="convert it first: python model.py convert ng.pt ng.safetensors"
    ):
        train.fit(config(out="other", init="ng.pt"))
    # a wrong flag leaves no folder, and takes none
    assert not train.Path("other").exists() and train.Path("run/.lock").exists()
    state = open("run/state.safetensors", "rb").read()
    open("run/state.safetensors", "wb").write(state[:1000])
    with pytest.raises(SystemExit, match="not a readable safetensors"):
        train.fit(config())


def test_shorter_chunks(shards):
    """--horizon 4 on shards that were cut for 16: the policy plans 4 actions; longer than they were
    cut for is refused.
    """
    train.fit(config(horizon=4, steps=2))
    net = model.load("run/model.safetensors", "cpu")
    assert net.c.horizon == 4 and net.sample(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 4, 20)
    with pytest.raises(SystemExit, match="holds a run with another horizon"):
        train.fit(config(horizon=8, steps=2))
    with pytest.raises(SystemExit, match="run filter.py with --horizon 17"):
        train.fit(config(horizon=17, out="other"))
    with pytest.raises(SystemExit, match="--horizon -1: expected 0 to"):
        train.fit(config(horizon=-1, out="other"))


def test_a_prefix_is_learned_and_kept(shards):
    """--prefix goes into the policy, and --init takes it over."""
    train.fit(config(steps=2))
    train.fit(config(prefix=6, steps=2, out="given"))
    plain, given = (artefact.read(f"{run}/model.safetensors")[1] for run in ("run", "given"))
    assert plain["model"]["prefix"] == 0 and given["model"]["prefix"] == 6
    assert plain["log"]["loss"] != given["log"]["loss"]
    net = train.network(config(init="given/model.safetensors"))
    assert net.c.prefix == 6 and train.network(config(prefix=3, init=net_of(net))).c.prefix == 3
    with pytest.raises(SystemExit, match="--prefix 16: expected 0 to 15"):
        train.fit(config(prefix=16, out="other"))


def net_of(net) -> str:
    model.save("again.safetensors", net.state_dict(), net)
    return "again.safetensors"


def test_minutes_leave_a_run_to_go_on_with(shards, capsys):
    train.fit(config(minutes=1e-9))
    assert "are over at step 1 of 6" in capsys.readouterr().out
    train.fit(config())
    assert artefact.read("run/state.safetensors")[1]["step"] == 6


# ---- fine-tuning ---------------------------------------------------------------------------------


@pytest.fixture
def policy(shards):
    """A policy in the released action layout and timing, as `model.py convert` would leave it."""
    torch.manual_seed(1)
    net = model.NitroGen(
        dataclasses.replace(
            MICRO, actions=model.RELEASED, horizon=18, rate=60.0, shift=3, positions=32
        )
    )
    model.save("ng.safetensors", net.state_dict(), net)
    return net


def tuning(**changes):
    return config(
        **{
            "init": "ng.safetensors",
            "freeze": True,
            "recompute": True,
            "steps": 60,
            "batch": 16,
            "micro": 8,
            "lr": 4e-3,
            "draws": 2,
            "jitter": 0.0,
            "save_every": 30,
            "log_every": 10,
            **changes,
        }
    )


def test_finetune(policy, capsys):
    """Timing follows the shards, actions go by name, the vision encoder stays, the rest learns;
    what shards lack is not trained.
    """
    train.fit(tuning())
    tuned, info = artefact.read("run/model.safetensors")
    net = model.load("run/model.safetensors", "cpu")
    assert (net.c.horizon, net.c.rate, net.c.shift, net.c.actions) == (16, 30.0, 1, model.RELEASED)
    for name, v in policy.state_dict().items():
        assert np.array_equal(tuned[name], v) == name.startswith("vision."), name
    assert info["recipe"]["source"][0]["name"] == "ng.safetensors" and not any(
        ".vision." in k for k in states("run")[0]
    )
    rows = [json.loads(line) for line in open("run/log.jsonl")]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    guide = model.RELEASED.index("GUIDE")
    moved = np.abs(tuned["decode2.weight"] - policy.state_dict()["decode2.weight"].numpy()).max(
        axis=1
    )
    assert moved[guide] < 0.02 * np.median(moved)  # but for weight decay
    count = sum(p.numel() for p in policy.parameters())
    assert (
        f"{count:,} parameters, {count - sum(p.numel() for p in policy.vision.parameters()):,} "
        "learn" in capsys.readouterr().out
    )
    train.fit(tuning(out="again", init="run/model.safetensors", steps=2))  # and from one's own
    assert model.load("again/model.safetensors", "cpu").act(np.zeros((1, 256, 256, 3), np.uint8))[
        "buttons"
    ].shape == (1, 16, 16)


def test_folders_are_mixed_by_their_shares(shards, capsys):
    """Two folders of one video each, cut to 10 and 40 chunks."""
    for name, number, cut in (("few", 0, 10), ("many", 1, 40)):
        tensors, info = artefact.read(f"shards/v-{number}-000.safetensors", "nitrogen.shard/1")
        videos = [{**info["videos"][0], "split": "train"}]
        timing = {key: info[key] for key in ("rate", "horizon", "shift")}
        tensors = {**tensors, "start": tensors["start"][:cut]}
        artefact.write(
            f"{name}/v.safetensors", tensors, "nitrogen.shard/1", videos=videos, **timing
        )
    data = Shards("few:0.5,many", "train", 16, 30, 1)
    assert (data.sizes, data.slots, len(data.parts)) == ([10, 40], [25, 25], 2)
    assert Shards("few:0.3,many:.7", "train", 16, 30, 1).slots == [15, 35]
    by_size = Shards("few,many", "train", 16, 30, 1)
    assert by_size.slots == by_size.sizes and not by_size.in_words()

    c = config(data="few:0.5,many", steps=4)
    train.fit(dataclasses.replace(c, out="straight"))
    said = capsys.readouterr().out
    assert "few: 50%, each of 10 chunks 2.50 x an epoch" in said
    assert "many: 50%, each of 40 chunks 0.62 x an epoch" in said
    # stopped after two steps, and gone on with: the same weights
    with contextlib.suppress(KeyboardInterrupt):
        stopped = dataclasses.replace(c, out="halves", minutes=1e-9, save_every=1)
        train.fit(stopped)
    assert artefact.read("halves/state.safetensors")[1]["step"] == 1
    train.fit(dataclasses.replace(stopped, minutes=0.0))
    assert same(*states("straight", "halves"))
    for other in ("few:0.6,many", "few,many", "few:0.2,many:0.8"):
        with pytest.raises(SystemExit, match="holds a run with another shares; give another --out"):
            train.fit(dataclasses.replace(stopped, data=other, minutes=0.0))
    train.fit(dataclasses.replace(stopped, data="few:.5,many:0.50"))  # the same in other words
    for wrong, why in (
        ("few:0.5,many:0.6", "its shares should be above 0 and add up to 1$"),
        ("few:1,many", "its shares should be above 0 and leave something for the 1 without$"),
        ("few:0,many", "its shares should be above 0"),
        ("few:0.5,", "^--data few:0.5,: an empty name between its commas$"),
        ("few:0.5,./few:0.5", "^--data few:0.5,./few:0.5: a folder twice; give it once"),
        ("few:0.5,nowhere", "^nowhere: no shards there; make them: python filter.py"),
    ):
        with pytest.raises(SystemExit, match=why):
            train.fit(config(data=wrong, out="wrong"))


def test_finetune_resumes_from_another_start_is_refused(policy):
    train.fit(tuning(out="whole", steps=6, save_every=2))
    train.fit(tuning(steps=6, save_every=2, minutes=1e-9))
    train.fit(tuning(steps=6, save_every=2))
    assert same(*states("whole", "run"))
    model.save("ng.safetensors", {k: v + 1e-3 for k, v in policy.state_dict().items()}, policy)
    with pytest.raises(SystemExit, match="holds a run with another source"):
        train.fit(tuning(steps=6, save_every=2))


def test_finetune_guards(policy, monkeypatch):
    short = model.NitroGen(dataclasses.replace(MICRO, horizon=8, positions=8))
    model.save("short.safetensors", short.state_dict(), short)
    with pytest.raises(
        SystemExit,
        match="cut for chunks that short.safetensors has no place for "
        ".positions 8 are fewer than horizon 16.*--horizon 8",
    ):
        train.fit(tuning(init="short.safetensors"))
    with pytest.raises(
        SystemExit,
        match="nowhere: no shards there; make them: python filter.py VIDEO --out nowhere$",
    ):
        train.fit(tuning(data="nowhere"))
    monkeypatch.setitem(model.CONFIGS, "micro", dataclasses.replace(MICRO, rate=60.0))
    with pytest.raises(
        SystemExit, match="30 rows per second, no multiple of the network's 60 actions"
    ):
        train.fit(config())


# ---- LoRA ----------------------------------------------------------------------------------------


def adapted(**changes):
    """The network of `tuning` with updates of rank 2, before its first step, in eval mode."""
    torch.manual_seed(0)
    return train.network(tuning(lora=2, **changes)).eval()


def small_policy():
    """A policy in our own layout, timed as the shards are."""
    torch.manual_seed(1)
    net = model.NitroGen(MICRO)
    model.save("base.safetensors", net.state_dict(), net)
    return model.load("base.safetensors", "cpu")


def answers(net):
    """Of four noisy pictures, from given noise."""
    images = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), np.uint8)
    shape = (4, net.c.horizon, len(net.c.actions))
    return net.sample(images, torch.randn(shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("freeze", [True, False])
def test_lora_starts_as_its_base(shards, freeze):
    """To the bit; the DiT's linear layers alone learn, without --freeze the mixer's and vision's
    too, and a step moves all of them.
    """
    base = small_policy()
    net = adapted(init="base.safetensors", freeze=freeze)
    assert torch.equal(answers(net), answers(base))
    learned = train.learned(net)
    parts = {name.partition(".")[0] for name in learned}
    assert parts == ({"dit"} if freeze else {"dit", "mixer", "vision"})
    linear = [m for block in net.dit for m in block.modules() if isinstance(m, torch.nn.Linear)]
    assert len([name for name in learned if name.startswith("dit.")]) == 2 * len(linear)
    actions = torch.rand(4, 16, 20)
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    net.loss(images, actions, torch.ones(1)).backward()
    moved = {name for name, p in learned.items() if p.grad is not None and p.grad.any()}
    assert moved == {name for name in learned if name.endswith(".up")}  # down waits for up


def test_lora_learns_and_is_saved_alone(policy, capsys):
    """The file holds the updates alone; with them the base is what was trained; merged it is the
    same to rounding; its memory is told beside that of full fine-tuning.
    """
    cfg = tuning(lora=2, lr=2e-3, raw=True)
    train.fit(cfg)
    said = capsys.readouterr().out
    saved, info = artefact.read("run/model.safetensors")
    assert saved.keys() == train.learned(adapted()).keys()
    assert info["base"]["sha256"] == artefact.source("ng.safetensors")["sha256"]
    size = Path("run/model.safetensors").stat().st_size
    assert (
        4 * sum(v.size for v in saved.values()) < size < Path("ng.safetensors").stat().st_size / 4
    )
    rows = [json.loads(line) for line in open("run/log.jsonl")]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]

    net = adapted()
    before = net.state_dict()
    assert net.load_state_dict({n: torch.from_numpy(v) for n, v in saved.items()}, strict=False)
    loaded = model.load("run/model.safetensors", "cpu")
    assert (loaded.c.horizon, loaded.c.rate, loaded.c.shift) == (16, 30.0, 1)  # as the shards
    for name, v in loaded.state_dict().items():
        adapts = name.removesuffix("weight") + "up" in saved
        assert torch.equal(v, policy.state_dict()[name]) != adapts, name
    wanted = answers(net)
    assert not torch.allclose(
        wanted, answers(model.load("ng.safetensors", "cpu"))[:, :16], atol=0.1
    )
    assert torch.allclose(answers(loaded), wanted, atol=1e-5)
    assert torch.allclose(
        answers(model.load("run/model.safetensors", "cpu", fast=True)), wanted, atol=1e-5
    )

    lines = [line for line in said.splitlines() if "GB: parameters" in line]
    assert lines[0].startswith("memory") and lines[1].strip().startswith("without --lora")
    count = sum(v.size for v in saved.values())
    assert f"{count:,} learn" in said
    assert len(before) > len(saved)


def test_lora_merges_into_one_file(policy):
    train.fit(tuning(lora=2, lr=2e-3, steps=10))
    wanted = answers(model.load("run/model.safetensors", "cpu"))
    model.main(["export", "run/model.safetensors", "merged.safetensors", "--no-half"])
    Path("ng.safetensors").unlink()
    assert "base" not in artefact.read("merged.safetensors")[1]
    assert torch.allclose(answers(model.load("merged.safetensors", "cpu")), wanted, atol=1e-5)


def test_lora_wants_its_own_base(policy):
    """Beside it, where it was, or as given; any other file is refused in one line."""
    train.fit(tuning(lora=2, steps=2))
    Path("ng.safetensors").rename("run/ng.safetensors")
    wanted = answers(model.load("run/model.safetensors", "cpu"))  # beside it
    Path("run/ng.safetensors").rename("elsewhere.safetensors")
    with pytest.raises(SystemExit) as none:
        model.load("run/model.safetensors", "cpu")
    assert re.fullmatch(
        r"run/model.safetensors: an adapter \(--lora\) needs its base ng.safetensors of sha256 "
        r"\w{16}; it is not at .*: put it beside",
        str(none.value),
    )
    export = ["export", "run/model.safetensors", "merged.safetensors", "--no-half", "--base"]
    model.main([*export, "elsewhere.safetensors"])
    assert torch.allclose(answers(model.load("merged.safetensors", "cpu")), wanted, atol=1e-5)
    model.save("ng.safetensors", {k: v + 1e-3 for k, v in policy.state_dict().items()}, policy)
    with pytest.raises(SystemExit, match="ng.safetensors is another file: put it beside$"):
        model.load("run/model.safetensors", "cpu")


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"up": np.zeros((3, 2), np.float32)}, "has another shape than its layer"),
        ({"up": None}, "has no layer, or is only half there"),
    ],
)
def test_lora_that_fits_no_layer_is_refused(policy, change, fault):
    train.fit(tuning(lora=2, steps=2))
    tensors, info = artefact.read("run/model.safetensors")
    for end, v in change.items():
        tensors["dit.0.fc1." + end] = v
    tensors = {name: v for name, v in tensors.items() if v is not None}
    about = {key: info[key] for key in ("model", "base")}
    artefact.write("bad.safetensors", tensors, "nitrogen.policy/1", **about)
    with pytest.raises(SystemExit, match=f"bad.safetensors: the update of 'dit.0.fc1' {fault}"):
        model.load("bad.safetensors", "cpu")


@pytest.mark.parametrize("where", [{"path": "x" * 5000}, {"name": "x" * 5000}, {"path": "run"}])
def test_lora_whose_base_cannot_be(policy, where):
    """A name that no file can have, and a folder."""
    train.fit(tuning(lora=2, steps=2))
    tensors, info = artefact.read("run/model.safetensors")
    about = {"model": info["model"], "base": {**info["base"], **where}}
    Path("ng.safetensors").rename("elsewhere.safetensors")
    artefact.write("bad.safetensors", tensors, "nitrogen.policy/1", **about)
    with pytest.raises(SystemExit, match="^bad.safetensors: an adapter .* it is not at .*: put"):
        model.load("bad.safetensors", "cpu")


def test_lora_resumes_exactly(policy):
    cfg = tuning(lora=2, lr=2e-3, steps=6, save_every=2, freeze=False)
    train.fit(dataclasses.replace(cfg, out="whole"))
    train.fit(dataclasses.replace(cfg, minutes=1e-9))
    assert artefact.read("run/state.safetensors")[1]["step"] == 1
    train.fit(cfg)
    assert same(*states("whole", "run"))
    assert all(name.endswith((".up", ".down")) for name in states("run")[0])
    with pytest.raises(SystemExit, match="holds a run with another lora"):
        train.fit(dataclasses.replace(cfg, lora=3))


def test_lora_guards(policy):
    with pytest.raises(SystemExit, match="--lora learns beside the policy of --init: give that"):
        train.fit(tuning(lora=2, init="", freeze=False))
    with pytest.raises(SystemExit, match="--lora -1: expected 0 to 4096"):
        train.fit(tuning(lora=-1))


def test_lora_memory(policy):
    """By hand; and full fine-tuning's is that of a network without updates, but for their own."""
    full = forecast.footprint(train.network(tuning()), tuning(), 8)
    cfg = tuning(lora=2)
    net = train.network(cfg)
    updates = 4 * sum(p.numel() for p in train.learned(net).values())
    mine = forecast.footprint(net, cfg, 8)
    assert mine["parameters"] == full["parameters"] + updates
    assert (mine["gradients"], mine["optimizer"]) == (updates, 2 * updates)
    assert mine["average"] == updates
    assert mine["activations"] < full["activations"]
    with lora.thawed(net, cfg):
        beside = forecast.footprint(net, cfg, 8)
    assert beside["gradients"] == full["gradients"] + updates
    assert math.isclose(beside["activations"], full["activations"], rel_tol=0.2)
    assert train.learned(net).keys() == train.learned(adapted()).keys()  # as it was


def test_footprint(policy):
    """By hand where it can be; the activations, drawn on from one and two frames, against six
    measured.
    """
    count, vision = (sum(p.numel() for p in part.parameters()) for part in (policy, policy.vision))
    plain = forecast.footprint(policy, config(), 8)
    assert (plain["parameters"], plain["gradients"], plain["optimizer"], plain["average"]) == (
        4 * count,
        4 * count,
        8 * count,
        4 * count,
    )
    six = forecast.footprint(policy, config(), 6)["activations"]
    assert math.isclose(six, forecast.activation_bytes(policy, config(), 6), rel_tol=0.02)
    again = forecast.footprint(policy, config(recompute=True), 8)
    policy.vision.requires_grad_(False)
    frozen = forecast.footprint(policy, config(freeze=True), 8)
    assert frozen["parameters"] == 4 * count and frozen["optimizer"] == 8 * (count - vision)
    assert (
        frozen["activations"] < 0.8 * plain["activations"]
        and again["activations"] < 0.8 * plain["activations"]
    )


# ---- speed and logs ------------------------------------------------------------------------------


def test_bench(shards, capsys, monkeypatch):
    monkeypatch.setattr(flops, "peak", lambda device, dtype: 500.0)  # GFLOP/s
    training.main(config(), seconds=0.5)
    printed = capsys.readouterr().out.splitlines()
    lines = dict(line.split("  ", 1) for line in printed[-15:-12])
    speed = {k: float(v.split()[0]) for k, v in lines.items()}
    assert speed.keys() == {"data alone", "model alone", "both"} and min(speed.values()) > 0
    share = speed["both"] * flops.gflop(MICRO, 1) / 500
    assert abs(float(lines["both"].split("MFU ")[1].split("%")[0]) / 100 - share) < 0.006
    shares = [float(line.split("%")[0]) for line in printed[-12:]]  # of a step, by operation
    assert shares == sorted(shares, reverse=True) and 30 < sum(shares) <= 100.1
    assert any(line.endswith(" x aten::mm") for line in printed[-12:])
    with pytest.raises(SystemExit, match="bench needs shards"):
        training.main(config(data=""))


def test_arithmetic_is_counted():
    """By hand: freezing the vision encoder saves its backward pass, twice its forward pass less the
    gradient of the picture.
    """
    tokens, D = MICRO.tokens, MICRO.width
    # qkv, out and mlp; scores and values
    patches, block = (
        2 * tokens * 3 * MICRO.patch**2 * D,
        2 * tokens * D * 12 * D + 4 * tokens * tokens * D,
    )
    assert math.isclose(
        1e9 * (flops.gflop(MICRO, 1) - flops.gflop(MICRO, 1, freeze=True)),
        2 * block + patches,
        rel_tol=1e-6,
    )
    one, two, three = (flops.gflop(MICRO, 1, draws=n) for n in (1, 2, 3))
    # the vision encoder serves all draws
    assert math.isclose(three - two, two - one) and three < 2 * one


def test_tensorboard_is_optional(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit, match="pip install tensorboard"):
        train.fit(config(tensorboard=True))
    told = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, key, value, step):
            told.append((self.folder, key, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter)
    )
    train.fit(config(tensorboard=True, steps=2))
    row = json.loads(open("run/log.jsonl").read())
    assert (
        told == [("run", k, v, 2) for k, v in row.items()]
        and {"loss", "val", "val_v"} <= row.keys()
    )


def test_broken_frame_is_named(shards):
    tensors, info = artefact.read("shards/v-0-000.safetensors")
    jpeg = tensors["jpeg"].copy()
    jpeg[tensors["offset"][7] : tensors["offset"][8]] = 0
    artefact.write(
        "shards/v-0-000.safetensors",
        {**tensors, "jpeg": jpeg},
        "nitrogen.shard/1",
        **{k: info[k] for k in ("videos", "rate", "horizon", "shift")},
    )
    with pytest.raises(
        SystemExit, match="v-0-000.safetensors rows 7: a shard holds a frame that is no JPEG"
    ):
        train.fit(config(steps=20))
