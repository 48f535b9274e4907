"""Delay as a dial: python eval.py play --delay 0,33,66,100,200

The game stands still while the policy computes, so the delay between a frame and the actions that
are planned from it is what it is set to, on any machine: common/plan.py, Delayed.
"""

from __future__ import annotations

import dataclasses
import json
from html import escape
from pathlib import Path

from common import artefact, playing

import eval as evaluation
from bench.report import embedded, html_page, html_table, mean_progress, percent, png, print_crashes
from eval import FPS, Play, summary


def play(c: Play) -> dict:
    """Play the built-in suite at each --delay; OUT/delay.html, delay.json, and the episodes of each
    in OUT/delay-MS.
    """
    delays = checked_delays(c)
    out = c.out or evaluation.built_in_suite(dataclasses.replace(c, delay="")).c.out
    suites = []
    for delay in delays:
        mine = dataclasses.replace(c, delay=delay, out=f"{out}/delay-{delay}")
        suites.append(evaluation.built_in_suite(mine)._replace(players=("policy",)))
    records = {}
    try:
        for suite in suites:
            suite.play(evaluation.built_in)
            records[suite.c.delay] = suite.records()
    except KeyboardInterrupt:
        if records:
            write_report(c, out, suites[: len(records)], records)
        raise
    return write_report(c, out, suites, records)


def checked_delays(c: Play) -> list[str]:
    """Those of --delay, each once, from the shortest to the longest."""
    try:
        found = {float(word): f"{float(word):g}" for word in c.delay.split(",")}
    except ValueError:
        found = {-1: ""}
    if not all(0 <= ms <= 10_000 for ms in found):
        raise SystemExit(f"--delay {c.delay}: expected ms, as in 0,33,66,100,200")
    return [found[ms] for ms in sorted(found)]


def write_report(c: Play, out: str, suites: list, records: dict) -> dict:
    """Print the table; write OUT/delay.json and OUT/delay.html."""
    first = suites[0]
    model = playing.about(c.policy, c.steps)["model"]
    rows = []
    for suite in suites:
        mine = records[suite.c.delay]
        frames = evaluation.late_frames(suite.c)
        by_task = {
            f"{name} {task}": summary([r for r in mine if (r["game"], r["task"]) == (name, task)])
            for name, task in suite.tasks
        }
        about = {"delay": float(suite.c.delay), "frames": frames, "ms": 1e3 * frames / FPS}
        rows.append({**about, **summary(mine), "tasks": by_task})
    report = {
        "format": "nitrogen.delay/1",
        "policy": artefact.source(c.policy),
        "prefix": model.get("prefix", 0),
        "settings": {k: v for k, v in first.settings.items() if k != "delay"},
        "seeds": len(first.seeds),
        "delays": rows,
        "crashes": [r for mine in records.values() for r in mine if r["crash"]],
    }
    print_table(report)
    artefact.write_bytes(Path(out) / "delay.json", json.dumps(report, indent=1).encode())
    artefact.write_bytes(Path(out) / "delay.html", page(report).encode())
    print(f"report -> {out}/delay.html, delay.json")
    return report


def note(report: dict) -> str:
    prefix = report["prefix"]
    how = f"given up to {prefix} actions that are under way" if prefix else "cross-fade over three"
    return (
        f"{report['policy']['name']}: {how}; {report['settings']['execute']} actions of each chunk "
        f"executed; {report['seeds']} episodes per task and delay; 95 % intervals"
    )


HEAD = ("delay, ms", "frames", "completed, %", "progress")


def cells(row: dict) -> tuple[str, ...]:
    return f"{row['ms']:.0f}", str(row["frames"]), percent(row), mean_progress(row)


def print_table(report: dict) -> None:
    names = list(report["delays"][0]["tasks"])
    print(f"\n{note(report)}\n")
    line = "{:>10s}{:>8s}{:>18s}{:>22s}" + "".join(f"{{:>{len(name) + 2}s}}" for name in names)
    print(line.format(*HEAD, *names))
    for row in report["delays"]:
        print(line.format(*cells(row), *(f"{t['progress'][0]:.2f}" for t in row["tasks"].values())))
    print_crashes(report["crashes"])


def page(report: dict) -> str:
    names = list(report["delays"][0]["tasks"])
    rows = [
        ("", [*cells(row), *(f"{t['progress'][0]:.2f}" for t in row["tasks"].values())])
        for row in report["delays"]
    ]
    parts = [
        f"<h1>{escape(report['policy']['name'])}: what delay costs</h1>",
        f"<p><small>{escape(note(report))}</small></p>",
        embedded("png", plot(report)),
        html_table((*HEAD, *names), rows),
    ]
    return html_page(parts)


def plot(report: dict) -> bytes:
    """Mean progress and share of completed tasks over the delay, with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure((7, 3.4))
    ax = figure.subplots()
    ms = [row["ms"] for row in report["delays"]]
    for measure, colour, label in (
        ("progress", "#30638e", "mean progress"),
        ("success", "#d1495b", "completed"),
    ):
        middle, low, high = zip(*(row[measure] for row in report["delays"]), strict=True)
        ax.plot(ms, middle, "o-", color=colour, label=label)
        ax.fill_between(ms, low, high, color=colour, alpha=0.15, lw=0)
    ax.set_xlabel("delay between a frame and its actions, ms")
    ax.set_ylim(-0.02, 1.02)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return png(figure)
