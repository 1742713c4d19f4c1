"""Tests of correlations, against their formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from bothways.errors import DataError
from bothways.metrics.similarity import pearson, similarity, spearman


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), min_size=1, max_size=30))
def test_correlations_follow_their_formulas(records):
    gold, predicted = np.array(records, dtype=float).T
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        assert similarity(gold, predicted) == {"pearson": 0.0, "spearman": 0.0}
        return
    assert pearson(gold, predicted) == pytest.approx(np.corrcoef(gold, predicted)[0, 1])
    assert spearman(gold, predicted) == pytest.approx(np.corrcoef(rankdata(gold), rankdata(predicted))[0, 1])


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(DataError, match="record 2: the predicted score is nan; a finite number is wanted"):
        pearson([1, 2], [0.5, float("nan")])
