"""What the program puts out, compared with what it put out when tests/golden was written.

python -m pytest tests/test_golden.py             help texts, frames of three built-in games
python -m pytest tests/test_golden.py -m slow     SuperTux, six videos read, a tiny training
python tests/test_golden.py --record              write tests/golden anew
python tests/test_golden.py --exact DIR           write what this machine puts out, to the bit;
NITROGEN_GOLDEN_EXACT=DIR python -m pytest ...    compare with that (1: data/golden_exact)
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402  this file is a script, too
from clock.base import read_text  # noqa: E402

EXACT = os.environ.get("NITROGEN_GOLDEN_EXACT")
TOLERANT = ROOT / "tests/golden"
GOLDEN = TOLERANT if not EXACT else ROOT / "data/golden_exact" if EXACT == "1" else Path(EXACT)
SCRIPTS = "sim", "extract", "parse", "filter", "model", "train", "eval"
ASK = str(TOLERANT / "ask.py")
CORES = 97  # what the scripts are told about this machine
BUILT_IN = "ridge", "crypt", "rally"
FRAMES = 120  # of each game
LEVEL = "/usr/share/games/supertux2/levels/world1/welcome_antarctica.stl"
SUPERTUX = [
    "/usr/games/supertux2",
    "--window",
    "--geometry",
    "320x240",
    "--renderer",
    "sdl",
    "--disable-sound",
    "--disable-music",
    LEVEL,
]
TUX = SUPERTUX, 60, 130, 8
PACKAGES = "supertux", "libgl1-mesa-dri", "libsdl2-2.0-0"

# With this seed the six videos show six families of overlays.
RECORD = "--minutes 0.4 --seconds 4 --games ridge,crypt,rally --seed 11 --workers 2"
FILTER = "--segment-seconds 0.5 --min-active 1 --validation 0 --workers 1"
TRAIN = (
    "--config tiny --steps 20 --batch 8 --micro 8 --warmup 5 --log-every 1 --save-every 20 "
    "--workers 1 --seed 1 --device cpu"
)


def known(name):
    """What an earlier run wrote into this file."""
    return json.loads((GOLDEN / name).read_text())


# ---- the help texts


def help_of(script):
    """File name -> help text, of the script, its commands and their presets."""
    env = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ASK, f"{script}.py", str(CORES)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {f"{name}.txt": text.replace(str(ROOT), "ROOT") for name, text in found.items()}


# Python 3.13 writes usage lines in another way than those before.
PYTHON = "3.13 or later" if sys.version_info >= (3, 13) else "before 3.13"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    if (python := known("frames.json")["python"]) != PYTHON:
        pytest.skip(f"recorded with a Python {python}")
    there = {p.name: p.read_text("utf-8") for p in (GOLDEN / "help").glob(f"{script}*.txt")}

    def words(texts):
        return {name: text.split() for name, text in texts.items()}

    assert words(help_of(script)) == words(there)  # lines may break elsewhere


# ---- frames


def played(command, fps, start=0, buttons=16):
    """Hashes of frames under a random pad that is the same on every machine."""
    rng, seen = random.Random(3), []
    nothing = {"buttons": np.zeros(16, np.int8), "sticks": np.zeros(4, np.float32)}
    south = {**nothing, "buttons": np.int8([b == "SOUTH" for b in sim.BUTTONS])}
    with contextlib.closing(sim.GameEnv(command, fps=fps)) as env:
        env.reset(seed=0)
        for i in range(1, start):
            env.step(south if 60 <= i < 63 else nothing)
        for i in range(FRAMES):
            if i % 8 == 0:
                bits = rng.getrandbits(16) & rng.getrandbits(16) & (1 << buttons) - 1
                sticks = [rng.getrandbits(8) / 128 - 1 for _ in range(4)]
                pad = {
                    "buttons": np.int8([bits >> b & 1 for b in range(16)]),
                    "sticks": np.float32(sticks),
                }
            _, _, terminated, _, info = env.step(pad)
            assert not terminated
            seen.append(info["hash"][:12])
    return seen


def built_in(name):
    game = str(ROOT / "games" / f"{name}.py")
    return played([sys.executable, game, "--seed", "{seed}", "--fps", "{fps}"], 30)


@pytest.mark.parametrize("name", BUILT_IN)
def test_frames(name):
    assert built_in(name) == known("frames.json")[name]


def no_supertux():
    """Why SuperTux cannot be played here, or None."""
    there = all(map(shutil.which, (SUPERTUX[0], "Xvfb", "dpkg-query"))) and Path(LEVEL).exists()
    return sim.hook_fault() if there else "no SuperTux (apt install supertux xvfb)"


def drawn_by():
    """What SuperTux's pixels depend on: versions (as Debian says), and the kind of CPU."""
    asked = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES]
    found = subprocess.run(asked, capture_output=True, text=True).stdout
    facts = re.findall(r"^(?:model name|flags)\s*: (.*)$", read_text("/proc/cpuinfo"), re.M)
    return [*found.splitlines(), f"CPU {digest(repr(facts[:2]).encode())}"]


def digest(blob):
    return hashlib.blake2b(blob, digest_size=8).hexdigest()


