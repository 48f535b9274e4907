"""Your own skins: any OBS input-overlay preset, or pictures with boxes (docs/presets.md)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
from dataclasses import replace
from pathlib import Path

from common import artefact

import cv2
import numpy as np

from templates import render

# of pictures: px, px x px, bytes; nothing is trusted
SIDE_LIMIT, PIXELS, FILE_BYTES = 8192, 1 << 24, 1 << 26
SMALL, LARGE = 240, 960  # CHOICE: px; smaller skins are enlarged in whole steps, larger ones shrunk
FAR = 512  # CHOICE: px, or the canvas's larger side: an element farther outside is a slip
# fmt: off
SDL = (  # SDL_GamepadButton; "": guide, share, touchpad: no actions
    "SOUTH", "EAST", "WEST", "NORTH", "BACK", "", "START", "LEFT_THUMB", "RIGHT_THUMB",
    "LEFT_SHOULDER", "RIGHT_SHOULDER", *render.DPAD, *[""] * 11,
)
# fmt: on
OLD = (*SDL[:4], *SDL[9:11], "BACK", "START", "", *SDL[7:9], *render.DPAD[2:], *render.DPAD[:2])
CODES = (
    dict(enumerate(SDL))
    | {0xEC00 + i: name for i, name in enumerate(OLD)}  # of old versions
    | {0xEC10 + i: name for i, name in enumerate(OLD[10:])}  # of their web tool
)
# before version 5
OLD_KINDS = {0: "texture", 1: "button", 4: "stick", 5: "trigger", 6: "texture", 7: "dpad"}
# of GameCubes
RAW_CUBE = {1: "EAST", 2: "SOUTH", 3: "WEST", 4: "NORTH", 8: "RIGHT_SHOULDER", 16: "START"}


def read_skins(folder) -> dict[str, render.Template]:
    """The skins below `folder` by name; what cannot be read is named, with the reason, and left
    out.

    A skin is an OBS input-overlay preset, FILE.json and its PNGs beside it, each of which is a skin
    (`pictures`); or pictures with a list of boxes.  A button's code says which it is, its id never
    does; four face buttons in a diamond are named by their places; nitrogen.json beside it may say
    otherwise.  docs/presets.md has all.
    """
    return dict(load_skins(str(Path(folder).resolve())))


@functools.lru_cache(1)
def load_skins(folder):
    root = Path(folder)
    found, said = {}, {}
    if not root.is_dir():
        raise SystemExit(f"{folder}: no such folder of skins (--templates)")

    def name(path):
        return path.relative_to(root).with_suffix("").as_posix()

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
    for text, names in said.items():  # what is said of several skins is said once
        print(f"{few(names)}: {text}")
    if not found:
        raise SystemExit(
            f"{folder}: no skin there can be read (an OBS input-overlay preset is a PNG and "
            "a JSON file; see docs/presets.md)"
        )
    return found


@contextlib.contextmanager
def named(said, name):
    """What cannot be read in here is noted in `said`, and the rest goes on."""
    try:
        yield
    except (ValueError, OSError, cv2.error) as e:
        said.setdefault(f"{' '.join(str(e).split())}; skipped", []).append(name)


def few(parts, between=", "):
    """The first three, and how many more there are."""
    more = [f"and {len(parts) - 3} more"] if len(parts) > 3 else []
    return between.join([*parts[:3], *more])


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
        # UTF-8 or UTF-16, also with a byte order mark
        data = json.loads(inside(root, path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError(f"{path.name} is not JSON ({e})") from None
    if not isinstance(data, dict):
        raise ValueError("not a skin: expected a JSON object")
    return data


def png_size(raw):
    """w, h as the header says, before anything is unpacked; 0, 0: no PNG."""
    if raw[:8] != b"\x89PNG\r\n\x1a\n":
        return 0, 0
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def read_png(root, path):
    """uint8 [h, w, 4] RGBA."""
    raw = inside(root, path).read_bytes()
    w, h = png_size(raw)
    if not (0 < w <= SIDE_LIMIT and 0 < h <= SIDE_LIMIT and w * h <= PIXELS):
        limit = f"{path.name} is no PNG of at most {SIDE_LIMIT} px a side and {PIXELS:,} px in all"
        todo = f" but has {w:,} x {h:,}: make it smaller" if w else ": save it as one"
        raise ValueError(limit + todo)
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path.name} is a broken PNG")
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    to_rgba = {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
    return cv2.cvtColor(picture, to_rgba[channels])


def number(value):
    """A number of a JSON file, also one that is written as a text; or None."""
    with contextlib.suppress(ValueError):
        value = float(value) if isinstance(value, str) else value
    return value if type(value) in (int, float) and abs(value) < 1e9 else None


def numbers(values, n, what, low=-SIDE_LIMIT, high=SIDE_LIMIT):
    """n numbers of a JSON list, checked."""
    read = [number(v) for v in values] if isinstance(values, list) else []
    if len(read) != n or not all(v is not None and low <= v <= high for v in read):
        raise ValueError(
            f"{what}: expected {n} numbers from {low} to {high}, found {str(values)[:60]}"
        )
    return read


def cut(picture, x, y, w, h, what):
    """A copy of a box of the picture, which holds all of it."""
    H, W = picture.shape[:2]
    if w < 1 or h < 1 or x + w > W or y + h > H:
        raise ValueError(f"{what}: {w} x {h} px at {x}, {y} is not inside the picture of {W} x {H}")
    return picture[y : y + h, x : x + w].copy()


def read_skin(root, path, name, lists, seen, said) -> dict[str, render.Template]:
    """The skins of one of the `lists` of a folder, path: data.  `seen`: what is known of its
    PNGs.
    """
    data, folder = lists[path], path.parent
    if "idle" in data:
        return {name: picture_skin(name, data, lambda file: read_png(root, folder / str(file)))}
    if "elements" not in data and "overlay_width" not in data:
        raise ValueError("neither an input-overlay preset (elements) nor a list of boxes (idle)")
    if not isinstance(data.get("elements"), list) or len(data["elements"]) > 256:
        raise ValueError("elements: expected a list of at most 256")
    more = read_json(root, folder / "nitrogen.json") if (folder / "nitrogen.json").exists() else {}
    pngs = pictures(root, path, lists, *seen)
    found = {}
    for png in pngs:
        own = name if len(pngs) == 1 else f"{name}/{png.stem}"
        with named(said, own):
            found[own] = preset(own, data, more, read_png(root, png), said)
    return found


def pictures(root, path, lists, size, best):
    """The PNGs of a list: each of the folder goes with the list that it fits best, by size or by
    name.

    Left aside are previews, and what is too small for the list's boxes if another picture is
    not."""
    pngs = beside(path.parent)
    read_sizes(root, pngs, size)
    pngs = [p for p in pngs if "preview" not in p.stem.lower()] or pngs
    held = {p: boxes_inside(lists[path]["elements"], size[p]) for p in pngs}
    pngs = [p for p in pngs if held[p] == max(held.values())]

    fill_in_best(best, pngs, size, lists)
    ours = {p: fit(p, size[p], path.stem, lists[path]) for p in pngs}
    found = fitting(pngs, ours, best)
    if not found:
        others = few([p.name for p in pngs])
        raise ValueError(
            f"no PNG for it, {others} goes with another list: put its own picture there"
        )
    return found


def fill_in_best(best, pngs, size, lists):
    """Fill in `best`, path: its best fit to any of the lists, of the pictures not yet known."""
    rivals = [(other.stem, data) for other, data in lists.items() if "elements" in data]
    for p in pngs:
        if p not in best:
            best[p] = max(fit(p, size[p], *rival) for rival in rivals)


def fit(png, size, name, data):
    """(it has the size that the list names, how their names are alike, in how many letters)"""
    named_size = tuple(data.get(f"default_{side}") for side in ("width", "height"))
    return size == named_size != (0, 0), *likeness(png.stem, name)


def fitting(pngs, ours, best):
    """The pictures that fit no other list better; if there are none, those that lists share."""
    mine = [p for p in pngs if ours[p] == best[p]]
    top = max([ours[p][:2] for p in mine], default=None)
    mine = [p for p in mine if ours[p][:2] == top]
    return mine or [p for p in pngs if ours[p][0] == best[p][0] and (best[p][1] < 3 or ours[p][1])]


def beside(folder):
    """The PNGs of a folder."""
    kinds = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in kinds)
    pngs = [p for p in found if p.suffix.lower() == ".png"]
    if not pngs:
        todo = f"save {found[0].name} as one" if found else "put its picture there"
        raise ValueError(f"no PNG beside it: {todo}")
    return pngs


def read_sizes(root, pngs, size):
    """Fill in `size`, path: (w, h), of those not yet known; (0, 0): cannot be read."""
    for p in {*pngs} - {*size}:
        size[p] = 0, 0
        with contextlib.suppress(ValueError, OSError), inside(root, p).open("rb") as file:
            size[p] = png_size(file.read(24))


def boxes_inside(elements, size):
    """How many elements have the middle of their box in a picture of that size."""
    boxes = [e.get("mapping") for e in elements if isinstance(e, dict)]
    count = 0
    for box in boxes:
        if isinstance(box, list) and len(box) == 4:
            x, y, w, h = (number(v) or 0 for v in box)
            count += x + w / 2 < size[0] and y + h / 2 < size[1]
    return count


def likeness(name, other):
    """How two names are alike, and in how many letters: 3: one begins with the other; 2: they begin
    the same; 1: they share a word; 0: not at all.
    """
    a, b = (v.lower().replace("_", "-").replace(" ", "-") for v in (name, other))
    same = len(os.path.commonprefix((a, b)))
    if a.startswith(b):
        return 3, same
    if same > 2:
        return 2, same
    return int(bool({*a.split("-")} & {*b.split("-")})), 0


def preset(name, data, more, atlas, said) -> render.Template:
    """A template from an OBS input-overlay preset.  Facts of the format: the plugin's sources."""
    canvas = canvas_size(data)
    if (atlas == atlas[0, 0]).all() or not atlas[..., 3].any():
        raise ValueError("its PNG is of one colour: put the preset's picture there")
    pieces, left, keys = preset_pieces(data["elements"], more, atlas, canvas)
    if all(e.kind == "texture" for e, _ in pieces):
        reason = few(left, "; ") or "keys of a keyboard or a mouse are not read"
        raise ValueError(f"shows no gamepad element: {reason}")
    notes = []
    if left:
        total = len(data["elements"])
        notes.append(f"{len(left)} of {total} elements left out: {few(left, '; ')}")
    if more.get("positions") != "codes":
        pieces, moved = by_place(pieces)
        if moved:
            notes.append(moved)
    template = finish(name, more.get("family", "user"), canvas, pieces)
    lost = buttons_of(pieces) - {*render.layout(template)["buttons"]}
    if lost:
        notes.append(f"looks the same pressed, so is never read: {', '.join(sorted(lost))}")
    if keys:
        said.setdefault("keys of a keyboard or a mouse left out", []).append(name)
    if notes:
        said.setdefault("; ".join(notes), []).append(name)
    return template


