"""Runs as people ask for them: the settings of `finetune` and `pretrain`, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import arg

from bothways import config
from bothways.config import FLAT, Common
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.errors import ConfigError, DataError
from bothways.infer.comparing import check_comparable, compare
from bothways.infer.devices import pick_device, settle_threads
from bothways.tasks import task_class
from bothways.tasks.multi import MultiTask, of_part
from bothways.train.finetuning import finetune_run
from bothways.train.folder import Run, RunFolder
from bothways.train.pretraining import pretrain_run
from bothways.train.ranks import joined
from bothways.train.seeds import finetune_seeds
from bothways.train.settings import Finetune, Pretrain
from bothways.train.stopping import stopped_at_once
from bothways.train.teaching import Teachers

_TRAIN = arg(help="labelled records to learn from")

Data = str | Path | Sequence[Mapping[str, Any]]


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
    """--columns.text NAME: the field that holds the text; source,target: several, each a document of its own"""
    resume: bool = field(default=False, compare=False)
    """go on with a run that was stopped"""
    settings: Annotated[Pretrain, FLAT] = field(default_factory=Pretrain)
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def finetune_settings(task: str) -> type[Any]:
    """The settings class of fine-tuning that task: what all tasks share, and the task's own under its name.

    Those of multi stand beside the shared ones, and its parts name the files of records.
    """
    if task in ("pretrain", "masked"):
        raise ConfigError(f"{task} is no task to fine-tune for; it is a verb: bothways pretrain --text F… --out DIR")
    own = task_class(task).Settings
    parts = task == MultiTask.name
    return make_dataclass(
        "FinetuneRun",
        [
            ("task", Annotated[tyro.conf.Positional[str], arg(help="the task")]),
            ("out", Annotated[Path, arg(help="folder of the run")]),
            ("train", Annotated[Path | None, _TRAIN], field(default=None))
            if parts
            else ("train", Annotated[Path, _TRAIN]),
            (
                "dev",
                Annotated[Path | None, arg(help="labelled records to choose the best epoch by")],
                field(default=None),
            ),
            ("columns", Annotated[dict[str, str], arg(help="--columns.text NAME")], field(default_factory=dict)),
            ("seeds", Annotated[int, arg(help="so many runs, told as mean and deviation")], field(default=1)),
            (
                "against",
                Annotated[str | None, arg(help="another run or model: is this one better on dev?")],
                field(default=None),
            ),
            (
                "resume",
                Annotated[bool, arg(help="go on with a run that was stopped")],
                field(default=False, compare=False),
            ),
            ("settings", Annotated[Finetune, FLAT], field(default_factory=Finetune)),
            (task, Annotated[own, FLAT] if parts else own, field(default_factory=own)),
            ("common", Annotated[Common, FLAT], field(default_factory=Common)),
        ],
        frozen=True,
        namespace={"__doc__": f"Fine-tune a model for {task}.", "__module__": __name__},
    )


def run_finetune(wanted: Any, *, train: Data | None = None, dev: Data | None = None) -> Run:
    """Fine-tune as `wanted` (of `finetune_settings`) says, with one seed or several.

    `train` and `dev` are records from Python, where there are no files.

    Raises:
        BothwaysError: a mistake in the settings, records or model, found before anything is written or trained.
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    if wanted.seeds < 1:
        raise ConfigError(f"seeds is {wanted.seeds}; it must be at least 1")
    device = pick_device(wanted.common.device)
    settle_threads()
    with joined(device) as ranks, stopped_at_once():
        RunFolder(wanted.out, ranks, resume=wanted.resume, quiet=True).check(wanted)
        train_records = _records(wanted, "train", train)
        if not train_records:
            raise DataError("there is no record to train on")
        dev_records = _records(wanted, "dev", dev)
        if dev_records == []:
            raise DataError("dev holds no record; leave it out to train without")
        if wanted.settings.patience is not None and dev_records is None:
            raise ConfigError(
                "--patience waits for a better dev score, and there are no dev records; give --dev, "
                "or leave --patience out"
            )
        if wanted.against is not None:
            if dev_records is None:
                raise ConfigError("--against compares on the dev records, and there are none; give --dev")
            check_comparable(wanted.against, wanted.task)
        task = task_class(wanted.task).learn(train_records, getattr(wanted, wanted.task))
        once = partial(
            finetune_run,
            task=task,
            train_records=train_records,
            dev_records=dev_records,
            teachers=Teachers(task, device.type),
            ranks=ranks,
            device=device,
        )
        run = once(wanted) if wanted.seeds == 1 else finetune_seeds(wanted, once, task.criterion, ranks)
        if wanted.against is None or dev_records is None or not ranks.first:
            return run
        found = compare(run.folder, wanted.against, dev_records, device=device.type, seed=wanted.common.seed)
        return replace(run, scores=run.scores | {"against": found})


