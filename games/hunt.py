"""Hunt: a great beast in the jungle, third person, with sword, bow and potion.

    python games/hunt.py [--task beast|crystals|trail] [--seed N]

Left stick: walk. Right stick: look. LEFT_THUMB, held: sprint. EAST: roll. SOUTH: jump. WEST: cut.
NORTH: leap and strike. DPAD_UP, held: drink. LEFT_SHOULDER, held: keep the beast in view.
LEFT_TRIGGER, held: aim the bow. RIGHT_TRIGGER, held: draw, and loose at full draw. DPAD_LEFT,
DPAD_RIGHT: blue or red arrows.
"""

import console
import cv2
import numpy as np
from console import (
    HEIGHT,
    WIDTH,
    Adventure,
    Camera,
    Hands,
    Task,
    bar,
    gradient,
    noise,
    person,
    pointer,
    posed,
    sprite,
    stars,
    turn,
)

TASKS = {
    "beast": Task(
        "Fell the beast: roll out of its charge, strike while it is dazed.", "combat", 36
    ),
    "crystals": Task(
        "Shoot fourteen crystals off the beast, each with an arrow of its colour.", "combat", 36
    ),
    "trail": Task("Follow the glowing tracks to the lair, jumping the streams.", "navigation", 34),
}
HP, CRYSTALS, TRAIL = 22, 14, 110  # cuts, crystals, metres
# metres and seconds from here on
# m/s, rad/s, slope/s, row, rad that a fixed view looks past the beast
SPRINT, LOOK, NOD, HORIZON, SWING = 6.2, 2.4, 0.8, 52, 0.35
CUT, CUT_LANDS, LEAP, LEAP_LANDS, REACH = 0.32, 0.12, 0.6, 0.4, 3.3
LEAPING = 7.0  # m/s
JUMP, GRAVITY = 4.6, 15.0  # m/s, m/s^2: 0.6 s in the air
DRINK, DRAW = 0.7, 0.45  # seconds
CHARGE, LANE, SLAM = 13.0, 15.0, 4.2  # speed, length of the lane, radius of the blow
HEAL = 6.0  # seconds unhurt after which the beast gains strength
SPIT = 9.0  # m/s
# m beside the track that count as on it, width of a stream, prints ahead
OFF, STREAM, LEAD = 2.6, 1.5, 3
CROSS = 104  # row of the cross-hair

# ---- colours and sprites

