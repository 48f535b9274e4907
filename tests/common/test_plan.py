"""common/plan.py: which action is in force when, if the delay is exact."""

from common.artefact import BUTTONS, STICKS
from common.layout import pad_of, rows, values
from common.plan import Delayed, think

import numpy as np
import pytest

RELEASED = ("GUIDE", "RIGHT_UP", *BUTTONS[::-1], *STICKS)


class Numbered:
    """A policy whose row k of the chunk of frame i is 100 i + k in all places."""

    def __init__(self):
        self.asked = []  # (frame, rows under way)

    def __call__(self, frame, under_way):
        self.asked.append((frame, under_way[:, 0].tolist()))
        return np.float32([[100 * frame + k] * 20 for k in range(16)])


def played(frames: int, **settings):
    """(what is in force in frames 1, 2, ..., what the policy was asked)"""
    policy = Numbered()
    player = Delayed(policy, **settings)
    return [float(player(i)[0]) for i in range(frames)], policy.asked


def test_without_delay_a_chunk_is_in_force_at_once():
    rows, asked = played(10, execute=4)
    assert rows == [0, 1, 2, 3, 400, 401, 402, 403, 800, 801]
    assert asked == [(0, []), (4, []), (8, [])]


def test_a_late_chunk_begins_where_the_game_is():
    """Two frames late: its first two actions have been missed, the pad was at rest before."""
    rows, asked = played(12, execute=4, delay=2, fade=0)
    assert rows == [0, 0, 2, 3, 4, 5, 402, 403, 404, 405, 802, 803]
    assert asked == [(0, [0, 0]), (4, [4, 5]), (8, [404, 405])]


@pytest.mark.parametrize("delay", range(9))
def test_the_delay_is_exact_and_what_is_under_way_is_played(delay):
    """Whatever the delay: an action is in force in the frame for which it was planned, from a chunk
    that is `delay` to delay + period - 1 frames old, and the policy knew what would be played.
    """
    rows, asked = played(60, execute=6, delay=delay, fade=0)
    period = max(6, delay)
    assert [frame for frame, _ in asked] == list(range(0, 60, period))
    for frame, row in enumerate(rows[delay:], delay):
        seen, k = divmod(row, 100)
        assert seen + k == frame
        assert delay <= frame - seen < delay + period
    for frame, under_way in asked:
        there = rows[frame : frame + delay]
        assert under_way[: len(there)] == there and len(under_way) == delay


def test_a_chunk_that_was_not_told_fades_in():
    """Three quarters, a half, a quarter of the old one; the old one's rows are for these frames."""
    rows, _ = played(12, execute=6, delay=2, fade=3)
    assert rows[2:8] == [2, 3, 4, 5, 6, 7]  # nothing to fade from: at rest
    old, new = [8, 9, 10], [602, 603, 604]
    shares = 0.75, 0.5, 0.25
    faded = [o * s + n * (1 - s) for o, n, s in zip(old, new, shares, strict=True)]
    assert rows[8:11] == faded
    assert rows[11] == 605


def test_rows_and_values_are_inverse():
    rng = np.random.default_rng(0)
    pad = np.concatenate([rng.random((5, 16)) > 0.5, rng.uniform(-1, 1, (5, 4))], 1)
    raw = values(pad.astype(np.float32), RELEASED)
    assert raw.shape == (5, 22) and not raw[:, :2].any()  # GUIDE and RIGHT_UP are not on the pad
    assert np.allclose(rows(raw, RELEASED), pad, atol=1e-6)
    assert np.array_equal(pad_of(rows(raw, RELEASED))["buttons"], pad[:, :16].astype(bool))
    assert values([[0.6] * 16 + [3.0] * 4], ("SOUTH", "LEFT_X")).tolist() == [[1, 1]]


def test_a_network_is_given_no_more_than_it_takes():
    """What the sampler is given, and that a network without a prefix is asked as before."""
    torch = pytest.importorskip("torch")
    import dataclasses

    import model

    frame = np.zeros((256, 256, 3), np.uint8)
    under_way = np.tile(np.float32([1] * 16 + [0.5] * 4), (6, 1))
    small = dataclasses.replace(model.CONFIGS["tiny"], image=16, vision_layers=1, steps=2)
    chunks = {}
    for prefix in (0, 4):
        net = model.NitroGen(dataclasses.replace(small, prefix=prefix)).eval()
        torch.manual_seed(0)
        net.apply(model.initialize)
        for rows_ in ((), under_way):
            rng = torch.Generator().manual_seed(1)
            chunks[prefix, len(rows_)] = think(net, frame, rng, None, rows_)
    assert np.array_equal(chunks[0, 0], chunks[4, 0]) and np.array_equal(chunks[0, 0], chunks[0, 6])
    assert np.allclose(chunks[4, 6][:4], under_way[:4])
    assert not np.allclose(chunks[4, 6][4:], chunks[4, 0][4:])
