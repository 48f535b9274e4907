"""A table of tasks in real games: python eval.py play --suite open, or a table of your own

A task says:
  goal      in words
  command   of the game, with "{home}" for its home folder; fps, seconds, gamepad, screen, keys: as
            for sim.GameEnv; install: how to get it
  files     to put into its home, {name: content}: a text; {"of"}, a copy of another file; or
            {"of", "find", "put"}, a copy with the text "find" replaced
  start     macro before the policy plays: seconds, buttons and X keys
  end       macro after it has played, before the last look at the score
  score     one of
            {"stderr": pattern of a number, "from", "goal"}
            {"file": in its home, "struct": of numbers, "from", "goal"}
            {"exit": status}
            {"picture": a PNG beside the table, "like": 0..1}: part of the frame when it is done
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from common import ROOT, artefact

import cv2

import devices
import eval as evaluation
import sim
from bench.report import played
from clock.base import GameError
from devices.x11 import KEYSYMS
from live import pilot
from live.open_report import Watch, write_report

NUMBER = (-1e12, 1e12)
# patterns as artefact.amiss reads them
TASK = {
    "goal": str,
    "command": [str],
    "seconds": (0.1, 1e6),
    "score": dict,
    "install?": str,
    "fps?": (1, 1000),
    "gamepad?": str,
    "screen?": str,
    "keys?": {str: str},
    "files?": dict,
    "start?": list,
    "end?": list,
}
SCORES = (
    {"stderr": str, "goal": NUMBER, "from?": NUMBER},
    {"file": str, "struct": str, "goal": NUMBER, "from?": NUMBER},
    {"exit": (0, 255)},
    {"picture": str, "like?": (0, 1)},
)
REAL_PLAYERS = ("policy", "random", "none")


def open_table(suite: str) -> tuple[dict, Path]:
    """(tasks by name, folder of the table); SystemExit names what is wrong with which task."""
    path = ROOT / "assets" / "open.json" if suite == "open" else Path(suite)
    try:
        table = json.loads(path.read_text())
        if not isinstance(table, dict) or not table:
            raise ValueError("expected {name: task, ...}")
    except (OSError, ValueError, RecursionError) as e:
        raise SystemExit(f"{path}: not a table of tasks ({e}); see assets/open.json") from None
    for name, task in table.items():
        if fault := task_fault(task, path.parent):
            line = line_of(path.read_text(), name, task, fault)
            raise SystemExit(f"{path}: {name}: {fault} (line {line}); see assets/open.json")
    return table, path.parent


def line_of(text: str, name: str, task, fault: str) -> int:
    """The line, from 1, of the field of a task that the fault names, or of the task."""
    fields = task if isinstance(task, dict) else {}
    at = max(0, text.find(f'"{name}"'))
    named = [word for word in re.findall(r"\w+", fault) if word in fields]
    at = max(at, text.find(f'"{named[0]}"', at)) if named else at
    return text.count("\n", 0, at) + 1


def task_fault(task, folder: Path) -> str:
    """The first fault of a task, as a sentence; empty if there is none."""
    return next(filter(None, (rule(task, folder) for rule in TASK_RULES)), "")


def wrong_fields(task, folder) -> str:
    needed = [k for k in TASK if k[-1] != "?"]
    optional = [k[:-1] for k in TASK if k[-1] == "?"]
    fields = set(task) if isinstance(task, dict) else set()
    if set(needed) <= fields <= {*needed, *optional}:
        return ""
    other = sorted(fields - {*needed, *optional})
    what = f"it has '{other[0][:60]}'; " if other else ""
    return f"{what}a task has {', '.join(needed)}, and perhaps {', '.join(optional)}"


def empty_field(task, folder) -> str:
    empty = [k for k, v in task.items() if not v]
    return f"{empty[0]} is {task[empty[0]]!r}" if empty else ""


def wrong_type(task, folder) -> str:
    return artefact.amiss(task, TASK, "it") or ""


def wrong_kind_of_score(task, folder) -> str:
    score = task["score"]
    kinds = kinds_of(score)
    if len(kinds) == 1 and None not in score.values():
        if set(score) <= {k.rstrip("?") for k in kinds[0]}:
            return ""
    return (
        "its score is one of stderr + goal, file + struct + goal, exit, picture, not "
        f"{ascii(score)[:100]}"
    )


def kinds_of(score: dict) -> list[dict]:
    return [kind for kind in SCORES if next(iter(kind)) in score]


def score_without_number(task, folder) -> str:
    score = task["score"]
    try:
        try_score(score, folder)
    except (re.error, struct.error, ZeroDivisionError, ValueError) as e:
        return f"its score {ascii(score)[:100]} cannot be taken ({e})"
    return ""


def try_score(score: dict, folder: Path) -> None:
    """Raise what is wrong with the score's values."""
    if fault := artefact.amiss(score, kinds_of(score)[0], "its score"):
        raise ValueError(fault)
    form = score.get("struct", "")
    values = struct.unpack(form, bytes(struct.calcsize(form)))
    groups = re.compile(score.get("stderr", "")).groups
    if groups > 1 or any(isinstance(v, bytes) for v in values):
        raise ValueError("expected at most one group, and numbers")
    1 / (score.get("goal", 1) - score.get("from", 0))
    if "picture" in score and read_picture(folder / score["picture"]) is None:
        raise ValueError(f"{folder / score['picture']}: no such picture")


