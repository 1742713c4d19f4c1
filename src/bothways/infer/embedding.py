"""Vectors from any model: the same encoder under an embedding task, and what it gives for texts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from bothways.batch import Example
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.models.model import Model
from bothways.nn.layers import parse_layers
from bothways.nn.network import Network
from bothways.tasks.base import Coverage
from bothways.tasks.embed import HEAD, PARTS, EmbedSettings, EmbedTask, Level, Pooling, places_of
from bothways.tasks.parts import Words
from bothways.tasks.sequences import room_for

if TYPE_CHECKING:
    from bothways.infer.predictor import Predictor

CHUNK = 2048  # records read, sorted by length and computed together


@dataclass(frozen=True)
class Parts:
    """The vectors of one text's tokens, characters or words.

    vectors: (u, D) float32
    texts:   the parts as they stand in the raw text (for tokens: pieces of the vocabulary)
    offsets: (u, 2) their start and end in characters of the raw text; None for a list of words without it
    """

    vectors: np.ndarray
    texts: list[str]
    offsets: np.ndarray | None


def embedding_model(
    model: Model,
    *,
    level: Level = "sentence",
    layers: str | int | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    long: str | None = None,
    words: Words = "auto",
    prompt: str | None = None,
) -> Model:
    """The model's encoder with a head that gives vectors; the encoder is shared, not copied.

    What is not said is as an embedding model was saved; of others, and of parts of a text, the mean of the last
    layer's vectors, not normalised.

    Raises:
        ConfigError: an option that can't be, or two that contradict each other.
    """
    own = model.task if isinstance(model.task, EmbedTask) else EmbedTask(EmbedSettings(normalize=False))
    settings = own.settings
    if level == "pair" and model.config.type_vocab_size < 2:
        raise ConfigError("this model can't tell two texts apart (its type_vocab_size is 1), so it reads no pairs")
    if level in PARTS:
        if pooling == "cls":
            raise ConfigError(f"pooling cls is the vector of [CLS], which is of no {level}; wanted mean or max")
        if long == "cut":
            raise ConfigError(
                f"every {level} of a long text has its vector, from windows; leave long out, or say windows"
            )
        settings = replace(settings, pooling="mean", normalize=False)
    settings = _checked(settings, pooling, normalize, long)
    for name, value, known in (("level", level, get_args(Level)), ("words", words, get_args(Words))):
        _among(name, value, known)
    if prompt is not None and prompt not in own.prompts:
        there = ", ".join(own.prompts) or "none"
        raise ConfigError(f"prompt is {prompt!r}; the model's prompts are: {there}")
    if prompt is not None and level != "sentence":
        raise ConfigError(f"a prompt stands before a sentence, at no {level}; leave it out")
    usual = own.prompt if level == "sentence" else ""
    task = EmbedTask(
        settings,
        kind=own.kind,
        level=level,
        words=words,
        prompts=own.prompts,
        prompt=own.prompts[prompt] if prompt is not None else usual,
    )
    encoder = model.network.encoder
    mixed = parse_layers(layers, encoder.config.num_hidden_layers)
    return replace(model, task=task, network=Network(encoder, task.heads(encoder), layers=mixed).eval())


def check_length(predictor: Predictor) -> None:
    """That the model reads enough at once to embed anything: to be known before a file of vectors is begun.

    Raises:
        ConfigError: it doesn't.
    """
    task = predictor.model.task
    assert isinstance(task, EmbedTask)
    limit = min(predictor.max_length, task.settings.max_length or predictor.max_length)
    room_for(limit, texts=2 if task.level == "pair" else 1)


def _checked(settings: EmbedSettings, pooling: Any, normalize: bool | None, long: Any) -> EmbedSettings:
    """The settings with what is said, when that is one of the choices."""
    changed: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "long": long}
    _among("pooling", pooling, (None, *get_args(Pooling)))
    _among("long", long, (None, "windows", "cut"))
    return replace(settings, **{name: value for name, value in changed.items() if value is not None})


def _among(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; wanted one of {', '.join(filter(None, known))}")


@dataclass
class Told:
    """What should be known of the texts embedded so far."""

    records: int = 0
    coverage: Coverage = field(default_factory=Coverage)
    notes: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """In words, nothing where all is plain."""
        lines = [f"{count:,} of {self.records:,} texts: {note}" for note, count in self.notes.most_common()]
        if self.coverage.dropped:
            lines.append(f"{self.coverage.dropped:,} tokens were not read, {self.coverage.kept:,} were")
        return lines


def embedded(
    predictor: Predictor, records: Iterable[Record], *, told: Told | None = None, first: int = 0
) -> Iterator[np.ndarray | Parts]:
    """The vectors of each record, in order, chunk by chunk: memory stays flat however many records come.

    (D,) float32 for a text or a pair seen together, (g, D) for a record of several texts, `Parts` at the other levels.
    """
    records, done = iter(records), first
    task = predictor.model.task
    assert isinstance(task, EmbedTask)
    while chunk := list(islice(records, CHUNK)):
        encoded = predictor.encode(chunk, first=done)
        done += len(chunk)
        if told is not None:
            told.records += len(chunk)
            for one in encoded:
                told.coverage += one.coverage
                told.notes.update(one.notes)
        for answer in predictor.engine.answers([example for one in encoded for example in one.examples]):
            yield _of(answer.example, answer.scores[HEAD], parted=task.level in PARTS)


def _of(example: Example, vectors: np.ndarray, *, parted: bool) -> np.ndarray | Parts:
    if parted:
        places = places_of(example)
        return Parts(vectors, places.texts, places.offsets)
    return vectors[0] if len(vectors) == 1 else vectors


def embed(predictor: Predictor, records: Sequence[Record]) -> np.ndarray | list[Parts]:
    """All records' vectors: (n, D) float32, or `Parts` for each. A text that is windowed, cut or empty is warned of.

    (n, g, D) where each record has g texts apart.
    """
    told = Told()
    vectors = list(embedded(predictor, records, told=told))
    if lines := told.lines():
        warnings.warn("; ".join(lines), stacklevel=3)
    if vectors and isinstance(vectors[0], Parts):
        return cast(list[Parts], vectors)
    arrays = cast(list[np.ndarray], vectors)
    if other := next((number for number, one in enumerate(arrays) if one.shape != arrays[0].shape), None):
        raise records[other].error("this record has more or fewer texts than those before; wanted as many in each")
    return np.stack(arrays) if arrays else np.empty((0, width(predictor)), dtype=np.float32)


def width(predictor: Predictor) -> int:
    """D, the length of the vectors that the predictor gives."""
    return predictor.model.network.width
