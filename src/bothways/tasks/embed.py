"""Embedding: a vector for a text, for two texts seen together, or for each token, character or word of a text.

record      {"text": "今天下雨。"} or {"text_a": "…", "text_b": "…"}; the forms to train on are in `embed_records.py`
prediction  {"vector": […]}; of two texts apart {"score": their cosine, "vectors": […]}; of parts {"parts": [{"text":
            "今天", "start": 0, "end": 2, "vector": […]}, …]}
metric      graded pairs: Spearman, Pearson; pairs: the right text among all of them (accuracy, MRR, recall)
reference   Reimers and Gurevych, Sentence-BERT, 2019; the saved folder is a sentence-transformers model too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bothways.batch import Batch, Example, Piece, Read
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.nn.encoder import Encoder
from bothways.nn.heads import Head
from bothways.nn.pooling import VectorHead
from bothways.tasks.base import Answer, Coverage, Encoded, Task, settings_dict
from bothways.tasks.embed_loss import step_loss
from bothways.tasks.embed_metrics import cosine, embed_metrics
from bothways.tasks.embed_records import (
    Kind,
    check_taught,
    is_taught_words,
    kind_of_all,
    labels_of,
    taught_words,
    texts_of,
)
from bothways.tasks.gradient_cache import JointLoss
from bothways.tasks.parts import Places, Words, encode_parts
from bothways.tasks.sequences import encode_pairs, single
from bothways.text.tokenizer import Tokenizer

HEAD = "vector"
WINDOWED = "longer than the model reads at once: pooled over windows"
PARTS = ("token", "character", "word")
SIDES = {"query": ("query",), "document": ("document", "passage", "corpus")}  # sentence-transformers' names of prompts
Level = Literal["sentence", "pair", "token", "character", "word"]
Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True)
class EmbedSettings:
    """How texts become vectors, and how those are learnt."""

    pooling: Pooling | None = None
    """a text's vector: the mean of its tokens' (special ones included), that of [CLS], or their maximum; none: as in
    the model that it begins from, or else the mean"""
    normalize: bool = True
    """vectors of length 1, so that a dot product is a cosine"""
    long: Literal["windows", "cut"] = "windows"
    """a text longer than the model: pool over all of its windows, or read the first one only"""
    max_length: int | None = None
    """tokens of a window; none: as in the model that it begins from, or else what it reads"""
    scale: float = 20.0
    """what cosines are multiplied by in the loss: the inverse of a temperature"""
    positive: str | None = None
    """of pairs with labels, the label that says that both belong together; pairs of other labels are left out"""
    teacher: str | None = None
    """of single texts: another model, whose vectors of them are learnt: a folder, a run, or a name on the hub"""
    taught: Literal["sentence", "word"] = "sentence"
    """what of a text the teacher's vectors are of"""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 3:
            raise ConfigError(f"embed.max_length is {self.max_length}; at least 3 tokens are needed")
        if not self.scale > 0:
            raise ConfigError(f"embed.scale is {self.scale}; it must be above 0")
        if self.taught == "word" and self.teacher is None:
            raise ConfigError("embed.taught is word, but no teacher is named; say embed.teacher too")
        if self.taught == "word" and self.pooling not in (None, "mean"):
            raise ConfigError(
                f"embed.taught is word, and a word's vector is the mean of its pieces'; found embed.pooling "
                f"{self.pooling}: leave it out"
            )


