"""The one renderer: any template, built in or the user's, in any state; and how its place
is cut out of a frame.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from common import artefact

import cv2
import numpy as np

from templates import pads

GAP = 3  # px between the states of one element in an atlas, as in OBS input-overlay presets
DPAD = ("DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT")
INDEX = {name: i for i, name in enumerate(artefact.BUTTONS)}
# kind of an element by its type in an OBS input-overlay preset
KINDS = {0: "texture", 2: "button", 5: "stick", 6: "trigger", 7: "texture", 8: "dpad"}
# what `id` may be, by kind; other kinds have none
IDS = {"button": artefact.BUTTONS, "trigger": artefact.BUTTONS, "stick": ("LEFT", "RIGHT")}


@dataclass(frozen=True)
class Element:
    """One thing on the canvas.  Its pressed picture lies GAP px below the idle one in the atlas; a
    d-pad's nine states lie to the right: centre, left, right, up, down, up-left, up-right,
    down-left, down-right."""

    kind: str  # texture, button, stick, trigger or dpad
    id: str  # a name of artefact.BUTTONS; LEFT or RIGHT for sticks; "" for the rest
    pos: tuple[int, int]  # x, y on the canvas, px
    # x, y, w, h of the idle picture in the atlas, px
    mapping: tuple[int, int, int, int] = (0, 0, 0, 0)
    radius: float = 0.0  # stick travel, px
    click: bool = True  # of a stick: its click is shown
    trail: tuple = ()  # of a stick: a line from its centre to the knob, ("#rrggbb", width in px)

    @property
    def states(self) -> list[tuple[int, int]]:
        """Column and row of each state's picture in the atlas, from the idle one."""
        if self.kind == "dpad":
            return [(column, 0) for column in range(9)]
        if self.kind == "texture" or not self.click:
            return [(0, 0)]
        return [(0, 0), (0, 1)]

    def place(self, column: int, row: int) -> tuple[int, int, int, int]:
        """x, y, w, h of a state's picture in the atlas, px."""
        x, y, w, h = self.mapping
        return x + column * (w + GAP), y + row * (h + GAP), w, h


@dataclass(frozen=True, eq=False)
class Template:
    """A controller as streamers show it: an atlas and the list of elements that are cut from it."""

    name: str
    family: str  # a key of FAMILIES; "user" or what nitrogen.json says
    size: tuple[int, int]  # w, h of the canvas, px
    atlas: np.ndarray  # uint8 [H, W, 4] RGBA, not premultiplied, as in a PNG
    elements: tuple[Element, ...]  # in drawing order


# ---- templates, from pieces: elements and rows of pictures of their states, uint8 [h, w, 4] RGBA -


def pack(pieces):
    """(atlas, elements): pieces in rows from left to right, each with its states below or to the
    right of it.
    """
    spots = []
    x, y = 0, 0
    tallest = 0  # of the row, px
    width = max(720, *(len(rows[0]) * (rows[0][0].shape[1] + GAP) for _, rows in pieces))
    for _, rows in pieces:
        h, w = rows[0][0].shape[:2]
        full_w, full_h = len(rows[0]) * (w + GAP), len(rows) * (h + GAP)
        if x + full_w > width:
            x, y = 0, y + tallest
            tallest = 0
        spots.append((x, y, w, h))
        x += full_w
        tallest = max(tallest, full_h)
    atlas = np.zeros((y + tallest, width, 4), np.uint8)
    elements = []
    for (element, rows), spot in zip(pieces, spots, strict=True):
        element = replace(element, mapping=spot)
        elements.append(element)
        for j, pictures in enumerate(rows):
            for i, picture in enumerate(pictures):
                x, y, w, h = element.place(i, j)
                atlas[y : y + h, x : x + w] = picture
    return atlas, tuple(elements)


def fits(element: Element, atlas) -> bool:
    """Whether an element that was read from a file can be drawn from this atlas."""
    known = element.kind in KINDS.values() and element.id in IDS.get(element.kind, ("",))
    x, y, w, h = element.place(*element.states[-1])
    return known and min(w, h) > 0 and x + w <= atlas.shape[1] and y + h <= atlas.shape[0]


def as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def stored(tensors: dict, info: dict) -> Template:
    """The template that an overlay artefact holds, as artefact.read gives it; ValueError if it
    cannot be drawn.
    """
    elements = []
    for fields in info["elements"]:
        element = Element(**{name: as_tuple(value) for name, value in fields.items()})
        if not fits(element, tensors["atlas"]):
            name = f"{element.kind[:20]!r} {element.id[:20]!r}"
            raise ValueError(f"its element {name} does not fit its atlas")
        elements.append(element)
    size = tuple(map(int, info["layout"]["size"]))
    return Template(info["template"], info["family"], size, tensors["atlas"], tuple(elements))


