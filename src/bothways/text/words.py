"""Where sentences end and where words begin, in positions of the raw text."""

from __future__ import annotations

import re

import numpy as np

from bothways.errors import ConfigError
from bothways.text.characters import HAN, code_points, is_han, replace_surrogates
from bothways.text.tokenizer import Encoded

_CLOSING = "”’\"'）)】」』》〉］\\]｝}〕"
_CANDIDATE = re.compile(rf"[。！？｡…!?.]+[{_CLOSING}]*|[\n\r\u2028\u2029\x0b\x0c\x85]\s*")
_TITLE = re.compile(  # also a single letter: an initial, "U.S.", "e.g."
    r"\b(?:[^\W\d_]|mrs?|ms|dr|prof|st|mt|cf|vs|jr|sr|gen|col|capt|lt|sgt|sen|rep|gov|rev|hon)$", re.IGNORECASE
)
_NUMBERED = re.compile(r"\b(?:no|nos|vol|figs?|eqs?|pp|sec|ch)$", re.IGNORECASE)  # only before a number: "No. 5"
_NEXT = re.compile(r"\s*\S")
_HAN = re.compile(f"[{HAN}]")


def sentence_ends(text: str) -> list[int]:
    """Positions, in characters and rising, after which a sentence of `text` ends.

    A sentence ends after 。！？, after . ! ? … before white space (! ? … before a Chinese character too), and at a
    line's end; closing quotes and brackets stay with their sentence. "3.14", "U.S. Army", "Dr. Li", the number of
    a list item and a mark before a small letter end none. Each sentence holds more than white space, and the last
    one ends with the text, white space after it aside; a blank text has none.
    """
    ends: list[int] = []
    start = 0
    for match in _CANDIDATE.finditer(text):
        if match[0].isspace():
            end = _without_space(text, start, match.start())
        else:
            end = match.end() if _ends_sentence(text, start, match) else start
        if end > start:
            ends.append(end)
            start = end
    if (end := _without_space(text, start, len(text))) > start:
        ends.append(end)
    return ends


def _without_space(text: str, start: int, end: int) -> int:
    """`end` moved back over white space, no further than `start`."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the marks found end the sentence that began at `start`."""
    at, end, mark = match.start(), match.end(), match[0][0]
    if mark in "。！？｡" or end == len(text):
        return True
    if text[end].isspace():
        ahead = _NEXT.match(text, end)
        following = ahead[0][-1] if ahead else ""
        if mark == "." and match[0][1:2] != ".":
            before = max(start, at - 5)
            if _TITLE.search(text, before, at) or (following.isdecimal() and _NUMBERED.search(text, before, at)):
                return False
            if at - start <= 6 and text[start:at].strip().isdecimal():  # "1. Introduction"
                return False
        return not following.islower()
    return mark != "." and (mark == "…" or text[end] > "\x7f") and not text[end].islower()


def chinese_words(text: str) -> list[tuple[int, int]]:
    """Start and end, in characters, of the words that jieba's dictionary and model find; they cover all of `text`.

    Raises:
        ConfigError: rjieba is not installed.
    """
    try:
        import rjieba
    except ImportError:
        raise ConfigError("Chinese words need rjieba, which is not installed; pip install rjieba") from None
    return [(start, end) for _, start, end in rjieba.tokenize(replace_surrogates(text))]


def word_starts(text: str, encoded: Encoded, *, chinese: bool) -> np.ndarray:
    """Which pieces of `text` begin a word, for masking whole words: (t,) bool.

    Args:
        chinese: join Han characters (and what stands with them in a dictionary word, as in "T恤") to words

    Raises:
        ConfigError: `chinese` and rjieba is not installed.

    Reference: Cui et al., Pre-Training with Whole Word Masking for Chinese BERT, 2019.
    """
    starts = np.ones(len(encoded.ids), dtype=bool)
    starts[1:] = encoded.words[1:] != encoded.words[:-1]
    if not chinese or text.isascii() or not _HAN.search(text):
        return starts
    spans = np.array(chinese_words(text))
    word_of_character = np.repeat(np.arange(len(spans)), spans[:, 1] - spans[:, 0])
    first = encoded.offsets[:, 0]
    word, han = word_of_character[first], is_han(code_points(text)[first])
    starts[1:] &= (word[1:] != word[:-1]) | ~(han[1:] | han[:-1])
    return starts
