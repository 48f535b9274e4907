"""Extraction against truth: python eval.py overlay"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, run_stage, shipped
from common.inputs import expand
from common.workers import for_each

import numpy as np

import filter
from bench.locate import locate, mean
from templates import matching, pads, render
from templates.footage import compared

# the paper's button accuracy and stick R2, on its own recordings of six games
PAPER = {
    "xbox360": (0.98, 0.91),
    "xboxone": (0.98, 0.92),
    "xboxseries": (0.97, 0.79),
    "ps3": (0.97, 0.85),
    "ps4": (0.91, 0.84),
    "ps5": (0.93, 0.77),
}
MEASURES = ("accuracy", "silence", "recall", "f1", "press_f1", "r2")
LEGEND = """\
accuracy: of shown buttons over frames; silence: the same for a parser that sees nothing; \
press_f1: onsets within +-1 frame;
r2: of the stick axes that move.  Means over videos.  The paper's are the same figures on other \
recordings."""
# of fresh recordings: harder overlays than those of the pipe
RECORD = "--player mixed --smallest 0.2 --largest 0.45 --faintest 0.5".split()


@dataclass(frozen=True)
class Config(Many):
    # recordings, folders of them, patterns in quotes, or @list.txt; none: record fresh ones
    videos: tuple[str, ...] = ()
    labels: str = "data/overlay/labels"  # what extract.py and parse.py wrote
    minutes: float = 6.0  # of fresh recordings, for each of the two tables
    out: str = "data/overlay"  # folder of the fresh recordings
    weights: str = "weights/parse.safetensors"  # the parser
    adapt: float = 0.0  # then train it so many minutes on the skins, and measure again
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs
    # all; or locate: only where the overlay is and which, on a fixed grid of videos
    stage: str = "all"
    # folder of skins: the second table; with --stage locate every other video shows one of them
    templates: str = "assets/skins"
    rules: str = "locate,single,plain"  # what looks at the videos
    nothing: int = 200  # clips without an overlay
    share: float = 1.0  # of the grid and of those clips, spread evenly
    repeats: int = 1  # of the grid, with other templates and places
    keep: bool = False  # the videos too


def main(c: Config) -> dict:
    if c.stage not in ("all", "locate"):
        raise SystemExit(f"--stage {c.stage}: there is all and locate")
    c = dataclasses.replace(c, templates=shipped(c.templates))
    if c.stage == "locate":
        return locate(c)
    if c.videos:
        tables = {"given": extraction_table(c.videos, c.labels, c)}
    else:
        tables = fresh_tables(c)
    artefact.write_bytes(f"{c.out}/overlay.json", json.dumps(tables, indent=1).encode())
    return tables


# ---- fresh recordings ----------------------------------------------------------------------------


def fresh_tables(c: Config) -> dict:
    """Record, extract and parse: built-in overlays, then skins; --adapt: the skins once more."""
    rate = ("--rate", "0.08")
    families = record_videos("families", ",".join(PAPER), (), c)
    tables = {"families": fresh_table(families, (), c)}
    skins = record_videos("skins", c.templates, rate, c)
    tables["skins"] = fresh_table(skins, ("--templates", c.templates), c)
    if c.adapt:
        tables["adapted"] = adapted_table(skins, c)
    return tables


def record_videos(name: str, overlays: str, rate, c: Config) -> str:
    """Returns the folder of the videos."""
    videos = f"{c.out}/{name}"
    seed = ("--seed", str(c.seed + 1000))
    minutes = ("--minutes", str(c.minutes))
    where = ("--out", videos, *minutes, "--overlays", overlays)
    run_stage("eval.py", "record", *where, *RECORD, *seed, *rate, *c.flags)
    return videos


def fresh_table(videos: str, templates, c: Config) -> dict:
    labels = f"{videos}-labels"
    run_stage("extract.py", videos, "--out", labels, *templates, *c.flags)
    parse_videos(videos, labels, c.weights, c)
    return extraction_table(expand([videos]), labels, c)


def parse_videos(videos: str, labels: str, weights: str, c: Config) -> None:
    how = ("--weights", weights, "--device", c.device, *("--fresh",) * c.fresh)
    run_stage("parse.py", videos, "--out", labels, *how)


