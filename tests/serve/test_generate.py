"""Streams: pieces as events, in turn with the work of others, mistakes before the 200, and no writing for nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
import zlib
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import numpy as np
import pytest
from tests.serve import toys
from tests.serve.conftest import Start, until

import bothways
from bothways.data.record import Record
from bothways.errors import ConfigError, DataError, ServerError, Stopped
from bothways.infer.generation import Pieces
from bothways.infer.predictor import Predictor
from bothways.nn.network import Network
from bothways.serve.limits import Limits
from bothways.serve.problems import Problem
from bothways.serve.routes.generate import Stream
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
    """Writes the source's letters from the last to the first; a source with … is cut."""

    gate: threading.Event
    written = 0

    def generate(self, sources: Sequence[str], *, return_attention: bool, long: str, stop: Any) -> list[dict[str, Any]]:
        assert return_attention
        assert long == "first", "what is left out is told as dropped"
        weights = np.full((2, 4, 3, 2), 0.5, np.float32)
        return [{"source_tokens": ["a", "b"], "target_tokens": ["c", "d", "e"], "attention": weights}]

    def generate_stream(self, source: Any, **options: Any) -> Pieces:
        if options.get("beams", 1) != 1:
            raise ConfigError("beams is 4; a stream needs beams 1")
        if not source.strip():
            raise DataError("the text is empty")
        return Pieces(self._pieces(source), {"kept": len(source)})

    def _pieces(self, source: str) -> Generator[str, None, bool]:
        for letter in reversed(source):
            assert self.gate.wait(20)
            self.written += 1
            if letter == "!":
                raise RuntimeError("secret")
            yield letter
        return "…" in source


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
    cut = events(server.post("/v1/generate", {"input": "天…"}).text)
    assert cut[-1] == 'event: done\ndata: {"tokens": {"kept": 2}, "unfinished": true}'
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
        ({"input": "a", "options": {"long": "all"}}, "long is 'all'; wanted one of refuse, first, windows"),
        ({"input": "a", "options": {"forbidden": "words.txt"}}, "forbidden is 'words.txt'; wanted no string"),
        ({"input": "a", "model": "b"}, "loaded are writer"),
    ]:
        response = server.post("/v1/generate", body)
        assert response.status_code in (404, 422), body
        assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_the_words_that_a_request_forbids_are_limited(start: Start, stream: bool) -> None:
    """Each is looked for at every step of every beam."""
    server = start("translations")

    def ask(path: str, forbidden: list[str]) -> httpx2.Response:
        options = {"forbidden": forbidden, "max_length": 2}
        return server.post(path, {"input": "a", "stream": stream, "options": options})

    assert ask("/v1/generate", ["a"] * 1000).status_code == 200
    many = ask("/v1/generate", ["a"] * 1001)
    assert many.status_code == 422
    wanted = "options.forbidden has 1,001 words; at most 1,000 are taken: forbid fewer"
    assert many.json()["error"]["message"] == wanted
    assert "has 20,001 characters; at most 20,000 are taken" in ask("/v1/generate", ["a" * 20_001]).text
    body = {"inputs": "a", "options": {"forbidden": ["a"] * 1001}}
    assert wanted in server.post("/v1/predict", body).text


def test_the_first_piece_of_a_stream_counts_as_much_as_its_source(start: Start, writer: Writer) -> None:
    server = start("writer")
    batcher, writer.gate = server.app.models.all[0].batcher, threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/v1/generate", {"input": "ab" * 20})
        until(lambda: batcher._computing)
        assert batcher._computing == 40
        writer.gate.set()
        assert asked.result(20).status_code == 200


def test_a_stream_that_has_begun_goes_on_however_much_waits(start: Start, writer: Writer) -> None:
    server = start("writer")
    batcher = server.app.models.all[0].batcher
    with server.http.stream("POST", "/v1/generate", json={"input": "abcd"}) as response:
        lines = response.iter_lines()
        assert next(lines) == 'data: {"text": "d"}'
        with batcher.admit(batcher.max_queue_tokens, taken=True):
            assert server.post("/v1/generate", {"input": "ab"}).status_code == 429
            assert [line for line in lines if line] == [
                *(f'data: {{"text": "{letter}"}}' for letter in "cba"), "event: done", 'data: {"tokens": {"kept": 4}}'
            ]  # fmt: skip
    assert 'tokens_kept_total{model="writer"} 4.0' in server.http.get("/metrics").text


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


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each step of writing began; it takes a while."""
    begun, inner = list[float](), Network.next_logits

    def slow(self: Network, *given: Any) -> Any:
        begun.append(time.monotonic())
        time.sleep(0.05)
        return inner(self, *given)

    monkeypatch.setattr(Network, "next_logits", slow)
    return begun


LONG: dict[str, Any] = {"input": "a b c", "options": {"max_length": 90, "min_length": 90}}


def test_writing_ends_at_the_deadline(start: Start, steps: list[float]) -> None:
    server = start("translations", limits=Limits(deadline_s=0.5))
    steps.clear()  # those of the warm-up
    for body in ({**LONG, "stream": False}, {**LONG, "stream": False, "options": {**LONG["options"], "beams": 3}}):
        response = server.post("/v1/generate", body)
        assert response.status_code == 504
        assert "the deadline passed" in response.text
        until(lambda: not server.app.models.all[0].batcher._computing)
        assert 0 < len(steps) < 30
        steps.clear()
    time.sleep(0.2)
    assert steps == []


@pytest.mark.parametrize("stream", [True, False])
def test_writing_ends_when_the_client_goes(start: Start, steps: list[float], stream: bool) -> None:
    server = start("translations")
    steps.clear()
    body = json.dumps({**LONG, "stream": stream})
    head = f"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", server.http.base_url.port or 0)) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        until(lambda: len(steps) > 2)
    until(lambda: not server.app.models.all[0].batcher._computing)
    time.sleep(0.2)
    count = len(steps)
    assert 0 < count < 60
    time.sleep(0.3)
    assert len(steps) == count


def test_a_piece_of_a_stream_is_given_up_when_nobody_waits_for_it(start: Start) -> None:
    served = start("translations").app.models.all[0]
    stream = Stream(served, "a b c", {})
    assert stream.next(lambda: False)
    with pytest.raises(Stopped):
        stream.next(lambda: True)
    for wrong in ({"stop": True}, {"stop": None}, {"self": 1}, {"source": "b"}):
        with pytest.raises(Problem, match=f"options: generate takes no option '{next(iter(wrong))}'"):
            Stream(served, "a", wrong)


def test_clients_stream_too(start: Start, writer: Writer) -> None:
    url = start("writer").url
    with bothways.Client(url) as client:
        assert list(client.generate_stream("天b c")) == ["c", " ", "b", "天"]
        assert client.generate("ab", beams=2)["text"] == "ba"
        with pytest.raises(ServerError, match="a stream needs beams 1"):
            list(client.generate_stream("a", beams=4))
        with pytest.raises(ServerError, match="the server broke off"):
            list(client.generate_stream("!a"))
        with pytest.warns(UserWarning, match="cut at its greatest length") as warned:
            assert list(client.generate_stream("a…")) == ["…", "a"]
        assert warned[0].filename == __file__

    async def ask() -> list[str]:
        async with bothways.AsyncClient(url) as client:
            return [piece async for piece in client.generate_stream("ab…")]

    with pytest.warns(UserWarning, match="cut at its greatest length"):
        assert asyncio.run(ask()) == ["…", "b", "a"]
