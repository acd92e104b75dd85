from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from towers.features.lists import cut_lists
from towers.features.reading import read_ids, read_tokens
from towers.features.values import MISSING_INTEGER


def test_lists_are_cut_alike() -> None:
    given_: list[Any] = [["a", "b"], [], None, ["1.0"]]
    for column in (
        given_,
        pd.Series(given_, dtype=object),
        pa.array(given_),
        pa.array(given_, pa.large_list(pa.string())),
        pd.Series(["a|b", "", None, "1.0"]),
        pa.array(["a|b", "", None, "1.0"]),
        [np.array(["a", "b"]), (), None, 1],
    ):
        lists = cut_lists(column, "|")
        assert lists.lengths.tolist() == [2, 0, 0, 1]
        assert not lists.faulty.any()
        assert read_tokens(lists.values, "text").values.tolist() == ["a", "b", "1"]
        padded, faulty = lists.padded(read_tokens(lists.values, "text"))
        assert padded.tolist() == [["a", "b"], ["", ""], ["", ""], ["1", ""]]
        assert not faulty.any()


def test_without_a_separator_only_lists_are_lists() -> None:
    lists = cut_lists(["a|b", [1], 5, None, {"a": 1}], None)
    assert lists.faulty.tolist() == [True, False, True, False, True]
    padded, faulty = lists.padded(read_ids(lists.values, "integer"))
    assert padded.tolist() == [[MISSING_INTEGER], [1]] + [[MISSING_INTEGER]] * 3
    assert faulty.tolist() == lists.faulty.tolist()
