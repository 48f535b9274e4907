"""Does the picture follow the pad, and when?  filter.py writes this lag into a video's shards."""

from __future__ import annotations

from common.shards import shrunk

import cv2
import numpy as np

LAG_WINDOW = 0.5  # s: lags that are considered
LAG_FAR = 2.0  # s: lags up to which the rest should explain nothing
LAG_SURE = 5.0  # CHOICE: standard deviations above what the far lags explain
LAG_HALVES = 2  # CHOICE: frames by which the video's halves may differ


class Motion:
    """How a video's pictures move, one after the other."""

    def __init__(self):
        self.window = cv2.createHanningWindow((128, 128), cv2.CV_32F)
        self.before = None  # the last picture, grey float32 [128, 128]
        self.index = -9  # of its frame

    def to(self, index: int, picture) -> np.ndarray:
        """float32 [3]: how far the next picture, uint8 RGB [256, 256, 3], moved in x and y (px of
        128), and how much it changed otherwise (grey levels); 0 after a gap.
        """
        grey = shrunk(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 128).astype(np.float32)
        motion = np.zeros(3, np.float32)
        if index <= self.index + 4:
            motion[:2] = cv2.phaseCorrelate(self.before, grey, self.window)[0]
            motion[2] = np.abs(grey - self.before).mean()
        self.before = grey
        self.index = index
        return motion


def picture_lag(actions, motion, fps: float) -> dict | None:
    """By how many frames changes of the picture follow changes of the actions; None where the data
    do not say.

    actions [T, 20], motion [T, 3] of consecutive frames.  The lag is the game's own reaction (0 or
    more) less the overlay's delay: an overlay that is n frames late makes it n less.  Both are
    differenced, so that what is held does not count.
    """
    near, far = round(LAG_WINDOW * fps), round(LAG_FAR * fps)
    if len(actions) < max(1, 8 * far):
        return None
    x = np.diff(actions, axis=0, prepend=actions[:1]).astype(np.float64)
    y = np.diff(motion, axis=0, prepend=motion[:1]).astype(np.float64)
    limit = np.quantile(np.abs(y), 0.97, axis=0)
    y = y.clip(-limit, limit)  # cuts and explosions
    if not x.any() or not y.any():
        return None
    middle = len(x) // 2
    lag, confidence = best_lag(x, y, near, far)
    halves = [
        best_lag(x[part], y[part], near, far)[0] for part in (slice(middle), slice(middle, None))
    ]
    if confidence < LAG_SURE or max(abs(half - lag) for half in halves) > LAG_HALVES:
        return None
    return {"frames": lag, "seconds": round(lag / fps, 3), "confidence": round(confidence, 1)}


def best_lag(x, y, near: int, far: int) -> tuple[int, float]:
    """(the lag within `near` rows at which x explains most of y, by how many standard deviations
    more than at the far lags).
    """
    lags = np.arange(-far, far + 1)
    share = explained(x, y, far)
    elsewhere = share[np.abs(lags) > near + 5]
    best = far - near + share[far - near : far + near + 1].argmax()
    confidence = (share[best] - elsewhere.mean()) / max(elsewhere.std(), 1e-9)
    return int(lags[best]), float(confidence)


def explained(x, y, far: int):
    """[2 far + 1]: the share of y [T, q] that a ridge regression on x [T, p] explains, x delayed by
    -far .. far rows.
    """
    y = (y - y.mean(axis=0)) / np.maximum(y.std(axis=0), 1e-6)
    y = y[far : len(y) - far]
    # what changed only a few times explains little
    inverse = np.linalg.inv(x.T @ x + 5 * np.eye(x.shape[1]))
    products = [x[far - k : len(x) - far - k].T @ y for k in range(-far, far + 1)]
    return np.array([(b * (inverse @ b)).sum() for b in products]) / y.size
