"""What the tests of tasks share: a tiny tokenizer and model, a quick training loop, padded batches, records."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.toys import take_steps

from bothways.batch import Example
from bothways.data.record import IN_MEMORY, Record
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, fresh
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.base import Task
from bothways.text.tokenizer import Tokenizer

_SIGNS = string.ascii_letters + string.digits + string.punctuation
_HAN = "我你他她它们是不在有这那人大天日月水火山上下中国北京东西南好坏吃喝看听说走来去今明年时分男女子学生电影票多少"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *_SIGNS,
    *("##" + sign for sign in string.ascii_letters + string.digits),
    *_HAN,
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Knows letters, digits, signs and some Han characters: every English word is spelt."""
    return Tokenizer.from_vocab(VOCABULARY, lowercase=False)


@pytest.fixture
def make_model(tokenizer: Tokenizer) -> Callable[..., Model]:
    """A tiny model with random weights for a task."""

    def make(task: Task, *, positions: int = 64, dropout: float = 0.0) -> Model:
        config = EncoderConfig(
            vocab_size=tokenizer.size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=positions,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=0.1,
        )
        return fresh(config, tokenizer, task)

    return make


@pytest.fixture(scope="session")
def as_records() -> Callable[[Sequence[Mapping[str, Any]]], list[Record]]:
    """Records as Python gives them."""
    return lambda given: [Record(dict(fields), IN_MEMORY, number) for number, fields in enumerate(given, 1)]


@pytest.fixture
def trained(as_records: Any) -> Callable[..., Predictor]:
    """A model that has taken some steps over all of a toy set at once."""

    def train(model: Model, given: Sequence[Mapping[str, Any]], *, steps: int = 60, lr: float = 3e-3) -> Predictor:
        task = model.task
        assert task is not None
        length = model.config.max_position_embeddings
        encoded = task.encode(as_records(given), model.tokenizer, max_length=length, labelled=True)
        torch.set_num_threads(1)  # threads cost more than they give in so small a network
        take_steps(model, [example for one in encoded for example in one.examples], steps, lr=lr)
        return Predictor(model, device="cpu")

    return train


@pytest.fixture
def padded(tokenizer: Tokenizer) -> Callable[[Sequence[Example]], dict[str, torch.Tensor]]:
    """The sequences of examples as transformers takes them."""

    def pad(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        pieces = [piece for example in examples for piece in example.pieces]
        shape = len(pieces), max(len(piece.input_ids) for piece in pieces)
        ids, segments, mask = np.full(shape, tokenizer.pad_id), np.zeros(shape, int), np.zeros(shape, int)
        for row, piece in enumerate(pieces):
            length = len(piece.input_ids)
            ids[row, :length], mask[row, :length] = piece.input_ids, 1
            segments[row, :length] = 0 if piece.segment_ids is None else piece.segment_ids
        inputs = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}
        return {name: torch.from_numpy(array) for name, array in inputs.items()}

    return pad
