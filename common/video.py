"""Videos as they are: every frame as a player shows it, with its time."""

from __future__ import annotations

import collections
import gc
import itertools
import os
import re
import typing
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

# ---- one way through a file ----------------------------------------------------------------------

# formats whose header says how long the file is: one that ends sooner was cut off
HEADED = ("mov", "matroska", "avi", "flv", "asf")
ENCRYPTED = ("encv", "drmi")  # how an mp4 names a track that needs a key
COVER = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
MOST_PIXELS = 1 << 26  # of a frame, twice those of 8K: a broken header may say anything
# a playlist would name other files, and places on the network
ONLY_THIS = {"protocol_whitelist": "file"}
CONVERT = "convert it, with ffmpeg -i IN -c:v libx264 OUT.mp4"


# A decoder has threads, and a fork has none of them.  Freed there, as garbage of its parent, it
# would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)


class Track:
    """The default video track of a file, opened: its frames as they are presented.

    SystemExit with one line if the file has none, or none that can be decoded.
    """

    def __init__(self, path):
        if not Path(path).is_file():
            raise SystemExit(f"{path}: no such video")
        self.path = path
        try:
            self.container = av.open(f"file:{path}", options=ONLY_THIS, metadata_errors="ignore")
        except PermissionError:
            raise SystemExit(f"{path}: may not be read; look at its permissions") from None
        except (av.FFmpegError, ValueError):
            raise SystemExit(
                f"{path}: not a readable video (empty, cut off, or not a video at all)"
            ) from None
        self.stream = default_track(path, self.container)
        self.headed = self.container.format.name.startswith(HEADED)
        # AVI knows in which order its frames are decoded, not when they are shown
        self.stampless = self.container.format.name == "avi"
        self.reach = 0.0  # s: how far the packets of all tracks go
        self.fault = ""  # what ended the reading before the file's end
        self.begun = False  # a frame was decoded
        self.lost = 0  # packets after it that are broken
        self.is_interlaced = False  # as far as it was decoded

    def packets(self):
        """Yield the track's packets, and note how far all tracks go."""
        packets = self.container.demux()
        while not self.fault:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as e:
                self.fault = str(e.strerror)
                return
            if packet.dts is not None:
                end = packet.dts + (packet.duration or 0)
                self.reach = max(self.reach, float(end * packet.time_base))
            if packet.stream_index == self.stream.index and packet.size:
                if packet.has_sidedata("encryption_info"):
                    raise encrypted(self.path, self.stream.codec_context.name)
                yield packet

    def decoded(self):
        """Yield (stamp in s or None, av.VideoFrame).  What is broken gives no frame."""
        for packet in itertools.chain(self.packets(), [None]):
            try:
                frames = self.stream.decode(packet)
            except (av.FFmpegError, EOFError):
                self.lost += self.begun
                continue
            for frame in frames:
                self.begun = True
                ticks = frame.dts if self.stampless else frame.pts
                yield None if ticks is None else float(ticks * self.stream.time_base), frame

    def frames(self):
        """As `decoded`; interlaced frames are deinterlaced, each to one."""
        graph, kind = None, None
        stamps = collections.deque()  # of the frames that the filter holds
        for stamp, frame in self.decoded():
            now = (frame.format.name, frame.width, frame.height)
            if graph and now != kind:
                yield from through(graph, None, stamps)
                graph = None
            if not graph and not frame.interlaced_frame:
                yield stamp, frame
                continue
            graph, kind = graph or deinterlacer(self.stream, frame), now
            self.is_interlaced = True
            stamps.append(stamp)
            yield from through(graph, frame, stamps)
        if graph:
            yield from through(graph, None, stamps)


def default_track(path, container):
    """The video track that a player shows, with its decoder set up."""
    tracks = [stream for stream in container.streams.video if not stream.disposition & COVER]
    if not tracks:
        what = ", only sound or text" if container.streams else ""
        what = ", only a cover picture" if container.streams.video else what
        raise SystemExit(f"{path}: there is no video in it{what}")
    default = av.stream.Disposition.default
    stream = next((stream for stream in tracks if stream.disposition & default), tracks[0])
    decoder = stream.codec_context
    codec = f"{decoder.name} ({decoder.codec_tag})" if decoder else codec_of(path)
    if any(word in codec for word in ENCRYPTED):
        raise encrypted(path, codec)
    if decoder is None:
        raise SystemExit(f"{path}: there is no decoder here for its video, {codec}; {CONVERT}")
    decoder.thread_type = "AUTO"
    decoder.thread_count = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: all cores
    decoder.options = {"max_pixels": str(MOST_PIXELS)}
    return stream


