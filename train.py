"""train.py: behaviour cloning of model.py on shards by flow matching (paper section 3.2 and 4.1).

    python train.py --config tiny                                    the whole pipe on built-in games: record, extract,
    python train.py --config small                                   parse, filter, train, play; tiny for a CPU, small for a GPU
    python train.py --config tiny --data data/shards --out runs/mine     train on your own shards
    python train.py --inspect runs/tiny/model.safetensors

In:   DATA/*.safetensors             shards of filter.py
Out:  RUN/model.safetensors          averaged (EMA) weights, with all that is needed to play
      RUN/state.safetensors          raw weights, average and optimizer, to resume
      RUN/log.jsonl, loss.png        one line per --log-every steps; the curve
      RUN/source/                    the code and the command that made it

Everything random in step s follows from (seed, s) alone, so a resumed run is the same run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import sim  # before torch: it sets how OpenMP threads wait

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

import filter
import model


@dataclass(frozen=True)
class Config(sim.Common):
    data: str = ""                  # folder of shards; empty: make them from the built-in games first
    out: str = ""                   # run folder (default: runs/NET)
    net: str = "paper"              # network preset of model.py
    steps: int = 200_000            # optimizer steps; CHOICE: not published
    batch: int = 4096               # frames per step (the released file's name says 4096)
    micro: int = 64                 # frames per forward pass; the rest by accumulation
    draws: int = 1                  # flow-matching draws (noise, t) per frame
    lr: float = 1e-4                # peak, constant phase (published)
    warmup: int = 1000              # steps of linear warm-up; CHOICE
    decay: float = 0.1              # last share of the steps, linear to 0; CHOICE
    weight_decay: float = 0.001     # AdamW (published)
    clip: float = 1.0               # bound on the gradient's norm; CHOICE
    ema: float = 0.9999             # decay of the weight average (published); it warms up as (1 + s) / (10 + s)
    jitter: float = 0.2             # brightness, contrast, saturation: factor in 1 +- this; CHOICE
    hue: float = 0.05               # turns, +- this; CHOICE
    rotate: float = 5.0             # degrees, +- this (published)
    crop: float = 0.9               # side of the random crop, at least this share; CHOICE
    minutes: float = 0.0            # stop after this long, to be resumed; 0: never
    resume: bool = True             # go on with an unfinished run of the same config
    workers: int = 0                # decoding threads, and processes of the data stages (default: all cores)
    log_every: int = 50             # steps
    save_every: int = 250           # steps
    vision: str = ""                # SigLIP tower to start the vision encoder from (safetensors, as transformers saves it)
    recompute: bool = False         # activation checkpointing: less memory, a third more work
    raw: bool = False               # also keep the weights that are not averaged, as raw.safetensors

    @property
    def run(self) -> Path:
        return Path(self.out or f"runs/{self.net}")


CONFIGS = {
    # DEVIATION: higher peaks and, in tiny, milder augmentation: short runs of small networks.
    "tiny": Config(net="tiny", steps=4500, batch=32, micro=32, draws=2, lr=1e-3, warmup=200, decay=0.4, clip=0.1, ema=0.999, jitter=0.1, hue=0.02, rotate=3,
                   crop=0.95, log_every=250, save_every=500),
    "small": Config(net="small", steps=8000, batch=256, micro=256, draws=4, lr=4e-4, warmup=400, decay=0.2, ema=0.9995),
    "paper": Config(),
}


# ---- yours to change: augmentation (paper 4.1: colour, rotation within 5 degrees, random crop) -----------------------

def augment(images, side: int, c: Config):
    """uint8 [B, h, w, 3] -> float [B, 3, side, side] in [-1, 1]; one draw per frame, batched, from torch's global generator."""
    B, device = len(images), images.device
    x = rearrange(images, "b h w c -> b c h w").float() / 255

    def uniform(lo, hi):
        return torch.rand(B, 1, 1, device=device) * (hi - lo) + lo

    # One affine map per frame: a rotated, shifted square of at least `crop` of the frame (its corners may show the reflected border).
    angle, scale = uniform(-c.rotate, c.rotate) * math.pi / 180, uniform(c.crop, 1)
    dx, dy = uniform(-1, 1) * (1 - scale), uniform(-1, 1) * (1 - scale)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.cat([torch.cat([cos, -sin, dx], 2), torch.cat([sin, cos, dy], 2)], 1)               # [B, 2, 3]
    x = F.grid_sample(x, F.affine_grid(theta, (B, 3, side, side), align_corners=False), padding_mode="reflection", align_corners=False)

    # Colour, as one matrix in YIQ: hue turns the chroma plane, saturation scales it; then contrast and brightness.
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device)
    h, s = uniform(-c.hue, c.hue) * 2 * math.pi, uniform(1 - c.jitter, 1 + c.jitter)
    one, zero = torch.ones_like(h), torch.zeros_like(h)
    turn = torch.cat([torch.cat([one, zero, zero], 2), torch.cat([zero, s * h.cos(), -s * h.sin()], 2),
                      torch.cat([zero, s * h.sin(), s * h.cos()], 2)], 1)                              # [B, 3, 3]
    x = torch.einsum("bij,bjhw->bihw", yiq.inverse() @ turn @ yiq, x)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - mean) * uniform(1 - c.jitter, 1 + c.jitter)[..., None] + mean * uniform(1 - c.jitter, 1 + c.jitter)[..., None]
    return x.clamp(0, 1) * 2 - 1


