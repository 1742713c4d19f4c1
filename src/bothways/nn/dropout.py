"""Dropout whose noise depends on the record and the position, not on where a batch happens to put them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_LANES = 4  # one 64-bit hash decides four elements, 16 bits each
_STEPS = 1 << 16


class Dropout(nn.Module):
    """Zero each element with probability `p` and scale the others by 1 / (1 - p).

    Whether an element is kept is a hash of its row's noise, its column and this module's `salt`, so the
    same record meets the same dropout packed or alone, on one rank or on two, before and after a resume;
    no generator state has to be saved. On a CPU it is also about three times as fast as drawing from
    PyTorch's serial generator. `p` is rounded to a multiple of 1/65,536.

    Reference: Srivastava et al., 2014; the hash is splitmix64's finaliser (Steele et al., 2014).
    """

    columns: Tensor

    def __init__(self, p: float, width: int, *, salt: int) -> None:
        super().__init__()
        self.width = width
        self.set(p)
        generator = torch.Generator().manual_seed(salt)
        # On the CPU even where the weights are made on the meta device, for no file holds these.
        columns = torch.randint(-(2**62), 2**62, (-(-width // _LANES),), generator=generator, device="cpu")
        self.register_buffer("columns", columns, persistent=False)

    def set(self, p: float) -> None:
        """Drop with probability `p` from now on."""
        self.p, self.threshold = p, round(p * _STEPS)

    def forward(self, x: Float[Tensor, "M width"], noise: Int[Tensor, " M"] | None) -> Float[Tensor, "M width"]:
        """`x` with some elements zeroed; unchanged in eval mode. Without `noise`, rows draw their own."""
        if not self.training or self.threshold == 0:
            return x
        if noise is None:
            noise = torch.randint(-(2**62), 2**62, (len(x),), device=x.device)
        kept = keep(noise, self.columns, self.threshold)[:, : self.width]
        return x * kept.to(x.dtype).mul_(_STEPS / (_STEPS - self.threshold))


def set_dropout(module: nn.Module, p: float) -> None:
    """Drop with probability `p` everywhere in `module`."""
    for part in module.modules():
        if isinstance(part, Dropout):
            part.set(p)


def keep(noise: Int[Tensor, " M"], columns: Int[Tensor, " L"], threshold: int) -> Tensor:
    """(M, 4 L) bool: True with probability 1 - threshold / 65,536, a function of row noise and column alone."""
    bits = noise[:, None] + columns[None, :]
    bits.bitwise_xor_(_shifted(bits, 30)).mul_(-0x40A7B892E31B1A47)
    bits.bitwise_xor_(_shifted(bits, 27)).mul_(-0x6B2FB644ECCEEE15)
    bits.bitwise_xor_(_shifted(bits, 31))
    return bits.view(torch.int16) >= threshold - _STEPS // 2


def _shifted(bits: Tensor, places: int) -> Tensor:
    """`bits` to the right with zeros following; `>>` alone lets the sign follow, which the last xor would cancel."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
