"""The policy plays: your own game, a table of tasks in real games, or the built-in suite: python
eval.py play
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from common.command_line import expect, shipped
from common.pictures import VideoWriter
from common.recording import Recording, free_name

import eval as evaluation
import sim
from bench import delay, report
from live import open_games, pilot


@dataclass(frozen=True)
class Config(evaluation.Play, sim.Run):
    # on your own game: it runs at its normal speed and does not wait for the policy
    realtime: bool = False
    speed: float = 1.0  # of game time, with --realtime
    # also write a film; of the suite, the best and the worst episodes are filmed anyway
    video: str = ""
    seconds: float = 60.0  # of game time; 0: until the game or you end it
    menu: bool = False  # the policy may press START and BACK
    # show the game in a window; touch a key or pad there to play yourself (pip install pygame)
    window: bool = False
    # folder: keep the session, with who was at the pad in each row, for filter.py
    record: str = ""
    idle: float = 2.0  # seconds of letting go until the policy plays on
    keys: str = ""  # for a game that takes keys, on top of KEYS: SOUTH=z,LEFT_X-=a,...
    suite: str = ""  # open: free Linux games; or a table of your own, as assets/open.json
    remote: str = ""  # HOST:PORT of `python eval.py serve`: the policy is there
    token: str = "data/serve.token"  # a copy of the file that serve wrote
    patience: float = 30.0  # seconds to wait for a lost connection to come back


def main(c: Config) -> dict | None:
    c = dataclasses.replace(c, policy=shipped(c.policy))
    yours = any((c.command, c.attach, c.realtime, c.remote)) and not c.suite
    if (c.video or c.window or c.record) and not yours:
        raise SystemExit(
            "--video, --window and --record go with -- COMMAND; of the built-in suite, the best "
            "and the worst episodes are filmed anyway"
        )
    expect(c, idle=(0.01, 1e6), seconds=(0, math.inf), patience=(0, math.inf))
    if not c.speed > 0 or c.speed != 1 and not c.realtime:
        raise SystemExit(
            f"--speed {c.speed:g}: expected more than 0, together with --realtime: without it the "
            "game waits for the policy"
        )
    if c.delay and (yours or c.suite):
        raise SystemExit("--delay goes with the built-in suite, whose games wait for the policy")
    if yours:
        return play_game(c)
    if c.suite:
        return open_games.open_suite(c)
    return delay.play(c) if c.delay else report.play(c)


def play_game(c: Config) -> dict:
    """One game of the user's; returns the pilot's report."""
    with (
        contextlib.closing(pilot.brain_of(c)) as brain,
        sim.launch(c, keys=pilot.key_map(c.keys)) as env,
        contextlib.ExitStack() as stack,
    ):
        person = takeover(c) if c.window else None
        agent = stack.enter_context(contextlib.closing(pilot.Pilot(brain, c)))
        recording = recording_of(c)
        film = end = None
        try:
            for info in pilot.frames(env, agent, c, person):  # noqa: B007  used below
                picture = env.render() if c.video or recording else None
                if c.video:
                    if film is None:
                        size = picture.shape[1::-1]
                        film = stack.enter_context(VideoWriter(c.video, c.fps, *size))
                        begin = info["time"]
                    film.write(sim.fitted(picture, *size), info["time"] - begin)
                if recording:
                    pad = info.get("pad", pilot.RELEASED)
                    recording.add(picture, info, pad, stack, info.get("person", False))
            if not env.clock.alive:
                print(evaluation.how_it_ended(env, info), file=sys.stderr)
        except (KeyboardInterrupt, SystemExit, Exception) as e:  # ends the game, not the report
            if not isinstance(e, KeyboardInterrupt) and not (recording and recording.pads):
                raise
            end = e
        out = agent.report()
        stack.close()  # the films are whole
        if film is not None:
            print(f"film -> {c.video}")
        if recording and recording.pads:
            recording.write(game=name_of(c))
        if end and not isinstance(end, KeyboardInterrupt):
            raise end
        return out


def recording_of(c: Config) -> Recording | None:
    """Of this session, under a new name in --record."""
    if not c.record:
        return None
    return Recording(dataclasses.replace(c, record=free_name(c.record, name_of(c))))


def name_of(c: Config) -> str:
    """The game, as its command names it."""
    first, *rest = [Path(word).stem for word in (*c.command, c.attach)]
    script = next((word for word in rest if word and word[0] != "-"), first)
    return script if first.startswith("python") else first


def takeover(c: Config) -> pilot.Takeover:
    return pilot.Takeover(sim.Person(f"{name_of(c)}: touch a key or the pad to play"), c.idle)
