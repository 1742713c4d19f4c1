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
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.metrics import spans as metrics
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer, Encoded, Task, settings_dict
from bothways.tasks.labels import UNSEEN, UNSEEN_NOTE, numbered
from bothways.tasks.one_label import label_answer, label_head, label_loss, label_of, learn_label_set, read_cls
from bothways.tasks.sentences import Split, sentence_in, sentence_of, split_of, tags_in, told_span
from bothways.tasks.tagging import (
    TagSet,
    best_tags,
    gold_tags,
    learn_span_tags,
    read_all,
    read_words,
    tag_heads,
)
from bothways.tasks.windows import word_windows
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SlotsSettings:
    """How utterances are understood."""

    decode: Literal["viterbi", "greedy"] = "viterbi"
    """viterbi: the best sequence of tags that the scheme allows; greedy: each word's best tag"""
    split: Literal["auto", "words", "characters", "chinese"] = "auto"
    """what raw text is parted into (chinese: jieba's words); auto: what the training set has"""
    stride: int = 64
    """tokens that the windows of an utterance longer than the model share; at most half a window"""

    def __post_init__(self) -> None:
        if self.stride < 0:
            raise ConfigError(f"slots.stride is {self.stride}; it must be at least 0")


class SlotsTask(Task):
    """Two heads: "slots" reads each word's first piece, "intent" reads [CLS]."""

    name = "slots"
    criterion = "frame_accuracy"
    Settings = SlotsSettings

    def __init__(self, settings: SlotsSettings, tags: TagSet, intents: list[str], split: Split) -> None:
        self.settings, self.tags, self.intents = settings, tags, intents
        self.split: Split = split

    @property
    def architecture(self) -> str:
        """No class of transformers has both heads, so they stand beside the encoder."""
        return "BertModel"

    @classmethod
    def learn(cls, records: Sequence[Record], settings: SlotsSettings) -> SlotsTask:
        """Tags and their scheme, intents, and how the training set parts text into words."""
        tags = learn_span_tags(records, read_all(records, tags_in))
        read_all(records, lambda record: gold_tags(record, tags))
        intents, _ = learn_label_set(records, read_all(records, _intent), balanced=False)
        return cls(settings, tags, intents, split_of(records) if settings.split == "auto" else settings.split)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece, and one on the pooled [CLS]."""
        return {
            "slots": tag_heads(encoder, len(self.tags.names), crf=False)["tags"],
            "intent": label_head(encoder, len(self.intents)),
        }

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] words [SEP]; the windows of a long utterance stay together, since they have one intent."""
        sentences = read_all(records, lambda record: sentence_of(record, self.split))
        gold: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(records)
        if labelled:
            gold = read_all(records, self._targets)
        texts = tokenizer.encode_words([sentence.words for sentence in sentences])
        encoded = []
        for number, (sentence, text, targets) in enumerate(zip(sentences, texts, gold, strict=True)):
            windows, coverage = word_windows(
                text,
                tokenizer,
                record=first + number,
                max_length=max_length,
                stride=self.settings.stride,
                extra=sentence,
            )
            pieces = tuple(window.piece for window in windows)
            tags, intent = targets or (None, None)
            seen = targets is not None and UNSEEN not in targets[1]
            reads = {"slots": read_words(windows, tags), "intent": read_cls(pieces, intent, weight=float(seen))}
            unseen = targets is not None and UNSEEN in np.concatenate(targets)
            encoded.append(Encoded([Example(pieces, reads)], coverage, (UNSEEN_NOTE,) if unseen else ()))
        return encoded

    def _targets(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of a record's tags (words,) and of its intent (1,)."""
        return numbered(gold_tags(record, self.tags), self.tags.names), numbered([_intent(record)], self.intents)

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word's tag, and of the intent."""
        losses = {}
        for head in ("slots", "intent"):
            labels = batch.targets[head].labels
            assert labels is not None
            losses[head] = label_loss(scores[head], labels, weights=None, smoothing=0.0)
        return losses

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Intent and slots; words too, where the record has only a text."""
        sentence, answer = sentence_in(answers), answers[0]
        intent = label_answer(answer.scores["intent"][0], self.intents)
        steps = None if self.settings.decode == "greedy" else self.tags.steps
        path, sure = best_tags([Answer(answer.example, {"tags": answer.scores["slots"]})], steps)
        tags = [self.tags.names[number] for number in path]
        prediction: dict[str, Any] = {
            "intent": intent["label"],
            "score": intent["score"],
            "slots": [told_span(span, sentence, sure) for span in metrics.spans(tags, self.tags.scheme)],
            "tags": tags,
        }
        return prediction if "tokens" in record.fields else prediction | {"words": sentence.words}

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
        """Tags, scheme, intents, split, settings."""
        return {
            "tags": self.tags.names,
            "scheme": self.tags.scheme,
            "intents": self.intents,
            "split": self.split,
            "settings": settings_dict(self.settings),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SlotsTask:
        """The task that `to_dict` described."""
        tags = TagSet(saved["tags"], saved["scheme"])
        return cls(SlotsSettings(**saved["settings"]), tags, saved["intents"], saved["split"])


def _intent(record: Record) -> str:
    return label_of(record, "intent")