def canvas_size(data):
    """[w, h] of a preset's canvas, px; 0: not given."""
    canvas = [max(number(data.get(f"overlay_{side}")) or 0, 0) for side in ("width", "height")]
    return numbers(canvas, 2, "overlay_width, overlay_height")


def buttons_of(pieces):
    return {e.id for e, _ in pieces if e.kind in ("button", "trigger")}


def preset_pieces(elements, more, atlas, canvas):
    """The elements that can be used, as `pack` takes them; why the others cannot; whether there are
    keys.
    """
    elements = [e if isinstance(e, dict) else {} for e in elements]
    kinds, codes = kinds_and_codes(elements)
    pairs = zip(kinds, codes, strict=True)
    names = button_names({code for kind, code in pairs if kind == "button"}, more)
    pieces, left, used = [], [], 0
    for i, (e, kind, code) in enumerate(zip(elements, kinds, codes, strict=True)):
        if not kind:
            continue
        try:
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


def kinds_and_codes(elements):
    """Of each element what it is, None: a keyboard's, a mouse's, or unknown; and its code."""
    codes = [int(number(e.get("code")) or 0) for e in elements]  # missing: 0, as in the plugin
    types = [number(e.get("type", 0)) for e in elements]
    pairs = zip(types, codes, strict=True)
    old = any(t == 1 and 0xEC00 <= code < 0xEC20 for t, code in pairs)
    known = OLD_KINDS if old else render.KINDS
    return [known.get(t) for t in types], codes


