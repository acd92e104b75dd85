"""Filters: which users or items may be found, by the columns of their tables.

As JSON, and as Python's own values:

    {"column": "year", "equals": 1999}
    {"column": "genres", "in": ["Drama", "Comedy"]}
    {"column": "year", "range": {"gte": 1990, "lt": 2000}}
    {"and": [...]}, {"or": [...]}, {"not": ...}

A column of lists matches where any of its elements does. A missing value matches no
condition, and so every `not` of one. A value is read as the values of tables are, so that true
finds what a table of text called True; a range needs a column of numbers or dates.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from serving.search.column_values import (
    first_text,
    is_list,
    is_text,
    read_cell,
    spellings,
    text_spellings,
)
from towers.errors import QueryError
from towers.features.values import number_of

MOST_CONDITIONS = 1000
"""Conditions in one filter at most."""

SHOWN_VALUES = 1000
"""Values of a column of text of which one that is no number is shown."""

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Column = Callable[[str], pa.Array]
"""Answers the values of a column by its name.

Raises:
    QueryError: there is no such column.
"""


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Equals(_Node):
    """The column's value is this one."""

    column: str
    equals: Value


class In(_Node):
    """The column's value is one of these."""

    column: str
    values: tuple[Value, ...] = Field(alias="in", max_length=100_000)


class Bounds(_Node):
    """Limits of a range: greater than, greater or equal, less than, less or equal."""

    gt: Value | None = None
    gte: Value | None = None
    lt: Value | None = None
    lte: Value | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Bounds:
        if all(bound is None for _, bound in self):
            raise ValueError("expected at least one of gt, gte, lt and lte")
        return self


class Range(_Node):
    """The column's value lies within bounds."""

    column: str
    bounds: Bounds = Field(alias="range")


class And(_Node):
    """All of these match."""

    all: tuple[Filter, ...] = Field(alias="and", min_length=1)


class Or(_Node):
    """At least one of these matches."""

    any: tuple[Filter, ...] = Field(alias="or", min_length=1)


class Not(_Node):
    """This does not match."""

    no: Filter = Field(alias="not")


_KINDS: dict[str, str] = {key: key for key in ("equals", "in", "range", "and", "or", "not")} | {
    "values": "in",
    "bounds": "range",
    "all": "and",
    "any": "or",
    "no": "not",
}


def _kind(raw: Any) -> str | None:
    """Tell a filter's kind by the one key that only this kind has."""
    keys = raw if isinstance(raw, dict) else getattr(raw, "model_fields_set", ())
    return next((_KINDS[key] for key in keys if isinstance(key, str) and key in _KINDS), None)


Filter = Annotated[
    Annotated[Equals, Tag("equals")]
    | Annotated[In, Tag("in")]
    | Annotated[Range, Tag("range")]
    | Annotated[And, Tag("and")]
    | Annotated[Or, Tag("or")]
    | Annotated[Not, Tag("not")],
    Discriminator(
        _kind,
        custom_error_type="filter",
        custom_error_message="expected one of the keys equals, in, range, and, or, not",
    ),
]
for _model in (And, Or, Not):
    _model.model_rebuild()
_FILTER: TypeAdapter[Any] = TypeAdapter(Filter)


def parse_filter(raw: Any) -> Filter:
    """Read a filter from plain values; one that is read already stays as it is.

    Raises:
        QueryError: it is none, or has too many conditions.
    """
    try:
        chosen: Filter = _FILTER.validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["where", *(str(part) for part, _ in groupby(first["loc"]))])
        message = first["msg"].removeprefix("Value error, ")
        raise QueryError(f"{where}: {message}, received {reprlib.repr(first['input'])}") from None
    count = sum(1 for _ in _conditions(chosen))
    if count > MOST_CONDITIONS:
        raise QueryError(
            f"where: expected at most {MOST_CONDITIONS} conditions, received {count}; "
            "use `in` for many values of one column"
        )
    return chosen


def matches(chosen: Filter, column: Column, *, size: int) -> NDArray[np.bool_]:
    """Which of `size` rows match, [size].

    Raises:
        QueryError: a column does not exist, or a value is not of its type.
    """
    if isinstance(chosen, Not):
        return ~matches(chosen.no, column, size=size)
    if isinstance(chosen, And | Or):
        each = [matches(one, column, size=size) for one in inner(chosen)]
        combine = np.logical_and if isinstance(chosen, And) else np.logical_or
        found: NDArray[np.bool_] = combine.reduce(each)
        return found
    values = column(chosen.column)
    if not is_list(values.type):
        return _flags(_test(chosen, values))
    found = np.zeros(size, dtype=np.bool_)
    parents = pc.list_parent_indices(values).to_numpy()
    found[parents[_flags(_test(chosen, pc.list_flatten(values)))]] = True
    return found


