"""Overlay images per second, and what localization takes among many templates: python extract.py
bench
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from common.command_line import Common, expect
from common.pictures import sample

import cv2
import numpy as np

import extract
from templates import library, render, xfeat
from templates.pads import TEMPLATES


@dataclass(frozen=True)
class Config(Common):
    videos: tuple[str, ...] = ()  # also: CPU seconds to look for the overlay of each of these
    size: int = 256  # px: the overlay is scaled to fit into a square of this side
    images: int = 20  # random states per template
    # templates to look among; beyond the built-in ones, recoloured copies of them
    pool: int = len(TEMPLATES)


def crowd(n: int) -> library.Pool:
    """n templates: the built-in ones, then copies of them in other colours: the hardest that there
    are to tell apart.
    """
    names, copies = list(TEMPLATES), {}
    for i in range(n - len(names)):
        copy, source = i // len(names) + 1, library.builtin(names[i % len(names)])
        colours = cv2.convertScaleAbs(
            np.roll(source.atlas[..., :3], copy % 3, 2),
            alpha=1 / (1 + copy % 4),
            beta=20 * copy % 200,
        )
        copies[f"{source.name}/{copy}"] = replace(
            source, name=f"{source.name}/{copy}", atlas=np.dstack([colours, source.atlas[..., 3]])
        )
    return library.Pool(names[:n], copies)


def main(cfg: Config) -> float:
    """Overlay images drawn per second of one core, over all templates: 3 of 16 buttons pressed,
    sticks anywhere; and what localization takes.
    """
    expect(cfg, size=(8, 4096), images=(1, 1e6), pool=(1, 1e5))
    rng, spent, shown = np.random.default_rng(cfg.seed), 0.0, list(library.templates().values())
    for t in shown:
        scale = cfg.size / max(t.size)
        render.draw(t, np.zeros(16), np.zeros(4), scale)
        buttons, sticks = rng.random((cfg.images, 16)) < 3 / 16, rng.uniform(-1, 1, (cfg.images, 4))
        start = time.process_time()
        for state in zip(buttons, sticks):
            render.draw(t, *state, scale)
        spent += time.process_time() - start
    rate = len(shown) * cfg.images / spent
    print(
        f"{len(shown)} templates, {cfg.images} images each, {cfg.size} px: {rate:,.0f} images/s on one core"
    )
    among = crowd(cfg.pool)
    for detector in extract.detectors(xfeat.XFEAT_WEIGHTS) if cfg.videos else ():
        extract.bank_of(among, detector)  # once
    for video in cfg.videos:
        start = time.process_time()
        sample(video, extract.FRAMES)
        decoded = time.process_time()
        tensors, info, _ = extract.locate(video, among, extract.Config())
        print(
            f"{video}: {info['template'] if tensors else 'nothing'} among {len(among):,} templates, "
            f"{time.process_time() - decoded:.1f} CPU seconds, {decoded - start:.1f} of them to decode"
        )
    return rate
