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
INDICES = 8  # CHOICE: files in data/index, and in data/descriptors, that stay: those used last
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

    points float32 [n, 4], in canvas px; descriptors [n, d], SIFT's as uint8; owner int32 [n],
    number in `names`; sizes float32 [templates, 2], px.
    """
    find = sift if detector == "sift" else functools.partial(xfeatures, weights=weights)

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


def cached(folder: str, digest: str, make, **facts) -> dict:
    """The tensors that `make()` makes: read from data/`folder` if they were made before.

    Of the files there, the INDICES used last stay.
    """
    path = ROOT / "data" / folder / f"{digest}.safetensors"
    form = f"nitrogen.{folder}/1"
    with contextlib.suppress(SystemExit):  # the file is missing or broken: make it
        tensors = artefact.read(path, form)[0]
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use
        return tensors
    tensors = make()
    # a folder that cannot be written costs time, nothing else
    with contextlib.suppress(OSError, SystemExit):
        artefact.write(path, tensors, form, **facts)
        files = sorted(path.parent.glob("*.safetensors"), key=os.path.getmtime)
        for old in files[:-INDICES]:
            old.unlink(missing_ok=True)
    return tensors


def made_by(detector: str, weights: str) -> bytes:
    """All that the descriptors of a template follow from: the code, its constants, the weights."""
    code = (shapes, pads, render, xfeat, sift, root, xfeatures, poses, described)
    constants = (detector, GROUNDS, SCALES, GROUND, RIM, MOST, xfeat.XFEAT_WIDTHS)
    out = ("".join(map(inspect.getsource, code)) + repr(constants)).encode()
    if detector == "xfeat":
        out += b"".join(v.numpy().tobytes() for v in xfeat.xfeat(weights).values())
    return out


def in_cells(points, descriptors, owner, sizes) -> dict:
    """The index of these features, see `index`; descriptors float32 [n, d] of length 1.

    Each center is one of the descriptors, drawn at random; a descriptor goes to the cell of the
    center that is most like it.
    """
    cells = max(1, min(len(points) // 128, 8192))
    centers = descriptors[np.random.default_rng(0).permutation(len(points))[:cells]]
    blocks = [descriptors[i : i + BLOCK] for i in range(0, len(points), BLOCK)]
    cell = np.concatenate([(block @ centers.T).argmax(1) for block in blocks])
    order = np.argsort(cell, kind="stable")
    return {
        "points": points[order],
        "descriptors": (descriptors[order] * 254).clip(-127, 127).astype(np.int8),
        "owner": owner[order],
        "centers": centers,
        "start": np.searchsorted(cell[order], np.arange(len(centers) + 1)),
        "sizes": sizes,
    }


def index(pool: library.Pool, detector: str, weights: str) -> dict:
    """Descriptors of all templates, sorted into cells of like ones, so that a search looks at few;
    from data/index if it was made before.

    points float32 [n, 4] as in `sift`, in canvas px; descriptors int8 [n, d], 127 = 0.5; owner
    int32 [n], number in the pool; centers float32 [cells, d]; start int64 [cells + 1]; sizes
    float32 [templates, 2], px.
    """
    recipe = made_by(detector, weights)
    own = list(pool.own)
    builtin = [name for name in pool if name not in pool.own]

    def digest(names, skins=b""):
        return hashlib.sha256(recipe + repr(names).encode() + skins).hexdigest()[:16]

    def builtin_ones():
        return described(pool, builtin, detector, weights)

    def make():
        # A person adds or changes own templates and tries again: the built-in ones are not
        # described again then.  XFeat's descriptors would take four times the room, and are asked
        # for only where SIFT shows nothing.
        if detector == "sift":
            found = cached("descriptors", digest(builtin), builtin_ones, templates=builtin)
        else:
            found = builtin_ones()
        if own:
            mine = described(pool, own, detector, weights)
            found = {**found, "owner": found["owner"] + len(own)}
            found = {key: np.concatenate([mine[key], found[key]]) for key in mine}
        if detector == "sift":
            found = {**found, "descriptors": root(found["descriptors"])}
        return in_cells(**found)

    skins = [t.atlas.tobytes() + repr((t.size, t.elements)).encode() for t in pool.own.values()]
    return cached("index", digest(list(pool), b"".join(skins)), make, templates=list(pool))


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
