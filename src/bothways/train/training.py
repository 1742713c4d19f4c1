"""What fine-tuning and pre-training share: steps that are logged, examined, checkpointed, stopped and gone on with."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bothways.data.loader import Step, StepSize, prefetched, steps
from bothways.data.record import Record
from bothways.data.source import Source
from bothways.errors import ConfigError, Stopped, TrainingError
from bothways.infer.devices import Precision, pick_precision
from bothways.models.model import Model
from bothways.nn.dropout import set_dropout
from bothways.tasks.base import Task
from bothways.train.folder import RunFolder
from bothways.train.loop import Progress, Report, train
from bothways.train.optimizer import Optim, make_optimizer
from bothways.train.ranks import Ranks
from bothways.train.stopping import stopped_after_a_step

TIMED_STEPS, WARM_UP_STEPS = 8, 2  # before a run of so many minutes
RESERVE = 0.97  # share of the minutes that steps are planned for; the rest is held-out text and checkpoints


@dataclass
class Training:
    """One run under way: what is trained, on what, by which settings, and where it writes.

    data: a hash of what is learnt from, so that a resumed run can tell whether it is still the same
    dev:  the same of what it is examined on; empty where there is none
    """

    folder: RunFolder
    model: Model
    task: Task
    source: Source
    size: StepSize
    optim: Optim
    precision: Precision
    checkpoint_minutes: float
    device: torch.device
    data: str = ""
    dev: str = ""
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        network = self.model.network
        if self.optim.dropout is not None:
            set_dropout(network, self.optim.dropout)
        if self.optim.attention_dropout is not None:
            network.set_attention_dropout(self.optim.attention_dropout)
        network.to(self.device)
        self.optimizer = make_optimizer(network, self.optim)
        self.computing = pick_precision(self.precision, self.device)

    @property
    def ranks(self) -> Ranks:
        """This process's place among all."""
        return self.folder.ranks


@dataclass(frozen=True)
class Look:
    """What an examination after a step found."""

    scores: dict[str, Any] | None = None  # for the log; None: it was not due
    over: bool = False  # the run is
    keep: bool = False  # save a checkpoint


def records_hash(records: Iterable[Record]) -> str:
    """SHA-256 of all fields of the records in their order, in hexadecimal: of what is read and of what is right."""
    hashed = hashlib.sha256()
    for record in records:
        hashed.update(repr(record.fields).encode("utf-8", "backslashreplace") + b"\n")
    return hashed.hexdigest()


def restore(training: Training) -> dict[str, Any] | None:
    """Go on where the folder's newest checkpoint stands: its state, or None at the start of a run.

    Raises:
        ConfigError: the data are not those that the run was begun with.
        TrainingError: all checkpoints are damaged, or they are another model's.
    """
    folder = training.folder
    state = folder.restore(training.model.network, training.optimizer, training.progress)
    if state is None:
        return None
    for name, told, now in (("data", "training", training.data), ("dev", "dev", training.dev)):
        if (state.get(name) or now) != now:  # a checkpoint of an older version says nothing of dev
            raise ConfigError(
                f"--resume: the {told} data have changed since the run in {folder.path} was begun; "
                f"bring them back as they were, or start again with another --out"
            )
    if state["precision"] != training.computing:
        folder.log.tell(f"begun in {state['precision']}, this run goes on in {training.computing}: losses will differ")
    return state


