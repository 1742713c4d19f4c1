"""The words of a record that is to be tagged, where they stand in its text, and the spans marked in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from bothways.data.messages import kind_of, shown
from bothways.data.record import Record, require
from bothways.metrics.spans import Span
from bothways.tasks.base import Answer
from bothways.tasks.units import Offsets, place, split
from bothways.text.characters import HAN

Split = Literal["words", "characters", "chinese"]
_HAN = re.compile(f"[{HAN}]")


class Sentence(NamedTuple):
    """The words of a record; `text` and `offsets` are None for a list of words whose raw text isn't known."""

    words: list[str]
    text: str | None
    offsets: Offsets | None


class Mark(NamedTuple):
    """A labelled part of a raw text."""

    label: str
    start: int
    end: int


def sentence_of(record: Record, how: Split) -> Sentence:
    """The record's "tokens", placed in its "text" if it has one, else its "text" parted into words.

    A list of characters (`how`) is its own text. A text that is not the words with white space between is ignored.

    Raises:
        DataError: neither field, nothing in it, or an empty word.
        ConfigError: jieba's words are wanted, and rjieba is not installed.
    """
    if "tokens" not in record.fields:
        text = require(record, "text", str)
        offsets = split(text, how)
        if not offsets:
            raise record.error("the text is empty (nothing but white space); leave the record out")
        return Sentence([text[start:end] for start, end in offsets], text, offsets)
    words = require(record, "tokens", list[str])
    if not words:
        raise record.error('"tokens" is an empty list; leave the record out')
    if "" in words:
        raise record.error(f'word {words.index("") + 1} of "tokens" is empty; leave it and its tag out')
    text = record.fields.get("text")
    if not isinstance(text, str):
        text = "".join(words) if how == "characters" else None
    offsets = None if text is None else place(words, text)
    return Sentence(words, None if offsets is None else text, offsets)


def sentence_in(answers: Sequence[Answer]) -> Sentence:
    """What `encode` left in the origin of the record's first window."""
    origin = answers[0].example.pieces[0].origin
    assert origin is not None
    return origin.extra


def tags_in(record: Record) -> list[str]:
    """The record's "tags", one for each of its "tokens".

    Raises:
        DataError: one of them is missing, a tag is empty, or their numbers differ.
    """
    words, tags = require(record, "tokens", list[str]), require(record, "tags", list[str])
    if len(words) != len(tags):
        raise record.error(f'"tokens" has {len(words)} words, but "tags" has {len(tags)}; wanted one tag for each word')
    if "" in tags:
        raise record.error(f"tag {tags.index('') + 1} is empty; wanted O where there is none")
    return tags


def marks_in(record: Record) -> list[Mark]:
    """The record's "spans", in order.

    Raises:
        DataError: a span that is not an object of start, end and label, that is empty or out of the text, whose own
            "text" is not what stands there, or that overlaps with another.
    """
    text = require(record, "text", str)
    marks = sorted(
        (_mark(record, text, number, given) for number, given in enumerate(require(record, "spans", list), 1)),
        key=lambda mark: (mark.start, mark.end),
    )
    for before, after in pairwise(marks):
        if after.start < before.end:
            raise record.error(
                f"the spans {shown(text[before.start : before.end])} ({before.start} to {before.end}) and "
                f"{shown(text[after.start : after.end])} ({after.start} to {after.end}) overlap; "
                "a character may stand in one span only"
            )
    return marks


def _mark(record: Record, text: str, number: int, given: Any) -> Mark:
    if not isinstance(given, dict):
        raise record.error(f"span {number} is {kind_of(given)}, wanted an object with start, end and label")
    inner = Record(given, record.path, record.line, f"{record.place} span {number}".strip())
    start, end, label = require(inner, "start", int), require(inner, "end", int), require(inner, "label", str)
    if not label:
        raise inner.error("the label is empty")
    if not 0 <= start < end <= len(text):
        raise inner.error(
            f"start is {start} and end is {end}; wanted 0 <= start < end <= {len(text)}, the text's length"
        )
    found = text[start:end]
    if not found.strip():
        raise inner.error(f"from {start} to {end} there is nothing but white space")
    if isinstance(said := given.get("text"), str) and said != found:
        places = [match.start() for match in re.finditer(re.escape(said), text)]
        nearest = min(places, key=lambda at: abs(at - start), default=None)
        hint = "it isn't in the text" if nearest is None else f"it stands at {nearest}"
        raise inner.error(f"from {start} to {end} stands {shown(found)}, not {shown(said)}; {hint}")
    # White space at an edge belongs to no word, and a prediction has none there.
    return Mark(label, end - len(found.lstrip()), start + len(found.rstrip()))


def word_spans(marks: Iterable[Mark], offsets: Offsets) -> tuple[list[Span], int]:
    """Marks as spans of whole words, their labels as in a tag ("-PER"), and how many of them had to be widened."""
    spans, widened = [], 0
    first = 0
    for mark in marks:
        while offsets[first][1] <= mark.start:
            first += 1
        last = first
        while last + 1 < len(offsets) and offsets[last + 1][0] < mark.end:
            last += 1
        widened += mark.start > offsets[first][0] or mark.end < offsets[last][1]
        spans.append(Span(f"-{mark.label}", first, last + 1))
    return spans, widened


def split_of(records: Sequence[Record]) -> Split:
    """How the training records part text into words, so that a raw text can be parted alike.

    Characters, where nearly all words are single ones (or, in a text with marked spans, where words would often cut
    them); jieba's words, where words are of several Han characters; else words as BERT has them.
    """
    words = [word for record in records if "tokens" in record.fields for word in require(record, "tokens", list[str])]
    if not words:
        count = sum(len(marks_in(record)) for record in records)
        widened = sum(
            word_spans(marks, split(require(record, "text", str), "words"))[1]
            for record in records
            if (marks := marks_in(record))
        )
        return "characters" if widened > 0.1 * count else "words"
    if sum(len(word) == 1 for word in words) >= 0.95 * len(words):
        return "characters"
    chinese = [word for word in words if _HAN.search(word)]
    several = sum(len(word) > 1 for word in chinese)
    return "chinese" if len(chinese) > 0.5 * len(words) and several > 0.05 * len(chinese) else "words"


def told_span(span: Span, sentence: Sentence, sure: np.ndarray) -> dict[str, Any]:
    """A span as predictions show it; its score is the mean probability of its tags, as in transformers' pipeline."""
    label, first, end = span
    told: dict[str, Any] = {"label": label}
    if sentence.offsets is not None and sentence.text is not None:
        start, stop = sentence.offsets[first][0], sentence.offsets[end - 1][1]
        told |= {"text": sentence.text[start:stop], "start": start, "end": stop}
    else:
        told |= {"words": sentence.words[first:end], "first": first, "last": end - 1}
    return told | {"score": round(float(sure[first:end].mean()), 6)}
