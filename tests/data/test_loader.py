"""Steps: every item once an epoch, the same steps for any number of ranks and after any interruption."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import Batch, Example, Piece, Read
from bothways.data.loader import Step, StepSize, count_steps, micro_batches, prefetched, steps
from bothways.data.source import Item


class Numbered:
    """A source of examples of given lengths; each begins with its own number, and the order turns every epoch."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def items(self, epoch: int, skip: int = 0) -> Iterator[Item]:
        order = np.roll(np.arange(len(self.lengths)), epoch)
        for number in order[skip:].tolist():
            yield Item(self.lengths[number], lambda number=number: example(number, self.lengths[number]))


def example(number: int, length: int) -> Example:
    ids = np.full(length, number)
    return Example((Piece(ids),), {"head": Read(np.array([0]), np.array([1]), np.array([number]), 1.0)})


def numbers(step: Step) -> list[int]:
    """Which examples are in a step on this rank."""
    found: list[int] = []
    for batch in step.batches:
        labels = batch.targets["head"].labels
        assert labels is not None
        found += labels.tolist()
    return found


lengths = st.lists(st.integers(1, 30), min_size=1, max_size=25)
sizes = st.one_of(
    st.builds(StepSize, examples=st.integers(1, 12), micro_tokens=st.integers(1, 80)),
    st.builds(StepSize, tokens=st.integers(1, 120), micro_tokens=st.integers(1, 80)),
)


def epochs_of(source: Numbered, size: StepSize, count: int, **place: int) -> list[Step]:
    """The steps of so many epochs."""
    return list(islice(steps(source, size, **place), sum(count_steps(source, size, epoch) for epoch in range(count))))


@given(lengths, sizes)
def test_every_item_once_an_epoch(lengths: list[int], size: StepSize):
    made = epochs_of(Numbered(lengths), size, 2)
    for epoch in range(2):
        mine = [step for step in made if step.epoch == epoch]
        assert sorted(n for step in mine for n in numbers(step)) == list(range(len(lengths)))
        assert [step.last for step in mine] == [False] * (len(mine) - 1) + [True]
        assert [step.consumed for step in mine] == np.cumsum([step.examples for step in mine]).tolist()
        assert mine[-1].consumed == len(lengths)
        assert sum(step.tokens for step in mine) == sum(lengths)


@given(lengths, sizes)
def test_a_step_is_as_large_as_asked(lengths: list[int], size: StepSize):
    for step in epochs_of(Numbered(lengths), size, 1):
        most = max(lengths[number] for number in numbers(step))
        if size.examples is not None:
            assert step.examples == size.examples or (step.last and step.examples < size.examples)
        if size.tokens is not None:
            assert step.tokens >= size.tokens or step.last
            assert step.tokens < size.tokens + most


@given(lengths, sizes, st.integers(1, 4))
def test_ranks_share_the_same_step(lengths: list[int], size: StepSize, ranks: int):
    source = Numbered(lengths)
    alone = epochs_of(source, size, 1)
    parts = [epochs_of(source, size, 1, rank=rank, ranks=ranks) for rank in range(ranks)]
    for together, *shared in zip(alone, *parts, strict=True):
        assert sorted(n for part in shared for n in numbers(part)) == sorted(numbers(together))
        for part in shared:
            kept = (part.tokens, part.examples, part.epoch, part.consumed, part.last)
            assert kept == (together.tokens, together.examples, together.epoch, together.consumed, together.last)


@given(lengths, sizes, st.data())
def test_going_on_gives_the_same_steps(lengths: list[int], size: StepSize, data: st.DataObject):
    source = Numbered(lengths)
    through = epochs_of(source, size, 3)
    at = data.draw(st.integers(0, len(through) - 1))
    place = {"epoch": through[at].epoch, "consumed": through[at].consumed}
    resumed = list(islice(steps(source, size, **place), len(through) - at - 1))
    for one, other in zip(resumed, through[at + 1 :], strict=True):
        assert numbers(one) == numbers(other)
        assert (one.epoch, one.consumed, one.last) == (other.epoch, other.consumed, other.last)
        for batch, same in zip(one.batches, other.batches, strict=True):
            assert batch.tokens.input_ids.equal(same.tokens.input_ids)


@given(lengths, st.integers(1, 80))
def test_micro_batches_keep_to_their_budget(lengths: list[int], budget: int):
    items = list(Numbered(lengths).items(0))
    parts = micro_batches(items, budget)
    assert sorted(item.tokens for part in parts for item in part) == sorted(lengths)
    for part in parts:
        assert len(part) == 1 or sum(item.tokens for item in part) <= budget
    flat = [item.tokens for part in parts for item in part]
    assert flat == sorted(flat)  # near lengths together


@given(lengths, sizes)
def test_the_budget_holds_within_steps(lengths: list[int], size: StepSize):
    for step in epochs_of(Numbered(lengths), size, 1):
        for batch in step.batches:
            assert len(batch.tokens.input_ids) <= size.micro_tokens or len(batch.tokens.lengths) == 1


def test_a_source_without_items_is_refused():
    with pytest.raises(ValueError, match="no items"):
        next(steps(Numbered([]), StepSize(examples=2)))
    assert count_steps(Numbered([]), StepSize(examples=2)) == 0


# ------------------------------------------------------------------------------------------- prefetched


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_prefetched_gives_the_same_steps_in_order():
    source, size = Numbered([3, 1, 4, 1, 5, 9, 2, 6]), StepSize(examples=3)
    ahead = prefetched(steps(source, size))
    assert [numbers(step) for step in islice(ahead, 7)] == [numbers(step) for step in islice(steps(source, size), 7)]
    ahead.close()
    assert prefetching() == []


def test_prefetched_pins_what_a_gpu_shall_copy(monkeypatch: pytest.MonkeyPatch):
    made, pinned = list(islice(steps(Numbered([1, 2, 3]), StepSize(examples=2, micro_tokens=2)), 3)), {}

    def pin(batch: Batch) -> Batch:
        assert threading.current_thread().name == "prefetch"  # not while the GPU waits
        return pinned.setdefault(id(batch), replace(batch))

    monkeypatch.setattr(Batch, "pinned", pin)
    for step, before in zip(prefetched(iter(made), pinned=True), made, strict=True):
        assert numbers(step) == numbers(before)
        assert all(a is pinned[id(b)] for a, b in zip(step.batches, before.batches, strict=True))
    pinned.clear()
    assert list(prefetched(iter(made))) == made
    assert pinned == {}


def test_prefetched_ends_with_its_steps():
    made = list(islice(steps(Numbered([1, 2, 3]), StepSize(examples=1)), 5))
    assert list(prefetched(iter(made))) == made
    assert prefetching() == []


def test_prefetched_hands_an_error_on_and_stops():
    def broken() -> Iterator[Step]:
        yield from islice(steps(Numbered([1, 2]), StepSize(examples=1)), 2)
        raise KeyError("the third")

    ahead = prefetched(broken())
    assert len(list(islice(ahead, 2))) == 2
    with pytest.raises(KeyError, match="the third"):
        next(ahead)
    assert prefetching() == []


def test_prefetched_does_not_run_away():
    drawn: list[int] = []

    def endless() -> Iterator[Step]:
        for number, step in enumerate(steps(Numbered([1, 2]), StepSize(examples=1))):
            drawn.append(number)
            yield step

    ahead = prefetched(endless(), depth=2)
    next(ahead)
    ahead.close()  # the thread waits with a full queue
    assert prefetching() == []
    assert len(drawn) <= 5
