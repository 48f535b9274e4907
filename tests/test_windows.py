"""sim.py on real PE processes under Wine: real Win32 calls, real machine code, a real Windows
Python; not Microsoft's Windows.

    python tests/windows.py                     fetches what they need
    python -m pytest tests/test_windows.py -m "slow or not slow"

Pictures are left in data/windows/out.
"""

import contextlib
import json
import re
import shutil
import subprocess
import time
import types

from common import ROOT, artefact

import numpy as np
import pytest
import windows

import sim
from clock import win32
from clock.base import GameError
from clock.windows import WindowsClock
from clock.windows_guard import BANKS, BANKS_AT
from clock.windows_stub import PAGE, WINDOWS_ENTRY, WINDOWS_STUB
from devices.display import Window
from devices.sandbox import WINE
from devices.windows import Desktop, VGamepad

ASM = ROOT / "tests" / "asm"
needs_wine = pytest.mark.skipif(bool(windows.missing()), reason=windows.missing())
NO_32 = windows.missing() or (
    "" if windows.runs_32_bits() else "no 32-bit Wine (see tests/windows.py)"
)
BITS = [
    pytest.param(64, marks=needs_wine),
    pytest.param(32, marks=pytest.mark.skipif(bool(NO_32), reason=NO_32)),
]


# ---- without Wine


@pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("objcopy")),
    reason="no assembler (apt install binutils)",
)
@pytest.mark.parametrize("bits", [64, 32])
def test_machine_code_is_its_assembly(tmp_path, bits):
    subprocess.run(
        ["as", f"--{bits}", "-o", "stub.o", ASM / f"windows{bits}.S"], cwd=tmp_path, check=True
    )
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", "stub.o", "stub.bin"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "stub.bin").read_bytes() == WINDOWS_STUB[bits]
    symbols = subprocess.run(
        ["nm", "stub.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    places = {name: int(value, 16) for value, _, name in map(str.split, symbols.splitlines())}
    assert {name: places[name] for name in WINDOWS_ENTRY[bits]} == WINDOWS_ENTRY[bits]
    assert (places["banks"] - places["data"]) % 2**bits == BANKS_AT and (
        places["base"] - places["data"]
    ) % 2**bits == PAGE
    assert (places["SLICE"] + 5000) % 2**bits == 0 and BANKS_AT + 32 * BANKS == PAGE


class Pad:
    """What vgamepad.VX360Gamepad is told."""

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *args: self.said.append((name, *args))


def test_the_pad_is_xinputs_with_y_up(monkeypatch):
    names = (
        "A",
        "B",
        "X",
        "Y",
        *(n for n in artefact.BUTTONS if n not in VGamepad.NAMES and "TRIGGER" not in n),
    )
    codes = {f"XUSB_GAMEPAD_{name}": name for name in names}
    monkeypatch.setitem(
        __import__("sys").modules,
        "vgamepad",
        types.SimpleNamespace(VX360Gamepad=Pad, XUSB_BUTTON=codes),
    )
    pad = VGamepad(None)
    pad.set(np.isin(artefact.BUTTONS, ["SOUTH", "DPAD_UP", "RIGHT_TRIGGER"]), [0.5, -1, 0, 0.25])
    assert pad.pad.said == [
        ("reset",),
        ("left_trigger", 0),
        ("right_trigger", 255),
        ("press_button", "DPAD_UP"),
        ("press_button", "A"),
        ("left_joystick_float", 0.5, 1.0),
        ("right_joystick_float", 0.0, -0.25),
        ("update",),
    ]
    pad.pad.said.clear()
    for name in artefact.BUTTONS:  # every button has its code
        pad.set(np.isin(artefact.BUTTONS, [name]), [0, 0, 0, 0])
    assert {said[1] for said in pad.pad.said if said[0] == "press_button"} == set(names)


def test_exclusive_full_screen_is_said_and_the_last_picture_kept(monkeypatch, capfd):
    state, shots = [0], [np.full((4, 6, 4), 9, np.uint8)] * 2
    monkeypatch.setattr(
        win32, "windows", lambda name, where: setattr(where._obj, "value", state[0])
    )
    monkeypatch.setattr(
        Desktop,
        "_shot",
        lambda self, *area: (
            shots.pop() if shots else (_ for _ in ()).throw(OSError("BitBlt: refused"))
        ),
    )
    monkeypatch.setattr(Desktop, "windows", lambda self: [(1, 0, 0, 6, 4)])
    clock = types.SimpleNamespace(frames=1, time=0.0)
    view = Window(types.SimpleNamespace(clock=clock, display=Desktop(None)))
    assert (view.picture() == 9).all()
    clock.frames = 2
    with pytest.raises(GameError, match="BitBlt: refused"):
        view.picture()
    state[0] = 3  # QUNS_RUNNING_D3D_FULL_SCREEN
    assert (view.picture() == 9).all() and "borderless" in capfd.readouterr().err


@pytest.mark.skipif(not shutil.which("Xvfb"), reason="no Xvfb")
def test_what_windows_has_is_refused_elsewhere():
    with pytest.raises(GameError, match="Windows x64"):
        WindowsClock(["game.exe"])
    with pytest.raises(GameError, match="Windows only"):
        sim.GameEnv([], attach="game.exe")


# ---- under Wine


@pytest.fixture(scope="module")
def wine():
    """Runs something in the Windows Python, on an X server of its own; -> what it says."""
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        environment = {
            **windows.environment(),
            "DISPLAY": f":{server.stdout.readline().decode().strip()}",
            "SDL_AUDIODRIVER": "dummy",
        }
        python = ["wine", windows.PYTHON / "python.exe", "-u"]

        def call(*argv, timeout=500):
            done = subprocess.run(
                [*python, *argv],
                cwd=ROOT,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                input="",
                env=environment,
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            return done.stdout

        quiet = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        # Wine's own processes start once
        with subprocess.Popen([*python, "-c", "input()"], env=environment, **quiet) as keeper:
            yield call
            keeper.communicate(b"\n")
        windows.stop()
        server.terminate()


def scenario(wine, name, *args):
    return json.loads(wine("tests/windows_side.py", name, *map(str, args)).splitlines()[-1])


def victim(bits):
    return windows.compiled("clocks.c", bits, "-lwinmm")


def near(clocks, ms):
    """Each of the six clocks has moved on by that much: to the microsecond, or to the tick where it
    counts milliseconds.
    """
    return all(abs(moved - ms) < (1 if i in (1, 2, 3) else 1e-3) for i, moved in enumerate(clocks))


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_launched_frozen_stepped_and_at_any_speed(wine, bits):
    seen = scenario(wine, "launch", victim(bits))
    # a second of frames, all at the same moment
    assert seen["bits"] == bits and seen["born"][0] > 10 and seen["born"][1] == 0
    assert near(seen["steps"], 1000 / 6) and seen["frozen"] == [0.0] * 6
    assert (
        near(seen["speeds"]["0.25"], 250)
        and near(seen["speeds"]["1.0"], 500)
        and near(seen["speeds"]["4.0"], 2000)
        and near(seen["speeds"]["8.0"], 2000)
    )
    assert near(seen["sixty"], 1000) and seen["now"] == round(
        1e7 * (1 / 6 + 0.25 + 0.5 + 2 + 2 + 1)
    )
    assert seen["apart"] < 2 and seen["backward"] == []


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_sleeps_are_in_game_time_unless_switched_off(wine, bits):
    seen = scenario(wine, "sleeper", victim(bits))
    # ms, when the last frame began
    passed = {how: np.array(found["passed"]) / 1e4 for how, found in seen.items()}
    assert (
        all(found["dt"] == 0 for found in seen.values())
        and near(passed["sleep False"], 200)
        and near(passed["wait True"], 200)
    )
    assert (
        seen["sleep True"]["frozen"] == 1
        and 2 <= seen["sleep True"]["frames"] <= 21
        and 50 < passed["sleep True"].min() <= 200
    )
    # these wait in real time
    assert seen["sleep False"]["frozen"] > 5 and seen["wait True"]["frozen"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_no_backward_step_in_a_million_reads(wine, bits):
    seen = scenario(wine, "million", victim(bits))
    assert seen["backward"] == 0 and seen["passed"] > 50 and seen["changes"] > 2


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_attached_frozen_stepped_and_undone(wine, bits):
    seen = scenario(wine, "attach", victim(bits))
    assert (
        seen["frozen"] == [0.0] * 6
        and near(seen["steps"], 1000 / 6)
        and near(seen["ahead"], 5000)
        and near(seen["again"], 100)
    )
    assert len(seen["patched"]) >= 8 and all(seen["patched"]) and all(seen["restored"])
    assert seen["alive"] and seen["frames"] > 10 and seen["backward"] == []


@needs_wine
@pytest.mark.slow
def test_an_attached_game_runs_on_when_we_are_killed(wine):
    seen = scenario(wine, "guard", victim(64))
    assert (
        seen["said"] == "frozen"
        and seen["frozen"] == [0.0] * 6
        and seen["frames"] >= 20
        and seen["alive"]
        and seen["backward"] == []
    )


@needs_wine
@pytest.mark.slow
def test_faults_name_the_fix(wine):
    seen = scenario(wine, "faults", victim(64))
    for name, said in {
        "no program": "no such program",
        "no process": "no process 999999",
        "name": "there is clocks64.exe",
        "vgamepad": "VIGEM_ERROR_BUS_NOT_FOUND: the ViGEmBus driver is not installed",
        "replaced": "timeGetTime has been replaced already",
        "room": "timeGetTime is only 9 bytes long",
        "inside": "a thread stays within winmm.dll timeGetTime",
        "denied": "administrator's prompt too; a game with anti-cheat",
        "elevation": "administrator's prompt",
        "half": "not this one",
    }.items():
        assert said in seen[name] and "\n" not in seen[name], (name, seen[name])
    assert seen["runs on"] and seen["restored"]  # whatever was refused


@needs_wine
@pytest.mark.slow
def test_as_the_official_dll(wine):
    """Of the functions that it replaces: QueryPerformanceCounter, GetTickCount, GetTickCount64,
    timeGetTime.
    """
    folder = windows.PYTHON / "Lib" / "site-packages" / "xspeedhack" / "bin"
    seen = scenario(
        wine, "official", victim(64), folder / "injector64.exe", folder / "speedhack64.dll"
    )
    for speed in ("0", "4", "1"):
        theirs, ours = seen["official"][speed]["clocks"][:4], seen["ours"][speed]["clocks"][:4]
        assert np.allclose(theirs, 1000 * float(speed), rtol=0.2, atol=1) and np.allclose(
            ours, theirs, rtol=0.2, atol=1
        ), (speed, theirs, ours)
    # dates, which it does not replace
    assert seen["official"]["0"]["clocks"][4] > 500 and seen["ours"]["0"]["clocks"] == [0.0] * 6


@needs_wine
@pytest.mark.slow
def test_a_real_game_is_played(wine):
    """pygame's aliens: frozen, stepped, played by keys, and found wherever its window is."""
    (windows.HOME / "out").mkdir(exist_ok=True)
    seen = scenario(wine, "aliens", windows.HOME / "out")
    assert (
        seen["shape"] == [480, 640, 3]
        and seen["observation"] == [256, 256, 3]
        and not seen["terminated"]
    )
    assert (
        seen["frozen"] == 0
        and seen["stepped"] > 1000
        and seen["played"] > 1000
        and seen["idle"] < seen["played"]
    )
    assert seen["step"] < 1e-6 and abs(seen["seconds"] - 1) < 1e-6
    (x, y, *size), (x2, y2, *size2) = seen["places"]
    # the picture is that of the game, not of the place
    assert (x, y) != (x2, y2) and size == size2 and 0 < seen["moved"] < 100_000


@needs_wine
@pytest.mark.slow
def test_attached_by_title(wine):
    seen = scenario(wine, "by_title")
    assert (
        seen["place"][2:] == [320, 240]
        and seen["shape"] == [240, 320, 3]
        and seen["red"] == 1
        and seen["alive"]
    )


@needs_wine
@pytest.mark.slow
def test_doctor_play_record_and_bench(wine):
    rows = {
        line[:18].strip(): line[18:].split()[0] for line in wine("sim.py", "doctor").splitlines()
    }
    assert (
        rows["Windows x64"] == rows["clock hook"] == rows["attach"] == rows["mss"] == "ok"
        and rows["vgamepad"] == "missing"
    )
    out = "data/windows/out/record.mp4"
    game = (
        "--fps",
        "20",
        "--seconds",
        "0.5",
        "--gamepad",
        "keys",
        "--",
        str(windows.PYTHON / "python.exe"),
        "-m",
        "pygame.examples.aliens",
    )
    said = wine("sim.py", "play", *game)
    # the person's window tells its keys; and it ended by itself
    assert re.search(r"^ +space +SOUTH", said, re.M)
    said = wine("sim.py", "record", "--player", "random", "--fresh", "--record", out, *game)
    tensors, info = artefact.read(out.replace(".mp4", ".actions.safetensors"), "nitrogen.actions/1")
    assert (
        len(tensors["buttons"]) == int(re.match(r"(\d+) frames", said)[1])
        and info["gamepad"] == "keys"
    )
    bench = wine("sim.py", "bench", "--frames", "60")
    assert int(re.search(r"clock console +(\d+) steps/s", bench)[1]) > 1


# ---- a Windows game on Linux: the Linux hook around Wine

NEUTRAL = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}
RIGHT = {"buttons": np.zeros(16, np.int8), "sticks": np.float32([1, 0, 0, 0])}
needs_hook = pytest.mark.skipif(bool(sim.hook_fault()), reason=str(sim.hook_fault()))


@pytest.fixture
def prefix(monkeypatch):
    windows.stop()
    for name in ("WINEPREFIX", "WINEDLLPATH"):
        monkeypatch.setenv(name, windows.environment()[name])
    return windows.PREFIX


@needs_wine
@needs_hook
@pytest.mark.slow
def test_on_linux_all_clocks_and_waits_are_one_time(prefix, tmp_path):
    out = tmp_path / "out"

    def rows():
        return [
            list(map(int, line.split()[2:]))
            for line in out.read_text().splitlines(keepends=True)
            if line[0] == "T" and line[-1] == "\n"
        ]

    for how in ("sleep", "wait"):  # wait: by Wine's server
        with open(out, "wb") as file:
            clock = sim.Clock(
                ["wine", victim(64), how, "50"],
                env={**windows.environment(), **WINE},
                stdout=file,
                timeout=500,
            )
        with contextlib.closing(clock):
            while len(rows()) < 3:
                clock.step(0.1)
            before, began = rows(), clock.time
            clock.step(5.0)
            after = rows()
            moved = (np.array(after[-1]) - before[-1]) / 1e4
            assert abs(len(after) - len(before) - 100) <= 1, how  # a frame each 50 ms
            assert np.abs(moved - moved[0]).max() < 2 and abs(moved[0] - 5000) <= 51
            time.sleep(0.5)
            assert rows() == after and abs(clock.time - began - 5) < 1e-9


@needs_wine
@needs_hook
@pytest.mark.slow
def test_on_linux_a_windows_game_is_played_frame_by_frame(prefix):
    """pygame's aliens.  Its Windows Python wants pipes for input and output, hence the shell."""
    command = [
        "sh",
        "-c",
        f"echo | wine {windows.PYTHON}/python.exe -m pygame.examples.aliens 2>&1 | cat",
    ]
    with contextlib.closing(sim.GameEnv(command, fps=20, gamepad="keys", timeout=500)) as env:

        def played():
            seen, pictures = [env.reset(seed=0)[1]], [env.render()]
            for pad in [NEUTRAL] * 15 + [RIGHT] * 15:
                seen.append(env.step(pad)[4])
                pictures.append(env.render())
            return seen, pictures

        first = played()[0]
        seen, pictures = played()
        assert seen == first  # two runs: the same pictures, at the same times
        assert (
            pictures[0].shape == (480, 640, 3)
            and env.clock.presented[0] == "sleep"
            and len({info["hash"] for info in seen}) > 20
        )
        assert [info["frame"] for info in seen] == list(range(31))
        # it runs at 40 fps
        assert np.abs(np.diff([info["time"] for info in seen]) - 0.025).max() < 0.002
        ground = [picture[400:] for picture in pictures]
        assert (ground[15] != ground[30]).any(-1).sum() > 1000  # the hero drives
        time.sleep(1)
        env.clock.pause()
        env.view.seen = -1
        assert np.array_equal(env.render(), pictures[-1])  # frozen


@needs_wine
@needs_hook
def test_on_linux_faults_of_wine(tmp_path, monkeypatch):
    monkeypatch.setenv("WINEPREFIX", str(tmp_path))
    with pytest.raises(GameError, match="no prefix of Wine: make one"):
        sim.GameEnv(["wine", "game.exe"], gamepad="keys").reset()
    (tmp_path / "system.reg").touch()
    folder = tmp_path / f"server-{tmp_path.stat().st_dev:x}-{tmp_path.stat().st_ino:x}"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=folder) as other:
        with pytest.raises(GameError, match="wineserver -k"):
            sim.GameEnv(["wine", "game.exe"], gamepad="keys").reset()
        other.kill()
