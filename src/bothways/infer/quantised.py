"""Weights and rows as whole numbers of 8 bits, their products, and what is computed between them."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

FEWEST = 16  # rows: below them fusing gains nothing


@dataclass(frozen=True)
class Wholes:
    """Which whole numbers stand for a row and for a weight, so that this processor's products of them are exact.

    One that sums products of 8 bits in 32 bits (VNNI, AMX) takes all there are. Others, such as those with AVX2 alone,
    first add the products of two neighbours in 16 bits, which hold 255 · 128: their weights may not be large side by
    side. oneDNN's product of rows without sign is the one that has a kernel there; PyTorch's own is a plain loop, 30
    times slower than float32.
    """

    dtype: torch.dtype  # of rows
    least: int
    most: int
    largest: int  # of a weight, below zero and above
    neighbours: int  # what two weights side by side may come to, without their signs

    @property
    def native(self) -> bool:
        """Whether the processor itself has products of 8 bits."""
        return self.dtype == torch.int8


SIGNED = Wholes(torch.int8, -127, 127, largest=127, neighbours=255)
NARROW = Wholes(torch.uint8, 0, 255, largest=127, neighbours=128)


def _wholes() -> Wholes:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    narrow = x86 and not torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return NARROW if narrow else SIGNED


WHOLES = _wholes()


@dataclass(frozen=True)
class Int8Weight:
    """A linear layer's weight; output c is `scale[c]` times the product of whole numbers."""

    whole: Tensor  # (I, O) int8, or as oneDNN lays it out
    scale: Tensor  # (O,) float32
    ones: Tensor  # (O,) float32: what a row of ones gives
    bias: Tensor  # (O,) float32
    plain: tuple[Tensor, Tensor] | None  # scales of one and zeros, (O,) each, which oneDNN asks for; None: not used

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Weight:
        """Rounded to the nearest of the whole numbers that `WHOLES` allows, each output by its own largest weights."""
        kind, weight = WHOLES, linear.weight.detach().float()
        size = weight.abs()
        pairs = F.pad(size, (0, size.shape[1] % 2)).unflatten(1, (-1, 2)).sum(2)
        # Each of two neighbours may be rounded up by a half.
        scale = torch.maximum(size.amax(1) / kind.largest, pairs.amax(1) / (kind.neighbours - 1)).clamp_min(1e-30)
        scale = scale[:, None]
        whole = (weight / scale).round().to(torch.int8)
        bias = scale.new_zeros(len(scale)) if linear.bias is None else linear.bias.detach().float()
        ones = whole.sum(1) * scale.squeeze(1)
        scale = scale.squeeze(1)
        if kind.native:
            return cls(whole.t().contiguous(), scale, ones, bias, None)
        plain = torch.ones_like(scale), torch.zeros_like(scale, dtype=torch.long)
        return cls(torch.ops.onednn.qlinear_prepack(whole, None), scale, ones, bias, plain)

    def sums(self, rows: Int[Tensor, "R I"]) -> Num[Tensor, "R O"]:
        """The products of whole numbers."""
        if self.plain is None:
            return torch.ops.aten._int_mm(rows, self.whole)
        given = (rows, 1.0, 0, self.whole, *self.plain, None, 1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qlinear_pointwise(*given)


def quantise(
    x: Float[Tensor, "R I"],
) -> tuple[Int[Tensor, "R I"], Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """Whole numbers; each row of x is theirs times its scale, plus what zero stands for.

    A row reaches from its least to its greatest number, not equally far to both sides of zero: what a norm or GELU
    gives leans to one side, and half of the levels would go unused.
    """
    kind, x = WHOLES, x.float()
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    # A row that hardly varies has levels no finer than float32 tells its numbers apart by.
    finest = (low.abs() + high.abs()) * 2.0**-22 + 1e-30
    scale = torch.maximum((high - low) * (1 / (kind.most - kind.least)), finest)
    zero = (low + high) * 0.5 if kind.native else low
    return ((x - zero) / scale).round().to(kind.dtype), scale, zero


def dequantise(
    sums: Num[Tensor, "R O"],
    scale: Float[Tensor, "R 1"],
    zero: Float[Tensor, "R 1"],
    by: Float[Tensor, " O"],
    ones: Float[Tensor, " O"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "R O"]:
    """What the sums of whole numbers stand for, and the bias."""
    return sums.float() * scale * by + zero * ones + bias


def add_norm(
    sums: Num[Tensor, "R O"],
    scale: Float[Tensor, "R 1"],
    zero: Float[Tensor, "R 1"],
    by: Float[Tensor, " O"],
    ones: Float[Tensor, " O"],
    bias: Float[Tensor, " O"],
    residual: Float[Tensor, "R O"],
    weight: Float[Tensor, " O"],
    shift: Float[Tensor, " O"],
    eps: float,
) -> Float[Tensor, "R O"]:
    """norm(residual + dequantise(…))."""
    summed = dequantise(sums, scale, zero, by, ones, bias) + residual
    return F.layer_norm(summed, weight.shape, weight, shift, eps)


class Kernels:
    """`quantise`, `dequantise` and `add_norm`: as PyTorch has them, or fused by its compiler."""

    def __init__(self) -> None:
        self.quantise: Callable[..., Any] = quantise
        self.dequantise: Callable[..., Any] = dequantise
        self.add_norm: Callable[..., Any] = add_norm

    def compile(self) -> None:
        """Fuse each of them, for all shapes at once."""
        for function in (quantise, dequantise, add_norm):
            # Sizes are variables and threads are the caller's, so that nothing is ever compiled again.
            made = torch.compile(function, dynamic=True, fullgraph=True, options={"cpp.dynamic_threads": True})
            setattr(self, function.__name__, _where_it_pays(made, function))
        threads = torch.get_num_threads()
        try:
            for count in dict.fromkeys((threads, 1)):  # the compiler asks for both anew: alone, and side by side
                torch.set_num_threads(count)
                self._warm_up()
        finally:
            torch.set_num_threads(threads)

    def _warm_up(self) -> None:
        """Meet every kind of argument once, in two sizes."""
        with torch.inference_mode():
            for rows, inner, outer in ((32, 48, 80), (40, 64, 96)):
                for dtype in (torch.float32, torch.bfloat16):
                    whole, scale, zero = self.quantise(torch.ones(rows, inner, dtype=dtype))
                sums = Int8Weight.of(nn.Linear(inner, outer)).sums(whole)
                # Tensors of their own, for one given twice would be a case of its own to the compiler.
                by, ones, bias, weight, shift = (torch.ones(outer) for _ in range(5))
                self.dequantise(sums, scale, zero, by, ones, bias)
                self.add_norm(sums, scale, zero, by, ones, bias, torch.ones(rows, outer), weight, shift, 1e-12)


@functools.cache
def fused_kernels() -> Kernels:
    """Compiled once a process, which takes seconds; the plain ones where there is no compiler for C++."""
    kernels = Kernels()
    try:
        kernels.compile()
    except Exception:  # whatever stands in a compiler's way: the plain kernels give the same answers
        return Kernels()
    return kernels


def _where_it_pays(made: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled function; the plain one for so few rows that the compiler would make a special case of them."""

    def call(first: Tensor, *more: Any) -> Any:
        return (made if len(first) >= FEWEST else plain)(first, *more)

    return call
