"""common/loading.py: whatever ends a decoding process is one line, and none of them stays."""

import multiprocessing
import os
import re
import signal
import sys

from common import Fault
from common.loading import loaded, start_decoding
from common.memory import lacking
from common.training import batches

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

ENDS = {
    "KeyError": r"a decoding process failed: KeyError: 'frame' \(test_loading.py, line \d+\)",
    "MemoryError": r"out of memory: give fewer --workers",
    "shared": r"/dev/shm \(.* MB\) is too small",
    "exit": "a decoding process has ended by itself",
    "SIGKILL": r"a decoding process was ended from outside \(Killed\)",
    "SIGBUS": r"could not read its data \(Bus error\)|/dev/shm \(.* MB\) is too small",
}


class Frames:
    """Sixteen items; the tenth ends its process."""

    def __init__(self, end: str = ""):
        self.end = end

    def __len__(self):
        return 16

    def __getitem__(self, i):
        if i == 9 and self.end:
            end(self.end)
        return torch.full((4,), i)


def end(how):
    if how == "KeyError":
        raise KeyError("frame")
    if how == "MemoryError":
        raise MemoryError
    if how == "shared":  # as torch says it
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: no space")
    if how == "exit":
        sys.exit(3)
    os.kill(os.getpid(), signal.Signals[how])


def line(call) -> str:
    """With which a command would end."""
    with pytest.raises((Fault, RuntimeError, MemoryError)) as e:
        call()
    return str(e.value) if e.type is Fault else lacking(e.value)


@pytest.fixture
def none_left():
    """At the end no process is there that was not there before."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("how", ENDS)
def test_an_end_of_a_decoding_process_is_one_line(how, none_left):
    """Also of one that ignores SIGTERM, by which Python ends it."""
    loader = DataLoader(
        Frames(how),
        4,
        num_workers=2,
        multiprocessing_context="fork",
        worker_init_fn=start_decoding,
    )
    said = line(lambda: list(loaded(loader)))
    assert re.search(ENDS[how], said) and "\n" not in said, said


@pytest.mark.slow
def test_items_of_a_training_too(none_left):
    assert torch.cat(list(batches(Frames(), 0, 16, 4, workers=1)))[:, 0].tolist() == list(range(16))
    assert "KeyError: 'frame' (test_loading.py" in line(
        lambda: list(batches(Frames("KeyError"), 0, 16, 4, workers=1))
    )
    first = batches(Frames(), 0, 16, 4, workers=1)
    assert next(first)[3, 0] == 3
    first.close()  # as a training does that has enough


def test_in_this_process_an_exception_stays_what_it_is():
    with pytest.raises(KeyError):
        list(batches(Frames("KeyError"), 0, 16, 4))


@pytest.mark.parametrize(
    "ask, amount",
    [(lambda: torch.empty(1 << 50), "4,503,599.6 GB"), (lambda: np.empty(1 << 56), "512. PiB")],
    ids=["torch", "numpy"],
)
def test_what_was_asked_for_is_said(ask, amount):
    with pytest.raises((RuntimeError, MemoryError)) as e:
        ask()
    said = lacking(e.value, "a smaller --batch")
    assert said == f"out of memory ({amount} more were wanted): give a smaller --batch"


def test_other_faults_are_not_taken_for_it():
    assert lacking(OSError(28, "No space left on device", "data/x.safetensors")) == ""
    assert lacking(RuntimeError("shapes do not match")) == ""
