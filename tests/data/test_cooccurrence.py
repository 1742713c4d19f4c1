"""Vectors from counts: pieces that stand in like company have like vectors, whatever documents they are from."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.data.cooccurrence import cooccurrence_vectors
from bothways.data.shards import Shards, build_shards
from bothways.text.tokenizer import Tokenizer

ANIMALS, DISHES = ["cat", "dog", "cow"], ["soup", "rice", "cake"]
AROUND_ANIMALS, AROUND_DISHES = ["runs", "sleeps", "barks"], ["tastes", "cooks", "smells"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *ANIMALS, *DISHES, *AROUND_ANIMALS, *AROUND_DISHES, "."]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("counted")
    documents = []
    for number in range(200):
        names, doings = ((ANIMALS, AROUND_ANIMALS), (DISHES, AROUND_DISHES))[number % 2]
        documents.append(" ".join(str(rng.choice(names if place % 2 else doings)) for place in range(12)) + " .")
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return build_shards(folder / "text.txt", Tokenizer.from_vocab(VOCABULARY), folder / "shards")


def vectors_of(shards: Shards) -> tuple[dict[str, np.ndarray], np.ndarray]:
    vectors, seen = cooccurrence_vectors(shards, len(VOCABULARY), 8, seed=1)
    assert vectors.shape == (len(VOCABULARY), 8)
    return dict(zip(VOCABULARY, vectors, strict=True)), seen


def test_like_company_gives_like_vectors(shards: Shards):
    vectors, _ = vectors_of(shards)

    def likeness(one: str, other: str) -> float:
        a, b = vectors[one], vectors[other]
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    assert likeness("cat", "dog") > 0.8
    assert likeness("soup", "rice") > 0.8
    assert likeness("cat", "rice") < 0.5


def test_documents_are_kept_apart(shards: Shards):
    """Animals and dishes never share a document: next to each other in a shard is not near."""
    vectors, _ = vectors_of(shards)
    assert abs(float(vectors["runs"] @ vectors["soup"])) / 8 < 0.1


def test_counts_and_lengths(shards: Shards):
    vectors, seen = vectors_of(shards)
    assert seen.sum() == shards.counts.tokens
    assert seen[VOCABULARY.index(".")] == 200
    assert not vectors["[MASK]"].any()
    assert np.mean(vectors["cat"] ** 2) == pytest.approx(1.0, abs=1e-4)


def test_the_same_text_gives_the_same_vectors(shards: Shards):
    (one, _), (other, _) = vectors_of(shards), vectors_of(shards)
    assert all(np.array_equal(one[name], other[name]) for name in VOCABULARY)
