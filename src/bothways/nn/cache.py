"""Keys and values of what has been read and written: laid out once, appended to, never moved while beams change."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.batch import Tokens

FIRST_ROOM = 32  # steps that room is made for at first; it doubles when it is used up


class Cache:
    """For S sources with B beams each; a source's live beams are one query sequence over its keys.

    What beam b wrote at step t is key number t × B + b of its source, and stays so: that a beam goes on from
    another one is a matter of which keys it may see (`bias`), so no key is ever copied from beam to beam.

    memory:      for each layer keys and values of the source, (S, H, L, K)
    memory_bias: (S, 1, 1, L) -inf beyond a source's end; None: all are equally long
    bias:        (S, 1, B, t × B) -inf where a beam must not look; None: there is one beam
    length:      how many tokens each target has
    """

    def __init__(self, sources: Tokens, *, beams: int, most: int, device: torch.device) -> None:
        self.sources, self.beams, self.most, self.length = len(sources.lengths), beams, most, 0
        self.memory: list[tuple[Tensor, Tensor]] = []
        self._own: list[tuple[Tensor, Tensor]] = []
        self._lengths = np.array(sources.lengths)
        width = int(self._lengths.max())
        begins = np.cumsum(self._lengths) - self._lengths
        inside = np.arange(width)[None, :] < self._lengths[:, None]
        places = np.where(inside, begins[:, None] + np.arange(width)[None, :], begins[:, None])
        self._places = torch.from_numpy(places.reshape(-1)).to(device)
        self.memory_bias: Tensor | None = None
        if not inside.all():
            beyond = torch.from_numpy(~inside).to(device)
            self.memory_bias = torch.zeros(inside.shape, device=device).masked_fill_(beyond, -math.inf)[:, None, None]
        self._seen: Tensor | None = None
        if beams > 1:
            self._seen = torch.full((self.sources, 1, beams, self._room * beams), -math.inf, device=device)

    @property
    def _room(self) -> int:
        """Steps that the cache's own keys have room for."""
        return self._own[0][0].shape[2] // self.beams if self._own else min(FIRST_ROOM, self.most)

    @property
    def bias(self) -> Float[Tensor, "S one B L"] | None:
        """See the class."""
        return None if self._seen is None else self._seen[..., : self.length * self.beams]

    def add_layer(self, k: Float[Tensor, "T H K"], v: Float[Tensor, "T H K"]) -> None:
        """The next layer's keys and values of all source tokens."""
        self.memory.append((self._laid_out(k), self._laid_out(v)))
        shape = (self.sources, k.shape[1], self._room * self.beams, k.shape[2])
        self._own.append((k.new_empty(shape), v.new_empty(shape)))

    def _laid_out(self, x: Tensor) -> Tensor:
        """(T, H, K) → (S, H, L, K)."""
        x = x.index_select(0, self._places).view(self.sources, -1, *x.shape[1:])
        return x.transpose(1, 2).contiguous()

    def open_step(self) -> None:
        """Count one token more; from here on each beam sees the key that it is about to write."""
        if self.length == self._room:
            self._grow()
        self.length += 1
        if self._seen is not None:
            start = (self.length - 1) * self.beams
            self._seen[..., start : start + self.beams].diagonal(dim1=-2, dim2=-1).zero_()

    def append(
        self, layer: int, k: Float[Tensor, "S H B K"], v: Float[Tensor, "S H B K"]
    ) -> tuple[Float[Tensor, "S H L K"], Float[Tensor, "S H L K"]]:
        """Write the step's keys and values of a layer; all that there are so far."""
        stop = self.length * self.beams
        keys, values = self._own[layer]
        keys[:, :, stop - self.beams : stop] = k
        values[:, :, stop - self.beams : stop] = v
        return keys[:, :, :stop], values[:, :, :stop]

    def follow(self, parents: Int[Tensor, "S B"]) -> None:
        """Beam b of each source goes on from what was beam `parents[:, b]`."""
        if self._seen is not None:
            used = self._seen[..., : self.length * self.beams]
            index = parents[:, None, :, None].expand(used.shape)
            self._seen[..., : self.length * self.beams] = used.gather(2, index)

    def keep(self, rows: np.ndarray) -> None:
        """Only the sources of these numbers are left; what was laid out for longer ones is cut."""
        device = self._places.device
        index = torch.from_numpy(rows).to(device)
        self.sources, self._lengths = len(rows), self._lengths[rows]
        width, used, room = int(self._lengths.max()), self.length * self.beams, self._room * self.beams
        self.memory = [
            (k[:, :, :width].index_select(0, index), v[:, :, :width].index_select(0, index)) for k, v in self.memory
        ]
        if self.memory_bias is not None:
            self.memory_bias = self.memory_bias[..., :width].index_select(0, index)
            if int(self._lengths.min()) == width:
                self.memory_bias = None
        self._own = [(_kept(k, index, used, room), _kept(v, index, used, room)) for k, v in self._own]
        if self._seen is not None:
            self._seen = self._seen.index_select(0, index)

    def _grow(self) -> None:
        """Twice the room, but no more than will be needed."""
        used = self.length * self.beams
        room = min(2 * self._room, self.most) * self.beams
        everyone = torch.arange(self.sources, device=self._places.device)
        self._own = [(_kept(k, everyone, used, room), _kept(v, everyone, used, room)) for k, v in self._own]
        if self._seen is not None:
            wider = self._seen.new_full((*self._seen.shape[:-1], room), -math.inf)
            wider[..., :used] = self._seen[..., :used]
            self._seen = wider


def _kept(x: Tensor, index: Tensor, used: int, room: int) -> Tensor:
    """The chosen sources' rows with their first `used` keys, and room for more."""
    moved = x.new_empty((len(index), x.shape[1], room, x.shape[3]))
    torch.index_select(x[:, :, :used], 0, index, out=moved[:, :, :used])
    return moved
