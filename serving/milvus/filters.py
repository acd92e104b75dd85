"""Filters as Milvus's boolean expressions, where these say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.milvus.fields import ColumnField
from serving.search.filters import (
    And,
    Equals,
    Filter,
    In,
    Not,
    Or,
    Range,
    equal_values,
    inner,
    read_bound,
)
from towers.features.values import INT64

MOST_VALUES = 1000
"""Values of an `in` that are put into an expression at most."""

SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
"""The bounds of a range."""

LONGEST = 50_000
"""Characters of an expression at most."""


def expression(where: Filter, fields: Mapping[str, ColumnField]) -> str | None:
    """Write a checked filter as an expression; None where there is none that says the same.

    Args:
        where: the filter, whose values fit the columns.
        fields: by their columns.
    """
    text = _expression(where, fields)
    return None if text is None or len(text) > LONGEST else text


def any_of(field: ColumnField, ids: Sequence[Any]) -> str | None:
    """Write which ids are meant; None where none of them can be written."""
    values = [text for text in map(literal, ids) if text is not None]
    return f"{field.name} in [{', '.join(values)}]" if values else None


def literal(value: Any) -> str | None:
    """Write a value as Milvus reads it; None where it cannot be sure to."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if INT64.min < value <= INT64.max else None
    if isinstance(value, float):
        return repr(value) if value - value == 0 else None
    if isinstance(value, str) and value.isprintable():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return None


def _expression(where: Filter, fields: Mapping[str, ColumnField]) -> str | None:
    if isinstance(where, And | Or | Not):
        parts = [_expression(one, fields) for one in inner(where)]
        texts = [f"({part})" for part in parts if part is not None]
        if len(texts) < len(parts):
            return None
        if isinstance(where, Not):
            return f"not {texts[0]}"
        return (" and " if isinstance(where, And) else " or ").join(texts)
    field = fields.get(where.column)
    condition = None if field is None else _condition(where, field)
    if condition is None or field is None or field.known is None:
        return condition
    return f"{field.known} == true and {condition}"


def _condition(where: Equals | In | Range, field: ColumnField) -> str | None:
    """Write a condition on values that are known."""
    if isinstance(where, Range):
        return None if field.kind in {"bool", "text"} else _between(where, field)
    if isinstance(where, In):
        return None if field.kind == "bool" else _among(where.values, field)
    values = equal_values(where.equals, field.type, where=field.column)
    if len(values) > 1:
        return _among([where.equals], field)
    value = literal(values[0])
    text = f"array_contains({field.name}, {value})" if field.is_list else f"{field.name} == {value}"
    return None if value is None else text


def _among(given: Sequence[Any], field: ColumnField) -> str | None:
    equal = [x for one in given for x in equal_values(one, field.type, where=field.column)]
    values = [text for value in equal if (text := literal(value)) is not None]
    if len(values) < len(equal) or not 0 < len(values) <= MOST_VALUES:
        return None
    listed = f"[{', '.join(values)}]"
    if field.is_list:
        return f"array_contains_any({field.name}, {listed})"
    return f"{field.name} in {listed}"


def _between(where: Range, field: ColumnField) -> str | None:
    bounds = {
        SIGNS[name]: literal(read_bound(name, bound, field.type, where=field.column))
        for name, bound in where.bounds
        if bound is not None
    }
    if field.is_list or None in bounds.values():
        return None
    return (
        "(" + " and ".join(f"{field.name} {sign} {bound}" for sign, bound in bounds.items()) + ")"
    )
