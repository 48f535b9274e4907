"""What a player of a game leaves behind: a film, and the pad, hash and time of each frame."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from common import artefact
from common.artefact import BUTTONS, STICKS

import numpy as np


class Recording:
    """What `play` keeps: a film; of each frame the pad, the hash and the time in the game."""

    def __init__(self, cfg):
        """cfg: sim.Play; SystemExit with one line if the files are there already."""
        self.cfg = cfg
        self.video = Path(cfg.record)
        self.labels = Path(f"{os.path.splitext(cfg.record)[0]}.actions.safetensors")
        if not cfg.fresh and (self.video.exists() or self.labels.exists()):
            raise SystemExit(f"{self.video}: exists; give another name, or --fresh to replace it")
        self.film = None
        self.pads, self.hashes, self.times = [], [], []

    def add(self, picture, info: dict, pad, stack: contextlib.ExitStack) -> None:
        """stack: where the film is closed."""
        if self.film is None:
            from common.pictures import VideoWriter

            self.size = picture.shape[1::-1]
            self.film = stack.enter_context(VideoWriter(self.video, self.cfg.fps, *self.size))
        self.pads.append(pad)
        self.hashes.append(info["hash"])
        self.times.append(info["time"])
        self.film.write(fitted(picture, *self.size), self.times[-1] - self.times[0])

    def write(self) -> None:
        # An interruption may have come between a frame's pad and its picture.
        pads = self.pads[: self.film.frames]
        times = np.array(self.times[: len(pads)]) - self.times[0]
        cfg = self.cfg
        artefact.write(
            self.labels,
            recorded(pads, self.hashes, times),
            "nitrogen.actions/1",
            unit="normalized",
            fps=cfg.fps,
            buttons=BUTTONS,
            sticks=STICKS,
            game_command=list(cfg.command),
            seed=cfg.seed,
            gamepad=cfg.gamepad,
            screen=cfg.screen,
            home=cfg.home,
            game_time=float(times[-1]),
        )
        print(f"{len(pads)} frames -> {self.video}, {self.labels}: {times[-1]:.2f} s of game time")


def fitted(picture, width, height):
    """A game may change its size; a video may not."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def recorded(rows, hashes, times) -> dict:
    """Tensors of a nitrogen.actions/1 file, and hash: what env.step's info says of each frame's own
    pixels.  times: s of game time, from the first frame on.
    """
    count = len(rows)
    return {
        "buttons": np.float16([r[0] for r in rows]),
        "sticks": np.float32([r[1] for r in rows]),
        "shown": np.ones(20, bool),
        "confidence": np.ones(count, np.float16),
        "time": np.float64(times),
        "hash": np.frombuffer(bytes.fromhex("".join(hashes[:count])), np.uint8).reshape(count, 16),
    }
