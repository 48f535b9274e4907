"""XFeat trained on drawn pairs of pictures: python extract.py train"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, expect, recipe_of
from common.device import autocast, keep_memory, pick_device
from common.training import Training, batches, machine

import cv2
import numpy as np

from templates import library, render, scenes, xfeat
from templates.pads import held_out


def corners(rgb):
    """The teacher of the keypoint head: Shi-Tomasi corners, float32 [n, 2] px.  DEVIATION: the
    paper's is ALIKE.
    """
    found = cv2.goodFeaturesToTrack(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 500, 0.01, 4)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2) + 0.5


def cells(points, side):
    """Which pixel of each 8 x 8 cell is a keypoint, int64 [side / 8, side / 8]; 64: none."""
    out = np.full((side // xfeat.CELL, side // xfeat.CELL), xfeat.CELL * xfeat.CELL)
    x, y = points[((points >= 0) & (points < side)).all(1)].astype(int).T
    out[y // xfeat.CELL, x // xfeat.CELL] = y % xfeat.CELL * xfeat.CELL + x % xfeat.CELL
    return out


def random_state(rng):
    """(buttons bool [16], sticks [4]): a pad at rest or in use."""
    return rng.random(16) < rng.choice([0, 0.1, 0.3]), rng.uniform(-1, 1, 4) * (rng.random() < 0.6)


class Pairs:
    """Pairs of pictures with points known in both; item i follows from (seed, i) alone.

    Most show a template over a plain ground, and the same template over a game, or as the temporal
    median shows it: sharp over a washed-out game.  The others show a game picture twice, under a
    homography. A dict: images uint8 [2, SIDE, SIDE], gray; points float32 [2, POINTS, 2] px;
    corners int64 [2, SIDE / 8, SIDE / 8], see `cells`.
    """

    # px; per pair; game pictures in use; items until new ones are painted
    SIDE, POINTS, SCENES, REPAINT = 224, 160, 48, 2048

    def __init__(self, seed: int, pool: list, photos=()):
        # photos: frames of games, RGB, beside the painted ones
        self.seed, self.pool, self.photos = seed, pool, photos
        self.era, self.scenes = None, []

    def window(self, rng, index, side):
        """A square of a game picture, uint8 [side, side, 3]."""
        if self.era != index // self.REPAINT:
            cv2.setNumThreads(1)
            self.era = index // self.REPAINT
            paints = np.random.default_rng([self.seed, self.era, 1])
            self.scenes = [scenes.paint(paints) for _ in range(self.SCENES)]
        pictures = self.photos if len(self.photos) and rng.random() < 0.5 else self.scenes
        picture = pictures[rng.integers(len(pictures))]
        h, w = picture.shape[:2]
        cut = min(round(side * rng.uniform(0.6, 1.6)), h, w)
        x, y = rng.integers(0, (w - cut + 1, h - cut + 1))
        part = picture[y : y + cut, x : x + cut]
        return cv2.resize(
            part, (side, side), interpolation=cv2.INTER_AREA if cut > side else cv2.INTER_LINEAR
        )

    def washed(self, rng, index, side):
        """What the temporal median leaves of a game."""
        small = [
            cv2.resize(self.window(rng, index, side), (5, 5), interpolation=cv2.INTER_AREA)
            for _ in range(2)
        ]
        return cv2.resize(
            cv2.addWeighted(small[0], 0.5, small[1], 0.5, 0),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )

    def overlay_pair(self, rng, index):
        """(shown, clean, warp, where): two pictures as seen and undamaged, the way from one to the
        other [3, 3], where the template is.
        """
        side, template = self.SIDE, self.pool[rng.integers(len(self.pool))]
        size = np.array(template.size)
        first = np.exp(rng.uniform(*np.log((90, 420))))  # px, its width in the first picture
        second = np.clip(first * np.exp(rng.uniform(-0.5, 0.5)), 80, 420)
        scale = np.array([first, second])[:, None] / size[0]
        corner = (
            side / 2
            + rng.uniform(-0.2, 0.2, (2, 2)) * side
            - scale * size * rng.uniform(0.15, 0.85, 2)
        )
        plain = [
            np.full((side, side, 3), rng.integers(30, 200), np.uint8),
            np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8),
        ]
        grounds = [plain[rng.integers(2)] if rng.random() < 0.8 else self.washed(rng, index, side)]
        still = rng.random() < 0.35  # the second as the median shows it
        grounds.append(self.washed(rng, index, side) if still else self.window(rng, index, side))
        states = [
            random_state(rng) if rng.random() < 0.2 else (np.zeros(16), np.zeros(4)),
            random_state(rng) if not still or rng.random() < 0.3 else (np.zeros(16), np.zeros(4)),
        ]
        shown, clean = [], []
        for ground, state, s, c, opacity in zip(
            grounds, states, scale[:, 0], corner, (1.0, rng.uniform(0.3, 1))
        ):
            overlay = render.resample(render.draw(template, *state), (s, s, *c), side, side)
            shown.append(ground.copy())
            clean.append(ground)
            render.composite(shown[-1], overlay, 0, 0, opacity)
            render.composite(clean[-1], overlay, 0, 0)
            if len(shown) == 1:
                where = cv2.dilate(overlay[..., 3], np.ones((7, 7))) > 40
        shown[1] = scenes.degrade(rng, shown[1])
        ratio = scale[1, 0] / scale[0, 0]
        warp = np.array(
            [
                [ratio, 0, corner[1, 0] - ratio * corner[0, 0]],
                [0, ratio, corner[1, 1] - ratio * corner[0, 1]],
                [0, 0, 1],
            ]
        )
        return shown, clean, warp, where

    def warped_pair(self, rng, index):
        """The same of a game picture: a square of it, and a slightly turned, scaled and skewed
        quadrilateral.
        """
        side = self.SIDE
        big = self.window(rng, index, side * 3 // 2)
        square, ways = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), []
        for loose in (0.0, 1.0):
            turn, grow = loose * rng.normal(0, 0.12), np.exp(loose * rng.uniform(-0.3, 0.3))
            rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * grow
            quad = (
                (square - 0.5) @ rotate
                + 0.75
                + rng.uniform(-0.15, 0.15, 2)
                + loose * rng.uniform(-0.06, 0.06, (4, 2))
            ) * side
            ways.append(cv2.getPerspectiveTransform(quad.astype(np.float32), square * side))
        # OpenCV counts from the pixel's centre
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        clean = [
            cv2.warpPerspective(
                big, np.linalg.inv(half) @ m @ half, (side, side), borderMode=cv2.BORDER_REFLECT
            )
            for m in ways
        ]
        return (
            [scenes.degrade(rng, c) for c in clean],
            clean,
            ways[1] @ np.linalg.inv(ways[0]),
            np.ones((side, side), bool),
        )

    def __getitem__(self, index):
        rng, side, margin = np.random.default_rng([self.seed, int(index)]), self.SIDE, 4
        while True:
            shown, clean, warp, where = (
                self.overlay_pair if rng.random() < 0.75 else self.warped_pair
            )(rng, index)
            found = [corners(c) for c in clean]
            # corners whose place in the other is known
            sure = found[0][where[tuple(found[0].astype(int).T[::-1])]]
            rows, columns = np.nonzero(where)
            pick = rng.integers(len(rows), size=2 * self.POINTS) if len(rows) else []
            spread = np.stack([columns[pick], rows[pick]], 1) + rng.random((len(pick), 2))
            points = np.concatenate([rng.permutation(sure)[: self.POINTS // 2], spread]).astype(
                np.float32
            )
            moved = cv2.perspectiveTransform(points[None], warp)[0] if len(points) else points
            inside = (
                (points > margin)
                & (points < side - margin)
                & (moved > margin)
                & (moved < side - margin)
            ).all(1)
            if inside.sum() >= 32:
                break
        keep = np.resize(np.flatnonzero(inside), self.POINTS)
        carried = cv2.perspectiveTransform(sure[None], warp)[0] if len(sure) else sure
        return {
            "images": np.stack([m.mean(2).astype(np.uint8) for m in shown]),
            "points": np.stack([points[keep], moved[keep]]),
            "corners": np.stack(
                [cells(found[0], side), cells(np.concatenate([found[1], carried]), side)]
            ),
        }


# ---- XFeat: training -----------------------------------------------------------------------------


# ---- yours to change: the loss
def xfeat_loss(w: dict, batch: dict, train: bool = True):
    """(loss, descriptor part, keypoint part, share of points found among all others), as in the
    paper less the fine matcher.

    DEVIATION: descriptors are compared by cosine, as they are when matching, and read where the
    point truly is; a point has to be told not only from the other points but from every cell of the
    other picture that is more than a cell away.
    """
    import torch
    import torch.nn.functional as F

    images, where = batch["images"], batch["points"].flatten(0, 1)  # B 2 S S; 2B K 2
    side, sharp = images.shape[-1], 16.0
    features, logits, reliability = xfeat.xfeat_net(
        w, images.flatten(0, 1)[:, None].float() / 255, train
    )
    features, reliability = F.normalize(features.float()), reliability.float()
    points = F.normalize(xfeat.at_points(features, where - 0.5, (side, side)), dim=-1)  # 2B K 64
    swap = torch.arange(len(where), device=where.device) ^ 1  # the other picture of the pair
    line = torch.arange(side // xfeat.CELL, device=where.device) * xfeat.CELL + xfeat.CELL / 2
    grid = torch.cartesian_prod(line, line).flip(-1)  # N 2 px: centres of the cells
    near_point = torch.cdist(where, where) < xfeat.CELL
    near_point |= near_point[swap]
    near_point &= ~torch.eye(where.shape[1], dtype=torch.bool, device=where.device)
    near_cell = torch.cdist(where[swap], grid) < 1.5 * xfeat.CELL
    like = torch.cat(
        [
            (points @ points[swap].mT).masked_fill(near_point, -1),
            (points @ features[swap].flatten(2)).masked_fill(near_cell, -1),
        ],
        -1,
    )
    log_p = (sharp * like).log_softmax(-1).diagonal(dim1=1, dim2=2)  # 2B K
    trust = (log_p + log_p[swap]).detach().exp()  # found, both ways
    matching, certainty = (
        -log_p.mean(),
        (xfeat.at_points(reliability, where - 0.5, (side, side))[..., 0] - trust).abs().mean(),
    )
    few = torch.ones(xfeat.CELL * xfeat.CELL + 1, device=where.device)
    few[-1] = 0.03  # most cells have no corner
    keypoint = F.cross_entropy(logits.float(), batch["corners"].flatten(0, 1), few)
    hit = (like.argmax(-1) == torch.arange(where.shape[1], device=where.device)).float().mean()
    return matching + 3 * certainty + 2 * keypoint, matching.detach(), keypoint.detach(), hit


@dataclass(frozen=True)
class Config(Common):
    out: str = "data/xfeat.safetensors"  # the weights; <stem>.state.safetensors beside it resumes
    init: str = ""  # weights to start from: ours, or the official xfeat.pt
    backgrounds: str = ""  # folder of gameplay videos to use beside the painted pictures
    steps: int = 160_000  # of the paper; the learning rate falls over them
    # stop after so long, if that is sooner (all runs of this command together); 0: no limit
    minutes: float = 0.0
    batch: int = 6  # pairs of pictures per step; the paper: 10
    lr: float = 1e-3  # peak, of Adam; DEVIATION: 3e-4 in the paper, for far more steps
    validation: int = 200  # pairs of held-out templates for the figure at the end
    workers: int = 0  # processes that draw; 0: this one
    threads: int = 0  # CPU threads of the network; 0: as torch likes


def random_weights(seed: int) -> dict:
    """Weights to start from: He's for what a ReLU follows; the last layers smaller, their biases 0."""
    import torch

    dice, out = torch.Generator().manual_seed(seed), {}
    for name, shape in xfeat.xfeat_shapes().items():
        fan_in = math.prod(shape[1:])
        out[name] = (
            torch.ones(shape)
            if name.endswith("var")
            else torch.zeros(shape)
            if len(shape) == 1
            else torch.randn(shape, generator=dice)
            * math.sqrt((2 if ".layer." in name else 1) / fan_in)
        )
    return out


