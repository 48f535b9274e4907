"""Samples per second of the data alone, of the model alone and of both: python train.py bench"""

from __future__ import annotations

import dataclasses
import time

import train
from bench import flops

# ---- bench ---------------------------------------------------------------------------------------

Config = train.CONFIGS


def main(c: train.Config, seconds: float = 10) -> dict:
    """Samples per second of the data alone, of the model alone and of both; MFU: the network's
    arithmetic in the device's peak.
    """
    if not c.data:
        raise SystemExit("bench needs shards: --data DIR")
    c = dataclasses.replace(c, steps=10**9)  # as long as it takes
    with train.joined(c) as w:
        run, optimizer, average, shards = train.assemble(c, w)
        m, data, micro = (
            train.bare(run).c,
            train.batches(shards["train"], train.bare(run).c, c, w),
            w.micro(c),
        )
        ready = [
            [train.augment(images, m.image, c), *rest]
            for images, *rest in (next(data) for _ in range(c.batch // (w.size * micro)))
        ]

        def rate(f, frames: int, first: int = 1) -> float:
            # compiles and fills caches; or empties the queue of what was decoded before
            for _ in range(first):
                f()
            began, calls = w.wait(), 0
            while calls < 3 or not w.any(time.time() - began > seconds)[0]:
                f()
                calls += 1
            return calls * frames / (w.wait() - began)

        alone = rate(lambda: train.update(c, w, run, optimizer, average, iter(ready), 0), c.batch)
        both = rate(lambda: train.update(c, w, run, optimizer, average, data, 0), c.batch)
        decoded = rate(lambda: next(data), w.size * micro, 2 * w.workers(c) + 1)
        data.close()
    (top, whose), tflop = (
        flops.rated(w.device),
        flops.gflop(m, 1, draws=c.draws, freeze=c.freeze) / 1e3,
    )
    w.say(
        f"data alone  {decoded:9.1f} samples/s   {decoded / alone:.1f} x what the model takes; decoded by {w.workers(c)} processes for each of {w.size} x {w.device}"
    )
    for name, speed in (("model alone", alone), ("both", both)):
        w.say(
            f"{name:11s} {speed:9.1f} samples/s   {speed * tflop:.2f} TFLOP/s, MFU {speed * tflop / (top * w.size):.0%} of {w.size} x {top:.3g} ({whose})"
        )
    return {"data": decoded, "model": alone, "both": both}
