"""What tasks that tag words share: their settings, how words are read in windows, heads, loss and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bothways.batch import Batch, Example, Read
from bothways.data.record import Record, read_all
from bothways.errors import ConfigError
from bothways.metrics.spans import Span
from bothways.nn.crf import CrfHead, log_likelihood
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, TokenHead
from bothways.tasks.base import Answer, Coverage, Encoded, Task, settings_dict
from bothways.tasks.labels import UNSEEN, numbered, unseen_notes
from bothways.tasks.one_label import check_smoothing, label_loss, softmax
from bothways.tasks.sentences import Sentence, Split, sentence_in, sentence_of, split_of, told_span
from bothways.tasks.tag_sets import TagSet, gold_tags
from bothways.tasks.viterbi import Steps, marginals, viterbi
from bothways.tasks.windows import Window, word_windows
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class WordSettings:
    """What can be set wherever words are tagged."""

    task: ClassVar[str]

    decode: Literal["viterbi", "greedy"] = "viterbi"
    """viterbi: the best sequence of tags that the scheme allows; greedy: each word's best tag"""
    split: Literal["auto", "words", "characters", "chinese"] = "auto"
    """what raw text is parted into (chinese: jieba's words); auto: what the training set has"""
    stride: int = 64
    """tokens that the windows of a text longer than the model share; at most half a window"""
    label_smoothing: float = 0.0
    """share of the target spread over all labels"""

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        if self.stride < 0:
            raise ConfigError(f"{self.task}.stride is {self.stride}; it must be at least 0")

    def split_for(self, records: Sequence[Record]) -> Split:
        """How raw text is parted: as it is said here, or as these training records have it."""
        return split_of(records) if self.split == "auto" else self.split


class Names(NamedTuple):
    """The labels that a head gives, in their order, and what one of them is called: a "tag"."""

    what: str
    known: Sequence[str]


class Gold(NamedTuple):
    """What is right of one record.

    labels: the numbers of the right answers, by head
    notes:  what the log should tell
    """

    labels: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


class Tagged(NamedTuple):
    """The words of a record and their predicted tags, with how probable each of these is."""

    sentence: Sentence
    tags: list[str]
    sure: np.ndarray

    def told(self, record: Record) -> dict[str, Any]:
        """The tags, and where the record has only a text the words that they belong to."""
        words = {} if "tokens" in record.fields else {"words": self.sentence.words}
        return {"tags": self.tags} | words

    def spans(self, found: Sequence[Span]) -> list[dict[str, Any]]:
        """Spans of the words as predictions show them."""
        return [told_span(span, self.sentence, self.sure) for span in found]


class WordTask(Task):
    """A task with a head that tags words; it knows the tags, and how raw text is parted into words."""

    head: ClassVar[str] = "tags"

    def __init__(self, settings: Any, tags: TagSet, split: Split) -> None:
        self.settings, self.tags = settings, tags
        self.split: Split = split

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """A linear layer on each word's first piece."""
        return {self.head: tag_head(encoder, len(self.tags.names))}

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] words [SEP], in as many windows as the words need."""
        sentences = read_all(records, self.sentence)
        gold = self.gold(records, sentences) if labelled else [Gold({})] * len(records)
        texts = tokenizer.encode_words([sentence.words for sentence in sentences])
        encoded = []
        for number, (record, sentence, text, right) in enumerate(
            zip(records, sentences, texts, gold, strict=True), first
        ):
            windows, coverage = self.windows(record, sentence, text, tokenizer, number=number, max_length=max_length)
            encoded.append(Encoded(self.examples(windows, right.labels), coverage, right.notes))
        return encoded

    def sentence(self, record: Record) -> Sentence:
        """The record's words.

        Raises:
            DataError: there are none.
        """
        return sentence_of(record, self.split)

    def gold(self, records: Sequence[Record], sentences: Sequence[Sentence]) -> list[Gold]:
        """What is right of each record; of a label that training did not see it is told where it stands first.

        Raises:
            DataError: a record without it.
        """
        found, names = read_all(records, self.right), self.names
        notes: list[tuple[str, ...]] = [()] * len(records)
        for head, (what, known) in names.items():
            new = unseen_notes(what, records, [right[head] for right in found], known)
            notes = [before + after for before, after in zip(notes, new, strict=True)]
        return [
            Gold({head: numbered(labels, names[head].known) for head, labels in right.items()}, told)
            for right, told in zip(found, notes, strict=True)
        ]

    @property
    def names(self) -> dict[str, Names]:
        """The labels of each head."""
        return {self.head: Names("tag", self.tags.names)}

    def right(self, record: Record) -> dict[str, list[str]]:
        """The right labels, by head: of the tags, one a word."""
        return {self.head: gold_tags(record, self.tags)}

    def windows(
        self, record: Record, sentence: Sentence, text: Text, tokenizer: Tokenizer, *, number: int, max_length: int
    ) -> tuple[list[Window], Coverage]:
        """The sequences that one record's words become."""
        return word_windows(
            text, tokenizer, record=number, max_length=max_length, stride=self.settings.stride, extra=sentence
        )

    def examples(self, windows: list[Window], labels: dict[str, np.ndarray]) -> list[Example]:
        """The windows of one record as examples; no labels when predicting."""
        return tag_examples(windows, labels.get("tags"), crf=False)

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each word."""
        return {"tags": tag_loss(scores, batch, smoothing=self.settings.label_smoothing)}

    def tagged(self, answers: Sequence[Answer]) -> Tagged:
        """The tags that the answers to one record give its words."""
        steps = None if self.settings.decode == "greedy" else self.tags.steps
        path, sure = best_tags(answers, steps, head=self.head)
        return Tagged(sentence_in(answers), [self.tags.names[number] for number in path], sure)

    def to_dict(self) -> dict[str, Any]:
        """Tags, scheme, split, settings."""
        return {
            "tags": self.tags.names,
            "scheme": self.tags.scheme,
            "split": self.split,
            "settings": settings_dict(self.settings),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WordTask:
        """The task that `to_dict` described."""
        return cls.restored(saved)

    @classmethod
    def restored(cls, saved: dict[str, Any], **more: Any) -> WordTask:
        """The task with what is saved of all taggers, and `more` that is its own."""
        return cls(cls.Settings(**saved["settings"]), TagSet(saved["tags"], saved["scheme"]), saved["split"], **more)


def tag_heads(encoder: Encoder, labels: int, *, crf: bool) -> dict[str, Head]:
    """Head "tags"; with `crf` also "crf", the weights of tags after tags."""
    heads: dict[str, Head] = {"tags": tag_head(encoder, labels)}
    return heads | {"crf": CrfHead(labels)} if crf else heads


def tag_head(encoder: Encoder, labels: int) -> TokenHead:
    """A linear layer on the words' first pieces."""
    config = encoder.config
    return TokenHead(
        config.hidden_size, labels, dropout=config.hidden_dropout_prob, initializer_range=config.initializer_range
    )


