"""The decoder: BERT's own layers made causal, each with cross-attention to the source between its two halves."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float, Int
from torch import Tensor, nn

from bothways.batch import Tokens
from bothways.nn.attention import attend, attend_held, attention_weights
from bothways.nn.cache import Cache
from bothways.nn.dropout import Dropout
from bothways.nn.encoder import Embeddings, Encoder, EncoderConfig, EncoderLayer, initialise

CROSS_SALT = 1 << 16  # keeps the dropout of cross-attention apart from the layers'


class CrossAttention(nn.Module):
    """Each target token weighs the tokens of its source (α); their weighted values are its content vector (C).

    Reference: Vaswani et al., 2017, section 3.2.3; Bahdanau et al., 2014, section 3.1 (α and c).
    """

    def __init__(self, config: EncoderConfig, number: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads, self.salt = config.num_attention_heads, CROSS_SALT + 2 * number
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, width, salt=self.salt + 1)

    def queries(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T H K"]:
        """What target tokens look for."""
        return self.query(x).view(len(x), self.heads, -1)

    def keys_values(self, memory: Float[Tensor, "S D"]) -> tuple[Float[Tensor, "S H K"], Float[Tensor, "S H K"]]:
        """What source tokens are found by, and what they give."""
        k, v = self.key_value(memory).view(len(memory), 2, self.heads, -1).unbind(1)
        return k, v

    def mix(
        self, x: Float[Tensor, "T D"], targets: Tokens, memory: Float[Tensor, "S D"], sources: Tokens
    ) -> Float[Tensor, "T D"]:
        """Content vectors: the weighted values of all heads side by side, before the output product."""
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attend(self.queries(x), *self.keys_values(memory), targets, sources, dropout=dropout, salt=self.salt)
        return mixed.reshape(len(x), -1)

    def attended(
        self, x: Float[Tensor, "T D"], mixed: Float[Tensor, "T D"], noise: Int[Tensor, " T"] | None
    ) -> Float[Tensor, "T D"]:
        """Content vectors through the output product, added to `x` and normalised."""
        return self.norm(x + self.dropout(self.output(mixed), noise))


class Decoder(nn.Module):
    """Target token ids and the source's vectors in, a vector a target token out, each having read only backwards.

    Embeddings and layers are an encoder's, of its own (`body`) or those of `shared`, which then are trained for
    both (BERT-share); cross-attention always is its own.

    Reference: Rothe et al., 2020, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", section 2.
    """

    def __init__(self, config: EncoderConfig, *, shared: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.body = Encoder(config, pooler=False) if shared is None else None
        self._shared = [shared]  # in a list, so that the weights are not counted as this decoder's too
        self.cross = nn.ModuleList(CrossAttention(config, number) for number in range(config.num_hidden_layers))
        initialise(self.cross, config.initializer_range)

    @property
    def embeddings(self) -> Embeddings:
        """Of target tokens."""
        return self._layers_of.embeddings

    @property
    def _layers_of(self) -> Encoder:
        encoder = self.body if self.body is not None else self._shared[0]
        assert encoder is not None
        return encoder

    def layers(self) -> Iterator[tuple[EncoderLayer, CrossAttention]]:
        """Each layer with its cross-attention."""
        for layer, cross in zip(self._layers_of.layers, self.cross, strict=True):
            assert isinstance(layer, EncoderLayer)
            assert isinstance(cross, CrossAttention)
            yield layer, cross

    def forward(self, targets: Tokens, memory: Float[Tensor, "S D"], sources: Tokens) -> Float[Tensor, "T D"]:
        """Vectors of all target tokens; `memory` has those of the source tokens, `sources` their bounds."""
        x = self.embeddings(targets)
        for layer, cross in self.layers():
            x = layer.attended(x, layer.attention.mix(x, targets, causal=True), targets.noise)
            x = cross.attended(x, cross.mix(x, targets, memory, sources), targets.noise)
            x = layer.fed(x, targets.noise)
        return x

    def alignments(
        self, targets: Tokens, memory: Float[Tensor, "S D"], sources: Tokens
    ) -> tuple[list[list[Tensor]], list[Float[Tensor, "T D"]]]:
        """α of each layer and sequence, (H, target, source), rows summing to one; and C of each layer."""
        x = self.embeddings(targets)
        weights, contents = [], []
        for layer, cross in self.layers():
            x = layer.attended(x, layer.attention.mix(x, targets, causal=True), targets.noise)
            keys, _ = cross.keys_values(memory)
            weights.append(attention_weights(cross.queries(x), keys, targets, sources))
            contents.append(cross.mix(x, targets, memory, sources))
            x = layer.fed(cross.attended(x, contents[-1], targets.noise), targets.noise)
        return weights, contents

    def set_attention_dropout(self, p: float) -> None:
        """As `Encoder.set_attention_dropout`, for the decoder's own layers and the cross-attention."""
        if self.body is not None:
            self.body.set_attention_dropout(p)
        for _, cross in self.layers():
            cross.attention_dropout = p

    # ------------------------------------------------------------------------------------- one token at a time

    def begin(self, memory: Float[Tensor, "S D"], sources: Tokens, *, beams: int, most: int) -> Cache:
        """The cache to write targets from: each source's keys and values, laid out once for all of its steps."""
        cache = Cache(sources, beams=beams, most=most, device=memory.device)
        for _, cross in self.layers():
            cache.add_layer(*cross.keys_values(memory))
        return cache

    def step(self, ids: Int[Tensor, " R"], cache: Cache) -> Float[Tensor, "R D"]:
        """Vectors of each row's next token; `ids` are the last tokens of the cache's sources × beams, in order."""
        embeddings = self.embeddings
        x = embeddings.norm(
            embeddings.word(ids) + (embeddings.position.weight[cache.length] + embeddings.segment.weight[0])
        )
        shape = (cache.sources, cache.beams)
        cache.open_step()
        for number, (layer, cross) in enumerate(self.layers()):
            qkv = layer.attention.qkv(x).view(*shape, 3, layer.attention.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = attend_held(q, *cache.append(number, k, v), cache.bias)
            x = layer.attended(x, mixed.transpose(1, 2).reshape(x.shape), None)
            q = cross.query(x).view(*shape, cross.heads, -1).transpose(1, 2)
            mixed = attend_held(q, *cache.memory[number], cache.memory_bias)
            x = cross.attended(x, mixed.transpose(1, 2).reshape(x.shape), None)
            x = layer.fed(x, None)
        return x
