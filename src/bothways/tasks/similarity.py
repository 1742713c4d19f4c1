"""Similarity: a number for two texts, as in STS-B.

record      {"text_a": "一架飞机正在起飞。", "text_b": "飞机起飞了。", "label": 4.6}
prediction  {"value": 4.51, "tokens": {"kept": 15}}, on the scale of the training labels
metric      Pearson, Spearman
reference   Devlin et al., 2018, section 4.1; google-research/bert's successors regress STS-B on the pooled [CLS]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Piece
from bothways.data.record import Record, read_all, require
from bothways.errors import DataError
from bothways.metrics.bootstrap import moments
from bothways.metrics.similarity import similarity
from bothways.tasks.base import Answer, Coverage, settings_dict
from bothways.tasks.labels import labels_config
from bothways.tasks.one_label import LabelTask
from bothways.tasks.sequences import encode_pairs, read_pair
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SimilaritySettings:
    """How similarities are told."""

    long: Literal["cut", "windows"] = "cut"
    """a pair longer than the model: cut the longer text, or take the mean over windows of text_b"""


class SimilarityTask(LabelTask):
    """A score in which 0 stands for the lowest label seen in training, 1 for the highest."""

    name = "similarity"
    criterion = "spearman"
    Settings = SimilaritySettings
    segments = 2

    def __init__(self, settings: SimilaritySettings, low: float, high: float) -> None:
        self.settings, self.low, self.high = settings, low, high

    @property
    def outputs(self) -> int:
        """The number; transformers calls it regression."""
        return 1

    def config_entries(self) -> dict[str, Any]:
        """One label, and the kind of loss."""
        return labels_config(["similarity"]) | {"problem_type": "regression"}

    @classmethod
    def learn(cls, records: Sequence[Record], settings: SimilaritySettings) -> SimilarityTask:
        """The range of the labels, from the training records."""
        found = read_all(records, _checked)
        if not found or min(found) == max(found):
            where = f"{records[0].path}: " if records else ""
            same = f"all {len(found)} records have the label {found[0]:g}" if found else "there is no record"
            raise DataError(f"{where}{same}; labels that differ are needed to learn from")
        return cls(settings, min(found), max(found))

    def sequences(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, first: int
    ) -> Iterable[tuple[list[Piece], Coverage]]:
        """[CLS] text_a [SEP] text_b [SEP]."""
        windows = self.settings.long == "windows"
        return encode_pairs(records, tokenizer, max_length=max_length, windows=windows, first=first)

    def target(self, record: Record) -> tuple[np.ndarray, float]:
        """The label on the scale of 0 to 1."""
        return np.array([[(_label(record) - self.low) / (self.high - self.low)]], dtype=np.float32), 1.0

    def loss(self, logits: Float[Tensor, "G C"], labels: Tensor) -> Float[Tensor, ""]:
        """Squared error on the scale of 0 to 1."""
        return F.mse_loss(logits, labels, reduction="sum")

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The number; it may lie a little beyond the labels seen in training."""
        return {"value": self.low + (self.high - self.low) * float(answers[0].scores["label"][0, 0])}

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As STS-B is scored."""
        return {**similarity([_label(record) for record in records], [one["value"] for one in predictions])}

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Pearson's correlation; ranks are of all records together, and no record's own."""
        return {"pearson": moments([_label(record) for record in records], [one["value"] for one in predictions])}

    def to_dict(self) -> dict[str, Any]:
        """Range and settings."""
        return {"low": self.low, "high": self.high, "settings": settings_dict(self.settings)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SimilarityTask:
        """The task that `to_dict` described."""
        return cls(SimilaritySettings(**saved["settings"]), saved["low"], saved["high"])


def _checked(record: Record) -> float:
    """The number of a record that has two texts."""
    read_pair(record)
    return _label(record)


def _label(record: Record) -> float:
    return float(require(record, "label", float))
