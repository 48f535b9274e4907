"""A game by hand, frame by frame, to see what the clock does: python sim.py step -- COMMAND"""

from __future__ import annotations

import contextlib
import functools
import sys
from dataclasses import dataclass

from common import attempt
from common.artefact import BUTTONS, STICKS

import numpy as np

import sim


@dataclass(frozen=True)
class Config(sim.Run):
    """Flags of `step`."""

    trace: bool = False  # Linux: also print each wait, jump and frame of the hook (docs/clock.md)


STEPPER = """Enter         one frame
N             N frames
N s           N seconds of game time, in one go
pad NAME...   hold these buttons (SOUTH, ...) and sticks (LEFT_X=-0.5, ...); pad alone lets go
show FILE     write the picture (png)
restart       from the beginning
quit"""


def main(cfg: Config) -> None:
    """A game by hand, frame by frame: to see what the clock does."""
    print(STEPPER)
    # The fault is looked for first: by a small program, which is not to be traced.
    if cfg.trace and not sim.hook_fault():
        sim.Clock.trace = print
    action = held_pad([])
    with sim.launch(cfg) as env:
        info = env.reset(seed=cfg.seed)[1]
        while True:
            print(
                f"frame {info['frame']}  game time {info['time']:.4f} s  picture {info['hash'][:8]}"
            )
            word, *rest = (sys.stdin.readline() or "quit").split() or ["1"]
            if word == "quit":
                return
            if word == "restart":
                info = env.reset(seed=cfg.seed)[1]
            elif word == "pad" and held_pad(rest):
                action = held_pad(rest)
            else:
                info = obey(env, action, word, rest) or info
            if not env.clock.alive:
                return print(f"the game ended with status {env.clock.returncode}")


def obey(env, action, word: str, rest: list[str]) -> dict | None:
    """Let time pass, or show the picture; info of the last frame, if any has passed."""
    if word == "show" and rest:
        return save_picture(env.render(), rest[0])
    if word.isdigit() and not rest:
        return step_frames(env, action, int(word))
    if rest == ["s"] and word.replace(".", "", 1).isdigit():
        return step_seconds(env, action, float(word))
    print(STEPPER)


def save_picture(picture, path: str) -> None:
    import cv2

    saved, _ = attempt(
        functools.partial(cv2.imwrite, path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    )
    if not saved:
        print(f"{path}: no picture can be written there")


def step_frames(env, action, count: int) -> dict | None:
    """info after `count` frames, or fewer where the game ends."""
    info = None
    for _ in range(count):
        _, _, ended, _, info = env.step(action)
        if ended:
            break
    return info


def step_seconds(env, action, seconds: float) -> dict:
    """info after so much game time, in one go."""
    env.pad.set(*sim.checked(action))
    shown = env.view.frame
    env.clock.step(seconds)
    env.steps += env.view.frame - shown
    return env.info()


def held_pad(words) -> dict | None:
    """NAME and NAME=VALUE of buttons and sticks -> action; None if they make no sense."""
    held = dict(word.partition("=")[::2] for word in words)
    with contextlib.suppress(ValueError):
        sticks = np.float32([held.get(name) or 0 for name in STICKS])
        if set(held) <= {*BUTTONS, *STICKS} and np.isfinite(sticks).all():
            return {"buttons": np.int8([name in held for name in BUTTONS]), "sticks": sticks}
