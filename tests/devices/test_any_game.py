"""devices/: pads and screens of programs that know nothing of us (tests/victims)."""

import contextlib
import ctypes.util
import importlib.util
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, artefact

import gymnasium
import numpy as np
import pytest

import sim
from clock.base import GameError, read_text, say_once
from devices import sandbox
from devices.display import Keyboard, Window
from devices.sdl import Readback, VirtualJoystick
from devices.uinput import UInput
from programs import GAME, NEUTRAL, PUSH, check_clean, compiled, needs_xvfb, said_lines, wait_until


def square(picture):
    """Left and top of the victim's square, whether it is red, and the number of the frame that the
    background tells.
    """
    ys, xs = np.nonzero(picture[:, :, 0] > 200)
    return int(xs.min()), int(ys.min()), bool(picture[ys[0], xs[0], 1] < 50), int(picture[0, 0, 2])


@needs_xvfb
@pytest.mark.parametrize("how", ["renderer", "surface", "gl"])
@pytest.mark.parametrize("screen", ["readback", "window"])
@pytest.mark.parametrize("gamepad", ["joystick", "keys"])
def test_frame_i_of_any_game_shows_pad_i(victim, how, screen, gamepad):
    with contextlib.closing(
        sim.GameEnv([victim, how], fps=60, screen=screen, gamepad=gamepad)
    ) as env:
        frame, info = env.reset()
        assert frame.shape == (256, 256, 3) and env.render().shape == (120, 160, 3)
        x, y, red, shown = square(env.render())
        assert (x, y, red, shown) == (80, 60, False, 0)
        for i in range(1, 9):
            pad = PUSH if i % 3 else NEUTRAL
            _, _, terminated, truncated, info = env.step(pad)
            x, y = (x + 1, y - 1) if pad is PUSH else (x, y)
            assert (
                square(env.render()) == (x, y, pad is PUSH, i)
                and info["frame"] == i
                and not terminated
            )
        assert env.clock.frames == 9 and env.clock.time == pytest.approx(8 / 60, abs=0.012)


def sdl_3():
    """What links with it: the system's library, or the one in the wheel of tcod."""
    wheel = importlib.util.find_spec("tcod")
    found = list(Path(wheel.origin).parents[1].glob("tcod.libs/libSDL3*")) if wheel else []
    return (found[0], f"-Wl,-rpath,{found[0].parent}") if found else ("-l:libSDL3.so.0",)


@needs_xvfb
@pytest.mark.parametrize("how", ["renderer", "surface", "gl"])
def test_sdl_3(tmp_path, how):
    with contextlib.closing(
        sim.GameEnv([compiled(tmp_path, "game", "-DSDL3", *sdl_3()), how], fps=60)
    ) as env:
        env.reset()
        assert type(env.pad) is VirtualJoystick and type(env.view) is Readback
        for i in range(1, 7):
            env.step(PUSH)
            assert square(env.render()) == (80 + i, 60 - i, True, i)


# Blue counts the frames, green those with the right key held; it waits in one of two ways.
SDL_1_2 = """
import ctypes, sys
show, wait = sys.argv[1:]
sdl = ctypes.CDLL("libSDL-1.2.so.0")
sdl.SDL_SetVideoMode.restype = ctypes.c_void_p
sdl.SDL_GetKeyState.restype = ctypes.POINTER(ctypes.c_uint8)
sdl.SDL_Init(0x20)
screen = ctypes.c_void_p(sdl.SDL_SetVideoMode(160, 120, 32, 0))
event = ctypes.create_string_buffer(256)
frame = right = 0
due = sdl.SDL_GetTicks()
while True:
    while wait != "never" and sdl.SDL_PollEvent(event):
        pass
    right += sdl.SDL_GetKeyState(None)[275]
    sdl.SDL_FillRect(screen, None, right << 8 | frame)
    if show == "flip":
        sdl.SDL_Flip(screen)
    elif show == "update" or show == "once" and frame == 0:
        sdl.SDL_UpdateRect(screen, 0, 0, 0, 0)
    elif show == "parts":
        sdl.SDL_UpdateRect(screen, 0, 0, 80, 120)
        sdl.SDL_UpdateRect(screen, 80, 0, 80, 120)
    frame += 1
    due += 20
    while wait != "never" and sdl.SDL_GetTicks() < due:
        if wait == "delay":
            sdl.SDL_Delay(5)
"""


