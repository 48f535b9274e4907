"""for_each(fn, items): one progress bar over worker processes, over a Ray cluster, or here.

A failed item is reported, a crashed worker replaced; Ctrl-C keeps finished work.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import signal
import sys
import threading

from common import attempt
from common.cluster import over_ray, start_ray


def for_each(
    fn, items, workers: int = 0, what: str = "videos", ray: str = "", gpus: int = 0, summary=None
) -> list:
    """[fn(item) for item in items] with one progress bar: over worker processes, over the Ray
    cluster at `ray`, or here (0 workers, or one item).

    A failure (also a crash of the worker) is reported and does not stop the rest; summary(results
    of the others) is called before SystemExit names all that failed.  `fn` must be picklable unless
    it runs here; equal items run once.  gpus: that a task on Ray holds.
    """
    from tqdm import tqdm

    items = list(dict.fromkeys(items))
    if not items:
        raise SystemExit(f"no {what} given (see --help)")
    if workers < 0:
        raise SystemExit(f"--workers {workers}: expected 0 or more")
    if ray:
        runs = over_ray(start_ray(ray, workers or 1, gpus), fn, items, gpus)
    elif workers and len(items) > 1:
        runs = over_processes(fn, items, workers)
    else:
        runs = ((item, *attempt(functools.partial(fn, item))) for item in items)
    results, failed = {}, {}
    with (
        contextlib.closing(runs),
        tqdm(total=len(items), desc=what, unit=what.rstrip("s"), disable=len(items) == 1) as bar,
    ):
        for item, result, error in runs:
            results[item] = result
            if error:
                failed[item] = (
                    str(error)
                    if isinstance(error, SystemExit)
                    else f"{item}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
                )
                tqdm.write(failed[item], file=sys.stderr) if len(items) > 1 else None
            bar.update()
    if len(items) == 1 and failed:
        raise SystemExit(next(iter(failed.values())))
    if summary:
        summary([results[i] for i in items if i not in failed])
    if failed:
        raise SystemExit(
            f"{len(failed)} of {len(items)} {what} failed:\n  " + "\n  ".join(failed.values())
        )
    return [results[i] for i in items]


def over_processes(fn, items, workers: int):
    """Yield (item, result, error) as they finish.  If a worker dies, what ran just then runs again,
    each item in a process of its own, and the rest goes on."""
    import multiprocessing

    pool_of = functools.partial(
        concurrent.futures.ProcessPoolExecutor,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin_worker,
    )
    call, todo = functools.partial(interruptible, fn), list(reversed(items))
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        while todo:
            running, alive = {}, True
            with pool_of(min(workers, len(todo))) as pool:
                try:
                    while alive and (todo or running):
                        while todo and len(running) < workers:
                            # a process that begins here begins with it held back
                            with sigint_held_back():
                                future = pool.submit(call, todo[-1])
                            running[future] = todo.pop()
                        for future in concurrent.futures.wait(
                            running, return_when=concurrent.futures.FIRST_COMPLETED
                        ).done:
                            if isinstance(future.exception(), concurrent.futures.BrokenExecutor):
                                alive = False
                            else:
                                yield running.pop(future), *attempt(future.result)
                except concurrent.futures.BrokenExecutor:  # it died before it was given more
                    pass
                finally:
                    pool.shutdown(cancel_futures=True)  # Ctrl-C: what has not begun does not begin
            for item in running.values():
                with pool_of(1) as pool:
                    with sigint_held_back():
                        future = pool.submit(call, item)
                    yield item, *attempt(future.result)
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if threads:
            os.environ["OMP_NUM_THREADS"] = threads


@contextlib.contextmanager
def sigint_held_back():
    """Ctrl-C reaches this thread at the end, and a process that is started here only if it lets it
    through (not on Windows).
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    # else it begins with the first process, and lets signals through again
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


interrupted = threading.Event()  # in a worker: Ctrl-C came while it had nothing to do


def begin_worker() -> None:
    """In a process that works for another (`over_processes`): a terminal sends Ctrl-C to it too,
    and between two items that must not end in a traceback.
    """
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    end_with_parent()  # its thread leaves Ctrl-C to this one, which still holds it back
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """In a process that multiprocessing began: it ends when the one that began it has, however
    (kill -9, no memory left).  Else a worker waits for more for ever: it holds the other end of its
    own queue."""
    import multiprocessing

    threading.Thread(
        target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True
    ).start()


def interruptible(fn, item):
    """fn(item) in such a process: Ctrl-C raises KeyboardInterrupt here and nowhere else, at once if
    it came before.
    """
    idle = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if interrupted.is_set():
            raise KeyboardInterrupt
        return fn(item)
    finally:
        signal.signal(signal.SIGINT, idle)
