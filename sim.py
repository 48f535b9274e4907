"""sim.py: any unmodified game as a Gymnasium environment, stepped frame by frame under a controlled
clock (paper section 2.2).

clock/ holds a game still between two frames, devices/ gives it a pad and reads its picture; this
file makes an environment of the two: on Linux, on Windows, and for Wine.  It needs numpy and
gymnasium at import, never torch.

A game asks the system for the time, and we answer.  Time inside the game is a number in a page that
we share with it.

  reading it   What reads a clock jumps to a stub of ours, which returns that number.
  waiting      A thread that sleeps, or waits with a timeout, is parked until its deadline in the
               time of the game.
  presenting   To present a frame is a wait too: for the next tick of a monitor of `fps` Hz.

    game   | draws          | mixes sound          | presents frame 61: step() returns
    time   | 1.0000 --jump--> 1.0053 -----jump-----> 1.0167

Between two deadlines nothing can happen in the game, so time jumps from one to the next: this is
discrete-event simulation.  Read on in clock/linux.py, and on Windows, where frames are not gated,
in clock/windows.py; for another pad or screen in devices/__init__.py.

    python sim.py doctor                          what works on this machine, and the fix for what
                                                  does not
    python sim.py play   -- COMMAND ARG...        you at the pad; --speed 0.25, --record out.mp4
    python sim.py play --attach game.exe          the same in a game that runs already (Windows)
    python sim.py record -- COMMAND ARG...        frames, and the pad of each: OUT.mp4,
                                                  OUT.actions.safetensors
    python sim.py replay OUT.actions.safetensors  the same frames again? compares their hashes
    python sim.py step   -- COMMAND ARG...        by hand, frame by frame
    python sim.py bench  [-- COMMAND ARG...]      steps per second, cost of the hook
    python sim.py debian                          which of some seventy games of Debian play here

    env = sim.GameEnv(["supertux2", "--window", "--renderer", "sdl"], fps=60)
    env = gymnasium.make("NitroGame-v0", cmd=[...])                     # or so
    env = sim.GameEnv([], attach="game.exe")      # Windows: by program, or by its window's title
    frame, info = env.reset(seed=0)               # frame: uint8 [256, 256, 3] RGB
    action = {"buttons": buttons, "sticks": sticks}
    frame, reward, terminated, truncated, info = env.step(action)

    clock = sim.Clock.attach(pid)                 # a program that runs already stands still;
    clock.step(0.5); clock.run(10, speed=0.25)    # half a second on; ten seconds in slow motion;
    clock.detach()                                # and it runs on, also if this program dies
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from common import ROOT, artefact
from common.artefact import BUTTONS, FRAME, STICKS
from common.command_line import Common, command_line
from common.recording import Recording, fitted  # noqa: F401  (of this file's interface)

import gymnasium
import numpy as np

from clock import Clock, attach_fault, hook_fault  # noqa: F401  (of this file's interface)
from clock.base import NOT_HERE, GameError, NoFrame, find_program, say_once
from clock.fallback import StopClock
from clock.windows import WindowsClock
from devices import GAMEPADS, KEYS, SCREENS, choices, made, names  # noqa: F401
from devices.base import checked
from devices.console import Console, GateClock
from devices.display import keys_of
from devices.sandbox import HEADLESS, Sandbox, last_line, search_path
from devices.windows import Desktop
from devices.wine import check_prefix, runs_wine
from devices.x11 import Display

# ---- the environment -----------------------------------------------------------------------------


def pad_space() -> gymnasium.spaces.Dict:
    """Of an action: the state of a gamepad."""
    return gymnasium.spaces.Dict(
        buttons=gymnasium.spaces.MultiBinary(len(BUTTONS)),
        sticks=gymnasium.spaces.Box(-1.0, 1.0, (len(STICKS),), np.float32),
    )


class GameEnv(gymnasium.Env):
    """A game as a Gymnasium environment: one step is exactly one presented frame (times
    frame_skip).

    command: the game's argument list; "{seed}" and "{fps}" in it are replaced
    fps: refresh rate of the monitor that the game believes to have: a frame lasts 1 / fps, or more
        if the game is slower
    seed: of the first reset() that is given none; None: any
    gamepad, screen: a name of devices.GAMEPADS, devices.SCREENS, or "auto": the first that works
    reward: callable(info) -> float
    seconds: truncate at this game time
    clock: "hook" (any program's time is ours), "console" (a built-in game's own pause) or "auto":
        hook where it works
    timeout: real seconds without a frame
    tick: "frame", or "time": a step is 1 / fps of game time, however many frames the game presents
    display: ":0" or the like; without one the game gets an X server and a home folder of its own
    home: folder that the game may take for the user's; without one a private, empty one, so that
        nobody's saves are touched
    keys: {button, or stick and direction ("LEFT_X-"): X key name}, on top of KEYS
    fixed: no ASLR, getrandom by seed
    tsc: for games that read the processor's time stamp (rdtsc): in virtual time too, at a fault
        each
    attach: Windows: play a game that runs already (pid, name of its executable, or window title);
        it is let go at the end

    Observation: uint8 [256, 256, 3] RGB, the whole picture resized by area.
    Action: {"buttons": {0, 1} [16] in the order of BUTTONS, "sticks": float [4] in the order of
    STICKS, clipped to [-1, 1]}.  The pad given to step() is in force while that frame is computed:
    frame i pairs with row i of the actions.
    reset() starts the program anew and shows frame 0, computed under an untouched pad.  Without a
    seed it takes the next one from np_random, as Gymnasium has it; `seed` says the first.
    info: time (s of game time), frame (number of the one shown), hash (of its native pixels), score
    (a built-in game's).  terminated: no process of the game is left.
    Raises GameError with one line when the game crashes at start or hangs.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(
        self,
        command,
        fps: int = 30,
        frame_skip: int = 1,
        gamepad: str = "auto",
        screen: str = "auto",
        seed: int | None = None,
        reward=None,
        seconds: float | None = None,
        clock: str = "auto",
        timeout: float = 60.0,
        tick: str = "frame",
        display: str = "",
        home: str = "",
        keys: dict | None = None,
        fixed: bool = True,
        tsc: bool = False,
        render_mode: str | None = "rgb_array",
        attach: str = "",
    ):
        import cv2

        self.command = [str(part) for part in command]
        self.fps = fps
        self.frame_skip = frame_skip
        self.gamepad = gamepad
        self.screen = screen
        self.seed = self.first_seed = seed
        self.reward = reward
        self.seconds = seconds
        self.clock_name = clock
        self.timeout = timeout
        self.tick = tick
        self.display = display
        self.home = home
        self.keys = keys or {}
        self.fixed = fixed
        self.tsc = tsc
        self.render_mode = render_mode
        self.attach = attach
        check_options(self)
        self.metadata = {**self.metadata, "render_fps": fps}
        self.observation_space = gymnasium.spaces.Box(0, 255, (FRAME, FRAME, 3), np.uint8)
        self.action_space = pad_space()
        self.resize = functools.partial(
            cv2.resize, dsize=(FRAME, FRAME), interpolation=cv2.INTER_AREA
        )
        self.clock = None  # while a game runs
        self.finalizer = None

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        seed = self.first_seed if seed is None else seed
        self.first_seed = None
        super().reset(seed=seed)
        self.seed = int(self.np_random.integers(1 << 31)) if seed is None else seed
        self.close()
        self.steps = 0
        self.by_time = False  # nothing tells its frames: each is 1 / fps of game time
        try:
            self._start()
            if not self._next_frame():
                stderr = self.sandbox.path / "stderr"
                raise GameError(
                    f"{self.name} ended with status {self.clock.returncode} before its first "
                    f"frame: {last_line(stderr, 'it said nothing on stderr')}"
                )
            self._choose()
        except BaseException:
            self.close()
            raise
        return self._observation(), self.info()

    def step(self, action):
        if self.clock is None:
            raise GameError("call reset() before step()")
        if os.getpid() != self.sandbox.owner:
            raise GameError(NOT_HERE)
        self.pad.set(*checked(action))
        terminated = not all(self._next_frame() for _ in range(self.frame_skip))
        info = self.info()
        reward = float(self.reward(info)) if self.reward else 0.0
        truncated = self.seconds is not None and info["time"] >= self.seconds - 1e-9
        return self._observation(), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """The frame at its native size, uint8 [height, width, 3] RGB."""
        if self.clock is None:
            raise GameError("call reset() before render()")
        return self.view.picture().copy()

    def close(self) -> None:
        """End the game, remove its files.  Also happens when this object or this program ends."""
        if self.finalizer:
            self.finalizer()
        self.clock = None
        self.finalizer = None

    @property
    def name(self) -> str:
        text = " ".join(" ".join(self.command).split()) or self.attach
        return text if len(text) < 80 else "... " + text[-76:]

    # -- from a command to the first frame

    def enclose(self, *screen) -> Sandbox:
        """A Sandbox (of screen size and X server options) that goes when this object goes."""
        self.sandbox = Sandbox(*screen)
        self.finalizer = weakref.finalize(self, self.sandbox.remove)
        self.sandbox.keys = keys_of([*self.command, self.attach]) | self.keys
        return self.sandbox

    def _start(self) -> None:
        """Set the game up.  Its clock holds it before its first instruction."""
        setup = set_up(self)
        sandbox = self.sandbox
        sandbox.devices = [*setup.pads, *setup.views]
        self.pads = setup.pads
        self.view, *self.other_views = setup.views
        self.first_frame = setup.first_frame
        seed, fps = str(self.seed), f"{self.fps:g}"
        argv = [part.replace("{seed}", seed).replace("{fps}", fps) for part in self.command]
        with open(sandbox.path / "stderr", "wb") as log:
            self.clock = sandbox.clock = setup.clock(
                argv,
                env=setup.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                timeout=self.timeout,
            )
        if self.clock.outlives_us:
            sandbox.at_our_death("game", f"kill -9 -{self.clock.pid}")
        for device in (*self.pads, self.view):
            device.attach()

    def _choose(self) -> None:
        """After the first frame: the first gamepad and screen that work with this game."""
        self.pad = next((pad for pad in self.pads if pad.ready), None)
        if self.pad is None:
            raise GameError(f"{self.name} {self.pads[0].refusal}")
        while self.other_views:
            try:
                self.view.picture()
                break
            except GameError:
                self.view = self.other_views.pop(0)
                self.view.attach()
        self.pad.begin()
        self.view.begin()

    # -- from frame to frame

    def _next_frame(self) -> bool:
        """Exactly one more frame; False if the game ended instead."""
        before = self.view.frame
        try:
            if before and (self.by_time or self.tick == "time" and self.clock.has_gate):
                self.clock.step(1 / self.fps)
                self.clock.frames += self.by_time
                alive = self.clock.alive
            else:
                alive = self.one_frame() if before else self.first_frame(self)
                shown = self.view.frame - before
                if alive and shown != 1:
                    raise GameError(f"presented {shown} frames without waiting in between")
        except GameError as e:
            raise GameError(f"{self.name}: {e}") from None
        self.steps += alive
        return alive

    def one_frame(self) -> bool:
        """As Clock.step_frame, by the frames that the screen counts."""
        try:
            return self.clock.step_frame(lambda: self.view.frame, self.timeout)
        except NoFrame:
            if self.clock.returncode is None:
                raise
            return False  # what the program has left behind presents nothing

    def _observation(self) -> np.ndarray:
        return self.resize(self.view.picture())

    def info(self) -> dict:
        """Of the frame that is shown."""
        # SHA-256: processors have instructions for it
        digest = hashlib.sha256(np.ascontiguousarray(self.view.picture())).hexdigest()[:32]
        return {
            "time": self.view.time,
            "frame": self.steps - 1,
            "hash": digest,
            "score": self.view.score(),
        }


class NitroGame(GameEnv):
    """What gymnasium.make("NitroGame-v0", cmd=[...]) gives."""

    def __init__(self, cmd, **options):
        super().__init__(cmd, **options)


# this file may be a command and a module of it at once
if "NitroGame-v0" not in gymnasium.registry:
    gymnasium.register("NitroGame-v0", entry_point="sim:NitroGame")


def check_options(env: GameEnv) -> None:
    """GameError, in one line, for options that cannot be."""
    for name, value, known in (
        ("gamepad", env.gamepad, names(GAMEPADS)),
        ("screen", env.screen, names(SCREENS)),
        ("tick", env.tick, ("frame", "time")),
        ("clock", env.clock_name, ("auto", "hook", "console")),
        ("render_mode", env.render_mode, ("rgb_array", None)),
    ):
        if value not in known:
            raise GameError(f"{name} {value!r}: there is {', '.join(map(str, known))}")
    if env.attach and not WINDOWS:
        raise GameError(
            "attach: GameEnv plays running games on Windows only; elsewhere there is "
            "sim.Clock.attach(pid)"
        )
    no_home = env.home and not os.path.isdir(env.home)
    if not (env.command or env.attach) or not env.fps > 0 or env.frame_skip < 1 or no_home:
        raise GameError(
            f"fps {env.fps}, frame_skip {env.frame_skip}, home {env.home!r}, command "
            f"{env.command!r}: expected fps > 0, frame_skip >= 1, a folder, a game"
        )


# ---- setting a game up: one function a platform --------------------------------------------------

WINDOWS = sys.platform == "win32"
LOOK = 0.5  # s of game time between two looks at a window of a game that presents nothing
LONGEST_SLEEP = 2.0  # s of game time, of a main thread whose sleeps are frames
SCREEN_SIZE = "1280x960"  # of the private X server, px


class Setup(NamedTuple):
    """What a game is started with, around env.sandbox."""

    clock: Callable  # (argv, env, stdout, stderr, timeout) -> the game's clock
    pads: list  # gamepads to try, the first choice first
    views: list  # screens likewise
    environment: dict | None  # of the game's process; None: as ours
    first_frame: Callable  # (env) -> as Clock.step_frame


def set_up(env: GameEnv) -> Setup:
    """Raises GameError for what this machine, or this game, cannot have."""
    if Console.shows(env.command) or "console" in (env.gamepad, env.screen, env.clock_name):
        return on_console(env)
    if WINDOWS:
        return on_windows(env)
    return on_wine(env) if runs_wine(env.command) else on_linux(env)


def on_console(env: GameEnv) -> Setup:
    """A built-in game: its console is gamepad, screen and, without the hook, the clock."""
    if Console.shows(env.command) and not {env.gamepad, env.screen} <= {"auto", "console"}:
        raise GameError(
            f"a built-in game has its own gamepad and screen: gamepad={env.gamepad!r} and "
            f"screen={env.screen!r} should be 'auto'"
        )
    if WINDOWS and env.clock_name == "hook":
        raise GameError(
            "a built-in game waits by Python's time.sleep, which is not in the hook's time on "
            "Windows: use clock='console'"
        )
    hooked = env.clock_name != "console" and not WINDOWS
    hooked = hooked and hook_works(env, "the built-in console's own pause.")
    console = Console(env.enclose())
    if hooked:
        clock = functools.partial(Clock, seed=env.seed, fixed=env.fixed, tsc=env.tsc)
        own = console.environment
    else:
        clock = functools.partial(GateClock, console=console)
        own = console.environment | GateClock.environment
    environment = env.sandbox.environment(own, env.home)
    return Setup(clock, [console], [console], environment, GameEnv.one_frame)


def on_linux(env: GameEnv, server_options: str = "", patience: float = 10.0) -> Setup:
    """Any program, in an environment that is always the same, on an X server of its own unless a
    display is given.

    patience: seconds of game time without a frame after which a window tells that it presents
    none.
    """
    check_asked(env)
    hooked = hook_works(
        env, "SIGSTOP: the game runs in real time between two steps, and nothing is reproducible."
    )
    if env.display:
        sandbox = env.enclose()
        sandbox.display = Display(env.display)
    else:
        sandbox = env.enclose(SCREEN_SIZE, server_options)
    pads = made(GAMEPADS, env.gamepad, sandbox, hooked)
    views = made(SCREENS, env.screen, sandbox, hooked)
    own = HEADLESS | {"DISPLAY": sandbox.display.name}
    for device in (*pads, *views):
        own |= device.environment
    if env.display:
        own["XAUTHORITY"] = os.environ.get("XAUTHORITY", str(Path.home() / ".Xauthority"))
    environment = sandbox.environment(own, env.home)
    if not hooked:
        clock = functools.partial(StopClock, fps=env.fps)
        return Setup(clock, pads, views, environment, first_with_a_window)
    peers = [sandbox.server] if sandbox.server else []
    clock = functools.partial(
        Clock,
        seed=env.seed,
        fixed=env.fixed,
        tsc=env.tsc,
        fps=env.fps,
        peers=peers,
        users=sandbox.users(environment["HOME"]),
    )
    first_frame = functools.partial(first_presented, patience=patience)
    return Setup(clock, pads, views, environment, first_frame)


def on_wine(env: GameEnv) -> Setup:
    """A Windows game on Linux, ["wine", "game.exe"] with WINEPREFIX in our environment.

    Its processes and Wine's server are under one clock.  Frames are what it presents by OpenGL or
    Vulkan (and so by Direct3D), at once, or else the sleeps of its main thread, for it draws by
    GDI, which is nothing that we see.  GDI gives pictures to the X server in shared memory and
    draws on while that still copies them: hence none of it.

    Not the same twice to the millisecond: while Wine starts, its processes spin until others are
    ready, and how often depends on the machine; after that its 16 ms ticks, by which it also
    decides what part of a picture to show, fall differently.  Not tried: Proton, 32-bit Wine.
    """
    setup = on_linux(env, "-extension MIT-SHM", patience=0.5)
    environment = setup.environment
    del environment["SDL_VIDEODRIVER"]  # of Windows' SDL it would be another one
    check_prefix(Path(environment.get("WINEPREFIX", f"{environment['HOME']}/.wine")))
    return setup


def on_windows(env: GameEnv) -> Setup:
    """A program on the user's desktop, and in their environment; or one that runs already.

    There is no gate, so a frame is 1 / fps of game time: pad, that much time (in real time),
    picture.
    """
    sandbox = env.enclose()
    sandbox.display = Desktop(sandbox)
    pads = made(GAMEPADS, env.gamepad, sandbox)
    views = made(SCREENS, env.screen, sandbox)
    clock = functools.partial(WindowsClock, fps=env.fps)
    if env.attach:
        clock = functools.partial(attached, env.attach, env.fps)
    return Setup(clock, pads, views, None, first_in_the_foreground)


def attached(game: str, fps: float, argv, timeout: float, **_) -> WindowsClock:
    return WindowsClock.attach(game, timeout, fps)


# ---- ... what works here, and what a game needs


def hook_works(env: GameEnv, instead: str) -> bool:
    """Whether the clock hook does; where not, say once what takes its place, or GameError if
    nothing can.
    """
    fault = hook_fault()
    if not fault:
        return True
    if env.clock_name == "hook":
        raise GameError(fault)
    say_once(f"sim: {fault}. Falling back to {instead}")
    return False


def check_asked(env: GameEnv) -> None:
    """GameError if a device was asked for that needs the hook, where that does not work."""
    fault = hook_fault()
    for option, name, table in (
        ("gamepad", env.gamepad, GAMEPADS),
        ("screen", env.screen, SCREENS),
    ):
        if fault and name != "auto" and table[name].needs_hook:
            raise GameError(f"{option}={name!r} needs the clock hook: {fault}")


# ---- ... the first frame, as GameEnv.one_frame


def first_presented(env: GameEnv, patience: float) -> bool:
    """The first frame that the gate sees, or what a game has drawn into its window without one."""
    end = time.perf_counter() + env.timeout
    display, gate = env.sandbox.display, env.clock.frame_gate
    windows, drawn = [], 0  # looks that have found a picture in a window
    while drawn < 2 and not (windows and env.clock.time >= patience):
        try:
            return env.clock.step_frame(None, env.timeout, LOOK, outside=1)
        except NoFrame as e:
            windows = display.windows()
            drawn += bool(windows) and not gate.part and display.shows_picture(windows[0])
            if not windows and (time.perf_counter() > end or env.clock.time > 10):
                raise NoFrame(f"{e}, and it has opened no window") from None
    return first_unpresented(env, [display.owner(number) for number, *_ in windows])


def first_unpresented(env: GameEnv, owners: list[int]) -> bool:
    """A game that does not present in any way that we see is gated by its sleeps; if its main
    thread does not sleep either, or if asked for, by time.  owners: processes with a window.
    """
    unknown = f"sim: {env.name} presents by no function that is known here: "
    if env.tick == "frame":
        env.clock.sleeps = next((pid for pid in owners if pid in env.clock.pids()), 0)
        with contextlib.suppress(NoFrame):
            alive = env.clock.step_frame(None, env.timeout, LONGEST_SLEEP, outside=1)
            say_once(unknown + "each sleep of its main thread counts as a frame.")
            return alive
    say_once(unknown + f"a frame is 1 / {env.fps:g} s of its time.")
    env.clock.sleeps = None
    env.clock.frames += 1
    env.by_time = True
    return env.clock.alive


def first_with_a_window(env: GameEnv) -> bool:
    """Without a gate the first frame is when there is a window."""
    end = time.perf_counter() + env.timeout
    while env.clock.alive and not env.sandbox.display.windows():
        if time.perf_counter() > end:
            raise GameError(f"no window in {env.timeout:g} s")
        env.clock.step(0.1)
    return env.one_frame()


def first_in_the_foreground(env: GameEnv) -> bool:
    """There the window is seen and gets the pad."""
    alive = first_with_a_window(env)
    if windows := env.sandbox.display.windows():
        env.sandbox.display.focus(windows[0][0])
    return alive


# ---- players -------------------------------------------------------------------------------------


class Person:
    """A human player, in front of a window (that of games/console.py; needs pygame)."""

    def __init__(self, title: str):
        sys.path.insert(0, str(ROOT / "games"))
        self.window = importlib.import_module("console").Window(title, "")

    def __call__(self, picture) -> tuple | None:
        """See a picture, give the pad: buttons [16], sticks [4]; None once the window is closed."""
        self.window.show(picture, None, 0)
        pad = self.window.pad()
        if not self.window.open:
            return None
        return np.int8([pad[b] for b in BUTTONS]), np.float32([pad[s] for s in STICKS])


class StickyRandom:
    """A random player: every button and axis gets a random value, which it holds for 0.1 to 1 s."""

    def __init__(self, seed: int, fps: int = 30, menu: bool = True):
        """menu: BACK and START too"""
        self.rng = np.random.default_rng(abs(seed))
        self.fps = fps
        self.lasts = np.zeros(20)  # frames for which a value is still held
        self.value = np.zeros(20, np.float32)
        self.alone = [] if menu else artefact.MENU

    def __call__(self, picture, info=None) -> tuple:
        """buttons uint8 [16], sticks float32 [4]."""
        new = self.lasts <= 0
        self.lasts[new] = self.rng.integers(self.fps // 10, self.fps + 1, new.sum())
        self.value[new] = np.r_[self.rng.random(16) < 0.3, self.rng.uniform(-1, 1, 4)][new]
        self.value[self.alone] = 0
        self.lasts -= 1
        return self.value[:16].astype(np.uint8), self.value[16:].copy()


# ---- commands: play, record, replay --------------------------------------------------------------


@dataclass(frozen=True)
class Run(Common):
    """Flags of all that runs a game."""

    fps: int = 60  # refresh rate of the monitor that the game sees
    gamepad: str = field(default="auto", metadata={"help": choices(GAMEPADS)})
    screen: str = field(default="auto", metadata={"help": choices(SCREENS)})
    timeout: float = 60.0  # seconds of real time without a frame after which the game hangs
    display: str = ""  # :0 or the like; none: an X server of its own
    home: str = ""  # home folder for the game; none: a private, empty one
    # Windows: play what runs already, by the name of its executable, window title or pid
    attach: str = ""
    command: tuple[str, ...] = ()  # the game


def launch(cfg: Run, **options) -> GameEnv:
    if not cfg.command and not cfg.attach:
        raise SystemExit("no game given: add -- COMMAND ARG...")
    if cfg.command:
        find_program(cfg.command[0], {"PATH": search_path()})  # before a window opens
    flags = ("fps", "seed", "gamepad", "screen", "timeout", "display", "home", "attach")
    return GameEnv(cfg.command, **{flag: getattr(cfg, flag) for flag in flags}, **options)


@dataclass(frozen=True)
class Play(Run):
    """Flags of `play`."""

    speed: float = 1.0  # of game time; 0: as fast as it goes
    seconds: float = 0.0  # of game time; 0: until the window is closed, the game ends or Ctrl-C
    wait: float = 0.0  # seconds of game time at the start with an untouched pad (title cards)
    player: str = "person"  # person (a window, keyboard or pad; pip install pygame) or random
    record: str = ""  # also write this video, OUT.mp4, with OUT.actions.safetensors beside it


@dataclass(frozen=True)
class Record(Play):
    """Flags of `record`."""

    record: str = "data/record/play.mp4"  # video; the actions go beside it


def check_play(cfg: Play) -> None:
    """SystemExit with one line for flags that cannot be."""
    if cfg.player not in ("person", "random"):
        raise SystemExit(f"--player {cfg.player}: there is person and random")
    if min(cfg.speed, cfg.seconds, cfg.wait) < 0:
        raise SystemExit(
            f"--speed {cfg.speed:g} --seconds {cfg.seconds:g} --wait {cfg.wait:g}: none may be "
            "below 0"
        )


def played_frames(env, cfg: Play, stack: contextlib.ExitStack):
    """What `session` yields, of a person or of chance; chance shows a progress bar."""
    if cfg.player == "person":
        return session(env, Person(" ".join(cfg.command)), cfg)
    from tqdm import tqdm

    frames = session(env, StickyRandom(cfg.seed, cfg.fps, menu=False), cfg)
    total = round(cfg.seconds * cfg.fps) or None
    return stack.enter_context(tqdm(frames, desc="play", unit="frame", total=total))


def play(cfg: Play) -> None:
    """Play, and with --record keep the frames and the pad of each: row i is the pad in force while
    frame i was drawn.
    """
    check_play(cfg)
    recording = Recording(cfg) if cfg.record else None
    end = None
    with launch(cfg) as env, contextlib.ExitStack() as stack:
        try:
            for picture, info, pad in played_frames(env, cfg, stack):
                if recording:
                    recording.add(picture, info, pad, stack)
        except (GameError, KeyboardInterrupt) as e:
            if not recording or not recording.pads:
                raise
            end = e  # what was played until then is kept
    if recording:
        recording.write()
    if isinstance(end, KeyboardInterrupt):
        raise SystemExit("interrupted: the recording ends here")
    if end:
        raise end


def session(env, player, cfg: Play):
    """Yield (picture, info, the pad in force while it was drawn), until the window is closed, the
    game ends or its time is up.  GameError if it ends before, or with an error.
    """
    untouched = np.zeros(16, np.int8), np.zeros(4, np.float32)
    _, info = env.reset(seed=cfg.seed)
    pad = untouched
    begin = time.perf_counter()
    origin = info["time"]
    # Play begins with the first frame, which lasts 1 / fps.  What came before was loading.
    end = max(0.0, origin - 1 / cfg.fps) + (cfg.seconds or math.inf) - 1e-9
    terminated = False
    while not terminated:
        picture = env.render()
        yield picture, info, pad
        pad = player(picture)
        if info["time"] >= end or pad is None:
            return
        played = info["time"] - origin
        if played < cfg.wait:
            pad = untouched
        if cfg.speed:
            time.sleep(max(0.0, begin + played / cfg.speed - time.perf_counter()))
        _, _, terminated, _, info = env.step({"buttons": pad[0], "sticks": pad[1]})
    status = env.clock.returncode
    if cfg.seconds or status:
        wanted = f" of {cfg.seconds:g}" if cfg.seconds else ""
        raise GameError(
            f"{env.name}: ended by itself after {played:.2f}{wanted} s of play, status {status}"
        )


def main() -> None:
    # as Ctrl-C: what was recorded is kept, nothing is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command_line(
        __doc__,
        {
            "doctor": "bench.doctor",
            "play": (Play, play),
            "record": (Record, play),
            "replay": "bench.replay",
            "step": "bench.by_hand",
            "bench": "bench.stepping",
            "debian": "bench.debian",
        },
    )


if __name__ == "__main__":
    main()
