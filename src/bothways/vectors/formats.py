"""Files of vectors: .npy (vectors only), .jsonl and .parquet (the records with their vectors)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bothways.data.record import Record
from bothways.errors import DataError
from bothways.text.characters import replace_surrogates

DECIMALS = 9  # in JSON: float32 has no more near 1
MOST = 2**31 - 1  # numbers of a row group's vectors: Parquet's lists count with 32 bits
_HEADER = 128  # bytes of a .npy header, which is rewritten when the number of rows is known


@dataclass(frozen=True)
class Block:
    """Some records and their vectors.

    vectors: (m, D) float32, those of all records
    sizes:   (n,) how many each record has
    places:  for parts of texts: what they are and where they stand, by record
    """

    records: list[Record]
    vectors: np.ndarray
    sizes: np.ndarray
    places: list[dict[str, Any]] | None

    def of_each(self) -> list[np.ndarray]:
        """Each record's vectors."""
        return np.split(self.vectors, np.cumsum(self.sizes)[:-1])

    def halves(self) -> tuple[Block, Block]:
        """The same as two blocks."""
        at = len(self.records) // 2
        cut = int(self.sizes[:at].sum())
        first, second = (None, None) if self.places is None else (self.places[:at], self.places[at:])
        return (
            Block(self.records[:at], self.vectors[:cut], self.sizes[:at], first),
            Block(self.records[at:], self.vectors[cut:], self.sizes[at:], second),
        )


@dataclass
class Columns:
    """The fields that records have, and of what types: columns of a table that hasn't been read to its end."""

    kinds: dict[str, set[type]] = field(default_factory=dict)
    several: bool = False  # whether a record had more than one text

    def add(self, records: Sequence[Record]) -> None:
        """See these too."""
        for record in records:
            for name, value in record.fields.items():
                self.kinds.setdefault(name, set()).add(_kind(value))

    def type_of(self, name: str) -> type:
        """One type that holds all values: numbers, truth values, None's, or (others as JSON) strings."""
        kinds = self.kinds[name] - {type(None)}
        if not kinds:
            return type(None)
        for wanted, allowed in ((bool, {bool}), (int, {int, Exact}), (float, {int, float})):
            if kinds <= allowed:
                return wanted
        return str


class Exact(int):
    """A whole number that a float would round: it stands in a column of whole numbers, but in none of floats."""


def _kind(value: Any) -> type:
    if type(value) is not int or abs(value) <= 2**53:
        return type(value)
    return Exact if -(2**63) <= value < 2**63 else str  # more than a table's whole number holds


class Writer(Protocol):
    """Blocks in order, then `close`. replaced: fields of records that the vectors' own took the place of"""

    replaced: set[str]

    def write(self, block: Block) -> None:
        """Add a block."""
        ...

    def close(self) -> None:
        """End the file."""
        ...


class NpyWriter:
    """One array: (n, D) float32, or (n, g, D) where each record has g texts."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.file = path.open("wb")
        self.file.write(b"\0" * _HEADER)
        self.count, self.shape = 0, ()
        self.replaced: set[str] = set()

    def write(self, block: Block) -> None:
        """Its vectors as they lie in memory."""
        texts = int(block.sizes[0])
        shape = (texts, block.vectors.shape[1]) if texts > 1 else block.vectors.shape[1:]
        self.shape = self.shape or shape
        if self.shape != shape or (block.sizes != texts).any():
            raise DataError("records have different numbers of texts, which an array can't hold; write .jsonl")
        self.file.write(np.ascontiguousarray(block.vectors, dtype="<f4").tobytes())
        self.count += len(block.sizes)

    def close(self) -> None:
        """Say at the beginning how many rows there are."""
        shape = (self.count, *self.shape)
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode("latin1")
        self.file.seek(0)
        self.file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
        self.file.write(header.ljust(_HEADER - 11) + b"\n")
        self.file.close()


class JsonlWriter:
    """Each record with "vector", "vectors" (of several texts) or "parts"."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self.replaced: set[str] = set()

    def write(self, block: Block) -> None:
        """One line a record."""
        places = block.places or [None] * len(block.records)
        for record, own, place in zip(block.records, block.of_each(), places, strict=True):
            vectors = np.round(own.astype(np.float64), DECIMALS).tolist()
            if place is not None:
                new: dict[str, Any] = {"parts": _parts(place, vectors)}
            else:
                new = {"vector": vectors[0]} if len(vectors) == 1 else {"vectors": vectors}
            self.replaced |= new.keys() & record.fields.keys()
            line = json.dumps(record.fields | new, ensure_ascii=False, default=str)
            self.file.write(replace_surrogates(line) + "\n")

    def close(self) -> None:
        """End the file."""
        self.file.close()


