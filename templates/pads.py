"""templates/pads.py: the 315 built-in controller overlays, drawn by code in the form in which
streamers' own skins come.

`pieces(name)` gives a template's canvas and, per element, what it is, where it is and a picture of
each of its states; extract.py packs them into an atlas, and from there on they are a skin like any
other.  A name is a controller (LAYOUTS: where things are) and a style (STYLES: how they are drawn),
as in "ps4-neon".

All is in px of the canvas, x right, y down; angles in degrees; colours are "#rrggbb".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import compress

import cv2
import numpy as np

SUPER = 4  # supersampling of the drawn shapes
PAD = 3  # px around each drawn element: room for glow, and for its own anti-aliasing
WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # x, y: left, right, up, down
# x, y: the order of a d-pad's pictures, as in OBS presets
DPAD_STATES = ((0, 0), *WAYS, (-1, -1), (1, -1), (-1, 1), (1, 1))


# ---- shapes, polygons [N, 2] in px, and what paints them, anti-aliased ---------------------------


def disc(cx, cy, r):
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1)


def box(cx, cy, w, h, r=0.0):
    """Rectangle around its centre with corners of radius r."""
    r = min(r, w / 2, h / 2)
    t = np.linspace(0, np.pi / 2, 8)
    corners = [(1, 1, 0), (-1, 1, 1), (-1, -1, 2), (1, -1, 3)]
    return np.concatenate(
        [
            np.stack(
                [
                    cx + sx * (w / 2 - r) + r * np.cos(t + q * np.pi / 2),
                    cy + sy * (h / 2 - r) + r * np.sin(t + q * np.pi / 2),
                ],
                1,
            )
            for sx, sy, q in corners
        ]
    )


def cross(cx, cy, side, arm):
    s, a = side / 2, arm / 2
    p = [
        (-a, -s),
        (a, -s),
        (a, -a),
        (s, -a),
        (s, a),
        (a, a),
        (a, s),
        (-a, s),
        (-a, a),
        (-s, a),
        (-s, -a),
        (-a, -a),
    ]
    return np.array(p) + (cx, cy)


def ngon(cx, cy, r, n, turn=-90.0):
    t = np.radians(turn) + np.arange(n) * 2 * np.pi / n
    return np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1)


def smooth(half, width):
    """Closed Catmull-Rom curve through the points of the left half and their mirror images."""
    p = np.array(half, float)
    p = np.concatenate([p, (p * (-1, 1) + (width, 0))[::-1]])
    a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    return (
        (
            0.5
            * (
                2 * b
                + (c - a) * t
                + (2 * a - 5 * b + 4 * c - d) * t**2
                + (3 * b - a - 3 * c + d) * t**3
            )
        )
        .transpose(1, 0, 2)
        .reshape(-1, 2)
    )


GLYPHS = {  # strokes of x, y digits on a 4 x 6 grid
    "A": "062046 1434",
    "B": "06003041423303 3344453606",
    "C": "4130100105163645",
    "D": "00062644422000",
    "E": "40000646 0333",
    "H": "0006 4046 0343",
    "I": "2026",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": "103041453616050110",
    "P": "06003041423303",
    "R": "06003041423303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "X": "0046 4006",
    "Y": "0023 4023 2326",
    "Z": "00400646",
    "K": "0006 4003 0346",
    "V": "002640",
    "^": "062046",
    "G": "41301001051636454323",
    "1": "112026",
    "2": "01103041420646",
    "3": "01103041423313334445361605",
    "0": "103041453616050110",
    "6": "4130100105163645443303",
    "W": "0016233640",
    "+": "2125 0343",
    "-": "0343",
    "<": "310335",
    ">": "113315",
    "=": "0141 0343 0545",
    " ": "",
}


def rgb(color):
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def contrast(color):
    """Black or white, to read on it."""
    r, g, b = rgb(color)
    return "#101216" if 0.3 * r + 0.6 * g + 0.1 * b > 125 else "#ffffff"


def darker(color, k=0.45):
    return "#" + "".join(f"{int(v * k):02x}" for v in rgb(color))


class Picture:
    """Premultiplied RGBA float32 [h, w, 4], 0..1, to paint on, in blocks of the style's `unit` px
    and with what its `look` does.
    """

    def __init__(self, w, h, style):
        self.px, self.unit, self.look = np.zeros((h, w, 4), np.float32), style.unit, style.look

    def paint(self, polygons, color, alpha=1.0, width=None, closed=True, shade=0.0, blur=0.0):
        """Fill the polygons, or stroke them `width` px wide; `shade` lightens the top; `blur` (px)
        makes a glow.
        """
        (h, w), p, u = (
            self.px.shape[:2],
            np.concatenate([np.asarray(q, float) for q in polygons]),
            self.unit,
        )
        margin = 1 + (width or 0) / 2 + 3 * blur
        x0, y0 = (np.clip(np.floor(p.min(0) - margin), 0, (w, h)) // u * u).astype(int)
        x1, y1 = np.clip(-(-np.ceil(p.max(0) + margin) // u) * u, 0, (w, h)).astype(int)
        if x0 >= x1 or y0 >= y1:
            return
        if self.look == "sketch":  # a hand that draws each line twice
            polygons = [
                q + np.sin(np.asarray(q, float)[:, ::-1] / 9 + turn)
                for q in polygons
                for turn in ((0, 3) if width and closed else (0,))
            ]
        mask = self.mask(
            [np.asarray(q) - (x0, y0) for q in polygons], x1 - x0, y1 - y0, width, closed
        )
        if blur:
            mask = np.minimum(1, 1.6 * cv2.GaussianBlur(mask, (0, 0), blur))
        if self.look == "sketch" and width is None and alpha == 1 and min(mask.shape) > 10:
            mask *= np.add.outer(np.arange(y0, y1), np.arange(x0, x1)) % 5 < 3
        part, a = self.px[y0:y1, x0:x1], (mask * alpha)[..., None]
        part *= 1 - a
        part[..., :3] += (
            np.clip(
                np.array([v / 255 for v in rgb(color)], np.float32) * self.light(mask, shade), 0, 1
            )
            * a
        )
        part[..., 3:] += a

    def mask(self, polygons, w, h, width, closed):
        """How much of each px they cover, float32 [h, w], 0..1."""
        fine = SUPER if self.unit == 1 else 1 / self.unit
        big, points = (
            np.zeros((round(h * fine), round(w * fine)), np.uint8),
            [np.round(q * fine * 16 - 8).astype(np.int32) for q in polygons],
        )
        if width is None:
            cv2.fillPoly(big, points, 255, cv2.LINE_8, 4)
        else:
            cv2.polylines(big, points, closed, 255, max(1, round(width * fine)), cv2.LINE_8, 4)
        return (
            cv2.resize(
                big, (w, h), interpolation=cv2.INTER_AREA if self.unit == 1 else cv2.INTER_NEAREST
            ).astype(np.float32)
            / 255
        )

    def light(self, mask, shade):
        """What the colour of each px is multiplied by."""
        if not shade:
            return 1
        h = len(mask)
        if self.look == "metal":
            return (
                1
                + np.sign(shade)
                * 0.3
                * np.cos(np.linspace(0.4, 9.5, h, dtype=np.float32))[:, None, None]
            )
        light = 1 + shade * np.linspace(1, -1, h, dtype=np.float32)[:, None, None]
        if self.look == "photo":  # rounded edges, lit from above
            soft = min(7.0, min(mask.shape) / 9)
            light = (
                light
                + np.sign(shade)
                * 1.1
                * soft
                * np.gradient(cv2.GaussianBlur(mask, (0, 0), soft), axis=0)[..., None]
            )
        return light

    def fill(self, shape, color, alpha=1.0, shade=0.0):
        self.paint([shape], color, alpha, shade=shade)

    def line(self, shape, color, width, alpha=1.0, closed=True):
        self.paint([shape], color, alpha, width, closed)

    def glow(self, shape, color, sigma):
        self.paint([shape], color, 1.0, 2.0, blur=sigma)

    def text(self, text, cx, cy, size, color, width, alpha=1.0):
        """Stroke letters of height `size` around (cx, cy)."""
        size = size if self.unit == 1 else 6 * self.unit
        unit, advance = size / 6, size * (0.92 if self.unit == 1 else 1)
        left = cx - (advance * (len(text) - 1) + 4 * unit) / 2
        strokes = [
            np.array([(int(s[j]), int(s[j + 1])) for j in range(0, len(s), 2)]) * unit
            + (left + i * advance, cy - size / 2)
            for i, letter in enumerate(text)
            for s in GLYPHS[letter].split()
        ]
        if strokes:
            self.paint(strokes, color, alpha, width, closed=False)

    def rgba(self):
        """uint8 [h, w, 4], not premultiplied."""
        a = self.px[..., 3:]
        if self.look == "lcd":  # dots with gaps between them
            gap = (np.arange(max(a.shape)) % self.unit == self.unit - 1) * 0.35
            self.px *= np.minimum.outer(1 - gap[: a.shape[0]], 1 - gap[: a.shape[1]])[..., None]
        return (
            np.round(255 * np.concatenate([self.px[..., :3] / np.maximum(a, 1e-6), a], 2))
            .clip(0, 255)
            .astype(np.uint8)
        )


# ---- layouts: where things are on each controller ------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Centres in px on a canvas of `size`; None: not there.  The right half of the top edge mirrors
    the left.
    """

    size: tuple = (320, 220)
    left: tuple | None = (72, 84)
    right: tuple | None = (202, 134)
    dpad: tuple | None = (118, 134)
    dpad_side: int = 54
    face: tuple | None = (248, 84)
    face_step: int = 25  # centre of the diamond to a button's centre
    face_side: int = 22  # diameter
    letters: str = "AXBY"  # south, west, east, north; "" for the PlayStation's shapes
    back: tuple = (138, 84, 18, 12)  # x, y, w, h
    start: tuple = (182, 84, 18, 12)
    small: str = "<>"  # labels of back and start
    shoulder: tuple | None = (72, 33, 66, 14)
    trigger: tuple | None = (72, 13, 44, 20)
    tops: tuple = ("LB", "RB", "LT", "RT")  # labels of shoulders and triggers
    travel: int = 20
    cap: int = 32  # stick cap's diameter
    body: tuple = ()  # left half of the outline
    slab: float = -1.0  # corner radius of a plain panel that is the body, -1 for none
    keys: bool = False  # d-pad as four separate square keys
    spots: tuple = ()  # further buttons: (name, x, y, side, label)
    absent: tuple = ()  # buttons that this controller does not have


