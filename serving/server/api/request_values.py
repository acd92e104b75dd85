"""Ids and the values of records as a request brings them: checked, and described for OpenAPI.

Only the first fault is named. pydantic would name every fault of every element, which takes seconds
where a hostile request has a million.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import FailFast, Field, PlainValidator, WithJsonSchema

from serving.server.errors import TooLargeError
from towers.features.values import INT64

LONGEST_LIST, MOST_NAMES = 10_000, 1000
"""Values in one list, and names in one record."""
MOST = 10_000
"""Parts of one list of a request; how many a server takes may be less."""

T = TypeVar("T")


def _check_id(raw: Any) -> int | str:
    if isinstance(raw, str) or (type(raw) is int and INT64.min <= raw <= INT64.max):
        return raw
    raise ValueError("expected a 64-bit integer or text")


def _check_values(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError("expected values by name")
    if len(raw) > MOST_NAMES:
        raise ValueError(f"expected at most {MOST_NAMES} names")
    for name, value in raw.items():
        listed = value if isinstance(value, list) else [value]
        if len(listed) > LONGEST_LIST:
            raise ValueError(f"{name!r}: expected at most {LONGEST_LIST} values in a list")
        if any(isinstance(one, (list, dict)) for one in listed):
            raise ValueError(f"{name!r}: expected a value, or a list of values")
    return raw


_SCALAR = {"type": ["boolean", "integer", "number", "string", "null"]}

Id = Annotated[
    int | str,
    PlainValidator(_check_id),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": INT64.min, "exclusiveMaximum": INT64.max + 1},
                {"type": "string"},
            ],
            "description": "As in training: an integer, or text.",
        }
    ),
]

Values = Annotated[
    dict[str, Any],
    PlainValidator(_check_values),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MOST_NAMES,
            "additionalProperties": {
                "anyOf": [
                    _SCALAR,
                    {"type": "array", "items": _SCALAR, "maxItems": LONGEST_LIST},
                ]
            },
            "description": "Values by name: one or, of what has many, a list; null is missing.",
        }
    ),
]

Many = Annotated[list[T], FailFast(), Field(max_length=MOST)]


def check_lists(records: Sequence[Mapping[str, Any]], *, most: int) -> None:
    """Refuse lists that would take too much room once they are padded to one length.

    Args:
        records: of one request.
        most: the most values, once all lists are as long as the longest.

    Raises:
        TooLargeError: they would.
    """
    lists = (len(x) for record in records for x in record.values() if isinstance(x, list))
    longest = max(lists, default=0)
    if longest * len(records) > most:
        raise TooLargeError(
            f"lists: expected at most {most} values once all are as long as the longest, "
            f"received {len(records)} records with one of {longest}; send several requests"
        )