# ---- data ------------------------------------------------------------------------------------------------------------

class Batches:
    """Batches of a split, decoded by threads one step ahead of the network; the order follows from seed and step."""

    def __init__(self, shards: filter.Shards, m: model.Config, c: Config, device):
        self.shards, self.side, self.names, self.c, self.device = shards, m.image, m.actions, c, device
        self.pool = concurrent.futures.ThreadPoolExecutor(c.workers or os.cpu_count())   # cv2 decodes outside the GIL
        self.ahead = {}

    def rows(self, step: int):
        """Chunk numbers of one step: consecutive pieces of one permutation per epoch."""
        n, first = len(self.shards), step * self.c.batch
        where = np.arange(first, first + self.c.batch)
        order = {e: np.random.default_rng([self.c.seed, e]).permutation(n) for e in np.unique(where // n)}
        return [int(order[i // n][i % n]) for i in where]

    def item(self, i: int):
        jpeg, buttons, sticks, mask, _ = self.shards[i]
        return filter.decode(np.asarray(jpeg), self.side), buttons, sticks, mask

    def ask(self, step: int):
        if step not in self.ahead:
            self.ahead[step] = [self.pool.submit(self.item, i) for i in self.rows(step)]

    def __call__(self, step: int):
        """images uint8 [B, side, side, 3], actions [B, K, A] in [0, 1], mask [B, 1, A], on the device."""
        self.ask(step)
        self.ask(step + 1)
        return collate([f.result() for f in self.ahead.pop(step)], self.device, self.names)


def collate(items, device, names=model.ACTIONS):
    """Stacked items, in the action layout `names`: what the recordings do not have (GUIDE) never counts in the loss."""
    images, buttons, sticks, mask = (torch.from_numpy(np.stack(column)) for column in zip(*items))
    shown = F.pad(mask.float(), (0, 1))[:, [model.ACTIONS.index(n) if n in model.ACTIONS else -1 for n in names]]
    return (t.to(device, non_blocking=True) for t in (images, model.encode(buttons, sticks, names), shown[:, None]))


# ---- schedule and average ------------------------------------------------------------------------------------------------

def learning_rate(step: int, c: Config) -> float:
    """Warmup-stable-decay: linear up over `warmup` steps, constant, linear to zero over the last `decay` share."""
    tail = max(1, c.decay * c.steps)
    return c.lr * min(1, (step + 1) / max(1, c.warmup), (c.steps - step) / tail)


def ema_decay(step: int, c: Config) -> float:
    """The published 0.9999 averages over 10,000 steps; while young, the average follows (1 + s) / (10 + s)."""
    return min(c.ema, (1 + step) / (10 + step))


# ---- the run ---------------------------------------------------------------------------------------------------------------

def fit(c: Config) -> Path:
    """Train (or go on training) c.run; returns the path of the model.  Ctrl-C and --minutes leave a resumable run."""
    sim.keep_memory()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))         # the other half decodes; hyperthreads do not help
    device = torch.device(sim.pick_device(c.device))
    if c.net not in model.CONFIGS:
        raise SystemExit(f"--net {c.net}: expected one of {', '.join(model.CONFIGS)}")
    if c.batch % c.micro:
        raise SystemExit(f"--batch {c.batch} is not a multiple of --micro {c.micro}")
    m = model.CONFIGS[c.net]
    shards = {s: filter.Shards(c.data, s, m.horizon, m.rate, m.shift) for s in ("train", "validation")}
    if not len(shards["train"]):
        raise SystemExit(f"{c.data}: no training chunks in these shards (all held out, or every segment was null)")
    facts = {"shards": hashlib.sha256(repr([(p.about["name"], len(p["start"])) for s in shards.values() for p in s.parts]).encode()).hexdigest()[:16]}
    recipe = {k: v for k, v in {**sim.recipe(c), **facts}.items() if k not in ("data", "minutes", "resume", "log_every", "save_every", "raw", "recompute")}

    c.run.mkdir(parents=True, exist_ok=True)
    with lock(c.run):
        torch.manual_seed(c.seed)
        net = model.NitroGen(m)
        net.recompute = c.recompute
        if c.vision:
            model.load_vision(net, c.vision)
        net = net.to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=c.lr, weight_decay=c.weight_decay, betas=(0.9, 0.99), fused=device.type != "mps")
        average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        start = restore(c, recipe, net, optimizer, average)
        if start >= c.steps:
            print(f"{c.run}: finished at step {start}; --fresh trains anew")
            return c.run / "model.safetensors"
        if start == 0:
            keep_source(c)
        describe(c, m, net, shards, start, device)
        with interrupts() as asked:
            train_steps(c, recipe, net, optimizer, average, shards, start, device, asked)
    return c.run / "model.safetensors"


def train_steps(c, recipe, net, optimizer, average, shards, start, device, asked):
    from tqdm import tqdm
    batches, began, seen, done = Batches(shards["train"], net.c, c, device), time.time(), [], start
    bar = tqdm(total=c.steps, initial=start, desc="train", unit="step", smoothing=0.1)
    log = open(c.run / "log.jsonl", "a")
    try:
        for step in range(start, c.steps):
            torch.manual_seed(c.seed * 1_000_003 + step)                     # dropout, augmentation, t and noise of this step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, c)
            images, actions, mask = batches(step)
            loss, norm = update(c, net, optimizer, images, actions, mask, device)
            if not math.isfinite(loss):
                raise SystemExit(f"step {step}: the loss is {loss}; chunks {batches.rows(step)[:8]}... of {c.data}; "
                                 f"the last checkpoint stays; try a smaller --lr")
            decay = ema_decay(step, c)
            with torch.no_grad():
                for k, v in net.state_dict().items():
                    average[k].lerp_(v, 1 - decay)
            done = step + 1
            seen.append(loss)
            bar.update()
            late = c.minutes and time.time() - began > 60 * c.minutes
            if done % c.log_every == 0 or done == c.steps:
                row = {"step": done, "loss": round(float(np.mean(seen)), 5), "lr": float(f"{learning_rate(step, c):.3g}"), "norm": round(norm, 3),
                       "frames_per_s": round((done - start) * c.batch / (time.time() - began), 1), "epoch": round(done * c.batch / len(shards["train"]), 2)}
                if (done % c.save_every == 0 or done == c.steps) and len(shards["validation"]):
                    row |= validate(c, net, average, shards["validation"], device)
                log.write(json.dumps(row) + "\n")
                log.flush()
                bar.write("  ".join(f"{k} {v:>8}" for k, v in row.items()))
                seen = []
            if done % c.save_every == 0 or done == c.steps or late:
                save(c, recipe, net, optimizer, average, done)
            if late and done < c.steps:
                bar.write(f"--minutes {c.minutes:g} are over at step {done} of {c.steps}: the same command goes on from here")
                break
            if asked:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        save(c, recipe, net, optimizer, average, done)
        raise
    finally:
        batches.pool.shutdown(cancel_futures=True)
        bar.close()
        log.close()
    picture(c)


def update(c, net, optimizer, images, actions, mask, device) -> tuple[float, float]:
    """One optimizer step over batch / micro forward passes; returns the mean loss and the gradient's norm."""
    net.train()
    total = 0.0
    for part in range(0, c.batch, c.micro):
        piece = slice(part, part + c.micro)
        with sim.autocast(device.type):
            loss = net.loss(augment(images[piece], net.c.image, c), actions[piece], mask[piece], draws=c.draws) * (c.micro / c.batch)
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), c.clip).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


