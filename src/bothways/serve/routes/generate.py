"""POST /v1/generate: text written from a source, streamed piece by piece as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from bothways.serve.problems import Problem, as_problem
from bothways.serve.routes.common import as_json, models_of, router, texts
from bothways.serve.schemas import GenerateAnswer, GenerateRequest
from bothways.serve.service import Served, unless_gone

routes = router("generate")
_STREAM = {
    200: {
        "description": "an object, or while streaming events: {'text': piece} …, then 'done'; 'error' if it breaks off",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@routes.post(
    "/v1/generate", response_model=GenerateAnswer, responses=_STREAM, summary="Text from a source, as it is written"
)
async def generate(request: Request, wanted: GenerateRequest) -> Response:
    """Each step waits its turn with the work of others; when the client goes away, writing stops."""
    served = models_of(request).find(wanted.model, "/v1/generate")
    (record,) = texts(wanted.input)
    served.check([record])
    options: dict[str, Any] = wanted.options
    if not wanted.stream:
        (told,) = await unless_gone(request, served.call(lambda: _generated(served, wanted.input, options)))
        return as_json({"model": served.name, **told})
    pieces = await served.call(lambda: _begun(served, wanted.input, options))
    first = await unless_gone(request, served.call(lambda: next(pieces, None)))  # what is wrong is told before a 200
    return StreamingResponse(_events(served, pieces, first), media_type="text/event-stream")


def _generated(served: Served, source: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return served.predictor.generate([source], **options)  # pyright: ignore[reportAttributeAccessIssue]
    except TypeError as error:
        raise Problem(422, f"options: {error}") from None


def _begun(served: Served, source: str, options: dict[str, Any]) -> Iterator[str]:
    try:
        return iter(served.predictor.generate_stream(source, **options))  # pyright: ignore[reportAttributeAccessIssue]
    except TypeError as error:
        raise Problem(422, f"options: {error}") from None


async def _events(served: Served, pieces: Iterator[str], piece: str | None) -> AsyncIterator[str]:
    try:
        while piece is not None:
            yield f"data: {json.dumps({'text': piece}, ensure_ascii=False)}\n\n"
            piece = await served.call(lambda: next(pieces, None))
        yield "event: done\ndata: {}\n\n"
    except Exception as error:
        problem = as_problem(error)
        yield f"event: error\ndata: {json.dumps({'message': problem.detail}, ensure_ascii=False)}\n\n"
