"""Features of pictures, SIFT's and XFeat's, and the index of the features of all templates.

`bank_of` gives the index, in which `match` finds the descriptors that are like those of a picture.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import inspect
import math
import os

from common import ROOT, artefact

import cv2
import numpy as np
from tqdm import tqdm

from templates import library, pads, render, shapes, xfeat

GROUNDS = (60, 150)  # CHOICE: grays behind a template when SIFT describes it
SCALES = (1.0, 0.5)  # CHOICE: of the template then; SIFT bridges what lies between
GROUND, RIM = 110, 16  # CHOICE: gray behind, and px around, a template when XFeat describes it
MOST = 1000  # CHOICE: keypoints of one picture of a template
PROBES = 5  # cells of the index that a search looks into
# CHOICE: bytes of data/index.  The built-in templates take 95 MB, a skin 0.15 MB.
ROOM = 256 << 20
BLOCK = 8192  # descriptors that are compared with all centers at once


# ---- features of a picture -----------------------------------------------------------------------


def sift(rgb):
    """SIFT (Lowe, IJCV 2004) of an RGB image.

    Returns points float32 [n, 4], (x, y, size in px, angle in degrees), and descriptors uint8
    [n, 128].
    """
    detector = cv2.SIFT_create(8000, contrastThreshold=0.02)
    found, descriptors = detector.detectAndCompute(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
    if not found:
        return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    points = [(k.pt[0] + 0.5, k.pt[1] + 0.5, k.size, k.angle) for k in found]
    return np.array(points, np.float32), descriptors.astype(np.uint8)


def root(descriptors):
    """RootSIFT (Arandjelovic and Zisserman, CVPR 2012): uint8 [n, 128] -> float32 [n, 128] of
    length 1.
    """
    descriptors = descriptors.astype(np.float32)
    return np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))


def rootsift(rgb):
    """As `sift`, with the descriptors of `root`."""
    points, descriptors = sift(rgb)
    return points, root(descriptors)


def xfeatures(rgb, weights: str):
    """XFeat in the form of `rootsift`: float32 [n, 4], float32 [n, 64].

    XFeat gives no sizes and no angles: they are 1 px and 0 degrees.
    """
    points, descriptors = xfeat.detect(rgb, xfeat.xfeat(weights))
    columns = [points, np.ones(len(points)), np.zeros(len(points))]
    return np.column_stack(columns).astype(np.float32), descriptors


def detectors(weights: str) -> dict:
    """Name -> function from an RGB image to (points, descriptors); weights: XFeat's file."""
    return {"sift": rootsift, "xfeat": functools.partial(xfeatures, weights=weights)}


# ---- features of the templates -------------------------------------------------------------------


def poses(template, detector: str) -> list:
    """The pictures of a template at rest that are described: [(uint8 [h, w, 3], scale, rim in px)].

    XFeat bears less change of scale, so it gets more sizes.  The sides of its pictures are
    multiples of 32, which `xfeat.detect` does not resize.
    """
    if detector == "sift":
        return [
            (render.idle(template, ground, scale), scale, 0)
            for ground in GROUNDS
            for scale in SCALES
        ]
    out = []
    for width in xfeat.XFEAT_WIDTHS:
        scale = width / template.size[0]
        w, h = (math.ceil((side * scale + 2 * RIM) / 32) * 32 for side in template.size)
        picture = np.full((h, w, 3), GROUND, np.uint8)
        render.composite(picture, render.at_rest(template, scale), RIM, RIM)
        out.append((picture, scale, RIM))
    return out


def described(pool: library.Pool, names: list, detector: str, weights: str) -> dict:
    """What `detector` finds in the templates of these names.

    points float32 [n, 4], in canvas px; descriptors float32 [n, d]; owner int32 [n], number in
    `names`; sizes float32 [templates, 2], px.
    """
    find = detectors(weights)[detector]

    def describe(name):
        found = []
        for picture, scale, rim in poses(pool[name], detector):
            points, descriptors = find(picture)
            points = (points - (rim, rim, 0.0, 0.0)) / (scale, scale, scale, 1)
            found.append((points[:MOST].astype(np.float32), descriptors[:MOST]))
        return pool[name].size, *map(np.concatenate, zip(*found, strict=True))

    # In threads it is 1.3 to 1.5 times as fast on two cores: OpenCV runs beside Python, in which
    # templates are drawn.  PyTorch uses all cores by itself.
    threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count() if detector == "sift" else 1)
    try:
        results = threads.map(describe, names)
        bar = tqdm(results, "templates described, once", len(names), leave=False, mininterval=2)
        sizes, points, descriptors = zip(*bar, strict=True)
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C: what has not begun does not begin
    return {
        "points": np.concatenate(points),
        "descriptors": np.concatenate(descriptors),
        "sizes": np.array(sizes, np.float32),
        "owner": np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, points))),
    }


# ---- the index -----------------------------------------------------------------------------------


def cached(digest: str, make, **facts) -> dict:
    """The tensors that `make()` makes: read from data/index if they were made before.

    Of the other files there, those used last stay, up to ROOM bytes in all.
    """
    path = ROOT / "data/index" / f"{digest}.safetensors"
    form = "nitrogen.index/1"
    with contextlib.suppress(SystemExit):  # the file is missing or broken: make it
        tensors = artefact.read(path, form)[0]
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use
        return tensors
    tensors = make()
    # a folder that cannot be written costs time, nothing else
    with contextlib.suppress(OSError, SystemExit):
        artefact.write(path, tensors, form, **facts)
        room = ROOM
        for file in sorted(path.parent.iterdir(), key=os.path.getmtime, reverse=True):
            room -= file.stat().st_size
            if room < 0 and file != path:
                file.unlink(missing_ok=True)
    return tensors


