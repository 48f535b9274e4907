"""Presenting a frame is a wait too: for the next tick of a monitor.

Breakpoints on SDL_RenderPresent, glXSwapBuffers and their like are the frame gate.  A thread that
comes there has drawn a frame, and is held until the monitor's next tick.
"""

from __future__ import annotations

import functools
import struct

from clock import chance, kernel, users
from clock.base import NS
from clock.tracee import Process, State, Thread


class Breakpoints:
    """Places in the game where a thread stops, and what is done there."""

    def __init__(self, clock):
        self.clock = clock

    def set(self, thread, address: int, call, library: str = "") -> None:
        """Let a thread that comes there stop, and call(thread, its registers there)."""
        process = thread.process
        if address not in process.breaks:
            process.breaks[address] = (process.read(address, 1), call, library)
            process.write_code(thread.tid, address, kernel.INT3)

    def clear(self, thread, address: int) -> None:
        thread.process.write_code(thread.tid, address, thread.process.breaks.pop(address)[0])

    def at_return(self, thread, registers, call) -> None:
        """At the entry of a function: call(thread, registers) once, when it returns."""

        def returned(thread, after):
            self.clear(thread, back)
            call(thread, after)

        (back,) = struct.unpack("<Q", thread.process.read(registers.rsp, 8))
        self.set(thread, back, returned)

    def on_trap(self, thread) -> bool:
        """At an int3: whether it is ours."""
        registers = thread.registers()
        if registers.rip == kernel.STUB_AT + kernel.CALLS_END:
            thread.state = State.CALLED
            return True
        registers.rip -= 1
        if registers.rip not in thread.process.breaks:
            return False
        byte, call, _ = thread.process.breaks[registers.rip]
        self._pass(thread, registers.copy(), byte)
        call(thread, registers)
        if thread.state is State.RUNNING:
            self.clock.go_on(thread)
        return True

    def _pass(self, thread, registers, byte: bytes) -> None:
        """Do the instruction under a breakpoint: the usual first ones ourselves, others by a single
        step.
        """
        process, at = thread.process, registers.rip
        if done_by_hand(process, registers, byte + process.read(at + 1, 9)):
            return thread.set_registers(registers)
        thread.set_registers(registers)
        process.write_code(thread.tid, at, byte)
        thread.run_until_trap("SINGLESTEP")
        process.write_code(thread.tid, at, kernel.INT3)


def done_by_hand(process: Process, registers, code: bytes) -> bool:
    """Do one of the usual first instructions in the registers; False if it is another one."""
    if code[:4] == b"\xf3\x0f\x1e\xfa":  # endbr64
        registers.rip += 4
    elif code[:2] == b"\xff\x25":  # jmp [rip + offset]: SDL's table of functions
        (offset,) = struct.unpack_from("<i", code, 2)
        (registers.rip,) = struct.unpack("<Q", process.read(registers.rip + 6 + offset, 8))
    elif code[:1] == b"\xc3":  # ret
        (registers.rip,) = struct.unpack("<Q", process.read(registers.rsp, 8))
        registers.rsp += 8
    else:
        return False
    return True


PARTS = 256  # CHOICE: after so many a frame is whole, of a game that waits for nothing


