"""The clock hook of this platform: a program's time is a number that we set."""

import functools
import sys

from clock.base import GameError, NoFrame

if sys.platform == "win32":
    from clock.windows import WindowsClock as Clock, windows_fault

    hook_fault = functools.cache(functools.partial(windows_fault, attach=False))
    attach_fault = functools.cache(functools.partial(windows_fault, attach=True))
else:
    from clock.attach import AttachedClock, attach_fault
    from clock.linux import Clock, hook_fault

    # An AttachedClock is a Clock, so linux.py cannot know of it.
    Clock.attach = AttachedClock

__all__ = ["Clock", "GameError", "NoFrame", "attach_fault", "hook_fault"]
