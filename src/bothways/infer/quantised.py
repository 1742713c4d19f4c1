"""Weights and rows as whole numbers of 8 bits, and what is computed between their products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 127  # -127 … 127: as many below zero as above
FEWEST = 16  # rows: below them fusing gains nothing


@dataclass(frozen=True)
class Int8Weight:
    """A linear layer's weight; output c is `scale[c]` times the product of whole numbers."""

    whole: Tensor  # (I, O) int8
    scale: Tensor  # (O,) float32
    ones: Tensor  # (O,) float32: what a row of ones gives
    bias: Tensor  # (O,) float32

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Weight:
        """Rounded to the nearest of 255 levels, each output by its own largest weight."""
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-30) * (1 / LEVELS)
        whole = (weight / scale).round().to(torch.int8)
        bias = scale.new_zeros(len(scale)) if linear.bias is None else linear.bias.detach().float()
        ones = whole.sum(1) * scale.squeeze(1)
        return cls(whole.t().contiguous(), scale.squeeze(1), ones, bias)


def quantise(
    x: Float[Tensor, "R I"],
) -> tuple[Int[Tensor, "R I"], Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """Whole numbers from -127 to 127; each row of x is theirs times its scale, plus its middle.

    A row reaches from its least to its greatest number, not equally far to both sides of zero: what a norm or GELU
    gives leans to one side, and half of the levels would go unused.
    """
    x = x.float()
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    middle = (low + high) * 0.5
    # A row that hardly varies has levels no finer than float32 tells its numbers apart by.
    scale = torch.maximum((high - low) * (0.5 / LEVELS), (low.abs() + high.abs()) * 2.0**-22 + 1e-30)
    return ((x - middle) / scale).round().to(torch.int8), scale, middle


def dequantise(
    sums: Int[Tensor, "R O"],
    scale: Float[Tensor, "R 1"],
    middle: Float[Tensor, "R 1"],
    by: Float[Tensor, " O"],
    ones: Float[Tensor, " O"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "R O"]:
    """What the sums of whole numbers stand for, and the bias."""
    return sums.float() * scale * by + middle * ones + bias


def add_norm(
    sums: Int[Tensor, "R O"],
    scale: Float[Tensor, "R 1"],
    middle: Float[Tensor, "R 1"],
    by: Float[Tensor, " O"],
    ones: Float[Tensor, " O"],
    bias: Float[Tensor, " O"],
    residual: Float[Tensor, "R O"],
    weight: Float[Tensor, " O"],
    shift: Float[Tensor, " O"],
    eps: float,
) -> Float[Tensor, "R O"]:
    """norm(residual + dequantise(…))."""
    summed = dequantise(sums, scale, middle, by, ones, bias) + residual
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
                    whole, scale, middle = self.quantise(torch.ones(rows, inner, dtype=dtype))
                sums = torch.ops.aten._int_mm(whole, torch.ones(inner, outer, dtype=torch.int8))
                # Tensors of their own, for one given twice would be a case of its own to the compiler.
                by, ones, bias, weight, shift = (torch.ones(outer) for _ in range(5))
                self.dequantise(sums, scale, middle, by, ones, bias)
                self.add_norm(sums, scale, middle, by, ones, bias, torch.ones(rows, outer), weight, shift, 1e-12)


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
