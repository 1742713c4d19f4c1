"""From a source to steps: fixed numbers of examples or tokens, split into micro-batches the same way on any rank."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from bothways.batch import Batch, pack
from bothways.data.source import Item, Source


@dataclass(frozen=True)
class StepSize:
    """What one optimizer step is made of: so many examples, or examples until so many tokens are reached."""

    examples: int | None = None
    tokens: int | None = None
    micro_tokens: int = 8192  # a micro-batch holds at most so many tokens (or one example)


@dataclass(frozen=True)
class Step:
    """One step's micro-batches on this rank, and where the run stands after it."""

    batches: list[Batch]
    tokens: int  # over all ranks
    examples: int
    epoch: int
    consumed: int  # items of that epoch
    last: bool  # of its epoch


def steps(
    source: Source, size: StepSize, *, epoch: int = 0, consumed: int = 0, rank: int = 0, ranks: int = 1
) -> Iterator[Step]:
    """Steps without end, from a place in an epoch; an epoch's last step holds what is left of it.

    The split into micro-batches is planned from sizes alone and dealt out afterwards, so a rank makes only
    its own examples, and every number of ranks takes the same steps.
    """
    while True:
        waiting: list[Item] | None = None  # a step is given out when it is known whether another follows
        for chosen in _chosen(source.items(epoch, consumed), size):
            if waiting is not None:
                consumed += len(waiting)
                yield _step(waiting, size, epoch, consumed, False, rank, ranks)
            waiting = chosen
        if waiting is not None:
            yield _step(waiting, size, epoch, consumed + len(waiting), True, rank, ranks)
        elif consumed == 0:
            raise ValueError("the source has no items")
        epoch, consumed = epoch + 1, 0


def count_steps(source: Source, size: StepSize, epoch: int = 0) -> int:
    """How many steps one epoch has; nothing is made."""
    return sum(1 for _ in _chosen(source.items(epoch), size))


def _chosen(items: Iterator[Item], size: StepSize) -> Iterator[list[Item]]:
    """The items of each step."""
    chosen: list[Item] = []
    tokens = 0
    for item in items:
        chosen.append(item)
        tokens += item.tokens
        if len(chosen) == size.examples or (size.tokens is not None and tokens >= size.tokens):
            yield chosen
            chosen, tokens = [], 0
    if chosen:
        yield chosen


def _step(items: list[Item], size: StepSize, epoch: int, consumed: int, last: bool, rank: int, ranks: int) -> Step:
    tokens = sum(item.tokens for item in items)
    budget = min(size.micro_tokens, -(-tokens // ranks))
    micro = list(micro_batches(items, budget))[rank::ranks]
    return Step([pack([item.make() for item in part]) for part in micro], tokens, len(items), epoch, consumed, last)


def micro_batches(items: list[Item], budget: int) -> list[list[Item]]:
    """Items of near length together, each micro-batch within the budget of tokens (or a single item)."""
    batches: list[list[Item]] = []
    room = 0
    for item in sorted(items, key=lambda item: item.tokens):
        if not batches or item.tokens > room:
            batches.append([])
            room = budget
        batches[-1].append(item)
        room -= item.tokens
    return batches


def prefetched(steps: Iterator[Step], depth: int = 2, *, pinned: bool = False) -> Generator[Step, None, None]:
    """The same steps, made by a thread while the last one is computed; an error in making them is raised here.

    `pinned`, which needs a GPU: in memory from which it copies them while it is at work on others.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(value: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(value, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for step in steps:
                put(replace(step, batches=[batch.pinned() for batch in step.batches]) if pinned else step)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the loop, which raises it
            put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            value = ready.get()
            if value is None:
                return
            if isinstance(value, BaseException):
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
