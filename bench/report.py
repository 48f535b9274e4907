"""The report of the suite: films of the best and the worst episode of each task, plots, one page of
HTML.
"""

from __future__ import annotations

import base64
import functools
import io
from pathlib import Path

from common import artefact
from common.pictures import VideoWriter, tile
from common.workers import for_each

import numpy as np

import eval as evaluation
from templates import library, pads, render

# ---- play: films ---------------------------------------------------------------------------------


def film_suite(records: list[dict], c: evaluation.Play) -> list[dict]:
    """Films of the policy's best and worst episode of each game (--quick: of each group of games);
    crashed ones cannot be shown.
    """
    sets = {}
    for r in records:
        if r["player"] == "policy" and not r["crash"]:
            sets.setdefault(evaluation.group_of(r["game"]) if c.quick else r["game"], []).append(r)
    ranked = {
        name: sorted(rs, key=lambda r: (r["success"], r["progress"], -r["seconds"]))
        for name, rs in sets.items()
    }
    films = [
        {"what": f"{what} of {name}", "record": r}
        for name, rs in ranked.items()
        for what, r in (("best", rs[-1]), ("worst", rs[0]))
    ]
    jobs = [evaluation.Job(*(f["record"][k] for k in evaluation.Job._fields)) for f in films]
    left = [
        j for j in dict.fromkeys(jobs) if c.fresh or not all(p.exists() for p in film_paths(j, c))
    ]
    again = (
        dict(zip(left, for_each(functools.partial(film, c=c), left, c.workers, "films", c.ray)))
        if left
        else {}
    )
    for f, j in zip(films, jobs):
        f["film"], f["strip"] = film_paths(j, c)
        if j in again and again[j] != f["record"]["progress"]:
            print(
                f"{j}: played again for the film it came out differently ({f['record']['progress']:.3f}, then {again[j]:.3f}): "
                "with this network and device the same numbers do not come out twice"
            )
    return films


def game_size(name: str) -> tuple[int, int]:
    picture = evaluation.game(name).Game(next(iter(evaluation.game(name).TASKS)), 0).draw()
    return picture.shape[1], picture.shape[0]


def film_paths(job: evaluation.Job, c: evaluation.Play) -> tuple[Path, Path]:
    return Path(c.out) / "films" / f"{job}.mp4", Path(c.out) / "films" / f"{job}.jpg"


def film(job: evaluation.Job, c: evaluation.Play) -> float:
    """Play an episode once more, with the pad drawn beside the picture: a video, and a strip of
    eight frames of it.  Returns the progress.
    """
    import cv2

    video, strip = film_paths(job, c)
    templates, seen = library.templates(pads.CORE), []
    template = templates[
        next(k for k in sorted(templates) if templates[k].family.startswith("xbox"))
    ]
    w, h = game_size(job.game)
    with VideoWriter(video, evaluation.FPS, w + PANEL, h) as out:

        def show(picture, pad, score):
            frame = np.hstack([picture, panel(pad, score, job, template, h)])
            out.write(frame)
            if score["over"] or round(score["time"] * evaluation.FPS) % (evaluation.FPS // 3) == 1:
                seen.append(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))

        score = evaluation.through(job, c, show)
    sheet = tile([seen[i] for i in np.linspace(0, len(seen) - 1, 8).astype(int)], 4)
    artefact.write_bytes(
        strip, cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    )
    return float(score["progress"])


PANEL = 200  # px beside the picture


