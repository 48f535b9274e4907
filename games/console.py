"""The tiny console under the built-in games: clock, gamepad, screen, and the few things all games share.

A game is an ordinary program. It reads the system clock, moves its world by the elapsed time, reads a gamepad and draws
480 x 270 RGB frames:

    python games/ridge.py [--task NAME] [--seed N] [--fps 60]       a window for a person (pip install pygame)
    NITROGEN_CONSOLE=FILE python games/ridge.py ...                 headless: pad in, picture and score out through FILE

FILE exists already; the game sizes and maps it. Its first 4096 bytes are a JSON header, written last and padded with
spaces: {"format": "nitrogen.console/1", "width", "height", "fps", "game", "buttons", "sticks", "fields": {name: [offset,
dtype, shape]}}. The other side writes pad_buttons, pad_sticks, gate and go; the game writes the rest:

    pad_buttons u1 [16]    0 or 1, in the order of BUTTONS      frame   <u8 [1]            frames presented so far
    pad_sticks  <f4 [4]    [-1, 1], y down                      time    <f8 [1]            game seconds since the start
    gate        <u4 [1]    1: frames wait for `go`              score   u1 [8192]          JSON, padded with zero bytes
    go          <u8 [1]    frame i is computed when go > i      picture u1 [270, 480, 3]   RGB

Frame i: wait for tick i, read the pad, move, draw, write picture, score and time, and last of all set frame = i + 1.
With gate 0 the clock is time.monotonic() and every frame makes exactly one time.sleep(), so that whoever controls the
clock controls the game. With gate 1 (for where the clock cannot be controlled) each frame lasts 1 / fps.
NITROGEN_GATE=1 closes the gate before the first frame.

A game file has TASKS: {name: Task}; Game(task, seed), a World; Expert(seed), called with the score 30 times a second;
and ends in console.main(Game, TASKS, __doc__).
"""

import argparse
import itertools
import json
import mmap
import os
import time
from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(0)

BUTTONS = ("DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT", "SOUTH", "EAST", "WEST", "NORTH", "LEFT_SHOULDER",
           "RIGHT_SHOULDER", "LEFT_TRIGGER", "RIGHT_TRIGGER", "LEFT_THUMB", "RIGHT_THUMB", "BACK", "START")
STICKS = ("LEFT_X", "LEFT_Y", "RIGHT_X", "RIGHT_Y")
WIDTH, HEIGHT = 480, 270
HEADER = 4096                                 # bytes
FIELDS = {"pad_buttons": ("u1", [16]), "pad_sticks": ("<f4", [4]), "gate": ("<u4", [1]), "go": ("<u8", [1]),
          "frame": ("<u8", [1]), "time": ("<f8", [1]), "score": ("u1", [8192]), "picture": ("u1", [HEIGHT, WIDTH, 3])}
SLOWEST = 0.1                                 # s, the most that one frame may move the world
HEARTS = 5
TILE, ROCK, LEDGE = 32, 1, 2                  # px a side; kinds of tile for Body


# ---- the gamepad

class Pad:
    """One reading of the gamepad: pad["SOUTH"] is a bool, pad["LEFT_X"] a float in [-1, 1], y down."""

    def __init__(self, buttons=(0,) * 16, sticks=(0,) * 4):
        self.state = {name: bool(value) for name, value in zip(BUTTONS, buttons)}
        for name, value in zip(STICKS, sticks):
            self.state[name] = min(1.0, max(-1.0, float(value))) if value == value else 0.0

    def __getitem__(self, name):
        return self.state[name]

    def left(self):
        """(x, y) of the left stick, or of the d-pad where that is pressed; within the unit circle."""
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
    goal: str                                 # one sentence
    category: str                             # combat | navigation | specific
    seconds: float                            # time limit, game seconds