class XFeatTraining(Training):
    def __init__(self, cfg: Config, device: str):
        import torch

        start = xfeat.load_xfeat(cfg.init) if cfg.init else random_weights(cfg.seed)
        self.w = {
            k: v.to(device, memory_format=torch.channels_last) if v.ndim == 4 else v.to(device)
            for k, v in start.items()
        }
        params = {k: v.requires_grad_() for k, v in self.w.items() if "running" not in k}
        recipe = recipe_of(
            cfg, *scenes.files_in(cfg.backgrounds), *([cfg.init] if cfg.init else [])
        )
        super().__init__(
            cfg, params, torch.optim.Adam(params.values(), cfg.lr, fused=True), cfg.steps, recipe
        )
        self.changing = {k: v for k, v in self.w.items() if "running" in k}
        self.resume()

    def rate(self) -> float:
        """A short warm-up, then half a cosine down to 2 % of the peak.  DEVIATION: the paper halves
        it every 30,000 steps.
        """
        return self.cfg.lr * min(
            (self.steps + 1) / 100, 0.51 + 0.49 * math.cos(math.pi * min(self.share(), 1))
        )

    def step(self, batch: dict):
        device = self.w["skip1.1.bias"].device
        with autocast(str(device)):
            loss, *parts = xfeat_loss(
                self.w, {k: v.to(device, non_blocking=True) for k, v in batch.items()}
            )
        self.descend(loss)
        return [loss.item(), *(p.item() for p in parts)]


