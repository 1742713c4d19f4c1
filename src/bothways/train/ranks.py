"""Ranks: the same run on one process or, under torchrun, on several; sums go over all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

PATIENCE = timedelta(days=2)  # the first rank may tokenise that long while the others wait


@dataclass(frozen=True)
class Ranks:
    """This process's place among all."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank writes logs, checkpoints and models."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, network: nn.Module) -> None:
        """Add every rank's gradients up, in one message; a rank without micro-batches adds nothing."""
        if self.count == 1:
            return
        trained = [p for p in network.parameters() if p.requires_grad]
        # What no rank has a gradient for keeps none, as on one rank: the optimizer then leaves it alone.
        reached = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
        summed = [p for p, count in zip(trained, self.sum(reached).tolist(), strict=True) if count]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in summed])
        dist.all_reduce(flat)
        for parameter, part in zip(summed, flat.split([p.numel() for p in summed]), strict=True):
            parameter.grad = part.view_as(parameter)

    def agree(self, decision: bool, device: torch.device) -> bool:
        """What the first rank decided."""
        if self.count == 1:
            return decision
        return bool(self.sum(torch.tensor(float(decision and self.first), device=device)))

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.count > 1:
            dist.barrier()


def in_first_process() -> bool:
    """Whether this process tells the user things: it was started by itself, or by torchrun as rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that torchrun started, or this process alone.

    The first rank that fails raises its error; the others, whose failure only follows from it, exit without a word.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, count = next(rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Ranks(rank, count)
    except BaseException as error:
        if store.add("failed", 1) > 1:
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    dist.destroy_process_group()
