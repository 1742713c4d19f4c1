"""An encoder prepared for answers: the same formula, its weights laid out once for this machine's products."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Tokens
from bothways.infer.devices import fast_bfloat16
from bothways.infer.quantised import Int8Weight, Kernels
from bothways.models.pages import let_go
from bothways.nn.attention import attend
from bothways.nn.encoder import EncoderLayer
from bothways.nn.heads import MaskedHead
from bothways.nn.network import TEXT, Network

Activation = Callable[[Tensor], Tensor] | None
_M = TypeVar("_M", bound=nn.Module)


def prepare(network: Network, precision: str, *, kernels: Kernels | None = None) -> Network:
    """`network` for answers only, in float32, bfloat16 or int8; embeddings, norms, pooler and heads are shared with it.

    The encoder still takes token ids and still gives float32, so that heads know nothing of it. `kernels` are those
    that int8 computes with between products. Weights that change later do not change what was prepared.
    """
    prepared = _twin(network)
    last = len(network.encoder.layers) - 1
    layers = [
        PreparedLayer(layer, precision, kernels or Kernels(), last=number == last)
        for number, layer in enumerate(network.encoder.layers)
        if isinstance(layer, EncoderLayer)
    ]
    prepared.encoder._modules["layers"] = nn.ModuleList(layers)
    return prepared.eval()


def prepare_writing(network: Network, precision: str) -> Network:
    """`network` for writing on a CPU, in float32 or bfloat16: its product with the vocabulary is laid out once.

    That product is the largest of a step, and most of a step's time: it has few rows, for which PyTorch's own takes up
    to three times as long (LOG.md). All else is shared with `network`.
    """
    prepared = _twin(network)
    head = prepared.heads[TEXT]
    assert isinstance(head, MaskedHead)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    product = FloatProduct(head.matrix, head.bias, dtype, None, None, few_rows=True)
    if product.packed is not None:
        plain = head.vocabulary
        head.vocabulary = lambda x: plain(x) if len(x) == 1 else product(fill_few(x.to(dtype)), dtype)[: len(x)]
    return prepared.eval()


def _twin(module: _M) -> _M:
    """The same module with the same weights, which can be taken apart and set to eval without touching the original."""
    twin = copy.copy(module)
    children = {name: None if child is None else _twin(child) for name, child in module._modules.items()}
    twin.__dict__["_modules"] = children
    return twin


class PreparedLayer(nn.Module):
    """`EncoderLayer` without dropout, on prepared products.

    Every product sees a number of rows from a short list (`fill`): oneDNN keeps about half a megabyte of code for
    each shape it has met, for ever.
    """

    def __init__(self, layer: EncoderLayer, precision: str, kernels: Kernels, *, last: bool) -> None:
        super().__init__()
        self.heads = layer.attention.heads
        device = layer.attention.qkv.weight.device
        half = precision == "bfloat16" or (precision == "int8" and fast_bfloat16(device))
        self.mixing = torch.bfloat16 if half else torch.float32  # what attention computes in
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32  # what is passed on between products
        self.last = last
        made = functools.partial(_product, precision=precision, kernels=kernels)
        self.qkv = made(layer.attention.qkv)
        self.output = made(layer.attention.output, norm=layer.attention_norm)
        self.up = made(layer.mlp.up, activation=layer.mlp.activation)
        self.down = made(layer.mlp.down, norm=layer.mlp_norm)

    def forward(
        self, x: Float[Tensor, "T D"], tokens: Tokens, rows: Int[Tensor, " M"] | None = None
    ) -> Float[Tensor, "M D"]:
        """The layer's output, of all tokens or of `rows` only; float32 after the last layer."""
        count = len(x)
        x = fill(x.to(self.dtype))
        q, k, v = self.qkv(x, self.mixing)[:count].view(count, 3, self.heads, -1).unbind(1)
        mixed = attend(q, k, v, tokens, tokens).reshape(count, -1)
        if rows is not None:
            count = len(rows)
            mixed, x = mixed.index_select(0, rows), fill(x.index_select(0, rows))
        x = self.output.add_norm(fill(mixed), x)
        x = self.down.add_norm(self.up(x, self.dtype), x)[:count]
        return x.float() if self.last else x


# ------------------------------------------------------------------------------------------ shapes that recur

FINEST = 16  # rows
FEW = (1, 2, 3, 4, 6, 8, 12, 16)


def fill(x: Float[Tensor, "M D"]) -> Float[Tensor, "R D"]:
    """`x` with rows of zeros below it, up to the next number of the list that `ladder` climbs."""
    if (more := ladder(len(x)) - len(x)) == 0:
        return x
    return torch.cat([x, x.new_zeros(more, x.shape[1])])


