from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipelines.config import InteractionsTable
from pipelines.data.stream.faults import StreamedFaults
from pipelines.data.stream.files import faults_file, write_rows
from pipelines.data.stream.source import open_streamed

REASONS = [("null x", ("x",)), ("unparsable x", ("x",)), ("null x", ("x", "y"))]


def gather(folder: Path) -> StreamedFaults:
    """Ten rows, of which some are at fault."""
    path = folder / "rows.parquet"
    pd.DataFrame({"x": range(10), "y": list("abcdefghij")}).to_parquet(path)
    table = InteractionsTable(path=str(path), user="x", item="y")
    source = open_streamed(table, name="test", chunk_rows=3)

    def write(step: str, number: int, positions: list[int], reasons: list[int]) -> None:
        found = {"position": pa.array(positions), "reason": pa.array(reasons, pa.int16())}
        write_rows(faults_file(folder, source.name, step, number), pa.table(found))

    write("checked", 2, [6, 8], [0, 1])
    write("settled", 0, [9, 1, 7], [2, 2, 2])
    return StreamedFaults.gather(source, reasons=REASONS, folder=folder)


def test_rows_of_all_steps_are_shown_in_order(tmp_path: Path) -> None:
    faults = gather(tmp_path)
    assert faults.name == "test"
    assert faults.counts() == {"null x": 4, "unparsable x": 1}
    path = tmp_path / "rows.parquet"
    assert faults.first(3) == [
        f"{path}:2: null x: 1, 'b'",
        f"{path}:7: null x: 6",
        f"{path}:8: null x: 7, 'h'",
    ]
    assert len(faults.first(9)) == 5


def test_rows_are_given_a_chunk_at_a_time(tmp_path: Path) -> None:
    frames = list(gather(tmp_path).frames())
    assert [frame["x"].tolist() for frame in frames] == [[1], [6, 7, 8], [9]]
    assert [frame["row"].tolist() for frame in frames] == [[2], [7, 8, 9], [10]]
    assert frames[1]["reason"].tolist() == ["null x", "null x", "unparsable x"]
