"""`bothways search`: the records of an index that are nearest to each query."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.cli.analyze import escaped
from bothways.config import FLAT, Common
from bothways.errors import ConfigError

SHOWN = 100  # characters of a text in lines for people


@dataclass(frozen=True)
class Search:
    """Find the records of an index that are nearest to each query."""

    index: tyro.conf.Positional[Path]
    """folder of the index"""
    query: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """what to look for"""
    queries: Path | None = None
    """or a file of queries with "text" """
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field of --queries that holds the text"""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """records a query"""
    by: Literal["both", "vectors", "words"] = "both"
    """by vectors, by words (BM25), or by both, joined by rank"""
    where: dict[str, str] = field(default_factory=dict)
    """--where.FIELD VALUE: only records whose field is so; >=2020, <5 and !=x compare"""
    rerank: str | None = None
    """folder of a pair model that reads each query with each of the best records"""
    depth: int = 100
    """records that it reads, a query"""
    model: str | None = None
    """the model that made the index, if it has moved since"""
    json: bool = False
    """one JSON line a query: {"query": …, "hits": […]}"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if bool(self.query) == (self.queries is not None):
            raise ConfigError("what is to be found? give queries, or a file by --queries F (one of the two)")
        if self.columns and self.queries is None:
            raise ConfigError("--columns is for the file of --queries; leave it out")
        for name in ("k", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")


def run(argv: list[str]) -> int:
    """Print them."""
    wanted = config.load(Search, argv, prog="bothways search")
    from bothways.data.records import read_records, require
    from bothways.infer.predictor import load
    from bothways.vectors.index import Index
    from bothways.vectors.search import search

    index = Index(wanted.index, words=wanted.by != "vectors")
    device = wanted.common.device
    predictor = None if wanted.by == "words" else _predictor(index, wanted)
    reranker = load(wanted.rerank, device=device) if wanted.rerank is not None else None
    asked = read_records(wanted.queries or "", columns=wanted.columns) if not wanted.query else ()
    queries = wanted.query or [require(record, "text", str) for record in asked]
    told: list[str] = []
    found = search(
        index,
        predictor,
        queries,
        k=wanted.k,
        by=wanted.by,
        where=wanted.where,
        reranker=reranker,
        depth=wanted.depth,
        told=told,
    )
    if not wanted.common.quiet:
        for line in told:
            print(line, file=sys.stderr)
    for query, hits in zip(queries, found, strict=True):
        if wanted.json:
            print(json.dumps({"query": query, "hits": hits}, ensure_ascii=False))
            continue
        if len(queries) > 1:
            print(f"# {escaped(query)}")
        if not hits and not wanted.common.quiet:
            print("nothing found" + (f": {escaped(query)}" if len(queries) > 1 else ""), file=sys.stderr)
        for rank, hit in enumerate(hits, 1):
            text = " ".join(hit["text"].split())
            shown = escaped(text[:SHOWN]) + ("…" if len(text) > SHOWN else "")
            print(f"{rank:>3}  {hit['score']:.4f}  {escaped(hit['id'])}  {shown}")
    return 0


def _predictor(index: Any, wanted: Search) -> Any:
    """The model that made the index, as it is asked.

    Raises:
        ConfigError: it is another one, or it has changed since.
    """
    from bothways.infer.predictor import load
    from bothways.vectors.index import embedder_of, is_made_by, made_by

    options = index.manifest["made_by"]["options"]
    model = load(wanted.model or index.manifest["model"], device=wanted.common.device)
    if not is_made_by(index.manifest, made_by(model, options)):
        raise ConfigError(
            f"{model.model.folder} is not the model that made {wanted.index}, or has changed since; give that one by "
            f"--model, or index anew: bothways index {wanted.model or index.manifest['model']} --data F --out NEW"
        )
    return embedder_of(model, options, "query")
