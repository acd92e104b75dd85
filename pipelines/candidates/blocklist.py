"""Items that are no candidates for anyone: read from a table, and removed from what is searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.candidates.features import tokens
from pipelines.candidates.settings import Channel
from pipelines.config import FileFormat
from pipelines.data.tables import SourceTable, read_table
from serving.retrieval.parts import Parts
from towers.errors import DataError


def read_block(path: Path) -> SourceTable:
    """Read a table of item ids, in Parquet or CSV.

    Raises:
        DataError: it cannot be read.
    """
    return read_table(FileFormat(path=str(path)), name="block")


def remove_blocked(parts: Parts, block: SourceTable, channels: Sequence[Channel]) -> None:
    """Remove items from what the channels can find; ids that the version does not know do no harm.

    Raises:
        ConfigError: there is no column of ids.
        DataError: an id is of another type than in training.
    """
    items = parts.catalogue("item")
    name = items.id_column
    block.require([name])
    column = pa.Array.from_pandas(block.frame[name])
    if items.id_dtype == np.int64 and pa.types.is_string(column.type):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{block.where}: column {name!r}: expected integers, as in training: {error}"
            ) from None
    dtype = np.int64 if items.id_dtype == np.int64 else object
    rows = items.remove(tokens(name, column, dtype).tolist())
    for channel in channels:
        if channel.name in {"u2i", "i2i"}:
            parts.index(channel.name).remove(rows)
