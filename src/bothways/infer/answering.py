"""A model on a device: records of its task in, predictions and scores out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np

from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.data.repeats import repeated
from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer.devices import AnswerPrecision, pick_answer_precision, pick_device
from bothways.infer.engine import Engine, scores_of
from bothways.infer.inputs import Input, meanwhile, records_of
from bothways.models.model import Model
from bothways.tasks.base import Answer, Coverage, Encoded

CHUNK = 2048  # records encoded, sorted by length and answered together: enough for full batches, flat memory
MOST_SCORES = 1 << 26  # held at once: a quarter of a gigabyte
SHORTEST = 3  # tokens of a sequence that holds any text


class Answering:
    """A model that answers what its own task asks; `Predictor` adds what else can be asked of it."""

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        precision: AnswerPrecision = "float32",
        max_length: int | None = None,
    ) -> None:
        if precision not in (known := get_args(AnswerPrecision)):
            raise ConfigError(f"precision is {precision!r}; wanted one of {', '.join(known)}")
        if max_length is not None and max_length < SHORTEST:
            raise ConfigError(
                f"max_length is {max_length}; wanted at least {SHORTEST}: [CLS], one token of text, [SEP]"
            )
        self.model = model
        where = pick_device(device)
        chosen = pick_answer_precision(precision, where, model.points_lost)
        if chosen == "int8" and model.network.decoder is not None:
            raise ConfigError("int8 is for an encoder's answers, and this model writes; try bfloat16 or auto")
        model.network.to(where).eval()
        self.engine = Engine(model.network, device=where, precision=chosen)
        limit = model.config.max_position_embeddings
        self.max_length = min(max_length or limit, limit)

    def predict(self, inputs: Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """A prediction for each text, pair of texts or record, in order; options are those of `with_options`.

        Raises:
            DataError: an input that the task can't read; the message says which.
            ConfigError: an option that the task doesn't take.
            ModelError: the model has no task: it was only pre-trained.
        """
        predictor = self.with_options(**options) if options else self
        return list(predictor.stream(records_of(inputs)))

    def with_options(self, **options: Any) -> Self:
        """The same model with what its task can be told for predictions: `dictionary=["云计算"]` for segmentation.

        Raises:
            ConfigError: an option that the task doesn't take.
            ModelError: the model has no task.
        """
        other = copy.copy(self)
        other.model = replace(self.model, task=self._task.with_options(**options))
        return other

    def stream(self, records: Iterator[Record], *, labelled: bool = False) -> Iterator[dict[str, Any]]:
        """Predictions in order, chunk by chunk: memory stays flat however many records come.

        While one chunk is answered the next is read and tokenised.
        """
        records, done = iter(records), 0
        chunk, encoded = self._next_chunk(records, done, labelled)
        while chunk:
            done += len(chunk)
            full = len(chunk) == CHUNK
            coming = meanwhile(self._next_chunk, records, done, labelled) if full else None
            yield from self.answer(chunk, encoded)
            chunk, encoded = ([], []) if coming is None else coming.result()

    def _next_chunk(self, records: Iterator[Record], first: int, labelled: bool) -> tuple[list[Record], list[Encoded]]:
        chunk = list(islice(records, CHUNK))
        return chunk, self.encode(chunk, first=first, labelled=labelled) if chunk else []

    def encode(self, records: Sequence[Record], *, first: int = 0, labelled: bool = False) -> list[Encoded]:
        """The records as examples of this model's task."""
        return self._task.encode(
            records, self.model.tokenizer, max_length=self.max_length, labelled=labelled, first=first
        )

    def answer(self, records: Sequence[Record], encoded: Sequence[Encoded]) -> list[dict[str, Any]]:
        """Predictions for encoded records; each says how many of its tokens were read."""
        predictions: list[dict[str, Any]] = []
        while len(predictions) < len(encoded):
            some = slice(len(predictions), len(predictions) + self._together(encoded[len(predictions) :]))
            answers = self.engine.answers([example for one in encoded[some] for example in one.examples])
            predictions += self.decode(records[some], encoded[some], answers)
        return predictions

    def _together(self, encoded: Sequence[Encoded]) -> int:
        """How many of them, at least one, have no more scores than are held at once."""
        if scores_of(self.model.network, (example for one in encoded for example in one.examples)) <= MOST_SCORES:
            return len(encoded)
        scores = 0
        for number, one in enumerate(encoded):
            scores += scores_of(self.model.network, one.examples)
            if number and scores > MOST_SCORES:
                return number
        return len(encoded)

    def decode(
        self, records: Sequence[Record], encoded: Sequence[Encoded], answers: Sequence[Answer]
    ) -> list[dict[str, Any]]:
        """Predictions from the engine's answers to all examples of `encoded`, in order."""
        predictions, at = [], 0
        for record, one in zip(records, encoded, strict=True):
            prediction = self._task.decode(record, list(answers[at : at + len(one.examples)]))
            predictions.append(prediction | {"tokens": one.coverage.told()})
            at += len(one.examples)
        return predictions

    def evaluate(self, data: str | Path | Sequence[Mapping[str, Any]], **reading: Any) -> dict[str, Any]:
        """Every metric of the task on labelled records, with what was read of them.

        That is `records`, `tokens` (each counted once), `tokens_strided` (read again in a further window),
        `tokens_dropped` (never read) and `seconds`.
        """
        return self.score(self.read(data, **reading))

    def read(self, data: str | Path | Sequence[Mapping[str, Any]], **reading: Any) -> list[Record]:
        """Labelled records to score on, at least one."""
        records = list(read_records(data, **reading))
        if not records:
            raise DataError("there is no record to evaluate on", path=str(data))
        return records

    def trained_on(self, records: Sequence[Record]) -> list[Record]:
        """The records whose text the model learnt from, as far as its folder tells."""
        known = self.model.trained_on
        return [] if known is None else repeated(records, set(known.tolist()))

    def warm_up(self, encoded: Sequence[Encoded]) -> None:
        """Get everything ready that answering so much needs, so that a timing does not meet it."""
        examples = [example for one in encoded for example in one.examples]
        self.engine.ready(sum(example.tokens for example in examples))
        self.engine.answers(sorted(examples, key=lambda example: example.tokens)[:: max(1, len(examples) // 16)])

    def score(
        self, records: Sequence[Record], encoded: Sequence[Encoded] | None = None, *, tune: bool = False
    ) -> dict[str, Any]:
        """As `evaluate`, on records already read (and encoded, when they will be scored again).

        `tune` lets the task first choose by these very records what no gradient learns: for dev records only.
        """
        begun = time.perf_counter()
        encoded = encoded or self.encode(records, labelled=True)
        predictions = self.answer(records, encoded)
        seconds = time.perf_counter() - begun
        coverage = sum((one.coverage for one in encoded), Coverage())
        if tune:
            self._task.tune(records, predictions)
        return self._task.metrics(records, predictions) | {
            "records": len(records),
            "tokens": coverage.kept,
            "tokens_strided": coverage.strided,
            "tokens_dropped": coverage.dropped,
            "seconds": round(seconds, 3),
        }

    def by_record(self, records: Sequence[Record]) -> dict[str, np.ndarray]:
        """What each labelled record adds to the metrics that models are compared by (`Task.by_record`)."""
        return self._task.by_record(records, self.answer(records, self.encode(records, labelled=True)))

    @property
    def task_name(self) -> str:
        """What the model was fine-tuned for.

        Raises:
            ModelError: nothing; it was only pre-trained.
        """
        return self._task.name

    @property
    def _task(self) -> Any:
        if self.model.task is None or self.model.task.name == "pretrain":
            folder = self.model.folder or "DIR"
            raise ModelError(
                f"{self._name}: this model was pre-trained but has no task yet; "
                f"fine-tune it first (bothways finetune TASK --model {folder} …), or fill masks with it"
            )
        return self.model.task

    @property
    def _name(self) -> str:
        return str(self.model.folder or "<model>")
