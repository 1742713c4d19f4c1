"""Which stretches of a text are Chinese, which are in Latin letters (read as English), and which are neither."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from unicodedata import category

from bothways.text.characters import HAN

Language = Literal["zh", "en", "other"]

_HAN = rf"[{HAN}\u3005-\u3007]"  # with 々〆〇, which stand among them
_LATIN = r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]"
_WORD = rf"{_LATIN}(?:{_LATIN}|[\u0300-\u036f'’\-])*"
_RUNS = re.compile(rf"(?P<zh>{_HAN}+)|(?P<en>{_WORD})|(?P<other>(?:(?!{_HAN}|{_LATIN})[^\W\d_])+)")
_OURS = re.compile(r"""(?:(?![\s([{<"'#@$])[!-~])*""")  # ASCII after a Latin word that goes with it, as in "it)."
_OPENING = re.compile(r"""[([{<"'“‘#@$£€\d.,-]*\Z""")  # what stands before a Latin word and goes with it, as in "$5m"
_NEAR = 32  # characters before a word, among which what goes with it is looked for
_SENTENCE = 3  # words in a row, from which Latin letters in a Chinese text are English and no names in Chinese


class Stretch(NamedTuple):
    """From `start` to `end`, in characters, the text is in this language."""

    start: int
    end: int
    language: Language


def stretches(text: str) -> list[Stretch]:
    """The text in stretches of one language each, told by script; together they are all of it.

    Up to two Latin words between Chinese characters belong to the Chinese ("我在Google工作"), more of them are
    English. Signs and digits go with the words beside them; a text of nothing else is "other".
    """
    if text.isascii():  # the quick way
        return [Stretch(0, len(text), "en" if re.search("[A-Za-z]", text) else "other")] if text else []
    runs: list[Stretch] = []
    for start, end, language in _judged(text):
        if runs and runs[-1].language == language:
            runs[-1] = Stretch(runs[-1].start, end, language)
        else:
            cut = 0
            if runs:
                cut = _cut(text, runs[-1], start, language)
                runs[-1] = runs[-1]._replace(end=cut)
            runs.append(Stretch(cut, end, language))
    if not runs:
        return [Stretch(0, len(text), "other")] if text else []
    return [*runs[:-1], runs[-1]._replace(end=len(text))]


def language_of(parts: list[Stretch]) -> str:
    """ "zh", "en", "other", or "mixed" where a text has stretches of several."""
    found = {part.language for part in parts}
    return "mixed" if len(found) > 1 else next(iter(found), "other")


def _judged(text: str) -> list[Stretch]:
    """The runs of letters, each with its language: of Latin ones, their number and neighbours decide."""
    runs = [Stretch(match.start(), match.end(), _kind(match)) for match in _RUNS.finditer(text)]
    judged: list[Stretch] = []
    at = 0
    while at < len(runs):
        last = at
        while last < len(runs) and runs[last].language == runs[at].language:
            last += 1
        group, language = runs[at:last], runs[at].language
        beside = (runs[at - 1 : at] if at else []) + runs[last : last + 1]
        if language == "en" and len(group) < _SENTENCE and any(run.language == "zh" for run in beside):
            language = "zh"
        judged += [run._replace(language=language) for run in group]
        at = last
    return judged


def _kind(match: re.Match[str]) -> Language:
    return "zh" if match.lastgroup == "zh" else "en" if match.lastgroup == "en" else "other"


def _cut(text: str, before: Stretch, start: int, language: Language) -> int:
    """Where the stretch before ends and that of the word at `start` begins."""
    if before.language == "en":
        found = _OURS.match(text, before.end, start)
        cut = found.end() if found else before.end
    elif language == "en":
        found = _OPENING.search(text, max(before.end, start - _NEAR), start)
        cut = found.start() if found else start
    else:
        cut = start
    # What is seen as one character stays together: a mark or a joined emoji is not cut from what it stands on.
    while cut < start and (category(text[cut])[0] == "M" or category(text[cut]) == "Cf" or text[cut - 1] == "\u200d"):
        cut += 1
    return cut
