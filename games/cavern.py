"""Cavern: keys and doors in a cave, by the light of a lamp.

    python games/cavern.py [--task wisps|doors|shards] [--seed N]

Left stick or d-pad: walk; down: drop through a ledge. SOUTH: jump, and once more in the air.
RIGHT_SHOULDER: dash. WEST: the blade of frost. NORTH: the blade of flame.
"""

import console
import cv2
import numpy as np
from console import (
    HEIGHT,
    LEDGE,
    ROCK,
    TILE,
    WIDTH,
    Body,
    Hands,
    Task,
    World,
    flakes,
    gradient,
    lit,
    mirror,
    noise,
    sprite,
    stamp,
    tint,
)

TASKS = {
    "doors": Task("Leave seven caves: fetch the key, then go out by the door.", "navigation", 28),
    "wisps": Task("Strike down thirteen wisps: fire with frost, frost with flame.", "combat", 28),
    "shards": Task("Shatter thirteen crystals by dashing through them.", "specific", 26),
}
CAVES, WISPS, SHARDS = 7, 13, 13
# tiles: the size of a cave, the rows at which its doors stand
ROWS, COLUMNS, FLOOR, BALCONY = 9, 17, 7, 4
# px and seconds from here on; both jumps together: 155 px high
RUN, JUMP, AGAIN, GRAVITY = 165, 410, 380, 1000
DASH, DASHING, REST = 430, 0.2, 0.45  # speed, how long, and until the next
WISP_HP, HEAL, DRIFT = 2, 2.0, 55  # hits; seconds after which a wounded wisp is well; speed
PAUSE = 0.3  # until the next wisp or crystal appears

# ---- sprites

YELLOW, ORANGE, SKIN, BROWN = (255, 220, 50), (245, 120, 40), (255, 214, 170), (110, 60, 40)
WHITE, BLACK, CYAN, BLUE, FLAME = (
    (255, 255, 255),
    (8, 12, 18),
    (110, 240, 255),
    (30, 110, 255),
    (255, 90, 10),
)


def hero(legs):
    return sprite(
        34,
        42,
        *((BROWN, [(x0, 28), (x0 + 7, 28), (x1 + 7, 41), (x1, 41)]) for x0, x1 in legs),
        (ORANGE, 16, 25, 9, 9),
        (BROWN, [(2, 18), (10, 17), (10, 31), (3, 30)]),
        (SKIN, 18, 13, 8, 8),
        (YELLOW, [(7, 11), (10, 2), (24, 2), (31, 11)]),
        (WHITE, 26, 7, 4, 4),
        (BLACK, 22, 14, 1.6, 2.6),
    )


HERO = {
    "stand": hero([(9, 8), (17, 18)]),
    "run0": hero([(9, 2), (17, 25)]),
    "run1": hero([(11, 14), (15, 12)]),
    "jump": hero([(8, 4), (18, 22)]),
    "fall": hero([(8, 0), (18, 27)]),
}
HERO_LEFT = {name: mirror(picture) for name, picture in HERO.items()}
ARC = np.linspace(-1.3, 1.3, 12)
CURVE = [(14 + 50 * np.cos(a), 30 + 29 * np.sin(a)) for a in ARC] + [
    (4 + 40 * np.cos(a), 30 + 29 * np.sin(a)) for a in ARC[::-1]
]
BLADE = {"frost": sprite(66, 60, (CYAN, CURVE)), "fire": sprite(66, 60, (FLAME, CURVE))}
BLADE_LEFT = {name: mirror(picture) for name, picture in BLADE.items()}


def wisp(outer, inner, flick):
    tongues = [
        (5, 32),
        (12 - flick, 8),
        (20, 18),
        (24 + flick, 0),
        (30, 18),
        (38 - flick, 8),
        (43, 32),
    ]
    return sprite(
        48,
        58,
        (outer, 24, 36, 20, 20),
        (outer, tongues),
        (inner, 24, 38, 15, 15),
        (BLACK, 18, 36, 3, 5),
        (BLACK, 30, 36, 3, 5),
    )


