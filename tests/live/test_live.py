"""eval.py play on your own game: plans that overlap, real time, a person at the pad."""

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time

from common import ROOT, artefact
from common.artefact import BUTTONS
from common.pictures import read_video
from common.shards import Part, Shards

import numpy as np
import pytest

from clock.base import GameError, read_text
from commands import command
from devices import sandbox
from devices.base import Gamepad
from devices.display import Keyboard
from live import pilot, play, server
from live.brain import Local
from piloting import RIDGE, Scripted, config, hooked, pad_of, playing, run

# ---- plans


def rows(*values):
    return np.float32([[v] * 20 for v in values])


def test_a_plan_follows_the_clock():
    plan = pilot.Plan(30.0, 1)
    assert plan.at(0.0) is None
    assert plan.add(rows(1, 2, 3), seen=10.0, now=10.0 + 1 / 30, fade=0) == 3
    # at 60 frames a second each action holds for two
    moments = 10 + np.array([1, 1.5, 2, 3, 3.9, 4]) / 30
    assert [None if plan.at(t) is None else plan.at(t)[0] for t in moments] == [1, 1, 2, 3, 3, None]
    assert plan.at(10.0 + 0.5 / 30)[0] == 1  # the frame before its moment: there is nothing better


def test_late_chunks_are_cut_to_the_present_and_fade_in():
    plan = pilot.Plan(30.0, 1)
    plan.add(rows(*[0] * 16), seen=0.0, now=1 / 30, fade=0)
    # actions for 9, 10 and 11 are over
    assert plan.add(rows(*[8] * 16), seen=8 / 30, now=12 / 30, fade=3) == 13
    # a quarter, a half, three quarters, all of it
    assert [float(plan.at(k / 30)[0]) for k in range(12, 19)] == [2, 4, 6, 8, 8, 8, 8]
    assert plan.at(24 / 30)[0] == 8 and plan.at(25 / 30) is None
    # too late altogether: as it was
    assert plan.add(rows(1, 1), seen=0.0, now=20 / 30, fade=3) == 0 and plan.at(20 / 30)[0] == 8


def test_old_actions_beyond_the_old_plan_are_not_blended():
    plan = pilot.Plan(30.0, 1)
    plan.add(rows(0, 0), seen=0.0, now=1 / 30, fade=0)
    plan.add(rows(8, 8, 8), seen=1 / 30, now=2 / 30, fade=3)
    assert [float(plan.at(k / 30)[0]) for k in (2, 3, 4)] == [2, 8, 8]


class Later:
    """A pool in which a chunk is there `frames` frames after it was asked for."""

    def __init__(self, frames: int):
        self.frames = frames

    def submit(self, think, *args):
        self.waits = self.frames
        self.chunk = think(*args)[0]
        return self

    def done(self):
        self.waits -= 1
        return self.waits < 0

    def result(self):
        return self.chunk, (self.frames - 0.5) / 30

    def shutdown(self, **_):
        pass


def in_real_time(prefix: int):
    """(LEFT_X in force in frames 1 .. 40, in thousandths; (frame, what was under way) of each
    chunk) of a policy whose chunk of frame i says i in all rows and comes three frames later.
    """
    brain = Scripted()
    brain.about = {**brain.about, "prefix": prefix}
    agent = pilot.Pilot(brain, config(realtime=True, execute=8))
    agent.pool = Later(3)
    held = []
    for i in range(40):
        brain.chunk = np.float32([[0] * 16 + [i / 1000] + [0] * 3] * 16)
        held.append(round(1000 * float(agent(np.zeros(1), {"time": i / 30})[1][0]), 2))
    given = [
        None if rows is None else (1000 * rows[:, 16]).round(2).tolist() for rows in brain.given
    ]
    return held, given


def test_a_late_chunk_fades_in_and_is_told_nothing():
    held, given = in_real_time(prefix=0)
    assert given == [None] * 5
    assert held[8:16] == [0, 0, 0, 2, 4, 6, 8, 8]  # seen in frame 8, there in frame 11


def test_a_policy_with_a_prefix_is_told_what_is_under_way():
    """No fade: the actions that it was given are those of the frames until its chunk is there."""
    held, given = in_real_time(prefix=6)
    assert held[8:16] == [0, 0, 0, 8, 8, 8, 8, 8]
    assert given[0] is None  # at the start nothing is under way
    for seen, rows in zip((8, 16, 24, 32), given[1:], strict=True):
        assert rows[:3] == held[seen : seen + 3] and set(rows) == {rows[0]}
        assert 3 <= len(rows) <= 4  # frames until it is there; one more is safe
    assert in_real_time(prefix=2)[1][2] == [8, 8]  # no more than it takes