def button_names(codes, more):
    """Code -> a name of artefact.BUTTONS, or "" for what is no action."""
    given = more.get("codes", {})
    if more.get("positions", "places") not in ("places", "codes"):
        raise ValueError('positions in nitrogen.json: expected "places" or "codes"')
    good = isinstance(given, dict) and all(map(str.isdecimal, given))
    if not good or not all(v in artefact.BUTTONS for v in given.values()):
        raise ValueError(
            'codes in nitrogen.json: expected numbers and names, as in {"16": "START"}; '
            f"names: {', '.join(artefact.BUTTONS)}"
        )
    usual = RAW_CUBE if 16 in codes and codes <= set(RAW_CUBE) else CODES
    return usual | {int(k): v for k, v in given.items()}


def piece(e, kind, id, atlas, canvas):
    """An element of a preset as `pack` takes it: an Element, and its pictures in rows."""
    (x, y, w, h), pos = placed(e, kind, atlas, canvas)
    H, W = atlas.shape[:2]

    def state(across, down):
        """Beyond the atlas its last column and row repeat, as in OBS; beyond all of it: the idle
        picture.
        """
        u, v = x + across * (w + render.GAP), y + down * (h + render.GAP)
        u, v = (u, v) if u < W and v < H else (x, y)
        return atlas[np.ix_(np.arange(v, v + h).clip(0, H - 1), np.arange(u, u + w).clip(0, W - 1))]

    if kind == "dpad":
        return render.Element("dpad", "", pos), [[state(i, 0) for i in range(9)]]
    idle, pressed = state(0, 0), state(0, 1)
    side, travel = number(e.get("side", 0)), 0
    if kind == "stick":
        (travel,) = numbers([e.get("stick_radius", 0)], 1, "stick_radius", 0, 1024)
        id = "RIGHT" if side else "LEFT"
        if not travel:  # it stands, but may show its click
            kind, id = "button", f"{id}_THUMB"
    elif kind == "trigger":
        id = {0: "LEFT_TRIGGER", 1: "RIGHT_TRIGGER"}.get(side)
        if e.get("trigger_mode") is not True and (pressed != idle).any():
            pressed = stack(idle, pressed)  # the whole travel, over idle
            if number(e.get("direction")) not in (1, 2, 3, 4):  # without: always drawn
                idle = pressed
    if kind == "texture" or not id:  # no action: the guide button, the player's number
        return render.Element("texture", "", pos), [[idle]]
    return render.Element(kind, id, pos, radius=float(travel)), [[idle], [pressed]]


