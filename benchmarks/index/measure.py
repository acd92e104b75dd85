"""Tune and time a search, with nothing but NumPy, so that any environment can."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

K, BAR = 100, 0.95
TUNING = 1000
BATCH, SINGLES, REPEATS = 1024, 300, 3

Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[np.int64]]
"""Answers queries [n, d] with rows [n, K], -1 for none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Vectors to search, and queries in two halves: to tune with, and to measure with."""

    vectors: Vectors
    queries: Vectors
    kth: NDArray[np.float32]
    """The score of each query's K-th exact neighbour."""

    def save(self, folder: Path) -> None:
        """Write the task to files."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("vectors", "queries", "kth"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Task:
        """Read what `save` wrote."""
        return cls(
            **{name: np.load(folder / f"{name}.npy") for name in ("vectors", "queries", "kth")}
        )

    def to_tune_with(self) -> Task:
        """The same with half of the queries, a thousand at most."""
        return self._some(slice(0, 2 * TUNING, 2))

    def to_measure(self) -> Task:
        """The same with the other half."""
        return self._some(slice(1, None, 2))

    def _some(self, part: slice) -> Task:
        return Task(vectors=self.vectors, queries=self.queries[part], kth=self.kth[part])

    def recall(self, search: Search) -> float:
        """The share of the K neighbours that is found; what ties with the last is one too."""
        good = 0
        for start in range(0, len(self.queries), BATCH):
            part = slice(start, start + BATCH)
            rows = search(self.queries[part])
            for query, kth, found in zip(self.queries[part], self.kth[part], rows, strict=True):
                scores = self.vectors[found[found >= 0]] @ query
                good += int(np.count_nonzero(scores >= kth - 1e-5 * abs(kth)))
        return good / (K * len(self.queries))


def tuned(task: Task, searches: Iterable[tuple[str, Search]]) -> tuple[str, Search]:
    """The first of some searches that finds enough, or the last; each finds more than the last."""
    tried = list(searches)
    place = bisect_left(tried, True, hi=len(tried) - 1, key=lambda x: task.recall(x[1]) >= BAR)
    return tried[place]


@dataclass(frozen=True)
class Built:
    """What making an index took."""

    wall_s: float
    cpu_s: float
    """Of all threads."""


@contextmanager
def timed(into: list[Built]) -> Iterator[None]:
    """Add what the block takes."""
    wall, cpu = perf_counter(), process_time()
    yield
    into.append(Built(perf_counter() - wall, process_time() - cpu))


def figures(name: str, setting: str, search: Search, task: Task, *, built: Built) -> dict[str, Any]:
    """Measure a search."""
    seconds = []
    for query in task.queries[:SINGLES]:
        start = perf_counter()
        search(query[np.newaxis])
        seconds.append(perf_counter() - start)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "name": name,
        "setting": setting,
        "recall": task.recall(search),
        **_rate(search, task.queries),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "build_s": built.wall_s,
        "build_cpu_s": built.cpu_s,
    }


def growing(first: int, last: int) -> Sequence[int]:
    """Numbers by steps of a fifth, from the first to the last."""
    numbers = [first]
    while numbers[-1] < last:
        numbers.append(min(last, max(numbers[-1] + 1, round(1.2 * numbers[-1]))))
    return numbers


def _rate(search: Search, queries: Vectors) -> dict[str, float]:
    """Queries a second in batches, and microseconds of processor time each: the best of rounds."""
    rounds: list[Built] = []
    for _ in range(REPEATS):
        with timed(rounds):
            for first in range(0, len(queries), BATCH):
                search(queries[first : first + BATCH])
    return {
        "rate": len(queries) / min(each.wall_s for each in rounds),
        "cpu_us": 1e6 * min(each.cpu_s for each in rounds) / len(queries),
    }
