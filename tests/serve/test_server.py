"""The process: it starts with one line, answers all it accepted when told to stop, and tells mistakes in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serve import toys

from bothways.cli.main import main
from bothways.cli.serve import Serve, loaded, names_of
from bothways.errors import ConfigError
from bothways.models.model import save
from bothways.serve.server import listen

Launch = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(toys.predictor("mood").model, tmp_path_factory.mktemp("models") / "mood")


@pytest.fixture
def launch(folder: Path) -> Iterator[Launch]:
    """`launch("--api-key", "k")` starts `bothways serve` with a toy on a free port: the process and the port."""
    processes: list[subprocess.Popen[str]] = []

    def run(*words: str) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-m", "bothways", "serve", str(folder), "--port", "0", "--quiet", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        match = re.fullmatch(r"serving mood on http://127\.0\.0\.1:(\d+)\n", said)
        assert match, (said, process.stderr.read() if process.stderr else "")
        port, end = int(match[1]), time.monotonic() + 60
        while not _ready(port):
            assert time.monotonic() < end
            time.sleep(0.02)
        return process, port

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def _ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def request(port: int, text: str) -> bytes | None:
    """The whole answer to a request on a connection of its own; None: nobody listened."""
    body = json.dumps({"inputs": text}).encode()
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    except ConnectionError:
        return None
    with connection:
        answer = b""
        try:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass
        return answer


def test_sigterm_under_load_answers_all_that_was_accepted(launch: Launch) -> None:
    process, port = launch()
    idle = socket.create_connection(("127.0.0.1", port))  # a connection that is kept open must not delay the end
    answers: list[bytes] = []

    def load() -> None:
        while (answer := request(port, "a b c")) is not None:
            answers.append(answer)

    threads = [threading.Thread(target=load) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    for thread in threads:
        thread.join(30)
    idle.close()
    assert len(answers) > 12
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200") or b'"label"' not in answer] == []
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_ctrl_c_ends_it_too(launch: Launch) -> None:
    process, _ = launch("--api-key", "k", "--max-texts", "3")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def test_alone_on_this_machine_it_answers_to_its_names_only(launch: Launch) -> None:
    _, port = launch()
    url = f"http://127.0.0.1:{port}/v1/models"
    assert httpx2.get(url, trust_env=False, headers={"Host": "evil.example"}).status_code == 421
    assert httpx2.get(url, trust_env=False, headers={"Host": f"localhost:{port}"}).status_code == 200


def test_a_key_from_the_environment(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_API_KEY", "k")
    _, port = launch()
    assert httpx2.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).status_code == 401


# ------------------------------------------------------------------------------------------------- mistakes


def told(capsys: Any, *words: Any) -> str:
    """The one line of `bothways serve …` that fails."""
    assert main(["serve", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bothways: error: ")
    assert error.count("\n") == 1
    return error


def test_what_is_wrong_is_told_in_one_line(
    capsys: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is taken; give another by --port" in told(capsys, folder, "--port", port)
    with listen("127.0.0.1", 0) as loading:  # as another server does before it has loaded its models
        port = loading.getsockname()[1]
        assert f"port {port} is taken; give another by --port" in told(capsys, folder, "--port", port)
    assert "wanted a number from 0 to 65535" in told(capsys, folder, "--port", 70000)
    assert "can't listen on 203.0.113.7" in told(capsys, folder, "--host", "203.0.113.7", "--port", 0)
    assert "'a..b' is no name of a host; try --host 127.0.0.1" in told(capsys, folder, "--host", "a..b", "--port", 0)
    assert "max_texts is 0; wanted a number from 1" in told(capsys, folder, "--max-texts", 0)
    for key in ("a b", "", "ключ"):
        assert "the key must be of ASCII" in told(capsys, folder, "--api-key", key)
    monkeypatch.setenv("BOTHWAYS_API_KEY", "ключ")
    assert "the key must be of ASCII" in told(capsys, folder, "--port", 0)
    monkeypatch.delenv("BOTHWAYS_API_KEY")
    assert "nothing" in told(capsys, tmp_path / "nothing", "--port", 0)


def test_names_of_models(tmp_path: Path) -> None:
    run = tmp_path / "reviews"
    (run / "model").mkdir(parents=True)
    assert names_of([str(run), f"other={run}", str(run / "model") + "/"][:2]) == {
        "reviews": str(run),
        "other": str(run),
    }
    assert names_of([str(run / "model")]) == {"reviews": str(run / "model")}
    assert names_of(["builtin"]) == {"builtin": "builtin"}
    with pytest.raises(ConfigError, match=r"two models are called 'reviews'; name one of them: other="):
        names_of([str(run), str(run / "model")])
    with pytest.raises(ConfigError, match="gives no name and folder"):
        names_of(["=x"])


def test_models_are_served_in_the_precision_asked_for(folder: Path) -> None:
    models = loaded({"mood": str(folder)}, Serve(precision="int8"))
    assert models["mood"].engine.precision == "int8"
    (answer,) = models["mood"].predict(["a warm day"])
    assert set(answer["scores"]) == set(toys.predictor("mood").model.task.labels)
