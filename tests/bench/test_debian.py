"""bench/debian.py, on a program of tests/victims and on what is no game."""

import sys

from bench import debian
from programs import needs_xvfb

CONFIG = debian.Config(seconds=0.4, timeout=20)
HOW = {"fps": 60, "gamepad": "keys", "tick": "frame"}


@needs_xvfb
def test_a_game_that_can_be_played(victim):
    cells = debian.trial({"command": [victim, "renderer"], **HOW}, CONFIG)
    assert cells == ["yes", "yes", "yes", "yes", ""]


@needs_xvfb
def test_what_is_no_game():
    command = [sys.executable, "-c", "raise SystemExit('no | screen')"]
    cells = debian.trial({"command": command, **HOW}, CONFIG)
    assert cells[:4] == ["no", "", "", ""] and cells[4].endswith("first frame: no / screen")


def test_a_row_says_how_a_game_is_played():
    rows = {game["command"][0]: game for _, game in debian.games()}
    shooter = {"keys": {"SOUTH": "s", "EAST": "space"}, "gamepad": "keys", "tick": "time"}
    assert rows["xgalaga++"] == {"command": ["xgalaga++"], "fps": 30, **shooter}
    assert rows["powermanga"]["command"] == ["powermanga", "--window"]
    assert (rows["vor"]["keys"], rows["vor"]["gamepad"]) == ({}, "auto") and len(rows) == 83


def test_columns():
    frames = [(k / 30, f"{k}", "SDL_Flip") for k in range(9)]
    assert debian.first_difference(frames, iter(frames)) is None
    assert debian.first_difference(frames, iter(frames[:5])) == 5
    assert debian.first_difference(frames, [*frames[:3], (0.1, "other", "")]) == 3
    for fps, tick, cell in (
        (30, "frame", "yes"),
        (60, "frame", "yes, of 2.00 ticks"),
        (10, "frame", "no: 0.33 ticks a sleep"),
    ):
        assert debian.one_a_step(frames, {"fps": fps, "tick": tick}) == cell
    slept = [(time, digest, "sleep") for time, digest, _ in frames]
    assert debian.one_a_step(slept, {"fps": 30, "tick": "frame"}).startswith("no")
    assert debian.one_a_step(slept, {"fps": 30, "tick": "time"}) == "yes"
