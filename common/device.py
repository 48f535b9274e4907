"""Where torch computes, and in which numbers."""

from __future__ import annotations

import ctypes


def pick_device(name: str) -> str:
    """auto -> cuda, mps or cpu, whichever is there; an explicit one is checked."""
    import torch
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(d for d, ok in there.items() if ok)
    if not there.get(name.split(":")[0], False):
        raise SystemExit(f"--device {name}: not on this machine (there: {', '.join(d for d, ok in there.items() if ok)})")
    return name


def keep_memory() -> None:
    """glibc: keep freed memory for the next step instead of handing it back to the kernel.

    Where page faults are dear (small virtual machines), work on a CPU is up to ten times faster.
    """
    try:
        c = ctypes.CDLL("libc.so.6")
        c.mallopt(-4, 0), c.mallopt(-1, 2**31 - 1)               # M_MMAP_MAX, M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass                                                     # another libc


def autocast(device: str):
    """torch.autocast to bfloat16 where the hardware multiplies it, else a no-op."""
    import torch
    fast = device.startswith("cuda") or device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=fast)
