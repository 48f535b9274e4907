"""Chunks on their way to the network: in which order, decoded ahead by other processes."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.connection
import re
import signal
import threading
from pathlib import Path

from common import Fault
from common.memory import ENDED, killed, lacking
from common.shards import Shards, decode
from common.workers import sigint_held_back

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling


def shuffled(i: np.ndarray, n: int, key: tuple) -> np.ndarray:
    """Where a permutation of range(n), chosen by the key, takes the numbers i.

    It is a Feistel network on 2h bits, repeated until the result is below n. A table would not do:
    every process would have to hold the billions of chunks of the published data.
    """
    h = max(1, ((n - 1).bit_length() + 1) // 2)
    low_bits = np.uint64((1 << h) - 1)
    round_keys = np.random.default_rng(key).integers(0, 2**63, 8, dtype=np.uint64)
    x = i.astype(np.uint64)
    outside = np.ones(len(i), bool)
    while outside.any():
        left, right = x[outside] >> np.uint64(h), x[outside] & low_bits
        for k in round_keys:
            mixed = (right + k) * np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
            left, right = right, left ^ (mixed >> np.uint64(32)) & low_bits
        x[outside] = left << np.uint64(h) | right
        outside = x >= n
    return x.astype(np.int64)


def by_epoch(position: np.ndarray, n: int, seed: int, *key) -> np.ndarray:
    """Where these places of an endless list take us: permutation after permutation of range(n)."""
    epoch = position // n
    out = np.empty(len(position), np.int64)
    for e in np.unique(epoch):
        mine = epoch == e
        out[mine] = shuffled(position[mine] % n, n, (seed, e, *key))
    return out


def in_turn(position: np.ndarray, sizes: list, slots: list, seed: int) -> np.ndarray:
    """Chunk numbers int64 at these places of a training's order; the place and the seed decide.

    sizes: chunks in each folder.  slots: of as many chunks as there are, how many come from each.
    An epoch is a permutation of these slots.  A folder's slots go through its chunks in
    permutations of their own: after every epoch all of them have come equally often, or once less.
    """
    n = sum(sizes)
    slot = by_epoch(position, n, seed)
    if slots == sizes:
        return slot
    out = np.empty(len(position), np.int64)
    first_slot, first_chunk = (np.cumsum([0, *counts]) for counts in (slots, sizes))
    for f, size in enumerate(sizes):
        mine = (first_slot[f] <= slot) & (slot < first_slot[f + 1])
        turn = position[mine] // n * slots[f] + slot[mine] - first_slot[f]
        out[mine] = first_chunk[f] + by_epoch(turn, size, seed, f + 1)
    return out


class Chunks:
    """The shards as torch's DataLoader asks for them.

    Item i: image uint8 [side, side, 3], or [frames, side, side, 3] if several are seen, buttons
    [K, 16], sticks [K, 4], shown [20]; or a message, if a frame cannot be decoded.
    """

    def __init__(self, shards: Shards, side: int):
        self.shards = shards
        self.side = side

    def __getitem__(self, i):
        try:
            jpeg, buttons, sticks, shown, _ = self.shards[i]
            several = isinstance(jpeg, list)
            pictures = [decode(np.asarray(one), self.side) for one in (jpeg if several else [jpeg])]
            return np.stack(pictures) if several else pictures[0], buttons, sticks, shown
        except (SystemExit, OSError) as e:  # only here it is known which frame that was
            return f"{place(self.shards, [i])}: {e}"


def place(shards: Shards, chunks) -> str:
    """The files that hold these chunk numbers, and the rows in them, for a message."""
    found = {}
    for i in chunks:
        p = int(np.searchsorted(shards.ends, i, "right")) - 1
        part = shards.parts[p]
        row = int(part["start"][i - shards.ends[p]])
        found.setdefault(Path(part["jpeg"].filename).name, []).append(row)
    return "; ".join(f"{name} rows {', '.join(map(str, sorted(r)))}" for name, r in found.items())


def decoded_ahead(chunks: Chunks, numbers, collate, workers: int, device: torch.device):
    """Yield collate(items) on a device, per list of chunk numbers.

    Other processes decode ahead of the network. Threads would hold the interpreter's lock: beside
    four threads that decode 5,500 frames/s on two cores, the main thread could launch 50,000
    operations a second; beside four such processes 106,000.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    loader = DataLoader(
        chunks,
        batch_sampler=numbers,
        collate_fn=collate,
        num_workers=workers if can_fork else 0,
        multiprocessing_context="fork" if can_fork else None,  # a fork shares the mapped shards
        worker_init_fn=start_decoding,
        pin_memory=device.type == "cuda",
    )
    with contextlib.closing(loaded(loader)) as batches:
        for batch in batches:
            yield on_device(batch, device)


def loaded(loader):
    """The batches of a DataLoader.  Its processes end with this generator, however it ends.

    Python would end them by SIGTERM, which they may ignore, and wait for ever.  An exception in one
    of them is a Fault of one line here, unless memory was too small, see common/memory.py.

    torch would raise from a handler of SIGCHLD too, that is anywhere, also where this thread has
    just taken the lock of a queue: the next to want it would wait for ever.  Without the handler
    torch asks every five seconds whether all processes are alive.
    """
    signal_handling._SIGCHLD_handler_set = True  # so torch sets none
    others = set(multiprocessing.active_children())
    ours = set()
    batches = None

    def stop():
        if ours and batches is not None:
            # it waits for a lock, which a process may hold that was killed
            shutdown = threading.Thread(target=batches._shutdown_workers, daemon=True)
            shutdown.start()
            shutdown.join(10)
        for process in ours:
            process.kill()
        for process in ours:
            process.join(10)

    atexit.register(stop)  # a traceback may keep this generator
    try:
        with sigint_held_back():  # they leave Ctrl-C to us
            try:
                batches = iter(loader)
            finally:
                ours |= set(multiprocessing.active_children()) - others
        yield from batches
    except Exception as e:
        theirs = "Original Traceback" in str(e)
        if not theirs and isinstance(e, (EOFError, OSError)):  # one that sends us a batch is dying
            closed = multiprocessing.connection.wait([p.sentinel for p in ours], 5)
            for process in ours:
                if process.sentinel in closed:  # its status comes a little later
                    process.join(5)
        if not theirs and (gone := ended(ours)):
            raise Fault(gone) from None
        if lacking(e) or not theirs:
            raise
        raise Fault(in_process(e)) from None
    finally:
        stop()
        atexit.unregister(stop)


def ended(processes) -> str:
    """One line about a process that has ended before its time; "" if none has."""
    status = next((p.exitcode for p in processes if p.exitcode), 0)
    if status < 0:
        return killed(signal.strsignal(-status))
    return ENDED if status else ""


def in_process(error: Exception) -> str:
    """One line about an exception in a DataLoader's process: torch gives its traceback as text."""
    text = str(error).strip()
    places = re.findall(r'File "(.+?)", line (\d+)', text)
    where = f" ({Path(places[-1][0]).name}, line {places[-1][1]})" if places else ""
    return f"a decoding process failed: {text.splitlines()[-1]}{where}"


def on_device(batch, device) -> list:
    """The tensors on a device; SystemExit if the batch is a message."""
    if isinstance(batch, str):
        raise SystemExit(batch)
    return [t.to(device, non_blocking=True) for t in batch]


def start_decoding(_) -> None:
    """Start a decoding process: it leaves signals to the trainer and uses one thread."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
