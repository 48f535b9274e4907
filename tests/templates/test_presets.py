"""extract.py reads OBS input-overlay presets as the program does: small ones, each with what a file
has.
"""

import json

from common import artefact

import cv2
import numpy as np
import pytest

from templates import presets, render

REST, ALL, CENTRE = np.zeros(16), np.ones(16), np.zeros(4)
DPAD = {"DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT"}
BODY, RED, BLUE, GREEN = (90, 90, 90, 255), (200, 0, 0, 255), (0, 0, 200, 255), (0, 200, 0, 255)


def atlas(w=400, h=420):
    """A gray body of 300 x 200 px; below it, at u, 203, whatever a test paints."""
    out = np.zeros((h, w, 4), np.uint8)
    out[:200, :300] = BODY
    return out


def paint(picture, u, v, w, h, *colours, across=False):
    """An element's states, one below the other or side by side."""
    for i, colour in enumerate(colours):
        x, y = (u + i * (w + 3), v) if across else (u, v + i * (h + 3))
        picture[y : y + h, x : x + w] = colour
    return [u, v, w, h]


def button(code, x, y, mapping, **more):
    return {
        "type": 2,
        "id": f"b{code}",
        "code": code,
        "pos": [x, y],
        "mapping": mapping,
        "z_level": "1",
    } | more


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    _, raw = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))
    path.write_bytes(raw.tobytes())


def preset(path, elements, picture=None, png=None, body=True, **more):
    """FILE.json and its PNG: a body, and red buttons that are blue when pressed at 0, 203 of the
    atlas.
    """
    if picture is None:
        paint(picture := atlas(), 0, 203, 20, 20, RED, BLUE)
    save(path.with_name(png or f"{path.stem}.png"), picture)
    first = [{"type": 0, "id": "body", "pos": [0, 0], "mapping": [0, 0, 300, 200]}] * body
    data = {
        "default_width": 0,
        "default_height": 0,
        "space_h": 3,
        "space_v": 3,
        "flags": 6,
        "overlay_width": 300,
        "overlay_height": 200,
        "elements": first + elements,
    } | more
    path.write_text(json.dumps(data))
    return data


def read(folder):
    presets.load_skins.cache_clear()
    return presets.read_skins(folder)


def one(folder):
    (skin,) = read(folder).values()
    return skin


def shown(skin):
    return set(render.layout(skin)["buttons"])


def colour(skin, x, y, buttons=REST, sticks=CENTRE):
    """RGBA at a px of the skin, inside an area: at edges the renderer is a little soft."""
    return tuple(int(v) for v in render.draw(skin, buttons, np.array(sticks, float))[y, x])


def press(*names):
    return np.isin(artefact.BUTTONS, names).astype(float)


RB = [0, 203, 20, 20]  # the red and blue button
FACE = [
    button(0, 240, 130, RB),
    button(1, 260, 100, RB),
    button(2, 220, 100, RB),
    button(3, 240, 70, RB),
]


def test_what_passes_the_atlas_repeats_its_edge_and_the_rest_is_used(tmp_path, capsys):
    picture = atlas(300, 246)
    paint(picture, 0, 203, 20, 20, RED, BLUE)
    picture[:, 290:] = GREEN  # the last columns
    elements = [
        {"type": 0, "pos": [0, 0], "mapping": [1, 1, 300, 200]},
        button(0, 40, 40, [0, 203, 20, 20]),
        button(6, 80, 40, [0, 206, 20, 20]),
    ]  # its pressed picture ends 3 px below the atlas
    preset(tmp_path / "pad.json", elements, picture, body=False)
    mine = one(tmp_path)
    assert (
        mine.size == (300, 200)
        and shown(mine) == {"SOUTH", "START"}
        and not capsys.readouterr().out
    )
    # column 300 is 299 again
    assert colour(mine, 297, 100) == GREEN and colour(mine, 298, 100) == GREEN
    assert colour(mine, 90, 57, ALL) == BLUE and colour(mine, 90, 50) == RED


