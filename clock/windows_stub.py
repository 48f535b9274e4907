"""What is put into a Windows game: a page of data, behind it a page of code that tells the time.

Its assembly is tests/asm/windows64.S and windows32.S, which say what stands where in the data.
Time is in moments of 100 ns since the clock took over.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct

from clock import win32
from clock.windows_guard import BANKS, BANKS_AT, CLOCKS_AT
from clock.windows_process import WindowsProcess

WINDOWS_STUB = {
    64: bytes.fromhex(
        "4883ec38488d4c242831d2ff15f7efffff440fb605e7efffff41c1e0054c8d0ddcf3ffff4d01c131d248"
        "8b442428492b01480f48c249f76108480facd02049034110493b4118490f4f41184883c438c3534883ec"
        "204889cbe8a3ffffff48f725d4efffff480facd020480305b0efffff488903b8010000004883c4205bc3"
        "66904883ec28e82c00000048030598efffff4883c428c366662e0f1f8400000000004883ec28e80c0000"
        "0048030580efffff4883c428c34883ec28e842ffffff31d2b91027000048f7f14883c428c30f1f005348"
        "83ec204889cbe823ffffff48030534efffff4889034883c4205bc30f1f0031d25356574883ec3089d748"
        "bbffffffffffffff7f83f9ff741989ce4869f610270000e8e8feffff488d1c3031c04885f6740748c7c0"
        "78ecffff488944242889f9488d542428ff15d4eeffff85ff74073dc0000000740ce8b4feffff4839d87c"
        "d231c04883c4305f5e5bc3"
    ),
    32: bytes.fromhex(
        "5783ec0889e06a0050ff9308f0ffff0fb6bb00f0ffffc1e7058dbc1f00f4ffff585a2b071b5704790431"
        "c031d28d4f08e8180000000347101357143947188b4f1c19d17d068b47188b571c5fc356575589c689d7"
        "f72189d589f8f761045089f0f7610401c511142489f8f72101e8131424595d5f5ec38b1c2481e300f0ff"
        "ffc353e8f0ffffffe875ffffff8d8b38f0ffffe8b7ffffff038320f0ffff139324f0ffff8b4c24088901"
        "895104b8010000005bc204008db426000000008d7426009053e8b0ffffffe828000000038328f0ffff13"
        "932cf0ffff5bc38db4260000000053e890ffffffe808000000038330f0ffff5bc3e808ffffff56be1027"
        "000089c189d031d2f7f691f7f689ca5ec38d760053e860ffffffe8e5feffff038318f0ffff13931cf0ff"
        "ff8b4c240889018951045bc204008db426000000008d742600906a00ff742408e805000000c204006690"
        "53565783ec08e81bffffff83ceffbfffffff7f8b44241883f8ff741db910270000f7e189c689d7e884fe"
        "ffff9687d789c109d1740901c611d7b978ecffff89c8998904248954240489e050ff742420ff9310f0ff"
        "ff837c241c0074073dc0000000740de848feffff39f019fa7ccb31c083c4085f5e5bc20800"
    ),
}
WINDOWS_ENTRY = {
    64: {
        "QueryPerformanceCounter": 0x50,
        "GetTickCount": 0x80,
        "timeGetTime": 0xA0,
        "GetSystemTimeAsFileTime": 0xD0,
        "Sleep": 0xF0,
        "SleepEx": 0xF2,
    },
    32: {
        "QueryPerformanceCounter": 0x80,
        "GetTickCount": 0xC0,
        "timeGetTime": 0xE0,
        "GetSystemTimeAsFileTime": 0x110,
        "Sleep": 0x140,
        "SleepEx": 0x150,
    },
}
PAGE = 4096
ENDLESS = 2**62  # a limit that is never reached


class Stub:
    """The two pages in one game, and the time that they tell.

    A time goes from a moment to a limit and stands there.  Each has a bank in the data of its own;
    the number of the bank that counts is one byte, so that the game never reads half of a change.
    """

    def __init__(self, process: WindowsProcess):
        self.process = process
        self.page = 0  # address of the data; 0: not in the game
        self.slot = 0
        self.bank = (0, 0, 0, 0)  # performance counter, speed (32.32), moment, limit
        frequency = ctypes.c_int64()
        win32.windows("QueryPerformanceFrequency", ctypes.byref(frequency))
        self.frequency = frequency.value

    @property
    def begun(self) -> bool:
        """Whether it has told the game the time."""
        return self.bank[0] != 0

    @property
    def code(self) -> int:
        return self.page + PAGE

    def entry(self, name: str) -> int:
        """Address of what replaces a function."""
        return self.code + WINDOWS_ENTRY[self.process.bits][name]

    def put(self) -> None:
        """Into the game; nothing runs it yet."""
        self.page = self.process.allocate(2 * PAGE)
        self.process.write_code(self.code, WINDOWS_STUB[self.process.bits])
        self.process.make_executable(self.code, PAGE)

    def begin(self, ntdll: dict) -> None:
        """Take the real clocks as they are now for moment 0, at which time stands.

        ntdll: addresses of its functions.
        """
        functions = ntdll["NtQueryPerformanceCounter"], ntdll["NtDelayExecution"]
        clocks = self._clocks("GetSystemTimePreciseAsFileTime")
        scale = (self.frequency << 32) // win32.MOMENTS
        self.process.write(self.page + 8, struct.pack("<7Q", *functions, *clocks, scale))
        self.set(0.0, 0, 0)

    def adopt(self, code: int) -> bool:
        """Whether that is a stub of ours, left by an earlier attachment; its time is ours then."""
        if self.begun:
            return code == self.code
        machine_code = WINDOWS_STUB[self.process.bits]
        with contextlib.suppress(OSError):
            if self.process.read(code, len(machine_code)) == machine_code:
                self.page = code - PAGE
                self.slot = self.process.read(self.page, 1)[0]
                bank = self.process.read(self.page + BANKS_AT + 32 * self.slot, 32)
                self.bank = struct.unpack("<QQqq", bank)
                return True
        return False

    @property
    def now(self) -> int:
        """Moments, as the machine code counts them."""
        real, speed, moment, limit = self.bank
        return min(limit, moment + (max(0, counter() - real) * speed >> 32))

    @property
    def limit(self) -> int:
        """The moment at which time stands."""
        return self.bank[3]

    def set(self, speed: float, moment: int, limit: int) -> None:
        """From now on time goes from `moment` to `limit` at that speed."""
        self.slot = (self.slot + 1) % BANKS
        rate = int(speed * win32.MOMENTS / self.frequency * 2**32)
        self.bank = (counter(), rate, moment, limit)
        self.process.write(self.page + BANKS_AT + 32 * self.slot, struct.pack("<QQqq", *self.bank))
        self.process.write(self.page, bytes([self.slot]))

    def forget(self) -> None:
        """The game is out of reach: its last moment stays readable."""
        self.bank = (0, 0, self.limit, self.limit)

    def lead(self) -> int:
        """By how many moments the game's clocks are ahead of the real ones.

        It is the furthest that counts, as Windows' own ticks lag by up to 16 ms.
        """
        clocks = struct.unpack("<5Q", self.process.read(self.page + CLOCKS_AT, 40))
        date, performance, ticks, mmticks, scale = clocks
        now = self.now
        real = self._clocks("GetSystemTimeAsFileTime")
        ahead = performance + (now * scale >> 32) - real[1]
        late = (mmticks + now // 10000 - real[3] + 2**31) % 2**32 - 2**31  # it has 32 bits
        return max(
            date + now - real[0],
            ahead * win32.MOMENTS // self.frequency,
            (ticks + now // 10000 - real[2]) * 10000,
            late * 10000,
        )

    @staticmethod
    def _clocks(date: str) -> tuple[int, int, int, int]:
        """What the real clocks show: that function's date, performance counter, tick count,
        multimedia time.
        """
        moment = ctypes.c_uint64()
        ticks = ctypes.WinDLL("kernel32").GetTickCount64
        ticks.restype = ctypes.c_uint64
        win32.windows(date, ctypes.byref(moment))
        return moment.value, counter(), ticks(), win32.windows("timeGetTime") & 0xFFFFFFFF


def counter() -> int:
    """The real performance counter."""
    value = ctypes.c_int64()
    win32.windows("NtQueryPerformanceCounter", ctypes.byref(value), None)
    return value.value
