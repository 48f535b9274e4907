"""What all stages agree on.  Every stage imports it before numpy, OpenCV and torch, since it sets
what these read when they are loaded.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("torch", "numpy", "av", "cv2", "PIL", "gymnasium", "safetensors", "einops", "tqdm"),
    "matplotlib",
)


class Fault(RuntimeError):
    """What is wrong and the fix, in one line: a command prints it and stops."""


def attempt(call) -> tuple:
    """(result, None), or (None, what was raised)."""
    try:
        return call(), None
    except (Exception, SystemExit) as e:
        return None, e


def one_line(kind, error, trace) -> None:
    """Report Ctrl-C during the seconds of a stage's imports, or a missing package, in one line."""
    if kind is KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    elif kind is ModuleNotFoundError and error.name in PACKAGES:
        print(
            f"{error.name} is not installed here: pip install -r {ROOT / 'requirements.txt'}, "
            "or activate the environment that has it",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


# a stage is started as a script: its file lies in the project's folder
if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == ROOT:
    sys.excepthook = one_line

# Threads that spin while they wait take the core from those they wait for: twenty times slower on
# two shared cores.  For a tenth of a millisecond they may: to be woken takes as long.  Read once,
# when torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# Read once, when cv2 is loaded.  A picture's header may ask for any memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))
# An unreadable video is reported in a line of ours.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
