"""Correlation of predicted with gold similarities: Pearson's and Spearman's, as STS-B is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bothways.errors import DataError
from bothways.metrics.counts import check_pairs


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation, between -1 and 1; 0 where it is undefined: one record, or all values alike on a side.

    Raises:
        DataError: no record, numbers that differ, or a value that is not finite.
    """
    from scipy.stats import pearsonr

    return _correlation(pearsonr, gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; 0 where it is undefined, as in `pearson`.

    Raises:
        DataError: no record, numbers that differ, or a value that is not finite.
    """
    from scipy.stats import spearmanr

    return _correlation(spearmanr, gold, predicted)


def similarity(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """`pearson` and `spearman` together.

    Raises:
        DataError: no record, numbers that differ, or a value that is not finite.
    """
    return {"pearson": pearson(gold, predicted), "spearman": spearman(gold, predicted)}


def _correlation(compute: Callable[..., Any], gold: Sequence[float], predicted: Sequence[float]) -> float:
    x, y = _arrays(gold, predicted)
    return float(compute(x, y)[0]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


def _arrays(gold: Sequence[float], predicted: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    check_pairs(gold, predicted)
    x, y = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    for side, values in (("gold", x), ("predicted", y)):
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise DataError(
                f"record {bad[0] + 1}: the {side} score is {values[bad[0]]}; a finite number is wanted: "
                f"{'mend the data' if side == 'gold' else 'the model may have diverged, try a lower learning rate'}"
            )
    return x, y
