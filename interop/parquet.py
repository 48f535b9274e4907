"""Parquet files, read in a process of their own, since pyarrow ends its program on some broken
ones.  It is an optional extra: pip install pyarrow.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import functools
import importlib.util
import multiprocessing

from common.workers import QuietWorker, sigint_held_back


@functools.cache
def parquet_reader():
    """That process."""
    atexit.register(parquet_reader.cache_clear)  # not later, when half of Python is gone
    return concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), QuietWorker.begin
    )


def need_pyarrow(what: str) -> None:
    """SystemExit with the install, where it is missing; `what` is in parquet files."""
    if not importlib.util.find_spec("pyarrow"):
        raise SystemExit(f"{what} is in parquet files: pip install pyarrow")


def in_reader(read, *args):
    """read(*args) in the reader's process; ValueError in words if that is the end of it.

    A process of for_each reads by itself: it is replaced, too, and could not end before a reader.
    """
    if multiprocessing.parent_process():
        return read(*args)
    try:
        with sigint_held_back():  # also while it begins, Ctrl-C is not its business
            future = parquet_reader().submit(read, *args)
        return future.result()
    except concurrent.futures.BrokenExecutor:
        parquet_reader.cache_clear()  # the next file gets a new one
        raise ValueError("so broken that it ended the process that read it") from None


def in_words(error: Exception) -> str:
    """What a broken file makes of the library, in one line."""
    return str(error).partition("\n")[0][:120] or type(error).__name__


def largest_part(metadata, names=()) -> int:
    """Bytes, or values, of the largest part of a column: of all, or of those with these names."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    parts = [group.column(k) for group in groups for k in range(metadata.num_columns)]
    sizes = [0]
    for part in parts:
        # a column of lists is named "action.list.element"
        if not names or part.path_in_schema.startswith(tuple(names)):
            sizes.append(max(part.total_uncompressed_size, part.num_values))
    return max(sizes)
