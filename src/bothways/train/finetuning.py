"""Fine-tuning: labelled records and a model to start from → a run folder with a scored model."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bothways.batch import Example
from bothways.data.finetuning import ExampleSource
from bothways.data.loader import StepSize, count_steps
from bothways.data.record import Record
from bothways.data.repeats import first_places, kept_hashes, repeated, text_hashes
from bothways.errors import ConfigError, DataError
from bothways.infer.devices import pick_answer_precision
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, save, seed_everything, start_from
from bothways.models.reading import Advice, saved_texts
from bothways.models.weights import read_tensors
from bothways.tasks.base import Coverage, Encoded, Task
from bothways.train.card import card, hardware, hashes
from bothways.train.checkpoint import save_weights
from bothways.train.folder import BEST, Run, RunFolder
from bothways.train.frozen import MOST_BYTES, bytes_of_vectors, freeze, with_vectors
from bothways.train.loop import Report
from bothways.train.optimizer import PLAIN_LR, Optim
from bothways.train.ranks import Ranks
from bothways.train.settings import Finetune
from bothways.train.teaching import Teachers
from bothways.train.training import Look, Training, check_weights, records_hash, restore, steps_in, take_steps, telling
from bothways.train.training import save as save_checkpoint


def finetune_run(
    wanted: Any,
    task: Task,
    train_records: Sequence[Record],
    dev_records: Sequence[Record] | None,
    *,
    teachers: Teachers,
    ranks: Ranks,
    device: torch.device,
) -> Run:
    """One run with one seed, as `wanted` (of `finetune_settings`) says; a finished one that is resumed stays as it is.

    Raises:
        BothwaysError: a mistake in the records, settings or model; nothing has been written then.
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    settings: Finetune = wanted.settings
    folder = RunFolder(wanted.out, ranks, resume=wanted.resume, quiet=wanted.common.quiet)
    folder.check(wanted)
    if run := folder.finished():
        return run
    seed_everything(wanted.common.seed)
    begun = folder.begun(wanted) if folder.resume else None
    own = getattr(begun, wanted.task) if begun is not None else None
    model = start_from(settings.model, task, features=settings.features, begun=own)
    assert model.task is not None
    task = model.task  # as it goes on from the model before
    if begun is None:
        _check_own_length(wanted, model)
    trained_on = first_places(train_records)
    dev_data = "" if dev_records is None else records_hash(dev_records)  # before a teacher adds vectors
    before = saved_texts(model.folder) if model.folder is not None else None
    model.trained_on = kept_hashes({*trained_on, *(before.tolist() if before is not None else ())})
    optim = begun.settings.optim if begun is not None else _advised(settings, model)
    # Written down as it is, so that config.toml does the same again whatever a later model advises.
    wanted = replace(
        wanted,
        settings=replace(settings, optim=optim),
        **{wanted.task: task.settled(getattr(wanted, wanted.task))},
    )
    if settings.frozen:
        optim = freeze(model, optim)
    max_length = _max_length(settings, model, resumed=folder.resume)
    train_records = teachers.taught(train_records, folder.log.tell)
    dev_records = None if dev_records is None else teachers.taught(dev_records, folder.log.tell)
    model.told += teachers.told
    encoded = task.encode(train_records, model.tokenizer, max_length=max_length, labelled=True)
    if not (examples := _examples(encoded)):
        why = "; ".join(f"{count:,}: {note}" for note, count in _notes(encoded).most_common(3))
        why = why and f" ({why})"
        raise DataError(f"none of the {len(encoded):,} training records has anything to learn from{why}")
    source = ExampleSource(examples, seed=wanted.common.seed)
    dev = None
    if dev_records is not None:
        dev_encoded = task.encode(dev_records, model.tokenizer, max_length=max_length, labelled=True)
        dev = Dev(model, device, dev_records, dev_encoded, max_length)

    training = Training(
        folder=folder,
        model=model,
        task=task,
        source=source,
        size=StepSize(examples=settings.batch, micro_tokens=settings.batching.micro_tokens),
        optim=optim,
        precision=settings.precision,
        checkpoint_minutes=settings.checkpoint_minutes,
        device=device,
        data=source.hash(),
        dev=dev_data,
    )
    folder.make(wanted)
    with telling(folder):
        state = restore(training)
        if state is None:
            _tell_beginning(training, encoded, dev, trained_on)
        best = Best(**state["best"]) if state and "best" in state else Best()
        over = best.has_waited(settings.patience)
        if settings.frozen and not over and (settings.minutes is not None or settings.epochs > 1):
            since = time.monotonic()
            _keep_vectors(training, encoded, dev)
            training.progress.seconds += time.monotonic() - since
        total = state["steps"] if state and "steps" in state else _total_steps(training, settings)

        def examine(report: Report) -> Look:
            if not report.epoch_ended and training.progress.step < total:
                return Look()
            scores = None
            if dev is not None and ranks.first:
                scores = dev.scores()
                folder.log.tell(f"epoch {training.progress.epoch + 1}: dev {_brief(scores)}")
                _keep_best(best, scores[task.criterion], training)
            return Look(scores, over=ranks.agree(best.has_waited(settings.patience), device), keep=True)

        if not over:
            take_steps(training, total, examine=examine, extra=lambda: {"best": asdict(best), "steps": total})
        return _finish(training, best, dev, wanted)


