"""An encoder with its heads, or an encoder and a decoder: one pass over the packed batch answers for all of them."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from bothways.batch import Batch
from bothways.errors import ConfigError
from bothways.nn.cache import Cache
from bothways.nn.crf import CrfHead
from bothways.nn.decoder import Decoder
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, MaskedHead, TokenHead
from bothways.nn.layers import Features, Layers, parse_layers

TEXT = "text"  # the head that says what a target's next piece is


class Network(nn.Module):
    """What is trained, saved and served.

    Heads read the encoder's last layer, or `layers` of it; with a decoder, its rows instead.

    features: where heads were made to read other vectors than those of their task, which
    """

    features: Features | None = None

    def __init__(
        self,
        encoder: Encoder,
        heads: dict[str, Head],
        decoder: Decoder | None = None,
        *,
        layers: Layers | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, layers
        self.decoder = decoder
        self.heads = nn.ModuleDict(heads)

    def read_features(self, features: Features) -> None:
        """Have the heads begin anew on these vectors.

        Raises:
            ConfigError: layers that there are not, or a head that can't read them.
        """
        self.features, self.layers = features, parse_layers(features.layers, len(self.encoder.layers))
        for name, head in self.heads.items():
            if isinstance(head, TokenHead):
                head.read_features(self.width, features.hidden, pooled=self.layers is None)
            elif not isinstance(head, CrfHead):
                raise ConfigError(
                    f"the head {name} reads the last layer only: leave --frozen-layers and --frozen-hidden out"
                )

    @property
    def width(self) -> int:
        """How long the vectors are that heads read: D, or a multiple where several layers stand side by side."""
        several = len(self.layers.numbers) if self.layers is not None and self.layers.how == "concat" else 1
        return several * self.encoder.config.hidden_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The scores of each head that the batch feeds, one a row or one a group, in the order of its examples."""
        noise = batch.tokens.noise
        if self.decoder is not None:
            assert batch.decoder is not None, "a target to be taught is wanted"
            rows, noise = self.decoded(batch, self.encoder(batch.tokens)), batch.decoder.noise
        elif batch.vectors is not None:
            rows = batch.vectors
        elif self.layers is not None:
            rows = self.encoder.mixed(batch.tokens, batch.target_index, self.layers)
        else:
            rows = self.encoder(batch.tokens, batch.target_index)
        if noise is not None:
            noise = noise.index_select(0, batch.target_index)
        scores = {}
        for name, head in self.heads.items():
            if (target := batch.targets.get(name)) is None:
                continue
            scores[name] = head(rows[target.rows], None if noise is None else noise[target.rows], target.groups)
        return scores

    def decoded(self, batch: Batch, memory: Float[Tensor, "T D"]) -> Float[Tensor, "M D"]:
        """The decoder's rows that heads read."""
        assert batch.decoder is not None
        assert batch.sources is not None
        return self.writer(batch.decoder, memory, batch.sources).index_select(0, batch.target_index)

    def head(self, name: str) -> Head:
        """The head of that name."""
        head = self.heads[name]
        assert isinstance(head, Head)
        return head

    @property
    def writer(self) -> Decoder:
        """The decoder, which there is."""
        assert self.decoder is not None
        return self.decoder

    def next_logits(self, ids: Int[Tensor, " R"], cache: Cache) -> Float[Tensor, "R V"]:
        """What may follow in each of the targets in `cache`, whose last tokens are `ids`; in float32."""
        head = self.heads[TEXT]
        assert isinstance(head, MaskedHead)
        return head.logits(self.writer.step(ids, cache)).float()

    def set_attention_dropout(self, p: float) -> None:
        """Drop attention weights with probability `p` in training; at 0 the fused kernels can be used."""
        self.encoder.set_attention_dropout(p)
        if self.decoder is not None:
            self.decoder.set_attention_dropout(p)
