"""Templates by name: the built-in ones, invented ones, and yours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from common.command_line import Common
from common.pictures import caption, tile, write_png

import numpy as np

from templates import pads, presets, render, wild as unknown
from templates.pads import FAMILIES, TEMPLATES


def assembled(name: str, family: str, size, pieces) -> render.Template:
    """A template of these pieces: (fields of an Element, rows of pictures of its states)."""
    atlas, elements = render.pack([(render.Element(**e), rows) for e, rows in pieces])
    return render.Template(name, family, size, atlas, elements)


@functools.cache
def builtin(name: str) -> render.Template:
    """Drawn, not stored: the same on every machine."""
    return assembled(name, name.split("-")[0], *pads.pieces(name))


@functools.lru_cache(64)
def wild(seed: int) -> render.Template:
    """An invented skin: every seed gives another."""
    return assembled(f"wild-{seed:04d}", "wild", *unknown.pieces(seed))


class Pool(Mapping):
    """Templates by name: `own` ones, then built-in ones, each of which is drawn when it is first
    asked for.
    """

    def __init__(self, names, own=()):
        self.own = dict(own)
        self.indices = {}  # of features.bank_of
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
    return Pool(TEMPLATES, presets.read_skins(folder) if folder else {})


# ---- the contact sheet: python extract.py templates ----------------------------------------------


@dataclass(frozen=True)
class Sheet(Common):
    out: str = "data/templates.png"  # picture to write
    templates: str = ""  # folder of your own skins: they come first
    family: str = ""  # only this family, larger


def sheet(cfg: Sheet):
    """All templates, untouched and in a random state, over two backgrounds."""
    rng = np.random.default_rng(cfg.seed)
    width, columns = (320, 6) if cfg.family else (184, 14)
    every = pool(cfg.templates)
    shown = [every[name] for name in every if cfg.family in ("", every.family(name))]
    if not shown:
        raise SystemExit(f"--family {cfg.family}: none of that; there are {', '.join(FAMILIES)}")
    pictures = []
    for t in shown:
        scale = min(width / t.size[0], 0.75 * width / t.size[1])
        used = render.draw(t, rng.random(16) < 0.4, rng.uniform(-1, 1, 4), scale)
        for picture in (render.at_rest(t, scale), used):
            ground = np.full((picture.shape[0] + 8, width + 10, 3), (66, 104, 78), np.uint8)
            ground[:, ground.shape[1] // 2 :] = (200, 190, 170)
            render.composite(ground, picture, (ground.shape[1] - picture.shape[1]) // 2, 4)
            pictures.append(caption(ground, t.name))
    write_png(cfg.out, tile(pictures, columns))
    print(f"{len(shown)} templates -> {cfg.out}")
