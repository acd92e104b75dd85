"""Metrics: what the server counts, for Prometheus to fetch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from serving.server.observing.drift import Drift
from serving.server.runtime.served_version import MODELS
from towers.directions import DIRECTIONS

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
SOURCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
COUNTED = {*MODELS, "explain", "explorer"}


class Metrics:
    """The figures of one server, in a registry of their own. Any thread may call it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "fm_recall_requests",
            "Requests that ended, by the surface they came to and gRPC's name of their status.",
            ["surface", "model", "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fm_recall_answer_seconds",
            "Time from a question to its answer, waiting included and transport not.",
            ["model", "direction"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "fm_recall_batch_sources",
            "Sources that were answered together.",
            buckets=SOURCES,
            registry=self.registry,
        )
        self._changes = Counter(
            "fm_recall_changes",
            "Users and items upserted and deleted.",
            ["side", "kind"],
            registry=self.registry,
        )
        self._refused = Counter(
            "fm_recall_refused_versions",
            "Versions that could not be used.",
            registry=self.registry,
        )
        self._retries = Counter(
            "fm_recall_load_retries",
            "Times that a version was tried again after it could not be used.",
            registry=self.registry,
        )
        self._loads = Counter(
            "fm_recall_loads", "Versions that were swapped in.", registry=self.registry
        )
        self.load_seconds = self._gauge("load_seconds", "How long the last load took.")
        self.version = self._gauge("version", "The version that answers; 0: none is loaded.")
        self.in_memory = self._gauge(
            "versions_in_memory", "The version that answers, and those that finish their requests."
        )
        self.drift = Drift(self.registry)
        # Looking a child up by its labels costs more than counting.
        self._requests_of = cache(self._requests.labels)
        self._seconds_of = cache(self._seconds.labels)
        self._changes_of = cache(self._changes.labels)

    def count(self, *, surface: str, model: str, code: str) -> None:
        """Count a request that ended.

        Args:
            surface: `rest`, `grpc` or `retrieve`.
            model: a model's name, a direction, `explain` or `explorer`; any other is counted as
                `unknown`.
            code: the status as gRPC calls it, such as `OK` or `INVALID_ARGUMENT`.
        """
        self._requests_of(surface, model if model in COUNTED else "unknown", code).inc()

    def answered(self, seconds: float, *, model: str, direction: str) -> None:
        """Count an answer to a model's question, in a direction or, of a tower, in none (`""`)."""
        self._seconds_of(model, direction).observe(seconds)

    def computed(self, sources: int) -> None:
        """Count a batch."""
        self._batch.observe(sources)

    def changed(self, side: str, *, upserted: int, deleted: int) -> None:
        """Count a change."""
        self._changes_of(side, "upsert").inc(upserted)
        self._changes_of(side, "delete").inc(deleted)

    def refused(self) -> None:
        """Count a version that could not be used."""
        self._refused.inc()

    def tried_again(self) -> None:
        """Count another try to load a version."""
        self._retries.inc()

    def loaded(self, version: int) -> None:
        """Count a version that answers from now on."""
        self._loads.inc()
        self.version.set(version)

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        """Ask `waiting` for the sources that wait, whenever the figures are fetched."""
        self._gauge("queue_sources", "Sources that wait for their batch.").set_function(waiting)

    def watch_index(self, size: Callable[[str], float]) -> None:
        """Ask `size` for the vectors of a direction's index, whenever the figures are fetched."""
        gauge = Gauge(
            "fm_recall_index_size",
            "Users or items that a direction searches.",
            ["direction"],
            registry=self.registry,
        )
        for direction in DIRECTIONS:
            gauge.labels(direction).set_function(partial(size, direction))

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Ask `value` for a figure whenever the figures are fetched; NaN where there is none."""
        self._gauge(name, what).set_function(value)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"fm_recall_{name}", what, registry=self.registry)
