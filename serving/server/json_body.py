"""Bodies of JSON, parsed so that other threads are not held up for long.

A parser lets no other thread run before it is done. What it takes depends on how many values there
are, far more than on how many bytes: so bodies with more of them than any request needs are refused
before they are parsed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from serving.server.errors import TooLargeError

QUOTE, COMMA, COLON, LIST, OBJECT, SPACE = b'",:[{ '
VALUES = 4
"""Times `max_cells`, the values of a body at most: lists of several features, and what is around
them."""


def parse(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        orjson.JSONDecodeError: it is none.
    """
    with _without_collections():
        return orjson.loads(body)


def check_values(body: bytes, *, max_cells: int) -> None:
    """Refuse a body with too many values or names, which are counted by the bytes around them.

    Raises:
        TooLargeError: there are more than four times `max_cells` values, or `max_cells` names.
    """
    if len(body) <= max_cells:
        return
    found = np.frombuffer(body, np.uint8)
    after = found[1:]
    values = (found == COMMA) | (found == LIST) | (found == OBJECT)
    names = (found[:-1] == QUOTE) & ((after == COLON) | (after <= SPACE))
    for what, flags, most in (("values", values, VALUES * max_cells), ("names", names, max_cells)):
        if (count := np.count_nonzero(flags)) > most:
            raise TooLargeError(
                f"body: expected at most {most} {what} in one request, received about {count}; "
                "send several requests"
            )


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the garbage collector from looking at what is being made, again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
