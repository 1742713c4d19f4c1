"""How well a model finds: scores on a folder of a corpus, queries and judgements (qrels).

    corpus.jsonl         {"_id": "d1", "title": "", "text": "…"}
    queries[.SPLIT].jsonl {"_id": "q1", "text": "…"}
    qrels[.SPLIT].jsonl  {"query_id": "q1", "corpus_id": "d1", "score": 1}

So a folder of BEIR is read as it is, whose judgements are in qrels/SPLIT.tsv, as query-id and corpus-id. Where
judgements of 0 are listed too (WikiQA, TrecQA), only the judged candidates of a query are ranked, unless the whole
corpus is asked for. Queries without a relevant document are left out, and so is a document that is the query itself
(ArguAna, Quora). By words, only documents that share one with the query are found.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bothways.data.messages import listed, shown
from bothways.data.record import Record, require
from bothways.data.records import READERS, read_records
from bothways.errors import DataError, ModelError
from bothways.infer.embedding import Told, embedded
from bothways.infer.inputs import records_of
from bothways.infer.predictor import Predictor
from bothways.metrics.retrieval import retrieval
from bothways.vectors.index import embedder_of, id_of, text_of, unit
from bothways.vectors.search import DEPTH, best, fused, has_text, pair_scores
from bothways.vectors.words import words_of

LONGEST = 1000  # documents of a ranking that are scored, as trec_eval does
SCORED = {10: ("ndcg@10", "mrr@10", "recall@10", "map"), 100: ("recall@100",)}
_ENDINGS = [ending + zipped for ending in READERS for zipped in ("", ".gz", ".xz")]

Ranking = dict[str, list[tuple[str, float]]]
Candidates = Literal["auto", "judged", "corpus"]


def evaluate_retrieval(
    model: Predictor | None, folder: str | Path, *, split: str = "test", candidates: Candidates = "auto"
) -> dict[str, Any]:
    """`ndcg@10`, `mrr@10`, `recall@10`, `recall@100`, `map` of the model; of BM25 as `words.…`, of both as `both.…`

    Both are joined as `search` does it, by the best hundred of each. A `pair` or `similarity` model reads each query
    with each candidate (of a whole corpus: with BM25's best hundred).
    None: BM25 alone.

    Args:
        model: what gives vectors, or reads pairs
        folder: of corpus, queries and qrels
        split: which queries and qrels
        candidates: what is ranked for a query: its judged documents, the corpus, or (auto) the first where grades of 0
            are listed, else the second

    Raises:
        DataError: a file that is missing, or a judgement of what is not there.
        ModelError: a model of another task that is no embedding model either.
    """
    begun = time.perf_counter()
    folder = Path(folder)
    corpus = list(read_records(_needed(folder, "corpus")))
    documents: dict[str, str] = {}
    for number, record in enumerate(corpus, 1):
        if (id := id_of(record, number)) in documents:
            raise record.error(f"the id {id!r} is that of an earlier document too; wanted each once")
        documents[id] = text_of(_with(record, "text"))
    every_grade, zeros = _qrels(folder, split, documents)
    judged = zeros if candidates == "auto" else candidates == "judged"
    grades = {query: given for query, given in every_grade.items() if any(grade > 0 for grade in given.values())}
    if not grades:
        message = (
            f"no query of {split} has a document of grade 1 or above, so there is nothing to find; another --split?"
        )
        raise DataError(message, path=folder)
    queries = _queries(folder, split, grades)
    itself = {query for query, text in queries.items() if _is_itself(text, documents.get(query), grades[query], query)}
    task = getattr(model.model.task, "name", None) if model is not None else None
    told = Told()
    words = _without(itself, _by_words(documents, queries, grades if judged else None))
    if model is None:
        rankings = {"words.": words}
    elif task in ("pair", "similarity"):
        found_first = {query: [id for id, _ in words[query][:DEPTH]] for query in queries}
        read = {query: list(grades[query]) for query in queries} if judged else found_first
        rankings = {"": _without(itself, _by_pairs(model, documents, queries, read, told)), "words.": words}
    elif task not in (None, "embed", "pretrain", "masked", "multi"):
        raise ModelError(f"a model of {task} doesn't find texts; wanted one of embed, pair or similarity")
    else:
        own = _without(itself, _by_vectors(model, documents, queries, grades if judged else None, told))
        both = {query: _fused(own[query][:DEPTH], words[query][:DEPTH]) for query in queries}
        rankings = {"": own, "words.": words, "both.": both}
    scores: dict[str, Any] = {}
    for name, ranking in rankings.items():
        for k, measures in SCORED.items():
            found = retrieval(ranking, grades, k=k)
            scores |= {f"{name}{measure}": found[measure] for measure in measures}
    return scores | {
        "queries": len(queries),
        "documents": len(documents),
        "judged_only": judged,
        "left_out": len(every_grade) - len(grades),
        "records": told.records,
        "tokens": told.coverage.kept,
        "tokens_strided": told.coverage.strided,
        "tokens_dropped": told.coverage.dropped,
        "seconds": round(time.perf_counter() - begun, 3),
    }


def _is_itself(query: str, document: str | None, grades: Mapping[str, int], id: str) -> bool:
    """Whether the document of the query's id is the query, as in ArguAna, where it is no answer to itself.

    BEIR leaves out every document of the query's id; two numberings that both begin with 1 are no such case.
    """
    return document is not None and grades.get(id, 0) <= 0 and document.strip().endswith(query.strip())


def _without(itself: set[str], ranking: Ranking) -> Ranking:
    return {
        query: [(id, score) for id, score in found if id != query] if query in itself else found
        for query, found in ranking.items()
    }


# ------------------------------------------------------------------------------------------------------------ reading


def _file(folder: Path, name: str) -> Path | None:
    return next((path for ending in _ENDINGS if (path := folder / f"{name}{ending}").is_file()), None)


def _needed(folder: Path, *names: str) -> Path:
    for name in names:
        if (path := _file(folder, name)) is not None:
            return path
    wanted = " or ".join(f"{name}.tsv" if "/" in name else f"{name}.jsonl" for name in names)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:12])
    raise DataError(
        f"no {wanted}; " + (f"there are {there}; another --split?" if there else "it is empty"), path=folder
    )


def _qrels(folder: Path, split: str, documents: Mapping[str, str]) -> tuple[dict[str, dict[str, int]], bool]:
    """The grades of each query's documents, and whether those of no use are listed too."""
    grades: dict[str, dict[str, int]] = {}
    for record in read_records(_needed(folder, f"qrels.{split}", f"qrels/{split}", "qrels")):
        query, document = (_judged(record, name) for name in ("query_id", "corpus_id"))
        if document not in documents:
            raise record.error(f"document {document!r} is judged, but the corpus doesn't have it")
        grades.setdefault(query, {})[document] = _grade(record)
    return grades, any(grade == 0 for given in grades.values() for grade in given.values())


def _with(record: Record, name: str) -> Record:
    """The record, if it has the field; no --columns renames it here, as `require` would propose."""
    if name not in record.fields:
        there = listed([str(field) for field in record.fields], like=name)
        raise record.error(
            f"no field {shown(name)}; there are {there}; rename it in the file: of a folder to rank, corpus and "
            "queries have _id and text, qrels have query_id, corpus_id and score"
        )
    return record


def _judged(record: Record, name: str) -> str:
    """The id of a query or a document; BEIR writes query-id."""
    theirs = name.replace("_", "-")
    found = theirs if name not in record.fields and theirs in record.fields else name
    return str(require(_with(record, found), found, str, int))


def _grade(record: Record) -> int:
    grade = float(require(_with(record, "score"), "score", float))
    if not grade.is_integer():
        raise record.error(f"score is {grade:g}; wanted a whole number: 0 is of no use, 1 and above of more and more")
    return int(grade)


def _queries(folder: Path, split: str, grades: Mapping[str, Any]) -> dict[str, str]:
    queries = {}
    for number, record in enumerate(read_records(_needed(folder, f"queries.{split}", "queries")), 1):
        if (id := id_of(record, number)) in grades:
            queries[id] = require(_with(record, "text"), "text", str)
    if missing := [query for query in grades if query not in queries]:
        raise DataError(f"query {missing[0]!r} is judged, but there is no such query", path=folder)
    return queries


# ------------------------------------------------------------------------------------------------------------ ranking


def _by_vectors(
    model: Predictor,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    candidates: Mapping[str, Mapping[str, int]] | None,
    told: Told,
) -> Ranking:
    asked = _vectors(embedder_of(model, {}, "query"), list(queries.values()), told)
    if candidates is not None:
        documents = {id: documents[id] for query in queries for id in candidates[query]}
    there = _vectors(embedder_of(model, {}, "document"), list(documents.values()), told)
    return _ranked(list(documents), (there @ query for query in asked), queries, candidates)


def _vectors(predictor: Predictor, texts: Sequence[str], told: Told) -> np.ndarray:
    return unit(np.stack([np.asarray(vector) for vector in embedded(predictor, records_of(texts), told=told)]))


def _by_words(
    documents: Mapping[str, str], queries: Mapping[str, str], candidates: Mapping[str, Mapping[str, int]] | None
) -> Ranking:
    import bm25s

    index = bm25s.BM25()
    if any(split := [words_of(text) for text in documents.values()]):  # it can't index texts of which none has a word
        index.index(split, show_progress=False)

    def scores(query: str) -> np.ndarray:
        known = [word for word in words_of(query) if word in getattr(index, "vocab_dict", ())]
        return index.get_scores(known) if known else np.zeros(len(documents), dtype=np.float32)

    ranking = _ranked(list(documents), map(scores, queries.values()), queries, candidates)
    return {query: [(id, score) for id, score in found if score > 0] for query, found in ranking.items()}


def _ranked(
    ids: list[str], scores: Any, queries: Mapping[str, str], candidates: Mapping[str, Mapping[str, int]] | None
) -> Ranking:
    """Each query's documents by the scores of all, best first."""
    place = {id: row for row, id in enumerate(ids)}
    ranking: Ranking = {}
    for query, own in zip(queries, scores, strict=True):
        rows = np.arange(len(ids)) if candidates is None else np.array([place[id] for id in candidates[query]])
        ranking[query] = [(ids[row], score) for row, score in best(rows, own[rows], LONGEST)]
    return ranking


def _fused(*rankings: list[tuple[str, float]]) -> list[tuple[str, float]]:
    ids = {id: row for row, id in enumerate(dict.fromkeys(id for ranking in rankings for id, _ in ranking))}
    names = list(ids)
    return [(names[row], score) for row, score in fused([[(ids[id], s) for id, s in ranking] for ranking in rankings])]


def _by_pairs(
    model: Predictor,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    told: Told,
) -> Ranking:
    """Each query's candidates by what the model says of both; what has no text is left out, on either side."""
    wanted = list(dict.fromkeys(id for query in queries for id in candidates[query]))
    readable = dict(zip(wanted, has_text(model, [documents[id] for id in wanted]), strict=True))
    asked = [query for query, can in zip(queries, has_text(model, list(queries.values())), strict=True) if can]
    pairs = [(query, id) for query in asked for id in candidates[query] if readable[id]]
    scores = pair_scores(model, [(queries[query], documents[id]) for query, id in pairs], told)
    ranking: Ranking = {query: [] for query in queries}
    for (query, id), score in zip(pairs, scores.tolist(), strict=True):
        ranking[query].append((id, score))
    return ranking
