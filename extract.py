"""extract.py: find the controller overlay in a gameplay video (paper section 2.1).

    python extract.py VIDEO... [--out DIR] [--templates DIR] [--workers N | --ray ADDRESS] [--sheet]     DIR/<video stem>.overlay.safetensors
    python extract.py templates [--out FILE.png] [--templates DIR] [--family NAME]       contact sheet of the templates
    python extract.py bench [VIDEO... --pool 3000]                                       how fast they are drawn; and found, among so many
    python extract.py train [--minutes M] [--backgrounds DIR] [--out FILE]               weights of XFeat, from drawn pictures

In: any video that OpenCV reads; with --templates also your own overlay skins: OBS input-overlay
presets as they are, or NAME.json with {"idle": "rest.png", "pressed": "all_pressed.png", "buttons":
{"SOUTH": [x, y, w, h], ...}, "sticks": {"LEFT": [x, y, w, h, travel], ...}} (read_skins() says
more).  Out, per video and each of the P places that the overlay had in it, one after the other: the
affine that takes the template's canvas into the frame, float32 [P, 2, 3]; the box, int32 [P, 4];
first and last frame, int64 [P, 2] (`span`); and the temporal median of the registered crop, uint8
[P, h, w, 3]; and the template itself: its `atlas` and, in the metadata, its `elements` and
`layout`.  A video without an overlay gives `found: false` and the reason.

Also here, for parse.py and eval.py: `templates()`, and the one renderer that draws any template in
any state.  What draws the built-in templates is in templates/pads.py.

Coordinates: x right, y down, in px; pixel i covers i..i+1, so an overlay whose first pixel is (X,
Y), drawn at `scale`, has the affine [[scale, 0, X], [0, scale, Y]].
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import inspect
import itertools
import math
import os
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

from common import ROOT, artefact
from common.command_line import Common, Many, command_line, recipe_of
from common.pictures import JUMP, caption, read_video, sample, tile, video_facts, write_png
from common.workers import for_each

import cv2
import numpy as np
from tqdm import tqdm

from templates import library, pads, render, scenes, xfeat
from templates.pads import FAMILIES

MIN_INLIERS = 20  # paper 2.1
FRAMES = 25  # paper 2.1
WORK_WIDTH = 1280  # CHOICE: wider frames are searched at this width, and refined at their own
GROUNDS = (60, 150)  # CHOICE: grays behind the templates when their descriptors are taken
SCALES = (1.0, 0.5)  # CHOICE: of the templates then; SIFT bridges what lies between
WIDTHS = (0.08, 0.9)  # CHOICE: of an overlay, in widths of the frame
PROBES = 5  # cells of the index that a search looks into
ALIKE = {"sift": 0.88, "xfeat": 0.8}  # CHOICE: cosine of descriptors that may show the same thing
MOST = 1000  # CHOICE: keypoints of one picture of a template
INDICES = 8  # CHOICE: kept in data/index, and in data/descriptors, those used last
MIN_VOTES = 5  # CHOICE: matches that make a candidate; it must still be verified
# CHOICE: a place is accepted from inliers x likeness^2 = this x the paper's bar of inliers
# (docs/results.md: a table)
SURE = 0.15
# CHOICE: share of SURE below which a candidate is not looked at closely; on 46 videos none rose
# above it
HOPE = 0.25
# CHOICE: px: side of a square as large as a swept template; of the largest picture, the longer
SWEPT = (110, 900)
STEP = 1.07  # CHOICE: from the width of that picture to the next
FAINT = 2.0  # CHOICE: gray levels a px: an edge of this slope counts half
# CHOICE: likeness below which no number of inliers is enough: of 52 pictures turned by 90 degrees
# with a built-in overlay four were accepted, with 25 to 46 inliers of likeness 0.27 to 0.39
LIKE = 0.45
# CHOICE: agreement of edges x likeness^8 x likeness of what it adds, from which a swept template is
# there
AGREED = 0.001
THERE = 0.4  # CHOICE: a frame shows the overlay from this share of the better frames' likeness
MIN_STRETCH = 4  # CHOICE: sampled frames that an overlay stays at one place, at least


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    out: str = "data/labels"  # folder of the *.overlay.safetensors
    sheet: bool = False  # also write DIR/<stem>.overlay.png to look at
    min_inliers: int = MIN_INLIERS  # matches that agree on the place (paper 2.1: 20)
    frames: int = FRAMES  # frames sampled over the video (paper 2.1: 25)
    templates: str = ""  # folder of your own skins (OBS input-overlay presets): they come first
    xfeat: str = xfeat.XFEAT_WEIGHTS  # weights of XFeat: ours, or the official xfeat.pt


# ---- XFeat: learned features (arXiv 2404.19174) --------------------------------------------------
# Tensors are named as in the official state dict.  Per layer: channels in and out, kernel, stride
# of a convolution without bias; a BatchNorm without scale and shift, and a ReLU, follow.


def posed(template, width: float, ground=110):
    """(picture uint8 [h, w, 3], affine [2, 3] canvas -> picture): the untouched template, `width`
    px wide over a ground, with a rim; sides are multiples of 32, which `detect` does not resize."""
    scale, rim = width / template.size[0], 16
    w, h = (math.ceil((v * scale + 2 * rim) / 32) * 32 for v in template.size)
    picture = np.full((h, w, 3), ground, np.uint8)
    render.composite(picture, render.draw(template, np.zeros(16), np.zeros(4), scale), rim, rim)
    return picture, np.array([[scale, 0, rim], [0, scale, rim]])


# ---- localization (paper 2.1): frames, their median, SIFT; the best verified template, registered
# DEVIATION: the paper matches single frames with template after template and fits affines.  The
# overlay stands still and the game does not, so the temporal median of the frames shows it best;
# and each SIFT match already says how large and where the template would be, so all templates are
# searched at once: matches vote (Lowe, IJCV 2004, section 7.3).


def middle(images):
    """Temporal median (the upper one of an even number): what stands still stays sharp.

    Of any n // 2 + 2 of n images neither the least nor the greatest is the median: both are
    forgotten for one of the rest, and so on. In rows that the cache holds, this takes a twentieth
    of the time of np.partition.
    """
    result, n = np.empty_like(images[0]), len(images) // 2 + 2
    # a white one makes an even number odd
    odd = [*images, *[np.full_like(result, 255)] * (1 - len(images) % 2)]
    for y in range(0, len(result), 8):
        rows = [image[y : y + 8] for image in odd]
        kept, rest = rows[:n], rows[n:]
        while len(kept) > 1:
            # the greatest goes to the end, then the least to the front
            for i in [*range(len(kept) - 1), *range(len(kept) - 3, -1, -1)]:
                kept[i], kept[i + 1] = (
                    np.minimum(kept[i], kept[i + 1]),
                    np.maximum(kept[i], kept[i + 1]),
                )
            kept, rest = kept[1:-1] + rest[:1], rest[1:]
        result[y : y + 8] = kept[0]
    return result


def sift(rgb):
    """SIFT of an RGB image: (x, y, size in px, angle in degrees) float32 [n, 4]; descriptors uint8
    [n, 128].
    """
    found, descriptors = cv2.SIFT_create(8000, contrastThreshold=0.02).detectAndCompute(
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None
    )
    if not found:
        return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    return np.array(
        [(k.pt[0] + 0.5, k.pt[1] + 0.5, k.size, k.angle) for k in found], np.float32
    ), descriptors.astype(np.uint8)


def root(descriptors):
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012): uint8 [n, 128] -> float32 [n, 128] of
    length 1.
    """
    descriptors = descriptors.astype(np.float32)
    return np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))


