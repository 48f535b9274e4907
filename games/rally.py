"""Rally: driving through open country, drawn as a voxel landscape.

    python games/rally.py [--task road|drones|gates] [--seed N]

Left stick or d-pad: steer. RIGHT_TRIGGER: gas. LEFT_TRIGGER: brake. SOUTH, held: the beam.
"""

import console
import cv2
import numpy as np
from console import HEIGHT, WIDTH, Hands, Task, World, bar, gradient, noise, sprite, stamp, turn

TASKS = {
    "road": Task("Follow the winding road for 440 m; the grass is slow.", "navigation", 27),
    "drones": Task("Burst eighteen balloons with the beam.", "combat", 26),
    "gates": Task("Drive through ten gates.", "specific", 32),
}
ROAD, DRONES, GATES = 440, 18, 10
# metres and seconds from here on
MAP, CELL = 1024, 0.5  # cells a side, metres a cell; the land repeats every 512 m
TOP, GRASS, GAS, TURN = 25, 7, 16, 1.5  # speed on road and on grass beside it, acceleration, rad/s
HALF_ROAD = 7
BACK, EYE = 8.5, 4.6  # the camera: behind the car, above the ground
# s of beam that burst a balloon, rad that count as aimed, its distance
LOCK, AIM, FAR = 0.5, 0.11, 42
HALF_GATE = 7

# ---- the eye: half-size columns and the distances at which the land is sampled, near to far

COLUMNS, ROWS, HORIZON = WIDTH // 2, HEIGHT // 2, 46
FOCAL = COLUMNS / 2 / np.tan(np.radians(38))  # half-size pixels
DEPTH = np.float32(np.r_[1 / np.linspace(1 / 5, 1 / 45, 56), np.geomspace(47, 260, 34)])[:, None]
SIDE = np.float32((np.arange(COLUMNS) + 0.5 - COLUMNS / 2) / FOCAL)[None]
NEAR = int(np.sum(DEPTH < 70))  # samples before the haze begins
HAZE, MIST = np.uint16(200 * (DEPTH[NEAR:, :, None] - 60) / 200), np.uint16([190, 215, 235, 255])

# ---- sprites

RED, PINK, WHITE, DARK = (255, 40, 50), (255, 40, 220), (250, 250, 255), (20, 22, 34)
ORANGE, RUST, YELLOW = (255, 125, 20), (170, 70, 0), (255, 220, 60)


def car(lean):
    """From behind; lean: pixels by which the roof shifts in a turn."""
    s = lean
    return sprite(
        88,
        58,
        (DARK, [(8, 38), (24, 38), (24, 57), (8, 57)]),
        (DARK, [(64, 38), (80, 38), (80, 57), (64, 57)]),
        (RUST, [(4, 28), (84, 28), (82, 50), (6, 50)]),
        (ORANGE, [(6, 24), (82, 24), (84, 42), (4, 42)]),
        (ORANGE, [(20 + s, 4), (68 + s, 4), (78 + s / 2, 26), (10 + s / 2, 26)]),
        ((50, 70, 110), [(24 + s, 7), (64 + s, 7), (71 + s / 2, 22), (17 + s / 2, 22)]),
        (RED, [(8, 29), (22, 29), (22, 37), (8, 37)]),
        (RED, [(66, 29), (80, 29), (80, 37), (66, 37)]),
        (DARK, [(34, 32), (54, 32), (54, 39), (34, 39)]),
    )


CAR = {lean: car(lean) for lean in (-14, -7, 0, 7, 14)}
ROAD_ICON = sprite(
    28,
    28,
    ((90, 160, 70), [(0, 0), (28, 0), (28, 28), (0, 28)]),
    ((70, 70, 84), [(12, 0), (18, 0), (26, 28), (2, 28)]),
    (WHITE, [(14, 10), (16, 10), (17, 22), (12, 22)]),
)
BALLOON_ICON = sprite(
    26,
    30,
    (RED, 13, 12, 11, 12),
    ((255, 170, 170), 9, 8, 3, 4),
    (WHITE, [(10, 25), (16, 25), (15, 30), (11, 30)]),
)
GATE_ICON = sprite(
    28,
    28,
    (PINK, [(2, 3), (26, 3), (26, 10), (2, 10)]),
    (WHITE, [(2, 3), (6, 3), (6, 28), (2, 28)]),
    (WHITE, [(22, 3), (26, 3), (26, 28), (22, 28)]),
)


