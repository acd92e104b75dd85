"""Write generated tables: interactions by time in shards, users, items, and what they are like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.scale.draw import Slice, draw_slices
from benchmarks.scale.population import (
    Items,
    Size,
    Users,
    items_table,
    make_counts,
    make_items,
    make_users,
    users_table,
)
from serving.atomic import make_folder

ROWS_A_SHARD = 5_000_000
INTERACTIONS, USERS, ITEMS, SUMMARY = (
    "interactions",
    "users.parquet",
    "items.parquet",
    "summary.json",
)
SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("time", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the interactions are like."""

    interactions: int
    users: int
    items: int
    seed: int
    top_share: float
    """The share of the interactions that the most popular hundredth of the items has."""
    items_chosen: int
    """Items with an interaction."""
    median_a_user: float
    mean_a_user: float
    most_a_user: int


def generate(
    size: Size,
    folder: Path,
    *,
    rows_a_shard: int = ROWS_A_SHARD,
    advance: Callable[[int], None] | None = None,
) -> Summary:
    """Write the tables into `folder` unless they are there; all of them or nothing.

    The shards are stretches of time of at least `rows_a_shard` rows but the last, and what they
    hold does not depend on it. Half a GiB of memory for a million users and items, whatever the
    number of interactions.

    Args:
        size: how much.
        folder: the tables are named `INTERACTIONS` (a folder), `USERS` and `ITEMS` in it.
        rows_a_shard: when to begin another file.
        advance: called with the number of rows written since the last call.
    """
    if not folder.is_dir():
        advance = advance or (lambda rows: None)
        with make_folder(folder) as partial:
            (partial / INTERACTIONS).mkdir()
            _write_all(size, partial, rows_a_shard=rows_a_shard, advance=advance)
    return Summary(**json.loads((folder / SUMMARY).read_text(encoding="utf-8")))


def _write_all(
    size: Size, folder: Path, *, rows_a_shard: int, advance: Callable[[int], None]
) -> None:
    """Write every table, and the summary."""
    items = make_items(size)
    users = make_users(size, items)
    counts = make_counts(size, users)
    pq.write_table(users_table(size, users), folder / USERS)
    pq.write_table(items_table(size, items), folder / ITEMS)
    popularity = np.zeros(size.items, dtype=np.int64)

    def counted() -> Iterator[Slice]:
        for drawn in draw_slices(size, users, items, counts):
            popularity[:] += np.bincount(drawn.places, minlength=size.items)
            yield drawn
            advance(len(drawn.times))

    tables = (_as_table(drawn, users, items) for drawn in counted())
    _write_shards(tables, folder / INTERACTIONS, rows_a_shard=rows_a_shard)
    summary = json.dumps(asdict(_summary(size, counts, popularity)), indent=2)
    (folder / SUMMARY).write_text(summary, encoding="utf-8")


def _as_table(drawn: Slice, users: Users, items: Items) -> pa.Table:
    """Name users and items by their ids."""
    columns = [users.ids[drawn.users], items.ids[drawn.places], drawn.times]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)


def _write_shards(tables: Iterable[pa.Table], folder: Path, *, rows_a_shard: int) -> None:
    """Write tables in turn as row groups, and begin a file where the last has enough rows."""
    number, rows = 0, 0
    writer = _writer(folder, number)
    try:
        for table in tables:
            if rows >= rows_a_shard:
                writer.close()
                number, rows = number + 1, 0
                writer = _writer(folder, number)
            writer.write_table(table)
            rows += len(table)
    finally:
        writer.close()


def _writer(folder: Path, number: int) -> pq.ParquetWriter:
    """Open a shard. Ids are too many for dictionaries; times, in order, differ by little."""
    return pq.ParquetWriter(
        folder / f"part-{number:05d}.parquet",
        SCHEMA,
        use_dictionary=False,
        column_encoding={"user_id": "PLAIN", "item_id": "PLAIN", "time": "DELTA_BINARY_PACKED"},
    )


def _summary(size: Size, counts: NDArray[np.int64], popularity: NDArray[np.int64]) -> Summary:
    """Say what the interactions are like."""
    top = np.sort(popularity)[::-1][: -(-size.items // 100)]
    return Summary(
        **asdict(size),
        top_share=round(float(top.sum() / size.interactions), 4),
        items_chosen=int(np.count_nonzero(popularity)),
        median_a_user=float(np.median(counts)),
        mean_a_user=float(counts.mean()),
        most_a_user=int(counts.max()),
    )
