"""What the training loops share: a run that can be stopped and goes on, batches from worker
processes.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path

from common import artefact
from common.workers import sigint_held_back

import numpy as np
from tqdm import tqdm


class Training:
    """A training run that can be stopped and resumed: parameters by name, their optimizer, and how
    far it is.  parse.py's is one too.

    A kind of training adds `step(batch)` -> losses, `rate()`, and in `changing` what else its steps
    change.
    """

    def __init__(self, cfg, params: dict, optimizer, steps: float, recipe: dict):
        import torch

        self.cfg, self.path, self.limit = (
            cfg,
            Path(cfg.out).with_suffix(".state.safetensors"),
            steps,
        )
        self.params, self.optimizer, self.changing = params, optimizer, {}
        self.moments = {
            k: {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for k, p in params.items()
        }
        optimizer.state.update((p, self.moments[k]) for k, p in params.items())
        self.steps, self.seconds = 0, 0.0
        # may change from call to call; of the last two the path
        free = (
            "steps",
            "images",
            "minutes",
            "threads",
            "workers",
            "validation",
            "init",
            "backgrounds",
        )
        self.recipe = json.loads(json.dumps({k: v for k, v in recipe.items() if k not in free}))

    def tensors(self) -> dict:
        """Everything that a step changes, by name."""
        return {
            **{k: v.detach() for k, v in self.params.items()},
            **self.changing,
            **{f"{kind}.{k}": t for k, m in self.moments.items() for kind, t in m.items()},
        }

    def resume(self) -> None:
        """Go on where the run at this --out stopped, if there is one."""
        import torch

        if not self.path.exists() or self.cfg.fresh:
            if Path(self.cfg.out).exists() and not self.cfg.fresh:
                raise SystemExit(
                    f"{self.cfg.out}: exists, but nothing to go on from; give another --out, or --fresh to replace it"
                )
            return
        saved, info = artefact.read(self.path, "nitrogen.state/1")
        other = [k for k in self.recipe if info["recipe"].get(k) != self.recipe[k]]
        if other:
            raise SystemExit(
                f"{self.path}: a run with another {', '.join(other)}; give another --out, or --fresh to replace it"
            )
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(saved[name]).view_as(tensor))
        self.steps, self.seconds = info["steps"], info["seconds"]
        print(f"resuming {self.path} at {self.steps:,} steps, {self.seconds / 60:.1f} minutes")

    def suspend(self) -> None:
        artefact.write(
            self.path,
            {k: v.cpu().numpy() for k, v in self.tensors().items()},
            "nitrogen.state/1",
            recipe=self.recipe,
            steps=self.steps,
            seconds=self.seconds,
        )

    def share(self) -> float:
        """0 at the start, 1 at the end of the run, by steps or by minutes, whichever is first."""
        return max(
            self.steps / self.limit, self.seconds / 60 / self.cfg.minutes if self.cfg.minutes else 0
        )

    def descend(self, loss) -> None:
        """One step of the optimizer."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
        self.optimizer.step()
        self.steps += 1

    def follow(self, feed, say) -> bool:
        """Train on the batches that `feed(first item, number of items)` yields, to the end of the
        run; say(mean losses) is shown beside the bar.  What was learned is saved every minute.
        False: this run was finished already."""
        if self.share() >= 1 and Path(self.cfg.out).exists():
            print(
                f"{self.cfg.out}: finished already; more --minutes, --steps or --images go on from there"
            )
            return False
        smooth, saved, last = None, time.monotonic(), time.monotonic()
        left = max(math.ceil(self.limit) - self.steps, 0) * self.cfg.batch
        with tqdm(
            total=100,
            bar_format="{percentage:5.1f} % |{bar:20}| {elapsed} {postfix}",
            mininterval=1,
        ) as bar:
            for batch in feed(self.steps * self.cfg.batch, left) if self.share() < 1 else ():
                losses = np.array(self.step(batch))
                smooth = losses if smooth is None else smooth * 0.98 + losses * 0.02
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                bar.n = min(100 * self.share(), 100)
                bar.set_postfix_str(
                    f"step {self.steps:,}, {self.steps * self.cfg.batch / self.seconds:.0f} pairs/s, {say(smooth)}, lr {self.rate():.1e}"
                )
                if now - saved > 60 or self.share() >= 1:
                    self.suspend()
                    saved = now
                if self.share() >= 1:
                    break
        return True


def batches(data, first: int, count: int, size: int, workers: int = 0):
    """Batches of items first .. first + count - 1, in order, drawn by `workers` processes."""
    import torch

    # forked from a process with threads, a drawer may hang
    more = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}
    loader = torch.utils.data.DataLoader(
        data, size, sampler=range(first, first + count), num_workers=workers, **more
    )
    with sigint_held_back():  # they leave Ctrl-C to us
        return iter(loader)


def machine(device: str) -> str:
    """What the training ran on, in words."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = (
        facts.partition("model name")[2].partition("\n")[0].strip(" \t:") or platform.processor()
    )
    return f"{torch.get_num_threads()} thread(s) of {os.cpu_count()}, {model}"
