"""A picture of where the overlay was found in a video: python extract.py VIDEO --sheet"""

from __future__ import annotations

from common.pictures import caption, tile, write_png

import cv2
import numpy as np

from templates import render


def outline(frame, number: int, tensors, scale: float) -> None:
    """Draw the box of the overlay's place in the frame of this number, in place."""
    for corners, (first, last) in zip(tensors["corners"], tensors["span"], strict=True):
        if first <= number <= last:
            cv2.polylines(
                frame, [np.round(scale * corners).astype(np.int32)], True, (255, 60, 60), 2
            )


def video_sheet(path, frames, tensors, info, pool):
    """Six of the sampled frames with the box; the median crop and the template side by side."""
    pictures = []
    for k in range(0, len(frames), max(1, len(frames) // 6))[:6]:
        frame = frames[k].copy()
        if info["found"]:
            scale = frame.shape[1] / info["frame_size"][0]
            outline(frame, info["sampled"][k], tensors, scale)
        height = round(480 * frame.shape[0] / frame.shape[1])
        pictures.append(cv2.resize(frame, (480, height), interpolation=cv2.INTER_AREA))
    if info["found"]:
        still = tensors["median"][0]
        template = pool[info["template"]]
        drawn = render.idle(template, (90, 90, 90), still.shape[1] / template.size[0])
        text = (
            f"{info['template']}: {info['inliers']} inliers, "
            f"{info['votes']}/{len(frames)} votes, likeness {info['likeness']}"
        )
        pictures += [caption(still, "median crop"), caption(drawn, text)]
    else:
        pictures[0] = caption(pictures[0], info["reason"])
    write_png(path, tile(pictures, 3))
