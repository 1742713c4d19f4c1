"""From the scores of both ends of an answer to the best spans of a context, over all of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bothways.tasks.base import Answer

HEAD = "answer"


class Candidate(NamedTuple):
    """A span that may be the answer: characters start to end of the context, and its probability."""

    start: int
    end: int
    score: float


class Candidates(NamedTuple):
    """What was found in all windows of one context.

    best:      the most probable spans, in order
    no_answer: probability that there is none, among all spans
    against:   probability that there is none, against the best span alone: what a threshold is put on
    """

    best: list[Candidate]
    no_answer: float
    against: float


def find_spans(answers: Sequence[Answer], *, max_answer: int, top: int) -> Candidates:
    """The `top` best spans of at most `max_answer` tokens, each within one window's part of the context.

    A span scores the sum of its ends' logits; one that several windows hold, the greatest of its sums. No answer
    scores what [CLS] scores in the window that has the most to offer. The softmax is over all of these together.

    Reference: google-research/bert run_squad.py, write_predictions, but no token belongs to one window alone.
    """
    windows = [_Window(answer) for answer in answers]
    size = max(window.start + len(window.ends) for window in windows)
    scores = np.full((size, max_answer), -np.inf)  # of the span that begins at a token, by its length less 1
    offsets = np.zeros((size, 2), dtype=np.int64)
    for window in windows:
        begin, count = window.start, len(window.ends)
        offsets[begin : begin + count] = window.offsets
        for more in range(min(max_answer, count)):
            part = scores[begin : begin + count - more, more]
            np.maximum(part, window.ends[: count - more, 0] + window.ends[more:, 1], out=part)
    none = min(window.none for window in windows)
    total = _log_sum_exp(scores, none)
    best = [
        Candidate(start, end, float(np.exp(scores[first, more] - total)))
        for first, more, start, end in _best(scores, offsets, top)
    ]
    against = 1 / (1 + np.exp(np.clip(scores.max() - none, -700, 700)))
    return Candidates(best, float(np.exp(none - total)), float(against))


class _Window:
    """One window's logits, (n, 2) of its part of the context and their sum at [CLS], and where the part begins."""

    def __init__(self, answer: Answer) -> None:
        logits = answer.scores[HEAD].astype(np.float64)
        origin = answer.example.pieces[0].origin
        assert origin is not None
        assert origin.offsets is not None
        self.none, self.ends = float(logits[0].sum()), logits[1:]
        self.start: int = origin.extra
        self.offsets = origin.offsets[answer.example.reads[HEAD].rows[1:]]


def _best(scores: np.ndarray, offsets: np.ndarray, top: int) -> list[tuple[int, int, int, int]]:
    """First token, further tokens, start and end of the best spans; of equal ones the first in the text."""
    found: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    # One character may be several tokens, so that different tokens span the same characters: look at some more.
    wanted = min(4 * top + 16, scores.size)
    least = np.partition(scores, scores.size - wanted, axis=None)[scores.size - wanted]
    places = np.argwhere((scores >= least) & (scores > -np.inf))
    for first, more in places[np.argsort(-scores[tuple(places.T)], kind="stable")]:
        start, end = int(offsets[first, 0]), int(offsets[first + more, 1])
        found.setdefault((start, end), (int(first), int(more), start, end))
        if len(found) == top:
            break
    return list(found.values())


def _log_sum_exp(scores: np.ndarray, none: float) -> float:
    greatest = max(float(scores.max()), none)
    return greatest + float(np.log(np.exp(scores - greatest).sum() + np.exp(none - greatest)))
