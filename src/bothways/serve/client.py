"""Clients for `bothways serve`: one that waits, one for asyncio; both come back when the server says to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import random
import re
import time
import warnings
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np

from bothways.errors import ConfigError, ServerError
from bothways.text.characters import replace_surrogates

TOGETHER = 64  # inputs sent in one request
# Bytes of their JSON. Far fewer than a body may have: a token is about three bytes, and more tokens than may wait for a
# model would be refused for as long as anything else is waiting.
TOGETHER_BYTES = 128 << 10
LONGEST_WAIT_S = 60.0
AGAIN = frozenset(
    {429, 502, 503}
)  # what passes by itself; none of the routes changes anything, so asking twice is safe

Input = str | Mapping[str, Any] | tuple[str, str]


def check_key(key: str) -> None:
    """That a header can carry the key.

    Raises:
        ConfigError: it can't.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError("the key must be of ASCII letters, digits and signs, without spaces, and not empty")


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
            ConfigError: the URL is none of HTTP, or a header can't carry the key.
        """
        host = _host(url)
        if api_key is not None:
            check_key(api_key)
        self.url, self.model, self.retries = url.rstrip("/"), model, retries
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            "timeout": timeout,
            # A proxy of the environment's can't reach this machine's own address.
            "trust_env": host not in ("127.0.0.1", "localhost", "::1"),
        }

    def _body(self, *, options: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """What is sent, as JSON can have it.

        Raises:
            ConfigError: an option is NaN or infinite.
        """
        for name, value in (options or {}).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{name} is {value}; a server can only be sent a finite number")
        given = fields | ({"options": options} if options else {})
        return {"model": _plain(self.model), **{n: _plain(value) for n, value in given.items() if value is not None}}

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

    @contextlib.contextmanager
    def _broken_off(self) -> Iterator[None]:
        """A connection that ends before the text does, as an error; half a text is not asked for again."""
        try:
            yield
        except httpx2.TransportError as error:
            raise ServerError(f"{self.url} broke off ({type(error).__name__}); ask again") from None

    def _ended_early(self) -> ServerError:
        return ServerError(f"{self.url} ended the text without saying that it is whole; ask again")

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """A proxy that the HTTP client has no package for, as an error that names it."""
        try:
            yield
        except ImportError as error:
            raise ConfigError(f"the proxy of the environment (ALL_PROXY, HTTPS_PROXY) can't be used: {error}") from None


def _host(url: str) -> str:
    """Whom the URL names.

    Raises:
        ConfigError: it is none that can be asked over HTTP.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx2.URL(url).raw_host.decode("ascii").encode("idna")  # each refuses what others let through
    except (ValueError, httpx2.InvalidURL):
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a server; wanted one such as http://127.0.0.1:8000")
    return parts.hostname


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


def _read(response: httpx2.Response, told: str | None = None) -> Any:
    """The answer, which has `told` in it.

    Raises:
        ServerError: it is an error, told in the server's words; or none of Bothways's.
    """
    try:
        value = response.json()
    except ValueError:
        value = None
    place = response.url.copy_with(query=None)
    if response.status_code == 200 and value is not None:
        if told is not None and not (isinstance(value, dict) and told in value):
            raise ServerError(f"{place}: the answer has no {told!r}; is it a server of Bothways?")
        return value
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else f"it answered {response.status_code}"
    raise ServerError(f"{place}: {message}", status=response.status_code)


def _vectors(answer: Any) -> np.ndarray:
    return np.stack([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]])


def _plain(value: Any) -> Any:
    """The value as JSON can have it: NaN and infinity are null, half of a surrogate pair is U+FFFD, as models read it,
    and what else JSON lacks, such as a date, is a string.
    """
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _plain(str(value))


def _parted(inputs: Iterable[Any]) -> Iterator[list[Any]]:
    """As many at a time as one request holds, by number and by bytes; one text or record is one input."""
    some: list[Any] = []
    total = 0
    for one in [inputs] if isinstance(inputs, str | Mapping) else inputs:
        size = len(json.dumps(_plain(one), ensure_ascii=False).encode())
        if some and (len(some) == TOGETHER or total + size > TOGETHER_BYTES):
            yield some
            some, total = [], 0
        some.append(one)
        total += size
    if some:
        yield some


