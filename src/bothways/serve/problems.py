"""What goes wrong with a request, as clients are told it: one shape for every error, the one OpenAI's clients read."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from bothways.errors import BothwaysError
from bothways.serve.logs import told_safely
from bothways.serve.queue import Late, QueueFull, TooLong
from bothways.serve.schemas import ErrorBody

log = logging.getLogger("bothways.serve")

RETRY_AFTER = {
    "Retry-After": {"description": "seconds after which to try again", "schema": {"type": "integer", "minimum": 1}}
}
_SAYS = {
    400: "The body is not JSON in UTF-8.",
    401: "The key is missing or wrong.",
    404: "No such model is loaded, or none for this route.",
    408: "The body did not come in time.",
    413: "The request is too large.",
    415: "The body is compressed or of another type than JSON.",
    421: "Without a key: the Host is another name than this machine's.",
    422: "The request can't be answered as it is; the message says why.",
    429: "Too much is waiting; Retry-After says when to come back.",
    503: "The server is starting, stopping or out of order.",
    504: "The deadline passed.",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} | ({"headers": RETRY_AFTER} if status in (429, 503) else {})
    for status, text in _SAYS.items()
}
"""The errors of every route, for the OpenAPI document."""


class Problem(HTTPException):
    """An answer that is not the one asked for. FastAPI lets its own kind through wherever it is raised."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)


def problem_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The error as JSON."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "code": status, "param": None}}
    return JSONResponse(body, status_code=status, headers=headers)


def as_problem(error: Exception) -> HTTPException:
    """Any exception as what a client may know of it: a mistake of ours is only called one, and logged."""
    match error:
        case HTTPException():
            return error
        case QueueFull():
            return Problem(429, str(error), headers={"Retry-After": str(error.retry_after)})
        case TooLong():
            return Problem(413, str(error))
        case Late() | TimeoutError():
            return Problem(504, "the deadline passed before the request was answered; try again, or send less at once")
        case BothwaysError():
            return Problem(422, str(error))
    log.error("a request failed: %s", told_safely(error))
    return Problem(500, "something went wrong in the server; its log says where")


def install(app: FastAPI) -> None:
    """Answer every exception in the one shape."""

    async def known(request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        return problem_response(problem.status_code, str(problem.detail), dict(problem.headers or {}))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int | str))
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        return problem_response(422, f"{where or 'the body'}: {first['msg']}{more}")

    for kind in (HTTPException, QueueFull, TooLong, Late, TimeoutError, BothwaysError, Exception):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