class World:
    """A task, a seed, the time, hearts and progress. A game adds move(pad, dt), paint() and state()."""

    name, tasks, icons = "", {}, {}           # icons: the sprite in the corner that shows the goal, by task

    def __init__(self, task, seed):
        self.task, self.limit = task, self.tasks[task].seconds
        self.rng = np.random.default_rng([abs(seed), list(self.tasks).index(task)])
        self.time, self.progress, self.over = 0.0, 0.0, False
        self.hearts, self.stun, self.safe = HEARTS, 0.0, 0.0    # stun, safe: seconds left dazed, unhurtable
        self.sparks, self.before, self.fresh = Sparks(), Pad(), set()

    def step(self, pad, dt):
        """Move the world by dt seconds, in slices of about 1/60 s so that the frame rate hardly matters."""
        self.fresh = {name for name in BUTTONS if pad[name] and not self.before[name]}      # pressed just now
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
        """Lose a heart; without hearts, lie dazed for a while and get up with new ones: a mistake costs time."""
        if self.safe <= 0:
            self.hearts -= 1
            self.stun, self.safe = (0.35, 1.2) if self.hearts else (1.5, 2.5)
            self.hearts = self.hearts or HEARTS

    def score(self):
        return {"game": self.name, "task": self.task, "time": round(self.time, 4), "progress": round(self.progress, 4),
                "success": self.progress >= 1, "over": self.over, "state": self.state()}

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
            text, colour = ("CLEAR!", (120, 255, 140)) if self.progress >= 1 else ("TIME OUT", (255, 120, 110))
            x = WIDTH // 2 - 22 * len(text)
            cv2.putText(picture, text, (x, 150), cv2.FONT_HERSHEY_DUPLEX, 2.2, (0, 0, 0), 9)
            cv2.putText(picture, text, (x, 150), cv2.FONT_HERSHEY_DUPLEX, 2.2, colour, 3)
        return picture


