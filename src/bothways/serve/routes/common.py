"""What the routes share: finding the model, records from what was sent, answers as JSON made off the event loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from bothways.data.record import Record
from bothways.infer.inputs import records_of
from bothways.infer.predictor import Predictor
from bothways.serve.body import JsonRoute
from bothways.serve.metrics import Metrics
from bothways.serve.problems import RESPONSES, Problem
from bothways.serve.service import Models


def router(*tags: str) -> APIRouter:
    """Routes whose bodies are read strictly and whose errors have the one shape."""
    return APIRouter(route_class=JsonRoute, tags=list(tags), responses=RESPONSES)


def models_of(request: Request) -> Models:
    """The loaded models."""
    return request.app.state.models


def metrics_of(request: Request) -> Metrics:
    """The server's counts."""
    return request.app.state.metrics


def texts(given: str | Sequence[str]) -> list[Record]:
    """One text or several as records."""
    return list(records_of([given] if isinstance(given, str) else list(given)))


def as_json(value: Any) -> Response:
    """JSON in UTF-8; a number that JSON lacks would be a mistake of ours, and is raised as one."""
    return json_response(spelt_json(value))


def spelt_json(value: Any) -> str:
    """The value as JSON spells it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_response(text: str) -> Response:
    """What is JSON already, in UTF-8."""
    return Response(text.encode("utf-8"), media_type="application/json")


def predictor_with(predictor: Predictor, options: dict[str, Any]) -> Predictor:
    """The predictor, told what the client wants of its task.

    Raises:
        Problem: 422, a value of the wrong kind.
        ConfigError: an option that the task doesn't take.
    """
    try:
        return predictor.with_options(**options)
    except (TypeError, ValueError, OverflowError) as error:
        raise Problem(422, f"options: a value is of the wrong kind ({error})") from None
