"""templates/pads.py: the 315 built-in controller overlays, drawn by code in the form of the skins
that streamers publish.

`pieces(name)` gives a template's canvas and, for each element, its fields and a picture of each of
its states.  library.py packs them into an atlas; from there on they are a skin like any other.
A name is a controller (LAYOUTS: where things are) and a style (STYLES: how they are drawn), as in
"ps4-neon".

All is in px of the canvas, x right, y down; angles are in degrees; colours are "#rrggbb".
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field, replace
from itertools import compress

from templates.shapes import Picture, box, coin, cross, disc, ngon, pill, rgb, smooth

PAD = 3  # px around each drawn element, for its glow and its anti-aliasing
WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # x, y: left, right, up, down
# x, y: the order of a d-pad's pictures, as in OBS presets
DPAD_STATES = ((0, 0), *WAYS, (-1, -1), (1, -1), (-1, 1), (1, 1))
# name, and where it is from the middle, x, y
DIAMOND = (("SOUTH", 0, 1), ("WEST", -1, 0), ("EAST", 1, 0), ("NORTH", 0, -1))
PS_SHAPES = tuple(name for name, _, _ in DIAMOND)  # a PlayStation's labels: see symbol()
ARROW_KEYS = (
    ("DPAD_UP", 0, -1, "^"),
    ("DPAD_DOWN", 0, 1, "V"),
    ("DPAD_LEFT", -1, 0, "<"),
    ("DPAD_RIGHT", 1, 0, ">"),
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


# fmt: off
# the left half of each body's outline, from the top to the bottom
XBOX = ((150, 46), (112, 46), (84, 38), (52, 44), (30, 72), (14, 126), (8, 180), (22, 212),
    (44, 208), (70, 182), (104, 176), (150, 176))
ONE = ((150, 42), (110, 42), (70, 40), (44, 50), (28, 82), (12, 140), (8, 186), (18, 210),
    (38, 212), (60, 194), (84, 178), (112, 174), (150, 174))
DUAL = ((150, 48), (104, 48), (88, 40), (40, 40), (22, 52), (14, 90), (6, 160), (10, 204),
    (32, 212), (54, 190), (76, 174), (106, 176), (130, 168), (150, 166))
SENSE = ((150, 40), (100, 40), (54, 40), (26, 54), (14, 100), (4, 160), (8, 208), (26, 216),
    (46, 196), (66, 176), (100, 174), (150, 174))
PRO = ((150, 46), (100, 42), (60, 40), (34, 54), (20, 92), (8, 150), (10, 196), (28, 212),
    (46, 202), (66, 176), (100, 172), (150, 172))
BONE = ((150, 38), (96, 36), (58, 26), (20, 46), (6, 90), (20, 132), (62, 152), (100, 140),
    (126, 134), (150, 134))
SERIES = ((150, 44), (112, 42), (76, 36), (46, 50), (24, 88), (10, 146), (10, 192), (26, 212),
    (48, 200), (72, 180), (96, 178), (150, 178))
CUBE = ((150, 46), (112, 50), (72, 40), (36, 50), (18, 84), (18, 124), (28, 154), (26, 192),
    (40, 212), (58, 202), (72, 176), (92, 190), (122, 194), (142, 178), (150, 176))
TRIDENT = ((150, 52), (112, 44), (62, 46), (24, 72), (10, 116), (12, 172), (26, 206), (44, 204),
    (58, 166), (82, 144), (106, 150), (120, 188), (142, 212), (152, 214))
TRIMS = {  # what decorates a body: see decorate()
    "xbox360": "o 160 74 15 | O 160 74 11 #8fd14f | L 153 68 160 74 153 80 #ffffff | "
        "L 167 68 160 74 167 80 #ffffff | o 248 84 41 | o 118 134 32 | t 360 158 105 6 | "
        "l 36 100 24 150 26 196 | l 284 100 296 150 294 196 | l 140 162 180 162",
    "xboxone": "O 160 62 12 #f4f6f8 | L 154 56 166 68 #1d2027 | L 166 56 154 68 #1d2027 | "
        "l 110 44 134 74 186 74 210 44 | b 118 134 64 64 12 | l 48 108 36 150 | "
        "l 42 106 30 150 | l 54 110 42 150 | l 272 108 284 150 | l 278 106 290 150 | "
        "l 266 110 278 150 | t ONE 160 100 6",
    "ps3": "t SELECT 134 72 6 | t START 186 72 6 | o 160 112 10 | t PS 160 112 8 | o 56 82 36 | "
        "o 264 82 41 | B 148 56 4 4 0 #e04848 | b 156 56 4 4 0 | b 164 56 4 4 0 | "
        "b 172 56 4 4 0 | l 30 130 24 180 20 204 | l 290 130 296 180 300 204",
    "ps4": "b 160 74 96 46 7 | B 160 51 90 4 2 #3a8bff | o 148 104 1 | o 154 104 1 | "
        "o 160 104 1 | o 166 104 1 | o 172 104 1 | o 148 109 1 | o 154 109 1 | o 160 109 1 | "
        "o 166 109 1 | o 172 109 1 | o 160 126 8 | t PS 160 126 6 | o 56 84 39 | o 264 84 42 | "
        "l 20 120 40 120 58 150 52 184 | l 300 120 280 120 262 150 268 184",
    "ps5": "L 106 42 112 84 122 92 198 92 208 84 214 42 | l 28 60 60 122 78 170 | "
        "l 292 60 260 122 242 170 | B 160 103 26 5 2.5 #e8a040 | t PS 160 122 9 | "
        "L 148 146 172 146 | O 152 156 1.6 | O 160 156 1.6 | O 168 156 1.6 | l 124 48 196 48 | "
        "l 22 120 40 150 40 196 | l 298 120 280 150 280 196",
    "switch": "b 142 88 13 13 2 | o 142 88 3.4 | o 178 88 8 | "
        "l 173 89 178 84 183 89 181 93 175 93 173 89 | l 92 44 108 60 112 98 | "
        "l 228 44 212 60 208 98 | t SWITCH 160 104 6 | o 116 132 33 | l 24 100 48 140 44 198 | "
        "l 296 100 272 140 276 198 | L 34 120 44 124 | L 286 120 276 124",
    "snes": "o 64 90 48 | o 254 90 53 | l 224 101 257 68 | l 251 112 284 79 | "
        "l 224 101 240 115 | l 268 65 284 79 | t SUPER 155 56 9 | t SELECT 133 116 5 | "
        "t START 178 116 5 | l 118 70 192 70 | O 130 128 1.5 | O 136 128 1.5 | O 142 128 1.5",
    "grid": "b 46 92 76 76 4 | b 274 92 76 76 4 | l 8 92 84 92 | l 46 54 46 130 | "
        "l 236 92 312 92 | l 274 54 274 130 | l 162 42 162 128",
    "keys": "b 52 136 88 88 6 | b 268 138 88 88 6 | t L 16 102 8 | t R 304 104 8 | "
        "t MOVE 122 128 6 | t CAM 204 128 6 | l 104 150 216 150 | l 104 158 216 158 | "
        "l 104 166 216 166 | o 252 52 39 | t PAD 160 178 8",
    "arcade": "l 16 46 120 46 150 28 304 28 | t ARCADE 250 148 10 | "
        "l 20 150 120 150 140 132 216 132 | o 12 12 4 | o 308 12 4 | o 12 158 4 | o 308 158 4 | "
        "l 10 10 14 14 | l 306 10 310 14 | l 10 156 14 160 | l 306 156 310 160 | "
        "b 138 138 46 46 23",
    "xboxseries": "O 160 62 11 #f4f6f8 | L 155 57 165 67 #1d2027 | L 165 57 155 67 #1d2027 | "
        "o 118 134 32 | o 252 86 43 | b 160 105 18 11 3 | l 44 112 30 160 | l 50 116 38 162 | "
        "l 276 112 290 160 | l 270 116 282 162",
    "gamecube": "o 160 58 8 | o 250 92 50 | o 116 154 30 | l 92 60 120 70 200 70 214 60 | "
        "l 26 152 44 170 | l 294 152 276 170 | o 160 120 6",
    "n64": "o 268 80 9 #f2c230 | o 252 96 9 #f2c230 | o 284 96 9 #f2c230 | o 268 112 9 #f2c230 | "
        "t C 268 96 6 | l 118 60 128 116 | l 202 60 192 116 | o 62 96 36 | l 28 130 30 180 | "
        "l 292 130 290 180",
    "nes": "b 160 93 86 62 5 | l 110 40 210 40 | l 110 48 210 48 | l 110 56 210 56 | "
        "b 226 92 44 44 5 | b 274 92 44 44 5 | t SELECT 134 76 6 | t START 186 76 6 | "
        "b 62 84 78 78 8 | t PAD 278 50 9",
    "lever": "l 16 40 304 40 | t ARCADE 262 24 9 | o 12 12 4 | o 308 12 4 | o 12 158 4 | "
        "o 308 158 4 | o 72 98 52 | l 20 154 48 154 | l 96 154 124 154 | l 134 152 300 152",
    "hitbox": "b 80 84 132 52 18 | o 160 146 26 | l 130 30 304 30 | t HITBOX 266 18 9 | "
        "o 12 12 4 | o 308 12 4 | o 12 168 4 | o 308 168 4 | l 206 160 300 160 | "
        "l 206 154 300 154",
}

PLAYSTATION = dict(letters="", small="  ", tops=("L1", "R1", "L2", "R2"))
PANEL = dict(right=None, dpad=None, face=None, shoulder=None, trigger=None)
LAYOUTS = {
    "xbox360": Layout(body=XBOX),
    "xboxone": Layout(body=ONE, left=(70, 82), face=(250, 82), back=(142, 90, 14, 14),
        start=(178, 90, 14, 14), small=" ="),
    "ps3": Layout(**PLAYSTATION, body=DUAL, left=(118, 136), right=(202, 136), dpad=(56, 82),
        dpad_side=52, face=(264, 82), back=(138, 84, 18, 11), start=(182, 84, 18, 11),
        shoulder=(60, 33, 58, 13), trigger=(60, 13, 46, 20)),
    "ps4": Layout(**PLAYSTATION, body=DUAL, left=(118, 138), right=(202, 138), dpad=(56, 84),
        dpad_side=52, face=(264, 84), back=(100, 62, 11, 19), start=(220, 62, 11, 19),
        shoulder=(60, 33, 58, 13), trigger=(60, 13, 46, 20)),
    "ps5": Layout(**PLAYSTATION, body=SENSE, left=(116, 136), right=(204, 136), dpad=(56, 86),
        dpad_side=52, face=(264, 86), back=(94, 54, 12, 18), start=(226, 54, 12, 18),
        shoulder=(58, 33, 62, 13), trigger=(58, 13, 50, 20), travel=21),
    "switch": Layout(body=PRO, left=(70, 84), right=(204, 132), dpad=(116, 132), face=(250, 84),
        letters="BYAX", back=(122, 64, 14, 14), start=(198, 64, 14, 14), small="-+",
        shoulder=(74, 33, 74, 14), tops=("L", "R", "ZL", "ZR")),
    "snes": Layout(body=BONE, size=(320, 160), left=None, right=None, dpad=(64, 90), dpad_side=66,
        face=(254, 90), face_step=28, face_side=26, letters="BYAX", back=(134, 98, 26, 13),
        start=(176, 98, 26, 13), small="  ", shoulder=(72, 12, 84, 16), trigger=None,
        tops=("L", "R", "", "")),
    "grid": Layout(size=(320, 136), left=(46, 92), right=(274, 92), dpad=(124, 92), face=(200, 92),
        back=(144, 22, 26, 20), start=(176, 22, 26, 20), shoulder=(96, 22, 50, 24),
        trigger=(36, 22, 54, 24), travel=22, cap=26, slab=8),
    "keys": Layout(size=(320, 190), left=(52, 136), right=(268, 138), dpad=(68, 68), face=(252, 52),
        back=(134, 92, 28, 18), start=(186, 92, 28, 18), shoulder=(136, 52, 42, 22),
        trigger=(136, 22, 42, 26), travel=24, cap=28, keys=True),
    "arcade": Layout(**PANEL, size=(320, 170), left=None, back=(52, 24, 24, 14),
        start=(86, 24, 24, 14), slab=16,
        spots=(
            ("DPAD_LEFT", 40, 74, 30, "<"), ("DPAD_DOWN", 78, 78, 30, "V"),
            ("DPAD_RIGHT", 113, 92, 30, ">"), ("DPAD_UP", 138, 138, 36, "U"),
            ("WEST", 160, 68, 30, "X"), ("NORTH", 197, 52, 30, "Y"),
            ("RIGHT_SHOULDER", 235, 52, 30, "RB"), ("LEFT_SHOULDER", 273, 60, 30, "LB"),
            ("SOUTH", 163, 105, 30, "A"), ("EAST", 200, 90, 30, "B"),
            ("RIGHT_TRIGGER", 238, 90, 30, "RT"), ("LEFT_TRIGGER", 276, 98, 30, "LT"))),
    "xboxseries": Layout(body=SERIES, left=(68, 86), dpad_side=50, face=(252, 86), face_step=26,
        face_side=24, back=(139, 84, 14, 12), start=(181, 84, 14, 12), small=" ="),
    # A, the large one, is SOUTH; the C stick is the right stick; Z is the right shoulder
    "gamecube": Layout(body=CUBE, left=(68, 92), right=(201, 156), dpad=(116, 154), dpad_side=44,
        face=None, start=(160, 90, 16, 16), small="  ", shoulder=(72, 34, 56, 11),
        trigger=(66, 13, 60, 20), tops=("", "Z", "L", "R"), cap=26,
        absent=("BACK", "LEFT_SHOULDER", "LEFT_THUMB", "RIGHT_THUMB"),
        spots=(("SOUTH", 250, 98, 38, "A"), ("WEST", 217, 113, 22, "B"), ("EAST", 284, 92, 24, "X"),
               ("NORTH", 244, 62, 24, "Y"))),
    # A is SOUTH and B, to the left of it, WEST; Z is the left trigger; the C buttons are never lit,
    # since they are no action
    "n64": Layout(body=TRIDENT, left=(160, 148), right=None, dpad=(62, 96), dpad_side=52, face=None,
        start=(160, 86, 18, 18), small="  ", shoulder=(66, 26, 84, 18), trigger=None,
        tops=("L", "R", "", ""), cap=26, absent=("BACK", "LEFT_THUMB"),
        spots=(("SOUTH", 238, 128, 26, "A"), ("WEST", 214, 104, 26, "B"),
               ("LEFT_TRIGGER", 160, 198, 20, "Z"))),
    "nes": Layout(size=(320, 140), left=None, right=None, dpad=(62, 84), dpad_side=64, face=None,
        back=(134, 94, 30, 14), start=(186, 94, 30, 14), small="  ", shoulder=None, trigger=None,
        slab=6,
        spots=(("SOUTH", 226, 92, 36, "B"), ("EAST", 274, 92, 36, "A"))),
    "lever": Layout(**PANEL, size=(320, 170), left=(72, 98), back=(54, 24, 24, 14),
        start=(88, 24, 24, 14), travel=22, cap=40, slab=12, absent=("LEFT_THUMB",),
        spots=(
            ("WEST", 154, 84, 34, "X"), ("NORTH", 192, 66, 34, "Y"),
            ("RIGHT_SHOULDER", 233, 64, 34, "RB"), ("LEFT_SHOULDER", 274, 72, 34, "LB"),
            ("SOUTH", 154, 124, 34, "A"), ("EAST", 192, 106, 34, "B"),
            ("RIGHT_TRIGGER", 233, 104, 34, "RT"), ("LEFT_TRIGGER", 274, 112, 34, "LT"))),
    "hitbox": Layout(**PANEL, size=(320, 180), left=None, back=(42, 26, 28, 14),
        start=(80, 26, 28, 14), slab=8,
        spots=(
            ("DPAD_LEFT", 38, 80, 30, "<"), ("DPAD_DOWN", 78, 80, 30, "V"),
            ("DPAD_RIGHT", 116, 94, 30, ">"), ("DPAD_UP", 160, 146, 40, "^"),
            ("WEST", 166, 62, 32, "X"), ("NORTH", 204, 50, 32, "Y"),
            ("RIGHT_SHOULDER", 244, 52, 32, "RB"), ("LEFT_SHOULDER", 283, 62, 32, "LB"),
            ("SOUTH", 166, 102, 32, "A"), ("EAST", 204, 90, 32, "B"),
            ("RIGHT_TRIGGER", 244, 92, 32, "RT"), ("LEFT_TRIGGER", 283, 102, 32, "LT"),
            ("LEFT_THUMB", 62, 150, 24, "L"), ("RIGHT_THUMB", 102, 150, 24, "R"))),
}
# fmt: on


# ---- styles: how a controller is drawn -----------------------------------------------------------

DIM = "#606060"  # what darkens where a button is transparent
XBOX_HUES = {"SOUTH": "#6cc24a", "EAST": "#e0443e", "WEST": "#3f8ae0", "NORTH": "#f2c230"}
PS_HUES = {"SOUTH": "#7fa7e8", "EAST": "#f0707a", "WEST": "#e59acb", "NORTH": "#53c7a3"}
SNES_HUES = {"SOUTH": "#ffe14a", "EAST": "#ff8a90", "WEST": "#84e69e", "NORTH": "#a4bcff"}
SWITCH_HUES = {"SOUTH": "#f2c230", "EAST": "#e0443e", "WEST": "#6cc24a", "NORTH": "#3f8ae0"}
CUBE_HUES = {"SOUTH": "#38b48a", "EAST": "#b0b4c0", "WEST": "#e0443e", "NORTH": "#b0b4c0"}
N64_HUES = {"SOUTH": "#3f6ae0", "WEST": "#3fa35a"}
NES_HUES = {"SOUTH": "#d8343f", "EAST": "#d8343f"}


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
    look: str = ""  # photo, metal, sketch or lcd: see Picture
    unit: int = 1  # pixel art: px per drawn pixel
    drop: tuple = ()  # buttons that this skin does not show


# fmt: off
STYLES = {
    "outline": Style(),
    "ink": Style(body="#ffffff", alpha=0.35, edge="#15171c", width=2.2, ink="#15171c",
        lit="#f04848", stick="ring"),
    "dark": Style(body="#1d2027", edge="#6b7382", width=1.6, key="#3d4452", ink="#e8eaf0",
        lit="#f5f5f5", press="recolour"),
    "light": Style(body="#e4e6ea", edge="#8b909a", width=1.5, key="#f8f9fb", ink="#40454f",
        lit="#3a7bf0", press="recolour", shade=0.12),
    "flat": Style(body="#4a6076", edge="", key="#2c3a48", ink="#dfe8f0", lit="#ffb020"),
    "minimal": Style(edge="#20242c", width=1.6, key="#f2f2f2", ink="#20242c", lit="#ff4d4d",
        press="recolour", stick="dot", silhouette=False),
    "neon": Style(body="#0a1020", alpha=0.55, edge="#37e0ff", width=1.8, ink="#37e0ff",
        lit="#ff3fd0", press="glow", stick="ring"),
    # colours that are names stand for the family's own: see COLORS
    "glass": Style(body="accent", alpha=0.28, width=1.8, lit="accent", press="glow", stick="ring"),
    "bold": Style(width=3.2, lit="accent", stick="ring", labels=False),
    "smoke": Style(body="#000000", alpha=0.5, edge="#f0f0f0", width=1.5, key="#000000", lit="hot",
        stick="dot", panel=True),
    "pastel": Style(body="pale", edge="deep", width=1.4, key="#ffffff", ink="deep", lit="deep",
        press="shrink", solid=True),
    "photo": Style(body="shell", edge="", width=1.2, key="plastic", ink="#f0f0f0", lit="hot",
        press="recolour", shade=0.22, look="photo"),
    "push": Style(body="deep", edge="#14161a", width=1.4, key="#f0ede4", ink="#22262c", lit="hot",
        press="move", solid=True),
    "pixel": Style(body="pale", edge="#1a1c24", key="plastic", lit="hot", press="recolour",
        solid=True, unit=2,
        width=2),
    "sprite": Style(body="accent", edge="#10131a", width=4, key="#f4f4f4", ink="#10131a", lit="hot",
        press="move", stick="dot", labels=False, unit=4, drop=("LEFT_THUMB", "RIGHT_THUMB")),
    "trail": Style(body="#20242c", alpha=0.4, width=1.6, lit="hot", stick="trail"),
    "bare": Style(edge="", key="#262b34", ink="#c8ced8", lit="accent", press="recolour",
        labels=False, silhouette=False, drop=("LEFT_TRIGGER", "RIGHT_TRIGGER")),
    "lean": Style(body="plastic", edge="accent", width=1.8, key="#14161a", ink="accent",
        lit="accent", stick="dot", drop=("BACK", "START", "LEFT_THUMB", "RIGHT_THUMB")),
    # held out: see HELD_OUT
    "chrome": Style(body="#b4bac4", edge="#50565f", width=1.4, key="#d8dce2", ink="#1c2026",
        lit="accent", press="recolour", shade=0.3, look="metal"),
    "sketch": Style(body="#f6f1e4", alpha=0.85, edge="#2c2a33", width=1.2, ink="#2c2a33", lit="hot",
        stick="dot", look="sketch"),
    "lcd": Style(body="#b4c44c", edge="#1c2a12", width=4, key="#cfdc7c", ink="#1c2a12",
        lit="#1c2a12", press="recolour", stick="ring", labels=False, panel=True, look="lcd",
        unit=4),
}
# fmt: on
# looks that only the templates of these styles have; never trained or tuned on
HELD_OUT = ("chrome", "sketch", "lcd")

# ---- elements: a picture of each state, uint8 [h, w, 4] RGBA -------------------------------------

# A button, shoulder or trigger: its shape is a function (cx, cy, w, h) -> polygon; hue is its own
# colour or ""; size is its label's in px, 0: by the key's.
Key = namedtuple("Key", "id shape cx cy w h label hue size", defaults=("", 0))


def contrast(color):
    """Black or white, to read on it."""
    r, g, b = rgb(color)
    return "#101216" if 0.3 * r + 0.6 * g + 0.1 * b > 125 else "#ffffff"


def darker(color, k=0.45):
    return "#" + "".join(f"{int(v * k):02x}" for v in rgb(color))


def margin(style):
    """px around an element: PAD, in whole blocks."""
    return -(-PAD // style.unit) * style.unit


def symbol(p, label, cx, cy, size, color, width):
    """A label: letters, or the four shapes of a PlayStation."""
    if label == "SOUTH":
        for a in (size * 0.45, -size * 0.45):
            ends = [(cx - a, cy - size * 0.45), (cx + a, cy + size * 0.45)]
            p.line(ends, color, width, closed=False)
    elif label == "EAST":
        p.line(disc(cx, cy, size * 0.52), color, width)
    elif label == "WEST":
        p.line(box(cx, cy, size * 0.9, size * 0.9), color, width)
    elif label == "NORTH":
        p.line(ngon(cx, cy + size * 0.08, size * 0.62, 3), color, width)
    else:
        p.text(label, cx, cy, size, color, width)


def key_colors(hue, style, pressed):
    """The body's, the edge's and the label's colour; "" for none."""
    own = style.solid and hue
    body = hue if own else style.key
    if pressed:
        lit = style.lit if own else hue or style.lit
        body = darker(body or DIM) if style.press == "darken" else lit
        return body, lit if style.press in ("recolour", "glow") else style.edge, contrast(body)
    return body, style.edge, contrast(hue) if own else hue or style.ink


