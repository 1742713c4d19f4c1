"""Labelled examples for fine-tuning: encoded once, shuffled anew in each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bothways.batch import Example, mix_seed
from bothways.data.source import Item


class ExampleSource:
    """A `Source` over examples that fit into memory; epoch and record decide each example's dropout."""

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return len(self.examples)

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        """The epoch's permutation of the examples, from the `skip`-th on."""
        order = np.random.default_rng(mix_seed(self.seed, epoch)).permutation(len(self.examples))
        for number in order[skip:].tolist():
            example = self.examples[number]
            yield Item(example.tokens, partial(replace, example, seed=mix_seed(self.seed, epoch, number)))