# ---- the land


def pack(rgb):
    """uint8 [..., 3] -> uint32 [...], one gather instead of three."""
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    return np.ascontiguousarray(rgba).view(np.uint32)[..., 0]


def loop(rng):
    """The road: points about 1 m apart on a winding closed curve, in metres [n, 2], and the
    direction along them [n].
    """
    a = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    radius = 165 + sum(
        size * np.sin(waves * a + rng.uniform(0, 6.28))
        for waves, size in ((9, 12), (5, 9), (14, 4))
    )
    points = np.stack([256 + radius * np.cos(a), 256 + radius * np.sin(a)], 1)[
        :: int(rng.choice([-1, 1]))
    ]
    length = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    at = np.arange(0, length[-1], 1.0)
    points = np.stack([np.interp(at, length, points[:, 0]), np.interp(at, length, points[:, 1])], 1)
    step = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    return points, np.arctan2(step[:, 1], step[:, 0])


class Game(World):
    name, genre, tasks = "rally", "open world", TASKS
    icons = {"road": ROAD_ICON, "drones": BALLOON_ICON, "gates": GATE_ICON}

    def __init__(self, task, seed):
        super().__init__(task, seed)
        rng = self.rng
        self.points, self.along = loop(rng)
        self.index = int(rng.integers(len(self.points)))  # the point of the road reached
        self.x, self.y = (self.points[self.index] + rng.uniform(-5, 5, 2)).tolist()
        self.heading = float(self.along[self.index] + rng.uniform(-0.5, 0.5))
        self.speed, self.steer, self.bump, self.next_bump = 8.0, 0.0, 0.0, 2.0
        self.hearts = 0  # nothing here hurts
        self.driven, self.count, self.lock, self.lost, self.firing = 0, 0, 0.0, 0.0, False
        self.locate()
        self.target = None if task == "road" else self.spawn()
        self.scenery(np.random.default_rng(abs(seed)))

    def spawn(self):
        """A balloon or a gate ahead, well aside of the straight way: {bearing, phase} or {x, y,
        facing}.
        """
        bearing = self.heading + float(self.rng.uniform(0.3, 0.5) * self.rng.choice([-1, 1]))
        if self.task == "drones":
            return {"bearing": bearing, "phase": self.rng.uniform(0, 6.28)}
        far = self.rng.uniform(46, 60)
        return {
            "x": self.x + far * np.cos(bearing),
            "y": self.y + far * np.sin(bearing),
            "facing": bearing,
        }

    # ---- the world

    def move(self, pad, dt):
        self.steer += (pad.left()[0] - self.steer) * min(1, 12 * dt)
        if self.time > self.next_bump:  # a stone: the car swerves
            self.bump = float(self.rng.uniform(0.8, 1.4) * self.rng.choice([-1, 1]))
            self.next_bump = self.time + self.rng.uniform(1.5, 3)
        self.bump *= 1 - 5 * dt
        self.heading += (
            self.steer * TURN * min(1, self.speed / 8) + self.bump * min(1, self.speed / 20)
        ) * dt
        top = TOP if self.task != "road" or self.off_road < HALF_ROAD + 1 else GRASS
        push = (
            GAS * pad["RIGHT_TRIGGER"]
            - 30 * pad["LEFT_TRIGGER"]
            - 3
            - (40 if self.speed > top else 0)
        )
        self.speed = float(np.clip(self.speed + push * dt, 0, TOP))
        self.x += np.cos(self.heading) * self.speed * dt
        self.y += np.sin(self.heading) * self.speed * dt
        self.locate()
        self.firing = pad["SOUTH"]
        getattr(self, self.task)(dt)

    def locate(self):
        """The nearest point of the road, as an index, and how far it is."""
        far = np.hypot(self.points[:, 0] - self.x, self.points[:, 1] - self.y)
        self.nearest = int(far.argmin())
        self.off_road = float(far[self.nearest])

    def road(self, dt):
        if self.off_road < HALF_ROAD + 1:
            half = len(self.points) // 2
            step = (self.nearest - self.index + half) % len(self.points) - half
            # a short cut across country does not count
            self.driven += step if abs(step) < 60 else 0
            self.index = self.nearest
        self.reached(self.driven / ROAD)

    def missed(self, angle, dt):
        """True when the target has been out of sight for a second."""
        self.lost = self.lost + dt if abs(angle) > 0.62 else 0.0
        return self.lost > 1

    def drones(self, dt):
        angle = self.aim()[0]
        self.lock = max(0.0, self.lock + (dt if self.firing and abs(angle) < AIM else -0.7 * dt))
        if self.lock > LOCK:
            self.sparks.burst(self.rng, WIDTH / 2 + FOCAL * 2 * np.tan(angle), 90, WHITE, 26, 220)
            self.count += 1
            self.reached(self.count / DRONES)
        if self.lock > LOCK or self.missed(angle, dt):
            self.target, self.lock, self.lost = self.spawn(), 0.0, 0.0

    def gates(self, dt):
        gate = self.target
        dx, dy = self.x - gate["x"], self.y - gate["y"]
        c, s = np.cos(gate["facing"]), np.sin(gate["facing"])
        past, aside = dx * c + dy * s, abs(dy * c - dx * s)
        if past > 0 and aside < HALF_GATE:
            self.sparks.burst(self.rng, WIDTH / 2, 150, PINK, 24, 240)
            self.count += 1
            self.reached(self.count / GATES)
        if past > 0 or self.missed(self.aim()[0], dt):
            self.target, self.lost = self.spawn(), 0.0

    def aim(self):
        """(angle to the right, distance) of what to steer for: the balloon, the gate, or the road
        some way ahead.
        """
        if self.task == "drones":
            return turn(
                self.target["bearing"]
                + 0.07 * np.sin(1.5 * self.time + self.target["phase"])
                - self.heading
            ), float(FAR)
        ahead = self.points[(self.nearest + 10 + int(self.speed * 0.3)) % len(self.points)]
        x, y = (self.target["x"], self.target["y"]) if self.target else ahead
        return turn(np.arctan2(y - self.y, x - self.x) - self.heading), float(
            np.hypot(x - self.x, y - self.y)
        )

    def state(self):
        angle, far = self.aim()
        return {
            "x": round(float(self.x), 2),
            "y": round(float(self.y), 2),
            "speed": round(self.speed, 2),
            "target": [round(float(angle), 4), round(far, 2)],
        }

    # ---- the picture

    def scenery(self, rng):
        """Height and colour of every cell of the land; a panorama for the sky."""
        hills = 16 * noise(rng, MAP, MAP, 128, wrap=True) + 3 * noise(rng, MAP, MAP, 32, wrap=True)
        shade = noise(rng, MAP, MAP, 16, wrap=True) + 0.6 * noise(rng, MAP, MAP, 4, wrap=True) - 0.8
        colour = np.float32([86, 150, 62]) + shade[..., None] * np.float32([60, 50, 40])
        colour += (hills[..., None] - 9) * np.float32([5, 2, 1])
        # the sun is low
        colour += (np.roll(hills, 3, 1) - hills)[..., None] * np.float32([60, 60, 40])
        self.height = hills.copy()
        if self.task == "road":
            line = [np.int32(self.points / CELL * 16)]
            for width, paint in ((34, (196, 170, 110)), (30, WHITE), (27, (72, 72, 88))):
                cv2.polylines(colour, line, True, paint, width, shift=4)
            for i in range(0, len(self.points), 8):
                cv2.line(
                    colour,
                    *(
                        tuple(np.int32(self.points[(i + k) % len(self.points)] / CELL).tolist())
                        for k in (0, 3)
                    ),
                    YELLOW,
                    2,
                )
        free = np.ones((MAP, MAP), np.uint8)
        cv2.polylines(free, [np.int32(self.points / CELL)], True, 0, 60)
        # trees by the road, bushes in the open
        for y, x in rng.integers(4, MAP - 4, (700, 2)).tolist():
            if free[y, x]:
                r, tall = (3, 5.5) if self.task == "road" else (2, 0.9)
                self.height[y - r : y + r, x - r : x + r] += tall
                colour[y - r : y + r, x - r : x + r] = rng.uniform(0.7, 1.2) * np.float32(
                    [24, 70, 52]
                )
        self.colour = pack(np.uint8(colour.clip(0, 255))).ravel()
        self.ground, self.height = hills, self.height.ravel()
        wide = int(2 * np.pi * FOCAL)
        sky = gradient(
            wide, ROWS, (70, 140, 225), (150, 200, 245), (225, 235, 240), (225, 235, 240)
        )
        around = np.linspace(0, 2 * np.pi, wide, endpoint=False)
        crest = (
            HORIZON
            - 13
            - sum(
                size * np.sin(peaks * around + rng.uniform(0, 6.28))
                for peaks, size in ((7, 5), (12, 4), (31, 1.5))
            )
        )
        sky[np.arange(ROWS)[:, None] > crest] = (150, 175, 205)
        self.sky = pack(np.hstack([sky, sky[:, : 2 * COLUMNS]]))

    def paint(self):
        c, s = np.cos(self.heading), np.sin(self.heading)
        eye_x, eye_y = self.x - BACK * c, self.y - BACK * s

        def ground(x, y):
            return self.ground[int(y / CELL) % MAP, int(x / CELL) % MAP]

        self.eye = max(ground(eye_x, eye_y) + 2.5, ground(self.x, self.y) + EYE)
        # where each column's ray is at each depth, and the highest thing seen there so far
        x = (np.float32(c) - np.float32(s) * SIDE) * (DEPTH / np.float32(CELL)) + np.float32(
            eye_x / CELL
        )
        y = (np.float32(s) + np.float32(c) * SIDE) * (DEPTH / np.float32(CELL)) + np.float32(
            eye_y / CELL
        )
        cell = (y.astype(np.int32) & (MAP - 1)) * MAP + (x.astype(np.int32) & (MAP - 1))
        row = HORIZON + (np.float32(self.eye) - self.height[cell]) * (np.float32(FOCAL) / DEPTH)
        row = np.minimum.accumulate(row.astype(np.int32).clip(0, ROWS), axis=0)
        # hidden behind something nearer: into a row that is cut off
        row[1:][row[1:] == row[:-1]] = ROWS
        # what rises into sight marks its uppermost row with its depth; the rows below, down to the
        # next mark, show the same
        depth = np.full((ROWS + 1, COLUMNS), len(DEPTH), np.uint8)
        depth[row, np.arange(COLUMNS)] = np.arange(len(DEPTH), dtype=np.uint8)[:, None]
        depth = np.minimum.accumulate(depth[:ROWS], axis=0)
        colour = self.colour[cell]
        far = colour[NEAR:].view(np.uint8).reshape(-1, COLUMNS, 4)
        far[:] = (far * (256 - HAZE) + MIST * HAZE) >> 8
        left = int(self.heading * FOCAL) % int(2 * np.pi * FOCAL)
        land = colour.ravel().take(
            depth * np.int32(COLUMNS) + np.arange(COLUMNS, dtype=np.int32), mode="clip"
        )
        small = (
            np.where(depth == len(DEPTH), self.sky[:, left : left + COLUMNS], land)
            .view(np.uint8)
            .reshape(ROWS, COLUMNS, 4)
        )
        picture = cv2.cvtColor(
            cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST), cv2.COLOR_RGBA2RGB
        )
        if self.task == "drones":
            self.paint_drone(picture)
        elif self.task == "gates":
            self.paint_gate(picture)
        lean = min(CAR, key=lambda lean: abs(lean - 16 * self.steer))
        bounce = 2 * np.sin(self.time * 23) * self.speed / TOP + 6 * abs(self.bump)
        stamp(picture, CAR[lean], WIDTH / 2 + 10 * self.steer, 212 - bounce)
        self.sparks.draw(picture)
        bar(picture, WIDTH - 110, HEIGHT - 14, 100, 6, self.speed / TOP, YELLOW)
        return picture

    def project(self, x, y, z):
        """A point of the land -> pixel (x, y) and pixels per metre; what is behind the eye is
        brought just before it.
        """
        c, s = np.cos(self.heading), np.sin(self.heading)
        dx, dy = x - self.x + BACK * c, y - self.y + BACK * s
        depth = max(dx * c + dy * s, 0.5)
        scale = 2 * FOCAL / depth
        return WIDTH / 2 + (dy * c - dx * s) * scale, 2 * HORIZON + (self.eye - z) * scale, scale

    def paint_drone(self, picture):
        angle = self.aim()[0]
        x, y = (
            int(WIDTH / 2 + 2 * FOCAL * np.tan(np.clip(angle, -1.2, 1.2))),
            int(84 + 5 * np.sin(2 * self.time)),
        )
        if self.firing:
            tip = (x, y) if abs(angle) < AIM else (WIDTH // 2, 70)
            for thick, colour in ((9, (80, 200, 255)), (3, WHITE)):
                cv2.line(picture, (WIDTH // 2, 190), tip, colour, thick)
        for radius, colour in (
            (27, (140, 0, 20)),
            (25, RED if self.lock < 0.05 or int(self.time * 20) % 2 else WHITE),
        ):
            cv2.ellipse(picture, (x, y), (radius, radius + 4), 0, 0, 360, colour, -1)
        cv2.ellipse(picture, (x - 8, y - 10), (6, 9), 20, 0, 360, (255, 180, 180), -1)
        cv2.rectangle(picture, (x - 8, y + 36), (x + 8, y + 47), (120, 70, 30), -1)
        for side in (-7, 7):
            cv2.line(picture, (x + 2 * side, y + 26), (x + side, y + 36), DARK, 1)
        cv2.circle(picture, (WIDTH // 2, 84), 30, WHITE, 2)

    def paint_gate(self, picture):
        gate = self.target
        c, s = np.cos(gate["facing"]), np.sin(gate["facing"])
        posts = [
            (gate["x"] - side * s, gate["y"] + side * c) for side in (-HALF_GATE - 1, HALF_GATE + 1)
        ]
        ground = [self.ground[int(y / CELL) % MAP, int(x / CELL) % MAP] for x, y in posts]
        high = max(ground)
        feet = [self.project(x, y, z) for (x, y), z in zip(posts, ground, strict=True)]
        if max(foot[2] for foot in feet) > 300:  # behind the eye
            return
        tops, bottoms = ([self.project(x, y, high + up) for x, y in posts] for up in (9, 6))
        for foot, tip in zip(feet, tops, strict=True):
            cv2.line(
                picture,
                (int(foot[0]), int(foot[1])),
                (int(tip[0]), int(tip[1])),
                WHITE,
                max(2, int(foot[2] * 1.0)),
            )
        banner = np.int32([tops[0][:2], tops[1][:2], bottoms[1][:2], bottoms[0][:2]])
        cv2.fillPoly(picture, [banner], PINK)
        cv2.polylines(picture, [banner], True, (120, 0, 90), 2)


class Expert:
    """Steers for the target in proportion to its angle, gas down; brakes before sharp bends, fires
    when aimed.
    """

    def __init__(self, seed):
        self.hands = Hands(seed)
        self.gain = self.hands.rng.uniform(2.2, 2.8)  # stick per radian

    def __call__(self, score):
        (angle, _), speed = score["state"]["target"], score["state"]["speed"]
        hold = (
            {"LEFT_TRIGGER"}
            if score["task"] == "road" and abs(angle) > 0.45 and speed > 15
            else {"RIGHT_TRIGGER"}
        )
        if score["task"] == "drones" and abs(angle) < 0.9 * AIM:
            hold.add("SOUTH")
        return self.hands(left=(self.gain * angle, 0), hold=hold)


if __name__ == "__main__":
    console.main(Game, TASKS, __doc__)
