"""Try to break a server and what is published, and print what was tried, survived and lost.

Run: .venv/bin/python -m benchmarks.reliability

Publishes a small version to build/reliability the first time. The exit code is 1 if something was
lost. A short form of the same campaigns is among the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.reliability.crashes import run_disk_full, run_flips, run_kills
from benchmarks.reliability.hostile import run_hostile
from benchmarks.reliability.load import run_load
from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.world import World, publish_shifted
from benchmarks.serving.corpus import Size, publish_corpus
from pipelines.progress import Reporter
from serving.version.store import Store

N_ITEMS = 500


def campaigns(world: World, folder: Path, *, scale: float = 1.0) -> Iterator[Outcome]:
    """Run all of them; `scale` says how much of each."""

    def some(n: float) -> int:
        return max(1, round(n * scale))

    yield run_flips(world, folder / "flips", flips=some(5))
    yield run_disk_full(world, folder / "disk", tries=some(20))
    yield from run_load(world, folder / "load", seconds=max(2.0, 60 * scale))
    yield from run_hostile(world, folder / "hostile", requests=some(2000))
    yield run_kills(world, folder / "kills", kills=some(20))


def record(number: int) -> dict[str, Any]:
    """A fresh item of the corpus."""
    return {"item_id": 10**6 + number, "category": number % 7, "brand": number % 70, "price": 1.0}


def main() -> None:
    """Publish, run all campaigns, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="how much of each (%(default)s)")
    given = parser.parse_args()
    models, console = Path("build", "reliability"), Console()
    if Store(models).current() is None:
        size = Size(items=N_ITEMS, users=200, dim=8, all_known=True)
        publish_corpus(models, size, Reporter(Console(stderr=True)))
        publish_shifted(models)
    lost = 0
    with TemporaryDirectory() as folder:
        for outcome in campaigns(World(models, record), Path(folder), scale=given.scale):
            console.print(outcome.line(), highlight=False, markup=False, soft_wrap=True)
            lost += len(outcome.losses)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
