from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from pipelines.data.entities import check_entities, entities_from_ids, require_columns
from pipelines.data.sources.frame_source import FrameSource
from towers.errors import ConfigError
from towers.schema import Categorical, Features, History, MultiValued, Numeric, Schema

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    user=Features(features=(History(),)),
    item=Features(
        features=(
            Categorical(column="item"),
            Categorical(column="studio"),
            Numeric(column="year"),
            MultiValued(column="genres", weights="shares"),
        )
    ),
)
FILM: dict[str, Any] = {
    "title": "A",
    "studio": "s",
    "year": "1999",
    "genres": "x|y",
    "item": "1",
    "shares": "1|2",
}


def films(*rows: dict[str, Any], typed: bool = False) -> FrameSource:
    frame = pd.DataFrame([FILM | row for row in rows], dtype=object)
    return replace(FrameSource.of(frame, name="items"), typed=typed)


def test_columns_are_parsed_and_the_others_stay() -> None:
    source = films({}, {"item": "2", "studio": "", "year": "", "genres": "", "shares": ""})
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    rows = checked.rows
    assert list(rows) == ["item", "title", "studio", "year", "genres", "shares"]
    assert rows["item"].tolist() == [1, 2]
    assert rows["title"].tolist() == ["A", "A"]
    assert rows["studio"].tolist() == ["s", None]
    assert rows["year"].tolist()[0] == 1999.0
    assert rows["year"].isna().tolist() == [False, True]
    assert rows["genres"].tolist() == [["x", "y"], []]
    assert rows["shares"].tolist() == [[1.0, 2.0], []]
    assert checked.faults.counts() == {}
    assert source.frame["item"].tolist() == ["1", "2"]  # what was read stays as it was


def test_each_fault_has_its_reason() -> None:
    source = films(
        {"item": ""},
        {"item": "1", "year": "old"},
        {"item": "1"},
        {"item": "1"},
        {"item": "2", "shares": "1"},
        {"item": "3"},
    )
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.faults.counts() == {
        "null item": 1,
        "unparsable year": 1,
        "shares not finite numbers, one for each of genres": 1,
        "duplicate item": 1,
    }
    assert checked.rows["item"].tolist() == [1, 3]
    assert checked.faults.first(9)[1] == "items.iloc:1: unparsable year: 'old'"


def test_ids_that_differ_in_the_last_of_64_bits_are_no_duplicates() -> None:
    source = films({"item": None}, {"item": 2**60}, {"item": 2**60 + 1}, typed=True)
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="integer")
    assert checked.rows["item"].tolist() == [2**60, 2**60 + 1]


def test_lists_where_a_token_belongs_are_faults() -> None:
    source = films({"studio": ["s", "t"]}, {"item": "2"}, typed=True)
    checked = check_entities(source, schema=SCHEMA, side="item", id_kind="text")
    assert checked.faults.counts() == {"unparsable studio": 1}


def test_columns_that_features_read_are_required() -> None:
    source = FrameSource.of(pd.DataFrame({"item": [1], "year": [1]}), name="items")
    with pytest.raises(ConfigError, match=r"\['studio', 'genres', 'shares'\].*\['item', 'year'\]"):
        require_columns(source, schema=SCHEMA, side="item")
    with pytest.raises(ConfigError, match=r"item.features: expected a table of items.*data.items"):
        require_columns(None, schema=SCHEMA, side="item")


def test_a_history_needs_no_table() -> None:
    require_columns(None, schema=SCHEMA, side="user")
    with pytest.raises(ConfigError, match=r"expected column\(s\) \['user'\]"):
        require_columns(
            FrameSource.of(pd.DataFrame({"x": [1]}), name="users"), schema=SCHEMA, side="user"
        )


def test_ids_alone_make_a_table() -> None:
    table = entities_from_ids(pd.Series(["b", "a", "b"], index=[5, 0, 5]), id_column="user")
    pd.testing.assert_frame_equal(table, pd.DataFrame({"user": ["b", "a"]}))
