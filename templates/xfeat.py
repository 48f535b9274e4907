"""XFeat: learned features (arXiv 2404.19174)."""

from __future__ import annotations

import functools
from pathlib import Path

from common import artefact
from common.command_line import shipped

import cv2
import numpy as np

XFEAT_WEIGHTS = "weights/xfeat.safetensors"

# Tensors are named as in the official state dict.  Per layer of a block: channels in and out,
# kernel and stride of a convolution without bias; a BatchNorm without scale and shift, and a ReLU,
# follow.
XFEAT = {
    "block1": ((1, 4, 3, 1), (4, 8, 3, 2), (8, 8, 3, 1), (8, 24, 3, 2)),
    "block2": ((24, 24, 3, 1), (24, 24, 3, 1)),
    "block3": ((24, 64, 3, 2), (64, 64, 3, 1), (64, 64, 1, 1)),
    "block4": ((64, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1)),
    "block5": ((64, 128, 3, 2), (128, 128, 3, 1), (128, 128, 3, 1), (128, 64, 1, 1)),
    "block_fusion": ((64, 64, 3, 1), (64, 64, 3, 1)),
    "heatmap_head": ((64, 64, 1, 1), (64, 64, 1, 1)),
    "keypoint_head": ((64, 64, 1, 1), (64, 64, 1, 1), (64, 64, 1, 1)),
}
# Each a convolution with bias, after which nothing follows: the shape of its weight.
LAST = {
    "skip1.1": (24, 1, 1, 1),
    "block_fusion.2": (64, 64, 1, 1),
    "heatmap_head.2": (1, 64, 1, 1),
    "keypoint_head.3": (65, 64, 1, 1),
}
# Linear layers of the official file that sparse matching does not use: the shape of their weights.
MATCHER = {0: (512, 128), 3: (512, 512), 6: (512, 512), 9: (512, 512), 12: (64, 512)}
CELL = 8  # px, side of a cell of the feature map
# CHOICE: least probability of a keypoint; 0.05 in the official code, with its weights
XFEAT_THRESHOLD = 0.02
# CHOICE: px, template widths to match with: the features bear about a factor of 1.5 in scale
XFEAT_WIDTHS = (130, 200, 310, 480)


def xfeat_shapes(matcher: bool = False) -> dict:
    """Name -> shape of the network's tensors; `matcher`: also those of the official file that only
    dense matching needs.
    """
    shapes = {}
    for block, layers in XFEAT.items():
        for i, (cin, cout, k, _) in enumerate(layers):
            shapes[f"{block}.{i}.layer.0.weight"] = (cout, cin, k, k)
            shapes[f"{block}.{i}.layer.1.running_mean"] = (cout,)
            shapes[f"{block}.{i}.layer.1.running_var"] = (cout,)
    for name, shape in LAST.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if not matcher:
        return shapes
    for i, shape in MATCHER.items():
        shapes |= {f"fine_matcher.{i}.weight": shape, f"fine_matcher.{i}.bias": shape[:1]}
        if i < 12:
            shapes[f"fine_matcher.{i + 1}.running_mean"] = shape[:1]
            shapes[f"fine_matcher.{i + 1}.running_var"] = shape[:1]
    return shapes


