"""A client of the X server: pictures of a screen, windows, keys."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np

from clock.base import GameError


class Display:
    """A client of an X server in plain protocol: windows, keys and, where the server's memory is
    mapped, pixels.
    """

    def __init__(self, name: str, framebuffer: Path | None = None):
        """name: :0 or the like, on this machine; framebuffer: Xvfb's file"""
        self.name, self.opcode, self.codes = name, {}, {}
        number = name.split(":")[-1].split(".")[0]
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(f"/tmp/.X11-unix/X{number}")
        except OSError as e:
            raise GameError(f"display {name}: {e.strerror}") from None
        kind, cookie = xauthority(number) if framebuffer is None else (b"", b"")
        self.socket.sendall(
            struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(kind), len(cookie))
            + padded(kind)
            + padded(cookie)
        )
        fine, length = struct.unpack("<B5xH", self._read(8))
        setup = self._read(4 * length)
        if fine != 1:
            raise GameError(
                f"display {name}: refused us "
                f"({setup.rstrip(bytes(4)).decode(errors='replace').strip()})"
            )
        vendor, formats = struct.unpack_from("<16xH3xB", setup)
        (self.root,) = struct.unpack_from("<I", setup, 32 + -(-vendor // 4) * 4 + 8 * formats)
        self.first, self.last = setup[26], setup[27]  # key codes
        self.pixels = None
        if framebuffer:
            with open(framebuffer, "rb") as f:
                memory = np.memmap(f, np.uint8, "r")
            # XWD
            header, width, height, line, colours = np.frombuffer(memory[:100], ">u4")[
                [0, 4, 5, 12, 19]
            ].tolist()
            # BGRX
            self.pixels = memory[header + 12 * colours :][: line * height].reshape(
                height, line // 4, 4
            )[:, :width]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise GameError(f"display {self.name}: the X server has gone")
            data += part
        return data

    def _send(self, opcode: int, detail: int = 0, body: bytes = b"") -> None:
        self.socket.sendall(
            struct.pack("<BBH", opcode, detail, 1 + -(-len(body) // 4)) + padded(body)
        )

    def _ask(self, opcode: int, detail: int = 0, body: bytes = b"") -> bytes | None:
        """The reply, from its first byte on; None after an error.  Events are passed over."""
        self._send(opcode, detail, body)
        while True:
            head = self._read(32)
            if head[0] == 1:
                return head + self._read(4 * struct.unpack_from("<I", head, 4)[0])
            if head[0] == 0:
                return None

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the visible windows on the root, largest first."""
        tree, found = self._ask(15, 0, struct.pack("<I", self.root)), []
        for window in struct.unpack_from(f"<{struct.unpack_from('<H', tree, 16)[0]}I", tree, 32):
            shown, place = (
                self._ask(3, 0, struct.pack("<I", window)),
                self._ask(14, 0, struct.pack("<I", window)),
            )
            if shown and place and shown[26] == 2:  # viewable
                found.append((window, *struct.unpack_from("<hhHH", place, 12)))
        return sorted(found, key=lambda w: -w[3] * w[4])

    def focus(self, window: int | None = None) -> int:
        """The window that gets the keys; with a number, first give them to that one."""
        if window:
            self._send(42, 2, struct.pack("<II", window, 0))  # SetInputFocus, revert to parent
        return struct.unpack_from("<I", self._ask(43), 8)[0]

    def owner(self, window: int) -> int:
        """The process behind a window, as it says itself (_NET_WM_PID); 0 if it does not say."""
        name = b"_NET_WM_PID"
        (atom,) = struct.unpack_from(
            "<I", self._ask(16, 0, struct.pack("<HH", len(name), 0) + padded(name)), 8
        )
        reply = (
            self._ask(20, 0, struct.pack("<IIIII", window, atom, 0, 0, 1)) if window > 1 else None
        )
        return struct.unpack_from("<I", reply, 32)[0] if reply and len(reply) >= 36 else 0

    def key(self, name: str, down: bool) -> None:
        """Press or release a key by its X name (space, Left, a, ...), through XTEST; done when this
        returns.
        """
        if not self.opcode:
            reply = self._ask(98, 0, struct.pack("<HH", 5, 0) + padded(b"XTEST"))
            if not reply or not reply[8]:
                raise GameError(
                    f"display {self.name}: its X server has no XTEST extension, which keys need"
                )
            self.opcode = reply[9]
            table = self._ask(
                101, 0, struct.pack("<BBH", self.first, self.last - self.first + 1, 0)
            )
            symbols = struct.unpack_from(f"<{(len(table) - 32) // 4}I", table, 32)
            for i, symbol in reversed(list(enumerate(symbols))):
                self.codes[symbol] = self.first + i // table[1]
        symbol = KEYSYMS[name] if name in KEYSYMS else ord(name)
        if symbol not in self.codes:
            raise GameError(f"key {name!r}: display {self.name} has no such key")
        self._send(
            self.opcode,
            2,
            struct.pack("<BBxxII8xhh8x", 2 if down else 3, self.codes[symbol], 0, self.root, 0, 0),
        )
        self.focus()  # its reply comes after the key

    def grab(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """What is shown in a part of the screen, uint8 [height, width, 4] BGRX; less where it goes
        beyond the screen.
        """
        screen = self._shot() if self.pixels is None else self.pixels
        return screen[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]

    def _shot(self) -> np.ndarray:
        """The whole screen, where the server's memory is not mapped."""
        try:
            import mss
        except ImportError:
            raise GameError(
                "capturing a window of a display that was given needs mss: pip install mss"
            ) from None
        with mss.MSS(display=self.name) as screen:
            return np.array(screen.grab(screen.monitors[0]))

    def close(self) -> None:
        self.socket.close()
        self.pixels = None


KEYSYMS = {
    "space": 0x20,
    "BackSpace": 0xFF08,
    "Tab": 0xFF09,
    "Return": 0xFF0D,
    "Escape": 0xFF1B,
    "Left": 0xFF51,
    "Up": 0xFF52,
    "Right": 0xFF53,
    "Down": 0xFF54,
    "Prior": 0xFF55,
    "Next": 0xFF56,
    "Home": 0xFF50,
    "End": 0xFF57,
    "Insert": 0xFF63,
    "Delete": 0xFFFF,
    "Shift_L": 0xFFE1,
    "Control_L": 0xFFE3,
    "Alt_L": 0xFFE9,
    **{f"F{i}": 0xFFBD + i for i in range(1, 13)},
}


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def xauthority(number: str) -> tuple[bytes, bytes]:
    """Name and value of the cookie for a display of this machine, if there is one."""
    path, at = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority"), 0
    data = path.read_bytes() if path.is_file() else b""
    while at < len(data):
        at, parts = at + 2, []
        for _ in range(4):  # address, number, name, value
            (size,) = struct.unpack_from(">H", data, at)
            parts.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        if parts[1] in (b"", number.encode()):
            return parts[2], parts[3]
    return b"", b""
