"""What tasks that tag words share: tag sets and their schemes, checks of gold tags, heads, loss and decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from bothways.batch import Batch, Example, Read
from bothways.data.messages import shown
from bothways.data.record import Record
from bothways.errors import DataError
from bothways.metrics.spans import SCHEMES, Span, scheme_of, spans
from bothways.nn.crf import CrfHead, log_likelihood
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head, TokenHead
from bothways.tasks.base import Answer
from bothways.tasks.labels import UNSEEN, learn_labels
from bothways.tasks.one_label import label_loss
from bothways.tasks.sentences import tags_in
from bothways.tasks.viterbi import FORBIDDEN, allowed, marginals, viterbi
from bothways.tasks.windows import Window

PLAIN = "plain"  # tags that are no parts of spans, such as parts of speech
_PREFIXED = re.compile(r"[BIOMESLU]-.")
R = TypeVar("R")
T = TypeVar("T")


class Steps(NamedTuple):
    """What one tag after another adds to a sequence's score, as `viterbi` takes it."""

    transitions: np.ndarray  # (C, C)
    start: np.ndarray  # (C,)
    end: np.ndarray  # (C,)


@dataclass(frozen=True)
class TagSet:
    """The tags that a model gives, and the scheme that says which may follow which.

    scheme: one of `metrics.spans.SCHEMES`, or `PLAIN`
    """

    names: list[str]
    scheme: str

    @cached_property
    def steps(self) -> Steps:
        """0 for what the scheme allows, `FORBIDDEN` for the rest."""
        count = len(self.names)
        if self.scheme == PLAIN:
            return Steps(np.zeros((count, count)), np.zeros(count), np.zeros(count))
        return Steps(*allowed(self.names, self.scheme))

    def impossible(self, tags: Sequence[str]) -> str | None:
        """The first thing that the scheme forbids in gold tags, in words; None if there is none.

        Unknown tags are passed over.
        """
        place = {name: number for number, name in enumerate(self.names)}
        numbers = [place.get(tag) for tag in tags]
        steps = self.steps
        for at, number in enumerate(numbers):
            if number is None:
                continue
            before = numbers[at - 1] if at else None
            if at == 0 and steps.start[number] == FORBIDDEN:
                return f"word 1 has the tag {tags[0]!r}, with which no {self.scheme} sequence begins"
            if before is not None and steps.transitions[before, number] == FORBIDDEN:
                return f"word {at + 1} has the tag {tags[at]!r} after {tags[at - 1]!r}, which {self.scheme} forbids"
        if numbers and numbers[-1] is not None and steps.end[numbers[-1]] == FORBIDDEN:
            return f"the last word has the tag {tags[-1]!r}, with which no {self.scheme} sequence ends"
        return None


def learn_tags(sentences: Iterable[tuple[Record, Sequence[str]]]) -> TagSet:
    """The tags of the training sentences and their scheme; each label's tags are made whole (I-PER beside B-PER).

    Raises:
        DataError: there is only one tag, letters of two schemes are mixed, or tags with a letter (B-PER) with
            others (PER).
    """
    first: dict[str, Record] = {}  # of each tag
    for record, tags in sentences:
        for tag in tags:
            first.setdefault(tag, record)
    if len(first) == 1:
        tag, record = next(iter(first.items()))
        raise record.error(f"here, as in all other records, every word has the tag {shown(tag)}; two tags are needed")
    tags = set(first) - {"O"}
    bare = bool(tags) and tags <= set("BIMESLU") and "B" in tags
    if not bare and not any(_PREFIXED.match(tag) for tag in tags):
        return TagSet(learn_labels(first), PLAIN)
    known: set[str] = set()
    for tag, record in first.items():
        if tag != "O" and not bare and not _PREFIXED.match(tag):
            other = next(tag for tag in tags if _PREFIXED.match(tag))
            raise record.error(
                f"the tag {shown(tag)} has no letter before it, but others do ({shown(other)}); "
                f"one kind is wanted: B-LABEL, I-LABEL and O, or plain tags only"
            )
        try:
            scheme_of([*known, tag])
        except DataError:
            seen = ", ".join(sorted({tag[0] for tag in known} - {"O"}))
            raise record.error(
                f"the tag {shown(tag)} is of another scheme than the tags before it, which begin with "
                f"{seen}; one scheme is wanted: {', '.join(SCHEMES)}"
            ) from None
        known.add(tag)
    scheme = scheme_of(tags)
    labels = {tag[1:] for tag in tags}
    return TagSet(learn_labels({"O"} | {letter + label for label in labels for letter in SCHEMES[scheme]}), scheme)