needs_sdl_1_2 = pytest.mark.skipif(
    not ctypes.util.find_library("SDL-1.2"), reason="no SDL 1.2 (apt install libsdl1.2debian)"
)


@needs_xvfb
@needs_sdl_1_2
@pytest.mark.parametrize("wait", ["delay", "spin"])
@pytest.mark.parametrize("show", ["flip", "update", "parts"])
def test_sdl_1_2(show, wait):
    """A step is one frame, whole although it is shown in parts, and its pad is the step's."""
    command = [sys.executable, "-c", SDL_1_2, show, wait]
    with contextlib.closing(sim.GameEnv(command, fps=50)) as env:
        env.reset()
        times, right = [env.clock.time], 0
        for i in range(1, 13):
            held = i % 3 > 0
            right += held
            env.step(PUSH if held else NEUTRAL)
            times.append(env.clock.time)
            corners = env.render()[:: 120 - 1, :: 160 - 1].reshape(4, 3)
            assert corners.tolist() == [[0, right, i]] * 4
        assert type(env.pad) is Keyboard and type(env.view) is Window
        assert env.clock.presented[0] == "SDL_UpdateRects"
        # the first delay comes after the first frame
        assert np.allclose(np.diff(times)[1:], 1 / 50, atol=0.002)


@needs_xvfb
@needs_sdl_1_2
@pytest.mark.parametrize("wait", ["delay", "spin"])
def test_a_frame_that_stays_is_shown_again(wait):
    command = [sys.executable, "-c", SDL_1_2, "once", wait]
    with contextlib.closing(sim.GameEnv(command, fps=50)) as env:
        env.reset()
        times = [env.step(NEUTRAL)[4]["time"] for _ in range(12)]
        assert np.allclose(np.diff(times), 1 / 50, atol=0.002)
        assert not env.render().any()


@needs_xvfb
@pytest.mark.parametrize("tick", ["frame", "time"])
def test_a_game_whose_main_thread_does_not_sleep_is_stepped_by_time(tmp_path, tick, capfd):
    say_once.cache_clear()
    bare = compiled(tmp_path, "bare", "-l:libX11.so.6", "-l:libGL.so.1", "-l:libEGL.so.1")
    with contextlib.closing(sim.GameEnv([bare, "thread"], fps=50, tick=tick)) as env:
        env.reset()
        assert square(env.render())[:3] == (80, 60, False)
        first, began = square(env.render())[3], env.clock.time
        # it draws at once, and is watched for a second; then, if asked for, for its sleeps
        assert began == pytest.approx(1 if tick == "time" else 1 + sim.LONGEST_SLEEP, abs=0.1)
        for i in range(1, 7):
            info = env.step(PUSH)[4]
            assert square(env.render()) == (80 + i, 60 - i, True, (first + i) % 256)
            assert info["frame"] == i and info["time"] == pytest.approx(began + i / 50)
    assert "a frame is 1 / 50 s of its time" in capfd.readouterr().err


@needs_xvfb
@needs_sdl_1_2
def test_parts_without_end_are_frames_at_last():
    command = [sys.executable, "-c", SDL_1_2, "parts", "never"]
    with contextlib.closing(sim.GameEnv(command, fps=50)) as env:
        env.reset()
        times = [env.step(NEUTRAL)[4]["time"] for _ in range(4)]
        assert np.allclose(np.diff(times), 1 / 50)


