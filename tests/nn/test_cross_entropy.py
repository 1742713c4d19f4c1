"""Cross-entropy in chunks: PyTorch's own values and gradients, in a fraction of its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bothways.nn import cross_entropy as module
from bothways.nn.cross_entropy import cross_entropy

PIECES = 97


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHUNK, "cpu", 8 * PIECES)


def plain(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="sum")


def loss_and_gradients(function: Any, rows: int, dtype: torch.dtype, smoothing: float) -> list[Tensor]:
    """Of a product with a vocabulary, whose loss is a share of another one."""
    torch.manual_seed(1)
    x, labels = torch.randn(rows, 16), torch.randint(PIECES, (rows,))
    product = nn.Linear(16, PIECES)
    with torch.no_grad():
        product.weight.mul_(8)  # some pieces are all but certain
    x, product = x.to(dtype).requires_grad_(), product.to(dtype)
    loss = function(product(x), labels, label_smoothing=smoothing)
    (-0.3 * loss + 1).backward()
    return [loss.detach(), *(p.grad.float() for p in (x, product.weight, product.bias) if p.grad is not None)]


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 40, 0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_same_as_pytorchs(rows: int, smoothing: float, dtype: torch.dtype) -> None:
    found, wanted = (loss_and_gradients(function, rows, dtype, smoothing) for function in (cross_entropy, plain))
    assert len(found) == len(wanted) == 4
    assert found[0].dtype == torch.float32
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5 if dtype != torch.bfloat16 else 1e-2, atol=1e-5)


def test_one_piece_that_is_certain() -> None:
    """No infinity and no NaN where exponentials overflow."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]], requires_grad=True)
    loss = cross_entropy(logits * 1.0, torch.tensor([0, 1]))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        held = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in held:
                self.numbers = max(self.numbers, leaf.numel())
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_as_large_as_the_logits_is_made(dtype: torch.dtype) -> None:
    logits = torch.randn(64, PIECES, dtype=dtype, requires_grad=True) * 1
    labels = torch.randint(PIECES, (64,))
    for function, fits in ((plain, False), (cross_entropy, True)):
        with Largest() as largest:
            torch.autograd.grad(function(logits, labels, label_smoothing=0.1), logits)
        assert (largest.numbers <= 8 * PIECES) is fits


def test_logits_of_ones_own_stay_as_they_are() -> None:
    logits = torch.randn(20, PIECES, requires_grad=True)
    before, labels = logits.detach().clone(), torch.randint(PIECES, (20,))
    for _ in range(2):
        cross_entropy(logits, labels).backward()
    assert torch.equal(logits, before)
    with torch.inference_mode():
        assert cross_entropy(before * 1, labels) == cross_entropy(before, labels)


def test_a_second_gradient_of_the_same_logits_is_refused() -> None:
    """They have been written over."""
    logits = torch.randn(20, PIECES, requires_grad=True) * 1
    loss = cross_entropy(logits, torch.randint(PIECES, (20,)))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
