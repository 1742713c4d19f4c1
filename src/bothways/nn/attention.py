"""Attention over the packed row: `attend` is the only place that knows about kernels."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Tokens, mix_seed
from bothways.nn.dropout import keep

# Attention scores, over all heads, that a bucket may spend on padding: about what starting another bucket costs.
# Measured on 2 cores with steps of 32 short texts, forward and backward: plain products are slower to start.
FUSED_WASTE, PRODUCTS_WASTE = 300_000, 1_500_000
ANSWERS_WASTE = 150_000  # without gradients products start faster


def attend(
    q: Float[Tensor, "Tq H K"],
    k: Float[Tensor, "Tk H K"],
    v: Float[Tensor, "Tk H K"],
    queries: Tokens,
    keys: Tokens,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    salt: int = 0,
) -> Float[Tensor, "Tq H K"]:
    """softmax(q kᵀ / √K) v, each sequence of `queries` over the sequence of `keys` with the same number.

    On CUDA in half precision this is one variable-length kernel; everywhere else sequences of near
    length are attended together, as many as their padding costs less than another kernel call.
    `causal` lets position i see keys up to i. `dropout` drops attention weights, as BERT does;
    `salt` keeps one layer's noise apart from another's.

    Reference: Vaswani et al., 2017, section 3.2.1.
    """
    if q.is_cuda and dropout == 0.0 and q.dtype in (torch.bfloat16, torch.float16):
        return _attend_varlen(q, k, v, queries, keys, causal=causal)
    # PyTorch's fused CPU kernel wins in float32; in bfloat16 it takes about twice as long as plain products
    # forward (LOG.md), several times as long backward, and with dropout it falls back to them anyhow.
    answers = not torch.is_grad_enabled()
    native = q.dtype == torch.bfloat16 and not q.is_cuda and _native_bfloat16()
    fused = dropout == 0.0 and (q.dtype == torch.float32 or (answers and not native))
    waste = (FUSED_WASTE if fused else ANSWERS_WASTE if answers else PRODUCTS_WASTE) // q.shape[1]
    buckets = _plan(queries, keys, causal=causal, waste=waste, recurring=answers and native, device=q.device)
    attend_bucket = _attend_fused if fused else functools.partial(_attend_by_products, dropout=dropout, salt=salt)
    mixed = [attend_bucket(bucket, q, k, v, queries.noise) for bucket in buckets]
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def attend_held(
    q: Float[Tensor, "S H B K"],
    k: Float[Tensor, "S H L K"],
    v: Float[Tensor, "S H L K"],
    bias: Float[Tensor, "S one rows L"] | None,
) -> Float[Tensor, "S H B K"]:
    """The same where keys and values lie in a cache, for S sources with B queries (live beams) each.

    `bias` is -inf where a query must not look. The layout is the kernel's own, so that a step of decoding moves
    nothing but what is new.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attend_reference(
    q: Float[Tensor, "Tq H K"],
    k: Float[Tensor, "Tk H K"],
    v: Float[Tensor, "Tk H K"],
    queries: Tokens,
    keys: Tokens,
    *,
    causal: bool = False,
) -> Float[Tensor, "Tq H K"]:
    """The same as `attend`, written plainly, one sequence at a time: for tests."""
    weights = attention_weights(q, k, queries, keys, causal=causal)
    values = v.split(keys.lengths)
    return torch.cat([torch.einsum("hqk,khd->qhd", w, value) for w, value in zip(weights, values, strict=True)])


def attention_weights(
    q: Float[Tensor, "Tq H K"],
    k: Float[Tensor, "Tk H K"],
    queries: Tokens,
    keys: Tokens,
    *,
    causal: bool = False,
) -> list[Tensor]:
    """α of each sequence, (H, tq, tk), rows summing to one: what the pictures show."""
    weights = []
    for query, key in zip(q.split(queries.lengths), k.split(keys.lengths), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(q.shape[-1])
        if causal:
            scores = scores.masked_fill(~torch.ones_like(scores[0], dtype=torch.bool).tril(), -math.inf)
        weights.append(scores.softmax(-1))
    return weights


class SelfAttention(nn.Module):
    """Each token weighs the tokens of its own sequence, to both sides.

    Queries, keys and values come from one product with a (3 D, D) matrix.
    """

    def __init__(self, hidden_size: int, num_attention_heads: int, *, dropout: float, salt: int) -> None:
        super().__init__()
        self.heads, self.dropout, self.salt = num_attention_heads, dropout, salt
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def project(self, x: Float[Tensor, "T D"]) -> tuple[Float[Tensor, "T H K"], ...]:
        """Queries, keys and values of all heads."""
        return self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)

    def mix(self, x: Float[Tensor, "T D"], tokens: Tokens, *, causal: bool = False) -> Float[Tensor, "T D"]:
        """The weighted values of all heads side by side, before the output product."""
        q, k, v = self.project(x)
        dropout = self.dropout if self.training else 0.0
        return attend(q, k, v, tokens, tokens, causal=causal, dropout=dropout, salt=self.salt).reshape(len(x), -1)

    def forward(self, x: Float[Tensor, "T D"], tokens: Tokens) -> Float[Tensor, "T D"]:
        """Attention over `x`, all rows."""
        return self.output(self.mix(x, tokens))


