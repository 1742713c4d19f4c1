"""POST /v1/generate: text written from a source, streamed piece by piece as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from bothways.infer.generation import Pieces
from bothways.serve.problems import Problem, as_problem
from bothways.serve.routes.common import as_json, models_of, predictor_with, router, texts
from bothways.serve.schemas import GenerateAnswer, GenerateRequest
from bothways.serve.service import Served, unless_gone

routes = router("generate")
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["message", "done", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["data"],
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "an object, or while streaming events: {'text': piece} …, then 'done' with {'tokens': …}, or "
        "'error' if it breaks off",
        "content": {"text/event-stream": {"schema": _EVENT}},
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
    if not wanted.stream:
        predictor = served.answering
        if wanted.options:
            predictor = await served.off_loop(predictor_with, predictor, wanted.options)

        def render(predictions: list[dict[str, Any]]) -> Response:
            return as_json({"model": served.name, **predictions[0]})

        return await unless_gone(request, served.predict(predictor, [record], render=render))
    pieces = await unless_gone(request, served.call(lambda: _begun(served, wanted.input, wanted.options)))
    first = await unless_gone(request, served.call(lambda: next(pieces, None)))  # what is wrong is told before a 200
    return StreamingResponse(_events(request, served, pieces, first), media_type="text/event-stream")


def _begun(served: Served, source: str, options: dict[str, Any]) -> Pieces:
    try:
        return served.predictor.generate_stream(source, **options)
    except (TypeError, ValueError) as error:
        raise Problem(422, f"options: a value is of the wrong kind ({error})") from None


async def _events(request: Request, served: Served, pieces: Pieces, piece: str | None) -> AsyncIterator[str]:
    try:
        while piece is not None and not await request.is_disconnected():
            yield f"data: {json.dumps({'text': piece}, ensure_ascii=False)}\n\n"
            piece = await served.call(lambda: next(pieces, None))
        yield f"event: done\ndata: {json.dumps({'tokens': pieces.tokens})}\n\n"
    except Exception as error:
        problem = as_problem(error)
        yield f"event: error\ndata: {json.dumps({'message': problem.detail}, ensure_ascii=False)}\n\n"
