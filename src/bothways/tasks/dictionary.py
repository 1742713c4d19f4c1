"""A user's dictionary: words that segmentation keeps whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bothways.data.files import open_text
from bothways.errors import DataError

_LINE = re.compile(r"\s*(.*?\S)(?:\s+\d+(?:\s+[A-Za-z]+)?)?\s*")


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
    """The words of a file, one a line; a frequency and a tag after it, as jieba's dictionaries have them, are left out.

    Raises:
        DataError: no such file, or not a word in it.
    """
    path = Path(path)
    words = [match[1] for _, line in open_text(path) if (match := _LINE.fullmatch(line))]
    if not words:
        raise DataError("the dictionary holds no word; wanted one a line", path=path)
    return words
