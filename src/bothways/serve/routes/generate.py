"""POST /v1/generate: text written from a source, streamed piece by piece as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from bothways.serve.problems import Problem, as_problem
from bothways.serve.queue import Over
from bothways.serve.routes.common import as_json, models_of, predictor_with, router, texts
from bothways.serve.schemas import GenerateAnswer, GenerateRequest
from bothways.serve.service import Served, unless_gone
from bothways.tasks.base import Coverage

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
        "description": "an object, or while streaming events: {'text': piece} …, then 'done' with {'tokens': …}, and "
        "'unfinished': true if the text was cut at its greatest length, or 'error' if it breaks off",
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
    served.check([record], wanted.options)
    if not wanted.stream:
        predictor = served.answering
        if wanted.options:
            predictor = await served.off_loop(predictor_with, predictor, wanted.options)

        def render(predictions: list[dict[str, Any]]) -> Response:
            return as_json({"model": served.name, **predictions[0]})

        return await unless_gone(request, served.predict(predictor, [record], render=render))
    begin = served.aside([record], lambda over: Stream(served, wanted.input, wanted.options))
    stream = await unless_gone(request, begin)
    # What is wrong is told before a 200.
    first = await unless_gone(request, served.call(stream.next, tokens=stream.read))
    served.metrics.read(served.name, [Coverage(**stream.tokens)])
    return StreamingResponse(_events(request, served, stream, first), media_type="text/event-stream")


class Stream:
    """A text in pieces, each of which is given up when nobody waits for it.

    tokens: how much of the source was read, as predictions tell it; read: that as a number, at least one
    """

    def __init__(self, served: Served, source: str, options: dict[str, Any]) -> None:
        """Tokenise the source.

        Raises:
            Problem: 422, an option of the wrong kind.
            DataError, ConfigError: as `Predictor.generate_stream`.
        """
        self._over: Over = lambda: False
        if ours := sorted({"self", "source", "stop"} & options.keys()):  # else taken for arguments of what is called
            raise Problem(422, f"options: generate takes no option {ours[0]!r}")
        try:
            self._pieces = served.predictor.generate_stream(source, stop=lambda: self._over(), **options)
        except (TypeError, ValueError) as error:
            raise Problem(422, f"options: a value is of the wrong kind ({error})") from None
        self.tokens = self._pieces.tokens
        self.read = max(1, sum(self.tokens.get(kind, 0) for kind in ("kept", "strided")))

    @property
    def end(self) -> dict[str, bool]:
        """After the last piece: {"unfinished": True} where the text was cut at its greatest length."""
        return {"unfinished": True} if self._pieces.unfinished else {}

    def next(self, over: Over) -> str | None:
        """The next piece, written while `over` says no; None: there is no more.

        Raises:
            Stopped: it said yes.
        """
        self._over = over
        return next(self._pieces, None)


async def _events(request: Request, served: Served, stream: Stream, piece: str | None) -> AsyncIterator[str]:
    try:
        while piece is not None and not await request.is_disconnected():
            yield f"data: {json.dumps({'text': piece}, ensure_ascii=False)}\n\n"
            piece = await served.call(stream.next, taken=True)
        yield f"event: done\ndata: {json.dumps({'tokens': stream.tokens} | stream.end)}\n\n"
    except Exception as error:
        problem = as_problem(error)
        yield f"event: error\ndata: {json.dumps({'message': problem.detail}, ensure_ascii=False)}\n\n"
