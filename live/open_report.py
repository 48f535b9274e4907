"""The report of a table of tasks in real games: what each episode looked like, and how close it
came.
"""

from __future__ import annotations

import contextlib
import io
import json
from html import escape
from pathlib import Path

from common import artefact
from common.pictures import VideoWriter, caption, tile

import cv2
import numpy as np

import eval as evaluation
from bench import films, report
from templates import library

FILM_RATE = 30  # frames a second of a film, at most
WIDTH = 320  # px, of a picture in a strip
BY_ITSELF = {"none": "the untouched pad", "random": "the random pad"}


class Watch(contextlib.ExitStack):
    """Of one episode: a film of the policy, and a strip of the first, the best and the last
    picture, with how close each look at the score came.
    """

    def __init__(self, job: evaluation.Job, c, fps: int, measure: str):
        super().__init__()
        self.job = job
        self.paths = films.film_paths(job, c)
        self.every = max(1, fps // FILM_RATE)
        self.fps = fps / self.every
        self.measure = measure  # what the looks say
        self.film = None
        self.frames = 0
        self.looks = []  # (s, closeness)
        self.first = self.best = self.last = None  # picture

    def __call__(self, env, info: dict, seconds: float, progress: float, close=None) -> None:
        """A frame of the episode; close: where the score was looked at, how close it came."""
        filmed = self.job.player == "policy" and self.frames % self.every == 0
        self.frames += 1
        if close is None and not filmed:
            return
        picture = env.render()
        if filmed:
            score = {"time": seconds, "progress": progress, "success": progress >= 1}
            self.write(picture, info.get("pad"), score)
        if close is None:
            return
        if all(close > other for _, other in self.looks):
            self.best = picture
        self.first = picture if self.first is None else self.first
        self.last = picture
        self.looks.append((seconds, close))

    def write(self, picture, pad, score: dict) -> None:
        if self.film is None:
            h, w = picture.shape[:2]
            self.size = w, h
            self.template = library.builtin("xbox360-dark")
            out = VideoWriter(self.paths[0], self.fps, w + films.PANEL, h)
            self.film = self.enter_context(out)
        if picture.shape[1::-1] != self.size:  # a game may change its size
            picture = cv2.resize(picture, self.size)
        panel = films.panel(pad or films.AT_REST, score, self.job, self.template, self.size[1])
        self.film.write(np.hstack([picture, panel]))

    def save_strip(self) -> None:
        if not self.looks:
            return
        start, end = (self.looks[k][0] for k in (0, -1))
        when, most = max(self.looks, key=lambda look: look[1])
        named = (
            (self.first, f"start, {start:.1f} s"),
            (self.best, f"best {self.measure}: {most:.2f}, {when:.1f} s"),
            (self.last, f"end, {end:.1f} s"),
        )
        height = round(WIDTH * self.first.shape[0] / self.first.shape[1])
        pictures = [caption(shrunk(picture, height), text) for picture, text in named]
        pictures.append(self.curve(height + 18))
        sheet = tile(pictures, 4)
        jpeg = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        artefact.write_bytes(self.paths[1], jpeg.tobytes())

    def curve(self, height: int) -> np.ndarray:
        """uint8 RGB [height, WIDTH, 3]: closeness over time."""
        from matplotlib.figure import Figure

        figure = Figure((WIDTH / 100, height / 100), dpi=100, layout="constrained")
        ax = figure.subplots()
        ax.plot(*zip(*self.looks, strict=True), color="#30638e", marker=".")
        ax.set_ylim(-0.05, 1.05)
        ax.set_xlabel("s", fontsize=8)
        ax.set_title(self.measure, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        drawn = cv2.imdecode(np.frombuffer(out.getvalue(), np.uint8), cv2.IMREAD_COLOR)
        return cv2.resize(drawn[..., ::-1], (WIDTH, height))


def shrunk(picture, height: int) -> np.ndarray:
    return cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)


# ---- the suite -----------------------------------------------------------------------------------


def write_report(suite: evaluation.Suite, records: list[dict], table: dict) -> dict:
    """Print the table and its warnings; OUT/open.json, OUT/report.html; returns, by task and
    player, the summaries.
    """
    out = {name: summaries(name, records) for _, name in suite.tasks}
    line = "{:16s}" + "{:>22s}" * len(suite.players)
    print("completed, %, and 95 % interval; in brackets mean progress, 0..1")
    print(line.format("task", *suite.players))
    for name, row in out.items():
        cells = [report.cell(row.get(p)) for p in suite.players]
        print(line.format(name, *cells) + f"   {table[name]['goal']}")
    report.print_crashes(records)
    warned = warnings(out)
    print("".join(f"warning: {text}\n" for text in warned), end="")
    folder = Path(suite.c.out)
    shown = kept_films(records, suite.c)
    page = report_page(suite, table, out, warned, records, shown)
    artefact.write_bytes(folder / "open.json", json.dumps(out, indent=1).encode())
    artefact.write_bytes(folder / "report.html", page.encode())
    print(f"report -> {folder}/report.html, open.json; films -> {folder}/films")
    return out


def summaries(name: str, records: list[dict]) -> dict:
    """Player -> summary of its episodes of this task."""
    episodes = {}
    for r in records:
        if r["task"] == name:
            episodes.setdefault(r["player"], []).append(r)
    return {player: evaluation.summary(mine) for player, mine in episodes.items()}


def warnings(out: dict) -> list[str]:
    """Tasks that complete themselves."""
    found = []
    for name, row in out.items():
        for player, who in BY_ITSELF.items():
            done = row[player]["success"][0] if player in row else 0.0
            if done > 0:
                n = row[player]["episodes"]
                found.append(
                    f"{name}: {who} completes it in {round(done * n)} of {n} episodes: the task "
                    "is too easy, or its score (the picture) says done too soon"
                )
    return found


def kept_films(records: list[dict], c) -> list[tuple[str, dict]]:
    """(title, record) of the policy's best and worst episode of each task, and of the first of the
    other players; the policy's other films are removed.
    """
    ranked = films.best_and_worst(records, lambda r: r["task"])
    shown = [(f["what"], f["record"]) for f in ranked]
    for r in records:
        job = job_of(r)
        if r["player"] == "policy" and all(r is not kept for _, kept in shown):
            films.film_paths(job, c)[0].unlink(missing_ok=True)
        if r["player"] != "policy" and all(job[:3] != job_of(kept)[:3] for _, kept in shown):
            shown.append((f"{r['player']} at {r['task']}", r))
    return shown


def job_of(record: dict) -> evaluation.Job:
    return evaluation.Job(**films.picked(record, *evaluation.Job._fields))


def report_page(suite, table: dict, out: dict, warned: list, records: list, shown: list) -> str:
    """One HTML file that loads nothing but, asked for, the films beside it."""
    rows = []
    for name, row in out.items():
        cells = [report.small_progress(report.cell(row.get(p))) for p in suite.players]
        goal = f'<td class="goal">{escape(table[name]["goal"])}</td>'
        rows.append(("", [escape(name), *cells, goal]))
    parts = [f"<h1>{escape(Path(suite.c.policy).name)} in {escape(suite.c.suite)}</h1>"]
    parts += [f'<p class="quick">{escape(text)}</p>' for text in warned]
    parts.append(report.html_table(("task", *suite.players, ""), rows))
    parts += report.crashes([r for r in records if r["crash"]])
    parts.append("<h2>Episodes</h2>")
    for title, r in shown:
        film, strip = films.film_paths(job_of(r), suite.c)
        link = f'; <a href="films/{escape(film.name)}">film</a>' if film.exists() else ""
        about = f"seed {r['seed']}, progress {r['progress']:.2f}, {r['seconds']:.1f} s"
        parts.append(f"<h3>{escape(title)} <small>{about}{link}</small></h3>")
        if strip.exists():
            parts.append(report.embedded("jpeg", strip.read_bytes()))
    return report.html_page(parts)
