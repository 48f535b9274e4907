"""Unmodified games under sim.py: frozen when paused, one step one frame, any speed, the same twice,
and the pad moves the hero.

    apt install supertux chocolate-doom freedoom chromium-bsu xvfb
    python -m pytest tests/test_real_games.py              pictures are left in data/real_games
"""

import contextlib
import io
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact
from common.command_line import command_line

import numpy as np
import pytest

import sim
from bench import replay
from clock.base import read_text
from devices import sandbox
from devices.display import Window

PICTURES = ROOT / "data" / "real_games"
NEUTRAL = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}


@dataclass(frozen=True)
class Game:
    command: list
    files: tuple  # without which it cannot run
    fps: int
    start: str  # button that begins to play,
    at: int  # pressed at this frame,
    ready: int  # and from this frame on the hero obeys
    move: dict  # a pad that moves the hero

    @property
    def missing(self):
        return next(
            (
                f
                for f in (self.command[0], "Xvfb", *self.files)
                if not shutil.which(f, path="/usr/games:/usr/bin") and not Path(f).exists()
            ),
            None,
        )


def pad(*buttons, **sticks):
    return {
        "buttons": np.isin(artefact.BUTTONS, buttons).astype(np.int8),
        "sticks": np.float32([sticks.get(name, 0) for name in artefact.STICKS]),
    }


LEVELS = "/usr/share/games/supertux2/levels"
WAD = "/usr/share/games/doom/freedoom1.wad"
GAMES = {
    "supertux": Game(
        [
            "/usr/games/supertux2",
            "--window",
            "--geometry",
            "320x240",
            "--renderer",
            "sdl",
            "--disable-sound",
            "--disable-music",
            f"{LEVELS}/world1/welcome_antarctica.stl",
        ],
        (LEVELS,),
        60,
        "SOUTH",
        60,
        130,
        pad(LEFT_X=1),
    ),
    "doom": Game(
        [
            "/usr/games/chocolate-doom",
            "-iwad",
            WAD,
            "-window",
            "-geometry",
            "320x240",
            "-warp",
            "1",
            "1",
            "-skill",
            "3",
            "-nosound",
        ],
        (WAD,),
        35,
        "START",
        -9,
        50,
        pad("DPAD_UP"),
    ),
    "chromium": Game(
        ["/usr/games/chromium-bsu", "-w", "-v", "1", "-na"],
        (),
        30,
        "START",
        60,
        90,
        pad("DPAD_LEFT"),
    ),
}


def param(name):
    missing = GAMES[name].missing
    reason = (
        sim.hook_fault()
        or f"{missing} is not installed "
        "(apt install supertux chocolate-doom freedoom chromium-bsu xvfb)"
    )
    slow = [pytest.mark.slow] * (name == "chromium")  # the other two will do for every change
    return pytest.param(
        name, marks=[pytest.mark.skipif(bool(missing or sim.hook_fault()), reason=reason), *slow]
    )


ALL = [param(name) for name in GAMES]


@contextlib.contextmanager
def playing(name, **options):
    """The game, at the frame from which the hero obeys."""
    game = GAMES[name]
    with contextlib.closing(sim.GameEnv(game.command, fps=game.fps, **options)) as env:
        env.reset(seed=0)
        for i in range(1, game.ready):
            env.step(pad(game.start) if game.at <= i < game.at + 3 else NEUTRAL)
        yield env


def screen(env):
    """What the X server shows, and what lies in the game, both fetched anew."""
    env.view.seen = 0
    return env.sandbox.display.pixels.tobytes(), env.render().tobytes()


def processor_time(env):
    return [
        read_text(f"/proc/{t.process.pid}/task/{t.tid}/schedstat")
        for t in env.clock.threads.values()
    ]


@pytest.mark.parametrize("name", ALL)
def test_frozen_stepped_and_at_any_speed(name):
    with playing(name) as env:
        fps, clock = GAMES[name].fps, env.clock
        before = screen(env)
        clock.pause()
        work = processor_time(env)
        time.sleep(2)
        clock.pause()
        assert processor_time(env) == work and screen(env) == before  # paused is frozen

        frames, began, pictures = clock.frames, clock.time, set()
        for i in range(20):  # N steps are N frames, each a tick of the monitor long
            info = env.step(GAMES[name].move)[4]
            pictures.add(info["hash"])
            assert clock.frames == frames + i + 1 and info["frame"] == env.steps - 1
        assert clock.time - began >= 19 / fps and len(pictures) > 10

        began, frames, start = clock.time, clock.frames, time.perf_counter()
        clock.run(1.0, 0.25)
        assert round(clock.time - began, 9) == 0.25 and 1.0 <= time.perf_counter() - start < 4
        assert 0 < clock.frames - frames <= 0.25 * fps + 1
        began, frames = clock.time, clock.frames
        clock.run(1.0, float("inf"))
        assert 0 < clock.frames - frames <= (clock.time - began) * fps + 1
        print(
            f"{name}: as fast as possible {clock.time - began:.2f} s of game time in 1 s, "
            f"{clock.frames - frames} frames"
        )


@pytest.mark.parametrize("name", ALL)
def test_the_pad_moves_the_hero(name):
    import cv2

    PICTURES.mkdir(parents=True, exist_ok=True)
    ends = []
    for what, action in (("idle", NEUTRAL), ("moved", GAMES[name].move)):
        with playing(name) as env:
            for _ in range(20):
                env.step(action)
            ends.append(env.render())
            cv2.imwrite(str(PICTURES / f"{name} {what}.png"), ends[-1][:, :, ::-1])
    idle, moved = ends
    changed = (np.abs(idle.astype(int) - moved).max(-1) > 40).mean()
    assert changed > 0.003, changed  # of the picture


