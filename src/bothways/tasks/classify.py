"""Classification: one label, several labels, or a number for a text.

record      {"text": "味道不错", "label": "positive"}; a list of labels; a number, if some have fractions
prediction  {"label": "positive", "score": 0.98, "scores": {…}, "tokens": {"kept": 4}}
metric      accuracy and macro F1 (two labels: also PR-AUC of the positive one); several: micro F1; a number: Pearson,
            Spearman
reference   Devlin et al., 2018, section 4.1: a linear layer on the pooled [CLS]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Piece
from bothways.data.files import suffix
from bothways.data.messages import listed
from bothways.data.record import NUMBER, Record, read_all, require
from bothways.errors import ConfigError
from bothways.metrics import classes
from bothways.metrics.bootstrap import moments
from bothways.tasks.base import Answer, Coverage, settings_dict
from bothways.tasks.labels import as_label, label_index, labels_config, labels_from_config, learn_labels
from bothways.tasks.one_label import (
    LabelTask,
    check_smoothing,
    is_no_label,
    label_answer,
    label_loss,
    label_of,
    learn_label_set,
    named_scores,
    right_labels,
)
from bothways.tasks.sequences import encode_texts
from bothways.text.tokenizer import Tokenizer

Kind = Literal["one", "several", "number"]
_PROBLEM_TYPES: dict[Kind, str] = {  # transformers' words for the kind of loss
    "one": "single_label_classification",
    "several": "multi_label_classification",
    "number": "regression",
}
_FOUND: dict[Kind, str] = {"several": "lists of labels", "number": "numbers"}
_CRITERIA: dict[Kind, str] = {"one": "accuracy", "several": "micro_f1", "number": "pearson"}


@dataclass(frozen=True)
class ClassifySettings:
    """How texts are classified."""

    kind: Literal["auto", "one", "several", "number"] = "auto"
    """one label, several labels or a number; auto looks at the training records"""
    long: Literal["first", "mean"] = "first"
    """a text longer than the model: read its first window, or the mean of all windows"""
    class_weights: Literal["balanced"] | None = None
    """weigh rare labels up in the loss"""
    label_smoothing: float = 0.0
    """share of the target spread over all labels"""
    threshold: float = 0.5
    """several labels: the probability from which a label is given"""
    positive: str | None = None
    """of two labels, the one to be found (spam), which PR-AUC is of; none: the rarer in training, the later in a tie"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"threshold is {self.threshold}; it must lie between 0 and 1")


