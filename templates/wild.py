"""templates/wild.py: synthetic controller skins of many hands, to train the parser on what
streamers publish.

`pieces(seed)` gives a canvas and its elements exactly as pads.pieces(name) does, the same for the
same seed. No skin is a copy: where things are, how they are drawn, and how a press shows are each
drawn at random. Weights were trained on these skins: to change the order of the draws is to change
the data.

First come groups of parts, in hundredths of a pad's width, that are pushed apart (`arrange`); then
a Style; then pictures, in px of the canvas or, for pixel art, in dots of `unit` px that are
enlarged at the end. x right, y down; colours are (r, g, b), 0..255; pictures are RGBA uint8,
premultiplied until handed out.
"""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass

import cv2
import numpy as np

from templates import pads

CROSS = {"DPAD_LEFT": (-1, 0), "DPAD_RIGHT": (1, 0), "DPAD_UP": (0, -1), "DPAD_DOWN": (0, 1)}
DIAMOND = {"SOUTH": (0, 1), "WEST": (-1, 0), "EAST": (1, 0), "NORTH": (0, -1)}
FACES = {
    "diamond": list(DIAMOND.values()),
    "row": [(1.1 * i - 1.65, 0) for i in range(4)],
    "square": [(0.66 * x, 0.66 * y) for y in (1, -1) for x in (-1, 1)],
}
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
# of 255: a press that changes its button's box by less on average is drawn anew, plainly
LEAST = 20


class Dice:
    """Random draws."""

    def __init__(self, seed):
        self.rng = np.random.default_rng((20, seed))

    def u(self, low, high):
        return low + (high - low) * self.rng.random()

    def log(self, low, high):
        return low * (high / low) ** self.rng.random()

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, *options, **weights):
        """One of the options, or one of the names by their weights."""
        if options:
            return options[int(self.rng.random() * len(options))]
        total = np.cumsum(list(weights.values()))
        return list(weights)[int(np.searchsorted(total, self.rng.random() * total[-1]))]

    def color(self, vivid=0.5):
        """A hue with the chance `vivid`, else a gray, most often black or white."""
        if not self.chance(vivid):
            return self.pick(WHITE, WHITE, BLACK, (int(self.u(10, 245)),) * 3)
        s, v = self.u(0.35, 1), self.u(0.35, 1)
        wheel = abs((6 * self.u(0, 1) + np.array([0, 4, 2])) % 6 - 3) - 1
        return tuple(int(255 * v * (1 - s + s * c)) for c in wheel.clip(0, 1))

    def unlike(self, other, least=110, vivid=0.5):
        """A colour that differs from the other by at least so much in one channel."""
        tries = [self.color(vivid) for _ in range(8)] + [WHITE, BLACK]
        return next(c for c in tries if gap(c, other) >= least)


def gap(a, b):
    """How much colours, RGB or RGBA, differ in red, green or blue."""
    return max(abs(x - y) for x, y in zip(a[:3], b[:3]))


def readable(c):
    """White or black, to see on it."""
    return WHITE if 0.3 * c[0] + 0.6 * c[1] + 0.1 * c[2] < 135 else BLACK


def tint(c, k):
    return tuple(min(255, int(v * k)) for v in c)


# ---- parts, and where they are, in hundredths of a pad's width -----------------------------------


@dataclass
class Part:
    """One element.  Of a stick, w is its knob's diameter and h its travel."""

    kind: str
    id: str
    x: float
    y: float
    w: float
    h: float
    shape: str = "disc"
    label: str = ""
    flip: int = 1  # -1: mirrored
    way: tuple = ()  # where an arm points


def extent(parts):
    """x0, y0, x1, y1 of what they cover, moving."""
    at = np.array([(p.x, p.y) for p in parts])
    reach = np.array(
        [(p.w / 2 + p.h,) * 2 if p.kind == "stick" else (p.w / 2, p.h / 2) for p in parts]
    )
    return np.concatenate([(at - reach).min(0), (at + reach).max(0)])


def move(parts, dx, dy):
    for p in parts:
        p.x, p.y = p.x + dx, p.y + dy


def apart(groups, between):
    """Push groups of parts until their boxes no longer overlap, each pair along the shorter way."""
    # x0, y0, x1, y1, and how far it has moved
    boxes = [[*extent(g).tolist(), 0, 0] for g in groups]
    pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
    still = 0
    for i, j in pairs * 120:
        a, b = boxes[i], boxes[j]
        overlap = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + between for k in (0, 1)]
        still = 0 if min(overlap) > 0.01 else still + 1
        if still > len(pairs):
            break
        if not still:
            k = overlap.index(min(overlap))
            step = 0.55 * overlap[k] * (1 if a[k] + a[k + 2] >= b[k] + b[k + 2] else -1)
            for n in (k, k + 2, k + 4):
                a[n], b[n] = a[n] + step, b[n] - step
    for g, box in zip(groups, boxes):
        move(g, *box[4:])


def knob_size(d):
    """Diameter and travel: most published knobs are 2 to 4 travels wide; dots and wide caps occur."""
    while True:
        travel, ratio = d.log(2.6, 9.5), 2.6 * math.exp(0.62 * d.rng.standard_normal())
        if 0.6 <= ratio <= 7 and 4 <= travel * ratio <= 21:
            return travel * ratio, travel


def face(d, x, y, names="SWEN"):
    """The face buttons: a diamond of any spacing, a row, or a square."""
    shape = d.pick(disc=8, box=1.5, soft=1.5, hexagon=0.5, octagon=0.5, lozenge=0.5)
    w = d.log(4, 11)
    spots = FACES[d.pick(diamond=8, row=1, square=1)]
    h = w * (d.u(0.75, 1.25) if d.chance(0.2) else 1)
    lean = d.u(-0.25, 0.25) if d.chance(0.12) else 0
    step = max(w, h) * d.u(0.78 if shape in ("disc", "lozenge", "octagon") else 1.03, 1.5)
    labels = d.pick("AXBY", "BYAX", ("cross", "square", "circle", "triangle"), "1324")
    return [
        Part(
            "button",
            id,
            x + step * (dx + lean * dy),
            y + step * (dy - lean * dx),
            w,
            h,
            shape,
            label,
        )
        for id, label, (dx, dy) in zip(DIAMOND, labels, spots)
        if id[0] in names
    ]


