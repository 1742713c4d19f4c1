"""The batcher: batches by tokens, errors to their owners only, and nothing run that nobody waits for."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bothways.batch import Example, Piece, Read
from bothways.errors import DataError, Stopped
from bothways.serve.problems import Problem
from bothways.serve.queue import Batcher, Late, QueueFull, TooLong
from bothways.tasks.base import Answer

FAR = time.monotonic() + 3600


def example(tokens: int, tag: str = "") -> Example:
    return Example((Piece(np.zeros(tokens, int)),), {tag: Read(np.zeros(0, int), np.zeros(0, int))})


def until_stopped(stop: Callable[[], bool]) -> None:
    """What writing does, step by step, if it never ends by itself."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if stop():
            raise Stopped("writing was stopped")
        time.sleep(0.001)
    raise AssertionError("nobody stopped it")


class Engine:
    """Answers with the example itself; waits while `gate` is closed; an example tagged "bad" breaks it, and one tagged
    "long" is at work until it is told to stop.
    """

    def __init__(self) -> None:
        self.batches: list[list[Example]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def run(self, examples: list[Example], *, stop: Callable[[], bool]) -> list[Answer]:
        self.entered.set()
        assert self.gate.wait(20)
        self.batches.append(list(examples))
        if any("long" in one.reads for one in examples):
            until_stopped(stop)
        if any("bad" in one.reads for one in examples):
            raise ValueError("bad")
        return [Answer(one, {}) for one in examples]

    def sizes(self) -> list[list[int]]:
        return [[one.tokens for one in batch] for batch in self.batches]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    one = Batcher(batch_tokens=100, max_queue_tokens=1000, wait_s=0.0)
    yield one
    assert one.close(20)


def submit(batcher: Batcher, engine: Any, *sizes: int, tag: str = "", deadline: float = FAR) -> Any:
    with batcher.admit(sum(sizes)) as admission:
        return admission.submit(engine, [example(size, tag) for size in sizes], deadline=deadline)


def busy(batcher: Batcher, engine: Engine) -> Any:
    """The model at work on one job until `engine.gate` is opened, so that a queue can form."""
    engine.gate.clear()
    engine.entered.clear()
    first = submit(batcher, engine, 7)
    assert engine.entered.wait(20)
    return first


def test_what_waits_together_is_computed_together_up_to_the_budget(batcher: Batcher, engine: Engine) -> None:
    first = busy(batcher, engine)
    others = [submit(batcher, engine, size) for size in (40, 50, 20, 130, 10, 30)]
    assert batcher.waiting_tokens == 280
    engine.gate.set()
    for size, future in zip((7, 40, 50, 20, 130, 10, 30), [first, *others], strict=True):
        assert [answer.example.tokens for answer in future.result(20)] == [size]
    assert engine.sizes() == [[7], [40, 50], [20], [130], [10, 30]]
    assert batcher.waiting_tokens == batcher.waiting_jobs == 0


def written(tokens: int, *, beams: int, max_length: int) -> Any:
    settings = SimpleNamespace(beams=beams, max_length=max_length)
    return replace(example(tokens), decoding=SimpleNamespace(settings=settings))


def test_what_is_written_counts_by_its_source_and_its_greatest_length_for_each_beam(engine: Engine) -> None:
    batcher = Batcher(batch_tokens=100, max_queue_tokens=1000, wait_s=0.0, positions=12)
    for one, tokens in (
        (written(10, beams=1, max_length=5), 15),
        (written(10, beams=3, max_length=5), 45),
        (written(10, beams=3, max_length=10**6), 66),  # no more is written than there are positions
    ):
        busy(batcher, engine)
        with batcher.admit(10) as admission:
            job = admission.submit(engine, [one, one], deadline=FAR)
        assert batcher.waiting_tokens == 2 * tokens
        engine.gate.set()
        assert len(job.result(20)) == 2
        assert batcher.waiting_tokens == 0
    assert engine.sizes() == [[7], [10, 10], [7], [10, 10], [7], [10], [10]]
    message = (
        r"the request has 1,056 tokens, those of the source and max_length counted for each beam; at most 1,000 are "
        r"taken at once: send fewer or shorter texts, or ask for fewer beams or a smaller max_length"
    )
    with batcher.admit(90) as admission, pytest.raises(TooLong, match=message):
        admission.submit(engine, [written(10, beams=3, max_length=50)] * 16, deadline=FAR)
    assert batcher.close(20)


def test_a_large_job_is_computed_in_parts_and_answered_once_in_order(batcher: Batcher, engine: Engine) -> None:
    first = busy(batcher, engine)
    large, small = submit(batcher, engine, 60, 30, 50, 40, 90), submit(batcher, engine, 8)
    engine.gate.set()
    assert [answer.example.tokens for answer in large.result(20)] == [60, 30, 50, 40, 90]
    assert small.result(20)
    assert first.result(20)
    assert engine.sizes() == [[7], [60, 30], [50, 40], [90, 8]]


def test_a_job_without_examples_is_answered(batcher: Batcher, engine: Engine) -> None:
    assert submit(batcher, engine).result(20) == []


def test_an_idle_model_waits_for_company(engine: Engine) -> None:
    batcher = Batcher(batch_tokens=100, max_queue_tokens=1000, wait_s=30.0)
    futures = [submit(batcher, engine, 30), submit(batcher, engine, 30), submit(batcher, engine, 40)]
    assert all(future.result(20) for future in futures)  # a full batch does not wait
    assert engine.sizes() == [[30, 30, 40]]
    last = submit(batcher, engine, 1)
    assert batcher.close(20)  # nor does the last one when the server stops
    assert last.result(0)


def test_cancelled_work_never_runs(batcher: Batcher, engine: Engine) -> None:
    first = busy(batcher, engine)
    gone = [submit(batcher, engine, 2, tag="gone") for _ in range(200)]
    kept = submit(batcher, engine, 3)
    assert batcher.waiting_jobs == 201
    assert all(future.cancel() for future in gone)
    assert (batcher.waiting_jobs, batcher.waiting_tokens) == (1, 3)
    engine.gate.set()
    assert first.result(20)
    assert kept.result(20)
    assert engine.sizes() == [[7], [3]]


def test_work_past_its_deadline_never_runs(batcher: Batcher, engine: Engine) -> None:
    first = busy(batcher, engine)
    late = submit(batcher, engine, 5, deadline=time.monotonic() - 1)
    kept = submit(batcher, engine, 6)
    engine.gate.set()
    with pytest.raises(Late):
        late.result(20)
    assert kept.result(20)
    assert first.result(20)
    assert engine.sizes() == [[7], [6]]
    assert batcher.waiting_tokens == 0


def test_a_batch_ends_when_all_of_its_jobs_are_late(batcher: Batcher, engine: Engine) -> None:
    first = busy(batcher, engine)
    soon = time.monotonic() + 0.3
    late = submit(batcher, engine, 60, 50, tag="long", deadline=soon)  # in two batches: the second never begins
    other = submit(batcher, engine, 30, tag="long", deadline=soon)
    engine.gate.set()
    for future in (late, other):
        with pytest.raises(Late):
            future.result(20)
    assert time.monotonic() >= soon
    assert submit(batcher, engine, 5).result(20)
    assert first.result(20)
    assert [7] in engine.sizes()
    assert [60] in engine.sizes()
    assert not any(50 in sizes for sizes in engine.sizes())
    assert batcher.waiting_tokens == batcher._computing == 0


def test_a_batch_ends_when_all_of_its_jobs_have_gone(batcher: Batcher, engine: Engine) -> None:
    busy(batcher, engine)
    gone = [submit(batcher, engine, 20, tag="long") for _ in range(3)]
    engine.entered.clear()
    engine.gate.set()
    assert engine.entered.wait(20)
    for future in gone[:2]:
        assert future.cancel()
    after = submit(batcher, engine, 5)
    time.sleep(0.1)
    assert not after.done(), "one of them is still wanted"
    assert gone[2].cancel()
    assert after.result(20)
    assert engine.sizes() == [[7], [20, 20, 20], [5]]


def test_a_call_is_told_when_nobody_waits_for_it(batcher: Batcher) -> None:
    def call(deadline: float) -> Any:
        with batcher.admit(1) as admission:
            return admission.call(until_stopped, deadline=deadline)

    with pytest.raises(Late):
        call(time.monotonic() + 0.1).result(20)
    gone = call(FAR)
    time.sleep(0.05)
    assert gone.cancel()
    with batcher.admit(1) as admission:
        assert admission.call(lambda over: over(), deadline=FAR).result(20) is False


def test_one_bad_job_fails_alone(batcher: Batcher, engine: Engine) -> None:
    busy(batcher, engine)
    good = [submit(batcher, engine, 3) for _ in range(31)]
    bad = submit(batcher, engine, 3, tag="bad")
    engine.gate.set()
    with pytest.raises(ValueError, match="bad"):
        bad.result(20)
    assert all(len(future.result(20)) == 1 for future in good)
    assert batcher.alive


def test_a_users_mistake_is_told_to_its_owner_and_not_logged(batcher: Batcher, engine: Engine, caplog: Any) -> None:
    def failing(error: Exception) -> Any:
        def call(over: Any) -> Any:
            raise error

        with batcher.admit(1) as admission:
            return admission.call(call, deadline=FAR)

    for error in (DataError("the text is empty"), Problem(422, "options: a value is of the wrong kind")):
        with pytest.raises(type(error)):
            failing(error).result(20)
    assert caplog.messages == []
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError()).result(20)
    (line,) = caplog.messages
    assert line.startswith("a batch failed: ZeroDivisionError at ")


