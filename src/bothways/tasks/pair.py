"""Pairs: one label for two texts, as in inference and paraphrase.

record      {"text_a": "他在睡觉。", "text_b": "他醒着。", "label": "contradiction"}
prediction  {"label": "contradiction", "score": 0.98, "scores": {…}, "tokens": {"kept": 9}}
metric      accuracy, F1 (two labels: of the positive one, as MRPC and QQP are scored; more: macro), MCC
reference   Devlin et al., 2018, section 4.1: a linear layer on the pooled [CLS] of [CLS] A [SEP] B [SEP]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bothways.batch import Piece
from bothways.data.record import Record, read_all
from bothways.errors import ConfigError
from bothways.metrics import classes
from bothways.tasks.base import Answer, Coverage, settings_dict
from bothways.tasks.labels import label_index, labels_config
from bothways.tasks.one_label import (
    LabelTask,
    check_smoothing,
    label_answer,
    label_loss,
    label_of,
    learn_label_set,
    right_labels,
)
from bothways.tasks.sequences import encode_pairs, read_pair
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class PairSettings:
    """How pairs are labelled."""

    long: Literal["cut", "windows"] = "cut"
    """a pair longer than the model: cut the longer text, or take the mean over windows of text_b"""
    class_weights: Literal["balanced"] | None = None
    """weigh rare labels up in the loss"""
    label_smoothing: float = 0.0
    """share of the target spread over all labels"""
    positive: str | None = None
    """of two labels, the one whose F1 is told; none: the last, or X where the other is not_X"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)


class PairTask(LabelTask):
    """A score for each label."""

    name = "pair"
    criterion = "accuracy"
    Settings = PairSettings
    segments = 2

    def __init__(self, settings: PairSettings, labels: list[str], weights: list[float] | None = None) -> None:
        self.settings, self.labels, self.weights = settings, labels, weights

    @property
    def outputs(self) -> int:
        """One a label."""
        return len(self.labels)

    def config_entries(self) -> dict[str, Any]:
        """Labels and the kind of loss."""
        return labels_config(self.labels) | {"problem_type": "single_label_classification"}

    @classmethod
    def learn(cls, records: Sequence[Record], settings: PairSettings) -> PairTask:
        """The labels, from the training records."""
        found = read_all(records, _label)
        labels, weights = learn_label_set(records, found, balanced=settings.class_weights == "balanced")
        if settings.positive is not None and settings.positive not in labels:
            known = ", ".join(labels)
            raise ConfigError(f"positive is {settings.positive!r}, but the labels are {known}; name one of them")
        return cls(settings, labels, weights)

    def sequences(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, first: int
    ) -> Iterable[tuple[list[Piece], Coverage]]:
        """[CLS] text_a [SEP] text_b [SEP]."""
        windows = self.settings.long == "windows"
        return encode_pairs(records, tokenizer, max_length=max_length, windows=windows, first=first)

    def target(self, record: Record) -> tuple[np.ndarray, float]:
        """A record's label as the loss wants it, and its weight."""
        index = label_index(label_of(record), self.labels, record)
        return np.array([index]), 1.0 if self.weights is None else self.weights[index]

    def loss(self, logits: Float[Tensor, "G C"], labels: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy."""
        return label_loss(logits, labels, weights=self.weights, smoothing=self.settings.label_smoothing)

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The label and how sure the model is of each."""
        return label_answer(answers[0].scores["label"][0], self.labels)

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As GLUE counts."""
        gold = [label_of(record) for record in records]
        found = [prediction["label"] for prediction in predictions]
        positive = belonging(self) if len(self.labels) == 2 else self.settings.positive
        return classes.pair(gold, found, labels=self.labels, positive=positive)

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Whether the label is right; of two labels, also whether the positive one was found."""
        gold = [label_of(record) for record in records]
        found = {"accuracy": right_labels(gold, predictions)}
        positive = self.metrics(records, predictions).get("positive")
        if positive is not None:
            both = [(right == positive, one["label"] == positive) for right, one in zip(gold, predictions, strict=True)]
            found["f1"] = np.array([(right and given, given, right) for right, given in both], dtype=np.int64)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Labels, their weights, settings."""
        return {"labels": self.labels, "weights": self.weights, "settings": settings_dict(self.settings)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> PairTask:
        """The task that `to_dict` described."""
        return cls(PairSettings(**saved["settings"]), saved["labels"], saved["weights"])


def belonging(task: PairTask) -> str:
    """The label that says that two texts belong together, by which texts are ranked.

    The task's own positive one, else X where another label is not_X, else "entailment", else the last.
    """
    if task.settings.positive is not None:
        return task.settings.positive
    for label in task.labels:
        if any(f"{no}{gap}{label}" in task.labels for no in ("not", "non") for gap in "_ -"):
            return label
    return "entailment" if "entailment" in task.labels else task.labels[-1]


def _label(record: Record) -> str:
    """The label of a record that has two texts."""
    read_pair(record)
    return label_of(record)
