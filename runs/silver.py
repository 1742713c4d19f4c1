"""Silver labels: Chinese Wikipedia with the words and parts of speech that jieba's dictionary knows.

The treebank has four thousand sentences; a dictionary of 350,000 words has seen more. An encoder that has learnt to say
what jieba says (MIT; the text is CC BY-SA) begins the treebank with those words in mind.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from pathlib import Path

from runs.rows import Row, write_records

SHORTEST, LONGEST = 8, 110  # characters of a record


def write_silver(folder: Path, target: Path, *, characters: int, without: set[str]) -> Path:
    """Tagged records of about so many characters, from all of the text evenly; none with a sentence of `without`."""
    found = raw_texts(folder, characters=characters, without=without, longest=LONGEST)
    return write_records(target, [tagged(folded(text)) for text in found])


def raw_texts(folder: Path, *, characters: int, without: set[str], longest: int) -> Iterator[str]:
    """Texts of up to about `longest` characters, from all of the folder's files evenly, so many characters together."""
    whole = [line for file in sorted(folder.glob("train-*.txt.xz")) for line in _paragraphs(file)]
    random.Random(0).shuffle(whole)
    for text in (text for paragraph in whole for text in _texts(paragraph, without, longest)):
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def tagged(text: str) -> Row:
    """The text's units, each with a tag: whether a word begins there, and its part of speech by jieba."""
    import rjieba

    from bothways.metrics.spans import Span
    from bothways.tasks.sentences import Mark, word_spans
    from bothways.tasks.tag_sets import tags_of
    from bothways.tasks.units import split

    units = split(text, "runs")
    marks, at = [], 0
    for word, tag in rjieba.tag(text):
        if word.strip():
            marks.append(Mark(tag, at, at + len(word)))
        at += len(word)
    found: list[Span] = word_spans(marks, units)[0]
    return {"tokens": [text[start:end] for start, end in units], "tags": tags_of(found, len(units), "BIO")}


def folded(text: str) -> str:
    """The text as a model that segments sees it: full-width letters, digits and signs as half-width ones."""
    from bothways.tasks.segment import SegmentSettings, SegmentTask

    return SegmentTask(SegmentSettings(), ()).shown(text)


def _paragraphs(file: Path) -> Iterator[str]:
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            if len(line) >= SHORTEST:
                yield line.strip()


def _texts(text: str, without: set[str], longest: int = LONGEST) -> Iterator[str]:
    """A paragraph's sentences, a few together as far as they are short; `without` holds folded ones."""

    from bothways.text.words import sentence_ends

    start = last = 0
    for end in sentence_ends(text):
        if end - start > longest and last > start:
            yield text[start:last].strip()
            start = last
        if without and folded(text[last:end].strip()) in without:
            start = end
        last = end
    if SHORTEST <= last - start <= 3 * longest:
        yield text[start:last].strip()
