"""The report of the suite: tables, films of the best and the worst episode of each game, plots, one
page of HTML.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import textwrap
from html import escape
from pathlib import Path

from common import artefact, playing

import eval as evaluation
from bench.films import film_suite, picked
from bench.tasks import CATEGORIES, GROUPS, genre, genre_order
from eval import PLAYERS, Job, Play, category, game, summary

COLUMNS = (*CATEGORIES, "all")
FLOORS = PLAYERS[1:]  # what the policy is compared with
# % of the paper's own tasks, by category: other games, judged by people (read off its figure)
PUBLISHED = {
    "3D": (61.2, 55.0, 56.3),
    "2D top-down": (46.0, 52.0, 61.5),
    "2D side-scroller": (44.8, 37.9, 54.0),
}


def play(c: Play) -> dict:
    """Play the built-in suite and report it."""
    suite = evaluation.built_in_suite(c)
    by_genre = sorted(suite.tasks, key=lambda pair: genre_order(pair[0]))
    return played(suite._replace(tasks=by_genre), evaluation.built_in, write_report)


def played(suite: evaluation.Suite, one, report) -> dict:
    """Play a suite, and report(suite, records) on it; also on what there is after Ctrl-C, or where
    an episode failed.
    """
    try:
        suite.play(one)
    except (KeyboardInterrupt, SystemExit) as e:
        records = suite.records()
        if any(r["player"] == "policy" for r in records):
            why = "interrupted" if isinstance(e, KeyboardInterrupt) else "incomplete"
            print(f"\n{why}: {len(records)} of {len(suite.jobs)} episodes are there", flush=True)
            report(suite, records)
        raise
    return report(suite, suite.records())


def write_report(suite: evaluation.Suite, records: list[dict]) -> dict:
    """Print the tables, make the films; OUT/report.json, OUT/report.html.

    Of a suite that is not played to its end, only the tasks that the policy has played, unfilmed.
    """
    c = suite.c
    whole = len(records) == len(suite.jobs)
    there = {(r["game"], r["task"]) for r in records if r["player"] == "policy"}
    report = {
        "format": "nitrogen.play/1",
        "policy": artefact.source(c.policy),
        "trained_on": sorted(playing.about(c.policy).get("games") or ()),
        "settings": suite.settings,
        "quick": c.quick,
        "seeds": len(suite.seeds),
        **({} if whole else {"missing": len(suite.jobs) - len(records)}),
        **tables([pair for pair in suite.tasks if pair in there], records),
        "crashes": [picked(r, *Job._fields, "crash") for r in records if r["crash"]],
    }
    print_report(report)
    films = film_suite(records, c) if whole else []
    report["films"] = [
        {"what": f["what"], "film": f"films/{f['film'].name}"}
        | picked(f["record"], "game", "task", "seed", "progress", "success")
        for f in films
    ]
    report["episodes"] = [
        picked(r, *Job._fields, "progress", "success", "seconds") for r in records
    ]
    page = report_page(report, [f["strip"] for f in films])
    artefact.write_bytes(Path(c.out) / "report.json", json.dumps(report, indent=1).encode())
    artefact.write_bytes(Path(c.out) / "report.html", page.encode())
    print(f"report -> {c.out}/report.html, report.json; films -> {c.out}/films")
    return report


# ---- tables --------------------------------------------------------------------------------------


def by_player(records: list[dict]) -> dict:
    """Player -> summary of its episodes."""
    episodes = {p: [r for r in records if r["player"] == p] for p in PLAYERS}
    return {p: summary(mine) for p, mine in episodes.items() if mine}


def figure_rows() -> dict[str, tuple]:
    """Row of the paper's figure -> its genres: the groups, their genres, all."""
    rows = {}
    for group, genres in GROUPS.items():
        rows[group] = genres
        if len(genres) > 1:
            rows |= {g: (g,) for g in genres}
    return rows | {"all": tuple(itertools.chain(*GROUPS.values()))}


def tables(suite, records: list[dict]) -> dict:
    """Summaries by player: "cells" by row and column (categories, all) of the paper's figure;
    "tasks".
    """
    cells = {}
    for row, genres in figure_rows().items():
        inside = [r for r in records if genre(r["game"]) in genres]
        for col in COLUMNS:
            mine = [r for r in inside if col in ("all", category(r["game"], r["task"]))]
            if mine:
                cells.setdefault(row, {})[col] = by_player(mine)
    tasks = []
    for name, task in suite:
        about = {"game": name, "task": task, "genre": genre(name), "category": category(name, task)}
        about |= {k: getattr(game(name).TASKS[task], k) for k in ("goal", "seconds")}
        mine = [r for r in records if (r["game"], r["task"]) == (name, task)]
        tasks.append(about | by_player(mine))
    return {"cells": cells, "tasks": tasks}


LEGEND = (
    "Completed tasks in %, with the 95 % Wilson interval over episodes; in brackets ( ) the mean "
    "progress, 0..1; its intervals are bootstrapped.  Beside, over all categories: random: every "
    "button and axis drawn anew and held for 0.1-1 s; held: the left stick one way and the right "
    "trigger, for ever; none: no input; expert: the game's scripted player, which reads the score "
    "block.  paper: its own 30 tasks on commercial games, judged by people."
)


