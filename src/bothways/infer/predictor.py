"""The Python way: `bothways.load(…)` gives one object that predicts, scores and fills masks."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from bothways.batch import Example, Piece, Read
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer.devices import AnswerPrecision, pick_answer_precision, pick_device
from bothways.infer.engine import Engine
from bothways.models import model as models
from bothways.models.model import Model
from bothways.tasks.base import Coverage, Encoded
from bothways.tasks.sequences import with_specials

CHUNK = 2048  # records encoded, sorted by length and answered together: enough for full batches, flat memory
SHORTEST = 3  # tokens of a sequence that holds any text

_T = TypeVar("_T")
Input = str | Mapping[str, Any] | tuple[str, str]


def load(
    name: str | Path = "builtin",
    *,
    device: str = "auto",
    precision: AnswerPrecision = "float32",
    max_length: int | None = None,
) -> Predictor:
    """The model of that name, ready to predict: the built-in one, a folder, a run, or a name on the hub.

    Raises:
        ModelError: there is no such model, or it is unsafe, damaged or of another kind.
        ConfigError: the device is not there.
    """
    return Predictor(models.load(name), device=device, precision=precision, max_length=max_length)


class Predictor:
    """A model on a device."""

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
        chosen = pick_answer_precision(precision, where)
        model.network.to(where).eval()
        self.engine = Engine(model.network, device=where, precision=chosen)
        limit = model.config.max_position_embeddings
        self.max_length = min(max_length or limit, limit)

    # ------------------------------------------------------------------------------------------ predictions

    def predict(self, inputs: Sequence[Input], **options: Any) -> list[dict[str, Any]]:
        """A prediction for each text, pair of texts or record, in order; options are those of `with_options`.

        Raises:
            DataError: an input that the task can't read; the message says which.
            ConfigError: an option that the task doesn't take.
            ModelError: the model has no task: it was only pre-trained.
        """
        predictor = self.with_options(**options) if options else self
        return list(predictor.stream(records_of(inputs)))

    def with_options(self, **options: Any) -> Predictor:
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
            coming = _meanwhile(self._next_chunk, records, done, labelled) if full else None
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
        answers = self.engine.answers([example for one in encoded for example in one.examples])
        predictions, at = [], 0
        for record, one in zip(records, encoded, strict=True):
            prediction = self._task.decode(record, answers[at : at + len(one.examples)])
            predictions.append(prediction | {"tokens": one.coverage.told()})
            at += len(one.examples)
        return predictions

    def evaluate(self, data: str | Path | Sequence[Mapping[str, Any]], **reading: Any) -> dict[str, Any]:
        """Every metric of the task on labelled records, with `records`, `tokens`, `tokens_dropped`, `seconds`."""
        return self.score(self.read(data, **reading))

    def read(self, data: str | Path | Sequence[Mapping[str, Any]], **reading: Any) -> list[Record]:
        """Labelled records to score on, at least one."""
        records = list(read_records(data, **reading))
        if not records:
            raise DataError("there is no record to evaluate on", path=str(data))
        return records

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
            "tokens_dropped": coverage.dropped,
            "seconds": round(seconds, 3),
        }

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

    # ------------------------------------------------------------------------------------------------ masks

    @property
    def can_fill_masks(self) -> bool:
        """Whether this is a pre-trained model that still has its masked-LM head."""
        return "masked" in self.model.network.heads

    def fill_mask(self, texts: str | Sequence[str], *, top: int = 5) -> list[list[dict[str, Any]]]:
        """For each text and each [MASK] in it: where it stands, and the `top` pieces that fit with their probabilities.

        Raises:
            DataError: a text without [MASK], or one longer than the model.
            ModelError: the model has no masked-LM head.
        """
        if not self.can_fill_masks:
            raise ModelError(f"{self._name}: this model has no masked-LM head; give a pre-trained model")
        tokenizer = self.model.tokenizer
        given = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(given, start=1):
            if not isinstance(text, str):
                raise DataError(f"a text was wanted, found {type(text).__name__}", path="<texts>", line=number)
        examples, spans = [], []
        for number, (text, encoded) in enumerate(zip(given, tokenizer.encode(given, specials=True), strict=True)):
            places = np.flatnonzero(encoded.ids == tokenizer.mask_id)
            if not len(places):
                raise DataError(
                    f"{text[:40]!r} has no {tokenizer.token(tokenizer.mask_id)} to fill",
                    path="<texts>",
                    line=number + 1,
                )
            if len(encoded.ids) + 2 > self.max_length:
                raise DataError(
                    f"the text has {len(encoded.ids)} tokens, the model reads {self.max_length - 2}; shorten it",
                    path="<texts>",
                    line=number + 1,
                )
            spans.append(encoded.offsets[places])
            reads = {
                name: Read(rows=places + 1, groups=np.ones(len(places), int))
                if name == "masked"
                else Read(rows=np.array([0]), groups=np.array([1]))
                for name in self.model.network.heads
            }
            examples.append(Example((Piece(with_specials(encoded.ids, tokenizer)),), reads))
        return [
            [
                _fillings(logits, span, tokenizer, mask, top)
                for mask, (logits, span) in enumerate(zip(answer.scores["masked"], places, strict=True))
            ]
            for answer, places in zip(self.engine.answers(examples), spans, strict=True)
        ]


def _meanwhile(function: Callable[..., _T], *arguments: Any) -> Future[_T]:
    """The function's result, computed beside the caller by a thread that does not keep the process from ending."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="bothways-reader", daemon=True).start()
    return future


def _fillings(logits: np.ndarray, span: np.ndarray, tokenizer: Any, mask: int, top: int) -> dict[str, Any]:
    """The most probable pieces for one mask; special tokens are no answer."""
    logits = np.where(tokenizer.special, -np.inf, logits[: tokenizer.size]).astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[: min(top, int(np.sum(~tokenizer.special)))]
    return {
        "mask": mask,
        "start": int(span[0]),
        "end": int(span[1]),
        "fillings": [{"token": tokenizer.token(int(i)), "score": round(float(probabilities[i]), 6)} for i in best],
    }


def records_of(inputs: Sequence[Input]) -> Iterator[Record]:
    """Texts, pairs or records from Python as records; their place counts from 1."""
    if isinstance(inputs, str | Mapping):
        inputs = [inputs]
    for number, given in enumerate(inputs, start=1):
        if isinstance(given, str):
            fields: dict[str, Any] = {"text": given}
        elif isinstance(given, Mapping):
            fields = dict(given)
        elif isinstance(given, tuple | list) and len(given) == 2:
            fields = {"text_a": given[0], "text_b": given[1]}
        else:
            raise DataError(
                f"a text, a pair of texts or a record was wanted, found {type(given).__name__}",
                path="<records>",
                line=number,
            )
        yield Record(fields, "<records>", number)
