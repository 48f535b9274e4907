"""The matched filter: the template, drawn in every state, compared with the crop.  Nothing here is
learned.
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
GAIN = 20.0  # CHOICE: logits of a heat map per unit of likeness, to begin with
# the wide blurs of that comparison are at 1 / COARSE of its resolution: a fifth of the time
COARSE = 4


# ---- positions: of the template's elements in the crop, of a knob on its grid --------------------


def geometry(layout: dict):
    """A template's layout -> (boxes f32 [16, 4], sticks f32 [2, 6], shown bool [20]): see
    Parser.forward; absent ones are 0.
    """
    w, h = layout["size"]
    boxes, sticks, shown = (
        np.zeros((16, 4), np.float32),
        np.zeros((2, 6), np.float32),
        np.zeros(20, bool),
    )
    for name, (x, y, bw, bh) in layout["buttons"].items():
        i = artefact.BUTTONS.index(name)
        boxes[i], shown[i] = ((x + bw / 2) / w, (y + bh / 2) / h, bw / 2 / w, bh / 2 / h), True
    for i, side in enumerate(("LEFT", "RIGHT")):
        if side in layout["sticks"]:
            cx, cy, radius, kw, kh = layout["sticks"][side]
            sticks[i], shown[16 + 2 * i : 18 + 2 * i] = (
                (cx / w, cy / h, radius / w, radius / h, kw / 2 / w, kh / 2 / h),
                True,
            )
    return boxes, sticks, shown


def spread(cells):
    """Positions [..., 2] in cells from the centre -> heat map [..., FINE * FINE]: bilinear over the
    four places around it.
    """
    at = (3 * cells + FINE // 2).clamp(0, FINE - 1)
    # ... 2 FINE
    tent = (1 - (at[..., None] - torch.arange(FINE, device=cells.device)).abs()).clamp(min=0)
    return (tent[..., 1, :, None] * tent[..., 0, None, :]).flatten(-2)


def locate(logits):
    """Heat map logits [..., FINE * FINE] -> (positions [..., 2] in cells from the centre, share of
    the mass used).

    Expectation over the 5 x 5 places around the mode: exact for the spread of any position."""
    p = logits.float().softmax(-1)
    index = torch.arange(FINE, device=p.device)
    row, column = p.argmax(-1)[..., None] // FINE, p.argmax(-1)[..., None] % FINE
    # ... FINE FINE
    near = ((index - row).abs() <= 2)[..., :, None] & ((index - column).abs() <= 2)[..., None, :]
    p = p.unflatten(-1, (FINE, FINE)) * near
    mass = p.sum((-2, -1))
    x, y = ((p.sum(axis) * (index - FINE // 2)).sum(-1) / mass / 3 for axis in (-2, -1))
    return torch.stack([x, y], -1), mass


FINE = 3 * GRID  # places per axis at which a knob is compared: three per cell of the heat map
STEP = 2 * REACH / (GRID - 1) / 3  # stick radii from one to the next
WIDE = 256  # px, width of the crop in which buttons are compared
MARKS = 4  # of a button in one picture, see standing()
PRESSED = 0.5  # from here on a button stands nearer to its pressed picture
# CHOICE: share of the ground that is taken off a crop; a video is softer than the template, of all
# of it edges stay
SOFT = 0.75
# CHOICE: share of the mean gradient energy that is added where there is little: noise is no knob
FLOOR = 0.25
FAINT = 0.25  # CHOICE: strength, see standing(), from which a change says something: 3 grey levels
GRAY = np.float32([0.299, 0.587, 0.114])


def laplacian(picture):
    """-laplace, so that <a, laplacian(b)> = <grad a, grad b>."""
    return -cv2.Laplacian(picture, cv2.CV_32F, ksize=1)


def opacity(rest, median) -> float:
    """How strongly a video shows its overlay: the least squares fit of the median's gradients,
    blurred as no video is, to the template's at rest; float32 RGBA, premultiplied, and RGB, of one
    size."""
    clear = 1 - rest[..., 3:] / 255
    behind = (clear * median).sum((0, 1)) / max(clear.sum(), 1)  # the game's mean colour, about
    drawn, seen = (
        cv2.GaussianBlur(v, (0, 0), WIDE / 128) for v in (rest[..., :3] + clear * behind, median)
    )
    curved = laplacian(drawn)
    energy = float((drawn * curved).sum())
    if energy < 1:  # nothing is drawn at rest
        return 1.0
    # CHOICE: who overlays a pad wants it seen
    return float(np.clip((seen * curved).sum() / energy, 0.3, 1))


def faint(picture, share):
    """An RGBA picture, premultiplied, at a share of its opacity."""
    return (picture * np.float32(share)).round().astype(np.uint8)


def standing(size, dd, dcd, xd, xcd, xcx):
    """Where pictures stand between rest, 0, and pressed, 1: by their colours; by their gradients;
    how much of their gradients is neither, in units of the change; and how strong the change is,
    log2 of grey levels / 8: float32 [n, MARKS].

    Of inner products [n]; x: picture less rest; d: pressed less rest, in `size` values; cx and cd:
    their laplacians."""
    square = np.maximum(dd, 1e-6)
    norm = np.maximum(dcd, 1e-3 * square)
    along = xcd / norm
    rest = np.maximum(xcx / norm - along * along, 0) ** 0.5
    return (
        np.stack([xd / square, along, rest, np.log2(1 + (square / size) ** 0.5) / 8], -1)
        .astype(np.float32)
        .clip(-2, 4)
    )


def part_of(picture, affine, centre, size, side):
    """size x size canvas px around a centre, as side x side px: uint8 [side, side, c]; affine:
    canvas px -> px of the picture.
    """
    shift = np.array([[1, 0, centre[0] - size / 2], [0, 1, centre[1] - size / 2], [0, 0, 1]])
    return render.crop(picture, affine @ shift, (size, size), side, side)


class StickFilter:
    """Compares a picture with the knob drawn at each of FINE x FINE places, up and clicked."""

    def __init__(self, stick, grounds, knobs, scale, median, affine):
        """stick: centre, travel, knob's w and h, canvas px; grounds: RGBA canvas without sticks;
        knobs: RGBA canvases of this stick alone, up and clicked, drawn at `scale`; median: the
        video's, RGB; affine: canvas px -> px of the median."""
        cx, cy, travel, w, h = stick
        # canvas px per px of the filter; a knob of 10 travels is the largest
        self.unit = max(STEP * travel, max(w, h) / 128)
        self.centre, self.kernel = (cx, cy), 2 * math.ceil(max(w, h) / 2 / self.unit) + 3
        self.side = FINE + self.kernel - 1
        # of a spectrum; what wraps around is not used
        self.room = 4 * cv2.getOptimalDFTSize(math.ceil(self.side / 4))
        # what shines through, about
        behind, ground = self.gray(median, affine).mean(), self.part(grounds, scale * np.eye(2, 3))
        self.ground = (
            ground[..., :3] @ GRAY + (1 - ground[..., 3] / np.float32(255)) * behind
        ).astype(np.float32)
        self.knobs = [self.knob(k, scale) for k in knobs]
        self.spectra = [(self.spectrum(k), self.spectrum(alpha)) for k, alpha, _ in self.knobs]

    def part(self, picture, affine):
        return part_of(picture, affine, self.centre, self.side * self.unit, self.side)

    def gray(self, picture, affine):
        return cv2.transform(self.part(picture, affine).astype(np.float32), GRAY[None])

    def spectrum(self, picture):
        h, w = picture.shape
        return cv2.dft(
            cv2.copyMakeBorder(picture, 0, self.room - h, 0, self.room - w, cv2.BORDER_CONSTANT)
        )

    def knob(self, canvas, scale):
        """(k, alpha, |grad d(p)| [FINE, FINE])"""
        edge = math.ceil(self.kernel * self.unit * scale)  # a knob may stick out of the canvas
        canvas = cv2.copyMakeBorder(canvas, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
        picture = part_of(
            canvas,
            np.array([[scale, 0, edge], [0, scale, edge]]),
            self.centre,
            self.kernel * self.unit,
            self.kernel,
        )
        k, alpha, n = (
            (picture[..., :3] @ GRAY).astype(np.float32),
            picture[..., 3] / np.float32(255),
            self.kernel,
        )
        # it changes slowly: a fifth of the places, the others between
        norms = np.zeros((5, 5), np.float32)
        for i, j in itertools.product(range(5), repeat=2):
            y, x = (FINE - 1) // 4 * i, (FINE - 1) // 4 * j
            d = cv2.copyMakeBorder(
                k - alpha * self.ground[y : y + n, x : x + n], 1, 1, 1, 1, cv2.BORDER_CONSTANT
            )
            norms[i, j] = max(float((d * laplacian(d)).sum()), 1.0) ** 0.5
        return k, alpha, cv2.resize(norms, (FINE, FINE))

    def __call__(self, picture, affine):
        """S, the greater of up and clicked: float32 [FINE, FINE]; and how the best place stands
        between the two, see standing().
        """
        seen = self.gray(picture, affine)
        f = cv2.GaussianBlur(seen - SOFT * self.ground, (0, 0), 1.0)
        curved, near = laplacian(f), slice(self.kernel // 2, self.kernel // 2 + FINE)
        energy = (
            cv2.Sobel(f, cv2.CV_32F, 1, 0, ksize=1, scale=0.5) ** 2
            + cv2.Sobel(f, cv2.CV_32F, 0, 1, ksize=1, scale=0.5) ** 2
        )
        floor = (FLOOR * energy.mean() * self.kernel + 1) * self.kernel
        energy = np.sqrt(
            cv2.boxFilter(energy, -1, (self.kernel, self.kernel), normalize=False)[near, near]
            + floor
        )
        # shared by up and clicked
        line, over = self.spectrum(curved), self.spectrum(curved * self.ground)
        found = (
            cv2.mulSpectrums(line, k, 0, conjB=True) - cv2.mulSpectrums(over, alpha, 0, conjB=True)
            for k, alpha in self.spectra
        )
        found = (cv2.idft(f, flags=cv2.DFT_SCALE)[:FINE, :FINE] for f in found)
        likeness = (
            functools.reduce(np.maximum, (f / norm for f, (_, _, norm) in zip(found, self.knobs)))
            / energy
        )
        row, column = np.unravel_index(likeness.argmax(), likeness.shape)
        place = np.s_[row : row + self.kernel, column : column + self.kernel]
        up, clicked = (
            k + (1 - alpha) * self.ground[place] for k, alpha, _ in (self.knobs[0], self.knobs[-1])
        )
        x, d = seen[place] - up, clicked - up
        cx, cd, x, d = (v.ravel() for v in (laplacian(x), laplacian(d), x, d))
        return likeness, standing(d.size, d @ d, d @ cd, x @ d, x @ cd, x @ cx)


class ButtonFilter:
    """Where a picture stands between each button at rest and pressed, see standing()."""

    def __init__(self, boxes: dict, looks, median, affine, size):
        self.canvas = size
        self.size = WIDE, max(8, round(WIDE * size[1] / size[0]))
        rest, pressed = (
            cv2.resize(look, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
            for look in looks
        )
        still = self.seen(median, affine).astype(np.float32)
        self.opacity = opacity(rest, still)
        rest, pressed = self.opacity * rest, self.opacity * pressed
        clear = 1.001 - rest[..., 3:] / 255
        ground = (
            cv2.GaussianBlur((still - rest[..., :3]).clip(0), (0, 0), 6.0)
            / cv2.GaussianBlur(clear, (0, 0), 6.0)[..., None]
        )
        self.rest = rest[..., :3] + (clear - 0.001) * ground.clip(0, 255)
        change = pressed - rest
        change = change[..., :3] - change[..., 3:] / 255 * ground.clip(0, 255)
        parts, values = {}, np.arange(change.size).reshape(change.shape)
        for name, box in boxes.items():
            part = render.region(np.array(box) * WIDE / size[0] + (-1, -1, 2, 2))
            if np.abs(change[part]).max(initial=0) > 4:
                parts[artefact.BUTTONS.index(name)] = values[part].ravel()
        self.buttons, self.sizes = list(parts), np.array([len(p) for p in parts.values()], int)
        # of all buttons, one after the other
        self.values = np.concatenate([*parts.values(), np.zeros(0, int)])
        self.change, self.curved = change.take(self.values), laplacian(change).take(self.values)
        self.norms = self.sums(self.change * self.change), self.sums(self.change * self.curved)

    def seen(self, picture, affine):
        return render.crop(picture, affine, self.canvas, *self.size)

    def sums(self, values):
        """Of each button's values."""
        return np.add.reduceat(values, np.cumsum(self.sizes) - self.sizes)

    def __call__(self, seen):
        """float32 [16, MARKS]; 0 for what the template does not show."""
        f, marks = (
            cv2.subtract(seen, self.rest, dtype=cv2.CV_32F),
            np.zeros((16, MARKS), np.float32),
        )
        x, curved = f.take(self.values), laplacian(f).take(self.values)
        marks[self.buttons] = standing(
            self.sizes, *self.norms, *map(self.sums, (x * self.change, x * self.curved, x * curved))
        )
        return marks


class MatchedFilter:
    """What a template predicts, compared with the pictures of a video: for each stick where its
    knob may be, for each button how pressed it looks.
    """

    def __init__(self, template, median, affine, show=render.draw, scale=1.0):
        """median: RGB; affine: canvas px -> px of the median; show(template, buttons, sticks): as
        render.draw, at `scale`.
        """
        layout, rest = render.layout(template), (np.zeros(16, bool), np.zeros(4))
        self.sticks, buttons = (
            {},
            {k: v for k, v in layout["buttons"].items() if not k.endswith("THUMB")},
        )
        boxes = {name: [v * scale for v in box] for name, box in buttons.items()}
        looks = render.looks(boxes, lambda on: show(template, on, rest[1]))
        self.buttons = ButtonFilter(buttons, looks, median, affine, template.size)
        faintly = lambda *a: faint(show(*a), self.buttons.opacity)  # noqa: E731
        clicked, grounds = (
            np.array([b.endswith("THUMB") for b in artefact.BUTTONS]),
            faintly(render.without_sticks(template), *rest),
        )
        for i, side in enumerate(("LEFT", "RIGHT")):
            if side in layout["sticks"]:
                alone = render.stick_alone(template, side)
                knobs = [faintly(alone, *rest)] + [faintly(alone, clicked, rest[1])] * (
                    f"{side}_THUMB" in layout["buttons"]
                )
                self.sticks[i] = StickFilter(
                    layout["sticks"][side], grounds, knobs, scale, median, affine
                )
        self.still = self.compare(median, affine)

    def compare(self, picture, affine):
        seen = self.buttons.seen(picture, affine)
        maps, marks = np.zeros((2, FINE, FINE), np.float32), self.buttons(seen)
        for i, filter in self.sticks.items():
            maps[i], click = filter(picture, affine)
            if len(filter.knobs) > 1:  # a click shows on the knob, wherever that is
                marks[artefact.BUTTONS.index("LEFT_THUMB") + i] = click
        return maps, marks, seen

    def __call__(self, picture, affine):
        """(S of the picture and of the median float32 [2 sticks, 2, FINE, FINE], marks of both
        float32 [16, 2, MARKS], crop uint8 [h, WIDE, 3]).
        """
        maps, marks, seen = self.compare(picture, affine)
        return np.stack([maps, self.still[0]], 1), np.stack([marks, self.still[1]], 1), seen


class Agreement:
    """How well the frames of a video agree with the template drawn in the state that was read;
    `ways`: of reading the sticks.

    Per button and stick: the correlation of their edges where it is drawn, over all frames that are
    given; a wrong template draws what the frames do not show.  And of a button, if it is less: how
    much farther it stands from rest, on average, where it was read as pressed than elsewhere."""

    def __init__(self, template, ways: int = 1):
        self.template, self.layout, self.scale = (
            template,
            render.layout(template),
            WIDE / template.size[0],
        )
        # any way but the first reads the sticks alone
        every = *self.layout["buttons"], *self.layout["sticks"]
        self.sums = [
            {name: np.zeros(3) for name in names}
            for names in (every, *[self.layout["sticks"]] * (ways - 1))
        ]
        self.parts = {name: self.part(*box) for name, box in self.layout["buttons"].items()}
        self.stands = np.zeros((2, 16)), np.zeros((2, 16))  # sum and number, at rest and pressed

    def add(self, crop, marks, buttons, *sticks):
        """crop uint8 [h, WIDE, 3] and marks [16, 2, MARKS] of a MatchedFilter; buttons bool [16];
        sticks [4] in -1..1, for each way.
        """
        each = np.arange(16)
        self.stands[0][buttons.astype(int), each] += marks[:, 0, :2].clip(-0.5, 1.5).mean(-1)
        # else there is nothing to compare
        self.stands[1][buttons.astype(int), each] += marks[:, 0, 3] > FAINT
        seen = crop[: round(self.template.size[1] * self.scale)].astype(np.float32)
        edges = render.band(seen, COARSE)
        for sums, axes in zip(self.sums, sticks):
            model = render.expected(
                seen,
                render.draw(self.template, buttons, axes, self.scale)[: len(seen)].astype(
                    np.float32
                ),
                COARSE,
            )
            # a click shows on the knob, wherever that is
            for side, (cx, cy, travel, w, h) in self.layout["sticks"].items():
                x, y = axes[:2].tolist() if side == "LEFT" else axes[2:].tolist()
                self.parts[side] = self.parts[f"{side}_THUMB"] = self.part(
                    cx + travel * x - w / 2, cy + travel * y - h / 2, w, h
                )
            for name in sums:
                a, b = edges[self.parts[name]].ravel(), model[self.parts[name]].ravel()
                sums[name] += a @ b, a @ a, b @ b

    def part(self, x, y, w, h):
        """Of the crop, for a box in canvas px."""
        return render.region(
            (x * self.scale - 1, y * self.scale - 1, w * self.scale + 2, h * self.scale + 2)
        )

    def result(self, way: int = 0) -> dict:
        """{name: -1..1}; 0 for what is drawn so faintly that nothing can be compared."""
        at_rest, pressed = self.stands[0] / np.maximum(self.stands[1], 1)
        often = self.stands[1] >= 3
        # the ground behind shifts both; alone it must do without
        apart = np.where(often[0], pressed - at_rest, pressed - PRESSED / 2)
        states = dict(zip(artefact.BUTTONS, np.where(often[1], apart / PRESSED, 1).clip(0, 1)))
        edges = {
            name: ab / max((aa * bb) ** 0.5, 1e-6) for name, (ab, aa, bb) in self.sums[way].items()
        }
        return {
            name: round(float(min(value, states.get(name, 1))), 3) for name, value in edges.items()
        }


def read_alone(maps, marks):
    """What the matched filters say by themselves, the floor of every table: maps [T, 2, 2, FINE,
    FINE], marks [T, 16, 2, MARKS] -> (buttons bool [T, 16], sticks float32 [T, 4] in grid
    cells)."""
    cells, _ = locate(torch.from_numpy(maps[:, :, 0]).flatten(-2) * GAIN)
    return marks[:, :, 0, :2].clip(-0.5, 1.5).mean(-1) > PRESSED, cells.flatten(-2).numpy()