WISP = {
    "fire": [wisp((255, 80, 0), (255, 190, 40), s) for s in (-3, 3)],
    "frost": [wisp((30, 90, 255), (150, 220, 255), s) for s in (-3, 3)],
}
SHARD = [
    sprite(
        44,
        56,
        ((120, 0, 140), [(22, 0), (43, 20), (32, 55), (12, 55), (1, 20)]),
        ((255, 70, 230), [(22, 4), (39, 20), (30, 51), (14, 51), (5, 20)]),
        ((255, 200, 250), [(22, 6 + s), (30, 21), (22, 48), (14, 21)]),
    )
    for s in (0, 6)
]
BIT = [
    (20, 12),
    (42, 12),
    (42, 26),
    (37, 26),
    (37, 18),
    (34, 18),
    (34, 26),
    (30, 26),
    (30, 18),
    (20, 18),
]
KEY = [
    sprite(
        44,
        30,
        (BLACK, 12, 15, 12, 12),
        (BLACK, [(20, 9), (44, 9), (44, 28), (28, 28), (28, 21), (20, 21)]),
        (colour, 12, 15, 10, 10),
        (BLACK, 12, 15, 4, 4),
        (colour, BIT),
    )
    for colour in (YELLOW, (255, 245, 170))
]
SHUT = sprite(
    TILE,
    2 * TILE,
    ((90, 60, 30), [(0, 0), (32, 0), (32, 64), (0, 64)]),
    ((150, 100, 50), [(3, 3), (29, 3), (29, 61), (3, 61)]),
    (BLACK, 16, 28, 6, 6),
    (BLACK, [(14, 28), (18, 28), (21, 44), (11, 44)]),
)
OPEN = sprite(
    TILE,
    2 * TILE,
    (YELLOW, [(0, 0), (32, 0), (32, 64), (0, 64)]),
    ((255, 250, 200), [(5, 5), (27, 5), (27, 64), (5, 64)]),
)
CHEVRON = sprite(30, 44, (YELLOW, [(0, 0), (10, 0), (30, 22), (10, 44), (0, 44), (18, 22)]))
KEY_ICON = tuple(cv2.resize(part, (30, 21), interpolation=cv2.INTER_AREA) for part in KEY[0])
WISP_ICON, SHARD_ICON = (
    tuple(cv2.resize(part, (25, 30), interpolation=cv2.INTER_NEAREST) for part in s)
    for s in (WISP["fire"][0], SHARD[0])
)


# ---- levels


class Cave:
    """Ledges at three places; two doors, each (side -1 | 1, the row on which it stands), a key and
    perhaps a pool of acid.
    """

    def __init__(self, rng, enter=None, leave=None):
        self.enter, self.leave, self.key, self.acid = enter, leave, None, None
        self.tiles = np.zeros((ROWS, COLUMNS), np.uint8)
        self.tiles[0] = self.tiles[FLOOR:] = self.tiles[:, 0] = self.tiles[:, -1] = ROCK
        rows = rng.permutation([3, 5, rng.choice([3, 5])]).tolist()
        ledges = [
            (row, column + int(rng.integers(0, 2)), int(rng.integers(3, 5)))
            for row, column in zip(rows, (3, 7, 11), strict=True)
        ]
        for row, column, wide in ledges:
            self.tiles[row, column : column + wide] = LEDGE
        for side, row in (enter, leave) if leave else ():
            if row == BALCONY:
                self.tiles[row, slice(1, 3) if side < 0 else slice(-3, -1)] = LEDGE
        if leave:
            # not the ledge at the entrance
            row, column, wide = ledges[1 if rng.random() < 0.5 else 1 - enter[0]]
            self.key = [(column + wide / 2) * TILE, row * TILE]  # x, the ledge below it
            if rng.random() < 0.7:
                self.acid = int(rng.integers(5, 9))
                self.tiles[FLOOR, self.acid : self.acid + 4] = 0
        self.look(rng)

    def spot(self, door):
        """Where one stands in that door: x, y."""
        return [(0.5 if door[0] < 0 else COLUMNS - 0.5) * TILE, door[1] * TILE]

    def unlock(self):
        side, row = self.leave
        self.key, self.tiles[row - 2 : row, 0 if side < 0 else -1] = None, 0

    def look(self, rng):
        """The rock, and a darker cave behind it, drawn once."""
        h, w = ROWS * TILE, COLUMNS * TILE
        y, x = np.arange(h)[:, None], np.arange(w)
        self.back = (
            gradient(w, h, (8, 44, 62), (18, 84, 92), (14, 58, 72))
            + np.uint8(26 * noise(rng, h, w, 26))[..., None]
        )
        for depth, colour in ((70, (10, 42, 56)), (44, (6, 30, 44))):  # stalactites and stalagmites
            tooth = depth * (
                noise(rng, 8, w, 40)[0] + 0.6 * abs((x / 34 + rng.uniform(0, 9)) % 2 - 1)
            )
            self.back[(y < 30 + tooth) | (y > h - 60 - tooth)] = colour
        rock = np.uint8([26, 46, 54]) + np.uint8(34 * noise(rng, h, w, 11))[..., None]
        solid = np.repeat(np.repeat(np.uint8(self.tiles == ROCK), TILE, 0), TILE, 1)
        inner = cv2.erode(solid, np.ones((13, 13), np.uint8), borderValue=1)
        rock[inner > 0] //= 2
        solid |= np.uint8((y < TILE + 12 * noise(rng, 8, w, 16)[0]) & (y > 20))  # a ragged ceiling
        moss = (
            (solid > 0) & (y >= FLOOR * TILE) & (y < FLOOR * TILE + 4 + 7 * noise(rng, 8, w, 5)[0])
        )
        rock[moss] = (60, 220, 160)
        for row, column in np.argwhere(self.tiles == LEDGE) * TILE:
            part = slice(row, row + 13), slice(column, column + TILE)
            rock[part], solid[part] = (120, 84, 60), 1
            rock[row : row + 5, column : column + TILE] = (60, 220, 160)
        if self.acid:
            part = (
                slice(FLOOR * TILE + 8, (FLOOR + 1) * TILE),
                slice(self.acid * TILE, (self.acid + 4) * TILE),
            )
            rock[part], solid[part] = (170, 255, 0), 1
        self.rock, self.mask = rock, solid


