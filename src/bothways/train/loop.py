"""The one loop: every model of every task is trained here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_

from bothways.batch import Batch
from bothways.data.loader import Step
from bothways.errors import TrainingError
from bothways.infer.devices import computing_in, give_back_memory
from bothways.nn.network import Network
from bothways.tasks.base import Task
from bothways.train.optimizer import Optim, learning_rate, set_learning_rate
from bothways.train.ranks import Ranks

GIVE_BACK_EVERY = 8  # steps; memory that was given back has to be cleared again: counted, 0.4 % of the time


@dataclass
class Progress:
    """Where a run stands: what a checkpoint holds besides weights and moments.

    Counts are of the whole run, over all ranks.
    """

    step: int = 0
    epoch: int = 0
    consumed: int = 0  # items of that epoch
    tokens: int = 0
    examples: int = 0
    seconds: float = 0.0  # that the steps took, with the looks at held-out data and the checkpoints between them
    steps_seconds: float = 0.0  # that the steps alone took


@dataclass(frozen=True)
class Report:
    """What happened in one step."""

    losses: dict[str, float]  # per head, means over its targets on all ranks
    norm: float  # of the gradient, before clipping
    rate: float
    tokens: int
    epoch_ended: bool
    asked_to_stop: bool


def train(
    network: Network,
    task: Task,
    batches: Iterator[Step],
    optimizer: torch.optim.Optimizer,
    settings: Optim,
    *,
    steps: int,
    progress: Progress,
    device: torch.device,
    precision: str,
    ranks: Ranks,
    after_step: Callable[[Report], bool | None],
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take steps until there are `steps` of them, or `after_step` returns True.

    Each head's summed loss is divided by its weight over all ranks and micro-batches, so the same step is
    taken however it is split.

    Raises:
        TrainingError: the gradient is not finite; the weights are those of the step before.
    """
    network.train()
    heads = list(network.heads)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    while progress.step < steps:
        group = next(batches)
        counts = torch.tensor(
            [sum(batch.targets[head].weight for batch in group.batches if head in batch.targets) for head in heads]
            + [float(asked_to_stop())],
            dtype=torch.float64,
        )
        *weights, stop = _over_ranks(counts, device, ranks).tolist()
        rate = learning_rate(settings, progress.step, steps)
        set_learning_rate(optimizer, rate)
        summed = _backward(network, task, group.batches, dict(zip(heads, weights, strict=True)), device, precision)
        ranks.sum_gradients(network)
        norm = clip_grad_norm_(trained, settings.clip if settings.clip is not None else float("inf"))
        if not norm.isfinite():
            raise TrainingError(
                f"step {progress.step + 1}: the norm of the gradient is {float(norm)}; "
                f"try a lower --optim.lr (it is {settings.peak:g}) or --precision float32"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        epoch_ended = _advance(progress, group)
        if device.type == "cpu" and progress.step % GIVE_BACK_EVERY == 0:
            give_back_memory()
        losses = dict(zip(heads, ranks.sum(torch.stack([summed[head] for head in heads])).tolist(), strict=True))
        stopping = stop > 0 or (ranks.count == 1 and asked_to_stop())
        if after_step(Report(losses, float(norm), rate, group.tokens, epoch_ended, stopping)):
            return


def _backward(
    network: Network, task: Task, batches: list[Batch], weights: dict[str, float], device: torch.device, precision: str
) -> dict[str, torch.Tensor]:
    """Gradients of all micro-batches; each head's loss, divided by its weight."""

    def model(batch: Batch) -> dict[str, torch.Tensor]:
        with computing_in(precision, device):
            return network(batch)

    total = task.backward(model, [batch.to(device) for batch in batches], weights)
    none = torch.zeros((), device=device)
    return {head: total.get(head, none) for head in weights}


def _over_ranks(values: torch.Tensor, device: torch.device, ranks: Ranks) -> torch.Tensor:
    return values if ranks.count == 1 else ranks.sum(values.to(device)).cpu()


def _advance(progress: Progress, group: Step) -> bool:
    """Count the step; True when it was the last of its epoch."""
    progress.step += 1
    progress.tokens += group.tokens
    progress.examples += group.examples
    progress.epoch, progress.consumed = group.epoch, group.consumed
    return group.last