def held_out_points(w: dict, data: Pairs, count: int) -> float:
    """Share of points that are found among all others and all cells of the other picture, over
    `count` pairs.
    """
    import torch

    device, hits = w["skip1.1.bias"].device, []
    with torch.no_grad():
        for item in (data[i] for i in range(count)):
            hits.append(
                xfeat_loss(
                    w,
                    {k: torch.as_tensor(v, device=device)[None] for k, v in item.items()},
                    train=False,
                )[3].item()
            )
    return float(np.mean(hits))


def main(cfg: Config) -> None:
    import torch

    device = pick_device(cfg.device)
    keep_memory()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    if cfg.backgrounds and not Path(cfg.backgrounds).is_dir():
        raise SystemExit(f"--backgrounds {cfg.backgrounds}: no such folder")
    expect(
        cfg,
        steps=(1, 1e12),
        minutes=(0, math.inf),
        batch=(1, 1e6),
        lr=(0, 1e3),
        validation=(1, 1e9),
        workers=(0, 4096),
        threads=(0, 4096),
    )
    run, photos = (
        XFeatTraining(cfg, device),
        scenes.film_frames(cfg.backgrounds) if cfg.backgrounds else [],
    )
    known, unseen = (
        [t for name, t in library.templates().items() if held_out(name) == out]
        for out in (False, True)
    )
    until = f"{cfg.minutes:g} minutes" if cfg.minutes else f"{cfg.steps:,} steps"
    data = Pairs(cfg.seed, known, [p for i, p in enumerate(photos) if i % 8])
    print(
        f"train XFeat, {sum(p.numel() for p in run.params.values()):,} parameters, on {device}: {len(known)} templates ({len(unseen)} held out), "
        f"{len(photos)} frames of games, batches of {cfg.batch} pairs, until {until} -> {cfg.out}\n{cfg}"
    )
    if not run.follow(
        lambda first, count: batches(data, first, count, cfg.batch, cfg.workers),
        lambda v: (
            f"loss {v[0]:.3f} (descriptors {v[1]:.3f}, keypoints {v[2]:.3f}), found {v[3]:.3f}"
        ),
    ):
        return
    w = {k: v.detach().cpu().half() for k, v in run.w.items()}
    found = held_out_points(run.w, Pairs(cfg.seed + 1, unseen, photos[::8]), cfg.validation)
    print(f"points of held-out templates told from all others of the picture: {found:.3f}")
    artefact.write(
        cfg.out,
        {k: v.numpy() for k, v in w.items()},
        "nitrogen.features/1",
        recipe=run.recipe,
        steps=run.steps,
        images=2 * cfg.batch * run.steps,
        minutes=round(run.seconds / 60, 1),
        machine=machine(device),
        templates=len(known),
        held_out=len(unseen),
        found_held_out=round(found, 4),
    )
    print(f"{cfg.out}: {Path(cfg.out).stat().st_size:,} bytes")
