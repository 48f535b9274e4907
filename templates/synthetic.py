"""Pairs of overlay crops with their truth, drawn without end (paper 2.1: 8 million)."""

from __future__ import annotations

import time
from fractions import Fraction

from common import artefact
from common.device import keep_memory

import av
import cv2
import numpy as np
import torch

from templates import library, matching, pads, presets, render, scenes

CROP = 128  # px, side of each registered crop; CHOICE: the paper does not give it
WILD = 0.5  # CHOICE: share of the training's films whose skin is of no known hand
WILD_TRAINED = 1_000_000  # their seeds are below; those of validation begin here
PER_FRAME = ("frames", "maps", "marks", "buttons", "cells", "visible")  # of an item


# ---- what a player does --------------------------------------------------------------------------


def random_states(rng, shown, n: int = 2):
    """(buttons bool [n, 16], sticks f32 [n, 4]): consecutive states of a pad, from resting to
    everything at once.
    """
    buttons = [rng.random(16) < rng.choice([0.0, 0.08, 0.2, 0.45], p=[0.15, 0.35, 0.35, 0.15])]
    sticks = [random_sticks(rng)]
    flips = rng.choice([0.0, 0.05, 0.3])
    for _ in range(n - 1):
        buttons.append(buttons[-1] ^ (rng.random(16) < flips))
        # each stick holds still, moves on, or jumps
        step = np.repeat(rng.choice(3, size=2, p=[0.35, 0.4, 0.25]), 2)
        moved = sticks[-1] + rng.normal(0, 0.2, 4)
        sticks.append(np.choose(step, (sticks[-1], moved, random_sticks(rng))))
    buttons = np.stack([without_opposites(rng, b) for b in buttons]) & shown[:16]
    return buttons, np.stack(sticks).clip(-1, 1).astype(np.float32)


def without_opposites(rng, buttons):
    """Of two opposite directions, at most one stays pressed."""
    for pair in ([0, 1], [2, 3]):
        if buttons[pair].all():
            buttons[rng.choice(pair)] = False
    return buttons


def random_sticks(rng):
    """[4] in [-1, 1]: at rest, drifting, in one of eight directions, on the rim, anywhere, or where
    only square pads reach.
    """
    sticks = np.zeros((2, 2))
    for i, kind in enumerate(rng.choice(6, size=2, p=[0.25, 0.1, 0.25, 0.15, 0.2, 0.05])):
        if kind == 2:
            angle = rng.integers(8) * np.pi / 4 + rng.normal(0, 0.04)
        else:
            angle = rng.uniform(0, 2 * np.pi)
        rim = np.array([np.cos(angle), np.sin(angle)])
        # all kinds are drawn, whichever it is
        drift = rng.normal(0, 0.06, 2)
        anywhere = rim * rng.random() ** 0.5
        square = rng.uniform(-1, 1, 2)
        sticks[i] = (0, drift, rim, rim, anywhere, square)[kind]
    return sticks.ravel().clip(-1, 1)


# ---- what a stream does to the picture -----------------------------------------------------------


def through_codec(rng, frames: list) -> list:
    """RGB frames of an even size as a video shows them: through a real encoder and back, at a
    random rate: x264, MPEG-4, VP8 or VP9."""
    name = rng.choice(["libx264", "mpeg4", "libvpx", "libvpx-vp9"], p=[0.5, 0.3, 0.1, 0.1])
    coder = av.CodecContext.create(name, "w")
    coder.height, coder.width = frames[0].shape[:2]
    coder.pix_fmt = "yuv420p"
    coder.time_base = Fraction(1, 30)
    coder.framerate = 30
    coder.thread_count = 1
    set_quality(rng, coder, name)
    packets = []
    for i, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(frame, "rgb24")
        picture.pts = i
        packets += coder.encode(picture)
    packets += coder.encode(None)
    reader = {"libx264": "h264", "libvpx": "vp8", "libvpx-vp9": "vp9"}.get(name, name)
    decoder = av.CodecContext.create(reader, "r")
    decoder.extradata = coder.extradata
    decoder.thread_count = 1
    return [f.to_ndarray(format="rgb24") for p in (*packets, None) for f in decoder.decode(p)]


