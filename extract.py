"""extract.py: find the controller overlay in a gameplay video (paper section 2.1).

    python extract.py VIDEO... [--out DIR] [--templates DIR] [--workers N | --ray ADDRESS] [--sheet]
        DIR/<video stem>.overlay.safetensors
    python extract.py templates [--out FILE.png] [--templates DIR] [--family NAME]
        contact sheet of the templates
    python extract.py bench [VIDEO... --pool 3000]
        how fast they are drawn; and found, among so many
    python extract.py train [--minutes M] [--backgrounds DIR] [--out FILE]
        weights of XFeat, from drawn pictures

In: any video that FFmpeg reads; with --templates also your own overlay skins: OBS input-overlay
presets as they are, or NAME.json with {"idle": "rest.png", "pressed": "all_pressed.png", "buttons":
{"SOUTH": [x, y, w, h], ...}, "sticks": {"LEFT": [x, y, w, h, travel], ...}} (docs/presets.md says
more).  Out, per video and each of the P places that the overlay had in it, one after the other: the
affine that takes the template's canvas into the frame, float32 [P, 2, 3]; the box, int32 [P, 4];
first and last frame, int64 [P, 2] (`span`); and the temporal median of the registered crop, uint8
[P, h, w, 3]; and the template itself: its `atlas` and, in the metadata, its `elements` and
`layout`.  A video without an overlay gives `found: false` and the reason.

templates/ has what a template is: its renderer, the built-in ones, yours (presets.py), and the
features by which it is found.

Coordinates: x right, y down, in px; pixel i covers i..i+1, so an overlay whose first pixel is (X,
Y), drawn at `scale`, has the affine [[scale, 0, X], [0, scale, Y]].
"""

from __future__ import annotations

import functools
import itertools
import math
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

from common import artefact
from common.command_line import Many, command_line, recipe_of
from common.pictures import Video
from common.workers import for_each

import cv2
import numpy as np
from tqdm import tqdm

from templates import library, render, scenes, xfeat
from templates.features import bank_of, detectors, match
from templates.sheet import video_sheet
from templates.sweep import layers, sweep

FORMAT = "nitrogen.overlay/1"
MIN_INLIERS = 20  # paper 2.1
FRAMES = 25  # paper 2.1
WORK_WIDTH = 1280  # CHOICE: wider frames are searched at this width, and refined at their own
WIDTHS = (0.08, 0.9)  # CHOICE: of an overlay, in widths of the frame
ALIKE = {"sift": 0.88, "xfeat": 0.8}  # CHOICE: cosine of descriptors that may show the same thing
CANDIDATES = 12  # CHOICE: templates of one picture that are verified
MIN_VOTES = 5  # CHOICE: matches that make a candidate; it must still be verified
# CHOICE: a place is accepted from inliers x likeness^2 = this x the paper's bar of inliers
# (docs/results.md: a table)
SURE = 0.15
# CHOICE: share of SURE below which a candidate is not looked at closely; on 46 videos none rose
# above it
HOPE = 0.25
# CHOICE: likeness below which no number of inliers is enough: of 52 pictures turned by 90 degrees
# with a built-in overlay four were accepted, with 25 to 46 inliers of likeness 0.27 to 0.39
LIKE = 0.45
# CHOICE: agreement of edges x likeness^8 x likeness of what it adds x reaction^16, from which a
# swept template is there
AGREED = 0.0002
THERE = 0.4  # CHOICE: a frame shows the overlay from this share of the better frames' likeness
HELD = 2560 * 1440  # px, of frames that are held as they are; larger ones at WORK_WIDTH
MIN_STRETCH = 4  # CHOICE: sampled frames that an overlay stays at one place, at least


@dataclass(frozen=True)
class Config(Many):
    # videos, folders of them, patterns in quotes, or @list.txt: a file that names one per line
    videos: tuple[str, ...] = ()
    out: str = "data/labels"  # folder of the *.overlay.safetensors
    sheet: bool = False  # also write DIR/<stem>.overlay.png to look at
    # of a video that breaks off, use what is there, also where that is less than 90 %
    partial: bool = False
    min_inliers: int = MIN_INLIERS  # matches that agree on the place (paper 2.1: 20)
    frames: int = FRAMES  # frames sampled over the video (paper 2.1: 25)
    templates: str = ""  # folder of your own skins (OBS input-overlay presets): they come first
    xfeat: str = xfeat.XFEAT_WEIGHTS  # weights of XFeat: ours, or the official xfeat.pt


