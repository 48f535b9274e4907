"""Ruins: exploring a city in the desert, first person, drawn by casting rays.

    python games/ruins.py [--task wraiths|path|braziers] [--seed N]

Left stick: walk. Right stick: look. LEFT_THUMB, held: run. RIGHT_TRIGGER, held: throw light.
LEFT_TRIGGER, held: open the lantern. SOUTH, held: break a seal.
"""

from itertools import pairwise

import console
import cv2
import numpy as np
from console import (
    HEIGHT,
    WIDTH,
    Camera,
    Hands,
    Task,
    World,
    bar,
    gradient,
    maze,
    noise,
    pointer,
    sprite,
    stamp,
    tint,
    turn,
    unit,
)

TASKS = {
    "wraiths": Task("Banish twelve wraiths with light.", "combat", 28),
    "path": Task("Follow the wisp through eight sealed doors to the obelisk.", "navigation", 36),
    "braziers": Task("Light ten braziers with the lantern.", "specific", 30),
}
WRAITHS, ROOMS, BRAZIERS = 12, 8, 10
# tiles and seconds from here on; a tile is about 2 m
WALK, RUN, LOOK, NOD = 2.2, 3.2, 2.6, 0.9  # speeds; rad/s across, slope/s up and down
EYE, WALL, BODY = 0.5, 1.15, 0.22  # heights; half the width of the hero
BOLT, RELOAD, HIT = 9.0, 0.16, 0.3  # speed of light, pause between throws, radius of a wraith
WRAITH_HP, HEAL = 4, 1.2  # hits; seconds after which a wounded wraith is well
SEAL, KINDLE = 0.4, 0.5  # seconds of SOUTH, of lantern
GRID, PITCH = 5, 5  # rooms a side, tiles from room to room
SIGHT, SHADES, CELL = 15, 24, 64  # tiles, steps of haze, texture pixels of a tile
MIDDLE = 128  # the row of the cross-hair

# ---- sprites

GOLD, TEAL, DARK, WHITE, SAND = (
    (255, 214, 90),
    (40, 235, 225),
    (34, 22, 26),
    (255, 255, 255),
    (222, 178, 118),
)
GHOST, ROBE = (190, 120, 255), (92, 40, 150)
WRAITH = [
    sprite(
        84,
        110,
        (
            ROBE,
            [
                (14, 40),
                (70, 40),
                (78 - s, 108),
                (60, 92),
                (48 + s, 108),
                (34, 94),
                (18 + s, 108),
                (6 + s, 90),
            ],
        ),
        (ROBE, 42, 40, 31, 38),
        (GHOST, 42, 38, 27, 33),
        ((30, 12, 56), 42, 42, 19, 22),
        ((255, 250, 120), 34, 38, 5, 7),
        ((255, 250, 120), 51, 38, 5, 7),
        (GHOST, 8 + s, 62, 8, 12),
        (GHOST, 76 - s, 62, 8, 12),
    )
    for s in (0, 8)
]
BOWL = [
    ((96, 62, 50), [(22, 60), (42, 60), (50, 118), (14, 118)]),
    ((140, 96, 70), [(24, 60), (32, 60), (28, 118), (18, 118)]),
    ((70, 46, 44), [(4, 44), (60, 44), (48, 66), (16, 66)]),
    ((170, 120, 84), [(2, 40), (62, 40), (60, 47), (4, 47)]),
]
COLD = sprite(64, 120, *BOWL, ((30, 150, 160), 32, 40, 24, 5))
FIRE = [
    sprite(
        64,
        120,
        *BOWL,
        (
            (255, 90, 20),
            [(10, 42), (16 + s, 18), (24, 26), (32 + s, 0), (42, 24), (50 - s, 14), (54, 42)],
        ),
        ((255, 200, 60), [(18, 42), (26, 24), (32 + s, 14), (40, 28), (46, 42)]),
        (WHITE, 32, 38, 7, 5),
    )
    for s in (-4, 4)
]
WISP = sprite(
    40, 40, ((10, 110, 120), 20, 20, 19, 19), (TEAL, 20, 20, 15, 15), (WHITE, 18, 17, 8, 8)
)
OBELISK = sprite(
    70,
    190,
    ((60, 44, 60), [(12, 20), (35, 0), (58, 20), (68, 190), (2, 190)]),
    ((110, 84, 96), [(15, 22), (34, 4), (34, 190), (6, 190)]),
    *((TEAL, [(28, y), (42, y), (42, y + 12), (28, y + 12)]) for y in (40, 70, 100, 130)),
)
BALL = sprite(26, 26, ((255, 190, 40), 13, 13, 12, 12), ((255, 250, 200), 12, 12, 8, 8))
STAFF = sprite(
    120,
    110,
    (DARK, [(60, 110), (30, 24), (40, 20), (92, 110)]),
    ((150, 96, 56), [(66, 110), (33, 26), (38, 23), (84, 110)]),
    ((205, 150, 110), 74, 96, 24, 18),
    ((120, 60, 50), [(52, 110), (60, 98), (104, 92), (118, 110)]),
    (GOLD, 34, 18, 14, 14),
    (WHITE, 31, 15, 6, 6),
)
LANTERN = [
    sprite(
        90,
        110,
        ((120, 60, 50), [(0, 2), (34, 8), (34, 26), (0, 40)]),
        ((205, 150, 110), 42, 18, 15, 12),
        (DARK, [(38, 22), (50, 22), (50, 40), (38, 40)]),
        (DARK, [(20, 34), (68, 34), (62, 104), (26, 104)]),
        (glass, [(27, 44), (61, 44), (57, 94), (31, 94)]),
        (light, 44, 72, 10, 15),
        (DARK, [(41, 40), (47, 40), (47, 98), (41, 98)]),
    )
    for glass, light in (((70, 80, 84), (110, 110, 90)), (GOLD, WHITE))
]
GLOW = np.uint8(
    np.float32([90, 66, 20])
    * np.clip(1 - np.hypot(*np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 200))), 0, 1)[
        ..., None
    ]
)


