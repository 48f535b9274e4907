"""clock/: programs that run already are frozen, stepped and let go."""

import contextlib
import ctypes
import select
import signal
import subprocess
import sys
import threading
import time

from common import ROOT

import numpy as np
import pytest

import sim
from clock.base import GameError, read_text
from programs import compiled, needs_hook, python, wait_until

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
                        abs(clock.page.offsets[4] - raw) < 1e6
                        and abs(clock.page.offsets[0] + clock.now - time.time_ns()) < 2e9
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
    assert again.page.file is None and again.time == 0.2
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
                f"while not clock.deadlines.first(): clock.pause()\nclock.step(1)\n{ending}"
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
@pytest.mark.parametrize(
    "step", ["clock.attach.patch", "clock.linux.Clock.go_on", "clock.linux.Clock.settle"]
)
def test_what_cannot_be_attached_to_runs_on(beats, monkeypatch, step):
    def fail(*_):
        raise GameError("not this one")

    with monkeypatch.context() as m, pytest.raises(GameError, match="not this one"):
        m.setattr(step, fail)
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
@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_attached_amid_threads_that_come_and_go(tmp_path, times):
    """Thousands of threads, processes and queued signals a second: each attachment succeeds, no
    signal is lost, nobody is left standing.
    """
    libc, sent, stop = ctypes.CDLL(None), [0], threading.Event()
    began = [time.monotonic()]

    def shoot():
        while not stop.is_set():
            sent[0] += libc.sigqueue(program.pid, signal.SIGRTMIN, None) == 0
            # where they come faster than the machine can serve them, no step would ever end
            time.sleep(0.0003 if time.monotonic() - began[0] < 5 else 0.05)

    with subprocess.Popen(
        [compiled(tmp_path, "storm")], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "ready\n"
        shooter = threading.Thread(target=shoot)
        shooter.start()
        try:
            for _ in range(times):
                began[0] = time.monotonic()
                with contextlib.closing(sim.Clock.attach(program.pid)) as clock:
                    clock.step(0.02)
                time.sleep(0.01)
        finally:
            stop.set(), shooter.join(), program.terminate()
        assert (
            int(program.communicate(timeout=20)[0]) == sent[0] > 100 * times
            and program.returncode == 0
        )


@needs_hook
@pytest.mark.skipif(bool(sim.attach_fault()), reason=str(sim.attach_fault()))
def test_addresses_where_nothing_is_are_an_attached_programs_own_fault():
    code = """
import ctypes
libc, nowhere = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p(8)
while True:
    time.sleep(0.01)
    failed = libc.syscall(35, nowhere, 0), ctypes.get_errno()  # nanosleep
    print(*failed, flush=True)
"""
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as program:
        try:
            program.stdout.readline()
            with contextlib.closing(sim.Clock.attach(program.pid)) as clock:
                clock.step(0.1)
            assert program.poll() is None and program.stdout.readline() == b"-1 14\n"  # EFAULT
        finally:
            program.kill()


@needs_hook
def test_attach_to_what_is_not_there():
    with pytest.raises(GameError, match="attach: process 999999999: "):
        sim.Clock.attach(999999999)
