"""How long tests wait for what should happen at once."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 180.0
"""A busy machine may take long for what an idle one does at once; whoever waits so long has waited
for what never happens."""


def wait_until(condition: Callable[[], bool], *, pause_s: float = 0.05) -> None:
    """Ask again and again until it holds."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "waited for what does not happen"
        time.sleep(pause_s)
