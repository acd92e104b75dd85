"""Ablate the negatives: quality and diversity by where the negatives of a fit come from.

Run: .venv/bin/python -m benchmarks.ablation
     .venv/bin/python -m benchmarks.ablation --table

The first measures every cell (a data set, a variant, a seed) that is not in build/ablation with the
settings of now, and so goes on where it was stopped. The second writes the tables of the cells that
are there into docs/benchmarks.md. `benchmarks.ablation_variants` has the variants.

Each variant is fitted on everything but the test for a fixed number of epochs, and the test is
looked at once, at the end. So settings are compared and none is chosen: the best of many variants
looks better here than it is. A mined variant's last fit has as many epochs as any other; the
rounds before it are counted apart, in seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.ablation_cells import Cell, settings_of
from benchmarks.ablation_fits import Bench, SeedFits
from benchmarks.ablation_table import replace_section, table
from benchmarks.ablation_variants import SETUPS, VARIANTS, K
from towers.errors import DataError, RecallError

Say = Callable[[str], None]
Key = tuple[str, int]
"""The names of a variant and the seed."""


def pending(
    bench: Bench, *, root: Path, seeds: Sequence[int], only: Sequence[str], again: bool
) -> list[Key]:
    """List the cells to measure: by seed, miners first; none that is there unless `again`."""
    keys = [(name, seed) for seed in seeds for name in VARIANTS if name in only]
    return [key for key in keys if again or not _is_there(bench, *key, root=root)]


def _is_there(bench: Bench, variant: str, seed: int, *, root: Path) -> bool:
    """Whether a cell has been measured, and with the settings that it would have now."""
    path = Cell.path(root, data=bench.name, variant=variant, seed=seed)
    config = bench.configure(VARIANTS[variant], seed=seed)
    return path.exists() and Cell.read(path).settings == settings_of(config)


def measure(bench: Bench, keys: Sequence[Key]) -> Iterator[Cell]:
    """Measure cells, in their order; the fits of one seed share what they mine with."""
    for seed in dict.fromkeys(seed for _, seed in keys):
        fits = SeedFits(bench=bench, seed=seed)
        for name in (name for name, of in keys if of == seed):
            yield fits.measure(VARIANTS[name])


def run_grid(
    benches: Sequence[Bench],
    *,
    root: Path,
    seeds: Sequence[int],
    only: Sequence[str],
    again: bool,
    say: Say,
) -> None:
    """Measure and keep the cells that are wanted, with a line for each and the time left."""
    wanted = [
        (bench, pending(bench, root=root, seeds=seeds, only=only, again=again)) for bench in benches
    ]
    total = sum(len(keys) for _, keys in wanted)
    say(f"{total} of {len(benches) * len(seeds) * len(only)} cells to measure")
    start, done = time.perf_counter(), 0
    for bench, keys in wanted:
        for cell in measure(bench, keys):
            cell.write(root)
            done += 1
            left = (time.perf_counter() - start) / done * (total - done)
            say(f"{done}/{total} {describe(cell)}; about {left / 60:.0f} min left")


def describe(cell: Cell) -> str:
    """Say a cell in a line."""
    figures = cell.figures["all"]
    return (
        f"{cell.data} {cell.variant} seed {cell.seed}: recall {figures[f'recall@{K}']:.4f}  "
        f"ndcg {figures[f'ndcg@{K}']:.4f}  coverage {figures[f'coverage@{K}']:.3f}  "
        f"popularity {figures[f'popularity@{K}']:.0f}  mined {cell.mined_share:.0%}  "
        f"{cell.seconds:.0f} s"
    )


def read_cells(root: Path) -> list[Cell]:
    """Read the cells that are there, of variants that there are.

    Raises:
        DataError: there is none.
    """
    paths = [path for name in SETUPS for path in sorted((root / name).glob("*.json"))]
    cells = [cell for cell in map(Cell.read, paths) if cell.variant in VARIANTS]
    if not cells:
        raise DataError(
            f"{root}: expected measured cells, found none; run `python -m benchmarks.ablation`"
        )
    return cells


def main() -> None:
    """Measure what is missing, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, help="to try it out; give another --out with it")
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the tables")
    parser.add_argument("--out", type=Path, default=Path("build/ablation"))
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks.md"))
    given = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        if not given.table:
            _measure_missing(given, say=console.print)
        text = table(read_cells(given.out))
        console.print(text)
        if given.table:
            replace_section(given.docs, "ablation", text)
            console.print(f"written to {given.docs}")
    except RecallError as error:
        parser.exit(2, f"{error}\n")


def _measure_missing(given: argparse.Namespace, *, say: Say) -> None:
    """Read the data sets, and run what is wanted of the grid."""
    run_grid(
        [Bench.read(name, SETUPS[name].load(epochs=given.epochs)) for name in given.data],
        root=given.out,
        seeds=given.seeds,
        only=given.only,
        again=given.again,
        say=say,
    )


if __name__ == "__main__":
    main()
