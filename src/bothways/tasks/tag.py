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

from bothways.batch import Batch
from bothways.data.messages import nearest, shown
from bothways.data.record import Record, require
from bothways.errors import ConfigError, DataError
from bothways.metrics import classes
from bothways.metrics.spans import Span, entities, entity_counts, spans
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer, Encoded, Task, settings_dict
from bothways.tasks.labels import balanced_weights, labels_config, labels_from_config, numbered
from bothways.tasks.one_label import check_smoothing
from bothways.tasks.sentences import (
    Mark,
    Sentence,
    Split,
    marks_in,
    sentence_in,
    sentence_of,
    split_of,
    tags_in,
    told_span,
    word_spans,
)
from bothways.tasks.tagging import (
    PLAIN,
    TagSet,
    best_tags,
    learn_tags,
    read_all,
    repaired,
    scheme_tags,
    tag_examples,
    tag_heads,
    tag_loss,
    tags_of,
)
from bothways.tasks.windows import word_windows
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TagSettings:
    """How words are tagged."""

    decode: Literal["viterbi", "greedy"] = "viterbi"
    """viterbi: the best sequence of tags that the scheme allows; greedy: each word's best tag"""
    crf: bool = False
    """learn how likely each tag follows each other (a conditional random field)"""
    split: Literal["auto", "words", "characters", "chinese"] = "auto"
    """what raw text is parted into (chinese: jieba's words); auto: what the training set has"""
    repair: bool = False
    """begin a span at a tag that goes on with one that never began, as IOB1 files have them"""
    stride: int = 64
    """tokens that the windows of a text longer than the model share; at most half a window"""
    class_weights: Literal["balanced"] | None = None
    """weigh rare tags up in the loss"""
    label_smoothing: float = 0.0
    """share of the target spread over all tags"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if self.stride < 0:
            raise ConfigError(f"tag.stride is {self.stride}; it must be at least 0")
        if self.crf and self.decode == "greedy":
            raise ConfigError("tag.decode is greedy, but tag.crf decides whole sequences; leave one of them out")
        if self.crf and (self.class_weights is not None or self.label_smoothing):
            raise ConfigError(
                "tag.crf scores whole sequences, but tag.class_weights and tag.label_smoothing are of single tags; "
                "leave one of them out"
            )


class Gold(NamedTuple):
    """The right tags of a record's words, and what the log should tell of them."""

    tags: list[str]
    notes: tuple[str, ...] = ()


class TagTask(Task):
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
        self.settings, self.tags, self.weights = settings, tags, weights
        self.split: Split = split

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
        split: Split = split_of(records) if settings.split == "auto" else settings.split
        task = cls(settings, tags, split)
        found = read_all(records, lambda record: task._gold(record, sentence_of(record, split)))
        if settings.class_weights == "balanced":
            task.weights = balanced_weights(chain.from_iterable(gold.tags for gold in found), tags.names)
        return task

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece; with a CRF, its weights."""
        return tag_heads(encoder, len(self.tags.names), crf=self.settings.crf)

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] words [SEP], in as many windows as the words need."""
        sentences = read_all(records, lambda record: sentence_of(record, self.split))
        gold: list[Gold | None] = [None] * len(records)
        told: dict[str, str] = {}
        if labelled:
            found = read_all(list(zip(records, sentences, strict=True)), lambda both: self._gold(*both))
            gold, told = [*found], self._unseen(records, found)
        texts = tokenizer.encode_words([sentence.words for sentence in sentences])
        encoded = []
        for number, (sentence, text, right) in enumerate(zip(sentences, texts, gold, strict=True)):
            windows, coverage = word_windows(
                text,
                tokenizer,
                record=first + number,
                max_length=max_length,
                stride=self.settings.stride,
                extra=sentence,
            )
            labels = None if right is None else numbered(right.tags, self.tags.names)
            examples = tag_examples(windows, labels, crf=self.settings.crf, weights=self.weights)
            notes = () if right is None else right.notes + tuple(told[tag] for tag in set(right.tags) & told.keys())
            encoded.append(Encoded(examples, coverage, notes))
        return encoded

    def _gold(self, record: Record, sentence: Sentence) -> Gold:
        """The right tags.

        Raises:
            DataError: there are none, or the scheme forbids their sequence.
        """
        scheme = self.tags.scheme
        if _is_marked(record):
            if sentence.offsets is None:
                raise record.error('"text" is not the words of "tokens" with white space between; leave "tokens" out')
            found, widened = word_spans(marks_in(record), sentence.offsets)
            finer = "" if self.split == "characters" else " (--tag.split characters parts finer)"
            note = f"a span begins or ends inside a word, and whole words are learnt{finer}"
            return Gold(tags_of(found, len(sentence.words), scheme), (note,) if widened else ())
        tags = scheme_tags(record, self.tags)
        wrong = self.tags.impossible(tags)
        if wrong is None:
            return Gold(tags)
        if not self.settings.repair:
            raise record.error(f"{wrong}; mend the tags, or say --tag.repair to begin a span there")
        return Gold(repaired(tags, scheme), (f"tags that {scheme} forbids were repaired",))

    def _unseen(self, records: Sequence[Record], gold: Sequence[Gold]) -> dict[str, str]:
        """What is told of each gold tag that training did not see: where it stands first, and which is like it."""
        told: dict[str, str] = {}
        for record, right in zip(records, gold, strict=True):
            for tag in dict.fromkeys(right.tags):
                if tag not in told and tag not in self.tags.names:
                    near = nearest(tag, self.tags.names)
                    hint = f"; did you mean {shown(near)}?" if near else ""
                    where = f"first at {record.path}:{record.line}" if record.line else f"first in {record.path}"
                    told[tag] = f"the tag {shown(tag)} ({where}) was not seen in training, and counts as an error{hint}"
        return told

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word, or of each sentence's sequence."""
        smoothing = self.settings.label_smoothing
        return {"tags": tag_loss(scores, batch, weights=self.weights, smoothing=smoothing)}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Tags, and the spans that they mark; words too, where the record has only a text."""
        sentence = sentence_in(answers)
        path, sure = best_tags(answers, None if self.settings.decode == "greedy" else self.tags.steps)
        tags = [self.tags.names[number] for number in path]
        prediction: dict[str, Any] = {"tags": tags}
        if "tokens" not in record.fields:
            prediction["words"] = sentence.words
        if self.tags.scheme == PLAIN:
            return prediction | {"scores": [round(float(p), 6) for p in sure]}
        found = [told_span(span, sentence, sure) for span in spans(tags, self.tags.scheme)]
        return {"spans": found} | prediction

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
                gold.append(self._gold(record, sentence_of(record, self.split)).tags)
                found.append(prediction["tags"])
        return gold, found

    def _on_characters(self, marks: Sequence[Mark], length: int) -> list[str]:
        return tags_of([Span(f"-{label}", start, end) for label, start, end in marks], length, self.tags.scheme)

    def to_dict(self) -> dict[str, Any]:
        """Tags, scheme, split, settings."""
        return {
            "tags": self.tags.names,
            "scheme": self.tags.scheme,
            "split": self.split,
            "weights": self.weights,
            "settings": settings_dict(self.settings),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TagTask:
        """The task that `to_dict` described."""
        tags = TagSet(saved["tags"], saved["scheme"])
        return cls(TagSettings(**saved["settings"]), tags, saved["split"], weights=saved.get("weights"))


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
