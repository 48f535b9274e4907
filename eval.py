"""eval.py: demonstrations, closed-loop play, and the extraction benchmark (paper sections 3.1 and 4).

    python eval.py record --out data/videos --minutes 10        scripted experts play the built-in games into mp4 files
    python eval.py overlay                                      fresh recordings: how well are their overlays read?
    python eval.py overlay data/videos --labels data/labels     the same on recordings that are already parsed
    python eval.py play --policy runs/tiny/model.safetensors [--quick] [--video OUT.mp4]
    python eval.py play --policy FILE -- COMMAND ARG...         on another console game
    python eval.py tasks                                        the built-in games and their tasks

record  writes OUT/<game>-<n>.mp4, and beside each <game>-<n>.truth.safetensors with the true actions (nitrogen.actions/1,
        unit "normalized").  Truth is for scoring only: the pipe reads the overlay.
play    prints progress per task with 95 % intervals, and writes the same numbers beside the policy as play.json.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sim

FPS = 30                                             # games are recorded and played at the policy's rate
FIRST_GAMES = "ridge,crypt,rally"                    # the three of `train.py --config tiny` and `small`
WIDTH, HEIGHT = 960, 540                             # of the recordings


# ---- the games ---------------------------------------------------------------------------------------------------

def game_names() -> list[str]:
    return sorted(p.stem for p in (sim.ROOT / "games").glob("*.py") if p.stem != "console")


@functools.lru_cache
def game(name: str):
    """The module of a built-in game: TASKS, Game, Expert."""
    if name not in game_names():
        raise SystemExit(f"no built-in game '{name}' (there are {', '.join(game_names())})")
    folder = str(sim.ROOT / "games")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def launch(name: str, task: str, seed: int, **options) -> sim.GameEnv:
    """The game as an ordinary process under the clock hook, one frame per step."""
    command = [sys.executable, str(sim.ROOT / "games" / f"{name}.py"), "--task", task, "--seed", "{seed}", "--fps", str(FPS)]
    return sim.GameEnv(command, fps=FPS, seed=seed, **options)


# ---- record --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Record(sim.Common):
    out: str = "data/videos"            # folder
    minutes: float = 10.0               # of play in all
    seconds: float = 20.0               # per video
    games: str = FIRST_GAMES            # built-in games, in turn
    workers: int = os.cpu_count() or 1  # processes


def record(c: Record) -> None:
    n = max(1, round(60 * c.minutes / c.seconds))
    names = c.games.split(",")
    for name in names:
        game(name)
    jobs = [f"{names[i % len(names)]}-{i:03d}" for i in range(n)]
    frames = sim.for_each(functools.partial(record_video, c=c), jobs, c.workers)
    print(f"{n} videos, {sum(frames):,} frames at {FPS}/s of {WIDTH} x {HEIGHT} -> {c.out}")


def record_video(stem: str, c: Record) -> int:
    """Episodes of one game, back to back, task after task; the pad of each row is in force while its frame is drawn."""
    import cv2
    import extract
    video, truth = Path(c.out) / f"{stem}.mp4", Path(c.out) / f"{stem}.truth.safetensors"
    recipe = {**sim.recipe(c), "stem": stem}
    recipe.pop("minutes")                                       # more videos do not change this one
    length = round(c.seconds * FPS)
    if sim.finished(truth, "nitrogen.actions/1", recipe, c.fresh) and video.exists():
        return length
    name, number = stem.rsplit("-", 1)
    rng = np.random.default_rng([c.seed, int(number), zlib.crc32(name.encode())])
    fit = [t for _, t in sorted(extract.templates(extract.CORE).items()) if len(extract.layout(t)["sticks"]) == 2]    # these games need sticks
    template = fit[rng.integers(len(fit))]
    width, opacity = rng.uniform(0.24, 0.34) * WIDTH, rng.uniform(0.7, 1.0)
    scale = width / template.size[0]
    w, h = round(width), round(scale * template.size[1])
    x, y = (int(rng.integers(8, 25)) if rng.random() < 0.5 else limit - int(rng.integers(8, 25)) - size for limit, size in ((WIDTH, w), (HEIGHT, h)))
    tasks = list(game(name).TASKS)
    first = int(rng.integers(len(tasks)))
    buttons, sticks, episodes = np.zeros((length, 16), np.uint8), np.zeros((length, 4), np.float32), []
    frames = hashlib.blake2b(digest_size=16)                    # of the game's own pixels, before anything is drawn in
    row = 0
    with sim.VideoWriter(video, FPS, WIDTH, HEIGHT) as out:
        while row < length:
            task, seed = tasks[(first + len(episodes)) % len(tasks)], int(rng.integers(1 << 31))
            episodes.append({"row": row, "task": task, "seed": seed})
            expert = game(name).Expert(seed)
            pad = np.zeros(16, np.uint8), np.zeros(4, np.float32)
            with launch(name, task, seed) as env:
                _, info = env.reset(seed=seed)
                for _ in range(round(game(name).TASKS[task].seconds * FPS) + FPS):
                    frames.update(env.render())
                    picture = cv2.resize(env.render(), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
                    extract.composite(picture, extract.draw(template, *pad, scale=scale), x, y, opacity)
                    out.write(picture)
                    buttons[row], sticks[row] = pad
                    row += 1
                    if row == length or info["score"]["over"]:
                        break
                    pad = expert(info["score"])
                    info = env.step({"buttons": pad[0], "sticks": pad[1]})[4]
                episodes[-1] |= {"success": bool(info["score"]["success"]), "progress": info["score"]["progress"]}
    sim.write(truth, {"buttons": buttons.astype(np.float16), "sticks": sticks, "shown": np.ones(20, bool),
                      "confidence": np.ones(length, np.float16), "time": np.arange(length) / FPS}, "nitrogen.actions/1",
              unit="normalized", fps=FPS, game=name, recipe=recipe, template=template.name, family=template.family,
              opacity=float(opacity), box=[x, y, w, h], episodes=episodes, frames=frames.hexdigest())
    return length


# ---- overlay: extraction against truth (DESIGN: metrics) ---------------------------------------------------------------

@dataclass(frozen=True)
class Overlay(sim.Common):
    videos: tuple[str, ...] = ()        # recordings or folders of them; none: record fresh ones
    labels: str = "data/overlay/labels" # what extract.py and parse.py wrote
    minutes: float = 4.0                # of fresh recordings
    out: str = "data/overlay"           # folder of the fresh recordings
    workers: int = os.cpu_count() or 1  # processes


def overlay(c: Overlay) -> dict:
    if c.videos:
        videos, labels = expand(c.videos), c.labels
    else:
        labels = f"{c.out}/labels"
        step("eval.py", "record", "--out", f"{c.out}/videos", "--minutes", str(c.minutes), "--seed", str(c.seed + 1000), "--workers", str(c.workers))
        videos = expand([f"{c.out}/videos"])
        step("extract.py", *videos, "--out", labels, "--workers", str(c.workers))
        step("parse.py", *videos, "--out", labels, "--device", c.device)
    lost = [v for v in videos if not (Path(labels) / f"{Path(v).stem}.actions.safetensors").exists()]
    if lost:
        print(f"no actions for {len(lost)} of {len(videos)} videos (overlay not found, or not parsed yet): {', '.join(Path(v).name for v in lost)}")
    rows = [(v, score_video(v, labels)) for v in videos if v not in lost]
    if not rows:
        raise SystemExit(f"{labels}: no actions of these videos there; make them: python extract.py and python parse.py with --out {labels}")
    families = sorted({r["family"] for _, r in rows})
    columns = ("accuracy", "silence", "recall", "f1", "press_f1", "r2")
    print(f"\n{'family':14s} {'videos':>6s} " + " ".join(f"{k:>9s}" for k in columns))
    table = {}
    for family in [*families, "all"]:
        mine = [r for _, r in rows if family in (r["family"], "all")]
        table[family] = {"videos": len(mine), **{k: float(np.nanmean([r[k] for r in mine])) for k in columns}}
        print(f"{family:14s} {len(mine):6d} " + " ".join(f"{table[family][k]:9.3f}" for k in columns))
    print("accuracy: of shown buttons over frames; silence: the same for a parser that sees nothing; press_f1: onsets within +-1 frame;\n"
          "r2: of the stick axes that move.  Means over videos.  The paper reports accuracy 0.96 and R2 0.84, on other recordings.")
    worst = sorted(rows, key=lambda r: r[1]["press_f1"])[:3]
    print("weakest: " + ", ".join(f"{Path(v).name} ({r['template']}, press F1 {r['press_f1']:.2f}, R2 {r['r2']:.2f})" for v, r in worst))
    return table


def step(*command: str) -> None:
    print(f"$ python {' '.join(a for a in command if not a.endswith('.mp4'))}", flush=True)
    if status := subprocess.run([sys.executable, *command], cwd=sim.ROOT).returncode:
        raise SystemExit(f"{command[0]} stopped with status {status}")


def expand(paths) -> list[str]:
    """Folders become the mp4 files in them."""
    out = []
    for p in paths:
        found = sorted(map(str, Path(p).glob("*.mp4"))) if Path(p).is_dir() else [p]
        if not found:
            raise SystemExit(f"{p}: no mp4 files in this folder")
        out += found
    return out


def score_video(video: str, labels: str) -> dict:
    """Metrics of one recording: final actions (as filter.py makes them) against the recorded truth."""
    import filter
    stem = Path(video).stem
    buttons, sticks, tensors, info = filter.final_actions(Path(labels) / f"{stem}.actions.safetensors")
    truth, about = sim.read(Path(video).with_suffix(".truth.safetensors"), "nitrogen.actions/1")
    if len(truth["buttons"]) != len(buttons):
        raise SystemExit(f"{video}: {len(buttons)} parsed rows, {len(truth['buttons'])} recorded; parse it again with --fresh")
    out = metrics(buttons, sticks, truth["buttons"] > 0.5, truth["sticks"], tensors["shown"])
    return {**out, "family": about["family"], "template": about["template"]}


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
            "press_f1": press_f1(p, t), "r2": float(np.mean(r2)) if r2 else np.nan}


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
            noise = torch.randn(1, c.horizon, len(self.net.actions), generator=self.rng)
            act = self.net.act(frame[None], noise, self.steps)
            self.plan = list(zip(act["buttons"][0].astype(np.uint8), act["sticks"][0]))[:self.execute]
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


class StickyRandom:
    """A gamepad in the hands of chance: every button and axis is drawn anew and held for 0.1 to 1 s."""

    def __init__(self, seed: int):
        self.rng, self.left, self.value = np.random.default_rng(seed), np.zeros(20), np.zeros(20, np.float32)

    def __call__(self, frame, info):
        new = self.left <= 0
        self.left[new] = self.rng.integers(FPS // 10, FPS + 1, new.sum())
        self.value[new] = np.r_[self.rng.random(16) < 0.3, self.rng.uniform(-1, 1, 4)][new]
        self.left -= 1
        return self.value[:16].astype(np.uint8), self.value[16:].copy()


class Held:
    """The left stick pushed one way and the right trigger held, for ever; (0, 0) without the trigger is no input at all."""

    def __init__(self, x: float = 0.0, y: float = 0.0):
        self.buttons, self.sticks = np.zeros(16, np.uint8), np.array([x, y, 0, 0], np.float32)
        self.buttons[sim.BUTTONS.index("RIGHT_TRIGGER")] = bool(x or y)

    def __call__(self, frame, info):
        return self.buttons, self.sticks


PLAYERS = ("expert", "policy", "random", "none")
DIRECTIONS = {"right": (1, 0), "up": (0, -1), "left": (-1, 0), "down": (0, 1)}
STRONGEST = {"ridge": "right", "crypt": "up", "rally": "up"}      # the best of the four in each game; --quick plays only that


# ---- play ---------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Play(sim.Common):
    policy: str = "runs/tiny/model.safetensors"  # what train.py made
    games: str = FIRST_GAMES            # built-in games
    seeds: int = 10                     # episodes per task and player
    quick: bool = False                 # 4 episodes per task
    execute: int = 8                    # actions played of each chunk before the policy looks again
    steps: int = 0                      # denoising steps (0: as the model says)
    seconds: float = 60.0               # with -- COMMAND: how long to play
    video: str = ""                     # also write a film of the policy, one episode per task
    workers: int = os.cpu_count() or 1  # processes
    command: tuple[str, ...] = ()       # another game's command, after --


def play(c: Play) -> dict | None:
    if not Path(c.policy).exists():
        raise SystemExit(f"{c.policy}: no such policy; train one: python train.py --config tiny")
    sim.read(c.policy, "nitrogen.policy/1")                     # one clear line now, not one per worker
    if c.command:
        return play_command(c)
    names, seeds = c.games.split(","), 4 if c.quick else c.seeds
    players = {n: [*PLAYERS, *([STRONGEST.get(n, "right")] if c.quick else DIRECTIONS)] for n in names}
    jobs = [(p, n, t, 10_000 * (c.seed + 1) + s) for n in names for p in players[n] for t in game(n).TASKS for s in range(seeds)]
    results = dict(zip(jobs, sim.for_each(functools.partial(episode, c=c), jobs, c.workers, "episodes")))
    table = report(c, results, names, seeds)
    if c.video:
        film(c, names)
    return table


def episode(job, c: Play, show=None) -> tuple[float, bool]:
    """(progress, success) of one player at one task; `show(picture, pad)` sees every frame."""
    player, name, task, seed = job
    agent = (Expert(name, seed) if player == "expert" else StickyRandom(seed) if player == "random" else Held() if player == "none"
             else Held(*DIRECTIONS[player]) if player in DIRECTIONS else Policy(c.policy, c.device, c.execute, c.steps, seed))
    with launch(name, task, seed, seconds=game(name).TASKS[task].seconds) as env:
        frame, info = env.reset(seed=seed)
        stop = False
        while not (stop or info["score"]["over"]):
            pad = agent(frame, info)
            frame, _, terminated, truncated, info = env.step({"buttons": pad[0], "sticks": pad[1]})
            stop = terminated or truncated
            if show:
                show(env.render(), pad)
        return float(info["score"]["progress"]), bool(info["score"]["success"])


def interval(values, draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval."""
    values = np.asarray(values, float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return values.mean(), *np.percentile(means, [2.5, 97.5])


def report(c: Play, results, names, seeds: int) -> dict:
    """Print progress per task (and per game, with intervals); write the numbers as play.json beside the policy."""
    print(f"\nprogress 0..1 (share of successes), {seeds} episodes per task; direction: the best of those that were held\n"
          f"{'task':18s}" + "".join(f"{p:>21s}" for p in [*PLAYERS, "direction"]))
    table = {}
    for n in names:
        held = {j[0] for j in results if j[1] == n} - set(PLAYERS)
        best = max(sorted(held), key=lambda d: np.mean([r[0] for j, r in results.items() if j[:2] == (d, n)]))
        columns = [*PLAYERS, best]
        for task in game(n).TASKS:
            cells = [[r for j, r in results.items() if j[:3] == (p, n, task)] for p in columns]
            print(f"{n + ' ' + task:18s}" + "".join(f"{np.mean([r[0] for r in cell]):14.2f} ({np.mean([r[1] for r in cell]):.2f})" for cell in cells))
        rows = {p: interval([r[0] for j, r in results.items() if j[:2] == (q, n)]) for p, q in zip([*PLAYERS, "direction"], columns)}
        above = rows["policy"][1] > max(rows[p][2] for p in ("random", "none", "direction"))
        table[n] = {**{p: {"progress": v[0], "low": v[1], "high": v[2]} for p, v in rows.items()}, "direction_held": best, "above_baselines": bool(above)}
        print(f"{n + ', 95 %':18s}" + "".join(f"{f'{m:.2f} [{a:.2f}, {b:.2f}]':>21s}" for m, a, b in rows.values()) + ("" if above else "   not above the baselines"))
    out = {"policy": sim.source(c.policy), "execute": c.execute, "table": table,
           "episodes": [{"player": j[0], "game": j[1], "task": j[2], "seed": j[3], "progress": r[0], "success": r[1]} for j, r in results.items()]}
    sim.write_bytes(Path(c.policy).with_name("play.json"), json.dumps(out, indent=1).encode())
    return table


def film(c: Play, names) -> None:
    """One episode per task, with the pad that the policy holds drawn in a corner."""
    import extract
    templates = extract.templates(extract.CORE)
    template = templates[next(k for k in sorted(templates) if templates[k].family.startswith("xbox"))]
    size = game_size(names[0])
    with sim.VideoWriter(c.video, FPS, *size) as out:
        def show(picture, pad):
            picture = picture.copy()
            extract.composite(picture, extract.draw(template, *pad, scale=0.4), 8, 8, 0.9)
            out.write(picture)
        for n in names:
            for task in game(n).TASKS:
                episode(("policy", n, task, 10_000 * (c.seed + 1)), c, show)
    print(f"film -> {c.video}")


def game_size(name: str) -> tuple[int, int]:
    picture = game(name).Game(next(iter(game(name).TASKS)), 0).draw()
    return picture.shape[1], picture.shape[0]


def play_command(c: Play) -> None:
    """Let the policy play any command that GameEnv can drive, for --seconds of game time."""
    from tqdm import tqdm
    agent = Policy(c.policy, c.device, c.execute, c.steps, c.seed)
    with sim.GameEnv(list(c.command), fps=FPS, seed=c.seed, seconds=c.seconds) as env:
        frame, info = env.reset(seed=c.seed)
        writer = sim.VideoWriter(c.video, FPS, env.render().shape[1], env.render().shape[0]) if c.video else None
        for _ in tqdm(range(round(c.seconds * FPS)), desc="play", unit="frame"):
            pad = agent(frame, info)
            frame, _, terminated, truncated, info = env.step({"buttons": pad[0], "sticks": pad[1]})
            if writer:
                writer.write(env.render())
            if terminated or truncated:
                break
        if writer:
            writer.__exit__(None, None, None)
    print(f"played {info['time']:.1f} s, {info['frame']} frames; score {json.dumps(info.get('score'))[:200]}")


def tasks(c: sim.Common) -> None:
    for name in game_names():
        print(f"{name}: {(game(name).__doc__ or '').strip().splitlines()[0]}")
        for key, t in game(name).TASKS.items():
            print(f"  {key:10s} {t.category:10s} {t.seconds:4.0f} s  {t.goal}")


def main(argv=None):
    sim.command_line(__doc__, {"record": (Record, record), "overlay": (Overlay, overlay), "play": (Play, play), "tasks": (sim.Common, tasks)}, argv)


if __name__ == "__main__":
    main()
