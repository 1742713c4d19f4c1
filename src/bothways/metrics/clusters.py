"""Scores of clusters against gold classes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from bothways.metrics.counts import check_pairs


def clusters(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> dict[str, float]:
    """Scores of clusters; the numbering of clusters does not matter.

    A noise label (-1 of HDBSCAN) is a cluster like the others: noise that hides mixed classes costs score.

    Returns:
        `nmi` (normalised by the mean of both entropies), `ari` (0 by chance, below 0 when worse), `v_measure`,
        which equals `nmi` so normalised, and `accuracy`: the share of records in the right cluster under the best
        one-to-one matching of clusters to classes.

    Raises:
        DataError: no record, or numbers that differ.

    Reference: Rosenberg and Hirschberg, 2007, for V; Kuhn, 1955, for the matching; scikit-learn and scipy compute them.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, v_measure_score

    check_pairs(gold, predicted)
    # Labels become numbers first: numpy would turn a mix of 1 and "1" into one label.
    classes, groups = _numbered(gold), _numbered(predicted)
    together = np.zeros((classes.max() + 1, groups.max() + 1), dtype=np.int64)
    np.add.at(together, (classes, groups), 1)
    matched = together[linear_sum_assignment(together, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(classes, groups)),
        "ari": float(adjusted_rand_score(classes, groups)),
        "v_measure": float(v_measure_score(classes, groups)),
        "accuracy": float(matched / len(classes)),
    }


def _numbered(labels: Sequence[Hashable]) -> np.ndarray:
    """Labels as numbers from 0, in order of appearance."""
    place: dict[Hashable, int] = {}
    return np.array([place.setdefault(label, len(place)) for label in labels])