@needs_xvfb
@pytest.mark.parametrize("how", ["glx", "egl", "x11"])
@pytest.mark.parametrize("screen", ["auto", "window"])
def test_games_without_sdl(tmp_path, how, screen, capfd):
    say_once.cache_clear()
    bare = compiled(tmp_path, "bare", "-l:libX11.so.6", "-l:libGL.so.1", "-l:libEGL.so.1")
    with contextlib.closing(sim.GameEnv([bare, how], fps=50, screen=screen)) as env:
        env.reset()
        assert type(env.pad) is Keyboard and isinstance(env.view, Window) == (
            screen == "window" or how == "x11"
        )
        first, began = square(env.render())[3], env.clock.time
        assert square(env.render())[:3] == (80, 60, False) and (first == 0) == (how != "x11")
        assert began == pytest.approx(1 if how == "x11" else 0, abs=0.1)
        for i in range(1, 7):
            info = env.step(PUSH)[4]
            assert (
                square(env.render()) == (80 + i, 60 - i, True, (first + i) % 256)
                and info["frame"] == i
            )
        assert env.clock.time - began == pytest.approx(0.12)
    assert ("each sleep of its main thread counts as a frame" in capfd.readouterr().err) == (
        how == "x11"
    )


@needs_xvfb
def test_a_game_that_ignores_the_pad_gets_keys_and_one_that_forks_is_followed(victim):
    for what, kind in (("deaf", Keyboard), ("fork", VirtualJoystick)):
        with contextlib.closing(sim.GameEnv([victim, "renderer", what], fps=60)) as env:
            env.reset()
            env.step(PUSH)
            assert type(env.pad) is kind and square(env.render())[:3] == (81, 59, True)
    with pytest.raises(GameError, match="has not started SDL's joysticks.*gamepad='keys'"):
        sim.GameEnv([victim, "renderer", "deaf"], gamepad="joystick").reset()


@needs_xvfb
def test_games_that_end_hang_or_close_their_window(victim, leftovers):
    def endured(what):
        with contextlib.closing(sim.GameEnv([victim, "renderer", what, "3"], fps=60)) as env:
            env.reset()
            env.timeout = env.clock.timeout = 4  # from here on: it may start slowly
            return (
                [env.step(NEUTRAL)[2] for _ in range(3)],
                env.clock.returncode,
                square(env.render())[3],
            )

    assert endured("crash") == ([False, False, True], -signal.SIGSEGV, 2)
    assert endured("exit") == ([False, False, True], 3, 2)
    for what, said in (
        ("hang", "computed for 4 s without waiting for anything: it hangs"),
        ("close", "no frame in 4 s"),
    ):
        with pytest.raises(GameError, match=said):
            endured(what)
    assert not leftovers()


@needs_xvfb
def test_keys_own_and_wrong(victim):
    with contextlib.closing(
        sim.GameEnv(
            [victim, "renderer"], gamepad="keys", keys={"NORTH": "Right", "RIGHT_Y-": "space"}
        )
    ) as env:
        env.reset()
        env.step(
            {
                "buttons": np.arange(16) == artefact.BUTTONS.index("NORTH"),
                "sticks": np.float32([0, 0, 0, -1]),
            }
        )
        assert square(env.render())[:3] == (81, 60, True)
        env.step(NEUTRAL)
        assert square(env.render())[:3] == (81, 60, False)
    # a game with keys of its own, by its name
    doom = Path(victim).rename(Path(victim).with_name("chocolate-doom"))
    with contextlib.closing(sim.GameEnv(["env", "A=B", doom, "renderer"], gamepad="keys")) as env:
        env.reset()
        env.step({"buttons": np.zeros(16), "sticks": np.float32([0, 0, 1, 0])})
        assert square(env.render())[:2] == (81, 60)
    victim = str(doom)
    for keys, said in (
        ({"UP": "a"}, "'UP' is no button"),
        ({"NORTH": "Hyper"}, "'Hyper' for NORTH: there is no such key"),
    ):
        with pytest.raises(GameError, match=said):
            env = sim.GameEnv([victim, "renderer"], gamepad="keys", keys=keys)
            env.reset()
            env.step({"buttons": np.ones(16), "sticks": np.zeros(4)})


@pytest.fixture
def display():
    """An X server that stands for a person's."""
    stage = sandbox.Sandbox("400x300")
    yield stage.display
    stage.remove()


