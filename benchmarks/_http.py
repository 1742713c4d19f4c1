"""A small HTTP client for benchmarks, and servers to be measured as processes: lighter than what it measures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Told:
    """An answer."""

    status: int  # 0: the connection ended without one
    headers: dict[str, str]
    body: bytes
    seconds: float


class Connection:
    """One client: a connection that is kept open, one request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, *, limit: float = 120.0) -> Told:
        """POST as JSON and read the whole answer, within `limit` seconds."""
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(limit):
                status, headers, answer = await self._exchange(path, body)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return Told(0, {}, b"", time.perf_counter() - begun)
        if headers.get("connection") == "close":
            self.close()
        return Told(status, headers, answer, time.perf_counter() - begun)

    async def _exchange(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
        return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))

    def close(self) -> None:
        """Hang up, also in the middle."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, *, ready: str, threads: int, wait: float = 300.0
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from the moment that `ready` answers 200."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen([*command], env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        try:
            end = time.monotonic() + wait
            while not _answers(f"http://127.0.0.1:{port}{ready}"):
                if process.poll() is not None or time.monotonic() > end:
                    errors.seek(0)
                    raise SystemExit(f"{' '.join(command)} did not begin to serve: {errors.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def mixed_texts(vocabulary: Path, count: int, *, seed: int = 0, longest: int = 200) -> list[str]:
    """Texts of whole words of a vocab.txt, most of them short: lengths are log-normal with a median of 20 words."""
    words = [w for line in vocabulary.read_text(encoding="utf-8").splitlines() if (w := line.strip()).isalpha()]
    words = [word for word in words if word.isascii() and len(word) > 2]
    draw = random.Random(seed)
    sizes = [min(longest, max(3, round(draw.lognormvariate(3.0, 0.9)))) for _ in range(count)]
    return [" ".join(draw.choices(words, k=size)) for size in sizes]


def as_json(value: Any) -> bytes:
    """A body."""
    return json.dumps(value).encode()


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
