"""Is seeing both sides at once really better? Four kinds of word vectors, trained alike, frozen under the same layer.

    python benchmarks/context.py --tokens 20000000 --out out/benchmarks/context
    python benchmarks/context.py --languages zh --quick

For each language, word2vec (gensim), a pair of left-to-right and right-to-left LSTMs joined at the end, a left-to-right
Transformer and BERT read its text, cut into the same pieces, for the same number of tokens, and give vectors of the
same width. Frozen, they are read by one linear layer, learnt in the same way for all, on each task's training records;
the rate is chosen on dev, the score is test's. One table and one picture show all of it. What is done is kept in
`--out`; the same command goes on.

word2vec needs gensim, which nothing else does: `.venv/bin/pip install gensim` (4.4 lives with all that `make setup`
installs, and changes none of it). Without it word2vec is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _context_models import BATCH, KINDS, LENGTH, Size, trained
from _context_probe import Task, probe

from bothways.data.documents import documents
from bothways.data.vocabulary import learn_tokenizer
from bothways.errors import BothwaysError
from bothways.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEXT = {"en": "en/rawtext/wikipedia_2015/train-00.txt.xz", "zh": "zh/rawtext/wikipedia_zh/train-00.txt.xz"}


TASKS = {
    "en": [
        Task("sentiment", "text", "en/classification/sst2", "accuracy"),
        Task("ner", "words", "en/ner/uner_ewt", "f1"),
        Task("word sense", "sense", "en/wordsense/wic", "accuracy"),
        Task("pairs", "pair", "en/pair/rte", "accuracy"),
        Task("paraphrase", "pair", "en/pair/mrpc", "accuracy"),
    ],
    "zh": [
        Task("sentiment", "text", "zh/sentiment/waimai_10k", "accuracy"),
        Task("ner", "words", "zh/ner/weibo", "f1"),
        Task("segmentation", "characters", "zh/segmentation/gsdsimp", "f1"),
        Task("pairs", "pair", "zh/pair/afqmc", "accuracy"),
    ],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score what is missing, then print the table and draw the picture."""
    wanted = _arguments(argv)
    torch.set_num_threads(wanted.threads)
    names = [name for name in KINDS if name != "word2vec" or importlib.util.find_spec("gensim") is not None]
    if len(names) < len(KINDS):
        print(
            f"no gensim here, so word2vec is left out; to have it: {sys.executable} -m pip install gensim", flush=True
        )
    shown = {language: measured(wanted, language, names) for language in wanted.languages}
    (wanted.out / "context.md").write_text((told := table(shown, names)) + "\n", encoding="utf-8")
    print(told)
    draw(wanted.out / "context.png", shown, names)
    return 0


