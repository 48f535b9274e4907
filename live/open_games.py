"""A table of tasks in real games: python eval.py play --suite open, or a table of your own"""

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
from common.workers import for_each

import eval as evaluation
import sim
from clock.base import GameError
from devices.x11 import KEYSYMS
from live import pilot

NUMBER = (-1e12, 1e12)
TASK = {
    "goal": str,
    "command": [str],
    "seconds": (0.1, 1e6),
    "score": dict,
    "install?": str,
    "fps?": (1, 1000),
    "gamepad?": str,
    "screen?": str,
    # as artefact.amiss reads it
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
            raise SystemExit(f"{path}: {name}: {fault}; see assets/open.json")
    return table, path.parent


def task_fault(task, folder: Path) -> str:
    """What is wrong with a task, in words; empty if nothing is."""
    needed, known = [k for k in TASK if k[-1] != "?"], [k.rstrip("?") for k in TASK]
    if not isinstance(task, dict) or not set(needed) <= set(task) <= set(known):
        return f"a task has {', '.join(needed)}, and perhaps {', '.join(known[len(needed) :])}"
    if empty := [k for k, v in task.items() if not v]:
        return f"{empty[0]} is {task[empty[0]]!r}"
    score = task["score"]
    if fault := artefact.amiss(task, TASK, "it"):
        return fault
    kinds = [p for p in SCORES if next(iter(p)) in score]
    if (
        len(kinds) != 1
        or not set(score) <= {k.rstrip("?") for k in kinds[0]}
        or None in score.values()
    ):
        return f"its score is one of stderr + goal, file + struct + goal, exit, picture, not {ascii(score)[:100]}"
    try:
        fault = artefact.amiss(score, kinds[0], "its score")
        values = struct.unpack(
            form := score.get("struct", "") if not fault else "", bytes(struct.calcsize(form))
        )
        if (
            fault
            or re.compile(score.get("stderr", "")).groups > 1
            or any(isinstance(v, bytes) for v in values)
        ):
            raise ValueError(fault or "expected at most one group, and numbers")
        1 / (score.get("goal", 1) - score.get("from", 0))
        if "picture" in score and read_picture(folder / score["picture"]) is None:
            raise ValueError(f"{folder / score['picture']}: no such picture")
    except (re.error, struct.error, ZeroDivisionError, ValueError) as e:
        return f"its score {ascii(score)[:100]} cannot be taken ({e})"
    for name, content in task.get("files", {}).items():
        if (
            os.path.isabs(name)
            or os.path.normpath(name).split(os.sep)[0] in (".", "..")
            or not isinstance(content, (str, dict))
        ):
            return f"files {name[:60]!r} is no text, or no path below the game's home folder"
        if isinstance(content, dict) and (
            set(content) not in ({"of"}, {"of", "find", "put"})
            or not all(isinstance(v, str) for v in content.values())
        ):
            return f"files {name[:60]!r} is made of another file (of), and perhaps a text in it (find) that becomes another (put)"
    for key, known in (("gamepad", sim.GAMEPADS), ("screen", sim.SCREENS)):
        if task.get(key, "auto") not in known:
            return f"{key} {task[key]!r}: there is {', '.join(known)}"
    if wrong := [
        f"{n}={k}"
        for n, k in task.get("keys", {}).items()
        if not is_key(k)
        or not (n in artefact.BUTTONS or n[:-1] in artefact.STICKS and n[-1] in "+-")
    ]:
        return f"{wrong[0][:60]} in keys is no button, or stick and direction, and key"
    wrong = [
        p
        for p in (*task.get("start", ()), *task.get("end", ()))
        if not isinstance(p, (int, float)) and p not in artefact.BUTTONS and not is_key(p)
    ]
    return (
        f"{ascii(wrong[0])[:60]} in a macro is no number of seconds, no button and no key"
        if wrong
        else ""
    )


def is_key(name) -> bool:
    return isinstance(name, str) and (len(name) == 1 or name in KEYSYMS)


def read_picture(path: Path):
    """uint8 [h, w, 3] RGB; None if it cannot be read."""
    import cv2

    picture = cv2.imread(str(path)) if path.is_file() else None
    return None if picture is None else picture[..., ::-1].copy()


def open_suite(c) -> dict:
    """The policy, chance and an untouched pad at real games: completed tasks and progress, printed
    and in OUT/open.json.
    """
    table, folder = open_table(c.suite)
    wanted = list(table) if c.tasks == "all" else c.tasks.split(",")
    if unknown := set(wanted) - set(table):
        raise SystemExit(
            f"--tasks {c.tasks}: no task '{min(unknown)}' in this table (there are {', '.join(table)})"
        )
    names, seeds = [n for n in wanted if program(table[n]["command"][0])], 4 if c.quick else c.seeds
    for n in wanted:
        if n not in names:
            print(
                f"{n}: skipped, {table[n]['command'][0]} is not installed ({table[n].get('install', 'sudo apt install it')})",
                file=sys.stderr,
            )
    with contextlib.closing(pilot.brain_of(c)) as brain:  # one clear line now, not one per episode
        settings = {
            "policy": brain.about.get("policy") or artefact.source(c.policy)["sha256"],
            "seed": c.seed,
            **{k: getattr(c, k) for k in ("execute", "steps", "realtime", "speed", "menu")},
        }
    c = evaluation.with_folder(c, settings)
    jobs = [
        evaluation.Job(p, f"{Path(c.suite).stem}-{task_digest(table[n], folder)}", n, c.seed + i)
        for i in range(seeds)
        for n in names
        for p in REAL_PLAYERS
    ]
    left = [j for j in jobs if not evaluation.kept(j, c, settings)]
    print(
        f"{len(names)} tasks, {seeds} episodes of each by {', '.join(REAL_PLAYERS)}: {len(jobs)} episodes, {len(jobs) - len(left)} are there -> {c.out}",
        flush=True,
    )
    if left or not jobs:
        for_each(
            functools.partial(evaluation.episode, c=c, settings=settings, play=in_real_game),
            left,
            c.workers,
            "episodes",
            c.ray,
        )
    records = [evaluation.kept(j, c, settings, crashed=True) for j in jobs]
    out = {
        n: {
            p: evaluation.summary([r for r in records if (r["task"], r["player"]) == (n, p)])
            for p in REAL_PLAYERS
        }
        for n in names
    }
    print(
        f"completed, %, and 95 % interval; in brackets mean progress, 0..1\n{'task':16s}"
        + "".join(f"{p:>22s}" for p in REAL_PLAYERS)
    )
    for n, row in out.items():
        print(
            f"{n:16s}"
            + "".join(f"{evaluation.cell(s):>22s}" for s in row.values())
            + f"   {table[n]['goal']}"
        )
    evaluation.print_crashes(records)
    artefact.write_bytes(Path(c.out) / "open.json", json.dumps(out, indent=1).encode())
    return out


def program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/games")


def task_digest(task: dict, folder: Path) -> str:
    """Of all that the table says about a task: with another, its episodes are others."""
    picture = task["score"].get("picture")
    return hashlib.sha256(
        json.dumps(task).encode() + ((folder / picture).read_bytes() if picture else b"")
    ).hexdigest()[:8]


def in_real_game(job: evaluation.Job, c) -> dict:
    """The score of one player at one task: the most progress that was seen, half a second apart."""
    table, folder = open_table(c.suite)
    task, began, info = table[job.task], None, None
    with tempfile.TemporaryDirectory(prefix="nitro-home-") as home, contextlib.ExitStack() as stack:
        fill(Path(home), task.get("files", {}))
        command = [part.replace("{home}", home) for part in task["command"]]
        c = dataclasses.replace(
            c,
            command=(program(command[0]), *command[1:]),
            fps=task.get("fps", 60),
            seconds=float(task["seconds"]),
            seed=job.seed,
            home=home,
            realtime=c.realtime and job.player == "policy",
            **{k: task[k] for k in ("gamepad", "screen") if k in task},
        )
        agent = (
            sim.StickyRandom(job.seed, c.fps)
            if job.player == "random"
            else evaluation.Held()
            if job.player == "none"
            else stack.enter_context(
                contextlib.closing(
                    pilot.Pilot(stack.enter_context(contextlib.closing(pilot.brain_of(c))), c)
                )
            )
        )
        env, best = stack.enter_context(sim.launch(c, keys=task.get("keys"))), 0.0
        look = lambda: max(best, task_score(task["score"], env, folder, home))
        for i, info in enumerate(pilot.frames(env, agent, c, start=task.get("start", ()))):
            began = info["time"] if began is None else began
            best = look() if i % max(1, c.fps // 2) == 0 or not env.clock.alive else best
            if best >= 1:
                break
        if best < 1 and env.clock.alive:
            pilot.press(env, task.get("end", ()), c.fps)
            best = look()
        return {"progress": best, "success": best >= 1, "time": info["time"] - began}


def fill(home: Path, files: dict) -> None:
    for name, content in files.items():
        if isinstance(content, dict):
            rule = content
            try:
                content = Path(rule["of"]).read_bytes()
            except OSError as e:
                raise SystemExit(
                    f"{rule['of']}: cannot be read ({e.strerror}), so that {name} cannot be made of it"
                ) from None
            if rule.get("find", "").encode() not in content:
                raise SystemExit(f"{rule['of']}: {rule['find']!r} is not in it")
            content = (
                content.replace(rule["find"].encode(), rule["put"].encode(), 1)
                if "find" in rule
                else content
            )
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def task_score(rule: dict, env, folder: Path, home: str) -> float:
    """0..1, from what the game has written or shows."""
    if "exit" in rule:
        return float(env.clock.returncode == rule["exit"])
    if "picture" in rule:
        import cv2

        part, frame = read_picture(folder / rule["picture"]), env.render()
        if part.shape[0] > frame.shape[0] or part.shape[1] > frame.shape[1]:
            raise SystemExit(
                f"{folder / rule['picture']}: larger than a frame of {frame.shape[1]} x {frame.shape[0]}"
            )
        return float(
            cv2.matchTemplate(frame, part, cv2.TM_CCOEFF_NORMED).max() >= rule.get("like", 0.9)
        )
    if "file" in rule:
        path, size = Path(home) / rule["file"], struct.calcsize(rule["struct"])
        data = path.read_bytes()[:size] if path.exists() else b""
        values = struct.unpack(rule["struct"], data) if len(data) == size else (0,)
    else:
        values = re.findall(
            rule["stderr"], (env.stage.path / "stderr").read_text(errors="replace")
        ) or (0,)
    try:
        value = max(map(float, values))
    except ValueError as e:
        raise GameError(f"score {rule['stderr']!r} on the game's stderr: {e}") from None
    begin = rule.get("from", 0)
    return min(1.0, max(0.0, (value - begin) / (rule["goal"] - begin)))
