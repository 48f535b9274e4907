"""templates/: users' own skins."""

import json

import cv2
import numpy as np
import pytest

from commands import run
from templates import library, pads, presets, render

NONE = np.zeros(16, bool), np.zeros(4)


CODES = (
    "SOUTH",
    "EAST",
    "WEST",
    "NORTH",
    "BACK",
    "GUIDE",
    "START",
    "LEFT_THUMB",
    "RIGHT_THUMB",
    "LEFT_SHOULDER",
    "RIGHT_SHOULDER",
    "DPAD_UP",
    "DPAD_DOWN",
    "DPAD_LEFT",
    "DPAD_RIGHT",
)


def save(path, rgba):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))


def obs(template):
    """The elements of a built-in template as an OBS input-overlay preset lists them."""
    out = []
    for e in template.elements:
        kind = {"texture": 0, "button": 2, "stick": 5, "trigger": 6, "dpad": 8}[e.kind]
        item = {
            "type": kind,
            "id": f"thing{len(out)}",
            "pos": list(e.pos),
            "mapping": list(e.mapping),
            "z_level": "1",
        }
        item |= {"code": CODES.index(e.id)} if kind == 2 else {}
        item |= {"side": int("RIGHT" in e.id)} if kind in (5, 6) else {}
        item |= {"stick_radius": e.radius} if kind == 5 else {}
        out.append(item | ({"trigger_mode": True, "direction": 1} if kind == 6 else {}))
    return {
        "overlay_width": template.size[0],
        "overlay_height": template.size[1],
        "flags": 4,
        "elements": out,
    }


def preset(folder, atlas, data, name="pad", more=None):
    save(folder / f"{name}.png", atlas)
    (folder / f"{name}.json").write_text(json.dumps(data))
    if more is not None:
        (folder / "nitrogen.json").write_text(json.dumps(more))


def read(folder):
    presets.load_skins.cache_clear()
    return presets.read_skins(folder)


def small(*elements, w=300, h=200, **changes):
    """(atlas, preset) of w x h px: a gray body, and buttons (code, x, y) of 20 x 20 px, black at
    rest and white when pressed.
    """
    atlas = np.zeros((h + 60, w, 4), np.uint8)
    atlas[:h] = (120, 120, 120, 255)
    atlas[h + 3 : h + 23, :20], atlas[h + 26 : h + 46, :20] = (0, 0, 0, 255), (255, 255, 255, 255)
    boxes = [
        {"type": 2, "id": "x", "code": c, "pos": [x, y], "mapping": [0, h + 3, 20, 20]}
        for c, x, y in elements
    ]
    body = {"type": 0, "id": "body", "pos": [0, 0], "mapping": [0, 0, w, h]}
    return atlas, {"overlay_width": w, "overlay_height": h, "elements": [body, *boxes]} | changes


@pytest.mark.parametrize("name", ["xboxone-dark", "ps5-outline", "snes-light", "keys-neon"])
def test_preset_is_read_as_the_template_that_it_was_written_from(tmp_path, name):
    template, rng = library.templates()[name], np.random.default_rng(1)
    preset(tmp_path / "a/b", template.atlas, obs(template), more={"family": "mine"})
    (mine,) = read(tmp_path).values()
    assert mine.name == "a/b/pad" and mine.family == "mine"
    shift = np.subtract(mine.size, template.size)  # sticks that leave the canvas make it larger
    assert (0 <= shift).all() and (shift < 8).all()
    assert set(render.layout(mine)["buttons"]) == set(render.layout(template)["buttons"])

    def middle(t):
        return np.add(
            render.layout(t)["buttons"]["SOUTH"][:2],
            np.divide(render.layout(t)["buttons"]["SOUTH"][2:], 2),
        )

    x, y = np.round(middle(mine) - middle(template)).astype(int)
    for _ in range(5):
        state = rng.random(16) < 0.4, rng.uniform(-1, 1, 4)
        want, got = render.draw(template, *state), render.draw(mine, *state)
        assert np.abs(got[y:, x:][: want.shape[0], : want.shape[1]].astype(int) - want).max() <= 1