def placed(e, kind, atlas, canvas):
    """x, y, w, h of an element's picture in the atlas, and x, y on the canvas: int, checked."""
    H, W = atlas.shape[:2]
    far = max(*canvas, FAR)
    x, y, w, h = box = [int(v) for v in numbers(e.get("mapping"), 4, "mapping", 0)]
    pos = tuple(int(v) for v in numbers(e.get("pos", [0, 0]), 2, "pos"))
    if not 0 < w * h * (9 if kind == "dpad" else 1) <= PIXELS:
        raise ValueError(f"mapping of {w} x {h} px: " + ("too large" if w * h else "draws nothing"))
    if x >= W or y >= H:
        raise ValueError(
            f"mapping: {w} x {h} px at {x}, {y} is not inside the picture of {W} x {H}"
        )
    near = all(-far <= p <= side + far for p, side in zip(pos, canvas, strict=True))
    if any(canvas) and not near:
        raise ValueError(
            f"pos {pos[0]}, {pos[1]} is far outside the canvas of {canvas[0]:g} x {canvas[1]:g}"
        )
    return box, pos


def by_place(pieces):
    """Face buttons named by where they are, since some skins carry codes by letter; and what to
    say.

    Only where the four make a clear diamond; elsewhere, and with "positions": "codes" in
    nitrogen.json, the codes stand."""
    face = {}
    for e, rows in pieces:
        if e.id in ("SOUTH", "EAST", "WEST", "NORTH"):
            h, w = rows[0][0].shape[:2]
            face[e.id] = e.pos[0] + w / 2, e.pos[1] + h / 2
    if len(face) < 4:
        return pieces, ""
    ids, (xs, ys) = list(face), np.array(list(face.values())).T
    w, n, e, s = xs.argmin(), ys.argmin(), xs.argmax(), ys.argmax()
    places = {ids[w]: "WEST", ids[n]: "NORTH", ids[e]: "EAST", ids[s]: "SOUTH"}
    right = all(a == b for a, b in places.items())
    if len(places) < 4 or right or not diamond(xs, ys, w, n, e, s):
        return pieces, ""
    return (
        [(replace(e, id=places.get(e.id, e.id)), rows) for e, rows in pieces],
        "face buttons go by their places, not by codes "
        '("positions": "codes" in nitrogen.json: by codes)',
    )


