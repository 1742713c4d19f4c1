"""Pre-training: which pieces were masked, and does the second sentence follow the first?

record      none: examples come from shards of raw text (data/pretraining.py)
prediction  none of its own: masks are filled by tasks/masked.py
metric      masked-LM loss and accuracy, next-sentence accuracy, on held-out text
reference   Devlin et al., 2018, section 3.1; Lan et al., 2019 (sentence order)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bothways.batch import Batch
from bothways.data.record import Record
from bothways.data.sentence_pairs import Second
from bothways.nn.cross_entropy import cross_entropy
from bothways.nn.encoder import ACTIVATIONS, Encoder
from bothways.nn.heads import Head, LabelHead, MaskedHead
from bothways.tasks.base import Answer, Encoded, Task
from bothways.text.tokenizer import Tokenizer


class PretrainTask(Task):
    """Two heads: "masked" reads masked positions; "next", unless there is no sentence loss, reads [CLS]."""

    name = "pretrain"
    criterion = "masked_accuracy"

    def __init__(self, second: Second) -> None:
        self.second: Second = second
        self.segments = 1 if second is None else 2

    @property
    def architecture(self) -> str:
        """Without a sentence loss there is only the masked-LM head."""
        return "BertForMaskedLM" if self.second is None else "BertForPreTraining"

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> PretrainTask:
        """The kind of sentence loss is not told there; BERT's own is assumed."""
        return cls("next" if raw["architectures"][0] == "BertForPreTraining" else None)

    @classmethod
    def learn(cls, records: Sequence[Record], settings: Any) -> PretrainTask:
        """Nothing is learnt from records here."""
        return cls(settings)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """The masked-LM head, tied to the word embeddings, and the sentence head."""
        config = encoder.config
        heads: dict[str, Head] = {
            "masked": MaskedHead(
                encoder.embeddings.word,
                activation=ACTIVATIONS[config.hidden_act],
                layer_norm_eps=config.layer_norm_eps,
                initializer_range=config.initializer_range,
            )
        }
        if self.second is not None:
            assert encoder.pooler is not None
            heads["next"] = LabelHead(
                encoder.pooler, config.hidden_size, 2, dropout=0.0, initializer_range=config.initializer_range
            )
        return heads

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """Records play no part in pre-training."""
        raise TypeError("a pre-trained model has no task of its own; fine-tune it, embed with it or fill masks")

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of both heads."""
        return {name: cross_entropy(logits, _labels(batch, name)) for name, logits in scores.items()}

    def tally(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, float]:
        """Sums over a batch from which held-out loss and accuracy are made."""
        sums: dict[str, float] = {}
        for name, logits in scores.items():
            labels = _labels(batch, name)
            sums[f"{name}_loss"] = float(cross_entropy(logits, labels))
            sums[f"{name}_accuracy"] = float(torch.sum(logits.argmax(-1) == labels))
            sums[f"{name}_count"] = len(labels)
        return sums

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """See `encode`."""
        raise TypeError("a pre-trained model has no task of its own")

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """See `encode`."""
        raise TypeError("a pre-trained model has no task of its own")

    def to_dict(self) -> dict[str, Any]:
        """The kind of sentence loss."""
        return {"second": self.second}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> PretrainTask:
        """The task that `to_dict` described."""
        return cls(saved.get("second"))


def _labels(batch: Batch, head: str) -> Tensor:
    labels = batch.targets[head].labels
    assert labels is not None
    return labels