# ---- games


@hooked
def test_the_game_waits_and_the_menu_is_locked():
    brain = Scripted("SOUTH", "START", "BACK", LEFT_X=0.5, delay=0.05)
    with playing(brain, seconds=1.0) as (env, agent, steps):
        pads = [pad_of(env) for _ in steps][1:]
    assert len(pads) == 30 and all(
        p == ({"SOUTH"}, {"LEFT_X": 0.5, "LEFT_Y": 0, "RIGHT_X": 0, "RIGHT_Y": 0}) for p in pads
    )
    # at frames 0, 8, 16, 24
    assert len(brain.seen) == 4 and brain.seen[0].shape == (256, 256, 3) and agent.empty == 0
    with playing(brain, seconds=0.1, menu=True) as (env, agent, steps):
        assert [pad_of(env)[0] for _ in steps][1:] == [{"SOUTH", "START", "BACK"}] * 3


@hooked
@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_real_time_does_not_wait(speed, capsys):
    """The game keeps its pace while the policy thinks for longer than eight actions last."""
    brain = Scripted("SOUTH", delay=0.3 / speed)
    with playing(brain, seconds=3.0, realtime=True, speed=speed) as (env, agent, steps):
        next(steps)
        begin = time.perf_counter()
        held = [pad_of(env)[0] for _ in steps]
        spent = time.perf_counter() - begin
    # never faster; how much slower depends on this machine
    assert len(held) == 90 and spent >= 0.95 * 3 / speed
    # it thought back to back, and not frame by frame
    assert held.count({"SOUTH"}) > 60 and 3 <= len(brain.seen) <= 12
    report = agent.report()
    assert (
        290 / speed <= report["median"] <= report["p90"] <= report["p99"] <= report["most"]
        and "of the frames came late" in capsys.readouterr().out
    )


@hooked
def test_a_policy_slower_than_the_game_is_told():
    with playing(Scripted("SOUTH", length=4, delay=0.4), seconds=60.0, realtime=True) as (
        env,
        agent,
        steps,
    ):
        with pytest.raises(
            GameError,
            match=r"^the policy is slower than the game: 0\.\d+ s for a chunk that is over 0.17 s "
            r".* --speed 0\.\d+, or no --realtime[^\n]*$",
        ):
            list(steps)


@hooked
def test_a_game_that_shows_no_frame_is_told():
    with playing(Scripted(), command=("tail", "-f", "/dev/null"), timeout=1.0) as (
        env,
        agent,
        steps,
    ):
        with pytest.raises(
            GameError, match=r"^tail -f /dev/null: no frame in [^\n]* it has opened no window$"
        ):
            list(steps)


def test_an_action_layout_that_the_keys_cannot_express(capsys):
    keyboard = Keyboard.__new__(Keyboard)
    keyboard.keys = {"SOUTH": "space", "LEFT_X-": "Left"}
    pilot.check_layout(keyboard, ("SOUTH", "LEFT_X"))
    assert capsys.readouterr().err == ""
    pilot.check_layout(keyboard, ("SOUTH", "NORTH", "RIGHT_Y", "GUIDE"))
    assert (
        capsys.readouterr().err
        == "no key for NORTH, RIGHT_Y: what the policy does with them is lost (--keys NORTH=...)\n"
    )
    with pytest.raises(
        GameError,
        match=r"^the policy's actions \(NORTH, RIGHT_Y\S* \.\.\.\) have no place on this game's "
        r"keys \(--keys\)$",
    ):
        pilot.check_layout(keyboard, ("NORTH", "RIGHT_Y"))
    with pytest.raises(GameError, match="no place on this game's pad"):
        pilot.check_layout(Gamepad(None), ("JUMP", "DUCK"))


def test_key_maps():
    assert (
        pilot.key_map("SOUTH=z,LEFT_X-=a") == {"SOUTH": "z", "LEFT_X-": "a"}
        and pilot.key_map("") == {}
    )
    with pytest.raises(SystemExit, match="expected BUTTON=key"):
        pilot.key_map("SOUTH")


# ---- a person


