"""extract.py: templates and renderer, then localization on synthetic videos, then what a user can do wrong."""

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import extract  # noqa: E402
import sim  # noqa: E402

NONE = np.zeros(16, bool), np.zeros(4)


def play(rng, n):
    """A pad in use: buttons held for a while, sticks that wander and rest.  [n, 16] bool, [n, 4] in [-1, 1]."""
    buttons, sticks = np.zeros((n, 16), bool), np.zeros((n, 4))
    for b in range(16):
        for start in np.flatnonzero(rng.random(n) < 0.02):
            buttons[start:start + rng.integers(3, 15), b] = True
    for axis in range(4):
        for start in range(0, n, 12):
            sticks[start:start + 12, axis] = rng.choice([0, 0, rng.uniform(-1, 1)])
    return buttons, np.clip(cv2.blur(sticks, (1, 5)), -1, 1)


def game(rng, n, w=960, h=540):
    """n frames of a world that scrolls, with shapes, text and things that move; uint8 RGB [h, w, 3]."""
    W = w + 600
    world = cv2.resize(rng.integers(40, 200, (h // 60, W // 60, 3)).astype(np.uint8), (W, h), interpolation=cv2.INTER_CUBIC)
    for _ in range(90):
        x, y, r = int(rng.integers(0, W)), int(rng.integers(0, h)), int(rng.integers(6, 60))
        color = tuple(int(c) for c in rng.integers(0, 255, 3))
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(world, (x, y), (x + r, y + 2 * r), color, int(rng.choice([-1, 2])))
        elif kind == 1:
            cv2.circle(world, (x, y), r, color, int(rng.choice([-1, 2])), cv2.LINE_AA)
        elif kind == 2:
            cv2.putText(world, "".join(rng.choice(list("GAMEOVR247"), 5)), (x, y), 1, r / 15, color, 2, cv2.LINE_AA)
        else:
            cv2.fillPoly(world, [rng.integers(-r, r, (3, 2)).astype(np.int32) + (x, y)], color, cv2.LINE_AA)
    world = np.clip(world + rng.normal(0, 6, world.shape), 0, 255).astype(np.uint8)
    way = np.cumsum(rng.uniform(2, 10) + np.abs(rng.normal(0, 2, n))) % 600
    balls = rng.uniform(0, 1, (6, 4))
    for i in range(n):
        frame = world[:, int(way[i]):int(way[i]) + w].copy()
        for b in balls:
            center = int((b[0] + 0.01 * i * b[2]) % 1 * w), int((b[1] + 0.01 * i * b[3]) % 1 * h)
            cv2.circle(frame, center, 14, (250, 240, 60), -1, cv2.LINE_AA)
        cv2.putText(frame, f"SCORE {i * 10}", (20, 30), 2, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
        cv2.rectangle(frame, (w - 220, 14), (w - 220 + 2 * (i % 100), 30), (220, 40, 40), -1)
        yield frame


def film(path, name=None, width=0.33, opacity=0.9, corner=3, seed=0, n=60):
    """A video of a game with the overlay `name`; returns the true affine [2, 3], or None."""
    rng = np.random.default_rng(seed)
    truth, (buttons, sticks) = None, play(rng, n)
    with sim.VideoWriter(path, 30, 960, 540) as video:
        if name:
            template = extract.templates()[name]
            scale = 960 * width / template.size[0]
            w, h = (round(v * scale) for v in template.size)
            x, y = (12, 960 - w - 12)[corner % 2], (12, 540 - h - 12)[corner // 2]
            truth = np.array([[scale, 0, x], [0, scale, y]])
        for i, frame in enumerate(game(rng, n)):
            if name:
                extract.composite(frame, extract.draw(template, buttons[i], sticks[i], scale), x, y, opacity)
            video.write(frame)
    return truth
