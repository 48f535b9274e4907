"""clock/: the hook, to the nanosecond."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import ROOT

import pytest

import sim
from clock import kernel
from clock.base import NS, GameError, read_text
from programs import ASM, compiled, launched, needs_hook, python, said_lines, wait_until


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
    assert places["LIMIT"] == kernel.SPINS
    assert places["spins"] + 16 * 256 == kernel.SCRATCH_AT - kernel.STUB_AT


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
    assert found["spin_call"] == found["spin_timer"] == (0, 5 * ms)
    assert found["spin_rdtsc"] == (0, 5 * ms * tsc)
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
@pytest.mark.parametrize("link", [[], ["-static"]])
def test_one_thread_runs_at_a_time_in_a_fixed_order(tmp_path, link):
    """Who is new or woken begins when its waker waits; of several, the oldest thread is first."""
    with launched(compiled(tmp_path, "turns", *link)) as (clock, said):
        clock.step(0.001)
        assert clock.returncode == 0 and said() == 5 * "mmaabbcc" + "\n"
    with launched(compiled(tmp_path, "turns", *link), "loops", timeout=30) as (clock, said):
        clock.step(0.001)
        assert clock.returncode == 0 and said() == "loops\n"


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
def test_random_numbers_are_by_the_seed_from_wherever_they_come():
    """Of /dev/urandom, in a file of which there is enough, of C++'s random_device, and of Qt."""
    code = """
import ctypes
with open("/dev/urandom", "rb") as file:
    print(file.read(8).hex(), len(file.read(100000)))
print(os.read(os.open("/dev/random", os.O_RDONLY), 8).hex())
ask = ctypes.CDLL("libstdc++.so.6")._ZNSt13random_device9_M_getvalEv
print(*[ask(ctypes.create_string_buffer(8192)) for _ in range(4)], flush=True)
try:
    qt = ctypes.CDLL("libQt5Core.so.5")
except OSError:
    raise SystemExit
given = ctypes.create_string_buffer(32)
print(qt._Z10qRandomCpuPvx(given, 4), given.raw == bytes(32), flush=True)
"""
    found = []
    for seed in (5, 5, 6):
        with launched(*python(code), seed=seed, fps=60) as (clock, said):
            clock.step(1)
            found.append(said().split()[:7])
            assert said().split()[7:] in ([], ["0", "True"])  # without and with Qt
    assert found[0] == found[1] and found[0][1] == "100000"
    others = [one != other for one, other in zip(found[0], found[2], strict=True)]
    assert others == [True, False, *[True] * 5] and len(set(found[0])) == 7


@needs_hook
def test_the_scores_of_all_users_are_not_written_to(tmp_path):
    code = """
for path in sys.argv[1:]:
    for how in ("r", "r+", "w", "a"):
        try:
            open(path, how)
        except OSError as e:
            print(type(e).__name__, flush=True)
"""
    paths = "/var/games/no-such-game/scores", "/var/lib/games/no-such-game/scores"
    for users, writes in (("/etc/passwd", "PermissionError"), ("", "FileNotFoundError")):
        with launched(*python(code), *paths, fps=60, users=users) as (clock, said):
            clock.step(1)
            assert said_lines(said) == ["FileNotFoundError", *[writes] * 3] * 2


@needs_hook
def test_who_looks_for_a_debugger_finds_none():
    code = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def look(path, of):
    lines = dict(line.split(":", 1) for line in open(path).read().splitlines())
    assert (lines["TracerPid"].strip(), lines["Pid"].strip()) == ("0", str(of)), (path, lines)
    assert int(lines["VmRSS"].split()[0]) > 1000, lines
    assert "tracing" not in lines["State"], lines
def look_everywhere():
    me, tid = os.getpid(), threading.get_native_id()
    own = f"/proc/self/task/{tid}/status", f"/proc/{me}/task/{tid}/status"
    for path in ("/proc/thread-self/status", *own):
        look(path, tid)
    for path in ("/proc/self/status", f"/proc/{me}/status"):
        look(path, me)
    file = libc.syscall(2, b"/proc/self/status", 0)  # open, not openat
    assert b"TracerPid:\\t0\\n" in os.read(file, 4096)
    look(f"/proc/{os.getppid()}/status", os.getppid()) if me != first else None
    assert open("/proc/self/comm").read() and open("/proc/1/status").read()
    traced = [libc.ptrace(0, 0, None, None) for _ in range(2)]
    assert traced == [0, -1] and ctypes.get_errno() == errno.EPERM, traced
    print("none")
first = os.getpid()
files = len(os.listdir("/proc/self/fd"))
look_everywhere()
assert len(os.listdir("/proc/self/fd")) == files + 1
thread = threading.Thread(target=look_everywhere)
thread.start()
thread.join()
sys.stdout.flush()
if not os.fork():
    look_everywhere()
else:
    os.wait()
"""
    with launched(*python(code), stderr=subprocess.STDOUT) as (clock, said):
        clock.step(1)
        assert said_lines(said) == ["none"] * 3 and clock.returncode == 0, said()


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
