"""Vectors for the vocabulary from counts alone, which pieces stand near which: where pre-training may begin."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from bothways.data.shards import Shards
from bothways.data.tokenizing import DOCUMENT_END

WINDOW = 8
"""Pieces to either side that count as near, each by 1 / distance."""
COUNTED_TOKENS = 24_000_000
"""Tokens that are counted at most; more hardly change the vectors."""
SMOOTHING = 0.75
"""Power of the context's frequency, so that rare contexts do not win."""


def cooccurrence_vectors(shards: Shards, size: int, width: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A vector for each of `size` pieces, and how often each was seen.

    Positive pointwise mutual information of pieces within a window of the same document, factorised; what
    word2vec learns by steps is found here in one go, in about a minute for 24 million tokens.

    Returns:
        (size, width) float32, each row of mean square 1, or 0 where a piece has no neighbour; (size,) float64.

    Reference: Levy & Goldberg, 2014; Levy et al., 2015, sections 3.1 (distance, smoothing) and 3.3 (root of Σ).
    """
    pairs = sparse.csr_matrix((size, size), dtype=np.float32)
    seen = np.zeros(size)
    left = COUNTED_TOKENS
    for number in range(len(shards)):
        if left <= 0:
            break
        shard = shards.read(number)
        ids, ends = np.asarray(shard.ids[:left]), np.asarray(shard.flags[:left]) & DOCUMENT_END
        document = np.cumsum(ends > 0) - (ends > 0)  # the last token of a document still belongs to it
        seen += np.bincount(ids, minlength=size)
        for distance in range(1, min(WINDOW, len(ids) - 1) + 1):
            together = document[:-distance] == document[distance:]
            one, other = ids[:-distance][together], ids[distance:][together]
            weights = np.full(len(one), 1 / distance, dtype=np.float32)
            pairs = pairs + sparse.csr_matrix((weights, (one, other)), shape=(size, size))
        left -= len(ids)
    return _factorised(_positive_information(pairs + pairs.T), min(width, size - 1), width, seed), seen


def _positive_information(pairs: sparse.csr_matrix) -> sparse.csr_matrix:
    """log p(a, b) / p(a) p(b) where it is above 0."""
    found = pairs.tocoo()
    counts = np.asarray(pairs.sum(axis=1)).ravel()
    context = counts**SMOOTHING
    expected = counts[found.row] * (context / max(context.sum(), 1.0))[found.col]
    information = np.log(found.data / expected).astype(np.float32)
    kept = information > 0
    return sparse.csr_matrix((information[kept], (found.row[kept], found.col[kept])), shape=pairs.shape)


def _factorised(matrix: sparse.csr_matrix, rank: int, width: int, seed: int) -> np.ndarray:
    """U √Σ of the matrix, rows scaled to mean square 1."""
    decompose = cast(Any, randomized_svd)  # its annotations are not its own
    left, singular, _ = decompose(matrix, n_components=rank, n_iter=3, random_state=seed % (1 << 32))
    vectors = np.zeros((len(left), width), dtype=np.float32)
    vectors[:, :rank] = left * np.sqrt(singular)
    lengths = np.sqrt(np.mean(vectors**2, axis=1, keepdims=True))
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-6)