# ---- localization (paper 2.1): frames, their median, SIFT; the best verified template, registered
# DEVIATION: the paper matches single frames with template after template and fits affines.  The
# overlay stands still and the game does not, so the temporal median of the frames shows it best;
# and each SIFT match already says how large and where the template would be, so all templates are
# searched at once: matches vote (Lowe, IJCV 2004, section 7.3).


def middle(images):
    """Temporal median (the upper one of an even number): what stands still stays sharp.

    Of any n // 2 + 2 of n images neither the least nor the greatest is the median: both are
    dropped, and one of the rest comes in, until one is left.  In rows that the cache holds, this
    takes a twentieth of the time of np.partition.
    """
    keep = len(images) // 2 + 2
    if len(images) % 2 == 0:
        images = [*images, np.full_like(images[0], 255)]  # a white one makes the number odd
    result = np.empty_like(images[0])
    for y in range(0, len(result), 8):
        rows = [image[y : y + 8] for image in images]
        some, rest = rows[:keep], rows[keep:]
        while len(some) > 1:
            last = len(some) - 1
            # the greatest goes to the end, then the least to the front
            for i in [*range(last), *range(last - 2, -1, -1)]:
                pair = some[i], some[i + 1]
                some[i], some[i + 1] = np.minimum(*pair), np.maximum(*pair)
            some, rest = some[1:-1] + rest[:1], rest[1:]
        result[y : y + 8] = some[0]
    return result


def bins(keypoint, owner, scale, centre, width):
    """Matches that say about the same place of the same template: [rows], the most first.

    A bin is 35 % wide in scale, and a fifth of the overlay's width (`width` px at scale 1) in
    place; bins overlap by half.  A keypoint has one vote in a bin.
    """
    found = []
    for shift in itertools.product((0, 0.5), repeat=3):
        level = np.floor(np.log(scale) / 0.3 + shift[0])
        side = 0.2 * np.exp(0.3 * (level - shift[0] + 0.5)) * width
        x = np.floor(centre[:, 0] / side + shift[1])
        y = np.floor(centre[:, 1] / side + shift[2])
        # one number per bin: (template, scale, x, y), each with room for what it can be
        key = (((owner * 64 + level + 32) * 1024 + x + 256) * 1024 + y + 256).astype(np.int64)
        ballot = key * (keypoint.max(initial=0) + 1) + keypoint
        _, one = np.unique(ballot, return_index=True)
        _, which, count = np.unique(key[one], return_inverse=True, return_counts=True)
        fullest = np.argsort(-count, kind="stable")[: 4 * CANDIDATES]
        found += [one[which == k] for k in fullest if count[k] >= MIN_VOTES]
    return sorted(found, key=lambda rows: -len(rows))


def fitted(source, target):
    """Median (scale, x, y) of target = scale x source + (x, y), points [n, 2] px; None if fewer
    than three pairs of points are far enough apart."""
    i, j = np.triu_indices(min(len(source), 80), 1)
    apart = np.linalg.norm(source[i] - source[j], axis=1)
    far = apart > 20
    if far.sum() < 3:
        return None
    ratio = np.linalg.norm(target[i] - target[j], axis=1) / apart.clip(1)
    scale = np.median(ratio[far])
    return scale, *np.median(target - scale * source, axis=0)


def vote(points, pairs, bank, frame_w):
    """The templates that most matches agree on, one place each: [(template's number, affine)], best
    first.

    points: of the picture, float32 [n, 4]: x, y, size in px, angle in degrees; bank: the same of
    all templates, see features.index; pairs: int [2, m], rows of the two that are alike.

    A match says the scale (from the keypoints' sizes) and the centre of the canvas.  DEVIATION:
    scale and shift are fitted, not an affine (an overlay stands upright).
    """
    a, b = pairs
    sizes = bank["sizes"][bank["owner"][b]]  # of the canvas, w, h
    scale = points[a, 2] / bank["points"][b, 2]
    width = scale * sizes[:, 0] / frame_w
    turn = (points[a, 3] - bank["points"][b, 3] + 180) % 360 - 180
    ok = (np.abs(turn) < 25) & (width > 0.7 * WIDTHS[0]) & (width < 1.4 * WIDTHS[1])
    a, b, sizes, scale = a[ok], b[ok], sizes[ok], scale[ok]
    owner = bank["owner"][b]
    centre = points[a, :2] + scale[:, None] * (sizes / 2 - bank["points"][b, :2])
    found = {}
    for rows in bins(a, owner, scale, centre, sizes[:, 0]):
        number = int(owner[rows[0]])
        if number in found or len(found) == CANDIDATES:
            continue
        fit = fitted(bank["points"][b[rows], :2], points[a[rows], :2])
        if fit and WIDTHS[0] < fit[0] * bank["sizes"][number, 0] / frame_w < WIDTHS[1]:
            size, x, y = fit
            found[number] = np.array([[size, 0, x], [0, size, y]])
    return list(found.items())


