"""Losses between all vectors of a step, on all ranks, in the memory of one micro-batch.

Each micro-batch with such vectors is computed twice: first its vectors only, from which the losses and their gradients
for each vector follow; then again with what backpropagation needs, on from those gradients. Dropout is a function of
the example, so it is the same both times, and nothing has to be remembered.

Reference: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from bothways.batch import Batch

JointLoss = Callable[[Tensor, Tensor], Tensor]  # of vectors (G, D), and labels, one row a vector: a mean


@dataclass(frozen=True)
class Cached:
    """What a joint loss of a step is, and what follows from it.

    share:     this rank's; the shares of all ranks add up to the loss, and so do their gradients
    gradients: for the vectors of each micro-batch that has some, by its number
    """

    share: Tensor
    gradients: dict[int, Tensor]


def cached(
    model: Callable[[Batch], dict[str, Tensor]], group: Sequence[Batch], losses: Mapping[str, JointLoss]
) -> dict[str, Cached]:
    """The joint loss of each head, taken of the vectors of all micro-batches of all ranks.

    A head all of whose vectors are in one micro-batch is left out: its loss is like any other.
    """
    holding = {head: [number for number, batch in enumerate(group) if head in batch.targets] for head in losses}
    if _ranks() == 1:
        holding = {head: numbers for head, numbers in holding.items() if len(numbers) > 1}
    vectors: dict[str, dict[int, Tensor]] = {head: {} for head in holding}
    with torch.no_grad():
        for number in sorted({number for numbers in holding.values() for number in numbers}):
            for head, found in model(group[number]).items():
                if head in vectors:
                    vectors[head][number] = found
    labels = {head: [_labels(group[number], head) for number in own] for head, own in vectors.items()}
    return {head: _gradients(vectors[head], labels[head], losses[head]) for head in holding}


def _labels(batch: Batch, head: str) -> Tensor:
    labels = batch.targets[head].labels
    assert labels is not None
    return labels


def _gradients(vectors: dict[int, Tensor], labels: Sequence[Tensor], loss_of: JointLoss) -> Cached:
    parts = list(vectors.values())
    device = parts[0].device if parts else torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    own = torch.cat(parts) if parts else torch.empty((0, 0), device=device)
    own_labels = torch.cat(list(labels)) if labels else torch.empty((0, 0), device=device)
    before, after, every_label = _others(own, own_labels)
    own = (own if parts else own.reshape(0, before.shape[1] if len(before) else after.shape[1])).requires_grad_()
    loss = loss_of(torch.cat([before, own, after]), every_label)
    share = loss.detach() / _ranks()
    if not parts:
        return Cached(share, {})
    (gradient,) = torch.autograd.grad(loss, own)
    return Cached(share, dict(zip(vectors, gradient.split([len(part) for part in parts]), strict=True)))


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _others(own: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The vectors of the ranks before and after this one, and the labels of all."""
    if _ranks() == 1:
        return own[:0].detach(), own[:0].detach(), labels
    vectors, every_label = _gathered(own), _gathered(labels)
    rank = dist.get_rank()
    none = [vectors[rank][:0]]
    return torch.cat(vectors[:rank] or none), torch.cat(vectors[rank + 1 :] or none), torch.cat(every_label)


def _gathered(own: Tensor) -> list[Tensor]:
    """Every rank's rows, of which each may have another number, or none."""
    shapes = [torch.zeros(3, dtype=torch.int64, device=own.device) for _ in range(_ranks())]
    whole = 0 if own.is_floating_point() else 1
    dist.all_gather(shapes, torch.tensor([len(own), own.shape[1], whole], device=own.device))
    rows, width = (max(int(shape[place]) for shape in shapes) for place in (0, 1))
    whole = next((int(shape[2]) for shape in shapes if len(shape) and shape[0]), 0)
    padded = torch.zeros((rows, width), dtype=torch.int64 if whole else torch.float32, device=own.device)
    if len(own):
        padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in shapes]
    dist.all_gather(found, padded)
    return [part[: int(shape[0])] for part, shape in zip(found, shapes, strict=True)]
