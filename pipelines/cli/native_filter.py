"""Sort the lines that native libraries write: a program that reads them from standard input.

Notes and warnings go to a log; errors, and what is no line of a log, go to standard error too. It
is a process of its own, so that the last words of a process that is killed by a fault are not lost.

Usage: native_filter.py [LOG]. The log is written if the folder of its folder is there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import BinaryIO

NOTE = re.compile(
    rb"[IW]\d{4} "  # absl and glog: I0000 00:00:1764280000.123456 4242 file.cc:59] ...
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "  # TensorFlow
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "  # the second line of a note of TensorFlow's
)
"""How a line begins that is a note or a warning."""


class Log:
    """A log that is made with its first line, once there is a place for it."""

    def __init__(self, path: Path | None) -> None:
        """Take the path; without one, nothing is kept."""
        self._path = path
        self._waiting: list[bytes] = []
        self._file: BinaryIO | None = None

    def write(self, line: bytes) -> None:
        """Append a line."""
        if self._path is None:
            return
        self._waiting.append(line)
        if self._file is None and self._path.parent.parent.is_dir():
            try:
                self._path.parent.mkdir(exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            except OSError:  # a log that cannot be written is no reason to stop
                self._path = None
                return
        if self._file is not None:
            self._file.write(b"".join(self._waiting))
            self._waiting.clear()


def main() -> None:
    """Sort lines until there are no more."""
    log = Log(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    for line in sys.stdin.buffer:
        log.write(line)
        if not NOTE.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
