"""Recent: how often each item was chosen of late, as of the end of training or of a refresh."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from towers.errors import BundleError

COLUMN = "count"
KEY = b"windows"
"""The key of the windows in the metadata of the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recent:
    """The choices within a window of time, in the unit of the interactions' times."""

    counts: NDArray[np.int64]
    """How many users chose each item within `window`, [n_items]."""
    window: float
    """How long it is: the one whose most popular items were the best for those held out."""
    until: float
    """Where it ends."""
    trend_window: float | None = None
    """How long the window of the items' trend is, if they have one."""

    def write(self, path: Path) -> None:
        """Write Parquet: a column of counts, with the windows as its metadata."""
        windows = {name: getattr(self, name) for name in ("window", "until", "trend_window")}
        table = pa.table({COLUMN: self.counts})
        pq.write_table(table.replace_schema_metadata({KEY: json.dumps(windows)}), path)

    @classmethod
    def read(cls, path: Path) -> Recent:
        """Read what `write` wrote.

        Raises:
            BundleError: there is no such file, or it is damaged.
        """
        try:
            table = pq.read_table(path)
            windows = json.loads(table.schema.metadata[KEY])
            return cls(counts=table[COLUMN].to_numpy().astype(np.int64), **windows)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise BundleError(
                f"{path}: expected how often items were chosen of late, received {error}; versions "
                "have it whose interactions were split by time"
            ) from None
