"""eval.py: demonstrations, closed-loop play, and the extraction benchmark (paper sections 2.1 and
3).

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
record  writes OUT/<game>-<n>.mp4, and beside each <game>-<n>.truth.safetensors with the true
actions (nitrogen.actions/1,
        unit "normalized").  Truth is for scoring only: the pipe reads the overlay.
play    OUT/report.html (tables, plots, film strips), report.json (the same numbers), films/*.mp4 of the best and worst episodes,
        episodes/*.json: one per episode, so that the same command goes on where it was stopped, and more seeds play only the new ones.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import json
import math
import os
import sys
import textwrap
import time
import typing
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, Many, command_line, expect, recipe_of, wing
from common.pictures import RatedWriter, VideoWriter
from common.workers import for_each

import numpy as np

import sim
from clock.base import GameError
from devices import sandbox
from templates import library, pads, presets, render

FPS = 30  # games are recorded and played at the policy's rate
FIRST_GAMES = "ridge,crypt,rally"  # the three of `train.py --config tiny`
WIDTH, HEIGHT = 960, 540  # of the recordings
LAPSES = 3  # CHOICE: seconds from one to the next, on average, with record --astray


# ---- the games -----------------------------------------------------------------------------------


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
    command = [
        sys.executable,
        str(ROOT / "games" / f"{name}.py"),
        "--task",
        task,
        "--seed",
        "{seed}",
        "--fps",
        str(FPS),
    ]
    return sim.GameEnv(command, fps=FPS, seed=seed, **options)


# ---- record --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record(Many):
    out: str = "data/videos"  # folder
    minutes: float = 10.0  # of play in all
    seconds: float = 20.0  # per video
    games: str = FIRST_GAMES  # built-in games, in turn; or all
    # families of built-in overlays, as in ps4,ps5, or a folder of skins; none: those with both
    # sticks
    overlays: str = ""
    # who plays: expert; or mixed: in every other video chance does, on all buttons
    player: str = "expert"
    # share of episodes in which chance takes the pad now and then, unfilmed: the expert shows the
    # way back
    astray: float = 0.0
    # policy that takes it in every other of these lapses, for longer: the way back from its own
    # mistakes
    learner: str = ""
    smallest: float = 0.24  # width of the overlay, of the frame's: from
    largest: float = 0.34  # to
    faintest: float = 0.7  # opacity: from; to 1
    rate: float = 0.0  # bits per pixel, as H.264 (pip install av); 0: MPEG-4 as OpenCV writes it
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


def choice_of(overlays: str):
    """What --overlays names: (templates by name, each drawn when asked for; groups of their names:
    videos take the groups in turn, and any of theirs).
    """
    if overlays and Path(overlays).is_dir():
        skins = presets.read_skins(overlays)
        return skins, [[n] for n in sorted(skins)]
    pool = library.templates()
    # the pipe's own recordings: looks that the parser was trained on, and these games need sticks
    if not overlays:
        return pool, [[n for n in sorted(pool) if not pads.held_out(n) and pads.two_sticks(n)]]
    if unknown := set(overlays.split(",")) - set(pads.FAMILIES):
        raise SystemExit(
            f"--overlays {overlays}: no folder, and no family such as {', '.join(sorted(unknown))}; there are {', '.join(pads.FAMILIES)}"
        )
    return pool, [
        [n for n in sorted(pool) if n.partition("-")[0] == f] for f in overlays.split(",")
    ]


def record(c: Record) -> None:
    expect(
        c,
        minutes=(0, math.inf),
        seconds=(0.1, 1e6),
        smallest=(0.02, 1),
        largest=(c.smallest, 1),
        faintest=(0.01, 1),
        rate=(0, 100),
    )
    n = max(1, round(60 * c.minutes / c.seconds))
    names = named_games(c.games)
    c = dataclasses.replace(c, games=",".join(names))
    if c.player not in ("expert", "mixed"):
        raise SystemExit(f"--player {c.player}: there is expert and mixed")
    if not 0 <= c.astray <= 1:
        raise SystemExit(f"--astray {c.astray:g}: a share of the episodes, 0 to 1")
    if c.learner:
        artefact.read(c.learner, "nitrogen.policy/1")  # one clear line now, not one per video
        if not c.astray:
            raise SystemExit("--learner plays in the lapses of --astray: give both")
    choice_of(c.overlays)
    jobs = [f"{names[i % len(names)]}-{i:03d}" for i in range(n)]
    frames = for_each(functools.partial(record_video, c=c), jobs, c.workers, ray=c.ray)
    print(f"{n} videos, {sum(frames):,} frames at {FPS}/s of {WIDTH} x {HEIGHT} -> {c.out}")


def record_video(stem: str, c: Record) -> int:
    """Episodes of one game, back to back, task after task; the pad of each row is in force while
    its frame is drawn.
    """
    import cv2

    video, truth = Path(c.out) / f"{stem}.mp4", Path(c.out) / f"{stem}.truth.safetensors"
    recipe = {**recipe_of(c, *([c.learner] if c.learner else [])), "stem": stem}
    recipe.pop("minutes")  # more videos do not change this one
    for flag in ("astray", "learner"):
        if not recipe[flag]:
            recipe.pop(flag)  # as before there was this flag
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
    x, y = (
        int(rng.integers(8, 25)) if rng.random() < 0.5 else limit - int(rng.integers(8, 25)) - size
        for limit, size in ((WIDTH, w), (HEIGHT, h))
    )
    tasks = list(game(name).TASKS)
    first = int(rng.integers(len(tasks)))
    buttons, sticks, episodes = (
        np.zeros((length, 16), np.uint8),
        np.zeros((length, 4), np.float32),
        [],
    )
    # of the game's own pixels, before anything is drawn in
    frames = hashlib.blake2b(digest_size=16)
    row = 0
    with (
        RatedWriter(video, (WIDTH, HEIGHT), c.rate)
        if c.rate
        else VideoWriter(video, FPS, WIDTH, HEIGHT) as out
    ):
        while row < length:
            task, seed = tasks[(first + len(episodes)) % len(tasks)], int(rng.integers(1 << 31))
            episodes.append({"row": row, "task": task, "seed": seed})
            expert = sim.StickyRandom(seed) if chance else Expert(name, seed)
            pad = np.zeros(16, np.uint8), np.zeros(4, np.float32)
            # who, for s at most
            others, lapse, disturbed = (
                [(sim.StickyRandom(seed + 1), 1)],
                0,
                c.astray > 0 and rng.random() < c.astray,
            )
            # as DAgger (arXiv 1011.0686) visits what the learner visits
            if disturbed and c.learner:
                others.append((Policy(c.learner, "cpu", Play.execute, Play.steps, seed), 4))
            with launch(name, task, seed) as env:
                frame, info = env.reset(seed=seed)
                for _ in range(round(game(name).TASKS[task].seconds * FPS) + FPS):
                    if not lapse:
                        frames.update(shown := env.render())
                        picture = cv2.resize(shown, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
                        render.composite(
                            picture, render.draw(template, *pad, scale=scale), x, y, opacity
                        )
                        out.write(picture)
                        buttons[row], sticks[row] = pad
                        row += 1
                    if row == length or info["score"]["over"]:
                        break
                    pad = expert(None, info)
                    if chance:  # both ways at once: a d-pad shows neither
                        pad[0][:4] *= ~(pad[0][:4] & pad[0][[1, 0, 3, 2]]).astype(bool)
                    lapse = max(0, lapse - 1)
                    if disturbed and not lapse and rng.random() < 1 / (LAPSES * FPS):
                        other, longest = others[rng.integers(len(others))]
                        lapse = int(rng.integers(FPS // 5, longest * FPS + 1))
                    pressed = other(frame, info) if lapse else pad
                    frame, _, _, _, info = env.step({"buttons": pressed[0], "sticks": pressed[1]})
                episodes[-1] |= {
                    "success": bool(info["score"]["success"]),
                    "progress": info["score"]["progress"],
                }
    artefact.write(
        truth,
        {
            "buttons": buttons.astype(np.float16),
            "sticks": sticks,
            "shown": np.ones(20, bool),
            "confidence": np.ones(length, np.float16),
            "time": np.arange(length) / FPS,
        },
        "nitrogen.actions/1",
        unit="normalized",
        fps=FPS,
        game=name,
        recipe=recipe,
        template=template.name,
        family=template.family,
        opacity=float(opacity),
        box=[x, y, w, h],
        episodes=episodes,
        frames=frames.hexdigest(),
    )
    return length


# The rules that extract.py is compared with.  A detector: function(RGB) -> points [n, 2] px, unit
# descriptors [n, d]; then the matcher, function(a template's descriptors, a frame's) -> for each of
# the first the number of its match, or -1.


# ---- players -------------------------------------------------------------------------------------


class Policy:
    """The network at the pad: looks, plans a chunk, plays its first `execute` actions, looks again."""

    def __init__(self, path: str, device: str, execute: int, steps: int, seed: int):
        import torch

        self.net, self.execute, self.steps, self.plan = (
            network(path, device),
            execute,
            steps or None,
            [],
        )
        self.rng = torch.Generator().manual_seed(seed)

    def __call__(self, frame, info):
        import torch

        if not self.plan:
            c = self.net.c
            noise = torch.randn(1, c.horizon, len(c.actions), generator=self.rng)
            act = self.net.act(frame[None], noise, self.steps)
            self.plan = list(zip(act["buttons"][0].astype(np.uint8), act["sticks"][0]))[
                :: stride(c.rate)
            ][: self.execute]
        return self.plan.pop(0)


@functools.lru_cache(maxsize=2)
def network(path: str, device: str):
    import torch

    import model

    if "OMP_NUM_THREADS" in os.environ:  # one of several workers
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return model.load(path, device)


class Expert:
    """The scripted player of a built-in game; it reads the score block."""

    def __init__(self, name: str, seed: int):
        self.play = game(name).Expert(seed)

    def __call__(self, frame, info):
        return self.play(info["score"])


class Held:
    """The left stick pushed one way and the right trigger held, for ever; (0, 0) without the
    trigger is no input at all.
    """

    def __init__(self, x: float = 0.0, y: float = 0.0):
        self.buttons, self.sticks = np.zeros(16, np.uint8), np.array([x, y, 0, 0], np.float32)
        self.buttons[artefact.BUTTONS.index("RIGHT_TRIGGER")] = bool(x or y)

    def __call__(self, frame, info):
        return self.buttons, self.sticks


PLAYERS = ("policy", "random", "held", "none", "expert")
WAYS = ((1, 0), (0, -1), (-1, 0), (0, 1))  # held: another one with each seed


# ---- play: the suite -----------------------------------------------------------------------------

CATEGORIES = ("combat", "navigation", "specific")
# and their genres
GROUPS = {
    "3D": ("open world", "action RPG", "sports"),
    "2D top-down": ("roguelike",),
    "2D side-scroller": ("2D side-scroller",),
}
PUBLISHED = {
    "3D": (61.2, 55.0, 56.3),
    "2D top-down": (46.0, 52.0, 61.5),
    "2D side-scroller": (44.8, 37.9, 54.0),
}
# % of the paper's own tasks, by category: other games, judged by people (read off its figure)
QUICK = 36  # episodes of each player with --quick


@dataclass(frozen=True)
class Play(Many):
    policy: str = "weights/policy.safetensors"  # what train.py made
    games: str = "all"  # built-in games, as in ridge,duel; or all
    tasks: str = "all"  # of theirs: names or categories, as in reach,combat
    seeds: int = 20  # episodes per task and player
    # at most 36 episodes of each player (with --suite 4 a task), spread over the tasks: six minutes
    # on two cores with `small`
    quick: bool = False
    execute: int = 8  # actions played of each chunk before the policy looks again
    steps: int = 0  # denoising steps (0: as the model says)
    # folder of the report (default: one in data/play for this policy and these settings)
    out: str = ""
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
        raise SystemExit(
            f"{c.policy}: no such policy; train one, python train.py --config tiny, and give --policy runs/tiny/model.safetensors"
        )
    # one clear line now, not one per worker
    timing = artefact.read(c.policy, "nitrogen.policy/1")[1]["model"]
    there = len(range(0, timing["horizon"], stride(timing["rate"])))
    if not 1 <= c.execute <= there:
        raise SystemExit(
            f"--execute {c.execute}: this policy's chunks hold {there} actions at {FPS} a second; give 1 to {there}"
        )
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
    settings = {
        "policy": artefact.source(c.policy)["sha256"],
        "execute": c.execute,
        "steps": c.steps,
        "seed": c.seed,
        "games": games_digest(),
    }
    c = with_folder(c, settings)
    jobs = [
        Job(p, n, t, 10_000 * (c.seed + 1) + s)
        for s in range(seeds)
        for n, t in suite
        for p in PLAYERS
    ]
    left = [j for j in jobs if not kept(j, c, settings)]
    print(
        f"{len(suite)} tasks, {seeds} episodes of each by {', '.join(PLAYERS)}: {len(jobs)} episodes, {len(jobs) - len(left)} are there -> {c.out}",
        flush=True,
    )
    began = time.time()
    if left:
        for_each(
            functools.partial(episode, c=c, settings=settings), left, c.workers, "episodes", c.ray
        )
        mine = sum(j.player == "policy" for j in left)
        print(
            f"{len(left)} episodes, {mine} of them by the policy, in {(time.time() - began) / 60:.1f} minutes: "
            f"{60 * mine / (time.time() - began):.0f} of the policy's a minute"
        )
    records = [kept(j, c, settings, crashed=True) for j in jobs]
    films = wing("bench.report").film_suite(records, c)
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
        raise SystemExit(
            f"--tasks {tasks}: {games} has no task or category '{min(unknown)}' (python eval.py tasks)"
        )
    return [pair for pair in suite if words[pair] & set(tasks.split(","))]


def games_digest() -> str:
    """Of the code of all games: with another, episodes are others."""
    return hashlib.sha256(
        b"".join(p.read_bytes() for p in sorted((ROOT / "games").glob("*.py")))
    ).hexdigest()


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
        raise SystemExit(
            f"{path}: played with another {', '.join(other)}; give another --out, or --fresh to replace it"
        )
    return record if crashed or not (record["crash"] or c.fresh) else None


def built_in(job: Job, c: Play) -> dict:
    return through(job, c) if job.player == "policy" else within(job)


def episode(job: Job, c: Play, settings: dict, play=built_in) -> dict:
    """Play it, and keep what came of it in OUT/episodes.  A game that crashes is a failure, and
    does not stop the rest.
    """
    score, crash = {"progress": 0.0, "success": False, "time": 0.0}, ""
    try:
        score = play(job, c)
    except GameError as e:
        crash = str(e)
    record = {
        **job._asdict(),
        "progress": float(score["progress"]),
        "success": bool(score["success"]),
        "seconds": score["time"],
        "crash": crash,
        "settings": settings,
    }
    artefact.write_bytes(Path(c.out) / "episodes" / f"{job}.json", json.dumps(record).encode())
    return record


def through(job: Job, c: Play, show=None) -> dict:
    """The last score of an episode of the policy, through GameEnv; show(picture, pad, score) sees
    every frame.
    """
    import torch

    agent = Policy(c.policy, c.device, c.execute, c.steps, job.seed)
    torch.set_num_threads(1)  # the worker's one CPU; and the same sums, however many workers
    with launch(job.game, job.task, job.seed) as env:
        frame, info = env.reset(seed=job.seed)
        while not info["score"]["over"]:
            pad = agent(frame, info)
            frame, _, ended, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
            if ended:
                raise GameError(how_it_ended(env, info))
            if show:
                show(env.render(), pad, info["score"])
        return info["score"]


def how_it_ended(env, info) -> str:
    return (
        f"the game ended with status {env.clock.returncode} after {info['time']:.1f} s: "
        f"{sandbox.last_line(env.stage.path / 'stderr', 'it said nothing on stderr')}"
    )


def within(job: Job, show=None) -> dict:
    """The last score of a player that does not look at the picture: the same world in this process,
    frame by frame, but not drawn.

    Twenty times as fast as through GameEnv, where it moves alike (tests/test_eval.py).
    """
    agent = {
        "expert": lambda: Expert(job.game, job.seed),
        "random": lambda: sim.StickyRandom(job.seed),
        "none": Held,
        "held": lambda: Held(*WAYS[job.seed % 4]),
    }[job.player]()
    # nobody touches the pad in frame 0
    world, pad = game(job.game).Game(job.task, job.seed), Held()(None, None)
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
    """Share of successes and its 95 % Wilson score interval (E. B. Wilson, 1927), which holds for
    few episodes and near 0 and 1.
    """
    share, middle, spread = (
        successes / n,
        successes / n + z * z / (2 * n),
        z * (successes * (n - successes) / n**3 + z * z / (4 * n * n)) ** 0.5,
    )
    return (
        share,
        max(0.0, (middle - spread) / (1 + z * z / n)),
        min(1.0, (middle + spread) / (1 + z * z / n)),
    )


# ---- play: the report ----------------------------------------------------------------------------


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
    """Completed (share and Wilson interval) and progress (mean and bootstrap interval) of some
    episodes.
    """
    return {
        "episodes": len(records),
        "success": wilson(sum(r["success"] for r in records), len(records)),
        "progress": interval([r["progress"] for r in records]),
    }


def tables(suite, records: list[dict]) -> dict:
    """Summaries by task, and by row (groups of games, their genres, all) and column (categories,
    all) of the paper's figure; by player.
    """

    def by_player(wanted) -> dict:
        return {
            p: summary(mine)
            for p in PLAYERS
            if (mine := [r for r in records if r["player"] == p and wanted(r)])
        }

    category = {pair: game(pair[0]).TASKS[pair[1]].category for pair in suite}
    rows = {}
    for group, genres in GROUPS.items():
        rows[group] = lambda r, group=group: group_of(r["game"]) == group
        rows |= {g: lambda r, g=g: genre(r["game"]) == g for g in genres if len(genres) > 1}
    rows["all"] = lambda r: True
    cells = {
        row: {
            col: cell
            for col in (*CATEGORIES, "all")
            if (
                cell := by_player(
                    lambda r: inside(r) and col in (category[r["game"], r["task"]], "all")
                )
            )
        }
        for row, inside in rows.items()
    }
    tasks = [
        {
            "game": n,
            "task": t,
            "genre": genre(n),
            "category": category[n, t],
            "goal": game(n).TASKS[t].goal,
            "seconds": game(n).TASKS[t].seconds,
            **by_player(lambda r: (r["game"], r["task"]) == (n, t)),
        }
        for n, t in suite
    ]
    return {"cells": {row: cols for row, cols in cells.items() if cols}, "tasks": tasks}


def percent(s: dict) -> str:
    """A summary's successes, as in 45 [26, 66]."""
    return "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * v for v in s["success"]))