def tag_examples(
    windows: Sequence[Window], labels: np.ndarray | None, *, crf: bool, weights: Sequence[float] | None = None
) -> list[Example]:
    """One example a window; to train with `crf`, one for all of them, because a sentence's tags are scored together.

    Args:
        labels: (words,) the number of each word's gold tag; None when predicting
        weights: of each tag in the loss
    """
    if crf and labels is not None:
        return [_example(windows, labels, crf=True)]
    if labels is None:
        return [_example([window], None, crf=crf) for window in windows]
    return [_example([window], labels[window.words], weights=weights) for window in windows]


def _example(
    windows: Sequence[Window],
    labels: np.ndarray | None,
    *,
    crf: bool = False,
    weights: Sequence[float] | None = None,
) -> Example:
    reads = {"tags": read_words(windows, labels, weights)}
    if crf:
        reads["crf"] = Read(rows=np.zeros(0, dtype=np.int64), groups=np.zeros(1, dtype=np.int64))
    return Example(tuple(window.piece for window in windows), reads)


def read_words(windows: Sequence[Window], labels: np.ndarray | None, weights: Sequence[float] | None = None) -> Read:
    """The first piece of each word that the windows answer for, decided together; unseen tags weigh nothing."""
    lengths = [len(window.piece.input_ids) for window in windows]
    rows = np.concatenate(
        [window.rows + before for window, before in zip(windows, np.cumsum([0, *lengths[:-1]]), strict=True)]
    )
    weight = 0.0
    if labels is not None:
        seen = labels[labels != UNSEEN]
        weight = float(len(seen) if weights is None else sum(weights[label] for label in seen))
    return Read(rows=rows, groups=np.array([len(rows)]), labels=labels, weight=weight)


def tag_loss(
    scores: dict[str, Tensor], batch: Batch, *, weights: Sequence[float] | None = None, smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy of each word's tag, summed; where there is a head "crf", that of each sentence's sequence."""
    target = batch.targets["tags"]
    assert target.labels is not None
    if "crf" in scores:
        return -log_likelihood(scores["tags"].float(), target.labels, target.groups, scores["crf"][0].float())
    return label_loss(scores["tags"], target.labels, weights=weights, smoothing=smoothing)


def best_tags(
    answers: Sequence[Answer],
    steps: Steps | None,
    extra: Float[np.ndarray, "words C"] | None = None,
    *,
    head: str = "tags",
) -> tuple[Int[np.ndarray, " words"], Float[np.ndarray, " words"]]:
    """A record's best tags, its windows joined again, and how probable each of them is.

    A probability is the softmax of the word's scores; with a CRF it is the share of all sequences that the steps allow.

    Args:
        steps: what the scheme allows; None: each word's best tag, whatever stands beside it
        extra: added to the scores of each word's tags
        head: whose scores these are
    """
    scores = np.concatenate([answer.scores[head] for answer in answers]).astype(np.float64)
    if extra is not None:
        scores += extra
    if steps is None:
        path, probabilities = scores.argmax(axis=1), softmax(scores)
    elif "crf" in answers[0].scores:
        weights = answers[0].scores["crf"][0].astype(np.float64)
        steps = Steps(steps.transitions + weights[:-2], steps.start + weights[-2], steps.end + weights[-1])
        path, probabilities = viterbi(scores, *steps), marginals(scores, *steps)
    else:
        path, probabilities = viterbi(scores, *steps), softmax(scores)
    return path, probabilities[np.arange(len(path)), path]
