"""What some episodes say of all: means, shares and their intervals."""

from __future__ import annotations

import numpy as np


def interval(values, draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval."""
    values = np.asarray(values, float)
    means = np.random.default_rng(0).choice(values, (draws, len(values))).mean(axis=1)
    return float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """Share of successes and its 95 % Wilson score interval (E. B. Wilson, 1927), which holds for
    few episodes and near 0 and 1.
    """
    share = successes / n
    middle = share + z * z / (2 * n)
    spread = z * (successes * (n - successes) / n**3 + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    return share, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
