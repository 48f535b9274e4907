"""sim.py: the shared section, the clock hook to the nanosecond, GameEnv on a real game, and all the
ways to fail.

    python -m pytest tests/test_sim.py
"""

import contextlib
import ctypes
import importlib.util
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, Many, command_line, recipe_of
from common.pictures import expand, read_video, video_facts
from common.workers import for_each, over_processes

import gymnasium
import numpy as np
import pytest

import sim
from bench import stepping
from clock import kernel
from clock.base import NS, GameError, read_text, say_once
from clock.fallback import GateClock
from devices import sandbox
from devices.linux import Keyboard, UInput, Window
from devices.sdl import Readback, VirtualJoystick

ROOT = Path(__file__).resolve().parents[1]
ASM, VICTIMS = Path(__file__).parent / "asm", Path(__file__).parent / "victims"
GAME = [sys.executable, str(ROOT / "games" / "crypt.py"), "--seed", "{seed}", "--fps", "{fps}"]
NEUTRAL = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}
needs_hook = pytest.mark.skipif(sim.hook_fault() is not None, reason=str(sim.hook_fault()))


# ---- the shared section


def actions_file(path, frames=5):
    rng = np.random.default_rng(0)
    tensors = {
        "buttons": rng.random((frames, 16)).astype(np.float16),
        "sticks": rng.uniform(-1, 1, (frames, 4)).astype(np.float32),
        "shown": np.ones(20, bool),
        "confidence": np.ones(frames, np.float16),
        "time": np.arange(frames) / 30,
    }
    artefact.write(
        path,
        tensors,
        "nitrogen.actions/1",
        buttons=artefact.BUTTONS,
        sticks=artefact.STICKS,
        unit="normalized",
    )
    return tensors


def fault(call, *args):
    """The one line with which a call gives up."""
    with pytest.raises(SystemExit) as e:
        call(*args)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_artefact_round_trip(tmp_path):
    path = tmp_path / "a.actions.safetensors"
    tensors = actions_file(path)
    back, info = artefact.read(path, "nitrogen.actions/1")
    assert (
        info["unit"] == "normalized"
        and info["sticks"] == list(artefact.STICKS)
        and "T 4" in info["tensors"]["sticks"]
    )
    assert all(np.array_equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items())
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_artefact_faults(tmp_path):
    path = tmp_path / "a.actions.safetensors"
    tensors = actions_file(path)
    assert "no such file; make it anew: python parse.py" in fault(
        artefact.read, tmp_path / "none", "nitrogen.actions/1"
    )
    assert "expected a nitrogen.overlay/1 file, found 'nitrogen.actions/1'" in fault(
        artefact.read, path, "nitrogen.overlay/1"
    )
    blob = path.read_bytes()
    for cut in (0, 7, 100, len(blob) - 1):
        path.write_bytes(blob[:cut])
        assert f"{path}: not a readable safetensors file" in fault(
            artefact.read, path, "nitrogen.actions/1"
        )
    for name, value, said in (
        ("sticks", np.zeros((5, 3), np.float32), "'sticks' has 4 = 3"),
        ("time", np.zeros(6), "'time' has T = 6, expected 5"),
        ("confidence", np.full(5, 2, np.float16), "'confidence' leaves its range 0..1"),
        ("shown", np.ones(20, np.uint8), "'shown' should be bool [20], found uint8"),
    ):
        assert said in artefact.check(
            {**tensors, name: value}, artefact.FORMATS["nitrogen.actions/1"]
        )


@dataclass(frozen=True)
class Flags(Common):
    files: tuple[str, ...] = ()  # some files
    rate: float = 1.5  # in Hz
    sheet: bool = False  # a sheet too
    command: tuple[str, ...] = ()  # the game


@dataclass(frozen=True)
class Game(Common):
    command: tuple[str, ...] = ()  # the game


def test_command_line(capsys):
    commands = {
        "": (Flags, lambda cfg: cfg),
        "go": ({"slow": Flags(rate=1.0), "fast": Flags(rate=9.0)}, lambda cfg: cfg),
    }
    cfg = command_line(
        "doc", commands, ["a", "b", "--rate", "2", "--sheet", "--seed", "7", "--", "game", "--x"]
    )
    assert (cfg.files, cfg.rate, cfg.sheet, cfg.seed, cfg.command) == (
        ("a", "b"),
        2.0,
        True,
        7,
        ("game", "--x"),
    )
    assert command_line("doc", commands, ["go", "--config", "fast"]).rate == 9.0
    for argv in (["--rate", "much"], ["--rat", "2"], ["--speed", "2"], ["go", "--config", "none"]):
        assert "see --help" in fault(command_line, "doc", commands, argv)
    with pytest.raises(SystemExit):
        command_line("doc", commands, ["--help"])
    assert re.search(r"--rate FLOAT\s+in Hz \(default: 1.5\)", capsys.readouterr().out)
    doc = "All of it.\n\n    python x.py FILE     as usual\n    python x.py go       off it goes"
    with pytest.raises(SystemExit):
        command_line(doc, commands, ["go", "--config=fast", "--help"])
    said = capsys.readouterr().out
    assert (
        "off it goes" in said
        and "All of it" not in said
        and "as usual" not in said
        and " -- COMMAND..." in said
    )
    # of the preset that was asked for
    assert re.search(r"--rate FLOAT\s+in Hz \(default: 9.0\)", said)
    assert "put -- before the game's command" in fault(
        command_line, "doc", {"": (Game, print)}, ["python", "game.py"]
    )

    def broken(cfg):
        raise GameError("the game burnt down")

    assert fault(command_line, "doc", {"": (Flags, broken)}, []) == "the game burnt down"


