"""The frames of a video on their way to the parser: registered, compared, in pairs."""

from __future__ import annotations

import itertools

from common.pictures import read_video

import numpy as np

from templates import matching, render, synthetic


def with_places(video, overlay: dict):
    """Yield (seconds, place, frame) in one pass; place: number of the overlay's position then."""
    for i, seconds, frame in read_video(video):
        place = int(np.searchsorted(overlay["span"][:, 0], i, "right")) - 1
        yield seconds, max(place, 0), frame


def compared(video, overlay: dict, template):
    """Yield (seconds, place, crop uint8 [CROP, CROP, 3], *MatchedFilter's result) per frame."""
    side = synthetic.CROP
    filters = []
    for median in overlay["median"]:
        scale = np.array(median.shape[1::-1]) / template.size
        filters.append(matching.MatchedFilter(template, median, np.diag(scale) @ np.eye(2, 3)))
    for seconds, place, frame in with_places(video, overlay):
        affine = overlay["affine"][place]
        crop = render.crop(frame, affine, template.size, side, side)
        yield seconds, place, crop, *filters[place](frame, affine)


def in_pairs(frames, pairs: int):
    """Yield (chunk of 2 * pairs frames, how many are real); the last is shorter, and if it is odd
    its last frame stands twice."""
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, 2 * pairs)):
        yield chunk + chunk[-1:] * (len(chunk) % 2), len(chunk)
