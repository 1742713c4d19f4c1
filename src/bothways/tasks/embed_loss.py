"""Losses between all vectors of a step, however it is split: in-batch negatives, graded pairs, a teacher."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from bothways.tasks.embed_records import Kind

MOST_RELATED = 2048  # texts or words of a step, all of whose cosines are compared; of more, evenly spread ones


def step_loss(kind: Kind, vectors: Float[Tensor, "G D"], labels: Tensor, *, scale: float) -> Float[Tensor, ""]:
    """The loss of a whole step; `labels` as `embed_records.labels_of` makes them."""
    vectors = F.normalize(vectors.float(), dim=1)
    if kind == "graded":
        return cosent(vectors, labels, scale=scale)
    if kind in ("teacher", "words"):
        return distillation(vectors, F.normalize(labels.float(), dim=1))
    return contrast(vectors, labels, scale=scale)


def contrast(vectors: Float[Tensor, "G D"], labels: Int[Tensor, "G 2"], *, scale: float) -> Float[Tensor, ""]:
    """Which text belongs to each anchor? Cross-entropy over all positives and negatives of the step, averaged.

    A text that equals an anchor's own positive is not held against it, nor is the anchor itself.

    Reference: van den Oord et al., 2018 (InfoNCE); sentence-transformers' MultipleNegativesRankingLoss.
    """
    roles, keys = labels.unbind(1)
    anchors, positives = vectors[roles == 0], vectors[roles == 1]
    others = torch.cat([positives, vectors[roles == 2]])
    other_keys = torch.cat([keys[roles == 1], keys[roles == 2]])
    logits = scale * anchors @ others.T
    own = torch.arange(len(anchors), device=vectors.device)
    same = (other_keys == keys[roles == 1][:, None]) | (other_keys == keys[roles == 0][:, None])
    same[own, own] = False
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), own)


def cosent(vectors: Float[Tensor, "G D"], labels: Float[Tensor, "G 1"], *, scale: float) -> Float[Tensor, ""]:
    """Pairs of a higher grade should have the higher cosine: log(1 + the sum of exp(scale * how much they have not)).

    Reference: Su Jianlin, CoSENT, 2022 (kexue.fm/archives/8847); sentence-transformers' CoSENTLoss.
    """
    cosines = scale * (vectors[0::2] * vectors[1::2]).sum(1)
    grades = labels[0::2, 0]
    wrong = (cosines[None, :] - cosines[:, None]).masked_fill(grades[:, None] <= grades[None, :], -torch.inf)
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong.flatten()]), dim=0)


def distillation(vectors: Float[Tensor, "G D"], teacher: Float[Tensor, "G E"]) -> Float[Tensor, ""]:
    """How far each vector is from the teacher's; where widths differ, how far the cosines between all texts are.

    Reference: Reimers and Gurevych, Making Monolingual Sentence Embeddings Multilingual, 2020 (squared distance);
    Park et al., Relational Knowledge Distillation, 2019 (relations instead of vectors).
    """
    if vectors.shape[1] == teacher.shape[1]:
        return (vectors - teacher).square().sum(1).mean()
    apart = -(-len(vectors) // MOST_RELATED)
    vectors, teacher = vectors[::apart], teacher[::apart]
    return F.mse_loss(vectors @ vectors.T, teacher @ teacher.T) * len(vectors)
