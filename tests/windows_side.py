"""The half of tests/test_windows.py that runs in the Windows Python under Wine.

    wine python.exe tests/windows_side.py SCENARIO ARG...

It prints what it measured as one line of JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import ROOT

import numpy as np  # noqa: E402

import sim  # noqa: E402
from clock import win32
from clock.base import GameError
from clock.windows_functions import REPLACED, SYSTEM_DLLS
from clock.windows_guard import PATCHES_AT
from clock.windows_process import WindowsProcess
from clock.windows_stub import ENDLESS
from devices.windows import VGamepad

MS = 10_000  # of the victim's units


class Output:
    """What a victim prints."""

    def __init__(self):
        number, self.path = tempfile.mkstemp()
        self.file = os.fdopen(number, "wb")  # its position is the victim's too

    def rows(self) -> np.ndarray:
        """int64 [frames, 6]: the clocks, 100 ns."""
        return np.array([words[1:] for words in self.words("T ")], np.int64).reshape(-1, 6)

    def words(self, mark) -> list[list[str]]:
        lines = Path(self.path).read_text().splitlines(keepends=True)
        return [line.split()[1:] for line in lines if line.startswith(mark) and line.endswith("\n")]

    def wait(self, count) -> None:
        """Until it has printed that many rows."""
        end = time.perf_counter() + 30
        while len(self.rows()) < count and time.perf_counter() < end:
            time.sleep(0.01)


@contextlib.contextmanager
def started(*command, **options):
    """A clock around a victim that it launched, and the victim's output."""
    out = Output()
    with contextlib.closing(sim.Clock(command, stdout=out.file, **options)) as clock:
        yield clock, out


@contextlib.contextmanager
def running(*command):
    """A victim that runs by itself."""
    out = Output()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out.file) as popen:
        try:
            out.wait(5)
            yield popen, out
        finally:
            popen.kill()


def passed(out, call) -> list[float]:
    """ms that each clock has moved on by call(), read while time stands before and after."""
    before = resting(out)
    call()
    return ((resting(out) - before) / MS).tolist()


def resting(out) -> np.ndarray:
    """What the clocks show to a victim that goes on without time: three equal rows, all of them
    new.
    """
    count, end = len(out.rows()), time.perf_counter() + 30
    while time.perf_counter() < end:
        time.sleep(0.02)
        rows = out.rows()
        if len(rows) > count + 3 and (rows[-3:] == rows[-1]).all():
            return rows[-1]
    raise SystemExit("time does not stand")


def worst(*rests) -> float:
    """How far the clocks disagree, ms: each from its first rest on."""
    since = (np.array(rests) - rests[0]) / MS
    return float(np.ptp(since, axis=1).max())


def backward(out) -> list:
    """Where a clock goes back from one frame to the next: [frame, clock, by how many ms]."""
    moved = np.diff(out.rows(), axis=0) / MS
    return [
        [int(frame) + 1, int(clock), float(moved[frame, clock])]
        for frame, clock in np.argwhere(moved < 0)
    ]


def launch(victim):
    """Born paused, ten steps, frozen, speeds, sixty steps; of a victim that goes on when time
    stands.
    """
    with started(victim, "wait", "2") as (clock, out):
        rests = [resting(out)]
        time.sleep(1)
        born = out.rows()
        steps = passed(out, lambda: [clock.step(1 / 60) for _ in range(10)])
        frozen = passed(out, lambda: time.sleep(1))
        speeds = {}
        for speed, seconds in ((0.25, 1.0), (1.0, 0.5), (4.0, 0.5), (8.0, 0.25)):
            speeds[speed] = passed(out, partial(clock.run, seconds, speed))
            rests.append(resting(out))
        clock.pace = 8.0
        sixty = passed(out, lambda: [clock.step(1 / 60) for _ in range(60)])
        rests.append(resting(out))
        return {
            "bits": clock.process.bits,
            "born": [len(born), int(np.ptp(born, axis=0).max())],
            "steps": steps,
            "frozen": frozen,
            "speeds": speeds,
            "sixty": sixty,
            "now": clock.now,
            "apart": worst(*rests),
            "backward": backward(out),
        }


