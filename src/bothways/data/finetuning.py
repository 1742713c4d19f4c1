"""Labelled examples for fine-tuning: encoded once, shuffled anew in each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bothways.batch import Example, mix_seed
from bothways.data.source import Item


class ExampleSource:
    """A `Source` over examples that fit into memory; epoch and record decide each example's dropout and masks."""

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return len(self.examples)

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        """The epoch's permutation of the examples, from the `skip`-th on."""
        order = np.random.default_rng(mix_seed(self.seed, epoch)).permutation(len(self.examples))
        for number in order[skip:].tolist():
            example = self.examples[number]
            yield Item(example.tokens, partial(example.seeded, mix_seed(self.seed, epoch, number)))

    def hash(self) -> str:
        """SHA-256 of all examples in their order, in hexadecimal: of their tokens and what is to be learnt of them.

        Of vectors that a teacher was asked for, which alone are float16, only how many: their last bits are the
        processor's.
        """
        hashed = hashlib.sha256()
        for example in self.examples:
            hashed.update(_text(example))
            for head, read in sorted(example.reads.items()):
                hashed.update(head.encode())
                for part in (read.rows, read.groups, read.labels):
                    if part is not None and part.dtype == np.float16:
                        part = np.array(part.shape)
                    hashed.update(b"\0" if part is None else np.ascontiguousarray(part).tobytes())
        return hashed.hexdigest()


def _text(example: Example) -> bytes:
    return b"\0".join(np.asarray(piece.input_ids, np.int64).tobytes() for piece in example.pieces)