def count_inliers(points, pairs, bank, number: int, affine, tolerance=3.0) -> int:
    """Keypoints that a template's own ones fall on, within `tolerance` px."""
    mine = bank["owner"][pairs[1]] == number
    a, b = pairs[0][mine], pairs[1][mine]
    expected = bank["points"][b, :2] * np.diag(affine[:, :2]) + affine[:, 2]
    near = np.linalg.norm(expected - points[a, :2], axis=1) < tolerance
    return len(np.unique(a[near]))


def plausible(affine, size, frame_w, frame_h):
    """Aspect near 1, of a sensible size, inside the frame."""
    (a, _, x), (_, d, y) = affine
    w, h = a * size[0], d * size[1]
    slack = 0.04 * a * size[0]
    fits = min(x, y) > -slack and x + w < frame_w + slack and y + h < frame_h + slack
    return min(a, d) > 0 and 0.8 < a / d < 1.25 and WIDTHS[0] < w / frame_w < WIDTHS[1] and fits


def ran_away(affine, start, size) -> bool:
    """Whether a corner of the canvas went further than a tenth of the overlay's width, or the scale
    went to nothing."""
    if not np.isfinite(affine).all() or min(affine[0, 0], affine[1, 1]) < 0.05:
        return True
    return np.abs((affine - start) @ (*size, 1)).max() > 0.1 * size[0] * start[0, 0]


def least_squares(system, target, weight):
    """Weighted least squares of d @ system = target: (d float64 [6], misfit float32 [n]).

    system: float32 [6, n]; target, weight: float32 [n].  The misfit, 1 or more, divides the next
    weights.
    """
    weighted = system * weight
    d = np.linalg.lstsq(weighted @ system.T, weighted @ target, rcond=None)[0]
    residual = d.astype(np.float32) @ system - target
    # every fifth pixel gives the same median
    spread = 1.5 * np.median(np.abs(residual[::5])) + 1e-3
    return d, 1 + (residual / spread) ** 2


def laid(template, affine, widest: int):
    """(scale, the template at rest as float32 RGBA [rows, cols, 4], premultiplied), as large as it
    is displayed, but 32 to `widest` px across."""
    scale = min(max(32, round(template.size[0] * affine[0, 0])), widest) / template.size[0]
    return scale, render.at_rest(template, scale).astype(np.float32)


def cut_out(image, affine, scale: float, drawn):
    """What `image` shows where `drawn` lies: float32 RGB [rows, cols, 3]."""
    rows, cols = drawn.shape[:2]
    return render.crop(image, affine, (cols / scale, rows / scale), cols, rows).astype(np.float32)


