"""One label for a text, a pair or an utterance: head, loss and answer, shared by the tasks that give one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Piece, Read
from bothways.data.record import Record, require
from bothways.errors import ConfigError, DataError
from bothways.nn.encoder import Encoder
from bothways.nn.heads import LabelHead
from bothways.tasks.labels import as_label, balanced_weights, learn_labels


def check_smoothing(value: float) -> None:
    """Label smoothing is a share.

    Raises:
        ConfigError: it is not.
    """
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"label_smoothing is {value}; it must lie in [0, 1)")


def label_of(record: Record, field: str = "label", hint: str = "") -> str:
    """The record's label by name.

    Raises:
        DataError: no such field, or something that is no label: null, an empty string, a list or an object.
    """
    value = require(record, field, object)
    if isinstance(value, list | dict) or value is None or value == "":
        raise record.error(f'"{field}" is {value!r}; one label was wanted{hint}')
    return as_label(value)


def learn_label_set(
    records: Sequence[Record], found: Sequence[str], *, balanced: bool
) -> tuple[list[str], list[float] | None]:
    """The labels found, in their order, and with `balanced` a weight for each.

    Raises:
        DataError: fewer than two different labels.
    """
    labels = learn_labels(found)
    if len(labels) < 2:
        where = f"{records[0].path}: " if records else ""
        found_labels = f"all {len(records)} records have the label {labels[0]!r}" if labels else "there is no record"
        raise DataError(f"{where}{found_labels}; two labels are needed to learn from")
    return labels, balanced_weights(found, labels) if balanced else None


def label_head(encoder: Encoder, labels: int) -> LabelHead:
    """A linear layer on the pooled [CLS]."""
    assert encoder.pooler is not None
    return LabelHead(
        encoder.pooler,
        encoder.config.hidden_size,
        labels,
        dropout=encoder.config.hidden_dropout_prob,
        initializer_range=encoder.config.initializer_range,
    )


def read_cls(pieces: Sequence[Piece], labels: np.ndarray | None, weight: float) -> Read:
    """The [CLS] of every window, answered as one group."""
    lengths = np.array([len(piece.input_ids) for piece in pieces])
    return Read(rows=np.cumsum(lengths) - lengths, groups=np.array([len(pieces)]), labels=labels, weight=weight)


def label_loss(
    logits: Float[Tensor, "G C"], labels: Int[Tensor, " G"], *, weights: Sequence[float] | None, smoothing: float
) -> Float[Tensor, ""]:
    """Cross-entropy, summed."""
    weight = None if weights is None else torch.tensor(weights, device=logits.device)
    return F.cross_entropy(logits.float(), labels, weight=weight, label_smoothing=smoothing, reduction="sum")


def softmax(logits: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """Probabilities in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()


def named_scores(probabilities: Float[np.ndarray, " C"], labels: Sequence[str]) -> dict[str, float]:
    """Each label's probability, as predictions show it."""
    return {label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)}


def right_labels(gold: Sequence[str], predictions: Sequence[dict[str, Any]]) -> np.ndarray:
    """(records,) 1 where the predicted label is the right one, else 0."""
    return np.array([float(right == found["label"]) for right, found in zip(gold, predictions, strict=True)])


def label_answer(logits: Float[np.ndarray, " C"], labels: Sequence[str]) -> dict[str, Any]:
    """The likeliest label, its probability, and every label's."""
    probabilities = softmax(logits)
    best = int(probabilities.argmax())
    return {
        "label": labels[best],
        "score": float(probabilities[best]),
        "scores": named_scores(probabilities, labels),
    }
