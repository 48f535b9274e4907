"""A recording played again, every frame compared: python sim.py replay OUT.actions.safetensors"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common

import numpy as np

import sim


@dataclass(frozen=True)
class Config(Common):
    """Flags of `replay`."""

    pauses: float = 0.0  # chance of a random pause (up to 0.2 s of real time) before a frame
    # what `record` wrote: the *.actions.safetensors, or the video beside it
    videos: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # the game; none: the one that was recorded


def recording_of(videos) -> tuple[Path, dict, dict]:
    """(path, tensors, info) of the one recording that `replay` was given."""
    if len(videos) != 1:
        raise SystemExit(
            "replay takes one recording: python sim.py replay FILE.actions.safetensors [-- COMMAND "
            "ARG...]"
        )
    path = Path(videos[0])
    path = path if path.suffix == ".safetensors" else path.with_suffix(".actions.safetensors")
    if not path.exists():
        raise SystemExit(
            f"{path}: no such file; make it: python sim.py record --record "
            f"{path.name.partition('.')[0]}.mp4 -- COMMAND ARG..."
        )
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    if "hash" not in tensors or "game_command" not in info:
        raise SystemExit(
            f"{path}: not a recording of `python sim.py record`, so there is nothing to compare "
            "with"
        )
    return path, tensors, info


def main(cfg: Config) -> None:
    """Play a recording again and compare every frame."""
    from tqdm import tqdm

    path, tensors, info = recording_of(cfg.videos)
    rng = np.random.default_rng(cfg.seed)
    expected = [row.tobytes().hex() for row in tensors["hash"]]
    with sim.GameEnv(
        cfg.command or info["game_command"],
        fps=info["fps"],
        gamepad=info["gamepad"],
        screen=info["screen"],
        home=info.get("home", ""),
    ) as env:
        seen = env.reset(seed=info["seed"])[1]
        for i in tqdm(range(len(expected)), desc="replay", unit="frame"):
            if i:
                if rng.random() < cfg.pauses:
                    env.clock.pause()
                    time.sleep(rng.uniform(0, 0.2))
                _, _, ended, _, seen = env.step(
                    {"buttons": tensors["buttons"][i] > 0.5, "sticks": tensors["sticks"][i]}
                )
                if ended:
                    raise SystemExit(f"{path}: the game ended at frame {i} of {len(expected)}")
            if seen["hash"] != expected[i]:
                raise SystemExit(f"{path}: frame {i} of {len(expected)} differs")
    print(f"all {len(expected)} frames are the same")
