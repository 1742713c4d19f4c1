"""What must not be written next: ends that come too soon, repeated n-grams, forbidden words, unlikely tokens."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.nn.decoding_settings import Decoding, Writing


class Constraints:
    """What one way of writing must not write, laid out once for all of its steps."""

    def __init__(self, writing: Writing, device: torch.device) -> None:
        self._settings, self._end, self._pieces = writing.settings, writing.end, writing.pieces
        single = [ids[0] for ids in writing.forbidden if len(ids) == 1]
        self._never = torch.tensor(single, dtype=torch.int64, device=device)
        # The last tokens of longer runs by the tokens before them, and these by their number: a look-up each step.
        self._runs: dict[int, dict[tuple[int, ...], list[int]]] = {}
        for ids in writing.forbidden:
            if len(ids) > 1:
                self._runs.setdefault(len(ids) - 1, {}).setdefault(ids[:-1], []).append(ids[-1])

    def __call__(self, logits: Float[Tensor, "R V"], texts: Int[np.ndarray, "R length"]) -> None:
        """Set to -inf, in place, what may not follow each row's text; texts begin with the start token.

        Where nothing may follow, the text ends, too short or not.
        """
        length, ends = texts.shape[1], logits[:, self._end].clone()
        if length <= self._settings.min_length:
            logits[:, self._end] = -math.inf
        if (n := self._settings.no_repeat_ngram) is not None and length >= n:
            _forbid_repeats(logits, texts, n)
        logits.index_fill_(1, self._never, -math.inf)
        if self._pieces is not None:
            logits[:, self._pieces :] = -math.inf
        self._forbid_runs(logits, texts)
        (rows,) = torch.nonzero(logits[:, self._end].isneginf(), as_tuple=True)
        if len(rows):
            rows = rows[logits[rows].amax(1).isneginf()]
            logits[rows, self._end] = ends[rows]

    def _forbid_runs(self, logits: Tensor, texts: np.ndarray) -> None:
        """The last tokens of forbidden runs that are written up to there."""
        rows: list[int] = []
        banned: list[int] = []
        for before, last in self._runs.items():
            if before > texts.shape[1]:
                continue
            for row, text in enumerate(texts[:, -before:].tolist()):
                found = last.get(tuple(text), [])
                rows += [row] * len(found)
                banned += found
        if banned:
            index = torch.tensor([rows, banned], device=logits.device)
            logits[index[0], index[1]] = -math.inf


def _forbid_repeats(logits: Tensor, texts: np.ndarray, n: int) -> None:
    """What followed earlier occurrences of each row's last n - 1 tokens may not follow again."""
    grams = np.lib.stride_tricks.sliding_window_view(texts, n, axis=1)
    last = texts[:, texts.shape[1] - n + 1 :]
    rows, places = np.nonzero((grams[:, :, : n - 1] == last[:, None, :]).all(2))
    banned = torch.from_numpy(np.stack([rows, grams[rows, places, n - 1]])).to(logits.device)
    logits[banned[0], banned[1]] = -math.inf


def restricted(logits: Float[Tensor, "R V"], settings: Decoding) -> Float[Tensor, "R V"]:
    """Logits by temperature, -inf outside of the top_k likeliest tokens and of those that make up top_p.

    Reference: Fan et al., 2018 (top-k); Holtzman et al., 2020 (top-p).
    """
    logits = logits / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[1]:
        least = logits.topk(settings.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if settings.top_p is not None and settings.top_p < 1.0:
        ordered, places = logits.sort(dim=-1, descending=True)
        chances = ordered.softmax(-1)
        out = chances.cumsum(-1) - chances >= settings.top_p  # those before it make up top_p already
        out[:, 0] = False  # before the likeliest there are none, but a small top_p is 0 in float32
        logits = logits.masked_fill(torch.zeros_like(out).scatter(1, places, out), -math.inf)
    return logits


def drawn(logits: Float[Tensor, "R V"], settings: Decoding, chances: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """A token for each row: the one in whose share of the probabilities, laid end to end, the row's chance falls."""
    ends = restricted(logits, settings).double().softmax(-1).cumsum(-1)
    wanted = chances.double()[:, None] * ends[:, -1:]
    below = torch.nextafter(ends[:, -1:], torch.zeros_like(ends[:, -1:]))  # so that no token without a share is drawn
    return torch.searchsorted(ends, torch.minimum(wanted, below), right=True).squeeze(1)
