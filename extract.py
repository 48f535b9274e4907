"""extract.py: find the controller overlay in a gameplay video (paper section 2.1).

    python extract.py VIDEO... [--out DIR] [--templates DIR] [--workers N | --ray ADDRESS] [--sheet]     DIR/<video stem>.overlay.safetensors
    python extract.py templates [--out FILE.png] [--templates DIR] [--family NAME]       contact sheet of the templates
    python extract.py bench [VIDEO... --pool 3000]                                       how fast they are drawn; and found, among so many
    python extract.py train [--minutes M] [--backgrounds DIR] [--out FILE]               weights of XFeat, from drawn pictures

In: any video that OpenCV reads; with --templates also your own overlay skins: OBS input-overlay presets as they are, or NAME.json with
{"idle": "rest.png", "pressed": "all_pressed.png", "buttons": {"SOUTH": [x, y, w, h], ...}, "sticks": {"LEFT": [x, y, w, h, travel], ...}}
(read_skins() says more).  Out, per video and each of the P places that the overlay had in it, one after the other: the affine that
takes the template's canvas into the frame, float32 [P, 2, 3]; the box, int32 [P, 4]; first and last frame, int64 [P, 2] (`span`); and the
temporal median of the registered crop, uint8 [P, h, w, 3]; and the template itself: its `atlas` and, in the metadata, its `elements` and
`layout`.  A video without an overlay gives `found: false` and the reason.

Also here, for parse.py and eval.py: `templates()`, and the one renderer that draws any template in any state.  What draws the
built-in templates is in templates/pads.py.

Coordinates: x right, y down, in px; pixel i covers i..i+1, so an overlay whose first pixel is (X, Y), drawn at `scale`,
has the affine [[scale, 0, X], [0, scale, Y]].
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import math
import os
import platform
import time
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, Many, command_line, expect, recipe_of, shipped
from common.device import autocast, keep_memory, pick_device
from common.pictures import VIDEOS, read_video, video_facts, write_png
from common.workers import for_each, sigint_held_back

import cv2
import numpy as np
from tqdm import tqdm

from templates import pads, wild as unknown
from templates.pads import FAMILIES, TEMPLATES, held_out

GAP = 3                 # px between the states of one element in an atlas, as in OBS input-overlay presets
DPAD = ("DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT")
INDEX = {name: i for i, name in enumerate(artefact.BUTTONS)}

XFEAT_WEIGHTS = "weights/xfeat.safetensors"
MIN_INLIERS = 20        # paper 2.1
FRAMES = 25             # paper 2.1
WORK_WIDTH = 1280       # CHOICE: wider frames are searched at this width, and refined at their own
GROUNDS = (60, 150)     # CHOICE: grays behind the templates when their descriptors are taken
SCALES = (1.0, 0.5)     # CHOICE: of the templates then; SIFT bridges what lies between
WIDTHS = (0.08, 0.9)    # CHOICE: of an overlay, in widths of the frame
PROBES = 5              # cells of the index that a search looks into
ALIKE = {"sift": 0.88, "xfeat": 0.8}        # CHOICE: cosine of descriptors that may show the same thing
MOST = 1000             # CHOICE: keypoints of one picture of a template
INDICES = 8             # CHOICE: kept in data/index, and in data/descriptors, those used last
MIN_VOTES = 5           # CHOICE: matches that make a candidate; it must still be verified
SURE = 0.15             # CHOICE: a place is accepted from inliers x likeness^2 = this x the paper's bar of inliers (docs/results.md: a table)
HOPE = 0.25             # CHOICE: share of SURE below which a candidate is not looked at closely; on 46 videos none rose above it
SWEPT = (110, 900)      # CHOICE: px: side of a square as large as a swept template; of the largest picture, the longer
STEP = 1.07             # CHOICE: from the width of that picture to the next
FAINT = 2.0             # CHOICE: gray levels a px: an edge of this slope counts half
LIKE = 0.45             # CHOICE: likeness below which no number of inliers is enough: of 52 pictures turned by 90 degrees with a
                        # built-in overlay four were accepted, with 25 to 46 inliers of likeness 0.27 to 0.39
AGREED = 0.001          # CHOICE: agreement of edges x likeness^8 x likeness of what it adds, from which a swept template is there
THERE = 0.4             # CHOICE: a frame shows the overlay from this share of the better frames' likeness
JUMP = 300              # frames between two samples from which seeking is faster than decoding
MIN_STRETCH = 4         # CHOICE: sampled frames that an overlay stays at one place, at least


@dataclass(frozen=True)
class Config(Many):
    videos: tuple[str, ...] = ()            # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    out: str = "data/labels"                # folder of the *.overlay.safetensors
    sheet: bool = False                     # also write DIR/<stem>.overlay.png to look at
    min_inliers: int = MIN_INLIERS          # matches that agree on the place (paper 2.1: 20)
    frames: int = FRAMES                    # frames sampled over the video (paper 2.1: 25)
    templates: str = ""                     # folder of your own skins (OBS input-overlay presets): they come first
    xfeat: str = XFEAT_WEIGHTS              # weights of XFeat: ours, or the official xfeat.pt


@dataclass(frozen=True)
class Element:
    """One thing on the canvas.  Its pressed picture lies GAP px below the idle one in the atlas; a d-pad's nine
    states lie to the right: centre, left, right, up, down, up-left, up-right, down-left, down-right."""
    kind: str                               # texture, button, stick, trigger or dpad
    id: str                                 # a name of artefact.BUTTONS; LEFT or RIGHT for sticks; "" for the rest
    pos: tuple[int, int]                    # x, y on the canvas, px
    mapping: tuple[int, int, int, int] = (0, 0, 0, 0)   # x, y, w, h of the idle picture in the atlas, px
    radius: float = 0.0                     # stick travel, px
    click: bool = True                      # of a stick: its click is shown
    trail: tuple = ()                       # of a stick: a line from its centre to the knob, ("#rrggbb", width in px)


@dataclass(frozen=True, eq=False)
class Template:
    """A controller as streamers show it: an atlas and the list of elements that are cut from it."""
    name: str
    family: str                             # a key of FAMILIES; "user" or what nitrogen.json says
    size: tuple[int, int]                   # w, h of the canvas, px
    atlas: np.ndarray                       # uint8 [H, W, 4] RGBA, not premultiplied, as in a PNG
    elements: tuple[Element, ...]           # in drawing order


# ---- templates, from pieces: elements and rows of pictures of their states, uint8 [h, w, 4] RGBA ------------------

def pack(pieces):
    """(atlas, elements): pieces in rows from left to right, each with its states below or to the right of it."""
    spots, x, y, row = [], 0, 0, 0
    width = max(720, *(len(rows[0]) * (rows[0][0].shape[1] + GAP) for _, rows in pieces))
    for _, rows in pieces:
        h, w = rows[0][0].shape[:2]
        full_w, full_h = len(rows[0]) * (w + GAP), len(rows) * (h + GAP)
        if x + full_w > width:
            x, y, row = 0, y + row, 0
        spots.append((x, y, w, h))
        x, row = x + full_w, max(row, full_h)
    atlas = np.zeros((y + row, width, 4), np.uint8)
    for (_, rows), (x, y, w, h) in zip(pieces, spots):
        for j, pictures in enumerate(rows):
            for i, picture in enumerate(pictures):
                atlas[y + j * (h + GAP):, x + i * (w + GAP):][:h, :w] = picture
    return atlas, tuple(replace(e, mapping=spot) for (e, _), spot in zip(pieces, spots))


def stored(tensors: dict, info: dict) -> Template:
    """The template that an overlay artefact holds, as artefact.read gives it; ValueError if it cannot be drawn."""
    height, width = tensors["atlas"].shape[:2]
    elements = [Element(**{k: tuple(v) if isinstance(v, list) else v for k, v in e.items()}) for e in info["elements"]]
    for e in elements:
        ids = {"stick": ("LEFT", "RIGHT"), "button": artefact.BUTTONS, "trigger": artefact.BUTTONS}.get(e.kind, ("",))
        across, down = (9, 1) if e.kind == "dpad" else (1, 1 if e.kind == "texture" or not e.click else 2)
        x, y, w, h = e.mapping
        inside = w > 0 and h > 0 and x + across * (w + GAP) - GAP <= width and y + down * (h + GAP) - GAP <= height
        if e.kind not in KINDS.values() or e.id not in ids or not inside:
            raise ValueError(f"its element {e.kind[:20]!r} {e.id[:20]!r} does not fit its atlas")
    return Template(info["template"], info["family"], tuple(map(int, info["layout"]["size"])), tensors["atlas"], tuple(elements))


@functools.lru_cache(64)
def without_sticks(template: Template) -> Template:
    return replace(template, elements=tuple(e for e in template.elements if e.kind != "stick"))


@functools.lru_cache(128)
def stick_alone(template: Template, side: str) -> Template:
    return replace(template, elements=tuple(e for e in template.elements if (e.kind, e.id) == ("stick", side)))


@functools.cache
def builtin(name: str) -> Template:
    """Drawn, not stored: the same on every machine."""
    size, pieces = pads.pieces(name)
    return Template(name, name.split("-")[0], size, *pack([(Element(**e), rows) for e, rows in pieces]))


@functools.lru_cache(64)
def wild(seed: int) -> Template:
    """A skin of no known hand: every seed gives another."""
    size, pieces = unknown.pieces(seed)
    return Template(f"wild-{seed:04d}", "wild", size, *pack([(Element(**e), rows) for e, rows in pieces]))


class Pool(Mapping):
    """Templates by name: `own` ones, then built-in ones, each of which is drawn when it is first asked for."""

    def __init__(self, names, own=()):
        self.own, self.indices = dict(own), {}
        self.names = dict.fromkeys([*self.own, *names])

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(name)
        return self.own[name] if name in self.own else builtin(name)

    def __contains__(self, name):
        return name in self.names

    def family(self, name):
        return self.own[name].family if name in self.own else name.split("-")[0]

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def templates(names=TEMPLATES) -> Pool:
    """The built-in templates, or those of `names`."""
    return Pool(names)


@functools.lru_cache(2)
def pool(folder: str = "") -> Pool:
    """All built-in templates; before them the user's own skins below `folder`, if one is given."""
    return Pool(TEMPLATES, read_skins(folder) if folder else {})


# ---- your own skins: any OBS input-overlay preset, or pictures with boxes (docs/presets.md) ----------------

SIDE_LIMIT, PIXELS, FILE_BYTES = 8192, 1 << 24, 1 << 26  # of pictures: px, px x px, bytes; nothing is trusted
SMALL, LARGE = 240, 960     # CHOICE: px; smaller skins are enlarged in whole steps, larger ones shrunk
FAR = 512                   # CHOICE: px, or the canvas's larger side: an element farther outside is a slip
SDL = ("SOUTH", "EAST", "WEST", "NORTH", "BACK", "", "START", "LEFT_THUMB", "RIGHT_THUMB", "LEFT_SHOULDER",
       "RIGHT_SHOULDER", *DPAD, *[""] * 11)     # SDL_GamepadButton; "": guide, share, touchpad: no actions
OLD = (*SDL[:4], *SDL[9:11], "BACK", "START", "", *SDL[7:9], *DPAD[2:], *DPAD[:2])
CODES = {**dict(enumerate(SDL)), **{0xEC00 + i: name for i, name in enumerate(OLD)},         # 0xEC00: of old versions,
         **{0xEC10 + i: name for i, name in enumerate(OLD[10:])}}                           # and of their web tool
KINDS = {0: "texture", 2: "button", 5: "stick", 6: "trigger", 7: "texture", 8: "dpad"}  # by an element's type
OLD_KINDS = {0: "texture", 1: "button", 4: "stick", 5: "trigger", 6: "texture", 7: "dpad"}  # before version 5
RAW_CUBE = {1: "EAST", 2: "SOUTH", 3: "WEST", 4: "NORTH", 8: "RIGHT_SHOULDER", 16: "START"}    # of GameCubes


def read_skins(folder) -> dict[str, Template]:
    """The skins below `folder` by name; what cannot be read is named, with the reason, and left out.

    An OBS input-overlay preset is FILE.json and its PNGs beside it, each of which is a skin (`pictures`); or
    pictures with a list of boxes.  A button's code says which it is, its id never does; four face buttons in
    a diamond are named by their places; nitrogen.json beside it may say otherwise.  docs/presets.md has all.
    """
    return dict(load_skins(str(Path(folder).resolve())))


@functools.lru_cache(1)
def load_skins(folder):
    root, found, said = Path(folder), {}, {}
    if not root.is_dir():
        raise SystemExit(f"{folder}: no such folder of skins (--templates)")
    name = lambda path: path.relative_to(root).with_suffix("").as_posix()
    files = sorted((p.parent, p) for p in root.rglob("*") if p.suffix.lower() == ".json")
    for _, paths in itertools.groupby(files, key=lambda pair: pair[0]):
        lists, seen = {}, ({}, {})
        for _, path in paths:
            with named(said, name(path)):
                data = read_json(root, path)
                if path.name != "nitrogen.json" or "idle" in data:
                    lists[path] = data
        for path in lists:
            with named(said, name(path)):
                found |= read_skin(root, path, name(path), lists, seen, said)
    for text, names in said.items():                        # what is said of several skins is said once
        print(f"{few(names)}: {text}")
    if not found:
        raise SystemExit(f"{folder}: no skin there can be read (an OBS input-overlay preset is a PNG and "
                         "a JSON file; see docs/presets.md)")
    return found


@contextlib.contextmanager
def named(said, name):
    """What cannot be read in here is noted in `said`, and the rest goes on."""
    try:
        yield
    except (ValueError, OSError, cv2.error) as e:
        said.setdefault(f"{' '.join(str(e).split())}; skipped", []).append(name)


def few(parts, between=", "):
    return between.join([*parts[:3], *[f"and {len(parts) - 3} more"] * (len(parts) > 3)])


def inside(root, path):
    """The file, if it lies below root."""
    path = path.resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"{path.name} leads out of the folder")
    if not path.is_file():
        raise ValueError(f"no file {path.name} beside it")
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, more than {FILE_BYTES:,}")
    return path


def read_json(root, path):
    try:
        data = json.loads(inside(root, path).read_bytes())  # UTF-8 or UTF-16, also with a byte order mark
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError(f"{path.name} is not JSON ({e})") from None
    if not isinstance(data, dict):
        raise ValueError("not a skin: expected a JSON object")
    return data


def png_size(raw):
    """w, h as the header says, before anything is unpacked; 0, 0: no PNG."""
    return tuple(int.from_bytes(raw[i:i + 4], "big") * (raw[:8] == b"\x89PNG\r\n\x1a\n") for i in (16, 20))


