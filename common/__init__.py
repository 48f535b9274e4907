"""What all stages agree on.  Every stage imports it before numpy, OpenCV and torch, since it sets
what these read when they are loaded.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numpy", "cv2", "PIL", "gymnasium", "safetensors", "einops", "tqdm")


class Fault(RuntimeError):
    """What is wrong and the fix, in one line: a command prints it and stops."""


def ended_by(kind, e, trace) -> None:
    """What a stage says of Ctrl-C during the seconds of its imports, and of a package that is
    missing.
    """
    if kind is KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    elif kind is ModuleNotFoundError and e.name in PACKAGES:
        print(
            f"{e.name} is not installed here: pip install -r {ROOT / 'requirements.txt'}, or activate the environment that has it",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, e, trace)


def attempt(call) -> tuple:
    """(result, None), or (None, what was raised)."""
    try:
        return call(), None
    except (Exception, SystemExit) as e:
        return None, e


# a stage starts
if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve().parent == ROOT:
    sys.excepthook = ended_by

# Threads that spin while they wait take the core from those they wait for: on two shared cores,
# twenty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch loads OpenMP
# once, when cv2 is loaded: a picture's header may ask for any memory
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))
