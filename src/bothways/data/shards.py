"""A corpus tokenised once and kept as memory-mapped shards, each a random sample of its documents."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bothways.data.cores import available_cores
from bothways.data.documents import documents, text_files
from bothways.data.shard_files import (
    FORMAT,
    KINDS,
    Counts,
    ShardWriter,
    clear_unfinished,
    file_hash,
    read_manifest,
    shard_paths,
    write_manifest,
)
from bothways.data.tokenizing import Texts, Tokenised, tokenise_all
from bothways.data.whole import beside, held
from bothways.errors import ConfigError, DataError
from bothways.text.tokenizer import Tokenizer

SHARD_TOKENS = 6_000_000
BATCH_CHARACTERS = 500_000
"""Documents go to a worker in batches of about so many characters (one document may be longer)."""
MOST_SHARDS = 256
"""All shards are written side by side, two open files each."""
BYTES_A_TOKEN = 4
"""About: a Chinese character takes 3 bytes, an English token 4 to 5."""
SMALL_INPUT = 4_000_000
"""Bytes; below that a worker takes longer to start than to work."""


class Shard(NamedTuple):
    """One shard's n tokens in the order of their documents, memory-mapped."""

    ids: np.ndarray  # (n,) uint16 or uint32
    flags: np.ndarray  # (n,) uint8: bits WORD_START, SENTENCE_END, DOCUMENT_END


@dataclass(frozen=True, slots=True)
class Shards:
    """A finished folder of shards; `read` maps one of them."""

    folder: Path
    counts: Counts
    tokens: tuple[int, ...]  # of each shard
    vocabulary: str  # sha256 of the tokenizer that made them

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, number: int) -> Shard:
        """Shard `number`, mapped into memory and read from disk only where it is used."""
        maps = (np.load(path, mmap_mode="r", allow_pickle=False) for path in shard_paths(self.folder, number))
        ids, flags = (np.asarray(array) for array in maps)  # plain views: a memmap is slow to slice
        return Shard(ids, flags)


