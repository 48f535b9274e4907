"""What the trainings share: stopping and going on, batches, the machine."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from pathlib import Path

from common import artefact
from common.command_line import expect
from common.device import keep_memory
from common.loading import loaded
from common.run_folder import refuse_another

import cv2
import numpy as np
import torch
from tqdm import tqdm

# These flags may change between two starts of the same run. Of the last two the files count.
SAME_RUN = "steps images minutes threads workers validation init backgrounds".split()


def start_moments(optimizer) -> None:
    """Adam's state as its first step would make it, so that all of it can be saved."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }


class Training:
    """A training that can be stopped and goes on: parameters by name, their optimizer, progress.

    A subclass adds `step(batch)` -> losses, `rate()`, the learning rate, and in `changing` what
    else its steps change. cfg has out, fresh, minutes (0: no limit) and batch; `steps` end the run.
    """

    def __init__(self, cfg, params: dict, optimizer, steps: float, recipe: dict):
        self.cfg = cfg
        self.path = Path(cfg.out).with_suffix(".state.safetensors")
        self.limit = steps
        self.params = params
        self.optimizer = optimizer
        self.changing = {}
        start_moments(optimizer)
        self.steps = 0
        self.seconds = 0.0
        decisive = {key: v for key, v in recipe.items() if key not in SAME_RUN}
        self.recipe = json.loads(json.dumps(decisive))

    def tensors(self) -> dict:
        """Everything that a step changes, by name."""
        out = {name: p.detach() for name, p in self.params.items()} | self.changing
        for name, p in self.params.items():
            moments = self.optimizer.state[p]
            out |= {f"{kind}.{name}": tensor for kind, tensor in moments.items()}
        return out

    def resume(self) -> None:
        """Go on where the run at this --out stopped, if there is one."""
        out = self.cfg.out
        fresh = self.cfg.fresh
        if fresh or not self.path.exists():
            if Path(out).exists() and not fresh:
                raise SystemExit(
                    f"{out}: exists, but nothing to go on from; "
                    "give another --out, or --fresh to replace it"
                )
            return
        saved, info = artefact.read(self.path, "nitrogen.state/1")
        refuse_another(self.path, info["recipe"], self.recipe)
        for name, tensor in self.tensors().items():
            tensor.copy_(torch.from_numpy(saved[name]).view_as(tensor))
        self.steps = info["steps"]
        self.seconds = info["seconds"]
        print(f"resuming {self.path} at {self.steps:,} steps, {self.seconds / 60:.1f} minutes")

    def suspend(self) -> None:
        artefact.write(
            self.path,
            {name: v.cpu().numpy() for name, v in self.tensors().items()},
            "nitrogen.state/1",
            recipe=self.recipe,
            steps=self.steps,
            seconds=self.seconds,
        )

    def history(self, device: str) -> dict:
        """How the weights were made, for their description."""
        minutes = round(self.seconds / 60, 1)
        return {"recipe": self.recipe, "minutes": minutes, "machine": machine(device)}

    def share(self) -> float:
        """0 at the start, 1 at the end of the run, by steps or by minutes, whichever is first."""
        of_minutes = self.seconds / 60 / self.cfg.minutes if self.cfg.minutes else 0
        return max(self.steps / self.limit, of_minutes)

    def descend(self, loss) -> None:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
        self.optimizer.step()
        self.steps += 1

    def follow(self, data, names) -> bool:
        """Train to the end of the run on the items of `data`, in order, and save every minute;
        False: it was finished already.

        names: of the losses, whose means are shown beside the bar; the first is their sum.
        """
        finished = self.share() >= 1
        if finished and Path(self.cfg.out).exists():
            print(
                f"{self.cfg.out}: finished already; "
                "more --minutes, --steps or --images go on from there"
            )
            return False
        mean = None
        saved = last = time.monotonic()
        left = max(math.ceil(self.limit) - self.steps, 0) * self.cfg.batch
        first = self.steps * self.cfg.batch
        batches_left = ()
        if not finished:
            batches_left = batches(data, first, left, self.cfg.batch, self.cfg.workers)
        shown = "{percentage:5.1f} % |{bar:20}| {elapsed} {postfix}"
        with tqdm(total=100, bar_format=shown, mininterval=1) as bar:
            for batch in batches_left:
                losses = np.array(self.step(batch))
                mean = losses if mean is None else mean * 0.98 + losses * 0.02
                now = time.monotonic()
                self.seconds += now - last
                last = now
                finished = self.share() >= 1
                bar.n = min(100 * self.share(), 100)
                speed = self.steps * self.cfg.batch / self.seconds
                said = [f"step {self.steps:,}", f"{speed:.0f} pairs/s"]
                said += [f"{name} {value:.4f}" for name, value in zip(names, mean, strict=True)]
                bar.set_postfix_str(", ".join([*said, f"lr {self.rate():.1e}"]))
                if now - saved > 60 or finished:
                    self.suspend()
                    saved = now
                if finished:
                    break
        return True


class AveragedTraining(Training):
    """And an average of the parameters, which is what is kept; cfg also has ema, its decay, which
    warms up."""

    def __init__(self, cfg, params: dict, optimizer, steps: float, recipe: dict):
        super().__init__(cfg, params, optimizer, steps, recipe)
        self.average = {name: p.detach().clone() for name, p in params.items()}
        self.changing = {f"average.{name}": v for name, v in self.average.items()}

    def descend(self, loss) -> None:
        super().descend(loss)
        share = 1 - min(self.cfg.ema, self.steps / (self.steps + 10))
        params = [p.detach() for p in self.params.values()]
        torch._foreach_lerp_([*self.average.values()], params, share)


def set_up(cfg) -> None:
    """Check the flags that all these trainings have; set memory and threads."""
    expect(cfg, minutes=(0, math.inf), batch=(1, 1e6), lr=(0, 1e3), validation=(1, 1e9))
    expect(cfg, workers=(0, 4096), threads=(0, 4096))
    for folder in (cfg.backgrounds, getattr(cfg, "templates", "")):
        if folder and not Path(folder).is_dir():
            raise SystemExit(f"{folder}: no such folder")
    keep_memory()
    cv2.setNumThreads(1)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)


def batches(data, first: int, count: int, size: int, workers: int = 0):
    """Batches of items first .. first + count - 1, in order, drawn by `workers` processes."""
    # A process forked from one with threads may hang.
    more = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}
    items = range(first, first + count)
    loader = torch.utils.data.DataLoader(data, size, sampler=items, num_workers=workers, **more)
    return loaded(loader)


def machine(device: str) -> str:
    """What a training runs on: the name of its GPU, or threads, cores and name of its CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    about = facts.read_text() if facts.exists() else ""
    name = about.partition("model name")[2].partition("\n")[0].strip(" \t:")
    threads = torch.get_num_threads()
    return f"{threads} thread(s) of {os.cpu_count()}, {name or platform.processor()}"
