"""A file of records to a file of vectors: streamed, resumed after a kill, written whole or not at all.

The vectors of so many records at a time (a part) go to a file of their own in a hidden folder beside the output, under
the number of the part and a hash of its records. A run that finds a part there already doesn't compute it again. When
all are there, the output is put together from them and renamed into place, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.messages import listed
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.data.shard_files import file_hash
from bothways.data.whole import beside, held, remove
from bothways.errors import ConfigError, DataError, Stopped
from bothways.infer.embedding import Parts, Told, embedded
from bothways.infer.predictor import Predictor, segmented
from bothways.models.files import read_json
from bothways.models.reading import ADVICE, POINTS_LOST
from bothways.tasks.base import Coverage
from bothways.tasks.embed import PARTS, EmbedTask
from bothways.vectors.formats import WRITERS, Block, Columns
from bothways.vectors.progress import Counted

PART = 2048  # records: as many as are sorted by length and computed together
PART_OF_WORDS = 256  # where each record has many vectors
_DECIDING = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_BESIDE = (ADVICE, POINTS_LOST)  # of bothways.json: what is said of learning and of other precisions


@dataclass(frozen=True)
class Embedded:
    """What was written. reused: the records of parts that an earlier run had left"""

    records: int
    width: int
    reused: int
    coverage: Coverage
    told: list[str]


def embed_file(
    predictor: Predictor,
    data: str | Path,
    out: str | Path,
    *,
    identity: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    segmenter: Predictor | None = None,
    quiet: bool = False,
    keep: bool = False,
) -> Embedded:
    """Write the vectors of every record of `data` to `out`: .npy, .jsonl or .parquet.

    Args:
        predictor: of `Predictor.embedder`
        identity: what decides the vectors (`identity_of` and options), so that parts of others are not taken for these
        segmenter: a segmentation model, by which texts are parted into words
        keep: leave the parts beside `out`, for who has more to do and, stopped, would begin again here

    Memory does not grow with the number of records.

    Raises:
        ConfigError: `out` exists or is of no known kind, or the unfinished work beside it is of another `identity`.
        DataError: a record that can't be embedded, or the file changes meanwhile; what was computed is kept for the
            next run.
        Stopped: Ctrl-C; the same again goes on.
    """
    out = Path(out)
    task = predictor.model.task
    assert isinstance(task, EmbedTask)
    parted = task.level in PARTS
    check_out(out, parted=parted)
    out.parent.mkdir(parents=True, exist_ok=True)
    size = PART_OF_WORDS if parted else PART
    work = beside(out, "parts")
    with held(work):
        _bind(work, identity)
        counted = Counted("records", quiet=quiet)
        told, seen, files, reused = Told(), Columns(), [], 0
        try:
            for path, chunk in _parts(data, columns, work, size):
                seen.add(chunk)
                if path.is_file():
                    reused += len(chunk)
                else:
                    _write_part(path, predictor, chunk, told.records, segmenter)
                _add(told, seen, path)
                files.append(path)
                counted.at(told.records)
        except KeyboardInterrupt:
            raise Stopped(f"stopped after {told.records:,} records; the same command goes on from there") from None
        counted.end(told.records)
        width, replaced = _assemble(out, work, files, _again(data, columns, work, size, files), seen)
        if not keep:
            remove(work)
    lines = told.lines()
    if replaced:
        lines.append(f"the records' own {listed(sorted(replaced))} gave way to what is written under that name")
    return Embedded(told.records, width, reused, told.coverage, lines)


def identity_of(predictor: Predictor) -> dict[str, Any]:
    """What decides a predictor's vectors beside its options: its model's files, and how it reads and pools texts."""
    task = predictor.model.task
    assert isinstance(task, EmbedTask)
    reading = {name: getattr(task.settings, name) for name in ("pooling", "normalize", "long", "max_length")}
    return files_of(predictor.model.folder) | {
        "task": reading | {"prompts": task.prompts, "prompt": task.prompt},
        "max_length": predictor.max_length,
        "precision": predictor.engine.precision,
    }


def files_of(folder: Path | None) -> dict[str, Any]:
    """Hashes of the files that decide what a model answers; none where it is in no folder."""
    weights = sorted(folder.glob("*.safetensors")) if folder is not None else []
    files = [folder / name for name in _DECIDING] if folder is not None else []
    hashes = {path.name: file_hash(path) for path in files if path.is_file()}
    if folder is not None and (own := folder / "bothways.json").is_file():
        said = {name: value for name, value in read_json(own).items() if name not in _BESIDE}
        hashes[own.name] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return {"weights": [file_hash(path) for path in weights], "files": hashes}


def check_out(out: Path, *, parted: bool) -> None:
    """Raises ConfigError where the output can't be written."""
    if out.exists():
        raise ConfigError(f"--out {out} exists already; give another file, or remove it first")
    if out.suffix not in WRITERS:
        raise ConfigError(f"--out {out} ends in {out.suffix or 'nothing'}; wanted one of {', '.join(WRITERS)}")
    if parted and out.suffix == ".npy":
        raise ConfigError(f"--out {out}: texts have different numbers of parts; wanted .jsonl or .parquet")


