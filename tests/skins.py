"""Draws the skins in assets/skins: OBS input-overlay presets by code that shares nothing with
extract.py's.

    python tests/skins.py [FOLDER [SHEET.png]]

FOLDER/<family>/<name>.png and .json; SHEET: all of them, idle and pressed.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont

S = 4  # supersampling
EDGE = 4  # px around a picture, for glow and shadow
GAP = 3  # px between an element's states
CODES = {
    "SOUTH": 0,
    "EAST": 1,
    "WEST": 2,
    "NORTH": 3,
    "BACK": 4,
    "START": 6,
    "LEFT_SHOULDER": 9,
    "RIGHT_SHOULDER": 10,
    "DPAD_UP": 11,
    "DPAD_DOWN": 12,
    "DPAD_LEFT": 13,
    "DPAD_RIGHT": 14,
}  # SDL_GamepadButton
WAYS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1))


def mask(w, h, *shapes, k=S):
    """Union of shapes in px: ("e", x0, y0, x1, y1), ("r", x0, y0, x1, y1, radius), ("p", x, y, x,
    y, ...).
    """
    out = Image.new("L", (round(w * k), round(h * k)))
    d = ImageDraw.Draw(out)
    for kind, *v in shapes:
        v = [c * k for c in v]
        if kind == "e":
            d.ellipse([v[0], v[1], v[2] - 1, v[3] - 1], 255)
        elif kind == "r":
            d.rounded_rectangle([v[0], v[1], v[2] - 1, v[3] - 1], v[4], 255)
        else:
            d.polygon(list(zip(v[::2], v[1::2], strict=True)), 255)
    return out


def rim(m, width):
    """The band of `width` px inside the mask's edge."""
    n = max(1, round(width))
    inner = cv2.erode(
        np.array(m),
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * n + 1, 2 * n + 1)),
        borderValue=0,
    )
    return ImageChops.subtract(m, Image.fromarray(inner))


def plain(m, color, alpha=1.0):
    out = Image.new("RGBA", m.size, color)
    out.putalpha(m.point(lambda v: int(v * alpha)))
    return out


