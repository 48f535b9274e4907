"""The built-in games: experts finish their tasks, mindless play does not, and a game process keeps
the console's protocol.

    python -m pytest tests/test_games.py
"""

import hashlib
import importlib
import json
import mmap
import os
import subprocess
import sys
import time

from common import ROOT

import cv2
import numpy as np
import pytest

GAMES = ROOT / "games"
sys.path.insert(0, str(GAMES))
console = importlib.import_module("console")

NAMES = "ridge strike cavern crypt grove rally ruins duel hunt puck".split()
MODULES = {name: importlib.import_module(name) for name in NAMES}
ALL = [(name, task) for name, module in MODULES.items() for task in module.TASKS]


# ---- players: score -> buttons u8 [16], sticks f32 [4], called 30 times a second


def held(**names):
    """One state of the pad for ever: held(LEFT_X=1, SOUTH=1)."""
    state = (
        np.array([names.get(n, 0) for n in console.BUTTONS], np.uint8),
        np.array([names.get(n, 0) for n in console.STICKS], np.float32),
    )
    return lambda score: state


class Sticky:
    """A random gamepad: each button and axis keeps a random value for 0.1 to 1 s."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.left, self.value = np.zeros(20, int), np.zeros(20)

    def __call__(self, score):
        self.left -= 1
        new = self.left <= 0
        self.left = np.where(new, self.rng.integers(3, 31, 20), self.left)
        fresh = np.r_[self.rng.random(16) < 0.5, self.rng.uniform(-1, 1, 4)]
        self.value = np.where(new, fresh, self.value)
        return self.value[:16].astype(np.uint8), self.value[16:].astype(np.float32)


class Watched:
    """An expert: its actions are checked, and when it is busy is noted."""

    def __init__(self, expert):
        self.expert, self.busy = expert, []

    def __call__(self, score):
        buttons, sticks = self.expert(score)
        assert buttons.dtype == np.uint8 and buttons.shape == (16,)
        assert sticks.dtype == np.float32 and abs(sticks).max() <= 1
        self.busy.append(buttons.any() or abs(sticks).max() > 0.1)
        return buttons, sticks


def episode(name, task, seed, player, fps=60):
    game = MODULES[name].Game(task, seed)
    while not game.score()["over"]:
        pad = console.Pad(*player(game.score()))
        for _ in range(fps // 30):
            game.step(pad, 1 / fps)
    return game.score()


# ---- the tasks


@pytest.mark.parametrize("name, task", ALL)
def test_the_expert_succeeds_and_is_busy(name, task):
    for seed in (100, 101):
        player = Watched(MODULES[name].Expert(seed))
        score = episode(name, task, seed, player)
        assert score["success"] and score["progress"] == 1, (seed, score)
        assert 8 < score["time"] < 0.9 * MODULES[name].TASKS[task].seconds
        assert np.mean(player.busy) > 0.9


def mindless(seed):
    """Random play, no input, and one direction held with and without the usual attack."""
    pads = [
        {},
        {"LEFT_X": 1},
        {"LEFT_Y": 1, "SOUTH": 1},
        {"RIGHT_X": 1},
        {"RIGHT_TRIGGER": 1, "SOUTH": 1},
        {"LEFT_X": -1, "RIGHT_TRIGGER": 1, "SOUTH": 1},
        {"LEFT_Y": -1, "RIGHT_SHOULDER": 1, "WEST": 1},
    ]
    return {"random": Sticky(seed)} | {str(pad): held(**pad) for pad in pads}


@pytest.mark.parametrize("name", NAMES)
def test_mindless_play_gets_nowhere(name):
    """Random play, in the first task of each game; all tasks, other players and more seeds: see
    below.
    """
    scores = [
        episode(name, next(iter(MODULES[name].TASKS)), seed, Sticky(seed), fps=30)
        for seed in range(3)
    ]
    assert (
        not any(score["success"] for score in scores)
        and np.mean([score["progress"] for score in scores]) < 0.25
    )


@pytest.mark.slow
@pytest.mark.parametrize("name, task", ALL)
def test_over_many_seeds(name, task, request):
    """Experts complete at least 95 %; neither random play nor one state of the pad for ever
    completes anything.
    """
    seeds = range(200, 200 + request.config.getoption("--episodes"))
    expert = [episode(name, task, seed, MODULES[name].Expert(seed), fps=30) for seed in seeds]
    failed = [seed for seed, score in zip(seeds, expert, strict=True) if not score["success"]]
    assert len(failed) <= 0.05 * len(seeds), failed
    assert (
        np.mean([score["time"] < 0.9 * MODULES[name].TASKS[task].seconds for score in expert])
        >= 0.9
    )
    for kind in mindless(0):
        scores = [
            episode(name, task, seed, mindless(seed)[kind], fps=30)
            for seed in range(len(seeds) * 2 // 5 if kind == "random" else 3)
        ]
        assert (
            np.mean([score["success"] for score in scores]) <= 0.05
            and np.mean([score["progress"] for score in scores]) < 0.25
        ), kind


def test_the_suite_is_eleven_combat_ten_navigation_nine_specific():
    """One of each per game, but for hunt, which has two combats."""
    for name, module in MODULES.items():
        categories = (
            ["combat", "combat", "navigation"]
            if name == "hunt"
            else ["combat", "navigation", "specific"]
        )
        assert sorted(task.category for task in module.TASKS.values()) == categories
        assert all(
            15 <= task.seconds <= 40 and task.goal.endswith(".") for task in module.TASKS.values()
        )
    genres = [module.Game.genre for module in MODULES.values()]
    assert {g: genres.count(g) for g in genres} == {
        "2D side-scroller": 3,
        "roguelike": 2,
        "open world": 2,
        "action RPG": 2,
        "sports": 1,
    }


# ---- the worlds


@pytest.mark.parametrize("name, task", ALL)
def test_same_seed_and_pad_same_pictures(name, task):
    def run(seed):
        game, player, digest = MODULES[name].Game(task, seed), Sticky(7), hashlib.sha256()
        for _ in range(60):
            game.step(console.Pad(*player(None)), 1 / 30)
            picture = game.draw()
            assert picture.dtype == np.uint8 and picture.shape == (270, 480, 3)
            digest.update(picture.tobytes() + json.dumps(game.score()).encode())
        return digest.hexdigest()

    assert run(5) == run(5) != run(6)


@pytest.mark.parametrize(
    "name, task, pad",
    [
        ("ridge", "reach", {"LEFT_X": 1}),
        ("ridge", "coins", {"DPAD_LEFT": 1}),
        ("crypt", "gems", {"LEFT_X": 0.6, "LEFT_Y": -0.8}),
        ("strike", "bombs", {"LEFT_X": -1}),
        ("cavern", "shards", {"DPAD_RIGHT": 1}),
        ("grove", "feed", {"LEFT_X": 0.6, "LEFT_Y": -0.8}),
        ("rally", "road", {"RIGHT_TRIGGER": 1}),
        ("rally", "gates", {"RIGHT_TRIGGER": 1, "LEFT_X": 0.3}),
        ("ruins", "braziers", {"LEFT_Y": -0.8, "RIGHT_X": 0.3}),
        ("duel", "gates", {"LEFT_Y": -1, "LEFT_THUMB": 1}),
        ("puck", "slalom", {"LEFT_X": 0.8, "LEFT_Y": -0.4}),
        ("hunt", "crystals", {"LEFT_X": 0.7, "LEFT_Y": 0.7}),
    ],
)
def test_the_world_moves_by_time_not_by_frames(name, task, pad):
    places = []
    for fps in (20, 30, 60, 144):
        game = MODULES[name].Game(task, 3)
        start = game.score()["state"]
        for _ in range(int(1.4 * fps)):
            game.step(console.Pad(*held(**pad)(None)), 1 / fps)
        state = game.score()["state"]
        places.append((state["x"] - start["x"], state["y"] - start["y"]))
    moved = np.hypot(*np.transpose(places))
    assert moved.min() > 2 and np.ptp(places, axis=0).max() < 0.1 * moved.max()


def test_crypt_finds_a_place_also_between_a_pillar_and_the_wall():
    world = MODULES["crypt"].Game("slay", 10001)
    world.x, world.y = 598.3, 523.2  # a policy went there, and the game stood still for ever
    draws = world.rng.uniform(0, 1, 40_000)

    class Finite:
        left = iter(draws)
        integers = world.rng.integers

        def uniform(self, low, high):
            return low + (high - low) * next(self.left)

    world.rng = Finite()
    thing = world.spawn()
    assert 100 <= np.hypot(thing["x"] - world.x, thing["y"] - world.y) <= 180
    assert not world.blocked(thing["x"], thing["y"])


def test_the_score_is_small_json_and_progress_never_falls():
    for name, task in ALL:
        game, expert, last = MODULES[name].Game(task, 1), MODULES[name].Expert(1), 0.0
        for _ in range(200):
            score = game.score()
            assert json.loads(json.dumps(score)) == score and len(json.dumps(score)) < 1000
            assert last <= score["progress"] <= 1
            last = score["progress"]
            game.step(console.Pad(*expert(score)), 1 / 30)


def test_a_frame_is_cheap():
    """1 ms or so of this process is meant; the bound leaves room for a busy machine."""
    for name, task in ALL:
        game, expert, spent = MODULES[name].Game(task, 1), MODULES[name].Expert(1), []
        for _ in range(40):
            pad = console.Pad(*expert(game.score()))
            start = time.process_time()
            game.step(pad, 1 / 30)
            game.draw()
            spent.append(time.process_time() - start)
        assert np.median(spent) < 0.005, (name, task)


@pytest.mark.parametrize("heading, x, y", [(0.0, 20.0, 20.0), (1.1, 5.0, 33.0), (-2.6, 38.5, 1.5)])
def test_the_ground_and_what_stands_on_it_agree(heading, x, y):
    """A dot painted on the land is seen where the camera says that it is, also beyond the edge
    where the land repeats.
    """
    camera, margin = console.Camera(np.radians(70), 60, (0, 0, 0), 1e9), 300
    camera.place(x, y, 3.0, heading)
    for ahead, aside in ((6, 0), (8, 2), (11, -4)):
        dot = (
            x + ahead * np.cos(heading) - aside * np.sin(heading),
            y + ahead * np.sin(heading) + aside * np.cos(heading),
        )
        land = np.zeros((800, 800, 3), np.uint8)  # 40 m
        cv2.circle(land, tuple(round(v % 40 * 20) for v in dot), 5, (255, 255, 255), -1)
        picture = np.zeros((270, 480, 3), np.uint8)
        camera.ground(
            picture, cv2.copyMakeBorder(land, *[margin] * 4, cv2.BORDER_WRAP), 0.05, margin
        )
        # its copy far away is smaller
        seen = np.median(np.argwhere(picture[..., 0] > 100), 0)[::-1]
        assert np.allclose(seen, camera.project(*dot)[:2], atol=2)


# ---- the console


class Reader:
    """The other side of the shared file, as small as can be."""

    def __init__(self, folder, *command, **environment):
        self.path = folder / "console"
        self.path.touch()
        environment = {**os.environ, "NITROGEN_CONSOLE": str(self.path), **environment}
        self.process = subprocess.Popen([sys.executable, *map(str, command)], env=environment)
        self.wait(lambda: self.path.read_bytes()[:4096].endswith(b" "))
        self.header = json.loads(self.path.read_bytes()[:4096])
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        for name, (offset, dtype, shape) in self.header["fields"].items():
            setattr(
                self,
                name,
                np.frombuffer(self.memory, dtype, int(np.prod(shape)), offset).reshape(shape),
            )

    def wait(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end and self.process.poll() is None
            time.sleep(0.001)

    def read_score(self):
        return json.loads(self.score.tobytes().rstrip(b"\0"))


@pytest.mark.parametrize("name", list(MODULES))
def test_behind_the_gate_a_process_draws_what_the_game_draws(name, tmp_path):
    task = list(MODULES[name].TASKS)[-1]
    reader = Reader(tmp_path, GAMES / f"{name}.py", "--task", task, "--seed", 4, NITROGEN_GATE="1")
    try:
        header = reader.header
        assert (
            header["format"] == "nitrogen.console/1"
            and header["game"] == name
            and header["fps"] == 60
        )
        assert (
            tuple(header["buttons"]) == console.BUTTONS
            and tuple(header["sticks"]) == console.STICKS
        )
        assert header["fields"]["picture"][1:] == ["u1", [270, 480, 3]] and header["fields"][
            "pad_sticks"
        ][1:] == ["<f4", [4]]
        game, expert = MODULES[name].Game(task, 4), MODULES[name].Expert(4)
        for i in range(40):
            assert reader.frame[0] == i
            reader.pad_buttons[:], reader.pad_sticks[:] = pad = expert(game.score())
            reader.go[0] = i + 1
            reader.wait(lambda i=i: reader.frame[0] == i + 1)
            game.step(console.Pad(*pad), round((i + 1) / 60, 6) - round(i / 60, 6))
            assert (
                np.array_equal(reader.picture, game.draw()) and reader.read_score() == game.score()
            )
        assert reader.time[0] == pytest.approx(40 / 60)
        reader.path.unlink()  # an orphan goes by itself
        assert reader.process.wait(10) == 0
    finally:
        reader.process.kill()


def test_without_a_gate_a_process_follows_the_system_clock(tmp_path):
    reader = Reader(tmp_path, GAMES / "ridge.py", "--fps", 30)
    try:
        reader.wait(lambda: reader.frame[0] > 0)
        frame, seconds, start = int(reader.frame[0]), float(reader.time[0]), time.monotonic()
        time.sleep(1.5)
        frames, game, real = (
            int(reader.frame[0]) - frame,
            float(reader.time[0]) - seconds,
            time.monotonic() - start,
        )
        assert 10 <= frames <= 30 * real + 2 and 0.6 * real < game < real + 0.15
    finally:
        reader.process.kill()


def test_a_missing_file_or_an_unknown_task_is_one_clear_line(tmp_path):
    for arguments, file, message in (
        ([], "nowhere", "must name an existing"),
        (["--task", "nap"], "x", "invalid choice: 'nap'"),
    ):
        run = subprocess.run(
            [sys.executable, GAMES / "crypt.py", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "NITROGEN_CONSOLE": str(tmp_path / file)},
        )
        assert run.returncode and message in run.stderr and "Traceback" not in run.stderr
