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
from common.pictures import VIDEOS


def start_ray(address: str, workers: int, gpus: int):
    """The module ray, connected: to a fresh cluster of `workers` CPUs on this machine that only
    this machine reaches, or to a running one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    if address == "local":
        # read by the import: 127.0.0.1, as by default on Windows and macOS
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise SystemExit("--ray needs Ray: pip install ray") from None
    # a task holds one CPU; one bar is enough
    env = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    options = {"logging_level": "error", "log_to_driver": False, "runtime_env": {"env_vars": env}}
    try:
        if address == "local":
            env |= {
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
                "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            }
            ray.init("local", num_cpus=workers, include_dashboard=False, **options)
        else:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), 5).close()  # Ray would wait for minutes
            options["runtime_env"] |= {
                "working_dir": str(ROOT),
                "excludes": ["tests", *(f"*{suffix}" for suffix in VIDEOS)],
            }
            ray.init(address, **options)
    except (Exception, SystemExit) as e:
        raise SystemExit(
            f"--ray {address}: {str(e).partition(chr(10))[0]} (local, host:port or ray://host:port; "
            "where the cluster asks for a token: RAY_AUTH_MODE=token)"
        ) from None
    if gpus and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise SystemExit(f"--ray {address}: no GPU in this cluster; give --device cpu")
    return ray


def over_ray(ray, fn, items, gpus: int):
    """Yield (item, result, error) as they finish.  What fails, or whose worker dies, runs once
    more; at most two tasks a CPU are out.
    """
    from tqdm import tqdm

    call = fn if isinstance(fn, functools.partial) else functools.partial(fn)
    args, named = (
        [portable(v) for v in call.args],
        {k: portable(v) for k, v in call.keywords.items()},
    )
    task, work = (
        ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(ray_task),
        ray.put((*by_name(call.func), args, named)),
    )
    todo, out = [(item, 1) for item in reversed(items)], {}
    try:
        while todo or out:
            while todo and len(out) < 2 * max(1, ray.cluster_resources().get("CPU", 1)):
                item, more = todo.pop()
                out[task.remote(os.getcwd(), work, item)] = item, more
            done = ray.wait(list(out))[0][0]
            item, more = out.pop(done)
            try:
                result, error, said = ray.get(done)
            except ray.exceptions.RayError as e:  # the worker died
                result, error, said = None, e, ""
            tqdm.write(said, end="") if said else None
            if error and more:
                todo.insert(0, (item, more - 1))
            else:
                yield item, result, error
    finally:
        for run in out:
            ray.cancel(run)
        ray.shutdown()


def by_name(thing) -> tuple[str, str]:
    """(module, name) of a function or class; of what the running command defines, its file's name,
    which another process can import.
    """
    main = thing.__module__ == "__main__"
    return Path(sys.modules["__main__"].__file__).stem if main else thing.__module__, thing.__name__


def portable(value):
    """A Config as its class's name and its fields; anything else as it is."""
    return (
        {"class": by_name(type(value)), "fields": dataclasses.asdict(value)}
        if dataclasses.is_dataclass(value)
        else value
    )


def ray_task(folder: str, work: tuple, item) -> tuple:
    """In a Ray worker: (result, error, what was printed) of the named function on an item.

    By name and plain values: Ray's own way copies what the running command defines, and cannot
    where a function has a cache."""

    def unpack(v):
        return (
            getattr(importlib.import_module(v["class"][0]), v["class"][1])(**v["fields"])
            if isinstance(v, dict) and "class" in v
            else v
        )

    def call():
        os.chdir(folder)
        module, name, args, named = work
        return getattr(importlib.import_module(module), name)(
            *map(unpack, args), item, **{k: unpack(v) for k, v in named.items()}
        )

    with io.StringIO() as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        # a SystemExit as a value: Ray would take it for the worker's end
        return *attempt(call), said.getvalue()