def refine(image, template, affine, widest=1000, steps=25):
    """Register the drawn template on `image`, uint8 RGB [h, w, 3], to a fraction of a px: (affine
    [2, 3], likeness -1..1).

    Gauss-Newton on scale and position: per step, weighted least squares over the overlay's pixels p
    for image(p) + gradient(p) . dp = gain x template(p) + bias; pixels that disagree (sticks,
    pressed buttons) weigh less. widest: resolution at which to compare, px across; fewer is faster.
    """
    a = np.array([[affine[0][0], 0, affine[0][2]], [0, affine[1][1], affine[1][2]]], float)
    start = a.copy()
    w, h = template.size
    scale, drawn = laid(template, a, widest)
    near = cv2.dilate(drawn[..., 3], np.ones((5, 5))) / 255
    on = np.flatnonzero(near > 0.3)  # the overlay's pixels and a rim around them

    def there(picture):  # [rows, cols, 3] -> [3 x pixels]
        return picture.reshape(-1, 3)[on].ravel()

    v, u = (
        np.repeat((m + 0.5).astype(np.float32) / scale, 3) for m in np.divmod(on, drawn.shape[1])
    )
    robust = weight = np.repeat(near.ravel()[on], 3)
    # a row per unknown: scale and shift in x, in y, gain, bias
    system = -np.ones((6, 3 * len(on)), np.float32)
    for step in range(steps):
        seen = cut_out(image, a, scale, drawn)
        if step == 0:
            model = there(render.expected(seen, drawn))
            system[4] = -model
        seen = render.band(seen)
        # gradients per frame px
        system[1] = there(cv2.Sobel(seen, cv2.CV_32F, 1, 0, scale=0.125 * scale / a[0, 0]))
        system[3] = there(cv2.Sobel(seen, cv2.CV_32F, 0, 1, scale=0.125 * scale / a[1, 1]))
        np.multiply(system[1], u, out=system[0])
        np.multiply(system[3], v, out=system[2])
        seen = there(seen)
        d, misfit = least_squares(system, -seen, robust)
        robust = weight / misfit
        a += np.array([[d[0], 0, d[1]], [0, d[2], d[3]]])
        if ran_away(a, start, template.size):
            return start, 0.0  # nothing to register on
        if np.abs(d[:4] * (w, 1, h, 1)).max() < 0.01:
            break
    # a frame of one colour shows nothing
    return a, float(np.corrcoef(model, seen)[0, 1]) if seen.std() > 1e-3 else 0.0


def confirmed(image, template, affine, widest=400, whole=False):
    """Median over the buttons and sticks of each one's own likeness, -1..1: one ring that fits does
    not make a controller.

    whole: over textures too, and sticks with the room that they move in, since of two sticks alone
    the median shows the rings.
    """
    scale, drawn = laid(template, affine, widest)
    seen = cut_out(image, affine, scale, drawn)
    model = render.expected(seen, drawn)
    return median_likeness(template, scale, render.band(seen), model, whole)


def added(image, template, affine, widest=400):
    """`confirmed`, of what the template adds to what is behind it: black lines on black add
    nothing, and else fit anything.

    It is times the share, to the fourth, of the overlay's pixels whose colour it can show at half
    opacity or more.
    """
    scale, drawn = laid(template, affine, widest)
    seen = cut_out(image, affine, scale, drawn)
    over_black = drawn[..., :3] / 2
    over_white = 255 - (drawn[..., 3:] - drawn[..., :3]) / 2
    outside = np.maximum(over_black - seen, seen - over_white)
    share = np.average((outside < 12).all(2), weights=drawn[..., 3])
    model = render.expected(seen, drawn, added=True)
    behind = render.expected(seen, drawn) - model
    seen = render.band(seen) - behind
    return median_likeness(template, scale, seen, model, True, noise=0.5) * share**4


def median_likeness(template, scale: float, seen, model, whole: bool, noise=0.0) -> float:
    """Median over the elements of the correlation of two bands, float32 [rows, cols, 3]; -1 where
    there is none to compare.  noise: gray levels squared that count as unlike."""
    likes = []
    for e in template.elements:
        (x, y), (w, h) = e.pos, e.mapping[2:]
        r = e.radius * whole
        across = slice(max(0, int((x - r) * scale)), math.ceil((x + w + r) * scale))
        down = slice(max(0, int((y - r) * scale)), math.ceil((y + h + r) * scale))
        a, b = seen[down, across].ravel(), model[down, across].ravel()
        if (whole or e.kind != "texture") and a.size and a.std() > 0 and b.std() > 0:
            likes.append(np.corrcoef(a, b)[0, 1] / (1 + noise / (a.std() * b.std())))
    return float(np.median(likes)) if likes else -1.0


