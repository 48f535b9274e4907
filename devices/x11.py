"""A client of the X server: pictures of a screen, windows, keys."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np

from clock.base import GameError

# requests of the X protocol, by their numbers
GET_WINDOW_ATTRIBUTES, GET_GEOMETRY, QUERY_TREE, INTERN_ATOM, GET_PROPERTY = 3, 14, 15, 16, 20
SET_INPUT_FOCUS, GET_INPUT_FOCUS, QUERY_EXTENSION, GET_KEYBOARD_MAPPING = 42, 43, 98, 101
XTEST_FAKE_INPUT = 2  # of the extension
KEY_PRESS, KEY_RELEASE = 2, 3  # events
VIEWABLE, TO_PARENT = 2, 2


class Display:
    """A client of an X server in plain protocol: windows, keys and pixels."""

    def __init__(self, name: str, framebuffer: Path | None = None):
        """name: :0 or the like, on this machine    framebuffer: Xvfb's file, with its pixels

        Raises GameError where the server is not there, or refuses us.
        """
        self.name = name
        self.xtest = 0  # number of the extension, once it has been asked for
        self.codes = {}  # X key symbol -> key code
        self.socket = socket.socket(socket.AF_UNIX)
        self._connect(own=framebuffer is not None)
        self.pixels = mapped(framebuffer) if framebuffer else None  # uint8 [height, width, 4] BGRX

    def _connect(self, own: bool) -> None:
        number = self.name.split(":")[-1].split(".")[0]
        try:
            self.socket.connect(f"/tmp/.X11-unix/X{number}")
        except OSError as e:
            raise GameError(f"display {self.name}: {e.strerror}") from None
        kind, cookie = (b"", b"") if own else xauthority(number)
        version = 11
        hello = struct.pack("<BxHHHHxx", ord("l"), version, 0, len(kind), len(cookie))
        self.socket.sendall(hello + padded(kind) + padded(cookie))
        welcome, length = struct.unpack("<B5xH", self._read(8))
        setup = self._read(4 * length)
        if welcome != 1:
            reason = setup.rstrip(bytes(4)).decode(errors="replace").strip()
            raise GameError(f"display {self.name}: refused us ({reason})")
        vendor, formats = struct.unpack_from("<16xH3xB", setup)
        screens_at = 32 + -(-vendor // 4) * 4 + 8 * formats
        (self.root,) = struct.unpack_from("<I", setup, screens_at)  # of the first screen
        self.first_code, self.last_code = setup[26], setup[27]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise GameError(f"display {self.name}: the X server has gone")
            data += part
        return data

    def _send(self, opcode: int, detail: int = 0, body: bytes = b"") -> None:
        body = padded(body)
        self.socket.sendall(struct.pack("<BBH", opcode, detail, 1 + len(body) // 4) + body)

    def _ask(self, opcode: int, detail: int = 0, body: bytes = b"") -> bytes | None:
        """The reply, from its first byte on; None after an error.  Events are passed over."""
        self._send(opcode, detail, body)
        while True:
            head = self._read(32)
            if head[0] == 1:
                return head + self._read(4 * struct.unpack_from("<I", head, 4)[0])
            if head[0] == 0:
                return None

    # -- windows

    def windows(self) -> list[tuple[int, int, int, int, int]]:
        """(number, x, y, width, height) of the visible windows on the root, largest first."""
        tree = self._ask(QUERY_TREE, 0, struct.pack("<I", self.root))
        (count,) = struct.unpack_from("<H", tree, 16)
        found = []
        for window in struct.unpack_from(f"<{count}I", tree, 32):
            which = struct.pack("<I", window)
            attributes = self._ask(GET_WINDOW_ATTRIBUTES, 0, which)
            place = self._ask(GET_GEOMETRY, 0, which)
            if attributes and place and attributes[26] == VIEWABLE:
                found.append((window, *struct.unpack_from("<hhHH", place, 12)))
        return sorted(found, key=lambda w: -w[3] * w[4])

    def focus(self, window: int | None = None) -> int:
        """The window that gets the keys; with a number, first give them to that one."""
        if window:
            self._send(SET_INPUT_FOCUS, TO_PARENT, struct.pack("<II", window, 0))
        return struct.unpack_from("<I", self._ask(GET_INPUT_FOCUS), 8)[0]

    def owner(self, window: int) -> int:
        """The process behind a window, as it says itself (_NET_WM_PID); 0 if it does not say."""
        if window <= 1:  # none, or wherever the pointer is
            return 0
        name = b"_NET_WM_PID"
        reply = self._ask(INTERN_ATOM, 0, struct.pack("<HH", len(name), 0) + padded(name))
        (atom,) = struct.unpack_from("<I", reply, 8)
        reply = self._ask(GET_PROPERTY, 0, struct.pack("<IIIII", window, atom, 0, 0, 1))
        return struct.unpack_from("<I", reply, 32)[0] if reply and len(reply) >= 36 else 0

    # -- keys

    def key(self, name: str, down: bool) -> None:
        """Press or release a key by its X name (space, Left, a, ...), through XTEST; done when this
        returns.
        """
        if not self.xtest:
            self._find_keys()
        symbol = KEYSYMS[name] if name in KEYSYMS else ord(name)
        if symbol not in self.codes:
            raise GameError(f"key {name!r}: display {self.name} has no such key")
        event = KEY_PRESS if down else KEY_RELEASE
        body = struct.pack("<BBxxII8xhh8x", event, self.codes[symbol], 0, self.root, 0, 0)
        self._send(self.xtest, XTEST_FAKE_INPUT, body)
        self.focus()  # its reply comes after the key

    def _find_keys(self) -> None:
        name = b"XTEST"
        reply = self._ask(QUERY_EXTENSION, 0, struct.pack("<HH", len(name), 0) + padded(name))
        if not reply or not reply[8]:
            raise GameError(
                f"display {self.name}: its X server has no XTEST extension, which keys need"
            )
        self.xtest = reply[9]
        count = self.last_code - self.first_code + 1
        table = self._ask(GET_KEYBOARD_MAPPING, 0, struct.pack("<BBH", self.first_code, count, 0))
        symbols = struct.unpack_from(f"<{(len(table) - 32) // 4}I", table, 32)
        each = table[1]  # symbols of a key code
        for i, symbol in reversed(list(enumerate(symbols))):
            self.codes[symbol] = self.first_code + i // each

    # -- pixels

    def grab(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """What is shown in a part of the screen, uint8 [height, width, 4] BGRX; less where it goes
        beyond the screen.
        """
        screen = self._shot() if self.pixels is None else self.pixels
        return screen[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]

    def shows_picture(self, window: tuple) -> bool:
        """Whether one of windows() shows more than one colour: somebody has drawn into it.  Not
        known of a server whose memory is not mapped.
        """
        if self.pixels is None:
            return False
        shown = self.grab(*window[1:])
        return shown.size > 0 and bool((shown != shown[0, 0]).any())

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


def mapped(framebuffer: Path) -> np.ndarray:
    """The pixels of an XWD file that a server draws into, uint8 [height, width, 4] BGRX."""
    with open(framebuffer, "rb") as f:
        memory = np.memmap(f, np.uint8, "r")
    words = np.frombuffer(memory[:100], ">u4").tolist()
    header, width, height, line, colours = (words[i] for i in (0, 4, 5, 12, 19))
    pixels = memory[header + 12 * colours :][: line * height]
    return pixels.reshape(height, line // 4, 4)[:, :width]


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
    path = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority")
    data = path.read_bytes() if path.is_file() else b""
    at = 0
    while at < len(data):
        at += 2
        parts = []
        for _ in range(4):  # address, number, name, value
            (size,) = struct.unpack_from(">H", data, at)
            parts.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        if parts[1] in (b"", number.encode()):
            return parts[2], parts[3]
    return b"", b""
