"""Segmentation: Chinese text parted into words, by a tag for each character (begin, middle, end, single).

record      {"words": ["他", "喜欢", "看", "电影"]}; to predict, {"text": "他喜欢看电影"}
prediction  {"words": ["他", "喜欢", …], "spans": [[0, 1], [1, 3], …], "tokens": {"kept": 6}}
metric      word F1 by spans, and as the SIGHAN-2005 scorer counts; recall of words that training did not see
reference   Xue, 2003, Chinese Word Segmentation as Character Tagging
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bothways.batch import Batch
from bothways.data.record import Record, read_all, require
from bothways.errors import ConfigError
from bothways.metrics.segmentation import segmentation, segmentation_counts
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.tasks.base import Answer, Encoded, Task, settings_dict
from bothways.tasks.dictionary import Dictionary, read_dictionary
from bothways.tasks.labels import labels_config
from bothways.tasks.one_label import check_smoothing
from bothways.tasks.tag_sets import TagSet
from bothways.tasks.tagging import best_tags, tag_examples, tag_heads, tag_loss
from bothways.tasks.units import Offsets, split
from bothways.tasks.viterbi import FORBIDDEN
from bothways.tasks.windows import unit_ends, word_windows
from bothways.text.tokenizer import Tokenizer

TAGS = TagSet(["B", "M", "E", "S"], "BMES")
_BEGIN, _MIDDLE, _END, _SINGLE = range(4)
_TAG = np.array([[_MIDDLE, _END], [_BEGIN, _SINGLE]])  # by whether a unit begins a word, and whether it ends one
_LOST = "a word boundary inside a run of letters or digits (or white space inside a word) can't be learnt"
MOST_BYTES = 3 << 20  # of training words in a saved model's JSON, of which 8 MiB are read: there may be two lists
_HALF_WIDTH = {full: full - 0xFEE0 for full in range(0xFF01, 0xFF5F)}


@dataclass(frozen=True)
class SegmentSettings:
    """How text is parted into words."""

    fold_width: bool = True
    """show the model full-width letters, digits and signs as half-width ones; offsets are those of the text as it is"""
    crf: bool = False
    """learn how likely each tag follows each other (a conditional random field)"""
    stride: int = 64
    """tokens that the windows of a sentence longer than the model share; at most half a window"""
    label_smoothing: float = 0.0
    """share of the target spread over all tags"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if self.stride < 0:
            raise ConfigError(f"segment.stride is {self.stride}; it must be at least 0")
        if self.crf and self.label_smoothing:
            raise ConfigError(
                "segment.crf scores whole sequences, segment.label_smoothing is of single tags; leave one of them out"
            )