def photo(m, color, seed, light=1.0):
    """As lit from above, with grain, a dark edge and a soft highlight."""
    w, h = m.size
    rng = np.random.default_rng(seed)
    grain = cv2.resize(
        rng.normal(0, 9, (h // S + 1, w // S + 1)).astype(np.float32), (w, h)
    ) + cv2.resize(
        rng.normal(0, 14, (6, 9)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC
    )
    inside = np.array(m.filter(ImageFilter.GaussianBlur(S * 3)), np.float32) / 255
    shade = np.linspace(1.3, 0.65, h)[:, None] * (0.45 + 0.55 * inside.clip(0.4, 1)) * light
    spot = (
        70
        * np.exp(-(((np.arange(w) - 0.38 * w) / (0.22 * w)) ** 2))[None]
        * np.exp(-(((np.arange(h) - 0.2 * h) / (0.16 * h)) ** 2))[:, None]
    )
    rgb = (
        np.float32(ImageColor.getrgb(color)) * shade[..., None] + (grain + spot * light)[..., None]
    )
    out = Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).convert("RGBA")
    out.putalpha(m)
    return out


def wood(m, seed):
    """Boards with grain, for an arcade stick's panel."""
    w, h = m.size
    rng = np.random.default_rng(seed)
    rings = np.sin(
        np.cumsum(rng.uniform(0.02, 0.16, h))[:, None] + 2.5 * np.sin(np.arange(w) / w * 5)[None]
    )
    rgb = np.array([132, 84, 46]) + rings[..., None] * [16, 12, 8] + rng.normal(0, 4, (h, w, 1))
    rgb[:, :: max(1, w // 4)] *= 0.4
    out = Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).convert("RGBA")
    out.putalpha(m)
    return out


def label(picture, text, color, size, k=S):
    if text:
        font = ImageFont.load_default(size * k)
        box = font.getbbox(text)
        at = [(picture.width - box[0] - box[2]) / 2, (picture.height - box[1] - box[3]) / 2]
        ImageDraw.Draw(picture).text(at, text, color, font)


class Skin:
    """One preset under construction.  `look` says how things are drawn: line, flat, photo, neon,
    pixel or bare.
    """

    def __init__(self, name, size, look, ink, lit, hues=(), k=S):
        self.name, self.size, self.look, self.ink, self.lit, self.hues, self.k, self.elements = (
            name,
            size,
            look,
            ink,
            lit,
            dict(hues),
            k,
            [],
        )

    def paint(self, m, color, down, seed=1):
        k, out = self.k, Image.new("RGBA", m.size)
        if self.look == "line":
            out.alpha_composite(plain(m, self.lit, 0.95)) if down else None
            out.alpha_composite(plain(rim(m, 1.8 * k), self.ink))
        elif self.look == "neon":
            glow = (m if down else rim(m, 3 * k)).filter(ImageFilter.GaussianBlur(1.6 * k))
            out.alpha_composite(plain(glow, self.lit if down else color, 0.9))
            out.alpha_composite(plain(m if down else rim(m, 1.4 * k), "#ffffff" if down else color))
        elif self.look == "photo":
            out.alpha_composite(plain(m.filter(ImageFilter.GaussianBlur(1.5 * k)), "#000000", 0.6))
            out.alpha_composite(
                photo(
                    m,
                    self.lit if down and self.lit else color,
                    seed,
                    0.5 if down and not self.lit else 1.0,
                )
            )
        elif self.look == "bare":
            out.alpha_composite(plain(m, self.lit if down else color, 1.0 if down else 0.35))
            out.alpha_composite(plain(rim(m, 1.2 * k), self.ink, 0.8))
        else:  # flat, pixel
            out.alpha_composite(plain(m, self.lit if down else color))
            if self.look == "pixel":
                out.alpha_composite(
                    plain(
                        ImageChops.subtract(m, ImageChops.offset(m, 0, 1)),
                        "#ffffff",
                        0.0 if down else 0.55,
                    )
                )
                out.alpha_composite(plain(rim(m, 1), "#1a1423"))
        return out

    def shrink(self, picture):
        return (
            picture
            if self.k == 1
            else picture.resize((picture.width // self.k, picture.height // self.k), Image.BOX)
        )

    def add(self, kind, cx, cy, states, across=False, **fields):
        states = [self.shrink(s) for s in states]
        w, h = states[0].size
        self.elements.append(
            (
                {"type": kind, "pos": [round(cx - w / 2), round(cy - h / 2)], **fields},
                states,
                across,
            )
        )

    def texture(self, picture):
        self.add(0, self.size[0] / 2, self.size[1] / 2, [picture], id="body")

    def body(self, *shapes, color="#333333", seed=5, alpha=1.0, wells=()):
        w, h = self.size
        m, k = mask(w, h, *shapes, k=self.k), self.k
        if k > 1 and len(shapes) > 1:  # round where the shapes meet
            m = m.filter(ImageFilter.GaussianBlur(7 * k)).point(lambda v: 255 * (v > 127))
        if self.look in ("line", "neon"):
            out = self.paint(m, color, False)
        elif self.look == "photo":
            out = photo(m, color, seed)
        else:
            out = plain(m, color, alpha)
            out.alpha_composite(plain(rim(m, 2 * k if k > 1 else 1), self.ink))
        for x, y, r in wells:
            well = mask(w, h, ("e", x - r, y - r, x + r, y + r), k=k)
            out.alpha_composite(plain(well, "#000000", 0.0 if self.look == "line" else 0.4))
            out.alpha_composite(
                plain(
                    rim(well, max(1, 1.5 * k)), self.ink if self.look != "photo" else "#101010", 0.8
                )
            )
        self.texture(out)

    def key(self, id, cx, cy, w, h=None, text="", round_=1.0, down_by=0, size=0):
        """A button or a trigger; round_: 1 an ellipse, below that a rectangle with such corners."""
        h, e = h or w, EDGE if self.k > 1 else 0
        states, color = [], self.hues.get(id, self.hues.get("", "#888888"))
        for down in (False, True):
            y = e + down_by * down
            shape = (
                ("e", e, y, e + w, y + h)
                if round_ == 1
                else ("r", e, y, e + w, y + h, round_ * min(w, h) / 2)
            )
            picture = self.paint(
                mask(w + 2 * e, h + 2 * e, shape, k=self.k), color, down, hash_of(id)
            )
            bright = sum(ImageColor.getrgb(color)) > 420
            dark = (
                self.look in ("line", "bare") and down or self.look in ("flat", "photo") and bright
            )
            label(
                picture,
                text,
                "#14161a" if dark else "#ffffff" if self.look != "line" else self.ink,
                size or min(w, h) * 0.5,
                self.k,
            )
            states.append(picture)
        trigger = "TRIGGER" in id
        fields = (
            {"side": int("RIGHT" in id), "trigger_mode": True} if trigger else {"code": CODES[id]}
        )
        self.add(6 if trigger else 2, cx, cy, states, id=id.lower(), **fields)

    def stick(self, side, cx, cy, r, travel, kind="cap"):
        e = EDGE if self.k > 1 else 0
        states, n, c = [], 2 * (r + e), r + e
        for down in (False, True):
            disc = mask(n, n, ("e", c - r, c - r, c + r, c + r), k=self.k)
            color = self.hues.get("STICK", self.hues.get("", "#888888"))
            if kind == "ring":
                picture = plain(
                    rim(disc, r * 0.35 * self.k), self.lit or "#ffffff" if down else color
                )
            elif kind == "dot":
                picture = plain(disc, self.lit or "#ffffff" if down else color)
            else:
                picture = self.paint(disc, color, down, 7)
                dish = mask(
                    n, n, ("e", c - r * 0.6, c - r * 0.6, c + r * 0.6, c + r * 0.6), k=self.k
                )
                picture.alpha_composite(plain(rim(dish, max(1, 1.5 * self.k)), self.ink, 0.7))
            states.append(picture)
        self.add(
            5,
            cx,
            cy,
            states,
            id=f"{side.lower()}_stick",
            side=int(side == "RIGHT"),
            stick_radius=travel,
        )

    def dpad(self, cx, cy, side, arm, gap=0.0):
        """Nine states of one element: four arms, `gap` px from the middle, and the middle where
        there is no gap.
        """
        e = EDGE if self.k > 1 else 0
        n, c, s, a = side + 2 * e, side / 2 + e, side / 2, arm / 2
        arms = {
            (-1, 0): ("r", c - s, c - a, c - gap, c + a, arm * 0.2),
            (1, 0): ("r", c + gap, c - a, c + s, c + a, arm * 0.2),
            (0, -1): ("r", c - a, c - s, c + a, c - gap, arm * 0.2),
            (0, 1): ("r", c - a, c + gap, c + a, c + s, arm * 0.2),
        }
        color, states = self.hues.get("DPAD", self.hues.get("", "#888888")), []
        for dx, dy in WAYS:
            picture = Image.new("RGBA", (round(n * self.k),) * 2)
            groups = [[v] for v in arms.values()] if gap else [list(arms.values())]
            for g in groups:
                picture.alpha_composite(self.paint(mask(n, n, *g, k=self.k), color, False, 3))
            for way, shape in arms.items():
                if way in ((dx, 0), (0, dy)):
                    picture.alpha_composite(self.paint(mask(n, n, shape, k=self.k), color, True, 3))
            states.append(picture)
        self.add(8, cx, cy, states, True, id="dpad")

    def face(self, cx, cy, step, w, texts="AXBY", **more):
        places = (("SOUTH", 0, 1), ("WEST", -1, 0), ("EAST", 1, 0), ("NORTH", 0, -1))
        for (id, dx, dy), text in zip(places, texts, strict=True):
            self.key(id, cx + dx * step, cy + dy * step, w, text=text, **more)

    def tops(self, y, step, dx, w, h, texts=("LB", "RB", "LT", "RT"), round_=0.6):
        W = self.size[0]
        for id, x, yy, text in (
            ("LEFT_SHOULDER", dx, y, texts[0]),
            ("RIGHT_SHOULDER", W - dx, y, texts[1]),
            ("LEFT_TRIGGER", dx, y - step, texts[2]),
            ("RIGHT_TRIGGER", W - dx, y - step, texts[3]),
        ):
            self.key(id, x, yy, w, h, text, round_, size=h * 0.62)

    def small(self, x, y, w, h, texts=("", "")):
        for id, sign, text in (("BACK", -1, texts[0]), ("START", 1, texts[1])):
            self.key(id, self.size[0] / 2 + sign * x, y, w, h, text, 0.7)

    def save(self, folder):
        """The atlas and its layout."""
        x = y = row = 0
        placed = []
        for fields, states, across in self.elements:
            w, h = states[0].size
            full = (len(states) * (w + GAP), h) if across else (w, len(states) * (h + GAP))
            if x and x + full[0] > 620:
                x, y, row = 0, y + row + GAP, 0
            placed.append((fields, states, across, x, y))
            x, row = x + full[0] + GAP, max(row, full[1])
        atlas = Image.new(
            "RGBA",
            (max(p[3] + p[1][0].width * (9 if p[2] else 1) + GAP * 9 for p in placed), y + row),
        )
        elements = []
        for fields, states, across, x, y in placed:
            w, h = states[0].size
            for i, state in enumerate(states):
                atlas.paste(state, (x + i * (w + GAP), y) if across else (x, y + i * (h + GAP)))
            elements.append({**fields, "mapping": [x, y, w, h], "z_level": 1})
        path = Path(folder) / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        atlas.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path.with_suffix(".png"), optimize=True
        )
        layout = {
            "overlay_width": self.size[0],
            "overlay_height": self.size[1],
            "flags": 2,
            "elements": elements,
        }
        path.with_suffix(".json").write_text(json.dumps(layout) + "\n")
        (path.parent / "nitrogen.json").write_text(json.dumps({"family": path.parent.name}) + "\n")

    def preview(self, pressed):
        out = Image.new("RGBA", self.size, "#6a7480")
        for fields, states, across in self.elements:
            n = 8 if across else 1
            at = [p + (8 if pressed and fields["type"] == 5 else 0) for p in fields["pos"]]
            out.alpha_composite(
                states[n if pressed and len(states) > 1 else 0], (max(0, at[0]), max(0, at[1]))
            )
        return out


def hash_of(text):
    return sum(map(ord, text))


def pad(w, h, waist=0.62, grip=0.24):
    """A gamepad's silhouette: a slab and two slanted grips."""
    g = grip * w
    return (
        ("r", 0.1 * w, 0.16 * h, 0.9 * w, (waist + 0.1) * h, 0.16 * w),
        ("e", 0.02 * w, 0.16 * h, 0.02 * w + 1.45 * g, waist * h + 0.12 * h),
        ("e", 0.98 * w - 1.45 * g, 0.16 * h, 0.98 * w, waist * h + 0.12 * h),
        (
            "p",
            0.03 * w,
            0.42 * h,
            0.34 * w,
            0.62 * h,
            0.2 * w,
            0.97 * h,
            0.05 * w,
            0.98 * h,
            0.01 * w,
            0.85 * h,
        ),
        (
            "p",
            0.97 * w,
            0.42 * h,
            0.66 * w,
            0.62 * h,
            0.8 * w,
            0.97 * h,
            0.95 * w,
            0.98 * h,
            0.99 * w,
            0.85 * h,
        ),
    )


CANDY = {"SOUTH": "#58c472", "EAST": "#e8565a", "WEST": "#4a8fe8", "NORTH": "#f2c545"}


def skins():
    """Eleven of them, by look: outlines, flat, photo-like, neon, pixel art, bare grids."""
    s = Skin("ps4/chalk", (360, 250), "line", "#f4f1e6", "#f4f1e6", {"STICK": "#f4f1e6"})
    s.body(*pad(360, 250), wells=((130, 150, 36), (230, 150, 36)))
    s.dpad(68, 98, 58, 19, 7)
    s.face(292, 98, 27, 25, ("x", "[]", "o", "^"))
    s.tops(30, 22, 74, 58, 15, ("L1", "R1", "L2", "R2"))
    s.small(58, 74, 12, 22)
    s.stick("LEFT", 130, 150, 20, 16, "ring")
    s.stick("RIGHT", 230, 150, 20, 16, "ring")
    yield s
    s = Skin(
        "xbox360/tangerine",
        (340, 240),
        "flat",
        "#5a2308",
        "#fff3c4",
        {"": "#7c3510", "STICK": "#ffd9a8", **CANDY},
    )
    s.body(*pad(340, 240, 0.66, 0.22), color="#f58231", wells=((74, 92, 32), (212, 142, 32)))
    s.dpad(128, 142, 54, 18)
    s.face(268, 92, 25, 24)
    s.tops(28, 20, 78, 66, 15)
    s.small(26, 92, 18, 12)
    s.stick("LEFT", 74, 92, 18, 15)
    s.stick("RIGHT", 212, 142, 18, 15)
    yield s
    s = Skin(
        "ps5/porcelain",
        (380, 260),
        "photo",
        "#202020",
        "",
        {"": "#50555e", "STICK": "#2a2c30", "DPAD": "#c8ccd4"},
    )
    s.body(*pad(380, 260, 0.6), color="#d6dae0", wells=((136, 152, 34), (244, 152, 34)))
    s.dpad(70, 102, 60, 20, 8)
    s.face(310, 102, 29, 25, ("x", "[]", "o", "^"))
    s.tops(30, 21, 78, 62, 16, ("L1", "R1", "L2", "R2"))
    s.small(70, 70, 12, 22)
    s.stick("LEFT", 136, 152, 23, 17)
    s.stick("RIGHT", 244, 152, 23, 17)
    yield s
    s = Skin(
        "xboxone/carbon",
        (340, 236),
        "photo",
        "#0c0c0c",
        "#d8ff5a",
        {"": "#3c4046", "STICK": "#24262a", **CANDY},
    )
    s.body(*pad(340, 236, 0.66), color="#34373c", seed=9, wells=((72, 90, 31), (214, 140, 31)))
    s.dpad(126, 140, 52, 17)
    s.face(268, 90, 26, 25)
    s.tops(26, 19, 76, 64, 15)
    s.small(24, 90, 15, 15)
    s.stick("LEFT", 72, 90, 21, 15)
    s.stick("RIGHT", 214, 140, 21, 15)
    yield s
    s = Skin(
        "xboxseries/tube",
        (340, 230),
        "neon",
        "#ff4fd8",
        "#fff15a",
        {"": "#ff4fd8", "STICK": "#5af2ff", "DPAD": "#5af2ff"},
    )
    s.body(*pad(340, 230, 0.64), color="#8a6bff", wells=((74, 88, 30), (212, 134, 30)))
    s.dpad(128, 134, 52, 18)
    s.face(266, 88, 26, 24)
    s.tops(26, 19, 78, 62, 14)
    s.small(24, 88, 18, 11)
    s.stick("LEFT", 74, 88, 16, 15, "ring")
    s.stick("RIGHT", 212, 134, 16, 15, "ring")
    yield s
    s = Skin(
        "snes/cartridge",
        (120, 56),
        "pixel",
        "#1a1423",
        "#fff6d3",
        {"": "#6b6480", "DPAD": "#453f5a", **CANDY},
        k=1,
    )
    s.body(("e", 0, 6, 54, 56), ("e", 66, 6, 120, 56), ("r", 20, 8, 100, 46, 4), color="#c9c2d6")
    s.dpad(26, 31, 27, 9)
    s.face(94, 31, 12, 11, "    ")
    s.small(8, 36, 11, 5)
    s.key("LEFT_SHOULDER", 26, 4, 32, 7, round_=0.5)
    s.key("RIGHT_SHOULDER", 94, 4, 32, 7, round_=0.5)
    yield s
    s = Skin(
        "keys/cubes",
        (118, 68),
        "pixel",
        "#1a1423",
        "#ff5277",
        {"": "#4f7cac", "STICK": "#e0e0e0", **CANDY},
        k=1,
    )
    for id, x, y in (
        ("DPAD_UP", 26, 26),
        ("DPAD_LEFT", 9, 43),
        ("DPAD_DOWN", 26, 43),
        ("DPAD_RIGHT", 43, 43),
        ("NORTH", 91, 26),
        ("WEST", 74, 43),
        ("EAST", 108, 43),
        ("SOUTH", 91, 59),
        ("LEFT_SHOULDER", 26, 8),
        ("RIGHT_SHOULDER", 91, 8),
        ("BACK", 51, 8),
        ("START", 66, 8),
        ("LEFT_TRIGGER", 9, 8),
        ("RIGHT_TRIGGER", 108, 8),
    ):
        s.key(id, x, y, 15, round_=0.2)
    s.stick("LEFT", 58, 27, 5, 4, "dot")
    s.stick("RIGHT", 58, 58, 5, 4, "dot")
    yield s
    s = Skin(
        "grid/frost", (330, 130), "bare", "#ffffff", "#ffffff", {"": "#dfefff", "STICK": "#ffffff"}
    )
    for id, x, y in (
        ("DPAD_UP", 140, 49),
        ("DPAD_LEFT", 104, 85),
        ("DPAD_DOWN", 140, 85),
        ("DPAD_RIGHT", 176, 85),
        ("LEFT_SHOULDER", 104, 49),
        ("RIGHT_SHOULDER", 176, 49),
        ("WEST", 216, 67),
        ("NORTH", 252, 49),
        ("SOUTH", 252, 85),
        ("EAST", 288, 67),
        ("BACK", 216, 31),
        ("START", 288, 31),
        ("LEFT_TRIGGER", 216, 103),
        ("RIGHT_TRIGGER", 288, 103),
    ):
        s.key(id, x, y, 32, round_=0.25)
    s.add(
        0, 46, 66, [plain(rim(mask(84, 84, ("r", 0, 0, 84, 84, 6)), 6), "#ffffff", 0.9)], id="well"
    )
    s.stick("LEFT", 46, 66, 11, 30, "dot")
    yield s
    yellow = dict.fromkeys(("NORTH", "WEST", "RIGHT_SHOULDER", "LEFT_SHOULDER"), "#e8c83a")
    s = Skin(
        "arcade/cabinet",
        (360, 190),
        "photo",
        "#1c1208",
        "",
        {"": "#d83a34", "STICK": "#c22a2a", "BACK": "#f0f0f0", "START": "#f0f0f0", **yellow},
    )
    panel = wood(mask(360, 190, ("r", 2, 2, 358, 188, 12)), 3)
    panel.alpha_composite(plain(rim(mask(360, 190, ("r", 2, 2, 358, 188, 12)), 14), "#20140a", 0.9))
    panel.alpha_composite(plain(mask(360, 190, ("e", 52, 66, 132, 146)), "#0c0c0c", 0.75))
    s.texture(panel)
    columns = (
        ("WEST", "SOUTH"),
        ("NORTH", "EAST"),
        ("RIGHT_SHOULDER", "RIGHT_TRIGGER"),
        ("LEFT_SHOULDER", "LEFT_TRIGGER"),
    )
    for k, (top, low) in enumerate(columns):
        s.key(top, 178 + 46 * k, 84 - (0, 16, 16, 8)[k], 38, down_by=3)
        s.key(low, 172 + 46 * k, 132 - (0, 16, 16, 8)[k], 38, down_by=3)
    s.key("BACK", 40, 28, 18, down_by=2)
    s.key("START", 70, 28, 18, down_by=2)
    s.stick("LEFT", 92, 106, 26, 22)
    yield s
    s = Skin(
        "hitbox/slate",
        (350, 180),
        "flat",
        "#9fb4c8",
        "#ff9f1c",
        {"": "#35566f", "DPAD_UP": "#c8553d", "DPAD_DOWN": "#35566f"},
    )
    s.body(("r", 2, 2, 348, 178, 22), color="#1b2a38", alpha=0.92)
    for id, x, y, w in (
        ("DPAD_LEFT", 46, 70, 34),
        ("DPAD_DOWN", 86, 66, 34),
        ("DPAD_RIGHT", 122, 86, 34),
        ("DPAD_UP", 160, 142, 44),
        ("WEST", 176, 78, 34),
        ("NORTH", 214, 62, 34),
        ("RIGHT_SHOULDER", 254, 62, 34),
        ("LEFT_SHOULDER", 294, 70, 34),
        ("SOUTH", 180, 104, 34),
        ("EAST", 218, 102, 34),
        ("RIGHT_TRIGGER", 258, 102, 34),
        ("LEFT_TRIGGER", 298, 110, 34),
        ("BACK", 40, 24, 14),
        ("START", 64, 24, 14),
    ):
        s.key(
            id,
            x,
            y + 6,
            w,
            text={
                "WEST": "X",
                "NORTH": "Y",
                "SOUTH": "A",
                "EAST": "B",
                "RIGHT_SHOULDER": "RB",
                "LEFT_SHOULDER": "LB",
                "RIGHT_TRIGGER": "RT",
                "LEFT_TRIGGER": "LT",
            }.get(id, ""),
            size=12,
        )
    yield s
    s = Skin(
        "gamecube/grape",
        (350, 240),
        "flat",
        "#2d1e5f",
        "#ffffff",
        {
            "": "#cfc8e8",
            "SOUTH": "#2fc48d",
            "EAST": "#e5484d",
            "STICK": "#d9d4ea",
            "DPAD": "#b9b2d4",
            "START": "#e8e4f4",
            "BACK": "#5f4bb6",
        },
    )
    s.body(*pad(350, 240, 0.68, 0.25), color="#6a55c2", wells=((78, 96, 34), (222, 156, 26)))
    s.stick("LEFT", 78, 96, 21, 14)
    s.dpad(128, 156, 44, 15)
    s.key("START", 175, 96, 16)
    s.key("SOUTH", 272, 96, 38, text="A")
    s.key("WEST", 240, 116, 24, text="B")
    s.key("EAST", 306, 84, 20, 34, "X")
    s.key("NORTH", 262, 60, 34, 20, "Y")
    s.stick("RIGHT", 222, 156, 14, 11, "dot")
    s.tops(26, 19, 80, 70, 15, ("", "Z", "L", "R"))
    yield s


def main(folder):
    shown = []
    for s in skins():
        s.save(folder)
        k = max(1, 320 // s.size[0])
        shown.append(
            [
                s.preview(p).resize((s.size[0] * k, s.size[1] * k), Image.NEAREST)
                for p in (False, True)
            ]
        )
    sheet = Image.new("RGB", (2 * 2 * 390, 270 * -(-len(shown) // 2)), "#6a7480")
    for i, pair in enumerate(shown):
        for j, picture in enumerate(pair):
            sheet.paste(picture.convert("RGB"), ((i % 2 * 2 + j) * 390, i // 2 * 270))
    return sheet


if __name__ == "__main__":
    sheet = main(
        sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "assets/skins"
    )
    if len(sys.argv) > 2:
        sheet.save(sys.argv[2])
