"""Masked language modelling: which tokens of a sequence are hidden, and what stands in their place."""

from __future__ import annotations

from functools import partial

import numpy as np

from bothways.batch import Read
from bothways.errors import ConfigError
from bothways.text.tokenizer import Tokenizer


class Masking:
    """How sequences are masked, and what is asked of them.

    rate:        share of the tokens that are predicted
    whole_words: share of the sequences in which all tokens of a word are masked or none; in the others each token is
                 chosen by itself, for who has only seen whole words missing can't complete half of one
    cls_words:   so many of a sequence's different tokens, drawn at random, are asked of [CLS] too: masks alone teach it
                 nothing, and classification reads it. None: it is asked for nothing

    Raises:
        ConfigError: `rate` or `whole_words` is no share, or `cls_words` no number of words.

    Reference: Ma et al., 2024, "Drop your Decoder" (all of a text's words from [CLS]).
    """

    def __init__(self, tokenizer: Tokenizer, *, rate: float, whole_words: float, cls_words: int | None = None) -> None:
        check_masking(rate, whole_words, cls_words)
        self._rate, self._whole_words, self._cls_words = rate, whole_words, cls_words
        self._mask_id, self._random_ids = tokenizer.mask_id, np.flatnonzero(~tokenizer.special)

    def draw(
        self, ids: np.ndarray, word_starts: np.ndarray, special: np.ndarray, seed: int, *, asking: bool
    ) -> tuple[np.ndarray, Read]:
        """One sequence, (t,) each as in `mask_tokens`: its ids with their replacements, and what is to be guessed.

        Only if `asking` is anything asked of [CLS], in row 0; its masks are the same either way.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        whole_words = self._whole_words == 1 or (self._whole_words > 0 and rng.random() < self._whole_words)
        masked, positions, labels = mask_tokens(
            ids,
            word_starts,
            special,
            rate=self._rate,
            rng=rng,
            mask_id=self._mask_id,
            random_ids=self._random_ids,
            whole_words=whole_words,
        )
        if asking and self._cls_words is not None:
            asked = rng.permutation(np.unique(ids[~special]))[: self._cls_words]
            positions = np.concatenate([np.zeros(len(asked), dtype=positions.dtype), positions])
            labels = np.concatenate([asked, labels])
        ones = np.ones(len(positions), dtype=np.int64)
        redraw = partial(self.draw, ids, word_starts, special, asking=True)
        return masked, Read(positions, ones, labels, weight=float(len(positions)), redraw=redraw)


def check_masking(rate: float, whole_words: float, cls_words: int | None) -> None:
    """Raises ConfigError where one of the first two is no share, or the last no number of words."""
    if not 0 < rate < 1:
        raise ConfigError(f"mask_rate is {rate}; wanted a number between 0 and 1, such as 0.15")
    if not 0 <= whole_words <= 1:
        raise ConfigError(f"whole_words is {whole_words}; it is a share of the sequences, from 0 to 1")
    if cls_words is not None and cls_words < 1:
        raise ConfigError(f"cls_words is {cls_words}; wanted at least 1, or none")


def mask_tokens(
    ids: np.ndarray,
    word_starts: np.ndarray,
    special: np.ndarray,
    *,
    rate: float,
    rng: np.random.Generator,
    mask_id: int,
    random_ids: np.ndarray,
    whole_words: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hide `rate` of the tokens that are not special: 80 % as `mask_id`, 10 % as a random one, 10 % unchanged.

    With `whole_words` the tokens of a word are chosen all or none (each is then replaced on its own, as in the
    reference), and the number chosen is as near to `rate` as whole words allow. At least one token is chosen.

    Args:
        ids: (t,) the tokens of one sequence.
        word_starts: (t,) bool, True where a token begins a word; a token after a special one always does.
        special: (t,) bool, True where a token is never chosen: [CLS], [SEP].
        random_ids: the ids that a random replacement is drawn from; the caller leaves the special ones out.

    Returns:
        The ids with their replacements (t,), the chosen positions in order (m,) and the ids that stood there,
        int64 (m,).

    Raises:
        ValueError: every token is special.

    Reference: Devlin et al., 2018, section 3.1; create_masked_lm_predictions in google-research/bert.
    """
    candidates = np.flatnonzero(~special)
    if len(candidates) == 0:
        raise ValueError("a sequence of special tokens only has nothing to mask")
    wanted = max(1, round(rate * len(candidates)))
    if whole_words:
        begins = word_starts[candidates]
        begins[0] = True
        begins[1:] |= candidates[1:] - candidates[:-1] > 1
        bounds = np.append(np.flatnonzero(begins), len(candidates))
        lengths = bounds[1:] - bounds[:-1]
        positions = candidates[np.repeat(_choose_words(lengths, wanted, rng), lengths)]
    else:
        positions = np.sort(rng.permutation(candidates)[:wanted])

    labels = ids[positions].astype(np.int64)
    masked = ids.copy()
    fate = rng.random(len(positions))
    masked[positions[fate < 0.8]] = mask_id
    at_random = positions[fate >= 0.9]
    masked[at_random] = random_ids[rng.integers(len(random_ids), size=len(at_random))]
    return masked, positions, labels


def _choose_words(lengths: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """For each word whether it is chosen: in random order, passing over those that would exceed `wanted` tokens."""
    chosen = np.zeros(len(lengths), dtype=bool)
    order = rng.permutation(len(lengths))
    missing = wanted
    for word, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if length <= missing:
            chosen[word] = True
            missing -= length
            if not missing:
                return chosen
    left = order[~chosen[order]]
    if len(left):
        shortest = left[np.argmin(lengths[left])]
        # One word too long comes nearer than none when it exceeds by less than what is missing.
        if lengths[shortest] < 2 * missing or missing == wanted:
            chosen[shortest] = True
    return chosen
