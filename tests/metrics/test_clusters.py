"""Tests of cluster scores: invariants, and a hand-counted case."""

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError
from bothways.metrics.clusters import clusters


def test_a_hand_counted_case():
    gold, predicted = ["a", "a", "b", "b"], [0, 0, 0, 1]
    scores = clusters(gold, predicted)
    # Mutual information over the mean of both entropies, in nats.
    mutual = 0.5 * log(4 / 3) + 0.25 * log(2 / 3) + 0.25 * log(2)
    assert scores["nmi"] == pytest.approx(mutual / ((log(2) + 0.75 * log(4 / 3) + 0.25 * log(4)) / 2))
    # One of 6 pairs is together in both, 2 in gold, 3 in clusters: (1 - 2·3/6) / (2.5 - 1).
    assert scores["ari"] == pytest.approx(0)
    assert scores["accuracy"] == 0.75


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=25), st.permutations(range(5)))
def test_the_numbering_of_clusters_does_not_matter(records, order):
    gold, predicted = map(list, zip(*records, strict=True))
    scores = clusters(gold, predicted)
    assert clusters(gold, [f"cluster {order[i]}" for i in predicted]) == pytest.approx(scores)
    assert scores["nmi"] == pytest.approx(scores["v_measure"])
    assert scores["accuracy"] >= max(map(gold.count, gold)) / len(gold) / 5
    assert clusters(gold, gold) == pytest.approx(dict.fromkeys(scores, 1.0))


def test_more_clusters_than_classes_leave_some_unmatched():
    assert clusters([0, 0, 0], [0, 1, 1])["accuracy"] == pytest.approx(2 / 3)


def test_unequal_numbers_are_an_error():
    with pytest.raises(DataError, match="1 predictions for 2 gold records"):
        clusters([0, 1], [0])
