"""Pooling by group against a loop, and layers mixed against the list of hidden states."""

from __future__ import annotations

import pytest
import torch

from bothways.batch import Example, Piece, pack
from bothways.errors import ConfigError
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.layers import Layers, parse_layers
from bothways.nn.pooling import VectorHead

CONFIG = EncoderConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    initializer_range=0.5,
)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_each_group_is_pooled_by_itself(pooling, normalize):
    rows, groups = torch.randn(7, 4), torch.tensor([0, 1, 4, 7])
    found = VectorHead(pooling, normalize=normalize)(rows, None, groups)
    for number, (start, end) in enumerate([(0, 1), (1, 4), (4, 7)]):
        own = rows[start:end].mean(0) if pooling == "mean" else rows[start:end].max(0).values
        torch.testing.assert_close(found[number], own / own.norm() if normalize else own)


def test_a_vector_is_computed_in_float32():
    rows = torch.randn(200, 4, dtype=torch.bfloat16)
    found = VectorHead("mean", normalize=False)(rows, None, torch.tensor([0, 200]))
    torch.testing.assert_close(found[0], rows.float().mean(0))


def test_layers_are_counted_and_sliced_as_python_does():
    assert parse_layers(None, 12) is None
    assert parse_layers("-1", 12) is None, "the last layer needs no mixing"
    assert parse_layers(12, 12) is None
    assert parse_layers("0", 12) == Layers("sum", (0,))
    assert parse_layers(-2, 12) == Layers("sum", (11,))
    assert parse_layers("sum:-4:", 12) == Layers("sum", (9, 10, 11, 12))
    assert parse_layers("mean:0,6,-1", 12) == Layers("mean", (0, 6, 12))
    assert parse_layers("concat:1:3", 12) == Layers("concat", (1, 2))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("last", "layers is 'last'; wanted one (-1 is the last), sum:-4:, mean:1,6 or concat:-4:"),
        ("13", "layers names 13, but the model has 12 layers (0 is the embeddings' output)"),
        ("-4:", "layers is '-4:', which are 4 layers; wanted sum:, mean: or concat: before"),
        ("sum:5:5", "layers is '5:5', which names no layer; the model has 12 (0 is the embeddings' output)"),
        ("sum:12,-1", "layers is '12,-1', which names a layer twice; the model has 12 (0 is the embeddings' output)"),
    ],
)
def test_what_is_no_layer(wanted, message):
    with pytest.raises(ConfigError) as caught:
        parse_layers(wanted, 12)
    assert str(caught.value) == message


@pytest.mark.parametrize("wanted", ["0", "1", "2", "sum:-2:", "mean:0,2", "concat:1:3", "concat:3,0"])
def test_mixed_layers_are_those_hidden_states(wanted):
    encoder = Encoder(CONFIG).eval()
    batch = pack([Example((Piece(torch.arange(1, length).numpy()),), {}) for length in (4, 9, 6)])
    rows, layers = torch.tensor([3, 0, 11, 3]), parse_layers(wanted, 3)
    assert layers is not None
    states = [state[rows] for state in encoder.hidden_states(batch.tokens)]
    chosen = torch.stack([states[number] for number in layers.numbers])
    wanted_states = {"sum": chosen.sum(0), "mean": chosen.mean(0), "concat": torch.cat(list(chosen), 1)}[layers.how]
    torch.testing.assert_close(encoder.mixed(batch.tokens, rows, layers), wanted_states)
