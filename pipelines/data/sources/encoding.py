"""Say where the text of a file is not in its encoding, and which encoding it may be in."""

from __future__ import annotations

import codecs
from pathlib import Path

from pipelines.data.sources.stream import open_stream
from pipelines.table_config import FileFormat

BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SHOWN_BYTES = 20
PIECE = 1 << 20


def explain_undecodable(path: Path, source: FileFormat, error: Exception) -> tuple[str, str]:
    """Say which line of a file is not text in the encoding of `source`, and what to set instead.

    Returns the problem and the remedy; the problem is `error` if every line can be decoded.
    """
    setting = f"set the table's encoding (now {source.encoding!r})"
    with open_stream(path) as stream:
        beginning = stream.read(4)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if beginning.startswith(mark):
            return f"it begins as {encoding} text does", f'{setting}, to "{encoding}"'
    found = _undecodable(path, source.encoding)
    if found is None:
        return str(error), setting
    line, shown = found
    problem = f"line {line} is not text in {source.encoding}: {shown!r}"
    if b"\x00" in shown:
        return problem, f"the file is damaged, or no text; if it is text, {setting}"
    return problem, f'{setting}, for example to "latin-1", which reads {shown.decode("latin-1")!r}'


def _undecodable(path: Path, encoding: str) -> tuple[int, bytes] | None:
    """Find the first line that cannot be decoded, and the bytes around the place."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with open_stream(path) as stream:
        while True:
            piece = stream.read(PIECE)
            try:
                decoder.decode(piece, not piece)
            except UnicodeDecodeError as error:
                given = error.object  # the piece, behind what was kept of the piece before
                line += given[: error.start].count(b"\n")
                start = max(error.start - SHOWN_BYTES, given.rfind(b"\n", 0, error.start) + 1)
                rest = given[start : error.start + SHOWN_BYTES]
                return line, rest.split(b"\n")[0].rstrip(b"\r")
            if not piece:
                return None
            line += piece.count(b"\n")
