"""Extraction against truth: python eval.py overlay"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, run_stage, shipped
from common.pictures import expand
from common.workers import for_each

import numpy as np

from bench.locate import locate
from templates import matching, pads, render

# ---- overlay: extraction against truth -----------------------------------------------------------


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
    tables, fresh = {}, ("--fresh",) * c.fresh
    if c.videos:
        tables["given"] = extraction_table(c.videos, c.labels, c)
    else:
        # H.264 where it can be written
        another = ("--rate", "0.08") if importlib.util.find_spec("av") else ()
        for name, overlays, how in (
            ("families", ",".join(PAPER), ()),
            ("skins", c.templates, another),
        ):
            videos, labels, own = (
                f"{c.out}/{name}",
                f"{c.out}/{name}-labels",
                ("--templates", c.templates) if name == "skins" else (),
            )
            run_stage(
                "eval.py",
                "record",
                "--out",
                videos,
                "--minutes",
                str(c.minutes),
                "--overlays",
                overlays,
                "--player",
                "mixed",
                "--smallest",
                "0.2",
                "--largest",
                "0.45",
                "--faintest",
                "0.5",
                "--seed",
                str(c.seed + 1000),
                *how,
                *c.flags,
            )
            run_stage("extract.py", videos, "--out", labels, *own, *c.flags)
            run_stage(
                "parse.py",
                videos,
                "--out",
                labels,
                "--weights",
                c.weights,
                "--device",
                c.device,
                *fresh,
            )
            tables[name] = extraction_table(expand([videos]), labels, c)
        if c.adapt:
            adapted, theirs = f"{c.out}/adapted.safetensors", f"{c.out}/adapted-labels"
            run_stage(
                "parse.py",
                "train",
                "--templates",
                c.templates,
                "--init",
                c.weights,
                "--minutes",
                str(c.adapt),
                "--out",
                adapted,
                "--seed",
                str(c.seed),
                *fresh,
            )
            shutil.copytree(
                labels,
                theirs,
                ignore=shutil.ignore_patterns("*.actions.*", "*.preview.*"),
                dirs_exist_ok=True,
            )
            run_stage(
                "parse.py",
                videos,
                "--out",
                theirs,
                "--weights",
                adapted,
                "--device",
                c.device,
                *fresh,
            )
            tables["adapted"] = extraction_table(expand([videos]), theirs, c)
    artefact.write_bytes(f"{c.out}/overlay.json", json.dumps(tables, indent=1).encode())
    return tables


PAPER = {
    "xbox360": (0.98, 0.91),
    "xboxone": (0.98, 0.92),
    "xboxseries": (0.97, 0.79),
    "ps3": (0.97, 0.85),
    "ps4": (0.91, 0.84),
    "ps5": (0.93, 0.77),
}
# the paper's button accuracy and stick R2, on its own recordings of six games
COLUMNS = ("accuracy", "silence", "recall", "f1", "press_f1", "r2")


def extraction_table(videos, labels, c: Config) -> dict:
    """Score every recording, print the table by family, and what stands out; the matched filter is
    the floor.
    """
    lost = [
        v for v in videos if not (Path(labels) / f"{Path(v).stem}.actions.safetensors").exists()
    ]
    if lost:
        print(
            f"no actions for {len(lost)} of {len(videos)} videos (overlay not found, or not parsed yet): {', '.join(Path(v).name for v in lost)}"
        )
    found = [v for v in videos if v not in lost]
    if not found:
        raise SystemExit(
            f"{labels}: no actions of these videos there; make them: python extract.py and python parse.py with --out {labels}"
        )
    for_each(
        functools.partial(write_matched, labels=labels, c=c),
        found,
        c.workers,
        "matched filter",
        c.ray,
    )
    rows = [(score_video(v, labels), score_video(v, f"{labels}/matched")) for v in found]
    print(
        f"\n{'family':20s} {'videos':>6s} "
        + " ".join(f"{k:>9s}" for k in COLUMNS)
        + "   paper: accuracy, r2   matched filter: accuracy, press_f1, r2"
    )
    groups = {
        f: [r for r in rows if r[0]["family"] == f] for f in sorted({r["family"] for r, _ in rows})
    }
    groups |= {
        "looks held out": [
            r
            for r in rows
            if r[0]["template"] in pads.TEMPLATES and pads.held_out(r[0]["template"])
        ],
        "all": rows,
    }
    table = {}
    for name, mine in groups.items():
        if mine:
            table[name] = {
                "videos": len(mine),
                **{k: nanmean([r[k] for r, _ in mine]) for k in COLUMNS},
                "matched": {k: nanmean([m[k] for _, m in mine]) for k in COLUMNS},
            }
            theirs, floor = PAPER.get(name), table[name]["matched"]
            print(
                f"{name:20s} {len(mine):6d} "
                + " ".join(f"{table[name][k]:9.3f}" for k in COLUMNS)
                + f"{'%14.2f, %.2f' % theirs if theirs else '':22s}"
                + f"{floor['accuracy']:18.3f}, {floor['press_f1']:.3f}, {floor['r2']:.3f}"
            )
    drawn = nanmean([score_video(v, labels, "radius")["r2"] for v in found])
    per = {b: nanmean([r["per_button"][b] for r, _ in rows]) for b in artefact.BUTTONS}
    print(
        f"r2 where the template's own radius counts as full deflection (filter.py --scale radius): {drawn:.3f}"
    )
    print("recall: " + ", ".join(f"{b} {v:.3f}" for b, v in per.items() if v == v))
    print(
        "accuracy: of shown buttons over frames; silence: the same for a parser that sees nothing; press_f1: onsets within +-1 frame;\n"
        "r2: of the stick axes that move.  Means over videos.  The paper's are the same figures on other recordings."
    )
    worst = sorted(
        rows,
        key=lambda r: (
            (r[0]["press_f1"] if r[0]["press_f1"] == r[0]["press_f1"] else 1) + r[0]["r2"]
        ),
    )[:4]
    print(
        "weakest: "
        + ", ".join(
            f"{r['name']} ({r['template']}, press F1 {r['press_f1']:.2f}, R2 {r['r2']:.2f})"
            for r, _ in worst
        ),
        flush=True,
    )
    return {
        **table,
        "r2 by radius": drawn,
        "recall": per,
        "lost": lost,
        "rows": [{k: v for k, v in r.items() if k != "per_button"} for r, _ in rows],
    }


def nanmean(values) -> float:
    values = [v for v in values if v == v]
    return float(np.mean(values)) if values else float("nan")


def write_matched(video: str, labels: str, c: Config) -> None:
    """The matched filter's reading of a video as LABELS/matched/<stem>.actions.safetensors."""
    path, source = (
        Path(labels) / "matched" / f"{Path(video).stem}.actions.safetensors",
        Path(labels) / f"{Path(video).stem}.overlay.safetensors",
    )
    recipe = {"source": [artefact.source(video), artefact.source(source)]}
    if not artefact.finished(path, "nitrogen.actions/1", recipe, c.fresh):
        overlay, info = artefact.read(source, "nitrogen.overlay/1")
        actions = matched_filter(video, overlay, render.stored(overlay, info))
        artefact.write(
            path,
            actions,
            "nitrogen.actions/1",
            unit="grid",
            cells_per_radius=matching.UNIT,
            **{k: info[k] for k in ("template", "family")},
            recipe=recipe,
        )