def icon(sprite):
    return tuple(cv2.resize(part, (24, 30), interpolation=cv2.INTER_NEAREST) for part in sprite)


# ---- the city: a grid, 0 free, else which texture

STONE, CARVED, MOSSY, SEALED = 1, 2, 3, 4


def square(rng):
    """An open square with pillars that stand apart from each other and from its middle."""
    walls = np.pad(np.zeros((17, 17), int), 1, constant_values=STONE)
    for row, column in rng.permutation([(r, c) for r in (3, 6, 12, 15) for c in (3, 6, 9, 12, 15)])[
        :9
    ]:
        walls[row, column] = CARVED
    return walls


def rooms(rng):
    """A winding route from room to room -> walls, the doors on the route [(middle, way), ...],
    first and last room's middle.
    """
    route = maze(rng, GRID, ROOMS)
    walls, doors = np.zeros((GRID * PITCH + 1, GRID * PITCH + 1), int), []
    walls[::PITCH] = walls[:, ::PITCH] = STONE
    for a, b in pairwise(route):
        way = np.subtract(b, a)  # (x, y)
        tile = np.multiply(a, PITCH) + np.where(
            way > 0, PITCH, np.where(way < 0, 0, rng.integers(1, PITCH))
        )
        walls[tile[1], tile[0]] = SEALED
        doors.append((tile + 0.5, way))
    return walls, doors, *(np.multiply(route[i], PITCH) + (PITCH + 1) / 2 for i in (0, -1))


