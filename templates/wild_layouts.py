"""templates/wild_layouts.py: where things are on the synthetic skins of wild.py, drawn at random.

First come groups of parts, in hundredths of a pad's width; `arrange` pushes them apart.  x right, y
down; colours are (r, g, b), 0..255.  Weights were trained on these skins: another order of the
draws gives other data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CROSS = {"DPAD_LEFT": (-1, 0), "DPAD_RIGHT": (1, 0), "DPAD_UP": (0, -1), "DPAD_DOWN": (0, 1)}
DIAMOND = {"SOUTH": (0, 1), "WEST": (-1, 0), "EAST": (1, 0), "NORTH": (0, -1)}
SIDES = (("LEFT", -1), ("RIGHT", 1))
FACES = {
    "diamond": list(DIAMOND.values()),
    "row": [(1.1 * i - 1.65, 0) for i in range(4)],
    "square": [(0.66 * x, 0.66 * y) for y in (1, -1) for x in (-1, 1)],
}
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


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
    return max(abs(x - y) for x, y in zip(a[:3], b[:3], strict=True))


def readable(c):
    """White or black, to see on it."""
    return WHITE if 0.3 * c[0] + 0.6 * c[1] + 0.1 * c[2] < 135 else BLACK


def tint(c, k):
    return tuple(min(255, int(v * k)) for v in c)


# ---- parts, and groups of them -------------------------------------------------------------------


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
    reach = [(p.w / 2 + p.h,) * 2 if p.kind == "stick" else (p.w / 2, p.h / 2) for p in parts]
    return np.concatenate([(at - reach).min(0), (at + reach).max(0)])


def move(parts, dx, dy):
    for p in parts:
        p.x += dx
        p.y += dy


def apart(groups, between):
    """Push groups of parts until their boxes no longer overlap, each pair along the shorter way."""
    # x0, y0, x1, y1, and how far it has moved
    boxes = [[*extent(g).tolist(), 0, 0] for g in groups]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    still = 0
    for a, b in pairs * 120:
        overlap = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + between for k in (0, 1)]
        k = overlap.index(min(overlap))
        still = 0 if overlap[k] > 0.01 else still + 1
        if still > len(pairs):
            break
        if not still:
            step = 0.55 * overlap[k] * (1 if a[k] + a[k + 2] >= b[k] + b[k + 2] else -1)
            for n in (k, k + 2, k + 4):
                a[n] += step
                b[n] -= step
    for g, box in zip(groups, boxes, strict=True):
        move(g, *box[4:])


def knob_size(d):
    """Diameter and travel: most published knobs are 2 to 4 travels wide; dots and wide caps
    occur.
    """
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
    parts = []
    for id, label, (dx, dy) in zip(DIAMOND, labels, spots, strict=True):
        if id[0] in names:
            at = x + step * (dx + lean * dy), y + step * (dy - lean * dx)
            parts.append(Part("button", id, *at, w, h, shape, label))
    return parts


def dpad(d, x, y):
    """One element with nine states, or four buttons: arms, arrows, keys."""
    side = d.log(10, 25)
    if d.chance(0.4):
        shape = d.pick(cross=5, plate=1.5, split=1.5, arrows=1, hat=1)
        return [Part("dpad", "", x, y, side, side, shape)]
    shape = d.pick(box=2, soft=2, disc=1, arm=2, triangle=1.5, chevron=0.5)
    out = d.u(0.3, 0.36) * side
    label = d.pick("arrow", "")
    long = out * d.u(0.75, 0.95)
    wide = min(out * d.u(0.6, 1), 2 * out - long) if shape != "disc" else long
    parts = []
    for id, (dx, dy) in CROSS.items():
        w, h = (long, wide) if dx else (wide, long)
        at = x + out * dx, y + out * dy
        parts.append(Part("button", id, *at, w, h, shape, label, way=(dx, dy)))
    return parts


def menu(d, x, y):
    """BACK and START, around x."""
    away, w = d.u(4, 20), d.log(2.5, 8)
    shape = d.pick("disc", "box", "soft", "pill")
    h = w * d.u(0.5, 1.5)
    labels = d.pick("<>", "-+", "  ", ("SELECT", "START"), "  ", " =")
    return [
        [Part("button", id, x + side * away, y, w, h, shape, label.strip(), side)]
        for id, side, label in zip(("BACK", "START"), (-1, 1), labels, strict=True)
    ]


def tops(d, box):
    """Shoulders and triggers over what is in `box`, stacked or in a row, or triggers at its
    sides.
    """
    x0, y0, x1, y1 = box
    half = (x1 - x0) / 2
    form, have = d.pick(stack=6, row=1.5, flank=1), d.pick(both=8, SHOULDER=1, TRIGGER=0.6)
    inset, w, h = d.u(0, 0.25) * half, d.u(0.2, 0.6) * half, d.log(2.5, 10)
    tw, th = d.u(0.15, 0.5) * half, d.log(3, 15)  # the trigger's
    y = y0 - d.u(0.5, 4) - h / 2
    usual = ("soft", "pill", "wing", "box", "slant")
    shape, trigger_shape = d.pick(*usual), d.pick(*usual, "fin", "dome", "fin")
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
        trigger_shape = d.pick("soft", "pill", "box")
    names = d.pick(("LB", "RB", "LT", "RT"), ("L1", "R1", "L2", "R2"), ("L", "R", "ZL", "ZR"))
    rows = (
        ("SHOULDER", "button", (x, y), (w, h), shape, names[:2]),
        ("TRIGGER", "trigger", spot, (tw, th), trigger_shape, names[2:]),
    )
    parts = []
    for name, kind, (out, at), size, shape, labels in rows:
        if have in ("both", name):
            for (side, flip), label in zip(SIDES, labels, strict=True):
                place = x0 + half + flip * out, at
                parts.append(Part(kind, f"{side}_{name}", *place, *size, shape, label, flip))
    return parts


def gamepad(d):
    """Two sticks, now and then one, as on most pads."""
    x, inner, low = d.u(11, 23), d.u(29, 41), d.u(10, 26)
    size = knob_size(d)
    a, b, c = (x, 0), (inner, low), (x + d.u(-2, 6), low)
    forms = {"xbox": (a, b, b, a), "ps": (b, a, b, a), "high": (a, c, a, c)}
    left, pad, *mirrored = forms[d.pick(xbox=4, ps=4, high=0.7)]
    right, buttons = ((100 - x, y) for x, y in mirrored)
    groups = [
        face(d, *buttons),
        dpad(d, *pad),
        [Part("stick", "LEFT", *left, *size)],
        [Part("stick", "RIGHT", *right, *size)],
    ]
    chances = (0.96, 0.93, 0.96, 0.94)
    groups = [g for g, p in zip(groups, chances, strict=True) if d.chance(p)]
    return groups + (menu(d, 50, d.u(-9, 8)) if d.chance(0.88) else [])


def retro(d):
    """No stick, or one or two among the rest: NES, SNES, handhelds, three-pronged pads."""
    form = d.pick(two=2, four=3, handheld=1.5, prong=2.5)
    pad = dpad(d, 16, 0)
    buttons = face(d, 82, 0, "SWEN" if form in ("four", "prong") else d.pick("SE", "SW"))
    groups = [pad, buttons]
    if form == "prong":
        groups += prong(d, buttons)
    if form == "handheld":
        for p in pad + buttons:
            p.x = 50 + (p.x - 50) * 0.62
    height = (18, 26) if form == "handheld" else (-4, 12)
    return groups + (menu(d, 50, d.u(*height)) if d.chance(0.92) else [])


def prong(d, buttons):
    """Make one face button large and the others small; the sticks among them."""
    sizes = (d.u(1, 1.5), d.u(0.6, 1), d.u(0.6, 1), d.u(0.6, 1))
    for p, k in zip(buttons, sizes, strict=True):
        p.w, p.h = p.w * k, p.h * k
        p.x, p.y = 82 + (p.x - 82) * 1.3, p.y * 1.3
    knob, travel = knob_size(d)
    sticks = [[Part("stick", "LEFT", *d.pick((50, 22), (16, -16), (34, 20)), knob, travel)]]
    if d.chance(0.5):
        sticks.append([Part("stick", "RIGHT", 66, 22, knob * d.u(0.7, 1), travel)])
    return sticks


ROWS = "WEST NORTH RIGHT_SHOULDER LEFT_SHOULDER SOUTH EAST RIGHT_TRIGGER LEFT_TRIGGER".split()


def arcade(d):
    """Buttons in rows, and a lever, four direction buttons, or a d-pad."""
    w = d.log(7, 12.5)
    shape = d.pick("disc", "disc", "soft")
    tags = d.chance(0.5)
    step = w * d.u(1.08, 1.35)
    arc = d.pick((0, 0, 0, 0), (0.5, 0, 0.05, 0.2), (0.3, 0, 0, 0))
    y = d.u(-0.2, 0.4)
    spots = {}
    for i, name in enumerate(ROWS):
        spots[name] = 46 + step * (i % 4 + d.u(-0.05, 0.05)), step * (i // 4 + arc[i % 4])
    spots = {name: at for name, at in spots.items() if "LEFT" not in name or d.chance(0.8)}
    if d.chance(0.7):
        groups = [[Part("stick", "LEFT", d.u(16, 26), step / 2, *knob_size(d))]]
    else:
        groups = [dpad(d, d.u(16, 26), step / 2)]
    if d.chance(0.55):  # direction buttons instead
        groups = []
        spots |= directions(d, step, y)
    for id, at in spots.items():
        kind = "trigger" if "TRIGGER" in id else "button"
        label, way = tag(id) if tags else "", CROSS.get(id, ())
        groups.append([Part(kind, id, *at, w, w, shape, label, way=way)])
    return groups + (menu(d, d.u(25, 60), -step * d.u(1, 1.4)) if d.chance(0.75) else [])


def tag(id):
    """An arrow, or initials."""
    return "arrow" if id in CROSS else "".join(word[0] for word in id.split("_"))


def directions(d, step, y):
    """Where direction buttons and perhaps the thumbs' are on an arcade pad."""
    up = (34, step * (y + d.u(1.9, 2.4))) if d.chance(0.7) else (4 + step, step * (y - 1))
    spots = {
        "DPAD_LEFT": (4, step * y),
        "DPAD_DOWN": (4 + step, step * y),
        "DPAD_RIGHT": (4 + 2 * step, step * (y + d.u(0, 0.6))),
        "DPAD_UP": up,
    }
    if d.chance(0.2):
        spots |= {"LEFT_THUMB": (4, -step * 1.2), "RIGHT_THUMB": (4 + step, -step * 1.2)}
    return spots


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
        dx = d.u(-1.5, 1.5) if d.chance(0.3) else 0
        dy = d.u(-1.5, 1.5) if d.chance(0.3) else 0
        move(g, dx, dy)
    apart(groups, d.u(0.3, 2))
    parts = sum(groups, [])
    box = extent(parts)
    if d.chance(0.05):  # a click lights what is around the stick
        sticks = [p for p in parts if p.kind == "stick"]
        wells = [Part("button", f"{p.id}_THUMB", p.x, p.y, *[p.w + 2 * p.h] * 2) for p in sticks]
        parts = wells + parts
    if make != arcade and d.chance(0.86):
        parts += tops(d, box)
    return parts, box, make
