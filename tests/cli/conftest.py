"""A small model made by the verbs themselves, from text to a classifier, for the tests of all verbs."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bothways.cli.main import main

SENTENCE = "the film was a long day in town and we saw it with some old friends of ours"
WORDS = SENTENCE.split()
GOOD, BAD = ["great", "lovely", "warm"], ["awful", "poor", "cold"]


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


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


def bothways(*words: object) -> Told:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Told(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Command:
    """`command("predict", folder, text)` runs a verb in this process."""
    return bothways


def records(count: int, seed: int) -> list[dict[str, str]]:
    """Texts in which one word tells the label."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        words = draw.choices(WORDS, k=draw.randint(2, 12))
        words.insert(draw.randrange(len(words)), draw.choice((GOOD, BAD)[number % 2]))
        made.append({"text": " ".join(words), "label": ("good", "bad")[number % 2]})
    return made


def jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    """One JSON line a record."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    documents = ["\n".join(record["text"] + "." for record in records(6, seed)) for seed in range(12)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    train, dev = jsonl(folder / "train.jsonl", records(16, 1)), jsonl(folder / "dev.jsonl", records(8, 2))
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