def _advised(settings: Finetune, model: Model) -> Optim:
    """The optimizer as it was asked for; where nothing was said, as the model advises, or else the plain one.

    A model's advice is about learning all of it: a frozen one's is not followed.
    """
    if model.advice is None or settings.frozen:
        return settings.optim.advised(Advice("adamw", PLAIN_LR))
    advice = model.advice if model.network.decoder is None else model.advice.for_writing
    given, optim = settings.optim, settings.optim.advised(advice)
    followed = [optim.method] if given.method == "auto" else []
    followed += [f"a rate of {optim.peak:g}"] if given.lr is None else []
    if followed:
        model.told.append(f"{' at '.join(followed)}, as the model that it begins from advises")
    return optim


def _keep_vectors(training: Training, encoded: Sequence[Encoded], dev: Dev | None) -> None:
    """Compute what a frozen encoder gives once for all epochs, if that can be kept; the steps stay what they are."""
    network, device, log = training.model.network, training.device, training.folder.log
    size = bytes_of_vectors(network, [*_examples(encoded), *(_examples(dev.encoded) if dev is not None else [])])
    if size is None:
        return
    if size > MOST_BYTES:
        log.tell(f"the encoder's vectors would take {size / 1e9:.1f} GB: they are computed anew in each epoch")
        return
    log.tell(f"the encoder's vectors are computed once and kept: {size / 1e6:.1f} MB")
    kept = with_vectors(network, encoded, device=device, precision=training.computing)
    assert isinstance(training.source, ExampleSource)
    training.source = ExampleSource(_examples(kept), seed=training.source.seed)
    if dev is not None and training.ranks.first:
        dev.kept = with_vectors(network, dev.encoded, device=device, precision=dev.predictor.engine.precision)


def _total_steps(training: Training, settings: Finetune) -> int:
    """The number of steps, fixed once: of so many epochs, or timed on a few steps that are then undone."""
    if settings.minutes is None:
        return settings.epochs * count_steps(training.source, training.size)
    spent = training.progress.seconds / 60  # on a frozen encoder's vectors
    total = steps_in(max(0.0, settings.minutes - spent), training)
    training.folder.log.tell(f"{settings.minutes:g} minutes are {total:,} steps here")
    save_checkpoint(training, {"steps": total})  # another machine, or another hour, would give another number
    return total


@dataclass
class Best:
    """The best epoch so far, by the dev score."""

    score: float = -math.inf
    epoch: int = -1
    since: int = 0  # epochs without a better one

    def has_waited(self, patience: int | None) -> bool:
        """Whether it is time to stop."""
        return patience is not None and self.since >= patience


class Dev:
    """Scores the network on the dev records, encoded once."""

    def __init__(
        self, model: Model, device: torch.device, records: Sequence[Record], encoded: list[Encoded], max_length: int
    ) -> None:
        self.records, self.encoded = records, encoded
        self.kept: list[Encoded] | None = None  # the same with a frozen encoder's vectors, in float32
        self.predictor = Predictor(model, device=device.type, max_length=max_length)

    def scores(self) -> dict[str, Any]:
        """The task's metrics, without its tables."""
        scores = self.predictor.score(self.records, self.kept or self.encoded, tune=True)
        self.predictor.model.network.train()
        return {key: value for key, value in scores.items() if isinstance(value, int | float) and key != "seconds"}

    def points_lost(self, task: Task, plain: float) -> dict[str, float]:
        """By how many points the network falls below `plain`, its score in float32, in what auto answers in here.

        Empty where that is float32 itself, or where the score has no points. One that is not a number lost everything.
        """
        used = self.predictor
        chosen = pick_answer_precision("auto", used.engine.device)
        if chosen == "float32" or task.points is None:
            return {}
        other = Predictor(used.model, device=used.engine.device.type, precision=chosen, max_length=used.max_length)
        score = other.score(self.records, self.encoded)[task.criterion]
        lost = (plain - score) * task.points
        return {chosen: round(lost, 4) if math.isfinite(lost) else 100.0}


def _keep_best(best: Best, score: float, training: Training) -> None:
    """Note the epoch's score, and keep the weights of the best one; a score that is not a number is the lowest."""
    score = -math.inf if math.isnan(score) else score
    if score > best.score or best.epoch < 0:
        best.score, best.epoch, best.since = score, training.progress.epoch, 0
        save_weights(training.folder.checkpoints / BEST, training.model.network)
    else:
        best.since += 1


