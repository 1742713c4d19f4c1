"""Scores of labels: one a record, several a record, pairs, and numbers; with the confusion matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np

from bothways.errors import ConfigError, DataError
from bothways.metrics.counts import check_pairs, precision_recall_f1
from bothways.metrics.similarity import similarity


def classification(
    gold: Sequence[Hashable],
    predicted: Sequence[Hashable],
    *,
    scores: Sequence[Any] | np.ndarray | None = None,
    labels: Sequence[Hashable] | None = None,
    positive: Hashable | None = None,
) -> dict[str, Any]:
    """Scores of one label a record.

    Args:
        gold: the right labels.
        predicted: the predicted ones.
        scores: (records, labels) in the order of `labels`: probabilities or logits, higher is likelier.
        labels: all that a model knows, in its order; by default those found, sorted.
        positive: of two labels, the one to be found; by default the one rarer in gold, the later in a tie.

    Returns:
        `accuracy`; `macro_f1`, over labels found in gold or predicted (as scikit-learn's default); `mcc` (Matthews'
        correlation, as CoLA is scored; between -1 and 1, 0 where undefined); `labels`, for each its `precision`,
        `recall`, `f1` and `support` (gold records). With two labels also `positive`, and with
        scores and both labels in gold `pr_auc` (average precision) and `recall_at_fpr_0.01` (the highest recall of
        the positive label with at most 1% of the others taken for it).

    Raises:
        DataError: no record, numbers that differ, labels 1 and "1" together, or a score that is not finite.
        ConfigError: `scores` do not have a column for each label, or `positive` is not a label.
    """
    known, counts = confusion(gold, predicted, labels=labels)
    table = _table([{label} for label in gold], [{label} for label in predicted], known)
    result: dict[str, Any] = {"accuracy": _accuracy(gold, predicted), "macro_f1": _macro(table)}
    result |= {"mcc": _matthews(counts), "labels": table}
    if len(known) != 2:
        return result
    if positive is None:
        support = Counter(gold)
        positive = known[0] if support[known[0]] < support[known[1]] else known[1]
    result["positive"] = _checked(positive, known)
    if scores is not None:
        matrix = _score_matrix(scores, len(gold), known)
        found = matrix[:, known.index(positive)] - matrix[:, 1 - known.index(positive)]
        result |= _ranking(np.array([label == positive for label in gold]), found)
    return result


def multi_label(
    gold: Sequence[Collection[Hashable]],
    predicted: Sequence[Collection[Hashable]],
    *,
    labels: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Scores of any number of labels a record.

    Returns:
        `micro_f1`, over all (record, label) pairs; `macro_f1`, over labels found in gold or predicted;
        `exact_match`, the share of records with all labels right; `labels`, as `classification` gives them.

    Raises:
        DataError: no record, or numbers that differ.
    """
    check_pairs(gold, predicted)
    right, found = [set(record) for record in gold], [set(record) for record in predicted]
    known = _label_set(set().union(*right), set().union(*found), labels)
    table = _table(right, found, known)
    correct = sum(len(a & b) for a, b in zip(right, found, strict=True))
    return {
        "micro_f1": precision_recall_f1(correct, sum(map(len, found)), sum(map(len, right))).f1,
        "macro_f1": _macro(table),
        "exact_match": _accuracy(right, found),
        "labels": table,
    }


def pair(
    gold: Sequence[Hashable],
    predicted: Sequence[Hashable],
    *,
    labels: Sequence[Hashable] | None = None,
    positive: Hashable | None = None,
) -> dict[str, Any]:
    """Scores of one label a pair of texts.

    Of two labels, `f1` is that of the positive one, as MRPC and QQP are scored: the one named by `positive`, else X
    where the other is called not_X, else the last of `labels` (by default those found, sorted: "1" of "0" and "1").
    With more labels, as in inference, `f1` is the mean over labels found in gold or predicted.

    Returns:
        `accuracy`, `f1`, `mcc` (Matthews' correlation, between -1 and 1; 0 where undefined), `labels` as
        `classification` gives them; with two labels also `positive`.

    Raises:
        DataError: no record, or numbers that differ.
        ConfigError: `positive` is not a label.
    """
    known, counts = confusion(gold, predicted, labels=labels)
    table = _table([{label} for label in gold], [{label} for label in predicted], known)
    result = {"accuracy": _accuracy(gold, predicted), "f1": _macro(table), "mcc": _matthews(counts), "labels": table}
    if len(known) == 2:
        if positive is None:
            positive = known[0] if str(known[1]) == f"not_{known[0]}" else known[1]
        result["positive"] = _checked(positive, known)
        result["f1"] = table[str(positive)]["f1"]
    return result


