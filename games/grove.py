"""Grove: an autumn forest from above, by day and by night, in falling leaves or rain.

    python games/grove.py [--task trail|hunt|feed] [--seed N]

Left stick: walk. EAST: roll. LEFT_THUMB, held: sneak. Right stick: aim. RIGHT_TRIGGER: hold to draw
the bow, let go to shoot. LEFT_TRIGGER, held: shield. RIGHT_SHOULDER: throw a bomb. D-pad: take one
of four foods in hand. NORTH: give it.
"""

import console
import cv2
import numpy as np
from console import (
    HEIGHT,
    WIDTH,
    Hands,
    Task,
    World,
    flakes,
    lit,
    mirror,
    noise,
    sprite,
    stamp,
    tint,
    unit,
)

TASKS = {
    "trail": Task(
        "Follow the trail to the shrine: roll over logs, blow up boulders.", "navigation", 28
    ),
    "hunt": Task("Shoot twelve goblins and wolves; the shield stops arrows.", "combat", 30),
    "feed": Task("Feed twelve animals what they wish for, without scaring them.", "specific", 34),
}
HUNTED, FED = 12, 12
WALK, SNEAK, SHIELDED, ROLL = 150, 75, 60, 340  # px and seconds from here on
# seconds to draw the bow; speed of the hero's and of the goblins' arrows
DRAW, SHOT, ARROW = 0.4, 520, 230
# hits; seconds after which the wounded are well; a goblin's warning
HP, HEAL, TAKE_AIM = 2, 2.5, 0.7
FUSE, BLAST, SHY = 0.6, 75, 95  # a bomb's seconds and radius; how near one can walk to an animal
STEPS, STRIDE, HALF_TRAIL = 36, 64, 48  # the trail: bends, px from bend to bend
# forest around it all; px a cell of the collision map; until the next target
RIM, CELL, PAUSE = 300, 8, 0.3

# ---- sprites

TEAL, PINE, SKIN, WOOD, WHITE, BLACK = (
    (40, 190, 200),
    (10, 80, 100),
    (255, 214, 170),
    (120, 74, 40),
    (255, 255, 255),
    (20, 14, 18),
)
GREEN, MOSS, GREY, RED, GOLD = (
    (120, 220, 60),
    (50, 110, 30),
    (128, 132, 152),
    (240, 40, 40),
    (255, 220, 90),
)


def hero(low):
    return sprite(
        36,
        40,
        (PINE, 18, 27 + low, 13, 12 - low),
        (TEAL, 18, 25 + low, 11, 10 - low),
        (PINE, [(6, 16 + low), (18, low), (30, 16 + low)]),
        (TEAL, 18, 14 + low, 11, 10),
        (SKIN, 20, 16 + low, 8, 6),
        (BLACK, 18, 15 + low, 1.6, 2.6),
        (BLACK, 24, 15 + low, 1.6, 2.6),
    )


