"""What may be behind an overlay: painted pictures, and frames of videos."""

from __future__ import annotations

from pathlib import Path

from common.inputs import files_of
from common.video import Video

import cv2
import numpy as np

# CHOICE: how light the whole picture is: (gain, offset in gray levels), and how often
LIGHTS = ((1.0, 0), (0.35, 0), (0.5, 120), (1.4, 20))
LIGHT_SHARES = (0.5, 0.2, 0.15, 0.15)
LETTERS = list("ABXYLRQWERT0123456789:/% abcdeghinorst")


def color(rng) -> list:
    return rng.integers(0, 256, 3).tolist()


def ground(rng, w, h):
    """A colour gradient, noise of two sizes, and at times tiles and grain: float32 [h, w, 3]."""
    corners = np.array([[color(rng), color(rng)], [color(rng), color(rng)]], np.float32)
    base = cv2.resize(corners, (w, h), interpolation=cv2.INTER_LINEAR)
    for side in (int(rng.integers(3, 12)), int(rng.integers(12, 90))):
        noise = rng.normal(0, rng.uniform(0, 60), (side, side, int(rng.choice([1, 3]))))
        how = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))
        noise = cv2.resize(noise.astype(np.float32), (w, h), interpolation=how)
        base += np.atleast_3d(noise)
    if rng.random() < 0.4:  # tiles, as in pixel art
        side = int(rng.integers(8, 40))
        pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.float32)
        tile = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST)
        base = base * 0.6 + 0.4 * np.tile(tile, (h // side + 1, w // side + 1, 1))[:h, :w]
    if rng.random() < 0.3:
        base += rng.normal(0, rng.uniform(5, 25), (h, w, 1)).astype(np.float32)
    return base


def shape(rng, canvas) -> None:
    """Draw a rectangle, an ellipse or circle, a line or a polygon, in place."""
    place = canvas.shape[1::-1]
    at = rng.integers(0, place).tolist()
    size = rng.integers(3, 90, 2).tolist()
    thick = int(rng.choice([-1, -1, 1, 2, 4]))  # px; -1: filled
    kind = rng.integers(4)
    gray = rng.random() < 0.3
    ink = [int(rng.choice([255, 230, 0, 20]))] * 3 if gray else color(rng)
    if kind == 0:
        cv2.rectangle(canvas, at, (at[0] + size[0], at[1] + size[1]), ink, thick, cv2.LINE_AA)
    elif kind == 1:
        axes = size if rng.random() < 0.5 else size[:1] * 2
        cv2.ellipse(canvas, at, axes, 0, 0, 360, ink, thick, cv2.LINE_AA)
    elif kind == 2:
        cv2.line(canvas, at, rng.integers(0, place).tolist(), ink, abs(thick) + 1, cv2.LINE_AA)
    else:
        points = (np.array(at) + rng.integers(-60, 60, (5, 2))).astype(np.int32)
        cv2.fillPoly(canvas, [points], ink, cv2.LINE_AA)


def hud(rng, canvas) -> None:
    """Draw a line of text or a bar, as of health, in place."""
    x, y = rng.integers(0, canvas.shape[1::-1]).tolist()
    ink = [255] * 3 if rng.random() < 0.5 else color(rng)
    if rng.random() < 0.6:
        text = "".join(rng.choice(LETTERS, rng.integers(1, 14)))
        font = int(rng.integers(0, 5))
        height = rng.uniform(0.3, 1.6)
        thick = int(rng.integers(1, 4))
        cv2.putText(canvas, text, (x, y), font, height, ink, thick, cv2.LINE_AA)
    else:
        length, thick = int(rng.integers(30, 200)), int(rng.integers(4, 16))
        cv2.rectangle(canvas, (x, y), (x + length, y + thick), [20] * 3, -1)
        cv2.rectangle(canvas, (x, y), (x + int(length * rng.random()), y + thick), ink, -1)


def paint(rng, w=720, h=512):
    """One procedural game picture, RGB uint8 [h, w, 3]: gradients, noise, shapes, and the text and
    bars of a HUD.
    """
    canvas = np.ascontiguousarray(ground(rng, w, h).clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 30)):
        shape(rng, canvas)
    for _ in range(rng.integers(0, 8)):
        hud(rng, canvas)
    gain, offset = rng.choice(LIGHTS, p=LIGHT_SHARES)
    return cv2.convertScaleAbs(canvas, alpha=gain, beta=offset)


def degrade(rng, rgb):
    """A picture as a video shows it: other brightness and tint, soft, scaled, noisy, compressed."""
    gains, offsets = rng.uniform(0.75, 1.2, 3), rng.normal(0, 12, (3, 1))
    out = cv2.transform(rgb, np.hstack([np.diag(gains), offsets]))
    if rng.random() < 0.3:
        h, w = out.shape[:2]
        f = rng.uniform(0.5, 0.95)
        small = cv2.resize(out, (round(w * f), round(h * f)), interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        out = np.clip(out + rng.normal(0, rng.uniform(2, 8), out.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.75:
        quality = int(rng.integers(10, 92))
        jpeg = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    return out


def files_in(folder: str) -> list[Path]:
    """All files of a folder and the folders in it; none if no folder is given."""
    return sorted(p for p in Path(folder).rglob("*") if p.is_file()) if folder else []


def film_frames(folder, most: int = 400):
    """About `most` frames of the videos of a folder, RGB uint8 [540, w, 3]."""
    videos = files_of(folder)
    if not videos:
        raise SystemExit(f"--backgrounds {folder}: no video in it")
    out = []
    for video in videos:
        for frame in Video(video).sample(max(3, most // len(videos)))[0]:
            width = round(540 * frame.shape[1] / frame.shape[0])
            out.append(cv2.resize(frame, (width, 540), interpolation=cv2.INTER_AREA))
    return out
