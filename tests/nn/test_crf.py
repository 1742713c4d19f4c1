"""Tests of the conditional random field: against all sequences tried out, packed and alone."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from bothways.nn.crf import CrfHead, log_likelihood


def _one_by_one(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The log-probability of one sentence's labels, over every sequence there is."""
    between, start, end = weights[:-2], weights[-2], weights[-1]

    def total(path: tuple[int, ...]) -> Tensor:
        steps = [between[a, b] for a, b in pairwise(path)]
        scores = [row[tag] for row, tag in zip(logits, path, strict=True)]
        return torch.stack([start[path[0]], end[path[-1]], *scores, *steps]).sum()

    every = [total(path) for path in product(range(logits.shape[1]), repeat=len(logits))]
    return total(tuple(labels.tolist())) - torch.stack(every).logsumexp(0)


@pytest.mark.parametrize("sizes", [[1], [4], [3, 1, 5, 1, 2], [2, 2, 2], [1, 0, 3]])
def test_log_likelihood_is_that_of_all_sequences_tried_out(sizes: list[int]) -> None:
    labels = torch.randint(0, 3, (sum(sizes),))
    logits = torch.randn(sum(sizes), 3, dtype=torch.double, requires_grad=True)
    weights = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    groups = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    found = log_likelihood(logits, labels, groups, weights)
    parts = [
        _one_by_one(logits[begin:end], labels[begin:end], weights)
        for begin, end in zip(groups.tolist(), groups.tolist()[1:], strict=False)
        if end > begin
    ]
    wanted = torch.stack(parts).sum()
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(
        torch.autograd.grad(found, (logits, weights)), torch.autograd.grad(wanted, (logits, weights)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_without_weights_it_is_the_softmax_of_each_word() -> None:
    logits, labels = torch.randn(7, 4), torch.randint(0, 4, (7,))
    groups = torch.tensor([0, 3, 7])
    (weights,) = CrfHead(4)(torch.zeros(0, 8), None, torch.tensor([0, 0]))
    wanted = -torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(log_likelihood(logits, labels, groups, weights), wanted)


def test_the_head_gives_its_weights_once_a_group() -> None:
    head = CrfHead(3)
    torch.nn.init.normal_(head.transitions)
    given = head(torch.zeros(0, 8), None, torch.tensor([0, 0, 0]))
    assert given.shape == (2, 5, 3)
    torch.testing.assert_close(given[1], torch.cat([head.transitions, torch.zeros(2, 3)]))
