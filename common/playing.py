"""A policy at play, whichever file it comes from: safetensors, which torch runs, or ONNX, which
onnxruntime runs without torch.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

from common import artefact, history, layout, policy_file, policy_input

import numpy as np

# what the JSON in an exported file must hold, as artefact.amiss reads it
ABOUT = {
    "format": str,
    "unrolled": (0, 1e5),  # Euler steps that the graph takes; 0: as many as its input `steps` says
    "model": {
        "actions": [str],
        "image": (1, 1 << 14),
        "horizon": (1, 1e5),
        "rate": artefact.RATE,
        "shift": (0, 1e5),
        "steps": (1, 1e5),
        "buckets": (1, 1e9),
        "prefix": (0, 1e5),
        "frames": (1, 1e3),
        "frame_stride": (1, 1e5),
    },
}


class Exported:
    """What `python model.py export FILE out.onnx` wrote, with the interface of model.NitroGen that
    play uses; numpy, OpenCV and onnxruntime are enough.

    c: its model.Config. threads: 0: all cores. SystemExit with one line if it is another file, or
    cannot take so many steps.
    """

    def __init__(self, path: str, device: str = "auto", steps: int = 0, threads: int = 0):
        if device not in ("auto", "cpu"):
            raise SystemExit(f"--device {device}: {path} plays on the CPU alone")
        if not Path(path).is_file():
            raise SystemExit(f"{path}: no such file; make it: python model.py export FILE {path}")
        self.path = path
        self.begin(threads)
        self.about = described(path, self.session)
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.c = types.SimpleNamespace(**self.about["model"])
        fixed = self.about["unrolled"]
        if fixed and steps not in (0, fixed):
            raise SystemExit(
                f"--steps {steps}: {path} has its {fixed} steps unrolled; leave --steps out, or "
                "export it without --steps"
            )

    def begin(self, threads: int) -> None:
        """Load the graph, to run in so many threads."""
        try:
            import onnxruntime
        except ImportError:
            raise SystemExit(
                f"{self.path}: onnxruntime is not installed here: pip install onnxruntime"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # a fault is told in one line, below
        # as OMP_WAIT_POLICY in common/__init__.py: who waits leaves the core to others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                self.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # onnxruntime has a class of its own for every kind of fault
            fault = str(e).partition("\n")[0][:120]
            raise SystemExit(f"{self.path}: not an ONNX file that can be run ({fault})") from None
        self.threads = threads

    def sample(self, images, noise=None, steps: int | None = None, given=None) -> np.ndarray:
        """As NitroGen.sample, but numpy float32 [B, K, A]."""
        c = self.c
        images = np.asarray(images)
        policy_input.expect_images(c, images)
        shape = (len(images), c.horizon, len(c.actions))
        if noise is None:
            noise = np.random.default_rng().standard_normal(shape, np.float32)
        if noise.shape != shape:
            raise ValueError(f"noise must be {list(shape)}, found {list(noise.shape)}")
        fixed = self.about["unrolled"]
        steps = steps or fixed or c.steps
        if steps != fixed and (fixed or not 1 <= steps <= c.buckets):
            raise ValueError(f"steps must be {fixed or f'1..{c.buckets}'}, found {steps}")
        given = noise[:, :0] if given is None else given
        d = policy_input.count_given(c, given, len(images))
        inputs = {
            "images": policy_file.resized(images, c.image),
            "noise": np.concatenate([given, noise[:, d:]], axis=1, dtype=np.float32),
            "steps": np.array(steps, np.int64),
            "given": np.array(d, np.int64),
        }
        return self.session.run(["actions"], {name: inputs[name] for name in self.inputs})[0]

    def act(self, images, noise=None, steps: int | None = None, given=None) -> dict:
        """As NitroGen.act."""
        return layout.decode(self.sample(images, noise, steps, given), self.c.actions)


def described(path, session) -> dict:
    """The JSON in an exported file; SystemExit if model.py export did not write it, or if it does
    not fit the graph.
    """
    foreign = f"{path}: an ONNX file, but not one that `python model.py export` wrote"
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map["json"])
    except (KeyError, ValueError, RecursionError):
        raise SystemExit(foreign) from None
    if fault := artefact.amiss(about, ABOUT, "its description"):
        raise SystemExit(f"{foreign} ({fault})")
    c = about["model"]
    frames = history.shape(types.SimpleNamespace(**c))
    wanted = {
        "images": [*frames, c["image"], c["image"], 3],
        "noise": [c["horizon"], len(c["actions"])],
        **({} if about["unrolled"] else {"steps": []}),
        **({"given": []} if c["prefix"] else {}),
    }
    answer = {"actions": wanted["noise"]}
    for shapes, tensors in ((wanted, session.get_inputs()), (answer, session.get_outputs())):
        found = {each.name: each.shape[1:] for each in tensors}
        if fault := policy_file.disagreement(shapes, found):
            raise SystemExit(f"{foreign} ({fault})")
    return about


def about(path: str, steps: int = 0) -> dict:
    """What a policy file of either kind says of itself; SystemExit if it is none, or cannot take so
    many denoising steps (0: its own).
    """
    if path.endswith(".onnx"):
        return Exported(path, steps=steps, threads=1).about
    return artefact.read(path, "nitrogen.policy/1")[1]


def show(path) -> None:
    """Print what an exported file is."""
    net = Exported(str(path), threads=1)
    print(f"{path}: policy for onnxruntime, {Path(path).stat().st_size:,} bytes")
    for name, value in {**net.about.pop("model"), **net.about}.items():
        print(f"  {name:16s} {str(value)[:400]}")


def generator(net, seed: int):
    """Where the noise comes from: torch's generator where torch runs the network, else numpy's."""
    if isinstance(net, Exported):
        return np.random.default_rng(seed)
    import torch

    return torch.Generator().manual_seed(seed)


def one_thread(net) -> None:
    """Compute in one thread: the same sums, however many workers play."""
    if not isinstance(net, Exported):
        import torch

        torch.set_num_threads(1)
    elif net.threads != 1:
        net.begin(1)
