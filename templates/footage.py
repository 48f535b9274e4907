"""The frames of a video on their way to the parser: registered, compared, in pairs."""

from __future__ import annotations

import itertools

from common import artefact
from common.pictures import read_video

import numpy as np
import torch
from einops import rearrange

from templates import matching, render, synthetic

STILL = 3 + 4 + 4  # channels of still_input: RGB of the median, RGBA of the template's two looks


def read_overlay(path):
    """(tensors, metadata, template) of what extract.py wrote; None in place of a template if no
    overlay was found. SystemExit with one line if it cannot be read.
    """
    overlay, info = artefact.read(path, "nitrogen.overlay/1")
    if info.get("found") is False:
        return overlay, info, None
    try:
        return overlay, info, render.stored(overlay, info)
    except ValueError as e:
        again = f"{artefact.MAKER['overlay']} --fresh"
        raise SystemExit(f"{path}: {e}; make it anew: {again}") from None


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


def side_by_side(x):
    """uint8 [B, 2, CROP, CROP, 3] -> [B, 3, CROP, 2 CROP] in -1..1"""
    x = rearrange(x, "B t h w c -> B h (t w) c").float()  # moved as bytes; channels last
    return rearrange(x.div_(127.5).sub_(1), "B h w c -> B c h w")


def still_input(median, looks):
    """uint8: the median that each frame belongs to [b, 2, CROP, CROP, 3] and how the template looks
    at rest and pressed [b, 2, CROP, CROP, 4], premultiplied -> floats in -1..1 [b, STILL, CROP, 2
    CROP]: median, and twice a look over grey and its opacity."""
    looks = rearrange(looks.float() / 255, "b k h w c -> b k c h w")
    color, alpha = looks[:, :, :3], looks[:, :, 3:]
    looks = torch.cat([2 * color - alpha, 2 * alpha - 1], 2).flatten(1, 2)
    still = torch.cat([side_by_side(median), looks.repeat(1, 1, 1, 2)], 1)
    return still.contiguous(memory_format=torch.channels_last)


def in_spans(spans, frames: int, counted: int):
    """bool [frames]: where the overlay is shown; counted: how many frames the container claims."""
    there = np.zeros(frames, bool)
    for first, last in spans:
        there[max(first, 0) : last + 1] = True
    if 0 < counted <= spans[-1, 1] + 1:  # the container may have counted too few
        there[spans[-1, 0] :] = True
    return there
