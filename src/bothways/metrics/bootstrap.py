"""Whether one system is better than another on the same records, and what several seeds came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bothways.errors import ConfigError
from bothways.metrics.counts import check_pairs

LEVEL = 0.05  # a difference with a smaller p is told to be one
_CHUNK = 1 << 20  # drawn indices held at once: 8 MiB, and as much for their counts


class Comparison(NamedTuple):
    """How much better the first system scores.

    difference: first minus second, on the records as they are
    low, high:  its 95% interval
    p:          two-sided: how probable so large a difference would be if there were none
    first, second: the scores themselves
    """

    difference: float
    low: float
    high: float
    p: float
    first: float
    second: float

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p >= LEVEL:
            return "no significant difference"
        return "better" if self.difference > 0 else "worse"


def paired_bootstrap(
    a: Sequence[float] | Sequence[Sequence[int]] | np.ndarray,
    b: Sequence[float] | Sequence[Sequence[int]] | np.ndarray,
    *,
    samples: int = 10_000,
    seed: int,
) -> Comparison:
    """Compare two systems by drawing the records again, with replacement, the same ones for both.

    Args:
        a: the first system's score of each record, (records,), to compare means; or its counts of right,
            predicted and gold items in each record, (records, 3), to compare F1 over all records; or `moments`,
            (records, 5), to compare Pearson's correlations.
        b: the second system's, of the same records in the same order.
        samples: how many sets of records are drawn.
        seed: the same seed draws the same sets.

    Raises:
        DataError: no record, or numbers of records that differ.
        ConfigError: fewer than 1 sample, or arrays of another shape.

    Reference: Koehn, 2004. The p value is twice the smaller share of sets whose difference is on one side of 0 (ties
    count for both), each share with one set added (Davison and Hinkley, 1997, section 4.2).
    """
    check_pairs(a, b)
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or (x.ndim != 1 and (x.ndim != 2 or x.shape[1] not in (3, 5))):
        raise ConfigError(
            f"statistics of shapes {x.shape} and {y.shape}; both (records,) scores, both (records, 3) counts of "
            "right, predicted and gold items or both (records, 5) moments are wanted"
        )
    if samples < 1:
        raise ConfigError(f"samples is {samples}; at least 1 is wanted, 10000 for a steady interval")
    rng = np.random.default_rng(seed)
    records = len(x)
    differences = np.empty(samples)
    for start in range(0, samples, step := max(1, _CHUNK // records)):
        rows = min(step, samples - start)
        # How often each record was drawn: sums over a set are then one product, faster than gathering its rows.
        drawn = rng.integers(records, size=(rows, records)) + records * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * records).reshape(rows, records).astype(np.float64)
        differences[start : start + rows] = _score(times, x) - _score(times, y)
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    first, second = (float(_score(np.ones((1, records)), statistics)[0]) for statistics in (x, y))
    return Comparison(
        difference=first - second,
        low=float(low),
        high=float(high),
        p=float(min(1.0, 2 * (tail + 1) / (samples + 1))),
        first=first,
        second=second,
    )


def moments(gold: Sequence[float], predicted: Sequence[float]) -> np.ndarray:
    """(records, 5): what a correlation is made of: both values, their squares, their product."""
    check_pairs(gold, predicted)
    x, y = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    x = x - x.mean()  # which no correlation minds, and which keeps the digits of the squares' differences
    y = y - y.mean()
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def summary(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (divided by n - 1) of the scores of several seeds; None for one seed.

    Raises:
        DataError: no value.
    """
    check_pairs(values, values)
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _score(times: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """(sets,) mean scores, F1s or correlations, where set s holds record r `times[s, r]` times."""
    totals = times @ statistics
    if statistics.ndim == 1:
        return totals / len(statistics)
    if statistics.shape[1] == 5:
        x, y, xx, yy, xy = totals.T / len(statistics)
        spread = np.sqrt(np.maximum((xx - x * x) * (yy - y * y), 0.0))
        return np.divide(xy - x * y, spread, out=np.zeros_like(x), where=spread > 1e-12)
    right, predicted, gold = totals.T
    items = predicted + gold
    return np.divide(2 * right, items, out=np.zeros_like(items), where=items > 0)
