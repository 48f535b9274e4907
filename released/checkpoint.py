"""NVIDIA's checkpoint: the same network under other names, read and written.

Theirs keeps q, k and v apart, and stores the action MLPs as (category, in, out).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from common import artefact
from common.command_line import Common

import torch

import model


def load_vision(net: model.NitroGen, path) -> None:
    """Take the vision encoder from a SigLIP or SigLIP-2 tower as transformers saves it
    (`vision_model.*` in a safetensors file).
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as f:
            tower = {
                k.removeprefix("vision_model."): f.get_tensor(k)
                for k in f.keys()
                if k.startswith("vision_model.") and not k.startswith("vision_model.head.")
            }
    except Exception as e:
        raise SystemExit(
            f"{path}: not a readable safetensors file ({str(e).splitlines()[0][:120]})"
        ) from None
    if not tower:
        raise SystemExit(
            f"{path}: no tensor is named vision_model.*; expected a SigLIP tower as transformers saves it"
        )
    if fault := model.disagreement(
        {
            k.removeprefix("vision_encoder."): s
            for n, p in net.vision.state_dict().items()
            for k, s in pieces(f"vision.{n}", p.shape)
        },
        {k: v.shape for k, v in tower.items()},
    ):
        raise SystemExit(f"{path}: {fault}; this network's vision encoder needs another tower")
    net.vision.load_state_dict(
        {
            n: ours(f"vision.{n}", {f"vision_encoder.{k}": v for k, v in tower.items()})
            for n in net.vision.state_dict()
        }
    )


PARTS = {
    "vision.patch": "vision_encoder.embeddings.patch_embedding",
    "vision.position": "vision_encoder.embeddings.position_embedding",
    "vision.blocks": "vision_encoder.encoder.layers",
    "vision.norm": "vision_encoder.post_layernorm",
    "mixer": "vl_self_attention_model.transformer_blocks",
    "dit": "model.transformer_blocks",
    "time1": "model.timestep_encoder.timestep_embedder.linear_1",
    "time2": "model.timestep_encoder.timestep_embedder.linear_2",
    "ada_out": "model.proj_out_1",
    "out": "model.proj_out_2",
    "position": "position_embedding",
    "encode_action": "action_encoder.W1",
    "encode_time": "action_encoder.W2",
    "encode_out": "action_encoder.W3",
    "decode1": "action_decoder.layer1",
    "decode2": "action_decoder.layer2",
}
IN_VISION = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
IN_BLOCKS = {
    "norm1": "norm1",
    "norm2": "norm3",
    "ada": "norm1.linear",
    "attn.q": "attn1.to_q",
    "attn.k": "attn1.to_k",
    "attn.v": "attn1.to_v",
    "attn.out": "attn1.to_out.0",
    "fc1": "ff.net.0.proj",
    "fc2": "ff.net.2",
}


