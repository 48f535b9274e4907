"""What may be behind an overlay: painted pictures, and frames of videos."""

from __future__ import annotations

from pathlib import Path

from common.pictures import VIDEOS, sample

import cv2
import numpy as np

# ---- XFeat: training pairs, drawn ----------------------------------------------------------------


def paint(rng, w=720, h=512):
    """One procedural game picture: noise, gradients, shapes, and the text, bars and round icons of
    a HUD.
    """

    def color():
        return rng.integers(0, 256, 3).tolist()

    corners = np.array([[color(), color()], [color(), color()]], np.float32)
    base = cv2.resize(corners, (w, h), interpolation=cv2.INTER_LINEAR)
    for side in (int(rng.integers(3, 12)), int(rng.integers(12, 90))):
        noise = rng.normal(0, rng.uniform(0, 60), (side, side, int(rng.choice([1, 3])))).astype(
            np.float32
        )
        base += np.atleast_3d(
            cv2.resize(
                noise, (w, h), interpolation=int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_CUBIC]))
            )
        )
    if rng.random() < 0.4:  # tiles, as in pixel art
        side = int(rng.integers(8, 40))
        tile = cv2.resize(
            rng.integers(0, 256, (8, 8, 3)).astype(np.float32),
            (side, side),
            interpolation=cv2.INTER_NEAREST,
        )
        base = base * 0.6 + 0.4 * np.tile(tile, (h // side + 1, w // side + 1, 1))[:h, :w]
    if rng.random() < 0.3:
        base += rng.normal(0, rng.uniform(5, 25), (h, w, 1)).astype(np.float32)
    canvas = np.ascontiguousarray(base.clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 30)):
        at, size = rng.integers(0, (w, h)).tolist(), rng.integers(3, 90, 2).tolist()
        thick, kind = int(rng.choice([-1, -1, 1, 2, 4])), rng.integers(4)
        ink = [int(rng.choice([255, 230, 0, 20]))] * 3 if rng.random() < 0.3 else color()
        if kind == 0:
            cv2.rectangle(canvas, at, (at[0] + size[0], at[1] + size[1]), ink, thick, cv2.LINE_AA)
        elif kind == 1:
            cv2.ellipse(
                canvas,
                at,
                size if rng.random() < 0.5 else size[:1] * 2,
                0,
                0,
                360,
                ink,
                thick,
                cv2.LINE_AA,
            )
        elif kind == 2:
            cv2.line(canvas, at, rng.integers(0, (w, h)).tolist(), ink, abs(thick) + 1, cv2.LINE_AA)
        else:
            cv2.fillPoly(
                canvas,
                [(np.array(at) + rng.integers(-60, 60, (5, 2))).astype(np.int32)],
                ink,
                cv2.LINE_AA,
            )
    for _ in range(rng.integers(0, 8)):
        x, y = rng.integers(0, (w, h)).tolist()
        ink = [255] * 3 if rng.random() < 0.5 else color()
        if rng.random() < 0.6:
            text = "".join(
                rng.choice(list("ABXYLRQWERT0123456789:/% abcdeghinorst"), rng.integers(1, 14))
            )
            font, height, thick = (
                int(rng.integers(0, 5)),
                rng.uniform(0.3, 1.6),
                int(rng.integers(1, 4)),
            )
            cv2.putText(canvas, text, (x, y), font, height, ink, thick, cv2.LINE_AA)
        else:
            length, thick = int(rng.integers(30, 200)), int(rng.integers(4, 16))
            cv2.rectangle(canvas, (x, y), (x + length, y + thick), [20] * 3, -1)
            cv2.rectangle(canvas, (x, y), (x + int(length * rng.random()), y + thick), ink, -1)
    light = rng.choice([(1.0, 0), (0.35, 0), (0.5, 120), (1.4, 20)], p=[0.5, 0.2, 0.15, 0.15])
    return cv2.convertScaleAbs(canvas, alpha=light[0], beta=light[1])


def degrade(rng, rgb):
    """A picture as a video shows it: other brightness and tint, soft, scaled, noisy, compressed."""
    out = cv2.transform(
        rgb, np.hstack([np.diag(rng.uniform(0.75, 1.2, 3)), rng.normal(0, 12, (3, 1))])
    )
    if rng.random() < 0.3:
        h, w = out.shape[:2]
        f = rng.uniform(0.5, 0.95)
        out = cv2.resize(
            cv2.resize(out, (round(w * f), round(h * f)), interpolation=cv2.INTER_AREA),
            (w, h),
            interpolation=cv2.INTER_CUBIC,
        )
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.2:
        out = np.clip(out + rng.normal(0, rng.uniform(2, 8), out.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.75:
        out = cv2.imdecode(
            cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 92))])[1],
            cv2.IMREAD_COLOR,
        )
    return out


def files_in(folder: str) -> list[Path]:
    """What a folder holds, below it too; nothing if none is given."""
    return sorted(p for p in Path(folder).rglob("*") if p.is_file()) if folder else []


def film_frames(folder, most: int = 400):
    """About `most` frames of the videos of a folder, RGB uint8 [540, w, 3]."""
    videos = sorted(
        p
        for p in Path(folder).iterdir()
        if p.suffix.lower() in VIDEOS and not p.name.endswith(".preview.mp4")
    )
    if not videos:
        raise SystemExit(f"--backgrounds {folder}: no video in it")
    return [
        cv2.resize(f, (round(540 * f.shape[1] / f.shape[0]), 540), interpolation=cv2.INTER_AREA)
        for v in videos
        for f in sample(v, max(3, most // len(videos)))[0]
    ]
