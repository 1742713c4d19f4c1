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
