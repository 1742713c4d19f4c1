"""A loss between all vectors of a step, on all ranks, in the memory of one micro-batch.

Each micro-batch is computed twice: first its vectors only, from which the loss and its gradient for each vector
follow; then again with what backpropagation needs, on from those gradients. Dropout is a function of the example, so
it is the same both times, and nothing has to be remembered.

Reference: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from bothways.batch import Batch


def cached_backward(
    vectors_of: Callable[[Batch], Tensor],
    group: Sequence[Batch],
    labels: Sequence[Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Add up the gradients of `loss_of(vectors, labels)`, taken of all micro-batches of all ranks; this rank's share.

    vectors_of: a micro-batch's vectors (G, D)
    labels:     of each micro-batch, one row a vector

    The shares of the ranks add up to the loss, and so do their gradients.
    """
    if len(group) == 1 and _ranks() == 1:  # all vectors are there at once
        loss = loss_of(vectors_of(group[0]), labels[0])
        loss.backward()
        return loss.detach()
    with torch.no_grad():
        parts = [vectors_of(batch) for batch in group]
    device = parts[0].device if parts else torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    own = torch.cat(parts) if parts else torch.empty((0, 0), device=device)
    own_labels = torch.cat(list(labels)) if labels else torch.empty((0, 0), device=device)
    before, after, every_label = _others(own, own_labels)
    own = (own if parts else own.reshape(0, before.shape[1] if len(before) else after.shape[1])).requires_grad_()
    loss = loss_of(torch.cat([before, own, after]), every_label)
    if parts:
        (gradient,) = torch.autograd.grad(loss, own)
        for batch, part in zip(group, gradient.split([len(part) for part in parts]), strict=True):
            vectors = vectors_of(batch)
            vectors.backward(part.to(vectors.dtype))
    return loss.detach() / _ranks()


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
