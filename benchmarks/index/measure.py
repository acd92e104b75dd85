"""Tune and time a search, with nothing but NumPy, so that any environment can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

K, BAR = 100, 0.95
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

    def half(self, number: int) -> Task:
        """The same with one half of the queries."""
        return Task(vectors=self.vectors, queries=self.queries[number::2], kth=self.kth[number::2])

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
    """The first of some searches that finds enough, or the last; each costs more than the last."""
    chosen: tuple[str, Search] | None = None
    for chosen in searches:
        if task.recall(chosen[1]) >= BAR:
            break
    if chosen is None:
        raise ValueError("searches: expected at least one, received none")
    return chosen


def figures(
    name: str, setting: str, search: Search, task: Task, *, build_s: float
) -> dict[str, Any]:
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
        "rate": _rate(search, task.queries),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "build_s": build_s,
    }


def growing(first: int, last: int) -> Sequence[int]:
    """Numbers by steps of a fifth, from the first to the last."""
    numbers = [first]
    while numbers[-1] < last:
        numbers.append(min(last, max(numbers[-1] + 1, round(1.2 * numbers[-1]))))
    return numbers


def _rate(search: Search, queries: Vectors) -> float:
    """Queries a second in batches: the best of some rounds."""
    best = np.inf
    for _ in range(REPEATS):
        start = perf_counter()
        for first in range(0, len(queries), BATCH):
            search(queries[first : first + BATCH])
        best = min(best, perf_counter() - start)
    return len(queries) / best
