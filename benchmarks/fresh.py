"""Measure what fresh items cost: questions, filters and changes without them, and with many.

Run: .venv/bin/python -m benchmarks.fresh

Publishes a small version (an exact index) to build/fresh-ITEMS the first time. Each figure is the
median over questions in this process, one at a time, of the wall's time and of the processor's;
each ratio is to the same question to a version without fresh items, which is asked in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.serving.corpus import Size, publish_corpus
from benchmarks.serving.in_process import make_queries
from pipelines.progress import Reporter
from serving.retrieval.retriever import Retriever
from serving.search.index import search_rows
from serving.version.store import Store

K, QUESTIONS, PUTS, CHUNK = 100, 200, 50, 1000
SETTLE_S = 10.0
"""A tree for what was put in is built meanwhile."""
Cost = tuple[float, float]
"""Seconds by the clock, and of the processor."""
WHERE = {"column": "brand", "range": {"lt": 2000}}


def measure(models: Path, *, n_fresh: int, prices: int | None) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table: what was measured, and how much it was."""
    without, retriever = Retriever.open(models), Retriever.open(models)
    for one in (without, retriever):
        one.warm()
    n_items = retriever.catalogue("item").size
    began = time.perf_counter()
    put_many(retriever, first=n_items, n=n_fresh, prices=prices)
    name = f"putting {n_fresh:,} items in, {CHUNK:,} at a time"
    yield name, f"{time.perf_counter() - began:.1f} s"
    for when, settle in (("at once", 0.0), (f"{SETTLE_S:.0f} s later", SETTLE_S)):
        time.sleep(settle)
        yield f"with {n_fresh:,} fresh items, {when}", ""
        yield from _show(_times(without, retriever, n_items=n_items))
    yield f"recall@{K} beside every score", f"{_recall(retriever, n_items=n_items):.4f}"
    puts = [
        _seconds(lambda n=n: put_many(retriever, first=n, n=1)) for n in _new_ids(n_items, n_fresh)
    ]
    yield "one put: median, 99 of 100, longest", _ms(puts)
    gone = [_seconds(partial(_delete, retriever, n)) for n in range(PUTS)]
    yield "one delete: median, 99 of 100, longest", _ms(gone)


def put_many(retriever: Retriever, *, first: int, n: int, prices: int | None = None) -> None:
    """Put in items as the corpus has them, with new ids; of so many prices, else all differ."""
    rng = np.random.default_rng(first)
    for start in range(first, first + n, CHUNK):
        ids = range(start, min(start + CHUNK, first + n))
        category = rng.integers(1000, size=len(ids))
        price = rng.lognormal(size=len(ids)) if prices is None else 1.0 + np.arange(CHUNK) % prices
        records = [
            {"item_id": i, "category": int(c), "brand": int(c) * 10, "price": float(p)}
            for i, c, p in zip(ids, category, price[: len(ids)], strict=True)
        ]
        retriever.apply(retriever.change("item", upsert=records))


def _delete(retriever: Retriever, id: int) -> None:
    retriever.apply(retriever.change("item", delete=[id]))


def _new_ids(n_items: int, n_fresh: int) -> range:
    return range(n_items + n_fresh, n_items + n_fresh + PUTS)


def _times(
    without: Retriever, retriever: Retriever, *, n_items: int
) -> dict[str, tuple[list[Cost], list[Cost]]]:
    """What each kind of question costs, without fresh items and with them, in turn."""
    features = make_queries(QUESTIONS, n_items=n_items)
    each = [{name: values[n] for name, values in features.items()} for n in range(QUESTIONS)]
    ids = retriever.catalogue("user").ids(np.arange(QUESTIONS)).tolist()

    def plain(asked: Retriever, n: int) -> None:
        asked.retrieve_batch("u2i", features={name: [x] for name, x in each[n].items()}, k=K)

    def known(asked: Retriever, n: int) -> None:
        asked.retrieve_batch("u2i", ids=[ids[n]], k=K, exclude_seen=True)

    def filtered(asked: Retriever, n: int) -> None:
        asked.retrieve("u2i", features=each[n], k=K, where=WHERE)

    kinds = {
        "features": plain,
        "an id, without what is seen": known,
        "a filter, all columns": filtered,
    }
    found: dict[str, tuple[list[Cost], list[Cost]]] = {name: ([], []) for name in kinds}
    for name, ask in kinds.items():
        for n in range(QUESTIONS):
            for costs, asked in zip(found[name], (without, retriever), strict=True):
                costs.append(_seconds(partial(ask, asked, n)))
    return found


def _recall(retriever: Retriever, *, n_items: int) -> float:
    packed = retriever.tower("user").pack(make_queries(QUESTIONS, n_items=n_items), size=QUESTIONS)
    queries = retriever.encode("user", packed)
    found, _ = retriever.parts.index("u2i").search(queries, K)
    catalogue = retriever.catalogue("item")
    true, _ = search_rows(catalogue.vectors, queries, K, present=catalogue.is_present)
    shares = [len(np.intersect1d(a, b)) / K for a, b in zip(found, true, strict=True)]
    return float(np.mean(shares))


def _seconds(function: Callable[[], Any]) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - began, time.process_time() - cpu


def _show(found: dict[str, tuple[list[Cost], list[Cost]]]) -> Iterator[tuple[str, str]]:
    for name, costs in found.items():
        before, after = (np.median(some, axis=0) * 1000 for some in costs)
        wall, cpu = after / before
        text = f"{before[0]:.2f} -> {after[0]:.2f} ms, {wall:.2f} times; of the processor "
        yield (
            f"a question by {name}",
            f"{text}{before[1]:.2f} -> {after[1]:.2f} ms, {cpu:.2f} times",
        )


def _ms(costs: list[Cost]) -> str:
    wall, cpu = np.array(costs).T * 1000
    high = ", ".join(f"{x:.1f} ms" for x in np.quantile(wall, [0.5, 0.99, 1.0]))
    return f"{high}; of processor {np.median(cpu):.1f} ms"


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000, help="published (%(default)s)")
    parser.add_argument("--fresh", type=int, default=100_000, help="put in (%(default)s)")
    parser.add_argument("--prices", type=int, help="of fresh items; else all vectors differ")
    given = parser.parse_args()
    models, console = Path("build", f"fresh-{given.items}"), Console()
    if Store(models).current() is None:
        size = Size(items=given.items, users=5_000, all_known=True)
        publish_corpus(models, size, Reporter(Console(stderr=True)))
    for name, value in measure(models, n_fresh=given.fresh, prices=given.prices):
        console.print(f"{name:50} {value}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
