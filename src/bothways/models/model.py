"""A model: tokenizer, network and task, made fresh, loaded from a folder or saved as one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways.errors import ConfigError, ModelError
from bothways.models.conversion import from_theirs, to_theirs
from bothways.models.hub import locate
from bothways.models.weights import check_shapes, read_weights, sync, write_tensors
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.network import Network
from bothways.tasks import ARCHITECTURES, task_class
from bothways.tasks.base import Task
from bothways.text.tokenizer import Tokenizer

FORMAT = 1
MAX_JSON = 8 << 20  # bytes of a config.json: label lists can be long, but not so long


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
    return Model(tokenizer, Network(encoder, task.heads(encoder) if task else {}), task)


def load(name: str | Path) -> Model:
    """The model in a folder that Bothways or transformers saved, with its own task.

    Raises:
        ModelError: no such model, files that are missing, unsafe or damaged, or a weight that is missing,
            extra or misshapen (all heads included).
    """
    folder = locate(name)
    config, raw = read_config(folder)
    task = _saved_task(folder, raw)
    tokenizer = _tokenizer(folder, config)
    weights = from_theirs(read_weights(folder), config.num_hidden_layers, saved_class(raw), where=str(folder))
    encoder = Encoder(config, pooler="encoder.pooler.dense.weight" in weights)
    model = Model(tokenizer, Network(encoder, task.heads(encoder) if task else {}), task, folder)
    _assign(model, weights, needed=model.network.state_dict(), where=str(folder))
    return model


def start_from(name: str | Path, task: Task) -> Model:
    """A model for `task` that starts from the encoder of another: its heads are kept where they fit, else fresh.

    Raises:
        ModelError: as `load`; heads of another task are left out and told, not an error.
    """
    folder = locate(name)
    config, raw = read_config(folder)
    tokenizer = _tokenizer(folder, config)
    weights = from_theirs(read_weights(folder), config.num_hidden_layers, saved_class(raw), where=str(folder))
    encoder = Encoder(config)
    model = Model(tokenizer, Network(encoder, task.heads(encoder)), task, folder)
    own = model.network.state_dict()
    needed = {key: value for key, value in own.items() if key.startswith(("encoder.embeddings", "encoder.layers"))}
    _assign(model, weights, needed=needed, where=str(folder))
    return model


def _assign(model: Model, weights: dict[str, Tensor], *, needed: Mapping[str, Tensor], where: str) -> None:
    """Put weights into the network; tell what was left out and what stays fresh."""
    own = model.network.state_dict()
    if missing := sorted(set(needed) - set(weights)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{where}: the weight {missing[0]}{more} is missing; the folder is not a whole model")
    used = {key: value for key, value in weights.items() if key in own and _fits_head(key, value, own[key])}
    check_shapes(used, own, where=where)
    _tell(model.told, "left out", sorted(set(weights) - set(used)))
    _tell(model.told, "starts from random", sorted(set(own) - set(used)))
    model.network.load_state_dict(used, strict=False, assign=False)


def _fits_head(key: str, weight: Tensor, own: Tensor) -> bool:
    """A label head of another label set is left out; everything else has to fit, and `check_shapes` says so."""
    return not key.startswith("heads.label") or weight.shape == own.shape


def _tell(told: list[str], what: str, names: list[str]) -> None:
    groups = sorted({name.rsplit(".", 1)[0] for name in names})
    if groups:
        told.append(f"{what}: {', '.join(groups)}")


def read_config(folder: Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """The shape in `config.json`, and the whole file.

    Raises:
        ModelError: no such file, not JSON, not a BERT, or a shape that can't be.
    """
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type", "bert")
    if kind != "bert":
        raise ModelError(f"{folder / 'config.json'}: model_type is {kind!r}; Bothways reads BERT models (model_type \"bert\")")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{folder / 'config.json'}: position_embedding_type must be \"absolute\", as in the original BERT")
    known = {entry.name for entry in fields(EncoderConfig)}
    try:
        return EncoderConfig(**{key: value for key, value in raw.items() if key in known and value is not None}), raw
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        ModelError: missing, too large, not JSON or not an object.
    """
    if not path.is_file():
        raise ModelError(f"{path} is missing; a model folder has config.json, model.safetensors and a vocabulary")
    if path.stat().st_size > MAX_JSON:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes; more than {MAX_JSON:,} is refused")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error}); copy or download the file again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: an object in braces was wanted, found {type(value).__name__}")
    return value


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
            raise ModelError(f"{folder / 'bothways.json'}: format {saved.get('format')!r} is not {FORMAT}; update Bothways")
        return task_class(saved["task"]).from_dict(saved[saved["task"]]) if saved.get("task") else None
    name = saved_class(raw)
    if name == "BertModel":
        return None
    if name in ARCHITECTURES:
        return task_class(ARCHITECTURES[name]).from_config(raw)
    raise ModelError(
        f"{folder / 'config.json'}: {name} is not among the classes that Bothways loads with its heads "
        f"({', '.join(ARCHITECTURES)}); it can still be a starting point: bothways finetune TASK --model {folder}"
    )


def saved_class(raw: dict[str, Any]) -> str:
    """The class of transformers that `config.json` names."""
    names = raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "BertModel"


# --------------------------------------------------------------------------------------------------- saving


def save(model: Model, folder: str | Path, *, card: str = "") -> Path:
    """Write the model as a folder that transformers reads too, whole or not at all.

    Raises:
        ModelError: the folder exists and holds something.
        OSError: the disk is full, or may not be written to; nothing is left half-written.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} exists already; give another folder, or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        _write(model, part, card)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _write(model: Model, folder: Path, card: str) -> None:
    name = model.task.architecture if model.task is not None else "BertModel"
    weights = to_theirs(model.network.state_dict(), model.config.num_hidden_layers, name)
    write_tensors(folder / "model.safetensors", weights)
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
        config |= model.task.config_entries()
    model.tokenizer.save(folder)
    for file, content in (("config.json", config), ("bothways.json", saved)):
        (folder / file).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card or f"# A {name} made with Bothways\n", encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def seed_everything(seed: int) -> None:
    """Seed the generator that fresh weights are drawn from; everything else in a run is stateless."""
    torch.manual_seed(seed)
