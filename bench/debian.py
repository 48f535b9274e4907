"""Games of Debian, ten seconds each: does it start, is a step a frame, is the replay the same, does
the pad arrive: python sim.py debian
"""

from __future__ import annotations

import itertools
import shlex
import shutil
import sys
from dataclasses import dataclass

from common import artefact
from common.command_line import Common, expect

import numpy as np

import sim
from clock.base import GameError

# engine | refresh rate of the monitor that the game sees | how: with keys (which ones, where those
# of devices.KEYS do not begin it), by time | commands
GAMES = """
SDL 1.2         | 30 |      | airstrike, alienblaster, biniax2, bumprace, circuslinux, dangen
SDL 1.2         | 30 |      | heroes, hex-a-hop, icebreaker, lbreakout2, luola
SDL 1.2         | 30 | SOUTH=Return | moon-lander
SDL 1.2         | 30 |      | powermanga --window, rockdodger, tecnoballz --window, vectoroids
SDL 1.2         | 20 |      | madbomber
SDL 1.2, OpenGL | 30 |      | briquolo, critter, gnujump, gunroar
SDL 2           | 30 |      | blobwars -window, blockattack, davegnukem, jumpnbump, lbreakouthd
SDL 1.2         | 30 |      | vor
SDL 1.2         | 30 | SOUTH=Return | kobodl, meritous
SDL 1.2, OpenGL | 30 |      | gltron, rrootage -window
SDL 1.2, D      | 30 | SOUTH=z EAST=x | tumiki-fighters -window
SDL 1.2, Perl   | 30 |      | frozen-bubble
SDL 2           | 30 |      | Maelstrom, mirrormagic, pekka-kana-2
SDL 2           | 35 |      | crispy-doom -window
SDL 2           | 30 |      | caveexpress
SDL 2           | 30 | time keys | vonsh
SDL 2, OpenGL   | 30 | keys | hyperrogue
SDL 2, Haskell  | 30 | time SOUTH=Return | LambdaHack
SDL 2           | 30 | keys | blobby, starfighter
SDL 2           | 28 |      | toppler
SDL 2           | 10 |      | sopwith -s
SFML            | 30 |      | marsshooter
LÖVE            | 30 |      | mrrescue
ClanLib         | 30 | SOUTH=Return EAST=x | trophy
Ren'Py          | 30 |      | the_question
pygame          | 30 |      | angrydd, funnyboat, monsterz, pathological, pyracerz, solarwolf
pygame          | 24 |      | whichwayisup
GLFW            | 30 |      | pax-britannica, pink-pony
pygame          | 30 |      | seahorse-adventures
pygame          | 30 | keys | oneisenough
pygame          | 30 | time SOUTH=a EAST=b | bambam
Irrlicht        | 30 |      | minetest
GLUT            | 30 |      | stormbaancoureur
GLUT            | 30 | keys | crack-attack --solo
Allegro 4       | 30 | time | alex4, kraptor, overgod, rafkill
Allegro 4       | 30 | time SOUTH=Return | ballz
X11             | 30 | time SOUTH=s EAST=space | xgalaga++
X11             | 30 | time | xjump
X11             | 30 | time | pacman
Qt 5, OpenGL    | 30 |      | dustrac-game
Qt 5, QML       | 30 | time | 2048-qt
Qt 6            | 30 | time | cutemaze
Qt 5, KDE       | 30 | time | dbus-run-session kapman
GTK 2           | 30 | time | wordwarvi
GTK 3           | 30 | time | gnome-nibbles, gnome-robots, quadrapassel
GTK 3, Clutter  | 30 | time | gnome-2048
Java            | 30 | time | filler, robocode
"""
HEAD = "| engine | game | starts | one frame a step | replay identical | input arrives | cause |"


