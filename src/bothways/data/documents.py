"""Documents for pre-training and vocabularies, from files and folders, in memory that does not grow with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bothways.data.files import check_file, open_text, suffix
from bothways.data.messages import shown
from bothways.data.record import Record, require
from bothways.data.records import no_column, read_records
from bothways.errors import DataError

ENDINGS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
MAX_CHARACTERS = 1_000_000  # of a document; a longer one is cut at a line end
LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Document:
    """Text that belongs together.

    paragraphs: its lines, without their ends; none is blank
    path, line: the file, and the line (or the Parquet row) where it begins, from 1
    part:       1, or 2, 3, … for what follows a cut in a document of more than a million characters
    """

    paragraphs: list[str]
    path: str
    line: int
    part: int = 1


def documents(paths: str | Path | Sequence[str | Path], columns: Mapping[str, str] | None = None) -> Iterator[Document]:
    """The documents of files and folders, in the order of `text_files`.

    In .txt, blank lines part documents and each line is a paragraph. In the other formats each record is a document:
    its field "text" (or the column that `columns` names for it), whose lines are paragraphs; a record whose text is
    blank is none. Several columns with commas between ("source,target"), or a list of texts, are a document each. No
    text is lost: what exceeds a million characters goes on in the next part, and one line is never cut.

    Raises:
        DataError: a file that cannot be used, a record without text, no document at all.
    """
    found = False
    for path in text_files(paths):
        for document in _text_documents(path) if suffix(path) == ".txt" else _record_documents(path, columns):
            found = True
            yield document
    if not found:
        *others, last = text_files(paths)
        also = f"; nor do {len(others)} other files" if others else ""
        raise DataError(f"the file holds no text, every line or record is blank{also}", path=last)


def text_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """All files under `paths`, sorted; hidden ones (".name") inside folders are left out.

    Raises:
        DataError: a path that is missing, a folder without files, a file of an unknown kind, a file given twice.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    files: dict[Path, Path] = {}  # by resolved path
    for given in map(Path, paths):
        inside = [given]
        if given.is_dir():
            inside = list(_walk(given, ()))
            if not inside:
                raise DataError(f"a folder without text files, wanted {' '.join(ENDINGS)}", path=given)
        for path in inside:
            _check_kind(path, in_folder=path is not given)
            if other := files.get(path.resolve()):
                again = "" if other == path else f", as {shown(str(other), 200)} too"
                raise DataError(f"the file is given twice{again}: name it once, or it counts double", path=path)
            files[path.resolve()] = path
    if not files:
        raise DataError("no text file is given: name files or folders with --text")
    return sorted(files.values())


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files under `folder`, by name, following links to folders unless they lead back up."""
    here = folder.resolve()
    if here in above:
        raise DataError("the folder is a link to a folder that holds it: remove the link", path=folder)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror}", path=folder) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, (*above, here))
        else:
            yield entry


def _check_kind(path: Path, *, in_folder: bool) -> None:
    if suffix(path) not in ENDINGS:
        out = '; to leave it out, move it away or put a "." before its name' if in_folder else ""
        message = f"not a kind of text file known here, wanted {' '.join(ENDINGS)} (also .gz, .xz){out}"
        raise DataError(message, path=path)
    if not check_file(path).is_file():
        raise DataError("neither a file nor a folder (a pipe or device?): write the text to a file", path=path)


def _text_documents(path: Path) -> Iterator[Document]:
    """The documents of a .txt file: what stands between blank lines."""
    for blank, lines in groupby(open_text(path), key=lambda line: not line[1].strip()):
        if not blank:
            yield from _parts(lines, str(path))


def _record_documents(path: Path, columns: Mapping[str, str] | None) -> Iterator[Document]:
    others = dict(columns or {})
    given = others.pop("text", None)
    for record in read_records(path, columns=others):
        number = record.line or 1
        for field in _fields(record, given):
            texts = require(record, field, str, list[str])
            for text in [texts] if isinstance(texts, str) else texts:
                yield from _parts(((number, line) for line in LINE_END.split(text) if line.strip()), str(path))


def _fields(record: Record, given: str | None) -> list[str]:
    """The fields that hold a record's texts, of those given by --columns.text with commas between.

    Raises:
        DataError: there is no such field.
    """
    if given is None:
        return ["text"]
    names = [given] if given in record.fields else [name.strip() for name in given.split(",")]
    for name in names:
        if name not in record.fields:
            raise no_column(record, "text", name)
    return list(dict.fromkeys(names))


def _parts(lines: Iterable[tuple[int, str]], path: str) -> Iterator[Document]:
    """One document's lines as a Document, or as several of at most MAX_CHARACTERS where a line end allows it."""
    paragraphs: list[str] = []
    start, size, part = 0, 0, 1
    for number, line in lines:
        if paragraphs and size + len(line) > MAX_CHARACTERS:
            yield Document(paragraphs, path, start, part)
            paragraphs, size, part = [], 0, part + 1
        if not paragraphs:
            start = number
        paragraphs.append(line)
        size += len(line)
    if paragraphs:
        yield Document(paragraphs, path, start, part)
