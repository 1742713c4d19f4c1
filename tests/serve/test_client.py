"""The clients: the same answers as the model gives, and patience as the server asks for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.serve import toys
from tests.serve.conftest import Start

import bothways
from bothways.cli.main import main
from bothways.errors import ConfigError, ServerError
from bothways.models.model import save
from bothways.serve import client as module
from bothways.serve.limits import Limits

TEXTS = [f"a b {letter}" for letter in "cdefghij"] * 10


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=slept.append))

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    return slept


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """A server that answers as it is told, one (status, headers, body) a request."""
    servers: list[HTTPServer] = []

    def serve(*answers: tuple[int, dict[str, str], Any]) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, body = left.pop(0)
                if status == 0:  # gone without a word
                    self.close_connection = True
                    return
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def assert_same(mine: Any, other: Any) -> None:
    """Predictions, but for the last digits of their scores."""
    assert len(mine) == len(other)
    for one, wanted in zip(mine, other, strict=True):
        assert one.keys() == wanted.keys()
        for name, value in wanted.items():
            assert one[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), name


GOOD = (200, {}, {"predictions": [{"label": "x"}]})


def full(retry_after: str | None) -> tuple[int, dict[str, str], Any]:
    return 429, {} if retry_after is None else {"Retry-After": retry_after}, {"error": {"message": "full"}}


def test_answers_are_the_models_own(start: Start) -> None:
    url = start("mood", "masks", "alike").url
    wanted = toys.predictor("mood").predict(TEXTS)
    with bothways.Client(url) as client:
        assert_same(client.predict(TEXTS), wanted)
        assert_same(client.predict("a b c"), wanted[:1])
        assert [one["id"] for one in client.models()] == ["mood", "masks", "alike"]
    with bothways.Client(url, model="masks") as client:
        assert np.allclose(client.embed(TEXTS), toys.predictor("masks").embed(TEXTS), atol=1e-5)
        assert len(client.predict("[MASK]", top=2)[0]["masks"][0]["fillings"]) == 2
    with bothways.Client(url, model="alike") as client:
        assert_same(client.predict([("a", "b")]), toys.predictor("alike").predict([("a", "b")]))
        assert len(client.rerank("a", ["b", "c"], top_n=1)) == 1


def test_the_async_client_does_the_same(start: Start) -> None:
    url = start("mood", "alike").url

    async def ask() -> list[Any]:
        async with bothways.AsyncClient(url) as client:
            return [await client.predict(TEXTS), await client.embed(TEXTS), await client.models(),
                    await client.rerank("a", ["b", "c"])]  # fmt: skip

    predictions, vectors, models, ranked = asyncio.run(ask())
    assert_same(predictions, toys.predictor("mood").predict(TEXTS))
    assert vectors.shape == (80, 32)
    assert len(models) == len(ranked) == 2


def test_it_comes_back_when_the_server_says(scripted: Any, waits: list[float]) -> None:
    url = scripted(full("7"), full(None), (503, {"Retry-After": "2"}, {}), (0, {}, None), GOOD)
    with bothways.Client(url) as client:
        assert client.predict("a") == [{"label": "x"}]
    for slept, told in zip(waits, (7, 0.5, 2, 2), strict=True):
        assert told <= slept <= 1.25 * told


def test_the_async_client_has_the_same_patience(scripted: Any, waits: list[float]) -> None:
    url = scripted(full("3"), GOOD)

    async def ask() -> Any:
        async with bothways.AsyncClient(url) as client:
            return await client.predict("a")

    assert asyncio.run(ask()) == [{"label": "x"}]
    assert 3 <= waits[0] <= 3.75


def test_patience_ends(scripted: Any, waits: list[float]) -> None:
    with (
        bothways.Client(scripted(*[full("1")] * 3), retries=2) as client,
        pytest.raises(ServerError, match=r"/v1/predict: full") as told,
    ):
        client.predict("a")
    assert (told.value.status, len(waits)) == (429, 2)
    with (
        bothways.Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServerError, match="can't be reached"),
    ):
        client.predict("a")


def test_what_is_wrong_is_not_tried_again(start: Start, waits: list[float]) -> None:
    with (
        bothways.Client(start("mood").url, model="other") as client,
        pytest.raises(ServerError, match="loaded are mood"),
    ):
        client.predict("a")
    assert waits == []


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("12", 12, 12), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("soon", None, None), (None, None, None)],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, low: float | None, high: float | None) -> None:
    found = module._seconds(header)
    assert found is None if low is None else low <= found <= high


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://a", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        bothways.Client(url)


def test_under_pressure_nothing_is_lost(start: Start) -> None:
    url = start("mood", limits=Limits(max_queue_tokens=60)).url

    def ask(text: str) -> Any:
        with bothways.Client(url, retries=100) as client:
            client._wait = lambda attempt, response: None if response.status_code == 200 else 0.01  # type: ignore
            return client.predict(text)[0]

    with ThreadPoolExecutor(16) as pool:
        assert_same(list(pool.map(ask, TEXTS)), toys.predictor("mood").predict(TEXTS))


def test_predict_by_url_prints_what_predict_prints(start: Start, tmp_path: Any, capsys: Any) -> None:
    url = start("mood", "masks", "words", "questions", "translations").url
    (tmp_path / "words.txt").write_text("去北京\n", encoding="utf-8")
    asked = toys.QUESTIONS[0]["question"], toys.QUESTIONS[0]["context"]
    (tmp_path / "asked.jsonl").write_text(json.dumps(dict(zip(("question", "context"), asked, strict=True))) + "\n")
    cases = {
        "mood": ["a b", "c"],
        "masks": ["a [MASK]"],
        "words": ["我们去北京", "--segment.dictionary", tmp_path / "words.txt", "--segment.bonus", "2.5"],
        "questions": ["--data", tmp_path / "asked.jsonl", "--qa.top", "2", "--qa.threshold", "none"],
        "translations": ["今天天气很好。", "--generate.sample", "true", "--generate.temperature", "3", "--seed", "5"],
    }
    for name, words in cases.items():
        save(toys.predictor(name).model, tmp_path / name)
        told = []
        for where in ([tmp_path / name], [name, "--url", url]):
            assert main(["predict", *map(str, [*where, *words])]) == 0
            told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
        if name == "translations":  # written text is equal; its score, a sum of many, may differ in the ninth digit
            assert_same(*told)
        else:
            assert told[0] == told[1], name


def test_predict_by_url_tells_what_is_wrong(
    start: Start, tmp_path: Any, capsys: Any, blocked: Callable[[str], Blocked]
) -> None:
    url = start("mood", api_key="k").url
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "a"}\n{"text": " "}\n', encoding="utf-8")
    words = ["predict", "mood", "--url", url, "--api-key", "k", "--data", str(data)]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{data}:2: the text is empty" in told
    assert "<records>" not in told
    assert main([*words[:4], "--data", str(data)]) == 2
    assert "the key is missing or wrong" in capsys.readouterr().err