def test_a_dpad_without_diagonals_shows_its_centre(tmp_path):
    picture = atlas(5 * 33, 260)
    colours = [(i * 50, 255 - i * 40, 7, 255) for i in range(5)]
    picture = np.pad(picture, ((0, 0), (0, 200), (0, 0)))[:, : 5 * 33 - 3]
    mapping = paint(picture, 0, 203, 30, 30, *colours, across=True)
    preset(tmp_path / "pad.json", [{"type": 8, "pos": [40, 90], "mapping": mapping}], picture)
    mine = one(tmp_path)
    assert shown(mine) == DPAD
    for names, i in (
        ((), 0),
        (("LEFT",), 1),
        (("RIGHT",), 2),
        (("UP",), 3),
        (("DOWN",), 4),
        (("UP", "LEFT"), 0),
        (("DOWN", "RIGHT"), 0),
    ):
        assert colour(mine, 55, 105, press(*(f"DPAD_{n}" for n in names))) == colours[i], names


def test_pictures_go_by_the_size_that_the_list_names_then_by_the_names(tmp_path):
    sizes = {"ONE": (400, 420), "TWO": (380, 430)}
    for name, (w, h) in sizes.items():  # as PS4config.json and PS4image.png
        paint(picture := atlas(w, h), 0, 203, 20, 20, RED, BLUE)
        preset(
            tmp_path / f"a/{name}config.json",
            FACE,
            picture,
            f"{name}image.png",
            default_width=w,
            default_height=h,
        )
    (tmp_path / "a/ONEimage.png").rename(tmp_path / "a/x.png")
    for name in ("Xbox pad", "Sony pad"):
        preset(tmp_path / f"b/{name} list.json", FACE, png=f"{name} atlas.PNG")
    preset(tmp_path / "c/overlay.json", FACE)  # recolourings, a preview, an icon
    for name in ("white.png", "black.png", "Overlay PREVIEW.png"):
        save(tmp_path / "c" / name, cv2.imread(str(tmp_path / "c/overlay.png"), -1))
    (tmp_path / "c/overlay.png").unlink()
    save(tmp_path / "c/icon.png", np.full((64, 64, 4), 9, np.uint8))
    for name in ("overlay", "overlay-color"):  # nothing alike but a word
        preset(tmp_path / f"d/{name}.json", FACE, png=f"{name.replace('overlay', 'snes')}.png")
    preset(tmp_path / "e/list.JSON", FACE, png="LIST.PNG")
    assert set(read(tmp_path)) == {
        "a/ONEconfig",
        "a/TWOconfig",
        "b/Xbox pad list",
        "b/Sony pad list",
        "c/overlay/white",
        "c/overlay/black",
        "d/overlay",
        "d/overlay-color",
        "e/list",
    }


def test_a_list_whose_picture_is_missing_takes_no_other_ones(tmp_path, capsys):
    preset(tmp_path / "PS4.json", FACE, default_width=400, default_height=420)
    preset(tmp_path / "PS5.json", FACE, default_width=380, default_height=400)
    (tmp_path / "PS5.png").unlink()
    preset(tmp_path / "jpg/pad.json", FACE)
    (tmp_path / "jpg/pad.png").rename(tmp_path / "jpg/pad.jpg")
    preset(tmp_path / "none/pad.json", FACE)
    (tmp_path / "none/pad.png").unlink()
    assert set(read(tmp_path)) == {"PS4"}
    lines = capsys.readouterr().out.splitlines()
    assert [x.split(":")[0] for x in lines] == ["PS5", "jpg/pad", "none/pad"]
    assert (
        "PS4.png goes with another list" in lines[0]
        and "save pad.jpg as one" in lines[1]
        and "put its picture there" in lines[2]
    )


