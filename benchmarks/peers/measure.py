"""Run a command, and write what it took: python -m benchmarks.peers.measure OUT COMMAND...

This is a process of its own, because the peak memory that the system tells of a command is never
below that of the process that started it; this one is small.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ru_maxrss."""


def main(out: Path, command: list[str]) -> int:
    """Run `command`, write its cost to `out` as JSON, and return its exit code."""
    start = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    cost = {
        "run_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss * MAXRSS_UNIT / 2**30,
    }
    out.write_text(json.dumps(cost), encoding="utf-8")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
