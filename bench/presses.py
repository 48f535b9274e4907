"""What a policy never presses: python eval.py presses"""

from __future__ import annotations

from dataclasses import dataclass

from common.command_line import Common, expect
from common.loading import Chunks, on_device
from common.shards import splits

import numpy as np
import torch
from tqdm import tqdm

import model
import train

SELDOM = 0.1  # of the player's share: below that, a button is hardly ever pressed


@dataclass(frozen=True)
class Config(Common):
    policy: str = "weights/policy.safetensors"  # what train.py made
    data: str = "data/tiny/shards"  # folder of shards, or several
    split: str = "validation"  # videos of it: validation or train
    chunks: int = 500  # of each game, at most
    steps: int = 0  # denoising steps (0: as the policy says)


def main(c: Config) -> dict:
    """In how many frames does a policy press each button, and in how many did who played them?

    What it leaves out shows here before it does in a game: fast taps, which a single frame does not
    foretell, come out as their mean, below the half that counts as pressed.
    """
    expect(c, chunks=(1, 1e9), steps=(0, 10_000))
    if c.split not in ("validation", "train"):
        raise SystemExit(f"--split {c.split}: expected validation or train")
    net = model.load(c.policy, c.device)
    shards = splits(c.data, net.c)[c.split]
    if not len(shards):
        raise SystemExit(f"{c.data}: no {c.split} videos there; try --split, or another --data")
    found = {}
    print(f"{'game':12s}{'button':16s}{'pressed, % of frames: player':>28s}{'policy':>9s}")
    for game, items in by_game(shards, net.c, c).items():
        found[game] = shares(net, items, c)
        for name, (player, policy) in found[game].items():
            never = "   hardly ever" if policy < SELDOM * player else ""
            print(f"{game:12s}{name:16s}{100 * player:28.1f}{100 * policy:9.1f}{never}", flush=True)
    return found


def by_game(shards, m: model.Config, c: Config) -> dict:
    """Game -> its chunks, drawn by chance, as Chunks gives them."""
    chunks = Chunks(shards, m.image)
    drawn = {}
    for i in np.random.default_rng(c.seed).permutation(len(shards)):
        mine = drawn.setdefault(shards[i][4], [])
        if len(mine) < c.chunks:
            mine.append(chunks[i])
    return dict(sorted(drawn.items()))


def shares(net, items: list, c: Config) -> dict:
    """Button -> (player's, policy's) share of the frames whose label shows it, of those that are
    pressed in .2 % or more.
    """
    torch.manual_seed(c.seed)
    # frames in which the player, and the policy, has a button pressed; and which have a label of it
    counts = np.zeros((3, len(model.artefact.BUTTONS)))
    for first in tqdm(range(0, len(items), 64), leave=False):
        batch = train.collate(items[first : first + 64], net.c.actions)
        images, actions, mask = on_device(batch, torch.device("cpu"))
        raw = net.sample(images, steps=c.steps or None).cpu()
        for row, values in enumerate((actions, raw, torch.ones_like(actions))):
            counts[row] += net.decode((values * mask).numpy())["buttons"].sum((0, 1))
    player, policy, labelled = counts
    return {
        name: (player[i] / labelled[i], policy[i] / labelled[i])
        for i, name in enumerate(model.artefact.BUTTONS)
        if max(player[i], policy[i]) >= max(1, 0.002 * labelled[i])
    }
