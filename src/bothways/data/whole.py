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

    A file replaces what has its name; a folder replaces an empty one only.

    Raises:
        OSError: as the block, or the name is taken.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    remove(part)
    try:
        yield part
        if part.is_dir() and path.is_dir():
            path.rmdir()
        part.replace(path)
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
