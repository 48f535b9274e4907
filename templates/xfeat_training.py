"""XFeat trained on drawn pairs of pictures: python extract.py train"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common, expect, recipe_of
from common.device import autocast, pick_device
from common.training import Training, set_up

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from templates import library, render, scenes, xfeat
from templates.pads import held_out


def corners(rgb):
    """Shi-Tomasi corners, float32 [n, 2] px: the teacher of the keypoint head.

    DEVIATION: the paper's is ALIKE.
    """
    found = cv2.goodFeaturesToTrack(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 500, 0.01, 4)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2) + 0.5


def cells(points, side):
    """Which pixel of each 8 x 8 cell is a keypoint, int64 [side / 8, side / 8]; 64: none."""
    out = np.full((side // xfeat.CELL, side // xfeat.CELL), xfeat.CELL * xfeat.CELL)
    x, y = points[((points >= 0) & (points < side)).all(1)].astype(int).T
    out[y // xfeat.CELL, x // xfeat.CELL] = y % xfeat.CELL * xfeat.CELL + x % xfeat.CELL
    return out


def carried(points, warp):
    """Points [n, 2] under a homography [3, 3]."""
    return cv2.perspectiveTransform(points[None], warp)[0] if len(points) else points


def random_state(rng):
    """(buttons bool [16], sticks [4]) of a pad at rest or in use."""
    return rng.random(16) < rng.choice([0, 0.1, 0.3]), rng.uniform(-1, 1, 4) * (rng.random() < 0.6)


AT_REST = (np.zeros(16), np.zeros(4))


class Pairs:
    """Pairs of pictures with points known in both; item i follows from (seed, i) alone.

    Three of four show a template over a plain ground, and the same template over a game, or as the
    temporal median shows it: sharp over a washed-out game. The others show a game picture twice,
    under a homography.

    An item: images uint8 [2, SIDE, SIDE], gray; points float32 [2, POINTS, 2] px; corners int64
    [2, SIDE / 8, SIDE / 8], see `cells`.
    """

    SIDE = 224  # px
    POINTS = 160  # per pair
    SCENES = 48  # painted game pictures in use
    REPAINT = 2048  # items until new ones are painted

    def __init__(self, seed: int, pool: list, photos=()):
        self.seed = seed
        self.pool = pool  # templates
        self.photos = photos  # frames of games, RGB, to use beside the painted pictures
        self.era = None
        self.scenes = []

    def __getitem__(self, index):
        rng = np.random.default_rng([self.seed, int(index)])
        while True:
            draw = self.overlay_pair if rng.random() < 0.75 else self.warped_pair
            shown, clean, warp, where = draw(rng, index)
            found = [corners(picture) for picture in clean]
            x, y = found[0].astype(int).T
            sure = found[0][where[y, x]]  # corners whose place in the other picture is known
            points = self.candidates(rng, sure, where)
            moved = carried(points, warp)
            both = np.concatenate([points, moved], 1)
            inside = np.flatnonzero(((both > 4) & (both < self.SIDE - 4)).all(1))
            if len(inside) >= 32:
                break
        chosen = np.resize(inside, self.POINTS)
        second = np.concatenate([found[1], carried(sure, warp)])
        return {
            "images": np.stack([picture.mean(2).astype(np.uint8) for picture in shown]),
            "points": np.stack([points[chosen], moved[chosen]]),
            "corners": np.stack([cells(found[0], self.SIDE), cells(second, self.SIDE)]),
        }

    def candidates(self, rng, sure, where):
        """Points float32 [n, 2] px: some of the corners, then places all over `where`."""
        rows, columns = np.nonzero(where)
        pick = rng.integers(len(rows), size=2 * self.POINTS) if len(rows) else []
        spread = np.stack([columns[pick], rows[pick]], 1) + rng.random((len(pick), 2))
        some = rng.permutation(sure)[: self.POINTS // 2]
        return np.concatenate([some, spread]).astype(np.float32)

    def overlay_pair(self, rng, index):
        """Two pictures of a template: (shown, clean, warp, where).

        shown: as they are seen; clean: undamaged; warp [3, 3]: from the first to the second; where
        bool [SIDE, SIDE]: the template in the first.
        """
        side = self.SIDE
        template = self.pool[rng.integers(len(self.pool))]
        scale, corner = self.two_places(rng, np.array(template.size))
        plain = [
            np.full((side, side, 3), rng.integers(30, 200), np.uint8),
            np.full((side, side, 3), rng.integers(0, 256, 3), np.uint8),
        ]
        ground = plain[rng.integers(2)] if rng.random() < 0.8 else self.washed(rng, index, side)
        still = rng.random() < 0.35  # the second as the median shows it
        clean = [ground, self.washed(rng, index, side) if still else self.window(rng, index, side)]
        states = [
            random_state(rng) if rng.random() < 0.2 else AT_REST,
            random_state(rng) if not still or rng.random() < 0.3 else AT_REST,
        ]
        opacity = [1.0, rng.uniform(0.3, 1)]
        shown = [picture.copy() for picture in clean]
        overlays = []
        for k in range(2):
            place = (scale[k], scale[k], *corner[k])
            overlay = render.resample(render.draw(template, *states[k]), place, side, side)
            render.composite(shown[k], overlay, 0, 0, opacity[k])
            render.composite(clean[k], overlay, 0, 0)
            overlays.append(overlay)
        where = cv2.dilate(overlays[0][..., 3], np.ones((7, 7))) > 40
        shown[1] = scenes.degrade(rng, shown[1])
        ratio = scale[1] / scale[0]
        x, y = corner[1] - ratio * corner[0]
        return shown, clean, np.array([[ratio, 0, x], [0, ratio, y], [0, 0, 1]]), where

    def two_places(self, rng, size):
        """Scales [2] and upper left corners [2, 2] px of a template in two pictures."""
        first = np.exp(rng.uniform(*np.log((90, 420))))  # px, its width in the first picture
        second = np.clip(first * np.exp(rng.uniform(-0.5, 0.5)), 80, 420)
        scale = np.array([first, second]) / size[0]
        centre = self.SIDE / 2 + rng.uniform(-0.2, 0.2, (2, 2)) * self.SIDE
        return scale, centre - scale[:, None] * size * rng.uniform(0.15, 0.85, 2)

    def warped_pair(self, rng, index):
        """The same of a game picture: a square, and a turned, scaled and skewed quadrilateral."""
        side = self.SIDE
        big = self.window(rng, index, side * 3 // 2)
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
        ways = []  # from the game picture to each of the two
        for loose in (0.0, 1.0):
            turn = loose * rng.normal(0, 0.12)
            grow = np.exp(loose * rng.uniform(-0.3, 0.3))
            rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * grow
            shift = rng.uniform(-0.15, 0.15, 2)
            skew = loose * rng.uniform(-0.06, 0.06, (4, 2))
            quad = ((square - 0.5) @ rotate + 0.75 + shift + skew) * side
            ways.append(cv2.getPerspectiveTransform(quad.astype(np.float32), square * side))
        # OpenCV counts from the pixel's centre
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        clean = []
        for way in ways:
            way = np.linalg.inv(half) @ way @ half
            picture = cv2.warpPerspective(big, way, (side, side), borderMode=cv2.BORDER_REFLECT)
            clean.append(picture)
        shown = [scenes.degrade(rng, picture) for picture in clean]
        return shown, clean, ways[1] @ np.linalg.inv(ways[0]), np.ones((side, side), bool)

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
        how = cv2.INTER_AREA if cut > side else cv2.INTER_LINEAR
        return cv2.resize(picture[y : y + cut, x : x + cut], (side, side), interpolation=how)

    def washed(self, rng, index, side):
        """What the temporal median leaves of a game, uint8 [side, side, 3]."""
        windows = [self.window(rng, index, side) for _ in range(2)]
        small = [cv2.resize(w, (5, 5), interpolation=cv2.INTER_AREA) for w in windows]
        mean = cv2.addWeighted(small[0], 0.5, small[1], 0.5, 0)
        return cv2.resize(mean, (side, side), interpolation=cv2.INTER_CUBIC)


SHARPNESS = 16.0  # of the softmax over cosines


# ---- yours to change: the loss -------------------------------------------------------------------


def xfeat_loss(w: dict, batch: dict, train: bool = True):
    """(loss, its descriptor part, its keypoint part, share of points found among all others).

    As in the paper, but for the fine matcher. DEVIATION: descriptors are compared by cosine, as
    they are when matching, and read where the point truly is. A point has to be told not only from
    the other points, but from all cells of the other picture that are more than a cell away.
    """
    images = batch["images"]  # B 2 S S
    where = batch["points"].flatten(0, 1)  # 2B K 2
    device = where.device
    side = images.shape[-1]
    gray = images.flatten(0, 1)[:, None].float() / 255
    features, logits, reliability = xfeat.xfeat_net(w, gray, train)
    features = F.normalize(features.float())  # 2B 64 S/8 S/8
    points = F.normalize(xfeat.at_points(features, where - 0.5, (side, side)), dim=-1)  # 2B K 64
    trust = xfeat.at_points(reliability.float(), where - 0.5, (side, side))[..., 0]  # 2B K
    swap = torch.arange(len(where), device=device) ^ 1  # the other picture of the pair
    line = torch.arange(side // xfeat.CELL, device=device) * xfeat.CELL + xfeat.CELL / 2
    grid = torch.cartesian_prod(line, line).flip(-1)  # N 2 px: centres of the cells
    near_point = torch.cdist(where, where) < xfeat.CELL
    near_point |= near_point[swap]
    near_point &= ~torch.eye(where.shape[1], dtype=torch.bool, device=device)
    near_cell = torch.cdist(where[swap], grid) < 1.5 * xfeat.CELL
    to_points = (points @ points[swap].mT).masked_fill(near_point, -1)  # 2B K K
    to_cells = (points @ features[swap].flatten(2)).masked_fill(near_cell, -1)  # 2B K N
    cosine = torch.cat([to_points, to_cells], -1)
    log_p = (SHARPNESS * cosine).log_softmax(-1).diagonal(dim1=1, dim2=2)  # 2B K
    matching = -log_p.mean()
    both_ways = (log_p + log_p[swap]).detach().exp()  # probability to be found
    certainty = (trust - both_ways).abs().mean()
    weights = torch.ones(xfeat.CELL * xfeat.CELL + 1, device=device)
    weights[-1] = 0.03  # most cells have no corner
    keypoint = F.cross_entropy(logits.float(), batch["corners"].flatten(0, 1), weights)
    hit = (cosine.argmax(-1) == torch.arange(where.shape[1], device=device)).float().mean()
    return matching + 3 * certainty + 2 * keypoint, matching.detach(), keypoint.detach(), hit


# ---- training ------------------------------------------------------------------------------------


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
    """Weights to start from: He's before a ReLU, smaller in the last layers; biases are 0."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in xfeat.xfeat_shapes().items():
        if name.endswith("var"):
            out[name] = torch.ones(shape)
        elif len(shape) == 1:
            out[name] = torch.zeros(shape)
        else:
            gain = 2 if ".layer." in name else 1
            scale = math.sqrt(gain / math.prod(shape[1:]))
            out[name] = torch.randn(shape, generator=generator) * scale
    return out