def diamond(xs, ys, w, n, e, s):
    """Are the points with these indices, in the west, north, east and south, a clear diamond?"""
    width, height = np.ptp(xs), np.ptp(ys)
    level = abs(ys[w] - ys[e]) < 0.25 * height
    upright = abs(xs[n] - xs[s]) < 0.25 * width
    central = (
        abs(xs[n] + xs[s] - xs[w] - xs[e]) < 0.3 * width
        and abs(ys[w] + ys[e] - ys[n] - ys[s]) < 0.3 * height
    )
    return level and upright and central


def picture_skin(name, data, load) -> render.Template:
    """A template from pictures, which `load` reads, and boxes: the knobs are cut out of the idle
    one, and what is under them is filled in.
    """
    idle = load(data["idle"])
    canvas = idle.shape[1::-1]
    if "pressed" in data:
        pressed = load(data["pressed"])
        if pressed.shape != idle.shape:
            h, w = pressed.shape[:2]
            raise ValueError(
                f"the pressed picture has {w} x {h} px, the idle one {canvas[0]} x {canvas[1]}"
            )
    else:
        pressed = idle.copy()
        pressed[..., :3] = 255 - (255 - idle[..., :3]) // 3
    hole = np.zeros(idle.shape[:2], np.uint8)
    pieces = []
    for kind, id, values in named_boxes(data):
        x, y, w, h, *travel = values
        x, y, w, h = map(int, (x, y, w, h))
        before, after = (cut(p, x, y, w, h, id) for p in (idle, pressed))
        if kind == "sticks":
            knob = np.zeros((h, w), np.uint8)
            cv2.ellipse(knob, (((w - 1) / 2, (h - 1) / 2), (w, h), 0), 255, -1)
            before[knob == 0] = 0
            after[knob == 0] = 0
            hole[y : y + h, x : x + w] |= knob
            stick = render.Element("stick", id, (x, y), radius=float(travel[0]))
            pieces.append((stick, [[before], [after]]))
        elif (before != after).any():
            after[(before == after).all(2)] = 0  # what does not change shows from below
            button = render.Element("trigger" if "TRIGGER" in id else "button", id, (x, y))
            pieces.append((button, [[np.zeros_like(after)], [after]]))
    ground = render.Element("texture", "", (0, 0)), [[filled(idle, hole)]]
    return finish(name, data.get("family", "user"), canvas, [ground, *pieces])


def named_boxes(data):
    """("buttons" or "sticks", name, numbers of its box) of each box of a list, checked."""
    for kind, names, n in (("buttons", artefact.BUTTONS, 4), ("sticks", ("LEFT", "RIGHT"), 5)):
        boxes = data.get(kind, {})
        if not isinstance(boxes, dict) or set(boxes) - set(names):
            raise ValueError(f"{kind}: expected a box for some of {', '.join(names)}")
        for id, values in boxes.items():
            yield kind, id, numbers(values, n, f"{kind}, {id}", 0)


def filled(picture, hole):
    """The picture, where the hole (uint8 [h, w]) is from what is around it."""
    out = picture.copy()
    if hole.any():
        for channels in (slice(0, 3), 3):
            part = np.ascontiguousarray(picture[..., channels])
            out[..., channels] = cv2.inpaint(part, hole, 3, cv2.INPAINT_TELEA)
    return out


