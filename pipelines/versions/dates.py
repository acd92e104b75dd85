"""Keep from when on each item of a version was there, which its figures go by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluation.metrics import Floats
from serving.version.bundle import Bundle

COLUMN = "there_from"


def write_dates(path: Path, there: Floats) -> None:
    """Write the time from which each item is there, [n_items], in the order of the items."""
    pq.write_table(pa.table({COLUMN: there}), path)


def read_dates(bundle: Bundle) -> Floats | None:
    """Read what `write_dates` wrote; None of a version whose figures rank every item."""
    if not bundle.dates.exists():
        return None
    return np.asarray(pq.read_table(bundle.dates)[COLUMN], dtype=np.float64)
