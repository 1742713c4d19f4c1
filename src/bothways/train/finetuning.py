"""Fine-tuning: labelled records and a model to start from → a run folder with a scored model."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bothways.data.finetuning import ExampleSource
from bothways.data.loader import StepSize, count_steps, prefetched, steps
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.errors import Stopped
from bothways.infer.devices import pick_device, pick_precision
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, save, seed_everything, start_from
from bothways.models.weights import read_tensors
from bothways.tasks.base import Coverage, Encoded, Task
from bothways.train.checkpoint import save_weights
from bothways.train.folder import Run, RunFolder, card, hardware
from bothways.train.loop import Progress, Report, stop_signals, train
from bothways.train.optimizer import make_optimizer
from bothways.train.ranks import Ranks, joined
from bothways.train.settings import Finetune

Data = str | Path | Sequence[Mapping[str, Any]]


@dataclass
class _Best:
    """The best epoch so far, by the dev score."""

    score: float = -math.inf
    epoch: int = -1
    since: int = 0  # epochs without a better one


def finetune_run(
    task: Task,
    train_records: Sequence[Record],
    dev_records: Sequence[Record] | None,
    out: str | Path,
    settings: Finetune,
    recorded: Any,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """One run with one seed; `recorded` is what `config.toml` keeps and a resume compares.

    Raises:
        BothwaysError: a mistake in the records, settings or model; nothing has been trained then.
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    where = pick_device(device)
    with joined(where) as ranks, stop_signals() as asked_to_stop:
        seed_everything(seed)
        model = start_from(settings.model, task)
        limit = model.config.max_position_embeddings
        max_length = min(settings.batching.max_length or limit, limit)
        encoded = task.encode(train_records, model.tokenizer, max_length=max_length, labelled=True)
        held_out = None
        if dev_records is not None:
            held_out = task.encode(dev_records, model.tokenizer, max_length=max_length, labelled=True)

        folder = RunFolder(out, ranks, resume=resume, quiet=quiet)
        folder.open(recorded)
        _prepare(model, settings)
        model.network.to(where)
        optimizer = make_optimizer(model.network, settings.optim)
        source = ExampleSource([example for one in encoded for example in one.examples], seed=seed)
        size = StepSize(examples=settings.batch, micro_tokens=settings.batching.micro_tokens)
        total = settings.epochs * count_steps(source, size)
        progress = Progress()
        state = folder.restore(model.network, optimizer, progress)
        best = _Best(**state["best"]) if state else _Best()
        if state is None:
            folder.log.write({"data": _told(encoded, train_records), "model": model.told, "hardware": hardware()})
            for line in [*model.told, _coverage_line(encoded)]:
                folder.log.tell(line)
        dev = _Dev(model, device, dev_records, held_out, max_length)
        begun = time.monotonic()

        def after_step(report: Report) -> bool:
            entry: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch}
            loss = sum(float(value) for value in report.losses.values())
            entry |= {"loss": loss, "norm": float(report.norm), "lr": report.rate, "tokens": report.tokens}
            finished = False
            if report.epoch_ended:
                scores = dev.score() if ranks.first else None
                if scores is not None:
                    entry["dev"] = scores
                    _keep_best(best, scores[task.criterion], progress.epoch, folder, model)
                    folder.log.tell(f"epoch {progress.epoch + 1}: dev {_brief(scores)}")
                finished = _agree(ranks, where, settings.patience is not None and best.since >= settings.patience)
            folder.log.write(entry)
            folder.log.step(step=progress.step, steps=total, loss=loss, tokens=report.tokens)
            if report.epoch_ended or report.asked_to_stop:
                folder.checkpoint(model.network, optimizer, progress, {"best": asdict(best)})
            if report.asked_to_stop and progress.step < total and not finished:
                folder.log.close()
                raise Stopped(f"stopped after step {progress.step} of {total}; go on with --resume")
            return finished

        place = {"epoch": progress.epoch, "consumed": progress.consumed, "rank": ranks.rank, "ranks": ranks.count}
        if not (settings.patience is not None and best.since >= settings.patience):
            with closing(prefetched(steps(source, size, **place))) as batches:
                train(
                    model.network,
                    task,
                    batches,
                    optimizer,
                    settings.optim,
                    steps=total,
                    progress=progress,
                    device=where,
                    precision=pick_precision(settings.precision, where),
                    ranks=ranks,
                    after_step=after_step,
                    asked_to_stop=asked_to_stop,
                )
        return _finish(folder, model, best, dev, recorded, seed, time.monotonic() - begun)


