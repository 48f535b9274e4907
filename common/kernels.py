"""A model.NitroGen that only plays, in two Triton kernels: a linear layer with all that stands
around it, and attention.

A chunk of 18 tokens is bound by the number of kernels that a GPU starts, not by their arithmetic. A
block of the network is five of them here: norm, modulation and linear layer; attention; linear
layer and residual; norm, linear layer and GELU; linear layer and residual.

torch's builds for CUDA and ROCm bring Triton. With TRITON_INTERPRET=1 in the environment the same
kernels run on a CPU, slowly: so they are tested.
"""

from __future__ import annotations

import functools
import os

import torch
import triton
import triton.language as tl


def tiles(*sizes):
    """One triton.Config for each (rows, features out, features in, warps, stages)."""
    return [
        triton.Config({"BM": m, "BN": n, "BK": k}, num_warps=warps, num_stages=stages)
        for m, n, k, warps, stages in sizes
    ]


# CHOICE: few tokens want narrow tiles, so that all processors of the GPU read weights
LINEAR = tiles(
    (32, 32, 128, 4, 4),
    (32, 16, 128, 4, 4),
    (32, 16, 256, 4, 3),
    (32, 64, 128, 4, 3),
    (64, 32, 128, 4, 3),
    (64, 64, 64, 4, 4),
    (128, 64, 64, 4, 3),
    (128, 128, 64, 8, 3),
)
if os.environ.get("TRITON_INTERPRET") or not torch.cuda.is_available():  # nothing to time them on
    LINEAR = LINEAR[:1]


# ---- kernels -------------------------------------------------------------------------------------


