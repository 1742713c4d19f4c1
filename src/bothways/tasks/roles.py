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
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Piece
from bothways.data.messages import shown
from bothways.data.record import WHOLE, Record, require
from bothways.errors import ConfigError
from bothways.metrics import spans as metrics
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer, Encoded, Task, settings_dict
from bothways.tasks.labels import UNSEEN, UNSEEN_NOTE, labels_config, numbered
from bothways.tasks.sentences import Sentence, Split, sentence_in, sentence_of, split_of, tags_in, told_span
from bothways.tasks.tagging import (
    TagSet,
    best_tags,
    gold_tags,
    learn_span_tags,
    read_all,
    tag_examples,
    tag_heads,
    tag_loss,
)
from bothways.tasks.windows import Window, word_windows
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class RolesSettings:
    """How arguments are found."""

    decode: Literal["viterbi", "greedy"] = "viterbi"
    """viterbi: the best sequence of tags that the scheme allows; greedy: each word's best tag"""
    split: Literal["auto", "words", "characters", "chinese"] = "auto"
    """what raw text is parted into (chinese: jieba's words); auto: what the training set has"""
    stride: int = 64
    """tokens that the windows of a sentence longer than the model share; at most half a window"""

    def __post_init__(self) -> None:
        if self.stride < 0:
            raise ConfigError(f"roles.stride is {self.stride}; it must be at least 0")


class RolesTask(Task):
    """One head, "tags", that reads each word's first piece."""

    name = "roles"
    criterion = "f1"
    Settings = RolesSettings

    def __init__(self, settings: RolesSettings, tags: TagSet, split: Split) -> None:
        self.settings, self.tags = settings, tags
        self.split: Split = split

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
        tags = learn_span_tags(records, read_all(records, tags_in))
        read_all(records, lambda record: gold_tags(record, tags))
        split: Split = split_of(records) if settings.split == "auto" else settings.split
        read_all(records, lambda record: _predicate(record, sentence_of(record, split)))
        return cls(settings, tags, split)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece."""
        return tag_heads(encoder, len(self.tags.names), crf=False)

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] words [SEP] predicate [SEP], in as many windows as the words need; the predicate is in each."""
        sentences = read_all(records, lambda record: sentence_of(record, self.split))
        predicates = read_all(list(zip(records, sentences, strict=True)), lambda both: _predicate(*both))
        gold: list[np.ndarray | None] = [None] * len(records)
        if labelled:
            gold = read_all(records, lambda record: numbered(gold_tags(record, self.tags), self.tags.names))
        texts = tokenizer.encode_words([sentence.words for sentence in sentences])
        encoded = []
        for number, (sentence, predicate, text, tags) in enumerate(
            zip(sentences, predicates, texts, gold, strict=True)
        ):
            # A predicate of so many pieces that hardly a word would stand beside it keeps its first ones.
            word = text.ids[text.words == predicate][: max_length // 4]
            windows, coverage = word_windows(
                text,
                tokenizer,
                record=first + number,
                max_length=max_length - len(word) - 1,
                stride=self.settings.stride,
                extra=sentence,
            )
            windows = [_with_predicate(window, text, predicate, word, tokenizer) for window in windows]
            unseen = tags is not None and UNSEEN in tags
            encoded.append(Encoded(tag_examples(windows, tags, crf=False), coverage, (UNSEEN_NOTE,) if unseen else ()))
        return encoded

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word."""
        return {"tags": tag_loss(scores, batch)}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Arguments; words too, where the record has only a text."""
        sentence = sentence_in(answers)
        path, sure = best_tags(answers, None if self.settings.decode == "greedy" else self.tags.steps)
        tags = [self.tags.names[number] for number in path]
        found = [span for span in metrics.spans(tags, self.tags.scheme) if span.label not in ("V", "C-V")]
        prediction: dict[str, Any] = {
            "predicate": _predicate(record, sentence),
            "arguments": [told_span(span, sentence, sure) for span in found],
            "tags": tags,
        }
        return prediction if "tokens" in record.fields else prediction | {"words": sentence.words}

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """As srl-eval.pl counts; what training did not see can't be right."""
        gold = [gold_tags(record, self.tags) for record in records]
        return metrics.roles(gold, [prediction["tags"] for prediction in predictions], scheme=self.tags.scheme)

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Arguments right, predicted and gold."""
        gold = [gold_tags(record, self.tags) for record in records]
        found = [prediction["tags"] for prediction in predictions]
        return {"f1": np.array(metrics.role_counts(gold, found, scheme=self.tags.scheme))}

    def to_dict(self) -> dict[str, Any]:
        """Tags, scheme, split, settings."""
        return {
            "tags": self.tags.names,
            "scheme": self.tags.scheme,
            "split": self.split,
            "settings": settings_dict(self.settings),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> RolesTask:
        """The task that `to_dict` described."""
        return cls(RolesSettings(**saved["settings"]), TagSet(saved["tags"], saved["scheme"]), saved["split"])


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
