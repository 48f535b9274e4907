"""Videos and pictures: written, laid side by side.  common/video.py reads videos."""

from __future__ import annotations

import contextlib
import os
import re
from fractions import Fraction

from common import artefact
from common.video import Video, opened, rate_of, read_video, video_facts  # noqa: F401  for those who write too

import av
import cv2
import numpy as np

# ---- writing a video -----------------------------------------------------------------------------

# CHOICE: of x264.  By quality, a film is as large and as faithful as MPEG-4 was; by rate, small.
BY_QUALITY = {"preset": "ultrafast", "crf": "19"}
BY_RATE = {"preset": "veryfast"}
TICKS = 90_000  # stamps per second: frames may come at any time


class VideoWriter:
    """mp4 file of H.264 that browsers play; gets its name when closed without error.

    fps: what it declares, and the frames' rate where `write` is given no time
    width, height: px; an odd side is repeated at its end, since H.264 has half as many colours
    rate: bits per pixel; 0: as many as good quality takes
    gop: frames from one key frame to the next; 0: those of ten seconds
    """

    def __init__(self, path, fps: float, width: int, height: int, rate: float = 0.0, gop: int = 0):
        self.path = artefact.in_folder(path)
        self.part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.mp4")
        self.fps = fps
        self.frames = 0
        self.ticks = -1
        self.odd = ((0, height % 2), (0, width % 2), (0, 0))
        options = {**(BY_RATE if rate else BY_QUALITY), "g": str(gop or round(10 * fps))}
        self.file = av.open(f"file:{self.part}", "w", options={"movflags": "+faststart"})
        declared = Fraction(fps).limit_denominator(1001)
        self.stream = self.file.add_stream("libx264", rate=declared, options=options)
        self.stream.width = width + width % 2
        self.stream.height = height + height % 2
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, TICKS)
        self.stream.thread_count = 1  # the same file on every machine
        if rate:
            self.stream.bit_rate = int(rate * width * height * fps)

    def write(self, rgb, time: float | None = None) -> None:
        """rgb: uint8 [height, width, 3]; time: s from the file's start, growing."""
        if any(map(any, self.odd)):
            rgb = np.pad(rgb, self.odd, "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        seconds = self.frames / self.fps if time is None else time
        self.ticks = max(self.ticks + 1, round(seconds * TICKS))
        frame.pts = self.ticks
        frame.time_base = Fraction(1, TICKS)
        self._put(frame)
        self.frames += 1

    def _put(self, frame) -> None:
        try:
            self.file.mux(self.stream.encode(frame))
        except OSError:
            raise self._fault() from None

    def _fault(self) -> SystemExit:
        return SystemExit(f"{self.path}: could not be written to its end; is the disk full?")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None and self.frames:
                self._put(None)
            try:
                self.file.close()
            except OSError:
                if kind is None:
                    raise self._fault() from None
            if kind is None:
                self._check()
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)

    def _check(self) -> None:
        """A full disk may go unnoticed: count what was written."""
        if self.frames:
            with contextlib.suppress(av.FFmpegError), av.open(f"file:{self.part}") as file:
                if file.streams.video[0].frames == self.frames:
                    return
            raise self._fault()


# ---- parts of a picture -------------------------------------------------------------------------


def area_of(text: str, facts: dict) -> tuple:
    """--area x,y,w,h -> (x0, y0, x1, y1); nothing given: the whole frame."""
    width, height = facts["width"], facts["height"]
    found = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", text or f"0,0,{width},{height}")
    x, y, w, h = map(int, found.groups()) if found else (0, 0, 0, 0)
    if not (w and h and x + w <= width and y + h <= height):
        raise SystemExit(
            f"--area {text}: should be x,y,w,h in px within the video's {width} x {height}"
        )
    return x, y, x + w, y + h


def clamped(box, facts: dict, grow: float = 0, more: int = 0) -> tuple:
    """x, y, w, h -> (x0, y0, x1, y1) within the frame, larger on each side by a share of the box's
    size and some px.
    """
    x, y, w, h = box
    right, bottom = int(grow * w) + more, int(grow * h) + more
    corners = (x - right, y - bottom, x + w + right, y + h + bottom)
    limits = (facts["width"], facts["height"]) * 2
    return tuple(int(min(max(v, 0), most)) for v, most in zip(corners, limits, strict=True))


# ---- pictures to look at -------------------------------------------------------------------------


def write_png(path, rgb) -> None:
    artefact.write_bytes(path, cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())


def tile(images, columns, gap=6):
    """RGB images in rows, over dark gray."""
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    widths = [sum(image.shape[1] + gap for image in row) for row in rows]
    size = (sum(heights) + gap * (len(rows) + 1), max(widths) + gap, 3)
    out = np.full(size, 40, np.uint8)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for image in row:
            out[y : y + image.shape[0], x : x + image.shape[1]] = image
            x += image.shape[1] + gap
        y += height + gap
    return out


def caption(image, text):
    """The image with a line of text below it."""
    image = cv2.copyMakeBorder(image, 0, 18, 0, 0, cv2.BORDER_CONSTANT, value=(40, 40, 40))
    at = (4, image.shape[0] - 5)
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(image, text, at, font, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
