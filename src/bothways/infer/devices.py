"""Where to compute, and in what precision: decided once, from what this machine is fast at."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from bothways.data.cores import available_cores
from bothways.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
AnswerPrecision = Literal["auto", "float32", "bfloat16", "int8"]
"""What answers can be computed in; nothing is trained in int8."""
MOST_LOST = 0.2
"""Points of a task's criterion, on dev records, that `auto` may cost."""


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
    """The precision of products; auto takes bfloat16 where it is native. Elsewhere a line warns of it."""
    native = fast_bfloat16(device)
    if wanted == "auto":
        return "bfloat16" if native else "float32"
    if wanted == "bfloat16" and not native:
        logging.getLogger("bothways").warning(
            "bothways: this processor has no products of bfloat16: it emulates them, many times slower than float32; "
            "try --precision auto"
        )
    return wanted


def pick_answer_precision(
    wanted: AnswerPrecision, device: torch.device, points_lost: Mapping[str, float] | None = None
) -> Literal["float32", "bfloat16", "int8"]:
    """The precision that answers are computed in; auto takes bfloat16 where it is native, never int8.

    `points_lost` is what the model was measured to lose in a precision (`Model.points_lost`): auto takes none that
    loses more than MOST_LOST; what was not measured is taken on trust.

    Raises:
        ConfigError: int8 was asked for on a GPU.
    """
    if wanted == "auto":
        chosen = pick_precision("auto", device)
        if (lost := (points_lost or {}).get(chosen, 0.0)) <= MOST_LOST:
            return chosen
        logging.getLogger("bothways").warning(
            "bothways: auto takes float32: on dev this model lost %.1f points in %s", lost, chosen
        )
        return "float32"
    if wanted != "int8":
        return pick_precision(wanted, device)
    if device.type != "cpu":
        raise ConfigError(f"--precision int8 is for the CPU; on {device.type} try --precision bfloat16")
    return "int8"


def computing_in(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A context in which products run in `precision`; sums, norms and weights stay in float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


# ------------------------------------------------------------------------------------- threads and memory


@functools.cache
def settle_threads() -> None:
    """No more threads of PyTorch than cores that this process may use, once: more would wait for each other.

    OMP_NUM_THREADS, where it is set, is what the user wants.
    """
    if "OMP_NUM_THREADS" not in os.environ and (cores := available_cores()) < torch.get_num_threads():
        torch.set_num_threads(cores)


@functools.cache
def settle_cpu() -> None:
    """Make this process fit for answers on a CPU, once: its threads settled, and freed memory kept.

    The C library would give the memory of large tensors back to the system after each layer, which then has to clear
    it again for the next one: up to a third of the time in int8 (LOG.md). It keeps at most KEPT bytes for each thread.
    """
    settle_threads()
    if (mallopt := _of_the_c_library("mallopt")) is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST)


def give_back_memory() -> None:
    """Give the system what memory the C library keeps free between what is used.

    In training each step's tensors are of other sizes, and the holes that they leave are seldom filled: within 200
    steps of 12,000 tokens a process of 1.6 GB had 5.9 GB, of which it used 0.3 (LOG.md).
    """
    if (trim := _of_the_c_library("malloc_trim")) is not None:
        trim(0)


def _of_the_c_library(name: str) -> Callable[..., Any] | None:
    """A function of glibc; None elsewhere."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None


# malloc.h of glibc; LARGEST is the most that it takes on 64 bits (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, LARGEST = 256 << 20, 32 << 20
