"""Checkpoints: written whole or not at all, checked when read, and without a single pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bothways.errors import ModelError, TrainingError
from bothways.models.weights import read_tensors, sync, write_tensors

KEEP = 2  # the newest and the one before it, in case the newest was damaged


def save_checkpoint(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
    """Write `folder`/step-N: temporary name, fsync, hash manifest, rename; then drop the oldest.

    Raises:
        OSError: no room; what was there before is untouched.
    """
    final = folder / f"step-{state['progress']['step']:08d}"
    if final.exists():
        return final
    part = folder / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write_tensors(part / "model.safetensors", network.state_dict())
        write_tensors(part / "optimizer.safetensors", _moments(network, optimizer))
        (part / "state.json").write_text(json.dumps(state, ensure_ascii=False, indent=1), encoding="utf-8")
        hashes = {path.name: _sha256(path) for path in sorted(part.iterdir())}
        (part / "manifest.json").write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        for path in part.iterdir():
            sync(path)
        sync(part)
        part.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for old in saved_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def saved_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.is_dir() else []


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], Path, list[str]]:
    """The state of the newest undamaged checkpoint, its folder, and what was told of damaged ones.

    Raises:
        TrainingError: there is none.
    """
    told: list[str] = []
    for path in reversed(saved_checkpoints(folder)):
        if fault := _fault(path):
            told.append(f"{path}: {fault}; falling back to the checkpoint before it")
            continue
        return json.loads((path / "state.json").read_text(encoding="utf-8")), path, told
    raise TrainingError(
        f"{folder}: no undamaged checkpoint to resume from" + "".join(f"; {line}" for line in told)
        + "; start again without --resume and with another --out"
    )


def restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Put a checkpoint's weights (and the optimizer's moments) back.

    Raises:
        TrainingError: it belongs to another model.
    """
    weights = read_tensors(path / "model.safetensors")
    own = network.state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise TrainingError(f"{path} belongs to a model of another shape; resume with the settings it was begun with")
    network.load_state_dict(weights)
    if optimizer is None:
        return
    moments = read_tensors(path / "optimizer.safetensors")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.clone().to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if (value := moments.get(f"{key}.{name}")) is not None
            }


def save_weights(path: Path, network: nn.Module) -> None:
    """The weights alone, whole: the best epoch so far."""
    part = path.with_name(f".{path.name}.part")
    try:
        write_tensors(part, network.state_dict())
        os.replace(part, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        hashes = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        for name, wanted in hashes.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if _sha256(path / name) != wanted:
                return f"{name} is damaged (its SHA-256 differs from the manifest)"
    except (OSError, ValueError, AttributeError, ModelError):
        return "manifest.json is missing or damaged"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