def measured(wanted: argparse.Namespace, language: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one language; those that are there are not made again."""
    out = wanted.out / language
    out.mkdir(parents=True, exist_ok=True)
    size = Size(width=64, layers=2, lstm_width=64) if wanted.quick else Size(width=wanted.width, layers=wanted.layers)
    text = wanted.text or [wanted.shared / TEXT[language]]
    tokenizer = _tokenizer(out, text, wanted.vocab)
    ids = _sequences(out, text, tokenizer, wanted.tokens)
    print(f"{language}: {len(ids):,} sequences of {LENGTH} pieces; each model reads {wanted.tokens:,}", flush=True)
    rows = _rows(out / "rows.jsonl")
    setting = {"tokens": wanted.tokens, "seed": wanted.seed, "limit": wanted.limit}
    setting |= {"width": size.width, "layers": size.layers}
    for name in names:
        print(f"{language} {name}", flush=True)
        model, told = trained(name, ids, tokenizer, size, budget=wanted.tokens, seed=wanted.seed, folder=out / "models")
        if told:
            _append(out / "rows.jsonl", rows, {"model": name, "task": "pre-training", **setting, **told})
        for task in TASKS[language]:
            key = {"model": name, "task": task.name, **setting}
            if any(row.items() >= key.items() for row in rows):
                continue
            score = probe(model, tokenizer, task, wanted.shared, limit=wanted.limit, seed=wanted.seed)
            _append(out / "rows.jsonl", rows, {**key, "measure": task.measure, "score": score})
            print(f"  {task.name}: {score:.4f}", flush=True)
    return [row for row in rows if all(row.get(name) == value for name, value in setting.items())]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", choices=list(TASKS), nargs="+", default=list(TASKS))
    parser.add_argument("--text", type=Path, nargs="+", default=None, help="files of raw text, of one language")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of data sets")
    parser.add_argument("--tokens", type=int, default=20_000_000, help="tokens that each model reads")
    parser.add_argument("--vocab", type=int, default=8000, help="pieces")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--limit", type=int, default=None, help="records of each split at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="tiny models and few records, to try it out")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/context"))
    wanted = parser.parse_args(argv)
    if wanted.quick:
        wanted.tokens, wanted.limit, wanted.vocab = min(wanted.tokens, 30 * BATCH * LENGTH), 200, 2000
        wanted.out = wanted.out / "quick"
    if wanted.text and len(wanted.languages) > 1:
        parser.error("--text is of one language; say which by --languages en or --languages zh")
    return wanted


def _tokenizer(out: Path, text: Sequence[Path], size: int) -> Tokenizer:
    if not (out / "vocab" / "vocab.txt").is_file():
        learn_tokenizer(text, size).save(out / "vocab")
    return Tokenizer.from_folder(out / "vocab")


def _sequences(out: Path, text: Sequence[Path], tokenizer: Tokenizer, tokens: int) -> np.ndarray:
    """(sequences, LENGTH) int64: the text's pieces between [CLS] and [SEP], as many as the budget needs."""
    path = out / f"pieces-{tokens}.npy"
    if not path.is_file():
        room, found, count = LENGTH - 2, [], 0
        for document in documents(text):
            for one in tokenizer.encode(document.paragraphs):
                found.append(one.ids)
                count += len(one.ids)
            if count >= tokens:
                break
        flat = np.concatenate(found)[: count // room * room].reshape(-1, room).astype(np.int64)
        ends = [np.full((len(flat), 1), number) for number in (tokenizer.cls_id, tokenizer.sep_id)]
        with (part := path.with_suffix(".part")).open("wb") as file:
            np.save(file, np.concatenate([ends[0], flat, ends[1]], axis=1))
        part.replace(path)
    return np.load(path)


# ------------------------------------------------------------------------------------------------------- telling


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _append(path: Path, rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    rows.append(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


Shown = Mapping[str, Sequence[Mapping[str, Any]]]
"""By language, its rows."""
BOTH_SIDES = "BERT"


def table(shown: Shown, names: Sequence[str]) -> str:
    """Scores by model and task, in Markdown; below, how far BERT is ahead of the best of the others."""
    columns = [(language, task) for language in shown for task in TASKS[language]]
    score = {
        (language, row["model"], row["task"]): row.get("score") for language, rows in shown.items() for row in rows
    }
    made = {(language, row["model"]): row for language, rows in shown.items() for row in rows if "parameters" in row}
    heads = [f"{language} {task.name}, {task.measure}" for language, task in columns]
    lines = [
        f"| frozen vectors | {' | '.join(heads)} | parameters | seconds to learn |",
        "|" + "---|" * (len(heads) + 3),
    ]
    for name in names:
        cells = [_percent(score.get((language, name, task.name))) for language, task in columns]
        own = [made[language, name] for language in shown if (language, name) in made]
        costs = [" / ".join(f"{row[what]:,.0f}" for row in own) for what in ("parameters", "seconds")]
        lines.append(f"| {name} | {' | '.join([*cells, *costs])} |")
    ahead = []
    for language, task in columns:
        found = {name: score.get((language, name, task.name)) for name in names}
        others = [value for name, value in found.items() if name != BOTH_SIDES and value is not None]
        own = found.get(BOTH_SIDES)
        ahead.append(f"{100 * (own - max(others)):+.1f}" if own is not None and others else "")
    return "\n".join([*lines, f"| {BOTH_SIDES} and the best of the others | {' | '.join(ahead)} | | |"])


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.1f}"


def draw(path: Path, shown: Shown, names: Sequence[str]) -> None:
    """The table as bars, a panel a language."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(shown), figsize=(7 * len(shown), 4), sharey=True, squeeze=False)
    for axes, (language, rows) in zip(panels[0], shown.items(), strict=True):
        tasks = TASKS[language]
        score = {(row["model"], row["task"]): row.get("score", 0.0) for row in rows}
        for number, name in enumerate(names):
            places = [at + 0.8 * (number - len(names) / 2 + 0.5) / len(names) for at in range(len(tasks))]
            axes.bar(places, [score.get((name, task.name), 0.0) for task in tasks], 0.75 / len(names), label=name)
        axes.set_xticks(range(len(tasks)), [f"{task.name}\n{task.measure}" for task in tasks])
        axes.set_title({"en": "English", "zh": "Chinese"}[language])
    figure.suptitle("Frozen vectors under one linear layer, all trained on as many tokens")
    figure.legend(*panels[0][0].get_legend_handles_labels(), ncols=len(names), loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BothwaysError as error:
        sys.exit(str(error))
