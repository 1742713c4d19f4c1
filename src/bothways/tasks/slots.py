"""Slots: what an utterance asks for (its intent) and the words that say which (its slots), in one pass.

record      {"tokens": ["play", "Westbam"], "tags": ["O", "B-artist"], "intent": "PlayMusic"}; to predict, tokens or
            a text; several intents written as one ("flight#airfare") are a label of their own
prediction  {"intent": "PlayMusic", "score": 0.99, "slots": [{"label": "artist", "words": ["Westbam"], …}],
            "tags": […], "tokens": {"kept": 4}}; of a text, slots with its offsets, and its words
metric      slot F1 (strict), intent accuracy, and the share of frames (intent and all tags) that are right
reference   Chen et al., 2019, "BERT for Joint Intent Classification and Slot Filling": the two losses are added
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example
from bothways.data.record import Record, read_all
from bothways.metrics import spans as metrics
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer
from bothways.tasks.labels import UNSEEN
from bothways.tasks.one_label import label_answer, label_head, label_loss, label_of, learn_label_set, read_cls
from bothways.tasks.sentences import Split
from bothways.tasks.tag_sets import TagSet, gold_tags, learn_span_tags
from bothways.tasks.tagging import Names, WordSettings, WordTask, read_words
from bothways.tasks.windows import Window


@dataclass(frozen=True)
class SlotsSettings(WordSettings):
    """How utterances are understood."""

    task = "slots"


class SlotsTask(WordTask):
    """Two heads: "slots" reads each word's first piece, "intent" reads [CLS]."""

    name = "slots"
    head = "slots"
    criterion = "frame_accuracy"
    Settings = SlotsSettings

    def __init__(self, settings: SlotsSettings, tags: TagSet, split: Split, *, intents: list[str]) -> None:
        super().__init__(settings, tags, split)
        self.intents = intents

    @property
    def architecture(self) -> str:
        """No class of transformers has both heads, so they stand beside the encoder."""
        return "BertModel"

    @classmethod
    def learn(cls, records: Sequence[Record], settings: SlotsSettings) -> SlotsTask:
        """Tags and their scheme, intents, and how the training set parts text into words."""
        tags = learn_span_tags(records)
        intents, _ = learn_label_set(records, read_all(records, _intent), balanced=False)
        return cls(settings, tags, settings.split_for(records), intents=intents)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece, and one on the pooled [CLS]."""
        return super().heads(encoder) | {"intent": label_head(encoder, len(self.intents))}

    @property
    def names(self) -> dict[str, Names]:
        """The tags, and the intents."""
        return super().names | {"intent": Names("intent", self.intents)}

    def right(self, record: Record) -> dict[str, list[str]]:
        """A record's tags, one a word, and its one intent."""
        return super().right(record) | {"intent": [_intent(record)]}

    def examples(self, windows: list[Window], labels: dict[str, np.ndarray]) -> list[Example]:
        """One example: the windows of a long utterance stay together, since they have one intent."""
        pieces = tuple(window.piece for window in windows)
        tags, intent = labels.get("slots"), labels.get("intent")
        weight = float(intent is not None and UNSEEN not in intent)
        return [Example(pieces, {"slots": read_words(windows, tags), "intent": read_cls(pieces, intent, weight)})]

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word's tag, and of the intent."""
        losses = {}
        for head in ("slots", "intent"):
            labels = batch.targets[head].labels
            assert labels is not None
            losses[head] = label_loss(scores[head], labels, weights=None, smoothing=self.settings.label_smoothing)
        return losses

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Intent and slots; words too, where the record has only a text."""
        intent = label_answer(answers[0].scores["intent"][0], self.intents)
        found = self.tagged(answers)
        slots = found.spans(metrics.spans(found.tags, self.tags.scheme))
        return {"intent": intent["label"], "score": intent["score"], "slots": slots} | found.told(record)

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Slots, intents, whole frames; what training did not see can't be right."""
        return metrics.slots(
            [gold_tags(record, self.tags) for record in records],
            [prediction["tags"] for prediction in predictions],
            [_intent(record) for record in records],
            [prediction["intent"] for prediction in predictions],
            scheme=self.tags.scheme,
        )

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Slots right, predicted and gold; whether the intent is right, and whether all is."""
        gold, found = [gold_tags(record, self.tags) for record in records], [one["tags"] for one in predictions]
        intents = [_intent(record) == one["intent"] for record, one in zip(records, predictions, strict=True)]
        whole = [right and a == b for right, a, b in zip(intents, gold, found, strict=True)]
        return {
            "slot_f1": np.array(metrics.entity_counts(gold, found, scheme=self.tags.scheme)),
            "intent_accuracy": np.array(intents, dtype=np.float64),
            "frame_accuracy": np.array(whole, dtype=np.float64),
        }

    def to_dict(self) -> dict[str, Any]:
        """Tags, scheme, split, settings, intents."""
        return super().to_dict() | {"intents": self.intents}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WordTask:
        """The task that `to_dict` described."""
        return cls.restored(saved, intents=saved["intents"])


def _intent(record: Record) -> str:
    return label_of(record, "intent")