@functools.lru_cache(64)
def without_sticks(template: Template) -> Template:
    return replace(template, elements=tuple(e for e in template.elements if e.kind != "stick"))


@functools.lru_cache(128)
def stick_alone(template: Template, side: str) -> Template:
    stick = tuple(e for e in template.elements if (e.kind, e.id) == ("stick", side))
    return replace(template, elements=stick)


def premultiplied(picture):
    """RGBA as float32 0..255, colours times alpha."""
    out = picture.astype(np.float32)
    out[..., :3] *= out[..., 3:] / 255
    return out


# ---- the renderer: any template in any state -----------------------------------------------------


def transparency(picture):
    """255 - alpha of an RGBA picture, in four channels: how much of what is below stays."""
    return cv2.bitwise_not(np.repeat(picture[..., 3:], 4, 2))


def sprite(template: Template, e: Element, scale: float):
    """(x, y, [picture per state]) of an element at `scale`: uint8 [h, w, 4] premultiplied, with its
    corner at (x, y) of the canvas."""
    w, h = e.mapping[2:]
    left, top = e.pos[0] * scale, e.pos[1] * scale
    x0, y0 = math.floor(left) - 1, math.floor(top) - 1
    x1, y1 = math.ceil((e.pos[0] + w) * scale) + 1, math.ceil((e.pos[1] + h) * scale) + 1
    pictures = []
    for state in e.states:
        x, y, w, h = e.place(*state)
        cut = premultiplied(template.atlas[y : y + h, x : x + w])
        tile = resample(cut, (scale, scale, left - x0, top - y0), x1 - x0, y1 - y0)
        pictures.append(np.round(tile).astype(np.uint8))
    return x0, y0, pictures


@functools.lru_cache(512)
def sprites(template: Template, scale: float):
    """(still, moving): the canvas up to the last leading texture, and for each later element its
    pictures at `scale`.

    still: uint8 [h, w, 4] premultiplied.  moving: list of (element, x, y, [(picture, its
    `transparency`) per state]).
    """
    w, h = (round(v * scale) for v in template.size)
    still, moving = np.zeros((h, w, 4), np.uint8), []
    for e in template.elements:
        x, y, pictures = sprite(template, e, scale)
        states = [(picture, transparency(picture)) for picture in pictures]
        if e.kind == "texture" and not moving:
            over(still, *states[0], x, y)
        else:
            moving.append((e, x, y, states))
    return still, moving


def resample(picture, placed, w, h):
    """picture drawn with scale (sx, sy) and its corner at (x, y) of a w x h tile; anti-aliased when
    it shrinks.
    """
    sx, sy, x, y = placed
    k = max(1, math.ceil(1 / min(sx, sy) - 0.01)) * 2
    m = np.array([[sx * k, 0, x * k + sx * k / 2 - 0.5], [0, sy * k, y * k + sy * k / 2 - 0.5]])
    big = cv2.warpAffine(picture, m, (w * k, h * k), flags=cv2.INTER_LINEAR)
    return cv2.resize(big, (w, h), interpolation=cv2.INTER_AREA)


def overlap(picture, canvas, x: int, y: int):
    """Where a picture with its corner at (x, y) lies on a canvas: slices of the canvas and of the
    picture; None if it lies beside it."""
    (h, w), (H, W) = picture.shape[:2], canvas.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, W), min(y + h, H)
    if x0 >= x1 or y0 >= y1:
        return None
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


def over(canvas, picture, rest, x, y):
    """Premultiplied `picture` over `canvas` at (x, y), in place, clipped; rest: its
    `transparency`.
    """
    if where := overlap(picture, canvas, x, y):
        there, here = where
        part = canvas[there]
        part[:] = cv2.add(cv2.multiply(part, rest[here], scale=1 / 255), picture[here])


def moved(picture, dx: float, dy: float):
    """A picture shifted by less than a px to the right and down: uint8 [h + 1, w + 1, 4]."""
    h, w = picture.shape[:2]
    return cv2.warpAffine(picture, np.array([[1, 0, dx], [0, 1, dy]]), (w + 1, h + 1))


