"""AdamW, Muon and the learning rate's schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bothways.errors import ConfigError
from bothways.infer.devices import fast_bfloat16
from bothways.models.reading import Advice
from bothways.nn.network import Network

DROPOUT_STEPS = 1 << 16  # a probability to drop is rounded to a multiple of 1 / so many
PLAIN_LR = 5e-5  # Devlin et al., 2018: 2e-5 to 5e-5 for a base model


@dataclass(frozen=True)
class Optim:
    """How weights follow gradients."""

    method: Literal["auto", "adamw", "muon"] = "auto"
    """muon: the layers' matrices by orthogonalised momentum, all else by AdamW at the same rate; auto: what the model
    that is begun from advises, else adamw"""
    lr: float | None = None
    """peak learning rate; none: what the model that is begun from advises, else 5e-5"""
    warmup: float = 0.1
    """share of the steps in which it rises from 0"""
    schedule: Literal["linear", "cosine", "stable", "constant"] = "linear"
    """how it falls afterwards; stable: not until the last `decay` of the steps (warm-up, stable, decay)"""
    decay: float = 0.2
    """stable: share of the steps in which it falls to 0"""
    weight_decay: float = 0.01
    """on matrices, not on biases and norms"""
    beta1: float = 0.9
    """first moment's decay in AdamW; Muon's momentum is 0.95"""
    beta2: float = 0.999
    """second moment's decay"""
    eps: float = 1e-8
    """added to the root of the second moment"""
    clip: float | None = 1.0
    """largest norm of a step's gradient; none: not clipped"""
    dropout: float | None = None
    """dropout of hidden vectors; none: as config.json says. Text that is read only once needs none"""
    attention_dropout: float | None = 0.0
    """dropout of attention weights, which fused kernels do without; none: as config.json says"""

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "eps", "clip"):
            if (value := getattr(self, name)) is not None and math.isinf(value):
                raise ConfigError(f"optim.{name} is {value}; it must be a finite number; leave it out for the default")
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"optim.lr is {self.lr}; it must be above 0 (fine-tuning: 1e-5 to 1e-4)")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it is a share of the steps, from 0 to 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("dropout", "attention_dropout"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise ConfigError(f"optim.{name} is {value}; a probability to drop lies in [0, 1)")
            if value is not None and round(value * DROPOUT_STEPS) == DROPOUT_STEPS:
                raise ConfigError(
                    f"optim.{name} is {value}, which is rounded to 1: all would be dropped; it must be below 0.99999"
                )
        if self.schedule == "stable" and self.warmup + self.decay > 1 + 1e-9:  # sums in binary are not exact
            raise ConfigError(
                f"optim.warmup is {self.warmup} and optim.decay is {self.decay}, more than all of the steps together; "
                f"a stable schedule wants them to be at most 1 in sum; lower one of them"
            )
        if not self.weight_decay >= 0:
            raise ConfigError(f"optim.weight_decay is {self.weight_decay}; it must be at least 0")
        if not self.eps > 0:
            raise ConfigError(f"optim.eps is {self.eps}; it must be above 0 (AdamW: 1e-8 to 1e-6)")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"optim.clip is {self.clip}; it must be above 0, or none")

    @property
    def peak(self) -> float:
        """The rate that is reached."""
        return PLAIN_LR if self.lr is None else self.lr

    def advised(self, advice: Advice) -> Optim:
        """The same, with what the model advises where nothing was said."""
        method = advice.method if self.method == "auto" else self.method
        return replace(self, method=method, lr=advice.lr if self.lr is None else self.lr)


def make_optimizer(network: Network, settings: Optim) -> torch.optim.Optimizer:
    """The optimizer over what is to be trained; biases and norms are not decayed.

    Muon's steps are scaled to the size of AdamW's, so one rate and one decay serve both.

    Reference: Loshchilov & Hutter, 2017; google-research/bert optimization.py (what is excluded from decay);
    Jordan et al., 2024 (Muon: hidden matrices only); Liu et al., 2025, section 2.2 (its scale).
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    layers = _layers(network) if settings.method == "muon" else []
    hidden = {id(p) for module in layers for p in module.parameters() if p.ndim == 2}
    groups = [
        {"params": [p for p in trained if p.ndim > 1 and id(p) not in hidden], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.peak,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
    matrices = [p for p in trained if id(p) in hidden]
    if not matrices:
        return adamw
    kind = torch.optim.Muon if fast_bfloat16(matrices[0].device) else Float32Muon
    muon = kind(matrices, lr=settings.peak, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Together(adamw, muon)


def _layers(network: Network) -> list[nn.Module]:
    """Those of the encoder, and of a decoder what it does not share with it."""
    if (decoder := network.decoder) is None:
        return [network.encoder.layers]
    own = [decoder.body.layers] if decoder.body is not None else []
    return [network.encoder.layers, *own, decoder.cross]


class Float32Muon(torch.optim.Muon):
    """PyTorch's Muon with float32 products, for where those of bfloat16, which it is written in, are emulated.

    There they take several times as long as all else of a training step. Scales steps by "match_rms_adamw".
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step, as the parent takes it."""
        for group in self.param_groups:
            momentum, lr = group["momentum"], group["lr"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                update = weight.grad.lerp(buffer, momentum) if group["nesterov"] else buffer
                update = _orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(update, alpha=-lr * 0.2 * max(weight.shape) ** 0.5)


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], rounds: int, eps: float) -> Tensor:
    """Nearly U V^T of the matrix's U S V^T, by Newton and Schulz' iteration.

    Reference: Jordan et al., 2024, zeropower_via_newtonschulz5.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(rounds):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each with its own weights; what they keep of them lies in one `state`."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            part.state = self.state

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of each."""
        for part in self.parts:
            part.step()


def learning_rate(settings: Optim, step: int, steps: int) -> float:
    """The rate of step number `step` (from 0) of `steps`: a function of nothing else, so a resume can't shift it."""
    warmup = settings.warmup * steps
    if step < warmup:
        return settings.peak * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.peak
    if settings.schedule == "stable":
        falling = max(settings.decay * steps, 1)
        return settings.peak * min(1.0, (steps - step) / falling)
    done = (step - warmup) / max(steps - warmup, 1)
    if settings.schedule == "cosine":
        return settings.peak * float(torch.cos(torch.tensor(done * torch.pi)) + 1) / 2
    return settings.peak * (1 - done)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate for the coming step, in all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
