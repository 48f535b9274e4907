"""What the values of an action vector are: raw actions of a policy -> the pad, by name."""

from __future__ import annotations

from common.artefact import BUTTONS, STICKS

import numpy as np


def rows(raw, names) -> np.ndarray:
    """Raw actions [..., A], whose values have these names -> [..., 20]: probabilities of BUTTONS,
    then STICKS in about [-1, 1], y down.

    What the pad lacks (GUIDE, virtual directions) is dropped; what the layout lacks is at rest.
    """
    values = {name: raw[..., i] for i, name in enumerate(names)}
    rest = np.zeros(raw.shape[:-1], np.float32)
    buttons = [values.get(name, rest) for name in BUTTONS]
    sticks = [2 * values.get(name, rest + 0.5) - 1 for name in STICKS]
    return np.stack(buttons + sticks, -1)


def decode(raw, names) -> dict:
    """The same as the pad's 16 buttons (> 0.5) and 4 axes in [-1, 1]."""
    return pad_of(rows(raw, names))


def pad_of(rows) -> dict:
    """Rows [..., 20] -> buttons bool [..., 16], sticks [..., 4] in [-1, 1]."""
    return {"buttons": rows[..., :16] > 0.5, "sticks": rows[..., 16:].clip(-1, 1)}


def values(rows, names) -> np.ndarray:
    """Rows [..., 20] -> float32 [..., A] as in training data: buttons 0 or 1, axes in [0, 1];
    a name that the pad lacks is 0.
    """
    pad = pad_of(np.asarray(rows))
    ours = np.concatenate([pad["buttons"], (pad["sticks"] + 1) / 2], -1).astype(np.float32)
    column = {name: ours[..., i] for i, name in enumerate(BUTTONS + STICKS)}
    return np.stack([column.get(name, np.zeros(ours.shape[:-1], np.float32)) for name in names], -1)