def dpad(d, x, y):
    """One element with nine states, or four buttons: arms, arrows, keys."""
    side = d.log(10, 25)
    if d.chance(0.4):
        return [
            Part(
                "dpad", "", x, y, side, side, d.pick(cross=5, plate=1.5, split=1.5, arrows=1, hat=1)
            )
        ]
    shape = d.pick(box=2, soft=2, disc=1, arm=2, triangle=1.5, chevron=0.5)
    out = d.u(0.3, 0.36) * side
    label = d.pick("arrow", "")
    long = out * d.u(0.75, 0.95)
    wide = min(out * d.u(0.6, 1), 2 * out - long) if shape != "disc" else long
    return [
        Part(
            "button",
            id,
            x + out * dx,
            y + out * dy,
            *((long, wide) if dx else (wide, long)),
            shape,
            label,
            way=(dx, dy),
        )
        for id, (dx, dy) in CROSS.items()
    ]


def menu(d, x, y):
    """BACK and START, around x."""
    away, w = d.u(4, 20), d.log(2.5, 8)
    shape = d.pick("disc", "box", "soft", "pill")
    h = w * d.u(0.5, 1.5)
    labels = d.pick("<>", "-+", "  ", ("SELECT", "START"), "  ", " =")
    return [
        [Part("button", id, x + side * away, y, w, h, shape, label.strip(), side)]
        for id, side, label in zip(("BACK", "START"), (-1, 1), labels)
    ]


def tops(d, box):
    """Shoulders and triggers over what is in `box`, stacked or in a row, or triggers at its sides."""
    x0, y0, x1, y1 = box
    half = (x1 - x0) / 2
    form, have = d.pick(stack=6, row=1.5, flank=1), d.pick(both=8, SHOULDER=1, TRIGGER=0.6)
    inset, w, h = d.u(0, 0.25) * half, d.u(0.2, 0.6) * half, d.log(2.5, 10)
    tw, th = d.u(0.15, 0.5) * half, d.log(3, 15)  # the trigger's
    y = y0 - d.u(0.5, 4) - h / 2
    usual = ("soft", "pill", "wing", "box", "slant")
    shapes = [d.pick(*usual), d.pick(*usual, "fin", "dome", "fin")]
    if form == "row":
        inset, w, tw, th = 0.3 * inset, 0.7 * w, min(tw, 0.42 * half), h
    x = half - inset - w / 2  # from the middle
    spot = {
        "stack": (x + d.u(-0.4, 0.4) * (w - tw), y - h / 2 - d.u(0.3, 4) - th / 2),
        "row": (x - w / 2 - 0.05 * half - tw / 2, y),
        "flank": (half + d.u(2, 5) + th / 2, (y0 + y1) / 2),
    }[form]
    if form == "flank":
        tw, th = th, (y1 - y0) * d.u(0.3, 0.9)
        shapes[1] = d.pick("soft", "pill", "box")
    names = d.pick(("LB", "RB", "LT", "RT"), ("L1", "R1", "L2", "R2"), ("L", "R", "ZL", "ZR"))
    rows = (
        ("SHOULDER", "button", (x, y), (w, h), names[:2]),
        ("TRIGGER", "trigger", spot, (tw, th), names[2:]),
    )
    return [
        Part(kind, f"{side}_{name}", x0 + half + flip * out, at, *size, shape, label, flip)
        for shape, (name, kind, (out, at), size, labels) in zip(shapes, rows)
        if have in ("both", name)
        for side, flip, label in zip(("LEFT", "RIGHT"), (-1, 1), labels)
    ]


def gamepad(d):
    """Two sticks, now and then one, as on most pads."""
    x, inner, low = d.u(11, 23), d.u(29, 41), d.u(10, 26)
    size = knob_size(d)
    a, b, c = (x, 0), (inner, low), (x + d.u(-2, 6), low)
    left, pad, *mirrored = {"xbox": (a, b, b, a), "ps": (b, a, b, a), "high": (a, c, a, c)}[
        d.pick(xbox=4, ps=4, high=0.7)
    ]
    right, buttons = ((100 - x, y) for x, y in mirrored)
    groups = [
        face(d, *buttons),
        dpad(d, *pad),
        [Part("stick", "LEFT", *left, *size)],
        [Part("stick", "RIGHT", *right, *size)],
    ]
    groups = [g for g, p in zip(groups, (0.96, 0.93, 0.96, 0.94)) if d.chance(p)]
    return groups + (menu(d, 50, d.u(-9, 8)) if d.chance(0.88) else [])


def retro(d):
    """No stick, or one or two among the rest: NES, SNES, handhelds, three-pronged pads."""
    form = d.pick(two=2, four=3, handheld=1.5, prong=2.5)
    groups = [
        dpad(d, 16, 0),
        face(d, 82, 0, "SWEN" if form in ("four", "prong") else d.pick("SE", "SW")),
    ]
    if form == "prong":  # a large button among small ones
        for p, k in zip(groups[1], (d.u(1, 1.5), d.u(0.6, 1), d.u(0.6, 1), d.u(0.6, 1))):
            p.w, p.h, p.x, p.y = p.w * k, p.h * k, 82 + (p.x - 82) * 1.3, p.y * 1.3
        knob, travel = knob_size(d)
        groups.append([Part("stick", "LEFT", *d.pick((50, 22), (16, -16), (34, 20)), knob, travel)])
        if d.chance(0.5):
            groups.append([Part("stick", "RIGHT", 66, 22, knob * d.u(0.7, 1), travel)])
    for p in groups[0] + groups[1] if form == "handheld" else ():
        p.x = 50 + (p.x - 50) * 0.62
    height = (18, 26) if form == "handheld" else (-4, 12)
    return groups + (menu(d, 50, d.u(*height)) if d.chance(0.92) else [])


