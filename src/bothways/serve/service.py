"""A loaded model at work: texts are tokenised off the event loop, queued, computed, and made into answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from fastapi import Request

from bothways.data.record import Record
from bothways.errors import DataError, ModelError
from bothways.infer.answering import MOST_SCORES
from bothways.infer.engine import scores_of
from bothways.infer.predictor import Predictor
from bothways.serve.limits import Limits, likely_tokens, too_much
from bothways.serve.metrics import Metrics
from bothways.serve.problems import Problem
from bothways.serve.queue import Admission, Batcher, Over, TooLong
from bothways.tasks.base import Encoded
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask

T = TypeVar("T")


class Served:
    """One model: its predictor, its queue, and what it can do."""

    def __init__(self, name: str, predictor: Predictor, *, limits: Limits, metrics: Metrics, workers: Executor) -> None:
        self.name, self.predictor, self.limits, self.metrics, self.workers = name, predictor, limits, metrics, workers
        tokens, seconds = metrics.batch_tokens.labels(name), metrics.batch_seconds.labels(name)

        def observe(count: int, took: float) -> None:
            tokens.observe(count)
            seconds.observe(took)

        decoder = predictor.model.network.decoder
        self.batcher = Batcher(
            batch_tokens=limits.batch_tokens,
            max_queue_tokens=limits.max_queue_tokens,
            wait_s=limits.wait_ms / 1000,
            positions=0 if decoder is None else decoder.config.max_position_embeddings,
            observe=observe,
        )
        metrics.queue_tokens.labels(name).set_function(lambda: self.batcher.waiting_tokens)
        metrics.queue_jobs.labels(name).set_function(lambda: self.batcher.waiting_jobs)

    @functools.cached_property
    def task(self) -> str | None:
        """The task's name; "fill" for a pre-trained model, None for a bare encoder."""
        task = self.predictor.model.task
        if isinstance(task, PretrainTask):
            return "fill"
        return None if task is None else task.name

    @property
    def labels(self) -> list[str]:
        """The labels of its task, if it has any."""
        return list(getattr(self.predictor.model.task, "labels", None) or [])

    @property
    def fills(self) -> str | None:
        """Of a model of several tasks, the name of the one that fills masks."""
        task = self.predictor.model.task
        return task.masked if isinstance(task, MultiTask) else None

    @functools.cached_property
    def routes(self) -> list[str]:
        """What can be asked of it."""
        own = ["/v1/predict"] if self.task else []
        if self.task == "generate":
            own.append("/v1/generate")
        if self.analyzer is not None:
            own.append("/v1/analyze")
        embeds = [] if self.embedder is None else ["/v1/embeddings", "/v1/rerank"]
        if self.task in ("pair", "similarity") and not embeds:
            embeds = ["/v1/rerank"]
        return [*own, *embeds, "/v1/tokenize", "/v1/attention"]

    @functools.cached_property
    def answering(self) -> Predictor:
        """The predictor of the model's task; a pre-trained model's fills masks."""
        return self.predictor.answering

    @functools.cached_property
    def embedder(self) -> Predictor | None:
        """The predictor that gives vectors; None if this model can't."""
        make = getattr(self.predictor, "embedder", None)
        return None if make is None or self.task == "generate" else make()

    @functools.cached_property
    def analyzer(self) -> Predictor | None:
        """The predictor that finds words, tags and labels by all heads at once; None if the model has none of them."""
        make = getattr(self.predictor, "analyzer", None)
        with contextlib.suppress(ModelError):
            return None if make is None else make()
        return None

    def warm_up(self, over: Over) -> None:
        """Get ready, in the model's thread, what the first clients would wait for: int8's kernels, PyTorch's own."""
        others = [one for one in (self.embedder, self.analyzer) if one is not None]
        # Without a task it gives vectors alone. Each has prepared weights of its own, but one is enough to compile for.
        first = others[0] if self.task is None and others else self.answering
        first.engine.warm_up()
        for one in others:
            one.engine.fuse()
        self.predictor.attention("warm up")

    # -------------------------------------------------------------------------------------------------- work

    async def off_loop(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what takes time on a worker, so that the event loop goes on answering."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)

    def check(self, records: Sequence[Record], options: Mapping[str, Any] | None = None) -> None:
        """Refuse what is too much before any of it is tokenised.

        Raises:
            Problem: 422.
        """
        if (wrong := too_much(records, self.limits, options)) is not None:
            raise Problem(422, wrong)

    async def aside(self, records: Sequence[Record], function: Callable[[Over], T]) -> T:
        """Run on a worker what needs the records' tokens but not the model; they count as waiting while it runs.

        The function is given what to ask, between one text and the next, whether anybody still waits for it.

        Raises:
            Problem, QueueFull, TimeoutError: as `predict`.
        """
        self.check(records)
        over = threading.Event()
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                with self.batcher.admit(likely_tokens(records)):
                    return await self.off_loop(function, over.is_set)
        finally:
            over.set()

    async def predict(
        self, predictor: Predictor, records: Sequence[Record], *, render: Callable[[list[dict[str, Any]]], T]
    ) -> T:
        """The predictions for `records`, as `render` makes them on a worker. What can't be read is {"error": …}.

        Raises:
            DataError: not one of them can be read.
            QueueFull, TooLong, Late, TimeoutError: see the batcher.
        """
        self.check(records)
        deadline = time.monotonic() + self.limits.deadline_s
        async with asyncio.timeout(self.limits.deadline_s):
            with self.batcher.admit(likely_tokens(records)) as admission:
                encoded = await self.off_loop(_encode, predictor, records)
                answers = await self._answers(predictor, encoded, admission, deadline)
            return await self.off_loop(_finish, self, predictor, records, encoded, answers, render)

    async def _answers(
        self, predictor: Predictor, encoded: Sequence[Encoded | DataError], admission: Admission, deadline: float
    ) -> list[Any]:
        examples = [example for one in encoded if isinstance(one, Encoded) for example in one.examples]
        if (scores := scores_of(predictor.model.network, examples)) > MOST_SCORES:
            raise TooLong(
                f"the request asks for {scores:,} scores, one of each piece of the vocabulary for each mask; at most "
                f"{MOST_SCORES:,} are computed at once: send fewer masks"
            )
        return await asyncio.wrap_future(admission.submit(predictor.engine, examples, deadline=deadline))

    async def call(
        self, function: Callable[[Over], T], *, tokens: int = 1, within_s: float | None = None, taken: bool = False
    ) -> T:
        """Run what needs the model for itself in the model's thread, in its turn; by default within `deadline_s`.

        The function is given what to ask, while it is at work, whether anybody still waits for it. `taken`: it goes on
        with what was taken before, so that it has its turn however much waits.
        """
        seconds = self.limits.deadline_s if within_s is None else within_s
        async with asyncio.timeout(seconds):
            with self.batcher.admit(tokens, taken=taken) as admission:
                deadline = time.monotonic() + seconds
                return await asyncio.wrap_future(admission.call(function, deadline=deadline, tokens=tokens))


def _encode(predictor: Predictor, records: Sequence[Record]) -> list[Encoded | DataError]:
    """All at once; if that fails, one by one, so that one bad text fails alone."""
    try:
        return list(predictor.encode(records))
    except DataError as error:
        if len(records) == 1:
            raise
        first = error
    encoded: list[Encoded | DataError] = []
    for number, record in enumerate(records):
        try:
            encoded += predictor.encode([record], first=number)
        except DataError as error:
            encoded.append(error)
    if all(isinstance(one, DataError) for one in encoded):
        raise first
    return encoded


def _finish(
    served: Served,
    predictor: Predictor,
    records: Sequence[Record],
    encoded: Sequence[Encoded | DataError],
    answers: Sequence[Any],
    render: Callable[[list[dict[str, Any]]], T],
) -> T:
    readable = [(record, one) for record, one in zip(records, encoded, strict=True) if isinstance(one, Encoded)]
    served.metrics.read(served.name, (one.coverage for _, one in readable))
    decoded = iter(predictor.decode([record for record, _ in readable], [one for _, one in readable], answers))
    return render([next(decoded) if isinstance(one, Encoded) else {"error": str(one)} for one in encoded])


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; if the client goes away first, the work is cancelled, and with it what is queued.

    Raises:
        Problem: 499, which nobody reads, when the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Problem(499, "the client has gone")
    finally:
        for one in (task, gone):
            one.cancel()


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Models:
    """All loaded models, by name; the first that can do a thing is asked when none is named."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.all = list(served)

    def find(self, name: str | None, route: str) -> Served:
        """The model for a request.

        Raises:
            Problem: 404; there is none of that name, or none that has this route.
        """
        able = [one for one in self.all if route in one.routes]
        if name is None:
            if able:
                return able[0]
            raise Problem(404, f"no loaded model has {route}; /v1/models tells what each can do")
        for one in self.all:
            if one.name == name:
                if one in able:
                    return one
                raise Problem(404, f"the model {one.name} has no {route}; it has {', '.join(one.routes)}")
        known = ", ".join(one.name for one in self.all)
        raise Problem(404, f"there is no model of that name; loaded are {known}")
