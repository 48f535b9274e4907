"""Videos and pictures: what they are, read and written."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from common import artefact, attempt

import cv2
import numpy as np

# ---- video files ---------------------------------------------------------------------------------


def open_video(path):
    """cv2.VideoCapture of a readable video; SystemExit with one line otherwise."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own line says it better
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    import cv2

    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such video")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened() or not video.grab():
        raise SystemExit(f"{path}: not a readable video (empty, cut off, or not a video at all)")
    video.open(str(path))
    return video


def video_facts(path) -> dict:
    """frames (as the container says), fps, width, height."""
    import cv2

    video = open_video(path)
    facts = {
        "frames": int(video.get(cv2.CAP_PROP_FRAME_COUNT)),
        "fps": float(video.get(cv2.CAP_PROP_FPS)) or 30.0,
        "width": int(video.get(cv2.CAP_PROP_FRAME_WIDTH)),
        "height": int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    }
    video.release()
    return facts


def read_video(path, only=None, jump: int = 0):
    """Yield (index, seconds, RGB uint8 [h, w, 3]) in order, in one pass; `only`: the wanted
    indices.  seconds: the frame's own time stamp, so that frames may come unevenly; index / frames
    per second where the file gives none that grow.

    jump: a wanted frame that lies further ahead is sought, not decoded up to; in files with uneven
    time stamps it may be a neighbour.
    """
    import cv2

    video, fps = open_video(path), video_facts(path)["fps"]
    wanted, i, seconds = None if only is None else sorted(set(int(k) for k in only)), 0, -1.0
    while wanted is None or wanted:
        if (
            wanted
            and jump
            and wanted[0] - i > jump
            and video.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        ):
            i = int(video.get(cv2.CAP_PROP_POS_FRAMES))
        if wanted is None or i == wanted[0]:
            ok, bgr = video.read()
            if not ok:
                break
            if wanted:
                wanted.pop(0)
            stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = stamp if stamp > seconds else max(i / fps, seconds)
            yield i, seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        elif not video.grab():
            break
        i += 1
    video.release()


class VideoWriter:
    """mp4 file (mp4v, what OpenCV's wheels can write); takes its name only when closed without an
    error.
    """

    def __init__(self, path, fps: float, width: int, height: int, codec: str = "mp4v"):
        import cv2

        self.begin(path)
        self.cv2, self.file = (
            cv2,
            cv2.VideoWriter(
                str(self.part), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, (width, height)
            ),
        )
        if not self.file.isOpened():
            raise SystemExit(
                f"{path}: OpenCV cannot write an mp4 ({codec}) of {width} x {height} here"
            )

    def begin(self, path) -> None:
        self.path, self.frames = artefact.in_folder(path), 0
        self.part = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part.mp4")

    def write(self, rgb) -> None:
        self.file.write(self.cv2.cvtColor(rgb, self.cv2.COLOR_RGB2BGR))
        self.frames += 1

    def end(self) -> None:
        self.file.release()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.end()
            if kind is None and self.frames:  # OpenCV says nothing of a full disk
                facts, fault = attempt(lambda: video_facts(self.part))
                if fault or facts["frames"] < self.frames:
                    raise SystemExit(
                        f"{self.path}: could not be written to its end; is the disk full?"
                    )
            if kind is None:
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)


class RatedWriter(VideoWriter):
    """mp4 file of so many bits per pixel: H.264 where the package `av` is installed, else OpenCV's
    VP9 (ten times slower).

    OpenCV has no flag for the rate, but asks for 2^30 bits a second at most: the more frames a
    second the file declares, the fewer bits for each; `faithful` refuses that.
    """

    def __init__(self, path, size, rate: float, faithful: bool = True, fps: int = 30):
        try:
            import av
        except ImportError:
            if faithful:
                raise SystemExit("--rate needs an H.264 encoder: pip install av") from None
            self.av = None
            return super().__init__(
                path, min(65535, round(2**30 / (rate * size[0] * size[1]))), *size, "VP90"
            )
        self.begin(path)
        self.av, self.file = av, av.open(str(self.part), "w")
        self.stream = self.file.add_stream(
            "libx264", rate=fps, options={"preset": "veryfast", "g": str(10 * fps), "threads": "1"}
        )
        (self.stream.width, self.stream.height), self.stream.pix_fmt = size, "yuv420p"
        self.stream.bit_rate = int(rate * size[0] * size[1] * fps)

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


