"""The paper's rule of localization, frame by frame: SIFT alone (plain), or with XFeat (single)."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from templates import features, library, render, xfeat

SHORTLIST = 12  # CHOICE: templates that single and plain compare with each frame
SPARSE = 40  # CHOICE: points of a template by which these are chosen
GRAY = 110  # behind the templates of single and plain


# A detector: RGB -> points [n, 2] px, unit descriptors [n, d].  A matcher: the descriptors of a
# template, of a frame -> for each of the first the number of its match, or -1.


def sift(rgb):
    points, descriptors = features.rootsift(rgb)
    return points[:, :2], descriptors


def lowe(a, b, ratio=0.8):
    """The nearest, unless the second nearest is about as near (Lowe's ratio test)."""
    if len(b) < 2 or not len(a):
        return np.full(len(a), -1)
    like = a @ b.T  # cosine; distance^2 = 2 - 2 cosine
    rows = np.arange(len(a))
    near = like.argmax(1)
    best = like[rows, near]
    like[rows, near] = -1
    return np.where(1 - best < ratio**2 * (1 - like.max(1)), near, -1)


def mutual(a, b, least=0.82):
    """Each other's nearest, with the cosine that XFeat's authors ask for."""
    if not len(a) or not len(b):
        return np.full(len(a), -1)
    like = a @ b.T
    rows = np.arange(len(a))
    near = like.argmax(1)
    return np.where((like.argmax(0)[near] == rows) & (like[rows, near] > least), near, -1)


def detectors() -> dict:
    return {"plain": ((sift, lowe),), "single": ((sift, lowe), (xfeat.detect, mutual))}


@functools.lru_cache(4)
def bank(detect, folder: str):
    """Points, descriptors and owner (number in the pool) of all templates, and the rows of SPARSE
    random points of each.
    """
    parts = [detect(render.idle(t, GRAY)) for t in library.pool(folder).values()]
    owner = np.concatenate([np.full(len(p), i) for i, (p, _) in enumerate(parts)])
    rng = np.random.default_rng(0)
    sparse = []
    for i, (points, _) in enumerate(parts):
        sparse.append(np.flatnonzero(owner == i)[rng.permutation(len(points))[:SPARSE]])
    points = np.concatenate([p for p, _ in parts])
    descriptors = np.concatenate([d for _, d in parts])
    return points, descriptors, owner, np.concatenate(sparse)


def single_frames(seen, pairs, folder: str, also, bar: int) -> dict:
    """The paper's rule: match each template with each frame, fit an affine by RANSAC, accept it
    from `bar` inliers.

    Of all that pass in all frames the one with most inliers is taken (the paper leaves this open).
    seen: per detector, per frame what it found.  For time the frames are compared with the
    SHORTLIST templates that match three of them best, and with `also`, the name of the right one:
    the choice can only help.
    """
    pool = library.pool(folder)
    names = list(pool)
    best = (0, None, None)  # inliers, name, affine
    for i in shortlist(seen, pairs, folder, names, also):
        template = []
        for detect, match in pairs:
            points, descriptors, owner, _ = bank(detect, folder)
            template.append((points[owner == i], descriptors[owner == i], match))
        for frame in zip(*seen, strict=True):
            inliers, fit = registered(template, frame, bar)
            if inliers >= bar and inliers > best[0]:
                best = (inliers, names[i], fit)
    if not best[0]:
        return {"template": None}
    inliers, name, affine = best
    w, h = pool[name].size
    corners = np.array([[0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]) @ affine.T
    low, high = corners.min(0), corners.max(0)
    box = [*low.tolist(), *(high - low).tolist()]
    return {"template": name, "family": pool[name].family, "box": box, "inliers": inliers}


def shortlist(seen, pairs, folder: str, names: list[str], also) -> set[int]:
    """Numbers of the SHORTLIST templates with most matches in three frames, and of `also`."""
    counts = np.zeros(len(names), int)
    for (detect, _), frames in zip(pairs, seen, strict=True):
        _, descriptors, owner, sparse = bank(detect, folder)
        for _, there in frames[:: max(1, len(frames) // 2)]:
            matched = lowe(descriptors[sparse], there) >= 0
            counts += np.bincount(owner[sparse][matched], minlength=len(names))
    best = np.argsort(-counts, kind="stable")[:SHORTLIST].tolist()
    return {*best, *([names.index(also)] if also else [])}


def registered(template, frame, bar: int):
    """(inliers, affine float64 [2, 3] template px -> frame px) of a template in a frame, both as
    found by each detector.
    """
    source, target = [], []
    for (points, descriptors, match), (places, there) in zip(template, frame, strict=True):
        near = match(descriptors, there)
        source.append(points[near >= 0])
        target.append(places[near[near >= 0]])
    source, target = np.concatenate(source), np.concatenate(target)
    if len(source) < bar:
        return 0, None
    how = {"method": cv2.RANSAC, "ransacReprojThreshold": 3.0}
    affine, good = cv2.estimateAffine2D(source, target, **how)
    if affine is None:
        return 0, None
    return len(np.unique(target[good.ravel() > 0].round(), axis=0)), affine
