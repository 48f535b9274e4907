"""Windows games on Linux: what their set-up has to know of Wine."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from pathlib import Path

from clock.base import GameError


def runs_wine(command) -> bool:
    """Whether the game is a Windows program."""
    # a part may be a line for the shell
    words = (Path(word).name for part in command for word in part.split())
    wine = re.compile(r"wine(64)?(-stable|-staging|-devel(opment)?)?|proton")
    return any(wine.fullmatch(word) for word in words)


def check_prefix(prefix: Path) -> None:
    """Wine's server must be started by the game, to be under its clock, and the prefix be there: it
    takes minutes to make under the hook.
    """
    if not (prefix / "system.reg").exists():
        raise GameError(
            f"wine: {prefix} is no prefix of Wine: make one (WINEPREFIX=$HOME/.wine wineboot -i) "
            "and give it, in WINEPREFIX"
        )
    folder = f"server-{prefix.stat().st_dev:x}-{prefix.stat().st_ino:x}"  # where its server runs
    for process in glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(process)) == folder:
                raise GameError(
                    f"wine: other programs run in {prefix}, and its server has their time: "
                    f"WINEPREFIX={prefix} wineserver -k"
                )
