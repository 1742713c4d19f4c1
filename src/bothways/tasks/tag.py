"""Tagging: a label for each word, which may mark spans, as in named entity recognition, or not, as in parts of speech.

record      {"tokens": ["Ada", "lives", "here"], "tags": ["B-PER", "O", "O"]}; or {"text": "Ada lives here",
            "spans": [{"start": 0, "end": 3, "label": "PER"}]}; to predict, tokens or a text
prediction  {"spans": [{"label": "PER", "text": "Ada", "start": 0, "end": 3, "score": 0.99}], "tags": […],
            "words": […], "tokens": {"kept": 3}}
metric      entity F1, strict, as CoNLL-2003 counts it (of raw text: label and both offsets); tags that mark no
            spans: accuracy and macro F1
reference   Devlin et al., 2018, section 5.3: a word is labelled at its first piece
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example
from bothways.data.record import Record, read_all, require
from bothways.errors import ConfigError, DataError
from bothways.metrics import classes
from bothways.metrics.spans import Span, entities, entity_counts, spans
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer
from bothways.tasks.labels import balanced_weights, labels_config, labels_from_config, numbered, unseen_notes
from bothways.tasks.sentences import Mark, Sentence, Split, marks_in, tags_in, word_spans
from bothways.tasks.tag_sets import PLAIN, TagSet, learn_tags, repaired, scheme_tags, tags_of
from bothways.tasks.tagging import Gold, WordSettings, WordTask, tag_examples, tag_heads, tag_loss
from bothways.tasks.windows import Window


@dataclass(frozen=True)
class TagSettings(WordSettings):
    """How words are tagged."""

    task = "tag"

    crf: bool = False
    """learn how likely each tag follows each other (a conditional random field)"""
    repair: bool = False
    """begin a span at a tag that goes on with one that never began, as IOB1 files have them"""
    class_weights: Literal["balanced"] | None = None
    """weigh rare tags up in the loss"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crf and self.decode == "greedy":
            raise ConfigError("tag.decode is greedy, but tag.crf decides whole sequences; leave one of them out")
        if self.crf and (self.class_weights is not None or self.label_smoothing):
            raise ConfigError(
                "tag.crf scores whole sequences, but tag.class_weights and tag.label_smoothing are of single tags; "
                "leave one of them out"
            )


class Right(NamedTuple):
    """The right tags of a record's words, and what the log should tell of them."""

    tags: list[str]
    notes: tuple[str, ...] = ()


