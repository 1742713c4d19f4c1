"""Is seeing both sides at once really better? Four kinds of word vectors, trained alike, frozen under the same layer.

    python benchmarks/context.py --tokens 20000000 --seeds 3 --out out/benchmarks/context
    python benchmarks/context.py --languages zh --quick

For each language, word2vec (gensim), a pair of left-to-right and right-to-left LSTMs joined at the end, a left-to-right
Transformer and BERT read its text, cut into the same pieces, for the same number of tokens, and give vectors of the
same width, those of their top layer. Frozen, they are read by one linear layer, learnt in the same way for all, on each
task's training records; its rate and weight decay are chosen on dev, the score is test's. The floor is told beside
them: the most frequent label, and a BERT that has read nothing. One table and one picture show all of it. What is done
is kept in `--out`, by what made it; the same command goes on.

Of what it reads BERT predicts 15%, the left-to-right Transformer all, the LSTMs all twice. `--equal-predictions` adds a
BERT that reads the same text about 6.7 times as often, so that it predicts as many pieces as the Transformer.

word2vec needs gensim, which nothing else does: `.venv/bin/pip install gensim` (4.4 lives with all that `make setup`
installs, and changes none of it). Without it word2vec is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _context_models import BATCH, EQUAL, KINDS, LENGTH, Size, trained
from _context_probe import Task, probe

from bothways.data.documents import documents, text_files
from bothways.data.vocabulary import learn_tokenizer
from bothways.data.whole import whole
from bothways.errors import BothwaysError, DataError
from bothways.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEXT = {"en": "en/rawtext/wikipedia_2015", "zh": "zh/rawtext/wikipedia_zh"}  # folders of train-*.txt.xz
VERSION = 2  # to be raised when models or the probe change: what is kept of others is then not used
MAJORITY, BOTH_SIDES = "majority", "BERT"


TASKS = {
    "en": [
        Task("sentiment", "text", "en/classification/sst2", ("accuracy",)),
        Task("ner", "words", "en/ner/uner_ewt", ("f1",)),
        Task("word sense", "sense", "en/wordsense/wic", ("accuracy",)),
        Task("pairs", "pair", "en/pair/rte", ("accuracy",)),
        Task("paraphrase", "pair", "en/pair/mrpc", ("accuracy", "mcc")),
    ],
    "zh": [
        Task("sentiment", "text", "zh/sentiment/waimai_10k", ("accuracy",)),
        Task("ner", "words", "zh/ner/weibo", ("f1",)),
        Task("segmentation", "characters", "zh/segmentation/gsdsimp", ("f1",)),
        Task("pairs", "pair", "zh/pair/afqmc", ("accuracy", "mcc")),
    ],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score what is missing, then print the table and draw the picture."""
    wanted = _arguments(argv)
    torch.set_num_threads(wanted.threads)
    names = [MAJORITY, *(name for name in KINDS if name != EQUAL or wanted.equal_predictions)]
    if importlib.util.find_spec("gensim") is None:
        names.remove("word2vec")
        print(
            f"no gensim here, so word2vec is left out; to have it: {sys.executable} -m pip install gensim", flush=True
        )
    shown = {language: measured(wanted, language, names) for language in wanted.languages}
    (wanted.out / "context.md").write_text((told := table(shown, names)) + "\n", encoding="utf-8")
    print(told)
    draw(wanted.out / "context.png", shown, names)
    return 0