@needs_xvfb
@pytest.mark.parametrize("screen", ["readback", "window"])
def test_on_a_display_that_is_given_keys_go_to_the_focused_game_only(
    victim, display, screen, tmp_path, monkeypatch, capfd
):
    if screen == "window":
        pytest.importorskip("mss", reason="no mss (pip install mss)")
    monkeypatch.setattr(sandbox, "MEMORY", tmp_path)
    say_once.cache_clear()
    with contextlib.closing(
        sim.GameEnv(
            [victim, "renderer"],
            gamepad="keys",
            screen=screen,
            display=display.name,
            home=str(tmp_path),
        )
    ) as env:
        env.reset()
        display.focus(1)  # PointerRoot: nobody's
        env.step(PUSH)
        assert (
            square(env.render())[:3] == (80, 60, False)
            and "has not the focus, so keys are not sent to it" in capfd.readouterr().err
        )
        display.focus(display.windows()[0][0])
        for _ in range(4):  # this X server is not ours to wait for
            env.step(PUSH)
        x, y, red, _ = square(env.render())
        assert x > 81 and y == 140 - x and red and env.sandbox.server == 0
        # ConfigureWindow: x, y
        display._send(12, 0, struct.pack("<IHxxii", display.windows()[0][0], 3, 7, 150))
        for _ in range(4):  # wherever it goes, it is what is seen
            env.step(NEUTRAL)
        x, y, red, _ = square(env.render())
        assert (
            display.windows()[0][1:] == (7, 150, 160, 120)
            and env.render().shape == (120, 160, 3)
            and y == 140 - x
            and not red
        )
        env.pad.close()
    assert not set(display._ask(44)[8:]) - {0}  # QueryKeymap: all keys are up
    with pytest.raises(GameError, match="^display :987: No such file"):
        sim.GameEnv([victim, "renderer"], display=":987").reset()


@needs_xvfb
def test_keys_do_not_stay_down_on_a_display_that_is_given(victim, display, leftovers):
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import sim; from devices import "
        f"sandbox; from pathlib import Path\n"
        f"sandbox.DISK = sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\n"
        f"env = sim.GameEnv([{victim!r}, 'renderer'], gamepad='keys', display={display.name!r}); "
        "env.reset()\n"
        "env.sandbox.display.focus(env.sandbox.display.windows()[0][0])\n"
        "env.step({'buttons': [1] * 15 + [0], 'sticks': [0] * 4}); print(len(env.pad.down), "
        "flush=True); os.kill(os.getpid(), 9)"
    )
    assert (
        int(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=180
            ).stdout
        )
        == 9
    )
    # QueryKeymap
    assert wait_until(lambda: not set(display._ask(44)[8:]) - {0}, 20) and wait_until(
        lambda: not leftovers()
    )


@needs_xvfb
def test_steps_of_fixed_time_and_a_game_that_only_sleeps(victim):
    with contextlib.closing(
        sim.GameEnv([victim, "renderer"], fps=10, tick="time", tsc=True)
    ) as env:
        env.reset()
        assert env.clock.tsc
        times = [env.step(NEUTRAL)[4]["time"] for _ in range(5)]
        assert np.diff(times) == pytest.approx(0.1)


@needs_xvfb
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_gymnasium_makes_and_checks_any_game(victim):
    check_clean([victim, "renderer"], fps=60)
    envs = gymnasium.vector.AsyncVectorEnv(
        [lambda: sim.GameEnv([victim, "surface"]), lambda: sim.GameEnv(GAME)], context="fork"
    )
    try:
        envs.reset(seed=[1, 2])
        for _ in range(3):
            frames, _, _, _, info = envs.step(
                {"buttons": np.zeros((2, 16), np.int8), "sticks": np.zeros((2, 4), np.float32)}
            )
    finally:
        envs.close()
    assert frames.shape == (2, 256, 256, 3) and list(info["frame"]) == [3, 3]


