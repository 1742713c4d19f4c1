"""Pre-training: raw text → vocabulary → shards → steps → a run folder with a model that fills masks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bothways.data.cooccurrence import cooccurrence_vectors
from bothways.data.documents import text_files
from bothways.data.loader import StepSize, count_steps
from bothways.data.pretraining import Coverage, PretrainingSource
from bothways.data.shard_files import file_hash
from bothways.data.shards import Shards, build_shards
from bothways.data.vocabulary import learn_tokenizer
from bothways.data.whole import remove
from bothways.errors import ConfigError, DataError
from bothways.infer.devices import pick_precision
from bothways.models.hub import locate
from bothways.models.model import Model, fresh, save, seed_everything, start_from
from bothways.models.reading import read_config
from bothways.models.sizes import SIZES, is_size, sized
from bothways.nn.heads import MaskedHead
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer
from bothways.train.card import card, hardware
from bothways.train.folder import Run, RunFolder
from bothways.train.heldout import HeldOut
from bothways.train.loop import Report
from bothways.train.ranks import Ranks
from bothways.train.settings import Pretrain
from bothways.train.training import Look, Training, check_weights, restore, steps_in, take_steps, telling
from bothways.train.training import save as save_checkpoint

DEFAULT_MINUTES = 10.0
MANIFEST = "manifest.json"  # the last file of finished shards


def pretrain_run(wanted: Any, *, ranks: Ranks, device: torch.device) -> Run:
    """Pre-train as `wanted` (a `PretrainRun`) says; a finished run that is resumed stays as it is.

    Raises:
        BothwaysError: a mistake in the text, settings or model; nothing has been trained then. Nothing is left
            behind but a vocabulary that was learnt and text that was tokenised, for --resume to go on with.
        Stopped: Ctrl-C or SIGTERM; what was reached can be resumed.
    """
    settings: Pretrain = wanted.settings
    folder = RunFolder(wanted.out, ranks, resume=wanted.resume, quiet=wanted.common.quiet)
    folder.check(wanted)
    if run := folder.finished():
        return run
    _check_sources(wanted, folder)
    with telling(folder):
        with folder.removed_on_error(costly=[folder.path / "vocab" / "vocab.txt", folder.path / "shards" / MANIFEST]):
            training, held_out = _prepare(wanted, folder, device)
        state = restore(training)
        total = state["steps"] if state else _total_steps(training, settings)
        if state is None:
            _tell_beginning(training, total)
        every = settings.evaluate_every or max(1, math.ceil(total / 10))

        def examine(report: Report) -> Look:
            step = training.progress.step
            if held_out is None or not (step % every == 0 or step == total):
                return Look()
            scores = held_out.scores()
            told = "  ".join(f"{key} {value:.4f}" for key, value in scores.items())
            folder.log.tell(f"step {step}: held-out {told}")
            return Look(scores)

        take_steps(training, total, examine=examine, extra=lambda: {"steps": total})
        check_weights(training)
        return _finish(training, held_out, wanted)


def _check_sources(wanted: Any, folder: RunFolder) -> None:
    """Look at every file before anything is written; tell of held-out text that is learnt from.

    Raises:
        DataError: a file that is missing, empty or of no known kind.
    """
    learnt = {path.resolve() for path in text_files(wanted.text)}
    for path in text_files(wanted.dev) if wanted.dev else ():
        if path.resolve() in learnt:
            folder.log.tell(f"warning: {path} is held out by --dev, but --text has it too: scores on it will flatter")


def _prepare(wanted: Any, folder: RunFolder, device: torch.device) -> tuple[Training, HeldOut | None]:
    """All that stands before the first step: vocabulary, model, shards, optimizer.

    The text to learn from is tokenised last, for that takes longest: what else may be wrong is told before.
    """
    settings: Pretrain = wanted.settings
    _check_model(settings)
    folder.make(wanted)
    tokenizer = _tokenizer(wanted, folder)
    task = PretrainTask(settings.corpus.second)
    seed_everything(wanted.common.seed)
    model = _model(settings, tokenizer, task)
    held_out, dev = _held_out(wanted, folder, model, task, device) if wanted.dev else (None, "")
    shards = _shards(wanted.text, tokenizer, folder, "shards", wanted)
    source = _source(shards, model, settings, wanted.common.seed)
    if next(source.items(0), None) is None:
        with folder.removed_on_error():  # nothing that was made of such a text is of use
            if folder.ranks.first and settings.shards is None:  # shared ones may be another run's
                remove(shards.folder)
            raise DataError(
                f"{shards.counts.tokens:,} tokens of text make no sequence to learn from; more text is needed",
                path=wanted.text[0],
            )
    if settings.embeddings == "cooccurrence" and is_size(settings.model) and not folder.has_checkpoint:
        folder.log.tell("counting which pieces stand near which, for the word vectors to begin from")
        _begin_from_counts(model, shards, wanted.common.seed)
    training = Training(
        folder=folder,
        model=model,
        task=task,
        source=source,
        size=StepSize(tokens=settings.step_tokens, micro_tokens=settings.batching.micro_tokens),
        optim=settings.optim,
        precision=settings.precision,
        checkpoint_minutes=settings.checkpoint_minutes,
        device=device,
        data=file_hash(shards.folder / MANIFEST),
        dev=dev,
    )
    return training, held_out


def _held_out(
    wanted: Any, folder: RunFolder, model: Model, task: PretrainTask, device: torch.device
) -> tuple[HeldOut | None, str]:
    """What the model is examined by, on the first rank, and the hash of its text."""
    settings: Pretrain = wanted.settings
    shards = _shards(wanted.dev, model.tokenizer, folder, "shards-dev", wanted)
    data = file_hash(shards.folder / MANIFEST)
    if not folder.ranks.first:
        return None, data
    source = _source(shards, model, settings, seed=0)
    sequences = max(1, settings.evaluate_tokens // settings.corpus.max_length)
    precision = pick_precision(settings.precision, device)
    try:
        return HeldOut(source, sequences, model, task, precision=precision, device=device), data
    except DataError:
        if settings.shards is None:  # a resumed run, with more text, would find them to be of another
            remove(shards.folder)
        raise


def _check_model(settings: Pretrain) -> None:
    """Find what can be found wrong with the model before the text is read."""
    if settings.vocab is not None:
        Tokenizer.from_folder(settings.vocab)
    if is_size(settings.model):
        sized(settings.model, 1)  # a width that can't be
        return
    if not Path(settings.model).exists() and difflib.get_close_matches(settings.model, SIZES, cutoff=0.75):
        sized(settings.model, 1)  # a size misspelt: says which one is meant
    read_config(locate(settings.model))


def _tokenizer(wanted: Any, folder: RunFolder) -> Tokenizer:
    """The vocabulary given, that of the model to go on from, or one learnt from the text."""
    settings: Pretrain = wanted.settings
    if settings.vocab is not None:
        return Tokenizer.from_folder(settings.vocab)
    if not is_size(settings.model):
        return Tokenizer.from_folder(locate(settings.model))
    learnt = folder.path / "vocab"
    if not (learnt / "vocab.txt").is_file():  # written last
        if folder.ranks.first:
            folder.log.tell(f"learning a vocabulary of {settings.vocab_size:,} pieces")
            learn_tokenizer(
                wanted.text, settings.vocab_size, lowercase=settings.lowercase, columns=wanted.columns
            ).save(learnt)
        folder.ranks.wait()
    return Tokenizer.from_folder(learnt)


def _shards(text: Sequence[Path], tokenizer: Tokenizer, folder: RunFolder, name: str, wanted: Any) -> Shards:
    """The text tokenised; what an earlier try of this run finished is used as it is."""
    corpus = wanted.settings.corpus

    def build() -> Shards:
        return build_shards(
            text,
            tokenizer,
            (Path(wanted.settings.shards) if wanted.settings.shards else folder.path) / name,
            columns=wanted.columns,
            chinese_words=corpus.chinese_words,
            workers=corpus.workers,
        )

    shards = build() if folder.ranks.first else None
    folder.ranks.wait()
    return shards or build()


def _model(settings: Pretrain, tokenizer: Tokenizer, task: PretrainTask) -> Model:
    """A fresh model of a size, or the one to go on from.

    Raises:
        ConfigError: its vocabulary or its longest sequence is not what the settings ask for.
    """
    max_length = settings.corpus.max_length
    if is_size(settings.model):
        config = replace(sized(settings.model, tokenizer.size), max_position_embeddings=max(512, max_length))
        return fresh(config, tokenizer, task, pooler=settings.corpus.second is not None)
    model = start_from(settings.model, task, pooler=settings.corpus.second is not None)
    if model.tokenizer.vocabulary != tokenizer.vocabulary:
        raise ConfigError(
            f"--vocab {settings.vocab} is not the vocabulary of {settings.model}; "
            f"leave --vocab out to go on with its own"
        )
    if max_length > model.config.max_position_embeddings:
        raise ConfigError(
            f"corpus.max_length is {max_length}, but {settings.model} reads "
            f"{model.config.max_position_embeddings} tokens at most"
        )
    return model


def _begin_from_counts(model: Model, shards: Shards, seed: int) -> None:
    """Word vectors from co-occurrence, and the masked-LM head's bias from how often each piece is seen."""
    words, head = model.network.encoder.embeddings.word.weight, model.network.head("masked")
    assert isinstance(head, MaskedHead)
    vectors, seen = cooccurrence_vectors(shards, *words.shape, seed=seed)
    known = np.flatnonzero(vectors.any(axis=1))
    with torch.no_grad():
        words[torch.from_numpy(known)] = torch.from_numpy(vectors[known]) * model.config.initializer_range
        head.bias.copy_(torch.from_numpy(np.log((seen + 1) / (seen + 1).sum())))


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
        cls_words=corpus.cls_words,
    )


