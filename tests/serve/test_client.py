"""The clients: the same answers as the model gives, and patience as the server asks for it."""

from __future__ import annotations

import asyncio
import datetime
import gc
import json
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
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
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
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
WRITTEN = (200, {}, 'data: {"text": "a"}\n\ndata: {"text": "b"}\n\nevent: done\ndata: {"tokens": {"kept": 1}}\n\n')


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


def test_texts_are_analysed(start: Start) -> None:
    url = start("heads").url
    with bothways.Client(url) as client:
        found = client.analyze(TEXTS)
        assert client.analyze(TEXTS[0]) == found[:1]
    words = [[one["text"] for one in text["words"]] for text in found]
    assert words == [[one["text"] for one in text["words"]] for text in toys.predictor("heads").analyze(TEXTS)]
    assert asyncio.run(asked_async(url, lambda one: one.analyze(TEXTS))) == found


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


def test_without_with_both_clients_open_themselves_and_can_be_closed(start: Start) -> None:
    url, wanted = start("mood").url, toys.predictor("mood").predict(TEXTS[:1])
    client = bothways.Client(url)
    for _ in range(2):  # closed, it opens itself anew
        assert_same(client.predict(TEXTS[:1]), wanted)
        client.close()

    async def ask() -> None:
        client = bothways.AsyncClient(url)
        for _ in range(2):
            assert_same(await client.predict(TEXTS[:1]), wanted)
            assert len(await client.models()) == 1
            await client.close()
        await client.close()

    asyncio.run(ask())


