"""The one renderer: any template, built in or yours, in any state; and how a frame is cut where it
lies.
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
                atlas[y + j * (h + GAP) :, x + i * (w + GAP) :][:h, :w] = picture
    return atlas, tuple(replace(e, mapping=spot) for (e, _), spot in zip(pieces, spots))


def stored(tensors: dict, info: dict) -> Template:
    """The template that an overlay artefact holds, as artefact.read gives it; ValueError if it
    cannot be drawn.
    """
    height, width = tensors["atlas"].shape[:2]
    elements = [
        Element(**{k: tuple(v) if isinstance(v, list) else v for k, v in e.items()})
        for e in info["elements"]
    ]
    for e in elements:
        ids = {
            "stick": ("LEFT", "RIGHT"),
            "button": artefact.BUTTONS,
            "trigger": artefact.BUTTONS,
        }.get(e.kind, ("",))
        across, down = (
            (9, 1) if e.kind == "dpad" else (1, 1 if e.kind == "texture" or not e.click else 2)
        )
        x, y, w, h = e.mapping
        inside = (
            w > 0
            and h > 0
            and x + across * (w + GAP) - GAP <= width
            and y + down * (h + GAP) - GAP <= height
        )
        if e.kind not in KINDS.values() or e.id not in ids or not inside:
            raise ValueError(f"its element {e.kind[:20]!r} {e.id[:20]!r} does not fit its atlas")
    return Template(
        info["template"],
        info["family"],
        tuple(map(int, info["layout"]["size"])),
        tensors["atlas"],
        tuple(elements),
    )


@functools.lru_cache(64)
def without_sticks(template: Template) -> Template:
    return replace(template, elements=tuple(e for e in template.elements if e.kind != "stick"))


@functools.lru_cache(128)
def stick_alone(template: Template, side: str) -> Template:
    return replace(
        template, elements=tuple(e for e in template.elements if (e.kind, e.id) == ("stick", side))
    )


# by an element's type
KINDS = {0: "texture", 2: "button", 5: "stick", 6: "trigger", 7: "texture", 8: "dpad"}


def premultiplied(picture):
    """RGBA as float32 0..255, colours times alpha."""
    out = picture.astype(np.float32)
    out[..., :3] *= out[..., 3:] / 255
    return out


# ---- the renderer: any template in any state -----------------------------------------------------


@functools.lru_cache(512)
def sprites(template: Template, scale: float):
    """(still, moving): the canvas up to the last leading texture, and for each later element its
    pictures at `scale`.

    still: uint8 [h, w, 4] premultiplied.  moving: list of (element, x, y, [picture, 255 - its
    alpha] per state).
    """
    w, h = (round(v * scale) for v in template.size)
    still, moving = np.zeros((h, w, 4), np.uint8), []
    for e in template.elements:
        (x, y, ew, eh), states = e.mapping, []
        across = (
            [(i, 0) for i in range(9)]
            if e.kind == "dpad"
            else [(0, j) for j in range(1 + (e.kind != "texture" and e.click))]
        )
        x0, y0 = (math.floor(p * scale) - 1 for p in e.pos)
        x1, y1 = math.ceil((e.pos[0] + ew) * scale) + 1, math.ceil((e.pos[1] + eh) * scale) + 1
        for i, j in across:
            cut = premultiplied(
                template.atlas[y + j * (eh + GAP) :, x + i * (ew + GAP) :][:eh, :ew]
            )
            tile = resample(
                cut, (scale, scale, e.pos[0] * scale - x0, e.pos[1] * scale - y0), x1 - x0, y1 - y0
            )
            states.append(np.round(tile).astype(np.uint8))
        if e.kind == "texture" and not moving:
            over(still, states[0], cv2.bitwise_not(np.repeat(states[0][..., 3:], 4, 2)), x0, y0)
        else:
            moving.append(
                (e, x0, y0, [(s, cv2.bitwise_not(np.repeat(s[..., 3:], 4, 2))) for s in states])
            )
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


def over(canvas, picture, rest, x, y):
    """Premultiplied `picture` over `canvas` at (x, y), in place, clipped; rest = 255 - alpha, in
    four channels.
    """
    (h, w), (H, W) = picture.shape[:2], canvas.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, W), min(y + h, H)
    if x0 < x1 and y0 < y1:
        if (x1 - x0, y1 - y0) != (w, h):
            picture, rest = (
                picture[y0 - y : y1 - y, x0 - x : x1 - x],
                rest[y0 - y : y1 - y, x0 - x : x1 - x],
            )
        part = canvas[y0:y1, x0:x1]
        canvas[y0:y1, x0:x1] = cv2.add(cv2.multiply(part, rest, scale=1 / 255), picture)


def draw(template: Template, buttons, sticks, scale: float = 1.0) -> np.ndarray:
    """The overlay in one state.

    buttons: [16] bool, in the order of artefact.BUTTONS (opposite d-pad directions cancel on a
    d-pad, not on separate keys); sticks: [4] in [-1, 1], y down.  Returns uint8 [round(h * scale),
    round(w * scale), 4] RGBA, premultiplied.
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
                picture = cv2.warpAffine(
                    picture, np.array([[1, 0, fx], [0, 1, fy]]), (w + 1, h + 1)
                )
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
    v, u = np.ogrid[
        : math.ceil(abs(dy) + 2 * width * scale) + 1, : math.ceil(abs(dx) + 2 * width * scale) + 1
    ]
    u, v = u + np.float32(x0 + 0.5 - cx), v + np.float32(y0 + 0.5 - cy)
    along = np.clip((u * dx + v * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    alpha = np.clip(width * scale / 2 + 0.5 - np.hypot(u - along * dx, v - along * dy), 0, 1)[
        ..., None
    ]
    picture = np.round(alpha * [*pads.rgb(color), 255]).astype(np.uint8)
    over(canvas, picture, cv2.bitwise_not(np.repeat(picture[..., 3:], 4, 2)), x0, y0)


def composite(frame, overlay, x: int, y: int, opacity: float = 1.0) -> None:
    """Blend a premultiplied RGBA overlay onto an RGB uint8 frame at (x, y), in place, clipped at
    its borders.
    """
    (h, w), (H, W) = overlay.shape[:2], frame.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, W), min(y + h, H)
    if x0 < x1 and y0 < y1:
        part = np.ascontiguousarray(overlay[y0 - y : y1 - y, x0 - x : x1 - x])
        rest = cv2.convertScaleAbs(part[..., 3], alpha=-opacity, beta=255)
        below = cv2.multiply(
            np.ascontiguousarray(frame[y0:y1, x0:x1]), cv2.merge([rest] * 3), scale=1 / 255
        )
        frame[y0:y1, x0:x1] = cv2.addWeighted(
            cv2.cvtColor(part, cv2.COLOR_RGBA2RGB), opacity, below, 1.0, 0
        )


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
            a, b = 0.3, 0.4  # an arm: 0.4 of the side wide, 0.4 long
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
    """How a template looks at rest and with everything pressed: uint8 [2, h, w, 4] RGBA,
    premultiplied.

    boxes: the buttons of its layout; show(buttons bool [16]) draws it.  A d-pad cannot show
    opposite directions at once: its lower and right arm come from another picture."""
    up_left, down_right = np.ones((2, 16), bool)
    up_left[[INDEX["DPAD_DOWN"], INDEX["DPAD_RIGHT"]]] = down_right[
        [INDEX["DPAD_UP"], INDEX["DPAD_LEFT"]]
    ] = False
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
    shown = np.hypot(*a[:, 0]) * size[0], np.hypot(*a[:, 1]) * size[1]  # displayed w, h in frame px
    kx, ky = (max(1, round(s / o)) for s, o in zip(shown, (out_w, out_h)))
    w, h = out_w * kx, out_h * ky
    m = a @ np.array(
        [[size[0] / w, 0, 0.5 * size[0] / w], [0, size[1] / h, 0.5 * size[1] / h], [0, 0, 1]]
    )
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
    kx, ky, m, part = sampling(
        tuple(np.ravel(affine).tolist()), tuple(size), out_w, out_h, *frame.shape[1::-1]
    )
    rgb, frame = frame.ndim == 3 and frame.shape[2] == 3, frame[part]
    if rgb:  # OpenCV warps four channels in half the time of three
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA)
    out = cv2.warpAffine(
        frame,
        m,
        (out_w * kx, out_h * ky),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    out = cv2.resize(out, (out_w, out_h), interpolation=cv2.INTER_AREA) if kx * ky > 1 else out
    return cv2.cvtColor(out, cv2.COLOR_RGBA2RGB) if rgb else out


def idle(template, ground, scale=1.0):
    """The template untouched, over a gray or an RGB colour: uint8 [h, w, 3]."""
    picture = draw(template, np.zeros(16), np.zeros(4), scale)
    frame = np.empty((*picture.shape[:2], 3), np.uint8)
    frame[:] = ground
    composite(frame, picture, 0, 0)
    return frame


def blurred(picture, sigma, step: int = 1):
    """By a Gaussian; if step > 1 nearly so, at 1 / step of the resolution: the box of the one
    resize and the tent of the other blur, too.
    """
    small = (
        cv2.resize(picture, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        if step > 1
        else picture
    )
    small = cv2.GaussianBlur(small, (0, 0), (sigma**2 / step**2 - (step > 1) / 4) ** 0.5)
    return cv2.resize(small, picture.shape[1::-1]) if step > 1 else small


def band(picture, step: int = 1):
    """Edges and lines without noise and without the slow changes of what shines through."""
    return cv2.GaussianBlur(picture, (0, 0), 1.0) - blurred(picture, 8.0, step)


def expected(seen, drawn, step: int = 1, without=0):
    """The band of a crop, float32 [h, w, 3], if it were the template over what shines through;
    drawn: RGBA float32, premultiplied.

    without=1: what the template adds to the band of what is behind it.
    """
    clear = 1.001 - drawn[..., 3] / 255
    # NumPy is slow where [h, w, 1] meets [h, w, 3]
    soft, clear = (cv2.merge([v] * 3) for v in (blurred(clear, 6.0, step), clear))
    return band(
        cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB)
        + (clear - without) * (blurred(seen * clear, 6.0, step) / soft),
        step,
    )
