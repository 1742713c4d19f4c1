"""Streams: pieces as events, in turn with the work of others, mistakes before the 200, and no writing for nobody."""

from __future__ import annotations

import asyncio
import base64
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.serve import toys
from tests.serve.conftest import Start, until

import bothways
from bothways.data.record import Record
from bothways.errors import ConfigError, DataError, ServerError
from bothways.infer.generation import Pieces
from bothways.infer.predictor import Predictor
from bothways.tasks.base import Answer, Task
from bothways.tasks.classify import ClassifySettings, ClassifyTask


class Told(ClassifyTask):
    """Stands in for the task that writes: its text is the source turned round."""

    name = "generate"

    def with_options(self, **options: Any) -> Task:
        if set(options) - {"beams"}:
            raise ConfigError(f"unknown option {', '.join(options)}; known is beams")
        return self

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        return {"text": record.fields["text"][::-1], "score": -1.5}


class Writer(Predictor):
    """Writes the source's letters from the last to the first."""

    gate: threading.Event
    written = 0

    def generate(self, sources: Sequence[str], *, return_attention: bool) -> list[dict[str, Any]]:
        assert return_attention
        weights = np.full((2, 4, 3, 2), 0.5, np.float32)
        return [{"source_tokens": ["a", "b"], "target_tokens": ["c", "d", "e"], "attention": weights}]

    def generate_stream(self, source: Any, **options: Any) -> Pieces:
        if options.get("beams", 1) != 1:
            raise ConfigError("beams is 4; a stream needs beams 1")
        if not source.strip():
            raise DataError("the text is empty")
        return Pieces(self._pieces(source), {"kept": len(source)})

    def _pieces(self, source: str) -> Iterator[str]:
        for letter in reversed(source):
            assert self.gate.wait(20)
            self.written += 1
            if letter == "!":
                raise RuntimeError("secret")
            yield letter


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    task = Told(ClassifySettings(), "one", ["negative", "neutral", "positive"])
    one = Writer(replace(toys.model(task), task=task), device="cpu")
    one.gate = threading.Event()
    one.gate.set()
    inner = toys.predictor

    def predictor(name: str, *more: Any) -> Predictor:
        return one if name == "writer" else inner(name, *more)

    monkeypatch.setattr(toys, "predictor", predictor)
    return one


def events(text: str) -> Sequence[str]:
    return text.strip().split("\n\n")


def test_pieces_come_as_events(start: Start, writer: Writer) -> None:
    server = start("writer")
    response = server.post("/v1/generate", {"input": "天b"})
    assert response.headers["content-type"].startswith("text/event-stream")
    *texts, end = events(response.text)
    assert texts == ['data: {"text": "b"}', 'data: {"text": "天"}']
    assert end == 'event: done\ndata: {"tokens": {"kept": 2}}'
    whole = server.post("/v1/generate", {"input": "天b", "stream": False, "options": {"beams": 4}}).json()
    assert whole == {"model": "writer", "text": "b天", "score": -1.5, "tokens": {"kept": 2}}


def test_attention_to_the_source_is_shown(start: Start, writer: Writer) -> None:
    answer = start("writer").post("/v1/attention", {"text": "a b"}).json()
    cross = answer["cross"]
    assert (cross["tokens"], cross["keys"]) == (["c", "d", "e"], ["a", "b"])
    raw = np.frombuffer(zlib.decompress(base64.b64decode(cross["weights"])), np.uint8)
    assert raw.shape == (2 * 4 * 3 * 2,)
    assert np.allclose((raw / 255) ** 2, 0.5, atol=5e-3)


def test_mistakes_are_told_before_a_stream_begins(start: Start, writer: Writer) -> None:
    server = start("writer")
    for body, message in [
        ({"input": "a", "options": {"beams": 4}}, "a stream needs beams 1"),
        ({"input": " "}, "the text is empty"),
        ({"input": "a" * 100_001}, "at most 100,000"),
        ({"input": "a", "stream": False, "options": {"beam": 4}}, "known is beams"),
        ({"input": "a", "model": "b"}, "loaded are writer"),
    ]:
        response = server.post("/v1/generate", body)
        assert response.status_code in (404, 422), body
        assert message in response.json()["error"]["message"]


def test_a_stream_that_breaks_says_so_and_no_more(start: Start, writer: Writer) -> None:
    last = events(start("writer").post("/v1/generate", {"input": "!ab"}).text)[-1]
    assert last == 'event: error\ndata: {"message": "something went wrong in the server; its log says where"}'
    assert "secret" not in last


def test_writing_waits_its_turn(start: Start, writer: Writer) -> None:
    """Between two pieces the model's thread answers others: one queue a model, whatever is asked of it."""
    server = start("writer")
    with server.http.stream("POST", "/v1/generate", json={"input": "abcd"}) as response:
        lines = response.iter_lines()
        assert next(lines) == 'data: {"text": "d"}'
        assert server.post("/v1/tokenize", {"input": "a"}).status_code == 200
        assert server.post("/v1/predict", {"inputs": "ab"}).json()["predictions"][0]["text"] == "ba"
        assert len(list(lines)) > 3


def test_nothing_is_written_for_a_client_that_has_gone(start: Start, writer: Writer) -> None:
    server = start("writer")
    with server.http.stream("POST", "/v1/generate", json={"input": "a" * 20_000}) as response:
        next(response.iter_lines())
    batcher = server.app.models.all[0].batcher
    until(
        lambda: server.http.get("/metrics").text.count('route="/v1/generate",status="200"') and not batcher.waiting_jobs
    )
    before = writer.written
    assert server.post("/v1/predict", {"inputs": "ab"}).status_code == 200
    assert writer.written == before < 20_000


def test_clients_stream_too(start: Start, writer: Writer) -> None:
    url = start("writer").url
    with bothways.Client(url) as client:
        assert list(client.generate_stream("天b c")) == ["c", " ", "b", "天"]
        assert client.generate("ab", beams=2)["text"] == "ba"
        with pytest.raises(ServerError, match="a stream needs beams 1"):
            list(client.generate_stream("a", beams=4))
        with pytest.raises(ServerError, match="the server broke off"):
            list(client.generate_stream("!a"))

    async def ask() -> list[str]:
        async with bothways.AsyncClient(url) as client:
            return [piece async for piece in client.generate_stream("ab")]

    assert asyncio.run(ask()) == ["b", "a"]