XBOX = (
    (150, 46),
    (112, 46),
    (84, 38),
    (52, 44),
    (30, 72),
    (14, 126),
    (8, 180),
    (22, 212),
    (44, 208),
    (70, 182),
    (104, 176),
    (150, 176),
)
ONE = (
    (150, 42),
    (110, 42),
    (70, 40),
    (44, 50),
    (28, 82),
    (12, 140),
    (8, 186),
    (18, 210),
    (38, 212),
    (60, 194),
    (84, 178),
    (112, 174),
    (150, 174),
)
DUAL = (
    (150, 48),
    (104, 48),
    (88, 40),
    (40, 40),
    (22, 52),
    (14, 90),
    (6, 160),
    (10, 204),
    (32, 212),
    (54, 190),
    (76, 174),
    (106, 176),
    (130, 168),
    (150, 166),
)
SENSE = (
    (150, 40),
    (100, 40),
    (54, 40),
    (26, 54),
    (14, 100),
    (4, 160),
    (8, 208),
    (26, 216),
    (46, 196),
    (66, 176),
    (100, 174),
    (150, 174),
)
PRO = (
    (150, 46),
    (100, 42),
    (60, 40),
    (34, 54),
    (20, 92),
    (8, 150),
    (10, 196),
    (28, 212),
    (46, 202),
    (66, 176),
    (100, 172),
    (150, 172),
)
BONE = (
    (150, 38),
    (96, 36),
    (58, 26),
    (20, 46),
    (6, 90),
    (20, 132),
    (62, 152),
    (100, 140),
    (126, 134),
    (150, 134),
)
SERIES = (
    (150, 44),
    (112, 42),
    (76, 36),
    (46, 50),
    (24, 88),
    (10, 146),
    (10, 192),
    (26, 212),
    (48, 200),
    (72, 180),
    (96, 178),
    (150, 178),
)
CUBE = (
    (150, 46),
    (112, 50),
    (72, 40),
    (36, 50),
    (18, 84),
    (18, 124),
    (28, 154),
    (26, 192),
    (40, 212),
    (58, 202),
    (72, 176),
    (92, 190),
    (122, 194),
    (142, 178),
    (150, 176),
)
TRIDENT = (
    (150, 52),
    (112, 44),
    (62, 46),
    (24, 72),
    (10, 116),
    (12, 172),
    (26, 206),
    (44, 204),
    (58, 166),
    (82, 144),
    (106, 150),
    (120, 188),
    (142, 212),
    (152, 214),
)
TRIMS = {  # what decorates a body: see decorate()
    "xbox360": (
        "o 160 74 15 | O 160 74 11 #8fd14f | L 153 68 160 74 153 80 #ffffff | L 167 68 160 74 167 80 #ffffff | o 248 84 41 | "
        "o 118 134 32 | t 360 158 105 6 | l 36 100 24 150 26 196 | l 284 100 296 150 294 196 | l 140 162 180 162"
    ),
    "xboxone": (
        "O 160 62 12 #f4f6f8 | L 154 56 166 68 #1d2027 | L 166 56 154 68 #1d2027 | l 110 44 134 74 186 74 210 44 | "
        "b 118 134 64 64 12 | l 48 108 36 150 | l 42 106 30 150 | l 54 110 42 150 | l 272 108 284 150 | l 278 106 290 150 | "
        "l 266 110 278 150 | t ONE 160 100 6"
    ),
    "ps3": (
        "t SELECT 134 72 6 | t START 186 72 6 | o 160 112 10 | t PS 160 112 8 | o 56 82 36 | o 264 82 41 | "
        "B 148 56 4 4 0 #e04848 | b 156 56 4 4 0 | b 164 56 4 4 0 | b 172 56 4 4 0 | l 30 130 24 180 20 204 | "
        "l 290 130 296 180 300 204"
    ),
    "ps4": (
        "b 160 74 96 46 7 | B 160 51 90 4 2 #3a8bff | o 148 104 1 | o 154 104 1 | o 160 104 1 | o 166 104 1 | o 172 104 1 | "
        "o 148 109 1 | o 154 109 1 | o 160 109 1 | o 166 109 1 | o 172 109 1 | o 160 126 8 | t PS 160 126 6 | o 56 84 39 | "
        "o 264 84 42 | l 20 120 40 120 58 150 52 184 | l 300 120 280 120 262 150 268 184"
    ),
    "ps5": (
        "L 106 42 112 84 122 92 198 92 208 84 214 42 | l 28 60 60 122 78 170 | l 292 60 260 122 242 170 | "
        "B 160 103 26 5 2.5 #e8a040 | t PS 160 122 9 | L 148 146 172 146 | O 152 156 1.6 | O 160 156 1.6 | O 168 156 1.6 | "
        "l 124 48 196 48 | l 22 120 40 150 40 196 | l 298 120 280 150 280 196"
    ),
    "switch": (
        "b 142 88 13 13 2 | o 142 88 3.4 | o 178 88 8 | l 173 89 178 84 183 89 181 93 175 93 173 89 | l 92 44 108 60 112 98 | "
        "l 228 44 212 60 208 98 | t SWITCH 160 104 6 | o 116 132 33 | l 24 100 48 140 44 198 | l 296 100 272 140 276 198 | "
        "L 34 120 44 124 | L 286 120 276 124"
    ),
    "snes": (
        "o 64 90 48 | o 254 90 53 | l 224 101 257 68 | l 251 112 284 79 | l 224 101 240 115 | l 268 65 284 79 | "
        "t SUPER 155 56 9 | t SELECT 133 116 5 | t START 178 116 5 | l 118 70 192 70 | O 130 128 1.5 | O 136 128 1.5 | "
        "O 142 128 1.5"
    ),
    "grid": (
        "b 46 92 76 76 4 | b 274 92 76 76 4 | l 8 92 84 92 | l 46 54 46 130 | l 236 92 312 92 | l 274 54 274 130 | "
        "l 162 42 162 128"
    ),
    "keys": (
        "b 52 136 88 88 6 | b 268 138 88 88 6 | t L 16 102 8 | t R 304 104 8 | t MOVE 122 128 6 | t CAM 204 128 6 | "
        "l 104 150 216 150 | l 104 158 216 158 | l 104 166 216 166 | o 252 52 39 | t PAD 160 178 8"
    ),
    "arcade": (
        "l 16 46 120 46 150 28 304 28 | t ARCADE 250 148 10 | l 20 150 120 150 140 132 216 132 | o 12 12 4 | o 308 12 4 | "
        "o 12 158 4 | o 308 158 4 | l 10 10 14 14 | l 306 10 310 14 | l 10 156 14 160 | l 306 156 310 160 | b 138 138 46 46 23"
    ),
    "xboxseries": (
        "O 160 62 11 #f4f6f8 | L 155 57 165 67 #1d2027 | L 165 57 155 67 #1d2027 | o 118 134 32 | o 252 86 43 | b 160 105 18 11 3 | "
        "l 44 112 30 160 | l 50 116 38 162 | l 276 112 290 160 | l 270 116 282 162"
    ),
    "gamecube": (
        "o 160 58 8 | o 250 92 50 | o 116 154 30 | l 92 60 120 70 200 70 214 60 | l 26 152 44 170 | l 294 152 276 170 | o 160 120 6"
    ),
    "n64": (
        "o 268 80 9 #f2c230 | o 252 96 9 #f2c230 | o 284 96 9 #f2c230 | o 268 112 9 #f2c230 | t C 268 96 6 | "
        "l 118 60 128 116 | l 202 60 192 116 | o 62 96 36 | l 28 130 30 180 | l 292 130 290 180"
    ),
    "nes": (
        "b 160 93 86 62 5 | l 110 40 210 40 | l 110 48 210 48 | l 110 56 210 56 | b 226 92 44 44 5 | b 274 92 44 44 5 | "
        "t SELECT 134 76 6 | t START 186 76 6 | b 62 84 78 78 8 | t PAD 278 50 9"
    ),
    "lever": (
        "l 16 40 304 40 | t ARCADE 262 24 9 | o 12 12 4 | o 308 12 4 | o 12 158 4 | o 308 158 4 | o 72 98 52 | "
        "l 20 154 48 154 | l 96 154 124 154 | l 134 152 300 152"
    ),
    "hitbox": (
        "b 80 84 132 52 18 | o 160 146 26 | l 130 30 304 30 | t HITBOX 266 18 9 | o 12 12 4 | o 308 12 4 | o 12 168 4 | o 308 168 4 | "
        "l 206 160 300 160 | l 206 154 300 154"
    ),
}
PLAYSTATION = dict(letters="", small="  ", tops=("L1", "R1", "L2", "R2"))
LAYOUTS = {
    "xbox360": Layout(body=XBOX),
    "xboxone": Layout(
        body=ONE,
        left=(70, 82),
        face=(250, 82),
        back=(142, 90, 14, 14),
        start=(178, 90, 14, 14),
        small=" =",
    ),
    "ps3": Layout(
        body=DUAL,
        left=(118, 136),
        right=(202, 136),
        dpad=(56, 82),
        dpad_side=52,
        face=(264, 82),
        **PLAYSTATION,
        back=(138, 84, 18, 11),
        start=(182, 84, 18, 11),
        shoulder=(60, 33, 58, 13),
        trigger=(60, 13, 46, 20),
    ),
    "ps4": Layout(
        body=DUAL,
        left=(118, 138),
        right=(202, 138),
        dpad=(56, 84),
        dpad_side=52,
        face=(264, 84),
        **PLAYSTATION,
        back=(100, 62, 11, 19),
        start=(220, 62, 11, 19),
        shoulder=(60, 33, 58, 13),
        trigger=(60, 13, 46, 20),
    ),
    "ps5": Layout(
        body=SENSE,
        left=(116, 136),
        right=(204, 136),
        dpad=(56, 86),
        dpad_side=52,
        face=(264, 86),
        **PLAYSTATION,
        back=(94, 54, 12, 18),
        start=(226, 54, 12, 18),
        shoulder=(58, 33, 62, 13),
        trigger=(58, 13, 50, 20),
        travel=21,
    ),
    "switch": Layout(
        body=PRO,
        left=(70, 84),
        right=(204, 132),
        dpad=(116, 132),
        face=(250, 84),
        letters="BYAX",
        back=(122, 64, 14, 14),
        start=(198, 64, 14, 14),
        small="-+",
        tops=("L", "R", "ZL", "ZR"),
        shoulder=(74, 33, 74, 14),
    ),
    "snes": Layout(
        size=(320, 160),
        body=BONE,
        left=None,
        right=None,
        dpad=(64, 90),
        dpad_side=66,
        face=(254, 90),
        face_step=28,
        face_side=26,
        letters="BYAX",
        back=(134, 98, 26, 13),
        start=(176, 98, 26, 13),
        small="  ",
        trigger=None,
        tops=("L", "R", "", ""),
        shoulder=(72, 12, 84, 16),
    ),
    "grid": Layout(
        size=(320, 136),
        left=(46, 92),
        dpad=(124, 92),
        face=(200, 92),
        right=(274, 92),
        travel=22,
        cap=26,
        slab=8,
        back=(144, 22, 26, 20),
        start=(176, 22, 26, 20),
        shoulder=(96, 22, 50, 24),
        trigger=(36, 22, 54, 24),
    ),
    "keys": Layout(
        size=(320, 190),
        left=(52, 136),
        dpad=(68, 68),
        keys=True,
        face=(252, 52),
        right=(268, 138),
        travel=24,
        cap=28,
        back=(134, 92, 28, 18),
        start=(186, 92, 28, 18),
        shoulder=(136, 52, 42, 22),
        trigger=(136, 22, 42, 26),
    ),
    "arcade": Layout(
        size=(320, 170),
        left=None,
        right=None,
        face=None,
        dpad=None,
        shoulder=None,
        trigger=None,
        slab=16,
        back=(52, 24, 24, 14),
        start=(86, 24, 24, 14),
        spots=(
            ("DPAD_LEFT", 40, 74, 30, "<"),
            ("DPAD_DOWN", 78, 78, 30, "V"),
            ("DPAD_RIGHT", 113, 92, 30, ">"),
            ("DPAD_UP", 138, 138, 36, "U"),
            ("WEST", 160, 68, 30, "X"),
            ("NORTH", 197, 52, 30, "Y"),
            ("RIGHT_SHOULDER", 235, 52, 30, "RB"),
            ("LEFT_SHOULDER", 273, 60, 30, "LB"),
            ("SOUTH", 163, 105, 30, "A"),
            ("EAST", 200, 90, 30, "B"),
            ("RIGHT_TRIGGER", 238, 90, 30, "RT"),
            ("LEFT_TRIGGER", 276, 98, 30, "LT"),
        ),
    ),
    "xboxseries": Layout(
        body=SERIES,
        left=(68, 86),
        face=(252, 86),
        face_step=26,
        face_side=24,
        back=(139, 84, 14, 12),
        start=(181, 84, 14, 12),
        small=" =",
        dpad_side=50,
    ),
    # A, the large one, is SOUTH; the C stick is the right stick; Z is the right shoulder
    "gamecube": Layout(
        body=CUBE,
        left=(68, 92),
        right=(201, 156),
        dpad=(116, 154),
        dpad_side=44,
        face=None,
        start=(160, 90, 16, 16),
        small="  ",
        cap=26,
        shoulder=(72, 34, 56, 11),
        tops=("", "Z", "L", "R"),
        trigger=(66, 13, 60, 20),
        absent=("BACK", "LEFT_SHOULDER", "LEFT_THUMB", "RIGHT_THUMB"),
        spots=(
            ("SOUTH", 250, 98, 38, "A"),
            ("WEST", 217, 113, 22, "B"),
            ("EAST", 284, 92, 24, "X"),
            ("NORTH", 244, 62, 24, "Y"),
        ),
    ),
    # A is SOUTH and B, to the left of it, WEST; Z is the left trigger; the C buttons are no action
    # of ours: never lit
    "n64": Layout(
        body=TRIDENT,
        left=(160, 148),
        right=None,
        dpad=(62, 96),
        dpad_side=52,
        face=None,
        travel=20,
        cap=26,
        start=(160, 86, 18, 18),
        small="  ",
        shoulder=(66, 26, 84, 18),
        tops=("L", "R", "", ""),
        trigger=None,
        absent=("BACK", "LEFT_THUMB"),
        spots=(
            ("SOUTH", 238, 128, 26, "A"),
            ("WEST", 214, 104, 26, "B"),
            ("LEFT_TRIGGER", 160, 198, 20, "Z"),
        ),
    ),
    "nes": Layout(
        size=(320, 140),
        slab=6,
        left=None,
        right=None,
        dpad=(62, 84),
        dpad_side=64,
        face=None,
        back=(134, 94, 30, 14),
        start=(186, 94, 30, 14),
        small="  ",
        shoulder=None,
        trigger=None,
        spots=(("SOUTH", 226, 92, 36, "B"), ("EAST", 274, 92, 36, "A")),
    ),
    "lever": Layout(
        size=(320, 170),
        left=(72, 98),
        right=None,
        face=None,
        dpad=None,
        shoulder=None,
        trigger=None,
        slab=12,
        travel=22,
        cap=40,
        back=(54, 24, 24, 14),
        start=(88, 24, 24, 14),
        absent=("LEFT_THUMB",),
        spots=(
            ("WEST", 154, 84, 34, "X"),
            ("NORTH", 192, 66, 34, "Y"),
            ("RIGHT_SHOULDER", 233, 64, 34, "RB"),
            ("LEFT_SHOULDER", 274, 72, 34, "LB"),
            ("SOUTH", 154, 124, 34, "A"),
            ("EAST", 192, 106, 34, "B"),
            ("RIGHT_TRIGGER", 233, 104, 34, "RT"),
            ("LEFT_TRIGGER", 274, 112, 34, "LT"),
        ),
    ),
    "hitbox": Layout(
        size=(320, 180),
        left=None,
        right=None,
        face=None,
        dpad=None,
        shoulder=None,
        trigger=None,
        slab=8,
        back=(42, 26, 28, 14),
        start=(80, 26, 28, 14),
        spots=(
            ("DPAD_LEFT", 38, 80, 30, "<"),
            ("DPAD_DOWN", 78, 80, 30, "V"),
            ("DPAD_RIGHT", 116, 94, 30, ">"),
            ("DPAD_UP", 160, 146, 40, "^"),
            ("WEST", 166, 62, 32, "X"),
            ("NORTH", 204, 50, 32, "Y"),
            ("RIGHT_SHOULDER", 244, 52, 32, "RB"),
            ("LEFT_SHOULDER", 283, 62, 32, "LB"),
            ("SOUTH", 166, 102, 32, "A"),
            ("EAST", 204, 90, 32, "B"),
            ("RIGHT_TRIGGER", 244, 92, 32, "RT"),
            ("LEFT_TRIGGER", 283, 102, 32, "LT"),
            ("LEFT_THUMB", 62, 150, 24, "L"),
            ("RIGHT_THUMB", 102, 150, 24, "R"),
        ),
    ),
}

