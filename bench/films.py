"""Films of the policy's episodes, with the pad drawn beside the picture."""

from __future__ import annotations

import functools
from pathlib import Path

from common import artefact
from common.pictures import VideoWriter, tile
from common.workers import for_each

import cv2
import numpy as np

import eval as evaluation
from bench.tasks import group_of
from eval import FPS, Job, Play, game
from templates import library, render

PANEL = 200  # px beside the picture of a film
AT_REST = np.zeros(16, np.uint8), np.zeros(4, np.float32)


def film_suite(records: list[dict], c: Play) -> list[dict]:
    """Films of the policy's best and worst episode of each game (--quick: of each group of games).

    An episode that crashed cannot be shown.
    """
    films = best_and_worst(records, lambda r: group_of(r["game"]) if c.quick else r["game"])
    jobs = [Job(**picked(f["record"], *Job._fields)) for f in films]
    left = list(dict.fromkeys(jobs))
    if not c.fresh:
        left = [job for job in left if not all(p.exists() for p in film_paths(job, c))]
    again = {}
    if left:
        progress = for_each(functools.partial(film, c=c), left, c.workers, "films", c.ray)
        again = dict(zip(left, progress, strict=True))
    for f, job in zip(films, jobs, strict=True):
        f["film"], f["strip"] = film_paths(job, c)
        before = f["record"]["progress"]
        if again.get(job, before) != before:
            print(
                f"{job}: played again for the film it came out differently ({before:.3f}, then "
                f"{again[job]:.3f}): with this network and device the same numbers do not come out "
                "twice"
            )
    return films


def best_and_worst(records: list[dict], group) -> list[dict]:
    """Of the policy's episodes, in each group(record): {"what": in words, "record"}.

    An episode that is the only one of its group is in it once.
    """
    sets = {}
    for r in records:
        if r["player"] == "policy" and not r["crash"]:
            sets.setdefault(group(r), []).append(r)
    films = []
    for name, episodes in sets.items():
        ranked = sorted(episodes, key=lambda r: (r["success"], r["progress"], -r["seconds"]))
        if len(ranked) == 1:
            films.append({"what": name, "record": ranked[0]})
            continue
        films.append({"what": f"best of {name}", "record": ranked[-1]})
        films.append({"what": f"worst of {name}", "record": ranked[0]})
    return films


def film_paths(job: Job, c: Play) -> tuple[Path, Path]:
    folder = Path(c.out) / "films"
    return folder / f"{job}.mp4", folder / f"{job}.jpg"


def film(job: Job, c: Play) -> float:
    """Play an episode once more, with the pad drawn beside the picture: a video, and a strip of
    eight frames of it.  Returns the progress.
    """
    video, strip = film_paths(job, c)
    template = library.builtin("xbox360-dark")
    w, h = game_size(job.game)
    seen = []  # three frames a second, of half the size
    with VideoWriter(video, FPS, w + PANEL, h) as out:

        def show(picture, pad, score):
            frame = np.hstack([picture, panel(pad, score, job, template, h)])
            out.write(frame)
            if score["over"] or round(score["time"] * FPS) % (FPS // 3) == 1:
                seen.append(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))

        score = evaluation.in_environment(job, c, show)
    sheet = tile([seen[i] for i in np.linspace(0, len(seen) - 1, 8).astype(int)], 4)
    jpeg = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    artefact.write_bytes(strip, jpeg.tobytes())
    return float(score["progress"])


def game_size(name: str) -> tuple[int, int]:
    """Width and height of its pictures, px."""
    module = game(name)
    picture = module.Game(next(iter(module.TASKS)), 0).draw()
    return picture.shape[1], picture.shape[0]


def panel(pad, score: dict, job: Job, template, height: int) -> np.ndarray:
    """uint8 [height, PANEL, 3]: the pad as the policy holds it, and the state of the episode."""
    gray, green, white = (70, 70, 70), (120, 220, 150), (225, 225, 225)
    out = np.full((height, PANEL, 3), 24, np.uint8)
    drawn = render.draw(template, *pad, scale=(PANEL - 12) / template.size[0])
    render.composite(out, drawn, 6, 12)
    facts = [
        f"{job.game}: {job.task}",
        f"seed {job.seed}",
        f"{score['time']:.1f} s",
        f"progress {score['progress']:.2f}" + (" done" if score["success"] else ""),
    ]
    held = pressed(pad[0])[:6]
    for i, text in enumerate(facts + [" ".join(held[k : k + 2]) for k in range(0, len(held), 2)]):
        colour = white if i < len(facts) else green
        where = 8, 165 + 15 * i
        cv2.putText(out, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    top, bottom = height - 8, height - 4
    progress = round((PANEL - 16) * score["progress"])
    cv2.rectangle(out, (8, top), (PANEL - 8, bottom), gray, -1)
    cv2.rectangle(out, (8, top), (8 + progress, bottom), green, -1)
    return out


def pressed(buttons) -> list[str]:
    """Short names of the buttons that are held."""
    names = [name for name, on in zip(artefact.BUTTONS, buttons, strict=True) if on]
    return [n.replace("SHOULDER", "SH").replace("TRIGGER", "TR").lower() for n in names]


def picked(record: dict, *names: str) -> dict:
    return {name: record[name] for name in names}
