"""Every task on real data, beside baselines and published scores: measures what is missing, writes docs/results.md.

    python -m runs.results --shared ../shared/data

Each measurement is a row of JSON in `--rows`; one that is there is not made again, and a run that was stopped goes on
where it stood. For each set and each model to start from: the learning rate is chosen on dev by one seed, then the test
is scored with every seed at that rate.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from benchmarks.finetune import minilm
from runs.baselines import BASELINES, Baseline
from runs.heads_pages import heads_section
from runs.pages import page
from runs.plan import Plan, finetune, flags, planned
from runs.rows import RESULTS, Row, Rows, read_records, write_records
from runs.sets import SETS, DataSet, Part
from runs.tfidf import Features, numbers, tfidf, tfidf_cosine
from runs.tfidf import records as as_records
from runs.vector_pages import section

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
REPEATED = 0.05  # from this share of test records that also stand in train, the others are scored apart
MINILM = "all-MiniLM-L6-v2"
QUICK = {"train": 200}  # records of a quick run; 100 of any other part


@dataclass(frozen=True)
class Start:
    """A model to start from, and how.

    flags:      what is told to `bothways finetune` beside what the set wants
    module:     what takes the words of `bothways`: it, or a peer
    as_long_as: of a peer that learns by the clock, whose steps tell how long
    """

    name: str
    folder: Path
    languages: tuple[str, ...]
    rates: tuple[float, ...]
    flags: tuple[str, ...] = ()
    module: str = "bothways"
    as_long_as: str = ""

    @cached_property
    def weights(self) -> str:
        """Which weights these are: the beginning of their hash. Another model of that name is measured anew."""
        from bothways.data.shard_files import file_hash

        (weights,) = self.folder.glob("model*.safetensors")  # of a compact folder, model.compact.safetensors
        return file_hash(weights)[:12]


@dataclass(frozen=True)
class ResultsPlan(Plan):
    """Where the parts of each set are, too."""

    keep: bool = False
    """keep the runs' folders when their rows are made"""

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
        return [data.record(row) for row in rows]

    def file(self, data: DataSet, name: str) -> Path:
        """The file of one part: the source's own where it is taken as it is."""
        part = data.parts()[name]
        if not self.quick and data.as_it_is and part == Part(part.file):
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
        learnt = parts | {"epochs": data.epochs, "flags": data.flags, "quick": self.quick}
        return json.loads(json.dumps(learnt if data.minutes is None else learnt | {"minutes": data.minutes}))


def main(argv: Sequence[str] | None = None) -> int:
    """Make all rows that are missing, and the page."""
    parser = flags(__doc__, "results", shared="en/ and zh/")
    parser.add_argument("--page", type=Path, default=None, help="default: docs/results.md, or in --work if --quick")
    parser.add_argument("--sets", nargs="+", choices=[data.name for data in SETS], default=None, help="only these")
    parser.add_argument("--tasks", nargs="+", choices=list(BASELINES), default=None, help="only these")
    parser.add_argument(
        "--start",
        type=Path,
        default=None,
        help="a model to start from, and from no other: a folder, builtin or all-MiniLM-L6-v2",
    )
    parser.add_argument("--rates", type=float, nargs="+", default=None, help="learning rates to choose from on dev")
    parser.add_argument("--untrained", action="store_true", help="beside each start, its shape with random weights too")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders when their rows are made")
    parser.add_argument(
        "--write", action="store_true", help="measure nothing: write the page from the rows that are there"
    )
    wanted = parser.parse_args(argv)
    plan = ResultsPlan(**vars(planned(wanted, "results")), keep=wanted.keep)
    rows = plan.rows
    target = wanted.page or (wanted.work / "results.md" if wanted.quick else PAGE)
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
        # Rows of the other scripts stand on the page that is for everything, not on one of other rows.
        heads, vectors = (
            Rows(RESULTS / f"{name}.jsonl").all() if wanted.rows is None and not wanted.quick else []
            for name in ("heads", "vectors")
        )
        parts = (page(rows.all(), learnt, builtin=builtin_weights()), heads_section(heads), section(vectors))
        target.write_text("\n".join(filter(None, parts)), encoding="utf-8")

    with rows.only_writer():
        if not wanted.write:
            begins = [replace(one, rates=tuple(wanted.rates or one.rates)) for one in starts(wanted.start)]
            if wanted.untrained:
                begins = [each for one in begins for each in (one, untrained(one, plan.work))]
            for data in chosen:
                baselines(plan, data, BASELINES[data.task])
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
    if given is not None and str(given) != MINILM:
        return [Start(given.name, locate(str(given)), ("en", "zh"), wide)]
    found = [Start(MINILM, minilm(), ("en",), (3e-5, 1e-4, 3e-4))]
    if given is not None:
        return found
    try:
        found.append(Start("builtin", locate("builtin"), ("en", "zh"), wide))
    except ModelError as error:
        print(f"skipped: every row that starts from the built-in model: {error}", file=sys.stderr)
    return found


def builtin_weights() -> str | None:
    """Which weights the built-in model has, if it is there."""
    from bothways.errors import ModelError

    try:
        return starts(Path("builtin"))[0].weights
    except ModelError:
        return None


