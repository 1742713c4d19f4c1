"""A model: tokenizer, network and task, made fresh, loaded from a folder or saved as one."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.data.messages import nearest
from bothways.data.whole import taken, whole
from bothways.errors import BothwaysError, ConfigError, ModelError
from bothways.models.conversion import Layers, name_in_file, to_theirs
from bothways.models.hub import locate
from bothways.models.reading import (
    ADVICE,
    FEATURES,
    FORMAT,
    POINTS_LOST,
    TEXTS,
    Advice,
    layers_of,
    points_lost,
    read_config,
    saved_advice,
    saved_class,
    saved_features,
    saved_task,
    saved_texts,
    tokenizer_of,
    weights_of,
)
from bothways.models.sentence_transformers import MODULES
from bothways.models.weights import COMPACT, HEADS, SINGLE, compacted, weight_types, write_tensors
from bothways.nn.encoder import Encoder, EncoderConfig, Pooler, initialise
from bothways.nn.layers import Features
from bothways.nn.network import Network
from bothways.tasks.base import Task, settings_dict
from bothways.tasks.embed import EmbedTask
from bothways.tasks.merging import parted
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer


@dataclass
class Model:
    """What is trained, saved and served.

    task:        None for a bare encoder
    told:        what loading left out or began afresh, and what saving will leave out, for the log
    drawn:       the names of the weights that it began afresh
    trained_on:  (n,) uint64 hashes of the texts that it learnt from (`data/repeats.py`); None: not known, too many
    points_lost: by precision, how many points of its criterion it lost on dev against float32, where that was measured
    advice:      how it is best fine-tuned; None: as any model
    """

    tokenizer: Tokenizer
    network: Network
    task: Task | None
    folder: Path | None = None
    told: list[str] = field(default_factory=list)
    drawn: frozenset[str] = frozenset()
    trained_on: np.ndarray | None = None
    points_lost: dict[str, float] = field(default_factory=dict)
    advice: Advice | None = None

    @property
    def config(self) -> EncoderConfig:
        """The encoder's shape."""
        return self.network.encoder.config

    @property
    def parameters(self) -> int:
        """How many numbers are learnt; tied ones count once."""
        return _count(self.network)


def fresh(config: EncoderConfig, tokenizer: Tokenizer, task: Task | None, *, pooler: bool = True) -> Model:
    """A model with random weights (from torch's generator, which the run has seeded)."""
    encoder = Encoder(config, pooler=pooler)
    return Model(tokenizer, task.network(encoder) if task else Network(encoder, {}), task)


def load(name: str | Path, *, mapped: bool = False) -> Model:
    """The model in a folder that Bothways or transformers saved, with its own task.

    What the folder asks for and the task does not do is warned of, and told.

    `mapped`: its weights are the files themselves as memory (`read_tensors`), for a process that soon ends: of the word
    embeddings, half of a small model, it touches few. Else the model outlives its folder, whatever becomes of that.

    Raises:
        ModelError: no such model, files that are missing, unsafe or damaged, or a weight that is missing,
            misshapen or no BERT's (the task's heads included; other heads are left out and told).
    """
    folder = locate(name)
    config, raw = read_config(folder)
    task = saved_task(folder, raw)
    told = [] if task is None else [*task.told]
    for line in told:  # here, for whoever only predicts reads no log
        logging.getLogger("bothways").warning("bothways: %s: %s", folder, line)
    tokenizer = tokenizer_of(folder, config)
    weights = weights_of(folder, config, raw, mapped=mapped)
    if task is not None:
        weights = _as_task_has_them(task.inward, weights, folder)
    network = _outline(config, task, folder, pooler=_has_pooler(weights))
    named = functools.partial(name_in_file, layers=layers_of(config, raw), architecture=saved_class(raw))
    _check(weights, network.state_dict(), named, where=str(folder))
    made = Model(
        tokenizer,
        network,
        task,
        folder,
        told,
        trained_on=saved_texts(folder),
        points_lost=points_lost(folder),
        advice=saved_advice(folder),
    )
    return _assign(made, weights)


