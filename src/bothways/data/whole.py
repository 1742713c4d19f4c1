"""Writing a file or a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden neighbour of `path` to write to: it takes that name when the block ends, and is removed if it fails.

    A file replaces what has its name; a folder replaces an empty one only. The folders that `path` lies in are made.
    When the block has ended, the disk has it.

    Raises:
        OSError: as the block, or the name is taken.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(part)
    try:
        yield part
        if part.is_dir() and path.is_dir():
            path.rmdir()
        for written in (*part.rglob("*"), part) if part.is_dir() else (part,):
            sync(written)
        part.replace(path)
        sync(path.parent)
    finally:
        remove(part)


def sync(path: Path) -> None:
    """Wait until the disk has this file, or this folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
