"""What ptrace tells us of the game's threads: their stops."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
from pathlib import Path

from clock import kernel
from clock.page import patch
from clock.tracee import Process, State, Thread, next_stop


class Stops:
    """Serves each stop of a thread; then the thread goes on, or is held."""

    def __init__(self, clock):
        self.clock = clock
        self.turn = 0  # pumps so far
        self.handlers = {
            0: self._on_signal,
            kernel.SECCOMP: self._on_seccomp,
            kernel.EXEC: self._on_exec,
            kernel.FORK: self._on_birth,
            kernel.VFORK: self._on_birth,
            kernel.CLONE: self._on_birth,
            kernel.VFORK_DONE: self._on_vfork_done,
            kernel.STOP: self._on_group_stop,
        }

    def pump(self, everyone: bool = False) -> bool:
        """Serve the stops that the threads have reached by now; True if there was one.  everyone:
        also see who is gone without a word.
        """
        found = None
        if not everyone:
            found = kernel.peek()
            if not found:  # one call where nothing has happened, as mostly
                return False
        self.turn += 1
        threads = self.clock.threads
        # Now and then all, that one cannot keep out the others.
        if found and self.turn % 16 and found.si_pid in threads:
            return self._collect(threads[found.si_pid])
        busy = False
        for thread in list(threads.values()):
            busy |= self._collect(thread)
        return busy

    def _collect(self, thread: Thread) -> bool:
        """Serve one thread, if it has stopped or ended."""
        try:
            # by name: never reaps another child
            got, status = os.waitpid(thread.tid, os.WNOHANG | kernel.WALL)
        except ChildProcessError:
            # its own exec or another thread's, or this program ignores SIGCHLD
            got, status = thread.tid, 0
            leader = self.clock.threads.get(thread.process.pid)
            # it is the leader now, and on its way into another program
            if leader and not leader.waits():
                leader.release()
        if not got:
            return False
        # killed while stopped
        with contextlib.suppress(ProcessLookupError, ChildProcessError, FileNotFoundError):
            self._on_stop(thread, status)
        return True

    def _on_stop(self, thread: Thread, status: int) -> None:
        if os.WIFSTOPPED(status):
            self.handlers[status >> 16](thread, status >> 16, status >> 8 & 0xFF)
        else:
            del self.clock.threads[thread.tid]
            if thread.tid == self.clock.pid:
                self.clock.returncode = os.waitstatus_to_exitcode(status)

    # -- handlers(thread, ptrace event, signal)

    def _on_seccomp(self, thread, event, number) -> None:
        """Before a system call that reads the time or waits."""
        self.clock.calls.on_call(thread)

    def _on_exec(self, thread, event, number) -> None:
        """The process has another program now, and one thread."""
        clock, tid = self.clock, thread.tid
        thread = Thread(tid, Process(tid), thread.number, random=thread.random)
        clock.threads[tid] = thread
        clock.timer_calls.on_exec(thread.process)
        # To the call's exit: before it the kernel would overwrite the result of an injected call.
        kernel.ptrace("SYSCALL", tid)
        while next_stop(tid) != kernel.SYSCALL_STOP:
            kernel.ptrace("SYSCALL", tid)
        patch(clock, thread)
        clock.go_on(thread)

    def _on_birth(self, thread, event, number) -> None:
        born = self.adopt(thread)
        born.is_new = born.process is thread.process
        if event == kernel.VFORK:
            thread.state = State.IN_VFORK
        self.clock.go_on(thread)

    def adopt(self, parent: Thread) -> Thread:
        """The new thread or process of one that has just begun it."""
        message = ctypes.c_ulong()
        kernel.ptrace("GETEVENTMSG", parent.tid, 0, ctypes.addressof(message))
        tid = message.value
        status = Path(f"/proc/{tid}/status").read_text()
        pid = int(re.search(r"^Tgid:\s*(\d+)", status, re.M)[1])
        process = parent.process
        if pid != process.pid:
            process = Process(pid, process)
        random = parent.random.spawn(1)[0] if parent.random else None
        return self.clock.add(tid, process, random=random)

    def _on_vfork_done(self, thread, event, number) -> None:
        thread.state = State.RUNNING
        self.clock.go_on(thread)

    def _on_group_stop(self, thread, event, number) -> None:
        if number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            thread.state = State.STOPPED
            kernel.ptrace("LISTEN", thread.tid)
        else:  # the echo of an interrupt, or the end of a stop
            if thread.is_new:
                thread.is_new = False
                return self.clock.turns.hold(thread)
            self._continue(thread, 0)

    def _on_signal(self, thread, event, number) -> None:
        """A signal on its way, or what looks like one."""
        if number == kernel.SYSCALL_STOP:
            self.clock.calls.on_system_call_stop(thread)
        elif number == kernel.SIGTRAP and self.clock.breakpoints.on_trap(thread):
            pass
        elif number == signal.SIGSEGV and self.clock.calls.on_rdtsc(thread):
            pass
        else:
            self._continue(thread, number)

    def _continue(self, thread: Thread, number: int) -> None:
        if thread.state is State.STOPPED:
            thread.state = State.RUNNING
        self.clock.go_on(thread, number)