def encrypted(path, codec: str) -> SystemExit:
    return SystemExit(f"{path}: its video, {codec}, is encrypted: give a copy without protection")


def codec_of(path) -> str:
    """What FFmpeg calls the codec of a track that it cannot decode: only its log has it."""
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as lines, av.open(f"file:{path}", options=ONLY_THIS):
            found = re.search(r"Video: ([^,]+)", " ".join(line for *_, line in lines))
            return re.sub("^none", "unknown", found[1]) if found else "unknown"
    finally:
        av.logging.set_level(None)


def deinterlacer(stream, frame):
    """FFmpeg's bwdif, for frames like this one."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def through(graph, frame, stamps):
    """Put a frame into the filter, None at the end; yield (stamp, frame) of what comes out."""
    graph.push(frame)
    while True:
        try:
            done = graph.vpull()
        except (BlockingIOError, EOFError):  # it wants another frame, or has given all
            return
        yield stamps.popleft(), done


# ---- reading a video -----------------------------------------------------------------------------

JUMP = 300  # frames between two wanted ones from which seeking is faster than decoding
LONG = 1800  # s, of a video from which a pass over its packets takes a while
# codecs of which every packet in a file is one frame
FRAME_A_PACKET = ("h264", "hevc", "av1", "libdav1d", "vp9", "mpeg4", "mjpeg", "prores")
READABLE = 0.9  # share of a file that must be there, unless `partial`
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
HDR_DONE = "brought to 8 bits"
if int(av.__version__.partition(".")[0]) < 18:  # it leaves the curve of HDR as it is
    HDR_DONE = "cut to 8 bits, so it looks pale: PyAV 18, with Python 3.11, shows it as players do"
SDR = {
    "dst_color_trc": ColorTrc.BT709,
    "dst_color_primaries": ColorPrimaries.BT709,
    "dst_colorspace": Colorspace.ITU709,
}


class Index(typing.NamedTuple):
    """When each frame is presented, as the packets say."""

    ticks: np.ndarray  # int64 [frames], growing, in units of the track's time base
    keys: np.ndarray  # int64, ascending: the numbers of the key frames


class Clock:
    """Time stamps -> seconds from the first frame on.  They never fall: where stamps begin anew,
    time goes on by `step`; so it does where there is none.
    """

    def __init__(self, step: float):
        self.step = step
        self.first = None  # the stamp that is 0 s
        self.now = 0.0

    def __call__(self, stamp: float | None) -> float:
        if self.first is None:
            self.first = stamp or 0.0
        elif stamp is None:
            self.now += self.step
        else:
            if stamp - self.first < self.now:
                self.first = stamp - self.now - self.step
            self.now = stamp - self.first
        return self.now


class Video:
    """A video file, opened once.  Iterating gives (index, seconds, RGB uint8 [h, w, 3]) per frame.

    Frame i is the i-th that a player presents of the default track: turned upright, with square
    pixels, deinterlaced, HDR brought to 8 bits, all of the size of the first.  Its time is its own
    stamp, in seconds from the first frame on.

    frames: int, and fps, duration (s): as the container says, for a bar of progress; frames and
    duration are 0, fps is 30 where it does not say
    width, height: int, px    notes: list[str], what the user should know, each a line

    SystemExit with one line if the file is not a readable video, and when less than READABLE of it
    turns out to be there, unless `partial`.
    """

    def __init__(self, path, partial: bool = False):
        self.path = path
        self.partial = partial
        self.notes = []
        self.track = Track(path)
        self.start, first = next(self.track.frames(), (None, None))
        if first is None:
            name = self.track.stream.name
            raise SystemExit(
                f"{path}: not a readable video: no picture of its {name} can be decoded"
            )
        stream = self.track.stream
        rate = stream.guessed_rate or stream.average_rate
        self.fps = float(rate) if rate and 1 <= rate <= 1000 else 30.0
        self.duration = (self.track.container.duration or 0) / av.time_base
        if stream.duration:
            self.duration = float(stream.duration * stream.time_base)
        self.frames = stream.frames or round(self.duration * self.fps)
        self.turns = first.rotation // 90 % 4
        self.size = displayed_size(first, stream.sample_aspect_ratio)
        self.width, self.height = self.size[::-1] if self.turns % 2 else self.size
        self.scaler = VideoReformatter()
        self.colours = {}
        if first.color_trc in HDR:
            self.colours = SDR
            self.notes.append(f"HDR ({HDR[first.color_trc]}), {HDR_DONE}")
        self._times = self._index = None

    def __str__(self):
        return str(self.path)

    # ---- its frames

    def __iter__(self):
        return self.at(itertools.count())

    def at(self, indices):
        """Yield (index, seconds, RGB uint8 [h, w, 3]) of exactly these frames; `indices` ascend.

        A frame that lies far ahead is sought, where the packets tell which key frame comes before.
        """
        frames, here, sought = self._presented(), -1, False
        for index in indices:
            if index - here > JUMP and (found := self._sought(index, here)):
                frames, sought = found, True
            here, seconds, frame = first_from(index, frames)
            if here != index and sought:  # the packets have told wrong
                self._index, sought = False, False
                frames = self._presented()
                here, seconds, frame = first_from(index, frames)
            if here != index:
                return
            yield index, seconds, self._rgb(frame)

    def _presented(self):
        """Yield (index, seconds, av.VideoFrame) from the first frame on."""
        track = Track(self.path)
        clock = Clock(1 / self.fps)
        times = []
        for stamp, frame in track.frames():
            times.append(clock(stamp))
            yield len(times) - 1, times[-1], frame
        if track.lost:  # the packets tell of frames that do not come
            self._times, self._index = np.array(times), False
        self._judge(track, len(times), clock.now)

    def _rgb(self, frame) -> np.ndarray:
        """What a player shows of a frame."""
        width, height = self.size
        how = {"interpolation": Interpolation.BICUBIC, "threads": 1, **self.colours}
        try:
            out = self.scaler.reformat(frame, width, height, "rgb24", **how)
        except (av.FFmpegError, ValueError) as e:
            raise SystemExit(
                f"{self.path}: its frames ({frame.format.name}) cannot be shown ({e}); {CONVERT}"
            ) from None
        rows = np.frombuffer(out.planes[0], np.uint8).reshape(height, -1)
        rgb = rows[:, : 3 * width].reshape(height, width, 3)
        if self.turns:
            return np.ascontiguousarray(np.rot90(rgb, self.turns))
        return rgb.copy() if out is frame else rgb  # the decoder may still need its own

    # ---- where they are

    def times(self) -> np.ndarray:
        """float64 [frames], s: of all frames.  The packets tell, or all is decoded."""
        if self._times is None:
            index = self._indexed()
            if index:
                base = float(self.track.stream.time_base)
                self._times = (index.ticks - index.ticks[0]) * base
            else:
                self._times = np.array([seconds for _, seconds, _ in self._presented()])
        return self._times

    def number(self, seconds, exact: bool = True) -> np.ndarray:
        """int64, of the frames shown at these times: the last that had come.

        not exact: by the rate, where the times of a long video are not known yet.
        """
        if not exact and self._times is None:
            return np.round(np.asarray(seconds) * self.fps).astype(np.int64)
        return np.searchsorted(self.times(), np.asarray(seconds) + 1e-6, "right") - 1

    def count(self) -> int:
        """Number of frames, as far as it is known."""
        return self.frames if self._times is None else len(self._times)

    def sample(self, n: int, kept=lambda rgb: rgb):
        """([what `kept` makes of a frame], float64 s): n frames, or fewer, spread over the video.

        Of a long video these are key frames, found without a pass over it.
        """
        if self._times is None and self.duration > LONG:
            found = [(seconds, kept(rgb)) for seconds, rgb in self._key_frames(n)]
            if len(found) >= READABLE * n:
                return [frame for _, frame in found], np.array([seconds for seconds, _ in found])
        wanted = np.unique(np.linspace(0, len(self.times()) - 1, n).round().astype(int))
        found = [(seconds, kept(rgb)) for _, seconds, rgb in self.at(wanted.tolist())]
        return [frame for _, frame in found], np.array([seconds for seconds, _ in found])

    def _key_frames(self, n: int):
        """Yield (seconds, RGB) of the key frames before n instants, each once."""
        last = -1.0
        for seconds in np.linspace(0, self.duration, n):
            stamp, frame = next(self._frames_from(self.start + seconds), (None, None))
            if stamp is not None and stamp - self.start > last:
                last = stamp - self.start
                yield last, self._rgb(frame)

    def _frames_from(self, stamp: float):
        """The decoder's frames from a key frame on, if it can, at or before this stamp."""
        stream = self.track.stream
        try:
            self.track.container.seek(int(stamp / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError):
            return iter(())
        return self.track.frames()

    def _sought(self, index: int, here: int):
        """Frames as in _presented, from a key frame between `here` and `index`; None without."""
        known = self._indexed()
        if not known:
            return None
        k = int(np.searchsorted(known.keys, index, "right")) - 1
        if k < 0 or known.keys[k] <= here:
            return None
        for back in (0, 1, 4, 16):  # some containers seek too far
            frames = self._numbered(known, int(known.keys[max(0, k - back)]))
            first = next(frames, None)
            if first and first[0] <= index:
                return itertools.chain([first], frames)
        return None

    def _numbered(self, known: Index, key: int):
        """Yield (index, seconds, av.VideoFrame) from a key frame on, while each is the next."""
        times = self.times()
        before = None
        for _, frame in self._frames_from(float(known.ticks[key] * self.track.stream.time_base)):
            here = int(np.searchsorted(known.ticks, frame.pts or 0))
            is_known = here < len(times) and known.ticks[here] == frame.pts
            if before is None and not (is_known and here in known.keys):
                continue  # what comes before a key frame lacks the frames that it is made from
            if not is_known or here != (here if before is None else before + 1):
                return
            before = here
            yield here, float(times[here]), frame

    def _indexed(self):
        """The Index, made once by a pass over the packets; False where it would not be exact."""
        if self._index is None:
            track = Track(self.path)
            shown = (p for p in track.packets() if not p.is_discard)
            packets = [(p.pts, p.dts, p.is_keyframe, p.is_corrupt) for p in shown]
            self._index = self._index_of(track, packets)
            if self._index:
                ticks = self._index.ticks
                base = track.stream.time_base
                self._judge(track, len(ticks), float((ticks[-1] - ticks[0]) * base))
        return self._index

    def _index_of(self, track: Track, packets: list):
        exact = track.stream.codec_context.name in FRAME_A_PACKET and not self.track.is_interlaced
        pts, dts, is_key, is_corrupt = zip(*packets, strict=True)
        # a corrupt packet may give a frame or none
        if not exact or track.stampless or None in pts or any(is_corrupt):
            return False
        pts, is_key = np.array(pts), np.array(is_key)
        dts = np.array([ticks for ticks in dts if ticks is not None])
        order = np.argsort(pts, kind="stable")
        ticks = pts[order]
        ready = ticks >= round(self.start / float(track.stream.time_base))
        ticks = ticks[ready]
        keys = np.flatnonzero(is_key[order][ready])
        grows = (np.diff(dts) >= 0).all() and (np.diff(ticks) > 0).all()
        return Index(ticks, keys) if len(keys) and keys[0] == 0 and grows else False

    def _judge(self, track: Track, frames: int, seconds: float) -> None:
        """Of a pass that came to its end: did the file?"""
        container = track.container
        whole = (container.duration or 0) / av.time_base if track.headed else 0.0
        read = track.reach - min(container.start_time or 0, 0) / av.time_base
        if not track.fault and whole - read <= 2 / self.fps + 0.01 * whole:
            if track.lost:
                line = f"{track.lost:,} of {frames + track.lost:,} frames are broken"
                self._use(line, frames / (frames + track.lost))
            return
        line = f"breaks off after frame {frames - 1:,}, at {seconds:.1f} s"
        if whole:
            line += f" of {whole:.1f}"
        self._use(line, read / whole if whole else 1.0)

    def _use(self, line: str, share: float) -> None:
        """Say what is wrong, once; SystemExit if less is there than READABLE and is not wanted."""
        if share < READABLE and not self.partial:
            raise SystemExit(f"{self.path}: {line}; --partial uses what is there")
        end = "; what is there is used"
        if not any(note.endswith(end) for note in self.notes):
            self.notes.append(line + end)


def displayed_size(frame, aspect) -> tuple[int, int]:
    """Width and height in square pixels, from a frame and the shape of its pixels."""
    aspect = float(aspect or 1)
    if not 0.2 < aspect < 5:  # no honest one
        aspect = 1.0
    return round(frame.width * max(aspect, 1)), round(frame.height / min(aspect, 1))


def first_from(index: int, frames):
    """The first of (index, seconds, frame) at or after an index; -1 is the index if none is."""
    return next((item for item in frames if item[0] >= index), (-1, 0.0, None))


def opened(video) -> Video:
    """A path, or a Video already."""
    return video if isinstance(video, Video) else Video(video)


def rate_of(times, fps: float) -> float:
    """Frames per second as the time stamps [T] tell; `fps`, as the container says, where they agree
    to 1 %: stamps may be rounded.
    """
    if len(times) < 2 or not times[-1] > times[0]:
        return fps
    seen = float((len(times) - 1) / (times[-1] - times[0]))
    return fps if abs(seen / fps - 1) < 0.01 else seen


def video_facts(path) -> dict:
    """frames (as the container says), fps, width, height."""
    video = opened(path)
    return {name: getattr(video, name) for name in ("frames", "fps", "width", "height")}


def read_video(path, only=None):
    """Yield (index, seconds, RGB uint8 [h, w, 3]) of all frames, or of the indices `only`, in
    order; see Video.at.  path: or a Video.
    """
    video = opened(path)
    yield from video if only is None else video.at(sorted({int(i) for i in only}))