def features(rgb):
    """`sift`, its descriptors as `root` makes them."""
    points, descriptors = sift(rgb)
    return points, root(descriptors)


def learned(rgb, weights: str):
    """XFeat in the form of `features`: float32 [n, 4], float32 [n, 64].  It has neither sizes nor
    angles: 1 px and 0 degrees.
    """
    points, descriptors = xfeat.detect(rgb, xfeat.xfeat(weights))
    return np.column_stack([points, np.ones(len(points)), np.zeros(len(points))]).astype(
        np.float32
    ), descriptors


def detectors(weights: str) -> dict:
    return {"sift": features, "xfeat": functools.partial(learned, weights=weights)}


def poses(template, detector: str):
    """The pictures of a template that are described: (picture, affine [2, 3] canvas -> picture).
    XFeat bears less change of scale.
    """
    if detector == "xfeat":
        return [posed(template, width) for width in xfeat.XFEAT_WIDTHS]
    return [
        (render.idle(template, ground, scale), np.array([[scale, 0, 0], [0, scale, 0]]))
        for ground in GROUNDS
        for scale in SCALES
    ]


def described(pool: library.Pool, names: list, detector: str, weights: str) -> dict:
    """What `detector` finds in the templates of these names: points float32 [n, 4], in canvas px;
    descriptors [n, d], SIFT's as uint8; owner int32 [n], number in `names`; sizes float32
    [templates, 2], px."""
    find = sift if detector == "sift" else functools.partial(learned, weights=weights)

    def one(name):
        template, found = pool[name], []
        for picture, affine in poses(template, detector):
            points, descriptors = find(picture)
            found.append(
                (
                    ((points - (*affine[:, 2], 0, 0)) / (*[affine[0, 0]] * 3, 1))[:MOST].astype(
                        np.float32
                    ),
                    descriptors[:MOST],
                )
            )
        return template.size, *map(np.concatenate, zip(*found))

    # In threads it is 1.3 to 1.5 times as fast on two cores: OpenCV runs beside Python, in which
    # templates are drawn.  PyTorch uses all cores by itself.
    threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() if detector == "sift" else 1)
    try:
        sizes, points, descriptors = zip(
            *tqdm(
                threads.map(one, names),
                "templates described, once",
                len(names),
                leave=False,
                mininterval=2,
            )
        )
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C: what has not begun does not begin
    return {
        "points": np.concatenate(points),
        "descriptors": np.concatenate(descriptors),
        "sizes": np.array(sizes, np.float32),
        "owner": np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, points))),
    }


def kept(folder: str, digest: str, make, **facts) -> dict:
    """The tensors that `make()` makes, read from data/`folder` if they were made before; of those
    there, the ones used last stay.
    """
    path, form = ROOT / "data" / folder / f"{digest}.safetensors", f"nitrogen.{folder}/1"
    with contextlib.suppress(SystemExit):  # not there, or broken: made anew
        tensors = artefact.read(path, form)[0]
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use
        return tensors
    tensors = make()
    # a folder that cannot be written costs time, nothing else
    with contextlib.suppress(OSError, SystemExit):
        artefact.write(path, tensors, form, **facts)
        for old in sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)[
            :-INDICES
        ]:
            old.unlink(missing_ok=True)
    return tensors