def wrong_file(task, folder) -> str:
    for name, content in task.get("files", {}).items():
        outside = os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] in (".", "..")
        if outside or not isinstance(content, (str, dict)):
            return f"files {name[:60]!r} is no text, or no path below the game's home folder"
        if isinstance(content, dict) and not is_copy(content):
            return (
                f"files {name[:60]!r} is made of another file (of), and perhaps a text in it "
                "(find) that becomes another (put)"
            )
    return ""


def is_copy(content: dict) -> bool:
    texts = all(isinstance(v, str) for v in content.values())
    return texts and set(content) in ({"of"}, {"of", "find", "put"})


def unknown_device(task, folder) -> str:
    for key, table in (("gamepad", sim.GAMEPADS), ("screen", sim.SCREENS)):
        known = devices.names(table)
        if task.get(key, "auto") not in known:
            return f"{key} {task[key]!r}: there is {', '.join(known)}"
    return ""


def wrong_keys(task, folder) -> str:
    for name, key in task.get("keys", {}).items():
        direction = name[:-1] in artefact.STICKS and name[-1] in "+-"
        if not is_key(key) or not (name in artefact.BUTTONS or direction):
            text = f"{name}={key}"[:60]
            return f"{text} in keys is no button, or stick and direction, and key"
    return ""


def wrong_macro(task, folder) -> str:
    for part in (*task.get("start", ()), *task.get("end", ())):
        if not isinstance(part, (int, float)) and part not in artefact.BUTTONS and not is_key(part):
            text = ascii(part)[:60]
            return f"{text} in a macro is no number of seconds, no button and no key"
    return ""


# in this order: each may rely on those before it
TASK_RULES = (
    wrong_fields,
    empty_field,
    wrong_type,
    wrong_kind_of_score,
    score_without_number,
    wrong_file,
    unknown_device,
    wrong_keys,
    wrong_macro,
)


def is_key(name) -> bool:
    return isinstance(name, str) and (len(name) == 1 or name in KEYSYMS)