def set_quality(rng, coder, name: str) -> None:
    """A random rate for an encoder of av, and its fastest settings."""
    if name == "libx264":
        coder.options = {
            "crf": str(rng.integers(18, 42)),
            "preset": str(rng.choice(["superfast", "veryfast", "medium"])),
            "tune": "zerolatency",
        }
        return
    bits_per_pixel = np.exp(rng.uniform(*np.log((0.04, 0.5))))
    coder.bit_rate = int(bits_per_pixel * 30 * coder.width * coder.height)
    if "vpx" in name:
        # a positive speed lets VP8 follow the clock
        speed = "-8" if name == "libvpx" else "8"
        coder.options = {"deadline": "realtime", "cpu-used": speed, "lag-in-frames": "0"}


def through_jpeg(rng, frames: list) -> list:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
    encoded = [cv2.imencode(".jpg", frame, quality)[1] for frame in frames]
    return [cv2.imdecode(e, cv2.IMREAD_COLOR) for e in encoded]


def blend_pairs(rng, frames: list) -> None:
    """Blend some pairs' second frame with its first, as a stream of another frame rate does."""
    for k in range(1, len(frames), 2):
        if rng.random() < 0.08:
            share = rng.uniform(0.6, 1)
            frames[k] = cv2.addWeighted(frames[k], share, frames[k - 1], 1 - share, 0)


def recoloured(rng, pictures: list) -> list:
    """Recoloured, tinted and softened as streams do, all of them alike."""
    if rng.random() < 0.1:
        swap = rng.permutation(3)
        pictures = [np.ascontiguousarray(p[..., swap]) for p in pictures]
    if rng.random() < 0.3:
        tint = np.hstack([np.diag(rng.uniform(0.75, 1.2, 3)), rng.normal(0, 12, (3, 1))])
        pictures = [cv2.transform(p, tint) for p in pictures]
    if rng.random() < 0.25:  # scaled down by the streamer, and up again
        h, w = pictures[0].shape[:2]
        share = rng.uniform(0.55, 0.95)
        less = round(w * share), round(h * share)
        pictures = [cv2.resize(p, less, interpolation=cv2.INTER_AREA) for p in pictures]
        pictures = [cv2.resize(p, (w, h)) for p in pictures]
    return pictures


# ---- the overlay ---------------------------------------------------------------------------------


def covered(box, by) -> float:
    """Share of box x, y, w, h that lies under another."""
    w, h = (
        max(0.0, min(box[i] + box[i + 2], by[i] + by[i + 2]) - max(box[i], by[i])) for i in (0, 1)
    )
    return w * h / (box[2] * box[3])


def element_boxes(layout, sticks, scale, edge):
    """Where the 16 buttons and the two knobs are in a picture, x, y, w, h px; far outside what the
    template does not show.

    sticks [4] in -1..1; scale, edge [2]: px per canvas px, and the overlay's corner."""
    boxes = [[-99.0, -99.0, 1.0, 1.0]] * 18
    for name, box in layout["buttons"].items():
        boxes[artefact.BUTTONS.index(name)] = [*(box[:2] * scale + edge), *(box[2:] * scale)]
    for i, side in enumerate(matching.SIDES):
        if side in layout["sticks"]:
            x, y, travel, kw, kh = layout["sticks"][side]
            knob = np.array([x, y]) + travel * sticks[2 * i : 2 * i + 2] - (kw / 2, kh / 2)
            boxes[16 + i] = [*(knob * scale + edge), *((kw, kh) * scale)]
    return boxes


