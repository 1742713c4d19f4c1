"""The routes over the wire: what they answer, what they refuse and how, and that neighbours change nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import socket
import string
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest
from tests.serve import toys
from tests.serve.conftest import Blocked, Running, Start, until

from bothways.infer import engine
from bothways.infer.predictor import Predictor
from bothways.infer.quantised import Kernels
from bothways.serve import service
from bothways.serve.app import App
from bothways.serve.gate import loopback_names
from bothways.serve.limits import Limits
from bothways.text.tokenizer import Tokenizer

Block = Callable[[str], Blocked]
TEXT = "Ada wrote it"


def told(response: httpx2.Response, status: int) -> str:
    """The message of an error of the one shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == status
    assert "\n" not in error["message"]
    return error["message"]


def predict(server: Running, inputs: Any, **more: Any) -> httpx2.Response:
    return server.post("/v1/predict", {"inputs": inputs, **more})


# -------------------------------------------------------------------------------------------------- answers

INPUTS: dict[str, Any] = {
    "entities": "Ada Lovelace wrote",
    "words": "我们去北京",
    "mood": "It opens on Friday.",
    "pairs": ["他在睡觉。", "他醒着。"],
    "alike": ["She reads.", "It is raining."],
    "commands": "play Westbam",
    "roles": {"text": "Ada wrote it", "predicate": 1},
    "questions": {"question": "When?", "context": "In 1932 it was built."},
    "choices": {"context": "It is dark.", "question": "What?", "choices": ["a stone", "a lamp"]},
    "translations": "今天天气很好。",
    "heads": "Ada wrote it",
    "masks": "The [MASK] of France",
}


def test_every_task_answers_as_the_predictor_does(start: Start) -> None:
    assert set(INPUTS) == set(toys.MAKERS)
    server = start(*toys.MAKERS)
    for name, given in INPUTS.items():
        answer = predict(server, [given], model=name).json()
        predictor = toys.predictor(name)
        local = tuple(given) if isinstance(given, list) else given
        wanted = (predictor.filler() if name == "masks" else predictor).predict([local])
        assert answer["model"] == name
        assert answer["predictions"] == json.loads(json.dumps(wanted)), name
        assert answer["predictions"][0]["tokens"]["kept"] > 0


def test_one_text_or_many_and_options(start: Start) -> None:
    server = start("words", "masks")
    one, listed = predict(server, "我们去北京").json(), predict(server, ["我们去北京"]).json()
    assert one == listed
    whole = predict(server, "我们去北京", options={"dictionary": ["去北京"]}).json()["predictions"][0]
    assert "去北京" in whole["words"]
    masks = predict(server, "The [MASK]", model="masks", options={"top": 2}).json()["predictions"][0]["masks"]
    assert len(masks[0]["fillings"]) == 2


def test_alone_or_in_company_the_answer_is_the_same(start: Start) -> None:
    server, draw = start("mood"), random.Random(1)
    texts = [" ".join(draw.choices(string.ascii_letters, k=draw.randint(1, 60))) for _ in range(60)]
    alone = [toys.predictor("mood").predict([text])[0] for text in texts]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda text: predict(server, text).json()["predictions"][0], texts))
    assert len({one["score"] for one in alone}) > 50
    for mine, other in zip(together, alone, strict=True):
        assert mine["label"] == other["label"]
        assert mine["scores"] == pytest.approx(other["scores"], abs=1e-5)
    batches = [line for line in server.http.get("/metrics").text.splitlines() if "batch_tokens_count" in line]
    assert 1 < float(batches[0].split()[-1]) < 60, "some were computed together"


def test_a_bad_text_does_not_fail_its_neighbours(start: Start) -> None:
    server = start("mood")
    texts = ["good"] * 32
    texts[13] = " "
    answers = predict(server, texts).json()["predictions"]
    assert [number for number, one in enumerate(answers) if "error" in one] == [13]
    assert "the text is empty" in answers[13]["error"]
    assert "the text is empty" in told(predict(server, " "), 422)


