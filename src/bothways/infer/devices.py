"""Where to compute, and in what precision: decided once, from what this machine is fast at."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal

import torch

from bothways.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(wanted: str) -> torch.device:
    """The device asked for; auto takes CUDA when there is one. Under torchrun each rank takes its own.

    Raises:
        ConfigError: an unknown device, or CUDA was asked for, but this PyTorch sees none.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {wanted!r}; wanted auto, cpu or cuda")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("--device cuda: this PyTorch sees no CUDA device; try --device cpu, or install a CUDA build")
    if wanted == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; elsewhere it is emulated, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in supported)


def pick_precision(wanted: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision of products; auto takes bfloat16 where it is native."""
    if wanted == "auto":
        return "bfloat16" if fast_bfloat16(device) else "float32"
    return wanted


def computing_in(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context in which products run in `precision`; sums, norms and weights stay in float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