class Body:
    """A box that runs and falls among tiles, uint8 [rows, columns]: ROCK stops it, a LEDGE only from above.
    x at its middle, y at its feet, in px and px/s."""

    def __init__(self, x, y, half, tall):
        self.x, self.y, self.half, self.tall, self.vx, self.vy, self.ground = x, y, half, tall, 0.0, 0.0, True

    def blocked(self, tiles, x, y, tall):
        """Whether there is rock where the box would be."""
        columns = slice(int((x - self.half) // TILE), int((x + self.half) // TILE) + 1)
        return bool((tiles[max(0, int((y - tall) // TILE)):int((y - 0.01) // TILE) + 1, columns] == ROCK).any())

    def move(self, tiles, gravity, dt, drop=False):
        """drop: fall through ledges."""
        x, y = self.x + self.vx * dt, self.y
        if self.blocked(tiles, x, y, self.tall):
            side = 1 if self.vx > 0 else -1
            x, self.vx = ((x + side * self.half) // TILE + (side < 0)) * TILE - side * (self.half + 0.01), 0.0
        self.vy += gravity * dt
        self.x, self.y = x, y + self.vy * dt
        row = int(min(max(self.y // TILE, 0), len(tiles) - 1))
        feet = tiles[row, int((x - self.half) // TILE):int((x + self.half) // TILE) + 1]
        self.ground = self.vy >= 0 and bool((feet == ROCK).any() or not drop and y <= row * TILE + 1 and (feet == LEDGE).any())
        if self.ground:
            self.y, self.vy = row * TILE, 0.0
        elif self.vy < 0 and self.blocked(tiles, x, self.y, self.tall):
            self.y, self.vy = y, 0.0


class Hands:
    """What an expert wants -> what thumbs do: sticks move by a low-pass, presses last a few frames; some style by seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([abs(seed), 99])
        self.quick, self.least = self.rng.uniform(0.4, 0.6), int(self.rng.integers(3, 5))   # per frame; frames
        self.buttons, self.age, self.sticks = np.zeros(16, np.uint8), np.full(16, 99), np.zeros(4, np.float32)

    def __call__(self, left=(0, 0), right=(0, 0), hold=(), tap=()):
        """hold: buttons to keep down. tap: buttons to press and let go, again and again. -> u8 [16], float32 [4]."""
        self.sticks += np.float32(self.quick) * (np.float32([*left, *right]).clip(-1, 1) - self.sticks)
        for i, name in enumerate(BUTTONS):
            want = name in hold or name in tap and not self.buttons[i]
            flip = want != self.buttons[i] and self.age[i] >= self.least
            self.buttons[i] ^= flip
            self.age[i] = 0 if flip else self.age[i] + 1
        return self.buttons.copy(), self.sticks.copy()


# ---- drawing

def sprite(width, height, *shapes):
    """A small picture and its mask, from shapes painted one over the other, in pixels:
    (colour, x, y, rx, ry) an ellipse, (colour, [(x, y), ...]) a polygon. -> uint8 [h, w, 3], uint8 [h, w]."""
    big = np.zeros((height * 4, width * 4, 4), np.uint8)
    for colour, *shape in shapes:
        if len(shape) == 1:
            cv2.fillPoly(big, [np.int32(np.array(shape[0]) * 4)], (*colour, 255))
        else:
            x, y, rx, ry = (int(v * 4) for v in shape)
            cv2.ellipse(big, (x, y), (rx, ry), 0, 0, 360, (*colour, 255), -1)
    small = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)      # black shines through: a dark outline
    return np.ascontiguousarray(small[..., :3]), np.ascontiguousarray((small[..., 3] > 100).astype(np.uint8))


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
        cv2.copyTo(rgb[y0:y1, x0:x1], mask[y0:y1, x0:x1], picture[top + y0:top + y1, left + x0:left + x1])


def bar(picture, x, y, width, height, part, colour):
    cv2.rectangle(picture, (x - 1, y - 1), (x + width, y + height), (16, 16, 24), -1)
    if part > 0:
        cv2.rectangle(picture, (x, y), (x + int((width - 1) * min(part, 1)), y + height - 1), colour, -1)


def gradient(width, height, *colours):
    """Vertical colour gradient, uint8 [height, width, 3]."""
    return cv2.resize(np.uint8(colours)[:, None], (width, height), interpolation=cv2.INTER_LINEAR)


def noise(rng, height, width, cell, wrap=False):
    """Smooth noise in [0, 1], float32 [height, width], features about `cell` pixels; `wrap`: the edges fit together."""
    grid = rng.random((-(-height // cell), -(-width // cell)), dtype=np.float32)
    grid = np.pad(grid, 2, mode="wrap" if wrap else "edge")
    large = cv2.resize(grid, (grid.shape[1] * cell, grid.shape[0] * cell), interpolation=cv2.INTER_CUBIC)
    return large[2 * cell:, 2 * cell:][:height, :width].clip(0, 1)


def lit(picture, ambient, lights):
    """The picture under a dim light of that colour and round lights [(x, y, radius, colour), ...]; 210 is as it was painted."""
    y, x = np.ogrid[2:HEIGHT + 2:4, 2:WIDTH:4]                  # a quarter of the size is enough
    light = np.full((y.size, x.size, 3), ambient, np.float32)
    for cx, cy, radius, colour in lights:
        near = 1 / (1 + (np.float32((x - cx) ** 2) + np.float32((y - cy) ** 2)) / np.float32(radius ** 2)) ** 2
        light += near[..., None] * np.float32(colour)
    light = cv2.resize(np.uint8(light.clip(0, 255)), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(picture, light, scale=1 / 210)


def flakes(picture, points, x, y, colour, tall=2):
    """Snow, dust, leaves or rain: points [n, 3] hold x, y and nearness in [0, 1]; x, y: how far the near ones have drifted."""
    drift = 0.4 + 0.6 * points[:, 2]
    columns, rows = np.int32((points[:, 0] + x * drift) % (WIDTH - 1)), np.int32((points[:, 1] + y * drift) % (HEIGHT - tall))
    for i in range(tall):
        picture[rows + i, columns] = picture[rows + i, columns + 1] = colour


class Sparks:
    """Particles: little squares that fly, fall and vanish."""

    def __init__(self):
        self.list = []                        # [x, y, vx, vy, seconds left, colour]

    def burst(self, rng, x, y, colour, count=14, speed=140):
        for angle, v, life in zip(rng.uniform(0, 6.28, count), rng.uniform(0.3, 1, count), rng.uniform(0.2, 0.6, count)):
            self.list.append([x, y, speed * v * np.cos(angle), speed * v * np.sin(angle) - 40, life, colour])

    def step(self, dt):
        for s in self.list:
            s[0], s[1], s[3], s[4] = s[0] + s[2] * dt, s[1] + s[3] * dt, s[3] + 260 * dt, s[4] - dt
        self.list = [s for s in self.list if s[4] > 0][-80:]

    def draw(self, picture, left=0, top=0):
        for x, y, _, _, life, colour in self.list:
            x, y, r = int(x - left), int(y - top), 1 + int(life * 6)
            cv2.rectangle(picture, (x - r, y - r), (x + r, y + r), colour, -1)


HEART = sprite(18, 16, ((235, 60, 80), 5, 5, 4, 4), ((235, 60, 80), 13, 5, 4, 4), ((235, 60, 80), [(1, 7), (17, 7), (9, 15)]))


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
            raise SystemExit(f"NITROGEN_CONSOLE={path}: {error.strerror}; it must name an existing, writable file")
        for name, (start, dtype, shape) in layout.items():
            setattr(self, name, np.frombuffer(memory, dtype, int(np.prod(shape)), start).reshape(shape))
        self.frame[0] = self.go[0] = 0
        self.gate[0] = int(os.environ.get("NITROGEN_GATE", 0))
        header = {"format": "nitrogen.console/1", "width": WIDTH, "height": HEIGHT, "fps": fps, "game": game,
                  "buttons": BUTTONS, "sticks": STICKS, "fields": layout}
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
        """False when the file has been removed or the parent process has gone; looks every 60 frames."""
        return frame % 60 > 0 or os.path.exists(self.path) and os.getppid() == self.parent


class Window:
    """A person's side: a window, keyboard, gamepad."""

    KEYS = {"arrows": "left stick", "w a s d": "right stick", "space": "SOUTH", "c": "EAST", "x": "WEST", "v": "NORTH",
            "q": "LEFT_SHOULDER", "e": "RIGHT_SHOULDER", "left shift": "LEFT_TRIGGER", "left ctrl": "RIGHT_TRIGGER",
            "f": "LEFT_THUMB", "g": "RIGHT_THUMB", "i": "DPAD_UP", "j": "DPAD_LEFT", "k": "DPAD_DOWN", "l": "DPAD_RIGHT",
            "backspace": "BACK", "return": "START"}
    PAD = ("SOUTH", "EAST", "WEST", "NORTH", "LEFT_SHOULDER", "RIGHT_SHOULDER", "BACK", "START", "LEFT_THUMB", "RIGHT_THUMB")

    def __init__(self, title, doc):
        try:
            import pygame
        except ImportError:
            raise SystemExit("a window needs pygame: pip install pygame (or play headless through NITROGEN_CONSOLE)")
        self.pygame, self.open = pygame, True
        pygame.display.init()                 # not pygame.init(): it would open the sound card
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
        key = lambda name: bool(down[pygame.key.key_code(name)])
        held = {name for code, name in self.KEYS.items() if name in BUTTONS and key(code)}
        sticks = [key("right") - key("left"), key("down") - key("up"), key("d") - key("a"), key("s") - key("w")]
        if self.joystick:
            held |= {name for i, name in enumerate(self.PAD) if i < self.joystick.get_numbuttons() and self.joystick.get_button(i)}
            for x, y in map(self.joystick.get_hat, range(self.joystick.get_numhats())):
                held |= {name for name, on in zip(BUTTONS, (y > 0, y < 0, x < 0, x > 0)) if on}
            axes = [self.joystick.get_axis(i) for i in range(self.joystick.get_numaxes())] + [0.0] * 6
            if len(axes) >= 12:               # six axes: the triggers are 2 and 5
                held |= {name for i, name in ((2, "LEFT_TRIGGER"), (5, "RIGHT_TRIGGER")) if axes[i] > 0}
                axes = axes[0:2] + axes[3:5]
            sticks = [a if abs(a) > 0.15 else k for a, k in zip(axes, sticks)]
        return Pad([name in held for name in BUTTONS], sticks)

    def show(self, picture, score, seconds):
        surface = self.pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        self.screen.blit(self.pygame.transform.scale(surface, self.screen.get_size()), (0, 0))
        self.pygame.display.flip()

    def alive(self, frame):
        return self.open


# ---- the loop

def main(Game, tasks, doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(tasks), default=next(iter(tasks)))
    parser.add_argument("--seed", type=int, default=0, help="another seed, another world")
    parser.add_argument("--fps", type=int, default=60, help="frames per second")
    args = parser.parse_args()
    game = Game(args.task, args.seed)
    path = os.environ.get("NITROGEN_CONSOLE")
    screen = SharedFile(path, Game.name, args.fps) if path else Window(f"{Game.name}: {tasks[args.task].goal}", doc)
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
            dt = round((frame + 1) / fps, 6) - round(frame / fps, 6)            # as the clock below would tell it
            start, tick, last = time.monotonic(), 0, 0.0
        else:
            now = time.monotonic() - start
            tick = max(tick + 1, int(now * fps) + 1)            # a late frame skips ticks; the sleep is always positive
            time.sleep(tick / fps - now)
            now = round(time.monotonic() - start, 6)            # whole microseconds: the same wherever the clock began
            dt, last = min(now - last, SLOWEST), now
        seconds += dt
        game.step(screen.pad(), dt)
        screen.show(game.draw(), game.score(), seconds)
