"""The matched filter: the template, drawn in every state, compared with the crop.  Nothing here is
learned.

A stick's knob at place p changes the picture of its ground G by

    d(p) = k(x - p) - alpha(x - p) G(x),

where k is the knob's premultiplied picture and alpha its opacity.  F = crop - SOFT G is the crop
less what it shows of the ground.  The likeness of the two is the cosine of their gradients:

    S(p) = <grad F, grad d(p)> / (|grad F near p| |grad d(p)|)
    <grad F, grad d(p)> = <-laplace F, d(p)>

The second line is two correlations, of -laplace F with k and of -laplace F times G with alpha, so
one Fourier transform compares all places at once.
"""

from __future__ import annotations

import functools
import itertools
import math

from common import artefact

import cv2
import numpy as np
import torch

from templates import render

GRID = 11  # cells per axis of a stick's heat map, paper 2.1
REACH = 1.2  # stick radii at the grid's outermost cell: room for a crop that is slightly off
UNIT = (GRID - 1) / 2 / REACH  # grid cells per stick radius
FINE = 3 * GRID  # places per axis at which a knob is compared: three per cell of the heat map
STEP = 2 * REACH / (GRID - 1) / 3  # stick radii from one place to the next
GAIN = 20.0  # CHOICE: logits of a heat map per unit of likeness, to begin with

WIDE = 256  # px, width of the crop in which buttons are compared
COARSE = 4  # Agreement's wide blurs are at 1 / COARSE of that resolution: a fifth of the time
MARKS = 4  # values that compare a button with one picture, see standing()
PRESSED = 0.5  # from here on a button stands nearer to its pressed picture

# CHOICE: share of the ground that is taken off a crop.  A video is softer than the template: if all
# of the ground were taken off, its edges would stay.
SOFT = 0.75
FLOOR = 0.25  # CHOICE: share of the mean gradient energy added everywhere, so noise is no knob
FAINT = 0.25  # CHOICE: strength, see standing(), from which a change says something: 3 grey levels
GRAY = np.float32([0.299, 0.587, 0.114])

SIDES = ("LEFT", "RIGHT")
ELEMENTS = [*range(16), 16, 18]  # of shown bool [20]: the 16 buttons and the x axis of each stick
THUMBS = np.array([name.endswith("THUMB") for name in artefact.BUTTONS])  # clicks of the sticks


# ---- positions: of the template's elements in the crop, of a knob on its grid --------------------


def geometry(layout: dict):
    """Where a template has its elements, as shares of its canvas; 0 where it has none.

    Returns boxes float32 [16, 4]: centre and half size of each button; sticks float32 [2, 6]:
    centre, travel and half size of the knob; shown bool [20]: 16 buttons, 4 stick axes.
    """
    w, h = layout["size"]
    boxes = np.zeros((16, 4), np.float32)
    sticks = np.zeros((2, 6), np.float32)
    shown = np.zeros(20, bool)
    for name, (x, y, bw, bh) in layout["buttons"].items():
        i = artefact.BUTTONS.index(name)
        boxes[i] = (x + bw / 2) / w, (y + bh / 2) / h, bw / 2 / w, bh / 2 / h
        shown[i] = True
    for i, side in enumerate(SIDES):
        if side in layout["sticks"]:
            cx, cy, travel, kw, kh = layout["sticks"][side]
            sticks[i] = cx / w, cy / h, travel / w, travel / h, kw / 2 / w, kh / 2 / h
            shown[16 + 2 * i : 18 + 2 * i] = True
    return boxes, sticks, shown


def lattice(steps) -> torch.Tensor:
    """[n * n, 2] x, y, row by row."""
    steps = torch.as_tensor(steps, dtype=torch.float32)
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)


def rings(*spec) -> torch.Tensor:
    """The centre and, per (radius, count, turn), points around it, [n, 2]."""
    points = [(0.0, 0.0)]
    for radius, count, turn in spec:
        for i in range(count):
            angle = 2 * math.pi * (i + turn) / count
            points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return torch.tensor(points)


def around(centres, ring, knob):
    """The points of a ring, in knobs, around centres [b, s, k, 2]: [b, (s k p), 2]."""
    return (centres[:, :, :, None] + ring * knob[:, :, :, None]).flatten(1, 3)


def stick_axes(cells):
    """Grid cells -> stick radii in -1..1."""
    return (cells / UNIT).clip(-1, 1)