class EmbedTask(Task):
    """One head, "vector", that pools the rows of each group.

    kind:    what training records it learns from; None: it was not trained here
    level:   what gets a vector
    words:   how a text is parted, at that level
    prompts: what some models want before a text, by name; `prompt` is put before each text
    """

    name = "embed"
    criterion = "score"
    Settings = EmbedSettings

    def __init__(
        self,
        settings: EmbedSettings,
        *,
        kind: Kind | None = None,
        level: Level = "sentence",
        words: Words = "auto",
        prompts: dict[str, str] | None = None,
        prompt: str = "",
    ) -> None:
        self.asked, self.settings = settings, replace(settings, pooling=settings.pooling or "mean")
        self.prompts, self.prompt = prompts or {}, prompt
        self.kind: Kind | None = kind
        self.points = None if kind == "texts" else 100.0  # their score is how evenly vectors spread, in nats
        self.longest = settings.max_length
        self.level: Level = level
        self.segments = 2 if level == "pair" else 1
        self.words: Words = words

    def after(self, start: Task | None, begun: EmbedSettings | None = None) -> EmbedTask:
        """How the model before pooled, what it read at once and its prompts; words' vectors are always means."""
        before, asked, lines = start if isinstance(start, EmbedTask) else None, begun or self.asked, []
        if before is not None and begun is None:
            names = ("max_length",) if asked.taught == "word" else ("pooling", "max_length")
            taken = {name: getattr(before.settings, name) for name in names if getattr(asked, name) is None}
            lines = [f"{name} {value}" for name, value in taken.items() if value is not None]
            asked = replace(asked, **taken)
        made = EmbedTask(
            asked,
            kind=self.kind,
            level=self.level,
            words=self.words,
            prompts=before.prompts if before is not None else {},
            prompt=before.prompt if before is not None else "",
        )
        if made.prompts:
            lines.append(f"the prompts {', '.join(made.prompts)} ({made._told_prompts()} in training)")
        if before is not None and before.settings.pooling != made.settings.pooling:
            lines.append(f"but pooling {made.settings.pooling}, not {before.settings.pooling}")
        made.told = [f"as the model that it begins from: {', '.join(lines)}"] if lines else []
        return made

    def settled(self, settings: EmbedSettings) -> EmbedSettings:
        """With the pooling and the longest text that were taken over."""
        return replace(settings, pooling=self.settings.pooling, max_length=self.settings.max_length)

    @property
    def architecture(self) -> str:
        """The bare encoder; sentence-transformers' files say how it is pooled."""
        return "BertModel"

    @classmethod
    def learn(cls, records: Sequence[Record], settings: EmbedSettings) -> EmbedTask:
        """What kind of records these are; with a teacher, those that `train.teaching` will make of them."""
        kind = kind_of_all(records, settings.positive)
        if settings.teacher is not None:
            check_taught(records, words=settings.taught == "word")
            kind = "words" if settings.taught == "word" else "teacher"
        return cls(settings, kind=kind)

    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """Pooling, which has nothing to learn."""
        pooling = "max" if self.settings.pooling == "max" else "mean"
        return {HEAD: VectorHead(pooling, normalize=self.settings.normalize)}

    # ------------------------------------------------------------------------------------------- encoding

    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """A group of rows for each text, pair or part; the texts of one record stay together."""
        limit = min(max_length, self.longest or max_length)
        if self.level in PARTS:
            return encode_parts(
                records,
                tokenizer,
                level=self.level,
                words=self.words,
                max_length=limit,
                first=first,
                head=HEAD,
            )
        if self.level == "pair":
            windows = self.settings.long == "windows"
            pairs = encode_pairs(records, tokenizer, max_length=limit, windows=windows, first=first)
            return [
                Encoded(
                    [Example(tuple(pieces), {HEAD: self._read([pieces])})],
                    coverage,
                    (WINDOWED,) if len(pieces) > 1 else (),
                )
                for pieces, coverage in pairs
            ]
        kind = kind_of_all(records, self.settings.positive) if labelled else None
        if kind == "words":
            return self._words(records, tokenizer, limit, first)
        return self._sentences(records, tokenizer, kind, limit, first)

    def prompt_of(self, side: Literal["query", "document"]) -> str | None:
        """The name of the prompt for one side of a search, if there is one."""
        return next((name for name in SIDES[side] if name in self.prompts), None)

    def before_texts(self, kind: Kind | None, number: int) -> list[str]:
        """What stands before each of a record's texts: of pairs to learn from, what stands there in a search."""
        if kind != "pairs":
            return [self.prompt] * number
        query, document = (
            self.prompts[name] if (name := self.prompt_of(side)) else self.prompt for side in ("query", "document")
        )
        return [query, *[document] * (number - 1)][:number]

    def _told_prompts(self) -> str:
        """Which prompts stand before which texts in training, in words."""
        if self.kind == "words":
            return "none"
        first, other = self.before_texts(self.kind, 2)
        if first == other:
            return f"{first!r} before each text" if first else "none"
        places = ((first, "the first text of a pair"), (other, "the others"))
        return ", ".join(f"{prompt!r} before {place}" for prompt, place in places if prompt)

    def _words(self, records: Sequence[Record], tokenizer: Tokenizer, limit: int, first: int) -> list[Encoded]:
        """A group of rows for each word that a teacher has a vector of, with that vector."""
        parted = encode_parts(
            records, tokenizer, level="word", words=self.words, max_length=limit, first=first, head=HEAD
        )
        encoded = []
        for record, one in zip(records, parted, strict=True):
            (example,) = one.examples
            read = taught_words(record, example.reads[HEAD], places_of(example).offsets)
            encoded.append(replace(one, examples=[replace(example, reads={HEAD: read})] if len(read.groups) else []))
        return encoded

    def _sentences(
        self, records: Sequence[Record], tokenizer: Tokenizer, kind: Kind | None, limit: int, first: int
    ) -> list[Encoded]:
        """[CLS] text [SEP] of each text, in windows if it is long."""
        positive = self.settings.positive
        texts = [texts_of(record, kind, positive) for record in records]
        plain = [text for several in texts for text in several]
        prompts = [prompt for several in texts for prompt in self.before_texts(kind, len(several))]
        encodings = iter(tokenizer.encode([prompt + text for prompt, text in zip(prompts, plain, strict=True)]))
        # Under two prompts one text is two sequences: that it is one is told by itself.
        alone = iter(tokenizer.encode(plain) if len({*self.before_texts(kind, 2)}) > 1 else ())
        encoded = []
        for number, (record, several) in enumerate(zip(records, texts, strict=True), first):
            if not several:
                encoded.append(Encoded([], Coverage(), ("another label than embed.positive: left out",)))
                continue
            pieces: list[list[Piece]] = []
            coverage, notes = Coverage(), []
            themselves = [[Piece(text.ids)] for text in islice(alone, len(several))]
            for _ in several:
                text = next(encodings)
                if not len(text.ids):
                    if kind is not None:
                        message = "a text is empty (nothing but blanks or control characters); leave the record out"
                        raise record.error(message)
                    notes.append("the text is empty: its vector is that of [CLS] [SEP]")
                windows = None if self.settings.long == "windows" else 1
                own, read = single(text, tokenizer, record=number, max_length=limit, windows=windows)
                pieces.append(own)
                coverage += read
                if len(own) > 1:
                    notes.append(WINDOWED)
            read = self._read(pieces)
            if kind is not None:
                # Its loss is a mean over all texts of a step where each has a teacher's vector, else over records.
                weight = float(len(pieces)) if kind == "teacher" else 1.0
                read = replace(read, labels=labels_of(record, kind, themselves or pieces), weight=weight)
            example = Example(tuple(piece for own in pieces for piece in own), {HEAD: read})
            encoded.append(Encoded([example], coverage, tuple(dict.fromkeys(notes))))
        return encoded

    def _read(self, texts: Sequence[Sequence[Piece]]) -> Read:
        """One group a text: every token of all its windows, or their [CLS], once for each token if there are several.

        So that a long text's windows weigh what they hold, whichever way they are pooled.
        """
        rows, sizes, at = [], [], 0
        for pieces in texts:
            lengths = np.array([len(piece.input_ids) for piece in pieces])
            if self.settings.pooling != "cls":
                own = np.arange(lengths.sum())
            elif len(pieces) == 1:
                own = np.zeros(1, dtype=int)
            else:
                own = np.repeat(np.cumsum(lengths) - lengths, lengths)
            rows.append(own + at)
            sizes.append(len(own))
            at += int(lengths.sum())
        return Read(np.concatenate(rows), np.array(sizes))

    # ------------------------------------------------------------------------------------------- training

    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The loss of this batch by itself: that of a step which is no larger."""
        target = batch.targets[HEAD]
        assert target.labels is not None
        return {HEAD: self._step_loss(scores[HEAD], target.labels) * target.weight}

    def joint_losses(self) -> dict[str, JointLoss]:
        """The loss is between all texts of a step, however it is split."""
        return {HEAD: self._step_loss}

    def _step_loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        assert self.kind is not None
        return step_loss(self.kind, vectors, labels, scale=self.settings.scale)

    # ------------------------------------------------------------------------------------------ predicting

    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The vector, the vectors of several texts and the cosine of the first two, or those of the parts."""
        if not answers:
            return {"vectors": []}
        vectors = answers[0].scores[HEAD]
        if is_taught_words(record):
            return {"taught": (vectors, answers[0].example.reads[HEAD].labels)}
        if self.level in PARTS:
            places = places_of(answers[0].example)
            return {
                "parts": [
                    part | {"vector": vector.tolist()} for part, vector in zip(told(places), vectors, strict=True)
                ]
            }
        if len(vectors) == 1:
            return {"vector": vectors[0].tolist()}
        return {"score": cosine(vectors[0], vectors[1]), "vectors": vectors.tolist()}

    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """By what the records are; "score" is what the best epoch is chosen by."""
        return embed_metrics(records, predictions, kind_of_all(records, self.settings.positive))

    def with_options(self, **options: Any) -> EmbedTask:
        """What is read of a text may be chosen for each call; how it is pooled is the head's, so it may not."""
        raise ConfigError(
            f"embed takes no options when predicting; found {', '.join(sorted(options))}: they are those of "
            "Predictor.embedder()"
        )

    # --------------------------------------------------------------------------------------------- saving

    def to_dict(self) -> dict[str, Any]:
        """Settings, and what it was trained on."""
        usual = {"prompt": self.prompt} if self.prompt else {}
        settings = settings_dict(replace(self.settings, teacher=None, taught="sentence"))  # of the run, not the model
        return {"kind": self.kind, "prompts": self.prompts, **usual, "settings": settings}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> EmbedTask:
        """The task that `to_dict` described."""
        settings = EmbedSettings(**saved["settings"])
        return cls(settings, kind=saved["kind"], prompts=saved["prompts"], prompt=saved.get("prompt", ""))

    def files(self, base: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
        """What sentence-transformers reads beside the encoder, in the words that all its releases know."""
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        if self.settings.normalize:
            modules.append(("2_Normalize", "Normalize"))
        reads = base["max_position_embeddings"]
        limit = min(self.longest or reads, reads)
        modes = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
        return super().files(base, tokenizer) | {
            "modules.json": [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (path, kind) in enumerate(modules)
            ],
            "1_Pooling/config.json": {
                "word_embedding_dimension": base["hidden_size"],
                **{f"pooling_mode_{name}": mode == self.settings.pooling for name, mode in modes.items()},
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
            "sentence_bert_config.json": {"max_seq_length": limit, "do_lower_case": False},
            "config_sentence_transformers.json": {
                "prompts": self.prompts,
                "default_prompt_name": next((name for name, one in self.prompts.items() if one == self.prompt), None),
                "similarity_fn_name": "cosine",
            },
        }


def places_of(example: Example) -> Places:
    """Where the parts of a text stand, as `encode` left it in the origin of its first window."""
    origin = example.pieces[0].origin
    assert origin is not None
    return origin.extra


def told(places: Places) -> list[dict[str, Any]]:
    """The parts as predictions show them."""
    if places.offsets is None:
        return [{"text": text} for text in places.texts]
    return [
        {"text": text, "start": start, "end": end}
        for text, (start, end) in zip(places.texts, places.offsets.tolist(), strict=True)
    ]
