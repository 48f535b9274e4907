"""devices/__init__.py: what follows from a class and a line in a table."""

import types

import pytest

import devices
import sim
from bench import doctor
from clock.base import GameError, say_once
from devices import GAMEPADS, SCREENS, Gamepad, Screen


class Wheel(Gamepad):
    def __init__(self, game):
        raise GameError("wheel: not plugged in")

    @classmethod
    def requirement(cls):
        return "wheel", False, "", "plug it in"


def test_what_each_system_has_in_the_order_of_auto():
    assert devices.names(GAMEPADS, "Linux") == ["auto", "console", "joystick", "keys", "uinput"]
    assert devices.names(GAMEPADS, "Windows") == ["auto", "console", "vgamepad", "keys"]
    assert devices.names(SCREENS, "Linux") == ["auto", "console", "readback", "window"]
    assert devices.names(SCREENS, "Windows") == ["auto", "console", "window"]


def test_a_line_in_the_table_is_known_everywhere(monkeypatch):
    monkeypatch.setitem(GAMEPADS, "wheel", Wheel)
    assert devices.choices(GAMEPADS).count("wheel") == 2
    with pytest.raises(GameError, match="gamepad 'whel': there is auto, .*, wheel$"):
        sim.GameEnv(["game"], gamepad="whel")
    assert sim.GameEnv(["game"], gamepad="wheel").gamepad == "wheel"
    assert ("wheel", False, "", "plug it in") in doctor.devices()
    monkeypatch.setattr(Wheel, "only_on", "Windows")
    assert "wheel" not in devices.names(GAMEPADS, "Linux")


def test_auto_goes_on_where_one_cannot_be(capfd):
    say_once.cache_clear()
    table = {"wheel": Wheel, "pad": Gamepad}
    (pad,) = devices.made(table, "auto", None)
    assert type(pad) is Gamepad
    assert capfd.readouterr().err == "sim: wheel: not plugged in.  'pad' takes its place.\n"
    for name, kinds in (("wheel", table), ("auto", {"pad": Gamepad, "wheel": Wheel})):
        with pytest.raises(GameError, match="^wheel: not plugged in$"):
            devices.made(kinds, name, None)


@pytest.mark.parametrize("facts", [{"automatic": False}, {"needs_hook": True}])
def test_auto_passes_over_what_does_not_fit(facts):
    other = type("Other", (Gamepad,), facts)
    (pad,) = devices.made({"other": other, "pad": Gamepad}, "auto", None, hooked=False)
    assert type(pad) is Gamepad
    assert type(devices.made({"other": other}, "other", None)[0]) is other


def test_a_screen_keeps_the_last_picture():
    """It is fetched once a frame, and not again once there is none."""
    clock = types.SimpleNamespace(frames=0, time=0.5)
    shots = iter(["first", None])
    screen = Screen(types.SimpleNamespace(clock=clock))
    screen.grab = lambda: next(shots)
    assert screen.picture().shape == (256, 256, 3) and screen.time == 0.5
    clock.frames = 1
    assert screen.picture() == screen.picture() == "first"
    clock.frames = 2
    assert screen.picture() == "first" and screen.seen == 1
