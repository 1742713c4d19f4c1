"""Making an index, adding to one, deleting from one: the next generation is written whole, then told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.data.whole import beside, held, remove, sync
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.vectors.embed import embed_file
from bothways.vectors.formats import Columns, table_of
from bothways.vectors.index import FORMAT, MANIFEST, Index, graph_of, id_of, is_made_by, text_of, unit
from bothways.vectors.words import words_of

EXACT = 20_000  # records up to which all are compared: exact, and as fast as a graph
ROWS = 4096  # records held at a time
_GENERATION = re.compile(r"\d{6}")
_PART = f".{MANIFEST}.part"


@dataclass(frozen=True)
class Changed:
    """What a change did, and what should be known of the texts it embedded."""

    records: int
    added: int
    replaced: int
    deleted: int
    told: list[str]


def change_index(
    folder: Path,
    predictor: Predictor,
    *,
    data: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    delete: Iterable[str] = (),
    made_by: Mapping[str, Any],
    model: str = "",
    keywords: bool | None = None,
    quiet: bool = False,
) -> Changed:
    """Make an index of the records of `data`, or add them to one, replacing those of the same id; delete others.

    A record's id is its "id" or "_id", else its number, from 1 and after all that were ever added. Its text is its
    "text", after its "title" if it has one. Whatever stops this, the index stays as it was, and the same again goes on
    where the vectors were. The graph of many is built on all cores, so that the same records may give another one; what
    it finds is compared exactly, and may lack a record of the nearest.

    Args:
        predictor: of `Predictor.embedder`
        made_by: of `index.made_by`; it must be that of the index that there is
        model: where the model is, for searching
        keywords: whether the words are indexed too; None: as the index has it, in a new one they are

    Raises:
        ConfigError: `made_by` is not what the index was made by, an id to delete that it doesn't have, or another
            process is changing it.
        DataError: a record without text, an id given twice, or a field that is of another type in the index.
    """
    work = beside(folder, "work")
    with held(work):  # from reading what there is to writing what there will be
        try:
            changed = _changed(folder, work, predictor, data, columns, delete, made_by, model, keywords, quiet)
        finally:  # made anew each time, unlike the parts of vectors
            for name in ("records.jsonl", "vectors.npy"):
                remove(work / name)
        remove(work)
    return changed


def _changed(
    folder: Path,
    work: Path,
    predictor: Predictor,
    data: str | Path | None,
    columns: Mapping[str, str] | None,
    delete: Iterable[str],
    made_by: Mapping[str, Any],
    model: str,
    keywords: bool | None,
    quiet: bool,
) -> Changed:
    old = Index(folder, words=False) if (folder / MANIFEST).is_file() else None
    if old is None and folder.exists() and not all(_is_unfinished(one) for one in folder.iterdir()):
        raise ConfigError(f"--out {folder} exists already and is no index; give another folder")
    if old is not None and not is_made_by(old.manifest, made_by):
        raise ConfigError(
            f"{folder} was made by another model, by this one before it changed, or with other options; "
            "make a new index, or give that model"
        )
    if keywords is None:
        keywords = old is None or old.keywords
    if keywords:
        import bm25s  # noqa: F401  (where it is missing, that is known before the vectors are computed)
    gone = _numbers_of(old, list(delete))
    if old is not None and data is None and len(gone) == len(old.ids):
        raise DataError("no record would be left; remove the folder instead")
    told: list[str] = []
    new = np.empty((0, 0), dtype=np.float32)
    ids, last_number = dict[str, int](), _last_number(old)
    columns_seen, texts = Columns(), work / "records.jsonl"
    if data is not None:
        ids, last_number = _normalised(data, columns, texts, columns_seen, old)
        if old is not None:  # before the vectors are computed
            _joined([old.table.slice(0, 0), table_of([], columns_seen)])
        (work / "vectors.npy").unlink(missing_ok=True)
        done = embed_file(predictor, texts, work / "vectors.npy", identity=made_by, quiet=quiet, keep=True)
        told, new = done.told, np.load(work / "vectors.npy", mmap_mode="r")
    replaced = [number for number, id in enumerate(old.ids if old else ()) if id in ids]
    kept = np.ones(len(old.ids) if old else 0, dtype=bool)
    kept[[*gone, *replaced]] = False
    _write(
        folder,
        old,
        kept,
        texts if data is not None else None,
        new,
        columns_seen,
        {"model": model, "made_by": dict(made_by), "keywords": keywords, "last_number": last_number},
    )
    total = int(kept.sum()) + len(ids)
    return Changed(total, len(ids) - len(replaced), len(replaced), len(gone), told)


def _numbers_of(old: Index | None, ids: Sequence[str]) -> list[int]:
    if not ids:
        return []
    place = {id: number for number, id in enumerate(old.ids)} if old is not None else {}
    if missing := [id for id in ids if id not in place]:
        raise ConfigError(f"there is no record {missing[0]!r} to delete")
    return sorted({place[id] for id in ids})


def _normalised(
    data: str | Path, columns: Mapping[str, str] | None, path: Path, seen: Columns, old: Index | None
) -> tuple[dict[str, int], int]:
    """Write the records with "id" and with the text that is indexed; the ids and where they stand, and the last number.

    The number of a record is its id where it has none of its own.
    """
    ids: dict[str, int] = {}
    number = _last_number(old)
    taken: Container[str] = set(old.ids) if old is not None else ()
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for place, record in enumerate(read_records(data, columns=columns)):
            number += 1
            while str(number) in taken:  # given as an id of its own
                number += 1
            id, text = id_of(record, number), text_of(record)
            if id in ids:
                raise record.error(f"the id {id!r} is that of record {ids[id] + 1} too; wanted each once")
            ids[id] = place
            fields = {name: value for name, value in record.fields.items() if name not in ("_id", "id")}
            fields = {"id": id, **fields, "text": text}
            seen.add([Record(fields, record.path, record.line)])
            file.write(json.dumps(fields, ensure_ascii=True, default=str) + "\n")
    return ids, number


def _last_number(old: Index | None) -> int:
    """The last number that a record had, though it may be gone; an earlier index knows only how many there were."""
    return 0 if old is None else int(old.manifest.get("last_number", old.manifest["next_key"]))


def _is_unfinished(path: Path) -> bool:
    """Whether a stopped run may have left this of an index that was never told."""
    return _GENERATION.fullmatch(path.name) is not None or path.name == _PART


# ----------------------------------------------------------------------------------------------------------- writing


def _write(
    folder: Path,
    old: Index | None,
    kept: np.ndarray,
    texts: Path | None,
    new: np.ndarray,
    seen: Columns,
    about: Mapping[str, Any],
) -> None:
    """The next generation, whole, then the word of it."""
    folder.mkdir(parents=True, exist_ok=True)
    number = int(old.manifest["generation"]) + 1 if old is not None else 1
    place = folder / f"{number:06}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    table = _records(place / "records.parquet", old, kept, texts, seen)
    before = old.keys[kept] if old is not None else np.empty(0, dtype=np.int64)
    begin = int(old.manifest["next_key"]) if old is not None else 0
    added = np.arange(begin, begin + len(new), dtype=np.int64)
    np.save(place / "keys.npy", np.concatenate([before, added]))
    vectors = _vectors(place / "vectors.npy", old, kept, new)
    if len(vectors) > EXACT:
        graph = graph_of(vectors.shape[1], None)
        if old is not None and old.graph is not None:
            graph = graph_of(vectors.shape[1], old.place / "graph.usearch", view=False)
            graph.remove(old.keys[~kept])
            graph.add(added, np.ascontiguousarray(vectors[len(before) :]))
        else:
            graph.add(np.concatenate([before, added]), np.ascontiguousarray(vectors))
        graph.save(str(place / "graph.usearch"))
    split = [words_of(text) for text in table["text"].to_pylist()] if about["keywords"] else []
    if any(split):  # bm25s can't index texts of which none has a word
        import bm25s

        words = bm25s.BM25()
        words.index(split, show_progress=False)
        words.save(str(place / "words"), show_progress=False)
    manifest = {
        "format": FORMAT,
        "generation": place.name,
        "next_key": begin + len(new),
        "records": len(table),
        "width": vectors.shape[1],
        **about,
    }
    part = folder / _PART
    part.write_text(json.dumps(manifest, ensure_ascii=False, indent=2), encoding="utf-8")
    for path in (*place.rglob("*"), place, part):
        sync(path)
    part.replace(folder / MANIFEST)
    sync(folder)  # only then may the generation before this one go
    for other in folder.iterdir():
        if other.is_dir() and _GENERATION.fullmatch(other.name) and int(other.name) < int(place.name):
            shutil.rmtree(other)


def _records(path: Path, old: Index | None, kept: np.ndarray, texts: Path | None, seen: Columns) -> Any:
    """The records that stay and the new ones, as one table on disk."""
    import pyarrow as pa
    from pyarrow import parquet

    parts: list[Any] = [] if old is None else [old.table.filter(pa.array(kept))]
    if texts is not None:
        parts += [table_of(list(chunk), seen) for chunk in _chunks(read_records(texts))]
    table = _joined(parts)
    parquet.write_table(table, path)
    return table


def _joined(parts: Sequence[Any]) -> Any:
    """Tables as one, with the fields of all."""
    import pyarrow as pa

    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"a field is of another type than in the index: {reason}; give it another name") from None


def _chunks(records: Iterable[Record]) -> Iterable[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _vectors(path: Path, old: Index | None, kept: np.ndarray, new: np.ndarray) -> np.ndarray:
    """All vectors, of length 1, on disk."""
    sources = [] if old is None else [(old.vectors, np.flatnonzero(kept))]
    if len(new):
        sources.append((new, np.arange(len(new))))
    width = sources[0][0].shape[1]
    count = sum(len(rows) for _, rows in sources)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
    with path.open("wb") as file:  # by writing: on a full disk a mapped file ends the process
        np.lib.format.write_array_header_1_0(file, header)
        for vectors, rows in sources:
            for start in range(0, len(rows), ROWS):
                chunk = unit(vectors[rows[start : start + ROWS]])
                file.write(np.ascontiguousarray(chunk, dtype="<f4").data)
    return np.load(path, mmap_mode="r", allow_pickle=False)
