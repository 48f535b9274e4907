"""for_each(fn, items): one progress bar over worker processes, over a Ray cluster, or here.

A failed item is reported, a crashed worker replaced; Ctrl-C keeps finished work.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading

from common import attempt
from common.cluster import over_ray, start_ray
from common.memory import lacking


def for_each(
    fn, items, workers: int = 0, what: str = "videos", ray: str = "", gpus: int = 0, summary=None
) -> list:
    """[fn(item) for item in items] with one progress bar: over worker processes, over the Ray
    cluster at `ray`, or here (0 workers, or one item).  Equal items run once.

    fn: picklable, unless it runs here    gpus: that a task on Ray holds
    summary: called with the results of the items that did not fail

    A failure, also a crash of the worker, is reported and does not stop the rest; at the end
    SystemExit names all that failed.
    """
    items = list(dict.fromkeys(items))
    if not items:
        raise SystemExit(f"no {what} given (see --help)")
    if workers < 0:
        raise SystemExit(f"--workers {workers}: expected 0 or more")
    runs = started(fn, items, workers, ray, gpus)
    results, failed = collect(runs, len(items), what)
    if failed and len(items) == 1:
        raise SystemExit(failed[items[0]])
    if summary:
        summary([results[item] for item in items if item in results])
    if failed:
        lines = "\n  ".join(failed.values())
        raise SystemExit(f"{len(failed)} of {len(items)} {what} failed:\n  {lines}")
    return [results[item] for item in items]


def started(fn, items, workers: int, ray: str, gpus: int):
    """A generator of (item, result, error), as items finish."""
    if ray:
        return over_ray(start_ray(ray, workers or 1, gpus), fn, items, gpus)
    if workers and len(items) > 1:
        return over_processes(fn, items, workers)
    return ((item, *attempt(functools.partial(fn, item))) for item in items)


def collect(runs, count: int, what: str) -> tuple[dict, dict]:
    """item -> result, and item -> one line for those that failed, from (item, result, error)."""
    from tqdm import tqdm

    results, failed = {}, {}
    bar = tqdm(total=count, desc=what, unit=what.rstrip("s"), disable=count == 1)
    with contextlib.closing(runs), bar:
        for item, result, error in runs:
            if not error:
                results[item] = result
            else:
                failed[item] = sentence(item, error)
                if count > 1:
                    tqdm.write(failed[item], file=sys.stderr)
            bar.update()
    return results, failed


def sentence(item, error) -> str:
    """One line about a failed item; SystemExit brings its own."""
    if isinstance(error, SystemExit):
        return str(error)
    text = str(error).partition("\n")[0]
    if isinstance(error, concurrent.futures.BrokenExecutor):
        text = "its process crashed, or memory ran out (then give fewer --workers)"
    return f"{item}: {lacking(error) or f'{type(error).__name__}: {text}'}"


def ahead(items):
    """The same items; a thread makes the next one meanwhile: decoding overlaps the network."""
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item


# ---- worker processes ----------------------------------------------------------------------------


def over_processes(fn, items, workers: int):
    """Yield (item, result, error) as they finish.

    If a worker dies, the items that ran just then are lost: each runs again in a process of its
    own.  The rest goes on in a new pool.
    """
    call = functools.partial(QuietWorker.run, fn)
    todo = list(reversed(items))
    with shared_out_threads(workers):
        while todo:
            with worker_pool(min(workers, len(todo))) as pool:
                lost = yield from run_until_crash(pool, call, todo, workers)
            for item in lost:
                with worker_pool(1) as pool:
                    yield item, *attempt(submit(pool, call, item).result)


def run_until_crash(pool, call, todo: list, workers: int):
    """Yield (item, result, error) of items taken from the end of `todo`; return those that were
    running when a worker died.
    """
    running = {}
    crashed = False
    with contextlib.suppress(concurrent.futures.BrokenExecutor):  # by submit: a worker died idle
        while not crashed and (todo or running):
            while todo and len(running) < workers:
                future = submit(pool, call, todo[-1])
                running[future] = todo.pop()
            finished, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in finished:
                if isinstance(future.exception(), concurrent.futures.BrokenExecutor):
                    crashed = True
                else:
                    yield running.pop(future), *attempt(future.result)
    return list(running.values())


def submit(pool, call, item):
    """The future of call(item).  A process that starts here starts with SIGINT held back."""
    with sigint_held_back():
        return pool.submit(call, item)


@contextlib.contextmanager
def worker_pool(workers: int):
    """Processes that handle Ctrl-C as in QuietWorker; at the end, what has not begun does not."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), QuietWorker.begin
    )
    try:
        yield pool
    except BaseException:  # Ctrl-C, here or in what takes the results
        print("\nstopping: what runs just now is broken off", file=sys.stderr, flush=True)
        QuietWorker.interrupt_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def shared_out_threads(workers: int):
    """Processes that start here share this machine's cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if before:
            os.environ["OMP_NUM_THREADS"] = before


# ---- Ctrl-C --------------------------------------------------------------------------------------


class QuietWorker:
    """A worker process under Ctrl-C, which a terminal sends to all processes of a command, and
    `kill` to the first alone: that one passes it on, and a worker may get it twice.

    while the worker    SIGINT                              so that
    starts              held back (sigint_held_back)        its imports leave no traceback
    has nothing to do   noted in `interrupted`              its next item does not begin
    works on an item    raises KeyboardInterrupt in it      the item ends, its part files go
    ends an item so     ignored                             that is not broken off
    """

    interrupted = False

    @classmethod
    def begin(cls) -> None:
        """The first call in a worker: it has nothing to do yet."""
        signal.signal(signal.SIGINT, cls.note)
        # before SIGINT is let through: this thread holds it back for good, so the main one gets it
        end_with_parent()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @classmethod
    def note(cls, *_) -> None:
        cls.interrupted = True

    @classmethod
    def end_item(cls, *_) -> None:
        if not cls.interrupted:
            cls.interrupted = True
            raise KeyboardInterrupt

    @staticmethod
    def interrupt_all() -> None:
        """Called in the process that began them (not on Windows)."""
        if hasattr(signal, "pthread_sigmask"):
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)

    @classmethod
    def run(cls, fn, item):
        """fn(item), or KeyboardInterrupt."""
        idle = signal.signal(signal.SIGINT, cls.end_item)
        try:
            if cls.interrupted:
                raise KeyboardInterrupt
            return fn(item)
        finally:
            signal.signal(signal.SIGINT, idle)


def end_with_parent() -> None:
    """End this process when the one that began it has ended, also by kill -9 or for want of memory.

    A worker holds the other end of its own queue, so it would wait for more for ever.
    """
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def sigint_held_back():
    """Hold Ctrl-C back from this thread until the end, and from a process that starts here until
    it unblocks it (not on Windows).
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # it would start with the first process and unblock signals
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
