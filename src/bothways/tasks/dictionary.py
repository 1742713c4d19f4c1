"""A user's dictionary: words that segmentation keeps whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bothways.data.files import open_text
from bothways.errors import DataError
from bothways.text.characters import HAN

# Parts of speech as jieba's dictionaries name them. jieba takes any small letters after a word for one, even those of
# "machine learning"; here a phrase without Han characters stays whole.
_TAGS = (
    "a|ad|ag|an|b|c|d|df|dg|e|eng|f|g|h|i|j|k|l|m|mg|mq|n|ng|nr|nrfg|nrt|ns|nt|nz|o|p|q|r|rg|rr|rz|s|t|tg|u|ud|ug|uj|"
    "ul|uv|uz|v|vd|vg|vi|vn|vq|w|x|y|z|zg"
)
_FREQUENCY = r"\s+\d+(?:\s+[A-Za-z]+)?"
_LINE = re.compile(rf"\s*(.*?\S)(?:{_FREQUENCY})?\s*")
_HAN_LINE = re.compile(rf"\s*(.*?\S)(?:{_FREQUENCY}|\s+(?:{_TAGS}))?\s*")
_HAN = re.compile(f"[{HAN}]")


class Dictionary:
    """Words, found in a text from left to right, the longest first."""

    def __init__(self, words: Iterable[str]) -> None:
        self._lengths: dict[str, list[int]] = {}  # of the words that begin with this character, longest first
        self._words = {word for word in words if word.strip()}
        for word in self._words:
            self._lengths.setdefault(word[0], []).append(len(word))
        for first, lengths in self._lengths.items():
            self._lengths[first] = sorted(set(lengths), reverse=True)

    def __len__(self) -> int:
        return len(self._words)

    def matches(self, text: str, offsets: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) unit of each word found; a word that begins or ends inside a unit isn't found."""
        ending = {end: number + 1 for number, (_, end) in enumerate(offsets)}
        free = 0
        for number, (start, _) in enumerate(offsets):
            if number < free:
                continue
            for length in self._lengths.get(text[start], ()):
                last = ending.get(start + length)
                if last is not None and text[start : start + length] in self._words:
                    yield number, last
                    free = last
                    break


def read_dictionary(path: str | Path) -> list[str]:
    """The words of a file, one a line, without the frequency and the tag that jieba's dictionaries may have after it.

    Raises:
        DataError: no such file, or not a word in it.
    """
    path = Path(path)
    lines = (line for _, line in open_text(path))
    found = ((_HAN_LINE if _HAN.search(line) else _LINE).fullmatch(line) for line in lines)
    words = [match[1] for match in found if match]
    if not words:
        raise DataError("the dictionary holds no word; wanted one a line", path=path)
    return words
