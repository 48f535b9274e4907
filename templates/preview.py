"""A film of what was read off an overlay: python parse.py VIDEO --preview"""

from __future__ import annotations

from common.pictures import VideoWriter

import numpy as np
from tqdm import tqdm

from templates import footage, render
from templates.matching import stick_axes


def write_preview(video, actions: dict, overlay: dict, template, path) -> None:
    """The overlay's crop beside the template in the state that was read, at the video's times."""
    scale = 480 / template.size[0]
    w, h = (round(v * scale) for v in template.size)
    with VideoWriter(path, video.fps, 2 * w, h) as out:
        frames = footage.with_places(video, overlay)
        rows = zip(frames, actions["buttons"], actions["sticks"], strict=False)
        bar = tqdm(rows, "preview", len(actions["time"]), leave=False)
        for (seconds, place, frame), buttons, cells in bar:
            crop = render.crop(frame, overlay["affine"][place], template.size, w, h)
            pad = np.full((h, w, 3), 60, np.uint8)
            drawn = render.draw(template, buttons > 0.5, stick_axes(cells), scale)
            render.composite(pad, drawn, 0, 0)
            out.write(np.hstack([crop, pad]), seconds)
