"""Which stretches of a shard make up each pre-training sequence, planned from the flags alone."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal, NamedTuple

import numpy as np

from bothways.data.tokenizing import DOCUMENT_END, SENTENCE_END, WORD_START

Second = Literal["next", "order"] | None
"""What the second sentence of a pair teaches: next sentence (BERT), sentence order (ALBERT), or there is none."""


class Plan(NamedTuple):
    """The n sequences of one shard: where their tokens lie in it, and what was left out."""

    spans: np.ndarray  # (n, 4) int64: begin and end of A, begin and end of B; without a second sentence B is empty
    labels: np.ndarray  # (n,) int64: 0 where B follows A, 1 where it does not
    cut_sentences: int  # longer than a sequence, so cut into pieces
    unpaired_tokens: int  # of stretches of a single word, which cannot make a pair
    truncated_tokens: int  # cut off where an exchanged B was too long for its A


def plan_sequences(
    flags: np.ndarray, *, max_tokens: int, second: Second, short_rate: float, rng: np.random.Generator
) -> Plan:
    """Gather whole sentences of one document up to `max_tokens`, and part them into A and B at a random sentence.

    A share `short_rate` is gathered up to a random smaller length. A sentence longer than `max_tokens` is cut at
    words. A stretch of one sentence only is parted at a random word.

    For "next", half of the pairs exchange their B with that of another document (of the same one where
    too few others are left), between pairs whose B is of nearly the same length. This stands for the reference's
    drawing of a random B and putting the unused sentences back: every token is used once, none twice, and the
    length of B tells nothing about the label. For "order", half of the pairs change places (ALBERT).

    Reference: create_instances_from_document in google-research/bert's create_pretraining_data.py; Lan et al.,
    2019, section 3.1.
    """
    starts = np.flatnonzero(flags & WORD_START)
    document_ends = np.flatnonzero(flags & DOCUMENT_END) + 1
    ends, cut = _cut_sentences(np.flatnonzero(flags & SENTENCE_END) + 1, starts, max_tokens)
    bounds = _gather(ends, document_ends, max_tokens, short_rate, rng)
    at = np.concatenate([[0], ends])[bounds]
    begin, end = at[:-1], at[1:]
    if second is None:
        return Plan(np.stack([begin, end, end, end], axis=1), np.zeros(len(begin), np.int64), cut, 0, 0)

    middle = _part(bounds, ends, starts, rng)
    spans = np.stack([begin, middle, middle, end], axis=1)
    pair = middle < end
    unpaired = int((end - begin)[~pair].sum())
    of_one = (np.diff(bounds) == 1)[pair]
    spans = spans[pair]
    if second == "order":
        labels = (rng.random(len(spans)) < 0.5).astype(np.int64)
        spans[labels == 1] = spans[labels == 1][:, [2, 3, 0, 1]]
        return Plan(spans, labels, cut, unpaired, 0)
    documents = np.searchsorted(document_ends, spans[:, 0], side="right")
    labels = _exchange(spans, documents, of_one, rng)
    return Plan(spans, labels, cut, unpaired, _truncate(spans, max_tokens, rng))


def _cut_sentences(ends: np.ndarray, starts: np.ndarray, max_tokens: int) -> tuple[np.ndarray, int]:
    """The ends of all sentences and of the pieces of long ones, and how many were long."""
    begins = np.concatenate([[0], ends[:-1]])
    long = np.flatnonzero(ends - begins > max_tokens)
    cuts: list[int] = []
    for at, end in zip(begins[long].tolist(), ends[long].tolist(), strict=True):
        while end - at > max_tokens:
            word = int(starts[max(0, int(np.searchsorted(starts, at + max_tokens, side="right")) - 1)])
            at = word if word > at else at + max_tokens
            cuts.append(at)
    return np.sort(np.concatenate([ends, np.array(cuts, dtype=np.int64)])), len(long)


def _gather(
    ends: np.ndarray, document_ends: np.ndarray, max_tokens: int, short_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Bounds, counted in sentences, of runs that stay in a document and hold as many as fit, but at least one."""
    short = rng.random(len(ends)) < short_rate
    wanted = np.where(short, rng.integers(min(2, max_tokens), max_tokens + 1, size=len(ends)), max_tokens).tolist()
    sentence_ends = ends.tolist()
    bounds = [0]
    sentence = begin = 0
    for stop in (np.searchsorted(ends, document_ends) + 1).tolist():
        while sentence < stop:
            sentence = max(sentence + 1, bisect_right(sentence_ends, begin + wanted[sentence], sentence, stop))
            begin = sentence_ends[sentence - 1]
            bounds.append(sentence)
    return np.array(bounds, dtype=np.int64)


def _part(bounds: np.ndarray, ends: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where each run is parted: after a random sentence, or, in a run of one, at a random word.

    The end of the run where neither is possible.
    """
    first, sentences = bounds[:-1], np.diff(bounds)
    chance = rng.random(len(first))
    middle = ends[first + (chance * np.maximum(sentences - 1, 1)).astype(np.int64)]
    one = np.flatnonzero(sentences == 1)
    end = ends[first[one]]
    begin = np.where(first[one] > 0, ends[first[one] - 1], 0)
    low, high = np.searchsorted(starts, begin, side="right"), np.searchsorted(starts, end, side="left")
    words = high - low
    parted = words > 0
    middle[one] = end
    middle[one[parted]] = starts[(low + (chance[one] * words).astype(np.int64))[parted]]
    return middle


def _exchange(spans: np.ndarray, documents: np.ndarray, of_one: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange, in `spans`, the B of half of the pairs with another's; the labels that result.

    Pairs that were parted inside a sentence exchange among themselves, or a B that begins with a sentence after
    an A that ends within one would give the label away.
    """
    labels = np.zeros(len(spans), np.int64)
    left = np.flatnonzero(rng.random(len(spans)) < 0.5)
    # Neighbours by length of B; those from one document look further afield, then take each other's.
    for jitter, last_round in ((1, False), (8, False), (32, False), (32, False), (32, True)):
        length = spans[left, 3] - spans[left, 2] + jitter * rng.random(len(left))
        order = left[np.lexsort((length, of_one[left]))]
        one, other, odd = order[: len(order) // 2 * 2 : 2], order[1::2], order[len(order) // 2 * 2 :]
        apart = (documents[one] != documents[other]) | last_round
        x, y = one[apart], other[apart]
        spans[x, 2:], spans[y, 2:] = spans[y, 2:], spans[x, 2:]
        labels[x] = labels[y] = 1
        left = np.concatenate([one[~apart], other[~apart], odd])
    return labels


def _truncate(spans: np.ndarray, max_tokens: int, rng: np.random.Generator) -> int:
    """Shorten, in `spans`, pairs over `max_tokens` as truncate_seq_pair does: the longer of the two, at either end."""
    lengths = spans[:, 1] - spans[:, 0] + spans[:, 3] - spans[:, 2]
    over = np.flatnonzero(lengths > max_tokens)
    for number in over.tolist():
        begin_a, end_a, begin_b, end_b = spans[number].tolist()
        for from_front in (rng.random(int(lengths[number]) - max_tokens) < 0.5).tolist():
            if end_a - begin_a > end_b - begin_b:
                begin_a, end_a = begin_a + from_front, end_a - (not from_front)
            else:
                begin_b, end_b = begin_b + from_front, end_b - (not from_front)
        spans[number] = begin_a, end_a, begin_b, end_b
    return int((lengths[over] - max_tokens).sum())
