"""common/workers.py: many inputs, here, in processes and over Ray; crashes and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT
from common.command_line import Many, recipe_of
from common.workers import for_each, over_processes

import pytest

from commands import fault, with_shared_memory


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


def test_without_room_for_a_pool_the_cause_is_named(tmp_path):
    """Its semaphores lie in /dev/shm."""
    (tmp_path / "stage.py").write_text(STAGE)
    words = [sys.executable, "stage.py", "a", "b", "--ray", ""]
    done = subprocess.run(
        [*with_shared_memory("4k"), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("/dev/shm (0.0 MB) is too small")


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


def test_ctrl_c_for_the_command_alone(tmp_path):
    """As `kill -INT` sends it: what the processes work on, 20 s each, does not go on to its end."""
    run = stage_over_processes(tmp_path, STAGE, "a", *(f"slow{i}" for i in range(4)))
    while not (tmp_path / "a").exists() and run.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    start, said = time.monotonic(), run.communicate(timeout=180)[1]
    assert time.monotonic() - start < 10 and run.returncode == 1
    assert "stopping: " in said and "Traceback" not in said, said
    assert {p.name for p in tmp_path.iterdir() if not p.suffix} == {"a"}


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
