"""Crypt: a top-down roguelike under torchlight.

    python games/crypt.py [--task slay|stairs|gems] [--seed N]

Left stick or d-pad: walk. Right stick: aim and shoot. EAST: roll the way you walk.
"""

from itertools import count, pairwise

import console
import cv2
import numpy as np
from console import (
    HEIGHT,
    WIDTH,
    Hands,
    Task,
    World,
    maze,
    mirror,
    noise,
    sprite,
    stamp,
    tint,
    unit,
)

TASKS = {
    "slay": Task("Shoot sixteen monsters.", "combat", 24),
    "stairs": Task("Find the stairs: always on through the lit door.", "navigation", 24),
    "gems": Task("Collect eighteen gems.", "specific", 24),
}
KILLS, ROOMS, GEMS = 16, 12, 18
TILE = 32  # px; everything below in px and seconds
WALK, ROLL, SHOT, RELOAD = 150, 330, 420, 0.16
MONSTER_HP, HEAL = 4, 1.2  # hits; seconds after which a wounded monster is well
PAUSE = 0.3  # until the next monster or gem appears
GRID, PITCH = 5, (6, 8)  # rooms a side; tiles from room to room, down and across

# ---- sprites

CYAN, DEEP, SKIN = (70, 225, 255), (10, 90, 150), (255, 215, 170)
EYE, WHITE, BLACK = (255, 240, 60), (255, 255, 255), (8, 8, 16)
HERO = sprite(
    36,
    38,
    (DEEP, 18, 25, 14, 12),
    (CYAN, 18, 23, 12, 10),
    (DEEP, 18, 12, 13, 11),
    (CYAN, 18, 11, 11, 10),
    (SKIN, 20, 14, 8, 6),
    (BLACK, 18, 13, 1.6, 2.6),
    (BLACK, 24, 13, 1.6, 2.6),
)
VIOLET, RED = (225, 60, 255), (255, 50, 60)
BAT = [
    sprite(
        52,
        36,
        (
            (120, 10, 150),
            [
                (26, 14),
                (2, tip),
                (8, tip + 14),
                (18, 22),
                (26, 26),
                (34, 22),
                (44, tip + 14),
                (50, tip),
            ],
        ),
        (VIOLET, 26, 18, 11, 11),
        (VIOLET, [(16, 14), (17, 2), (25, 9)]),
        (VIOLET, [(36, 14), (35, 2), (27, 9)]),
        (EYE, 22, 16, 3, 3),
        (EYE, 30, 16, 3, 3),
    )
    for tip in (2, 16)
]
SKULL = [
    sprite(
        36,
        42,
        ((150, 30, 40), [(8, 24), (28, 24), (30 + s, 41), (20, 36), (6 + s, 41)]),
        ((255, 120, 90), 18, 14, 14, 13),
        ((255, 120, 90), [(10, 20), (26, 20), (24, 31), (12, 31)]),
        (BLACK, 12, 15, 4, 5),
        (BLACK, 24, 15, 4, 5),
    )
    for s in (-3, 3)
]
GEM = [
    sprite(
        36,
        42,
        ((0, 90, 50), [(18, 0), (35, 14), (18, 41), (1, 14)]),
        ((40, 255, 130), [(18, 3), (32, 14), (18, 38), (4, 14)]),
        ((190, 255, 220), [(18, 6 + s), (26, 14), (18, 20), (10, 14)]),
    )
    for s in (0, 4)
]
HERO_LEFT = mirror(HERO)
BOLT = sprite(14, 14, ((255, 250, 200), 7, 7, 6, 6), ((255, 200, 40), 7, 7, 4, 4))
STAIRS = sprite(
    64,
    64,
    ((20, 40, 90), 32, 32, 31, 31),
    *(
        (
            (60 + 45 * i, 120 + 32 * i, 255),
            [
                (12 + 5 * i, 16 + 9 * i),
                (52 - 5 * i, 16 + 9 * i),
                (52 - 5 * i, 23 + 9 * i),
                (12 + 5 * i, 23 + 9 * i),
            ],
        )
        for i in range(4)
    ),
)
STAIRS_ICON = tuple(cv2.resize(part, (28, 28), interpolation=cv2.INTER_NEAREST) for part in STAIRS)
SKULL_ICON, GEM_ICON = (
    tuple(cv2.resize(part, (26, 30), interpolation=cv2.INTER_NEAREST) for part in s[0])
    for s in (SKULL, GEM)
)