def test_a_full_queue_refuses_and_says_when_to_come_back(batcher: Batcher, engine: Engine) -> None:
    assert submit(batcher, engine, 50).result(20)
    busy(batcher, engine)
    submit(batcher, engine, 600)
    with pytest.raises(QueueFull, match="607 tokens are waiting") as full:
        submit(batcher, engine, 394)
    assert 1 <= full.value.retry_after <= 60
    submit(batcher, engine, 393)
    engine.gate.set()


class Clocked(Engine):
    """Computes so many tokens a second by a clock of its own, and while it does, requests come in at their times."""

    RATE = 100.0

    def __init__(self, batcher: Batcher, arrivals: list[tuple[float, int]]) -> None:
        super().__init__()
        self.batcher, self.arrivals, self.now = batcher, deque(arrivals), 0.0
        self.refused, self.seconds, self.over = 0, list[float](), threading.Event()

    def run(self, examples: list[Example], *, stop: Callable[[], bool]) -> list[Answer]:
        assert self.gate.wait(20)
        end = self.now + sum(one.tokens for one in examples) / self.RATE
        self.arrive(end)
        self.now = end
        if not self.arrivals:
            self.over.set()
        return super().run(examples, stop=stop)

    def arrive(self, until: float) -> None:
        while self.arrivals and self.arrivals[0][0] <= until:
            at, size = self.arrivals.popleft()
            try:
                future = submit(self.batcher, self, size)
            except QueueFull:
                self.refused += 1
                continue
            future.add_done_callback(lambda _, at=at: self.seconds.append(self.now - at))


