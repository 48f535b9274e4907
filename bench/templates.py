"""Overlay images per second, and what localization takes among many templates: python extract.py
bench
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from common.command_line import Common, expect
from common.video import Video

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


def recoloured(source: render.Template, copy: int) -> render.Template:
    """The template in other colours; each `copy`, from 1 on, gives others."""
    channels = np.roll(source.atlas[..., :3], copy % 3, 2)
    colours = cv2.convertScaleAbs(channels, alpha=1 / (1 + copy % 4), beta=20 * copy % 200)
    atlas = np.dstack([colours, source.atlas[..., 3]])
    return replace(source, name=f"{source.name}/{copy}", atlas=atlas)


def crowd(n: int) -> library.Pool:
    """n templates: the built-in ones, then copies of them in other colours: the hardest that there
    are to tell apart.
    """
    names = list(TEMPLATES)
    copies = {}
    for i in range(n - len(names)):
        template = recoloured(library.builtin(names[i % len(names)]), i // len(names) + 1)
        copies[template.name] = template
    return library.Pool(names[:n], copies)


def draw_all(cfg: Config) -> float:
    """Overlay images drawn per second of one core, over all templates."""
    rng = np.random.default_rng(cfg.seed)
    spent = 0.0
    shown = list(library.templates().values())
    for t in shown:
        scale = cfg.size / max(t.size)
        render.at_rest(t, scale)  # its pictures are cached
        buttons = rng.random((cfg.images, 16)) < 3 / 16
        sticks = rng.uniform(-1, 1, (cfg.images, 4))
        start = time.process_time()
        for state in zip(buttons, sticks, strict=True):
            render.draw(t, *state, scale)
        spent += time.process_time() - start
    rate = len(shown) * cfg.images / spent
    print(
        f"{len(shown)} templates, {cfg.images} images each, {cfg.size} px: "
        f"{rate:,.0f} images/s on one core"
    )
    return rate


def find(video: str, pool: library.Pool) -> None:
    """Localize one video and print the CPU seconds that it took."""
    start = time.process_time()
    Video(video).sample(extract.FRAMES)
    decoded = time.process_time()
    tensors, info, _ = extract.locate(video, pool, extract.Config())
    print(
        f"{video}: {info['template'] if tensors else 'nothing'} among {len(pool):,} templates, "
        f"{time.process_time() - decoded:.1f} CPU seconds, "
        f"{decoded - start:.1f} of them to decode"
    )


def main(cfg: Config) -> float:
    """Overlay images drawn per second of one core, over all templates: 3 of 16 buttons pressed,
    sticks anywhere; and what localization takes.
    """
    expect(cfg, size=(8, 4096), images=(1, 1e6), pool=(1, 1e5))
    rate = draw_all(cfg)
    if cfg.videos:
        among = crowd(cfg.pool)
        for detector in extract.detectors(xfeat.XFEAT_WEIGHTS):
            extract.bank_of(among, detector)  # once, not per video
        for video in cfg.videos:
            find(video, among)
    return rate