def stack(below, above):
    """RGBA over RGBA, neither premultiplied."""
    a, b = (p[..., 3:] / np.float32(255) for p in (above, below))
    alpha = a + b * (1 - a)
    rgb = (above[..., :3] * a + below[..., :3] * b * (1 - a)) / np.maximum(alpha, 1e-6)
    return np.round(np.concatenate([rgb, 255 * alpha], 2)).astype(np.uint8)


def finish(name, family, canvas, pieces) -> render.Template:
    """What every skin goes through: a button that never changes is not shown, empty rims go, the
    canvas holds everything, and its size is one that is convenient to match."""
    pieces = [trimmed(*still(e, rows)) for e, rows in pieces]
    if all(e.kind == "texture" for e, _ in pieces):
        raise ValueError(
            "shows no gamepad element that changes: its pressed pictures are those at rest"
        )
    corners = [(0, 0, *canvas)]
    for e, rows in pieces:
        (x, y), (h, w) = e.pos, rows[0][0].shape[:2]
        corners.append((x - e.radius, y - e.radius, x + w + e.radius, y + h + e.radius))
    corners = np.array(corners)
    low, high = np.floor(corners[:, :2].min(0)), np.ceil(corners[:, 2:].max(0))
    side = max(high - low)
    if side > SIDE_LIMIT:
        raise ValueError(f"covers {side:.0f} px, more than {SIDE_LIMIT}")
    scale = float(math.ceil(SMALL / side)) if side < SMALL else min(1.0, LARGE / side)
    packed = render.pack([resized(e, rows, low, scale) for e, rows in pieces])
    size = tuple(int(v) for v in np.ceil((high - low) * scale))
    return render.Template(name, str(family)[:40], size, *packed)


def still(e, rows):
    """The element, without its pressed picture if that looks as the idle one does."""
    states = [render.premultiplied(p) for p in itertools.chain(*rows)]
    same = len(states) > 1 and max(np.abs(p - states[0]).max() for p in states) < 16
    if e.kind == "stick":
        return replace(e, click=not same), rows[: 1 if same else 2]
    if same:
        return replace(e, kind="texture", id=""), [rows[0][:1]]
    return e, rows


def trimmed(e, rows):
    """A button without empty rims: four arrows may each come in a picture of the whole d-pad."""
    if e.kind not in ("button", "trigger"):
        return e, rows
    ys, xs = np.nonzero(np.max([p[..., 3] for p in itertools.chain(*rows)], 0))
    y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    pos = e.pos[0] + int(x0), e.pos[1] + int(y0)
    return replace(e, pos=pos), [[p[y0:y1, x0:x1] for p in row] for row in rows]


def resized(e, rows, low, scale):
    """The element, in coordinates from `low` on, scaled; pixel art keeps its edges."""
    size = rows[0][0].shape[1::-1]
    spans = []  # from, to on the canvas: along x, along y
    for p, v, n in zip(e.pos, low, size, strict=True):
        spans.append(((p - v) * scale, (p - v + n) * scale))
    at = tuple(math.floor(a) for a, _ in spans)

    def one(picture):
        if scale >= 1:
            return picture.repeat(int(scale), 0).repeat(int(scale), 1)
        part = render.premultiplied(picture)
        # each output px: the integral over its width, by differences of the running sum
        for (a, b), x in zip(spans, at, strict=True):
            part = part.swapaxes(0, 1)
            sums = np.concatenate([np.zeros((1, *part.shape[1:])), np.cumsum(part, 0, float)])
            edges = (np.arange(math.ceil(b) - x + 1) - (a - x)) / scale
            edges = np.clip(edges, 0, len(part) - 1e-6)
            i, rest = edges.astype(int), (edges % 1)[:, None, None]
            part = np.diff(sums[i] * (1 - rest) + sums[i + 1] * rest, axis=0) * scale
        part[..., :3] *= 255 / np.maximum(part[..., 3:], 1e-3)
        return np.round(part).clip(0, 255).astype(np.uint8)

    return replace(e, pos=at, radius=e.radius * scale), [[one(p) for p in r] for r in rows]