def test_keys_are_left_out_in_one_line(tmp_path, capsys):
    keys = [
        {"type": t, "id": "k", "code": 30, "pos": [0, 0], "mapping": RB}
        for t in (1, 3, 4, 9)
        for _ in range(15)
    ]
    for name in ("a", "b"):
        preset(tmp_path / f"{name}.json", FACE + keys)
    for name in ("qwerty", "wasd", "arrows", "mouse"):
        preset(tmp_path / f"keys/{name}.json", keys)
    assert set(read(tmp_path)) == {"a", "b"}
    assert capsys.readouterr().out.splitlines() == [
        "a, b: keys of a keyboard or a mouse left out",
        "keys/arrows, keys/mouse, keys/qwerty, and 1 more: shows no gamepad element: "
        "keys of a keyboard or a mouse are not read; skipped",
    ]


def test_bad_elements_are_named_in_one_line_and_the_rest_is_used(tmp_path, capsys):
    bad = [
        button(4, 9, 9, [-4, 0, 20, 20]),
        button(4, 9, 9, [0, 203, float("nan"), 20]),
        button(4, float("nan"), 9, RB),
        button(4, 9, 9, [0, 203, 0, 20]),
        button(4, 9, 9, [900, 0, 20, 20]),
        button(4, 9000, 9, RB),
        button(4, -7000, 9, RB),
        button(4, 9, 9, [0, 203, 8000, 8000]),
        "no object",
        {"type": 5, "pos": [9, 9], "mapping": RB, "stick_radius": -3},
    ]
    preset(tmp_path / "pad.json", FACE + bad[:3])
    assert shown(one(tmp_path)) == {"SOUTH", "EAST", "WEST", "NORTH"}
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.startswith(
        "pad: 3 of 8 elements left out: 'b4': mapping: expected 4 numbers"
    ), line
    for e, words in zip(
        bad[3:],
        (
            "draws nothing",
            "not inside",
            "pos",
            "far outside",
            "too large",
            "mapping",
            "stick_radius",
        ),
        strict=True,
    ):
        preset(tmp_path / "pad.json", [*FACE, e])
        assert shown(one(tmp_path)) == {"SOUTH", "EAST", "WEST", "NORTH"}
        line = capsys.readouterr().out
        assert (
            line.count("\n") == 1 and "pad: 1 of 6 elements left out" in line and words in line
        ), line


def test_numbers_written_otherwise_and_fields_that_are_missing(tmp_path):
    def dumped(change, **more):
        data = preset(tmp_path / "pad.json", [{**e, **change(e)} for e in FACE], **more)
        return data, one(tmp_path)

    for change in (
        lambda e: {"code": str(e["code"])},
        lambda e: {"pos": [p + 0.5 for p in e["pos"]]},
        lambda e: {"type": "2", "z_level": 7},
        lambda e: {"mapping": [str(v) for v in e["mapping"]]},
    ):
        mine = dumped(change)[1]
        assert render.layout(mine)["buttons"]["SOUTH"] == [240, 130, 20, 20] and shown(mine) == {
            "SOUTH",
            "EAST",
            "WEST",
            "NORTH",
        }
    for size in (0, None, float("nan"), -5):  # no canvas: what is on it
        assert dumped(lambda e: {}, overlay_width=size, overlay_height=size)[1].size == (300, 200)
    data = dumped(lambda e: {})[0]
    for raw in (b"\xef\xbb\xbf" + json.dumps(data).encode(), json.dumps(data).encode("utf-16")):
        (tmp_path / "pad.json").write_bytes(raw)
        assert len(shown(one(tmp_path))) == 4
    del data["elements"][1]["code"], data["elements"][1]["pos"]  # 0, as in the program
    (tmp_path / "pad.json").write_text(json.dumps(data))
    assert render.layout(one(tmp_path))["buttons"]["SOUTH"] == [0, 0, 20, 20]


