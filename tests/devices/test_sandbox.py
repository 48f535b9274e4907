"""devices/sandbox.py: room in memory and on the disk, and what a game sees of ours."""

import contextlib
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

from common import ROOT

import pytest

import sim
from bench import doctor
from clock.base import GameError
from commands import with_shared_memory
from devices import sandbox
from programs import needs_xvfb


@needs_xvfb
def test_a_small_dev_shm_is_made_do_with(tmp_path):
    """Of 12 MB in a container: there is room for one X server of 5 MB with a reserve, the others
    have theirs on the disk.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from devices.sandbox import Sandbox\n"
        "boxes = [Sandbox('1280x960') for _ in range(3)]\n"
        "print(*[box.memory for box in boxes], *[box.path for box in boxes])\n"
        "print(*[box.display.windows() for box in boxes])\n"
        "[box.remove() for box in boxes]\n"
    )
    done = subprocess.run(
        [*with_shared_memory("12m"), sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folders, windows = done.stdout.splitlines()
    memory, paths = folders.split()[:3], folders.split()[3:]
    assert [str(Path(folder).parent) for folder in memory] == ["/dev/shm", *[str(tmp_path)] * 2]
    assert memory[1:] == paths[1:] and {Path(path).parent for path in paths} == {tmp_path}
    assert windows == "[] [] []" and not list(tmp_path.glob("nitro-*"))


@needs_xvfb
def test_both_folders_go_and_what_a_game_writes_is_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "DISK", tmp_path / "disk")
    monkeypatch.setattr(sandbox, "MEMORY", tmp_path / "memory")
    for folder in ("disk", "memory"):
        (tmp_path / folder).mkdir()
    with contextlib.closing(sim.GameEnv([sys.executable, "-c", "0"], timeout=20)) as env:
        box = env.enclose("640x480")
        seen = box.environment({})
        assert box.path.parent == tmp_path / "disk" and box.memory.parent == tmp_path / "memory"
        assert seen["HOME"] == seen["TMPDIR"] == str(box.path / "home")
        assert (box.memory / "Xvfb_screen0").exists() and not (box.path / "Xvfb_screen0").exists()
    assert not [*tmp_path.glob("*/*")]


def test_where_there_is_no_room_that_is_said(tmp_path, monkeypatch):
    assert doctor.room()[1] == (sandbox.lack_of_room(sandbox.MEMORY, 32e6) == "")
    monkeypatch.setattr(doctor, "MEMORY", tmp_path / "none")
    assert doctor.room()[1] is False and "--shm-size 1g" in doctor.room()[3]
    assert sandbox.lack_of_room(tmp_path, 1000) == ""
    assert " MB left, 1000000000000.0 MB are needed" in sandbox.lack_of_room(tmp_path, 10**18)
    said = sandbox.lack_of_room(tmp_path / "none", 1)
    assert said == f"; {tmp_path}/none: No such file or directory"


def test_games_are_found_where_debian_has_them(tmp_path, monkeypatch):
    """In /usr/games, which is not on the PATH of root; what is on the PATH goes first."""
    for name, status in (("first", 3), ("games", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a-game").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name / "a-game").chmod(0o755)
    assert sandbox.GAMES.endswith("/usr/games")
    monkeypatch.setattr(sandbox, "GAMES", str(tmp_path / "games"))
    assert sim.launch(sim.Run(command=("a-game",))).command == ["a-game"]
    with pytest.raises(GameError, match="a-game ended with status 4 before its first frame"):
        sim.GameEnv(["a-game"], timeout=20).reset()
    monkeypatch.setenv("PATH", f"{tmp_path}/first:{os.environ['PATH']}")
    with pytest.raises(GameError, match="a-game ended with status 3 before its first frame"):
        sim.GameEnv(["a-game"], timeout=20).reset()
    with pytest.raises(GameError, match="no-game: no such program"):
        sim.GameEnv(["no-game"]).reset()
    with pytest.raises(GameError, match="no-game: no such program"):
        sim.launch(sim.Run(command=("no-game",)))


HOME = "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_dir, end='')"


@needs_xvfb
def test_who_asks_the_system_for_the_home_gets_the_private_one_too(victim, tmp_path, leftovers):
    """getpwuid, in a program that the game starts, in two episodes; the real list stays."""
    real = pwd.getpwuid(os.getuid()).pw_dir
    ask = shlex.join([sys.executable, "-c", HOME])
    command = ["sh", "-c", f'{ask} > "$HOME/asked"; exec {victim} renderer']
    with contextlib.closing(sim.GameEnv(command, fps=60)) as env:
        for _ in range(2):
            env.reset()
            home = env.sandbox.path / "home"
            assert (home / "asked").read_text() == str(home) != real
        table = env.sandbox.short
        assert len(str(table)) == len("/etc/passwd") and table.exists()
    assert not table.exists() and not leftovers()
    assert pwd.getpwuid(os.getuid()).pw_dir == real


def test_a_list_of_users_with_another_home():
    me, others = os.getuid(), "a:x:99991:1::/home/a:/bin/sh\nb:x:99992:1:B:/home/b:/bin/sh\n"
    mine = f"me:x:{me}:1:Me:/home/me:/bin/sh\n"
    changed = mine.replace("/home/me", "/private")
    assert sandbox.with_home(others + mine + "broken", "/private") == others + changed + "broken\n"
    added = sandbox.with_home(others, "/private")
    assert added == f"{others}player:x:{me}:{os.getgid()}::/private:/bin/sh\n"
