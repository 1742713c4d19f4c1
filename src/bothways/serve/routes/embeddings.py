"""POST /v1/embeddings, as OpenAI's clients speak it, and POST /v1/rerank."""

from __future__ import annotations

import base64
from typing import Any, Literal, cast

import numpy as np
from fastapi import Request, Response

from bothways.infer.inputs import records_of
from bothways.infer.predictor import Predictor
from bothways.serve.problems import Problem
from bothways.serve.routes.common import as_json, models_of, router, texts
from bothways.serve.schemas import EmbeddingsAnswer, EmbeddingsRequest, RerankAnswer, RerankRequest
from bothways.serve.service import Served, unless_gone
from bothways.tasks.pair import PairTask, belonging

routes = router("vectors")


@routes.post("/v1/embeddings", response_model=EmbeddingsAnswer, summary="Texts as vectors")
async def embeddings(request: Request, wanted: EmbeddingsRequest) -> Response:
    """A vector for each text; the path, the fields and the answer are those of OpenAI's API."""
    served = models_of(request).find(wanted.model, "/v1/embeddings")
    width = served.predictor.model.config.hidden_size
    if wanted.dimensions not in (None, width):
        raise Problem(422, f"dimensions is {wanted.dimensions}; the vectors of {served.name} have {width}")

    def render(predictions: list[dict[str, Any]]) -> Response:
        told = [one.get("tokens", {"kept": 0}) for one in predictions]
        read = sum(one["kept"] for one in told)
        data = [
            {"object": "embedding", "index": number, "embedding": _spelt(one, wanted.encoding_format), "tokens": kept}
            for number, (one, kept) in enumerate(zip(_vectors(predictions), told, strict=True))
        ]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return as_json({"object": "list", "data": data, "model": served.name, "usage": usage})

    embedder = _embedder(served)
    return await unless_gone(request, served.predict(embedder, texts(wanted.input), render=render))


@routes.post("/v1/rerank", response_model=RerankAnswer, summary="Documents ordered by how well they fit a query")
async def rerank(request: Request, wanted: RerankRequest) -> Response:
    """By a model of pairs or similarities, each document beside the query; by any other, the cosine of vectors."""
    served = models_of(request).find(wanted.model, "/v1/rerank")
    documents = [one if isinstance(one, str) else one.text for one in wanted.documents]
    by: Literal["pair", "similarity", "cosine"] = "cosine"
    if served.task == "pair" or served.task == "similarity":
        by = served.task
        predictor, records = served.predictor, list(records_of([(wanted.query, one) for one in documents]))
    else:
        predictor, records = _embedder(served), texts([wanted.query, *documents])

    def render(predictions: list[dict[str, Any]]) -> Response:
        scores = _scores(served, by, predictions)
        told = [one["tokens"] for one in predictions][-len(documents) :]
        best = np.argsort(-np.array(scores), kind="stable")[: wanted.top_n]
        results = [
            {"index": int(i), "relevance_score": scores[i], "tokens": told[i]}
            | ({"document": {"text": documents[i]}} if wanted.return_documents else {})
            for i in best
        ]
        read = sum(one["tokens"]["kept"] for one in predictions)
        usage = {"prompt_tokens": read, "total_tokens": read}
        return as_json({"model": served.name, "by": by, "results": results, "usage": usage})

    return await unless_gone(request, served.predict(predictor, records, render=render))


def _embedder(served: Served) -> Predictor:
    embedder = served.embedder
    assert embedder is not None, "find() chose a model that has this route"
    return embedder


def _whole(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The predictions, if all texts could be read: vectors without a gap are wanted here.

    Raises:
        Problem: 422, with the first text's error.
    """
    for one in predictions:
        if "error" in one:
            raise Problem(422, one["error"])
    return predictions


def _vectors(predictions: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.asarray(one["vector"], dtype=np.float32) for one in _whole(predictions)]


def _spelt(vector: np.ndarray, encoding: Literal["float", "base64"]) -> list[float] | str:
    return vector.tolist() if encoding == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _scores(served: Served, by: str, predictions: list[dict[str, Any]]) -> list[float]:
    _whole(predictions)
    if by == "similarity":
        return [float(one["value"]) for one in predictions]
    if by == "pair":
        positive = belonging(cast(PairTask, served.predictor.model.task))
        return [float(one["scores"][positive]) for one in predictions]
    vectors = np.stack(_vectors(predictions)).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return [round(float(one), 6) for one in vectors[1:] @ vectors[0]]