@dataclass(frozen=True)
class Config(Common):
    games: str = ""  # only these, by comma
    seconds: float = 10.0  # of game time
    timeout: float = 60.0  # real seconds without a frame after which a game hangs
    out: str = "data/debian.md"  # the table


def play(game: dict, c: Config, player):
    """Yield (game time, hash, the call that presented) of each frame; fewer if the game ends."""
    env = sim.GameEnv(**game, timeout=c.timeout)
    try:
        info = env.reset(seed=c.seed)[1]
        for _ in range(round(c.seconds * game["fps"])):
            yield info["time"], info["hash"], env.clock.presented[0]
            buttons, sticks = player(None)
            info = env.step({"buttons": buttons, "sticks": sticks})[4]
            if not env.clock.alive:
                return
    finally:
        env.close()


def at_rest(_) -> tuple:
    return np.zeros(16, np.uint8), np.zeros(4, np.float32)


def first_difference(frames, others) -> int | None:
    """The first frame that is not the same, or that only one of them has."""
    pairs = itertools.zip_longest((frame[1] for frame in frames), (frame[1] for frame in others))
    return next((i for i, (one, other) in enumerate(pairs) if one != other), None)


def one_a_step(frames, game: dict) -> str:
    """A tick of the monitor lasts 1 / fps; a frame does so too, or longer in a slower game."""
    ticks = np.mean(np.diff([time for time, *_ in frames])) * game["fps"]
    if not ticks >= 0.95 or frames[-1][2] == "sleep" and game["tick"] == "frame":
        return f"no: {ticks:.2f} ticks a sleep"
    return "yes" if ticks < 1.05 else f"yes, of {ticks:.2f} ticks"


def trial(game: dict, c: Config) -> list[str]:
    """The last five cells of a row, see HEAD."""
    cells = ["no", "", "", "", ""]
    fps = game["fps"]
    try:
        # without BACK and START, which leave many games
        frames = list(play(game, c, sim.StickyRandom(c.seed, fps, menu=False)))
        cells[0] = "yes"
        cells[1] = one_a_step(frames, game)
        other = first_difference(frames, play(game, c, sim.StickyRandom(c.seed, fps, menu=False)))
        cells[2] = "yes" if other is None else f"to frame {other}"
        other = first_difference(frames, play(game, c, at_rest))
        cells[3] = "no" if other is None else "yes" if cells[2] == "yes" else "?"
        if len(frames) < c.seconds * fps:
            cells[4] = f"it ends after {len(frames)} frames"
    except GameError as e:
        cells[4] = str(e).splitlines()[0].replace("|", "/")[-120:]
    return cells


def games():
    """Yield (engine, arguments of GameEnv) of each row and command of GAMES."""
    for line in GAMES.strip().splitlines():
        engine, fps, how, commands = (part.strip() for part in line.split("|"))
        keys = dict(word.split("=") for word in how.split() if "=" in word)
        options = {
            "fps": int(fps),
            "gamepad": "keys" if keys or "keys" in how else "auto",
            "tick": "time" if "time" in how else "frame",
            "keys": keys,
        }
        for command in map(shlex.split, commands.split(",")):
            yield engine, {"command": command, **options}


def main(c: Config) -> None:
    """Plays each game that is installed, and prints and writes a table."""
    expect(c, seconds=(0.2, 3600), timeout=(1, 3600))
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    print("\n".join(lines))
    good = []
    for engine, game in games():
        name = next(word for word in game["command"] if word != "dbus-run-session")
        if c.games and name not in c.games.split(","):
            continue
        if not shutil.which(name, path="/usr/games:/usr/bin"):
            print(f"{name}: not installed", file=sys.stderr)
            continue
        cells = trial(game, c)
        good.append(all(cell.startswith("yes") for cell in cells[:4]))
        lines.append(f"| {engine} | `{name}` | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    artefact.write_bytes(c.out, "\n".join([*lines, ""]).encode())
    print(f"{sum(good)} of {len(good)} in all four columns -> {c.out}")