# ---- styles: how a controller is drawn -----------------------------------------------------------

DIM = "#606060"  # what darkens where a button is transparent
XBOX_HUES = {"SOUTH": "#6cc24a", "EAST": "#e0443e", "WEST": "#3f8ae0", "NORTH": "#f2c230"}
PS_HUES = {"SOUTH": "#7fa7e8", "EAST": "#f0707a", "WEST": "#e59acb", "NORTH": "#53c7a3"}
SNES_HUES = {"SOUTH": "#ffe14a", "EAST": "#ff8a90", "WEST": "#84e69e", "NORTH": "#a4bcff"}


@dataclass(frozen=True)
class Style:
    body: str = ""  # body's colour, "" for none or outline only
    alpha: float = 1.0  # body's opacity
    edge: str = "#ffffff"  # outline of body and buttons, "" for none
    width: float = 2.0  # of the outline, px
    key: str = ""  # idle buttons' colour, "" for transparent
    ink: str = "#ffffff"  # labels
    lit: str = "#ffffff"  # pressed colour
    press: str = "fill"  # fill, glow, recolour, darken, shrink, or move: pushed down, its side gone
    stick: str = "cap"  # cap, dot, ring, or trail: a dot with a line to it
    hues: dict = field(default_factory=dict)  # face buttons' own colours
    solid: bool = False  # they fill the idle buttons too, not only the letters
    labels: bool = True
    shade: float = 0.0  # vertical light on body and buttons
    silhouette: bool = True  # False: no body at all
    panel: bool = False  # a plain panel instead of the body
    dpad: str = "cross"  # or split: four separate keys; or disc: a cross on a round plate
    look: str = ""  # photo, metal, sketch or lcd: see Picture.paint
    unit: int = 1  # pixel art: px per drawn pixel
    drop: tuple = ()  # buttons that this skin does not show


