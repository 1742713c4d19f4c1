"""Masking: what is chosen, how much of it, and what stands in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.masking import mask_tokens

MASK = 4
ORDINARY = np.arange(5, 1000)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def words_of(word_starts: np.ndarray, special: np.ndarray) -> np.ndarray:
    """The number of each token's word, -1 for special tokens; a special token parts words."""
    words, word = [], -1
    for at, is_special in enumerate(special):
        if is_special:
            words.append(-1)
            continue
        if word_starts[at] or at == 0 or special[at - 1]:
            word += 1
        words.append(word)
    return np.array(words)


@given(
    tokens=st.lists(st.sampled_from(["special", "start", "inside"]), min_size=1, max_size=60).filter(
        lambda kinds: set(kinds) != {"special"}
    ),
    rate=st.floats(0.01, 0.9),
    whole_words=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_chooses_as_told(tokens: list[str], rate: float, whole_words: bool, seed: int) -> None:
    kinds = np.array(tokens)
    special, starts = kinds == "special", kinds == "start"
    ids = generator(seed + 1).integers(5, 1000, size=len(kinds))
    before = ids.copy()
    masked, positions, labels = mask_tokens(
        ids,
        starts,
        special,
        rate=rate,
        rng=generator(seed),
        mask_id=MASK,
        random_ids=ORDINARY,
        whole_words=whole_words,
    )
    assert np.array_equal(ids, before), "the input is changed"
    assert np.array_equal(labels, ids[positions])
    assert labels.dtype == np.int64
    assert np.all(np.diff(positions) > 0)
    assert not special[positions].any()
    others = np.setdiff1d(np.arange(len(ids)), positions)
    assert np.array_equal(masked[others], ids[others])

    wanted = max(1, round(rate * np.count_nonzero(~special)))
    assert len(positions) >= 1
    if not whole_words:
        assert len(positions) == wanted
        return
    words = words_of(starts, special)
    hidden = np.isin(words, words[positions])
    assert np.count_nonzero(hidden) == len(positions), "a word is hidden in part"
    missed = abs(len(positions) - wanted)
    for word in set(words[~hidden & ~special].tolist()):
        length = np.count_nonzero(words == word)
        assert abs(len(positions) + length - wanted) >= missed, "one more word would have been nearer"


@pytest.mark.parametrize("whole_words", [True, False])
def test_replaces_80_10_10_and_chooses_evenly(whole_words: bool) -> None:
    rng = generator(7)
    t, runs = 42, 4000
    ids = np.arange(100, 100 + t)
    special = np.zeros(t, dtype=bool)
    special[[0, 20, t - 1]] = True
    starts = np.arange(t) % 3 != 1  # words of one and of two tokens
    chosen, to_mask, kept, drawn = np.zeros(t), 0, 0, []
    for _ in range(runs):
        masked, positions, labels = mask_tokens(
            ids,
            starts,
            special,
            rate=0.15,
            rng=rng,
            mask_id=MASK,
            random_ids=ORDINARY,
            whole_words=whole_words,
        )
        chosen[positions] += 1
        to_mask += np.count_nonzero(masked[positions] == MASK)
        kept += np.count_nonzero(masked[positions] == labels)
        drawn += [token for token, was in zip(masked[positions], labels, strict=True) if token not in (MASK, was)]
    total = chosen.sum()
    assert to_mask / total == pytest.approx(0.8, abs=0.01)
    assert kept / total == pytest.approx(0.1, abs=0.01)
    assert len(drawn) / total == pytest.approx(0.1, abs=0.01)
    assert set(drawn) <= set(ORDINARY.tolist())
    assert len(set(drawn)) > 0.8 * len(ORDINARY), "replacements come from the whole vocabulary"
    assert total / runs == pytest.approx(0.15 * 39, abs=0.2)
    share = chosen[~special] / runs
    # Passing over words that are too long favours short ones, in the reference too.
    least, most = (0.11, 0.21) if whole_words else (0.13, 0.17)
    assert share.min() > least
    assert share.max() < most


def test_a_sequence_of_one_long_word_is_masked_whole() -> None:
    ids, special = np.arange(10, 20), np.zeros(10, dtype=bool)
    special[[0, -1]] = True
    _, positions, _ = mask_tokens(
        ids,
        np.zeros(10, dtype=bool),
        special,
        rate=0.15,
        rng=generator(),
        mask_id=MASK,
        random_ids=ORDINARY,
    )
    assert positions.tolist() == list(range(1, 9))


def test_only_special_tokens() -> None:
    with pytest.raises(ValueError, match="nothing to mask"):
        mask_tokens(
            np.arange(3),
            np.ones(3, dtype=bool),
            np.ones(3, dtype=bool),
            rate=0.15,
            rng=generator(),
            mask_id=MASK,
            random_ids=ORDINARY,
        )
