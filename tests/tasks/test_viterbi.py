"""Tests of decoding tag sequences: against all sequences tried out, and nothing that a scheme forbids."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.metrics.spans import spans
from bothways.tasks.tag_sets import tags_of
from bothways.tasks.viterbi import FORBIDDEN, allowed, marginals, viterbi

NAMES = {
    "BIO": ["B-X", "B-Y", "I-X", "I-Y", "O"],
    "BIOES": ["B-X", "E-X", "I-X", "O", "S-X", "S-Y", "B-Y", "E-Y"],
    "BMES": ["B", "M", "E", "S"],
}


def _all_sums(scores: np.ndarray, steps: tuple[np.ndarray, ...]) -> dict[tuple[int, ...], float]:
    """The sum of every sequence, one by one."""
    between, start, end = steps
    sums = {}
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        moved = sum(between[a, b] for a, b in pairwise(path))
        sums[path] = (
            start[path[0]] + sum(row[tag] for row, tag in zip(scores, path, strict=True)) + moved + end[path[-1]]
        )
    return sums


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scheme", NAMES)
@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_best_of_all_sequences_and_the_share_of_each_tag(scheme: str, length: int, weighted: bool) -> None:
    names = NAMES[scheme]
    random = np.random.default_rng(length)
    for _ in range(5):
        steps = allowed(names, scheme)
        if weighted:
            steps = tuple(part + random.normal(size=part.shape) for part in steps)
        scores = random.normal(size=(length, len(names)))
        sums = _all_sums(scores, steps)
        best = max(sums, key=sums.__getitem__)
        assert viterbi(scores, *steps).tolist() == list(best)
        total = np.logaddexp.reduce(list(sums.values()))
        shares = np.zeros(scores.shape)
        for path, value in sums.items():
            shares[np.arange(length), path] += np.exp(value - total)
        np.testing.assert_allclose(marginals(scores, *steps), shares, atol=1e-9)


@given(st.sampled_from(sorted(NAMES)), st.integers(1, 30), st.integers(0, 10**6))
def test_nothing_forbidden_is_ever_given(scheme: str, length: int, seed: int) -> None:
    names = NAMES[scheme]
    scores = np.random.default_rng(seed).normal(size=(length, len(names)), scale=5)
    tags = [names[number] for number in viterbi(scores, *allowed(names, scheme))]
    # A sequence that the scheme allows is the one that its own spans make.
    marked = [span._replace(label="" if span.label == "_" else f"-{span.label}") for span in spans(tags, scheme)]
    assert tags_of(marked, length, scheme) == tags


@pytest.mark.parametrize(
    ("scheme", "before", "after", "may"),
    [
        ("BIO", "B-X", "I-X", True),
        ("BIO", "B-X", "I-Y", False),
        ("BIO", "O", "I-X", False),
        ("BIO", "I-X", "B-X", True),
        ("BIOES", "B-X", "O", False),
        ("BIOES", "B-X", "E-X", True),
        ("BIOES", "I-X", "E-Y", False),
        ("BIOES", "E-X", "S-X", True),
        ("BMES", "S", "M", False),
        ("BMES", "M", "B", False),
    ],
)
def test_which_tag_may_follow_which(scheme: str, before: str, after: str, may: bool) -> None:
    names = NAMES[scheme]
    between, _, _ = allowed(names, scheme)
    assert (between[names.index(before), names.index(after)] == 0.0) == may


def test_where_nothing_is_allowed_the_least_bad_is_given() -> None:
    names = ["B-X", "E-X"]
    assert viterbi(np.array([[0.0, 1.0]]), *allowed(names, "BIOES")).tolist() in ([0], [1])
    assert FORBIDDEN < -1e6


def test_no_words_have_no_tags() -> None:
    steps = allowed(NAMES["BIO"], "BIO")
    assert viterbi(np.zeros((0, 5)), *steps).shape == (0,)
    assert marginals(np.zeros((0, 5)), *steps).shape == (0, 5)
