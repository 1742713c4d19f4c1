"""Which of the encoder's layers are read, one or the sum, mean or concatenation of several, and by what network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from bothways.errors import ConfigError

How = Literal["sum", "mean", "concat"]
_WHICH = re.compile(r"(?:(sum|mean|concat):)?((?:-?\d+)?:(?:-?\d+)?|-?\d+(?:,-?\d+)*)")


MOST_HIDDEN = 1 << 16  # units of a hidden layer


@dataclass(frozen=True)
class Layers:
    """Numbers of hidden states, 0 being the embeddings' output, and how they become one."""

    how: How
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Features:
    """Fixed vectors as heads read them, instead of the encoder's last layer by a linear one.

    layers: which of the encoder's, as `parse_layers` has them; None: the last
    hidden: units of a hidden layer between the vectors and the answer; None: there is none

    Reference: Devlin et al., 2018, section 5.3.
    """

    layers: str | None = None
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.hidden is not None and not 1 <= self.hidden <= MOST_HIDDEN:
            raise ConfigError(f"hidden is {self.hidden}; it must be from 1 to {MOST_HIDDEN} units")


def parse_layers(wanted: str | int | None, layers: int) -> Layers | None:
    """What `wanted` says of an encoder of so many layers; None where it is the last one, which needs no mixing.

    "-2" is one layer; "sum:-4:", "mean:1,6,12" and "concat:-4:" are several, counted and sliced as Python does: 0 is
    the embeddings' output, 1 the first layer, -1 the last.

    Raises:
        ConfigError: none of these, or a layer that there is not.

    Reference: Devlin et al., 2018, table 7, where "concat:-4:" and "sum:-4:" are the last four hidden layers.
    """
    if wanted is None:
        return None
    found = _WHICH.fullmatch(str(wanted).strip())
    if found is None:
        raise ConfigError(f"layers is {str(wanted)!r}; wanted one (-1 is the last), sum:-4:, mean:1,6 or concat:-4:")
    how, which = cast("How | None", found[1]), found[2]
    numbers = _numbers(which, layers)
    if how is None and len(numbers) > 1:
        raise ConfigError(f"layers is {which!r}, which are {len(numbers)} layers; wanted sum:, mean: or concat: before")
    chosen = Layers(how or "sum", numbers)
    return None if numbers == (layers,) else chosen


def _numbers(which: str, layers: int) -> tuple[int, ...]:
    every = range(layers + 1)
    if ":" in which:
        first, last = (int(end) if end else None for end in which.split(":"))
        numbers = tuple(every[first:last])
    else:
        numbers = tuple(int(number) for number in which.split(","))
        if bad := [number for number in numbers if not -len(every) <= number < len(every)]:
            raise ConfigError(f"layers names {bad[0]}, but the model has {layers} layers (0 is the embeddings' output)")
        numbers = tuple(every[number] for number in numbers)
    if not numbers or len(set(numbers)) < len(numbers):
        fault = "names no layer" if not numbers else "names a layer twice"
        raise ConfigError(f"layers is {which!r}, which {fault}; the model has {layers} (0 is the embeddings' output)")
    return numbers
