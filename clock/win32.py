"""Windows calls by ctypes, and what they say of the processes that run."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
import sys

MOMENTS = 10_000_000  # virtual time counts 100 ns
HANDLES = {
    "OpenProcess",
    "OpenThread",
    "CreateToolhelp32Snapshot",
    "VirtualAllocEx",
    "CreateRemoteThread",
    "CreateJobObjectW",
    "GetForegroundWindow",
}
ACCESS_DENIED, ELEVATION_REQUIRED = 5, 740  # Windows error codes
ALL_ACCESS = 0x1FFFFF  # to a process or thread: PROCESS_ALL_ACCESS, THREAD_ALL_ACCESS


@functools.cache
def windows_function(name: str):
    for library in ("kernel32", "ntdll", "user32", "winmm", "shell32"):
        if function := getattr(ctypes.WinDLL(library, use_last_error=True), name, None):
            function.restype = ctypes.c_void_p if name in HANDLES else ctypes.c_int
            return function


def windows(name: str, *arguments) -> int:
    """Call a function of Windows: whole numbers go as 64 bits."""
    return (
        windows_function(name)(
            *(ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments)
        )
        or 0
    )


def must(name: str, *arguments) -> int:
    """As windows(); OSError if the result is 0."""
    result = windows(name, *arguments)
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def snapshot(kind: int, form: str) -> list[tuple]:
    """Rows of a toolhelp table: 2 processes, 4 threads."""
    which = {2: "Process32%sW", 4: "Thread32%s"}[kind]
    table = windows("CreateToolhelp32Snapshot", kind, 0)
    row = ctypes.create_string_buffer(struct.calcsize(form))
    rows = []
    struct.pack_into("<I", row, 0, len(row))
    more = windows(which % "First", table, row)
    while more:
        rows.append(struct.unpack(form, row.raw))
        more = windows(which % "Next", table, row)
    windows("CloseHandle", table)
    return rows


def processes() -> dict:
    """pid -> (pid of the parent, name of the executable)"""
    rows = snapshot(2, "<8xI20xI8x520s4x")  # PROCESSENTRY32W
    return {pid: (parent, name.decode("utf-16-le").split("\0")[0]) for pid, parent, name in rows}


def family(pid: int) -> set[int]:
    """A process and its descendants."""
    parents = {child: parent for child, (parent, _) in processes().items()}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def job(process: int) -> int:
    """A process's handle -> that of a job: when this one is closed, by our end for example, the
    process and all its children end.
    """
    KILL_ON_CLOSE, LIMITS = 0x2000, 9
    handle = must("CreateJobObjectW", None, None)
    limits = struct.pack("<16xI124x", KILL_ON_CLOSE)
    must("SetInformationJobObject", handle, LIMITS, limits, len(limits))
    must("AssignProcessToJobObject", handle, process)
    return handle


def base_python() -> str:
    """The interpreter itself: a virtual environment's python.exe only starts it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def denied(e: OSError) -> str:
    """What is wrong when Windows refuses, and the fix."""
    code = getattr(e, "winerror", None)
    if code == ELEVATION_REQUIRED:
        return "it runs as administrator; start this from an administrator's prompt too"
    if code == ACCESS_DENIED:
        return (
            "access denied: if it runs as administrator, start this from an administrator's prompt "
            "too; a game with anti-cheat refuses everybody, "
            "and is left alone: take one without, or its offline mode"
        )
    return f"{e.strerror or e}"


@functools.cache
def see_true_pixels() -> None:
    """Else Windows gives scaled coordinates to programs on a screen of high density."""
    PER_MONITOR_V2 = -4
    with contextlib.suppress(AttributeError):  # before Windows 10
        ctypes.WinDLL("user32").SetProcessDpiAwarenessContext(ctypes.c_void_p(PER_MONITOR_V2))


def desktop_windows() -> list[tuple]:
    """(window, pid, title, x, y, width, height) of the visible windows' client areas in pixels of
    the desktop, largest first.
    """
    see_true_pixels()
    found = []

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def see(window, _):
        pid = ctypes.c_ulong()
        area = (ctypes.c_long * 4)()
        corner = (ctypes.c_long * 2)()
        text = ctypes.create_unicode_buffer(200)
        if windows("IsWindowVisible", window) and not windows("IsIconic", window):
            windows("GetWindowThreadProcessId", window, ctypes.byref(pid))
            windows("GetClientRect", window, area)
            windows("ClientToScreen", window, corner)
            windows("GetWindowTextW", window, text, len(text))
            if area[2] * area[3]:
                found.append((window, pid.value, text.value, *corner, *area[2:]))
        return 1

    windows("EnumWindows", see, 0)
    return sorted(found, key=lambda w: -w[5] * w[6])


def windows_processor_time(pid: int) -> float:
    """Seconds."""
    QUERY, times = 0x1000, (ctypes.c_uint64 * 4)()
    handle = must("OpenProcess", QUERY, 0, pid)
    windows("GetProcessTimes", handle, *(ctypes.byref(times, 8 * i) for i in range(4)))
    windows("CloseHandle", handle)
    return (times[2] + times[3]) / MOMENTS