class XFeatTraining(Training):
    def __init__(self, cfg: Config, device: str):
        start = xfeat.load_xfeat(cfg.init) if cfg.init else random_weights(cfg.seed)
        self.w = {}
        for name, v in start.items():
            layout = torch.channels_last if v.ndim == 4 else torch.preserve_format
            self.w[name] = v.to(device, memory_format=layout)
        params = {name: v for name, v in self.w.items() if "running" not in name}
        for v in params.values():
            v.requires_grad_()
        sources = scenes.files_in(cfg.backgrounds) + ([cfg.init] if cfg.init else [])
        optimizer = torch.optim.Adam(params.values(), cfg.lr, fused=True)
        super().__init__(cfg, params, optimizer, cfg.steps, recipe_of(cfg, *sources))
        self.changing = {name: v for name, v in self.w.items() if "running" in name}
        self.resume()

    def rate(self) -> float:
        """A short warm-up, then half a cosine down to 2 % of the peak.

        DEVIATION: the paper halves it every 30,000 steps.
        """
        fall = 0.51 + 0.49 * math.cos(math.pi * min(self.share(), 1))
        return self.cfg.lr * min((self.steps + 1) / 100, fall)

    def step(self, batch: dict):
        device = self.w["skip1.1.bias"].device
        batch = {name: v.to(device, non_blocking=True) for name, v in batch.items()}
        with autocast(str(device)):
            loss, *parts = xfeat_loss(self.w, batch)
        self.descend(loss)
        return [loss.item(), *(part.item() for part in parts)]