def test_buttons_go_by_their_places_where_codes_follow_the_letters(tmp_path, capsys):
    # A right, B below, X above, Y left: a Switch skin
    letters = (0, 240, 90), (1, 210, 120), (2, 210, 60), (3, 180, 90)

    def where():
        return {
            k: tuple(v[:2]) for k, v in render.layout(*read(tmp_path).values())["buttons"].items()
        }

    preset(tmp_path, *small(*letters))
    assert (
        where() == {"EAST": (240, 90), "SOUTH": (210, 120), "NORTH": (210, 60), "WEST": (180, 90)}
        and "places" in capsys.readouterr().out
    )
    preset(tmp_path, *small(*letters), more={"positions": "codes"})
    assert where() == {
        "SOUTH": (240, 90),
        "EAST": (210, 120),
        "WEST": (210, 60),
        "NORTH": (180, 90),
    }
    # in a row: no places to go by
    preset(tmp_path, *small((0, 180, 90), (1, 210, 90), (2, 240, 90), (3, 270, 90)), more={})
    assert where()["SOUTH"] == (180, 90) and where()["NORTH"] == (270, 90)


def test_joystick_numbers_old_codes_and_codes_of_ones_own(tmp_path):
    def names():
        return set(render.layout(*read(tmp_path).values())["buttons"])

    cube = ((1, 200, 60), (2, 170, 70), (3, 150, 100), (4, 160, 30), (8, 220, 10), (16, 100, 90))
    preset(tmp_path, *small(*cube))
    assert names() == {"EAST", "SOUTH", "WEST", "NORTH", "RIGHT_SHOULDER", "START"}
    preset(tmp_path, *small((0xEC00, 10, 10), (0xEC07, 60, 10), (0xEC0B, 10, 60)))
    assert names() == {"SOUTH", "START", "DPAD_LEFT"}
    # 5 is the guide button
    preset(
        tmp_path,
        *small((0, 10, 10), (5, 60, 10), (20, 10, 60), (6, 60, 60)),
        more={"codes": {"20": "BACK"}},
    )
    assert names() == {"SOUTH", "BACK", "START"}


def test_ids_say_nothing_and_order_decides(tmp_path):
    atlas, data = small((4, 40, 40), (6, 90, 40))
    data["elements"][1]["id"], data["elements"][2]["id"] = "start", "select"
    data["elements"].reverse()  # the body last: it hides the buttons
    preset(tmp_path, atlas, data)
    (mine,) = read(tmp_path).values()
    assert (
        render.layout(mine)["buttons"]["BACK"][0] == 40
        and (render.draw(mine, np.ones(16), NONE[1])[2:-2, 2:-2, :3] == 120).all()
    )


def test_triggers_sticks_player_number_and_what_never_changes(tmp_path):
    atlas, data = small((0, 10, 10), (1, 10, 60))
    # a trigger: half of the idle picture shines through
    atlas[203:223, 40:60], atlas[226:246, 40:60] = (0, 0, 200, 255), (200, 0, 0, 128)
    # pressed as idle
    atlas[203:223, 80:100], atlas[226:246, 80:100] = (9, 9, 9, 255), (9, 9, 9, 255)
    for x in range(4):
        atlas[203:213, 120 + 13 * x : 130 + 13 * x] = (50 * x, 0, 0, 255)
    data["elements"] += [
        {
            "type": 6,
            "pos": [60, 10],
            "mapping": [40, 203, 20, 20],
            "side": 0,
            "trigger_mode": False,
            "direction": 3,
        },
        {
            "type": 6,
            "pos": [100, 10],
            "mapping": [40, 203, 20, 20],
            "side": 1,
            "trigger_mode": True,
        },
        {"type": 5, "pos": [150, 90], "mapping": [80, 203, 20, 20], "side": 0, "stick_radius": 10},
        {"type": 2, "pos": [200, 10], "mapping": [80, 203, 20, 20], "code": 6},
        {"type": 7, "pos": [250, 10], "mapping": [120, 203, 10, 10]},
        {"type": 1, "code": 30},
        {"type": 9},
    ]
    preset(tmp_path, atlas, data)
    (mine,) = read(tmp_path).values()
    where = render.layout(mine)
    assert set(where["buttons"]) == {"SOUTH", "EAST", "LEFT_TRIGGER", "RIGHT_TRIGGER"} and where[
        "sticks"
    ] == {"LEFT": [160, 100, 10, 20, 20]}
    all_on = render.draw(mine, np.ones(16), np.array([1, 0, 0, 0])).astype(int)
    assert (
        np.abs(all_on[20, 70] - (100, 0, 100, 255)).max() <= 2
        and np.abs(all_on[20, 110] - (160, 60, 60, 255)).max() <= 2
    )
    assert tuple(all_on[20, 210]) == (9, 9, 9, 255) and tuple(all_on[15, 255]) == (0, 0, 0, 255)
    assert (all_on[91:109, 161:179, 0] == 9).all() and (all_on[91:109, 151:159, 0] == 120).all()


