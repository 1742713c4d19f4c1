"""Runs as people ask for them: the settings of `finetune` and `pretrain`, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError
from bothways.metrics.bootstrap import summary
from bothways.tasks import task_class
from bothways.train.finetuning import Data, best_of, finetune_run, read_all
from bothways.train.folder import Run
from bothways.train.pretraining import pretrain_run
from bothways.train.settings import Finetune, Pretrain


@dataclass(frozen=True)
class PretrainRun:
    """Pre-train a model on raw text."""

    text: list[Path]
    """files or folders: .txt (blank lines part documents), .jsonl, .csv, .parquet, plain, .gz or .xz"""
    out: Path
    """folder of the run"""
    dev: list[Path] = field(default_factory=list)
    """held-out text"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    resume: bool = field(default=False, compare=False)
    """go on with a run that was stopped"""
    settings: Annotated[Pretrain, FLAT] = field(default_factory=Pretrain)
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def finetune_settings(task: str) -> type[Any]:
    """The settings class of fine-tuning that task: what all tasks share, and the task's own under its name."""
    own = task_class(task).Settings
    return make_dataclass(
        "FinetuneRun",
        [
            ("task", tyro.conf.Positional[str]),
            ("train", Path),
            ("out", Path),
            ("dev", Path | None, field(default=None)),
            ("columns", dict[str, str], field(default_factory=dict)),
            ("seeds", int, field(default=1)),
            ("resume", bool, field(default=False, compare=False)),
            ("settings", Annotated[Finetune, FLAT], field(default_factory=Finetune)),
            (task, own, field(default_factory=own)),
            ("common", Annotated[Common, FLAT], field(default_factory=Common)),
        ],
        frozen=True,
        namespace={"__doc__": f"Fine-tune a model for {task}.", "__module__": __name__},
    )


def run_finetune(wanted: Any, *, train: Data | None = None, dev: Data | None = None) -> Run:
    """Fine-tune as `wanted` (of `finetune_settings`) says, with one seed or several.

    `train` and `dev` are records from Python, where there are no files.
    """
    if wanted.seeds < 1:
        raise ConfigError(f"seeds is {wanted.seeds}; it must be at least 1")
    train_records = read_all(train if train is not None else wanted.train, wanted.columns)
    dev_data = dev if dev is not None else wanted.dev
    dev_records = read_all(dev_data, wanted.columns) if dev_data is not None else None
    task = task_class(wanted.task).learn(train_records, getattr(wanted, wanted.task))

    def once(out: Path, seed: int, resume: bool) -> Run:
        return finetune_run(
            task,
            train_records,
            dev_records,
            out,
            wanted.settings,
            wanted,
            seed=seed,
            device=wanted.common.device,
            resume=resume,
            quiet=wanted.common.quiet,
        )

    seed, out = wanted.common.seed, Path(wanted.out)
    if wanted.seeds == 1:
        return once(out, seed, wanted.resume)
    runs = []
    for number in range(seed, seed + wanted.seeds):
        part = out / f"seed-{number}"
        runs.append(once(part, number, wanted.resume and part.exists()))
    if not (out / "model").exists():
        best_of(runs, task.criterion, out)
    return Run(out, _over_seeds([run.scores for run in runs]))


def _over_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation of each score over the seeds, and the values themselves."""
    told: dict[str, Any] = {"seeds": len(scores)}
    for name in scores[0]:
        values = [float(one[name]) for one in scores]
        mean, deviation = summary(values)
        told |= {name: mean, f"{name}_deviation": deviation, f"{name}_seeds": values}
    return told


def finetune(task: str, *, train: Data, out: str | Path, dev: Data | None = None, **settings: Any) -> Run:
    """Fine-tune a model; the Python way of `bothways finetune`.

    Settings are those of the command line, sections as dicts: `optim={"lr": 2e-5}`.

    Raises:
        BothwaysError: as the command line would say it.
    """
    files = {name: str(data) for name, data in (("train", train), ("dev", dev)) if isinstance(data, str | Path)}
    given = {"task": task, "train": "<records>", "out": str(out), **files, **settings}
    wanted = config.from_dict(finetune_settings(task), given)
    return run_finetune(
        wanted,
        train=None if "train" in files else train,
        dev=None if "dev" in files else dev,
    )


def run_pretrain(wanted: PretrainRun) -> Run:
    """Pre-train as `wanted` says."""
    return pretrain_run(
        wanted.text,
        wanted.dev,
        wanted.out,
        wanted.settings,
        wanted,
        columns=wanted.columns,
        seed=wanted.common.seed,
        device=wanted.common.device,
        resume=wanted.resume,
        quiet=wanted.common.quiet,
    )


def pretrain(*, text: Sequence[str | Path], out: str | Path, **settings: Any) -> Run:
    """Pre-train a model; the Python way of `bothways pretrain`."""
    given = {"text": [str(path) for path in text], "out": str(out), **settings}
    return run_pretrain(config.from_dict(PretrainRun, given))
