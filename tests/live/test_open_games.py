"""A table of tasks in real games, and its report."""

import json
import re
import sys
import tempfile

from common import ROOT, artefact
from common.pictures import read_video

import numpy as np
import pytest

import eval as evaluation
import sim
from clock.base import GameError
from live import open_games, pilot, play
from piloting import config, hooked

CLEAR = (
    "import sys, time; print('far 3', 'far 12', file=sys.stderr, sep=chr(10)); "
    "open(sys.argv[1] + '/save', 'wb').write(bytes([7, 0, 0, 0, 5])); "
)


def table(tmp_path, name="a", **task):
    task = {
        "goal": "a goal",
        "command": [sys.executable, "-c", CLEAR + "time.sleep(1000)", "{home}"],
        "seconds": 1,
        **task,
    }
    (tmp_path / f"{name}.json").write_text(json.dumps({name: task}))
    return str(tmp_path / f"{name}.json")


@pytest.mark.parametrize(
    "rule, value",
    [
        ({"stderr": r"far (\d+)", "goal": 24}, 0.5),
        ({"stderr": r"far (\d+)", "from": 10, "goal": 14}, 0.5),
        ({"stderr": r"near (\d+)", "goal": 2}, 0.0),
        ({"file": "save", "struct": "<4xB", "goal": 10}, 0.5),
        ({"file": "save", "struct": "<B", "goal": 2}, 1.0),
        ({"file": "save", "struct": "<8xi", "goal": 2}, 0.0),
        ({"file": "none", "struct": "<i", "goal": 2}, 0.0),
        ({"exit": 3}, 1.0),
        ({"exit": 0}, 0.0),
    ],
)
def test_scores_are_what_the_game_wrote(rule, value, tmp_path):
    from types import SimpleNamespace

    (tmp_path / "stderr").write_text("far 3\nfar 12\nfar 4\n")
    (tmp_path / "save").write_bytes(bytes([7, 0, 0, 0, 5]))
    env = SimpleNamespace(
        sandbox=SimpleNamespace(path=tmp_path), clock=SimpleNamespace(returncode=3)
    )
    assert open_games.task_score(rule, env, tmp_path, str(tmp_path)) == value


def test_scores_are_what_the_game_shows(tmp_path):
    from types import SimpleNamespace

    import cv2

    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "won.png"), frame[20:60, 30:80, ::-1])
    rule, found = (
        {"picture": "won.png", "like": 0.9},
        lambda picture: open_games.task_score(
            rule, SimpleNamespace(render=lambda: picture), tmp_path, ""
        ),
    )
    assert found(frame) == 1 and found(np.roll(frame, 7, 1)) == 1 and found(frame[::-1].copy()) == 0
    with pytest.raises(SystemExit, match="won.png: larger than a frame of 160 x 30"):
        found(frame[:30])


@pytest.mark.parametrize(
    "change, why",
    [
        ({"score": {"stderr": r"a (b) (\d+)", "goal": 5}}, "one group, and numbers"),
        ({"score": {"file": "x", "struct": "<4s", "goal": 2}}, "one group, and numbers"),
        ({"score": {"picture": "none.png"}}, "none.png: no such picture"),
        ({"files": {"/etc/passwd": "x"}}, "no path below the game's home"),
        ({"files": {"a/../../b": "x"}}, "no path below the game's home"),
        ({"files": {"a": {"from": "b"}}}, "is made of another file"),
        ({"files": {"a": {}}}, "is made of another file"),
        ({"files": {"": "x"}}, "no path below the game's home"),
        ({"gamepad": "nope"}, "gamepad 'nope': there is auto"),
        ({"screen": "nope"}, "screen 'nope': there is auto"),
    ],
)
def test_a_wrong_task_is_named_before_anything_runs(tmp_path, change, why):
    good = {
        "goal": "a goal",
        "command": ["x"],
        "seconds": 1,
        "score": {"stderr": r"far (\d+)", "goal": 5},
        "files": {"a/b": "x"},
    }
    (tmp_path / "t.json").write_text(json.dumps({"a": good}))
    assert "a" in open_games.open_table(str(tmp_path / "t.json"))[0]
    (tmp_path / "t.json").write_text(json.dumps({"a": good | change}))
    with pytest.raises(SystemExit, match=rf"t.json: a: .*{why}"):
        open_games.open_table(str(tmp_path / "t.json"))


