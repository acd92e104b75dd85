"""The environment variables that fm-recall sets and reads, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
"""How many threads libraries compute with; they read it when they are loaded."""


def prepare() -> None:
    """Select Keras 2 (tensorflow-recommenders needs it) and quiet TensorFlow's start-up log.

    A value that the user has set is kept, except for `TF_USE_LEGACY_KERAS`: with Keras 3
    tensorflow-recommenders 0.7.7 does not import.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def secret(name: str) -> str | None:
    """Read a secret, which has no place on a command line; None where it is not given."""
    return os.environ.get(name) or None


def cluster_text() -> str | None:
    """What describes the workers that train together, as `tf.distribute` has it."""
    return os.environ.get("TF_CONFIG")


def wants_traces() -> bool:
    """Whether OpenTelemetry's variables say where traces go."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


@contextmanager
def share_cores(n: int) -> Iterator[None]:
    """Have each of `n` processes that are started meanwhile compute with its share of the cores.

    What the user has set is kept.
    """
    each = str(max(1, len(os.sched_getaffinity(0)) // n))
    given = {name: each for name in THREADS if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
