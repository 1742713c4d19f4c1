"""Sentence vectors on real data: of a model as it is, and after each course of lessons, beside TF-IDF and BM25.

    python -m runs.vectors --shared ../shared/data --start DIR

A course is one `bothways finetune embed` after the other (`runs/lessons.py`); each lesson's learning rate is chosen on
its dev by the first seed. Every model is then scored on all sets in its languages (`runs/exams.py`). A measurement is a
row of JSON in `--rows`; one that is there is not made again, and a run that was stopped goes on where it stood. The
models stay in `--work`/runs. At the end the tables are printed; docs/results.md has them too (`make results`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.finetune import SHARED, minilm
from runs.exams import EXAMS, QUICK, Exam, Room, by_model, by_words
from runs.lessons import COURSES, LESSONS, Lesson, languages
from runs.results import Start, starts
from runs.rows import RESULTS, Row, Rows, bothways, log, resumed, write_records
from runs.vector_pages import section

RATES = (1e-4, 3e-4)
ROWS = RESULTS / "vectors.jsonl"
Course = tuple[Lesson, ...]


@dataclass(frozen=True)
class Plan:
    """Where things are, and how much is done."""

    room: Room
    rows: Rows
    seeds: int
    rates: tuple[float, ...]
    teacher: Start


def main(argv: Sequence[str] | None = None) -> int:
    """Make all rows that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with en/ and zh/")
    parser.add_argument("--work", type=Path, default=Path("out/vectors"), help="the folder for data and models")
    parser.add_argument("--rows", type=Path, default=None, help=f"default: {ROWS.name}, or in --work if --quick")
    parser.add_argument("--start", type=Path, default=None, help="a model's folder, a run or builtin (the default)")
    parser.add_argument("--courses", nargs="*", choices=list(map(_told, COURSES)), default=None, help="only these")
    parser.add_argument("--exams", nargs="+", choices=[exam.name for exam in EXAMS], default=None, help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates to choose from")
    parser.add_argument("--epochs", type=int, default=None, help="of every lesson (default: each lesson's own)")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    wanted = parser.parse_args(argv)
    if not (wanted.shared / "en").is_dir():
        sys.exit(f"{wanted.shared} holds no en/; name the folder of the data by --shared")
    rows = Rows(wanted.rows or (wanted.work / "vectors.jsonl" if wanted.quick else ROWS))
    room = Room(wanted.shared, wanted.work, wanted.quick)
    seeds, rates = (1, tuple(wanted.rates)[:1]) if wanted.quick else (wanted.seeds, tuple(wanted.rates))
    plan = Plan(room, rows, seeds, rates, Start("all-MiniLM-L6-v2", minilm(), ("en",), ()))
    exams = [exam for exam in EXAMS if wanted.exams is None or exam.name in wanted.exams]
    courses = [course for course in COURSES if wanted.courses is None or _told(course) in wanted.courses]
    (start,) = starts(wanted.start or Path("builtin"))
    epochs = 1 if wanted.quick else wanted.epochs
    with rows.only_writer():
        without_models(plan, exams)
        for model in (plan.teacher, start):
            examine(plan, exams, {"system": model.name, "weights": model.weights}, model.languages, model.folder)
        for names in courses:
            course = tuple(replace(LESSONS[name], epochs=epochs or LESSONS[name].epochs) for name in names)
            for seed in range(plan.seeds):
                key = _key(plan, start, course) | {"system": f"{start.name}, {_told(names)}"}
                examine(plan, exams, key, languages(names), partial(learnt, plan, start, course, seed), seed)
    print(section(rows.all()))
    print(f"{len(rows.all())} rows in {rows.path}, models in {wanted.work / 'runs'}")
    return 0


def _told(course: Sequence[str]) -> str:
    return ", then ".join(course)


# ------------------------------------------------------------------------------------------------- measurements


def without_models(plan: Plan, exams: Sequence[Exam]) -> None:
    """TF-IDF and BM25."""
    for exam in exams:
        for seed in range(plan.seeds) if exam.kind == "clusters" else (0,):
            key = {"measure": "words", "exam": exam.name, "quick": plan.room.quick, "seed": seed}
            plan.rows.measured(key, lambda exam=exam, seed=seed: {"systems": by_words(exam, plan.room, seed)})


def examine(
    plan: Plan,
    exams: Sequence[Exam],
    key: Row,
    known: Sequence[str],
    folder: Path | Callable[[], Path],
    seed: int | None = None,
) -> None:
    """The scores of one model on the sets in its languages; `seed` None: it was not trained here."""

    @cache
    def model() -> Any:
        from bothways.infer.predictor import load

        return load(folder if isinstance(folder, Path) else folder())

    for exam in exams:
        if not set(exam.languages) <= set(known):
            continue
        seeds = [seed] if seed is not None else range(plan.seeds) if exam.kind == "clusters" else [0]
        for one in seeds:  # of KMeans; nothing else is random in a model that is not trained here
            own = {"measure": "exam", "exam": exam.name, "quick": plan.room.quick, "seed": one} | key
            plan.rows.measured(own, lambda exam=exam, one=one: {"scores": _scored(exam, plan.room, model(), one)})


def _scored(exam: Exam, room: Room, model: Any, seed: int) -> Row:
    from bothways.train.card import hardware

    scores = by_model(exam, room, model, seed)
    return {name: round(value, 6) for name, value in scores.items()} | {"machine": hardware()["device"]}


def learnt(plan: Plan, start: Start, course: Course, seed: int) -> Path:
    """The model that a course made of the one it starts from, trained where it is not there."""
    tried = {rate: _on_dev(plan, start, course, rate, 0) for rate in plan.rates}
    rate = max(tried, key=lambda rate: tried[rate])
    _on_dev(plan, start, course, rate, seed)
    out = _folder(plan, start, course, rate, seed)
    if not (out / "model" / "config.json").is_file():
        _train(plan, start, course, rate, seed)
    return out


def _on_dev(plan: Plan, start: Start, course: Course, rate: float, seed: int) -> float:
    key = {"measure": "dev"} | _key(plan, start, course) | {"lr": rate, "seed": seed}
    return plan.rows.measured(key, lambda: _train(plan, start, course, rate, seed))["dev"]["score"]


def _key(plan: Plan, start: Start, course: Course) -> Row:
    """What a trained model's rows are found by: another start, lesson or way to learn is measured anew."""
    lessons = [[one.name, one.told, one.epochs, one.batch, list(one.flags)] for one in course]
    return {"start": start.name, "weights": start.weights, "course": lessons, "quick": plan.room.quick}


def _folder(plan: Plan, start: Start, course: Course, rate: float, seed: int) -> Path:
    """Of one training; an earlier one, with other epochs, is another."""
    name = "-then-".join(f"{one.name.replace(' ', '-')}-{one.epochs}" for one in course)
    return plan.room.work / "runs" / f"{start.name}-{start.weights}" / name / f"{rate:g}-seed-{seed}"


def _train(plan: Plan, start: Start, course: Course, rate: float, seed: int) -> Row:
    """The last lesson of a course, from the model that those before it made."""
    *before, lesson = course
    model = learnt(plan, start, tuple(before), seed) if before else start.folder
    out = _folder(plan, start, course, rate, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    seconds = bothways(
        *("finetune", "embed", "--model", str(model), "--out", str(out), "--seed", str(seed), "--quiet"),
        *("--train", str(_records(plan, lesson, "train")), "--dev", str(_records(plan, lesson, "dev"))),
        *("--epochs", str(lesson.epochs), "--batch", str(lesson.batch), "--optim.lr", f"{rate:g}"),
        *(*lesson.flags, *resumed(out)),
    )
    return {"dev": log(out)[-1]["finished"], "process_seconds": seconds}


def _records(plan: Plan, lesson: Lesson, split: str) -> Path:
    """The file of a lesson's records, made once; with the teacher's vectors if it is taught."""
    folder = plan.room.work / "data" / lesson.name.replace(" ", "-")
    plain, taught = folder / f"{split}.jsonl", folder / f"{split}.parquet"
    if not plain.is_file():
        rows = lesson.make(plan.room.shared, split)
        write_records(plain, rows[:: max(1, len(rows) // QUICK)] if plan.room.quick else rows)
    if lesson.taught and not taught.is_file():
        bothways("embed", str(plan.teacher.folder), "--data", str(plain), "--out", str(taught), "--quiet")
    return taught if lesson.taught else plain


if __name__ == "__main__":
    sys.exit(main())