# --------------------------------------------------------------------------------- CPU: buckets of near lengths


@dataclass(frozen=True)
class _Side:
    """The rows of one bucket on one side: a slice of the packed row, laid out as `count` × `width`.

    There may be fewer sequences than `count`; the last ones are then of no meaning.
    """

    start: int
    stop: int
    count: int
    width: int
    index: Tensor | None  # (count × width,) rows of the slice, any row where there is none; None: already so
    back: Tensor | None  # (stop - start,) where each row of the slice went
    valid: Tensor | None  # (count × width, 1, 1) 1 where there is a row

    def pad(self, x: Tensor) -> Tensor:
        """(T, H, K) → (count, H, width, K)."""
        x = x[self.start : self.stop]
        if self.index is not None:
            x = _Rows.apply(x, self.index, self.back, None)
        return x.view(self.count, self.width, *x.shape[1:]).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """(count, H, width, K) → (stop - start, H, K)."""
        x = x.transpose(1, 2).reshape(self.count * self.width, x.shape[1], x.shape[3])
        return x if self.index is None else _Rows.apply(x, self.back, self.index, self.valid)


@dataclass(frozen=True)
class _Bucket:
    queries: _Side
    keys: _Side
    bias: Tensor | None  # (count, 1, 1 or width, width) float: -inf where a query must not look


class _Rows(torch.autograd.Function):
    """`x[index]`, whose gradient is a gather too, because `back` says where every row went.

    Plain indexing would have to assume that rows repeat, and adds gradients up one by one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, valid: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(back, valid)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        back, valid = ctx.saved_tensors
        grad = grad.index_select(0, back)
        return (grad if valid is None else grad * valid.to(grad.dtype)), None, None, None


def _attend_fused(bucket: _Bucket, q: Tensor, k: Tensor, v: Tensor, noise: Tensor | None) -> Tensor:
    """One bucket by PyTorch's fused kernel; it does without dropout, so the noise is not read."""
    bias = None if bucket.bias is None else bucket.bias.to(q.dtype)
    padded = bucket.queries.pad(q), bucket.keys.pad(k), bucket.keys.pad(v)
    return bucket.queries.unpad(F.scaled_dot_product_attention(*padded, attn_mask=bias))


def _attend_by_products(
    bucket: _Bucket, q: Tensor, k: Tensor, v: Tensor, noise: Tensor | None, *, dropout: float, salt: int
) -> Tensor:
    """One bucket as the formula has it."""
    scores = torch.matmul(bucket.queries.pad(q) * (q.shape[-1] ** -0.5), bucket.keys.pad(k).transpose(-1, -2))
    if bucket.bias is not None:
        scores = scores + bucket.bias.to(q.dtype) if scores.requires_grad else scores.add_(bucket.bias)
    weights = torch.softmax(scores, dim=-1)
    if dropout > 0.0:
        weights = _drop_weights(weights, bucket.queries, noise, dropout, salt)
    return bucket.queries.unpad(torch.matmul(weights, bucket.keys.pad(v)))


