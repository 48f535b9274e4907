"""When frames come: evenly or not, and even rows over them."""

from __future__ import annotations

import numpy as np


def uneven(time) -> bool:
    """Of time stamps [T]: whether they grow and a step is more than half a usual one off (dropped
    frames, a variable frame rate).
    """
    usual = usual_step(time)
    return bool(usual and (np.abs(np.diff(time) - usual) > 0.5 * usual).any())


def usual_step(time) -> float:
    """Seconds between two of these time stamps [T]; 0 where they do not grow."""
    steps = np.diff(time)
    if not len(steps) or steps.min() < 0:
        return 0.0
    return float(np.median(steps) or steps.mean())


def evened(time, rate: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(frame int64 [R], time [R], rows per second): even rows over uneven frames, each of which
    shows the last frame that had come.

    There are as many rows per action of a chunk as the usual step allows.  A frame that comes
    within a quarter of a row is there already.
    """
    fps = rate * max(1, round(1 / (usual_step(time) * rate)))
    even = time[0] + np.arange(int((time[-1] - time[0]) * fps + 0.25) + 1) / fps
    return np.searchsorted(time, even + 0.25 / fps, side="right") - 1, even, fps


def whole_multiple(fps: float, rate: float) -> bool:
    stride = fps / rate
    return stride > 0.99 and abs(stride - round(stride)) <= 0.01