def regression(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Scores of one number a record: `pearson` and `spearman` (between -1 and 1), and `mse`, the mean squared error.

    Raises:
        DataError: no record, numbers that differ, or a value that is not finite.
    """
    result = similarity(gold, predicted)
    return {**result, "mse": float(np.mean(np.square(np.subtract(gold, predicted, dtype=np.float64))))}


def confusion(
    gold: Sequence[Hashable], predicted: Sequence[Hashable], *, labels: Sequence[Hashable] | None = None
) -> tuple[list[Hashable], np.ndarray]:
    """Labels, and the (labels, labels) numbers of records: a row for each gold label, a column for each predicted.

    Raises:
        DataError: no record, or numbers that differ.
    """
    check_pairs(gold, predicted)
    known = _label_set(gold, predicted, labels)
    place = {label: i for i, label in enumerate(known)}
    counts = np.zeros((len(known), len(known)), dtype=np.int64)
    np.add.at(counts, ([place[label] for label in gold], [place[label] for label in predicted]), 1)
    return known, counts


def _label_set(
    gold: Collection[Hashable], predicted: Collection[Hashable], labels: Sequence[Hashable] | None
) -> list[Hashable]:
    """`labels`, then those found that are not among them, sorted."""
    known = list(labels or ())
    found = {*gold, *predicted}.difference(known)
    known += sorted(found, key=lambda label: (str(type(label)), label))
    written = {}
    for label in known:
        if (other := written.setdefault(str(label), label)) != label:
            raise DataError(
                f"labels {other!r} and {label!r} are written alike; one type of label is wanted: "
                "check whether gold and predicted labels are numbers on one side and text on the other"
            )
    return known


def _table(
    gold: Sequence[set[Hashable]], predicted: Sequence[set[Hashable]], labels: Sequence[Hashable]
) -> dict[str, dict[str, float]]:
    correct, found, support = Counter(), Counter(), Counter()
    for right, guess in zip(gold, predicted, strict=True):
        correct.update(right & guess)
        found.update(guess)
        support.update(right)
    return {
        str(label): {
            **precision_recall_f1(correct[label], found[label], support[label])._asdict(),
            "support": support[label],
            "predicted": found[label],
        }
        for label in labels
    }


def _macro(table: dict[str, dict[str, float]]) -> float:
    """Mean F1 of the labels that gold or predictions have: one that a small test set lacks should not count as 0."""
    found = [row["f1"] for row in table.values() if row["support"] or row["predicted"]]
    return sum(found) / len(found) if found else 0.0


def _accuracy(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    return sum(right == guess for right, guess in zip(gold, predicted, strict=True)) / len(gold)


def _matthews(counts: np.ndarray) -> float:
    """Matthews' correlation for any number of labels, Gorodkin, 2004; 0 where all of a side has one label."""
    records, right, gold, predicted = counts.sum(), counts.trace(), counts.sum(axis=1), counts.sum(axis=0)
    spread = float(records**2 - predicted @ predicted) * float(records**2 - gold @ gold)
    return float(records * right - gold @ predicted) / spread**0.5 if spread else 0.0


def _checked(positive: Hashable, labels: list[Hashable]) -> Hashable:
    if positive not in labels:
        raise ConfigError(f"positive label {positive!r} is not one of {', '.join(map(repr, labels))}; name one of them")
    return positive


def _score_matrix(scores: Sequence[Any] | np.ndarray, records: int, labels: list[Hashable]) -> np.ndarray:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.shape != (records, len(labels)):
        raise ConfigError(
            f"scores of shape {matrix.shape}; ({records}, {len(labels)}) is wanted: a row for each record, a column "
            f"for each of {', '.join(map(repr, labels))}"
        )
    if (bad := np.flatnonzero(~np.isfinite(matrix).all(axis=1))).size:
        raise DataError(
            f"record {bad[0] + 1}: scores are {matrix[bad[0]].tolist()}; finite numbers are wanted: "
            "the model may have diverged, try a lower learning rate"
        )
    return matrix


def _ranking(is_positive: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Average precision, and recall at a false positive rate of at most 1%; nothing where gold has one label only."""
    from sklearn.metrics import average_precision_score, roc_curve

    if is_positive.all() or not is_positive.any():
        return {}
    fpr, tpr, _ = roc_curve(is_positive, score, drop_intermediate=False)
    return {
        "pr_auc": float(average_precision_score(is_positive, score)),
        "recall_at_fpr_0.01": float(tpr[fpr <= 0.01].max()),
    }
