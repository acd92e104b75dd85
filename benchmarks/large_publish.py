"""Publish a version of ten million items, load it and ask it.

Run: .venv/bin/python -m benchmarks.large_publish --items 10000000 --storage bfloat16

The version is that of `benchmarks.serving`, but all items are known and their prices have no long
tail: neighbours that differ by less than bfloat16 can tell would not be found. It is made in
build/large-publish. Each step has a process of its own.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scann  # noqa: F401  (its operations)
import tensorflow as tf
from rich.console import Console

from benchmarks.own_process import answer, folder_gib, peak_gib, resident_gib, run_fresh
from benchmarks.serving.corpus import Size, publish_corpus
from benchmarks.serving.in_process import make_queries
from pipelines.progress import Reporter
from serving.retrieval.retriever import Retriever
from serving.version.index_record import IndexRecord
from serving.version.store import Store

BATCH, BATCHES, SINGLES, K = 1024, 4, 200, 100


def publish(root: Path, given: argparse.Namespace) -> None:
    """Make the version and publish it."""
    size = Size(items=given.items, users=given.users, log_prices=0.25, all_known=True)
    start = time.perf_counter()
    bundle = publish_corpus(root, size, Reporter(Console(stderr=True)), storage=given.storage)
    u2i = IndexRecord.from_dict(bundle.manifest.index, where="manifest").directions["u2i"]
    answer(
        u2i_index=str(u2i),
        seconds=time.perf_counter() - start,
        peak_gib=peak_gib(),
        disk_gib=folder_gib(bundle.path),
        models_gib=folder_gib(bundle.path / "models"),
        u2i_gib=folder_gib(bundle.model("u2i")),
        index_gib=folder_gib(bundle.path / "index"),
        checkpoint_gib=folder_gib(bundle.path / "checkpoint"),
    )


def serve(root: Path, _: argparse.Namespace) -> None:
    """Load all that the server needs, and ask it."""
    before, start = resident_gib(), time.perf_counter()
    retriever = Retriever.open(root)
    retriever.warm()
    load_s = time.perf_counter() - start
    memory, peak = resident_gib() - before, peak_gib() - before
    n_users, n_items = (retriever.catalogue(side).size for side in ("user", "item"))
    n = BATCH * BATCHES
    features = make_queries(n, n_items=n_items)
    ids = np.random.default_rng(3).integers(n_users, size=n).tolist()

    def by_features(start: int, size: int) -> Any:
        some = {name: values[start : start + size] for name, values in features.items()}
        return retriever.retrieve_batch("u2i", features=some, k=K)

    def by_ids(start: int, size: int) -> Any:
        return retriever.retrieve_batch("u2i", ids=ids[start : start + size], k=K)

    answer(
        load_s=load_s,
        memory_gib=memory,
        peak_gib=peak,
        features_rate=_rate(by_features),
        ids_rate=_rate(by_ids),
        features_p50_ms=_median_ms(by_features),
        ids_p50_ms=_median_ms(by_ids),
    )


def load_u2i(root: Path, _: argparse.Namespace) -> None:
    """Load the SavedModel of u2i as TF Serving would, and ask it."""
    bundle = Store(root).open(1)
    queries = make_queries(64, n_items=1000)
    before, start = resident_gib(), time.perf_counter()
    u2i = tf.saved_model.load(str(bundle.model("u2i"))).signatures["serving_default"]
    loaded = time.perf_counter()
    found = u2i(**{name: tf.constant(values, tf.int64) for name, values in queries.items()})
    answer(
        load_s=loaded - start,
        first_s=time.perf_counter() - loaded,
        memory_gib=resident_gib() - before,
        answers=str(found["ids"].shape[1]),
    )


STEPS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "publish": publish,
    "serve": serve,
    "load_u2i": load_u2i,
}


def _rate(call: Callable[[int, int], Any]) -> float:
    """Queries a second in batches, the best of three attempts."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        for number in range(BATCHES):
            call(number * BATCH, BATCH)
        best = max(best, BATCH * BATCHES / (time.perf_counter() - start))
    return best


def _median_ms(call: Callable[[int, int], Any]) -> float:
    seconds = []
    for number in range(SINGLES):
        start = time.perf_counter()
        call(number, 1)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def main() -> None:
    """Run everything, or one step of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--storage", default="bfloat16")
    parser.add_argument("--step", choices=[*STEPS], help="one step, in this process")
    given = parser.parse_args()
    root = Path("build/large-publish") / str(given.items)
    if given.step is not None:
        STEPS[given.step](root, given)
        return
    shutil.rmtree(root, ignore_errors=True)
    options = ["--items", str(given.items), "--users", str(given.users)]
    options += ["--storage", given.storage, "--step"]
    for step in STEPS:
        found = run_fresh("benchmarks.large_publish", *options, step)
        for name, value in found.items():
            print(f"{step:10} {name:20} {value if isinstance(value, str) else f'{value:,.2f}'}")


if __name__ == "__main__":
    main()