class Skin:
    """A template as it is; or, if `remade`, often a new look made of it: other colours, fainter
    presses, presses that darken or lighten, buttons whose two looks have changed places.  What is
    read then has to come from its looks, not from memory."""

    def __init__(self, rng, template, remade: bool = True, scale: float = 1.0):
        self.template = template
        self.scale = scale
        boxes = render.layout(template)["buttons"].items()
        self.boxes = {name: [v * scale for v in box] for name, box in boxes}
        self.swap = None  # order of the colours
        self.invert = False  # the colours
        self.strength = 1.0  # share of the change that a press makes
        self.tone = 0.0  # how far a press goes to black or white, in place of its picture
        if remade:
            self.remake(rng)
        flipped = rng.random(16) < rng.choice(
            [0, 0.5, 1], p=[0.7, 0.2, 0.1] if remade else [1, 0, 0]
        )
        # a d-pad has no picture of opposite directions, so its arms keep their looks
        if any(e.kind == "dpad" for e in template.elements) and not self.tone:
            flipped &= ~np.array([b.startswith("DPAD") for b in artefact.BUTTONS])
        self.flip = flipped

    def remake(self, rng) -> None:
        if rng.random() < 0.25:
            self.swap = rng.permutation(3)
            self.invert = rng.random() < 0.5
        if rng.random() < 0.45:
            self.strength = rng.uniform(0.12, 1)
        if rng.random() < 0.2 and self.solid():
            self.tone = rng.uniform(0.2, 0.6)

    def solid(self) -> bool:
        """Can every button be seen at rest?"""
        rest = render.draw(self.template, np.zeros(16), np.zeros(4), self.scale)
        return all(rest[render.region(box)][..., 3].mean() > 100 for box in self.boxes.values())

    def pressed(self, template, buttons, sticks):
        """As render.draw, or with what is pressed darker where it is light and lighter where it is
        dark.
        """
        if not self.tone:
            return render.draw(template, buttons, sticks, self.scale)
        out = render.draw(template, buttons & matching.THUMBS, sticks, self.scale)
        for name, on in zip(artefact.BUTTONS, buttons & ~matching.THUMBS, strict=True):
            if on and name in self.boxes:
                part = out[render.region(self.boxes[name])]
                color, alpha = part[..., :3].astype(np.float32), part[..., 3:]
                light = 2 * color.mean(-1, keepdims=True) > alpha
                part[..., :3] = color + self.tone * (np.where(light, 0, alpha) - color)
        return out

    def draw(self, template, buttons, sticks):
        """As render.draw; template: the skin's, or some of its elements."""
        out = self.pressed(template, buttons ^ self.flip, sticks)
        if self.strength < 1:
            rest = self.pressed(template, self.flip, sticks)
            out = cv2.addWeighted(out, self.strength, rest, 1 - self.strength, 0)
        if self.swap is not None:
            color, alpha = out[..., self.swap], out[..., 3:]
            out = np.dstack([alpha - color if self.invert else color, alpha])
        return out

    def usual(self, rng):
        """The overlay as a temporal median shows it: at rest, or the median of three states of a
        player who holds some buttons most of the time: "unlike the median" must not come to mean
        "pressed"."""
        if rng.random() < 0.35:
            return self.draw(self.template, np.zeros(16, bool), np.zeros(4))
        held = np.where(rng.random(16) < 0.2, 0.8, 0.1)  # how often each button is down
        favourite = random_sticks(rng)
        pictures = []
        for _ in range(3):
            buttons = without_opposites(rng, rng.random(16) < held)
            sticks = (favourite, random_sticks(rng), np.zeros(4))[rng.integers(3)]
            pictures.append(self.draw(self.template, buttons, sticks))
        a, b, c = pictures
        return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))

    def looks(self):
        """As render.looks."""
        return render.looks(self.boxes, lambda on: self.draw(self.template, on, np.zeros(4)))


def crop_looks(looks):
    """The looks of a template as the network sees them: uint8 [2, CROP, CROP, 4]."""
    area = cv2.INTER_AREA
    return np.stack([cv2.resize(look, (CROP, CROP), interpolation=area) for look in looks])


def disguise(rng, item: dict) -> dict:
    """Now and then the mirror image, or buttons that go by each other's names (not the sticks'
    clicks): places and names mean little on an unknown pad.
    """
    item = dict(item)
    if rng.random() < 0.15:
        for key in ("frames", "median", "looks"):
            item[key] = item[key][..., ::-1, :]
        for key in ("boxes", "sticks"):
            item[key] = item[key].copy()
            item[key][:, 0] = 1 - item[key][:, 0]
        item["cells"] = item["cells"] * np.float32([-1, 1])
        item["maps"] = item["maps"][..., ::-1]
    if rng.random() < 0.15:
        names = np.arange(18)
        free = np.flatnonzero(~matching.THUMBS)
        names[free] = rng.permutation(free)
        buttons = names[:16]
        item["boxes"] = item["boxes"][buttons]
        item["buttons"] = item["buttons"][:, buttons]
        item["marks"] = item["marks"][:, buttons]
        item["visible"] = item["visible"][:, names]
        item["shown"] = np.append(item["shown"][buttons], item["shown"][16:])
    return item