def _parts(place: dict[str, Any], vectors: list[Any]) -> list[dict[str, Any]]:
    offsets = place["offsets"] or [None] * len(vectors)
    return [
        {"text": text, **({} if span is None else {"start": span[0], "end": span[1]}), "vector": vector}
        for text, span, vector in zip(place["texts"], offsets, vectors, strict=True)
    ]


class ParquetWriter:
    """The records' fields as columns, beside "vector" (a list of float32), "vectors" or "parts"."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns, self.writer = path, columns, None
        self.replaced: set[str] = set()

    def write(self, block: Block) -> None:
        """One row group, or as many as hold it."""
        import pyarrow as pa
        from pyarrow import parquet

        if block.vectors.size > MOST and len(block.records) > 1:
            for half in block.halves():
                self.write(half)
            return
        made = table_of(block.records, self.columns)
        for name, column in self._vectors(block, pa).items():
            if name in made.column_names:
                self.replaced.add(name)
                made = made.drop_columns([name])
            made = made.append_column(name, column)
        if self.writer is None:
            self.writer = parquet.ParquetWriter(self.path, made.schema)
        self.writer.write_table(made)

    def _vectors(self, block: Block, pa: Any) -> dict[str, Any]:
        width = block.vectors.shape[1]
        flat = pa.array(block.vectors.reshape(-1), pa.float32())
        rows = pa.ListArray.from_arrays(pa.array(np.arange(len(block.vectors) + 1) * width, pa.int32()), flat)
        bounds = np.concatenate([[0], np.cumsum(block.sizes)]).astype(np.int32)
        if block.places is None:
            if not self.columns.several:
                return {"vector": rows}
            return {"vectors": pa.ListArray.from_arrays(bounds, rows)}
        texts = [replace_surrogates(text) for place in block.places for text in place["texts"]]
        spans = [span for place in block.places for span in place["offsets"] or [(None, None)] * len(place["texts"])]
        parts = {
            "text": pa.array(texts, pa.string()),
            "start": pa.array([start for start, _ in spans], pa.int32()),
            "end": pa.array([end for _, end in spans], pa.int32()),
            "vector": rows,
        }
        struct = pa.StructArray.from_arrays(list(parts.values()), names=list(parts))
        return {"parts": pa.ListArray.from_arrays(bounds, struct)}

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()


def table_of(records: Sequence[Record], columns: Columns) -> Any:
    """The fields of records as a table of pyarrow."""
    import pyarrow as pa

    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), type(None): pa.null()}
    table = {}
    for name in columns.kinds:
        kind = columns.type_of(name)
        table[name] = pa.array([_as(record.fields.get(name), kind) for record in records], types[kind])
    return pa.table(table)


def _as(value: Any, kind: type) -> Any:
    """A value as that type; what JSON knows becomes JSON in a column of strings, a date, time or decimal plain text."""
    if value is None:
        return None
    if kind is not str:
        return kind(value)
    if isinstance(value, bool | int | float | list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return replace_surrogates(str(value))


WRITERS: dict[str, Callable[[Path, Columns], Writer]] = {
    ".npy": NpyWriter,
    ".jsonl": JsonlWriter,
    ".parquet": ParquetWriter,
}