class FrameGate:
    """Where the game presents its frames."""

    def __init__(self, clock):
        self.clock = clock
        self.breakpoints = clock.breakpoints
        self.part = None  # (thread, call, its arguments) of a frame that is being shown in parts
        self.parts = 0  # of it, so far
        self.due = 0  # from when on the monitor shows a frame again
        self.users = ""  # see users.py

    # -- finding the functions that present

    def watch_loader(self, thread, loader: int) -> None:
        """loader: address of the dynamic loader, which calls a function of its own whenever it has
        loaded something.
        """
        files = kernel.mapped_files(thread.tid)
        path = next((path for path, at in files.items() if at == loader), "")
        if not path:
            return
        state = kernel.library_symbols(*kernel.located(thread.tid, path)).get("_dl_debug_state")
        if state:
            self.breakpoints.set(thread, loader + state, self._on_libraries)

    def _on_libraries(self, thread, _) -> None:
        """The dynamic loader has loaded something: breakpoints on what is new to us."""
        process = thread.process
        for path, base in kernel.mapped_files(process.pid).items():
            if path in process.libraries:
                continue
            if self.users and users.READERS.search(path):
                process.libraries[path] = {}
                users.divert(thread, path, base, self.users)
            if self.clock.fixed and chance.LIBRARIES.search(path):
                process.libraries[path] = {}
                chance.divert(thread, path, base)
            if kernel.GRAPHICS.search(path):
                names = kernel.library_symbols(*kernel.located(process.pid, path))
                process.libraries[path] = {name: base + at for name, at in names.items()}
                self._watch_library(thread, path)

    def _watch_library(self, thread, path: str) -> None:
        """Breakpoints on what presents, what gives the address of such a function, and SDL_Init."""
        process, functions = thread.process, thread.process.libraries[path]
        # sdl12-compat has SDL 2 below it, and that presents
        if process.outermost in ("", path) and "SDL12COMPAT_GetWindow" not in functions:
            for name in kernel.PRESENTS & set(functions):
                self._watch(thread, functions[name], name, path)
        if process.outermost == "":
            for name in kernel.RESOLVERS.keys() & set(functions):
                asked = functools.partial(self._on_resolve, kernel.RESOLVERS[name], path)
                self.breakpoints.set(thread, functions[name], asked, path)
        for name in kernel.STARTS & set(functions):
            self.breakpoints.set(thread, functions[name], self._on_start)

    def _watch(self, thread, address: int, name: str, library: str) -> None:
        """A breakpoint on a function that presents."""
        presents = functools.partial(self._on_present, name, library)
        self.breakpoints.set(thread, address, presents, library)

    def _on_resolve(self, argument: str, library: str, thread, registers) -> None:
        """The program asks for a function by name: if it presents, a breakpoint on what it gets."""
        text = thread.process.read(getattr(registers, argument), 32)
        name = text.split(b"\0")[0].decode(errors="replace")

        def resolved(thread, after):
            if after.rax:
                self._watch(thread, after.rax, name, library)

        if name in kernel.PRESENTS:
            self.breakpoints.at_return(thread, registers, resolved)

    def _on_start(self, thread, registers) -> None:
        """SDL_Init or SDL_InitSubSystem: hold the thread again when it returns."""
        flags = registers.rdi & 0xFFFFFFFF

        def tell():
            for call in self.clock.started:
                call(thread, flags)

        def started(thread, _):
            thread.state = State.PARKED
            self.clock.errands.append((thread, tell))

        self.breakpoints.at_return(thread, registers, started)

    # -- presenting

    def _on_present(self, name: str, library: str, thread, registers) -> None:
        """A frame is drawn; hold the thread here, or where the frame has been shown."""
        arguments = registers.arguments()
        if name == "SDL_UpdateRects":
            events = thread.process.libraries[library]["SDL_PumpEvents"]
            self.breakpoints.set(thread, events, self._on_events)
            if self.parts < PARTS and is_part(thread.process, *arguments[:3]):
                self.part = thread, name, arguments
                self.parts += 1
                return
        if not thread.process.outermost:
            self._let_go_of_others(thread, library)
        if self.clock.shown:
            return self.breakpoints.at_return(
                thread, registers, lambda thread, _: self._hold(thread, name, arguments)
            )
        self._hold(thread, name, arguments)

    def _on_events(self, thread, _) -> None:
        """SDL 1.2 is asked for events: a frame that was shown in parts is whole.  Where nothing was
        drawn, since nothing has changed, the monitor shows the last one again.
        """
        clock = self.clock
        if self.part and self.part[0] is thread:
            self._hold(*self.part)
        elif thread is clock.gate and clock.now >= self.due:
            thread.call = "present"
            thread.park(clock.now + 1)
            self.due = max(self.due + int(NS / clock.fps), clock.now)
            self._count(thread, *clock.presented)

    def _let_go_of_others(self, thread, library: str) -> None:
        """The first library that presents is the outermost one: it stays the gate."""
        process = thread.process
        process.outermost = library
        others = [at for at, (*_, other) in process.breaks.items() if other not in ("", library)]
        for address in others:
            self.breakpoints.clear(thread, address)

    def _hold(self, thread: Thread, name: str, arguments: list[int]) -> None:
        """At the gate until the next tick of the monitor: its vertical blank."""
        clock = self.clock
        tick = int((clock.now - kernel.BIRTH) * clock.fps // NS) + 1
        moment = kernel.BIRTH + int(-(-tick * NS // clock.fps))
        thread.call = "present"
        thread.park(max(clock.now + 1, moment))
        self.due = moment + int(NS / clock.fps)
        self.part = None
        self.parts = 0
        clock.sleeps = None
        self._count(thread, name, arguments)
        if clock.trace:
            clock.deadlines.trace(f"thread {thread.number} {name}", thread.deadline)

    def holds(self, thread: Thread | None) -> bool:
        """Whether it is a living thread that has presented, and waits for the next tick."""
        if thread is None or thread.tid not in self.clock.threads:
            return False
        return thread.state is State.PARKED and thread.call == "present"

    def on_sleep(self, thread: Thread) -> None:
        """The last resort: of a game that presents in no way that we see, the sleeps of its main
        thread are the frames.
        """
        process = thread.process
        main = thread.tid == process.pid
        sleeps = thread.call in kernel.SLEEPS or thread.call in kernel.WAITS
        if main and sleeps and self.clock.sleeps in (0, process.pid):
            self._count(thread, "sleep", [])

    def _count(self, thread: Thread, name: str, arguments: list[int]) -> None:
        clock = self.clock
        clock.frames += 1
        clock.gate = thread
        clock.presented = name, arguments


def is_part(process: Process, surface: int, count: int, areas: int) -> bool:
    """Whether SDL 1.2 is to show less than the whole surface: `count` areas, int16 x, y, w, h."""
    if count & 0xFFFFFFFF != 1:
        return True
    width, height = struct.unpack("<ii", process.read(surface + 16, 8))
    return struct.unpack("<4h", process.read(areas, 8)) != (0, 0, width, height)


def call_inside(clock, thread: Thread, calls) -> list[int]:
    """Run functions of the game, as Clock.call says."""
    kept, state, deadline, call = thread.registers(), thread.state, thread.deadline, thread.call
    table = write_table(clock.page.words, calls)
    now = kept.copy()
    now.rip = kernel.STUB_AT + kernel.CALLS_ENTRY
    now.rsp = (kept.rsp - 1024) & ~15
    now.orig_rax = kernel.ONES
    thread.set_registers(now)
    thread.release()
    clock.go_on(thread)
    while thread.state is not State.CALLED:
        clock.settle(
            until=lambda: (
                thread.state is State.CALLED
                or thread.deadline is not None
                or thread.tid not in clock.threads
            )
        )
        if thread.tid not in clock.threads:
            raise ProcessLookupError("the game ended in a function that it was made to call")
        if thread.state is not State.CALLED:  # it waits: not in our time
            thread.deadline = clock.now
            clock.deadlines.wake(thread)
    thread.set_registers(kept)
    thread.state, thread.deadline, thread.call = state, deadline, call
    return [clock.page.words[table + 8 * i + 7] for i in range(len(calls))]


def write_table(words, calls) -> int:
    """The table of calls that the stub runs; -> its place in words.  The last word of each row
    becomes the result; a null function ends it.
    """
    table = (kernel.TABLE_AT - kernel.CLOCK_AT) // 8
    for i, (function, *arguments) in enumerate(calls):
        row = [function, *(a & kernel.ONES for a in arguments), *[0] * (7 - len(arguments))]
        for j, word in enumerate(row):
            words[table + 8 * i + j] = word
    words[table + 8 * len(calls)] = 0
    return table
