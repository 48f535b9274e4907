"""The frame gate: breakpoints on the functions that present."""

from __future__ import annotations

import functools
import struct

from clock import kernel
from clock.base import NS


class Gate:
    def _set_break(self, thread, address, call, library=""):
        """Let the thread that comes there stop, and call(thread, its registers there)."""
        process = thread.process
        if address not in process.breaks:
            process.breaks[address] = (process.read(address, 1), call, library)
            process.write_code(thread.tid, address, kernel.INT3)

    def _clear_break(self, thread, address):
        thread.process.write_code(thread.tid, address, thread.process.breaks.pop(address)[0])

    def _on_break(self, thread) -> bool:
        """At an int3: of ours?"""
        registers = self._registers(thread.tid)
        if registers.rip == kernel.STUB_AT + kernel.CALLS_END:
            thread.state = "called"
            return True
        registers.rip -= 1
        if registers.rip not in thread.process.breaks:
            return False
        byte, call, _ = thread.process.breaks[registers.rip]
        self._pass_break(thread, kernel.Registers.from_buffer_copy(registers), byte)
        call(thread, registers)
        if thread.state == "running":
            self._go_on(thread)
        return True

    def _pass_break(self, thread, registers, byte):
        """Do the instruction under the breakpoint: the usual first ones ourselves, others by a
        single step.
        """
        process, at = thread.process, registers.rip
        code = byte + process.read(at + 1, 9)
        if code[:4] == b"\xf3\x0f\x1e\xfa":  # endbr64
            registers.rip = at + 4
        elif code[:2] == b"\xff\x25":  # jmp [rip + offset]: SDL's table of functions
            (registers.rip,) = struct.unpack(
                "<Q", process.read(at + 6 + struct.unpack_from("<i", code, 2)[0], 8)
            )
        elif code[:1] == b"\xc3":  # ret
            (registers.rip,) = struct.unpack("<Q", process.read(registers.rsp, 8))
            registers.rsp += 8
        else:
            self._set_registers(thread.tid, registers)
            process.write_code(thread.tid, at, byte)
            self._until_trap(thread.tid, "SINGLESTEP")
            return process.write_code(thread.tid, at, kernel.INT3)
        self._set_registers(thread.tid, registers)

    def _on_libraries(self, thread, _):
        """The dynamic loader has loaded something: breakpoints on what is new to us."""
        process = thread.process
        for path, base in kernel.mapped_files(process.pid).items():
            if kernel.GRAPHICS.search(path) and path not in process.libraries:
                names = kernel.library_symbols(*kernel.located(process.pid, path))
                process.libraries[path] = {name: base + at for name, at in names.items()}
                for name in kernel.PRESENTS & set(names) if process.outermost in ("", path) else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_present, name, path),
                        path,
                    )
                for name in kernel.RESOLVERS.keys() & set(names) if process.outermost == "" else ():
                    self._set_break(
                        thread,
                        base + names[name],
                        functools.partial(self._on_resolve, kernel.RESOLVERS[name], path),
                        path,
                    )
                for name in kernel.STARTS & set(names):
                    self._set_break(thread, base + names[name], self._on_start)

    def _on_resolve(self, argument, library, thread, registers):
        """The program asks for a function by name: if it presents, a breakpoint on what it gets."""
        name = (
            thread.process.read(getattr(registers, argument), 32)
            .split(b"\0")[0]
            .decode(errors="replace")
        )
        if name in kernel.PRESENTS:
            self._on_return(
                thread,
                registers,
                lambda thread, after: (
                    after.rax
                    and self._set_break(
                        thread,
                        after.rax,
                        functools.partial(self._on_present, name, library),
                        library,
                    )
                ),
            )

    def _on_return(self, thread, registers, call):
        """At the entry of a function: call(thread, registers) once, when it returns."""

        def returned(thread, after):
            self._clear_break(thread, back)
            call(thread, after)

        (back,) = struct.unpack("<Q", thread.process.read(registers.rsp, 8))
        self._set_break(thread, back, returned)

    def _on_start(self, thread, registers):
        """SDL_Init or SDL_InitSubSystem: hold the thread again when it returns."""

        def started(thread, _):
            thread.state = "parked"
            self.errands.append((thread, lambda: [call(thread, flags) for call in self.started]))

        flags = registers.rdi & 0xFFFFFFFF
        self._on_return(thread, registers, started)

    def _on_present(self, name, library, thread, registers):
        """A frame is drawn; hold the thread here, or where the frame has been shown."""
        process, arguments = thread.process, registers.arguments()
        if not process.outermost:
            process.outermost = library
            for address in [
                at for at, (_, _, other) in process.breaks.items() if other not in ("", library)
            ]:
                self._clear_break(thread, address)
        if self.shown:
            return self._on_return(
                thread, registers, lambda thread, _: self._hold(thread, name, arguments)
            )
        self._hold(thread, name, arguments)

    def _hold(self, thread, name, arguments):
        """At the gate until the next tick of the monitor: its vertical blank."""
        tick = int((self.now - kernel.BIRTH) * self.fps // NS) + 1
        thread.state, thread.call, thread.deadline = (
            "parked",
            "present",
            max(self.now + 1, kernel.BIRTH + int(-(-tick * NS // self.fps))),
        )
        self.frames, self.gate, self.presented, self.sleeps = (
            self.frames + 1,
            thread,
            (name, arguments),
            None,
        )

    def gated(self) -> bool:
        """Whether a thread is held at the frame gate."""
        return (
            self.gate is not None
            and self.gate.tid in self.threads
            and (self.gate.state, self.gate.call) == ("parked", "present")
        )

    def call(self, thread, *calls) -> list[int]:
        """Run functions of the game, each (address, arguments...), in a thread that we hold at a
        function call; -> results, 64 bits.

        A wait in them ends at once.  Raises ProcessLookupError if the thread ends in them."""
        kept, state, deadline, what = (
            self._registers(thread.tid),
            thread.state,
            thread.deadline,
            thread.call,
        )
        table = (kernel.TABLE_AT - kernel.CLOCK_AT) // 8
        for i, (function, *arguments) in enumerate(calls):
            row = [function, *(a & kernel.ONES for a in arguments), *[0] * (7 - len(arguments))]
            for j, word in enumerate(row):
                self.words[table + 8 * i + j] = word
        self.words[table + 8 * len(calls)] = 0
        now = kernel.Registers.from_buffer_copy(kept)
        now.rip, now.rsp, now.orig_rax = (
            kernel.STUB_AT + kernel.CALLS_ENTRY,
            (kept.rsp - 1024) & ~15,
            kernel.ONES,
        )
        self._set_registers(thread.tid, now)
        thread.state, thread.deadline = "running", None
        self._go_on(thread)
        while thread.state != "called":
            self._settle(
                until=lambda: (
                    thread.state == "called"
                    or thread.deadline is not None
                    or thread.tid not in self.threads
                )
            )
            if thread.tid not in self.threads:
                raise ProcessLookupError("the game ended in a function that it was made to call")
            if thread.state != "called":
                thread.deadline = self.now
                self._wake(thread)
        self._set_registers(thread.tid, kept)
        thread.state, thread.deadline, thread.call = state, deadline, what
        return [self.words[table + 8 * i + 7] for i in range(len(calls))]
