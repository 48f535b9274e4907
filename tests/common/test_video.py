"""Videos as people have them: each kind is made here, small, and every frame says which it is."""

import gc
import os
import signal
import time
from fractions import Fraction

from common import artefact
from common.pictures import Video, VideoWriter, rate_of, read_video
from common.video import Track

import av
import numpy as np
import pytest

import extract
import filter
from commands import fault

W, H, BITS = 128, 64, 8  # a frame shows its number, a bar per bit


def picture(n: int, w: int = W, h: int = H) -> np.ndarray:
    bars = [255 * (n >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.uint8(bars), w // BITS)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (h, w, 3)))


def number(rgb) -> int:
    h, w = rgb.shape[:2]
    centres = (np.arange(BITS) + 0.5) * w / BITS
    bars = rgb[h // 2, centres.astype(int)].mean(1) > 127
    return int(bars @ (1 << np.arange(BITS)))


def add_track(out, codec="libx264", rate=30, pix="yuv420p", size=(W, H), **options):
    if codec == "libx264":
        options = {"preset": "ultrafast", "crf": "18"} | options
    track = out.add_stream(codec, rate=rate, options=options)
    track.width, track.height = size
    track.pix_fmt = pix
    track.codec_context.time_base = Fraction(1, 90_000)
    return track


def put(out, track, numbers, seconds, paint=picture):
    """Encode these pictures at these times."""
    for n, at in zip(numbers, seconds, strict=True):
        frame = av.VideoFrame.from_ndarray(paint(n), format="rgb24")
        frame.pts = round(at * 90_000)
        frame.time_base = Fraction(1, 90_000)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))


def film(path, count=40, seconds=None, paint=picture, muxer=None, **how):
    """A film of `count` frames at 30/s, or at these times."""
    seconds = np.arange(count) / 30 if seconds is None else seconds
    with av.open(str(path), "w", options=muxer or {}) as out:
        put(out, add_track(out, **how), np.arange(len(seconds)) % 256, seconds, paint)
    return path


def sound(out, seconds: float):
    """(track, frames) of silence."""
    track = out.add_stream("aac", rate=48_000, layout="mono")
    frames = []
    for k in range(round(seconds * 48_000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate, frame.pts = 48_000, 1024 * k
        frames.append(frame)
    return track, frames


def put_sound(out, track, frames):
    for frame in [*frames, None]:
        out.mux(track.encode(frame))


def read(path, **how):
    """(numbers, seconds) of all frames, in order from the first."""
    video = Video(path, **how)
    found = [(i, seconds, number(rgb)) for i, seconds, rgb in video]
    assert [i for i, _, _ in found] == list(range(len(found)))
    return [n for _, _, n in found], np.array([seconds for _, seconds, _ in found])


# ---- what was refused, or read wrong


def test_interlaced_frames_are_all_there_and_without_combs(tmp_path):
    def combed(n):
        frame = picture(n)
        frame[40::2, 4 * n : 4 * n + 8] = 128
        frame[41::2, 4 * n + 2 : 4 * n + 10] = 128
        return frame

    interlaced = {"flags": "+ilme+ildct", "x264-params": "tff=1", "preset": "veryfast"}
    path = film(tmp_path / "a.ts", 20, paint=combed, **interlaced)
    with av.open(str(path)) as file:
        assert next(file.decode(video=0)).interlaced_frame
    numbers, seconds = read(path)
    assert numbers == list(range(20)) and seconds == pytest.approx(np.arange(20) / 30)
    rgb = list(read_video(path))[10][2].astype(int)
    assert np.abs(np.diff(rgb[44:60], axis=0)).max() < 80  # of 128 between the fields


@pytest.mark.parametrize("pix", ["yuv420p", "yuv420p10le"])
def test_av1(tmp_path, pix):
    path = film(tmp_path / "a.mkv", codec="libsvtav1", pix=pix, preset="10", crf="10")
    numbers, seconds = read(path)
    assert numbers == list(range(40)) and seconds == pytest.approx(np.arange(40) / 30, abs=1e-3)


def test_what_the_container_counts_is_a_hint(tmp_path):
    """Dropped frames; sound that goes on; a stream that begins between two key frames."""
    dropped = np.delete(np.arange(60), range(20, 29)) / 30
    assert read(film(tmp_path / "a.mkv", seconds=dropped))[1] == pytest.approx(dropped, abs=1e-3)
    for name in ("b.mkv", "b.mp4"):
        with av.open(str(tmp_path / name), "w") as out:
            track = add_track(out)
            audio, frames = sound(out, 4)
            put(out, track, range(30), np.arange(30) / 30)
            put_sound(out, audio, frames)
        assert read(tmp_path / name)[0] == list(range(30))
    whole = film(tmp_path / "c.ts", 90, g="20", bf="2").read_bytes()
    (tmp_path / "d.ts").write_bytes(whole[len(whole) // 188 // 3 * 188 :])
    numbers, seconds = read(tmp_path / "d.ts")
    assert numbers == list(range(numbers[0], 90)) and 20 <= numbers[0] <= 60
    assert seconds == pytest.approx(np.arange(len(numbers)) / 30, abs=1e-3)


def test_a_frame_that_is_asked_for_is_the_one_that_comes(tmp_path):
    """Uneven frames, B-frames, far apart: sought by the packets, never a neighbour."""
    seconds = np.r_[np.arange(500) / 15, 500 / 15 + np.arange(300) / 60]
    for name in ("a.mp4", "a.mkv", "a.ts"):
        path = film(tmp_path / name, seconds=seconds, g="30", bf="3", preset="veryfast")
        video = Video(path)
        asked = [0, 399, 400, 795]
        got = list(video.at(asked))
        assert [i for i, _, _ in got] == asked
        assert [number(rgb) for _, _, rgb in got] == [i % 256 for i in asked]
        assert [at for _, at, _ in got] == pytest.approx(seconds[asked], abs=1e-3)
        assert len(video._index.keys) > 20  # it was sought
        frames, at = video.sample(25)
        numbers = video.number(at)
        assert [number(rgb) for rgb in frames] == (numbers % 256).tolist()
        assert numbers[[0, -1]].tolist() == [0, 799] and video.count() == 800


def test_a_recording_without_a_duration(tmp_path):
    path = film(tmp_path / "a.mkv", 60, muxer={"live": "1"})
    video = Video(path)
    assert (video.frames, video.duration) == (0, 0)
    frames, at = video.sample(5)
    assert [number(rgb) for rgb in frames] == video.number(at).tolist() == [0, 15, 30, 44, 59]
    assert read(path)[0] == list(range(60))


def test_equal_stamps_and_a_header_with_another_rate(tmp_path):
    stamps = np.r_[np.arange(40) / 15, 40 / 15 + np.arange(20) / 60]
    assert filter.uneven(stamps)
    stamps[10] = stamps[9]
    assert filter.uneven(stamps)
    frame, even, fps = filter.evened(stamps, 30.0)
    assert fps == 30 and np.abs(stamps[frame] - even).max() < 2 / 15
    assert not filter.uneven(np.zeros(5)) and not filter.uneven(np.arange(5) / 30)
    assert rate_of(np.arange(60) / 60, 30.0) == pytest.approx(60)
    assert rate_of(np.round(np.arange(60) / 29.97, 3), 29.97) == 29.97
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        put(out, add_track(out, rate=30), range(60), np.arange(60) / 60)
    video = Video(tmp_path / "a.mkv")
    assert rate_of(video.times(), video.fps) == pytest.approx(60, abs=0.2)


@pytest.mark.parametrize("fps, rows", [(25, 30), (50, 60), (144, 150)])
def test_rates_that_are_no_multiple_are_laid_out_by_time(tmp_path, fps, rows):
    path = film(tmp_path / "a.mp4", seconds=np.arange(60) / fps, rate=fps)
    times = Video(path).times()
    tensors = {
        "buttons": np.zeros((60, 16), np.float16),
        "sticks": np.zeros((60, 4), np.float32),
        "shown": np.ones(20, bool),
        "confidence": np.ones(60, np.float16),
        "time": times,
    }
    actions = tmp_path / "a.actions.safetensors"
    artefact.write(actions, tensors, "nitrogen.actions/1", unit="normalized", fps=float(fps))
    c = filter.Config(videos=(str(path),), rate=30.0, horizon=4)
    labels = filter.read_labels(str(path), actions, None, c)
    assert (
        labels.fps == rows and f"frames that come at {fps}/s laid out at {rows}/s" in labels.about
    )
    late = labels.time - times[labels.frame]  # the last frame that had come, or is about to
    assert late.min() >= -0.25 / rows - 1e-6 and late.max() < 1 / fps
    assert len(filter.chunk_starts(np.ones(len(labels.frame), bool), labels.fps, c)) > 20


def test_stamps_that_begin_anew_go_on(tmp_path):
    first = film(tmp_path / "a.ts", 30).read_bytes()
    (tmp_path / "b.ts").write_bytes(first + first)
    numbers, seconds = read(tmp_path / "b.ts")
    assert numbers == [*range(30), *range(30)]
    assert seconds == pytest.approx(np.arange(60) / 30, abs=2e-3)


def test_two_streams_in_one_file_are_counted_alike(tmp_path):
    """Where they meet, a packet looks corrupt and gives a frame all the same."""
    path = film(tmp_path / "a.ts", seconds=np.arange(400) / 30)
    other = film(tmp_path / "b.ts", seconds=(400 + np.arange(400)) / 30, size=(2 * W, 2 * H))
    path.write_bytes(path.read_bytes() + other.read_bytes())
    numbers, _ = read(path)
    assert len(numbers) == len(Video(path).times()) == 800
    asked = [350, 790]
    assert [number(rgb) for _, _, rgb in Video(path).at(asked)] == [numbers[i] for i in asked]


def test_the_default_track_is_read(tmp_path):
    default = av.stream.Disposition.default.value
    for chosen in (0, 1):
        with av.open(str(tmp_path / "a.mkv"), "w") as out:
            tracks = [add_track(out), add_track(out, size=(2 * W, 2 * H))]
            for k, track in enumerate(tracks):
                track.disposition = default if k == chosen else 0
            for k, track in enumerate(tracks):
                put(out, track, range(100 * k, 100 * k + 20), np.arange(20) / 30)
        assert read(tmp_path / "a.mkv")[0] == list(range(100 * chosen, 100 * chosen + 20))
        assert Video(tmp_path / "a.mkv").width == W * (chosen + 1)


def test_cover_pictures_are_no_video(tmp_path):
    for name, frames in (("a.mp4", 0), ("b.mp4", 20)):
        with av.open(str(tmp_path / name), "w") as out:
            cover = out.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic.value
            audio, silence = sound(out, 1)
            track = add_track(out) if frames else None
            art = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            art.pts = 0
            out.mux(cover.encode(art))
            out.mux(cover.encode(None))
            if frames:
                put(out, track, range(frames), np.arange(frames) / 30)
            put_sound(out, audio, silence)
    assert "a.mp4: there is no video in it, only a cover picture" in fault(
        Video, tmp_path / "a.mp4"
    )
    assert read(tmp_path / "b.mp4")[0] == list(range(20))


def test_large_frames_are_reduced_as_they_come(tmp_path):
    path = film(tmp_path / "a.mp4", 12)
    shapes = []

    def kept(rgb):
        shapes.append(rgb.shape)
        return rgb[::8, ::8].copy()

    frames, _ = Video(path).sample(5, kept)
    assert shapes == [(H, W, 3)] * 5 and {f.shape for f in frames} == {(H // 8, W // 8, 3)}
    assert extract.reduced(np.zeros((4320, 7680, 3), np.uint8)).shape == (720, 1280, 3)
    assert extract.reduced(np.zeros((1440, 2560, 3), np.uint8)).shape == (1440, 2560, 3)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_film_that_was_cut_off(tmp_path, name):
    """All of it up to the cut is read; less than 90 % only when that is asked for."""
    muxer = {"movflags": "+faststart"} if name == "a.mp4" else None
    noise = np.random.default_rng(0).integers(0, 256, (H // 4, W, 3), dtype=np.uint8)

    def noisy(n):
        frame = picture(n)
        frame[-len(noise) :] = np.roll(noise, n, 1)
        return frame

    path = film(tmp_path / name, 200, paint=noisy, muxer=muxer, g="10")
    whole = path.read_bytes()
    for share in (0.94, 0.6):
        path.write_bytes(whole[: int(share * len(whole))])
        video = Video(path, partial=share < 0.9)
        numbers = [number(rgb) for _, _, rgb in video]
        assert numbers == list(range(len(numbers))) and abs(len(numbers) / 200 - share) < 0.1
        (note,) = video.notes
        assert f"breaks off after frame {len(numbers) - 1}, at " in note and "is used" in note
        assert len(video.sample(5)[0]) >= 4  # the last may be half a packet
    line = fault(lambda: [None for _ in Video(path)])
    assert line.endswith("; --partial uses what is there") and "breaks off after frame" in line
    assert fault(Video(path).sample, 5) == line


def test_broken_frames_are_left_out_and_told(tmp_path):
    """Also where the packets, which are all there, count them."""
    path = film(tmp_path / "a.mp4", 200, g="10")
    blob = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux() if packet.size]
    for packet in packets[64:70]:
        blob[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(blob)
    video = Video(path)
    frames, seconds = video.sample(200, number)
    assert 190 <= len(frames) < 200 and len(frames) == video.count() == len(video.times())
    assert frames == np.round(seconds * 30).tolist()
    assert f"{200 - len(frames)} of 200 frames are broken; what is there is used" in video.notes
    for packet in packets[70:100]:
        blob[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(blob)
    assert "frames are broken; --partial uses" in fault(lambda: [None for _ in Video(path)])
    assert len(list(Video(path, partial=True))) >= 160


def test_what_is_done_about_hdr(tmp_path):
    """PyAV 17 leaves the curve as it is: the note says so."""

    def first(curve):
        colours = f"colorprim=bt2020:colormatrix=bt2020nc:transfer={curve}"
        how = {"pix": "yuv420p10le", "x264-params": colours}
        video = Video(film(tmp_path / f"{curve}.mp4", 5, paint=lambda n: grey, **how))
        return video.notes, next(iter(video))[2].astype(int)

    grey = np.full((H, W, 3), 150, np.uint8)
    (note,), shown = first("smpte2084")
    none, plain = first("bt2020-10")
    assert note.startswith("HDR (PQ), ") and not none
    is_changed = bool(np.abs(shown - plain).max() > 20)
    assert is_changed == ("brought to 8 bits" in note) != ("looks pale" in note)


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
    blob = film(tmp_path / "a.mp4", 10).read_bytes()
    for kind, words in ((b"zzzz", "unknown (zzzz"), (b"encv", "encrypted")):
        (tmp_path / "b.mp4").write_bytes(blob.replace(b"avc1", kind))
        line = fault(Video, tmp_path / "b.mp4")
        assert words in line and "\n" not in line, line
    with av.open(str(tmp_path / "c.mp4"), "w") as out:
        put_sound(out, *sound(out, 1))
    assert fault(Video, tmp_path / "c.mp4").endswith("there is no video in it, only sound or text")
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "1" * 32}
    film(tmp_path / "f.mp4", 10, muxer=key | {"encryption_kid": "2" * 32})
    assert "h264, is encrypted" in fault(Video, tmp_path / "f.mp4")
    with av.open(str(tmp_path / "g.mp4"), "w"):
        pass
    (tmp_path / "d.mp4").write_bytes(blob[:100])
    assert "not a readable video" in fault(Video, tmp_path / "d.mp4")
    (tmp_path / "e.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    assert "not a readable video" in fault(Video, tmp_path / "e.mp4")


# ---- five more


def test_a_phone_with_hdr_held_upright(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        colours = "log-level=none:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
        hevc = {"preset": "ultrafast", "x265-params": colours}
        track = add_track(out, "libx265", pix="yuv420p10le", **hevc)
        track.codec_context.color_trc, track.codec_context.color_primaries = 18, 9
        track.codec_context.colorspace = 9
        if not hasattr(track, "set_display_matrix"):
            pytest.skip("PyAV before 18 writes no rotation")
        track.set_display_matrix([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30])
        put(out, track, range(10), np.arange(10) / 30)
    video = Video(tmp_path / "a.mp4")
    assert video.notes == ["HDR (HLG), brought to 8 bits"]
    frames = [rgb for _, _, rgb in video]
    assert (video.width, video.height) == (H, W) and frames[0].shape == (W, H, 3)
    assert [number(np.rot90(rgb)) for rgb in frames] == list(range(10))  # it was turned back


def test_a_screen_recorder_between_1_and_60_frames_a_second(tmp_path):
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 10, 1.0], 80, p=[0.5, 0.3, 0.15, 0.05]))
    seconds -= seconds[0]
    numbers, read_at = read(film(tmp_path / "a.mp4", seconds=seconds))
    assert numbers == list(range(80)) and read_at == pytest.approx(seconds, abs=1e-4)
    assert filter.uneven(read_at)
    frame, even, fps = filter.evened(read_at, 30.0)
    late = even - read_at[frame]  # each row shows the last frame that had come
    assert late.min() > -0.25 / fps - 1e-6 and (late < np.diff(read_at, append=99)[frame]).all()


def test_twelve_hours_of_one_loop(tmp_path):
    """Packets written over and over: 43,200 frames, one a second."""
    source = film(tmp_path / "a.mp4", 60, g="20", bf="0")
    with av.open(str(source)) as file, av.open(str(tmp_path / "b.mp4"), "w") as out:
        track = out.add_stream_from_template(file.streams.video[0])
        packets = [(bytes(p), p.is_keyframe) for p in file.demux(video=0) if p.size]
        for n in range(43_200):
            blob, key = packets[n % 60]
            packet = av.Packet(blob)
            packet.stream, packet.time_base = track, Fraction(1, 1000)
            packet.pts = packet.dts = 1000 * n
            packet.is_keyframe = key
            out.mux(packet)
    video = Video(tmp_path / "b.mp4")
    assert video.duration == pytest.approx(43_200, rel=1e-3)
    began = time.process_time()
    frames, at = video.sample(25)
    spent = time.process_time() - began
    assert spent < 2, spent
    assert len(frames) == 25 and np.diff(at).max() < 1.1 * 43_200 / 24
    assert [number(rgb) for rgb in frames] == (np.round(at) % 60).astype(int).tolist()
    ((index, seconds, rgb),) = video.at([40_001])
    assert (index, number(rgb)) == (40_001, 40_001 % 60) and seconds == pytest.approx(40_001)


def test_a_stream_that_changes_its_size_and_two_codecs_in_one_file(tmp_path):
    first = film(tmp_path / "a.ts", 20).read_bytes()
    large = film(
        tmp_path / "b.ts", 20, paint=lambda n: picture(n, 2 * W, 2 * H), size=(2 * W, 2 * H)
    )
    (tmp_path / "c.ts").write_bytes(first + large.read_bytes())
    sizes = {rgb.shape for _, _, rgb in read_video(tmp_path / "c.ts")}
    assert sizes == {(H, W, 3)} and read(tmp_path / "c.ts")[0] == [*range(20), *range(20)]
    with av.open(str(tmp_path / "d.mkv"), "w") as out:
        tracks = [add_track(out), add_track(out, "libsvtav1", preset="10", crf="10")]
        tracks[0].disposition = 0
        tracks[1].disposition = av.stream.Disposition.default.value
        for k, track in enumerate(tracks):
            put(out, track, range(100 * k, 100 * k + 20), np.arange(20) / 30)
    assert read(tmp_path / "d.mkv")[0] == list(range(100, 120))


def test_subtitles_first(tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nso be it\n")
    with av.open(str(tmp_path / "a.srt")) as words, av.open(str(tmp_path / "a.mkv"), "w") as out:
        text = out.add_stream_from_template(words.streams.subtitles[0])
        track = add_track(out)
        for packet in words.demux():
            packet.stream = text
            if packet.size:
                out.mux(packet)
        put(out, track, range(20), np.arange(20) / 30)
    assert read(tmp_path / "a.mkv")[0] == list(range(20))


# ---- what is written


@pytest.mark.parametrize("size", [(W, H), (W - 1, H - 1)])
def test_what_is_written_can_be_played_by_a_browser(tmp_path, size):
    w, h = size
    seconds = [0, 0.1, 0.5, 0.52, 0.52]
    with VideoWriter(tmp_path / "a.mp4", 30, w, h) as out:
        for n, at in enumerate(seconds):
            out.write(picture(n)[:h, :w], at)
    with av.open(str(tmp_path / "a.mp4")) as file:
        track = file.streams.video[0]
        assert (track.name, track.pix_fmt, track.width, track.height) == ("h264", "yuv420p", W, H)
    blob = (tmp_path / "a.mp4").read_bytes()
    assert blob.find(b"moov") < blob.find(b"mdat")  # it plays while it loads
    numbers, read_at = read(tmp_path / "a.mp4")
    assert numbers == list(range(5)) and read_at == pytest.approx(seconds, abs=1e-4)


def test_a_fork_does_not_free_the_decoders_of_its_parent(tmp_path):
    """They have threads, which the fork has not: it would wait for them."""
    film(tmp_path / "a.mp4")
    track = Track(tmp_path / "a.mp4")
    frames = track.decoded()
    next(frames)
    track.itself = track  # garbage that only a collection frees
    track.frames_of_it = frames
    gc.disable()
    try:
        del track, frames
        child = os.fork()
        if not child:
            gc.collect()
            os._exit(0)
    finally:
        gc.enable()
    end = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the fork hangs")
        time.sleep(0.05)
