from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.sources import files, source, text_source
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.sources.open import open_source
from pipelines.data.sources.parquet_files import SourceFiles
from pipelines.data.sources.source import Source
from pipelines.table_config import FileFormat
from towers.errors import ConfigError

Kind = Literal["csv", "staged csv", "parquet", "frame"]
KINDS: list[Kind] = ["csv", "staged csv", "parquet", "frame"]


def opened(folder: Path, kind: Kind, sizes: list[int], **table: Any) -> Source:
    """A table with the columns n (0, 1, ...) and t (a text), in shards of these sizes."""
    shards, start = [], 0
    for size in sizes:
        n = range(start, start + size)
        shards.append(pd.DataFrame({"n": list(n), "t": [f"t{x}" for x in n]}))
        start += size
    described = FileFormat(path=str(folder), **table)
    if kind == "frame":
        return FrameSource.of(pd.concat(shards), name="items", table=described)
    for number, shard in enumerate(shards):
        if kind == "parquet":
            typed = shard.astype({"n": "int64", "t": object})
            schema = pa.schema({"n": pa.int64(), "t": pa.string()})
            rows = pa.Table.from_pandas(typed, schema, preserve_index=False)
            pq.write_table(rows, folder / f"{number}.parquet", row_group_size=2)
        else:
            shard.to_csv(folder / f"{number}.csv", index=False)
    stage = folder / "_staged" if kind == "staged csv" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "LARGE_BYTES", -1)
        return open_source(described, name="items", stage=stage)


@given(
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    chosen=st.sets(st.integers(0, 27)),
    size=st.integers(1, 8),
)
def test_every_kind_gives_the_same_rows_with_their_places(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Kind,
    sizes: list[int],
    chosen: set[int],
    size: int,
) -> None:
    folder = tmp_path_factory.mktemp("items")
    table = opened(folder, kind, sizes)
    assert (table.n_rows, table.columns) == (sum(sizes), ("n", "t"))
    places = [
        (f"{folder}/{shard}.{kind[-3:] if kind != 'parquet' else kind}", row)
        for shard, n in enumerate(sizes)
        for row in range(1 + (kind != "parquet"), 1 + (kind != "parquet") + n)
    ]
    if kind == "frame":
        places = [("items.iloc", row) for row in range(table.n_rows)]
    chunks = list(table.chunks(size))
    numbers = [int(n) for chunk in chunks for n in chunk.frame["n"]]
    assert numbers == list(range(table.n_rows))
    found = [place for chunk in chunks for place in chunk.locate(np.arange(len(chunk.frame)))]
    assert found == places
    positions = np.array(sorted(x for x in chosen if x < table.n_rows), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ROWS_AT_A_TIME", 5)
        taken = list(table.rows_at(positions, columns=["t"]))
    assert [t for rows in taken for t in rows.frame["t"]] == [f"t{x}" for x in positions]
    found = [place for rows in taken for place in rows.locate(np.arange(len(rows.frame)))]
    assert found == [places[x] for x in positions]


def test_large_csv_stays_on_disk(tmp_path: Path) -> None:
    table = opened(tmp_path, "staged csv", [3, 2])
    assert isinstance(table, text_source.TextSource)
    assert isinstance(table.rows, SourceFiles)
    assert sorted(path.name for path in (tmp_path / "_staged" / "items").iterdir()) == [
        "000000.parquet",
        "000001.parquet",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_mean_nothing_are_missing_where_they_are_parsed(
    tmp_path: Path, kind: Kind
) -> None:
    table = opened(tmp_path, kind, [3], null_values=("t1", "t9"))
    rows = table.read(0, 3)
    assert rows.column("t").tolist() == ["t0", None, "t2"]
    assert rows.frame["t"].tolist() == ["t0", "t1", "t2"]
    assert [str(n) for n in rows.column("n")] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_columns_are_named_with_those_present(tmp_path: Path, kind: Kind) -> None:
    table = opened(tmp_path, kind, [1, 1])
    table.require(["n", "t", "n"])
    with pytest.raises(ConfigError, match=r"items \(.*expected column\(s\) \['a'\].*\['n', 't'\]"):
        table.require(["n", "a"])


def test_several_files_are_listed_with_their_rows(tmp_path: Path) -> None:
    assert opened(tmp_path, "parquet", [2, 0, 3]).notes == (
        "rows of 3 files: 0.parquet 2, 1.parquet 0, 2.parquet 3",
    )
    assert opened(tmp_path, "frame", [2, 3]).notes == ()
