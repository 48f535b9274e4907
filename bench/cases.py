"""The videos of the benchmark of localization: a fixed grid, and clips without an overlay."""

from __future__ import annotations

import itertools
import typing
import zlib
from pathlib import Path

from common import ROOT
from common.pictures import VideoWriter, read_video

import cv2
import numpy as np

import eval as evaluation
import extract
from templates import decoys, pads, render

SIZE = decoys.SIZE  # px, of the grid's videos
W, H = SIZE
SECONDS = 10  # of each, at evaluation.FPS
WIDTHS = (0.15, 0.25, 0.35, 0.45)  # of the frame's
OPACITIES = (0.5, 0.7, 0.85, 1.0)
RATES = (0.1, 0.04, 0.015)  # bits per pixel: 2.8, 1.1 and 0.4 Mbit/s
# two captures, the built-in games, two that are painted here
BACKGROUNDS = ("supertux", "freedoom", "games", "hud", "novel")


class Case(typing.NamedTuple):
    name: str
    width: float  # 0: no overlay
    opacity: float
    rate: float
    background: str
    own: bool  # a skin of the folder --templates, not a built-in one


def grid(repeats: int = 1) -> list[Case]:
    """Every width x opacity x rate x background once per repeat.  Any first part of the list is
    spread evenly over all of them.
    """
    diagonals = itertools.product(range(len(OPACITIES)), range(len(WIDTHS)))
    cells = [(i, (i + d) % len(OPACITIES)) for d, i in diagonals]
    cases = []
    for n in range(len(RATES) * len(BACKGROUNDS) * repeats):
        for i, j in cells:
            width, opacity = WIDTHS[i], OPACITIES[j]
            rate = RATES[(n + i + j) % 3]
            background = BACKGROUNDS[(n + i + 2 * j) % 5]
            name = f"{n:02d}-{width}-{opacity}-{rate}-{background}"
            cases.append(Case(name, width, opacity, rate, background, (n + i + j) % 2 == 1))
    return cases


def nothing(count: int) -> list[Case]:
    return [
        Case(f"nothing-{n:03d}", 0.0, 0.0, RATES[n % 3], BACKGROUNDS[n % 5], False)
        for n in range(count)
    ]


# ---- their videos --------------------------------------------------------------------------------


def make_case(case: Case, path: Path, pool, seed: int) -> dict:
    """Write the case's video; returns the truth: template, family, box (x, y, w, h in px), and the
    bits per pixel that came out.
    """
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    numbers, truth, draw = with_overlay(case, pool, rng) if case.width else without_overlay(rng)
    with VideoWriter(path, evaluation.FPS, *SIZE, case.rate) as out:
        for t, picture in zip(numbers, scene(case.background, rng, numbers), strict=False):
            draw(picture, t)
            out.write(picture)
    return truth | {"rate": path.stat().st_size * 8 / (len(numbers) * W * H)}


def with_overlay(case: Case, pool, rng):
    """(numbers of the frames, truth, what draws the overlay into frame t)."""
    numbers = range(evaluation.FPS * SECONDS)
    if case.own:
        names = [n for n in pool if n not in pads.TEMPLATES]
    else:
        names = [n for n in pool if pads.held_out(n)]
    template = pool[str(rng.choice(names))]
    scale = min(case.width * W / template.size[0], 0.9 * H / template.size[1])
    w, h = (round(scale * v) for v in template.size)
    x = offset(rng, W, w)
    y = offset(rng, H, h)
    buttons, sticks = random_play(rng, len(numbers))

    def draw(picture, t):
        overlay = render.draw(template, buttons[t], sticks[t], scale=scale)
        render.composite(picture, overlay, x, y, case.opacity)

    truth = {"template": template.name, "family": template.family, "box": [x, y, w, h]}
    return numbers, truth, draw


def offset(rng, limit: int, size: int) -> int:
    """Px from the start: near one edge, near the other, or anywhere."""
    near = rng.integers(8, 40)
    far = limit - size - rng.integers(8, 40)
    anywhere = rng.integers(8, limit - size - 8)
    return int(rng.choice([near, far, anywhere], p=[0.35, 0.35, 0.3]))


def without_overlay(rng):
    """As with_overlay; drawn are things that look like parts of one.  Only the frames that
    extract.py looks at are made.
    """
    numbers = np.linspace(0, evaluation.FPS * SECONDS - 1, extract.FRAMES).round().astype(int)
    order = rng.permutation(len(decoys.DECOYS))[: rng.integers(2, 6)]
    kinds = [list(decoys.DECOYS)[k] for k in order]
    sizes = [[int(v * rng.uniform(0.75, 1.25)) for v in decoys.DECOYS[kind]] for kind in kinds]
    shown = []
    for kind, (w, h) in zip(kinds, sizes, strict=True):
        x, y = int(rng.integers(W - w)), int(rng.integers(H - h))
        shown.append((kind, x, y, w, h, int(rng.integers(1 << 30))))

    def draw(picture, t):
        for decoy in shown:
            decoys.show(picture, *decoy, t)

    return numbers.tolist(), {"template": None, "family": None, "box": None}, draw


def random_play(rng, frames: int):
    """A person at a pad: buttons bool [frames, 16], each held for 0.1 to 0.6 s now and then; sticks
    [frames, 4] that go from place to place, half of the time to their centre.
    """
    buttons = np.zeros((frames, 16), bool)
    for b in range(16):
        presses = rng.poisson(frames / evaluation.FPS * rng.uniform(0, 0.7))
        for start in rng.integers(0, frames, presses):
            buttons[start : start + rng.integers(3, 18), b] = True
    knots = np.arange(0, frames + 20, 12)
    places = rng.uniform(-1, 1, (len(knots), 4))
    places = places * np.repeat(rng.random((len(knots), 2)) < 0.5, 2, 1)
    sticks = [np.interp(np.arange(frames), knots, p) for p in places.T]
    return buttons, np.stack(sticks, 1)


def scene(background: str, rng, numbers):
    """The frames `numbers` (rising) of ten seconds of a background, uint8 RGB; each seed gives
    others, captures are mirrored and lit.
    """
    mirrored = rng.random() < 0.5
    light = rng.uniform(0.75, 1.15)
    start = int(rng.integers(1 << 30))
    if background in ("hud", "novel"):
        painter = decoys.hud if background == "hud" else decoys.novel
        yield from map(painter(rng), numbers)
    elif background == "games":
        yield from game_frames(rng, start, numbers)
    else:
        for _, _, frame in read_video(ROOT / "assets/backgrounds" / f"{background}.mp4", numbers):
            frame = np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame
            yield cv2.convertScaleAbs(frame, alpha=light)


def game_frames(rng, seed: int, numbers):
    """An expert plays one of the first games."""
    game = evaluation.game(str(rng.choice(evaluation.FIRST_GAMES.split(","))))
    world = game.Game(str(rng.choice(list(game.TASKS))), seed)
    expert = game.Expert(seed)
    for t in range(max(numbers) + 1):
        world.step(game.console.Pad(*expert(world.score())), 1 / evaluation.FPS)
        if t in numbers:
            yield cv2.resize(world.draw(), SIZE, interpolation=cv2.INTER_LINEAR)
