"""Tests of retrieval scores: values computed by trec_eval, and hand-counted cases of its conventions."""

import random
from math import log2

import pytest

from bothways.errors import DataError
from bothways.metrics.retrieval import retrieval, retrieval_scores


def test_a_hand_counted_graded_case():
    qrels = {"q": {"a": 2, "b": 0, "c": 1, "d": 3}}
    run = {"q": [("b", 0.9), ("c", 0.8), ("x", 0.7), ("a", 0.6)]}
    dcg = 1 / log2(3) + 2 / log2(5)
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    assert retrieval(run, qrels) == pytest.approx(
        {"ndcg@10": dcg / ideal, "mrr@10": 1 / 2, "recall@10": 2 / 3, "map": (1 / 2 + 2 / 4) / 3, "queries": 1}
    )
    assert retrieval(run, qrels, k=1) == pytest.approx(
        {"ndcg@1": 0, "mrr@1": 0, "recall@1": 0, "map": 1 / 3, "queries": 1}
    )


def test_values_that_trec_eval_gives():
    run = {
        "q1": [("d3", 2.0), ("d1", 1.5), ("d7", 1.5), ("d2", 1.5), ("d9", 0.5), ("d4", 0.1)],
        "q2": [("d5", 0.7), ("d8", 0.7), ("d6", 0.2)],
    }
    qrels = {"q1": {"d1": 1, "d2": 3, "d4": 2, "d5": 1, "d9": 0}, "q2": {"d5": 1, "d6": 2}}
    # pytrec_eval-terrier's ndcg_cut_10, recip_rank, recall_10 and map, averaged.
    expected = {"ndcg@10": 0.5644617901585194, "mrr@10": 5 / 12, "recall@10": 0.875, "map": 11 / 24, "queries": 2}
    assert retrieval(run, qrels) == pytest.approx(expected)


def test_values_that_ranx_gives_of_random_runs():
    draw = random.Random(6)
    documents = [f"d{number}" for number in range(60)]
    qrels, run = {}, {}
    for query in range(60):
        judged = draw.sample(documents, draw.randint(1, 12))
        grades = {document: draw.choice([0, 1, 1, 2, 3]) for document in judged}
        qrels[query] = grades if any(grades.values()) else grades | {judged[0]: 1}
        found = draw.sample(documents, draw.randint(1, 40))
        run[query] = list(zip(found, draw.sample(range(1000), len(found)), strict=True))
    # ranx 0.3.21: evaluate(Qrels(…), Run(…), ["ndcg@10", "mrr@10", "recall@10", "map", "ndcg@3", "mrr@3", "recall@3"])
    expected = {
        "ndcg@10": 0.09594102520990597,
        "mrr@10": 0.18205687830687828,
        "recall@10": 0.15269961519961522,
        "map": 0.06654142262772965,
        "ndcg@3": 0.05049242432604351,
        "mrr@3": 0.12777777777777777,
        "recall@3": 0.03934523809523809,
    }
    scores = retrieval(run, qrels) | retrieval(run, qrels, k=3)
    assert scores.pop("queries") == 60
    assert scores == pytest.approx(expected, abs=1e-12)


def test_documents_of_equal_score_rank_from_the_last_id_to_the_first():
    run = {"q": [("d1", 1.0), ("d2", 1.0), ("d10", 1.0)]}
    reciprocal = {doc: retrieval(run, {"q": {doc: 1}})["mrr@10"] for doc in ("d1", "d2", "d10")}
    assert reciprocal == {"d2": 1, "d10": 1 / 2, "d1": pytest.approx(1 / 3)}


def test_the_order_of_the_run_does_not_matter():
    found = [("a", 0.1), ("b", 0.5), ("c", 0.3)]
    scores = [retrieval({"q": order}, {"q": {"c": 1, "a": 2}}) for order in (found, found[::-1])]
    assert scores[0] == scores[1]


def test_all_judged_queries_count_and_no_other():
    run = {"q1": [("a", 1.0)], "unjudged": [("a", 1.0)]}
    scores = retrieval(run, {"q1": {"a": 1}, "missing": {"a": 1}, "hopeless": {"a": 0}})
    assert scores["queries"] == 3
    assert scores["map"] == pytest.approx(1 / 3)
    each = retrieval_scores(run, {"q1": {"a": 1}, "missing": {"a": 1}})
    assert [each[query]["mrr@10"] for query in ("q1", "missing")] == [1, 0]


@pytest.mark.parametrize(
    ("run", "qrels", "text"),
    [
        ({}, {}, "no judged queries; at least one is wanted"),
        ({"q": [("a", 1), ("a", 2)]}, {"q": {"a": 1}}, "query 'q': document 'a' is ranked twice; once is wanted"),
        ({"q": [("a", float("inf"))]}, {"q": {"a": 1}}, "query 'q': document 'a' has score inf; a finite number"),
    ],
)
def test_errors_say_what_is_wanted(run, qrels, text):
    with pytest.raises(DataError, match=text):
        retrieval(run, qrels)