def test_small_skins_are_enlarged_large_ones_shrunk_and_nothing_is_cut_off(tmp_path):
    atlas = np.zeros((15, 24, 4), np.uint8)
    atlas[:10, :15] = (90, 90, 90, 255)
    atlas[[0, 4], 20], atlas[0, 22], atlas[4, 22] = (
        (9, 9, 9, 255),
        (0, 0, 0, 255),
        (255, 255, 255, 255),
    )
    data = {
        "overlay_width": 15,
        "overlay_height": 10,
        "elements": [
            {"type": 0, "pos": [0, 0], "mapping": [0, 0, 15, 10]},
            {"type": 5, "side": 0, "pos": [4, 4], "mapping": [20, 0, 1, 1], "stick_radius": 1},
            {"type": 2, "code": 0, "pos": [-3, 2], "mapping": [22, 0, 1, 1]},
        ],
    }  # left of the canvas
    preset(tmp_path / "tiny", atlas, data)
    atlas, data = small((0, 300, 300), w=2400, h=1200)
    preset(tmp_path / "huge", atlas, data)
    pool = read(tmp_path)
    tiny, huge = pool["tiny/pad"], pool["huge/pad"]
    assert tiny.size == (18 * 14, 10 * 14) and render.layout(tiny)["buttons"] == {
        "SOUTH": [0, 28, 14, 14]
    }
    assert render.layout(tiny)["sticks"] == {"LEFT": [7.5 * 14, 4.5 * 14, 14, 14, 14]}
    near, far = (render.draw(tiny, NONE[0], np.array([v, 0, 0, 0])) for v in (0.25, 0.75))
    assert (near != far).any() and set(np.unique(near[..., 0])) <= {0, 90, *range(9, 91)}
    assert huge.size == (960, 480) and render.layout(huge)["buttons"]["SOUTH"] == [120, 120, 8, 8]
    assert (render.draw(huge, np.ones(16), NONE[1])[121:127, 121:127] == 255).all() and (
        render.draw(huge, *NONE)[130:-2, 2:-2, 0] == 120
    ).all()


def test_several_pictures_for_one_list_and_several_lists_in_one_folder(tmp_path):
    atlas, data = small((0, 10, 10))
    preset(tmp_path / "one", atlas, data)
    save(tmp_path / "one/pad-red.png", atlas)
    save(tmp_path / "one/preview.png", atlas)
    preset(tmp_path / "two", atlas, data, "a")
    preset(tmp_path / "two", atlas, data, "b")
    preset(tmp_path / "three", atlas, data, "overlay")
    (tmp_path / "three/overlay.png").rename(tmp_path / "three/nes.png")
    preset(tmp_path / "four", atlas, data, "pad")
    preset(tmp_path / "four", atlas, data, "pad-x")
    (tmp_path / "four/pad-x.png").unlink()  # two lists for one picture
    assert set(read(tmp_path)) == {
        "four/pad",
        "four/pad-x",
        "one/pad/pad",
        "one/pad/pad-red",
        "two/a",
        "two/b",
        "three/overlay",
    }


def test_pictures_with_boxes(tmp_path):
    idle = np.zeros((160, 300, 4), np.uint8)
    idle[5:155, 5:295] = (80, 90, 100, 255)
    cv2.circle(idle, (60, 80), 15, (250, 250, 250, 255), -1)
    pressed = idle.copy()
    pressed[20:40, 200:220] = (255, 0, 0, 255)
    save(tmp_path / "idle.png", idle)
    save(tmp_path / "on.png", pressed)
    boxes = {
        "idle": "idle.png",
        "pressed": "on.png",
        "buttons": {"SOUTH": [195, 15, 30, 30], "EAST": [240, 15, 20, 20]},
        "sticks": {"LEFT": [44, 64, 33, 33, 12]},
        "family": "mine",
    }
    (tmp_path / "pad.json").write_text(json.dumps(boxes))
    mine = read(tmp_path)["pad"]
    where = render.layout(mine)
    assert mine.family == "mine" and mine.size == (300, 160)
    assert where["buttons"] == {"SOUTH": [200, 20, 20, 20]} and where["sticks"] == {
        "LEFT": [60.5, 80.5, 12, 33, 33]
    }
    # inside areas, exactly; at their edges the renderer is a little soft
    for want, on in ((idle, 0), (pressed, 1)):
        apart = np.abs(render.draw(mine, np.full(16, on), NONE[1]).astype(int) - want).max(2)
        assert (
            (apart[22:38, 202:218] == 0).all() and apart.max() <= 64 and (apart > 1).mean() < 0.05
        )
    moved = render.draw(mine, NONE[0], np.array([1, 0, 0, 0])).astype(int)
    assert (moved[80, 60:84, 0] == 250).all() and np.abs(
        moved[65:96, 44:56, :3] - (80, 90, 100)
    ).max() < 12
    del boxes["pressed"]
    (tmp_path / "pad.json").write_text(json.dumps(boxes))
    brighter = render.draw(read(tmp_path)["pad"], np.ones(16), NONE[1]).astype(int)
    assert brighter[25, 250, 0] > 180 and brighter[100, 150, 0] == 80


