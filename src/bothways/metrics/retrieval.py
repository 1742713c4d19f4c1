"""Scores of ranked retrieval against graded judgements, with the conventions of trec_eval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import isfinite, log2

from bothways.errors import DataError

Qrels = Mapping[str, Mapping[str, int]]  # query → document → grade; 1 and above is relevant
Run = Mapping[str, Iterable[tuple[str, float]]]  # query → (document, score), in any order


def retrieval(run: Run, qrels: Qrels, *, k: int = 10) -> dict[str, float]:
    """Mean scores over the queries of `qrels`.

    Documents are ranked by score, equal scores by document id from last to first, whatever their order in `run`. A
    query that `run` lacks scores 0 (trec_eval's -c), as does one with no relevant document; a query that `qrels`
    lacks is left out. The gain of a document is its grade, not 2 to its power.

    Returns:
        `ndcg@k`, `mrr@k`, `recall@k`, `map` (over the whole ranking); `queries`, their number.

    Raises:
        DataError: no query, a document twice under one query, or a score that is not finite.

    Reference: trec_eval's ndcg_cut, recip_rank, recall and map; Järvelin and Kekäläinen, 2002.
    """
    if not qrels:
        raise DataError("no judged queries; at least one is wanted: check that the relevance file is not empty")
    totals = dict.fromkeys((f"ndcg@{k}", f"mrr@{k}", f"recall@{k}", "map"), 0.0)
    for scores in retrieval_scores(run, qrels, k=k).values():
        for name, value in scores.items():
            totals[name] += value
    return {**{name: total / len(qrels) for name, total in totals.items()}, "queries": len(qrels)}


def retrieval_scores(run: Run, qrels: Qrels, *, k: int = 10) -> dict[str, dict[str, float]]:
    """For each query of `qrels` its own scores, as `retrieval` averages them and `paired_bootstrap` resamples them.

    Raises:
        DataError: a document twice under one query, or a score that is not finite.
    """
    return {query: _query_scores(_ranked(query, run.get(query, ())), grades, k) for query, grades in qrels.items()}


def _ranked(query: str, found: Iterable[tuple[str, float]]) -> list[str]:
    """Documents from the best to the worst."""
    scores: dict[str, float] = {}
    for document, score in found:
        if document in scores:
            raise DataError(f"query {query!r}: document {document!r} is ranked twice; once is wanted: merge its scores")
        if not isfinite(score):
            raise DataError(f"query {query!r}: document {document!r} has score {score}; a finite number is wanted")
        scores[document] = score
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def _query_scores(ranked: list[str], grades: Mapping[str, int], k: int) -> dict[str, float]:
    gains = [max(grades.get(document, 0), 0) for document in ranked]
    relevant = sum(grade > 0 for grade in grades.values())
    ideal = _dcg(sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:k])
    found = list(accumulate(gain > 0 for gain in gains))
    first = next((rank for rank, gain in enumerate(gains[:k], 1) if gain > 0), None)
    precisions = sum(found[rank - 1] / rank for rank, gain in enumerate(gains, 1) if gain > 0)
    return {
        f"ndcg@{k}": _dcg(gains[:k]) / ideal if ideal else 0.0,
        f"mrr@{k}": 1 / first if first else 0.0,
        f"recall@{k}": sum(gain > 0 for gain in gains[:k]) / relevant if relevant else 0.0,
        "map": precisions / relevant if relevant else 0.0,
    }


def _dcg(gains: list[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, 1))