def test_codes_and_types_of_old_versions(tmp_path, capsys):
    def row(codes, **more):
        return [
            button(c, 20 + 22 * (i % 8), 20 + 30 * (i // 8), RB, **more)
            for i, c in enumerate(codes)
        ]

    preset(tmp_path / "pad.json", row(range(0xEC00, 0xEC0F)))
    assert shown(one(tmp_path)) == set(artefact.BUTTONS) - {"LEFT_TRIGGER", "RIGHT_TRIGGER"}
    preset(tmp_path / "pad.json", row(range(0xEC10, 0xEC15)))  # of the old web tool
    assert shown(one(tmp_path)) == DPAD | {"RIGHT_THUMB"}
    old = [
        *row((0xEC00, 0xEC07), type=1),
        {"type": 4, "side": 1, "stick_radius": 9, "pos": [100, 100], "mapping": RB},
        {"type": 5, "side": 1, "direction": 1, "pos": [200, 100], "mapping": RB},
        {"type": 6, "pos": [250, 9], "mapping": RB},
    ]
    preset(tmp_path / "pad.json", old)  # before version 5, types were counted otherwise
    assert shown(one(tmp_path)) == {"SOUTH", "START", "RIGHT_THUMB", "RIGHT_TRIGGER"} and set(
        render.layout(one(tmp_path))["sticks"]
    ) == {"RIGHT"}
    assert not capsys.readouterr().out
    preset(
        tmp_path / "pad.json", row((0, 5, 15, 20, 99))
    )  # guide, share and touchpad are no actions; 99 is nothing
    assert (
        shown(one(tmp_path)) == {"SOUTH"}
        and "'b99': the code 99 is no button's (nitrogen.json may name it)"
        in capsys.readouterr().out
    )


def test_triggers_go_by_mode_direction_and_side(tmp_path, capsys):
    half = (0, 0, 200, 128)
    picture = atlas()
    paint(picture, 0, 203, 20, 20, RED, half)

    def trigger(x, side, **more):
        return {"type": 6, "side": side, "pos": [x, 40], "mapping": [0, 203, 20, 20], **more}

    for direction in (1, 2, 3, 4):
        preset(
            tmp_path / "pad.json",
            [
                trigger(40, 0, direction=direction, trigger_mode=False),
                trigger(80, 1, trigger_mode=True),
            ],
            picture,
        )
        mine = one(tmp_path)
        assert shown(mine) == {"LEFT_TRIGGER", "RIGHT_TRIGGER"} and colour(mine, 50, 50) == RED
        # over it
        assert np.abs(np.subtract(colour(mine, 50, 50, ALL), (100, 0, 100, 255))).max() <= 2
        # instead
        assert np.abs(np.subtract(colour(mine, 90, 50, ALL), (45, 45, 145, 255))).max() <= 2
    assert not capsys.readouterr().out
    preset(
        tmp_path / "pad.json", [*FACE, trigger(40, 0), trigger(80, 2, trigger_mode=True)], picture
    )
    mine = one(tmp_path)  # without a direction both are always drawn
    assert (
        shown(mine) == {"SOUTH", "EAST", "WEST", "NORTH"}
        and np.abs(np.subtract(colour(mine, 50, 50), (100, 0, 100, 255))).max() <= 2
    )
    assert "looks the same pressed, so is never read: LEFT_TRIGGER" in capsys.readouterr().out


def test_sticks_order_duplicates_and_what_lies_outside(tmp_path):
    def stick(x, **more):
        facts = dict(type=5, id="s", pos=[x, 90], mapping=RB, stick_radius=10, z_level=0)
        return facts | more

    elements = [
        stick(50, side=0),
        stick(150, side=1),
        button(0, 150, 90, [40, 203, 20, 20], z_level="0"),
        button(9, -15, -10, RB),
    ]
    paint(picture := atlas(), 0, 203, 20, 20, RED, BLUE)
    paint(picture, 40, 203, 20, 20, GREEN, (250, 250, 0, 255))
    preset(tmp_path / "pad.json", elements, picture)
    mine = one(tmp_path)
    where = render.layout(mine)
    # all of it
    assert mine.size == (315, 210) and where["buttons"]["LEFT_SHOULDER"] == [0, 0, 20, 20]
    assert where["sticks"] == {"LEFT": [75, 110, 10, 20, 20], "RIGHT": [175, 110, 10, 20, 20]}
    assert colour(mine, 175, 110) == GREEN  # in the list's order, whatever z_level says
    assert colour(mine, 75, 110) == RED and colour(mine, 75, 110, press("LEFT_THUMB")) == BLUE
    assert (
        colour(mine, 93, 110, sticks=(1, 0, 0, 0)) == RED
        and colour(mine, 57, 110, sticks=(1, 0, 0, 0)) == BODY
    )
    preset(
        tmp_path / "pad.json",
        [stick(50, side=0, stick_radius=0), *FACE[:1], button(0, 20, 20, RB)],
        picture,
    )
    mine = one(tmp_path)  # it stands, but shows its click; a button twice
    assert shown(mine) == {"SOUTH", "LEFT_THUMB"} and not render.layout(mine)["sticks"]
    assert (
        colour(mine, 60, 100, ALL)
        == BLUE
        == colour(mine, 30, 30, press("SOUTH"))
        == colour(mine, 250, 140, press("SOUTH"))
    )


def test_letters_of_a_button_that_is_listed_twice(tmp_path):
    letters = [
        button(c, x, y, RB)
        for c, x, y in ((0, 260, 100), (1, 240, 130), (2, 240, 70), (3, 220, 100), (0, 20, 20))
    ]
    preset(tmp_path / "pad.json", letters[-1:] + letters[:-1])
    mine = one(tmp_path)
    assert (
        colour(mine, 30, 30, press("EAST")) == BLUE == colour(mine, 270, 110, press("EAST"))
        and colour(mine, 30, 30, press("SOUTH")) == RED
    )


def header(w, h):
    """The beginning of a PNG of that size."""
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
        + w.to_bytes(4, "big")
        + h.to_bytes(4, "big")
        + b"\x08\x06\0\0\0"
    )


@pytest.mark.parametrize(
    "case, words",
    [
        ("large", "30,000 x 20"),
        ("one colour", "of one colour"),
        ("empty", "of one colour"),
        ("same", "at rest"),
        ("jpeg", "save it as one"),
        ("not JSON", "line 1"),
        ("huge canvas", "overlay_width"),
        ("codes", "nitrogen.json"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_costs_no_other_skin(tmp_path, capsys, case, words):
    bad = tmp_path / "bad dir/my pad.json"
    paint(same := atlas(), 0, 203, 100, 20, RED, RED)
    picture = {
        "one colour": np.full((300, 400, 4), 77, np.uint8),
        "empty": np.zeros((300, 400, 4), np.uint8),
        "same": same,
    }.get(case)
    dpad = {"type": 8, "pos": [9, 9], "mapping": [0, 203, 5, 5]}
    preset(
        bad,
        FACE + [dpad] * (case == "same"),
        picture,
        **{"overlay_width": 9000} if case == "huge canvas" else {},
    )
    png = bad.with_suffix(".png")
    if case == "large":
        png.write_bytes(header(30000, 20))
    elif case == "jpeg":
        png.write_bytes(cv2.imencode(".jpg", atlas()[..., :3])[1].tobytes())
    elif case == "not JSON":
        bad.write_text("{,}")
    elif case == "codes":
        (bad.parent / "nitrogen.json").write_text('{"codes": {"16": "B"}}')
    preset(tmp_path / "good/pad.json", FACE)
    assert list(read(tmp_path)) == ["good/pad"]
    line = capsys.readouterr().out
    assert (
        line.startswith("bad dir/my pad: ")
        and words in line
        and line.endswith("; skipped\n")
        and line.count("\n") == 1
    ), line


def test_nothing_outside_the_folder_is_read(tmp_path, capsys):
    preset(tmp_path / "out/pad.json", FACE)
    preset(tmp_path / "skins/pad.json", FACE)
    (tmp_path / "skins/pad.png").unlink()
    (tmp_path / "skins/pad.png").symlink_to(tmp_path / "out/pad.png")
    with pytest.raises(SystemExit, match="no skin there can be read"):
        read(tmp_path / "skins")
    assert "leads out of the folder" in capsys.readouterr().out
