"""Is the overlay found?  240 videos on a fixed grid, clips without one, three rules: python eval.py
overlay --stage locate
"""

from __future__ import annotations

import functools
import json
import time
import typing
import zlib
from pathlib import Path

from common import ROOT, artefact
from common.pictures import RatedWriter, caption, read_video, sample, tile, write_png
from common.workers import for_each

import numpy as np

import eval as evaluation
from templates import decoys, features, library, pads, render, xfeat

# ---- overlay --stage locate: which overlay is where?  A fixed grid of videos, and clips without an overlay -----------------

SIZE, SECONDS = decoys.SIZE, 10  # of the grid's videos, at FPS
WIDTHS, OPACITIES = (0.15, 0.25, 0.35, 0.45), (0.5, 0.7, 0.85, 1.0)  # width: of the frame's
RATES = (0.1, 0.04, 0.015)  # bits per pixel: 2.8, 1.1 and 0.4 Mbit/s
# two captures, the built-in games, two that are painted here
BACKGROUNDS = ("supertux", "freedoom", "games", "hud", "novel")
# extract.py's; single frames, SIFT and XFeat; the paper's, SIFT alone
RULES = ("locate", "single", "plain")
# CHOICE: templates that single and plain look at closely, and points by which they are chosen
SHORTLIST, SPARSE = 12, 40
GRAY = 110  # behind the templates of single and plain
SPARE = 7  # one in so many clips without an overlay is shown to single and plain, for time
# other values of extract.SURE; below, scores are rough (extract.HOPE)
SWEEP = (0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
BARS = {"recall": 0.95, "misses": 0.5, "family": 0.99}  # misses: of the plain rule's, in every cell


class Case(typing.NamedTuple):
    name: str
    width: float  # 0: no overlay
    opacity: float
    rate: float
    background: str
    own: bool  # a skin of the folder --templates, not a built-in one


def grid(repeats: int = 1) -> list[Case]:
    """Every width x opacity x rate x background once per repeat.  Any first part of the list is
    spread evenly over all of them.
    """
    cells = [
        (i, (i + d) % len(OPACITIES)) for d in range(len(OPACITIES)) for i in range(len(WIDTHS))
    ]
    plans = [
        (
            n,
            WIDTHS[i],
            OPACITIES[j],
            RATES[(n + i + j) % 3],
            BACKGROUNDS[(n + i + 2 * j) % 5],
            (n + i + j) % 2 == 1,
        )
        for n in range(len(RATES) * len(BACKGROUNDS) * repeats)
        for i, j in cells
    ]
    return [
        Case(
            f"{n:02d}-{width}-{opacity}-{rate}-{background}", width, opacity, rate, background, own
        )
        for n, width, opacity, rate, background, own in plans
    ]


def nothing(count: int) -> list[Case]:
    return [
        Case(f"nothing-{n:03d}", 0.0, 0.0, RATES[n % 3], BACKGROUNDS[n % 5], False)
        for n in range(count)
    ]


def scene(background: str, rng, numbers):
    """The frames `numbers` (rising) of ten seconds of a background, uint8 RGB; each seed gives
    others, captures are mirrored and lit.
    """
    import cv2

    mirrored, light, start = rng.random() < 0.5, rng.uniform(0.75, 1.15), int(rng.integers(1 << 30))
    if background in ("hud", "novel"):
        yield from map({"hud": decoys.hud, "novel": decoys.novel}[background](rng), numbers)
    elif background == "games":
        name = str(rng.choice(evaluation.FIRST_GAMES.split(",")))
        world, expert = (
            evaluation.game(name).Game(str(rng.choice(list(evaluation.game(name).TASKS))), start),
            evaluation.game(name).Expert(start),
        )
        for t in range(max(numbers) + 1):
            world.step(
                evaluation.game(name).console.Pad(*expert(world.score())), 1 / evaluation.FPS
            )
            if t in numbers:
                yield cv2.resize(world.draw(), SIZE, interpolation=cv2.INTER_LINEAR)
    else:
        for _, _, frame in read_video(ROOT / "assets/backgrounds" / f"{background}.mp4", numbers):
            yield cv2.convertScaleAbs(
                np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame, alpha=light
            )


def hands(rng, frames: int):
    """What somebody does at a pad: buttons bool [frames, 16], each held for 0.1 to 0.6 s now and
    then; sticks [frames, 4] that go from place to place, half of the time to their centre."""
    buttons = np.zeros((frames, 16), bool)
    for b in range(16):
        for start in rng.integers(
            0, frames, rng.poisson(frames / evaluation.FPS * rng.uniform(0, 0.7))
        ):
            buttons[start : start + rng.integers(3, 18), b] = True
    knots = np.arange(0, frames + 20, 12)
    places = rng.uniform(-1, 1, (len(knots), 4)) * np.repeat(
        rng.random((len(knots), 2)) < 0.5, 2, 1
    )
    return buttons, np.stack([np.interp(np.arange(frames), knots, p) for p in places.T], 1)


def make_case(case: Case, path: Path, pool, seed: int) -> dict:
    """Write the case's video; returns the truth: template, family, box (x, y, w, h in px), and the
    bits per pixel that came out.
    """
    import extract

    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    (W, H), truth = SIZE, {"template": None, "family": None, "box": None}
    numbers = (
        range(evaluation.FPS * SECONDS)
        if case.width
        else np.linspace(0, evaluation.FPS * SECONDS - 1, extract.FRAMES)
        .round()
        .astype(int)
        .tolist()
    )
    if case.width:
        names = [n for n in pool if (n not in pads.TEMPLATES if case.own else pads.held_out(n))]
        template = pool[str(rng.choice(names))]
        scale = min(case.width * W / template.size[0], 0.9 * H / template.size[1])
        w, h = (round(scale * v) for v in template.size)
        x, y = (
            int(
                rng.choice(
                    [
                        rng.integers(8, 40),
                        limit - size - rng.integers(8, 40),
                        rng.integers(8, limit - size - 8),
                    ],
                    p=[0.35, 0.35, 0.3],
                )
            )
            for limit, size in ((W, w), (H, h))
        )
        truth, states = (
            {"template": template.name, "family": template.family, "box": [x, y, w, h]},
            zip(*hands(rng, len(numbers))),
        )
    else:
        kinds = [
            list(decoys.DECOYS)[k]
            for k in rng.permutation(len(decoys.DECOYS))[: rng.integers(2, 6)]
        ]
        sizes = [[int(v * rng.uniform(0.75, 1.25)) for v in decoys.DECOYS[d]] for d in kinds]
        shown = [
            (
                d,
                int(rng.integers(W - w)),
                int(rng.integers(H - h)),
                w,
                h,
                int(rng.integers(1 << 30)),
            )
            for d, (w, h) in zip(kinds, sizes)
        ]
    with RatedWriter(path, SIZE, case.rate, faithful=False) as out:
        for t, picture in zip(numbers, scene(case.background, rng, numbers)):
            if case.width:
                render.composite(
                    picture, render.draw(template, *next(states), scale=scale), x, y, case.opacity
                )
            else:
                for place in shown:
                    decoys.show(picture, *place, t)
            out.write(picture)
    return truth | {"rate": path.stat().st_size * 8 / (len(numbers) * W * H)}


def sift(rgb):
    points, descriptors = features.rootsift(rgb)
    return points[:, :2], descriptors


def lowe(a, b, ratio=0.8):
    """The nearest, where the second nearest is not about as near."""
    if len(b) < 2 or not len(a):
        return np.full(len(a), -1)
    like, rows = a @ b.T, np.arange(len(a))  # cosine; distance^2 = 2 - 2 cosine
    near = like.argmax(1)
    best, like[rows, near] = like[rows, near], -1
    return np.where(1 - best < ratio**2 * (1 - like.max(1)), near, -1)


def mutual(a, b, least=0.82):
    """Each other's nearest, with the cosine that XFeat's authors ask for."""
    if not len(a) or not len(b):
        return np.full(len(a), -1)
    like, rows = a @ b.T, np.arange(len(a))
    near = like.argmax(1)
    return np.where((like.argmax(0)[near] == rows) & (like[rows, near] > least), near, -1)


def detectors() -> dict:
    return {"plain": ((sift, lowe),), "single": ((sift, lowe), (xfeat.detect, mutual))}


@functools.lru_cache(4)
def bank(detect, folder: str):
    """Points, descriptors and owner (number in the pool) of all templates, and SPARSE of each
    template's rows, drawn by lot.
    """
    parts = [detect(render.idle(t, GRAY)) for t in library.pool(folder).values()]
    owner, rng = (
        np.concatenate([np.full(len(p), i) for i, (p, _) in enumerate(parts)]),
        np.random.default_rng(0),
    )
    sparse = np.concatenate(
        [
            np.flatnonzero(owner == i)[rng.permutation(len(p))[:SPARSE]]
            for i, (p, _) in enumerate(parts)
        ]
    )
    return (
        np.concatenate([p for p, _ in parts]),
        np.concatenate([d for _, d in parts]),
        owner,
        sparse,
    )


def single_frames(seen, pairs, folder: str, also, bar: int) -> dict:
    """The paper's rule: match each template with each frame, fit an affine by RANSAC, accept it
    from `bar` inliers.

    Of all that pass in all frames the one with most inliers is taken (the paper leaves this open).
    seen: per detector, per frame what it found.  For time the frames are compared with the
    SHORTLIST templates that match three of them best, and with `also`, the name of the right one:
    the choice can only help.
    """
    import cv2

    pool, best = library.pool(folder), (0,)
    names, counts = list(pool), 0
    for (detect, _), frames in zip(pairs, seen):
        points, descriptors, owner, sparse = bank(detect, folder)
        for _, d in frames[:: max(1, len(frames) // 2)]:
            counts = counts + np.bincount(
                owner[sparse][lowe(descriptors[sparse], d) >= 0], minlength=len(names)
            )
    for i in {
        *np.argsort(-counts, kind="stable")[:SHORTLIST].tolist(),
        *([names.index(also)] if also else []),
    }:
        mine = [
            (p[o == i], d[o == i], match)
            for (detect, match) in pairs
            for p, d, o, _ in [bank(detect, folder)]
        ]
        for found in zip(*seen):
            near = [match(d, there) for (_, d, match), (_, there) in zip(mine, found)]
            source = np.concatenate([p[n >= 0] for (p, _, _), n in zip(mine, near)])
            target = np.concatenate([p[n[n >= 0]] for (p, _), n in zip(found, near)])
            affine, good = (
                cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0)
                if len(source) >= bar
                else (None, None)
            )
            inliers = (
                0 if affine is None else len(np.unique(target[good.ravel() > 0].round(), axis=0))
            )
            if inliers >= bar and inliers > best[0]:
                best = inliers, names[i], affine
    if not best[0]:
        return {"template": None}
    w, h = pool[best[1]].size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ best[2].T
    low, high = corners.min(0), corners.max(0)
    return {
        "template": best[1],
        "family": pool[best[1]].family,
        "box": [*low.tolist(), *(high - low).tolist()],
        "inliers": best[0],
    }


def iou(a, b) -> float:
    """Of two boxes x, y, w, h."""
    w, h = (max(0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def try_case(case: Case, c) -> dict:
    """Make the video of a case, let the rules look at it, write what they said as
    OUT/locate/NAME.json; what is there is kept.
    """
    import extract

    path, recipe = (
        Path(c.out) / "locate" / f"{case.name}.json",
        {"seed": c.seed, "templates": Path(c.templates).name},
    )
    kept = (
        json.loads(path.read_text())
        if path.exists() and not c.fresh
        else {"recipe": recipe, "rules": {}}
    )
    if kept["recipe"] != recipe:
        raise SystemExit(
            f"{path}: made with {kept['recipe']}, not {recipe}; give another --out, or --fresh to replace it"
        )
    rules, pairs = kept["rules"], detectors()
    wanted = [
        r
        for r in c.rules.split(",")
        if r not in rules
        and (r == "locate" or r in pairs and (case.width or int(case.name[-3:]) % SPARE == 0))
    ]
    if not wanted:
        return kept
    video, start = path.with_suffix(".mp4"), time.process_time()
    kept |= {
        "case": case._asdict(),
        "truth": make_case(case, video, library.pool(c.templates), c.seed),
    }
    kept["seconds"] = round(time.process_time() - start, 2)
    frames, seen = sample(video, extract.FRAMES)[0], {}
    for rule in sorted(wanted, key=("plain", "single", "locate").index):
        start = time.process_time()
        if rule == "locate":
            tensors, info, _ = extract.locate(
                str(video), library.pool(c.templates), extract.Config()
            )
            said = {
                "template": info.get("template"),
                "family": info.get("family"),
                "why": info.get("reason", ""),
                "score": info["score"],
            }
            said |= (
                {"box": tensors["bbox"][0].tolist()}
                if info["found"]
                else {"nearest": info.get("nearest")}
            )
        else:
            for detect, _ in pairs[rule]:
                seen[detect] = seen.get(detect) or [detect(f) for f in frames]
            said = single_frames(
                [seen[d] for d, _ in pairs[rule]],
                pairs[rule],
                c.templates,
                kept["truth"]["template"],
                extract.MIN_INLIERS,
            )
        rules[rule] = {**said, "seconds": round(time.process_time() - start, 2)}
        if (box := said.get("box") or said.get("nearest")) and case.width:
            rules[rule]["iou"] = round(iou(box, kept["truth"]["box"]), 3)
    artefact.write_bytes(path, json.dumps(kept).encode())
    if "locate" in rules and missed(kept, "locate"):
        write_png(path.with_suffix(".png"), picture_of(frames[len(frames) // 2], kept))
    if not c.keep:
        video.unlink()
    return kept


def missed(result: dict, rule: str) -> bool:
    """An overlay whose box is not found, or one that is not there."""
    said = result["rules"][rule]
    return (
        not said["template"] or said.get("iou", 0) <= 0.8
        if result["truth"]["box"]
        else bool(said["template"])
    )


def picture_of(frame, result: dict):
    """A frame with the true box (green) and the found one (red)."""
    import cv2

    said = result["rules"]["locate"]
    for box, color in ((result["truth"]["box"], (60, 255, 60)), (said.get("box"), (255, 60, 60))):
        if box:
            x, y, w, h = map(round, box)
            cv2.rectangle(frame, (x, y), (x + w, y + h), color, 3)
    small = cv2.resize(frame, (480, 270), interpolation=cv2.INTER_AREA)
    small = caption(small, f"{result['case']['name']}: {result['truth']['template'] or 'nothing'}")
    return caption(small, (said["template"] or said["why"])[:68])


def locate_table(results: list) -> dict:
    """{rule: {"recall": .., "template": .., "family": .., "false": .., "clips": .., "seconds": ..},
    "cells": {(column, value): {rule: [misses, n]}}}.

    template, family: share of the videos with an overlay in which a rule took some template and
    that was the right one, or one of the right family; false: clips without an overlay where it
    took one."""
    rules = [r for r in RULES if any(r in x["rules"] for x in results)]
    table, cells = {}, {}
    for rule in rules:
        mine = [x for x in results if rule in x["rules"]]
        there, bare = ([x for x in mine if bool(x["truth"]["box"]) == b] for b in (True, False))
        took = [x for x in there if x["rules"][rule]["template"]]
        share = lambda key: (
            float(np.mean([x["rules"][rule][key] == x["truth"][key] for x in took]))
            if took
            else float("nan")
        )
        table[rule] = {
            "videos": len(there),
            "recall": float(np.mean([not missed(x, rule) for x in there]))
            if there
            else float("nan"),
            "template": share("template"),
            "family": share("family"),
            "false": sum(missed(x, rule) for x in bare),
            "clips": len(bare),
            "seconds": float(np.mean([x["rules"][rule]["seconds"] for x in there]))
            if there
            else float("nan"),
        }
        for x in there:
            case = x["case"]
            for key in (
                ("width, opacity", (case["width"], case["opacity"])),
                ("bits per pixel", case["rate"]),
                ("background", case["background"]),
                ("templates", "skins" if case["own"] else "built in"),
                ("hard", (case["width"], case["opacity"], case["rate"])),
            ):
                cell = cells.setdefault(key, {}).setdefault(rule, [0, 0])
                cell[0], cell[1] = cell[0] + missed(x, rule), cell[1] + 1
    return {"rules": table, "cells": cells}


def by_bar(results: list) -> list[tuple[float, float, int]]:
    """(bar, recall at IoU > 0.8, false accepts) if extract.py's own bar, SURE, were another one and
    all else the same.
    """
    mine = [
        (bool(x["truth"]["box"]), x["rules"]["locate"]) for x in results if "locate" in x["rules"]
    ]
    there, bare = [said for box, said in mine if box], [said for box, said in mine if not box]
    return [
        (
            bar,
            float(np.mean([said["score"] >= bar and said.get("iou", 0) > 0.8 for said in there]))
            if there
            else float("nan"),
            sum(said["score"] >= bar for said in bare),
        )
        for bar in SWEEP
    ]


def locate_bars(table: dict) -> list[tuple[str, bool]]:
    """(what was asked for and measured, met) of each bar."""
    mine, bars = table["rules"]["locate"], []
    bars.append(
        (f"recall {mine['recall']:.3f} (bar {BARS['recall']})", mine["recall"] >= BARS["recall"])
    )
    bars.append(
        (
            f"right family {mine['family']:.3f} (bar {BARS['family']})",
            mine["family"] >= BARS["family"],
        )
    )
    bars.append(
        (
            f"{mine['false']} false accepts in {mine['clips']} clips (bar 0)",
            mine["clips"] > 0 and mine["false"] == 0,
        )
    )
    if "plain" in table["rules"]:
        cells = {k[1]: v for k, v in table["cells"].items() if k[0] == "width, opacity"}
        worse = [k for k, v in cells.items() if v["locate"][0] > BARS["misses"] * v["plain"][0]]
        bars.append(
            (
                f"at most half of the plain rule's misses in {len(cells) - len(worse)} of {len(cells)} cells of width and opacity",
                not worse,
            )
        )
    return bars


def print_table(table: dict) -> None:
    rules, cells = list(table["rules"]), table["cells"]
    rate = lambda cell: "/".join(
        f"{1 - cell[r][0] / cell[r][1]:.2f}" if r in cell else "-" for r in rules
    )
    print(f"\n{'rule':9s}" + "".join(f"{k:>10s}" for k in next(iter(table["rules"].values()))))
    for rule, row in table["rules"].items():
        print(
            f"{rule:9s}"
            + "".join(f"{v:10.3f}" if isinstance(v, float) else f"{v:10d}" for v in row.values())
        )
    print(
        f"\nrecall at IoU > 0.8: {'/'.join(rules)}\n{'width':>9s}"
        + "".join(f"{f'opacity {o}':>17s}" for o in OPACITIES)
    )
    for w in WIDTHS:
        print(
            f"{w:9}"
            + "".join(f"{rate(cells.get(('width, opacity', (w, o)), {})):>17s}" for o in OPACITIES)
        )
    for column in ("bits per pixel", "background", "templates"):
        print(
            f"{column}: "
            + ", ".join(
                f"{k[1]} {rate(v)}" for k, v in sorted(cells.items(), key=str) if k[0] == column
            )
        )
    hard = sorted(
        (
            (v["locate"][0], k[1], v["locate"][1])
            for k, v in cells.items()
            if k[0] == "hard" and v.get("locate", [0])[0]
        ),
        reverse=True,
    )
    print(
        "hardest (width, opacity, bits per pixel): "
        + (
            "; ".join(f"{k[0]}, {k[1]}, {k[2]}: {m} of {n} missed" for m, k, n in hard[:8])
            or "none"
        )
    )


def locate(c) -> dict:
    """The benchmark of localization: all cases, the tables, the bars; LOCATE.json and a sheet of
    the misses beside the cases' folder.
    """
    import extract

    if set(c.rules.split(",")) - set(RULES) or not 0 < c.share <= 1:
        raise SystemExit(
            f"--rules are some of {','.join(RULES)}, and --share is above 0 and at most 1"
        )
    own = [n for n in library.pool(c.templates) if n not in pads.TEMPLATES]
    cases = grid(c.repeats)
    cases = cases[: max(1, round(c.share * len(cases)))] + nothing(round(c.share * c.nothing))
    print(
        f"{len(cases)} videos of {SIZE[0]} x {SIZE[1]}; {len(library.pool(c.templates))} templates to choose from; shown: "
        f"{sum(map(pads.held_out, pads.TEMPLATES))} built-in ones, held out, and {len(own)} skins of {c.templates} -> {c.out}/locate"
    )
    results = [
        r
        for r in for_each(functools.partial(try_case, c=c), cases, c.workers, ray=c.ray)
        if r["rules"]
    ]
    table = locate_table(results)
    print_table(table)
    if "locate" in table["rules"]:
        table["sweep"] = by_bar(results)
        print(
            f"bar {'':>18s}"
            + "".join(f"{bar:>8g}" for bar, *_ in table["sweep"])
            + f"     ({extract.SURE} is used)"
        )
        print(
            "recall / false accepts"
            + "".join(f"{recall:>5.2f}/{false:<2d}" for _, recall, false in table["sweep"])
        )
    print(
        f"seconds: of one core, a video; making one took {np.mean([x['seconds'] for x in results if x['truth']['box']]):.1f}.  "
        f"single looks again at what plain saw{'' if 'single' in table['rules'] else '; it needs XFeat'}."
    )
    bars = locate_bars(table) if "locate" in table["rules"] else []
    for text, met in bars:
        print(
            f"{'met' if met else 'MISSED':8s}{text}{'' if c.share == 1 else f', on {c.share:.0%} of the cases'}"
        )
    pictures = [
        p
        for x in results
        for p in [Path(c.out) / "locate" / f"{x['case']['name']}.png"]
        if p.exists() and missed(x, "locate")
    ]
    if pictures:
        import cv2

        write_png(
            f"{c.out}/locate-misses.png",
            tile([cv2.imread(str(p))[..., ::-1] for p in pictures[:60]], 4),
        )
        print(f"{len(pictures)} misses to look at -> {c.out}/locate-misses.png")
    out = {
        **table,
        "cells": [{"by": k[0], "cell": k[1], **v} for k, v in table["cells"].items()],
        "bars": bars,
    }
    artefact.write_bytes(f"{c.out}/locate.json", json.dumps(out, indent=1).encode())
    return table