@triton.autotune(LINEAR, key=["ROWS", "OUT", "IN", "NORM", "ADD"])
@triton.jit
def linear_kernel(
    x,  # [ROWS, IN], rows next to each other
    weight,  # [OUT, IN]
    bias,  # [OUT]
    gain,  # [gains, IN]: row r of the input takes row r % gains
    shift,
    add,  # [adds, OUT], likewise
    y,  # [ROWS, OUT]
    ROWS,
    OUT,
    IN,
    gain_row,  # elements from a row to the next
    gains,
    adds,
    eps,
    NORM: tl.constexpr,  # normalize the input's rows
    GAIN: tl.constexpr,  # then times gain, plus shift
    ONE: tl.constexpr,  # gain is 1 + what is given
    ACT: tl.constexpr,  # of the output: gelu, silu, relu or nothing
    ADD: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """y = act(norm(x) weight^T + bias) + add"""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    mean = tl.zeros([BM], tl.float32)
    scale = mean + 1
    if NORM:
        # about each row's first value: the squares of a large mean would hide a small variance
        origin = tl.load(x + rows * IN, mask=rows < ROWS, other=0).to(tl.float32)
        squares = tl.zeros([BM], tl.float32)
        for k in range(0, IN, BK):
            inside = (rows[:, None] < ROWS) & (k + depth[None, :] < IN)
            part = tl.load(x + rows[:, None] * IN + k + depth[None, :], mask=inside, other=0)
            part = tl.where(inside, part.to(tl.float32) - origin[:, None], 0)
            mean += tl.sum(part, 1)
            squares += tl.sum(part * part, 1)
        mean = mean / IN
        scale = tl.rsqrt(tl.maximum(squares / IN - mean * mean, 0) + eps)
        mean += origin
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, IN, BK):
        deep = k + depth
        inside = (rows[:, None] < ROWS) & (deep[None, :] < IN)
        part = tl.load(x + rows[:, None] * IN + deep[None, :], mask=inside, other=0)
        if NORM:
            normal = (part.to(tl.float32) - mean[:, None]) * scale[:, None]
            if GAIN:
                at = (rows % gains)[:, None] * gain_row + deep[None, :]
                times = tl.load(gain + at, mask=inside, other=0).to(tl.float32)
                if ONE:
                    times += 1
                normal = normal * times + tl.load(shift + at, mask=inside, other=0)
            part = tl.where(inside, normal, 0).to(weight.dtype.element_ty)
        there = (columns[None, :] < OUT) & (deep[:, None] < IN)
        w = tl.load(weight + columns[None, :] * IN + deep[:, None], mask=there, other=0)
        total = tl.dot(part, w, total, input_precision="ieee")
    total += tl.load(bias + columns, mask=columns < OUT, other=0)[None, :]
    if ACT == "gelu":  # the tanh approximation: x (1 + tanh u) / 2 = x sigmoid(2 u)
        total *= tl.sigmoid(1.5957691216 * (total + 0.044715 * total * total * total))
    elif ACT == "silu":
        total *= tl.sigmoid(total)
    elif ACT == "relu":
        total = tl.maximum(total, 0)
    inside = (rows[:, None] < ROWS) & (columns[None, :] < OUT)
    if ADD:
        total += tl.load(
            add + (rows % adds)[:, None] * OUT + columns[None, :], mask=inside, other=0
        )
    tl.store(y + rows[:, None] * OUT + columns[None, :], total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def attention_kernel(
    q,  # [B, H, QUERIES, d]
    k,  # [B, H, KEYS, d]
    v,
    y,  # [B, QUERIES, H d]
    q_batch,  # elements from a batch, head, row to the next; of v as of k
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    H,
    QUERIES,
    KEYS,
    factor,  # d^-0.5
    d: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """softmax(q k^T factor) v, of one head and BM rows; BN keys at a time (arXiv 2205.14135)"""
    batch = tl.program_id(0) // H
    head = tl.program_id(0) % H
    rows = tl.program_id(1) * BM + tl.arange(0, BM)
    width = tl.arange(0, d)
    inside = rows[:, None] < QUERIES
    q += batch * q_batch + head * q_head
    query = tl.load(q + rows[:, None] * q_row + width[None, :], mask=inside, other=0)
    largest = tl.full([BM], float("-inf"), tl.float32)
    weight = tl.zeros([BM], tl.float32)
    total = tl.zeros([BM, d], tl.float32)
    start = batch * k_batch + head * k_head
    for first in range(0, KEYS, BN):
        n = first + tl.arange(0, BN)
        keys = k + start + n[None, :] * k_row + width[:, None]
        key = tl.load(keys, mask=n[None, :] < KEYS, other=0)  # [d, BN]
        score = tl.dot(query, key, input_precision="ieee") * factor
        score = tl.where(n[None, :] < KEYS, score, float("-inf"))
        larger = tl.maximum(largest, tl.max(score, 1))
        old = tl.exp(largest - larger)
        p = tl.exp(score - larger[:, None])
        values = v + start + n[:, None] * k_row + width[None, :]
        value = tl.load(values, mask=n[:, None] < KEYS, other=0)
        total = total * old[:, None]
        total = tl.dot(p.to(value.dtype), value, total, input_precision="ieee")
        weight = weight * old + tl.sum(p, 1)
        largest = larger
    total = (total / weight[:, None]).to(y.dtype.element_ty)
    tl.store(
        y + ((batch * QUERIES + rows[:, None]) * H + head) * d + width[None, :], total, mask=inside
    )


# ---- on tensors ----------------------------------------------------------------------------------


def linear(x, layer, norm=None, modulation=None, act: str = "", add=None):
    """act(layer(norm(x))) + add for x [..., in] -> [..., out].

    norm: an nn.LayerNorm; modulation: (scale, shift) [1 or K, in] after it, in place of its own
    weight and bias; add: [..., out], repeated over the first dimensions.
    """
    x = x.contiguous()
    features = x.shape[-1]
    rows = x.numel() // features
    y = x.new_empty(*x.shape[:-1], len(layer.weight))
    gain, shift = modulation or (getattr(norm, "weight", None), getattr(norm, "bias", None))
    gains = 1 if gain is None else gain.numel() // features
    add = None if add is None else add.contiguous()
    adds = 1 if add is None else add.numel() // y.shape[-1]

    def grid(tile):
        return triton.cdiv(rows, tile["BM"]), triton.cdiv(y.shape[-1], tile["BN"])

    linear_kernel[grid](
        *(x, layer.weight, layer.bias, gain, shift, add, y, rows, y.shape[-1], features),
        *(gain.stride(-2) if gains > 1 else 0, gains, adds, norm.eps if norm else 0.0),
        NORM=norm is not None,
        GAIN=gain is not None,
        ONE=modulation is not None,
        ACT=act,
        ADD=add is not None,
    )
    return y


def attention(q, k, v):
    """q [B, H, K, d]; k, v [B, H, N, d] of the same strides -> [B, K, H d]."""
    B, H, K, d = q.shape
    y = q.new_empty(B, K, H * d)
    BM = 32 if K <= 32 else 64
    attention_kernel[(B * H, triton.cdiv(K, BM))](
        *(q, k, v, y, *q.stride()[:3], *k.stride()[:3], H, K, k.shape[2], d**-0.5),
        d=d,
        BM=BM,
        BN=32 if k.shape[2] <= 32 else 64,
    )
    return y


# ---- the network ---------------------------------------------------------------------------------


def block(b, x, kv=(), modulation=None):
    """model.Block without dropout."""
    parts = None if modulation is None else modulation.chunk(2, dim=-1)
    y = linear(x, b.attn.q if b.attn.cross else b.attn.qkv, b.norm1, parts)
    q, *own = b.attn.split(y, 1 if b.attn.cross else 3)
    x = linear(attention(q, *(kv or own)), b.attn.out, add=x)
    return linear(linear(x, b.fc1, b.norm2, act="gelu"), b.fc2, add=x)


def prediction(net, noisy, timing, context):
    """model.NitroGen.prediction"""
    x = linear(noisy.to(net.dtype), net.encode_action)
    x = torch.cat([x, timing.tau.expand_as(x)], dim=-1)
    x = linear(x, net.encode_time, act="silu")
    x = linear(x, net.encode_out, add=net.position.weight[: x.shape[1]])
    for b, kv, modulation in zip(net.dit, context, timing.modulation, strict=True):
        x = block(b, x, kv, modulation)
    shift, scale = timing.modulation_out.chunk(2, dim=-1)
    x = linear(x, net.out, net.norm_out, (scale, shift))
    return linear(linear(x, net.decode1, act="relu"), net.decode2).to(noisy.dtype)


def fuse(net) -> None:
    """Have a model.NitroGen that only plays use these. ValueError for a head width that Triton
    cannot take.
    """
    d = net.c.head_width
    if d < 16 or d & (d - 1):
        raise ValueError(f"the kernels take heads of 16, 32, 64, ... values, not of {d}")
    for b in (*net.vision.blocks, *net.mixer, *net.dit):
        b.forward = functools.partial(block, b)
    net.prediction = functools.partial(prediction, net)
