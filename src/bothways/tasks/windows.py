"""Sentences as windows of whole words; each word is read once, in the window where it stands farthest from an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int

from bothways.batch import Origin, Piece
from bothways.tasks.base import Coverage
from bothways.tasks.sequences import room_for, with_specials
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer
from bothways.text.words import sentence_ends


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence, and what is read of it.

    piece: [CLS] words [SEP]
    words: the words that this window answers for
    rows:  (m,) the position in `piece` of each one's first piece
    """

    piece: Piece
    words: slice
    rows: np.ndarray


def word_windows(
    text: Text,
    tokenizer: Tokenizer,
    *,
    record: int,
    max_length: int,
    stride: int,
    ends: Sequence[int] = (),
    extra: Any = None,
) -> tuple[list[Window], Coverage]:
    """An encoded list of words (`Tokenizer.encode_words`) in as many windows as it needs.

    The windows' `words` follow each other without a gap: joined again, each word is there once. A word of more
    pieces than fit in a window keeps its first ones; the others are counted as dropped.

    Args:
        stride: how many tokens consecutive windows share; at most half a window
        ends: positions among the words after which a sentence ends, rising; a window that ends there shares nothing
        extra: what the origin of each window keeps for decoding

    Raises:
        ConfigError: `max_length` leaves no room for text.
    """
    room = room_for(max_length)
    heads = np.flatnonzero(np.diff(text.words, prepend=-1))  # the first piece of each word
    bounds = np.append(heads, len(text.ids))
    spans = spread(bounds, room, min(stride, room // 2), ends)
    own = [0, *(_middle(bounds, after[0], before[1]) for before, after in pairwise(spans)), len(heads)]
    # Beside a long word, a window's neighbours may answer for all of its words: then it is left out. A text without
    # words keeps its one window.
    answering = [(span, *words) for span, words in zip(spans, pairwise(own), strict=True) if words[0] < words[1]]
    windows, read = [], 0
    for number, ((first, last), begin, end) in enumerate(answering or [(spans[0], 0, 0)]):
        ids = text.ids[bounds[first] : bounds[last]][:room]
        read += len(ids)
        piece = Piece(with_specials(ids, tokenizer), origin=Origin(record, number, extra=extra))
        windows.append(Window(piece, slice(begin, end), heads[begin:end] - bounds[first] + 1))
    dropped = int(np.maximum(np.diff(bounds) - room, 0).sum())
    kept = len(text.ids) - dropped
    return windows, Coverage(kept=kept, strided=read - kept, dropped=dropped)


def spread(
    bounds: Int[np.ndarray, " bounds"], room: int, stride: int, ends: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """First and last (exclusive) word of each window; word w has the pieces from `bounds[w]` to `bounds[w + 1]`."""
    count = len(bounds) - 1
    spans, first = [], 0
    while True:
        last = max(int(np.searchsorted(bounds, bounds[first] + room, side="right")) - 1, first + 1)
        if last >= count:
            return [*spans, (first, count)]
        stop = max((end for end in ends if first < end <= last), default=first)
        # A window shorter than half of the room would cost more than it gives.
        if stop > first and bounds[stop] - bounds[first] >= room // 2:
            spans.append((first, stop))
            first = stop
        else:
            spans.append((first, last))
            earliest = max(bounds[last] - stride, bounds[last + 1] - room)  # so that one word more has room
            first = min(max(int(np.searchsorted(bounds, earliest, side="left")), first + 1), last)


def _middle(bounds: np.ndarray, first: int, last: int) -> int:
    """The word that parts what two windows share: those before it are farther from the edge of the earlier one."""
    return int(np.searchsorted(bounds, (bounds[first] + bounds[last]) / 2, side="left"))


def unit_ends(text: str, units: Sequence[tuple[int, int]]) -> list[int]:
    """The units after which a sentence ends, as positions among them; `units` are their bounds in the text."""
    return np.searchsorted([start for start, _ in units], sentence_ends(text), side="left").tolist()
