"""Raw text to tokens on disk: Bothways' shards beside a plain pipeline that keeps everything in memory.

    python benchmarks/data.py --sizes 10 50 200 --rounds 3
    python benchmarks/data.py --text ../shared/data/zh/rawtext/wikipedia_zh/train-00.txt.xz

Each size is a fresh process of each side, by turns. Told are MB of text a second, without what Python takes to start
and to import, and the peak of resident memory, summed over the process and its children every few milliseconds (pages
that they share count in each). Files are in the disk's cache. Both use the same tokenizer.json and as many cores, and
must come to the same tokens, by their number and their sum. What is not the same: Bothways also marks where words
begin and sentences and documents end, finds Chinese words, deals the documents over shards, hashes text and shards and
waits for the disk; the other reads the file whole, tokenises a thousand lines at a time, keeps lists and saves one
array.

The text is the documents of `--text`, or of Python's own documentation, in random orders, again and again until it is
long enough: so a size differs from another in nothing but its length.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _text import MEGABYTE, read_documents, write_documents

POOL = 20.0  # MB of text at most that the documents are drawn from
LINES = 1000  # that the plain pipeline tokenises at a time
EVERY = 0.02  # seconds between looks at memory
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    wanted = _arguments(argv)
    taken: dict[tuple[float, str], list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="data-", dir=wanted.scratch) as scratch:
        documents = read_documents(wanted.text, POOL)
        for size in wanted.sizes:
            text = Path(scratch) / "text.txt"
            written = write_documents(text, documents, size)
            for number in range(wanted.rounds):
                for side in SIDES:
                    row = measure(side, text, wanted) | {"bytes": written}
                    taken.setdefault((size, side), []).append(row)
                    told = f"{side} {row['seconds']:.1f} s, {row['peak_mib']:.0f} MiB"
                    print(f"{size:g} MB, round {number + 1} of {wanted.rounds}: {told}", file=sys.stderr, flush=True)
    print(table(taken))
    print(f"\n{summary(taken)}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", default=None, help="files of raw text; default: Python's own")
    parser.add_argument("--sizes", type=float, nargs="+", default=[10, 50, 200], help="MB of text")
    parser.add_argument("--vocab", default="builtin", help="folder of a vocabulary; default: the built-in model's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", type=Path, default=None, help="where text and tokens are written meanwhile")
    parser.add_argument("--quick", action="store_true", help="little text, to see that it runs")
    wanted = parser.parse_args(argv)
    if wanted.quick:
        wanted.sizes, wanted.rounds = [0.2, 0.4], 1
    return wanted


def measure(side: str, text: Path, wanted: argparse.Namespace) -> Row:
    """One side on one file in a fresh process: what it tells, and MiB at the peak."""
    from bothways.models.hub import locate

    with tempfile.TemporaryDirectory(dir=text.parent) as out:
        job = {"side": side, "text": str(text), "vocab": str(locate(wanted.vocab)), "out": out}
        threads = {name: str(wanted.threads) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")}
        env = os.environ | threads | {"TOKENIZERS_PARALLELISM": "true"}
        command = [sys.executable, __file__, "--worker", json.dumps(job | {"threads": wanted.threads})]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            peak = Peak(process.pid)
            assert process.stdout is not None
            said = process.stdout.read()
            process.wait()
        most = peak.ended()
    if process.returncode:
        sys.exit(f"{side} ended with exit code {process.returncode}; its error stands above")
    return json.loads(said.splitlines()[-1]) | {"peak_mib": most}


class Peak:
    """Watches the resident memory of a process and all its children, by a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def ended(self) -> float:
        """MiB at the peak."""
        self._over.set()
        self._thread.join()
        return self._most / 2**20

    def _watch(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self._pid)
            while not self._over.wait(EVERY):
                total = 0
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                        total += process.memory_info().rss
                self._most = max(self._most, total)


# -------------------------------------------------------------------------------------------------- the two sides


