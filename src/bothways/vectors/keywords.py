"""Keywords of groups of texts: words that are frequent in a group and rare in the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

from bothways.text.characters import HAN_RANGES
from bothways.vectors.words import words_of

G = TypeVar("G", bound=Hashable)
SHOWN = 8  # keywords of a group


def keywords(texts: Sequence[str], groups: Sequence[G], *, most: int = SHOWN) -> dict[G, list[str]]:
    """The `most` telling words of each group, best first; Chinese words are jieba's.

    A word's weight is its share of the group's words times log(1 + A / f), A being the mean number of words in a
    group, f the word's number in all. English function words, numbers and single characters are none.

    Reference: Grootendorst, BERTopic, 2022, section 3.3 (class-based TF-IDF).
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    own: dict[G, Counter[str]] = {}
    for text, group in zip(texts, groups, strict=True):
        own.setdefault(group, Counter()).update(words_of(text))
    everywhere: Counter[str] = Counter()
    for counts in own.values():
        everywhere.update(counts)
    mean = sum(everywhere.values()) / max(len(own), 1)
    found = {}
    for group, counts in own.items():
        total = sum(counts.values())
        weights = {
            word: count / total * math.log(1 + mean / everywhere[word])
            for word, count in counts.items()
            if _tells(word) and word not in ENGLISH_STOP_WORDS
        }
        found[group] = sorted(weights, key=lambda word: (-weights[word], word))[:most]
    return found


def _tells(word: str) -> bool:
    """Whether a word can be a keyword: no number, and more than one character (two letters are no English word)."""
    if word.isdigit():
        return False
    return len(word) > (1 if any(first <= ord(word[0]) <= last for first, last in HAN_RANGES) else 2)