def count_parameters(folder: Path) -> int:
    """What `load` would give as `Model.parameters`, by what the folder's files say of themselves.

    Of a class that can only be started from, its encoder's.

    Raises:
        ModelError: no shape or no weights are there, or they are unsafe or damaged.
    """
    config, raw = read_config(folder)
    try:
        task = saved_task(folder, raw)
    except ModelError:
        task = None
    return _count(_outline(config, task, folder, pooler=any("pooler." in name for name in weight_types(folder))))


def _count(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _outline(config: EncoderConfig, task: Task | None, folder: Path, *, pooler: bool) -> Network:
    """The network of a folder whose weights are yet to come; without a pooler where neither file nor head has one."""
    if not isinstance(task, PretrainTask):  # what it learnt from two texts is not asked for
        _check_segments(config, task, folder)
    # On the meta device weights take neither time nor memory, whatever config.json says; the file has all of them.
    with torch.device("meta"):
        encoder = Encoder(config)
        network = task.network(encoder) if task is not None else Network(encoder, {})
        if task is not None and (features := saved_features(folder)) is not None:
            try:
                network.read_features(features)
            except ConfigError as error:
                raise ModelError(f"{folder / 'bothways.json'}: {error}") from None
    if not pooler and not any(getattr(head, "pooler", None) for head in network.heads.values()):
        encoder.pooler = None
    return network


def _check_segments(config: EncoderConfig, task: Task | None, folder: Path) -> None:
    if task is not None and task.segments > config.type_vocab_size:
        raise ModelError(
            f"{folder / 'config.json'}: type_vocab_size is {config.type_vocab_size}; {task.name} reads two texts, "
            "and a model that can tell them apart has 2 of these; take another"
        )


def start_from(
    name: str | Path, task: Task, *, pooler: bool = True, features: Features | None = None, begun: Any = None
) -> Model:
    """A model for `task` that starts from the encoder of another: its heads are kept where they fit, else fresh.

    Its own task is that one as it goes on from the other's (`Task.after`, which has `begun` too).

    `pooler=False` leaves the pooler out, where nothing would train it. `features`: what its heads are to read.

    Raises:
        ModelError: as `load`; heads of another task are left out and told, not an error.
        ConfigError: `features` that this encoder doesn't have or these heads can't read.
    """
    folder = locate(name)
    config, raw = read_config(folder)
    _check_segments(config, task, folder)
    before, lost = _task_before(folder, raw)
    task = task.after(before, begun)
    tokenizer = tokenizer_of(folder, config)
    weights = weights_of(folder, config, raw)
    with torch.device("meta"):
        encoder = Encoder(config, pooler=_has_pooler(weights))
    named = functools.partial(name_in_file, layers=layers_of(config, raw), architecture=saved_class(raw))
    _check(weights, {f"encoder.{key}": value for key, value in encoder.state_dict().items()}, named, where=str(folder))
    encoder.pooler = Pooler(config.hidden_size) if pooler else None
    if encoder.pooler is not None:
        initialise(encoder.pooler, config.initializer_range)
    weights = _as_task_has_them(functools.partial(task.first_weights, config=config), weights, folder)
    network = task.network(encoder)
    if features is not None:
        network.read_features(features)
    same = saved_features(folder) == features  # else a head may fit though it has learnt to read other vectors
    told = [*task.told, *([lost] if lost and _gives_vectors(task) else [])]
    made = Model(tokenizer, network, task, folder, told, advice=saved_advice(folder))
    return _assign(made, weights, heads=same)


def _task_before(folder: Path, raw: dict[str, Any]) -> tuple[Task | None, str]:
    """The task of a model to start from, or none where it can't be loaded; then, if it made vectors, what is lost."""
    try:
        return saved_task(folder, raw), ""
    except BothwaysError as error:
        made_vectors = (folder / MODULES).is_file()
        return None, f"how it made vectors is not taken over ({error}): pooling mean" if made_vectors else ""


def _gives_vectors(task: Task) -> bool:
    parts = task.parts.values() if isinstance(task, MultiTask) else (task,)
    return any(isinstance(part, EmbedTask) for part in parts)


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
    network = Network(model.network.encoder, own, layers=model.network.layers)
    network.features = model.network.features
    # What was seen and lost was counted of all tasks together.
    return replace(model, task=model.task.parts[name], network=network, trained_on=None, points_lost={})


def _as_task_has_them(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], weights: dict[str, Tensor], folder: Path
) -> dict[str, Tensor]:
    try:
        return change(weights)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None


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


