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
from typing import Any, TypeVar, get_args, overload

import numpy as np
import torch

from bothways.batch import Example, pack
from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer import embedding
from bothways.infer.analysis import analysis_model
from bothways.infer.devices import AnswerPrecision, pick_answer_precision, pick_device
from bothways.infer.engine import Engine
from bothways.infer.generation import Pieces, alignment, stream
from bothways.models import model as models
from bothways.models.model import Model, single_head
from bothways.tasks.base import Answer, Coverage, Encoded
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.sequences import pair, single

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
        self._analyzer: Predictor | None = None  # kept, for its weights are laid out once
        self._filler: Predictor | None = None

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
        return self.decode(records, encoded, answers)

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

    # ------------------------------------------------------------------------------------------- generation

    def generate(
        self,
        sources: str | Sequence[Input],
        *,
        return_attention: bool = False,
        return_content: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """A text written for each source, with its score; options are those of `Decoding`, and `long`.

        Args:
            return_attention: also "attention", α as (layers, heads, target, source), rows summing to one, with
                "source_tokens" and "target_tokens", which name its columns and rows
            return_content: also "content", the content vectors C, (layers, target, D)

        Raises:
            DataError: an input that is no source, an empty one, or one longer than the model where `long` refuses it.
            ConfigError: an option that there is not, or a value that can't be.
            ModelError: the model does not generate.
        """
        predictor = self._writer(options)
        records = list(records_of(sources))
        encoded = predictor.encode(records)
        answers = predictor.engine.answers([one.examples[0] for one in encoded])
        texts = []
        for record, one, answer in zip(records, encoded, answers, strict=True):
            text = predictor._task.decode(record, [answer]) | {"tokens": one.coverage.told()}
            if return_attention or return_content:
                text |= predictor._aligned(answer, attention=return_attention, content=return_content)
            texts.append(text)
        return texts

    def generate_stream(self, source: Input, **options: Any) -> Pieces:
        """The text for one source in pieces, as they are written; joined they are what `generate` gives.

        Its `tokens` tell how much of the source was read, before the first piece.

        Raises:
            as `generate`; beams can't be streamed, since the best may change to the last.
        """
        predictor = self._writer(options)
        (encoded,) = predictor.encode([*records_of([source])])
        example = encoded.examples[0]
        if example.decoding.settings.beams > 1:
            raise ConfigError(f"beams is {example.decoding.settings.beams}; a stream needs beams 1")
        network, tokenizer, engine = self.model.network, self.model.tokenizer, self.engine
        return Pieces(stream(network, example, tokenizer, engine.device, engine.inferring), encoded.coverage.told())

    def _aligned(self, answer: Answer, *, attention: bool, content: bool) -> dict[str, Any]:
        with self.engine.inferring():
            found = alignment(self.model.network, answer.example, answer.scores, self.engine.device)
        tokenizer = self.model.tokenizer
        names = {
            f"{side}_tokens": [tokenizer.token(number) for number in found[f"{side}_ids"].tolist()]
            for side in ("source", "target")
        }
        wanted = {"attention": attention, "content": content}
        return names | {name: found[name] for name, given in wanted.items() if given}

    def _writer(self, options: Mapping[str, Any]) -> Predictor:
        if self.model.network.decoder is None:
            raise ModelError(
                f"{self._name}: this model does not generate text; fine-tune one that does: "
                f"bothways finetune generate --model {self.model.folder or 'DIR'} …"
            )
        return self.with_options(**options) if options else self

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

    # --------------------------------------------------------------------------------------------- analysis

    def analyzer(self, **options: Any) -> Predictor:
        """The same model with analysis as its task: `predict` then gives words, parts of speech, entities and labels.

        Options: `dictionary` (words to keep whole, or a file of them), `bonus`, `vector` (the text's vector too).

        Raises:
            ModelError: the model has no head that analysis can use.
            DataError, ConfigError: an option that can't be.
        """
        if self._analyzer is None:
            self._analyzer = self._with(analysis_model(self.model))
        return self._analyzer.with_options(**options) if options else self._analyzer

    @overload
    def analyze(self, texts: str, **options: Any) -> dict[str, Any]: ...

    @overload
    def analyze(self, texts: list[str] | tuple[str, ...], **options: Any) -> list[dict[str, Any]]: ...

    def analyze(self, texts: str | Sequence[str], **options: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """What the model's heads find in a text, or in each of several; options are those of `analyzer`.

        Returns:
            text, language: the text, and "zh", "en", "other" or "mixed", told by script
            words:          each with its place ("start" and "end" in characters of the text) and "pos"; in a mixed
                            text also its language
            entities:       each with its place, "label" and "score"
            sentiment, …:   under the name of each head that labels texts, {"label", "score"}
            vector:         if wanted, (D,)
            tokens:         how many were read; what the model has no head for is left out

        Raises:
            DataError: a text is empty; the message says which.
            as `analyzer`.
        """
        found = self.analyzer(**options).predict([texts] if isinstance(texts, str) else texts)
        return found[0] if isinstance(texts, str) else found

    # ---------------------------------------------------------------------------------------------- vectors

    def embedder(self, **options: Any) -> Predictor:
        """The same encoder with an embedding task, whatever this model's own task is.

        Options, all off unless said: `level` ("sentence", "pair", "token", "character", "word"), `layers` ("-2",
        "sum:-4:", "concat:-4:"), `pooling` ("mean", "cls", "max"), `normalize`, `long` ("windows", "cut"), `words`
        ("auto", "words", "chinese"), `prompt` (a name among the model's).

        Raises:
            ConfigError: an option that can't be.
        """
        return self._with(embedding.embedding_model(self.model, **options))

    def _with(self, model: Model) -> Predictor:
        """The same predictor with another task and heads on the same encoder."""
        other = copy.copy(self)
        other.model, other._analyzer, other._filler = model, None, None
        other.engine = Engine(
            other.model.network,
            device=self.engine.device,
            precision=self.engine.precision,
            batch_tokens=self.engine.batch_tokens,
        )
        return other

    def embed(
        self, texts: Sequence[Input], *, level: embedding.Level = "sentence", **options: Any
    ) -> np.ndarray | list[embedding.Parts]:
        """Vectors of texts, pairs or records; options are those of `embedder`.

        (n, D) float32 for sentences and pairs; for tokens, characters and words a list of `Parts`, each with the
        (u, D) vectors of one text and where its parts stand. `words` may also be a segmentation model, whose words
        are then used.

        Warns:
            UserWarning: a text was longer than the model reads and was windowed or cut, or it was empty.

        Raises:
            DataError: an input that can't be read; the message says which.
            ConfigError: an option that can't be.
        """
        records = list(records_of(texts))
        if isinstance(segmenter := options.get("words"), Predictor):
            del options["words"]
            records = segmented(records, segmenter)
        return embedding.embed(self.embedder(level=level, **options), records)

    # ------------------------------------------------------------------------------------------------ masks

    @property
    def can_fill_masks(self) -> bool:
        """Whether this model has a masked-LM head: a pre-trained one, or one of several tasks that kept it."""
        task = self.model.task
        return isinstance(task, PretrainTask) or (isinstance(task, MultiTask) and task.masked is not None)

    def fill_mask(self, texts: str | Sequence[str], *, top: int = 5) -> list[list[dict[str, Any]]]:
        """For each text and each [MASK] in it: where it stands, and the `top` pieces that fit with their probabilities.

        Raises:
            DataError: a text without [MASK], or one longer than the model.
            ModelError: the model has no masked-LM head.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(given, start=1):
            if not isinstance(text, str):
                raise DataError(f"a text was wanted, found {type(text).__name__}", path="<texts>", line=number)
        filler = self.filler(top=top)
        records = [Record({"text": text}, "<texts>", number) for number, text in enumerate(given, start=1)]
        return [filled["masks"] for filled in filler.answer(records, filler.encode(records))]

    def filler(self, *, top: int = 5) -> Predictor:
        """The same model with filling masks as its task: `predict` gives {"masks": what `fill_mask` gives for a text}.

        Raises:
            ModelError: the model has no masked-LM head.
        """
        if not self.can_fill_masks:
            raise ModelError(f"{self._name}: this model has no masked-LM head; give a pre-trained model")
        if self._filler is None:
            task = self.model.task
            model = single_head(self.model, task.masked) if isinstance(task, MultiTask) and task.masked else self.model
            self._filler = self._with(replace(model, task=MaskedTask(MaskedSettings())))
        return self._filler.with_options(top=top)

    @property
    def answering(self) -> Predictor:
        """This one, which answers by its task; of a model that was only pre-trained, its `filler`."""
        return self.filler() if isinstance(self.model.task, PretrainTask) else self

    # -------------------------------------------------------------------------------------------- attention

    def attention(self, text: str, text_b: str | None = None) -> dict[str, Any]:
        """Which token looks at which, in every layer and head, for one text or two.

        Returns:
            tokens:   the t pieces, [CLS] and [SEP] among them
            segments: (t,) 0 in the first text, 1 in the second
            weights:  (layers, heads, t, t) float32; row i is how token i weighs all tokens, and sums to one
            dropped:  tokens at the end that the model has no room for
            cross:    of a model that writes, for one text: what it wrote ("tokens"), the source ("keys") and how each
                      token written weighs those of the source ("weights", (layers, heads, written, source))

        Raises:
            DataError: a text is empty, or none.
        """
        given = [text] if text_b is None else [text, text_b]
        for number, one in enumerate(given, start=1):
            if not isinstance(one, str):
                raise DataError(f"a text was wanted, found {type(one).__name__}", path="<texts>", line=number)
        tokenizer = self.model.tokenizer
        pieces = tokenizer.encode(given, specials=True)
        for number, one in enumerate(pieces, start=1):
            if not len(one.ids):
                raise DataError("the text is empty: there is nothing to look at", path="<texts>", line=number)
        if text_b is None:
            (piece, *_), coverage = single(pieces[0], tokenizer, record=0, max_length=self.max_length, windows=1)
        else:
            piece, coverage = pair(pieces[0], pieces[1], tokenizer, record=0, max_length=self.max_length)
        with torch.inference_mode():
            tokens = pack([Example((piece,), {})]).tokens.to(self.engine.device)
            weights = torch.stack([layer[0] for layer in self.model.network.encoder.attention(tokens)])
        shown = {
            "tokens": [tokenizer.token(int(id)) for id in piece.input_ids],
            "segments": tokens.segment_ids.tolist(),
            "weights": weights.float().cpu().numpy(),
            "dropped": coverage.dropped,
        }
        if text_b is None and self.model.task is not None and self.model.task.name == "generate":
            (written,) = self.generate([text], return_attention=True)  # pyright: ignore[reportAttributeAccessIssue]
            names = {"tokens": "target_tokens", "keys": "source_tokens", "weights": "attention"}
            shown["cross"] = {name: written[theirs] for name, theirs in names.items()}
        return shown


def segmented(records: Sequence[Record], segmenter: Predictor) -> list[Record]:
    """The records with the words that a segmentation model finds in them, as "tokens"."""
    found = segmenter.stream(iter(records))
    return [
        replace(record, fields=record.fields | {"tokens": one["words"]})
        for record, one in zip(records, found, strict=True)
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
