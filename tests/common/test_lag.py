"""common/lag.py: when the picture answers."""

import json

from common import artefact, lag
from common.pictures import VideoWriter

import numpy as np
import pytest

import filter
from shards import FPS, config


def play(seconds, delay, seed=0, answers=True):
    """Actions [T, 20] and motion [T, 3] of a game whose camera follows the left stick, and that
    flashes on SOUTH; labels `delay` frames late.
    """
    rng, n = np.random.default_rng(seed), seconds * FPS
    actions = np.zeros((n, 20), np.float32)
    for t in range(0, n, 12):
        actions[t : t + rng.integers(4, 20), [4, 16, 17]] = (
            rng.random() < 0.3,
            *(rng.choice([-1, 0, 1], 2) * rng.uniform(0.4, 1, 2)),
        )
    seen = actions if answers else np.roll(actions, n // 2, axis=0)
    motion = np.stack([-3 * seen[:, 16], -2 * seen[:, 17], 4 * seen[:, 4]], 1) + rng.normal(
        0, 1.5, (n, 3)
    )
    return np.roll(actions, delay, axis=0), motion.astype(np.float32)


@pytest.mark.parametrize("delay", [-4, 0, 3, 9])
def test_an_overlays_delay_is_found(delay):
    found = lag.picture_lag(*play(40, delay), FPS)
    assert (
        found["frames"] == -delay
        and found["seconds"] == round(-delay / FPS, 3)
        and found["confidence"] > 8
    )


def test_no_lag_is_made_up():
    """Another half of the video, nothing pressed, a still picture, too short a video: null."""
    assert [lag.picture_lag(*play(40, 0, seed, answers=False), FPS) for seed in range(8)].count(
        None
    ) >= 7
    actions, motion = play(40, 0)
    for a, m in (
        (actions * 0, motion),
        (actions, motion * 0),
        (actions[:300], motion[:300]),
        (actions[:0], motion[:0]),
    ):
        assert lag.picture_lag(a, m, FPS) is None


def test_delayed_labels_of_a_real_video(tmp_path):
    """A camera over a picture, moved by the stick, through the whole stage: labels three and eight
    frames late differ by five.
    """
    import cv2

    rng = np.random.default_rng(0)
    actions, _ = play(24, 0)
    ground = cv2.resize(
        rng.integers(0, 255, (80, 80, 3), np.uint8), (1600, 1600), interpolation=cv2.INTER_CUBIC
    )
    at = np.cumsum(-4 * actions[:, 16:18], axis=0).astype(int)
    with VideoWriter(tmp_path / "g-0.mp4", FPS, 320, 200) as out:
        for x, y in at - at.min(axis=0):
            out.write(ground[y % 1400 : y % 1400 + 200, x % 1200 : x % 1200 + 320])
    lags = []
    for delay in (3, 8):
        late = np.roll(actions, delay, axis=0)
        artefact.write(
            tmp_path / "g-0.actions.safetensors",
            {
                "buttons": late[:, :16].astype(np.float16),
                "sticks": late[:, 16:],
                "shown": np.ones(20, bool),
                "confidence": np.ones(len(late), np.float16),
                "time": np.arange(len(late)) / FPS,
            },
            "nitrogen.actions/1",
            unit="normalized",
        )
        filter.run(
            config(
                videos=(str(tmp_path / "g-0.mp4"),),
                labels=str(tmp_path),
                out=str(tmp_path / f"late{delay}"),
                min_active=0.0,
            )
        )
        lags.append(
            json.loads((tmp_path / f"late{delay}/manifest.json").read_bytes())["videos"]["g-0"][
                "lag"
            ]["frames"]
        )
    assert lags[0] - lags[1] == 5 and abs(lags[0] + 3) <= 1
