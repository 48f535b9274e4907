"""Is the overlay found?  240 videos on a fixed grid, clips without one, three rules: python eval.py
overlay --stage locate

It writes what each rule said about each video as OUT/locate/*.json and resumes from them; then
OUT/locate.json, and the misses to look at as OUT/locate-misses.png.
"""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

from common import artefact
from common.pictures import caption, tile, write_png
from common.video import Video
from common.workers import for_each

import cv2
import numpy as np

import extract
from bench.cases import OPACITIES, WIDTHS, Case, H, W, grid, make_case, nothing
from bench.plain import detectors, single_frames
from templates import library, pads

# extract.py's; single frames, SIFT and XFeat; the paper's, SIFT alone
RULES = ("locate", "single", "plain")
SPARE = 7  # one in so many clips without an overlay is shown to single and plain, for time
# other values of extract.SURE; below, scores are rough (extract.HOPE)
SWEEP = (0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
BARS = {"recall": 0.95, "misses": 0.5, "family": 0.99}  # misses: of the plain rule's, in every cell


# ---- one case ------------------------------------------------------------------------------------


def try_case(case: Case, c) -> dict:
    """Make the video of a case, let the rules look at it, write what they said as
    OUT/locate/NAME.json; rules that have looked already are not asked again.
    """
    path = Path(c.out) / "locate" / f"{case.name}.json"
    result = result_so_far(path, c)
    rules = result["rules"]
    wanted = [r for r in rules_for(case, c) if r not in rules]
    if not wanted:
        return result
    video = path.with_suffix(".mp4")
    start = time.process_time()
    truth = make_case(case, video, library.pool(c.templates), c.seed)
    result |= {"case": case._asdict(), "truth": truth}
    result["seconds"] = round(time.process_time() - start, 2)
    frames = Video(video).sample(extract.FRAMES)[0]
    seen = {}
    for rule in sorted(wanted, key=("plain", "single", "locate").index):
        start = time.process_time()
        if rule == "locate":
            said = ask_extract(video, c)
        else:
            said = ask_single(detectors()[rule], frames, seen, truth["template"], c)
        rules[rule] = {**said, "seconds": round(time.process_time() - start, 2)}
        box = said.get("box") or said.get("nearest")
        if box and case.width:
            rules[rule]["iou"] = round(iou(box, truth["box"]), 3)
    artefact.write_bytes(path, json.dumps(result).encode())
    if "locate" in rules and missed(result, "locate"):
        write_png(path.with_suffix(".png"), picture_of(frames[len(frames) // 2], result))
    if not c.keep:
        video.unlink()
    return result


def result_so_far(path: Path, c) -> dict:
    recipe = {"seed": c.seed, "templates": Path(c.templates).name}
    if c.fresh or not path.exists():
        return {"recipe": recipe, "rules": {}}
    result = json.loads(path.read_text())
    if result["recipe"] != recipe:
        raise SystemExit(
            f"{path}: made with {result['recipe']}, not {recipe}; give another --out, or --fresh "
            "to replace it"
        )
    return result


def rules_for(case: Case, c) -> list[str]:
    """Those of --rules that look at this case."""
    slow = detectors() if case.width or int(case.name[-3:]) % SPARE == 0 else ()
    return [r for r in c.rules.split(",") if r == "locate" or r in slow]


def ask_extract(video: Path, c) -> dict:
    pool = library.pool(c.templates)
    tensors, info, _ = extract.locate(str(video), pool, extract.Config())
    said = {k: info.get(k) for k in ("template", "family")}
    said |= {"why": info.get("reason", ""), "score": info["score"]}
    if info["found"]:
        return said | {"box": tensors["bbox"][0].tolist()}
    return said | {"nearest": info.get("nearest")}


def ask_single(pairs, frames, seen: dict, template: str | None, c) -> dict:
    """seen: detector -> what it found in each frame; added to."""
    for detect, _ in pairs:
        if detect not in seen:
            seen[detect] = [detect(f) for f in frames]
    found = [seen[detect] for detect, _ in pairs]
    return single_frames(found, pairs, c.templates, template, extract.MIN_INLIERS)


def iou(a, b) -> float:
    """Of two boxes x, y, w, h."""
    w, h = (max(0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def missed(result: dict, rule: str) -> bool:
    """An overlay whose box is not found, or one that is not there."""
    said = result["rules"][rule]
    if result["truth"]["box"]:
        return not said["template"] or said.get("iou", 0) <= 0.8
    return bool(said["template"])


def picture_of(frame, result: dict):
    """A frame with the true box (green) and the found one (red)."""
    said = result["rules"]["locate"]
    for box, color in ((result["truth"]["box"], (60, 255, 60)), (said.get("box"), (255, 60, 60))):
        if box:
            x, y, w, h = map(round, box)
            cv2.rectangle(frame, (x, y), (x + w, y + h), color, 3)
    small = cv2.resize(frame, (480, 270), interpolation=cv2.INTER_AREA)
    small = caption(small, f"{result['case']['name']}: {result['truth']['template'] or 'nothing'}")
    return caption(small, (said["template"] or said["why"])[:68])


# ---- the table -----------------------------------------------------------------------------------


def mean(values) -> float:
    """nan if there are none."""
    return float(np.mean(values)) if len(values) else float("nan")


def shown_and_bare(results: list, rule: str) -> tuple[list, list]:
    """The results of a rule on videos with an overlay, and on those without."""
    mine = [x for x in results if rule in x["rules"]]
    return [x for x in mine if x["truth"]["box"]], [x for x in mine if not x["truth"]["box"]]


def locate_table(results: list) -> dict:
    """{"rules": {rule: {"recall": .., "template": .., "family": .., "false": .., "clips": ..,
    "seconds": ..}}, "cells": {(column, value): {rule: [misses, n]}}}.

    template, family: share of the videos with an overlay in which a rule took some template and
    that was the right one, or one of the right family; false: clips without an overlay where it
    took one.
    """
    table, cells = {}, {}
    for rule in RULES:
        shown, bare = shown_and_bare(results, rule)
        if shown or bare:
            table[rule] = figures_of(rule, shown, bare)
        for x in shown:
            for key in cells_of(x["case"]):
                cell = cells.setdefault(key, {}).setdefault(rule, [0, 0])
                cell[0] += missed(x, rule)
                cell[1] += 1
    return {"rules": table, "cells": cells}


def figures_of(rule: str, shown: list, bare: list) -> dict:
    took = [x for x in shown if x["rules"][rule]["template"]]
    right = {
        key: mean([x["rules"][rule][key] == x["truth"][key] for x in took])
        for key in ("template", "family")
    }
    return {
        "videos": len(shown),
        "recall": mean([not missed(x, rule) for x in shown]),
        **right,
        "false": sum(missed(x, rule) for x in bare),
        "clips": len(bare),
        "seconds": mean([x["rules"][rule]["seconds"] for x in shown]),
    }


def cells_of(case: dict) -> tuple:
    """The (column, value) in which a case is counted."""
    return (
        ("width, opacity", (case["width"], case["opacity"])),
        ("bits per pixel", case["rate"]),
        ("background", case["background"]),
        ("templates", "skins" if case["own"] else "built in"),
        ("hard", (case["width"], case["opacity"], case["rate"])),
    )


def by_bar(results: list) -> list[tuple[float, float, int]]:
    """(bar, recall at IoU > 0.8, false accepts) if extract.py's own bar, SURE, were another one and
    all else the same.
    """
    shown, bare = shown_and_bare(results, "locate")
    shown = [x["rules"]["locate"] for x in shown]
    bare = [x["rules"]["locate"] for x in bare]
    rows = []
    for bar in SWEEP:
        recall = mean([said["score"] >= bar and said.get("iou", 0) > 0.8 for said in shown])
        rows.append((bar, recall, sum(said["score"] >= bar for said in bare)))
    return rows


def locate_bars(table: dict) -> list[tuple[str, bool]]:
    """(what was asked for and measured, met) of each bar."""
    mine = table["rules"]["locate"]
    recall, family = mine["recall"], mine["family"]
    false, clips = mine["false"], mine["clips"]
    bars = [
        (f"recall {recall:.3f} (bar {BARS['recall']})", recall >= BARS["recall"]),
        (f"right family {family:.3f} (bar {BARS['family']})", family >= BARS["family"]),
        (f"{false} false accepts in {clips} clips (bar 0)", clips > 0 and false == 0),
    ]
    if "plain" in table["rules"]:
        cells = {k[1]: v for k, v in table["cells"].items() if k[0] == "width, opacity"}
        worse = [k for k, v in cells.items() if v["locate"][0] > BARS["misses"] * v["plain"][0]]
        good = f"{len(cells) - len(worse)} of {len(cells)} cells of width and opacity"
        bars.append((f"at most half of the plain rule's misses in {good}", not worse))
    return bars


def print_table(table: dict) -> None:
    rules, cells = table["rules"], table["cells"]

    def recall(cell: dict) -> str:
        """Of each rule, as in 0.98/0.90/-."""
        known = {r: f"{1 - misses / n:.2f}" for r, (misses, n) in cell.items()}
        return "/".join(known.get(r, "-") for r in rules)

    figures = next(iter(rules.values()))
    print("\n" + ("{:9s}" + "{:>10s}" * len(figures)).format("rule", *figures))
    for rule, row in rules.items():
        texts = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
        print(("{:9s}" + "{:>10s}" * len(figures)).format(rule, *texts))
    line = "{:>9}" + "{:>17s}" * len(OPACITIES)
    print(f"\nrecall at IoU > 0.8: {'/'.join(rules)}")
    print(line.format("width", *(f"opacity {o}" for o in OPACITIES)))
    for w in WIDTHS:
        at = (recall(cells.get(("width, opacity", (w, o)), {})) for o in OPACITIES)
        print(line.format(w, *at))
    for column in ("bits per pixel", "background", "templates"):
        mine = sorted((cell for cell in cells.items() if cell[0][0] == column), key=str)
        print(f"{column}: " + ", ".join(f"{key[1]} {recall(cell)}" for key, cell in mine))
    print(f"hardest (width, opacity, bits per pixel): {hardest(cells)}")


def hardest(cells: dict) -> str:
    misses = []
    for (column, value), cell in cells.items():
        lost, n = cell.get("locate", (0, 0))
        if column == "hard" and lost:
            misses.append((lost, value, n))
    worst = [
        f"{', '.join(map(str, value))}: {lost} of {n} missed"
        for lost, value, n in sorted(misses, reverse=True)[:8]
    ]
    return "; ".join(worst) or "none"


# ---- the command ---------------------------------------------------------------------------------


def locate(c) -> dict:
    """The benchmark of localization: all cases, the tables, the bars; OUT/locate.json and a sheet
    of the misses beside the cases' folder.
    """
    if set(c.rules.split(",")) - set(RULES) or not 0 < c.share <= 1:
        raise SystemExit(
            f"--rules are some of {','.join(RULES)}, and --share is above 0 and at most 1"
        )
    cases = grid(c.repeats)
    cases = cases[: max(1, round(c.share * len(cases)))] + nothing(round(c.share * c.nothing))
    print(f"{len(cases)} videos of {W} x {H}; {templates_of(c)} -> {c.out}/locate")
    results = for_each(functools.partial(try_case, c=c), cases, c.workers, ray=c.ray)
    results = [r for r in results if r["rules"]]
    table = locate_table(results)
    print_table(table)
    bars = locate_bars(table) if "locate" in table["rules"] else []
    if bars:
        table["sweep"] = by_bar(results)
        print_sweep(table["sweep"])
    seconds = np.mean([x["seconds"] for x in results if x["truth"]["box"]])
    needs = "" if "single" in table["rules"] else "; it needs XFeat"
    print(
        f"seconds: of one core, a video; making one took {seconds:.1f}.  "
        f"single looks again at what plain saw{needs}."
    )
    print_bars(bars, c.share)
    write_misses(results, c)
    cells = [{"by": k[0], "cell": k[1], **v} for k, v in table["cells"].items()]
    out = {**table, "cells": cells, "bars": bars}
    artefact.write_bytes(f"{c.out}/locate.json", json.dumps(out, indent=1).encode())
    return table


def templates_of(c) -> str:
    pool = library.pool(c.templates)
    skins = len([n for n in pool if n not in pads.TEMPLATES])
    held_out = sum(map(pads.held_out, pads.TEMPLATES))
    return (
        f"{len(pool)} templates to choose from; shown: {held_out} built-in ones, held out, and "
        f"{skins} skins of {c.templates}"
    )


def print_bars(bars: list, share: float) -> None:
    part = "" if share == 1 else f", on {share:.0%} of the cases"
    for text, met in bars:
        print(f"{'met' if met else 'MISSED':8s}{text}{part}")


def print_sweep(sweep: list) -> None:
    bars = "".join(f"{bar:>8g}" for bar, _, _ in sweep)
    found = "".join(f"{recall:>5.2f}/{false:<2d}" for _, recall, false in sweep)
    print(f"bar {'':>18s}{bars}     ({extract.SURE} is used)\nrecall / false accepts{found}")


def write_misses(results: list, c) -> None:
    """The pictures of at most 60 misses as one sheet."""
    pictures = []
    for x in results:
        path = Path(c.out) / "locate" / f"{x['case']['name']}.png"
        if path.exists() and missed(x, "locate"):
            pictures.append(path)
    if pictures:
        sheet = tile([cv2.imread(str(p))[..., ::-1] for p in pictures[:60]], 4)
        write_png(f"{c.out}/locate-misses.png", sheet)
        print(f"{len(pictures)} misses to look at -> {c.out}/locate-misses.png")
