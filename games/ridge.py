"""Ridge: a side-scrolling platformer at dusk, on a ridge over lava.

    python games/ridge.py [--task reach|slimes|coins] [--seed N]

Left stick or d-pad: run. SOUTH: jump (press anew for each jump). WEST: sword. RIGHT_SHOULDER, held:
sprint.
"""

import console
import cv2
import numpy as np
from console import HEIGHT, WIDTH, Hands, Task, World, gradient, mirror, noise, sprite, stamp, tint

TASKS = {
    "reach": Task("Run to the flag, over lava and spikes.", "navigation", 26),
    "slimes": Task("Defeat twelve slimes with the sword.", "combat", 30),
    "coins": Task("Collect fourteen coins.", "specific", 24),
}
SLIMES, COINS = 12, 14
TILE = 32  # px; everything below in px and seconds
# a jump: 76 px high, 0.78 s, 133 px far
RUN, SPRINT, JUMP, VAULT, GRAVITY = 170, 215, 390, 290, 1000
SLIME_HP, HEAL = 2, 2.0  # hits; seconds after which a wounded slime is well
PAUSE = 0.3  # until the next slime or coin appears
COIN_HEIGHT = 92  # above the ground: only a jump reaches it

# ---- sprites

SKIN, SUIT, SCARF, LEG, STEEL = (
    (255, 214, 170),
    (60, 220, 255),
    (255, 255, 255),
    (20, 90, 150),
    (240, 245, 255),
)


def hero(legs):
    return sprite(
        36,
        46,
        *((LEG, [(x0, 30), (x0 + 7, 30), (x1 + 7, 45), (x1, 45)]) for x0, x1 in legs),
        (SUIT, 18, 26, 10, 10),
        (SKIN, 19, 11, 10, 10),
        (SUIT, [(9, 10), (10, 1), (27, 1), (29, 9)]),
        (SCARF, [(11, 18), (26, 17), (26, 22), (14, 23), (1, 28), (3, 20)]),
        ((10, 10, 20), 24, 12, 2, 3),
    )


HERO = {
    "stand": hero([(10, 9), (19, 20)]),
    "run0": hero([(10, 3), (19, 27)]),
    "run1": hero([(13, 15), (16, 13)]),
    "jump": hero([(10, 5), (20, 24)]),
}
ARC = np.linspace(-1.3, 1.3, 12)
SLASH = sprite(
    64,
    56,
    (
        STEEL,
        [(16 + 46 * np.cos(a), 28 + 27 * np.sin(a)) for a in ARC]
        + [(10 + 36 * np.cos(a), 28 + 27 * np.sin(a)) for a in ARC[::-1]],
    ),
)
LIME, GREEN = (150, 255, 60), (40, 150, 30)
SLIME = [
    sprite(
        46,
        36,
        (GREEN, 23, 36 - h / 2, w, h / 2 + 1),
        (LIME, 23, 34 - h / 2, w - 2, h / 2),
        ((255, 255, 255), 15, 24, 5, 6),
        ((255, 255, 255), 31, 24, 5, 6),
        ((0, 0, 0), 16, 25, 2, 3),
        ((0, 0, 0), 30, 25, 2, 3),
    )
    for w, h in ((22, 26), (18, 33))
]
GOLD = (255, 215, 40)
COIN = [
    sprite(
        34,
        34,
        ((150, 90, 0), 17, 17, w, 16),
        (GOLD, 17, 17, w - 2, 14),
        ((255, 250, 190), 17, 17, w / 3, 8),
    )
    for w in (16, 12)
]
FLAG = sprite(
    60,
    120,
    ((255, 255, 255), [(6, 2), (12, 2), (12, 120), (6, 120)]),
    ((255, 40, 200), [(12, 6), (58, 26), (12, 46)]),
)
FLAG_ICON = sprite(
    28,
    28,
    ((255, 255, 255), [(4, 1), (7, 1), (7, 28), (4, 28)]),
    ((255, 40, 200), [(7, 2), (26, 10), (7, 18)]),
)
SLIME_ICON = tuple(cv2.resize(part, (30, 24), interpolation=cv2.INTER_NEAREST) for part in SLIME[0])
MIRRORED = {name: mirror(picture) for name, picture in HERO.items()} | {"slash": mirror(SLASH)}


# ---- levels: a height in tiles for each column (0: lava), and where the spikes are


def course(rng, columns=88):
    """Start, obstacles with room for a run-up between them, flag."""
    height, spikes = [3] * 10, set()
    while len(height) < columns:
        ground, kind = height[-1], rng.integers(4) if len(height) > 10 else 1  # lava first
        if kind == 0:
            spikes |= set(range(len(height), len(height) + int(rng.integers(1, 3))))
        elif kind < 3:
            height += [0, 0]
        else:
            ground += int(rng.choice([-1, 1, 1]))
        ground = ground if 2 <= ground <= 4 else 3
        height += [ground] * int(rng.integers(6, 9))
    return np.array(height + [height[-1]] * 12), spikes