RED, BLUE, GOLD, WHITE, GREEN = (
    (255, 70, 50),
    (70, 160, 255),
    (255, 214, 70),
    (255, 255, 255),
    (90, 255, 170),
)
HIDE, BELLY, IVORY, DULL = (104, 70, 150), (150, 110, 180), (245, 230, 190), (120, 116, 130)
LEAF, BARK, STEM = (44, 120, 60), (70, 60, 44), (214, 200, 170)
PALM = sprite(
    150,
    200,
    (BARK, [(66, 198), (72, 110), (70, 50), (80, 50), (84, 110), (90, 198)]),
    ((100, 88, 62), [(72, 198), (76, 110), (74, 50), (78, 50), (82, 198)]),
    *(
        (
            shade,
            [
                (75, 46),
                (75 + x * 0.5, 30 + y * 0.3),
                (75 + x, 46 + y),
                (75 + x * 0.45, 46 + y * 0.5),
            ],
        )
        for shade, x, y in (
            ((26, 80, 50), -72, 50),
            ((26, 80, 50), 72, 50),
            ((34, 100, 54), -74, 8),
            ((34, 100, 54), 74, 8),
            (LEAF, -46, 70),
            (LEAF, 46, 70),
            ((70, 160, 70), -50, -26),
            ((70, 160, 70), 50, -26),
            ((96, 180, 80), 4, -42),
        )
    ),
)
SHROOM = sprite(
    80,
    90,
    ((150, 130, 110), [(32, 88), (36, 40), (46, 40), (50, 88)]),
    (STEM, [(34, 88), (37, 40), (42, 40), (42, 88)]),
    ((20, 110, 120), 40, 34, 38, 24),
    ((50, 190, 180), 40, 30, 34, 19),
    ((150, 250, 225), 26, 24, 7, 5),
    ((150, 250, 225), 50, 20, 6, 4),
    ((150, 250, 225), 58, 34, 5, 4),
)
FERN = sprite(
    100,
    60,
    *(
        (shade, [(50, 58), (50 + x * 0.4, 30 + y), (50 + x, 40 + y), (50 + x * 0.5, 42 + y)])
        for shade, x, y in (
            ((20, 70, 44), -48, 8),
            ((20, 70, 44), 48, 8),
            ((34, 104, 54), -38, -12),
            ((34, 104, 54), 38, -12),
            ((64, 150, 70), -14, -28),
            ((64, 150, 70), 16, -28),
        )
    ),
)
SPITTLE = sprite(
    30, 30, ((90, 20, 110), 15, 15, 14, 14), ((220, 80, 255), 14, 14, 10, 10), (WHITE, 12, 11, 4, 4)
)
HORN = sprite(
    30,
    28,
    (HIDE, 15, 18, 11, 9),
    (IVORY, [(6, 14), (2, 1), (12, 11)]),
    (IVORY, [(24, 14), (28, 1), (18, 11)]),
    (RED, 11, 17, 2, 2),
    (RED, 19, 17, 2, 2),
)
GEM = sprite(
    28,
    30,
    ((120, 20, 20), [(14, 0), (27, 10), (14, 30), (1, 10)]),
    (RED, [(14, 3), (24, 10), (14, 26), (4, 10)]),
    (WHITE, [(14, 5), (20, 10), (14, 15), (8, 10)]),
)
PRINT = sprite(
    28,
    28,
    (GREEN, 14, 19, 8, 7),
    (GREEN, 5, 10, 3, 4),
    (GREEN, 12, 6, 3, 4),
    (GREEN, 20, 7, 3, 4),
    (GREEN, 25, 13, 2, 4),
)
LAIR = sprite(
    120,
    90,
    ((60, 52, 60), [(2, 88), (10, 40), (36, 10), (70, 2), (104, 26), (118, 88)]),
    ((104, 92, 96), [(10, 86), (18, 42), (40, 16), (70, 8), (60, 30), (30, 50), (24, 86)]),
    ((14, 10, 20), [(30, 88), (36, 52), (58, 34), (82, 50), (92, 88)]),
    (RED, 54, 62, 4, 3),
    (RED, 68, 62, 4, 3),
)
# where crystals grow, in its own metres
HUMPS = ((1.3, 0.0, 2.5), (0.5, 0.0, 2.75), (-0.4, 0.0, 2.7), (-1.2, 0.0, 2.4))