def _total_steps(training: Training, settings: Pretrain) -> int:
    """The number of steps, fixed once: given, counted, or timed on a few steps that are then undone."""
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is not None:
        return max(1, round(settings.epochs * count_steps(training.source, training.size)))
    total = steps_in(DEFAULT_MINUTES if settings.minutes is None else settings.minutes, training)
    save_checkpoint(training, {"steps": total})  # another machine, or another hour, would give another number
    return total


def _tell_beginning(training: Training, total: int) -> None:
    """What the run starts from and what of the text it reads, in the log and for the user, by the first rank."""
    if not training.ranks.first:
        return
    model, log = training.model, training.folder.log
    assert isinstance(training.source, PretrainingSource)
    tokens = training.source.shards.counts.tokens
    coverage = training.source.coverage(0)
    log.write(
        {
            "steps": total,
            "corpus_tokens": tokens,
            "coverage": asdict(coverage),
            "parameters": model.parameters,
            "model": model.told,
            "hardware": hardware(),
        }
    )
    beginning = f"{tokens:,} tokens of text, {model.parameters:,} parameters, {total:,} steps"
    for line in [*model.told, beginning, _told_of(coverage)]:
        log.tell(line)


def _told_of(coverage: Coverage) -> str:
    """How many tokens are read, and what becomes of the others, in words; what did not happen is left out."""
    line = f"in the first epoch {coverage.used_tokens:,} of them are read, in {coverage.sequences:,} sequences"
    if coverage.unpaired_tokens:
        line += f"; {coverage.unpaired_tokens:,} left out, in stretches of one word, which make no pair"
    if coverage.truncated_tokens:
        line += f"; {coverage.truncated_tokens:,} cut off where an exchanged second sentence was too long"
    if coverage.cut_sentences:
        line += f"; {coverage.cut_sentences:,} sentences are longer than a sequence and read in parts"
    return line


def _finish(training: Training, held_out: HeldOut | None, wanted: Any) -> Run:
    """The last step's weights, scored and saved."""
    folder, progress = training.folder, training.progress
    scores: dict[str, Any] = {} if held_out is None else dict(held_out.scores())
    taken = {"steps": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 1)}
    if folder.ranks.first and not (folder.model / "config.json").is_file():
        sections = {} if held_out is None else {"Scores on held-out text": scores}
        sections |= {"Training": taken, "Settings": asdict(wanted), "Seed": wanted.common.seed}
        sections |= {"Hardware": hardware(), "Data": {"manifest": training.data, "tokens": progress.tokens}}
        save(training.model, folder.model, card=card("A BERT pre-trained from raw text", sections))
    return folder.finish(scores | taken, "masked_accuracy", progress=progress)
