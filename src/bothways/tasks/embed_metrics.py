"""How good vectors are on records of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bothways.data.record import Record
from bothways.metrics.similarity import similarity, spearman
from bothways.tasks.embed_records import Kind, grade_of, texts_of, vector_of

ROWS = 1024  # compared with all others at once
MOST = 2048  # texts whose every two are compared


def cosine(a: Float[np.ndarray, " D"], b: Float[np.ndarray, " D"]) -> float:
    """Of two vectors; 0 where one of them is."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def embed_metrics(records: Sequence[Record], predictions: Sequence[dict[str, Any]], kind: Kind) -> dict[str, Any]:
    """The metrics of that kind, and "score": the one that the best epoch is chosen by.

    graded: `spearman`, `pearson` of cosines with grades. pairs: is each anchor's own text the nearest of all those of
    the records (`accuracy`), and how near the top (`mrr@10`, `recall@10`). teacher: the mean `cosine` of texts and
    translations with its vectors, or the `spearman` correlation of the cosines between texts where widths differ.
    words: the same of words. texts: `uniformity` (Wang and Isola, 2020; lower is better), for want of gold.
    """
    if kind == "graded":
        scores = similarity([grade_of(record) for record in records], [one["score"] for one in predictions])
        return {**scores, "score": scores["spearman"]}
    if kind == "pairs":
        return _ranking(records, predictions)
    if kind == "teacher":
        each = [one.get("vectors") or [one["vector"]] for one in predictions]
        ours = _unit(np.array([vector for own in each for vector in own], dtype=np.float32))
        theirs = _unit(np.array([vector_of(record) for record in records], dtype=np.float32))
        return _nearness(ours, theirs.repeat([len(own) for own in each], axis=0))
    if kind == "words":
        pairs = [one["taught"] for one in predictions if "taught" in one]
        if not pairs:
            return {"cosine": 0.0, "score": 0.0}
        ours, theirs = (_unit(np.concatenate(side).astype(np.float32)) for side in zip(*pairs, strict=True))
        return _nearness(ours, theirs)
    vectors = _unit(np.array([one["vectors"][0] for one in predictions], dtype=np.float32))[:MOST]
    value = float(np.log(np.exp(4 * _between(vectors) - 4).mean())) if len(vectors) > 1 else 0.0
    return {"uniformity": value, "score": -value}


def _nearness(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """How near two models' vectors of the same things are; where widths differ, how alike the cosines between them."""
    if ours.shape == theirs.shape:
        value = float((ours * theirs).sum(1).mean())
        return {"cosine": value, "score": value}
    value = spearman(_between(theirs[:MOST]).tolist(), _between(ours[:MOST]).tolist()) if len(ours) > 2 else 0.0
    return {"spearman": value, "score": value}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _between(vectors: np.ndarray) -> np.ndarray:
    """The cosine of every two vectors, once."""
    return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]


def _ranking(records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where each anchor's own text stands among all texts of the records but the anchor itself, as in the loss."""
    number: dict[str, int] = {}
    vectors, anchors, own, itself = [], [], [], []
    for record, prediction in zip(records, predictions, strict=True):
        if not prediction["vectors"]:
            continue
        texts = texts_of(record, "pairs", None)
        for text, vector in zip(texts[1:], prediction["vectors"][1:], strict=True):
            if text not in number:
                number[text] = len(number)
                vectors.append(vector)
        anchors.append(prediction["vectors"][0])
        own.append(number[texts[1]])
        itself.append(texts[0] if texts[0] != texts[1] else "")
    if not anchors:
        return {"accuracy": 0.0, "mrr@10": 0.0, "recall@10": 0.0, "candidates": 0, "score": 0.0}
    candidates = _unit(np.array(vectors, dtype=np.float32))
    asked, right = _unit(np.array(anchors, dtype=np.float32)), np.array(own)
    ranks = []
    numbers = np.array([number.get(text, -1) if text else -1 for text in itself])
    for start in range(0, len(asked), ROWS):
        scores = asked[start : start + ROWS] @ candidates.T
        mine = scores[np.arange(len(scores)), right[start : start + ROWS]]
        (rows,) = np.nonzero(numbers[start : start + ROWS] >= 0)
        scores[rows, numbers[start : start + ROWS][rows]] = -np.inf
        ranks.append((scores >= mine[:, None]).sum(1))  # the worst of equals, or one point would be a perfect score
    rank = np.concatenate(ranks)
    mrr = float(np.where(rank <= 10, 1 / rank, 0.0).mean())
    return {
        "accuracy": float((rank == 1).mean()),
        "mrr@10": mrr,
        "recall@10": float((rank <= 10).mean()),
        "candidates": len(candidates),
        "score": mrr,
    }
