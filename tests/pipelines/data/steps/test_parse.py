from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.behaviours import Behaviour, Behaviours, resolve
from pipelines.data.columns.times import TimeReading
from pipelines.data.sources.frame_source import FrameSource
from pipelines.data.steps.parse import ParsedInteractions, parse_interactions
from pipelines.table_config import InteractionsTable
from towers.features.schema import Side

ALL = InteractionsTable(
    user="u", item="i", timestamp="t", rating="r", positive_rating=3.0, weight="w"
)
ROW: dict[str, Any] = {"u": "a", "i": "x", "t": 1, "r": 5, "w": 1}


def parse(
    *rows: dict[str, Any],
    table: InteractionsTable = ALL,
    known: dict[Side, list[str]] | None = None,
    behaviours: Behaviours | None = None,
) -> ParsedInteractions:
    given = behaviours or {}
    has_event, has_rating = table.event is not None, table.rating is not None
    frame = pd.DataFrame([ROW | row for row in rows])
    return parse_interactions(
        FrameSource.of(frame, name="interactions").read(0, len(frame)),
        table,
        behaviours=resolve(given, has_event=has_event, has_rating=has_rating),
        id_kinds={"user": "text", "item": "text"},
        known_ids={side: pd.Index(ids) for side, ids in (known or {}).items()},
        times=TimeReading(are_dates=False),
    )


def test_good_rows_are_parsed() -> None:
    parsed = parse({"r": "2.9", "w": "0.5"}, {"i": "y", "t": "7", "r": "3"})
    rows = parsed.rows
    assert rows["user_id"].tolist() == ["a", "a"]
    assert rows["timestamp"].tolist() == [1.0, 7.0]
    assert rows["weight"].tolist() == [0.5, 1.0]
    assert rows["weight"].dtype == np.float32
    assert rows["is_target"].tolist() == [False, True]
    assert rows["behaviour"].tolist() == [1, 0]
    assert parsed.rejects.good.all()


def test_only_the_configured_columns_are_read() -> None:
    parsed = parse({"t": "x", "r": "x", "w": "x"}, table=InteractionsTable(user="u", item="i"))
    assert list(parsed.rows) == ["user_id", "item_id", "weight", "behaviour", "is_target"]
    assert parsed.rows["weight"].tolist() == [1.0]
    assert parsed.rows["is_target"].tolist() == [True]


def test_events_have_the_code_and_the_weight_of_their_behaviour() -> None:
    behaviours = {
        "view": Behaviour(),
        "buy": Behaviour(role="target", weight=3.0),
        "7": Behaviour(role="negative", weight=0.5),
    }
    table = InteractionsTable(user="u", item="i", event="e", weight="w")
    given: list[dict[str, Any]] = [
        {"e": "buy", "w": "2"},
        {"e": 7},
        {"e": "view"},
        {"e": "scroll"},
        {"e": "scroll"},
    ]
    parsed = parse(*given, {"e": None}, table=table, behaviours=behaviours)
    assert parsed.rows["behaviour"].tolist()[:5] == [1, 2, 0, -1, -1]
    assert parsed.rows["weight"].tolist()[:3] == [6.0, 0.5, 1.0]
    assert parsed.rows["weight"].dtype == np.float32
    assert parsed.rows["is_target"].tolist()[:5] == [True, False, False, False, False]
    assert parsed.others.to_dict() == {"scroll": 2}
    assert parsed.rejects.positions.tolist() == [5]
    assert "null e" in [reason for reason, _ in parsed.rejects.reasons]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"u": ""}, "null u"),
        ({"i": None}, "null i"),
        ({"t": None}, "null t"),
        ({"t": "soon"}, "unparsable t (see timestamp_format)"),
        ({"r": ""}, "null r"),
        ({"r": "good"}, "unparsable r"),
        ({"w": ""}, "null w"),
        ({"w": "inf"}, "unparsable w"),
        ({"w": "0"}, "w not a positive number"),
        ({"w": "-1"}, "w not a positive number"),
        ({"w": "1e300"}, "w not a positive number"),
        ({"w": "1e-300"}, "w not a positive number"),
        ({"u": "b"}, "u not in the users table"),
        ({"i": "y"}, "i not in the items table"),
    ],
)
def test_each_fault_has_its_reason(row: dict[str, Any], reason: str) -> None:
    parsed = parse({}, row, {"t": 2}, known={"user": ["a"], "item": ["x"]})
    codes = parsed.rejects.codes[parsed.rejects.positions]
    assert [parsed.rejects.reasons[code][0] for code in codes] == [reason]
    assert parsed.rows["timestamp"][parsed.rejects.good].tolist() == [1.0, 2.0]
