"""One record, where it stands, how its fields are asked for, and what is told when several can't be used."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from bothways.data.files import suffix
from bothways.data.messages import KINDS, kind_of, listed, nearest, shown
from bothways.errors import DataError

K = TypeVar("K")
R = TypeVar("R")
T = TypeVar("T")
IN_MEMORY = "<records>"  # the path of records that come from a Python sequence
ENDINGS = (".conll", ".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
MAX = sys.float_info.max
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as its file holds it.

    fields: by name; whatever the file has beside what a task wants passes through
    path:   the file, or "<records>" for a Python sequence
    line:   where it begins, from 1: the line of a text file, the row of a Parquet file, the place in a sequence;
            None in a .json file, where one line may hold many records
    place:  what a message says instead of the line: "record 17"
    """

    fields: dict[str, Any]
    path: str
    line: int | None
    place: str = ""

    @property
    def where(self) -> str:
        """Where it stands, as messages say it: "reviews.jsonl:17", "squad.json: record 17"."""
        if self.line is None:
            return f"{self.path}: {self.place}" if self.place else self.path
        return f"{self.path}:{self.line}"

    def error(self, message: str) -> DataError:
        """A DataError about this record that says where it stands."""
        return DataError(f"{self.place}: {message}" if self.place else message, path=self.path, line=self.line)


@overload
def require(record: Record, name: str, kind: type[K], /) -> K: ...
@overload
def require(record: Record, name: str, kind: type, /, *kinds: type) -> Any: ...
def require(record: Record, name: str, /, *kinds: type) -> Any:
    """The field `name`, when it is of one of `kinds`: str, bool, int, float, list, dict, list[str] or list[int].

    A whole number is taken for a float, and a number written as text (as CSV must) for an int or a float where no
    string is wanted; true and false are no numbers, and NaN and infinity are refused.

    Raises:
        DataError: the field is missing (those there are told, the nearest first) or of another type.
    """
    if name not in record.fields:
        raise _missing(record, name)
    value = record.fields[name]
    for kind in kinds:
        if _is(value, kind):
            return float(value) if kind is float and int not in kinds else value
    if isinstance(value, str):
        if int in kinds and WHOLE.fullmatch(value.strip()):
            return int(value)
        if float in kinds and NUMBER.fullmatch(value.strip()) and math.isfinite(float(value)):
            return float(value)
    wanted = " or ".join(KINDS.get(kind, kind.__name__) for kind in kinds)
    raise record.error(f"{shown(name)} is {_found(value, kinds)}, wanted {wanted}")


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -MAX <= value <= MAX
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == list[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind == list[int]:
        return isinstance(value, list) and all(_is(item, int) for item in value)
    return isinstance(value, kind)


def _found(value: Any, kinds: tuple[type, ...]) -> str:
    """What stands there instead: the first wrong item of a list, or the type and the value."""
    for kind, item_kind in ((list[str], str), (list[int], int)):
        if kind in kinds and isinstance(value, list):
            at, item = next((at, item) for at, item in enumerate(value) if not _is(item, item_kind))
            return f"a list whose item {at + 1} is {kind_of(item)}"
    if value is None or isinstance(value, list | dict):
        return kind_of(value)
    return f"{kind_of(value)} ({shown(value)})"


def _missing(record: Record, name: str) -> DataError:
    there = [str(field) for field in record.fields]
    text = record.fields.get("text")
    if record.path == IN_MEMORY and there == ["text"] and isinstance(text, str) and suffix(text) in ENDINGS:
        hint = f"a list of strings is read as texts: for a file, pass pathlib.Path({shown(text)})"
    elif record.path == IN_MEMORY and there in (["text"], ["text_a", "text_b"]):
        given = "a text" if len(there) == 1 else "two texts"
        hint = f"{given} alone won't do: give records that have it, as dicts in Python or in a file by --data F"
    elif len(there) == 1 and suffix(Path(record.path)) in (".csv", ".tsv") and {*";\t,"} & {*there[0]}:
        hint = f"fields are parted by {'tabs' if suffix(Path(record.path)) == '.tsv' else 'commas'}: mend the file"
    else:
        hint = f"if it has another name, say --columns.{name} {shlex.quote(nearest(name, there) or 'NAME')}"
    if record.line and record.line > 1 and suffix(Path(record.path)) in (".csv", ".tsv"):
        hint += " (the first line must name the columns)"
    return record.error(f"no field {shown(name)}; there are {listed(there, like=name)}; {hint}")


def read_all(records: Sequence[R], read: Callable[[R], T]) -> list[T]:
    """What `read` makes of each record; when some can't be used, the first is told, and how many more there are.

    Raises:
        DataError: `read`'s, with the count.
    """
    results: list[T] = []
    errors: list[DataError] = []
    for record in records:
        try:
            results.append(read(record))
        except DataError as error:
            errors.append(error)
    if not errors:
        return results
    first, more = errors[0], len(errors) - 1
    if not more:
        raise first
    told = DataError(f"{first}; {more:,} more of {len(records):,} records can't be used either")
    told.path, told.line = first.path, first.line
    raise told
