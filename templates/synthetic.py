"""Pairs of overlay crops with their truth, drawn without end (paper 2.1: 8 million)."""

from __future__ import annotations

import tempfile
from fractions import Fraction

from common import artefact
from common.device import keep_memory
from common.pictures import VideoWriter, read_video

import cv2
import numpy as np
import torch

from templates import library, matching, pads, render, scenes

CROP = 128  # px, side of each registered crop; CHOICE: the paper does not give it
WILD = 0.5  # CHOICE: share of the training's films whose skin is of no known hand
WILD_TRAINED = 1_000_000  # their seeds are below; those of validation begin here


# ---- synthetic overlay frames (paper 2.1) --------------------------------------------------------


def random_states(rng, shown, n: int = 2):
    """(buttons bool [n, 16], sticks f32 [n, 4]): consecutive states of a pad, from resting to
    everything at once.
    """
    buttons = [rng.random(16) < rng.choice([0.0, 0.08, 0.2, 0.45], p=[0.15, 0.35, 0.35, 0.15])]
    sticks, flips = [random_sticks(rng)], rng.choice([0.0, 0.05, 0.3])
    for _ in range(n - 1):
        buttons.append(buttons[-1] ^ (rng.random(16) < flips))
        # each stick holds still, moves on, or jumps
        step = np.repeat(rng.choice(3, size=2, p=[0.35, 0.4, 0.25]), 2)
        sticks.append(
            np.choose(step, (sticks[-1], sticks[-1] + rng.normal(0, 0.2, 4), random_sticks(rng)))
        )
    return np.stack([without_opposites(rng, b) for b in buttons]) & shown[:16], np.stack(
        sticks
    ).clip(-1, 1).astype(np.float32)


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
    out = np.zeros((2, 2))
    for stick, kind in enumerate(rng.choice(6, size=2, p=[0.25, 0.1, 0.25, 0.15, 0.2, 0.05])):
        angle = (
            rng.integers(8) * np.pi / 4 + rng.normal(0, 0.04)
            if kind == 2
            else rng.uniform(0, 2 * np.pi)
        )
        rim = np.array([np.cos(angle), np.sin(angle)])
        out[stick] = (
            0,
            rng.normal(0, 0.06, 2),
            rim,
            rim,
            rim * rng.random() ** 0.5,
            rng.uniform(-1, 1, 2),
        )[kind]
    return out.ravel().clip(-1, 1)


def through_codec(rng, frames: list) -> list:
    """RGB frames of an even size as a video shows them: through a real encoder and back, at a
    random rate.

    With `av`: x264, MPEG-4, VP8, VP9; without it, what OpenCV can write: MPEG-4."""
    try:
        import av
    except ImportError:
        with tempfile.TemporaryDirectory() as folder:
            path, (h, w) = f"{folder}/clip.mp4", frames[0].shape[:2]
            with VideoWriter(path, 30, w, h) as out:
                for f in frames:
                    out.write(f)
            return [f for _, _, f in read_video(path)]
    av.logging.set_level(av.logging.PANIC)  # encoders chat
    name = rng.choice(["libx264", "mpeg4", "libvpx", "libvpx-vp9"], p=[0.5, 0.3, 0.1, 0.1])
    coder, reader = (
        av.CodecContext.create(name, "w"),
        {"libx264": "h264", "libvpx": "vp8", "libvpx-vp9": "vp9"}.get(name, name),
    )
    coder.height, coder.width = frames[0].shape[:2]
    coder.pix_fmt, coder.time_base, coder.framerate, coder.thread_count = (
        "yuv420p",
        Fraction(1, 30),
        30,
        1,
    )
    if name == "libx264":
        coder.options = {
            "crf": str(rng.integers(18, 42)),
            "preset": str(rng.choice(["superfast", "veryfast", "medium"])),
            "tune": "zerolatency",
        }
    else:
        # bits per pixel
        coder.bit_rate = int(
            np.exp(rng.uniform(*np.log((0.04, 0.5)))) * 30 * coder.width * coder.height
        )
        # VP8 takes a positive one as leave to follow the clock
        speed = "-8" if name == "libvpx" else "8"
        coder.options = (
            {"deadline": "realtime", "cpu-used": speed, "lag-in-frames": "0"}
            if "vpx" in name
            else {}
        )
    packets = []
    for i, f in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(f, "rgb24")
        picture.pts = i
        packets += coder.encode(picture)
    packets += coder.encode(None)
    decoder = av.CodecContext.create(reader, "r")
    decoder.extradata, decoder.thread_count = coder.extradata, 1
    return [f.to_ndarray(format="rgb24") for p in (*packets, None) for f in decoder.decode(p)]


