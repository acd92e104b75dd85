"""Raw feature values as the dense arrays that the encoder and the SavedModels take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towers.errors import QueryError
from towers.features.kinds import Cross, History, MultiValued, Numeric, Trend, Vector
from towers.features.lists import NUMBERS, Separator, cut_lists, read_vectors
from towers.features.number_form import NumberForm
from towers.features.reading import Column, Kind, Mask, Read, read_ids, read_numbers, read_tokens
from towers.features.schema import Schema, Side, space_of
from towers.features.values import missing_marker
from towers.features.vocabulary import Coordinates, Tokens, Vocabulary

Packed = dict[str, NDArray[Any]]

EXPECTED: Mapping[Any, str] = {
    np.int64: "a 64-bit integer",
    object: "one token as text",
    np.float32: "a 32-bit number",
}
"""By an input's type, what a value of it is."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of a tower, and how raw values are read for it."""

    dtype: Any
    """np.int64, object for str, or np.float32."""
    rank: int = 1
    """1 for a value, [batch]; 2 for a list, [batch, length]."""
    separator: Separator | None = None
    """What stands between the values of a list that is given as text."""
    length: int | None = None
    """How many values every list has; None: lists are padded to the longest."""
    is_id: bool = False
    """Whether its values are ids, which are read as they are."""
    form: NumberForm | None = None
    """How numbers are written, where not as plain numbers."""

    def read(self, values: Column) -> Read:
        """Read single values, or those of a list."""
        if self.dtype is np.float32:
            return read_numbers(values, form=self.form)
        kind: Kind = "integer" if self.dtype is np.int64 else "text"
        return read_ids(values, kind) if self.is_id else read_tokens(values, kind)


def input_dtypes(schema: Schema, vocabulary: Vocabulary, *, side: Side) -> dict[str, Input]:
    """List the inputs of one side by name."""
    types: dict[str, tuple[Any, int]] = {}
    lengths: dict[str, int] = {}
    for feature in schema.tower_features(side):
        if isinstance(feature, Cross):
            continue  # reads the inputs of others
        if isinstance(feature, (Numeric, Trend)):
            types[feature.name] = (np.float32, 1)
            continue
        space = vocabulary.spaces[space_of(feature, side=side, schema=schema)]
        if isinstance(space, Coordinates):
            types[feature.name] = (np.float32, 2)
            lengths[feature.name] = space.size
            continue
        integer = isinstance(space, Tokens) and space.is_integer
        rank = 2 if isinstance(feature, (MultiValued, History)) else 1
        types[feature.name] = (np.int64 if integer else object, rank)
        if isinstance(feature, MultiValued) and feature.weights is not None:
            types[feature.weights_name] = (np.float32, 2)
    return describe_inputs(types, schema=schema, side=side, lengths=lengths)


def describe_inputs(
    types: Mapping[str, tuple[Any, int]],
    *,
    schema: Schema,
    side: Side,
    lengths: Mapping[str, int | None],
) -> dict[str, Input]:
    """Say how the inputs of a tower are read, whose NumPy types and ranks are known by name.

    So are the lengths of those whose lists have one.
    """
    ids = {schema.id_input(side)}
    forms: dict[str, NumberForm | None] = {}
    separators: dict[str, Separator] = {}
    for feature in schema.tower_features(side):
        if isinstance(feature, History):
            ids.add(feature.name)
        elif isinstance(feature, MultiValued):
            separators |= dict.fromkeys((feature.name, feature.weights_name), feature.separator)
        elif isinstance(feature, Vector):
            separators[feature.name] = NUMBERS
        elif isinstance(feature, Numeric):
            forms[feature.name] = feature.form
    return {
        name: Input(
            dtype=dtype,
            rank=rank,
            separator=separators.get(name),
            is_id=name in ids,
            length=lengths.get(name),
            form=forms.get(name),
        )
        for name, (dtype, rank) in types.items()
    }


def pack(columns: Mapping[str, Column], *, inputs: Mapping[str, Input], size: int) -> Packed:
    """Turn `size` raw values a column into dense arrays, [size] or padded [size, longest].

    Vectors are [size, d].

    A column that is absent, or a value that is missing, becomes the missing marker: `""`, the
    smallest int64, or NaN.

    Raises:
        QueryError: a column is unknown, or a value cannot be read as its feature's.
    """
    unknown = sorted(set(columns) - set(inputs))
    if unknown:
        raise QueryError(f"unknown features {unknown}; expected some of {sorted(inputs)}")
    for name, values in columns.items():
        if len(values) != size:
            raise QueryError(f"feature {name!r}: expected {size} values, received {len(values)}")
    packed, faulty = read_inputs(columns, inputs=inputs, size=size)
    for name, mask in faulty.items():
        if mask.any():
            raise _unreadable(name, inputs[name], columns[name], row=int(np.argmax(mask)))
    return packed


def read_inputs(
    columns: Mapping[str, Column], *, inputs: Mapping[str, Input], size: int
) -> tuple[Packed, dict[str, Mask]]:
    """Do what `pack` does, and say which values of each column [size] cannot be read."""
    packed: Packed = {}
    faulty: dict[str, Mask] = {}
    for name, input in inputs.items():
        if name not in columns:
            shape = (size,) if input.rank == 1 else (size, input.length or 0)
            packed[name] = np.full(shape, missing_marker(input.dtype), dtype=input.dtype)
        elif input.rank == 1:
            read = input.read(columns[name])
            packed[name], faulty[name] = read.values, read.faulty
        elif input.length is not None:
            vectors = read_vectors(columns[name], size=input.length)
            packed[name], faulty[name] = vectors.values, vectors.faulty
        else:
            lists = cut_lists(columns[name], input.separator)
            packed[name], faulty[name] = lists.padded(input.read(lists.values))
        packed[name] = packed[name].astype(input.dtype, copy=False)
    return packed, faulty


def _unreadable(name: str, input: Input, column: Column, *, row: int) -> QueryError:
    """The error of the value at `row`; of a list, that of the first of its values."""
    cell = [_at(column, row)]
    expected, value = EXPECTED[input.dtype], cell[0]
    if input.rank > 1:
        lists = cut_lists(cell, input.separator)
        read = input.read(lists.values)
        if lists.faulty.any():
            expected = "a list"
        elif input.length is not None and not read.faulty.any():
            expected = f"a list of {input.length} numbers"
            value = f"one of {lists.lengths[0]}"
            return QueryError(f"feature {name!r}: expected {expected}, received {value}")
        elif read.faulty.any():
            value = _at(lists.values, int(np.argmax(read.faulty)))
    return QueryError(f"feature {name!r}: expected {expected}, received {value!r}")


def _at(column: Column, row: int) -> Any:
    """One value of a column, as Python's own where there is such."""
    (value,) = column[row : row + 1]
    return value.as_py() if hasattr(value, "as_py") else value
