"""A model: tokenizer, network and task, made fresh, loaded from a folder or saved as one."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways.data.messages import nearest
from bothways.errors import BothwaysError, ConfigError, ModelError
from bothways.models.conversion import Layers, from_theirs, name_in_file, to_theirs
from bothways.models.files import read_json, shorten
from bothways.models.hub import locate
from bothways.models.sentence_transformers import MODULES, sentence_task
from bothways.models.weights import COMPACT, SINGLE, compacted, read_tensors, read_weights, sync, write_tensors
from bothways.nn.encoder import Encoder, EncoderConfig, Pooler, initialise
from bothways.nn.network import Network
from bothways.tasks import ARCHITECTURES, task_class
from bothways.tasks.base import Task
from bothways.tasks.merging import parted
from bothways.tasks.multi import MultiTask
from bothways.text.tokenizer import Tokenizer

FORMAT = 1
HEADS = "heads.safetensors"  # weights of heads that the saved class of transformers does not have
MAX_LABELS = 1 << 16
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {  # of the encoder's settings, in JSON
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "a name"),
}


@dataclass
class Model:
    """What is trained, saved and served. `task` is None for a bare encoder."""

    tokenizer: Tokenizer
    network: Network
    task: Task | None
    folder: Path | None = None
    told: list[str] = field(default_factory=list)  # what loading left out or began afresh, for the log

    @property
    def config(self) -> EncoderConfig:
        """The encoder's shape."""
        return self.network.encoder.config

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def fresh(config: EncoderConfig, tokenizer: Tokenizer, task: Task | None, *, pooler: bool = True) -> Model:
    """A model with random weights (from torch's generator, which the run has seeded)."""
    encoder = Encoder(config, pooler=pooler)
    return Model(tokenizer, task.network(encoder) if task else Network(encoder, {}), task)


def load(name: str | Path) -> Model:
    """The model in a folder that Bothways or transformers saved, with its own task.

    Raises:
        ModelError: no such model, files that are missing, unsafe or damaged, or a weight that is missing,
            misshapen or no BERT's (the task's heads included; other heads are left out and told).
    """
    folder = locate(name)
    config, raw = read_config(folder)
    task = _saved_task(folder, raw)
    tokenizer = _tokenizer(folder, config)
    weights = _weights(folder, config, raw)
    if task is not None:
        weights = _as_task_has_them(task.inward, weights, folder)
    # On the meta device weights take neither time nor memory, whatever config.json says; the file has all of them.
    with torch.device("meta"):
        encoder = Encoder(config)
        network = task.network(encoder) if task is not None else Network(encoder, {})
    if not _has_pooler(weights) and not any(hasattr(head, "pooler") for head in network.heads.values()):
        encoder.pooler = None
    named = functools.partial(name_in_file, layers=_layers(config, raw), architecture=saved_class(raw))
    _check(weights, network.state_dict(), named, where=str(folder))
    return _assign(Model(tokenizer, network, task, folder), weights)


def start_from(name: str | Path, task: Task) -> Model:
    """A model for `task` that starts from the encoder of another: its heads are kept where they fit, else fresh.

    Raises:
        ModelError: as `load`; heads of another task are left out and told, not an error.
    """
    folder = locate(name)
    config, raw = read_config(folder)
    tokenizer = _tokenizer(folder, config)
    weights = _weights(folder, config, raw)
    with torch.device("meta"):
        encoder = Encoder(config, pooler=_has_pooler(weights))
    named = functools.partial(name_in_file, layers=_layers(config, raw), architecture=saved_class(raw))
    _check(weights, {f"encoder.{key}": value for key, value in encoder.state_dict().items()}, named, where=str(folder))
    encoder.pooler = Pooler(config.hidden_size)
    initialise(encoder.pooler, config.initializer_range)
    weights = _as_task_has_them(functools.partial(task.first_weights, config=config), weights, folder)
    return _assign(Model(tokenizer, task.network(encoder), task, folder), weights)


def single_head(model: Model, name: str) -> Model:
    """One task of a model of several, with its own heads and the encoder, which is shared, not copied.

    Raises:
        ConfigError: the model has no such task.
    """
    where = str(model.folder or "<model>")
    if not isinstance(model.task, MultiTask):
        has = "none" if model.task is None else f"only its own, {model.task.name}"
        raise ConfigError(f"{where}: this model is not one of several tasks that could be told by name; it has {has}")
    if name not in model.task.parts:
        near = nearest(name, model.task.parts)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"{where}: there is no head {name!r}; there are {', '.join(model.task.parts)}{hint}")
    own = {
        head: model.network.head(joint)
        for joint in model.network.heads
        for owner, head in [parted(joint)]
        if owner == name
    }
    return replace(model, task=model.task.parts[name], network=Network(model.network.encoder, own))


def _as_task_has_them(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], weights: dict[str, Tensor], folder: Path
) -> dict[str, Tensor]:
    try:
        return change(weights)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None


