"""What the ids of a version take in memory, and a lookup of them, against pandas.

Run: .venv/bin/python -m benchmarks.ids --items 10000000

Writes ids of four kinds in Parquet: integers that ascend, integers in any order, texts such as
item-0012345, and UUIDs. A process of its own loads each, once as an array of NumPy with a
`pandas.Index` for the way back, and once as an `IdTable`. Prints the memory that it keeps and its
peak, both without that of the libraries, the seconds until the first id is found, and the medians
of lookups of ids drawn at random, as new objects each time.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from serving.version.embeddings import read_ids

KINDS = ("ascending integers", "integers", "texts", "UUIDs")
WAYS = ("pandas", "IdTable")
CHUNK = 1_000_000
"""Ids that are made at a time."""
MANY = 100
"""Figures that are shown without decimals are at least this large."""
BATCHES = {1: 1000, 1000: 100, 100_000: 10}
"""How many lookups there are of each number of ids."""

Ids = NDArray[Any]
Find = Callable[[Ids], NDArray[np.int64]]
Take = Callable[[NDArray[np.int64]], Ids]


def write_ids(path: Path, kind: str, *, n: int) -> None:
    """Write n different ids in Parquet."""
    schema = pa.schema([("id", pa.int64() if "integers" in kind else pa.string())])
    with pq.ParquetWriter(path, schema) as file:
        for ids in make_ids(kind, n):
            file.write_table(pa.table([pa.array(ids)], schema=schema))


def make_ids(kind: str, n: int) -> Iterator[Any]:
    """Make n different ids, a part at a time."""
    rng = np.random.default_rng(0)
    numbers = np.arange(n) if kind == "ascending integers" else rng.permutation(n)
    for start in range(0, n, CHUNK):
        part = numbers[start : start + CHUNK]
        if kind == "UUIDs":
            codes = [rng.bytes(16).hex() for _ in part]
            yield [f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}" for x in codes]
        elif kind == "texts":
            yield [f"item-{number:07d}" for number in part.tolist()]
        else:
            yield part * 7919 + 2**40


def load(path: Path, way: str) -> tuple[int, Find, Take]:
    """Load ids, answering how many there are, how to find rows, and how to take ids."""
    if way == "IdTable":
        table = read_ids(path)
        return len(table), table.find, table.take
    column = pq.read_table(path).to_pandas().iloc[:, 0]
    ids = column.to_numpy(np.int64 if column.dtype == np.int64 else object)
    index = pd.Index(ids)
    return len(ids), lambda some: index.get_indexer(pd.Index(some)), ids.__getitem__


def measure(path: Path, way: str) -> dict[str, float]:
    """Load ids and look some up; figures by what they are of."""
    before = kept_mib()
    began = time.perf_counter()
    n, find, take = load(path, way)
    find(take(np.zeros(1, dtype=np.int64)))
    figures = {"load, s": time.perf_counter() - began}
    gc.collect()
    pa.default_memory_pool().release_unused()
    figures["kept, MiB"] = kept_mib() - before
    figures["peak, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    rng = np.random.default_rng(1)
    for size, count in BATCHES.items():
        found, taken = [], []
        for _ in range(count):
            rows = rng.integers(n, size=size)
            ids = _copied(take(rows))
            found.append(_timed(find, ids))
            taken.append(_timed(take, rows))
        figures[f"find {size:,}, microseconds"] = float(np.median(found))
        figures[f"take {size:,}, microseconds"] = float(np.median(taken))
    return figures


def kept_mib() -> float:
    """The memory of this process, on Linux."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def _copied(ids: Ids) -> Ids:
    """Ids as a request brings them: texts that are other objects, whose hashes nobody knows."""
    return ids if ids.dtype == np.int64 else np.array([f" {id}"[1:] for id in ids], dtype=object)


def _timed(function: Callable[[Any], Any], argument: Any) -> float:
    began = time.perf_counter()
    function(argument)
    return (time.perf_counter() - began) * 1e6


def _measure_apart(path: Path, way: str) -> dict[str, float]:
    """Do what `measure` does, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ids", "--path", str(path), "--way", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def show(kind: str, found: dict[str, dict[str, float]], *, n: int, console: Console) -> None:
    """Print the figures of both ways, and their ratio."""
    table = Table(f"{n:,} {kind}", *WAYS, "ratio")
    for number in range(1, len(WAYS) + 2):
        table.columns[number].justify = "right"
    for name in found[WAYS[0]]:
        old, new = (found[way][name] for way in WAYS)
        shown = [f"{x:,.2f}" if x < MANY else f"{x:,.0f}" for x in (old, new)]
        table.add_row(name, *shown, f"{new / old:.2f}")
    console.print(table)


def main() -> None:
    """Measure each kind and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.path is not None:
        sys.stdout.write(json.dumps(measure(given.path, given.way)) + "\n")
        return
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds:
            path = Path(folder, "ids.parquet")
            write_ids(path, kind, n=given.items)
            found = {way: _measure_apart(path, way) for way in WAYS}
            show(kind, found, n=given.items, console=console)


if __name__ == "__main__":
    main()
