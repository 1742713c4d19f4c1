"""Servers on loopback with toy models, started in a thread and stopped at the end of the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from tests.serve import toys

from bothways.serve.app import App
from bothways.serve.server import Server, listen


@dataclass
class Running:
    """A server that listens, and a client for it."""

    app: App
    server: Server
    url: str
    http: httpx2.Client

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        """POST as JSON."""
        return self.http.post(path, json=body, **more)


Start = Callable[..., Running]


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> None:
    """Wait for what must come to be."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("mood", "masks", limits=…, api_key=…, hosts=…)` serves those toys."""
    begun: list[tuple[Running, threading.Thread]] = []

    def run(*names: str, api_key: str | None = None, **more: Any) -> Running:
        app = App({name: toys.predictor(name) for name in names}, api_key=api_key, **more)
        listening, server = listen("127.0.0.1", 0), Server(app)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        running = Running(app, server, url, httpx2.Client(base_url=url, headers=headers, timeout=30, trust_env=False))
        begun.append((running, thread))
        until(lambda: server.started and app.status() == "ok")
        return running

    yield run
    for running, thread in begun:
        running.http.close()
        running.server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Blocked:
    """An engine's `run` that waits until it is let go, and remembers what it ran."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.inner = engine, engine.run
        self.ran: list[Any] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, examples: Any, *, stop: Any = None) -> Any:
        self.entered.set()
        assert self.go.wait(30)
        self.ran += examples
        return self.inner(examples, stop=stop)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Blocked]:
    """`blocked("mood")` makes that toy's model wait for `.go`."""

    def block(name: str) -> Blocked:
        engine = toys.predictor(name).engine
        one = Blocked(engine)
        monkeypatch.setattr(engine, "run", one)
        return one

    return block
