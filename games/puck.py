"""Puck: ice hockey under floodlights, seen from the stands.

    python games/puck.py [--task goals|checks|slalom] [--seed N]

Left stick or d-pad: skate. LEFT_TRIGGER, held: faster. LEFT_SHOULDER, held: brake. SOUTH: pass the
way you face. RIGHT_TRIGGER: shoot; the right stick, up or down, picks the corner. EAST: body check.
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
    noise,
    person,
    pointer,
    posed,
    sprite,
    stars,
    turn,
    unit,
)

TASKS = {
    "goals": Task(
        "Score seven goals: pass to the mate, take the glowing puck back, shoot past the goalie.",
        "specific",
        40,
    ),
    "checks": Task("Win the puck from seven rivals, two body checks each.", "combat", 40),
    "slalom": Task("Carry the puck through fourteen gates.", "navigation", 36),
}
GOALS, CHECKS, GATES = 7, 7, 14
# metres and seconds from here on; x to the right, y towards the viewer
LEFT, TOP, RIGHT, BOTTOM = 6.0, 8.0, 44.0, 27.0  # the boards
# the goal line, half the width of the goal and of the goalie
GOAL_X, GOAL_Y, MOUTH, GOALIE = 41.0, 17.5, 1.6, 0.85
# acceleration, drag, times the push, drag of the brake
PUSH, GLIDE, FASTER, BRAKE = 11.0, 1.7, 1.35, 5.0
LUNGE, LUNGING, REST = 10.0, 0.28, 0.45  # speed and seconds of a check, seconds until the next
SHOT, PASS, RANGE = 20.0, 13.0, 10.0  # speeds of the puck, how far off one may shoot
BALANCE, HEAL = 2, 2.5  # checks that fell a rival; seconds until he is steady again
HALF_GATE = 1.5
BACK, EYE, HORIZON = 11.5, 8.5, -112  # the camera
PIXEL = 0.05

# ---- colours and icons

RED, NAVY, GOLD, WHITE, DARK = (
    (225, 40, 50),
    (40, 50, 120),
    (255, 205, 60),
    (250, 252, 255),
    (24, 26, 40),
)
GREEN, HOT, SKIN, BLUE = (60, 230, 110), (255, 140, 30), (240, 200, 170), (50, 110, 210)
ICONS = {
    "goals": sprite(
        30,
        28,
        (WHITE, [(3, 8), (27, 8), (27, 26), (3, 26)]),
        (DARK, [(6, 11), (24, 11), (24, 26), (6, 26)]),
        (RED, [(1, 4), (29, 4), (29, 9), (1, 9)]),
        (HOT, 15, 20, 6, 4),
    ),
    "checks": sprite(
        30,
        28,
        (NAVY, 10, 15, 9, 11),
        (RED, 21, 15, 8, 11),
        (GOLD, [(15, 2), (18, 11), (27, 14), (18, 17), (15, 27), (12, 17), (4, 14), (12, 11)]),
    ),
    "slalom": sprite(
        30,
        28,
        ((255, 120, 30), [(5, 4), (9, 4), (12, 26), (2, 26)]),
        ((255, 120, 30), [(21, 4), (25, 4), (28, 26), (18, 26)]),
        (BLUE, [(12, 14), (18, 14), (18, 18), (12, 18)]),
    ),
}


class Skater:
    def __init__(self, x, y, shirt, facing=0.0):
        self.x, self.y, self.v, self.facing, self.shirt, self.stride = (
            float(x),
            float(y),
            np.zeros(2),
            facing,
            shirt,
            0.0,
        )
        self.balance, self.well, self.down = BALANCE, 0.0, 0.0

    def skate(self, way, push, dt, drag=GLIDE):
        """Pushed along `way`; the boards stop it."""
        self.v = (self.v + push * np.asarray(way) * dt) * max(0.0, 1 - drag * dt)
        before = np.array([self.x, self.y])
        here = np.clip(before + self.v * dt, (LEFT + 0.5, TOP + 0.5), (RIGHT - 0.5, BOTTOM - 0.5))
        self.v = np.where(abs(here - before) < 1e-9, 0, self.v)
        self.x, self.y = here.tolist()
        if np.hypot(*way) > 0.2:
            self.facing += turn(np.arctan2(way[1], way[0]) - self.facing) * min(1, 10 * dt)
        self.stride += 1.6 * np.hypot(*self.v) * dt
        self.well, self.down = self.well - dt, self.down - dt

    def blade(self, reach=1.0):
        return self.x + reach * np.cos(self.facing), self.y + reach * np.sin(self.facing)


def away(a, x, y):
    """Vector and distance from a skater to a point."""
    return np.array([x - a.x, y - a.y]), float(np.hypot(x - a.x, y - a.y)) + 1e-9


class Game(World):
    name, genre, tasks, icons = "puck", "sports", TASKS, ICONS

    def __init__(self, task, seed):
        super().__init__(task, seed)
        self.hero, self.others, self.count, self.pause = Skater(25, 17, RED), [], 0, 0.0
        self.owner, self.hot, self.flight, self.puck = (
            self.hero,
            False,
            np.zeros(2),
            np.array([26.0, 17.0]),
        )
        self.lunge, self.lost, self.goalie, self.phase, self.mate, self.rival, self.held = (
            0.0,
            0.0,
            GOAL_Y,
            0.0,
            None,
            None,
            0.0,
        )
        self.camera = Camera(np.radians(70), HORIZON, (18, 22, 40), 60)
        self.gate = None
        self.begin()
        self.look()
        self.scenery(np.random.default_rng(abs(seed)))

    def begin(self):
        """A face-off, the next rival, or the next gate."""
        rng, hero = self.rng, self.hero
        self.lost, self.flight, self.joy = 0.0, np.zeros(2), False
        if self.task == "goals":
            hero.x, hero.y, hero.v, hero.facing = (
                rng.uniform(23, 28),
                rng.uniform(12, 23),
                np.zeros(2),
                float(rng.uniform(-3, 3)),
            )
            self.mate = Skater(
                rng.uniform(33, 36), GOAL_Y + rng.choice([-1, 1]) * rng.uniform(3.5, 6), RED, np.pi
            )
            self.rival = Skater(hero.x - rng.uniform(5, 7), hero.y + rng.uniform(-3, 3), NAVY)
            self.owner, self.hot, self.phase, self.others = (
                hero,
                False,
                rng.uniform(0, 6.28),
                [self.mate, self.rival],
            )
        elif self.task == "checks":
            x, y = self.spot(6, 8, 1.5)
            self.owner = self.rival = Skater(x, y, NAVY)
            self.rival.goal, self.rival.until, self.others = (x, y), 0.0, [self.rival]
        else:
            x, y = self.spot(5, 7.5, 2.8)
            self.gate = {
                "x": x,
                "y": y,
                "facing": float(np.arctan2(y - hero.y, x - hero.x) + rng.uniform(-0.5, 0.5)),
            }

    def spot(self, low, high, margin):
        """A point on the ice at a distance from the hero, not straight ahead."""
        while True:
            bearing, far = (
                self.hero.facing + self.rng.uniform(0.5, 1.5) * self.rng.choice([-1, 1]),
                self.rng.uniform(low, high),
            )
            if self.rng.random() < 0.02:  # in a corner: any way out
                self.hero.facing += self.rng.uniform(-1, 1)
            x, y = self.hero.x + far * np.cos(bearing), self.hero.y + far * np.sin(bearing)
            if LEFT + margin < x < RIGHT - margin and TOP + margin < y < BOTTOM - margin:
                return float(x), float(y)

    # ---- the world

    def move(self, pad, dt):
        hero, awake = self.hero, self.stun <= 0
        way = np.array(pad.left()) if awake else np.zeros(2)
        push = PUSH * (FASTER if pad["LEFT_TRIGGER"] else 1)
        self.lunge -= dt
        if "EAST" in self.fresh and self.lunge < -REST and awake:
            self.lunge = LUNGING
            to, far = away(hero, self.rival.x, self.rival.y) if self.rival else (way, 9)
            bearing = np.arctan2(to[1], to[0])
            if far < 3.5 and abs(turn(bearing - hero.facing)) < 0.8:  # into the rival
                hero.facing = float(bearing)
        if self.lunge > 0:
            hero.v, way = LUNGE * np.array([np.cos(hero.facing), np.sin(hero.facing)]), np.zeros(2)
        hero.skate(way, push, dt, GLIDE + BRAKE * pad["LEFT_SHOULDER"])
        self.slide(pad, dt)
        self.pause -= dt
        getattr(self, self.task)(dt)
        self.look()

    def slide(self, pad, dt):
        """The puck: on somebody's stick, or free on the ice."""
        hero = self.hero
        if (
            self.owner is hero
            and (pad["RIGHT_TRIGGER"] or "SOUTH" in self.fresh)
            and self.pause <= 0
        ):
            toward = np.array([np.cos(hero.facing), np.sin(hero.facing)])
            if (
                pad["RIGHT_TRIGGER"]
                and self.task == "goals"
                and self.hot
                and away(hero, GOAL_X, GOAL_Y)[1] < RANGE
            ):
                corner = GOAL_Y + 1.25 * (
                    np.sign(pad["RIGHT_Y"]) if abs(pad["RIGHT_Y"]) > 0.3 else 0
                )
                toward = np.array(unit(GOAL_X - self.puck[0], corner - self.puck[1]))
            elif (
                "SOUTH" in self.fresh
                and self.mate
                and abs(
                    turn(np.arctan2(*away(hero, self.mate.x, self.mate.y)[0][::-1]) - hero.facing)
                )
                < 0.4
            ):
                toward = np.array(unit(self.mate.x - self.puck[0], self.mate.y - self.puck[1]))
            self.owner, self.flight = None, (SHOT if pad["RIGHT_TRIGGER"] else PASS) * toward
        if self.owner:
            self.puck = self.puck + (self.owner.blade() - self.puck) * min(1, 20 * dt)
            return
        self.puck, self.flight = self.puck + self.flight * dt, self.flight * (1 - 0.5 * dt)
        for i, (low, high) in enumerate(((LEFT, RIGHT), (TOP, BOTTOM))):
            if not low + 0.2 < self.puck[i] < high - 0.2:
                self.puck[i], self.flight[i] = (
                    np.clip(self.puck[i], low + 0.2, high - 0.2),
                    -0.5 * self.flight[i],
                )
        speed = np.hypot(*self.flight)
        if away(hero, *self.puck)[1] < 1.4 and (
            speed < 9 or self.flight @ away(hero, *self.puck)[0] < 0
        ):
            self.owner = hero

    def burst(self, x, y, colour, count=24):
        px, py, _ = self.camera.project(x, y, 0.6)
        self.sparks.burst(self.rng, px, py, colour, count, 200)

    def goals(self, dt):
        hero, mate, rival = self.hero, self.mate, self.rival
        self.goalie = GOAL_Y + 0.8 * np.sin(1.3 * self.time + self.phase)
        if self.joy and self.pause <= 0:
            self.begin()
        if self.joy:
            return
        mate.skate((0, 0), 0, dt)
        to, _ = away(mate, hero.x, hero.y)
        mate.facing += turn(np.arctan2(to[1], to[0]) - mate.facing) * min(1, 8 * dt)
        self.lost = self.lost + dt if self.owner is None else 0.0
        if self.owner is None and not self.hot and away(mate, *self.puck)[1] < 1.3:
            self.owner, self.held, self.hot = mate, 0.45, True
            self.burst(mate.x, mate.y, HOT, 12)
        self.held -= dt
        if self.owner is mate and self.held <= 0:  # back into the hero's way
            self.owner = None
            self.flight = PASS * np.array(
                unit(*(hero.v * 0.4 + [hero.x - self.puck[0], hero.y - self.puck[1]]))
            )
        chased = self.owner or hero
        way, far = away(rival, chased.x, chased.y)
        rival.skate(way / far, 7.5, dt)
        if self.owner is hero and away(rival, hero.x, hero.y)[1] < 1.0:
            self.burst(hero.x, hero.y, NAVY)  # the rival has it: another face-off
            self.begin()
        elif (
            self.owner is None
            and self.puck[0] > GOAL_X
            and abs(self.puck[1] - GOAL_Y) < MOUTH
            and self.flight[0] > 0
        ):
            if self.hot and abs(self.puck[1] - self.goalie) > GOALIE:
                self.burst(GOAL_X, self.puck[1], GOLD, 40)
                self.count, self.joy, self.pause, self.flight = (
                    self.count + 1,
                    True,
                    0.7,
                    np.zeros(2),
                )
            else:
                self.burst(GOAL_X, self.puck[1], WHITE)
                self.begin()
        elif self.lost > 1.3:
            self.begin()
        self.reached(
            (self.count + 0.3 * (self.hot and self.owner is hero and not self.joy)) / GOALS
        )

    def checks(self, dt):
        hero, rival = self.hero, self.rival
        way, far = away(rival, hero.x, hero.y)
        if rival.well <= 0:
            rival.balance = BALANCE
        goal, distance = away(rival, *rival.goal)
        if distance < 1.5 or self.time > rival.until:  # elsewhere
            rival.until = self.time + self.rng.uniform(1.5, 3)
            rival.goal = (
                float(self.rng.uniform(LEFT + 3, RIGHT - 3)),
                float(self.rng.uniform(TOP + 3, BOTTOM - 3)),
            )
        flee = goal / distance - (1.1 * way / far if far < 4 else 0)
        rival.skate(
            np.array(unit(*flee)) if self.pause <= 0 else (0, 0),
            8.2 if rival.balance == BALANCE else 5.5,
            dt,
        )
        if far < 1.25 and self.pause <= 0:
            if self.lunge > 0:
                rival.v, rival.balance, rival.well = -9 * way / far, rival.balance - 1, HEAL
                self.lunge, hero.v = -0.1, 0.2 * hero.v
                self.burst(rival.x, rival.y, WHITE)
                if rival.balance == 0:
                    rival.down, self.pause, self.owner = 9.0, 0.6, hero
                    self.count += 1
            elif self.lunge < -REST - 0.2 and self.safe <= 0:  # too slow
                hero.v = 9 * way / far
                self.burst(hero.x, hero.y, RED)
                self.hurt()
        if far > 15 or rival.down > 0 and self.pause <= 0:
            self.begin()
        self.reached((self.count + 0.3 * (self.rival.balance == 1)) / CHECKS)

    def slalom(self, dt):
        gate, hero = self.gate, self.hero
        c, s = np.cos(gate["facing"]), np.sin(gate["facing"])
        along, aside = (
            ((hero.x - gate["x"]) * c + (hero.y - gate["y"]) * s),
            ((hero.y - gate["y"]) * c - (hero.x - gate["x"]) * s),
        )
        before, gate["along"] = gate.get("along", along), along
        if (
            before * along <= 0
            and abs(aside) < HALF_GATE
            and self.owner is hero
            and before != along
        ):
            self.burst(gate["x"], gate["y"], GREEN)
            self.count += 1
            self.begin()
        self.reached(self.count / GATES)

    def target(self):
        """What to skate to: the puck, the mate, the goal, the rival, the gate."""
        if self.task == "checks":
            return self.rival.x, self.rival.y
        if self.owner is not self.hero and not (self.task == "goals" and self.owner):
            return self.puck.tolist()
        if self.task == "slalom":
            return self.gate["x"], self.gate["y"]
        return (GOAL_X, GOAL_Y) if self.hot else (self.mate.x, self.mate.y)

    def state(self):
        hero, (x, y) = self.hero, self.target()
        return {
            "x": round(hero.x, 3),
            "y": round(hero.y, 3),
            "v": [round(float(v), 3) for v in hero.v],
            "facing": round(float(turn(hero.facing)), 4),
            "target": [round(float(x - hero.x), 3), round(float(y - hero.y), 3)],
            "hot": bool(self.hot),
            "mine": self.owner is hero,
            "goalie": round(float(self.goalie - GOAL_Y), 3),
            "lunge": round(self.lunge, 3),
        }

    # ---- the picture

    def look(self):
        self.camera.place(
            float(np.clip(self.hero.x + 1, LEFT + 6.5, RIGHT - 5.5)),
            float(np.clip(self.hero.y, 14.5, 24)) + BACK,
            EYE,
            -np.pi / 2,
        )

    def scenery(self, rng):
        """The rink and the stands from above."""
        h, w = int(44 / PIXEL), int(50 / PIXEL)

        def at(x, y):
            return int(x / PIXEL), int(y / PIXEL)

        arena = np.full((h, w, 3), (26, 28, 46), np.uint8)
        for x, y in rng.integers(0, (w, int(TOP / PIXEL)), (2600, 2)).tolist():  # the crowd
            y = y // 12 * 12
            cv2.ellipse(arena, (x, y), (5, 8), 0, 0, 360, rng.integers(40, 200, 3).tolist(), -1)
            cv2.circle(arena, (x, y - 9), 4, (200, 160, 140), -1)
        ice = (
            np.float32([214, 230, 242])
            + 16 * (noise(rng, h, w, 40) + noise(rng, h, w, 5) - 1)[..., None]
        )
        light = np.exp(-(((np.arange(w) * PIXEL - 25) / 17) ** 2))[None, :, None]
        ice = np.uint8((ice * (0.86 + 0.14 * light)).clip(0, 255))
        for x, colour, wide in (
            (25, RED, 7),
            (18, BLUE, 7),
            (32, BLUE, 7),
            (GOAL_X, RED, 3),
            (50 - GOAL_X, RED, 3),
        ):
            cv2.line(ice, at(x, TOP), at(x, BOTTOM), colour, wide)
        for x, y, colour in (
            (25, 17.5, BLUE),
            (36, 12.5, RED),
            (36, 22.5, RED),
            (14, 12.5, RED),
            (14, 22.5, RED),
        ):
            cv2.circle(ice, at(x, y), int(2.6 / PIXEL), colour, 3)
            cv2.circle(ice, at(x, y), 6, colour, -1)
        for _ in range(240):  # scratches
            x, y, a, length = (
                rng.uniform(LEFT, RIGHT),
                rng.uniform(TOP, BOTTOM),
                rng.uniform(0, 6.28),
                rng.uniform(0.5, 2.5),
            )
            cv2.line(
                ice,
                at(x, y),
                at(x + length * np.cos(a), y + length * np.sin(a)),
                (236, 246, 252),
                1,
            )
        for x in (GOAL_X, 50 - GOAL_X):
            cv2.circle(ice, at(x, GOAL_Y), int(2.2 / PIXEL), (120, 180, 235), -1)
        inside = (
            slice(int(TOP / PIXEL), int(BOTTOM / PIXEL)),
            slice(int(LEFT / PIXEL), int(RIGHT / PIXEL)),
        )
        arena[inside] = ice[inside]
        self.arena = arena

    def paint(self):
        camera, picture = self.camera, np.empty((HEIGHT, WIDTH, 3), np.uint8)
        camera.ground(picture, self.arena, PIXEL)
        self.paint_boards(picture)
        things = [
            (s.x, s.y, lambda p, s=s: self.paint_skater(p, s)) for s in (self.hero, *self.others)
        ]
        things.append((*self.puck, self.paint_puck))
        things += [(GOAL_X, GOAL_Y, self.paint_goal)] if self.task == "goals" else []
        if self.gate:
            c, s = np.cos(self.gate["facing"]), np.sin(self.gate["facing"])
            posts = [
                (self.gate["x"] - side * s, self.gate["y"] + side * c)
                for side in (-HALF_GATE, HALF_GATE)
            ]
            ends = [tuple(int(v) for v in camera.project(*post)[:2]) for post in posts]
            cv2.line(picture, *ends, GREEN, 5)
            for x, y in posts:
                things.append(
                    (
                        x,
                        y,
                        lambda p, x=x, y=y: camera.figure(
                            p,
                            [
                                ((255, 120, 30), 0.2, (x, y, 0.1), (x, y, 0.9)),
                                (WHITE, 0.16, (x, y, 0.55), (x, y, 0.6)),
                            ],
                        ),
                    )
                )
        camera.scene(picture, things)
        x, y, _ = camera.project(*self.target())
        if not 0 < x < WIDTH:
            pointer(picture, x - WIDTH / 2, HOT)
        self.sparks.draw(picture)
        return picture

    def paint_boards(self, picture):
        """The boards, upright, but for those next to the viewer."""
        corners = ((LEFT, BOTTOM + 2), (LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM + 2))
        for low, high, colour in (
            (0.0, 0.25, (245, 200, 50)),
            (0.25, 1.0, WHITE),
            (1.0, 1.12, BLUE),
        ):
            for a, b in pairwise(corners):
                quad = [
                    self.camera.project(*p, z)[:2]
                    for p, z in ((a, low), (b, low), (b, high), (a, high))
                ]
                cv2.fillPoly(picture, [np.int32(quad)], colour)

    def ring(self, picture, x, y, radius, colour, thick=2):
        px, py, scale = self.camera.project(x, y)
        cv2.ellipse(
            picture,
            (int(px), int(py)),
            (int(radius * scale), int(radius * scale * 0.62)),
            0,
            0,
            360,
            colour,
            thick,
        )

    def paint_skater(self, picture, skater):
        camera, hero = self.camera, skater is self.hero
        camera.shadow(picture, skater.x, skater.y, 0.55)
        if hero:
            self.ring(picture, skater.x, skater.y, 0.8, GOLD, 3)
        elif skater is self.mate and not self.hot:
            self.ring(picture, skater.x, skater.y, 1.0 + 0.15 * np.sin(8 * self.time), GREEN, 4)
        elif skater is self.rival and self.task == "checks":
            self.ring(
                picture, skater.x, skater.y, 0.9, HOT if skater.balance == BALANCE else RED, 3
            )
        low = 0.9 if skater.down > 0 else 0.5 if hero and self.lunge > 0 else 0.2
        hand, tip = (0.35, 0.25, 0.85), (1.0, 0.0, 0.08)
        shirt = (
            WHITE
            if skater.well > HEAL - 0.1 or hero and self.stun > 0 and int(self.time * 14) % 2
            else skater.shirt
        )
        body = person(
            skater.stride,
            shirt,
            DARK if skater.shirt == NAVY else (60, 30, 40),
            SKIN,
            left=(0.4, -0.15, 0.95),
            right=hand,
            low=low,
        )
        neck = body[2][3]
        body += [
            (GOLD if hero else skater.shirt, 0.21, (neck[0], 0, neck[2] + 0.48)),
            ((150, 110, 70), 0.05, (0.2, -0.1, 1.1 - 0.4 * low), tip),
            (DARK, 0.06, tip, (1.25, 0.1, 0.08)),
        ]
        camera.figure(picture, posed(body, skater.x, skater.y, skater.facing))
        if skater.balance < BALANCE:
            x, y, _ = camera.project(skater.x, skater.y, 2.3 - low)
            stars(picture, x, y, 13, self.time)

    def paint_puck(self, picture):
        if self.hot:
            self.ring(picture, *self.puck, 0.5, HOT, -1)
        self.ring(picture, *self.puck, 0.33, DARK, -1)
        self.ring(picture, *self.puck, 0.33, WHITE, 1)

    def paint_goal(self, picture):
        """The net, barred until the puck glows, and the goalie before it."""
        camera, back, bars = self.camera, 1.1, RED if self.hot else (120, 126, 140)
        posts = [(GOAL_X, GOAL_Y + side * (MOUTH + 0.1)) for side in (-1, 1)]
        for i in range(9):
            y = GOAL_Y + (i / 4 - 1) * (MOUTH + 0.1)
            a, b = camera.project(GOAL_X, y, 1.3)[:2], camera.project(GOAL_X + back, y, 0)[:2]
            cv2.line(picture, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), WHITE, 1)
        camera.figure(
            picture,
            [(bars, 0.09, (*post, 0), (*post, 1.3)) for post in posts]
            + [(bars, 0.09, (*posts[0], 1.3), (*posts[1], 1.3))],
        )
        body = person(
            0, NAVY, WHITE, SKIN, left=(0.4, -0.75, 0.8), right=(0.4, 0.75, 0.8), low=0.35
        )
        body += [
            (WHITE, 0.2, (0.25, side * 0.3, 0.15), (0.2, side * 0.25, 0.6)) for side in (-1, 1)
        ] + [(NAVY, 0.24, (0.15, 0, 1.6))]
        camera.figure(picture, posed(body, GOAL_X - 0.5, self.goalie, np.pi))
        if not self.hot:
            for i in range(5):
                y = GOAL_Y + (i / 2 - 1) * MOUTH
                a, b = camera.project(GOAL_X - 0.9, y, 1.4), camera.project(GOAL_X - 0.9, y, 0)
                cv2.line(
                    picture, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), (120, 126, 140), 3
                )


