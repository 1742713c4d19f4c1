"""A tiny embedding model with random weights, in a folder, and texts for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests import toys

from bothways.infer.predictor import Predictor, load
from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.embed import EmbedSettings, EmbedTask
from bothways.text.tokenizer import Tokenizer

WORDS = [*toys.WORDS, "great", "warm", "cold"]
HAN = "今天气很好我们去北京看电影他喜欢吃水果"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *HAN, *"bcdefghij.,"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    model = fresh(config, Tokenizer.from_vocab(VOCABULARY), EmbedTask(EmbedSettings()))
    return save(model, tmp_path_factory.mktemp("vectors") / "model")


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Predictor:
    """The model."""
    return load(folder, device="cpu")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Fifty short texts."""
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(50)]


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Rows as a file."""

    def write(rows: list[dict], name: str = "data.jsonl") -> Path:
        return toys.write_records(tmp_path / name, rows)

    return write


@pytest.fixture(scope="session")
def command() -> Callable[..., toys.Told]:
    """`command("embed", …)` runs a verb in this process: exit code, stdout, stderr."""
    return toys.bothways