def take_steps(
    training: Training, total: int, *, examine: Callable[[Report], Look], extra: Callable[[], dict[str, Any]]
) -> None:
    """Train until step `total`, or until `examine` says that the run is over.

    A checkpoint is saved every `checkpoint_minutes`, when `examine` says so, at the last step and when asked to
    stop; `extra` gives what else it holds.

    Raises:
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been saved.
        TrainingError: a gradient that is not finite.
    """
    progress, folder = training.progress, training.folder
    saved_at = counted_until = step_began = time.monotonic()

    def after_step(report: Report) -> bool:
        nonlocal step_began
        progress.steps_seconds += time.monotonic() - step_began
        over = look_and_save(report)
        step_began = time.monotonic()
        return over

    def look_and_save(report: Report) -> bool:
        nonlocal saved_at, counted_until
        entry = _entry(progress, report)
        look = examine(report)
        if look.scores is not None:
            entry["dev"] = look.scores
        folder.log.write(entry)
        folder.log.step(step=progress.step, steps=total, loss=entry["loss"], tokens=report.tokens)
        now = time.monotonic()
        progress.seconds += now - counted_until
        counted_until = now
        over = look.over or progress.step == total
        due = now - saved_at >= 60 * training.checkpoint_minutes
        if due or over or look.keep or report.asked_to_stop:
            save(training, extra())
            saved_at = time.monotonic()
        if report.asked_to_stop and not over:
            training.ranks.wait()  # a rank that left would have the others killed before the checkpoint is there
            raise Stopped(f"stopped after step {progress.step} of {total}; go on with --resume")
        return over

    folder.log.begin_steps()
    with stopped_after_a_step(training.ranks.count) as asked_to_stop:
        _train(training, total, progress, after_step, asked_to_stop)


def check_weights(training: Training) -> None:
    """Look once at all weights that are to be saved: what the last step spoilt, no gradient of another would show.

    Raises:
        TrainingError: one is not finite.
    """
    for name, weight in training.model.network.named_parameters():
        if not weight.isfinite().all():
            raise TrainingError(
                f"step {training.progress.step}: {name} is no longer finite, and no model has been saved; "
                f"try a lower --optim.lr (it is {training.optim.peak:g}) or --precision float32"
            )


def save(training: Training, extra: dict[str, Any]) -> None:
    """A checkpoint of where the run stands, on the first rank."""
    state = {"data": training.data, "dev": training.dev, "precision": training.computing, **extra}
    training.folder.checkpoint(training.model.network, training.optimizer, training.progress, state)


def steps_in(minutes: float, training: Training) -> int:
    """How many steps fit into so many minutes here, on all ranks alike: a few are timed, then undone."""
    network = training.model.network
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    times: list[float] = []
    with stopped_after_a_step(training.ranks.count) as asked_to_stop:

        def after_step(report: Report) -> None:
            if report.asked_to_stop:
                raise Stopped("stopped before the first step; go on with --resume")
            times.append(time.monotonic())

        _train(training, WARM_UP_STEPS + TIMED_STEPS, Progress(), after_step, asked_to_stop)
    network.load_state_dict(weights)
    training.optimizer.state.clear()
    seconds = (times[-1] - times[WARM_UP_STEPS - 1]) / TIMED_STEPS
    planned = torch.tensor(60 * minutes * RESERVE / seconds, device=training.device)
    return max(1, int(training.ranks.sum(planned) / training.ranks.count))


@contextmanager
def telling(folder: RunFolder) -> Iterator[None]:
    """Whatever ends the run, the live line and the log are closed; Ctrl-C is told as a stop."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped at once; go on with --resume") from None
    finally:
        folder.log.close()


def _train(
    training: Training,
    total: int,
    progress: Progress,
    after_step: Callable[[Report], bool | None],
    asked_to_stop: Callable[[], bool],
) -> None:
    ranks = training.ranks
    with closing(_steps(training, progress)) as batches:
        train(
            training.model.network,
            training.task,
            batches,
            training.optimizer,
            training.optim,
            steps=total,
            progress=progress,
            device=training.device,
            precision=training.computing,
            ranks=ranks,
            after_step=after_step,
            asked_to_stop=asked_to_stop,
        )


def _steps(training: Training, progress: Progress) -> Generator[Step, None, None]:
    """The steps that follow, made ahead by a thread."""
    ranks = training.ranks
    place = {"epoch": progress.epoch, "consumed": progress.consumed, "rank": ranks.rank, "ranks": ranks.count}
    return prefetched(steps(training.source, training.size, **place), pinned=training.device.type == "cuda")


def _entry(progress: Progress, report: Report) -> dict[str, Any]:
    """The step's line in the log."""
    heads = {f"{head}_loss": loss for head, loss in report.losses.items()}
    return {
        "step": progress.step,
        "epoch": progress.epoch,
        "loss": sum(report.losses.values()),
        **heads,
        "norm": report.norm,
        "lr": report.rate,
        "tokens": report.tokens,
    }