def untrained(start: Start, work: Path) -> Start:
    """The same shape and vocabulary with random weights: what pre-training is worth."""
    from bothways.models.model import fresh, load, save, seed_everything

    folder = work / f"{start.name}-{start.weights}-untrained"
    if not (folder / "config.json").is_file():
        seed_everything(0)
        trained = load(start.folder)
        save(replace(fresh(trained.config, trained.tokenizer, None), advice=trained.advice), folder)
    return replace(start, name=f"{start.name}-untrained", folder=folder)


# ------------------------------------------------------------------------------------------------ measurements


def baselines(plan: ResultsPlan, data: DataSet, systems: Mapping[str, Baseline]) -> None:
    """What needs no model, and TF-IDF where records are texts."""
    key = {"measure": "baseline", "set": data.name, "learnt": plan.learnt(data)}
    for name, baseline in systems.items():

        def measure(baseline: Any = baseline) -> Row:
            from bothways.tasks import task_class

            kind = task_class(data.task)
            train = as_records(plan.records(data, "train"))
            task, scores = kind.learn(train, kind.Settings()), {}
            for test, rows in plan.tests(data).items():
                records = as_records(rows)
                scores[test] = told(data.scores(task, records, baseline(task, train, records)), rows)
            return {"tests": scores}

        plan.rows.measured(key | {"system": name}, measure)
    features: tuple[Features, ...] = ("characters", "words")
    for kind in features if data.task in ("classify", "pair", "similarity") else ():

        def weigh(kind: Features = kind) -> Row:
            tests = plan.tests(data)
            weigher = tfidf_cosine if data.task == "similarity" else tfidf
            found = weigher(plan.records(data, "train"), plan.records(data, "dev"), tests, kind)
            scores = {test: told(found.pop(test), rows) for test, rows in tests.items()}
            return {"chosen": found, "tests": scores}

        what = "cosine" if data.task == "similarity" else "regression"
        plan.rows.measured(key | {"system": f"TF-IDF of {kind}, {what}"}, weigh)


def scored(folder: Path, data: DataSet, tests: Mapping[str, list[Row]]) -> Row:
    """A run's scores on the tests."""
    import bothways as package

    predictor = package.load(folder)
    return {"tests": {test: told(predictor.evaluate(rows), rows) for test, rows in tests.items()}}


def finetuned(
    plan: ResultsPlan,
    data: DataSet,
    start: Start,
    *,
    score: Callable[[Path, DataSet, Mapping[str, list[Row]]], Row] = scored,
) -> None:
    """The rate that is best on dev by the first seed, then every seed's scores on the tests at that rate."""
    runs = plan.work / "runs" / data.name / start.name
    key = {"set": data.name, "learnt": plan.learnt(data), "start": start.name, "weights": start.weights}

    def minutes(rate: float, seed: int) -> float | None:
        """Of training, if not by epochs; of a peer as many as those that it is measured beside took for their steps."""
        beside = {"measure": "dev"} | key | {"start": start.as_long_as, "lr": rate, "seed": seed}
        found = plan.rows.found(beside) if start.as_long_as else None
        return found["steps_seconds"] / 60 if found is not None and "steps_seconds" in found else data.minutes

    def run(rate: float, seed: int) -> Row:
        return finetune(
            data.task,
            model=start.folder,
            train=plan.file(data, "train"),
            dev=plan.file(data, "dev"),
            out=runs / f"{rate:g}-seed-{seed}",
            rate=rate,
            epochs=data.epochs,
            minutes=minutes(rate, seed),
            seed=seed,
            more=(*data.flags, *start.flags),
            module=start.module,
        )

    def on_dev(rate: float, seed: int) -> Row:
        return plan.rows.measured({"measure": "dev"} | key | {"lr": rate, "seed": seed}, lambda: run(rate, seed))

    def on_tests(rate: float, seed: int) -> Row:
        from bothways.train.card import hardware

        model = runs / f"{rate:g}-seed-{seed}"
        if not (model / "model" / "config.json").is_file():
            run(rate, seed)
        return score(model, data, plan.tests(data)) | {"machine": hardware()}

    rates = start.rates[:1] if plan.quick else start.rates
    tried = {rate: on_dev(rate, 0)["dev"][data.metrics[0]] for rate in rates}
    rate = max(tried, key=lambda rate: tried[rate])
    for seed in range(1 if plan.quick else plan.seeds):
        on_dev(rate, seed)
        plan.rows.measured(
            {"measure": "test"} | key | {"lr": rate, "seed": seed}, lambda seed=seed: on_tests(rate, seed)
        )
    if not plan.keep:
        shutil.rmtree(runs, ignore_errors=True)


def told(scores: Row, rows: Sequence[Row]) -> Row:
    """Scores without their tables, rounded, and of how many records."""
    return {name: round(value, 6) for name, value in numbers(scores).items()} | {"records": len(rows)}


def _what_is_read(row: Row) -> str:
    """What two records must share to be one to the model."""
    fields = ("text", "text_a", "text_b", "tokens", "words", "predicate", "question", "context", "choices", "source")
    return repr([row.get(name) for name in fields])


@lru_cache(maxsize=8)
def _read(path: Path) -> list[Row]:
    return read_records(path)


if __name__ == "__main__":
    sys.exit(main())