def read_png(root, path):
    """uint8 [h, w, 4] RGBA."""
    raw = inside(root, path).read_bytes()
    w, h = png_size(raw)
    if not (0 < w <= SIDE_LIMIT and 0 < h <= SIDE_LIMIT and w * h <= PIXELS):
        limit = f"{path.name} is no PNG of at most {SIDE_LIMIT} px a side and {PIXELS:,} px in all"
        raise ValueError(limit + (f" but has {w:,} x {h:,}: make it smaller" if w else ": save it as one"))
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path.name} is a broken PNG")
    picture = (picture >> 8).astype(np.uint8) if picture.dtype == np.uint16 else picture
    kind = {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}[1 if picture.ndim == 2 else picture.shape[2]]
    return cv2.cvtColor(picture, kind)


def number(value):
    """A number of a JSON file, also one that is written as a text; or None."""
    with contextlib.suppress(ValueError):
        value = float(value) if isinstance(value, str) else value
    return value if type(value) in (int, float) and abs(value) < 1e9 else None


def numbers(values, n, what, low=-SIDE_LIMIT, high=SIDE_LIMIT):
    """n numbers of a JSON list, checked."""
    read = [number(v) for v in values] if isinstance(values, list) else []
    if len(read) != n or not all(v is not None and low <= v <= high for v in read):
        raise ValueError(f"{what}: expected {n} numbers from {low} to {high}, found {str(values)[:60]}")
    return read


def cut(picture, x, y, w, h, what):
    if w < 1 or h < 1 or x + w > picture.shape[1] or y + h > picture.shape[0]:
        raise ValueError(f"{what}: {w} x {h} px at {x}, {y} is not inside the picture of {picture.shape[1]} x {picture.shape[0]}")
    return picture[y:y + h, x:x + w]


def read_skin(root, path, name, lists, seen, said) -> dict[str, Template]:
    """The skins of one of the `lists` of a folder, path: data; `seen`: what is known of its PNGs."""
    data, folder, found = lists[path], path.parent, {}
    if "idle" in data:
        return {name: picture_skin(name, data, lambda file: read_png(root, folder / str(file)))}
    if "elements" not in data and "overlay_width" not in data:
        raise ValueError("neither an input-overlay preset (elements) nor a list of boxes (idle)")
    if not isinstance(data.get("elements"), list) or len(data["elements"]) > 256:
        raise ValueError("elements: expected a list of at most 256")
    more = read_json(root, folder / "nitrogen.json") if (folder / "nitrogen.json").exists() else {}
    pngs = pictures(root, path, lists, *seen)
    for png in pngs:
        own = name if len(pngs) == 1 else f"{name}/{png.stem}"
        with named(said, own):
            found[own] = preset(own, data, more, read_png(root, png), said)
    return found


def pictures(root, path, lists, size, best):
    """The PNGs of a list: each of the folder goes with the list that it fits best, by size or by name.

    Left aside are previews, and what is too small for the list's boxes if another picture is not."""
    kinds = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    beside = sorted(p for p in path.parent.iterdir() if p.suffix.lower() in kinds)
    pngs = [p for p in beside if p.suffix.lower() == ".png"]
    if not pngs:
        todo = f"save {beside[0].name} as one" if beside else "put its picture there"
        raise ValueError(f"no PNG beside it: {todo}")
    boxes = [e.get("mapping") for e in lists[path]["elements"] if isinstance(e, dict)]
    boxes = [[number(v) or 0 for v in box] for box in boxes if isinstance(box, list) and len(box) == 4]
    for p in {*pngs} - {*size}:
        size[p] = 0, 0
        with contextlib.suppress(ValueError, OSError), inside(root, p).open("rb") as file:
            size[p] = png_size(file.read(24))
    pngs = [p for p in pngs if "preview" not in p.stem.lower()] or pngs
    held = {p: sum(x + w / 2 < size[p][0] and y + h / 2 < size[p][1] for x, y, w, h in boxes) for p in pngs}
    pngs = [p for p in pngs if held[p] == max(held.values())]

    def fit(png, other):
        """(it has the size that the list names, how their names are alike, in how many letters)"""
        a, b = (p.stem.lower().replace("_", "-").replace(" ", "-") for p in (png, other))
        same = len(os.path.commonprefix((a, b)))
        named_size = tuple(lists[other].get(f"default_{side}") for side in ("width", "height"))
        alike = 3 if a.startswith(b) else 2 if same > 2 else 1 if {*a.split("-")} & {*b.split("-")} else 0
        return size[png] == named_size != (0, 0), alike, same if alike > 1 else 0

    rivals = [other for other in lists if "elements" in lists[other]]
    best |= {p: max(fit(p, other) for other in rivals) for p in pngs if p not in best}
    ours = {p: fit(p, path) for p in pngs}
    mine = [p for p in pngs if ours[p] == best[p]]
    top = max([ours[p][:2] for p in mine], default=None)
    mine = [p for p in mine if ours[p][:2] == top]
    shared = [p for p in pngs if ours[p][0] == best[p][0] and (best[p][1] < 3 or ours[p][1])]
    if not mine and not shared:
        others = few([p.name for p in pngs])
        raise ValueError(f"no PNG for it, {others} goes with another list: put its own picture there")
    return mine or shared


def preset(name, data, more, atlas, said) -> Template:
    """A template from an OBS input-overlay preset.  Facts of the format: the plugin's sources."""
    canvas = [max(number(data.get(f"overlay_{side}")) or 0, 0) for side in ("width", "height")]
    numbers(canvas, 2, "overlay_width, overlay_height")
    if (atlas == atlas[0, 0]).all() or not atlas[..., 3].any():
        raise ValueError("its PNG is of one colour: put the preset's picture there")
    pieces, left, keys = preset_pieces(data["elements"], more, atlas, canvas)
    if all(e.kind == "texture" for e, _ in pieces):
        reason = few(left, "; ") or "keys of a keyboard or a mouse are not read"
        raise ValueError(f"shows no gamepad element: {reason}")
    notes = [f"{len(left)} of {len(data['elements'])} elements left out: {few(left, '; ')}"] if left else []
    if more.get("positions") != "codes":
        pieces, moved = by_place(pieces)
        notes += [moved] if moved else []
    template = finish(name, more.get("family", "user"), canvas, pieces)
    lost = {e.id for e, _ in pieces if e.kind in ("button", "trigger")} - {*layout(template)["buttons"]}
    notes += [f"looks the same pressed, so is never read: {', '.join(sorted(lost))}"] if lost else []
    for text in ["keys of a keyboard or a mouse left out"] * keys + ["; ".join(notes)] * bool(notes):
        said.setdefault(text, []).append(name)
    return template


def preset_pieces(elements, more, atlas, canvas):
    """The elements that can be used, as `pack` takes them; why the others cannot; whether there are keys."""
    elements = [e if isinstance(e, dict) else {} for e in elements]
    codes = [int(number(e.get("code")) or 0) for e in elements]     # missing: 0, as in the plugin
    types = [number(e.get("type", 0)) for e in elements]
    old = any(t == 1 and c in range(0xEC00, 0xEC20) for t, c in zip(types, codes))
    kinds = [(OLD_KINDS if old else KINDS).get(t) for t in types]   # None: a keyboard's, mouse's, or unknown
    names = button_names({c for c, kind in zip(codes, kinds) if kind == "button"}, more)
    pieces, left, used = [], [], 0
    for i, (e, kind, code) in enumerate(zip(elements, kinds, codes)):
        try:
            if kind:
                new = piece(e, kind, names.get(code, ""), atlas, canvas)
                used += new[1][0][0][..., 0].size * sum(map(len, new[1]))
                if used > PIXELS:
                    raise ValueError(f"the elements up to here cover more than {PIXELS:,} px")
                pieces.append(new)
                if kind == "button" and code not in names:
                    raise ValueError(f"the code {code} is no button's (nitrogen.json may name it)")
        except ValueError as error:
            left.append(f"{str(e.get('id', i))[:30]!r}: {error}")
    return pieces, left, None in kinds


def button_names(codes, more):
    """Code -> a name of artefact.BUTTONS, or "" for what is no action."""
    given = more.get("codes", {})
    if more.get("positions", "places") not in ("places", "codes"):
        raise ValueError('positions in nitrogen.json: expected "places" or "codes"')
    if not isinstance(given, dict) or not all(k.isdecimal() and v in artefact.BUTTONS for k, v in given.items()):
        raise ValueError('codes in nitrogen.json: expected numbers and names, as in {"16": "START"}; ' +
                         f"names: {', '.join(artefact.BUTTONS)}")
    usual = RAW_CUBE if 16 in codes and codes <= set(RAW_CUBE) else CODES
    return usual | {int(k): v for k, v in given.items()}


def piece(e, kind, id, atlas, canvas):
    """An element of a preset as `pack` takes it: an Element, and its pictures in rows."""
    (H, W), far = atlas.shape[:2], max(*canvas, FAR)
    x, y, w, h = (int(v) for v in numbers(e.get("mapping"), 4, "mapping", 0))
    pos = tuple(int(v) for v in numbers(e.get("pos", [0, 0]), 2, "pos"))
    if not 0 < w * h * (9 if kind == "dpad" else 1) <= PIXELS:
        raise ValueError(f"mapping of {w} x {h} px: " + ("too large" if w * h else "draws nothing"))
    if x >= W or y >= H:
        raise ValueError(f"mapping: {w} x {h} px at {x}, {y} is not inside the picture of {W} x {H}")
    if any(canvas) and not all(-far <= p <= c + far for p, c in zip(pos, canvas)):
        raise ValueError(f"pos {pos[0]}, {pos[1]} is far outside the canvas of {canvas[0]:g} x {canvas[1]:g}")

    def state(across, down):
        """Beyond the atlas its last column and row repeat, as in OBS; beyond all of it: the idle picture."""
        u, v = x + across * (w + GAP), y + down * (h + GAP)
        u, v = (u, v) if u < W and v < H else (x, y)
        return atlas[np.ix_(np.arange(v, v + h).clip(0, H - 1), np.arange(u, u + w).clip(0, W - 1))]

    if kind == "dpad":
        return Element("dpad", "", pos), [[state(i, 0) for i in range(9)]]
    idle, pressed, side, travel = state(0, 0), state(0, 1), number(e.get("side", 0)), 0
    if kind == "stick":
        (travel,) = numbers([e.get("stick_radius", 0)], 1, "stick_radius", 0, 1024)
        id = "RIGHT" if side else "LEFT"
        kind, id = (kind, id) if travel else ("button", f"{id}_THUMB")     # it stands, but may show its click
    elif kind == "trigger":
        id = {0: "LEFT_TRIGGER", 1: "RIGHT_TRIGGER"}.get(side)
        if e.get("trigger_mode") is not True and (pressed != idle).any():   # the whole travel, over idle
            pressed = stack(idle, pressed)
            idle = idle if number(e.get("direction")) in (1, 2, 3, 4) else pressed     # without: always drawn
    if kind == "texture" or not id:                         # no action: the guide button, the player's number
        return Element("texture", "", pos), [[idle]]
    return Element(kind, id, pos, radius=float(travel)), [[idle], [pressed]]


def by_place(pieces):
    """Face buttons named by where they are, since some skins carry codes by letter; and what to say.

    Only where the four make a clear diamond; elsewhere, and with "positions": "codes" in nitrogen.json, the
    codes stand."""
    face = {e.id: (e.pos[0] + rows[0][0].shape[1] / 2, e.pos[1] + rows[0][0].shape[0] / 2)
            for e, rows in pieces if e.id in ("SOUTH", "EAST", "WEST", "NORTH")}
    if len(face) < 4:
        return pieces, ""
    ids, (xs, ys) = list(face), np.array(list(face.values())).T
    w, n, e, s = xs.argmin(), ys.argmin(), xs.argmax(), ys.argmax()
    width, height = np.ptp(xs), np.ptp(ys)
    level = abs(ys[w] - ys[e]) < 0.25 * height and abs(xs[n] - xs[s]) < 0.25 * width
    central = abs(xs[n] + xs[s] - xs[w] - xs[e]) < 0.3 * width and abs(ys[w] + ys[e] - ys[n] - ys[s]) < 0.3 * height
    places = {ids[i]: id for i, id in ((w, "WEST"), (n, "NORTH"), (e, "EAST"), (s, "SOUTH"))}
    if len(places) < 4 or not (level and central) or all(a == b for a, b in places.items()):
        return pieces, ""
    return ([(replace(e, id=places.get(e.id, e.id)), rows) for e, rows in pieces],
            'face buttons go by their places, not by codes ("positions": "codes" in nitrogen.json: by codes)')


def picture_skin(name, data, load) -> Template:
    """A template from pictures, which `load` reads, and boxes: the knobs are cut out of the idle one, and what is under them is filled in."""
    idle, pieces = load(data["idle"]), []
    canvas = idle.shape[1::-1]
    if "pressed" in data:
        pressed = load(data["pressed"])
        if pressed.shape != idle.shape:
            raise ValueError(f"the pressed picture has {pressed.shape[1]} x {pressed.shape[0]} px, the idle one {canvas[0]} x {canvas[1]}")
    else:
        pressed = idle.copy()
        pressed[..., :3] = 255 - (255 - idle[..., :3]) // 3
    ground, hole = idle.copy(), np.zeros(idle.shape[:2], np.uint8)
    for kind, names, n in (("buttons", artefact.BUTTONS, 4), ("sticks", ("LEFT", "RIGHT"), 5)):
        boxes = data.get(kind, {})
        if not isinstance(boxes, dict) or set(boxes) - set(names):
            raise ValueError(f"{kind}: expected a box for some of {', '.join(names)}")
        for id, values in boxes.items():
            x, y, w, h, *travel = numbers(values, n, f"{kind}, {id}", 0)
            x, y, w, h = map(int, (x, y, w, h))
            before, after = (cut(p, x, y, w, h, id).copy() for p in (idle, pressed))
            if kind == "sticks":
                round_ = np.zeros((h, w), np.uint8)
                cv2.ellipse(round_, (((w - 1) / 2, (h - 1) / 2), (w, h), 0), 255, -1)
                before[round_ == 0], after[round_ == 0] = 0, 0
                hole[y:y + h, x:x + w] |= round_
                pieces.append((Element("stick", id, (x, y), radius=float(travel[0])), [[before], [after]]))
            elif (before != after).any():
                after[(before == after).all(2)] = 0         # what does not change shows from below
                pieces.append((Element("trigger" if "TRIGGER" in id else "button", id, (x, y)), [[np.zeros_like(after)], [after]]))
    if hole.any():
        for channels in (slice(0, 3), 3):
            ground[..., channels] = cv2.inpaint(np.ascontiguousarray(idle[..., channels]), hole, 3, cv2.INPAINT_TELEA)
    return finish(name, data.get("family", "user"), canvas, [(Element("texture", "", (0, 0)), [[ground]]), *pieces])


def stack(below, above):
    """RGBA over RGBA, neither premultiplied."""
    a, b = (p[..., 3:] / np.float32(255) for p in (above, below))
    alpha = a + b * (1 - a)
    rgb = (above[..., :3] * a + below[..., :3] * b * (1 - a)) / np.maximum(alpha, 1e-6)
    return np.round(np.concatenate([rgb, 255 * alpha], 2)).astype(np.uint8)