def label_key(p, key, cx, cy, k, ink, style):
    """Write the key's label, if there is room: letters of pixel art have but one size."""
    block, text = style.unit, key.label
    if not (text and style.labels):
        return
    small = len(text) * 6 * block <= key.w and 8 * block <= key.h
    if block == 1 or small or len(text) > 2:
        size = (key.size or min(key.w, key.h) * 0.5) * k
        symbol(p, text, cx, cy, size, ink, max(1.2, style.width * 0.9))


def key_picture(key, style, pressed):
    w, h, line, pad = key.w, key.h, style.width, margin(style)
    p = Picture(w + 2 * pad, h + 2 * pad, style)
    cx, cy = w / 2 + pad, h / 2 + pad
    k = 1.0
    body, edge, ink = key_colors(key.hue, style, pressed)
    sunk = max(PAD, style.unit) if style.press == "move" else 0
    if pressed:
        cy += sunk
        k = 0.76 if style.press == "shrink" else 1.0
    elif sunk:
        side = key.shape(cx, cy + sunk, w - line, h - line)
        p.fill(side, darker(body or DIM))
        p.line(side, edge, line)
    outline = key.shape(cx, cy, w * k - line, h * k - line)
    if pressed and style.press == "glow":
        p.glow(outline, body, 1.6)
    if body:
        p.fill(outline, body, shade=-style.shade if pressed else style.shade)
    if edge:
        p.line(outline, edge, line)
    label_key(p, key, cx, cy, k, ink, style)
    return p.rgba()


