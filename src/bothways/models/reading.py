"""A model's folder, read with suspicion: its shape, tokenizer, task and weights, in our words or transformers'."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from bothways import config
from bothways.data.repeats import MOST
from bothways.errors import BothwaysError, ConfigError, ModelError
from bothways.models.conversion import Layers, from_theirs
from bothways.models.files import read_json, shorten
from bothways.models.sentence_transformers import MODULES, sentence_task
from bothways.models.weights import HEADS, read_tensors, read_weights
from bothways.nn.encoder import EncoderConfig
from bothways.nn.layers import Features
from bothways.tasks import ARCHITECTURES, task_class
from bothways.tasks.base import Task
from bothways.text.tokenizer import Tokenizer

FORMAT = 1  # of bothways.json
FEATURES = "features"  # what it calls the vectors that heads read, where they are not their task's own
ADVICE = "finetune"  # and how the model is best fine-tuned
POINTS_LOST = "points_lost"  # and what it loses in other precisions
MAX_LABELS = 1 << 16
TEXTS = "training_texts.bin"  # hashes of the texts that the model learnt from, 8 bytes each
S = TypeVar("S")
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {  # of the encoder's settings, in JSON
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "a name"),
}


@dataclass(frozen=True)
class Advice:
    """How a model is best fine-tuned, as it says itself; a run follows it where nothing else is said."""

    method: Literal["adamw", "muon"]
    """by which optimizer"""
    lr: float
    """at which peak rate"""
    writing_lr: float | None = None
    """a writer that begins from it: by AdamW, at which peak rate; none: as any task"""

    def __post_init__(self) -> None:
        for name in ("lr", "writing_lr"):
            if (rate := getattr(self, name)) is not None and not 0 < rate < 1:
                raise ConfigError(f"{name} is {rate}; it must lie between 0 and 1")

    @property
    def for_writing(self) -> Advice:
        """The same as it goes for a writer."""
        return self if self.writing_lr is None else Advice("adamw", self.writing_lr, self.writing_lr)


def read_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """The shape in `config.json`, and the whole file.

    Raises:
        ModelError: no such file, not JSON, not an original BERT, or a shape that can't be.
    """
    path = folder / "config.json"
    raw = read_json(path)
    if raw.get("model_type") == "encoder-decoder":
        for part in ("encoder", "decoder"):
            if not isinstance(raw.get(part), dict):
                raise ModelError(f"{path}: {part} is {shorten(raw.get(part))}; it must be an object in braces")
        config = _shape(raw["encoder"], path)
        decoder = _shape(raw["decoder"], path, is_decoder=True)
        raw["decoder"] |= asdict(decoder)  # what the file leaves to defaults
        if (decoder.hidden_size, decoder.vocab_size) != (config.hidden_size, config.vocab_size):
            raise ModelError(f"{path}: encoder and decoder must have the same hidden_size and vocab_size")
        return config, raw
    return _shape(raw, path), raw


def _shape(raw: dict[str, Any], path: Path, *, is_decoder: bool = False) -> EncoderConfig:
    """The shape of one BERT."""
    kind = raw.get("model_type", "bert")
    if kind != "bert":
        raise ModelError(f'{path}: model_type is {shorten(kind)}; Bothways reads BERT models (model_type "bert")')
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f'{path}: position_embedding_type must be "absolute", as in the original BERT')
    if raw.get("is_decoder") and not is_decoder:
        raise ModelError(f"{path}: is_decoder is set; Bothways reads encoders, whose tokens see both sides")
    labels = raw.get("num_labels")
    if labels is not None and (type(labels) is not int or not 1 <= labels <= MAX_LABELS):
        raise ModelError(f"{path}: num_labels is {shorten(labels)}; it must be a whole number from 1 to {MAX_LABELS:,}")
    values = {}
    for entry in fields(EncoderConfig):
        if (value := raw.get(entry.name)) is None:
            continue
        types, what = _KINDS[str(entry.type)]
        if not isinstance(value, types) or isinstance(value, bool):
            raise ModelError(f"{path}: {entry.name} is {shorten(value)}; it must be {what}")
        values[entry.name] = value
    try:
        return EncoderConfig(**values)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from None


def saved_class(raw: dict[str, Any]) -> str:
    """The class of transformers that `config.json` names."""
    names = raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "BertModel"


def layers_of(config: EncoderConfig, raw: dict[str, Any]) -> Layers:
    """How many layers a folder's weights are of."""
    return Layers(config.num_hidden_layers, raw["decoder"]["num_hidden_layers"] if "decoder" in raw else 0)


def weights_of(folder: Path, config: EncoderConfig, raw: dict[str, Any], *, mapped: bool = False) -> dict[str, Tensor]:
    """All weights of a folder under our names: those that transformers knows, and heads that it has no class for.

    `mapped`: from the files as memory, where that can be (`read_tensors`).

    Raises:
        ModelError: files that are missing, unsafe or damaged, or weights that are no BERT's of that shape.
    """
    found = read_weights(folder, mapped=mapped)
    weights = from_theirs(found, layers_of(config, raw), saved_class(raw), where=str(folder))
    path = folder / HEADS
    if not path.is_file():
        return weights
    heads = read_tensors(path, mapped=mapped)
    for name in heads:
        if not name.startswith("heads.") or name in weights:
            raise ModelError(
                f"{path}: the weight {name} is not one of a head that only this file holds; copy or download it again"
            )
    return weights | {name: weight.float() for name, weight in heads.items()}


