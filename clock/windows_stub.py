"""What is put into a Windows game: machine code that tells the time, and where it is entered."""

WINDOWS_STUB = {  # bits: tests/asm/windows64.S, windows32.S
    64: bytes.fromhex(
        "4883ec38488d4c242831d2ff15f7efffff440fb605e7efffff41c1e0054c8d0ddcf3ffff4d01c131d2488b442428492b01480f48c249f7610848"
        "0facd02049034110493b4118490f4f41184883c438c3534883ec204889cbe8a3ffffff48f725d4efffff480facd020480305b0efffff488903b8"
        "010000004883c4205bc366904883ec28e82c00000048030598efffff4883c428c366662e0f1f8400000000004883ec28e80c00000048030580ef"
        "ffff4883c428c34883ec28e842ffffff31d2b91027000048f7f14883c428c30f1f00534883ec204889cbe823ffffff48030534efffff48890348"
        "83c4205bc30f1f0031d25356574883ec3089d748bbffffffffffffff7f83f9ff741989ce4869f610270000e8e8feffff488d1c3031c04885f674"
        "0748c7c078ecffff488944242889f9488d542428ff15d4eeffff85ff74073dc0000000740ce8b4feffff4839d87cd231c04883c4305f5e5bc3"
    ),
    32: bytes.fromhex(
        "5783ec0889e06a0050ff9308f0ffff0fb6bb00f0ffffc1e7058dbc1f00f4ffff585a2b071b5704790431c031d28d4f08e8180000000347101357"
        "143947188b4f1c19d17d068b47188b571c5fc356575589c689d7f72189d589f8f761045089f0f7610401c511142489f8f72101e8131424595d5f"
        "5ec38b1c2481e300f0ffffc353e8f0ffffffe875ffffff8d8b38f0ffffe8b7ffffff038320f0ffff139324f0ffff8b4c24088901895104b80100"
        "00005bc204008db426000000008d7426009053e8b0ffffffe828000000038328f0ffff13932cf0ffff5bc38db4260000000053e890ffffffe808"
        "000000038330f0ffff5bc3e808ffffff56be1027000089c189d031d2f7f691f7f689ca5ec38d760053e860ffffffe8e5feffff038318f0ffff13"
        "931cf0ffff8b4c240889018951045bc204008db426000000008d742600906a00ff742408e805000000c20400669053565783ec08e81bffffff83"
        "ceffbfffffff7f8b44241883f8ff741db910270000f7e189c689d7e884feffff9687d789c109d1740901c611d7b978ecffff89c8998904248954"
        "240489e050ff742420ff9310f0ffff837c241c0074073dc0000000740de848feffff39f019fa7ccb31c083c4085f5e5bc20800"
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
REPLACED = {
    **{name: name for name in WINDOWS_ENTRY[64]},
    "RtlQueryPerformanceCounter": "QueryPerformanceCounter",
    "GetTickCount64": "GetTickCount",
    "GetSystemTimePreciseAsFileTime": "GetSystemTimeAsFileTime",
}
SYSTEM_DLLS = ("ntdll.dll", "kernelbase.dll", "kernel32.dll", "winmmbase.dll", "winmm.dll")
# in the data page: what was replaced, and the banks of stub.S
PATCHES_AT, BANKS_AT, BANKS = 0x80, 0x400, 96
ENDLESS = 2**62  # a limit that is never reached
JUMP = {64: 14, 32: 5}  # bytes that replace the beginning of a function
# fillers before a jump
HOT_PATCH = {64: (b"\x48\x8d\xa4\x24\0\0\0\0",), 32: (b"\x8b\xff\x55\x8b\xec\x5d", b"\x8b\xff")}
