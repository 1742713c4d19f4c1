"""What the scorers share: precision, recall and F1 from counts, and the check that gold and predicted pair up."""

from __future__ import annotations

from collections.abc import Sized
from typing import NamedTuple

from bothways.errors import DataError


class PRF(NamedTuple):
    """Precision, recall and F1, each between 0 and 1."""

    precision: float
    recall: float
    f1: float


def precision_recall_f1(correct: int, predicted: int, gold: int) -> PRF:
    """Precision, recall and F1 of `correct` items among `predicted` and `gold` ones.

    A ratio with nothing under it is 0, as in conlleval, srl-eval.pl and seqeval.
    """
    return PRF(
        precision=correct / predicted if predicted else 0.0,
        recall=correct / gold if gold else 0.0,
        f1=2 * correct / (predicted + gold) if predicted + gold else 0.0,
    )


def check_pairs(gold: Sized, predicted: Sized) -> None:
    """Check that there is something to score and one prediction for each gold record.

    Raises:
        DataError: no record, or numbers that differ.
    """
    if len(gold) != len(predicted):
        raise DataError(
            f"{len(predicted)} predictions for {len(gold)} gold records; one for each, in the same order, is wanted: "
            "predict the same file that is scored"
        )
    if len(gold) == 0:
        raise DataError("no records to score; at least one is wanted: check that the data file is not empty")
