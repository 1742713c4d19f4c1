"""Tests of the paired bootstrap and of summaries over seeds."""

import numpy as np
import pytest

from bothways.errors import ConfigError, DataError
from bothways.metrics.bootstrap import moments, paired_bootstrap, summary
from bothways.metrics.similarity import pearson


def test_the_interval_of_means_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 400), rng.normal(0, 1, 400)
    result = paired_bootstrap(a, b, samples=4000, seed=1)
    error = np.std(a - b) / np.sqrt(400)
    assert result.difference == pytest.approx(np.mean(a - b))
    assert (result.low, result.high) == pytest.approx(
        (result.difference - 1.96 * error, result.difference + 1.96 * error), abs=0.15 * error
    )


def test_p_is_small_for_a_real_difference_and_large_without_one():
    right, wrong = np.ones(200), np.zeros(200)
    assert paired_bootstrap(right, wrong, samples=999, seed=0).p == 2 / 1000
    assert paired_bootstrap(right, wrong, samples=999, seed=0).verdict == "better"
    assert paired_bootstrap(wrong, right, samples=999, seed=0).verdict == "worse"
    same = paired_bootstrap(right, right, samples=999, seed=0)
    assert same == (0, 0, 0, 1, 1, 1)
    assert same.verdict == "no significant difference"
    alternating = np.arange(200) % 2
    assert paired_bootstrap(alternating, 1 - alternating, samples=999, seed=0).p > 0.5


def test_swapping_systems_mirrors_the_result():
    rng = np.random.default_rng(2)
    a, b = rng.random(50), rng.random(50)
    forth, back = paired_bootstrap(a, b, samples=500, seed=3), paired_bootstrap(b, a, samples=500, seed=3)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert back.p == forth.p


def test_counts_compare_f1_over_all_records():
    a = [(2, 3, 2), (0, 0, 0), (1, 1, 2)]
    b = [(1, 2, 2), (0, 1, 0), (1, 1, 2)]
    result = paired_bootstrap(a, b, samples=200, seed=0)
    assert result.difference == pytest.approx(2 * 3 / 8 - 2 * 2 / 8)
    # One set may hold the empty record only: its F1 is 0, not an error.
    assert np.isfinite([result.low, result.high]).all()


def test_moments_compare_correlations():
    rng = np.random.default_rng(5)
    gold = rng.normal(size=300)
    near, far = 3 + gold + 0.3 * rng.normal(size=300), gold + 2 * rng.normal(size=300)
    result = paired_bootstrap(moments(gold, near), moments(gold, far), samples=500, seed=0)
    assert (result.first, result.second) == pytest.approx((pearson(gold, near), pearson(gold, far)))
    drawn = [rng.integers(300, size=300) for _ in range(500)]
    apart = [pearson(gold[rows], near[rows]) - pearson(gold[rows], far[rows]) for rows in drawn]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])), abs=0.02)
    constant = moments(gold, np.full(300, 2.0))
    assert paired_bootstrap(constant, constant, samples=10, seed=0).first == 0


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    a, b = np.arange(30) % 3, np.arange(30) % 5
    whole = paired_bootstrap(a, b, samples=100, seed=4)
    monkeypatch.setattr("bothways.metrics.bootstrap._CHUNK", 7)
    assert paired_bootstrap(a, b, samples=100, seed=4) == whole


def test_summary_divides_by_one_less():
    assert summary([0.8, 0.9]) == pytest.approx((0.85, 0.1 / 2**0.5))
    assert summary([0.8]) == (0.8, None)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: paired_bootstrap([1], [1, 2], seed=0), DataError, "2 predictions for 1 gold records"),
        (lambda: paired_bootstrap([[1, 2]], [[1, 2]], seed=0), ConfigError, r"shapes \(1, 2\) and \(1, 2\); both"),
        (lambda: paired_bootstrap([1], [1], samples=0, seed=0), ConfigError, "samples is 0; at least 1 is wanted"),
        (lambda: summary([]), DataError, "no records to score"),
    ],
)
def test_errors_say_what_is_wanted(call, error, text):
    with pytest.raises(error, match=text):
        call()