def stick_picture(side, style, pressed):
    full = side + 2 * margin(style)
    p = Picture(full, full, style)
    c, r = full / 2, side / 2 - style.width / 2
    if pressed and style.press == "glow":
        p.glow(disc(c, c, r), style.lit, 1.6)
    KNOBS[style.stick](p, c, r, style, pressed)
    return p.rgba()


def dot_knob(p, c, r, style, pressed):
    """A small knob with a point in it; a trail's is smaller still."""
    edge, rest = style.edge or style.ink, style.key or style.ink
    r *= 0.55 if style.stick == "trail" else 0.78
    p.fill(disc(c, c, r), style.lit if pressed else edge)
    p.line(disc(c, c, r), edge if pressed else rest, style.width)
    p.fill(disc(c, c, r / 0.78 * 0.2), contrast(style.lit) if pressed else rest)


def ring_knob(p, c, r, style, pressed):
    edge = style.edge or style.ink
    p.fill(disc(c, c, r), style.lit if pressed else edge, 1.0 if pressed else 0.25)
    p.line(disc(c, c, r * 0.94), edge, style.width * 1.3)
    p.line(disc(c, c, r * 0.35), contrast(style.lit) if pressed else edge, style.width)


def wide_knob(p, c, r, style, pressed):
    """A wide knob with a rim and four points on it."""
    edge = style.edge or style.ink
    face = style.lit if pressed else style.key
    mark = contrast(style.lit) if pressed else edge
    p.fill(disc(c, c, r), face or edge, 1.0 if face else 0.3, style.shade)
    p.line(disc(c, c, r), edge, style.width)
    if style.look == "photo":  # a hollow with a rim around it
        p.fill(disc(c, c, r * 0.7), face, 1.0, -style.shade)
    p.line(disc(c, c, r * 0.62), mark, style.width)
    for point in ngon(c, c, r * 0.8, 4):
        p.fill(disc(*point, 1.2), mark)