@hooked
def test_a_person_takes_the_pad_and_gives_it_back(capsys):
    hands, now = iter([{}] * 5 + [{"LEFT_X": 0.2}] * 2 + [{"EAST": 1}] * 2 + [{}] * 100), [0.0]

    def person(picture):
        assert picture.shape == (270, 480, 3)
        now[0] += 0.1  # seconds per frame, of the clock below
        held = next(hands)
        return np.int8([held.get(n, 0) for n in artefact.BUTTONS]), np.float32(
            [held.get(n, 0) for n in artefact.STICKS]
        )

    takeover = pilot.Takeover(person, idle=0.5)
    takeover.clock = lambda: now[0]
    begin = time.perf_counter()
    with playing(Scripted("SOUTH"), takeover, seconds=1.0) as (env, agent, steps):
        held = [pad_of(env)[0] for _ in steps][1:]
    assert held == [{"SOUTH"}] * 7 + [{"EAST"}] * 2 + [set()] * 4 + [{"SOUTH"}] * 17
    assert capsys.readouterr().out == "you play\nthe policy plays\n"
    assert time.perf_counter() - begin >= 0.95  # at a pace that a person can follow


@hooked
def test_a_persons_corrections_are_kept(policy, tmp_path, monkeypatch, capsys):
    """A session of two seconds, of which the person has rows 16 to 45 and lets go after row 35;
    what filter.py makes of it holds the person's actions alone.
    """
    frame = itertools.count()

    class Takeover(pilot.Takeover):
        def __call__(self, picture, pad):
            n = next(frame)  # the next row is n + 1
            self.playing = 15 <= n < 45
            east = np.int8([self.playing and n < 35 and name == "EAST" for name in BUTTONS])
            return (east, np.zeros(4, np.float32)) if self.playing else pad

    monkeypatch.setattr(play, "takeover", lambda c: Takeover(None, 1.0))
    folder = tmp_path / "session"
    options = {"policy": policy, "device": "cpu", "window": True, "record": str(folder)}
    play.main(config(seconds=2.0, **options))
    assert "61 frames -> " in capsys.readouterr().out
    tensors, info = artefact.read(folder / "ridge-000.actions.safetensors", "nitrogen.actions/1")
    assert info["game"] == "ridge" and info["fps"] == 30 and len(tensors["time"]) == 61
    assert np.flatnonzero(tensors["person"]).tolist() == list(range(16, 46))
    east = tensors["buttons"][:, BUTTONS.index("EAST")]
    assert (east[16:46] == (np.arange(16, 46) < 36)).all()
    assert len(list(read_video(folder / "ridge-000.mp4"))) == 61

    out = str(tmp_path / "shards")
    command("filter.py", str(folder), "--out", out, "--validation", "0", "--horizon", "8")
    part = Part(tmp_path / "shards/ridge-000-000.safetensors")
    assert part["frame"].tolist() == list(range(1, 36)) and part.about["game"] == "ridge"
    assert part["frame"][part["start"]].tolist() == list(range(15, 28))
    _, buttons, _, _, _ = Shards(out, "train", 8, 30, 1)[0]
    assert buttons.sum(0).tolist() == [8 * (name == "EAST") for name in BUTTONS]

    # the next sessions get the next numbers; one that breaks off is kept as far as it went
    monkeypatch.setattr(pilot.Pilot, "report", lambda self: {})
    real = pilot.frames
    for number, end in (("001", GameError("the game hangs")), ("002", RuntimeError("no memory"))):
        frame = itertools.count()

        def broken(*args, end=end):
            yield from itertools.islice(real(*args), 10)
            raise end

        monkeypatch.setattr(pilot, "frames", broken)
        with pytest.raises(type(end), match=str(end)):
            play.main(config(seconds=2.0, **options))
        tensors, _ = artefact.read(folder / f"ridge-{number}.actions.safetensors")
        assert len(tensors["person"]) == 10
        assert len(list(read_video(folder / f"ridge-{number}.mp4"))) == 10


@hooked
def test_closing_the_window_ends_the_game():
    with playing(Scripted(), pilot.Takeover(lambda picture: None, 1.0), seconds=0) as (
        env,
        agent,
        steps,
    ):
        assert len(list(steps)) == 1


