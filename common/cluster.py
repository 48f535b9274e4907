"""for_each over a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import os
import socket
import sys
from pathlib import Path

from common import ROOT, attempt
from common.inputs import VIDEOS


def start_ray(address: str, workers: int, gpus: int):
    """The module ray, connected to a fresh cluster of `workers` CPUs on this machine that only this
    machine reaches ("local"), or to a running one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    if address == "local":
        # read by the import: 127.0.0.1, as by default on Windows and macOS
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise SystemExit("--ray needs Ray: pip install ray") from None
    try:
        connect(ray, address, workers)
    except (Exception, SystemExit) as e:
        raise SystemExit(
            f"--ray {address}: {str(e).partition(chr(10))[0]} (local, host:port or "
            "ray://host:port; where the cluster asks for a token: RAY_AUTH_MODE=token)"
        ) from None
    if gpus and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise SystemExit(f"--ray {address}: no GPU in this cluster; give --device cpu")
    return ray


def connect(ray, address: str, workers: int) -> None:
    """A task has one CPU, so one thread, and no progress bar of its own."""
    env = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    runtime = {"env_vars": env}
    options = {"logging_level": "error", "log_to_driver": False, "runtime_env": runtime}
    if address == "local":
        env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
        ray.init("local", num_cpus=workers, include_dashboard=False, **options)
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), 5).close()  # Ray would wait for minutes
    runtime["working_dir"] = str(ROOT)
    runtime["excludes"] = ["tests", *(f"*{suffix}" for suffix in VIDEOS)]
    ray.init(address, **options)


def over_ray(ray, fn, items, gpus: int):
    """Yield (item, result, error) as they finish.

    An item that fails, or whose worker dies, runs once more.  At most two tasks a CPU are out.
    """
    from tqdm import tqdm

    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(ray_task)
    work = ray.put(by_value(fn))
    todo = [(item, 1) for item in reversed(items)]  # item, how many more times it may run
    running = {}
    try:
        while todo or running:
            while todo and len(running) < 2 * max(1, ray.cluster_resources().get("CPU", 1)):
                item, retries = todo.pop()
                running[task.remote(os.getcwd(), work, item)] = item, retries
            done = ray.wait(list(running))[0][0]
            item, retries = running.pop(done)
            result, error, said = outcome(ray, done)
            if said:
                tqdm.write(said, end="")
            if error and retries:
                todo.insert(0, (item, retries - 1))
            else:
                yield item, result, error
    finally:
        for run in running:
            ray.cancel(run)
        ray.shutdown()


def outcome(ray, run) -> tuple:
    """(result, error, what was printed) of a task that has ended."""
    try:
        return ray.get(run)
    except ray.exceptions.RayError as e:  # its worker died
        return None, e, ""


# ---- a call in names and plain values ------------------------------------------------------------
# Ray's own way copies what the running command defines, and cannot where a function has a cache.


def by_value(fn) -> tuple:
    """(module, name, args, keywords) of a function or a functools.partial."""
    call = functools.partial(fn) if not isinstance(fn, functools.partial) else fn
    args = [portable(value) for value in call.args]
    keywords = {name: portable(value) for name, value in call.keywords.items()}
    return *by_name(call.func), args, keywords


def by_name(thing) -> tuple[str, str]:
    """(module, name) of a function or class.

    What the running command defines is found under its file's name, which another process can
    import.
    """
    module = thing.__module__
    if module == "__main__":
        module = Path(sys.modules["__main__"].__file__).stem
    return module, thing.__name__


def portable(value):
    """A Config as its class's name and its fields; anything else as it is."""
    if not dataclasses.is_dataclass(value):
        return value
    return {"class": by_name(type(value)), "fields": dataclasses.asdict(value)}


def restored(value):
    """What `portable` was given."""
    if not isinstance(value, dict) or "class" not in value:
        return value
    return named(*value["class"])(**value["fields"])


def named(module: str, name: str):
    return getattr(importlib.import_module(module), name)


def ray_task(folder: str, work: tuple, item) -> tuple:
    """In a Ray worker: (result, error, what was printed) of a call from `by_value` on an item.

    A SystemExit is returned as a value: Ray would take it for the worker's end.
    """

    def call():
        os.chdir(folder)
        module, name, args, keywords = work
        given = {key: restored(value) for key, value in keywords.items()}
        return named(module, name)(*map(restored, args), item, **given)

    with io.StringIO() as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return *attempt(call), said.getvalue()