def adapted_table(videos: str, c: Config) -> dict:
    """Train the parser on the skins for --adapt minutes, and measure it on the same videos."""
    weights, labels = f"{c.out}/adapted.safetensors", f"{c.out}/adapted-labels"
    start = ("--templates", c.templates, "--init", c.weights, "--minutes", str(c.adapt))
    seed = ("--seed", str(c.seed))
    run_stage("parse.py", "train", *start, "--out", weights, *seed, *("--fresh",) * c.fresh)
    parsed = shutil.ignore_patterns("*.actions.*", "*.preview.*")
    shutil.copytree(f"{videos}-labels", labels, ignore=parsed, dirs_exist_ok=True)
    parse_videos(videos, labels, weights, c)
    return extraction_table(expand([videos]), labels, c)


# ---- the table -----------------------------------------------------------------------------------


def extraction_table(videos, labels, c: Config) -> dict:
    """Score every recording; print the table by family, and what stands out.  The matched filter
    is the floor.
    """
    found, lost = parsed_videos(videos, labels)
    write = functools.partial(write_matched, labels=labels, c=c)
    for_each(write, found, c.workers, "matched filter", c.ray)
    rows = [score_video(v, labels) for v in found]
    floors = [score_video(v, f"{labels}/matched") for v in found]
    table = {}
    for name, mine in groups_of(rows).items():
        matched = means([floors[i] for i in mine])
        table[name] = {"videos": len(mine), **means([rows[i] for i in mine]), "matched": matched}
    by_radius = nanmean([score_video(v, labels, "radius")["r2"] for v in found])
    recall = {b: nanmean([r["per_button"][b] for r in rows]) for b in artefact.BUTTONS}
    print_extraction(table, by_radius, recall, rows)
    for r in rows:
        r.pop("per_button")
    return {**table, "r2 by radius": by_radius, "recall": recall, "lost": lost, "rows": rows}


def means(rows: list[dict]) -> dict:
    return {k: nanmean([r[k] for r in rows]) for k in MEASURES}


def parsed_videos(videos, labels) -> tuple[list, list]:
    """(videos with actions, videos without); SystemExit if none has."""
    there = {v: (Path(labels) / f"{Path(v).stem}.actions.safetensors").exists() for v in videos}
    found = [v for v in videos if there[v]]
    lost = [v for v in videos if not there[v]]
    if lost:
        print(
            f"no actions for {len(lost)} of {len(videos)} videos (overlay not found, or not parsed "
            f"yet): {', '.join(Path(v).name for v in lost)}"
        )
    if not found:
        raise SystemExit(
            f"{labels}: no actions of these videos there; make them: python extract.py and python "
            f"parse.py with --out {labels}"
        )
    return found, lost


def groups_of(rows: list[dict]) -> dict[str, list[int]]:
    """Families, looks that the parser was not trained on, all -> the numbers of their rows."""
    groups = {family: [] for family in sorted({r["family"] for r in rows})}
    groups |= {"looks held out": [], "all": list(range(len(rows)))}
    for i, r in enumerate(rows):
        groups[r["family"]].append(i)
        if r["template"] in pads.TEMPLATES and pads.held_out(r["template"]):
            groups["looks held out"].append(i)
    return {name: mine for name, mine in groups.items() if mine}


def print_extraction(table: dict, by_radius: float, recall: dict, rows: list[dict]) -> None:
    figures = " {:>9}" * len(MEASURES)
    last = "   paper: accuracy, r2   matched filter: accuracy, press_f1, r2"
    print("\n{:20s} {:>6}".format("family", "videos") + figures.format(*MEASURES) + last)
    for name, row in table.items():
        paper = "%14.2f, %.2f" % PAPER[name] if name in PAPER else ""
        mine = figures.format(*(f"{row[k]:.3f}" for k in MEASURES))
        floor = "{accuracy:18.3f}, {press_f1:.3f}, {r2:.3f}".format(**row["matched"])
        print(f"{name:20s} {row['videos']:6d}{mine}{paper:22s}{floor}")
    print(
        "r2 where the template's own radius counts as full deflection (filter.py --scale radius): "
        f"{by_radius:.3f}"
    )
    print("recall: " + ", ".join(f"{b} {v:.3f}" for b, v in recall.items() if v == v))
    print(LEGEND)
    weakest = [
        f"{r['name']} ({r['template']}, press F1 {r['press_f1']:.2f}, R2 {r['r2']:.2f})"
        for r in sorted(rows, key=quality)[:4]
    ]
    print("weakest: " + ", ".join(weakest), flush=True)


def quality(row: dict) -> float:
    """Press F1 + R2; a video without presses counts as 1."""
    return (1 if np.isnan(row["press_f1"]) else row["press_f1"]) + row["r2"]


def nanmean(values) -> float:
    return mean([v for v in values if v == v])


