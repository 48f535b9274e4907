"""Templates by name: the built-in ones, invented ones, and yours."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from templates import pads, presets, render, wild as unknown
from templates.pads import TEMPLATES


@functools.cache
def builtin(name: str) -> render.Template:
    """Drawn, not stored: the same on every machine."""
    size, pieces = pads.pieces(name)
    return render.Template(
        name,
        name.split("-")[0],
        size,
        *render.pack([(render.Element(**e), rows) for e, rows in pieces]),
    )


@functools.lru_cache(64)
def wild(seed: int) -> render.Template:
    """A skin of no known hand: every seed gives another."""
    size, pieces = unknown.pieces(seed)
    return render.Template(
        f"wild-{seed:04d}",
        "wild",
        size,
        *render.pack([(render.Element(**e), rows) for e, rows in pieces]),
    )


class Pool(Mapping):
    """Templates by name: `own` ones, then built-in ones, each of which is drawn when it is first
    asked for.
    """

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
    return Pool(TEMPLATES, presets.read_skins(folder) if folder else {})
