"""Opening text files: plain, .gz or .xz, as numbered lines of strict UTF-8."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bothways.data.encodings import MAGIC, advice, command, utf16_without_mark
from bothways.data.messages import listed, nearest, shown
from bothways.errors import DataError

CHUNK = 1 << 18  # bytes
COMPRESSED = {".gz": "gzip", ".xz": "xz"}


def suffix(path: str | Path) -> str:
    """The ending that names the format, in lower case, without .gz or .xz: ".jsonl" of "train.jsonl.gz"."""
    path = Path(path)
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.lower()


def open_text(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, without their ends, in constant memory.

    Lines end at LF, CRLF or CR and nowhere else: U+2028, U+0085, VT and FF are text, and so is NUL. A byte order
    mark at the start is dropped. A last line without an end counts as a line.

    Raises:
        DataError: the file is missing, a folder, empty, unreadable, damaged or not UTF-8.
    """
    number = 1
    held: list[str] = []  # what has been read of a line whose end has not
    for text in _decoded(Path(path)):
        first, *rest = text.split("\n")
        held.append(first)
        for following in rest:
            yield number, "".join(held)
            number += 1
            held = [following]
    if last := "".join(held):
        yield number, last


def check_file(path: str | Path) -> Path:
    """`path` when it names a file that can be opened and is not empty.

    Raises:
        DataError: it is missing (the nearest name in its folder is told), a folder, empty or not readable.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_open(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise _cannot_open(path, IsADirectoryError())
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise DataError("the file is empty", path=path)
    if not os.access(path, os.R_OK):
        raise _cannot_open(path, PermissionError())
    return path


def _chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, decompressed, at most CHUNK at a time and never none."""
    check_file(path)
    ending = path.suffix.lower()
    open_bytes = {".gz": gzip.open, ".xz": lzma.open}.get(ending, open)
    program = COMPRESSED.get(ending, "")
    done = 0
    with open_bytes(path, "rb") as stream:
        while True:
            try:
                chunk = stream.read(CHUNK)
            except EOFError:
                message = f"the {program} data breaks off after {done:,} bytes of text: fetch or pack the file again"
                raise DataError(message, path=path) from None
            except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
                raise _not_compressed(path, program, error, done) from None
            except OSError as error:
                raise _cannot_open(path, error) from None
            if not chunk:
                break
            done += len(chunk)
            yield chunk
    if not done:
        raise DataError("the file is empty", path=path)


def _decoded(path: Path) -> Iterator[str]:
    """The file's text, piece by piece, with every line end turned into LF."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = marked = 0  # of the chunk, and of the text after a byte order mark, in bytes
    lines = 1  # the line that the chunk begins on
    previous = b""
    for chunk in chain(_chunks(path), [b""]):  # the empty one brings out what the decoders hold back
        last = not chunk
        if offset == 0:
            if encoding := utf16_without_mark(chunk):
                message = f"every second byte is NUL: it looks like {encoding}: {command(encoding, path)}"
                raise DataError(message, path=path, line=1)
            if chunk.startswith(codecs.BOM_UTF8):
                offset = marked = len(codecs.BOM_UTF8)
                chunk = chunk[marked:]
        try:
            text = newlines.decode(utf8.decode(chunk, final=last), final=last)
        except UnicodeDecodeError as error:
            good = newlines.decode(error.object[: error.start].decode(), final=True)
            data, end = previous + chunk, offset + len(chunk)
            raise _not_utf8(path, error, data, end, lines + good.count("\n")) from None
        yield text
        offset += len(chunk)
        lines += text.count("\n")
        previous = chunk
    if offset == marked:
        raise DataError("the file is empty but for a byte order mark", path=path)


def _not_utf8(path: Path, error: UnicodeDecodeError, data: bytes, end: int, line: int) -> DataError:
    """What to say of `error`; `data` is the file's bytes up to `end`, as far back as they are at hand."""
    back = len(error.object) - error.start
    found = error.object[error.start : error.end].hex(" ").upper()
    what = advice(data, len(data) - back, at_start=end == len(data), path=path)
    return DataError(f"byte {end - back:,} ({found}) is not UTF-8; {what}", path=path, line=line)


def _not_compressed(path: Path, program: str, error: Exception, done: int) -> DataError:
    with open(path, "rb") as stream:
        head = stream.read(8)
    kind = next((what for magic, what, _ in MAGIC if head.startswith(magic)), "not compressed")
    if kind != f"{program} data":
        message = f"the name ends in {path.suffix} but this is {kind}: rename it"
    else:
        message = f"the {program} data is damaged after {done:,} bytes of text ({error}): fetch or pack the file again"
    return DataError(message, path=path)


def _cannot_open(path: Path, error: OSError | ValueError) -> DataError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _missing(path)
    if isinstance(error, IsADirectoryError):
        inside = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        return DataError(f"this is a folder, wanted a file; it holds {listed(inside, most=6)}", path=path)
    if isinstance(error, PermissionError):
        return DataError("no permission to read the file: try `chmod u+r` or another user", path=path)
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"the file cannot be read: {reason}", path=shown(str(path), 200))


def _missing(path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"no such file, and no folder {shown(str(folder), 200)}", path=path)
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        names = []
    near = nearest(path.name, names)
    if near:
        return DataError(f"no such file; did you mean {shown(str(folder / near), 200)}?", path=path)
    return DataError(f"no such file; the folder holds {listed(sorted(names), most=6)}", path=path)
