"""The best tag sequence among those that a tagging scheme allows, by Viterbi's algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bothways.metrics.spans import SCHEMES

# Added to a step that a scheme forbids. Finite, so that the least bad sequence is still found where none is allowed
# (a label set without S and a sentence of one word).
FORBIDDEN = -1e9


class Steps(NamedTuple):
    """What one tag after another adds to a sequence's score, as `viterbi` takes it."""

    transitions: np.ndarray  # (C, C)
    start: np.ndarray  # (C,)
    end: np.ndarray  # (C,)


def viterbi(
    scores: Float[np.ndarray, "t C"],
    transitions: Float[np.ndarray, "C C"],
    start: Float[np.ndarray, " C"],
    end: Float[np.ndarray, " C"],
) -> Int[np.ndarray, " t"]:
    """The sequence of tags with the highest sum of scores.

    Args:
        scores: of each tag for each word, logits or log-probabilities
        transitions: added where the tag of the row is followed by that of the column
        start: added for the first word's tag
        end: added for the last word's tag

    Reference: Viterbi, 1967; ties go to the tag that comes first.
    """
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    greedy = scores.argmax(axis=1)
    steps = transitions[greedy[:-1], greedy[1:]]
    if start[greedy[0]] == start.max() and end[greedy[-1]] == end.max() and (steps == transitions.max()).all():
        return greedy  # best in every part, so best as a whole: most sentences, where nothing but a scheme restricts
    best = scores[0].astype(np.float64) + start
    came_from = np.zeros(scores.shape, dtype=np.int64)
    for at in range(1, len(scores)):
        reached = best[:, None] + transitions
        came_from[at] = reached.argmax(axis=0)
        best = reached.max(axis=0) + scores[at]
    tags = np.zeros(len(scores), dtype=np.int64)
    tags[-1] = (best + end).argmax()
    for at in range(len(scores) - 1, 0, -1):
        tags[at - 1] = came_from[at, tags[at]]
    return tags


def allowed(tags: Sequence[str], scheme: str) -> Steps:
    """What the scheme (of `metrics.spans.SCHEMES`) forbids, as `viterbi` takes it: transitions, start and end.

    0 where a step is allowed, else `FORBIDDEN`. Inside and end tags follow only a begin or inside tag of their label;
    where the scheme has end tags, a begin or inside tag is followed only by them.
    """
    letters = np.array(["O" if tag == "O" else SCHEMES[scheme][tag[:1]] for tag in tags])
    labels = np.array([tag[2:] for tag in tags])
    opens, goes_on = np.isin(letters, ("B", "I")), np.isin(letters, ("I", "E"))
    same = labels[:, None] == labels[None, :]
    wrong = goes_on[None, :] & ~(opens[:, None] & same)
    if scheme == "BIO":
        may_end = np.ones(len(tags), dtype=bool)
    else:
        wrong |= opens[:, None] & ~(goes_on[None, :] & same)
        may_end = ~opens
    return Steps(np.where(wrong, FORBIDDEN, 0.0), np.where(goes_on, FORBIDDEN, 0.0), np.where(may_end, 0.0, FORBIDDEN))


def marginals(
    scores: Float[np.ndarray, "t C"],
    transitions: Float[np.ndarray, "C C"],
    start: Float[np.ndarray, " C"],
    end: Float[np.ndarray, " C"],
) -> Float[np.ndarray, "t C"]:
    """The probability of each tag for each word over all sequences, by the forward-backward algorithm.

    Arguments are those of `viterbi`.
    """
    scores = scores.astype(np.float64)
    forward, backward = np.empty_like(scores), np.empty_like(scores)
    if not len(scores):
        return forward
    forward[0], backward[-1] = start + scores[0], end
    for at in range(1, len(scores)):
        forward[at] = scores[at] + np.logaddexp.reduce(forward[at - 1][:, None] + transitions, axis=0)
    for at in range(len(scores) - 2, -1, -1):
        backward[at] = np.logaddexp.reduce(transitions + (scores[at + 1] + backward[at + 1])[None, :], axis=1)
    both = forward + backward
    return np.exp(both - np.logaddexp.reduce(both, axis=1, keepdims=True))