class Found(typing.NamedTuple):
    """A template, registered on a picture."""

    # inliers x likeness^2 in units of the paper's bar, or as `swept` says; accepted from SURE on
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
    names = list(pool)
    best = Found()
    for detector, describe in detectors(cfg.xfeat).items():
        bank = bank_of(pool, detector, cfg.xfeat)
        points, descriptors = describe(image)
        pairs = match(descriptors, bank, ALIKE[detector])
        inliers = functools.partial(count_inliers, points, pairs, bank)
        candidates = []
        for number, affine in vote(points, pairs, bank, image.shape[1]):
            if inliers(number, affine, 8.0) >= MIN_VOTES:
                affine, like = refine(image, pool[names[number]], affine, widest=160, steps=10)
                value = inliers(number, affine) * max(like, 0) ** 2
                candidates.append((value, number, affine, like))
        for value, number, affine, like in sorted(candidates, key=lambda c: -c[0])[:3]:
            name = names[number]
            template = pool[name]
            # below, it can only be named as the nearest place, which need not be exact
            if value >= HOPE * SURE * cfg.min_inliers:
                affine, like = refine(image, template, affine, widest=400)
                like = min(like, confirmed(image, template, affine))
            if plausible(affine, template.size, *image.shape[1::-1]):
                agree = inliers(number, affine)
                score = agree * max(like, 0) ** 2 / cfg.min_inliers
                score = score if like >= LIKE else min(score, HOPE * SURE)
                here = Found(score, agree, like, name, affine)
                best = max(best, here, key=lambda f: f.score)
        if best.score >= SURE:
            break
    return best


# ---- search by edges: skins with few features, as a d-pad alone or thin lines --------------------
# They are the user's own and few, so each is laid on the picture everywhere.


def uses(element):
    """States of the pad that show one element of a template in use: (buttons [16], sticks [4])."""
    pressed = {"dpad": render.DPAD, "button": (element.id,), "trigger": (element.id,)}
    for name in pressed.get(element.kind, ()):
        buttons = np.zeros(16)
        buttons[render.INDEX[name]] = 1
        yield buttons, np.zeros(4)
    if element.kind == "stick":
        first = 2 * (element.id == "RIGHT")
        for way in itertools.product((-1, -0.5, 0, 0.5, 1), repeat=2):
            sticks = np.zeros(4)
            sticks[first : first + 2] = way
            yield np.zeros(16), sticks


def reaction(frames, median, template, affine, widest=300) -> float:
    """The best correlation, 0..1, of a frame's change against the median with the change of one
    element of the template from rest to in use.

    A bar of the game's own display may look like a template; only an overlay also changes like one.
    """
    scale, rest = laid(template, affine, widest)
    ground = cut_out(median, affine, scale, rest).mean(2)
    changes = [cut_out(frame, affine, scale, rest).mean(2) - ground for frame in frames]

    def over_ground(overlay):
        return overlay[..., :3].mean(2) + (1 - overlay[..., 3] / 255) * ground

    best = 0.0
    for state in itertools.chain.from_iterable(map(uses, template.elements)):
        overlay = render.draw(template, *state, scale).astype(np.float32)
        wanted = over_ground(overlay) - over_ground(rest)
        if np.abs(wanted).max() < 8:  # gray levels: nobody would see it
            continue
        near = cv2.dilate((np.abs(wanted) > 4).astype(np.uint8), np.ones((5, 5))) > 0
        # Where the overlay is not, the moving game shows.
        weight = 0.1 + 0.9 * overlay[..., 3][near] / 255
        weight /= weight.sum()
        wanted = wanted[near] - weight @ wanted[near]
        power = weight * wanted @ wanted
        for change in changes:
            change = change[near] - weight @ change[near]
            opacity = weight * change @ wanted / power
            if 0.3 < opacity < 1.5:
                best = max(best, opacity * math.sqrt(power / (weight * change @ change)))
    return best


def swept(frames, median, pool, names) -> Found:
    """The best of the templates `names`, by how it looks alone: its score is SURE where the product
    at AGREED is as much.

    Of those that are there, the largest, for its likeness: a d-pad is also a part of a pad.
    """
    stack = layers(median, frames)
    rough, found = [], [Found()]
    for name in names:
        tries = []
        for agree, affine in sweep(stack, pool[name], median.shape[1]):
            affine, like = refine(median, pool[name], affine, widest=160, steps=6)
            tries.append((agree * like, agree, name, affine))
        rough += sorted(tries, key=lambda t: -t[0])[:1]
    for _, agree, name, affine in sorted(rough, key=lambda t: -t[0])[:3]:
        affine, like = refine(median, pool[name], affine, widest=400)
        like = min(like, confirmed(median, pool[name], affine, whole=True))
        if plausible(affine, pool[name].size, *median.shape[1::-1]):
            score = SURE * agree * max(like, 0) ** 8 / AGREED
            score *= max(added(median, pool[name], affine), 0)
            if score >= SURE:
                score *= reaction(frames, median, pool[name], affine) ** 16
            found.append(Found(score, 0, like, name, affine))
    there = [f for f in found if f.score >= SURE]
    if not there:
        return max(found, key=lambda f: f.score)

    def side(f):  # of a square as large, px
        return math.sqrt(math.prod(pool[f.template].size) * f.affine[0, 0] * f.affine[1, 1])

    return max(there, key=lambda f: f.likeness * side(f))