def measured(wanted: argparse.Namespace, language: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one language, of each model and of each of its tasks; those that are there are not made again."""
    out = wanted.out / language
    out.mkdir(parents=True, exist_ok=True)
    size = Size(width=64, layers=2) if wanted.quick else Size(width=wanted.width, layers=wanted.layers)
    text = _text(wanted, language)
    made_of = _key(_sizes(text), wanted.vocab)
    tokenizer = _tokenizer(out / f"vocab-{made_of}", text, wanted.vocab)
    ids = _sequences(out / f"pieces-{made_of}-{wanted.tokens}.npy", text, tokenizer, wanted.tokens)
    print(f"{language}: {len(ids):,} sequences of {LENGTH} pieces; each model reads {wanted.tokens:,}", flush=True)
    rows, shown = _rows(out / "rows.jsonl"), []
    setting = {"tokens": wanted.tokens, "limit": wanted.limit, "width": size.width, "layers": size.layers}
    for seed, name in ((seed, name) for seed in range(wanted.seeds) for name in names):
        if name == MAJORITY and seed:
            continue  # it has no seed
        print(f"{language} {name}, seed {seed}", flush=True)
        made_by = _key(made_of, wanted.tokens, asdict(size), name, seed)
        model = None
        if name != MAJORITY:
            path = out / "models" / f"{name.replace(',', '').replace(' ', '-')}-{seed}-{made_by}.safetensors"
            model, told = trained(name, ids, tokenizer, size, budget=wanted.tokens, seed=seed, path=path)
            shown.append({"model": name, "seed": seed, **told})
        for task in TASKS[language]:
            key = {"model": name, "seed": seed, "task": task.name, **setting}
            key["key"] = _key(made_by, asdict(task), _sizes(task.files(wanted.shared)), wanted.limit)
            row = next((row for row in rows if row.items() >= key.items()), None)
            if row is None:
                row = key | probe(model, tokenizer, task, wanted.shared, limit=wanted.limit, seed=seed)
                _append(out / "rows.jsonl", row)
                said = ", ".join(f"{measure} {score:.4f}" for measure, score in row["scores"].items())
                print(f"  {task.name}: {said}", flush=True)
            shown.append(row)
    return shown


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", choices=list(TASKS), nargs="+", default=list(TASKS))
    parser.add_argument(
        "--text", type=Path, nargs="+", default=None, help="files or folders of raw text, of one language"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of data sets")
    parser.add_argument("--tokens", type=int, default=20_000_000, help="tokens that each model reads")
    parser.add_argument("--vocab", type=int, default=8000, help="pieces")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--limit", type=int, default=None, help="records of each split at most")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, … of training and of the layer")
    parser.add_argument("--equal-predictions", action="store_true", help="also a BERT that predicts as many pieces")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="tiny models and few records, to try it out")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/context"))
    wanted = parser.parse_args(argv)
    if wanted.quick:
        wanted.tokens, wanted.vocab = min(wanted.tokens, 30 * BATCH * LENGTH), min(wanted.vocab, 2000)
        wanted.limit = min(wanted.limit or 200, 200)
        wanted.out = wanted.out / "quick"
    if wanted.seeds < 1:
        parser.error("--seeds is at least 1")
    if wanted.text and len(wanted.languages) > 1:
        parser.error("--text is of one language; say which by --languages en or --languages zh")
    return wanted


def _text(wanted: argparse.Namespace, language: str) -> list[Path]:
    folder = wanted.shared / TEXT[language]
    if not (found := wanted.text or sorted(folder.glob("train-*.txt.xz"))):
        raise DataError("there is no train-*.txt.xz here; give the folder of data sets by --shared", path=folder)
    return text_files(found)


def _sizes(paths: Iterable[Path]) -> list[tuple[str, int]]:
    return [(str(path.resolve()), path.stat().st_size) for path in paths]


def _key(*made: Any) -> str:
    """A short name for what something was made of, so that nothing is used that was made of something else."""
    return hashlib.sha256(json.dumps([VERSION, *made]).encode()).hexdigest()[:10]


def _tokenizer(folder: Path, text: Sequence[Path], size: int) -> Tokenizer:
    if not folder.is_dir():
        with whole(folder) as part:
            learn_tokenizer(text, size).save(part)
    return Tokenizer.from_folder(folder)


def _sequences(path: Path, text: Sequence[Path], tokenizer: Tokenizer, tokens: int) -> np.ndarray:
    """(sequences, LENGTH) int64: the text's pieces between [CLS] and [SEP], as many as the budget needs."""
    if not path.is_file():
        room, found, count = LENGTH - 2, [], 0
        for document in documents(text):
            for one in tokenizer.encode(document.paragraphs):
                found.append(one.ids)
                count += len(one.ids)
            if count >= tokens:
                break
        enough = min(count // room, -(-tokens // LENGTH))
        flat = np.concatenate(found)[: enough * room].reshape(-1, room).astype(np.int64)
        ends = [np.full((len(flat), 1), number) for number in (tokenizer.cls_id, tokenizer.sep_id)]
        with whole(path) as part, part.open("wb") as file:
            np.save(file, np.concatenate([ends[0], flat, ends[1]], axis=1))
    return np.load(path)


# ------------------------------------------------------------------------------------------------------- telling


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows so far; a line that a kill has cut short is none."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def _append(path: Path, row: dict[str, Any]) -> None:
    """One JSON line more, on a line of its own whatever a kill has left before it."""
    with path.open("ab+") as file:
        cut = file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n"
        file.write(b"\n" * bool(cut) + json.dumps(row, allow_nan=False).encode() + b"\n")


Shown = Mapping[str, Sequence[Mapping[str, Any]]]
"""By language, its rows."""
Scores = dict[tuple[str, str, str, str], dict[int, float]]
"""By language, model, task and measure: a score a seed."""


def table(shown: Shown, names: Sequence[str]) -> str:
    """Scores and costs by model, in Markdown; below, how far BERT is ahead of each of the others, seed by seed."""
    columns = [
        (language, (task.name, measure)) for language in shown for task in TASKS[language] for measure in task.measures
    ]
    scores = _scores(shown)
    costs = {
        "tokens read, M": lambda row: f"{row['tokens'] / 1e6:.2f}",
        "epochs": lambda row: f"{row['epochs']:.2f}",
        "pieces predicted, M": lambda row: "" if row["predicted"] is None else f"{row['predicted'] / 1e6:.2f}",
        "parameters, M (in layers)": lambda row: f"{row['parameters'] / 1e6:.2f} ({row['layers'] / 1e6:.2f})",
        "seconds to learn": lambda row: f"{row['seconds']:,.0f}",
    }
    heads = [
        "frozen vectors, × 100",
        *(f"{language} {task}, {measure}" for language, (task, measure) in columns),
        *costs,
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in names:
        cells = [_told(scores.get((language, name, *rest), {}).values()) for language, rest in columns]
        own = [
            next((row for row in rows if row["model"] == name and "parameters" in row), None) for rows in shown.values()
        ]
        # Those of the first seed, once where all languages have the same.
        cells += [" / ".join(dict.fromkeys(tell(row) for row in own if row is not None)) for tell in costs.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in names:
        if name in (MAJORITY, BOTH_SIDES):
            continue  # how far a model is from the majority is read off
        cells = []
        for language, rest in columns:
            own, other = (scores.get((language, which, *rest), {}) for which in (BOTH_SIDES, name))
            cells.append(_told([own[seed] - other[seed] for seed in own.keys() & other.keys()], sign="+"))
        lines.append(f"| {BOTH_SIDES} less {name} | {' | '.join(cells + [''] * len(costs))} |")
    return "\n".join(lines)


def _scores(shown: Shown) -> Scores:
    found: Scores = {}
    for language, rows in shown.items():
        for row in rows:
            for measure, score in row.get("scores", {}).items():
                found.setdefault((language, row["model"], row["task"], measure), {})[row["seed"]] = score
    return found


def _told(scores: Iterable[float], sign: str = "") -> str:
    """Their mean, times 100, and with several seeds their deviation."""
    hundredths = [100 * score for score in scores]
    if not hundredths:
        return ""
    spread = f" ± {stdev(hundredths):.1f}" if len(hundredths) > 1 else ""
    return f"{round(mean(hundredths), 1) + 0.0:{sign}.1f}{spread}"  # 0.0, so that none is -0.0


def draw(path: Path, shown: Shown, names: Sequence[str]) -> None:
    """The scores as bars, a panel a language; a line across a task's bars is the floor, what the majority scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores, bars = _scores(shown), [name for name in names if name != MAJORITY]
    figure, panels = pyplot.subplots(len(shown), 1, figsize=(10, 3.6 * len(shown) + 1), squeeze=False)
    for axes, language in zip(panels[:, 0], shown, strict=True):
        columns = [(task.name, measure) for task in TASKS[language] for measure in task.measures]
        for number, name in enumerate(bars):
            found = [list(scores.get((language, name, *column), {}).values()) or [0.0] for column in columns]
            axes.bar(
                [at + 0.8 * (number - len(bars) / 2 + 0.5) / len(bars) for at in range(len(columns))],
                [100 * mean(own) for own in found],
                0.75 / len(bars),
                yerr=[100 * stdev(own) if len(own) > 1 else 0.0 for own in found],
                label=name,
                color="lightgrey" if name.startswith("untrained") else None,
            )
        floors = [scores.get((language, MAJORITY, *column), {}) for column in columns]
        for at, floor in enumerate(floors):
            if floor:
                label = MAJORITY if at == 0 else None
                axes.hlines(100 * mean(floor.values()), at - 0.42, at + 0.42, "black", linewidth=1, label=label)
        axes.set_xticks(range(len(columns)), [f"{task}\n{measure}" for task, measure in columns])
        axes.set_ylabel("× 100")
        axes.set_title({"en": "English", "zh": "Chinese"}[language])
    figure.suptitle("Frozen vectors under one linear layer, all trained on as many tokens")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.6 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BothwaysError as error:
        sys.exit(str(error))
