"""The processes that train one network: torchrun may start several and set their environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from common import Fault, artefact
from common.device import pick_device

import torch
import torch.distributed as dist

PEER_LOST = re.compile("(closed|reset) by peer|remote process exited")


@dataclass(frozen=True)
class World:
    """This process among all that train one network; alone it is 0 of 1."""

    rank: int = 0
    size: int = 1
    local: int = 1  # processes on this machine
    device: torch.device = torch.device("cpu")

    def total(self, tensor):
        """Sum of a small tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any_process(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in some process."""
        if self.size == 1:
            return list(flags)
        set_in = self.total(torch.tensor(flags, dtype=torch.float32, device=self.device))
        return [n > 0 for n in set_in.tolist()]

    def synchronised_time(self) -> float:
        """The time in seconds, once the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.time()

    def print0(self, text: str) -> None:
        """Print in the first process only."""
        if self.rank == 0:
            print(text, flush=True)


@contextlib.contextmanager
def joined(device: str):
    """The World of this process, which has a GPU of its own under torchrun."""
    device = torch.device(pick_device(device))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # Those that decode frames beside the step need little of them.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))
    torch.set_float32_matmul_precision("high")  # where autocast leaves float32
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield World(local=local, device=device)
        return
    backend = "gloo"
    if device.type == "cuda":
        backend = "nccl"
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://"))
    store = of_this_start(store, rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, local, device)
    except RuntimeError as e:
        if not PEER_LOST.search(str(e)):
            raise
        raise Fault("another process of this run has ended; what it said tells why") from None
    finally:
        dist.destroy_process_group()


def of_this_start(store, rank: int, size: int):
    """The part of torchrun's store that belongs to this start of the processes.

    The store outlives restarts, and it still holds the addresses of killed processes. So every
    process leaves a nonce, and rank 0 lists the nonces that it finds, until all processes have
    confirmed the same list. TORCHELASTIC_RESTART_COUNT is no substitute: each machine counts its
    own failures.
    """
    mine = os.urandom(8).hex()
    agreed = ""
    store.set(f"nonce {rank}", mine)
    while not agreed or store.add(agreed, 0) < size:
        if rank == 0:
            store.set("nonces", " ".join(store.get(f"nonce {r}").decode() for r in range(size)))
        nonces = store.get("nonces").decode()
        start = hashlib.sha256(nonces.encode()).hexdigest()
        if mine in nonces and start != agreed:
            store.add(start, 1)
            agreed = start
        time.sleep(0.05)
    return dist.PrefixStore(agreed, store)


def spread(net, blocks, world: World, fsdp: bool):
    """The module to call for the loss: the network alone, or among several processes DDP around it.

    fsdp: FSDP2 instead, which shares out weights, gradients and optimizer, block by block.
    """
    if world.size == 1:
        return net
    if not fsdp:
        return torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def full_tensor(tensor):
    """A tensor whose parts FSDP2 shared out, in one piece; every process must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def copy_share(target, array) -> None:
    """Copy a NumPy array into a tensor, or of it this process's share under FSDP2."""
    source = torch.from_numpy(array).to(target.device)
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        source = distribute_tensor(source, target.device_mesh, target.placements)
    target.copy_(source)


# ---- signals and the run folder ------------------------------------------------------------------


@contextlib.contextmanager
def interrupts():
    """Yield a list to which Ctrl-C and SIGTERM append.

    So a step under way is finished before the run is saved. A handler that somebody else has set
    stays.
    """
    asked = []
    usual = {}  # signal -> its handler before
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler in (signal.default_int_handler, signal.SIG_DFL):
                usual[number] = handler
                signal.signal(number, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def lock(folder: Path, first: bool = True):
    """Only one run trains a folder at a time; half-written files of a killed run are removed.

    first: whether this is the first process, which holds the lock for all.
    """
    if not first:
        yield
        return
    path = artefact.in_folder(folder / ".lock")
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        yield
        return
    with open(path, "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(
                f"{folder}: another process is training this run; give another --out"
            ) from None
        # Decoding processes outlive a killed trainer by seconds; they must not hold its lock.
        os.register_at_fork(after_in_child=f.close)
        for part in folder.glob(".*.part"):
            part.unlink()
        try:
            yield
        finally:
            if list(folder.iterdir()) == [path]:  # a wrong flag leaves no folder behind
                path.unlink()
                folder.rmdir()