# ---- places: where the overlay is, and when ------------------------------------------------------


def likeness(frames, template, affine):
    """Per frame, how well the template fits at this place: -1..1."""
    return np.array([refine(f, template, affine, widest=160, steps=2)[1] for f in frames])


def shown(frames, template, affine):
    """In which frames, in order, the template is there: bool [n].  Three neighbours are judged
    together, against the better half: the outermost may lie one beyond its edge.
    """
    like = likeness(frames, template, affine)
    smooth = np.convolve(np.pad(like, 1, mode="edge"), np.ones(3) / 3, "valid")
    return smooth > THERE * np.sort(like)[len(like) // 2 :].mean()


def runs(values):
    """[(first, last, value)] of the stretches of equal values."""
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(a, b - 1, values[a]) for a, b in itertools.pairwise(starts)]


def find_template(frames, names, pool, cfg: Config) -> Found:
    """The best template in these frames: by features; else by edges, of the own ones in `names`."""
    median = middle(frames)
    result = search(median, pool, cfg)
    names = [name for name in names if name in pool.own]
    if result.score >= SURE or not names:
        return result
    return max(result, swept(frames, median, pool, names), key=lambda f: f.score)


def mark(place, number: int, frames, template, affine) -> None:
    """Write a place's number to the frames without a place that show the template at `affine`."""
    free = np.flatnonzero(place < 0)
    place[free[shown([frames[i] for i in free], template, affine)]] = number


def without_place(place) -> list[range]:
    """The stretches of frames that show the overlay at none of the places."""
    return [range(a, b + 1) for a, b, value in runs(place) if value < 0]


def untried(stretches, tried) -> list[range]:
    """Those of them that are long enough for a search and had none."""
    return [s for s in stretches if len(s) >= MIN_STRETCH and s not in tried]


def fill_gaps(place) -> None:
    """Give a short stretch without a place that of its neighbour: it is a glare, not an absence."""
    for gap in without_place(place):
        if len(gap) < min(MIN_STRETCH, len(place)):
            place[gap.start : gap.stop] = place[gap.start - 1] if gap.start else place[gap.stop]


def places(frames, pool, cfg: Config):
    """Where the overlay is, and when: (search's best result, [(first, last, affine)] in numbers of
    `frames`; none if it is nowhere).

    In the median of all frames; then in that of each stretch that does not show it there (an
    overlay may move or come late); if it is nowhere, in the thirds of the video.  CHOICE: one
    template per video.
    """
    everything = range(len(frames))
    place = np.full(len(frames), -1)  # number in `affines`; -1: not there
    affines = []
    best = Found()
    todo = [everything]
    tried = set()
    while todo:
        rows = todo.pop()
        tried.add(rows)
        names = [best.template] if affines else []
        if rows == everything:
            names = pool.own
        result = find_template(frames[rows.start : rows.stop], names, pool, cfg)
        if result.score < SURE:
            if rows == everything:
                best = result
                third = len(frames) // 3
                todo = [rows[k * third : (k + 1) * third] for k in range(3)]
        elif not affines or result.template == best.template:
            best = best if affines else result
            mark(place, len(affines), frames, pool[best.template], result.affine)
            affines.append(result.affine)
            todo = without_place(place)
        todo = untried(todo, tried)
    fill_gaps(place)
    return best, [(a, b, affines[value]) for a, b, value in runs(place) if value >= 0]


def sharpest_cut(like) -> int:
    """Where to cut a sequence, so that the mean before is highest above that after: the last index
    before."""
    n = np.arange(1, len(like))
    before = np.cumsum(like)[:-1] / n
    after = np.cumsum(like[::-1])[-2::-1] / n[::-1]
    return int(np.argmax(np.sign(before - after) * (before - after) ** 2 * n * n[::-1]))


