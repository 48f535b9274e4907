"""What was read off pairs of crops, against their truth."""

from __future__ import annotations

import math

import numpy as np

from templates import matching


def table(parts: list, families: list) -> dict:
    """figures() per family, and of all; parts: dicts of arrays, a batch each."""
    every = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    rows = {}
    for name in [*families, "all"]:
        mine = every["family"] == families.index(name) if name != "all" else every["family"] >= 0
        if mine.any():
            rows[name] = figures({key: value[mine] for key, value in every.items()})
    return rows


def figures(read: dict) -> dict:
    """What was read against the truth, of what is visible: button accuracy, accuracy of silence,
    recall, F1, stick R2 per axis averaged, mean error in stick radii; accuracy of visibility."""
    visible = read["visible"]
    said, true = (read[key][visible[..., :16]] for key in ("said", "buttons"))
    found, where = (read[key][visible[..., 16:]] / matching.UNIT for key in ("where", "cells"))
    hits = (said & true).sum()
    row = {
        "frames": 2 * len(visible),
        "accuracy": (said == true).mean(),
        "silence": (~true).mean(),
        "recall": hits / max(true.sum(), 1),
        "f1": 2 * hits / max(said.sum() + true.sum(), 1),
        "visible": (read["seen"] == visible)[read["shown"]].mean(),
    }
    if len(where) > 20:
        row["r2"] = (1 - ((found - where) ** 2).mean(0) / where.var(0)).mean()
        row["error"] = np.abs(found - where).mean()
    return {key: round(float(value), 5) for key, value in row.items()}


def print_table(table: dict) -> None:
    columns = ("accuracy", "silence", "recall", "f1", "r2", "error", "visible")
    print("family    " + "".join(f"{c:>10s}" for c in ("frames", *columns)))
    for name, row in table.items():
        cells = "".join(f"{row.get(c, math.nan):10.4f}" for c in columns)
        print(f"{name:10s}{row['frames']:10.0f}{cells}")
