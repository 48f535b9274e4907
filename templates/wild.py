"""templates/wild.py: synthetic controller skins of many hands, to train the parser on what
streamers publish.

`pieces(seed)` gives a canvas and its elements exactly as pads.pieces(name) does, the same for the
same seed.  No skin is a copy: where things are, how they are drawn, and how a press shows are each
drawn at random.  Weights were trained on these skins: another order of the draws gives other data.

First come the parts and where they are (wild_layouts.py); then a Style; then pictures, in px of the
canvas or, for pixel art, in dots of `unit` px that are enlarged at the end.  x right, y down;
colours are (r, g, b), 0..255; pictures are RGBA uint8, premultiplied until they are handed out.
"""

from __future__ import annotations

import math
from collections import namedtuple

import cv2
import numpy as np

from templates import pads, shapes, wild_layouts
from templates.wild_layouts import BLACK, DIAMOND, WHITE, Dice, Part, gap, readable, tint

LEAST = 20  # of 255: the least mean change of a button's box; other presses are drawn plainly


# ---- shapes, and what paints them ----------------------------------------------------------------

T = np.linspace(0, math.pi, 14)[:, None]
CIRCLE = shapes.ngon(0, 0, 1, 40)
CORNERS = np.repeat([(1, 1), (-1, 1), (-1, -1), (1, -1)], 7, 0)
ARCS = np.concatenate([shapes.ngon(0, 0, 1, 24, 90 * q)[:7] for q in range(4)])


def rounded(cx, cy, w, h, r):
    """A rectangle with round corners, as shapes.box, faster."""
    r = min(r, w / 2, h / 2)
    return CORNERS * (w / 2 - r, h / 2 - r) + ARCS * r + (cx, cy)