def lay_over(rng, skin, buttons, axes, pictures: list, displayed, edge) -> None:
    """Composite the overlay onto pictures, the last of which is the median, at a random opacity."""
    opacity = rng.uniform(0.45, 1)
    overlays = [skin.draw(skin.template, *state) for state in zip(buttons, axes, strict=True)]
    overlays.append(skin.usual(rng))
    for picture, overlay in zip(pictures, overlays, strict=True):
        overlay = cv2.resize(overlay, displayed.tolist(), interpolation=cv2.INTER_AREA)
        render.composite(picture, overlay, *edge.tolist(), opacity)


def streamed(rng, damage: str, pictures: list, median):
    """The pictures and their median as a stream shows them."""
    blend_pairs(rng, pictures)
    *pictures, median = recoloured(rng, [*pictures, median])
    if damage == "jpeg":
        pictures = through_jpeg(rng, pictures)
    elif damage == "codec":
        # a codec's first frames are better than those that follow
        pictures = through_codec(rng, [*pictures[:2], *pictures])[2:]
    return pictures, median


def registered(rng, skin, axes, pictures: list, median, scale, edge) -> dict:
    """The crops that a slightly wrong localizer cuts out, what a MatchedFilter makes of them, and
    where the knobs are in them.
    """
    template = skin.template
    off = rng.uniform(-0.5, 0.5, 2) / CROP * template.size  # localization error, template px
    stretch = 1 + rng.uniform(-0.004, 0.004, 2)
    affine = np.stack([*np.diag(scale * stretch), edge + scale * off], 1)
    compare = matching.MatchedFilter(template, median, affine, skin.draw, skin.scale)
    maps, marks, _ = zip(*[compare(p, affine) for p in pictures], strict=True)
    cells = np.zeros((len(pictures), 2, 2), np.float32)
    for i, side in enumerate(matching.SIDES):
        if side in render.layout(template)["sticks"]:
            *centre, travel, _, _ = render.layout(template)["sticks"][side]
            seen = (centre + travel * axes[:, 2 * i : 2 * i + 2] - off) / stretch
            cells[:, i] = (seen - centre) / travel * matching.UNIT
    crops = [render.crop(p, affine, template.size, CROP, CROP) for p in (*pictures, median)]
    return {
        "frames": np.stack(crops[:-1]),
        "median": crops[-1],
        "maps": np.stack(maps).astype(np.float16),
        "marks": np.stack(marks),
        "cells": cells,
    }


def inside(picture, w, h) -> tuple:
    """w, h, or less where the picture is smaller."""
    return min(w, picture.shape[1]), min(h, picture.shape[0])


# ---- the data set --------------------------------------------------------------------------------


