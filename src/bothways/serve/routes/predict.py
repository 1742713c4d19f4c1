"""POST /v1/predict: any task, one text or many."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from bothways.infer.inputs import records_of
from bothways.serve.routes.common import as_json, models_of, predictor_with, router
from bothways.serve.schemas import PredictAnswer, PredictRequest
from bothways.serve.service import unless_gone

routes = router("predict")


@routes.post("/v1/predict", response_model=PredictAnswer, summary="Label texts, answer questions, fill masks")
async def predict(request: Request, wanted: PredictRequest) -> Response:
    """One prediction for each input, as `bothways predict` prints it, with how much of it was read."""
    served = models_of(request).find(wanted.model, "/v1/predict")
    given = wanted.inputs if isinstance(wanted.inputs, list) else [wanted.inputs]
    records = list(records_of(given))
    served.check(records, wanted.options)
    predictor = served.answering
    if wanted.options:
        predictor = await served.off_loop(predictor_with, predictor, wanted.options)

    def render(predictions: list[dict[str, Any]]) -> Response:
        return as_json({"model": served.name, "task": served.task, "predictions": predictions})

    return await unless_gone(request, served.predict(predictor, records, render=render))
