"""The records that vectors are learnt from, told apart by their fields.

pairs    {"text_a": "谁写了它？", "text_b": "它是鲁迅写的。"}, with "negative" (a text or several) a triplet; also with
         sentence-transformers' names, "anchor", "positive", "negative". The other records' texts are negatives too.
graded   {"text_a": "…", "text_b": "…", "label": 4.6}; the number may also be called "score"
texts    {"text": "…"}: each with itself under other dropout (SimCSE)
teacher  {"text": "…", "vector": […]}: another model's vector, as `bothways embed` writes it; "translation" (a text or
         several), if it is there, learns the same vector
words    {"text": "…", "taught": WordVectors}: another model's vectors of its words, which no file has: with
         `embed.teacher`, `train.teaching` makes them of single texts
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bothways.batch import Piece, Read
from bothways.data.record import Record, require
from bothways.errors import DataError
from bothways.tasks.labels import as_label

Kind = Literal["pairs", "graded", "texts", "teacher", "words"]
TAUGHT = "taught"  # the field of a record that has its WordVectors
_GRADES = ("label", "score")


@dataclass(frozen=True, slots=True)
class WordVectors:
    """A teacher's vectors of a text's words.

    offsets: (u, 2) where each word stands in the text, in characters
    vectors: (u, D') float16: a corpus of them has to fit into memory
    """

    offsets: np.ndarray
    vectors: np.ndarray


def kind_of_all(records: Sequence[Record], positive: str | None) -> Kind:
    """What the records are, all of them.

    Raises:
        DataError: there is none, two are of different kinds, or one is of none.
    """
    found: Kind | None = None
    width = 0
    for record in records:
        kind = _kind_of(record, positive)
        if found is not None and kind != found:
            raise record.error(
                f"a record of {_NAMES[kind]} among records of {_NAMES[found]}; wanted all of one kind: "
                "train on one file, then go on from that model with the other"
            )
        found = kind
        if kind == "teacher":
            vector = record.fields["vector"]
            size = len(vector if isinstance(vector, np.ndarray) else require(record, "vector", list))
            if width and size != width:
                raise record.error(f'"vector" has {size} numbers, those before have {width}; wanted one teacher\'s')
            width = size
    if found is None:
        raise DataError("there is no record")
    return found


_NAMES = {
    "pairs": "pairs",
    "graded": "graded pairs",
    "texts": "single texts",
    "teacher": "a teacher's vectors",
    "words": "a teacher's vectors of words",
}


def _kind_of(record: Record, positive: str | None) -> Kind:
    if is_taught_words(record):
        return "words"
    if "anchor" in record.fields:
        return "pairs"
    if "text_a" not in record.fields and "text_b" not in record.fields:
        return "teacher" if record.fields.get("vector") is not None else "texts"
    name = next((name for name in _GRADES if record.fields.get(name) is not None), None)
    if name is None or positive is not None:
        return "pairs"
    if _number(record.fields[name]) is None:
        raise record.error(
            f'"{name}" is {record.fields[name]!r}; wanted a number that grades the pair, or --embed.positive LABEL: '
            "the label that says that both texts belong together"
        )
    return "graded"


def _number(value: Any) -> float | None:
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None


def texts_of(record: Record, kind: Kind | None, positive: str | None) -> list[str]:
    """The texts that get a vector each; `kind` None: to predict.

    Two or more of a pair, its negatives last; one text twice, or once if it has a teacher, then its translations. None
    of a pair whose label is not `positive`.

    Raises:
        DataError: a field that is missing or no text.
    """
    if kind in ("texts", "teacher") or (kind is None and "text" in record.fields):
        text = require(record, "text", str)
        if kind == "teacher":
            return [text, *_several(record, "translation")]
        return [text, text] if kind == "texts" else [text]
    names = ("anchor", "positive") if "anchor" in record.fields else ("text_a", "text_b")
    if kind is None and not any(name in record.fields for name in names):
        return [require(record, "text", str)]
    if kind == "pairs" and positive is not None:
        label = next((record.fields[name] for name in _GRADES if name in record.fields), None)
        if label is None or as_label(label) != positive:
            return []
    first, second = (require(record, name, str) for name in names)
    return [first, second, *(_several(record, "negative") if kind != "graded" else [])]


def _several(record: Record, name: str) -> list[str]:
    """A field of one text or several, or none."""
    if record.fields.get(name) is None:
        return []
    value = require(record, name, str, list[str])
    return [value] if isinstance(value, str) else value


def grade_of(record: Record) -> float:
    """How alike the two texts of a graded pair are.

    Raises:
        DataError: no number.
    """
    name = next((name for name in _GRADES if record.fields.get(name) is not None), "label")
    return float(require(record, name, float))


def vector_of(record: Record) -> list[float]:
    """The teacher's vector.

    Raises:
        DataError: not a list of finite numbers.
    """
    if isinstance(vector := record.fields.get("vector"), np.ndarray):
        return vector.tolist()
    vector = require(record, "vector", list)
    for number, value in enumerate(vector, 1):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise record.error(f'number {number} of "vector" is {value!r}; wanted finite numbers')
    if not vector:
        raise record.error('"vector" is an empty list; wanted numbers')
    return vector


def is_taught_words(record: Record) -> bool:
    """Whether a teacher's vectors of its words are in it."""
    return isinstance(record.fields.get(TAUGHT), WordVectors)


def check_taught(records: Sequence[Record], *, words: bool) -> None:
    """That a teacher can be asked for vectors of these records, or of their words.

    Raises:
        DataError: one is no single text without a vector, or its words don't stand in a text.
    """
    for record in records:
        if _kind_of(record, None) != "texts":
            raise record.error(
                'embed.teacher gives vectors of single texts, and this record is none; wanted "text" alone'
            )
        if words and record.fields.get("translation") is not None:
            raise record.error(
                'a "translation" has no words that the teacher has vectors of; leave it out, or say '
                "embed.taught sentence"
            )
        if words:
            require(record, "text", str)


def taught_words(record: Record, read: Read, offsets: np.ndarray | None) -> Read:
    """What is read of the words at `offsets` (u, 2), of those that the teacher has a vector of, with these."""
    taught = record.fields[TAUGHT]
    known = {place: number for number, place in enumerate(map(tuple, taught.offsets.tolist()))}
    if offsets is None:
        raise record.error('the words of "tokens" don\'t stand in "text"; wanted the text that they are parts of')
    numbers = [known.get(place) for place in map(tuple, offsets.tolist())]
    kept = np.array([number is not None for number in numbers], dtype=bool)
    labels = taught.vectors[[number for number in numbers if number is not None]]
    rows = read.rows[np.repeat(kept, read.groups)]
    return Read(rows, read.groups[kept], labels=labels, weight=float(kept.sum()))


def labels_of(record: Record, kind: Kind, texts: Sequence[Sequence[Piece]]) -> np.ndarray:
    """What the loss wants of each text.

    pairs, texts: (g, 2) int64, its role (0 anchor, 1 positive, 2 negative) and a hash of its tokens, by which the same
    text elsewhere in the step is no negative. graded: (g, 1) the grade. teacher: (g, D') the teacher's vector.
    """
    if kind == "graded":
        return np.full((len(texts), 1), grade_of(record), dtype=np.float32)
    if kind == "teacher":
        vector = record.fields["vector"]  # an array is one that was asked for (train.teaching)
        own = vector if isinstance(vector, np.ndarray) else np.array(vector_of(record), dtype=np.float32)
        return np.tile(own, (len(texts), 1))
    roles = [min(number, 2) for number in range(len(texts))]
    return np.array([[role, _hash(pieces)] for role, pieces in zip(roles, texts, strict=True)], dtype=np.int64)


def _hash(pieces: Sequence[Piece]) -> int:
    ids = b"".join(np.asarray(piece.input_ids, np.int32).tobytes() for piece in pieces)
    return int.from_bytes(hashlib.blake2b(ids, digest_size=8).digest(), "little", signed=True)