def read_picture(path: Path):
    """uint8 [h, w, 3] RGB; None if it cannot be read."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    return None if picture is None else picture[..., ::-1].copy()


# ---- the suite -----------------------------------------------------------------------------------


def open_suite(c) -> dict:
    """The policy, chance and an untouched pad at real games, and their report."""
    table, folder = open_table(c.suite)
    seeds = min(4, c.seeds) if c.quick else c.seeds
    settings = settings_of(c)
    tasks = [
        (f"{Path(c.suite).stem}-{task_digest(table[name], folder)}", name)
        for name in installed_tasks(c, table)
    ]
    c = evaluation.with_folder(c, settings)
    suite = evaluation.Suite(c, settings, tasks, range(c.seed, c.seed + seeds), REAL_PLAYERS)
    return played(suite, watched, functools.partial(write_report, table=table))


def installed_tasks(c, table: dict) -> list[str]:
    """Those of --tasks whose game is on this machine; a line about each of the others."""
    wanted = list(table) if c.tasks == "all" else c.tasks.split(",")
    if unknown := set(wanted) - set(table):
        raise SystemExit(
            f"--tasks {c.tasks}: no task '{min(unknown)}' in this table "
            f"(there are {', '.join(table)})"
        )
    names = [name for name in wanted if program(table[name]["command"][0])]
    for name in wanted:
        if name not in names:
            fix = table[name].get("install", "sudo apt install it")
            missing = table[name]["command"][0]
            print(f"{name}: skipped, {missing} is not installed ({fix})", file=sys.stderr)
    return names


def settings_of(c) -> dict:
    """What decides an episode; it opens the policy, so that a fault is one line now."""
    with contextlib.closing(pilot.brain_of(c)) as brain:
        policy = brain.about.get("policy") or artefact.source(c.policy)["sha256"]
    flags = {k: getattr(c, k) for k in ("execute", "steps", "realtime", "speed", "menu")}
    return {"policy": policy, "seed": c.seed, **flags}


def program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/games")


def task_digest(task: dict, folder: Path) -> str:
    """Hash of all that the table says about a task: another task, other episodes."""
    picture = task["score"].get("picture")
    pixels = (folder / picture).read_bytes() if picture else b""
    return hashlib.sha256(json.dumps(task).encode() + pixels).hexdigest()[:8]


# ---- one episode ---------------------------------------------------------------------------------


def watched(job: evaluation.Job, c) -> dict:
    """in_real_game, with a strip of it and, of the policy, a film."""
    task = open_table(c.suite)[0][job.task]
    measure = "likeness" if "picture" in task["score"] else "progress"
    with Watch(job, c, task.get("fps", 60), measure) as watch:
        score = in_real_game(job, c, watch)
        watch.save_strip()
    return score


def in_real_game(job: evaluation.Job, c, watch=None) -> dict:
    """The score of one player at one task: the most progress that was seen, half a second apart.

    watch: see Watch.__call__, called for every frame
    """
    table, folder = open_table(c.suite)
    task = table[job.task]
    with tempfile.TemporaryDirectory(prefix="nitro-home-") as home, contextlib.ExitStack() as stack:
        fill(Path(home), task.get("files", {}))
        c = config_of(task, job, c, home)
        agent = player_of(job, c, stack)
        env = stack.enter_context(sim.launch(c, keys=task.get("keys")))
        best = 0.0
        began = info = None

        def look() -> float:
            """How close it is now: the likeness of the picture of success, or the progress."""
            nonlocal best
            progress = task_score(task["score"], env, folder, home)
            best = max(best, progress)
            picture = task["score"].get("picture")
            return likeness(folder / picture, env.render()) if picture and watch else progress

        for i, info in enumerate(pilot.frames(env, agent, c, start=task.get("start", ()))):
            began = info["time"] if began is None else began
            looks = i % max(1, c.fps // 2) == 0 or not env.clock.alive
            close = look() if looks else None
            if watch:
                watch(env, info, info["time"] - began, best, close)
            if best >= 1:
                break
        if best < 1 and env.clock.alive:
            pilot.press(env, task.get("end", ()), c.fps)
            close = look()
            if watch:
                watch(env, info, info["time"] - began, best, close)
        return {"progress": best, "success": best >= 1, "time": info["time"] - began}


def config_of(task: dict, job: evaluation.Job, c, home: str):
    """The Config of play, for this task."""
    first, *rest = (part.replace("{home}", home) for part in task["command"])
    chosen = {k: task[k] for k in ("gamepad", "screen") if k in task}
    return dataclasses.replace(
        c,
        command=(program(first), *rest),
        fps=task.get("fps", 60),
        seconds=float(task["seconds"]),
        seed=job.seed,
        home=home,
        realtime=c.realtime and job.player == "policy",
        **chosen,
    )


def player_of(job: evaluation.Job, c, stack: contextlib.ExitStack):
    if job.player == "random":
        return sim.StickyRandom(job.seed, c.fps)
    if job.player == "none":
        return evaluation.ConstantPad()
    brain = stack.enter_context(contextlib.closing(pilot.brain_of(c)))
    return stack.enter_context(contextlib.closing(pilot.Pilot(brain, c)))


def fill(home: Path, files: dict) -> None:
    """Write a task's files into the game's home."""
    for name, content in files.items():
        data = copied(name, content) if isinstance(content, dict) else content.encode()
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)


def copied(name: str, rule: dict) -> bytes:
    try:
        data = Path(rule["of"]).read_bytes()
    except OSError as e:
        raise SystemExit(
            f"{rule['of']}: cannot be read ({e.strerror}), so that {name} cannot be made of it"
        ) from None
    if "find" not in rule:
        return data
    if rule["find"].encode() not in data:
        raise SystemExit(f"{rule['of']}: {rule['find']!r} is not in it")
    return data.replace(rule["find"].encode(), rule["put"].encode(), 1)


def task_score(rule: dict, env, folder: Path, home: str) -> float:
    """0..1, from what the game has written or shows."""
    if "exit" in rule:
        return float(env.clock.returncode == rule["exit"])
    if "picture" in rule:
        return float(likeness(folder / rule["picture"], env.render()) >= rule.get("like", 0.9))
    if "file" in rule:
        path = Path(home) / rule["file"]
        size = struct.calcsize(rule["struct"])
        data = path.read_bytes()[:size] if path.exists() else b""
        values = struct.unpack(rule["struct"], data) if len(data) == size else (0,)
    else:
        stderr = (env.sandbox.path / "stderr").read_text(errors="replace")
        values = re.findall(rule["stderr"], stderr) or (0,)
    try:
        value = max(map(float, values))
    except ValueError as e:
        raise GameError(f"score {rule['stderr']!r} on the game's stderr: {e}") from None
    begin = rule.get("from", 0)
    return min(1.0, max(0.0, (value - begin) / (rule["goal"] - begin)))


def likeness(path: Path, frame) -> float:
    """Correlation, -1..1, of a picture with the part of the frame that is most like it."""
    part = read_picture(path)
    h, w = frame.shape[:2]
    if part.shape[0] > h or part.shape[1] > w:
        raise SystemExit(f"{path}: larger than a frame of {w} x {h}")
    return cv2.matchTemplate(frame, part, cv2.TM_CCOEFF_NORMED).max()
