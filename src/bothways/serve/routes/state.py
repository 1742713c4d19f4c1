"""GET /v1/models, /health/live, /health/ready and /metrics: what the server is and how it does."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from bothways.serve.problems import RESPONSES
from bothways.serve.routes.common import as_json, metrics_of, models_of
from bothways.serve.schemas import Health, Models

routes = APIRouter(tags=["state"])


@routes.get("/v1/models", response_model=Models, responses={401: RESPONSES[401]}, summary="The loaded models")
async def models(request: Request) -> Response:
    """All of them, the default first, with the routes that each has."""
    data = [
        {
            "id": one.name,
            "object": "model",
            "created": 0,
            "owned_by": "bothways",
            "task": one.task,
            "labels": one.labels,
            "fills": one.fills,
            "routes": one.routes,
            "max_length": one.predictor.max_length,
        }
        for one in models_of(request).all
    ]
    return as_json({"object": "list", "data": data})


@routes.get("/health/live", response_model=Health, summary="Whether the server runs")
async def live() -> Response:
    """200 as long as it answers at all: while it starts, is overloaded, or stops."""
    return JSONResponse({"status": "ok"})


@routes.get("/health/ready", response_model=Health, responses={503: {"model": Health}}, summary="Whether to send work")
async def ready(request: Request) -> Response:
    """503 until all models have answered once, when one is out of order, and from the moment it is asked to stop."""
    status = request.app.state.status()
    return JSONResponse({"status": status}, status_code=200 if status == "ok" else 503)


@routes.get(
    "/metrics", response_class=PlainTextResponse, responses={401: RESPONSES[401]}, summary="Counts for Prometheus"
)
async def metrics(request: Request) -> Response:
    """Queue, batches, latency, tokens read and never read."""
    return Response(metrics_of(request).text(), media_type="text/plain; version=0.0.4; charset=utf-8")
