"""The page that we share with the game, and the vDSO that jumps to it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from clock import kernel
from clock.base import GameError


class Page:
    def _patch(self, thread):
        """After exec: map the clock, let the vDSO jump to it.  The thread is at the exec call's
        exit.
        """
        tid, process = thread.tid, thread.process
        if self._registers(tid).cs != 0x33:
            raise GameError(
                f"vDSO patch: {os.readlink(f'/proc/{tid}/exe')} is a 32-bit program, and those are "
                "not supported"
            )
        self._map_clock(thread)
        auxv = dict(struct.iter_unpack("<QQ", Path(f"/proc/{tid}/auxv").read_bytes()))
        # AT_SYSINFO_EHDR (without it all reads are calls),
        vdso, loader, random = auxv.get(33), auxv.get(7), auxv.get(25)
        process.vdso = self._patch_vdso(thread, vdso) if vdso else "none"  # AT_BASE, AT_RANDOM
        if self.fixed and random:
            process.write(random, thread.random.bytes(16))
        if self.fps and loader:  # the dynamic loader calls it whenever it has loaded something
            path = next((path for path, at in kernel.mapped_files(tid).items() if at == loader), "")
            state = (
                kernel.library_symbols(*kernel.located(tid, path)).get("_dl_debug_state")
                if path
                else None
            )
            if state:
                self._set_break(thread, loader + state, self._on_libraries)

    def _map_clock(self, thread):
        tid, process = thread.tid, thread.process
        path = f"/proc/{os.getpid()}/fd/{self.file}\0".encode()
        below = self._registers(tid).rsp - 512
        kept = process.read(below, len(path))
        process.write(below, path)
        file = self._system_call(tid, 2, below, os.O_RDWR | os.O_CLOEXEC)
        process.write(below, kept)
        # private: each process counts its own reads, or runs would differ
        SHARED, PRIVATE, FIXED_NOREPLACE = 1, 2, 0x100000
        areas = (
            (kernel.STUB_AT, kernel.PAGE, 5, SHARED),
            (kernel.CLOCK_AT, kernel.PAGE, 3, SHARED),
            (kernel.SPINS_AT, kernel.PAGE, 3, PRIVATE),
            (kernel.SCRATCH_AT, kernel.SCRATCH, 3, SHARED),
        )
        places = [
            self._system_call(
                tid, 9, at, size, access, kind | FIXED_NOREPLACE, file, at - kernel.STUB_AT
            )
            for at, size, access, kind in areas
        ]
        self._system_call(tid, 3, file)
        if places != [at for at, *_ in areas]:
            raise GameError(
                f"vDSO patch: the clock could not be mapped into {os.readlink(f'/proc/{tid}/exe')} "
                f"(open {file}, "
                f"mmap {places}); it must run as the same user and see the same /proc"
            )

    def _patch_vdso(self, thread, vdso) -> str:
        """Let its functions jump to ours; -> their names."""
        process, patched = thread.process, []
        for name, (address, size) in kernel.elf_symbols(
            process.read(vdso, 4 * kernel.PAGE)
        ).items():
            if name in kernel.STUB_ENTRY:  # endbr64; movabs rax, entry; jmp rax
                jump = (
                    b"\xf3\x0f\x1e\xfa\x48\xb8"
                    + struct.pack("<Q", kernel.STUB_AT + kernel.STUB_ENTRY[name])
                    + b"\xff\xe0"
                )
                assert len(jump) <= size, (
                    f"{name.decode()} of this kernel's vDSO is only {size} bytes long"
                )
                if self.attached:
                    process.changed.append((vdso + address, process.read(vdso + address, 16)))
                    self.guard.stdin.write(
                        f"{process.pid} {vdso + address} {process.changed[-1][1].hex()}\n"
                    )
                    self.guard.stdin.flush()
                process.write_code(thread.tid, vdso + address, jump)
                patched.append(name.decode().removeprefix("__vdso_"))
            # mov eax, -ENOSYS; ret: libc makes the system call instead
            elif name == b"__vdso_getrandom" and self.fixed:
                process.write_code(
                    thread.tid, vdso + address, b"\xf3\x0f\x1e\xfa\xb8\xda\xff\xff\xff\xc3"
                )
        return ", ".join(patched) or "none"

    def _leave_page(self):
        """The page shared with the game goes; the time stays readable."""
        if self.file is not None:
            os.close(self.file)
            self.words, self.offsets = list(self.words), list(self.offsets)
            self.file = self.page = self.scratch = None