def panel(pad, score: dict, job: evaluation.Job, template, height: int) -> np.ndarray:
    """uint8 [height, PANEL, 3]: the pad as the policy holds it, and how far it has got."""
    import cv2

    out = np.full((height, PANEL, 3), 24, np.uint8)
    buttons, sticks = pad
    render.composite(
        out, render.draw(template, buttons, sticks, scale=(PANEL - 12) / template.size[0]), 6, 12
    )
    held = (
        " ".join(
            n.replace("SHOULDER", "SH").replace("TRIGGER", "TR")
            for n, on in zip(artefact.BUTTONS, buttons)
            if on
        )
        .lower()
        .split()
    )
    lines = [
        f"{job.game}: {job.task}",
        f"seed {job.seed}",
        f"{score['time']:.1f} s",
        f"progress {score['progress']:.2f}" + (" done" if score["success"] else ""),
        *(" ".join(held[i : i + 2]) for i in range(0, min(6, len(held)), 2)),
    ]
    for i, text in enumerate(lines):
        cv2.putText(
            out,
            text,
            (8, 165 + 15 * i),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4,
            (225, 225, 225) if i < 4 else (120, 220, 150),
            1,
            cv2.LINE_AA,
        )
    cv2.rectangle(out, (8, height - 8), (PANEL - 8, height - 4), (70, 70, 70), -1)
    cv2.rectangle(
        out,
        (8, height - 8),
        (8 + round((PANEL - 16) * score["progress"]), height - 4),
        (120, 220, 150),
        -1,
    )
    return out


STYLE = """body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em; color: #222 }
h1 { margin-bottom: 0 } h2 { margin-top: 2em } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .3em .6em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap } th:first-child, td:first-child { text-align: left }
td.goal { text-align: left; white-space: normal; color: #666; font-size: 13px } tr.group td { font-weight: 600; background: #f4f6f8 }
tr.paper td { color: #888 } small { color: #777; font-weight: 400 } img { max-width: 100% } .quick, .crash { background: #fff3cd; padding: .6em 1em }"""