def double(item):
    if item == "bad":
        raise SystemExit("bad: is bad")
    if item == "crash":
        os.abort()
    return item * 2


def test_for_each_here():
    assert for_each(double, ["a", "b", "a"]) == ["aa", "bb"]
    with pytest.raises(SystemExit, match=r"1 of 3 videos failed:\n  bad: is bad"):
        for_each(double, ["a", "bad", "b"], summary=(said := []).append)
    assert said == [["aa", "bb"]]  # what the others gave is told before the failures are
    assert fault(for_each, double, ["bad"]) == "bad: is bad"
    assert "no videos given" in fault(for_each, double, [])


@pytest.mark.parametrize("workers", [1, 2])
def test_for_each_survives_a_crash(workers):
    with pytest.raises(SystemExit) as e:
        for_each(double, ["a", "crash", "bad", "b"], workers)
    lines = str(e.value).splitlines()
    assert lines[0] == "2 of 4 videos failed:" and any(
        line.startswith("  crash: BrokenProcessPool") for line in lines
    )


def test_only_what_ran_beside_a_crash_runs_alone(tmp_path):
    """Two workers, twelve items, the third of them kills its worker: the other one's item has a
    process of its own, the rest share two new ones.
    """
    runs = {
        item: result
        for item, result, _ in over_processes(
            leave_pid, [str(tmp_path / (f"{i}" if i != 2 else "die")) for i in range(12)], 2
        )
    }
    assert len(runs) == 12 and [Path(i).name for i, pid in runs.items() if pid is None] == ["die"]
    assert 3 <= len({pid for pid in runs.values() if pid}) <= 5 and os.getpid() not in runs.values()


def leave_pid(item):
    time.sleep(0.1)
    if item.endswith("die"):
        os._exit(3)
    return os.getpid()


def where(item):
    if item == "die":
        os._exit(3)
    if item == "late":
        time.sleep(1)
    print(f"saw {item}")
    return double(item), os.getpid(), os.environ["OMP_NUM_THREADS"], os.getcwd()


