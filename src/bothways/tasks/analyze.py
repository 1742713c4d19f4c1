"""Analysis: words, parts of speech, entities and labels of a text, by all heads of a model in one pass.

record      {"text": "小明在北京工作。"}
prediction  {"text": "…", "language": "zh", "words": [{"text": "小明", "start": 0, "end": 2, "pos": "PROPN"}, …],
            "entities": [{"text": "北京", "start": 3, "end": 5, "label": "LOC", "score": 0.97}], "sentiment": {"label":
            "positive", "score": 0.98}, "tokens": {"kept": 8}}; what the model has no head for is left out
metric      none of its own: each head's is that of its task
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.batch import Example, Read
from bothways.data.record import Record, require
from bothways.errors import ConfigError, ModelError
from bothways.metrics.spans import spans
from bothways.tasks.base import Answer, Encoded, Task
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.dictionary import Dictionary
from bothways.tasks.merging import joined
from bothways.tasks.multi import MultiTask
from bothways.tasks.one_label import label_answer
from bothways.tasks.segment import SegmentTask
from bothways.tasks.sentences import Sentence, told_span
from bothways.tasks.tag import TagTask
from bothways.tasks.tag_sets import PLAIN
from bothways.tasks.tagging import best_tags, read_words
from bothways.tasks.units import Offsets, split
from bothways.tasks.windows import Window, unit_ends, word_windows
from bothways.text.languages import Stretch, language_of, stretches
from bothways.text.tokenizer import Tokenizer

WINDOW = 128  # tokens: heads are trained on sentences, and know little of what stands farther apart
STRIDE = 32  # tokens that windows share where a sentence is longer than one
VECTOR = "vector"  # the head that pools all of a window's rows
_LANGUAGES = ("zh", "en")
_RESERVED = ("text", "language", "words", "entities", "vector", "tokens")


@dataclass(frozen=True)
class _Layout:
    """What the origin of a text's first window keeps.

    shown:  the text as the model sees it, character for character
    units:  what the heads are read at, places in the text
    parts:  the stretches of one language, and the first and last (exclusive) unit of each
    """

    shown: str
    units: Offsets
    parts: list[tuple[Stretch, int, int]]


class AnalyzeTask(MultiTask):
    """The heads of a `MultiTask`, all read at the same units of one sequence.

    A part that segments gives Chinese words; parts that tag give entities where their tags mark spans, else parts of
    speech; parts that classify give the text a label under their own name. A part called "zh_…" or "en_…" is for that
    language only, any other for both.
    """

    name = "analyze"

    def __init__(
        self,
        parts: Mapping[str, Task],
        *,
        dictionary: str | Path | Iterable[str] = (),
        bonus: float | None = None,
        vector: bool = False,
    ) -> None:
        super().__init__(dict(parts), dict.fromkeys(parts, 1.0))
        self.vector = vector
        self.segmenter: str | None = None
        self.taggers: dict[tuple[str, str], str] = {}  # by what they find ("pos", "entities") and language
        self.labellers: dict[str, str] = {}  # by part, the name that its label has in a prediction
        for name, part in parts.items():
            languages = [name[:2]] if name[:3] in ("zh_", "en_") else list(_LANGUAGES)
            if isinstance(part, SegmentTask):
                self.segmenter = self.segmenter or name
            elif isinstance(part, TagTask):
                what = "pos" if part.tags.scheme == PLAIN else "entities"
                for language in languages:
                    self.taggers.setdefault((what, language), name)
            elif isinstance(part, ClassifyTask) and part.kind == "one":
                self.labellers[name] = name[3:] if len(languages) == 1 else name
        if not (self.segmenter or self.taggers or self.labellers):
            raise ModelError("this model has no head that analyze can use")
        if taken := [name for name in self.labellers.values() if name in _RESERVED]:
            raise ModelError(f"a head is called {taken[0]!r}, which means something else here")
        if self.segmenter is None:
            if dictionary:
                raise ConfigError("a dictionary is for segmentation, and this model has no head for that")
            self.dictionary = Dictionary(())
        else:
            segmenter = self._of(SegmentTask, self.segmenter).with_options(dictionary=dictionary, bonus=bonus)
            self.parts[self.segmenter] = segmenter
            self.dictionary = segmenter.dictionary

    def with_options(self, **options: Any) -> AnalyzeTask:
        """The same with a user's dictionary, or with vectors.

        Args:
            dictionary: words to keep whole, or a file of them, one a line
            bonus: added to the scores of a found word's tags; without it, it is kept whole whatever they are
            vector: also the text's vector, the mean of the encoder's last layer (or of those that its heads read)

        Raises:
            DataError: the file is missing or empty.
            ConfigError: another option; a dictionary, but no head that segments; a bonus that is not a number.
        """
        known = ("dictionary", "bonus", "vector")
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(f"unknown option {unknown[0]}; known are {', '.join(known)}")
        return AnalyzeTask(self.parts, **options)

    def _of(self, kind: type[Any], name: str) -> Any:
        part = self.parts[name]
        assert isinstance(part, kind)
        return part

    # ------------------------------------------------------------------------------------------- encoding

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """Each text in windows that end where sentences do, as far as they can; every head reads every window."""
        if labelled:
            raise ConfigError("analyze has no score of its own; evaluate the model's tasks")
        texts = [_text(record) for record in records]
        layouts = [self._layout(text) for text in texts]
        pieces = tokenizer.encode_words(
            [[layout.shown[start:end] for start, end in layout.units] for layout in layouts]
        )
        encoded = []
        limit = min(max_length, WINDOW)
        for number, (text, layout, own) in enumerate(zip(texts, layouts, pieces, strict=True), first):
            windows, coverage = word_windows(
                own,
                tokenizer,
                record=number,
                max_length=limit,
                stride=STRIDE,
                ends=unit_ends(text, layout.units) if len(own.ids) > limit - 2 else (),
                extra=layout,
            )
            encoded.append(Encoded([self._example(window) for window in windows], coverage))
        return encoded

    def _layout(self, text: str) -> _Layout:
        """The text's units: characters and runs where it is Chinese, words elsewhere."""
        shown = text if self.segmenter is None else self._of(SegmentTask, self.segmenter).shown(text)
        units: Offsets = []
        parts = []
        for part in stretches(shown):
            start, end, language = part
            how = "english" if language == "en" else "words"
            if language == "zh":
                how = "runs" if self.segmenter is not None or ("pos", "zh") not in self.taggers else "chinese"
            own = [(start + at, start + to) for at, to in split(shown[start:end], how)]
            if not own:
                continue
            parts.append((part, len(units), len(units) + len(own)))
            units += own
        return _Layout(shown, units, parts)

    def _example(self, window: Window) -> Example:
        words = read_words([window], None)
        cls = Read(np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))
        nothing = Read(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
        reads: dict[str, Read] = {}
        for name in {self.segmenter, *self.taggers.values()} - {None}:
            assert name is not None
            reads[joined(name, "tags")] = words
            if self.parts[name].settings.crf:  # type: ignore[attr-defined]
                reads[joined(name, "crf")] = nothing
        reads |= {joined(name, "label"): cls for name in self.labellers}
        if self.vector:
            count = len(window.piece.input_ids)
            reads[VECTOR] = Read(np.arange(count), np.array([count]))
        return Example((window.piece,), reads)

    # ------------------------------------------------------------------------------------------- decoding

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """What the heads find, chosen by language; all places are those of the raw text."""
        text = _text(record)
        origin = answers[0].example.pieces[0].origin
        assert origin is not None
        layout: _Layout = origin.extra
        scores = _Scores(answers)
        language = language_of([part for part, _, _ in layout.parts])
        found: dict[str, Any] = {"text": text, "language": language}
        kinds = {what for what, _ in self.taggers}
        if self.segmenter is not None or "pos" in kinds:
            found["words"] = self._words(text, layout, scores, named=language == "mixed")
        if "entities" in kinds:
            found["entities"] = self._entities(text, layout, scores)
        for name, key in self.labellers.items():
            if name != key and name[:2] != _main_language(layout):
                continue
            # A head that learnt from beginnings of texts too: its windows are shorter here, and the text is all read.
            said = label_answer(scores.rows(name, "label").mean(axis=0), self._of(ClassifyTask, name).labels)
            found[key] = {"label": said["label"], "score": round(said["score"], 6)}
        if self.vector:
            sizes = [answer.example.tokens for answer in answers]
            vectors = np.concatenate([answer.scores[VECTOR] for answer in answers])
            found["vector"] = np.average(vectors, axis=0, weights=sizes).astype(np.float32).tolist()
        return found

    def _words(self, text: str, layout: _Layout, scores: _Scores, *, named: bool) -> list[dict[str, Any]]:
        words: list[dict[str, Any]] = []
        for part, begin, end in layout.parts:
            own = layout.units[begin:end]
            if part.language == "zh" and self.segmenter is not None:
                given = scores.of(self.segmenter, begin, end)
                found = self._of(SegmentTask, self.segmenter).joined(layout.shown, own, [given])
            else:
                found = _kept_whole(self.dictionary, layout.shown, own)
            tags: Sequence[str | None] = [None] * len(found)
            if (tagger := self.taggers.get(("pos", part.language))) is not None:
                given = scores.of(tagger, begin, end)
                firsts = given.scores["tags"][[first for first, _ in found]]  # a word is tagged where it begins
                path, _ = self._path(tagger, replace(given, scores=given.scores | {"tags": firsts}))
                tags = [self._of(TagTask, tagger).tags.names[number] for number in path]
            for (first, last), tag in zip(found, tags, strict=True):
                start, stop = own[first][0], own[last - 1][1]
                word: dict[str, Any] = {"text": text[start:stop], "start": start, "end": stop}
                if named:
                    word["language"] = part.language
                words.append(word if tag is None else word | {"pos": tag})
        return words

    def _entities(self, text: str, layout: _Layout, scores: _Scores) -> list[dict[str, Any]]:
        entities = []
        for part, begin, end in layout.parts:
            if (name := self.taggers.get(("entities", part.language))) is None:
                continue
            tagger: TagTask = self._of(TagTask, name)
            path, sure = self._path(name, scores.of(name, begin, end))
            own = Sentence([], text, layout.units[begin:end])
            for span in spans([tagger.tags.names[number] for number in path], tagger.tags.scheme):
                told = told_span(span, own, sure)
                entities.append({key: told[key] for key in ("text", "start", "end", "label", "score")})
        return entities

    def _path(self, name: str, given: Answer) -> tuple[np.ndarray, np.ndarray]:
        """What a tagger says of units that follow each other, and how sure it is."""
        tagger: TagTask = self._of(TagTask, name)
        return best_tags([given], None if tagger.settings.decode == "greedy" else tagger.tags.steps)


class _Scores:
    """The heads' scores of all units, the windows joined again."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers
        self._rows: dict[str, np.ndarray] = {}

    def rows(self, part: str, head: str) -> np.ndarray:
        """(units, C) of a head that reads units; (windows, C) of one that reads [CLS]."""
        name = joined(part, head)
        if name not in self._rows:
            self._rows[name] = np.concatenate([answer.scores[name] for answer in self._answers])
        return self._rows[name]

    def of(self, part: str, begin: int, end: int) -> Answer:
        """What a part's own heads say of some of the units."""
        first = self._answers[0]
        own = {"tags": self.rows(part, "tags")[begin:end]}
        if (crf := joined(part, "crf")) in first.scores:
            own["crf"] = first.scores[crf]
        return Answer(first.example, own)


def _text(record: Record) -> str:
    text = require(record, "text", str)
    if not text.strip():
        raise record.error("the text is empty (nothing but white space); leave the record out")
    return text


def _kept_whole(dictionary: Dictionary, shown: str, units: Offsets) -> list[tuple[int, int]]:
    """Each unit is a word, but for those that the dictionary has as one."""
    found, at = [], 0
    for first, last in dictionary.matches(shown, units) if len(dictionary) else ():
        found += [(one, one + 1) for one in range(at, first)] + [(first, last)]
        at = last
    return found + [(one, one + 1) for one in range(at, len(units))]


def _main_language(layout: _Layout) -> str:
    """The language that most of the text is in; none where no part of it is in one that has heads."""
    counts = dict.fromkeys(_LANGUAGES, 0)
    for part, begin, end in layout.parts:
        if part.language in counts:
            counts[part.language] += end - begin
    return max(counts, key=lambda language: counts[language]) if any(counts.values()) else ""
