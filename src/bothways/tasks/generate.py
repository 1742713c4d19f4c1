"""Generation: a target text for a source text, by an encoder-decoder (translation, headlines, dialogue, answers).

record      {"source": "今天天气很好。", "target": "The weather is fine today."}; a list of targets: several references
prediction  {"text": "…", "score": -0.31, "tokens": {"kept": 9}}; "unfinished": true when cut at the greatest length
metric      BLEU, chrF, ROUGE-1/2/L, distinct-1/2, and perplexity of the (first) reference
reference   Rothe et al., 2020, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks"
"""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from bothways import config
from bothways.batch import Batch, Example, Piece, Read
from bothways.data.record import Record, require
from bothways.errors import ConfigError, ModelError
from bothways.metrics.overlap import generation
from bothways.nn.cross_entropy import cross_entropy
from bothways.nn.decoder import Decoder
from bothways.nn.decoding_settings import Decoding, Writing, beside, from_words
from bothways.nn.encoder import ACTIVATIONS, Encoder, EncoderConfig
from bothways.nn.heads import Head, MaskedHead
from bothways.nn.network import TEXT, Network
from bothways.tasks.base import Answer, Coverage, Encoded, Task, settings_dict
from bothways.tasks.encoder_decoder import (
    ARCHITECTURE,
    EMBEDDINGS,
    check_id,
    check_runs,
    config_file,
    generation_file,
    read_config,
    weights_of_encoder,
    with_doubles,
    without_doubles,
)
from bothways.tasks.generate_settings import GenerateSettings, going_on
from bothways.tasks.sequences import single
from bothways.text.characters import HAN
from bothways.text.tokenizer import Encoded as Text
from bothways.text.tokenizer import Tokenizer

_OF_WRITERS = ("decoder.", f"heads.{TEXT}.")  # how the names of weights begin that only a writer has


