"""Encoded text as sequences that the encoder reads: special tokens set, long texts windowed, nothing cut in silence."""

from __future__ import annotations

import numpy as np

from bothways.batch import Origin, Piece
from bothways.tasks.base import Coverage
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer


def single(
    text: Text, tokenizer: Tokenizer, *, record: int, max_length: int, windows: int | None, stride: int = 0
) -> tuple[list[Piece], Coverage]:
    """[CLS] text [SEP], in as many windows as the text needs, at most `windows` (None: all of them).

    Consecutive windows share `stride` tokens, and each remembers the raw-text offsets of its tokens.
    """
    room = max_length - 2
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


def pair(
    first: Text, second: Text, tokenizer: Tokenizer, *, record: int, max_length: int
) -> tuple[Piece, Coverage]:
    """[CLS] first [SEP] second [SEP]; what is too long loses tokens from the end of the longer text, and says so.

    Reference: google-research/bert run_classifier.py, _truncate_seq_pair.
    """
    room = max_length - 3
    kept_first, kept_second = len(first.ids), len(second.ids)
    if kept_first + kept_second > room:
        kept_first = min(kept_first, max(room - kept_second, (room + 1) // 2))
        kept_second = min(kept_second, room - kept_first)
    ids = np.concatenate(
        [[tokenizer.cls_id], first.ids[:kept_first], [tokenizer.sep_id], second.ids[:kept_second], [tokenizer.sep_id]]
    )
    segments = np.repeat([0, 1], [kept_first + 2, kept_second + 1])
    none = np.zeros((1, 2), dtype=first.offsets.dtype)
    offsets = np.concatenate([none, first.offsets[:kept_first], none, second.offsets[:kept_second], none])
    dropped = len(first.ids) + len(second.ids) - kept_first - kept_second
    return Piece(ids, segments, Origin(record, 0, offsets)), Coverage(kept=kept_first + kept_second, dropped=dropped)