def write_png(path, rgb) -> None:
    import cv2

    artefact.write_bytes(path, cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())


# ---- many inputs ---------------------------------------------------------------------------------

# what counts as a video in a folder
VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".flv", ".ts")


def expand(paths) -> tuple[str, ...]:
    """Videos as a user gives them -> files: a file stays, a folder becomes the videos in it
    (sorted, without the previews of parse.py), a pattern what it matches, @list.txt the lines of
    that file.  A file that does not exist stays too: for_each names it. Outputs are named after the
    video: two of one name are refused."""
    files, named = [], {}
    for p in map(str, paths):
        found = [p]
        if p.startswith("@") and not os.path.exists(p):
            try:
                lines = map(str.strip, Path(p[1:]).read_text("utf-8-sig").splitlines())
            except (OSError, UnicodeDecodeError) as e:
                raise SystemExit(f"{p}: not a readable list of videos ({e})") from None
            found = [x for x in lines if x and not x.startswith("#")]
        elif os.path.isdir(p):
            found = sorted(
                str(f)
                for f in Path(p).iterdir()
                if f.suffix.lower() in VIDEOS
                and f.is_file()
                and not f.name.startswith(".")
                and not f.name.endswith(".preview.mp4")
            )
        elif glob.has_magic(p) and not os.path.exists(p):
            found = sorted(f for f in glob.glob(p, recursive=True) if os.path.isfile(f))
        if not found:
            raise SystemExit(
                f"{p}: no videos there (a file, a folder, a pattern in quotes or @list.txt; in folders: {' '.join(VIDEOS)})"
            )
        files += found
    for f in files:
        if os.path.realpath(other := named.setdefault(Path(f).stem, f)) != os.path.realpath(f):
            raise SystemExit(
                f"{other} and {f}: one name, so their outputs would overwrite each other; rename one, or give them separate --out"
            )
    return tuple(files)


JUMP = 300  # frames between two samples from which seeking is faster than decoding


def sample(video, n: int):
    """(frames, indices, count): n RGB frames spread over the video, in one pass."""
    count = video_facts(video)["frames"]
    count = count if count > 0 else sum(1 for _ in read_video(video))
    wanted = np.unique(np.linspace(0, count - 1, n).round().astype(int))
    got = [(frame, i) for i, _, frame in read_video(video, wanted, JUMP)]
    if len(got) < 0.9 * len(wanted):
        raise SystemExit(f"{video}: breaks off after frame {got[-1][1] if got else 0} of {count}")
    return [f for f, _ in got], [i for _, i in got], count


# ---- pictures to look at -------------------------------------------------------------------------


def tile(images, columns, gap=6):
    """RGB images in rows, over dark gray."""
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    width = max(sum(m.shape[1] + gap for m in r) for r in rows) + gap
    out = np.full(
        (sum(max(m.shape[0] for m in r) + gap for r in rows) + gap, width, 3), 40, np.uint8
    )
    y = gap
    for r in rows:
        x = gap
        for m in r:
            out[y : y + m.shape[0], x : x + m.shape[1]] = m
            x += m.shape[1] + gap
        y += max(m.shape[0] for m in r) + gap
    return out


def caption(image, text):
    """The image with a line of text below it."""
    image = cv2.copyMakeBorder(image, 0, 18, 0, 0, cv2.BORDER_CONSTANT, value=(40, 40, 40))
    return cv2.putText(
        image,
        text,
        (4, image.shape[0] - 5),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.42,
        (230, 230, 230),
        1,
        cv2.LINE_AA,
    )
