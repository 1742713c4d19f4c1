"""Is one model better than another on the same records? By a paired bootstrap, over several seeds where there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.infer.devices import Precision
from bothways.infer.predictor import Predictor, load
from bothways.metrics.bootstrap import paired_bootstrap
from bothways.tasks import task_class
from bothways.tasks.base import Task

SAMPLES = 10_000


def seeds_of(run: str | Path) -> list[str | Path]:
    """The models of a run with several seeds, in their order; of anything else, itself."""
    folders = [folder for folder in Path(run).glob("seed-*") if (folder / "model" / "config.json").is_file()]
    folders.sort(key=lambda folder: (len(folder.name), folder.name))
    return [*folders] or [run]


def compare(
    first: str | Path,
    second: str | Path,
    records: Sequence[Record],
    *,
    device: str = "auto",
    precision: Precision = "float32",
    seed: int = 0,
) -> dict[str, Any]:
    """How much better the first model, or run of several seeds, does than the second.

    Of several seeds it is their mean on each record that is compared, so that the interval is of the records drawn:
    how far the seeds spread is told by their deviation.

    Returns:
        `model`, the second; `seeds` and `model_seeds`, how many of each; and for each metric that is made of single
        records the fields of `Comparison` and its `verdict`.

    Raises:
        ConfigError: models of two tasks, or of a task that has no score of single records.
        DataError: a record that one of them can't read.
    """
    a, name = _by_record(first, records, None, device, precision)
    b, _ = _by_record(second, records, name, device, precision)
    shared = [metric for metric in a if metric in b and a[metric].shape == b[metric].shape]
    if not shared:
        raise _none_by_record(name)
    told: dict[str, Any] = {"model": str(second), "seeds": len(seeds_of(first)), "model_seeds": len(seeds_of(second))}
    for metric in shared:
        found = paired_bootstrap(a[metric], b[metric], samples=SAMPLES, seed=seed)
        told[metric] = found._asdict() | {"verdict": found.verdict}
    return told


def check_comparable(run: str | Path, task: str) -> None:
    """That there is such a model, and for this task, which can be compared: to be known before others are trained.

    Raises:
        ModelError: there is none, or it has no task.
        ConfigError: it is for another task, or the task has no score of single records.
    """
    if task_class(task).by_record is Task.by_record:
        raise _none_by_record(task)
    for model in seeds_of(run):
        _check_task(model, load(model, device="cpu"), task)


def _none_by_record(task: str) -> ConfigError:
    return ConfigError(f"models for {task} can't be compared record by record: the task has no such score")


def _check_task(name: str | Path, predictor: Predictor, task: str) -> None:
    found = predictor.task_name
    if found != task:
        raise ConfigError(f"{name}: a model for {found}, wanted one for {task}: two of one task can be compared")


def _by_record(
    run: str | Path, records: Sequence[Record], task: str | None, device: str, precision: Precision
) -> tuple[dict[str, np.ndarray], str]:
    """What each record adds to the metrics, in the mean over the run's seeds, and the task, which must be `task`."""
    found: list[dict[str, np.ndarray]] = []
    for model in seeds_of(run):
        predictor = load(model, device=device, precision=precision)
        task = task or predictor.task_name
        _check_task(model, predictor, task)
        found.append(predictor.by_record(records))
    assert task is not None
    return {metric: np.mean([one[metric] for one in found], axis=0) for metric in found[0]}, task