def _finish(
    folder: RunFolder, model: Model, best: _Best, dev: _Dev, recorded: Any, seed: int, seconds: float
) -> Run:
    """The best epoch's weights, scored once more and saved."""
    scores: dict[str, Any] = {}
    if folder.ranks.first:
        if best.epoch >= 0:
            model.network.load_state_dict(read_tensors(folder.checkpoints / "best.safetensors"))
        scores = dev.score() or {}
        if not (folder.path / "model" / "config.json").is_file():
            sections = {"Scores on dev": scores, "Settings": asdict(recorded), "Seed": seed}
            sections |= {"Hardware": hardware(), "Seconds": round(seconds, 1), "Data": _hashes(recorded)}
            assert model.task is not None
            save(model, folder.path / "model", card=card(f"{model.task.name}, fine-tuned", sections))
    return folder.finish(scores)


def _prepare(model: Model, settings: Finetune) -> None:
    """What is trained, and with which dropout of attention weights."""
    model.network.encoder.requires_grad_(not settings.frozen)
    if settings.optim.attention_dropout is not None:
        model.network.encoder.set_attention_dropout(settings.optim.attention_dropout)


class _Dev:
    """Scores the network on the dev records, encoded once."""

    def __init__(
        self, model: Model, device: str, records: Sequence[Record] | None, encoded: list[Encoded] | None, length: int
    ) -> None:
        self.records, self.encoded = records, encoded
        self.predictor = Predictor(model, device=device, max_length=length)

    def score(self) -> dict[str, Any] | None:
        """The task's metrics, without the tables; None without dev records."""
        if self.records is None:
            return None
        scores = self.predictor.score(self.records, self.encoded)
        self.predictor.model.network.train()
        return {key: value for key, value in scores.items() if isinstance(value, int | float) and key != "seconds"}


def _keep_best(best: _Best, score: float, epoch: int, folder: RunFolder, model: Model) -> None:
    if score > best.score:
        best.score, best.epoch, best.since = score, epoch, 0
        folder.checkpoints.mkdir(exist_ok=True)
        save_weights(folder.checkpoints / "best.safetensors", model.network)
    else:
        best.since += 1


def _agree(ranks: Ranks, device: torch.device, flag: bool) -> bool:
    """What the first rank decided, on all of them."""
    if ranks.count == 1:
        return flag
    return bool(ranks.sum(torch.tensor(float(flag and ranks.first), device=device)))


def _coverage_line(encoded: Sequence[Encoded]) -> str:
    coverage = sum((one.coverage for one in encoded), Coverage())
    cut = sum(one.coverage.dropped > 0 for one in encoded)
    line = f"{len(encoded)} records, {coverage.kept:,} tokens read"
    if cut:
        line += f"; {cut} records are longer than the model reads: {coverage.dropped:,} tokens dropped"
    return line


def _told(encoded: Sequence[Encoded], records: Sequence[Record]) -> dict[str, Any]:
    coverage = sum((one.coverage for one in encoded), Coverage())
    return {"records": len(records), "tokens": coverage.told()}


def _brief(scores: dict[str, Any]) -> str:
    told = {key: value for key, value in scores.items() if isinstance(value, float)}
    return "  ".join(f"{key} {value:.4f}" for key, value in told.items())


def _hashes(recorded: Any) -> dict[str, str]:
    """SHA-256 of the data files that the settings name."""
    from bothways.data.shard_files import file_hash

    named = (getattr(recorded, name, None) for name in ("train", "dev"))
    return {str(path): file_hash(Path(path)) for path in named if isinstance(path, str | Path) and Path(path).is_file()}


def read_all(data: Data, columns: Mapping[str, str] | None) -> list[Record]:
    """All records of a file or a sequence."""
    return list(read_records(data, columns=columns))


def best_of(runs: Sequence[Run], criterion: str, out: Path) -> Path:
    """Copy the model of the seed with the best dev score to `out`/model."""
    chosen = max(runs, key=lambda run: run.scores.get(criterion, 0.0))
    shutil.copytree(chosen.model, out / "model")
    return out / "model"
