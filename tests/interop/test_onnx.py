"""A policy as an ONNX file: it acts as torch does, and plays where torch is not installed."""

import dataclasses
import json
import os
import subprocess
import sys
import time

from common import ROOT, artefact, history, playing
from common.plan import think

import numpy as np
import pytest
import torch

import eval as evaluation
import model
from commands import command, fault
from live.brain import Local, Remote
from piloting import hooked

onnx = pytest.importorskip("onnx", reason="no onnx (pip install onnx)")
pytest.importorskip("onnxscript", reason="no onnxscript (pip install onnxscript)")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime (pip install onnxruntime)")

SMALL = dict(image=16, width=32, head_width=16, vision_layers=1, mixer_layers=1, dit_layers=3)
NETS = {
    "action": dataclasses.replace(model.CONFIGS["tiny"], **SMALL, steps=5),
    "velocity": dataclasses.replace(
        model.CONFIGS["released"], **SMALL, patch=8, steps=5, positions=20, dropout=0.0
    ),
    "prefix": dataclasses.replace(
        model.CONFIGS["tiny"], **{**SMALL, "image": 32}, prefix=3, frames=2, steps=5
    ),
}
NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("no torch here", name="torch")

sys.meta_path.insert(0, NoTorch())
"""


def random_net(c: model.Config) -> model.NitroGen:
    """No layer without effect: as a trained one, it looks at the time and at the picture."""
    torch.manual_seed(0)
    net = model.NitroGen(c).eval()
    for ada in (*(block.ada for block in net.dit), net.ada_out):
        torch.nn.init.normal_(ada.weight, std=c.width**-0.5)
    return net


def inputs(c: model.Config, batch: int, side: int, seed: int = 0):
    """(images, noise)"""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, *history.shape(c), side, side, 3), np.uint8)
    return images, rng.standard_normal((batch, c.horizon, len(c.actions)), np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of each of NETS as NAME.safetensors and NAME.onnx, and one with 3 steps unrolled."""
    folder = tmp_path_factory.mktemp("onnx")
    for name, c in NETS.items():
        net = random_net(c)
        model.save(folder / f"{name}.safetensors", net.state_dict(), net, games={"ridge": 9})
        source = str(folder / f"{name}.safetensors")
        model.main(["export", source, str(folder / f"{name}.onnx")])
    source = str(folder / "action.safetensors")
    model.main(["export", source, str(folder / "unrolled.onnx"), "--steps", "3"])
    return folder


