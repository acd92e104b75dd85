"""What the tests of the whole job share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from pipelines.candidates.settings import CandidateSettings, load_settings

FIRST = 2**40
COLUMNS = ["user_id", "item_id", "score", "rank", "channel", "version"]


def settings(**changes: Any) -> CandidateSettings:
    small = {"k": 12, "shard_size": 8, "batch_size": 3, "neighbours": 9}
    return load_settings(None, changes=small | changes)


def read(out: Path, table: str = "candidates") -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(out / table).to_pandas()
    return frame


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every shard."""
    paths = sorted(out.glob("*/*.parquet"))
    return {str(path.relative_to(out)): pq.read_table(path).to_pylist() for path in paths}