def finish(name, family, canvas, pieces) -> Template:
    """What every skin goes through: a button that never changes is not shown, empty rims go, the canvas holds everything, and its
    size is one that is convenient to match."""
    out = []
    for e, rows in pieces:
        states = [premultiplied(p) for r in rows for p in r]
        still = len(states) > 1 and max(np.abs(p - states[0]).max() for p in states) < 16
        if e.kind == "stick":
            e, rows = replace(e, click=not still), rows[:1 if still else 2]
        elif still:
            e, rows = replace(e, kind="texture", id=""), [rows[0][:1]]
        if e.kind in ("button", "trigger"):                 # four arrows may each come in a picture of the whole d-pad
            ys, xs = np.nonzero(np.max([p[..., 3] for r in rows for p in r], 0))
            y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
            e, rows = replace(e, pos=(e.pos[0] + int(x0), e.pos[1] + int(y0))), [[p[y0:y1, x0:x1] for p in r] for r in rows]
        out.append((e, rows))
    moving = [e for e, _ in out if e.kind != "texture"]
    if not moving:
        raise ValueError("shows no gamepad element that changes: its pressed pictures are those at rest")
    corners = np.array([(e.pos[0] - e.radius, e.pos[1] - e.radius, e.pos[0] + r[0][0].shape[1] + e.radius, e.pos[1] + r[0][0].shape[0] + e.radius)
                        for e, r in out] + [(0, 0, *canvas)])
    low, high = np.floor(corners[:, :2].min(0)), np.ceil(corners[:, 2:].max(0))
    side = max(high - low)
    if side > SIDE_LIMIT:
        raise ValueError(f"covers {side:.0f} px, more than {SIDE_LIMIT}")
    scale = float(math.ceil(SMALL / side)) if side < SMALL else min(1.0, LARGE / side)
    pieces = [resized(e, rows, low, scale) for e, rows in out]
    return Template(name, str(family)[:40], tuple(int(v) for v in np.ceil((high - low) * scale)), *pack(pieces))


def premultiplied(picture):
    """RGBA as float32 0..255, colours times alpha."""
    out = picture.astype(np.float32)
    out[..., :3] *= out[..., 3:] / 255
    return out


def resized(e, rows, low, scale):
    """The element, in coordinates from `low` on, scaled; pixel art keeps its edges."""
    spans = [((p - v) * scale, (p - v + n) * scale) for p, v, n in zip(e.pos, low, rows[0][0].shape[1::-1])]
    at = tuple(math.floor(a) for a, _ in spans)

    def one(picture):
        if scale >= 1:
            return picture.repeat(int(scale), 0).repeat(int(scale), 1)
        part = premultiplied(picture)
        for (a, b), x in zip(spans, at):                    # each output px: the integral over its width, by differences of the running sum
            part = part.swapaxes(0, 1)
            sums = np.concatenate([np.zeros((1, *part.shape[1:])), np.cumsum(part, 0, float)])
            edges = np.clip((np.arange(math.ceil(b) - x + 1) - (a - x)) / scale, 0, len(part) - 1e-6)
            i, rest = edges.astype(int), (edges % 1)[:, None, None]
            part = np.diff(sums[i] * (1 - rest) + sums[i + 1] * rest, axis=0) * scale
        part[..., :3] *= 255 / np.maximum(part[..., 3:], 1e-3)
        return np.round(part).clip(0, 255).astype(np.uint8)

    return replace(e, pos=at, radius=e.radius * scale), [[one(p) for p in r] for r in rows]


# ---- the renderer: any template in any state --------------------------------------------------------------

@functools.lru_cache(512)
def sprites(template: Template, scale: float):
    """(still, moving): the canvas up to the last leading texture, and for each later element its pictures at `scale`.

    still: uint8 [h, w, 4] premultiplied.  moving: list of (element, x, y, [picture, 255 - its alpha] per state).
    """
    w, h = (round(v * scale) for v in template.size)
    still, moving = np.zeros((h, w, 4), np.uint8), []
    for e in template.elements:
        (x, y, ew, eh), states = e.mapping, []
        across = [(i, 0) for i in range(9)] if e.kind == "dpad" else [(0, j) for j in range(1 + (e.kind != "texture" and e.click))]
        x0, y0 = (math.floor(p * scale) - 1 for p in e.pos)
        x1, y1 = math.ceil((e.pos[0] + ew) * scale) + 1, math.ceil((e.pos[1] + eh) * scale) + 1
        for i, j in across:
            cut = premultiplied(template.atlas[y + j * (eh + GAP):, x + i * (ew + GAP):][:eh, :ew])
            tile = resample(cut, (scale, scale, e.pos[0] * scale - x0, e.pos[1] * scale - y0), x1 - x0, y1 - y0)
            states.append(np.round(tile).astype(np.uint8))
        if e.kind == "texture" and not moving:
            over(still, states[0], cv2.bitwise_not(np.repeat(states[0][..., 3:], 4, 2)), x0, y0)
        else:
            moving.append((e, x0, y0, [(s, cv2.bitwise_not(np.repeat(s[..., 3:], 4, 2))) for s in states]))
    return still, moving


def resample(picture, placed, w, h):
    """picture drawn with scale (sx, sy) and its corner at (x, y) of a w x h tile; anti-aliased when it shrinks."""
    sx, sy, x, y = placed
    k = max(1, math.ceil(1 / min(sx, sy) - 0.01)) * 2
    m = np.array([[sx * k, 0, x * k + sx * k / 2 - 0.5], [0, sy * k, y * k + sy * k / 2 - 0.5]])
    big = cv2.warpAffine(picture, m, (w * k, h * k), flags=cv2.INTER_LINEAR)
    return cv2.resize(big, (w, h), interpolation=cv2.INTER_AREA)


def over(canvas, picture, rest, x, y):
    """Premultiplied `picture` over `canvas` at (x, y), in place, clipped; rest = 255 - alpha, in four channels."""
    (h, w), (H, W) = picture.shape[:2], canvas.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, W), min(y + h, H)
    if x0 < x1 and y0 < y1:
        if (x1 - x0, y1 - y0) != (w, h):
            picture, rest = picture[y0 - y:y1 - y, x0 - x:x1 - x], rest[y0 - y:y1 - y, x0 - x:x1 - x]
        part = canvas[y0:y1, x0:x1]
        canvas[y0:y1, x0:x1] = cv2.add(cv2.multiply(part, rest, scale=1 / 255), picture)


def draw(template: Template, buttons, sticks, scale: float = 1.0) -> np.ndarray:
    """The overlay in one state.

    buttons: [16] bool, in the order of artefact.BUTTONS (opposite d-pad directions cancel on a d-pad, not on separate keys);
    sticks: [4] in [-1, 1], y down.  Returns uint8 [round(h * scale), round(w * scale), 4] RGBA, premultiplied.
    """
    still, moving = sprites(template, float(scale))
    canvas, on = still.copy(), (np.asarray(buttons) > 0.5).tolist()
    for e, x, y, states in moving:
        if e.kind == "dpad":
            up, down, left, right = (int(on[INDEX[d]]) for d in DPAD)
            picture, rest = states[pads.DPAD_STATES.index((right - left, down - up))]
        elif e.kind == "stick":
            axis = 0 if e.id == "LEFT" else 2
            dx, dy = (float(sticks[axis + i]) * e.radius * scale for i in (0, 1))
            if e.trail:
                streak(canvas, e, scale, dx, dy)
            x, y, fx, fy = x + math.floor(dx), y + math.floor(dy), dx % 1, dy % 1
            picture, rest = states[e.click and on[INDEX[f"{e.id}_THUMB"]]]
            if fx or fy:
                h, w = picture.shape[:2]
                picture = cv2.warpAffine(picture, np.array([[1, 0, fx], [0, 1, fy]]), (w + 1, h + 1))
                rest = cv2.merge([cv2.bitwise_not(picture[..., 3])] * 4)
        else:
            picture, rest = states[on[INDEX[e.id]] if e.id else 0]
        over(canvas, picture, rest, x, y)
    return canvas


def streak(canvas, e, scale, dx, dy):
    """The trail of a stick at rest + (dx, dy) px, in place: round-ended, anti-aliased over one px."""
    color, width = e.trail
    cx, cy = ((p + m / 2) * scale for p, m in zip(e.pos, e.mapping[2:]))
    x0, y0 = (math.floor(min(c, c + d) - width * scale) for c, d in ((cx, dx), (cy, dy)))
    v, u = np.ogrid[:math.ceil(abs(dy) + 2 * width * scale) + 1, :math.ceil(abs(dx) + 2 * width * scale) + 1]
    u, v = u + np.float32(x0 + 0.5 - cx), v + np.float32(y0 + 0.5 - cy)
    along = np.clip((u * dx + v * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    alpha = np.clip(width * scale / 2 + 0.5 - np.hypot(u - along * dx, v - along * dy), 0, 1)[..., None]
    picture = np.round(alpha * [*pads.rgb(color), 255]).astype(np.uint8)
    over(canvas, picture, cv2.bitwise_not(np.repeat(picture[..., 3:], 4, 2)), x0, y0)


def composite(frame, overlay, x: int, y: int, opacity: float = 1.0) -> None:
    """Blend a premultiplied RGBA overlay onto an RGB uint8 frame at (x, y), in place, clipped at its borders."""
    (h, w), (H, W) = overlay.shape[:2], frame.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, W), min(y + h, H)
    if x0 < x1 and y0 < y1:
        part = np.ascontiguousarray(overlay[y0 - y:y1 - y, x0 - x:x1 - x])
        rest = cv2.convertScaleAbs(part[..., 3], alpha=-opacity, beta=255)
        below = cv2.multiply(np.ascontiguousarray(frame[y0:y1, x0:x1]), cv2.merge([rest] * 3), scale=1 / 255)
        frame[y0:y1, x0:x1] = cv2.addWeighted(cv2.cvtColor(part, cv2.COLOR_RGBA2RGB), opacity, below, 1.0, 0)


def layout(template: Template) -> dict:
    """Where each thing is, on the canvas, px; for the overlay's metadata.

    {"size": [w, h], "buttons": {NAME: [x, y, w, h]}, "sticks": {"LEFT": [cx, cy, travel, w, h], "RIGHT": ...}}
    """
    out = {"size": list(template.size), "buttons": {}, "sticks": {}}
    for e in template.elements:
        (x, y), (_, _, w, h) = e.pos, e.mapping
        if e.kind == "stick":
            out["sticks"][e.id] = [x + w / 2, y + h / 2, e.radius, w, h]
            if e.click:
                out["buttons"][f"{e.id}_THUMB"] = [x, y, w, h]
        elif e.kind == "dpad":
            a, b = 0.3, 0.4                          # an arm: 0.4 of the side wide, 0.4 long
            for id, fx, fy in zip(DPAD, (a, a, 0, 1 - b), (0, 1 - b, a, a)):
                out["buttons"][id] = [x + fx * w, y + fy * h, b * w, b * h]
        elif e.id:
            out["buttons"][e.id] = [x, y, w, h]
    return out


def region(box) -> tuple:
    """The slices of an array that a box x, y, w, h covers, px."""
    x, y, w, h = (int(round(v)) for v in box)
    return slice(max(y, 0), y + h), slice(max(x, 0), x + w)


def looks(boxes: dict, show) -> np.ndarray:
    """How a template looks at rest and with everything pressed: uint8 [2, h, w, 4] RGBA, premultiplied.

    boxes: the buttons of its layout; show(buttons bool [16]) draws it.  A d-pad cannot show opposite directions at once: its lower and
    right arm come from another picture."""
    up_left, down_right = np.ones((2, 16), bool)
    up_left[[INDEX["DPAD_DOWN"], INDEX["DPAD_RIGHT"]]] = down_right[[INDEX["DPAD_UP"], INDEX["DPAD_LEFT"]]] = False
    pressed, other = show(up_left).copy(), show(down_right)
    for name in {"DPAD_DOWN", "DPAD_RIGHT"} & {*boxes}:
        pressed[region(boxes[name])] = other[region(boxes[name])]
    return np.stack([show(np.zeros(16, bool)), pressed])


@functools.lru_cache(256)
def sampling(affine, size, out_w: int, out_h: int, frame_w: int, frame_h: int):
    """How `crop` samples: (kx, ky samples per px, their affine, the part of the frame that they lie in); a video asks for it frame after frame."""
    a = np.reshape(affine, (2, 3)).astype(float)
    shown = np.hypot(*a[:, 0]) * size[0], np.hypot(*a[:, 1]) * size[1]          # displayed w, h in frame px
    kx, ky = (max(1, round(s / o)) for s, o in zip(shown, (out_w, out_h)))
    w, h = out_w * kx, out_h * ky
    m = a @ np.array([[size[0] / w, 0, 0.5 * size[0] / w], [0, size[1] / h, 0.5 * size[1] / h], [0, 0, 1]])
    m[:, 2] -= 0.5                                          # from edges to pixel centres, as OpenCV counts
    ends = m @ np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1]])
    x, y = np.clip(np.floor(ends.min(1)) - 1, 0, (frame_w - 1, frame_h - 1)).astype(int)
    right, low = np.maximum(np.ceil(ends.max(1)) + 2, (x + 1, y + 1)).astype(int)
    m[:, 2] -= x, y
    return kx, ky, m, np.s_[y:low, x:right]


