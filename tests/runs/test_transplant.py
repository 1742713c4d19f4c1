"""A model of our own vocabulary that begins from another's layers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
from runs import transplant

from bothways.models.model import fresh, load, save
from bothways.nn.encoder import EncoderConfig
from bothways.text.files import SPECIALS
from bothways.text.tokenizer import Tokenizer

PAIRS = [("cat", "猫"), ("dog", "狗"), ("the cat runs", "猫跑"), ("the dog runs", "狗跑")] * 8


def tokenizers() -> tuple[Tokenizer, Tokenizer]:
    """Ours, of two languages, and theirs, of one."""
    ours = Tokenizer.from_vocab([*SPECIALS, "cat", "dogs", "runs", "猫", "狗", "跑", "犬"])
    return ours, Tokenizer.from_vocab([*SPECIALS, "the", "cat", "dog", "##s", "runs"])


def test_vectors_go_where_their_meaning_is():
    ours, theirs = tokenizers()
    known = np.random.default_rng(0).normal(size=(theirs.size, 16)).astype(np.float32)
    counts = np.zeros((ours.size, 16), dtype=np.float32)
    counts[[ours.id(piece) for piece in "猫狗跑犬"]] = np.eye(16)[[0, 1, 2, 1]]  # 犬 stands where 狗 does
    vectors, told = transplant.word_vectors(ours, theirs, known, counts, PAIRS)

    def nearest(piece: str) -> str:
        away = known - known.mean(axis=0)
        likeness = away @ (vectors[ours.id(piece)] - known.mean(axis=0)) / np.linalg.norm(away, axis=1)
        return theirs.token(int(likeness.argmax()))

    np.testing.assert_array_equal(vectors[ours.id("cat")], known[theirs.id("cat")])
    parts = known[theirs.id("dog")] + known[theirs.id("##s")] - 2 * known.mean(axis=0)
    own = vectors[ours.id("dogs")] - known.mean(axis=0)
    assert own @ parts / np.linalg.norm(own) / np.linalg.norm(parts) > 0.999
    assert {piece: nearest(piece) for piece in "猫狗跑犬"} == {"猫": "cat", "狗": "dog", "跑": "runs", "犬": "dog"}
    assert (told["of pieces"], told["translated"], told["mapped"], told["centre"]) == (1, 3, 1, 0)


def test_the_chosen_layers_are_theirs(tmp_path: Path, capsys):
    ours, theirs = tokenizers()
    shape = EncoderConfig(
        vocab_size=theirs.size, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    save(fresh(shape, theirs, None), tmp_path / "theirs")
    ours.save(tmp_path / "vocab")
    (tmp_path / "text.txt").write_text("cat runs 猫跑\n\ndogs 狗跑 犬\n" * 40, encoding="utf-8")
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"source": source, "target": target}) + "\n" for source, target in PAIRS)
    words = [tmp_path / "made", "--from", tmp_path / "theirs", "--vocab", tmp_path / "vocab", "--layers", 0, 2]
    words += ["--text", tmp_path / "text.txt", "--shards", tmp_path / "shards", "--pairs", tmp_path / "pairs.jsonl.gz"]
    assert transplant.main(list(map(str, words))) == 0
    made, source = load(tmp_path / "made").network.encoder, load(tmp_path / "theirs").network.encoder
    for layer, number in zip(made.layers, (0, 2), strict=True):
        theirs_of_it = source.layers[number].state_dict()
        assert all(weight.equal(theirs_of_it[name]) for name, weight in layer.state_dict().items())
    assert made.pooler is None
    assert json.loads(capsys.readouterr().out)["same"] == len(SPECIALS) + 2
