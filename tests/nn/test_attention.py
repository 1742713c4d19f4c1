"""Attention: the kernel equals the plain formula, forward and backward, whatever lengths are packed together."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bothways.batch import Tokens, mix_seed
from bothways.nn import attention
from bothways.nn.attention import attend, attend_reference, attention_weights

MIXED = (1, 2, 3, 5, 8, 8, 9, 13, 21, 22, 23, 40, 41, 64)
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


PAIRS = ((3, 8), (1, 1), (21, 2), (40, 17), (5, 64))


def packed(lengths: tuple[int, ...], *, noise: bool = True) -> Tokens:
    """Boundaries as given, sorted or not; the ids play no part here."""
    total = sum(lengths)
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    seeds = np.repeat([mix_seed(7, length) for length in lengths], lengths)
    return Tokens(
        input_ids=torch.zeros(total, dtype=torch.int64),
        segment_ids=torch.zeros(total, dtype=torch.int64),
        position_ids=position_ids,
        cu_seqlens=torch.tensor(np.cumsum((0, *lengths)), dtype=torch.int32),
        max_seqlen=max(lengths),
        lengths=lengths,
        noise=torch.from_numpy(seeds) + position_ids * 0x5851F42D4C957F if noise else None,
    )


def qkv(
    queries: Tokens, keys: Tokens, dtype: torch.dtype = torch.float32, heads: int = 2, width: int = 8
) -> list[Tensor]:
    sizes = (sum(queries.lengths), sum(keys.lengths), sum(keys.lengths))
    return [torch.randn(size, heads, width).to(dtype).requires_grad_() for size in sizes]


def assert_same_as_reference(
    queries: Tokens, keys: Tokens, *, causal: bool, dtype: torch.dtype = torch.float32
) -> None:
    """Outputs and all three gradients."""
    ours = qkv(queries, keys, dtype)
    plain = [x.detach().float().requires_grad_() for x in ours]
    out = attend(*ours, queries, keys, causal=causal)
    wanted = attend_reference(*plain, queries, keys, causal=causal)
    assert out.dtype == dtype
    pull = torch.randn_like(wanted)
    (out.float() * pull).sum().backward()
    (wanted * pull).sum().backward()
    limit = TOLERANCE[dtype]
    torch.testing.assert_close(out.float(), wanted, atol=limit, rtol=limit)
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad.float(), theirs.grad, atol=10 * limit, rtol=10 * limit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [MIXED, MIXED[::-1], (5,), (6, 6, 6), (3, 60, 4, 59, 5)], ids=str)
def test_self_attention(lengths: tuple[int, ...], causal: bool, dtype: torch.dtype) -> None:
    tokens = packed(lengths)
    assert_same_as_reference(tokens, tokens, causal=causal, dtype=dtype)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.booleans())
@settings(max_examples=20)
def test_cross_attention(lengths: list[tuple[int, int]], causal: bool) -> None:
    queries, keys = packed(tuple(q for q, _ in lengths)), packed(tuple(k for _, k in lengths))
    assert_same_as_reference(queries, keys, causal=causal)


def test_without_gradients() -> None:
    """Inference in bfloat16 takes another kernel than training."""
    tokens = packed(MIXED)
    q, k, v = qkv(tokens, tokens, torch.bfloat16)
    wanted = attend_reference(q.float(), k.float(), v.float(), tokens, tokens)
    with torch.inference_mode():
        torch.testing.assert_close(attend(q, k, v, tokens, tokens).float(), wanted, atol=2e-2, rtol=2e-2)


# ----------------------------------------------------------------------------------- the kernel on CUDA


@pytest.fixture
def spelt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variable-length kernel as a release of PyTorch spells it, made of the plain formula."""

    def kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, is_causal: bool) -> Tensor:
        assert (cu_q.dtype, cu_k.dtype) == (torch.int32, torch.int32)
        assert all(x.is_contiguous() for x in (q, k, v))
        queries, keys = (packed(tuple(bounds.diff().tolist())) for bounds in (cu_q, cu_k))
        assert (queries.max_seqlen, keys.max_seqlen) == (max_q, max_k)
        return attend_reference(q, k, v, queries, keys, causal=is_causal)

    def with_flag(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False) -> Tensor:
        return kernel(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=is_causal)

    def with_window(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)) -> Tensor:
        assert window_size in ((-1, -1), (-1, 0))
        return kernel(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=window_size == (-1, 0))

    module = ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = {"flag": with_flag, "window": with_window}[request.param]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    attention._varlen_kernel.cache_clear()
    yield
    attention._varlen_kernel.cache_clear()