def bothways(job: Row) -> Row:
    """Shards, as `bothways pretrain` makes them."""
    from bothways.data.shards import build_shards
    from bothways.text.tokenizer import Tokenizer

    begun = time.perf_counter()
    tokenizer = Tokenizer.from_folder(Path(job["vocab"]))
    shards = build_shards(job["text"], tokenizer, Path(job["out"]) / "shards", workers=job["threads"])
    seconds = time.perf_counter() - begun
    total = sum(_sum(shards.read(number).ids) for number in range(len(shards)))
    return {"seconds": seconds, "tokens": shards.counts.tokens, "sum": total}


def in_memory(job: Row) -> Row:
    """Read all, tokenise in batches, keep lists, save one array of ids and one of the documents' lengths."""
    import tokenizers

    begun = time.perf_counter()
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(job["vocab"]) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = Path(job["text"]).read_text(encoding="utf-8")
    documents = [document.split("\n") for document in text.split("\n\n") if document.strip()]
    lines = [line for document in documents for line in document]
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)  # without offsets, where it can
    ids: list[list[int]] = []
    for at in range(0, len(lines), LINES):
        ids += [encoding.ids for encoding in encode(lines[at : at + LINES], add_special_tokens=False)]
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    found = np.concatenate([np.array(line, dtype=dtype) for line in ids])
    np.save(Path(job["out"]) / "ids.npy", found)
    np.save(Path(job["out"]) / "lines.npy", np.array([len(document) for document in documents]))
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "tokens": len(found), "sum": _sum(found)}


def _sum(ids: np.ndarray) -> int:
    return int(ids.sum(dtype=np.int64))


SIDES: dict[str, Callable[[Row], Row]] = {"bothways": bothways, "in memory": in_memory}


# ----------------------------------------------------------------------------------------------------------- telling


def table(taken: dict[tuple[float, str], list[Row]]) -> str:
    """Markdown: MB a second and MiB of each size and side, and ratios (medians of the rounds')."""
    lines = [
        "| MB | side | MB/s, median (max) | × as fast: bothways | peak MiB, median (max) | × the memory of bothways |",
        "|---|---|---|---|---|---|",
    ]
    for (size, side), rows in taken.items():
        seconds, peaks = ([row[name] for row in rows] for name in ("seconds", "peak_mib"))
        megabytes = rows[0]["bytes"] / MEGABYTE
        ratios = ["–", "–"]
        if side != "bothways":
            own = taken[size, "bothways"]
            ratios = [
                f"{median(row[name] / mine[name] for row, mine in zip(rows, own, strict=True)):.2f}"
                for name in ("seconds", "peak_mib")
            ]
        speed = f"{megabytes / median(seconds):.2f} ({megabytes / min(seconds):.2f})"
        memory = f"{median(peaks):.0f} ({max(peaks):.0f})"
        lines.append(f"| {megabytes:.3g} | {side} | {speed} | {ratios[0]} | {memory} | {ratios[1]} |")
    return "\n".join(lines)


def summary(taken: dict[tuple[float, str], list[Row]]) -> str:
    """How time and memory grow from the least text to the most, and whether both sides came to the same tokens."""
    sizes = [size for size, _ in taken]
    least, most = min(sizes), max(sizes)
    grown = taken[most, "bothways"][0]["bytes"] / taken[least, "bothways"][0]["bytes"]
    told = []
    for side in SIDES:
        time_, memory = (
            median(row[name] for row in taken[most, side]) / median(row[name] for row in taken[least, side])
            for name in ("seconds", "peak_mib")
        )
        told.append(f"{side} {time_:.1f} × the time and {memory:.2f} × the memory")
    tokens = {size: {(row["tokens"], row["sum"]) for side in SIDES for row in taken[size, side]} for size in sizes}
    same = "the same tokens on both sides" if all(len(one) == 1 for one in tokens.values()) else "NOT the same tokens"
    counts = ", ".join(f"{max(count for count, _ in one):,}" for one in tokens.values())
    return f"For {grown:.1f} × the text: {'; '.join(told)}. Tokens: {counts}, {same}."


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        job = json.loads(sys.argv[2])
        print(json.dumps(SIDES[job["side"]](job)))
        sys.exit(0)
    from bothways.errors import BothwaysError

    try:
        sys.exit(main())
    except BothwaysError as error:
        sys.exit(str(error))