def build_shards(
    paths: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer,
    out: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    chinese_words: bool = True,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[Counts], None] | None = None,
) -> Shards:
    """Tokenise the documents under `paths` into `out`; a finished folder of the same request is used as it is.

    The documents are dealt over the shards by a hash of their number, so that a shard mixes all sources. The
    shards are the same, byte for byte, for any number of workers, and memory does not grow with the corpus.
    `manifest.json` is written last: a folder without it was interrupted, and building starts over.

    Args:
        columns: names of the columns that hold the text, as for `documents`.
        chinese_words: whether Chinese words, and not single characters, count as words.
        workers: processes that tokenise; 1 is this one. None: one a core, or 1 when the input is small.
        shard_tokens: about how many tokens a shard should have.
        progress: called now and then with what has been tokenised.

    Raises:
        DataError: no text; a source cannot be read; `out` holds other shards or damaged ones; the disk is full.
        ConfigError: `workers` or `shard_tokens` below 1, or another process is building there.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; wanted 1 or more")
    if shard_tokens < 1:
        raise ConfigError(f"shard_tokens is {shard_tokens}; wanted 1 or more")
    out, files = Path(out), text_files(paths)
    size = sum(_unpacked_bytes(file) for file in files)
    request = {
        "format": FORMAT,
        "vocabulary": tokenizer_hash(tokenizer),
        "settings": {"chinese_words": chinese_words, "shard_tokens": shard_tokens, "columns": dict(columns or {})},
        "sources": [{"path": str(file), "bytes": file.stat().st_size, "sha256": file_hash(file)} for file in files],
    }
    finished = out / "manifest.json"
    try:
        if not finished.exists():
            with held(beside(out, "building")):  # several runs may share a folder, and begin at one time
                if not finished.exists():
                    tokenised = tokenise_all(
                        _batches(document.paragraphs for document in documents(files, columns=columns)),
                        tokenizer,
                        chinese_words=chinese_words,
                        workers=workers or (1 if size < SMALL_INPUT else available_cores()),
                    )
                    number = min(MOST_SHARDS, max(1, round(size / BYTES_A_TOKEN / shard_tokens)))
                    _write(tokenised, tokenizer, out, number, request, progress)
                    return open_shards(out, verify=False)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space or name another folder" if full else "name another folder"
        raise DataError(f"cannot build shards: {error.strerror or error}; {remedy}", path=out) from error
    _refuse_other(request, read_manifest(out), out)
    return open_shards(out)


def _write(
    tokenised: Generator[Tokenised, None, None],
    tokenizer: Tokenizer,
    out: Path,
    number: int,
    request: Mapping[str, Any],
    progress: Callable[[Counts], None] | None,
) -> None:
    """Deal what has been tokenised over so many shards; nothing is left of them if that fails."""
    dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
    try:
        clear_unfinished(out)
        with contextlib.closing(tokenised), ShardWriter(out, number, dtype, tokenizer.unk_id) as writer:
            for part in tokenised:
                writer.append(part)
                if progress:
                    progress(writer.counts)
            if not writer.counts.tokens:
                sources = request["sources"]
                names = f"{sources[0]['path']}{' and other files' if len(sources) > 1 else ''}"
                empty = writer.counts.empty_documents
                raise DataError(f"no text to learn from in {names}: {empty} documents without a token")
            write_manifest(out, {**request, "counts": asdict(writer.counts), "shards": writer.close()})
    except BaseException:
        with contextlib.suppress(OSError):
            clear_unfinished(out)
        raise


def open_shards(folder: str | Path, *, verify: bool = True) -> Shards:
    """The shards in `folder`. With `verify` every file is read once and checked against its hash.

    Raises:
        DataError: no finished shards there, or a file is missing, damaged or of another format.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    remedy = f"remove {folder} to build it again"
    for number, shard in enumerate(manifest["shards"]):
        for path, kind in zip(shard_paths(folder, number), KINDS, strict=True):
            wanted = shard[kind]
            if not path.exists():
                raise DataError(f"this shard is missing; {remedy}", path=path)
            if path.stat().st_size != wanted["bytes"]:
                found = f"{path.stat().st_size:,} bytes where the manifest says {wanted['bytes']:,}"
                raise DataError(f"damaged shard: {found}; {remedy}", path=path)
            if verify and file_hash(path) != wanted["sha256"]:
                raise DataError(f"damaged shard: its sha256 has changed; {remedy}", path=path)
    return Shards(
        folder=folder,
        counts=Counts(**manifest["counts"]),
        tokens=tuple(shard["tokens"] for shard in manifest["shards"]),
        vocabulary=manifest["vocabulary"],
    )


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """sha256 of the tokenizer as it is saved: vocabulary and normalisation."""
    with tempfile.TemporaryDirectory(prefix="bothways-") as folder:
        tokenizer.save(folder)
        return file_hash(Path(folder) / "tokenizer.json")


def _refuse_other(request: dict[str, Any], manifest: dict[str, Any], out: Path) -> None:
    """Raise unless the folder's manifest is an answer to this request; files may have moved, but not changed."""
    differs: list[str] = []
    if request["vocabulary"] != manifest["vocabulary"]:
        differs.append("another vocabulary")
    for name, value in request["settings"].items():
        if (found := manifest["settings"].get(name)) != value:
            differs.append(f"{name} {found!r} (wanted {value!r})")
    wanted, found = ([(file["bytes"], file["sha256"]) for file in side["sources"]] for side in (request, manifest))
    if wanted != found:
        news = [file["path"] for file, key in zip(request["sources"], wanted, strict=True) if key not in found]
        olds = [file["path"] for file, key in zip(manifest["sources"], found, strict=True) if key not in wanted]
        told = [f"without {path}" for path in news[:1]] + [f"with {path}" for path in olds[:1]] or ["in another order"]
        differs.append(f"other sources ({', '.join(told)}; {len(found)} files, wanted {len(wanted)})")
    if differs:
        raise DataError(f"holds shards of {', '.join(differs)}; remove it or name another folder", path=out)


def _unpacked_bytes(file: Path) -> int:
    return file.stat().st_size * (4 if file.suffix in (".gz", ".xz") else 2 if file.suffix == ".parquet" else 1)


def _batches(texts: Iterable[list[str]]) -> Iterator[Texts]:
    batch: Texts = []
    size = 0
    for paragraphs in texts:
        batch.append(paragraphs)
        size += sum(map(len, paragraphs))
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
