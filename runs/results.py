"""Every task on real data, beside baselines and published scores: measures what is missing, writes docs/results.md.

    python -m runs.results --shared ../shared/data

Each measurement is a row of JSON in `--rows`; one that is there is not made again, and a run that was stopped goes on
where it stood. For each set and each model to start from: the learning rate is chosen on dev by one seed, then the test
is scored with every seed at that rate.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from benchmarks.finetune import SHARED, minilm
from runs.baselines import BASELINES
from runs.pages import page
from runs.rows import RESULTS, Row, Rows, bothways, log, read_records, resumed, write_records
from runs.sets import SETS, DataSet, Part
from runs.tfidf import Features, numbers, tfidf, tfidf_cosine
from runs.tfidf import records as as_records

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
REPEATED = 0.05  # from this share of test records that also stand in train, the others are scored apart
QUICK = {"train": 200}  # records of a quick run; 100 of any other part


@dataclass(frozen=True)
class Start:
    """A model to start from."""

    name: str
    folder: Path
    languages: tuple[str, ...]
    rates: tuple[float, ...]

    @cached_property
    def weights(self) -> str:
        """Which weights these are: the beginning of their hash. Another model of that name is measured anew."""
        from bothways.data.shard_files import file_hash
        from bothways.models.weights import COMPACT, SINGLE

        single = self.folder / SINGLE
        return file_hash(single if single.is_file() else self.folder / COMPACT)[:12]


@dataclass(frozen=True)
class Plan:
    """Where things are, and how much is done."""

    shared: Path
    work: Path
    rows: Rows
    seeds: int
    quick: bool
    keep: bool

    def records(self, data: DataSet, name: str) -> list[Row]:
        """The records of one part, under the names that the task knows."""
        part = data.parts()[name]
        rows = [
            row for line, row in enumerate(_read(self.shared / f"{part.file}.jsonl.gz"), 1) if line not in part.without
        ]
        rows = rows[part.first : part.last]
        limit = part.limit
        if self.quick:
            limit = min(limit or len(rows), QUICK.get(name, 100))
        if limit is not None and limit < len(rows):
            rows = [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]
        own = {theirs: ours for ours, theirs in data.columns.items()}
        return [{own.get(key, key): value for key, value in row.items()} for row in rows] if own else rows

    def file(self, data: DataSet, name: str) -> Path:
        """The file of one part: the source's own where it is taken as it is."""
        part = data.parts()[name]
        if not (self.quick or data.columns) and part == Part(part.file):
            return self.shared / f"{part.file}.jsonl.gz"
        return write_records(self.work / "data" / data.name / f"{name}.jsonl", self.records(data, name))

    def tests(self, data: DataSet) -> dict[str, list[Row]]:
        """The test records; where many of them stand in train, also those that don't."""
        seen = {_what_is_read(row) for row in self.records(data, "train")}
        tests: dict[str, list[Row]] = {}
        for name in data.parts():
            if name in ("train", "dev"):
                continue
            tests[name] = self.records(data, name)
            fresh = [row for row in tests[name] if _what_is_read(row) not in seen]
            if 0 < len(fresh) <= (1 - REPEATED) * len(tests[name]):
                tests[f"{name}_not_in_train"] = fresh
        return tests

    def learnt(self, data: DataSet) -> Row:
        """What a row was learnt from, so that it is measured again when that changes."""
        parts = {
            name: {key: value for key, value in asdict(part).items() if value not in (None, ())}
            for name, part in data.parts().items()
        }
        return json.loads(json.dumps(parts | {"epochs": data.epochs, "flags": data.flags, "quick": self.quick}))