def test_the_table_that_is_shipped_and_others(tmp_path):
    tasks, folder = open_games.open_table("open")
    assert {"tux-reach", "tux-finish", "doom-kills", "doom-items", "doom-exit"} <= set(
        tasks
    ) and folder == ROOT / "assets"
    for text in ("[]", "{", "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SystemExit, match=r"bad.json: not a table of tasks \([^\n]*$"):
            open_games.open_table(str(tmp_path / "bad.json"))
    with pytest.raises(SystemExit, match="nowhere.json: not a table of tasks .*No such file"):
        open_games.open_table(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    "task, why",
    [
        ({"goal": ""}, "goal is ''"),
        ({"command": "game"}, "it: 'command' should be a list of 1 or more, found 'game'"),
        ({"fsp": 60}, "a task has goal, command, seconds, score, and perhaps install, fps"),
        ({"seconds": 0}, "seconds is 0"),
        ({"score": {}}, "score is {}"),
        ({"score": {"stdout": "x", "goal": 1}}, "its score is one of"),
        ({"score": {"stderr": "x"}}, "its score: 'goal' should be a number"),
        ({"fps": "60"}, "it: 'fps' should be a number in 1..1000, found '60'"),
        ({"score": {"exit": 0, "picture": "won.png"}}, "its score is one of"),
        ({"score": {"picture": "won.png"}}, "won.png: no such picture"),
        ({"score": {"stderr": "(x", "goal": 1}}, "unterminated subpattern"),
        ({"score": {"file": "a", "struct": "<k", "goal": 1}}, "bad char in struct format"),
        ({"score": {"stderr": "x", "goal": 1, "from": 1}}, "division by zero"),
        ({"keys": {"SOTUH": "z"}}, "SOTUH=z in keys is no button"),
        ({"keys": {"LEFT_X": "z"}}, "LEFT_X=z in keys"),
        ({"keys": {"SOUTH": "Retrun"}}, "SOUTH=Retrun in keys"),
        (
            {"start": [1, "STRAT"]},
            "'STRAT' in a macro is no number of seconds, no button and no key",
        ),
    ],
)
def test_mistakes_in_a_table_are_named(task, why, tmp_path):
    with pytest.raises(
        SystemExit, match=rf"a.json: a: .*{re.escape(why)}[^\n]* \(line 1\); see assets/open.json$"
    ):
        open_games.open_table(table(tmp_path, **{"score": {"exit": 0}, **task}))


def test_the_line_of_a_mistake_is_named(tmp_path):
    path = tmp_path / "a.json"
    good = {"goal": "a goal", "command": ["x"], "seconds": 1, "score": {"exit": 0}}
    for wrong in ({"fsp": 60}, {"seconds": "1"}, {"keys": {"SOTUH": "z"}}):
        path.write_text(json.dumps({"b": good, "a": {**good, **wrong}}, indent=1))
        (field,) = wrong
        lines = path.read_text().splitlines()
        second = lines.index(' "a": {')
        wanted = next(i for i in range(second, 99) if f'"{field}"' in lines[i]) + 1
        with pytest.raises(SystemExit, match=rf"a.json: a: .*{field}.* \(line {wanted}\); see"):
            open_games.open_table(str(path))


def test_the_table_in_the_docs(tmp_path):
    import cv2

    (tmp_path / "mine.json").write_text(
        re.search(r'\{"boss": .*?\}\}\}', (ROOT / "docs" / "real-games.md").read_text(), re.S)[0]
    )
    cv2.imwrite(str(tmp_path / "victory.png"), np.zeros((9, 9, 3), np.uint8))
    task = open_games.open_table(str(tmp_path / "mine.json"))[0]["boss"]
    assert task["keys"]["LEFT_X-"] == "a" and all(
        json.loads(line)
        for line in re.findall(
            r'`(\{"(?:stderr|file|exit)".*?\})`', (ROOT / "docs" / "real-games.md").read_text()
        )
    )


def test_files_for_the_game(tmp_path):
    """Text, another file with a part replaced, a copy of one that is no text: a savegame, say."""
    (tmp_path / "level").write_text("goal goal")
    (tmp_path / "save").write_bytes(bytes(range(256)))
    open_games.fill(
        tmp_path / "home",
        {
            "a/b.txt": "text",
            "c.txt": {"of": str(tmp_path / "level"), "find": "goal", "put": "end"},
            "d": {"of": str(tmp_path / "save")},
        },
    )
    assert [(tmp_path / "home" / n).read_bytes() for n in ("a/b.txt", "c.txt", "d")] == [
        b"text",
        b"end goal",
        bytes(range(256)),
    ]
    with pytest.raises(SystemExit, match="'nothing' is not in it"):
        open_games.fill(
            tmp_path, {"c.txt": {"of": str(tmp_path / "level"), "find": "nothing", "put": ""}}
        )


@hooked
def test_a_task_of_your_own(policy, tmp_path, capsys, monkeypatch):
    """A built-in game as somebody's own: command, start macro, success picture; three players, a
    table, and a line about what is missing.
    """
    import cv2

    command = [
        sys.executable,
        str(ROOT / "games" / "ridge.py"),
        "--seed",
        "{seed}",
        "--fps",
        "{fps}",
    ]
    with sim.launch(config(command=tuple(command))) as env:
        env.reset(seed=0)
        for _ in range(20):
            env.step({"buttons": np.zeros(16), "sticks": np.float32([1, 0, 0, 0])})
        cv2.imwrite(str(tmp_path / "won.png"), env.render()[60:220, 200:400, ::-1])
    path = table(
        tmp_path,
        command=command,
        fps=30,
        start=[0.2, "WEST"],
        score={"picture": "won.png", "like": 0.95},
    )
    held = evaluation.ConstantPad
    # "none" runs to the right here, and gets there
    monkeypatch.setattr(evaluation, "ConstantPad", lambda: held(1, 0))
    out = play.main(
        config(
            command=(),
            suite=path,
            policy=policy,
            device="cpu",
            seeds=1,
            workers=0,
            out=str(tmp_path),
        )
    )
    assert out["a"]["none"]["success"][0] == out["a"]["none"]["progress"][0] == 1 and set(
        out["a"]
    ) == {"policy", "random", "none"}
    assert json.loads((tmp_path / "open.json").read_text()) == json.loads(json.dumps(out))
    said = capsys.readouterr().out
    assert "3 episodes, 0 are there" in said and re.search(
        r"^a  .* 100 \[21, 100\] \(1.00\)   a goal$", said, re.M
    )
    warning = "warning: a: the untouched pad completes it in 1 of 1 episodes: the task is too easy"
    assert warning in said and warning.removeprefix("warning: ") in (
        page := (tmp_path / "report.html").read_text()
    )
    (film,) = (tmp_path / "films").glob("*.mp4")  # of the policy
    assert f'href="films/{film.name}"' in page and (
        next(read_video(film))[2].shape == (270, 480 + 200, 3)
    )
    # one episode of the policy, shown once, and one of each of the others
    assert len(list((tmp_path / "films").glob("*.jpg"))) == 3
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:|films/)", page)
    real, again = open_games.in_real_game, lambda *a: pytest.fail("played again")
    # what has been played is not played again
    monkeypatch.setattr(open_games, "in_real_game", again)
    assert (
        play.main(
            config(
                command=(),
                suite=path,
                policy=policy,
                device="cpu",
                seeds=1,
                workers=0,
                out=str(tmp_path),
            )
        )
        == out
    )
    assert "3 episodes, 3 are there" in capsys.readouterr().out
    monkeypatch.setattr(open_games, "in_real_game", real)
    # only the policy has to be in time
    fast = config(
        suite=table(tmp_path, command=command, fps=30, score={"exit": 0}), realtime=True, speed=1e6
    )
    assert open_games.in_real_game(evaluation.Job("random", "", "a", 0), fast)[
        "time"
    ] == pytest.approx(1, abs=0.05)
    with pytest.raises(
        GameError,
        match="^the macro's 'Return' is a key, and the game has no window to press it in$",
    ):
        open_games.in_real_game(
            evaluation.Job("none", "", "a", 0),
            config(
                suite=table(tmp_path, command=command, fps=30, start=["Return"], score={"exit": 0})
            ),
        )
    missing = table(tmp_path, "b", command=["no-such-game"], install="buy it", score={"exit": 0})
    with pytest.raises(SystemExit, match=r"^--tasks c: no task 'c' in this table \(there are a\)$"):
        play.main(config(command=(), suite=path, tasks="c", policy=policy, device="cpu"))
    with pytest.raises(SystemExit, match="no episodes given"):
        play.main(config(command=(), suite=missing, policy=policy, device="cpu"))
    assert "b: skipped, no-such-game is not installed (buy it)" in capsys.readouterr().err


def real(name):
    task = open_games.open_table("open")[0][name]
    return pytest.mark.skipif(
        not open_games.program(task["command"][0]) or bool(sim.hook_fault()),
        reason=f"{task['command'][0]} is not installed ({task['install']})",
    )


@real("tux-reach")
def test_supertux_says_how_far_it_came(monkeypatch):
    """By the number that the game itself writes: nothing at the start, something after a second and
    a half to the right.
    """
    seen, real, held = [], open_games.task_score, evaluation.ConstantPad
    monkeypatch.setattr(evaluation, "ConstantPad", lambda: held(1, 0))
    monkeypatch.setattr(open_games, "task_score", lambda *a: (seen.append(real(*a)), seen[-1])[1])
    tasks, folder = open_games.open_table("open")
    monkeypatch.setattr(
        open_games,
        "open_table",
        lambda suite: ({"tux-reach": {**tasks["tux-reach"], "seconds": 1.5}}, folder),
    )
    assert open_games.in_real_game(
        evaluation.Job("none", "open", "tux-reach", 0), config(suite="open")
    )["progress"] == max(seen)
    assert seen[0] == 0 and 0.08 < seen[-1] < 0.5, seen


@pytest.mark.slow
@real("doom-kills")
@pytest.mark.parametrize("name, warp, value", [("doom-kills", "1", 1 / 3), ("doom-exit", "2", 1.0)])
def test_doom_says_what_was_done(name, warp, value):
    """By the savegame that the end macro makes: one kill of three, by a walk that is the same each
    time; and the level that it is in.
    """
    task = open_games.open_table("open")[0][name]
    with tempfile.TemporaryDirectory() as home:
        command = [
            warp if i and task["command"][i - 2] == "-warp" else part
            for i, part in enumerate(task["command"])
        ]
        c = config(command=(open_games.program(command[0]), *command[1:]), fps=35, home=home)
        with sim.launch(c) as env:
            env.reset(seed=0)
            pilot.press(env, [1, *"iddqd"], 35)  # not to be killed oneself
            rng, turn = np.random.default_rng(1), ""
            for i in range(1400 if name == "doom-kills" else 10):
                turn = rng.choice(["DPAD_LEFT", "DPAD_RIGHT", "", ""]) if i % 10 == 0 else turn
                held = [
                    "DPAD_UP",
                    turn,
                    "SOUTH" if i % 4 < 2 else "",
                    "EAST" if i % 35 == 0 else "",
                ]
                env.step({"buttons": np.isin(artefact.BUTTONS, held), "sticks": np.zeros(4)})
            assert open_games.task_score(task["score"], env, ROOT, home) == 0
            pilot.press(env, task["end"][-7:], 35)
            assert open_games.task_score(task["score"], env, ROOT, home) == pytest.approx(value)