def sleeper(victim):
    """Sleep in game time: 20 frames of 10 ms in 0.2 s; without the switch, or in a wait, a frozen
    game goes on with steps of 0.
    """
    found = {}
    for how, sleep in (("sleep", True), ("sleep", False), ("wait", True)):
        with started(victim, how, "10", sleep=sleep, pace=0.1) as (clock, out):
            out.wait(1)
            time.sleep(0.5)
            frozen = out.rows()
            clock.step(0.2)
            time.sleep(0.3)
            found[f"{how} {sleep}"] = {
                "frozen": len(frozen),
                "dt": int(np.ptp(frozen, axis=0).max()),
                "frames": len(out.rows()) - len(frozen),
                "passed": (out.rows()[-1] - frozen[0]).tolist(),
            }
    return found


def million(victim):
    """A million reads while time is stepped, run and stopped all the time."""
    with started(victim, "million") as (clock, out):
        speeds = (1.0, 0.25, 8.0)
        end, i = time.perf_counter() + 60, 0
        while not out.words("M") and time.perf_counter() < end:
            clock.run(0.02, speeds[i % 3])
            clock.step(1 / 60)
            i += 1
        back, moved = map(int, out.words("M")[0])
        return {"backward": back, "passed": moved / MS, "changes": i}


def attach(victim):
    """By pid, frozen and stepped, undone; with another attachment after that; the bytes are as
    before, the victim lives.
    """
    with running(victim, "wait", "5") as (popen, out):
        with contextlib.closing(sim.Clock.attach(popen.pid)) as clock:
            frozen = passed(out, lambda: time.sleep(0.5))
            steps = passed(out, lambda: [clock.step(1 / 60) for _ in range(10)])
            table = clock.process.read(clock.stub.page + PATCHES_AT, 8 + 24 * 16)
            count = table[0]
            patches = [
                (
                    int.from_bytes(table[8 + 24 * i : 16 + 24 * i], "little"),
                    table[16 + 24 * i : 16 + 24 * i + table[4]],
                )
                for i in range(count)
            ]
            patched = [clock.process.read(at, len(code)) != code for at, code in patches]
        process = WindowsProcess(popen.pid)
        restored = [process.read(at, len(code)) == code for at, code in patches]
        before = len(out.rows())
        time.sleep(0.5)
        running_frames, name = len(out.rows()) - before, os.path.basename(victim)
        # ahead of real time, so that the stub stays
        with contextlib.closing(sim.Clock.attach(name)) as clock:
            clock.pace = 100
            ahead = passed(out, lambda: clock.step(5))
        out.wait(len(out.rows()) + 5)
        with contextlib.closing(sim.Clock.attach(name.removesuffix(".exe").upper())) as clock:
            again = passed(out, lambda: clock.step(0.1))
        out.wait(len(out.rows()) + 5)
        return {
            "frozen": frozen,
            "steps": steps,
            "patched": patched,
            "restored": restored,
            "frames": running_frames,
            "ahead": ahead,
            "again": again,
            "alive": popen.poll() is None,
            "backward": backward(out),
        }


