"""eval.py: demonstrations, closed-loop play, and the extraction benchmark (paper 2.1 and 3).

    python eval.py record --out data/videos --minutes 10
        scripted experts play the built-in games into mp4 files
    python eval.py overlay [--adapt MINUTES]
        fresh recordings: how well are their overlays read?
    python eval.py overlay data/videos --labels data/labels
        the same on recordings that are already parsed
    python eval.py overlay --stage locate [--share 0.1]
        where is the overlay, and which?  240 videos, 200 without
    python eval.py play --policy FILE --seeds 20
        the suite: ten games, thirty tasks (--games, --tasks, --quick); at each --delay, in ms
    python eval.py play --policy FILE [--realtime] [--window --record DIR] -- COMMAND ARG...
        your own game: it waits for the policy, or it does not; take the pad, and keep that
    python eval.py play --policy FILE --suite open
        free Linux games, or a table of yours (assets/open.json is one)
    python eval.py serve --policy FILE
        the policy for a game on another machine
    python eval.py play --remote HOST:PORT --token FILE -- COMMAND ARG...
        on that machine: its game is played by the policy that is served here
    python eval.py transfer --held-out ridge
        does pretraining on the nine other games help?  a curve over hours of data
    python eval.py ablate --data data/tiny
        the published commands with one flag changed at a time
    python eval.py corrections [--tasks grove-trail]
        a person's corrections against as many minutes of demonstrations: progress before and after
    python eval.py presses --policy FILE --data DIR
        buttons that it never presses, in frames of shards
    python eval.py speed
        every stage on this machine, beside the paper-scale job
    python eval.py tasks
        the built-in games and their tasks

record  writes OUT/<game>-<n>.mp4, and beside each <game>-<n>.truth.safetensors with the true
        actions (nitrogen.actions/1, unit "normalized").  Truth is for scoring only: the pipe
        reads the overlay.
play    OUT/report.html (tables, plots, film strips), report.json (the same numbers), films/*.mp4
        of the best and worst episodes, episodes/*.json: one per episode, so that the same command
        goes on where it was stopped, and more seeds play only the new ones.
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
import typing
import zlib
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact, layout, playing
from common.command_line import Many, command_line, expect, recipe_of
from common.history import History
from common.pictures import VideoWriter
from common.plan import FADE, Delayed, think
from common.statistics import interval, wilson
from common.workers import for_each

import numpy as np

import sim
from clock.base import GameError
from devices import sandbox
from templates.overlay import Overlay, choice_of

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
    command = [sys.executable, str(ROOT / "games" / f"{name}.py"), "--task", task]
    command += ["--seed", "{seed}", "--fps", str(FPS)]
    return sim.GameEnv(command, fps=FPS, seed=seed, **options)


# ---- players -------------------------------------------------------------------------------------
# A player is a function (frame uint8 [256, 256, 3], info) -> (buttons uint8 [16], sticks [4]).


class Policy:
    """The network at the pad: it plans a chunk, plays `execute` of its actions, plans again.

    delay: frames that pass before what it planned comes into force, see Delayed.
    """

    def __init__(self, path, device, execute: int, steps: int, seed: int, delay: int = 0):
        self.net = network(path, device, steps)
        self.steps = steps or None
        self.rng = playing.generator(self.net, seed)
        self.history = History(vars(self.net.c), FPS)
        self.rows = Delayed(self.think, execute, delay, fade=0 if self.net.c.prefix else FADE)

    def __call__(self, frame, info):
        pad = layout.pad_of(self.rows(self.history(frame)))
        return pad["buttons"].astype(np.uint8), pad["sticks"]

    def think(self, frame, under_way):
        every = stride(self.net.c.rate)
        under_way = np.repeat(under_way, every, axis=0)
        return think(self.net, frame, self.rng, self.steps, under_way)[::every]


@functools.lru_cache(maxsize=2)
def network(path: str, device: str, steps: int = 0):
    """A model.NitroGen, or what model.py export made of one: that needs no torch."""
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))  # set in one of several workers
    if path.endswith(".onnx"):
        return playing.Exported(path, device, steps, threads)
    import torch

    import model

    if threads:
        torch.set_num_threads(threads)
    return model.load(path, device)


def stride(rate: float) -> int:
    """Actions of a chunk per frame of play: the released network acts 60 times a second."""
    return max(1, round(rate / FPS))


class Expert:
    """The scripted player of a built-in game; it reads the score block."""

    def __init__(self, name: str, seed: int):
        self.play = game(name).Expert(seed)

    def __call__(self, frame, info):
        return self.play(info["score"])


class ConstantPad:
    """The left stick at (x, y) and the right trigger held, in every frame; at (0, 0) nothing is
    held.
    """

    def __init__(self, x: float = 0.0, y: float = 0.0):
        self.buttons = np.zeros(16, np.uint8)
        self.buttons[artefact.BUTTONS.index("RIGHT_TRIGGER")] = bool(x or y)
        self.sticks = np.array([x, y, 0, 0], np.float32)

    def __call__(self, frame, info):
        return self.buttons, self.sticks


PLAYERS = ("policy", "random", "held", "none", "expert")
WAYS = ((1, 0), (0, -1), (-1, 0), (0, 1))  # held: another one with each seed


# ---- record --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record(Many):
    out: str = "data/videos"  # folder
    minutes: float = 10.0  # of play in all
    seconds: float = 20.0  # per video
    games: str = FIRST_GAMES  # built-in games, in turn; or all
    # families of built-in overlays, as ps4,ps5, or a folder of skins; none: all with both sticks
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
    rate: float = 0.0  # bits per pixel; 0: as many as good quality takes
    workers: int = os.cpu_count() or 1  # processes; 0: this one; with --ray local its CPUs


def record(c: Record) -> None:
    names = named_games(c.games)
    c = dataclasses.replace(c, games=",".join(names))
    check_record(c)
    videos = max(1, round(60 * c.minutes / c.seconds))
    stems = [f"{names[i % len(names)]}-{i:03d}" for i in range(videos)]
    frames = for_each(functools.partial(record_video, c=c), stems, c.workers, ray=c.ray)
    print(f"{videos} videos, {sum(frames):,} frames at {FPS}/s of {WIDTH} x {HEIGHT} -> {c.out}")


def check_record(c: Record) -> None:
    """SystemExit if a flag makes no sense: one line now, not one per video."""
    expect(c, minutes=(0, math.inf), seconds=(0.1, 1e6), rate=(0, 100))
    expect(c, smallest=(0.02, 1), largest=(c.smallest, 1), faintest=(0.01, 1))
    if c.player not in ("expert", "mixed"):
        raise SystemExit(f"--player {c.player}: there is expert and mixed")
    if not 0 <= c.astray <= 1:
        raise SystemExit(f"--astray {c.astray:g}: a share of the episodes, 0 to 1")
    if c.learner:
        playing.about(c.learner)
        if not c.astray:
            raise SystemExit("--learner plays in the lapses of --astray: give both")
    choice_of(c.overlays)


def record_video(stem: str, c: Record) -> int:
    """Record OUT/STEM.mp4 and its truth: episodes of one game, back to back, task after task.

    Row i of the truth is the pad in force while frame i was drawn.  Returns the number of frames.
    """
    video = Path(c.out) / f"{stem}.mp4"
    truth = video.with_suffix(".truth.safetensors")
    recipe = recording_recipe(stem, c)
    length = round(c.seconds * FPS)
    if artefact.finished(truth, "nitrogen.actions/1", recipe, c.fresh) and video.exists():
        return length
    name, number = stem.rsplit("-", 1)
    rng = np.random.default_rng([c.seed, int(number), zlib.crc32(name.encode())])
    template = draw_template(rng, int(number), c)
    by_chance = c.player == "mixed" and rng.random() < 0.5
    overlay = Overlay.draw(rng, template, (c.smallest, c.largest), c.faintest, (WIDTH, HEIGHT))
    buttons = np.zeros((length, 16), np.uint8)
    sticks = np.zeros((length, 4), np.float32)
    digest = hashlib.blake2b(digest_size=16)  # of the game's pixels, before the overlay
    episodes = []
    with VideoWriter(video, FPS, WIDTH, HEIGHT, c.rate) as out:
        filmed = demonstration(name, length, by_chance, rng, c, episodes)
        for row, (picture, pad) in enumerate(filmed):
            digest.update(picture)
            buttons[row], sticks[row] = pad
            out.write(overlay.over(picture, pad))
    tensors = {
        "buttons": buttons.astype(np.float16),
        "sticks": sticks,
        "shown": np.ones(20, bool),
        "confidence": np.ones(length, np.float16),
        "time": np.arange(length) / FPS,
    }
    about = {
        "unit": "normalized",
        "fps": FPS,
        "game": name,
        "recipe": recipe,
        "template": template.name,
        "family": template.family,
        "opacity": overlay.opacity,
        "box": overlay.box,
        "episodes": episodes,
        "frames": digest.hexdigest(),
    }
    artefact.write(truth, tensors, "nitrogen.actions/1", **about)
    return length


def recording_recipe(stem: str, c: Record) -> dict:
    """What decides a video."""
    sources = [c.learner] if c.learner else []
    recipe = {**recipe_of(c, *sources), "stem": stem}
    recipe.pop("minutes")  # more videos do not change this one
    # recordings older than these flags stay valid
    return {k: v for k, v in recipe.items() if v or k not in ("astray", "learner")}


def draw_template(rng, number: int, c: Record):
    pool, groups = choice_of(c.overlays)
    group = groups[number // len(c.games.split(",")) % len(groups)]
    return pool[group[rng.integers(len(group))]]


def demonstration(name: str, length: int, by_chance: bool, rng, c: Record, episodes: list):
    """Yield (picture, pad in force) for the `length` filmed frames; describe each episode in
    `episodes`.
    """
    tasks = list(game(name).TASKS)
    first = int(rng.integers(len(tasks)))
    row = 0
    while row < length:
        task = tasks[(first + len(episodes)) % len(tasks)]
        seed = int(rng.integers(1 << 31))
        episodes.append({"row": row, "task": task, "seed": seed})
        player = AllButtons(seed) if by_chance else Expert(name, seed)
        lapses = Lapses(rng, seed, c)
        most = round(game(name).TASKS[task].seconds * FPS) + FPS
        with launch(name, task, seed) as env:
            filmed, score = yield from film_episode(env, seed, player, lapses, most, length - row)
        row += filmed
        episodes[-1] |= {"success": bool(score["success"]), "progress": score["progress"]}


def film_episode(env, seed: int, player, lapses: Lapses, most: int, room: int):
    """Yield (picture, pad in force) for the filmed frames of an episode, at most `room` of its
    `most` frames; return their number and the last score.
    """
    pad = ConstantPad()(None, None)
    frame, info = env.reset(seed=seed)
    filmed = 0
    for _ in range(most):
        if not lapses.frames:
            yield env.render(), pad
            filmed += 1
        if filmed == room or info["score"]["over"]:
            break
        pad = player(None, info)
        buttons, sticks = lapses.disturb(frame, info, pad)
        frame, _, _, _, info = env.step({"buttons": buttons, "sticks": sticks})
    return filmed, info["score"]


class AllButtons:
    """sim.StickyRandom, but never two opposite ways of the d-pad: no overlay shows both."""

    def __init__(self, seed: int):
        self.player = sim.StickyRandom(seed)

    def __call__(self, frame, info):
        buttons, sticks = self.player(frame, info)
        ways = buttons[:4]  # up, down, left, right: a view
        ways *= ~(ways & ways[[1, 0, 3, 2]]).astype(bool)
        return buttons, sticks


class Lapses:
    """Moments in which another player takes the pad, unfilmed: then the expert shows the way back.

    As in DAgger (arXiv 1011.0686), the states are those that the learner visits.
    """

    def __init__(self, rng, seed: int, c: Record):
        self.rng = rng
        self.frames = 0  # that the present lapse still lasts
        self.players = [(sim.StickyRandom(seed + 1), 1)]  # and the seconds of its longest lapse
        self.wanted = c.astray > 0 and rng.random() < c.astray
        if self.wanted and c.learner:
            self.players.append((Policy(c.learner, "cpu", Play.execute, Play.steps, seed), 4))

    def disturb(self, frame, info, pad):
        """The pad that the game gets in place of `pad`."""
        self.frames = max(0, self.frames - 1)
        if self.wanted and not self.frames and self.rng.random() < 1 / (LAPSES * FPS):
            self.player, longest = self.players[self.rng.integers(len(self.players))]
            self.frames = int(self.rng.integers(FPS // 5, longest * FPS + 1))
        return self.player(frame, info) if self.frames else pad


# ---- play: the suite -----------------------------------------------------------------------------

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
    # ms until what was planned from a frame comes into force, one after the other: 0,33,66,100,200
    delay: str = ""
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


class Suite(typing.NamedTuple):
    """What is played: every task with every seed by every player."""

    c: Play
    settings: dict  # what decides an episode
    tasks: list[tuple[str, str]]  # (game, task)
    seeds: range
    players: tuple[str, ...] = PLAYERS

    @property
    def jobs(self) -> list[Job]:
        return [
            Job(player, *task, seed)
            for seed in self.seeds
            for task in self.tasks
            for player in self.players
        ]

    def records(self) -> list[dict]:
        """Of the episodes that are there, also of those that crashed."""
        found = [saved_record(job, self.c, self.settings, crashed=True) for job in self.jobs]
        return [record for record in found if record]

    def play(self, one) -> None:
        """Play the episodes that have no record yet; one(job, c): an episode's last score."""
        c = self.c
        jobs = self.jobs
        left = [job for job in jobs if not saved_record(job, c, self.settings)]
        print(
            f"tasks: {len(self.tasks)}, seeds: {len(self.seeds)}, players: "
            f"{', '.join(self.players)}; {len(jobs)} episodes, {len(jobs) - len(left)} are there "
            f"-> {c.out}",
            flush=True,
        )
        if left or not jobs:
            work = functools.partial(episode, c=c, settings=self.settings, play=one)
            for_each(work, left, c.workers, "episodes", c.ray)