HERO = {"walk": hero(0), "sneak": hero(5)}
HERO_LEFT = {name: mirror(picture) for name, picture in HERO.items()}
GOBLIN = sprite(
    44,
    44,
    (MOSS, 22, 31, 14, 12),
    ((130, 60, 30), 22, 32, 11, 10),
    (MOSS, [(0, 8), (14, 12), (14, 22)]),
    (MOSS, [(44, 8), (30, 12), (30, 22)]),
    (GREEN, 22, 16, 13, 12),
    *((GOLD, x, 15, 4, 4) for x in (17, 27)),
    *((BLACK, x, 15, 1.5, 2) for x in (17, 27)),
)
WOLF = [
    sprite(
        58,
        38,
        *((BLACK, [(x, 22), (x + 6, 22), (x + 4 + s, 37), (x - 1 + s, 37)]) for x in (12, 36)),
        (GREY, 26, 19, 20, 10),
        (GREY, [(2, 2), (10, 14), (8, 20)]),
        ((165, 170, 190), 44, 14, 12, 9),
        (GREY, [(38, 8), (40, 0), (46, 7)]),
        (RED, 47, 12, 2.5, 2.5),
        (BLACK, 55, 16, 3, 2),
    )
    for s in (-5, 5)
]
RABBIT = sprite(
    38,
    44,
    (WHITE, [(10, 20), (11, 0), (17, 0), (18, 20)]),
    (WHITE, [(20, 20), (22, 0), (28, 0), (28, 20)]),
    (WHITE, 19, 33, 14, 11),
    (WHITE, 19, 21, 11, 10),
    ((255, 150, 170), 19, 24, 3, 2),
    (BLACK, 14, 20, 1.8, 2.4),
    (BLACK, 24, 20, 1.8, 2.4),
)
DEER = sprite(
    56,
    60,
    ((170, 100, 50), [(12, 38), (17, 38), (17, 59), (12, 59)]),
    ((170, 100, 50), [(38, 38), (43, 38), (43, 59), (38, 59)]),
    ((200, 125, 66), 27, 36, 18, 10),
    ((200, 125, 66), [(36, 34), (38, 14), (46, 14), (46, 38)]),
    ((200, 125, 66), 44, 18, 9, 7),
    (WOOD, [(38, 12), (30, 0), (34, 0), (40, 8), (42, 0), (45, 0), (43, 13)]),
    (BLACK, 45, 16, 2, 2.4),
)
ANIMALS = (RABBIT, DEER)
APPLE = sprite(
    30,
    30,
    (RED, 11, 17, 9, 11),
    (RED, 19, 17, 9, 11),
    (WOOD, [(14, 8), (18, 0), (20, 2), (17, 9)]),
    ((255, 170, 160), 9, 13, 3, 4),
)
CARROT = sprite(
    30,
    30,
    ((255, 140, 0), [(6, 8), (22, 8), (17, 30), (12, 30)]),
    ((40, 200, 60), [(4, 0), (15, 4), (26, 0), (18, 9), (10, 9)]),
)
GRAPES = sprite(
    30,
    30,
    *(
        ((140, 50, 230), x, y, 5.5, 5.5)
        for x, y in ((8, 9), (15, 9), (22, 9), (11, 16), (19, 16), (15, 23))
    ),
)
CHEESE = sprite(
    30,
    30,
    ((255, 235, 60), [(1, 20), (26, 4), (29, 20)]),
    ((225, 180, 20), [(1, 20), (29, 20), (29, 28), (1, 28)]),
)
FOOD = {"DPAD_UP": APPLE, "DPAD_RIGHT": CARROT, "DPAD_DOWN": GRAPES, "DPAD_LEFT": CHEESE}
SLOT = {
    "DPAD_UP": (48, 170),
    "DPAD_RIGHT": (82, 204),
    "DPAD_DOWN": (48, 238),
    "DPAD_LEFT": (18, 204),
}
BUBBLE = sprite(
    54,
    60,
    (BLACK, 27, 26, 26, 26),
    (BLACK, [(18, 46), (36, 46), (27, 60)]),
    (WHITE, 27, 26, 23, 23),
)
BLOBS = ((58, 58, 19), (24, 58, 19), (66, 38, 17), (18, 38, 17), (42, 50, 24), (42, 24, 21))


def tree(dark, colour, light):
    return sprite(
        84,
        92,
        (WOOD, [(37, 60), (47, 60), (49, 91), (35, 91)]),
        *((BLACK, x, y, r + 2, r + 2) for x, y, r in BLOBS),
        *(
            shape
            for x, y, r in BLOBS
            for shape in ((dark, x, y, r, r), (colour, x - 2, y - 3, r - 4, r - 5))
        ),
        *((light, x - 4, y - 8, r / 3, r / 4) for x, y, r in BLOBS[2:]),
        *((light, x + 5, y - 1, 2.5, 2) for x, y, _ in BLOBS[2:]),
    )


