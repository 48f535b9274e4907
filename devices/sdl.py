"""Gamepad and screen of games that use SDL, by calls inside the game."""

from __future__ import annotations

import functools
import struct

from common.artefact import BUTTONS, FRAME, STICKS

import numpy as np

from clock import kernel
from clock.base import GameError
from devices import sandbox
from devices.base import Device


class VirtualJoystick(Device):
    """A gamepad plugged into SDL within the game, by calling SDL's own functions at the gate (SDL
    >= 2.0.14).
    """

    environment = {"SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1"}
    BUTTONS = (
        "SOUTH",
        "EAST",
        "WEST",
        "NORTH",
        "BACK",
        "",
        "START",
        "LEFT_THUMB",
        "RIGHT_THUMB",
        "LEFT_SHOULDER",
        "RIGHT_SHOULDER",
        # SDL's order of a game controller
        "DPAD_UP",
        "DPAD_DOWN",
        "DPAD_LEFT",
        "DPAD_RIGHT",
    )
    AXES = (*STICKS, "LEFT_TRIGGER", "RIGHT_TRIGGER")
    JOYSTICK = 0x200 | 0x2000  # SDL_INIT_JOYSTICK, SDL_INIT_GAMECONTROLLER

    def __init__(self, stage: sandbox.Stage):
        self.stage, self.joystick, self.state = stage, 0, {}

    def attach(self) -> None:
        """The clock runs: wait for the game to start SDL's joysticks, and plug the pad in before it
        looks for one.
        """
        self.stage.clock.started.append(self._plug_in)

    def _plug_in(self, thread, flags):
        find, call = thread.process.find, functools.partial(self.stage.clock.call, thread)
        if self.joystick or not flags & self.JOYSTICK:
            return
        if find("SDL_JoystickAttachVirtual"):
            # 1: a game controller
            (number,) = call(
                (find("SDL_JoystickAttachVirtual"), 1, len(self.AXES), len(self.BUTTONS), 0)
            )
            (self.joystick,) = call((find("SDL_JoystickOpen"), number))
            self.functions = (
                find("SDL_JoystickSetVirtualButton"),
                find("SDL_JoystickSetVirtualAxis"),
            )
        elif find("SDL_AttachVirtualJoystick"):  # SDL 3: struct SDL_VirtualJoystickDesc
            self.stage.clock.scratch[:136] = struct.pack(
                "<I8H116x", 136, 1, 0, 0, 0, len(self.AXES), len(self.BUTTONS), 0, 0
            )
            (number,) = call((find("SDL_AttachVirtualJoystick"), kernel.SCRATCH_AT))
            (self.joystick,) = call((find("SDL_OpenJoystick"), number))
            self.functions = (
                find("SDL_SetJoystickVirtualButton"),
                find("SDL_SetJoystickVirtualAxis"),
            )

    @property
    def ready(self) -> bool:
        return bool(self.joystick)

    def set(self, buttons, sticks) -> None:
        """Takes effect when the game next asks SDL for events."""
        pressed = dict(zip(BUTTONS, map(int, buttons), strict=False))
        values = {(0, i): pressed.get(name, 0) for i, name in enumerate(self.BUTTONS)}
        values |= {(1, i): round(32767 * float(v)) for i, v in enumerate(sticks)}
        values |= {
            (1, i): 32767 if pressed[name] else -32768
            for i, name in enumerate(self.AXES)
            if name in pressed
        }
        changes = [
            (self.functions[kind], self.joystick, i, value)
            for (kind, i), value in values.items()
            if self.state.get((kind, i)) != value
        ]
        if changes and self.stage.clock.gated():
            self.stage.clock.call(self.stage.clock.gate, *changes)
            self.state = values


