"""A teacher asked for its vectors: of texts and of words, by itself and as a part of several tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.toys import labelled, write_records

from bothways import finetune, load
from bothways.errors import BothwaysError
from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.text.tokenizer import Tokenizer

QUICK = {"epochs": 12, "batch": 8, "optim": {"lr": 5e-3, "dropout": 0.0}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    """Another model with a vocabulary of its own, of letters: most words are several pieces to it."""
    torch.manual_seed(1)
    letters = [chr(one) for one in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *letters, *(f"##{one}" for one in letters)]
    config = EncoderConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    return save(fresh(config, Tokenizer.from_vocab(vocabulary), None), tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_records(tmp_path / "texts.jsonl", [{"text": row["text"]} for row in labelled(24, 3)])


def near(model: Path, teacher: Path, texts: list[str], level: str) -> float:
    """The mean cosine of the two models' vectors."""
    found = []
    for one in (model, teacher):
        vectors = load(one, device="cpu", precision="float32").embed(texts, level=level)
        rows = vectors if level == "sentence" else np.concatenate([parts.vectors for parts in vectors])
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return float((found[0] * found[1]).sum(1).mean())


@pytest.mark.parametrize("level", ["sentence", "word"])
def test_vectors_go_to_the_teachers(tiny, teacher: Path, texts: Path, tmp_path: Path, level: str):
    shown = [row["text"] for row in labelled(24, 3)]
    asked = {"teacher": str(teacher), "taught": level}
    settings = QUICK | {"model": str(tiny.model), "precision": "float32", "quiet": True}
    run = finetune("embed", train=texts, dev=texts, out=tmp_path / "run", embed=asked, **settings)
    before, after = (near(one, teacher, shown, level) for one in (tiny.model, run.folder / "model"))
    assert after > 0.6 > before
    assert run.scores["cosine"] == pytest.approx(after, abs=0.02)
    alone = load(run.folder, device="cpu").evaluate(texts)  # without its teacher they are plain texts
    assert "uniformity" in alone


def test_a_part_of_several_tasks_has_one_too(tiny, teacher: Path, texts: Path, tmp_path: Path):
    tasks = {
        "mood": {"task": "classify", "train": str(tiny.train), "dev": str(tiny.dev)},
        "words": {
            "task": "embed",
            "train": str(texts),
            "settings": {"teacher": str(teacher), "taught": "word"},
        },
    }
    settings = QUICK | {"model": str(tiny.model), "precision": "float32", "quiet": True}
    run = finetune("multi", out=tmp_path / "run", tasks=tasks, **settings)
    shown = [row["text"] for row in labelled(24, 3)]
    assert near(run.folder / "model", teacher, shown, "word") > near(tiny.model, teacher, shown, "word") + 0.3


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"taught": "word"}, [{"text": "a"}], "no teacher is named"),
        ({"teacher": "TEACHER"}, [{"text_a": "a", "text_b": "b"}], "rows.jsonl:1: embed.teacher gives vectors"),
        ({"teacher": "TEACHER"}, [{"text": "a", "vector": [1.0]}], "rows.jsonl:1: embed.teacher gives vectors"),
        ({"teacher": "nowhere/at/all"}, [{"text": "good"}], "nowhere/at/all"),
        ({"teacher": "TEACHER", "taught": "word"}, [{"text": " "}], "none of the 1 training records"),
    ],
)
def test_mistakes(tiny, teacher: Path, tmp_path: Path, settings, rows, message):
    train = write_records(tmp_path / "rows.jsonl", rows)
    asked = {name: str(teacher) if value == "TEACHER" else value for name, value in settings.items()}
    with pytest.raises(BothwaysError, match=message):
        finetune("embed", train=train, out=tmp_path / "run", model=str(tiny.model), embed=asked)
    assert not (tmp_path / "run").exists()
