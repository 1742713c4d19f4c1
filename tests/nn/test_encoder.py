"""The encoder and its heads: packed equals alone, some rows equal all rows, and training is the same in any company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bothways.batch import Example, Piece, Read, Tokens, pack
from bothways.errors import ConfigError
from bothways.nn.attention import SelfAttention
from bothways.nn.dropout import Dropout
from bothways.nn.encoder import ACTIVATIONS, Encoder, EncoderConfig
from bothways.nn.heads import LabelHead, MaskedHead, PooledHead, TokenHead, mean_by_group
from bothways.nn.network import Network

CONFIG = EncoderConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    hidden_dropout_prob=0.2,
    attention_probs_dropout_prob=0.3,
)
LENGTHS = (3, 5, 9, 12, 13, 20, 28, 40)
HEADS = ("masked", "label", "tags", "choice")


def example(length: int) -> Example:
    """One sequence whose ids, segments and seed follow from its length; every head reads [CLS] and the last row."""
    rng = np.random.default_rng(length)
    piece = Piece(rng.integers(0, 50, length), np.sort(rng.integers(0, 2, length)))
    rows = np.array([0, length - 1])
    reads = {head: Read(rows, np.array([2]) if head == "label" else np.array([1, 1])) for head in HEADS}
    return Example((piece,), reads, seed=length)


def tokens_of(*lengths: int) -> Tokens:
    return pack([example(length) for length in lengths]).tokens


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """With biases and norms that are not at rest, so that leaving one out is seen."""
    torch.manual_seed(1)
    built = Encoder(replace(CONFIG, initializer_range=0.1))
    for parameter in built.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return built


def run(encoder: Encoder, lengths: tuple[int, ...], *, train: bool) -> dict[int, Tensor]:
    tokens = tokens_of(*lengths)
    with torch.no_grad():
        out = encoder.train(train)(tokens)
    return dict(zip(tokens.lengths, out.split(tokens.lengths), strict=True))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_packed_equals_alone(encoder: Encoder, train: bool) -> None:
    """In training with both kinds of dropout too."""
    packed = run(encoder, LENGTHS, train=train)
    for length in LENGTHS:
        (alone,) = run(encoder, (length,), train=train).values()
        torch.testing.assert_close(packed[length], alone, atol=2e-5, rtol=2e-5)
    if train:
        assert not torch.allclose(packed[40], run(encoder, (40,), train=False)[40], atol=0.1), "dropout does something"


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_rows_equal_those_of_the_whole_output(encoder: Encoder, train: bool) -> None:
    tokens = tokens_of(*LENGTHS)
    rows = torch.tensor([0, 3, 3, 100, len(tokens.input_ids) - 1, 8])
    encoder.train(train)
    torch.testing.assert_close(encoder(tokens, rows), encoder(tokens)[rows], atol=2e-5, rtol=2e-5)


def test_hidden_states_begin_with_embeddings_and_end_with_the_output(encoder: Encoder) -> None:
    tokens = tokens_of(5, 9)
    states = encoder.eval().hidden_states(tokens)
    assert len(states) == CONFIG.num_hidden_layers + 1
    torch.testing.assert_close(states[0], encoder.embeddings(tokens))
    torch.testing.assert_close(states[-1], encoder(tokens))


def test_a_token_changes_its_own_sequence_only(encoder: Encoder) -> None:
    tokens = tokens_of(3, 5, 9)
    changed = replace(tokens, input_ids=tokens.input_ids.clone(), plans={})
    changed.input_ids[4] = (changed.input_ids[4] + 1) % 50
    encoder.eval()
    moved = (encoder(tokens) - encoder(changed)).abs().amax(dim=1)
    assert moved[3:8].min() > 1e-4, "both sides see it"
    assert moved[:3].max() == 0.0
    assert moved[8:].max() < 1e-6


def test_every_source_of_noise_is_its_own() -> None:
    """Two modules that shared a salt would drop the same elements."""
    encoder = Encoder(replace(CONFIG, num_hidden_layers=12))
    heads = [
        LabelHead(encoder.pooler, 32, 2, dropout=0.1, initializer_range=0.02) if encoder.pooler else None,
        TokenHead(32, 2, dropout=0.1, initializer_range=0.02, salt=1),
    ]
    modules = [part for module in (encoder, *filter(None, heads)) for part in module.modules()]
    columns = [tuple(part.columns.tolist()) for part in modules if isinstance(part, Dropout)]
    salts = [part.salt for part in modules if isinstance(part, SelfAttention)]
    assert len(columns) == 1 + 2 * 12 + 2
    assert len(set(columns)) == len(columns)
    assert len(set(salts)) == 12


def test_attention_dropout_can_be_turned_off(encoder: Encoder) -> None:
    built = Encoder(CONFIG)
    built.set_attention_dropout(0.0)
    assert {part.dropout for part in built.modules() if isinstance(part, SelfAttention)} == {0.0}


def test_initialisation_is_googles() -> None:
    """Normal, cut at two deviations; biases 0, norms 1.

    Reference: google-research/bert modeling.py, create_initializer.
    """
    built = Encoder(replace(CONFIG, hidden_size=64, intermediate_size=256, vocab_size=500))
    for name, parameter in built.state_dict().items():
        if parameter.dim() == 2:
            assert parameter.abs().max() <= 0.04 + 1e-6, name
            if parameter.numel() > 4000:  # a normal cut at two deviations has 0.88 of the deviation
                assert abs(float(parameter.std()) - 0.88 * 0.02) < 0.001, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm.weight" in name))), name


def network() -> Network:
    torch.manual_seed(2)
    encoder = Encoder(replace(CONFIG, initializer_range=0.2))
    assert encoder.pooler is not None
    shared = {"dropout": 0.2, "initializer_range": 0.2}
    return Network(
        encoder,
        {
            "masked": MaskedHead(
                encoder.embeddings.word, activation=ACTIVATIONS["gelu"], layer_norm_eps=1e-12, initializer_range=0.2
            ),
            "label": LabelHead(encoder.pooler, 32, 3, **shared),
            "tags": TokenHead(32, 5, **shared, salt=1),
            "choice": PooledHead(encoder.pooler, 32, 1, **shared, salt=2),
        },
    )


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_heads_answer_in_the_order_of_examples_whatever_the_batch(train: bool) -> None:
    model = network().train(train)
    order = (20, 3, 40, 9, 12)
    with torch.no_grad():
        together = model(pack([example(length) for length in order]))
        assert {name: tuple(score.shape) for name, score in together.items()} == {
            "masked": (10, 50),
            "label": (5, 3),
            "tags": (10, 5),
            "choice": (10, 1),
        }
        for number, length in enumerate(order):
            for name, alone in model(pack([example(length)])).items():
                mine = together[name][number * len(alone) : (number + 1) * len(alone)]
                torch.testing.assert_close(mine, alone, atol=2e-5, rtol=2e-5)


def test_shared_parts_are_counted_and_trained_once() -> None:
    model = network()
    names = [name for name, _ in model.named_parameters()]
    assert sum("word" in name for name in names) == 1
    assert sum("pooler" in name for name in names) == 2
    scores = model(pack([example(5)]))
    scores["masked"].sum().backward()
    grad = model.encoder.embeddings.word.weight.grad
    assert grad is not None
    assert int((grad.abs().sum(dim=1) > 0).sum()) == 50, "the masked-LM head reaches every word's row"


def test_mean_by_group() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [10.0, 10.0]])
    wanted = torch.tensor([[2.0, 2.0], [10.0, 10.0]])
    assert torch.equal(mean_by_group(rows, torch.tensor([0, 2, 3])), wanted)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"hidden_size": 30},
            "hidden_size 30 does not split into 4 attention heads; num_attention_heads must divide it",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a whole number from 1"),
        ({"vocab_size": 1 << 40}, f"vocab_size is {1 << 40}; it must be a whole number from 1 to 16777216"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0; a probability to drop lies in [0, 1)"),
        ({"attention_probs_dropout_prob": float("nan")}, "attention_probs_dropout_prob is nan; a probability"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0; it must lie between 0 and 1"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; known are gelu, gelu_new, gelu_pytorch_tanh, relu"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(CONFIG, **settings)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
