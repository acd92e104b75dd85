from __future__ import annotations

import numpy as np
import pandas as pd

from pipelines.data.faults.unread import report_unread
from pipelines.data.sources.frame_source import FrameSource
from pipelines.table_config import FileFormat


def test_values_are_counted_and_the_first_of_each_kind_are_shown() -> None:
    values = ["x", "y", "x", "z", "w" * 100, "v", "NULL", "", None]
    source = FrameSource.of(pd.DataFrame({"a": values}), name="items", table=FileFormat())
    rows = source.read(0, len(values))
    faulty = np.arange(len(values)) < 6
    kept = np.arange(len(values)) != 1
    assert list(report_unread(rows, "a", faulty, why="no x", kept=kept)) == [
        "a: 1 value(s) ('NULL' at items.iloc:6) taken as missing: one of null_values",
        f"a: 5 value(s) ('x' at items.iloc:0, 'z' at items.iloc:3, '{'w' * 39}... at "
        "items.iloc:4...) taken as missing: no x",
    ]
    assert not list(report_unread(rows, "a", faulty, why="no x", kept=np.zeros(9, dtype=bool)))