def held_out_points(w: dict, data: Pairs, count: int) -> float:
    """Share of points found among all others and all cells of the other picture, over so many
    pairs.
    """
    device = w["skip1.1.bias"].device
    hits = []
    for i in range(count):
        item = {name: torch.as_tensor(v, device=device)[None] for name, v in data[i].items()}
        with torch.no_grad():
            hits.append(xfeat_loss(w, item, train=False)[3].item())
    return float(np.mean(hits))


def main(cfg: Config) -> None:
    device = pick_device(cfg.device)
    expect(cfg, steps=(1, 1e12))
    set_up(cfg)
    run = XFeatTraining(cfg, device)
    photos = scenes.film_frames(cfg.backgrounds) if cfg.backgrounds else []
    known, unseen = [], []
    for name, template in library.templates().items():
        (unseen if held_out(name) else known).append(template)
    # every eighth frame is held out, too
    data = Pairs(cfg.seed, known, [photo for i, photo in enumerate(photos) if i % 8])
    count = sum(p.numel() for p in run.params.values())
    until = f"{cfg.minutes:g} minutes" if cfg.minutes else f"{cfg.steps:,} steps"
    print(
        f"train XFeat, {count:,} parameters, on {device}: {len(known)} templates "
        f"({len(unseen)} held out), {len(photos)} frames of games, batches of {cfg.batch} pairs, "
        f"until {until} -> {cfg.out}\n{cfg}"
    )

    if not run.follow(data, ("loss", "descriptors", "keypoints", "found")):
        return
    found = held_out_points(run.w, Pairs(cfg.seed + 1, unseen, photos[::8]), cfg.validation)
    print(f"points of held-out templates told from all others of the picture: {found:.3f}")
    artefact.write(
        cfg.out,
        {name: v.detach().cpu().half().numpy() for name, v in run.w.items()},
        "nitrogen.features/1",
        **run.history(device),
        steps=run.steps,
        images=2 * cfg.batch * run.steps,
        templates=len(known),
        held_out=len(unseen),
        found_held_out=round(found, 4),
    )
    print(f"{cfg.out}: {Path(cfg.out).stat().st_size:,} bytes")
