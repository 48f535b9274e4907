"""sim.py: GameEnv on a real game and all the ways to fail, then the commands.

python -m pytest tests/test_sim.py
"""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

from common import ROOT, artefact
from common.pictures import Video, read_video, video_facts

import gymnasium
import numpy as np
import pytest

import sim
from bench import replay, stepping
from clock import kernel
from clock.base import NOT_HERE, GameError, say_once
from commands import actions_file, fault
from devices import sandbox
from devices.console import GateClock
from programs import GAME, NEUTRAL, PUSH, check_clean, needs_hook, needs_xvfb, python, wait_until

# ---- GameEnv


def play(env, frames, seed=0):
    """Hashes, times and scores under a seeded random pad."""
    rng = np.random.default_rng(1)
    seen = [env.reset(seed=seed)[1]]
    for i in range(frames):
        if i % 5 == 0:
            action = {"buttons": rng.random(16) < 0.3, "sticks": rng.uniform(-1, 1, 4)}
        seen.append(env.step(action)[4])
    return seen


@needs_hook
def test_same_seed_same_frames_with_and_without_the_hook():
    with contextlib.closing(sim.GameEnv(GAME, clock="hook")) as env:
        first, again, other = play(env, 90), play(env, 90), play(env, 90, seed=5)
    with contextlib.closing(sim.GameEnv(GAME, clock="console")) as env:
        gated = play(env, 90)
    assert first == again == gated
    assert [i["frame"] for i in first] == list(range(91)) and [i["time"] for i in first] == [
        round((k + 1) / 30, 6) for k in range(91)
    ]
    assert (
        len({i["hash"] for i in first}) > 60
        and first[0]["hash"] != other[0]["hash"]
        and first[0]["score"]["game"] == "crypt"
    )


@pytest.mark.parametrize("clock", [pytest.param("hook", marks=needs_hook), "console"])
def test_frame_i_is_drawn_under_pad_i(pad_game, clock):
    rng = np.random.default_rng(2)
    with contextlib.closing(
        sim.GameEnv(
            pad_game,
            fps=30,
            clock=clock,
            seconds=1.0,
            reward=lambda info: info["score"]["state"][4],
        )
    ) as env:
        frame, info = env.reset()
        assert (
            info["score"]["state"] == [0] * 20
            and info["frame"] == 0
            and frame.shape == (256, 256, 3)
            and (frame == 10).all()
        )
        for i in range(1, 30):
            pad = {
                "buttons": rng.integers(0, 2, 16) * (np.arange(16) < 15),
                "sticks": rng.uniform(-1.5, 1.5, 4),
            }
            frame, reward, terminated, truncated, info = env.step(pad)
            assert info["score"]["state"] == [
                *pad["buttons"],
                *(round(float(v), 3) for v in np.float32(pad["sticks"].clip(-1, 1))),
            ]
            assert (
                info["frame"] == i
                and reward == pad["buttons"][4]
                and (frame == 10 + 200 * pad["buttons"][4]).all()
            )
            assert (terminated, truncated) == (False, i == 29)
        assert env.render().shape == (270, 480, 3)
        # START: it exits
        _, _, terminated, _, info = env.step(
            {"buttons": np.arange(16) == 15, "sticks": np.zeros(4)}
        )
        assert terminated and info["frame"] == 29 and env.clock.returncode == 3


@needs_hook
def test_frame_skip(pad_game):
    with contextlib.closing(sim.GameEnv(pad_game, fps=60, frame_skip=3)) as env:
        env.reset()
        assert [env.step(NEUTRAL)[4]["frame"] for _ in range(3)] == [3, 6, 9]