def _halves(some: list[Any], error: ServerError) -> list[list[Any]]:
    """A part that was too much for the server in two, the second half first: they are taken from the end.

    Raises:
        ServerError: the one given, if it tells of something else or there is nothing to part.
    """
    # 422 is also the answer to what no smaller part mends.
    too_much = error.status == 413 or (error.status == 422 and "are taken in one request" in str(error))
    if not too_much or len(some) == 1:
        raise error
    half = len(some) // 2
    return [some[half:], some[:half]]


def _event(lines: list[str]) -> str | None:
    """The piece of text that a server-sent event holds; None: there is no more.

    Warns:
        UserWarning: the text was cut at its greatest length.

    Raises:
        ServerError: the server broke off.
    """
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    data = json.loads(fields.get("data", "{}"))
    if fields.get("event") == "error":
        raise ServerError(f"the server broke off: {data.get('message')}")
    if fields.get("event") != "done":
        return str(data.get("text", ""))
    if data.get("unfinished"):
        warnings.warn("the text was cut at its greatest length; a longer one: max_length=…", stacklevel=3)
    return None


class Client(_Client):
    """`with Client("http://127.0.0.1:8000") as client: client.predict(["…"])`."""

    _http: httpx2.Client | None = None

    def __enter__(self) -> Client:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> httpx2.Client:
        """The connections, opened when they are first needed."""
        if self._http is None:
            with self._opening():
                self._http = httpx2.Client(**self._options)
        return self._http

    def close(self) -> None:
        """Close the connections; whatever is asked next opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def _answer(self, method: str, path: str, body: Any = None, *, stream: bool = False) -> httpx2.Response:
        """The first answer that is not to be asked for again; `stream`: its body is still to come."""
        http = self._open()
        response, failure = None, None
        for attempt in range(self.retries + 1):
            response, failure = None, None
            try:
                request = http.build_request(method, path, **({} if body is None else {"json": body}))
                response = http.send(request, stream=stream)
            except httpx2.TransportError as error:
                failure = error
            if (wait := self._wait(attempt, response)) is None:
                break
            if response is not None:
                response.close()
            time.sleep(wait)
        if response is None:
            raise self._unreachable(failure or RuntimeError())
        return response

    def _ask(self, method: str, path: str, body: Any = None, *, told: str) -> Any:
        return _read(self._answer(method, path, body), told)

    def _in_parts(self, path: str, name: str, inputs: Iterable[Any], *, told: str, **fields: Any) -> Iterator[Any]:
        """The answers to the inputs, so many at a time as the server takes, in order."""
        for some in _parted(inputs):
            parts = [some]
            while parts:
                part = parts.pop()
                try:
                    answer = self._ask("POST", path, self._body(**{name: part}, **fields), told=told)
                except ServerError as error:
                    parts += _halves(part, error)
                else:
                    yield answer

    def models(self) -> list[dict[str, Any]]:
        """The loaded models, and what each can do."""
        return self._ask("GET", "/v1/models", told="data")["data"]

    def predict(self, inputs: str | Mapping[str, Any] | Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """A prediction for each text, pair or record, in order; one that can't be read has {"error": …}.

        Raises:
            ServerError: the server can't be reached or refuses; the message is its own.
        """
        return list(self.stream(inputs, **options))

    def stream(self, inputs: str | Mapping[str, Any] | Iterable[Input], **options: Any) -> Iterator[dict[str, Any]]:
        """As `predict`, however many inputs there are: some are sent at a time, fewer where the server takes fewer."""
        for answer in self._in_parts("/v1/predict", "inputs", inputs, told="predictions", options=options):
            yield from answer["predictions"]

    def embed(self, texts: str | Sequence[str]) -> np.ndarray:
        """A vector for each text, (texts, width) float32; a string is one text."""
        answers = self._in_parts("/v1/embeddings", "input", texts, told="data", encoding_format="base64")
        parts = [_vectors(answer) for answer in answers]
        return np.concatenate(parts) if parts else self.embed("a")[:0]  # only a vector tells their width

    def analyze(self, texts: str | Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """Words, parts of speech, entities and labels of each text, by all heads; a string is one text."""
        answers = self._in_parts("/v1/analyze", "input", texts, told="texts", options=options)
        return [found for answer in answers for found in answer["texts"]]

    def rerank(self, query: str, documents: str | Sequence[str], *, top_n: int | None = None) -> list[dict[str, Any]]:
        """Documents by how well they fit the query, the best first: {"index", "relevance_score"}; a string is one."""
        if not (given := [documents] if isinstance(documents, str) else list(documents)):
            return []
        body = self._body(query=query, documents=given, top_n=top_n)
        return self._ask("POST", "/v1/rerank", body, told="results")["results"]

    def generate(self, source: str, **options: Any) -> dict[str, Any]:
        """The text written from a source, whole."""
        body = self._body(input=source, stream=False, options=options)
        return self._ask("POST", "/v1/generate", body, told="text")

    def generate_stream(self, source: str, **options: Any) -> Iterator[str]:
        """The same in pieces, as they are written; a UserWarning at the end of a text that was cut at max_length."""
        response = self._answer("POST", "/v1/generate", self._body(input=source, options=options), stream=True)
        with contextlib.closing(response), self._broken_off():
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
            raise self._ended_early()


class AsyncClient(_Client):
    """`async with AsyncClient("http://127.0.0.1:8000") as client: await client.predict(["…"])`."""

    _http: httpx2.AsyncClient | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> AsyncClient:
        self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _open(self) -> httpx2.AsyncClient:
        """As `Client`'s; anew in another event loop, for connections end with the loop that opened them."""
        loop = get_running_loop()
        if self._http is None or self._loop is not loop:
            with self._opening():
                self._http, self._loop = httpx2.AsyncClient(**self._options), loop
        return self._http

    async def close(self) -> None:
        """As `Client.close`."""
        http, self._http = self._http, None
        if http is not None and self._loop is get_running_loop():
            await http.aclose()

    async def _answer(self, method: str, path: str, body: Any = None, *, stream: bool = False) -> httpx2.Response:
        http = self._open()
        response, failure = None, None
        for attempt in range(self.retries + 1):
            response, failure = None, None
            try:
                request = http.build_request(method, path, **({} if body is None else {"json": body}))
                response = await http.send(request, stream=stream)
            except httpx2.TransportError as error:
                failure = error
            if (wait := self._wait(attempt, response)) is None:
                break
            if response is not None:
                await response.aclose()
            await asyncio.sleep(wait)
        if response is None:
            raise self._unreachable(failure or RuntimeError())
        return response

    async def _ask(self, method: str, path: str, body: Any = None, *, told: str) -> Any:
        return _read(await self._answer(method, path, body), told)

    async def _in_parts(
        self, path: str, name: str, inputs: Iterable[Any], *, told: str, **fields: Any
    ) -> AsyncIterator[Any]:
        for some in _parted(inputs):
            parts = [some]
            while parts:
                part = parts.pop()
                try:
                    answer = await self._ask("POST", path, self._body(**{name: part}, **fields), told=told)
                except ServerError as error:
                    parts += _halves(part, error)
                else:
                    yield answer

    async def models(self) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return (await self._ask("GET", "/v1/models", told="data"))["data"]

    async def predict(self, inputs: str | Mapping[str, Any] | Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """As `Client.predict`."""
        return [one async for one in self.stream(inputs, **options)]

    async def stream(
        self, inputs: str | Mapping[str, Any] | Iterable[Input], **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """As `Client.stream`."""
        async for answer in self._in_parts("/v1/predict", "inputs", inputs, told="predictions", options=options):
            for one in answer["predictions"]:
                yield one

    async def embed(self, texts: str | Sequence[str]) -> np.ndarray:
        """As `Client.embed`."""
        answers = self._in_parts("/v1/embeddings", "input", texts, told="data", encoding_format="base64")
        parts = [_vectors(answer) async for answer in answers]
        return np.concatenate(parts) if parts else (await self.embed("a"))[:0]

    async def analyze(self, texts: str | Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """As `Client.analyze`."""
        answers = self._in_parts("/v1/analyze", "input", texts, told="texts", options=options)
        return [found async for answer in answers for found in answer["texts"]]

    async def rerank(
        self, query: str, documents: str | Sequence[str], *, top_n: int | None = None
    ) -> list[dict[str, Any]]:
        """As `Client.rerank`."""
        if not (given := [documents] if isinstance(documents, str) else list(documents)):
            return []
        body = self._body(query=query, documents=given, top_n=top_n)
        return (await self._ask("POST", "/v1/rerank", body, told="results"))["results"]

    async def generate(self, source: str, **options: Any) -> dict[str, Any]:
        """As `Client.generate`."""
        body = self._body(input=source, stream=False, options=options)
        return await self._ask("POST", "/v1/generate", body, told="text")

    async def generate_stream(self, source: str, **options: Any) -> AsyncIterator[str]:
        """As `Client.generate_stream`."""
        response = await self._answer("POST", "/v1/generate", self._body(input=source, options=options), stream=True)
        async with contextlib.aclosing(response):
            with self._broken_off():
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
                raise self._ended_early()