TREE = [
    tree((130, 40, 20), (205, 75, 25), (250, 130, 50)),
    tree((140, 80, 10), (220, 145, 25), (255, 205, 80)),
    tree((110, 20, 34), (170, 36, 44), (225, 80, 70)),
    tree((30, 62, 40), (48, 92, 54), (90, 136, 74)),
]
FERN = sprite(
    40,
    30,
    *((MOSS, [(20, 30), (x, 8 + abs(x - 20) / 2), (x + 4, 30)]) for x in (2, 10, 18, 28, 36)),
)
STONE = sprite(
    34,
    24,
    (BLACK, 17, 14, 16, 10),
    ((120, 124, 136), 17, 13, 14, 8),
    ((160, 164, 174), 13, 10, 7, 4),
)
MUSHROOM = sprite(
    26,
    28,
    ((240, 230, 210), [(10, 12), (16, 12), (17, 27), (9, 27)]),
    ((196, 150, 100), 13, 10, 12, 9),
)
BOULDER = sprite(
    112,
    104,
    (BLACK, 56, 54, 54, 48),
    ((86, 90, 104), 56, 54, 51, 45),
    ((130, 136, 150), 48, 42, 34, 28),
    ((168, 174, 186), 40, 32, 14, 10),
    (BLACK, [(60, 20), (64, 44), (54, 60), (68, 84), (58, 62), (68, 46)]),
)
BOMB = sprite(
    26,
    28,
    (BLACK, 12, 17, 11, 11),
    ((70, 74, 90), 8, 13, 3, 3),
    (WOOD, [(14, 8), (18, 2), (21, 4), (17, 9)]),
    (GOLD, 21, 3, 4, 3),
)
SHRINE = sprite(
    96,
    104,
    ((110, 116, 140), [(6, 30), (22, 30), (22, 104), (6, 104)]),
    ((110, 116, 140), [(74, 30), (90, 30), (90, 104), (74, 104)]),
    ((150, 156, 184), [(0, 22), (48, 2), (96, 22), (96, 36), (0, 36)]),
    ((120, 240, 255), 48, 70, 20, 30),
    (WHITE, 48, 70, 12, 22),
)
SHRINE_ICON, GOBLIN_ICON = (
    tuple(cv2.resize(part, (28, 30), interpolation=cv2.INTER_NEAREST) for part in s)
    for s in (SHRINE, GOBLIN)
)


# ---- levels


def winding(rng):
    """The trail: points 8 px apart on a winding line that never comes near itself, float [n, 2];
    the forest around starts at 0, 0.
    """
    while True:
        points, heading = [np.zeros(2)], rng.uniform(0, 2 * np.pi)
        for _ in range(STEPS):
            heading += rng.normal(0, 0.45)
            points.append(points[-1] + STRIDE * np.array([np.cos(heading), np.sin(heading)]))
        points = np.array(points)
        far = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
        if (
            np.ptp(points, axis=0).max() < 1500
            and far[np.tri(len(points), k=-5, dtype=bool)].min() > 240
        ):
            break
    at, fine = np.arange(len(points)) * STRIDE, np.arange(0, STEPS * STRIDE, 8)
    points = np.stack([np.interp(fine, at, axis) for axis in (points - points.min(0) + RIM).T], 1)
    return cv2.GaussianBlur(points, (1, 15), 0, borderType=cv2.BORDER_REPLICATE)