def report_page(report: dict, strips: list[Path]) -> str:
    """The report as one HTML file that loads nothing: pictures are embedded, texts escaped."""
    from html import escape

    floors = ("random", "held", "none", "expert")

    def picture(kind: str, data: bytes) -> str:
        return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'

    def table(head, rows) -> str:
        """rows: (class, cells); a cell is HTML."""
        lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
        lines += [
            f'<tr class="{kind}">'
            + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
            for kind, cells in rows
        ]
        return "<table>" + "\n".join(lines) + "</table>"

    full = lambda s: (
        f"{evaluation.percent(s)} <small>({s['progress'][0]:.2f})</small>" if s else "-"
    )
    brief = lambda s: (
        f"{100 * s['success'][0]:.0f} <small>({s['progress'][0]:.2f})</small>" if s else "-"
    )
    cells, tasks = [], []
    for row, cols in report["cells"].items():
        own = row in evaluation.GROUPS or row == "all"
        cells.append(
            (
                "group" if own else "",
                [
                    escape(row) if own else f"&emsp;{escape(row)}",
                    *(
                        full(cols.get(col, {}).get("policy"))
                        for col in (*evaluation.CATEGORIES, "all")
                    ),
                    *(brief(cols["all"].get(p)) for p in floors),
                ],
            )
        )
        if row in evaluation.PUBLISHED:
            cells.append(
                (
                    "paper",
                    ["&emsp;paper", *(f"{v:.1f}" for v in evaluation.PUBLISHED[row]), *[""] * 5],
                )
            )
    for t in report["tasks"]:
        mine = t["policy"]
        tasks.append(
            (
                "",
                [
                    f"{escape(t['game'])} {escape(t['task'])}",
                    escape(t["category"]),
                    evaluation.percent(mine),
                    "{:.2f} [{:.2f}, {:.2f}]".format(*mine["progress"]),
                    *(brief(t[p]) for p in floors),
                    f'<td class="goal">{escape(t["goal"])} ({t["seconds"]:.0f} s)</td>',
                ],
            )
        )
    settings = report["settings"]
    parts = [
        f"<h1>{escape(report['policy']['name'])} at the pad</h1>",
        f"<p><small>sha256 {report['policy']['sha256'][:16]}; {settings['execute']} actions of each chunk executed; "
        f"{settings['steps'] or 'the model&#39;s own'} denoising steps; seed {settings['seed']}</small></p>",
        f'<p class="{"quick" if report["quick"] else ""}">{escape(evaluation.quick_note(report))}</p>',
        "<h2>By genre and category</h2>",
        table(("", *evaluation.CATEGORIES, "all", *floors), cells),
        f"<p><small>{escape(evaluation.LEGEND)}</small></p>",
        picture("png", plot_cells(report)),
        "<h2>Task by task</h2>",
        picture("png", plot_tasks(report)),
        table(("task", "category", "completed, %", "progress", *floors, ""), tasks),
    ]
    if report["crashes"]:
        parts += [
            "<h2>Crashes</h2>",
            *(
                f'<p class="crash">{escape(str(evaluation.Job(*(r[k] for k in evaluation.Job._fields))))}: {escape(r["crash"])}</p>'
                for r in report["crashes"]
            ),
        ]
    parts += [
        "<h2>Best and worst episodes</h2>",
        *(
            f"<h3>{escape(f['what'])}: {escape(f['game'])} {escape(f['task'])}, seed {f['seed']} <small>progress {f['progress']:.2f}{', completed' if f['success'] else ''}; "
            f'<a href="{escape(f["film"])}">film</a></small></h3>{picture("jpeg", strip.read_bytes())}'
            for f, strip in zip(report["films"], strips)
        ),
    ]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Play</title><style>{STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


def png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def plot_cells(report: dict) -> bytes:
    """Bars as in the paper's figure: completed tasks by group and category with intervals; its own
    figures and the random pad's as marks.
    """
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6))
    ax = figure.subplots()
    rows = [row for row in report["cells"] if row in evaluation.GROUPS or row == "all"]
    for j, (col, colour) in enumerate(
        zip(evaluation.CATEGORIES, ("#d1495b", "#30638e", "#edae49"))
    ):
        for i, row in enumerate(rows):
            if cell := report["cells"][row].get(col):
                share, low, high = (100 * v for v in cell["policy"]["success"])
                at = i + 0.26 * (j - 1)
                ax.bar(at, share, 0.24, color=colour, label=col)
                ax.errorbar(
                    at, share, [[share - low], [high - share]], color="#333", capsize=3, lw=1
                )
                ax.plot(
                    at,
                    100 * cell["random"]["success"][0],
                    "_",
                    color="#333",
                    ms=12,
                    label="random pad",
                )
                if row in evaluation.PUBLISHED:
                    ax.plot(
                        at,
                        evaluation.PUBLISHED[row][j],
                        "D",
                        color="none",
                        mec="#333",
                        ms=6,
                        label="paper (other games)",
                    )
    ax.set_xticks(range(len(rows)), rows), ax.set_xlim(-0.6, len(rows) - 0.4), ax.set_ylim(-2, 102)
    ax.set_ylabel("completed tasks, %"), ax.grid(axis="y", alpha=0.3)
    once = {label: mark for mark, label in zip(*ax.get_legend_handles_labels())}
    ax.legend(
        once.values(),
        once.keys(),
        fontsize=8,
        ncols=5,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.14),
        frameon=False,
    )
    return png(figure)


def plot_tasks(report: dict) -> bytes:
    """Mean progress of each task with its interval; the random pad and the expert beside."""
    from matplotlib.figure import Figure

    tasks = report["tasks"][::-1]
    figure = Figure((9, 0.8 + 0.22 * len(tasks)))
    ax = figure.subplots()
    for y, t in enumerate(tasks):
        mean, low, high = t["policy"]["progress"]
        ax.plot([low, high], [y, y], color="#30638e", lw=3, alpha=0.4)
        for value, mark, colour, label in (
            (t["random"]["progress"][0], "|", "#333", "random pad"),
            (t["expert"]["progress"][0], "|", "#2a9d4a", "expert"),
            (mean, "o", "#30638e", "policy, progress"),
            (t["policy"]["success"][0], "x", "#d1495b", "policy, completed"),
        ):
            ax.plot(value, y, mark, color=colour, ms=6, label=label if y == 0 else None)
    ax.set_yticks(range(len(tasks)), [f"{t['game']} {t['task']}" for t in tasks], fontsize=8)
    ax.set_xlim(-0.02, 1.02), ax.set_ylim(-0.7, len(tasks) - 0.3), ax.grid(alpha=0.3)
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return png(figure)