def cell(s: dict | None) -> str:
    """The same and the mean progress, as in 45 [26, 66] (0.61)."""
    return f"{percent(s)} ({s['progress'][0]:.2f})" if s else "-"


def write_report(
    c: Play, settings: dict, suite, seeds: int, records: list[dict], films: list[dict]
) -> dict:
    """Print the tables; OUT/report.json, OUT/report.html."""
    seen = sorted(artefact.read(c.policy, "nitrogen.policy/1")[1].get("games") or ())
    report = {
        "format": "nitrogen.play/1",
        "policy": artefact.source(c.policy),
        "trained_on": seen,
        "settings": settings,
        "quick": c.quick,
        "seeds": seeds,
        **tables(suite, records),
        "crashes": [{k: r[k] for k in (*Job._fields, "crash")} for r in records if r["crash"]],
        "films": [
            {
                "what": f["what"],
                "film": f"films/{f['film'].name}",
                **{k: f["record"][k] for k in ("game", "task", "seed", "progress", "success")},
            }
            for f in films
        ],
        "episodes": [
            {k: r[k] for k in (*Job._fields, "progress", "success", "seconds")} for r in records
        ],
    }
    print_report(report)
    artefact.write_bytes(Path(c.out) / "report.json", json.dumps(report, indent=1).encode())
    artefact.write_bytes(
        Path(c.out) / "report.html",
        wing("bench.report").report_page(report, [f["strip"] for f in films]).encode(),
    )
    print(f"report -> {c.out}/report.html, report.json; films -> {c.out}/films")
    return report