def broken_files(case, folder, atlas, data):
    """A skin whose files are at fault, and words of the reason; None if the case is another one."""
    if case == "way out":
        folder.mkdir()
        save(folder.parent.parent / "outside.png", atlas)
        (folder / "pad.json").write_text(
            json.dumps({"idle": "../../outside.png", "buttons": {"SOUTH": [0, 0, 9, 9]}})
        )
        return "out of the folder"
    if case == "box outside":
        save(folder / "idle.png", atlas)
        (folder / "pad.json").write_text(
            json.dumps({"idle": "idle.png", "buttons": {"SOUTH": [290, 0, 20, 9]}})
        )
        return "not inside the picture"
    preset(folder, atlas, data)
    png = folder / "pad.png"
    if case == "no picture":
        png.unlink()
        return "no PNG"
    if case == "broken picture":
        png.write_bytes(png.read_bytes()[:60])
        return "PNG"
    if case == "not JSON":
        (folder / "pad.json").write_text("{")
        return "not JSON"
    if case == "huge picture":
        raw = bytearray(png.read_bytes())
        raw[16:20] = (1 << 20).to_bytes(4, "big")
        png.write_bytes(raw)
        return "PNG of at most"


def broken(case, folder):
    """A skin that cannot be read, and words of the reason."""
    atlas, data = small((0, 10, 10))
    if words := broken_files(case, folder, atlas, data):
        return words
    element = data["elements"][1]
    if case == "no gamepad":
        data["elements"] = data["elements"][:1] + [
            {"type": 1, "code": 30, "pos": [0, 0], "mapping": [0, 0, 9, 9]}
        ]
    elif case == "huge canvas":
        data["overlay_width"] = 9000
    elif case == "far away":
        element["pos"] = [8000, -8000]
    elif case == "negative":
        element["mapping"] = [-4, 0, 20, 20]
    elif case == "outside":
        element["mapping"] = [300, 203, 20, 20]
    elif case == "not numbers":
        element["pos"] = [float("nan"), "7"]
    elif case == "no list":
        data["elements"] = {"type": 2}
    preset(folder, atlas, data)
    return {
        "no gamepad": "no gamepad element",
        "huge canvas": "overlay_width",
        "far away": "far outside",
        "negative": "mapping",
        "outside": "not inside",
        "not numbers": "pos",
        "no list": "expected a list",
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        "no picture",
        "broken picture",
        "not JSON",
        "way out",
        "box outside",
        "huge picture",
        "no gamepad",
        "huge canvas",
        "far away",
        "negative",
        "outside",
        "not numbers",
        "no list",
    ],
)
def test_a_skin_that_cannot_be_read_is_named_and_left_out(tmp_path, capsys, case):
    root = tmp_path / "skins"
    root.mkdir()
    words = broken(case, root / "bad")
    with pytest.raises(SystemExit, match="no skin there can be read"):
        read(root)
    line = next(x for x in capsys.readouterr().out.splitlines() if "skipped" in x)
    assert "bad/pad" in line and words in line, line
    preset(root / "good", *small((0, 10, 10)))
    assert list(read(root)) == ["good/pad"]


def test_skins_come_first_and_on_the_sheet(tmp_path):
    template = library.templates()["ps4-dark"]
    preset(tmp_path / "skins", template.atlas, obs(template), "ps4-dark")
    pool = library.pool(tmp_path / "skins")
    assert (
        list(pool)[0] == "ps4-dark"
        and pool["ps4-dark"].family == "user"
        and len(pool) == len(pads.TEMPLATES)
    )
    done = run(
        "templates", "--templates", "skins", "--family", "user", "--out", "sheet.png", cwd=tmp_path
    )
    assert done.returncode == 0 and "1 templates" in done.stdout, done.stderr
    for args, words in (
        (("--templates", "gone"), "no such folder"),
        (("--family", "gone"), "none of that"),
    ):
        done = run("templates", *args, cwd=tmp_path)
        assert (
            done.returncode == 1 and words in done.stderr and done.stderr.strip().count("\n") == 0
        )
