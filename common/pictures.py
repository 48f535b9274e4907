"""Videos and pictures: read, written, laid side by side."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from common import artefact, attempt

import cv2
import numpy as np

# ---- reading a video -----------------------------------------------------------------------------

JUMP = 300  # frames between two wanted ones from which seeking is faster than decoding


class Video:
    """A video file, opened once.  Iterating gives (index, seconds, RGB uint8 [h, w, 3]) per frame.

    frames: int, as the container says; 0 or less where it does not say
    fps: float, 30 where the container does not say    width, height: int, pixels

    SystemExit with one line if the file is not a readable video.  One pass at a time: each begins
    at the first frame.
    """

    def __init__(self, path):
        self.path = path
        if not Path(path).is_file():
            raise SystemExit(f"{path}: no such video")
        self.capture = cv2.VideoCapture(str(path))
        self.frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = float(self.capture.get(cv2.CAP_PROP_FPS)) or 30.0
        self.width = int(self.capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self.capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if not self.capture.isOpened() or not self.capture.grab():
            raise SystemExit(
                f"{path}: not a readable video (empty, cut off, or not a video at all)"
            )
        self.next = 1  # index of the frame after the grabbed one

    def __iter__(self):
        return self.at(itertools.count())

    def at(self, indices, jump: int = 0):
        """Yield (index, seconds, RGB uint8 [h, w, 3]) of these frames; `indices` ascend.

        seconds: the frame's own time stamp, since frames may come unevenly; index / fps where the
        file has no stamps that grow.
        jump: a frame that lies further ahead is sought, not decoded up to; in a file with uneven
        time stamps a neighbour may come in its place.
        """
        if self.next > 1:  # reopening is exact in every container, a seek is not
            self.capture.open(str(self.path))
            self.capture.grab()
            self.next = 1
        seconds = -1.0
        for index in indices:
            if not self._grab(index, jump):
                return
            ok, bgr = self.capture.retrieve()
            if not ok:
                return
            stamp = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > seconds else max(index / self.fps, seconds)
            yield index, seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def _grab(self, index: int, jump: int) -> bool:
        """Decode up to this frame; False where the video ends before it."""
        far = jump and index - self.next > jump
        if far and self.capture.set(cv2.CAP_PROP_POS_FRAMES, index):
            self.next = int(self.capture.get(cv2.CAP_PROP_POS_FRAMES))
        while self.next <= index:
            if not self.capture.grab():
                return False
            self.next += 1
        return self.next == index + 1


def video_facts(path) -> dict:
    """frames (as the container says), fps, width, height."""
    video = Video(path)
    return {name: getattr(video, name) for name in ("frames", "fps", "width", "height")}


def read_video(path, only=None, jump: int = 0):
    """Yield (index, seconds, RGB uint8 [h, w, 3]) of all frames, or of the indices `only`, in
    order; see Video.at.
    """
    video = Video(path)
    yield from video if only is None else video.at(sorted({int(i) for i in only}), jump)


def sample(path, n: int):
    """(frames, indices, count): n RGB frames spread over the video, in one pass."""
    video = Video(path)
    count = video.frames if video.frames > 0 else sum(1 for _ in video)
    wanted = np.unique(np.linspace(0, count - 1, n).round().astype(int)).tolist()
    frames, indices = [], []
    for index, _, frame in video.at(wanted, JUMP):
        frames.append(frame)
        indices.append(index)
    if len(frames) < 0.9 * len(wanted):
        raise SystemExit(
            f"{path}: breaks off after frame {indices[-1] if indices else 0} of {count}"
        )
    return frames, indices, count


# ---- writing a video -----------------------------------------------------------------------------


class VideoWriter:
    """mp4 file (mp4v, which OpenCV's wheels can write); gets its name when closed without error."""

    def __init__(self, path, fps: float, width: int, height: int, codec: str = "mp4v"):
        self.begin(path)
        fourcc = cv2.VideoWriter_fourcc(*codec)
        size = (width, height)
        self.file = cv2.VideoWriter(str(self.part), cv2.CAP_FFMPEG, fourcc, fps, size)
        if not self.file.isOpened():
            raise SystemExit(
                f"{path}: OpenCV cannot write an mp4 ({codec}) of {width} x {height} here"
            )

    def begin(self, path) -> None:
        self.path = artefact.in_folder(path)
        self.part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.mp4")
        self.frames = 0

    def write(self, rgb) -> None:
        self.file.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def end(self) -> None:
        self.file.release()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.end()
            if kind is None:
                self._check()
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)

    def _check(self) -> None:
        """OpenCV reports no full disk: count what was written."""
        if not self.frames:
            return
        facts, fault = attempt(lambda: video_facts(self.part))
        if fault or facts["frames"] < self.frames:
            raise SystemExit(f"{self.path}: could not be written to its end; is the disk full?")


class RatedWriter(VideoWriter):
    """mp4 file of `rate` bits per pixel: H.264 where the package `av` is installed, else OpenCV's
    VP9 (ten times slower).

    OpenCV has no option for the rate and asks for at most 2^30 bits a second: the more frames a
    second the file declares, the fewer bits each gets.  `faithful` refuses a file that declares
    another number of frames a second than `fps`.
    """

    def __init__(self, path, size, rate: float, faithful: bool = True, fps: int = 30):
        width, height = size
        try:
            import av
        except ImportError:
            if faithful:
                raise SystemExit("--rate needs an H.264 encoder: pip install av") from None
            self.av = None
            declared = min(65535, round(2**30 / (rate * width * height)))
            return super().__init__(path, declared, width, height, "VP90")
        self.begin(path)
        self.av = av
        self.file = av.open(str(self.part), "w")
        options = {"preset": "veryfast", "g": str(10 * fps), "threads": "1"}
        self.stream = self.file.add_stream("libx264", rate=fps, options=options)
        self.stream.width = width
        self.stream.height = height
        self.stream.pix_fmt = "yuv420p"
        self.stream.bit_rate = int(rate * width * height * fps)

    def write(self, rgb) -> None:
        if not self.av:
            return super().write(rgb)
        self.file.mux(self.stream.encode(self.av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        self.frames += 1

    def end(self) -> None:
        if not self.av:
            return super().end()
        self.file.mux(self.stream.encode())
        self.file.close()


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
