"""A template with few features is laid on a picture everywhere: where do its edges run as the
picture's do?
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from templates import render

# CHOICE: px: a swept template covers as much as a square of this side; the longer side of the
# largest picture that it is laid on
SWEPT = (110, 900)
STEP = 1.07  # CHOICE: ratio of that picture's width to the next one's
FAINT = 2.0  # CHOICE: gray levels a px: an edge of this slope counts half
RIM = 3  # px around a swept template


def edges(pictures):
    """Where pictures of one size have edges and which way these run: float32 [h, w, 2], vectors at
    twice the angle.

    They are about as long along any edge, faint or strong, and point the same way for light on dark
    as for dark on light: how bright an overlay is, and what shines through, hardly matters.
    """
    along, across = 0, 0
    strength = FAINT**2
    for picture in pictures:
        soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
        x = np.atleast_3d(cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=0.125))
        y = np.atleast_3d(cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=0.125))
        along = along + (x * x - y * y).sum(2)
        across = across + 2 * (x * y).sum(2)
        strength = strength + (x * x + y * y).sum(2)
    return cv2.merge([along / strength, across / strength])


def spectrum(field, w: int, h: int):
    """Fourier transform of what `edges` gives, as complex numbers, on a sheet of at least w x h."""
    below = cv2.getOptimalDFTSize(h) - field.shape[0]
    right = cv2.getOptimalDFTSize(w) - field.shape[1]
    sheet = cv2.copyMakeBorder(field, 0, below, 0, right, cv2.BORDER_CONSTANT)
    return cv2.dft(sheet, flags=cv2.DFT_COMPLEX_OUTPUT, nonzeroRows=field.shape[0])


def layers(median, frames):
    """Spectra of the edges of a video at ever smaller sizes: [(w, h, spectrum)].

    Of the median, and of the standard deviation over time: opaque lines are dark there, however
    little they stand out from what is behind them on average, and buttons in use are bright.
    """

    def shrunk(picture, size):
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    tall = median.shape[0] / median.shape[1]
    widest = SWEPT[1] / max(1, tall)
    size = round(widest), round(widest * tall)
    median = shrunk(median, size)
    grays = [cv2.cvtColor(shrunk(f, size), cv2.COLOR_RGB2GRAY) for f in frames]
    spread = np.std(grays, axis=0, dtype=np.float32)
    out = []
    for k in range(int(math.log(widest / SWEPT[0], STEP))):
        w, h = (round(v / STEP**k) for v in size)
        still = edges([shrunk(median, (w, h))])
        moving = edges([shrunk(spread, (w, h))])
        out.append((w, h, spectrum((still + moving) / 2, w, h)))
    return out


def template_edges(template, scale: float):
    """Edges of the template at rest, over dark and over light, with a rim: float32 [h, w, 2]."""
    margin = (RIM, RIM), (RIM, RIM), (0, 0)
    idle = {ground: render.idle(template, ground, scale) for ground in (40, 215)}
    return edges([np.pad(v, margin, constant_values=ground) for ground, v in idle.items()])


def sweep(layers, template, frame_w: int, keep=2):
    """Where a template's edges run as the picture's do: [(agreement -1..1, affine)], the best few.

    The template is drawn once and laid on each of the layers: it is as much larger as they are
    smaller.
    """
    w, h = template.size
    scale = SWEPT[0] * min(math.sqrt(w / h), 1.8) / w
    mine = template_edges(template, scale)
    rows, cols = mine.shape[:2]
    weight = np.hypot(*np.moveaxis(mine, 2, 0)).sum()
    found = []
    for across, down, seen in layers:
        if rows > down or cols > across or not weight > 1:  # a skin may be nothing at rest
            continue
        both = cv2.mulSpectrums(seen, spectrum(mine, across, down), 0, conjB=True)
        agreement = cv2.dft(both, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[..., 0]
        agreement = agreement[: down - rows + 1, : across - cols + 1] / weight
        k = frame_w / across  # px of the frame per px of the layer
        r = max(2, cols // 12)  # px around a peak in which there is no other
        for _ in range(keep):
            _, value, _, (x, y) = cv2.minMaxLoc(agreement)
            affine = [[scale * k, 0, (x + RIM) * k], [0, scale * k, (y + RIM) * k]]
            found.append((value, np.array(affine)))
            agreement[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = -1
    best = []
    for value, a in sorted(found, key=lambda f: -f[0]):
        # far from another place: a corner of the canvas is elsewhere
        corners = [np.abs((a - b) @ [[w, 0], [h, 0], [1, 1]]).max() for _, b in best]
        if len(best) < keep and all(c > 0.1 * w * a[0, 0] for c in corners):
            best.append((value, a))
    return best
