"""What must not be written next: ends that come too soon, repeated n-grams, forbidden words, unlikely tokens."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bothways.nn.decoding_settings import Decoding, Writing


def constrain(logits: Float[Tensor, "R V"], texts: Int[np.ndarray, "R length"], writing: Writing) -> None:
    """Set to -inf, in place, what may not follow each row's text; texts begin with the start token."""
    settings, length = writing.settings, texts.shape[1]
    if length <= settings.min_length:
        logits[:, writing.end] = -math.inf
    if (n := settings.no_repeat_ngram) is not None and length >= n:
        _forbid_repeats(logits, texts, n)
    for ids in writing.forbidden:
        before = len(ids) - 1
        if not before:
            logits[:, ids[0]] = -math.inf
        elif length >= before:
            rows = np.flatnonzero((texts[:, length - before :] == np.array(ids[:-1])).all(1))
            logits[torch.from_numpy(rows).to(logits.device), ids[-1]] = -math.inf


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
        logits = logits.masked_fill(torch.zeros_like(out).scatter(1, places, out), -math.inf)
    return logits


def drawn(logits: Float[Tensor, "R V"], settings: Decoding, chances: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """A token for each row: the one in whose share of the probabilities, laid end to end, the row's chance falls."""
    ends = restricted(logits, settings).double().softmax(-1).cumsum(-1)
    wanted = chances.double()[:, None] * ends[:, -1:]
    below = torch.nextafter(ends[:, -1:], torch.zeros_like(ends[:, -1:]))  # so that no token without a share is drawn
    return torch.searchsorted(ends, torch.minimum(wanted, below), right=True).squeeze(1)
