"""Pre-training examples from shards: pairs of sentences with masked tokens, new in every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from bothways.batch import Example, Piece, Read, mix_seed
from bothways.data.masking import Masking
from bothways.data.sentence_pairs import Plan, Second, plan_sequences
from bothways.data.shards import Shard, Shards, tokenizer_hash
from bothways.data.source import Item
from bothways.data.tokenizing import WORD_START
from bothways.errors import ConfigError, DataError
from bothways.text.tokenizer import Tokenizer

MIXED_SHARDS = 2
"""So many shards are planned and shuffled together; more mix better and take more memory."""
HELDOUT_SEED = 20_181_011
"""Evaluation draws the same masks and pairs whatever the run's seed is."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one epoch makes of the corpus, counted in tokens of text (without [CLS] and [SEP])."""

    sequences: int
    corpus_tokens: int
    unpaired_tokens: int  # of stretches of a single word, which cannot make a pair
    truncated_tokens: int  # cut off where an exchanged second sentence was too long
    cut_sentences: int  # longer than a sequence, so parted; nothing of them is lost

    @property
    def used_tokens(self) -> int:
        """Tokens that stand in a sequence; each does so once."""
        return self.corpus_tokens - self.unpaired_tokens - self.truncated_tokens


class PretrainingSource:
    """Sequences for masked language modelling, with or without a sentence loss; a `Source`.

    second:      "next": [CLS] A [SEP] B [SEP], and half of the time B is from another document (BERT);
                 "order": half of the time the two have changed places (ALBERT); None: [CLS] A [SEP]
    mask_rate:   share of the tokens that are predicted
    whole_words: share of the sequences of which words are masked, whole, as the shards' word flags say; of the others,
                 tokens one by one
    short_rate:  share of the sequences that are gathered up to a random smaller length
    cls_words:   as `Masking` has it; never in held-out sequences

    The heads' reads are "masked" (a row and a label for each masked token, after row 0 with what [CLS] is asked) and,
    with a second sentence, "next" (row 0; label 0 where B really follows, 1 where it does not, as in BERT).

    Raises:
        ConfigError: a setting out of range.
        DataError: the shards were made with another tokenizer.

    Reference: Devlin et al., 2018, section 3.1 and appendix A.2.
    """

    def __init__(
        self,
        shards: Shards,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        second: Second,
        seed: int,
        mask_rate: float = 0.15,
        whole_words: float = 1.0,
        short_rate: float = 0.1,
        cls_words: int | None = None,
    ) -> None:
        check_sequences(max_length, second, short_rate)
        if shards.vocabulary != tokenizer_hash(tokenizer):
            raise DataError("these shards were made with another tokenizer; build them again", path=shards.folder)
        self.shards, self.seed = shards, seed
        self.second: Second = second
        self._max_tokens, self._short_rate = max_length - _specials(second), short_rate
        self._asking = cls_words is not None
        self._masking = Masking(tokenizer, rate=mask_rate, whole_words=whole_words, cls_words=cls_words)
        self._cls, self._sep = tokenizer.cls_id, tokenizer.sep_id

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        """The sequences of an epoch in their shuffled order, without the first `skip`; see `Source.items`.

        Token ids are read when an item is made; of skipped shards only the flags are.
        """
        return self._items(self.seed, epoch, skip, asking=self._asking)

    def heldout(self, limit: int) -> list[Item]:
        """At most `limit` sequences to evaluate on: the same ones with the same masks in every run."""
        return list(islice(self._items(HELDOUT_SEED, 0, 0, asking=False), limit))

    def coverage(self, epoch: int) -> Coverage:
        """How much of the corpus an epoch uses, and what for; as much work as skipping the epoch."""
        sums = np.zeros(4, dtype=np.int64)
        for number in range(len(self.shards)):  # one plan at a time: those of a large corpus would fill the memory
            plan = self._plan(self.seed, epoch, number)
            sums += (len(plan.spans), plan.unpaired_tokens, plan.truncated_tokens, plan.cut_sentences)
        sequences, unpaired, truncated, cut = sums.tolist()
        return Coverage(sequences, self.shards.counts.tokens, unpaired, truncated, cut)

    def _plan(self, seed: int, epoch: int, number: int) -> Plan:
        return plan_sequences(
            self.shards.read(number).flags,
            max_tokens=self._max_tokens,
            second=self.second,
            short_rate=self._short_rate,
            rng=_generator(mix_seed(seed, epoch, number, 1)),
        )

    def _items(self, seed: int, epoch: int, skip: int, *, asking: bool) -> Iterator[Item]:
        order = _generator(mix_seed(seed, epoch)).permutation(len(self.shards)).tolist()
        specials = _specials(self.second)
        index = 0  # in the epoch
        for at in range(0, len(order), MIXED_SHARDS):
            mixed = order[at : at + MIXED_SHARDS]
            plans = [self._plan(seed, epoch, number) for number in mixed]
            count = sum(len(plan.spans) for plan in plans)
            if index + count <= skip:
                index += count
                continue
            spans = np.concatenate([plan.spans for plan in plans])
            labels = np.concatenate([plan.labels for plan in plans])
            owners = np.repeat(np.arange(len(plans)), [len(plan.spans) for plan in plans])
            shards = [self.shards.read(number) for number in mixed]
            lengths = spans[:, 1] - spans[:, 0] + spans[:, 3] - spans[:, 2] + specials
            shuffled = _generator(mix_seed(seed, epoch, mixed[0], 2)).permutation(count)[max(0, skip - index) :]
            index = max(index, skip)
            for row in shuffled.tolist():
                drawn = mix_seed(seed, epoch, index)
                make = partial(self._make, shards[owners[row]], spans[row], int(labels[row]), drawn, asking=asking)
                yield Item(tokens=int(lengths[row]), make=make)
                index += 1

    def _make(self, shard: Shard, span: np.ndarray, label: int, seed: int, *, asking: bool) -> Example:
        begin_a, end_a, begin_b, end_b = span.tolist()
        end = 1 + end_a - begin_a  # of A in the sequence
        length = end + 1 if self.second is None else end + 2 + end_b - begin_b
        ids = np.empty(length, dtype=np.int64)
        word_starts = np.zeros(length, dtype=bool)
        special = np.zeros(length, dtype=bool)
        ids[0], ids[end], ids[-1] = self._cls, self._sep, self._sep
        special[0] = special[end] = special[-1] = True
        ids[1:end] = shard.ids[begin_a:end_a]
        word_starts[1:end] = shard.flags[begin_a:end_a] & WORD_START
        segments = None
        if self.second is not None:
            ids[end + 1 : -1] = shard.ids[begin_b:end_b]
            word_starts[end + 1 : -1] = shard.flags[begin_b:end_b] & WORD_START
            segments = np.zeros(length, dtype=np.int64)
            segments[end + 1 :] = 1
        masked, read = self._masking.draw(ids, word_starts, special, seed, asking=asking)
        reads = {"masked": read}
        if self.second is not None:
            first, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
            reads["next"] = Read(rows=first, groups=one, labels=np.array([label], dtype=np.int64), weight=1.0)
        return Example(pieces=(Piece(masked, segments),), reads=reads, seed=seed)


def check_sequences(max_length: int, second: Second, short_rate: float) -> None:
    """Raises ConfigError where sequences can't be so long, have no such second part, or the last is no share."""
    if second not in ("next", "order", None):
        raise ConfigError(f"second is {second!r}; wanted 'next', 'order' or None")
    if max_length < (least := _specials(second) + 2):
        raise ConfigError(f"max_length is {max_length}; wanted at least {least}")
    if not 0 <= short_rate <= 1:
        raise ConfigError(f"short_rate is {short_rate}; wanted a number from 0 to 1, such as 0.1")


def _specials(second: Second) -> int:
    """How many tokens of a sequence are [CLS] and [SEP]."""
    return 2 if second is None else 3


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
