"""The whole job, on a published version: what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.candidates import write_candidates as candidates_module
from pipelines.candidates.write_candidates import CandidateJob, write_candidates
from serving.retrieval.retriever import Retriever
from tests.pipelines.candidates.job_support import COLUMNS, FIRST, read, settings
from towers.errors import ConfigError, DataError, QueryError

pytestmark = pytest.mark.slow


def test_every_user_gets_its_candidates(models: Path, users: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = CandidateJob(models=models, users=users, out=out, settings=settings())
    totals = write_candidates(job)["candidates"]
    frame = read(out)
    retriever = Retriever.open(models)
    assert list(frame) == COLUMNS
    assert frame["user_id"].dtype == np.int64
    assert (frame["version"] == retriever.version).all()
    assert frame["user_id"].unique().tolist() == list(range(FIRST, FIRST + 60))
    assert not frame.duplicated(["user_id", "item_id"]).any()
    for user in range(FIRST, FIRST + 60):
        mine = frame[frame["user_id"] == user]
        assert mine["rank"].tolist() == list(range(1, 13))
        seen = retriever.parts.seen.of("user", user - FIRST)
        assert not set(mine["item_id"]) & set(retriever.catalogue("item").ids(seen))
        best = retriever.retrieve("u2i", id=user, k=8, exclude_seen=True)
        assert mine["item_id"].tolist()[:8] == best["id"].tolist()
        np.testing.assert_allclose(mine["score"][:8], best["score"], rtol=1e-5, atol=1e-7)
        assert mine["channel"].tolist()[:8] == ["u2i"] * 8
    assert (totals["sources"], totals["rejected"], totals["rows"]) == (61, 1, 720)
    assert totals["channels"] == frame["channel"].value_counts().to_dict()
    assert set(totals["channels"]) == {"u2i", "i2i", "u2u2i", "popularity"}


def test_manifest_names_every_shard_and_what_was_asked(
    models: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_candidates(CandidateJob(models=models, users=users, out=out, settings=settings()))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["version"] == Retriever.open(models).version
    assert manifest["settings"]["k"] == 12
    assert [file["name"] for file in manifest["inputs"]["candidates"]] == ["a.parquet", "b.parquet"]
    shards = manifest["tables"]["candidates"]["shards"]
    assert [shard["sources"] for shard in shards] == [8] * 7 + [5]
    assert [shard["rejected"] for shard in shards] == [0, 0, 0, 0, 1, 0, 0, 0]
    for shard in shards:
        assert pq.read_metadata(out / shard["file"]).num_rows == shard["rows"]
        assert (out / shard["file"]).stat().st_size == shard["bytes"]
    rejected = read(out, "rejected").to_dict("records")
    assert rejected == [{"row": 33, "id": "5", "reason": "unknown, and no features given"}]
    assert sorted(path.name for path in out.iterdir()) == [
        *(".lock", ".records", "candidates", "job.json", "manifest.json", "rejected"),
    ]


def test_rows_do_not_depend_on_how_the_input_is_cut(
    models: Path, users: Path, tmp_path: Path
) -> None:
    frames = []
    for name, cut in {"a": settings(), "b": settings(shard_size=100, batch_size=64)}.items():
        out = tmp_path / name
        write_candidates(CandidateJob(models=models, users=users, out=out, settings=cut))
        frames.append(read(out).drop(columns="score"))
    pd.testing.assert_frame_equal(frames[0], frames[1])


def test_newcomers_are_answered_by_their_features(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    histories = [["item 3 é", "item 7 é", "no such item"], None, ["item 1 é"], None]
    columns = {
        "user_id": pa.array([1, 2, FIRST, None]),
        "history": pa.array(histories, pa.list_(pa.string())),
        "city": pa.array(["Rome", None, "Rome", "Rome"]),
        "age": pa.array([30, None, None, 30]),
        "unused": pa.array([None, None, None, None]),
    }
    pq.write_table(pa.table(columns), path)
    only = settings(channels=[{"name": "u2i", "quota": 12}])
    write_candidates(CandidateJob(models=models, users=path, out=out, settings=only))
    frame, retriever = read(out), Retriever.open(models)
    features = {"history": histories[0], "city": "Rome", "age": 30}
    wanted = retriever.retrieve("u2i", features=features, k=12, exclude_seen=True)
    assert frame[frame["user_id"] == 1]["item_id"].tolist() == wanted["id"].tolist()
    known = retriever.retrieve("u2i", id=FIRST, k=13, exclude=["item 1 é"], exclude_seen=True)
    assert frame[frame["user_id"] == FIRST]["item_id"].tolist() == known["id"].tolist()[:12]
    assert sorted(frame["user_id"].unique()) == [1, FIRST]
    reasons = read(out, "rejected")
    assert reasons["reason"].tolist() == ["unknown, and no features given", "no id"]


def test_features_may_come_before_what_is_stored(models: Path, tmp_path: Path) -> None:
    path, retriever = tmp_path / "users.parquet", Retriever.open(models)
    pq.write_table(pa.table({"user_id": [FIRST, FIRST + 1], "city": ["Lima", None]}), path)
    for prefer in (False, True):
        out = tmp_path / str(prefer)
        chosen = settings(
            channels=[{"name": "u2i", "quota": 12}], prefer_features=prefer, exclude_seen=False
        )
        write_candidates(CandidateJob(models=models, users=path, out=out, settings=chosen))
        frame = read(out)
        by_features = retriever.retrieve("u2i", features={"city": "Lima"}, k=12)
        stored = retriever.retrieve("u2i", id=FIRST, k=12)
        wanted = by_features if prefer else stored
        assert by_features["id"].tolist() != stored["id"].tolist()
        assert frame["item_id"].tolist()[:12] == wanted["id"].tolist()
        other = retriever.retrieve("u2i", id=FIRST + 1, k=12)
        assert frame["item_id"].tolist()[12:] == other["id"].tolist()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_blocked_and_filtered_items_are_no_candidates(
    models: Path, users: Path, tmp_path: Path, suffix: str
) -> None:
    blocked = pd.DataFrame({"item_id": [f"item {row} é" for row in range(9)] + ["unknown"]})
    block, out = tmp_path / f"block.{suffix}", tmp_path / "out"
    if suffix == "csv":
        blocked.to_csv(block, index=False)
    else:
        blocked.to_parquet(block)
    where = {"not": {"column": "tags", "equals": "group 1"}}
    chosen = settings(where=where, exclude_seen=False, k=10)
    job = CandidateJob(models=models, users=users, block=block, out=out, settings=chosen)
    assert write_candidates(job)["candidates"]["rows"] == 600
    found = {int(item.split()[1]) for item in read(out)["item_id"]}
    assert found == {row for row in range(9, 40) if row % 4 != 1}


def test_audiences_are_the_users_that_an_item_matches(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "items.parquet", tmp_path / "out"
    pq.write_table(pa.table({"item_id": ["item 7 é", "nothing", "item 2 é"]}), path)
    chosen = settings(audience_k=6)
    job = CandidateJob(models=models, items=path, out=out, settings=chosen)
    assert write_candidates(job)["audiences"]["rejected"] == 1
    frame, retriever = read(out, "audiences"), Retriever.open(models)
    assert list(frame) == ["item_id", "user_id", "score", "rank", "version"]
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    for item in ("item 7 é", "item 2 é"):
        wanted = retriever.retrieve("i2u", id=item, k=6, exclude_seen=True)
        mine = frame[frame["item_id"] == item]
        assert mine["user_id"].tolist() == wanted["id"].tolist()
        np.testing.assert_allclose(mine["score"], wanted["score"], rtol=1e-5, atol=1e-7)


def test_no_users_give_a_table_without_rows(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64())}), path)
    assert (
        write_candidates(CandidateJob(models=models, users=path, out=out))["candidates"]["rows"]
        == 0
    )
    table = pq.read_table(out / "candidates")
    assert (table.num_rows, table.column_names) == (0, COLUMNS)
    assert (out / "manifest.json").exists()


@pytest.mark.parametrize(
    ("columns", "changes", "kind", "message"),
    [
        ({"id": [1]}, {}, ConfigError, "expected a column 'user_id' of ids"),
        ({"user_id": ["a"]}, {}, DataError, "column 'user_id': expected a 64-bit integer"),
        ({"user_id": [1.5]}, {}, DataError, "column 'user_id': expected integers"),
        ({"user_id": [1], "age": [[3.0]]}, {}, DataError, "column 'age': expected a 32-bit number"),
        ({"user_id": [1], "history": ["x"]}, {}, DataError, "'history': expected lists"),
        ({"user_id": [1]}, {"where": {"column": "x"}}, QueryError, "expected one of the keys"),
    ],
)
def test_what_cannot_work_is_refused(
    models: Path, tmp_path: Path, columns: Any, changes: Any, kind: Any, message: str
) -> None:
    path, out = tmp_path / "users.parquet", tmp_path / "out"
    pq.write_table(pa.table(columns), path)
    job = CandidateJob(models=models, users=path, out=out, settings=settings(**changes))
    with pytest.raises(kind, match=message):
        write_candidates(job)
    pq.write_table(pa.table({"user_id": [FIRST]}), path)  # nothing is in the way once it is mended
    assert (
        write_candidates(dataclasses.replace(job, settings=settings()))["candidates"]["rows"] == 12
    )


def test_nothing_to_do_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--users, --items or both"):
        write_candidates(CandidateJob(models=models, out=tmp_path / "out"))


def test_results_come_in_order_and_a_failure_ends_all() -> None:
    def slow(number: int) -> int:
        time.sleep(random.random() / 200)
        if number == 15:
            raise DataError("15")
        return number

    taken = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    found = []
    with (
        pytest.raises(DataError, match="15"),
        candidates_module._ahead(slow, numbers(), workers=2) as results,
    ):
        for number in results:
            found.append(number)
            assert len(taken) <= len(found) + 3
    assert found == list(range(15))
