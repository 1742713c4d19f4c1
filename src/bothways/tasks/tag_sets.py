"""Tag sets: which tags there are, by which scheme they mark spans, and whether gold tags keep to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bothways.data.messages import shown
from bothways.data.record import Record, read_all
from bothways.errors import DataError
from bothways.metrics.spans import SCHEMES, Span, scheme_of, spans
from bothways.tasks.labels import learn_labels
from bothways.tasks.sentences import tags_in
from bothways.tasks.viterbi import FORBIDDEN, Steps, allowed

PLAIN = "plain"  # tags that are no parts of spans, such as parts of speech
_PREFIXED = re.compile(r"[BIOMESLU]-.")


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
        return allowed(self.names, self.scheme)

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


def learn_span_tags(records: Sequence[Record]) -> TagSet:
    """The tags of the training records and their scheme, where tags have to mark spans.

    Raises:
        DataError: as `learn_tags` and `gold_tags`; no tag marks a span.
    """
    learnt = learn_tags(zip(records, read_all(records, tags_in), strict=True))
    if learnt.scheme == PLAIN:
        where = f"{records[0].path}: " if records else ""
        found = ", ".join(map(shown, learnt.names[:5])) or "none"
        raise DataError(f"{where}no tag marks a span; B-LABEL, I-LABEL and O are wanted, found {found}")
    read_all(records, lambda record: gold_tags(record, learnt))
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
