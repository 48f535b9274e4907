"""The policy plays: your own game, a table of tasks in real games, or the built-in suite: python
eval.py play
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from common.command_line import shipped
from common.pictures import VideoWriter

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
    idle: float = 2.0  # seconds of letting go until the policy plays on
    keys: str = ""  # for a game that takes keys, on top of KEYS: SOUTH=z,LEFT_X-=a,...
    suite: str = ""  # open: free Linux games; or a table of your own, as assets/open.json
    remote: str = ""  # HOST:PORT of `python eval.py serve`: the policy is there
    token: str = "data/serve.token"  # a copy of the file that serve wrote
    patience: float = 30.0  # seconds to wait for a lost connection to come back


def main(c: Config) -> dict | None:
    c = dataclasses.replace(c, policy=shipped(c.policy))
    yours = any((c.command, c.attach, c.realtime, c.remote)) and not c.suite
    if (c.video or c.window) and not yours:
        raise SystemExit(
            "--video and --window go with -- COMMAND; of the built-in suite, the best and the "
            "worst episodes are filmed anyway"
        )
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
        film = None
        try:
            for info in pilot.frames(env, agent, c, person):  # noqa: B007  used below
                if c.video:
                    picture = env.render()
                    if film is None:
                        size = picture.shape[1::-1]
                        film = stack.enter_context(VideoWriter(c.video, c.fps, *size))
                        begin = info["time"]
                    film.write(sim.fitted(picture, *size), info["time"] - begin)
            if not env.clock.alive:
                print(evaluation.how_it_ended(env, info), file=sys.stderr)
        except KeyboardInterrupt:  # ends the game, not the report
            pass
        out = agent.report()
        if film is not None:
            stack.close()  # the film is whole
            print(f"film -> {c.video}")
        return out


def takeover(c: Config) -> pilot.Takeover:
    name = Path((*c.command, c.attach)[0]).name
    return pilot.Takeover(sim.Person(f"{name}: touch a key or the pad to play"), c.idle)