@pytest.mark.slow
def test_for_each_over_ray(capfd, tmp_path, monkeypatch):
    """Results in order, in two processes that share this folder; failing items and dying workers
    run twice and stop nobody.
    """
    pytest.importorskip("ray", reason="no Ray (pip install ray)")
    monkeypatch.chdir(tmp_path)
    found = for_each(where, ["late", "b", "late2", "c", "d", "b"], 2, ray="local")
    assert [f[0] for f in found] == [
        "latelate",
        "bb",
        "late2late2",
        "cc",
        "dd",
    ] and "saw late2" in capfd.readouterr().out
    assert len({f[1] for f in found} | {os.getpid()}) == 3 and {f[3] for f in found} == {
        str(tmp_path)
    }
    assert {f[2] for f in found} == {str(max(1, (os.cpu_count() or 1) // 2))}
    with pytest.raises(SystemExit) as e:
        for_each(where, ["a", "die", "bad", "b", "late"], 2, ray="local")
    lines = str(e.value).splitlines()
    assert (
        lines[0] == "2 of 5 videos failed:"
        and sorted(lines[1:])[0] == "  bad: is bad"
        and sorted(lines[1:])[1].startswith("  die: WorkerCrashedError")
    )
    said = capfd.readouterr().out
    assert (said.count("saw a\n"), said.count("saw bad\n")) == (1, 2)


@pytest.mark.slow
def test_ctrl_c_stops_ray_and_keeps_what_is_finished(tmp_path):
    pytest.importorskip("ray", reason="no Ray (pip install ray)")
    (tmp_path / "stage.py").write_text(STAGE)
    items = ["a", "b", *(f"slow{i}" for i in range(20))]
    run = subprocess.Popen(
        [sys.executable, "stage.py", *items],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # ignored in background jobs, and inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while (
        not ((tmp_path / "a").exists() and (tmp_path / "b").exists())
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    said = run.communicate(timeout=180)[1]
    assert run.returncode == 1 and said.strip().endswith(
        "interrupted; finished work is kept, the same command goes on from there"
    ), said
    assert (
        sorted(p.name for p in tmp_path.iterdir() if p.suffix == "") == ["a", "b"]
        and "Traceback" not in said
    )


STAGE = """
import functools, sys, time
from dataclasses import dataclass
from pathlib import Path
from common.command_line import Many, command_line
from common.workers import for_each

@dataclass(frozen=True)
class Config(Many):
    names: tuple[str, ...] = ()     # of files to make
    workers: int = 2                # two
    ray: str = "local"              # here

@functools.lru_cache
def cached(name):                   # a stage's functions have caches
    return name * 2

def make(name, cfg):
    if name.startswith("slow"):
        time.sleep(20)
    Path(name).write_text(cached(name))

def main(c):
    for_each(functools.partial(make, cfg=c), c.names, c.workers, ray=c.ray)

command_line("", {"": (Config, main)}) if __name__ == "__main__" else None
"""


def stage_over_processes(tmp_path, stage, *items):
    """That stage on those items in processes, in a session of its own, so that a signal reaches all
    of them, as from a terminal.
    """
    (tmp_path / "stage.py").write_text(stage)
    return subprocess.Popen(
        [sys.executable, "stage.py", "--ray", "", *items],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_begins_nothing_more(tmp_path):
    """Two processes, forty items of a second: those under way end, and the few that the processes
    had taken on; the rest does not begin.
    """
    run = stage_over_processes(
        tmp_path, STAGE.replace("sleep(20)", "sleep(1)"), "a", *(f"slow{i}" for i in range(40))
    )
    while not (tmp_path / "slow0").exists() and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=180)[1]
    assert (
        run.returncode == 1
        and "interrupted; finished work is kept" in said
        and "Traceback" not in said
    ), said
    assert 2 <= len([p for p in tmp_path.iterdir() if not p.suffix]) < 15


@pytest.mark.parametrize("moment", ["begins", "has nothing to do"])
def test_ctrl_c_while_a_process(moment, tmp_path):
    """No traceback of its own then, and it takes on nothing more."""
    begins = "if __name__ == '__mp_main__':\n    Path('begun.mark').touch(), time.sleep(3)\n"
    run = stage_over_processes(
        tmp_path, STAGE + (begins if moment == "begins" else ""), "a", "slow0"
    )
    while (
        not (tmp_path / ("begun.mark" if moment == "begins" else "a")).exists()
        and run.poll() is None
    ):
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(run.pid, signal.SIGINT)
    start, said = time.monotonic(), run.communicate(timeout=180)[1]
    assert (
        run.returncode == 1
        and "interrupted; finished work is kept" in said
        and "Traceback" not in said
    ), said
    assert {p.name for p in tmp_path.iterdir() if not p.suffix} == (
        set() if moment == "begins" else {"a"}
    ) and time.monotonic() - start < 15


def test_no_process_outlives_a_killed_stage(tmp_path):
    """kill -9 of the stage alone: the process that works and the one that waits for more both end.
    Each holds this pipe open.
    """
    run = stage_over_processes(tmp_path, STAGE, "a", "slow0")
    while not (tmp_path / "a").exists() and run.poll() is None:
        time.sleep(0.05)
    run.kill()
    run.communicate(timeout=15)
    assert run.returncode == -signal.SIGKILL and not (tmp_path / "slow0").exists()


def test_without_ray_and_without_its_cluster(monkeypatch):
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "ray", None)
        assert (
            fault(lambda: for_each(double, ["a"], ray="local"))
            == "--ray needs Ray: pip install ray"
        )
    pytest.importorskip("ray", reason="no Ray (pip install ray)")
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "nowhere"):
        said = fault(lambda address=address: for_each(double, ["a"], ray=address))
        assert said.startswith(f"--ray {address}: ")


def test_ray_is_no_part_of_a_recipe():
    assert recipe_of(Many(workers=7, ray="local")) == recipe_of(Many())


# ---- which videos


@dataclass(frozen=True)
class Stage(Many):
    videos: tuple[str, ...] = ()  # some videos


def test_files_folders_patterns_and_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.mp4",
        "clips/z.MKV",
        "clips/b.mp4",
        "clips/b.preview.mp4",
        "clips/.b.1.part.mp4",
        "clips/notes.txt",
        "clips/deep/c.mp4",
        "game [x1].mp4",
        "@f.mp4",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    b, z, c = (str(Path(p)) for p in ("clips/b.mp4", "clips/z.MKV", "clips/deep/c.mp4"))
    assert expand(["clips", "a.mp4"]) == (b, z, "a.mp4")
    assert expand(["clips/*.M*", "clips/**/c.*"]) == (z, c)
    # a name may look like a pattern; for_each names the lost
    assert expand(["game [x1].mp4", "@f.mp4", "gone.mp4"]) == (
        "game [x1].mp4",
        "@f.mp4",
        "gone.mp4",
    )
    Path("list.txt").write_text(
        "\ufeff# mine\n\n  clips/deep/c.mp4 \ngame [x1].mp4\n#a.mp4\n", encoding="utf-8"
    )
    assert expand(["@list.txt"]) == ("clips/deep/c.mp4", "game [x1].mp4")
    Path("empty.txt").write_text("# nothing\n"), Path("empty").mkdir()
    for none in ("empty", "clips/*.avi", "@empty.txt"):
        assert fault(expand, [none]).startswith(f"{none}: no videos there")
    assert fault(expand, ["@gone.txt"]).startswith("@gone.txt: not a readable list of videos")
    Path("a.png").write_bytes(b"\xff\xfe\xfd")
    assert fault(expand, ["@a.png"]).startswith("@a.png: not a readable list of videos")
    assert command_line("", {"": (Stage, lambda cfg: cfg)}, ["clips", "@list.txt"]).videos == (
        b,
        z,
        "clips/deep/c.mp4",
        "game [x1].mp4",
    )


# ---- machine code


@pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("objcopy")),
    reason="no assembler (apt install binutils)",
)
def test_machine_code_is_its_assembly(tmp_path):
    subprocess.run(["as", "--64", "-o", "stub.o", ASM / "stub.S"], cwd=tmp_path, check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", "stub.o", "stub.bin"], cwd=tmp_path, check=True
    )
    assert (tmp_path / "stub.bin").read_bytes() == kernel.STUB
    symbols = subprocess.run(
        ["nm", "stub.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    places = {name: int(value, 16) for value, _, name in map(str.split, symbols.splitlines())}
    assert {
        f"__vdso_{name}".encode(): places[name]
        for name in ("clock_gettime", "gettimeofday", "time")
    } == kernel.STUB_ENTRY
    assert [places[name] for name in ("now", "offsets", "table", "calls")] == [
        kernel.CLOCK_AT - kernel.STUB_AT,
        kernel.OFFSETS_AT - kernel.STUB_AT,
        kernel.TABLE_AT - kernel.STUB_AT,
        kernel.CALLS_ENTRY,
    ]
    assert places["spins"] + 16 * 256 == kernel.SCRATCH_AT - kernel.STUB_AT


# ---- the clock


@contextlib.contextmanager
def launched(*argv, **kwargs):
    """A Clock and a function that gives what the program has written so far."""
    with tempfile.TemporaryFile() as out:
        clock = sim.Clock([str(a) for a in argv], stdout=out, **kwargs)
        try:
            yield clock, lambda: os.pread(out.fileno(), 1 << 20, 0).decode()
        finally:
            pids = {clock.pid, *clock.threads}
            clock.close()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def python(code):
    return sys.executable, "-c", "import os, sys, time, threading\n" + code


def compiled(tmp_path, name, *flags):
    """A program of tests/victims."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler (apt install gcc)")
    done = subprocess.run(
        ["gcc", "-w", "-O1", "-pthread", "-o", tmp_path / name, VICTIMS / f"{name}.c", *flags],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"{name}.c does not link here: {done.stderr.strip().splitlines()[-1][:150]}")
    return str(tmp_path / name)


@needs_hook
@pytest.mark.parametrize("link", [[], ["-static"]])
def test_every_clock_and_every_wait_in_four_threads(tmp_path, link):
    with launched(compiled(tmp_path, "waits", *link)) as (clock, said):
        clock.step(5)
        assert clock.returncode == 0 and clock.time == 5.0
        found = {
            (name, *map(int, rest[:-1])): int(rest[-1])
            for name, *rest in map(str.split, said_lines(said))
        }
    clocks = {key[1]: value - kernel.BIRTH for key, value in found.items() if key[0] == "clock"}
    assert clocks == {
        i: kernel.OFFSET if i in (0, 5, 8, 11) else 0 for i in (1, 4, 6, 7, 9, 0, 5, 8, 11)
    }
    assert {found[name,] for name in ("gettimeofday", "raw_gettimeofday", "time", "raw_time")} == {
        kernel.EPOCH
    }
    assert found["raw",] == kernel.BIRTH and found["cpu",] == 1
    waits = {
        "nanosleep": 0,
        "sleep_until": 0,
        "sleep_until_date": 0,
        "poll_nothing": 0,
        "select_nothing": 0,
        "poll": 0,
        "ppoll": 0,
        "select": 0,
        # name: result; each took 100 ms
        "pselect": 0,
        "epoll": 0,
        "epoll_pwait": 0,
        "epoll_pwait2": 0,
        "sem": 1,
        "cond": 1,
    }
    expected = {(name, result): 100_000_000 for name, result in waits.items()} | {
        ("agree", 9): 0,
        ("select_set", 0): 0,
        ("sem_past", 1): 0,
        ("poll_woken", 1): 30_000_000,
        ("poll_ready", 1): 0,
    }
    for me in range(4):
        assert {
            (key[0], key[2]): took
            for key, took in found.items()
            if key[1:2] == (me,) and len(key) == 3
        } == expected, me


@needs_hook
@pytest.mark.parametrize("tsc", [False, True])
def test_timers_and_rarer_waits(tmp_path, tsc):
    program, ms, runs = compiled(tmp_path, "timers", "-lrt"), 1_000_000, []
    for seed in (5, 5, 6):
        with launched(program, seed=seed, tsc=tsc) as (clock, said):
            clock.step(20)
            assert clock.returncode == 0 and not clock.timers
            runs.append(
                {
                    name: tuple(map(int, rest))
                    for name, *rest in map(str.split, said_lines(said))
                    if not name.startswith("random")
                }
            )
            runs[-1]["random"] = next(
                line for line in said_lines(said) if line.startswith("random")
            )
    found = runs[0]
    full = {
        "timerfd": 8,
        "timerfd_off": 0,
        "timerfd_date": 8,
        "itimer_pause": 1,
        "mq": 1,
        "sem": 1,
        "futex_waitv": 1,
        "futex_wait": 1,
        "futex_bitset": 1,
        "sigtimedwait": 1,
    }  # name: result; each took 100 ms
    assert {name: found[name] for name in full} == {
        name: (result, 100 * ms) for name, result in full.items()
    }
    assert [found[n] for n in ("timerfd_poll", "timerfd_again", "timerfd_left")] == [
        (1, 20 * ms),
        (1, 30 * ms),
        (30 * ms, 30 * ms),
    ]
    assert (
        found["count"] == (1,)
        and found["itimer_sleep"] == (1, 40 * ms)
        and found["rest"] == (960 * ms,)
        and found["itimer_left"] == (40000, 40000)
    )
    assert (
        found["alarm_left"] == (3, 0)
        and found["alarm"][1] == 1000 * ms
        and found["alarm_ignored"] == (0, 2000 * ms)
    )
    assert (
        found["timer"] == (2, 50 * ms)
        and found["timer_left"] == (30 * ms, 30 * ms)
        and found["timer_thread"] == (7, 150 * ms)
    )
    assert found["io_uring"] == (1, 0) and found["spin"] == found["spin_threads"] == (0, 50 * ms)
    assert (found["rdtsc"][1] == kernel.TSC_HZ // 10) == tsc
    assert runs[0]["random"] == runs[1]["random"] != runs[2]["random"]


@needs_hook
def test_the_seed_sets_the_clock_and_chance():
    code = (
        "import random; print(int(time.time()), random.random(), os.urandom(4).hex(), id(object()))"
    )

    def told(**options):
        with launched(*python(code), **options) as (clock, said):
            clock.step(1)
            return said().split()

    assert told(seed=3) == told(seed=3) and int(told(seed=3)[0]) == kernel.EPOCH // NS + 3
    assert not set(told(seed=3)[1:3]) & set(told(seed=4)[1:3]) and not set(
        told(fixed=False)[1:]
    ) & set(told(fixed=False)[1:])


@needs_hook
def test_chance_and_reads_are_counted_by_thread_and_process():
    """Whoever asks first gets the same; and the reads of another process, in any number, let no
    time pass.
    """
    code = """
turns, found = [threading.Event() for _ in range(3)], [os.urandom(4).hex()] * 4
def ask(i):
    turns[i].wait()
    found[i] = os.urandom(4).hex()
threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
for t in threads: t.start()
for i in map(int, sys.argv[1]):
    turns[i].set()
    threads[i].join()
for _ in range(4):
    if not os.fork():
        for _ in range(300): time.monotonic_ns()
        os._exit(0)
    os.wait()
print(*found, time.monotonic_ns())
"""

    def told(order):
        with launched(*python(code), order) as (clock, said):
            clock.step(1)
            return said().split()

    assert (
        told("012") == told("210")
        and len(set(told("012")[:4])) == 4
        and told("012")[4] == str(kernel.BIRTH)
    )


def said_lines(said):
    return said().strip().splitlines()


@needs_hook
def test_step_is_exact_and_costs_nothing():
    code = (
        "a = time.monotonic_ns()\nfor i in range(20): time.sleep(100)\n"
        "print(time.monotonic_ns() - a, time.time())"
    )
    begin = time.perf_counter()
    with launched(*python(code)) as (clock, said):
        clock.step(1999.99)
        assert said() == "" and clock.alive and clock.time == 1999.99
        clock.step(0.01)
        assert said() == f"2000000000000 {kernel.EPOCH / 1e9 + 2000}\n" and clock.returncode == 0
    assert time.perf_counter() - begin < 100


@needs_hook
def test_paused_means_frozen():
    with launched(*python("while True: time.sleep(0.01); print(time.monotonic(), flush=True)")) as (
        clock,
        said,
    ):
        clock.step(0.1)
        before, cpu = said(), read_text(f"/proc/{clock.pid}/schedstat")
        assert before.splitlines() == [
            str((kernel.BIRTH + (i + 1) * 10_000_000) / 1e9) for i in range(10)
        ]
        time.sleep(0.3)
        clock.pause()
        assert (
            said() == before
            and read_text(f"/proc/{clock.pid}/schedstat") == cpu
            and clock.time == 0.1
        )


@needs_hook
def test_run_follows_real_time_at_any_speed():
    with launched(*python("while True: time.sleep(0.01); print('x', flush=True)")) as (clock, said):
        clock.pause()
        # the game's own computing takes time here, as in real life
        for seconds, speed, total in ((0.5, 0.1, 5), (0.2, 0.5, 15), (0.2, 4.0, 95)):
            begin = time.perf_counter()
            clock.run(seconds, speed)
            assert seconds <= time.perf_counter() - begin < 3
            assert (
                total * 0.05 < len(said_lines(said)) <= total
                and round(clock.time, 9) == total / 100
            )
        began, beats = clock.time, len(said_lines(said))
        # faster than real time, for it mostly sleeps; and time passes only while it does
        clock.run(0.5, float("inf"))
        assert clock.time > began + 0.5 and len(said_lines(said)) - beats == pytest.approx(
            (clock.time - began) * 100, abs=1
        )


@needs_hook
def test_threads_wake_in_order():
    code = """
def beat(name, seconds, count):
    for _ in range(count):
        time.sleep(seconds)
        print(name, time.monotonic_ns() - start, flush=True)
start = time.monotonic_ns()
threads = [threading.Thread(target=beat, args=a) for a in (("a", 0.3, 4), ("b", 0.5, 3))]
for t in threads: t.start()
done = threading.Event()
print(done.wait(0.25), time.monotonic_ns() - start, flush=True)
for t in threads: t.join()
"""
    expected = [
        "False 250000000",
        "a 300000000",
        "b 500000000",
        "a 600000000",
        "a 900000000",
        "b 1000000000",
        "a 1200000000",
        "b 1500000000",
    ]
    for _ in range(3):
        with launched(*python(code)) as (clock, said):
            clock.step(1.2)
            assert said_lines(said) == expected[:-1]
            clock.step(1)
            assert said_lines(said) == expected and clock.returncode == 0


@needs_hook
def test_script_children_and_exec_share_the_time(tmp_path):
    script = tmp_path / "game.sh"
    script.write_text(
        f"#!/bin/sh\ndate +%s\nsleep 100\ndate +%s\n(sleep 7; date +%s) | tail -n 1\n"
        f"sleep 2 & sleep 3\nwait\nexec {sys.executable} -c 'import time; time.sleep(50); "
        "print(int(time.time()))'\n"
    )
    script.chmod(0o755)
    with launched(script) as (clock, said):
        clock.step(1000)
        assert clock.returncode == 0 and [
            int(line) - kernel.EPOCH // NS for line in said_lines(said)
        ] == [0, 100, 107, 160]


@needs_hook
def test_an_alarm_outlives_exec_and_a_posix_timer_does_not(tmp_path):
    code = """
import ctypes, signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
timer = ctypes.c_void_p()
ctypes.CDLL(None).timer_create(1, None, ctypes.byref(timer))
ctypes.CDLL(None).timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 300_000_000), None)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, 0.5)
os.execvp("sh", ["sh", "-c", "trap 'date +%N; exit 7' ALRM; while :; do sleep 0.1; done"])
"""
    with launched(*python(code)) as (clock, said):
        clock.step(2)
        assert clock.returncode == 7 and int(said()) == 500_000_000


@needs_hook
def test_exec_in_a_thread_leaves_one_thread():
    code = (
        "threading.Thread(target=os.execvp, args=('sh', ['sh', '-c', 'sleep 1; exec date +%s']))"
        ".start()\ntime.sleep(100)"
    )
    with launched(*python(code)) as (clock, said):
        clock.step(0.5)
        assert len(clock.pids()) == 2 and len(clock.threads) == 2  # sh, sleep
        clock.step(1)
        assert clock.returncode == 0 and int(said()) == kernel.EPOCH // NS + 1


@needs_hook
def test_addresses_where_nothing_is_are_the_games_own_fault():
    code = """
