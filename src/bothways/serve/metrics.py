"""What the server counts, for Prometheus: queue, batches, latency, and how much text models did not read."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from bothways.tasks.base import Coverage

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """One server's; several servers in one process do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        model, route = ["model"], ["route", "status"]
        self.requests = Counter("bothways_requests", "requests answered", route, registry=self.registry)
        self.seconds = Histogram(
            "bothways_request_seconds", "from a request's head to its answer", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("bothways_requests_in_flight", "requests being answered", registry=self.registry)
        self.queue_tokens = Gauge("bothways_queue_tokens", "tokens waiting", model, registry=self.registry)
        self.queue_jobs = Gauge("bothways_queue_jobs", "jobs waiting", model, registry=self.registry)
        self.batch_tokens = Histogram(
            "bothways_batch_tokens", "tokens computed together", model, buckets=TOKENS, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "bothways_batch_seconds", "what a batch took", model, buckets=SECONDS, registry=self.registry
        )
        self.kept = Counter("bothways_tokens_kept", "tokens that models read", model, registry=self.registry)
        self.dropped = Counter("bothways_tokens_dropped", "tokens never read", model, registry=self.registry)
        self.truncated = Counter(
            "bothways_texts_truncated", "texts of which tokens were never read", model, registry=self.registry
        )

    def read(self, model: str, coverages: Iterable[Coverage]) -> None:
        """Count what was read of some texts."""
        coverages = list(coverages)
        self.kept.labels(model).inc(sum(one.kept for one in coverages))
        self.dropped.labels(model).inc(sum(one.dropped for one in coverages))
        self.truncated.labels(model).inc(sum(one.dropped > 0 for one in coverages))

    def text(self) -> bytes:
        """As Prometheus scrapes it."""
        return generate_latest(self.registry)
