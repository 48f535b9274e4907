"""The tiny console under the built-in games: clock, gamepad, screen, and the few things all games
share.

A game is an ordinary program. It reads the system clock, moves its world by the elapsed time, reads
a gamepad and draws 480 x 270 RGB frames:

    python games/ridge.py [--task NAME] [--seed N] [--fps 60]
                                                        a window for a person (pip install pygame)
    NITROGEN_CONSOLE=FILE python games/ridge.py ...
                                                        headless: pad in, picture and score out

FILE exists already; the game sizes and maps it. Its first 4096 bytes are a JSON header, written
last and padded with spaces: {"format": "nitrogen.console/1", "width", "height", "fps", "game",
"buttons", "sticks", "fields": {name: [offset, dtype, shape]}}. The other side writes pad_buttons,
pad_sticks and go; the game writes the rest:

    pad_buttons u1 [16]    0 or 1, in the order of BUTTONS
    pad_sticks  <f4 [4]    [-1, 1], y down
    gate        <u4 [1]    1: frames wait for `go`
    go          <u8 [1]    frame i is computed when go > i

    frame   <u8 [1]            frames presented so far
    time    <f8 [1]            game seconds since the start
    score   u1 [8192]          JSON, padded with zero bytes
    picture u1 [270, 480, 3]   RGB

Frame i: wait for tick i, read the pad, move, draw, write picture, score and time, and last of all
set frame = i + 1. With gate 0 the clock is time.monotonic() and every frame makes exactly one
time.sleep(), so that whoever controls the clock controls the game. With gate 1 (for where the clock
cannot be controlled) each frame lasts 1 / fps. NITROGEN_GATE=1 closes the gate before the first
frame.

A game file has TASKS: {name: Task}; Game(task, seed), a World; Expert(seed), called with the score
30 times a second; and ends in console.main(Game, TASKS, __doc__). Games in three dimensions look
through a Camera; where a hero on foot is seen from behind, Game is an Adventure.
"""

import argparse
import itertools
import json
import mmap
import os
import sys
import time
from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(0)

BUTTONS = (
    "DPAD_UP",
    "DPAD_DOWN",
    "DPAD_LEFT",
    "DPAD_RIGHT",
    "SOUTH",
    "EAST",
    "WEST",
    "NORTH",
    "LEFT_SHOULDER",
    "RIGHT_SHOULDER",
    "LEFT_TRIGGER",
    "RIGHT_TRIGGER",
    "LEFT_THUMB",
    "RIGHT_THUMB",
    "BACK",
    "START",
)
STICKS = ("LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")
WIDTH, HEIGHT = 480, 270
HEADER = 4096  # bytes
FIELDS = {
    "pad_buttons": ("u1", [16]),
    "pad_sticks": ("<f4", [4]),
    "gate": ("<u4", [1]),
    "go": ("<u8", [1]),
    "frame": ("<u8", [1]),
    "time": ("<f8", [1]),
    "score": ("u1", [8192]),
    "picture": ("u1", [HEIGHT, WIDTH, 3]),
}
SLOWEST = 0.1  # s, the most that one frame may move the world
HEARTS = 5
TILE, ROCK, LEDGE = 32, 1, 2  # px a side; kinds of tile for Body


# ---- the gamepad


class Pad:
    """One reading of the gamepad: pad["SOUTH"] is a bool, pad["LEFT_X"] a float in [-1, 1], y
    down.
    """

    def __init__(self, buttons=(0,) * 16, sticks=(0,) * 4):
        self.state = {name: bool(value) for name, value in zip(BUTTONS, buttons, strict=True)}
        for name, value in zip(STICKS, sticks, strict=True):
            self.state[name] = min(1.0, max(-1.0, float(value))) if value == value else 0.0

    def __getitem__(self, name):
        return self.state[name]

    def left(self):
        """(x, y) of the left stick, or of the d-pad where that is pressed, in the unit circle."""
        x = self["DPAD_RIGHT"] - self["DPAD_LEFT"] or self["LEFT_X"]
        y = self["DPAD_DOWN"] - self["DPAD_UP"] or self["LEFT_Y"]
        return unit(x, y, at_most=1)

    def right(self):
        return unit(self["RIGHT_X"], self["RIGHT_Y"], at_most=1)


def unit(x, y, at_most=0):
    """The vector at length 1; with at_most, only if it is longer than that."""
    length = (x * x + y * y) ** 0.5
    scale = 1 / length if length > max(at_most, 1e-9) else 1.0
    return x * scale, y * scale


# ---- what every game is made of


@dataclass(frozen=True)
class Task:
    goal: str  # one sentence
    category: str  # combat | navigation | specific
    seconds: float  # time limit, game seconds