class TagTask(WordTask):
    """One head, "tags", that reads each word's first piece; with a CRF also "crf", which reads nothing."""

    name = "tag"
    criterion = "f1"
    Settings = TagSettings

    def __init__(
        self,
        settings: TagSettings,
        tags: TagSet,
        split: Split,
        weights: list[float] | None = None,
    ) -> None:
        super().__init__(settings, tags, split)
        self.weights = weights

    @property
    def architecture(self) -> str:
        """A CRF's weights stand beside those of this class, which passes over them."""
        return "BertForTokenClassification"

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> TagTask:
        """The tags; raw text is parted into BERT's own words."""
        names = labels_from_config(raw)
        try:
            scheme = learn_tags([(Record({}, "config.json", None), names)]).scheme
        except DataError:  # a model whose tags are of no one scheme
            scheme = PLAIN
        return cls(TagSettings(), TagSet(names, scheme), "words")

    def config_entries(self) -> dict[str, Any]:
        """The tags by number."""
        return labels_config(self.tags.names)

    @classmethod
    def learn(cls, records: Sequence[Record], settings: TagSettings) -> TagTask:
        """Tags, their scheme, and how the training set parts text into words."""
        named = [
            ["O", *(f"B-{mark.label}" for mark in marks_in(record))] if _is_marked(record) else tags_in(record)
            for record in read_all(records, _checked)
        ]
        tags = learn_tags(zip(records, named, strict=True))
        task = cls(settings, tags, settings.split_for(records))
        found = read_all(records, lambda record: task._gold_tags(record, task.sentence(record)))
        if settings.class_weights == "balanced":
            task.weights = balanced_weights(chain.from_iterable(gold.tags for gold in found), tags.names)
        return task

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece; with a CRF, its weights."""
        return tag_heads(encoder, len(self.tags.names), crf=self.settings.crf)

    def gold(self, records: Sequence[Record], sentences: Sequence[Sentence]) -> list[Gold]:
        """The right tags of each record; of one that training did not see it is told where it stands first."""
        found = read_all(list(zip(records, sentences, strict=True)), lambda both: self._gold_tags(*both))
        unseen = unseen_notes("tag", records, [right.tags for right in found], self.tags.names)
        return [
            Gold({"tags": numbered(right.tags, self.tags.names)}, right.notes + new)
            for right, new in zip(found, unseen, strict=True)
        ]

    def examples(self, windows: list[Window], labels: dict[str, np.ndarray]) -> list[Example]:
        """One example a window, or with a CRF one for all of them."""
        return tag_examples(windows, labels.get("tags"), crf=self.settings.crf, weights=self.weights)

    def _gold_tags(self, record: Record, sentence: Sentence) -> Right:
        """The right tags.

        Raises:
            DataError: there are none, the scheme forbids their sequence, or spans where tags mark none.
        """
        scheme = self.tags.scheme
        if _is_marked(record):
            if scheme == PLAIN:
                known = ", ".join(self.tags.names[:12]) + (", …" if len(self.tags.names) > 12 else "")
                raise record.error(
                    f'"spans" mark parts of a text, but the model tags each word ({known}); wanted "tokens" and "tags"'
                )
            if sentence.offsets is None:
                raise record.error('"text" is not the words of "tokens" with white space between; leave "tokens" out')
            found, widened = word_spans(marks_in(record), sentence.offsets)
            finer = "" if self.split == "characters" else " (--tag.split characters parts finer)"
            note = f"a span begins or ends inside a word, and whole words are learnt{finer}"
            return Right(tags_of(found, len(sentence.words), scheme), (note,) if widened else ())
        tags = scheme_tags(record, self.tags)
        wrong = self.tags.impossible(tags)
        if wrong is None:
            return Right(tags)
        if not self.settings.repair:
            raise record.error(f"{wrong}; mend the tags, or say --tag.repair to begin a span there")
        return Right(repaired(tags, scheme), (f"tags that {scheme} forbids were repaired",))

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word, or of each sentence's sequence."""
        smoothing = self.settings.label_smoothing
        return {"tags": tag_loss(scores, batch, weights=self.weights, smoothing=smoothing)}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Tags, and the spans that they mark; words too, where the record has only a text."""
        found = self.tagged(answers)
        if self.tags.scheme == PLAIN:
            return found.told(record) | {"scores": [round(float(p), 6) for p in found.sure]}
        return {"spans": found.spans(spans(found.tags, self.tags.scheme))} | found.told(record)

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Strict scores of spans, counted on characters where the gold spans are offsets; accuracy of plain tags."""
        gold, found = self._both(records, predictions)
        if self.tags.scheme != PLAIN:
            return entities(gold, found, scheme=self.tags.scheme)
        return _plain(list(chain.from_iterable(gold)), list(chain.from_iterable(found)))

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Spans right, predicted and gold; of plain tags, words."""
        gold, found = self._both(records, predictions)
        if self.tags.scheme != PLAIN:
            return {"f1": np.array(entity_counts(gold, found, scheme=self.tags.scheme))}
        right = [sum(a == b for a, b in zip(*tags, strict=True)) for tags in zip(gold, found, strict=True)]
        return {
            "token_accuracy": np.array([(count, len(tags), len(tags)) for count, tags in zip(right, gold, strict=True)])
        }

    def _both(
        self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Gold and predicted tags of each record's words, or of its characters where the gold spans are offsets."""
        gold, found = [], []
        for record, prediction in zip(records, predictions, strict=True):
            if _is_marked(record):
                length = len(require(record, "text", str))
                gold.append(self._on_characters(marks_in(record), length))
                marks = [Mark(span["label"], span["start"], span["end"]) for span in prediction["spans"]]
                found.append(self._on_characters(marks, length))
            else:
                gold.append(self._gold_tags(record, self.sentence(record)).tags)
                found.append(prediction["tags"])
        return gold, found

    def _on_characters(self, marks: Sequence[Mark], length: int) -> list[str]:
        return tags_of([Span(f"-{label}", start, end) for label, start, end in marks], length, self.tags.scheme)

    def to_dict(self) -> dict[str, Any]:
        """Tags, scheme, split, settings, weights."""
        return super().to_dict() | {"weights": self.weights}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WordTask:
        """The task that `to_dict` described."""
        return cls.restored(saved, weights=saved.get("weights"))


def _is_marked(record: Record) -> bool:
    """Whether its gold spans are offsets in a text; tags go first where there are both."""
    return "spans" in record.fields and "tags" not in record.fields


def _checked(record: Record) -> Record:
    """The record, when it is one to learn from."""
    if _is_marked(record):
        marks_in(record)
    else:
        tags_in(record)
    return record


def _plain(gold: list[str], found: list[str]) -> dict[str, Any]:
    """Scores of tags that mark no spans; with one tag a word, micro precision, recall and F1 are all the accuracy."""
    scores = classes.classification(gold, found)
    accuracy = scores.pop("accuracy")
    same = dict.fromkeys(("precision", "recall", "f1", "token_accuracy"), accuracy)
    return same | scores
