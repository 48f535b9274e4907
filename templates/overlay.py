"""An overlay: a template, chosen and laid on the frames of a video."""

from __future__ import annotations

import typing
from pathlib import Path

import cv2
import numpy as np

from templates import library, pads, presets, render


def choice_of(overlays: str):
    """What --overlays names: (templates by name, groups of names).

    A template is drawn when it is asked for.  Videos take the groups in turn, and any template of
    their group.
    """
    if overlays and Path(overlays).is_dir():
        skins = presets.read_skins(overlays)
        return skins, [[name] for name in sorted(skins)]
    pool = library.templates()
    names = sorted(pool)
    if not overlays:
        # the parser is trained on these, and the built-in games need sticks
        return pool, [[n for n in names if not pads.held_out(n) and pads.two_sticks(n)]]
    families = overlays.split(",")
    if unknown := set(families) - set(pads.FAMILIES):
        raise SystemExit(
            f"--overlays {overlays}: no folder, and no family such as "
            f"{', '.join(sorted(unknown))}; there are {', '.join(pads.FAMILIES)}"
        )
    return pool, [[n for n in names if n.partition("-")[0] == family] for family in families]


class Overlay(typing.NamedTuple):
    """An overlay at its place in a video."""

    template: render.Template
    scale: float  # px of the frame per px of the template
    opacity: float
    box: list[int]  # x, y, w, h in px
    size: tuple[int, int]  # w, h of the frame, px

    @classmethod
    def draw(cls, rng, template, widths: tuple, faintest: float, size: tuple) -> Overlay:
        """At random: its width (from, to, of the frame's), its opacity (up to 1), and in which of
        the four corners of a frame of `size`, w, h in px, it lies.
        """
        width = rng.uniform(*widths) * size[0]
        opacity = rng.uniform(faintest, 1.0)
        scale = width / template.size[0]
        w, h = round(width), round(scale * template.size[1])
        x = near_an_edge(rng, size[0], w)
        y = near_an_edge(rng, size[1], h)
        return cls(template, scale, float(opacity), [x, y, w, h], size)

    def over(self, picture, pad) -> np.ndarray:
        """The picture, uint8 RGB of any size, as a frame of the video with this pad drawn on it."""
        frame = cv2.resize(picture, self.size, interpolation=cv2.INTER_LINEAR)
        drawn = render.draw(self.template, *pad, scale=self.scale)
        render.composite(frame, drawn, *self.box[:2], self.opacity)
        return frame


def near_an_edge(rng, limit: int, size: int) -> int:
    """Offset of an overlay 8 to 24 px from the one edge or the other."""
    at_start = rng.random() < 0.5
    margin = int(rng.integers(8, 25))
    return margin if at_start else limit - margin - size
