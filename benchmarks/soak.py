"""A server under a long mixed load: does its memory stay flat, and is every well-formed request answered as alone?

    python benchmarks/soak.py --requests 100000                  # texts of up to 200 words
    python benchmarks/soak.py --requests 100000 --longest 12     # short ones: some minutes on two cores

Between the texts comes garbage: broken JSON and UTF-8, NUL, halves of surrogate pairs, NaN, megabytes, clients that
hang up half-way. Every vector is compared with the one that the model gives in this process for the text alone.
Resident memory is told at every tenth, and from the 10,000th request (or the first tenth, if there are fewer than
100,000) to the last it may grow by 50 MB. A server that leaks on purpose, asked fewer times, must be caught by the same
measure, or the measure is worth nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _http import Connection, as_json, free_port, mixed_texts, serving
from plan import MISSED
from serve import _minilm

GROWTH_MB = 50
CONTROL = 5000  # requests to the leaking server at most
GARBAGE = 0.2  # share of the requests
MEGABYTE = as_json({"input": ["a" * 1_000_000]})
LEAKING = """
import sys
from bothways.cli.main import main
from bothways.serve.service import Served
predict, kept = Served.predict, []
async def leaking(self, *given, **options):
    kept.append(bytearray(LEAK))
    return await predict(self, *given, **options)
Served.predict = leaking
sys.exit(main(sys.argv[1:]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both, print, and say whether what is promised holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a sentence-transformers model; none: all-MiniLM-L6-v2")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--longest", type=int, default=200, help="words of a text at most")
    parser.add_argument("--without-control", action="store_true", help="leave the leaking server out")
    wanted = parser.parse_args(argv)
    model = wanted.model or _minilm()
    texts = mixed_texts(model / "vocab.txt", 500, seed=1, longest=wanted.longest)
    vectors = dict(zip(texts, _alone(model, texts, wanted.threads), strict=True))
    grown = _soak(model, wanted, ["-m", "bothways"], vectors, wanted.requests)
    failed = grown is None or grown > GROWTH_MB
    print(f"Grew by {grown:.1f} MB; at most {GROWTH_MB} MB wanted." if grown is not None else "Answers were wrong.")
    if not wanted.without_control:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            # From the first tenth to the end four times what is allowed; garbage leaks nothing.
            requests = min(wanted.requests, CONTROL)
            size = int(4 * GROWTH_MB * 2**20 / (0.9 * (1 - GARBAGE) * requests))
            script.write(LEAKING.replace("LEAK", str(size)))
            script.flush()
            leaked = _soak(model, wanted, [script.name], vectors, requests)
        told = f"grew by {leaked:.1f} MB" if leaked is not None else "answered wrong"
        print(f"The control, which leaks, {told}.")
        failed |= leaked is None or leaked <= GROWTH_MB
    return MISSED if failed else 0


def _alone(model: Path, texts: Sequence[str], threads: int) -> list[np.ndarray]:
    """Each text's vector, computed here with no other beside it."""
    import torch

    import bothways

    torch.set_num_threads(threads)
    predictor = bothways.load(model, device="cpu").embedder()
    return [np.asarray(predictor.predict([text])[0]["vector"]) for text in texts]


def _soak(
    model: Path, wanted: argparse.Namespace, program: Sequence[str], vectors: dict[str, np.ndarray], requests: int
) -> float | None:
    """How many MB resident memory grew by; None: a request was answered otherwise than it should be."""
    port = free_port()
    command = [sys.executable, *program, "serve", f"m={model}", "--port", str(port), "--quiet"]
    with serving(command, port, ready="/health/ready", threads=wanted.threads) as process:
        return asyncio.run(_drive(port, process.pid, vectors, requests, wanted.clients))


async def _drive(port: int, pid: int, vectors: dict[str, np.ndarray], requests: int, clients: int) -> float | None:
    memory, sizes, wrong = psutil.Process(pid).memory_info, dict[int, float](), list[str]()
    asked, statuses, texts, begun = iter(range(requests)), Counter[str](), list(vectors), time.perf_counter()
    print(f"\n{requests:,} requests, {clients} clients, {len(texts)} texts:\n")
    print("| requests | MB resident | requests/s |\n|---|---|---|")

    def look(at: int) -> None:
        sizes[at] = memory().rss / 2**20
        if at % max(1, requests // 10) == 0:
            rate = at / (time.perf_counter() - begun)
            print(f"| {at:,} | {sizes[at]:.0f} | {rate:.0f} |", flush=True)

    async def client(number: int) -> None:
        draw, connection = random.Random(number), Connection(port)
        for at in asked:
            if at % 100 == 0 or at % max(1, requests // 10) == 0:
                look(at)
            if draw.random() < GARBAGE:
                kind, status = await _garbage(connection, draw)
                statuses[f"garbage {status or 'left'}"] += 1
                if status and not 400 <= status < 500:
                    wrong.append(f"garbage of kind {kind} was answered {status}")
                continue
            text = texts[draw.randrange(len(texts))]
            told = await connection.post("/v1/embeddings", as_json({"input": [text]}))
            statuses[str(told.status)] += 1
            if told.status != 200:
                wrong.append(f"{told.status}: {told.body[:200]!r}")
            elif not np.allclose(json.loads(told.body)["data"][0]["embedding"], vectors[text], rtol=0, atol=1e-5):
                wrong.append(f"another vector for {text[:40]!r}")
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    look(requests)
    counts = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
    print(f"\nAnswers: {counts}; wrong: {len(wrong)}; most MB: {max(sizes.values()):.0f}.")
    for line in wrong[:5]:
        print("- wrong:", line)
    return None if wrong else sizes[requests] - sizes[min(10_000, requests // 10) // 100 * 100]


async def _garbage(connection: Connection, draw: random.Random) -> tuple[int, int]:
    """Something that no client should send: its kind, and the status of the answer; 0 for a client that hung up."""
    kind = draw.randrange(9)
    if kind == 8:  # hang up half-way
        with_body = b'{"input": ["' + b"a " * draw.randrange(1, 2000)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", connection.port)
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(head + b"Content-Length: 9999\r\n\r\n" + with_body)
            await writer.drain()
            writer.close()
        except ConnectionError:
            pass
        return kind, 0
    body = [
        b"{", b'{"input": ["\xff\xfe"]}', b'{"input": ["\\ud800"]}', b'{"input": [NaN]}', b"\x00" * 50,
        MEGABYTE, b"[" * 50_000, as_json({"input": "x", "model": "\x1b[31m"}),
    ][kind]  # fmt: skip
    told = await connection.post("/v1/embeddings", body)
    return kind, told.status or 599  # no answer at all is as wrong as a mistake of the server's


if __name__ == "__main__":
    sys.exit(main())
