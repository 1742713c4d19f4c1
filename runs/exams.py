"""What sentence vectors are scored on: alike pairs, translations, retrieval and clusters, in English and Chinese."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from runs.rows import Row, read_records, write_records
from runs.tfidf import numbers, records, term_weights, tfidf_cosine

from bothways.infer.predictor import Predictor
from bothways.metrics.clusters import clusters as cluster_scores
from bothways.tasks.embed_metrics import embed_metrics
from bothways.vectors.cluster import assign
from bothways.vectors.index import unit
from bothways.vectors.retrieval import evaluate_retrieval

Kind = Literal["similarity", "translation", "retrieval", "clusters"]
QUICK = 100  # records of a quick run
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Exam:
    """One set. metrics: those that are told, the main one first; note: what a reader has to know"""

    name: str
    kind: Kind
    place: str
    metrics: tuple[str, ...]
    note: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that a model has to know."""
        return ("en", "zh") if self.kind == "translation" else (self.place[:2],)


SIMILAR, RANKED, AMONG = ("spearman", "pearson"), ("ndcg@10", "recall@10"), ("map", "mrr@10")
CLUSTERS = ("nmi", "accuracy", "ari", "v_measure")
EXAMS = (
    Exam("stsb", "similarity", "en/pair/stsb", SIMILAR),
    Exam("stsb_zh", "similarity", "zh/pair/stsb_zh", SIMILAR, "Machine-translated from stsb."),
    Exam(
        "tatoeba",
        "translation",
        "zh/translation/tatoeba_en_zh",
        ("en_zh", "zh_en"),
        "Whether a sentence's own translation is the nearest of all 987; other right translations count as wrong.",
    ),
    Exam("cranfield", "retrieval", "en/retrieval/cranfield", RANKED),
    Exam("wikiqa", "retrieval", "en/retrieval/wikiqa", AMONG, "Ranked within the judged candidates."),
    Exam("trecqa", "retrieval", "en/retrieval/trecqa", AMONG, "Ranked within the judged candidates."),
    Exam(
        "cmrc_passage", "retrieval", "zh/retrieval/cmrc_passage", RANKED, "The built-in model has learnt train: seen."
    ),
    Exam("drcd_passage", "retrieval", "zh/retrieval/drcd_passage", RANKED, "Traditional characters."),
    *(
        Exam(place.split("/")[2], "clusters", place, CLUSTERS, note)
        for place, note in (
            ("en/clustering/20newsgroups/test", ""),
            ("en/clustering/ag_news_test/all", ""),
            ("en/clustering/bbc_news/all", ""),
            ("en/clustering/biomedical/all", ""),
            ("en/clustering/googlenews_t/all", ""),
            ("en/clustering/searchsnippets/all", "Function words were taken out by the source."),
            ("en/clustering/stackoverflow/all", "all-MiniLM's training data name Stack Exchange's titles: seen."),
            ("en/clustering/tweet89/all", ""),
            ("zh/classification/thucnews_titles/test", ""),
            ("zh/classification/csl_category/test", "The built-in model has learnt train's labels: seen."),
        )
    ),
)


@dataclass(frozen=True)
class Room:
    """Where the data are, and how much of them is taken."""

    shared: Path
    work: Path
    quick: bool

    def rows(self, file: str) -> list[Row]:
        """The records of a file, or a few of them."""
        rows = read_records(self.shared / f"{file}.jsonl.gz")
        return random.Random(0).sample(rows, min(QUICK, len(rows))) if self.quick else rows