@pytest.mark.parametrize("batch_tokens", [100, 400, 1000])
def test_what_is_taken_at_three_times_the_load_is_answered_in_time(batch_tokens: int) -> None:
    """In the time of a full queue and one batch: what is with the model delays an answer as what waits does."""
    draw = random.Random(4)
    sizes = [60, *(draw.randint(5, 60) for _ in range(799))]
    times = itertools.accumulate((size / (3 * Clocked.RATE) for size in sizes[1:]), initial=0.0)
    batcher = Batcher(batch_tokens=batch_tokens, max_queue_tokens=1000, wait_s=0.0)
    engine = Clocked(batcher, [*zip(times, sizes, strict=True)])
    engine.gate.clear()
    engine.arrive(0.0)  # the first; all others come while the model is at work
    engine.gate.set()
    assert engine.over.wait(20)
    assert batcher.close(20)
    assert engine.refused > 400
    assert len(engine.seconds) == 800 - engine.refused > 200
    assert max(engine.seconds) <= (1000 + batch_tokens) / Clocked.RATE


def test_what_is_being_tokenised_counts_as_waiting(batcher: Batcher, engine: Engine) -> None:
    with batcher.admit(900):
        assert batcher.waiting_tokens == 900
        with pytest.raises(QueueFull), batcher.admit(101):
            pass
    assert batcher.waiting_tokens == 0
    with batcher.admit(900), batcher.admit(900, taken=True) as more:
        assert batcher.waiting_tokens == 1800
        assert more.call(lambda over: 7, deadline=time.monotonic() + 20).result(20) == 7
    with pytest.raises(RuntimeError), batcher.admit(900):
        raise RuntimeError
    assert batcher.waiting_tokens == 0


def test_more_tokens_than_thought_are_refused_too(batcher: Batcher, engine: Engine) -> None:
    busy(batcher, engine)
    submit(batcher, engine, 900)
    with batcher.admit(1) as admission, pytest.raises(QueueFull):
        admission.submit(engine, [example(101)], deadline=FAR)  # type: ignore[arg-type]
    assert batcher.waiting_tokens == 900
    engine.gate.set()


def test_what_could_never_be_taken_is_told_so(batcher: Batcher, engine: Engine) -> None:
    with pytest.raises(TooLong, match="the request has 1,001 tokens; at most 1,000 are taken at once"):
        submit(batcher, engine, 500, 501)
    assert batcher.waiting_tokens == 0


def test_engines_are_not_mixed(batcher: Batcher, engine: Engine) -> None:
    other = Engine()
    busy(batcher, engine)
    futures = [submit(batcher, each, size) for each, size in ((other, 1), (engine, 2), (other, 3), (engine, 4))]
    engine.gate.set()
    assert all(future.result(20) for future in futures)
    assert engine.sizes() == [[7], [2, 4]]
    assert other.sizes() == [[1, 3]]


def test_calls_take_their_turn(batcher: Batcher, engine: Engine) -> None:
    busy(batcher, engine)
    names = SimpleNamespace(seen=[])
    with batcher.admit(1) as admission:
        call = admission.call(lambda over: names.seen.append(threading.current_thread().name) or "done", deadline=FAR)
    with batcher.admit(1) as admission:
        broken = admission.call(lambda over: 1 / 0, deadline=FAR)
    after = submit(batcher, engine, 2)
    engine.gate.set()
    assert call.result(20) == "done"
    assert names.seen == ["bothways-batcher"]
    with pytest.raises(ZeroDivisionError):
        broken.result(20)
    assert after.result(20)


def test_closing_finishes_what_is_queued_and_takes_no_more(engine: Engine) -> None:
    batcher = Batcher(batch_tokens=10, max_queue_tokens=1000, wait_s=0.0)
    first = busy(batcher, engine)
    futures = [submit(batcher, engine, 9) for _ in range(5)]
    assert not batcher.close(0.01)
    with pytest.raises(QueueFull):
        submit(batcher, engine, 1)
    engine.gate.set()
    assert batcher.close(20)
    assert all(future.result(0) for future in [first, *futures])
    assert not batcher.alive
