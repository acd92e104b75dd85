"""Open a file as a stream of bytes, decompressed by its suffix, and read its lines."""

from __future__ import annotations

import codecs
import lzma
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from towers.errors import ConfigError, DataError

PIECE = 1 << 20

BAD_COMPRESSION = (lzma.LZMAError, EOFError)
"""What reading such a stream raises, beside OSError."""


def open_stream(path: Path) -> pa.NativeFile:
    """Open a file; .gz, .bz2, .xz, .zst and .lz4 are decompressed.

    Raises:
        OSError: it cannot be read.
    """
    if path.suffix.lower() == ".xz":  # the one that Arrow does not know
        return pa.PythonFile(lzma.open(path), mode="r")
    return pa.input_stream(str(path), compression="detect")


def read_lines(path: Path, encoding: str) -> Iterator[tuple[int, bytes]]:
    """Read the lines of a text, in UTF-8 whatever its encoding is, with their numbers from 1.

    Raises:
        ConfigError: there is no such encoding.
        DataError: the file cannot be read.
    """
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ConfigError(
            f"{path}: expected an encoding that Python knows, such as 'utf-8' or 'latin-1', "
            f"received {encoding!r}"
        ) from None
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    rest, number = b"", 0
    try:
        with open_stream(path) as stream:
            while True:
                piece = stream.read(PIECE)
                text = piece if is_utf8 else decoder.decode(piece, not piece).encode()
                *whole, rest = (rest + text).split(b"\n")
                for line in whole:
                    number += 1
                    yield number, line
                if not piece:
                    break
    except (OSError, UnicodeError, *BAD_COMPRESSION) as error:
        raise DataError(
            f"{path}: cannot be read: {error}; check that it is whole, that you may read it, and "
            f"the table's encoding (now {encoding!r})"
        ) from None
    if rest:
        yield number + 1, rest
