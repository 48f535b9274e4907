"""Published SegFormer encoders, for the parser to start from."""

from __future__ import annotations

import re

from common import artefact

import torch

# The encoder's tensors have the names of transformers; published files carry its older ones.
OLDER = (
    (r"^segformer\.", ""),
    (r"^encoder\.(patch_embeddings|layer_norm)\.(\d)\.", r"stages.\2.\1."),
    (r"^encoder\.block\.(\d)\.", r"stages.\1.blocks."),
    ("layer_norm_1", "layernorm_before"),
    ("layer_norm_2", "layernorm_after"),
    (r"attention\.self\.([qkv])[a-z]+", r"attention.\1_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"attention\.self\.sr", "attention.sequence_reduction.sequence_reduction"),
    (r"attention\.self\.layer_norm", "attention.sequence_reduction.layer_norm"),
    (r"mlp\.dense", "mlp.fc"),
)
HISTORY = ("recipe", "images", "minutes", "figures", "started_from")


def our_name(name: str) -> str:
    for pattern, ours in OLDER:
        name = re.sub(pattern, ours, name)
    return name


def starting_weights(path) -> tuple[dict, dict]:
    """(tensors by our names, what is known of their making), of a parser or of a published
    SegFormer's encoder (safetensors)."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as f:
            found = {our_name(k): f.get_tensor(k).float() for k in f.keys()}
    except Exception as e:
        fault = str(e).splitlines()[0][:120]
        raise SystemExit(f"{path}: not a readable safetensors file ({fault})") from None
    if not any(k.startswith("stages.") for k in found):
        tensors, info = artefact.read(path, "nitrogen.parser/1")
        history = {k: v for k, v in info.items() if k in HISTORY}
        return {k: torch.from_numpy(v).float() for k, v in tensors.items()}, history
    return {f"encoder.{k}": v for k, v in found.items() if k.startswith("stages.")}, {}