def draw(template: Template, buttons, sticks, scale: float = 1.0) -> np.ndarray:
    """The overlay in one state.

    buttons: [16] bool, in the order of artefact.BUTTONS (opposite d-pad directions cancel on a
    d-pad, not on separate keys); sticks: [4] in [-1, 1], y down.  Returns uint8 [round(h * scale),
    round(w * scale), 4] RGBA, premultiplied.
    """
    still, moving = sprites(template, float(scale))
    canvas = still.copy()
    on = (np.asarray(buttons) > 0.5).tolist()
    for e, x, y, states in moving:
        if e.kind == "dpad":
            up, down, left, right = (int(on[INDEX[d]]) for d in DPAD)
            picture, rest = states[pads.DPAD_STATES.index((right - left, down - up))]
        elif e.kind == "stick":
            axis = 0 if e.id == "LEFT" else 2
            dx, dy = (float(sticks[axis + i]) * e.radius * scale for i in (0, 1))
            if e.trail:
                streak(canvas, e, scale, dx, dy)
            picture, rest = states[e.click and on[INDEX[f"{e.id}_THUMB"]]]
            if dx % 1 or dy % 1:
                picture = moved(picture, dx % 1, dy % 1)
                rest = transparency(picture)
            x, y = x + math.floor(dx), y + math.floor(dy)
        else:
            picture, rest = states[on[INDEX[e.id]] if e.id else 0]
        over(canvas, picture, rest, x, y)
    return canvas


def at_rest(template: Template, scale: float = 1.0) -> np.ndarray:
    """As `draw`: nothing pressed, the sticks in their centres."""
    return draw(template, np.zeros(16), np.zeros(4), scale)


def streak(canvas, e, scale, dx, dy):
    """The trail of a stick at rest + (dx, dy) px, in place: round-ended, anti-aliased over 1 px."""
    color, width = e.trail
    width *= scale
    cx, cy = ((p + m / 2) * scale for p, m in zip(e.pos, e.mapping[2:], strict=True))
    x0, y0 = math.floor(min(cx, cx + dx) - width), math.floor(min(cy, cy + dy) - width)
    v, u = np.ogrid[: math.ceil(abs(dy) + 2 * width) + 1, : math.ceil(abs(dx) + 2 * width) + 1]
    u = u + np.float32(x0 + 0.5 - cx)
    v = v + np.float32(y0 + 0.5 - cy)
    along = np.clip((u * dx + v * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    alpha = np.clip(width / 2 + 0.5 - np.hypot(u - along * dx, v - along * dy), 0, 1)
    picture = np.round(alpha[..., None] * [*pads.rgb(color), 255]).astype(np.uint8)
    over(canvas, picture, transparency(picture), x0, y0)


def composite(frame, overlay, x: int, y: int, opacity: float = 1.0) -> None:
    """Blend a premultiplied RGBA overlay onto an RGB uint8 frame at (x, y), in place, clipped at
    its borders.
    """
    if where := overlap(overlay, frame, x, y):
        there, here = where
        part = np.ascontiguousarray(overlay[here])
        rest = cv2.merge([cv2.convertScaleAbs(part[..., 3], alpha=-opacity, beta=255)] * 3)
        below = cv2.multiply(np.ascontiguousarray(frame[there]), rest, scale=1 / 255)
        rgb = cv2.cvtColor(part, cv2.COLOR_RGBA2RGB)
        frame[there] = cv2.addWeighted(rgb, opacity, below, 1.0, 0)


def layout(template: Template) -> dict:
    """Where each thing is, on the canvas, px; for the overlay's metadata.

    {"size": [w, h], "buttons": {NAME: [x, y, w, h]}, "sticks": {"LEFT": [cx, cy, travel, w, h],
    "RIGHT": ...}}
    """
    out = {"size": list(template.size), "buttons": {}, "sticks": {}}
    for e in template.elements:
        (x, y), (_, _, w, h) = e.pos, e.mapping
        if e.kind == "stick":
            out["sticks"][e.id] = [x + w / 2, y + h / 2, e.radius, w, h]
            if e.click:
                out["buttons"][f"{e.id}_THUMB"] = [x, y, w, h]
        elif e.kind == "dpad":
            side, end, arm = 0.3, 0.6, 0.4  # an arm: 0.4 of the side wide, 0.4 long
            corners = (side, 0), (side, end), (0, side), (end, side)
            for name, (fx, fy) in zip(DPAD, corners, strict=True):
                out["buttons"][name] = [x + fx * w, y + fy * h, arm * w, arm * h]
        elif e.id:
            out["buttons"][e.id] = [x, y, w, h]
    return out


def region(box) -> tuple:
    """The slices of an array that a box x, y, w, h covers, px."""
    x, y, w, h = (int(round(v)) for v in box)
    return slice(max(y, 0), y + h), slice(max(x, 0), x + w)


def looks(boxes: dict, show) -> np.ndarray:
    """How a template looks at rest and with everything pressed: uint8 [2, h, w, 4] RGBA,
    premultiplied.

    boxes: the buttons of its layout; show(buttons bool [16]) draws it.  A d-pad cannot show
    opposite directions at once: its lower and right arm come from another picture."""
    up_left, down_right = np.ones((2, 16), bool)
    up_left[[INDEX["DPAD_DOWN"], INDEX["DPAD_RIGHT"]]] = False
    down_right[[INDEX["DPAD_UP"], INDEX["DPAD_LEFT"]]] = False
    pressed, other = show(up_left).copy(), show(down_right)
    for name in {"DPAD_DOWN", "DPAD_RIGHT"} & {*boxes}:
        pressed[region(boxes[name])] = other[region(boxes[name])]
    return np.stack([show(np.zeros(16, bool)), pressed])


@functools.lru_cache(256)
def sampling(affine, size, out_w: int, out_h: int, frame_w: int, frame_h: int):
    """How `crop` samples: (kx, ky samples per px, their affine, the part of the frame that they lie
    in); a video asks for it frame after frame.
    """
    a = np.reshape(affine, (2, 3)).astype(float)
    shown_w, shown_h = np.hypot(*a[:, 0]) * size[0], np.hypot(*a[:, 1]) * size[1]  # frame px
    kx, ky = max(1, round(shown_w / out_w)), max(1, round(shown_h / out_h))
    w, h = out_w * kx, out_h * ky
    to_canvas = [[size[0] / w, 0, 0.5 * size[0] / w], [0, size[1] / h, 0.5 * size[1] / h]]
    m = a @ np.array([*to_canvas, [0, 0, 1]])
    m[:, 2] -= 0.5  # from edges to pixel centres, as OpenCV counts
    ends = m @ np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1]])
    x, y = np.clip(np.floor(ends.min(1)) - 1, 0, (frame_w - 1, frame_h - 1)).astype(int)
    right, low = np.maximum(np.ceil(ends.max(1)) + 2, (x + 1, y + 1)).astype(int)
    m[:, 2] -= x, y
    return kx, ky, m, np.s_[y:low, x:right]