def edge(video, inside: int, outside: int, template, affine):
    """The last frame, from `inside` towards `outside`, that shows the template at this place."""
    while abs(outside - inside) > 1:
        asked = np.unique(np.linspace(inside, outside, 18).round().astype(int))
        like = likeness([f for _, _, f in video.at(asked.tolist())], template, affine)
        if inside > outside:
            asked, like = asked[::-1], like[::-1]
        k = sharpest_cut(like)
        inside, outside = int(asked[k]), int(asked[k + 1])
    return inside


# ---- one video -----------------------------------------------------------------------------------


def reduced(frame):
    """A frame as it is held: 25 of 8K would be 2.5 GB."""
    if frame.shape[0] * frame.shape[1] <= HELD:
        return frame
    height = round(WORK_WIDTH * frame.shape[0] / frame.shape[1])
    return cv2.resize(frame, (WORK_WIDTH, height), interpolation=cv2.INTER_AREA)


def no_wider(frames: list, width: float) -> list:
    """The frames at this width, px, where they are wider."""
    scale = width / frames[0].shape[1]
    if scale >= 1:
        return frames
    area = cv2.INTER_AREA
    return [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=area) for frame in frames]


def around(template, affine) -> tuple[slice, slice]:
    """Rows and columns of a frame in which the template lies, with a margin."""
    w, h = template.size
    margin = 8
    x0, y0 = (max(0, int(v) - margin) for v in affine[:, 2])
    right = x0 + math.ceil(w * affine[0, 0]) + 2 * margin
    low = y0 + math.ceil(h * affine[1, 1]) + 2 * margin
    return slice(y0, low), slice(x0, right)


def register(crops, template, affine, size):
    """Register the template on the median of frames that show it: (affine, likeness, crop of the
    median uint8 [h, w, 3]).  crops: `around` it, of the frames; affine: a first guess; size: w, h
    of the crop, px; None: as displayed.
    """
    w, h = template.size
    y0, x0 = (side.start for side in around(template, affine))
    median = middle(crops)
    offset = np.array([[0, 0, x0], [0, 0, y0]])
    affine, like = refine(median, template, affine - offset)
    size = size or (round(w * affine[0, 0]), round(h * affine[1, 1]))
    return affine + offset, like, render.crop(median, affine, template.size, *size)


def placed(affines, size, frame_size) -> dict:
    """The tensors that say where a canvas of `size` (w, h) lies, from its affines [P, 2, 3]."""
    w, h = size
    canvas = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]])
    corners = np.stack([canvas @ affine.T for affine in affines])
    low = np.floor(corners.min(1)).clip(0)
    high = np.ceil(corners.max(1)).clip(0, frame_size)
    return {
        "affine": affines.astype(np.float32),
        "corners": corners.astype(np.float32),
        "bbox": np.concatenate([low, high - low], 1).astype(np.int32),
    }


def nearest(best: Found, pool, shrink: float) -> dict:
    """Why nothing was found, for the metadata: the reason and, if anything was near, its box x, y,
    w, h in frame px."""
    if not best.template:
        return {"reason": "no template fits anywhere"}
    found = f"{best.template} with {best.inliers} inliers of likeness {best.likeness:.2f}"
    box = (*best.affine[:, 2], *np.diag(best.affine) * pool[best.template].size)
    return {"reason": f"nearest: {found}", "nearest": [round(float(v) / shrink, 1) for v in box]}


def cut(video: Video, frames, box, cfg: Config) -> list:
    """This part of the sampled frames, at full size: of `frames`, or read once more."""
    if frames[0].shape[1] == video.width:
        return [frame[box] for frame in frames]
    return video.sample(cfg.frames, lambda frame: frame[box].copy())[0]


