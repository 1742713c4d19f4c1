"""Weight files: safetensors only, sharded or not, read with limits and written whole."""

from __future__ import annotations

import json
import os
import re
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bothways.data.whole import sync
from bothways.errors import ModelError

MAX_HEADER = 16 << 20  # bytes; BERT-large's is 50 KB, and a header costs many times its size when parsed
COPIED_AT_ONCE = 16 << 20  # bytes
MAX_INDEX = 8 << 20  # bytes; a line for each weight
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADS = "heads.safetensors"  # weights of heads that the saved class of transformers does not have
COMPACT = "model.compact.safetensors"  # a name of its own, for other programs would take its whole numbers for weights
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "model.ckpt")


def read_weights(folder: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """All tensors of a model folder, in float32; those that are so already may be `mapped`, as `read_tensors` says.

    Raises:
        ModelError: no weights, a pickle instead of weights, a damaged or oversized file, a missing shard.
    """
    weights: dict[str, Tensor] = {}
    for path in _files(folder):
        found = read_tensors(path, mapped=mapped)
        weights.update(_expanded(found, path) if path.name == COMPACT else found)
    return {name: weight.float() if weight.is_floating_point() else weight for name, weight in weights.items()}


def weight_types(folder: Path) -> dict[str, str]:
    """The type of each weight of a model folder ("F32"), from the files' headers.

    Raises:
        ModelError: as `read_weights`.
    """
    types: dict[str, str] = {}
    for path in _files(folder) + [path for path in (folder / HEADS,) if path.is_file()]:
        with _opened(path) as file:
            types |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a dict)
    return types


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """The tensors of one safetensors file: copies, so that it may change or go while they are in use.

    `mapped`: the file itself as memory, read where it is touched, shared with other processes, and given back when
    memory is short. What is changed is changed for this process alone. The file may go or be replaced by another
    (`os.replace`), as whatever Bothways saves is, but nobody may write into it while the tensors are in use.

    Raises:
        ModelError: not such a file, or a damaged one.
    """
    with _opened(path) as file:
        names = deque(file.keys())
        if mapped:
            return {name: file.get_tensor(name) for name in names}
    tensors: dict[str, Tensor] = {}
    while names:
        # Pages of the file count as this process's memory as long as it is open: now and then they are let go.
        with _opened(path) as file:
            copied = 0
            while names and copied < COPIED_AT_ONCE:
                name = names.popleft()
                tensors[name] = file.get_tensor(name).clone()
                copied += tensors[name].nbytes
    return tensors


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelError(f"{path}: the weights can't be read ({error}); copy or download the file again") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file and wait until the disk has it.

    Raises:
        OSError: no room, or no permission.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, {"format": "pt"})
    except SafetensorError as error:
        if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    # safetensors writes through a private temporary file: mode 0600, no fsync
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    sync(path)


def compacted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as 8-bit whole numbers with one scale a row, all else in bfloat16: a quarter of float32's bytes.

    A row's largest weight becomes 127, so no weight moves by more than 1/254 of it.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            packed[name] = tensor.bfloat16()
            continue
        scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        packed[name] = (tensor / scale).round().to(torch.int8)
        packed[f"{name}.scale"] = scale.squeeze(1).float()
    return packed


def _expanded(packed: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What `compacted` packed, in float32."""
    weights: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(".scale"):
            continue
        if tensor.dtype != torch.int8:
            weights[name] = tensor
            continue
        scale = packed.get(f"{name}.scale")
        if tensor.ndim != 2 or scale is None or scale.shape != tensor.shape[:1] or not scale.is_floating_point():
            raise ModelError(f"{path}: the weight {name} has no scale for each of its rows; copy the file again")
        weights[name] = tensor.float() * scale[:, None]
    return weights


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / COMPACT).is_file():
        return [folder / COMPACT]
    if (folder / INDEX).is_file():
        return [folder / name for name in _parts(folder / INDEX)]
    for name in PICKLES:
        if (folder / name).exists():
            raise ModelError(
                f"{folder / name} is a pickle, which can run code when it is opened, so Bothways never opens one; "
                f"save the model again as safetensors (in transformers: model.save_pretrained(folder))"
            )
    raise ModelError(f"{folder}: there are no weights ({SINGLE}) in this folder")


def _parts(index: Path) -> list[str]:
    """The names of the files that an index shares the weights out to."""
    if index.stat().st_size > MAX_INDEX:
        raise ModelError(f"{index} has {index.stat().st_size:,} bytes; more than {MAX_INDEX:,} is refused")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        strays = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ModelError(f"{index}: this is not an index of weight files; download it again") from None
    if strays or not names:
        found = f"names {strays[0]!r}" if strays else "is empty"
        raise ModelError(f"{index}: the index {found}; it must name files in its own folder; download it again")
    for name in names:
        if not (index.parent / name).is_file():
            raise ModelError(f"{index}: the part {name} is missing; download the folder again")
    return names


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else -1
    # A header's length may begin with the bytes of a pickle, but a pickle has no brace where the header opens.
    if start[8:] != b"{" and start.startswith((b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise ModelError(
            f"{path} is a pickle under another name; it can run code when it is opened, so Bothways never opens it"
        )
    if not 2 <= length <= size - 8 or start[8:] != b"{":
        raise ModelError(f"{path} is not a safetensors file, or it was cut off ({size} bytes); download it again")
    if length > MAX_HEADER:
        raise ModelError(f"{path}: the header says it has {length:,} bytes; more than {MAX_HEADER:,} is refused")
