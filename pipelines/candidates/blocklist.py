"""The blocklist: items that nobody is shown, read from a table and removed from all indexes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.candidates.features import ids_of
from pipelines.candidates.settings import Channel
from pipelines.data.columns.parsed import are_integers, is_missing
from pipelines.data.columns.tidy import tidy_column
from pipelines.data.sources.open import open_source
from pipelines.data.sources.source import Source
from pipelines.table_config import FileFormat
from serving.retrieval.parts import Parts


def read_block(path: Path) -> Source:
    """Read a table of item ids, in Parquet or CSV.

    Raises:
        DataError: it cannot be read.
    """
    return open_source(FileFormat(path=str(path)), name="block")


def remove_blocked(parts: Parts, block: Source, channels: Sequence[Channel]) -> None:
    """Remove items from what the channels can find; unknown ids are ignored.

    Raises:
        ConfigError: there is no column of ids.
        DataError: an id is of another type than in training.
    """
    items = parts.catalogue("item")
    name = items.id_column
    block.require([name])
    column = block.read(0, block.n_rows, columns=[name]).column(name)
    if items.id_dtype == np.int64 and not block.typed and are_integers(column[~is_missing(column)]):
        column = tidy_column(column, typed=False).values
    rows = items.remove(ids_of(name, column, items.id_dtype).tolist())
    for channel in channels:
        if channel.name in {"u2i", "i2i"}:
            parts.index(channel.name).remove(rows)
