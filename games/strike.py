"""Strike: run-and-gun at an arctic base, in a blizzard.

    python games/strike.py [--task run|raid|bombs] [--seed N]

Left stick: run. SOUTH: jump. LEFT_TRIGGER, held: crouch. Right stick: aim. RIGHT_TRIGGER, held:
fire. LEFT_SHOULDER: grenade. RIGHT_THUMB: kick in a door. D-pad: the code of a bomb.
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
    mirror,
    noise,
    sprite,
    stamp,
    tint,
    unit,
)

TASKS = {
    "run": Task(
        "Run to the helicopter: over pits and crates, under presses, through doors.",
        "navigation",
        30,
    ),
    "raid": Task(
        "Destroy sixteen machines: drones with the gun, tanks with grenades.", "combat", 26
    ),
    "bombs": Task("Disarm nine bombs with the arrows that they show.", "specific", 30),
}
MACHINES, BOMBS, CODE = 16, 9, 2
# tiles: the world's height, the rows to stand on, the ends of an arena
ROWS, FLOOR, GANTRY, WALL = 9, 6, 4, 8
RUN, CRAWL, JUMP, GRAVITY = 175, 120, 390, 1000  # px and seconds from here on
TALL, LOW = 44, 28  # the hero, upright and crouching
BULLET, RELOAD, PLASMA = 540, 0.11, 130
DRONE_HP, HEAL = 4, 1.0  # hits; seconds after which a wounded drone is well
# a grenade: its speed, gravity, radius; seconds to the next
THROW, FALL, BLAST, RELIEF = (215, -170), 700, 46, 0.7
PAUSE, BLINK = 0.3, 0.3  # until the next machine or bomb, or the next arrow of a code
ARROWS = {"DPAD_UP": (0, -1), "DPAD_DOWN": (0, 1), "DPAD_LEFT": (-1, 0), "DPAD_RIGHT": (1, 0)}

# ---- sprites

OLIVE, MOSS, SKIN, RED, STEEL = (
    (70, 96, 40),
    (40, 62, 30),
    (255, 206, 160),
    (230, 30, 40),
    (90, 104, 124),
)
WHITE, BLACK, YELLOW, FIRE = (255, 255, 255), (12, 14, 22), (255, 220, 40), (255, 140, 20)


def hero(legs, low=0):
    """low: how far the head and body are ducked, px."""
    return sprite(
        36,
        46,
        *((MOSS, [(x0, 31), (x0 + 8, 31), (x1 + 8, 46), (x1, 46)]) for x0, x1 in legs),
        (OLIVE, 17, 27 + low / 2, 10, 11 - low / 4),
        (SKIN, 19, 10 + low, 9, 9),
        (MOSS, [(10, 7 + low), (13, low), (25, low), (28, 6 + low)]),
        (
            RED,
            [
                (9, 6 + low),
                (28, 5 + low),
                (28, 9 + low),
                (9, 10 + low),
                (0, 15 + low),
                (1, 8 + low),
            ],
        ),
        (BLACK, 24, 12 + low, 1.6, 2.4),
    )


HERO = {
    "stand": hero([(9, 8), (18, 19)]),
    "run0": hero([(9, 2), (18, 27)]),
    "run1": hero([(12, 15), (15, 12)]),
    "jump": hero([(8, 3), (18, 23)]),
    "low": hero([(6, 2), (20, 25)], 16),
}
HERO_LEFT = {name: mirror(picture) for name, picture in HERO.items()}
DRONE = [
    sprite(
        54,
        40,
        (STEEL, [(4, 6 + s), (50, 10 - s), (50, 14 - s), (4, 10 + s)]),
        (BLACK, [(24, 8), (30, 8), (30, 16), (24, 16)]),
        ((120, 0, 20), 27, 25, 19, 14),
        (RED, 27, 23, 17, 12),
        (WHITE, 27, 24, 8, 7),
        (BLACK, 27, 25, 4, 4),
    )
    for s in (0, 4)
]
TANK = sprite(
    66,
    48,
    (BLACK, 33, 39, 31, 9),
    (STEEL, 14, 39, 6, 6),
    (STEEL, 33, 39, 6, 6),
    (STEEL, 52, 39, 6, 6),
    ((20, 60, 170), [(4, 32), (12, 14), (54, 14), (62, 32)]),
    ((50, 110, 255), [(16, 16), (22, 3), (44, 3), (50, 16)]),
    ((10, 30, 90), [(0, 8), (20, 6), (20, 12), (0, 14)]),
    (WHITE, [(8, 26), (58, 26), (59, 29), (7, 29)]),
)
TANK_RIGHT = mirror(TANK)
GRENADE = sprite(
    16,
    16,
    (BLACK, 8, 9, 7, 7),
    ((60, 150, 60), 8, 9, 5, 5),
    (YELLOW, [(6, 0), (12, 0), (12, 4), (6, 4)]),
)
PLASMA_BALL = sprite(
    20, 20, ((200, 0, 120), 10, 10, 9, 9), ((255, 80, 200), 10, 10, 7, 7), (WHITE, 10, 10, 3, 3)
)
BOMB = sprite(
    48,
    40,
    (BLACK, [(2, 14), (46, 14), (46, 40), (2, 40)]),
    (STEEL, [(5, 17), (43, 17), (43, 37), (5, 37)]),
    (RED, 12, 27, 6, 9),
    (RED, 24, 27, 6, 9),
    (RED, 36, 27, 6, 9),
    (BLACK, [(22, 4), (26, 4), (26, 15), (22, 15)]),
    (YELLOW, 24, 4, 4, 4),
)
DOOR = sprite(
    TILE,
    3 * TILE,
    (BLACK, [(4, 0), (28, 0), (28, 96), (4, 96)]),
    ((235, 60, 40), [(6, 2), (26, 2), (26, 94), (6, 94)]),
    (WHITE, [(9, 30), (23, 30), (23, 36), (9, 36)]),
    (WHITE, [(9, 42), (23, 42), (23, 48), (9, 48)]),
    (BLACK, 22, 64, 3, 3),
)
COPTER = [
    sprite(
        130,
        76,
        (BLACK, [(64 - w, 6), (64 + w, 6), (64 + w, 10), (64 - w, 10)]),
        (BLACK, [(61, 6), (67, 6), (67, 20), (61, 20)]),
        (
            (20, 110, 60),
            [(80, 28), (126, 22), (128, 12), (122, 12), (118, 22), (128, 30), (80, 46)],
        ),
        ((30, 160, 80), 58, 40, 40, 24),
        ((150, 220, 255), [(22, 38), (36, 22), (52, 22), (52, 40)]),
        (WHITE, [(60, 30), (76, 30), (76, 58), (60, 58)]),
        (BLACK, [(24, 68), (90, 68), (90, 72), (24, 72)]),
    )
    for w in (62, 30)
]


def arrow(way, size, *colours):
    """A fat arrow on a board; way: x, y."""
    (x, y), h = way, size / 2

    def point(along, aside):
        return h + h * (x * along - y * aside), h + h * (y * along + x * aside)

    outline = [(0.8, 0), (0, 0.72), (0, 0.3), (-0.75, 0.3), (-0.75, -0.3), (0, -0.3), (0, -0.72)]
    return sprite(
        size,
        size,
        (colours[0], [(0, 0), (size, 0), (size, size), (0, size)]),
        (colours[1], [point(*p) for p in outline]),
    )


SIGN = {name: arrow(way, 58, BLACK, YELLOW) for name, way in ARROWS.items()}
OKAY = sprite(
    58, 58, (BLACK, [(0, 0), (58, 0), (58, 58), (0, 58)]), ((60, 255, 120), 29, 29, 22, 22)
)
RUN_ICON = tuple(cv2.resize(part, (30, 20), interpolation=cv2.INTER_AREA) for part in COPTER[0])
RAID_ICON, BOMB_ICON = (
    tuple(cv2.resize(part, (30, 24), interpolation=cv2.INTER_NEAREST) for part in s)
    for s in (DRONE[0], BOMB)
)


# ---- levels


def course(rng, columns=82):
    """Tiles, and the obstacles on the way as [kind, first column, column after]."""
    tiles, obstacles, column = np.zeros((ROWS, columns + 24), np.uint8), [], 9
    tiles[FLOOR:] = ROCK
    tiles[:, 0] = tiles[:, -1] = ROCK
    while column < columns:
        kind = str(rng.choice(["pit", "door", "press", "crate"] if obstacles else ["pit", "door"]))
        wide = {"door": 1, "press": int(rng.integers(2, 5))}.get(kind, int(rng.integers(2, 4)))
        part = slice(column, column + wide)
        tiles[FLOOR:, part] = 0 if kind == "pit" else ROCK
        tiles[: {"press": FLOOR - 1, "door": FLOOR}.get(kind, 0), part] = ROCK
        tiles[FLOOR - 1 : FLOOR, part] |= ROCK * (kind == "crate")
        obstacles.append([kind, column, column + wide])
        column += wide + int(rng.integers(6, 9))
    return tiles, obstacles


def arena(rng, columns=36):
    """Two walls and gantries between them."""
    tiles = np.zeros((ROWS, columns + 2 * WALL), np.uint8)
    tiles[FLOOR:] = tiles[:, :WALL] = tiles[:, -WALL:] = ROCK
    for column in range(WALL + 2, columns + WALL - 4, 7):
        at = column + int(rng.integers(0, 3))
        tiles[GANTRY, at : at + 4] = LEDGE
    return tiles, []


class Game(World):
    name, genre, tasks = "strike", "2D side-scroller", TASKS
    icons = {"run": RUN_ICON, "raid": RAID_ICON, "bombs": BOMB_ICON}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        self.tiles, self.obstacles = course(self.rng) if task == "run" else arena(self.rng)
        self.wide = self.tiles.shape[1] * TILE
        self.start = TILE * (3.0 if task == "run" else self.tiles.shape[1] / 2) + float(
            self.rng.uniform(-30, 60)
        )
        self.goal = self.wide - 8.5 * TILE
        self.hero, self.face, self.aim, self.stride = (
            Body(self.start, FLOOR * TILE, 11, TALL),
            1,
            (1.0, 0.0),
            0.0,
        )
        self.reload, self.relief, self.jump, self.kick = 0.0, 0.0, 0.0, 0.0
        # [x, y, vx, vy, seconds left]; bangs: [x, y, seconds left]
        self.bullets, self.grenades, self.balls, self.bangs = [], [], [], []
        self.gust, self.next_gust, self.blown, self.count, self.pause = 0.0, 2.0, 0.0, 0, 0.0
        self.thing = None if task == "run" else self.spawn()
        self.scenery(np.random.default_rng(abs(seed)))

    def spawn(self):
        """The next machine or bomb: left or right of the hero, in view."""
        low, high = (WALL + 1) * TILE, self.wide - (WALL + 1) * TILE
        x = float(
            self.rng.choice(
                [
                    x
                    for side in (-1, 1)
                    for x in [self.hero.x + side * self.rng.uniform(110, 200)]
                    if low < x < high
                ]
            )
        )
        if self.task == "bombs":
            code = [str(name) for name in self.rng.choice(list(ARROWS), CODE)]
            row = (
                GANTRY if self.tiles[GANTRY, int(x // TILE)] and self.rng.random() < 0.6 else FLOOR
            )
            return {
                "kind": "bomb",
                "x": x,
                "y": row * TILE - 20.0,
                "code": code,
                "done": 0,
                "blink": 0.0,
            }
        kind = "drone" if self.rng.random() < 0.6 else "tank"
        y = self.rng.uniform(66, 130) if kind == "drone" else FLOOR * TILE - 24.0
        return {
            "kind": kind,
            "x": x,
            "y": float(y),
            "hp": DRONE_HP,
            "well": 0.0,
            "shot": 1.2,
            "sway": self.rng.uniform(0, 6.28),
        }

    # ---- the world

    def move(self, pad, dt):
        hero, free = self.hero, self.stun <= 0
        stick, aim = (pad["LEFT_X"], pad.right()) if free else (0.0, (0.0, 0.0))
        self.reload, self.relief, self.kick, self.pause = (
            self.reload - dt,
            self.relief - dt,
            self.kick - dt,
            self.pause - dt,
        )
        # no getting up under a press
        low = pad["LEFT_TRIGGER"] and hero.ground or hero.blocked(self.tiles, hero.x, hero.y, TALL)
        hero.tall = LOW if low else TALL
        if self.time > self.next_gust:
            self.gust, self.next_gust = (
                float(self.rng.uniform(20, 40) * self.rng.choice([-1, 1])),
                self.time + self.rng.uniform(1.5, 3),
            )
        self.gust *= 1 - 0.8 * dt
        self.blown += (3 * self.gust - 50) * dt
        wanted = stick * (CRAWL if low else RUN) + self.gust * (abs(stick) > 0.1)
        hero.vx += np.clip(wanted - hero.vx, -1200 * dt, 1200 * dt) if free else -3 * hero.vx * dt
        self.jump = 0.15 if "SOUTH" in self.fresh and free else self.jump - dt
        if self.jump > 0 and hero.ground and not low:
            hero.vy, self.jump = -JUMP, 0.0
        hero.move(self.tiles, GRAVITY, dt, drop=pad["LEFT_Y"] > 0.6)
        self.stride += abs(hero.vx) * dt
        self.aim = unit(*aim) if np.hypot(*aim) > 0.4 else self.aim
        look = aim[0] or stick
        self.face = self.face if abs(look) < 0.15 else 1 if look > 0 else -1
        if free:
            self.shoot(pad)
        self.fly(dt)
        if self.task == "run" or self.thing:
            getattr(self, self.task)(dt)
        if self.task != "run" and (
            abs(self.thing["x"] - hero.x) > 225 if self.thing else self.pause <= 0
        ):
            self.thing = self.spawn()  # the next one, or another where this is out of sight

    def shoot(self, pad):
        x, y = self.hero.x, self.hero.y - self.hero.tall * 0.55
        if pad["RIGHT_TRIGGER"] and self.reload <= 0:
            self.reload = RELOAD
            self.bullets.append(
                [
                    x + 20 * self.aim[0],
                    y + 20 * self.aim[1],
                    BULLET * self.aim[0],
                    BULLET * self.aim[1],
                    0.45,
                ]
            )
        if "LEFT_SHOULDER" in self.fresh and self.relief <= 0:
            self.relief = RELIEF
            self.grenades.append([x, y, THROW[0] * self.face, THROW[1], 2.0])
        if "RIGHT_THUMB" in self.fresh:
            self.kick = 0.2
            for kind, first, end in self.obstacles:
                if kind == "door" and 0 < first * TILE - x < 40:
                    self.tiles[FLOOR - 3 : FLOOR, first] = 0
                    self.obstacles.remove([kind, first, end])
                    self.sparks.burst(self.rng, first * TILE + 8, y, (235, 60, 40), 30, 260)
                    break

    def fly(self, dt):
        for shot in self.bullets + self.grenades + self.balls:
            shot[0], shot[1], shot[4] = shot[0] + shot[2] * dt, shot[1] + shot[3] * dt, shot[4] - dt
        for grenade in self.grenades:
            grenade[3] += FALL * dt
            if (
                grenade[1] > FLOOR * TILE - 4
                or self.thing
                and np.hypot(grenade[0] - self.thing["x"], grenade[1] - self.thing["y"]) < 28
            ):
                grenade[4] = 0.0
                self.bangs.append([grenade[0], grenade[1], 0.3])
                self.sparks.burst(self.rng, grenade[0], grenade[1], FIRE, 24, 220)

        def solid(x, y):
            return y > 0 and self.tiles[min(int(y // TILE), ROWS - 1), int(x // TILE)] == ROCK

        self.bullets = [shot for shot in self.bullets if shot[4] > 0 and not solid(*shot[:2])]
        self.grenades, self.balls = (
            [shot for shot in shots if shot[4] > 0] for shots in (self.grenades, self.balls)
        )
        self.bangs = [[x, y, left - dt] for x, y, left in self.bangs if left > dt]

    def knock(self, way):
        """A hit from that side."""
        if self.safe <= 0:
            self.sparks.burst(self.rng, self.hero.x, self.hero.y - 24, RED)
            self.hero.vx, self.hero.vy = 240.0 * way, -180.0
            self.hurt()

    def run(self, dt):
        hero = self.hero
        if hero.y > HEIGHT + 40:  # down a pit: back to its edge
            first = max(
                first
                for kind, first, _ in self.obstacles
                if kind == "pit" and first * TILE <= hero.x + TILE
            )
            self.hero, self.safe = Body(first * TILE - 70.0, FLOOR * TILE, 11, TALL), 0.0
            self.hurt()
            self.stun = max(self.stun, 0.7)
        self.reached((hero.x - self.start) / (self.goal - self.start))

    def raid(self, dt):
        hero, foe = self.hero, self.thing
        dx, dy = hero.x - foe["x"], hero.y - 24 - foe["y"]
        foe["well"], foe["shot"] = foe["well"] - dt, foe["shot"] - dt
        if foe["kind"] == "drone":
            foe["x"] += float(40 * np.sin(1.7 * self.time + foe["sway"])) * dt
            if foe["well"] <= 0:
                foe["hp"] = DRONE_HP
            if foe["shot"] <= 0:
                way, foe["shot"] = unit(dx, dy), 1.7
                self.balls.append([foe["x"], foe["y"], PLASMA * way[0], PLASMA * way[1], 2.0])
        else:
            foe["x"] += float(np.sign(dx)) * 42 * dt
            if abs(dx) < 42 and abs(dy) < 40:  # it runs the hero over, and is gone
                self.knock(np.sign(dx))
                self.sparks.burst(self.rng, foe["x"], foe["y"], (50, 110, 255), 20, 200)
                self.thing, self.pause = None, PAUSE
                return
        self.land_shots(foe)
        for ball in self.balls:
            if ball[4] > 0 and abs(ball[0] - hero.x) < 16 and 0 < hero.y - ball[1] < hero.tall:
                ball[4] = 0.0
                self.knock(np.sign(ball[2]))
        if self.destroyed(foe):
            self.sparks.burst(self.rng, foe["x"], foe["y"], FIRE, 30, 260)
            self.bangs.append([foe["x"], foe["y"], 0.3])
            self.count += 1
            self.reached(self.count / MACHINES)
            self.thing, self.pause = None, PAUSE

    def land_shots(self, foe):
        """Bullets take plasma balls, and hit the machine."""
        for shot in self.bullets:
            for ball in self.balls:
                if np.hypot(shot[0] - ball[0], shot[1] - ball[1]) < 18:
                    shot[4] = ball[4] = 0.0
                    self.sparks.burst(self.rng, ball[0], ball[1], (255, 80, 200), 8)
            if shot[4] > 0 and np.hypot(shot[0] - foe["x"], shot[1] - foe["y"]) < 25:
                shot[4] = 0.0
                self.sparks.burst(self.rng, shot[0], shot[1], YELLOW, 3)
                if foe["kind"] == "drone":
                    foe["hp"], foe["well"] = foe["hp"] - 1, HEAL

    def destroyed(self, foe):
        """Shot down; or a tank that a grenade's blast reaches."""
        blasts = (np.hypot(x - foe["x"], y - foe["y"]) < BLAST for x, y, _ in self.bangs)
        return foe["hp"] <= 0 or foe["kind"] == "tank" and any(blasts)

    def at(self, bomb):
        return (
            self.hero.ground
            and abs(bomb["x"] - self.hero.x) < 28
            and abs(bomb["y"] + 20 - self.hero.y) < 4
        )

    def bombs(self, dt):
        bomb = self.thing
        bomb["blink"] -= dt
        pressed = [name for name in ARROWS if name in self.fresh]
        if bomb["blink"] <= 0 and bomb["done"] == CODE:
            self.thing, self.pause = None, PAUSE
        elif pressed and bomb["blink"] <= 0 and self.at(bomb) and self.stun <= 0:
            if pressed != [bomb["code"][bomb["done"]]]:  # it blows up
                self.bangs.append([bomb["x"], bomb["y"], 0.3])
                self.sparks.burst(self.rng, bomb["x"], bomb["y"], FIRE, 30, 260)
                self.knock(np.sign(self.hero.x - bomb["x"]) or 1)
                self.thing, self.pause = None, PAUSE
                return
            bomb["done"], bomb["blink"] = bomb["done"] + 1, BLINK
            self.reached((self.count + bomb["done"] / CODE) / BOMBS)
            self.count += bomb["done"] == CODE

    def state(self):
        hero, thing = self.hero, self.thing
        aim = (
            (thing["x"] - hero.x, thing["y"] - hero.y + hero.tall * 0.55)
            if thing
            else (60 * self.face, 0)
        )
        state = {
            "x": round(float(hero.x), 2),
            "y": round(float(hero.y), 2),
            "ground": bool(hero.ground),
            "face": self.face,
            "kind": thing and thing["kind"],
            "target": [round(float(v), 2) for v in aim],
            "arrow": thing["code"][thing["done"]]
            if self.task == "bombs" and thing and thing["blink"] <= 0
            else None,
        }
        for kind, first, end in self.obstacles:  # the next one: where it begins and ends
            if end * TILE > hero.x - 14:
                return state | {
                    "obstacle": [
                        kind,
                        round(float(first * TILE - hero.x), 2),
                        round(float(end * TILE - hero.x), 2),
                    ]
                }
        return state

    # ---- the picture

    def scenery(self, rng):
        """Sky, mountains (a fifth as fast), huts and masts (half as fast) and the base itself,
        drawn once; the snow.
        """
        self.sky = gradient(
            WIDTH, HEIGHT, (88, 132, 178), (140, 180, 212), (206, 226, 238), (232, 240, 246)
        )
        y = np.arange(HEIGHT)[:, None]
        wide = self.wide // 5 + WIDTH
        crest = 60 + 90 * noise(rng, 8, wide, 80)[0] + 14 * noise(rng, 8, wide, 12)[0]
        ice = np.uint8([150, 182, 210]) + np.uint8(30 * noise(rng, HEIGHT, wide, 14))[..., None]
        ice[y > crest + 26] -= np.uint8([30, 26, 18])
        wide = self.wide // 2 + WIDTH
        masts, mask = (
            np.full((HEIGHT, wide, 3), (104, 128, 152), np.uint8),
            np.zeros((HEIGHT, wide), np.uint8),
        )
        for x in np.cumsum(rng.integers(60, 130, wide // 90)):
            high, kind = int(rng.integers(90, 150)), rng.integers(3)
            if kind == 0:  # a mast with a dish
                cv2.line(mask, (int(x), high), (int(x), HEIGHT), 1, 5)
                cv2.ellipse(mask, (int(x), high), (22, 9), -35, 0, 360, 1, -1)
            else:  # a hangar, or a hut
                cv2.rectangle(mask, (int(x) - 34, high + 30), (int(x) + 34, HEIGHT), 1, -1)
                cv2.ellipse(mask, (int(x), high + 30), (34, 18 * int(kind)), 0, 180, 360, 1, -1)
                cv2.rectangle(
                    masts, (int(x) - 20, high + 48), (int(x) - 8, high + 56), (250, 230, 150), -1
                )
        self.layers = ((ice, np.uint8(y > crest), 5), (masts, mask, 2), (*self.base(rng), 1))
        self.snow = rng.uniform(0, 1, (90, 3)) * [WIDTH, HEIGHT, 1]

    def base(self, rng):
        """What one stands on, and its mask."""
        base = np.uint8([58, 68, 88]) + np.uint8(14 * noise(rng, HEIGHT, self.wide, 10))[..., None]
        base[:, ::TILE], base[::TILE] = (40, 46, 62), (40, 46, 62)
        solid = self.tiles == ROCK
        solid[FLOOR:] = True  # pits are dark
        for kind, first, end in self.obstacles:
            a, b = first * TILE, end * TILE
            if kind == "press":  # yellow and black at its lower edge
                for x in range(a - 16, b, 24):
                    cv2.fillPoly(
                        base,
                        [np.int32([(x, 160), (x + 12, 160), (x + 28, 132), (x + 16, 132)])],
                        YELLOW,
                    )
                base[132:160, a - 20 : a] = base[100:128, a - 20 : a]
            if kind == "crate":
                base[160:192, a:b] = (196, 120, 50)
                for x in range(a, b, TILE):
                    cv2.rectangle(base, (x + 2, 162), (x + 29, 190), (110, 60, 20), 2)
                    cv2.line(base, (x + 2, 162), (x + 29, 190), (110, 60, 20), 2)
            if kind == "door":
                solid[FLOOR - 3 : FLOOR, first] = False  # drawn as long as it is there
        solid = np.repeat(np.repeat(np.uint8(solid), TILE, 0), TILE, 1)[:HEIGHT]
        for depth, snow in ((9, (212, 226, 238)), (6, WHITE)):  # on everything on which it can lie
            bare = solid.copy()
            bare[depth:] &= solid[:-depth]
            base[solid > bare] = snow
        for column in np.flatnonzero(self.tiles[FLOOR] == 0) * TILE:
            base[FLOOR * TILE :, column : column + TILE] = gradient(
                TILE, HEIGHT - FLOOR * TILE, (50, 74, 120), (6, 8, 22), (6, 8, 22)
            )
        for row, column in np.argwhere(self.tiles == LEDGE) * TILE:
            (
                base[row : row + 12, column : column + TILE],
                solid[row : row + 12, column : column + TILE],
            ) = (150, 90, 50), 1
            base[row : row + 5, column : column + TILE] = WHITE
            cv2.line(base, (column, row + 11), (column + TILE, row + 5), (70, 40, 30), 2)
        return base, solid

    def paint(self):
        hero = self.hero
        left = int(
            np.clip(hero.x - (150 if self.task == "run" else WIDTH / 2), 0, self.wide - WIDTH)
        )
        picture = self.sky.copy()
        for layer, mask, slow in self.layers:
            x = left // slow
            cv2.copyTo(layer[:, x : x + WIDTH], mask[:, x : x + WIDTH], picture)
        for kind, first, _ in self.obstacles:
            if kind == "door":
                stamp(picture, DOOR, (first + 0.5) * TILE - left, (FLOOR - 1.5) * TILE)
        if self.task == "run":
            stamp(
                picture,
                COPTER[int(self.time * 20) % 2],
                self.goal - left + 46,
                FLOOR * TILE - 34 - 2 * np.sin(9 * self.time),
            )
        elif self.thing:
            self.paint_thing(picture, left)
        self.paint_hero(picture, left)
        for shot in self.bullets:
            tail = int(shot[0] - left - 0.024 * shot[2]), int(shot[1] - 0.024 * shot[3])
            cv2.line(picture, tail, (int(shot[0] - left), int(shot[1])), (255, 90, 0), 5)
            cv2.line(picture, tail, (int(shot[0] - left), int(shot[1])), (255, 250, 150), 2)
        for shots, body in ((self.grenades, GRENADE), (self.balls, PLASMA_BALL)):
            for shot in shots:
                stamp(picture, body, shot[0] - left, shot[1])
        for x, y, rest in self.bangs:
            for part, colour in ((1, FIRE), (0.7, YELLOW), (0.4, WHITE)):
                cv2.circle(
                    picture,
                    (int(x - left), int(y)),
                    int(BLAST * part * (1.2 - rest * 2)),
                    colour,
                    -1,
                )
        self.sparks.draw(picture, left)
        flakes(picture, self.snow, self.blown - left, 110 * self.time, WHITE)
        return picture

    def paint_thing(self, picture, left):
        thing, x = self.thing, self.thing["x"] - left
        if thing["kind"] == "bomb":
            stamp(picture, BOMB, x, thing["y"])
            cv2.rectangle(
                picture,
                (int(x) - 33, 202),
                (int(x) + 32, 267),
                (60, 255, 120) if self.at(thing) else WHITE,
                -1,
            )
            stamp(
                picture, OKAY if thing["blink"] > 0 else SIGN[thing["code"][thing["done"]]], x, 235
            )
            return
        drone = thing["kind"] == "drone"
        body = (
            DRONE[int(self.time * 14) % 2]
            if drone
            else TANK
            if self.hero.x < thing["x"]
            else TANK_RIGHT
        )
        stamp(
            picture,
            tint(body, 255) if thing["well"] > HEAL - 0.06 else body,
            x,
            thing["y"] + drone * 3 * np.sin(5 * self.time),
        )

    def paint_hero(self, picture, left):
        hero = self.hero
        pose = (
            "low"
            if hero.tall == LOW
            else "jump"
            if not hero.ground
            else "stand"
            if abs(hero.vx) < 20
            else f"run{int(self.stride / 24) % 2}"
        )
        body = (HERO if self.face > 0 else HERO_LEFT)[pose]
        x, y = int(hero.x) - left, int(hero.y - hero.tall * 0.55)
        if self.safe <= 0 or int(self.time * 12) % 2:
            stamp(picture, tint(body, (255, 90, 90)) if self.stun > 0 else body, x, hero.y - 22)
            if self.kick > 0:
                cv2.line(picture, (x, y + 8), (x + 30 * self.face, y + 2), MOSS, 9)
            barrel = x + int(26 * self.aim[0]), y + int(26 * self.aim[1])
            cv2.line(picture, (x, y), barrel, BLACK, 7)
            cv2.line(picture, (x, y), barrel, STEEL, 3)
            if self.reload > 0.06:
                cv2.circle(picture, barrel, 8, YELLOW, -1)


class Expert:
    """Jumps, crouches or kicks at the next obstacle; keeps its distance from machines; reads the
    bomb's arrow.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.edge = self.hands.rng.uniform(34, 46)  # px before a pit or crate at which it jumps
        self.distance = self.hands.rng.uniform(115, 135)  # px that it keeps from machines

    def __call__(self, score):
        state, task = score["state"], score["task"]
        if task == "run":
            kind, first, end = state.get("obstacle", ("", 999, 999))
            tap = (
                {"SOUTH"}
                if kind in ("pit", "crate") and first < self.edge and state["ground"]
                else set()
            )
            tap |= {"RIGHT_THUMB"} if kind == "door" and first < 38 else set()
            return self.hands(
                left=(1, 0),
                hold={"LEFT_TRIGGER"} if kind == "press" and first < 60 else (),
                tap=tap,
            )
        (dx, dy), kind = state["target"], state["kind"]
        if task == "bombs":
            tap = (
                {state["arrow"]}
                if abs(dx) < 20 and abs(dy) < 12 and state["arrow"] and state["ground"]
                else set()
            )
            tap |= {"SOUTH"} if dy < -40 and abs(dx) < 40 and state["ground"] else set()
            gun = np.sign(dx) if abs(dx) > 30 else state["face"]
            return self.hands(
                left=(np.clip(dx / 40, -1, 1), dy > 40 and abs(dx) < 60),
                right=(0.8 * gun, -0.3),
                tap=tap,
            )
        far = np.hypot(dx, dy) + 1e-6
        walk = np.sign(dx) * np.clip((abs(dx) - self.distance) / 40, -1, 1) if kind else 0
        tap = {"LEFT_SHOULDER"} if kind == "tank" and 75 < abs(dx) < 150 else ()
        return self.hands(
            left=(walk, 0),
            right=(dx / far, dy / far),
            hold={"RIGHT_TRIGGER"} if kind == "drone" else (),
            tap=tap,
        )


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
