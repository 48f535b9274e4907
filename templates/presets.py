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

# ---- your own skins: any OBS input-overlay preset, or pictures with boxes (docs/presets.md) ------

# of pictures: px, px x px, bytes; nothing is trusted
SIDE_LIMIT, PIXELS, FILE_BYTES = 8192, 1 << 24, 1 << 26
SMALL, LARGE = 240, 960  # CHOICE: px; smaller skins are enlarged in whole steps, larger ones shrunk
FAR = 512  # CHOICE: px, or the canvas's larger side: an element farther outside is a slip
SDL = (
    "SOUTH",
    "EAST",
    "WEST",
    "NORTH",
    "BACK",
    "",
    "START",
    "LEFT_THUMB",
    "RIGHT_THUMB",
    "LEFT_SHOULDER",
    # SDL_GamepadButton; "": guide, share, touchpad: no actions
    "RIGHT_SHOULDER",
    *render.DPAD,
    *[""] * 11,
)
OLD = (*SDL[:4], *SDL[9:11], "BACK", "START", "", *SDL[7:9], *render.DPAD[2:], *render.DPAD[:2])
# 0xEC00: of old versions,
CODES = {
    **dict(enumerate(SDL)),
    **{0xEC00 + i: name for i, name in enumerate(OLD)},
    **{0xEC10 + i: name for i, name in enumerate(OLD[10:])},
}  # and of their web tool
# before version 5
OLD_KINDS = {0: "texture", 1: "button", 4: "stick", 5: "trigger", 6: "texture", 7: "dpad"}
# of GameCubes
RAW_CUBE = {1: "EAST", 2: "SOUTH", 3: "WEST", 4: "NORTH", 8: "RIGHT_SHOULDER", 16: "START"}


