"""What `bothways finetune generate` does, done by transformers: its EncoderDecoderModel in its Trainer, for as long.

    python -m runs.transformers_writer finetune generate --model DIR --train F --dev F --minutes 30 --out DIR …

The flags are those of `bothways finetune generate`, and so are the weights to begin with, the token ids, the records a
step, the rate with its warm-up and fall (by the time that is over), smoothing and clipping. Scoring dev after each
epoch and saving take no time on either side; the best epoch is left in `--out`/model, which Bothways reads. The Trainer
is told what makes it fast on a CPU: batches of near length, bfloat16 where it is native, no attention dropout, fused
AdamW.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch import Tensor

from bothways import config
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.infer.devices import pick_device, pick_precision
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save, seed_everything, start_from
from bothways.nn.network import TEXT
from bothways.tasks.generate import GenerateTask
from bothways.train.run import finetune_settings

IGNORED = -100  # the label of padding
WEIGHTS = "model.safetensors"


class Clock:
    """How much of the training's time is over; pauses do not count."""

    def __init__(self, minutes: float, warmup: float) -> None:
        self._seconds, self._warmup = 60 * minutes, warmup
        self._begun: float | None = None

    def begin(self) -> None:
        """Now."""
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """That are over."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.seconds / self._seconds)

    def rate(self, step: int) -> float:
        """The learning rate as a share of its peak: it rises during the warm-up, then falls to 0."""
        share, warmup = self.share, self._warmup
        return share / warmup if share < warmup else (1 - share) / (1 - warmup)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside takes no time."""
        assert self._begun is not None
        paused = time.monotonic()
        yield
        self._begun += time.monotonic() - paused


class Trainer(transformers.Trainer):
    """The Trainer with the rate by the clock."""

    clock: Clock

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """By time, not by steps."""
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.clock.rate)
        return self.lr_scheduler


class Examiner(transformers.TrainerCallback):
    """Ends the training when its time is over, and keeps the epoch that is best on dev."""

    def __init__(self, clock: Clock, model: Any, folder: Path, dev: Sequence[Record], max_length: int | None) -> None:
        self.clock, self.model, self.folder, self.dev, self.max_length = clock, model, folder, dev, max_length
        self.best: dict[str, Any] = {}
        self.seconds = 0.0  # of steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All is set up."""
        self.clock.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Is it over?"""
        control.should_training_stop |= self.clock.share >= 1

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score dev with the weights as they are; also after the last step, if it ends no epoch."""
        self.seconds = self.clock.seconds
        with self.clock.paused():
            theirs = self.folder.parent / "theirs"
            self.model.save_pretrained(theirs)
            kept = self.folder / WEIGHTS
            before = kept.rename(kept.with_suffix(".before"))
            shutil.copy(theirs / WEIGHTS, kept)
            predictor = Predictor(load(self.folder), device="cpu", max_length=self.max_length)
            scores = predictor.score(self.dev)
            told = {name: value for name, value in scores.items() if isinstance(value, int | float)}
            assert predictor.model.task is not None
            by = predictor.model.task.criterion
            print(json.dumps({"step": state.global_step, by: told[by]}), file=sys.stderr, flush=True)
            if not self.best or told[by] > self.best[by]:
                self.best = told | {"steps": state.global_step}
                before.unlink()
            else:
                before.replace(kept)
            shutil.rmtree(theirs)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and leave the folder that a run leaves."""
    words = list(sys.argv[1:] if argv is None else argv)
    wanted = config.load(finetune_settings("generate"), words[1:], prog="transformers_writer finetune")
    settings, optim = wanted.settings, wanted.settings.optim
    if settings.minutes is None or wanted.dev is None or wanted.generate.decoder == "share":
        sys.exit("give --minutes and --dev, and a decoder that shares no layers: transformers ties none any more")
    transformers.logging.disable_progress_bar()
    shutil.rmtree(wanted.out, ignore_errors=True)  # what was stopped is begun again
    seed_everything(wanted.common.seed)
    transformers.set_seed(wanted.common.seed)
    records = list(read_records(wanted.train, columns=wanted.columns))
    task = GenerateTask.learn(records, wanted.generate)
    ours = start_from(settings.model, task)
    folder = save(ours, wanted.out / "model")
    max_length = min(settings.batching.max_length or 512, ours.config.max_position_embeddings)
    examples = []
    for encoded in task.encode(records, ours.tokenizer, max_length=max_length, labelled=True):
        (one,) = encoded.examples
        assert one.decoder is not None
        ids = {"input_ids": one.pieces[0].input_ids, "given": one.decoder.input_ids, "labels": one.reads[TEXT].labels}
        examples.append({name: row.tolist() for name, row in ids.items() if row is not None})
    shape = transformers.AutoConfig.from_pretrained(folder)
    for part in (shape.encoder, shape.decoder):
        part.attention_probs_dropout_prob = 0.0
    theirs = transformers.EncoderDecoderModel.from_pretrained(folder, config=shape)
    pad = ours.tokenizer.pad_id

    def collate(features: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        sources = _padded([one["input_ids"] for one in features], pad)
        given = _padded([one["given"] for one in features], pad)
        labels = _padded([one["labels"] for one in features], IGNORED)
        lengths = torch.tensor([len(one["input_ids"]) for one in features])
        mask = (torch.arange(sources.shape[1]) < lengths[:, None]).long()
        decoder_mask = (labels != IGNORED).long()
        return {"input_ids": sources, "attention_mask": mask, "decoder_input_ids": given,
                "decoder_attention_mask": decoder_mask, "labels": labels}  # fmt: skip

    precision = pick_precision("auto", pick_device("cpu"))
    named = "train_sampling_strategy" in transformers.TrainingArguments.__dataclass_fields__
    sampling: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if named else {"group_by_length": True}
    args = transformers.TrainingArguments(
        output_dir=str(wanted.out / "trainer"),
        use_cpu=True,
        seed=wanted.common.seed,
        num_train_epochs=100_000,  # the clock ends it
        per_device_train_batch_size=settings.batch,
        learning_rate=optim.peak,
        weight_decay=optim.weight_decay,
        adam_beta2=optim.beta2,
        max_grad_norm=optim.clip or 0.0,
        label_smoothing_factor=task.settings.label_smoothing,
        optim="adamw_torch_fused",
        bf16=precision == "bfloat16",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_strategy="no",
        **sampling,
    )
    dev = list(read_records(wanted.dev, columns=wanted.columns))
    clock = Clock(settings.minutes, optim.warmup)
    examiner = Examiner(clock, theirs, folder, dev, max_length)
    coach = Trainer(model=theirs, args=args, train_dataset=examples, data_collator=collate, callbacks=[examiner])
    coach.clock = clock
    coach.train()
    shutil.rmtree(wanted.out / "trainer", ignore_errors=True)
    ended = {"finished": examiner.best, "steps_seconds": round(examiner.seconds, 3)}
    (wanted.out / "log.jsonl").write_text(json.dumps(ended) + "\n", encoding="utf-8")
    return 0


def _padded(rows: list[list[int]], filling: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filling] * (longest - len(row)) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