def _assign(model: Model, weights: Mapping[str, Tensor], *, heads: bool = True) -> Model:
    """Put weights into the network where they fit; tell what was left out and what starts from random.

    `heads`: those of heads too.
    """
    own = model.network.state_dict()
    used = {
        name: weights[name]
        for name, weight in own.items()
        if name in weights and weights[name].shape == weight.shape and (heads or not name.startswith("heads."))
    }
    _tell(model.told, "left out", sorted(set(weights) - set(used)))
    model.drawn = frozenset(own) - frozenset(used)
    _tell(model.told, "starts from random", sorted(model.drawn))
    seen: set[int] = set()
    for name, weight in used.items():
        address = weight.data_ptr()
        if address in seen:  # what begins as another's copy is learnt apart from it
            used[name] = weight.clone()
        seen.add(address)
    model.network.load_state_dict(used, strict=False, assign=True)
    return model


def _tell(told: list[str], what: str, names: list[str]) -> None:
    groups = sorted({name.rsplit(".", 1)[0] for name in names})
    if groups:
        told.append(f"{what}: {', '.join(groups)}")


def save(model: Model, folder: str | Path, *, card: str = "", compact: bool = False) -> Path:
    """Write the model as a folder that transformers reads too, whole or not at all.

    `compact` stores the weights in a quarter of the bytes, rounded, for Bothways alone to read.

    Raises:
        ModelError: the folder exists and holds something.
        OSError: the disk is full, or may not be written to; nothing is left half-written.
    """
    folder = Path(folder)
    if reason := taken(folder):
        raise ModelError(reason)
    with whole(folder) as part:
        part.mkdir()
        _write(model, part, card, compact)
    return folder


def _write(model: Model, folder: Path, card: str, compact: bool = False) -> None:
    features = model.network.features
    # No class of transformers has heads on other vectors than the last layer's, or with a hidden layer of their own.
    name = model.task.architecture if model.task is not None and features is None else "BertModel"
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
    if features is not None:
        saved[FEATURES] = settings_dict(features)
    if model.advice is not None:
        saved[ADVICE] = {name: value for name, value in asdict(model.advice).items() if value is not None}
    if model.points_lost:
        saved[POINTS_LOST] = model.points_lost
    files = {"config.json": config} if model.task is None else model.task.files(config, model.tokenizer)
    reads, longest = model.config.max_position_embeddings, model.task.longest if model.task is not None else None
    model.tokenizer.save(folder, model_max_length=min(reads, longest or reads))
    for file, content in (files | {"bothways.json": saved}).items():
        (folder / file).parent.mkdir(exist_ok=True)
        _write_text(folder / file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    if model.trained_on is not None:
        (folder / TEXTS).write_bytes(model.trained_on.astype("<u8").tobytes())
    _write_text(folder / "README.md", card or f"# A {name} made with Bothways\n")


def _write_text(path: Path, text: str) -> None:
    """UTF-8; half of a surrogate pair, which a label may hold, is escaped as JSON has it."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def seed_everything(seed: int) -> None:
    """Seed the generator that fresh weights are drawn from; everything else in a run is stateless."""
    torch.manual_seed(seed)
