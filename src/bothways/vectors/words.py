"""The words of a text for BM25 and for keywords: Chinese ones by jieba's dictionary, others as runs of letters."""

from __future__ import annotations

import re

from bothways.text.characters import HAN
from bothways.text.words import chinese_words

_HAN = re.compile(f"[{HAN}]")
_RUN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def words_of(text: str) -> list[str]:
    """In lower case and in order, without punctuation.

    Raises:
        ConfigError: Chinese, and rjieba is not installed.
    """
    if not _HAN.search(text):
        return _RUN.findall(text.lower())
    return [
        word
        for start, end in chinese_words(text)
        for word in ([text[start:end]] if _HAN.search(text, start, end) else _RUN.findall(text[start:end].lower()))
    ]
