"""The Python way: `bothways.load(…)` gives one object that predicts, scores and fills masks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from bothways.batch import Example, pack
from bothways.data.messages import kind_of
from bothways.data.record import Record
from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer import embedding
from bothways.infer.analysis import analysis_model
from bothways.infer.answering import Answering
from bothways.infer.devices import AnswerPrecision
from bothways.infer.engine import Engine
from bothways.infer.generation import Pieces, alignment, stream
from bothways.infer.inputs import Input, records_of
from bothways.models import model as models
from bothways.models.model import Model, single_head
from bothways.nn.decoding import Stop
from bothways.tasks.base import Answer
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.sequences import pair, single


def load(
    name: str | Path = "builtin",
    *,
    device: str = "auto",
    precision: AnswerPrecision = "float32",
    max_length: int | None = None,
    mapped: bool = False,
) -> Predictor:
    """The model of that name, ready to predict: the built-in one, a folder, a run, or a name on the hub.

    `mapped`: in less memory, as long as nobody writes into its files (`models.load`).

    Raises:
        ModelError: there is no such model, or it is unsafe, damaged or of another kind.
        ConfigError: the device is not there.
    """
    return Predictor(models.load(name, mapped=mapped), device=device, precision=precision, max_length=max_length)


class Predictor(Answering):
    """A model on a device, and whatever its encoder and heads can be asked."""

    _analyzer: Predictor | None = None  # kept, for its weights are laid out once
    _filler: Predictor | None = None
    _embedder: tuple[dict[str, Any], Predictor] | None = None  # the last, and what it was asked for

    # ------------------------------------------------------------------------------------------- generation

    def generate(
        self,
        sources: str | Sequence[Input],
        *,
        return_attention: bool = False,
        return_content: bool = False,
        stop: Stop | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """A text written for each source, with its score; options are those of `Decoding`, and `long`.

        Args:
            return_attention: also "attention", α as (layers, heads, target, source), rows summing to one, with
                "source_tokens" and "target_tokens", which name its columns and rows
            return_content: also "content", the content vectors C, (layers, target, D)
            stop: a function that is asked before each token; when it says True, writing ends

        Raises:
            Stopped: `stop` said so.
            DataError: an input that is no source, an empty one, or one longer than the model where `long` refuses it.
            ConfigError: an option that there is not, or a value that can't be.
            ModelError: the model does not generate.
        """
        predictor = self._writer(options, stop)
        records = list(records_of(sources))
        encoded = predictor.encode(records)
        answers = predictor.engine.answers([one.examples[0] for one in encoded], stop=stop)
        texts = []
        for record, one, answer in zip(records, encoded, answers, strict=True):
            text = predictor._task.decode(record, [answer]) | {"tokens": one.coverage.told()}
            if return_attention or return_content:
                text |= predictor._aligned(answer, attention=return_attention, content=return_content)
            texts.append(text)
        return texts

    def generate_stream(self, source: Input, *, stop: Stop | None = None, **options: Any) -> Pieces:
        """The text for one source in pieces, as they are written; joined they are what `generate` gives.

        Its `tokens` tell how much of the source was read, before the first piece.

        Raises:
            as `generate`; beams can't be streamed, since the best may change to the last.
        """
        predictor = self._writer(options, stop)
        (encoded,) = predictor.encode([*records_of([source])])
        example = encoded.examples[0]
        if example.decoding.settings.beams > 1:
            raise ConfigError(f"beams is {example.decoding.settings.beams}; a stream needs beams 1")
        tokenizer, engine = self.model.tokenizer, self.engine
        pieces = stream(engine.ready_to_write(), example, tokenizer, engine.device, engine.inferring, stop=stop)
        return Pieces(pieces, encoded.coverage.told())

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

    def _writer(self, options: Mapping[str, Any], stop: Stop | None) -> Predictor:
        if self.model.network.decoder is None:
            raise ModelError(
                f"{self._name}: this model does not generate text; fine-tune one that does: "
                f"bothways finetune generate --model {self.model.folder or 'DIR'} …"
            )
        if stop is not None and not callable(stop):  # options come from requests, and this is none of them
            raise ConfigError(f"stop is {kind_of(stop)}; wanted a function that says whether to stop, or none")
        return self.with_options(**options) if options else self

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
        embedder = self._with(embedding.embedding_model(self.model, **options))
        embedding.check_length(embedder)
        return embedder

    def _with(self, model: Model) -> Predictor:
        """The same predictor with another task and heads on the same encoder."""
        other = copy.copy(self)
        other.model, other._analyzer, other._filler, other._embedder = model, None, None, None
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
            records = segmented(records, segmenter) if level == "word" else records
        asked = {"level": level, **options}
        if self._embedder is None or self._embedder[0] != asked:
            self._embedder = asked, self.embedder(**asked)
        return embedding.embed(self._embedder[1], records)

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

    def attention(self, text: str, text_b: str | None = None, *, stop: Stop | None = None) -> dict[str, Any]:
        """Which token looks at which, in every layer and head, for one text or two.

        `stop`: of a model that writes, asked before each token; True ends it.

        Returns:
            tokens:   the t pieces, [CLS] and [SEP] among them
            segments: (t,) 0 in the first text, 1 in the second
            weights:  (layers, heads, t, t) float32; row i is how token i weighs all tokens, and sums to one
            dropped:  tokens at the end that the model has no room for
            cross:    of a model that writes, for one text: what it wrote ("tokens"), the source ("keys") and how each
                      token written weighs those of the source ("weights", (layers, heads, written, source))

        Raises:
            DataError: a text is empty, or none.
            Stopped: `stop` said so.
        """
        given = [text] if text_b is None else [text, text_b]
        for number, one in enumerate(given, start=1):
            if not isinstance(one, str):
                raise DataError(f"a text was wanted, found {type(one).__name__}", path="<texts>", line=number)
        tokenizer = self.model.tokenizer
        writes = self.model.task is not None and self.model.task.name == "generate"
        pieces = tokenizer.encode(given, specials=not writes)  # a writer reads no [MASK]
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
        if text_b is None and writes:
            # Of what is too long its beginning is read, as above: `dropped` tells it.
            (written,) = self.generate([text], return_attention=True, long="first", stop=stop)
            names = {"tokens": "target_tokens", "keys": "source_tokens", "weights": "attention"}
            shown["cross"] = {name: written[theirs] for name, theirs in names.items()}
        return shown


def segmented(records: Sequence[Record], segmenter: Predictor) -> list[Record]:
    """The records with the words that a segmentation model finds in them, as "tokens"; a blank text has none."""
    found = segmenter.stream(record for record in records if not _is_blank(record))
    return [
        record if _is_blank(record) else replace(record, fields=record.fields | {"tokens": next(found)["words"]})
        for record in records
    ]


def _is_blank(record: Record) -> bool:
    text = record.fields.get("text")
    return isinstance(text, str) and not text.strip()
