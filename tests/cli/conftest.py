"""A small model made by the verbs themselves, from text to a classifier, for the tests of all verbs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.toys import Told, bothways, labelled, write_records

from bothways.models.model import fresh, save
from bothways.nn.decoding_settings import Decoding
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.text.tokenizer import Tokenizer

records = functools.partial(labelled, shortest=2, longest=12)


@dataclass(frozen=True)
class Made:
    """Data, and what the verbs made of them."""

    text: Path
    train: Path
    dev: Path
    vocab: Path
    pretrained: Path  # a run
    finetuned: Path  # a run
    told: dict[str, Told]  # by verb


Command = Callable[..., Told]


@pytest.fixture(scope="session")
def command() -> Command:
    """`command("predict", folder, text)` runs a verb in this process."""
    return bothways


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    documents = ["\n".join(record["text"] + "." for record in records(6, seed)) for seed in range(12)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    train = write_records(folder / "train.jsonl", records(16, 1))
    dev = write_records(folder / "dev.jsonl", records(8, 2))
    vocab, pretrained, finetuned = folder / "vocab", folder / "pretrained", folder / "finetuned"
    told = {"vocab": bothways("vocab", "--text", text, "--size", 300, "--out", vocab)}
    told["pretrain"] = bothways(
        *("pretrain", "--text", text, "--vocab", vocab, "--model", "tiny", "--steps", 4, "--step-tokens", 128),
        *("--corpus.max-length", 32, "--corpus.workers", 1, "--out", pretrained),
    )
    told["finetune"] = bothways(
        *("finetune", "classify", "--model", pretrained, "--train", train, "--dev", dev, "--epochs", 2, "--batch", 8),
        *("--batching.max-length", 32, "--out", finetuned),
    )
    return Made(text, train, dev, vocab, pretrained, finetuned, told)


@pytest.fixture(scope="session")
def writer(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that writes, with random weights."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_folder(made.vocab)
    config = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    task = GenerateTask(GenerateSettings(decoding=Decoding(max_length=6)))
    return save(fresh(config, tokenizer, task), tmp_path_factory.mktemp("writer") / "model")
