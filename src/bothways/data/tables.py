"""Tables: .csv, .tsv and .parquet, one record a row."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.data.files import check_file, open_text
from bothways.data.messages import listed, shown
from bothways.data.record import Record
from bothways.errors import DataError

if TYPE_CHECKING:
    import pyarrow

ROWS = 256  # of a Parquet file held as Python objects at a time


def read_csv(path: Path) -> Iterator[Record]:
    """One record a row, all values strings; the first row names the columns, blank lines are skipped.

    A quoted field may hold commas, doubled quotation marks and line ends, and be of any length.

    Raises:
        DataError: a row with more or fewer fields than the header, a quotation mark that is not closed.
    """
    csv.field_size_limit(2**31 - 1)  # the default declines fields of more than 131,072 characters
    rows = csv.reader((line + "\n" for _, line in open_text(path)), strict=True)
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(_unquotable(error), path=path, line=number) from None
        if not row:
            continue
        if header is None:
            header = _header(row, path, number)
        else:
            hint = 'a field that holds a comma wants quotation marks: "a, b"'
            yield _row(header, row, path, number, hint)


def read_tsv(path: Path) -> Iterator[Record]:
    """One record a line, all values strings, parted by tabs; quotation marks are text. The first line is the header.

    Raises:
        DataError: a line with more or fewer fields than the header.
    """
    header: list[str] | None = None
    for number, line in open_text(path):
        if not line:
            continue
        if header is None:
            header = _header(line.split("\t"), path, number)
        else:
            hint = "a field can hold neither a tab nor a line end: use .jsonl for such text"
            yield _row(header, line.split("\t"), path, number, hint)


def read_parquet(path: Path) -> Iterator[Record]:
    """One record a row, read a few hundred rows at a time; `line` counts rows from 1.

    A number that is none (NaN, which pandas writes where nothing is; or infinity) is read as nothing, as in JSON.

    Raises:
        DataError: the file is not Parquet, damaged, or has two columns of one name.
    """
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(check_file(path), pre_buffer=False, page_checksum_verification=True) as file:
            _no_twins(file.schema_arrow.names, path, None)
            for batch in file.iter_batches(batch_size=ROWS):
                for fields in _dates_spelt(batch).to_pylist():
                    row += 1
                    yield Record(_plain(fields), str(path), row)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = shown((str(error).splitlines() or [type(error).__name__])[0], 160)
        where = f"damaged after row {row}" if row else "not a Parquet file, or damaged"
        raise DataError(f"{where}: {reason}: write the file again", path=path) from None


def _dates_spelt(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Dates and times as text, as a .csv has them: Python holds neither nanoseconds nor the year 10000."""
    from pyarrow import types

    for place, field in enumerate(batch.schema):
        if types.is_timestamp(field.type) or types.is_date(field.type) or types.is_time(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).cast("string"))
        elif types.is_duration(field.type):
            batch = batch.set_column(place, field.name, batch.column(place).cast("int64"))
    return batch


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(header: list[str], row: list[str], path: Path, number: int, hint: str) -> Record:
    if len(row) != len(header):
        message = f"{len(row)} fields where the header has {len(header)} ({listed(header, most=6)}); {hint}"
        raise DataError(message, path=path, line=number)
    return Record(dict(zip(header, row, strict=True)), str(path), number)


def _header(names: list[str], path: Path, number: int) -> list[str]:
    _no_twins(names, path, number)
    return names


def _no_twins(names: list[str], path: Path, number: int | None) -> None:
    if twins := sorted({name for name in names if names.count(name) > 1}):
        message = f"two columns are named {listed(twins)}; the first line must name each column once"
        raise DataError(message, path=path, line=number)


def _unquotable(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return 'a quotation mark opened in this row is never closed; write "" for one inside a quoted field'
    return f'text after a closing quotation mark ({error}); write "" for one inside a quoted field'