def _records(wanted: Any, which: Literal["train", "dev"], given: Data | None) -> list[Record] | None:
    """The records to train on or to score: those given, else those of the file, else (multi) of its tasks' files."""
    data = given if given is not None else getattr(wanted, which)
    if wanted.task == MultiTask.name:
        own = [name for name, part in wanted.multi.tasks.items() if getattr(part, which) is not None]
        if data is not None and own:
            raise ConfigError(f"{which} is given for all tasks, and tasks.{own[0]}.{which} too; give one of the two")
        if data is None and which == "train" and wanted.columns:
            raise ConfigError("columns are told, but no train of all tasks; say tasks.NAME.columns instead")
    if data is not None:
        return list(read_records(data, columns=wanted.columns))
    if wanted.task != MultiTask.name:
        return None
    wanted.multi.check()
    files = {name: (getattr(part, which), part.columns) for name, part in wanted.multi.tasks.items()}
    missing = [name for name, (file, _) in files.items() if file is None]
    if missing and which == "train":
        raise ConfigError(f"tasks.{missing[0]}.train is missing; wanted a path")
    if len(missing) == len(files):
        return None
    parts = (of_part(read_records(file, columns=columns), name) for name, (file, columns) in files.items() if file)
    return list(chain.from_iterable(parts))


def finetune(task: str, *, out: str | Path, train: Data | None = None, dev: Data | None = None, **settings: Any) -> Run:
    """Fine-tune a model; the Python way of `bothways finetune`.

    Settings are those of the command line, sections as dicts: `optim={"lr": 2e-5}`. The tasks of multi are given as
    `tasks={"people": {"task": "tag", "train": path}, …}`, or with all their records in `train`, each with its "task".

    Raises:
        BothwaysError: as the command line would say it.
    """
    files = {name: str(data) for name, data in (("train", train), ("dev", dev)) if isinstance(data, str | Path)}
    given = {"task": task, "out": out, **({} if train is None else {"train": "<records>"}), **files, **settings}
    wanted = config.from_dict(finetune_settings(task), _plain(given))
    return run_finetune(
        wanted,
        train=None if "train" in files else train,
        dev=None if "dev" in files else dev,
    )


def run_pretrain(wanted: PretrainRun) -> Run:
    """Pre-train as `wanted` says.

    Raises:
        BothwaysError: a mistake in the settings, text or model, found before anything is trained.
        Stopped: Ctrl-C or SIGTERM; what was reached can be resumed.
    """
    device = pick_device(wanted.common.device)
    settle_threads()
    with joined(device) as ranks, stopped_at_once():
        return pretrain_run(wanted, ranks=ranks, device=device)


def pretrain(
    *,
    text: str | Path | Sequence[str | Path],
    out: str | Path,
    dev: str | Path | Sequence[str | Path] = (),
    **settings: Any,
) -> Run:
    """Pre-train a model; the Python way of `bothways pretrain`. `text` and `dev`: files or folders, one or several."""
    several = {
        name: [data] if isinstance(data, str | Path) else list(data) for name, data in (("text", text), ("dev", dev))
    }
    return run_pretrain(config.from_dict(PretrainRun, _plain({**several, "out": out, **settings})))


def _plain(value: Any) -> Any:
    """The same settings with paths as strings, as a TOML file would have them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
