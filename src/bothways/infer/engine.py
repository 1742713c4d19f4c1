"""The engine: examples in, scores out, in batches of near length up to a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from bothways.batch import Batch, Example, pack
from bothways.infer.devices import computing_in
from bothways.infer.generation import written
from bothways.nn.network import Network
from bothways.tasks.base import Answer, count_by_example

BATCH_TOKENS = 4096


class Engine:
    """Runs a network over examples. It has no memory: the same example gets the same answer in any company."""

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device,
        precision: str = "float32",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.network, self.device, self.precision, self.batch_tokens = network, device, precision, batch_tokens

    def answers(self, examples: Sequence[Example], *, progress: Callable[[int], None] | None = None) -> list[Answer]:
        """Every head's scores for each example, in the order given; `progress` hears of tokens done."""
        answers: list[Answer | None] = [None] * len(examples)
        for numbers in by_length(examples, self.batch_tokens):
            chosen = [examples[number] for number in numbers]
            for number, answer in zip(numbers, self.run(chosen), strict=True):
                answers[number] = answer
            if progress is not None:
                progress(sum(example.tokens for example in chosen))
        return [answer for answer in answers if answer is not None]

    def run(self, examples: Sequence[Example]) -> list[Answer]:
        """One packed batch; of examples whose targets shall be written, these."""
        if examples[0].decoding is not None:
            with self.inferring():
                return [*map(Answer, examples, written(self.network, examples, self.device))]
        scores = {name: score.float().cpu().numpy() for name, score in self.scores(pack(examples)).items()}
        shared: list[dict[str, np.ndarray]] = [{} for _ in examples]
        for name, score in scores.items():
            counts = count_by_example(examples, name, self.network.head(name).per)
            for example, parts, part in zip(examples, shared, np.split(score, np.cumsum(counts)[:-1]), strict=True):
                if name in example.reads:
                    parts[name] = part
        return [Answer(example, parts) for example, parts in zip(examples, shared, strict=True)]

    def scores(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Every head's scores of one batch, on the device."""
        with self.inferring():
            return self.network(batch.to(self.device))

    @contextmanager
    def inferring(self) -> Iterator[None]:
        """Without gradients and dropout, in the engine's precision."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.inference_mode(), computing_in(self.precision, self.device):
                yield
        finally:
            self.network.train(training)


def by_length(examples: Sequence[Example], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of examples, longest first, in batches of at most `batch_tokens` (or one example)."""
    order = sorted(range(len(examples)), key=lambda number: -examples[number].tokens)
    batch: list[int] = []
    tokens = 0
    for number in order:
        if batch and tokens + examples[number].tokens > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(number)
        tokens += examples[number].tokens
    if batch:
        yield batch