@pytest.mark.slow
@hooked
@pytest.mark.skipif(
    not importlib.util.find_spec("pygame") or not shutil.which("Xvfb"),
    reason="needs pygame and Xvfb (pip install pygame; sudo apt install xvfb)",
)
def test_a_person_at_the_real_window(policy):
    """Keys that the X server sends to the window of `play --window`, as if a person pressed one."""
    with contextlib.ExitStack() as stack:
        stage = sandbox.Sandbox("1000x600")
        stack.callback(stage.remove)
        client = subprocess.Popen(
            run(
                "play",
                "--policy",
                policy,
                "--device",
                "cpu",
                "--fps",
                "30",
                "--seconds",
                "0",
                "--window",
                "--idle",
                "0.5",
                "--",
                *RIDGE,
            ),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"DISPLAY": stage.display.name, "SDL_VIDEODRIVER": "x11"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

        def told(line):
            return next(said for said in client.stdout if said == line)

        while not stage.display.windows():
            assert client.poll() is None
            time.sleep(0.1)
        stage.display.focus(stage.display.windows()[0][0])
        stage.display.key("c", True)
        told("you play\n")
        stage.display.key("c", False)
        told("the policy plays\n")
        client.send_signal(signal.SIGINT)
        assert " chunks; latency" in client.communicate(timeout=60)[0] and client.returncode == 0


@hooked
def test_the_same_play_twice(policy, tmp_path):
    """The game waits, so play is exact: the same film to the byte, and the first chunk is the
    network's own.
    """
    films = []
    for name in "ab":
        play.main(config(policy=policy, device="cpu", video=str(tmp_path / f"{name}.mp4"), seed=3))
        films.append([frame for _, _, frame in read_video(tmp_path / f"{name}.mp4")])
    assert len(films[0]) == 31 and np.array_equal(*films)


def test_bad_input(policy, tmp_path):
    for options, why in (
        (
            {"command": (), "policy": policy, "video": "a.mp4"},
            "^--video, --window and --record go with -- COMMAND",
        ),
        ({"suite": "open", "window": True}, "^--video, --window and --record go with"),
        ({"command": (), "policy": policy, "record": "a"}, "^--video, --window and --record go"),
        ({"policy": "nowhere"}, "^nowhere: no such file; make it anew: python train.py"),
        ({"command": (), "realtime": True, "policy": policy}, "no game given: add -- COMMAND"),
        ({"speed": 0.0, "realtime": True}, "^--speed 0: expected more than 0"),
        ({"idle": 0.0}, "^--idle 0: expected 0.01 to"),
        ({"seconds": -1.0}, "^--seconds -1: expected at least 0$"),
        ({"speed": 0.5}, "^--speed 0.5: expected .* with --realtime"),
        (
            {"policy": policy, "execute": 17},
            "^--execute 17: this policy's chunks hold 16 actions; give 1 to 16$",
        ),
        (
            {"remote": "here:1", "token": str(tmp_path / "none")},
            r"^--token \S+none: no such file; copy it from the machine that serves$",
        ),
        ({"remote": "here", "token": __file__}, "^--remote here: expected HOST:PORT"),
        (
            {"remote": "127.0.0.1:1", "token": __file__},
            r"^--remote 127.0.0.1:1: .*refused; is `python eval.py serve` running there\?$",
        ),
        ({"policy": policy, "keys": "SOUTH"}, "^--keys SOUTH: expected"),
    ):
        with pytest.raises(SystemExit, match=why):
            play.main(config(**options))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="in use"):
        server.main(
            server.Config(
                policy=policy,
                device="cpu",
                port=taken.getsockname()[1],
                token=str(tmp_path / "token"),
            )
        )


# ---- for long (python -m pytest tests/live/test_live.py -m slow -s --soak 60)


@hooked
@pytest.mark.slow
def test_an_hour_in_real_time(policy, request):
    """Memory does not grow, latency does not drift; --soak says for how many minutes."""
    minutes, memory = request.config.getoption("--soak"), []
    brain = Local(policy, "cpu", 0, 0)
    with playing(brain, seconds=60 * minutes, realtime=True) as (env, agent, steps):
        for i, _ in enumerate(steps):
            if i % 300 == 0:
                memory.append(int(read_text("/proc/self/statm").split()[1]) * 4096 / 2**20)
    latency = 1e3 * np.array(agent.latency[1:])
    first, last = (
        np.median(part) for part in (latency[: len(latency) // 3], latency[-len(latency) // 3 :])
    )
    begin, end = memory[len(memory) // 5], memory[-1]
    report = agent.report()
    print(
        f"{minutes:g} minutes: {begin:.1f} -> {end:.1f} MiB; median latency {first:.1f} -> "
        f"{last:.1f} ms"
    )
    assert i >= 60 * 30 * minutes * 0.99 and end - begin < 10 and report["chunks"] > 60 * minutes
    assert last < 3 * first + 20  # a drift adds up; other work on the machine comes and goes
