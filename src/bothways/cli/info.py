"""`bothways info`: tell what is in the folder of a model, run, vocabulary or index, without loading the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ModelError
from bothways.metrics.lines import score_lines


@dataclass(frozen=True)
class Info:
    """Tell what is in a model, a run, a vocabulary or an index."""

    folder: tyro.conf.Positional[str] = "builtin"
    """folder of a model, a run, a vocabulary or an index, or a name on the hub"""
    json: bool = False
    """one JSON object instead of lines"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Print it."""
    wanted = config.load(Info, argv, prog="bothways info")
    told = describe(wanted.folder)
    if wanted.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print("\n".join(score_lines(_readable(told))))
    return 0


def describe(name: str | Path) -> dict[str, Any]:
    """What is in the folder: its "kind" (run, model, vocabulary, index) and, by name, what there is to know.

    Raises:
        ModelError: there is no such folder, or nothing that Bothways knows is in it.
    """
    from bothways.models.hub import BUILTIN, locate

    folder = locate(name) if name == BUILTIN else Path(name)
    if (folder / "config.toml").is_file():
        told = _run(folder)
        if (folder / "model" / "config.json").is_file():
            told["model"] = _model(folder / "model")
        return told
    if (folder / "index.json").is_file():
        return _index(folder)
    folder = locate(name)
    if (folder / "config.json").is_file():
        return _model(folder)
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file():
        return {"kind": "vocabulary", "folder": str(folder), **_vocabulary(folder), "files": _files(folder)}
    raise ModelError(
        f"{folder} holds neither a model (config.json), a run (config.toml) nor a vocabulary (tokenizer.json)"
    )


def _run(folder: Path) -> dict[str, Any]:
    """How far a run has come."""
    from bothways.train.checkpoint import saved_checkpoints
    from bothways.train.log import read_log

    entries = read_log(folder / "log.jsonl")
    steps = [entry for entry in entries if "step" in entry]
    ends = [entry["finished"] for entry in entries if "finished" in entry]
    told: dict[str, Any] = {"kind": "run", "folder": str(folder), "finished": bool(ends)}
    if steps:
        told |= {"steps": steps[-1]["step"], "epochs": steps[-1]["epoch"] + 1, "loss": steps[-1]["loss"]}
    told["checkpoints"] = [path.name for path in saved_checkpoints(folder / "checkpoints")]
    if seeds := sorted(path.name for path in folder.glob("seed-*")):
        told["runs"] = seeds
    return told | ({"scores": ends[-1]} if ends else {})


def _index(folder: Path) -> dict[str, Any]:
    """How many records an index has, and which model made it."""
    from bothways.vectors.index import read_manifest

    manifest = read_manifest(folder)
    told: dict[str, Any] = {"kind": "index", "folder": str(folder), "records": manifest["records"]}
    told |= {"width": manifest["width"], "model": manifest["model"], **manifest["made_by"]["options"]}
    return told | {"words": (folder / manifest["generation"] / "words").is_dir()}


def _model(folder: Path) -> dict[str, Any]:
    """A model's task, shape and files."""
    from bothways.models.files import read_json
    from bothways.models.model import count_parameters
    from bothways.models.reading import ADVICE, read_config, saved_class
    from bothways.models.weights import weight_types

    shape, raw = read_config(folder)
    own = read_json(folder / "bothways.json") if (folder / "bothways.json").is_file() else {}
    task = own.get("task")
    names = raw.get("id2label")
    about = own.get(str(task))
    labels = about.get("labels") if isinstance(about, dict) else None
    labels = labels or (list(names.values()) if isinstance(names, dict) else [])
    return {
        "kind": "model",
        "folder": str(folder),
        "architecture": saved_class(raw),
        "task": task,
        **({"labels": labels} if labels else {}),
        "layers": shape.num_hidden_layers,
        "width": shape.hidden_size,
        "heads": shape.num_attention_heads,
        "max_length": shape.max_position_embeddings,
        "parameters": count_parameters(folder),
        **({ADVICE: own[ADVICE]} if own.get(ADVICE) else {}),  # how it is best fine-tuned
        "dtype": ", ".join(sorted(set(weight_types(folder).values()))) or None,
        **_vocabulary(folder),
        "files": _files(folder),
    }


def _vocabulary(folder: Path) -> dict[str, Any]:
    from bothways.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    return {"vocab_size": tokenizer.size, "lowercase": tokenizer.lowercase}


def _files(folder: Path) -> dict[str, int]:
    """Sizes in bytes."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def _readable(told: dict[str, Any]) -> dict[str, Any]:
    """Numbers with separators, lists in words, long label sets cut."""
    shown: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            shown[name] = _readable(value)
        elif isinstance(value, list):
            more = f", … ({len(value)})" if len(value) > 12 else ""
            shown[name] = ", ".join(map(str, value[:12])) + more
        elif isinstance(value, int) and not isinstance(value, bool):
            shown[name] = f"{value:,}"
        else:
            shown[name] = "yes" if value is True else "no" if value is False else value
    return shown
