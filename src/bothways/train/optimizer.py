"""AdamW and the learning rate's schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from bothways.errors import ConfigError


@dataclass(frozen=True)
class Optim:
    """How weights follow gradients."""

    lr: float = 5e-5
    """peak learning rate"""
    warmup: float = 0.1
    """share of the steps in which it rises from 0"""
    schedule: Literal["linear", "cosine", "stable", "constant"] = "linear"
    """how it falls afterwards; stable: not until the last `decay` of the steps (warm-up, stable, decay)"""
    decay: float = 0.2
    """stable: share of the steps in which it falls to 0"""
    weight_decay: float = 0.01
    """on matrices, not on biases and norms"""
    beta1: float = 0.9
    """first moment's decay"""
    beta2: float = 0.999
    """second moment's decay"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    clip: float | None = 1.0
    """largest norm of a step's gradient; none: not clipped"""
    attention_dropout: float | None = 0.0
    """dropout of attention weights, which fused kernels do without; none: as config.json says"""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optim.lr is {self.lr}; it must be above 0 (fine-tuning: 1e-5 to 1e-4)")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it is a share of the steps, from 0 to 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"optim.clip is {self.clip}; it must be above 0, or none")


def make_optimizer(network: nn.Module, settings: Optim) -> torch.optim.AdamW:
    """AdamW over what is to be trained; biases and norms are not decayed.

    Reference: Loshchilov & Hutter, 2017; google-research/bert optimization.py (what is excluded from decay).
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def learning_rate(settings: Optim, step: int, steps: int) -> float:
    """The rate of step number `step` (from 0) of `steps`: a function of nothing else, so a resume can't shift it."""
    warmup = settings.warmup * steps
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "stable":
        falling = max(settings.decay * steps, 1)
        return settings.lr * min(1.0, (steps - step) / falling)
    done = (step - warmup) / max(steps - warmup, 1)
    if settings.schedule == "cosine":
        return settings.lr * float(torch.cos(torch.tensor(done * torch.pi)) + 1) / 2
    return settings.lr * (1 - done)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate for the coming step, in all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