class Game(World):
    name, genre, tasks = "grove", "roguelike", TASKS
    icons = {"trail": SHRINE_ICON, "hunt": GOBLIN_ICON, "feed": APPLE}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        rng, self.barriers, self.index = self.rng, [], 2
        if task == "trail":
            self.points = winding(rng)
            self.size = np.int32(self.points.max(0) + RIM)  # of the map: x, y
            self.x, self.y = (self.points[2] + rng.uniform(-10, 10, 2)).tolist()
            for at in np.cumsum(rng.integers(32, 44, 20)) - 8:
                if at < len(self.points) - 16:
                    way = unit(*(self.points[at + 2] - self.points[at - 2]))
                    self.barriers.append(
                        {
                            "kind": str(rng.choice(["log", "boulder"])),
                            "at": int(at),
                            "place": self.points[at],
                            "way": np.array(way),
                        }
                    )
        else:
            self.size = np.int32([1500, 1240])
            self.x, self.y = (self.size / 2 + rng.uniform(-60, 60, 2)).tolist()
        self.aim, self.way, self.face, self.push = (1.0, 0.0), (1.0, 0.0), 1, np.zeros(2)
        self.roll, self.drawn, self.shield, self.sneak, self.food = (
            0.0,
            0.0,
            False,
            False,
            "DPAD_UP",
        )
        self.arrows, self.darts, self.bombs, self.next_gust, self.count, self.pause = (
            [],
            [],
            [],
            1.5,
            0,
            0.0,
        )
        self.land(np.random.default_rng(abs(seed)))
        self.thing = None if task == "trail" else self.spawn()

    def blocked(self, x, y):
        h, w = self.woods.shape
        column, row = int(x / CELL), int(y / CELL)
        return not (0 <= row < h and 0 <= column < w) or self.woods[row, column]

    def spawn(self):
        """The next animal or foe: in view, in the open."""
        while True:
            angle, far = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(110, 185)
            x, y = self.x + far * np.cos(angle), self.y + far * np.sin(angle)
            way = [
                (self.x + f * (x - self.x), self.y + f * (y - self.y))
                for f in (0.25, 0.5, 0.75, 1, 1.2)
            ]
            dx, dy = x - self.x, y - self.y
            # not behind bars and foods
            seen = (
                abs(dy) < 100
                if self.task == "hunt"
                else -65 < dy < 100 and (dx > -120 or -30 < dy < 10)
            )
            if seen and not any(self.blocked(*at) for at in way):
                return {
                    "x": float(x),
                    "y": float(y),
                    "kind": int(self.rng.integers(2)),
                    "hp": HP,
                    "well": 0.0,
                    "clock": 0.0,
                    "mood": "",
                    "wish": str(self.rng.choice(list(FOOD))),
                    "sway": self.rng.choice([-1, 1]),
                }

    # ---- the world

    def move(self, pad, dt):
        free = self.stun <= 0
        walk, aim = (
            (unit(pad["LEFT_X"], pad["LEFT_Y"], at_most=1), pad.right())
            if free
            else ((0.0, 0.0), (0.0, 0.0))
        )
        fresh = self.fresh if free else set()
        self.roll, self.pause = self.roll - dt, self.pause - dt
        self.shield = pad["LEFT_TRIGGER"] and free and self.roll <= 0
        self.sneak = pad["LEFT_THUMB"] and free and self.roll <= 0
        if "EAST" in fresh and self.roll < -0.35 and np.hypot(*walk) > 0.3:
            self.roll, self.way = 0.26, unit(*walk)
        if self.time > self.next_gust:
            angle = self.rng.uniform(0, 2 * np.pi)
            self.push, self.next_gust = (
                self.push + 130 * np.array([np.cos(angle), np.sin(angle)]),
                self.time + self.rng.uniform(1.2, 2.4),
            )
        speed = SNEAK if self.sneak else SHIELDED if self.shield else WALK
        pace = np.array(self.way) * ROLL if self.roll > 0 else np.array(walk) * speed
        self.pace = float(np.hypot(*pace))
        self.go(*((pace + self.push) * dt))
        self.push = self.push * max(0.0, 1 - 6 * dt)
        look = walk if np.hypot(*walk) > 0.3 else None
        if np.hypot(*aim) > 0.4:
            self.aim = look = unit(*aim)
        if look:
            self.way, self.face = (
                (self.way if self.roll > 0 else unit(*look)),
                1 if look[0] > 0 else -1,
            )
        for name in FOOD:
            self.food = name if name in fresh else self.food
        self.shoot(pad["RIGHT_TRIGGER"] and free and not self.shield, "RIGHT_SHOULDER" in fresh, dt)
        if self.task == "trail" or self.thing:
            getattr(self, self.task)(dt, fresh)
        lost = self.thing and np.any(abs(np.array(self.target())) > [225, 125])
        if self.task != "trail" and (lost or not self.thing and self.pause <= 0):
            self.thing = self.spawn()  # the next one, or another where this is out of sight

    def go(self, dx, dy):
        """Move, or along what is in the way."""
        for turn in (0, 0.6, -0.6, 1.2, -1.2):
            c, s = np.cos(turn), np.sin(turn)
            u, v = float((dx * c - dy * s) * c), float((dx * s + dy * c) * c)
            if not self.blocked(self.x + u, self.y + v) and not self.barred(u, v):
                self.x, self.y = self.x + u, self.y + v
                return

    def barred(self, u, v):
        """Whether that step leads into a boulder, or, unless it is a roll, into a log."""
        for barrier in self.barriers:
            (ahead, aside), boulder = self.beside(barrier), barrier["kind"] == "boulder"
            if (
                abs(ahead) < (52 if boulder else 22)
                and aside < 90
                and ahead * float(barrier["way"] @ [u, v]) > 0
                and (boulder or self.roll <= 0)
            ):
                return True
        return False

    def beside(self, barrier):
        """How far ahead along the trail the barrier is, and how far aside."""
        (dx, dy), (wx, wy) = barrier["place"] - [self.x, self.y], barrier["way"]
        return float(dx * wx + dy * wy), float(abs(dy * wx - dx * wy))

    def shoot(self, draw, throw, dt):
        if draw:
            self.drawn = min(1.0, self.drawn + dt / DRAW)
        else:
            if self.drawn > 0.99 and not self.shield:
                self.arrows.append([self.x, self.y, SHOT * self.aim[0], SHOT * self.aim[1], 0.5])
            self.drawn = 0.0
        if throw and not self.bombs:
            self.bombs.append([self.x, self.y, 90 * self.way[0], 90 * self.way[1], FUSE])
        for shot in self.arrows + self.darts + self.bombs:
            shot[0], shot[1], shot[4] = shot[0] + shot[2] * dt, shot[1] + shot[3] * dt, shot[4] - dt
        for bomb in self.bombs:
            bomb[2], bomb[3] = bomb[2] * (1 - 2 * dt), bomb[3] * (1 - 2 * dt)
            if bomb[4] <= 0:
                self.sparks.burst(self.rng, bomb[0], bomb[1], (255, 150, 30), 50, 320)
                self.barriers = [
                    b
                    for b in self.barriers
                    if b["kind"] == "log" or np.hypot(*(b["place"] - bomb[:2])) > BLAST
                ]
        self.arrows, self.darts, self.bombs = (
            [shot for shot in shots if shot[4] > 0]
            for shots in (self.arrows, self.darts, self.bombs)
        )

    def trail(self, dt, fresh):
        far = np.hypot(*(self.points[self.index : self.index + 12] - [self.x, self.y]).T)
        if far.min() < HALF_TRAIL + 14:
            self.index += int(far.argmin())
        self.reached((self.index - 2) / (len(self.points) - 6))

    def struck(self, dx, dy):
        if self.safe <= 0 and not self.shield:
            self.sparks.burst(self.rng, self.x, self.y, RED)
            self.push = 300 * np.array(unit(dx, dy))
            self.drawn = 0.0
            self.hurt()

    def hunt(self, dt, fresh):
        foe = self.thing
        dx, dy = self.x - foe["x"], self.y - foe["y"]
        far, (wx, wy) = float(np.hypot(dx, dy)), unit(dx, dy)
        foe["well"], foe["clock"] = foe["well"] - dt, foe["clock"] + dt
        if foe["well"] <= 0:
            foe["hp"] = HP
        if foe["kind"]:  # a wolf runs at the hero
            sway = 0.8 * np.sin(4 * self.time + foe["sway"])
            u, v = 85 * (wx - sway * wy), 85 * (wy + sway * wx)
            if far < 28:
                self.struck(dx, dy)
                self.thing, self.pause = None, PAUSE
                return
        else:  # a goblin walks around the hero, takes aim, shoots
            still, near = foe["clock"] > 1.2, 30 * np.sign(far - 130)
            u, v = (
                (0.0, 0.0)
                if still
                else (near * wx - 45 * foe["sway"] * wy, near * wy + 45 * foe["sway"] * wx)
            )
            if foe["clock"] > 1.2 + TAKE_AIM:
                foe["clock"] = 0.0
                self.darts.append([foe["x"], foe["y"], ARROW * wx, ARROW * wy, 1.2])
        x, y = foe["x"] + u * dt, foe["y"] + v * dt
        if not self.blocked(x, y):
            foe["x"], foe["y"] = x, y
        for dart in self.darts:
            if np.hypot(dart[0] - self.x, dart[1] - self.y) < 20 and self.roll <= 0:
                dart[4] = 0.0
                self.sparks.burst(self.rng, dart[0], dart[1], WHITE if self.shield else RED, 6)
                self.struck(dart[2], dart[3])
        for arrow in self.arrows:
            if np.hypot(arrow[0] - foe["x"], arrow[1] - foe["y"]) < 26:
                arrow[4], foe["hp"], foe["well"] = 0.0, foe["hp"] - 1, HEAL
                self.sparks.burst(self.rng, foe["x"], foe["y"], GOLD, 8)
        if foe["hp"] <= 0:
            self.sparks.burst(self.rng, foe["x"], foe["y"], WHITE, 20, 220)
            self.count += 1
            self.reached(self.count / HUNTED)
            self.thing, self.pause = None, PAUSE

    def feed(self, dt, fresh):
        beast = self.thing
        dx, dy = beast["x"] - self.x, beast["y"] - self.y
        far, (wx, wy) = float(np.hypot(dx, dy)), unit(dx, dy)
        give = "NORTH" in fresh and far < 54
        beast["clock"] += dt
        if beast["mood"]:  # off it goes, or it eats
            run = 260 * dt * (beast["mood"] == "scared")
            beast["x"], beast["y"] = beast["x"] + run * wx, beast["y"] + run * wy
            if beast["clock"] > 0.5:
                self.thing, self.pause = None, PAUSE
        elif give and self.food == beast["wish"]:
            beast["mood"], beast["clock"], self.count = "glad", 0.0, self.count + 1
            self.sparks.burst(self.rng, beast["x"], beast["y"] - 10, (255, 90, 140), 16, 120)
            self.reached(self.count / FED)
        elif give or far < SHY and self.pace > 90:
            beast["mood"], beast["clock"] = "scared", 0.0

    def target(self):
        """Where to go, from the hero."""
        if self.task == "trail":
            to = self.points[min(self.index + 6, len(self.points) - 1)]
            return to[0] - self.x, to[1] - self.y
        return (
            (self.thing["x"] - self.x, self.thing["y"] - self.y)
            if self.thing
            else (40.0 * self.way[0], 40.0 * self.way[1])
        )

    def state(self):
        state = {
            "x": round(self.x, 2),
            "y": round(self.y, 2),
            "target": [round(float(v), 2) for v in self.target()],
            "drawn": round(self.drawn, 2),
            "food": self.food,
        }
        if self.thing:
            thing, far = (
                self.thing,
                [float(np.hypot(dart[0] - self.x, dart[1] - self.y)) for dart in self.darts],
            )
            state |= {
                "wish": thing["wish"],
                "mood": thing["mood"],
                "dart": round(min(far, default=999), 2),
            }
        ahead = [
            (self.beside(barrier)[0], barrier["kind"])
            for barrier in self.barriers
            if -8 < barrier["at"] - self.index < 30
        ]
        for far, kind in sorted(pair for pair in ahead if pair[0] > 0)[:1]:
            state |= {"barrier": [kind, round(far, 2)]}
        return state

    # ---- the picture

    def land(self, rng):
        """The ground and the trees, drawn once; where one cannot walk."""
        w, h = self.size.tolist()
        free = np.zeros((h, w), np.uint8)
        speckle = noise(rng, h, w, 40)
        self.ground = np.uint8([104, 112, 48]) + np.uint8(
            speckle[..., None] * [60, 20, 10] + 22 * noise(rng, h, w, 5)[..., None]
        )
        if self.task == "trail":
            line = [np.int32(self.points)]
            cv2.polylines(free, line, False, 1, 2 * HALF_TRAIL)
            for wide, colour in ((92, (128, 98, 52)), (80, (176, 138, 84)), (60, (190, 152, 98))):
                cv2.polylines(self.ground, line, False, colour, wide)
            for i in range(12, len(self.points) - 6, 11):  # chevrons tell which way
                way = np.array(unit(*(self.points[i + 2] - self.points[i - 2])))
                side, tip = way[::-1] * [-18, 18], self.points[i] + 10 * way
                cv2.polylines(
                    self.ground,
                    [np.int32([tip - 18 * way + side, tip, tip - 18 * way - side])],
                    False,
                    (255, 240, 180),
                    6,
                )
        else:
            cv2.ellipse(
                free, (w // 2, h // 2), (w // 2 - RIM + 60, h // 2 - RIM + 80), 0, 0, 360, 1, -1
            )
        for x, y, i in np.column_stack(
            [rng.integers(0, w, 900), rng.integers(0, h, 900), rng.integers(0, 4, 900)]
        ).tolist():
            # leaves and tufts
            colour = ((230, 90, 30), (245, 180, 50), (190, 40, 40), (150, 170, 70))[i]
            cv2.ellipse(self.ground, (x, y), (4, 2), 40 * i, 0, 360, colour, -1)
        for x, y, i in np.column_stack(
            [rng.integers(40, w - 40, 150), rng.integers(40, h - 40, 150), rng.integers(0, 3, 150)]
        ).tolist():
            if self.task != "trail" or not free[y, x]:
                self.plant((FERN, STONE, MUSHROOM)[i], x, y)
        wall = cv2.erode(free, np.ones((17, 17), np.uint8)) == 0
        self.woods = np.ascontiguousarray(wall[CELL // 2 :: CELL, CELL // 2 :: CELL])
        for row in range(24, h - 70, 30):
            for column in range(44, w - 44, 42):
                x, y = (
                    column + int(rng.integers(-12, 13)) + row // 30 % 2 * 21,
                    row + int(rng.integers(-8, 9)),
                )
                if (
                    44 < x < w - 44
                    and 50 < y < h - 50
                    and not free[max(0, y - 8) : y + 70, max(0, x - 34) : x + 34].any()
                ):
                    self.plant(TREE[int(min(3, 5 * speckle[y, x] * rng.uniform(0.6, 1.2)))], x, y)
        self.rain, self.hour = rng.random() < 0.4, rng.uniform(0, 1)
        self.leaves = rng.uniform(0, 1, (70, 3)) * [WIDTH, HEIGHT, 1]

    def plant(self, sprite, x, y):
        rgb, mask = sprite
        h, w = mask.shape
        cv2.copyTo(rgb, mask, self.ground[y - h // 2 : y - h // 2 + h, x - w // 2 : x - w // 2 + w])

    def paint(self):
        w, h = self.size.tolist()
        left, top = (
            int(np.clip(self.x - WIDTH / 2, 0, w - WIDTH)),
            int(np.clip(self.y - HEIGHT / 2, 0, h - HEIGHT)),
        )
        picture = self.ground[top : top + HEIGHT, left : left + WIDTH].copy()
        for barrier in self.barriers:
            self.paint_barrier(picture, barrier, left, top)
        if self.task == "trail":
            stamp(picture, SHRINE, *(self.points[-3] - [left, top + 30]))
        elif self.thing:
            self.paint_thing(picture, self.thing, left, top)
        self.paint_hero(picture, self.x - left, self.y - top)
        for shots, colour in ((self.arrows, WHITE), (self.darts, (255, 70, 60))):
            for x, y, vx, vy, _ in shots:
                way, middle = np.array(unit(vx, vy)), np.array([x - left, y - top])
                ends = np.int32(middle - 14 * way).tolist(), np.int32(middle + 14 * way).tolist()
                cv2.line(picture, *ends, BLACK, 6)
                cv2.line(picture, *ends, colour, 3)
        for x, y, _, _, rest in self.bombs:
            stamp(picture, BOMB if int(rest * 14) % 2 else tint(BOMB, 255), x - left, y - top)
        self.sparks.draw(picture, left, top)
        night = 0.5 - 0.5 * np.cos(2 * np.pi * (self.hour + self.time / 45))
        day = np.float32([218, 212, 200]) * (1 - night) + np.float32([112, 118, 172]) * night
        picture = lit(
            picture, day, [(self.x - left, self.y - top, 130, np.float32([150, 110, 50]) * night)]
        )
        if self.rain:
            flakes(
                picture,
                self.leaves,
                -60 * self.time - left,
                500 * self.time - top,
                (170, 190, 215),
                7,
            )
        else:
            flakes(
                picture,
                self.leaves[:36],
                40 * self.time - left,
                60 * self.time - top,
                (250, 150, 40),
                3,
            )
        if self.task == "feed":
            self.paint_slots(picture)
        return picture

    def paint_barrier(self, picture, barrier, left, top):
        x, y = barrier["place"] - [left, top]
        if barrier["kind"] == "boulder":
            stamp(picture, BOULDER, x, y)
        elif -100 < x < WIDTH + 100 and -100 < y < HEIGHT + 100:
            side = barrier["way"][::-1] * [-58, 58]
            a, b = (np.int32([x, y] + s * side).tolist() for s in (-1, 1))
            for thick, colour in ((30, BLACK), (25, (134, 84, 44)), (9, (176, 120, 70))):
                cv2.line(picture, a, b, colour, thick)
            cv2.circle(picture, b, 13, (222, 180, 120), -1)
            cv2.circle(picture, b, 7, (150, 100, 60), 2)

    def paint_thing(self, picture, thing, left, top):
        x, y = thing["x"] - left, thing["y"] - top
        cv2.ellipse(picture, (int(x), int(y) + 20), (18, 6), 0, 0, 360, (60, 62, 30), -1)
        if self.task == "feed":
            body = ANIMALS[thing["kind"]]
            hop = (
                12 * abs(np.sin(14 * self.time))
                if thing["mood"]
                else 4 * abs(np.sin(5 * self.time))
            )
            stamp(picture, body if thing["x"] < self.x else mirror(body), x, y - hop)
            if not thing["mood"]:
                stamp(picture, BUBBLE, x, max(y - 58, 32))
                stamp(picture, FOOD[thing["wish"]], x, max(y - 62, 28))
            return
        body = WOLF[int(self.time * 8) % 2] if thing["kind"] else GOBLIN
        body = body if thing["x"] < self.x else mirror(body)
        stamp(picture, tint(body, 255) if thing["well"] > HEAL - 0.1 else body, x, y)
        if not thing["kind"] and thing["clock"] > 1.2:  # it takes aim
            way = np.array(unit(self.x - thing["x"], self.y - thing["y"]))
            cv2.line(
                picture, (int(x), int(y)), np.int32([x, y] + 36 * way).tolist(), (255, 70, 60), 4
            )
            cv2.rectangle(picture, (int(x) - 4, int(y) - 50), (int(x) + 4, int(y) - 34), RED, -1)
            cv2.rectangle(picture, (int(x) - 4, int(y) - 31), (int(x) + 4, int(y) - 25), RED, -1)

    def paint_hero(self, picture, x, y):
        cv2.ellipse(picture, (int(x), int(y) + 18), (14, 5), 0, 0, 360, (50, 52, 26), -1)
        body = (HERO if self.face > 0 else HERO_LEFT)["sneak" if self.sneak else "walk"]
        if self.safe <= 0 or int(self.time * 12) % 2:
            body = (
                tint(body, (255, 90, 90))
                if self.stun > 0
                else tint(body, (200, 250, 250))
                if self.roll > 0
                else body
            )
            stamp(picture, body, x, y - (0 if self.sneak else 3 * abs(np.sin(self.time * 9))))
        if self.task == "feed":
            stamp(picture, FOOD[self.food], x, y - 34)
        if self.drawn > 0:
            way, full = np.array(self.aim), self.drawn > 0.99
            side, middle = way[::-1] * [-20, 20], np.array([x, y]) + 16 * way
            string = middle - (4 + 16 * self.drawn) * way
            cv2.polylines(
                picture,
                [np.int32([middle - side, middle + 8 * way, middle + side])],
                False,
                WOOD,
                5,
            )
            cv2.polylines(
                picture, [np.int32([middle - side, string, middle + side])], False, WHITE, 1
            )
            cv2.line(
                picture,
                np.int32(string).tolist(),
                np.int32(middle + 18 * way).tolist(),
                GOLD if full else WHITE,
                5 if full else 3,
            )
            cv2.ellipse(
                picture,
                (int(x), int(y)),
                (32, 32),
                -90,
                0,
                360 * self.drawn,
                GOLD if full else (210, 210, 220),
                5 if full else 3,
            )
        if self.shield:
            cv2.circle(picture, (int(x), int(y)), 28, (80, 170, 255), 6)
            cv2.circle(picture, (int(x), int(y)), 28, WHITE, 2)

    def paint_slots(self, picture):
        for name, (x, y) in SLOT.items():
            chosen = name == self.food
            cv2.rectangle(
                picture, (x - 17, y - 17), (x + 16, y + 16), GOLD if chosen else (30, 26, 30), -1
            )
            cv2.rectangle(
                picture,
                (x - 14, y - 14),
                (x + 13, y + 13),
                (90, 70, 40) if chosen else (60, 54, 58),
                -1,
            )
            stamp(picture, FOOD[name], x, y)


class Expert:
    """Follows the trail, rolls over logs, bombs boulders; keeps its distance, draws and lets go;
    sneaks up with the right food.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.distance = self.hands.rng.uniform(120, 140)  # px that it keeps from foes
        self.sneak = self.hands.rng.uniform(112, 125)  # px from which on it sneaks
        self.early = self.hands.rng.uniform(44, 56)  # px before a log at which it rolls

    def __call__(self, score):
        state, task = score["state"], score["task"]
        target = np.array(state["target"])
        far = np.hypot(*target) + 1e-6
        way = target / far
        if task == "trail":
            kind, ahead = state.get("barrier", ("", 999))
            tap = (
                {"EAST"}
                if kind == "log" and ahead < self.early
                else {"RIGHT_SHOULDER"}
                if kind == "boulder" and ahead < 95
                else ()
            )
            return self.hands(left=way, tap=tap)
        if task == "hunt":
            walk = way * np.clip((far - self.distance) / 40, -1, 1) + 0.3 * way[::-1] * [-1, 1]
            hold = (
                {"LEFT_TRIGGER"}
                if state.get("dart", 999) < 90
                else {"RIGHT_TRIGGER"}
                if state["drawn"] < 1 and "wish" in state
                else ()
            )
            return self.hands(left=walk, right=way, hold=hold)
        wish, tap = state.get("wish", state["food"]), set()
        if state["food"] != wish:
            tap.add(wish)
        elif far < 48 and "wish" in state and not state["mood"]:
            tap.add("NORTH")
        return self.hands(
            left=way * np.clip((far - 26) / 20, 0, 1),
            hold={"LEFT_THUMB"} if far < self.sneak else (),
            tap=tap,
        )


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
