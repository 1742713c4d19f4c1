"""The original BERT encoder over the packed row: embeddings, post-norm layers, pooler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Tokens
from bothways.errors import ConfigError
from bothways.nn.attention import SelfAttention, attention_weights
from bothways.nn.dropout import Dropout
from bothways.nn.layers import Layers

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
MAX_SIZE = 1 << 24  # larger than any BERT in any direction, small enough that sizes multiply without overflow


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder, with the names and defaults of a released `config.json`."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.type == "int"):
            if not isinstance(value := getattr(self, name), int) or not 1 <= value <= MAX_SIZE:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1 to {MAX_SIZE}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= (value := getattr(self, name)) < 1.0:
                raise ConfigError(f"{name} is {value}; a probability to drop lies in [0, 1)")
        for name in ("layer_norm_eps", "initializer_range"):
            if not 0.0 < (value := getattr(self, name)) < 1.0:
                raise ConfigError(f"{name} is {value}; it must lie between 0 and 1")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} does not split into {self.num_attention_heads} attention heads; "
                f"num_attention_heads must divide it"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act is {self.hidden_act!r}; known are {', '.join(ACTIVATIONS)}")


class Embeddings(nn.Module):
    """Word + position + segment, normalised.

    Reference: Devlin et al., 2018, figure 2.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = _table(config.vocab_size, config.hidden_size)
        self.position = _table(config.max_position_embeddings, config.hidden_size)
        self.segment = _table(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, config.hidden_size, salt=1)

    def forward(self, tokens: Tokens) -> Float[Tensor, "T D"]:
        """Vectors of tokens that have not yet seen each other."""
        summed = self.word(tokens.input_ids) + self.position(tokens.position_ids) + self.segment(tokens.segment_ids)
        return self.dropout(self.norm(summed), tokens.noise)


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose weights are not drawn yet: PyTorch's own draw would load its compiler on the meta device."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class FeedForward(nn.Module):
    """Two products with an activation between: each token by itself."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size)
        self.down = nn.Linear(intermediate_size, hidden_size)
        self.activation = activation

    def forward(self, x: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """down(activation(up(x)))."""
        return self.down(self.activation(self.up(x)))


class EncoderLayer(nn.Module):
    """Attention, then a feed-forward network; each is added to its input and normalised.

    The norm comes after the sum ("post-LN"), as in the released BERT checkpoints.
    Reference: Vaswani et al., 2017, figure 1 (left).
    """

    def __init__(self, config: EncoderConfig, number: int) -> None:
        super().__init__()
        self.attention = SelfAttention(
            config.hidden_size,
            config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            salt=4 * number + 4,
        )
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size, ACTIVATIONS[config.hidden_act])
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention_dropout = Dropout(config.hidden_dropout_prob, config.hidden_size, salt=4 * number + 2)
        self.mlp_dropout = Dropout(config.hidden_dropout_prob, config.hidden_size, salt=4 * number + 3)

    def forward(
        self, x: Float[Tensor, "T D"], tokens: Tokens, rows: Int[Tensor, " M"] | None = None
    ) -> Float[Tensor, "M D"]:
        """The layer's output, of all tokens or of `rows` only: past attention, rows don't need each other."""
        mixed, noise = self.attention.mix(x, tokens), tokens.noise
        if rows is not None:
            mixed, x = mixed.index_select(0, rows), x.index_select(0, rows)
            noise = None if noise is None else noise.index_select(0, rows)
        return self.fed(self.attended(x, mixed, noise), noise)

    def attended(
        self, x: Float[Tensor, "M D"], mixed: Float[Tensor, "M D"], noise: Int[Tensor, " M"] | None
    ) -> Float[Tensor, "M D"]:
        """The first half: what attention mixed, through its output product, added to `x` and normalised."""
        return self.attention_norm(x + self.attention_dropout(self.attention.output(mixed), noise))

    def fed(self, x: Float[Tensor, "M D"], noise: Int[Tensor, " M"] | None) -> Float[Tensor, "M D"]:
        """The second half: the feed-forward network, added to `x` and normalised."""
        return self.mlp_norm(x + self.mlp_dropout(self.mlp(x), noise))


class Pooler(nn.Module):
    """tanh(linear([CLS])): the vector that next-sentence prediction trained, which classifiers read."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, rows: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Pooled [CLS] rows."""
        return torch.tanh(self.dense(rows))


class Encoder(nn.Module):
    """BERT: token ids in, a vector a token out, each having read both sides.

    Reference: Devlin et al., 2018; google-research/bert modeling.py.
    """

    def __init__(self, config: EncoderConfig, *, pooler: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.pooler = Pooler(config.hidden_size) if pooler else None
        initialise(self, config.initializer_range)

    def forward(self, tokens: Tokens, rows: Int[Tensor, " M"] | None = None) -> Float[Tensor, "M D"]:
        """Vectors of the last layer: of every token, or of `rows` only, which spares the rest of that layer."""
        x = self.embeddings(tokens)
        for layer in self.layers[:-1]:
            x = layer(x, tokens)
        return self.layers[-1](x, tokens, rows)

    def mixed(self, tokens: Tokens, rows: Int[Tensor, " M"], layers: Layers) -> Float[Tensor, "M W"]:
        """Vectors of `rows` from several layers, summed, averaged or side by side (then W is a multiple of D)."""
        deepest = max(layers.numbers)
        x = self.embeddings(tokens)
        found = {0: x.index_select(0, rows)} if 0 in layers.numbers else {}
        for number, layer in enumerate(self.layers[:deepest], 1):
            if number == deepest:
                found[number] = layer(x, tokens, rows)
                break
            x = layer(x, tokens)
            if number in layers.numbers:
                found[number] = x.index_select(0, rows)
        states = [found[number].float() for number in layers.numbers]  # prepared layers pass on bfloat16
        if layers.how == "concat":
            return torch.cat(states, dim=1)
        summed = torch.stack(states).sum(0)
        return summed / len(states) if layers.how == "mean" else summed

    def set_attention_dropout(self, p: float) -> None:
        """Drop attention weights with probability `p` in training; at 0 the fused kernels can be used."""
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            layer.attention.dropout = p

    def hidden_states(self, tokens: Tokens) -> list[Float[Tensor, "T D"]]:
        """The embeddings' output and every layer's: num_hidden_layers + 1 of them."""
        states = [self.embeddings(tokens)]
        for layer in self.layers:
            states.append(layer(states[-1], tokens))
        return states

    def attention(self, tokens: Tokens) -> list[list[Float[Tensor, "H t t"]]]:
        """Which token looks at which: by layer, by sequence, the weights of its heads."""
        weights, x = [], self.embeddings(tokens)
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            q, k, _ = layer.attention.project(x)
            weights.append(attention_weights(q, k, tokens, tokens))
            x = layer(x, tokens)
        return weights


def initialise(module: nn.Module, deviation: float) -> None:
    """Weights from a normal distribution cut at two deviations, biases 0, norms 1, as google-research/bert does."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
