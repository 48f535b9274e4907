"""Duel: sword fights by moonlight, third person, with lock-on and stamina.

    python games/duel.py [--task knights|gates|spirits] [--seed N]

Left stick: walk. Right stick: turn the camera. RIGHT_THUMB: lock on, or off. RIGHT_SHOULDER: light
cut. RIGHT_TRIGGER: heavy cut. LEFT_SHOULDER, held: block; raised at the last moment it parries.
EAST: roll. LEFT_THUMB, held: sprint.
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
    unit,
)

TASKS = {
    "knights": Task(
        "Defeat five knights: block the red blade, cut in between, "
        "break the blue shield with a heavy cut.",
        "combat",
        40,
    ),
    "gates": Task("Walk through eight gates; roll through the fire around them.", "navigation", 34),
    "spirits": Task("Parry ten spirit fires at the last moment.", "specific", 36),
}
KNIGHTS, GATES, SPIRITS = 5, 8, 10
# metres and seconds from here on
SPRINT, LOOK, HORIZON = 6.0, 2.4, 56  # m/s, rad/s of the camera, its row of the horizon
SWING = 0.5  # rad by which a locked camera looks past the target
# seconds a cut lasts, until it lands; how far it goes
LIGHT, HEAVY, REACH = (0.34, 0.12), (0.66, 0.4), 2.3
HP, HEAL = 4, 2.5  # hits; seconds after which a wounded knight is well
PARRY, FLIGHT = 0.32, 7.0  # seconds after raising the guard, speed of a fire
RING, DOOR = 3.2, 1.3  # radius of the fire around a gate, half its width

# ---- sprites and figures

NIGHT, RED, BLUE, GOLD, WHITE, STEEL = (
    (20, 34, 62),
    (255, 50, 40),
    (60, 150, 255),
    (255, 210, 90),
    (255, 255, 255),
    (225, 235, 250),
)
LEAF, BARK, STONE = (206, 62, 58), (64, 44, 52), (120, 134, 150)
MAPLE = [
    sprite(
        150,
        200,
        (
            BARK,
            [
                (68, 198),
                (70, 110),
                (44, 70),
                (54, 68),
                (76, 100),
                (98, 66),
                (106, 70),
                (84, 112),
                (84, 198),
            ],
        ),
        *(((dark, dark // 4, dark // 4 + 14), x, y, r, r * 0.7) for dark, x, y, r in blobs),
    )
    for blobs in (
        [
            (110, 75, 52, 66),
            (110, 34, 70, 32),
            (110, 116, 72, 32),
            (160, 60, 44, 46),
            (160, 106, 60, 32),
            (205, 50, 34, 24),
            (220, 96, 36, 22),
        ],
        [
            (100, 75, 50, 60),
            (100, 34, 62, 32),
            (145, 86, 40, 46),
            (190, 62, 34, 28),
            (190, 112, 66, 26),
        ],
    )
]
LAMP = sprite(
    50,
    100,
    ((70, 80, 98), [(18, 98), (20, 52), (30, 52), (32, 98)]),
    (STONE, [(20, 98), (21, 52), (26, 52), (26, 98)]),
    ((70, 80, 98), [(6, 54), (44, 54), (40, 60), (10, 60)]),
    (STONE, [(12, 28), (38, 28), (38, 54), (12, 54)]),
    (GOLD, [(17, 32), (33, 32), (33, 50), (17, 50)]),
    (WHITE, 25, 42, 5, 6),
    ((90, 102, 120), [(2, 30), (25, 8), (48, 30)]),
)
FLAME = [
    sprite(
        48,
        60,
        (
            (255, 80, 20),
            [
                (2, 58),
                (6, 30),
                (14 + s, 14),
                (20, 34),
                (26 - s, 2),
                (34, 32),
                (40 + s, 18),
                (46, 58),
            ],
        ),
        ((255, 190, 60), [(10, 58), (16, 40), (24 - s, 20), (32, 42), (38, 58)]),
        (WHITE, 24, 54, 7, 6),
    )
    for s in (-3, 3)
]
GHOST = [
    sprite(
        60,
        70,
        (
            (30, 90, 160),
            [(6, 30), (54, 30), (50 - s, 68), (40, 54), (30 + s, 68), (20, 54), (10 + s, 68)],
        ),
        ((120, 220, 255), 30, 26, 24, 24),
        ((200, 245, 255), 26, 22, 15, 15),
        (NIGHT, 22, 26, 4, 6),
        (NIGHT, 38, 26, 4, 6),
    )
    for s in (0, 6)
]
FIREBALL = sprite(
    40,
    40,
    ((20, 80, 200), 20, 20, 19, 19),
    ((110, 210, 255), 20, 20, 14, 14),
    (WHITE, 19, 19, 8, 8),
)
MASK = sprite(
    30,
    30,
    ((120, 16, 24), [(3, 1), (10, 9), (20, 9), (27, 1), (25, 18), (15, 29), (5, 18)]),
    (RED, [(7, 12), (23, 12), (21, 19), (15, 26), (9, 19)]),
    (GOLD, 11, 15, 2, 2),
    (GOLD, 19, 15, 2, 2),
)
GATE = sprite(
    30,
    28,
    (RED, [(1, 4), (29, 4), (27, 9), (3, 9)]),
    (RED, [(5, 12), (25, 12), (25, 15), (5, 15)]),
    (RED, [(6, 8), (10, 8), (9, 28), (5, 28)]),
    (RED, [(20, 8), (24, 8), (25, 28), (21, 28)]),
)


def blade(kind, part):
    """Hand and tip of a sword, in the metres of its bearer; part: of the cut, in [0, 1]."""
    if kind == "light":  # from left to right
        a = 1.5 - 2.9 * part
        return (0.5 * np.cos(a), 0.5 * np.sin(a), 1.15), (1.7 * np.cos(a), 1.7 * np.sin(a), 1.2)
    if kind == "heavy":  # from above
        a = 2.2 - 2.9 * max(0.0, part - 0.35) / 0.65
        return (0.45 * np.cos(a), 0.2, 1.4 + 0.5 * np.sin(a)), (
            1.7 * np.cos(a),
            0.2,
            1.4 + 1.5 * np.sin(a),
        )
    return {
        "block": ((0.5, 0.3, 1.0), (0.55, -0.6, 1.9)),
        "raised": ((0.1, 0.4, 1.9), (-0.6, 0.5, 3.0)),
    }.get(kind, ((0.25, 0.42, 0.9), (1.0, 0.6, 1.7)))


class Game(Adventure):
    name, genre, tasks = "duel", "action RPG", TASKS
    cost = Adventure.cost | {"light": 0.12, "heavy": 0.25, "block": 0.2}
    icons = {
        "knights": MASK,
        "gates": GATE,
        "spirits": tuple(
            cv2.resize(part, (26, 30), interpolation=cv2.INTER_NEAREST) for part in GHOST[0]
        ),
    }

    def __init__(self, task, seed):
        super().__init__(task, seed, Camera(np.radians(68), HORIZON, (34, 62, 96), 15))
        self.kinds = self.rng.integers(0, 3, 48)  # of the props: maples and lamps
        self.lock, self.cut, self.cutting, self.guard = False, None, 0.0, 0.0
        self.count, self.fire, self.pause = 0, None, 0.0
        self.foe = self.spawn()
        self.scenery(np.random.default_rng(abs(seed)))

    def spawn(self):
        """The next knight, spirit or gate."""
        x, y, bearing = self.spot(
            (0.5, 1.1), {"knights": (5, 7), "spirits": (6.5, 8), "gates": (12, 15)}[self.task]
        )
        return {
            "x": x,
            "y": y,
            "facing": bearing,
            "hp": HP,
            "well": 0.0,
            "mood": "open",
            "left": self.rng.uniform(0.8, 1.2),
        }

    # ---- the world

    def move(self, pad, dt):
        awake, foe = self.stun <= 0, self.foe
        self.view += LOOK * pad["RIGHT_X"] * dt
        if "RIGHT_THUMB" in self.fresh and foe and self.task != "gates":
            self.lock = not self.lock and abs(self.angle(foe)) < 0.9
        if self.lock:
            self.view += (self.angle(foe) - SWING) * min(1, 5 * dt)
        wish = self.wish(pad) if awake else np.zeros(2)
        self.fight(pad, wish, awake, dt)
        sprint = pad["LEFT_THUMB"] and self.stamina > 0.02 and np.hypot(*wish) > 0.3
        pace = 1.2 if self.cut else 1.8 if self.guard else SPRINT if sprint else self.pace
        rest = (
            0.0
            if self.cut or self.roll > 0
            else 0.12
            if self.guard
            else -self.cost["sprint"]
            if sprint
            else 0.38
        )
        self.walk(wish, pace, rest, dt, self.bearing(self.foe) if self.lock and self.foe else None)
        self.pause -= dt
        if self.foe:
            getattr(self, self.task)(dt)
        elif self.pause <= 0:
            self.foe = self.spawn()

    def fight(self, pad, wish, awake, dt):
        """The hero's sword, guard and roll."""
        self.cutting += dt
        if self.cut and (self.cutting > (LIGHT if self.cut == "light" else HEAVY)[0] or not awake):
            self.cut = None
        free = awake and not self.cut and self.roll <= 0
        self.guard = self.guard + dt if free and pad["LEFT_SHOULDER"] else 0.0
        if free:
            self.tumble(wish)
        for kind, button in (("light", "RIGHT_SHOULDER"), ("heavy", "RIGHT_TRIGGER")):
            if (
                pad[button]
                and free
                and not self.guard
                and self.roll <= 0
                and not self.cut
                and self.pay(kind)
            ):
                self.cut, self.cutting = kind, 0.0
        lands = self.cut and (LIGHT if self.cut == "light" else HEAVY)[1]
        if (
            lands
            and self.cutting - dt <= lands < self.cutting
            and self.foe
            and self.task == "knights"
        ):
            self.strike()

    def gone(self):
        """The target is done with."""
        self.foe, self.fire, self.lock, self.pause = None, None, False, 0.5
        self.count += 1
        self.reached(
            self.count / {"knights": KNIGHTS, "gates": GATES, "spirits": SPIRITS}[self.task]
        )

    def strike(self):
        foe = self.foe
        if self.far(foe) > REACH or not self.faces(foe):
            return
        if foe["mood"] == "guard" and self.cut == "light":  # it bounces off
            self.burst(foe["x"], foe["y"], 1.3, BLUE)
            self.shove(foe, 5)
            self.stun, foe["mood"], foe["left"] = 0.35, "wind", 0.5
            return
        self.burst(foe["x"], foe["y"], 1.3, WHITE)
        foe["hp"] -= 1 if self.cut == "light" or foe["mood"] == "guard" else 2
        foe["well"] = HEAL
        if foe["mood"] == "guard":
            foe["mood"], foe["left"] = "reel", 1.0
        if foe["hp"] <= 0:
            self.burst(foe["x"], foe["y"], 1.0, RED, 40)
            self.gone()

    def knights(self, dt):
        foe, far = self.foe, self.far(self.foe)
        foe["left"], foe["well"] = foe["left"] - dt, foe["well"] - dt
        if foe["well"] <= 0:
            foe["hp"] = HP
        foe["facing"] += turn(self.bearing(foe) + np.pi - foe["facing"]) * min(
            1, (2 if foe["mood"] == "wind" else 7) * dt
        )
        if foe["mood"] in ("open", "guard"):  # comes, or gives way where too near
            pace = 2.6 * np.clip((far - 1.6) / 0.3, -0.7, 1) * dt
            foe["x"], foe["y"] = (
                foe["x"] + pace * float(np.cos(foe["facing"])),
                foe["y"] + pace * float(np.sin(foe["facing"])),
            )
        if foe["left"] <= 0:
            if foe["mood"] == "wind":
                self.clash(far)
            elif far > 2.6:
                foe["mood"], foe["left"] = "open", 0.2
            else:
                choices = ("guard", "wind") if foe["mood"] != "guard" else ("open", "wind")
                foe["mood"] = str(self.rng.choice(choices))
                foe["left"] = self.rng.uniform(0.9, 1.3) if foe["mood"] != "wind" else 0.65
        if far > 14:
            self.foe, self.lock = self.spawn(), False
        self.reached((self.count + 0.7 * (1 - foe["hp"] / HP)) / KNIGHTS)

    def clash(self, far):
        """The knight's blade comes down."""
        foe = self.foe
        foe["mood"], foe["left"] = "open", 0.9
        if (
            far > REACH + 0.3
            or self.roll > 0
            or abs(turn(self.bearing(foe) + np.pi - foe["facing"])) > 0.8
        ):
            return
        if self.guard and self.faces(foe, 1.0):
            self.burst(self.x, self.y, 1.4, GOLD)
            self.stamina = max(0.0, self.stamina - self.cost["block"])
            foe["mood"], foe["left"] = "reel", 0.9
        elif self.safe <= 0:
            self.burst(self.x, self.y, 1.2, RED)
            self.hurt()
            self.shove(foe, 9)
            foe["hp"] = HP  # a knight who strikes home takes heart

    def gates(self, dt):
        gate = self.foe
        dx, dy, far = self.x - gate["x"], self.y - gate["y"], self.far(gate)
        inside = gate["mood"] == "entered"
        if inside != (far < RING):  # through the fire, or not
            if self.roll > 0:
                gate["mood"] = "open" if inside else "entered"
            else:
                edge = (RING - 0.1 if inside else RING + 0.3) / max(far, 1e-6)
                self.x, self.y = gate["x"] + dx * edge, gate["y"] + dy * edge
                self.shove(gate, -3 if inside else 8)
                self.hurt()
        if far < DOOR and inside:
            self.burst(gate["x"], gate["y"], 2, GOLD, 40)
            self.gone()
            self.foe = self.spawn()
        elif far > 24:
            self.foe = self.spawn()
        self.reached((self.count + 0.4 * (self.foe["mood"] == "entered")) / GATES)

    def spirits(self, dt):
        """A spirit waits, then sends its fire; a parried fire flies back."""
        ghost, fire = self.foe, self.fire
        ghost["left"] -= dt
        if not fire:
            if ghost["left"] <= 0:
                self.fire = {"x": ghost["x"], "y": ghost["y"], "back": False}
            return
        goal = ghost if fire["back"] else {"x": self.x, "y": self.y}
        away = np.array([goal["x"] - fire["x"], goal["y"] - fire["y"]])
        way = np.array(unit(*away)) * min(
            np.hypot(*away), (2.5 if fire["back"] else 1) * FLIGHT * dt
        )
        fire["x"], fire["y"] = (np.array([fire["x"], fire["y"]]) + way).tolist()
        if fire["back"]:
            if np.hypot(*away) < 0.5:
                self.burst(ghost["x"], ghost["y"], 1.2, BLUE, 40)
                self.gone()
        elif self.far(fire) < 0.9:
            if 0 < self.guard < PARRY and self.faces(fire, 0.6):
                fire["back"] = True
                self.burst(fire["x"], fire["y"], 1.2, WHITE, 24)
                return
            if not self.guard and self.roll <= 0:
                self.hurt()
            self.burst(fire["x"], fire["y"], 1.2, BLUE)
            self.foe, self.fire, self.lock = self.spawn(), None, False

    def state(self):
        foe = self.foe or {"x": self.x, "y": self.y, "mood": "none"}
        fire = self.fire and not self.fire["back"] and round(self.far(self.fire), 3)
        return {
            "x": round(self.x, 3),
            "y": round(self.y, 3),
            "angle": round(self.angle(foe), 4) if self.foe else 0.0,
            "far": round(self.far(foe), 3),
            "mood": foe["mood"],
            "lock": self.lock,
            "stamina": round(self.stamina, 3),
            "fire": fire or 99.0,
        }

    # ---- the picture

    def scenery(self, rng):
        """The ground from above: slabs, moss, light around the lamps, leaves under the maples; the
        night sky.
        """
        n, pixel = self.pixels, np.arange(self.pixels)
        ground = (
            np.float32([70, 88, 112])
            + 50 * (noise(rng, n, n, 64, wrap=True) + noise(rng, n, n, 8, wrap=True) - 1)[..., None]
        )
        slab = np.kron(rng.uniform(-9, 9, (32, 32)), np.ones((32, 32)))[..., None]
        ground += np.float32(slab)
        ground[pixel % 32 < 2], ground[:, pixel % 32 < 2] = (
            ground[pixel % 32 < 2] * 0.6,
            ground[:, pixel % 32 < 2] * 0.6,
        )
        moss = noise(rng, n, n, 32, wrap=True) > 0.62
        ground[moss] = ground[moss] * 0.5 + np.float32([22, 52, 44])
        glow = self.pools(np.where(self.kinds == 2, 1.0, -0.5))
        ground += glow.clip(0, 1) * np.float32([190, 130, 40]) + glow.clip(-1, 0) * np.float32(
            [110, 110, 70]
        )
        for x, y in rng.integers(0, n, (900, 2)).tolist():
            cv2.circle(ground, (x, y), int(rng.integers(1, 3)), (rng.uniform(110, 190), 50, 52), -1)
        self.lay(ground)
        rows, wide = HORIZON + 4, self.camera.around()
        self.sky = gradient(wide, rows, (10, 16, 44), (16, 34, 74), (34, 62, 96))
        for x, y in rng.integers(0, (wide, rows - 16), (160, 2)).tolist():
            self.sky[y, x] = 190
        cv2.circle(self.sky, (wide // 3, 24), 17, (250, 248, 220), -1)
        crest = (
            rows
            - 3
            - 22 * noise(rng, 4, wide, 70, wrap=True)[0]
            - 5 * noise(rng, 4, wide, 8, wrap=True)[0]
        )
        self.sky[np.arange(rows)[:, None] > crest] = (22, 42, 72)

    def paint(self):
        picture, camera = np.empty((HEIGHT, WIDTH, 3), np.uint8), self.camera
        self.paint_land(picture)
        things = [(self.x, self.y, self.paint_hero), *self.standing(self.foe)]
        if self.foe:
            things.append(
                (
                    self.foe["x"],
                    self.foe["y"],
                    {
                        "knights": self.paint_knight,
                        "gates": self.paint_gate,
                        "spirits": self.paint_spirit,
                    }[self.task],
                )
            )
        if self.foe and self.task == "gates":
            for a in np.arange(0, 2 * np.pi, 0.36) + 0.1:
                x, y = self.foe["x"] + RING * np.cos(a), self.foe["y"] + RING * np.sin(a)
                flame = FLAME[int(self.time * 8 + 7 * a) % 2]
                things.append(
                    (
                        x,
                        y,
                        lambda p, x=x, y=y, flame=flame: camera.billboard(
                            p, flame, x, y, -0.1, 1.1
                        ),
                    )
                )
        if self.fire:
            x, y = self.fire["x"], self.fire["y"]
            things.append(
                (
                    x,
                    y,
                    lambda p: (
                        camera.shadow(p, x, y, 0.3),
                        camera.billboard(p, FIREBALL, x, y, 0.8, 0.8),
                    ),
                )
            )
        camera.scene(picture, things)
        for i in range(10):  # falling leaves
            x, y = (
                (i * 97 + 34 * self.time + 20 * np.sin(self.time + i) - self.view * 300) % WIDTH,
                (i * 61 + 40 * self.time * (1 + i % 3 / 2)) % HEIGHT,
            )
            cv2.rectangle(picture, (int(x), int(y)), (int(x) + 3, int(y) + 2), LEAF, -1)
        self.sparks.draw(picture)
        bar(picture, 44, 28, 120, 6, self.stamina, (90, 230, 110))
        if self.foe and abs(self.angle(self.foe)) > 0.6:
            pointer(picture, self.angle(self.foe), GOLD)
        return picture

    def prop(self, picture, i, x, y):
        lamp = self.kinds[i] == 2
        self.camera.billboard(
            picture, LAMP if lamp else MAPLE[self.kinds[i]], x, y, 0, 1.9 if lamp else 6.2
        )

    def paint_hero(self, picture):
        camera, roll = self.camera, self.roll > 0
        camera.shadow(picture, self.x, self.y, 0.5)
        part = self.cutting / (LIGHT if self.cut == "light" else HEAVY)[0]
        hand, tip = blade(self.cut or ("block" if self.guard else "idle"), part)
        coat = (255, 110, 100) if self.stun > 0 else (235, 240, 250)
        body = person(
            self.stride,
            coat,
            (50, 70, 130),
            (255, 214, 176),
            right=hand,
            low=0.9 if roll else 0.15 if self.guard else 0,
        )
        neck = body[2][3]
        body += [
            (STEEL, 0.05, hand, tip),
            ((40, 60, 120), 0.21, (neck[0] - 0.06, 0, neck[2] + 0.48)),
            (
                (230, 50, 60),
                0.07,
                (neck[0] - 0.15, 0, neck[2] + 0.1),
                (neck[0] - 0.8, 0.15 * np.sin(8 * self.time), neck[2] - 0.1),
            ),
        ]
        if self.safe <= 0 or int(self.time * 12) % 2:
            camera.figure(picture, posed(body, self.x, self.y, self.facing))
        if self.cut and part > 0.3:  # the trace of the blade
            trace = [blade(self.cut, max(0.0, p)) for p in np.linspace(part - 0.3, part, 5)]
            edge = [tip for _, tip in trace] + [
                tuple(0.6 * t + 0.4 * h for t, h in zip(tip, hand, strict=True))
                for hand, tip in trace[::-1]
            ]
            points = [
                camera.project(*p[0][2])[:2]
                for p in (posed([(0, 0, point)], self.x, self.y, self.facing) for point in edge)
            ]
            cv2.fillPoly(picture, [np.int32(points)], GOLD if self.cut == "heavy" else WHITE)
        if self.guard:
            fresh = self.guard < PARRY
            x, y, scale = camera.project(
                self.x + 0.6 * np.cos(self.facing), self.y + 0.6 * np.sin(self.facing), 1.2
            )
            cv2.circle(
                picture,
                (int(x), int(y)),
                int(0.9 * scale),
                WHITE if fresh else BLUE,
                4 if fresh else 2,
            )

    def paint_knight(self, picture):
        foe, camera, mood = self.foe, self.camera, self.foe["mood"]
        camera.shadow(picture, foe["x"], foe["y"], 0.6)
        hand, tip = blade(
            {"wind": "raised"}.get(
                mood, "light" if mood == "open" and foe["left"] > 0.65 else "idle"
            ),
            1.2 - foe["left"],
        )
        dark = WHITE if foe["well"] > HEAL - 0.1 else (62, 52, 74)
        body = person(
            3 * self.time * (mood in ("open", "guard")),
            dark,
            (40, 34, 50),
            (176, 30, 34),
            right=hand,
            left=(0.5, -0.2, 1.2) if mood == "guard" else (0.15, -0.42, 0.85),
            low=0.35 if mood == "reel" else 0,
        )
        low = 0.3 * (mood == "reel")
        body += [
            (RED if mood == "wind" else STEEL, 0.1 if mood == "wind" else 0.06, hand, tip),
            (GOLD, 0.05, (0, -0.1, 1.95 - low), (0.05, -0.45, 2.3 - low)),
            (GOLD, 0.05, (0, 0.1, 1.95 - low), (0.05, 0.45, 2.3 - low)),
            (dark, 0.16, (0, -0.34, 1.5 - low)),
            (dark, 0.16, (0, 0.34, 1.5 - low)),
        ]
        if mood == "guard":
            body += [
                (BLUE, 0.34, (0.62, -0.1, 0.8), (0.62, -0.1, 1.4)),
                (WHITE, 0.12, (0.8, -0.1, 1.1)),
            ]
        camera.figure(picture, posed(body, foe["x"], foe["y"], foe["facing"]))
        x, y, scale = camera.project(foe["x"], foe["y"], 2.75)
        bar(picture, int(x) - 24, int(y), 48, 6, foe["hp"] / HP, RED)
        if mood == "reel":
            stars(picture, x, y + 18, 16, self.time)
        if mood == "wind":
            cv2.circle(picture, (int(x), int(y) - 14), 8, RED, -1)
        self.paint_lock(picture, 1.2)

    def paint_lock(self, picture, z):
        if self.lock:
            x, y, scale = self.camera.project(self.foe["x"], self.foe["y"], z)
            for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.array([x + sx * 0.75 * scale, y + sy * 0.75 * scale])
                cv2.polylines(
                    picture,
                    [np.int32([corner - (0, sy * 12), corner, corner - (sx * 12, 0)])],
                    False,
                    WHITE,
                    3,
                )

    def paint_spirit(self, picture):
        ghost, camera = self.foe, self.camera
        camera.shadow(picture, ghost["x"], ghost["y"], 0.5)
        camera.billboard(
            picture,
            GHOST[int(self.time * 5) % 2],
            ghost["x"],
            ghost["y"],
            0.5 + 0.1 * np.sin(3 * self.time),
            1.7,
        )
        if not self.fire:  # the fire it gathers
            x, y, scale = camera.project(ghost["x"], ghost["y"], 2.6)
            cv2.circle(
                picture,
                (int(x), int(y)),
                max(1, int(scale * 0.4 * (1 - ghost["left"]))),
                (110, 210, 255),
                -1,
            )
        self.paint_lock(picture, 1.3)

    def paint_gate(self, picture):
        gate, wide = self.foe, DOOR + 0.3
        beams = [(RED, 0.17, (0, side, 0), (0, 0.9 * side, 3.6)) for side in (-wide, wide)]
        beams += [
            (RED, 0.12, (0, -wide, 2.8), (0, wide, 2.8)),
            (RED, 0.22, (0, -wide - 0.7, 3.7), (0, wide + 0.7, 3.7)),
            (GOLD, 0.3, (0, 0, 3.2)),
        ]
        self.camera.figure(picture, posed(beams, gate["x"], gate["y"], gate["facing"]))


class Expert:
    """Turns the camera to the target, locks on, and answers what it sees: a red blade, a blue
    shield, an opening, a fire near by.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.gain = self.hands.rng.uniform(1.6, 2.2)  # stick per radian
        self.late = self.hands.rng.uniform(1.8, 2.4)  # metres to a fire when it raises the guard

    def __call__(self, score):
        state, task = score["state"], score["task"]
        angle, far, mood, stamina = state["angle"], state["far"], state["mood"], state["stamina"]
        way = np.array([np.sin(angle), -np.cos(angle)])
        look, tap, hold = (0 if state["lock"] else self.gain * angle, 0), set(), set()
        if mood == "none":
            return self.hands(left=(0, -0.3))
        if task == "gates":
            if far - RING < 1.3 and mood != "entered" and stamina > Game.cost["roll"]:
                tap.add("EAST")
            elif far > RING + 3 and stamina > 0.4:
                hold.add("LEFT_THUMB")
            return self.hands(left=way, right=look, hold=hold, tap=tap)
        if not state["lock"] and abs(angle) < 0.5:
            tap.add("RIGHT_THUMB")
        if task == "spirits":
            hold |= {"LEFT_SHOULDER"} if state["fire"] < self.late else set()
            return self.hands(left=0.25 * way, right=look, hold=hold, tap=tap)
        # around the knight
        walk = way * np.clip((far - 1.5) / 0.6, -0.5, 1) + 0.35 * way[::-1] * [-1, 1]
        if far < 3.2 and mood == "wind":
            hold.add("LEFT_SHOULDER")
        elif far < REACH - 0.1 and stamina > 0.25:
            hold.add("RIGHT_TRIGGER" if mood == "guard" else "RIGHT_SHOULDER")
        return self.hands(left=walk, right=look, hold=hold, tap=tap)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