KNOBS = {"dot": dot_knob, "trail": dot_knob, "ring": ring_knob, "cap": wide_knob}


def arms(c, out, long, wide, r):
    """Four boxes around (c, c), `out` px away from it, in the order of WAYS."""
    boxes = []
    for x, y in WAYS:
        w, h = (long, wide) if x else (wide, long)
        boxes.append(box(c + x * out, c + y * out, w, h, r))
    return boxes


def dpad_pictures(side, style):
    """The nine states, in the order of DPAD_STATES."""
    arm, line = side * 0.36, style.width
    c = side / 2 + margin(style)
    k = 0.8 if style.press == "shrink" else 1.0
    if style.dpad == "split":
        outlines = arms(c, side * 0.33, side * 0.34 - line, arm - line, arm * 0.25)
    else:
        outlines = [cross(c, c, side - line, arm)]
    out, long = (side / 2 - line / 2 + arm / 2) / 2, side / 2 - arm / 2 - line
    pressed = arms(c, out, long * k, (arm - line) * k, 1.5)
    lit = darker(style.key or DIM) if style.press == "darken" else style.lit
    pictures = []
    for dx, dy in DPAD_STATES:
        on = [way in ((dx, 0), (0, dy)) for way in WAYS]
        pictures.append(dpad_picture(side, style, outlines, compress(pressed, on), on, lit))
    return pictures


