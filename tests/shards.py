"""Settings of filter.py for its tests."""

import filter

FPS, T = 30, 90


def config(**changes):
    return filter.Config(**{"segment_seconds": 1.0, "horizon": 4, "validation": 0.0, **changes})
