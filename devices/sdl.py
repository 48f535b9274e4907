"""Gamepad and screen of games that use SDL, by calls inside the game at its frame gate."""

from __future__ import annotations

import ctypes.util
import struct

from common.artefact import BUTTONS, STICKS

import numpy as np

from clock import kernel
from clock.base import GameError
from devices.base import Gamepad, Screen
from devices.sandbox import Sandbox


def sdl_is_there(cls) -> tuple:
    """As Device.requirement."""
    found = bool(ctypes.util.find_library("SDL2-2.0"))
    return "SDL 2", found, "", "not needed by the built-in games; sudo apt install libsdl2-2.0-0"


class VirtualJoystick(Gamepad):
    """A gamepad plugged into SDL within the game, by its own functions (SDL >= 2.0.14)."""

    only_on = "Linux"
    needs_hook = True
    environment = {"SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1"}
    refusal = (
        "has not started SDL's joysticks (2.0.14 or later), so that it takes no virtual one: use "
        "gamepad='keys'"
    )
    # SDL's order of a game controller
    BUTTONS = (
        *("SOUTH", "EAST", "WEST", "NORTH", "BACK", "", "START", "LEFT_THUMB", "RIGHT_THUMB"),
        *("LEFT_SHOULDER", "RIGHT_SHOULDER", "DPAD_UP", "DPAD_DOWN", "DPAD_LEFT", "DPAD_RIGHT"),
    )
    AXES = (*STICKS, "LEFT_TRIGGER", "RIGHT_TRIGGER")
    IS_GAMEPAD = 1
    JOYSTICK = 0x200 | 0x2000  # SDL_INIT_JOYSTICK, SDL_INIT_GAMECONTROLLER
    requirement = classmethod(sdl_is_there)

    def __init__(self, game: Sandbox):
        super().__init__(game)
        self.joystick = 0  # SDL's, in the game
        self.state = {}  # (button or axis, its number) -> value, as the game has it

    def attach(self) -> None:
        """The pad is plugged in when the game starts SDL's joysticks, before it looks for one."""
        self.game.clock.started.append(self._plug_in)

    def _plug_in(self, thread, flags):
        find = thread.process.find
        if self.joystick or not flags & self.JOYSTICK:
            return
        if find("SDL_JoystickAttachVirtual"):
            self._plug_into_sdl2(thread, find)
        elif find("SDL_AttachVirtualJoystick"):
            self._plug_into_sdl3(thread, find)

    def _plug_into_sdl2(self, thread, find):
        call = self.game.clock.call
        counts = len(self.AXES), len(self.BUTTONS), 0
        (number,) = call(thread, (find("SDL_JoystickAttachVirtual"), self.IS_GAMEPAD, *counts))
        (self.joystick,) = call(thread, (find("SDL_JoystickOpen"), number))
        self.set_button = find("SDL_JoystickSetVirtualButton")
        self.set_axis = find("SDL_JoystickSetVirtualAxis")

    def _plug_into_sdl3(self, thread, find):
        clock = self.game.clock
        size = 136  # of struct SDL_VirtualJoystickDesc
        counts = len(self.AXES), len(self.BUTTONS), 0, 0
        description = struct.pack("<I8H116x", size, self.IS_GAMEPAD, 0, 0, 0, *counts)
        clock.scratch[:size] = description
        (number,) = clock.call(thread, (find("SDL_AttachVirtualJoystick"), kernel.SCRATCH_AT))
        (self.joystick,) = clock.call(thread, (find("SDL_OpenJoystick"), number))
        self.set_button = find("SDL_SetJoystickVirtualButton")
        self.set_axis = find("SDL_SetJoystickVirtualAxis")

    @property
    def ready(self) -> bool:
        return bool(self.joystick)

    def set(self, buttons, sticks) -> None:
        """Takes effect when the game next asks SDL for events."""
        pressed = dict(zip(BUTTONS, map(int, buttons), strict=True))
        button, axis = self.set_button, self.set_axis
        values = {(button, i): pressed.get(name, 0) for i, name in enumerate(self.BUTTONS)}
        for i, value in enumerate(sticks):
            values[axis, i] = round(32767 * float(value))
        for i, name in enumerate(self.AXES[len(STICKS) :], len(STICKS)):
            values[axis, i] = 32767 if pressed[name] else -32768
        changes = [
            (function, self.joystick, number, value)
            for (function, number), value in values.items()
            if self.state.get((function, number)) != value
        ]
        clock = self.game.clock
        if changes and clock.gated():
            clock.call(clock.gate, *changes)
            self.state = values


# ---- the picture ---------------------------------------------------------------------------------