STYLES = {
    "outline": Style(),
    "ink": Style(
        edge="#15171c",
        ink="#15171c",
        lit="#f04848",
        body="#ffffff",
        alpha=0.35,
        press="fill",
        stick="ring",
        width=2.2,
    ),
    "dark": Style(
        body="#1d2027",
        edge="#6b7382",
        key="#3d4452",
        ink="#e8eaf0",
        lit="#f5f5f5",
        press="recolour",
        width=1.6,
    ),
    "light": Style(
        body="#e4e6ea",
        edge="#8b909a",
        key="#f8f9fb",
        ink="#40454f",
        lit="#3a7bf0",
        press="recolour",
        width=1.5,
        shade=0.12,
    ),
    "flat": Style(
        body="#4a6076",
        edge="",
        key="#2c3a48",
        ink="#dfe8f0",
        lit="#ffb020",
        press="fill",
        stick="cap",
        labels=True,
    ),
    "minimal": Style(
        silhouette=False,
        edge="#20242c",
        key="#f2f2f2",
        ink="#20242c",
        lit="#ff4d4d",
        press="recolour",
        stick="dot",
        width=1.6,
    ),
    "neon": Style(
        edge="#37e0ff",
        ink="#37e0ff",
        lit="#ff3fd0",
        press="glow",
        stick="ring",
        body="#0a1020",
        alpha=0.55,
        width=1.8,
    ),
    # colours that are names stand for the family's own, below
    "glass": Style(
        body="accent",
        alpha=0.28,
        edge="#ffffff",
        lit="accent",
        press="glow",
        width=1.8,
        stick="ring",
    ),
    "bold": Style(width=3.2, labels=False, lit="accent", stick="ring"),
    "smoke": Style(
        body="#000000",
        alpha=0.5,
        edge="#f0f0f0",
        key="#000000",
        lit="hot",
        width=1.5,
        stick="dot",
        panel=True,
    ),
    "pastel": Style(
        body="pale",
        edge="deep",
        key="#ffffff",
        ink="deep",
        lit="deep",
        press="shrink",
        solid=True,
        width=1.4,
    ),
    "photo": Style(
        body="shell",
        edge="",
        key="plastic",
        ink="#f0f0f0",
        lit="hot",
        press="recolour",
        look="photo",
        shade=0.22,
        width=1.2,
    ),
    "push": Style(
        body="deep",
        edge="#14161a",
        key="#f0ede4",
        ink="#22262c",
        lit="hot",
        press="move",
        width=1.4,
        solid=True,
    ),
    "pixel": Style(
        body="pale",
        edge="#1a1c24",
        key="plastic",
        ink="#ffffff",
        lit="hot",
        press="recolour",
        unit=2,
        width=2,
        solid=True,
    ),
    "sprite": Style(
        body="accent",
        edge="#10131a",
        key="#f4f4f4",
        ink="#10131a",
        lit="hot",
        press="move",
        unit=4,
        width=4,
        labels=False,
        stick="dot",
        drop=("LEFT_THUMB", "RIGHT_THUMB"),
    ),
    "trail": Style(
        edge="#ffffff", lit="hot", stick="trail", press="fill", width=1.6, body="#20242c", alpha=0.4
    ),
    "bare": Style(
        silhouette=False,
        edge="",
        key="#262b34",
        ink="#c8ced8",
        lit="accent",
        press="recolour",
        labels=False,
        stick="cap",
        drop=("LEFT_TRIGGER", "RIGHT_TRIGGER"),
    ),
    "lean": Style(
        body="plastic",
        edge="accent",
        key="#14161a",
        ink="accent",
        lit="accent",
        press="fill",
        stick="dot",
        width=1.8,
        drop=("BACK", "START", "LEFT_THUMB", "RIGHT_THUMB"),
    ),
    # held out: see HELD_OUT
    "chrome": Style(
        body="#b4bac4",
        edge="#50565f",
        key="#d8dce2",
        ink="#1c2026",
        lit="accent",
        press="recolour",
        look="metal",
        shade=0.3,
        width=1.4,
    ),
    "sketch": Style(
        body="#f6f1e4",
        alpha=0.85,
        edge="#2c2a33",
        ink="#2c2a33",
        lit="hot",
        press="fill",
        look="sketch",
        width=1.2,
        stick="dot",
    ),
    "lcd": Style(
        body="#b4c44c",
        edge="#1c2a12",
        key="#cfdc7c",
        ink="#1c2a12",
        lit="#1c2a12",
        press="recolour",
        look="lcd",
        unit=4,
        width=4,
        labels=False,
        stick="ring",
        panel=True,
    ),
}
# looks that only the templates of these styles have; never trained or tuned on
HELD_OUT = ("chrome", "sketch", "lcd")