def test_what_was_not_read_is_told_and_counted(start: Start) -> None:
    server = start("mood")
    assert predict(server, "a " * 200).json()["predictions"][0]["tokens"] == {"kept": 94, "dropped": 106}
    lines = server.http.get("/metrics").text.splitlines()
    assert 'bothways_tokens_dropped_total{model="mood"} 106.0' in lines
    assert 'bothways_texts_truncated_total{model="mood"} 1.0' in lines
    assert 'bothways_queue_tokens{model="mood"} 0.0' in lines
    assert any(line.startswith('bothways_request_seconds_bucket{le="0.1",route="/v1/predict"}') for line in lines)


def test_tokenize_gives_every_piece_and_its_place(start: Start) -> None:
    answer = start("mood").post("/v1/tokenize", {"input": ["Ada 天气", ""]}).json()
    assert [one["token"] for one in answer["texts"][0]["tokens"]] == ["Ada", "天", "气"]
    assert answer["texts"][0]["tokens"][1] | {"id": 0} == {"id": 0, "token": "天", "start": 4, "end": 5}
    assert answer["texts"][1] == {"count": 0, "tokens": []}
    assert answer["max_length"] == 96


def test_rerank_puts_the_best_first(start: Start) -> None:
    server = start("alike", "pairs", "mood")
    documents = ["a b c", "A man is playing a flute.", "x"]
    for name in ("alike", "pairs"):
        body = {"model": name, "query": "A man", "documents": documents}
        answer = server.post("/v1/rerank", {**body, "return_documents": True}).json()
        scores = [one["relevance_score"] for one in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert [one["document"]["text"] for one in answer["results"]] == [
            documents[one["index"]] for one in answer["results"]
        ]
        best = server.post("/v1/rerank", {**body, "top_n": 1}).json()["results"]
        assert [one["index"] for one in best] == [answer["results"][0]["index"]]
    none = server.post("/v1/rerank", {"query": "a", "documents": []})
    assert "documents: List should have at least 1 item" in told(none, 422)


def test_rerank_tokenises_each_text_once(start: Start, monkeypatch: Any) -> None:
    server, given = start("pairs"), list[str]()
    encode = Tokenizer.encode

    def counted(self: Tokenizer, texts: Any, **options: Any) -> Any:
        given.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    documents = ["x", "a b c", "x", "A man"]
    answer = server.post("/v1/rerank", {"query": "A man", "documents": documents}).json()
    assert sorted(given) == ["A man", "a b c", "x"]
    scores = {one["index"]: one["relevance_score"] for one in answer["results"]}
    wanted = toys.predictor("pairs").predict([("A man", one) for one in documents])
    assert [scores[number] for number in range(4)] == pytest.approx([one["scores"]["entailment"] for one in wanted])


def test_models_tell_what_they_do(start: Start) -> None:
    server = start("mood", "masks", "pairs")
    data = server.http.get("/v1/models").json()["data"]
    assert [(one["id"], one["task"]) for one in data] == [("mood", "classify"), ("masks", "fill"), ("pairs", "pair")]
    assert data[0]["labels"] == ["negative", "neutral", "positive"]
    assert "/v1/rerank" in data[2]["routes"]
    assert "/v1/generate" not in data[0]["routes"]


def test_one_of_several_tasks_fills_masks(start: Start) -> None:
    server = start("mood", "heads")
    data = server.http.get("/v1/models").json()["data"]
    assert [one["fills"] for one in data] == [None, "text"]
    body = {"inputs": [{"task": "text", "text": "我们去[MASK]。"}], "model": "heads"}
    (found,) = server.post("/v1/predict", body).json()["predictions"]
    (mask,) = found["text"]["masks"]
    fillings = toys.predictor("heads").fill_mask("我们去[MASK]。")[0][0]["fillings"]
    assert [one["token"] for one in mask["fillings"]] == [one["token"] for one in fillings]


def test_analysis_is_that_of_the_model(start: Start) -> None:
    server = start("mood", "heads", "pairs")
    routes = {one["id"]: "/v1/analyze" in one["routes"] for one in server.http.get("/v1/models").json()["data"]}
    assert routes == {"mood": True, "heads": True, "pairs": False}
    texts, model = ["我们去北京。", "Ada wrote it"], toys.predictor("heads")
    answer = server.post("/v1/analyze", {"input": texts, "model": "heads"}).json()
    assert answer["model"] == "heads"
    assert answer["texts"] == json.loads(json.dumps(model.analyze(texts)))
    body = {"input": [texts[0], " "], "model": "heads", "options": {"dictionary": ["们去"], "vector": True}}
    kept, wrong = server.post("/v1/analyze", body).json()["texts"]
    assert "们去" in [word["text"] for word in kept["words"]]
    assert len(kept["vector"]) == 32
    assert wrong["error"].startswith("<records>:2: the text is empty")
    named = {"input": "a", "options": {"dictionary": "/etc/x"}}  # a client names no files of the server's
    assert "options: dictionary is '/etc/x'; wanted no string" in told(server.post("/v1/analyze", named), 422)
    assert "unknown option depth" in told(server.post("/v1/analyze", {"input": "a", "options": {"depth": 1}}), 422)
    assert "has no /v1/analyze" in told(server.post("/v1/analyze", {"input": "a", "model": "pairs"}), 404)


def test_embeddings_speak_as_openai_does(start: Start) -> None:
    server = start("masks", "mood")
    texts = ["Ada wrote it", "天气"]
    wanted = toys.predictor("masks").embed(texts)
    answer = server.post("/v1/embeddings", {"model": "masks", "input": texts}).json()
    assert answer["object"] == "list"
    assert [(one["object"], one["index"]) for one in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    assert [one["tokens"] for one in answer["data"]] == [{"kept": 3}, {"kept": 2}]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert np.allclose([one["embedding"] for one in answer["data"]], wanted, atol=1e-6)
    body = {"model": "masks", "input": texts[0], "encoding_format": "base64", "user": "x", "dimensions": 32}
    (one,) = server.post("/v1/embeddings", body).json()["data"]
    assert np.allclose(np.frombuffer(base64.b64decode(one["embedding"]), "<f4"), wanted[0], atol=1e-6)
    assert "vectors of masks have 32" in told(server.post("/v1/embeddings", {**body, "dimensions": 8}), 422)
    assert "input" in told(server.post("/v1/embeddings", {"input": [[1, 2]]}), 422)
    documents = ["天气", "Ada wrote it", "Ada wrote"]
    ranked = server.post("/v1/rerank", {"query": "Ada wrote it", "documents": documents}).json()
    assert (ranked["by"], ranked["results"][0]["index"]) == ("cosine", 1)
    assert ranked["results"][0]["relevance_score"] == pytest.approx(1, abs=1e-5)


def test_attention_is_what_the_predictor_finds(start: Start) -> None:
    answer = start("mood").post("/v1/attention", {"text": "Ada wrote", "text_b": "it"}).json()
    wanted = toys.predictor("mood").attention("Ada wrote", "it")
    shape = (answer["layers"], answer["heads"], len(answer["tokens"]), len(answer["tokens"]))
    raw = np.frombuffer(zlib.decompress(base64.b64decode(answer["weights"])), np.uint8).reshape(shape)
    assert np.allclose((raw / 255) ** 2, wanted["weights"], atol=5e-3)
    assert answer["tokens"] == ["[CLS]", "Ada", "wrote", "[SEP]", "it", "[SEP]"]
    assert answer["segments"] == [0, 0, 0, 0, 1, 1]


def test_unknown_models_and_missing_abilities(start: Start) -> None:
    server = start("mood")
    assert "loaded are mood" in told(predict(server, TEXT, model="../../etc/passwd"), 404)
    assert "has no /v1/generate" in told(server.post("/v1/generate", {"input": "a", "model": "mood"}), 404)
    assert "no loaded model has /v1/generate" in told(server.post("/v1/generate", {"input": "a"}), 404)


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "the body: Field required"),
        (b"{", 400, "the body is not JSON"),
        (b'{"inputs": NaN}', 400, "the body holds NaN"),
        (b'{"inputs": "\xff"}', 400, "the body is not UTF-8: byte 12"),
        ('{"inputs": "a"}'.encode("utf-16"), 400, "the body is not UTF-8"),
        (b'{"inputs": "\\ud800"}', 400, "half of a surrogate pair"),
        (b'{"inputs": "a", "inputs": "b"}', 400, "a key twice"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", 400, "a number that is too long"),
        (b"[1]", 422, "valid dictionary"),
        (b'{"inputs": "a", "text": "b"}', 422, "text: Extra inputs are not permitted"),
        (b'{"inputs": []}', 422, "there is no text"),
        (b'{"inputs": 5}', 422, "inputs"),
        (b'{"inputs": {"txt": "a"}}', 422, "no field 'text'"),
        (b'{"inputs": {"text": 1e400}}', 400, "the body holds '1e400', which is too large for a number"),
        (b'{"inputs": "a", "options": {"bonus": -1e999}}', 400, "the body holds '-1e999', which is too large"),
        (b'{"inputs": "a", "options": {"bonus": 1}}', 422, "takes no options"),
        (
            b'{"inputs": "a", "options": {"dictionary": "/etc/passwd"}}',
            422,
            "dictionary is '/etc/passwd'; wanted no string",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_read_is_refused(start: Start, body: bytes, status: int, message: str) -> None:
    server = start("mood")
    response = server.http.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert message in told(response, status)
    assert predict(server, TEXT).status_code == 200


def test_no_file_of_the_servers_is_read(start: Start, tmp_path: Any) -> None:
    """The segmenter's option takes a file's name from the command line, but not from a client."""
    (tmp_path / "secret.txt").write_text("秘密\n", encoding="utf-8")
    response = predict(start("words"), "秘密", options={"dictionary": str(tmp_path / "secret.txt")})
    assert "secret.txt'; wanted no string" in told(response, 422)


def test_the_body_must_be_plain_json(start: Start) -> None:
    server = start("mood")
    assert "Content-Type: application/json" in told(server.http.post("/v1/predict", content=b"{}"), 415)
    form = server.http.post("/v1/predict", content=b"{}", headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in told(form, 415)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert "compressed" in told(server.http.post("/v1/predict", content=b"\x1f\x8b", headers=headers), 415)
    assert told(server.http.get("/v1/predict"), 405)
    assert told(server.http.post("/nothing", content=b""), 404)


def test_limits_are_exact(start: Start) -> None:
    server = start("mood", limits=Limits(max_body_bytes=2000, max_texts=3, max_characters=500))
    assert predict(server, ["a"] * 3).status_code == 200
    assert "there are 4 texts; at most 3" in told(predict(server, ["a"] * 4), 422)
    assert predict(server, "a" * 500).status_code == 200
    assert "text 2 has 501 characters; at most 500" in told(predict(server, ["a", "a" * 501]), 422)
    assert "text 1 has 501 characters" in told(predict(server, {"text": "a" * 500, "b": [{"c": "d"}]}), 422)

    def sized(size: int) -> bytes:
        return b'{"inputs": "a"' + b" " * (size - 15) + b"}"

    headers = {"Content-Type": "application/json"}
    assert server.http.post("/v1/predict", content=sized(2000), headers=headers).status_code == 200
    large = server.http.post("/v1/predict", content=sized(2001), headers=headers)
    assert told(large, 413) == "the body has 2,001 bytes; at most 2,000 are taken"
    chunked = server.http.post("/v1/predict", content=iter([b"x" * 100] * 21), headers=headers)
    assert told(chunked, 413) == "the body has more than 2,000 bytes"
    assert "at most 64 are taken" in told(predict(server, {"choices": ["a"] * 65}), 422)
    assert "at most 64 are taken" in told(predict(server, {"task": ["c"], "c": {"choices": [""] * 65}}), 422)


def test_the_fields_of_a_record_are_limited(start: Start) -> None:
    fields = dict.fromkeys(map(str, range(128)), 0)
    assert "text 1 has 258 fields; at most 256 are taken" in told(
        predict(start("mood"), {"a": fields, "b": fields}), 422
    )


def test_the_scores_of_a_request_are_limited(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start("masks")
    pieces = len(toys.predictor("masks").model.network.heads["masked"].matrix)  # type: ignore[arg-type]
    monkeypatch.setattr(service, "MOST_SCORES", 2 * pieces)
    assert predict(server, ["[MASK] a", "[MASK]"]).status_code == 200
    message = told(predict(server, ["[MASK] a", "[MASK] [MASK]"]), 413)
    assert message.startswith(f"the request asks for {3 * pieces:,} scores, one of each piece of the vocabulary")


def test_the_characters_of_a_whole_request_are_limited(start: Start) -> None:
    server = start("mood", "pairs", "words", limits=Limits(max_request_characters=100))
    assert predict(server, ["a" * 50] * 2).status_code == 200
    message = told(predict(server, ["a" * 50, "b" * 51]), 422)
    wanted = "the texts have 101 characters; at most 100 are taken in one request: send fewer or shorter ones at once"
    assert message == wanted
    assert "at most 100" in told(server.post("/v1/tokenize", {"input": ["a" * 50, "b" * 51]}), 422)
    assert "at most 100" in told(server.post("/v1/embeddings", {"input": ["a" * 50, "b" * 51]}), 422)
    assert "at most 100" in told(server.post("/v1/attention", {"text": "a" * 50, "text_b": "b" * 51}), 422)
    ranked = {"model": "pairs", "query": "a" * 40, "documents": ["b" * 10]}
    assert server.post("/v1/rerank", {**ranked, "documents": ["b" * 10] * 2}).status_code == 200
    message = told(server.post("/v1/rerank", {**ranked, "documents": ["b" * 10] * 3}), 422)
    assert "the texts have 150 characters" in message, "the query is read beside each document"
    options = {"dictionary": ["北京" * 25] * 2}
    message = told(predict(server, "a" * 51, model="words", options=options), 422)
    assert message.startswith("the texts have 51 characters, the options 100; at most 100 are taken in one request")


def test_a_slow_body_is_given_up(start: Start) -> None:
    server = start("mood", limits=Limits(body_s=0.2))
    with socket.create_connection(("127.0.0.1", server.http.base_url.port or 0)) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # it may come in pieces; then the server hangs up
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the body did not come within 0.2 s" in answer


def connected(server: Running) -> socket.socket:
    """A connection on which nothing has been sent yet."""
    return socket.create_connection(("127.0.0.1", server.http.base_url.port or 0), timeout=20)


def heard(connection: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def answered(connection: socket.socket, end: bytes) -> bool:
    """Whether an answer with that end comes, be it in pieces."""
    said = b""
    while not said.endswith(end):
        more = connection.recv(4096)
        assert more, said
        said += more
    return said.startswith(b"HTTP/1.1 200")


def test_a_connection_whose_head_does_not_come_is_closed(start: Start) -> None:
    server = start("mood", limits=Limits(head_s=0.4))
    live = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as silent, connected(server) as half, connected(server) as again:
        half.sendall(live[:-2])
        again.sendall(live)
        assert answered(again, b'{"status":"ok"}')
        again.sendall(live[:-2])
        begun = time.monotonic()
        for connection in (silent, half, again):
            assert heard(connection) == b""
        assert time.monotonic() - begun < 5

    def drip(connection: socket.socket) -> None:
        for _ in range(40):  # each byte comes in time, but not the whole of it
            connection.sendall(b"G")
            time.sleep(0.05)

    with connected(server) as slow, pytest.raises(ConnectionError):
        drip(slow)
    until(lambda: not server.server.server_state.connections)


def test_a_request_whose_head_has_come_has_all_its_time(start: Start, blocked: Block) -> None:
    server, model = start("mood", limits=Limits(head_s=0.2)), blocked("mood")
    body = json.dumps({"inputs": TEXT}).encode()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with connected(server) as connection:
        for _ in range(2):  # on one connection, one after the other
            model.entered.clear()
            model.go.clear()
            connection.sendall(head.encode() + b"\r\n\r\n" + body[:5])
            time.sleep(0.4)
            connection.sendall(body[5:])
            assert model.entered.wait(20)
            time.sleep(0.4)
            model.go.set()
            assert answered(connection, b"}]}")
            time.sleep(0.4)  # between two requests it may be kept open longer


def test_a_client_that_takes_none_of_its_answer_is_left(start: Start) -> None:
    server = start("mood", limits=Limits(send_s=0.2, max_request_characters=2_000_000, max_body_bytes=8 << 20))
    body = json.dumps({"input": ["一" * 100_000] * 15}, ensure_ascii=False).encode()
    head = f"POST /v1/tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", server.http.base_url.port or 0))
        idle.sendall(head.encode() + b"\r\n\r\n" + body)
        until(lambda: server.server.server_state.total_requests)
        until(lambda: not server.server.server_state.connections)


def test_so_many_connections_and_no_more(start: Start) -> None:
    server = start("mood", limits=Limits(max_connections=3))
    state = server.server.server_state
    with connected(server) as one, connected(server), connected(server):
        until(lambda: len(state.connections) == 3)
        with connected(server) as further:
            answer = heard(further)
        one.close()
        until(lambda: len(state.connections) == 2)
        assert predict(server, TEXT).status_code == 200
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1" in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    message = json.loads(body)["error"]["message"]
    assert message == "3 connections are open, as many as are kept; try again in 1 s"


def test_many_tiny_chunks(start: Start) -> None:
    body = b'{"inputs": "' + b"a" * 5000 + b'"}'
    chunks = (body[at : at + 1] for at in range(len(body)))
    headers = {"Content-Type": "application/json"}
    assert start("mood").http.post("/v1/predict", content=chunks, headers=headers).status_code == 200


def test_a_mistake_of_ours_is_a_500_without_details(start: Start, monkeypatch: Any, caplog: Any) -> None:
    server = start("mood")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"secret {TEXT}")

    monkeypatch.setattr(toys.predictor("mood").engine, "run", broken)
    caplog.set_level(logging.INFO, "bothways.serve")
    assert told(predict(server, TEXT), 500) == "something went wrong in the server; its log says where"
    monkeypatch.undo()
    assert predict(server, TEXT).status_code == 200
    written = "\n".join(record.getMessage() for record in caplog.records)
    assert "RuntimeError at test_app.py" in written
    assert "secret" not in written
    assert TEXT not in written


# ---------------------------------------------------------------------------------------- queue, deadline, gone


def test_a_full_queue_is_429_with_retry_after_and_live_answers(start: Start, blocked: Block) -> None:
    server, model = start("mood", limits=Limits(max_queue_tokens=60)), blocked("mood")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(predict, server, "a b c")
        assert model.entered.wait(20)
        waiting = pool.submit(predict, server, "a " * 45)
        until(lambda: server.app.models.all[0].batcher.waiting_jobs == 1)
        refused = predict(server, "a " * 20)
        assert "tokens are waiting already" in told(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert server.http.get("/health/live").status_code == 200
        model.go.set()
        assert first.result(20).status_code == 200
        assert waiting.result(20).status_code == 200
    assert "at most 60 are taken at once" in told(predict(server, ["a " * 40] * 2), 413)


def test_past_its_deadline_a_request_is_504_and_never_runs(start: Start, blocked: Block) -> None:
    server, model = start("mood", limits=Limits(deadline_s=0.3)), blocked("mood")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(predict, server, "a b c")
        assert model.entered.wait(20)
        assert "the deadline passed" in told(predict(server, "d e"), 504)
        model.go.set()
        first.result(20)
    assert predict(server, "f").status_code == 200
    assert sorted(one.tokens for one in model.ran) == [3, 5]  # [CLS] f [SEP] and the first


def test_work_of_clients_that_have_gone_never_runs(start: Start, blocked: Block) -> None:
    server, model = start("mood"), blocked("mood")
    batcher, port = server.app.models.all[0].batcher, server.http.base_url.port or 0
    body = json.dumps({"inputs": "x y z"}).encode()
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, server, "a")
        assert model.entered.wait(20)
        gone = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for connection in gone:
            connection.sendall(head.encode() + body)
        until(lambda: batcher.waiting_jobs == 200)
        for connection in gone:
            connection.close()
        until(lambda: batcher.waiting_tokens == 0)
        model.go.set()
        assert first.result(20).status_code == 200
    assert predict(server, "b c").status_code == 200
    assert [one.tokens for one in model.ran] == [3, 4]


def test_the_event_loop_is_free_while_texts_are_tokenised(start: Start, monkeypatch: Any) -> None:
    server, entered, go = start("mood"), threading.Event(), threading.Event()
    predictor = toys.predictor("mood")
    encode = predictor.encode

    def slow(*given: Any, **options: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return encode(*given, **options)

    monkeypatch.setattr(predictor, "encode", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, server, "a")
        assert entered.wait(20)
        assert server.http.get("/health/ready").status_code == 200
        go.set()
        assert first.result(20).status_code == 200


def test_tokenising_waits_its_turn_and_keeps_its_deadline(start: Start, monkeypatch: Any) -> None:
    """It is work as any other: refused where too much is ahead, and given up when its time is over."""
    server = start("mood", limits=Limits(max_queue_tokens=60, deadline_s=0.3))
    batcher, tokenizer = server.app.models.all[0].batcher, toys.predictor("mood").model.tokenizer
    body: dict[str, Any] = {"input": ["a b c"] * 50}
    with batcher.admit(55):
        refused = server.post("/v1/tokenize", body)
        assert "tokens are waiting already" in told(refused, 429)
        assert "tokens are waiting already" in told(server.post("/v1/attention", {"text": "a " * 40}), 429)
    read, ahead = list[str](), list[int]()
    encode = tokenizer.encode

    def slow(texts: Any, **options: Any) -> Any:
        read.extend(texts)
        ahead.append(batcher.waiting_tokens)
        time.sleep(0.05)
        return encode(texts, **options)

    monkeypatch.setattr(tokenizer, "encode", slow)
    assert "the deadline passed" in told(server.post("/v1/tokenize", body), 504)
    time.sleep(0.2)
    assert len(read) < 15, "what nobody waits for is not read to the end"
    assert ahead[0] == 200, "counted among what waits"
    assert batcher.waiting_tokens == 0


# ------------------------------------------------------------------------------------------------- key and log

KEY = "s3cret-key"


def ask(app: App, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of a request as uvicorn would hand it on, whatever a client library would make of it."""
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
        **{"method": method, "path": path, "raw_path": path.encode(), "query_string": b"x=1", "headers": headers},
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app.gate(scope, receive, send))
    return sent[0]["status"]


def test_the_key_is_asked_for_on_every_route() -> None:
    app = App({"mood": toys.predictor("mood")}, api_key=KEY)
    routes = [(method.upper(), path) for path, methods in app.api.openapi()["paths"].items() for method in methods]
    routes += [("GET", path) for path in ("/", "/docs", "/page/app.js", "/openapi.json", "/nothing")]
    assert len(routes) >= 15
    attacks = [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer " + KEY.encode() + b"x")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", KEY.encode())],
        [(b"authorization", b"Basic !!!")],
        [(b"authorization", b"Basic " + base64.b64encode(b"a:wrong"))],
        [(b"host", b"evil/health/live?x=")],
        [(b"x-forwarded-prefix", b"/health/live"), (b"x-original-url", b"/health/live")],
    ]
    tried = 0
    for method, path in routes:
        for headers in attacks:
            for verb in (method, "OPTIONS", "HEAD", "PROPFIND"):
                for spelt in (path, path + "/", "/" + path, path.upper(), "/health/live/.." + path, path + "\x1b"):
                    if spelt not in ("/health/live", "/health/ready"):
                        assert ask(app, verb, spelt, headers) == 401, (verb, spelt, headers)
                        tried += 1
    assert tried > 2000
    basic = [(b"authorization", b"Basic " + base64.b64encode(b"anyone:" + KEY.encode()))]
    bearer = [(b"authorization", b"bearer " + KEY.encode())]
    for path, headers, status in [
        ("/health/live", [], 200), ("/health/ready", [], 503), ("/health/live/", [], 401),
        ("/v1/models", basic, 200), ("/v1/models", bearer, 200), ("/nothing", bearer, 404), ("/", basic, 200),
    ]:  # fmt: skip
        assert ask(app, "GET", path, headers) == status, path


def test_on_the_loopback_without_a_key_other_hosts_are_refused(start: Start) -> None:
    """A page elsewhere whose name was made to point here (DNS rebinding) is told by the Host that it sends."""
    ours = loopback_names("My-Laptop", "127.0.1.1")
    app = App({"mood": toys.predictor("mood")}, hosts=ours)
    evil = [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "a@localhost",
    ]
    good = ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "[::1]:8000", "[::1]", "my-laptop", "127.0.1.1"]
    for hosts, status in ((evil, 421), (good, 200)):
        for host in hosts:
            assert ask(app, "GET", "/v1/models", [(b"host", host.encode())]) == status, host
    assert ask(app, "GET", "/v1/models", [(b"host", b"localhost"), (b"host", b"evil.example")]) == 421
    assert ask(app, "GET", "/v1/models", []) == 200  # HTTP/1.0, which no browser speaks
    assert ask(app, "GET", "/health/live", [(b"host", b"evil.example")]) == 200
    with_key = App({"mood": toys.predictor("mood")}, hosts=ours, api_key=KEY)
    headers = [(b"host", b"bothways.example"), (b"authorization", b"Bearer " + KEY.encode())]
    assert ask(with_key, "GET", "/v1/models", headers) == 200
    assert loopback_names("0.0.0.0", "0.0.0.0") is None
    assert loopback_names("server.example", "192.0.2.1") is None
    assert ask(App({"mood": toys.predictor("mood")}), "GET", "/v1/models", headers) == 200
    server = start("mood", hosts=ours)
    refused = told(server.http.get("/v1/models", headers={"Host": "evil.example"}), 421)
    assert refused == "the request is for another host; ask http://localhost or 127.0.0.1, or use a key"
    assert predict(server, TEXT).status_code == 200


def test_logs_hold_no_texts_keys_or_control_characters(start: Start, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    server = start("mood", api_key=KEY)
    predict(server, "confidential")
    predict(server, [])
    server.http.get("/v1/models?text=confidential")
    server.http.get("/%1b[31mconfidential%0d%0a")
    server.http.request("GET", "/x", headers={"Authorization": "Bearer confidential"})
    written = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert any("POST /v1/predict 200" in line for line in written)
    for line in written:
        assert "confidential" not in line
        assert KEY not in line
        assert line.isprintable()


def test_a_users_mistake_is_no_error_of_ours(start: Start, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "bothways.serve")
    server = start("mood", "translations")
    assert "the text is empty" in told(server.post("/v1/attention", {"text": " "}), 422)
    for options in ({"beams": 4}, {"beams": ["a"]}):
        told(server.post("/v1/generate", {"input": "a", "options": options}), 422)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_stopping_server_is_not_ready_and_closes_connections(start: Start) -> None:
    server = start("mood")
    server.app.stop()
    assert server.http.get("/health/live").status_code == 200
    ready = server.http.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "stopping"})
    assert ready.headers["connection"] == "close"
    assert predict(server, TEXT).status_code == 200


def test_a_model_that_hangs_does_not_keep_the_server(start: Start, blocked: Block) -> None:
    server, model = start("mood", limits=Limits(drain_s=1)), blocked("mood")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(predict, server, TEXT)
        assert model.entered.wait(20)
        server.server.should_exit = True
        assert "the server is stopping" in told(hanging.result(20), 503)
    assert not server.server.whole
    model.go.set()


def test_int8_is_compiled_before_the_server_is_ready(start: Start, monkeypatch: Any) -> None:
    """And not within the request that comes after the first hundred thousand tokens."""
    fused, threads = Kernels(), list[str]()

    def compiled() -> Kernels:
        threads.append(threading.current_thread().name)
        time.sleep(1.3 * (len(threads) == 1))  # longer than a request may take
        return fused

    inner = toys.predictor
    fast = Predictor(inner("mood").model, device="cpu", precision="int8")
    monkeypatch.setattr(toys, "predictor", lambda name: fast if name == "fast" else inner(name))
    monkeypatch.setattr(engine, "fused_kernels", compiled)
    server = start("fast", "mood", limits=Limits(deadline_s=1))
    (served, plain) = server.app.models.all
    assert set(threads) == {"bothways-batcher"}
    for one in (served.answering, served.embedder, served.analyzer):
        assert one is not None
        assert one.engine._kernels is fused
    assert plain.predictor.engine._kernels is not fused
    ready = served.answering.engine._prepared
    assert ready is not None, "its kernels have met its weights, for another kind of them would be compiled anew"
    begun = len(threads)
    assert predict(server, TEXT).status_code == 200
    assert len(threads) == begun
    assert served.answering.engine._prepared is ready


def test_a_dead_batcher_is_not_ready(start: Start) -> None:
    server = start("mood")
    server.app.models.all[0].batcher.close(5)
    assert server.http.get("/health/ready").json() == {"status": "out of order"}


def test_the_page_and_the_documents(start: Start) -> None:
    server = start("mood")
    for path in ("/", "/docs", "/page/style.css", "/page/app.js", "/page/attention.js"):
        response = server.http.get(path)
        assert response.status_code == 200, path
        assert "http://" not in response.text.replace("http://www.w3.org", "")
        assert "https://" not in response.text
        assert "default-src 'self'" in response.headers["content-security-policy"]
    paths = server.http.get("/openapi.json").json()["paths"]
    for path in ("/v1/predict", "/v1/embeddings", "/v1/rerank", "/v1/generate", "/v1/tokenize", "/v1/models"):
        assert path in paths
    assert "429" in paths["/v1/predict"]["post"]["responses"]
