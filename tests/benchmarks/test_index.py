from __future__ import annotations

import numpy as np
import pytest

from benchmarks.index.__main__ import table
from benchmarks.index.measure import BAR, K, Task, growing, tuned
from benchmarks.index.ours import make_task
from benchmarks.index.vectors import untrained_vectors
from benchmarks.scale.population import Size
from pipelines.publishing.build_index import build_index
from pipelines.publishing.draw_queries import Queries
from serving.search.index import ExactIndex
from serving.search.live_shells import open_shells

RANDOM = np.random.default_rng(0)


def small_task() -> Task:
    vectors, queries = (RANDOM.normal(size=(n, 4)).astype(np.float32) for n in (500, 6))
    vectors[1] = vectors[0]
    return make_task(vectors, queries)


def test_recall_counts_what_is_as_good_as_the_last_neighbour() -> None:
    task = small_task()
    exact = ExactIndex(task.vectors)
    assert task.recall(lambda queries: exact.search(queries, K)[0]) == 1.0
    half = task.recall(lambda queries: exact.search(queries, K // 2)[0])
    assert half == pytest.approx(0.5)


def test_the_first_search_that_finds_enough_is_taken_or_the_last() -> None:
    task = small_task()
    exact = ExactIndex(task.vectors)
    searches = [
        (f"{k}", lambda queries, k=k: exact.search(queries, k)[0]) for k in (10, 90, 96, 100)
    ]
    assert tuned(task, searches)[0] == "96"
    assert tuned(task, searches[:2])[0] == "90"


def test_numbers_grow_to_the_last() -> None:
    assert list(growing(1, 12)) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]


def test_a_table_has_a_line_an_index() -> None:
    row = {"name": "ours", "setting": "5 of 20 leaves", "recall": 0.957, "rate": 12_345.0}
    row |= {"p50_ms": 0.1, "p99_ms": 0.25, "build_s": 7.4, "build_cpu_s": 12.0}
    row |= {"cpu_us": 150.4}
    *_, line = table("heavy", small_task(), [row])
    assert line == "| ours | 5 of 20 leaves | 0.957 | 12,345 | 150 | 0.10 | 0.25 | 7 | 12 |"


@pytest.mark.slow
def test_trained_vectors_need_a_fifth_of_their_leaves_at_most() -> None:
    """The short form of the benchmark: leaves with a fifth of the vectors; builds differ."""
    size = Size(interactions=500_000, users=25_000, items=50_000, seed=0)
    vectors, users = untrained_vectors(size)
    queries = users[RANDOM.permutation(len(users))[:600]]
    tuning = Queries(queries[:400], {"users": slice(0, 400)})
    exact = ExactIndex(vectors).search(tuning.vectors, K)
    index, _ = build_index(vectors, tuning, exact=exact, recall=BAR)
    assert any(settings.num_leaves for settings in index.settings)
    scanned = sum(
        len(shell.rows) * settings.leaves_to_search / (settings.num_leaves or 1)
        for shell, settings in zip(index.shells, index.settings, strict=True)
    )
    assert scanned <= len(vectors) / 5
    live = open_shells(index)
    task = make_task(vectors, queries[400:])
    assert task.recall(lambda asked: live.search(asked, K)[0]) >= BAR - 0.01