# ---- elements: a picture of each state, uint8 [h, w, 4] RGBA -------------------------------------


def room(style):
    """px around an element: PAD, in whole blocks."""
    return -(-PAD // style.unit) * style.unit


def symbol(p, label, cx, cy, size, color, width):
    """A label: letters, or the four shapes of a PlayStation."""
    if label == "SOUTH":
        for a in (size * 0.45, -size * 0.45):
            p.line(
                [(cx - a, cy - size * 0.45), (cx + a, cy + size * 0.45)], color, width, closed=False
            )
    elif label == "EAST":
        p.line(disc(cx, cy, size * 0.52), color, width)
    elif label == "WEST":
        p.line(box(cx, cy, size * 0.9, size * 0.9), color, width)
    elif label == "NORTH":
        p.line(ngon(cx, cy + size * 0.08, size * 0.62, 3), color, width)
    else:
        p.text(label, cx, cy, size, color, width)


def key_picture(shape, w, h, label, hue, size, style, pressed):
    """A button, shoulder or trigger.  shape: function (cx, cy, w, h) -> polygon; hue: its own
    colour, or ""; size: the label's, px.
    """
    pad = room(style)
    p, cx, cy = Picture(w + 2 * pad, h + 2 * pad, style), w / 2 + pad, h / 2 + pad
    body, edge, ink, lit = style.key, style.edge, hue or style.ink, hue or style.lit
    if style.solid and hue:
        body, ink, lit = hue, contrast(hue), style.lit
    sunk, k = (
        max(PAD, style.unit) if style.press == "move" else 0,
        0.76 if pressed and style.press == "shrink" else 1.0,
    )
    if sunk and not pressed:
        side = shape(cx, cy + sunk, w - style.width, h - style.width)
        p.fill(side, darker(body or DIM))
        p.line(side, edge, style.width)
    cy += sunk if pressed else 0
    outline = shape(cx, cy, w * k - style.width, h * k - style.width)
    if pressed:
        body = darker(body or DIM) if style.press == "darken" else lit
        ink, edge = contrast(body), lit if style.press in ("recolour", "glow") else edge
        if style.press == "glow":
            p.glow(outline, lit, 1.6)
    if body:
        p.fill(outline, body, 1.0, -style.shade if pressed else style.shade)
    if edge:
        p.line(outline, edge, style.width)
    if (
        label
        and style.labels
        and (
            style.unit == 1
            or len(label) * 6 * style.unit <= w
            and 8 * style.unit <= h
            or len(label) > 2
        )
    ):
        symbol(p, label, cx, cy, (size or min(w, h) * 0.5) * k, ink, max(1.2, style.width * 0.9))
    return p.rgba()


def stick_picture(side, style, pressed):
    full = side + 2 * room(style)
    p, c, r = Picture(full, full, style), full / 2, side / 2 - style.width / 2
    edge, rest = style.edge or style.ink, style.key or style.ink
    face, mark = (style.lit, contrast(style.lit)) if pressed else (style.key, edge)
    if pressed and style.press == "glow":
        p.glow(disc(c, c, r), style.lit, 1.6)
    if style.stick in ("dot", "trail"):
        r *= 0.55 if style.stick == "trail" else 0.78
        p.fill(disc(c, c, r), style.lit if pressed else edge)
        p.line(disc(c, c, r), edge if pressed else rest, style.width)
        p.fill(disc(c, c, r / 0.78 * 0.2), mark if pressed else rest)
    elif style.stick == "ring":
        p.fill(disc(c, c, r), style.lit if pressed else edge, 1.0 if pressed else 0.25)
        p.line(disc(c, c, r * 0.94), edge, style.width * 1.3)
        p.line(disc(c, c, r * 0.35), mark, style.width)
    else:
        p.fill(disc(c, c, r), face or edge, 1.0 if face else 0.3, style.shade)
        p.line(disc(c, c, r), edge, style.width)
        if style.look == "photo":  # a hollow with a rim around it
            p.fill(disc(c, c, r * 0.7), face, 1.0, -style.shade)
        p.line(disc(c, c, r * 0.62), mark, style.width)
        for t in ngon(c, c, r * 0.8, 4):
            p.fill(disc(*t, 1.2), mark)
    return p.rgba()


def dpad_pictures(side, style):
    """The nine states, in the order of DPAD_STATES."""
    arm, line, w, c, pictures = (
        side * 0.36,
        style.width,
        side + 2 * room(style),
        side / 2 + room(style),
        [],
    )
    k, tint = (
        0.8 if style.press == "shrink" else 1.0,
        darker(style.key or DIM) if style.press == "darken" else style.lit,
    )

    def arms(out, long, wide, r):
        return [
            box(c + x * out, c + y * out, *((long, wide) if x else (wide, long)), r)
            for x, y in WAYS
        ]

    outlines = (
        arms(side * 0.33, side * 0.34 - line, arm - line, arm * 0.25)
        if style.dpad == "split"
        else [cross(c, c, side - line, arm)]
    )
    pressed = arms(
        (side / 2 - line / 2 + arm / 2) / 2, (side / 2 - arm / 2 - line) * k, (arm - line) * k, 1.5
    )
    for dx, dy in DPAD_STATES:
        p, on = Picture(w, w, style), [way in ((dx, 0), (0, dy)) for way in WAYS]
        if style.dpad == "disc":
            p.fill(
                disc(c, c, side / 2 - line / 2),
                darker(style.key or DIM, 0.7),
                1.0 if style.key else 0.3,
                style.shade,
            )
        for outline in outlines if style.key else ():
            p.fill(outline, style.key, 1.0, style.shade)
        for part in compress(pressed, on):
            p.fill(part, tint)
        for outline in outlines if style.edge else ():
            p.line(outline, style.edge, line)
        for (x, y), turn, lit in zip(WAYS, (180, 0, -90, 90), on) if style.labels else ():
            p.fill(
                ngon(c + x * side * 0.36, c + y * side * 0.36, side * 0.075, 3, turn),
                contrast(tint) if lit else style.ink,
            )
        if style.dpad == "cross" and style.unit < 4:
            p.line(disc(c, c, arm * 0.25), style.ink, 1.2, 0.7)
        pictures.append(p.rgba())
    return pictures


def body_picture(L, style, trim):
    """What never changes: the silhouette, the sticks' wells, logos, vents, lines."""
    (w, h), mark, thin = L.size, style.edge or style.ink, max(1.2, style.width * 0.7)
    p = Picture(w, h, style)
    if style.silhouette and (L.body or L.slab >= 0):
        plain = style.panel or not L.body
        outline = (
            box(w / 2, h / 2, w - 3, h - 3, 14 if L.slab < 0 else L.slab)
            if plain
            else smooth(L.body, w)
        )
        if style.body:
            p.fill(outline, style.body, style.alpha, style.shade)
        if style.edge:
            p.line(outline, style.edge, style.width * 1.1)
    for stick in filter(None, (L.left, L.right)):
        r = L.travel + L.cap / 2 - 1
        p.fill(disc(*stick, r), "#000000", 0.30 if style.body or not style.silhouette else 0.12)
        p.line(disc(*stick, r), mark, style.width)
        p.line(disc(*stick, L.travel), mark, 1.0, 0.5)
        for notch in zip(ngon(*stick, r, 8), ngon(*stick, r - 4, 8)):
            p.line(notch, mark, thin, closed=False)
    if style.silhouette:
        decorate(p, trim, mark, thin)
    return p.rgba()


def decorate(p, trim, mark, thin):
    """Ops of `trim` (TRIMS), split by "|": o circle, b box, l polyline, t text; capitals fill; a
    colour may follow, else `mark`.
    """
    for op in filter(None, (t.split() for t in trim.split("|"))):
        color = op.pop() if op[-1][0] == "#" else mark
        word = op.pop(1).replace("_", " ") if op[0] == "t" else ""
        n = [float(v) for v in op[1:]]
        if op[0] == "t" and p.unit > 1:
            continue  # too small for letters
        elif op[0] == "t":
            p.text(word, *n, color, max(1.0, n[2] * 0.17))
        elif op[0] in "lL":
            p.line(np.reshape(n, (-1, 2)), color, thin if op[0] == "l" else 2 * thin, closed=False)
        else:
            shape = disc(*n) if op[0] in "oO" else box(*n)
            p.fill(shape, color) if op[0] in "OB" else p.line(shape, color, thin)


# ---- yours to change: the templates.  name: (layout, style, what differs from the style) ---------

TEMPLATES = {
    "xbox360-light": ("xbox360", "light", dict(hues=XBOX_HUES)),
    "xbox360-dark": ("xbox360", "dark", dict(hues=XBOX_HUES, press="fill")),
    "xbox360-outline": ("xbox360", "outline", dict(stick="ring")),
    "xbox360-minimal": ("xbox360", "minimal", dict(hues=XBOX_HUES)),
    "xboxone-dark": ("xboxone", "dark", dict(hues=XBOX_HUES)),
    "xboxone-light": ("xboxone", "light", dict(press="darken")),
    "xboxone-outline": ("xboxone", "outline", dict()),
    "xboxone-neon": ("xboxone", "neon", dict()),
    "xboxone-flat": ("xboxone", "flat", dict(body="#107c10", key="#0b4d0b", lit="#d8ffd0")),
    "ps3-dark": ("ps3", "dark", dict(hues=PS_HUES, key="#343944")),
    "ps3-outline": ("ps3", "outline", dict(stick="dot", width=1.6)),
    "ps3-minimal": ("ps3", "minimal", dict(press="shrink", stick="cap")),
    "ps4-dark": ("ps4", "dark", dict(hues=PS_HUES, lit="#4aa0ff", press="glow")),
    "ps4-light": ("ps4", "light", dict(press="darken", hues=PS_HUES)),
    "ps4-outline": ("ps4", "outline", dict()),
    "ps4-neon": ("ps4", "neon", dict(edge="#4a7bff", ink="#9ab8ff", lit="#ff5a5a")),
    "ps4-flat": ("ps4", "flat", dict(body="#20367a", key="#101c44", lit="#60d0ff")),
    "ps4-ink": ("ps4", "ink", dict()),
    "ps5-light": ("ps5", "light", dict(lit="#2f6bff")),
    "ps5-dark": ("ps5", "dark", dict(press="fill", lit="#9fd0ff")),
    "ps5-outline": ("ps5", "outline", dict(stick="ring", width=1.8)),
    "ps5-minimal": (
        "ps5",
        "minimal",
        dict(key="#20242c", ink="#f4f4f4", edge="#f4f4f4", lit="#40a0ff"),
    ),
    "switch-dark": ("switch", "dark", dict(press="fill", lit="#ff4554")),
    "switch-light": ("switch", "light", dict(stick="dot", lit="#e60012")),
    "switch-outline": ("switch", "outline", dict()),
    "switch-flat": (
        "switch",
        "flat",
        dict(body="#d8343f", key="#7d161e", lit="#ffffff", ink="#ffe4e4"),
    ),
    "snes-light": (
        "snes",
        "light",
        dict(hues=SNES_HUES, body="#c9c6d3", key="#6b5fa8", ink="#ffffff", press="darken"),
    ),
    "snes-dark": ("snes", "dark", dict(hues=SNES_HUES)),
    "snes-outline": ("snes", "outline", dict()),
    "grid-minimal": ("grid", "minimal", dict(stick="dot")),
    "grid-dark": ("grid", "dark", dict(alpha=0.8, lit="#48e070", labels=True)),
    "grid-outline": ("grid", "outline", dict(labels=False, stick="dot")),
    "keys-flat": ("keys", "flat", dict(edge="#dfe8f0", width=1.4)),
    "keys-neon": ("keys", "neon", dict(edge="#7dff5a", ink="#7dff5a", lit="#ffe23f", press="fill")),
    "keys-light": ("keys", "light", dict(press="shrink", stick="cap", edge="#2a2e36")),
    "arcade-dark": ("arcade", "dark", dict(alpha=0.85, hues=XBOX_HUES, press="fill")),
    "arcade-outline": ("arcade", "outline", dict(press="glow", lit="#ffd23f")),
}


CORE = tuple(TEMPLATES)  # the hand-picked ones, fewer and quicker to draw than all
# layout, the family's colours (see Style), and how the generated templates of it differ from the
# style
FAMILIES = {
    "xbox360": (
        "xbox360",
        dict(
            accent="#7ac943",
            hot="#ffd23f",
            shell="#e6e8ec",
            plastic="#3a3f48",
            pale="#dff2d2",
            deep="#3f7a2a",
        ),
        XBOX_HUES,
        {},
    ),
    "xboxone": (
        "xboxone",
        dict(
            accent="#2fbf4a",
            hot="#ff8a30",
            shell="#2a2d33",
            plastic="#15171b",
            pale="#d5e8f5",
            deep="#1f4a7a",
        ),
        XBOX_HUES,
        {},
    ),
    "xboxseries": (
        "xboxseries",
        dict(
            accent="#35d0c0",
            hot="#e8ff3f",
            shell="#f2f2f0",
            plastic="#22252a",
            pale="#f5ead5",
            deep="#8a4a1f",
        ),
        XBOX_HUES,
        dict(dpad="disc"),
    ),
    "ps3": (
        "ps3",
        dict(
            accent="#c83a4a",
            hot="#ff5a4a",
            shell="#33353c",
            plastic="#191b20",
            pale="#eadff5",
            deep="#5a3a9a",
        ),
        PS_HUES,
        dict(dpad="split"),
    ),
    "ps4": (
        "ps4",
        dict(
            accent="#3a7bff",
            hot="#40e0ff",
            shell="#26282e",
            plastic="#44474f",
            pale="#d8e4fb",
            deep="#27469a",
        ),
        PS_HUES,
        dict(dpad="split"),
    ),
    "ps5": (
        "ps5",
        dict(
            accent="#8a6bff",
            hot="#3a8bff",
            shell="#eef0f4",
            plastic="#30333a",
            pale="#fbe0ea",
            deep="#a02a62",
        ),
        PS_HUES,
        dict(dpad="split"),
    ),
    "switch": (
        "switch",
        dict(
            accent="#ff4554",
            hot="#00d0f0",
            shell="#404349",
            plastic="#1c1d20",
            pale="#ffe0dc",
            deep="#b02028",
        ),
        {"SOUTH": "#f2c230", "EAST": "#e0443e", "WEST": "#6cc24a", "NORTH": "#3f8ae0"},
        {},
    ),
    "gamecube": (
        "gamecube",
        dict(
            accent="#7a62d8",
            hot="#ffa020",
            shell="#5a4fa0",
            plastic="#8f93a8",
            pale="#e2ddf7",
            deep="#4a3f94",
        ),
        {"SOUTH": "#38b48a", "EAST": "#b0b4c0", "WEST": "#e0443e", "NORTH": "#b0b4c0"},
        {},
    ),
    "n64": (
        "n64",
        dict(
            accent="#3fa35a",
            hot="#ff5030",
            shell="#8d9096",
            plastic="#4a4d54",
            pale="#e0ecd8",
            deep="#2c6a4a",
        ),
        {"SOUTH": "#3f6ae0", "WEST": "#3fa35a"},
        {},
    ),
    "snes": (
        "snes",
        dict(
            accent="#8f7fe0",
            hot="#ff6ab0",
            shell="#cfccd6",
            plastic="#5a5470",
            pale="#e9e6f6",
            deep="#54489a",
        ),
        SNES_HUES,
        {},
    ),
    "nes": (
        "nes",
        dict(
            accent="#d8343f",
            hot="#ffc030",
            shell="#c4c2bc",
            plastic="#26262a",
            pale="#f7dcdc",
            deep="#8f2430",
        ),
        {"SOUTH": "#d8343f", "EAST": "#d8343f"},
        {},
    ),
    "grid": (
        "grid",
        dict(
            accent="#30b0f0",
            hot="#60ff70",
            shell="#3c4654",
            plastic="#1d242e",
            pale="#dcecf7",
            deep="#24607f",
        ),
        XBOX_HUES,
        {},
    ),
    "keys": (
        "keys",
        dict(
            accent="#f0a030",
            hot="#ff5a8a",
            shell="#d9d4c8",
            plastic="#4d4a44",
            pale="#f7ead2",
            deep="#96601a",
        ),
        XBOX_HUES,
        {},
    ),
    "arcade": (
        "lever",
        dict(
            accent="#f0c030",
            hot="#3fe0ff",
            shell="#30343c",
            plastic="#c83a3a",
            pale="#fbdfe6",
            deep="#8f2248",
        ),
        XBOX_HUES,
        {},
    ),
    "hitbox": (
        "hitbox",
        dict(
            accent="#20c8a0",
            hot="#ffb03f",
            shell="#454b58",
            plastic="#20262e",
            pale="#d8f3ec",
            deep="#1c7a66",
        ),
        XBOX_HUES,
        {},
    ),
}
RECOLOR = {
    "ink": dict(lit="hot"),
    "dark": dict(lit="hot", edge="accent"),
    "light": dict(lit="deep", press="darken"),
    "flat": dict(body="deep", lit="hot"),
    "minimal": dict(lit="accent"),
    "neon": dict(edge="accent", ink="accent", lit="hot"),
    "outline": dict(lit="pale"),
}
TEMPLATES |= {
    f"{family}-{style}": (layout, style, {**RECOLOR.get(style, {}), **changes})
    for family, (layout, _, _, changes) in FAMILIES.items()
    for style in STYLES
    if f"{family}-{style}" not in CORE
}


# ---- templates: layout x style -> pieces ---------------------------------------------------------


def held_out(name: str) -> bool:
    """Is this built-in template one to validate on?  A seventh of them, three of every family, none
    of CORE.  XFeat never sees them in training; the parser does in its last step (`parse.py train
    --everything`)."""
    return name.rpartition("-")[2] in HELD_OUT


def two_sticks(name: str) -> bool:
    """Does this built-in template show both?"""
    layout = LAYOUTS[TEMPLATES[name][0]]
    return bool(layout.left and layout.right)


def pieces(name: str):
    """((w, h) of the canvas, its elements in drawing order); the same on every machine.

    An element: (fields of render.Element by name, rows of pictures uint8 [h, w, 4] RGBA: idle,
    pressed; of a d-pad one row of nine).
    """
    layout, style, changes = TEMPLATES[name]
    _, colors, hues, _ = FAMILIES[name.split("-")[0]]
    style = replace(STYLES[style], **changes)
    style = replace(
        style,
        **{k: colors[v] for k, v in vars(style).items() if isinstance(v, str) and v in colors},
    )
    return LAYOUTS[layout].size, list(
        elements(
            LAYOUTS[layout], replace(style, hues=hues) if style.solid else style, TRIMS[layout]
        )
    )


def elements(L, style, trim):
    """Every element in every state, on the grid of the style's blocks."""
    gone, pad = L.absent + style.drop, room(style)
    snap = lambda v: round(v / style.unit) * style.unit
    spot = lambda cx, cy, w, h: (snap(cx - w / 2) - pad, snap(cy - h / 2) - pad)
    yield dict(kind="texture", id="", pos=(0, 0)), [[body_picture(L, style, trim)]]
    for id, shape, cx, cy, w, h, label, hue, size in keys(L, style.hues):
        if id not in gone:
            w, h = snap(w), snap(h)
            rows = [[key_picture(shape, w, h, label, hue, size, style, on)] for on in (False, True)]
            yield (
                dict(
                    kind="trigger" if "TRIGGER" in id else "button", id=id, pos=spot(cx, cy, w, h)
                ),
                rows,
            )
    if L.dpad and not L.keys:
        side = snap(L.dpad_side)
        yield dict(kind="dpad", id="", pos=spot(*L.dpad, side, side)), [dpad_pictures(side, style)]
    for id, place in (("LEFT", L.left), ("RIGHT", L.right)):
        if place:
            side, click = snap(L.cap), f"{id}_THUMB" not in gone
            trail = (style.lit, 4.0) if style.stick == "trail" else ()
            rows = [[stick_picture(side, style, on)] for on in (False, True)[: 1 + click]]
            yield (
                dict(
                    kind="stick",
                    id=id,
                    pos=spot(*place, side, side),
                    radius=float(L.travel),
                    click=click,
                    trail=trail,
                ),
                rows,
            )


def keys(L, hues):
    """Buttons, shoulders and triggers: id, shape, centre x, y, w, h, label, own colour or "",
    label's size (0: by the key's).
    """
    pill = lambda cx, cy, w, h: box(cx, cy, w, h, min(w, h) * 0.32)
    coin = lambda cx, cy, w, h: disc(cx, cy, w / 2)
    for kind, place, labels in (
        ("TRIGGER", L.trigger, L.tops[2:]),
        ("SHOULDER", L.shoulder, L.tops[:2]),
    ):
        if place:
            x, y, w, h = place
            for side, cx, label in zip(("LEFT", "RIGHT"), (x, L.size[0] - x), labels):
                yield f"{side}_{kind}", pill, cx, y, w, h, label, "", min(9, h * 0.55)
    for id, place, label in zip(("BACK", "START"), (L.back, L.start), L.small):
        yield id, pill, *place, label.strip(), "", 6
    if L.face:
        for i, (id, dx, dy) in enumerate(
            (("SOUTH", 0, 1), ("WEST", -1, 0), ("EAST", 1, 0), ("NORTH", 0, -1))
        ):
            x, y = L.face[0] + dx * L.face_step, L.face[1] + dy * L.face_step
            yield (
                id,
                coin,
                x,
                y,
                L.face_side,
                L.face_side,
                L.letters[i] if L.letters else id,
                hues.get(id, ""),
                0,
            )
    for id, x, y, side, label in L.spots:
        yield id, coin, x, y, side, side, label, hues.get(id, ""), max(9, side * 0.25)
    if L.dpad and L.keys:
        for id, dx, dy, label in (
            ("UP", 0, -1, "^"),
            ("DOWN", 0, 1, "V"),
            ("LEFT", -1, 0, "<"),
            ("RIGHT", 1, 0, ">"),
        ):
            yield f"DPAD_{id}", pill, L.dpad[0] + dx * 27, L.dpad[1] + dy * 14, 24, 24, label, "", 8