def tokenizer_of(folder: Path, config: EncoderConfig) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        ModelError: files that are missing or damaged, or a vocabulary larger than the encoder's.
    """
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.size > config.vocab_size:
        raise ModelError(
            f"{folder}: the vocabulary has {tokenizer.size} pieces, but config.json says vocab_size "
            f"{config.vocab_size}; they belong to different models"
        )
    return tokenizer


def saved_texts(folder: Path) -> np.ndarray | None:
    """(n,) uint64 hashes of the texts that a folder's model learnt from; None: it doesn't tell.

    Raises:
        ModelError: a file that can't be such.
    """
    path = folder / TEXTS
    if not path.is_file():
        return None
    if (size := path.stat().st_size) % 8 or size > 8 * MOST:
        raise ModelError(
            f"{path} has {size:,} bytes; wanted 8 a text, at most {8 * MOST:,}; copy it again, or remove it: "
            f"it only serves to find test records that were trained on"
        )
    return np.fromfile(path, dtype="<u8").astype(np.uint64)


def saved_task(folder: Path, raw: dict[str, Any]) -> Task | None:
    """The task of a saved model: from `bothways.json`, else from the class that transformers saved.

    Raises:
        ModelError: the task can't be restored, or the class is none that has a task here.
    """
    if (folder / "bothways.json").is_file():
        saved = read_json(folder / "bothways.json")
        if saved.get("format") != FORMAT:
            found = shorten(saved.get("format"))
            raise ModelError(f"{folder / 'bothways.json'}: format {found} is not {FORMAT}; update Bothways")
        return _restored(saved, folder / "bothways.json") if saved.get("task") is not None else None
    name = saved_class(raw)
    if name == "BertModel":
        return sentence_task(folder) if (folder / MODULES).is_file() else None
    if name in ARCHITECTURES:
        if (folder / "generation_config.json").is_file():
            raw = raw | {"generation": read_json(folder / "generation_config.json")}
        try:
            return _unambiguous(task_class(ARCHITECTURES[name]).from_config(raw))
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
    raise ModelError(
        f"{folder / 'config.json'}: {name} is not among the classes that Bothways loads with its heads "
        f"({', '.join(ARCHITECTURES)}); it can still be a starting point: bothways finetune TASK --model {folder}"
    )


def saved_features(folder: Path) -> Features | None:
    """What vectors a saved model's heads read; None: those of their task.

    Raises:
        ModelError: `bothways.json` says something else.
    """
    return _saved(Features, FEATURES, folder)


def saved_advice(folder: Path) -> Advice | None:
    """How a saved model is best fine-tuned, if it says so.

    Raises:
        ModelError: `bothways.json` says something else.
    """
    return _saved(Advice, ADVICE, folder)


def points_lost(folder: Path) -> dict[str, float]:
    """By how many points of its task's criterion the model did worse on dev records than in float32, by precision.

    Empty where that was not measured.

    Raises:
        ModelError: something else stands there.
    """
    path = folder / "bothways.json"
    found = read_json(path).get(POINTS_LOST, {}) if path.is_file() else {}
    if not isinstance(found, dict) or not all(type(lost) in (int, float) for lost in found.values()):
        raise ModelError(f"{path}: points_lost is {shorten(found)}; wanted a number for each precision, or none at all")
    return {precision: float(lost) for precision, lost in found.items()}


def _saved(kind: type[S], name: str, folder: Path) -> S | None:
    """What stands under that name in `bothways.json`, as settings of that kind."""
    path = folder / "bothways.json"
    raw = read_json(path).get(name) if path.is_file() else None
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise ModelError(f"{path}: {name} is {shorten(raw)}; it must be an object in braces")
    try:
        return config.from_dict(kind, raw)
    except ConfigError as error:
        raise ModelError(f"{path}: {name}: {error}; save the model again") from None


def _restored(saved: dict[str, Any], path: Path) -> Task:
    """The task that a `bothways.json` describes."""
    name = saved["task"]
    if not isinstance(name, str) or not isinstance(saved.get(name), dict):
        raise ModelError(f"{path}: task is {shorten(name)}, which the file doesn't describe; save the model again")
    try:
        return _unambiguous(task_class(name).from_dict(saved[name]))
    except KeyError as error:
        raise ModelError(f"{path}: {name} has no {error}; save the model again") from None
    except (BothwaysError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: the task {name} can't be restored ({error}); save the model again") from None


def _unambiguous(task: Task) -> Task:
    """The same task; predictions tell scores by label, so no two labels may have one name."""
    labels = getattr(task, "labels", None) or []
    if len(set(labels)) < len(labels):
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        raise ModelError(f"two labels are called {twice!r}; give each a name of its own")
    return task
