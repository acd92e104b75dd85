from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.data.positives import Positives, read_positives
from pipelines.table_config import DataConfig
from towers.errors import ConfigError, DataError
from towers.features.schema import Side
from towers.typed import parse

KINDS: dict[Side, Any] = {"user": "integer", "item": "text"}


def read(rows: dict[str, Any], **data: Any) -> Positives:
    config = parse(DataConfig, {"interactions": {}} | data, where="test")
    return read_positives(pd.DataFrame(rows), config, id_kinds=KINDS)


def test_low_ratings_are_no_positives_and_pairs_count_once() -> None:
    rows: dict[str, Any] = {
        "user_id": [1, 1, 2, 1],
        "item_id": ["a", "b", "a", "a"],
        "stars": [5, 2, 4, 4],
        "when": ["9", "2", "soon", "7"],
    }
    table = {"rating": "stars", "positive_rating": 4.0, "timestamp": "when"}
    found = read(rows, interactions=table)
    np.testing.assert_array_equal(found.times, [7.0, np.nan])  # the earlier one; none that is read
    assert found.pairs.to_numpy().tolist() == [[1, "a"], [2, "a"]]
    assert (found.n_rows, found.n_rejected, found.n_not_positive) == (4, 0, 1)


def test_rows_at_fault_fail_or_are_counted_as_the_version_says() -> None:
    rows: dict[str, Any] = {"user_id": [1, None], "item_id": ["a", "b"]}
    with pytest.raises(DataError, match="null user_id"):
        read(rows)
    found = read(rows, on_bad_rows="quarantine")
    assert (len(found.pairs), found.n_rejected) == (1, 1)


def test_of_several_tables_it_is_read_as_the_one_with_targets_whose_columns_it_has() -> None:
    tables: dict[str, Any] = {
        "interactions": {"behaviour": "view"},
        "more_interactions": [
            {"behaviour": "purchase", "user": "buyer", "item": "sku"},
            {"event": "what"},
        ],
        "behaviours": {"view": {"role": "other"}, "purchase": {"role": "target"}},
    }
    bought = read({"buyer": [7], "sku": ["x"]}, **tables)
    assert bought.pairs.to_numpy().tolist() == [[7, "x"]]
    rows: dict[str, Any] = {"user_id": [7, 8], "item_id": ["x", "y"], "what": ["view", "purchase"]}
    done = read(rows, **tables)
    assert done.pairs.to_numpy().tolist() == [[8, "y"]]
    assert done.n_not_positive == 1


def test_a_table_without_the_columns_or_without_a_positive_is_refused() -> None:
    with pytest.raises(ConfigError, match="item_id"):
        read({"user_id": [1], "thing": ["a"]})
    rows: dict[str, Any] = {"user_id": [1], "item_id": ["a"], "stars": [1]}
    with pytest.raises(DataError, match="received none among 1 rows"):
        read(rows, interactions={"rating": "stars", "positive_rating": 4.0})
