"""Tests of windows of whole words: each word read once, far from an edge, and every token counted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bothways.errors import ConfigError
from bothways.tasks.windows import spread, word_windows
from bothways.text.tokenizer import Encoded as Text

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=60)


@given(SIZES, st.integers(5, 20), st.integers(0, 30), st.sets(st.integers(1, 60)))
def test_windows_cover_all_words_and_fit(sizes: list[int], room: int, stride: int, ends: set[int]) -> None:
    bounds = np.cumsum([0, *sizes])
    spans = spread(bounds, room, min(stride, room // 2), sorted(end for end in ends if end <= len(sizes)))
    assert spans[0][0] == 0
    assert spans[-1][1] == len(sizes)
    assert all(bounds[last] - bounds[first] <= room for first, last in spans)
    for (first, last), (next_first, next_last) in pairwise(spans):
        assert first < next_first <= last < next_last
        assert bounds[last] - bounds[next_first] <= stride


@given(
    st.lists(st.integers(1, 12), max_size=60),
    st.integers(1, 24),
    st.integers(0, 30),
    st.sets(st.integers(1, 60)),
)
@example([1] * 24 + [6, 2, 9] + [1] * 30, 20, 10, set())  # the third window's neighbours answer for all of its words
@example([1, 1], 1, 0, set())
@example([1, 1], 2, 1, {1})
def test_every_window_answers_for_words_that_it_holds(
    tokenizer: Any, sizes: list[int], room: int, stride: int, ends: set[int]
) -> None:
    """Windows as small as can be and words of many pieces too."""
    words = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    text = Text(np.arange(len(words)) + 100, np.zeros((len(words), 2), dtype=np.int32), words)
    told = sorted(end for end in ends if end <= len(sizes))
    windows, coverage = word_windows(text, tokenizer, record=0, max_length=room + 2, stride=stride, ends=told)
    firsts = np.cumsum([0, *sizes])
    read = []
    for window in windows:
        ids = window.piece.input_ids[1:-1]
        assert len(ids) <= room
        assert len(window.rows) or not sizes
        for word, row in zip(range(window.words.start, window.words.stop), window.rows.tolist(), strict=True):
            fits = min(sizes[word], room)
            assert ids[row - 1 : row - 1 + fits].tolist() == [100 + firsts[word] + more for more in range(fits)]
            read.append(word)
    assert read == list(range(len(sizes)))
    assert [window.piece.origin.window for window in windows if window.piece.origin] == list(range(len(windows)))
    assert coverage.dropped == sum(max(size - room, 0) for size in sizes)
    assert coverage.kept == len(words) - coverage.dropped
    assert coverage.kept + coverage.strided == sum(len(window.piece.input_ids) - 2 for window in windows)


def test_a_window_without_room_for_text_is_refused(tokenizer: Any) -> None:
    (text,) = tokenizer.encode_words([["ab", "我"]])
    with pytest.raises(ConfigError, match=r"read 2 tokens at once; wanted at least 3 \(\[CLS\], one token of text"):
        word_windows(text, tokenizer, record=0, max_length=2, stride=0)


@pytest.mark.parametrize("stride", [0, 3, 100])
def test_each_word_is_read_once_where_it_is_farthest_from_an_edge(stride: int, tokenizer: Any) -> None:
    words = ["ab", "我", "c", "longer", "d"] * 12
    (text,) = tokenizer.encode_words([words])
    windows, coverage = word_windows(text, tokenizer, record=7, max_length=18, stride=stride, extra="kept")
    read = [number for window in windows for number in range(window.words.start, window.words.stop)]
    assert read == list(range(len(words)))
    firsts = {number: int(text.ids[np.flatnonzero(text.words == number)[0]]) for number in range(len(words))}
    for number, window in enumerate(windows):
        ids = window.piece.input_ids
        assert (len(ids) <= 18, int(ids[0]), int(ids[-1])) == (True, tokenizer.cls_id, tokenizer.sep_id)
        assert ids[window.rows].tolist() == [firsts[word] for word in range(window.words.start, window.words.stop)]
        origin = window.piece.origin
        assert origin is not None
        assert (origin.record, origin.window, origin.extra) == (7, number, "kept")
    for before, after in pairwise(windows):
        if stride == 100:  # 8 tokens are shared, so that at least the word at the edge has some of them beside it
            assert len(before.piece.input_ids) - 1 - before.rows[-1] > 2
            assert after.rows[0] > 1
    assert coverage.kept == len(text.ids)
    assert coverage.strided == sum(len(window.piece.input_ids) - 2 for window in windows) - len(text.ids)
    assert coverage.dropped == 0


def test_a_word_longer_than_a_window_keeps_its_first_pieces_and_the_rest_is_counted(tokenizer: Any) -> None:
    (text,) = tokenizer.encode_words([["ab", "x" * 30, "我"]])
    windows, coverage = word_windows(text, tokenizer, record=0, max_length=12, stride=4)
    assert [number for window in windows for number in range(window.words.start, window.words.stop)] == [0, 1, 2]
    assert coverage.dropped == 20
    assert coverage.kept == len(text.ids) - 20
    assert sum(len(window.rows) for window in windows) == 3


def test_a_window_that_ends_with_a_sentence_shares_nothing(tokenizer: Any) -> None:
    (text,) = tokenizer.encode_words([["我"] * 30])
    windows, coverage = word_windows(text, tokenizer, record=0, max_length=14, stride=6, ends=[10, 20, 30])
    assert [(window.words.start, window.words.stop) for window in windows] == [(0, 10), (10, 20), (20, 30)]
    assert coverage.strided == 0