import ctypes
libc, EFAULT = ctypes.CDLL(None, use_errno=True), 14
for nowhere in (8, 2**64 - 4096):
    nowhere = ctypes.c_void_p(nowhere)
    for number, *args in (
        (35, nowhere, 0),
        (230, 1, 0, nowhere, 0),
        (228, 1, nowhere),
        (202, nowhere, 0, 0, nowhere),
        (271, 0, 0, nowhere, 0, 8),
    ):
        assert libc.syscall(number, *args) == -1, number
        assert ctypes.get_errno() == EFAULT, (number, ctypes.get_errno())
a, b, c = (ctypes.c_void_p() for _ in range(3))
libc.timer_create(1, None, ctypes.byref(a)), libc.timer_create(1, None, ctypes.byref(b))
assert libc.timer_delete(a) == 0 == libc.timer_create(1, None, ctypes.byref(c))
assert libc.timer_getoverrun(b) == 0
assert c.value != b.value
"""
    with launched(*python(code), stderr=subprocess.STDOUT) as (clock, said):
        clock.step(1)
        assert clock.returncode == 0, said()


@needs_hook
def test_a_signal_ends_a_wait_and_a_stopped_child_goes_on():
    code = """
import signal, select, subprocess
signal.signal(signal.SIGUSR1, lambda *_: print("signal", time.monotonic_ns() - start, flush=True))
start = time.monotonic_ns()
child = subprocess.Popen(["sleep", "1000"])
def stop():
    child.send_signal(signal.SIGSTOP), os.kill(os.getpid(), signal.SIGUSR1)
