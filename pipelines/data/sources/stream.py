"""Open a file as a stream of bytes, decompressed by its suffix."""

from __future__ import annotations

import lzma
from pathlib import Path

import pyarrow as pa

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
