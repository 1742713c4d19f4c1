"""Softmax over groups of rows that are decided together: the tokens of a window, the options of a question."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def group_log_softmax(scores: Float[Tensor, "m C"], groups: Int[Tensor, " bounds"]) -> Float[Tensor, "m C"]:
    """Logarithm of the softmax down each column, within each group of rows; `groups` (G + 1,) holds their bounds."""
    sizes = groups.diff()
    which = torch.repeat_interleave(torch.arange(len(sizes), device=scores.device), sizes)
    empty = torch.full((len(sizes), scores.shape[1]), -torch.inf, dtype=scores.dtype, device=scores.device)
    # The greatest of each group keeps exp() in range; it cancels out, so no gradient has to pass through it.
    greatest = empty.scatter_reduce(0, which[:, None].expand_as(scores), scores.detach(), "amax")[which]
    shifted = scores - greatest
    sums = torch.zeros_like(empty).index_add(0, which, shifted.exp())
    return shifted - sums.log()[which]
