"""What the training loop draws from: items that know their size before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bothways.batch import Example


@dataclass(frozen=True, slots=True)
class Item:
    """One example that has not been made yet.

    tokens: what the encoder will see of it, so that batches can be planned without reading any text
    make:   makes the example; each call gives an equal one, in any order and on any thread
    """

    tokens: int
    make: Callable[[], Example]


class Source(Protocol):
    """Examples for training, the same for the same (seed, epoch) however often the run was interrupted."""

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        """The items of an epoch (counted from 0) in their shuffled order, without the first `skip` of them.

        Skipping is cheap: nothing is made of what is skipped. An item depends on its place in the epoch and
        not on those before it, so `list(items(e, k)) == list(items(e))[k:]`, example for example.
        """
        ...
