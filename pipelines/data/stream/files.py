"""The files between the steps: one a chunk or a block, each whole or not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROW = pa.int32()
"""The type of a row number of users or items; ids are never of it."""

PAIR_SCHEMA = pa.schema({"user_row": ROW, "item_row": ROW})


def checked_file(folder: Path, table: str, chunk: int) -> Path:
    """The good rows of a chunk; row group b is those of block b."""
    return folder / f"{table}-checked-{chunk:06d}.parquet"


def settled_file(folder: Path, table: str, block: int) -> Path:
    """The positives of a block."""
    return folder / f"{table}-settled-{block:06d}.parquet"


def faults_file(folder: Path, table: str, step: str, number: int) -> Path:
    """The positions of the rows that a step found to be at fault, and the reasons' places."""
    return folder / f"{table}-{step}-faults-{number:06d}.parquet"


def known_file(folder: Path, number: int) -> Path:
    """Pairs that are not to be held out (`PAIR_SCHEMA`); row group b is those of block b."""
    return folder / f"known-{number:06d}.parquet"


def by_block(
    columns: Mapping[str, NDArray[np.generic]],
    block: NDArray[np.int32],
    *,
    n_blocks: int,
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    """Divide rows [n], given by columns, by their block [n]; they keep their order."""
    small = block.astype(np.uint16) if n_blocks <= 2**16 else block  # a radix sort
    order = np.argsort(small, kind="stable")
    arrays = [pa.array(columns[field.name][order], field.type) for field in schema]
    rows = pa.Table.from_arrays(arrays, schema=schema)
    ends = np.cumsum(np.bincount(block, minlength=n_blocks)).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield rows.slice(start, end - start)


def write_groups(path: Path, groups: Iterable[pa.Table], *, schema: pa.Schema) -> None:
    """Write tables as the row groups of a file, which has its name when it is whole."""
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(beside, schema, compression="lz4", use_dictionary=texts) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(group.num_rows, 1))
    beside.replace(path)


def write_rows(path: Path, rows: pa.Table) -> None:
    """Write a table as a file, which has its name when it is whole."""
    write_groups(path, [rows], schema=rows.schema)


def read_group(paths: Sequence[Path], number: int) -> pa.Table:
    """Read one row group of each file."""
    found = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            found.append(file.read_row_group(number))
    return pa.concat_tables(found)