def dpad_picture(side, style, outlines, pressed, on, lit):
    """One state.  pressed: the shapes of the arms that are; on: the same as bool for each of WAYS;
    lit: their colour.
    """
    line, full = style.width, side + 2 * margin(style)
    p, c = Picture(full, full, style), full / 2
    if style.dpad == "disc":
        plate = darker(style.key or DIM, 0.7)
        p.fill(disc(c, c, side / 2 - line / 2), plate, 1.0 if style.key else 0.3, style.shade)
    for outline in outlines:
        if style.key:
            p.fill(outline, style.key, 1.0, style.shade)
    for shape in pressed:
        p.fill(shape, lit)
    for outline in outlines:
        if style.edge:
            p.line(outline, style.edge, line)
    if style.labels:
        arrows(p, c, side, on, style.ink, contrast(lit))
    if style.dpad == "cross" and style.unit < 4:
        p.line(disc(c, c, side * 0.36 * 0.25), style.ink, 1.2, 0.7)
    return p.rgba()


def arrows(p, c, side, on, ink, ink_pressed):
    """A triangle on each arm of a d-pad."""
    for (x, y), turn, pressed in zip(WAYS, (180, 0, -90, 90), on, strict=True):
        shape = ngon(c + x * side * 0.36, c + y * side * 0.36, side * 0.075, 3, turn)
        p.fill(shape, ink_pressed if pressed else ink)


