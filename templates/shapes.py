"""templates/shapes.py: polygons, letters, and the picture that they are painted on, anti-aliased.

A shape is a float array [N, 2] of points x, y in px, x right, y down; angles are in degrees;
colours are "#rrggbb".
"""

from __future__ import annotations

import cv2
import numpy as np

SUPER = 4  # supersampling of the drawn shapes


def disc(cx, cy, r):
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1)


def box(cx, cy, w, h, r=0.0):
    """Rectangle around its centre with corners of radius r."""
    r = min(r, w / 2, h / 2)
    t = np.linspace(0, np.pi / 2, 8)
    corners = []
    for q, (sx, sy) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        turn = t + q * np.pi / 2
        x = cx + sx * (w / 2 - r) + r * np.cos(turn)
        y = cy + sy * (h / 2 - r) + r * np.sin(turn)
        corners.append(np.stack([x, y], 1))
    return np.concatenate(corners)


def pill(cx, cy, w, h):
    return box(cx, cy, w, h, min(w, h) * 0.32)


def coin(cx, cy, w, h):
    return disc(cx, cy, w / 2)


def cross(cx, cy, side, arm):
    s, a = side / 2, arm / 2
    half = [(-a, -s), (a, -s), (a, -a), (s, -a), (s, a), (a, a)]
    return np.array(half + [(-x, -y) for x, y in half]) + (cx, cy)


def ngon(cx, cy, r, n, turn=-90.0):
    t = np.radians(turn) + np.arange(n) * 2 * np.pi / n
    return np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1)


def smooth(half, width):
    """Closed Catmull-Rom curve through the points of the left half and their mirror images."""
    p = np.array(half, float)
    p = np.concatenate([p, (p * (-1, 1) + (width, 0))[::-1]])
    a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    square = (2 * a - 5 * b + 4 * c - d) * t**2
    cube = (3 * b - a - 3 * c + d) * t**3
    curve = 0.5 * (2 * b + (c - a) * t + square + cube)  # [12, points, 2]
    return curve.transpose(1, 0, 2).reshape(-1, 2)


# fmt: off
GLYPHS = {  # strokes of x, y digits on a 4 x 6 grid
    "A": "062046 1434", "B": "06003041423303 3344453606", "C": "4130100105163645",
    "D": "00062644422000", "E": "40000646 0333", "G": "41301001051636454323",
    "H": "0006 4046 0343", "I": "2026", "K": "0006 4003 0346", "L": "000646", "M": "0600234046",
    "N": "06004640", "O": "103041453616050110", "P": "06003041423303",
    "R": "06003041423303 2346", "S": "413010010213334445361605", "T": "0040 2026",
    "U": "000516364540", "V": "002640", "W": "0016233640", "X": "0046 4006",
    "Y": "0023 4023 2326", "Z": "00400646",
    "0": "103041453616050110", "1": "112026", "2": "01103041420646",
    "3": "01103041423313334445361605", "6": "4130100105163645443303",
    "^": "062046", "+": "2125 0343", "-": "0343", "<": "310335", ">": "113315",
    "=": "0141 0343 0545", " ": "",
}
# fmt: on


# ---- a picture to paint on -----------------------------------------------------------------------


def rgb(color):
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