def matched_filter(video: str, overlay: dict, template) -> dict:
    """The tensors of nitrogen.actions/1 without any learning, the floor of every table: what
    parse.py's matched filters say by themselves.
    """
    import parse

    times, maps, marks = [], [], []
    for seconds, _, _, found, stands, _ in parse.compared(video, overlay, template):
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


def score_video(video: str, labels: str, scale: str = "percentile") -> dict:
    """Metrics of one recording: final actions (as filter.py --scale makes them) against the
    recorded truth.
    """
    import filter

    stem = Path(video).stem
    buttons, sticks, tensors, info = filter.final_actions(
        Path(labels) / f"{stem}.actions.safetensors", scale
    )
    truth, about = artefact.read(
        Path(video).with_suffix(".truth.safetensors"), "nitrogen.actions/1"
    )
    if len(truth["buttons"]) != len(buttons):
        raise SystemExit(
            f"{video}: {len(buttons)} parsed rows, {len(truth['buttons'])} recorded; parse it again with --fresh"
        )
    out = metrics(buttons, sticks, truth["buttons"] > 0.5, truth["sticks"], tensors["shown"])
    return {
        **out,
        "name": stem,
        "family": about["family"],
        "template": about["template"],
        "opacity": about["opacity"],
        "width": about["box"][2],
    }


def metrics(buttons, sticks, true_buttons, true_sticks, shown) -> dict:
    """All [T, 16] and [T, 4]; only what `shown` [20] allows is scored.  nan: nothing to score (no
    press, no movement).
    """
    shown_buttons = np.flatnonzero(shown[:16])
    p, t = buttons.astype(bool)[:, shown_buttons], true_buttons.astype(bool)[:, shown_buttons]
    hit, used = (p & t).sum(0), t.sum(0) > 0
    recall = hit / np.maximum(t.sum(0), 1)
    f1 = 2 * hit / np.maximum(p.sum(0) + t.sum(0), 1)
    axes = [a for a in range(4) if shown[16 + a] and true_sticks[:, a].std() > 0.02]
    r2 = [
        1 - ((sticks[:, a] - true_sticks[:, a]) ** 2).mean() / true_sticks[:, a].var() for a in axes
    ]
    return {
        "accuracy": (p == t).mean() if p.size else np.nan,
        "silence": (~t).mean() if t.size else np.nan,
        "recall": recall[used].mean() if used.any() else np.nan,
        "f1": f1[used].mean() if used.any() else np.nan,
        "press_f1": press_f1(p, t),
        "r2": float(np.mean(r2)) if r2 else np.nan,
        "per_button": {
            b: float(recall[list(shown_buttons).index(i)]) if i in shown_buttons[used] else np.nan
            for i, b in enumerate(artefact.BUTTONS)
        },
    }


def press_f1(p, t, slack: int = 1) -> float:
    """F1 of press onsets over all buttons; each true onset is matched by at most one within +-slack
    frames.
    """
    matched = onsets = claims = 0
    for b in range(p.shape[1]):
        mine, true = (
            list(np.flatnonzero(np.diff(np.r_[False, x[:, b]].astype(int)) == 1)) for x in (p, t)
        )
        onsets, claims = onsets + len(true), claims + len(mine)
        for k in true:
            near = [m for m in mine if abs(m - k) <= slack]
            if near:
                mine.remove(min(near, key=lambda m: abs(m - k)))
                matched += 1
    return 2 * matched / (onsets + claims) if onsets + claims else float("nan")