def body_picture(L, style, trim):
    """What never changes: the silhouette, the sticks' wells, logos, vents, lines."""
    p = Picture(*L.size, style)
    ink, thin = style.edge or style.ink, max(1.2, style.width * 0.7)
    if style.silhouette and (L.body or L.slab >= 0):
        outline = silhouette(L, style)
        if style.body:
            p.fill(outline, style.body, style.alpha, style.shade)
        if style.edge:
            p.line(outline, style.edge, style.width * 1.1)
    dark = 0.30 if style.body or not style.silhouette else 0.12
    for place in filter(None, (L.left, L.right)):
        r = L.travel + L.cap / 2 - 1
        p.fill(disc(*place, r), "#000000", dark)
        p.line(disc(*place, r), ink, style.width)
        p.line(disc(*place, L.travel), ink, 1.0, 0.5)
        for notch in zip(ngon(*place, r, 8), ngon(*place, r - 4, 8), strict=True):
            p.line(notch, ink, thin, closed=False)
    if style.silhouette:
        decorate(p, trim, ink, thin)
    return p.rgba()


def silhouette(L, style):
    """The body's outline, or a plain panel."""
    w, h = L.size
    if L.body and not style.panel:
        return smooth(L.body, w)
    return box(w / 2, h / 2, w - 3, h - 3, 14 if L.slab < 0 else L.slab)


