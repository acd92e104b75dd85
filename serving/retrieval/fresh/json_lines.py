"""Reads the journal of earlier releases: one request a line, as JSON with a checksum.

    {"crc32":"5f1c2a90","entries":[{"seq":1,"time":"...","side":"item","op":"upsert",...}]}

`serving.retrieval.fresh.journal` converts such a file when it first opens its folder.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import orjson

from serving.retrieval.fresh.entry import Entry
from towers.errors import BundleError

HEAD, MIDDLE, TAIL = b'{"crc32":"', b'","entries":', b"}\n"
"""What stands in a line before the checksum (8 hexadecimal digits), after it, and at the end."""

logger = logging.getLogger(__name__)


def read_json_lines(path: Path) -> list[Entry]:
    """Read the entries that count: the last one of each id, in the order of their numbers.

    A line without an end is torn: the server stopped while it wrote the line, and nobody was told
    that the change was made. It is left out with a warning. A line that is whole but for a wrong
    last byte is not torn.

    Raises:
        BundleError: a line is damaged.
    """
    last: dict[tuple[str, int | str], Entry] = {}
    for entry in _entries(path):
        last.pop((entry.side, entry.id), None)
        last[entry.side, entry.id] = entry
    return list(last.values())


def _entries(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield from _parse(line)
            except (ValueError, KeyError, TypeError) as error:
                if line.endswith(b"\n") or _is_whole(line[:-1] + b"\n"):
                    raise BundleError(
                        f"{path}: line {number}: damaged: {error}; restore the file from a copy, "
                        "or remove the line and with it the changes that it holds"
                    ) from None
                logger.warning(
                    "%s: line %d: the server stopped while it wrote this change, so the change "
                    "is left out; nobody was told that it was made",
                    path,
                    number,
                )


def _is_whole(line: bytes) -> bool:
    """Whether a line is as it was written."""
    try:
        _parse(line)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def _parse(line: bytes) -> list[Entry]:
    """Read one line.

    Raises:
        ValueError: the line differs from its checksum.
    """
    start = len(HEAD) + 8 + len(MIDDLE)
    body = line[start : -len(TAIL)]
    if line != b"".join([HEAD, b"%08x" % zlib.crc32(body), MIDDLE, body, TAIL]):
        raise ValueError("it differs from its checksum")
    return [
        Entry(
            seq=value["seq"],
            time=datetime.fromisoformat(value["time"]),
            side=value["side"],
            id=value["id"],
            record=value.get("record"),
        )
        for value in orjson.loads(body)
    ]
