"""A server under a long mixed load: does its memory stay flat, and is every well-formed request answered as alone?

    python benchmarks/soak.py --requests 100000

Texts of all lengths, and between them garbage: broken JSON and UTF-8, NUL, halves of surrogate pairs, NaN, megabytes,
clients that hang up half-way. Resident memory is measured from the 10,000th request to the last (or from the first
tenth, if there are fewer than 100,000) and may grow by 50 MB. A server that leaks on purpose must be caught by the same
measure, or the measure is worth nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _http import Connection, as_json, free_port, mixed_texts, serving
from serve import _minilm

GROWTH_MB = 50
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
    grown = _soak(model, wanted, ["-m", "bothways"])
    failed = grown is None or grown > GROWTH_MB
    print(f"grew by {grown:.1f} MB; at most {GROWTH_MB} MB wanted" if grown is not None else "answers were wrong")
    if not wanted.without_control:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            # Over the whole run four times what is allowed; a fifth of the requests is garbage and leaks nothing.
            size = int(4 * GROWTH_MB * 2**20 / (0.72 * wanted.requests))
            script.write(LEAKING.replace("LEAK", str(size)))
            script.flush()
            leaked = _soak(model, wanted, [script.name])
        print(
            f"the leaking control grew by {leaked:.1f} MB" if leaked is not None else "the control's answers were wrong"
        )
        failed |= leaked is None or leaked <= GROWTH_MB
    return int(failed)


def _soak(model: Path, wanted: argparse.Namespace, program: Sequence[str]) -> float | None:
    """How many MB resident memory grew by; None: a well-formed request was answered otherwise than alone."""
    port = free_port()
    command = [sys.executable, *program, "serve", f"m={model}", "--port", str(port), "--quiet"]
    texts = mixed_texts(model / "vocab.txt", 500, seed=1, longest=wanted.longest)
    with serving(command, port, ready="/health/ready", threads=wanted.threads) as process:
        return asyncio.run(_drive(port, process.pid, texts, wanted))


async def _drive(port: int, pid: int, texts: Sequence[str], wanted: argparse.Namespace) -> float | None:
    memory, sizes, wrong = psutil.Process(pid).memory_info, dict[int, float](), list[str]()
    asked = iter(range(wanted.requests))
    alone = Connection(port)
    vectors = {text: (await alone.post("/v1/embeddings", as_json({"input": [text]}))).body for text in texts[:50]}
    alone.close()

    async def client(number: int) -> None:
        draw, connection = random.Random(number), Connection(port)
        for at in asked:
            if at % 100 == 0:
                sizes[at] = memory().rss / 2**20
            if draw.random() < 0.2:
                await _garbage(connection, draw)
                continue
            text = texts[draw.randrange(len(texts))]
            told = await connection.post("/v1/embeddings", as_json({"input": [text]}))
            if told.status != 200:
                wrong.append(f"{told.status}: {told.body[:200]!r}")
            elif text in vectors and not _near(told.body, vectors[text]):
                wrong.append(f"another vector for {text[:40]!r}")
        connection.close()

    await asyncio.gather(*(client(number) for number in range(wanted.clients)))
    sizes[wanted.requests] = memory().rss / 2**20
    for line in wrong[:5]:
        print("wrong:", line)
    first = min(10_000, wanted.requests // 10) // 100 * 100
    print(f"{wanted.requests:,} requests; {len(vectors)} texts compared; MB at start, from, end, most: ", end="")
    print(", ".join(f"{size:.0f}" for size in (sizes[0], sizes[first], sizes[wanted.requests], max(sizes.values()))))
    return None if wrong else sizes[wanted.requests] - sizes[first]


def _near(mine: bytes, other: bytes) -> bool:
    pairs = zip(*(json.loads(body)["data"][0]["embedding"] for body in (mine, other)), strict=True)
    return all(abs(a - b) < 1e-5 for a, b in pairs)


async def _garbage(connection: Connection, draw: random.Random) -> None:
    """Something that no client should send; the answer must be a 4xx."""
    kind = draw.randrange(9)
    if kind == 8:  # hang up half-way
        with_body = b'{"input": ["' + b"a " * draw.randrange(1, 2000)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", connection.port)
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            writer.write(head + b"Content-Length: 9999\r\n\r\n" + with_body)
            await writer.drain()
            writer.close()
        except ConnectionError:
            pass
        return
    body = [
        b"{", b'{"input": ["\xff\xfe"]}', b'{"input": ["\\ud800"]}', b'{"input": [NaN]}', b"\x00" * 50,
        as_json({"input": ["a" * 1_000_000]}), b"[" * 50_000, as_json({"input": "x", "model": "\x1b[31m"}),
    ][kind]  # fmt: skip
    told = await connection.post("/v1/embeddings", body)
    if not 400 <= told.status < 500:
        raise SystemExit(f"garbage of kind {kind} was answered {told.status}")


if __name__ == "__main__":
    sys.exit(main())
