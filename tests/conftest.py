import contextlib
import sys
from pathlib import Path

# before torch: it sets how OpenMP threads wait
from common import ROOT

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--soak", type=float, default=1.0, help="minutes of the soak test (with -m slow)"
    )
    parser.addoption(
        "--episodes", type=int, default=50, help="of each expert in each task (with -m slow)"
    )
    parser.addoption(
        "--replay",
        type=float,
        default=60,
        help="seconds of play that are replayed, in each game (with -m slow)",
    )


# what the tests of devices/ and sim.py share; the simulator is loaded for those that ask


@pytest.fixture
def pad_game(tmp_path):
    from programs import PAD_GAME

    (tmp_path / "pad.py").write_text(PAD_GAME.format(games=str(ROOT / "games")))
    return [sys.executable, str(tmp_path / "pad.py"), "--fps", "{fps}"]


@pytest.fixture
def leftovers(tmp_path, monkeypatch):
    """A function: the private folders, and the processes that live in one."""
    from devices import sandbox

    monkeypatch.setattr(sandbox, "MEMORY", tmp_path)
    monkeypatch.setattr(sandbox, "DISK", tmp_path)

    def processes():
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"NITROGEN_CONSOLE={tmp_path}".encode() in (path / "environ").read_bytes():
                    yield path

    return lambda: [*tmp_path.glob("nitro-*"), *processes()]


@pytest.fixture
def victim(tmp_path):
    from programs import compiled

    return compiled(tmp_path, "game", "-l:libSDL2-2.0.so.0")
