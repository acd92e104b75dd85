from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.behaviours import resolve
from pipelines.data.sources.open import open_source
from pipelines.data.steps.check import CheckChunk, Keys, write_ids
from pipelines.data.steps.chunks import Chunks
from pipelines.data.steps.files import checked_file, read_faults
from pipelines.data.steps.hashing import blocks_of, draws, hash_ids
from pipelines.table_config import InteractionsTable

USERS = pd.Series([30, 10, 20])
ROWS = pd.DataFrame(
    {
        "user_id": [10, 20, 30, 10, 99, 30, 10],
        "item_id": ["x", "y", "x", None, "x", "z", "z"],
        "stars": [5.0, 1.0, 5.0, 5.0, 5.0, 5.0, 2.0],
    }
)


def check(folder: Path, *, seed: int | None) -> CheckChunk:
    ROWS.to_parquet(folder / "rows.parquet")
    write_ids(folder / "users.parquet", USERS)
    table = InteractionsTable(
        path=str(folder / "rows.parquet"), rating="stars", positive_rating=3.0
    )
    return CheckChunk(
        chunks=Chunks(
            source=open_source(table, name="interactions"),
            table=table,
            chunk_rows=4,
            behaviours=resolve({}, has_event=False, has_rating=True),
        ),
        keys=Keys(
            id_kinds={"user": "integer", "item": "text"},
            known_ids={"user": folder / "users.parquet"},
        ),
        times=None,
        n_blocks=2,
        seed=seed,
        folder=folder,
    )


def test_good_rows_go_to_the_block_of_their_user(tmp_path: Path) -> None:
    step = check(tmp_path, seed=3)
    assert [step(number)["rows"] for number in range(2)] == [4, 3]
    of_user = blocks_of(hash_ids(USERS), n_blocks=2)
    files = [checked_file(tmp_path, "interactions", number) for number in range(2)]
    for path in files:
        for group in range(pq.read_metadata(path).num_row_groups):
            block = pq.ParquetFile(path).read_row_group(group).to_pydict()
            assert len(set(block["block"])) == 1
            assert [of_user[row] for row in block["user_row"]] == block["block"]
    found = pa.concat_tables(map(pq.read_table, files))
    rows = found.sort_by("position").to_pydict()
    assert rows["position"] == [0, 1, 2, 5, 6]
    assert rows["user_row"] == [1, 2, 0, 0, 1]
    assert rows["item_id"] == ["x", "y", "x", "z", "z"]
    assert rows["is_target"] == [True, False, True, True, False]
    good = ROWS.iloc[rows["position"]]
    expected = draws(hash_ids(good["user_id"]), hash_ids(good["item_id"]), seed=3)
    assert rows["draw"] == expected.tolist()


def test_faults_are_kept_with_their_positions_and_reasons(tmp_path: Path) -> None:
    step = check(tmp_path, seed=None)
    reasons = [reason for reason, _ in step(1)["reasons"]]
    checked = pq.read_table(checked_file(tmp_path, "interactions", 1))
    assert checked["draw"].null_count == checked["timestamp"].null_count == len(checked)
    positions, codes = read_faults(tmp_path, "interactions")
    assert positions.tolist() == [4]
    assert [reasons[code] for code in codes] == ["user_id not in the users table"]
