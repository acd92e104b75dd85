"""Compare indexes at recall@100 >= .95: ours, one tree of ScaNN's, faiss, and exact search.

Run: .venv/bin/python -m benchmarks.index --items 1000000

On kinds of vectors: trained on Gowalla, trained on generated interactions, a corpus whose
lengths have a heavy tail, and clumps (left out where the file is not there). Vectors are made once
and kept in build/index. faiss runs in an environment of its own, in build/index/faiss. Half of the
queries tune each index, the other half measures it. On two cores and with a million items it takes
about an hour, most of it for training, and for HNSW (`--faiss IVF-Flat` leaves it out; `spectral`
vectors, where training starts, are a kind that takes minutes). `--kinds clumped --builds 10` prints
whether each of ten builds is published.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.index.measure import Task
from benchmarks.index.ours import check_builds, make_task, measure_exact, measure_ours, measure_tree
from benchmarks.index.vectors import make_vectors
from benchmarks.peers.environments import ensure_environment
from benchmarks.peers.processes import run_logged
from benchmarks.peers.results import describe_machine
from pipelines.progress import Reporter

KINDS = ("gowalla", "generated", "spectral", "heavy", "clumped")
DEFAULT = tuple(kind for kind in KINDS if kind != "spectral")
FAISS = ("IVF-Flat", "HNSW")


def main() -> None:
    """Measure, and print a table of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="of the two that are made")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=DEFAULT)
    parser.add_argument("--out", type=Path, default=Path("build/index"))
    parser.add_argument("--clumped", type=Path, default=Path("data/index/clumped.npz"))
    parser.add_argument("--faiss", nargs="*", choices=FAISS, default=FAISS, help="none: leave out")
    parser.add_argument("--builds", type=int, help="only build ours so often, and check each")
    given = parser.parse_args()
    reporter = Reporter(Console(stderr=True))
    print(describe_machine(), flush=True)
    for kind in given.kinds:
        if kind == "clumped" and not given.clumped.exists():
            print(f"\nclumped: left out, since {given.clumped} is not there")
            continue
        made = make_vectors(
            kind, given.out, items=given.items, clumped=given.clumped, reporter=reporter
        )
        task = make_task(*made)
        if given.builds:
            print(f"\n{kind}: builds", flush=True)
            for line in check_builds(task, given.builds):
                print(line, flush=True)
            continue
        rows = measure_ours(task) + measure_tree(task)
        if given.faiss:
            rows += _measure_faiss(task, given.faiss, given.out, reporter)
        print("\n".join(table(kind, task, rows + measure_exact(task))), flush=True)


def table(kind: str, task: Task, rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a table."""
    size, width = task.vectors.shape
    lines = [
        "",
        f"{kind}: {size:,} vectors of {width} coordinates",
        "",
        "| index | searched | recall@100 | queries/s | CPU us a query | p50, ms | p99, ms "
        "| built, s | of CPU |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return lines + [
        f"| {row['name']} | {row['setting']} | {row['recall']:.3f} | {row['rate']:,.0f} "
        f"| {row['cpu_us']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} "
        f"| {row['build_s']:.0f} | {row['build_cpu_s']:.0f} |"
        for row in rows
    ]


def _measure_faiss(
    task: Task, names: list[str], out: Path, reporter: Reporter
) -> list[dict[str, Any]]:
    """Hand a task to faiss, in its own environment."""
    python = ensure_environment("faiss", folder=out / "faiss", reporter=reporter)
    folder = out / "task"
    task.save(folder)
    run_logged(
        [str(python), "-m", "benchmarks.index.faiss_worker", str(folder), *names],
        log=out / "faiss.log",
    )
    rows: list[dict[str, Any]] = json.loads((folder / "faiss.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return rows


if __name__ == "__main__":
    main()