@pytest.mark.parametrize("spelt", ["flag", "window"], indirect=True)
@pytest.mark.parametrize("causal", [False, True])
def test_what_the_kernel_on_cuda_is_given(causal: bool, spelt: None) -> None:
    queries, keys = packed(tuple(q for q, _ in PAIRS)), packed(tuple(k for _, k in PAIRS))
    for others in (keys, queries):
        q, k, v = (x.detach().transpose(0, 1).contiguous().transpose(0, 1) for x in qkv(queries, others))
        found = attention._attend_varlen(q, k, v, queries, others, causal=causal)
        assert torch.equal(found, attend_reference(q, k, v, queries, others, causal=causal))


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [MIXED, MIXED[::-1], (5,), (3, 60, 4, 59, 512)], ids=str)
def test_on_cuda_as_on_a_cpu(lengths: tuple[int, ...], causal: bool) -> None:
    tokens = packed(lengths)
    assert_same_on_cuda(tokens, tokens, causal=causal)


@pytest.mark.gpu
def test_cross_attention_on_cuda_as_on_a_cpu() -> None:
    queries, keys = packed(tuple(q for q, _ in PAIRS)), packed(tuple(k for _, k in PAIRS))
    assert_same_on_cuda(queries, keys, causal=False)


def assert_same_on_cuda(queries: Tokens, keys: Tokens, *, causal: bool) -> None:
    """Outputs and gradients of the kernel in bfloat16, and of the buckets in float32, beside those on the CPU."""
    there = queries.to("cuda")
    others = there if keys is queries else keys.to("cuda")
    for dtype, limit in ((torch.bfloat16, 2e-2), (torch.float32, 1e-4)):
        ours = qkv(queries, keys, dtype, width=64)
        theirs = [x.detach().cuda().requires_grad_() for x in ours]
        out, found = attend(*ours, queries, keys, causal=causal), attend(*theirs, there, others, causal=causal)
        assert (found.dtype, found.device.type) == (dtype, "cuda")
        pull = torch.randn_like(out)
        (out * pull).sum().backward()
        (found * pull.cuda()).sum().backward()
        torch.testing.assert_close(found.float().cpu(), out.float(), atol=limit, rtol=limit)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.grad is not None
            assert other.grad is not None
            torch.testing.assert_close(other.grad.float().cpu(), mine.grad.float(), atol=10 * limit, rtol=10 * limit)


@pytest.mark.gpu
def test_on_cuda_dropout_is_that_of_the_cpu() -> None:
    """The kernel has none, so the buckets serve; the noise is a hash, the same on any device."""
    tokens = packed(MIXED)
    q, k, v = (x.detach() for x in qkv(tokens, tokens))
    wanted = attend(q, k, v, tokens, tokens, dropout=0.3, salt=2)
    found = attend(q.cuda(), k.cuda(), v.cuda(), tokens.to("cuda"), tokens.to("cuda"), dropout=0.3, salt=2)
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------- weights, plans, dropout


def test_weights_sum_to_one_over_the_own_sequence() -> None:
    tokens = packed((2, 5))
    q, k, _ = qkv(tokens, tokens)
    for weights, length in zip(attention_weights(q, k, tokens, tokens), (2, 5), strict=True):
        assert weights.shape == (2, length, length)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, length))


