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
    c, yours = (
        dataclasses.replace(c, policy=shipped(c.policy)),
        c.command or c.attach or c.realtime or c.remote,
    )
    if (c.video or c.window) and (c.suite or not yours):
        raise SystemExit(
            "--video and --window go with -- COMMAND; of the built-in suite, the best and the worst episodes are filmed anyway"
        )
    if not c.speed > 0 or c.speed != 1 and not c.realtime:
        raise SystemExit(
            f"--speed {c.speed:g}: expected more than 0, together with --realtime: without it the game waits for the policy"
        )
    if not yours or c.suite:
        return open_games.open_suite(c) if c.suite else evaluation.play(c)
    with (
        contextlib.closing(pilot.brain_of(c)) as brain,
        sim.launch(c, keys=pilot.key_map(c.keys)) as env,
        contextlib.ExitStack() as stack,
    ):
        person = (
            pilot.Takeover(
                sim.Person(
                    f"{Path((*c.command, c.attach)[0]).name}: touch a key or the pad to play"
                ),
                c.idle,
            )
            if c.window
            else None
        )
        agent, film, size = (
            stack.enter_context(contextlib.closing(pilot.Pilot(brain, c))),
            None,
            None,
        )
        try:
            for info in pilot.frames(env, agent, c, person):
                if c.video:
                    picture = env.render()
                    size = size or picture.shape[1::-1]
                    film = film or stack.enter_context(VideoWriter(c.video, c.fps, *size))
                    film.write(sim.fitted(picture, *size))
            if not env.clock.alive:
                print(evaluation.how_it_ended(env, info), file=sys.stderr)
        except KeyboardInterrupt:  # ends the game, not the report
            pass
        return agent.report()
