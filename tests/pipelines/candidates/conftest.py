from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.results import Results
from tests.pipelines.candidates.job_support import FIRST


@pytest.fixture
def models(published: tuple[Path, Results]) -> Path:
    return published[0]


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """All users in the version, in two shards, between them one that is unknown."""
    folder = tmp_path / "users"
    folder.mkdir()
    pq.write_table(
        pa.table({"user_id": [*range(FIRST, FIRST + 33), 5]}),
        folder / "a.parquet",
        row_group_size=7,
    )
    pq.write_table(pa.table({"user_id": [*range(FIRST + 33, FIRST + 60)]}), folder / "b.parquet")
    return folder