LEGEND = (
    "Completed tasks in %, with the 95 % Wilson interval over episodes; in brackets ( ) the mean progress, 0..1; its intervals are bootstrapped.  "
    "Beside, over all categories: random: every button and axis drawn anew and held for 0.1-1 s; held: the left stick one way and the right trigger, for "
    "ever; none: no input; expert: the game's scripted player, which reads the score block.  paper: its own 30 tasks on commercial games, judged by people."
)


def print_report(report: dict) -> None:
    """Groups x categories as in the paper's figure, then task by task."""
    floors = ("random", "held", "none", "expert")
    brief = lambda s: f"{100 * s['success'][0]:.0f} ({s['progress'][0]:.2f})" if s else "-"
    print(
        f"\n{textwrap.fill(LEGEND, 150)}\n\n{quick_note(report)}\n\n{'the policy':18s}"
        + "".join(f"{col:>22s}" for col in (*CATEGORIES, "all"))
        + "".join(f"{p:>12s}" for p in floors)
    )
    for row, cols in report["cells"].items():
        print(
            f"{row if row in GROUPS or row == 'all' else '  ' + row:18s}"
            + "".join(
                f"{cell(cols.get(col, {}).get('policy')):>22s}" for col in (*CATEGORIES, "all")
            )
            + "".join(f"{brief(cols['all'].get(p)):>12s}" for p in floors)
        )
        if row in PUBLISHED:
            print(f"{'  paper':18s}" + "".join(f"{v:15.1f}       " for v in PUBLISHED[row]))
    print(
        f"\n{'task':18s}{'category':12s}{'policy: %':>14s}{'progress':>20s}"
        + "".join(f"{p:>12s}" for p in floors)
    )
    for t in report["tasks"]:
        mine = t["policy"]
        print(
            f"{t['game'] + ' ' + t['task']:18s}{t['category']:12s}{percent(mine):>14s}{'{:.2f} [{:.2f}, {:.2f}]'.format(*mine['progress']):>20s}"
            + "".join(f"{brief(t[p]):>12s}" for p in floors)
        )
    print_crashes(report["crashes"])


