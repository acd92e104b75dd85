"""Measure an index of ten million items in each storage: building, loading and searching it.

Run: .venv/bin/python -m benchmarks.large_index --items 10000000

Vectors are made from nothing, as the features that `benchmarks.serving` publishes would give them,
and kept in build/large-index with the exact neighbours of the queries. Each step has a process of
its own. Settings are tuned on one half of the queries; figures are of the other half.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.own_process import answer, folder_gib, peak_gib, resident_gib, run_fresh
from pipelines.publishing.build_index import build_index
from pipelines.publishing.draw_queries import Queries
from pipelines.publishing.measure_recall import exact_scores, measure_recall
from serving.search.graph_search import ShellSearch
from serving.search.index import Found, Index, search_rows
from serving.search.live_shells import open_shells
from serving.search.scann_index import ScannSettings
from serving.search.shells import Shells

DIM, K = 64, 100
N_CATEGORIES, N_BRANDS, HISTORY = 1000, 10_000, 20
SPREAD = 0.6
"""How far an item lies from the centre of its category, against how far that lies from zero."""

N_QUERIES, BATCH, SINGLES = 2000, 1000, 300
CHUNK = 500_000
TARGET = 0.95
"""The recall that an index is tuned for."""

Vectors = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Files:
    """Where everything of one size is."""

    root: Path

    def vectors(self) -> Vectors:
        """The vectors, read as they are needed."""
        found: Vectors = np.load(self.root / "vectors.npy", mmap_mode="r")
        return found

    def queries(self, *, half: int) -> tuple[Vectors, Found]:
        """Half of the queries, and their exact neighbours."""
        with np.load(self.root / "queries.npz") as held:
            queries, rows, scores = (held[name][half::2] for name in ("queries", "rows", "scores"))
        return queries, (rows, scores)

    def index(self, storage: str) -> Path:
        """The folder of an index."""
        return self.root / storage / "index"

    def saved_model(self, storage: str) -> Path:
        """The folder of a SavedModel."""
        return self.root / storage / "saved_model"

    def settings(self, storage: str) -> Path:
        """The settings of the SavedModel, as JSON."""
        return self.root / storage / "settings.json"


class SearchModel(tf.Module):
    """A SavedModel that answers vectors with rows."""

    def __init__(self, search: ShellSearch) -> None:
        """Hold a search."""
        super().__init__()
        self._search = search

    @tf.function(input_signature=[tf.TensorSpec([None, 1 + DIM]), tf.TensorSpec([], tf.int32)])
    def search(self, queries: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `serving.search.graph_search.Search`."""
        return self._search(queries, k)


def make_files(files: Files, *, n: int) -> None:
    """Make vectors, queries and their exact neighbours, once."""
    if (files.root / "queries.npz").exists():
        return
    files.root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(DIM)
    centre, category = (rng.normal(scale=scale, size=(N_CATEGORIES, DIM)) for _ in range(2))
    brand, price = (rng.normal(scale=scale, size=(m, DIM)) for m in (N_BRANDS, 1))
    shape = (n, 1 + DIM)
    into = np.lib.format.open_memmap(files.root / "vectors.npy", "w+", np.float32, shape)
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        which = rng.zipf(1.2, size) % N_CATEGORIES
        features = [
            centre[which] + SPREAD * rng.normal(scale=scale, size=(size, DIM)),
            category[which],
            brand[which * 10 + rng.integers(10, size=size)],
            rng.normal(size=(size, 1)) * price,
        ]
        pooled = sum(features)
        pairs = (pooled**2 - sum(x**2 for x in features)).sum(axis=1) / 2
        into[start : start + size, 0] = rng.normal(scale=0.6, size=size) + pairs
        into[start : start + size, 1:] = pooled
    into.flush()
    liked = rng.integers(N_CATEGORIES, size=(N_QUERIES, 3))
    chosen = np.take_along_axis(liked, rng.integers(3, size=(N_QUERIES, HISTORY)), axis=1)
    history = centre[chosen] + SPREAD * rng.normal(scale=scale, size=(*chosen.shape, DIM))
    others = rng.normal(scale=np.sqrt(2) * scale, size=(N_QUERIES, DIM))
    pooled = history.sum(axis=1) / np.sqrt(HISTORY) + others
    queries = np.c_[np.ones(N_QUERIES), pooled].astype(np.float32)
    rows, scores = search_rows(files.vectors(), queries, K)
    np.savez(files.root / "queries.npz", queries=queries, rows=rows, scores=scores)


def build(files: Files, storage: Any) -> None:
    """Build, tune and write an index."""
    vectors = np.array(files.vectors())
    queries, exact = files.queries(half=0)
    asked = Queries(queries, {"queries": slice(0, len(queries))})
    before, start = resident_gib(), time.perf_counter()
    index, _ = build_index(vectors, asked, exact=exact, recall=TARGET, storage=storage)
    seconds, peak = time.perf_counter() - start, peak_gib()
    index.save(files.index(storage))
    held = json.dumps([dataclasses.asdict(settings) for settings in index.settings])
    files.settings(storage).write_text(held, encoding="utf-8")
    trees = [settings for settings in index.settings if settings.num_leaves]
    answer(
        leaves=str(sum(tree.num_leaves or 0 for tree in trees)),
        searched=sum(tree.leaves_to_search for tree in trees),
        reordered=sum(tree.reorder for tree in trees),
        build_s=seconds,
        build_peak_gib=peak,
        build_more_gib=peak - before,
        disk_gib=folder_gib(files.index(storage)),
    )


def search(files: Files, storage: Any) -> None:
    """Load an index as the server does, and search it."""
    before, start = resident_gib(), time.perf_counter()
    index = open_shells(_load(files, storage))
    measured: dict[str, Any] = {"load_s": time.perf_counter() - start}
    measured["memory_gib"] = resident_gib() - before
    answer(**measured, **_figures(index, files.vectors(), *files.queries(half=1)))


