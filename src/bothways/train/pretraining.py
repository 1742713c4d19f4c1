"""Pre-training: raw text → vocabulary → shards → steps → a run folder with a model that fills masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bothways.batch import pack
from bothways.data.vocabulary import learn_tokenizer
from bothways.data.loader import Step, StepSize, count_steps, micro_batches, prefetched, steps
from bothways.data.pretraining import PretrainingSource
from bothways.data.shard_files import file_hash
from bothways.data.shards import Shards, build_shards
from bothways.errors import ConfigError, Stopped
from bothways.infer.devices import pick_device, pick_precision
from bothways.infer.engine import Engine
from bothways.models.hub import locate
from bothways.models.model import Model, fresh, save, seed_everything, start_from
from bothways.models.sizes import SIZES, sized
from bothways.nn.network import Network
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer
from bothways.train.folder import Run, RunFolder, card, hardware
from bothways.train.loop import Progress, Report, stop_signals, train
from bothways.train.optimizer import make_optimizer
from bothways.train.ranks import Ranks, joined
from bothways.train.settings import Pretrain

CALIBRATION_STEPS = 8  # timed before a run of so many minutes; two more warm up
DEFAULT_MINUTES = 10.0
RESERVE = 0.97  # share of the minutes that steps are planned for; the rest is held-out text and checkpoints


def pretrain_run(
    text: Sequence[str | Path],
    dev: Sequence[str | Path],
    out: str | Path,
    settings: Pretrain,
    recorded: Any,
    *,
    columns: dict[str, str] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Pre-train on `text`, look at `dev` now and then, and save the model.

    Raises:
        BothwaysError: a mistake in the text, settings or model; nothing has been trained then.
        Stopped: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    where = pick_device(device)
    with joined(where) as ranks, stop_signals() as asked_to_stop:
        folder = RunFolder(out, ranks, resume=resume, quiet=quiet)
        folder.open(recorded)
        tokenizer = _tokenizer(text, settings, folder, columns)
        shards = _shards(text, tokenizer, folder, "shards", settings, columns)
        held_out = _shards(dev, tokenizer, folder, "shards-dev", settings, columns) if dev else None

        seed_everything(seed)
        task = PretrainTask(settings.corpus.second)
        model = _model(settings, tokenizer, task)
        model.network.to(where)
        optimizer = make_optimizer(model.network, settings.optim)
        source = _source(shards, model, settings, seed)
        size = StepSize(tokens=settings.step_tokens, micro_tokens=settings.batching.micro_tokens)
        progress = Progress()
        state = folder.restore(model.network, optimizer, progress)
        precision = pick_precision(settings.precision, where)

        def stepping(total: int, progress: Progress, after_step: Callable[[Report], bool | None]) -> None:
            place = {"epoch": progress.epoch, "consumed": progress.consumed, "rank": ranks.rank, "ranks": ranks.count}
            with closing(prefetched(steps(source, size, **place))) as batches:
                _train(model, task, batches, optimizer, settings, total, progress, where, precision, ranks, after_step, asked_to_stop)

        total = state["steps"] if state else _total_steps(settings, source, size, model.network, stepping, optimizer, ranks, where)
        examiner = _HeldOut(held_out, model, task, settings, where) if held_out is not None else None
        every = settings.evaluate_every or max(1, math.ceil(total / 10))
        if state is None:
            folder.log.write({"steps": total, "tokens": shards.counts.tokens, "parameters": model.parameters, "model": model.told, "hardware": hardware()})
            for line in [*model.told, f"{shards.counts.tokens:,} tokens of text, {model.parameters:,} parameters, {total:,} steps"]:
                folder.log.tell(line)
        extra = {"steps": total}
        begun = saved_at = time.monotonic()

        def after_step(report: Report) -> None:
            nonlocal saved_at
            losses = {f"{head}_loss": float(value) for head, value in report.losses.items()}
            loss = sum(losses.values())
            entry: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch, "loss": loss, **losses}
            entry |= {"norm": float(report.norm), "lr": report.rate, "tokens": report.tokens}
            if examiner is not None and ranks.first and (progress.step % every == 0 or progress.step == total):
                entry["dev"] = examiner.scores()
                told = "  ".join(f"{key} {value:.4f}" for key, value in entry["dev"].items())
                folder.log.tell(f"step {progress.step}: held-out {told}")
            folder.log.write(entry)
            folder.log.step(step=progress.step, steps=total, loss=loss, tokens=report.tokens)
            due = time.monotonic() - saved_at >= 60 * settings.checkpoint_minutes and ranks.count == 1
            if due or report.asked_to_stop or progress.step == total:
                folder.checkpoint(model.network, optimizer, progress, extra)
                saved_at = time.monotonic()
            if report.asked_to_stop and progress.step < total:
                folder.log.close()
                raise Stopped(f"stopped after step {progress.step} of {total}; go on with --resume")

        stepping(total, progress, after_step)
        scores = examiner.scores() if examiner is not None and ranks.first else {}
        scores |= {"steps": progress.step, "tokens": progress.tokens, "seconds": round(time.monotonic() - begun, 1)}
        if ranks.first and not (folder.path / "model" / "config.json").is_file():
            sections = {"Scores on held-out text": scores, "Settings": asdict(recorded), "Seed": seed, "Hardware": hardware()}
            sections["Data"] = _sources(shards)
            save(model, folder.path / "model", card=card("A BERT pre-trained from raw text", sections))
        return folder.finish(scores)


def _train(
    model: Model,
    task: PretrainTask,
    batches: Iterator[Step],
    optimizer: torch.optim.Optimizer,
    settings: Pretrain,
    total: int,
    progress: Progress,
    where: torch.device,
    precision: str,
    ranks: Ranks,
    after_step: Callable[[Report], bool | None],
    asked_to_stop: Callable[[], bool],
) -> None:
    if settings.optim.attention_dropout is not None:
        model.network.encoder.set_attention_dropout(settings.optim.attention_dropout)
    train(
        model.network,
        task,
        batches,
        optimizer,
        settings.optim,
        steps=total,
        progress=progress,
        device=where,
        precision=precision,
        ranks=ranks,
        after_step=after_step,
        asked_to_stop=asked_to_stop,
    )


def _tokenizer(
    text: Sequence[str | Path], settings: Pretrain, folder: RunFolder, columns: dict[str, str] | None
) -> Tokenizer:
    """The vocabulary given, that of the model to go on from, or one learnt from the text."""
    if settings.vocab is not None:
        return Tokenizer.from_folder(settings.vocab)
    if settings.model not in SIZES:
        return Tokenizer.from_folder(locate(settings.model))
    learnt = folder.path / "vocab"
    if not (learnt / "tokenizer.json").is_file():
        if folder.ranks.first:
            folder.log.tell(f"learning a vocabulary of {settings.vocab_size:,} pieces")
            learn_tokenizer(text, settings.vocab_size, lowercase=settings.lowercase, columns=columns).save(learnt)
        folder.ranks.wait()
    return Tokenizer.from_folder(learnt)


def _shards(
    text: Sequence[str | Path],
    tokenizer: Tokenizer,
    folder: RunFolder,
    name: str,
    settings: Pretrain,
    columns: dict[str, str] | None,
) -> Shards:
    """The text tokenised; what an earlier try of this run finished is used as it is."""

    def build() -> Shards:
        return build_shards(
            text,
            tokenizer,
            folder.path / name,
            columns=columns,
            chinese_words=settings.corpus.chinese_words,
            workers=settings.corpus.workers,
        )

    shards = build() if folder.ranks.first else None
    folder.ranks.wait()
    return shards or build()


def _model(settings: Pretrain, tokenizer: Tokenizer, task: PretrainTask) -> Model:
    if settings.model in SIZES:
        config = sized(settings.model, tokenizer.size)
        config = replace(config, max_position_embeddings=max(512, settings.corpus.max_length))
        return fresh(config, tokenizer, task, pooler=settings.corpus.second is not None)
    model = start_from(settings.model, task)
    if model.tokenizer.vocabulary != tokenizer.vocabulary:
        raise ConfigError(
            f"--vocab {settings.vocab} is not the vocabulary of {settings.model}; leave --vocab out to go on with its own"
        )
    if settings.corpus.max_length > model.config.max_position_embeddings:
        raise ConfigError(
            f"corpus.max_length is {settings.corpus.max_length}, but {settings.model} reads "
            f"{model.config.max_position_embeddings} tokens at most"
        )
    return model


def _source(shards: Shards, model: Model, settings: Pretrain, seed: int) -> PretrainingSource:
    corpus = settings.corpus
    return PretrainingSource(
        shards,
        model.tokenizer,
        max_length=corpus.max_length,
        second=corpus.second,
        seed=seed,
        mask_rate=corpus.mask_rate,
        whole_words=corpus.whole_words,
        short_rate=corpus.short_rate,
    )


def _total_steps(
    settings: Pretrain,
    source: PretrainingSource,
    size: StepSize,
    network: Network,
    stepping: Callable[[int, Progress, Callable[[Report], bool | None]], None],
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
    where: torch.device,
) -> int:
    """The number of steps, fixed once: given, counted, or timed on a few steps that are then undone."""
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is not None:
        return max(1, round(settings.epochs * count_steps(source, size)))
    minutes = DEFAULT_MINUTES if settings.minutes is None else settings.minutes
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    times: list[float] = []
    stepping(CALIBRATION_STEPS + 2, Progress(), lambda report: times.append(time.monotonic()))
    network.load_state_dict(weights)
    optimizer.state.clear()
    a_step = (times[-1] - times[1]) / CALIBRATION_STEPS
    planned = max(1, int(60 * minutes * RESERVE / a_step))
    return int(ranks.sum(torch.tensor(float(planned), device=where)) / ranks.count)


class _HeldOut:
    """Masked-LM loss and accuracy, and next-sentence accuracy, on a fixed part of the held-out text."""

    def __init__(
        self, shards: Shards, model: Model, task: PretrainTask, settings: Pretrain, device: torch.device
    ) -> None:
        wanted = max(1, settings.evaluate_tokens // settings.corpus.max_length)
        items = _source(shards, model, settings, seed=0).heldout(wanted)
        self.batches = [pack([item.make() for item in part]) for part in micro_batches(items, 8192)]
        self.engine = Engine(model.network, device=device, precision=pick_precision(settings.precision, device))
        self.task = task

    def scores(self) -> dict[str, float]:
        """Means over all held-out targets."""
        sums: dict[str, float] = {}
        for batch in self.batches:
            for name, value in self.task.tally(self.engine.scores(batch), batch.to(self.engine.device)).items():
                sums[name] = sums.get(name, 0.0) + value
        return {
            name: sums[name] / sums[f"{name.rsplit('_', 1)[0]}_count"] for name in sums if not name.endswith("_count")
        }


def _sources(shards: Shards) -> dict[str, Any]:
    """What the model read, for its card."""
    return {"manifest": file_hash(shards.folder / "manifest.json"), "tokens": shards.counts.tokens}
