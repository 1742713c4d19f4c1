"""POST /v1/analyze: words, parts of speech, entities and labels of texts, by all heads of a model at once."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from bothways.serve.routes.common import as_json, models_of, predictor_with, router, texts
from bothways.serve.schemas import AnalyzeAnswer, AnalyzeRequest
from bothways.serve.service import unless_gone

routes = router("analyze")


@routes.post("/v1/analyze", response_model=AnalyzeAnswer, summary="Words, parts of speech, entities and labels")
async def analyze(request: Request, wanted: AnalyzeRequest) -> Response:
    """What every head finds in each text, in one pass."""
    served = models_of(request).find(wanted.model, "/v1/analyze")
    records = texts(wanted.input)
    served.check(records, wanted.options)
    predictor = served.analyzer
    assert predictor is not None  # or it would not have this route
    if wanted.options:
        predictor = await served.off_loop(predictor_with, predictor, wanted.options)

    def render(found: list[dict[str, Any]]) -> Response:
        return as_json({"model": served.name, "texts": found})

    return await unless_gone(request, served.predict(predictor, records, render=render))