def locate(video, pool, cfg: Config):
    """Find the overlay of a video: (tensors, info) as in artefact.FORMATS["nitrogen.overlay/1"],
    and the sampled frames.
    """
    video = Video(video, cfg.partial)
    frames, seconds = video.sample(cfg.frames, reduced)
    for note in video.notes:
        tqdm.write(f"{video.path}: {note}")
    frame_w, frame_h = video.width, video.height
    shrink = min(1.0, WORK_WIDTH / frame_w)
    best, found = places(no_wider(frames, shrink * frame_w), pool, cfg)
    info = dict(found=bool(found), inliers=best.inliers, score=round(best.score, 3))
    if not found:
        return {}, info | nearest(best, pool, shrink), frames
    template = pool[best.template]
    throughout = [(first, last) for first, last, _ in found] == [(0, len(frames) - 1)]
    numbers = video.number(seconds, exact=not throughout).tolist()
    affines, spans, likes, stills = [], [], [], []
    for first, last, affine in found:
        size = stills[0].shape[1::-1] if stills else None
        crops = cut(video, frames, around(template, affine / shrink), cfg)[first : last + 1]
        affine, like, still = register(crops, template, affine / shrink, size)
        begin, end = 0, video.count() - 1
        if first > 0:
            begin = edge(video, numbers[min(first + 1, last)], numbers[first - 1], template, affine)
        if last + 1 < len(numbers):
            end = edge(video, numbers[max(last - 1, first)], numbers[last + 1], template, affine)
        affines.append(affine)
        spans.append((begin, end))
        likes.append(like)
        stills.append(still)
    tensors = {
        **placed(np.stack(affines), template.size, (frame_w, frame_h)),
        "span": np.array(spans, np.int64),
        "median": np.stack(stills),
        "atlas": template.atlas,
    }
    info |= dict(
        template=best.template,
        family=template.family,
        layout=render.layout(template),
        elements=[asdict(e) for e in template.elements],
        votes=sum(last - first + 1 for first, last, _ in found),
        sampled=numbers,
        likeness=round(float(np.mean(likes)), 3),
        frame_size=[frame_w, frame_h],
    )
    return tensors, info, frames


# ---- many videos ---------------------------------------------------------------------------------


def label(cfg: Config, video: str) -> dict:
    """Localize one video and write its artefact; returns the metadata.  A finished one is kept."""
    path = Path(cfg.out) / f"{Path(video).stem}.overlay.safetensors"
    picture = path.with_suffix(".png")
    Video(video)  # a file that is no video ends here
    recipe = recipe_of(cfg, video, *scenes.files_in(cfg.templates))
    finished = artefact.finished(path, FORMAT, recipe, cfg.fresh)
    if finished:
        tensors, info = artefact.read(path, FORMAT)
    else:
        tensors, info, frames = locate(video, library.pool(cfg.templates), cfg)
    if cfg.sheet and not (finished and picture.exists()):
        if finished:
            frames = Video(video, True).sample(cfg.frames, reduced)[0]
        video_sheet(picture, frames, tensors, info, library.pool(cfg.templates))
    if not finished:
        artefact.write(path, tensors, FORMAT, recipe=recipe, **info)
    if info["found"]:
        agree = f"{info['votes']}/{len(info['sampled'])} frames agree"
        what = f"{info['template']} with {info['inliers']} inliers, {agree}"
        tqdm.write(f"{video}: {what} -> {path}{' (kept)' if finished else ''}")
    return {"video": video, "path": str(path), **info}


def summary(done: list) -> None:
    """Print, for all videos, in how many an overlay was found and why not in the others."""
    absent = [d for d in done if not d["found"]]
    lines = [f"{d['video']}: no overlay found ({d['reason']}) -> {d['path']}" for d in absent]
    if len(done) == 1 and lines:
        raise SystemExit(lines[0])
    lines.append(f"overlay found in {len(done) - len(absent)} of {len(done)} videos")
    print("\n".join(lines))


def main(cfg: Config):
    if cfg.frames < 3 or cfg.min_inliers < 4:
        raise SystemExit("--frames must be at least 3 and --min-inliers at least 4")
    if cfg.videos:
        print(
            f"{len(cfg.videos)} videos -> {cfg.out}: {len(library.pool(cfg.templates))} templates, "
            f"{cfg.frames} frames each, bar {cfg.min_inliers} inliers; a few seconds a video"
        )
    if len(cfg.videos) > 1:  # made here, once: the workers find it on disk
        bank_of(library.pool(cfg.templates), "sift")
    for_each(functools.partial(label, cfg), cfg.videos, cfg.workers, ray=cfg.ray, summary=summary)


if __name__ == "__main__":
    command_line(
        __doc__,
        {
            "": (Config, main),
            "templates": "templates.library:sheet",
            "bench": "bench.templates",
            "train": "templates.xfeat_training",
        },
    )
