"""The retriever beside the bare index: what encoding, exclusion and naming cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.corpus import (
    N_AGES,
    N_CITIES,
    SEED,
    draw_categories,
    draw_histories,
)
from pipelines.publishing.measure_recall import exact_scores, measure_recall
from serving.retrieval.retriever import Retriever
from serving.search.index import ExactIndex
from serving.version.index_record import IndexRecord
from serving.version.manifest import MANIFEST

BATCH, K = 1024, 100
CHECKED = 500
"""Queries whose exact neighbours are counted."""
REPEATS = 3
"""Each rate is the best of so many, in turn."""


def make_queries(n: int, *, n_items: int, seed: int = 1) -> dict[str, list[Any]]:
    """Make the raw features of `n` users, drawn as those of the corpus are."""
    category = draw_categories(n_items, np.random.default_rng(SEED))
    rng = np.random.default_rng(seed)
    return {
        "history": draw_histories(category, n, rng).tolist(),
        "age": rng.integers(N_AGES, size=n).tolist(),
        "city": rng.integers(N_CITIES, size=n).tolist(),
    }


def measure(retriever: Retriever, *, n: int) -> Iterable[tuple[str, str]]:
    """Yield the lines of a table: what was measured, and how much it was."""
    index = retriever.parts.index("u2i")
    record = IndexRecord.from_dict(retriever.bundle.manifest.index, where=MANIFEST)
    for settings in record.directions["u2i"].trees:
        searched = f"{settings.leaves_to_search} of {settings.num_leaves} leaves"
        yield (
            "a shell",
            f"{searched}, {settings.reorder} reordered" if settings.num_leaves else "all",
        )
    features = make_queries(n, n_items=retriever.catalogue("item").size)
    packed = retriever.tower("user").pack(features, size=n)
    vectors = retriever.encode("user", packed)
    items, asked = retriever.catalogue("item").vectors, vectors[:CHECKED]
    found, _ = index.search(asked, K)
    shares = measure_recall(
        ExactIndex(items).search(asked, K), (found, exact_scores(items, asked, found))
    )
    yield f"recall@{K}", f"{shares.mean():.3f}"

    def bare(part: slice) -> None:
        index.search(vectors[part], K)

    def from_packed(part: slice) -> None:
        some = _cut(packed, part)
        retriever.answer([retriever.ask_packed("u2i", some, k=np.full(BATCH, K))])

    def from_raw(part: slice) -> None:
        retriever.retrieve_batch("u2i", features=_cut(features, part), k=K)

    rates = _rates({"bare": bare, "packed": from_packed, "raw": from_raw}, n=n)
    yield f"bare search, batches of {BATCH}", f"{rates['bare']:,.0f} queries/s"
    for name, label in (("packed", "arrays to ids"), ("raw", "raw features to ids")):
        yield label, f"{rates[name]:,.0f} queries/s, {rates[name] / rates['bare']:.2f} of it"
    yield "  of a query: packing", f"{_us(lambda p: _pack(retriever, features, p), n):.1f} us"
    yield "  encoding", f"{_us(lambda p: retriever.encode('user', _cut(packed, p)), n):.1f} us"
    yield "  search", f"{1e6 / rates['bare']:.1f} us"
    singles = [slice(i, i + 1) for i in range(300)]
    yield "one at a time, bare search", _latency(bare, singles)
    yield (
        "one at a time, encoding",
        _latency(lambda part: retriever.encode("user", _cut(packed, part)), singles),
    )
    yield "one at a time, raw features to ids", _latency(from_raw, singles)


def _cut(columns: Mapping[str, Any], part: slice) -> dict[str, Any]:
    return {name: values[part] for name, values in columns.items()}


def _pack(retriever: Retriever, features: Mapping[str, Any], part: slice) -> Any:
    return retriever.tower("user").pack(_cut(features, part), size=BATCH)


def _batches(n: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, n - BATCH + 1, BATCH)]


def _rates(calls: Mapping[str, Callable[[slice], None]], *, n: int) -> dict[str, float]:
    """Queries a second of each, run in turn so that what else runs disturbs all alike."""
    best = dict.fromkeys(calls, np.inf)
    for _ in range(REPEATS):
        for name, call in calls.items():
            start = perf_counter()
            for part in _batches(n):
                call(part)
            best[name] = min(best[name], perf_counter() - start)
    return {name: len(_batches(n)) * BATCH / seconds for name, seconds in best.items()}


def _us(call: Callable[[slice], Any], n: int) -> float:
    """Microseconds a query, in batches."""
    start = perf_counter()
    for part in _batches(n):
        call(part)
    return (perf_counter() - start) / (len(_batches(n)) * BATCH) * 1e6


def _latency(call: Callable[[slice], Any], parts: Iterable[slice]) -> str:
    seconds = []
    for part in parts:
        start = perf_counter()
        call(part)
        seconds.append(perf_counter() - start)
    return percentiles(seconds)


def percentiles(seconds: Iterable[float] | NDArray[np.float64]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(list(seconds), [50, 99]) * 1000
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
