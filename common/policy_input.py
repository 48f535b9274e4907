"""What a policy is asked with, checked.  Images and actions may be torch's or numpy's."""

from __future__ import annotations

from common import history


def expect_images(c, images) -> None:
    """ValueError if these are no images for a network of Config `c`, see NitroGen.sample."""
    frames = history.shape(c)
    shaped = images.shape[1:-3] == frames and images.shape[3 + len(frames) :] == (3,)
    if not str(images.dtype).endswith("uint8") or not shaped or 0 in images.shape:
        wanted = ", ".join(["B", *map(str, frames), "h", "w", "3"])
        found = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images must be uint8 [{wanted}] RGB, found {found}")


def count_given(c, given, batch: int) -> int:
    """How many actions of each chunk are given; ValueError if the network cannot take them."""
    d = given.shape[1] if len(given.shape) == 3 else -1
    if tuple(given.shape) != (batch, d, len(c.actions)) or not 0 <= d <= c.prefix:
        wanted = f"[{batch}, 0..{c.prefix}, {len(c.actions)}]"
        raise ValueError(f"given must be {wanted}, found {list(given.shape)}")
    return d


def checked(c, images, noise, steps: int | None, given, device):
    """(images, a float [B, K, A], S, d) for the sampler of a network of Config `c`, see
    NitroGen.sample: the first d of `a` are given, the others noise. ValueError if it cannot be.
    """
    import torch

    images = torch.as_tensor(images)
    expect_images(c, images)
    steps = c.steps if steps is None else steps
    if not 1 <= steps <= c.buckets:
        raise ValueError(f"steps must be 1..{c.buckets}, found {steps}")
    shape = [len(images), c.horizon, len(c.actions)]
    a = torch.randn(shape, device=device) if noise is None else torch.as_tensor(noise)
    if list(a.shape) != shape or not a.is_floating_point() or not torch.isfinite(a).all():
        found = f"{a.dtype} {list(a.shape)}"
        raise ValueError(f"noise must be finite floats {shape}, found {found}")
    if given is None:
        return images, a, steps, 0
    given = torch.as_tensor(given).to(a)
    d = count_given(c, given, len(images))
    if not torch.isfinite(given).all():
        raise ValueError("given must be finite")
    return images, torch.cat([given, a[:, d:]], dim=1), steps, d