@torch.no_grad()
def validate(c, net, average, shards, device, frames: int = 512) -> dict:
    """Loss of the averaged weights on held-out videos, over a fixed set of frames, times and noises, in all and by game."""
    probe = model.NitroGen(net.c).to(device).eval()
    probe.load_state_dict(average)
    rows = np.random.default_rng(0).permutation(len(shards))[:frames]
    losses = {}
    torch.manual_seed(0)
    for game in sorted({shards[i][4] for i in rows}):
        items = [shards[i] for i in rows if shards[i][4] == game]
        batch = [(filter.decode(np.asarray(j), net.c.image), b, s, k) for j, b, s, k, _ in items]
        images, actions, mask = collate(batch, device, net.c.actions)
        losses[game] = [probe.loss(images[i:i + 64], actions[i:i + 64], mask[i:i + 64], draws=4).item() for i in range(0, len(batch), 64)]
    out = {f"val_{game}": round(float(np.mean(v)), 5) for game, v in losses.items()}
    return {"val": round(float(np.mean([x for v in losses.values() for x in v])), 5), **out}


# ---- run folder ----------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def interrupts():
    """Ctrl-C becomes a list that is no longer empty, so that a step under way is finished before the run is saved."""
    asked, usual = [], signal.getsignal(signal.SIGINT)
    mine = usual is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if mine:
        signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        if mine:
            signal.signal(signal.SIGINT, usual)