def read_skins(folder) -> dict[str, render.Template]:
    """The skins below `folder` by name; what cannot be read is named, with the reason, and left
    out.

    An OBS input-overlay preset is FILE.json and its PNGs beside it, each of which is a skin
    (`pictures`); or pictures with a list of boxes.  A button's code says which it is, its id never
    does; four face buttons in a diamond are named by their places; nitrogen.json beside it may say
    otherwise.  docs/presets.md has all.
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
        # UTF-8 or UTF-16, also with a byte order mark
        data = json.loads(inside(root, path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError(f"{path.name} is not JSON ({e})") from None
    if not isinstance(data, dict):
        raise ValueError("not a skin: expected a JSON object")
    return data


def png_size(raw):
    """w, h as the header says, before anything is unpacked; 0, 0: no PNG."""
    return tuple(
        int.from_bytes(raw[i : i + 4], "big") * (raw[:8] == b"\x89PNG\r\n\x1a\n") for i in (16, 20)
    )


def read_png(root, path):
    """uint8 [h, w, 4] RGBA."""
    raw = inside(root, path).read_bytes()
    w, h = png_size(raw)
    if not (0 < w <= SIDE_LIMIT and 0 < h <= SIDE_LIMIT and w * h <= PIXELS):
        limit = f"{path.name} is no PNG of at most {SIDE_LIMIT} px a side and {PIXELS:,} px in all"
        raise ValueError(
            limit + (f" but has {w:,} x {h:,}: make it smaller" if w else ": save it as one")
        )
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path.name} is a broken PNG")
    picture = (picture >> 8).astype(np.uint8) if picture.dtype == np.uint16 else picture
    kind = {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}[
        1 if picture.ndim == 2 else picture.shape[2]
    ]
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
        raise ValueError(
            f"{what}: expected {n} numbers from {low} to {high}, found {str(values)[:60]}"
        )
    return read


def cut(picture, x, y, w, h, what):
    if w < 1 or h < 1 or x + w > picture.shape[1] or y + h > picture.shape[0]:
        raise ValueError(
            f"{what}: {w} x {h} px at {x}, {y} is not inside the picture of {picture.shape[1]} x {picture.shape[0]}"
        )
    return picture[y : y + h, x : x + w]


def read_skin(root, path, name, lists, seen, said) -> dict[str, render.Template]:
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
    """The PNGs of a list: each of the folder goes with the list that it fits best, by size or by
    name.

    Left aside are previews, and what is too small for the list's boxes if another picture is
    not."""
    kinds = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
    beside = sorted(p for p in path.parent.iterdir() if p.suffix.lower() in kinds)
    pngs = [p for p in beside if p.suffix.lower() == ".png"]
    if not pngs:
        todo = f"save {beside[0].name} as one" if beside else "put its picture there"
        raise ValueError(f"no PNG beside it: {todo}")
    boxes = [e.get("mapping") for e in lists[path]["elements"] if isinstance(e, dict)]
    boxes = [
        [number(v) or 0 for v in box] for box in boxes if isinstance(box, list) and len(box) == 4
    ]
    for p in {*pngs} - {*size}:
        size[p] = 0, 0
        with contextlib.suppress(ValueError, OSError), inside(root, p).open("rb") as file:
            size[p] = png_size(file.read(24))
    pngs = [p for p in pngs if "preview" not in p.stem.lower()] or pngs
    held = {
        p: sum(x + w / 2 < size[p][0] and y + h / 2 < size[p][1] for x, y, w, h in boxes)
        for p in pngs
    }
    pngs = [p for p in pngs if held[p] == max(held.values())]

    def fit(png, other):
        """(it has the size that the list names, how their names are alike, in how many letters)"""
        a, b = (p.stem.lower().replace("_", "-").replace(" ", "-") for p in (png, other))
        same = len(os.path.commonprefix((a, b)))
        named_size = tuple(lists[other].get(f"default_{side}") for side in ("width", "height"))
        alike = (
            3
            if a.startswith(b)
            else 2
            if same > 2
            else 1
            if {*a.split("-")} & {*b.split("-")}
            else 0
        )
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
        raise ValueError(
            f"no PNG for it, {others} goes with another list: put its own picture there"
        )
    return mine or shared


def preset(name, data, more, atlas, said) -> render.Template:
    """A template from an OBS input-overlay preset.  Facts of the format: the plugin's sources."""
    canvas = [max(number(data.get(f"overlay_{side}")) or 0, 0) for side in ("width", "height")]
    numbers(canvas, 2, "overlay_width, overlay_height")
    if (atlas == atlas[0, 0]).all() or not atlas[..., 3].any():
        raise ValueError("its PNG is of one colour: put the preset's picture there")
    pieces, left, keys = preset_pieces(data["elements"], more, atlas, canvas)
    if all(e.kind == "texture" for e, _ in pieces):
        reason = few(left, "; ") or "keys of a keyboard or a mouse are not read"
        raise ValueError(f"shows no gamepad element: {reason}")
    notes = (
        [f"{len(left)} of {len(data['elements'])} elements left out: {few(left, '; ')}"]
        if left
        else []
    )
    if more.get("positions") != "codes":
        pieces, moved = by_place(pieces)
        notes += [moved] if moved else []
    template = finish(name, more.get("family", "user"), canvas, pieces)
    lost = {e.id for e, _ in pieces if e.kind in ("button", "trigger")} - {
        *render.layout(template)["buttons"]
    }
    notes += (
        [f"looks the same pressed, so is never read: {', '.join(sorted(lost))}"] if lost else []
    )
    for text in ["keys of a keyboard or a mouse left out"] * keys + ["; ".join(notes)] * bool(
        notes
    ):
        said.setdefault(text, []).append(name)
    return template