@pytest.mark.slow
def test_frames_of_supertux():
    if reason := no_supertux():
        pytest.skip(reason)
    before = known("supertux.json")
    if not EXACT and before["by"] != drawn_by():
        pytest.skip(f"recorded with {before['by']}, here {drawn_by()}")
    assert played(*TUX) == before["frames"]


# ---- the pipe


def run(script, *args):
    """One of the stages as a user runs it."""
    done = subprocess.run(
        [sys.executable, f"{script}.py", *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def tensors(path):
    with safe_open(path, "np") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["json"])


def label(folder, stem):
    """What was found and read in a video, without rounding."""
    overlay, about = tensors(folder / f"labels/{stem}.overlay.safetensors")
    actions, _ = tensors(folder / f"labels/{stem}.actions.safetensors")
    places = {k: overlay[k].tolist() for k in ("affine", "corners", "span")}
    return {
        "template": about["template"],
        **places,
        "sticks": actions["sticks"].tolist(),
        "pressed": [p.tobytes().hex() for p in np.packbits(actions["buttons"] > 0.5, axis=1)],
    }


def pipe(folder):
    """Six videos recorded, read, made into shards and trained on; what came out."""
    run("eval", "record", "--out", folder / "videos", *RECORD.split())
    videos = sorted((folder / "videos").glob("*.mp4"))
    labels, shards = folder / "labels", folder / "shards"
    run("extract", *videos, "--out", labels, "--workers", 2)
    run("parse", *videos, "--out", labels, "--workers", 1, "--device", "cpu")
    said = run("filter", *videos, "--labels", labels, "--out", shards, *FILTER.split())
    run("train", "--data", shards, "--out", folder / "run", *TRAIN.split())
    log = map(json.loads, (folder / "run/log.jsonl").read_text().splitlines())
    files = {v.name: digest(v.read_bytes()) for v in videos}
    for path in sorted(folder.rglob("*.safetensors")):
        files |= {
            f"{path.relative_to(folder)}: {name}": digest(value.tobytes())
            for name, value in tensors(path)[0].items()
        }
    kept = re.findall(r"([^/\s]+): parsed; kept (\d+ of \d+) rows", said)
    return {
        "labels": {v.stem: label(folder, v.stem) for v in videos},
        "files": files,
        "kept": dict(sorted(kept)),
        "bfloat16": "avx512_bf16" in read_text("/proc/cpuinfo"),
        "losses": [row["loss"] for row in log if "loss" in row],
    }


def rounded(made):
    """What is compared with other machines' results; sticks in hundredths."""
    labels = {
        stem: {
            **of,
            **{k: np.round(of[k], 3).tolist() for k in ("affine", "corners")},
            "sticks": np.round(np.float64(of["sticks"]) * 100).astype(int).tolist(),
        }
        for stem, of in made["labels"].items()
    }
    return {k: v for k, v in made.items() if k != "files"} | {"labels": labels}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return pipe(tmp_path_factory.mktemp("golden"))


@pytest.mark.slow
def test_labels(made):
    before = known("pipe.json")
    if EXACT:
        assert (made["labels"], made["files"]) == (before["labels"], before["files"])
        return
    now = rounded(made)["labels"]
    assert now.keys() == before["labels"].keys()
    for stem, was in before["labels"].items():
        of = now[stem]
        assert (of["template"], of["span"]) == (was["template"], was["span"]), stem
        for key in ("affine", "corners"):
            assert np.allclose(of[key], was[key], rtol=0, atol=0.05), (stem, key)
        bits = [int("".join(p["pressed"]), 16) for p in (of, was)]
        cells = 4 * len("".join(was["pressed"]))
        assert (bits[0] ^ bits[1]).bit_count() <= 0.005 * cells, stem
        assert np.abs(np.subtract(of["sticks"], was["sticks"])).mean() < 1, stem


@pytest.mark.slow
def test_training(made):
    before = known("pipe.json")
    assert made["kept"] == before["kept"]
    assert not EXACT or made["losses"] == before["losses"]
    if made["bfloat16"] != before["bfloat16"]:
        pytest.skip(f"recorded with bfloat16: {before['bfloat16']}, here {made['bfloat16']}")
    assert made["losses"] == pytest.approx(before["losses"], rel=2e-3, abs=1e-5)


# ---- writing the files


def write(target, exact):
    shutil.rmtree(target / "help", ignore_errors=True)
    (target / "help").mkdir(parents=True)
    for name, text in (item for script in SCRIPTS for item in help_of(script).items()):
        (target / "help" / name).write_text(text, "utf-8")

    def put(name, what):
        lines = json.dumps(what, separators=(",", ":")).replace('],"', '],\n"') + "\n"
        (target / name).write_text(lines)

    put("frames.json", {"python": PYTHON, **{name: built_in(name) for name in BUILT_IN}})
    if reason := no_supertux():
        print(f"supertux.json is left as it was: {reason}")
    else:
        put("supertux.json", {"by": drawn_by(), "frames": played(*TUX)})
    with tempfile.TemporaryDirectory() as folder:
        put("pipe.json", (dict if exact else rounded)(pipe(Path(folder))))


if __name__ == "__main__":
    if sys.argv[1:] != ["--record"] and (len(sys.argv) != 3 or sys.argv[1] != "--exact"):
        sys.exit(__doc__)
    write(Path(sys.argv[2]) if sys.argv[2:] else TOLERANT, exact=len(sys.argv) == 3)
