"""How well a model being pre-trained does on text that it doesn't learn from."""

from __future__ import annotations

import torch

from bothways.batch import pack
from bothways.data.loader import micro_batches
from bothways.data.pretraining import PretrainingSource
from bothways.errors import DataError
from bothways.infer.engine import Engine
from bothways.models.model import Model
from bothways.tasks.pretraining import PretrainTask

BATCH_TOKENS = 8192


class HeldOut:
    """Masked-LM loss and accuracy, and next-sentence accuracy, on at most so many sequences, always the same ones.

    Raises:
        DataError: the text makes no sequence.
    """

    def __init__(
        self,
        source: PretrainingSource,
        sequences: int,
        model: Model,
        task: PretrainTask,
        *,
        precision: str,
        device: torch.device,
    ) -> None:
        items = source.heldout(sequences)
        if not items:
            raise DataError("the held-out text (--dev) makes no sequence; more text is needed")
        self.batches = [pack([item.make() for item in part]) for part in micro_batches(items, BATCH_TOKENS)]
        self.engine = Engine(model.network, device=device, precision=precision)
        self.task = task

    def scores(self) -> dict[str, float]:
        """Means over all held-out targets."""
        sums: dict[str, float] = {}
        for batch in self.batches:
            for name, value in self.task.tally(self.engine.scores(batch), batch.to(self.engine.device)).items():
                sums[name] = sums.get(name, 0.0) + value
        counts = {name: sums[f"{name.rsplit('_', 1)[0]}_count"] for name in sums}
        return {name: value / counts[name] for name, value in sums.items() if not name.endswith("_count")}