class Readback(Screen):
    """The frame as it lies in the game, before it is shown: from SDL's renderer, its window
    surface, or OpenGL.
    """

    only_on = "Linux"
    needs_hook = True
    ARGB = 0x16362004  # SDL_PIXELFORMAT_ARGB8888
    SIZE_AT = kernel.SCRATCH_AT + 64  # int width, height
    BOUND_AT = SIZE_AT + 8  # unsigned frame buffer, pixel buffer
    PIXELS_AT = kernel.SCRATCH_AT + kernel.PAGE
    requirement = classmethod(sdl_is_there)

    def grab(self) -> np.ndarray | None:
        name, arguments = self.game.clock.presented
        if name not in self.READERS:
            raise GameError(
                f"{name or 'sleeping'}: a frame that is shown in this way cannot be read back; use "
                "screen='window'"
            )
        if not self.game.clock.gated():
            return None
        return self.READERS[name](self, *arguments[:2])

    # -- what every reader uses

    def _find(self, name) -> int:
        address = self.game.clock.gate.process.find(name)
        if not address:
            raise GameError(
                f"{name}: not in the game, so that its frames cannot be read back; use "
                "screen='window'"
            )
        return address

    def _calls(self, *calls) -> list[int]:
        """Call functions in the game, each (name, arguments...)."""
        clock = self.game.clock
        found = [(self._find(name), *arguments) for name, *arguments in calls]
        return clock.call(clock.gate, *found)

    def _pair(self, kind: str, at: int) -> tuple[int, int]:
        """Two numbers of 4 bytes that the game has stored for us."""
        return struct.unpack_from(f"<2{kind}", self.game.clock.scratch, at - kernel.SCRATCH_AT)

    def _size(self) -> tuple[int, int]:
        return self._pair("i", self.SIZE_AT)

    def _pixels(self, width, height, code) -> np.ndarray:
        import cv2

        size = 4 * width * height
        if not 0 < size <= kernel.SCRATCH - kernel.PAGE:
            raise GameError(f"a frame of {width} x {height} cannot be read back")
        at = self.PIXELS_AT - kernel.SCRATCH_AT
        pixels = np.frombuffer(self.game.clock.scratch[at : at + size], np.uint8)
        return cv2.cvtColor(pixels.reshape(height, width, 4), getattr(cv2, code))

    def _sdl3(self) -> bool:
        return bool(self.game.clock.gate.process.find("SDL_GetRenderOutputSize"))

    # -- SDL's renderer, and its window surface

    def _renderer(self, renderer, _) -> np.ndarray:
        """SDL_RenderPresent(renderer)."""
        if self._sdl3():  # makes a surface
            (surface,) = self._calls(("SDL_RenderReadPixels", renderer, 0))
            picture = self._surface_at(surface)
            self._calls(("SDL_DestroySurface", surface))
            return picture
        size = "SDL_GetRendererOutputSize", renderer, self.SIZE_AT, self.SIZE_AT + 4
        if not self.seen:
            self._calls(size)
        width, height = self._size()
        read = "SDL_RenderReadPixels", renderer, 0, self.ARGB, self.PIXELS_AT, 4 * width
        self._calls(size, read)
        if self._size() != (width, height):
            return self._renderer(renderer, 0)  # it was resized
        return self._pixels(width, height, "COLOR_BGRA2RGB")

    def _surface(self, window, _) -> np.ndarray:
        """SDL_UpdateWindowSurface(window)."""
        return self._surface_at(*self._calls(("SDL_GetWindowSurface", window)))

    def _surface_at(self, surface) -> np.ndarray:
        """Of a struct SDL_Surface with 4 bytes a pixel: int width, height, pitch; void *pixels."""
        import cv2

        read = self.game.clock.gate.process.read
        size_at, pixels_at = (8, 24) if self._sdl3() else (16, 32)
        width, height, pitch = struct.unpack("<iii", read(surface + size_at, 12))
        (at,) = struct.unpack("<Q", read(surface + pixels_at, 8))
        rows = np.frombuffer(read(at, pitch * height), np.uint8).reshape(height, pitch)
        pixels = rows[:, : 4 * width].reshape(height, width, 4)
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)

    # -- OpenGL

    def _opengl(self, *size) -> np.ndarray:
        """size: calls that store width and height of the window."""
        FRAME_BINDING, PACK_BINDING = 0x8CAA, 0x88ED
        RGBA, BYTE = 0x1908, 0x1401
        self._calls(
            *size,
            ("glGetIntegerv", FRAME_BINDING, self.BOUND_AT),
            ("glGetIntegerv", PACK_BINDING, self.BOUND_AT + 4),
        )
        width, height = self._size()
        calls = [("glReadPixels", 0, 0, width, height, RGBA, BYTE, self.PIXELS_AT)]
        bound = self._pair("I", self.BOUND_AT)
        if any(bound):  # read from the window, then give the game back what it had bound
            calls = [*self._bind(0, 0), *calls, *self._bind(*bound)]
        self._calls(*calls)
        return self._pixels(width, height, "COLOR_RGBA2RGB")[::-1]

    def _bind(self, frame: int, pack: int) -> list:
        FRAME_BUFFER, PACK_BUFFER = 0x8CA8, 0x88EB
        return [
            ("glBindFramebuffer", FRAME_BUFFER, frame),
            ("glBindBuffer", PACK_BUFFER, pack),
        ]

    def _sdl_gl(self, window, _) -> np.ndarray:
        size = "SDL_GetWindowSizeInPixels" if self._sdl3() else "SDL_GL_GetDrawableSize"
        return self._opengl((size, window, self.SIZE_AT, self.SIZE_AT + 4))

    def _glx(self, display, drawable) -> np.ndarray:
        GLX_WIDTH, GLX_HEIGHT = 0x801D, 0x801E
        return self._opengl(
            ("glXQueryDrawable", display, drawable, GLX_WIDTH, self.SIZE_AT),
            ("glXQueryDrawable", display, drawable, GLX_HEIGHT, self.SIZE_AT + 4),
        )

    def _egl(self, display, surface) -> np.ndarray:
        EGL_HEIGHT, EGL_WIDTH = 0x3056, 0x3057
        return self._opengl(
            ("eglQuerySurface", display, surface, EGL_WIDTH, self.SIZE_AT),
            ("eglQuerySurface", display, surface, EGL_HEIGHT, self.SIZE_AT + 4),
        )

    READERS = {
        "SDL_RenderPresent": _renderer,
        "SDL_UpdateWindowSurface": _surface,
        "SDL_UpdateWindowSurfaceRects": _surface,
        "SDL_GL_SwapWindow": _sdl_gl,
        "glXSwapBuffers": _glx,
        "eglSwapBuffers": _egl,
    }
