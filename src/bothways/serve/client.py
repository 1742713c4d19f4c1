"""Clients for `bothways serve`: one that waits, one for asyncio; both come back when the server says to."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np

from bothways.errors import ConfigError, ServerError

TOGETHER = 64  # inputs sent in one request
LONGEST_WAIT_S = 60.0
AGAIN = frozenset(
    {429, 502, 503}
)  # what passes by itself; none of the routes changes anything, so asking twice is safe

Input = str | Mapping[str, Any] | tuple[str, str]


class _Client:
    """What both clients know: where, with which key, how often; how requests are spelt and answers read."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
    ) -> None:
        """
        Args:
            url: of the server
            api_key: as its --api-key
            model: the one to ask; None: the first that can do what is asked
            timeout: seconds for one attempt
            retries: how often to come back after 429, 502, 503 or a broken connection; after as many seconds as the
                server says (Retry-After), else a quarter of a second, doubled each time

        Raises:
            ConfigError: the URL is none of HTTP.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a server; wanted one such as http://127.0.0.1:8000")
        self.url, self.model, self.retries = url.rstrip("/"), model, retries
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            "timeout": timeout,
            # A proxy of the environment's can't reach this machine's own address.
            "trust_env": parts.hostname not in ("127.0.0.1", "localhost", "::1"),
        }

    def _body(self, **fields: Any) -> dict[str, Any]:
        return {"model": self.model, **{name: value for name, value in fields.items() if value is not None}}

    def _wait(self, attempt: int, response: httpx2.Response | None) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if attempt >= self.retries or (response is not None and response.status_code not in AGAIN):
            return None
        asked = None if response is None else _seconds(response.headers.get("retry-after"))
        # A little later than told, each at another time, or all who were refused would come back at once.
        wait = 0.25 * 2**attempt if asked is None else asked
        return min(wait, LONGEST_WAIT_S) * (1 + 0.25 * random.random())

    def _unreachable(self, error: Exception) -> ServerError:
        return ServerError(f"{self.url} can't be reached ({type(error).__name__}); is the server running there?")


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header: seconds, or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _read(response: httpx2.Response) -> Any:
    """The answer.

    Raises:
        ServerError: it is an error, told in the server's words.
    """
    try:
        value = response.json()
    except ValueError:
        value = None
    if response.status_code == 200 and value is not None:
        return value
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else f"it answered {response.status_code}"
    raise ServerError(f"{response.url.copy_with(query=None)}: {message}", status=response.status_code)


def _vectors(answer: Any) -> np.ndarray:
    return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]])


def _parted(inputs: Iterable[Any]) -> Iterator[list[Any]]:
    """As many at a time as one request holds."""
    inputs = iter(inputs)
    while some := list(islice(inputs, TOGETHER)):
        yield some


def _spelt(inputs: Iterable[Input]) -> list[Any]:
    return [list(one) if isinstance(one, tuple) else one for one in inputs]


def _event(lines: list[str]) -> str | None:
    """The piece of text that a server-sent event holds; None: there is no more.

    Raises:
        ServerError: the server broke off.
    """
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    data = json.loads(fields.get("data", "{}"))
    if fields.get("event") == "error":
        raise ServerError(f"the server broke off: {data.get('message')}")
    return None if fields.get("event") == "done" else str(data.get("text", ""))


class Client(_Client):
    """`with Client("http://127.0.0.1:8000") as client: client.predict(["…"])`."""

    def __enter__(self) -> Client:
        self._http = httpx2.Client(**self._options)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if (http := self.__dict__.pop("_http", None)) is not None:
            http.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        http = self.__dict__.get("_http") or self.__enter__()._http
        response, failure = None, None
        for attempt in range(self.retries + 1):
            response, failure = None, None
            try:
                response = http.request(method, path, **({} if body is None else {"json": body}))
            except httpx2.TransportError as error:
                failure = error
            if (wait := self._wait(attempt, response)) is None:
                break
            time.sleep(wait)
        if response is None:
            raise self._unreachable(failure or RuntimeError())
        return _read(response)

    def models(self) -> list[dict[str, Any]]:
        """The loaded models, and what each can do."""
        return self._ask("GET", "/v1/models")["data"]

    def predict(self, inputs: str | Mapping[str, Any] | Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """A prediction for each text, pair or record, in order; one that can't be read has {"error": …}.

        Raises:
            ServerError: the server can't be reached or refuses; the message is its own.
        """
        return list(self.stream([inputs] if isinstance(inputs, str | Mapping) else inputs, **options))

    def stream(self, inputs: Iterable[Input], **options: Any) -> Iterator[dict[str, Any]]:
        """As `predict`, however many inputs there are: some are sent at a time."""
        for some in _parted(inputs):
            body = self._body(inputs=_spelt(some), options=options or None)
            yield from self._ask("POST", "/v1/predict", body)["predictions"]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """A vector for each text, (texts, width) float32."""
        parts = [
            _vectors(self._ask("POST", "/v1/embeddings", self._body(input=list(some), encoding_format="base64")))
            for some in _parted(texts)
        ]
        return np.concatenate(parts)

    def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[dict[str, Any]]:
        """Documents by how well they fit the query, the best first: {"index", "relevance_score"}."""
        body = self._body(query=query, documents=list(documents), top_n=top_n)
        return self._ask("POST", "/v1/rerank", body)["results"]

    def generate(self, source: str, **options: Any) -> dict[str, Any]:
        """The text written from a source, whole."""
        return self._ask("POST", "/v1/generate", self._body(input=source, stream=False, options=options or None))

    def generate_stream(self, source: str, **options: Any) -> Iterator[str]:
        """The same in pieces, as they are written."""
        http = self.__dict__.get("_http") or self.__enter__()._http
        body = self._body(input=source, options=options or None)
        with http.stream("POST", "/v1/generate", json=body) as response:
            if response.status_code != 200:
                response.read()
                _read(response)
            event: list[str] = []
            for line in response.iter_lines():
                if line:
                    event.append(line)
                    continue
                if (piece := _event(event)) is None:
                    return
                yield piece
                event = []


class AsyncClient(_Client):
    """`async with AsyncClient("http://127.0.0.1:8000") as client: await client.predict(["…"])`."""

    async def __aenter__(self) -> AsyncClient:
        self._http = httpx2.AsyncClient(**self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        response, failure = None, None
        for attempt in range(self.retries + 1):
            response, failure = None, None
            try:
                response = await self._http.request(method, path, **({} if body is None else {"json": body}))
            except httpx2.TransportError as error:
                failure = error
            if (wait := self._wait(attempt, response)) is None:
                break
            await asyncio.sleep(wait)
        if response is None:
            raise self._unreachable(failure or RuntimeError())
        return _read(response)

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return (await self._ask("GET", "/v1/models"))["data"]

    async def predict(self, inputs: str | Mapping[str, Any] | Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """As `Client.predict`."""
        given = [inputs] if isinstance(inputs, str | Mapping) else inputs
        return [one async for one in self.stream(given, **options)]

    async def stream(self, inputs: Iterable[Input], **options: Any) -> AsyncIterator[dict[str, Any]]:
        """As `Client.stream`."""
        for some in _parted(inputs):
            body = self._body(inputs=_spelt(some), options=options or None)
            for one in (await self._ask("POST", "/v1/predict", body))["predictions"]:
                yield one

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Client.embed`."""
        bodies = [self._body(input=list(some), encoding_format="base64") for some in _parted(texts)]
        return np.concatenate([_vectors(await self._ask("POST", "/v1/embeddings", body)) for body in bodies])

    async def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[dict[str, Any]]:
        """As `Client.rerank`."""
        body = self._body(query=query, documents=list(documents), top_n=top_n)
        return (await self._ask("POST", "/v1/rerank", body))["results"]

    async def generate(self, source: str, **options: Any) -> dict[str, Any]:
        """As `Client.generate`."""
        return await self._ask("POST", "/v1/generate", self._body(input=source, stream=False, options=options or None))

    async def generate_stream(self, source: str, **options: Any) -> AsyncIterator[str]:
        """As `Client.generate_stream`."""
        body = self._body(input=source, options=options or None)
        async with self._http.stream("POST", "/v1/generate", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                _read(response)
            event: list[str] = []
            async for line in response.aiter_lines():
                if line:
                    event.append(line)
                    continue
                if (piece := _event(event)) is None:
                    return
                yield piece
                event = []
