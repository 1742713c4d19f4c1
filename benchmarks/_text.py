"""Raw text for benchmarks: of files that are named, or Python's own documentation, which is always there."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

MEGABYTE = 1_000_000
Document = list[str]  # its paragraphs


def read_documents(files: Sequence[Path] | None, megabytes: float) -> list[Document]:
    """The first so many MB of the files' documents, or of the docstrings in Python's standard library."""
    from bothways.cli.demo_text import read_library
    from bothways.data.documents import documents

    found: list[Document] = []
    size = 0
    library = (one.paragraphs for one in read_library(Path(sysconfig.get_path("stdlib"))))
    for paragraphs in (one.paragraphs for one in documents(files)) if files else library:
        if paragraphs:
            found.append(paragraphs)
            size += len(_written(paragraphs))
        if size >= megabytes * MEGABYTE:
            break
    return found


def write_documents(path: Path, documents: Iterable[Document], megabytes: float | None = None) -> int:
    """Write them as .txt; with `megabytes` at least so much, of documents in random orders, again and again.

    Drawn with a fixed seed, so the same documents make the same file. Gives its bytes.
    """
    size, documents = 0, list(documents)
    with path.open("wb") as file:
        for document in documents if megabytes is None else _again(documents):
            if megabytes is not None and size >= megabytes * MEGABYTE:
                break
            size += file.write(_written(document))
    return size


def _again(documents: list[Document]) -> Iterable[Document]:
    draw = random.Random(0)
    while documents:
        draw.shuffle(documents)
        yield from documents


def _written(paragraphs: Document) -> bytes:
    return ("\n".join(paragraphs) + "\n\n").encode()
