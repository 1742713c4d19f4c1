"""How shards lie on disk: .npy files that are appended to, and the manifest that makes them valid."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.batch import mix_seed
from bothways.data.tokenizing import DOCUMENT_END, SENTENCE_END, Tokenised
from bothways.data.whole import whole
from bothways.errors import DataError

FORMAT = 1
KINDS = ("ids", "flags")
LARGEST_MANIFEST = 64 << 20
"""Bytes; a manifest names its sources and shards, so a larger one is something else."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a corpus, or a shard of it, holds."""

    tokens: int = 0
    unknown_tokens: int = 0  # [UNK] among them
    sentences: int = 0
    documents: int = 0
    empty_documents: int = 0  # without a token, so not kept

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def shard_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of one shard: its ids and its flags."""
    return folder / f"{number:03d}.ids.npy", folder / f"{number:03d}.flags.npy"


def file_hash(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, checked as far as `open_shards` relies on it.

    Raises:
        DataError: there is none, or it is damaged or of another format.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise DataError("no finished shards here (no manifest.json); build them first", path=folder)
    remedy = f"remove {folder} to build it again"
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise ValueError("too large")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"shards of format {manifest['format']!r}, wanted {FORMAT}; {remedy}", path=path)
        Counts(**manifest["counts"])
        for shard in manifest["shards"]:
            _ = int(shard["tokens"]), *((int(shard[kind]["bytes"]), str(shard[kind]["sha256"])) for kind in KINDS)
        for key, kind in (("vocabulary", str), ("settings", dict), ("sources", list)):
            if not isinstance(manifest[key], kind):
                raise ValueError(key)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"damaged manifest ({type(error).__name__}: {error}); {remedy}", path=path) from error
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Put `manifest.json` in place, whole or not at all."""
    with whole(folder / "manifest.json") as part, part.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)


def clear_unfinished(folder: Path) -> None:
    """Remove what an interrupted build left, and nothing else."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"\d+\.(ids|flags)\.npy|\.manifest\.json\.part-\d+", path.name):
            path.unlink()


class ShardWriter:
    """Appends documents to all shards side by side, as .npy files whose headers are set right at the end."""

    def __init__(self, folder: Path, number: int, dtype: np.dtype[Any], unk_id: int) -> None:
        self._unk_id, self.counts, self._documents = unk_id, Counts(), 0
        self._dtypes = (dtype, np.dtype(np.uint8))
        self._shard_counts = [Counts()] * number
        self._names = [shard_paths(folder, shard) for shard in range(number)]
        with contextlib.ExitStack() as opened:
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [tuple(opened.enter_context(path.open("w+b")) for path in pair) for pair in self._names]
            for pair in self._files:
                for file, kind in zip(pair, self._dtypes, strict=True):
                    _write_header(file, kind, 0)
            self._open = opened.pop_all()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def append(self, part: Tokenised) -> None:
        """Deal the documents of `part`; which shard one goes to depends on nothing but its number."""
        numbers = range(self._documents, self._documents + len(part.counts))
        shard = np.array([mix_seed(number) % len(self._files) for number in numbers], dtype=np.int64)
        of_token = np.repeat(shard, part.counts)
        for number, (ids_file, flags_file) in enumerate(self._files):
            mine = of_token == number
            ids, flags = part.ids[mine], part.flags[mine]
            ids_file.write(ids.astype(self._dtypes[0]).data)
            flags_file.write(flags.data)
            counts = Counts(
                tokens=len(ids),
                unknown_tokens=int(np.count_nonzero(ids == self._unk_id)),
                sentences=int(np.count_nonzero(flags & SENTENCE_END)),
                documents=int(np.count_nonzero(flags & DOCUMENT_END)),
            )
            self._shard_counts[number] += counts
            self.counts += counts
        self._documents += len(part.counts)
        self.counts += Counts(empty_documents=int(np.count_nonzero(part.counts == 0)))

    def close(self) -> list[dict[str, Any]]:
        """Finish all files, on disk, and return the manifest's entries for them."""
        entries = []
        for counts, pair, names in zip(self._shard_counts, self._files, self._names, strict=True):
            entry: dict[str, Any] = {"tokens": counts.tokens}
            for file, path, dtype, kind in zip(pair, names, self._dtypes, KINDS, strict=True):
                file.seek(0)
                _write_header(file, dtype, counts.tokens)
                file.flush()
                os.fsync(file.fileno())
                entry[kind] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
            entries.append(entry)
        return entries


def _write_header(file: Any, dtype: np.dtype[Any], length: int) -> None:
    """A .npy header of 128 bytes; numpy itself leaves room for a first axis that grows, so it never changes size."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    )