def save_model(files: Files, storage: Any) -> None:
    """Write a SavedModel of an index."""
    searched = ShellSearch(_load(files, storage), files.index(storage))
    tf.saved_model.save(SearchModel(searched), str(files.saved_model(storage)))
    answer(disk_gib=folder_gib(files.saved_model(storage)))


def _load(files: Files, storage: str) -> Shells:
    """The index that was written."""
    held = json.loads(files.settings(storage).read_text(encoding="utf-8"))
    settings = [ScannSettings(**each) for each in held]
    return Shells.load(files.index(storage), settings=settings, width=1 + DIM)


def load_model(files: Files, storage: Any) -> None:
    """Load a SavedModel, and search it."""
    before, start = resident_gib(), time.perf_counter()
    model = tf.saved_model.load(str(files.saved_model(storage)))
    loaded = time.perf_counter()
    queries, exact = files.queries(half=1)

    def asked(part: Vectors) -> Any:
        return model.search(tf.constant(part), tf.constant(K))[0].numpy()

    asked(queries[:1])
    first = time.perf_counter()
    memory, peak = resident_gib() - before, peak_gib() - before
    rate = _rate(lambda i: asked(queries[i : i + 64]), range(0, len(queries), 64))
    p50 = _median_ms(lambda i: asked(queries[i : i + 1]))
    rows = np.concatenate([asked(queries[i : i + 64]) for i in range(0, len(queries), 64)])
    scores = exact_scores(files.vectors(), queries, rows)
    answer(
        load_s=loaded - start,
        first_s=first - loaded,
        memory_gib=memory,
        peak_gib=peak,
        recall=float(measure_recall(exact, (rows, scores)).mean()),
        rate=rate * 64,
        p50_ms=p50,
    )


STEPS: dict[str, Callable[[Files, Any], None]] = {
    "build": build,
    "search": search,
    "save_model": save_model,
    "load_model": load_model,
}


def _figures(index: Index, vectors: Vectors, queries: Vectors, exact: Found) -> dict[str, Any]:
    """What an index does."""
    rows, scores = index.search(queries, K)
    true = exact_scores(vectors, queries, rows)
    return {
        "recall": float(measure_recall(exact, (rows, true)).mean()),
        "rate": _rate(lambda _: index.search(queries[:BATCH], K), range(2)) * BATCH,
        "p50_ms": _median_ms(lambda i: index.search(queries[i : i + 1], K)),
        "off": float(np.sqrt(np.mean((scores - true) ** 2)) / _spread(vectors, queries)),
    }


def _spread(vectors: Vectors, queries: Vectors) -> float:
    """The mean standard deviation of a query's scores, over some of the vectors."""
    return float((queries[:100] @ vectors[:: max(1, len(vectors) // 10_000)].T).std(axis=1).mean())


def _rate(call: Callable[[int], Any], numbers: range) -> float:
    """The most calls a second in three attempts."""
    call(numbers[0])
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        for number in numbers:
            call(number)
        best = max(best, len(numbers) / (time.perf_counter() - start))
    return best


def _median_ms(call: Callable[[int], Any]) -> float:
    seconds = []
    for number in range(SINGLES):
        start = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def table(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The lines of three tables: the indexes, their searches, the SavedModels."""
    yield "| storage | leaves | built, s | peak, GiB | on disk, GiB | loaded, s | in memory, GiB |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for storage, step in measured.items():
        b, s = step["build"], step["search"]
        yield (
            f"| {storage} | {b['leaves']} | {b['build_s']:.0f} | {b['build_peak_gib']:.1f} "
            f"| {b['disk_gib']:.2f} | {s['load_s']:.1f} | {s['memory_gib']:.2f} |"
        )
    yield ""
    yield "| storage | searched, reordered | recall@100 | queries/s | p50, ms | off |"
    yield "|---|---:|---:|---:|---:|---:|"
    for storage, step in measured.items():
        b, s = step["build"], step["search"]
        yield (
            f"| {storage} | {b['searched']}, {b['reordered']} "
            f"| {s['recall']:.3f} | {s['rate']:,.0f} | {s['p50_ms']:.2f} | {s['off']:.4f} |"
        )
    yield ""
    yield (
        "| SavedModel | recall@100 | on disk, GiB | loaded, s | first answer, s | in memory, GiB "
        "| queries/s | p50, ms |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for storage, step in measured.items():
        m = step["load_model"]
        yield (
            f"| {storage} | {m['recall']:.3f} | {step['save_model']['disk_gib']:.2f} "
            f"| {m['load_s']:.1f} | {m['first_s']:.1f} | {m['memory_gib']:.2f} "
            f"| {m['rate']:,.0f} | {m['p50_ms']:.2f} |"
        )


def main() -> None:
    """Run everything, or one step of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--storage", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--step", choices=["make", *STEPS], help="one step, in this process")
    given = parser.parse_args()
    files = Files(Path("build/large-index") / str(given.items))
    if given.step == "make":
        make_files(files, n=given.items)
        answer(done="yes")
    elif given.step is not None:
        STEPS[given.step](files, given.storage[0])
    else:
        size = ("--items", str(given.items))
        run_fresh("benchmarks.large_index", *size, "--step", "make")
        measured: dict[str, dict[str, Any]] = {}
        for storage in given.storage:
            options = (*size, "--storage", storage, "--step")
            steps = {step: run_fresh("benchmarks.large_index", *options, step) for step in STEPS}
            measured[storage] = steps
            shutil.rmtree(files.saved_model(storage))
        print("\n".join(table(measured)))


if __name__ == "__main__":
    main()