threading.Timer(0.2, stop).start()
r, w = os.pipe()
select.select([r], [], [], 0.5)
print("select", time.monotonic_ns() - start, flush=True)
child.kill(); print(child.wait(), flush=True)
"""
    with launched(*python(code)) as (clock, said):
        clock.step(1)
        assert (
            said_lines(said) == ["signal 200000000", "select 500000000", "-9"]
            and clock.returncode == 0
        )


@needs_hook
def test_other_children_of_this_program_are_left_alone():
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    with launched(*python("time.sleep(1)")) as (clock, _):
        clock.step(2)
        time.sleep(0.05)
    assert child.wait(timeout=1) == 7


@needs_hook
def test_only_the_owner_may_step_but_anyone_may_close():
    said = []

    def other():
        try:
            clock.step(1)
        except GameError as e:
            said.append(str(e))
        clock.close()

    clock = sim.Clock(python("time.sleep(100)"))
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "by the thread that started it" in said[0] and "AsyncVectorEnv" in said[0]
    assert not Path(f"/proc/{clock.pid}").exists() and clock.returncode == -signal.SIGKILL


@needs_hook
def test_the_program_dies_with_us():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sim, time\n"
        "clock = sim.Clock(['sh', '-c', 'sleep 1000 & sleep 1000']); clock.step(1)\n"
        "print(*clock.threads, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        pids = owner.stdout.readline().split()
        assert len(pids) == 3 and all(Path(f"/proc/{pid}").exists() for pid in pids)
        owner.kill()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def wait_until(condition, seconds=10.0):
    end = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < end:
        time.sleep(0.01)
    return condition()


# ---- attach mode

BEATS = """
import select
r, w = os.pipe()
def beat(name, wait):
    while True: wait(); os.write(1, f"{name} {time.monotonic_ns()}\\n".encode())
