"""The files that steps exchange: one for each chunk or block, and never half a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.atomic import replace_file

BLOCK = "block"
"""The column that says which block of users a row is in."""

ROW = pa.int32()
"""The type of a row number of users or items; ids are never of it."""

whole_file = partial(replace_file, durable=False)
"""Gives a file its name once it is complete; a run that was killed writes it again."""


def checked_file(folder: Path, table: str, chunk: int) -> Path:
    """The path of the rows of a chunk that have no fault, in order of blocks."""
    return folder / f"{table}-checked-{chunk:06d}.parquet"


def settled_file(folder: Path, block: int) -> Path:
    """The path of the positives of a block, from all tables, and of what else users know."""
    return folder / f"settled-{block:06d}.parquet"


def known_file(folder: Path, number: int) -> Path:
    """The path of pairs of user_row and item_row that are not held out, in order of blocks."""
    return folder / f"known-{number:06d}.parquet"


def write_by_block(
    path: Path,
    columns: Mapping[str, Any],
    *,
    block: NDArray[np.int32],
    n_blocks: int,
    schema: pa.Schema,
) -> None:
    """Write rows [n] in order of their block [n], each block's as a row group of its own.

    So a query for one block reads nothing of the others. Columns that are not given are null.
    """
    small = block.astype(np.uint16) if n_blocks <= 2**16 else block  # a radix sort
    order = np.argsort(small, kind="stable")
    arrays = [
        pa.array(columns[name], kind) if name in columns else pa.nulls(len(block), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    rows = pa.Table.from_arrays([pa.array(block), *arrays], names=[BLOCK, *schema.names])
    rows = rows.take(pa.array(order)) if n_blocks > 1 else rows
    ends = np.cumsum(np.bincount(block, minlength=n_blocks)).tolist()
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with (
        whole_file(path) as beside,
        pq.ParquetWriter(beside, rows.schema, compression="lz4", use_dictionary=texts) as writer,
    ):
        for start, end in zip([0, *ends], ends, strict=False):
            if end > start:
                writer.write_table(rows.slice(start, end - start), row_group_size=end - start)


def write_faults(
    folder: Path, table: str, step: str, number: int, *, positions: Any, codes: Any
) -> None:
    """Write the positions [n] of the rows that a step found at fault, and the codes of reasons."""
    if len(positions):
        found = {"position": positions, "reason": pa.array(codes, pa.int16())}
        write_rows(folder / f"{table}-{step}-faults-{number:06d}.parquet", pa.table(found))


def read_faults(folder: Path, table: str) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Read the positions [n] of a table's rows at fault, ascending, and the codes of reasons."""
    empty = pa.table({"position": pa.array([], pa.int64()), "reason": pa.array([], pa.int16())})
    files = sorted(folder.glob(f"{table}-*-faults-*.parquet"))
    found = pa.concat_tables([empty, *map(pq.read_table, files)]).sort_by("position")
    return found["position"].to_numpy(), found["reason"].to_numpy()


def write_rows(path: Path, rows: pa.Table) -> None:
    """Write a table to a file, which gets its name once it is complete."""
    with whole_file(path) as beside:
        pq.write_table(rows, beside, compression="lz4")