# ---- levels: a grid of tiles, True where solid


class Door:
    """Two tiles of wall between two rooms of the maze, with the direction that leads on."""

    def __init__(self, rng, a, b):
        (down, across), self.way = PITCH, np.array([b[1] - a[1], b[0] - a[0]])  # way: x, y
        y, x = a[0] * down, a[1] * across  # the corner of room a
        if self.way[0]:
            x, y = x + (across if self.way[0] > 0 else 0), y + int(rng.integers(1, down - 2))
            self.tiles = [(y, x), (y + 1, x)]
        else:
            x, y = x + int(rng.integers(1, across - 2)), y + (down if self.way[1] > 0 else 0)
            self.tiles = [(y, x), (y, x + 1)]
        self.middle = TILE * (np.array(self.tiles)[:, ::-1].mean(0) + 0.5)  # x, y


class Game(World):
    name, genre, tasks = "crypt", "roguelike", TASKS
    icons = {"slay": SKULL_ICON, "stairs": STAIRS_ICON, "gems": GEM_ICON}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        rng, self.doors, self.door = self.rng, [], 0
        if task == "stairs":
            self.path = path = maze(rng, GRID, ROOMS)
            self.solid = np.zeros((GRID * PITCH[0] + 1, GRID * PITCH[1] + 1), bool)
            self.solid[:: PITCH[0]] = self.solid[:, :: PITCH[1]] = True
            self.doors = [Door(rng, a, b) for a, b in pairwise(path)]
            for door in self.doors:
                self.solid[tuple(np.transpose(door.tiles))] = False
            middles = [
                TILE * np.array([(c + 0.5) * PITCH[1] + 0.5, (r + 0.5) * PITCH[0] + 0.5])
                for r, c in path
            ]
            self.goal = middles[-1]
            x, y = middles[0] + rng.uniform(-50, 50, 2)
        else:
            self.solid = np.pad(np.zeros((16, 24), bool), 1, constant_values=True)
            for row, column in rng.permutation(
                [(r, c) for r in (3, 7, 11, 15) for c in (3, 7, 18, 22)]
            )[:7]:
                self.solid[row, column] = True  # pillars, apart from each other
            x, y = TILE * 13 + rng.uniform(-60, 60), TILE * 9 + rng.uniform(-40, 40)
        self.x, self.y, self.aim, self.face = float(x), float(y), (1.0, 0.0), 1
        self.push, self.roll, self.reload, self.next_draft = np.zeros(2), 0.0, 0.0, 1.5
        self.bolts, self.count, self.way, self.pause = [], 0, (1.0, 0.0), 0.0
        self.thing = None if task == "stairs" else self.spawn()  # the monster, or the gem
        self.look()
        self.scenery(np.random.default_rng(abs(seed)))

    def blocked(self, x, y, half=11):
        rows, columns = self.solid.shape
        tiles = [
            (int((y + v) // TILE), int((x + u) // TILE))
            for u in (-half, half)
            for v in (-half, half)
        ]
        return any(not (0 <= r < rows and 0 <= c < columns) or self.solid[r, c] for r, c in tiles)

    def spawn(self):
        """A monster or a gem, in view and with no pillar in between."""
        for tries in count():
            room = 24 if tries < 2000 else 11  # between a pillar and the wall there is less
            angle, far = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(100, 180)
            dx, dy = float(far * np.cos(angle)), float(far * np.sin(angle))
            way = [(self.x + dx * f, self.y + dy * f) for f in np.arange(1, 9) / 8]
            if (
                abs(dy) < 105
                and not self.blocked(*way[-1], room)
                and not any(self.blocked(*at) for at in way)
            ):
                return {
                    "x": self.x + dx,
                    "y": self.y + dy,
                    "kind": int(self.rng.integers(2)),
                    "hp": MONSTER_HP,
                    "well": 0.0,
                }

    # ---- the world

    def move(self, pad, dt):
        walk = pad.left() if self.stun <= 0 else (0.0, 0.0)
        aim = pad.right() if self.stun <= 0 else (0.0, 0.0)
        self.roll, self.reload = self.roll - dt, self.reload - dt
        if "EAST" in self.fresh and self.roll < -0.4 and np.hypot(*walk) > 0.3:
            self.roll, self.way = 0.22, unit(*walk)
        if self.time > self.next_draft:  # a draught shoves the hero
            angle = self.rng.uniform(0, 2 * np.pi)
            self.push = self.push + 170 * np.array([np.cos(angle), np.sin(angle)])
            self.next_draft = self.time + self.rng.uniform(1, 2.2)
            self.sparks.burst(self.rng, self.x, self.y, (120, 120, 150), 8, 160)
        speed = np.array(self.way) * ROLL if self.roll > 0 else np.array(walk) * WALK
        self.slide(*((speed + self.push) * dt))
        self.push = self.push * max(0.0, 1 - 6 * dt)
        if np.hypot(*aim) > 0.4:
            self.aim = unit(*aim)
            if self.reload <= 0:
                self.reload = RELOAD
                self.bolts.append(
                    [
                        self.x + 16 * self.aim[0],
                        self.y + 16 * self.aim[1],
                        SHOT * self.aim[0],
                        SHOT * self.aim[1],
                        0.6,
                    ]
                )
        look = aim[0] or walk[0]
        self.face = self.face if abs(look) < 0.2 else 1 if look > 0 else -1
        for bolt in self.bolts:
            bolt[0], bolt[1], bolt[4] = bolt[0] + bolt[2] * dt, bolt[1] + bolt[3] * dt, bolt[4] - dt
        self.bolts = [
            bolt for bolt in self.bolts if bolt[4] > 0 and not self.blocked(bolt[0], bolt[1], 3)
        ]
        if self.task == "stairs" or self.thing:
            getattr(self, self.task)(dt)
        self.pause -= dt
        self.look()
        if self.task != "stairs" and (
            np.any(abs(self.seen) > [220, 125]) if self.thing else self.pause <= 0
        ):
            self.thing = self.spawn()  # the next one, or another where this is out of sight

    def look(self):
        """Where the monster or gem is from the hero, or was when last seen."""
        if self.thing:
            self.seen = np.array([self.thing["x"] - self.x, self.thing["y"] - self.y])

    def slide(self, dx, dy):
        """Move, along the walls where they are in the way, and around the corner of a pillar or a
        door.
        """
        for ax, ay, other in ((float(dx), 0.0, dy), (0.0, float(dy), dx)):
            if not self.blocked(self.x + ax, self.y + ay):
                self.x, self.y = self.x + ax, self.y + ay
            elif 2 * abs(other) < abs(ax + ay):  # nearly head-on
                for side in (8, -8, 16, -16, 28, -28):
                    u, v = (0, side) if ax else (side, 0)
                    if not self.blocked(self.x + ax + u, self.y + ay + v):
                        step = abs(ax + ay) / abs(side)
                        self.x, self.y = self.x + u * step, self.y + v * step
                        break

    def slay(self, dt):
        monster = self.thing
        away = np.array([monster["x"] - self.x, monster["y"] - self.y])
        far = np.hypot(*away) + 1e-6
        # bats do not fly straight
        sway = away[::-1] * [-1, 1] * (np.sin(2 * self.time) if monster["kind"] else 0)
        monster["x"] += float((0.6 * sway - away)[0] / far * 48 * dt)
        monster["y"] += float((0.6 * sway - away)[1] / far * 48 * dt)
        monster["well"] -= dt
        if monster["well"] <= 0:
            monster["hp"] = MONSTER_HP
        if far < 26 and self.safe <= 0:
            self.hurt()
            self.push = -away / far * 300
            self.thing, self.pause = None, PAUSE  # it bites and is gone
            return
        for bolt in self.bolts:
            if np.hypot(bolt[0] - monster["x"], bolt[1] - monster["y"]) < 22:
                bolt[4], monster["hp"], monster["well"] = 0.0, monster["hp"] - 1, HEAL
                self.sparks.burst(self.rng, monster["x"], monster["y"], EYE, 6)
        if monster["hp"] <= 0:
            self.sparks.burst(self.rng, monster["x"], monster["y"], WHITE, 16, 200)
            self.count += 1
            self.reached(self.count / KILLS)
            self.thing, self.pause = None, PAUSE

    def gems(self, dt):
        gem = self.thing
        if np.hypot(gem["x"] - self.x, gem["y"] - self.y) < 36:
            self.sparks.burst(self.rng, gem["x"], gem["y"], WHITE, 10)
            self.count += 1
            self.reached(self.count / GEMS)
            self.thing, self.pause = None, PAUSE

    def stairs(self, dt):
        if self.door == len(self.doors):
            if np.hypot(*self.target()) < 34:
                self.reached(1)
            return
        door = self.doors[self.door]
        ahead = float(((np.array([self.x, self.y]) - door.middle) * door.way).sum())
        if ahead > 30:  # through: it falls shut behind
            self.solid[tuple(np.transpose(door.tiles))] = True
            self.door += 1
            self.light()
        self.reached(self.door / (ROOMS + 0.5))

    def target(self):
        """What to walk to, relative to the hero: a gem, a monster, the stairs, or the lit door: its
        middle line, then through.
        """
        here = np.array([self.x, self.y])
        if self.task != "stairs":
            return self.seen
        if self.door == len(self.doors):
            return self.goal - here
        door = self.doors[self.door]
        aside = abs(((door.middle - here) * door.way[::-1]).sum())
        return door.middle + door.way * (44 if aside < 17 else -36) - here

    def state(self):
        return {
            "x": round(self.x, 2),
            "y": round(self.y, 2),
            "target": [round(float(v), 2) for v in self.target()],
        }

    # ---- the picture

    def scenery(self, rng):
        """The whole floor, drawn once, with a dark rim of half a screen."""
        h, w = (n * TILE for n in self.solid.shape)
        floor = (
            np.uint8([46, 46, 68])
            + np.uint8(18 * noise(rng, h, w, 9) + 16 * noise(rng, h, w, 60))[..., None]
        )
        floor[::TILE], floor[:, ::TILE] = floor[::TILE] // 4 * 3, floor[:, ::TILE] // 4 * 3
        walls = self.solid.copy()
        for door in self.doors:
            walls[tuple(np.transpose(door.tiles))] = True
        for r, c in np.argwhere(walls) * TILE:
            cv2.rectangle(floor, (c, r), (c + TILE - 1, r + TILE - 1), (92, 98, 122), -1)
            cv2.rectangle(floor, (c, r), (c + TILE - 1, r + 3), (150, 158, 180), -1)
            for x, y in ((0, 14), (16, 23), (8, 31)):  # bricks
                cv2.line(floor, (c, r + y), (c + TILE - 1, r + y), (56, 60, 80), 2)
                cv2.line(floor, (c + x, r + y - 8), (c + x, r + y), (56, 60, 80), 2)
        self.bright = cv2.copyMakeBorder(
            floor,
            HEIGHT // 2,
            HEIGHT // 2,
            WIDTH // 2,
            WIDTH // 2,
            cv2.BORDER_CONSTANT,
            value=(14, 12, 22),
        )
        self.floor = self.bright
        self.light()

    def light(self):
        """In the maze only the hero's room is lit; its door is golden, and chevrons lead there."""
        if self.task == "stairs":
            self.floor = self.bright // 5
            y, x = np.array(self.path[self.door]) * PITCH * TILE + [HEIGHT // 2, WIDTH // 2]
            room = slice(y, y + (PITCH[0] + 1) * TILE), slice(x, x + (PITCH[1] + 1) * TILE)
            self.floor[room] = self.bright[room]
            for door in self.doors[self.door : self.door + 1]:
                for r, c in np.array(door.tiles) * TILE + [HEIGHT // 2, WIDTH // 2]:
                    cv2.rectangle(
                        self.floor, (c, r), (c + TILE - 1, r + TILE - 1), (255, 215, 70), -1
                    )
                middle, side = door.middle + [WIDTH // 2, HEIGHT // 2], door.way[::-1] * 14
                for step in (36, 62, 88):
                    tip = middle - door.way * step
                    chevron = np.int32(
                        [tip - door.way * 12 - side, tip, tip - door.way * 12 + side]
                    )
                    cv2.polylines(self.floor, [chevron], False, (255, 180, 40), 6)

    def paint(self):
        left, top = int(self.x), int(self.y)
        picture = self.floor[top : top + HEIGHT, left : left + WIDTH].copy()
        left, top = left - WIDTH // 2, top - HEIGHT // 2
        if self.task == "stairs":
            stamp(picture, STAIRS, *(self.goal - [left, top])) if self.door == len(
                self.doors
            ) else None
        if self.thing:
            thing, step = self.thing, int(self.time * 7) % 2
            body = GEM[step] if self.task == "gems" else (SKULL, BAT)[thing["kind"]][step]
            stamp(
                picture,
                tint(body, 255) if thing["well"] > HEAL - 0.08 else body,
                thing["x"] - left,
                thing["y"] - top,
            )
        x, y = self.x - left, self.y - top
        cv2.ellipse(picture, (int(x), int(y) + 17), (14, 5), 0, 0, 360, (22, 20, 34), -1)
        if self.safe <= 0 or int(self.time * 12) % 2:
            body = HERO if self.face > 0 else HERO_LEFT
            body = (
                tint(body, (255, 90, 90))
                if self.stun > 0
                else tint(body, (190, 245, 255))
                if self.roll > 0
                else body
            )
            stamp(picture, body, x, y - 3 * abs(np.sin(self.time * 9)))
        if self.reload > 0:  # the wand
            tip = (int(x + 30 * self.aim[0]), int(y + 30 * self.aim[1]))
            cv2.line(
                picture,
                (int(x + 14 * self.aim[0]), int(y + 14 * self.aim[1])),
                tip,
                (255, 240, 160),
                4,
            )
        for bolt in self.bolts:
            stamp(picture, BOLT, bolt[0] - left, bolt[1] - top)
        self.sparks.draw(picture, left, top)
        return picture


class Expert:
    """Walks to the gem or through the door, rolling when it is far; keeps its distance from a
    monster and shoots it.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.distance = self.hands.rng.uniform(105, 125)  # px that it keeps from monsters
        self.far = self.hands.rng.uniform(95, 115)  # px from which on it rolls

    def __call__(self, score):
        target = np.array(score["state"]["target"])
        far = np.hypot(*target) + 1e-6
        way = target / far
        if score["task"] == "slay":
            walk = way * np.clip((far - self.distance) / 40, -1, 1) + 0.35 * way[::-1] * [-1, 1]
            return self.hands(left=walk, right=way)
        return self.hands(
            left=way * np.clip(far / 24, 0.5, 1), tap={"EAST"} if far > self.far else ()
        )


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
