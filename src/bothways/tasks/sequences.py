"""Encoded text as sequences that the encoder reads: special tokens set, long texts windowed, nothing cut in silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bothways.batch import Origin, Piece
from bothways.data.record import Record, require
from bothways.errors import ConfigError
from bothways.tasks.base import Coverage
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


def room_for(max_length: int, *, texts: int = 1) -> int:
    """Tokens of text that a sequence of `max_length` holds beside [CLS] and a [SEP] after each of the texts.

    Raises:
        ConfigError: not even one of each text.
    """
    room = max_length - 1 - texts
    if room < texts:
        parts = "[CLS], one token of text, [SEP]" if texts == 1 else "[CLS], and a token and [SEP] for each text"
        raise ConfigError(
            f"the model is to read {max_length} tokens at once; wanted at least {1 + 2 * texts} ({parts}): "
            "give a larger max_length, or a model that has more positions"
        )
    return room


def single(
    text: Text, tokenizer: Tokenizer, *, record: int, max_length: int, windows: int | None, stride: int = 0
) -> tuple[list[Piece], Coverage]:
    """[CLS] text [SEP], in as many windows as the text needs, at most `windows` (None: all of them).

    Consecutive windows share `stride` tokens, and each remembers the raw-text offsets of its tokens.

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """
    room = room_for(max_length)
    starts = [0]
    while starts[-1] + room < len(text.ids):
        starts.append(starts[-1] + room - stride)
    starts = starts[:windows]
    pieces = [
        Piece(
            with_specials(text.ids[start : start + room], tokenizer),
            origin=Origin(record, number, np.pad(text.offsets[start : start + room], ((1, 1), (0, 0)))),
        )
        for number, start in enumerate(starts)
    ]
    reached = min(starts[-1] + room, len(text.ids))
    read = sum(len(piece.input_ids) - 2 for piece in pieces)
    return pieces, Coverage(kept=reached, strided=read - reached, dropped=len(text.ids) - reached)


def with_specials(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """[CLS] ids [SEP]."""
    return np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]])


def pair(first: Text, second: Text, tokenizer: Tokenizer, *, record: int, max_length: int) -> tuple[Piece, Coverage]:
    """[CLS] first [SEP] second [SEP]; what is too long loses tokens from the end of the longer text, and says so.

    Raises:
        ConfigError: `max_length` leaves no room for both.

    Reference: google-research/bert run_classifier.py, _truncate_seq_pair.
    """
    room = room_for(max_length, texts=2)
    kept_first, kept_second = len(first.ids), len(second.ids)
    if kept_first + kept_second > room:
        kept_first = min(kept_first, max(room - kept_second, (room + 1) // 2))
        kept_second = min(kept_second, room - kept_first)
    piece = joined(cut(first, 0, kept_first), cut(second, 0, kept_second), tokenizer, record=record)
    dropped = len(first.ids) + len(second.ids) - kept_first - kept_second
    return piece, Coverage(kept=kept_first + kept_second, dropped=dropped)


def pair_windows(
    first: Text, second: Text, tokenizer: Tokenizer, *, record: int, max_length: int, stride: int = 0
) -> tuple[list[Piece], Coverage]:
    """[CLS] first [SEP] second [SEP] in as many windows of the second text as it needs, the first repeated in each.

    Consecutive windows share `stride` tokens, or half a window if that is less. A first text that takes more than
    half of the room is cut there.

    Raises:
        ConfigError: `max_length` leaves no room for both.
    """
    room = room_for(max_length, texts=2)
    kept_first = min(len(first.ids), max(room // 2, room - len(second.ids)))
    window = room - kept_first
    step = window - min(stride, window // 2)
    starts = [0]
    while starts[-1] + window < len(second.ids):
        starts.append(starts[-1] + step)
    head = cut(first, 0, kept_first)
    pieces = [
        joined(head, cut(second, start, start + window), tokenizer, record=record, window=number, start=start)
        for number, start in enumerate(starts)
    ]
    kept = kept_first + len(second.ids)
    read = sum(len(piece.input_ids) - 3 for piece in pieces)
    return pieces, Coverage(kept=kept, strided=read - kept, dropped=len(first.ids) - kept_first)


def joined(first: Text, second: Text, tokenizer: Tokenizer, *, record: int, window: int = 0, start: int = 0) -> Piece:
    """[CLS] first [SEP] second [SEP], the second in the other segment; each token has the offsets in its own text.

    `start` says where in the whole of it the second text begins, in tokens; the origin keeps it as `extra`.
    """
    ids = np.concatenate([[tokenizer.cls_id], first.ids, [tokenizer.sep_id], second.ids, [tokenizer.sep_id]])
    segments = np.repeat([0, 1], [len(first.ids) + 2, len(second.ids) + 1])
    none = np.zeros((1, 2), dtype=first.offsets.dtype)
    offsets = np.concatenate([none, first.offsets, none, second.offsets, none])
    return Piece(ids, segments, Origin(record, window, offsets, extra=start))


def cut(text: Text, start: int, end: int) -> Text:
    """The pieces of a text from `start` to `end`."""
    return Text(text.ids[start:end], text.offsets[start:end], text.words[start:end])


def concatenated(*texts: Text) -> Text:
    """Pieces of several texts in a row, each with the offsets in its own."""
    ids, offsets, words = zip(*((text.ids, text.offsets, text.words) for text in texts), strict=True)
    return Text(np.concatenate(ids), np.concatenate(offsets), np.concatenate(words))


def read_pair(record: Record) -> tuple[str, str]:
    """The two texts of a record.

    Raises:
        DataError: one of the fields is missing or no text.
    """
    return require(record, "text_a", str), require(record, "text_b", str)


def encode_texts(
    records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, windows: int | None, first: int
) -> Iterator[tuple[list[Piece], Coverage]]:
    """[CLS] text [SEP] of each record, in at most so many windows (None: as many as it needs).

    Raises:
        DataError: a text is missing, not a text, or empty.
    """
    texts = tokenizer.encode([require(record, "text", str) for record in records])
    for number, (record, text) in enumerate(zip(records, texts, strict=True), first):
        if not len(text.ids):
            raise record.error("the text is empty (nothing but blanks or control characters); leave the record out")
        yield single(text, tokenizer, record=number, max_length=max_length, windows=windows)


def encode_pairs(
    records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, windows: bool, first: int
) -> Iterator[tuple[list[Piece], Coverage]]:
    """[CLS] text_a [SEP] text_b [SEP] of each record: one sequence, or windows over text_b with text_a in each.

    Raises:
        DataError: a text is missing, not a text, or empty.
    """
    texts = [read_pair(record) for record in records]
    distinct = list(dict.fromkeys(text for both in texts for text in both))  # many pairs share a query, say
    pieces = dict(zip(distinct, tokenizer.encode(distinct), strict=True))
    for number, (record, both) in enumerate(zip(records, texts, strict=True), first):
        a, b = (pieces[text] for text in both)
        for name, text in (("text_a", a), ("text_b", b)):
            if not len(text.ids):
                raise record.error(
                    f'"{name}" is empty (nothing but blanks or control characters); leave the record out'
                )
        if windows:
            yield pair_windows(a, b, tokenizer, record=number, max_length=max_length)
        else:
            piece, coverage = pair(a, b, tokenizer, record=number, max_length=max_length)
            yield [piece], coverage