def main(argv: Sequence[str] | None = None) -> int:
    """Make all rows that are missing, and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with en/ and zh/")
    parser.add_argument("--work", type=Path, default=Path("out/results"), help="the folder for data and runs")
    parser.add_argument(
        "--rows", type=Path, default=None, help="default: runs/results/results.jsonl, or in --work if --quick"
    )
    parser.add_argument("--page", type=Path, default=None, help="default: docs/results.md, or in --work if --quick")
    parser.add_argument("--sets", nargs="+", choices=[data.name for data in SETS], default=None, help="only these")
    parser.add_argument("--tasks", nargs="+", choices=list(BASELINES), default=None, help="only these")
    parser.add_argument("--start", type=Path, default=None, help="a model's folder to start from, and from no other")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders when their rows are made")
    parser.add_argument(
        "--write", action="store_true", help="measure nothing: write the page from the rows that are there"
    )
    wanted = parser.parse_args(argv)
    rows = Rows(wanted.rows or (wanted.work if wanted.quick else RESULTS) / "results.jsonl")
    target = wanted.page or (wanted.work / "results.md" if wanted.quick else PAGE)
    plan = Plan(wanted.shared, wanted.work, rows, 1 if wanted.quick else wanted.seeds, wanted.quick, wanted.keep)
    if not (plan.shared / "en").is_dir():
        sys.exit(f"{plan.shared} holds no en/; name the folder of the data by --shared")
    chosen = [
        replace(data, epochs=1) if wanted.quick else data
        for data in SETS
        if (not wanted.sets or data.name in wanted.sets) and (not wanted.tasks or data.task in wanted.tasks)
    ]
    learnt = {data.name: plan.learnt(data) for data in (SETS if not wanted.quick else chosen)}

    def write() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(rows.all(), learnt), encoding="utf-8")

    with rows.only_writer():
        if not wanted.write:
            begins = starts(wanted.start)
            for data in chosen:
                baselines(plan, data)
                for start in begins:
                    if data.language in start.languages:
                        finetuned(plan, data, start)
                write()
        write()
    print(f"{len(rows.all())} rows in {rows.path}, told in {target}")
    return 0


def starts(given: Path | None) -> list[Start]:
    """The models to start from that are there; of others, a line says so."""
    from bothways.errors import ModelError
    from bothways.models.hub import locate

    wide = (1e-4, 3e-4, 1e-3)  # a small model wants more than the 5e-5 that suits a base one
    if given is not None:
        return [Start(given.name, locate(given), ("en", "zh"), wide)]
    found = [Start("all-MiniLM-L6-v2", minilm(), ("en",), (3e-5, 1e-4, 3e-4))]
    try:
        found.append(Start("builtin", locate("builtin"), ("en", "zh"), wide))
    except ModelError as error:
        print(f"skipped: every row that starts from the built-in model: {error}", file=sys.stderr)
    return found


# ------------------------------------------------------------------------------------------------ measurements


def baselines(plan: Plan, data: DataSet) -> None:
    """What needs no model, and TF-IDF where records are texts."""
    key = {"measure": "baseline", "set": data.name, "learnt": plan.learnt(data)}
    for name, baseline in BASELINES[data.task].items():

        def measure(baseline: Any = baseline) -> Row:
            from bothways.tasks import task_class

            kind = task_class(data.task)
            train = as_records(plan.records(data, "train"))
            task, scores = kind.learn(train, kind.Settings()), {}
            for test, rows in plan.tests(data).items():
                records = as_records(rows)
                scores[test] = _scores(task.metrics(records, baseline(task, train, records)), rows)
            return {"tests": scores}

        plan.rows.measured(key | {"system": name}, measure)
    features: tuple[Features, ...] = ("characters", "words")
    for kind in features if data.task in ("classify", "pair", "similarity") else ():

        def weigh(kind: Features = kind) -> Row:
            tests = plan.tests(data)
            weigher = tfidf_cosine if data.task == "similarity" else tfidf
            found = weigher(plan.records(data, "train"), plan.records(data, "dev"), tests, kind)
            scores = {test: _scores(found.pop(test), rows) for test, rows in tests.items()}
            return {"chosen": found, "tests": scores}

        what = "cosine" if data.task == "similarity" else "regression"
        plan.rows.measured(key | {"system": f"TF-IDF of {kind}, {what}"}, weigh)


def finetuned(plan: Plan, data: DataSet, start: Start) -> None:
    """The rate that is best on dev by the first seed, then every seed's scores on the tests at that rate."""
    runs = plan.work / "runs" / data.name / start.name
    key = {"set": data.name, "learnt": plan.learnt(data), "start": start.name, "weights": start.weights}

    def run(rate: float, seed: int) -> Row:
        out = runs / f"{rate:g}-seed-{seed}"
        out.parent.mkdir(parents=True, exist_ok=True)
        seconds = bothways(
            *("finetune", data.task, "--model", str(start.folder), "--out", str(out), "--seed", str(seed), "--quiet"),
            *("--train", str(plan.file(data, "train")), "--dev", str(plan.file(data, "dev"))),
            *("--epochs", str(data.epochs), "--optim.lr", f"{rate:g}", *data.flags, *resumed(out)),
        )
        return {"dev": log(out)[-1]["finished"], "process_seconds": seconds}

    def on_dev(rate: float, seed: int) -> Row:
        return plan.rows.measured({"measure": "dev"} | key | {"lr": rate, "seed": seed}, lambda: run(rate, seed))

    def on_tests(rate: float, seed: int) -> Row:
        import bothways as package
        from bothways.train.card import hardware

        model = runs / f"{rate:g}-seed-{seed}"
        if not (model / "model" / "config.json").is_file():
            run(rate, seed)
        predictor = package.load(model)
        scores = {test: _scores(predictor.evaluate(rows), rows) for test, rows in plan.tests(data).items()}
        return {"tests": scores, "machine": hardware()}

    rates = start.rates[:1] if plan.quick else start.rates
    tried = {rate: on_dev(rate, 0)["dev"][data.metrics[0]] for rate in rates}
    rate = max(tried, key=lambda rate: tried[rate])
    for seed in range(plan.seeds):
        on_dev(rate, seed)
        plan.rows.measured(
            {"measure": "test"} | key | {"lr": rate, "seed": seed}, lambda seed=seed: on_tests(rate, seed)
        )
    if not plan.keep:
        shutil.rmtree(runs, ignore_errors=True)


def _scores(scores: Row, rows: Sequence[Row]) -> Row:
    """Scores without their tables, rounded, and of how many records."""
    return {name: round(value, 6) for name, value in numbers(scores).items()} | {"records": len(rows)}


def _what_is_read(row: Row) -> str:
    """What two records must share to be one to the model."""
    fields = ("text", "text_a", "text_b", "tokens", "words", "predicate", "question", "context", "choices")
    return repr([row.get(name) for name in fields])


@lru_cache(maxsize=8)
def _read(path: Path) -> list[Row]:
    return read_records(path)


if __name__ == "__main__":
    sys.exit(main())