def arena(rng, columns=34):
    """Two walls and low steps between them."""
    height = [3]
    while len(height) < columns:
        height += [int(height[-1] + rng.choice([-1, 1])) if height[-1] == 3 else 3] * int(
            rng.integers(4, 7)
        )
    return np.array([8] * 8 + height + [8] * 8), set()


class Body:
    """A box on legs: x at its middle, y at its feet."""

    def __init__(self, x, y, half):
        self.x, self.y, self.half, self.vx, self.vy, self.ground = x, y, half, 0.0, 0.0, True

    def move(self, top, dt):
        x = self.x + self.vx * dt
        front = x + np.copysign(self.half, self.vx)
        if top(front) < self.y - 4:  # a wall; low steps are vaulted, slowly
            column = front // TILE * TILE
            self.vy = -VAULT if self.ground and top(front) >= self.y - TILE - 4 else self.vy
            x, self.vx = (
                (column - self.half - 0.01 if self.vx > 0 else column + TILE + self.half + 0.01),
                0.0,
            )
        self.x, before = x, self.y
        self.vy += GRAVITY * dt
        self.y += self.vy * dt
        floor = min(top(self.x - self.half + 3), top(self.x + self.half - 3))
        self.ground = self.vy >= 0 and self.y >= floor and before <= floor + 6
        if self.ground:
            self.y, self.vy = floor, 0.0