class Readback(Device):
    """The frame as it lies in the game at the gate, before it is shown: from SDL's renderer, its
    window surface, or OpenGL.
    """

    ARGB = 0x16362004  # SDL_PIXELFORMAT_ARGB8888
    SIZE_AT, PIXELS_AT = kernel.SCRATCH_AT + 64, kernel.SCRATCH_AT + kernel.PAGE

    def __init__(self, stage: sandbox.Stage):
        self.stage, self.last, self.seen = stage, np.zeros((FRAME, FRAME, 3), np.uint8), 0

    @property
    def frame(self) -> int:
        return self.stage.clock.frames

    @property
    def time(self) -> float:
        return self.stage.clock.time

    def score(self) -> dict:
        return {}

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3] RGB; the last frame once the game has ended."""
        if self.seen != self.frame and self.stage.clock.gated():
            name, arguments = self.stage.clock.presented
            if name not in self.READERS:
                raise GameError(
                    f"{name or 'sleeping'}: a frame that is shown in this way cannot be read back; "
                    "use screen='window'"
                )
            self.last, self.seen = self.READERS[name](self, *arguments[:2]), self.frame
        return self.last

    def _find(self, name) -> int:
        address = self.stage.clock.gate.process.find(name)
        if not address:
            raise GameError(
                f"{name}: not in the game, so that its frames cannot be read back; use "
                "screen='window'"
            )
        return address

    def _calls(self, *calls) -> list[int]:
        """Call functions in the game, each (name, arguments...)."""
        clock = self.stage.clock
        return clock.call(
            clock.gate, *((self._find(name), *arguments) for name, *arguments in calls)
        )

    def _size(self) -> tuple[int, int]:
        return struct.unpack_from("<ii", self.stage.clock.scratch, self.SIZE_AT - kernel.SCRATCH_AT)

    def _pixels(self, width, height, code) -> np.ndarray:
        import cv2

        if not 0 < 4 * width * height <= kernel.SCRATCH - kernel.PAGE:
            raise GameError(f"a frame of {width} x {height} cannot be read back")
        at = self.PIXELS_AT - kernel.SCRATCH_AT
        pixels = np.frombuffer(
            self.stage.clock.scratch[at : at + 4 * width * height], np.uint8
        ).reshape(height, width, 4)
        return cv2.cvtColor(pixels, getattr(cv2, code))

    def _sdl3(self) -> bool:
        return bool(self.stage.clock.gate.process.find("SDL_GetRenderOutputSize"))

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
        self._calls(
            size, ("SDL_RenderReadPixels", renderer, 0, self.ARGB, self.PIXELS_AT, 4 * width)
        )
        if self._size() != (width, height):
            return self._renderer(renderer, 0)  # it was resized
        return self._pixels(width, height, "COLOR_BGRA2RGB")

    def _surface(self, window, _) -> np.ndarray:
        """SDL_UpdateWindowSurface(window)."""
        return self._surface_at(*self._calls(("SDL_GetWindowSurface", window)))

    def _surface_at(self, surface) -> np.ndarray:
        """Of a struct SDL_Surface with 4 bytes a pixel: int width, height, pitch; void *pixels."""
        import cv2

        read, (size, pixels) = (
            self.stage.clock.gate.process.read,
            (8, 24) if self._sdl3() else (16, 32),
        )
        (width, height, pitch), (at,) = (
            struct.unpack("<iii", read(surface + size, 12)),
            struct.unpack("<Q", read(surface + pixels, 8)),
        )
        rows = np.frombuffer(read(at, pitch * height), np.uint8).reshape(height, pitch)[
            :, : 4 * width
        ]
        return cv2.cvtColor(rows.reshape(height, width, 4), cv2.COLOR_BGRA2RGB)

    def _opengl(self, *size) -> np.ndarray:
        """size: calls that store width and height of the window."""
        FRAME_BINDING, FRAME_BUFFER, PACK_BINDING, PACK_BUFFER, RGBA, BYTE = (
            0x8CAA,
            0x8CA8,
            0x88ED,
            0x88EB,
            0x1908,
            0x1401,
        )
        bound = self.SIZE_AT + 8
        self._calls(
            *size,
            ("glGetIntegerv", FRAME_BINDING, bound),
            ("glGetIntegerv", PACK_BINDING, bound + 4),
        )
        width, height = self._size()
        frame, pack = struct.unpack_from("<II", self.stage.clock.scratch, bound - kernel.SCRATCH_AT)

        def bind(frame, pack):
            return [
                ("glBindFramebuffer", FRAME_BUFFER, frame),
                ("glBindBuffer", PACK_BUFFER, pack),
            ]

        self._calls(
            *(bind(0, 0) if frame or pack else ()),
            ("glReadPixels", 0, 0, width, height, RGBA, BYTE, self.PIXELS_AT),
            *(bind(frame, pack) if frame or pack else ()),
        )
        return self._pixels(width, height, "COLOR_RGBA2RGB")[::-1]

    def _sdl_gl(self, window, _) -> np.ndarray:
        return self._opengl(
            (
                "SDL_GetWindowSizeInPixels" if self._sdl3() else "SDL_GL_GetDrawableSize",
                window,
                self.SIZE_AT,
                self.SIZE_AT + 4,
            )
        )

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