def pieces(name: str, shape) -> list[tuple[str, list[int]]]:
    """The released tensors (name, shape) that make our tensor `name`, in the order of its rows."""
    part = next(p for p in PARTS if name.startswith(p + "."))
    rest, suffix = name[len(part) + 1 :].rpartition(".")[::2]
    if part.startswith(("encode", "decode")):
        return [
            (
                f"{PARTS[part]}.{suffix[0].upper() if suffix == 'weight' else suffix[0]}",
                [1, *shape[::-1]],
            )
        ]
    if not rest:
        return [(f"{PARTS[part]}.{suffix}", list(shape))]
    number, layer = rest.split(".", 1)
    fused = re.fullmatch("attn.(q?kv|q)", layer)
    layers = [f"attn.{letter}" for letter in fused[1]] if fused else [layer]
    names = IN_VISION if part == "vision.blocks" else IN_BLOCKS
    return [
        (f"{PARTS[part]}.{number}.{names[one]}.{suffix}", [shape[0] // len(layers), *shape[1:]])
        for one in layers
    ]


def ours(name: str, theirs: dict):
    """Our tensor, from the released ones."""
    parts = [theirs[n] for n, _ in pieces(name, [1])]
    return parts[0][0].t() if name.startswith(("encode", "decode")) else torch.cat(parts)


def theirs(name: str, tensor) -> dict:
    """The released tensors, from ours."""
    names = [n for n, _ in pieces(name, tensor.shape)]
    return (
        {names[0]: tensor.t()[None]}
        if name.startswith(("encode", "decode"))
        else dict(zip(names, tensor.chunk(len(names))))
    )


def dead(c: model.Config) -> dict:
    """Shapes of the released tensors whose values never reach an action: SigLIP's pooling head, and
    the fixed position tables.
    """
    C, M = c.context, round(c.vision_mlp * c.context)
    head = {
        "probe": [1, 1, C],
        "attention.in_proj_weight": [3 * C, C],
        "attention.in_proj_bias": [3 * C],
        "attention.out_proj.weight": [C, C],
        "attention.out_proj.bias": [C],
        "layernorm.weight": [C],
        "layernorm.bias": [C],
        "mlp.fc1.weight": [M, C],
        "mlp.fc1.bias": [M],
        "mlp.fc2.weight": [C, M],
        "mlp.fc2.bias": [C],
    }
    tables = {
        f"{PARTS[part]}.{i}.pos_embed.pe": [1, TABLE, width]
        for part, n, width in (("mixer", c.mixer_layers, C), ("dit", c.dit_layers, c.width))
        for i in range(n if c.sinusoidal else 0)
    }
    return {f"vision_encoder.head.{k}": v for k, v in head.items()} | tables


TABLE = 512  # rows of the released position tables
RELEASED_RATE = 60.0  # actions per second of all released checkpoints


def released_config(about: dict, shapes: dict) -> model.Config:
    """model.Config of a released checkpoint, from its `ckpt_config` and, as that does not describe
    the vision encoder, its shapes.
    """
    m, tokenizer, modality = about["model_cfg"], about["tokenizer_cfg"], about["modality_cfg"]
    dit, mixer = m["diffusion_model_cfg"], m["vl_self_attention_cfg"]
    C, _, patch, _ = shapes["vision_encoder.embeddings.patch_embedding.weight"]
    tokens, d = (
        shapes["vision_encoder.embeddings.position_embedding.weight"][0],
        dit["attention_head_dim"],
    )
    D = d * dit["num_attention_heads"]
    for where, key, value in (
        *(
            (part, key, value)
            for part in ("diffusion_model_cfg", "vl_self_attention_cfg")
            for key, value in (
                ("activation_fn", "gelu-approximate"),
                ("attention_bias", True),
                ("final_dropout", True),
                ("attention_head_dim", d),
                ("dropout", dit["dropout"]),
                ("positional_embeddings", dit["positional_embeddings"]),
            )
        ),
        ("diffusion_model_cfg", "norm_type", "ada_norm"),
        ("diffusion_model_cfg", "norm_elementwise_affine", False),
        ("diffusion_model_cfg", "norm_eps", 1e-5),
        ("diffusion_model_cfg", "output_dim", D),
        ("model_cfg", "hidden_size", D),
        (
            "diffusion_model_cfg",
            "cross_attention_dim",
            None if C == D and dit["cross_attention_dim"] is None else C,
        ),
        ("vl_self_attention_cfg", "num_attention_heads", C // d),
        ("model_cfg", "vision_hidden_size", C),
        ("model_cfg", "max_num_embodiments", 1),
        ("tokenizer_cfg", "num_visual_tokens_per_frame", tokens),
        ("tokenizer_cfg", "game_mapping_cfg", None),
        ("modality_cfg", "frame_per_sample", 1),
    ):
        found = {
            "model_cfg": m,
            "diffusion_model_cfg": dit,
            "vl_self_attention_cfg": mixer,
            "tokenizer_cfg": tokenizer,
            "modality_cfg": modality,
        }[where][key]
        if found != value:
            raise ValueError(f"{where}.{key} is {found!r}, only {value!r} is supported here")
    if not re.search(r"siglip2?-(base|large)-", m["vision_encoder_name"]):
        raise ValueError(
            f"vision encoder {m['vision_encoder_name']}: only SigLIP base and large are supported"
        )
    layouts = {len(names): names for names in (model.RELEASED, model.CARD)}
    if m["action_dim"] not in layouts:
        raise ValueError(
            f"action_dim is {m['action_dim']}, only {' and '.join(map(str, layouts))} are known layouts"
        )
    names = layouts[m["action_dim"]]
    return model.Config(
        actions=names[-4:] + names[:-4] if tokenizer["old_layout"] else names,
        image=math.isqrt(tokens) * patch,
        patch=patch,
        width=D,
        head_width=d,
        context_width=0 if C == D else C,
        vision_mlp=shapes["vision_encoder.encoder.layers.0.mlp.fc1.weight"][0] / C,
        vision_layers=sum(
            bool(re.fullmatch(r"vision_encoder\.encoder\.layers\.\d+\.mlp\.fc1\.weight", k))
            for k in shapes
        ),
        mixer_layers=mixer["num_layers"],
        dit_layers=dit["num_layers"],
        horizon=m["action_horizon"],
        rate=float(modality.get("action_rate", RELEASED_RATE)),
        shift=modality["action_shift"],
        positions=m["max_seq_len"] if m["add_pos_embed"] else 0,
        dropout=dit["dropout"],
        alpha=m["noise_beta_alpha"],
        beta=m["noise_beta_beta"],
        t_max=m["noise_s"],
        steps=m["num_inference_timesteps"],
        buckets=m["num_timestep_buckets"],
        interleave=dit["interleave_self_attention"],
        sinusoidal=dit["positional_embeddings"] == "sinusoidal",
        pads=tokenizer["max_sequence_length"] - tokens,
    )


def checkpoint_config(c: model.Config) -> dict:
    """The `ckpt_config` of a network that was trained here: what `released_config` reads, and the
    constants beside it.
    """
    if c.predict != "velocity" or c.actions not in (model.RELEASED, model.CARD):
        raise ValueError(
            "the released layout has no place for predict='action' nor for this action layout; train from --net released"
        )
    block = {
        "dropout": c.dropout,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "upcast_attention": False,
        "max_num_positional_embeddings": TABLE,
        "compute_dtype": "float32",
        "final_dropout": True,
        "attention_head_dim": c.head_width,
        "positional_embeddings": "sinusoidal" if c.sinusoidal else None,
    }
    dit = block | {
        "num_attention_heads": c.width // c.head_width,
        "output_dim": c.width,
        "num_layers": c.dit_layers,
        "norm_type": "ada_norm",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
        "interleave_self_attention": c.interleave,
        "cross_attention_dim": c.context_width or None,
    }
    mixer = block | {
        "num_attention_heads": c.context // c.head_width,
        "output_dim": len(c.actions) + 1,
        "num_layers": c.mixer_layers,
        "interleave_self_attention": False,
    }
    tunes = ("vision_tower", "mm_projector", "diffusion_model", "multi_projector", "vl_mixing")
    return {
        "experiment_name": "nitrogen",
        "model_cfg": {
            "model_type": "nitrogen",
            "add_pos_embed": c.positions > 0,
            "model_dtype": "float32",
            "diffusion_model_cfg": dit,
            "vl_self_attention_cfg": mixer,
            "hidden_size": c.width,
            "max_seq_len": c.positions or 1024,
            "action_dim": len(c.actions),
            "action_horizon": c.horizon,
            "noise_beta_alpha": c.alpha,
            "noise_beta_beta": c.beta,
            "noise_s": c.t_max,
            "num_timestep_buckets": c.buckets,
            "num_inference_timesteps": c.steps,
            "max_num_embodiments": 1,
            "vision_encoder_name": f"google/siglip2-large-patch{c.patch}-{c.image}",
            "vision_hidden_size": c.context,
            "add_view_embed": False,
            **{f"tune_{t}": True for t in tunes},
        },
        "tokenizer_cfg": {
            "tokenizer_id": "nitrogen",
            "training": True,
            "num_visual_tokens_per_frame": c.tokens,
            "max_action_dim": len(c.actions),
            "max_sequence_length": c.tokens + c.pads,
            "action_horizon": c.horizon,
            "game_mapping_cfg": None,
            "use_action_mask": True,
            "old_layout": False,
        },
        "modality_cfg": {
            "frame_per_sample": 1,
            "frame_spacing": c.horizon,
            "action_per_chunk": c.horizon,
            "action_shift": c.shift,
            "action_interleaving": False,
            "token_set": "new",
        }
        # it has no place for that: ours to read
        | ({"action_rate": c.rate} if c.rate != RELEASED_RATE else {}),
    }


def unpack(path):
    """A released checkpoint, checked: (model.Config, tensors by our names, metadata).  Nothing in
    it is executed.
    """
    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:
        raise SystemExit(
            f"{path}: refused; not a torch checkpoint of tensors and plain values alone, or cut off "
            f"({type(e).__name__}: {str(e).strip().splitlines()[0][:100]})"
        ) from None
    try:
        state, about = saved["model"], saved["ckpt_config"]
        found = {
            k: list(v.shape) if v.is_floating_point() else [str(v.dtype)] for k, v in state.items()
        }
        c = released_config(about, found)
        net = model.skeleton(c, len(state))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        raise SystemExit(
            f"{path}: not a checkpoint of this network ({type(e).__name__}: {str(e).partition(chr(10))[0][:120]})"
        ) from None
    wanted = dict(piece for name, v in net.state_dict().items() for piece in pieces(name, v.shape))
    if fault := model.disagreement(wanted | dead(c), found):
        raise SystemExit(f"{path}: {fault}")
    tensors = {name: ours(name, state).float().numpy() for name in net.state_dict()} | {
        model.KEPT + k: state[k].float().numpy() for k in dead(c)
    }
    kinds = {
        k: str(v.dtype).removeprefix("torch.") for k, v in state.items() if v.dtype != torch.float32
    }
    rest = {k: saved[k] for k in ("step", "epoch") if isinstance(saved.get(k), (int, float))}
    return c, tensors, {"released": {"ckpt_config": about, "dtypes": kinds, **rest}}


@dataclass(frozen=True)
class Config(Common):
    files: tuple[str, ...] = ()  # the file to read, then the one to write


@dataclass(frozen=True)
class Export(Config):
    # report.json that eval.py play wrote about the policy: kept in the description of
    # FILE.safetensors
    figures: str = ""


def pair(c: Config) -> tuple[str, Path]:
    if len(c.files) != 2:
        raise SystemExit(
            f"expected two files, the one to read and the one to write, found {len(c.files)}"
        )
    if Path(c.files[1]).exists() and not c.fresh:
        raise SystemExit(f"{c.files[1]}: exists already; --fresh replaces it")
    return c.files[0], Path(c.files[1])


def convert(c: Config) -> None:
    """The released checkpoint -> a policy file."""
    source, target = pair(c)
    config, tensors, info = unpack(source)
    artefact.write(
        target,
        tensors,
        "nitrogen.policy/1",
        model=dataclasses.asdict(config),
        source=[artefact.source(source)],
        **info,
    )
    model.inspect(target)


def export(c: Export) -> None:
    """A policy file -> FILE.pt: the released layout; FILE.safetensors: the same policy in float16,
    for shipping.
    """
    source, target = pair(c)
    to_half(source, target, c.figures) if target.suffix == ".safetensors" else to_released(
        source, target
    )


def to_released(source, target) -> None:
    """What it never had (the unused pooling head) becomes zeros."""
    net, tensors, info = model.opened(source)
    before = info.get("released", {})
    try:
        about = before.get("ckpt_config") or checkpoint_config(net.c)
    except ValueError as e:
        raise SystemExit(f"{source}: {e}") from None
    state = {
        k: v
        for name in net.state_dict()
        for k, v in theirs(name, torch.from_numpy(tensors[name]).float()).items()
    }
    for name, shape in dead(net.c).items():
        kept = tensors.get(model.KEPT + name)
        table = (
            model.position_table(*shape[1:])[None] if name.endswith(".pe") else torch.zeros(shape)
        )
        state[name] = table if kept is None else torch.from_numpy(kept)
    state = {
        k: v.to(getattr(torch, before.get("dtypes", {}).get(k, "float32"))).contiguous().clone()
        for k, v in state.items()
    }
    with artefact.replacing(target) as part:
        torch.save(
            {
                "model": state,
                "step": before.get("step", info.get("step", 0)),
                "epoch": before.get("epoch", 0),
                "ckpt_config": about,
            },
            part,
        )
    print(f"{source} -> {target}: {len(state)} tensors")


def to_half(source, target, figures: str) -> None:
    """What is known of its making goes along."""
    net, tensors, info = model.opened(source)
    origin, kept = (
        artefact.source(source),
        {k: v for k, v in info.items() if k not in ("format", "model", "tensors", "command")},
    )
    if figures:
        try:
            report = json.loads(Path(figures).read_bytes())
            kept["figures"] = {k: v for k, v in report.items() if k != "episodes"}
        except (OSError, ValueError, AttributeError) as e:
            raise SystemExit(f"{figures}: not a report of eval.py play ({e})") from None
        if report.get("policy") != origin:
            raise SystemExit(
                f"{figures}: not about {source}; make it: python eval.py play --policy {source}"
            )
    model.save(
        target,
        {name: torch.from_numpy(tensors[name]) for name in net.state_dict()},
        net,
        half=True,
        **kept | {"trained": info["command"], "source": [origin]},
    )
    model.inspect(target)