def preset_pieces(elements, more, atlas, canvas):
    """The elements that can be used, as `pack` takes them; why the others cannot; whether there are
    keys.
    """
    elements = [e if isinstance(e, dict) else {} for e in elements]
    codes = [int(number(e.get("code")) or 0) for e in elements]  # missing: 0, as in the plugin
    types = [number(e.get("type", 0)) for e in elements]
    old = any(t == 1 and c in range(0xEC00, 0xEC20) for t, c in zip(types, codes))
    # None: a keyboard's, mouse's, or unknown
    kinds = [(OLD_KINDS if old else render.KINDS).get(t) for t in types]
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
    if not isinstance(given, dict) or not all(
        k.isdecimal() and v in artefact.BUTTONS for k, v in given.items()
    ):
        raise ValueError(
            'codes in nitrogen.json: expected numbers and names, as in {"16": "START"}; '
            + f"names: {', '.join(artefact.BUTTONS)}"
        )
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
        raise ValueError(
            f"mapping: {w} x {h} px at {x}, {y} is not inside the picture of {W} x {H}"
        )
    if any(canvas) and not all(-far <= p <= c + far for p, c in zip(pos, canvas)):
        raise ValueError(
            f"pos {pos[0]}, {pos[1]} is far outside the canvas of {canvas[0]:g} x {canvas[1]:g}"
        )

    def state(across, down):
        """Beyond the atlas its last column and row repeat, as in OBS; beyond all of it: the idle
        picture.
        """
        u, v = x + across * (w + render.GAP), y + down * (h + render.GAP)
        u, v = (u, v) if u < W and v < H else (x, y)
        return atlas[np.ix_(np.arange(v, v + h).clip(0, H - 1), np.arange(u, u + w).clip(0, W - 1))]

    if kind == "dpad":
        return render.Element("dpad", "", pos), [[state(i, 0) for i in range(9)]]
    idle, pressed, side, travel = state(0, 0), state(0, 1), number(e.get("side", 0)), 0
    if kind == "stick":
        (travel,) = numbers([e.get("stick_radius", 0)], 1, "stick_radius", 0, 1024)
        id = "RIGHT" if side else "LEFT"
        # it stands, but may show its click
        kind, id = (kind, id) if travel else ("button", f"{id}_THUMB")
    elif kind == "trigger":
        id = {0: "LEFT_TRIGGER", 1: "RIGHT_TRIGGER"}.get(side)
        # the whole travel, over idle
        if e.get("trigger_mode") is not True and (pressed != idle).any():
            pressed = stack(idle, pressed)
            # without: always drawn
            idle = idle if number(e.get("direction")) in (1, 2, 3, 4) else pressed
    if kind == "texture" or not id:  # no action: the guide button, the player's number
        return render.Element("texture", "", pos), [[idle]]
    return render.Element(kind, id, pos, radius=float(travel)), [[idle], [pressed]]


def by_place(pieces):
    """Face buttons named by where they are, since some skins carry codes by letter; and what to
    say.

    Only where the four make a clear diamond; elsewhere, and with "positions": "codes" in
    nitrogen.json, the codes stand."""
    face = {
        e.id: (e.pos[0] + rows[0][0].shape[1] / 2, e.pos[1] + rows[0][0].shape[0] / 2)
        for e, rows in pieces
        if e.id in ("SOUTH", "EAST", "WEST", "NORTH")
    }
    if len(face) < 4:
        return pieces, ""
    ids, (xs, ys) = list(face), np.array(list(face.values())).T
    w, n, e, s = xs.argmin(), ys.argmin(), xs.argmax(), ys.argmax()
    width, height = np.ptp(xs), np.ptp(ys)
    level = abs(ys[w] - ys[e]) < 0.25 * height and abs(xs[n] - xs[s]) < 0.25 * width
    central = (
        abs(xs[n] + xs[s] - xs[w] - xs[e]) < 0.3 * width
        and abs(ys[w] + ys[e] - ys[n] - ys[s]) < 0.3 * height
    )
    places = {ids[i]: id for i, id in ((w, "WEST"), (n, "NORTH"), (e, "EAST"), (s, "SOUTH"))}
    if len(places) < 4 or not (level and central) or all(a == b for a, b in places.items()):
        return pieces, ""
    return (
        [(replace(e, id=places.get(e.id, e.id)), rows) for e, rows in pieces],
        'face buttons go by their places, not by codes ("positions": "codes" in nitrogen.json: by codes)',
    )


def picture_skin(name, data, load) -> render.Template:
    """A template from pictures, which `load` reads, and boxes: the knobs are cut out of the idle
    one, and what is under them is filled in.
    """
    idle, pieces = load(data["idle"]), []
    canvas = idle.shape[1::-1]
    if "pressed" in data:
        pressed = load(data["pressed"])
        if pressed.shape != idle.shape:
            raise ValueError(
                f"the pressed picture has {pressed.shape[1]} x {pressed.shape[0]} px, the idle one {canvas[0]} x {canvas[1]}"
            )
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
                hole[y : y + h, x : x + w] |= round_
                pieces.append(
                    (
                        render.Element("stick", id, (x, y), radius=float(travel[0])),
                        [[before], [after]],
                    )
                )
            elif (before != after).any():
                after[(before == after).all(2)] = 0  # what does not change shows from below
                pieces.append(
                    (
                        render.Element("trigger" if "TRIGGER" in id else "button", id, (x, y)),
                        [[np.zeros_like(after)], [after]],
                    )
                )
    if hole.any():
        for channels in (slice(0, 3), 3):
            ground[..., channels] = cv2.inpaint(
                np.ascontiguousarray(idle[..., channels]), hole, 3, cv2.INPAINT_TELEA
            )
    return finish(
        name,
        data.get("family", "user"),
        canvas,
        [(render.Element("texture", "", (0, 0)), [[ground]]), *pieces],
    )