@pytest.fixture
def without_torch(tmp_path):
    """Environment of a process, and of those that it starts, in which torch cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}
    said = command("-c", "import torch", status=1, env=env)
    assert "no torch here" in said
    return env


# ---- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("steps", [None, 1, 16])
def test_it_acts_as_torch_does(files, name, steps):
    """Any batch, any size of picture, any number of steps."""
    net = model.load(files / f"{name}.safetensors", "cpu")
    exported = playing.Exported(str(files / f"{name}.onnx"))
    images, noise = inputs(net.c, 3, 40)
    wanted = net.sample(images, noise, steps).numpy()
    found = exported.sample(images, noise, steps)
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-4
    one = exported.sample(images[:1], noise[:1], steps)
    assert np.abs(one - wanted[:1]).max() < 1e-4
    other = exported.sample(images[::-1], noise, steps)
    assert np.abs(other[0] - wanted[0]).max() > 1e-3  # it looks at the picture
    pads = net.act(images, noise, steps), exported.act(images, noise, steps)
    assert np.array_equal(pads[0]["buttons"], pads[1]["buttons"])
    assert np.abs(pads[0]["sticks"] - pads[1]["sticks"]).max() < 2e-4


@pytest.mark.parametrize("d", [0, 2, 3])
def test_actions_under_way_are_given(files, d):
    net = model.load(files / "prefix.safetensors", "cpu")
    exported = playing.Exported(str(files / "prefix.onnx"))
    images, noise = inputs(net.c, 2, 32)
    given = np.random.default_rng(1).random((2, d, 20), np.float32)
    found = exported.sample(images, noise, 4, given)
    assert np.abs(found - net.sample(images, noise, 4, given).numpy()).max() < 1e-4
    assert np.array_equal(found[:, :d], given)
    if d:
        assert np.abs(found - exported.sample(images, noise, 4))[:, d:].max() > 1e-3
    with pytest.raises(ValueError, match=r"given must be \[2, 0..3, 20\], found \[2, 4, 20\]"):
        exported.sample(images, noise, 4, noise[:, :4])
    said = fault(
        model.main, ["export", exported.path[:-4] + "safetensors", "x.onnx", "--steps", "4"]
    )
    assert said == "--steps 4: not for a policy with a prefix; leave --steps out"


def test_unrolled_steps(files):
    net = model.load(files / "action.safetensors", "cpu")
    exported = playing.Exported(str(files / "unrolled.onnx"))
    images, noise = inputs(net.c, 2, 16)
    assert (
        np.abs(exported.sample(images, noise) - net.sample(images, noise, 3).numpy()).max() < 1e-4
    )
    assert np.abs(exported.sample(images, noise) - net.sample(images, noise).numpy()).max() > 1e-3
    graph = onnx.load(files / "unrolled.onnx").graph
    assert [each.name for each in graph.input] == ["images", "noise"]
    assert "Loop" not in {node.op_type for node in graph.node}
    assert not [w.name for w in graph.initializer if "time1" in w.name]  # times are constant


def test_it_says_what_it_is(files, capsys):
    c = NETS["velocity"]
    about = playing.about(str(files / "velocity.onnx"))
    assert about["model"] == json.loads(json.dumps(dataclasses.asdict(c)))
    assert about["source"] == [artefact.source(files / "velocity.safetensors")]
    assert about["games"] == {"ridge": 9} and about["unrolled"] == 0
    assert playing.about(str(files / "unrolled.onnx"), 3)["unrolled"] == 3
    proto = onnx.load(files / "velocity.onnx")
    onnx.checker.check_model(proto)
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 20)]
    model.main(["--inspect", str(files / "velocity.onnx")])
    assert "horizon          18" in capsys.readouterr().out


def test_noise_comes_from_the_seed(files):
    net = evaluation.network(str(files / "action.onnx"), "cpu")
    frame = inputs(net.c, 1, 256)[0][0]
    playing.one_thread(net)
    assert net.threads == 1
    first, again, other = (playing.generator(net, seed) for seed in (0, 0, 1))
    chunk = think(net, frame, first, None)
    assert chunk.shape == (16, 20) and np.array_equal(chunk, think(net, frame, again, None))
    assert np.abs(chunk - think(net, frame, other, None)).max() > 1e-3
    assert np.abs(chunk - think(net, frame, first, None)).max() > 1e-3  # the next one's is new


def test_wrong_inputs(files):
    net = playing.Exported(str(files / "unrolled.onnx"))
    images, noise = inputs(net.c, 2, 16)
    with pytest.raises(ValueError, match=r"images must be uint8 \[B, h, w, 3\] RGB, found float32"):
        net.sample(images.astype(np.float32))
    with pytest.raises(ValueError, match=r"noise must be \[2, 16, 20\], found \[1, 16, 20\]"):
        net.sample(images, noise[:1])
    with pytest.raises(ValueError, match="steps must be 3, found 4"):
        net.sample(images, noise, 4)


# ---- faults --------------------------------------------------------------------------------------


def foreign(path, **metadata) -> str:
    """An ONNX file of somebody else."""
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 20)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())
    return str(path)


def test_other_files_are_refused(files, tmp_path):
    def said(path):
        return fault(playing.Exported, str(path))

    other = tmp_path / "x.onnx"
    assert "no such file; make it: python model.py export" in said(other)
    other.write_bytes(b"not a graph")
    assert "x.onnx: not an ONNX file that can be run" in said(other)
    foreign(other)
    assert said(other).endswith("not one that `python model.py export` wrote")
    foreign(other, json="{}")
    assert "its description: 'format' should be of type str" in said(other)
    about = playing.about(str(files / "action.onnx"))
    foreign(other, json=json.dumps(about))
    assert "tensor 'images': expected [16, 16, 3], found nothing" in said(other)
    proto = onnx.load(files / "action.onnx")
    about["model"]["horizon"] = 12
    onnx.helper.set_model_props(proto, {"json": json.dumps(about)})
    other.write_bytes(proto.SerializeToString())
    assert "tensor 'noise': expected [12, 20], found [16, 20]" in said(other)
    foreign(other, json="[" * 100_000)
    assert said(other).endswith("not one that `python model.py export` wrote")
    proto = onnx.load(files / "action.onnx")
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "pad"
    other.write_bytes(proto.SerializeToString())
    assert "tensor 'actions': expected [16, 20], found nothing" in said(other)


def test_flags_that_an_exported_policy_cannot_take(files):
    unrolled = str(files / "unrolled.onnx")
    said = "--steps 4: .*unrolled.onnx has its 3 steps unrolled; leave --steps out"
    play = ["play", "--policy", unrolled, "--games", "ridge", "--seeds", "1", "--steps", "4"]
    for words in (play, [*play, "--", "true"]):
        with pytest.raises(SystemExit, match=said):
            evaluation.main(words)
    assert "--device cuda: " in fault(playing.Exported, unrolled, "cuda")
    half = str(files / "half.safetensors")
    source = str(files / "action.safetensors")
    assert "--steps 4: of FILE.onnx" in fault(model.main, ["export", source, half, "--steps", "4"])
    out = str(files / "many.onnx")
    assert fault(model.main, ["export", source, out, "--steps", "1001"]).startswith("--steps 1001")


def test_what_is_not_installed_is_named(files, monkeypatch):
    source = str(files / "action.safetensors")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxscript", None)
        said = fault(model.main, ["export", source, str(files / "no.onnx")])
        assert said.endswith(
            "onnxscript is not installed here: pip install onnx onnxscript onnxruntime"
        )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = fault(playing.Exported, str(files / "action.onnx"))
    assert said.endswith("onnxruntime is not installed here: pip install onnxruntime")
    assert not (files / "no.onnx").exists()


# ---- without torch -------------------------------------------------------------------------------


@hooked
def test_the_suite_without_torch(files, tmp_path, without_torch):
    """The same episode, to the last digit, as with torch beside it."""
    policy = str(files / "unrolled.onnx")
    out = str(tmp_path / "play")
    words = ["play", "--policy", policy, "--games", "ridge", "--tasks", "reach", "--seeds", "1"]
    command("eval.py", *words, "--out", out, "--workers", "1", env=without_torch)
    report = json.loads((tmp_path / "play" / "report.json").read_bytes())
    assert report["policy"] == artefact.source(policy) and report["trained_on"] == ["ridge"]
    (record,) = (tmp_path / "play" / "episodes").glob("*-policy-*.json")
    played = json.loads(record.read_bytes())
    job = evaluation.Job("policy", "ridge", "reach", played["seed"])
    here = evaluation.in_environment(job, evaluation.Play(policy=policy, device="cpu"))
    assert not played["crash"]
    assert here["progress"] == played["progress"] and here["time"] == played["seconds"]


@hooked
def test_your_own_game_without_torch(files, without_torch):
    policy = str(files / "action.onnx")
    words = ["--policy", policy, "--steps", "2", "--seconds", "2", "--fps", "30"]
    game = [sys.executable, str(ROOT / "games" / "ridge.py"), "--fps", "{fps}"]
    said = command("eval.py", "play", *words, "--", *game, env=without_torch)
    assert said.startswith("60 frames, 8 chunks; latency")


def test_a_server_without_torch(files, tmp_path, without_torch):
    policy, token = str(files / "action.onnx"), str(tmp_path / "token")
    words = ["eval.py", "serve", "--policy", policy, "--port", "0", "--token", token]
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=without_torch, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline().partition(" at ")[2].partition(";")[0]
            remote = Remote(address, (tmp_path / "token").read_text().strip(), 30.0)
            frame = inputs(NETS["action"], 1, 256)[0][0]
            there = remote.think(frame)
            remote.close()
        finally:
            server.terminate()
    here = Local(policy, "cpu", 0, 0)
    here.think(np.zeros_like(frame))  # as the server does before it listens
    assert there.shape == (16, 20) and np.abs(there - here.think(frame)).max() < 1e-5


# ---- measurements --------------------------------------------------------------------------------


def exported_beside(net: model.NitroGen, folder, *steps: str) -> playing.Exported:
    model.save(folder / "net.safetensors", net.state_dict(), net)
    words = [str(folder / "net.safetensors"), str(folder / "net.onnx"), "--fresh", *steps]
    model.main(["export", *words])
    return playing.Exported(str(folder / "net.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights", "tiny", "paper"])
def test_parity(name, tmp_path):
    """Over pictures and noises; paper: as wide, but of two layers each, with random weights."""
    if name == "weights":
        net = model.load(ROOT / "weights" / "policy.safetensors", "cpu")
    else:
        few = dict(vision_layers=2, mixer_layers=1, dit_layers=2) if name == "paper" else {}
        net = random_net(dataclasses.replace(model.CONFIGS[name], **few))
    exported = exported_beside(net, tmp_path)
    most = 0.0
    for seed in range(4):
        images, noise = inputs(net.c, 4, 256, seed)
        for steps in (1, 4, 16):
            wanted = net.sample(images, noise, steps).numpy()
            most = max(most, np.abs(exported.sample(images, noise, steps) - wanted).max())
    print(f"{name}: {most:.1e} at most, in 4 x 4 frames, at 1, 4 and 16 steps")
    assert most < 1e-4


@hooked
@pytest.mark.slow
def test_episodes_of_the_policy_in_weights(tmp_path, monkeypatch):
    """What torch would do is asked for at each chunk, with the same picture and noise."""
    net = model.load(ROOT / "weights" / "policy.safetensors", "cpu")
    exported = exported_beside(net, tmp_path)
    sample = exported.sample
    chunks = []

    def both(images, noise, steps, given):
        found = sample(images, noise, steps, given)
        ours, theirs = net.decode(found), net.act(images, noise, steps)
        buttons = np.sum(ours["buttons"] != theirs["buttons"])
        chunks.append((buttons, np.abs(ours["sticks"] - theirs["sticks"]).max()))
        return found

    monkeypatch.setattr(exported, "sample", both)
    monkeypatch.setattr(evaluation, "network", lambda *args: exported)
    for seed, (game, task) in enumerate(
        [("ridge", "reach"), ("crypt", "slay"), ("rally", "gates")]
    ):
        job = evaluation.Job("policy", game, task, 10_000 + seed)
        score = evaluation.in_environment(job, evaluation.Play())
        print(f"{job}: progress {score['progress']:.2f}, {len(chunks)} chunks until now")
    buttons, sticks = np.transpose(chunks)
    n = buttons.size * net.c.horizon * 16
    print(f"of {n:,} buttons {buttons.sum():g} differ; sticks by {sticks.max():.1e} at most")
    assert buttons.size > 100 and buttons.sum() < 1e-3 * n and sticks.max() < 2e-4


@pytest.mark.speed
@pytest.mark.slow
def test_speed(tmp_path):
    """A chunk of the policy in weights/, in one thread, in turn with torch's."""
    torch.set_num_threads(1)
    source = ROOT / "weights" / "policy.safetensors"
    net, packed = (model.load(source, "cpu", fast=fast) for fast in (False, True))
    looped = exported_beside(net, tmp_path)
    looped.begin(1)
    unrolled = exported_beside(net, tmp_path, "--steps", "4")
    unrolled.begin(1)
    images, noise = inputs(net.c, 1, 256)
    cases = {
        f"{what}, {steps} steps": (run, steps)
        for steps in (16, 4)
        for what, run in (("torch", net), ("torch, packed", packed), ("onnxruntime", looped))
    }
    cases["onnxruntime, 4 steps unrolled"] = unrolled, 4
    seconds = {name: [] for name in cases}
    for _ in range(30):
        for name, (run, steps) in cases.items():
            begin = time.perf_counter()
            run.act(images, noise, steps)
            seconds[name].append(time.perf_counter() - begin)
    ms = {name: 1e3 * np.array(values[2:]) for name, values in seconds.items()}
    for name, values in ms.items():
        print(f"{name}: {values.min():.1f} ms at best, {np.median(values):.1f} the median")
    assert ms["onnxruntime, 16 steps"].min() < 1.1 * ms["torch, 16 steps"].min()
