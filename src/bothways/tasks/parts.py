"""Parts of a text that get a vector each: its tokens, characters or words, and the rows that are read for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bothways.batch import Example, Read
from bothways.data.record import Record, require
from bothways.tasks.base import Coverage, Encoded
from bothways.tasks.sentences import sentence_of
from bothways.tasks.units import split
from bothways.tasks.windows import Window, word_windows
from bothways.text.characters import HAN
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer

PartLevel = Literal["token", "character", "word"]
Words = Literal["auto", "words", "chinese"]
_HAN = re.compile(f"[{HAN}]")
STRIDE = 64  # tokens that the windows of a long text share, at most half a window


@dataclass(frozen=True, slots=True)
class Places:
    """Which parts of a text have a vector, in order.

    texts:   as they stand in the raw text (for tokens: the pieces of the vocabulary)
    offsets: (u, 2) start and end in characters of the raw text; None for a list of words without it
    """

    texts: list[str]
    offsets: np.ndarray | None


def encode_parts(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    level: PartLevel,
    words: Words,
    max_length: int,
    first: int,
    head: str,
) -> list[Encoded]:
    """Each record as one example: a group of rows for each part, over as many windows as the text needs.

    A part's rows are its pieces, in the window where they stand farthest from an edge; a character's are the pieces
    that cover it, so the letters of one piece share its vector. A character that the tokenizer drops has none.
    """
    encoded = []
    for number, (text, ranges, places) in enumerate(_parted(records, tokenizer, level, words), first):
        windows, coverage = word_windows(text, tokenizer, record=number, max_length=max_length, stride=STRIDE)
        kept, rows, sizes = _rows(text, windows, ranges)
        offsets = None if places.offsets is None else places.offsets[kept]
        extra = Places([places.texts[part] for part in kept], offsets)
        pieces = tuple(
            replace(window.piece, origin=replace(window.piece.origin, extra=extra))
            for window in windows
            if window.piece.origin is not None
        )
        encoded.append(Encoded([Example(pieces, {head: Read(rows, sizes)})], coverage, _notes(text, coverage)))
    return encoded


def _notes(text: Text, coverage: Coverage) -> tuple[str, ...]:
    if not len(text.ids):
        return ("the text is empty: it has no parts",)
    return ("longer than the model reads at once: read in windows that overlap",) if coverage.strided else ()


def _parted(
    records: Sequence[Record], tokenizer: Tokenizer, level: PartLevel, words: Words
) -> list[tuple[Text, np.ndarray, Places]]:
    """Each record's pieces, the first and last (exclusive) piece of each part (u, 2), and where the parts stand."""
    if level == "word":
        sentences = [_sentence(record, words) for record in records]
        encoded = tokenizer.encode_words([found for found, _ in sentences])
        return [
            (text, _runs(text.words), Places(list(found), offsets))
            for text, (found, offsets) in zip(encoded, sentences, strict=True)
        ]
    raw = [require(record, "text", str) for record in records]
    parted = []
    for string, text in zip(raw, tokenizer.encode(raw), strict=True):
        if level == "token":
            own = np.arange(len(text.ids))
            names = [tokenizer.token(int(number)) for number in text.ids]
            parted.append((replace(text, words=own), _runs(own), Places(names, text.offsets)))
        else:
            units = np.array(split(string, "characters"), dtype=np.int32).reshape(-1, 2)
            ranges = np.stack(
                [
                    np.searchsorted(text.offsets[:, 1], units[:, 0], side="right"),
                    np.searchsorted(text.offsets[:, 0], units[:, 1], side="left"),
                ],
                axis=1,
            )
            seen = ranges[:, 0] < ranges[:, 1]
            names = [string[start:end] for start, end in units[seen].tolist()]
            parted.append((text, ranges[seen], Places(names, units[seen])))
    return parted


def _sentence(record: Record, words: Words) -> tuple[list[str], np.ndarray | None]:
    """The record's words and where they stand; none of a blank text. Auto: jieba's words where there are Han."""
    text = record.fields.get("text")
    if "tokens" not in record.fields and isinstance(text, str) and not text.strip():
        return [], np.empty((0, 2), dtype=np.int32)
    how = words
    if how == "auto":
        how = "chinese" if isinstance(text, str) and _HAN.search(text) else "words"
    found, _, offsets = sentence_of(record, how)
    return found, None if offsets is None else np.array(offsets, dtype=np.int32).reshape(-1, 2)


def _runs(words: np.ndarray) -> np.ndarray:
    """First and last (exclusive) piece of each run of one word (u, 2)."""
    heads = np.flatnonzero(np.diff(words, prepend=-1))
    return np.stack([heads, np.append(heads[1:], len(words))], axis=1) if len(heads) else np.empty((0, 2), dtype=int)


def _rows(text: Text, windows: Sequence[Window], ranges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which parts have rows, the rows of all of them counted over the windows end to end, and how many each has."""
    heads = np.flatnonzero(np.diff(text.words, prepend=-1))
    bounds = np.append(heads, len(text.ids))
    kept, rows, sizes, before = [], [], [], 0
    for window in windows:
        length = len(window.piece.input_ids)
        if len(window.rows):
            begin, end = bounds[window.words.start], bounds[window.words.stop]
            first = begin - (window.rows[0] - 1)  # the text's piece that stands first in the window
            reach = min(end, first + length - 2)
            for part in range(*np.searchsorted(ranges[:, 0], [begin, end]).tolist()):
                start, stop = ranges[part, 0], min(ranges[part, 1], reach)
                if start < stop:
                    kept.append(part)
                    sizes.append(stop - start)
                    rows.append(np.arange(start, stop) - first + 1 + before)
        before += length
    joined = np.concatenate(rows) if rows else np.empty(0, dtype=int)
    return np.array(kept, dtype=int), joined, np.array(sizes, dtype=int)