class Game(Adventure):
    name, genre, tasks = "hunt", "action RPG", TASKS
    icons = {"beast": HORN, "crystals": GEM, "trail": PRINT}
    aim, slope = 0.0, 0.0  # how far the bow is up, in [0, 1]; of the view

    def __init__(self, task, seed):
        super().__init__(task, seed, Camera(np.radians(70), HORIZON, (132, 176, 140), 16))
        rng = self.rng
        self.kinds = rng.integers(0, 4, 48)
        self.drawn, self.arrow, self.shot = 0.0, int(rng.integers(2)), None
        self.cut, self.cutting, self.drink, self.z, self.vz, self.hits, self.count = (
            None,
            0.0,
            0.0,
            0.0,
            0.0,
            0,
            0,
        )
        self.beast = self.ball = None
        if task == "trail":
            self.track = self.lay_track()
            self.index, self.streams = (
                0,
                [(i, self.track[i], self.course[i]) for i in range(13, TRAIL - 4, 13)],
            )
        else:
            x, y, bearing = self.spot((0.5, 1.0), (8, 10))
            self.beast = {
                "x": x,
                "y": y,
                "facing": bearing + np.pi,
                "mood": "stalk",
                "left": 1.2,
                "side": 1.0,
                "well": 0.0,
                "next": 3.0,
            }
            self.crystal, self.colour = 1, int(rng.integers(2))
        self.hearts = 2 if task == "beast" else self.hearts
        self.look()
        self.scenery(np.random.default_rng(abs(seed)))

    def lay_track(self):
        """A winding line, a point a metre; it begins near the hero, beside where he looks."""
        bend = np.convolve(self.rng.uniform(-1, 1, TRAIL + 29), np.ones(10) / 10, "valid")
        start = self.view + self.rng.uniform(0.6, 1.0) * self.rng.choice([-1, 1])
        self.course = start + np.cumsum(0.42 * bend)
        return np.array([self.x, self.y]) + np.cumsum(
            np.stack([np.cos(self.course), np.sin(self.course)], 1), 0
        )

    # ---- the world

    def move(self, pad, dt):
        awake, beast, task = self.stun <= 0, self.beast, self.task
        aiming = task == "crystals" and awake and pad["LEFT_TRIGGER"] and self.roll <= 0
        self.aim += (float(aiming) - self.aim) * min(1, 10 * dt)
        self.view += LOOK * (0.7 if aiming else 1) * pad["RIGHT_X"] * dt
        self.slope = (
            float(np.clip(self.slope - NOD * pad["RIGHT_Y"] * dt, -0.2, 0.25))
            if aiming
            else self.slope * (1 - min(1, 5 * dt))
        )
        if task == "beast" and pad["LEFT_SHOULDER"]:
            self.view += (self.angle(beast) - SWING) * min(1, 5 * dt)
        self.drink = self.drink + dt if awake and pad["DPAD_UP"] and self.hearts < 5 else 0.0
        if self.drink > DRINK:
            self.hearts, self.drink = 5, 0.0
            self.burst(self.x, self.y, 1.5, GREEN)
        wish = self.wish(pad) if awake and not self.drink else np.zeros(2)
        if awake and not self.cut and self.z == 0:
            self.tumble(wish)
            if "SOUTH" in self.fresh and self.roll <= 0:
                self.vz = JUMP
        self.z, self.vz = (
            max(0.0, self.z + self.vz * dt),
            self.vz - GRAVITY * dt if self.z + self.vz * dt > 0 else 0.0,
        )
        self.swing(pad, awake, dt)
        sprint = pad["LEFT_THUMB"] and self.stamina > 0.02 and np.hypot(*wish) > 0.3
        pace = (
            1.5
            if self.drink or self.cut == "cut"
            else 2.0
            if aiming
            else SPRINT
            if sprint
            else self.pace
        )
        if self.cut == "leap":
            wish, pace = (
                np.array([np.cos(self.facing), np.sin(self.facing)]),
                LEAPING if self.cutting < LEAP_LANDS and self.far(beast) > 2.4 else 0,
            )
        rest = -self.cost["sprint"] if sprint else 0.0 if self.cut else 0.4
        self.walk(
            wish,
            pace,
            rest,
            dt,
            self.view
            if aiming
            else self.bearing(beast)
            if beast and pad["LEFT_SHOULDER"] and self.roll <= 0
            else None,
        )
        {"beast": self.rage, "crystals": self.roam, "trail": self.follow}[task](pad, dt)

    def look(self):
        """Aiming brings the camera over the shoulder."""
        self.back, self.eye = 6.4 - 3.6 * self.aim, 3.6 - 1.3 * self.aim
        self.camera.horizon = (
            HORIZON + (CROSS - HORIZON) * self.aim + self.camera.focal * self.slope
        )
        super().look()

    def swing(self, pad, awake, dt):
        """The sword: a cut, or a leap with a blow that counts for three."""
        self.cutting += dt
        if self.cut and (not awake or self.cutting > (CUT if self.cut == "cut" else LEAP)):
            self.cut = None
        if (
            awake
            and not self.cut
            and self.roll <= 0
            and self.z == 0
            and not self.drink
            and self.task == "beast"
        ):
            kind = (
                "cut"
                if pad["WEST"]
                else "leap"
                if "NORTH" in self.fresh and self.stamina > 0.3
                else None
            )
            if kind:
                self.cut, self.cutting, self.stamina = (
                    kind,
                    0.0,
                    self.stamina - (0.08 if kind == "cut" else 0.3),
                )
        lands = CUT_LANDS if self.cut == "cut" else LEAP_LANDS
        if (
            self.cut
            and self.cutting - dt <= lands < self.cutting
            and self.far(self.beast) < REACH
            and self.faces(self.beast)
        ):
            dazed = self.beast["mood"] == "dazed"
            self.hits += (1 if self.cut == "cut" else 3) if dazed else 0
            self.beast["well"] = HEAL if dazed else self.beast["well"]
            self.burst(
                self.x + 1.6 * np.cos(self.facing),
                self.y + 1.6 * np.sin(self.facing),
                1.3,
                WHITE if dazed else DULL,
                18 if dazed else 6,
            )
            self.reached(self.hits / HP)

    def turn_to(self, bearing, rate, dt):
        self.beast["facing"] += float(
            np.clip(turn(bearing - self.beast["facing"]), -rate * dt, rate * dt)
        )

    def go(self, speed, angle, dt):
        self.beast["x"] += float(speed * np.cos(angle) * dt)
        self.beast["y"] += float(speed * np.sin(angle) * dt)

    def struck(self, speed=9):
        if self.roll <= 0 and self.safe <= 0:
            self.burst(self.x, self.y, 1.2, RED)
            self.hurt()
            self.shove(self.beast, speed)
            return True

    def rage(self, pad, dt):
        beast, far = self.beast, self.far(self.beast)
        toward = self.bearing(beast) + np.pi
        beast["left"], beast["well"] = beast["left"] - dt, beast["well"] - dt
        if beast["well"] <= 0 and self.hits:  # it gains strength
            self.hits, beast["well"] = self.hits - 1, 1.0
        mood, over = beast["mood"], beast["left"] <= 0
        if mood == "stalk":
            self.turn_to(toward, 3, dt)
            self.go(
                2.4, beast["facing"] + beast["side"] * 1.4 + (far < 6) * beast["side"] * 1.2, dt
            )
            if over:
                beast["mood"], beast["left"] = ("slam", 0.9) if far < SLAM - 0.4 else ("aim", 0.9)
        elif mood == "aim":  # the lane shows where it will run; near the end it is fixed
            self.turn_to(toward, 4 if beast["left"] > 0.25 else 0, dt)
            if over:
                beast["mood"], beast["left"] = "charge", 1.0
        elif mood == "charge":
            self.go(CHARGE, beast["facing"], dt)
            if far < 1.9 and self.struck(12):
                beast["mood"], beast["left"] = "stalk", 1.5
            elif over:
                beast["mood"], beast["left"] = "dazed", 3.0
        elif over:
            if mood == "slam":
                self.slam(far)
            beast["mood"], beast["left"], beast["side"] = (
                "stalk",
                self.rng.uniform(1.0, 1.6),
                float(self.rng.choice([-1, 1])),
            )
        if far < 1.5 and mood != "charge":  # not through the beast
            self.shove(beast, 3)

    def slam(self, far):
        """The beast comes down; dust flies up around it."""
        if far < SLAM and self.z < 0.2:
            self.struck()
        for a in np.arange(0, 6.28, 0.7):
            x, y = self.beast["x"] + SLAM * np.cos(a), self.beast["y"] + SLAM * np.sin(a)
            self.burst(x, y, 0.1, (150, 130, 90), 4)

    def roam(self, pad, dt):
        """The beast walks around the hero and spits; arrows take the crystal that glows, if they
        have its colour.
        """
        beast, far = self.beast, self.far(self.beast)
        toward = self.bearing(beast) + np.pi
        beast["left"], beast["next"] = beast["left"] - dt, beast["next"] - dt
        if beast["left"] <= 0:
            beast["side"], beast["left"] = -beast["side"], self.rng.uniform(2.5, 5)
        self.turn_to(toward + beast["side"] * (1.45 if far > 9 else 1.8), 2, dt)
        self.go(2.6, beast["facing"], dt)
        if beast["next"] <= 0 and not self.ball:
            beast["next"] = self.rng.uniform(3.5, 5)
            self.ball = {
                "x": beast["x"],
                "y": beast["y"],
                "vx": -SPIT * np.cos(toward + np.pi),
                "vy": -SPIT * np.sin(toward + np.pi),
                "left": 1.8,
            }
        if self.ball:
            ball = self.ball
            ball["x"], ball["y"], ball["left"] = (
                ball["x"] + float(ball["vx"]) * dt,
                ball["y"] + float(ball["vy"]) * dt,
                ball["left"] - dt,
            )
            if self.far(ball) < 0.7 and self.struck() or ball["left"] <= 0:
                self.ball = None
        for i, name in enumerate(("DPAD_LEFT", "DPAD_RIGHT")):
            self.arrow = i if pad[name] else self.arrow
        aimed = self.aim > 0.7 and self.roll <= 0 and self.stun <= 0
        self.drawn = self.drawn + dt if aimed and pad["RIGHT_TRIGGER"] and not self.shot else 0.0
        if self.drawn > DRAW:
            off = np.array(self.offset())
            hit = np.hypot(*off) * far < 0.5 and self.arrow == self.colour
            self.shot, self.drawn = [0.0, 0.22, hit], 0.0
        if self.shot:
            self.shot[0] += dt
            if self.shot[0] > self.shot[1]:
                if self.shot[2]:
                    self.burst(*self.gem(), (RED, BLUE)[not self.colour], 30)
                    self.count += 1
                    self.reached(self.count / CRYSTALS)
                    self.crystal = int(
                        self.rng.choice([i for i in range(len(HUMPS)) if i != self.crystal])
                    )
                    self.colour = int(self.rng.integers(2))
                self.shot = None

    def gem(self):
        """Where the glowing crystal is."""
        beast = self.beast
        return posed([(0, 0, HUMPS[self.crystal])], beast["x"], beast["y"], beast["facing"])[0][2]

    def offset(self):
        """The glowing crystal from the cross-hair: angle to the right, slope up."""
        x, y, z = self.gem()
        camera = self.camera
        depth = max(camera.depth(x, y), 0.5)
        aside = (y - camera.y) * camera.c - (x - camera.x) * camera.s
        return float(np.arctan2(aside, depth)), float(
            (z - camera.z) / depth + (CROSS - camera.horizon) / camera.focal
        )

    def follow(self, pad, dt):
        here = np.array([self.x, self.y])
        ahead = self.track[self.index : self.index + 8]
        far = np.hypot(*(ahead - here).T)
        if far.min() < OFF:
            self.index += int(far.argmin())
        for _, at, course in self.streams:
            along, aside = self.across(here, at, course)
            if abs(along) < STREAM / 2 and aside < 9 and self.z == 0:
                self.burst(self.x, self.y, 0.2, BLUE, 24)
                step = (-STREAM / 2 - 0.8 - along) * np.array([np.cos(course), np.sin(course)])
                self.x, self.y = (here + step).tolist()
                self.speed *= 0
                self.safe = 0.0
                self.hurt()
        self.reached(self.index / (TRAIL - 1))

    @staticmethod
    def across(here, at, course):
        """How far past the middle of a stream, how far from the track beside it."""
        c, s = np.cos(course), np.sin(course)
        dx, dy = here - at
        return float(dx * c + dy * s), abs(float(dy * c - dx * s))

    def goal(self):
        """What to keep in view: the beast, or a print some way ahead."""
        if self.beast:
            return self.beast
        x, y = self.track[min(self.index + LEAD, TRAIL - 1)].tolist()
        return {"x": x, "y": y}

    def state(self):
        state = {
            "x": self.x,
            "y": self.y,
            "angle": self.angle(self.goal()),
            "far": self.far(self.goal()),
            "stamina": self.stamina,
            "hearts": self.hearts,
        }
        if self.task == "trail":
            gaps = [
                -self.across(np.array([self.x, self.y]), at, course)[0]
                for i, at, course in self.streams
                if -2 < i - self.index < 9
            ]
            state["gap"] = min([gap for gap in gaps if gap > -STREAM / 2], default=99.0)
        elif self.task == "crystals":
            aside, above = self.offset()
            state |= {
                "aside": aside,
                "above": above,
                "ball": self.far(self.ball) if self.ball else 99.0,
                "arrow": self.arrow,
                "colour": self.colour,
            }
        return {key: round(float(value), 4) for key, value in state.items()} | (
            {"mood": self.beast["mood"]} if self.beast else {}
        )

    # ---- the picture

    def scenery(self, rng):
        """The forest floor from above; the sky over far hills."""
        n = self.pixels
        ground = (
            np.float32([84, 116, 66])
            + 70
            * (noise(rng, n, n, 64, wrap=True) + 0.7 * noise(rng, n, n, 8, wrap=True) - 0.85)[
                ..., None
            ]
        )
        soil = noise(rng, n, n, 128, wrap=True) + 0.5 * noise(rng, n, n, 32, wrap=True) > 0.82
        ground[soil] = 0.6 * ground[soil] + np.float32([62, 44, 22])
        for x, y in rng.integers(0, n, (2200, 2)).tolist():  # tufts
            tall = int(rng.integers(3, 9))
            cv2.line(
                ground,
                (x, y),
                (x + int(rng.integers(-3, 4)), y - tall),
                (rng.uniform(40, 110), rng.uniform(110, 170), 60),
                2,
            )
        glow = self.pools(np.where(self.kinds == 1, 1.0, -0.6))
        self.lay(
            ground
            + glow.clip(0, 1) * np.float32([0, 110, 110])
            + glow.clip(-1, 0) * np.float32([90, 100, 60])
        )
        rows, wide = 200, self.camera.around()
        self.sky = gradient(wide, rows, (90, 160, 150), (160, 205, 160), (236, 234, 176))
        cv2.circle(self.sky, (wide // 3, rows - 50), 24, (255, 250, 214), -1)
        for depth, colour in ((34, (150, 190, 150)), (16, (116, 164, 132))):
            crest = (
                rows
                - 2
                - depth * noise(rng, 4, wide, 60, wrap=True)[0]
                - 5 * noise(rng, 4, wide, 8, wrap=True)[0]
            )
            self.sky[np.arange(rows)[:, None] > crest] = colour

    def prop(self, picture, i, x, y):
        body, tall = ((PALM, 6.5), (SHROOM, 2.0), (FERN, 1.1), (FERN, 1.5))[self.kinds[i]]
        self.camera.billboard(picture, body, x, y, 0, tall)

    def paint(self):
        picture, camera, beast = np.empty((HEIGHT, WIDTH, 3), np.uint8), self.camera, self.beast
        self.paint_land(picture)
        things = self.standing(beast)
        if self.aim < 0.5 or self.task != "crystals":
            things.append((self.x, self.y, self.paint_hero))
        if beast:
            self.paint_warning(picture)
            things.append((beast["x"], beast["y"], self.paint_beast))
        else:
            self.paint_trail(picture)
            things.append(
                (*self.track[-1], lambda p: camera.billboard(p, LAIR, *self.track[-1], 0, 4))
            )
        if self.ball:
            x, y = self.ball["x"], self.ball["y"]
            things.append(
                (
                    x,
                    y,
                    lambda p: (
                        camera.shadow(p, x, y, 0.4),
                        camera.billboard(p, SPITTLE, x, y, 0.8, 0.9),
                    ),
                )
            )
        camera.scene(picture, things)
        if self.task == "crystals":
            self.paint_bow(picture)
        self.sparks.draw(picture)
        bar(picture, 44, 28, 120, 6, self.stamina, (90, 230, 110))
        if self.task == "beast":
            bar(picture, 180, 10, 190, 8, 1 - self.hits / HP, (200, 90, 255))
        angle = self.angle(self.goal())
        if abs(angle) > 0.6:
            pointer(picture, angle, GOLD)
        return picture

    def paint_warning(self, picture):
        """The lane in which it will charge, or the circle of its blow, on the ground."""
        beast = self.beast
        c, s = np.cos(beast["facing"]), np.sin(beast["facing"])
        if beast["mood"] in ("aim", "charge"):
            lane = [
                (beast["x"] + u * c - v * s, beast["y"] + u * s + v * c)
                for u, v in ((0, -1.4), (LANE, -1.4), (LANE, 1.4), (0, 1.4))
            ]
            self.camera.patch(
                picture,
                lane,
                (220, 60, 40)
                if beast["mood"] == "charge" or int(self.time * 10) % 2
                else (150, 60, 40),
            )
        elif beast["mood"] == "slam":
            for radius, colour in (
                (SLAM, (150, 60, 40)),
                (SLAM * (1 - beast["left"] / 0.9), (230, 70, 40)),
            ):
                self.camera.patch(
                    picture,
                    [
                        (beast["x"] + radius * np.cos(a), beast["y"] + radius * np.sin(a))
                        for a in np.arange(0, 6.2, 0.4)
                    ],
                    colour,
                )

    def paint_hero(self, picture):
        camera, low = self.camera, 0.9 if self.roll > 0 else 0.3 if self.drink else 0.0
        camera.shadow(picture, self.x, self.y, 0.5)
        part = self.cutting / (CUT if self.cut == "cut" else LEAP)
        a = 1.5 - 2.9 * part if self.cut == "cut" else 2.3 - 2.9 * max(0.0, part - 0.4) / 0.6
        hand, tip = {
            "cut": (
                (0.5 * np.cos(a), 0.5 * np.sin(a), 1.2),
                (1.9 * np.cos(a), 1.9 * np.sin(a), 1.3),
            ),
            "leap": (
                (0.4 * np.cos(a), 0.1, 1.5 + 0.5 * np.sin(a)),
                (1.9 * np.cos(a), 0.1, 1.5 + 1.8 * np.sin(a)),
            ),
        }.get(self.cut, ((0.2, 0.42, 0.9), (-0.7, 0.6, 1.9)))
        coat = (255, 110, 100) if self.stun > 0 else (222, 150, 60)
        left = (0.35, -0.1, 1.6) if self.drink else (0.15, -0.42, 0.85)
        body = person(
            self.stride, coat, (96, 64, 44), (255, 214, 176), left=left, right=hand, low=low
        )
        neck = body[2][3]
        body += [
            ((235, 240, 250), 0.08, hand, tip),
            ((140, 50, 40), 0.21, (neck[0] - 0.06, 0, neck[2] + 0.5)),
            (
                (120, 84, 50),
                0.12,
                (neck[0] - 0.3, -0.2, neck[2]),
                (neck[0] - 0.3, 0.2, neck[2] - 0.5),
            ),
        ]
        if self.drink:
            body.append((GREEN, 0.14, (0.42, -0.05, 1.75)))
        lift = self.z + (
            1.2 * np.sin(np.pi * min(1, self.cutting / LEAP_LANDS)) if self.cut == "leap" else 0
        )
        if self.safe <= 0 or int(self.time * 12) % 2:
            camera.figure(picture, posed(body, self.x, self.y, self.facing, lift))

    def paint_beast(self, picture):
        beast, camera, mood = self.beast, self.camera, self.beast["mood"]
        camera.shadow(picture, beast["x"], beast["y"], 2.0)
        angry, down, speed = (
            mood in ("aim", "charge", "slam"),
            0.6 * (mood == "dazed"),
            14 if mood == "charge" else 5,
        )
        swing = 0.0 if mood in ("dazed", "aim", "slam") else 0.5 * np.sin(speed * self.time)
        rear = 0.8 * np.sin(np.pi * min(1.0, 1 - beast["left"] / 0.9)) if mood == "slam" else 0.0
        head = (2.5, 0, 1.9 - down - 0.5 * (mood in ("aim", "charge")) + rear)

        def at(x, y, z):
            return head[0] + x, y, head[2] + z

        body = [
            (HIDE, 1.0, (0.9, 0, 1.6 - down + 0.6 * rear), (-0.9, 0, 1.45 - down)),
            (BELLY, 0.8, (0.5, 0, 1.2 - down), (-0.6, 0, 1.1 - down)),
            (HIDE, 0.6, (1.3, 0, 1.8 - down + 0.8 * rear), head),
            (HIDE, 0.52, head),
            (BELLY, 0.34, at(0.5, 0, -0.2)),
            (HIDE, 0.3, (-1.5, 0, 1.4 - down), (-2.7, 0.5 * np.sin(3 * self.time), 1.1 - down)),
            (
                HIDE,
                0.18,
                (-2.7, 0.5 * np.sin(3 * self.time), 1.1 - down),
                (-3.6, 1.0 * np.sin(3 * self.time), 1.4 - down),
            ),
        ]
        for side in (-1, 1):
            body += [
                (IVORY, 0.13, at(0.1, 0.35 * side, 0.3), at(0.5, 0.8 * side, 0.9)),
                (IVORY, 0.09, at(0.5, 0.8 * side, 0.9), at(1.1, 0.75 * side, 1.3)),
                (RED if angry else GOLD, 0.12, at(0.4, 0.3 * side, 0.15)),
            ]
            body += [
                (
                    HIDE,
                    0.32,
                    (x, 0.75 * side, 1.2 - down),
                    (
                        x + 0.3 * down + swing * side * way + 0.3 * rear * way,
                        0.85 * side,
                        0.25 + (rear if way > 0 else 0),
                    ),
                )
                for x, way in ((1.1, 1), (-1.1, -1))
            ]
        for i, (x, y, z) in enumerate(HUMPS):
            lit = self.task == "crystals" and i == self.crystal
            colour = (BLUE, RED)[self.colour] if lit else DULL
            body += [
                (
                    colour,
                    0.34 if lit else 0.16,
                    (x, y, z - down - 0.1),
                    (x - 0.15, y, z - down + (0.35 if lit else 0.25)),
                )
            ]
        camera.figure(picture, posed(body, beast["x"], beast["y"], beast["facing"]))
        if mood == "dazed":
            x, y, _ = camera.project(
                *posed([(0, 0, (2.4, 0, 2.6))], beast["x"], beast["y"], beast["facing"])[0][2]
            )
            stars(picture, x, y, 24, self.time)

    def paint_bow(self, picture):
        """The arrow in hand, and when aiming the bow and the cross-hair: it closes as the bow is
        drawn.
        """
        colour, part = (BLUE, RED)[self.arrow], self.drawn / DRAW
        cv2.rectangle(picture, (8, 46), (38, 76), (16, 16, 24), -1)
        cv2.line(picture, (13, 71), (33, 51), colour, 5)
        if self.aim > 0.5:
            t, nock = np.linspace(0, 1, 14), (322 + int(36 * part), 196)
            limbs = np.int32(np.stack([320 - 34 * np.sin(np.pi * t), 110 + 172 * t], 1))
            for wide, paint in ((11, (60, 34, 20)), (6, (160, 104, 56))):
                cv2.polylines(picture, [limbs], False, paint, wide)
            cv2.polylines(picture, [np.int32([limbs[0], nock, limbs[-1]])], False, WHITE, 1)
            cv2.line(picture, nock, (nock[0] - 60, nock[1] - 68), colour, 6)
            cv2.circle(
                picture, (WIDTH // 2, CROSS), 22 - int(14 * part), WHITE if part < 0.05 else GOLD, 3
            )
            cv2.circle(picture, (WIDTH // 2, CROSS), 2, WHITE, -1)
        if self.shot:
            f = min(1.0, self.shot[0] / self.shot[1])
            x, y = WIDTH / 2 + 60 * (1 - f), CROSS + 110 * (1 - f)
            cv2.line(
                picture,
                (int(x), int(y)),
                (int(x - 14 * (1 - f) - 2), int(y - 26 * (1 - f) - 3)),
                colour,
                max(2, int(7 * (1 - f))),
            )

    def paint_trail(self, picture):
        """Streams, then the prints ahead."""
        for i, at, course in self.streams:
            c, s = np.cos(course), np.sin(course)
            for half, colour in (
                (STREAM / 2 + 0.2, (64, 60, 40)),
                (STREAM / 2, (40, 120, 190)),
                (STREAM / 5, (120, 200, 240)),
            ):
                edge = [
                    (at[0] + u * c - v * s, at[1] + u * s + v * c)
                    for u, v in ((-half, -9), (half, -9), (half, 9), (-half, 9))
                ]
                if abs(i - self.index) < 26:
                    self.camera.patch(picture, edge, colour)
        for i in range(max(0, self.index - 3), min(TRAIL, self.index + 16)):
            (x, y), course, side = self.track[i], self.course[i], 0.28 * (-1) ** i
            px, py, scale = self.camera.project(
                x - side * np.sin(course), y + side * np.cos(course)
            )
            if scale < 150:
                bright = tuple(int(v * (1 if i > self.index else 0.5)) for v in GREEN)
                cv2.ellipse(
                    picture,
                    (int(px), int(py)),
                    (int(0.3 * scale), int(0.17 * scale)),
                    0,
                    0,
                    360,
                    bright,
                    -1,
                )
                for toe in (-0.22, 0, 0.22):
                    cv2.circle(
                        picture,
                        (int(px + toe * scale), int(py - 0.22 * scale)),
                        max(1, int(0.07 * scale)),
                        bright,
                        -1,
                    )


class Expert:
    """Keeps the beast in view, rolls aside when it charges, strikes while it is dazed; aims at the
    crystal; runs along the tracks.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.gain = self.hands.rng.uniform(1.6, 2.2)  # stick per radian
        self.gap = self.hands.rng.uniform(1.5, 1.9)  # m before a stream at which it jumps

    def __call__(self, score):
        return getattr(self, score["task"])(score["state"])

    def beast(self, state):
        angle, far, mood = state["angle"], state["far"], state["mood"]
        way, hold, tap = np.array([np.sin(angle), -np.cos(angle)]), {"LEFT_SHOULDER"}, set()
        aside = way[::-1] * [-1, 1]
        if state["hearts"] < 3 and mood in ("stalk", "dazed"):
            hold.add("DPAD_UP")
            walk = np.zeros(2)
        elif mood == "dazed":
            walk = way * np.clip((far - 2.4) / 0.6, 0, 1)
            if 3.4 < far < 5.2 and state["stamina"] > 0.3:
                tap.add("NORTH")
            elif far < REACH - 0.2:
                hold.add("WEST")
            elif far > 5:
                hold.add("LEFT_THUMB")
        elif mood in ("charge", "slam"):
            walk = aside if mood == "charge" else -way
            tap |= {"EAST"} if mood == "charge" else set()
        else:
            walk = way * np.clip((far - 7) / 3, -1, 1) + 0.3 * aside
        return self.hands(left=walk, hold=hold, tap=tap)

    def crystals(self, state):
        aside, above = state["aside"], state["above"]
        if state["ball"] < 4:
            return self.hands(left=(1, 0), tap={"EAST"})
        hold = {"LEFT_TRIGGER"} if abs(state["angle"]) < 0.6 else set()
        if state["arrow"] != state["colour"]:
            hold.add("DPAD_RIGHT" if state["colour"] else "DPAD_LEFT")
        elif np.hypot(aside, above) * state["far"] < 0.45:
            hold.add("RIGHT_TRIGGER")
        return self.hands(right=(2.2 * self.gain * aside, -5 * above), hold=hold)

    def trail(self, state):
        angle, hold, tap = state["angle"], set(), set()
        if 0 < state["gap"] < self.gap:
            tap.add("SOUTH")
        elif abs(angle) < 0.5 and state["stamina"] > 0.35:
            hold.add("LEFT_THUMB")
        return self.hands(
            left=(np.sin(angle), -np.cos(angle)), right=(self.gain * angle, 0), hold=hold, tap=tap
        )


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
