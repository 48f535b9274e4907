"""How long, and how much video, a policy takes: python train.py race"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, expect
from common.device import pick_device
from common.training import machine

from eval import interval

# Mean progress by game, of the first policy that was published with this command: the bar.
BAR = {"ridge": 0.73, "crypt": 0.71, "rally": 0.55}


@dataclasses.dataclass(frozen=True)
class Config(Common):
    runs: int = 3  # whole pipes, with the seeds --seed, --seed + 1, ...
    out: str = "data/race"  # folder; each run has an empty one in it


def main(c: Config) -> dict:
    """Time `python train.py --config tiny` from an empty folder to its table, on more than one
    seed: a row for docs/records.md.

    A record counts if the mean progress over all runs reaches the bar.
    """
    expect(c, runs=(1, 1000))
    rows = [run(Path(c.out) / f"seed-{c.seed + k}", c.seed + k, c.device) for k in range(c.runs)]
    episodes = [p for row in rows for game in row["progress"].values() for p in game]
    progress = interval(episodes)
    print(f"\n{'':8s}{'minutes':>8s}{'CPU':>7s}{'video':>7s}{'frames':>9s}   mean progress")
    for row in rows:
        games = ", ".join(f"{g} {sum(p) / len(p):.2f}" for g, p in row["progress"].items())
        print(
            f"seed {row['seed']:<3d}{minutes(row):8.1f}{row['cpu'] / 60:7.1f}"
            f"{row['video'] / 60:7.1f}{row['frames']:9,d}   {games}"
        )
        print(" " * 8 + ", ".join(f"{name} {t / 60:.1f}" for name, t in row["stages"].items()))
    bar = sum(BAR.values()) / len(BAR)
    verdict = "reaches" if progress[0] >= bar else "is below"
    shown = "{:.2f} [{:.2f}, {:.2f}]".format(*progress)
    print(f"\nmean progress {shown} {verdict} the bar of {bar:.2f}")
    print(table_row(rows, shown, machine(pick_device(c.device))))
    return {"runs": rows, "progress": progress, "bar": bar}


def minutes(row: dict) -> float:
    """Of a run, by the clock."""
    return sum(row["stages"].values()) / 60


def table_row(rows: list[dict], progress: str, where: str) -> str:
    """A row of docs/records.md."""
    wall = [minutes(row) for row in rows]
    cells = (
        time.strftime("%Y-%m-%d"),
        where,
        f"{sum(wall) / len(wall):.1f} ({min(wall):.1f} to {max(wall):.1f})",
        f"{sum(row['cpu'] for row in rows) / 60 / len(rows):.0f}",
        f"{rows[0]['video'] / 60:.0f}",
        f"{rows[0]['frames']:,}",
        f"{progress}, {len(rows)} seeds",
    )
    return f"| {' | '.join(cells)} |"


def run(folder: Path, seed: int, device: str) -> dict:
    """One run in an empty folder, or what is kept of it: seconds by stage and of all cores, seconds
    of video, frames that the training drew, progress of the episodes by game.
    """
    kept = folder / "race.json"
    if kept.exists():
        return json.loads(kept.read_bytes())
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder}: holds a run that was not timed to its end; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["train.py", "--config", "tiny", "--seed", str(seed), "--device", device]
    before = os.times()
    stages = timed([sys.executable, "-u", str(ROOT / command[0]), *command[1:]], folder)
    after = os.times()
    row = {
        "seed": seed,
        "stages": stages,
        "cpu": sum(after[2:4]) - sum(before[2:4]),  # of all children
        **outcome(folder),
    }
    artefact.write_bytes(kept, json.dumps(row, indent=1).encode())
    return row


def timed(command: list[str], folder: Path) -> dict:
    """Run a command that prints its stages as "$ python FILE ...": wall seconds by stage."""
    stages = {}
    since = time.monotonic()
    name = "start"
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    with process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("$ python "):
                stages[name] = time.monotonic() - since
                since += stages[name]
                name = stage(line)
    stages[name] = time.monotonic() - since
    if process.returncode:
        raise SystemExit(f"{folder}: the run stopped with status {process.returncode}, see above")
    return stages


def stage(line: str) -> str:
    """The name of a printed command: of eval.py its own, else the file's."""
    file, first = line.split()[2:4]
    return first if file == "eval.py" else file.removesuffix(".py")


def outcome(folder: Path) -> dict:
    """What a finished run leaves: video, frames and progress, see `run`."""
    labels = (folder / "data/tiny/labels").glob("*.actions.safetensors")
    trained = artefact.read(folder / "runs/tiny/model.safetensors", "nitrogen.policy/1")[1]
    [report] = folder.glob("data/play/*/report.json")
    progress = {}
    for episode in json.loads(report.read_bytes())["episodes"]:
        if episode["player"] == "policy":
            progress.setdefault(episode["game"], []).append(episode["progress"])
    return {
        "video": float(sum(artefact.read(path)[0]["time"][-1] for path in labels)),
        "frames": trained["recipe"]["steps"] * trained["recipe"]["batch"],
        "progress": progress,
    }
