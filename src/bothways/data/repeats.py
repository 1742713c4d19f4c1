"""Which records stand in the training data too, by a hash of what a model reads of each, whatever its labels are."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterable, Sequence
from typing import Any

import numpy as np

from bothways.data.record import Record

MOST = 1 << 17  # hashes that a model's folder keeps: 1 MB
_WHOLE = ("text", "tokens", "words")  # one text, as it is or in words
_OTHERS = (
    "text_a",
    "text_b",
    "anchor",
    "positive",
    "negative",
    "question",
    "context",
    "choices",
    "predicate",
    "source",
)


def text_hashes(record: Record) -> list[int]:
    """64 bits of what is read of the record: one number, or one for each of the tasks that it is of.

    White space and capitals make no difference, nor whether a text is given in words.
    """
    fields, named = record.fields, record.fields.get("task")
    if isinstance(named, list):  # of several tasks, each with its own record under its name
        return [_hash(str(name), own) for name in named if isinstance(own := fields.get(name), dict)]
    return [_hash(str(named), fields)]


def _hash(task: str, fields: dict[str, Any]) -> int:
    whole = next((fields[name] for name in _WHOLE if name in fields), "")
    parts = [task, "".join(map(str, whole)) if isinstance(whole, list) else str(whole)]
    parts += [f"{name}={fields[name]}" for name in _OTHERS if name in fields]
    read = "\0".join("".join(part.split()).lower() for part in parts)
    return int.from_bytes(hashlib.blake2b(read.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def first_places(records: Iterable[Record]) -> dict[int, Record]:
    """For each text of the records, the first of them that has it."""
    places: dict[int, Record] = {}
    for record in records:
        for number in text_hashes(record):
            places.setdefault(number, record)
    return places


def repeated(records: Sequence[Record], known: Container[int]) -> list[Record]:
    """The records of whose texts one is `known`."""
    return [record for record in records if any(number in known for number in text_hashes(record))]


def kept_hashes(hashes: Collection[int]) -> np.ndarray | None:
    """(n,) uint64, ascending: what a model's folder keeps of the texts it learnt from; None: they are too many."""
    return np.array(sorted(hashes), dtype=np.uint64) if len(hashes) <= MOST else None