class World:
    """A task, a seed, the time, hearts and progress. A game adds move(pad, dt), paint() and
    state().
    """

    # icons: the sprite in the corner that shows the goal, by task
    name, genre, tasks, icons = "", "", {}, {}

    def __init__(self, task, seed):
        self.task, self.limit = task, self.tasks[task].seconds
        self.rng = np.random.default_rng([abs(seed), list(self.tasks).index(task)])
        self.time, self.progress, self.over = 0.0, 0.0, False
        # stun, safe: seconds left dazed, unhurtable
        self.hearts, self.stun, self.safe = HEARTS, 0.0, 0.0
        self.sparks, self.before, self.fresh = Sparks(), Pad(), set()

    def step(self, pad, dt):
        """Move the world by dt seconds, in slices of about 1/60 s so that the frame rate hardly
        matters.
        """
        # pressed just now
        self.fresh = {name for name in BUTTONS if pad[name] and not self.before[name]}
        self.before, slices = pad, max(1, round(dt * 60))
        for _ in range(slices):
            self.sparks.step(dt / slices)
            if not self.over:
                self.time += dt / slices
                self.stun, self.safe = self.stun - dt / slices, self.safe - dt / slices
                self.move(pad, dt / slices)
                self.over = self.progress >= 1 or self.time >= self.limit
            self.fresh = set()

    def reached(self, progress):
        self.progress = min(1.0, max(self.progress, float(progress)))

    def hurt(self):
        """Lose a heart; without hearts, lie dazed for a while and get up with new ones: a mistake
        costs time.
        """
        if self.safe <= 0:
            self.hearts -= 1
            self.stun, self.safe = (0.35, 1.2) if self.hearts else (1.5, 2.5)
            self.hearts = self.hearts or HEARTS

    def score(self):
        return {
            "game": self.name,
            "task": self.task,
            "time": round(self.time, 4),
            "progress": round(self.progress, 4),
            "success": self.progress >= 1,
            "over": self.over,
            "state": self.state(),
        }

    def draw(self):
        """-> uint8 [270, 480, 3] RGB."""
        picture = self.paint()
        cv2.rectangle(picture, (6, 6), (39, 39), (16, 16, 24), -1)
        stamp(picture, self.icons[self.task], 23, 23)
        bar(picture, 44, 8, 120, 8, self.progress, (255, 255, 255))
        bar(picture, 44, 20, 120, 4, 1 - self.time / self.limit, (120, 170, 255))
        for i in range(self.hearts):
            stamp(picture, HEART, WIDTH - 16 - 20 * i, 16)
        if self.over:
            picture //= 2
            text, colour = (
                ("CLEAR!", (120, 255, 140)) if self.progress >= 1 else ("TIME OUT", (255, 120, 110))
            )
            x = WIDTH // 2 - 22 * len(text)
            cv2.putText(picture, text, (x, 150), cv2.FONT_HERSHEY_DUPLEX, 2.2, (0, 0, 0), 9)
            cv2.putText(picture, text, (x, 150), cv2.FONT_HERSHEY_DUPLEX, 2.2, colour, 3)
        return picture


