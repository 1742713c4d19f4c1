"""The batcher: one queue and one thread a model; what waits together is computed together, up to a number of tokens."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from starlette.exceptions import HTTPException

from bothways.batch import Example
from bothways.errors import BothwaysError, Stopped
from bothways.infer.engine import Engine
from bothways.serve.logs import told_safely
from bothways.tasks.base import Answer

log = logging.getLogger("bothways.serve")


Over = Callable[[], bool]  # asked between one step and the next: whether nobody waits for the work any longer


class QueueFull(Exception):
    """More tokens are ahead than may be; `retry_after` seconds from now there should be room."""

    def __init__(self, ahead: int, retry_after: int) -> None:
        super().__init__(f"{ahead:,} tokens are waiting already; try again in {retry_after} s")
        self.retry_after = retry_after


class TooLong(Exception):
    """One request has more tokens than the queue holds: it could never be taken."""


class Late(Exception):
    """The deadline passed before the work was done; it was not begun, or given up."""


@dataclass(eq=False, slots=True)
class Job:
    """What one request wants of the model: the answers to its examples, or a call that needs the model for itself."""

    engine: Engine | None
    examples: Sequence[Example]
    deadline: float  # by time.monotonic()
    since: float
    call: Callable[[Over], Any] | None = None
    costs: Sequence[int] = ()  # what each example counts for
    waiting: int = 0  # tokens not yet computed
    taken: int = 0  # examples handed to the model
    answers: list[Answer] = field(default_factory=list)
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Part:
    """What of a job is computed at once: some of its examples and what they count for, or its call."""

    job: Job
    examples: Sequence[Example]
    tokens: int


class Admission:
    """A request's place in the count of tokens, from before it is tokenised until it is in the queue.

    taken: what it is about was taken before, so that it is not sent away for want of room
    """

    def __init__(self, batcher: Batcher, tokens: int, *, taken: bool = False) -> None:
        self._batcher, self.tokens, self.taken = batcher, tokens, taken

    def submit(self, engine: Engine, examples: Sequence[Example], *, deadline: float) -> Future[list[Answer]]:
        """Queue the examples; cancelling the future takes them out again.

        Raises:
            QueueFull: with the tokens that there turned out to be, they are too many for now.
            TooLong: they are too many for ever.
        """
        costs = [cost(example, self._batcher.positions) for example in examples]
        job = Job(engine, examples, deadline, time.monotonic(), costs=costs, waiting=sum(costs))
        return self._batcher._enter(self, job)

    def call(self, function: Callable[[Over], Any], *, deadline: float, tokens: int = 1) -> Future[Any]:
        """Queue a call that has the model for itself while it runs: a step of generating."""
        return self._batcher._enter(self, Job(None, (), deadline, time.monotonic(), call=function, waiting=tokens))


def cost(example: Example, positions: int) -> int:
    """What an example counts for: its tokens; where a text shall be written of it, also the most tokens that this may
    have, both once for each beam. `positions`: how many the model can write.
    """
    if example.decoding is None:
        return example.tokens
    settings = example.decoding.settings
    return settings.beams * (example.tokens + min(settings.max_length, positions))


class Batcher:
    """Runs one model, in one thread, for all requests of all tasks.

    Work is taken in the order it came. What came in while the model was busy is computed together, and a text that
    finds the model idle waits `wait_s` for company. A client that has gone cancels its future, and its work is
    dropped. Writing, which takes many steps, ends when all whose texts are written together have gone or are late.
    An error in a batch is looked for job by job, so that it is told only to whoever caused it.

    batch_tokens:     computed together at most (or one example)
    max_queue_tokens: ahead of an answer at most: admitted, queued or in the batch that is being computed, which takes
                      as long as what waits. So what is taken is answered in the time that these and one batch take
    positions:        tokens that the model can write at most
    observe:          hears of (tokens, seconds) of each batch
    """

    def __init__(
        self,
        *,
        batch_tokens: int,
        max_queue_tokens: int,
        wait_s: float,
        positions: int = 0,
        observe: Callable[[int, float], None] = lambda tokens, seconds: None,
    ) -> None:
        self.batch_tokens, self.max_queue_tokens, self.wait_s = batch_tokens, max_queue_tokens, wait_s
        self.positions = positions
        self._observe = observe
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._queued = 0  # tokens in the queue
        self._computing = 0  # tokens with the model
        self._admitted = 0  # tokens of requests that are being tokenised, as far as one can tell
        self._rate = 0.0  # tokens a second, lately
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="bothways-batcher", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------- what requests call

    @contextmanager
    def admit(self, tokens: int, *, taken: bool = False) -> Iterator[Admission]:
        """Count about `tokens` as waiting, until they are queued or the block ends; `taken`: as `Admission` has it.

        Raises:
            QueueFull: there is no room now. An idle model takes any request.
        """
        with self._changed:
            if not taken:
                self._make_sure_of_room(tokens)
            self._admitted += tokens
        admission = Admission(self, tokens, taken=taken)
        try:
            yield admission
        finally:
            with self._changed:
                self._admitted -= admission.tokens
                admission.tokens = 0

    @property
    def waiting_tokens(self) -> int:
        """Tokens queued or admitted."""
        return self._queued + self._admitted

    @property
    def waiting_jobs(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float | None = None) -> bool:
        """Finish what is queued and end the thread; whether it ended within `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---------------------------------------------------------------------------------------------- the queue

    def _make_sure_of_room(self, tokens: int) -> None:
        ahead = self.waiting_tokens + self._computing
        if ahead and ahead + tokens > self.max_queue_tokens:
            seconds = math.ceil(ahead / self._rate) if self._rate else 1
            raise QueueFull(ahead, min(max(seconds, 1), 60))

    def _enter(self, admission: Admission, job: Job) -> Future[Any]:
        with self._changed:
            if self._closing:
                raise QueueFull(self.waiting_tokens, 1)
            self._admitted -= admission.tokens
            admission.tokens = 0
            if job.waiting > self.max_queue_tokens:
                written = any(example.decoding is not None for example in job.examples)
                raise TooLong(
                    f"the request has {job.waiting:,} tokens"
                    f"{', those of the source and max_length counted for each beam' * written}; at most "
                    f"{self.max_queue_tokens:,} are taken at once: send fewer or shorter texts"
                    f"{', or ask for fewer beams or a smaller max_length' * written}"
                )
            if not admission.taken:
                self._make_sure_of_room(job.waiting)
            self._queued += job.waiting
            self._queue.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    def _forget(self, job: Job) -> None:
        """Take a job out of the queue, if it is still there."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                self._queued -= job.waiting
                job.waiting = 0

    # --------------------------------------------------------------------------------------------- the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
                self._let_it_fill()
                late, batch = self._take()
            for job in late:
                _settle(job.future, error=Late())
            if batch:
                self._run(batch)

    def _let_it_fill(self) -> None:
        """Wait until the oldest job has waited long enough or a batch is full."""
        while self._queue and self._queue[0].call is None and self._queued < self.batch_tokens and not self._closing:
            left = self._queue[0].since + self.wait_s - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> tuple[list[Job], list[Part]]:
        """Jobs whose time is over, and the next batch."""
        now = time.monotonic()
        late = [job for job in self._queue if job.deadline <= now]
        for job in late:
            self._queue.remove(job)
            self._queued -= job.waiting
        if not self._queue:
            return late, []
        first = self._queue[0]
        if first.call is not None:
            self._queue.popleft()
            self._queued -= first.waiting
            self._computing = first.waiting
            return late, [Part(first, (), first.waiting)]
        batch: list[Part] = []
        tokens, ended = 0, []
        for job in self._queue:
            if job.engine is not first.engine:
                continue
            part = self._next_part(job, tokens)
            tokens += part.tokens
            if part.examples or not job.examples:
                batch.append(part)
            if job.taken == len(job.examples):
                ended.append(job)
            if tokens >= self.batch_tokens or job.taken < len(job.examples):
                break
        self._queued -= tokens
        self._computing = tokens
        for job in ended:
            self._queue.remove(job)
        return late, batch

    def _next_part(self, job: Job, tokens: int) -> Part:
        """As many more of the job's examples as fit into a batch that has so many tokens already."""
        begin, some = job.taken, 0
        while job.taken < len(job.examples):
            more = job.costs[job.taken]
            if tokens + some and tokens + some + more > self.batch_tokens:
                break
            some += more
            job.taken += 1
        job.waiting -= some
        return Part(job, job.examples[begin : job.taken], some)

    def _run(self, batch: list[Part]) -> None:
        first = batch[0].job
        if first.call is not None:
            self._call(batch[0], first.call)
            return
        engine = first.engine
        assert engine is not None
        examples = [example for part in batch for example in part.examples]
        begun, tokens = time.monotonic(), sum(part.tokens for part in batch)
        try:
            answers = iter(engine.run(examples, stop=lambda: _over(batch)) if examples else ())
        except Stopped:
            self._computed(tokens)
            self._give_up(batch)
            return
        except Exception as error:
            if len(batch) == 1:
                self._computed(tokens)
                self._failed(first, error)
            else:  # somebody's text is at fault: only its owner shall hear of it
                for one in batch:
                    self._run([one])
            return
        self._computed(tokens)
        seconds = time.monotonic() - begun
        if seconds > 0:
            self._rate = 0.7 * self._rate + 0.3 * tokens / seconds if self._rate else tokens / seconds
        self._observe(tokens, seconds)
        for part in batch:
            part.job.answers += [next(answers) for _ in part.examples]
            if len(part.job.answers) == len(part.job.examples):
                _settle(part.job.future, part.job.answers)

    def _call(self, part: Part, call: Callable[[Over], Any]) -> None:
        try:
            with torch.inference_mode():
                result = call(lambda: _over([part]))
        except Stopped:
            self._computed(part.tokens)
            self._give_up([part])
        except Exception as error:
            self._computed(part.tokens)
            self._failed(part.job, error)
        else:
            self._computed(part.tokens)
            _settle(part.job.future, result)

    def _computed(self, tokens: int) -> None:
        """So many are with the model no longer: known before anybody has an answer, and asks for more."""
        with self._changed:
            self._computing -= tokens

    def _give_up(self, batch: list[Part]) -> None:
        """Drop what is left of jobs that nobody waits for; whoever is late is told so."""
        for part in batch:
            self._forget(part.job)
            _settle(part.job.future, error=Late())

    def _failed(self, job: Job, error: Exception) -> None:
        if not isinstance(error, BothwaysError | HTTPException):  # those are the client's mistakes
            log.error("a batch failed: %s", told_safely(error))
        self._forget(job)
        _settle(job.future, error=error)


def _over(batch: list[Part]) -> bool:
    """Whether everybody has gone or is late."""
    now = time.monotonic()
    return all(part.job.future.done() or part.job.deadline <= now for part in batch)


def _settle(future: Future[Any], result: Any = None, *, error: Exception | None = None) -> None:
    """Give the future its result, unless its owner has gone in the meantime."""
    try:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    except InvalidStateError:
        pass