def hashes(name, frames):
    """Of each frame under a seeded random pad, after the start; and the game times."""
    rng, seen = np.random.default_rng(3), []
    with playing(name) as env:
        for i in range(frames):
            if i % 8 == 0:
                action = {
                    "buttons": (rng.random(16) < 0.25) & (np.arange(16) < 8),
                    "sticks": rng.uniform(-1, 1, 4),
                }
            _, _, terminated, _, info = env.step(action)
            seen.append((info["hash"], info["time"]))
            assert not terminated
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", [param("supertux"), param("doom")])
def test_400_frames_of_random_play_are_the_same_twice(name):
    first = hashes(name, 400)
    assert first == hashes(name, 400) and len({h for h, _ in first}) > 200


ATTACH = """
import sys, time; sys.path.insert(0, sys.argv[1]); import sim
clock = sim.Clock.attach(int(sys.argv[2]))
for line in sys.stdin:
    clock.step(float(line)); print(clock.time, flush=True)
"""


@pytest.mark.parametrize("name", [param("supertux"), param("doom")])
def test_a_running_game_is_attached_to_and_runs_on_when_we_are_killed(name):
    stage = sandbox.Sandbox("640x480")
    shown, home = (
        lambda: stage.display.pixels.tobytes(),
        {"HOME": str(stage.path / "home"), "DISPLAY": stage.display.name},
    )

    def moves():
        before, end = shown(), time.perf_counter() + 60
        while time.perf_counter() < end and shown() == before:
            time.sleep(0.05)
        return shown() != before

    game = subprocess.Popen(
        GAMES[name].command,
        env=sandbox.FIXED | sandbox.HEADLESS | home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert all(moves() for _ in range(4))  # it has started, and animates something
        with subprocess.Popen(
            [sys.executable, "-c", ATTACH, str(ROOT), str(game.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as owner:

            def step(seconds):
                owner.stdin.write(f"{seconds}\n")
                owner.stdin.flush()
                return float(owner.stdout.readline())

            time.sleep(1)  # waits that began in real time end in it
            assert step(0.5) == 0.5
            before = shown()
            time.sleep(2)
            assert shown() == before
            # what it animates may look the same again later
            seen = [(step(0.25), shown() != before) for _ in range(8)]
            assert [when for when, _ in seen] == [0.75 + 0.25 * i for i in range(8)] and any(
                other for _, other in seen
            )
            owner.kill()
        assert (
            all(moves() for _ in range(4))
            and game.poll() is None
            and "TracerPid:\t0" in read_text(f"/proc/{game.pid}/status")
        )
    finally:
        game.kill()
        game.wait()
        stage.remove()


@pytest.mark.skipif(
    not shutil.which("vkcube")
    or not list(Path("/usr/share/vulkan/icd.d").glob("lvp*"))
    or bool(sim.hook_fault()),
    reason="no Vulkan on this processor (apt install vulkan-tools mesa-vulkan-drivers)",
)
def test_vulkan_is_gated_where_it_presents():
    with contextlib.closing(
        sim.GameEnv(["vkcube", "--width", "200", "--height", "150"], fps=30)
    ) as env:
        env.reset()
        assert env.clock.presented[0] == "vkQueuePresentKHR" and type(env.view) is Window
        infos = [env.step(NEUTRAL)[4] for _ in range(6)]
        # the cube turns
        assert env.render().shape == (150, 200, 3) and len({info["hash"] for info in infos}) == 6
        assert np.diff([info["time"] for info in infos]) == pytest.approx(1 / 30)


# ---- the paper's check (appendix B.1): recorded input, replayed with random pauses, must not
# diverge.  Here: not one pixel.

BUILT_IN = sorted(p.stem for p in (ROOT / "games").glob("*.py") if p.stem != "console")


@pytest.mark.slow
@pytest.mark.skipif(bool(sim.hook_fault()), reason=str(sim.hook_fault()))
@pytest.mark.parametrize("name", [param("supertux"), param("doom"), *BUILT_IN])
def test_what_is_replayed_with_and_without_pauses_is_the_same(name, tmp_path, request):
    """For a minute, if --replay does not say otherwise."""
    game, seconds = GAMES.get(name), request.config.getoption("--replay")
    fps, command = (
        (game.fps, game.command)
        if game
        else (
            30,
            [
                sys.executable,
                str(ROOT / "games" / f"{name}.py"),
                "--seed",
                "{seed}",
                "--fps",
                "{fps}",
            ],
        )
    )
    out = str(tmp_path / "a.mp4")
    commands = {"record": (sim.Record, sim.play), "replay": (replay.Config, replay.main)}

    def run(*argv):
        return command_line("", commands, list(argv))

    run(
        "record",
        "--player",
        "random",
        "--speed",
        "0",
        "--seconds",
        str(seconds),
        "--fps",
        str(fps),
        "--wait",
        "8" if game else "0",
        "--record",
        out,
        "--",
        *command,
    )
    for pauses in ("0", "0.02"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            run("replay", out, "--pauses", pauses)
        assert int(
            said.getvalue().split()[1]
        ) > 5 / 6 * seconds * fps and said.getvalue().strip().endswith("frames are the same")
