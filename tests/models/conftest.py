"""A small saved classifier, whole or to be damaged, and what a load that fails must say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bothways.errors import ModelError
from bothways.models.model import Model, fresh, load, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *"今天气很好"]
CONFIG = EncoderConfig(
    vocab_size=24,  # more than the tokenizer has, as in padded vocabularies
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
)
LABELS = ["bad", "good", "so so"]


@pytest.fixture
def classifier() -> Model:
    """Three labels, random weights."""
    return make()


def make() -> Model:
    torch.manual_seed(5)
    return fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), ClassifyTask(ClassifySettings(), "one", LABELS))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make(), tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A saved classifier to damage."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture
def refused() -> Callable[..., str]:
    """Load a folder that has a fault: the message, which is one line and holds all `parts`."""

    def message(folder: str | Path, *parts: str) -> str:
        with pytest.raises(ModelError) as caught:
            load(folder)
        told = str(caught.value)
        assert "\n" not in told
        assert len(told) < 500
        for part in parts:
            assert part in told
        return told

    return message
