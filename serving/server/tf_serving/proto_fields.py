"""Counts what a proto holds before it is parsed.

A parser lets no other thread run before it is done. What it takes depends on how many values and
messages there are, far more than on how many bytes: so protos with more of them than any request
needs are refused before they are parsed.

Source: Protocol Buffers, Encoding, https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from serving.server.errors import TooLargeError

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}
CONTINUES, BITS = 0x80, 0x7F
LONGEST_VARINT = 10

OF_OTHER_SIZES = frozenset(
    {
        FieldDescriptor.CPPTYPE_STRING,
        FieldDescriptor.CPPTYPE_MESSAGE,
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_DOUBLE,
    }
)
"""The types of fields that hold no packed varints."""

MOST_MESSAGES = 10_000
"""Messages within a request: its tensors, and the sizes of their shapes."""


def check_fields(kind: type[Message], raw: bytes, *, most: int) -> None:
    """Refuse a proto of a kind with too many values or messages; one that is damaged may pass.

    Args:
        kind: what the bytes are to be parsed as.
        raw: the bytes.
        most: values, at most; each field that is no packed list is one.

    Raises:
        TooLargeError: there are more than `most` values, or `MOST_MESSAGES` messages.
    """
    todo: list[tuple[int, int, Any]] = [(0, len(raw), kind.DESCRIPTOR)]
    n_messages = n_values = 0
    while todo:
        at, end, descriptor = todo.pop()
        fields = descriptor.fields_by_number
        while at < end:
            tag, at = (raw[at], at + 1) if raw[at] < CONTINUES else _varint(raw, at)
            n_values += 1
            if tag & 7 == DELIMITED:
                size, start = (
                    (raw[at], at + 1) if at < end and raw[at] < CONTINUES else _varint(raw, at)
                )
                at = min(start + size, end)
                field = fields.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    n_messages += 1
                    todo.append((start, at, field.message_type))
                elif field is not None and field.cpp_type not in OF_OTHER_SIZES:
                    n_values += _count_varints(raw, start, at)
            elif tag & 7 == VARINT:
                _, at = _varint(raw, at)
            else:
                at += FIXED.get(tag & 7, 0)
            if n_values > most or n_messages > MOST_MESSAGES:
                raise TooLargeError(
                    f"request: expected at most {most} values and {MOST_MESSAGES} messages within "
                    "it, received more; send several requests"
                )


def _count_varints(raw: bytes, start: int, end: int) -> int:
    """How many numbers are packed between two places."""
    return int(np.count_nonzero(np.frombuffer(raw[start:end], np.uint8) < CONTINUES))


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it; beyond the end there are zeros."""
    if at < len(raw) and raw[at] < CONTINUES:  # most are short
        return raw[at], at + 1
    number = shift = 0
    for place in range(at, min(at + LONGEST_VARINT, len(raw))):
        byte = raw[place]
        number |= (byte & BITS) << shift
        if byte < CONTINUES:
            return number, place + 1
        shift += 7
    return number, max(at + 1, len(raw))
