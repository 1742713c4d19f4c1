"""benchmarks/pretrain.py: both sides take the same steps, on a model and a text of a few seconds."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from benchmarks import pretrain

from bothways.batch import Example, Piece, Read
from bothways.text.tokenizer import Tokenizer

WORDS = ["good", "bad", "film", "town", "day", "dog", "cat", "tree", "."]


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A small text and vocabulary, as flags."""
    draw = random.Random(0)
    documents = ["\n".join(" ".join([*draw.choices(WORDS[:-1], k=9), "."]) for _ in range(6)) for _ in range(60)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]).save(tmp_path / "vocab")
    return [
        "--text",
        str(tmp_path / "text.txt"),
        "--vocab",
        str(tmp_path / "vocab"),
        "--size",
        "1x64",
        "--threads",
        "1",
    ]


def test_both_sides_take_the_same_steps(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "DROPOUT", 0.0)  # the two draw other numbers
    monkeypatch.setattr(pretrain, "pick_precision", lambda wanted, device: "float32")
    assert pretrain.main([*given, "--examples", "8", "--steps", "2", "--rounds", "2", "--micro", "8"]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [["float32", "bothways"], ["float32", "transformers"]]
    losses = [[float(value) for value in row[4].split(" → ")] for row in rows]
    np.testing.assert_allclose(losses[0], losses[1], atol=0.002)
    assert losses[0][1] < losses[0][0] - 0.005
    assert "2 rounds of 2 steps of 8 examples" in out
    assert "micro-batch of the peer's fastest kind: 8 in float32" in out


def test_too_little_text_is_told(given: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"the text makes .* examples, 4096 are wanted; give more text"):
        pretrain.main([*given, "--examples", "64", "--steps", "64"])


def test_padded_examples_hold_what_the_packed_ones_do() -> None:
    piece = Piece(np.array([2, 7, 4, 3, 8, 3]), np.array([0, 0, 0, 0, 1, 1]))
    ones = np.ones(1, int)
    reads = {"masked": Read(np.array([2]), ones, np.array([9]), 1.0), "next": Read(np.zeros(1, int), ones, ones, 1.0)}
    batch = pretrain.padded([Example((piece,), reads)], pad=0)
    assert batch["input_ids"].shape == (1, pretrain.LENGTH)
    assert batch["input_ids"][0, :7].tolist() == [2, 7, 4, 3, 8, 3, 0]
    assert batch["attention_mask"].sum() == 6
    assert batch["token_type_ids"].sum() == 2
    assert batch["labels"][0, 2] == 9
    assert (batch["labels"] == pretrain.IGNORED).sum() == pretrain.LENGTH - 1
    assert batch["next_sentence_label"].tolist() == [1]
