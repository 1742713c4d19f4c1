"""Cross-entropy over a vocabulary, a few rows at a time, so that its logits lie in memory once."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Logits worked on at once: on a CPU as many as stay in its cache, on a GPU as many as keep it busy.

A quarter or four times as many take the same time (LOG.md).
"""


def cross_entropy(
    logits: Float[Tensor, "M V"], labels: Int[Tensor, " M"], *, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """PyTorch's `cross_entropy`, summed over the rows, in float32 whatever the logits are in.

    PyTorch's own makes a copy in float32, the logarithms of all probabilities, and a gradient, each as large as the
    logits. Here the gradient is written over the logits: once it has been taken, they are of no meaning. Those of a
    leaf, which are somebody's own, are left alone.
    """
    if logits.is_leaf and logits.requires_grad:
        logits = logits.clone()
    return _CrossEntropy.apply(logits, labels, label_smoothing)  # pyright: ignore[reportReturnType]


class _CrossEntropy(torch.autograd.Function):
    """Σ over rows of −Σ_c q(c) log p(c), where q is 1 − s at the label and s / V more for every piece.

    Reference: Szegedy et al., 2015, section 7 (label smoothing).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.rows = max(1, CHUNK[logits.device.type] // logits.shape[1])
        ctx.smoothing = smoothing
        sums, norms = [], []
        for part, label in zip(logits.split(ctx.rows), labels[:, None].split(ctx.rows), strict=True):
            part = part.float()
            logs = F.log_softmax(part, 1)
            told = logs.gather(1, label)
            norms.append(part.gather(1, label) - told)  # the logarithm of the sum of exponentials
            loss = told.sum() * (smoothing - 1)
            sums.append(loss - logs.sum() * (smoothing / logits.shape[1]) if smoothing else loss)
        ctx.save_for_backward(logits, labels, torch.cat(norms))
        return torch.stack(sums).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, labels, norms = ctx.saved_tensors
        parts = (whole.split(ctx.rows) for whole in (logits, labels[:, None], norms))
        for part, label, norm in zip(*parts, strict=True):
            change = part.float().sub_(norm).exp_()  # in float32 this is the logits' own memory
            if ctx.smoothing:
                change.sub_(ctx.smoothing / logits.shape[1])
            change.scatter_add_(1, label, torch.full_like(norm, ctx.smoothing - 1))
            change.mul_(grad)
            if change.dtype != part.dtype:
                part.copy_(change)
        return logits, None, None