def learn_span_tags(records: Sequence[Record], tags: Sequence[Sequence[str]]) -> TagSet:
    """The tags of the training records and their scheme, where tags have to mark spans.

    Raises:
        DataError: as `learn_tags`; no tag marks a span.
    """
    learnt = learn_tags(zip(records, tags, strict=True))
    if learnt.scheme == PLAIN:
        where = f"{records[0].path}: " if records else ""
        found = ", ".join(map(shown, learnt.names[:5])) or "none"
        raise DataError(f"{where}no tag marks a span; B-LABEL, I-LABEL and O are wanted, found {found}")
    return learnt


def scheme_tags(record: Record, tags: TagSet) -> list[str]:
    """The record's "tags", each of the scheme; they may hold labels that training did not see.

    Raises:
        DataError: as `tags_in`; a tag with a letter of no or another scheme.
    """
    found = tags_in(record)
    if tags.scheme != PLAIN:
        try:
            spans(found, tags.scheme)
        except DataError as error:
            raise record.error(str(error)) from None
    return found


def gold_tags(record: Record, tags: TagSet) -> list[str]:
    """The record's "tags", in an order that the scheme allows.

    Raises:
        DataError: as `scheme_tags`; a sequence that the scheme forbids.
    """
    found = scheme_tags(record, tags)
    if wrong := tags.impossible(found):
        raise record.error(f"{wrong}; mend the tags")
    return found


def repaired(tags: Sequence[str], scheme: str) -> list[str]:
    """Tags that the scheme allows: a span begins at any tag but O that doesn't go on with the one before.

    Reference: conlleval's reading of chunks (Tjong Kim Sang & Buchholz, 2000).
    """
    found: list[Span] = []
    start, label, ended = -1, "", True
    for at, tag in enumerate([*tags, "O"]):
        letter = "O" if tag == "O" else SCHEMES[scheme][tag[:1]]
        goes_on = letter in ("I", "E") and not ended and tag[1:] == label
        if not goes_on:
            if start >= 0:
                found.append(Span(label, start, at))
            start = -1 if letter == "O" else at
        label, ended = tag[1:], letter in ("E", "S", "O")
    return tags_of(found, len(tags), scheme)


def tags_of(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Spans as tags of `length` words; a label is what follows the letter ("-PER"), as in a tag. The first one wins."""
    letters = {role: letter for letter, role in SCHEMES[scheme].items()}
    tags = ["O"] * length
    for label, start, end in spans:
        if any(tag != "O" for tag in tags[start:end]):
            continue
        tags[start:end] = [letters["I"] + label] * (end - start)
        tags[start] = letters["B"] + label
        if "E" in letters:
            tags[end - 1] = letters["E"] + label
            if end - start == 1:
                tags[start] = letters["S"] + label
    return tags


def read_all(records: Sequence[R], read: Callable[[R], T]) -> list[T]:
    """What `read` makes of each record; when some can't be used, the first is told, and how many more there are.

    Raises:
        DataError: `read`'s, with the count.
    """
    results: list[T] = []
    errors: list[DataError] = []
    for record in records:
        try:
            results.append(read(record))
        except DataError as error:
            errors.append(error)
    if not errors:
        return results
    first, more = errors[0], len(errors) - 1
    if not more:
        raise first
    told = DataError(f"{first}; {more:,} more of {len(records):,} records can't be used either")
    told.path, told.line = first.path, first.line
    raise told


# ------------------------------------------------------------------------------------------- heads and losses


def tag_heads(encoder: Encoder, labels: int, *, crf: bool, salt: int = 0) -> dict[str, Head]:
    """Head "tags", a linear layer on the words' first pieces; with `crf` also "crf", the weights of tags after tags."""
    config = encoder.config
    heads: dict[str, Head] = {
        "tags": TokenHead(
            config.hidden_size,
            labels,
            dropout=config.hidden_dropout_prob,
            initializer_range=config.initializer_range,
            salt=salt,
        )
    }
    return heads | {"crf": CrfHead(labels)} if crf else heads


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


# ------------------------------------------------------------------------------------------------- decoding


def best_tags(
    answers: Sequence[Answer], steps: Steps | None, extra: Float[np.ndarray, "words C"] | None = None
) -> tuple[Int[np.ndarray, " words"], Float[np.ndarray, " words"]]:
    """A record's best tags, its windows joined again, and how probable each of them is.

    A probability is the softmax of the word's scores; with a CRF it is the share of all sequences that the steps allow.

    Args:
        steps: what the scheme allows; None: each word's best tag, whatever stands beside it
        extra: added to the scores of each word's tags
    """
    scores = np.concatenate([answer.scores["tags"] for answer in answers]).astype(np.float64)
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


def softmax(scores: Float[np.ndarray, "t C"]) -> Float[np.ndarray, "t C"]:
    """Probabilities of each row."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