def _parts(
    data: str | Path, columns: Mapping[str, str] | None, work: Path, size: int
) -> Iterator[tuple[Path, list[Record]]]:
    """So many records at a time, and the file that their vectors are in or will be."""
    records, number = read_records(data, columns=columns), 0
    while chunk := list(islice(records, size)):
        hashed = hashlib.sha256()
        for record in chunk:
            hashed.update(json.dumps(record.fields, ensure_ascii=True, default=str).encode() + b"\n")
        yield work / f"{number:06}-{hashed.hexdigest()[:32]}.npz", chunk
        number += 1


def _again(
    data: str | Path, columns: Mapping[str, str] | None, work: Path, size: int, files: Sequence[Path]
) -> Iterator[list[Record]]:
    """The records of these parts once more, when they are still the same.

    Raises:
        DataError: they aren't.
    """
    for path, (found, chunk) in zip_longest(files, _parts(data, columns, work, size), fillvalue=(None, [])):
        if found != path:
            raise DataError("the file changed meanwhile; run the same again", path=data)
        yield chunk


def _write_part(
    path: Path, predictor: Predictor, records: Sequence[Record], first: int, segmenter: Predictor | None
) -> None:
    """The vectors of these records, whole or not at all."""
    told = Told()
    task = predictor.model.task
    assert isinstance(task, EmbedTask)
    if task.level != "word":  # at the others, words decide nothing
        segmenter = None
    chunk = list(records) if segmenter is None else segmented(records, segmenter)
    vectors, sizes, places = [], [], []
    for one in embedded(predictor, chunk, told=told, first=first):
        if isinstance(one, Parts):
            places.append({"texts": one.texts, "offsets": None if one.offsets is None else one.offsets.tolist()})
            own = one.vectors
        else:
            own = one.reshape(-1, one.shape[-1])
        vectors.append(own)
        sizes.append(len(own))
    counts = {"records": told.records, "coverage": asdict(told.coverage), "notes": told.notes}
    arrays = {
        "vectors": np.concatenate(vectors),
        "sizes": np.array(sizes),
        "places": np.frombuffer(json.dumps(places).encode(), dtype=np.uint8),
        "told": np.frombuffer(json.dumps(counts).encode(), dtype=np.uint8),
    }
    part = path.with_name(f"{path.name}.unfinished")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _add(told: Told, seen: Columns, path: Path) -> None:
    """Count what a part says of its records."""
    with np.load(path) as arrays:
        own = json.loads(arrays["told"].tobytes())
        seen.several |= bool((arrays["sizes"] != 1).any())
    told.records += own["records"]
    told.coverage += Coverage(**own["coverage"])
    told.notes += Counter(own["notes"])


def _assemble(
    out: Path, work: Path, files: Sequence[Path], chunks: Iterator[list[Record]], seen: Columns
) -> tuple[int, set[str]]:
    """Put the output together and rename it into place; the vectors' width, and fields that had to give way.

    Until then it lies among the parts: what a kill leaves of it is written over by the next run.
    """
    part = work / f"output{out.suffix}"
    width = 0
    try:
        with contextlib.closing(WRITERS[out.suffix](part, seen)) as writer:
            for chunk, path in zip(chunks, files, strict=True):  # chunks first, for that looks for what has been added
                with np.load(path) as arrays:
                    vectors, sizes = arrays["vectors"], arrays["sizes"]
                    places = json.loads(arrays["places"].tobytes())
                width = vectors.shape[1]
                writer.write(Block(chunk, vectors, sizes, places or None))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return width, writer.replaced


# ------------------------------------------------------------------------------------------------ the folder of parts


def _bind(work: Path, identity: Mapping[str, Any]) -> None:
    """Note whose parts these are, or see that they are ours."""
    path = work / "made_by.json"
    wanted = json.loads(json.dumps(identity, default=str))
    if not path.is_file():
        part = path.with_name("made_by.json.unfinished")
        part.write_text(json.dumps(wanted, ensure_ascii=False, indent=2), encoding="utf-8")
        part.replace(path)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = {}
    if found != wanted:
        other = [name for name in wanted if found.get(name) != wanted[name]] or ["settings"]
        raise ConfigError(
            f"{work} holds the unfinished work of another run (its {', '.join(other)} differ); "
            "finish that one with its own command, remove the folder, or give another --out"
        )


def read_vectors(path: str | Path) -> tuple[list[Record], np.ndarray]:
    """The records of a .jsonl or .parquet file that `bothways embed` wrote, and their vectors (n, D) float32.

    Raises:
        DataError: a record without "vector", or with one of another length.
    """
    records = list(read_records(path))
    rows = []
    for record in records:
        vector = record.fields.pop("vector", None)
        if not isinstance(vector, list) or (rows and len(vector) != len(rows[0])):
            raise record.error('"vector" is missing or of another length; wanted a file that bothways embed wrote')
        rows.append(np.array(vector, dtype=np.float32))
    if not rows:
        raise DataError("the file holds no record", path=path)
    return records, np.stack(rows)
