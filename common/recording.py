"""What a player of a game leaves behind: a film, and the pad, hash and time of each frame; and
where a person and a policy took turns, which rows are whose.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from common import artefact
from common.artefact import BUTTONS, STICKS

import numpy as np

WHO = ("person", "policy", "all")
LEAD = 0.5  # s before a person's first row of which the frames are kept


class Recording:
    """What `play` keeps: a film; of each frame the pad, the hash and the time in the game."""

    def __init__(self, cfg):
        """cfg: sim.Play, or of eval.py with a `record` that names the film; SystemExit with one
        line if the files are there already.
        """
        self.cfg = cfg
        self.video = Path(cfg.record)
        self.labels = Path(f"{os.path.splitext(cfg.record)[0]}.actions.safetensors")
        if not cfg.fresh and (self.video.exists() or self.labels.exists()):
            raise SystemExit(f"{self.video}: exists; give another name, or --fresh to replace it")
        self.film = None
        self.pads, self.hashes, self.times, self.people = [], [], [], []

    def add(self, picture, info: dict, pad, stack: contextlib.ExitStack, person=None) -> None:
        """stack: where the film is closed.  person: bool, who held the pad where two take turns."""
        if self.film is None:
            from common.pictures import VideoWriter

            self.size = picture.shape[1::-1]
            self.film = stack.enter_context(VideoWriter(self.video, self.cfg.fps, *self.size))
        if person is not None:
            self.people.append(person)
        self.pads.append(pad)
        self.hashes.append(info["hash"])
        self.times.append(info["time"])
        self.film.write(fitted(picture, *self.size), self.times[-1] - self.times[0])

    def write(self, **about) -> None:
        """The labels, once the film is closed.  about: more of their metadata."""
        # An interruption may have come between a frame's pad and its picture.
        pads = self.pads[: self.film.frames]
        times = np.array(self.times[: len(pads)]) - self.times[0]
        cfg = self.cfg
        artefact.write(
            self.labels,
            recorded(pads, self.hashes, times, self.people),
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
            **about,
        )
        print(f"{len(pads)} frames -> {self.video}, {self.labels}: {times[-1]:.2f} s of game time")


def fitted(picture, width, height):
    """A game may change its size; a video may not."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def recorded(rows, hashes, times, people=()) -> dict:
    """Tensors of a nitrogen.actions/1 file, and hash: what env.step's info says of each frame's own
    pixels.  times: s of game time, from the first frame on.  people: whether a person was at the
    pad, where two took turns.
    """
    count = len(rows)
    taken = {"person": np.array(people[:count], bool)} if people else {}
    return taken | {
        "buttons": np.float16([r[0] for r in rows]),
        "sticks": np.float32([r[1] for r in rows]),
        "shown": np.ones(20, bool),
        "confidence": np.ones(count, np.float16),
        "time": np.float64(times),
        "hash": np.frombuffer(bytes.fromhex("".join(hashes[:count])), np.uint8).reshape(count, 16),
    }


def free_name(folder, game: str) -> str:
    """FOLDER/<game>-000.mp4, or the next number that no recording has."""
    for n in itertools.count():
        path = f"{Path(folder) / game}-{n:03d}"
        if not any(Path(path + end).exists() for end in (".mp4", ".actions.safetensors")):
            return path + ".mp4"


# ---- whose rows ----------------------------------------------------------------------------------


def rows_of(who: str, person, busy) -> np.ndarray:
    """bool [T]: the rows whose actions are to be learned.

    who: "person", "policy" or "all".  person, busy: bool [T], a person had the pad, and used it.
    A person's turn ends with the last touch: the rest was waiting for the policy to go on, and
    would teach to stand still.
    """
    if who == "person":
        return person & (next_true(person & busy) < next_true(~person))
    return ~person if who == "policy" else np.ones(len(person), bool)


def next_true(rows) -> np.ndarray:
    """int [T]: the first row that is True, from each row on; T where there is none."""
    numbers = np.where(rows, np.arange(len(rows)), len(rows))
    return np.minimum.accumulate(numbers[::-1])[::-1]


def with_lead(rows, time) -> np.ndarray:
    """bool [T]: these rows, and those of the LEAD seconds before each."""
    following = np.append(time, np.inf)[next_true(rows)]
    return following - time <= LEAD + 1e-6