def print_crashes(records: list[dict]) -> None:
    for r in records:
        if r["crash"]:
            print(
                f"crashed, counted as a failure: {r['game']} {r['task']}, seed {r['seed']}, {r['player']}: {r['crash']}"
            )


def quick_note(report: dict) -> str:
    seen = (
        f"; the policy was trained on {', '.join(report['trained_on'])}"
        if report["trained_on"]
        else ""
    )
    return f"{report['seeds']} episodes per task and player{seen}" + (
        "; QUICK: too few for a verdict on a task, run it without --quick"
        if report["quick"]
        else ""
    )


def tasks(c: Common) -> None:
    counts = dict.fromkeys(CATEGORIES, 0)
    for name in by_genre(game_names()):
        print(
            f"{' / '.join(dict.fromkeys((group_of(name), genre(name))))}: {(game(name).__doc__ or '').strip().splitlines()[0]}"
        )
        for key, t in game(name).TASKS.items():
            counts[t.category] += 1
            print(f"  {key:10s} {t.category:10s} {t.seconds:4.0f} s  {t.goal}")
    print(
        f"{sum(counts.values())} tasks: {', '.join(f'{n} {category}' for category, n in counts.items())}"
    )


# ---- live play: the policy at the pad of your own game -------------------------------------------
# The game stands still while the policy thinks (exact, repeatable), or runs on while it does
# (--realtime); the policy is here, or on another machine (--remote, serve).  A person at a window
# (--window) takes the pad by touching it, and gives it back by letting go.


# ---- live play: a table of tasks in real games ---------------------------------------------------
# What a task says: goal in words; command, fps, seconds; gamepad, screen and keys, as for sim.GameEnv; files to put into the game's home:
# {name: text}, a copy of another file, {"of"}, or one with a part replaced, {"of", "find", "put"}; start and end: macros of seconds, buttons and
# X keys; its score, one of
#   {"stderr": pattern of a number, "from", "goal"}   {"file": in its home, "struct": with one number, "from", "goal"}   {"exit": status}
#   {"picture": a PNG beside the table, "like": 0..1}: part of the frame when it is done.   "{home}" in the command stands for its home.


# ---- live play: the policy on another machine ----------------------------------------------------


COMMANDS = {
    "record": (Record, record),
    "overlay": "bench.overlay",
    "play": "live.play",
    "serve": "live.server",
    "transfer": "bench.transfer",
    "ablate": "bench.ablate",
    "speed": "bench.speed",
    "tasks": (Common, tasks),
}


def main(argv=None):
    command_line(__doc__, COMMANDS, argv)


if __name__ == "__main__":
    main()
