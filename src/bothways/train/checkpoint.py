"""Checkpoints: written whole or not at all, checked when read, and without a single pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bothways.data.shard_files import file_hash
from bothways.data.whole import sync
from bothways.errors import TrainingError
from bothways.models.weights import read_tensors, write_tensors

KEEP = 2  # the newest and the one before it, in case the newest was damaged
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # what AdamW and Muon keep of each parameter


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    beside: Sequence[Path] = (),
) -> Path:
    """Write `folder`/step-N: hidden name, fsync, hash manifest, rename; then drop the oldest.

    `beside` are files that belong to it (the best weights so far). They are linked, so they must be replaced
    afterwards and never written into.

    Raises:
        OSError: no room; what was there before is untouched.
    """
    final = folder / f"step-{state['progress']['step']:08d}"
    if final.exists() and _fault(final) is None:
        return final
    part = folder / f".{final.name}.part"
    clear_unfinished(folder)
    try:
        part.mkdir(parents=True)
        write_tensors(part / "model.safetensors", network.state_dict())
        write_tensors(part / "optimizer.safetensors", _moments(network, optimizer))
        for file in beside:
            _link(file, part / file.name)
        (part / "state.json").write_text(json.dumps(state, ensure_ascii=False, indent=1), encoding="utf-8")
        hashes = {path.name: file_hash(path) for path in sorted(part.iterdir())}
        (part / "manifest.json").write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        for path in part.iterdir():
            sync(path)
        sync(part)
        if final.exists():  # damaged, or it would have been returned
            shutil.rmtree(final)
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


def clear_unfinished(folder: Path) -> None:
    """Remove what was being written when the process was killed."""
    for part in folder.glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], Path, list[str]]:
    """The state of the newest undamaged checkpoint, its folder, and what to tell of damaged ones.

    Raises:
        TrainingError: there is none.
    """
    told: list[str] = []
    for path in reversed(saved_checkpoints(folder)):
        fault = _fault(path)
        if fault is None:
            return json.loads((path / "state.json").read_text(encoding="utf-8")), path, told
        told.append(f"{path}: {fault}; falling back to the checkpoint before it")
    faults = "".join(f"; {line.partition('; ')[0]}" for line in told)
    raise TrainingError(
        f"{folder}: no undamaged checkpoint to resume from{faults}; start again without --resume and with another --out"
    )


def restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and the optimizer's moments back.

    Raises:
        TrainingError: it belongs to another model, or another optimizer made it.
    """
    weights = read_tensors(path / "model.safetensors")
    own = network.state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
        raise TrainingError(f"{path} belongs to a model of another shape; resume with the settings it was begun with")
    network.load_state_dict(weights)
    moments = read_tensors(path / "optimizer.safetensors")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            kept = {key: moments[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in moments}
            if kept and ("momentum_buffer" in kept) != ("momentum" in group):  # Muon keeps one moment, AdamW two
                raise TrainingError(
                    f"{path}: {name} was trained by another optimizer than now, which an earlier Bothways chose; "
                    "finish the run with that, or start again without --resume and with another --out"
                )
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in kept.items()}


def save_weights(path: Path, network: nn.Module) -> None:
    """The weights alone, whole or not at all: the best so far. What the name linked to before is left as it was."""
    part = path.parent / f".{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write_tensors(part / path.name, network.state_dict())
        (part / path.name).replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_back(checkpoint: Path, file: Path) -> None:
    """Make `file` what it was when the checkpoint was saved: that file again, or none."""
    file.unlink(missing_ok=True)
    if (checkpoint / file.name).is_file():
        _link(checkpoint / file.name, file)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
        for name in {"model.safetensors", "optimizer.safetensors", "state.json", *hashes}:
            if not (path / name).is_file():
                return f"{name} is missing"
            if file_hash(path / name) != hashes[name]:
                return f"{name} is damaged (its SHA-256 differs from the manifest)"
    except (OSError, ValueError, KeyError, TypeError):
        return "manifest.json is missing or damaged"
    return None