def bank_of(pool: library.Pool, detector: str, weights: str = xfeat.XFEAT_WEIGHTS) -> dict:
    """The pool's `index`, read once."""
    if (detector, weights) not in pool.indices:
        pool.indices[detector, weights] = index(pool, detector, weights)
    return pool.indices[detector, weights]


def index(pool: library.Pool, detector: str, weights: str):
    """Descriptors of all templates, sorted into cells of like ones, so that a search looks at few:
    kept in data/index for the next time.

    points float32 [n, 4] as `features`, in canvas px; descriptors int8 [n, d], 127 = 0.5; owner
    int32 [n], number in the pool; centers float32 [cells, d]; start int64 [cells + 1]; sizes
    float32 [templates, 2], px.
    """
    # all that the descriptors follow from
    drawing = "".join(map(inspect.getsource, (pads, render, sift, root, learned, poses, described)))
    drawing += repr((GROUNDS, SCALES, MOST, xfeat.XFEAT_WIDTHS))
    network = (
        b"".join(v.numpy().tobytes() for v in xfeat.xfeat(weights).values())
        if detector == "xfeat"
        else b""
    )
    digest = lambda names, more=b"": hashlib.sha256(
        (drawing + repr((detector, names))).encode() + network + more
    ).hexdigest()[:16]  # noqa: E731
    own, names = list(pool.own), [name for name in pool if name not in pool.own]

    def builtin_ones():
        return described(pool, names, detector, weights)

    def make():
        # A person adds or changes own templates and tries again: the built-in ones are not
        # described anew then.  XFeat's descriptors would take four times the room, and are asked
        # for only where SIFT shows nothing.
        parts = [
            kept("descriptors", digest(names), builtin_ones, templates=names)
            if detector == "sift"
            else builtin_ones()
        ]
        if own:
            parts = [
                described(pool, own, detector, weights),
                {**parts[0], "owner": parts[0]["owner"] + len(own)},
            ]
        points, descriptors, owner, sizes = (
            np.concatenate([part[key] for part in parts])
            for key in ("points", "descriptors", "owner", "sizes")
        )
        descriptors = root(descriptors) if detector == "sift" else descriptors
        centers = descriptors[
            np.random.default_rng(0).permutation(len(points))[
                : max(1, min(len(points) // 128, 8192))
            ]
        ]
        cell = np.concatenate(
            [(descriptors[i : i + 8192] @ centers.T).argmax(1) for i in range(0, len(points), 8192)]
        )
        order = np.argsort(cell, kind="stable")
        return {
            "points": points[order],
            "descriptors": (descriptors[order] * 254).clip(-127, 127).astype(np.int8),
            "owner": owner[order],
            "centers": centers,
            "start": np.searchsorted(cell[order], np.arange(len(centers) + 1)),
            "sizes": sizes,
        }

    skins = b"".join(
        t.atlas.tobytes() + repr((t.size, t.elements)).encode() for t in pool.own.values()
    )
    return kept("index", digest(list(pool), skins), make, templates=list(pool))


def match(descriptors, bank, least: float):
    """All pairs of descriptors with a cosine above `least`, a picture's and the templates': (row
    there, row in the bank), int [m] each.
    """
    import torch

    probes = min(PROBES, len(bank["centers"]))
    cell = (
        torch.topk(torch.from_numpy(descriptors @ bank["centers"].T), probes, sorted=False)[1]
        .numpy()
        .ravel()
    )
    order = np.argsort(cell, kind="stable")
    row, edges, pairs = (
        (np.arange(len(cell)) // probes)[order],
        np.searchsorted(cell[order], np.arange(len(bank["centers"]) + 1)),
        [],
    )
    for c in np.unique(cell):
        here, there = row[edges[c] : edges[c + 1]], slice(bank["start"][c], bank["start"][c + 1])
        a, b = np.nonzero(
            descriptors[here] @ bank["descriptors"][there].astype(np.float32).T > least * 254
        )
        pairs.append((here[a], b + there.start))
    return (
        tuple(np.concatenate(column) for column in zip(*pairs))
        if pairs
        else (np.zeros(0, int), np.zeros(0, int))
    )


def vote(points, pairs, bank, frame_w, keep=12):
    """The templates that most matches agree on, one place each: [(votes, template's number,
    affine)], best first.

    A match says scale (from the keypoints' sizes) and centre of the canvas; votes are counted in
    overlapping bins of 35 % in scale and a fifth of the overlay's width in place.  DEVIATION: scale
    and shift are fitted, not an affine (an overlay stands upright).
    """
    a, b = pairs
    owner, scale = bank["owner"][b], points[a, 2] / bank["points"][b, 2]
    width, turn = (
        scale * bank["sizes"][owner, 0] / frame_w,
        (points[a, 3] - bank["points"][b, 3] + 180) % 360 - 180,
    )
    ok = (np.abs(turn) < 25) & (width > 0.7 * WIDTHS[0]) & (width < 1.4 * WIDTHS[1])
    a, b, owner, scale = a[ok], b[ok], owner[ok], scale[ok]
    centre = points[a, :2] + scale[:, None] * (bank["sizes"][owner] / 2 - bank["points"][b, :2])
    bins = []
    for shift in itertools.product((0, 0.5), repeat=3):
        level = np.floor(np.log(scale) / 0.3 + shift[0])
        side = 0.2 * np.exp(0.3 * (level - shift[0] + 0.5)) * bank["sizes"][owner, 0]
        x, y = (np.floor(centre[:, k] / side + shift[1 + k]) for k in (0, 1))
        key = (((owner * 64 + level + 32) * 1024 + x + 256) * 1024 + y + 256).astype(np.int64)
        # a keypoint has one vote in a bin
        _, one = np.unique(key * len(points) + a, return_index=True)
        _, which, count = np.unique(key[one], return_inverse=True, return_counts=True)
        bins += [
            (int(count[k]), one[which == k])
            for k in np.argsort(-count, kind="stable")[: 4 * keep]
            if count[k] >= MIN_VOTES
        ]
    found = {}
    for votes, rows in sorted(bins, key=lambda v: -v[0]):
        number = int(owner[rows[0]])
        if number not in found and len(found) < keep:
            source, target = bank["points"][b[rows], :2], points[a[rows], :2]
            i, j = np.triu_indices(min(len(rows), 80), 1)
            far = np.linalg.norm(source[i] - source[j], axis=1)
            if (far > 20).sum() >= 3:
                size = np.median(
                    (np.linalg.norm(target[i] - target[j], axis=1) / far.clip(1))[far > 20]
                )
                x, y = np.median(target - size * source, axis=0)
                if WIDTHS[0] < size * bank["sizes"][number, 0] / frame_w < WIDTHS[1]:
                    found[number] = votes, number, np.array([[size, 0, x], [0, size, y]])
    return list(found.values())


def count_inliers(points, pairs, bank, number: int, affine, tolerance=3.0) -> int:
    """Keypoints that a template's own ones fall on, within `tolerance` px."""
    mine = bank["owner"][pairs[1]] == number
    a, b = pairs[0][mine], pairs[1][mine]
    near = (
        np.linalg.norm(
            bank["points"][b, :2] * np.diag(affine[:, :2]) + affine[:, 2] - points[a, :2], axis=1
        )
        < tolerance
    )
    return len(np.unique(a[near]))


def plausible(affine, size, frame_w, frame_h):
    """Aspect near 1, of a sensible size, inside the frame."""
    (a, _, x), (_, d, y) = affine
    w, h, slack = a * size[0], d * size[1], 0.04 * a * size[0]
    fits = min(x, y) > -slack and x + w < frame_w + slack and y + h < frame_h + slack
    return min(a, d) > 0 and 0.8 < a / d < 1.25 and WIDTHS[0] < w / frame_w < WIDTHS[1] and fits


def refine(image, template, affine, widest=1000, steps=25):
    """Register the drawn template on `image`, uint8 RGB [h, w, 3], to a fraction of a px: (affine
    [2, 3], likeness -1..1).

    Gauss-Newton on scale and position: per step, weighted least squares over the overlay's pixels p
    for image(p) + gradient(p) . dp = gain x template(p) + bias; pixels that disagree (sticks,
    pressed buttons) weigh less. widest: resolution at which to compare, px across; fewer is faster.
    """
    a = np.array([[affine[0][0], 0, affine[0][2]], [0, affine[1][1], affine[1][2]]], float)
    start, (w, h) = a.copy(), template.size
    scale = min(max(32, round(w * a[0, 0])), widest) / w
    drawn = render.draw(template, np.zeros(16), np.zeros(4), scale).astype(np.float32)
    rows, cols = drawn.shape[:2]
    size = cols / scale, rows / scale  # what the drawn pixels cover, canvas px
    near = cv2.dilate(drawn[..., 3], np.ones((5, 5))) / 255
    on = np.flatnonzero(near > 0.3)  # the overlay's pixels and a rim around them
    v, u = (np.repeat((m + 0.5).astype(np.float32) / scale, 3) for m in np.divmod(on, cols))
    robust = weight = np.repeat(near.ravel()[on], 3)
    # a row per unknown: scale and shift in x, in y, gain, bias
    system = -np.ones((6, 3 * len(on)), np.float32)
    there = lambda picture: picture.reshape(-1, 3)[on].ravel()  # noqa: E731
    for step in range(steps):
        seen = render.crop(image, a, size, cols, rows).astype(np.float32)
        if step == 0:
            model = there(render.expected(seen, drawn))
            system[4] = -model
        seen = render.band(seen)
        # per frame px
        system[1] = there(cv2.Sobel(seen, cv2.CV_32F, 1, 0, scale=0.125 * scale / a[0, 0]))
        system[3] = there(cv2.Sobel(seen, cv2.CV_32F, 0, 1, scale=0.125 * scale / a[1, 1]))
        np.multiply(system[1], u, system[0]), np.multiply(system[3], v, system[2])
        seen = there(seen)
        weighted = system * robust
        d = np.linalg.lstsq(weighted @ system.T, -weighted @ seen, rcond=None)[0]
        residual = seen + d.astype(np.float32) @ system
        # a fifth says it as well
        robust = weight / (1 + (residual / (1.5 * np.median(np.abs(residual[::5])) + 1e-3)) ** 2)
        a += np.array([[d[0], 0, d[1]], [0, d[2], d[3]]])
        if (
            not np.isfinite(a).all()
            or np.abs((a - start) @ (w, h, 1)).max() > 0.1 * w * start[0, 0]
            or min(a[0, 0], a[1, 1]) < 0.05
        ):
            return start, 0.0  # ran away: nothing to register on
        if np.abs(d[:4] * (w, 1, h, 1)).max() < 0.01:
            break
    # a frame of one colour shows nothing
    return a, float(np.corrcoef(model, seen)[0, 1]) if seen.std() > 1e-3 else 0.0


def confirmed(image, template, affine, widest=400, whole=False, without=0):
    """Median over the buttons and sticks of each one's own likeness, -1..1: one ring that fits does
    not make a controller.

    whole: over textures too, and sticks with the room that they move in: of two sticks alone, the
    median shows the rings. without=1: likeness of what they add to what is behind them: black lines
    on black add nothing, and else fit anything. It is times the share, to the fourth, of the
    overlay's pixels whose colour it can show at half opacity or more.
    """
    scale = min(max(32, round(template.size[0] * affine[0, 0])), widest) / template.size[0]
    drawn = render.draw(template, np.zeros(16), np.zeros(4), scale).astype(np.float32)
    rows, cols = drawn.shape[:2]
    seen, likes, share = (
        render.crop(image, affine, (cols / scale, rows / scale), cols, rows).astype(np.float32),
        [],
        1.0,
    )
    model = render.expected(seen, drawn, without=without)
    if without:
        # over black and over white, at half opacity
        low, high = drawn[..., :3] / 2, 255 - (drawn[..., 3:] - drawn[..., :3]) / 2
        share = np.average((np.maximum(low - seen, seen - high) < 12).all(2), weights=drawn[..., 3])
    seen = render.band(seen) - without * (render.expected(seen, drawn) - model)
    for e in template.elements:
        (x, y), (w, h), r = e.pos, e.mapping[2:], e.radius * whole
        part = tuple(
            slice(max(0, int((a - r) * scale)), math.ceil((a + n + r) * scale))
            for a, n in ((y, h), (x, w))
        )
        a, b = seen[part].ravel(), model[part].ravel()
        if (whole or e.kind != "texture") and a.size and a.std() > 0 and b.std() > 0:
            # 0.5: of noise
            likes.append(np.corrcoef(a, b)[0, 1] / (1 + 0.5 * without / (a.std() * b.std())))
    return float(np.median(likes) * share**4) if likes else -1.0


class Found(typing.NamedTuple):
    """A template, registered on a picture."""

    # inliers x likeness^2, in units of the paper's bar; `swept`: see there.  It is there from SURE
    # on
    score: float = 0.0
    inliers: int = 0
    likeness: float = 0.0  # -1..1
    template: str = ""  # "": nothing fits anywhere
    affine: typing.Any = None  # float64 [2, 3], template px -> picture px


def search(image, pool, cfg: Config) -> Found:
    """The best verified template in a picture.

    Verified: registered on the picture, then scored by inliers x likeness^2, over all candidates,
    not the first over a bar. XFeat is asked where SIFT shows nothing: it sees what is faint and
    small, and much that is not there.
    """
    names, best = list(pool), Found()
    for detector, describe in detectors(cfg.xfeat).items():
        bank, candidates, (points, descriptors) = (
            bank_of(pool, detector, cfg.xfeat),
            [],
            describe(image),
        )
        pairs = match(descriptors, bank, ALIKE[detector])
        for _, number, affine in vote(points, pairs, bank, image.shape[1]):
            if count_inliers(points, pairs, bank, number, affine, 8.0) >= MIN_VOTES:
                affine, like = refine(image, pool[names[number]], affine, widest=160, steps=10)
                candidates.append(
                    (
                        count_inliers(points, pairs, bank, number, affine) * max(like, 0) ** 2,
                        number,
                        affine,
                        like,
                    )
                )
        for value, number, affine, like in sorted(candidates, key=lambda f: -f[0])[:3]:
            # else it can only be the nearest place, as it is
            if value >= HOPE * SURE * cfg.min_inliers:
                affine, like = refine(image, pool[names[number]], affine, widest=400)
                like = min(like, confirmed(image, pool[names[number]], affine))
            inliers = count_inliers(points, pairs, bank, number, affine)
            if plausible(affine, pool[names[number]].size, *image.shape[1::-1]):
                score = inliers * max(like, 0) ** 2 / cfg.min_inliers
                score = score if like >= LIKE else min(score, HOPE * SURE)
                best = max(
                    best, Found(score, inliers, like, names[number], affine), key=lambda f: f.score
                )
        if best.score >= SURE:
            break
    return best


# Skins with few features: a d-pad alone, thin lines.  They are yours and few, so each is laid on
# the picture everywhere.


def edges(pictures):
    """Where pictures of one size have edges and which way these run: float32 [h, w, 2], vectors at
    twice the angle.

    They are about as long along any edge, faint or strong, and point the same way for light on dark
    as for dark on light: how bright an overlay is, and what shines through, hardly matters.
    """
    along, across, strength = 0, 0, FAINT**2
    for picture in pictures:
        soft = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
        x, y = (
            np.atleast_3d(cv2.Sobel(soft, cv2.CV_32F, *d, scale=0.125)) for d in ((1, 0), (0, 1))
        )
        along, across = along + (x * x - y * y).sum(2), across + 2 * (x * y).sum(2)
        strength = strength + (x * x + y * y).sum(2)
    return cv2.merge([along / strength, across / strength])


def spectrum(field, w: int, h: int):
    """Fourier transform of what `edges` gives, as complex numbers, on a sheet of at least w x h."""
    w, h = cv2.getOptimalDFTSize(w), cv2.getOptimalDFTSize(h)
    sheet = cv2.copyMakeBorder(
        field, 0, h - field.shape[0], 0, w - field.shape[1], cv2.BORDER_CONSTANT
    )
    return cv2.dft(sheet, flags=cv2.DFT_COMPLEX_OUTPUT, nonzeroRows=field.shape[0])


def layers(median, frames):
    """Spectra of the edges of a video at ever smaller sizes: [(w, h, spectrum)].

    Of the median, and of the standard deviation over time: opaque lines are dark there, however
    little they stand out from what is behind them on average, and buttons in use are bright.
    """
    tall, out = median.shape[0] / median.shape[1], []
    widest = SWEPT[1] / max(1, tall)
    size = round(widest), round(widest * tall)
    median, *small = (cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in (median, *frames))
    spread = np.std([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in small], axis=0, dtype=np.float32)
    for k in range(int(math.log(widest / SWEPT[0], STEP))):
        w, h = (round(v / STEP**k) for v in size)
        still, moving = (
            edges([cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA)]) for p in (median, spread)
        )
        out.append((w, h, spectrum((still + moving) / 2, w, h)))
    return out


def sweep(layers, template, frame_w: int, keep=2):
    """Where a template's edges run as the picture's do: [(agreement -1..1, affine)], the best few.

    The template is drawn once, over dark and over light, and laid on each of the layers: it is as
    much larger as they are smaller.
    """
    (w, h), rim, found, best = template.size, 3, [], []
    scale = SWEPT[0] * min(math.sqrt(w / h), 1.8) / w
    margin = (rim, rim), (rim, rim), (0, 0)
    mine = edges(
        [np.pad(render.idle(template, g, scale), margin, constant_values=g) for g in (40, 215)]
    )
    (rows, cols), weight = mine.shape[:2], np.hypot(*np.moveaxis(mine, 2, 0)).sum()
    for across, down, seen in layers:
        if rows <= down and cols <= across and weight > 1:  # a skin may be nothing at rest
            both = cv2.mulSpectrums(seen, spectrum(mine, across, down), 0, conjB=True)
            agree = (
                cv2.dft(both, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[
                    : down - rows + 1, : across - cols + 1, 0
                ]
                / weight
            )
            for _ in range(keep):
                _, value, _, (x, y) = cv2.minMaxLoc(agree)
                k, r = frame_w / across, max(2, cols // 12)
                found.append(
                    (
                        value,
                        np.array([[scale * k, 0, (x + rim) * k], [0, scale * k, (y + rim) * k]]),
                    )
                )
                agree[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = -1
    for value, a in sorted(found, key=lambda f: -f[0]):
        # a corner is elsewhere
        far = [
            np.abs((a - b) @ [[w, 0], [h, 0], [1, 1]]).max() > 0.1 * w * a[0, 0] for _, b in best
        ]
        if all(far) and len(best) < keep:
            best.append((value, a))
    return best


def swept(frames, median, pool, names) -> Found:
    """The best of the templates `names`, by how it looks alone: its score is SURE where the product
    at AGREED is as much.

    Of those that are there, the largest, for its likeness: a d-pad is also a part of a pad.
    """
    stack, rough, found = layers(median, frames), [], [Found()]
    for name in names:
        tries = []
        for agree, affine in sweep(stack, pool[name], median.shape[1]):
            affine, like = refine(median, pool[name], affine, widest=160, steps=6)
            tries.append((agree * like, agree, name, affine))
        rough += sorted(tries, key=lambda t: -t[0])[:1]
    for _, agree, name, affine in sorted(rough, key=lambda t: -t[0])[:3]:
        affine, like = refine(median, pool[name], affine, widest=400)
        parts, adds = (confirmed(median, pool[name], affine, whole=True, without=k) for k in (0, 1))
        like = min(like, parts)
        if plausible(affine, pool[name].size, *median.shape[1::-1]):
            found.append(
                Found(
                    SURE * agree * max(like, 0) ** 8 * max(adds, 0) / AGREED, 0, like, name, affine
                )
            )
    there = [f for f in found if f.score >= SURE]
    side = lambda f: math.sqrt(math.prod(pool[f.template].size) * f.affine[0, 0] * f.affine[1, 1])
    return (
        max(there, key=lambda f: f.likeness * side(f))
        if there
        else max(found, key=lambda f: f.score)
    )


def likeness(frames, template, affine):
    """Per frame, how well the template fits at this place: -1..1."""
    return np.array([refine(f, template, affine, widest=160, steps=2)[1] for f in frames])


def shown(frames, template, affine):
    """In which frames, in order, the template is there: bool [n].  Three neighbours are judged
    together, against the better half.
    """
    like = likeness(frames, template, affine)
    return (
        np.convolve(np.pad(like, 1, mode="edge"), np.ones(3) / 3, "valid")
        > THERE * np.sort(like)[len(like) // 2 :].mean()
    )


def runs(values):
    """[(first, last, value)] of the stretches of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(a, b - 1, values[a]) for a, b in zip(edges[:-1], edges[1:])]


def places(frames, pool, cfg: Config):
    """Where the overlay is, and when: (search's best result, [(first, last, affine)] in numbers of
    `frames`; none if it is nowhere).

    In the median of all frames; then in that of each stretch that does not show it there (an
    overlay may move or come late); if it is nowhere, in the thirds of the video.  CHOICE: one
    template per video.
    """
    place, affines, best, tried = np.full(len(frames), -1), [], Found(), set()
    todo = [range(len(frames))]
    while todo:
        rows = todo.pop()
        tried.add(rows)
        some = [frames[i] for i in rows]
        median = middle(some)
        result = search(median, pool, cfg)
        names = [
            n
            for n in (pool.own if len(rows) == len(frames) else [best.template] if affines else [])
            if n in pool.own
        ]
        if names and result.score < SURE:
            result = max(result, swept(some, median, pool, names), key=lambda f: f.score)
        if result.score < SURE:
            if len(rows) == len(frames):
                best, thirds = result, len(rows) // 3
                todo = [
                    range(k * thirds, (k + 1) * thirds) for k in range(3) if thirds >= MIN_STRETCH
                ]
        elif not affines or result.template == best.template:
            best, free = best if affines else result, np.flatnonzero(place < 0)
            here = free[shown([frames[i] for i in free], pool[result.template], result.affine)]
            place[here] = len(affines)
            affines.append(result.affine)
            stretches = [range(a, b + 1) for a, b, value in runs(place) if value < 0]
            todo = [r for r in stretches if len(r) >= MIN_STRETCH and r not in tried]
    for a, b, value in runs(place):  # a short gap is a glare, not an absence
        if value < 0 and b - a + 1 < MIN_STRETCH and affines:
            place[a : b + 1] = place[a - 1] if a else place[b + 1]
    return best, [(a, b, affines[value]) for a, b, value in runs(place) if value >= 0]


def edge(video, inside: int, outside: int, template, affine):
    """The last frame, from `inside` towards `outside`, that shows the template at this place."""
    while abs(outside - inside) > 1:
        asked = np.unique(np.linspace(inside, outside, 18).round().astype(int))
        like = likeness([f for _, _, f in read_video(video, asked, JUMP)], template, affine)
        asked, like = (asked, like) if inside < outside else (asked[::-1], like[::-1])
        n = np.arange(1, len(like))  # where to cut, so that the two sides differ most
        before, after = np.cumsum(like)[:-1] / n, np.cumsum(like[::-1])[-2::-1] / n[::-1]
        k = int(np.argmax(np.sign(before - after) * (before - after) ** 2 * n * n[::-1]))
        inside, outside = int(asked[k]), int(asked[k + 1])
    return inside


def locate(video, pool, cfg: Config):
    """Find the overlay of a video: (tensors, info) as in artefact.FORMATS["nitrogen.overlay/1"],
    and the sampled frames.
    """
    frames, numbers, count = sample(video, cfg.frames)
    frame_h, frame_w = frames[0].shape[:2]
    shrink = min(1.0, WORK_WIDTH / frame_w)
    small = (
        [cv2.resize(f, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) for f in frames]
        if shrink < 1
        else frames
    )
    best, found = places(small, pool, cfg)
    about = dict(found=bool(found), inliers=best.inliers, score=round(best.score, 3))
    if not found:
        about["reason"] = "no template fits anywhere"
        if best.template:
            about["reason"] = (
                f"nearest: {best.template} with {best.inliers} inliers of likeness {best.likeness:.2f}"
            )
            about["nearest"] = [
                round(float(v) / shrink, 1)
                for v in (*best.affine[:, 2], *np.diag(best.affine) * pool[best.template].size)
            ]
        return {}, about, frames
    template, rows = pool[best.template], []
    w, h = template.size
    for first, last, affine in found:
        affine, margin = affine / shrink, 8
        x0, y0 = (max(0, int(v) - margin) for v in affine[:, 2])
        part = middle(
            [
                f[y0:, x0:][
                    : math.ceil(h * affine[1, 1]) + 2 * margin,
                    : math.ceil(w * affine[0, 0]) + 2 * margin,
                ]
                for f in frames[first : last + 1]
            ]
        )
        offset = np.array([[0, 0, x0], [0, 0, y0]])
        affine, like = refine(part, template, affine - offset)
        size = (
            (round(w * affine[0, 0]), round(h * affine[1, 1]))
            if not rows
            else rows[0][3].shape[1::-1]
        )
        still = render.crop(part, affine, (w, h), *size)
        affine = affine + offset
        begin = edge(video, numbers[first], numbers[first - 1], template, affine) if first else 0
        end = (
            edge(video, numbers[last], numbers[last + 1], template, affine)
            if last + 1 < len(numbers)
            else count - 1
        )
        rows.append((affine, (begin, end), like, still))
    affines, spans, likes, stills = (list(column) for column in zip(*rows))
    corners = np.stack(
        [np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ a.T for a in affines]
    )
    low, high = (
        np.floor(corners.min(1)).clip(0),
        np.ceil(corners.max(1)).clip(0, (frame_w, frame_h)),
    )
    tensors = {
        "affine": np.stack(affines).astype(np.float32),
        "corners": corners.astype(np.float32),
        "bbox": np.concatenate([low, high - low], 1).astype(np.int32),
        "span": np.array(spans, np.int64),
        "median": np.stack(stills),
        "atlas": template.atlas,
    }
    info = dict(
        **about,
        template=best.template,
        family=template.family,
        layout=render.layout(template),
        elements=[asdict(e) for e in template.elements],
        votes=sum(b - a + 1 for a, b, _ in found),
        sampled=numbers,
        likeness=round(float(np.mean(likes)), 3),
        frame_size=[frame_w, frame_h],
    )
    return tensors, info, frames


def video_sheet(path, frames, tensors, info, pool):
    """Six of the sampled frames with the box; the median crop and the template beside each other."""
    shown = []
    for k in range(0, len(frames), max(1, len(frames) // 6))[:6]:
        f = frames[k].copy()
        for corners, (first, last) in (
            zip(tensors["corners"], tensors["span"]) if info["found"] else ()
        ):
            if first <= info["sampled"][k] <= last:
                cv2.polylines(f, [np.round(corners).astype(np.int32)], True, (255, 60, 60), 2)
        shown.append(
            cv2.resize(f, (480, round(480 * f.shape[0] / f.shape[1])), interpolation=cv2.INTER_AREA)
        )
    if info["found"]:
        still, template = tensors["median"][0], pool[info["template"]]
        drawn = render.idle(template, (90, 90, 90), still.shape[1] / template.size[0])
        text = f"{info['template']}: {info['inliers']} inliers, {info['votes']}/{len(frames)} votes, likeness {info['likeness']}"
        shown += [caption(still, "median crop"), caption(drawn, text)]
    else:
        shown[0] = caption(shown[0], info["reason"])
    write_png(path, tile(shown, 3))


@dataclass(frozen=True)
class SheetConfig(Common):
    out: str = "data/templates.png"  # picture to write
    templates: str = ""  # folder of your own skins: they come first
    family: str = ""  # only this family, larger


def template_sheet(cfg: SheetConfig):
    """All templates, untouched and in a random state, over two backgrounds."""
    rng, pictures, width = np.random.default_rng(cfg.seed), [], 320 if cfg.family else 184
    every = library.pool(cfg.templates)
    shown = [every[n] for n in every if cfg.family in ("", every.family(n))]
    if not shown:
        raise SystemExit(f"--family {cfg.family}: none of that; there are {', '.join(FAMILIES)}")
    for t in shown:
        scale = min(width / t.size[0], 0.75 * width / t.size[1])
        for state in ((np.zeros(16), np.zeros(4)), (rng.random(16) < 0.4, rng.uniform(-1, 1, 4))):
            picture = render.draw(t, *state, scale)
            ground = np.full((picture.shape[0] + 8, width + 10, 3), (66, 104, 78), np.uint8)
            ground[:, ground.shape[1] // 2 :] = (200, 190, 170)
            render.composite(ground, picture, (ground.shape[1] - picture.shape[1]) // 2, 4)
            pictures.append(caption(ground, t.name))
    write_png(cfg.out, tile(pictures, 6 if cfg.family else 14))
    print(f"{len(shown)} templates -> {cfg.out}")


# ---- many videos ---------------------------------------------------------------------------------


def label(cfg: Config, video: str) -> dict:
    """Localize one video and write its artefact; returns the metadata.  A finished output is kept."""
    path = Path(cfg.out) / f"{Path(video).stem}.overlay.safetensors"
    video_facts(video)
    recipe = recipe_of(cfg, video, *scenes.files_in(cfg.templates))
    kept, picture = (
        artefact.finished(path, "nitrogen.overlay/1", recipe, cfg.fresh),
        path.with_suffix(".png"),
    )
    tensors, info, frames = (
        (*artefact.read(path, "nitrogen.overlay/1"), None)
        if kept
        else locate(video, library.pool(cfg.templates), cfg)
    )
    if cfg.sheet and not (kept and picture.exists()):
        video_sheet(
            picture,
            sample(video, cfg.frames)[0] if kept else frames,
            tensors,
            info,
            library.pool(cfg.templates),
        )
    if not kept:
        artefact.write(path, tensors, "nitrogen.overlay/1", recipe=recipe, **info)
    if info["found"]:
        what = f"{info['template']} with {info['inliers']} inliers, {info['votes']}/{len(info['sampled'])} frames agree"
        tqdm.write(f"{video}: {what} -> {path}{' (kept)' if kept else ''}")
    return {"video": video, "path": str(path), **info}


def main(cfg: Config):
    if cfg.frames < 3 or cfg.min_inliers < 4:
        raise SystemExit("--frames must be at least 3 and --min-inliers at least 4")
    print(
        f"{len(cfg.videos)} videos -> {cfg.out}: {len(library.pool(cfg.templates))} templates, {cfg.frames} frames each, "
        f"bar {cfg.min_inliers} inliers; a few seconds a video"
    )
    if cfg.videos:
        bank_of(library.pool(cfg.templates), "sift")  # made here, once; the workers find it on disk
    for_each(functools.partial(label, cfg), cfg.videos, cfg.workers, ray=cfg.ray, summary=summary)


def summary(done: list) -> None:
    absent = [
        f"{d['video']}: no overlay found ({d['reason']}) -> {d['path']}"
        for d in done
        if not d["found"]
    ]
    if len(done) == 1 and absent:
        raise SystemExit(absent[0])
    print("\n".join(absent + [f"overlay found in {len(done) - len(absent)} of {len(done)} videos"]))


if __name__ == "__main__":
    command_line(
        __doc__,
        {
            "": (Config, main),
            "templates": (SheetConfig, template_sheet),
            "bench": "bench.templates",
            "train": "templates.xfeat_training",
        },
    )