def fill_few(x: Float[Tensor, "M D"]) -> Float[Tensor, "R D"]:
    """As `fill`, by finer steps below 16: when few texts are left to be written, a row more is felt."""
    if len(x) >= FINEST:
        return fill(x)
    more = next(few for few in FEW if few >= len(x)) - len(x)
    return torch.cat([x, x.new_zeros(more, x.shape[1])]) if more else x


def ladder(rows: int) -> int:
    """The next number of rows that a product is done with: sixteen to an octave, and multiples of 16."""
    step = max(FINEST, 1 << max(0, (rows - 1).bit_length() - 5))
    return -(-rows // step) * step


# --------------------------------------------------------------------------------------------------- products


class _Product(Protocol):
    """x Wᵀ + b, prepared once."""

    def __call__(self, x: Float[Tensor, "R I"], dtype: torch.dtype) -> Float[Tensor, "R O"]:
        """activation(x Wᵀ + b), as `dtype`."""
        ...

    def add_norm(self, x: Float[Tensor, "R I"], residual: Float[Tensor, "R O"]) -> Float[Tensor, "R O"]:
        """norm(residual + x Wᵀ + b)."""
        ...


def _product(
    linear: nn.Linear,
    *,
    precision: str,
    kernels: Kernels,
    norm: nn.LayerNorm | None = None,
    activation: Activation = None,
) -> _Product:
    if precision == "int8":
        return Int8Product(linear, kernels, norm=norm, activation=activation)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return FloatProduct(linear.weight, linear.bias, dtype, norm, activation)


class FloatProduct:
    """In float32 or bfloat16: by oneDNN, its weights laid out once, where that is the fastest; else by PyTorch."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        norm: nn.LayerNorm | None,
        activation: Activation,
        *,
        few_rows: bool = False,
    ) -> None:
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.norm = None if norm is None else _Norm(norm, dtype)
        self.activation = activation
        self.fused = "none"
        self.packed = _packed(self.weight, few_rows=few_rows)
        if self.packed is not None:
            self.weight = self.weight.new_empty(0)
            if self.activation is F.gelu:
                self.fused, self.activation = "gelu", None
        if self.weight.data_ptr() != weight.data_ptr():
            let_go(weight)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if self.packed is None:
            y = F.linear(x, self.weight, self.bias)
        else:
            how = "none" if self.fused == "gelu" else ""
            y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.fused, [], how)
        return (y if self.activation is None else self.activation(y)).to(dtype)

    def add_norm(self, x: Tensor, residual: Tensor) -> Tensor:
        assert self.norm is not None
        return self.norm(self(x, residual.dtype).add_(residual))


class Int8Product:
    """In int8: each row of x and each column of the product has a scale of its own, so no row depends on another.

    A row's zero stands for a number of its own, which the product takes into account by what a row of ones would give.
    Reference: Dettmers et al., 2022, sections 2 (zeropoint quantisation) and 2.1 (vector-wise).
    """

    def __init__(
        self, linear: nn.Linear, kernels: Kernels, *, norm: nn.LayerNorm | None, activation: Activation
    ) -> None:
        self.weight = Int8Weight.of(linear)
        let_go(linear.weight)
        self.kernels = kernels
        self.norm = None if norm is None else _Norm(norm, torch.float32)
        self.activation = activation

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        sums, scale, zero = self._sums(x)
        weight = self.weight
        y = self.kernels.dequantise(sums, scale, zero, weight.scale, weight.ones, weight.bias)
        if self.activation is F.gelu:
            torch.ops.aten.gelu_(y)
        elif self.activation is not None:
            y = self.activation(y)
        return y.to(dtype)

    def add_norm(self, x: Tensor, residual: Tensor) -> Tensor:
        assert self.norm is not None
        sums, scale, zero = self._sums(x)
        weight, norm = self.weight, self.norm
        given = (sums, scale, zero, weight.scale, weight.ones, weight.bias, residual)
        return self.kernels.add_norm(*given, norm.weight, norm.bias, norm.eps)

    def _sums(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whole, scale, zero = self.kernels.quantise(x)
        return self.weight.sums(whole), scale, zero


class _Norm:
    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.weight, self.bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        self.eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def _packed(weight: Tensor, *, few_rows: bool) -> Tensor | None:
    """The weight in oneDNN's own layout; None where oneDNN does not compute in this precision, or is slower.

    In float32 it is slower without AVX-512: by a seventh, and with GELU fused by a half (LOG.md). Not of few rows.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if weight.dtype == torch.float32 and not few_rows and MKL_IS_FASTER:
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight)


MKL_IS_FASTER = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT")
