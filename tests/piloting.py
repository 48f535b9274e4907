"""A policy at the pad of a game, for the tests of live/."""

import contextlib
import sys
import time

from common import ROOT, artefact

import numpy as np
import pytest

import sim
from live import pilot, play

RIDGE = (sys.executable, str(ROOT / "games" / "ridge.py"), "--seed", "{seed}", "--fps", "{fps}")
RATE = 30.0
hooked = pytest.mark.skipif(bool(sim.hook_fault()), reason=str(sim.hook_fault()))


class Scripted:
    """A policy that says chunk after chunk what the test wants, each after `delay` seconds."""

    about = {"rate": RATE, "shift": 1, "horizon": 16, "actions": artefact.BUTTONS + artefact.STICKS}

    def __init__(self, *pressed, length=16, delay=0.0, **sticks):
        row = [n in pressed for n in artefact.BUTTONS] + [sticks.get(n, 0) for n in artefact.STICKS]
        self.chunk, self.delay, self.seen = np.float32([row] * length), delay, []
        self.given = []  # rows under way, or None

    def think(self, frame, under_way=None):
        self.seen.append(frame.copy())
        self.given.append(under_way)
        time.sleep(self.delay)
        return self.chunk

    def close(self):
        pass


def config(**options):
    return play.Config(**{"command": RIDGE, "fps": 30, "seconds": 1.0, **options})


@contextlib.contextmanager
def playing(brain, person=None, **options):
    """(env, frames of the game that the policy plays)"""
    c = config(**options)
    with sim.launch(c) as env, contextlib.closing(pilot.Pilot(brain, c)) as agent:
        yield env, agent, pilot.frames(env, agent, c, person)


def pad_of(env):
    """What the game's pad says now."""
    held = (
        env.pad.fields["pad_buttons"][env.pad.buttons],
        env.pad.fields["pad_sticks"][env.pad.sticks],
    )
    return {n for n, v in zip(artefact.BUTTONS, held[0], strict=False) if v}, dict(
        zip(artefact.STICKS, held[1].tolist(), strict=False)
    )


def run(*args):
    return [sys.executable, "eval.py", *args]
