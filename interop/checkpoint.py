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

from common import artefact, policy_file
from common.command_line import Common, typed, wing

import torch

import model

VIRTUAL = ("RIGHT_BOTTOM", "RIGHT_LEFT", "RIGHT_RIGHT", "RIGHT_UP")  # of the right stick
CARD = tuple(name for name in model.RELEASED if name not in VIRTUAL)  # as the model card says
TABLE = 512  # max_num_positional_embeddings of all released checkpoints
RATE = 60.0  # actions per second of all released checkpoints

# ---- names and shapes: our tensors, and the released ones that each is made of -------------------

MODULES = {
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
VISION_LAYERS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
BLOCK_LAYERS = {
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
ACTION_MLPS = ("encode", "decode")  # stored as (category, in, out), with one category


def released_shapes(name: str, shape) -> list[tuple[str, list[int]]]:
    """The released tensors (name, shape) that make our tensor `name`, in the order of its rows."""
    module = next(m for m in MODULES if name.startswith(m + "."))
    released = MODULES[module]
    rest, _, suffix = name.removeprefix(module + ".").rpartition(".")  # suffix: weight or bias
    if module.startswith(ACTION_MLPS):
        return [(f"{released}.{'W' if suffix == 'weight' else 'b'}", [1, *shape[::-1]])]
    if not rest:
        return [(f"{released}.{suffix}", list(shape))]
    number, layer = rest.split(".", 1)
    fused = re.fullmatch("attn.(q?kv|q)", layer)
    layers = [f"attn.{letter}" for letter in fused[1]] if fused else [layer]
    names = VISION_LAYERS if module == "vision.blocks" else BLOCK_LAYERS
    part = [shape[0] // len(layers), *shape[1:]]
    return [(f"{released}.{number}.{names[one]}.{suffix}", part) for one in layers]


def ours(name: str, released: dict):
    """Our tensor, from the released ones."""
    parts = [released[n] for n, _ in released_shapes(name, [1])]
    return parts[0][0].t() if name.startswith(ACTION_MLPS) else torch.cat(parts)


def theirs(name: str, tensor) -> dict:
    """The released tensors, from ours."""
    names = [n for n, _ in released_shapes(name, tensor.shape)]
    if name.startswith(ACTION_MLPS):
        return {names[0]: tensor.t()[None]}
    return dict(zip(names, tensor.chunk(len(names)), strict=True))


def all_released_shapes(module: torch.nn.Module, prefix: str = "") -> dict:
    """Released name -> shape, of all tensors of our network or of one of its modules."""
    shapes = {}
    for name, v in module.state_dict().items():
        shapes |= released_shapes(prefix + name, v.shape)
    return shapes


def unused(c: model.Config) -> dict:
    """Shapes of the released tensors that never reach an action: SigLIP's pooling head."""
    D = c.width
    hidden = round(c.vision_mlp * D)
    head = {
        "probe": [1, 1, D],
        "attention.in_proj_weight": [3 * D, D],
        "attention.in_proj_bias": [3 * D],
        "attention.out_proj.weight": [D, D],
        "attention.out_proj.bias": [D],
        "layernorm.weight": [D],
        "layernorm.bias": [D],
        "mlp.fc1.weight": [hidden, D],
        "mlp.fc1.bias": [hidden],
        "mlp.fc2.weight": [D, hidden],
        "mlp.fc2.bias": [D],
    }
    return {f"vision_encoder.head.{name}": shape for name, shape in head.items()}


def load_vision(net: model.NitroGen, path) -> None:
    """Take the vision encoder from a SigLIP or SigLIP-2 tower as transformers saves it
    (`vision_model.*` in a safetensors file).
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as f:
            names = [name for name in f.keys() if re.match(r"vision_model\.(?!head\.)", name)]
            tower = {name.removeprefix("vision_model."): f.get_tensor(name) for name in names}
    except Exception as e:
        fault = str(e).splitlines()[0][:120]
        raise SystemExit(f"{path}: not a readable safetensors file ({fault})") from None
    if not tower:
        raise SystemExit(
            f"{path}: no tensor is named vision_model.*; "
            "expected a SigLIP tower as transformers saves it"
        )
    shapes = all_released_shapes(net.vision, "vision.")
    wanted = {name.removeprefix("vision_encoder."): shape for name, shape in shapes.items()}
    if fault := policy_file.disagreement(wanted, {name: v.shape for name, v in tower.items()}):
        raise SystemExit(f"{path}: {fault}; this network's vision encoder needs another tower")
    released = {f"vision_encoder.{name}": v for name, v in tower.items()}
    net.vision.load_state_dict({k: ours(f"vision.{k}", released) for k in net.vision.state_dict()})


# ---- config: theirs -> ours, ours -> theirs ------------------------------------------------------


def released_config(about: dict, shapes: dict) -> model.Config:
    """model.Config of a released checkpoint, from its `ckpt_config` and its shapes, as the former
    does not describe the vision encoder. ValueError for what this network is not.
    """
    m = about["model_cfg"]
    dit = m["diffusion_model_cfg"]
    modality = about["modality_cfg"]
    _, _, patch, _ = shapes["vision_encoder.embeddings.patch_embedding.weight"]
    tokens, width = shapes["vision_encoder.embeddings.position_embedding.weight"]
    layouts = {len(names): names for names in (model.RELEASED, CARD)}
    if m["action_dim"] not in layouts:
        known = " and ".join(map(str, layouts))
        raise ValueError(f"action_dim is {m['action_dim']}, only {known} are known layouts")
    names = layouts[m["action_dim"]]
    layer = re.compile(r"vision_encoder\.encoder\.layers\.\d+\.mlp\.fc1\.weight")
    c = model.Config(
        actions=names[-4:] + names[:-4] if about["tokenizer_cfg"]["old_layout"] else names,
        image=math.isqrt(tokens) * patch,
        patch=patch,
        width=width,
        head_width=dit["attention_head_dim"],
        vision_mlp=shapes["vision_encoder.encoder.layers.0.mlp.fc1.weight"][0] / width,
        vision_layers=len([name for name in shapes if layer.fullmatch(name)]),
        mixer_layers=m["vl_self_attention_cfg"]["num_layers"],
        dit_layers=dit["num_layers"],
        horizon=m["action_horizon"],
        rate=float(modality.get("action_rate", RATE)),
        shift=modality["action_shift"],
        positions=m["max_seq_len"],
        dropout=dit["dropout"],
        alpha=m["noise_beta_alpha"],
        beta=m["noise_beta_beta"],
        t_max=m["noise_s"],
        steps=m["num_inference_timesteps"],
        buckets=m["num_timestep_buckets"],
    )
    refuse_other_networks(about, c)
    return c


# fields of a `ckpt_config` that must be as in `described(c)`
BLOCK_FIELDS = (
    "activation_fn attention_bias final_dropout num_attention_heads attention_head_dim dropout "
    "positional_embeddings"
)
FIELDS = {
    "diffusion_model_cfg": f"{BLOCK_FIELDS} norm_type norm_elementwise_affine norm_eps output_dim "
    "interleave_self_attention cross_attention_dim",
    "vl_self_attention_cfg": BLOCK_FIELDS,
    "model_cfg": "hidden_size vision_hidden_size max_num_embodiments add_pos_embed",
    "tokenizer_cfg": "num_visual_tokens_per_frame max_sequence_length game_mapping_cfg",
    "modality_cfg": "frame_per_sample",
}


def refuse_other_networks(about: dict, c: model.Config) -> None:
    """ValueError if a `ckpt_config` has a switch in a position that model.py does not have."""
    sections = about | about["model_cfg"]
    ours = described(c)
    ours |= ours["model_cfg"]
    if sections["diffusion_model_cfg"]["cross_attention_dim"]:  # None: as wide as the DiT
        ours["diffusion_model_cfg"]["cross_attention_dim"] = c.width
    for section, fields in FIELDS.items():
        for field in fields.split():
            found = sections[section][field]
            wanted = ours[section][field]
            if found != wanted:
                raise ValueError(f"{section}.{field} is {found!r}, only {wanted!r} is supported")
    encoder = about["model_cfg"]["vision_encoder_name"]
    if not re.search(r"siglip2?-(base|large)-", encoder):
        raise ValueError(f"vision encoder {encoder}: only SigLIP base and large are supported")


def checkpoint_config(c: model.Config) -> dict:
    """The `ckpt_config` of a network that was trained here; ValueError if there can be none."""
    if c.predict != "velocity" or c.actions not in (model.RELEASED, CARD):
        raise ValueError(
            "the released layout has no place for predict='action' or these actions; train from "
            "--net released"
        )
    return described(c)


def described(c: model.Config) -> dict:
    """A config as a `ckpt_config`: what `released_config` reads, and the constants beside it."""
    tokenizer = {
        "tokenizer_id": "nitrogen",
        "training": True,
        "num_visual_tokens_per_frame": c.tokens,
        "max_action_dim": len(c.actions),
        "max_sequence_length": c.tokens,
        "action_horizon": c.horizon,
        "game_mapping_cfg": None,
        "use_action_mask": True,
        "old_layout": False,
    }
    modality = {
        "frame_per_sample": 1,
        "frame_spacing": c.horizon,
        "action_per_chunk": c.horizon,
        "action_shift": c.shift,
        "action_interleaving": False,
        "token_set": "new",
    }
    if c.rate != RATE:
        modality["action_rate"] = c.rate  # ours: the released files have no such field
    return {
        "experiment_name": "nitrogen",
        "model_cfg": described_model(c),
        "tokenizer_cfg": tokenizer,
        "modality_cfg": modality,
    }


def described_model(c: model.Config) -> dict:
    block = {
        "dropout": c.dropout,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "upcast_attention": False,
        "max_num_positional_embeddings": TABLE,
        "compute_dtype": "float32",
        "final_dropout": True,
        "num_attention_heads": c.width // c.head_width,
        "attention_head_dim": c.head_width,
        "positional_embeddings": None,
    }
    dit = {
        "output_dim": c.width,
        "num_layers": c.dit_layers,
        "norm_type": "ada_norm",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
        "interleave_self_attention": True,
        "cross_attention_dim": None,
    }
    mixer = {
        "output_dim": len(c.actions) + 1,
        "num_layers": c.mixer_layers,
        "interleave_self_attention": False,
    }
    tuned = ("vision_tower", "mm_projector", "diffusion_model", "multi_projector", "vl_mixing")
    return {
        "model_type": "nitrogen",
        "add_pos_embed": True,
        "model_dtype": "float32",
        "diffusion_model_cfg": block | dit,
        "vl_self_attention_cfg": block | mixer,
        "hidden_size": c.width,
        "max_seq_len": c.positions,
        "action_dim": len(c.actions),
        "action_horizon": c.horizon,
        "noise_beta_alpha": c.alpha,
        "noise_beta_beta": c.beta,
        "noise_s": c.t_max,
        "num_timestep_buckets": c.buckets,
        "num_inference_timesteps": c.steps,
        "max_num_embodiments": 1,
        "vision_encoder_name": f"google/siglip2-large-patch{c.patch}-{c.image}",
        "vision_hidden_size": c.width,
        "add_view_embed": False,
        **{f"tune_{part}": True for part in tuned},
    }


# ---- reading and writing -------------------------------------------------------------------------


def read_torch(path):
    """What torch.save wrote into a file, if tensors and plain values; no code in it is executed."""
    if not Path(path).is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:
        raise SystemExit(
            f"{path}: refused; not a torch checkpoint of tensors and plain values alone, or cut "
            f"off ({type(e).__name__}: {str(e).strip().splitlines()[0][:100]})"
        ) from None


def unpack(path):
    """A released checkpoint, checked: network without weights, arrays by our names, metadata."""
    saved = read_torch(path)
    try:
        state, about = saved["model"], saved["ckpt_config"]
        found = {name: float_shape(v) for name, v in state.items()}
        net = model.skeleton(released_config(about, found), len(state))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ZeroDivisionError) as e:
        fault = str(e).partition("\n")[0][:120]
        raise SystemExit(
            f"{path}: not a checkpoint of this network ({type(e).__name__}: {fault})"
        ) from None
    rest = unused(net.c)
    if fault := policy_file.disagreement(all_released_shapes(net) | rest, found):
        raise SystemExit(f"{path}: {fault}")
    tensors = {name: ours(name, state).float().numpy() for name in net.state_dict()}
    tensors |= {policy_file.UNUSED + name: state[name].float().numpy() for name in rest}
    others = {name: v.dtype for name, v in state.items() if v.dtype != torch.float32}
    released = {
        "ckpt_config": about,
        "dtypes": {name: str(dtype).removeprefix("torch.") for name, dtype in others.items()},
    }
    for key in ("step", "epoch"):
        if isinstance(saved.get(key), (int, float)):
            released[key] = saved[key]
    return net, tensors, {"released": released}


def float_shape(v) -> list:
    """Shape of a floating-point tensor; of another one its dtype, which is no shape."""
    return list(v.shape) if v.is_floating_point() else [str(v.dtype)]


@dataclass(frozen=True)
class Config(Common):
    files: tuple[str, ...] = ()  # the file to read, then the one to write


@dataclass(frozen=True)
class Export(Config):
    # report.json that eval.py play wrote about the policy: kept in the description of
    # FILE.safetensors or FILE.onnx
    figures: str = ""
    # FILE.onnx: denoising steps, one after the other in the file; 0: as many as play asks for
    steps: int = 0
    half: bool = True  # FILE.safetensors in float16
    base: str = ""  # of an adapter (train.py --lora), if it lies neither beside it nor where it was


def pair(c: Config) -> tuple[str, Path]:
    if len(c.files) != 2:
        raise SystemExit(
            f"expected two files, the one to read and the one to write, found {len(c.files)}"
        )
    source, target = c.files
    if Path(target).exists() and not c.fresh:
        raise SystemExit(f"{target}: exists already; --fresh replaces it")
    return source, Path(target)


def convert(c: Config) -> None:
    """The released checkpoint -> a policy file."""
    source, target = pair(c)
    net, tensors, info = unpack(source)
    info |= {"model": dataclasses.asdict(net.c), "source": [artefact.source(source)]}
    artefact.write(target, tensors, "nitrogen.policy/1", **info)
    model.inspect(target)


def export(c: Export) -> None:
    """A policy file -> FILE.pt: the released layout; FILE.safetensors: the same policy in float16,
    for shipping; FILE.onnx: for play without torch (pip install onnx onnxscript onnxruntime).
    An adapter is merged with its base.
    """
    source, target = pair(c)
    if c.steps and target.suffix != ".onnx":
        raise SystemExit(f"--steps {c.steps}: of FILE.onnx; {target} takes any number")
    policy = model.read_policy(source, c.base)
    if target.suffix == ".onnx":
        to_onnx(source, target, c, *policy)
    elif target.suffix == ".safetensors":
        to_policy(source, target, c, *policy)
    else:
        to_released(source, target, *policy)


def to_released(source, target, net, tensors: dict, info: dict) -> None:
    """Write the released layout; a pooling head that the policy never had becomes zeros."""
    before = info.get("released", {})
    if net.c.frames > 1 or net.c.prefix:
        raise SystemExit(
            f"{source}: the released layout has no place for --frames and --prefix; give "
            "FILE.safetensors or FILE.onnx"
        )
    try:
        about = before.get("ckpt_config") or checkpoint_config(net.c)
    except ValueError as e:
        raise SystemExit(f"{source}: {e}") from None
    state = {}
    for name in net.state_dict():
        state |= theirs(name, torch.from_numpy(tensors[name]).float())
    for name, shape in unused(net.c).items():
        values = tensors.get(policy_file.UNUSED + name)
        state[name] = torch.zeros(shape) if values is None else torch.from_numpy(values)
    dtypes = before.get("dtypes", {})
    for name, v in state.items():
        dtype = getattr(torch, dtypes.get(name, "float32"))
        state[name] = v.to(dtype).contiguous().clone()
    saved = {
        "model": state,
        "step": before.get("step", info.get("step", 0)),
        "epoch": before.get("epoch", 0),
        "ckpt_config": about,
    }
    with artefact.replacing(target) as part:
        torch.save(saved, part)
    print(f"{source} -> {target}: {len(state)} tensors")


def to_policy(source, target, c: Export, net, tensors: dict, info: dict) -> None:
    """Write the same policy, whole, with all that its metadata says about its making."""
    state = {name: torch.from_numpy(tensors[name]) for name in net.state_dict()}
    model.save(target, state, net, half=c.half, **made(source, c, info))
    model.inspect(target)


def to_onnx(source, target, c: Export, net, tensors: dict, info: dict) -> None:
    """Write it for onnxruntime."""
    state = {name: torch.from_numpy(tensors[name]).float() for name in net.state_dict()}
    net.load_state_dict(state, assign=True)
    about = made(source, c, info)
    wing("interop.to_onnx").export(net.eval(), target, c.steps, about)


def made(source, c: Export, info: dict) -> dict:
    """What a policy file says about its making, for one that is made of it."""
    rebuilt = ("format", "model", "tensors", "command", "base")
    making = {key: value for key, value in info.items() if key not in rebuilt}
    if c.figures:
        making["figures"] = read_figures(c.figures, source)
    making |= {"trained": info["command"], "source": [artefact.source(source)]}
    if "base" in info:
        making["source"].append(info["base"])
    return making


def read_figures(figures: str, source) -> dict:
    """What eval.py play measured of the policy `source`, without the single episodes."""
    try:
        report = json.loads(Path(figures).read_bytes())
        totals = {key: value for key, value in report.items() if key != "episodes"}
    except (OSError, ValueError, AttributeError) as e:
        raise SystemExit(f"{figures}: not a report of eval.py play ({e})") from None
    if report.get("policy") != artefact.source(source):
        play = typed("eval.py", "play", "--policy", str(source))
        raise SystemExit(f"{figures}: not about {source}; make it: {play}")
    return totals
