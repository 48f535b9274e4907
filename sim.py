"""sim.py: any unmodified game as a Gymnasium environment, stepped frame by frame under a controlled
clock.

Clock hook, gamepad devices, screens, GameEnv (paper section 2.2); for Linux, Windows and Wine.
Needs numpy and gymnasium at import; never torch, so it runs wherever a game runs.
clock/ holds a game still between two frames, devices/ gives it a pad and reads its picture; this
file makes an environment of the two.

    python sim.py doctor                          what works on this machine, and the fix for what
                                                  does not
    python sim.py play   -- COMMAND ARG...        you at the pad; --speed 0.25, --record out.mp4
    python sim.py record -- COMMAND ARG...        frames, and the pad of each: OUT.mp4,
                                                  OUT.actions.safetensors
    python sim.py replay OUT.actions.safetensors  the same frames again? compares their hashes
    python sim.py step   -- COMMAND ARG...        by hand, frame by frame
    python sim.py bench  [-- COMMAND ARG...]      steps per second, cost of the hook

    env = sim.GameEnv(["supertux2", "--window", "--renderer", "sdl"], fps=60)
    env = gymnasium.make("NitroGame-v0", cmd=[...])                     # or so
    frame, info = env.reset(seed=0)               # frame: uint8 [256, 256, 3] RGB
    action = {"buttons": buttons, "sticks": sticks}
    frame, reward, terminated, truncated, info = env.step(action)

    clock = sim.Clock.attach(pid)                 # a program that runs already stands still;
    clock.step(0.5); clock.run(10, speed=0.25)    # half a second on; ten seconds in slow motion;
    clock.detach()                                # and it runs on, also if this program dies

On Windows a game that runs already may be played too, by the name of its executable or its
window's title:

    python sim.py play --attach game.exe
    env = sim.GameEnv([], attach="game.exe")
    clock = sim.Clock.attach("game.exe")
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, artefact, attempt
from common.artefact import BUTTONS, FRAME, STICKS
from common.command_line import Common, command_line

import gymnasium
import numpy as np

from clock import Clock, attach_fault, hook_fault  # noqa: F401  (of this file's interface)
from clock.base import GameError, NoFrame, find_program, say_once
from clock.fallback import StopClock
from clock.windows import WindowsClock
from devices import GAMEPADS, SCREENS, sandbox
from devices.console import Console, GateClock
from devices.linux import KEYS, Keyboard, Window
from devices.windows import Desktop, DesktopWindow, desktop_pad
from devices.x11 import Display

# ---- the environment -----------------------------------------------------------------------------

# What a game sees of our own environment; the rest is fixed.
KEPT = (
    *("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "PATHEXT"),
    *("WINEPREFIX", "WINEDLLPATH", "WINEDLLOVERRIDES", "WINEDEBUG", "WINEARCH"),
)
# Without Wine's services a game starts five times faster.
WINE = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe,services.exe="}
FIXED = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
HEADLESS = {
    "SDL_AUDIODRIVER": "dummy",
    "ALSOFT_DRIVERS": "null",
    "SDL_VIDEODRIVER": "x11",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "LP_NUM_THREADS": "0",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null",
    "SDL_JOYSTICK_HIDAPI": "0",
}
SCREEN_SIZE = "1280x960"  # of the private X server, px


class GameEnv(gymnasium.Env):
    """A game as a Gymnasium environment: one step is exactly one presented frame (times
    frame_skip).

    command: the game's argument list; "{seed}" and "{fps}" in it are replaced
    reward: callable(info) -> float
    seconds: truncate at this game time
    timeout: real seconds without a frame
    clock: "hook" (any program's time is ours), "console" (a built-in game's own pause) or "auto":
        hook where it works
    gamepad: "console", "joystick" (SDL's virtual one), "keys", "uinput", or "auto": the first of
        them that the game takes, but uinput
    screen: "console", "readback" (from the game's memory), "window" (what the X server shows), or
        "auto"
    fps: refresh rate of the monitor that the game believes to have: a frame lasts 1 / fps, or more
        if the game is slower
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

    On Windows the game runs on the user's desktop, with "vgamepad" or "keys"; "window".
    A frame is 1 / fps of game time, for there is no gate: pad, that much time (in real time),
    picture.

    A Windows game on Linux: ["wine", "game.exe"], with WINEPREFIX in the environment.  Its
    processes and Wine's server are under one clock. Frames are what it presents by OpenGL or Vulkan
    (and so by Direct3D), else the sleeps of its main thread; its pad is keys; Wine's services,
    without which it starts five times faster, are off unless WINEDLLOVERRIDES says otherwise.  Not
    the same twice to the millisecond: while Wine starts, its processes spin until others are ready,
    and how often depends on the machine; after that its 16 ms ticks, by which it also decides what
    part of a picture to show, fall differently.  Not tried: Proton, 32-bit Wine.

    Observation: uint8 [256, 256, 3] RGB, the whole picture resized by area. Action: {"buttons": {0,
    1} [16] in the order of BUTTONS, "sticks": float [4] in the order of STICKS, clipped to [-1,
    1]}. The pad given to step() is in force while that frame is computed: frame i pairs with row i
    of the actions.  reset() starts the program anew and shows frame 0, computed under an untouched
    pad; without a seed it keeps the last one. info: time (s of game time), frame (number of the one
    shown), hash (of its native pixels), score (a built-in game's). terminated: the program ended.
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
        seed: int = 0,
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
        render_mode: str = "rgb_array",
        attach: str = "",
    ):
        import cv2

        for name, value, known in (
            ("gamepad", gamepad, GAMEPADS),
            ("screen", screen, SCREENS),
            ("tick", tick, ("frame", "time")),
            ("clock", clock, ("auto", "hook", "console")),
            ("render_mode", render_mode, ("rgb_array",)),
        ):
            if value not in known:
                raise GameError(f"{name} {value!r}: there is {', '.join(known)}")
        if attach and sys.platform != "win32":
            raise GameError(
                "attach: GameEnv plays running games on Windows only; elsewhere there is "
                "sim.Clock.attach(pid)"
            )
        if (
            not (command or attach)
            or not fps > 0
            or frame_skip < 1
            or home
            and not os.path.isdir(home)
        ):
            raise GameError(
                f"fps {fps}, frame_skip {frame_skip}, home {home!r}, command {command!r}: expected "
                "fps > 0, frame_skip >= 1, a folder, a game"
            )
        self.resize = functools.partial(
            cv2.resize, dsize=(FRAME, FRAME), interpolation=cv2.INTER_AREA
        )
        self.command, self.fps, self.frame_skip = [str(part) for part in command], fps, frame_skip
        self.gamepad, self.screen, self.clock_name = gamepad, screen, clock
        self.seed, self.reward, self.seconds, self.timeout = seed, reward, seconds, timeout
        self.tick, self.display, self.home, self.keys, self.fixed, self.tsc, self.attach = (
            tick,
            display,
            home,
            keys or {},
            fixed,
            tsc,
            attach,
        )
        self.observation_space = gymnasium.spaces.Box(0, 255, (FRAME, FRAME, 3), np.uint8)
        self.action_space = gymnasium.spaces.Dict(
            buttons=gymnasium.spaces.MultiBinary(len(BUTTONS)),
            sticks=gymnasium.spaces.Box(-1.0, 1.0, (len(STICKS),), np.float32),
        )
        self.render_mode, self.metadata = "rgb_array", {**self.metadata, "render_fps": fps}
        self.clock = self.finalizer = None

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.close()
        self.steps = 0
        try:
            self._start()
            if not self._next_frame():
                raise GameError(
                    f"{self._name()} ended with status {self.clock.returncode} before its first "
                    "frame: "
                    f"{sandbox.last_line(self.stage.path / 'stderr', 'it said nothing on stderr')}"
                )
            self._choose()
        except BaseException:
            self.close()
            raise
        return self._observation(), self._info()

    def step(self, action):
        if self.clock is None:
            raise GameError("call reset() before step()")
        self.pad.set(*self._checked(action))
        terminated = not all(self._next_frame() for _ in range(self.frame_skip))
        info = self._info()
        truncated = self.seconds is not None and info["time"] >= self.seconds - 1e-9
        return (
            self._observation(),
            float(self.reward(info)) if self.reward else 0.0,
            terminated,
            truncated,
            info,
        )

    def render(self) -> np.ndarray:
        """The frame at its native size, uint8 [height, width, 3] RGB."""
        if self.clock is None:
            raise GameError("call reset() before render()")
        return self.view.picture().copy()

    def close(self) -> None:
        """End the game, remove its files.  Also happens when this object or this program ends."""
        if self.finalizer:
            self.finalizer()
        self.clock = self.finalizer = None

    def _start(self):
        here = sys.platform == "win32"  # on Windows a game is played on the desktop
        fault = hook_fault() if self.clock_name != "console" and not here else None
        if fault and self.clock_name == "hook":
            raise GameError(fault)
        console = Console.shows(self.command) or "console" in (
            self.gamepad,
            self.screen,
            self.clock_name,
        )
        if fault and not console and (self.gamepad == "joystick" or self.screen == "readback"):
            raise GameError(
                f"gamepad='joystick' and screen='readback' need the clock hook: {fault}"
            )
        if Console.shows(self.command) and not {self.gamepad, self.screen} <= {"auto", "console"}:
            raise GameError(
                f"a built-in game has its own gamepad and screen: gamepad={self.gamepad!r} and "
                f"screen={self.screen!r} should be 'auto'"
            )
        if console and here and self.clock_name == "hook":
            raise GameError(
                "a built-in game waits by Python's time.sleep, which is not in the hook's time on "
                "Windows: use clock='console'"
            )
        if fault:
            say_once(
                f"sim: {fault}. Falling back to "
                + (
                    "the built-in console's own pause."
                    if console
                    else (
                        "SIGSTOP: the game runs in real time between two steps, and nothing is "
                        "reproducible."
                    )
                )
            )
        self.stage = stage = sandbox.Stage(
            "" if console or self.display or here else SCREEN_SIZE,
            "-extension MIT-SHM" * self._runs_wine(),
        )
        self.finalizer = weakref.finalize(self, stage.remove)
        if not console and (here or self.display):
            stage.display = Desktop(stage) if here else Display(self.display)
        # the game may stand behind env, nice or wine
        names = [Path(part).stem for part in (*self.command, self.attach)]
        stage.keys = (
            KEYS[""] | next((KEYS[name] for name in names if KEYS.get(name)), {}) | self.keys
        )
        gated = bool(fault) or self.clock_name == "console" or here
        hook = {"seed": self.seed, "fixed": self.fixed, "tsc": self.tsc}
        if console:
            self.view = self.pad = Console(stage)
            env = self.view.environment | (GateClock.environment if gated else {})
            make = (
                functools.partial(GateClock, console=self.view)
                if gated
                else functools.partial(Clock, **hook)
            )
        elif here:
            env = None  # the user's own
            stage.pads = [
                desktop_pad(stage) if self.gamepad == "auto" else GAMEPADS[self.gamepad](stage)
            ]
            self.view, self.pad = (
                SCREENS["window" if self.screen == "auto" else self.screen](stage),
                stage.pads[0],
            )
            make = functools.partial(WindowsClock, fps=self.fps)
        else:
            automatic = ("keys",) if fault else ("joystick", "keys")
            stage.pads = [
                GAMEPADS[name](stage)
                for name in (automatic if self.gamepad == "auto" else (self.gamepad,))
            ]
            self.view, self.pad = (
                SCREENS[
                    self.screen if self.screen != "auto" else "window" if fault else "readback"
                ](stage),
                stage.pads[0],
            )
            env = HEADLESS | {
                "DISPLAY": stage.display.name,
                **{k: v for pad in stage.pads for k, v in pad.environment.items()},
            }
            if self._runs_wine():
                del env["SDL_VIDEODRIVER"]  # of Windows' SDL it would be another one
            if self.display:
                env |= {
                    "XAUTHORITY": os.environ.get("XAUTHORITY", str(Path.home() / ".Xauthority"))
                }
            make = (
                functools.partial(StopClock, fps=self.fps)
                if fault
                else functools.partial(
                    Clock, **hook, fps=self.fps, peers=(stage.server,) * bool(stage.server)
                )
            )
        home = str(self.home or stage.path / "home")
        if console or not here:
            env = (
                WINE
                | {k: os.environ[k] for k in KEPT if k in os.environ}
                | FIXED
                | env
                | {"HOME": home, "TMPDIR": str(stage.path / "home")}
            )
        if not here and self._runs_wine():
            check_prefix(Path(env.get("WINEPREFIX", f"{home}/.wine")))
        argv = [
            part.replace("{seed}", str(self.seed)).replace("{fps}", f"{self.fps:g}")
            for part in self.command
        ]
        with open(stage.path / "stderr", "wb") as log:
            self.clock = stage.clock = (
                WindowsClock.attach(self.attach, self.timeout, self.fps)
                if self.attach
                else make(
                    argv, env=env, stdout=subprocess.DEVNULL, stderr=log, timeout=self.timeout
                )
            )
        if not isinstance(self.clock, Clock) and not here:
            stage.at_our_death("game", f"kill -9 -{self.clock.pid}")
        for device in () if console else (*stage.pads, self.view):
            device.attach()

    def _choose(self):
        """After the first frame: the gamepad and the screen that this game has."""
        if isinstance(self.view, Console):
            return
        self.pad = next((pad for pad in self.stage.pads if pad.ready), None)
        if self.pad is None:
            raise GameError(
                f"{self._name()} has not started SDL's joysticks (2.0.14 or later), so that it "
                "takes no virtual one: use gamepad='keys'"
            )
        try:
            self.view.picture()
        except GameError:
            if self.screen != "auto":
                raise
            self.view = Window(self.stage)
            self.view.attach()
        if isinstance(self.pad, Keyboard) and self.stage.server:
            self.pad._focused(self.stage.display)
        elif isinstance(self.view, DesktopWindow) and (found := self.stage.display.windows()):
            # into the foreground, to be seen and to get the pad
            self.stage.display.focus(found[0][0])

    def _next_frame(self) -> bool:
        """Exactly one more frame; False if the game ended instead."""
        before = self.view.frame
        try:
            if isinstance(self.clock, StopClock) and not before:
                self._await_window()
            # StopClock counts times as frames anyway
            if self.tick == "time" and before and not isinstance(self.clock, StopClock):
                self.clock.step(1 / self.fps)
                alive = self.clock.alive
            else:
                first = (
                    not before
                    and not isinstance(self.clock, StopClock)
                    and not isinstance(self.view, Console)
                )
                alive = (
                    self._first_frame()
                    if first
                    else self.clock.step_frame(lambda: self.view.frame, self.timeout)
                )
                if alive and self.view.frame != before + 1:
                    raise GameError(
                        f"presented {self.view.frame - before} frames without waiting in between"
                    )
        except GameError as e:
            raise GameError(f"{self._name()}: {e}") from None
        self.steps += alive
        return alive

    def _first_frame(self) -> bool:
        """As Clock.step_frame; a game that shows a window, and does not present in any way that we
        see, is gated by its sleeps.
        """
        end, windows = time.perf_counter() + self.timeout, []
        while not windows:
            try:
                return self.clock.step_frame(None, self.timeout, 0.5 if self._runs_wine() else 10.0)
            except NoFrame as e:
                windows = self.stage.display.windows()
                if not windows and (time.perf_counter() > end or self.clock.time > 10):
                    raise NoFrame(f"{e}, and it has opened no window") from None
        if self.screen == "readback":
            raise GameError(
                "presents by no function that is known here, so that its frames cannot be read "
                "back; use screen='window'"
            )
        say_once(
            f"sim: {self._name()} presents by no function that is known here: each sleep of its "
            "main thread counts as a frame."
        )
        owners = [self.stage.display.owner(number) for number, *_ in windows]
        self.clock.sleeps = next((pid for pid in owners if pid in self.clock.pids()), 0)
        self.view = Window(self.stage) if self.screen == "auto" else self.view
        return self.clock.step_frame(None, self.timeout)

    def _runs_wine(self) -> bool:
        """Whether the game is a Windows program: it presents by GDI, which is nothing that we see,
        or else by OpenGL or Vulkan at once.

        GDI gives pictures to the X server in shared memory, and draws on while that still copies
        them: hence none of it."""
        # a part may be a line for the shell
        words = (Path(word).name for part in self.command for word in part.split())
        return any(
            re.fullmatch(r"wine(64)?(-stable|-staging|-devel(opment)?)?|proton", word)
            for word in words
        )

    def _await_window(self):
        """Without a gate the first frame is when there is a window."""
        end = time.perf_counter() + self.timeout
        while self.clock.alive and not self.stage.display.windows():
            if time.perf_counter() > end:
                raise GameError(f"no window in {self.timeout:g} s")
            self.clock.step(0.1)

    def _checked(self, action):
        try:
            buttons, sticks = (
                np.asarray(action["buttons"]),
                np.asarray(action["sticks"], np.float32),
            )
        except (KeyError, TypeError, ValueError, IndexError):
            buttons, sticks = np.zeros(0), np.zeros(0)
        if (
            buttons.shape != (len(BUTTONS),)
            or sticks.shape != (len(STICKS),)
            or not np.isfinite(sticks).all()
        ):
            raise GameError(
                "an action is "
                f"{{'buttons': 0 or 1 [{len(BUTTONS)}], 'sticks': finite float [{len(STICKS)}]}}, "
                f"got {str(action)[:200]}"
            )
        return buttons.astype(bool), sticks.clip(-1, 1)

    def _observation(self) -> np.ndarray:
        return self.resize(self.view.picture())

    def _info(self) -> dict:
        # SHA-256: processors have instructions for it
        digest = hashlib.sha256(np.ascontiguousarray(self.view.picture())).hexdigest()[:32]
        return {
            "time": self.view.time,
            "frame": self.steps - 1,
            "hash": digest,
            "score": self.view.score(),
        }

    def _name(self) -> str:
        text = " ".join(" ".join(self.command).split()) or self.attach
        return text if len(text) < 80 else "... " + text[-76:]


# this file may be a command and a module of it at once
if "NitroGame-v0" not in gymnasium.registry:
    gymnasium.register("NitroGame-v0", entry_point=lambda cmd, **options: GameEnv(cmd, **options))


def check_prefix(prefix: Path) -> None:
    """Wine's server must be started by the game, to be under its clock, and the prefix be there: it
    takes minutes to make under the hook.
    """
    if not (prefix / "system.reg").exists():
        raise GameError(
            f"wine: {prefix} is no prefix of Wine: make one (WINEPREFIX=$HOME/.wine wineboot -i) "
            "and give it, in WINEPREFIX"
        )
    folder = f"server-{prefix.stat().st_dev:x}-{prefix.stat().st_ino:x}"  # where its server runs
    for process in glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(process)) == folder:
                raise GameError(
                    f"wine: other programs run in {prefix}, and its server has their time: "
                    f"WINEPREFIX={prefix} wineserver -k"
                )


class Person:
    """Somebody at the keyboard or gamepad, in front of a window (that of games/console.py; needs
    pygame).
    """

    def __init__(self, title: str):
        sys.path.insert(0, str(ROOT / "games"))
        self.window = importlib.import_module("console").Window(title, "")

    def __call__(self, picture) -> tuple | None:
        """See a picture, give the pad: buttons [16], sticks [4]; None once the window is closed."""
        self.window.show(picture, None, 0)
        pad = self.window.pad()
        return (
            (np.array([pad[b] for b in BUTTONS], np.int8), np.float32([pad[s] for s in STICKS]))
            if self.window.open
            else None
        )


class StickyRandom:
    """A gamepad in the hands of chance: every button and axis is drawn anew and held for 0.1 to 1
    s; `menu`: BACK and START too.
    """

    def __init__(self, seed: int, fps: int = 30, menu: bool = True):
        self.rng, self.fps, self.lasts, self.value = (
            np.random.default_rng(abs(seed)),
            fps,
            np.zeros(20),
            np.zeros(20, np.float32),
        )
        self.alone = [] if menu else artefact.MENU

    def __call__(self, picture, info=None) -> tuple:
        """buttons uint8 [16], sticks float32 [4]."""
        new = self.lasts <= 0
        self.lasts[new] = self.rng.integers(self.fps // 10, self.fps + 1, new.sum())
        self.value[new] = np.r_[self.rng.random(16) < 0.3, self.rng.uniform(-1, 1, 4)][new]
        self.value[self.alone] = 0
        self.lasts -= 1
        return self.value[:16].astype(np.uint8), self.value[16:].copy()


@dataclass(frozen=True)
class Run(Common):
    """Flags of all that runs a game."""

    fps: int = 60  # refresh rate of the monitor that the game sees
    # auto, console, joystick, keys, uinput; on Windows auto, console, vgamepad, keys
    gamepad: str = "auto"
    screen: str = "auto"  # auto, console, readback, window; on Windows auto, console, window
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
        find_program(cfg.command[0])  # before a window opens
    return GameEnv(
        cfg.command,
        fps=cfg.fps,
        seed=cfg.seed,
        gamepad=cfg.gamepad,
        screen=cfg.screen,
        timeout=cfg.timeout,
        display=cfg.display,
        home=cfg.home,
        attach=cfg.attach,
        **options,
    )


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


class Recording:
    """What `play` keeps: a film; of each frame the pad, the hash and the time in the game."""

    def __init__(self, cfg: Play):
        self.cfg = cfg
        self.video = Path(cfg.record)
        self.labels = Path(f"{os.path.splitext(cfg.record)[0]}.actions.safetensors")
        if not cfg.fresh and (self.video.exists() or self.labels.exists()):
            raise SystemExit(f"{self.video}: exists; give another name, or --fresh to replace it")
        self.film = None
        self.pads, self.hashes, self.times = [], [], []

    def add(self, picture, info: dict, pad, stack: contextlib.ExitStack) -> None:
        """stack: where the film is closed."""
        if self.film is None:
            from common.pictures import VideoWriter

            self.size = picture.shape[1::-1]
            self.film = stack.enter_context(VideoWriter(self.video, self.cfg.fps, *self.size))
        self.pads.append(pad)
        self.hashes.append(info["hash"])
        self.times.append(info["time"])
        self.film.write(fitted(picture, *self.size))

    def write(self) -> None:
        # An interruption may have come between a frame's pad and its picture.
        pads = self.pads[: self.film.frames]
        cfg = self.cfg
        artefact.write(
            self.labels,
            recorded(pads, self.hashes, cfg.fps),
            "nitrogen.actions/1",
            unit="normalized",
            fps=cfg.fps,
            buttons=BUTTONS,
            sticks=STICKS,
            game_command=list(cfg.command),
            seed=cfg.seed,
            gamepad=cfg.gamepad,
            screen=cfg.screen,
            home=cfg.home,
            game_time=self.times[len(pads) - 1] - self.times[0],
        )
        print(f"{len(pads)} frames -> {self.video}, {self.labels}")


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
    with launch(cfg, seconds=cfg.seconds or None) as env, contextlib.ExitStack() as stack:
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
    game ends or its time is up.
    """
    untouched = np.zeros(16, np.int8), np.zeros(4, np.float32)
    info, pad, truncated = env.reset(seed=cfg.seed)[1], untouched, False
    begin, origin = time.perf_counter(), info["time"]
    while True:
        yield (picture := env.render()), info, pad
        pad, played = player(picture), info["time"] - origin
        if truncated or pad is None:
            return
        pad = pad if played >= cfg.wait else untouched
        if cfg.speed:
            time.sleep(max(0.0, begin + played / cfg.speed - time.perf_counter()))
        _, _, terminated, truncated, info = env.step({"buttons": pad[0], "sticks": pad[1]})
        if terminated:
            return


def fitted(picture, width, height):
    """A game may change its size; a video may not."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def recorded(rows, hashes, fps) -> dict:
    """Tensors of a nitrogen.actions/1 file, and hash: what env.step's info says of each frame's own
    pixels.
    """
    count = len(rows)
    return {
        "buttons": np.float16([r[0] for r in rows]),
        "sticks": np.float32([r[1] for r in rows]),
        "shown": np.ones(20, bool),
        "confidence": np.ones(count, np.float16),
        "time": np.arange(count) / fps,
        "hash": np.frombuffer(bytes.fromhex("".join(hashes[:count])), np.uint8).reshape(count, 16),
    }


@dataclass(frozen=True)
class Replay(Common):
    """Flags of `replay`."""

    pauses: float = 0.0  # chance of a random pause (up to 0.2 s of real time) before a frame
    # what `record` wrote: the *.actions.safetensors, or the video beside it
    videos: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # the game; none: the one that was recorded


def recording_of(videos) -> tuple[Path, dict, dict]:
    """(path, tensors, info) of the one recording that `replay` was given."""
    if len(videos) != 1:
        raise SystemExit(
            "replay takes one recording: python sim.py replay FILE.actions.safetensors [-- COMMAND "
            "ARG...]"
        )
    path = Path(videos[0])
    path = path if path.suffix == ".safetensors" else path.with_suffix(".actions.safetensors")
    if not path.exists():
        raise SystemExit(
            f"{path}: no such file; make it: python sim.py record --record "
            f"{path.name.partition('.')[0]}.mp4 -- COMMAND ARG..."
        )
    tensors, info = artefact.read(path, "nitrogen.actions/1")
    if "hash" not in tensors or "game_command" not in info:
        raise SystemExit(
            f"{path}: not a recording of `python sim.py record`, so there is nothing to compare "
            "with"
        )
    return path, tensors, info


def replay(cfg: Replay) -> None:
    """Play a recording again and compare every frame."""
    from tqdm import tqdm

    path, tensors, info = recording_of(cfg.videos)
    rng = np.random.default_rng(cfg.seed)
    expected = [row.tobytes().hex() for row in tensors["hash"]]
    with GameEnv(
        cfg.command or info["game_command"],
        fps=info["fps"],
        gamepad=info["gamepad"],
        screen=info["screen"],
        home=info.get("home", ""),
    ) as env:
        seen = env.reset(seed=info["seed"])[1]
        for i in tqdm(range(len(expected)), desc="replay", unit="frame"):
            if i:
                if rng.random() < cfg.pauses:
                    env.clock.pause()
                    time.sleep(rng.uniform(0, 0.2))
                _, _, ended, _, seen = env.step(
                    {"buttons": tensors["buttons"][i] > 0.5, "sticks": tensors["sticks"][i]}
                )
                if ended:
                    raise SystemExit(f"{path}: the game ended at frame {i} of {len(expected)}")
            if seen["hash"] != expected[i]:
                raise SystemExit(f"{path}: frame {i} of {len(expected)} differs")
    print(f"all {len(expected)} frames are the same")


STEPPER = """Enter         one frame
N             N frames
N s           N seconds of game time, in one go
pad NAME...   hold these buttons (SOUTH, ...) and sticks (LEFT_X=-0.5, ...); pad alone lets go
show FILE     write the picture (png)
restart       from the beginning
quit"""


def stepper(cfg: Run) -> None:
    """A game by hand, frame by frame: to see what the clock does."""
    print(STEPPER)
    action = held_pad([])
    with launch(cfg) as env:
        info = env.reset(seed=cfg.seed)[1]
        while True:
            print(
                f"frame {info['frame']}  game time {info['time']:.4f} s  picture {info['hash'][:8]}"
            )
            word, *rest = (sys.stdin.readline() or "quit").split() or ["1"]
            if word == "quit":
                return
            if word == "restart":
                info = env.reset(seed=cfg.seed)[1]
            elif word == "pad" and held_pad(rest):
                action = held_pad(rest)
            else:
                info = obey(env, action, word, rest) or info
            if not env.clock.alive:
                return print(f"the game ended with status {env.clock.returncode}")


def obey(env, action, word: str, rest: list[str]) -> dict | None:
    """Let time pass, or show the picture; info of the last frame, if any has passed."""
    if word == "show" and rest:
        return save_picture(env.render(), rest[0])
    if word.isdigit() and not rest:
        return step_frames(env, action, int(word))
    if rest == ["s"] and word.replace(".", "", 1).isdigit():
        return step_seconds(env, action, float(word))
    print(STEPPER)


def save_picture(picture, path: str) -> None:
    import cv2

    saved, _ = attempt(
        functools.partial(cv2.imwrite, path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    )
    if not saved:
        print(f"{path}: no picture can be written there")


def step_frames(env, action, count: int) -> dict | None:
    """info after `count` frames, or fewer where the game ends."""
    info = None
    for _ in range(count):
        _, _, ended, _, info = env.step(action)
        if ended:
            break
    return info


def step_seconds(env, action, seconds: float) -> dict:
    """info after so much game time, in one go."""
    env.pad.set(*env._checked(action))
    shown = env.view.frame
    env.clock.step(seconds)
    env.steps += env.view.frame - shown
    return env._info()


def held_pad(words) -> dict | None:
    """NAME and NAME=VALUE of buttons and sticks -> action; None if they make no sense."""
    held = dict(word.partition("=")[::2] for word in words)
    with contextlib.suppress(ValueError):
        sticks = np.float32([held.get(name) or 0 for name in STICKS])
        if set(held) <= {*BUTTONS, *STICKS} and np.isfinite(sticks).all():
            return {"buttons": np.int8([name in held for name in BUTTONS]), "sticks": sticks}


def main() -> None:
    # as Ctrl-C: what was recorded is kept, nothing is left behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command_line(
        __doc__,
        {
            "doctor": "bench.doctor",
            "play": (Play, play),
            "record": (Record, play),
            "replay": (Replay, replay),
            "step": (Run, stepper),
            "bench": "bench.stepping",
        },
    )


if __name__ == "__main__":
    main()
