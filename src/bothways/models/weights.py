"""Weight files: safetensors only, sharded or not, read with limits and written whole."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bothways.errors import ModelError

MAX_HEADER = 16 << 20  # bytes; BERT-large's is 50 KB, and a header costs many times its size when parsed
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "model.ckpt")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, in float32.

    Raises:
        ModelError: no weights, a pickle instead of weights, a damaged or oversized file, a missing shard.
    """
    weights: dict[str, Tensor] = {}
    for path in _files(folder):
        weights.update(read_tensors(path))
    return {name: weight.float() if weight.is_floating_point() else weight for name, weight in weights.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, memory-mapped.

    Raises:
        ModelError: not such a file, or a damaged one.
    """
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"{path}: the weights can't be read ({error}); copy or download the file again") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file and wait until the disk has it."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    # safetensors writes through a private temporary file: mode 0600, no fsync
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    sync(path)


def sync(path: Path) -> None:
    """Wait until the disk has this file, or this folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ModelError(f"{folder / INDEX}: this is not an index of weight files; download it again") from None
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise ModelError(f"{folder / INDEX}: the part {name} is missing; download the folder again")
        return [folder / name for name in names]
    for name in PICKLES:
        if (folder / name).exists():
            raise ModelError(
                f"{folder / name} is a pickle, which can run code when it is opened, so Bothways never opens one; "
                f"save the model again as safetensors (in transformers: model.save_pretrained(folder))"
            )
    raise ModelError(f"{folder}: there are no weights ({SINGLE}) in this folder")


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise ModelError(
            f"{path} is a pickle under another name; it can run code when it is opened, so Bothways never opens it"
        )
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= length <= size - 8:
        raise ModelError(f"{path} is not a safetensors file, or it was cut off ({size} bytes); download it again")
    if length > MAX_HEADER:
        raise ModelError(f"{path}: the header says it has {length:,} bytes; more than {MAX_HEADER:,} is refused")


def check_shapes(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, where: str) -> None:
    """Every tensor present has the shape that the model has.

    Raises:
        ModelError: the first that has not, with both shapes.
    """
    for name, weight in weights.items():
        if name in wanted and weight.shape != wanted[name].shape:
            raise ModelError(
                f"{where}: the weight {name} has shape {tuple(weight.shape)}, but the configuration asks for "
                f"{tuple(wanted[name].shape)}; config.json or the vocabulary belongs to another model"
            )