class Picture:
    """Premultiplied RGBA float32 [h, w, 4], 0..1, to paint on, in blocks of the style's `unit` px
    and in its `look`.
    """

    def __init__(self, w, h, style):
        self.px = np.zeros((h, w, 4), np.float32)
        self.unit = style.unit
        self.look = style.look

    def paint(self, polygons, color, alpha=1.0, width=None, closed=True, shade=0.0, blur=0.0):
        """Fill the polygons, or stroke them `width` px wide.  `shade` lightens the top; `blur` (px)
        makes a glow.
        """
        polygons = [np.asarray(q, float) for q in polygons]
        x0, y0, x1, y1 = self.part(polygons, 1 + (width or 0) / 2 + 3 * blur)
        if x0 >= x1 or y0 >= y1:
            return
        if self.look == "sketch":
            polygons = sketched(polygons, twice=width and closed)
        mask = self.mask([q - (x0, y0) for q in polygons], x1 - x0, y1 - y0, width, closed)
        if blur:
            mask = np.minimum(1, 1.6 * cv2.GaussianBlur(mask, (0, 0), blur))
        if self.look == "sketch" and width is None and alpha == 1:
            mask = hatched(mask, x0, y0)
        ink = np.array(rgb(color), np.float32) / 255 * self.light(mask, shade)
        a = (mask * alpha)[..., None]
        part = self.px[y0:y1, x0:x1]
        part *= 1 - a
        part[..., :3] += np.clip(ink, 0, 1) * a
        part[..., 3:] += a

    def part(self, polygons, margin):
        """x0, y0, x1, y1 of the whole blocks that the polygons and a margin cover."""
        size = self.px.shape[1::-1]
        points = np.concatenate(polygons)
        low = np.floor(points.min(0) - margin)
        high = np.ceil(points.max(0) + margin)
        first = np.clip(low, 0, size) // self.unit * self.unit
        last = np.clip(-(-high // self.unit) * self.unit, 0, size)
        return *first.astype(int), *last.astype(int)

    def mask(self, polygons, w, h, width, closed):
        """How much of each px they cover, float32 [h, w], 0..1."""
        fine = SUPER if self.unit == 1 else 1 / self.unit
        big = np.zeros((round(h * fine), round(w * fine)), np.uint8)
        points = [np.round(q * fine * 16 - 8).astype(np.int32) for q in polygons]
        if width is None:
            cv2.fillPoly(big, points, 255, cv2.LINE_8, 4)
        else:
            cv2.polylines(big, points, closed, 255, max(1, round(width * fine)), cv2.LINE_8, 4)
        how = cv2.INTER_AREA if self.unit == 1 else cv2.INTER_NEAREST
        return cv2.resize(big, (w, h), interpolation=how).astype(np.float32) / 255

    def light(self, mask, shade):
        """What the colour of each px is multiplied by."""
        if not shade:
            return 1
        h = len(mask)
        if self.look == "metal":
            bands = np.cos(np.linspace(0.4, 9.5, h, dtype=np.float32))[:, None, None]
            return 1 + np.sign(shade) * 0.3 * bands
        light = 1 + shade * np.linspace(1, -1, h, dtype=np.float32)[:, None, None]
        if self.look == "photo":  # rounded edges, lit from above
            soft = min(7.0, min(mask.shape) / 9)
            slope = np.gradient(cv2.GaussianBlur(mask, (0, 0), soft), axis=0)[..., None]
            light = light + np.sign(shade) * 1.1 * soft * slope
        return light

    def fill(self, shape, color, alpha=1.0, shade=0.0):
        self.paint([shape], color, alpha, shade=shade)

    def line(self, shape, color, width, alpha=1.0, closed=True):
        self.paint([shape], color, alpha, width, closed)

    def glow(self, shape, color, sigma):
        self.paint([shape], color, 1.0, 2.0, blur=sigma)

    def text(self, text, cx, cy, size, color, width):
        """Stroke letters of height `size` around (cx, cy); in pixel art they are 6 blocks high."""
        size = size if self.unit == 1 else 6 * self.unit
        advance = size * (0.92 if self.unit == 1 else 1)
        left = cx - (advance * (len(text) - 1) + 4 * size / 6) / 2
        strokes = []
        for i, letter in enumerate(text):
            for stroke in GLYPHS[letter].split():
                points = np.array([int(v) for v in stroke]).reshape(-1, 2)
                strokes.append(points * (size / 6) + (left + i * advance, cy - size / 2))
        if strokes:
            self.paint(strokes, color, 1.0, width, closed=False)

    def rgba(self):
        """uint8 [h, w, 4], not premultiplied."""
        a = self.px[..., 3:]
        if self.look == "lcd":  # dots with gaps between them
            h, w = self.px.shape[:2]
            dot = 1 - (np.arange(max(h, w)) % self.unit == self.unit - 1) * 0.35
            self.px *= np.minimum.outer(dot[:h], dot[:w])[..., None]
        out = np.concatenate([self.px[..., :3] / np.maximum(a, 1e-6), a], 2)
        return np.round(255 * out).clip(0, 255).astype(np.uint8)


def sketched(polygons, twice):
    """The polygons as a hand draws them: an outline twice."""
    turns = (0, 3) if twice else (0,)
    return [q + np.sin(q[:, ::-1] / 9 + turn) for q in polygons for turn in turns]


def hatched(mask, x, y):
    """A filled area as a hand fills it, if it is not small; its corner is at (x, y)."""
    h, w = mask.shape
    if min(h, w) <= 10:
        return mask
    return mask * (np.add.outer(np.arange(y, y + h), np.arange(x, x + w)) % 5 < 3)