def xfeat_net(w: dict, x, train: bool = False):
    """The network, on weights `w` by name (see `load_xfeat`, `fold`); train: BatchNorm by, and its
    averages from, this batch.

    x: [B, channels, H, W] in 0..1, H and W multiples of 32.  Returns features [B, 64, H/8, W/8],
    not normalised; keypoint logits [B, 65, H/8, W/8], one per pixel of the 8 x 8 cell and one for
    "none here"; reliability [B, 1, H/8, W/8] in 0..1.
    """
    import torch
    import torch.nn.functional as F

    def block(x, name):
        for i, (_, _, k, stride) in enumerate(XFEAT[name]):
            layer = f"{name}.{i}.layer"
            x = F.conv2d(x, w[f"{layer}.0.weight"], w.get(f"{layer}.0.bias"), stride, k // 2)
            if f"{layer}.0.bias" not in w:  # not folded
                x = F.batch_norm(
                    x, w[f"{layer}.1.running_mean"], w[f"{layer}.1.running_var"], training=train
                )
            x = F.relu(x)
        return x

    def last(x, name):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"])

    # fmt: off
    x = F.instance_norm(x.mean(1, keepdim=True))                             # B  1 H    W
    x1 = block(x, "block1") + last(F.avg_pool2d(x, 4), "skip1.1")            # B 24 H/4  W/4
    x2 = block(x1, "block2")                                                 # B 24 H/4  W/4
    x3 = block(x2, "block3")                                                 # B 64 H/8  W/8
    x4 = block(x3, "block4")                                                 # B 64 H/16 W/16
    x5 = block(x4, "block5")                                                 # B 64 H/32 W/32
    # fmt: on
    x4, x5 = (F.interpolate(y, x3.shape[-2:], mode="bilinear") for y in (x4, x5))
    features = last(block(x3 + x4 + x5, "block_fusion"), "block_fusion.2")
    reliability = torch.sigmoid(last(block(features, "heatmap_head"), "heatmap_head.2"))
    # a cell's logits follow from its own pixels alone
    logits = last(block(F.pixel_unshuffle(x, CELL), "keypoint_head"), "keypoint_head.3")
    return features, logits, reliability


def read_weights(path) -> dict:
    """The tensors of a file by name, unchecked; SystemExit with one line if it cannot be read."""
    import torch

    if Path(path).suffix not in (".pt", ".pth"):
        tensors = artefact.read(path, "nitrogen.features/1")[0]
        return {name: torch.from_numpy(value) for name, value in tensors.items()}
    try:
        return torch.load(path, "cpu", weights_only=True)
    except Exception as e:
        reason = str(e).splitlines()[0][:100]
        raise SystemExit(f"{path}: not a readable state dict ({reason})") from None


def load_xfeat(path) -> dict:
    """Weights by name, float32, from a file of `train` or from the official xfeat.pt; SystemExit
    with one line if it is neither.
    """
    w = read_weights(path)
    known = xfeat_shapes(matcher=True)
    extra = ["a bare object"]
    if isinstance(w, dict):
        extra = [k for k in w if k not in known and not k.endswith("num_batches_tracked")]
    if extra:
        raise SystemExit(f"{path}: unknown tensor '{extra[0]}': not the weights of XFeat")
    for name, shape in known.items():
        if name in w:
            if tuple(w[name].shape) != shape or not w[name].isfinite().all():
                wrong = f"should be finite {list(shape)}, found {list(w[name].shape)}"
                raise SystemExit(f"{path}: tensor '{name}' {wrong}")
        elif not name.startswith("fine_matcher"):
            raise SystemExit(f"{path}: tensor '{name}' is missing")
    return {name: w[name].float() for name in xfeat_shapes()}


def fold(w: dict, device: str = "cpu") -> dict:
    """The same network with each BatchNorm in its convolution's weight and bias: faster, not to be
    trained on.
    """
    import torch

    out = {name: value for name, value in w.items() if ".layer." not in name}
    for name, weight in w.items():
        if not name.endswith("layer.0.weight"):
            continue
        layer = name.removesuffix("0.weight")
        mean, var = w[f"{layer}1.running_mean"], w[f"{layer}1.running_var"]
        scale = (var + 1e-5).rsqrt()
        out[name] = weight * scale[:, None, None, None]
        out[f"{layer}0.bias"] = -mean * scale
    for name, value in out.items():
        form = torch.channels_last if value.ndim == 4 else torch.preserve_format
        out[name] = value.to(device, memory_format=form)
    return out


@functools.lru_cache(1)
def xfeat(path: str = XFEAT_WEIGHTS, device: str = "cpu") -> dict:
    """Folded weights of a file, read once per process; weights/ is found from any folder."""
    return fold(load_xfeat(shipped(path)), device)


def at_points(maps, points, size, mode="bilinear"):
    """maps [B, C, h, w] of a picture of `size` (W, H), read at points [B, n, 2] px (pixel numbers):
    [B, n, C].

    Normalises by the picture's size less one, yet does not align corners: up to a sixteenth of a
    cell off, as in the official code.
    """
    import torch.nn.functional as F

    grid = 2 * points / (points.new_tensor(size) - 1) - 1
    return F.grid_sample(maps, grid[:, None].to(maps.dtype), mode, align_corners=False)[:, :, 0].mT


def strongest(heat, reliability, top_k, threshold):
    """Keypoints of one picture, float32 [n, 2], pixel numbers, the best first: the highest of their
    5 x 5 pixels, above the threshold.

    heat: probability of a keypoint [1, 1, H, W]; reliability [1, 1, H/8, W/8], both 0..1: the score
    is their product.
    """
    import torch

    picture, size = heat[0, 0].cpu().numpy(), heat.shape[:1:-1]
    peaks = (picture == cv2.dilate(picture, np.ones((5, 5)))) & (picture > threshold)
    points = torch.from_numpy(np.argwhere(peaks)[:, ::-1].astype(np.float32)).to(heat.device)
    there = at_points(heat, points[None], size, "nearest")
    score = (there * at_points(reliability, points[None], size))[0, :, 0]
    order = score.argsort(descending=True, stable=True)[:top_k]
    return points[order[score[order] > 0]]


def detect(images, w: dict | None = None, top_k: int = 4096, threshold: float = XFEAT_THRESHOLD):
    """XFeat keypoints of RGB uint8 images [h, w, 3] or [B, h, w, 3]: points float32 [n, 2] px, the
    best first, and their unit descriptors float32 [n, 64]; for a batch, a list of such pairs.

    w: see `xfeat`; threshold: least probability of a keypoint.
    """
    import torch
    import torch.nn.functional as F

    w = xfeat() if w is None else w
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(w["skip1.1.bias"].device)
    H, W = batch.shape[-3:-1]
    h, v = (max(32, n // 32 * 32) for n in (H, W))  # as in the official code: resized, not padded
    out = []
    with torch.inference_mode():
        mean = batch.new_full((3,), 1 / 765, dtype=torch.float32)  # of the channels, in 0..1
        x = (batch.reshape(-1, H, W, 3).float() @ mean)[:, None]
        if (h, v) != (H, W):
            x = F.interpolate(x, (h, v), mode="bilinear")
        features, logits, reliability = xfeat_net(w, x)
        features = F.normalize(features)
        heat = F.pixel_shuffle(logits.softmax(1)[:, :-1], CELL)  # B 1 h v
        ratio = x.new_tensor([W / v, H / h])
        for i in range(len(x)):
            one = slice(i, i + 1)
            points = strongest(heat[one], reliability[one], top_k, threshold)
            descriptors = at_points(features[one], points[None], (v, h), "bicubic")[0]
            descriptors = F.normalize(descriptors, dim=-1)
            out.append((((points + 0.5) * ratio).cpu().numpy(), descriptors.cpu().numpy()))
    return out if batch.ndim == 4 else out[0]