def crop(frame, affine, size, out_w: int, out_h: int) -> np.ndarray:
    """The template's canvas cut out of a frame: uint8 [out_h, out_w, channels], anti-aliased when it shrinks.

    frame: uint8 [h, w, channels]; affine: [2, 3] canvas px -> frame px; size: canvas (w, h).
    """
    kx, ky, m, part = sampling(tuple(np.ravel(affine).tolist()), tuple(size), out_w, out_h, *frame.shape[1::-1])
    rgb, frame = frame.ndim == 3 and frame.shape[2] == 3, frame[part]
    if rgb:                                                 # OpenCV warps four channels in half the time of three
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA)
    out = cv2.warpAffine(frame, m, (out_w * kx, out_h * ky), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    out = cv2.resize(out, (out_w, out_h), interpolation=cv2.INTER_AREA) if kx * ky > 1 else out
    return cv2.cvtColor(out, cv2.COLOR_RGBA2RGB) if rgb else out


# ---- XFeat: learned features (arXiv 2404.19174) ---------------------------------------------------------------
# Tensors are named as in the official state dict.  Per layer: channels in and out, kernel, stride of a convolution
# without bias; a BatchNorm without scale and shift, and a ReLU, follow.

XFEAT = {
    "block1": ((1, 4, 3, 1), (4, 8, 3, 2), (8, 8, 3, 1), (8, 24, 3, 2)),
    "block2": ((24, 24, 3, 1), (24, 24, 3, 1)),
    "block3": ((24, 64, 3, 2), (64, 64, 3, 1), (64, 64, 1, 1)),
    "block4": ((64, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1)),
    "block5": ((64, 128, 3, 2), (128, 128, 3, 1), (128, 128, 3, 1), (128, 64, 1, 1)),
    "block_fusion": ((64, 64, 3, 1), (64, 64, 3, 1)),
    "heatmap_head": ((64, 64, 1, 1), (64, 64, 1, 1)),
    "keypoint_head": ((64, 64, 1, 1), (64, 64, 1, 1), (64, 64, 1, 1)),
}
LAST = {"skip1.1": (24, 1, 1, 1), "block_fusion.2": (64, 64, 1, 1), "heatmap_head.2": (1, 64, 1, 1), "keypoint_head.3": (65, 64, 1, 1)}
MATCHER = {0: (512, 128), 3: (512, 512), 6: (512, 512), 9: (512, 512), 12: (64, 512)}       # of the official file; not used by sparse matching
CELL = 8                # px, side of a cell of the feature map
XFEAT_THRESHOLD = 0.02  # CHOICE: least probability of a keypoint; 0.05 in the official code, with its weights
XFEAT_WIDTHS = (130, 200, 310, 480)          # CHOICE: px, template widths to match with: the features bear about a factor of 1.5 in scale


def xfeat_shapes(matcher: bool = False) -> dict:
    """Name -> shape of the network's tensors; `matcher`: also those of the official file that only dense matching needs."""
    shapes = {}
    for block, layers in XFEAT.items():
        for i, (cin, cout, k, _) in enumerate(layers):
            shapes[f"{block}.{i}.layer.0.weight"] = (cout, cin, k, k)
            shapes |= {f"{block}.{i}.layer.1.running_{what}": (cout,) for what in ("mean", "var")}
    for name, shape in LAST.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for i, shape in MATCHER.items() if matcher else ():
        shapes |= {f"fine_matcher.{i}.weight": shape, f"fine_matcher.{i}.bias": shape[:1]}
        shapes |= {f"fine_matcher.{i + 1}.running_{what}": shape[:1] for what in ("mean", "var") if i < 12}
    return shapes


def xfeat_net(w: dict, x, train: bool = False):
    """The network, on weights `w` by name (see `load_xfeat`, `fold`); train: BatchNorm by, and its averages from, this batch.

    x: [B, channels, H, W] in 0..1, H and W multiples of 32.  Returns features [B, 64, H/8, W/8], not normalised; keypoint
    logits [B, 65, H/8, W/8], one per pixel of the 8 x 8 cell and one for "none here"; reliability [B, 1, H/8, W/8] in 0..1.
    """
    import torch
    import torch.nn.functional as F

    def block(x, name):
        for i, (_, _, k, stride) in enumerate(XFEAT[name]):
            layer = f"{name}.{i}.layer"
            x = F.conv2d(x, w[f"{layer}.0.weight"], w.get(f"{layer}.0.bias"), stride, k // 2)
            if f"{layer}.0.bias" not in w:                              # not folded
                x = F.batch_norm(x, w[f"{layer}.1.running_mean"], w[f"{layer}.1.running_var"], training=train)
            x = F.relu(x)
        return x

    def last(x, name):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = F.instance_norm(x.mean(1, keepdim=True))                                            # B 1 H W
    x2 = block(block(x, "block1") + last(F.avg_pool2d(x, 4), "skip1.1"), "block2")          # B 24 H/4 W/4
    x3 = block(x2, "block3")                                                                # B 64 H/8 W/8
    x4 = block(x3, "block4")                                                                # B 64 H/16 W/16
    x5 = block(x4, "block5")                                                                # B 64 H/32 W/32
    x4, x5 = (F.interpolate(y, x3.shape[-2:], mode="bilinear") for y in (x4, x5))
    features = last(block(x3 + x4 + x5, "block_fusion"), "block_fusion.2")
    reliability = torch.sigmoid(last(block(features, "heatmap_head"), "heatmap_head.2"))
    logits = last(block(F.pixel_unshuffle(x, CELL), "keypoint_head"), "keypoint_head.3")    # sees the pixels of its cell only
    return features, logits, reliability


def load_xfeat(path) -> dict:
    """Weights by name, float32, from a file of `train` or from the official xfeat.pt; SystemExit with one line if it is neither."""
    import torch
    if Path(path).suffix in (".pt", ".pth"):
        try:
            w = torch.load(path, "cpu", weights_only=True)
        except Exception as e:
            raise SystemExit(f"{path}: not a readable state dict ({str(e).splitlines()[0][:100]})") from None
    else:
        w = {k: torch.from_numpy(v) for k, v in artefact.read(path, "nitrogen.features/1")[0].items()}
    known = xfeat_shapes(matcher=True)
    extra = [k for k in w if k not in known and not k.endswith("num_batches_tracked")] if isinstance(w, dict) else ["a bare object"]
    if extra:
        raise SystemExit(f"{path}: unknown tensor '{extra[0]}': not the weights of XFeat")
    for name, shape in known.items():
        if name not in w and not name.startswith("fine_matcher"):
            raise SystemExit(f"{path}: tensor '{name}' is missing")
        if name in w and (tuple(w[name].shape) != shape or not w[name].isfinite().all()):
            raise SystemExit(f"{path}: tensor '{name}' should be finite {list(shape)}, found {list(w[name].shape)}")
    return {name: w[name].float() for name in xfeat_shapes()}


def fold(w: dict, device: str = "cpu") -> dict:
    """The same network with each BatchNorm in its convolution's weight and bias: faster, not to be trained on."""
    import torch
    out = {k: v for k, v in w.items() if ".layer." not in k}
    for name in [k for k in w if k.endswith("layer.0.weight")]:
        mean, var = (w[name.replace("0.weight", f"1.running_{what}")] for what in ("mean", "var"))
        scale = (var + 1e-5).rsqrt()
        out |= {name: w[name] * scale[:, None, None, None], name.replace("weight", "bias"): -mean * scale}
    return {k: v.to(device, memory_format=torch.channels_last) if v.ndim == 4 else v.to(device) for k, v in out.items()}


@functools.lru_cache(1)
def xfeat(path: str = XFEAT_WEIGHTS, device: str = "cpu") -> dict:
    """Folded weights of a file, read once per process; the shipped ones are found from any folder."""
    return fold(load_xfeat(shipped(path)), device)


def at_points(maps, points, size, mode="bilinear"):
    """maps [B, C, h, w] of a picture of `size` (W, H), read at points [B, n, 2] px (pixel numbers): [B, n, C].

    Normalises by the picture's size less one, yet does not align corners: up to a sixteenth of a cell off, as in the official code.
    """
    import torch.nn.functional as F
    grid = 2 * points / (points.new_tensor(size) - 1) - 1
    return F.grid_sample(maps, grid[:, None].to(maps.dtype), mode, align_corners=False)[:, :, 0].mT


def strongest(heat, reliability, top_k, threshold):
    """Keypoints of one picture, float32 [n, 2], pixel numbers, the best first: the highest of their 5 x 5 pixels, above the threshold.

    heat: probability of a keypoint [1, 1, H, W]; reliability [1, 1, H/8, W/8], both 0..1: the score is their product.
    """
    import torch
    picture, size = heat[0, 0].cpu().numpy(), heat.shape[:1:-1]
    peaks = (picture == cv2.dilate(picture, np.ones((5, 5)))) & (picture > threshold)
    points = torch.from_numpy(np.argwhere(peaks)[:, ::-1].astype(np.float32)).to(heat.device)
    score = (at_points(heat, points[None], size, "nearest") * at_points(reliability, points[None], size))[0, :, 0]
    order = score.argsort(descending=True, stable=True)[:top_k]
    return points[order[score[order] > 0]]


def detect(images, w: dict | None = None, top_k: int = 4096, threshold: float = XFEAT_THRESHOLD):
    """XFeat keypoints of RGB uint8 images [h, w, 3] or [B, h, w, 3]: points float32 [n, 2] px, the best first, and their unit
    descriptors float32 [n, 64]; for a batch, a list of such pairs.

    w: see `xfeat`; threshold: least probability of a keypoint.
    """
    import torch
    import torch.nn.functional as F
    w = xfeat() if w is None else w
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(w["skip1.1.bias"].device)
    H, W = batch.shape[-3:-1]
    h, v = (max(32, n // 32 * 32) for n in (H, W))                                          # as in the official code: resized, not padded
    with torch.inference_mode():
        x = (batch.reshape(-1, H, W, 3).float() @ batch.new_full((3,), 1 / 765, dtype=torch.float32))[:, None]
        x = F.interpolate(x, (h, v), mode="bilinear") if (h, v) != (H, W) else x
        features, logits, reliability = xfeat_net(w, x)
        features, ratio, out = F.normalize(features), x.new_tensor([W / v, H / h]), []
        heat = F.pixel_shuffle(logits.softmax(1)[:, :-1], CELL)                             # B 1 h v
        for one in (slice(i, i + 1) for i in range(len(x))):
            points = strongest(heat[one], reliability[one], top_k, threshold)
            descriptors = F.normalize(at_points(features[one], points[None], (v, h), "bicubic")[0], dim=-1)
            out.append((((points + 0.5) * ratio).cpu().numpy(), descriptors.cpu().numpy()))
    return out if batch.ndim == 4 else out[0]


def posed(template, width: float, ground=110):
    """(picture uint8 [h, w, 3], affine [2, 3] canvas -> picture): the untouched template, `width` px wide over a ground, with
    a rim; sides are multiples of 32, which `detect` does not resize."""
    scale, rim = width / template.size[0], 16
    w, h = (math.ceil((v * scale + 2 * rim) / 32) * 32 for v in template.size)
    picture = np.full((h, w, 3), ground, np.uint8)
    composite(picture, draw(template, np.zeros(16), np.zeros(4), scale), rim, rim)
    return picture, np.array([[scale, 0, rim], [0, scale, rim]])


# ---- XFeat: training pairs, drawn ------------------------------------------------------------------------------

def paint(rng, w=720, h=512):
    """One procedural game picture: noise, gradients, shapes, and the text, bars and round icons of a HUD."""
    def color():
        return rng.integers(0, 256, 3).tolist()
    corners = np.array([[color(), color()], [color(), color()]], np.float32)
    base = cv2.resize(corners, (w, h), interpolation=cv2.INTER_LINEAR)
    for side in (int(rng.integers(3, 12)), int(rng.integers(12, 90))):
        noise = rng.normal(0, rng.uniform(0, 60), (side, side, int(rng.choice([1, 3])))).astype(np.float32)
        base += np.atleast_3d(cv2.resize(noise, (w, h), interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))))
    if rng.random() < 0.4:                                              # tiles, as in pixel art
        side = int(rng.integers(8, 40))
        tile = cv2.resize(rng.integers(0, 256, (8, 8, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
        base = base * 0.6 + 0.4 * np.tile(tile, (h // side + 1, w // side + 1, 1))[:h, :w]
    if rng.random() < 0.3:
        base += rng.normal(0, rng.uniform(5, 25), (h, w, 1)).astype(np.float32)
    canvas = np.ascontiguousarray(base.clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 30)):
        at, size = rng.integers(0, (w, h)).tolist(), rng.integers(3, 90, 2).tolist()
        thick, kind = int(rng.choice([-1, -1, 1, 2, 4])), rng.integers(4)
        ink = [int(rng.choice([255, 230, 0, 20]))] * 3 if rng.random() < 0.3 else color()
        if kind == 0:
            cv2.rectangle(canvas, at, (at[0] + size[0], at[1] + size[1]), ink, thick, cv2.LINE_AA)
        elif kind == 1:
            cv2.ellipse(canvas, at, size if rng.random() < 0.5 else size[:1] * 2, 0, 0, 360, ink, thick, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(canvas, at, rng.integers(0, (w, h)).tolist(), ink, abs(thick) + 1, cv2.LINE_AA)
        else:
            cv2.fillPoly(canvas, [(np.array(at) + rng.integers(-60, 60, (5, 2))).astype(np.int32)], ink, cv2.LINE_AA)
    for _ in range(rng.integers(0, 8)):
        x, y = rng.integers(0, (w, h)).tolist()
        ink = [255] * 3 if rng.random() < 0.5 else color()
        if rng.random() < 0.6:
            text = "".join(rng.choice(list("ABXYLRQWERT0123456789:/% abcdeghinorst"), rng.integers(1, 14)))
            font, height, thick = int(rng.integers(0, 5)), rng.uniform(0.3, 1.6), int(rng.integers(1, 4))
            cv2.putText(canvas, text, (x, y), font, height, ink, thick, cv2.LINE_AA)
        else:
            length, thick = int(rng.integers(30, 200)), int(rng.integers(4, 16))
            cv2.rectangle(canvas, (x, y), (x + length, y + thick), [20] * 3, -1)
            cv2.rectangle(canvas, (x, y), (x + int(length * rng.random()), y + thick), ink, -1)
    light = rng.choice([(1.0, 0), (0.35, 0), (0.5, 120), (1.4, 20)], p=[0.5, 0.2, 0.15, 0.15])
    return cv2.convertScaleAbs(canvas, alpha=light[0], beta=light[1])


def degrade(rng, rgb):
    """A picture as a video shows it: other brightness and tint, soft, scaled, noisy, compressed."""
    out = cv2.transform(rgb, np.hstack([np.diag(rng.uniform(0.75, 1.2, 3)), rng.normal(0, 12, (3, 1))]))
    if rng.random() < 0.3:
        h, w = out.shape[:2]
        f = rng.uniform(0.5, 0.95)
        out = cv2.resize(cv2.resize(out, (round(w * f), round(h * f)), interpolation=cv2.INTER_AREA), (w, h), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        out = np.clip(out + rng.normal(0, rng.uniform(2, 8), out.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.75:
        out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 92))])[1], cv2.IMREAD_COLOR)
    return out


def corners(rgb):
    """The teacher of the keypoint head: Shi-Tomasi corners, float32 [n, 2] px.  DEVIATION: the paper's is ALIKE."""
    found = cv2.goodFeaturesToTrack(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 500, 0.01, 4)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2) + 0.5


def cells(points, side):
    """Which pixel of each 8 x 8 cell is a keypoint, int64 [side / 8, side / 8]; 64: none."""
    out = np.full((side // CELL, side // CELL), CELL * CELL)
    x, y = points[((points >= 0) & (points < side)).all(1)].astype(int).T
    out[y // CELL, x // CELL] = y % CELL * CELL + x % CELL
    return out


def random_state(rng):
    """(buttons bool [16], sticks [4]): a pad at rest or in use."""
    return rng.random(16) < rng.choice([0, 0.1, 0.3]), rng.uniform(-1, 1, 4) * (rng.random() < 0.6)


class Pairs:
    """Pairs of pictures with points known in both; item i follows from (seed, i) alone.

    Most show a template over a plain ground, and the same template over a game, or as the temporal median shows it: sharp
    over a washed-out game.  The others show a game picture twice, under a homography.
    A dict: images uint8 [2, SIDE, SIDE], gray; points float32 [2, POINTS, 2] px; corners int64 [2, SIDE / 8, SIDE / 8], see `cells`.
    """
    SIDE, POINTS, SCENES, REPAINT = 224, 160, 48, 2048          # px; per pair; game pictures in use; items until new ones are painted

    def __init__(self, seed: int, pool: list, photos=()):
        self.seed, self.pool, self.photos = seed, pool, photos  # photos: frames of games, RGB, beside the painted ones
        self.era, self.scenes = None, []

    def window(self, rng, index, side):
        """A square of a game picture, uint8 [side, side, 3]."""
        if self.era != index // self.REPAINT:
            cv2.setNumThreads(1)
            self.era = index // self.REPAINT
            paints = np.random.default_rng([self.seed, self.era, 1])
            self.scenes = [paint(paints) for _ in range(self.SCENES)]
        pictures = self.photos if len(self.photos) and rng.random() < 0.5 else self.scenes
        picture = pictures[rng.integers(len(pictures))]
        h, w = picture.shape[:2]
        cut = min(round(side * rng.uniform(0.6, 1.6)), h, w)
        x, y = rng.integers(0, (w - cut + 1, h - cut + 1))
        part = picture[y:y + cut, x:x + cut]
        return cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if cut > side else cv2.INTER_LINEAR)

    def washed(self, rng, index, side):
        """What the temporal median leaves of a game."""
        small = [cv2.resize(self.window(rng, index, side), (5, 5), interpolation=cv2.INTER_AREA) for _ in range(2)]
        return cv2.resize(cv2.addWeighted(small[0], 0.5, small[1], 0.5, 0), (side, side), interpolation=cv2.INTER_CUBIC)

    def overlay_pair(self, rng, index):
        """(shown, clean, warp, where): two pictures as seen and undamaged, the way from one to the other [3, 3], where the template is."""
        side, template = self.SIDE, self.pool[rng.integers(len(self.pool))]
        size = np.array(template.size)
        first = np.exp(rng.uniform(*np.log((90, 420))))                                  # px, its width in the first picture
        second = np.clip(first * np.exp(rng.uniform(-0.5, 0.5)), 80, 420)
        scale = np.array([first, second])[:, None] / size[0]
        corner = side / 2 + rng.uniform(-0.2, 0.2, (2, 2)) * side - scale * size * rng.uniform(0.15, 0.85, 2)
        plain = [np.full((side, side, 3), rng.integers(30, 200), np.uint8), np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8)]
        grounds = [plain[rng.integers(2)] if rng.random() < 0.8 else self.washed(rng, index, side)]
        still = rng.random() < 0.35                                                       # the second as the median shows it
        grounds.append(self.washed(rng, index, side) if still else self.window(rng, index, side))
        states = [random_state(rng) if rng.random() < 0.2 else (np.zeros(16), np.zeros(4)),
                  random_state(rng) if not still or rng.random() < 0.3 else (np.zeros(16), np.zeros(4))]
        shown, clean = [], []
        for ground, state, s, c, opacity in zip(grounds, states, scale[:, 0], corner, (1.0, rng.uniform(0.3, 1))):
            overlay = resample(draw(template, *state), (s, s, *c), side, side)
            shown.append(ground.copy())
            clean.append(ground)
            composite(shown[-1], overlay, 0, 0, opacity)
            composite(clean[-1], overlay, 0, 0)
            if len(shown) == 1:
                where = cv2.dilate(overlay[..., 3], np.ones((7, 7))) > 40
        shown[1] = degrade(rng, shown[1])
        ratio = scale[1, 0] / scale[0, 0]
        warp = np.array([[ratio, 0, corner[1, 0] - ratio * corner[0, 0]], [0, ratio, corner[1, 1] - ratio * corner[0, 1]], [0, 0, 1]])
        return shown, clean, warp, where

    def warped_pair(self, rng, index):
        """The same of a game picture: a square of it, and a slightly turned, scaled and skewed quadrilateral."""
        side = self.SIDE
        big = self.window(rng, index, side * 3 // 2)
        square, ways = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), []
        for loose in (0.0, 1.0):
            turn, grow = loose * rng.normal(0, 0.12), np.exp(loose * rng.uniform(-0.3, 0.3))
            rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * grow
            quad = ((square - 0.5) @ rotate + 0.75 + rng.uniform(-0.15, 0.15, 2) + loose * rng.uniform(-0.06, 0.06, (4, 2))) * side
            ways.append(cv2.getPerspectiveTransform(quad.astype(np.float32), square * side))
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])          # OpenCV counts from the pixel's centre
        clean = [cv2.warpPerspective(big, np.linalg.inv(half) @ m @ half, (side, side), borderMode=cv2.BORDER_REFLECT) for m in ways]
        return [degrade(rng, c) for c in clean], clean, ways[1] @ np.linalg.inv(ways[0]), np.ones((side, side), bool)

    def __getitem__(self, index):
        rng, side, margin = np.random.default_rng([self.seed, int(index)]), self.SIDE, 4
        while True:
            shown, clean, warp, where = (self.overlay_pair if rng.random() < 0.75 else self.warped_pair)(rng, index)
            found = [corners(c) for c in clean]
            sure = found[0][where[tuple(found[0].astype(int).T[::-1])]]                   # corners whose place in the other is known
            rows, columns = np.nonzero(where)
            pick = rng.integers(len(rows), size=2 * self.POINTS) if len(rows) else []
            spread = np.stack([columns[pick], rows[pick]], 1) + rng.random((len(pick), 2))
            points = np.concatenate([rng.permutation(sure)[:self.POINTS // 2], spread]).astype(np.float32)
            moved = cv2.perspectiveTransform(points[None], warp)[0] if len(points) else points
            inside = ((points > margin) & (points < side - margin) & (moved > margin) & (moved < side - margin)).all(1)
            if inside.sum() >= 32:
                break
        keep = np.resize(np.flatnonzero(inside), self.POINTS)
        carried = cv2.perspectiveTransform(sure[None], warp)[0] if len(sure) else sure
        return {"images": np.stack([m.mean(2).astype(np.uint8) for m in shown]), "points": np.stack([points[keep], moved[keep]]),
                "corners": np.stack([cells(found[0], side), cells(np.concatenate([found[1], carried]), side)])}


def files_in(folder: str) -> list[Path]:
    """What a folder holds, below it too; nothing if none is given."""
    return sorted(p for p in Path(folder).rglob("*") if p.is_file()) if folder else []


def film_frames(folder, most: int = 400):
    """About `most` frames of the videos of a folder, RGB uint8 [540, w, 3]."""
    videos = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in VIDEOS and not p.name.endswith(".preview.mp4"))
    if not videos:
        raise SystemExit(f"--backgrounds {folder}: no video in it")
    return [cv2.resize(f, (round(540 * f.shape[1] / f.shape[0]), 540), interpolation=cv2.INTER_AREA)
            for v in videos for f in sample(v, max(3, most // len(videos)))[0]]


# ---- XFeat: training ------------------------------------------------------------------------------------------------

# ---- yours to change: the loss
def xfeat_loss(w: dict, batch: dict, train: bool = True):
    """(loss, descriptor part, keypoint part, share of points found among all others), as in the paper less the fine matcher.

    DEVIATION: descriptors are compared by cosine, as they are when matching, and read where the point truly is; a point has
    to be told not only from the other points but from every cell of the other picture that is more than a cell away.
    """
    import torch
    import torch.nn.functional as F
    images, where = batch["images"], batch["points"].flatten(0, 1)                          # B 2 S S; 2B K 2
    side, sharp = images.shape[-1], 16.0
    features, logits, reliability = xfeat_net(w, images.flatten(0, 1)[:, None].float() / 255, train)
    features, reliability = F.normalize(features.float()), reliability.float()
    points = F.normalize(at_points(features, where - 0.5, (side, side)), dim=-1)            # 2B K 64
    swap = torch.arange(len(where), device=where.device) ^ 1                                # the other picture of the pair
    line = torch.arange(side // CELL, device=where.device) * CELL + CELL / 2
    grid = torch.cartesian_prod(line, line).flip(-1)                                        # N 2 px: centres of the cells
    near_point = torch.cdist(where, where) < CELL
    near_point |= near_point[swap]
    near_point &= ~torch.eye(where.shape[1], dtype=torch.bool, device=where.device)
    near_cell = torch.cdist(where[swap], grid) < 1.5 * CELL
    like = torch.cat([(points @ points[swap].mT).masked_fill(near_point, -1), (points @ features[swap].flatten(2)).masked_fill(near_cell, -1)], -1)
    log_p = (sharp * like).log_softmax(-1).diagonal(dim1=1, dim2=2)                         # 2B K
    trust = (log_p + log_p[swap]).detach().exp()                                            # found, both ways
    matching, certainty = -log_p.mean(), (at_points(reliability, where - 0.5, (side, side))[..., 0] - trust).abs().mean()
    few = torch.ones(CELL * CELL + 1, device=where.device)
    few[-1] = 0.03                                                                          # most cells have no corner
    keypoint = F.cross_entropy(logits.float(), batch["corners"].flatten(0, 1), few)
    hit = (like.argmax(-1) == torch.arange(where.shape[1], device=where.device)).float().mean()
    return matching + 3 * certainty + 2 * keypoint, matching.detach(), keypoint.detach(), hit


@dataclass(frozen=True)
class TrainConfig(Common):
    out: str = "data/xfeat.safetensors"     # the weights; <stem>.state.safetensors beside it resumes
    init: str = ""                          # weights to start from: ours, or the official xfeat.pt
    backgrounds: str = ""                   # folder of gameplay videos to use beside the painted pictures
    steps: int = 160_000                    # of the paper; the learning rate falls over them
    minutes: float = 0.0                    # stop after so long, if that is sooner (all runs of this command together); 0: no limit
    batch: int = 6                          # pairs of pictures per step; the paper: 10
    lr: float = 1e-3                        # peak, of Adam; DEVIATION: 3e-4 in the paper, for far more steps
    validation: int = 200                   # pairs of held-out templates for the figure at the end
    workers: int = 0                        # processes that draw; 0: this one
    threads: int = 0                        # CPU threads of the network; 0: as torch likes


def random_weights(seed: int) -> dict:
    """Weights to start from: He's for what a ReLU follows; the last layers smaller, their biases 0."""
    import torch
    dice, out = torch.Generator().manual_seed(seed), {}
    for name, shape in xfeat_shapes().items():
        fan_in = math.prod(shape[1:])
        out[name] = (torch.ones(shape) if name.endswith("var") else torch.zeros(shape) if len(shape) == 1
                     else torch.randn(shape, generator=dice) * math.sqrt((2 if ".layer." in name else 1) / fan_in))
    return out


class Training:
    """A training run that can be stopped and resumed: parameters by name, their optimizer, and how far it is.  parse.py's is one too.

    A kind of training adds `step(batch)` -> losses, `rate()`, and in `changing` what else its steps change.
    """

    def __init__(self, cfg, params: dict, optimizer, steps: float, recipe: dict):
        import torch
        self.cfg, self.path, self.limit = cfg, Path(cfg.out).with_suffix(".state.safetensors"), steps
        self.params, self.optimizer, self.changing = params, optimizer, {}
        self.moments = {k: {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                        for k, p in params.items()}
        optimizer.state.update((p, self.moments[k]) for k, p in params.items())
        self.steps, self.seconds = 0, 0.0
        free = ("steps", "images", "minutes", "threads", "workers", "validation", "init", "backgrounds")     # may change from call to call; of the last two the path
        self.recipe = json.loads(json.dumps({k: v for k, v in recipe.items() if k not in free}))

    def tensors(self) -> dict:
        """Everything that a step changes, by name."""
        return {**{k: v.detach() for k, v in self.params.items()}, **self.changing,
                **{f"{kind}.{k}": t for k, m in self.moments.items() for kind, t in m.items()}}

    def resume(self) -> None:
        """Go on where the run at this --out stopped, if there is one."""
        import torch
        if not self.path.exists() or self.cfg.fresh:
            if Path(self.cfg.out).exists() and not self.cfg.fresh:
                raise SystemExit(f"{self.cfg.out}: exists, but nothing to go on from; give another --out, or --fresh to replace it")
            return
        saved, info = artefact.read(self.path, "nitrogen.state/1")
        other = [k for k in self.recipe if info["recipe"].get(k) != self.recipe[k]]
        if other:
            raise SystemExit(f"{self.path}: a run with another {', '.join(other)}; give another --out, or --fresh to replace it")
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(saved[name]).view_as(tensor))
        self.steps, self.seconds = info["steps"], info["seconds"]
        print(f"resuming {self.path} at {self.steps:,} steps, {self.seconds / 60:.1f} minutes")

    def suspend(self) -> None:
        artefact.write(self.path, {k: v.cpu().numpy() for k, v in self.tensors().items()}, "nitrogen.state/1",
                  recipe=self.recipe, steps=self.steps, seconds=self.seconds)

    def share(self) -> float:
        """0 at the start, 1 at the end of the run, by steps or by minutes, whichever is first."""
        return max(self.steps / self.limit, self.seconds / 60 / self.cfg.minutes if self.cfg.minutes else 0)

    def descend(self, loss) -> None:
        """One step of the optimizer."""
        import torch
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
        self.optimizer.step()
        self.steps += 1

    def follow(self, feed, say) -> bool:
        """Train on the batches that `feed(first item, number of items)` yields, to the end of the run; say(mean losses) is shown beside the
        bar.  What was learned is saved every minute.  False: this run was finished already."""
        if self.share() >= 1 and Path(self.cfg.out).exists():
            print(f"{self.cfg.out}: finished already; more --minutes, --steps or --images go on from there")
            return False
        smooth, saved, last = None, time.monotonic(), time.monotonic()
        left = max(math.ceil(self.limit) - self.steps, 0) * self.cfg.batch
        with tqdm(total=100, bar_format="{percentage:5.1f} % |{bar:20}| {elapsed} {postfix}", mininterval=1) as bar:
            for batch in feed(self.steps * self.cfg.batch, left) if self.share() < 1 else ():
                losses = np.array(self.step(batch))
                smooth = losses if smooth is None else smooth * 0.98 + losses * 0.02
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                bar.n = min(100 * self.share(), 100)
                bar.set_postfix_str(f"step {self.steps:,}, {self.steps * self.cfg.batch / self.seconds:.0f} pairs/s, {say(smooth)}, lr {self.rate():.1e}")
                if now - saved > 60 or self.share() >= 1:
                    self.suspend()
                    saved = now
                if self.share() >= 1:
                    break
        return True


class XFeatTraining(Training):
    def __init__(self, cfg: TrainConfig, device: str):
        import torch
        start = load_xfeat(cfg.init) if cfg.init else random_weights(cfg.seed)
        self.w = {k: v.to(device, memory_format=torch.channels_last) if v.ndim == 4 else v.to(device) for k, v in start.items()}
        params = {k: v.requires_grad_() for k, v in self.w.items() if "running" not in k}
        recipe = recipe_of(cfg, *files_in(cfg.backgrounds), *([cfg.init] if cfg.init else []))
        super().__init__(cfg, params, torch.optim.Adam(params.values(), cfg.lr, fused=True), cfg.steps, recipe)
        self.changing = {k: v for k, v in self.w.items() if "running" in k}
        self.resume()

    def rate(self) -> float:
        """A short warm-up, then half a cosine down to 2 % of the peak.  DEVIATION: the paper halves it every 30,000 steps."""
        return self.cfg.lr * min((self.steps + 1) / 100, 0.51 + 0.49 * math.cos(math.pi * min(self.share(), 1)))

    def step(self, batch: dict):
        device = self.w["skip1.1.bias"].device
        with autocast(str(device)):
            loss, *parts = xfeat_loss(self.w, {k: v.to(device, non_blocking=True) for k, v in batch.items()})
        self.descend(loss)
        return [loss.item(), *(p.item() for p in parts)]


def batches(data, first: int, count: int, size: int, workers: int = 0):
    """Batches of items first .. first + count - 1, in order, drawn by `workers` processes."""
    import torch
    more = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}         # forked from a process with threads, a drawer may hang
    loader = torch.utils.data.DataLoader(data, size, sampler=range(first, first + count), num_workers=workers, **more)
    with sigint_held_back():                    # they leave Ctrl-C to us
        return iter(loader)


def machine(device: str) -> str:
    """What the training ran on, in words."""
    import torch
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = facts.partition("model name")[2].partition("\n")[0].strip(" \t:") or platform.processor()
    return f"{torch.get_num_threads()} thread(s) of {os.cpu_count()}, {model}"


def held_out_points(w: dict, data: Pairs, count: int) -> float:
    """Share of points that are found among all others and all cells of the other picture, over `count` pairs."""
    import torch
    device, hits = w["skip1.1.bias"].device, []
    with torch.no_grad():
        for item in (data[i] for i in range(count)):
            hits.append(xfeat_loss(w, {k: torch.as_tensor(v, device=device)[None] for k, v in item.items()}, train=False)[3].item())
    return float(np.mean(hits))


def train(cfg: TrainConfig) -> None:
    import torch
    device = pick_device(cfg.device)
    keep_memory()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    if cfg.backgrounds and not Path(cfg.backgrounds).is_dir():
        raise SystemExit(f"--backgrounds {cfg.backgrounds}: no such folder")
    expect(cfg, steps=(1, 1e12), minutes=(0, math.inf), batch=(1, 1e6), lr=(0, 1e3), validation=(1, 1e9), workers=(0, 4096), threads=(0, 4096))
    run, photos = XFeatTraining(cfg, device), film_frames(cfg.backgrounds) if cfg.backgrounds else []
    known, unseen = ([t for name, t in templates().items() if held_out(name) == out] for out in (False, True))
    until = f"{cfg.minutes:g} minutes" if cfg.minutes else f"{cfg.steps:,} steps"
    data = Pairs(cfg.seed, known, [p for i, p in enumerate(photos) if i % 8])
    print(f"train XFeat, {sum(p.numel() for p in run.params.values()):,} parameters, on {device}: {len(known)} templates ({len(unseen)} held out), "
          f"{len(photos)} frames of games, batches of {cfg.batch} pairs, until {until} -> {cfg.out}\n{cfg}")
    if not run.follow(lambda first, count: batches(data, first, count, cfg.batch, cfg.workers),
                      lambda v: f"loss {v[0]:.3f} (descriptors {v[1]:.3f}, keypoints {v[2]:.3f}), found {v[3]:.3f}"):
        return
    w = {k: v.detach().cpu().half() for k, v in run.w.items()}
    found = held_out_points(run.w, Pairs(cfg.seed + 1, unseen, photos[::8]), cfg.validation)
    print(f"points of held-out templates told from all others of the picture: {found:.3f}")
    artefact.write(cfg.out, {k: v.numpy() for k, v in w.items()}, "nitrogen.features/1", recipe=run.recipe, steps=run.steps,
              images=2 * cfg.batch * run.steps, minutes=round(run.seconds / 60, 1), machine=machine(device), templates=len(known),
              held_out=len(unseen), found_held_out=round(found, 4))
    print(f"{cfg.out}: {Path(cfg.out).stat().st_size:,} bytes")


# ---- localization (paper 2.1): frames, their median, SIFT; the best verified template, registered ------------------
# DEVIATION: the paper matches single frames with template after template and fits affines.  The overlay stands still and the
# game does not, so the temporal median of the frames shows it best; and each SIFT match already says how large and where
# the template would be, so all templates are searched at once: matches vote (Lowe, IJCV 2004, section 7.3).

def sample(video, n: int):
    """(frames, indices, count): n RGB frames spread over the video, in one pass."""
    count = video_facts(video)["frames"]
    count = count if count > 0 else sum(1 for _ in read_video(video))
    wanted = np.unique(np.linspace(0, count - 1, n).round().astype(int))
    got = [(frame, i) for i, _, frame in read_video(video, wanted, JUMP)]
    if len(got) < 0.9 * len(wanted):
        raise SystemExit(f"{video}: breaks off after frame {got[-1][1] if got else 0} of {count}")
    return [f for f, _ in got], [i for _, i in got], count


def middle(images):
    """Temporal median (the upper one of an even number): what stands still stays sharp.

    Of any n // 2 + 2 of n images neither the least nor the greatest is the median: both are forgotten for one of the rest, and so on.
    In rows that the cache holds, this takes a twentieth of the time of np.partition.
    """
    result, n = np.empty_like(images[0]), len(images) // 2 + 2
    odd = [*images, *[np.full_like(result, 255)] * (1 - len(images) % 2)]           # a white one makes an even number odd
    for y in range(0, len(result), 8):
        rows = [image[y:y + 8] for image in odd]
        kept, rest = rows[:n], rows[n:]
        while len(kept) > 1:
            for i in [*range(len(kept) - 1), *range(len(kept) - 3, -1, -1)]:        # the greatest goes to the end, then the least to the front
                kept[i], kept[i + 1] = np.minimum(kept[i], kept[i + 1]), np.maximum(kept[i], kept[i + 1])
            kept, rest = kept[1:-1] + rest[:1], rest[1:]
        result[y:y + 8] = kept[0]
    return result


def sift(rgb):
    """SIFT of an RGB image: (x, y, size in px, angle in degrees) float32 [n, 4]; descriptors uint8 [n, 128]."""
    found, descriptors = cv2.SIFT_create(8000, contrastThreshold=0.02).detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
    if not found:
        return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    return np.array([(k.pt[0] + 0.5, k.pt[1] + 0.5, k.size, k.angle) for k in found], np.float32), descriptors.astype(np.uint8)


def root(descriptors):
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012): uint8 [n, 128] -> float32 [n, 128] of length 1."""
    descriptors = descriptors.astype(np.float32)
    return np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))


def features(rgb):
    """`sift`, its descriptors as `root` makes them."""
    points, descriptors = sift(rgb)
    return points, root(descriptors)


def idle(template, ground, scale=1.0):
    """The template untouched, over a gray or an RGB colour: uint8 [h, w, 3]."""
    picture = draw(template, np.zeros(16), np.zeros(4), scale)
    frame = np.empty((*picture.shape[:2], 3), np.uint8)
    frame[:] = ground
    composite(frame, picture, 0, 0)
    return frame


def learned(rgb, weights: str):
    """XFeat in the form of `features`: float32 [n, 4], float32 [n, 64].  It has neither sizes nor angles: 1 px and 0 degrees."""
    points, descriptors = detect(rgb, xfeat(weights))
    return np.column_stack([points, np.ones(len(points)), np.zeros(len(points))]).astype(np.float32), descriptors


def detectors(weights: str) -> dict:
    return {"sift": features, "xfeat": functools.partial(learned, weights=weights)}


def poses(template, detector: str):
    """The pictures of a template that are described: (picture, affine [2, 3] canvas -> picture).  XFeat bears less change of scale."""
    if detector == "xfeat":
        return [posed(template, width) for width in XFEAT_WIDTHS]
    return [(idle(template, ground, scale), np.array([[scale, 0, 0], [0, scale, 0]])) for ground in GROUNDS for scale in SCALES]


def described(pool: Pool, names: list, detector: str, weights: str) -> dict:
    """What `detector` finds in the templates of these names: points float32 [n, 4], in canvas px; descriptors [n, d], SIFT's as uint8;
    owner int32 [n], number in `names`; sizes float32 [templates, 2], px."""
    find = sift if detector == "sift" else functools.partial(learned, weights=weights)

    def one(name):
        template, found = pool[name], []
        for picture, affine in poses(template, detector):
            points, descriptors = find(picture)
            found.append((((points - (*affine[:, 2], 0, 0)) / (*[affine[0, 0]] * 3, 1))[:MOST].astype(np.float32), descriptors[:MOST]))
        return template.size, *map(np.concatenate, zip(*found))

    # In threads it is 1.3 to 1.5 times as fast on two cores: OpenCV runs beside Python, in which templates are drawn.  PyTorch uses all cores by itself.
    threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() if detector == "sift" else 1)
    try:
        sizes, points, descriptors = zip(*tqdm(threads.map(one, names), "templates described, once", len(names), leave=False, mininterval=2))
    finally:
        threads.shutdown(cancel_futures=True)                      # Ctrl-C: what has not begun does not begin
    return {"points": np.concatenate(points), "descriptors": np.concatenate(descriptors), "sizes": np.array(sizes, np.float32),
            "owner": np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, points)))}


def kept(folder: str, digest: str, make, **facts) -> dict:
    """The tensors that `make()` makes, read from data/`folder` if they were made before; of those there, the ones used last stay."""
    path, form = ROOT / "data" / folder / f"{digest}.safetensors", f"nitrogen.{folder}/1"
    with contextlib.suppress(SystemExit):                          # not there, or broken: made anew
        tensors = artefact.read(path, form)[0]
        with contextlib.suppress(OSError):
            os.utime(path)                                         # it is in use
        return tensors
    tensors = make()
    with contextlib.suppress(OSError, SystemExit):                 # a folder that cannot be written costs time, nothing else
        artefact.write(path, tensors, form, **facts)
        for old in sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[:-INDICES]:
            old.unlink(missing_ok=True)
    return tensors


def bank_of(pool: Pool, detector: str, weights: str = XFEAT_WEIGHTS) -> dict:
    """The pool's `index`, read once."""
    if (detector, weights) not in pool.indices:
        pool.indices[detector, weights] = index(pool, detector, weights)
    return pool.indices[detector, weights]


def index(pool: Pool, detector: str, weights: str):
    """Descriptors of all templates, sorted into cells of like ones, so that a search looks at few: kept in data/index for the next time.

    points float32 [n, 4] as `features`, in canvas px; descriptors int8 [n, d], 127 = 0.5; owner int32 [n], number in the pool;
    centers float32 [cells, d]; start int64 [cells + 1]; sizes float32 [templates, 2], px.
    """
    drawing = "".join(map(inspect.getsource, (pads, sift, root, idle, learned, poses, described, sprites, resample, over, draw)))     # all that the descriptors follow from
    drawing += repr((GROUNDS, SCALES, MOST, XFEAT_WIDTHS))
    network = b"".join(v.numpy().tobytes() for v in xfeat(weights).values()) if detector == "xfeat" else b""
    digest = lambda names, more=b"": hashlib.sha256((drawing + repr((detector, names))).encode() + network + more).hexdigest()[:16]   # noqa: E731
    own, names = list(pool.own), [name for name in pool if name not in pool.own]

    def builtin_ones():
        return described(pool, names, detector, weights)

    def make():
        # A person adds or changes own templates and tries again: the built-in ones are not described anew then.  XFeat's descriptors would
        # take four times the room, and are asked for only where SIFT shows nothing.
        parts = [kept("descriptors", digest(names), builtin_ones, templates=names) if detector == "sift" else builtin_ones()]
        if own:
            parts = [described(pool, own, detector, weights), {**parts[0], "owner": parts[0]["owner"] + len(own)}]
        points, descriptors, owner, sizes = (np.concatenate([part[key] for part in parts]) for key in ("points", "descriptors", "owner", "sizes"))
        descriptors = root(descriptors) if detector == "sift" else descriptors
        centers = descriptors[np.random.default_rng(0).permutation(len(points))[:max(1, min(len(points) // 128, 8192))]]
        cell = np.concatenate([(descriptors[i:i + 8192] @ centers.T).argmax(1) for i in range(0, len(points), 8192)])
        order = np.argsort(cell, kind="stable")
        return {"points": points[order], "descriptors": (descriptors[order] * 254).clip(-127, 127).astype(np.int8), "owner": owner[order],
                "centers": centers, "start": np.searchsorted(cell[order], np.arange(len(centers) + 1)), "sizes": sizes}

    skins = b"".join(t.atlas.tobytes() + repr((t.size, t.elements)).encode() for t in pool.own.values())
    return kept("index", digest(list(pool), skins), make, templates=list(pool))


def match(descriptors, bank, least: float):
    """All pairs of descriptors with a cosine above `least`, a picture's and the templates': (row there, row in the bank), int [m] each."""
    import torch
    probes = min(PROBES, len(bank["centers"]))
    cell = torch.topk(torch.from_numpy(descriptors @ bank["centers"].T), probes, sorted=False)[1].numpy().ravel()
    order = np.argsort(cell, kind="stable")
    row, edges, pairs = (np.arange(len(cell)) // probes)[order], np.searchsorted(cell[order], np.arange(len(bank["centers"]) + 1)), []
    for c in np.unique(cell):
        here, there = row[edges[c]:edges[c + 1]], slice(bank["start"][c], bank["start"][c + 1])
        a, b = np.nonzero(descriptors[here] @ bank["descriptors"][there].astype(np.float32).T > least * 254)
        pairs.append((here[a], b + there.start))
    return tuple(np.concatenate(column) for column in zip(*pairs)) if pairs else (np.zeros(0, int), np.zeros(0, int))


def vote(points, pairs, bank, frame_w, keep=12):
    """The templates that most matches agree on, one place each: [(votes, template's number, affine)], best first.

    A match says scale (from the keypoints' sizes) and centre of the canvas; votes are counted in overlapping bins of 35 % in
    scale and a fifth of the overlay's width in place.  DEVIATION: scale and shift are fitted, not an affine (an overlay stands upright).
    """
    a, b = pairs
    owner, scale = bank["owner"][b], points[a, 2] / bank["points"][b, 2]
    width, turn = scale * bank["sizes"][owner, 0] / frame_w, (points[a, 3] - bank["points"][b, 3] + 180) % 360 - 180
    ok = (np.abs(turn) < 25) & (width > 0.7 * WIDTHS[0]) & (width < 1.4 * WIDTHS[1])
    a, b, owner, scale = a[ok], b[ok], owner[ok], scale[ok]
    centre = points[a, :2] + scale[:, None] * (bank["sizes"][owner] / 2 - bank["points"][b, :2])
    bins = []
    for shift in itertools.product((0, 0.5), repeat=3):
        level = np.floor(np.log(scale) / 0.3 + shift[0])
        side = 0.2 * np.exp(0.3 * (level - shift[0] + 0.5)) * bank["sizes"][owner, 0]
        x, y = (np.floor(centre[:, k] / side + shift[1 + k]) for k in (0, 1))
        key = (((owner * 64 + level + 32) * 1024 + x + 256) * 1024 + y + 256).astype(np.int64)
        _, one = np.unique(key * len(points) + a, return_index=True)         # a keypoint has one vote in a bin
        _, which, count = np.unique(key[one], return_inverse=True, return_counts=True)
        bins += [(int(count[k]), one[which == k]) for k in np.argsort(-count, kind="stable")[:4 * keep] if count[k] >= MIN_VOTES]
    found = {}
    for votes, rows in sorted(bins, key=lambda v: -v[0]):
        number = int(owner[rows[0]])
        if number not in found and len(found) < keep:
            source, target = bank["points"][b[rows], :2], points[a[rows], :2]
            i, j = np.triu_indices(min(len(rows), 80), 1)
            far = np.linalg.norm(source[i] - source[j], axis=1)
            if (far > 20).sum() >= 3:
                size = np.median((np.linalg.norm(target[i] - target[j], axis=1) / far.clip(1))[far > 20])
                x, y = np.median(target - size * source, axis=0)
                if WIDTHS[0] < size * bank["sizes"][number, 0] / frame_w < WIDTHS[1]:
                    found[number] = votes, number, np.array([[size, 0, x], [0, size, y]])
    return list(found.values())


def count_inliers(points, pairs, bank, number: int, affine, tolerance=3.0) -> int:
    """Keypoints that a template's own ones fall on, within `tolerance` px."""
    mine = bank["owner"][pairs[1]] == number
    a, b = pairs[0][mine], pairs[1][mine]
    near = np.linalg.norm(bank["points"][b, :2] * np.diag(affine[:, :2]) + affine[:, 2] - points[a, :2], axis=1) < tolerance
    return len(np.unique(a[near]))


def plausible(affine, size, frame_w, frame_h):
    """Aspect near 1, of a sensible size, inside the frame."""
    (a, _, x), (_, d, y) = affine
    w, h, slack = a * size[0], d * size[1], 0.04 * a * size[0]
    fits = min(x, y) > -slack and x + w < frame_w + slack and y + h < frame_h + slack
    return min(a, d) > 0 and 0.8 < a / d < 1.25 and WIDTHS[0] < w / frame_w < WIDTHS[1] and fits


def blurred(picture, sigma, step: int = 1):
    """By a Gaussian; if step > 1 nearly so, at 1 / step of the resolution: the box of the one resize and the tent of the other blur, too."""
    small = cv2.resize(picture, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA) if step > 1 else picture
    small = cv2.GaussianBlur(small, (0, 0), (sigma ** 2 / step ** 2 - (step > 1) / 4) ** 0.5)
    return cv2.resize(small, picture.shape[1::-1]) if step > 1 else small


def band(picture, step: int = 1):
    """Edges and lines without noise and without the slow changes of what shines through."""
    return cv2.GaussianBlur(picture, (0, 0), 1.0) - blurred(picture, 8.0, step)


def expected(seen, drawn, step: int = 1, without=0):
    """The band of a crop, float32 [h, w, 3], if it were the template over what shines through; drawn: RGBA float32, premultiplied.

    without=1: what the template adds to the band of what is behind it.
    """
    clear = 1.001 - drawn[..., 3] / 255
    soft, clear = (cv2.merge([v] * 3) for v in (blurred(clear, 6.0, step), clear))          # NumPy is slow where [h, w, 1] meets [h, w, 3]
    return band(cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB) + (clear - without) * (blurred(seen * clear, 6.0, step) / soft), step)


def refine(image, template, affine, widest=1000, steps=25):
    """Register the drawn template on `image`, uint8 RGB [h, w, 3], to a fraction of a px: (affine [2, 3], likeness -1..1).

    Gauss-Newton on scale and position: per step, weighted least squares over the overlay's pixels p for
    image(p) + gradient(p) . dp = gain x template(p) + bias; pixels that disagree (sticks, pressed buttons) weigh less.
    widest: resolution at which to compare, px across; fewer is faster.
    """
    a = np.array([[affine[0][0], 0, affine[0][2]], [0, affine[1][1], affine[1][2]]], float)
    start, (w, h) = a.copy(), template.size
    scale = min(max(32, round(w * a[0, 0])), widest) / w
    drawn = draw(template, np.zeros(16), np.zeros(4), scale).astype(np.float32)
    rows, cols = drawn.shape[:2]
    size = cols / scale, rows / scale                       # what the drawn pixels cover, canvas px
    near = cv2.dilate(drawn[..., 3], np.ones((5, 5))) / 255
    on = np.flatnonzero(near > 0.3)                         # the overlay's pixels and a rim around them
    v, u = (np.repeat((m + 0.5).astype(np.float32) / scale, 3) for m in np.divmod(on, cols))
    robust = weight = np.repeat(near.ravel()[on], 3)
    system = -np.ones((6, 3 * len(on)), np.float32)         # a row per unknown: scale and shift in x, in y, gain, bias
    there = lambda picture: picture.reshape(-1, 3)[on].ravel()                          # noqa: E731
    for step in range(steps):
        seen = crop(image, a, size, cols, rows).astype(np.float32)
        if step == 0:
            model = there(expected(seen, drawn))
            system[4] = -model
        seen = band(seen)
        system[1] = there(cv2.Sobel(seen, cv2.CV_32F, 1, 0, scale=0.125 * scale / a[0, 0]))     # per frame px
        system[3] = there(cv2.Sobel(seen, cv2.CV_32F, 0, 1, scale=0.125 * scale / a[1, 1]))
        np.multiply(system[1], u, system[0]), np.multiply(system[3], v, system[2])
        seen = there(seen)
        weighted = system * robust
        d = np.linalg.lstsq(weighted @ system.T, -weighted @ seen, rcond=None)[0]
        residual = seen + d.astype(np.float32) @ system
        robust = weight / (1 + (residual / (1.5 * np.median(np.abs(residual[::5])) + 1e-3))**2)      # a fifth says it as well
        a += np.array([[d[0], 0, d[1]], [0, d[2], d[3]]])
        if not np.isfinite(a).all() or np.abs((a - start) @ (w, h, 1)).max() > 0.1 * w * start[0, 0] or min(a[0, 0], a[1, 1]) < 0.05:
            return start, 0.0                               # ran away: nothing to register on
        if np.abs(d[:4] * (w, 1, h, 1)).max() < 0.01:
            break
    return a, float(np.corrcoef(model, seen)[0, 1]) if seen.std() > 1e-3 else 0.0          # a frame of one colour shows nothing


def confirmed(image, template, affine, widest=400, whole=False, without=0):
    """Median over the buttons and sticks of each one's own likeness, -1..1: one ring that fits does not make a controller.

    whole: over textures too, and sticks with the room that they move in: of two sticks alone, the median shows the rings.
    without=1: likeness of what they add to what is behind them: black lines on black add nothing, and else fit anything.
    It is times the share, to the fourth, of the overlay's pixels whose colour it can show at half opacity or more.
    """
    scale = min(max(32, round(template.size[0] * affine[0, 0])), widest) / template.size[0]
    drawn = draw(template, np.zeros(16), np.zeros(4), scale).astype(np.float32)
    rows, cols = drawn.shape[:2]
    seen, likes, share = crop(image, affine, (cols / scale, rows / scale), cols, rows).astype(np.float32), [], 1.0
    model = expected(seen, drawn, without=without)
    if without:
        low, high = drawn[..., :3] / 2, 255 - (drawn[..., 3:] - drawn[..., :3]) / 2       # over black and over white, at half opacity
        share = np.average((np.maximum(low - seen, seen - high) < 12).all(2), weights=drawn[..., 3])
    seen = band(seen) - without * (expected(seen, drawn) - model)
    for e in template.elements:
        (x, y), (w, h), r = e.pos, e.mapping[2:], e.radius * whole
        part = tuple(slice(max(0, int((a - r) * scale)), math.ceil((a + n + r) * scale)) for a, n in ((y, h), (x, w)))
        a, b = seen[part].ravel(), model[part].ravel()
        if (whole or e.kind != "texture") and a.size and a.std() > 0 and b.std() > 0:
            likes.append(np.corrcoef(a, b)[0, 1] / (1 + 0.5 * without / (a.std() * b.std())))      # 0.5: of noise
    return float(np.median(likes) * share**4) if likes else -1.0


class Found(typing.NamedTuple):
    """A template, registered on a picture."""
    score: float = 0.0          # inliers x likeness^2, in units of the paper's bar; `swept`: see there.  It is there from SURE on
    inliers: int = 0
    likeness: float = 0.0       # -1..1
    template: str = ""          # "": nothing fits anywhere
    affine: typing.Any = None   # float64 [2, 3], template px -> picture px


def search(image, pool, cfg: Config) -> Found:
    """The best verified template in a picture.

    Verified: registered on the picture, then scored by inliers x likeness^2, over all candidates, not the first over a bar.
    XFeat is asked where SIFT shows nothing: it sees what is faint and small, and much that is not there.
    """
    names, best = list(pool), Found()
    for detector, describe in detectors(cfg.xfeat).items():
        bank, candidates, (points, descriptors) = bank_of(pool, detector, cfg.xfeat), [], describe(image)
        pairs = match(descriptors, bank, ALIKE[detector])
        for _, number, affine in vote(points, pairs, bank, image.shape[1]):
            if count_inliers(points, pairs, bank, number, affine, 8.0) >= MIN_VOTES:
                affine, like = refine(image, pool[names[number]], affine, widest=160, steps=10)
                candidates.append((count_inliers(points, pairs, bank, number, affine) * max(like, 0)**2, number, affine, like))
        for value, number, affine, like in sorted(candidates, key=lambda f: -f[0])[:3]:
            if value >= HOPE * SURE * cfg.min_inliers:              # else it can only be the nearest place, as it is
                affine, like = refine(image, pool[names[number]], affine, widest=400)
                like = min(like, confirmed(image, pool[names[number]], affine))
            inliers = count_inliers(points, pairs, bank, number, affine)
            if plausible(affine, pool[names[number]].size, *image.shape[1::-1]):
                score = inliers * max(like, 0)**2 / cfg.min_inliers
                score = score if like >= LIKE else min(score, HOPE * SURE)
                best = max(best, Found(score, inliers, like, names[number], affine), key=lambda f: f.score)
        if best.score >= SURE:
            break
    return best


# Skins with few features: a d-pad alone, thin lines.  They are yours and few, so each is laid on the picture everywhere.

def edges(pictures):
    """Where pictures of one size have edges and which way these run: float32 [h, w, 2], vectors at twice the angle.

    They are about as long along any edge, faint or strong, and point the same way for light on dark as for dark on
    light: how bright an overlay is, and what shines through, hardly matters.
    """
    along, across, strength = 0, 0, FAINT**2
    for picture in pictures:
        soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
        x, y = (np.atleast_3d(cv2.Sobel(soft, cv2.CV_32F, *d, scale=0.125)) for d in ((1, 0), (0, 1)))
        along, across = along + (x * x - y * y).sum(2), across + 2 * (x * y).sum(2)
        strength = strength + (x * x + y * y).sum(2)
    return cv2.merge([along / strength, across / strength])


def spectrum(field, w: int, h: int):
    """Fourier transform of what `edges` gives, as complex numbers, on a sheet of at least w x h."""
    w, h = cv2.getOptimalDFTSize(w), cv2.getOptimalDFTSize(h)
    sheet = cv2.copyMakeBorder(field, 0, h - field.shape[0], 0, w - field.shape[1], cv2.BORDER_CONSTANT)
    return cv2.dft(sheet, flags=cv2.DFT_COMPLEX_OUTPUT, nonzeroRows=field.shape[0])


def layers(median, frames):
    """Spectra of the edges of a video at ever smaller sizes: [(w, h, spectrum)].

    Of the median, and of the standard deviation over time: opaque lines are dark there, however little they stand
    out from what is behind them on average, and buttons in use are bright.
    """
    tall, out = median.shape[0] / median.shape[1], []
    widest = SWEPT[1] / max(1, tall)
    size = round(widest), round(widest * tall)
    median, *small = (cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in (median, *frames))
    spread = np.std([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in small], axis=0, dtype=np.float32)
    for k in range(int(math.log(widest / SWEPT[0], STEP))):
        w, h = (round(v / STEP**k) for v in size)
        still, moving = (edges([cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA)]) for p in (median, spread))
        out.append((w, h, spectrum((still + moving) / 2, w, h)))
    return out


def sweep(layers, template, frame_w: int, keep=2):
    """Where a template's edges run as the picture's do: [(agreement -1..1, affine)], the best few.

    The template is drawn once, over dark and over light, and laid on each of the layers: it is as much larger as they are smaller.
    """
    (w, h), rim, found, best = template.size, 3, [], []
    scale = SWEPT[0] * min(math.sqrt(w / h), 1.8) / w
    margin = (rim, rim), (rim, rim), (0, 0)
    mine = edges([np.pad(idle(template, g, scale), margin, constant_values=g) for g in (40, 215)])
    (rows, cols), weight = mine.shape[:2], np.hypot(*np.moveaxis(mine, 2, 0)).sum()
    for across, down, seen in layers:
        if rows <= down and cols <= across and weight > 1:             # a skin may be nothing at rest
            both = cv2.mulSpectrums(seen, spectrum(mine, across, down), 0, conjB=True)
            agree = cv2.dft(both, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[:down - rows + 1, :across - cols + 1, 0] / weight
            for _ in range(keep):
                _, value, _, (x, y) = cv2.minMaxLoc(agree)
                k, r = frame_w / across, max(2, cols // 12)
                found.append((value, np.array([[scale * k, 0, (x + rim) * k], [0, scale * k, (y + rim) * k]])))
                agree[max(0, y - r):y + r + 1, max(0, x - r):x + r + 1] = -1
    for value, a in sorted(found, key=lambda f: -f[0]):
        far = [np.abs((a - b) @ [[w, 0], [h, 0], [1, 1]]).max() > 0.1 * w * a[0, 0] for _, b in best]      # a corner is elsewhere
        if all(far) and len(best) < keep:
            best.append((value, a))
    return best


def swept(frames, median, pool, names) -> Found:
    """The best of the templates `names`, by how it looks alone: its score is SURE where the product at AGREED is as much.

    Of those that are there, the largest, for its likeness: a d-pad is also a part of a pad.
    """
    stack, rough, found = layers(median, frames), [], [Found()]
    for name in names:
        tries = []
        for agree, affine in sweep(stack, pool[name], median.shape[1]):
            affine, like = refine(median, pool[name], affine, widest=160, steps=6)
            tries.append((agree * like, agree, name, affine))
        rough += sorted(tries, key=lambda t: -t[0])[:1]
    for _, agree, name, affine in sorted(rough, key=lambda t: -t[0])[:3]:
        affine, like = refine(median, pool[name], affine, widest=400)
        parts, adds = (confirmed(median, pool[name], affine, whole=True, without=k) for k in (0, 1))
        like = min(like, parts)
        if plausible(affine, pool[name].size, *median.shape[1::-1]):
            found.append(Found(SURE * agree * max(like, 0)**8 * max(adds, 0) / AGREED, 0, like, name, affine))
    there = [f for f in found if f.score >= SURE]
    side = lambda f: math.sqrt(math.prod(pool[f.template].size) * f.affine[0, 0] * f.affine[1, 1])
    return max(there, key=lambda f: f.likeness * side(f)) if there else max(found, key=lambda f: f.score)


def likeness(frames, template, affine):
    """Per frame, how well the template fits at this place: -1..1."""
    return np.array([refine(f, template, affine, widest=160, steps=2)[1] for f in frames])


def shown(frames, template, affine):
    """In which frames, in order, the template is there: bool [n].  Three neighbours are judged together, against the better half."""
    like = likeness(frames, template, affine)
    return np.convolve(np.pad(like, 1, mode="edge"), np.ones(3) / 3, "valid") > THERE * np.sort(like)[len(like) // 2:].mean()


def runs(values):
    """[(first, last, value)] of the stretches of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(a, b - 1, values[a]) for a, b in zip(edges[:-1], edges[1:])]


def places(frames, pool, cfg: Config):
    """Where the overlay is, and when: (search's best result, [(first, last, affine)] in numbers of `frames`; none if it is nowhere).

    In the median of all frames; then in that of each stretch that does not show it there (an overlay may move or come late); if it
    is nowhere, in the thirds of the video.  CHOICE: one template per video.
    """
    place, affines, best, tried = np.full(len(frames), -1), [], Found(), set()
    todo = [range(len(frames))]
    while todo:
        rows = todo.pop()
        tried.add(rows)
        some = [frames[i] for i in rows]
        median = middle(some)
        result = search(median, pool, cfg)
        names = [n for n in (pool.own if len(rows) == len(frames) else [best.template] if affines else []) if n in pool.own]
        if names and result.score < SURE:
            result = max(result, swept(some, median, pool, names), key=lambda f: f.score)
        if result.score < SURE:
            if len(rows) == len(frames):
                best, thirds = result, len(rows) // 3
                todo = [range(k * thirds, (k + 1) * thirds) for k in range(3) if thirds >= MIN_STRETCH]
        elif not affines or result.template == best.template:
            best, free = best if affines else result, np.flatnonzero(place < 0)
            here = free[shown([frames[i] for i in free], pool[result.template], result.affine)]
            place[here] = len(affines)
            affines.append(result.affine)
            stretches = [range(a, b + 1) for a, b, value in runs(place) if value < 0]
            todo = [r for r in stretches if len(r) >= MIN_STRETCH and r not in tried]
    for a, b, value in runs(place):                         # a short gap is a glare, not an absence
        if value < 0 and b - a + 1 < MIN_STRETCH and affines:
            place[a:b + 1] = place[a - 1] if a else place[b + 1]
    return best, [(a, b, affines[value]) for a, b, value in runs(place) if value >= 0]


def edge(video, inside: int, outside: int, template, affine):
    """The last frame, from `inside` towards `outside`, that shows the template at this place."""
    while abs(outside - inside) > 1:
        asked = np.unique(np.linspace(inside, outside, 18).round().astype(int))
        like = likeness([f for _, _, f in read_video(video, asked, JUMP)], template, affine)
        asked, like = (asked, like) if inside < outside else (asked[::-1], like[::-1])
        n = np.arange(1, len(like))                         # where to cut, so that the two sides differ most
        before, after = np.cumsum(like)[:-1] / n, np.cumsum(like[::-1])[-2::-1] / n[::-1]
        k = int(np.argmax(np.sign(before - after) * (before - after)**2 * n * n[::-1]))
        inside, outside = int(asked[k]), int(asked[k + 1])
    return inside


def locate(video, pool, cfg: Config):
    """Find the overlay of a video: (tensors, info) as in artefact.FORMATS["nitrogen.overlay/1"], and the sampled frames."""
    frames, numbers, count = sample(video, cfg.frames)
    frame_h, frame_w = frames[0].shape[:2]
    shrink = min(1.0, WORK_WIDTH / frame_w)
    small = [cv2.resize(f, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) for f in frames] if shrink < 1 else frames
    best, found = places(small, pool, cfg)
    about = dict(found=bool(found), inliers=best.inliers, score=round(best.score, 3))
    if not found:
        about["reason"] = "no template fits anywhere"
        if best.template:
            about["reason"] = f"nearest: {best.template} with {best.inliers} inliers of likeness {best.likeness:.2f}"
            about["nearest"] = [round(float(v) / shrink, 1) for v in (*best.affine[:, 2], *np.diag(best.affine) * pool[best.template].size)]
        return {}, about, frames
    template, rows = pool[best.template], []
    w, h = template.size
    for first, last, affine in found:
        affine, margin = affine / shrink, 8
        x0, y0 = (max(0, int(v) - margin) for v in affine[:, 2])
        part = middle([f[y0:, x0:][:math.ceil(h * affine[1, 1]) + 2 * margin, :math.ceil(w * affine[0, 0]) + 2 * margin] for f in frames[first:last + 1]])
        offset = np.array([[0, 0, x0], [0, 0, y0]])
        affine, like = refine(part, template, affine - offset)
        size = (round(w * affine[0, 0]), round(h * affine[1, 1])) if not rows else rows[0][3].shape[1::-1]
        still = crop(part, affine, (w, h), *size)
        affine = affine + offset
        begin = edge(video, numbers[first], numbers[first - 1], template, affine) if first else 0
        end = edge(video, numbers[last], numbers[last + 1], template, affine) if last + 1 < len(numbers) else count - 1
        rows.append((affine, (begin, end), like, still))
    affines, spans, likes, stills = (list(column) for column in zip(*rows))
    corners = np.stack([np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ a.T for a in affines])
    low, high = np.floor(corners.min(1)).clip(0), np.ceil(corners.max(1)).clip(0, (frame_w, frame_h))
    tensors = {"affine": np.stack(affines).astype(np.float32), "corners": corners.astype(np.float32),
               "bbox": np.concatenate([low, high - low], 1).astype(np.int32), "span": np.array(spans, np.int64), "median": np.stack(stills),
               "atlas": template.atlas}
    info = dict(**about, template=best.template, family=template.family, layout=layout(template), elements=[asdict(e) for e in template.elements],
                votes=sum(b - a + 1 for a, b, _ in found), sampled=numbers, likeness=round(float(np.mean(likes)), 3), frame_size=[frame_w, frame_h])
    return tensors, info, frames


# ---- pictures to look at ---------------------------------------------------------------------------------------

def tile(images, columns, gap=6):
    """RGB images in rows, over dark gray."""
    rows = [images[i:i + columns] for i in range(0, len(images), columns)]
    width = max(sum(m.shape[1] + gap for m in r) for r in rows) + gap
    out = np.full((sum(max(m.shape[0] for m in r) + gap for r in rows) + gap, width, 3), 40, np.uint8)
    y = gap
    for r in rows:
        x = gap
        for m in r:
            out[y:y + m.shape[0], x:x + m.shape[1]] = m
            x += m.shape[1] + gap
        y += max(m.shape[0] for m in r) + gap
    return out


def caption(image, text):
    """The image with a line of text below it."""
    image = cv2.copyMakeBorder(image, 0, 18, 0, 0, cv2.BORDER_CONSTANT, value=(40, 40, 40))
    return cv2.putText(image, text, (4, image.shape[0] - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)


def video_sheet(path, frames, tensors, info, pool):
    """Six of the sampled frames with the box; the median crop and the template beside each other."""
    shown = []
    for k in range(0, len(frames), max(1, len(frames) // 6))[:6]:
        f = frames[k].copy()
        for corners, (first, last) in zip(tensors["corners"], tensors["span"]) if info["found"] else ():
            if first <= info["sampled"][k] <= last:
                cv2.polylines(f, [np.round(corners).astype(np.int32)], True, (255, 60, 60), 2)
        shown.append(cv2.resize(f, (480, round(480 * f.shape[0] / f.shape[1])), interpolation=cv2.INTER_AREA))
    if info["found"]:
        still, template = tensors["median"][0], pool[info["template"]]
        drawn = idle(template, (90, 90, 90), still.shape[1] / template.size[0])
        text = f"{info['template']}: {info['inliers']} inliers, {info['votes']}/{len(frames)} votes, likeness {info['likeness']}"
        shown += [caption(still, "median crop"), caption(drawn, text)]
    else:
        shown[0] = caption(shown[0], info["reason"])
    write_png(path, tile(shown, 3))


@dataclass(frozen=True)
class SheetConfig(Common):
    out: str = "data/templates.png"         # picture to write
    templates: str = ""                     # folder of your own skins: they come first
    family: str = ""                        # only this family, larger


def template_sheet(cfg: SheetConfig):
    """All templates, untouched and in a random state, over two backgrounds."""
    rng, pictures, width = np.random.default_rng(cfg.seed), [], 320 if cfg.family else 184
    every = pool(cfg.templates)
    shown = [every[n] for n in every if cfg.family in ("", every.family(n))]
    if not shown:
        raise SystemExit(f"--family {cfg.family}: none of that; there are {', '.join(FAMILIES)}")
    for t in shown:
        scale = min(width / t.size[0], 0.75 * width / t.size[1])
        for state in ((np.zeros(16), np.zeros(4)), (rng.random(16) < 0.4, rng.uniform(-1, 1, 4))):
            picture = draw(t, *state, scale)
            ground = np.full((picture.shape[0] + 8, width + 10, 3), (66, 104, 78), np.uint8)
            ground[:, ground.shape[1] // 2:] = (200, 190, 170)
            composite(ground, picture, (ground.shape[1] - picture.shape[1]) // 2, 4)
            pictures.append(caption(ground, t.name))
    write_png(cfg.out, tile(pictures, 6 if cfg.family else 14))
    print(f"{len(shown)} templates -> {cfg.out}")


@dataclass(frozen=True)
class BenchConfig(Common):
    videos: tuple[str, ...] = ()            # also: CPU seconds to look for the overlay of each of these
    size: int = 256                         # px: the overlay is scaled to fit into a square of this side
    images: int = 20                        # random states per template
    pool: int = len(TEMPLATES)              # templates to look among; beyond the built-in ones, recoloured copies of them


def crowd(n: int) -> Pool:
    """n templates: the built-in ones, then copies of them in other colours: the hardest that there are to tell apart."""
    names, copies = list(TEMPLATES), {}
    for i in range(n - len(names)):
        copy, source = i // len(names) + 1, builtin(names[i % len(names)])
        colours = cv2.convertScaleAbs(np.roll(source.atlas[..., :3], copy % 3, 2), alpha=1 / (1 + copy % 4), beta=20 * copy % 200)
        copies[f"{source.name}/{copy}"] = replace(source, name=f"{source.name}/{copy}", atlas=np.dstack([colours, source.atlas[..., 3]]))
    return Pool(names[:n], copies)


def bench(cfg: BenchConfig) -> float:
    """Overlay images drawn per second of one core, over all templates: 3 of 16 buttons pressed, sticks anywhere; and what localization takes."""
    expect(cfg, size=(8, 4096), images=(1, 1e6), pool=(1, 1e5))
    rng, spent, shown = np.random.default_rng(cfg.seed), 0.0, list(templates().values())
    for t in shown:
        scale = cfg.size / max(t.size)
        draw(t, np.zeros(16), np.zeros(4), scale)
        buttons, sticks = rng.random((cfg.images, 16)) < 3 / 16, rng.uniform(-1, 1, (cfg.images, 4))
        start = time.process_time()
        for state in zip(buttons, sticks):
            draw(t, *state, scale)
        spent += time.process_time() - start
    rate = len(shown) * cfg.images / spent
    print(f"{len(shown)} templates, {cfg.images} images each, {cfg.size} px: {rate:,.0f} images/s on one core")
    among = crowd(cfg.pool)
    for detector in detectors(XFEAT_WEIGHTS) if cfg.videos else ():
        bank_of(among, detector)                               # once
    for video in cfg.videos:
        start = time.process_time()
        sample(video, FRAMES)
        decoded = time.process_time()
        tensors, info, _ = locate(video, among, Config())
        print(f"{video}: {info['template'] if tensors else 'nothing'} among {len(among):,} templates, "
              f"{time.process_time() - decoded:.1f} CPU seconds, {decoded - start:.1f} of them to decode")
    return rate


# ---- many videos -------------------------------------------------------------------------------------------------

def label(cfg: Config, video: str) -> dict:
    """Localize one video and write its artefact; returns the metadata.  A finished output is kept."""
    path = Path(cfg.out) / f"{Path(video).stem}.overlay.safetensors"
    video_facts(video)
    recipe = recipe_of(cfg, video, *files_in(cfg.templates))
    kept, picture = artefact.finished(path, "nitrogen.overlay/1", recipe, cfg.fresh), path.with_suffix(".png")
    tensors, info, frames = (*artefact.read(path, "nitrogen.overlay/1"), None) if kept else locate(video, pool(cfg.templates), cfg)
    if cfg.sheet and not (kept and picture.exists()):
        video_sheet(picture, sample(video, cfg.frames)[0] if kept else frames, tensors, info, pool(cfg.templates))
    if not kept:
        artefact.write(path, tensors, "nitrogen.overlay/1", recipe=recipe, **info)
    if info["found"]:
        what = f"{info['template']} with {info['inliers']} inliers, {info['votes']}/{len(info['sampled'])} frames agree"
        tqdm.write(f"{video}: {what} -> {path}{' (kept)' if kept else ''}")
    return {"video": video, "path": str(path), **info}


def main(cfg: Config):
    if cfg.frames < 3 or cfg.min_inliers < 4:
        raise SystemExit("--frames must be at least 3 and --min-inliers at least 4")
    print(f"{len(cfg.videos)} videos -> {cfg.out}: {len(pool(cfg.templates))} templates, {cfg.frames} frames each, "
          f"bar {cfg.min_inliers} inliers; a few seconds a video")
    if cfg.videos:
        bank_of(pool(cfg.templates), "sift")                   # made here, once; the workers find it on disk
    for_each(functools.partial(label, cfg), cfg.videos, cfg.workers, ray=cfg.ray, summary=summary)


def summary(done: list) -> None:
    absent = [f"{d['video']}: no overlay found ({d['reason']}) -> {d['path']}" for d in done if not d["found"]]
    if len(done) == 1 and absent:
        raise SystemExit(absent[0])
    print("\n".join(absent + [f"overlay found in {len(done) - len(absent)} of {len(done)} videos"]))


if __name__ == "__main__":
    command_line(__doc__, {"": (Config, main), "templates": (SheetConfig, template_sheet), "bench": (BenchConfig, bench), "train": (TrainConfig, train)})
