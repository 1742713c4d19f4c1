"""Pre-training: which pieces were masked, and does the second sentence follow the first?

record      none: examples come from shards of raw text (data/pretraining.py)
prediction  the pieces that fit a [MASK], with their probabilities
metric      masked-LM loss and accuracy, next-sentence accuracy, on held-out text
reference   Devlin et al., 2018, section 3.1; Lan et al., 2019 (sentence order)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Batch, Example, Origin, Piece, Read
from bothways.data.record import Record, require
from bothways.errors import ConfigError
from bothways.nn.encoder import ACTIVATIONS, Encoder
from bothways.nn.heads import Head, LabelHead, MaskedHead
from bothways.tasks.base import Answer, Coverage, Encoded, Task
from bothways.tasks.one_label import softmax
from bothways.tasks.sequences import with_specials
from bothways.text.tokenizer import Tokenizer

Second = Literal["next", "order"] | None


class PretrainTask(Task):
    """Two heads: "masked" reads masked positions; "next", unless there is no sentence loss, reads [CLS]."""

    name = "pretrain"
    criterion = "masked_accuracy"

    def __init__(self, second: Second) -> None:
        self.second: Second = second

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
        return {
            name: F.cross_entropy(logits.float(), _labels(batch, name), reduction="sum")
            for name, logits in scores.items()
        }

    def tally(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, float]:
        """Sums over a batch from which held-out loss and accuracy are made."""
        sums: dict[str, float] = {}
        for name, logits in scores.items():
            labels = _labels(batch, name)
            sums[f"{name}_loss"] = float(F.cross_entropy(logits.float(), labels, reduction="sum"))
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


class FillTask(PretrainTask):
    """A pre-trained model at work: it fills each [MASK] of a text."""

    name = "fill"

    def __init__(self, tokenizer: Tokenizer, *, top: int = 5) -> None:
        super().__init__(None)
        self.tokenizer, self.top = tokenizer, top

    def with_options(self, **options: Any) -> FillTask:
        """How many pieces are told for each mask: `top`.

        Raises:
            ConfigError: another option, or not a number from 1 to 1000.
        """
        if unknown := sorted(set(options) - {"top"}):
            raise ConfigError(f"unknown option {unknown[0]}; known is top")
        top = options.get("top", self.top)
        if type(top) is not int or not 1 <= top <= 1000:
            raise ConfigError(f"top is {top!r}; wanted a whole number from 1 to 1000")
        return FillTask(self.tokenizer, top=top)

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """Texts in which [MASK] is read as the special token, whole.

        Raises:
            DataError: a text without [MASK], or one longer than the model.
        """
        texts = [require(record, "text", str) for record in records]
        encoded = []
        both = zip(records, texts, tokenizer.encode(texts, specials=True), strict=True)
        for number, (record, text, pieces) in enumerate(both, first):
            places = np.flatnonzero(pieces.ids == tokenizer.mask_id)
            if not len(places):
                raise record.error(f"{text[:40]!r} has no {tokenizer.token(tokenizer.mask_id)} to fill")
            if len(pieces.ids) + 2 > max_length:
                raise record.error(
                    f"the text has {len(pieces.ids)} tokens, the model reads {max_length - 2}; shorten it"
                )
            piece = Piece(with_specials(pieces.ids, tokenizer), origin=Origin(number, extra=pieces.offsets[places]))
            read = Read(rows=places + 1, groups=np.ones(len(places), int))
            encoded.append(Encoded([Example((piece,), {"masked": read})], Coverage(kept=len(pieces.ids))))
        return encoded

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """For each mask where it stands, and the likeliest pieces; special tokens are no answer."""
        origin = answers[0].example.pieces[0].origin
        assert origin is not None
        logits = np.where(self.tokenizer.special, -np.inf, answers[0].scores["masked"][:, : self.tokenizer.size])
        return {
            "masks": [
                {"mask": number, "start": int(start), "end": int(end), "fillings": self._fillings(row)}
                for number, (row, (start, end)) in enumerate(zip(logits, origin.extra, strict=True))
            ]
        }

    def _fillings(self, logits: np.ndarray) -> list[dict[str, Any]]:
        probabilities = softmax(logits)
        best = np.argsort(-probabilities, kind="stable")[: min(self.top, int(np.sum(~self.tokenizer.special)))]
        return [{"token": self.tokenizer.token(int(i)), "score": round(float(probabilities[i]), 6)} for i in best]


def _labels(batch: Batch, head: str) -> Tensor:
    labels = batch.targets[head].labels
    assert labels is not None
    return labels