def inner(chosen: Filter) -> tuple[Filter, ...]:
    """The filters that a filter is made of."""
    if isinstance(chosen, And):
        return chosen.all
    if isinstance(chosen, Or):
        return chosen.any
    return (chosen.no,) if isinstance(chosen, Not) else ()


def _test(chosen: Equals | In | Range, values: pa.Array) -> pa.Array:
    """Compare each value; null where there is none."""
    if isinstance(chosen, Range):
        return _compare(chosen, values)
    wanted = chosen.values if isinstance(chosen, In) else [chosen.equals]
    if isinstance(chosen, In) and (same := _all_at_once(chosen, values.type)) is not None:
        return pc.is_in(values, value_set=same)
    equal = [x for one in wanted for x in equal_values(one, values.type, where=chosen.column)]
    if len(equal) == 1:
        return pc.equal(values, pa.scalar(equal[0], values.type))
    return pc.is_in(values, value_set=pa.array(equal, values.type))


def _compare(chosen: Range, values: pa.Array) -> pa.Array:
    """Compare each value with the bounds.

    Raises:
        QueryError: the column's values have no order, or a bound is none of them.
    """
    kind = values.type
    if is_text(kind) or pa.types.is_boolean(kind):
        example = first_text(values.slice(0, SHOWN_VALUES))
        raise QueryError(
            f"where: column {chosen.column!r}: expected numbers or dates for a range, received a "
            f"column that was read as {'text' if is_text(kind) else 'booleans'}"
            + ("" if example is None else f", with values such as {example!r}")
            + "; ask with `equals` or `in`, or give the column numbers or dates only (nothing "
            "where there is none) and publish again"
        )
    compare = {
        "gt": pc.greater,
        "gte": pc.greater_equal,
        "lt": pc.less,
        "lte": pc.less_equal,
    }
    tests = [
        compare[name](values, pa.scalar(read_bound(name, bound, kind, where=chosen.column), kind))
        for name, bound in chosen.bounds
        if bound is not None
    ]
    result = tests[0]
    for test in tests[1:]:
        result = pc.and_(result, test)
    return result


def typed_value(value: Value, kind: pa.DataType, *, where: str) -> Any:
    """Read a value as one of a column.

    Raises:
        QueryError: it is of another type.
    """
    try:
        return read_cell(value, kind)
    except ValueError as error:
        raise QueryError(f"where: column {where!r}: {error}") from None


def read_bound(name: str, bound: Value, kind: pa.DataType, *, where: str) -> Any:
    """Read a bound, called gt, gte, lt or lte, on a column; on one of integers, as an integer.

    Raises:
        QueryError: it is of another type.
    """
    number = None if isinstance(bound, bool) else number_of(bound)
    if pa.types.is_integer(kind) and number is not None and not number.is_integer():
        bound = math.floor(number) if name in {"gt", "lte"} else math.ceil(number)
    return typed_value(bound, kind, where=where)


def equal_values(value: Value, kind: pa.DataType, *, where: str) -> list[Any]:
    """The values of a column that are equal to a value; see `spellings`.

    Raises:
        QueryError: it is of another type.
    """
    try:
        return spellings(value, kind)
    except ValueError as error:
        raise QueryError(f"where: column {where!r}: {error}") from None


def _all_at_once(chosen: In, kind: pa.DataType) -> pa.Array | None:
    """What an `in` of integers or texts, which may be many, asks of a column of such; or None."""
    texts = [value for value in chosen.values if isinstance(value, str)]
    try:
        if pa.types.is_integer(kind) and {type(value) for value in chosen.values} == {int}:
            return pa.array(chosen.values, kind)
        if is_text(kind) and len(texts) == len(chosen.values):
            return text_spellings(texts, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        pass  # the first of those that do not fit is found one by one
    return None


def _flags(found: pa.Array) -> NDArray[np.bool_]:
    """Null counts as no match."""
    flags: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return flags


def _conditions(chosen: Filter) -> Iterator[Filter]:
    """Every node of a filter."""
    yield chosen
    for one in inner(chosen):
        yield from _conditions(one)