class Synthetic(torch.utils.data.Dataset):
    """Pairs of consecutive crops with the median that goes with them; item i follows from (seed, i
    // PAIRS) alone.

    A dict: frames uint8 [2, CROP, CROP, 3], median uint8 [CROP, CROP, 3], looks uint8 [2, CROP,
    CROP, 4], boxes, sticks, shown (see geometry), maps float16 and marks float32 of a MatchedFilter
    for both frames, buttons bool [2, 16], cells f32 [2, 2, 2] (frame, stick, axis: where the knob
    is *in this crop*, in cells, so that a crop that is slightly off teaches no wrong place),
    visible bool [2, 18], family int64.
    """

    PAIRS = 4  # of one film, which shows one overlay: what it takes to draw a template is shared
    SCENES = 64  # game pictures in use
    REPAINT = 1024  # films until new ones are painted
    SKINS = 40  # skins of no known hand in use
    TURN = 256  # films until others are drawn
    WIDTH = np.log((130, 560))  # px, of the overlay as displayed
    # scales at which templates are drawn: the least that is not smaller than displayed
    DRAWN = (0.25, 0.375, 0.5, 0.75, 1.0)

    def __init__(
        self,
        seed: int,
        templates: list | None = None,
        own: list = (),
        photos: list = (),
        remade: bool = True,
        wild: float = WILD,
    ):
        """templates: of known hands, by default all that are not held out; own: the user's skins,
        three quarters of the films, drawn as they are; photos: frames of games, RGB, beside the
        painted ones; remade: new looks are made of the other templates; wild: the share of the
        others that no known hand has drawn."""
        if templates is None:
            templates = [t for name, t in library.templates().items() if not pads.held_out(name)]
        self.seed = seed
        self.own = list(own)
        self.templates = list(templates)
        self.photos = photos
        self.remade = remade
        self.wild = wild
        self.families = sorted({t.family for t in (*self.own, *self.templates)} | {"wild"})
        self.era = None  # number of the set of scenes in use
        self.scenes = []
        self.clip = (None, [])  # number of the last film, and its items

    def __getitem__(self, index):
        group = int(index) // self.PAIRS
        if self.clip[0] != group:
            self.clip = group, self.film(np.random.default_rng([self.seed, group]), group)
        return self.clip[1][int(index) % self.PAIRS]

    def film(self, rng, group) -> list:
        """PAIRS items of one overlay over one game; the order of the random draws is fixed."""
        template, remade = self.choose(rng, group)
        size = np.array(template.size)
        layout = render.layout(template)
        boxes, sticks, shown = matching.geometry(layout)
        width = round(float(np.exp(rng.uniform(*self.WIDTH))))
        detail = next(s for s in self.DRAWN if s == 1 or s * size[0] >= width)
        skin = Skin(rng, template, remade, detail)
        damage = rng.choice(["none", "jpeg", "codec"], p=[0.25, 0.3, 0.45])
        states = [random_states(rng, shown) for _ in range(self.PAIRS)]
        buttons, axes = (np.concatenate(v) for v in zip(*states, strict=True))

        displayed = np.array([width, round(width * size[1] / size[0])])  # w, h in frame px
        scale = displayed / size
        edge = rng.integers(4, 17, 2)  # px around it; the codec's blocks lie anywhere
        room = (displayed + edge + 5) // 2 * 2  # an even size for the codec
        behind, median = self.backgrounds(rng, group, *room.tolist(), len(buttons))
        pictures = [picture.copy() for picture in behind]
        lay_over(rng, skin, buttons, axes, [*pictures, median], displayed, edge)
        places = [element_boxes(layout, a, scale, edge) for a in axes]
        visible = self.hide(rng, group, pictures, behind, places)
        pictures, median = streamed(rng, damage, pictures, median)

        film = registered(rng, skin, axes, pictures, median, scale, edge)
        film["looks"] = crop_looks(skin.looks())
        film["boxes"], film["sticks"] = boxes, sticks
        film["shown"] = shown
        film["buttons"] = buttons
        film["visible"] = visible & shown[matching.ELEMENTS]
        items = []
        for first in range(0, len(pictures), 2):
            item = film | {key: film[key][first : first + 2] for key in PER_FRAME}
            if remade:
                item = disguise(rng, item)
            item = {key: np.ascontiguousarray(value) for key, value in item.items()}
            items.append(item | {"family": self.families.index(template.family)})
        return items

    def choose(self, rng, group):
        """(template, is it to be remade): one of the user's own, a drawn one of no known hand, or a
        built-in one.
        """
        if self.own and rng.random() < 0.75:
            return self.own[rng.integers(len(self.own))], False
        if rng.random() < self.wild:
            first = group // self.TURN * self.SKINS % WILD_TRAINED
            if not self.remade:
                first += WILD_TRAINED
            return library.wild(first + int(rng.integers(self.SKINS))), self.remade
        return self.templates[rng.integers(len(self.templates))], self.remade

    def scene(self, rng, group):
        """A random game picture and its 9 x 6 thumbnail; each era of films has its own set."""
        if self.era != group // self.REPAINT:
            cv2.setNumThreads(1)  # one process, one core
            keep_memory()
            self.era = group // self.REPAINT
            paints = np.random.default_rng([self.seed, self.era, 1])
            self.scenes = []
            for _ in range(self.SCENES):
                if len(self.photos) and paints.random() < 0.3:
                    picture = self.photos[paints.integers(len(self.photos))]
                else:
                    picture = scenes.paint(paints)
                thumb = cv2.resize(picture, (9, 6), interpolation=cv2.INTER_AREA)
                self.scenes.append((picture, thumb))
        return self.scenes[rng.integers(self.SCENES)]

    def backgrounds(self, rng, group, w, h, n):
        """The game behind n consecutive frames, and its temporal median: mostly washed out, sharp
        if the game stood still.
        """
        picture, thumb = self.scene(rng, group)
        other, other_thumb = self.scene(rng, group)
        drift = rng.normal(0, rng.choice([0, 3, 12]), 2)  # px per frame
        cut = rng.integers(1, n) if rng.random() < 0.4 else n  # from here on the other picture
        corner = rng.random(2) * (np.array(picture.shape[1::-1]) - inside(picture, w, h))
        behind = []
        for k in range(n):
            source = picture if k < cut else other
            w0, h0 = inside(source, w, h)
            x, y = (corner + k * drift).round().astype(int)
            x, y = np.clip((x, y), 0, np.array(source.shape[1::-1]) - (w0, h0))
            part = source[y : y + h0, x : x + w0]
            behind.append(part.copy() if (w0, h0) == (w, h) else cv2.resize(part, (w, h)))
        if rng.random() < 0.2:
            return behind, behind[-1].copy()
        washed = cv2.addWeighted(thumb, 0.5, other_thumb, 0.5, 0)
        washed = cv2.resize(washed, (36, 24), interpolation=cv2.INTER_CUBIC)
        return behind, cv2.resize(washed, (w, h), interpolation=cv2.INTER_LINEAR)

    def hide(self, rng, group, pictures, bare, boxes):
        """What may lie over the overlay: nothing, mostly; a banner or a window of the game; or the
        overlay itself is switched off. Paints it in place and returns visible bool [n,
        len(boxes[0])]; boxes [n][i] = x, y, w, h in px of the n pictures."""
        n = len(pictures)
        visible = np.ones((n, len(boxes[0])), bool)
        kind = rng.random()
        since = int(rng.integers(n)) if rng.random() < 0.6 else 0
        if kind < 0.05:
            for k in range(since, n):
                pictures[k][:] = bare[k]
            visible[since:] = False
        elif kind < 0.2:
            h, w = pictures[0].shape[:2]
            banner, _ = self.scene(rng, group)
            bw, bh = (rng.uniform(0.12, 0.8, 2) * (w, h)).astype(int)
            x, y = (rng.uniform(-0.3, 1, 2) * (w - bw / 2, h - bh / 2)).astype(int).clip(0)
            part = cv2.resize(banner[:bh, :bw], (bw, bh))
            for k in range(since, n):
                pictures[k][y : y + bh, x : x + bw] = part[: h - y, : w - x]
                visible[k] = [covered(box, (x, y, bw, bh)) < 0.5 for box in boxes[k]]
        return visible


def data_sets(cfg):
    """(pairs to train on, pairs to validate on); these show your own skins, or those held out."""
    photos = scenes.film_frames(cfg.backgrounds) if cfg.backgrounds else []
    own = list(presets.read_skins(cfg.templates).values()) if cfg.templates else []
    every = library.templates()
    held_out = [t for name, t in every.items() if pads.held_out(name)]
    known = list(every.values()) if cfg.everything else None
    data = Synthetic(cfg.seed, known, own, photos)
    wild = 0 if own else WILD
    seed = cfg.seed + 1_000_003
    return data, Synthetic(seed, own or held_out, photos=photos, remade=False, wild=wild)


def drawing_speed(data) -> float:
    """Pairs of frames that one process draws in a second."""
    data[0]  # paints the games
    start = time.perf_counter()
    for i in range(1, 17):
        data[i]
    return 16 / (time.perf_counter() - start)