def crop(frame, affine, size, out_w: int, out_h: int) -> np.ndarray:
    """The template's canvas cut out of a frame: uint8 [out_h, out_w, channels], anti-aliased when
    it shrinks.

    frame: uint8 [h, w, channels]; affine: [2, 3] canvas px -> frame px; size: canvas (w, h).
    """
    place = tuple(np.ravel(affine).tolist()), tuple(size)
    kx, ky, m, part = sampling(*place, out_w, out_h, *frame.shape[1::-1])
    rgb = frame.ndim == 3 and frame.shape[2] == 3
    frame = frame[part]
    if rgb:  # OpenCV warps four channels in half the time of three
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA)
    how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
    out = cv2.warpAffine(frame, m, (out_w * kx, out_h * ky), **how)
    if kx * ky > 1:
        out = cv2.resize(out, (out_w, out_h), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(out, cv2.COLOR_RGBA2RGB) if rgb else out


def idle(template, ground, scale=1.0):
    """The template untouched, over a gray or an RGB colour: uint8 [h, w, 3]."""
    picture = at_rest(template, scale)
    frame = np.empty((*picture.shape[:2], 3), np.uint8)
    frame[:] = ground
    composite(frame, picture, 0, 0)
    return frame


def blurred(picture, sigma, step: int = 1):
    """A Gaussian blur; if step > 1 approximately, at 1 / step of the resolution, which is faster.

    The two resizes blur, too: sigma is made smaller for that.
    """
    if step == 1:
        return cv2.GaussianBlur(picture, (0, 0), sigma)
    small = cv2.resize(picture, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), (sigma**2 / step**2 - 0.25) ** 0.5)
    return cv2.resize(small, picture.shape[1::-1])


def band(picture, step: int = 1):
    """Edges and lines without noise and without the slow changes of what shines through."""
    return cv2.GaussianBlur(picture, (0, 0), 1.0) - blurred(picture, 8.0, step)


def expected(seen, drawn, step: int = 1, added: bool = False):
    """The band of a crop, float32 [h, w, 3], if it were the template over what shines through;
    drawn: RGBA float32, premultiplied.

    added: only what the template adds to the band of what is behind it.
    """
    clear = 1.001 - drawn[..., 3] / 255
    # NumPy is slow where [h, w, 1] meets [h, w, 3]
    soft, clear = (cv2.merge([v] * 3) for v in (blurred(clear, 6.0, step), clear))
    behind = blurred(seen * clear, 6.0, step) / soft
    return band(cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB) + (clear - added) * behind, step)
