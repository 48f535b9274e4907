"""Which files a user means: a file, a folder, a pattern or a list."""

from __future__ import annotations

import glob
import os
from pathlib import Path

# what counts as a video in a folder
VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".flv", ".ts")


def expand(paths) -> tuple[str, ...]:
    """Videos as a user gives them -> files.

    A file stays.  A folder becomes the videos in it, sorted, without the previews of parse.py.  A
    pattern becomes what it matches, @list.txt the lines of that file.  A file that does not exist
    stays too: for_each names it.

    Outputs are named after the video, so two videos of one name are refused.
    """
    files, named = [], {}
    for path in map(str, paths):
        found = files_of(path)
        if not found:
            raise SystemExit(
                f"{path}: no videos there (a file, a folder, a pattern in quotes or @list.txt; "
                f"in folders: {' '.join(VIDEOS)})"
            )
        files += found
    for file in files:
        other = named.setdefault(Path(file).stem, file)
        if os.path.realpath(other) != os.path.realpath(file):
            raise SystemExit(
                f"{other} and {file}: one name, so their outputs would overwrite each other; "
                "rename one, or give them separate --out"
            )
    return tuple(files)


def files_of(path: str) -> list[str]:
    """The files that one file, folder, pattern or @list.txt stands for."""
    if os.path.isdir(path):
        return sorted(str(file) for file in Path(path).iterdir() if is_video(file))
    if os.path.exists(path):
        return [path]
    if path.startswith("@"):
        return listed(path)
    if glob.has_magic(path):
        return sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
    return [path]


def is_video(file: Path) -> bool:
    """A video that is not hidden and no preview of parse.py."""
    hidden = file.name.startswith(".") or file.name.endswith(".preview.mp4")
    return file.suffix.lower() in VIDEOS and not hidden and file.is_file()


def listed(path: str) -> list[str]:
    """The lines of @list.txt that are neither empty nor comments."""
    try:
        lines = [line.strip() for line in Path(path[1:]).read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise SystemExit(f"{path}: not a readable list of videos ({e})") from None
    return [line for line in lines if line and not line.startswith("#")]
