"""Read, check and split the tables of a run, and keep the outcome for a resumed run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.interactions import Tables
from pipelines.split import split_interactions
from serving.atomic import move_directory
from towers.errors import DataError

FRAMES = ("users", "items", "train", "validation", "test")
"""The tables of `Prepared`, by field."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Clean users and items, and the interactions of each part of the split."""

    users: pd.DataFrame
    items: pd.DataFrame
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    lines: tuple[str, ...]
    """What became of the rows that were read."""

    @property
    def everything_but_test(self) -> pd.DataFrame:
        """Training and validation interactions, from old to new where they have times."""
        both = pd.concat([self.train, self.validation], ignore_index=True)
        timed = "timestamp" in both.columns
        return both.sort_values("timestamp", kind="stable", ignore_index=True) if timed else both

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows of each table."""
        return {name: len(getattr(self, name)) for name in FRAMES}


def prepare(tables: Tables, config: RunConfig) -> Prepared:
    """Split the interactions of clean tables.

    Raises:
        ConfigError: a split by time is asked for, but there are no times.
        DataError: no interaction is left to train on.
    """
    split = split_interactions(tables, config=config.split, seed=config.seed)
    return Prepared(
        users=tables.users,
        items=tables.items,
        train=split.train,
        validation=split.validation,
        test=split.test,
        lines=tuple(tables.report.lines()),
    )


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write `prepared` as the new folder `folder`, all of it or nothing.

    Raises:
        DataError: a column has values of several types.
    """
    tables = {name: _to_arrow(getattr(prepared, name), name=name) for name in FRAMES}
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, beside / f"{name}.parquet")
    (beside / "lines.json").write_text(json.dumps(prepared.lines), encoding="utf-8")
    move_directory(beside, folder)


def load_prepared(folder: Path) -> Prepared:
    """Read what `save_prepared` wrote."""
    frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in FRAMES}
    lines = json.loads((folder / "lines.json").read_text(encoding="utf-8"))
    return Prepared(**frames, lines=tuple(lines))


def _to_arrow(frame: pd.DataFrame, *, name: str) -> pa.Table:
    """Give each column the one type that Parquet needs."""
    try:
        return pa.Table.from_pandas(frame)
    except pa.ArrowException as error:
        raise DataError(
            f"{name}: expected values of one type in each column, received a column that Parquet "
            f"cannot hold: {'; '.join(map(str, error.args))}; convert it, or leave it out"
        ) from None