@contextlib.contextmanager
def lock(folder: Path):
    """Only one process trains a run."""
    try:
        import fcntl
    except ImportError:                                   # Windows has no flock
        yield
        return
    with open(folder / ".lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"{folder}: another process is training this run; give another --out") from None
        yield


def save(c, recipe, net, optimizer, average, step: int) -> None:
    """state.safetensors first, then the model: whatever happens in between, the run resumes."""
    state = {f"average.{k}": v for k, v in average.items()}
    for name, p in net.named_parameters():
        s = optimizer.state.get(p, {})
        state |= {f"raw.{name}": p, f"m.{name}": s.get("exp_avg", torch.zeros_like(p)), f"v.{name}": s.get("exp_avg_sq", torch.zeros_like(p))}
    sim.write(c.run / "state.safetensors", {k: v.detach().float().cpu().numpy() for k, v in state.items()}, "nitrogen.state/1", recipe=recipe, step=step)
    about = {"recipe": recipe, "step": step}
    model.save(c.run / "model.safetensors", average, net, weights="averaged", **about)
    if c.raw:
        model.save(c.run / "raw.safetensors", net.state_dict(), net, weights="raw", **about)


def restore(c, recipe, net, optimizer, average) -> int:
    """Load an unfinished run of the same recipe; the step to go on from (0: a new run)."""
    path = c.run / "state.safetensors"
    if c.fresh or not path.exists():
        if not c.fresh and (c.run / "model.safetensors").exists():
            raise SystemExit(f"{c.run}: holds a model but no {path.name}; give another --out, or --fresh to replace it")
        (c.run / "log.jsonl").unlink(missing_ok=True)
        return 0
    tensors, info = sim.read(path, "nitrogen.state/1")
    if not c.resume:
        raise SystemExit(f"{c.run}: holds a run already (step {info['step']}); drop --no-resume to go on, or --fresh to replace it")
    if info["recipe"] != json.loads(json.dumps(recipe)):
        other = [k for k in recipe if json.loads(json.dumps(recipe[k])) != info["recipe"].get(k)]
        raise SystemExit(f"{c.run}: holds a run with another {', '.join(other)}; give another --out, or --fresh to replace it")
    for name, p in net.named_parameters():
        p.data.copy_(torch.from_numpy(tensors[f"raw.{name}"]))
        optimizer.state[p] = {"step": torch.tensor(float(info["step"])), "exp_avg": torch.from_numpy(tensors[f"m.{name}"]).to(p.device),
                              "exp_avg_sq": torch.from_numpy(tensors[f"v.{name}"]).to(p.device)}
    for name, v in average.items():
        v.copy_(torch.from_numpy(tensors[f"average.{name}"]))
    return info["step"]


def keep_source(c: Config) -> None:
    folder = c.run / "source"
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    for path in (*sim.ROOT.glob("*.py"), *sim.ROOT.glob("templates/*.py")):
        shutil.copy(path, folder / path.relative_to(sim.ROOT))
    (folder / "command.txt").write_text(shlex.join([sys.executable, *sys.argv]) + "\n" + json.dumps(dataclasses.asdict(c), indent=1) + "\n")


def describe(c, m, net, shards, start, device) -> None:
    """What will happen, before it happens; the estimate comes from one timed step."""
    count = sum(p.numel() for p in net.parameters())
    print(f"config    {json.dumps(dataclasses.asdict(c))}")
    print(f"network   {c.net}: {count:,} parameters, {m.tokens} image tokens, chunks of {m.horizon} x {len(m.actions)} at {m.rate:g}/s")
    print(f"data      {c.data}: {len(shards['train']):,} chunks {shards['train'].games}, {len(shards['validation']):,} held out")
    print(f"device    {device}, bfloat16 where it is safe, {torch.get_num_threads()} threads")
    images, K = torch.zeros(c.micro, m.image, m.image, 3, dtype=torch.uint8, device=device), (c.micro, m.horizon, len(m.actions))
    for _ in range(3):                                    # the first ones also fill caches
        began = time.time()
        with sim.autocast(device.type):
            loss = net.loss(augment(images, m.image, c), torch.zeros(K, device=device), torch.ones(1, device=device), draws=c.draws)
        loss.backward()
        net.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
    seconds = (time.time() - began) * c.batch / c.micro
    print(f"time      {c.steps - start:,} steps of {c.batch} frames at about {seconds:.2f} s: about {(c.steps - start) * seconds / 60:.0f} minutes"
          + (f"; this run stops after {c.minutes:g} and can be resumed" if c.minutes else ""), flush=True)


def picture(c: Config) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    rows = [json.loads(line) for line in open(c.run / "log.jsonl")]
    if not rows:
        return
    for key in ("loss", "val"):
        points = [(r["step"], r[key]) for r in rows if key in r]
        if points:
            plt.plot(*zip(*points), label={"loss": "training", "val": "held-out videos (averaged weights)"}[key])
    plt.xlabel("step"), plt.ylabel("flow-matching loss"), plt.legend(), plt.grid(alpha=0.3), plt.tight_layout()
    plt.savefig(c.run / "loss.png", dpi=120)
    plt.close()


# ---- the whole pipe on built-in games -------------------------------------------------------------------------------------

MINUTES_OF_VIDEO = {"tiny": 10, "small": 60, "paper": 60}
PARTS = (  # and the minutes that each took for 10 minutes of video on two cores
    ("record", "scripted experts play through the simulator, an overlay drawn in", 1.2), ("extract", "find the overlay in each video", 0.5),
    ("parse", "read buttons and sticks off it", 1.1), ("filter", "normalize, drop idle segments, mask, write shards", 0.6),
    ("train", "behaviour cloning", None), ("play", "the policy against expert, random, none, one direction", 3))


def pipeline(c: Config) -> None:
    """Run the published commands of every stage, one by one, then train and play."""
    os.chdir(sim.ROOT)                                     # data/ and runs/ lie in the project, wherever it was called from
    data, workers, video = f"data/{c.net}", c.workers or os.cpu_count(), MINUTES_OF_VIDEO[c.net]
    print(f"No --data given: the whole pipe on the built-in games, with {video} minutes of play.  Finished parts are skipped.")
    for n, (part, what, minutes) in enumerate(PARTS, 1):
        scale = 2 / workers * (video / 10 if part != "play" else 1)
        print(f"  {n} {part:8s} {what:68s}" + (f"about {max(1, minutes * scale):.0f} min" if minutes else "estimated when it starts"))
    run("eval.py", "record", "--out", f"{data}/videos", "--minutes", str(video), "--seed", str(c.seed), "--workers", str(workers))
    videos = sim.expand([f"{data}/videos"])
    run("extract.py", *videos, "--out", f"{data}/labels", "--workers", str(workers))
    run("parse.py", *videos, "--out", f"{data}/labels", "--device", c.device)
    run("filter.py", *videos, "--labels", f"{data}/labels", "--out", f"{data}/shards", "--workers", str(workers))
    c = dataclasses.replace(c, data=f"{data}/shards")
    print(f"\n$ python train.py --config {c.net} --data {c.data} --out {c.run}", flush=True)
    policy = fit(c)
    run("eval.py", "play", "--policy", str(policy), "--quick", "--workers", str(workers), "--device", c.device)
    print(f"\nNext:\n  python eval.py overlay {data}/videos --labels {data}/labels      how well the overlay was read\n"
          f"  python eval.py play --policy {policy} --video {c.run}/play.mp4      watch it play\n"
          f"  python games/ridge.py      play one yourself (pip install pygame)")


def run(*command: str) -> None:
    """Print a command as one would type it, and run it; many files are shown by their pattern."""
    videos = [a for a in command if a.endswith(".mp4")]
    shown = [a for a in command if not a.endswith(".mp4")]
    if videos:
        shown.insert(1, str(Path(videos[0]).parent / "*.mp4"))
    print(f"\n$ python {' '.join(shown)}", flush=True)
    status = subprocess.run([sys.executable, *command]).returncode
    if status:
        raise SystemExit(f"{command[0]} stopped with status {status}; mend it and run the same command again: finished parts are kept")


def main(argv=None):
    sim.command_line(__doc__, {"": (CONFIGS, lambda c: fit(c) if c.data else pipeline(c))}, argv)


if __name__ == "__main__":
    main()
