"""Commands as users give them, and the one line with which they give up."""

import shutil
import subprocess
import sys

from common import ROOT, artefact

import numpy as np
import pytest


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


def run(*args, cwd):
    """extract.py on these arguments, in a folder."""
    return subprocess.run(
        [sys.executable, str(ROOT / "extract.py"), *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def command(*args, status=0, **options):
    """Run one of the stages as a user does; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, **options
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def with_shared_memory(size: str) -> list[str]:
    """Words before a command, so that it has a /dev/shm of that size, as in a container."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"]).returncode:
        pytest.skip("mounts nothing here (root may)")
    return words