class GenerateTask(Task):
    """A decoder that reads the encoder's vectors, and one head, "text": which piece comes next."""

    name = "generate"
    Settings = GenerateSettings
    criterion = "bleu"

    def __init__(
        self,
        settings: GenerateSettings,
        language: str | None = None,
        *,
        shape: dict[str, Any] | None = None,
        start: int | None = None,
        end: int | None = None,
        forbidden: Sequence[tuple[int, ...]] = (),
        told: Sequence[str] = (),
    ) -> None:
        """`language`: of the targets, "zh" or "other"; none: told by the references that are scored against.

        `shape`: where the decoder's shape is not the encoder's; `start`, `end`: ids, if not [CLS] and [SEP].
        `forbidden`: ids that are not written, beside the settings' words; `told`: as of every task.
        """
        self.asked, self.settings = settings, replace(settings, decoder=settings.decoder or "copy")
        self.language, self.start, self.end = language, start, end
        self.forbidden, self.told = tuple(forbidden), tuple(told)
        self.shape = dict(shape or {})
        if settings.decoder_layers is not None:
            self.shape["num_hidden_layers"] = settings.decoder_layers
        self.criterion = settings.criterion
        self.points = {"bleu": 1.0, "chrf": 1.0, "log_likelihood": None}.get(settings.criterion, 100.0)

    @property
    def architecture(self) -> str:
        """An encoder and a decoder that are both BERTs."""
        return ARCHITECTURE

    @classmethod
    def learn(cls, records: Sequence[Record], settings: GenerateSettings) -> GenerateTask:
        """The targets' language."""
        language = settings.language
        return cls(settings, _language_of(records) if language == "auto" else language)

    def after(self, start: Task | None, begun: Any = None) -> GenerateTask:
        """A writer goes on as the writer that it was: its decoder, its ids, and whatever is still as by default.

        Raises:
            ConfigError: another decoder is asked for than the one that has learnt, but for a fresh one.
        """
        if not isinstance(start, GenerateTask):
            return self
        settings, told = going_on(self.asked, start.settings, layers=start.shape.get("num_hidden_layers"))
        made = GenerateTask(
            settings,
            self.language,
            shape=None if settings.decoder == "fresh" else start.shape,
            start=start.start,
            end=start.end,
            forbidden=start.forbidden,
        )
        made.told = (*self.told, *told)
        return made

    # ------------------------------------------------------------------------------------------------ network

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """None on the encoder itself."""
        raise ConfigError("generate has a decoder of its own, so it can't share an encoder with other tasks")

    def network(self, encoder: Encoder) -> Network:
        """Encoder, decoder and the head on the decoder, whose own start is random."""
        config = self.decoder_config(encoder.config)
        decoder = Decoder(config, shared=encoder if self.settings.decoder == "share" else None)
        head = MaskedHead(
            decoder.embeddings.word,
            activation=ACTIVATIONS[config.hidden_act],
            layer_norm_eps=config.layer_norm_eps,
            initializer_range=config.initializer_range,
            tied=self.settings.tied,
        )
        return Network(encoder, {TEXT: head}, decoder)

    def decoder_config(self, encoder: EncoderConfig) -> EncoderConfig:
        """The decoder's shape."""
        return replace(encoder, **self.shape)

    def first_weights(self, weights: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
        """An encoder's weights as this model's: the decoder's too unless it is fresh, and its masked-LM head's."""
        if self.settings.decoder == "fresh":
            weights = {name: weight for name, weight in weights.items() if not name.startswith(_OF_WRITERS)}
        else:
            layers = self.decoder_config(config).num_hidden_layers
            cross = self.settings.cross == "copy"
            weights = weights_of_encoder(weights, layers=layers, tied=self.settings.tied, cross=cross)
        return self.inward(weights)

    def inward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's weights without those that stand there twice: shared layers, a tied matrix.

        Raises:
            ModelError: these are of a vocabulary without the ids that this task begins, ends or forbids texts by.
        """
        words = weights.get(EMBEDDINGS)
        if words is not None and words.ndim == 2:  # else they are refused for that
            self._check_ids(len(words))
        return without_doubles(weights, shared=self.settings.decoder == "share", tied=self.settings.tied)

    def _check_ids(self, size: int) -> None:
        try:
            for name, id_ in self._ends().items():
                check_id(name, id_, size)
            check_runs("forbidden", [list(ids) for ids in self.forbidden], size)
        except ConfigError as error:
            raise ModelError(f"bothways.json: {self.name}: {error}; save the model again") from None

    def outward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """All weights that transformers wants, shared ones twice."""
        return with_doubles(weights) if self.settings.decoder == "share" else weights

    # ----------------------------------------------------------------------------------------------- examples

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """[CLS] source [SEP], and when `labelled` the target that is taught: [CLS] target, to be told as target [SEP].

        To predict, a record with a "text" will do.
        """
        sources = tokenizer.encode([source_of(record, labelled) for record in records])
        targets: list[Text | None] = [None] * len(records)
        if labelled:
            targets = [*tokenizer.encode([targets_of(record)[0] for record in records])]
        writing = self.writing(tokenizer)
        encoded = []
        for number, (record, source, target) in enumerate(zip(records, sources, targets, strict=True), first):
            pieces, coverage = self._source(record, source, tokenizer, number, max_length)
            if target is None:
                example = Example(tuple(pieces), {}, decoding=writing, seed=_seed(source))
            else:
                decoder, read, dropped = self._target(record, target, writing, max_length)
                example = Example(tuple(pieces), {TEXT: read}, decoder=decoder, decoding=writing, seed=_seed(source))
                coverage += Coverage(dropped=dropped)
            encoded.append(Encoded([example], coverage))
        return encoded

    def writing(self, tokenizer: Tokenizer) -> Writing:
        """The decoding settings in this tokenizer's ids. Special tokens are no text, and never written.

        Raises:
            ConfigError: a forbidden word that has no tokens.
            ModelError: the end is no piece of this tokenizer.
        """
        settings = self.settings.decoding
        forbidden = [tuple(text.ids.tolist()) for text in tokenizer.encode(settings.forbidden)]
        for word, ids in zip(settings.forbidden, forbidden, strict=True):
            if not ids:
                raise ConfigError(f"forbidden has {word!r}, which is nothing but blanks; leave it out")
        start = tokenizer.cls_id if self.start is None else self.start
        end = tokenizer.sep_id if self.end is None else self.end
        if end >= tokenizer.size:  # what is not in it is never written, so no text would end
            raise ModelError(
                f"a text is to end with id {end}, but the tokenizer has {tokenizer.size} pieces; they belong to "
                "different models: name another end (eos_token_id of generation_config.json, or end in bothways.json)"
            )
        # Above all [UNK]: a target with rare characters teaches it, and a reader can do nothing with it.
        special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
        every = dict.fromkeys([*forbidden, *self.forbidden, *((id_,) for id_ in special)])
        return Writing(settings, start, end, tuple(ids for ids in every if ids != (end,)), tokenizer.size)

    def _source(
        self, record: Record, text: Text, tokenizer: Tokenizer, number: int, max_length: int
    ) -> tuple[list[Piece], Coverage]:
        if not len(text.ids):
            raise record.error("the source is empty (nothing but blanks or control characters); leave the record out")
        room = max_length - 2
        if len(text.ids) > room and self.settings.long == "refuse":
            raise record.error(
                f"the source has {len(text.ids)} tokens, the model reads {room} at once; shorten it, or say "
                f"--generate.long windows (all of it, in windows side by side) or first (its first {room} tokens); "
                'in Python and over HTTP it is the option long="windows"'
            )
        stride = min(32, room // 4)
        windows = 1 if self.settings.long == "first" else None
        pieces, coverage = single(text, tokenizer, record=number, max_length=max_length, windows=windows, stride=stride)
        origin = pieces[0].origin
        assert origin is not None
        pieces[0] = replace(pieces[0], origin=replace(origin, extra=tokenizer))
        return pieces, coverage

    def _target(self, record: Record, text: Text, writing: Writing, max_length: int) -> tuple[Piece, Read, int]:
        """What the decoder is given, what it shall answer, and how many tokens were cut."""
        if not len(text.ids):
            raise record.error("the target is empty (nothing but blanks or control characters); leave the record out")
        # The decoder may have fewer positions than the encoder, which `max_length` knows of.
        room = min(max_length, self.shape.get("max_position_embeddings", max_length)) - 1
        if len(text.ids) > room and self.settings.long == "refuse":
            raise record.error(
                f"the target has {len(text.ids)} tokens, the model writes {room}; shorten it, or say "
                f'--generate.long first (its first {room} tokens are taught), in Python generate={{"long": "first"}}'
            )
        ids = text.ids[:room].astype(np.int64)
        # A cut target ends nowhere: the model must not learn that it does.
        labels = np.append(ids, writing.end) if len(ids) == len(text.ids) else ids
        given = np.concatenate([[writing.start], ids])[: len(labels)]
        read = Read(np.arange(len(labels)), np.array([len(labels)]), labels=labels, weight=float(len(labels)))
        return Piece(given), read, len(text.ids) - len(ids)

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each next token, the right one before it given (teacher forcing)."""
        labels = batch.targets[TEXT].labels
        assert labels is not None
        return {TEXT: cross_entropy(scores[TEXT], labels, label_smoothing=self.settings.label_smoothing)}

    # -------------------------------------------------------------------------------------------- predictions

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The text that was written; of a labelled record also how likely its reference is."""
        scores, origin = answers[0].scores, answers[0].example.pieces[0].origin
        assert origin is not None
        prediction: dict[str, Any] = {
            "text": origin.extra.decode(scores["ids"].tolist()),
            "score": float(scores["score"]),
        }
        if not scores["ended"]:
            prediction["unfinished"] = True
        if "gold" in scores:
            total, count = scores["gold"].tolist()
            prediction["reference"] = {"log_likelihood": total, "tokens": int(count)}
        return prediction

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Overlap with the references, variety, and perplexity a token."""
        gold = [targets_of(record) for record in records]
        language = self.language or _language_of(records)
        scores = generation(gold, [one["text"] for one in predictions], language=language)
        signatures = scores.pop("signatures")
        known = [one["reference"] for one in predictions if "reference" in one]
        mean = sum(one["log_likelihood"] for one in known) / max(1, sum(one["tokens"] for one in known))
        if known:
            scores |= {"log_likelihood": mean, "perplexity": math.exp(min(-mean, 700.0))}
        unfinished = sum("unfinished" in one for one in predictions)
        return scores | {"unfinished": unfinished, "signatures": signatures}

    def with_options(self, **options: Any) -> GenerateTask:
        """Other decoding settings, and `long`; of those kept with the model, what agrees with them stays."""
        other = copy.copy(self)
        given = {name.replace("-", "_"): value for name, value in options.items()}
        long = given.pop("long", self.settings.long)
        known = {entry.name for entry in fields(Decoding)}
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(
                f"generate takes no option {unknown[0]!r}; known are {', '.join(sorted([*known, 'long']))}"
            )
        said = {name: from_words(name, value) for name, value in given.items()}
        decoding = config.from_dict(Decoding, beside(said, asdict(self.settings.decoding)) | said)
        long = config.from_dict(GenerateSettings, {"long": long}).long
        other.settings = replace(self.settings, decoding=decoding, long=long)
        return other

    # ------------------------------------------------------------------------------------------------- saving

    def files(self, base: dict[str, Any], tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
        """config.json as EncoderDecoderModel has it, and generation_config.json."""
        writing = self.writing(tokenizer)
        whole = config_file(base, self.shape, writing, pad=tokenizer.pad_id, tied=self.settings.tied)
        return {"config.json": whole, "generation_config.json": generation_file(writing, pad=tokenizer.pad_id)}

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> GenerateTask:
        """The task of an EncoderDecoderModel of two BERTs; `raw["generation"]` has its generation_config.json.

        Raises:
            ModelError: the decoder is none that can be read here.
        """
        found = read_config(raw)
        settings = GenerateSettings(tied=found.tied, decoding=found.decoding)
        return cls(
            settings,
            shape=found.shape,
            start=found.start,
            end=found.end,
            forbidden=found.forbidden,
            told=found.told,
        )

    def to_dict(self) -> dict[str, Any]:
        """Settings, language, shape and ids."""
        settings = settings_dict(self.settings)
        settings["decoding"] = settings_dict(self.settings.decoding)
        forbidden = {"forbidden": [list(ids) for ids in self.forbidden]} if self.forbidden else {}
        return {"settings": settings, "language": self.language, "shape": self.shape, **self._ends(), **forbidden}

    def _ends(self) -> dict[str, int]:
        return {name: id_ for name, id_ in (("start", self.start), ("end", self.end)) if id_ is not None}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> GenerateTask:
        """The task that `to_dict` described.

        Raises:
            ConfigError: a setting or an id that can't be.
        """
        settings = config.from_dict(GenerateSettings, saved["settings"])
        shape, start, end = saved["shape"], saved.get("start"), saved.get("end")
        forbidden = saved.get("forbidden", [])
        for name, id_ in (("start", start), ("end", end)):
            if id_ is not None:
                check_id(name, id_)
        check_runs("forbidden", forbidden)
        runs = [tuple(ids) for ids in forbidden]
        return cls(settings, saved["language"], shape=shape, start=start, end=end, forbidden=runs)


_HAN = re.compile(f"[{HAN}]")


def source_of(record: Record, labelled: bool) -> str:
    """The text to read; to predict, any "text" will do."""
    name = "source" if labelled or "source" in record.fields or "text" not in record.fields else "text"
    return require(record, name, str)


def targets_of(record: Record) -> list[str]:
    """The reference, or all of them.

    Raises:
        DataError: none, or no text.
    """
    found = require(record, "target", str, list[str])
    if isinstance(found, str):
        return [found]
    if not found:
        raise record.error('"target" is an empty list; wanted a text, or several as references')
    return found


def _language_of(records: Sequence[Record]) -> str:
    """The language of the targets: zh where more than a third of the first ones' characters are Han."""
    text = "".join(targets_of(record)[0] for record in records[:1000])
    return "zh" if len(_HAN.findall(text)) > len(text) / 3 else "other"


def _seed(source: Text) -> int:
    """What sampling draws from: a number of the source itself, so that its place among others does not matter."""
    return zlib.crc32(source.ids.astype(np.int64).tobytes())
