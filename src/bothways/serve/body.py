"""A request's body as JSON, read strictly: UTF-8, no NaN or 1e400, no key twice, no half of a surrogate pair."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from bothways.data.messages import shown
from bothways.serve.problems import Problem


def parse(body: bytes) -> Any:
    """The value.

    Raises:
        Problem: it is not JSON as RFC 8259 has it for exchange between systems.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8: byte {error.start}") from None
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError:  # a whole number of thousands of digits
        raise Problem(400, "the body holds a number that is too long") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise Problem(
                400, "the body holds half of a surrogate pair (\\ud83d, say); send whole characters"
            ) from None
    return value


def _no_number(name: str) -> NoReturn:
    raise Problem(400, f"the body holds {name}, which is not JSON; send a number")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise Problem(400, f"the body holds {shown(digits)}, which is too large for a number; send a smaller one")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem(400, "the body holds a key twice in one object; send it once")
    return found


class _Strict(Request):
    async def json(self) -> Any:
        return parse(await self.body())


class JsonRoute(APIRoute):
    """A route whose body is parsed strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, given a request that parses so."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind != "application/json":
                raise Problem(415, "the body must be sent with Content-Type: application/json")
            return await handler(_Strict(request.scope, request.receive))

        return handle
