"""How raw text is parted into units: the words, characters or runs that tags stand on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from unicodedata import category

from bothways.text.characters import HAN
from bothways.text.words import chinese_words

Split = Literal["words", "characters", "chinese", "runs", "english"]
Offsets = list[tuple[int, int]]

_KANA = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # with 々〆〇, which stand among Han characters
_PATTERNS: dict[str, re.Pattern[str]] = {
    "words": re.compile(rf"[{HAN}]|[^\W_{HAN}]+|\S"),
    "characters": re.compile(r"\S"),
    "runs": re.compile(rf"[{HAN}{_KANA}]|\d+|[^\W\d_{HAN}{_KANA}]+|\S"),
    # As the English treebanks have them: addresses, abbreviations, numbers, clitics ("do" "n't"), runs of one sign, and
    # smileys are words; a hyphen stands alone.
    "english": re.compile(
        r"(?:https?://|www\.)\S*[\w/]|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"
        r"|[^\W_]{1,64}(?:[._-][^\W_]{1,64}){0,8}\.(?:com|org|net|edu|gov|html?|pdf|docx?|xlsx?|txt)\b"
        r"|(?:[A-Za-z]\.){2,}|\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Corp|Ltd|Co)\.|\be-mails?\b"
        r"|\d+(?:[.,:/]\d+)*(?:(?:st|nd|rd|th|s)\b)?|can(?=not\b)"
        r"|[^\W\d_]+(?=n['’]t\b)|(?<=[^\W\d_])n['’]t\b|(?<=\w)['’](?:s|re|ve|ll|d|m)\b|[^\W_]+"
        r"|[:;]-?[()DP](?!\w)|[!?]+|\.{2,}|-{2,}|_{2,}|([*=+~#<>$])\1+|\S",
        re.IGNORECASE,
    ),
}
_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def split(text: str, how: Split) -> Offsets:
    """Start and end of each unit of `text`, in characters; every character but white space is in exactly one.

    Args:
        how: "words" are runs of letters and digits, and any other character by itself, Han characters included;
            "characters" are single; "runs" part letters from digits too, and kana from each other; "chinese" are
            words that jieba finds; "english" are words as treebanks have them

    What is seen as one character stays together: combining marks, zero-width characters and joined emoji belong to
    the character before them, and of the letters that spell flags two make one.

    Raises:
        ConfigError: "chinese", and rjieba is not installed.
    """
    if how == "chinese":
        found = (part for start, end in chinese_words(text) for part in _without_spaces(text, start, end))
    else:
        found = (match.span() for match in _PATTERNS[how].finditer(text))
    return list(found) if text.isascii() else list(_joined(text, found, letters=how != "characters"))


def _joined(text: str, found: Iterator[tuple[int, int]], *, letters: bool) -> Iterator[tuple[int, int]]:
    """Units with the marks that follow them; with `letters`, a word goes on after a mark in it."""
    start, end, kind = -1, -1, ""
    for at, to in found:
        own = _kind(text[at])
        if at == end:  # nothing stands between them
            marks = own == "mark" or text[at - 1] == _JOINER
            flag = at == start + 1 and ord(text[start]) in _FLAG_LETTERS and ord(text[at]) in _FLAG_LETTERS
            if marks or flag or (letters and own == kind == "letter" and _kind(text[at - 1]) == "mark"):
                end = to
                continue
        if start >= 0:
            yield start, end
        start, end, kind = at, to, own
    if start >= 0:
        yield start, end


def _kind(character: str) -> str:
    """ "letter" (in a script that writes words as runs), "mark" (never alone) or "other"."""
    if character.isascii():
        return "letter" if character.isalpha() else "other"
    found = category(character)
    if found[0] == "M" or found == "Cf" or ord(character) in _SKIN_TONES:
        return "mark"
    return "letter" if found in ("Ll", "Lu", "Lt", "Lm") or (found == "Lo" and not _ALONE.match(character)) else "other"


_ALONE = re.compile(rf"[{HAN}{_KANA}]")
_NOT_SPACES = re.compile(r"\S+")


def _without_spaces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _NOT_SPACES.finditer(text, start, end):
        yield match.span()


def place(words: list[str], text: str) -> Offsets | None:
    """Where the words stand in `text`, one after another with nothing but white space between; None if they don't."""
    offsets: Offsets = []
    at = 0
    for word in words:
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            return None
        at = start + len(word)
        offsets.append((start, at))
    return None if text[at:].strip() else offsets