def percent(s: dict) -> str:
    """A summary's successes, as in 45 [26, 66]."""
    return "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * v for v in s["success"]))


def cell(s: dict | None) -> str:
    """The same and the mean progress, as in 45 [26, 66] (0.61)."""
    return f"{percent(s)} ({s['progress'][0]:.2f})" if s else "-"


def print_crashes(records: list[dict]) -> None:
    for r in records:
        if r["crash"]:
            who = f"{r['game']} {r['task']}, seed {r['seed']}, {r['player']}"
            print(f"crashed, counted as a failure: {who}: {r['crash']}")


def brief(s: dict | None) -> str:
    """Without the interval, as in 45 (0.61)."""
    return f"{100 * s['success'][0]:.0f} ({s['progress'][0]:.2f})" if s else "-"


def mean_progress(s: dict) -> str:
    """With its interval, as in 0.61 [0.50, 0.72]."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*s["progress"])


def quick_note(report: dict) -> str:
    note = f"{report['seeds']} episode{'s' * (report['seeds'] != 1)} per task and player"
    if report["trained_on"]:
        note += f"; the policy was trained on {', '.join(report['trained_on'])}"
    if "missing" in report:
        note += f"; NOT TO ITS END: {report['missing']} episodes are missing"
    if report["quick"]:
        note += "; QUICK: too few for a verdict on a task, run it without --quick"
    return note


def print_report(report: dict) -> None:
    """Groups x categories as in the paper's figure, then task by task."""
    print(f"\n{textwrap.fill(LEGEND, 150)}\n\n{quick_note(report)}\n")
    line = "{:18s}" + "{:>22s}" * len(COLUMNS) + "{:>12s}" * len(FLOORS)
    print(line.format("the policy", *COLUMNS, *FLOORS))
    for row, columns in report["cells"].items():
        name = row if row in GROUPS or row == "all" else f"  {row}"
        mine = [cell(columns.get(col, {}).get("policy")) for col in COLUMNS]
        print(line.format(name, *mine, *(brief(columns["all"].get(p)) for p in FLOORS)))
        if row in PUBLISHED:
            print(("{:18s}" + "{:15.1f}       " * 3).format("  paper", *PUBLISHED[row]))
    line = "{:18s}{:12s}{:>14s}{:>20s}" + "{:>12s}" * len(FLOORS)
    print("\n" + line.format("task", "category", "policy: %", "progress", *FLOORS))
    for t in report["tasks"]:
        mine = percent(t["policy"]), mean_progress(t["policy"])
        name = f"{t['game']} {t['task']}"
        print(line.format(name, t["category"], *mine, *(brief(t.get(p)) for p in FLOORS)))
    print_crashes(report["crashes"])


