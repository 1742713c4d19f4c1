"""Planning sequences: every token once, whole sentences, B really next or not, and no way to tell by length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.sentence_pairs import plan_sequences
from bothways.data.tokenizing import DOCUMENT_END, SENTENCE_END, WORD_START


def flags_of(documents: list[list[int]], rng: np.random.Generator, word_rate: float = 0.7) -> np.ndarray:
    """Flags of documents that are given as the lengths of their sentences."""
    flags = (rng.random(sum(map(sum, documents))) < word_rate).astype(np.uint8) * np.uint8(WORD_START)
    at = 0
    for document in documents:
        for length in document:
            flags[at] |= WORD_START
            at += length
            flags[at - 1] |= SENTENCE_END
        flags[at - 1] |= DOCUMENT_END
    return flags


def corpus(rng: np.random.Generator, documents: int = 300) -> list[list[int]]:
    return [rng.integers(3, 45, size=rng.integers(1, 40)).tolist() for _ in range(documents)]


lengths = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=12)


@given(
    documents=lengths,
    second=st.sampled_from(["next", "order", None]),
    max_tokens=st.integers(2, 60),
    short_rate=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_every_token_stands_in_one_sequence(
    documents: list[list[int]], second, max_tokens: int, short_rate: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    flags = flags_of(documents, rng)
    plan = plan_sequences(flags, max_tokens=max_tokens, second=second, short_rate=short_rate, rng=rng)
    used = np.zeros(len(flags), dtype=int)
    document = np.repeat(np.arange(len(documents)), [sum(sentences) for sentences in documents])
    for (a, end_a, b, end_b), label in zip(plan.spans.tolist(), plan.labels.tolist(), strict=True):
        assert 0 < end_a - a + end_b - b <= max_tokens
        used[a:end_a] += 1
        used[b:end_b] += 1
        assert document[a] == document[end_a - 1]
        if second is None:
            assert b == end_b
        else:
            assert a < end_a
            assert b < end_b
            assert document[b] == document[end_b - 1]
        if second == "order":
            assert (end_b == a) if label else (end_a == b)
        elif second == "next":
            assert (end_a != b) if label else (end_a == b)
    assert used.max(initial=0) <= 1
    assert used.sum() == len(flags) - plan.unpaired_tokens - plan.truncated_tokens
    assert plan.cut_sentences == sum(length > max_tokens for sentences in documents for length in sentences)
    if second != "next":
        assert plan.truncated_tokens == 0
    if second is None:
        assert plan.unpaired_tokens == 0


def test_sequences_are_whole_sentences_and_as_many_as_fit() -> None:
    rng = np.random.default_rng(0)
    documents = corpus(rng)
    flags = flags_of(documents, rng)
    plan = plan_sequences(flags, max_tokens=125, second=None, short_rate=0.0, rng=rng)
    ends = np.flatnonzero(flags & SENTENCE_END) + 1
    assert np.isin(plan.spans[:, 1], ends).all()
    document_ends = np.flatnonzero(flags & DOCUMENT_END) + 1
    for begin, end in plan.spans[:, :2].tolist():
        if end not in document_ends:
            following = ends[np.searchsorted(ends, end, side="right")]
            assert following - begin > 125, "one more sentence would have fitted"


def test_short_rate() -> None:
    rng = np.random.default_rng(0)
    flags = flags_of([[5] * 4000], rng)
    plan = plan_sequences(flags, max_tokens=125, second=None, short_rate=0.1, rng=rng)
    sizes = plan.spans[:-1, 1] - plan.spans[:-1, 0]
    assert np.mean(sizes < 125) == pytest.approx(0.1, abs=0.05)


def test_a_long_sentence_is_cut_at_words() -> None:
    flags = flags_of([[100]], np.random.default_rng(0), word_rate=0.0)
    flags[::7] |= WORD_START
    plan = plan_sequences(flags, max_tokens=20, second=None, short_rate=0.0, rng=np.random.default_rng(0))
    assert plan.spans[:, 0].tolist() == [0, 14, 28, 42, 56, 70, 84]
    assert plan.cut_sentences == 1


def test_a_long_word_is_cut_anyway() -> None:
    flags = flags_of([[50]], np.random.default_rng(0), word_rate=0.0)
    plan = plan_sequences(flags, max_tokens=20, second=None, short_rate=0.0, rng=np.random.default_rng(0))
    assert plan.spans[:, 0].tolist() == [0, 20, 40]


def test_next_sentence_labels_are_even_and_not_told_by_lengths() -> None:
    rng = np.random.default_rng(0)
    documents = corpus(rng)
    flags = flags_of(documents, rng)
    plan = plan_sequences(flags, max_tokens=125, second="next", short_rate=0.1, rng=rng)
    random = plan.labels == 1
    assert random.mean() == pytest.approx(0.5, abs=0.05)
    for size in (plan.spans[:, 1] - plan.spans[:, 0], plan.spans[:, 3] - plan.spans[:, 2]):
        assert size[random].mean() == pytest.approx(size[~random].mean(), rel=0.08)
    used = 1 - (plan.unpaired_tokens + plan.truncated_tokens) / len(flags)
    assert used > 0.998


def test_a_stranger_is_from_another_document() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        documents = [rng.integers(3, 45, size=400).tolist() for _ in range(6)]
        flags = flags_of(documents, rng)
        plan = plan_sequences(flags, max_tokens=125, second="next", short_rate=0.1, rng=rng)
        document_ends = np.flatnonzero(flags & DOCUMENT_END) + 1
        of_a = np.searchsorted(document_ends, plan.spans[:, 0], side="right")
        of_b = np.searchsorted(document_ends, plan.spans[:, 2], side="right")
        assert (plan.labels == (of_a != of_b)).mean() > 0.98
        assert plan.labels.mean() == pytest.approx(0.5, abs=0.07)


def test_next_sentence_of_one_document_exchanges_within_it() -> None:
    rng = np.random.default_rng(0)
    plan = plan_sequences(flags_of([[10] * 900], rng), max_tokens=45, second="next", short_rate=0.1, rng=rng)
    assert plan.labels.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("second", ["next", "order", None])
def test_a_shard_without_documents(second) -> None:
    plan = plan_sequences(
        np.empty(0, np.uint8), max_tokens=125, second=second, short_rate=0.1, rng=np.random.default_rng(0)
    )
    assert plan.spans.shape == (0, 4)
    assert plan.labels.shape == (0,)


def test_order_labels_are_even() -> None:
    rng = np.random.default_rng(0)
    plan = plan_sequences(flags_of(corpus(rng), rng), max_tokens=125, second="order", short_rate=0.1, rng=rng)
    assert plan.labels.mean() == pytest.approx(0.5, abs=0.05)
