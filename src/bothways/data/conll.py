"""CoNLL files: a token a line, columns beside it, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bothways.data.files import open_text
from bothways.data.messages import shown
from bothways.data.record import Record
from bothways.errors import DataError

# Tabs, or else runs of blanks; not str.split(), because U+3000 and U+00A0 are tokens in character-level Chinese files.
BLANKS = re.compile(" +")


def read_conll(path: Path, *, columns: Sequence[str] = ()) -> Iterator[Record]:
    """One record a sentence: {"tokens": [first column], "tags": [last column]}, as CoNLL-2003 lays them out.

    Lines of -DOCSTART- are skipped. A file of one column has tokens only. The columns whose numbers (from 1) are
    in `columns` are given too, under their numbers: `--columns.tags 2` reads the tags from the second.

    Raises:
        DataError: a line with more or fewer columns than the first, or no column of that number.
    """
    wanted = sorted({int(name) for name in columns if name.isascii() and name.isdigit()})
    width, width_line = 0, 0
    start, rows = 0, []
    for number, line in open_text(path):
        if not line.strip(" \t"):
            if rows:
                yield Record(_sentence(rows, wanted), str(path), start)
            rows = []
            continue
        row = line.split("\t") if "\t" in line else BLANKS.split(line.strip(" "))
        if row[0] == "-DOCSTART-":
            continue
        if not width:
            width, width_line = len(row), number
            if bad := [column for column in wanted if not 1 <= column <= width]:
                raise DataError(f"no column {bad[0]}: this line has {width}", path=path, line=number)
        if len(row) != width or not row[0]:
            found = f"{len(row)} columns" if row[0] else "no token in the first column"
            message = (
                f"found {found} in {shown(line)}, wanted {width} as in line {width_line}: "
                "part columns by one tab and sentences by a blank line"
            )
            raise DataError(message, path=path, line=number)
        if not rows:
            start = number
        rows.append(row)
    if rows:
        yield Record(_sentence(rows, wanted), str(path), start)


def _sentence(rows: list[list[str]], wanted: list[int]) -> dict[str, Any]:
    fields: dict[str, Any] = {"tokens": [row[0] for row in rows]}
    if len(rows[0]) > 1:
        fields["tags"] = [row[-1] for row in rows]
    return fields | {str(column): [row[column - 1] for row in rows] for column in wanted}