def made_by(detector: str, weights: str) -> bytes:
    """All that the descriptors of a template follow from: the code, its constants, the weights."""
    code = (shapes, pads, render, xfeat, sift, root, xfeatures, poses, described)
    constants = (detector, GROUNDS, SCALES, GROUND, RIM, MOST, xfeat.XFEAT_WIDTHS)
    out = ("".join(map(inspect.getsource, code)) + repr(constants)).encode()
    if detector == "xfeat":
        out += b"".join(v.numpy().tobytes() for v in xfeat.xfeat(weights).values())
    return out


def nearest(descriptors, centers):
    """int64 [n]: the center, float32 [cells, d], that each descriptor, [n, d], is most like."""
    blocks = [descriptors[i : i + BLOCK] for i in range(0, len(descriptors), BLOCK)]
    return np.concatenate([(block @ centers.T).argmax(1) for block in blocks])


def sorted_into(cell, centers, sizes, **rows) -> dict:
    """The index, see `index`, whose rows, in any order, belong to these cells, int64 [n]."""
    order = np.argsort(cell, kind="stable")
    start = np.searchsorted(cell[order], np.arange(len(centers) + 1))
    rows = {name: value[order] for name, value in rows.items()}
    return {**rows, "centers": centers, "start": start, "sizes": sizes}


def in_cells(points, descriptors, owner, sizes) -> dict:
    """The index of these features, see `index`; descriptors float32 [n, d] of length 1.

    Each center is one of the descriptors, drawn at random.
    """
    cells = max(1, min(len(points) // 128, 8192))
    centers = descriptors[np.random.default_rng(0).permutation(len(points))[:cells]]
    short = (descriptors * 254).clip(-127, 127).astype(np.int8)
    cell = nearest(descriptors, centers)
    return sorted_into(cell, centers, sizes, points=points, descriptors=short, owner=owner)


def joined(skins: list, bank: dict) -> dict:
    """One index of the indices of `skins`, one template each, and of `bank`, in the bank's cells;
    the skins' numbers come first.
    """
    centers = bank["centers"]
    cells = [nearest(skin["descriptors"].astype(np.float32), centers) for skin in skins]
    cells.append(np.repeat(np.arange(len(centers)), np.diff(bank["start"])))
    parts = [*skins, bank]
    rows = {key: np.concatenate([p[key] for p in parts]) for key in ("points", "descriptors")}
    owner = [skin["owner"] + i for i, skin in enumerate(skins)]
    rows["owner"] = np.concatenate([*owner, bank["owner"] + np.int32(len(skins))])
    sizes = np.concatenate([p["sizes"] for p in parts])
    return sorted_into(np.concatenate(cells), centers, sizes, **rows)


def index(pool: library.Pool, detector: str, weights: str) -> dict:
    """Descriptors of all templates, sorted into cells of like ones, so that a search looks at few.

    points float32 [n, 4] as in `sift`, in canvas px; descriptors int8 [n, d], 127 = 0.5; owner
    int32 [n], number in the pool; centers float32 [cells, d]; start int64 [cells + 1]; sizes
    float32 [templates, 2], px.

    The built-in templates have one file in data/index and each own skin another: a person adds or
    changes a skin and tries again, and only that one is described.
    """
    recipe = made_by(detector, weights)

    def kept(names, content: bytes):
        digest = hashlib.sha256(recipe + content).hexdigest()[:16]

        def make():
            return in_cells(**described(pool, names, detector, weights))

        return cached(digest, make, templates=names)

    builtin = [name for name in pool if name not in pool.own]
    bank = kept(builtin, repr(builtin).encode())
    skins = [
        kept([name], skin.atlas.tobytes() + repr((skin.size, skin.elements)).encode())
        for name, skin in pool.own.items()
    ]
    return joined(skins, bank) if skins else bank


def bank_of(pool: library.Pool, detector: str, weights: str = xfeat.XFEAT_WEIGHTS) -> dict:
    """The pool's `index`, made or read once per process."""
    if (detector, weights) not in pool.indices:
        pool.indices[detector, weights] = index(pool, detector, weights)
    return pool.indices[detector, weights]


def match(descriptors, bank, least: float) -> np.ndarray:
    """All pairs of a picture's and the templates' descriptors with a cosine above `least`: int
    [2, m], rows of `descriptors` and rows of the bank.
    """
    import torch

    probes = min(PROBES, len(bank["centers"]))
    like = torch.from_numpy(descriptors @ bank["centers"].T)
    cell = torch.topk(like, probes, sorted=False)[1].numpy().ravel()
    order = np.argsort(cell, kind="stable")
    rows = order // probes  # of `descriptors`, by cell
    start = np.searchsorted(cell[order], np.arange(len(bank["centers"]) + 1))
    pairs = [np.zeros((2, 0), int)]
    for c in np.unique(cell):
        here = rows[start[c] : start[c + 1]]
        first, last = bank["start"][c : c + 2]
        cosine = descriptors[here] @ bank["descriptors"][first:last].astype(np.float32).T
        a, b = np.nonzero(cosine > least * 254)
        pairs.append(np.stack([here[a], b + first]))
    return np.concatenate(pairs, 1)