class Expert:
    """Skates to the target, faces the mate before it passes, shoots into the corner that the goalie
    leaves open, checks when near.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.reach = self.hands.rng.uniform(1.9, 2.3)  # m from which it checks
        self.shoot = self.hands.rng.uniform(6.0, 7.5)  # m from which it shoots
        self.pace = self.hands.rng.uniform(5.5, 6.5)  # m/s through the gates

    def __call__(self, score):
        state, task, hold, tap, corner = score["state"], score["task"], set(), set(), 0.0
        aim = np.array(state["target"])
        far, v = np.hypot(*aim) + 1e-9, np.array(state["v"])
        off = turn(np.arctan2(aim[1], aim[0]) - state["facing"])
        way = (self.pace * aim / far - v) / 2.5 if task == "slalom" else aim
        way = way / max(np.hypot(*way), 1)
        if task == "checks":
            tap |= (
                {"EAST"}
                if far < self.reach and abs(off) < 0.7 and state["lunge"] < -REST
                else set()
            )
            hold |= {"LEFT_TRIGGER"} if far > self.reach else set()
        elif task == "slalom":
            hold |= (
                {"LEFT_SHOULDER"}
                if abs(off) > 1.2 and np.hypot(*v) > 4
                else {"LEFT_TRIGGER"}
                if far > 4 and abs(off) < 0.4
                else set()
            )
        elif state["mine"] and not state["hot"]:
            way = way * (0.45 if abs(off) < 0.3 else 0.7)
            tap |= {"SOUTH"} if abs(off) < 0.25 else set()
        elif state["mine"]:
            corner = -1.0 if state["goalie"] > 0 else 1.0
            hold |= {"RIGHT_TRIGGER"} if far < self.shoot else {"LEFT_TRIGGER"}
        return self.hands(left=way, right=(0, corner), hold=hold, tap=tap)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