def by_model(exam: Exam, room: Room, model: Predictor, seed: int) -> Row:
    """A model's scores; `seed` decides where KMeans begins."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that long texts are pooled over windows: told on the page
        if exam.kind == "retrieval":
            return _retrieval(exam, room, model)

        def embed(texts: Sequence[str]) -> np.ndarray:
            return _vectors(model, tuple(texts))

        if exam.kind == "clusters":
            return _clusters(exam, room, embed, seed)
        return (_similarity if exam.kind == "similarity" else _translation)(exam, room, embed)


@lru_cache(maxsize=1)
def _vectors(model: Predictor, texts: tuple[str, ...]) -> np.ndarray:
    """Of length 1, (texts, width); kept for the next, for KMeans begins at several seeds on the same."""
    return unit(np.asarray(model.embed(list(texts))))


def by_words(exam: Exam, room: Room, seed: int) -> dict[str, Row]:
    """The scores of what needs no model, by its name."""
    if exam.kind == "retrieval":
        return {"BM25": _retrieval(exam, room, None)}
    if exam.kind == "clusters":

        def weigh(texts: Sequence[str]) -> Any:
            return term_weights("words", (1, 1)).fit_transform(texts)

        return {"TF-IDF of words": _clusters(exam, room, weigh, seed)}
    if exam.kind == "translation":
        return {}
    train, dev, test = (room.rows(f"{exam.place}/{split}") for split in ("train", "dev", "test"))
    return {
        f"TF-IDF of {kind}": tfidf_cosine(train, dev, {"test": test}, kind)["test"] | {"records": len(test)}
        for kind in ("words", "characters")
    }


def _similarity(exam: Exam, room: Room, embed: Embed) -> Row:
    rows = room.rows(f"{exam.place}/test")
    a, b = (embed([row[name] for row in rows]) for name in ("text_a", "text_b"))
    scores = [{"score": float(score)} for score in (a * b).sum(1)]
    return numbers(embed_metrics(records(rows), scores, "graded")) | {"records": len(rows)}


def _translation(exam: Exam, room: Room, embed: Embed) -> Row:
    rows = room.rows(f"{exam.place}/test")
    sides = {name: ([row[name] for row in rows], embed([row[name] for row in rows])) for name in ("source", "target")}
    found: Row = {"records": len(rows)}
    for name, asked, there in (("en_zh", "source", "target"), ("zh_en", "target", "source")):
        pairs = [{"text_a": a, "text_b": b} for a, b in zip(sides[asked][0], sides[there][0], strict=True)]
        vectors = [{"vectors": [*two]} for two in zip(sides[asked][1], sides[there][1], strict=True)]
        found[name] = embed_metrics(records(pairs), vectors, "pairs")["accuracy"]
    return found


def _clusters(exam: Exam, room: Room, embed: Callable[[Sequence[str]], Any], seed: int) -> Row:
    """KMeans into as many clusters as there are labels."""
    rows = [row for row in room.rows(exam.place) if row["text"].strip()]
    labels = [row["label"] for row in rows]
    found, _ = assign(embed([row["text"] for row in rows]), clusters=len(set(labels)), seed=seed)
    return cluster_scores(labels, found.tolist()) | {"records": len(rows), "clusters": len(set(labels))}


def _retrieval(exam: Exam, room: Room, model: Predictor | None) -> Row:
    folder = room.shared / exam.place
    scores = numbers(evaluate_retrieval(model, _smaller(folder, room.work) if room.quick else folder))
    return {name: value for name, value in scores.items() if name != "seconds" and not name.startswith("tokens")}


def _smaller(folder: Path, work: Path) -> Path:
    """The first queries of a folder's test, what is judged for them, and a few other documents."""
    out = work / "smaller" / folder.name
    judged = read_records(folder / "qrels.test.jsonl.gz")
    queries = list(dict.fromkeys(row["query_id"] for row in judged))[: QUICK // 4]
    judged = [row for row in judged if row["query_id"] in queries]
    wanted = {row["corpus_id"] for row in judged}
    corpus = read_records(folder / "corpus.jsonl.gz")
    others = {row["_id"] for row in corpus[:QUICK]}
    file = next(path for name in ("queries.test", "queries") if (path := folder / f"{name}.jsonl.gz").is_file())
    write_records(out / "corpus.jsonl", [row for row in corpus if row["_id"] in wanted | others])
    write_records(out / "queries.jsonl", [row for row in read_records(file) if row["_id"] in queries])
    write_records(out / "qrels.test.jsonl", judged)
    return out