class Game(World):
    name, genre, tasks = "ridge", "2D side-scroller", TASKS
    icons = {"reach": FLAG_ICON, "slimes": SLIME_ICON, "coins": COIN[0]}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        self.height, self.spikes = course(self.rng) if task == "reach" else arena(self.rng)
        start = TILE * (
            0.5
            + (2 if task == "reach" else len(self.height) // 2)
            + float(self.rng.integers(-2, 3))
        )
        self.hero = Body(start, self.top(start), 11)
        self.start, self.flag = start, TILE * (len(self.height) - 9.5)
        self.face, self.run, self.swing, self.jump, self.float = 1, 0.0, 0.0, 0.0, 0.0
        self.wind, self.next_wind, self.count, self.pause = 0.0, 2.0, 0, 0.0
        self.target = None if task == "reach" else self.spawn()
        self.scenery(np.random.default_rng(abs(seed)))

    def top(self, x):
        """y of the ground at x; lava has none, the ends of the world are walls."""
        column = int(x // TILE)
        height = int(self.height[column]) if 0 <= column < len(self.height) else 99
        return HEIGHT - TILE * height if height else HEIGHT + 200

    def spawn(self):
        """The next slime or coin: left or right of the hero, in view, on the arena's ground."""
        low, high = 9 * TILE, TILE * (len(self.height) - 9)
        choices = [
            x
            for side in (-1, 1)
            for x in [self.hero.x + side * self.rng.uniform(110, 200)]
            if low < x < high
        ]
        x = (float(self.rng.choice(choices)) // TILE + 0.5) * TILE
        target = Body(x, self.top(x) - (COIN_HEIGHT if self.task == "coins" else 0), 15)
        target.hp, target.well, target.hop = SLIME_HP, 0.0, self.rng.uniform(0.3, 1)
        return target

    # ---- the world

    def move(self, pad, dt):
        hero, dazed = self.hero, self.stun > 0
        stick = 0.0 if dazed else pad.left()[0]
        self.swing -= dt
        # a press shortly before landing counts
        self.jump = 0.15 if "SOUTH" in self.fresh else self.jump - dt
        self.float = 0.08 if hero.ground else self.float - dt  # and one shortly after the edge
        if self.time > self.next_wind:
            self.wind, self.next_wind = (
                self.rng.uniform(15, 32) * self.rng.choice([-1, 1]),
                self.time + self.rng.uniform(1.5, 3),
            )
        self.wind *= 1 - 0.8 * dt
        wanted = stick * (SPRINT if pad["RIGHT_SHOULDER"] else RUN) + self.wind * (abs(stick) > 0.1)
        hero.vx += (
            np.clip(wanted - hero.vx, -1100 * dt, 1100 * dt) if not dazed else -3 * hero.vx * dt
        )
        if abs(stick) > 0.15:
            self.face = 1 if stick > 0 else -1
        if self.jump > 0 and self.float > 0 and not dazed:
            hero.vy, self.jump, self.float = -JUMP, 0.0, 0.0
        if "WEST" in self.fresh and self.swing < -0.1 and not dazed:
            self.swing = 0.22
            if self.task == "slimes" and self.target:
                self.strike()
        hero.move(self.top, dt)
        self.run += abs(hero.vx) * dt
        if self.task == "reach" or self.target:
            getattr(self, self.task)(dt)
        self.pause -= dt
        if self.task != "reach" and (
            abs(self.target.x - hero.x) > 230 if self.target else self.pause <= 0
        ):
            self.target = self.spawn()  # the next one, or another where this is out of sight

    def reach(self, dt):
        hero, column = self.hero, int(self.hero.x // TILE)
        if hero.y > HEIGHT - 10:  # in the lava: back to the bank
            self.sparks.burst(self.rng, hero.x, HEIGHT - 12, (255, 150, 30), 24, 240)
            while not self.height[column] or self.height[column - 1] == 0:
                column -= 1
            hero.x, hero.vx, hero.vy = column * TILE - 60.0, 0.0, 0.0
            hero.y, self.safe = self.top(hero.x), 0.0
            self.hurt()
            self.stun = max(self.stun, 0.7)
        if (
            self.safe <= 0
            and hero.y > self.top(hero.x) - 16
            and {int((hero.x + d) // TILE) for d in (-7, 7)} & self.spikes
        ):
            self.sparks.burst(self.rng, hero.x, hero.y - 10, (255, 60, 60))
            while column in self.spikes:
                column -= 1
            hero.vx, hero.vy = -200.0 - (hero.x - (column + 1) * TILE) * 1.5, -260.0
            self.hurt()
        self.reached((hero.x - self.start) / (self.flag - self.start))

    def strike(self):
        slime, hero = self.target, self.hero
        if -8 < (slime.x - hero.x) * self.face < 66 and abs(slime.y - hero.y) < 48:
            self.sparks.burst(self.rng, slime.x, slime.y - 16, STEEL)
            slime.hp, slime.well, slime.vx, slime.vy = slime.hp - 1, HEAL, 210.0 * self.face, -150.0
            if slime.hp <= 0:
                self.sparks.burst(self.rng, slime.x, slime.y - 16, STEEL, 24, 220)
                self.count += 1
                self.reached(self.count / SLIMES)
                self.target, self.pause = None, PAUSE

    def slimes(self, dt):
        slime, hero = self.target, self.hero
        dx = hero.x - slime.x
        slime.well, slime.hop = slime.well - dt, slime.hop - dt
        if slime.well <= 0:
            slime.hp = SLIME_HP
        if slime.ground:
            slime.vx *= 1 - 8 * dt
            if slime.hop <= 0:  # hop, towards the hero when near
                slime.hop, slime.vy = self.rng.uniform(0.7, 1.2), -190.0
                slime.vx = np.sign(dx) * 60 if abs(dx) < 90 else self.rng.uniform(-40, 40)
        slime.move(self.top, dt)
        if abs(dx) < 26 and abs(hero.y - slime.y) < 32 and self.safe <= 0:
            self.hurt()
            hero.vx, hero.vy = 260.0 * (np.sign(dx) or 1), -200.0

    def coins(self, dt):
        coin, hero = self.target, self.hero
        if abs(coin.x - hero.x) < 28 and abs(coin.y - (hero.y - 20)) < 36:
            self.sparks.burst(self.rng, coin.x, coin.y, GOLD, 20)
            self.count += 1
            self.reached(self.count / COINS)
            self.target, self.pause = None, PAUSE

    def edge(self, side):
        """Distance to the next thing to jump over on that side (a step up, lava, spikes), up to 300
        px.
        """
        column = int(self.hero.x // TILE)
        ground = self.height[column]
        for step in range(0 if ground else 1, 10):
            c = min(max(column + side * step, 0), len(self.height) - 1)
            if not self.height[c] or self.height[c] > ground or c in self.spikes:
                return abs((c + (side < 0)) * TILE - self.hero.x) if step else 0.0
            ground = self.height[c]
        return 300.0

    def state(self):
        hero = self.hero
        aim = (
            (self.target.x, self.target.y)
            if self.target
            else (self.flag if self.task == "reach" else hero.x + 60 * self.face, hero.y)
        )
        numbers = (hero.x, hero.y, self.edge(-1), self.edge(1), aim[0] - hero.x, aim[1] - hero.y)
        x, y, left, right, dx, dy = (round(float(value), 2) for value in numbers)
        return {
            "x": x,
            "y": y,
            "ground": bool(hero.ground),
            "face": self.face,
            "left": left,
            "right": right,
            "target": [dx, dy],
        }

    # ---- the picture

    def scenery(self, rng):
        """Three layers, drawn once: sky and sun, hills (a third as fast), the ridge itself."""
        width = len(self.height) * TILE
        self.sky = gradient(
            WIDTH, HEIGHT, (26, 18, 58), (74, 36, 96), (170, 74, 100), (236, 140, 96)
        )
        cv2.circle(self.sky, (330, 165), 46, (250, 170, 150), -1)
        far = width // 3 + WIDTH
        self.hills = np.full((HEIGHT, far, 3), (62, 38, 84), np.uint8)
        crest = HEIGHT - 60 - 90 * noise(rng, 8, far, 70)[0] - 8 * noise(rng, 8, far, 9)[0]
        y = np.arange(HEIGHT)[:, None]
        self.hills[y > crest + 30] = (50, 30, 72)
        self.hills_mask = np.uint8(y > crest)
        top = np.repeat(HEIGHT - TILE * self.height, TILE)  # per pixel column
        depth = y - top
        rock = np.uint8([34, 34, 48]) + np.uint8(14 * noise(rng, HEIGHT, width, 12))[..., None]
        self.ridge = rock
        self.ridge[depth < 11], self.ridge[depth < 5] = (70, 110, 110), (190, 225, 205)
        lava = (np.repeat(self.height, TILE) == 0) & (y > HEIGHT - 46)
        self.ridge[lava] = (255, 110, 10)
        self.ridge[lava & (y < HEIGHT - 40)] = (255, 220, 90)
        self.ridge_mask = np.uint8((depth >= 0) | lava)
        for column in self.spikes:
            for i in range(2):
                x, floor = column * TILE + 16 * i, int(HEIGHT - TILE * self.height[column])
                points = np.int32([[(x, floor), (x + 15, floor), (x + 8, floor - 26)]])
                cv2.fillPoly(self.ridge, points, (255, 45, 45))
                cv2.fillPoly(self.ridge_mask, points, 1)

    def paint(self):
        hero = self.hero
        left = int(
            np.clip(
                hero.x - (150 if self.task == "reach" else WIDTH / 2),
                0,
                len(self.height) * TILE - WIDTH,
            )
        )
        picture = self.sky.copy()
        for layer, mask, x in (
            (self.hills, self.hills_mask, left // 3),
            (self.ridge, self.ridge_mask, left),
        ):
            cv2.copyTo(layer[:, x : x + WIDTH], mask[:, x : x + WIDTH], picture)
        if abs(self.wind) > 8:  # streaks show a gust
            for i in range(8):
                x, y = int(i * 97 + self.time * self.wind * 16) % WIDTH, 40 + i * 37 % 130
                cv2.line(picture, (x, y), (x + int(self.wind), y), (215, 190, 215), 1)
        if self.task == "reach":
            stamp(picture, FLAG, self.flag - left + 24, self.top(self.flag) - 58)
        elif self.target and self.task == "coins":
            stamp(
                picture,
                COIN[int(self.time * 6) % 2],
                self.target.x - left,
                self.target.y + 3 * np.sin(self.time * 5),
            )
        elif self.target:
            body = SLIME[not self.target.ground]
            stamp(
                picture,
                tint(body, 255) if self.target.well > HEAL - 0.12 else body,
                self.target.x - left,
                self.target.y - 17,
            )
        pose = (
            "jump"
            if not hero.ground
            else "stand"
            if abs(hero.vx) < 20
            else f"run{int(self.run / 24) % 2}"
        )
        body = (HERO if self.face > 0 else MIRRORED)[pose]
        if self.safe <= 0 or int(self.time * 12) % 2:
            stamp(
                picture,
                tint(body, (255, 90, 90)) if self.stun > 0 else body,
                hero.x - left,
                hero.y - 22,
            )
        if self.swing > 0:
            stamp(
                picture,
                SLASH if self.face > 0 else MIRRORED["slash"],
                hero.x - left + 34 * self.face,
                hero.y - 22,
            )
        self.sparks.draw(picture, left)
        return picture


class Expert:
    """Runs to the target, jumps when an edge or the coin is near, strikes when the slime is in
    reach.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.edge = self.hands.rng.uniform(36, 46)  # px before an edge at which it jumps
        self.reach = self.hands.rng.uniform(50, 56)

    def __call__(self, score):
        state, task = score["state"], score["task"]
        dx, dy = state["target"]
        run, tap, hold = 1.0, set(), set()
        if task == "coins":
            run = np.clip(dx / 30, -1, 1)
        elif task == "slimes":
            run = np.sign(dx) * np.clip((abs(dx) - 36) / 16, 0.25, 1)
            if abs(dx) < self.reach and abs(dy) < 44 and dx * state["face"] > 0:
                tap.add("WEST")
        ahead = state["right"] if run > 0 else state["left"]
        if state["ground"] and (ahead < self.edge or task == "coins" and abs(dx) < 56):
            tap.add("SOUTH")
        if task == "reach" and ahead > 150:
            hold.add("RIGHT_SHOULDER")
        return self.hands(left=(run, 0), hold=hold, tap=tap)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