def test_an_async_client_goes_on_in_another_event_loop(start: Start) -> None:
    client, wanted = bothways.AsyncClient(start("mood").url), toys.predictor("mood").predict(TEXTS[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the connections are left to loops that have ended
        for _ in range(2):
            assert_same(asyncio.run(client.predict(TEXTS[:1])), wanted)
        asyncio.run(client.close())
        del client
        gc.collect()


async def asked_async(url: str, ask: Callable[[bothways.AsyncClient], Any], **more: Any) -> Any:
    """What an asyncio client answers; of a stream all of it."""
    async with bothways.AsyncClient(url, **more) as client:
        found = ask(client)
        return [one async for one in found] if hasattr(found, "__aiter__") else await found


def test_one_text_is_one_and_none_are_none(start: Start) -> None:
    url, model = start("mood", "masks").url, toys.predictor("masks")
    wanted = model.embed("a b c")
    with bothways.Client(url, model="masks") as client:
        for found in (client.embed("a b c"), asyncio.run(asked_async(url, lambda one: one.embed("a b c")))):
            assert found.shape == wanted.shape == (1, 32)  # type: ignore[union-attr]
        assert np.allclose(client.embed("a b c"), wanted, atol=1e-5)
        for none in (client.embed([]), asyncio.run(asked_async(url, lambda one: one.embed([])))):
            assert none.shape == model.embed([]).shape == (0, 32)  # type: ignore[union-attr]
            assert none.dtype == np.float32
        assert [one["index"] for one in client.rerank("a", "b c d")] == [0]
        assert client.rerank("a", []) == client.predict([]) == []
        assert len(list(client.stream("a b [MASK]"))) == 1
    assert [one["index"] for one in asyncio.run(asked_async(url, lambda one: one.rerank("a", "b c d")))] == [0]
    assert asyncio.run(asked_async(url, lambda one: one.rerank("a", []))) == []


# -------------------------------------------------------------------------------------------------- in parts


@pytest.mark.parametrize(
    "limits",
    [
        {"max_body_bytes": 150_000},  # all together they are larger
        {"max_body_bytes": 100_000},  # and so is what a client sends unasked
        {"max_texts": 6},
        {"max_queue_tokens": 700},  # the model reads 96 tokens of each
    ],
    ids=str,
)
def test_what_is_too_much_at_once_is_sent_in_parts(start: Start, limits: dict[str, int]) -> None:
    url = start("mood", "masks", limits=Limits(**limits)).url
    texts = [f"{letter} b c {'x' * 3000}{' d' * 100}" for letter in "defghijk"] * 8
    wanted = toys.predictor("mood").predict(texts)
    with bothways.Client(url) as client:
        assert_same(client.predict(texts), wanted)
    assert_same(asyncio.run(asked_async(url, lambda one: one.predict(texts))), wanted)
    with bothways.Client(url, model="masks") as client:
        vectors = client.embed([text[:40] for text in texts])
    assert np.allclose(vectors, toys.predictor("masks").embed([text[:40] for text in texts]), atol=1e-5)


def test_parts_are_closed_by_number_and_by_bytes() -> None:
    texts = ["a", "美" * 30_000, "b" * 50_000, {"text": "c" * 200_000}, ("d", "e"), *"f" * 70]
    parts = list(module._parted(texts))
    assert [one for part in parts for one in part] == texts
    assert [len(part) for part in parts] == [2, 1, 1, 64, 7]
    assert list(module._parted({"text": "a"})) == [[{"text": "a"}]]


def test_what_no_smaller_part_mends_is_told(scripted: Any, start: Start) -> None:
    with bothways.Client(start("mood", limits=Limits(max_body_bytes=2000)).url) as client:
        with pytest.raises(ServerError, match="at most 2,000 are taken") as told:
            client.predict(["a", "b" * 5000])
        assert told.value.status == 413
    long = (422, {}, {"error": {"message": "text 2 has 9 characters; at most 8 are taken: send it in parts"}})
    with bothways.Client(scripted(long)) as client, pytest.raises(ServerError, match="text 2 has 9"):
        client.predict(["a", "b"])


def test_what_json_lacks_is_spelt_another_way(start: Start) -> None:
    record = {"text": "a \ud83d b", "cost": math.nan, "most": [-math.inf], "day": datetime.date(2026, 11, 30)}
    url = start("mood").url
    with bothways.Client(url) as client:
        assert_same(client.predict(record), toys.predictor("mood").predict([record]))
        with pytest.raises(ConfigError, match="temperature is nan; a server can only be sent a finite number"):
            client.predict("a", temperature=math.nan)
    day = datetime.datetime(2026, 11, 30, 6, 5)
    assert module._plain({"day": day, "pair": ("a", b"b"), 5: 1e3}) == {
        "day": "2026-11-30 06:05:00",
        "pair": ["a", "b'b'"],
        "5": 1000.0,
    }


# -------------------------------------------------------------------------------------------------- patience


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


def test_a_stream_has_the_same_patience(scripted: Any, waits: list[float]) -> None:
    for ask in (
        lambda url: list(bothways.Client(url).generate_stream("x")),
        lambda url: asyncio.run(asked_async(url, lambda one: one.generate_stream("x"))),
    ):
        waits.clear()
        assert ask(scripted(full("7"), (503, {}, {}), (0, {}, None), WRITTEN)) == ["a", "b"]
        for slept, told in zip(waits, (7, 0.5, 1), strict=True):
            assert told <= slept <= 1.25 * told
        with pytest.raises(ServerError, match=r"/v1/generate: full"):
            ask(scripted(*[full("1")] * 6))
        with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9 can't be reached \(ConnectError\)"):
            ask("http://127.0.0.1:9")


def test_half_a_text_is_not_asked_for_again(scripted: Any, waits: list[float]) -> None:
    half = (200, {"Content-Length": "1000"}, WRITTEN[2][:42])
    with bothways.Client(scripted(half)) as client:
        pieces = client.generate_stream("x")
        assert next(pieces) == "a"
        with pytest.raises(ServerError, match=r"broke off \(RemoteProtocolError\)"):
            list(pieces)
    with pytest.raises(ServerError, match="broke off"):
        asyncio.run(asked_async(scripted(half), lambda one: one.generate_stream("x")))
    assert waits == []


def test_a_text_that_ends_without_a_word_of_it(scripted: Any) -> None:
    half = (200, {}, WRITTEN[2][: WRITTEN[2].index("event: done")])
    with bothways.Client(scripted(half)) as client, pytest.raises(ServerError, match="ended the text without saying"):
        list(client.generate_stream("x"))
    with pytest.raises(ServerError, match="ended the text without saying"):
        asyncio.run(asked_async(scripted(half), lambda one: one.generate_stream("x")))


def test_another_kind_of_server(scripted: Any) -> None:
    other = (200, {}, {"ok": True})
    asked = {
        "predictions": lambda client: client.predict("x"),
        "texts": lambda client: client.analyze("x"),
        "data": lambda client: client.embed("x"),
        "results": lambda client: client.rerank("x", ["y"]),
        "text": lambda client: client.generate("x"),
    }
    for name, ask in asked.items():
        with (
            bothways.Client(scripted(other)) as client,
            pytest.raises(ServerError, match=f"the answer has no '{name}'; is it a server of Bothways"),
        ):
            ask(client)


def test_a_proxy_that_can_not_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"the proxy of the environment \(ALL_PROXY, HTTPS_PROXY\) can't be used"):
        bothways.Client("http://somewhere.example").predict("x")


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


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://a", "http://", "http://[::1", "http://127.0.0.1:abc", "http://127.0.0.1:70000"),
        *("http://a..b:1", f"http://{'a' * 64}:1", "http://a\x00"),
    ],
)
def test_an_address_that_is_none(url: str, capsys: Any) -> None:
    for kind in (bothways.Client, bothways.AsyncClient):
        with pytest.raises(
            ConfigError, match=r"is no address of a server; wanted one such as http://127\.0\.0\.1:8000"
        ):
            kind(url)
    assert main(["predict", "mood", "a", "--url", url]) == 2
    assert "is no address of a server" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["ключ", "a b", "a\n"])
