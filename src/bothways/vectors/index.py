"""An index on disk: records, their vectors, a graph of near ones where there are many, and words for BM25.

DIR/index.json      which model made the vectors, with which options; the newest generation
DIR/000001/         a generation: it never changes; index.json is replaced when the next one is whole
    records.parquet the records' fields, and "id"
    vectors.npy     (n, D) float32, of length 1
    keys.npy        (n,) int64: the records' keys in the graph
    graph.usearch   absent below `EXACT` records, where all are compared
    words/          absent if it was not wanted
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from bothways.data.record import Record, require
from bothways.errors import ModelError
from bothways.infer.predictor import Predictor
from bothways.tasks.embed import EmbedTask
from bothways.vectors.embed import identity_of

FORMAT = 1
MANIFEST = "index.json"
T = TypeVar("T")


class Index:
    """One generation of an index, opened whole, so that a change of the index meanwhile does not reach it.

    table:   the records, as a table of pyarrow
    vectors: (n, D) float32, on disk until they are needed
    keys:    (n,) int64, rising
    graph:   usearch's index; None where there are few
    words:   bm25s's index; None where there is none, or where it was not to be opened
    """

    def __init__(self, folder: Path, *, words: bool = True) -> None:
        """words: open them too, if the index has them.

        Raises:
            ModelError: no index, or one that is damaged.
        """
        self.folder = folder
        for last in (False, True):  # a change that ends while this opens takes the generation away
            try:
                self._open(words)
                return
            except ModelError:
                if last:
                    raise

    def _open(self, words: bool) -> None:
        from pyarrow import parquet

        self.manifest = read_manifest(self.folder)
        self.place = place = self.folder / self.manifest["generation"]
        self.table: Any = self._part("records", lambda: parquet.read_table(place / "records.parquet", memory_map=True))
        self.vectors: np.ndarray = self._part("vectors", lambda: np.load(place / "vectors.npy", mmap_mode="r"))
        self.keys: np.ndarray = self._part("keys", lambda: np.load(place / "keys.npy"))
        graph = place / "graph.usearch"
        self.graph: Any = graph_of(self.vectors.shape[1], graph) if graph.is_file() else None
        self.words: Any = None
        if words and (place / "words").is_dir():
            import bm25s

            load = bm25s.BM25.load
            self.words = self._part("words", lambda: load(str(place / "words"), mmap=True, show_progress=False))
        if read_manifest(self.folder) != self.manifest:  # then a part that seems not to be there may have been
            raise ModelError(f"{self.folder} is being changed; try again")

    def _part(self, what: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ModelError(f"{self.place}: the {what} can't be read ({error}); index the records again") from None

    @cached_property
    def ids(self) -> list[str]:
        """The records' ids, in order."""
        return self.table["id"].to_pylist()

    @property
    def keywords(self) -> bool:
        """Whether the words are wanted too; texts that have none leave nothing of them on disk."""
        return self.manifest.get("keywords", (self.place / "words").is_dir())

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The fields of these records; what a record didn't have is left out."""
        found = self.table.take(list(rows)).to_pylist() if len(rows) else []
        return [{name: value for name, value in record.items() if value is not None} for record in found]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What index.json says.

    Raises:
        ModelError: no index, or one of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} is no index ({MANIFEST} is missing); make one: bothways index MODEL --data F --out DIR"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        generation = manifest["generation"]
        whole = manifest["format"] == FORMAT and Path(generation).name == generation
    except (ValueError, KeyError, TypeError):
        whole, manifest = False, {}
    if not whole or not (folder / manifest["generation"]).is_dir():
        raise ModelError(f"{path} is damaged, or of another release; index the records again")
    return manifest


def id_of(record: Record, number: int) -> str:
    """A record's id, as text."""
    found = next((record.fields[name] for name in ("id", "_id") if record.fields.get(name) is not None), number)
    if isinstance(found, dict | list):
        raise record.error('"id" is a list or an object; wanted a string or a number')
    return str(found)


def text_of(record: Record) -> str:
    """What is indexed of a record: its title, if it has one, and its text."""
    text, title = require(record, "text", str), record.fields.get("title")
    return f"{title} {text}" if isinstance(title, str) and title.strip() else text


def embedder_of(model: Predictor, options: Mapping[str, Any], side: Literal["query", "document"]) -> Predictor:
    """The model with the index's options, and with its own prompt for that side if it has one."""
    task = model.model.task
    return model.embedder(**options, prompt=task.prompt_of(side) if isinstance(task, EmbedTask) else None)


def made_by(model: Predictor, options: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the vectors of an index: the model's files, how it reads documents, and the index's options."""
    return identity_of(embedder_of(model, options, "document")) | {"options": dict(options)}


def is_made_by(manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an index is of that; one of an older release says less of what made it, and only that is compared."""
    return all(wanted.get(name) == value for name, value in manifest["made_by"].items())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; a vector of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def graph_of(width: int, path: Path | None, *, view: bool = True) -> Any:
    """usearch's graph for cosines of vectors of length 1, new or from disk."""
    from usearch.index import Index as Graph

    graph = Graph(ndim=width, metric="ip", dtype="f32")
    if path is not None:
        try:
            graph.view(str(path)) if view else graph.load(str(path))
        except (RuntimeError, OSError, ValueError) as error:
            raise ModelError(f"{path}: the graph can't be read ({error}); index the records again") from None
    return graph