def write_matched(video: str, labels: str, c: Config) -> None:
    """The matched filter's reading of a video as LABELS/matched/<stem>.actions.safetensors."""
    stem = Path(video).stem
    path = Path(labels) / "matched" / f"{stem}.actions.safetensors"
    source = Path(labels) / f"{stem}.overlay.safetensors"
    recipe = {"source": [artefact.source(video), artefact.source(source)]}
    if artefact.finished(path, "nitrogen.actions/1", recipe, c.fresh):
        return
    overlay, info = artefact.read(source, "nitrogen.overlay/1")
    actions = matched_filter(video, overlay, render.stored(overlay, info))
    about = {k: info[k] for k in ("template", "family")} | {"recipe": recipe}
    about |= {"unit": "grid", "cells_per_radius": matching.UNIT}
    artefact.write(path, actions, "nitrogen.actions/1", **about)


def matched_filter(video: str, overlay: dict, template) -> dict:
    """The tensors of nitrogen.actions/1 without any learning, the floor of every table: what
    parse.py's matched filters say by themselves.
    """

    times, maps, marks = [], [], []
    for seconds, _, _, found, stands, _ in compared(video, overlay, template):
        times.append(seconds)
        maps.append(found)
        marks.append(stands)
    buttons, sticks = matching.read_alone(np.stack(maps), np.stack(marks))
    return {
        "buttons": buttons.astype(np.float16),
        "sticks": sticks,
        "shown": matching.geometry(render.layout(template))[2],
        "confidence": np.ones(len(times), np.float16),
        "time": np.array(times),
    }


# ---- the measures --------------------------------------------------------------------------------


def score_video(video: str, labels: str, scale: str = "percentile") -> dict:
    """Metrics of one recording: final actions (as filter.py --scale makes them) against the
    recorded truth.
    """
    stem = Path(video).stem
    actions = Path(labels) / f"{stem}.actions.safetensors"
    buttons, sticks, tensors, _ = filter.final_actions(actions, scale)
    path = Path(video).with_suffix(".truth.safetensors")
    truth, about = artefact.read(path, "nitrogen.actions/1")
    if len(truth["buttons"]) != len(buttons):
        raise SystemExit(
            f"{video}: {len(buttons)} parsed rows, {len(truth['buttons'])} recorded; parse it "
            "again with --fresh"
        )
    out = metrics(buttons, sticks, truth["buttons"] > 0.5, truth["sticks"], tensors["shown"])
    facts = {k: about[k] for k in ("family", "template", "opacity")}
    return {**out, "name": stem, **facts, "width": about["box"][2]}


def metrics(buttons, sticks, true_buttons, true_sticks, shown) -> dict:
    """All [T, 16] and [T, 4]; only what `shown` [20] allows is scored.  nan: nothing to score (no
    press, no movement).
    """
    shown_buttons = np.flatnonzero(shown[:16])
    p = buttons.astype(bool)[:, shown_buttons]
    t = true_buttons.astype(bool)[:, shown_buttons]
    hit = (p & t).sum(0)
    used = t.sum(0) > 0
    recall = hit / np.maximum(t.sum(0), 1)
    f1 = 2 * hit / np.maximum(p.sum(0) + t.sum(0), 1)
    per_button = dict.fromkeys(artefact.BUTTONS, np.nan)
    for k in np.flatnonzero(used):
        per_button[artefact.BUTTONS[shown_buttons[k]]] = float(recall[k])
    moving = [a for a in range(4) if shown[16 + a] and true_sticks[:, a].std() > 0.02]
    return {
        "accuracy": mean((p == t).ravel()),
        "silence": mean(~t.ravel()),
        "recall": mean(recall[used]),
        "f1": mean(f1[used]),
        "press_f1": press_f1(p, t),
        "r2": mean([r_squared(sticks[:, a], true_sticks[:, a]) for a in moving]),
        "per_button": per_button,
    }


def r_squared(x, true):
    return 1 - ((x - true) ** 2).mean() / true.var()


def press_f1(p, t, slack: int = 1) -> float:
    """F1 of press onsets over all buttons; each true onset is matched by at most one within +-slack
    frames.
    """
    matched = onsets = claims = 0
    for b in range(p.shape[1]):
        mine, true = onsets_of(p[:, b]), onsets_of(t[:, b])
        onsets += len(true)
        claims += len(mine)
        for k in true:
            near = [m for m in mine if abs(m - k) <= slack]
            if near:
                mine.remove(min(near, key=lambda m: abs(m - k)))
                matched += 1
    return 2 * matched / (onsets + claims) if onsets + claims else float("nan")


def onsets_of(held) -> list[int]:
    """Frames in which a button goes down."""
    return list(np.flatnonzero(np.diff(np.r_[False, held].astype(int)) == 1))
