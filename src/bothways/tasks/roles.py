"""Roles: who did what to whom, the arguments of one predicate in a sentence.

record      {"tokens": ["Ada", "wrote", "it"], "predicate": 1, "tags": ["B-ARG0", "B-V", "B-ARG1"]}; the predicate by
            its place among the words (from 0), or by the word itself where it stands once; to predict, tokens or a text
prediction  {"predicate": 1, "arguments": [{"label": "ARG0", "words": ["Ada"], …}], "tags": […], "tokens": {"kept": 4}};
            of a text, arguments with its offsets, and its words
metric      F1 of arguments as srl-eval.pl counts it: V is not scored, C-X belongs to its X
reference   Shi & Lin, 2019, "Simple BERT Models for Relation Extraction and Semantic Role Labeling": [CLS] sentence
            [SEP] predicate [SEP]. Its place is told by the second segment's id, as in AllenNLP's SrlBert; the word
            alone would not say which of two is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bothways.batch import Piece
from bothways.data.messages import shown
from bothways.data.record import WHOLE, Record, read_all, require
from bothways.metrics import spans as metrics
from bothways.tasks.base import Answer, Coverage
from bothways.tasks.labels import labels_config
from bothways.tasks.sentences import Sentence
from bothways.tasks.sequences import room_for
from bothways.tasks.tag_sets import gold_tags, learn_span_tags
from bothways.tasks.tagging import WordSettings, WordTask
from bothways.tasks.windows import Window
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class RolesSettings(WordSettings):
    """How arguments are found."""

    task = "roles"


class RolesTask(WordTask):
    """One head, "tags", that reads each word's first piece."""

    name = "roles"
    criterion = "f1"
    Settings = RolesSettings
    segments = 2

    @property
    def architecture(self) -> str:
        """A tagger that reads two segments."""
        return "BertForTokenClassification"

    def config_entries(self) -> dict[str, Any]:
        """The tags by number."""
        return labels_config(self.tags.names)

    @classmethod
    def learn(cls, records: Sequence[Record], settings: RolesSettings) -> RolesTask:
        """Tags, their scheme, and how the training set parts text into words."""
        task = cls(settings, learn_span_tags(records), settings.split_for(records))
        read_all(records, task.sentence)
        return task

    def sentence(self, record: Record) -> Sentence:
        """The record's words, among which its predicate is found."""
        sentence = super().sentence(record)
        _predicate(record, sentence)
        return sentence

    def windows(
        self, record: Record, sentence: Sentence, text: Text, tokenizer: Tokenizer, *, number: int, max_length: int
    ) -> tuple[list[Window], Coverage]:
        """[CLS] words [SEP] predicate [SEP]: the predicate is in each window.

        Raises:
            ConfigError: `max_length` leaves no room for both.
        """
        predicate = _predicate(record, sentence)
        room_for(max_length, texts=2)
        # A predicate of so many pieces that hardly a word would stand beside it keeps its first ones.
        word = text.ids[text.words == predicate][: max_length // 4]
        room = max_length - len(word) - 1
        windows, coverage = super().windows(record, sentence, text, tokenizer, number=number, max_length=room)
        return [_with_predicate(window, text, predicate, word, tokenizer) for window in windows], coverage

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Arguments; words too, where the record has only a text."""
        found = self.tagged(answers)
        spans = [span for span in metrics.spans(found.tags, self.tags.scheme) if span.label not in ("V", "C-V")]
        predicate = _predicate(record, found.sentence)
        return {"predicate": predicate, "arguments": found.spans(spans)} | found.told(record)

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As srl-eval.pl counts; what training did not see can't be right."""
        gold = [gold_tags(record, self.tags) for record in records]
        return metrics.roles(gold, [prediction["tags"] for prediction in predictions], scheme=self.tags.scheme)

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Arguments right, predicted and gold."""
        gold = [gold_tags(record, self.tags) for record in records]
        found = [prediction["tags"] for prediction in predictions]
        return {"f1": np.array(metrics.role_counts(gold, found, scheme=self.tags.scheme))}


def _with_predicate(window: Window, text: Text, predicate: int, word: np.ndarray, tokenizer: Tokenizer) -> Window:
    """The window with the predicate behind it; its pieces, here and in the sentence, are in the second segment."""
    piece = window.piece
    ids = np.concatenate([piece.input_ids, word, [tokenizer.sep_id]])
    segments = np.repeat([0, 1], [len(piece.input_ids), len(word) + 1])
    start = int(np.searchsorted(text.words, window.words.start) - window.rows[0]) + 1  # of the window, in the text
    inside = text.words[start : start + len(piece.input_ids) - 2] == predicate
    segments[1 : 1 + len(inside)] = inside
    return replace(window, piece=Piece(ids, segments, piece.origin))


def _predicate(record: Record, sentence: Sentence) -> int:
    """The place of the predicate among the words.

    Raises:
        DataError: no such place, or a word that the sentence doesn't have just once.
    """
    given = require(record, "predicate", int, str)
    if isinstance(given, str):
        count = sentence.words.count(given)
        if count == 1:
            return sentence.words.index(given)
        if count or not WHOLE.fullmatch(given.strip()):
            raise record.error(
                f"the predicate {shown(given)} stands {count} times among the words; "
                f"wanted once, or its place among them (from 0)"
            )
        given = int(given)
    if not 0 <= given < len(sentence.words):
        raise record.error(
            f"the predicate is word {given}, but the {len(sentence.words)} words are counted from 0: "
            f"0 to {len(sentence.words) - 1}"
        )
    return given
