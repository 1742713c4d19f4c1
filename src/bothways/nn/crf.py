"""A linear-chain conditional random field over packed sentences: how likely each tag follows each other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bothways.nn.heads import Head


class CrfHead(Head):
    """Scores of one tag after another, the same for every group; it reads no rows.

    The three weights are called as in pytorch-crf. They start from zero: at first every order of tags is as good.

    Reference: Lafferty et al., 2001.
    """

    per = "group"

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.start_transitions = nn.Parameter(torch.zeros(labels))
        self.end_transitions = nn.Parameter(torch.zeros(labels))
        self.transitions = nn.Parameter(torch.zeros(labels, labels))

    def forward(
        self, rows: Float[Tensor, "m D"], noise: Int[Tensor, " m"] | None, groups: Int[Tensor, " bounds"]
    ) -> Float[Tensor, "G rows C"]:
        """(G, C + 2, C): from each tag (row) to each (column), then from the start, then to the end."""
        weights = torch.cat([self.transitions, self.start_transitions[None], self.end_transitions[None]])
        return weights.expand(len(groups) - 1, -1, -1)


def log_likelihood(
    logits: Float[Tensor, "M C"],
    labels: Int[Tensor, " M"],
    groups: Int[Tensor, " bounds"],
    weights: Float[Tensor, "rows C"],
) -> Float[Tensor, ""]:
    """Log-probability of the labels of all groups, summed; `groups` holds their bounds, `weights` is as `CrfHead`'s.

    All groups advance together, one word a step, longest first, so that a group that has ended leaves the front
    without a mask or padding.
    """
    transitions, start, end = weights[:-2], weights[-2], weights[-1]
    sizes = groups.diff()
    firsts, sizes = groups[:-1][sizes > 0], sizes[sizes > 0]
    if not len(sizes):
        return logits.sum()
    lasts = firsts + sizes - 1

    follows = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    follows[firsts] = False
    inner = follows.nonzero().squeeze(1)
    path = (
        logits.gather(1, labels[:, None]).sum()
        + transitions[labels[inner - 1], labels[inner]].sum()
        + start[labels[firsts]].sum()
        + end[labels[lasts]].sum()
    )

    order = sizes.argsort(descending=True, stable=True)
    firsts, lengths = firsts[order], sizes[order].tolist()
    alpha = start + logits[firsts]
    ended: list[Tensor] = []
    live = len(lengths)
    for step in range(1, lengths[0]):
        while lengths[live - 1] <= step:
            live -= 1
        if live < len(alpha):
            ended.append(alpha[live:])
        alpha = torch.logsumexp(alpha[:live, :, None] + transitions, dim=1) + logits[firsts[:live] + step]
    ended.append(alpha)
    return path - torch.logsumexp(torch.cat(ended) + end, dim=1).sum()