class SegmentTask(Task):
    """One head, "tags", that reads each unit's first piece; with a CRF also "crf", which reads nothing.

    A unit is a character, or a run of letters or of digits: no word begins or ends inside one.
    """

    name = "segment"
    criterion = "f1"
    Settings = SegmentSettings

    def __init__(self, settings: SegmentSettings, training_words: Iterable[str]) -> None:
        self.settings, self.training_words = settings, frozenset(training_words)
        self.dictionary = Dictionary(())
        self.bonus: float | None = None

    @property
    def architecture(self) -> str:
        """A CRF's weights stand beside those of this class, which passes over them."""
        return "BertForTokenClassification"

    def config_entries(self) -> dict[str, Any]:
        """The tags by number."""
        return labels_config(TAGS.names)

    @classmethod
    def learn(cls, records: Sequence[Record], settings: SegmentSettings) -> SegmentTask:
        """The training words, by which words of a test set are told to be seen or not."""
        task = cls(settings, {word for words in read_all(records, _words) for word in _solid(words)})
        if task.training_words and not _listed(task.training_words):
            count = f"the {len(task.training_words):,} training words"
            task.told = (f"{count} are too many to be saved: the saved model can't tell recall by vocabulary",)
        return task

    def with_options(self, **options: Any) -> SegmentTask:
        """The same task that keeps the words of a user's dictionary whole.

        Words are looked for from left to right, the longest first, and found where whole units match them, full-width
        or half-width.

        Args:
            dictionary: the words, or a file of them, one a line
            bonus: added to the scores of a found word's tags; without it, it is kept whole whatever they are

        Raises:
            DataError: the file is missing or empty.
            ConfigError: another option, or a bonus that is not a number.
        """
        if unknown := sorted(set(options) - {"dictionary", "bonus"}):
            raise ConfigError(f"unknown option segment.{unknown[0]}; known are segment.dictionary and segment.bonus")
        given, bonus = options.get("dictionary") or (), options.get("bonus")
        task = SegmentTask(self.settings, self.training_words)
        words = read_dictionary(given) if isinstance(given, str | Path) else given
        task.dictionary = Dictionary(self.shown(word) for word in words)
        try:
            task.bonus = None if bonus is None else float(bonus)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"segment.bonus is {bonus!r}; wanted a number") from None
        return task

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each unit's first piece; with a CRF, its weights."""
        return tag_heads(encoder, len(TAGS.names), crf=self.settings.crf)

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] units [SEP]; a long text in windows that end where sentences do, as far as they can."""
        texts = read_all(records, (lambda record: "".join(_words(record))) if labelled else _text)
        shown = [self.shown(text) for text in texts]
        parted = [split(text, "runs") for text in shown]
        pieces = tokenizer.encode_words(
            [[text[start:end] for start, end in offsets] for text, offsets in zip(shown, parted, strict=True)]
        )
        encoded = []
        for number, (record, text, offsets) in enumerate(zip(records, texts, parted, strict=True)):
            windows, coverage = word_windows(
                pieces[number],
                tokenizer,
                record=first + number,
                max_length=max_length,
                stride=self.settings.stride,
                ends=unit_ends(text, offsets) if len(pieces[number].ids) > max_length - 2 else (),
                extra=offsets,
            )
            labels, lost = _labels(_words(record), offsets) if labelled else (None, 0)
            examples = tag_examples(windows, labels, crf=self.settings.crf)
            encoded.append(Encoded(examples, coverage, (_LOST,) if lost else ()))
        return encoded

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each unit, or of each text's sequence."""
        return {"tags": tag_loss(scores, batch, smoothing=self.settings.label_smoothing)}

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """Words and their offsets; white space stands in no word, unless the user's dictionary has it so."""
        text = _text(record)
        origin = answers[0].example.pieces[0].origin
        assert origin is not None
        offsets: Offsets = origin.extra
        words = self.joined(self.shown(text), offsets, answers)
        spans = [[offsets[first][0], offsets[last - 1][1]] for first, last in words]
        return {"words": [text[start:end] for start, end in spans], "spans": spans}

    def joined(self, shown: str, offsets: Offsets, answers: Sequence[Answer]) -> list[tuple[int, int]]:
        """The first and last (exclusive) unit of each word that the answers find; `offsets` are the units'."""
        path, _ = best_tags(answers, TAGS.steps, self._extra(shown, offsets))
        begins = np.flatnonzero((path == _BEGIN) | (path == _SINGLE)).tolist()
        return list(pairwise([*begins, len(offsets)]))

    def _extra(self, shown: str, offsets: Offsets) -> Float[np.ndarray, "units 4"]:
        """What is added to the scores: words end at white space, and words of the dictionary stay whole."""
        extra = np.zeros((len(offsets), 4))
        extra[_gaps(offsets)[:, None] - 1, [_BEGIN, _MIDDLE]] = FORBIDDEN
        for first, last in self.dictionary.matches(shown, offsets):
            units = np.arange(first, last)
            whole = _TAG[(units == first).astype(int), (units == last - 1).astype(int)]
            if self.bonus is None:
                extra[units] = FORBIDDEN
                extra[units, whole] = 0.0
            else:
                extra[units, whole] += self.bonus
        return extra

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Scores of words, white space aside; without training words (none were saved) no recall by vocabulary."""
        return segmentation(
            [_solid(_words(record)) for record in records],
            [_solid(prediction["words"]) for prediction in predictions],
            training_words=self.training_words or None,
        )

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Words right, predicted and gold."""
        gold = [_solid(_words(record)) for record in records]
        return {"f1": np.array(segmentation_counts(gold, [_solid(one["words"]) for one in predictions]))}

    def shown(self, text: str) -> str:
        """The text as the model sees it, character for character."""
        return text.translate(_HALF_WIDTH) if self.settings.fold_width else text

    def to_dict(self) -> dict[str, Any]:
        """Settings, and the training words in one string, a word a line; none if they are too many."""
        return {"settings": settings_dict(self.settings), "training_words": _listed(self.training_words)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SegmentTask:
        """The task that `to_dict` described."""
        return cls(SegmentSettings(**saved["settings"]), saved.get("training_words", "").split())


def _listed(words: Iterable[str]) -> str:
    """The words, one a line; "" if they take more than `MOST_BYTES`."""
    lines = "\n".join(sorted(words))
    size = len(json.dumps(lines, ensure_ascii=False).encode(errors="backslashreplace"))
    return lines if size <= MOST_BYTES else ""


def _words(record: Record) -> list[str]:
    """The record's words: told by name, or of tokens (characters) with tags of BMES, BIES or BI.

    Raises:
        DataError: there are none, or an empty one, or tags that begin and end no words.
    """
    if "words" not in record.fields and {"tokens", "tags"} <= record.fields.keys():
        return _joined(record)
    words = require(record, "words", list[str])
    _check_solid(record, words, "word")
    return words


def _joined(record: Record) -> list[str]:
    """Words of tokens, each of which has a tag that says where in its word it stands: B-, M or I, E, S."""
    tokens, tags = require(record, "tokens", list[str]), require(record, "tags", list[str])
    if len(tokens) != len(tags):
        raise record.error(f"there are {len(tokens)} tokens and {len(tags)} tags; wanted one for each")
    _check_solid(record, tokens, "token")
    words: list[str] = []
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
        place = tag.partition("-")[0].upper()
        if place not in ("B", "M", "I", "E", "S"):
            raise record.error(f'tag {number} is {tag!r}; wanted B, M (or I), E and S, or "words" instead')
        if place in ("B", "S") or not words:
            words.append(token)
        else:
            words[-1] += token
    return words


def _check_solid(record: Record, items: Sequence[str], name: str) -> None:
    if not any(map(str.strip, items)):
        raise record.error(f'"{name}s" holds no {name}; leave the record out')
    if "" in items:
        raise record.error(f'{name} {items.index("") + 1} of "{name}s" is empty; leave it out')


def _text(record: Record) -> str:
    """The record's text, which may be that of its words."""
    has_words = "words" in record.fields or {"tokens", "tags"} <= record.fields.keys()
    text = "".join(_words(record)) if has_words else require(record, "text", str)
    if not text.strip():
        raise record.error("the text is empty (nothing but white space); leave the record out")
    return text


def _solid(words: Iterable[str]) -> list[str]:
    """Words without white space; one of nothing else is none."""
    return [solid for word in words if (solid := "".join(word.split()))]


def _labels(words: Sequence[str], offsets: Offsets) -> tuple[np.ndarray, int]:
    """The number of each unit's tag, and how many word boundaries the units can't show or must have besides."""
    word_of = np.repeat(np.arange(len(words)), [len(word) for word in words])
    first, last = word_of[[start for start, _ in offsets]], word_of[[end - 1 for _, end in offsets]]
    begins = np.append(True, first[1:] != last[:-1])
    gaps = _gaps(offsets)
    lost = int((last - first).sum()) + int((~begins[gaps]).sum())
    begins[gaps] = True
    ends = np.append(begins[1:], True)
    return _TAG[begins.astype(int), ends.astype(int)], lost


def _gaps(offsets: Offsets) -> np.ndarray:
    """The units before which there is white space."""
    bounds = np.array(offsets)
    return np.flatnonzero(bounds[1:, 0] > bounds[:-1, 1]) + 1