def stack(below, above):
    """RGBA over RGBA, neither premultiplied."""
    a, b = (p[..., 3:] / np.float32(255) for p in (above, below))
    alpha = a + b * (1 - a)
    rgb = (above[..., :3] * a + below[..., :3] * b * (1 - a)) / np.maximum(alpha, 1e-6)
    return np.round(np.concatenate([rgb, 255 * alpha], 2)).astype(np.uint8)


def finish(name, family, canvas, pieces) -> render.Template:
    """What every skin goes through: a button that never changes is not shown, empty rims go, the
    canvas holds everything, and its size is one that is convenient to match."""
    out = []
    for e, rows in pieces:
        states = [render.premultiplied(p) for r in rows for p in r]
        still = len(states) > 1 and max(np.abs(p - states[0]).max() for p in states) < 16
        if e.kind == "stick":
            e, rows = replace(e, click=not still), rows[: 1 if still else 2]
        elif still:
            e, rows = replace(e, kind="texture", id=""), [rows[0][:1]]
        # four arrows may each come in a picture of the whole d-pad
        if e.kind in ("button", "trigger"):
            ys, xs = np.nonzero(np.max([p[..., 3] for r in rows for p in r], 0))
            y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
            e, rows = (
                replace(e, pos=(e.pos[0] + int(x0), e.pos[1] + int(y0))),
                [[p[y0:y1, x0:x1] for p in r] for r in rows],
            )
        out.append((e, rows))
    moving = [e for e, _ in out if e.kind != "texture"]
    if not moving:
        raise ValueError(
            "shows no gamepad element that changes: its pressed pictures are those at rest"
        )
    corners = np.array(
        [
            (
                e.pos[0] - e.radius,
                e.pos[1] - e.radius,
                e.pos[0] + r[0][0].shape[1] + e.radius,
                e.pos[1] + r[0][0].shape[0] + e.radius,
            )
            for e, r in out
        ]
        + [(0, 0, *canvas)]
    )
    low, high = np.floor(corners[:, :2].min(0)), np.ceil(corners[:, 2:].max(0))
    side = max(high - low)
    if side > SIDE_LIMIT:
        raise ValueError(f"covers {side:.0f} px, more than {SIDE_LIMIT}")
    scale = float(math.ceil(SMALL / side)) if side < SMALL else min(1.0, LARGE / side)
    pieces = [resized(e, rows, low, scale) for e, rows in out]
    return render.Template(
        name,
        str(family)[:40],
        tuple(int(v) for v in np.ceil((high - low) * scale)),
        *render.pack(pieces),
    )


def resized(e, rows, low, scale):
    """The element, in coordinates from `low` on, scaled; pixel art keeps its edges."""
    spans = [
        ((p - v) * scale, (p - v + n) * scale)
        for p, v, n in zip(e.pos, low, rows[0][0].shape[1::-1])
    ]
    at = tuple(math.floor(a) for a, _ in spans)

    def one(picture):
        if scale >= 1:
            return picture.repeat(int(scale), 0).repeat(int(scale), 1)
        part = render.premultiplied(picture)
        # each output px: the integral over its width, by differences of the running sum
        for (a, b), x in zip(spans, at):
            part = part.swapaxes(0, 1)
            sums = np.concatenate([np.zeros((1, *part.shape[1:])), np.cumsum(part, 0, float)])
            edges = np.clip(
                (np.arange(math.ceil(b) - x + 1) - (a - x)) / scale, 0, len(part) - 1e-6
            )
            i, rest = edges.astype(int), (edges % 1)[:, None, None]
            part = np.diff(sums[i] * (1 - rest) + sums[i + 1] * rest, axis=0) * scale
        part[..., :3] *= 255 / np.maximum(part[..., 3:], 1e-3)
        return np.round(part).clip(0, 255).astype(np.uint8)

    return replace(e, pos=at, radius=e.radius * scale), [[one(p) for p in r] for r in rows]