def arcade(d):
    """Buttons in rows, and a lever, four direction buttons, or a d-pad."""
    w = d.log(7, 12.5)
    shape = d.pick("disc", "disc", "soft")
    tags = d.chance(0.5)
    step = w * d.u(1.08, 1.35)
    arc = d.pick((0, 0, 0, 0), (0.5, 0, 0.05, 0.2), (0.3, 0, 0, 0))
    y = d.u(-0.2, 0.4)
    names = "WEST NORTH RIGHT_SHOULDER LEFT_SHOULDER SOUTH EAST RIGHT_TRIGGER LEFT_TRIGGER".split()
    spots = {
        n: (46 + step * (i % 4 + d.u(-0.05, 0.05)), step * (i // 4 + arc[i % 4]))
        for i, n in enumerate(names)
    }
    spots = {n: at for n, at in spots.items() if "LEFT" not in n or d.chance(0.8)}
    groups = [
        [Part("stick", "LEFT", d.u(16, 26), step / 2, *knob_size(d))]
        if d.chance(0.7)
        else dpad(d, d.u(16, 26), step / 2)
    ]
    if d.chance(0.55):  # direction buttons instead
        groups = []
        up = (34, step * (y + d.u(1.9, 2.4))) if d.chance(0.7) else (4 + step, step * (y - 1))
        spots |= {
            "DPAD_LEFT": (4, step * y),
            "DPAD_DOWN": (4 + step, step * y),
            "DPAD_RIGHT": (4 + 2 * step, step * (y + d.u(0, 0.6))),
            "DPAD_UP": up,
        }
        if d.chance(0.2):
            spots |= {"LEFT_THUMB": (4, -step * 1.2), "RIGHT_THUMB": (4 + step, -step * 1.2)}
    for id, at in spots.items():
        label = "arrow" if id in CROSS else "".join(v[0] for v in id.split("_"))
        groups.append(
            [
                Part(
                    "trigger" if "TRIGGER" in id else "button",
                    id,
                    *at,
                    w,
                    w,
                    shape,
                    label if tags else "",
                    way=CROSS.get(id, ()),
                )
            ]
        )
    return groups + (menu(d, d.u(25, 60), -step * d.u(1, 1.4)) if d.chance(0.75) else [])


def grid(d):
    """Stick circles and groups of keys in a row or two, as in bare input displays."""
    size = knob_size(d)
    rows = d.pick(1, 1, 2)
    kinds = [
        [Part("stick", "LEFT", 0, 0, *size)],
        dpad(d, 0, 0),
        face(d, 0, 0),
        [Part("stick", "RIGHT", 0, 0, *size)],
    ]
    groups = [kinds[int(i)] for i in d.pick("0123", "0312", "1032", "1203", "03", "023", "012")]
    x = 0.0
    for i, g in enumerate(groups):
        x0, _, x1, _ = extent(g)
        for p in g:
            p.x, p.y = p.x + x - x0, p.y + i % rows * 30
        x += (x1 - x0 + d.u(1, 6)) / rows
    return groups + (menu(d, x / 2, d.u(-25, 20)) if d.chance(0.6) else [])


def arrange(d):
    """All parts, their box without shoulders, and which of the layouts it is."""
    make = d.pick(gamepad, gamepad, gamepad, gamepad, retro, arcade, grid)
    groups = make(d)
    for g in groups:
        move(g, *(d.u(-1.5, 1.5) if d.chance(0.3) else 0 for _ in range(2)))
    apart(groups, d.u(0.3, 2))
    parts = [p for g in groups for p in g]
    box = extent(parts)
    if d.chance(0.05):  # a click lights what is around the stick
        sticks = [p for p in parts if p.kind == "stick"]
        parts = [
            Part("button", f"{p.id}_THUMB", p.x, p.y, *[p.w + 2 * p.h] * 2) for p in sticks
        ] + parts
    return parts + (tops(d, box) if make != arcade and d.chance(0.86) else []), box, make


# ---- shapes, and what paints them ----------------------------------------------------------------

T = np.linspace(0, math.pi, 14)[:, None]
CIRCLE = pads.ngon(0, 0, 1, 40)
CORNERS = np.repeat([(1, 1), (-1, 1), (-1, -1), (1, -1)], 7, 0)
ARCS = np.concatenate([pads.ngon(0, 0, 1, 24, 90 * q)[:7] for q in range(4)])


def rounded(cx, cy, w, h, r):
    """A rectangle with round corners, as pads.box, faster."""
    r = min(r, w / 2, h / 2)
    return CORNERS * (w / 2 - r, h / 2 - r) + ARCS * r + (cx, cy)


ROUND = {"box": 0.06, "soft": 0.26, "pill": 0.5}  # radii of corners, in shorter sides
SHAPES = {  # in a box of side 1 around 0: arms and arrows point right, shoulders are the right ones
    "disc": CIRCLE / 2,
    "hexagon": pads.ngon(0, 0, 0.5, 6),
    "octagon": pads.ngon(0, 0, 0.5, 8, 22.5),
    "lozenge": pads.ngon(0, 0, 0.5, 4),
    "triangle": np.array([(-0.45, -0.5), (0.5, 0), (-0.45, 0.5)]),
    "wing": np.array(
        [
            (-0.5, 0.5),
            (-0.47, 0),
            (-0.4, -0.3),
            (-0.25, -0.47),
            (-0.05, -0.5),
            (0.15, -0.4),
            (0.33, -0.15),
            (0.45, 0.2),
            (0.5, 0.5),
        ]
    ),
    "fin": np.concatenate([[(-0.5, 0.5)], np.hstack([np.sin(T / 2) - 0.5, 0.5 - np.cos(T / 2)])]),
    "dome": np.concatenate(
        [[(0.5, 0.5), (-0.5, 0.5)], np.hstack([-0.45 * np.cos(T), 0.2 - 0.7 * np.sin(T)])]
    ),
    "slant": np.array([(-0.5, -0.5), (0.3, -0.5), (0.5, 0.5), (-0.35, 0.5)]),
    "arm": np.array(
        [(0.5, -0.42), (0.42, -0.5), (-0.1, -0.5), (-0.5, 0), (-0.1, 0.5), (0.42, 0.5), (0.5, 0.42)]
    ),
    "chevron": np.array([(-0.5, -0.5), (0, -0.5), (0.5, 0), (0, 0.5), (-0.5, 0.5), (0, 0)]),
}
SHAPES |= {
    "dot": CIRCLE,
    "burst": CIRCLE * np.tile([1, 0.5, 0.5, 1], 10)[:, None],
    "arrow": SHAPES["triangle"] * 1.4,
}  # signs, of radius 1
LINES = {  # signs that are not filled
    "circle": [CIRCLE],
    "square": [rounded(0, 0, 1.8, 1.8, 0.1)],
    "triangle": [pads.ngon(0, 0.1, 1.1, 3)],
    "cross": np.array([[(-1, -1), (1, 1)], [(-1, 1), (1, -1)]]),
    "plus": np.array([[(-1, 0), (1, 0)], [(0, -1), (0, 1)]]),
}


def outline(shape, cx, cy, w, h, flip=1, way=()):
    """A polygon of that size around (cx, cy)."""
    if shape in ROUND:
        return rounded(cx, cy, w, h, min(w, h) * ROUND[shape])
    turn = [way, (-way[1], way[0])] if way else [(flip, 0), (0, 1)]
    return SHAPES[shape] @ np.array(turn) * (w, h) + (cx, cy)


class Art:
    """A picture to paint on: uint8 [h, w, 4], premultiplied, of px or dots."""

    def __init__(self, w, h, style):
        self.px = np.zeros((max(1, math.ceil(h)), max(1, math.ceil(w)), 4), np.uint8)
        self.style = style

    def paint(self, shape, color, alpha=1.0, width=0.0, closed=True, blur=0.0):
        """Fill a polygon, or stroke it `width` px wide; blur (px): a glow or a shadow; no color:
        nothing.
        """
        if not color:
            return
        s = self.style
        q = np.asarray(shape, np.float32)
        if s.wobble:  # more points, for a hand to tremble
            q = np.concatenate([q, q[:1]]) if closed else q
            t = np.linspace(0, len(q) - 1, max(len(q), min(160, 12 * len(q))))
            q = np.stack([np.interp(t, np.arange(len(q)), v) for v in q.T], 1).astype(np.float32)
            q += s.wobble * np.sin(q[:, ::-1] / s.wave + q[0, 0])
        x, y, w, h = cv2.boundingRect(q)
        m = math.ceil(2 + width / 2 + 3 * blur)
        x0, y0 = max(x - m, 0), max(y - m, 0)
        x1, y1 = min(x + w + m, self.px.shape[1]), min(y + h + m, self.px.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        k = 1 if blur < 3 else 4  # what is blurred is drawn at a quarter
        mask = np.zeros((-(-(y1 - y0) // k), -(-(x1 - x0) // k)), np.uint8)
        points = np.round(((q - np.float32((x0, y0))) / k - 0.5) * 16).astype(np.int32)
        if width:
            cv2.polylines(mask, [points], closed, 255, max(1, round(width / k)), s.rim, 4)
        else:
            cv2.fillPoly(mask, [points], 255, s.rim, 4)
        if blur:
            mask = cv2.convertScaleAbs(
                cv2.GaussianBlur(mask, (0, 0), blur / k), alpha=1.5 if width else 1.0
            )
        self.lay(mask if k == 1 else cv2.resize(mask, (x1 - x0, y1 - y0)), color, alpha, x0, y0)

    def lay(self, mask, color, alpha, x=0, y=0):
        """A colour where the mask is."""
        mask = cv2.convertScaleAbs(mask, alpha=alpha) if alpha < 1 else mask
        part = self.px[y : y + mask.shape[0], x : x + mask.shape[1]]
        tinted = [mask if c == 255 else cv2.convertScaleAbs(mask, alpha=c / 255) for c in color]
        part[:] = over(part, cv2.merge([*tinted, mask]))

    def symbol(self, name, cx, cy, size, color, alpha=1.0, way=(1, 0)):
        """A sign, an arrow, or letters, about `size` px high."""
        s = self.style
        line = max(1.0, 0.13 * size * s.heavy)
        if name in LINES:
            for q in LINES[name]:
                self.paint(q * (size / 2) + (cx, cy), color, alpha, line, closed=len(q) > 2)
        elif name in SHAPES:
            self.paint(outline(name, cx, cy, size / 2, size / 2, way=way), color, alpha)
        elif name and size >= (5 if s.unit == 1 else 8):
            mask = np.zeros(self.px.shape[:2], np.uint8)
            (w, h), _ = cv2.getTextSize(name, s.font, size / 22, 1)
            cv2.putText(
                mask,
                name,
                (round(cx - w / 2), round(cy + h / 2)),
                s.font,
                size / 22,
                255,
                max(1, round(line)),
                s.rim,
            )
            self.lay(mask, color, alpha)

    def light(self, k, gleam=0.0):
        """Shade what is there: a gradient, a rounded edge or bands, k times the style's; and grain."""
        s = self.style
        if not s.shading and s.grain is None:
            return
        h, w = self.px.shape[:2]
        z = 1 / max(1, min(h, w) // 50)  # light is soft: worked out on a small picture
        small = cv2.resize(self.px[..., 3], None, fx=z, fy=z, interpolation=cv2.INTER_AREA)
        m = np.ones(small.shape, np.float32)
        n = len(small)
        if s.shading == "bevel":
            soft = 1 + 2 * round(s.round * min(small.shape))
            hill = cv2.blur(cv2.blur(small, (soft, soft)), (soft, soft)).astype(np.float32)
            slope = s.sun[0] * cv2.Sobel(hill, -1, 1, 0) + s.sun[1] * cv2.Sobel(hill, -1, 0, 1)
            m += k * s.amount * soft / 1200 * slope
        elif s.shading:
            fall = (
                np.linspace(1, -1, n)
                if s.shading == "gradient"
                else np.cos(np.linspace(0.4, s.bands, n))
            )
            m += k * s.amount * fall[:, None]
        if gleam:
            v, u = np.ogrid[-1 : 1 : n * 1j, -1 : 1 : small.shape[1] * 1j]
            m += (gleam * np.exp(-6 * ((u + 0.3 * s.sun[0]) ** 2 + (v + 0.4) ** 2))).astype(
                np.float32
            )
        m = cv2.convertScaleAbs(cv2.resize(m, (w, h)), alpha=100)
        if s.grain is not None:
            m = cv2.multiply(m, np.tile(s.grain, (-(-h // 96), -(-w // 96)))[:h, :w], scale=1 / 100)
        lit = cv2.multiply(self.px[..., :3], cv2.merge([m] * 3), scale=1 / 100)
        self.px[..., :3] = cv2.min(lit, cv2.merge([self.px[..., 3]] * 3))


def over(below, above):
    """Premultiplied pictures, one over the other."""
    return cv2.add(
        cv2.multiply(below, cv2.merge([cv2.bitwise_not(above[..., 3])] * 4), scale=1 / 255), above
    )


# ---- styles: how things are drawn ----------------------------------------------------------------

# How one state of a button or knob is drawn.  fill, edge, glow: colours or None; ink: of the label,
# and of what is inside a knob; alpha: of the fill; shift: px; mark: a sign over it all; line:
# widens the edge
Look = namedtuple(
    "Look",
    "fill edge ink alpha size shift glow light opacity mark line",
    defaults=(None, None, WHITE, 1.0, 1.0, (0, 0), None, 1.0, 1.0, "", 1.0),
)


def surface(d):
    """A texture that tiles, uint8 [96, 96], 100: no change: grain, brushed metal, weave, or
    blotches.
    """
    form = d.pick(grain=4, brushed=1, weave=1, blotch=1.5)
    n = d.rng.standard_normal((96, 96)).astype(np.float32)
    v, u = np.indices((96, 96)) * (math.pi / 4)
    n = {
        "grain": n,
        "brushed": cv2.blur(n, (25, 1)) * 4,
        "weave": n * 0.3 + np.sign(np.sin(u + v) * np.sin(u - v)),
        "blotch": np.sign(cv2.GaussianBlur(n, (0, 0), 7)) * 1.6,
    }[form]
    return np.clip(100 + 100 * d.log(0.02, 0.14) * n, 30, 170).astype(np.uint8)


def presses(d):
    """What a press does: one thing, or two."""
    return [
        d.pick(
            fill=6,
            recolour=2,
            glow=1.5,
            grow=0.8,
            shrink=0.8,
            darken=1.2,
            lighten=1,
            invert=1,
            shift=1,
            mark=1,
            outline=1,
            vanish=0.3,
        )
        for _ in range(d.pick(1, 1, 1, 2, 2))
    ]


def colors(d):
    """Of the body, keys, lines, what is lit, and knobs: from a single ink to all at random."""
    scheme = d.pick(ink=3, dark=2.5, light=2, hue=1.5, any=1.5)
    if scheme == "ink":
        ink = d.pick(WHITE, WHITE, BLACK, d.color(1))
        body = d.unlike(ink, least=150, vivid=0.15)
        key = d.pick(body, ink, d.unlike(ink))
        lit = d.pick(ink, ink, d.unlike(body, vivid=1))
        return body, key, ink, lit, d.pick(ink, ink, body, d.color())
    body = {
        "dark": tint(WHITE, d.u(0.05, 0.3)),
        "light": tint(WHITE, d.u(0.75, 1)),
        "hue": d.color(1),
        "any": d.color(),
    }[scheme]
    key = d.pick(
        tint(body, d.u(0.5, 0.9)),
        tint(body, d.u(1.1, 1.6)),
        d.unlike(body, least=60, vivid=0.3),
        d.unlike(body, vivid=0.4),
    )
    knob = d.pick(key, d.color(0.3), d.unlike(body, least=50), tint(body, d.u(0.8, 1.2)))
    return body, key, d.unlike(key, least=90, vivid=0.3), d.unlike(key, least=90, vivid=0.7), knob


class Style:
    """One hand, at random, for a canvas of `side` px."""

    def __init__(self, d, side):
        self.unit = d.pick(2, 3, 4) if d.chance(0.13) else 1  # px a dot
        fine = self.unit == 1
        self.rim = cv2.LINE_AA if fine else cv2.LINE_8
        body, key, ink, self.lit, cap = colors(d)
        art = d.pick(line=3.2, flat=2.2, both=2.6, faint=0.8, glass=0.8)
        self.width = max(1.0, side * d.log(0.0025, 0.014)) if fine else 1.0  # of lines, px
        self.idle = {
            "line": Look(None, ink, ink),
            "flat": Look(key, None, ink),
            "both": Look(key, ink, ink),
            "faint": Look(key, ink, ink, opacity=d.u(0.12, 0.4)),
            "glass": Look(key, ink, ink, d.u(0.2, 0.6)),
        }[art]
        rim = d.unlike(cap, least=70, vivid=0.3)
        bare, full = Look(None, ink, ink), Look(cap, rim, rim)
        if art == "line" and d.chance(0.6):
            self.knob = d.pick(bare, Look(ink, None, d.unlike(ink)))
        else:
            self.knob = d.pick(
                full, full, Look(cap, None, rim), bare, full._replace(alpha=d.u(0.4, 0.8))
            )
        self.form = d.pick(
            disc=4,
            ring=1.5,
            rings=2,
            dot=1,
            crosshair=0.8,
            cap=3,
            notched=1.5,
            letter=0.5,
            hollow=1,
        )  # of the knob
        self.press, self.click = presses(d), presses(d)
        shape = d.pick(none=1.5, line=2.5, fill=2, both=2.5, glass=1)
        self.body = body if shape in ("fill", "both", "glass") else None
        self.body_alpha = d.u(0.2, 0.7) if shape == "glass" else 1.0
        self.edge = (
            None if shape in ("none", "fill") else d.pick(ink, ink, d.unlike(body, vivid=0.3))
        )
        self.photo = fine and d.chance(0.3 if art in ("flat", "both") else 0.08)
        self.shading = (
            d.pick("bevel", "bevel", "gradient", "metal")
            if self.photo
            else "gradient"
            if d.chance(0.1)
            else ""
        )
        self.amount, self.round = d.u(0.1, 0.5), d.u(0.03, 0.2)  # of light, of edges
        self.sun, self.bands = (d.u(-1, 1), d.u(0.5, 1.2)), d.u(5, 14)
        self.grain = surface(d) if self.photo and d.chance(0.6) else None
        self.labels = d.chance(0.7)
        self.hues = {id: d.color(1) for id in DIAMOND} if d.chance(0.3) else {}  # of face buttons
        # idle buttons: in the body's picture
        self.printed = d.chance(0.3) and "vanish" not in self.press
        self.unseen = d.chance(0.05)  # ... or in none
        self.font, self.heavy = d.pick(0, 0, 1, 2, 3, 4, 6), d.u(0.6, 1.8)  # of letters and signs
        self.wobble = d.u(0.5, 1.6) if fine and d.chance(0.12) else 0.0  # of a trembling hand, px
        self.wave = d.u(5, 14)
        self.halo = d.u(2, 5) if fine and d.chance(0.1) else 0.0  # glow of every line, px

    def bold(self, *seen):
        """A colour that shows on all of what was seen: the pressed one if it does."""
        tries = (self.lit, self.idle.ink, WHITE, BLACK, (255, 190, 0), (0, 170, 255))
        far = {c: min(gap(c, o) for o in seen) for c in tries}
        return next((c for c in tries[:2] if far[c] >= 100), max(far, key=far.get))

    def pressed(self, look, effects, r):
        """The look of what is pressed, of half the size r px."""
        lit = self.lit
        sign = ("dot", "circle", "cross", "burst", "plus")[sum(lit) % 5]
        for e in effects:
            look = look._replace(
                **{
                    "fill": dict(fill=lit, alpha=1.0, ink=readable(lit)),
                    "invert": dict(fill=look.ink, alpha=1.0, ink=look.fill or readable(look.ink)),
                    "recolour": dict(edge=lit, ink=lit),
                    "outline": dict(edge=lit, line=2.0),
                    "glow": dict(glow=lit, edge=lit),
                    "mark": dict(mark=sign, ink=lit),
                    "grow": dict(size=1.2),
                    "shrink": dict(size=0.78),
                    "darken": dict(light=0.45),
                    "lighten": dict(light=1.9),
                    "shift": dict(shift=(1, min(3, max(1, round(0.16 * r)))), light=0.7),
                    "vanish": dict(opacity=0.25 * look.opacity),
                }[e]
            )
        return look if "vanish" in effects else look._replace(opacity=1.0)


# ---- elements: a picture of each state -----------------------------------------------------------

# of a stick's form: the radii of what is inside, and its sign with the size of that
INNER = {"cap": (0.72,), "hollow": (0.55,), "notched": (0.66,), "rings": (0.66, 0.33)}
SIGNS = {"dot": ("dot", 0.6), "crosshair": ("plus", 1.9), "letter": ("", 0.9)}


def key(art, p, look):
    """A button, shoulder, trigger or arm."""
    s = art.style
    cx, cy = art.px.shape[1] / 2 + look.shift[0], art.px.shape[0] / 2 + look.shift[1]
    w, h = max(1.0, p.w * look.size), max(1.0, p.h * look.size)
    small = min(w, h)
    shape = outline(p.shape, cx, cy, w, h, p.flip, p.way)
    width, halo = max(1.0, min(s.width, 0.16 * small)), min(s.halo, 0.1 * small)
    art.paint(shape, look.glow, width=2 + s.width, blur=max(1.5, 0.1 * small))
    if look.fill:
        art.paint(shape, look.fill, look.alpha)
        art.light(1 if look.size >= 1 and not look.shift[1] else -1)
    if halo:
        art.paint(shape, look.edge, 0.7, width * look.line + 1, blur=halo)
    art.paint(
        outline(p.shape, cx, cy, w - width, h - width, p.flip, p.way),
        look.edge,
        width=width * look.line,
    )
    if s.labels and p.label:
        letters = len(p.label) < 3 or p.label.isupper()
        size = min(0.55 * small, 1.3 * w / len(p.label)) if letters else 0.5 * small
        art.symbol(p.label, cx, cy, size, look.ink, way=p.way or (1, 0))
    art.symbol(look.mark, cx, cy, 0.6 * small, look.ink)


def knob(art, p, look):
    """What moves of a stick."""
    s = art.style
    c, r = len(art.px) / 2, max(1.0, p.w / 2 * look.size - s.width / 2)
    solid = look.fill and s.form != "ring"
    edge = look.edge or (None if solid else look.ink)
    inner = INNER.get(s.form, ())

    def circle(k):
        return CIRCLE * max(0.5, k * r) + (c, c)

    art.paint(circle(1), look.glow, width=2 + s.width, blur=max(1.5, 0.15 * r))
    if s.photo:
        art.paint(circle(1) + (0, 0.12 * r), BLACK, 0.45, blur=max(1.0, 0.1 * r))
    if solid:
        art.paint(circle(1), look.fill, look.alpha)
        if inner and s.form != "rings":
            hollow = (
                tint(look.fill, 0.72) if max(look.fill) > 60 else tuple(v + 36 for v in look.fill)
            )
            art.paint(circle(inner[0]), hollow, look.alpha)
    art.light(1, 0.3 if s.photo else 0.0)
    art.paint(circle(1), edge, width=s.width * look.line * (2.5 if s.form == "ring" else 1))
    for k in inner if s.form != "notched" else ():
        art.paint(circle(k), look.ink, width=s.width)
    for line in zip(circle(0.72)[::5], circle(0.98)[::5]) if s.form == "notched" else ():
        art.paint(line, look.ink, width=s.width, closed=False)
    sign, size = SIGNS.get(s.form, ("", 1))
    art.symbol(p.id[0] if s.form == "letter" else sign, c, c, r * size, look.ink)
    art.symbol(look.mark, c, c, r, look.ink)


def change(a, b):
    """The sum over px of the channel that differs most, of pictures at half the size."""
    return 4 * max(cv2.sumElems(cv2.absdiff(a, b)))


def states(p, look, effects, s, under):
    """The idle and the pressed picture; both show on what is `under` them, one RGBA colour."""
    stick = p.kind == "stick"
    h = p.w if stick else p.h
    room = math.ceil(0.2 * min(p.w, h) + 2 * s.width + 3 * s.halo) + 3

    def picture(look):
        art = Art(p.w + 2 * room, h + 2 * room, s)
        (knob if stick else key)(art, p, look)
        if look.light != 1:
            art.px[..., :3] = np.minimum(art.px[..., :3] * look.light, art.px[..., 3:])
        return cv2.convertScaleAbs(art.px, alpha=look.opacity)

    idle = picture(look)
    ground = np.full_like(idle[::2, ::2], under)  # compared at half the size
    before = over(ground, idle[::2, ::2])
    if stick and change(ground, before) < 0.8 * LEAST * p.w * h:
        look = look._replace(fill=s.bold(under), edge=None, alpha=1.0)
        idle = picture(look)
        before = over(ground, idle[::2, ::2])
    on = picture(s.pressed(look, effects, min(p.w, h) / 2))
    if change(before, over(before if s.printed else ground, on[::2, ::2])) < LEAST * p.w * h:
        seen = look.fill if look.fill and look.opacity * look.alpha > 0.5 else under
        lit = s.bold(seen, look.edge or seen)
        on = picture(Look(lit, lit if look.edge else None, readable(lit)))
    return [idle, on]


def dpad_states(d, p, s, under):
    """The nine pictures of a d-pad, in the order of pads.DPAD_STATES."""
    side = p.w
    lean, arm = round(d.pick(0, 0, 0, d.u(0.03, 0.1)) * side), d.u(0.28, 0.38) * side
    look = s.idle._replace(opacity=max(0.3, s.idle.opacity))
    lit = s.bold(look.fill or under)
    tinted = d.chance(0.2)
    plate = {"plate": "disc", "hat": d.pick("disc", "soft")}.get(p.shape)
    shape = {"split": "soft", "arrows": "triangle"}.get(p.shape, d.pick("box", "triangle", "disc"))
    hat, split = p.shape == "hat", p.shape in ("split", "arrows")
    full = side + 2 * (math.ceil(2 * s.width + 3 * s.halo) + lean + 3)
    base = Art(full, full, s)
    c = len(base.px) / 2
    k = 0.84 if p.shape == "plate" else 1.0  # the cross is smaller than its plate
    long, wide = (0.3 * side, 0.85 * arm) if shape == "box" else (0.66 * arm, 0.66 * arm)
    if split:
        long, wide = 0.34 * side, arm
    arms = (
        {}
        if hat
        else {
            (x, y): outline(
                shape,
                c + k * 0.33 * side * x,
                c + k * 0.33 * side * y,
                *((long, wide) if x else (wide, long)),
                way=(x, y),
            )
            for x, y in pads.WAYS
        }
    )
    shapes = arms.values() if split or hat else [pads.cross(c, c, k * side - s.width, arm)]
    if plate:
        key(base, Part("", "", 0, 0, side, side, plate), look._replace(alpha=0.5 * look.alpha))
        base.px = cv2.convertScaleAbs(base.px, alpha=look.opacity)
    for q in shapes:
        base.paint(q, look.fill, look.alpha * look.opacity)
    base.light(1)
    for q in shapes:
        base.paint(
            q,
            look.edge or (None if look.fill else look.ink),
            look.opacity,
            min(s.width, 0.05 * side),
        )
    for way, q in arms.items() if s.labels and not split else ():
        base.symbol("arrow", *q.mean(0), 0.14 * side, look.ink, look.opacity, way)
    pictures = []
    for dx, dy in pads.DPAD_STATES:
        art = Art(1, 1, s)
        art.px = base.px.copy()
        if tinted and (dx or dy):
            art.lay(base.px[..., 3], lit, 0.3)
        if hat:
            art.symbol(
                "dot",
                c + 0.22 * side * dx,
                c + 0.22 * side * dy,
                0.5 * side,
                lit if dx or dy else look.edge or look.ink,
            )
        for way in ((dx, 0), (0, dy)):
            if way in arms:
                art.paint(arms[way], lit)
        pictures.append(np.roll(art.px, (lean * dy, lean * dx), (0, 1)))
    return pictures


# ---- what never changes --------------------------------------------------------------------------

HALVES = (pads.XBOX, pads.ONE, pads.DUAL, pads.SENSE, pads.PRO, pads.SERIES, pads.CUBE)
BODIES = {gamepad: dict(grips=5, slab=1), retro: dict(slab=3, bone=1.5, grips=1)}


def silhouette(d, box, make):
    """The body's outline around `box`, in its units: with grips, bone-shaped, or a slab."""
    x0, y0, x1, y1 = box
    a, top, below = d.u(2, 9), d.u(2, 8), d.u(2, 9)  # margins
    kind = d.pick(**BODIES.get(make, dict(slab=1)))
    if kind == "slab":
        return rounded(
            (x0 + x1) / 2,
            (y0 + y1 + below - top) / 2,
            x1 - x0 + 2 * a,
            y1 - y0 + top + below,
            d.pick(0, 2, 5, d.u(5, 30)),
        )
    half = pads.BONE if kind == "bone" else d.pick(*HALVES)
    if kind == "grips" and d.chance(0.5):
        half = (
            (150, d.u(4, 14)),
            (d.u(100, 120), d.u(2, 12)),
            (d.u(50, 84), d.u(-4, 8)),
            (d.u(20, 44), d.u(4, 18)),
            (d.u(6, 24), d.u(24, 44)),
            (d.u(-4, 12), d.u(56, 72)),
            (d.u(-4, 14), d.u(84, 94)),
            (d.u(14, 34), 100),
            (d.u(40, 56), d.u(86, 98)),
            (d.u(60, 88), d.u(70, 84)),
            (d.u(95, 120), d.u(66, 78)),
            (150, d.u(66, 80)),
        )
    half = np.array(half, float)
    # flatter at the top
    half[:, 1] = ((half[:, 1] - half[:, 1].min()) / np.ptp(half[:, 1])) ** d.u(1, 1.5)
    half[1:-1] += d.rng.normal(0, d.u(0, 1), (len(half) - 2, 2)) * (2.5, 0.02)
    mirrored = (half * (-1, 1) + (300, 0))[::-1]
    whole = pads.smooth(half, 300) if d.chance(0.9) else np.concatenate([half, mirrored])
    end = half[-1, 1] if kind == "grips" else 1  # grips reach below the rest
    high = (y1 - y0 + top + below) / end * d.u(0.85, 1.1)
    return whole / (300, 1) * (x1 - x0 + 2 * a, high) + (x0 - a, y0 - top)


def wells(art, d, sticks):
    """Where the sticks stand."""
    s = art.style
    form = d.pick(none=1.6, ring=3, disc=2, both=2, gate=1, square=0.4, double=0.7)
    out, alpha = d.u(0.3, 1.15), d.pick(1.0, d.u(0.15, 0.7))
    color = d.pick(
        BLACK, tint(s.body or d.color(0.3), 0.6), tint(s.knob.fill or WHITE, 0.8), d.color(0.4)
    )
    ink = s.edge or s.idle.edge or s.idle.ink
    axes = d.chance(0.1)
    for p in sticks:
        r = p.w / 2 + out * p.h
        shape = {
            "gate": outline("octagon", p.x, p.y, 2 * r, 2 * r),
            "square": rounded(p.x, p.y, 2 * r, 2 * r, 0.1 * r),
        }.get(form, CIRCLE * r + (p.x, p.y))
        art.paint(shape, color if form in ("disc", "both", "gate") else None, alpha)
        art.paint(shape, ink if form not in ("none", "disc") else None, width=s.width)
        art.paint(CIRCLE * 0.8 * r + (p.x, p.y), ink if form == "double" else None, 0.6, s.width)
        if axes:
            art.symbol("plus", p.x, p.y, 2 * r, ink, 0.6)


def details(art, d, x0, y0, x1, y1):
    """A touchpad, a logo, a name, seams, vents: near the body's colour, in ink, or in what is lit."""
    s = art.style
    cx, w, h = (x0 + x1) / 2, x1 - x0, y1 - y0
    alpha = d.u(0.3, 1)
    color = d.pick(s.edge or s.idle.ink, tint(s.body, 0.7) if s.body else s.idle.ink, s.lit)
    if d.chance(0.3):
        art.paint(
            rounded(
                cx,
                y0 + h * d.u(0.15, 0.35),
                w * d.u(0.2, 0.36),
                h * d.u(0.12, 0.3),
                w * d.u(0, 0.03),
            ),
            color,
            0.7 * alpha,
            d.pick(0, s.width),
        )
    if d.chance(0.35):
        art.paint(
            outline(
                d.pick("disc", "hexagon", "triangle"),
                cx,
                y0 + h * d.u(0.15, 0.6),
                *[w * d.u(0.03, 0.1)] * 2,
            ),
            color,
            alpha,
            d.pick(0, s.width),
        )
    if d.chance(0.3):
        word = "".join(chr(65 + int(d.u(0, 26))) for _ in range(int(d.u(2, 9))))
        art.symbol(word, cx, y0 + h * d.u(0.1, 0.6), max(6.0, w * d.u(0.015, 0.05)), color, alpha)
    t = np.linspace(0, 1, 14)[:, None]
    for _ in range(int(d.u(0, 3))):  # seams, the same on both sides
        start, bend = np.array([d.u(0.02, 0.4), d.u(0.02, 0.8)]), np.array([d.u(-0.06, 0.06), 0])
        q = (start + t * (d.u(-0.12, 0.12), d.u(0.1, 0.4)) + 4 * t * (1 - t) * bend) * (w, h)
        for curve in (q + (x0, y0), q * (-1, 1) + (x1, y0)):
            art.paint(curve, color, alpha, s.width, closed=False)
    for i in range(int(d.u(3, 8)) if d.chance(0.15) else 0):
        y = y0 + h * (0.2 + 0.05 * i)
        art.paint([(cx - 0.05 * w, y), (cx + 0.05 * w, y)], color, alpha, s.width, closed=False)


def ground(d, s, size, hull, parts):
    """The body with its shadow and details, and the wells: in one picture or two."""
    art = Art(*size, s)
    layers = [art]
    if s.body:
        if s.unit == 1 and d.chance(0.12):
            art.paint(hull + (0, 0.012 * size[0]), BLACK, d.u(0.3, 0.7), blur=0.012 * size[0])
        art.paint(hull, s.body, s.body_alpha)
        art.light(0.8, 0.15 if s.photo else 0)
    if s.edge and s.halo:
        art.paint(hull, s.edge, 0.8, s.width + 2, blur=1.5 * s.halo)
    if len(hull) and d.chance(0.55):
        if d.chance(0.3):
            layers.append(Art(*size, s))
        top = layers[-1]
        details(top, d, *hull.min(0), *hull.max(0))
        if s.body:  # what is printed on the body ends with it
            top.px = cv2.min(top.px, cv2.merge([art.px[..., 3]] * 4))
    if s.edge:
        layers[-1].paint(hull, s.edge, width=s.width * d.pick(1, 1, 1.6, 2.5))
    wells(layers[-1], d, [p for p in parts if p.kind == "stick"])
    return layers


# ---- a skin --------------------------------------------------------------------------------------


def finish(px, unit):
    """A picture as it is handed out: dots enlarged, colours no longer premultiplied."""
    out = cv2.merge([cv2.divide(px[..., :3], cv2.merge([px[..., 3]] * 3), scale=255), px[..., 3]])
    return out.repeat(unit, 0).repeat(unit, 1)


def trimmed(pictures, even):
    """The pictures without their common empty rim, and its width at the left and top; even: all
    around.
    """
    seen = np.maximum.reduce([p[..., 3] for p in pictures])
    x, y, w, h = cv2.boundingRect(cv2.threshold(seen, 12, 255, cv2.THRESH_BINARY)[1])
    x1, y1 = max(x + w, 1), max(y + h, 1)
    if even:
        x = y = min(x, y, seen.shape[1] - x1, seen.shape[0] - y1)
        x1, y1 = seen.shape[1] - x, seen.shape[0] - y
    return [p[y:y1, x:x1] for p in pictures], (x, y)


def to_pixels(d, parts, hull, side, unit):
    """Scale and move the parts and the outline onto a canvas of `side` px; its size and the
    outline, dots.
    """
    margin = d.u(1, 5)
    shown = np.concatenate([extent(parts).reshape(2, 2), hull])
    low, high = shown.min(0) - margin, shown.max(0) + margin
    wide = (high - low)[0]
    k = side / unit / max(high - low)
    for p in parts:
        small = min(1, 0.21 * wide / p.w, 0.095 * wide / p.h) if p.kind == "stick" else 1
        p.x, p.y = (p.x - low[0]) * k, (p.y - low[1]) * k
        least = 8 if unit == 1 and p.kind not in ("stick", "dpad") else 2
        p.w, p.h = max(least, p.w * k * small), max(least, p.h * k * small)
        if unit > 1:  # on whole dots
            p.w, p.h = round(p.w), round(p.h)
    return [max(8, round(v)) for v in (high - low) * k], (hull - low) * k


def drawn(d, parts, s, art):
    """(fields, rows) of every part that moves, in dots.  What is printed goes onto `art`."""
    here = presses(d) if d.chance(0.25) else s.press  # of all but the face buttons
    click = d.chance(0.65) and not any("THUMB" in p.id for p in parts)
    trail = ("#%02x%02x%02x" % s.lit, max(2.0, s.width * s.unit)) if d.chance(0.04) else ()
    done = {}
    for p in parts:
        stick = p.kind == "stick"
        under = tuple(
            art.px[min(int(p.y), len(art.px) - 1), min(int(p.x), art.px.shape[1] - 1)].tolist()
        )
        look = s.knob if stick else s.idle
        if p.id in s.hues:
            hue = s.hues[p.id]
            look = (
                look._replace(fill=hue, ink=readable(hue))
                if look.fill
                else look._replace(edge=hue, ink=hue)
            )
        if stick and all(gap(c, under) < 45 for c in (look.fill, look.edge, look.ink) if c):
            look = look._replace(edge=readable(under), ink=readable(under))
        if p.kind == "dpad":
            pictures = dpad_states(d, p, s, under)
        else:
            what = (p.shape, p.w, p.h, p.label, p.flip, p.way, look, p.id[0] * stick, under)
            if what not in done:  # two sticks, four arms: often the same picture
                effects = s.click if stick else s.press if p.id in DIAMOND else here
                done[what] = states(p, look, effects, s, under)
            pictures = done[what]
        h, w = pictures[0].shape[:2]
        x, y = round(p.x - w / 2), round(p.y - h / 2)
        if p.kind in ("button", "trigger") and (s.printed or s.unseen):
            if s.printed:
                part = art.px[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
                part[:] = over(
                    part, pictures[0][max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
                )
            pictures = [np.zeros_like(pictures[0]), pictures[1]]
        pictures, (dx, dy) = trimmed(
            pictures[:1] if stick and not click else pictures, even=p.kind in ("stick", "dpad")
        )
        more = dict(radius=float(p.h * s.unit), click=click, trail=trail) if stick else {}
        rows = [pictures] if p.kind == "dpad" else [[q] for q in pictures]
        yield dict(kind=p.kind, id=p.id, pos=(x + dx, y + dy), **more), rows


def pieces(seed: int):
    """((w, h), [(fields of an Element, rows of pictures: idle, pressed; of a d-pad one row of
    nine)]).
    """
    d = Dice(seed)
    parts, box, make = arrange(d)
    side = d.log(250, 700)
    s = Style(d, side)
    hull = silhouette(d, box, make) if s.body or s.edge else np.empty((0, 2))
    size, hull = to_pixels(d, parts, hull, side, s.unit)
    beyond = round(0.03 * size[0]) if d.chance(0.08) else 0  # of the textures over the canvas, dots
    move(parts, beyond, beyond)
    layers = ground(d, s, [v + 2 * beyond for v in size], hull + beyond, parts)
    moving = list(drawn(d, parts, s, layers[-1]))  # first: it prints on the layers
    textures = [
        (dict(kind="texture", id="", pos=pos), [pictures])
        for pictures, pos in (trimmed([art.px], even=False) for art in layers)
    ]
    out = [
        (
            {**e, "pos": tuple(int(v - beyond) * s.unit for v in e["pos"])},
            [[finish(px, s.unit) for px in row] for row in rows],
        )
        for e, rows in textures + moving
    ]
    return tuple(int(v) * s.unit for v in size), out