def test_plans_do_not_outlive_their_keys() -> None:
    """They are kept with the queries; one for keys that are gone must not serve others at the same address."""
    queries, gone = packed((4, 6)), packed((3, 9))
    assert_same_as_reference(queries, gone, causal=False)
    address = id(gone)
    del gone
    gc.collect()
    others = [packed((9, 3))]
    while id(others[-1]) != address and len(others) < 1000:
        others.append(packed((9, 3)))
    assert_same_as_reference(queries, others[-1], causal=False)
    assert_same_as_reference(queries, queries, causal=False)


def shown_weights(tokens: Tokens, *, dropout: float, salt: int = 0, heads: int = 4) -> list[Tensor]:
    """(heads, t, t) weights of each sequence: even attention over values that say which key they are."""
    width = max(tokens.lengths)
    total = sum(tokens.lengths)
    values = torch.eye(width)[tokens.position_ids][:, None, :].expand(total, heads, width).contiguous()
    flat = torch.zeros(total, heads, width)
    mixed = attend(flat, flat, values, tokens, tokens, dropout=dropout, salt=salt).split(tokens.lengths)
    return [part[:, :, : len(part)].transpose(0, 1) for part in mixed]


def test_dropout_of_weights_has_its_rate_and_scale() -> None:
    tokens = packed((56, 61, 64))
    dropped = total = 0
    for weights, length in zip(shown_weights(tokens, dropout=0.1), tokens.lengths, strict=True):
        dropped += int((weights == 0).sum())
        total += weights.numel()
        kept = weights[weights != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (length * 0.9)), rtol=1e-4, atol=0)
    assert abs(dropped / total - 0.1) < 5 * math.sqrt(0.09 / total)


@pytest.mark.parametrize("company", [(), (30,), (33, 37), (29, 31, 36, 36), (12, 40, 64)])
def test_dropout_of_weights_is_the_same_in_any_company(company: tuple[int, ...]) -> None:
    """One bucket is as wide as its longest sequence; the noise must not depend on that."""
    (alone,) = shown_weights(packed((32,)), dropout=0.3)
    lengths = tuple(sorted((32, *company)))
    together = shown_weights(packed(lengths), dropout=0.3)[lengths.index(32)]
    assert torch.equal(alone, together)
    assert 0.2 < float((alone == 0).double().mean()) < 0.4


def test_dropout_of_weights_differs_by_layer_head_query_and_key() -> None:
    (first,) = [(weights == 0).double() for weights in shown_weights(packed((64,)), dropout=0.5)]
    (other,) = [(weights == 0).double() for weights in shown_weights(packed((64,)), dropout=0.5, salt=1)]
    pairs = {
        "layer": (first, other),
        "head": (first[1:], first[:-1]),
        "query": (first[:, 1:], first[:, :-1]),
        "key": (first[..., 1:], first[..., :-1]),
        "query and key": (first, first.transpose(1, 2)),
    }
    for what, (a, b) in pairs.items():
        agreement = float((a == b).double().mean())
        assert abs(agreement - 0.5) < 5 * 0.5 / math.sqrt(a.numel()) + 0.02, what


def test_dropout_without_noise_draws_its_own() -> None:
    tokens = packed((32, 64), noise=False)
    first, second = (torch.cat([w.flatten() for w in shown_weights(tokens, dropout=0.5)]) == 0 for _ in range(2))
    assert abs(float(first.double().mean()) - 0.5) < 0.03
    assert not torch.equal(first, second)


def test_dropout_has_gradients() -> None:
    tokens = packed((2, 3))
    q, k, v = (x.double().detach().requires_grad_() for x in qkv(tokens, tokens, heads=1, width=2))
    assert torch.autograd.gradcheck(lambda *x: attend(*x, tokens, tokens, dropout=0.4), (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: attend(*x, tokens, tokens, causal=True), (q, k, v))