def covered(box, by) -> float:
    """Share of box x, y, w, h that lies under another."""
    w, h = (
        max(0.0, min(box[i] + box[i + 2], by[i] + by[i + 2]) - max(box[i], by[i])) for i in (0, 1)
    )
    return w * h / (box[2] * box[3])


class Skin:
    """A template as it is; or, if `remade`, often a new look made of it: other colours, fainter
    presses, presses that darken or lighten, buttons whose two looks have changed places.  What is
    read then has to come from its looks, not from memory."""

    def __init__(self, rng, template, remade: bool = True, scale: float = 1.0):
        self.template, self.scale = template, scale
        self.boxes = {
            name: [v * scale for v in box]
            for name, box in render.layout(template)["buttons"].items()
        }
        self.swap, self.invert = (
            (rng.permutation(3), rng.random() < 0.5)
            if remade and rng.random() < 0.25
            else (None, False)
        )
        self.strength = rng.uniform(0.12, 1) if remade and rng.random() < 0.45 else 1.0
        self.tone = rng.uniform(0.2, 0.6) if remade and rng.random() < 0.2 and self.solid() else 0.0
        self.clicks = np.array([b.endswith("THUMB") for b in artefact.BUTTONS])
        dpad = (
            [b.startswith("DPAD") and not self.tone for b in artefact.BUTTONS]
            if any(e.kind == "dpad" for e in template.elements)
            else [False] * 16
        )
        self.flip = (
            rng.random(16) < rng.choice([0, 0.5, 1], p=[0.7, 0.2, 0.1] if remade else [1, 0, 0])
        ) & ~np.array(dpad)

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
        out = render.draw(template, buttons & self.clicks, sticks, self.scale)
        for name, on in zip(artefact.BUTTONS, buttons & ~self.clicks):
            if on and name in self.boxes:
                part = out[render.region(self.boxes[name])]
                color, alpha = part[..., :3].astype(np.float32), part[..., 3:]
                part[..., :3] = color + self.tone * (
                    np.where(2 * color.mean(-1, keepdims=True) > alpha, 0, alpha) - color
                )
        return out

    def draw(self, template, buttons, sticks):
        """As render.draw; template: the skin's, or some of its elements."""
        out = self.pressed(template, buttons ^ self.flip, sticks)
        if self.strength < 1:
            out = cv2.addWeighted(
                out, self.strength, self.pressed(template, self.flip, sticks), 1 - self.strength, 0
            )
        if self.swap is not None:
            color, alpha = out[..., self.swap], out[..., 3:]
            out = np.dstack([alpha - color if self.invert else color, alpha])
        return out

    def looks(self):
        """As render.looks."""
        return render.looks(self.boxes, lambda on: self.draw(self.template, on, np.zeros(4)))


