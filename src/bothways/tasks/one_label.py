"""One answer to a text or a pair, read at [CLS]: the task, head, loss and answer that those which give one share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Batch, Example, Piece, Read
from bothways.data.record import NUMBER, Record, read_all, require
from bothways.errors import ConfigError, DataError
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, LabelHead
from bothways.tasks.base import Coverage, Encoded, Task
from bothways.tasks.labels import as_label, balanced_weights, learn_labels
from bothways.text.tokenizer import Tokenizer


class LabelTask(Task):
    """A task with one head, "label", that reads the pooled [CLS]; all windows of a record answer as one group."""

    @property
    def architecture(self) -> str:
        """The class that reads one text or two."""
        return "BertForSequenceClassification"

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head gives."""

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on the pooled [CLS]."""
        return {"label": label_head(encoder, self.outputs)}

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """An example a record; its windows stay together."""
        try:
            return self._encoded(records, tokenizer, max_length, labelled, first)
        except DataError:
            if labelled:  # before training all mistakes are counted, so each record is looked at by itself
                read_all(records, lambda record: self._encoded([record], tokenizer, max_length, labelled, first))
            raise

    def _encoded(
        self, records: Sequence[Record], tokenizer: Tokenizer, max_length: int, labelled: bool, first: int
    ) -> list[Encoded]:
        encoded = []
        sequences = self.sequences(records, tokenizer, max_length=max_length, first=first)
        for record, (pieces, coverage) in zip(records, sequences, strict=True):
            target, weight = self.target(record) if labelled else (None, 0.0)
            encoded.append(Encoded([Example(tuple(pieces), {"label": read_cls(pieces, target, weight)})], coverage))
        return encoded

    @abstractmethod
    def sequences(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, first: int
    ) -> Iterable[tuple[list[Piece], Coverage]]:
        """The windows of each record."""

    @abstractmethod
    def target(self, record: Record) -> tuple[np.ndarray, float]:
        """A record's label as the loss wants it, and its weight."""

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The loss of the one head."""
        labels = batch.targets["label"].labels
        assert labels is not None
        return {"label": self.loss(scores["label"].float(), labels)}

    @abstractmethod
    def loss(self, logits: Float[Tensor, "G C"], labels: Tensor) -> Float[Tensor, ""]:
        """Summed over the records of a batch."""


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
    if is_no_label(value):
        raise record.error(f'"{field}" is {value!r}; one label was wanted{hint}')
    return as_label(value)


def is_no_label(value: Any) -> bool:
    """Whether it names no label."""
    # What is unlike itself is NaN, which pandas writes where nothing is.
    return isinstance(value, list | dict) or value is None or value == "" or value != value


def learn_label_set(
    records: Sequence[Record], found: Sequence[str], *, balanced: bool, least: int = 2
) -> tuple[list[str], list[float] | None]:
    """The labels found, in their order, and with `balanced` a weight for each.

    Raises:
        DataError: fewer than `least` different labels, or two that are one number.
    """
    labels = learn_labels(found)
    numbers: dict[float, str] = {}
    for label in labels:
        if NUMBER.fullmatch(label) and (other := numbers.setdefault(float(label), label)) != label:
            where = f"{records[0].path}: " if records else ""
            raise DataError(f"{where}the labels {other!r} and {label!r} are one number; write it in one way")
    if len(labels) < least:
        if not records:
            raise DataError("there is no record to learn from")
        found_labels = f"all {len(records)} records have the label {labels[0]!r}" if labels else "no record has a label"
        wanted = "two labels are" if least == 2 else "a label is"
        raise DataError(f"{records[0].path}: {found_labels}; {wanted} needed to learn from")
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


def softmax(logits: Float[np.ndarray, "*rows C"]) -> Float[np.ndarray, "*rows C"]:
    """Probabilities, of each row by itself, in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def named_scores(probabilities: Float[np.ndarray, " C"], labels: Sequence[str]) -> dict[str, float]:
    """Each label's probability, as predictions show it."""
    return {label: _rounded(float(p)) for label, p in zip(labels, probabilities, strict=True)}


def _rounded(probability: float) -> float:
    """To six digits of what it is, or of what is missing to 1 where that is less: sure answers must not tie in rank."""
    less = min(probability, 1.0 - probability)
    return round(probability, 5 - math.floor(math.log10(less))) if less > 0 else probability


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