class Body:
    """A box that runs and falls among tiles, uint8 [rows, columns]: ROCK stops it, a LEDGE only
    from above. x at its middle, y at its feet, in px and px/s."""

    def __init__(self, x, y, half, tall):
        self.x, self.y, self.half, self.tall, self.vx, self.vy, self.ground = (
            x,
            y,
            half,
            tall,
            0.0,
            0.0,
            True,
        )

    def blocked(self, tiles, x, y, tall):
        """Whether there is rock where the box would be."""
        columns = slice(int((x - self.half) // TILE), int((x + self.half) // TILE) + 1)
        return bool(
            (
                tiles[max(0, int((y - tall) // TILE)) : int((y - 0.01) // TILE) + 1, columns]
                == ROCK
            ).any()
        )

    def move(self, tiles, gravity, dt, drop=False):
        """drop: fall through ledges."""
        x, y = self.x + self.vx * dt, self.y
        if self.blocked(tiles, x, y, self.tall):
            side = 1 if self.vx > 0 else -1
            x, self.vx = (
                ((x + side * self.half) // TILE + (side < 0)) * TILE - side * (self.half + 0.01),
                0.0,
            )
        self.vy += gravity * dt
        self.x, self.y = x, y + self.vy * dt
        row = int(min(max(self.y // TILE, 0), len(tiles) - 1))
        feet = tiles[row, int((x - self.half) // TILE) : int((x + self.half) // TILE) + 1]
        self.ground = self.vy >= 0 and bool(
            (feet == ROCK).any() or not drop and y <= row * TILE + 1 and (feet == LEDGE).any()
        )
        if self.ground:
            self.y, self.vy = row * TILE, 0.0
        elif self.vy < 0 and self.blocked(tiles, x, self.y, self.tall):
            self.y, self.vy = y, 0.0


class Hands:
    """What an expert wants -> what thumbs do: sticks move by a low-pass, presses last a few frames;
    some style by seed.
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng([abs(seed), 99])
        # per frame; frames
        self.quick, self.least = self.rng.uniform(0.4, 0.6), int(self.rng.integers(3, 5))
        self.buttons, self.age, self.sticks = (
            np.zeros(16, np.uint8),
            np.full(16, 99),
            np.zeros(4, np.float32),
        )

    def __call__(self, left=(0, 0), right=(0, 0), hold=(), tap=()):
        """hold: buttons to keep down. tap: buttons to press and let go, again and again. -> u8
        [16], float32 [4].
        """
        self.sticks += np.float32(self.quick) * (
            np.float32([*left, *right]).clip(-1, 1) - self.sticks
        )
        for i, name in enumerate(BUTTONS):
            want = name in hold or name in tap and not self.buttons[i]
            flip = want != self.buttons[i] and self.age[i] >= self.least
            self.buttons[i] ^= flip
            self.age[i] = 0 if flip else self.age[i] + 1
        return self.buttons.copy(), self.sticks.copy()


# ---- drawing


def sprite(width, height, *shapes):
    """A small picture and its mask, from shapes painted one over the other, in pixels: (colour, x,
    y, rx, ry) an ellipse, (colour, [(x, y), ...]) a polygon. -> uint8 [h, w, 3], uint8 [h, w]."""
    big = np.zeros((height * 4, width * 4, 4), np.uint8)
    for colour, *shape in shapes:
        if len(shape) == 1:
            cv2.fillPoly(big, [np.int32(np.array(shape[0]) * 4)], (*colour, 255))
        else:
            x, y, rx, ry = (int(v * 4) for v in shape)
            cv2.ellipse(big, (x, y), (rx, ry), 0, 0, 360, (*colour, 255), -1)
    # black shines through: a dark outline
    small = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., :3]), np.ascontiguousarray(
        (small[..., 3] > 100).astype(np.uint8)
    )


def mirror(sprite):
    return tuple(np.ascontiguousarray(part[:, ::-1]) for part in sprite)


def tint(sprite, colour):
    """The sprite in one colour: a flash when hit."""
    return np.full_like(sprite[0], colour), sprite[1]


def stamp(picture, sprite, x, y):
    """Draw a sprite centred at x, y; what lies outside the picture is cut off."""
    rgb, mask = sprite
    h, w = mask.shape
    left, top = round(x - w / 2), round(y - h / 2)
    x0, y0, x1, y1 = max(0, -left), max(0, -top), min(w, WIDTH - left), min(h, HEIGHT - top)
    if x0 < x1 and y0 < y1:
        cv2.copyTo(
            rgb[y0:y1, x0:x1],
            mask[y0:y1, x0:x1],
            picture[top + y0 : top + y1, left + x0 : left + x1],
        )


def bar(picture, x, y, width, height, part, colour):
    cv2.rectangle(picture, (x - 1, y - 1), (x + width, y + height), (16, 16, 24), -1)
    if part > 0:
        cv2.rectangle(
            picture, (x, y), (x + int((width - 1) * min(part, 1)), y + height - 1), colour, -1
        )


def gradient(width, height, *colours):
    """Vertical colour gradient, uint8 [height, width, 3]."""
    return cv2.resize(np.uint8(colours)[:, None], (width, height), interpolation=cv2.INTER_LINEAR)


def noise(rng, height, width, cell, wrap=False):
    """Smooth noise in [0, 1], float32 [height, width], features about `cell` pixels; `wrap`: the
    edges fit together.
    """
    grid = rng.random((-(-height // cell), -(-width // cell)), dtype=np.float32)
    grid = np.pad(grid, 2, mode="wrap" if wrap else "edge")
    large = cv2.resize(
        grid, (grid.shape[1] * cell, grid.shape[0] * cell), interpolation=cv2.INTER_CUBIC
    )
    return large[2 * cell :, 2 * cell :][:height, :width].clip(0, 1)


def lit(picture, ambient, lights):
    """The picture under a dim light of that colour and round lights [(x, y, radius, colour), ...];
    210 is as it was painted.
    """
    y, x = np.ogrid[2 : HEIGHT + 2 : 4, 2:WIDTH:4]  # a quarter of the size is enough
    light = np.full((y.size, x.size, 3), ambient, np.float32)
    for cx, cy, radius, colour in lights:
        near = (
            1
            / (1 + (np.float32((x - cx) ** 2) + np.float32((y - cy) ** 2)) / np.float32(radius**2))
            ** 2
        )
        light += near[..., None] * np.float32(colour)
    light = cv2.resize(
        np.uint8(light.clip(0, 255)), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR
    )
    return cv2.multiply(picture, light, scale=1 / 210)


def flakes(picture, points, x, y, colour, tall=2):
    """Snow, dust, leaves or rain: points [n, 3] hold x, y and nearness in [0, 1]; x, y: how far the
    near ones have drifted.
    """
    drift = 0.4 + 0.6 * points[:, 2]
    columns, rows = (
        np.int32((points[:, 0] + x * drift) % (WIDTH - 1)),
        np.int32((points[:, 1] + y * drift) % (HEIGHT - tall)),
    )
    for i in range(tall):
        picture[rows + i, columns] = picture[rows + i, columns + 1] = colour


def stars(picture, x, y, wide, time):
    """Somebody is dazed."""
    for angle in 6 * time + np.arange(3) * 2.1:
        cv2.circle(
            picture,
            (int(x + wide * np.cos(angle)), int(y + 0.3 * wide * np.sin(angle))),
            4,
            (255, 214, 70),
            -1,
        )


def maze(rng, grid, steps):
    """A path through a grid of rooms that never meets itself, as [(row, column), ...], steps + 1 of
    them.
    """
    while True:
        path = [tuple(rng.integers(0, grid, 2).tolist())]
        while len(path) <= steps:
            r, c = path[-1]
            free = [
                p
                for p in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1))
                if min(p) >= 0 and max(p) < grid and p not in path
            ]
            if not free:
                break
            path.append(free[rng.integers(len(free))])
        else:
            return path


class Sparks:
    """Particles: little squares that fly, fall and vanish."""

    def __init__(self):
        self.list = []  # [x, y, vx, vy, seconds left, colour]

    def burst(self, rng, x, y, colour, count=14, speed=140):
        angles = rng.uniform(0, 6.28, count)
        speeds, lives = rng.uniform(0.3, 1, count), rng.uniform(0.2, 0.6, count)
        for angle, v, life in zip(angles, speeds, lives, strict=True):
            self.list.append(
                [x, y, speed * v * np.cos(angle), speed * v * np.sin(angle) - 40, life, colour]
            )

    def step(self, dt):
        for s in self.list:
            s[0], s[1], s[3], s[4] = s[0] + s[2] * dt, s[1] + s[3] * dt, s[3] + 260 * dt, s[4] - dt
        self.list = [s for s in self.list if s[4] > 0][-80:]

    def draw(self, picture, left=0, top=0):
        for x, y, _, _, life, colour in self.list:
            x, y, r = int(x - left), int(y - top), 1 + int(life * 6)
            cv2.rectangle(picture, (x - r, y - r), (x + r, y + r), colour, -1)


def pointer(picture, angle, colour):
    """A large arrow at the edge of the picture towards what lies at that angle (rad, right is
    positive) out of sight.
    """
    x, d = (WIDTH - 14, -30) if angle > 0 else (14, 30)
    points = np.int32([(x, 130), (x + d, 98), (x + d, 162)])
    cv2.fillPoly(picture, [points], colour)
    cv2.polylines(picture, [points], True, (16, 16, 24), 3)


HEART = sprite(
    18,
    16,
    ((235, 60, 80), 5, 5, 4, 4),
    ((235, 60, 80), 13, 5, 4, 4),
    ((235, 60, 80), [(1, 7), (17, 7), (9, 15)]),
)


# ---- three dimensions: metres, z up; headings and angles in rad, growing to the right


def turn(angle):
    """The angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


class Camera:
    """An eye over flat ground. view: rad from the left to the right edge; horizon: the row at the
    height of the eye; haze: the colour into which all fades, half of it at `far`."""

    def __init__(self, view, horizon, haze, far):
        self.focal, self.horizon = WIDTH / 2 / np.tan(view / 2), horizon
        self.scaled = {}  # sprites of the scene at the sizes seen so far
        self.haze, self.far, self.mist = haze, far, np.tile(np.uint16(haze), WIDTH // 2)

    def place(self, x, y, z, heading):
        self.x, self.y, self.z, self.heading, self.c, self.s = (
            x,
            y,
            z,
            heading,
            np.cos(heading),
            np.sin(heading),
        )

    def depth(self, x, y):
        return (x - self.x) * self.c + (y - self.y) * self.s

    def project(self, x, y, z=0.0):
        """-> pixel x, y and pixels per metre there; what is behind the eye is brought just before
        it.
        """
        scale = self.focal / max(self.depth(x, y), 0.2)
        aside = (y - self.y) * self.c - (x - self.x) * self.s
        return WIDTH / 2 + aside * scale, self.horizon + (self.z - z) * scale, scale

    def fade(self, depth):
        """How much of the haze there is at a depth, in [0, 1]."""
        return 1 - 0.5 ** (depth / self.far) ** 4

    def around(self):
        """Width of a panorama: pixels once around."""
        return int(2 * np.pi * self.focal)

    def sky(self, picture, panorama):
        """What is above the horizon; panorama: uint8 [rows, around, 3], its last row at the
        horizon.
        """
        top, left = (
            min(HEIGHT, int(self.horizon) + 1),
            int(self.heading * self.focal) % panorama.shape[1],
        )
        rows, first = panorama[len(panorama) - top :], panorama.shape[1] - left
        picture[:top, :first] = rows[:, left : left + WIDTH]
        picture[:top, first:] = rows[:, : max(0, WIDTH - first)]

    def ground(self, picture, texture, cell, margin=0):
        """The ground below the horizon; texture: from above, uint8 [y / cell, x / cell, 3]. It
        repeats for the eye, and has `margin` cells more on each side, wrapped around, to be seen;
        beyond them all is haze."""
        top, bend, edge = max(0, int(self.horizon) + 1), self.z * self.focal, margin * cell
        wide, high = WIDTH // 2, (HEIGHT - top + 1) // 2  # at half the size, for speed
        x, y = (
            at % (n * cell - 2 * edge) + edge
            for at, n in ((self.x, texture.shape[1]), (self.y, texture.shape[0]))
        )
        # of u, v, 1
        rows = np.array([[-self.s * self.z, x, 0], [self.c * self.z, y, 0], [0, cell, 0]]) / cell
        rows[:, 2] = np.array([bend * self.c / cell, bend * self.s / cell, 0]) - rows[:, 0] * (
            WIDTH / 2 - 0.5
        )
        rows[:, 2] += rows[:, 1] * (top + 0.5 - self.horizon)
        rows[:, :2] *= 2
        land = cv2.warpPerspective(
            texture,
            rows,
            (wide, high),
            None,
            cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderValue=self.haze,
        )
        part = np.uint16(256 * self.fade(bend / (np.arange(top, HEIGHT, 2) + 1 - self.horizon)))[
            :, None
        ]
        n = int(np.sum(part > 12))  # rows in haze
        far = land[:n].reshape(n, 3 * wide)
        far[:] = (far * (256 - part[:n]) + self.mist * part[:n]) >> 8
        picture[top:] = cv2.resize(land, (WIDTH, 2 * high))[: HEIGHT - top]

    def scene(self, picture, things):
        """Draw things, far to near: [(x, y, draw(picture)), ...]."""
        for *_, draw in sorted(
            ((-self.depth(x, y), i, draw) for i, (x, y, draw) in enumerate(things)),
            key=lambda t: t[:2],
        ):
            draw(picture)

    def billboard(self, picture, sprite, x, y, z, tall):
        """A sprite, `tall` metres high, at x, y, its lower edge z above the ground."""
        px, py, scale = self.project(x, y, z)
        high = int(tall * scale)
        high -= high % (1 + high // 24)  # a few sizes only
        wide = max(1, high * sprite[1].shape[1] // sprite[1].shape[0])
        if 2 <= high < 600 and -wide < 2 * px < 2 * WIDTH + wide:
            if (id(sprite), high) not in self.scaled:
                self.scaled[id(sprite), high] = (
                    sprite,
                    [
                        cv2.resize(part, (wide, high), interpolation=cv2.INTER_NEAREST)
                        for part in sprite
                    ],
                )
            stamp(picture, self.scaled[id(sprite), high][1], px, py - high / 2)

    def figure(self, picture, parts):
        """Balls and limbs: [(colour, radius, point) or (colour, radius, point, point), ...], in
        metres: round, lit, with a dark rim.
        """
        for colour, radius, a, *b in sorted(
            parts, key=lambda part: -self.depth(*part[2][:2]) - self.depth(*part[-1][:2])
        ):
            x0, y0, scale = self.project(*a)
            x1, y1, other = self.project(*b[0]) if b else (x0, y0, scale)
            if max(scale, other) < self.focal / 0.3:
                x0, y0, x1, y1, r, haze = (
                    int(x0),
                    int(y0),
                    int(x1),
                    int(y1),
                    radius * (scale + other) / 2,
                    self.fade(self.focal / scale),
                )
                pairs = zip(colour, self.haze, strict=True)
                red, green, blue = (c + (h - c) * haze for c, h in pairs)
                for width, shift, light in (
                    (2 * r + 3, 0, 0.3),
                    (2 * r, 0, 1.0),
                    (0.9 * r, int(0.3 * r), 1.25),
                ):
                    shade = (
                        min(255, int(red * light)),
                        min(255, int(green * light)),
                        min(255, int(blue * light)),
                    )
                    cv2.line(
                        picture,
                        (x0 - shift, y0 - shift),
                        (x1 - shift, y1 - shift),
                        shade,
                        max(1, int(width)),
                    )

    def patch(self, picture, points, colour):
        """A polygon on the ground, cut off where it comes behind the eye."""
        seen = []
        for a, b in zip(points, [*points[1:], points[0]], strict=True):
            da, db = self.depth(*a) - 1, self.depth(*b) - 1
            if da > 0:
                seen.append(a)
            if da * db < 0:
                seen.append(
                    (a[0] + (b[0] - a[0]) * da / (da - db), a[1] + (b[1] - a[1]) * da / (da - db))
                )
        if len(seen) > 2:
            cv2.fillPoly(picture, [np.int32([self.project(*point)[:2] for point in seen])], colour)

    def shadow(self, picture, x, y, radius):
        """A dark disc on the ground."""
        px, py, scale = self.project(x, y)
        w, h = int(radius * scale), int(radius * scale * self.z * scale / self.focal)
        x0, y0, x1, y1 = (
            max(0, int(px) - w),
            max(0, int(py) - h),
            min(WIDTH, int(px) + w),
            min(HEIGHT, int(py) + h),
        )
        if x0 < x1 and y0 < y1 and w < 300:
            patch = picture[y0:y1, x0:x1]
            mask = np.zeros(patch.shape[:2], np.uint8)
            cv2.ellipse(mask, (int(px) - x0, int(py) - y0), (w, max(h, 1)), 0, 0, 360, 1, -1)
            cv2.copyTo(patch // 2, mask, patch)


def posed(parts, x, y, facing, z=0.0):
    """Parts of a figure in its own metres (forward, right, up) -> in the world."""
    c, s = np.cos(facing), np.sin(facing)

    def place(p):
        return x + c * p[0] - s * p[1], y + s * p[0] + c * p[1], z + p[2]

    return [(colour, radius, *map(place, points)) for colour, radius, *points in parts]


def person(step, coat, legs, face, left=(0.15, -0.42, 0.85), right=(0.15, 0.42, 0.85), low=0.0):
    """Somebody about 1.9 m tall; step: phase of the stride; left, right: the hands; low: how far
    the body is bent.
    """
    swing, hip, neck = 0.38 * np.sin(step), 0.85 - 0.5 * low, (0.35 * low, 0.0, 1.38 - 0.6 * low)

    def hand(p, side):
        return p[0] + side * 0.5 * swing, p[1], p[2] - 0.4 * low

    return [
        (legs, 0.12, (0, -0.13, hip), (swing, -0.15, 0.1)),
        (legs, 0.12, (0, 0.13, hip), (-swing, 0.15, 0.1)),
        (coat, 0.25, (0, 0, hip + 0.08), neck),
        (face, 0.22, (neck[0] + 0.06, 0, neck[2] + 0.38)),
        (coat, 0.095, (neck[0], -0.3, neck[2]), hand(left, 1)),
        (coat, 0.095, (neck[0], 0.3, neck[2]), hand(right, -1)),
    ]


class Adventure(World):
    """A hero on foot, seen from behind: where he is, faces and looks, stamina and rolls; an open
    land that repeats, with props standing about. A game adds its rules, pictures, and prop(picture,
    i, x, y)."""

    # metres and pixels of the land, pixels seen beyond its edge
    yard, pixels, margin = 63.0, 1024, 480
    back, aside, eye = 6.0, 1.0, 3.6  # the camera, from the hero
    pace, dash, rolling = 4.2, 8.5, 0.4  # m/s of a walk and a roll, seconds of a roll
    cost = {"roll": 0.22, "sprint": 0.12}  # of stamina; per second for a sprint

    def __init__(self, task, seed, camera):
        super().__init__(task, seed)
        corners = 9 * np.stack(np.meshgrid(np.arange(7), np.arange(7)), -1).reshape(-1, 2)
        self.props = (corners + self.rng.uniform(1, 8, (49, 2)))[1:]
        self.x, self.y = self.rng.uniform(3, 6, 2).tolist()  # where the first prop would be
        self.view = self.facing = float(self.rng.uniform(-3, 3))
        self.stamina, self.stride, self.roll, self.way = 1.0, 0.0, 0.0, (1.0, 0.0)
        self.speed, self.push, self.camera = np.zeros(2), np.zeros(2), camera
        self.look()

    def near(self, x, y):
        """The props from a point, [48, 2]."""
        return (self.props - [x, y] + self.yard / 2) % self.yard - self.yard / 2

    def spot(self, turns, ranges):
        """A free place left or right of where the camera looks -> x, y, its bearing."""
        while True:
            bearing, far = (
                self.view + float(self.rng.uniform(*turns) * self.rng.choice([-1, 1])),
                self.rng.uniform(*ranges),
            )
            x, y = self.x + float(far * np.cos(bearing)), self.y + float(far * np.sin(bearing))
            if np.hypot(*self.near(x, y).T).min() > 2.5:
                return x, y, bearing

    def wish(self, pad):
        """The left stick as a direction in the land."""
        aside, back = unit(pad["LEFT_X"], pad["LEFT_Y"], at_most=1)
        c, s = np.cos(self.view), np.sin(self.view)
        return np.array([-back * c - aside * s, -back * s + aside * c])

    def pay(self, what):
        """Whether there is stamina for it; takes it."""
        able = self.stamina >= self.cost[what]
        self.stamina -= self.cost[what] if able else 0.0
        return able

    def tumble(self, wish):
        """Roll, if EAST has just been pressed and there is stamina for it."""
        if "EAST" in self.fresh and self.roll < -0.15 and self.pay("roll"):
            self.roll, self.way = (
                self.rolling,
                unit(*wish)
                if np.hypot(*wish) > 0.3
                else (np.cos(self.facing), np.sin(self.facing)),
            )

    def walk(self, wish, pace, rest, dt, facing=None):
        """Move the hero. rest: stamina won per second; facing: where he turns, else where he
        goes.
        """
        self.roll, self.stamina = self.roll - dt, float(np.clip(self.stamina + rest * dt, 0, 1))
        self.speed += (pace * wish - self.speed) * min(1, 10 * dt)
        step = np.array(self.way) * self.dash if self.roll > 0 else self.speed
        self.x, self.y = (np.array([self.x, self.y]) + (step + self.push) * dt).tolist()
        self.push *= max(0.0, 1 - 6 * dt)
        self.stride += 3.2 * np.hypot(*self.speed) * dt
        away = self.near(self.x, self.y)
        far = np.hypot(*away.T)
        i = far.argmin()
        if far[i] < 0.6:  # around the props
            self.x, self.y = (
                np.array([self.x, self.y]) - away[i] / (far[i] + 1e-6) * (0.6 - far[i])
            ).tolist()
        if facing is not None or np.hypot(*wish) > 0.2:
            self.facing += turn(
                (np.arctan2(wish[1], wish[0]) if facing is None else facing) - self.facing
            ) * min(1, 14 * dt)
        self.look()

    def look(self):
        c, s = np.cos(self.view), np.sin(self.view)
        self.camera.place(
            self.x - self.back * c - self.aside * s,
            self.y - self.back * s + self.aside * c,
            self.eye,
            self.view,
        )

    def bearing(self, thing):
        return float(np.arctan2(thing["y"] - self.y, thing["x"] - self.x))

    def angle(self, thing):
        """To a thing, from where the camera looks."""
        return turn(self.bearing(thing) - self.view)

    def far(self, thing):
        return float(np.hypot(thing["x"] - self.x, thing["y"] - self.y))

    def faces(self, thing, within=0.8):
        return abs(turn(self.bearing(thing) - self.facing)) < within

    def shove(self, thing, speed):
        """Push the hero away from a thing."""
        self.push = speed * np.array(unit(self.x - thing["x"], self.y - thing["y"]))

    def burst(self, x, y, z, colour, count=16):
        px, py, _ = self.camera.project(x, y, z)
        self.sparks.burst(self.rng, px, py, colour, count, 200)

    def pools(self, strength):
        """Light (or shade, where negative) around the props: float32 [pixels, pixels, 1]."""
        n = self.pixels // 4
        glow = np.zeros((n, n), np.float32)
        places = self.props * n / self.yard
        for (x, y), value in zip(places, strength.tolist(), strict=True):
            cv2.circle(glow, (int(x), int(y)), 9, value, -1)
        glow = cv2.GaussianBlur(
            cv2.copyMakeBorder(glow, 32, 32, 32, 32, cv2.BORDER_WRAP), (0, 0), 7
        )[32:-32, 32:-32]
        return cv2.resize(glow, (self.pixels, self.pixels))[..., None]

    def lay(self, ground):
        """The land from above: float or uint8 [pixels, pixels, 3]."""
        self.ground = cv2.copyMakeBorder(
            np.uint8(np.clip(ground, 0, 255)), *[self.margin] * 4, cv2.BORDER_WRAP
        )

    def paint_land(self, picture):
        self.camera.sky(picture, self.sky)
        self.camera.ground(picture, self.ground, self.yard / self.pixels, self.margin)

    def standing(self, goal=None):
        """The props in sight as things of a scene, but for those that would hide the hero or the
        goal.
        """
        camera, things = self.camera, []
        limit, column = (
            (camera.depth(goal["x"], goal["y"]) + 0.5, camera.project(goal["x"], goal["y"])[0])
            if goal
            else (0, 0)
        )
        places = self.near(self.x, self.y) + [self.x, self.y]
        depth = camera.depth(*places.T)
        for i in np.flatnonzero((depth > self.back - 1) & (depth < 26)):
            x, y = places[i]
            if depth[i] > limit or abs(camera.project(x, y)[0] - column) > 70:
                things.append((x, y, lambda picture, i=i, x=x, y=y: self.prop(picture, i, x, y)))
        return things


# ---- the two sides to which a game can be shown


class SharedFile:
    """The headless side: the file named by NITROGEN_CONSOLE."""

    def __init__(self, path, game, fps):
        offset, layout = HEADER, {}
        for name, (dtype, shape) in FIELDS.items():
            layout[name] = [offset, dtype, shape]
            offset += -(-np.dtype(dtype).itemsize * int(np.prod(shape)) // 64) * 64
        self.path, self.parent = path, os.getppid()
        try:
            with open(path, "r+b") as file:
                file.truncate(offset)
                memory = mmap.mmap(file.fileno(), offset)
        except OSError as error:
            raise SystemExit(
                f"NITROGEN_CONSOLE={path}: {error.strerror}; "
                "it must name an existing, writable file"
            ) from None
        for name, (start, dtype, shape) in layout.items():
            setattr(
                self, name, np.frombuffer(memory, dtype, int(np.prod(shape)), start).reshape(shape)
            )
        self.frame[0] = self.go[0] = 0
        self.gate[0] = int(os.environ.get("NITROGEN_GATE", 0))
        header = {
            "format": "nitrogen.console/1",
            "width": WIDTH,
            "height": HEIGHT,
            "fps": fps,
            "game": game,
            "buttons": BUTTONS,
            "sticks": STICKS,
            "fields": layout,
        }
        memory[:HEADER] = json.dumps(header).encode("ascii").ljust(HEADER)

    def gated(self, frame):
        """Whether the gate is closed; if so, returns when frame may be computed."""
        for polls in itertools.count(1):
            if self.gate[0] != 1:
                return False
            if self.go[0] > frame:
                return True
            if polls % 1000 == 0 and not self.alive(0):
                raise SystemExit
            time.sleep(0.0005)

    def pad(self):
        return Pad(self.pad_buttons, self.pad_sticks)

    def show(self, picture, score, seconds):
        text = json.dumps(score).encode()
        self.picture[:] = picture
        self.score[:] = np.frombuffer(text.ljust(len(self.score), b"\0"), np.uint8)
        self.time[0] = seconds
        self.frame[0] += 1

    def alive(self, frame):
        """False when the file has been removed or the parent process has gone; looks every 60
        frames.
        """
        return frame % 60 > 0 or os.path.exists(self.path) and os.getppid() == self.parent


class Window:
    """A person's side: a window, keyboard, gamepad."""

    KEYS = {
        "arrows": "left stick",
        "w a s d": "right stick",
        "space": "SOUTH",
        "c": "EAST",
        "x": "WEST",
        "v": "NORTH",
        "q": "LEFT_SHOULDER",
        "e": "RIGHT_SHOULDER",
        "left shift": "LEFT_TRIGGER",
        "left ctrl": "RIGHT_TRIGGER",
        "f": "LEFT_THUMB",
        "g": "RIGHT_THUMB",
        "i": "DPAD_UP",
        "j": "DPAD_LEFT",
        "k": "DPAD_DOWN",
        "l": "DPAD_RIGHT",
        "backspace": "BACK",
        "return": "START",
    }
    PAD = (
        "SOUTH",
        "EAST",
        "WEST",
        "NORTH",
        "LEFT_SHOULDER",
        "RIGHT_SHOULDER",
        "BACK",
        "START",
        # Linux has the guide button there
        *([""] if sys.platform == "linux" else []),
        "LEFT_THUMB",
        "RIGHT_THUMB",
    )

    def __init__(self, title, doc):
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame

            pygame.display.init()  # not pygame.init(): it would open the sound card
        except ImportError:
            raise SystemExit(
                "a window needs pygame: pip install pygame "
                "(or play headless through NITROGEN_CONSOLE)"
            ) from None
        except pygame.error as e:
            raise SystemExit(f"no window can be opened here: {e}") from None
        # SDL's last resort, which nobody sees
        if (
            pygame.display.get_driver() in ("offscreen", "dummy")
            and "SDL_VIDEODRIVER" not in os.environ
        ):
            raise SystemExit(
                "no window can be opened here: there is no display (DISPLAY or WAYLAND_DISPLAY)"
            )
        self.pygame, self.open = pygame, True
        pygame.joystick.init()
        self.screen = pygame.display.set_mode((2 * WIDTH, 2 * HEIGHT))
        pygame.display.set_caption(title)
        self.joystick = pygame.joystick.Joystick(0) if pygame.joystick.get_count() else None
        print(doc, *(f"  {key:12} {name}" for key, name in self.KEYS.items()), sep="\n")

    def gated(self, frame):
        return False

    def pad(self):
        pygame = self.pygame
        self.open &= not any(event.type == pygame.QUIT for event in pygame.event.get())
        down = pygame.key.get_pressed()

        def key(name):
            return bool(down[pygame.key.key_code(name)])

        held = {name for code, name in self.KEYS.items() if name in BUTTONS and key(code)}
        sticks = [
            key("right") - key("left"),
            key("down") - key("up"),
            key("d") - key("a"),
            key("s") - key("w"),
        ]
        if self.joystick:
            held |= {
                name
                for i, name in enumerate(self.PAD)
                if i < self.joystick.get_numbuttons() and self.joystick.get_button(i)
            }
            for x, y in map(self.joystick.get_hat, range(self.joystick.get_numhats())):
                ways = (y > 0, y < 0, x < 0, x > 0)
                held |= {name for name, on in zip(BUTTONS[:4], ways, strict=True) if on}
            axes = [self.joystick.get_axis(i) for i in range(self.joystick.get_numaxes())] + [
                0.0
            ] * 6
            if len(axes) >= 12:  # six axes: the triggers are 2 and 5
                held |= {
                    name for i, name in ((2, "LEFT_TRIGGER"), (5, "RIGHT_TRIGGER")) if axes[i] > 0
                }
                axes = axes[0:2] + axes[3:5]
            pairs = zip(axes, sticks, strict=False)
            sticks = [a if abs(a) > 0.15 else k for a, k in pairs]
        return Pad([name in held for name in BUTTONS], sticks)

    def show(self, picture, score, seconds):
        height, width = picture.shape[:2]
        size = 2 * HEIGHT * width // height, 2 * HEIGHT
        if self.screen.get_size() != size:  # a game of another shape
            self.screen = self.pygame.display.set_mode(size)
        surface = self.pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self.screen.blit(self.pygame.transform.scale(surface, self.screen.get_size()), (0, 0))
        self.pygame.display.flip()

    def alive(self, frame):
        return self.open


# ---- the loop


def main(Game, tasks, doc):
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(tasks), default=next(iter(tasks)))
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
    parser.add_argument("--fps", type=int, default=60, help="frames per second")
    args = parser.parse_args()
    game = Game(args.task, args.seed)
    path = os.environ.get("NITROGEN_CONSOLE")
    screen = (
        SharedFile(path, Game.name, args.fps)
        if path
        else Window(f"{Game.name}: {tasks[args.task].goal}", doc)
    )
    try:
        play(game, screen, args.fps)
    except KeyboardInterrupt:
        pass


def play(game, screen, fps):
    """Frame after frame, until the window, the file or the parent process has gone."""
    start, tick, last, seconds = time.monotonic(), 0, 0.0, 0.0
    for frame in itertools.count():
        if not screen.alive(frame):
            return
        if screen.gated(frame):
            # as the clock below would tell it
            dt = round((frame + 1) / fps, 6) - round(frame / fps, 6)
            start, tick, last = time.monotonic(), 0, 0.0
        else:
            now = time.monotonic() - start
            # a late frame skips ticks; the sleep is always positive
            tick = max(tick + 1, int(now * fps) + 1)
            time.sleep(tick / fps - now)
            # whole microseconds: the same wherever the clock began
            now = round(time.monotonic() - start, 6)
            dt, last = min(now - last, SLOWEST), now
        seconds += dt
        game.step(screen.pad(), dt)
        screen.show(game.draw(), game.score(), seconds)
