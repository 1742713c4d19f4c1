"""The application: loaded models behind the routes, warmed up when it starts, drained when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI

from bothways import __version__
from bothways.infer.predictor import Predictor
from bothways.serve import problems
from bothways.serve.gate import Gate
from bothways.serve.limits import Limits
from bothways.serve.logs import told_safely
from bothways.serve.metrics import Metrics
from bothways.serve.routes import analyze, embeddings, generate, page, predict, state, texts
from bothways.serve.service import Models, Served

log = logging.getLogger("bothways.serve")

WARM_UP_S = 600.0  # a compiler may take minutes on a busy machine, but not for ever


class App:
    """The models behind their routes. `gate` is the ASGI application; a server asks and tells the rest."""

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        *,
        limits: Limits | None = None,
        api_key: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """`hosts`: names under which alone it answers when there is no key (`loopback_names`)."""
        self.limits, self.metrics = limits or Limits(), Metrics()
        workers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="bothways-texts")
        self.models = Models(
            [
                Served(name, predictor, limits=self.limits, metrics=self.metrics, workers=workers)
                for name, predictor in predictors.items()
            ]
        )
        self._workers, self._warm = workers, False
        self.computing = False  # whether a model's thread was still at work when all had been closed
        self.api = FastAPI(
            title="Bothways",
            version=__version__,
            description="Texts read both ways: labels, entities, words, answers, vectors, masks, new text.",
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=self._lifespan,
        )
        self.api.state.models, self.api.state.metrics, self.api.state.status = self.models, self.metrics, self.status
        for group in (predict, analyze, embeddings, generate, texts, state, page):
            self.api.include_router(group.routes)
        problems.install(self.api)
        self.gate = Gate(self.api, limits=self.limits, metrics=self.metrics, api_key=api_key, hosts=hosts)

    def status(self) -> str:
        """ok, starting, stopping, or out of order (a model's thread has died)."""
        if self.gate.stopping:
            return "stopping"
        if not self._warm:
            return "starting"
        return "ok" if all(served.batcher.alive for served in self.models.all) else "out of order"

    def stop(self) -> None:
        """From now on not ready, and each connection is closed after its next answer."""
        self.gate.stopping = True

    @asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(self._warm_up())
        yield
        warming.cancel()
        self.stop()
        for served in self.models.all:
            self.computing |= not await asyncio.to_thread(served.batcher.close, 0.1 if self.gate.cut else 5.0)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _warm_up(self) -> None:
        """Let each model get ready and answer once, so that no client waits for what is set up or compiled."""
        for served in self.models.all:
            try:
                _ = served.routes  # makes its predictors
                await served.call(served.warm_up, within_s=WARM_UP_S)
            except Exception as error:  # it may still answer; whoever asks is told what is wrong
                log.error("%s could not warm up: %s", served.name, told_safely(error))
        self._warm = True