def built_in_suite(c: Play) -> Suite:
    """What --games and --tasks name; SystemExit if a flag cannot be."""
    check_policy(c)
    tasks = chosen(c.games, c.tasks)
    if c.seeds < 1:
        raise SystemExit(f"--seeds {c.seeds}: expected 1 or more")
    seeds = min(c.seeds, max(1, QUICK // len(tasks))) if c.quick else c.seeds
    first = 10_000 * (c.seed + 1)
    settings = {
        "policy": artefact.source(c.policy)["sha256"],
        "execute": c.execute,
        "steps": c.steps,
        "seed": c.seed,
        "games": games_digest(),
        **({"delay": c.delay} if c.delay else {}),
    }
    return Suite(with_folder(c, settings), settings, tasks, range(first, first + seeds))


def check_policy(c: Play) -> None:
    """SystemExit if --policy, --execute or --delay cannot be: one line now, not one per worker."""
    if not Path(c.policy).exists():
        raise SystemExit(
            f"{c.policy}: no such policy; train one, python train.py --config tiny, and give "
            "--policy runs/tiny/model.safetensors"
        )
    timing = playing.about(c.policy, c.steps)["model"]
    there = len(range(0, timing["horizon"], stride(timing["rate"])))
    if not 1 <= c.execute <= there:
        raise SystemExit(
            f"--execute {c.execute}: this policy's chunks hold {there} actions at {FPS} a second; "
            f"give 1 to {there}"
        )
    late = late_frames(c)
    if max(late, c.execute) + late > there:
        raise SystemExit(
            f"--delay {c.delay}: {late} frames late, and {max(late, c.execute)} actions of each "
            f"chunk: more than its {there}; give a smaller one, or a smaller --execute"
        )


def late_frames(c: Play) -> int:
    """A single --delay, in frames of play."""
    return round(float(c.delay or 0) * FPS / 1000)


def chosen(games: str, tasks: str) -> list[tuple[str, str]]:
    """(game, task) of what --games and --tasks name."""
    suite = [(name, task) for name in sorted(named_games(games)) for task in game(name).TASKS]
    wanted = set(tasks.split(","))
    words = {(name, task): {"all", task, category(name, task)} for name, task in suite}
    if unknown := wanted - set().union(*words.values()):
        raise SystemExit(
            f"--tasks {tasks}: {games} has no task or category '{min(unknown)}' "
            "(python eval.py tasks)"
        )
    return [pair for pair in suite if words[pair] & wanted]


def games_digest() -> str:
    """Hash of the code of all games: other code, other episodes."""
    files = sorted((ROOT / "games").glob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def with_folder(c: Play, settings: dict) -> Play:
    """--out, or a folder in data/play for this policy and these settings."""
    if c.out:
        return c
    policy = Path(c.policy).resolve()
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    name = f"{policy.parent.name}-{Path(c.policy).stem}-{digest}"
    return dataclasses.replace(c, out=f"data/play/{name}")


def built_in(job: Job, c: Play) -> dict:
    return in_environment(job, c) if job.player == "policy" else in_process(job)


def saved_record(job: Job, c: Play, settings: dict, crashed: bool = False) -> dict | None:
    """The record of an episode that has been played; one that crashed is played again."""
    path = Path(c.out) / "episodes" / f"{job}.json"
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if other := sorted({k for k, _ in settings.items() ^ record["settings"].items()}):
        if c.fresh:
            return None
        raise SystemExit(
            f"{path}: played with another {', '.join(other)}; give another --out, or --fresh to "
            "replace it"
        )
    return record if crashed or not (record["crash"] or c.fresh) else None


def episode(job: Job, c: Play, settings: dict, play=built_in) -> dict:
    """Play it and write its record into OUT/episodes.  A crash of the game is a failure, and does
    not stop the rest.
    """
    score = {"progress": 0.0, "success": False, "time": 0.0}
    crash = ""
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


def in_environment(job: Job, c: Play, show=None) -> dict:
    """Play an episode of the policy through GameEnv; return the last score.

    show(picture, pad, score) is called for every frame.
    """
    agent = Policy(c.policy, c.device, c.execute, c.steps, job.seed, late_frames(c))
    playing.one_thread(agent.net)  # the worker's one CPU
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
    stderr = sandbox.last_line(env.sandbox.path / "stderr", "it said nothing on stderr")
    status = f"status {env.clock.returncode} after {info['time']:.1f} s"
    return f"the game ended with {status}: {stderr}"


def in_process(job: Job, show=None) -> dict:
    """Play an episode of a player that needs no picture, in this process and undrawn; return the
    last score.

    Twenty times as fast as GameEnv, with the same scores (tests/test_eval.py).
    """
    agent = blind_player(job)
    world = game(job.game).Game(job.task, job.seed)
    pad = ConstantPad()(None, None)  # nothing is held in frame 0
    for i in itertools.count():
        seconds = round((i + 1) / FPS, 6) - round(i / FPS, 6)
        world.step(game(job.game).console.Pad(*pad), seconds)
        score = world.score()
        if show:
            show(score)
        if score["over"]:
            return score
        pad = agent(None, {"score": score})


def blind_player(job: Job):
    if job.player == "expert":
        return Expert(job.game, job.seed)
    if job.player == "random":
        return sim.StickyRandom(job.seed)
    return ConstantPad(*WAYS[job.seed % 4]) if job.player == "held" else ConstantPad()


# ---- play: the numbers ---------------------------------------------------------------------------


def category(name: str, task: str) -> str:
    return game(name).TASKS[task].category


def summary(records: list[dict]) -> dict:
    """Completed (with Wilson's interval) and progress (with a bootstrap's) of some episodes."""
    return {
        "episodes": len(records),
        "success": wilson(sum(r["success"] for r in records), len(records)),
        "progress": interval([r["progress"] for r in records]),
    }


# ---- commands ------------------------------------------------------------------------------------


COMMANDS = {
    "record": (Record, record),
    "overlay": "bench.overlay",
    "play": "live.play",
    "serve": "live.server",
    "transfer": "bench.transfer",
    "ablate": "bench.ablate",
    "corrections": "bench.corrections",
    "presses": "bench.presses",
    "speed": "bench.speed",
    "tasks": "bench.tasks",
}


def main(argv=None):
    command_line(__doc__, COMMANDS, argv)


if __name__ == "__main__":
    main()
