"""eval.py: demonstrations, closed-loop play, and the extraction benchmark (paper sections 2.1 and 3).

    python eval.py record --out data/videos --minutes 10        scripted experts play the built-in games into mp4 files
    python eval.py overlay [--adapt MINUTES]                    fresh recordings: how well are their overlays read?
    python eval.py overlay data/videos --labels data/labels     the same on recordings that are already parsed
    python eval.py overlay --stage locate [--share 0.1]         where is the overlay, and which?  240 videos, 200 without
    python eval.py play --policy FILE --seeds 20                the suite: ten games, thirty tasks (--games, --tasks, --quick)
    python eval.py play --policy FILE [--realtime] -- COMMAND ARG...     your own game: it waits for the policy, or it does not
    python eval.py play --policy FILE --suite open              free Linux games, or a table of yours (assets/open.json is one)
    python eval.py serve --policy FILE                          the policy for a game on another machine, which asks by
    python eval.py play --remote HOST:PORT --token FILE -- COMMAND ARG...
    python eval.py transfer --held-out ridge                    does pretraining on the nine other games help?  a curve over hours of data
    python eval.py ablate --data data/tiny                      the published commands with one flag changed at a time
    python eval.py speed                                        every stage on this machine, beside the paper-scale job
    python eval.py tasks                                        the built-in games and their tasks

overlay --stage locate   writes what each rule said about each video as OUT/locate/*.json and resumes from them; OUT/locate.json, and
        the misses to look at as OUT/locate-misses.png.  With the package `av` the videos are H.264, and made ten times faster.
record  writes OUT/<game>-<n>.mp4, and beside each <game>-<n>.truth.safetensors with the true actions (nitrogen.actions/1,
        unit "normalized").  Truth is for scoring only: the pipe reads the overlay.
play    OUT/report.html (tables, plots, film strips), report.json (the same numbers), films/*.mp4 of the best and worst episodes,
        episodes/*.json: one per episode, so that the same command goes on where it was stopped, and more seeds play only the new ones.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import hmac
import importlib.util
import io
import itertools
import json
import math
import os
import re
import secrets
import shutil
import socket
import struct
import sys
import tempfile
import textwrap
import threading
import time
import typing
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, Many, command_line, expect, recipe_of, run_stage, shipped
from common.device import pick_device
from common.pictures import (
    VideoWriter,
    caption,
    expand,
    read_video,
    sample,
    tile,
    video_facts,
    write_png,
)
from common.training import machine
from common.workers import for_each

import numpy as np

import sim
from bench import flops, training
from templates import decoys, library, matching, pads, presets, render, xfeat

FPS = 30                                             # games are recorded and played at the policy's rate
FIRST_GAMES = "ridge,crypt,rally"                    # the three of `train.py --config tiny`
WIDTH, HEIGHT = 960, 540                             # of the recordings
LAPSES = 3                                           # CHOICE: seconds from one to the next, on average, with record --astray


# ---- the games ---------------------------------------------------------------------------------------------------

def game_names() -> list[str]:
    return sorted(p.stem for p in (ROOT / "games").glob("*.py") if p.stem != "console")


def named_games(games: str) -> list[str]:
    """What --games names; SystemExit if there is no such game."""
    names = game_names() if games == "all" else games.split(",")
    for name in names:
        game(name)
    return names


@functools.lru_cache
def game(name: str):
    """The module of a built-in game: TASKS, Game, Expert."""
    if name not in game_names():
        raise SystemExit(f"no built-in game '{name}' (there are {', '.join(game_names())})")
    folder = str(ROOT / "games")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def launch(name: str, task: str, seed: int, **options) -> sim.GameEnv:
    """The game as an ordinary process under the clock hook, one frame per step."""
    command = [sys.executable, str(ROOT / "games" / f"{name}.py"), "--task", task, "--seed", "{seed}", "--fps", str(FPS)]
    return sim.GameEnv(command, fps=FPS, seed=seed, **options)


class RatedWriter(VideoWriter):
    """mp4 file of so many bits per pixel: H.264 where the package `av` is installed, else OpenCV's VP9 (ten times slower).

    OpenCV has no flag for the rate, but asks for 2^30 bits a second at most: the more frames a second the file declares, the fewer
    bits for each; `faithful` refuses that.
    """

    def __init__(self, path, size, rate: float, faithful: bool = True):
        try:
            import av
        except ImportError:
            if faithful:
                raise SystemExit("--rate needs an H.264 encoder: pip install av") from None
            self.av = None
            return super().__init__(path, min(65535, round(2**30 / (rate * size[0] * size[1]))), *size, "VP90")
        self.begin(path)
        self.av, self.file = av, av.open(str(self.part), "w")
        self.stream = self.file.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "g": str(FPS * SECONDS), "threads": "1"})
        (self.stream.width, self.stream.height), self.stream.pix_fmt = size, "yuv420p"
        self.stream.bit_rate = int(rate * size[0] * size[1] * FPS)

    def write(self, rgb) -> None:
        if not self.av:
            return super().write(rgb)
        self.file.mux(self.stream.encode(self.av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        self.frames += 1

    def end(self) -> None:
        if not self.av:
            return super().end()
        self.file.mux(self.stream.encode())
        self.file.close()


# ---- record --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Record(Many):
    out: str = "data/videos"            # folder
    minutes: float = 10.0               # of play in all
    seconds: float = 20.0               # per video
    games: str = FIRST_GAMES            # built-in games, in turn; or all
    overlays: str = ""                  # families of built-in overlays, as in ps4,ps5, or a folder of skins; none: those with both sticks
    player: str = "expert"              # who plays: expert; or mixed: in every other video chance does, on all buttons
    astray: float = 0.0                 # share of episodes in which chance takes the pad now and then, unfilmed: the expert shows the way back
    learner: str = ""                   # policy that takes it in every other of these lapses, for longer: the way back from its own mistakes
    smallest: float = 0.24              # width of the overlay, of the frame's: from
    largest: float = 0.34               # to
    faintest: float = 0.7               # opacity: from; to 1
    rate: float = 0.0                   # bits per pixel, as H.264 (pip install av); 0: MPEG-4 as OpenCV writes it
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


def choice_of(overlays: str):
    """What --overlays names: (templates by name, each drawn when asked for; groups of their names: videos take the groups in turn, and any of theirs)."""
    if overlays and Path(overlays).is_dir():
        skins = presets.read_skins(overlays)
        return skins, [[n] for n in sorted(skins)]
    pool = library.templates()
    if not overlays:            # the pipe's own recordings: looks that the parser was trained on, and these games need sticks
        return pool, [[n for n in sorted(pool) if not pads.held_out(n) and pads.two_sticks(n)]]
    if unknown := set(overlays.split(",")) - set(pads.FAMILIES):
        raise SystemExit(f"--overlays {overlays}: no folder, and no family such as {', '.join(sorted(unknown))}; there are {', '.join(pads.FAMILIES)}")
    return pool, [[n for n in sorted(pool) if n.partition("-")[0] == f] for f in overlays.split(",")]


def record(c: Record) -> None:
    expect(c, minutes=(0, math.inf), seconds=(0.1, 1e6), smallest=(0.02, 1), largest=(c.smallest, 1), faintest=(0.01, 1), rate=(0, 100))
    n = max(1, round(60 * c.minutes / c.seconds))
    names = named_games(c.games)
    c = dataclasses.replace(c, games=",".join(names))
    if c.player not in ("expert", "mixed"):
        raise SystemExit(f"--player {c.player}: there is expert and mixed")
    if not 0 <= c.astray <= 1:
        raise SystemExit(f"--astray {c.astray:g}: a share of the episodes, 0 to 1")
    if c.learner:
        artefact.read(c.learner, "nitrogen.policy/1")                    # one clear line now, not one per video
        if not c.astray:
            raise SystemExit("--learner plays in the lapses of --astray: give both")
    choice_of(c.overlays)
    jobs = [f"{names[i % len(names)]}-{i:03d}" for i in range(n)]
    frames = for_each(functools.partial(record_video, c=c), jobs, c.workers, ray=c.ray)
    print(f"{n} videos, {sum(frames):,} frames at {FPS}/s of {WIDTH} x {HEIGHT} -> {c.out}")


def record_video(stem: str, c: Record) -> int:
    """Episodes of one game, back to back, task after task; the pad of each row is in force while its frame is drawn."""
    import cv2

    video, truth = Path(c.out) / f"{stem}.mp4", Path(c.out) / f"{stem}.truth.safetensors"
    recipe = {**recipe_of(c, *([c.learner] if c.learner else [])), "stem": stem}
    recipe.pop("minutes")                                       # more videos do not change this one
    for flag in ("astray", "learner"):
        if not recipe[flag]:
            recipe.pop(flag)                                    # as before there was this flag
    length = round(c.seconds * FPS)
    if artefact.finished(truth, "nitrogen.actions/1", recipe, c.fresh) and video.exists():
        return length
    (name, number), names = stem.rsplit("-", 1), c.games.split(",")
    rng = np.random.default_rng([c.seed, int(number), zlib.crc32(name.encode())])
    pool, groups = choice_of(c.overlays)
    fit = groups[int(number) // len(names) % len(groups)]
    template, chance = pool[fit[rng.integers(len(fit))]], c.player == "mixed" and rng.random() < 0.5
    width, opacity = rng.uniform(c.smallest, c.largest) * WIDTH, rng.uniform(c.faintest, 1.0)
    scale = width / template.size[0]
    w, h = round(width), round(scale * template.size[1])
    x, y = (int(rng.integers(8, 25)) if rng.random() < 0.5 else limit - int(rng.integers(8, 25)) - size for limit, size in ((WIDTH, w), (HEIGHT, h)))
    tasks = list(game(name).TASKS)
    first = int(rng.integers(len(tasks)))
    buttons, sticks, episodes = np.zeros((length, 16), np.uint8), np.zeros((length, 4), np.float32), []
    frames = hashlib.blake2b(digest_size=16)                    # of the game's own pixels, before anything is drawn in
    row = 0
    with RatedWriter(video, (WIDTH, HEIGHT), c.rate) if c.rate else VideoWriter(video, FPS, WIDTH, HEIGHT) as out:
        while row < length:
            task, seed = tasks[(first + len(episodes)) % len(tasks)], int(rng.integers(1 << 31))
            episodes.append({"row": row, "task": task, "seed": seed})
            expert = sim.StickyRandom(seed) if chance else Expert(name, seed)
            pad = np.zeros(16, np.uint8), np.zeros(4, np.float32)
            others, lapse, disturbed = [(sim.StickyRandom(seed + 1), 1)], 0, c.astray > 0 and rng.random() < c.astray      # who, for s at most
            if disturbed and c.learner:                         # as DAgger (arXiv 1011.0686) visits what the learner visits
                others.append((Policy(c.learner, "cpu", Play.execute, Play.steps, seed), 4))
            with launch(name, task, seed) as env:
                frame, info = env.reset(seed=seed)
                for _ in range(round(game(name).TASKS[task].seconds * FPS) + FPS):
                    if not lapse:
                        frames.update(shown := env.render())
                        picture = cv2.resize(shown, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
                        render.composite(picture, render.draw(template, *pad, scale=scale), x, y, opacity)
                        out.write(picture)
                        buttons[row], sticks[row] = pad
                        row += 1
                    if row == length or info["score"]["over"]:
                        break
                    pad = expert(None, info)
                    if chance:                                  # both ways at once: a d-pad shows neither
                        pad[0][:4] *= ~(pad[0][:4] & pad[0][[1, 0, 3, 2]]).astype(bool)
                    lapse = max(0, lapse - 1)
                    if disturbed and not lapse and rng.random() < 1 / (LAPSES * FPS):
                        other, longest = others[rng.integers(len(others))]
                        lapse = int(rng.integers(FPS // 5, longest * FPS + 1))
                    pressed = other(frame, info) if lapse else pad
                    frame, _, _, _, info = env.step({"buttons": pressed[0], "sticks": pressed[1]})
                episodes[-1] |= {"success": bool(info["score"]["success"]), "progress": info["score"]["progress"]}
    artefact.write(truth, {"buttons": buttons.astype(np.float16), "sticks": sticks, "shown": np.ones(20, bool),
                      "confidence": np.ones(length, np.float16), "time": np.arange(length) / FPS}, "nitrogen.actions/1",
              unit="normalized", fps=FPS, game=name, recipe=recipe, template=template.name, family=template.family,
              opacity=float(opacity), box=[x, y, w, h], episodes=episodes, frames=frames.hexdigest())
    return length


# ---- overlay: extraction against truth ---------------------------------------------------------------------------------

@dataclass(frozen=True)
class Overlay(Many):
    videos: tuple[str, ...] = ()        # recordings, folders of them, patterns in quotes, or @list.txt; none: record fresh ones
    labels: str = "data/overlay/labels" # what extract.py and parse.py wrote
    minutes: float = 6.0                # of fresh recordings, for each of the two tables
    out: str = "data/overlay"           # folder of the fresh recordings
    weights: str = "weights/parse.safetensors"  # the parser
    adapt: float = 0.0                  # then train it so many minutes on the skins, and measure again
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs
    stage: str = "all"                  # all; or locate: only where the overlay is and which, on a fixed grid of videos
    templates: str = "assets/skins"     # folder of skins: the second table; with --stage locate every other video shows one of them
    rules: str = "locate,single,plain"  # what looks at the videos
    nothing: int = 200                  # clips without an overlay
    share: float = 1.0                  # of the grid and of those clips, spread evenly
    repeats: int = 1                    # of the grid, with other templates and places
    keep: bool = False                  # the videos too


def overlay(c: Overlay) -> dict:
    if c.stage not in ("all", "locate"):
        raise SystemExit(f"--stage {c.stage}: there is all and locate")
    c = dataclasses.replace(c, templates=shipped(c.templates))
    if c.stage == "locate":
        return locate(c)
    tables, fresh = {}, ("--fresh",) * c.fresh
    if c.videos:
        tables["given"] = extraction_table(c.videos, c.labels, c)
    else:
        another = ("--rate", "0.08") if importlib.util.find_spec("av") else ()      # H.264 where it can be written
        for name, overlays, how in (("families", ",".join(PAPER), ()), ("skins", c.templates, another)):
            videos, labels, own = f"{c.out}/{name}", f"{c.out}/{name}-labels", ("--templates", c.templates) if name == "skins" else ()
            run_stage("eval.py", "record", "--out", videos, "--minutes", str(c.minutes), "--overlays", overlays, "--player", "mixed",
                          "--smallest", "0.2", "--largest", "0.45", "--faintest", "0.5", "--seed", str(c.seed + 1000), *how, *c.flags)
            run_stage("extract.py", videos, "--out", labels, *own, *c.flags)
            run_stage("parse.py", videos, "--out", labels, "--weights", c.weights, "--device", c.device, *fresh)
            tables[name] = extraction_table(expand([videos]), labels, c)
        if c.adapt:
            adapted, theirs = f"{c.out}/adapted.safetensors", f"{c.out}/adapted-labels"
            run_stage("parse.py", "train", "--templates", c.templates, "--init", c.weights, "--minutes", str(c.adapt), "--out", adapted,
                          "--seed", str(c.seed), *fresh)
            shutil.copytree(labels, theirs, ignore=shutil.ignore_patterns("*.actions.*", "*.preview.*"), dirs_exist_ok=True)
            run_stage("parse.py", videos, "--out", theirs, "--weights", adapted, "--device", c.device, *fresh)
            tables["adapted"] = extraction_table(expand([videos]), theirs, c)
    artefact.write_bytes(f"{c.out}/overlay.json", json.dumps(tables, indent=1).encode())
    return tables


PAPER = {"xbox360": (0.98, 0.91), "xboxone": (0.98, 0.92), "xboxseries": (0.97, 0.79), "ps3": (0.97, 0.85), "ps4": (0.91, 0.84), "ps5": (0.93, 0.77)}
# the paper's button accuracy and stick R2, on its own recordings of six games
COLUMNS = ("accuracy", "silence", "recall", "f1", "press_f1", "r2")


def extraction_table(videos, labels, c: Overlay) -> dict:
    """Score every recording, print the table by family, and what stands out; the matched filter is the floor."""
    lost = [v for v in videos if not (Path(labels) / f"{Path(v).stem}.actions.safetensors").exists()]
    if lost:
        print(f"no actions for {len(lost)} of {len(videos)} videos (overlay not found, or not parsed yet): {', '.join(Path(v).name for v in lost)}")
    found = [v for v in videos if v not in lost]
    if not found:
        raise SystemExit(f"{labels}: no actions of these videos there; make them: python extract.py and python parse.py with --out {labels}")
    for_each(functools.partial(write_matched, labels=labels, c=c), found, c.workers, "matched filter", c.ray)
    rows = [(score_video(v, labels), score_video(v, f"{labels}/matched")) for v in found]
    print(f"\n{'family':20s} {'videos':>6s} " + " ".join(f"{k:>9s}" for k in COLUMNS) + "   paper: accuracy, r2   matched filter: accuracy, press_f1, r2")
    groups = {f: [r for r in rows if r[0]["family"] == f] for f in sorted({r["family"] for r, _ in rows})}
    groups |= {"looks held out": [r for r in rows if r[0]["template"] in pads.TEMPLATES and pads.held_out(r[0]["template"])], "all": rows}
    table = {}
    for name, mine in groups.items():
        if mine:
            table[name] = {"videos": len(mine), **{k: nanmean([r[k] for r, _ in mine]) for k in COLUMNS},
                           "matched": {k: nanmean([m[k] for _, m in mine]) for k in COLUMNS}}
            theirs, floor = PAPER.get(name), table[name]["matched"]
            print(f"{name:20s} {len(mine):6d} " + " ".join(f"{table[name][k]:9.3f}" for k in COLUMNS) + f"{'%14.2f, %.2f' % theirs if theirs else '':22s}"
                  + f"{floor['accuracy']:18.3f}, {floor['press_f1']:.3f}, {floor['r2']:.3f}")
    drawn = nanmean([score_video(v, labels, "radius")["r2"] for v in found])
    per = {b: nanmean([r["per_button"][b] for r, _ in rows]) for b in artefact.BUTTONS}
    print(f"r2 where the template's own radius counts as full deflection (filter.py --scale radius): {drawn:.3f}")
    print("recall: " + ", ".join(f"{b} {v:.3f}" for b, v in per.items() if v == v))
    print("accuracy: of shown buttons over frames; silence: the same for a parser that sees nothing; press_f1: onsets within +-1 frame;\n"
          "r2: of the stick axes that move.  Means over videos.  The paper's are the same figures on other recordings.")
    worst = sorted(rows, key=lambda r: (r[0]["press_f1"] if r[0]["press_f1"] == r[0]["press_f1"] else 1) + r[0]["r2"])[:4]
    print("weakest: " + ", ".join(f"{r['name']} ({r['template']}, press F1 {r['press_f1']:.2f}, R2 {r['r2']:.2f})" for r, _ in worst), flush=True)
    return {**table, "r2 by radius": drawn, "recall": per, "lost": lost, "rows": [{k: v for k, v in r.items() if k != "per_button"} for r, _ in rows]}


def nanmean(values) -> float:
    values = [v for v in values if v == v]
    return float(np.mean(values)) if values else float("nan")


def write_matched(video: str, labels: str, c: Overlay) -> None:
    """The matched filter's reading of a video as LABELS/matched/<stem>.actions.safetensors."""
    path, source = Path(labels) / "matched" / f"{Path(video).stem}.actions.safetensors", Path(labels) / f"{Path(video).stem}.overlay.safetensors"
    recipe = {"source": [artefact.source(video), artefact.source(source)]}
    if not artefact.finished(path, "nitrogen.actions/1", recipe, c.fresh):
        overlay, info = artefact.read(source, "nitrogen.overlay/1")
        actions = matched_filter(video, overlay, render.stored(overlay, info))
        artefact.write(path, actions, "nitrogen.actions/1", unit="grid", cells_per_radius=matching.UNIT, **{k: info[k] for k in ("template", "family")}, recipe=recipe)


