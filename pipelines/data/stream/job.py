"""The steps of a job over all chunks or blocks, with their progress, and what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.hold_out import TrainedOn
from pipelines.data.positives import PositiveCounts, duplicate
from pipelines.data.rejects import Reason
from pipelines.data.split import Fractions, is_by_time
from pipelines.data.stream.check import CheckChunk, Keys
from pipelines.data.stream.engine import Engine, Outcome, Step
from pipelines.data.stream.faults import StreamedFaults
from pipelines.data.stream.files import (
    PAIR_SCHEMA,
    by_block,
    checked_file,
    known_file,
    settled_file,
    write_groups,
)
from pipelines.data.stream.order import Place, Sorter
from pipelines.data.stream.settle import SettleBlock
from pipelines.data.stream.source import StreamedTable, open_streamed
from pipelines.data.stream.store import Cuts, StoreBlock
from pipelines.progress import Reporter
from towers.schema import Side

Reasons = Mapping[str, tuple[Reason, ...]]
"""What rows of each table may be rejected for, in the order of the checks."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is held in memory at a time."""

    chunk_rows: int = 2**21
    """Rows that are checked together."""
    block_rows: int = 2**21
    """Rows of the interactions that a block is made of, on average."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of the rows that are without a fault by themselves."""

    counts: Mapping[str, PositiveCounts]
    """By table."""
    extremes: Mapping[str, tuple[Any, Any]]
    """The least and the greatest user and item of the interactions, by column."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The tables of interactions, and what carries out steps on them."""

    config: RunConfig
    tables: Mapping[str, StreamedTable]
    """The interactions and, where they have a table of their own, the test."""
    n_blocks: int
    by_time: bool
    """Whether time divides the interactions, rather than a draw."""
    work: Path
    """The folder of all that lies between the steps."""
    engine: Engine
    reporter: Reporter

    @classmethod
    def open(
        cls, config: RunConfig, *, work: Path, engine: Engine, reporter: Reporter, sizes: Sizes
    ) -> Job:
        """Look at the tables.

        Raises:
            ConfigError: they are not Parquet, or lack the times to split by.
            DataError: there is nothing to read, or shards do not fit together.
        """
        given = {"interactions": config.data.interactions}
        if config.split.test is not None:
            given["test"] = config.split.test
        tables = {
            name: open_streamed(table, name=name, chunk_rows=sizes.chunk_rows)
            for name, table in given.items()
        }
        has_times = config.data.interactions.timestamp is not None
        return cls(
            config=config,
            tables=tables,
            n_blocks=max(-(-tables["interactions"].n_rows // sizes.block_rows), 1),
            by_time=is_by_time(config.split, has_times=has_times),
            work=work,
            engine=engine,
            reporter=reporter,
        )

    @property
    def has_times(self) -> bool:
        """Whether the interactions have times."""
        return self.config.data.interactions.timestamp is not None

    @property
    def fractions(self) -> Fractions:
        """The shares to hold out."""
        return Fractions.of(self.config.split, has_test="test" in self.tables)

    def check(self, keys: Keys) -> Reasons:
        """Check each row by itself."""
        reasons = {}
        with self.reporter.stage("check rows"):
            for name, table in self.tables.items():
                is_drawn = name == "interactions" and not self.by_time
                step = CheckChunk(
                    source=table,
                    keys=keys,
                    as_dates=table.has_dates(),
                    n_blocks=self.n_blocks,
                    seed=self.config.seed if is_drawn else None,
                    folder=self.work,
                )
                run = self._run(step, table.n_chunks, f"check {name}", rows=table.n_rows)
                *_, outcome = run  # every chunk says the same
                found = [(reason, tuple(columns)) for reason, columns in outcome["reasons"]]
                reasons[name] = (*found, duplicate(table.table))
        return reasons

    def settle(self, keys: Keys, reasons: Reasons) -> Settled:
        """Settle every block."""
        step = SettleBlock(
            chunks={name: table.n_chunks for name, table in self.tables.items()},
            reasons={name: len(found) - 1 for name, found in reasons.items()},
            pair=keys.pair,
            random=None if self.by_time else self.fractions,
            folder=self.work,
        )
        counts = dict.fromkeys(self.tables, PositiveCounts())
        extremes: dict[str, list[Any]] = {column: [] for column in keys.pair}
        total = sum(table.n_rows for table in self.tables.values())
        with self.reporter.stage("settle users"):
            for outcome in self._run(step, self.n_blocks, "settle users", rows=total):
                for name, found in outcome["counts"].items():
                    counts[name] += PositiveCounts(**found)
                for column, pair in outcome["extremes"].items():
                    extremes[column] += pair or []
        return Settled(
            counts=counts,
            extremes={
                column: (min(found), max(found)) for column, found in extremes.items() if found
            },
        )

    def faults(self, reasons: Reasons) -> dict[str, StreamedFaults]:
        """The rows at fault of each table."""
        return {
            name: StreamedFaults.gather(table, reasons=reasons[name], folder=self.work)
            for name, table in self.tables.items()
        }

    def first_seen(self, column: str) -> pd.Series:
        """The ids of a column, in order of first occurrence over all tables."""
        return self._sorter.first_seen([self._checked(name) for name in self.tables], column=column)

    def place(self, rank: int) -> Place | None:
        """The place in time of the positive that has `rank` others before it, if there is one."""
        settled = [settled_file(self.work, "interactions", block) for block in range(self.n_blocks)]
        return self._sorter.place(settled, rank=rank)

    def forget_checked(self) -> None:
        """Remove the good rows by chunk, which no later step reads."""
        for name in self.tables:
            for path in self._checked(name):
                path.unlink()

    def write_known(
        self,
        trained_on: TrainedOn,
        *,
        ids: Mapping[Side, pd.Series],
        block_of_user: NDArray[np.int32],
    ) -> int:
        """Write the pairs that a version was trained on by block; says into how many files."""
        index = {side: pd.Index(column) for side, column in ids.items()}
        with self.reporter.stage(f"read what version {trained_on.version} was trained on"):
            number = 0
            for users, items in trained_on.pairs_among(index):
                columns = {"user_row": users, "item_row": items}
                groups = by_block(
                    columns, block_of_user[users], n_blocks=self.n_blocks, schema=PAIR_SCHEMA
                )
                write_groups(known_file(self.work, number), groups, schema=PAIR_SCHEMA)
                number += 1
        return number

    def store(
        self,
        blocks: Path,
        *,
        ids: Mapping[Side, Path],
        cuts: Cuts | None,
        settled: Settled,
        n_known: int,
    ) -> int:
        """Write the blocks; says how many held-out positives have moved to training.

        Those move that are in the `n_known` files that `write_known` has written.
        """
        step = StoreBlock(
            tables=tuple(self.tables),
            ids=ids,
            cuts=cuts,
            n_known=n_known,
            folder=self.work,
            blocks=blocks,
        )
        total = sum(counts.kept for counts in settled.counts.values())
        with self.reporter.stage("write blocks"):
            outcomes = self._run(step, self.n_blocks, "write blocks", rows=total)
            return sum(outcome["moved"] for outcome in outcomes)

    @property
    def _sorter(self) -> Sorter:
        return Sorter(scratch=self.work / "sorter")

    def _checked(self, name: str) -> list[Path]:
        """The files of good rows of a table."""
        return [checked_file(self.work, name, chunk) for chunk in range(self.tables[name].n_chunks)]

    def _run(self, step: Step, count: int, name: str, *, rows: int) -> Iterator[Outcome]:
        """Carry out a step, and show how far it is."""
        with self.reporter.bar(name, rows, unit="rows") as advance:
            for _, outcome in self.engine.run(step, count=count):
                advance(outcome["rows"])
                yield outcome
