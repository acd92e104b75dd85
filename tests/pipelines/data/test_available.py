"""The time from which an item could be chosen, by a column of the items' table."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config import RunConfig
from pipelines.data.dataset import assemble_dataset
from pipelines.data.engines import Plan
from pipelines.data.prepare import Prepared, prepare
from towers.errors import ConfigError
from towers.typed import parse

EVERYTHING = {"split": {"test_fraction": 0.0, "validation_fraction": 0.0}}
DATED = pd.DataFrame(
    {
        "item_id": [10, 20, 30, 40],
        "out": ["2000-01-02", "1 January 1995", "", "soon"],
    }
)


@pytest.mark.parametrize("plan", [Plan(), Plan(engine="disk", rows=2)])
def test_items_have_the_time_from_which_they_could_be_chosen(tmp_path: Path, plan: Plan) -> None:
    day = 86_400
    rows = [
        (user, item, 946_684_800 + n * day)
        for n, (user, item) in enumerate([(1, 20), (2, 10), (1, 10), (2, 20), (1, 30), (2, 40)])
    ]
    frames = {
        "interactions": pd.DataFrame(rows, columns=["user_id", "item_id", "ts"]),
        "items": DATED,
    }
    tables: dict[str, Any] = {
        "interactions": {"timestamp": "ts", "timestamp_format": "s"},
        "items": {"id": "item_id", "available_from": "out"},
    }
    config = parse(RunConfig, {"data": tables} | EVERYTHING, where="test")
    prepared = prepare(config, tmp_path / "prepared", frames=frames, plan=plan)
    assert prepared.available is not None
    np.testing.assert_array_equal(
        prepared.available, [946_684_800 + day, 788_918_400, np.nan, np.nan]
    )
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=prepared.interactions("train"),
        available=prepared.available,
    )
    first = np.array([1.0, (788_918_400 - 946_684_800) / day, 4.0, 5.0])
    np.testing.assert_array_equal(dataset.first_times(), 946_684_800 + day * first)
    assert "  out: 1 value(s) ('soon' at items.iloc:3) taken as missing: no time" in "\n".join(
        prepared.lines
    )


def test_times_of_items_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    folders = (tmp_path / f"prepared-{number}" for number in itertools.count())

    def make(**frames: pd.DataFrame) -> Prepared:
        return prepare(config, next(folders), frames=frames)

    rows = pd.DataFrame({"user_id": [1, 2, 1], "item_id": [10, 20, 20], "ts": [5, 4, 3]})
    items: dict[str, Any] = {"id": "item_id", "available_from": "out"}
    data = {"interactions": {"timestamp": "ts"}, "items": items}
    config = parse(RunConfig, {"data": data} | EVERYTHING, where="test")
    with pytest.raises(ConfigError, match=r"received dates.*set data.interactions.timestamp_form"):
        make(interactions=rows, items=DATED)
    numbers = DATED.assign(out=[5.0, 3.0, np.nan, 2.0])
    prepared = make(interactions=rows, items=numbers)  # in the same unit, whichever it is
    np.testing.assert_array_equal(prepared.available, [5.0, 3.0, np.nan, 2.0])
    dates = rows.assign(ts=["2000-01-01", "2000-01-02", "2000-01-03"])
    with pytest.raises(ConfigError, match=r"received numbers whose unit is.*set available_format"):
        make(interactions=dates, items=numbers)
    with pytest.raises(ConfigError, match="lacks"):
        make(interactions=rows, items=DATED[["item_id"]])
