"""The house: seven stages, what they are made of, what they agree on; imports go down only, and in
no circle.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from common import ROOT

STAGES = ("extract", "parse", "filter", "model", "train", "sim", "eval")
# from the ground up
FLOORS = (
    {"common"},
    {"templates", "clock", "devices", "games"},
    set(STAGES),
    {"bench", "live", "interop"},
)


def files() -> dict[str, Path]:
    """Dotted name -> file, of all that is not a test; __init__.py has its folder's name."""
    found = [p for p in ROOT.glob("*.py")] + [
        p for room in ROOT.glob("*/__init__.py") for p in room.parent.glob("*.py")
    ]
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in found
    }


def imports(path: Path, names) -> set[str]:
    """Files of the project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & set(names) or {node.module}
    return found & set(names)


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name.partition(".")[0] in rooms)


def test_imports_go_down():
    """A stage may use another stage, a file its neighbours; nothing uses what stands above it."""
    known = files()
    for name, path in known.items():
        for other in imports(path, known):
            assert floor(other) <= floor(name), f"{name} imports {other}"


def test_imports_go_in_no_circle():
    known = files()
    TopologicalSorter(
        {name: imports(path, known) - {name} for name, path in known.items()}
    ).prepare()


def test_stages_do_without_the_simulator():
    """All but the one that plays in it."""
    known = files()
    assert {name for name in STAGES if "sim" in imports(known[name], known)} == {"eval"}


def test_the_simulator_starts_with_numpy_and_gymnasium_alone():
    """On a bare Windows Python, for example: all else is imported where it is used."""
    code = (
        "import sys\n"
        "for name in ('cv2', 'torch', 'PIL', 'tqdm', 'safetensors', 'einops'):\n"
        "    sys.modules[name] = None\n"
        "import sim\n"
        "print(sim.Clock, sim.GameEnv)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