class ClassifyTask(LabelTask):
    """One label, several labels or a number; transformers has one class for all three."""

    name = "classify"
    Settings = ClassifySettings

    def __init__(
        self,
        settings: ClassifySettings,
        kind: Kind,
        labels: list[str],
        weights: list[float] | None = None,
        positive: str | None = None,
    ) -> None:
        """`positive`: of two labels, the one that PR-AUC is of; None: the rarer in the records that are scored."""
        self.settings, self.labels, self.weights, self.positive = settings, labels, weights, positive
        self.kind: Kind = kind
        self.criterion = _CRITERIA[kind]

    @property
    def outputs(self) -> int:
        """One a label; of numbers, one."""
        return len(self.labels)

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> ClassifyTask:
        """Labels and kind; a single label without a problem_type is a number, as in transformers."""
        labels = labels_from_config(raw)
        kinds: dict[Any, Kind] = {name: kind for kind, name in _PROBLEM_TYPES.items()}
        kind = kinds.get(raw.get("problem_type"), "number" if len(labels) == 1 else "one")
        return cls(ClassifySettings(), kind, labels)

    def config_entries(self) -> dict[str, Any]:
        """Labels and the kind of loss."""
        return labels_config(self.labels) | {"problem_type": _PROBLEM_TYPES[self.kind]}

    @classmethod
    def learn(cls, records: Sequence[Record], settings: ClassifySettings) -> ClassifyTask:
        """Labels and their kind, from the training records."""
        kind = settings.kind if settings.kind != "auto" else _kind(records)
        _check_one(settings, kind)
        if kind == "number":
            read_all(records, _number)
            task = cls(settings, kind, ["number"], positive=_positive(settings, kind, []))
            task.told = ("to be told: a number",)
            return task
        found = list(chain.from_iterable(read_all(records, lambda record: _labels(record, kind))))
        labels, weights = learn_label_set(
            records, found, balanced=settings.class_weights == "balanced", least=1 if kind == "several" else 2
        )
        task = cls(settings, kind, labels, weights, _positive(settings, kind, found))
        task.told = (f"to be told: {'one label' if kind == 'one' else 'any'} of {len(labels)}, {listed(labels)}",)
        return task

    def sequences(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, first: int
    ) -> Iterable[tuple[list[Piece], Coverage]]:
        """[CLS] text [SEP]."""
        windows = 1 if self.settings.long == "first" else None
        return encode_texts(records, tokenizer, max_length=max_length, windows=windows, first=first)

    def target(self, record: Record) -> tuple[np.ndarray, float]:
        """A record's label as the loss wants it, and its weight."""
        if self.kind == "number":
            return np.array([[_number(record)]], dtype=np.float32), 1.0
        indices = [label_index(label, self.labels, record) for label in _labels(record, self.kind)]
        if self.kind == "one":
            return np.array(indices), 1.0 if self.weights is None else self.weights[indices[0]]
        several = np.zeros((1, len(self.labels)), dtype=np.float32)
        several[0, indices] = 1.0
        return several, 1.0

    def loss(self, logits: Float[Tensor, "G C"], labels: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy, binary cross-entropy averaged over the labels, or squared error."""
        if self.kind == "number":
            return F.mse_loss(logits, labels, reduction="sum")
        if self.kind == "several":
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(self.labels)
        return label_loss(logits, labels, weights=self.weights, smoothing=self.settings.label_smoothing)

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The label and how sure the model is of each."""
        logits = answers[0].scores["label"][0]
        if self.kind == "number":
            return {"value": float(logits[0])}
        if self.kind == "several":
            probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
            chosen = [
                label for label, p in zip(self.labels, probabilities, strict=True) if p >= self.settings.threshold
            ]
            return {"labels": chosen, "scores": named_scores(probabilities, self.labels)}
        return label_answer(logits, self.labels)

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As the field counts each kind."""
        if self.kind == "number":
            gold = [_number(record) for record in records]
            return classes.regression(gold, [prediction["value"] for prediction in predictions])
        if self.kind == "several":
            gold = [_labels(record, self.kind) for record in records]
            return classes.multi_label(gold, [prediction["labels"] for prediction in predictions], labels=self.labels)
        return classes.classification(
            [_labels(record, self.kind)[0] for record in records],
            [prediction["label"] for prediction in predictions],
            scores=[[prediction["scores"][label] for label in self.labels] for prediction in predictions],
            labels=self.labels,
            positive=self.positive,
        )

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Whether the label is right; how many labels are; or the number."""
        if self.kind == "number":
            gold = [_number(record) for record in records]
            return {"pearson": moments(gold, [prediction["value"] for prediction in predictions])}
        if self.kind == "several":
            gold = [set(_labels(record, self.kind)) for record in records]
            found = [set(prediction["labels"]) for prediction in predictions]
            counts = [(len(a & b), len(b), len(a)) for a, b in zip(gold, found, strict=True)]
            return {"micro_f1": np.array(counts)}
        gold = [_labels(record, self.kind)[0] for record in records]
        return {"accuracy": right_labels(gold, predictions)}

    def to_dict(self) -> dict[str, Any]:
        """Kind, labels, which is the positive one, settings."""
        return {
            "kind": self.kind,
            "labels": self.labels,
            "weights": self.weights,
            "positive": self.positive,
            "settings": settings_dict(self.settings),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> ClassifyTask:
        """The task that `to_dict` described."""
        settings = ClassifySettings(**saved["settings"])
        return cls(settings, saved["kind"], saved["labels"], saved.get("weights"), saved.get("positive"))


def _kind(records: Sequence[Record]) -> Kind:
    """Several labels if any label is a list; a number if all are numbers and some has a fraction; else one.

    Whole numbers alone are names of classes, as in most sets of reviews and of topics.
    """
    values = read_all(records, lambda record: require(record, "label", object))
    if any(isinstance(value, list) for value in values):
        return "several"
    spelt = all(suffix(Path(record.path)) in (".csv", ".tsv") for record in records)  # where all are texts
    fractions = [_has_fraction(value, spelt=spelt) for value in values]
    others = fractions.count(None)
    if True in fractions and 0 < others < len(values) / 2:
        record, value = next(
            (record, value) for record, value, one in zip(records, values, fractions, strict=True) if one is None
        )
        raise record.error(
            f"label is {value!r}, but most labels are numbers, some with fractions; mend or leave out such records "
            f"({others:,} of {len(values):,}), or say --classify.kind one"
        )
    return "number" if True in fractions and not others else "one"


def _has_fraction(value: Any, *, spelt: bool) -> bool | None:
    """Whether a number, which may be `spelt` as text, has a fraction; None: it is no number."""
    if spelt and isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return isinstance(value, float) and not value.is_integer()


def _check_one(settings: ClassifySettings, kind: Kind) -> None:
    """Raises ConfigError where something is set that only the loss of one label has, and there is another kind."""
    for name in ("class_weights", "label_smoothing"):
        if kind != "one" and (value := getattr(settings, name)):
            raise ConfigError(
                f"classify.{name} is {value!r}; it is for one label a text, and the records have {_FOUND[kind]}; "
                f"leave it out"
            )


def _positive(settings: ClassifySettings, kind: Kind, found: Sequence[str]) -> str | None:
    """Of two labels the one named, else the rarer, else the later; None: there are not two, or not one a record.

    Raises:
        ConfigError: one is named that is not one of two.
    """
    labels, named = learn_labels(found) if kind == "one" else [], settings.positive
    if len(labels) == 2 and named is None:
        counts = Counter(found)
        return min(reversed(labels), key=lambda label: counts[label])
    if named is not None and (len(labels) != 2 or named not in labels):
        there = listed(labels) if labels else _FOUND[kind]
        raise ConfigError(f"classify.positive is {named!r}; wanted one of two labels, and the records have {there}")
    return named


def _number(record: Record) -> float:
    """A record's number."""
    return float(require(record, "label", float))


def _labels(record: Record, kind: Kind) -> list[str]:
    """A record's labels by name."""
    if kind == "several":
        value = require(record, "label", object)
        values = value if isinstance(value, list) else [value]
        if (wrong := next(filter(is_no_label, values), values)) is not values:
            raise record.error(f'"label" has {wrong!r}, which is no label; where a text has none, say []')
        return [as_label(item) for item in values]
    return [label_of(record, hint=" (--classify.kind several for lists)")]