# fmt: off
ROUND = {"box": 0.06, "soft": 0.26, "pill": 0.5}  # radii of corners, in shorter sides
SHAPES = {  # in a box of side 1 around 0: arms and arrows point right, shoulders are the right ones
    "disc": CIRCLE / 2,
    "hexagon": shapes.ngon(0, 0, 0.5, 6),
    "octagon": shapes.ngon(0, 0, 0.5, 8, 22.5),
    "lozenge": shapes.ngon(0, 0, 0.5, 4),
    "triangle": np.array([(-0.45, -0.5), (0.5, 0), (-0.45, 0.5)]),
    "wing": np.array([(-0.5, 0.5), (-0.47, 0), (-0.4, -0.3), (-0.25, -0.47), (-0.05, -0.5),
                      (0.15, -0.4), (0.33, -0.15), (0.45, 0.2), (0.5, 0.5)]),
    "fin": np.concatenate([[(-0.5, 0.5)], np.hstack([np.sin(T / 2) - 0.5, 0.5 - np.cos(T / 2)])]),
    "dome": np.concatenate([[(0.5, 0.5), (-0.5, 0.5)],
                            np.hstack([-0.45 * np.cos(T), 0.2 - 0.7 * np.sin(T)])]),
    "slant": np.array([(-0.5, -0.5), (0.3, -0.5), (0.5, 0.5), (-0.35, 0.5)]),
    "arm": np.array([(0.5, -0.42), (0.42, -0.5), (-0.1, -0.5), (-0.5, 0), (-0.1, 0.5),
                     (0.42, 0.5), (0.5, 0.42)]),
    "chevron": np.array([(-0.5, -0.5), (0, -0.5), (0.5, 0), (0, 0.5), (-0.5, 0.5), (0, 0)]),
}
# fmt: on
SHAPES |= {  # signs, of radius 1
    "dot": CIRCLE,
    "burst": CIRCLE * np.tile([1, 0.5, 0.5, 1], 10)[:, None],
    "arrow": SHAPES["triangle"] * 1.4,
}
LINES = {  # signs that are not filled
    "circle": [CIRCLE],
    "square": [rounded(0, 0, 1.8, 1.8, 0.1)],
    "triangle": [shapes.ngon(0, 0.1, 1.1, 3)],
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
        """Fill a polygon, or stroke it `width` px wide.  blur (px): a glow or a shadow; no color:
        nothing.
        """
        if not color:
            return
        q = np.asarray(shape, np.float32)
        if self.style.wobble:
            q = self.trembling(q, closed)
        x, y, w, h = cv2.boundingRect(q)
        m = math.ceil(2 + width / 2 + 3 * blur)
        x0, y0 = max(x - m, 0), max(y - m, 0)
        x1, y1 = min(x + w + m, self.px.shape[1]), min(y + h + m, self.px.shape[0])
        if x0 < x1 and y0 < y1:
            mask = self.mask(q - np.float32((x0, y0)), x1 - x0, y1 - y0, width, closed, blur)
            self.lay(mask, color, alpha, x0, y0)

    def trembling(self, q, closed):
        """More points, for a hand to tremble."""
        s = self.style
        q = np.concatenate([q, q[:1]]) if closed else q
        t = np.linspace(0, len(q) - 1, max(len(q), min(160, 12 * len(q))))
        q = np.stack([np.interp(t, np.arange(len(q)), v) for v in q.T], 1).astype(np.float32)
        return q + s.wobble * np.sin(q[:, ::-1] / s.wave + q[0, 0])

    def mask(self, q, w, h, width, closed, blur):
        """How much of each px is covered, uint8 [h, w]; what is blurred is drawn at a quarter."""
        k = 1 if blur < 3 else 4
        mask = np.zeros((-(-h // k), -(-w // k)), np.uint8)
        points = np.round((q / k - 0.5) * 16).astype(np.int32)
        if width:
            thick = max(1, round(width / k))
            cv2.polylines(mask, [points], closed, 255, thick, self.style.rim, 4)
        else:
            cv2.fillPoly(mask, [points], 255, self.style.rim, 4)
        if blur:
            soft = cv2.GaussianBlur(mask, (0, 0), blur / k)
            mask = cv2.convertScaleAbs(soft, alpha=1.5 if width else 1.0)
        return mask if k == 1 else cv2.resize(mask, (w, h))

    def lay(self, mask, color, alpha, x=0, y=0):
        """A colour where the mask is."""
        mask = cv2.convertScaleAbs(mask, alpha=alpha) if alpha < 1 else mask
        part = self.px[y : y + mask.shape[0], x : x + mask.shape[1]]
        tinted = [cv2.convertScaleAbs(mask, alpha=c / 255) for c in color]
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
            scale, thick = size / 22, max(1, round(line))
            (w, h), _ = cv2.getTextSize(name, s.font, scale, 1)
            at = round(cx - w / 2), round(cy + h / 2)
            cv2.putText(mask, name, at, s.font, scale, 255, thick, s.rim)
            self.lay(mask, color, alpha)

    def light(self, k, gleam=0.0):
        """Shade what is there: a gradient, a rounded edge or bands, k times the style's; and
        grain.
        """
        s = self.style
        if not s.shading and s.grain is None:
            return
        h, w = self.px.shape[:2]
        z = 1 / max(1, min(h, w) // 50)  # light is soft: worked out on a small picture
        small = cv2.resize(self.px[..., 3], None, fx=z, fy=z, interpolation=cv2.INTER_AREA)
        m = s.light_on(small, k)
        if gleam:
            v, u = np.ogrid[-1 : 1 : small.shape[0] * 1j, -1 : 1 : small.shape[1] * 1j]
            spot = gleam * np.exp(-6 * ((u + 0.3 * s.sun[0]) ** 2 + (v + 0.4) ** 2))
            m += spot.astype(np.float32)
        m = cv2.convertScaleAbs(cv2.resize(m, (w, h)), alpha=100)
        if s.grain is not None:
            m = cv2.multiply(m, np.tile(s.grain, (-(-h // 96), -(-w // 96)))[:h, :w], scale=1 / 100)
        lit = cv2.multiply(self.px[..., :3], cv2.merge([m] * 3), scale=1 / 100)
        self.px[..., :3] = cv2.min(lit, cv2.merge([self.px[..., 3]] * 3))


def over(below, above):
    """Premultiplied pictures, one over the other."""
    rest = cv2.merge([cv2.bitwise_not(above[..., 3])] * 4)
    return cv2.add(cv2.multiply(below, rest, scale=1 / 255), above)


# ---- styles: how things are drawn ----------------------------------------------------------------

# How one state of a button or knob is drawn.  fill, edge, glow: colours or None; ink: of the label,
# and of what is inside a knob; alpha: of the fill; shift: px; mark: a sign over it all; line:
# widens the edge
Look = namedtuple(
    "Look",
    "fill edge ink alpha size shift glow light opacity mark line",
    defaults=(None, None, WHITE, 1.0, 1.0, (0, 0), None, 1.0, 1.0, "", 1.0),
)
# fmt: off
PRESSES = dict(fill=6, recolour=2, glow=1.5, grow=0.8, shrink=0.8, darken=1.2, lighten=1, invert=1,
               shift=1, mark=1, outline=1, vanish=0.3)
KNOBS = dict(disc=4, ring=1.5, rings=2, dot=1, crosshair=0.8, cap=3, notched=1.5, letter=0.5,
             hollow=1)
# fmt: on


def grain(d):
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
    return [d.pick(**PRESSES) for _ in range(d.pick(1, 1, 1, 2, 2))]


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
        self.idle = idle_look(d, art, key, ink)
        self.knob = knob_look(d, art, cap, ink)
        self.form = d.pick(**KNOBS)  # of the knob
        self.press, self.click = presses(d), presses(d)
        self.draw_body(d, body, ink)
        self.photo = fine and d.chance(0.3 if art in ("flat", "both") else 0.08)
        self.draw_light(d)
        self.draw_hand(d)

    def draw_body(self, d, body, ink):
        shape = d.pick(none=1.5, line=2.5, fill=2, both=2.5, glass=1)
        self.body = body if shape in ("fill", "both", "glass") else None
        self.body_alpha = d.u(0.2, 0.7) if shape == "glass" else 1.0
        bare = shape in ("none", "fill")
        self.edge = None if bare else d.pick(ink, ink, d.unlike(body, vivid=0.3))

    def draw_light(self, d):
        """Draw how light falls on everything, and the grain."""
        if self.photo:
            self.shading = d.pick("bevel", "bevel", "gradient", "metal")
        else:
            self.shading = "gradient" if d.chance(0.1) else ""
        self.amount, self.round = d.u(0.1, 0.5), d.u(0.03, 0.2)  # of light, of edges
        self.sun = (d.u(-1, 1), d.u(0.5, 1.2))
        self.bands = d.u(5, 14)
        self.grain = grain(d) if self.photo and d.chance(0.6) else None

    def draw_hand(self, d):
        """Draw how labels, signs and lines are written, and where idle buttons are."""
        fine = self.unit == 1
        self.labels = d.chance(0.7)
        self.hues = {id: d.color(1) for id in DIAMOND} if d.chance(0.3) else {}  # of face buttons
        # idle buttons: in the body's picture
        self.printed = d.chance(0.3) and "vanish" not in self.press
        self.unseen = d.chance(0.05)  # ... or in none
        self.font, self.heavy = d.pick(0, 0, 1, 2, 3, 4, 6), d.u(0.6, 1.8)  # of letters and signs
        self.wobble = d.u(0.5, 1.6) if fine and d.chance(0.12) else 0.0  # of a trembling hand, px
        self.wave = d.u(5, 14)
        self.halo = d.u(2, 5) if fine and d.chance(0.1) else 0.0  # glow of every line, px

    def light_on(self, small, k):
        """What the colours are multiplied by where the alpha is `small`: float32 [h, w]."""
        n = len(small)
        m = np.ones(small.shape, np.float32)
        if self.shading == "bevel":
            soft = 1 + 2 * round(self.round * min(small.shape))
            hill = cv2.blur(cv2.blur(small, (soft, soft)), (soft, soft)).astype(np.float32)
            right, down = cv2.Sobel(hill, -1, 1, 0), cv2.Sobel(hill, -1, 0, 1)
            m += k * self.amount * soft / 1200 * (self.sun[0] * right + self.sun[1] * down)
        elif self.shading == "gradient":
            m += k * self.amount * np.linspace(1, -1, n)[:, None]
        elif self.shading == "metal":
            m += k * self.amount * np.cos(np.linspace(0.4, self.bands, n))[:, None]
        return m

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
            change = {
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
            look = look._replace(**change)
        return look if "vanish" in effects else look._replace(opacity=1.0)


def idle_look(d, art, key, ink):
    """The Look of buttons at rest."""
    return {
        "line": Look(None, ink, ink),
        "flat": Look(key, None, ink),
        "both": Look(key, ink, ink),
        "faint": Look(key, ink, ink, opacity=d.u(0.12, 0.4)),
        "glass": Look(key, ink, ink, d.u(0.2, 0.6)),
    }[art]


def knob_look(d, art, cap, ink):
    """The Look of knobs at rest."""
    rim = d.unlike(cap, least=70, vivid=0.3)
    bare, full = Look(None, ink, ink), Look(cap, rim, rim)
    if art == "line" and d.chance(0.6):
        return d.pick(bare, Look(ink, None, d.unlike(ink)))
    faint = full._replace(alpha=d.u(0.4, 0.8))
    return d.pick(full, full, Look(cap, None, rim), bare, faint)


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
    rim = outline(p.shape, cx, cy, w - width, h - width, p.flip, p.way)
    art.paint(rim, look.edge, width=width * look.line)
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

    def circle(k):
        return CIRCLE * max(0.5, k * r) + (c, c)

    art.paint(circle(1), look.glow, width=2 + s.width, blur=max(1.5, 0.15 * r))
    if s.photo:
        art.paint(circle(1) + (0, 0.12 * r), BLACK, 0.45, blur=max(1.0, 0.1 * r))
    if solid:
        art.paint(circle(1), look.fill, look.alpha)
        if s.form in ("cap", "hollow", "notched"):
            art.paint(circle(INNER[s.form][0]), hollow(look.fill), look.alpha)
    art.light(1, 0.3 if s.photo else 0.0)
    art.paint(circle(1), edge, width=s.width * look.line * (2.5 if s.form == "ring" else 1))
    for line in inner_lines(s.form, circle):
        art.paint(line, look.ink, width=s.width, closed=len(line) > 2)
    sign, size = SIGNS.get(s.form, ("", 1))
    art.symbol(p.id[0] if s.form == "letter" else sign, c, c, r * size, look.ink)
    art.symbol(look.mark, c, c, r, look.ink)


def inner_lines(form, circle):
    """What is drawn inside a knob: circles, or notches."""
    if form == "notched":
        return list(zip(circle(0.72)[::5], circle(0.98)[::5], strict=True))
    return [circle(k) for k in INNER.get(form, ())]


def hollow(color):
    """Darker; a dark one lighter."""
    return tint(color, 0.72) if max(color) > 60 else tuple(v + 36 for v in color)


def change(a, b):
    """The sum over px of the channel that differs most, of pictures at half the size."""
    return 4 * max(cv2.sumElems(cv2.absdiff(a, b)))


def states(p, look, effects, s, under):
    """The idle and the pressed picture; both show on what is `under` them, one RGBA colour."""
    stick = p.kind == "stick"
    h = p.w if stick else p.h
    margin = math.ceil(0.2 * min(p.w, h) + 2 * s.width + 3 * s.halo) + 3

    def picture(look):
        art = Art(p.w + 2 * margin, h + 2 * margin, s)
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
    tip = d.pick("box", "triangle", "disc")
    full = side + 2 * (math.ceil(2 * s.width + 3 * s.halo) + lean + 3)
    base = Art(full, full, s)
    c = len(base.px) / 2
    arms = {} if p.shape == "hat" else dpad_arms(p, tip, c, arm)
    if plate:
        key(base, Part("", "", 0, 0, side, side, plate), look._replace(alpha=0.5 * look.alpha))
        base.px = cv2.convertScaleAbs(base.px, alpha=look.opacity)
    dpad_base(base, p, look, arms, arm)
    pictures = []
    for dx, dy in pads.DPAD_STATES:
        art = Art(1, 1, s)
        art.px = base.px.copy()
        pressed = dx or dy
        if tinted and pressed:
            art.lay(base.px[..., 3], lit, 0.3)
        if p.shape == "hat":
            at = c + 0.22 * side * dx, c + 0.22 * side * dy
            art.symbol("dot", *at, 0.5 * side, lit if pressed else look.edge or look.ink)
        for way in ((dx, 0), (0, dy)):
            if way in arms:
                art.paint(arms[way], lit)
        pictures.append(np.roll(art.px, (lean * dy, lean * dx), (0, 1)))
    return pictures


def dpad_arms(p, tip, c, arm):
    """Where each arm points -> the polygon that is lit when it is pressed."""
    side, split = p.w, p.shape in ("split", "arrows")
    shape = {"split": "soft", "arrows": "triangle"}.get(p.shape, tip)
    if split:
        long, wide = 0.34 * side, arm
    elif shape == "box":
        long, wide = 0.3 * side, 0.85 * arm
    else:
        long, wide = 0.66 * arm, 0.66 * arm
    out = cross_size(p) * 0.33 * side
    arms = {}
    for x, y in pads.WAYS:
        w, h = (long, wide) if x else (wide, long)
        arms[x, y] = outline(shape, c + out * x, c + out * y, w, h, way=(x, y))
    return arms


def cross_size(p):
    """The cross, in sides of the d-pad: it is smaller than its plate."""
    return 0.84 if p.shape == "plate" else 1.0


def dpad_base(art, p, look, arms, arm):
    """Paint what all states of a d-pad share."""
    s, side, c = art.style, p.w, len(art.px) / 2
    whole = p.shape in ("cross", "plate")
    cross = [shapes.cross(c, c, cross_size(p) * side - s.width, arm)]
    for q in cross if whole else arms.values():
        art.paint(q, look.fill, look.alpha * look.opacity)
    art.light(1)
    edge = look.edge or (None if look.fill else look.ink)
    for q in cross if whole else arms.values():
        art.paint(q, edge, look.opacity, min(s.width, 0.05 * side))
    if s.labels and whole:
        for way, q in arms.items():
            art.symbol("arrow", *q.mean(0), 0.14 * side, look.ink, look.opacity, way)


# ---- what never changes --------------------------------------------------------------------------

HALVES = (pads.XBOX, pads.ONE, pads.DUAL, pads.SENSE, pads.PRO, pads.SERIES, pads.CUBE)
BODIES = {
    wild_layouts.gamepad: dict(grips=5, slab=1),
    wild_layouts.retro: dict(slab=3, bone=1.5, grips=1),
}
# fmt: off
# x of 300, y of 100: low and high bounds of the points of a body's left half, from the top on
GRIPS = (((150, 150), (4, 14)), ((100, 120), (2, 12)), ((50, 84), (-4, 8)), ((20, 44), (4, 18)),
         ((6, 24), (24, 44)), ((-4, 12), (56, 72)), ((-4, 14), (84, 94)), ((14, 34), (100, 100)),
         ((40, 56), (86, 98)), ((60, 88), (70, 84)), ((95, 120), (66, 78)), ((150, 150), (66, 80)))
# fmt: on


def silhouette(d, box, make):
    """The body's outline around `box`, in its units: with grips, bone-shaped, or a slab."""
    x0, y0, x1, y1 = box
    a, top, below = d.u(2, 9), d.u(2, 8), d.u(2, 9)  # margins
    kind = d.pick(**BODIES.get(make, dict(slab=1)))
    if kind == "slab":
        w, h = x1 - x0 + 2 * a, y1 - y0 + top + below
        r = d.pick(0, 2, 5, d.u(5, 30))
        return rounded((x0 + x1) / 2, (y0 + y1 + below - top) / 2, w, h, r)
    half = pads.BONE if kind == "bone" else d.pick(*HALVES)
    if kind == "grips" and d.chance(0.5):
        half = [[between(d, *bounds) for bounds in point] for point in GRIPS]
    half = np.array(half, float)
    # flatter at the top
    half[:, 1] = ((half[:, 1] - half[:, 1].min()) / np.ptp(half[:, 1])) ** d.u(1, 1.5)
    half[1:-1] += d.rng.normal(0, d.u(0, 1), (len(half) - 2, 2)) * (2.5, 0.02)
    mirrored = (half * (-1, 1) + (300, 0))[::-1]
    whole = shapes.smooth(half, 300) if d.chance(0.9) else np.concatenate([half, mirrored])
    end = half[-1, 1] if kind == "grips" else 1  # grips reach below the rest
    high = (y1 - y0 + top + below) / end * d.u(0.85, 1.1)
    return whole / (300, 1) * (x1 - x0 + 2 * a, high) + (x0 - a, y0 - top)


def between(d, low, high):
    """Draw a number, unless the bounds leave no choice."""
    return d.u(low, high) if low < high else low


def wells(art, d, sticks):
    """Where the sticks stand."""
    s = art.style
    form = d.pick(none=1.6, ring=3, disc=2, both=2, gate=1, square=0.4, double=0.7)
    out, alpha = d.u(0.3, 1.15), d.pick(1.0, d.u(0.15, 0.7))
    dark, pale = tint(s.body or d.color(0.3), 0.6), tint(s.knob.fill or WHITE, 0.8)
    color = d.pick(BLACK, dark, pale, d.color(0.4))
    ink = s.edge or s.idle.edge or s.idle.ink
    axes = d.chance(0.1)
    for p in sticks:
        r = p.w / 2 + out * p.h
        shape = CIRCLE * r + (p.x, p.y)
        if form == "gate":
            shape = outline("octagon", p.x, p.y, 2 * r, 2 * r)
        elif form == "square":
            shape = rounded(p.x, p.y, 2 * r, 2 * r, 0.1 * r)
        if form in ("disc", "both", "gate"):
            art.paint(shape, color, alpha)
        if form not in ("none", "disc"):
            art.paint(shape, ink, width=s.width)
        if form == "double":
            art.paint(CIRCLE * 0.8 * r + (p.x, p.y), ink, 0.6, s.width)
        if axes:
            art.symbol("plus", p.x, p.y, 2 * r, ink, 0.6)


def details(art, d, x0, y0, x1, y1):
    """A touchpad, a logo, a name, seams, vents: near the body's colour, in ink, or in what is
    lit.
    """
    s = art.style
    cx, w, h = (x0 + x1) / 2, x1 - x0, y1 - y0
    alpha = d.u(0.3, 1)
    color = d.pick(s.edge or s.idle.ink, tint(s.body, 0.7) if s.body else s.idle.ink, s.lit)
    if d.chance(0.3):
        y, size = y0 + h * d.u(0.15, 0.35), (w * d.u(0.2, 0.36), h * d.u(0.12, 0.3))
        touchpad = rounded(cx, y, *size, w * d.u(0, 0.03))
        art.paint(touchpad, color, 0.7 * alpha, d.pick(0, s.width))
    if d.chance(0.35):
        shape, y = d.pick("disc", "hexagon", "triangle"), y0 + h * d.u(0.15, 0.6)
        logo = outline(shape, cx, y, *[w * d.u(0.03, 0.1)] * 2)
        art.paint(logo, color, alpha, d.pick(0, s.width))
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
        body(art, d, hull)
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


def body(art, d, hull):
    """Now and then over its shadow."""
    s, drop = art.style, 0.012 * art.px.shape[1]
    if s.unit == 1 and d.chance(0.12):
        art.paint(hull + (0, drop), BLACK, d.u(0.3, 0.7), blur=drop)
    art.paint(hull, s.body, s.body_alpha)
    art.light(0.8, 0.15 if s.photo else 0)


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
    shown = np.concatenate([wild_layouts.extent(parts).reshape(2, 2), hull])
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


def look_at_rest(p, s, under):
    """How a part is drawn; a knob shows on what is under it."""
    look = s.knob if p.kind == "stick" else s.idle
    if p.id in s.hues:
        hue = s.hues[p.id]
        own = dict(fill=hue, ink=readable(hue)) if look.fill else dict(edge=hue, ink=hue)
        look = look._replace(**own)
    seen = [c for c in (look.fill, look.edge, look.ink) if c]
    if p.kind == "stick" and all(gap(c, under) < 45 for c in seen):
        look = look._replace(edge=readable(under), ink=readable(under))
    return look


def print_on(px, picture, x, y):
    """Paint a picture over `px`, its corner at (x, y), clipped."""
    h, w = picture.shape[:2]
    part = px[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
    part[:] = over(part, picture[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]])


def pictures_of(d, p, s, art, effects, done):
    """The states of a part.  `done` keeps them: two sticks, four arms often look the same."""
    at = min(int(p.y), len(art.px) - 1), min(int(p.x), art.px.shape[1] - 1)
    under = tuple(art.px[at].tolist())
    look = look_at_rest(p, s, under)
    if p.kind == "dpad":
        return dpad_states(d, p, s, under)
    stick = p.kind == "stick"
    what = (p.shape, p.w, p.h, p.label, p.flip, p.way, look, p.id[:1] * stick, under)
    if what not in done:
        if stick:
            effects = s.click
        elif p.id in DIAMOND:
            effects = s.press
        done[what] = states(p, look, effects, s, under)
    return done[what]


def drawn(d, parts, s, art):
    """(fields, rows) of every part that moves, in dots.  What is printed goes onto `art`."""
    effects = presses(d) if d.chance(0.25) else s.press  # of all but the face buttons
    click = d.chance(0.65) and not any("THUMB" in p.id for p in parts)
    trail = ("#%02x%02x%02x" % s.lit, max(2.0, s.width * s.unit)) if d.chance(0.04) else ()
    done = {}
    for p in parts:
        pictures = pictures_of(d, p, s, art, effects, done)
        h, w = pictures[0].shape[:2]
        x, y = round(p.x - w / 2), round(p.y - h / 2)
        fields = dict(kind=p.kind, id=p.id)
        if p.kind == "stick":
            pictures = pictures[: 1 + click]
            fields |= dict(radius=float(p.h * s.unit), click=click, trail=trail)
        elif p.kind != "dpad":
            if s.printed:
                print_on(art.px, pictures[0], x, y)
            if s.printed or s.unseen:
                pictures = [np.zeros_like(pictures[0]), pictures[1]]
        pictures, (dx, dy) = trimmed(pictures, even=p.kind in ("stick", "dpad"))
        fields["pos"] = x + dx, y + dy
        yield fields, [pictures] if p.kind == "dpad" else [[q] for q in pictures]


def pieces(seed: int):
    """((w, h), [(fields of an Element, rows of pictures: idle, pressed; of a d-pad one row of
    nine)]).
    """
    d = Dice(seed)
    parts, box, make = wild_layouts.arrange(d)
    side = d.log(250, 700)
    s = Style(d, side)
    hull = silhouette(d, box, make) if s.body or s.edge else np.empty((0, 2))
    size, hull = to_pixels(d, parts, hull, side, s.unit)
    beyond = round(0.03 * size[0]) if d.chance(0.08) else 0  # of the textures over the canvas, dots
    wild_layouts.move(parts, beyond, beyond)
    layers = ground(d, s, [v + 2 * beyond for v in size], hull + beyond, parts)
    moving = list(drawn(d, parts, s, layers[-1]))  # first: it prints on the layers
    textures = []
    for art in layers:
        pictures, pos = trimmed([art.px], even=False)
        textures.append((dict(kind="texture", id="", pos=pos), [pictures]))
    out = []
    for fields, rows in textures + moving:
        x, y = fields["pos"]
        fields["pos"] = int(x - beyond) * s.unit, int(y - beyond) * s.unit
        out.append((fields, [[finish(px, s.unit) for px in row] for row in rows]))
    return tuple(int(v) * s.unit for v in size), out