def matched_filter(video: str, overlay: dict, template) -> dict:
    """The tensors of nitrogen.actions/1 without any learning, the floor of every table: what parse.py's matched filters say by themselves."""
    import parse
    times, maps, marks = [], [], []
    for seconds, _, _, found, stands, _ in parse.compared(video, overlay, template):
        times.append(seconds)
        maps.append(found)
        marks.append(stands)
    buttons, sticks = matching.read_alone(np.stack(maps), np.stack(marks))
    return {"buttons": buttons.astype(np.float16), "sticks": sticks, "shown": matching.geometry(render.layout(template))[2],
            "confidence": np.ones(len(times), np.float16), "time": np.array(times)}


def score_video(video: str, labels: str, scale: str = "percentile") -> dict:
    """Metrics of one recording: final actions (as filter.py --scale makes them) against the recorded truth."""
    import filter
    stem = Path(video).stem
    buttons, sticks, tensors, info = filter.final_actions(Path(labels) / f"{stem}.actions.safetensors", scale)
    truth, about = artefact.read(Path(video).with_suffix(".truth.safetensors"), "nitrogen.actions/1")
    if len(truth["buttons"]) != len(buttons):
        raise SystemExit(f"{video}: {len(buttons)} parsed rows, {len(truth['buttons'])} recorded; parse it again with --fresh")
    out = metrics(buttons, sticks, truth["buttons"] > 0.5, truth["sticks"], tensors["shown"])
    return {**out, "name": stem, "family": about["family"], "template": about["template"], "opacity": about["opacity"], "width": about["box"][2]}


def metrics(buttons, sticks, true_buttons, true_sticks, shown) -> dict:
    """All [T, 16] and [T, 4]; only what `shown` [20] allows is scored.  nan: nothing to score (no press, no movement)."""
    shown_buttons = np.flatnonzero(shown[:16])
    p, t = buttons.astype(bool)[:, shown_buttons], true_buttons.astype(bool)[:, shown_buttons]
    hit, used = (p & t).sum(0), t.sum(0) > 0
    recall = hit / np.maximum(t.sum(0), 1)
    f1 = 2 * hit / np.maximum(p.sum(0) + t.sum(0), 1)
    axes = [a for a in range(4) if shown[16 + a] and true_sticks[:, a].std() > 0.02]
    r2 = [1 - ((sticks[:, a] - true_sticks[:, a]) ** 2).mean() / true_sticks[:, a].var() for a in axes]
    return {"accuracy": (p == t).mean() if p.size else np.nan, "silence": (~t).mean() if t.size else np.nan,
            "recall": recall[used].mean() if used.any() else np.nan, "f1": f1[used].mean() if used.any() else np.nan,
            "press_f1": press_f1(p, t), "r2": float(np.mean(r2)) if r2 else np.nan,
            "per_button": {b: float(recall[list(shown_buttons).index(i)]) if i in shown_buttons[used] else np.nan for i, b in enumerate(artefact.BUTTONS)}}


def press_f1(p, t, slack: int = 1) -> float:
    """F1 of press onsets over all buttons; each true onset is matched by at most one within +-slack frames."""
    matched = onsets = claims = 0
    for b in range(p.shape[1]):
        mine, true = (list(np.flatnonzero(np.diff(np.r_[False, x[:, b]].astype(int)) == 1)) for x in (p, t))
        onsets, claims = onsets + len(true), claims + len(mine)
        for k in true:
            near = [m for m in mine if abs(m - k) <= slack]
            if near:
                mine.remove(min(near, key=lambda m: abs(m - k)))
                matched += 1
    return 2 * matched / (onsets + claims) if onsets + claims else float("nan")


# ---- overlay --stage locate: which overlay is where?  A fixed grid of videos, and clips without an overlay -----------------

SIZE, SECONDS = decoys.SIZE, 10                      # of the grid's videos, at FPS
WIDTHS, OPACITIES = (0.15, 0.25, 0.35, 0.45), (0.5, 0.7, 0.85, 1.0)      # width: of the frame's
RATES = (0.1, 0.04, 0.015)                           # bits per pixel: 2.8, 1.1 and 0.4 Mbit/s
BACKGROUNDS = ("supertux", "freedoom", "games", "hud", "novel")          # two captures, the built-in games, two that are painted here
RULES = ("locate", "single", "plain")                # extract.py's; single frames, SIFT and XFeat; the paper's, SIFT alone
SHORTLIST, SPARSE = 12, 40                           # CHOICE: templates that single and plain look at closely, and points by which they are chosen
GRAY = 110                                           # behind the templates of single and plain
SPARE = 7                                            # one in so many clips without an overlay is shown to single and plain, for time
SWEEP = (0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)                     # other values of extract.SURE; below, scores are rough (extract.HOPE)
BARS = {"recall": 0.95, "misses": 0.5, "family": 0.99}                   # misses: of the plain rule's, in every cell


class Case(typing.NamedTuple):
    name: str
    width: float        # 0: no overlay
    opacity: float
    rate: float
    background: str
    own: bool           # a skin of the folder --templates, not a built-in one


def grid(repeats: int = 1) -> list[Case]:
    """Every width x opacity x rate x background once per repeat.  Any first part of the list is spread evenly over all of them."""
    cells = [(i, (i + d) % len(OPACITIES)) for d in range(len(OPACITIES)) for i in range(len(WIDTHS))]
    plans = [(n, WIDTHS[i], OPACITIES[j], RATES[(n + i + j) % 3], BACKGROUNDS[(n + i + 2 * j) % 5], (n + i + j) % 2 == 1)
             for n in range(len(RATES) * len(BACKGROUNDS) * repeats) for i, j in cells]
    return [Case(f"{n:02d}-{width}-{opacity}-{rate}-{background}", width, opacity, rate, background, own)
            for n, width, opacity, rate, background, own in plans]


def nothing(count: int) -> list[Case]:
    return [Case(f"nothing-{n:03d}", 0.0, 0.0, RATES[n % 3], BACKGROUNDS[n % 5], False) for n in range(count)]


def scene(background: str, rng, numbers):
    """The frames `numbers` (rising) of ten seconds of a background, uint8 RGB; each seed gives others, captures are mirrored and lit."""
    import cv2
    mirrored, light, start = rng.random() < 0.5, rng.uniform(0.75, 1.15), int(rng.integers(1 << 30))
    if background in ("hud", "novel"):
        yield from map({"hud": decoys.hud, "novel": decoys.novel}[background](rng), numbers)
    elif background == "games":
        name = str(rng.choice(FIRST_GAMES.split(",")))
        world, expert = game(name).Game(str(rng.choice(list(game(name).TASKS))), start), game(name).Expert(start)
        for t in range(max(numbers) + 1):
            world.step(game(name).console.Pad(*expert(world.score())), 1 / FPS)
            if t in numbers:
                yield cv2.resize(world.draw(), SIZE, interpolation=cv2.INTER_LINEAR)
    else:
        for _, _, frame in read_video(ROOT / "assets/backgrounds" / f"{background}.mp4", numbers):
            yield cv2.convertScaleAbs(np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame, alpha=light)


def hands(rng, frames: int):
    """What somebody does at a pad: buttons bool [frames, 16], each held for 0.1 to 0.6 s now and then; sticks [frames, 4] that go
    from place to place, half of the time to their centre."""
    buttons = np.zeros((frames, 16), bool)
    for b in range(16):
        for start in rng.integers(0, frames, rng.poisson(frames / FPS * rng.uniform(0, 0.7))):
            buttons[start:start + rng.integers(3, 18), b] = True
    knots = np.arange(0, frames + 20, 12)
    places = rng.uniform(-1, 1, (len(knots), 4)) * np.repeat(rng.random((len(knots), 2)) < 0.5, 2, 1)
    return buttons, np.stack([np.interp(np.arange(frames), knots, p) for p in places.T], 1)


def make_case(case: Case, path: Path, pool, seed: int) -> dict:
    """Write the case's video; returns the truth: template, family, box (x, y, w, h in px), and the bits per pixel that came out."""
    import extract
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    (W, H), truth = SIZE, {"template": None, "family": None, "box": None}
    numbers = range(FPS * SECONDS) if case.width else np.linspace(0, FPS * SECONDS - 1, extract.FRAMES).round().astype(int).tolist()
    if case.width:
        names = [n for n in pool if (n not in pads.TEMPLATES if case.own else pads.held_out(n))]
        template = pool[str(rng.choice(names))]
        scale = min(case.width * W / template.size[0], 0.9 * H / template.size[1])
        w, h = (round(scale * v) for v in template.size)
        x, y = (int(rng.choice([rng.integers(8, 40), limit - size - rng.integers(8, 40), rng.integers(8, limit - size - 8)], p=[0.35, 0.35, 0.3]))
                for limit, size in ((W, w), (H, h)))
        truth, states = {"template": template.name, "family": template.family, "box": [x, y, w, h]}, zip(*hands(rng, len(numbers)))
    else:
        kinds = [list(decoys.DECOYS)[k] for k in rng.permutation(len(decoys.DECOYS))[:rng.integers(2, 6)]]
        sizes = [[int(v * rng.uniform(0.75, 1.25)) for v in decoys.DECOYS[d]] for d in kinds]
        shown = [(d, int(rng.integers(W - w)), int(rng.integers(H - h)), w, h, int(rng.integers(1 << 30))) for d, (w, h) in zip(kinds, sizes)]
    with RatedWriter(path, SIZE, case.rate, faithful=False) as out:
        for t, picture in zip(numbers, scene(case.background, rng, numbers)):
            if case.width:
                render.composite(picture, render.draw(template, *next(states), scale=scale), x, y, case.opacity)
            else:
                for place in shown:
                    decoys.show(picture, *place, t)
            out.write(picture)
    return truth | {"rate": path.stat().st_size * 8 / (len(numbers) * W * H)}


