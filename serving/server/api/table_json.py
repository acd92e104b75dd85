"""Answers as JSON, among them the values of a table."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import orjson
import pandas as pd
from pydantic import BaseModel
from starlette.responses import Response


def json_response(content: Any) -> Response:
    """Answer `content`: dataclasses, NumPy numbers, and whatever a table's columns hold."""
    body = orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


def plain_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns, for `json_response`."""
    names = [str(name) for name in frame.columns]
    columns = [frame.iloc[:, number].tolist() for number in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """Write what JSON has no word for: nothing as null, times as ISO 8601, the rest as text."""
    if isinstance(value, BaseModel):  # a filter, as it was sent
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is pd.NA or value is pd.NaT:
        return None
    return value.isoformat() if isinstance(value, date) else str(value)