# ---- the page ------------------------------------------------------------------------------------


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em }
body { color: #222 } h1 { margin-bottom: 0 } h2 { margin-top: 2em } img { max-width: 100% }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .3em .6em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } small { color: #777; font-weight: 400 }
td.goal { text-align: left; white-space: normal; color: #666; font-size: 13px }
tr.group td { font-weight: 600; background: #f4f6f8 } tr.paper td { color: #888 }
.quick, .crash { background: #fff3cd; padding: .6em 1em }
"""


def report_page(report: dict, strips: list[Path]) -> str:
    """The report as one HTML file that loads nothing: pictures are embedded, texts escaped."""
    policy, settings = report["policy"], report["settings"]
    steps = settings["steps"] or "the model&#39;s own"
    by_task = ("task", "category", "completed, %", "progress", *FLOORS, "")
    parts = [
        f"<h1>{escape(policy['name'])} at the pad</h1>",
        f"<p><small>sha256 {policy['sha256'][:16]}; {settings['execute']} actions of each chunk "
        f"executed; {steps} denoising steps; seed {settings['seed']}</small></p>",
        f'<p class="{"quick" if report["quick"] else ""}">{escape(quick_note(report))}</p>',
        "<h2>By genre and category</h2>",
        html_table(("", *COLUMNS, *FLOORS), cell_rows(report)),
        f"<p><small>{escape(LEGEND)}</small></p>",
        embedded("png", plot_cells(report)),
        "<h2>Task by task</h2>",
        embedded("png", plot_tasks(report)),
        html_table(by_task, task_rows(report)),
    ]
    parts += crashes(report["crashes"])
    if strips:
        parts.append("<h2>Best and worst episodes</h2>")
    for f, strip in zip(report["films"], strips, strict=True):
        title = f"{f['what']}: {f['game']} {f['task']}, seed {f['seed']}"
        done = ", completed" if f["success"] else ""
        parts.append(
            f"<h3>{escape(title)} <small>progress {f['progress']:.2f}{done}; "
            f'<a href="{escape(f["film"])}">film</a></small></h3>'
            + embedded("jpeg", strip.read_bytes())
        )
    return html_page(parts)


def crashes(records: list[dict]) -> list[str]:
    """Those that crashed, as HTML."""
    parts = ["<h2>Crashes</h2>"] if records else []
    for r in records:
        job = escape(str(Job(**picked(r, *Job._fields))))
        parts.append(f'<p class="crash">{job}: {escape(r["crash"])}</p>')
    return parts


def html_page(parts: list[str]) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Play</title>'
        f"<style>{STYLE}</style></head><body>" + "\n".join(parts) + "</body></html>\n"
    )


def embedded(kind: str, picture: bytes) -> str:
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'


def html_table(head, rows) -> str:
    """rows: (class, cells); a cell is HTML, with or without its <td>."""
    lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
    for kind, cells in rows:
        whole = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr class="{kind}">{whole}</tr>')
    return "<table>" + "\n".join(lines) + "</table>"


def cell_rows(report: dict):
    """Groups, their genres and all, by category; the paper's figures below its groups."""
    for row, columns in report["cells"].items():
        own = row in GROUPS or row == "all"
        mine = [cell(columns.get(col, {}).get("policy")) for col in COLUMNS]
        floors = [brief(columns["all"].get(p)) for p in FLOORS]
        name = escape(row) if own else f"&emsp;{escape(row)}"
        yield "group" if own else "", [name, *map(small_progress, mine + floors)]
        if row in PUBLISHED:
            yield "paper", ["&emsp;paper", *(f"{v:.1f}" for v in PUBLISHED[row]), *[""] * 5]


def task_rows(report: dict):
    for t in report["tasks"]:
        yield (
            "",
            [
                f"{escape(t['game'])} {escape(t['task'])}",
                escape(t["category"]),
                percent(t["policy"]),
                mean_progress(t["policy"]),
                *(small_progress(brief(t.get(p))) for p in FLOORS),
                f'<td class="goal">{escape(t["goal"])} ({t["seconds"]:.0f} s)</td>',
            ],
        )


def small_progress(text: str) -> str:
    """A cell such as 45 [26, 66] (0.61), with what is in ( ) in small print."""
    return text.replace("(", "<small>(").replace(")", ")</small>")


def plot_cells(report: dict) -> bytes:
    """Bars as in the paper's figure: completed tasks by group and category with intervals; its own
    figures and the random pad's as marks.
    """
    from matplotlib.figure import Figure

    figure = Figure((9, 3.6))
    ax = figure.subplots()
    rows = [row for row in report["cells"] if row in GROUPS or row == "all"]
    colours = dict(zip(CATEGORIES, ("#d1495b", "#30638e", "#edae49"), strict=True))
    for j, (col, colour) in enumerate(colours.items()):
        for i, row in enumerate(rows):
            players = report["cells"][row].get(col, {})
            if "policy" in players:
                at = i + 0.26 * (j - 1)
                plot_bar(ax, at, players, colour, col)
                if row in PUBLISHED:
                    style = {"color": "none", "mec": "#333", "ms": 6}
                    ax.plot(at, PUBLISHED[row][j], "D", label="paper (other games)", **style)
    ax.set_xticks(range(len(rows)), rows)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylim(-2, 102)
    ax.set_ylabel("completed tasks, %")
    ax.grid(axis="y", alpha=0.3)
    marks, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, marks, strict=True))
    at = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.14)}
    ax.legend(once.values(), once.keys(), fontsize=8, ncols=5, frameon=False, **at)
    return png(figure)


def plot_bar(ax, at: float, players: dict, colour: str, label: str) -> None:
    share, low, high = (100 * v for v in players["policy"]["success"])
    ax.bar(at, share, 0.24, color=colour, label=label)
    ax.errorbar(at, share, [[share - low], [high - share]], color="#333", capsize=3, lw=1)
    if "random" in players:
        random = 100 * players["random"]["success"][0]
        ax.plot(at, random, "_", color="#333", ms=12, label="random pad")


MARKS = (  # of the plot of tasks
    ("random", "progress", "|", "#333", "random pad"),
    ("expert", "progress", "|", "#2a9d4a", "expert"),
    ("policy", "progress", "o", "#30638e", "policy, progress"),
    ("policy", "success", "x", "#d1495b", "policy, completed"),
)


def plot_tasks(report: dict) -> bytes:
    """Mean progress of each task with its interval; the random pad and the expert beside."""
    from matplotlib.figure import Figure

    tasks = report["tasks"][::-1]
    figure = Figure((9, 0.8 + 0.22 * len(tasks)))
    ax = figure.subplots()
    for y, t in enumerate(tasks):
        _, low, high = t["policy"]["progress"]
        ax.plot([low, high], [y, y], color="#30638e", lw=3, alpha=0.4)
        for player, measure, mark, colour, label in MARKS:
            if player in t:
                value = t[player][measure][0]
                ax.plot(value, y, mark, color=colour, ms=6, label=label if y == 0 else None)
    ax.set_yticks(range(len(tasks)), [f"{t['game']} {t['task']}" for t in tasks], fontsize=8)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.7, len(tasks) - 0.3)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return png(figure)


def png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()
