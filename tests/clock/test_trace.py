"""clock/: the trace tells what the hook does, and docs/clock.md shows it as it is."""

import re
import subprocess
import sys

from common import ROOT

import sim
from programs import launched, needs_hook, needs_xvfb, python

TWO_THREADS = """
import select, signal
for _ in range(2500): time.monotonic_ns()
ready, go_on = threading.Event(), threading.Event()
def other():
    ready.set()
    go_on.wait(0.016)
threading.Thread(target=other).start()
ready.wait()
r, w = os.pipe()
select.select([r], [], [], 0.5)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 2)
signal.pause()
time.sleep(0.25)
"""


def kinds(lines) -> set[str]:
    """Lines of a trace without their numbers."""
    return {re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "N", line) for line in lines}


@needs_hook
def test_each_wait_and_each_jump_is_a_line(monkeypatch):
    lines = []
    monkeypatch.setattr(sim.Clock, "trace", lines.append)
    with launched(*python(TWO_THREADS)) as (clock, _):
        clock.step(5)
        assert clock.returncode == 0
    assert lines[:2] == [
        "thread 1 shares our page at 0x2f0000000000",
        f"thread 1 reads the time there: {lines[1].partition(': ')[2]}",
    ]
    assert set(lines[1].partition(": ")[2].split(", ")) == {"clock_gettime", "gettimeofday", "time"}
    spins = [line for line in lines if "spin" in line]
    assert spins[:2] == ["thread 1 spin until 0.001000", "thread 1 spin until 0.002000"]
    began = len(spins) / 1000  # s: each time it has spun, a millisecond has passed
    assert f"thread 2 futex until {began + 0.016:.6f}" in lines
    assert f"thread 1 clock_nanosleep until {began + 2.75:.6f}" in lines
    assert [line for line in lines if not line.startswith("thread")][len(spins) :] == [
        f"jump to {began + 0.016:.6f}",
        f"jump to {began + 0.5:.6f}",
        f"timer until {began + 2.5:.6f}",
        f"jump to {began + 2.5:.6f}",
        f"jump to {began + 2.75:.6f}",
    ]


@needs_xvfb
def test_the_documented_trace_shows_what_a_game_does(victim):
    """Each kind of line in docs/clock.md is one of a small game's too."""
    (block,) = re.findall(r"^```text\n(.*?)^```", (ROOT / "docs/clock.md").read_text(), re.M | re.S)
    documented = kinds(line for line in block.splitlines() if line != "...")
    done = subprocess.run(
        [sys.executable, "sim.py", "step", "--trace", "--fps", "120", "--", victim, "renderer"],
        cwd=ROOT,
        input="2\nquit\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    traced = re.findall(r"^(?:thread|jump|frame) .*$", done.stdout, re.M)
    assert {"jump to N", "frame N", "thread N SDL_RenderPresent until N"} <= documented
    assert documented <= kinds(traced)
    assert [line for line in traced if re.fullmatch(r"frame \d+", line)] == [
        "frame 1",
        "frame 2",
        "frame 3",
    ]
