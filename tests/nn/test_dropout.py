"""Dropout: the right share at the right scale, the same for a record in any batch, and without visible patterns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bothways.batch import Example, Piece, Read, pack
from bothways.nn.dropout import Dropout


def noise_of(rows: int, *, seed: int = 0) -> Tensor:
    """What pack() gives one sequence of so many tokens."""
    noise = pack([example(rows, seed)]).tokens.noise
    assert noise is not None
    return noise


def example(length: int, seed: int) -> Example:
    return Example((Piece(np.zeros(length, dtype=int)),), {"x": Read(np.array([0]), np.array([1]))}, seed=seed)


def kept(module: Dropout, noise: Tensor | None, rows: int) -> Tensor:
    """(rows, width) 1.0 where an element is kept."""
    return (module.train()(torch.ones(rows, module.width), noise) != 0).double()


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two sets of decisions."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return float((a * b).mean() / (a.std() * b.std()))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("with_noise", [True, False])
def test_rate_and_scale(p: float, with_noise: bool) -> None:
    module, rows = Dropout(p, 64, salt=1).train(), 2000
    noise = noise_of(rows) if with_noise else None
    x = torch.randn(rows, 64) + 3.0
    y = module(x, noise)
    dropped = y == 0
    deviation = (p * (1 - p)) ** 0.5
    assert abs(float(dropped.double().mean()) - p) < 5 * deviation / (rows * 64) ** 0.5
    # No token and no column is luckier than chance has it.
    assert float((dropped.double().mean(0) - p).abs().max()) < 5 * deviation / rows**0.5
    assert float((dropped.double().mean(1) - p).abs().max()) < 5.5 * deviation / 64**0.5
    torch.testing.assert_close(y[~dropped], x[~dropped] / (1 - module.threshold / 65536))
    assert abs(module.threshold / 65536 - p) < 1e-5


@pytest.mark.parametrize("width", [1, 3, 4, 5, 50])
def test_any_width(width: int) -> None:
    mask = kept(Dropout(0.3, width, salt=9), noise_of(5000), 5000)
    assert mask.shape == (5000, width)
    assert abs(float(mask.mean()) - 0.7) < 0.05


def test_off_is_off() -> None:
    x = torch.randn(5, 8)
    assert Dropout(0.5, 8, salt=1).eval()(x, noise_of(5)) is x
    assert Dropout(0.0, 8, salt=1).train()(x, noise_of(5)) is x


def test_gradient_goes_through_what_was_kept() -> None:
    module, x = Dropout(0.5, 16, salt=1).train(), torch.randn(20, 16, requires_grad=True)
    y = module(x, noise_of(20))
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 2.0))


def test_packed_as_alone() -> None:
    module = Dropout(0.4, 32, salt=3)
    alone = {length: kept(module, noise_of(length, seed=length), length) for length in (3, 9, 17)}
    packed = pack([example(length, length) for length in (9, 17, 3)]).tokens
    parts = kept(module, packed.noise, 29).split(packed.lengths)
    for length, part in zip(packed.lengths, parts, strict=True):
        assert torch.equal(part, alone[length])


def test_seeds_modules_positions_and_columns_are_independent() -> None:
    rows, width = 4000, 64
    module = Dropout(0.5, width, salt=1)
    mask = kept(module, noise_of(rows), rows)
    limit = 5 / (rows * width) ** 0.5
    assert torch.equal(mask, kept(Dropout(0.5, width, salt=1), noise_of(rows), rows)), "a function of noise and salt"
    for salt in (2, 3, 4, 1 << 20):
        assert abs(correlation(mask, kept(Dropout(0.5, width, salt=salt), noise_of(rows), rows))) < limit
    for seed in (1, 2, 1 << 40):
        assert abs(correlation(mask, kept(module, noise_of(rows, seed=seed), rows))) < limit
    for step in (1, 2, 3, 64):
        assert abs(correlation(mask[step:], mask[:-step])) < limit, f"positions {step} apart"
        assert abs(correlation(mask[:, step % width :], mask[:, : width - step % width])) < limit or step == 64
    between_columns = np.corrcoef(mask.numpy().T) - np.eye(width)
    assert np.abs(between_columns).max() < 5.5 / rows**0.5


def test_without_noise_rows_draw_from_torch() -> None:
    module = Dropout(0.5, 64, salt=1)
    torch.manual_seed(3)
    first = kept(module, None, 100)
    assert abs(correlation(first, kept(module, None, 100))) < 0.1
    torch.manual_seed(3)
    assert torch.equal(first, kept(module, None, 100))


def test_nothing_of_it_is_saved() -> None:
    assert Dropout(0.5, 64, salt=1).state_dict() == {}
