"""Several rows as one vector: the mean or the maximum of a group, of length 1 if wanted."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from bothways.nn.heads import Head, mean_by_group


def max_by_group(rows: Float[Tensor, "m D"], groups: Int[Tensor, " bounds"]) -> Float[Tensor, "G D"]:
    """Greatest value of each group's rows in each direction; `groups` holds their bounds."""
    sizes = groups.diff()
    which = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)
    least = torch.full((len(sizes), rows.shape[1]), -torch.inf, dtype=rows.dtype, device=rows.device)
    return least.scatter_reduce(0, which[:, None].expand_as(rows), rows, "amax")


class VectorHead(Head):
    """A vector for each group of rows: a text, a word, a pair. It learns nothing of its own.

    The mean of all rows of a long text's windows weighs each window by its tokens. A group of one row, [CLS], is that
    row.

    Reference: Reimers and Gurevych, Sentence-BERT, 2019, section 3.
    """

    per = "group"

    def __init__(self, pooling: Literal["mean", "max"], *, normalize: bool) -> None:
        super().__init__()
        self.pooling, self.normalize = pooling, normalize

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "G D"]:
        """Each group's vector, in float32."""
        pooled = mean_by_group(rows.float(), groups) if self.pooling == "mean" else max_by_group(rows.float(), groups)
        return F.normalize(pooled, dim=1) if self.normalize else pooled