def caves(rng):
    enter = (-1, FLOOR)
    for _ in range(CAVES):
        choices = [
            (side, row) for side in (-1, 1) for row in (FLOOR, BALCONY) if (side, row) != enter
        ]
        leave = choices[rng.integers(len(choices))]
        yield Cave(rng, enter, leave)
        enter = (-leave[0], leave[1])


class Game(World):
    name, genre, tasks = "cavern", "2D side-scroller", TASKS
    icons = {"doors": KEY_ICON, "wisps": WISP_ICON, "shards": SHARD_ICON}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        self.caves = list(caves(self.rng)) if task == "doors" else [Cave(self.rng)]
        self.count, self.cave, self.pause, self.fade = 0, self.caves[0], 0.0, 0.0
        self.hero = Body(
            (2.5 if task == "doors" else 8) * TILE + float(self.rng.uniform(-20, 20)),
            FLOOR * TILE,
            10,
            38,
        )
        self.face, self.stride, self.jump, self.float, self.again = 1, 0.0, 0.0, 0.0, True
        self.dash, self.swing, self.blade, self.next_tremor, self.shake = (
            0.0,
            0.0,
            "frost",
            2.0,
            0.0,
        )
        self.thing = None if task == "doors" else self.spawn()
        self.spores = np.random.default_rng(abs(seed)).uniform(0, 1, (26, 3)) * [WIDTH, HEIGHT, 1]

    def spawn(self):
        """The next wisp or crystal: left or right of the hero, in view."""
        x = float(
            self.rng.choice(
                [
                    x
                    for side in (-1, 1)
                    for x in [self.hero.x + side * self.rng.uniform(110, 195)]
                    if 70 < x < COLUMNS * TILE - 70
                ]
            )
        )
        y = self.rng.choice([100, 150, 196]) + self.rng.uniform(-8, 8)
        return {
            "x": x,
            "y": float(y),
            "kind": str(self.rng.choice(["fire", "frost"])),
            "hp": WISP_HP,
            "well": 0.0,
            "push": 0.0,
        }

    # ---- the world

    def move(self, pad, dt):
        hero, free, tiles = self.hero, self.stun <= 0, self.cave.tiles
        x, y = pad.left() if free else (0.0, 0.0)
        fresh = self.fresh if free else ()
        self.dash, self.swing, self.pause = self.dash - dt, self.swing - dt, self.pause - dt
        self.fade, self.shake = self.fade - dt, self.shake - dt
        if abs(x) > 0.15:
            self.face = 1 if x > 0 else -1
        self.jump = 0.12 if "SOUTH" in fresh else self.jump - dt
        self.float = 0.08 if hero.ground else self.float - dt
        self.again = self.again or hero.ground
        # from the ground, or once more in the air
        if self.jump > 0 and (self.float > 0 or self.again):
            hero.vy = -JUMP if self.float > 0 else -AGAIN
            self.again, self.jump, self.float = self.float > 0, 0.0, 0.0
            self.sparks.burst(self.rng, hero.x, hero.y, (160, 220, 220), 5, 80)
        if "RIGHT_SHOULDER" in fresh and self.dash < -REST:
            self.dash = DASHING
        if self.time > self.next_tremor:  # the cave shakes, and shoves the hero
            self.next_tremor, self.shake = self.time + self.rng.uniform(1.5, 3), 0.25
            hero.vx += 150 * float(self.rng.choice([-1, 1]))
        if self.dash > 0:
            hero.vx, hero.vy = DASH * self.face, -GRAVITY * dt
        else:
            hero.vx += (
                np.clip(x * RUN - hero.vx, -1300 * dt, 1300 * dt) if free else -3 * hero.vx * dt
            )
        hero.move(tiles, GRAVITY, dt, drop=y > 0.6)
        self.stride += abs(hero.vx) * dt
        if self.swing < -0.12 and {"WEST", "NORTH"} & set(fresh):
            self.swing, self.blade = 0.22, "frost" if "WEST" in fresh else "fire"
            if self.thing and self.task == "wisps":
                self.strike()
        if self.task == "doors" or self.thing:
            getattr(self, self.task)(dt)
        if self.task != "doors" and not self.thing and self.pause <= 0:
            self.thing = self.spawn()

    def shock(self, way):
        if self.safe <= 0:
            self.sparks.burst(self.rng, self.hero.x, self.hero.y - 20, (255, 60, 60))
            self.hero.vx, self.hero.vy = 240.0 * way, -190.0
            self.hurt()

    def doors(self, dt):
        hero, cave = self.hero, self.cave
        if hero.y > FLOOR * TILE + 16:  # in the acid: back to the entrance
            self.sparks.burst(self.rng, hero.x, hero.y - 10, (170, 255, 0), 24, 220)
            self.safe = 0.0
            self.hurt()
            self.arrive()
        if cave.key and abs(cave.key[0] - hero.x) < 28 and abs(cave.key[1] - hero.y) < 34:
            self.sparks.burst(self.rng, cave.key[0], cave.key[1] - 26, YELLOW, 24, 200)
            cave.unlock()
        if not 0.8 * TILE < hero.x < (COLUMNS - 0.8) * TILE:  # out by the door
            self.count += 1
            if self.count < CAVES:
                self.cave, self.fade = self.caves[self.count], 0.25
                self.arrive()
        self.reached(
            (self.count + (0.5 if self.count < CAVES and not self.cave.key else 0)) / CAVES
        )

    def arrive(self):
        x, y = self.cave.spot(self.cave.enter)
        self.hero = Body(x - self.cave.enter[0] * TILE, y, 10, 38)

    def strike(self):
        wisp, hero = self.thing, self.hero
        if -10 < (wisp["x"] - hero.x) * self.face < 68 and abs(wisp["y"] - hero.y + 20) < 46:
            if self.blade == wisp["kind"]:  # that feeds it: it flares up and is gone
                self.sparks.burst(
                    self.rng,
                    wisp["x"],
                    wisp["y"],
                    FLAME if wisp["kind"] == "fire" else CYAN,
                    30,
                    260,
                )
                self.shock(-self.face)
                self.thing, self.pause = None, PAUSE
                return
            wisp["hp"], wisp["well"], wisp["push"] = wisp["hp"] - 1, HEAL, 420.0 * self.face
            self.sparks.burst(self.rng, wisp["x"], wisp["y"], WHITE, 8)
            if wisp["hp"] <= 0:
                self.done(WISPS, FLAME if wisp["kind"] == "fire" else CYAN)

    def done(self, of, colour):
        self.sparks.burst(self.rng, self.thing["x"], self.thing["y"], colour, 28, 240)
        self.count += 1
        self.reached(self.count / of)
        self.thing, self.pause = None, PAUSE

    def wisps(self, dt):
        wisp, hero = self.thing, self.hero
        dx, dy = hero.x - wisp["x"], hero.y - 20 - wisp["y"]
        far = np.hypot(dx, dy) + 1e-6
        wisp["well"], wisp["push"] = wisp["well"] - dt, wisp["push"] * (1 - 4 * dt)
        if wisp["well"] <= 0:
            wisp["hp"] = WISP_HP
        wisp["x"] = float(
            np.clip(wisp["x"] + (DRIFT * dx / far + wisp["push"]) * dt, 60, COLUMNS * TILE - 60)
        )
        wisp["y"] += float(DRIFT * dy / far + 50 * np.sin(4 * self.time)) * dt
        if far < 26:  # it burns, and is gone
            self.shock(np.sign(dx) or 1)
            self.thing, self.pause = None, PAUSE

    def shards(self, dt):
        shard, hero = self.thing, self.hero
        if self.dash > 0 and abs(shard["x"] - hero.x) < 28 and abs(shard["y"] - hero.y + 20) < 34:
            self.done(SHARDS, (255, 120, 240))

    def target(self):
        """Where to go: the key, the open door, the wisp or the crystal; [x, the y at which to
        stand], from the hero.
        """
        if self.thing:
            at = self.thing["x"], self.thing["y"] + 20
        elif self.task == "doors":
            at = self.cave.key or self.cave.spot(self.cave.leave)
        else:
            at = self.hero.x + self.face, self.hero.y
        return [round(float(at[0] - self.hero.x), 2), round(float(at[1] - self.hero.y), 2)]

    def edge(self):
        """How far on the ground under the hero ends, up to 300 px."""
        floor = self.cave.tiles[min(int(self.hero.y // TILE), ROWS - 1)]
        columns = [
            c
            for c in range(int(self.hero.x // TILE), -1 if self.face < 0 else COLUMNS, self.face)
            if not floor[c]
        ]
        return abs((columns[0] + (self.face < 0)) * TILE - self.hero.x) if columns else 300.0

    def state(self):
        hero, acid = self.hero, self.cave.acid
        state = {
            "x": round(float(hero.x), 2),
            "y": round(float(hero.y), 2),
            "vy": round(float(hero.vy), 2),
            "ground": bool(hero.ground),
            "face": self.face,
            "edge": round(float(self.edge()), 2),
            "target": self.target(),
            "kind": self.thing and self.thing["kind"],
        }
        return state | (
            {"acid": [round(float(edge * TILE - hero.x), 2) for edge in (acid, acid + 4)]}
            if acid
            else {}
        )

    # ---- the picture

    def paint(self):
        hero, cave = self.hero, self.cave
        left = int(np.clip(hero.x - WIDTH / 2, 0, COLUMNS * TILE - WIDTH))
        top = int(np.clip(hero.y - 170, 4, ROWS * TILE - HEIGHT)) - (
            4 if self.shake > 0 and int(self.time * 40) % 2 else 0
        )
        picture = cave.back[top : top + HEIGHT, left // 3 : left // 3 + WIDTH].copy()
        cv2.copyTo(
            cave.rock[top : top + HEIGHT, left : left + WIDTH],
            cave.mask[top : top + HEIGHT, left : left + WIDTH],
            picture,
        )
        x, y = hero.x - left, hero.y - top - 20
        lights = [(x, y, 120, (230, 200, 150))]  # the lamp
        if self.task == "doors":
            lights += self.paint_doors(picture, left, top)
        elif self.thing:
            thing = self.thing
            bodies = WISP[thing["kind"]] if self.task == "wisps" else SHARD
            body = bodies[int(self.time * 7) % 2]
            lights.append((thing["x"] - left, thing["y"] - top, 90, (255, 255, 255)))
            stamp(
                picture,
                tint(body, 255) if thing["well"] > HEAL - 0.08 else body,
                thing["x"] - left,
                thing["y"] - top,
            )
        self.paint_hero(picture, x, y)
        self.sparks.draw(picture, left, top)
        dim = min(1, max(0.1, 1 - 4 * self.fade))  # through a door
        picture = lit(picture, [84 * dim, 104 * dim, 122 * dim], lights)
        flakes(picture, self.spores, 9 * self.time - left, -14 * self.time, (120, 255, 210))
        return picture

    def paint_doors(self, picture, left, top):
        """-> their lights."""
        cave, lights = self.cave, []
        x, y = cave.spot(cave.enter)
        stamp(picture, tint(SHUT, (20, 30, 36)), x - left, y - top - TILE)
        (x, y), side = cave.spot(cave.leave), cave.leave[0]
        stamp(picture, SHUT if cave.key else OPEN, x - left, y - top - TILE)
        if cave.key:
            lights.append((cave.key[0] - left, cave.key[1] - top - 26, 80, (255, 230, 140)))
            stamp(
                picture,
                KEY[int(self.time * 6) % 2],
                cave.key[0] - left,
                cave.key[1] - top - 28 + 3 * np.sin(5 * self.time),
            )
        else:
            lights.append((x - left, y - top - TILE, 120, (255, 230, 140)))
            for i in range(2):
                tip = np.clip(x - left, 0, WIDTH) - side * (44 + 26 * i - self.time * 30 % 10)
                stamp(picture, CHEVRON if side > 0 else mirror(CHEVRON), tip, y - top - TILE)
        if cave.acid:
            lights.append(
                ((cave.acid + 2) * TILE - left, FLOOR * TILE + 10 - top, 70, (150, 255, 40))
            )
        return lights

    def paint_hero(self, picture, x, y):
        hero = self.hero
        pose = (
            ("jump" if hero.vy < -140 else "fall")
            if not hero.ground
            else "stand"
            if abs(hero.vx) < 20
            else f"run{int(self.stride / 22) % 2}"
        )
        body = (HERO if self.face > 0 else HERO_LEFT)[pose]
        if self.dash > 0:
            for step in (2, 1):
                stamp(
                    picture,
                    tint(body, (220 - 70 * step, 110 - 40 * step, 40)),
                    x - 20 * step * self.face,
                    y,
                )
        if self.safe <= 0 or int(self.time * 12) % 2:
            stamp(picture, tint(body, (255, 90, 90)) if self.stun > 0 else body, x, y)
        if self.swing > 0:
            stamp(
                picture, (BLADE if self.face > 0 else BLADE_LEFT)[self.blade], x + 34 * self.face, y
            )


class Expert:
    """Walks to the target, jumps (twice) where it is higher, drops where it is lower; over acid it
    jumps and dashes.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        # px before acid or the end of a ledge at which it jumps
        self.edge = self.hands.rng.uniform(22, 34)
        self.near = self.hands.rng.uniform(60, 75)  # px aside from which it jumps up
        self.reach = self.hands.rng.uniform(52, 60)  # px that it keeps from wisps
        self.far = self.hands.rng.uniform(150, 190)  # px from which on it dashes

    def __call__(self, score):
        state, task = score["state"], score["task"]
        (dx, dy), ground, facing = (
            state["target"],
            state["ground"],
            state["target"][0] * state["face"] > 0,
        )
        first, end = state.get("acid", (999, 999))
        over, ahead = first < 8 and end > -8 and not ground, first if dx > 0 else -end
        run, tap, up = np.clip(dx / 30, -1, 1), set(), dy < (-46 if task == "wisps" else -26)
        if task == "wisps":
            run = np.sign(dx) * np.clip((abs(dx) - self.reach) / 16, 0.17, 1)
            if abs(dx) < 68 and abs(dy) < 44 and facing and state["kind"]:
                tap.add({"fire": "WEST", "frost": "NORTH"}[state["kind"]])
        if task == "shards" and abs(dy) < 26 and (abs(dx) < 24 or abs(dx) < 95 and facing):
            tap.add("RIGHT_SHOULDER")
        if (
            up
            and (abs(dx) < self.near or over)
            and (ground or state["vy"] > -140)
            or over
            and state["vy"] > 150
        ):
            tap.add("SOUTH")
        if ground and state["edge"] < self.edge and (up or 0 < ahead < self.edge):
            tap.add("SOUTH")
        if (
            abs(dx) > 100
            and over
            and state["vy"] > -150
            or task == "doors"
            and ground
            and abs(dx) > self.far
            and not 0 < ahead < 250
        ):
            tap.add("RIGHT_SHOULDER")
        return self.hands(left=(run, dy > 30 and abs(dx) < 80), tap=tap)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