def _drop_weights(weights: Tensor, side: _Side, noise: Tensor | None, dropout: float, salt: int) -> Tensor:
    """Attention weights (count, H, tq, tk) with some zeroed, by the query's noise, the salt, the head and the key."""
    count, heads, width, over = weights.shape
    if noise is None:
        noise = torch.randint(-(2**62), 2**62, (side.stop,), device=weights.device)
    noise = noise[side.start : side.stop]
    if side.index is not None:
        noise = noise.index_select(0, side.index)
    threshold = round(dropout * 65536)
    lanes = -(-over // 4)
    # The column's hash must not depend on how wide the bucket is: one key, one head, one number.
    columns = torch.arange(heads, device=noise.device)[:, None] * 0x2545F4914F6CDD1D + mix_seed(salt)
    columns = (columns + torch.arange(lanes, device=noise.device) * 0x27D4EB2F165667C5).flatten()
    kept = keep(noise, columns, threshold).view(count, width, heads, lanes * 4)[..., :over].transpose(1, 2)
    return weights * kept.to(weights.dtype) / (1 - threshold / 65536)


def _plan(
    queries: Tokens, keys: Tokens, *, causal: bool, waste: int, recurring: bool, device: torch.device
) -> list[_Bucket]:
    """Buckets for this pair of packed rows, made once and kept with the queries for all layers."""
    key = (None if keys is queries else keys.lengths, causal, waste, recurring, device)
    if key not in queries.plans:
        queries.plans[key] = _make_buckets(queries.lengths, keys.lengths, causal, waste, recurring, device)
    return queries.plans[key]


def _make_buckets(
    q_lengths: tuple[int, ...],
    k_lengths: tuple[int, ...],
    causal: bool,
    waste: int,
    recurring: bool,
    device: torch.device,
) -> list[_Bucket]:
    """Runs of sequences in the order they are packed in, each run as long as its padding wastes at most `waste`.

    `recurring`: counts and widths are rounded up to numbers from a short list, so that the same shapes come again.
    """
    buckets, first = [], 0
    q_start = k_start = 0
    while first < len(q_lengths):
        last, q_width, k_width, area = first, 0, 0, 0
        while last < len(q_lengths):
            q_width, k_width = max(q_width, q_lengths[last]), max(k_width, k_lengths[last])
            area += q_lengths[last] * k_lengths[last]
            if (last + 1 - first) * q_width * k_width - area > waste:
                break
            last += 1
        q_side = _side(q_lengths[first:last], q_start, recurring, device)
        k_side = q_side if k_lengths is q_lengths else _side(k_lengths[first:last], k_start, recurring, device)
        buckets.append(_Bucket(q_side, k_side, _bias(k_lengths[first:last], q_side, k_side, causal, device)))
        q_start, k_start, first = q_side.stop, k_side.stop, last
    return buckets


def _side(lengths: tuple[int, ...], start: int, recurring: bool, device: torch.device) -> _Side:
    count, width, total = len(lengths), max(lengths), sum(lengths)
    if recurring:
        count, width = _rounded(count, 1), _rounded(width, 8) if width > 4 else width
    if total == count * width:
        return _Side(start, start + total, count, width, None, None, None)
    begins = np.zeros(count, dtype=np.int64)
    begins[1 : len(lengths)] = np.cumsum(lengths[:-1])
    inside = np.arange(width)[None, :] < np.array([*lengths, *[0] * (count - len(lengths))])[:, None]
    index = np.where(inside, begins[:, None] + np.arange(width)[None, :], begins[:, None]).reshape(-1)
    return _Side(
        start,
        start + total,
        count,
        width,
        torch.from_numpy(index).to(device),
        torch.from_numpy(np.flatnonzero(inside)).to(device),
        torch.from_numpy(inside.reshape(-1, 1, 1)).to(device),
    )


def _rounded(number: int, finest: int) -> int:
    """The next of the numbers that lie `finest` or an eighth of their octave apart, whichever is more.

    oneDNN keeps about half a megabyte of code for every shape of product that it has met, for ever.
    """
    step = max(finest, 1 << max(0, (number - 1).bit_length() - 4))
    return -(-number // step) * step


def _bias(lengths: tuple[int, ...], q: _Side, k: _Side, causal: bool, device: torch.device) -> Tensor | None:
    if not causal and k.index is None:
        return None
    # A sequence that only fills up the count looks at one row of no meaning.
    keys = np.array([*lengths, *[1] * (k.count - len(lengths))])
    seen = (np.arange(k.width)[None, :] < keys[:, None])[:, None, None, :]
    if causal:
        seen = seen & np.tri(q.width, k.width, dtype=bool)
    return torch.zeros(seen.shape, device=device).masked_fill_(torch.from_numpy(~seen).to(device), -math.inf)


@functools.cache
def _native_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 by this CPU's own instructions."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


# ------------------------------------------------------------------------------- CUDA: one variable-length kernel


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, queries: Tokens, keys: Tokens, *, causal: bool) -> Tensor:
    kernel, causal_argument = _varlen_kernel()
    return kernel(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        queries.cu_seqlens,
        keys.cu_seqlens,
        queries.max_seqlen,
        keys.max_seqlen,
        **causal_argument[causal],
    )


@functools.cache
def _varlen_kernel() -> tuple[Any, dict[bool, dict[str, Any]]]:
    """torch.nn.attention.varlen's function and how this release spells `causal` (it differs from 2.11 to 2.13)."""
    from torch.nn.attention.varlen import varlen_attn

    names = inspect.signature(varlen_attn).parameters
    if "is_causal" in names:
        return varlen_attn, {True: {"is_causal": True}, False: {}}
    return varlen_attn, {True: {"window_size": (-1, 0)}, False: {}}