def _layers(config: EncoderConfig, raw: dict[str, Any]) -> Layers:
    """How many layers a folder's weights are of."""
    return Layers(config.num_hidden_layers, raw["decoder"]["num_hidden_layers"] if "decoder" in raw else 0)


def _weights(folder: Path, config: EncoderConfig, raw: dict[str, Any]) -> dict[str, Tensor]:
    """All weights of a folder under our names: those that transformers knows, and heads that it has no class for."""
    weights = from_theirs(read_weights(folder), _layers(config, raw), saved_class(raw), where=str(folder))
    path = folder / HEADS
    if not path.is_file():
        return weights
    heads = read_tensors(path)
    for name in heads:
        if not name.startswith("heads.") or name in weights:
            raise ModelError(
                f"{path}: the weight {name} is not one of a head that only this file holds; copy or download it again"
            )
    return weights | {name: weight.float() for name, weight in heads.items()}


def _has_pooler(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("encoder.pooler.") for name in weights)


def _check(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], named: Callable[[str], str], *, where: str
) -> None:
    """Every wanted weight is there, in the shape that it should have; `named` tells its name in the file."""
    if missing := [name for name in wanted if name not in weights]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{where}: the weight {named(missing[0])}{more} is missing; the folder is not a whole model")
    for name, weight in wanted.items():
        if weights[name].shape != weight.shape:
            raise ModelError(
                f"{where}: the weight {named(name)} has shape {tuple(weights[name].shape)}, but {tuple(weight.shape)} "
                f"was wanted; config.json or the vocabulary belongs to another model"
            )


def _assign(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """Put weights into the network where they fit; tell what was left out and what starts from random."""
    own = model.network.state_dict()
    used = {
        name: weights[name] for name, weight in own.items() if name in weights and weights[name].shape == weight.shape
    }
    _tell(model.told, "left out", sorted(set(weights) - set(used)))
    _tell(model.told, "starts from random", sorted(set(own) - set(used)))
    # Copies, so that the file may change or go while the model is in use.
    model.network.load_state_dict({name: weight.clone() for name, weight in used.items()}, strict=False, assign=True)
    return model


def _tell(told: list[str], what: str, names: list[str]) -> None:
    groups = sorted({name.rsplit(".", 1)[0] for name in names})
    if groups:
        told.append(f"{what}: {', '.join(groups)}")


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


def _tokenizer(folder: Path, config: EncoderConfig) -> Tokenizer:
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.size > config.vocab_size:
        raise ModelError(
            f"{folder}: the vocabulary has {tokenizer.size} pieces, but config.json says vocab_size "
            f"{config.vocab_size}; they belong to different models"
        )
    return tokenizer


def _saved_task(folder: Path, raw: dict[str, Any]) -> Task | None:
    """The task of a saved model: from `bothways.json`, else from the class that transformers saved."""
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


def saved_class(raw: dict[str, Any]) -> str:
    """The class of transformers that `config.json` names."""
    names = raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "BertModel"


# --------------------------------------------------------------------------------------------------- saving


def save(model: Model, folder: str | Path, *, card: str = "", compact: bool = False) -> Path:
    """Write the model as a folder that transformers reads too, whole or not at all.

    `compact` stores the weights in a quarter of the bytes, rounded, for Bothways alone to read.

    Raises:
        ModelError: the folder exists and holds something.
        OSError: the disk is full, or may not be written to; nothing is left half-written.
    """
    folder = Path(folder)
    if folder.is_symlink() or folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise ModelError(f"{folder} exists already; give another folder, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        _write(model, part, card, compact)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _write(model: Model, folder: Path, card: str, compact: bool = False) -> None:
    name = model.task.architecture if model.task is not None else "BertModel"
    weights = model.network.state_dict()
    decoder = model.network.decoder
    layers = Layers(model.config.num_hidden_layers, 0 if decoder is None else decoder.config.num_hidden_layers)
    weights, heads = to_theirs(weights if model.task is None else model.task.outward(weights), layers, name)
    write_tensors(folder / (COMPACT if compact else SINGLE), compacted(weights) if compact else weights)
    if heads:
        write_tensors(folder / HEADS, heads)
    config = {
        "architectures": [name],
        "model_type": "bert",
        **asdict(model.config),
        "pad_token_id": model.tokenizer.pad_id,
        "dtype": "float32",
        "position_embedding_type": "absolute",
    }
    saved: dict[str, Any] = {"format": FORMAT, "task": None}
    if model.task is not None:
        saved |= {"task": model.task.name, model.task.name: model.task.to_dict()}
    files = {"config.json": config} if model.task is None else model.task.files(config, model.tokenizer)
    model.tokenizer.save(folder)
    for file, content in (files | {"bothways.json": saved}).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card or f"# A {name} made with Bothways\n", encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def seed_everything(seed: int) -> None:
    """Seed the generator that fresh weights are drawn from; everything else in a run is stateless."""
    torch.manual_seed(seed)