@needs_hook
def test_a_game_may_live_in_any_one_thread(pad_game):
    seen = []

    def play_in_thread():
        with contextlib.closing(sim.GameEnv(pad_game)) as env:
            env.reset()
            seen.append(env.step(NEUTRAL)[4]["frame"])

    threads = [threading.Thread(target=play_in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1]


def test_wrong_actions_are_refused(pad_game):
    with contextlib.closing(sim.GameEnv(pad_game)) as env:
        with pytest.raises(GameError, match="call reset"):
            env.step(NEUTRAL)
        env.reset()
        for bad in (
            None,
            np.zeros(20),
            {"buttons": np.zeros(16)},
            {**NEUTRAL, "buttons": np.zeros(15)},
            {**NEUTRAL, "sticks": np.zeros((1, 4))},
            {**NEUTRAL, "sticks": np.array([0, np.nan, 0, 0])},
            {**NEUTRAL, "sticks": "left"},
            {**NEUTRAL, "sticks": np.int16([0, 32767, 0, 0])},
            {**NEUTRAL, "sticks": np.uint8([128, 255, 0, 0])},
            {**NEUTRAL, "buttons": np.full(16, 0.3)},
            {**NEUTRAL, "buttons": np.full(16, 255)},
        ):
            with pytest.raises(GameError, match=r"an action is \{'buttons'") as e:
                env.step(bad)
            assert "\n" not in str(e.value)
        assert env.step(NEUTRAL)[4]["frame"] == 1
    for name in ("gamepad", "screen", "clock"):
        with pytest.raises(GameError, match=f"{name} 'wheel': there is auto"):
            sim.GameEnv(pad_game, **{name: "wheel"})
    for wrong in ({"fps": 0}, {"frame_skip": 0}, {"home": "/no/such/home"}, {"command": []}):
        with pytest.raises(GameError, match="expected fps > 0, frame_skip >= 1, a folder, a game"):
            sim.GameEnv(**{"command": pad_game, **wrong})


def test_check_env():
    check_clean(GAME)


def test_without_a_seed_reset_takes_the_next_one():
    def episodes(env, **first):
        hashes = [env.reset(**first)[1]["hash"]] + [env.reset()[1]["hash"] for _ in range(2)]
        assert len(set(hashes)) == 3
        return hashes

    with contextlib.closing(sim.GameEnv(GAME, clock="console", seed=5)) as env:
        by_option = episodes(env)
        assert episodes(env, seed=5) == by_option
    # and without any seed, none is like another
    envs = [sim.GameEnv(GAME, clock="console") for _ in range(2)]
    seen = set()
    for env in envs:
        with contextlib.closing(env):
            env.reset()
            seen.add(env.seed)
    assert len(seen) == 2


def test_its_spec_can_be_stored_and_sent(pad_game):
    spec = gymnasium.make("NitroGame-v0", cmd=pad_game, fps=20, render_mode=None).spec
    stored = gymnasium.envs.registration.EnvSpec.from_json(spec.to_json())
    for again in (stored, pickle.loads(pickle.dumps(spec))):
        with contextlib.closing(gymnasium.make(again)) as env:
            assert isinstance(env.unwrapped, sim.GameEnv) and env.unwrapped.fps == 20
            assert env.unwrapped.command == pad_game and env.render_mode is None
    with pytest.raises(GameError, match="render_mode 'ansi': there is rgb_array, None"):
        sim.GameEnv(pad_game, render_mode="ansi")


@pytest.mark.filterwarnings("ignore:.*human.*rendering")
def test_a_window_for_people(pad_game, monkeypatch):
    pytest.importorskip("pygame", reason="no pygame (pip install pygame)")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    made = gymnasium.make("NitroGame-v0", cmd=pad_game, fps=500, render_mode="human")
    with contextlib.closing(made) as env:
        env.reset(seed=0)
        env.step(NEUTRAL)
        wrapper = env
        while not isinstance(wrapper, gymnasium.wrappers.HumanRendering):
            wrapper = wrapper.env
        assert wrapper.window.get_size() == (480, 270)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("clock", [pytest.param("hook", marks=needs_hook), "console"])
def test_a_step_in_a_forked_child_is_refused(pad_game, clock):
    """And the game goes on for its parent, as if nothing had been asked."""
    with contextlib.closing(sim.GameEnv(pad_game, clock=clock)) as env:
        env.reset()
        ours, theirs = multiprocessing.Pipe()

        def child():
            try:
                theirs.send(env.step(PUSH)[2])
            except GameError as e:
                theirs.send(str(e))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert ours.poll(60) and ours.recv() == NOT_HERE
        process.join()
        _, _, terminated, _, info = env.step(NEUTRAL)
        assert not terminated and info["frame"] == 1


@needs_hook
def test_a_clock_in_a_forked_child_is_refused():
    clock = sim.Clock(["sleep", "1000"])
    try:
        child = os.fork()
        if not child:
            clock.close()  # the game is not the child's
            with contextlib.suppress(GameError):
                clock.step(1)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        clock.step(1)
        assert clock.alive
    finally:
        clock.close()


@pytest.mark.parametrize(
    "clock, script",
    [
        pytest.param("hook", '"$@" & sleep 0.2', marks=needs_hook),
        pytest.param("hook", 'setsid "$@" & sleep 0.2', marks=needs_hook),
        ("console", '"$@" & sleep 0.2'),
    ],
)
def test_a_game_outlives_its_launcher(pad_game, leftovers, clock, script):
    command = ["sh", "-c", script, "sh", *pad_game]
    with contextlib.closing(sim.GameEnv(command, clock=clock)) as env:
        env.reset()
        assert not any(env.step(NEUTRAL)[2] for _ in range(20))
        assert wait_until(lambda: env.clock.returncode == 0)
        assert not env.step(NEUTRAL)[2]
        start = {**NEUTRAL, "buttons": np.arange(16) == 15}
        assert env.step(start)[2] and not env.clock.alive
    assert not leftovers()


@needs_hook
def test_what_a_game_leaves_behind_is_no_game(pad_game, leftovers):
    command = ["sh", "-c", 'sleep infinity & exec "$@"', "sh", *pad_game]
    with contextlib.closing(sim.GameEnv(command, timeout=5)) as env:
        env.reset()
        assert not env.step(NEUTRAL)[2]
        assert env.step({**NEUTRAL, "buttons": np.arange(16) == 15})[2]
    assert not leftovers()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_vector_env():
    envs = gymnasium.vector.AsyncVectorEnv([lambda: sim.GameEnv(GAME)] * 2, context="fork")
    try:
        envs.reset(seed=[1, 2])
        for _ in range(5):
            frames, _, _, _, info = envs.step(
                {"buttons": np.zeros((2, 16), np.int8), "sticks": np.zeros((2, 4), np.float32)}
            )
    finally:
        envs.close()
    assert (
        frames.shape == (2, 256, 256, 3)
        and list(info["frame"]) == [5, 5]
        and info["hash"][0] != info["hash"][1]
    )


@pytest.mark.parametrize("clock", [pytest.param("hook", marks=needs_hook), "console"])
def test_close_leaves_nothing(pad_game, leftovers, clock):
    env = sim.GameEnv(pad_game, clock=clock)
    for _ in range(5):
        env.reset()
        env.step(NEUTRAL)
        assert len(leftovers()) == 2  # one folder, one process
    env.close()
    env.close()
    assert not leftovers()
    env.reset()  # it can be used again
    del env
    assert not leftovers()


@pytest.mark.parametrize(
    "ending",
    [
        "raise ValueError",
        "os.kill(os.getpid(), signal.SIGINT)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_nothing_is_left_however_we_end(pad_game, leftovers, ending):
    code = (
        f"import os, signal, sys, time; sys.path.insert(0, {str(ROOT)!r}); import sim\nfrom "
        "devices import sandbox\nfrom pathlib import Path\n"
        f"sandbox.DISK = sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\n"
        # a shell's background job inherits it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"env = sim.GameEnv({pad_game!r})\nenv.reset()\nprint(env.sandbox.path, "
        f"flush=True)\n{ending}\ntime.sleep(60)"
    )
    folder = Path(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=180
        ).stdout.strip()
    )
    assert folder.parent == sandbox.MEMORY and wait_until(lambda: not leftovers())


@pytest.mark.parametrize("clock", [pytest.param("hook", marks=needs_hook), "console"])
def test_games_that_fail(leftovers, clock):
    cases = [
        (
            60,
            python("raise ValueError('no level 9')"),
            "ended with status 1 before its first frame: ValueError: no level 9",
        ),
        (60, python("os.abort()"), "ended with status -6 before its first frame: it said nothing"),
        (60, python("time.sleep(0.1)"), "ended with status 0 before its first frame"),
        (2, ["sh", "-c", "while :; do sleep 0.1; done"], "no frame in 2 s"),
        (2, ["/no/such/game"], "/no/such/game: no such program"),
    ]
    if clock == "hook":
        cases.append((2, ["sh", "-c", "while :; do :; done"], "computed for 2 s without waiting"))
    for timeout, command, said in cases:
        with pytest.raises(GameError, match=said) as e:
            sim.GameEnv(command, timeout=timeout, clock=clock).reset()
        assert "\n" not in str(e.value) and not leftovers()


def test_without_the_hook_it_says_so_once(pad_game, monkeypatch, capfd):
    monkeypatch.setattr(sim, "hook_fault", lambda: "ptrace is not what it was")
    say_once.cache_clear()
    with contextlib.closing(sim.GameEnv(pad_game)) as env:
        env.reset()
        env.reset()
        assert isinstance(env.clock, GateClock) and env.step(NEUTRAL)[4]["frame"] == 1
    assert (
        capfd.readouterr().err
        == "sim: ptrace is not what it was. Falling back to the built-in console's own pause.\n"
    )
    with pytest.raises(GameError, match="^ptrace is not what it was$"):
        sim.GameEnv(pad_game, clock="hook").reset()


def test_a_running_game_of_windows_is_attached_to(monkeypatch, leftovers):
    seen = []

    def attach(*args):
        seen.append(args)
        raise GameError("found")

    monkeypatch.setattr(sim, "WINDOWS", True)
    monkeypatch.setattr(sim.WindowsClock, "attach", attach)
    with pytest.raises(GameError, match="^found$"):
        sim.GameEnv([], attach="game.exe", fps=20, timeout=9).reset()
    assert seen == [("game.exe", 9, 20)] and not leftovers()


# ---- commands


def command(*argv):
    return subprocess.run(
        [sys.executable, "sim.py", *argv], cwd=ROOT, capture_output=True, text=True, timeout=180
    )


def test_what_cannot_be_played_or_written_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    actions_file(tmp_path / "a.actions.safetensors")
    wrong = sim.Record(
        player="random", speed=0, record=str(tmp_path / "file" / "a.mp4"), command=tuple(GAME)
    )
    assert fault(sim.play, wrong).endswith(
        f"a.mp4: cannot be written (File exists: {tmp_path / 'file'})"
    )
    assert (
        fault(sim.play, sim.Play(speed=-1.0))
        == "--speed -1 --seconds 0 --wait 0: none may be below 0"
    )
    assert (
        fault(sim.play, sim.Play()).startswith("no game given: add --")
        and fault(stepping.main, stepping.Config(frames=0)) == "--frames 0: nothing to time"
    )
    assert "none.actions.safetensors: no such file; make it: python sim.py record" in fault(
        replay.main, replay.Config(videos=(str(tmp_path / "none.mp4"),))
    )
    assert "not a recording" in fault(replay.main, replay.Config(videos=(str(tmp_path / "a.mp4"),)))


def test_doctor():
    out = command("doctor").stdout
    rows = {line[:18].strip(): line[18:].split()[0] for line in out.splitlines()}
    assert (
        set(rows.values()) <= {"ok", "missing"}
        and rows["Python >= 3.10"] == "ok"
        and (rows["Xvfb"] == "ok") == bool(shutil.which("Xvfb"))
    )
    assert ("missing" in (rows["ptrace"], rows["seccomp"], rows["vDSO patch"])) == bool(
        sim.hook_fault()
    )


@needs_hook
@pytest.mark.parametrize("number, part", [(101, "ptrace"), (317, "seccomp")])
def test_where_a_system_call_is_forbidden_doctor_says_so_and_games_still_run(
    number, part, pad_game, tmp_path
):
    """The real thing: a filter, inherited by all children, that answers with EPERM."""

    def forbid():
        code = b"".join(
            struct.pack("<HBBI", *line)
            for line in (
                (0x20, 0, 0, 0),
                (0x15, 0, 1, number),
                (6, 0, 0, 0x50001),
                (6, 0, 0, 0x7FFF0000),
            )
        )
        kept = ctypes.create_string_buffer(code)
        assert (
            kernel.libc.prctl(38, 1, 0, 0, 0)
            == 0
            == kernel.libc.syscall(317, 1, 0, struct.pack("<HxxxxxxQ", 4, ctypes.addressof(kept)))
        )

    def run(*argv):
        return subprocess.run(
            [sys.executable, "sim.py", *argv],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
            preexec_fn=forbid,
        )

    row = next(line for line in run("doctor").stdout.splitlines() if line.startswith(part)).split(
        None, 2
    )
    assert (
        row[1] == "missing"
        and row[2].startswith(f"{part}: not permitted here")
        and row[2].endswith("--cap-add=SYS_PTRACE --security-opt seccomp=unconfined")
    )
    done = run(
        "record",
        "--player",
        "random",
        "--speed",
        "0",
        "--seconds",
        "0.5",
        "--fps",
        "20",
        "--record",
        str(tmp_path / "a.mp4"),
        "--",
        *pad_game,
    )
    assert (
        done.returncode == 0
        and "10 frames -> " in done.stdout
        and f"sim: {part}: not permitted" in done.stderr
    ), done.stderr
    assert "Falling back to the built-in console's own pause." in done.stderr


@needs_xvfb
def test_record_and_replay(victim, tmp_path):
    """A random player's recording is what filter.py takes, and its replay, with pauses too, shows
    the same frames.
    """
    import filter

    out = str(tmp_path / "a.mp4")
    said = command(
        "record",
        "--player",
        "random",
        "--seconds",
        "0.5",
        "--fps",
        "20",
        "--speed",
        "0",
        "--seed",
        "3",
        "--record",
        out,
        "--",
        victim,
        "renderer",
    )
    labels = tmp_path / "a.actions.safetensors"
    assert said.returncode == 0 and str(labels) in said.stdout, said.stderr
    buttons, sticks, tensors, info = filter.final_actions(labels)
    assert (
        video_facts(out)["frames"] == len(buttons) == 11
        and info["unit"] == "normalized"
        and not buttons[0].any()
        and buttons.any()
        and sticks.any()
    )
    pictures = [picture for _, _, picture in read_video(out)]
    x = 80 + np.cumsum([int(s > 16000 / 32767) - int(s < -16000 / 32767) for s in sticks[:, 0]])
    found = [np.nonzero((picture[:, :, 0] > 128).sum(0) > 5)[0][0] for picture in pictures]
    # frame i of the video shows row i of the actions
    assert np.abs(np.array(found) - x)[x < 144].max() <= 1
    again = command("replay", str(labels), "--pauses", "0.3")
    assert again.returncode == 0 and "all 11 frames are the same" in again.stdout, again.stderr
    tensors["hash"][7] ^= 1
    artefact.write(
        tmp_path / "b.actions.safetensors",
        tensors,
        "nitrogen.actions/1",
        **{k: v for k, v in info.items() if k not in ("format", "command", "tensors")},
    )
    assert (
        command("replay", str(tmp_path / "b.actions.safetensors"))
        .stderr.strip()
        .endswith("frame 7 of 11 differs")
    )
    assert (
        "exists; give another name, or --fresh"
        in command("record", "--record", out, "--player", "random", "--", victim, "renderer").stderr
    )


@needs_hook
def test_a_game_slower_than_its_monitor_is_recorded_in_its_own_time(tmp_path):
    """Labels, film and shards agree with its clock."""
    import filter

    command = tuple(part.replace("{fps}", "20") for part in GAME)
    video = tmp_path / "a.mp4"
    sim.play(
        sim.Record(player="random", speed=0, seconds=1, fps=60, record=str(video), command=command)
    )
    path = tmp_path / "a.actions.safetensors"
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    assert tensors["time"] == pytest.approx(np.arange(21) / 20, abs=1e-5)
    assert info["game_time"] == pytest.approx(1, abs=1e-5) and info["fps"] == 60
    assert Video(video).times() == pytest.approx(tensors["time"], abs=1e-4)
    labels = filter.read_labels(str(video), path, None, filter.Config())
    assert (labels.fps, len(labels.time)) == (30, 31)  # 1 s, laid out for 30 actions a second
    assert labels.time[-1] == pytest.approx(1, abs=1e-5)
    assert labels.frame.tolist() == [int(row / 30 * 20 + 0.01) for row in range(31)]


def test_frames_of_any_moment_are_recorded_so(tmp_path):
    recording = sim.Recording(sim.Record(record=str(tmp_path / "a.mp4"), fps=60, command=("a",)))
    moments = [7.0, 7.1, 7.11, 7.5, 9.25]
    pad = np.zeros(16, np.int8), np.zeros(4, np.float32)
    with contextlib.ExitStack() as stack:
        for moment in moments:
            picture = np.zeros((64, 64, 3), np.uint8)
            recording.add(picture, {"hash": "0" * 32, "time": moment}, pad, stack)
    recording.write()
    tensors, info = artefact.read(tmp_path / "a.actions.safetensors", "nitrogen.actions/1")
    wanted = np.array(moments) - 7
    assert tensors["time"] == pytest.approx(wanted) and info["game_time"] == 2.25
    assert Video(tmp_path / "a.mp4").times() == pytest.approx(wanted, abs=1e-4)


@needs_xvfb
def test_seconds_of_play_begin_with_the_first_frame(victim, tmp_path):
    """However long it loads; and a game that ends before is said."""

    def record(name, script):
        said = command(
            *("record", "--player", "random", "--speed", "0", "--fps", "20", "--seconds", "0.5"),
            *("--record", str(tmp_path / f"{name}.mp4"), "--"),
            *("sh", "-c", script, "sh", victim, "renderer"),
        )
        rows = artefact.read(tmp_path / f"{name}.actions.safetensors")[0]["time"]
        return said, rows

    said, rows = record("loads", 'sleep 3; exec "$@"')
    assert said.returncode == 0 and len(rows) in (10, 11), said.stderr
    said, rows = record("ends", '"$@" & sleep 0.3; kill -9 $!; exit 4')
    last = said.stderr.splitlines()[-1]
    assert said.returncode == 1 and 3 < len(rows) < 9
    assert re.search(r"ended by itself after 0\.\d+ of 0\.5 s of play, status 4$", last), last


@needs_hook
@pytest.mark.parametrize("end", [GameError("it hangs"), KeyboardInterrupt()])
def test_what_was_recorded_until_then_is_kept(pad_game, tmp_path, monkeypatch, end):
    class Pad(sim.StickyRandom):
        left = 7

        def __call__(self, picture):
            self.left -= 1
            if not self.left:
                raise end
            return super().__call__(picture)

    monkeypatch.setattr(sim, "StickyRandom", Pad)
    with pytest.raises(
        GameError if isinstance(end, GameError) else SystemExit,
        match="it hangs|interrupted",
    ):
        sim.play(
            sim.Record(
                player="random", speed=0, record=str(tmp_path / "a.mp4"), command=tuple(pad_game)
            )
        )
    tensors, info = artefact.read(tmp_path / "a.actions.safetensors", "nitrogen.actions/1")
    assert (
        len(tensors["buttons"])
        == len(tensors["hash"])
        == video_facts(tmp_path / "a.mp4")["frames"]
        == 7
    )


@needs_hook
def test_a_recording_ends_by_sigterm(tmp_path):
    run = subprocess.Popen(
        [
            sys.executable,
            "sim.py",
            "record",
            "--player",
            "random",
            "--speed",
            "0",
            "--record",
            str(tmp_path / "a.mp4"),
            "--",
            *GAME,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(
        lambda: any(p.stat().st_size > 50_000 for p in tmp_path.glob(".a.*.part.mp4")), 180
    )
    run.terminate()
    said, fault = run.communicate(timeout=180)
    frames = video_facts(tmp_path / "a.mp4")["frames"]
    assert (
        run.returncode == 1
        and f"{frames} frames -> " in said
        and fault.splitlines()[-1].startswith("interrupted")
        and len(list(tmp_path.iterdir())) == 2
    ), fault


@needs_hook
def test_step_by_hand(pad_game, tmp_path):
    told = (
        "\n3\npad SOUTH LEFT_X=-0.5\n\nshow %s\npad\nnonsense\npad LEFT_X=left\nshow "
        "/no/such/a.png\n0.1 s\nrestart\nquit\n" % (tmp_path / "a.png")
    )
    done = subprocess.run(
        [sys.executable, "sim.py", "step", "--fps", "30", "--", *pad_game],
        cwd=ROOT,
        input=told,
        capture_output=True,
        text=True,
        timeout=180,
    )
    frames = [int(n) for n in re.findall(r"^frame (\d+)", done.stdout, re.M)]
    assert (
        frames[:4] == [0, 1, 4, 4]
        and frames[-2:] == [8, 0]
        and done.stdout.count("quit") == 3
        and done.returncode == 0
    ), done.stdout + done.stderr
    assert "/no/such/a.png: no picture can be written there" in done.stdout
    import cv2

    assert (cv2.imread(str(tmp_path / "a.png")) == 210).all()  # 10 + 200 * SOUTH


@needs_xvfb
def test_play_in_a_window(pad_game):
    pytest.importorskip("pygame", reason="no pygame (pip install pygame)")
    done = subprocess.run(
        [sys.executable, "sim.py", "play", "--seconds", "0.5", "--fps", "30", "--", *pad_game],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "SDL_VIDEODRIVER": "dummy"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.path.exists("/dev/dri"), reason="SDL may draw on a console here")
def test_no_person_plays_in_a_window_that_nobody_sees(pad_game):
    pytest.importorskip("pygame", reason="no pygame (pip install pygame)")
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    }
    done = subprocess.run(
        [sys.executable, "sim.py", "play", "--", *pad_game],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env=env,
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        "no window can be opened here: "
    ), done.stderr


@needs_hook
def test_bench(pad_game):
    out = command("bench", "--frames", "100", "--warm", "10", "--", *pad_game).stdout
    rates = [int(n) for n in re.findall(r"(\d+) steps/s", out)]
    own = float(re.search(r"([\d.]+) ms of our CPU", out)[1])
    # on a quiet core: > 300, and 0.15 ms a frame
    assert len(rates) == 2 and rates[1] > 0.3 * rates[0] and 0 < own < 2
    failed = command("bench", "--", *python("raise SystemExit('not today')"))
    assert (
        failed.returncode == 1
        and failed.stderr.strip().endswith("not today")
        and "Traceback" not in failed.stderr
    )


@pytest.mark.parametrize(
    "command, wine",
    [
        (["wine", "x.exe"], True),
        (["env", "A=1", "/usr/bin/wine64-stable", "x.exe"], True),
        (["sh", "-c", "cd /g && wine x.exe | cat"], True),
        (["supertux2", "levels/wine-cellar.stl"], False),
        (["/opt/protonvpn/x"], False),
        (["/home/wine/game"], False),
    ],
)
def test_wine_is_a_program_not_a_part_of_a_name(command, wine):
    assert sim.runs_wine(command) == wine
