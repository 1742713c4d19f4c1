"""Writing a file or a folder whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import ConfigError


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


def taken(folder: Path) -> str:
    """Why no folder can be put in place here: something is there, or this process stands in it; "" where one can."""
    if folder.is_symlink() or folder.is_file() or (folder.exists() and any(folder.iterdir())):
        return f"{folder} exists already; give another folder, or remove it first"
    if folder.resolve() == Path.cwd():  # it is put in place whole, and whoever stands in it would not see it
        return f"{folder} is the folder that you are in; give another one"
    return ""


@contextmanager
def held(work: Path) -> Iterator[None]:
    """A folder of unfinished work, made if need be, for this process alone; removed if nothing was left in it.

    Raises:
        ConfigError: another process holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = work / "lock"
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(file.fileno()), lock.stat())  # or who had it has cleared it away meanwhile
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise ConfigError(f"another process is writing to {work}; wait for it, or give another folder")
        try:
            yield
        finally:
            if work.is_dir() and [*work.iterdir()] == [lock]:
                remove(work)


def beside(out: Path, ending: str) -> Path:
    """The hidden neighbour of `out` for unfinished work, whatever way its name is written ("." is a folder too).

    Raises:
        ConfigError: it has no neighbour.
    """
    place = out.resolve()
    if not place.name:
        raise ConfigError(f"{out} is the root of all folders; give one in it")
    return place.with_name(f".{place.name}.{ending}")


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