def test_a_key_that_no_header_carries(key: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with pytest.raises(ConfigError, match="the key must be of ASCII letters, digits and signs, without spaces"):
        bothways.Client(api_key=key)
    assert main(["predict", "mood", "a", "--url", "http://127.0.0.1:9", "--api-key", key]) == 2
    monkeypatch.setenv("BOTHWAYS_API_KEY", key)
    assert main(["predict", "mood", "a", "--url", "http://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.count("the key must be of ASCII") == 2


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


def predicted(capsys: Any, *words: Any) -> list[dict[str, Any]]:
    """What `bothways predict …` prints."""
    assert main(["predict", *map(str, words)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_table_is_labelled_by_url_as_here(start: Start, tmp_path: Any, capsys: Any) -> None:
    url = start("mood").url
    rows = {
        "text": ["a b", "c d"],
        "stars": [math.nan, 4.0],
        "day": [datetime.date(2026, 11, 30), None],
        "at": [datetime.datetime(2026, 11, 30, 6, 5), None],
        "near": [[math.inf], []],
        "raw": [b"\xff", b""],
    }
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    save(toys.predictor("mood").model, tmp_path / "mood")
    words = ("--data", tmp_path / "rows.parquet")
    here, there = predicted(capsys, tmp_path / "mood", *words), predicted(capsys, "mood", "--url", url, *words)
    assert len(here) == 2
    assert here == there


def test_of_several_tasks_the_one_that_fills_masks_answers_each_text_that_has_one(
    start: Start, tmp_path: Any, capsys: Any
) -> None:
    """Alike for texts, for a file and by a server; what names its task itself is left to that."""
    url, folder = start("heads", "mood").url, save(toys.predictor("heads").model, tmp_path / "heads")
    texts = ["我们去[MASK]。", "我们去北京。", "a [MASK] [MASK]"]
    records = [{"text": text, "id": number} for number, text in enumerate(texts)]
    records += [{"text": texts[0], "task": "sentiment"}, {"text": texts[0], "task": "text"}]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    model = toys.predictor("heads")
    wanted = [
        {"masks": model.fill_mask(texts[0])[0], "tokens": {"kept": 5}},
        *model.predict([texts[1]]),
        {"masks": model.fill_mask(texts[2])[0], "tokens": {"kept": 3}},
        *model.predict(records[3:]),
    ]
    assert wanted[4]["text"] == {"masks": wanted[0]["masks"]}
    for where in ([folder], ["heads", "--url", url]):
        for words, count in ((texts, 3), (["--data", data], 5)):
            found = predicted(capsys, *where, *words)
            assert [list(one) for one in found] == [list(one) for one in wanted[:count]]
            for number in (0, 2):
                assert found[number]["tokens"] == wanted[number]["tokens"]
                for mine, other in zip(found[number]["masks"], wanted[number]["masks"], strict=True):
                    assert (mine["start"], mine["end"]) == (other["start"], other["end"])
                    assert_same(mine["fillings"], other["fillings"])
    (found,) = predicted(capsys, "mood", "--url", url, texts[0])
    assert found["label"] in model.model.task.parts["sentiment"].labels


def test_predict_by_url_tells_what_is_wrong(start: Start, tmp_path: Any, capsys: Any) -> None:
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