def _tell_beginning(
    training: Training, encoded: Sequence[Encoded], dev: Dev | None, trained_on: Mapping[int, Record]
) -> None:
    """What the run starts from, in the log and for the user; `trained_on` is from `first_places`."""
    log, told = training.folder.log, training.model.told
    data: dict[str, Any] = {"records": len(encoded), "tokens": _read_of(encoded).told()}
    notes = _notes(encoded)
    if notes:
        data["notes"] = dict(notes)
    lines = [*told, _coverage(encoded), *(f"{count:,} records: {note}" for note, count in notes.most_common())]
    if dev is not None:
        data["dev"] = {"records": len(dev.encoded), "tokens": _read_of(dev.encoded).told()}
        notes = _notes(dev.encoded)
        lines.append(f"dev: {_coverage(dev.encoded)}")
        lines += [f"dev: {count:,} records: {note}" for note, count in notes.most_common()]
    if dev is not None and (again := repeated(dev.records, trained_on)):
        data["dev_in_train"] = len(again)
        original = next(trained_on[text] for text in text_hashes(again[0]) if text in trained_on)
        lines.append(
            f"warning: {len(again):,} of {len(dev.records):,} dev records also stand in train (first: {again[0].where} "
            f"is {original.where}); their scores say nothing about unseen text"
        )
    log.write({"data": data, "model": told, "hardware": hardware()})
    for line in lines:
        log.tell(line)


def _finish(training: Training, best: Best, dev: Dev | None, wanted: Any) -> Run:
    """The best epoch's weights, scored once more and saved."""
    folder, model = training.folder, training.model
    scores: dict[str, Any] = {}
    if training.ranks.first:
        if best.epoch >= 0:
            model.network.load_state_dict(read_tensors(folder.checkpoints / BEST))
        check_weights(training)
        if dev is not None:
            scores = dev.scores()
        if not (folder.model / "config.json").is_file():
            sections = {"Scores on dev": scores, "Settings": asdict(wanted), "Seed": wanted.common.seed}
            sections |= {"Hardware": hardware(), "Seconds": round(training.progress.seconds, 1)}
            sections["Data"] = hashes(_files(wanted))
            if dev is not None:
                criterion = training.task.criterion
                model.points_lost = lost = dev.points_lost(training.task, scores[criterion])
                sections |= {f"Points of {criterion} lost on dev, against float32": lost} if lost else {}
            save(model, folder.model, card=card(f"{training.task.name}, fine-tuned", sections))
    return folder.finish(scores, training.task.criterion, progress=training.progress)


def _files(wanted: Any) -> list[Path | None]:
    """The files of records."""
    parts = [wanted, *(wanted.multi.tasks.values() if wanted.task == "multi" else ())]
    return [file for part in parts for file in (part.train, part.dev)]


def _check_own_length(wanted: Any, model: Model) -> None:
    """A task's own length of a text, where it was asked for, is one that the model reads."""
    limit, asked = model.config.max_position_embeddings, getattr(getattr(wanted, wanted.task), "max_length", None)
    if asked is not None and asked > limit:
        raise ConfigError(f"{wanted.task}.max_length is {asked}, and the model reads {limit} at most; ask for no more")


def _max_length(settings: Finetune, model: Model, *, resumed: bool) -> int:
    limit, asked = model.config.max_position_embeddings, settings.batching.max_length
    if asked is not None and asked > limit and not resumed:  # an earlier Bothways read as much as it could
        raise ConfigError(f"batching.max_length is {asked}, and the model reads {limit} at most; ask for no more")
    longest = model.task.longest if model.task is not None else None
    if asked is not None and longest is not None and asked > longest and not resumed:
        name = model.task.name if model.task is not None else ""
        raise ConfigError(
            f"batching.max_length is {asked}, and {name} reads {longest} tokens of a text, as it was told or as the "
            f"model that it begins from does; say --{name}.max-length {asked} too"
        )
    return min(asked or limit, limit)


def _examples(encoded: Sequence[Encoded]) -> list[Example]:
    return [example for one in encoded for example in one.examples]


def _notes(encoded: Sequence[Encoded]) -> Counter[str]:
    return Counter(note for one in encoded for note in one.notes)


def _brief(scores: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value:.4f}" for key, value in scores.items() if isinstance(value, float))


def _coverage(encoded: Sequence[Encoded]) -> str:
    """How many tokens are read, read again, and not read, in words; what did not happen is left out."""
    coverage = _read_of(encoded)
    line = f"{len(encoded):,} records, {coverage.kept:,} tokens read"
    if coverage.strided:
        line += f"; {_count_of(encoded, 'strided'):,} records are read in windows: {coverage.strided:,} tokens strided"
    if coverage.dropped:
        cut = _count_of(encoded, "dropped")
        line += f"; {cut:,} records are longer than the model reads: {coverage.dropped:,} tokens dropped"
    return line


def _read_of(encoded: Sequence[Encoded]) -> Coverage:
    return sum((one.coverage for one in encoded), Coverage())


def _count_of(encoded: Sequence[Encoded], what: str) -> int:
    return sum(getattr(one.coverage, what) > 0 for one in encoded)