# The rules that extract.py is compared with.  A detector: function(RGB) -> points [n, 2] px, unit descriptors [n, d]; then the matcher,
# function(a template's descriptors, a frame's) -> for each of the first the number of its match, or -1.

def sift(rgb):
    import extract
    points, descriptors = extract.features(rgb)
    return points[:, :2], descriptors


def lowe(a, b, ratio=0.8):
    """The nearest, where the second nearest is not about as near."""
    if len(b) < 2 or not len(a):
        return np.full(len(a), -1)
    like, rows = a @ b.T, np.arange(len(a))                                # cosine; distance^2 = 2 - 2 cosine
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
    """Points, descriptors and owner (number in the pool) of all templates, and SPARSE of each template's rows, drawn by lot."""
    parts = [detect(render.idle(t, GRAY)) for t in library.pool(folder).values()]
    owner, rng = np.concatenate([np.full(len(p), i) for i, (p, _) in enumerate(parts)]), np.random.default_rng(0)
    sparse = np.concatenate([np.flatnonzero(owner == i)[rng.permutation(len(p))[:SPARSE]] for i, (p, _) in enumerate(parts)])
    return np.concatenate([p for p, _ in parts]), np.concatenate([d for _, d in parts]), owner, sparse


def single_frames(seen, pairs, folder: str, also, bar: int) -> dict:
    """The paper's rule: match each template with each frame, fit an affine by RANSAC, accept it from `bar` inliers.

    Of all that pass in all frames the one with most inliers is taken (the paper leaves this open).  seen: per detector, per frame what it
    found.  For time the frames are compared with the SHORTLIST templates that match three of them best, and with `also`, the name of the
    right one: the choice can only help.
    """
    import cv2

    pool, best = library.pool(folder), (0,)
    names, counts = list(pool), 0
    for (detect, _), frames in zip(pairs, seen):
        points, descriptors, owner, sparse = bank(detect, folder)
        for _, d in frames[::max(1, len(frames) // 2)]:
            counts = counts + np.bincount(owner[sparse][lowe(descriptors[sparse], d) >= 0], minlength=len(names))
    for i in {*np.argsort(-counts, kind="stable")[:SHORTLIST].tolist(), *([names.index(also)] if also else [])}:
        mine = [(p[o == i], d[o == i], match) for (detect, match) in pairs for p, d, o, _ in [bank(detect, folder)]]
        for found in zip(*seen):
            near = [match(d, there) for (_, d, match), (_, there) in zip(mine, found)]
            source = np.concatenate([p[n >= 0] for (p, _, _), n in zip(mine, near)])
            target = np.concatenate([p[n[n >= 0]] for (p, _), n in zip(found, near)])
            affine, good = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0) if len(source) >= bar else (None, None)
            inliers = 0 if affine is None else len(np.unique(target[good.ravel() > 0].round(), axis=0))
            if inliers >= bar and inliers > best[0]:
                best = inliers, names[i], affine
    if not best[0]:
        return {"template": None}
    w, h = pool[best[1]].size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ best[2].T
    low, high = corners.min(0), corners.max(0)
    return {"template": best[1], "family": pool[best[1]].family, "box": [*low.tolist(), *(high - low).tolist()], "inliers": best[0]}


def iou(a, b) -> float:
    """Of two boxes x, y, w, h."""
    w, h = (max(0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def try_case(case: Case, c: Overlay) -> dict:
    """Make the video of a case, let the rules look at it, write what they said as OUT/locate/NAME.json; what is there is kept."""
    import extract
    path, recipe = Path(c.out) / "locate" / f"{case.name}.json", {"seed": c.seed, "templates": Path(c.templates).name}
    kept = json.loads(path.read_text()) if path.exists() and not c.fresh else {"recipe": recipe, "rules": {}}
    if kept["recipe"] != recipe:
        raise SystemExit(f"{path}: made with {kept['recipe']}, not {recipe}; give another --out, or --fresh to replace it")
    rules, pairs = kept["rules"], detectors()
    wanted = [r for r in c.rules.split(",") if r not in rules and (r == "locate" or r in pairs and (case.width or int(case.name[-3:]) % SPARE == 0))]
    if not wanted:
        return kept
    video, start = path.with_suffix(".mp4"), time.process_time()
    kept |= {"case": case._asdict(), "truth": make_case(case, video, library.pool(c.templates), c.seed)}
    kept["seconds"] = round(time.process_time() - start, 2)
    frames, seen = sample(video, extract.FRAMES)[0], {}
    for rule in sorted(wanted, key=("plain", "single", "locate").index):
        start = time.process_time()
        if rule == "locate":
            tensors, info, _ = extract.locate(str(video), library.pool(c.templates), extract.Config())
            said = {"template": info.get("template"), "family": info.get("family"), "why": info.get("reason", ""), "score": info["score"]}
            said |= {"box": tensors["bbox"][0].tolist()} if info["found"] else {"nearest": info.get("nearest")}
        else:
            for detect, _ in pairs[rule]:
                seen[detect] = seen.get(detect) or [detect(f) for f in frames]
            said = single_frames([seen[d] for d, _ in pairs[rule]], pairs[rule], c.templates, kept["truth"]["template"], extract.MIN_INLIERS)
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
    return not said["template"] or said.get("iou", 0) <= 0.8 if result["truth"]["box"] else bool(said["template"])


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
    """{rule: {"recall": .., "template": .., "family": .., "false": .., "clips": .., "seconds": ..}, "cells": {(column, value): {rule: [misses, n]}}}.

    template, family: share of the videos with an overlay in which a rule took some template and that was the right one, or one of the right
    family; false: clips without an overlay where it took one."""
    rules = [r for r in RULES if any(r in x["rules"] for x in results)]
    table, cells = {}, {}
    for rule in rules:
        mine = [x for x in results if rule in x["rules"]]
        there, bare = ([x for x in mine if bool(x["truth"]["box"]) == b] for b in (True, False))
        took = [x for x in there if x["rules"][rule]["template"]]
        share = lambda key: float(np.mean([x["rules"][rule][key] == x["truth"][key] for x in took])) if took else float("nan")
        table[rule] = {"videos": len(there), "recall": float(np.mean([not missed(x, rule) for x in there])) if there else float("nan"),
                       "template": share("template"), "family": share("family"), "false": sum(missed(x, rule) for x in bare), "clips": len(bare),
                       "seconds": float(np.mean([x["rules"][rule]["seconds"] for x in there])) if there else float("nan")}
        for x in there:
            case = x["case"]
            for key in (("width, opacity", (case["width"], case["opacity"])), ("bits per pixel", case["rate"]), ("background", case["background"]),
                        ("templates", "skins" if case["own"] else "built in"), ("hard", (case["width"], case["opacity"], case["rate"]))):
                cell = cells.setdefault(key, {}).setdefault(rule, [0, 0])
                cell[0], cell[1] = cell[0] + missed(x, rule), cell[1] + 1
    return {"rules": table, "cells": cells}


def by_bar(results: list) -> list[tuple[float, float, int]]:
    """(bar, recall at IoU > 0.8, false accepts) if extract.py's own bar, SURE, were another one and all else the same."""
    mine = [(bool(x["truth"]["box"]), x["rules"]["locate"]) for x in results if "locate" in x["rules"]]
    there, bare = [said for box, said in mine if box], [said for box, said in mine if not box]
    return [(bar, float(np.mean([said["score"] >= bar and said.get("iou", 0) > 0.8 for said in there])) if there else float("nan"),
             sum(said["score"] >= bar for said in bare)) for bar in SWEEP]


def locate_bars(table: dict) -> list[tuple[str, bool]]:
    """(what was asked for and measured, met) of each bar."""
    mine, bars = table["rules"]["locate"], []
    bars.append((f"recall {mine['recall']:.3f} (bar {BARS['recall']})", mine["recall"] >= BARS["recall"]))
    bars.append((f"right family {mine['family']:.3f} (bar {BARS['family']})", mine["family"] >= BARS["family"]))
    bars.append((f"{mine['false']} false accepts in {mine['clips']} clips (bar 0)", mine["clips"] > 0 and mine["false"] == 0))
    if "plain" in table["rules"]:
        cells = {k[1]: v for k, v in table["cells"].items() if k[0] == "width, opacity"}
        worse = [k for k, v in cells.items() if v["locate"][0] > BARS["misses"] * v["plain"][0]]
        bars.append((f"at most half of the plain rule's misses in {len(cells) - len(worse)} of {len(cells)} cells of width and opacity", not worse))
    return bars


def print_table(table: dict) -> None:
    rules, cells = list(table["rules"]), table["cells"]
    rate = lambda cell: "/".join(f"{1 - cell[r][0] / cell[r][1]:.2f}" if r in cell else "-" for r in rules)
    print(f"\n{'rule':9s}" + "".join(f"{k:>10s}" for k in next(iter(table["rules"].values()))))
    for rule, row in table["rules"].items():
        print(f"{rule:9s}" + "".join(f"{v:10.3f}" if isinstance(v, float) else f"{v:10d}" for v in row.values()))
    print(f"\nrecall at IoU > 0.8: {'/'.join(rules)}\n{'width':>9s}" + "".join(f"{f'opacity {o}':>17s}" for o in OPACITIES))
    for w in WIDTHS:
        print(f"{w:9}" + "".join(f"{rate(cells.get(('width, opacity', (w, o)), {})):>17s}" for o in OPACITIES))
    for column in ("bits per pixel", "background", "templates"):
        print(f"{column}: " + ", ".join(f"{k[1]} {rate(v)}" for k, v in sorted(cells.items(), key=str) if k[0] == column))
    hard = sorted(((v["locate"][0], k[1], v["locate"][1]) for k, v in cells.items() if k[0] == "hard" and v.get("locate", [0])[0]), reverse=True)
    print("hardest (width, opacity, bits per pixel): " + ("; ".join(f"{k[0]}, {k[1]}, {k[2]}: {m} of {n} missed" for m, k, n in hard[:8]) or "none"))


def locate(c: Overlay) -> dict:
    """The benchmark of localization: all cases, the tables, the bars; LOCATE.json and a sheet of the misses beside the cases' folder."""
    import extract
    if set(c.rules.split(",")) - set(RULES) or not 0 < c.share <= 1:
        raise SystemExit(f"--rules are some of {','.join(RULES)}, and --share is above 0 and at most 1")
    own = [n for n in library.pool(c.templates) if n not in pads.TEMPLATES]
    cases = grid(c.repeats)
    cases = cases[:max(1, round(c.share * len(cases)))] + nothing(round(c.share * c.nothing))
    print(f"{len(cases)} videos of {SIZE[0]} x {SIZE[1]}; {len(library.pool(c.templates))} templates to choose from; shown: "
          f"{sum(map(pads.held_out, pads.TEMPLATES))} built-in ones, held out, and {len(own)} skins of {c.templates} -> {c.out}/locate")
    results = [r for r in for_each(functools.partial(try_case, c=c), cases, c.workers, ray=c.ray) if r["rules"]]
    table = locate_table(results)
    print_table(table)
    if "locate" in table["rules"]:
        table["sweep"] = by_bar(results)
        print(f"bar {'':>18s}" + "".join(f"{bar:>8g}" for bar, *_ in table["sweep"]) + f"     ({extract.SURE} is used)")
        print("recall / false accepts" + "".join(f"{recall:>5.2f}/{false:<2d}" for _, recall, false in table["sweep"]))
    print(f"seconds: of one core, a video; making one took {np.mean([x['seconds'] for x in results if x['truth']['box']]):.1f}.  "
          f"single looks again at what plain saw{'' if 'single' in table['rules'] else '; it needs XFeat'}.")
    bars = locate_bars(table) if "locate" in table["rules"] else []
    for text, met in bars:
        print(f"{'met' if met else 'MISSED':8s}{text}{'' if c.share == 1 else f', on {c.share:.0%} of the cases'}")
    pictures = [p for x in results for p in [Path(c.out) / "locate" / f"{x['case']['name']}.png"] if p.exists() and missed(x, "locate")]
    if pictures:
        import cv2
        write_png(f"{c.out}/locate-misses.png", tile([cv2.imread(str(p))[..., ::-1] for p in pictures[:60]], 4))
        print(f"{len(pictures)} misses to look at -> {c.out}/locate-misses.png")
    out = {**table, "cells": [{"by": k[0], "cell": k[1], **v} for k, v in table["cells"].items()], "bars": bars}
    artefact.write_bytes(f"{c.out}/locate.json", json.dumps(out, indent=1).encode())
    return table


# ---- players --------------------------------------------------------------------------------------------------------

class Policy:
    """The network at the pad: looks, plans a chunk, plays its first `execute` actions, looks again."""

    def __init__(self, path: str, device: str, execute: int, steps: int, seed: int):
        import torch
        self.net, self.execute, self.steps, self.plan = network(path, device), execute, steps or None, []
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, frame, info):
        import torch
        if not self.plan:
            c = self.net.c
            noise = torch.randn(1, c.horizon, len(c.actions), generator=self.rng)
            act = self.net.act(frame[None], noise, self.steps)
            self.plan = list(zip(act["buttons"][0].astype(np.uint8), act["sticks"][0]))[::stride(c.rate)][:self.execute]
        return self.plan.pop(0)


@functools.lru_cache(maxsize=2)
def network(path: str, device: str):
    import torch

    import model
    if "OMP_NUM_THREADS" in os.environ:                      # one of several workers
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return model.load(path, device)


class Expert:
    """The scripted player of a built-in game; it reads the score block."""

    def __init__(self, name: str, seed: int):
        self.play = game(name).Expert(seed)

    def __call__(self, frame, info):
        return self.play(info["score"])


class Held:
    """The left stick pushed one way and the right trigger held, for ever; (0, 0) without the trigger is no input at all."""

    def __init__(self, x: float = 0.0, y: float = 0.0):
        self.buttons, self.sticks = np.zeros(16, np.uint8), np.array([x, y, 0, 0], np.float32)
        self.buttons[artefact.BUTTONS.index("RIGHT_TRIGGER")] = bool(x or y)

    def __call__(self, frame, info):
        return self.buttons, self.sticks


PLAYERS = ("policy", "random", "held", "none", "expert")
WAYS = ((1, 0), (0, -1), (-1, 0), (0, 1))               # held: another one with each seed


# ---- play: the suite ----------------------------------------------------------------------------------------------------

CATEGORIES = ("combat", "navigation", "specific")
GROUPS = {"3D": ("open world", "action RPG", "sports"), "2D top-down": ("roguelike",), "2D side-scroller": ("2D side-scroller",)}   # and their genres
PUBLISHED = {"3D": (61.2, 55.0, 56.3), "2D top-down": (46.0, 52.0, 61.5), "2D side-scroller": (44.8, 37.9, 54.0)}
# % of the paper's own tasks, by category: other games, judged by people (read off its figure)
QUICK = 36                                              # episodes of each player with --quick


@dataclass(frozen=True)
class Play(Many):
    policy: str = "weights/policy.safetensors"  # what train.py made
    games: str = "all"                  # built-in games, as in ridge,duel; or all
    tasks: str = "all"                  # of theirs: names or categories, as in reach,combat
    seeds: int = 20                     # episodes per task and player
    quick: bool = False                 # at most 36 episodes of each player (with --suite 4 a task), spread over the tasks: six minutes on two cores with `small`
    execute: int = 8                    # actions played of each chunk before the policy looks again
    steps: int = 0                      # denoising steps (0: as the model says)
    out: str = ""                       # folder of the report (default: one in data/play for this policy and these settings)
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


class Job(typing.NamedTuple):
    """One episode."""
    player: str
    game: str
    task: str
    seed: int

    def __str__(self):
        return f"{self.game}-{self.task}-{self.player}-{self.seed}"


def play(c: Play) -> dict | None:
    if not Path(c.policy).exists():
        raise SystemExit(f"{c.policy}: no such policy; train one, python train.py --config tiny, and give --policy runs/tiny/model.safetensors")
    timing = artefact.read(c.policy, "nitrogen.policy/1")[1]["model"]            # one clear line now, not one per worker
    there = len(range(0, timing["horizon"], stride(timing["rate"])))
    if not 1 <= c.execute <= there:
        raise SystemExit(f"--execute {c.execute}: this policy's chunks hold {there} actions at {FPS} a second; give 1 to {there}")
    return play_suite(c)


def stride(rate: float) -> int:
    """Actions of a chunk per frame of play: the released network acts 60 times a second."""
    return max(1, round(rate / FPS))


def play_suite(c: Play) -> dict:
    """All episodes that are not there yet, then films and the report."""
    suite = chosen(c.games, c.tasks)
    seeds = max(1, QUICK // len(suite)) if c.quick else c.seeds
    if seeds < 1:
        raise SystemExit(f"--seeds {seeds}: expected 1 or more")
    settings = {"policy": artefact.source(c.policy)["sha256"], "execute": c.execute, "steps": c.steps, "seed": c.seed, "games": games_digest()}
    c = with_folder(c, settings)
    jobs = [Job(p, n, t, 10_000 * (c.seed + 1) + s) for s in range(seeds) for n, t in suite for p in PLAYERS]
    left = [j for j in jobs if not kept(j, c, settings)]
    print(f"{len(suite)} tasks, {seeds} episodes of each by {', '.join(PLAYERS)}: {len(jobs)} episodes, {len(jobs) - len(left)} are there -> {c.out}", flush=True)
    began = time.time()
    if left:
        for_each(functools.partial(episode, c=c, settings=settings), left, c.workers, "episodes", c.ray)
        mine = sum(j.player == "policy" for j in left)
        print(f"{len(left)} episodes, {mine} of them by the policy, in {(time.time() - began) / 60:.1f} minutes: "
              f"{60 * mine / (time.time() - began):.0f} of the policy's a minute")
    records = [kept(j, c, settings, crashed=True) for j in jobs]
    films = film_suite(records, c)
    return write_report(c, settings, suite, seeds, records, films)


def with_folder(c: Play, settings: dict) -> Play:
    """--out, or a folder in data/play for this policy and these settings."""
    name = f"{Path(c.policy).resolve().parent.name}-{Path(c.policy).stem}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"
    return c if c.out else dataclasses.replace(c, out=f"data/play/{name}")


def chosen(games: str, tasks: str) -> list[tuple[str, str]]:
    """(game, task) of what --games and --tasks name."""
    suite = [(n, t) for n in by_genre(named_games(games)) for t in game(n).TASKS]
    words = {pair: {"all", pair[1], game(pair[0]).TASKS[pair[1]].category} for pair in suite}
    if unknown := set(tasks.split(",")) - set().union(*words.values()):
        raise SystemExit(f"--tasks {tasks}: {games} has no task or category '{min(unknown)}' (python eval.py tasks)")
    return [pair for pair in suite if words[pair] & set(tasks.split(","))]


def games_digest() -> str:
    """Of the code of all games: with another, episodes are others."""
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted((ROOT / "games").glob("*.py")))).hexdigest()


def kept(job: Job, c: Play, settings: dict, crashed: bool = False) -> dict | None:
    """The record of an episode that has been played; one that crashed is played again."""
    path = Path(c.out) / "episodes" / f"{job}.json"
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if other := [k for k, v in settings.items() if record["settings"].get(k) != v]:
        if c.fresh:
            return None
        raise SystemExit(f"{path}: played with another {', '.join(other)}; give another --out, or --fresh to replace it")
    return record if crashed or not (record["crash"] or c.fresh) else None


def built_in(job: Job, c: Play) -> dict:
    return through(job, c) if job.player == "policy" else within(job)


def episode(job: Job, c: Play, settings: dict, play=built_in) -> dict:
    """Play it, and keep what came of it in OUT/episodes.  A game that crashes is a failure, and does not stop the rest."""
    score, crash = {"progress": 0.0, "success": False, "time": 0.0}, ""
    try:
        score = play(job, c)
    except sim.GameError as e:
        crash = str(e)
    record = {**job._asdict(), "progress": float(score["progress"]), "success": bool(score["success"]), "seconds": score["time"], "crash": crash,
              "settings": settings}
    artefact.write_bytes(Path(c.out) / "episodes" / f"{job}.json", json.dumps(record).encode())
    return record


def through(job: Job, c: Play, show=None) -> dict:
    """The last score of an episode of the policy, through GameEnv; show(picture, pad, score) sees every frame."""
    import torch
    agent = Policy(c.policy, c.device, c.execute, c.steps, job.seed)
    torch.set_num_threads(1)                                    # the worker's one CPU; and the same sums, however many workers
    with launch(job.game, job.task, job.seed) as env:
        frame, info = env.reset(seed=job.seed)
        while not info["score"]["over"]:
            pad = agent(frame, info)
            frame, _, ended, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
            if ended:
                raise sim.GameError(how_it_ended(env, info))
            if show:
                show(env.render(), pad, info["score"])
        return info["score"]


def how_it_ended(env, info) -> str:
    return (f"the game ended with status {env.clock.returncode} after {info['time']:.1f} s: "
            f"{sim.last_line(env.stage.path / 'stderr', 'it said nothing on stderr')}")


def within(job: Job, show=None) -> dict:
    """The last score of a player that does not look at the picture: the same world in this process, frame by frame, but not drawn.

    Twenty times as fast as through GameEnv, where it moves alike (tests/test_eval.py).
    """
    agent = {"expert": lambda: Expert(job.game, job.seed), "random": lambda: sim.StickyRandom(job.seed), "none": Held,
             "held": lambda: Held(*WAYS[job.seed % 4])}[job.player]()
    world, pad = game(job.game).Game(job.task, job.seed), Held()(None, None)                # nobody touches the pad in frame 0
    for i in itertools.count():
        world.step(game(job.game).console.Pad(*pad), round((i + 1) / FPS, 6) - round(i / FPS, 6))
        score = world.score()
        if show:
            show(score)
        if score["over"]:
            return score
        pad = agent(None, {"score": score})


def interval(values, draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval."""
    values = np.asarray(values, float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """Share of successes and its 95 % Wilson score interval (E. B. Wilson, 1927), which holds for few episodes and near 0 and 1."""
    share, middle, spread = successes / n, successes / n + z * z / (2 * n), z * (successes * (n - successes) / n**3 + z * z / (4 * n * n)) ** 0.5
    return share, max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


# ---- play: films ----------------------------------------------------------------------------------------------------------

def film_suite(records: list[dict], c: Play) -> list[dict]:
    """Films of the policy's best and worst episode of each game (--quick: of each group of games); crashed ones cannot be shown."""
    sets = {}
    for r in records:
        if r["player"] == "policy" and not r["crash"]:
            sets.setdefault(group_of(r["game"]) if c.quick else r["game"], []).append(r)
    ranked = {name: sorted(rs, key=lambda r: (r["success"], r["progress"], -r["seconds"])) for name, rs in sets.items()}
    films = [{"what": f"{what} of {name}", "record": r} for name, rs in ranked.items() for what, r in (("best", rs[-1]), ("worst", rs[0]))]
    jobs = [Job(*(f["record"][k] for k in Job._fields)) for f in films]
    left = [j for j in dict.fromkeys(jobs) if c.fresh or not all(p.exists() for p in film_paths(j, c))]
    again = dict(zip(left, for_each(functools.partial(film, c=c), left, c.workers, "films", c.ray))) if left else {}
    for f, j in zip(films, jobs):
        f["film"], f["strip"] = film_paths(j, c)
        if j in again and again[j] != f["record"]["progress"]:
            print(f"{j}: played again for the film it came out differently ({f['record']['progress']:.3f}, then {again[j]:.3f}): "
                  "with this network and device the same numbers do not come out twice")
    return films


def game_size(name: str) -> tuple[int, int]:
    picture = game(name).Game(next(iter(game(name).TASKS)), 0).draw()
    return picture.shape[1], picture.shape[0]


def film_paths(job: Job, c: Play) -> tuple[Path, Path]:
    return Path(c.out) / "films" / f"{job}.mp4", Path(c.out) / "films" / f"{job}.jpg"


def film(job: Job, c: Play) -> float:
    """Play an episode once more, with the pad drawn beside the picture: a video, and a strip of eight frames of it.  Returns the progress."""
    import cv2

    video, strip = film_paths(job, c)
    templates, seen = library.templates(pads.CORE), []
    template = templates[next(k for k in sorted(templates) if templates[k].family.startswith("xbox"))]
    w, h = game_size(job.game)
    with VideoWriter(video, FPS, w + PANEL, h) as out:
        def show(picture, pad, score):
            frame = np.hstack([picture, panel(pad, score, job, template, h)])
            out.write(frame)
            if score["over"] or round(score["time"] * FPS) % (FPS // 3) == 1:
                seen.append(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        score = through(job, c, show)
    sheet = tile([seen[i] for i in np.linspace(0, len(seen) - 1, 8).astype(int)], 4)
    artefact.write_bytes(strip, cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    return float(score["progress"])


PANEL = 200                                             # px beside the picture


def panel(pad, score: dict, job: Job, template, height: int) -> np.ndarray:
    """uint8 [height, PANEL, 3]: the pad as the policy holds it, and how far it has got."""
    import cv2

    out = np.full((height, PANEL, 3), 24, np.uint8)
    buttons, sticks = pad
    render.composite(out, render.draw(template, buttons, sticks, scale=(PANEL - 12) / template.size[0]), 6, 12)
    held = " ".join(n.replace("SHOULDER", "SH").replace("TRIGGER", "TR") for n, on in zip(artefact.BUTTONS, buttons) if on).lower().split()
    lines = [f"{job.game}: {job.task}", f"seed {job.seed}", f"{score['time']:.1f} s", f"progress {score['progress']:.2f}" + (" done" if score["success"] else ""),
             *(" ".join(held[i:i + 2]) for i in range(0, min(6, len(held)), 2))]
    for i, text in enumerate(lines):
        cv2.putText(out, text, (8, 165 + 15 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (225, 225, 225) if i < 4 else (120, 220, 150), 1, cv2.LINE_AA)
    cv2.rectangle(out, (8, height - 8), (PANEL - 8, height - 4), (70, 70, 70), -1)
    cv2.rectangle(out, (8, height - 8), (8 + round((PANEL - 16) * score["progress"]), height - 4), (120, 220, 150), -1)
    return out


# ---- play: the report ------------------------------------------------------------------------------------------------------

@functools.cache
def genre(name: str) -> str:
    return game(name).Game.genre


def group_of(name: str) -> str:
    return next(group for group, genres in GROUPS.items() if genre(name) in genres)


def by_genre(names) -> list[str]:
    """In the order of GROUPS, then of the alphabet."""
    order = [g for genres in GROUPS.values() for g in genres]
    return sorted(names, key=lambda n: (order.index(genre(n)), n))


def summary(records: list[dict]) -> dict:
    """Completed (share and Wilson interval) and progress (mean and bootstrap interval) of some episodes."""
    return {"episodes": len(records), "success": wilson(sum(r["success"] for r in records), len(records)), "progress": interval([r["progress"] for r in records])}


def tables(suite, records: list[dict]) -> dict:
    """Summaries by task, and by row (groups of games, their genres, all) and column (categories, all) of the paper's figure; by player."""
    def by_player(wanted) -> dict:
        return {p: summary(mine) for p in PLAYERS if (mine := [r for r in records if r["player"] == p and wanted(r)])}

    category = {pair: game(pair[0]).TASKS[pair[1]].category for pair in suite}
    rows = {}
    for group, genres in GROUPS.items():
        rows[group] = lambda r, group=group: group_of(r["game"]) == group
        rows |= {g: lambda r, g=g: genre(r["game"]) == g for g in genres if len(genres) > 1}
    rows["all"] = lambda r: True
    cells = {row: {col: cell for col in (*CATEGORIES, "all") if (cell := by_player(lambda r: inside(r) and col in (category[r["game"], r["task"]], "all")))}
             for row, inside in rows.items()}
    tasks = [{"game": n, "task": t, "genre": genre(n), "category": category[n, t], "goal": game(n).TASKS[t].goal, "seconds": game(n).TASKS[t].seconds,
              **by_player(lambda r: (r["game"], r["task"]) == (n, t))} for n, t in suite]
    return {"cells": {row: cols for row, cols in cells.items() if cols}, "tasks": tasks}


def percent(s: dict) -> str:
    """A summary's successes, as in 45 [26, 66]."""
    return "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * v for v in s["success"]))


def cell(s: dict | None) -> str:
    """The same and the mean progress, as in 45 [26, 66] (0.61)."""
    return f"{percent(s)} ({s['progress'][0]:.2f})" if s else "-"


def write_report(c: Play, settings: dict, suite, seeds: int, records: list[dict], films: list[dict]) -> dict:
    """Print the tables; OUT/report.json, OUT/report.html."""
    seen = sorted(artefact.read(c.policy, "nitrogen.policy/1")[1].get("games") or ())
    report = {"format": "nitrogen.play/1", "policy": artefact.source(c.policy), "trained_on": seen, "settings": settings, "quick": c.quick, "seeds": seeds, **tables(suite, records),
              "crashes": [{k: r[k] for k in (*Job._fields, "crash")} for r in records if r["crash"]],
              "films": [{"what": f["what"], "film": f"films/{f['film'].name}", **{k: f["record"][k] for k in ("game", "task", "seed", "progress", "success")}}
                        for f in films],
              "episodes": [{k: r[k] for k in (*Job._fields, "progress", "success", "seconds")} for r in records]}
    print_report(report)
    artefact.write_bytes(Path(c.out) / "report.json", json.dumps(report, indent=1).encode())
    artefact.write_bytes(Path(c.out) / "report.html", report_page(report, [f["strip"] for f in films]).encode())
    print(f"report -> {c.out}/report.html, report.json; films -> {c.out}/films")
    return report


LEGEND = ("Completed tasks in %, with the 95 % Wilson interval over episodes; in brackets ( ) the mean progress, 0..1; its intervals are bootstrapped.  "
          "Beside, over all categories: random: every button and axis drawn anew and held for 0.1-1 s; held: the left stick one way and the right trigger, for "
          "ever; none: no input; expert: the game's scripted player, which reads the score block.  paper: its own 30 tasks on commercial games, judged by people.")


def print_report(report: dict) -> None:
    """Groups x categories as in the paper's figure, then task by task."""
    floors = ("random", "held", "none", "expert")
    brief = lambda s: f"{100 * s['success'][0]:.0f} ({s['progress'][0]:.2f})" if s else "-"
    print(f"\n{textwrap.fill(LEGEND, 150)}\n\n{quick_note(report)}\n\n{'the policy':18s}" + "".join(f"{col:>22s}" for col in (*CATEGORIES, "all")) + "".join(f"{p:>12s}" for p in floors))
    for row, cols in report["cells"].items():
        print(f"{row if row in GROUPS or row == 'all' else '  ' + row:18s}" + "".join(f"{cell(cols.get(col, {}).get('policy')):>22s}" for col in (*CATEGORIES, "all"))
              + "".join(f"{brief(cols['all'].get(p)):>12s}" for p in floors))
        if row in PUBLISHED:
            print(f"{'  paper':18s}" + "".join(f"{v:15.1f}       " for v in PUBLISHED[row]))
    print(f"\n{'task':18s}{'category':12s}{'policy: %':>14s}{'progress':>20s}" + "".join(f"{p:>12s}" for p in floors))
    for t in report["tasks"]:
        mine = t["policy"]
        print(f"{t['game'] + ' ' + t['task']:18s}{t['category']:12s}{percent(mine):>14s}{'{:.2f} [{:.2f}, {:.2f}]'.format(*mine['progress']):>20s}"
              + "".join(f"{brief(t[p]):>12s}" for p in floors))
    print_crashes(report["crashes"])


def print_crashes(records: list[dict]) -> None:
    for r in records:
        if r["crash"]:
            print(f"crashed, counted as a failure: {r['game']} {r['task']}, seed {r['seed']}, {r['player']}: {r['crash']}")


def quick_note(report: dict) -> str:
    seen = f"; the policy was trained on {', '.join(report['trained_on'])}" if report["trained_on"] else ""
    return f"{report['seeds']} episodes per task and player{seen}" + ("; QUICK: too few for a verdict on a task, run it without --quick" if report["quick"] else "")


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
        lines += [f'<tr class="{kind}">' + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells) + "</tr>" for kind, cells in rows]
        return "<table>" + "\n".join(lines) + "</table>"

    full = lambda s: f"{percent(s)} <small>({s['progress'][0]:.2f})</small>" if s else "-"
    brief = lambda s: f"{100 * s['success'][0]:.0f} <small>({s['progress'][0]:.2f})</small>" if s else "-"
    cells, tasks = [], []
    for row, cols in report["cells"].items():
        own = row in GROUPS or row == "all"
        cells.append(("group" if own else "", [escape(row) if own else f"&emsp;{escape(row)}", *(full(cols.get(col, {}).get("policy")) for col in (*CATEGORIES, "all")),
                                               *(brief(cols["all"].get(p)) for p in floors)]))
        if row in PUBLISHED:
            cells.append(("paper", ["&emsp;paper", *(f"{v:.1f}" for v in PUBLISHED[row]), *[""] * 5]))
    for t in report["tasks"]:
        mine = t["policy"]
        tasks.append(("", [f"{escape(t['game'])} {escape(t['task'])}", escape(t["category"]), percent(mine), "{:.2f} [{:.2f}, {:.2f}]".format(*mine["progress"]),
                           *(brief(t[p]) for p in floors), f'<td class="goal">{escape(t["goal"])} ({t["seconds"]:.0f} s)</td>']))
    settings = report["settings"]
    parts = [f"<h1>{escape(report['policy']['name'])} at the pad</h1>",
             f"<p><small>sha256 {report['policy']['sha256'][:16]}; {settings['execute']} actions of each chunk executed; "
             f"{settings['steps'] or 'the model&#39;s own'} denoising steps; seed {settings['seed']}</small></p>",
             f'<p class="{"quick" if report["quick"] else ""}">{escape(quick_note(report))}</p>',
             "<h2>By genre and category</h2>", table(("", *CATEGORIES, "all", *floors), cells), f"<p><small>{escape(LEGEND)}</small></p>",
             picture("png", plot_cells(report)), "<h2>Task by task</h2>", picture("png", plot_tasks(report)),
             table(("task", "category", "completed, %", "progress", *floors, ""), tasks)]
    if report["crashes"]:
        parts += ["<h2>Crashes</h2>", *(f'<p class="crash">{escape(str(Job(*(r[k] for k in Job._fields))))}: {escape(r["crash"])}</p>' for r in report["crashes"])]
    parts += ["<h2>Best and worst episodes</h2>", *(
        f"<h3>{escape(f['what'])}: {escape(f['game'])} {escape(f['task'])}, seed {f['seed']} <small>progress {f['progress']:.2f}{', completed' if f['success'] else ''}; "
        f'<a href="{escape(f["film"])}">film</a></small></h3>{picture("jpeg", strip.read_bytes())}' for f, strip in zip(report["films"], strips))]
    return f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Play</title><style>{STYLE}</style></head><body>' + "\n".join(parts) + "</body></html>\n"


def png(figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()


def plot_cells(report: dict) -> bytes:
    """Bars as in the paper's figure: completed tasks by group and category with intervals; its own figures and the random pad's as marks."""
    from matplotlib.figure import Figure
    figure = Figure((9, 3.6))
    ax = figure.subplots()
    rows = [row for row in report["cells"] if row in GROUPS or row == "all"]
    for j, (col, colour) in enumerate(zip(CATEGORIES, ("#d1495b", "#30638e", "#edae49"))):
        for i, row in enumerate(rows):
            if cell := report["cells"][row].get(col):
                share, low, high = (100 * v for v in cell["policy"]["success"])
                at = i + 0.26 * (j - 1)
                ax.bar(at, share, 0.24, color=colour, label=col)
                ax.errorbar(at, share, [[share - low], [high - share]], color="#333", capsize=3, lw=1)
                ax.plot(at, 100 * cell["random"]["success"][0], "_", color="#333", ms=12, label="random pad")
                if row in PUBLISHED:
                    ax.plot(at, PUBLISHED[row][j], "D", color="none", mec="#333", ms=6, label="paper (other games)")
    ax.set_xticks(range(len(rows)), rows), ax.set_xlim(-0.6, len(rows) - 0.4), ax.set_ylim(-2, 102)
    ax.set_ylabel("completed tasks, %"), ax.grid(axis="y", alpha=0.3)
    once = {label: mark for mark, label in zip(*ax.get_legend_handles_labels())}
    ax.legend(once.values(), once.keys(), fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.14), frameon=False)
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
        for value, mark, colour, label in ((t["random"]["progress"][0], "|", "#333", "random pad"), (t["expert"]["progress"][0], "|", "#2a9d4a", "expert"),
                                           (mean, "o", "#30638e", "policy, progress"), (t["policy"]["success"][0], "x", "#d1495b", "policy, completed")):
            ax.plot(value, y, mark, color=colour, ms=6, label=label if y == 0 else None)
    ax.set_yticks(range(len(tasks)), [f"{t['game']} {t['task']}" for t in tasks], fontsize=8)
    ax.set_xlim(-0.02, 1.02), ax.set_ylim(-0.7, len(tasks) - 0.3), ax.grid(alpha=0.3)
    ax.legend(fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return png(figure)


# ---- ablate: what each part is worth --------------------------------------------------------------------------------------

ABLATIONS = {                       # name -> (flags of filter.py, flags of train.py, weights, flags of eval.py play)
    "as published": ("", "", "model", ""),
    "null chunks kept": ("--min-active 0", "", "model", ""),
    "overlay not masked": ("--no-mask", "", "model", ""),
    "true actions": ("--labels {data}/videos", "", "model", ""),
    "EMA off": ("", "", "raw", ""),
    "1 denoising step": ("", "", "model", "--steps 1"),
    "4 denoising steps": ("", "", "model", "--steps 4"),
    "1 action executed": ("", "", "model", "--execute 1"),
    "4 actions executed": ("", "", "model", "--execute 4"),
    "16 actions executed": ("", "", "model", "--execute 16"),
    "chunks of 4, all executed": ("", "--horizon 4", "model", "--execute 4"),
    "chunks of 8, all executed": ("", "--horizon 8", "model", "--execute 8"),
}


@dataclass(frozen=True)
class Ablate(Many):
    data: str = "data/tiny"             # folder of videos/ and labels/, as train.py --config tiny leaves it
    net: str = "tiny"                   # preset of train.py
    steps: int = 0                      # of training (0: as the preset says)
    games: str = "all"                  # to play
    seeds: int = 20                     # episodes per task
    rows: str = "all"                   # of the table: parts of their names, as in steps,EMA
    out: str = "data/ablate"            # folder
    workers: int = os.cpu_count() or 1  # processes


def ablate(c: Ablate) -> None:
    """Run the published commands with one flag changed at a time, skipping what is finished; a table of what the policy then completes."""
    if not Path(c.data, "labels").is_dir():
        raise SystemExit(f"{c.data}: no videos/ and labels/ there; python train.py --config {c.net} makes them")
    chosen = [name for name in ABLATIONS if c.rows == "all" or any(part in name for part in c.rows.split(","))]
    fresh, seed, once, lines = ("--fresh",) * c.fresh, ("--seed", str(c.seed)), functools.cache(run_stage), []
    for name in chosen:
        cut, fit, weights, hands = (flags.format(data=c.data) for flags in ABLATIONS[name])
        shards, run, played = (f"{c.out}/{kind}{re.sub(r'[^a-z0-9]+', '-', what)}".rstrip("-") for kind, what in (
            ("shards", cut), ("run", cut + fit), ("play", cut + fit + weights + hands)))
        once("filter.py", f"{c.data}/videos", "--labels", f"{c.data}/labels", "--out", shards, *c.flags, *cut.split())
        once("train.py", "--config", c.net, "--data", shards, "--out", run, "--raw", "--device", c.device, *seed, *fresh, *(("--steps", str(c.steps)) if c.steps else ()), *fit.split())
        once("eval.py", "play", "--policy", f"{run}/{weights}.safetensors", "--games", c.games, "--seeds", str(c.seeds), "--out", played, "--device", c.device,
             *seed, *c.flags, *hands.split())
        mine = json.loads(Path(played, "report.json").read_bytes())["cells"]["all"]["all"]["policy"]
        lines.append(f"{name:28s}{percent(mine):>14s}   " + "{:.2f} [{:.2f}, {:.2f}]".format(*mine["progress"]))
    print(f"\n{'':28s}{'completed, %':>14s}   progress\n" + "\n".join(lines))
    artefact.write_bytes(f"{c.out}/ablate.txt", ("\n".join(lines) + "\n").encode())


def tasks(c: Common) -> None:
    counts = dict.fromkeys(CATEGORIES, 0)
    for name in by_genre(game_names()):
        print(f"{' / '.join(dict.fromkeys((group_of(name), genre(name))))}: {(game(name).__doc__ or '').strip().splitlines()[0]}")
        for key, t in game(name).TASKS.items():
            counts[t.category] += 1
            print(f"  {key:10s} {t.category:10s} {t.seconds:4.0f} s  {t.goal}")
    print(f"{sum(counts.values())} tasks: {', '.join(f'{n} {category}' for category, n in counts.items())}")


# ---- live play: the policy at the pad of your own game --------------------------------------------------------------------
# The game stands still while the policy thinks (exact, repeatable), or runs on while it does (--realtime); the policy is here, or on
# another machine (--remote, serve).  A person at a window (--window) takes the pad by touching it, and gives it back by letting go.

@dataclass(frozen=True)
class Live(Play, sim.Run):
    realtime: bool = False              # on your own game: it runs at its normal speed and does not wait for the policy
    speed: float = 1.0                  # of game time, with --realtime
    video: str = ""                     # also write a film; of the suite, the best and the worst episodes are filmed anyway
    seconds: float = 60.0               # of game time; 0: until the game or you end it
    menu: bool = False                  # the policy may press START and BACK
    window: bool = False                # show the game in a window; touch a key or pad there to play yourself (pip install pygame)
    idle: float = 2.0                   # seconds of letting go until the policy plays on
    keys: str = ""                      # for a game that takes keys, on top of sim.KEYS: SOUTH=z,LEFT_X-=a,...
    suite: str = ""                     # open: free Linux games; or a table of your own, as assets/open.json
    remote: str = ""                    # HOST:PORT of `python eval.py serve`: the policy is there
    token: str = "data/serve.token"     # a copy of the file that serve wrote
    patience: float = 30.0              # seconds to wait for a lost connection to come back


PROTOCOL = "nitrogen.play/1"                                    # of both sides; another one is refused
SAME = "use one version of this project on both sides"
MESSAGE, HELLO, CLIENTS = 1 << 20, 1 << 12, 8                   # at most: bytes of a message, and of one from somebody unproven; clients
FADE = 3                                                        # CHOICE: actions over which a new chunk takes over from the old one, in real time
RELEASED = np.zeros(16, np.uint8), np.zeros(4, np.float32)


def live(c: Live) -> dict | None:
    c, yours = dataclasses.replace(c, policy=shipped(c.policy)), c.command or c.attach or c.realtime or c.remote
    if (c.video or c.window) and (c.suite or not yours):
        raise SystemExit("--video and --window go with -- COMMAND; of the built-in suite, the best and the worst episodes are filmed anyway")
    if not c.speed > 0 or c.speed != 1 and not c.realtime:
        raise SystemExit(f"--speed {c.speed:g}: expected more than 0, together with --realtime: without it the game waits for the policy")
    if not yours or c.suite:
        return open_suite(c) if c.suite else play(c)
    with contextlib.closing(brain_of(c)) as brain, sim.launch(c, keys=key_map(c.keys)) as env, contextlib.ExitStack() as stack:
        person = Takeover(sim.Person(f"{Path((*c.command, c.attach)[0]).name}: touch a key or the pad to play"), c.idle) if c.window else None
        pilot, film, size = stack.enter_context(contextlib.closing(Pilot(brain, c))), None, None
        try:
            for info in frames(env, pilot, c, person):
                if c.video:
                    picture = env.render()
                    size = size or picture.shape[1::-1]
                    film = film or stack.enter_context(VideoWriter(c.video, c.fps, *size))
                    film.write(sim.fitted(picture, *size))
            if not env.clock.alive:
                print(how_it_ended(env, info), file=sys.stderr)
        except KeyboardInterrupt:                               # ends the game, not the report
            pass
        return pilot.report()


def brain_of(c: Live):
    if not c.remote:
        return Local(c.policy, c.device, c.steps, c.seed)
    if not Path(c.token).is_file():
        raise SystemExit(f"--token {c.token}: no such file; copy it from the machine that serves")
    return Remote(c.remote, Path(c.token).read_text().strip(), 3.0 if c.realtime else 60.0)


def key_map(text: str) -> dict:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(name and key for name, _, key in pairs):
        raise SystemExit(f"--keys {text}: expected BUTTON=key,LEFT_X-=key,...")
    return {name: key for name, _, key in pairs}


class Local:
    """A policy on this machine.  about: rate, shift, horizon and actions of its model.Config."""

    def __init__(self, path: str, device: str, steps: int, seed: int):
        import torch
        self.net, self.steps, self.rng = network(path, device), steps or None, torch.Generator().manual_seed(seed)
        self.about = {name: getattr(self.net.c, name) for name in ("rate", "shift", "horizon", "actions")}

    def think(self, frame):
        """uint8 [256, 256, 3] -> float32 [K, 20]: probabilities of BUTTONS, then STICKS in [-1, 1], y down."""
        import torch
        c = self.net.c
        raw = self.net.sample(frame[None], torch.randn(1, c.horizon, len(c.actions), generator=self.rng), self.steps)[0].cpu().numpy()
        values, absent = dict(zip(c.actions, raw.T)), np.zeros(c.horizon, np.float32)
        return np.stack([*(values.get(n, absent) for n in artefact.BUTTONS), *(2 * values.get(n, absent + 0.5) - 1 for n in artefact.STICKS)], 1)

    def close(self):
        pass


class Plan:
    """The actions to come.  A chunk's action k is meant for `seen` + (shift + k) / rate, s of game time, and holds until the next."""

    def __init__(self, rate: float, shift: int):
        self.rate, self.shift, self.start, self.rows = rate, shift, 0.0, np.zeros((0, 20), np.float32)

    def at(self, when: float):
        """The action in force then, [20]; None past the end."""
        i = max(0, self._steps(when))
        return self.rows[i] if i < len(self.rows) else None

    def _steps(self, when):
        return math.floor((when - self.start) * self.rate + 1e-6)

    def add(self, chunk, seen: float, now: float, fade: int) -> int:
        """Take over to a chunk that was planned from the picture of `seen`, over `fade` actions; what lies before `now` is cut.  How many are left."""
        new = Plan(self.rate, self.shift)
        new.start, new.rows = seen + self.shift / self.rate, chunk.copy()
        late = max(0, new._steps(now))
        new.start, new.rows = new.start + late / self.rate, new.rows[late:]
        for i, row in enumerate(new.rows[:fade]):
            old = self.at(new.start + i / self.rate)
            row += 0 if old is None else (old - row) * (1 - (i + 1) / (fade + 1))
        if len(new.rows):
            self.start, self.rows = new.start, new.rows
        return len(new.rows)


class Pilot:
    """The policy as a player: one chunk follows another, thought out while the game waits or, in real time, beside it."""

    def __init__(self, brain, c: Live):
        if not 1 <= c.execute <= brain.about["horizon"]:
            raise SystemExit(f"--execute {c.execute}: this policy's chunks hold {brain.about['horizon']} actions; give 1 to {brain.about['horizon']}")
        self.brain, self.c, self.pool = brain, c, concurrent.futures.ThreadPoolExecutor(1)
        self.latency, self.frames, self.empty, self.late = [], 0, 0, 0          # s per chunk; frames, those without a plan, those shown late
        self.forget()

    def forget(self):
        """Begin anew, at a game that stands still."""
        self.plan, self.thought, self.again, self.missed = Plan(self.brain.about["rate"], self.brain.about["shift"]), None, -math.inf, 0

    def __call__(self, frame, info):
        """The pad for the frame after this one.  OSError: the connection is lost."""
        now, following = info["time"], info["time"] + 1 / self.c.fps
        if self.thought is None and now > self.again - 1e-6:
            self.thought, self.seen, self.again = self.pool.submit(self._think, frame), now, now + self.c.execute / self.plan.rate
        if self.thought and (self.thought.done() or not self.c.realtime or not len(self.plan.rows)):
            self._take(following)
        row = self.plan.at(following)
        self.frames, self.empty = self.frames + 1, self.empty + (row is None)
        return RELEASED if row is None else ((row[:16] > 0.5).astype(np.uint8), row[16:].clip(-1, 1))

    def _think(self, frame):
        begin = time.perf_counter()
        return self.brain.think(frame), time.perf_counter() - begin

    def _take(self, following):
        thought, self.thought = self.thought, None
        chunk, seconds = thought.result()
        self.latency.append(seconds)
        left = self.plan.add(chunk, self.seen, following, FADE if self.c.realtime else 0)
        self.missed = 0 if left else self.missed + 1
        if self.missed == 3:                                    # not one hiccup
            lasts = (len(chunk) + self.brain.about["shift"]) / self.plan.rate
            raise sim.GameError(f"the policy is slower than the game: {seconds:.2f} s for a chunk that is over {lasts / self.c.speed:.2f} s after its picture; "
                                f"fewer --steps, a faster --device, --speed {0.5 * lasts / seconds:.2g}, or no --realtime, so that the game waits")

    def report(self) -> dict:
        """Print and return what it did; latency of all chunks but the first, for which the game waits in any case."""
        ms = 1e3 * np.array(self.latency[1:] or [math.nan])
        out = {"frames": self.frames, "without_plan": self.empty / max(1, self.frames), "late": self.late / max(1, self.frames),
               "chunks": len(self.latency), **dict(zip(("median", "p90", "p99", "most"), np.percentile(ms, [50, 90, 99, 100]).tolist()))}
        print(f"{self.frames} frames, {out['chunks']} chunks; latency {out['median']:.1f} ms (median), {out['p90']:.1f} (90 %), {out['p99']:.1f} (99 %), "
              f"{out['most']:.1f} at most" + (f"; {out['late']:.1%} of the frames came late, {out['without_plan']:.1%} had no plan" if self.c.realtime else ""))
        return out

    def close(self):
        self.pool.shutdown(wait=False, cancel_futures=True)


class Takeover:
    """A person at a window: the pad is his from his first touch until he has let go of it for a while."""

    def __init__(self, person, idle: float):
        self.person, self.idle, self.touched, self.playing, self.clock = person, idle, -math.inf, False, time.perf_counter

    def __call__(self, picture, pad):
        """The pad of whoever plays; None once the window is closed."""
        theirs = self.person(picture)
        if theirs is None:
            return None
        if theirs[0].any() or np.abs(theirs[1]).max() > 0.3:    # CHOICE: farther than a worn stick rests
            self.touched = self.clock()
        if self.playing != (self.clock() - self.touched < self.idle):
            self.playing = not self.playing
            print("you play" if self.playing else "the policy plays", flush=True)
        return theirs if self.playing else pad


def frames(env, agent, c: Live, person=None, start=()):
    """A game from its start, after a macro `agent` or the person at the pad: yields the info of every frame, for --seconds of game time."""
    frame, info = env.reset(seed=c.seed)
    frame, _, ended, _, info = press(env, start, c.fps) or (frame, 0.0, False, False, info)
    if isinstance(agent, Pilot):
        check_layout(env.pad, agent.brain.about["actions"])
    begin, due = info["time"], time.perf_counter()
    yield info
    while not ended and not (c.seconds and info["time"] - begin > c.seconds - 1e-6):
        try:
            buttons, sticks = agent(frame, info)
        except OSError as e:                                    # the connection is lost
            env.pad.set(*RELEASED)
            env.clock.pause()
            agent.brain.reconnect(e, c.patience)
            agent.forget()
            continue
        if not c.menu:
            buttons = np.where(np.isin(np.arange(16), artefact.MENU), 0, buttons)
        pad = person(env.render(), (buttons, sticks)) if person else (buttons, sticks)
        if pad is None:
            return
        before = info["time"]
        frame, _, ended, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
        if c.realtime or person:                                # nobody can play a game that runs as fast as it can
            due, now = due + (info["time"] - before) / c.speed, time.perf_counter()
            time.sleep(max(0.0, due - now))
            if due < now - 1 / c.fps:                           # a late game does not hurry after
                due, agent.late = now, agent.late + 1
        yield info


def check_layout(pad, actions) -> None:
    """GameError if nothing that the policy does can reach the game; one line about what cannot."""
    known = [n for n in artefact.BUTTONS + artefact.STICKS if n in actions]
    lost = [n for n in known if isinstance(pad, sim.Keyboard) and not {n, f"{n}-", f"{n}+"} & set(pad.keys)]
    if len(lost) == len(known):
        raise sim.GameError(f"the policy's actions ({', '.join(actions[:4])}, ...) have no place on this game's {'keys (--keys)' if known else 'pad'}")
    if lost:
        sim.say_once(f"no key for {', '.join(lost)}: what the policy does with them is lost (--keys {lost[0]}=...)")


def press(env, macro, fps: int):
    """Play a macro: seconds to wait, buttons and X keys to press for a tenth of a second.  What env.step says at its end, or None."""
    last = None
    for part in macro:
        key = isinstance(part, str) and part not in artefact.BUTTONS
        if key:
            windows = env.stage.display.windows() if env.stage.display else []
            if not windows:
                raise sim.GameError(f"the macro's {part!r} is a key, and the game has no window to press it in")
            env.stage.display.focus(windows[0][0])
            env.stage.display.key(part, True)
        for held, seconds in ((part, 0.1), ("", 0.1)) if isinstance(part, str) else (("", part),):
            for _ in range(round(seconds * fps)):
                last = env.step({"buttons": np.isin(artefact.BUTTONS, [held]), "sticks": RELEASED[1]})
            if key and held:
                env.stage.display.key(part, False)
    return last


# ---- live play: a table of tasks in real games ------------------------------------------------------------------------------
# What a task says: goal in words; command, fps, seconds; gamepad, screen and keys, as for sim.GameEnv; files to put into the game's home:
# {name: text}, a copy of another file, {"of"}, or one with a part replaced, {"of", "find", "put"}; start and end: macros of seconds, buttons and
# X keys; its score, one of
#   {"stderr": pattern of a number, "from", "goal"}   {"file": in its home, "struct": with one number, "from", "goal"}   {"exit": status}
#   {"picture": a PNG beside the table, "like": 0..1}: part of the frame when it is done.   "{home}" in the command stands for its home.

NUMBER = (-1e12, 1e12)
TASK = {"goal": str, "command": [str], "seconds": (0.1, 1e6), "score": dict, "install?": str, "fps?": (1, 1000), "gamepad?": str, "screen?": str,
        "keys?": {str: str}, "files?": dict, "start?": list, "end?": list}                       # as artefact.amiss reads it
SCORES = ({"stderr": str, "goal": NUMBER, "from?": NUMBER}, {"file": str, "struct": str, "goal": NUMBER, "from?": NUMBER}, {"exit": (0, 255)},
          {"picture": str, "like?": (0, 1)})
REAL_PLAYERS = ("policy", "random", "none")


def open_table(suite: str) -> tuple[dict, Path]:
    """(tasks by name, folder of the table); SystemExit names what is wrong with which task."""
    path = ROOT / "assets" / "open.json" if suite == "open" else Path(suite)
    try:
        table = json.loads(path.read_text())
        if not isinstance(table, dict) or not table:
            raise ValueError("expected {name: task, ...}")
    except (OSError, ValueError, RecursionError) as e:
        raise SystemExit(f"{path}: not a table of tasks ({e}); see assets/open.json") from None
    for name, task in table.items():
        if fault := task_fault(task, path.parent):
            raise SystemExit(f"{path}: {name}: {fault}; see assets/open.json")
    return table, path.parent


def task_fault(task, folder: Path) -> str:
    """What is wrong with a task, in words; empty if nothing is."""
    needed, known = [k for k in TASK if k[-1] != "?"], [k.rstrip("?") for k in TASK]
    if not isinstance(task, dict) or not set(needed) <= set(task) <= set(known):
        return f"a task has {', '.join(needed)}, and perhaps {', '.join(known[len(needed):])}"
    if empty := [k for k, v in task.items() if not v]:
        return f"{empty[0]} is {task[empty[0]]!r}"
    score = task["score"]
    if fault := artefact.amiss(task, TASK, "it"):
        return fault
    kinds = [p for p in SCORES if next(iter(p)) in score]
    if len(kinds) != 1 or not set(score) <= {k.rstrip("?") for k in kinds[0]} or None in score.values():
        return f"its score is one of stderr + goal, file + struct + goal, exit, picture, not {ascii(score)[:100]}"
    try:
        fault = artefact.amiss(score, kinds[0], "its score")
        values = struct.unpack(form := score.get("struct", "") if not fault else "", bytes(struct.calcsize(form)))
        if fault or re.compile(score.get("stderr", "")).groups > 1 or any(isinstance(v, bytes) for v in values):
            raise ValueError(fault or "expected at most one group, and numbers")
        1 / (score.get("goal", 1) - score.get("from", 0))
        if "picture" in score and read_picture(folder / score["picture"]) is None:
            raise ValueError(f"{folder / score['picture']}: no such picture")
    except (re.error, struct.error, ZeroDivisionError, ValueError) as e:
        return f"its score {ascii(score)[:100]} cannot be taken ({e})"
    for name, content in task.get("files", {}).items():
        if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] in (".", "..") or not isinstance(content, (str, dict)):
            return f"files {name[:60]!r} is no text, or no path below the game's home folder"
        if isinstance(content, dict) and (set(content) not in ({"of"}, {"of", "find", "put"}) or not all(isinstance(v, str) for v in content.values())):
            return f"files {name[:60]!r} is made of another file (of), and perhaps a text in it (find) that becomes another (put)"
    for key, known in (("gamepad", sim.GAMEPADS), ("screen", sim.SCREENS)):
        if task.get(key, "auto") not in known:
            return f"{key} {task[key]!r}: there is {', '.join(known)}"
    if wrong := [f"{n}={k}" for n, k in task.get("keys", {}).items() if not is_key(k) or not (n in artefact.BUTTONS or n[:-1] in artefact.STICKS and n[-1] in "+-")]:
        return f"{wrong[0][:60]} in keys is no button, or stick and direction, and key"
    wrong = [p for p in (*task.get("start", ()), *task.get("end", ())) if not isinstance(p, (int, float)) and p not in artefact.BUTTONS and not is_key(p)]
    return f"{ascii(wrong[0])[:60]} in a macro is no number of seconds, no button and no key" if wrong else ""


def is_key(name) -> bool:
    return isinstance(name, str) and (len(name) == 1 or name in sim.KEYSYMS)


def read_picture(path: Path):
    """uint8 [h, w, 3] RGB; None if it cannot be read."""
    import cv2
    picture = cv2.imread(str(path)) if path.is_file() else None
    return None if picture is None else picture[..., ::-1].copy()


def open_suite(c: Live) -> dict:
    """The policy, chance and an untouched pad at real games: completed tasks and progress, printed and in OUT/open.json."""
    table, folder = open_table(c.suite)
    wanted = list(table) if c.tasks == "all" else c.tasks.split(",")
    if unknown := set(wanted) - set(table):
        raise SystemExit(f"--tasks {c.tasks}: no task '{min(unknown)}' in this table (there are {', '.join(table)})")
    names, seeds = [n for n in wanted if program(table[n]["command"][0])], 4 if c.quick else c.seeds
    for n in wanted:
        if n not in names:
            print(f"{n}: skipped, {table[n]['command'][0]} is not installed ({table[n].get('install', 'sudo apt install it')})", file=sys.stderr)
    with contextlib.closing(brain_of(c)) as brain:              # one clear line now, not one per episode
        settings = {"policy": brain.about.get("policy") or artefact.source(c.policy)["sha256"], "seed": c.seed,
                    **{k: getattr(c, k) for k in ("execute", "steps", "realtime", "speed", "menu")}}
    c = with_folder(c, settings)
    jobs = [Job(p, f"{Path(c.suite).stem}-{task_digest(table[n], folder)}", n, c.seed + i) for i in range(seeds) for n in names for p in REAL_PLAYERS]
    left = [j for j in jobs if not kept(j, c, settings)]
    print(f"{len(names)} tasks, {seeds} episodes of each by {', '.join(REAL_PLAYERS)}: {len(jobs)} episodes, {len(jobs) - len(left)} are there -> {c.out}", flush=True)
    if left or not jobs:
        for_each(functools.partial(episode, c=c, settings=settings, play=in_real_game), left, c.workers, "episodes", c.ray)
    records = [kept(j, c, settings, crashed=True) for j in jobs]
    out = {n: {p: summary([r for r in records if (r["task"], r["player"]) == (n, p)]) for p in REAL_PLAYERS} for n in names}
    print(f"completed, %, and 95 % interval; in brackets mean progress, 0..1\n{'task':16s}" + "".join(f"{p:>22s}" for p in REAL_PLAYERS))
    for n, row in out.items():
        print(f"{n:16s}" + "".join(f"{cell(s):>22s}" for s in row.values()) + f"   {table[n]['goal']}")
    print_crashes(records)
    artefact.write_bytes(Path(c.out) / "open.json", json.dumps(out, indent=1).encode())
    return out


def program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/games")


def task_digest(task: dict, folder: Path) -> str:
    """Of all that the table says about a task: with another, its episodes are others."""
    picture = task["score"].get("picture")
    return hashlib.sha256(json.dumps(task).encode() + ((folder / picture).read_bytes() if picture else b"")).hexdigest()[:8]


def in_real_game(job: Job, c: Live) -> dict:
    """The score of one player at one task: the most progress that was seen, half a second apart."""
    table, folder = open_table(c.suite)
    task, began, info = table[job.task], None, None
    with tempfile.TemporaryDirectory(prefix="nitro-home-") as home, contextlib.ExitStack() as stack:
        fill(Path(home), task.get("files", {}))
        command = [part.replace("{home}", home) for part in task["command"]]
        c = dataclasses.replace(c, command=(program(command[0]), *command[1:]), fps=task.get("fps", 60), seconds=float(task["seconds"]), seed=job.seed, home=home,
                                realtime=c.realtime and job.player == "policy", **{k: task[k] for k in ("gamepad", "screen") if k in task})
        agent = sim.StickyRandom(job.seed, c.fps) if job.player == "random" else Held() if job.player == "none" else \
            stack.enter_context(contextlib.closing(Pilot(stack.enter_context(contextlib.closing(brain_of(c))), c)))
        env, best = stack.enter_context(sim.launch(c, keys=task.get("keys"))), 0.0
        look = lambda: max(best, task_score(task["score"], env, folder, home))
        for i, info in enumerate(frames(env, agent, c, start=task.get("start", ()))):
            began = info["time"] if began is None else began
            best = look() if i % max(1, c.fps // 2) == 0 or not env.clock.alive else best
            if best >= 1:
                break
        if best < 1 and env.clock.alive:
            press(env, task.get("end", ()), c.fps)
            best = look()
        return {"progress": best, "success": best >= 1, "time": info["time"] - began}


def fill(home: Path, files: dict) -> None:
    for name, content in files.items():
        if isinstance(content, dict):
            rule = content
            try:
                content = Path(rule["of"]).read_bytes()
            except OSError as e:
                raise SystemExit(f"{rule['of']}: cannot be read ({e.strerror}), so that {name} cannot be made of it") from None
            if rule.get("find", "").encode() not in content:
                raise SystemExit(f"{rule['of']}: {rule['find']!r} is not in it")
            content = content.replace(rule["find"].encode(), rule["put"].encode(), 1) if "find" in rule else content
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def task_score(rule: dict, env, folder: Path, home: str) -> float:
    """0..1, from what the game has written or shows."""
    if "exit" in rule:
        return float(env.clock.returncode == rule["exit"])
    if "picture" in rule:
        import cv2
        part, frame = read_picture(folder / rule["picture"]), env.render()
        if part.shape[0] > frame.shape[0] or part.shape[1] > frame.shape[1]:
            raise SystemExit(f"{folder / rule['picture']}: larger than a frame of {frame.shape[1]} x {frame.shape[0]}")
        return float(cv2.matchTemplate(frame, part, cv2.TM_CCOEFF_NORMED).max() >= rule.get("like", 0.9))
    if "file" in rule:
        path, size = Path(home) / rule["file"], struct.calcsize(rule["struct"])
        data = path.read_bytes()[:size] if path.exists() else b""
        values = struct.unpack(rule["struct"], data) if len(data) == size else (0,)
    else:
        values = re.findall(rule["stderr"], (env.stage.path / "stderr").read_text(errors="replace")) or (0,)
    try:
        value = max(map(float, values))
    except ValueError as e:
        raise sim.GameError(f"score {rule['stderr']!r} on the game's stderr: {e}") from None
    begin = rule.get("from", 0)
    return min(1.0, max(0.0, (value - begin) / (rule["goal"] - begin)))


# ---- live play: the policy on another machine -----------------------------------------------------------------------------
# A message is its length (4 bytes, big-endian) and a safetensors file: JSON in its metadata, arrays.  The server begins: version and nonce;
# the client proves that it has the token (HMAC-SHA256 of the nonce: the token itself never travels); then a chunk per frame.  It is not
# encrypted: ssh -L, or a network of your own.

@dataclass(frozen=True)
class Serve(Common):
    policy: str = Play.policy           # what train.py or model.py convert made
    steps: int = 0                      # denoising steps (0: as the model says)
    host: str = "127.0.0.1"             # address to listen on; 0.0.0.0: any, so that other machines reach it
    port: int = 5599                    # 0: any that is free
    token: str = "data/serve.token"     # file of the token; made, with a random one, if it is missing


def send(peer, tensors=None, **about) -> None:
    from safetensors.numpy import save
    body = save(tensors or {}, {"json": json.dumps(about)})
    peer.sendall(struct.pack(">I", len(body)) + body)


def receive(peer, limit: int = MESSAGE) -> tuple[dict, dict]:
    """(arrays, JSON).  OSError if the peer is gone, silent, or says anything else."""
    from safetensors.numpy import load
    size, = struct.unpack(">I", exactly(peer, 4))
    if size > limit:
        raise ConnectionError(f"a message of {size:,} bytes, at most {limit:,} are taken")
    body = exactly(peer, size)
    try:
        tensors, header = load(body), json.loads(body[8:8 + int.from_bytes(body[:8], "little")])
        about = json.loads(header["__metadata__"]["json"])
        return tensors, dict(about)
    except Exception:                                           # whatever strangers send
        raise ConnectionError("a message that is no safetensors file with JSON metadata") from None


def exactly(peer, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side has gone")
        data += part
    return bytes(data)


def proof(token: str, nonce) -> str:
    return hmac.new(token.encode(), ascii(nonce).encode(), "sha256").hexdigest()


def secret(path: str) -> str:
    """The token in a file that only its owner can read; a random one is made the first time."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    if os.stat(path).st_mode & 0o077:
        raise SystemExit(f"{path}: others can read this token; remove the file for a new one")
    return Path(path).read_text().strip()


def serve(c: Serve) -> None:
    """The policy for games on other machines, until Ctrl-C."""
    policy, token, lock = shipped(c.policy), secret(c.token), threading.Lock()
    brain = Local(policy, c.device, c.steps, c.seed)
    brain.about["policy"] = artefact.source(policy)["sha256"]        # so that results say whose they are
    brain.think(np.zeros((256, 256, 3), np.uint8))              # compiled and warm
    try:
        server = socket.create_server((c.host, c.port))
    except OSError as e:
        raise SystemExit(f"--host {c.host} --port {c.port}: {e.strerror or e}") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"{policy} at {c.host}:{server.getsockname()[1]}; the token is in {c.token}" +
              ("" if c.host == "127.0.0.1" else "; not encrypted: anybody on the way sees the game"), flush=True)
        while True:
            peer, (host, port, *_) = server.accept()
            if threading.active_count() > CLIENTS:
                with peer, contextlib.suppress(OSError):
                    refuse(peer, f"{CLIENTS} clients already")
                continue
            threading.Thread(target=attend, args=(peer, f"{host}:{port}", brain, token, lock), daemon=True).start()


def attend(peer, name: str, brain, token: str, lock) -> None:
    """One client, until it goes."""
    try:
        with peer:
            peer.settimeout(10)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            nonce = secrets.token_hex(16)
            send(peer, protocol=PROTOCOL, nonce=nonce)
            said = receive(peer, HELLO)[1]
            if said.get("protocol") != PROTOCOL:
                refuse(peer, f"the client speaks {ascii(said.get('protocol'))[:40]}, this server {PROTOCOL!r}: {SAME}")
            if not hmac.compare_digest(ascii(said.get("proof")), ascii(proof(token, nonce))):
                refuse(peer, "wrong token")
            send(peer, **brain.about)
            print(f"{name}: plays", flush=True)
            peer.settimeout(600)
            while True:
                frame = receive(peer)[0].get("frame")
                if frame is None or frame.dtype != np.uint8 or frame.shape != (256, 256, 3):
                    refuse(peer, "expected a frame, uint8 [256, 256, 3]")
                with lock:
                    actions = brain.think(frame)
                send(peer, {"actions": actions})
    except OSError as e:
        print(f"{name}: {e}", flush=True)


def refuse(peer, why: str):
    send(peer, error=why)
    raise ConnectionError(f"refused: {why}")


class Remote:
    """As Local, but at `python eval.py serve` on another machine."""

    def __init__(self, address: str, token: str, timeout: float):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise SystemExit(f"--remote {address}: expected HOST:PORT")
        self.address, self.at, self.timeout, self.token, self.peer, self.unanswered = address, (host, int(port)), timeout, token, None, 0
        try:
            self.connect()
        except OSError as e:
            raise SystemExit(f"--remote {address}: {e}; is `python eval.py serve` running there?") from None

    def connect(self):
        self.close()
        self.peer = socket.create_connection(self.at, 5)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = self._answer()[1]
        if said.get("protocol") != PROTOCOL:
            raise SystemExit(f"--remote {self.address}: the server speaks {ascii(said.get('protocol'))[:40]}, this client {PROTOCOL!r}: {SAME}")
        send(self.peer, protocol=PROTOCOL, proof=proof(self.token, said.get("nonce")))
        self.peer.settimeout(self.timeout)
        self.about = self._answer()[1]
        if not {"rate", "shift", "horizon", "actions"} <= set(self.about):
            raise ConnectionError("it does not say what its policy does")

    def _answer(self):
        tensors, about = receive(self.peer)
        if "error" in about:
            raise SystemExit(f"--remote {self.address}: {about['error']}")
        return tensors, about

    def think(self, frame):
        send(self.peer, {"frame": frame})
        actions = self._answer()[0].get("actions")
        if actions is None or actions.dtype != np.float32 or actions.ndim != 2 or actions.shape[1] != 20 or not np.isfinite(actions).all():
            raise ConnectionError("its answer is no chunk of actions")
        self.unanswered = 0
        return actions

    def reconnect(self, why, patience: float):
        self.unanswered += 1
        if self.unanswered == 4:                                # it is there, but each time it says nothing for as long as we wait
            raise SystemExit(f"--remote {self.address}: connected again three times, and no chunk came ({why}); is the policy there too slow? "
                             "Fewer --steps or a faster --device there, or no --realtime here")
        print(f"lost the connection to {self.address} ({why}): the pad is released and the game stands still; trying for {patience:g} s", file=sys.stderr)
        end = time.perf_counter() + patience
        while True:
            try:
                self.connect()
                return print("connected again", file=sys.stderr)
            except OSError as e:
                if time.perf_counter() > end:
                    raise SystemExit(f"--remote {self.address}: {e}; gave up after {patience:g} s, and ended the game") from None
                time.sleep(0.5)

    def close(self):
        if self.peer:
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_RDWR)            # also for the thread that waits for an answer
            self.peer.close()


# ---- transfer: is it worth to have seen other games? (paper section 3) -----------------------------------------------------

@dataclass(frozen=True)
class Transfer(Many):
    held_out: str = "ridge"             # the game that pretraining does not see
    hours: str = "0.25,0.5,1"           # of its demonstrations
    others: float = 2.0                 # hours of demonstrations of the other games, in all
    net: str = "tiny"                   # preset of train.py
    pretrain: int = 4500                # steps of pretraining
    steps: int = 1500                   # of each training on the held-out game: the same data and compute for both
    repeats: int = 3                    # seeds of each training
    seeds: int = 10                     # episodes per task and training
    data: str = ""                      # folder of videos/, and labels/ or true actions beside them, to take demonstrations from; empty: record and parse
    out: str = "data/transfer"          # folder
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


ARMS = ("from scratch", "fine-tuned")


def transfer(c: Transfer) -> dict:
    """Pretrain on the other games; train on ever more of the held-out one, from there and from scratch; play; draw.  Finished parts are skipped."""
    hours = sorted(float(h) for h in c.hours.split(",") if re.fullmatch(r"\d+\.?\d*|\.\d+", h))
    if not len(set(hours)) == len(c.hours.split(",")) or hours[0] == 0 or c.repeats < 1 or c.seeds < 1:
        raise SystemExit(f"--hours {c.hours} --repeats {c.repeats} --seeds {c.seeds}: expected numbers above 0, as in --hours 0.25,0.5,1 --repeats 3 --seeds 10")
    others, root = [n for n in game_names() if n != c.held_out], Path(c.out) / c.held_out
    game(c.held_out)
    common = ("--config", c.net, "--device", c.device, "--workers", str(c.workers), *("--fresh",) * c.fresh)
    seen, labels = demonstrations(root / "others", others, c.others, c)
    run_stage("filter.py", *seen, "--labels", labels, "--out", f"{root}/others/shards", *c.flags)
    run_stage("train.py", *common, "--data", f"{root}/others/shards", "--out", f"{root}/pretrained", "--steps", str(c.pretrain),
                  "--seed", str(c.seed))
    (clips, labels), results = demonstrations(root / "own", [c.held_out], hours[-1], c), {}
    for h in hours:
        run_stage("filter.py", *lasting(clips, h), "--labels", labels, "--out", f"{root}/own/shards-{h:g}h", *c.flags)
        for seed, arm in itertools.product(range(c.seed, c.seed + c.repeats), ARMS):
            run = f"{root}/{h:g}h-{arm.replace(' ', '-')}-{seed}"
            init = ("--init", f"{root}/pretrained/model.safetensors") if arm == ARMS[1] else ()
            run_stage("train.py", *common, "--data", f"{root}/own/shards-{h:g}h", "--out", run, "--steps", str(c.steps),
                          "--warmup", str(max(1, c.steps // 20)), "--seed", str(seed), *init)
            results.setdefault((h, arm), []).append(played(run, c))
    return transfer_curve(results, root, c)


def demonstrations(folder: Path, games, hours: float, c: Transfer) -> tuple[list[str], str]:
    """(videos of the experts, the games in turn, for so long; folder of what their overlays say)"""
    where = c.data or folder
    if not c.data:
        whole = math.ceil((3600 * hours - 1) / Record.seconds) * Record.seconds
        run_stage("eval.py", "record", "--out", f"{folder}/videos", "--games", ",".join(games), "--minutes", str(whole / 60),
                      "--seed", str(c.seed), *c.flags)
    game_of, number = (lambda v, i=i: Path(v).stem.rpartition("-")[i] for i in (0, 2))
    videos = lasting(sorted((v for v in expand([f"{where}/videos"]) if game_of(v) in games), key=lambda v: int(number(v))), hours)
    if not c.data:
        run_stage("extract.py", *videos, "--out", f"{folder}/labels", *c.flags)
        run_stage("parse.py", *videos, "--out", f"{folder}/labels", "--device", c.device, *("--fresh",) * c.fresh)
    return videos, f"{where}/labels"


def lasting(videos: list[str], hours: float) -> list[str]:
    """The first of them, for so long."""
    ends = np.cumsum([facts["frames"] / facts["fps"] for facts in map(video_facts, videos)])
    if not len(ends) or ends[-1] < 3600 * hours - 1:
        raise SystemExit(f"{hours:g} hours of demonstrations are wanted, and there are {ends[-1] / 3600 if len(ends) else 0:.3f}: {' '.join(videos[:1])} ...")
    return videos[:int(np.searchsorted(ends, 3600 * hours - 1)) + 1]


def played(run: str, c: Transfer) -> list:
    """(progress, success) of a policy's episodes at the held-out game; they stay beside it."""
    policy, path = f"{run}/model.safetensors", Path(run) / "transfer.json"
    key = {"policy": artefact.source(policy)["sha256"], "seeds": c.seeds}
    if path.exists() and (found := json.loads(path.read_text()))["of"] == key:
        return found["episodes"]
    jobs = [Job("policy", c.held_out, t, 10_000 + s) for t in game(c.held_out).TASKS for s in range(c.seeds)]
    scores = for_each(functools.partial(through, c=Play(policy=policy, device=c.device)), jobs, c.workers, "episodes", c.ray)
    episodes = [(score["progress"], score["success"]) for score in scores]
    artefact.write_bytes(path, json.dumps({"of": key, "episodes": episodes}).encode())
    return episodes


def resampled(scores, draws: int = 2000) -> np.ndarray:
    """[draws, arm, 2]: means of scores [arm, training, task, level, 2] over trainings and levels drawn anew.

    What one training plays is no independent sample, and neither is what is played on one level: both are drawn, the levels for both arms alike.
    """
    rng, (arms, trainings, tasks, levels, _) = np.random.default_rng(0), scores.shape
    training, level = rng.integers(trainings, size=(draws, arms, trainings, 1, 1)), rng.integers(levels, size=(draws, 1, 1, tasks, levels))
    return scores[np.arange(arms)[:, None, None, None], training, np.arange(tasks)[:, None], level].mean((2, 3, 4))


def relative(means) -> np.ndarray:
    """[..., 2]: gain of the second arm over the first, of means [..., arm, 2]; infinite from nothing, 0 from nothing to nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(means[..., 1, :] / means[..., 0, :] - 1, nan=0.0, posinf=np.inf)


def transfer_curve(results: dict, root: Path, c: Transfer) -> dict:
    """Progress and success over hours of data, 95 % intervals over trainings (from one pretraining) and levels: printed, transfer.json, transfer.png."""
    from matplotlib.figure import Figure
    hours, tasks = sorted({h for h, _ in results}), list(game(c.held_out).TASKS)
    floor = np.mean([within(Job("random", c.held_out, t, 10_000 + s))["progress"] for t in tasks for s in range(c.seeds)])
    print(f"{c.held_out}, {c.repeats} trainings x {len(tasks)} tasks x {c.seeds} levels: mean and 95 % interval over trainings and levels; "
          f"a random pad's progress: {floor:.2f}\n{'hours':>6s}{'':10s}" + "".join(f"{arm:>20s}" for arm in ARMS) + f"{'relative':>24s}")
    curve, figure = [], Figure((8, 3))
    for h in hours:
        scores = np.array([results[h, arm] for arm in ARMS], float).reshape(2, c.repeats, len(tasks), c.seeds, 2)
        mean, draws = scores.mean((1, 2, 3)), resampled(scores)
        spread, gains = np.percentile(draws, [2.5, 97.5], axis=0), np.percentile(relative(draws), [2.5, 97.5], axis=0, method="nearest")
        for k, name in enumerate(("progress", "success")):
            print(f"{h:6g}  {name:8s}" + "".join(f"{mean[i, k]:8.2f} [{spread[0, i, k]:.2f}, {spread[1, i, k]:.2f}]" for i in range(2))
                  + f"{relative(mean)[k]:+9.0%} [{gains[0, k]:+.0%}, {gains[1, k]:+.0%}]")
        curve += [{"hours": h, "arm": arm, **{name: dict(zip(("mean", "low", "high"), (mean[i, k], *spread[:, i, k])))
                   for k, name in enumerate(("progress", "success"))}} for i, arm in enumerate(ARMS)]
    print("the paper's own gains in success: +10, +14 and +7 % (roguelike, 60, 120 and 240 h), +5, +25 and +52 % (3D action RPG, 30 h, by category)")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name in zip(axes, ("progress", "success")):
        for arm in ARMS:
            mean, low, high = np.array([[p[name][v] for v in ("mean", "low", "high")] for p in curve if p["arm"] == arm]).T
            ax.plot(hours, mean, "o-", label=arm)
            ax.fill_between(hours, low, high, alpha=0.2)
        ax.set_xlabel(f"hours of {c.held_out}"), ax.set_title(name), ax.set_ylim(0, 1), ax.grid(alpha=0.3)
    axes[0].axhline(floor, color="#777", ls=":", label="random pad"), axes[0].legend(fontsize=8)
    artefact.write_bytes(root / "transfer.png", png(figure))
    out = {"config": dataclasses.asdict(c), "random": floor, "curve": curve}
    artefact.write_bytes(root / "transfer.json", json.dumps(out, indent=1).encode())
    return out


# ---- speed: every stage on this machine, beside the published job ------------------------------------------------------------------

HOURS, KEPT, VIDEOS = 71_000, 40_000, 38_739        # the paper's: of raw video; of them kept; videos


@dataclass(frozen=True)
class Speed(Common):
    net: str = "auto"                   # preset that is trained and played: tiny, small or paper; auto: paper on a GPU, tiny without
    clips: int = 6                      # videos of 20 s, recorded for this
    seconds: float = 5.0                # to time the training for: data, network and both
    out: str = "data/speed.json"        # the same figures
    workers: int = os.cpu_count() or 1  # processes of record, extract and filter


def speed(c: Speed) -> list[dict]:
    """Each stage's own functions on fresh recordings, and what the published job would take this machine."""
    import torch

    import extract
    import filter
    import model
    import parse
    import train
    device, sizes = pick_device(c.device), model.CONFIGS
    net = ("paper" if device.startswith("cuda") else "tiny") if c.net == "auto" else c.net
    expect(c, clips=(1, 10_000), seconds=(0.1, 1e5), workers=(1, 4096))
    if net not in set(train.CONFIGS) & set(sizes):
        raise SystemExit(f"--net {net}: expected tiny, small, paper or auto")
    with tempfile.TemporaryDirectory(prefix="nitrogen-speed-") as folder:
        labels, shards, length = f"{folder}/labels", f"{folder}/shards", Record().seconds
        print(f"speed of every stage, {machine(device)}: about {1 + c.clips // 6 + c.seconds // 5:.0f} minutes on a quiet machine", flush=True)
        record(Record(out=f"{folder}/videos", minutes=c.clips * length / 60, seed=c.seed, workers=c.workers))
        videos, seconds = expand([f"{folder}/videos"]), {}
        extract.bank_of(library.pool(), "sift")                            # made once for all videos, and kept
        for name, workers, fn in (
                ("locate", c.workers, functools.partial(extract.label, extract.Config(out=labels))),
                ("parse", 0, functools.partial(parse.parse_video, cfg=parse.Config(out=labels, device=device))),       # all cores as it is
                ("filter", c.workers, functools.partial(filter.filter_video, c=filter.Config(labels=labels, out=shards, validation=0)))):
            taken = for_each(functools.partial(stopwatch, fn), videos, workers, f"videos to {name}")
            seconds[name] = float(np.median(taken)) / max(1, min(workers, len(videos)))         # the median: the first one loads what all need
        rates = training.main(dataclasses.replace(train.CONFIGS[net], data=shards, device=device, seed=c.seed), c.seconds)
    print("policy and simulator", flush=True)
    brain = model.accelerate(model.NitroGen(sizes[net]).to(device).eval())
    frames = np.zeros((1, artefact.FRAME, artefact.FRAME, 3), np.uint8)
    latency = flops.timed(lambda: brain.sample(frames), torch.device(device))
    bench = sim.Bench(fps=FPS)
    steps = bench.frames / sim.time_frames(launch("ridge", next(iter(game("ridge").TASKS)), c.seed), sim.StickyRandom(c.seed, menu=False), bench)[0]
    work = [{k: flops.gflop(sizes[n], 1, draws=train.CONFIGS[n].draws) if k == "train" else flops.gflop(sizes[n], 1, sizes[n].steps) for k in ("train", "policy")}
            for n in (net, "paper")]
    rows = beside_paper({"locate": 1 / seconds["locate"], **{k: length * FPS / seconds[k] for k in ("parse", "filter")}, "train": rates["both"],
                         "policy": 1 / latency, "simulator": steps}, {k: work[1][k] / work[0][k] for k in work[0]}, train.CONFIGS["paper"])
    print_speed(rows, net)
    artefact.write_bytes(c.out, json.dumps({"machine": machine(device), "device": device, "net": net, "stages": rows}, indent=1).encode())
    return rows


def stopwatch(fn, video: str) -> float:
    """Seconds of fn(video)."""
    began = time.perf_counter()
    fn(video)
    return time.perf_counter() - began


def beside_paper(rates: dict, heavier: dict, paper) -> list[dict]:
    """Per stage, in the order of the data: units a second here, units of the published job, how often as much work each of its units is
    as the one that was measured (heavier), and so the days that this machine alone would need."""
    play = sum(t.seconds for name in game_names() for t in game(name).TASKS.values()) * Play.seeds * FPS
    frames = HOURS * 3600 * FPS
    jobs = {"locate": (VIDEOS, "videos", f"{VIDEOS:,} videos, {HOURS:,} h"), "parse": (frames, "frames", f"{HOURS:,} h at {FPS} frames/s"),
            "filter": (frames, "frames", f"{HOURS:,} h read, {KEPT:,} h kept"),
            "train": (paper.batch * paper.steps, "samples", f"{paper.steps:,} steps of {paper.batch:,} = {paper.batch * paper.steps / (KEPT * 3600 * FPS):.2f} x {KEPT:,} h"),
            "policy": (play / Play.execute, "chunks", f"the suite: {play / FPS / 3600:.0f} h of play, {Play.execute} actions a chunk"),
            "simulator": (play, "steps", f"the suite, {FPS} steps/s of play")}
    return [{"stage": k, "rate": rates[k], "unit": f"{unit}/s", "amount": n, "job": job, "heavier": heavier.get(k, 1.0),
             "days": n * heavier.get(k, 1.0) / rates[k] / 86400} for k, (n, unit, job) in jobs.items()]


def print_speed(rows: list[dict], net: str) -> None:
    total, most = sum(r["days"] for r in rows), max(rows, key=lambda r: r["days"])
    print(f"\n{'stage':10s} {'measured here':>30s}   {'published job':48s} {'machine-days':>12s} {'share':>6s}")
    for r in rows:
        if r["stage"] == "locate":
            here = f"{3600 * r['rate']:,.0f} videos/h"
        elif r["stage"] == "policy":
            here = f"{1e3 / r['rate']:,.1f} ms a chunk, {net}"
        else:
            more = {"parse": f", {r['rate'] / FPS:.1f} x real time", "filter": f", {r['rate'] / FPS:.1f} x real time", "train": f", {net}"}.get(r["stage"], "")
            here = f"{r['rate']:,.{1 if r['rate'] < 100 else 0}f} {r['unit']}{more}"
        print(f"{r['stage']:10s} {here:>30s}   {r['job']:48s} {r['days']:12,.1f} {r['days'] / total:6.1%}")
    scaled = {r["stage"]: r["heavier"] for r in rows if r["heavier"] != 1}
    print(f"Most would cost {most['stage']}: {most['days'] / total:.0%} of {total:,.0f} days of this machine.\nScaled: videos as here, {WIDTH} x {HEIGHT} at {FPS} frames/s, one search "
          "a video however long; steps and batch are train.py's choice, the paper does not give them"
          + "".join(f"; {k}: days x {v:,.0f}, the paper's network for {net} by arithmetic" for k, v in scaled.items()) + ".")


def main(argv=None):
    command_line(__doc__, {"record": (Record, record), "overlay": (Overlay, overlay), "play": (Live, live), "serve": (Serve, serve),
                               "transfer": (Transfer, transfer), "ablate": (Ablate, ablate), "speed": (Speed, speed), "tasks": (Common, tasks)}, argv)


if __name__ == "__main__":
    main()
