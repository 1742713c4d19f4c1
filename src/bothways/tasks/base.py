"""What a task is: its records, heads, loss, decoding and metric; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Batch, Example
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.heads import Head
from bothways.nn.network import Network
from bothways.tasks.gradient_cache import JointLoss, cached
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Coverage:
    """How many tokens of the text the model read once (kept), again in a further window (strided), or never."""

    kept: int = 0
    strided: int = 0
    dropped: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(self.kept + other.kept, self.strided + other.strided, self.dropped + other.dropped)

    def told(self) -> dict[str, int]:
        """As predictions and logs show it; what did not happen is left out."""
        return {"kept": self.kept} | {
            name: count for name, count in (("strided", self.strided), ("dropped", self.dropped)) if count
        }


@dataclass(frozen=True)
class Encoded:
    """One record as the examples it became.

    notes: what is no mistake but should be known, in words that are counted over all records and told in the log
    """

    examples: list[Example]
    coverage: Coverage
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the heads said of one example: the scores of its rows or groups, by head."""

    example: Example
    scores: dict[str, np.ndarray]


class Task(ABC):
    """Holds only what differs from task to task; the loop, batcher, engine and server know no more than this.

    A task is made in one of two ways: `learn` reads what it needs (its labels) from the training records;
    `from_dict` restores it from a saved model.
    """

    name: ClassVar[str]
    Settings: ClassVar[type]  # a dataclass of what can be set for this task
    criterion: str  # the metric by which the best epoch is chosen; larger is better
    points: float | None = 100.0  # that 1 of the criterion is: of a share, 100; None: it is no measure of points
    longest: int | None = None  # tokens of a text that it reads; None: as many as the encoder can
    segments: int = 1  # that it tells apart in a sequence: 2 where it reads two texts
    told: Sequence[str] = ()  # in words: what a saved model asks for and this task does not do, what it took over

    @classmethod
    @abstractmethod
    def learn(cls, records: Sequence[Record], settings: Any) -> Task:
        """The task for these training records.

        Raises:
            DataError: a record that can't be of this task, with its file and line.
        """

    def after(self, start: Task | None, begun: Any = None) -> Task:
        """This task as it goes on from a model of the task `start`: with what that settled and nobody settled anew.

        `begun`: the settings of the run that is resumed, if one is; what these leave open was left open then.
        """
        return self

    def settled(self, settings: Any) -> Any:
        """The run's settings with what `after` took over, for its config.toml to say."""
        return settings

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The class of transformers that reads this task's models."""

    @classmethod
    def from_config(cls, raw: dict[str, Any]) -> Task:
        """The task of a model that transformers saved, from its `config.json`."""
        raise TypeError(f"{cls.__name__} has no class in transformers")

    def config_entries(self) -> dict[str, Any]:
        """What `config.json` says of this task, for transformers."""
        return {}

    def files(self, base: dict[str, Any], tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
        """`config.json`, and what else transformers reads, by name; `base` is what is said of the encoder."""
        return {"config.json": base | self.config_entries()}

    @abstractmethod
    def heads(self, encoder: Encoder) -> dict[str, Head]:
        """Freshly initialised heads for this encoder."""

    def network(self, encoder: Encoder) -> Network:
        """The network of this task on that encoder; what is not the encoder's starts from random."""
        return Network(encoder, self.heads(encoder))

    def first_weights(self, weights: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
        """The weights of a model of another task as this task starts from them; `config` is that encoder's."""
        return weights

    def inward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A saved model's weights as the network has them."""
        return weights

    def outward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The network's weights as a saved model has them."""
        return weights

    @abstractmethod
    def encode(
        self, records: Sequence[Record], tokenizer: Tokenizer, *, max_length: int, labelled: bool, first: int = 0
    ) -> list[Encoded]:
        """Each record as examples; `first` is the index of the first record, for their origin.

        Raises:
            DataError: a record without what the task reads (or, when `labelled`, without a known label).
        """

    @abstractmethod
    def losses(self, scores: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Each head's loss, summed over its targets (the loop divides by their weight over all ranks)."""

    def joint_losses(self) -> dict[str, JointLoss]:
        """The heads whose loss is between all vectors of a step, and that loss; most tasks have none."""
        return {}

    def backward(
        self, model: Callable[[Batch], dict[str, Tensor]], group: Sequence[Batch], weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """Add up the gradients of one step; each head's loss, divided by its weight.

        model:   the scores of a batch, in the precision of the run
        group:   this rank's micro-batches, on the device; it may have none
        weights: of each head, over all ranks; 0 where the step has no target of it
        """
        joint = cached(model, group, {head: loss for head, loss in self.joint_losses().items() if weights[head]})
        total = {head: found.share for head, found in joint.items()}
        for number, batch in enumerate(group):
            scores = model(batch)
            onward = [  # on from the gradients of the vectors
                (scores.pop(head).float() * found.gradients[number].float()).sum()
                for head, found in joint.items()
                if number in found.gradients
            ]
            losses = self.losses(scores, batch) if scores else {}
            shares = {head: loss / (weights[head] or 1.0) for head, loss in losses.items()}  # no target: 0 / 1
            torch.stack([*shares.values(), *onward]).sum().backward()
            for head, share in shares.items():
                total[head] = total[head] + share.detach() if head in total else share.detach()
        return total

    @abstractmethod
    def decode(self, record: Record, answers: list[Answer]) -> dict[str, Any]:
        """The prediction for one record, from all of its examples; it can be written as JSON."""

    @abstractmethod
    def metrics(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Every metric of the task, by the names that `bothways evaluate --json` prints."""

    def by_record(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """What each record adds to the metrics by which two models are compared, as `paired_bootstrap` takes it.

        By the metric's name: (records,) scores, (records, 3) counts of right, predicted and gold items, or (records, 5)
        moments. A task without such metrics has none.
        """
        return {}

    def tune(self, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> None:  # noqa: B027
        """Choose by the dev records what no gradient learns (a threshold); most tasks choose nothing."""

    def with_options(self, **options: Any) -> Task:
        """The same task with what can be said for one prediction only (a dictionary); most tasks take nothing.

        Raises:
            ConfigError: an option that the task doesn't take.
        """
        raise ConfigError(f"{self.name} takes no options when predicting; found {', '.join(sorted(options))}")

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs to restore this task, as JSON."""

    @classmethod
    @abstractmethod
    def from_dict(cls, saved: dict[str, Any]) -> Task:
        """The task that `to_dict` described."""


def settings_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON, without what is off."""
    return {key: value for key, value in asdict(settings).items() if value is not None}


def count_by_example(batch_examples: Sequence[Example], head: str, per: str) -> list[int]:
    """How many scores of a head belong to each example; none of one that doesn't feed it."""
    reads = [example.reads.get(head) for example in batch_examples]
    return [0 if read is None else len(read.rows if per == "row" else read.groups) for read in reads]
