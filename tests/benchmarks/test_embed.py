"""The benchmark of `bothways embed`, in small: it can see a kill, memory that grows, and outputs that differ."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from benchmarks import embed

from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.embed import EmbedSettings, EmbedTask
from bothways.text.tokenizer import Tokenizer
from bothways.vectors.embed import PART

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "##s", "b", "我", "看", "天"]
TOKENIZER = Tokenizer.from_vocab(VOCABULARY)


@pytest.fixture
def folder(tmp_path):
    """A model with random weights."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = EncoderConfig(vocab_size=len(VOCABULARY), max_position_embeddings=32, initializer_range=0.3, **shape)
    return save(fresh(config, TOKENIZER, EmbedTask(EmbedSettings())), tmp_path / "model")


def test_rows_are_the_same_for_the_same_seed_and_their_tokens_are_counted(tmp_path):
    tokens = embed.write_rows(tmp_path / "a.jsonl", TOKENIZER, 40, 3)
    assert embed.write_rows(tmp_path / "b.jsonl", TOKENIZER, 40, 3) == tokens
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == list(range(40))
    words = [row["text"].split() if row["text"].isascii() else list(row["text"]) for row in rows]
    assert {word for row in words for word in row} == {"the", "film", "was", "我", "看", "天"}
    assert all(3 <= len(row) <= (12 if row[0].isascii() else 24) for row in words)
    assert tokens == sum(map(len, words)) + 2 * 40  # [CLS] and [SEP]
    assert list(islice(embed.texts(TOKENIZER, 4), 40)) != [row["text"] for row in rows]


def test_growth_is_counted_from_the_first_tenth():
    looks = [(0, 0.1, 50.0), (9, 1.0, 90.0), (10, 2.0, 100.0), (60, 3.0, 130.0), (100, 4.0, 125.0)]
    alone = embed.Alone(100, looks)
    assert alone.growth == 25.0
    assert alone.tenths() == [looks[2], looks[3], looks[4]]
    assert embed.Alone(100, looks[:1]).growth == 0.0


def test_kills_come_at_moments_of_their_own():
    found = embed.moments(1_000_000, 10, 0)
    assert found == sorted(set(found))
    assert len(found) == 10
    assert found[0] < 300_000 < 700_000 < found[-1] < 1_000_000
    assert embed.moments(1_000_000, 10, 1) != found


def test_outputs_that_differ_are_told(tmp_path):
    vectors = np.zeros((5, 2), dtype=np.float32)
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", vectors)
    assert embed.difference(tmp_path / "a.npy", tmp_path / "b.npy") is None
    vectors[3, 1] = 0.5
    np.save(tmp_path / "b.npy", vectors)
    assert embed.difference(tmp_path / "a.npy", tmp_path / "b.npy") == "1 of 5 rows, by 0.5 at most"
    np.save(tmp_path / "b.npy", vectors[:4])
    assert embed.difference(tmp_path / "a.npy", tmp_path / "b.npy") == "shapes (5, 2) and (4, 2)"


@pytest.mark.slow  # four processes that import torch
def test_killed_and_resumed_in_small(folder, capsys):
    rows = 4 * PART  # both kills of this seed come in the first half, however slow the machine is
    code = embed.main(["--rows", str(rows), "--model", str(folder), "--kills", "2", "--seed", "18", "--threads", "1"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert told.endswith("\nHolds.\n")
    assert "| killed 2 of 2 times | |\n" in told
    assert "| output | equal, byte for byte |\n" in told


def test_a_command_that_fails_is_told(tmp_path):
    job = embed.Job(str(tmp_path / "none"), tmp_path / "rows.jsonl", tmp_path / "v.npy", 1)
    with pytest.raises(SystemExit, match=r"ended with 2: bothways: error: "):
        embed.undisturbed(job, 1)
