"""Read, check and split the tables of a run, and keep the outcome for a resumed run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import pyarrow.parquet as pq

from pipelines.config import RunConfig
from pipelines.data.blocks import PARTS, HeldInteractions, Part, StoredInteractions, ids_of
from pipelines.data.frames import to_arrow
from pipelines.data.interactions import Tables
from pipelines.data.split import split_interactions
from serving.atomic import move_directory

FRAMES = ("users", "items", "train", "validation", "test")
"""The tables of `Prepared`, by field."""

BLOCKS = "blocks"
"""The folder of interactions that stay on disk."""


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

    def interactions(self, *parts: Part) -> HeldInteractions:
        """The positives of one part, or of training and validation, by row.

        Raises:
            ValueError: other parts are asked for together.
        """
        frames: dict[tuple[Part, ...], pd.DataFrame]
        frames = {(part,): getattr(self, part) for part in PARTS}
        frames[("train", "validation")] = self.everything_but_test
        if parts not in frames:
            raise ValueError(f"parts: expected one of {list(frames)}, received {parts}")
        ids = (ids_of(table, table.columns[0]) for table in (self.users, self.items))
        user_ids, item_ids = ids
        return HeldInteractions.from_frame(frames[parts], user_ids=user_ids, item_ids=item_ids)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredPrepared:
    """The same with interactions that stay on disk."""

    users: pd.DataFrame
    items: pd.DataFrame
    lines: tuple[str, ...]
    """What became of the rows that were read."""
    blocks: Path
    """The folder of the interactions; see `pipelines.data.blocks`."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of users, of items, and of interactions by part."""
        found = {"users": len(self.users), "items": len(self.items)}
        return found | {part: int(self.interactions(part).user_counts.sum()) for part in PARTS}

    def interactions(self, *parts: Part) -> StoredInteractions:
        """The positives of one or more parts, by row."""
        return StoredInteractions(self.blocks, parts)


AnyPrepared: TypeAlias = Prepared | StoredPrepared


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
    tables = {name: to_arrow(getattr(prepared, name), name=name) for name in FRAMES}
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, table in tables.items():
        pq.write_table(table, beside / f"{name}.parquet")
    (beside / "lines.json").write_text(json.dumps(prepared.lines), encoding="utf-8")
    move_directory(beside, folder)


def load_prepared(folder: Path) -> AnyPrepared:
    """Read what `save_prepared` or `pipelines.data.stream` wrote."""
    blocks = folder / BLOCKS
    names = FRAMES[:2] if blocks.exists() else FRAMES
    frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    lines = tuple(json.loads((folder / "lines.json").read_text(encoding="utf-8")))
    if blocks.exists():
        return StoredPrepared(**frames, lines=lines, blocks=blocks)
    return Prepared(**frames, lines=lines)
