"""What stands on the encoder's output: one linear layer or a small network for each kind of answer.

A head gets the rows that its target names, (m, D), and answers once a row or once a group (`per`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.nn.dropout import Dropout
from bothways.nn.encoder import Pooler, initialise

HEAD_SALT = 1 << 20  # keeps heads' dropout apart from the layers'


class Head(nn.Module, ABC):
    """Rows (m, D), their noise and their groups' bounds (G + 1,) → scores, one a row or one a group."""

    per: ClassVar[Literal["row", "group"]]

    @abstractmethod
    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Tensor:
        """The head's scores."""


class MaskedHead(Head):
    """Which piece stands here? Logits over the vocabulary, through the word embeddings themselves.

    That piece was masked, or in a target it comes next. `tied=False` gives the head a matrix of its own.

    Reference: google-research/bert run_pretraining.py, get_masked_lm_output.
    """

    per = "row"

    def __init__(
        self,
        word_embeddings: nn.Embedding,
        *,
        activation: Callable[[Tensor], Tensor],
        layer_norm_eps: float,
        initializer_range: float,
        tied: bool = True,
    ) -> None:
        super().__init__()
        size, width = word_embeddings.weight.shape
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(size))
        self.activation = activation
        initialise(self, initializer_range)
        self.word = [word_embeddings]  # in a list, so that the tied matrix is not counted as this head's own
        self.weight = None if tied else nn.Parameter(torch.empty_like(word_embeddings.weight))
        if self.weight is not None:
            nn.init.trunc_normal_(self.weight, std=initializer_range, a=-2 * initializer_range, b=2 * initializer_range)

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "m V"]:
        """Logits of each row."""
        return self.logits(rows)

    def logits(self, rows: Float[Tensor, "m D"]) -> Float[Tensor, "m V"]:
        """The same without the noise and groups, which this head doesn't need."""
        return self.vocabulary(self.norm(self.activation(self.dense(rows))))

    def vocabulary(self, x: Float[Tensor, "m D"]) -> Float[Tensor, "m V"]:
        """The product with every piece's vector: what is prepared when texts are to be written."""
        return nn.functional.linear(x, self.matrix, self.bias)

    @property
    def matrix(self) -> Float[Tensor, "V D"]:
        """The word embeddings, or the head's own."""
        return self.word[0].weight if self.weight is None else self.weight


class TokenHead(Head):
    """One answer a row: drop out, one linear layer. Tags of words, both ends of an answer.

    On fixed vectors (`read_features`) a hidden layer may stand before that.

    Reference: Devlin et al., 2018, sections 4.2 and 5.3.
    """

    per = "row"

    def __init__(self, width: int, labels: int, *, dropout: float, initializer_range: float, salt: int = 0) -> None:
        super().__init__()
        self.salt, self.deviation = HEAD_SALT + salt, initializer_range
        self.dropout = Dropout(dropout, width, salt=self.salt)
        self.hidden: nn.Linear | None = None
        self.linear = nn.Linear(width, labels)
        initialise(self, initializer_range)

    def read_features(self, width: int, hidden: int | None, *, pooled: bool) -> None:
        """Begin anew on rows of that width, by a hidden layer of so many units; `pooled`: they are the last layer's."""
        labels = self.linear.out_features
        self.dropout = Dropout(self.dropout.p, width, salt=self.salt)
        self.hidden = None if hidden is None else nn.Linear(width, hidden)
        self.linear = nn.Linear(hidden or width, labels)
        initialise(self, self.deviation)

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "m C"]:
        """Logits of each row."""
        rows = self.dropout(rows, noise)
        return self.linear(rows if self.hidden is None else F.gelu(self.hidden(rows)))


class PooledHead(TokenHead):
    """One answer a row, through the pooler: a score for each option of a choice.

    The pooler was made for the last layer: of other layers, rows are read as they are.
    """

    def __init__(
        self, pooler: Pooler, width: int, labels: int, *, dropout: float, initializer_range: float, salt: int = 0
    ) -> None:
        super().__init__(width, labels, dropout=dropout, initializer_range=initializer_range, salt=salt)
        self.pooler = [pooler]  # the encoder's own, shared: see MaskedHead

    def read_features(self, width: int, hidden: int | None, *, pooled: bool) -> None:
        """As `TokenHead`, through the pooler where rows are the last layer's."""
        super().read_features(width, hidden, pooled=pooled)
        if not pooled:
            self.pooler = []

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "m C"]:
        """Logits of each row."""
        for pooler in self.pooler:
            rows = pooler(rows)
        return super().forward(rows, noise, groups)


class LabelHead(PooledHead):
    """One answer for a group of [CLS] rows: the mean of what its windows say.

    Reference: Devlin et al., 2018, section 4.1.
    """

    per = "group"

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "G C"]:
        """Logits of each group."""
        logits = super().forward(rows, noise, groups)
        return logits if len(groups) == len(rows) + 1 else mean_by_group(logits, groups)


class RowsHead(Head):
    """The rows as they are: what the other heads would read."""

    per = "row"

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "m D"]:
        """Each row."""
        return rows


def mean_by_group(rows: Float[Tensor, "m C"], groups: Int[Tensor, " bounds"]) -> Float[Tensor, "G C"]:
    """Mean of each group's rows; `groups` holds their bounds."""
    sizes = groups.diff()
    which = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)
    summed = torch.zeros(len(sizes), rows.shape[1], dtype=rows.dtype, device=rows.device).index_add(0, which, rows)
    return summed / sizes[:, None].to(rows.dtype)
