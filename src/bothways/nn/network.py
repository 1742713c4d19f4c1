"""An encoder with its heads: one pass over the packed batch answers for all of them."""

from __future__ import annotations

from torch import Tensor, nn

from bothways.batch import Batch
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.nn.layers import Layers


class Network(nn.Module):
    """What is trained, saved and served. Heads read the encoder's last layer, or `layers` of it."""

    def __init__(self, encoder: Encoder, heads: dict[str, Head], *, layers: Layers | None = None) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, layers
        self.heads = nn.ModuleDict(heads)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The scores of each head that the batch feeds, one a row or one a group, in the order of its examples."""
        if self.layers is None:
            rows = self.encoder(batch.tokens, batch.target_index)
        else:
            rows = self.encoder.mixed(batch.tokens, batch.target_index, self.layers)
        noise = batch.tokens.noise
        if noise is not None:
            noise = noise.index_select(0, batch.target_index)
        scores = {}
        for name, head in self.heads.items():
            if (target := batch.targets.get(name)) is None:
                continue
            scores[name] = head(rows[target.rows], None if noise is None else noise[target.rows], target.groups)
        return scores

    def head(self, name: str) -> Head:
        """The head of that name."""
        head = self.heads[name]
        assert isinstance(head, Head)
        return head