event = threading.Event()
waits = {"event": lambda: event.wait(0.05), "select": lambda: select.select([r], [], [], 0.05)}
for name, wait in waits.items():
    threading.Thread(target=beat, args=(name, wait), daemon=True).start()
beat("sleep", lambda: time.sleep(0.05))
"""


@pytest.fixture
def beats(tmp_path):
    """A running program with three threads that wait in three ways, and a function that gives what
    it has written since.
    """
    path, seen = tmp_path / "beats", [0]

    def new():
        lines = path.read_text().split("\n")[seen[0] : -1]  # whole ones
        seen[0] += len(lines)
        return lines

    with open(path, "w") as out, subprocess.Popen(python(BEATS), stdout=out) as program:
        assert wait_until(
            lambda: (
                {line.split()[0] for line in path.read_text().splitlines()}
                == {"event", "select", "sleep"}
            ),
            10,
        )
        yield program, new
        program.kill()


def runs_in_real_time(new):
    """Whether the program's threads beat, by the real clock."""

    def all_three():
        seen.extend(new())
        return len({line.split()[0] for line in seen}) == 3

    new()
    seen = []
    return wait_until(all_three, 5) and abs(int(seen[-1].split()[1]) - time.monotonic_ns()) < 2e9


CLOCKS = """
last = {}
print("ready", flush=True)
while True:
    time.sleep(0.0005)
    for clock in (0, 1, 4, 5, 6, 7, 11):
        now = time.clock_gettime_ns(clock)
        if now < last.get(clock, 0):
            print(clock, "went back by", last[clock] - now, "ns", flush=True)
        last[clock] = now
"""


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
def test_no_clock_of_an_attached_program_goes_back():
    """Not when it is taken, at whatever moment, nor when it is let go although it was stepped
    ahead; and each clock keeps its own time.
    """
    with subprocess.Popen(python(CLOCKS), stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout.readline() == b"ready\n"
            for _ in range(8):
                with contextlib.closing(sim.Clock.attach(program.pid)) as clock:
                    raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - time.monotonic_ns()
                    assert (
                        abs(clock.offsets[4] - raw) < 1e6
                        and abs(clock.offsets[0] + clock.now - time.time_ns()) < 2e9
                    )
                    clock.step(0.2)
            time.sleep(0.1)
        finally:
            program.kill()
        assert program.stdout.read() == b""


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
@pytest.mark.parametrize("ending", ["detach", "close", "SIGTERM", "SIGKILL"])
def test_attached_frozen_stepped_and_let_go(beats, ending):
    program, new = beats
    if ending.startswith("SIG"):
        code = (
            f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); import sim\nclock = "
            f"sim.Clock.attach({program.pid}); clock.step(1)\n"
            "print('ready', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
            assert owner.stdout.readline() == b"ready\n"
            new()
            time.sleep(0.3)
            assert not new()
            owner.send_signal(getattr(signal, ending))
    else:
        clock = sim.Clock.attach(program.pid)
        try:
            time.sleep(0.2)  # the first waits began in real time
            clock.step(1)
            new()
            time.sleep(0.3)
            clock.pause()
            assert not new() and clock.time == 1
            clock.step(1)
            lines = [line.split() for line in new()]
            for name in ("event", "select", "sleep"):
                times = np.array([int(t) for n, t in lines if n == name])
                assert len(times) == 20 and set(np.diff(times)) == {50_000_000}, name
            clock.run(0.5, 2.0)
            assert clock.time == 3
        finally:
            getattr(clock, ending)()
    assert runs_in_real_time(new) and program.poll() is None
    again = sim.Clock.attach(program.pid)  # and nothing is in the way of another
    again.step(0.2)
    again.close()
    again.close()  # no more to be done, and nothing left open
    assert again.file is None and again.time == 0.2
    assert runs_in_real_time(new)


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
@pytest.mark.parametrize(
    "wait, ending",
    [
        ("libc.usleep(2_000_000)", "clock.close()"),
        ("libc.poll(None, 0, 2000)", "os.kill(os.getpid(), 9)"),
    ],
)
def test_no_sleep_is_cut_short_when_an_attached_program_is_let_go(wait, ending):
    code = (
        "import ctypes; libc = ctypes.CDLL(None); print(1, flush=True); "
        f"input(); {wait}; print(2, flush=True)"
    )
    with subprocess.Popen(python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            program.stdout.readline()
            attach = (
                f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import sim; clock = "
                f"sim.Clock.attach({program.pid}); print(flush=True)\n"
                f"while not clock._next(): clock.pause()\nclock.step(1)\n{ending}"
            )
            with subprocess.Popen([sys.executable, "-c", attach], stdout=subprocess.PIPE) as owner:
                owner.stdout.readline()
                program.stdin.write(b"\n"), program.stdin.flush()
                assert owner.wait(180) == (0 if "close" in ending else -9)
            # of the 2 s it sleeps all
            assert (
                not select.select([program.stdout], [], [], 0.7)[0]
                and program.stdout.readline() == b"2\n"
            )
        finally:
            program.kill()


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
@pytest.mark.parametrize("step", ["_patch", "_go_on", "_settle"])
def test_what_cannot_be_attached_to_runs_on(beats, monkeypatch, step):
    def fail(self, *_):
        raise GameError("not this one")

    with monkeypatch.context() as m, pytest.raises(GameError, match="not this one"):
        m.setattr(sim.Clock, step, fail)
        sim.Clock.attach(beats[0].pid)
    assert runs_in_real_time(beats[1]) and "TracerPid:\t0" in read_text(
        f"/proc/{beats[0].pid}/status"
    )


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
@pytest.mark.parametrize(
    "wait",
    [
        "while True: time.sleep(0.05)",
        "import select; r, w = os.pipe()\nwhile True: select.select([r], [], [], 0.05)",
        "while True: pass",
    ],
)
def test_a_signal_outlives_the_attachment(wait):
    code = (
        "import signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(7)); print('up', "
        "flush=True)\n" + wait
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as program:
        try:
            program.stdout.readline()
            if "pass" in wait:
                with pytest.raises(GameError, match="it hangs"):  # and is let go
                    sim.Clock.attach(program.pid, timeout=0.2)
            clock = sim.Clock.attach(program.pid, timeout=60) if "pass" not in wait else None
            program.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
            clock and clock.close()
            assert program.wait(10) == 7
        finally:
            program.kill()


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
def test_attached_amid_threads_that_come_and_go(tmp_path):
    """Thousands of threads, processes and queued signals a second: each attachment succeeds, no
    signal is lost, nobody is left standing.
    """
    libc, sent, stop = ctypes.CDLL(None), [0], threading.Event()

    def shoot():
        while not stop.is_set():
            sent[0] += libc.sigqueue(program.pid, signal.SIGRTMIN, None) == 0
            time.sleep(0.0003)

    with subprocess.Popen(
        [compiled(tmp_path, "storm")], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "ready\n"
        shooter = threading.Thread(target=shoot)
        shooter.start()
        try:
            for _ in range(10):
                with contextlib.closing(sim.Clock.attach(program.pid)) as clock:
                    clock.step(0.02)
                time.sleep(0.01)
        finally:
            stop.set(), shooter.join(), program.terminate()
        assert int(program.communicate(timeout=20)[0]) == sent[0] > 1000 and program.returncode == 0


@needs_hook
def test_attach_to_what_is_not_there():
    with pytest.raises(GameError, match="attach: process 999999999: "):
        sim.Clock.attach(999999999)


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


PAD_GAME = """
import sys; sys.path.insert(0, {games!r})
import console, numpy as np
class Game(console.World):
    name, tasks = "pad", {{"any": console.Task("Show the pad.", "specific", 99)}}
    icons = {{"any": console.HEART}}
    def move(self, pad, dt):
        self.pad = [int(pad[n]) for n in console.BUTTONS]
        self.pad += [round(pad[n], 3) for n in console.STICKS]
    def paint(self):
        return np.full((console.HEIGHT, console.WIDTH, 3), 10 + 200 * self.pad[4], np.uint8)
    def state(self): return self.pad
    def draw(self):
        if self.pad[15]: raise SystemExit(3)
        return self.paint()
console.main(Game, Game.tasks, "")
"""


@pytest.fixture
def pad_game(tmp_path):
    (tmp_path / "pad.py").write_text(PAD_GAME.format(games=str(ROOT / "games")))
    return [sys.executable, str(tmp_path / "pad.py"), "--fps", "{fps}"]


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
        ):
            with pytest.raises(GameError, match=r"an action is \{'buttons'"):
                env.step(bad)
        assert env.step(NEUTRAL)[4]["frame"] == 1
    for name in ("gamepad", "screen", "clock"):
        with pytest.raises(GameError, match=f"{name} 'wheel': there is auto"):
            sim.GameEnv(pad_game, **{name: "wheel"})
    for wrong in ({"fps": 0}, {"frame_skip": 0}, {"home": "/no/such/home"}, {"command": []}):
        with pytest.raises(GameError, match="expected fps > 0, frame_skip >= 1, a folder, a game"):
            sim.GameEnv(**{"command": pad_game, **wrong})


def check_clean(command, **options):
    """Gymnasium's own checks of an environment that it made, without a single warning."""
    from gymnasium.utils.env_checker import check_env

    with (
        contextlib.closing(gymnasium.make("NitroGame-v0", cmd=command, **options)) as env,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_check_env():
    check_clean(GAME)


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


@pytest.fixture
def leftovers(tmp_path, monkeypatch):
    """A function: the private folders, and the processes that live in one."""
    monkeypatch.setattr(sandbox, "MEMORY", tmp_path)

    def processes():
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"NITROGEN_CONSOLE={tmp_path}".encode() in (path / "environ").read_bytes():
                    yield path

    return lambda: [*tmp_path.glob("nitro-*"), *processes()]


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
        f"sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\n"
        # a shell's background job inherits it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"env = sim.GameEnv({pad_game!r})\nenv.reset()\nprint(env.stage.path, "
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


# ---- any program: tests/victims/game.c


def xvfb_missing():
    return "no X server (apt install xvfb)" if not shutil.which("Xvfb") else sim.hook_fault() or ""


needs_xvfb = pytest.mark.skipif(bool(xvfb_missing()), reason=xvfb_missing())
PUSH = {
    "buttons": np.arange(16) == artefact.BUTTONS.index("SOUTH"),
    "sticks": np.float32([1, -1, 0, 0]),
}


@pytest.fixture
def victim(tmp_path):
    return compiled(tmp_path, "game", "-l:libSDL2-2.0.so.0")


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
    stage = sandbox.Stage("400x300")
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
        assert x > 81 and y == 140 - x and red and env.stage.server == 0
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
        f"sandbox; from pathlib import Path; sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\n"
        f"env = sim.GameEnv([{victim!r}, 'renderer'], gamepad='keys', display={display.name!r}); "
        "env.reset()\n"
        "env.stage.display.focus(env.stage.display.windows()[0][0])\n"
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
        f"sandbox.MEMORY = Path({str(sandbox.MEMORY)!r})\nif {without}: sim.hook_fault = lambda: "
        "'no'\n"
        f"env = sim.GameEnv([{victim!r}, '{'surface' if without else 'gl'}', "
        "'fork'])\nenv.reset()\n"
        "print(env.stage.display.name[1:], env.stage.keeper.pid, env.stage.server, "
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
        before = env.stage.display.pixels.tobytes()
        time.sleep(0.5)
        assert env.stage.display.pixels.tobytes() == before and len(env.clock.pids()) == 2
        env.clock.run(0.3, 0.5)
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
        sim.replay, sim.Replay(videos=(str(tmp_path / "none.mp4"),))
    )
    assert "not a recording" in fault(sim.replay, sim.Replay(videos=(str(tmp_path / "a.mp4"),)))


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
    assert sim.GameEnv(command)._runs_wine() == wine
