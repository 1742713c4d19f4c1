"""What every request passes first: the key, the size of its body, the log; decided on the routed path."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.problems import Problem, as_problem, problem_response

log = logging.getLogger("bothways.serve")

OPEN = frozenset({"/health/live", "/health/ready"})  # what needs no key
_PORT = re.compile(r":[0-9]*$")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"),
    (b"cache-control", b"no-store"),
]


def loopback_names(host: str, address: str) -> frozenset[str] | None:
    """The names of a server bound to `address`, as `host` was resolved; None: others can reach it, by any name.

    What listens on the loopback alone trusts whoever is on this machine, a browser among them. A page that has its own
    name point here (DNS rebinding) counts to the browser as one origin with us; but its name stands in Host.
    """
    if not ipaddress.ip_address(address).is_loopback:
        return None
    return frozenset({host.lower(), address, "localhost", "127.0.0.1", "::1"})


class Gate:
    """Lets a request through to the app with its body read whole, or answers it.

    The key is asked for on every path but OPEN, whatever the method and whether or not the path exists. The path is
    the one that the router sees, so no Host header or spelling can part the two (CVE-2026-48710). Without a key, what
    is asked of another name than `hosts` has is refused.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, metrics: Metrics, api_key: str | None, hosts: frozenset[str] | None
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._key = None if api_key is None else api_key.encode()
        self._hosts = hosts if api_key is None else None
        self.stopping = False
        self.cut = 0  # requests that were given up when the server had to stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no websockets
        begun, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                close = [(b"connection", b"close")] if self.stopping or status in (408, 413) else []
                message["headers"] = [*message.get("headers", ()), *_HEADERS, *close]
            await send(message)

        self.metrics.in_flight.inc()
        try:
            await self._pass(scope, receive, told)
        except asyncio.CancelledError:  # by the server, when it could wait no longer: even so there is an answer
            self.cut += 1
            if not status:
                await problem_response(503, "the server is stopping; ask again")(scope, receive, told)
        except Exception as error:
            if not status:  # else the app has answered and logged it
                problem = as_problem(error)
                response = problem_response(problem.status_code, str(problem.detail), dict(problem.headers or {}))
                await response(scope, receive, told)
        finally:
            self.metrics.in_flight.dec()
            self._count(scope, status, time.perf_counter() - begun)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """The route as the app spells it: what a client sent as a path is never written down."""
        route = getattr(scope.get("route"), "path", None) or "other"
        self.metrics.requests.labels(route, str(status or 499)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        method = scope["method"] if scope["method"].isalpha() and len(scope["method"]) < 10 else "other"
        log.info("%s %s %s %.1f ms", method, route, status or "gone", 1000 * seconds)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN and not self._knows(headers.get(b"authorization", b"")):
            # Basic, so that a browser asks for the key (as the password) when the page is opened.
            ask = {"WWW-Authenticate": 'Bearer, Basic realm="bothways", charset="UTF-8"'}
            raise Problem(401, "the key is missing or wrong; send Authorization: Bearer KEY", headers=ask)
        if scope["path"] not in OPEN and not self._is_meant(scope["headers"]):
            raise Problem(421, "the request is for another host; ask http://localhost or 127.0.0.1, or use a key")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Problem(415, "the body is compressed; send it plain")
        body = await self._body(headers, receive)
        if body is None:
            return  # gone before it had sent all
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()  # nothing more can come but that the client has gone
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    def _knows(self, authorization: bytes) -> bool:
        if self._key is None:
            return True
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                value = b""
        elif scheme.lower() != b"bearer":
            value = b""
        return hmac.compare_digest(value, self._key)

    def _is_meant(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether every Host, without its port, is one of ours. There is none in HTTP/1.0, which no browser speaks."""
        if self._hosts is None:
            return True
        names = (value.decode("latin-1").lower() for name, value in headers if name == b"host")
        return all(_PORT.sub("", name).removesuffix(".").strip("[]") in self._hosts for name in names)

    async def _body(self, headers: dict[bytes, Any], receive: Receive) -> bytes | None:
        """The whole body; None if the client went away.

        Raises:
            Problem: it is too large (413) or too slow (408).
        """
        limit = self.limits.max_body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > limit:
            raise Problem(413, f"the body has {int(length[:20]):,} bytes; at most {limit:,} are taken")
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise Problem(413, f"the body has more than {limit:,} bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Problem(408, f"the body did not come within {self.limits.body_s:g} s") from None