def decorate(p, trim, ink, thin):
    """Paint the ops of `trim` (TRIMS), split by "|": o circle, b box, l polyline, t text.  Capitals
    fill, or double a line's width; a colour may follow, else it is `ink`.
    """
    for op in trim.split(" | "):
        kind, *values = op.split()
        color = values.pop() if values[-1][0] == "#" else ink
        word = values.pop(0) if kind == "t" else ""
        n = [float(v) for v in values]
        if kind in "lL":
            points = list(zip(n[::2], n[1::2], strict=True))
            p.line(points, color, thin if kind == "l" else 2 * thin, closed=False)
        elif kind in "OB":
            p.fill(disc(*n) if kind == "O" else box(*n), color)
        elif kind in "ob":
            p.line(disc(*n) if kind == "o" else box(*n), color, thin)
        elif p.unit == 1:  # pixel art has no room for letters
            p.text(word, *n, color, max(1.0, n[2] * 0.17))


# ---- yours to change: the templates.  "LAYOUT-STYLE": what differs from the style ----------------

# fmt: off
HAND_PICKED = {
    "xbox360-light": dict(hues=XBOX_HUES),
    "xbox360-dark": dict(hues=XBOX_HUES, press="fill"),
    "xbox360-outline": dict(stick="ring"),
    "xbox360-minimal": dict(hues=XBOX_HUES),
    "xboxone-dark": dict(hues=XBOX_HUES),
    "xboxone-light": dict(press="darken"),
    "xboxone-outline": {},
    "xboxone-neon": {},
    "xboxone-flat": dict(body="#107c10", key="#0b4d0b", lit="#d8ffd0"),
    "ps3-dark": dict(hues=PS_HUES, key="#343944"),
    "ps3-outline": dict(stick="dot", width=1.6),
    "ps3-minimal": dict(press="shrink", stick="cap"),
    "ps4-dark": dict(hues=PS_HUES, lit="#4aa0ff", press="glow"),
    "ps4-light": dict(press="darken", hues=PS_HUES),
    "ps4-outline": {},
    "ps4-neon": dict(edge="#4a7bff", ink="#9ab8ff", lit="#ff5a5a"),
    "ps4-flat": dict(body="#20367a", key="#101c44", lit="#60d0ff"),
    "ps4-ink": {},
    "ps5-light": dict(lit="#2f6bff"),
    "ps5-dark": dict(press="fill", lit="#9fd0ff"),
    "ps5-outline": dict(stick="ring", width=1.8),
    "ps5-minimal": dict(key="#20242c", ink="#f4f4f4", edge="#f4f4f4", lit="#40a0ff"),
    "switch-dark": dict(press="fill", lit="#ff4554"),
    "switch-light": dict(stick="dot", lit="#e60012"),
    "switch-outline": {},
    "switch-flat": dict(body="#d8343f", key="#7d161e", lit="#ffffff", ink="#ffe4e4"),
    "snes-light": dict(hues=SNES_HUES, body="#c9c6d3", key="#6b5fa8", ink="#ffffff",
                       press="darken"),
    "snes-dark": dict(hues=SNES_HUES),
    "snes-outline": {},
    "grid-minimal": dict(stick="dot"),
    "grid-dark": dict(alpha=0.8, lit="#48e070", labels=True),
    "grid-outline": dict(labels=False, stick="dot"),
    "keys-flat": dict(edge="#dfe8f0", width=1.4),
    "keys-neon": dict(edge="#7dff5a", ink="#7dff5a", lit="#ffe23f", press="fill"),
    "keys-light": dict(press="shrink", stick="cap", edge="#2a2e36"),
    "arcade-dark": dict(alpha=0.85, hues=XBOX_HUES, press="fill"),
    "arcade-outline": dict(press="glow", lit="#ffd23f"),
}