def guard(victim):
    """The controller is killed while its game is frozen: the game runs on."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); import sim; "
        "clock = sim.Clock.attach(int(sys.argv[1])); print('frozen', flush=True); time.sleep(60)"
    )
    with running(victim, "wait", "5") as (popen, out):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(popen.pid)], stdout=subprocess.PIPE, text=True
        ) as controller:
            said = controller.stdout.readline().strip()
            frozen = passed(out, lambda: time.sleep(0.5))
            controller.kill()
        count = len(out.rows())
        out.wait(count + 20)
        return {
            "said": said,
            "frozen": frozen,
            "frames": len(out.rows()) - count,
            "alive": popen.poll() is None,
            "backward": backward(out),
        }


def faults(victim):
    """One line each: what is wrong, and the fix."""
    found = {}

    def say(name, call):
        try:
            call()
            found[name] = ""
        except GameError as e:
            found[name] = str(e)

    say("no program", lambda: sim.Clock(["nowhere.exe"]))
    say("no process", lambda: sim.Clock.attach(999999))
    say("vgamepad", lambda: VGamepad(None))
    with running(victim, "wait", "5") as (popen, out):
        name = os.path.basename(victim)
        say("name", lambda: sim.Clock.attach(name.replace("clocks", "clokcs")))
        process = WindowsProcess(popen.pid)
        modules = process.modules()
        winmm = process.exports(modules["winmm.dll"][0])["timeGetTime"]
        kept = process.read(winmm, 14)
        process.suspend()
        # as an overlay would
        process.write_code(
            winmm, b"\xff\x25\0\0\0\0" + process.allocate(4096).to_bytes(8, "little")
        )
        say("replaced", lambda: sim.Clock.attach(popen.pid))
        process.write_code(winmm, kept)
        process.resume()
        starts, WindowsProcess.starts = (
            WindowsProcess.starts,
            lambda self, base: np.array([winmm + 9]),
        )
        say("room", lambda: sim.Clock.attach(popen.pid))
        WindowsProcess.starts = starts
        place, WindowsProcess.place = (
            WindowsProcess.place,
            lambda self, thread: (winmm + 3, place(self, thread)[1]),
        )
        say("inside", lambda: sim.Clock.attach(popen.pid))
        WindowsProcess.place = place
        functions = [
            at
            for dll in SYSTEM_DLLS
            if dll in modules
            for name, at in process.exports(modules[dll][0]).items()
            if name in REPLACED and isinstance(at, int)
        ]
        before = [process.read(at, 16) for at in functions]
        write_code, jumps = WindowsProcess.write_code, []

        def write_three(self, address, data):
            if data[:2] == b"\xff\x25":
                jumps.append(address)
                if len(jumps) == 4:
                    raise OSError(22, "not this one", None, 487)
            write_code(self, address, data)

        WindowsProcess.write_code = write_three
        say("half", lambda: sim.Clock.attach(popen.pid))
        WindowsProcess.write_code = write_code
        found["restored"] = len(jumps) == 4 and before == [process.read(at, 16) for at in functions]
        count = len(out.rows())
        out.wait(count + 5)
        found["runs on"] = len(out.rows()) > count
    found["denied"] = win32.denied(OSError(13, "Access is denied", None, 5))
    found["elevation"] = win32.denied(
        OSError(22, "The requested operation requires elevation", None, 740)
    )
    return found


def official(victim, injector, dll):
    """The DLL of the official release and ours on the same victim: ms that each clock shows in a
    second of speed 0, 4 and 1.
    """
    import ctypes

    found = {}
    with running(victim, "wait", "2") as (popen, out):
        subprocess.run([injector, str(popen.pid), dll], timeout=30, check=True)
        time.sleep(1.5)
        pipe = open(r"\\.\pipe\xspeedhackpipe", "wb", buffering=0)

        def tell(speed):
            pipe.write(ctypes.c_float(speed))
            time.sleep(0.2)

        found["official"] = {speed: over_a_second(out, partial(tell, speed)) for speed in (0, 4, 1)}
        pipe.close()
    with (
        running(victim, "wait", "2") as (popen, out),
        contextlib.closing(sim.Clock.attach(popen.pid, sleep=False)) as clock,
    ):

        def turn(speed):
            clock.stub.set(speed, clock.now, clock.now if not speed else ENDLESS)

        found["ours"] = {speed: over_a_second(out, partial(turn, speed)) for speed in (0, 4, 1)}
        clock.pause()
    return found


def over_a_second(out, change) -> dict:
    change()
    # a row that was begun before the change, perhaps half printed, says nothing about it
    out.wait(len(out.rows()) + 3)
    first, begin = out.rows()[-1], time.perf_counter()
    time.sleep(1)
    last, seconds = out.rows()[-1], time.perf_counter() - begin
    return {"clocks": ((last - first) / MS / seconds).tolist(), "frames": len(out.rows())}


def at_rest(env) -> np.ndarray:
    """The picture once it is the same for 3 s: Wine shows the last one up to a second late, and
    later on a busy machine.
    """
    picture, since = env.render(), time.perf_counter()
    while time.perf_counter() - since < 3:
        time.sleep(0.1)
        env.view.seen = -1
        before, picture = picture, env.render()
        since = since if np.array_equal(before, picture) else time.perf_counter()
    return picture


def aliens(out):
    """pygame's example game as it is: frozen, stepped, played by keys; pictures into the folder
    `out`.
    """
    import cv2

    command = [sys.executable, "-m", "pygame.examples.aliens"]
    neutral = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}
    right = {"buttons": neutral["buttons"], "sticks": np.float32([1, 0, 0, 0])}
    with contextlib.closing(sim.GameEnv(command, fps=20, gamepad="keys")) as env:
        _, info = env.reset()
        pictures, times = [env.render()], [info["time"]]
        for _ in range(20):
            times.append(env.step(neutral)[4]["time"])
        pictures.append(at_rest(env))
        time.sleep(1)
        pictures.append(at_rest(env))
        for _ in range(20):
            observation, _, terminated, _, info = env.step(right)
        pictures.append(env.render())
        hwnd, x, y, width, height = env.sandbox.display.windows()[0]
        # moved when it next looks, neither resized nor raised
        win32.windows("SetWindowPos", hwnd, 0, 37, 53, 0, 0, 0x4015)
        env.step(neutral)
        place = env.sandbox.display.windows()[0][1:]
        pictures.append(env.render())
        names = ("first", "stepped", "a second later", "moved right", "window moved")
        for name, picture in zip(names, pictures, strict=True):
            cv2.imwrite(os.path.join(out, f"aliens {name}.png"), picture[:, :, ::-1])

        def count(a, b):
            return int((a != b).any(-1).sum()) if a.shape == b.shape else -1

        return {
            "shape": list(pictures[0].shape),
            "observation": list(observation.shape),
            "stepped": count(pictures[0], pictures[1]),
            "frozen": count(pictures[1], pictures[2]),
            "idle": count(pictures[0][400:], pictures[1][400:]),
            "played": count(pictures[2][400:], pictures[3][400:]),
            "moved": count(pictures[3], pictures[4]),
            "step": float(np.diff(times).max() - np.diff(times).min()),
            "seconds": times[-1] - times[0],
            "terminated": terminated,
            "places": [[x, y, width, height], place],
        }


def by_title():
    """A running game that is found by its window's title alone: its client area, and how much of
    the picture is its own.
    """
    code = (
        "import pygame; pygame.display.init(); screen = pygame.display.set_mode((320, 240)); "
        "pygame.display.set_caption('Red Game 7')\nclock = pygame.time.Clock()\n"
        "while True: pygame.event.get(); screen.fill((255, 0, 0)); pygame.display.flip(); "
        "clock.tick(50)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as game:
        end = time.perf_counter() + 60
        while (
            not any("Red Game" in title for _, _, title, *_ in win32.desktop_windows())
            and time.perf_counter() < end
        ):
            time.sleep(0.1)
        with contextlib.closing(sim.GameEnv([], attach="red game", fps=20, gamepad="keys")) as env:
            env.reset()
            picture = at_rest(env)
            found = {
                "place": env.sandbox.display.windows()[0][1:],
                "shape": list(picture.shape),
                "red": float((picture == (255, 0, 0)).all(-1).mean()),
            }
        found["alive"] = game.poll() is None
        game.kill()
    return found


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])), flush=True)
