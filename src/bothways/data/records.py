"""Records from files of any known format, or from Python, one at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bothways.data.conll import read_conll
from bothways.data.files import check_file, open_text, suffix
from bothways.data.json_files import read_json, read_jsonl
from bothways.data.messages import kind_of, listed, nearest, shown
from bothways.data.record import IN_MEMORY, Record, require
from bothways.data.tables import read_csv, read_parquet, read_tsv
from bothways.errors import DataError

__all__ = ["READERS", "Record", "read_records", "require"]

_NOTHING = object()  # a record may be None by mistake, which is to be told
Source = str | Path | Iterable[Path] | Iterable[Mapping[str, Any] | str]


def read_txt(path: Path) -> Iterator[Record]:
    """One record {"text": line} for each line that is not blank."""
    return (Record({"text": line}, str(path), number) for number, line in open_text(path) if line.strip())


READERS = {
    ".conll": read_conll,
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tsv": read_tsv,
    ".txt": read_txt,
}


def read_records(
    source: Source, *, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> Iterator[Record]:
    """The records of `source`, streamed, in order.

    Args:
        source: one file (str or Path), several (Paths), or the records themselves: mappings, or strings, each of
            which becomes {"text": string}. A list of strings is always texts, so that no text is taken for a file.
        columns: {"text": "review"} gives the field "review" under the name "text"; other fields keep theirs
        limit: how many records at most; None for all

    The format of a file follows from its ending, .gz and .xz aside: READERS has them. Records given from Python may
    be none; a file must hold at least one.

    Raises:
        DataError: a file or record that cannot be used; the message says which, why and what to try.
    """
    return islice(_renamed(_records(source, columns or {}), columns or {}), limit)


def _records(source: Source, columns: Mapping[str, str]) -> Iterator[Record]:
    if isinstance(source, str | Path):
        yield from _file(_known(source), columns)
        return
    if isinstance(source, Mapping):
        raise DataError(f"found one object with {listed(map(str, source))}, wanted a list of records: put it in [ ]")
    items = iter(source)
    first = next(items, _NOTHING)
    if isinstance(first, Path):
        # All names are looked at before the first file is read, which may take long.
        paths = [_known(_path(item)) for item in chain([first], items)]
        for path in paths:
            yield from _file(path, columns)
    elif first is not _NOTHING:
        for number, item in enumerate(chain([first], items), 1):
            yield _given(item, number)


def _path(item: Any) -> Path:
    if not isinstance(item, Path):
        raise DataError(f"found {kind_of(item)} ({shown(item)}) among paths, wanted a pathlib.Path")
    return item


def _known(path: str | Path) -> Path:
    """`path`, when it is a file of a known format."""
    path = check_file(path)
    if suffix(path) not in READERS:
        found = f"the ending {shown(suffix(path))}" if suffix(path) else "a name without an ending"
        raise DataError(f"found {found}, wanted one of {' '.join(READERS)} (also .gz, .xz)", path=path)
    if suffix(path) == ".parquet" and path.suffix.lower() != ".parquet":
        raise DataError(f"Parquet is compressed inside: unpack it with `{_unpack(path)}`", path=path)
    return path


def _unpack(path: Path) -> str:
    return f"{'gunzip' if path.suffix.lower() == '.gz' else 'unxz'} {shlex.quote(str(path))}"


def _file(path: Path, columns: Mapping[str, str]) -> Iterator[Record]:
    ending = suffix(path)
    reader = read_conll(path, columns=tuple(columns.values())) if ending == ".conll" else READERS[ending](path)
    first = next(reader, None)
    if first is None:
        raise DataError("the file holds no record", path=path)
    yield first
    yield from reader


def _given(item: Any, number: int) -> Record:
    if isinstance(item, str):
        return Record({"text": item}, IN_MEMORY, number)
    if isinstance(item, Mapping) and all(isinstance(name, str) for name in item):
        return Record(dict(item), IN_MEMORY, number)
    message = f"found {kind_of(item)}, wanted a string or a dict whose keys are strings"
    raise DataError(message, path=IN_MEMORY, line=number)


def _renamed(records: Iterable[Record], columns: Mapping[str, str]) -> Iterator[Record]:
    """`records` with the fields that `columns` names under their other names."""
    if not columns:
        yield from records
        return
    renamed = set(columns.values())
    for record in records:
        for name, column in columns.items():
            if column not in record.fields:
                raise no_column(record, name, column)
        fields = {name: value for name, value in record.fields.items() if name not in renamed}
        fields |= {name: record.fields[column] for name, column in columns.items()}
        yield Record(fields, record.path, record.line, record.place)


def no_column(record: Record, name: str, column: str) -> DataError:
    """That a record has not the column which --columns names; the nearest one is told."""
    there: Sequence[str] = [str(field) for field in record.fields]
    near = nearest(column, there)
    hint = f"; did you mean --columns.{name} {near}?" if near else ""
    message = f"no column {shown(column)} (from --columns.{name}); there are {listed(there, like=column)}{hint}"
    return record.error(message)