COLORS = ("accent", "hot", "shell", "plastic", "pale", "deep")  # what a Style may name
# layout, its COLORS, its hues, and how its generated templates differ from the style
FAMILIES = {
    "xbox360": ("xbox360", "#7ac943 #ffd23f #e6e8ec #3a3f48 #dff2d2 #3f7a2a", XBOX_HUES, {}),
    "xboxone": ("xboxone", "#2fbf4a #ff8a30 #2a2d33 #15171b #d5e8f5 #1f4a7a", XBOX_HUES, {}),
    "xboxseries": ("xboxseries", "#35d0c0 #e8ff3f #f2f2f0 #22252a #f5ead5 #8a4a1f",
                   XBOX_HUES, dict(dpad="disc")),
    "ps3": ("ps3", "#c83a4a #ff5a4a #33353c #191b20 #eadff5 #5a3a9a", PS_HUES, dict(dpad="split")),
    "ps4": ("ps4", "#3a7bff #40e0ff #26282e #44474f #d8e4fb #27469a", PS_HUES, dict(dpad="split")),
    "ps5": ("ps5", "#8a6bff #3a8bff #eef0f4 #30333a #fbe0ea #a02a62", PS_HUES, dict(dpad="split")),
    "switch": ("switch", "#ff4554 #00d0f0 #404349 #1c1d20 #ffe0dc #b02028", SWITCH_HUES, {}),
    "gamecube": ("gamecube", "#7a62d8 #ffa020 #5a4fa0 #8f93a8 #e2ddf7 #4a3f94", CUBE_HUES, {}),
    "n64": ("n64", "#3fa35a #ff5030 #8d9096 #4a4d54 #e0ecd8 #2c6a4a", N64_HUES, {}),
    "snes": ("snes", "#8f7fe0 #ff6ab0 #cfccd6 #5a5470 #e9e6f6 #54489a", SNES_HUES, {}),
    "nes": ("nes", "#d8343f #ffc030 #c4c2bc #26262a #f7dcdc #8f2430", NES_HUES, {}),
    "grid": ("grid", "#30b0f0 #60ff70 #3c4654 #1d242e #dcecf7 #24607f", XBOX_HUES, {}),
    "keys": ("keys", "#f0a030 #ff5a8a #d9d4c8 #4d4a44 #f7ead2 #96601a", XBOX_HUES, {}),
    "arcade": ("lever", "#f0c030 #3fe0ff #30343c #c83a3a #fbdfe6 #8f2248", XBOX_HUES, {}),
    "hitbox": ("hitbox", "#20c8a0 #ffb03f #454b58 #20262e #d8f3ec #1c7a66", XBOX_HUES, {}),
}
# fmt: on
RECOLOR = {
    "ink": dict(lit="hot"),
    "dark": dict(lit="hot", edge="accent"),
    "light": dict(lit="deep", press="darken"),
    "flat": dict(body="deep", lit="hot"),
    "minimal": dict(lit="accent"),
    "neon": dict(edge="accent", ink="accent", lit="hot"),
    "outline": dict(lit="pale"),
}
CORE = tuple(HAND_PICKED)  # fewer and quicker to draw than all
TEMPLATES = {  # name: (layout, style, what differs from the style)
    name: (*name.split("-"), changes) for name, changes in HAND_PICKED.items()
} | {
    f"{family}-{style}": (layout, style, RECOLOR.get(style, {}) | changes)
    for family, (layout, _, _, changes) in FAMILIES.items()
    for style in STYLES
    if f"{family}-{style}" not in HAND_PICKED
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
    _, palette, hues, _ = FAMILIES[name.split("-")[0]]
    style = replace(STYLES[style], **changes)
    colors = dict(zip(COLORS, palette.split(), strict=True))
    own = {k: colors[v] for k, v in vars(style).items() if isinstance(v, str) and v in colors}
    style = replace(style, **own)
    if style.solid:
        style = replace(style, hues=hues)
    return LAYOUTS[layout].size, list(elements(LAYOUTS[layout], style, TRIMS[layout]))


def snap(v, style):
    """A length in px, in whole blocks."""
    return round(v / style.unit) * style.unit


def corner(cx, cy, w, h, style):
    """Where the picture of an element of w x h px around (cx, cy) begins on the canvas."""
    pad = margin(style)
    return snap(cx - w / 2, style) - pad, snap(cy - h / 2, style) - pad


def elements(L, style, trim):
    """Every element in every state, on the grid of the style's blocks."""
    gone = L.absent + style.drop
    yield dict(kind="texture", id="", pos=(0, 0)), [[body_picture(L, style, trim)]]
    for key in keys(L, style.hues):
        if key.id not in gone:
            key = key._replace(w=snap(key.w, style), h=snap(key.h, style))
            kind = "trigger" if "TRIGGER" in key.id else "button"
            pos = corner(key.cx, key.cy, key.w, key.h, style)
            rows = [[key_picture(key, style, on)] for on in (False, True)]
            yield dict(kind=kind, id=key.id, pos=pos), rows
    if L.dpad and not L.keys:
        side = snap(L.dpad_side, style)
        pos = corner(*L.dpad, side, side, style)
        yield dict(kind="dpad", id="", pos=pos), [dpad_pictures(side, style)]
    for id, place in (("LEFT", L.left), ("RIGHT", L.right)):
        if place:
            yield stick(L, style, id, place, click=f"{id}_THUMB" not in gone)


def stick(L, style, id, place, click):
    side = snap(L.cap, style)
    trail = (style.lit, 4.0) if style.stick == "trail" else ()
    rows = [[stick_picture(side, style, on)] for on in (False, True)[: 1 + click]]
    pos = corner(*place, side, side, style)
    travel = float(L.travel)
    return dict(kind="stick", id=id, pos=pos, radius=travel, click=click, trail=trail), rows


def keys(L, hues):
    """The Key of each button, shoulder and trigger."""
    tops = ("TRIGGER", L.trigger, L.tops[2:]), ("SHOULDER", L.shoulder, L.tops[:2])
    for kind, place, labels in tops:
        if place:
            x, y, w, h = place
            for side, cx, label in zip(("LEFT", "RIGHT"), (x, L.size[0] - x), labels, strict=True):
                yield Key(f"{side}_{kind}", pill, cx, y, w, h, label, size=min(9, h * 0.55))
    for id, place, label in zip(("BACK", "START"), (L.back, L.start), L.small, strict=True):
        yield Key(id, pill, *place, label.strip(), size=6)
    if L.face:
        for (id, dx, dy), label in zip(DIAMOND, L.letters or PS_SHAPES, strict=True):
            x, y = L.face[0] + dx * L.face_step, L.face[1] + dy * L.face_step
            yield Key(id, coin, x, y, L.face_side, L.face_side, label, hues.get(id, ""))
    for id, x, y, side, label in L.spots:
        yield Key(id, coin, x, y, side, side, label, hues.get(id, ""), max(9, side * 0.25))
    if L.dpad and L.keys:
        for id, dx, dy, label in ARROW_KEYS:
            x, y = L.dpad[0] + dx * 27, L.dpad[1] + dy * 14
            yield Key(id, pill, x, y, 24, 24, label, size=8)
