"""Compare fm-recall with the tools that people use now, side by side.

Run: .venv/bin/python -m benchmarks.peers

Without options, every row that has no result yet is run on every data set. Results, environments
and models are below build/peers; `--table` puts the results into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peers.processes import ROOT, PeerError
from benchmarks.peers.rerun import Bench
from benchmarks.peers.rows import TITLES
from benchmarks.peers.splits import DataSet
from benchmarks.peers.table import render_tables, write_table
from pipelines.progress import Reporter
from towers.errors import RecallError

BENCHMARKS = ROOT / "benchmarks"
DATA = ("gowalla", "movielens-1m")
BUILD = ROOT / "build" / "peers"
PAGE = ROOT / "docs" / "benchmarks.md"

FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line, or `arguments`, says; the exit code."""
    given = _parser().parse_args(arguments)
    console = Console()
    bench = Bench(build=BUILD, reporter=Reporter(console))
    try:
        _run(given, bench)
    except RecallError as error:
        console.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        console.print("Interrupted. Rows that are finished are kept; the same command goes on.")
        return INTERRUPTED
    return 0


def _run(given: argparse.Namespace, bench: Bench) -> None:
    """Run rows, or write the table.

    Raises:
        PeerError: a table is asked for, but there are no results.
    """
    data_sets = [_data_set(name) for name in given.data or DATA]
    rows = given.row or list(TITLES)
    if not given.table:
        for data in data_sets:
            for row in rows:
                if given.again or given.row or bench.current(data, row) is None:
                    bench.run(data, row)
        bench.reporter.say("Next: python -m benchmarks.peers --table")
        return
    results = bench.all_current(data_sets, rows)
    if not results:
        raise PeerError("--table: there are no results; run python -m benchmarks.peers first")
    text = render_tables(results)
    print(text)
    write_table(PAGE, text)
    bench.reporter.say(f"Written to {PAGE}")


def _data_set(name: str) -> DataSet:
    """The data set of a name or of a TOML file's path."""
    return DataSet(Path(name).resolve() if name.endswith(".toml") else BENCHMARKS / f"{name}.toml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        action="append",
        metavar="NAME",
        help=f"a data set, one of {', '.join(DATA)}, or the path of a run's TOML file; may be "
        "given several times; default: both",
    )
    parser.add_argument(
        "--row",
        action="append",
        choices=list(TITLES),
        help="run this row, also where it has a result; may be given several times",
    )
    parser.add_argument("--again", action="store_true", help="run rows that have a result, too")
    parser.add_argument(
        "--table", action="store_true", help="write the results to docs/benchmarks.md instead"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