def heat_map(cells):
    """Positions [..., 2] in cells from the centre -> heat map [..., FINE * FINE], bilinear over the
    four nearest places.
    """
    at = (3 * cells + FINE // 2).clamp(0, FINE - 1)
    index = torch.arange(FINE, device=cells.device)
    tent = (1 - (at[..., None] - index).abs()).clamp(min=0)  # ... 2 FINE
    return (tent[..., 1, :, None] * tent[..., 0, None, :]).flatten(-2)


def peak(logits):
    """Heat map logits [..., FINE * FINE] -> (positions [..., 2] in cells from the centre, share of
    the mass used).

    The expectation over the 5 x 5 places around the mode inverts heat_map() exactly."""
    p = logits.float().softmax(-1)
    mode = p.argmax(-1)[..., None]
    index = torch.arange(FINE, device=p.device)
    near_row = (index - mode // FINE).abs() <= 2
    near_column = (index - mode % FINE).abs() <= 2
    p = p.unflatten(-1, (FINE, FINE)) * (near_row[..., :, None] & near_column[..., None, :])
    mass = p.sum((-2, -1))
    offset = index - FINE // 2
    x = (p.sum(-2) * offset).sum(-1) / mass / 3
    y = (p.sum(-1) * offset).sum(-1) / mass / 3
    return torch.stack([x, y], -1), mass


# ---- pictures ------------------------------------------------------------------------------------


def laplacian(picture):
    """-laplace, so that <a, laplacian(b)> = <grad a, grad b>."""
    return -cv2.Laplacian(picture, cv2.CV_32F, ksize=1)


def opacity(rest, median) -> float:
    """How strongly a video shows its overlay, 0.3..1: the least squares fit of the median's
    gradients to those of the template at rest, blurred as a video is.

    rest: float32 RGBA, premultiplied; median: RGB of the same size."""
    clear = 1 - rest[..., 3:] / 255
    behind = (clear * median).sum((0, 1)) / max(clear.sum(), 1)  # about the game's mean colour
    drawn = cv2.GaussianBlur(rest[..., :3] + clear * behind, (0, 0), WIDE / 128)
    seen = cv2.GaussianBlur(median, (0, 0), WIDE / 128)
    curved = laplacian(drawn)
    energy = float((drawn * curved).sum())
    if energy < 1:  # nothing is drawn at rest
        return 1.0
    # CHOICE: 0.3, since streamers want their overlay to be seen
    return float(np.clip((seen * curved).sum() / energy, 0.3, 1))


def faint(picture, share):
    """An RGBA picture, premultiplied, at a share of its opacity."""
    return (picture * np.float32(share)).round().astype(np.uint8)


def standing(size, dd, dcd, xd, xcd, xcx):
    """Compare n pictures with their states at rest and pressed: float32 [n, MARKS].

    The marks: where a picture stands between rest, 0, and pressed, 1, by its colours; the same by
    its gradients; how much of its gradients is neither, in units of the change; how strong the
    change is, log2 of grey levels / 8.

    The arguments are inner products [n] of x, the picture less rest, and d, pressed less rest, in
    `size` values; cx and cd are their laplacians."""
    square = np.maximum(dd, 1e-6)
    norm = np.maximum(dcd, 1e-3 * square)
    along = xcd / norm
    neither = np.maximum(xcx / norm - along * along, 0) ** 0.5
    strength = np.log2(1 + (square / size) ** 0.5) / 8
    marks = np.stack([xd / square, along, neither, strength], -1)
    return marks.astype(np.float32).clip(-2, 4)


def stands(marks):
    """The mean of both standings, by colours and by gradients, of marks [..., MARKS]."""
    return marks[..., :2].clip(-0.5, 1.5).mean(-1)


def part_of(picture, affine, centre, size, side):
    """size x size canvas px around a centre as uint8 [side, side, c]; affine: canvas px -> px of
    the picture.
    """
    shift = np.array([[1, 0, centre[0] - size / 2], [0, 1, centre[1] - size / 2], [0, 0, 1]])
    return render.crop(picture, affine @ shift, (size, size), side, side)


# ---- the filters ---------------------------------------------------------------------------------


class StickFilter:
    """Compares a picture with the knob drawn at each of FINE x FINE places, up and clicked."""

    def __init__(self, stick, ground, knobs, scale, median, affine):
        """stick: centre, travel, knob's w and h, canvas px; ground: RGBA canvas without sticks;
        knobs: RGBA canvases of this stick alone, up and clicked, drawn at `scale`; median: the
        video's, RGB; affine: canvas px -> px of the median."""
        cx, cy, travel, w, h = stick
        self.centre = (cx, cy)
        # canvas px per px of the filter; a knob of 10 travels is the largest
        self.unit = max(STEP * travel, max(w, h) / 128)
        self.kernel = 2 * math.ceil(max(w, h) / 2 / self.unit) + 3
        self.side = FINE + self.kernel - 1
        # side of a spectrum; what wraps around is not used
        self.padded = 4 * cv2.getOptimalDFTSize(math.ceil(self.side / 4))
        behind = self.gray(median, affine).mean()  # about what shines through
        ground = self.part(ground, scale * np.eye(2, 3))
        clear = 1 - ground[..., 3] / np.float32(255)
        self.ground = (ground[..., :3] @ GRAY + clear * behind).astype(np.float32)
        self.knobs = [self.knob(canvas, scale) for canvas in knobs]
        self.spectra = [(self.spectrum(k), self.spectrum(alpha)) for k, alpha, _ in self.knobs]

    def part(self, picture, affine):
        return part_of(picture, affine, self.centre, self.side * self.unit, self.side)

    def gray(self, picture, affine):
        return cv2.transform(self.part(picture, affine).astype(np.float32), GRAY[None])

    def spectrum(self, picture):
        h, w = picture.shape
        bottom, right = self.padded - h, self.padded - w
        return cv2.dft(cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT))

    def knob(self, canvas, scale):
        """(k, alpha, |grad d(p)| [FINE, FINE])"""
        n = self.kernel
        edge = math.ceil(n * self.unit * scale)  # a knob may stick out of the canvas
        canvas = cv2.copyMakeBorder(canvas, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        affine = np.array([[scale, 0, edge], [0, scale, edge]])
        picture = part_of(canvas, affine, self.centre, n * self.unit, n)
        k = (picture[..., :3] @ GRAY).astype(np.float32)
        alpha = picture[..., 3] / np.float32(255)
        # the norm changes slowly: 5 x 5 places, the others interpolated
        norms = np.zeros((5, 5), np.float32)
        for i, j in itertools.product(range(5), repeat=2):
            y, x = (FINE - 1) // 4 * i, (FINE - 1) // 4 * j
            d = k - alpha * self.ground[y : y + n, x : x + n]
            d = cv2.copyMakeBorder(d, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
            norms[i, j] = max(float((d * laplacian(d)).sum()), 1.0) ** 0.5
        return k, alpha, cv2.resize(norms, (FINE, FINE))

    def __call__(self, picture, affine):
        """S, the greater of up and clicked: float32 [FINE, FINE]; and how the best place stands
        between the two, see standing().
        """
        seen = self.gray(picture, affine)
        likeness = self.likeness(seen)
        row, column = np.unravel_index(likeness.argmax(), likeness.shape)
        place = np.s_[row : row + self.kernel, column : column + self.kernel]
        up, clicked = (
            k + (1 - alpha) * self.ground[place] for k, alpha, _ in (self.knobs[0], self.knobs[-1])
        )
        x, d = seen[place] - up, clicked - up
        cx, cd = laplacian(x).ravel(), laplacian(d).ravel()
        x, d = x.ravel(), d.ravel()
        return likeness, standing(d.size, d @ d, d @ cd, x @ d, x @ cd, x @ cx)

    def likeness(self, seen):
        """S of the gray picture: see the head of this file."""
        f = cv2.GaussianBlur(seen - SOFT * self.ground, (0, 0), 1.0)
        curved = laplacian(f)
        # shared by up and clicked
        line = self.spectrum(curved)
        over = self.spectrum(curved * self.ground)
        likenesses = []
        for (k, alpha), (_, _, norm) in zip(self.spectra, self.knobs, strict=True):
            product = cv2.mulSpectrums(line, k, 0, conjB=True)
            product -= cv2.mulSpectrums(over, alpha, 0, conjB=True)
            likenesses.append(cv2.idft(product, flags=cv2.DFT_SCALE)[:FINE, :FINE] / norm)
        return functools.reduce(np.maximum, likenesses) / self.norm_near(f)

    def norm_near(self, f):
        """|grad F near p|, the knob's size around each place: [FINE, FINE]."""
        near = slice(self.kernel // 2, self.kernel // 2 + FINE)
        dx = cv2.Sobel(f, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
        dy = cv2.Sobel(f, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
        energy = dx**2 + dy**2
        floor = (FLOOR * energy.mean() * self.kernel + 1) * self.kernel
        energy = cv2.boxFilter(energy, -1, (self.kernel, self.kernel), normalize=False)
        return np.sqrt(energy[near, near] + floor)


class ButtonFilter:
    """Where a picture stands between each button at rest and pressed, see standing()."""

    def __init__(self, boxes: dict, looks, median, affine, size):
        """boxes: of the buttons, canvas px; looks: see render.looks; median, affine: as StickFilter
        takes them; size: w, h of the canvas.
        """
        self.canvas = size
        self.size = WIDE, max(8, round(WIDE * size[1] / size[0]))
        still = self.seen(median, affine).astype(np.float32)
        rest, pressed = (
            cv2.resize(look, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
            for look in looks
        )
        self.opacity = opacity(rest, still)
        rest, pressed = self.opacity * rest, self.opacity * pressed
        clear = 1.001 - rest[..., 3:] / 255
        ground = cv2.GaussianBlur((still - rest[..., :3]).clip(0), (0, 0), 6.0)
        ground = ground / cv2.GaussianBlur(clear, (0, 0), 6.0)[..., None]
        self.rest = rest[..., :3] + (clear - 0.001) * ground.clip(0, 255)
        change = pressed - rest
        change = change[..., :3] - change[..., 3:] / 255 * ground.clip(0, 255)
        parts = {}  # number of a button: the indices of its values in a flat picture
        indices = np.arange(change.size).reshape(change.shape)
        for name, box in boxes.items():
            part = render.region(np.array(box) * WIDE / size[0] + (-1, -1, 2, 2))
            if np.abs(change[part]).max(initial=0) > 4:
                parts[artefact.BUTTONS.index(name)] = indices[part].ravel()
        self.buttons = list(parts)
        self.sizes = np.array([len(p) for p in parts.values()], int)
        self.values = np.concatenate([*parts.values(), np.zeros(0, int)])  # button after button
        self.change = change.take(self.values)
        self.curved = laplacian(change).take(self.values)
        self.norms = self.sums(self.change * self.change), self.sums(self.change * self.curved)

    def seen(self, picture, affine):
        return render.crop(picture, affine, self.canvas, *self.size)

    def sums(self, values):
        """The sum of each button's values."""
        return np.add.reduceat(values, np.cumsum(self.sizes) - self.sizes)

    def __call__(self, seen):
        """float32 [16, MARKS]; 0 for what the template does not show."""
        f = cv2.subtract(seen, self.rest, dtype=cv2.CV_32F)
        x, curved = f.take(self.values), laplacian(f).take(self.values)
        products = (x * self.change, x * self.curved, x * curved)
        marks = np.zeros((16, MARKS), np.float32)
        marks[self.buttons] = standing(self.sizes, *self.norms, *map(self.sums, products))
        return marks


class MatchedFilter:
    """What a template predicts, compared with the pictures of a video: for each stick where its
    knob may be, for each button how pressed it looks.
    """

    def __init__(self, template, median, affine, show=render.draw, scale=1.0):
        """median: RGB; affine: canvas px -> px of the median; show(template, buttons, sticks): as
        render.draw, at `scale`.
        """
        layout = render.layout(template)
        still, centred = np.zeros(16, bool), np.zeros(4)
        buttons = {k: v for k, v in layout["buttons"].items() if not k.endswith("THUMB")}
        boxes = {name: [v * scale for v in box] for name, box in buttons.items()}
        looks = render.looks(boxes, lambda on: show(template, on, centred))
        self.buttons = ButtonFilter(buttons, looks, median, affine, template.size)

        def drawn(part, on):
            return faint(show(part, on, centred), self.buttons.opacity)

        ground = drawn(render.without_sticks(template), still)
        self.sticks = {}
        for i, side in enumerate(SIDES):
            if side not in layout["sticks"]:
                continue
            alone = render.stick_alone(template, side)
            knobs = [drawn(alone, still)]
            if f"{side}_THUMB" in layout["buttons"]:
                knobs.append(drawn(alone, THUMBS))
            stick = layout["sticks"][side]
            self.sticks[i] = StickFilter(stick, ground, knobs, scale, median, affine)
        self.still = self.compare(median, affine)

    def compare(self, picture, affine):
        seen = self.buttons.seen(picture, affine)
        marks = self.buttons(seen)
        maps = np.zeros((2, FINE, FINE), np.float32)
        for i, stick in self.sticks.items():
            maps[i], click = stick(picture, affine)
            if len(stick.knobs) > 1:  # a click shows on the knob, wherever that is
                marks[artefact.BUTTONS.index("LEFT_THUMB") + i] = click
        return maps, marks, seen

    def __call__(self, picture, affine):
        """(S of the picture and of the median float32 [2 sticks, 2, FINE, FINE], marks of both
        float32 [16, 2, MARKS], crop uint8 [h, WIDE, 3]).
        """
        maps, marks, seen = self.compare(picture, affine)
        return np.stack([maps, self.still[0]], 1), np.stack([marks, self.still[1]], 1), seen


class Agreement:
    """How well the frames of a video agree with the template drawn in the state that was read.

    Per button and stick: the correlation of their edges where it is drawn, over all frames that are
    given; a wrong template draws what the frames do not show.  A button's is at most how much
    farther it stands from rest, on average, where it was read as pressed than elsewhere.
    """

    def __init__(self, template, ways: int = 1):
        """ways: how many ways of reading the sticks are compared; buttons are read in one way."""
        self.template = template
        self.layout = render.layout(template)
        self.scale = WIDE / template.size[0]
        names = [[*self.layout["buttons"], *self.layout["sticks"]]]
        names += [[*self.layout["sticks"]]] * (ways - 1)
        self.sums = [{name: np.zeros(3) for name in of_way} for of_way in names]
        self.parts = {name: self.part(*box) for name, box in self.layout["buttons"].items()}
        # of the standings at rest and pressed
        self.total, self.number = np.zeros((2, 16)), np.zeros((2, 16))

    def add(self, crop, marks, buttons, *sticks):
        """crop uint8 [h, WIDE, 3] and marks [16, 2, MARKS] of a MatchedFilter; buttons bool [16];
        sticks [4] in -1..1, for each way.
        """
        state = buttons.astype(int), np.arange(16)
        self.total[state] += stands(marks[:, 0])
        self.number[state] += marks[:, 0, 3] > FAINT  # else there is nothing to compare
        seen = crop[: round(self.template.size[1] * self.scale)].astype(np.float32)
        edges = render.band(seen, COARSE)
        for sums, axes in zip(self.sums, sticks, strict=True):
            drawn = render.draw(self.template, buttons, axes, self.scale)[: len(seen)]
            expected = render.expected(seen, drawn.astype(np.float32), COARSE)
            for side, (cx, cy, travel, w, h) in self.layout["sticks"].items():
                x, y = axes[:2].tolist() if side == "LEFT" else axes[2:].tolist()
                knob = self.part(cx + travel * x - w / 2, cy + travel * y - h / 2, w, h)
                self.parts[side] = knob
                self.parts[f"{side}_THUMB"] = knob  # a click shows on the knob, wherever that is
            for name in sums:
                a, b = edges[self.parts[name]].ravel(), expected[self.parts[name]].ravel()
                sums[name] += a @ b, a @ a, b @ b

    def part(self, x, y, w, h):
        """The slices of the crop that a box in canvas px covers, and a pixel around it."""
        s = self.scale
        return render.region((x * s - 1, y * s - 1, w * s + 2, h * s + 2))

    def result(self, way: int = 0) -> dict:
        """{name: -1..1}; 0 for what is drawn so faintly that nothing can be compared."""
        at_rest, pressed = self.total / np.maximum(self.number, 1)
        often_at_rest, often_pressed = self.number >= 3
        # the ground behind shifts both; one state alone has no other to be compared with
        apart = np.where(often_at_rest, pressed - at_rest, pressed - PRESSED / 2)
        states = np.where(often_pressed, apart / PRESSED, 1).clip(0, 1)
        states = dict(zip(artefact.BUTTONS, states, strict=True))
        out = {}
        for name, (ab, aa, bb) in self.sums[way].items():
            edges = ab / max((aa * bb) ** 0.5, 1e-6)
            out[name] = round(float(min(edges, states.get(name, 1))), 3)
        return out


def read_alone(maps, marks):
    """What the matched filters say by themselves, the floor of every table: maps [T, 2, 2, FINE,
    FINE], marks [T, 16, 2, MARKS] -> (buttons bool [T, 16], sticks float32 [T, 4] in grid
    cells)."""
    cells, _ = peak(torch.from_numpy(maps[:, :, 0]).flatten(-2) * GAIN)
    return stands(marks[:, :, 0]) > PRESSED, cells.flatten(-2).numpy()