def crop_looks(looks):
    """The looks of a template as the network sees them: uint8 [2, CROP, CROP, 4]."""
    return np.stack(
        [cv2.resize(look, (CROP, CROP), interpolation=cv2.INTER_AREA) for look in looks]
    )


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
        item["cells"], item["maps"] = item["cells"] * np.float32([-1, 1]), item["maps"][..., ::-1]
    if rng.random() < 0.15:
        names = np.arange(18)
        free = [i for i, b in enumerate(artefact.BUTTONS) if not b.endswith("THUMB")]
        names[free] = rng.permutation(free)
        item |= {
            "boxes": item["boxes"][names[:16]],
            "buttons": item["buttons"][:, names[:16]],
            "marks": item["marks"][:, names[:16]],
            "visible": item["visible"][:, names],
            "shown": np.append(item["shown"][names[:16]], item["shown"][16:]),
        }
    return item


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
    SCENES, REPAINT = 64, 1024  # game pictures in use; films until new ones are painted
    # films until other skins of no known hand are drawn; how many of them at a time
    TURN, SKINS = 256, 40
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
        """own: the user's skins, three quarters of the films, drawn as they are; photos: frames of
        games, RGB, beside the painted ones; remade: new looks are made of the other templates;
        wild: the share of the others that no known hand has drawn."""
        known = (
            [t for name, t in library.templates().items() if not pads.held_out(name)]
            if templates is None
            else templates
        )
        self.seed, self.own, self.templates, self.photos, self.remade, self.wild = (
            seed,
            list(own),
            list(known),
            photos,
            remade,
            wild,
        )
        self.families = sorted({t.family for t in (*self.own, *self.templates)} | {"wild"})
        self.era, self.scenes, self.clip = None, [], (None, [])

    def scene(self, rng, group):
        """A random game picture and its 9 x 6 thumbnail; each era of films has its own set."""
        if self.era != group // self.REPAINT:
            cv2.setNumThreads(1)  # one process, one core
            keep_memory()
            self.era = group // self.REPAINT
            paints = np.random.default_rng([self.seed, self.era, 1])
            pictures = [
                self.photos[paints.integers(len(self.photos))]
                if len(self.photos) and paints.random() < 0.3
                else scenes.paint(paints)
                for _ in range(self.SCENES)
            ]
            self.scenes = [
                (p, cv2.resize(p, (9, 6), interpolation=cv2.INTER_AREA)) for p in pictures
            ]
        return self.scenes[rng.integers(self.SCENES)]

    def backgrounds(self, rng, group, w, h, n):
        """The game behind n consecutive frames, and its temporal median: mostly washed out, sharp
        if the game stood still.
        """
        (picture, thumb), (other, blur) = self.scene(rng, group), self.scene(rng, group)
        w0, h0 = min(w, picture.shape[1]), min(h, picture.shape[0])
        drift, cut, behind = (
            rng.normal(0, rng.choice([0, 3, 12]), 2),
            rng.integers(1, n) if rng.random() < 0.4 else n,
            [],
        )
        at = rng.random(2) * (np.array(picture.shape[1::-1]) - (w0, h0))
        for k in range(n):
            source = other if k >= cut else picture  # a cut, between the two
            w0, h0 = min(w, source.shape[1]), min(h, source.shape[0])
            x, y = (
                (at + k * drift)
                .round()
                .astype(int)
                .clip(0, np.array(source.shape[1::-1]) - (w0, h0))
            )
            part = source[y : y + h0, x : x + w0]
            behind.append(part.copy() if (w0, h0) == (w, h) else cv2.resize(part, (w, h)))
        if rng.random() < 0.2:
            return behind, behind[-1].copy()
        washed = cv2.resize(
            cv2.addWeighted(thumb, 0.5, blur, 0.5, 0), (36, 24), interpolation=cv2.INTER_CUBIC
        )
        return behind, cv2.resize(washed, (w, h), interpolation=cv2.INTER_LINEAR)

    @staticmethod
    def usual(rng, skin):
        """The overlay as a temporal median shows it: at rest, or the median of three states of a
        player who holds some buttons most of the time: "unlike the median" must not come to mean
        "pressed"."""
        if rng.random() < 0.35:
            return skin.draw(skin.template, np.zeros(16, bool), np.zeros(4))
        held, favourite = np.where(rng.random(16) < 0.2, 0.8, 0.1), random_sticks(rng)
        a, b, c = (
            skin.draw(
                skin.template,
                without_opposites(rng, rng.random(16) < held),
                (favourite, random_sticks(rng), np.zeros(4))[rng.integers(3)],
            )
            for _ in range(3)
        )
        return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))

    def hide(self, rng, group, pictures, bare, boxes):
        """What may lie over the overlay: nothing, mostly; a banner or a window of the game; or the
        overlay itself is switched off. Paints it in place and returns visible bool [n,
        len(boxes[0])]; boxes [n][i] = x, y, w, h in px of the n pictures."""
        visible, kind = np.ones((len(pictures), len(boxes[0])), bool), rng.random()
        since = int(rng.integers(len(pictures))) if rng.random() < 0.6 else 0
        if kind < 0.05:
            for k in range(since, len(pictures)):
                pictures[k][:] = bare[k]
            visible[since:] = False
        elif kind < 0.2:
            (h, w), (banner, _) = pictures[0].shape[:2], self.scene(rng, group)
            bw, bh = (rng.uniform(0.12, 0.8, 2) * (w, h)).astype(int)
            x, y = (rng.uniform(-0.3, 1, 2) * (w - bw / 2, h - bh / 2)).astype(int).clip(0)
            part = cv2.resize(banner[:bh, :bw], (bw, bh))
            for p in pictures[since:]:
                p[y : y + bh, x : x + bw] = part[: h - y, : w - x]
            for k in range(since, len(pictures)):
                visible[k] = [covered(b, (x, y, bw, bh)) < 0.5 for b in boxes[k]]
        return visible

    def __getitem__(self, index):
        group = int(index) // self.PAIRS
        if self.clip[0] != group:
            self.clip = group, self.film(np.random.default_rng([self.seed, group]), group)
        return self.clip[1][int(index) % self.PAIRS]

    def choose(self, rng, group):
        """(template, is it to be remade): one of the user's own, a drawn one of no known hand, or a
        built-in one.
        """
        if self.own and rng.random() < 0.75:
            return self.own[rng.integers(len(self.own))], False
        if rng.random() < self.wild:
            first = group // self.TURN * self.SKINS % WILD_TRAINED + (
                0 if self.remade else WILD_TRAINED
            )
            return library.wild(first + int(rng.integers(self.SKINS))), self.remade
        return self.templates[rng.integers(len(self.templates))], self.remade

    def film(self, rng, group) -> list:
        """PAIRS items of one overlay over one game."""
        template, remade = self.choose(rng, group)
        w = round(float(np.exp(rng.uniform(*self.WIDTH))))  # displayed size, frame px
        fine = next(s for s in self.DRAWN if s == 1 or s * template.size[0] >= w)
        layout, skin = render.layout(template), Skin(rng, template, remade, fine)
        boxes, sticks, shown = matching.geometry(layout)
        damage = rng.choice(["none", "jpeg", "codec"], p=[0.25, 0.3, 0.45])
        states = [random_states(rng, shown) for _ in range(self.PAIRS)]
        buttons, positions = (np.concatenate(v) for v in zip(*states))
        # px around it; the codec's blocks lie anywhere
        size, edge = np.array(template.size), rng.integers(4, 17, 2)
        h = round(w * size[1] / size[0])
        room = (np.array([w, h]) + edge + 5) // 2 * 2
        behind, median = self.backgrounds(rng, group, *room.tolist(), len(buttons))
        opacity, pictures, scale = (
            rng.uniform(0.45, 1),
            [b.copy() for b in behind],
            np.array([w, h]) / size,
        )
        drawn = [skin.draw(template, *state) for state in zip(buttons, positions)]
        for picture, overlay in zip([*pictures, median], [*drawn, self.usual(rng, skin)]):
            render.composite(
                picture,
                cv2.resize(overlay, (w, h), interpolation=cv2.INTER_AREA),
                *edge.tolist(),
                opacity,
            )
        visible = self.hide(
            rng, group, pictures, behind, [self.places(layout, p, scale, edge) for p in positions]
        )
        for k in range(1, len(pictures), 2):
            if rng.random() < 0.08:  # another frame rate, by blending
                pictures[k] = cv2.addWeighted(
                    pictures[k], a := rng.uniform(0.6, 1), pictures[k - 1], 1 - a, 0
                )
        pictures, median = self.as_shown(rng, pictures, median)
        if damage == "jpeg":
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
            pictures = [
                cv2.imdecode(cv2.imencode(".jpg", p, quality)[1], cv2.IMREAD_COLOR)
                for p in pictures
            ]
        elif damage == "codec":
            # its first frames are better than those that follow
            pictures = through_codec(rng, [*pictures[:2], *pictures])[2:]
        off = rng.uniform(-0.5, 0.5, 2) / CROP * size  # localization error, template px
        stretch = 1 + rng.uniform(-0.004, 0.004, 2)
        # what the localizer says
        believed = np.stack([*np.diag(scale * stretch), edge + scale * off], 1)
        crops = np.stack(
            [render.crop(p, believed, template.size, CROP, CROP) for p in (*pictures, median)]
        )
        compare = matching.MatchedFilter(template, median, believed, skin.draw, fine)
        maps, marks, _ = map(np.stack, zip(*[compare(p, believed) for p in pictures]))
        cells = np.zeros((len(pictures), 2, 2), np.float32)
        for s, side in enumerate(("LEFT", "RIGHT")):
            if side in layout["sticks"]:
                centre, radius = np.array(layout["sticks"][side][:2]), layout["sticks"][side][2]
                seen = (centre + radius * positions[:, 2 * s : 2 * s + 2] - off) / stretch
                cells[:, s] = (seen - centre) / radius * matching.UNIT
        fixed = {
            "median": crops[-1],
            "looks": crop_looks(skin.looks()),
            "boxes": boxes,
            "sticks": sticks,
            "shown": shown,
            "family": self.families.index(template.family),
        }
        frames = {
            "frames": crops[:-1],
            "maps": maps.astype(np.float16),
            "marks": marks,
            "buttons": buttons,
            "cells": cells,
            "visible": visible & np.append(shown[:16], shown[16::2]),
        }
        items = [
            fixed | {k: v[i : i + 2] for k, v in frames.items()} for i in range(0, len(pictures), 2)
        ]
        return [
            {
                k: np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v
                for k, v in (disguise(rng, item) if remade else item).items()
            }
            for item in items
        ]

    @staticmethod
    def places(layout, positions, scale, edge):
        """Where the 16 buttons and the two knobs are in a picture, x, y, w, h px; far outside what
        the template does not show.
        """
        out = [[-99.0, -99.0, 1.0, 1.0]] * 18
        for name, box in layout["buttons"].items():
            out[artefact.BUTTONS.index(name)] = [*(box[:2] * scale + edge), *(box[2:] * scale)]
        for i, side in enumerate(("LEFT", "RIGHT")):
            if side in layout["sticks"]:
                x, y, radius, kw, kh = layout["sticks"][side]
                knob = np.array([x, y]) + radius * positions[2 * i : 2 * i + 2] - (kw / 2, kh / 2)
                out[16 + i] = [*(knob * scale + edge), *((kw, kh) * scale)]
        return out

    @staticmethod
    def as_shown(rng, pictures, median):
        """Recoloured, tinted and softened as streams do, all of them alike."""
        every = [*pictures, median]
        if rng.random() < 0.1:
            swap = rng.permutation(3)
            every = [np.ascontiguousarray(p[..., swap]) for p in every]
        if rng.random() < 0.3:
            tint = np.hstack([np.diag(rng.uniform(0.75, 1.2, 3)), rng.normal(0, 12, (3, 1))])
            every = [cv2.transform(p, tint) for p in every]
        if rng.random() < 0.25:  # scaled down by the streamer, and up again
            (h, w), f = median.shape[:2], rng.uniform(0.55, 0.95)
            every = [
                cv2.resize(
                    cv2.resize(p, (round(w * f), round(h * f)), interpolation=cv2.INTER_AREA),
                    (w, h),
                )
                for p in every
            ]
        return every[:-1], every[-1]