@needs_xvfb
@pytest.mark.parametrize(
    "ending",
    [
        "raise ValueError",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "without the hook",
    ],
)
def test_of_any_game_nothing_is_left(victim, leftovers, ending):
    # the game stands still when we end, and cannot see that its X server goes
    without = ending == "without the hook"
    ending = "os.kill(os.getpid(), signal.SIGKILL)" if without else ending
    code = (
        f"import os, signal, sys, time; sys.path.insert(0, {str(ROOT)!r}); import sim\nfrom "
        "devices import sandbox\nfrom pathlib import Path\n"
        f"sandbox.DISK = sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\n"
        f"if {without}: sim.hook_fault = lambda: 'no'\n"
        f"env = sim.GameEnv([{victim!r}, '{'surface' if without else 'gl'}', "
        "'fork'])\nenv.reset()\n"
        "print(env.sandbox.display.name[1:], env.sandbox.keeper.pid, env.sandbox.server, "
        f"*env.clock.pids(), flush=True)\n{ending}\ntime.sleep(60)"
    )
    number, *pids = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180
    ).stdout.split()
    assert len(pids) >= 4

    def left():
        return [
            *leftovers(),
            *(p for p in pids if Path(f"/proc/{p}").exists()),
            *(
                p
                for p in (f"/tmp/.X11-unix/X{number}", f"/tmp/.X{number}-lock")
                if os.path.exists(p)
            ),
        ]

    assert wait_until(lambda: not left()), left()


@needs_xvfb
@pytest.mark.parametrize("resets", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_resets_leave_nothing(victim, leftovers, resets):
    def held():
        return np.array(
            [
                len(os.listdir("/proc/self/fd")),
                len(said_lines(lambda: read_text("/proc/self/maps"))),
                # open files, mappings, MiB in memory
                int(read_text("/proc/self/statm").split()[1]) / 256,
            ]
        )

    with contextlib.closing(sim.GameEnv([victim, "surface"])) as env:
        for i in range(resets):
            env.reset(seed=i)
            env.step(PUSH)
            if i == 1:
                before = held()
        assert square(env.render())[:2] == (81, 59) and (held() - before <= (0, 20, 20)).all(), (
            held() - before
        )
    assert not leftovers()


@needs_xvfb
def test_without_the_hook_any_game_is_stopped_by_signals(victim, leftovers, monkeypatch, capfd):
    monkeypatch.setattr(sim, "hook_fault", lambda: "ptrace is not what it was")
    say_once.cache_clear()
    with contextlib.closing(sim.GameEnv([victim, "surface", "fork"], fps=20)) as env:
        env.reset()
        assert "Falling back to SIGSTOP: the game runs in real time" in capfd.readouterr().err
        for _ in range(300):  # it needs real time, and how much depends on the machine
            env.step(PUSH)
            shown = env.render()
            if (shown[:, :, 0] > 200).any() and square(shown)[2] and square(shown)[0] > 85:
                break
        assert square(shown)[0] > 85 and square(shown)[2]
        before = env.sandbox.display.pixels.tobytes()
        time.sleep(0.5)
        assert env.sandbox.display.pixels.tobytes() == before and len(env.clock.pids()) == 2
        assert env.clock.time > 0.1
    assert not leftovers()


def test_uinput_events_and_the_fix(monkeypatch):
    class Device(UInput):
        def __init__(self):
            pass

    pressed = dict.fromkeys(artefact.BUTTONS, False) | {
        "SOUTH": True,
        "DPAD_LEFT": True,
        "RIGHT_TRIGGER": True,
    }
    blob = Device().events(pressed, {"LEFT_X": 1.0, "LEFT_Y": -1.0, "RIGHT_X": 0.0, "RIGHT_Y": 0.5})
    events = {
        (kind, code): value
        for kind, code, value in (
            np.frombuffer(blob[i + 16 : i + 20], np.uint16).tolist()
            + [int.from_bytes(blob[i + 20 : i + 24], "little", signed=True)]
            for i in range(0, len(blob), 24)
        )
    }
    assert {k: v for k, v in events.items() if v} == {
        (1, 0x130): 1,
        (3, 16): -1,
        (3, 5): 255,
        (3, 0): 32767,
        (3, 1): -32767,
        (3, 4): 16384,
    }
    assert len(events) == 10 + 8 + 1 and blob[-24:] == bytes(24)
    if not os.access("/dev/uinput", os.W_OK):
        with pytest.raises(GameError, match="/dev/uinput: .*sudo modprobe uinput; sudo chmod"):
            UInput(None)
