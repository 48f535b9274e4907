"""docs/extend.md: each example is taken from the page and runs as it is written there."""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys

from common import ROOT, artefact

import numpy as np
import pytest

import eval as evaluation
import sim
from programs import NEUTRAL, PUSH, needs_xvfb
from templates import library, render

PAGE = (ROOT / "docs/extend.md").read_text("utf-8")
LINES = 30  # of code, at most


def example(kind: str) -> str:
    section = re.search(rf"^## Your own {kind}\n(.*?)(?=^## )", PAGE, re.M | re.S)[1]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    return code


def loaded(path, code):
    """The module of an example that was saved there."""
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(path, *argv):
    """An example as a program, in the project's folder."""
    return subprocess.run(
        [sys.executable, path, *argv],
        cwd=path.parent,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.parametrize("kind", ["gamepad", "screen", "template", "game"])
def test_an_example_is_short(kind):
    code = [line for line in example(kind).splitlines() if line.strip()]
    assert 10 < len(code) <= LINES and max(map(len, code)) <= 100


def square(picture):
    """Left edge of the victim's square, whether it is red, and the number of its frame."""
    ys, xs = np.nonzero((picture[:, :, 0] > 200) & (picture[:, :, 2] < 100))
    return int(xs.min()), bool(picture[ys[0], xs[0], 1] < 50)


@pytest.fixture
def tables():
    """What an example puts into a table is taken out again."""
    before = [(table, dict(table)) for table in (sim.GAMEPADS, sim.SCREENS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)


@needs_xvfb
def test_the_gamepad(victim, tmp_path, tables):
    path = tmp_path / "my_gamepad.py"
    loaded(path, example("gamepad"))
    with contextlib.closing(sim.GameEnv([victim, "renderer"], gamepad="pulse", fps=60)) as env:
        env.reset()
        seen = []
        for stick in (1, 1, 0.5, 0.5, 0.5, 0.5, 0, -1):
            env.step({"buttons": PUSH["buttons"], "sticks": np.float32([stick, 0, 0, 0])})
            seen.append(square(env.render()))
    assert seen == [(80 + x, True) for x in (1, 2, 2, 3, 3, 4, 4, 3)]
    film = tmp_path / "a.mp4"
    told = ("--player", "random", "--speed", "0", "--seconds", "0.2", "--record", str(film))
    done = run(path, "record", "--gamepad", "pulse", *told, "--", victim, "renderer")
    assert done.returncode == 0, done.stderr
    _, info = artefact.read(film.with_suffix(".actions.safetensors"), "nitrogen.actions/1")
    assert info["gamepad"] == "pulse"


@needs_xvfb
def test_the_screen(victim, tmp_path, tables):
    loaded(tmp_path / "my_screen.py", example("screen"))
    with contextlib.closing(sim.GameEnv([victim, "renderer"], screen="desktop", fps=60)) as env:
        env.reset()
        _, x, y, width, height = env.sandbox.display.windows()[0]
        for i, pad in enumerate((PUSH, PUSH, PUSH, NEUTRAL), 1):
            env.step(pad)
            window = env.render()[y : y + height, x : x + width]
            assert square(window) == (80 + min(i, 3), pad is PUSH)
        assert env.render().shape == (960, 1280, 3)


def test_the_template(tmp_path):
    """All that it shows is read, and a press is seen."""
    path = tmp_path / "my_template.py"
    path.write_text(example("template"))
    done = run(path)
    assert done.returncode == 0, done.stderr
    own = library.pool(str(tmp_path / "my_skins")).own
    (template,) = own.values()
    assert template.family == "small"
    assert {e.id for e in template.elements} >= {"SOUTH", "EAST", "LEFT"}
    rest = render.at_rest(template)
    for name in ("SOUTH", "EAST"):
        pressed = render.draw(template, np.isin(artefact.BUTTONS, [name]), np.zeros(4))
        assert (pressed != rest).any(-1).sum() > 300


def test_the_game(tmp_path, monkeypatch):
    """eval.py knows it, and its expert touches the five lights."""
    folder = tmp_path / "games"
    folder.mkdir()
    shutil.copy(ROOT / "games/console.py", folder)
    (folder / "dash.py").write_text(example("game"))
    monkeypatch.setattr(evaluation, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(folder)
    assert evaluation.named_games("dash") == ["dash"]
    expert = evaluation.Expert("dash", 0)
    with evaluation.launch("dash", "lights", 3) as env:
        frame, info = env.reset(seed=3)
        while not info["score"]["over"]:
            buttons, sticks = expert(frame, info)
            frame, _, _, _, info = env.step({"buttons": buttons, "sticks": sticks})
    assert info["score"]["success"] and info["score"]["game"] == "dash"