class Game(World):
    name, genre, tasks = "ruins", "open world", TASKS
    icons = {"wraiths": icon(WRAITH[0]), "path": WISP, "braziers": icon(FIRE[0])}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        rng = self.rng
        self.walls, self.doors, start, self.goal = (
            rooms(rng) if task == "path" else (square(rng), [], (9.5, 9.5), None)
        )
        self.x, self.y = (np.array(start) + rng.uniform(-0.8, 0.8, 2)).tolist()
        self.heading = float(rng.uniform(-3, 3))
        if task == "path":  # with the back to the door, more or less
            self.heading = float(
                np.arctan2(*(self.doors[0][0] - start)[::-1])
                + rng.uniform(1.2, 2.6) * rng.choice([-1, 1])
            )
        self.slope, self.speed, self.push, self.next_gust = 0.0, np.zeros(2), np.zeros(2), 2.0
        self.reload, self.bolts, self.count, self.work, self.held = 0.0, [], 0, 0.0, set()
        self.lit = []  # braziers that burn
        self.thing = None if task == "path" else self.spawn()  # the wraith, or the brazier
        self.camera = Camera(np.radians(74), MIDDLE, (238, 206, 160), 9)
        self.look()
        self.scenery(np.random.default_rng(abs(seed)))

    def blocked(self, x, y, half=BODY):
        return any(self.walls[int(y + v), int(x + u)] for u in (-half, half) for v in (-half, half))

    def spawn(self):
        """A wraith or a brazier, left or right of where the hero looks, with no wall in between."""
        for spread in np.r_[np.full(200, 1.0), np.linspace(1, 3, 2000)]:
            angle = self.heading + spread * self.rng.uniform(0.35, 1.0) * self.rng.choice([-1, 1])
            far = self.rng.uniform(3, 5.5) / spread**0.5
            way = [
                (self.x + far * f * np.cos(angle), self.y + far * f * np.sin(angle))
                for f in np.arange(1, 13) / 12
            ]
            inside = 1.6 < way[-1][0] < 17.4 and 1.6 < way[-1][1] < 17.4
            if inside and not any(self.blocked(*at, 0.35) for at in way):
                break
        return {
            "x": way[-1][0],
            "y": way[-1][1],
            "z": self.rng.uniform(0.35, 0.85),
            "hp": WRAITH_HP,
            "well": 0.0,
            "phase": self.rng.uniform(0, 6.28),
        }

    # ---- the world

    def move(self, pad, dt):
        awake = self.stun <= 0
        aside, back = unit(pad["LEFT_X"], pad["LEFT_Y"], at_most=1) if awake else (0.0, 0.0)
        self.heading += LOOK * pad["RIGHT_X"] * dt
        self.slope = float(np.clip(self.slope - NOD * pad["RIGHT_Y"] * dt, -0.3, 0.3))
        if self.time > self.next_gust:  # a gust shoves the hero
            angle = self.rng.uniform(0, 2 * np.pi)
            self.push = 2.4 * np.array([np.cos(angle), np.sin(angle)])
            self.next_gust = self.time + self.rng.uniform(1.5, 3)
        c, s = np.cos(self.heading), np.sin(self.heading)
        wish = (RUN if pad["LEFT_THUMB"] else WALK) * np.array(
            [-back * c - aside * s, -back * s + aside * c]
        )
        self.speed += (wish - self.speed) * min(1, 10 * dt)
        self.slide(*((self.speed + self.push) * dt))
        self.push *= max(0.0, 1 - 5 * dt)
        self.reload -= dt
        self.held = {
            name for name in ("SOUTH", "LEFT_TRIGGER", "RIGHT_TRIGGER") if pad[name] and awake
        }
        if "RIGHT_TRIGGER" in self.held and self.reload <= 0:
            self.reload = RELOAD
            self.bolts.append([self.x + 0.2 * c, self.y + 0.2 * s, EYE, c, s, self.slope, 0.8])
        self.look()
        getattr(self, self.task)(dt)

    def look(self):
        self.camera.place(self.x, self.y, EYE, self.heading)
        self.camera.horizon = MIDDLE + self.camera.focal * self.slope

    def slide(self, dx, dy):
        if not self.blocked(self.x + dx, self.y):
            self.x += float(dx)
        if not self.blocked(self.x, self.y + dy):
            self.y += float(dy)

    def burst(self, x, y, z, colour, count=24):
        px, py, _ = self.camera.project(x, y, z)
        self.sparks.burst(self.rng, px, py, colour, count, 220)

    def wraiths(self, dt):
        wraith = self.thing
        dx, dy = self.x - wraith["x"], self.y - wraith["y"]
        far = np.hypot(dx, dy) + 1e-6
        sway = 0.9 * np.sin(2.2 * self.time + wraith["phase"])
        wraith["x"] += float((dx - sway * dy) / far * 0.85 * dt)
        wraith["y"] += float((dy + sway * dx) / far * 0.85 * dt)
        wraith["well"] -= dt
        if wraith["well"] <= 0:
            wraith["hp"] = WRAITH_HP
        for bolt in self.bolts:
            bolt[:3] = (p + BOLT * v * dt for p, v in zip(bolt[:3], bolt[3:6], strict=True))
            bolt[6] -= dt
            if (
                np.hypot(bolt[0] - wraith["x"], bolt[1] - wraith["y"]) < HIT
                and abs(bolt[2] - wraith["z"]) < HIT
            ):
                self.burst(*bolt[:3], GOLD, 8)
                wraith["hp"], wraith["well"], bolt[6] = wraith["hp"] - 1, HEAL, 0.0
        self.bolts = [
            bolt
            for bolt in self.bolts
            if bolt[6] > 0 and 0 < bolt[2] and not self.blocked(bolt[0], bolt[1], 0.01)
        ]
        if wraith["hp"] <= 0:
            self.burst(wraith["x"], wraith["y"], wraith["z"], GHOST)
            self.count += 1
        if far < 0.6:
            self.hurt()
        if wraith["hp"] <= 0 or far < 0.6 or far > 8:
            self.thing = self.spawn()
        self.reached((self.count + (1 - self.thing["hp"] / WRAITH_HP) * 0.5) / WRAITHS)

    def path(self, dt):
        self.bolts = []
        if self.count == len(self.doors):
            if np.hypot(*(self.goal - [self.x, self.y])) < 1:
                self.reached(1)
            return
        middle, way = self.doors[self.count]
        tile, away = (int(middle[1]), int(middle[0])), middle - [self.x, self.y]
        facing = abs(turn(np.arctan2(away[1], away[0]) - self.heading)) < 0.6
        if self.walls[tile] and "SOUTH" in self.held and np.hypot(*away) < 1.7 and facing:
            self.work += dt / SEAL
            if self.work > 1:
                self.walls[tile] = 0
                self.burst(*middle, 0.5, TEAL, 40)
        if -away @ way > 0.75:  # through: it closes behind the hero
            self.walls[tile], self.count, self.work = STONE, self.count + 1, 0.0
        self.reached((self.count + 0.4 * min(self.work, 1)) / (ROOMS + 0.5))

    def braziers(self, dt):
        self.bolts, (angle, _, far) = [], self.target()
        if "LEFT_TRIGGER" in self.held and far < 1.7 and abs(angle) < 0.3:
            self.work += dt / KINDLE
        else:
            self.work = max(0.0, self.work - dt)
        if self.work > 1:
            self.burst(self.thing["x"], self.thing["y"], 0.7, (255, 160, 40), 30)
            self.lit.append((self.thing["x"], self.thing["y"]))
            self.count, self.work, self.thing = self.count + 1, 0.0, self.spawn()
        elif far > 8:
            self.thing = self.spawn()
        self.reached((self.count + 0.5 * self.work) / BRAZIERS)

    def beacon(self):
        """Where the wisp hovers: before the door in its middle line, and once the door is open
        behind it.
        """
        if self.count == len(self.doors):
            return self.goal
        middle, way = self.doors[self.count]
        aside = abs((middle - [self.x, self.y]) @ way[::-1])
        return middle + way * (
            0.9 if not self.walls[int(middle[1]), int(middle[0])] and aside < 0.25 else -0.95
        )

    def target(self):
        """(angle to the right, slope up, distance) of the wraith, the brazier, the wisp or the seal
        in reach.
        """
        x, y, z = (
            (*self.beacon(), EYE)
            if self.task == "path"
            else (self.thing["x"], self.thing["y"], self.thing["z"])
        )
        far = float(np.hypot(x - self.x, y - self.y))
        return (
            turn(float(np.arctan2(y - self.y, x - self.x)) - self.heading),
            (z - EYE) / (far + 1e-6) - self.slope,
            far,
        )

    def seal(self):
        """Angle to the sealed door where it is near, else None."""
        if self.task != "path" or self.count == len(self.doors):
            return None
        middle, way = self.doors[self.count]
        away = middle - [self.x, self.y]
        near = self.walls[int(middle[1]), int(middle[0])] and np.hypot(*away) < 1.6
        return round(turn(float(np.arctan2(away[1], away[0])) - self.heading), 4) if near else None

    def state(self):
        return {
            "x": round(self.x, 3),
            "y": round(self.y, 3),
            "target": [round(float(v), 4) for v in self.target()],
            "seal": self.seal(),
        }

    # ---- the picture

    def scenery(self, rng):
        """Textures of the walls at every step of haze, side by side; the floor from above; the sky
        all around.
        """
        texture = np.zeros((5, CELL, CELL, 3), np.float32)
        texture[:] = (
            SAND
            + 46 * (noise(rng, CELL, CELL, 8) + 0.6 * noise(rng, CELL, CELL, 2) - 0.8)[..., None]
        )
        # blocks, each of its own tone, a lit upper and a dark lower edge
        for row in range(0, CELL, 16):
            for x in range(-16 + row % 32, CELL, 32):
                block = texture[:, row : row + 16, max(0, x) : x + 32]
                block *= rng.uniform(0.8, 1.05)
                block[:, :2] *= 1.2
                block[:, -2:] *= 0.55
                block[:, :, :2] *= 0.65
        moss = noise(rng, CELL, CELL, 10) + np.linspace(-0.35, 0.35, CELL)[:, None] > 0.55
        texture[MOSSY, moss] = texture[MOSSY, moss] * 0.4 + np.float32([60, 90, 40])
        for r, colour in (
            (26, (120, 78, 56)),
            (22, (228, 170, 100)),
            (13, (120, 78, 56)),
            (9, (60, 190, 190)),
        ):
            cv2.circle(texture[CARVED], (32, 32), r, colour, -1)
        texture[SEALED] = np.float32([70, 44, 40]) + 30 * noise(rng, CELL, CELL, 3)[..., None]
        cv2.rectangle(texture[SEALED], (2, 2), (61, 63), GOLD, 3)
        for r in (25, 15):
            cv2.circle(texture[SEALED], (32, 30), r, TEAL, 3)
        cv2.line(texture[SEALED], (32, 2), (32, 63), TEAL, 3)
        depth = np.linspace(0, SIGHT, SHADES)
        haze, part = np.float32(self.camera.haze), self.camera.fade(depth)
        shades = [[wall + (haze - wall) * p for p in part] for wall in texture[1:]]
        self.atlas = np.ascontiguousarray(
            np.uint8(np.clip(np.hstack([shade for wall in shades for shade in wall]), 0, 255))
        )
        plain = np.argwhere(self.walls == STONE)
        for row, column in plain[rng.random(len(plain)) < 0.35]:
            self.walls[row, column] = rng.choice([CARVED, MOSSY])
        n, m = self.walls.shape
        floor = (
            np.float32(SAND)
            + 60
            * (noise(rng, n * 16, m * 16, 24) + 0.5 * noise(rng, n * 16, m * 16, 3) - 0.9)[
                ..., None
            ]
        )
        floor[::16] *= 0.8
        floor[:, ::16] *= 0.8
        green = noise(rng, n * 16, m * 16, 20) > 0.68
        floor[green] = floor[green] * 0.5 + np.float32([30, 60, 20])
        dark = cv2.GaussianBlur(
            np.kron(np.float32(self.walls > 0), np.ones((16, 16), np.float32)), (0, 0), 7
        )
        self.floor = np.uint8((floor * (1 - 0.6 * dark[..., None])).clip(0, 255))
        rows, wide = 230, self.camera.around()
        sky = gradient(wide, rows, (20, 110, 150), (50, 160, 180), (150, 210, 190), (250, 224, 170))
        cloud = noise(rng, rows, wide, 60, wrap=True) * noise(rng, rows, wide, 12, wrap=True)
        self.sky = np.uint8(sky + (255 - sky) * (1.6 * (cloud - 0.35).clip(0, 0.4))[..., None])
        cv2.circle(self.sky, (wide // 2, 110), 38, (255, 250, 220), -1)
        crest = rows - 16 - 34 * noise(rng, 4, wide, 90, wrap=True)[0] // 12 * 12  # table mountains
        self.sky[np.arange(rows)[:, None] > crest] = (216, 170, 140)

    def cast(self):
        """For each column: the depth of the first wall, its texture, the place on it in [0, 1),
        whether it lies in the shade.
        """
        camera = self.camera
        side = (np.arange(1, WIDTH, 2) - WIDTH / 2) / camera.focal  # two columns a ray
        ways, eye, found = (
            (camera.c - camera.s * side, camera.s + camera.c * side),
            (camera.x, camera.y),
            [],
        )
        for axis in (0, 1):  # walls across x, walls across y
            way = np.where(abs(ways[axis]) < 1e-6, 1e-6, ways[axis])
            lines = np.int32(
                np.where(way > 0, np.floor(eye[axis]) + 1, np.floor(eye[axis]))
                + np.arange(SIGHT)[:, None] * np.sign(way)
            )
            depth = (lines - eye[axis]) / way
            other = eye[1 - axis] + depth * ways[1 - axis]
            cell = (
                (lines - (way < 0)).clip(0, len(self.walls) - 1),
                np.int32(other).clip(0, len(self.walls) - 1),
            )
            wall = self.walls[cell[1 - axis], cell[axis]]
            first = np.where(wall > 0, depth, np.inf).argmin(0), np.arange(len(side))
            found.append(
                (np.where(wall[first] > 0, depth[first], 1e6), wall[first], other[first] % 1)
            )
        nearer = found[0][0] < found[1][0]
        parts = [np.where(nearer, a, b) for a, b in zip(*found, strict=True)]
        return tuple(np.repeat(part, 2) for part in (*parts, nearer))

    def paint(self):
        camera = self.camera
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        camera.sky(picture, self.sky)
        camera.ground(picture, self.floor, 1 / 16)
        self.depth, wall, place, shaded = self.cast()
        shade = np.int32(self.depth.clip(0, SIGHT) / SIGHT * (SHADES - 1) + 2.5 * shaded).clip(
            0, SHADES - 1
        )
        column = np.float32((((wall - 1) * SHADES + shade) + place * 0.97 + 0.01) * CELL)
        crest = camera.horizon - (WALL - EYE) * camera.focal / self.depth
        first, last = (
            max(0, int(crest.min())),
            min(HEIGHT, int(camera.horizon + EYE * camera.focal / self.depth.min()) + 1),
        )
        row = np.arange(first, last, dtype=np.float32)[:, None] - np.float32(crest)
        # outside the texture: transparent
        row *= np.float32(self.depth * (CELL / (WALL * camera.focal)))
        cv2.remap(
            self.atlas,
            np.tile(column, (last - first, 1)),
            row,
            cv2.INTER_NEAREST,
            picture[first:last],
            cv2.BORDER_TRANSPARENT,
        )
        self.paint_things(picture)
        self.paint_hands(picture)
        return picture

    def hang(self, picture, body, x, y, z, tall):
        """A sprite in the world, hidden where a wall is nearer."""
        depth = self.camera.depth(x, y)
        px, py, scale = self.camera.project(x, y, z)
        high, wide = (
            int(tall * scale),
            max(1, int(tall * scale * body[1].shape[1] / body[1].shape[0])),
        )
        if depth > 0.25 and high > 1 and -wide < px < WIDTH + wide:
            rgb, mask = (
                cv2.resize(part, (wide, high), interpolation=cv2.INTER_NEAREST) for part in body
            )
            columns = (round(px - wide / 2) + np.arange(wide)).clip(0, WIDTH - 1)
            stamp(picture, (rgb, mask * (self.depth[columns] > depth)[None]), px, py - high / 2)

    def paint_things(self, picture):
        flicker, things = (
            int(self.time * 8) % 2,
            [(x, y, FIRE[int(self.time * 8) % 2], 0, 0.95) for x, y in self.lit],
        )
        if self.task == "wraiths":
            body = WRAITH[int(self.time * 4) % 2]
            body = tint(body, 255) if self.thing["well"] > HEAL - 0.1 else body
            things.append((self.thing["x"], self.thing["y"], body, self.thing["z"] - 0.4, 0.8))
        elif self.task == "braziers":
            things.append(
                (
                    self.thing["x"],
                    self.thing["y"],
                    FIRE[flicker] if self.work > 0.3 and flicker else COLD,
                    0,
                    0.95,
                )
            )
            things.append(
                (self.thing["x"], self.thing["y"], WISP, 1.0 + 0.04 * np.sin(5 * self.time), 0.3)
            )
        elif self.count == len(self.doors):
            things.append((*self.goal, OBELISK, 0, 1.5))
        else:
            things.append((*self.beacon(), WISP, 0.7 + 0.05 * np.sin(5 * self.time), 0.2))
        things += [(bolt[0], bolt[1], BALL, bolt[2] - 0.07, 0.14) for bolt in self.bolts]
        for x, y, *rest in sorted(things, key=lambda thing: -self.camera.depth(*thing[:2])):
            self.hang(picture, rest[0], x, y, *rest[1:])

    def paint_hands(self, picture):
        sway = 4 * np.sin(7 * self.time) * min(1, np.hypot(*self.speed) / WALK)
        if "LEFT_TRIGGER" in self.held:
            cv2.add(picture[70:270, 80:400], GLOW, picture[70:270, 80:400])
        stamp(picture, LANTERN["LEFT_TRIGGER" in self.held], 44 + sway, 218 - abs(sway))
        stamp(picture, STAFF, 420 - sway, 218 - abs(sway) + 14 * (self.reload > 0))
        angle = self.target()[0]
        if abs(angle) > 0.6:
            pointer(picture, angle, TEAL)
        if self.work > 0.02:
            bar(picture, WIDTH // 2 - 40, 60, 80, 8, self.work, TEAL)
        if self.task == "wraiths":
            cv2.circle(picture, (WIDTH // 2, MIDDLE), 9, WHITE, 2)
        if self.stun > 0:
            picture[..., 1:] //= 2
        self.sparks.draw(picture)


class Expert:
    """Turns to the target and walks there; throws light at a wraith in the cross-hair, opens the
    lantern or breaks the seal within reach.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.gain = self.hands.rng.uniform(2.6, 3.4)  # stick per radian
        self.far = self.hands.rng.uniform(2.4, 3.2)  # tiles that it keeps from wraiths

    def __call__(self, score):
        (angle, slope, far), seal, task = (
            score["state"]["target"],
            score["state"]["seal"],
            score["task"],
        )
        walk, hold = np.clip(1.3 - abs(angle), 0, 1), set()
        if task == "wraiths":
            walk = np.clip(far - self.far, -1, 1)
            aimed = abs(angle) < 0.28 / far and abs(slope) < 0.28 / far
            hold |= {"RIGHT_TRIGGER"} if aimed else set()
            return self.hands(left=(0.25, -walk), right=(self.gain * angle, -6 * slope), hold=hold)
        if task == "braziers":
            walk = walk if far > 1.5 else np.clip(far - 1.2, -1, 1)
            hold |= {"LEFT_TRIGGER"} if far < 1.65 and abs(angle) < 0.28 else set()
        if seal is not None and (far < 0.35 or abs(seal) < 0.5):
            walk, angle, hold = 0.2 * (far > 0.3), seal, {"SOUTH"}
        elif far > 1.8 and abs(angle) < 0.4:
            hold.add("LEFT_THUMB")
        return self.hands(left=(0, -walk), right=(self.gain * angle, 3 * -slope), hold=hold)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
